//! Bad children: one that is slow beyond use, one that is stopped, one that is never heard again,
//! one without room. Their siblings get what is theirs all the same, and the relay does not grow.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::Signal;
use simulations::wan::{Loss, Profile, Shape, UdpLink, Way};
use tests::{Fleet, LIMIT, Spec, listing, sample_tree, wait_for};

use crate::full_disk::Disk;
use crate::{answer, order};

const RELAY: &str = "r1";
const GOOD: [&str; 6] = ["good1", "good2", "good3", "good4", "good5", "good6"];
/// What each push weighs, and how much the relay may grow by all of it, in KiB: what it may keep
/// unacknowledged for each bad child, and as much again.
const BYTES: usize = 3_000_000;
const MOST: u64 = 32 << 10;

fn spec(role: &'static str, name: &str, parent: &str, config: &str) -> Spec {
    Spec {
        role,
        name: name.into(),
        site: "lyon".into(),
        parents: vec![parent.into()],
        config: config.into(),
    }
}

/// Pushes a tree of its own to everybody, and waits until the good ones have it.
fn push(fleet: &Fleet, name: &str, to: &[&str]) -> Result<(String, Duration)> {
    let source = fleet.path().join(name);
    sample_tree(&source, BYTES)?;
    // No two trees share their large file.
    std::fs::write(source.join("big.bin"), noise(name))?;
    let text = source.to_str().context("a plain path")?;
    let dest = format!("/srv/{name}");
    let begun = Instant::now();
    let args = [&["push", text, "--dest", &dest, "--async", "--json"], to].concat();
    let id = order(fleet, &args)?;
    wait_for("the good ones to have it", LIMIT, || {
        let detail = fleet.order(&id)?;
        let done = |host: &&str| answer(&detail, host).is_ok_and(|a| a["state"] == "ok");
        Ok(GOOD.iter().all(done).then_some(()))
    })?;
    let took = begun.elapsed();
    for host in GOOD {
        assert_eq!(listing(&fleet.at(host, &dest))?, listing(&source)?, "{host}");
    }
    Ok((id, took))
}

/// Bytes that do not compress, other ones for each name.
fn noise(name: &str) -> Vec<u8> {
    let mut state = name.bytes().fold(0x9e37_79b9_7f4a_7c15_u64, |state, byte| {
        (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(&mut next).flatten().take(BYTES).collect()
}

fn kib(fleet: &Fleet, field: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", fleet.pid(RELAY)?))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)).context("a field")?;
    Ok(line.split_whitespace().next().context("a number")?.parse()?)
}

#[test]
fn bad_children_hold_nobody_up() -> Result<()> {
    let mut fleet = Fleet::new()?;
    fleet.add(&spec("relay", RELAY, "controller", ""))?;
    fleet.wait_up(1)?;
    for host in GOOD {
        fleet.add(&spec("host", host, RELAY, ""))?;
    }
    fleet.add(&spec("host", "stopped", RELAY, ""))?;
    let disk = Disk::mount(&fleet.state("full"), 48);
    if disk.is_some() {
        fleet.add(&spec("host", "full", RELAY, "min_free_mib = 16\n"))?;
    }
    let relay = fleet.listen(RELAY)?.parse()?;
    let line = |seed| -> Result<UdpLink> {
        let (any, profile) = ("127.0.0.1:0".parse()?, Profile::named("lan")?);
        Ok(UdpLink::start(any, relay, &profile, seed)?)
    };
    let (drip, mute) = (line(1)?, line(2)?);
    for (name, line) in [("drip", &drip), ("mute", &mute)] {
        fleet.route(RELAY, line.address().to_string());
        fleet.add(&spec("host", name, RELAY, ""))?;
    }
    let nodes = GOOD.len() as u64 + 4 + u64::from(disk.is_some());
    fleet.wait_up(nodes)?;
    let (_, alone) = push(&fleet, "before", &["-w", "good[1-6]"])?;

    fleet.signal("stopped", Signal::STOP)?;
    drip.link().reshape(Way::Down, Shape { rate: Some(8_000), queue: 64_000, ..Shape::open() })?;
    mute.link().reshape(Way::Up, Shape { loss: Loss::Random(1.0), ..Shape::open() })?;
    if let Some(disk) = &disk {
        disk.fill(8 << 20)?;
    }
    let before = kib(&fleet, "VmRSS:")?;
    let (id, beside) = push(&fleet, "beside", &["-a"])?;
    let detail = fleet.order(&id)?;
    for bad in ["drip", "mute", "stopped"] {
        let ok = answer(&detail, bad).is_ok_and(|answer| answer["state"] == "ok");
        assert!(!ok, "{bad} is not bad at all");
    }
    let grown = kib(&fleet, "VmHWM:")?.saturating_sub(before);
    println!(
        "siblings: {:.2} s alone, {:.2} s beside bad ones, {:.2} of it; relay grew by {grown} KiB",
        alone.as_secs_f64(),
        beside.as_secs_f64(),
        beside.as_secs_f64() / alone.as_secs_f64()
    );
    assert!(grown < MOST, "the relay has grown by {grown} KiB");

    // They are well again, and get what waited for them.
    fleet.signal("stopped", Signal::CONT)?;
    let lan = Profile::named("lan")?;
    drip.link().reshape(Way::Down, lan.down)?;
    mute.link().reshape(Way::Up, lan.up)?;
    let ok = GOOD.len() as u64 + 3;
    match disk {
        Some(_) => fleet.wait_states(&id, &[("ok", ok), ("refused", 1)])?,
        None => fleet.wait_states(&id, &[("ok", ok)])?,
    };
    Ok(())
}

/// A site's line passes nothing for a minute, in the middle of a push and without a word to
/// anybody. Both ends notice, and everything goes on by itself.
#[test]
fn a_minute_in_the_dark_is_noticed_at_both_ends_and_got_over() -> Result<()> {
    const DARK: Duration = Duration::from_secs(60);
    let mut fleet = Fleet::new()?;
    let controller = fleet.listen("controller")?.parse()?;
    let line = UdpLink::start("127.0.0.1:0".parse()?, controller, &Profile::named("weak")?, 3)?;
    fleet.route("controller", line.address().to_string());
    fleet.add(&spec("relay", RELAY, "controller", ""))?;
    fleet.wait_up(1)?;
    fleet.add(&spec("host", "web", RELAY, ""))?;
    fleet.wait_up(2)?;
    let source = fleet.path().join("source");
    sample_tree(&source, BYTES)?;
    let text = source.to_str().context("a plain path")?;
    let id = order(&fleet, &["push", text, "--dest", "/srv/app", "-a", "--async", "--json"])?;
    let before = line.link().traffic().down.delivered.bytes;
    wait_for("some of it to come down", LIMIT, || {
        Ok((line.link().traffic().down.delivered.bytes > before + 500_000).then_some(()))
    })?;
    line.link().darken(DARK);
    wait_for("the controller to miss the site", LIMIT, || {
        let hosts = fleet.json(&["hosts", "--json"])?;
        let hosts = hosts.as_array().context("a list")?;
        Ok(hosts.iter().all(|host| host["up"] == false).then_some(()))
    })?;
    wait_for("the site to miss the controller", LIMIT, || {
        let silent = "nothing new from the controller";
        Ok((fleet.log("web").contains(silent) && fleet.log(RELAY).contains("unlinked"))
            .then_some(()))
    })?;
    wait_for("everything to be well again", DARK + LIMIT, || {
        let ok = answer(&fleet.order(&id)?, "web").is_ok_and(|answer| answer["state"] == "ok");
        Ok(ok.then_some(()))
    })?;
    assert_eq!(listing(&fleet.at("web", "/srv/app"))?, listing(&source)?);
    let traffic = line.link().traffic();
    assert!(traffic.down.blacked_out.packets > 0, "{traffic:?}");
    Ok(())
}
