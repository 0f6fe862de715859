//! Weak links: everything a fleet does must also be done over a site's link that is slow, far,
//! lossy and sometimes dark.
//!
//! The link lies in this process, between the site's relay and the controller.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use simulations::wan::{Profile, UdpLink};
use tests::{Fleet, LIMIT, Spec, listing, sample_tree, wait_for};

use crate::order;

const DEST: &str = "/srv/app";
pub(crate) const HOSTS: [&str; 2] = ["site1-host1", "site1-host2"];
const DARK: Duration = Duration::from_secs(5);

/// A controller, and a site of two hosts behind a link of this profile.
pub(crate) fn behind(profile: &str) -> Result<(Fleet, UdpLink)> {
    let mut fleet = Fleet::new()?;
    let controller = fleet.listen("controller")?.parse().context("where it listens")?;
    let any = "127.0.0.1:0".parse().context("an address")?;
    let link = UdpLink::start(any, controller, &Profile::named(profile)?, 11)?;
    fleet.route("controller", link.address().to_string());
    fleet.add(&Spec::new("relay", "site1-relay", "controller").at("site1"))?;
    // Hosts enrol through their relay, which needs its own link for that.
    fleet.wait_up(1)?;
    for host in HOSTS {
        fleet.add(&Spec::new("host", host, "site1-relay").at("site1"))?;
    }
    fleet.wait_up(1 + HOSTS.len() as u64)?;
    Ok((fleet, link))
}

/// Waits until so many bytes more have come down the link.
fn wait_down(link: &UdpLink, more: u64) -> Result<()> {
    let before = link.link().traffic().down.delivered.bytes;
    wait_for(&format!("{more} bytes to come down the link"), LIMIT, || {
        let now = link.link().traffic().down.delivered.bytes;
        Ok((now >= before + more).then_some(()))
    })
}

#[test]
fn a_push_that_meets_a_blackout_ends_byte_for_byte() -> Result<()> {
    let (fleet, link) = behind("weak")?;
    let source = fleet.path().join("source");
    sample_tree(&source, 2_000_000)?;
    let text = source.to_str().context("a plain path")?;
    let id = order(&fleet, &["push", text, "--dest", DEST, "-a", "--async", "--json"])?;
    wait_down(&link, 300_000)?;
    link.link().darken(DARK);
    fleet.wait_states(&id, &[("ok", 2)])?;
    for host in HOSTS {
        assert_eq!(listing(&fleet.at(host, DEST))?, listing(&source)?, "{host}");
    }
    let traffic = link.link().traffic();
    assert!(traffic.down.blacked_out.packets > 0, "the push met no blackout: {traffic:?}");
    assert!(traffic.down.lost.packets > 0, "the link lost nothing: {traffic:?}");
    // Two hosts, and the content came over the link once, with what was lost and sent again.
    assert!(traffic.down.pushed.bytes < 3_500_000, "{traffic:?}");
    Ok(())
}

/// The relay is killed twenty times during one push. Each time what was on its way is lost, and a
/// piece that was not whole yet; what it had goes over the link once.
#[test]
fn a_relay_that_is_killed_twenty_times_fetches_nothing_twice() -> Result<()> {
    const BYTES: u64 = 6_000_000;
    const KILLS: u64 = 20;
    /// What the link holds (10 Mbit/s, 100 ms), a quarter more, a handshake and a piece.
    const IN_FLIGHT: u64 = 230_000;
    let (mut fleet, link) = behind("weak")?;
    let source = fleet.path().join("source");
    sample_tree(&source, usize::try_from(BYTES)?)?;
    let text = source.to_str().context("a plain path")?;
    let before = link.link().traffic().down.pushed.bytes;
    let id = order(&fleet, &["push", text, "--dest", DEST, "-a", "--async", "--json"])?;
    for _ in 0..KILLS {
        wait_down(&link, BYTES / (KILLS + 5))?;
        fleet.kill("site1-relay")?;
        fleet.restart("site1-relay")?;
    }
    fleet.wait_states(&id, &[("ok", 2)])?;
    for host in HOSTS {
        assert_eq!(listing(&fleet.at(host, DEST))?, listing(&source)?, "{host}");
    }
    let pushed = link.link().traffic().down.pushed.bytes - before;
    // The link loses one packet in a hundred; QUIC's own bytes are another four.
    let most = BYTES + BYTES / 15 + KILLS * IN_FLIGHT;
    assert!(pushed < most, "{pushed} bytes went down the link, at most {most} should");
    Ok(())
}

#[test]
fn a_run_that_meets_a_blackout_happens_once_and_is_answered() -> Result<()> {
    let (fleet, link) = behind("weak")?;
    let marks = fleet.path().join("marks");
    fs::create_dir(&marks)?;
    let line = format!("echo $BARID_NODE >> {}/$BARID_NODE; echo done", marks.display());
    link.link().darken(DARK);
    let args = ["run", "-a", "-t", "60s", "--async", "--json", &line];
    let id = order(&fleet, &args)?;
    let detail = fleet.wait_states(&id, &[("ok", 2)])?;
    assert!(detail.to_string().contains("done"), "{detail:#}");
    for host in HOSTS {
        assert_eq!(fs::read_to_string(marks.join(host))?, format!("{host}\n"));
    }
    let traffic = link.link().traffic();
    assert!(traffic.down.blacked_out.packets > 0, "the run met no blackout: {traffic:?}");
    Ok(())
}
