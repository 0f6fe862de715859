//! Alerts by their causes: each begins with its real cause, is told, and is over with it.
//!
//! Who is lost or silent is in `alerts`, what has happened in `rules`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use tests::clock::Clock;
use tests::{Fleet, LIMIT, PACE, Spec, binary, wait_for};

use crate::alerts::{give, lines, wait_alerts, wait_channels, wait_word};
use crate::full_disk::Disk;
use crate::order;

/// The controller's alerts go to a file from now on; where that is.
fn listen(fleet: &Fleet, settings: &str) -> Result<PathBuf> {
    let told = fleet.path().join("told");
    let channel = format!("{settings}channels.log.file = {{ path = \"{}\" }}\n", told.display());
    give(fleet, "controller", &channel)?;
    wait_channels(fleet, 1)?;
    Ok(told)
}

#[test]
fn all_children_of_a_relay_at_once_are_one_alert() -> Result<()> {
    let mut fleet = Fleet::tree(1, 3)?;
    let hosts = ["site1-host1", "site1-host2", "site1-host3"];
    let told = listen(&fleet, "")?;
    for host in hosts {
        fleet.kill(host)?;
    }
    let alerts = wait_alerts(&fleet, &["below-lost/site1-relay"])?;
    let summary = "site1-relay reaches nobody below it, 3 nodes: site1-host[1-3]";
    assert_eq!(alerts[0]["summary"], summary);
    wait_word(&told, "+below-lost/site1-relay")?;
    for host in hosts {
        fleet.restart(host)?;
    }
    wait_alerts(&fleet, &[])?;
    wait_word(&told, "-below-lost/site1-relay")?;
    Ok(())
}

#[test]
fn a_full_disk_is_an_alert_there_and_at_the_controller_until_there_is_room() -> Result<()> {
    let mut fleet = Fleet::new()?;
    let Some(disk) = Disk::mount(&fleet.state("poor"), 48) else { return Ok(()) };
    let told = listen(&fleet, "")?;
    // It says so itself, too.
    let here = fleet.path().join("here");
    give(&fleet, "poor", &format!("channels.log.file = {{ path = \"{}\" }}\n", here.display()))?;
    fleet.add(&Spec::new("host", "poor", "controller").at("lyon").with("min_free_mib = 16\n"))?;
    fleet.wait_up(1)?;
    disk.fill(8 << 20)?;
    let alerts = wait_alerts(&fleet, &["disk-low/poor"])?;
    assert_eq!(alerts[0]["summary"], "the state disk of poor is short of room");
    wait_word(&told, "+disk-low/poor")?;
    wait_word(&here, "+disk-low/poor")?;
    disk.clear()?;
    wait_alerts(&fleet, &[])?;
    wait_word(&told, "-disk-low/poor")?;
    wait_word(&here, "-disk-low/poor")?;
    // The disk goes before what is on it.
    fleet.kill("poor")?;
    Ok(())
}

#[test]
fn a_certificate_that_is_not_renewed_is_an_alert_until_it_is() -> Result<()> {
    /// How long certificates live, and how much is left when it is looked at.
    const LIFE: i64 = 3_600;
    const LEFT: i64 = 200;
    let Some(clock) = Clock::new()? else { return Ok(()) };
    let mut fleet = Fleet::prepared(binary()?, PACE, &["--certificate", "1h"], |_| Ok(()))?;
    // What was due in the time that is left out is another story.
    let told = listen(&fleet, "rules.schedule-missed.off = true\n")?;
    for node in ["controller", "h1"] {
        fleet.put(node, clock.place());
    }
    fleet.add(&Spec::new("host", "h1", "controller").at("lyon"))?;
    fleet.wait_up(1)?;
    // The host looks at it in minutes, and the controller when it starts.
    clock.set_ahead(LIFE - LEFT)?;
    fleet.kill("controller")?;
    fleet.restart("controller")?;
    let alerts = wait_alerts(&fleet, &["certificate-ending/h1"])?;
    let summary = "the certificate of h1 ends in 0 h and is not renewed";
    assert_eq!(alerts[0]["summary"], summary);
    wait_word(&told, "+certificate-ending/h1")?;
    // A node that starts with so little left asks for another one soon.
    fleet.kill("h1")?;
    fleet.restart("h1")?;
    wait_for("the certificate to be renewed", 2 * LIMIT, || {
        Ok(fleet.log("h1").contains("the certificate is renewed").then_some(()))
    })?;
    fleet.kill("controller")?;
    fleet.restart("controller")?;
    wait_alerts(&fleet, &[])?;
    wait_word(&told, "-certificate-ending/h1")?;
    Ok(())
}

#[test]
fn an_order_of_which_too_many_failed_is_an_alert() -> Result<()> {
    let mut fleet = Fleet::tree(1, 2)?;
    let told = listen(&fleet, "rules.orders-failing.percent = 60\n")?;
    let run = |line: &str| -> Result<String> {
        let args = ["run", "-a", "--shell", "--async", "--json", line];
        order(&fleet, &args)
    };
    // One of them comes too late.
    let half = run(&format!("mkdir {}", fleet.path().join("first").display()))?;
    fleet.wait_states(&half, &[("ok", 1), ("failed", 1)])?;
    let failed = run("exit 3")?;
    fleet.wait_states(&failed, &[("failed", 2)])?;
    let key = format!("orders-failing/{failed}");
    let alerts = wait_alerts(&fleet, &[&key])?;
    let summary = alerts[0]["summary"].as_str().context("a summary")?;
    assert!(summary.starts_with("2 of 2 hosts failed or were missed by "), "{summary}");
    wait_word(&told, &format!("+{key}"))?;
    // It lasts an hour, or as long as the controller lives.
    fleet.kill("controller")?;
    fleet.restart("controller")?;
    wait_alerts(&fleet, &[])?;
    wait_word(&told, &format!("-{key}"))?;
    Ok(())
}

#[test]
fn a_host_that_comes_and_goes_is_told_of_twice_and_not_each_time() -> Result<()> {
    const ROUNDS: usize = 5;
    let mut fleet = Fleet::tree(1, 2)?;
    let told = listen(&fleet, "damp_s = 45\n")?;
    let key = "host-lost/site1-host1";
    let (on, over) = (format!("+{key}"), format!("-{key}"));
    let count = |word: &str| -> Result<usize> {
        Ok(lines(&told)?.iter().filter(|other| *other == word).count())
    };
    for round in 1..=ROUNDS {
        fleet.kill("site1-host1")?;
        wait_alerts(&fleet, &[key])?;
        if round <= 2 {
            let what = format!("its beginning to be told, {round}");
            wait_for(&what, LIMIT, || Ok((count(&on)? == round).then_some(())))?;
        }
        fleet.restart("site1-host1")?;
        wait_alerts(&fleet, &[])?;
        if round == 1 {
            wait_word(&told, &over)?;
        }
    }
    // The second time it was told that it comes and goes; its end when it has not for so long.
    let words = wait_for("the last end to be told", 3 * LIMIT, || {
        Ok((count(&over)? == 2).then(|| lines(&told)))
    })??;
    assert_eq!(words, [&*on, &over, &on, &over], "{ROUNDS} times");
    Ok(())
}
