//! Alerts about what has happened: each by its real cause, told, and over when the cause is gone.
//!
//! What has happened counts for a quarter of an hour or an hour, so these fleets live by a clock
//! that the test sets.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::clock::Clock;
use tests::{Fleet, LIMIT, PACE, Place, Spec, binary, connect, show, wait_for};

use crate::alerts::{give, wait_alerts, wait_channels, wait_word};
use crate::bus::{Publisher, wait_heard};
use crate::dist;
use crate::metrics::scrape;

/// After which whatever has happened is over.
const LATER: i64 = 3_700;
/// How long a controller is away.
const AWAY: i64 = 3 * 3_600;

/// A controller whose alerts go to a file, and where that is. Nodes of these names live by the
/// clock.
fn fleet(clock: &Clock, names: &[&str], settings: &str) -> Result<(Fleet, PathBuf)> {
    let places: BTreeMap<String, Place> =
        names.iter().map(|name| ((*name).to_owned(), clock.place())).collect();
    let fleet = Fleet::placed(binary()?, PACE, &std::env::temp_dir(), places)?;
    let told = fleet.path().join("told");
    let channel = format!("{settings}channels.log.file = {{ path = \"{}\" }}\n", told.display());
    give(&fleet, "controller", &channel)?;
    wait_channels(&fleet, 1)?;
    Ok((fleet, told))
}

/// A relay with two hosts, all at one site.
fn grow(fleet: &mut Fleet) -> Result<()> {
    fleet.add(&Spec::new("relay", "relay", "controller").at("lyon"))?;
    for host in ["h1", "h2"] {
        fleet.add(&Spec::new("host", host, "relay").at("lyon"))?;
    }
    fleet.wait_up(3)
}

/// Waits until this is no alert any more. There may be others: the hour that is left out has a
/// schedule, too.
fn wait_gone(fleet: &Fleet, key: &str) -> Result<()> {
    wait_for(&format!("{key} to be over"), LIMIT, || {
        let alerts = fleet.json(&["alerts", "--json"])?;
        let mut alerts = alerts.as_array().context("alerts")?.iter();
        Ok((!alerts.any(|alert| alert["key"] == key)).then_some(()))
    })
}

#[test]
fn clocks_that_are_apart_are_one_alert_until_they_agree() -> Result<()> {
    let Some(clock) = Clock::new()? else { return Ok(()) };
    let (mut fleet, told) = fleet(&clock, &["h1", "h2"], "")?;
    grow(&mut fleet)?;
    wait_alerts(&fleet, &[])?;
    clock.set_ahead(90)?;
    wait_word(&told, "+clock-apart/lyon")?;
    let summary = wait_for("both hosts in one alert", LIMIT, || {
        let alerts = wait_alerts(&fleet, &["clock-apart/lyon"])?;
        let summary = alerts[0]["summary"].as_str().context("a summary")?.to_owned();
        Ok(summary.starts_with("h[1-2]: ").then_some(summary))
    })?;
    assert!(summary.contains(" s ahead of that of the parent relay"), "{summary}");
    clock.set_ahead(0)?;
    wait_alerts(&fleet, &[])?;
    wait_word(&told, "-clock-apart/lyon")?;
    Ok(())
}

#[test]
fn a_limit_that_was_reached_is_an_alert_for_an_hour() -> Result<()> {
    let Some(clock) = Clock::new()? else { return Ok(()) };
    let (mut fleet, told) = fleet(&clock, &["controller", "relay", "h1", "h2"], "")?;
    grow(&mut fleet)?;
    // Somebody has subscribed, and reads nothing.
    let socket = fleet.state("h1").join("node.sock");
    let mut deaf = connect(&socket)?;
    write!(
        deaf,
        "POST /v1/bus/sub?subject=flood HTTP/1.1\r\nhost: barid\r\ncontent-length: 0\r\n\r\n"
    )?;
    wait_heard(&fleet, "h1", "flood", true)?;
    let mut publisher = Publisher(connect(&socket)?);
    for _ in 0..3_000 {
        publisher.publish("flood", &[b'x'; 4_000])?;
    }
    let alerts = wait_alerts(&fleet, &["limit-reached/lyon"])?;
    let summary = alerts[0]["summary"].as_str().context("a summary")?;
    assert_eq!(summary, "h1: messages of the bus found no room and were dropped");
    wait_word(&told, "+limit-reached/lyon")?;
    drop(deaf);
    wait_for("all that was dropped to be told", LIMIT, || {
        let dropped = scrape(&fleet, "h1", "/metrics")?
            .value("barid_bus_dropped_total", &[("for", "subscriber")])
            .context("a count")?;
        let output = fleet.barid(&["events", "--json", "--since", "1h", "bus.dropped"])?;
        let lines = show(&output.stdout);
        let events: Vec<Value> =
            lines.lines().map(|line| Ok(serde_json::from_str(line)?)).collect::<Result<_>>()?;
        let told: u64 = events.iter().filter_map(|event| event["count"].as_u64()).sum();
        Ok((told as f64 == dropped).then_some(()))
    })?;
    clock.set_ahead(LATER)?;
    wait_gone(&fleet, "limit-reached/lyon")?;
    wait_word(&told, "-limit-reached/lyon")?;
    Ok(())
}

#[test]
fn a_distribution_that_was_missed_is_an_alert_for_an_hour() -> Result<()> {
    let Some(clock) = Clock::new()? else { return Ok(()) };
    let names = ["controller", "r1", "r2", "h1", "h2", "h3", "h4"];
    let (fleet, told) = fleet(&clock, &names, "")?;
    let mut site = dist::site_of(fleet)?;
    site.done("-o install ./hosts common.adm:/etc/hosts hour")?;
    let configure = |site: &crate::domains::Site, lines: &str| -> Result<()> {
        let hour = "[frequency.hour]\ncron = \"0 * * * *\"\nautomatic = false\n";
        ensure!(crate::domains::CONFIG.contains(hour), "the examples have another frequency");
        let lines = format!("[frequency.hour]\n{lines}");
        site.write("config", &crate::domains::CONFIG.replace(hour, &lines))?;
        site.done("-o import config config").map(drop)
    };
    configure(&site, "cron = \"* * * * *\"\n")?;
    wait_for("it to be begun when it is due", 3 * LIMIT, || {
        let all = site.fleet.json(&["file", "schedule", "--json"])?;
        let mut all = all.as_array().context("frequencies")?.iter();
        let hour = all.find(|one| one["frequency"] == "hour").context("the frequency")?;
        Ok((hour["last_ms"].as_u64() > Some(0)).then_some(()))
    })?;
    // It is due while the controller is away.
    site.fleet.kill("controller")?;
    clock.set_ahead(AWAY)?;
    site.fleet.restart("controller")?;
    site.fleet.wait_up(6)?;
    let alerts = wait_alerts(&site.fleet, &["schedule-missed/controller"])?;
    let summary = alerts[0]["summary"].as_str().context("a summary")?;
    assert!(summary.contains("distributions were missed"), "{summary}");
    wait_word(&told, "+schedule-missed/controller")?;
    configure(&site, "cron = \"* * * * *\"\nautomatic = false\n")?;
    clock.set_ahead(AWAY + LATER)?;
    wait_alerts(&site.fleet, &[])?;
    wait_word(&told, "-schedule-missed/controller")?;
    Ok(())
}

#[test]
fn many_errors_are_an_alert_until_there_are_fewer() -> Result<()> {
    let Some(clock) = Clock::new()? else { return Ok(()) };
    let names = ["controller", "relay", "h1", "h2"];
    let (mut fleet, told) = fleet(&clock, &names, "rules.errors-many.count = 4\n")?;
    grow(&mut fleet)?;
    let fail = || -> Result<()> {
        let output = fleet.barid(&["run", "-w", "h[1-2]", "echo no room; exit 3"])?;
        ensure!(!output.status.success(), "{}", show(&output.stdout));
        Ok(())
    };
    fail()?;
    wait_alerts(&fleet, &[])?;
    fail()?;
    let alerts = wait_alerts(&fleet, &["errors-many/fleet"])?;
    let summary = alerts[0]["summary"].as_str().context("a summary")?;
    assert!(summary.starts_with("4 errors within half an hour, most often: "), "{summary}");
    wait_word(&told, "+errors-many/fleet")?;
    clock.set_ahead(LATER)?;
    wait_gone(&fleet, "errors-many/fleet")?;
    wait_word(&told, "-errors-many/fleet")?;
    Ok(())
}
