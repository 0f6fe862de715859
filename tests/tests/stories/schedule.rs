//! Turns: hosts of one relay follow each other, wait for their windows, and miss what expires.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tests::clock::Clock;
use tests::{Fleet, LIMIT, binary, show, wait_for};

use crate::dist;
use crate::domains::{CONFIG, Site};

/// Seconds since 1970.
fn now() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())
}

/// The configuration with this in the table of frequency `hour`, and the site of the hosts.
fn configure(site: &Site, lines: &str) -> Result<std::process::Output> {
    let hour = "[frequency.hour]\ncron = \"0 * * * *\"\nautomatic = false\n";
    ensure!(CONFIG.contains(hour), "the configuration of the examples is another");
    site.write("config", &CONFIG.replace(hour, &format!("[frequency.hour]\n{lines}")))?;
    site.fdist("-o import config config")
}

fn turns(site: &Site, hosts: &[&str]) -> Result<Vec<u64>> {
    let args = [&["file", "schedule", "--json"], hosts].concat();
    let all = site.fleet.json(&args)?;
    let all = all.as_array().context("frequencies")?;
    let hour = all.iter().find(|one| one["frequency"] == "hour").context("the frequency")?;
    let turns = hour["turns"].as_array().context("turns")?;
    let time = |host: &&str| {
        let turn = turns.iter().find(|turn| turn["host"] == **host);
        turn.and_then(|turn| turn["at_ms"].as_u64()).context("a turn")
    };
    hosts.iter().map(time).collect()
}

#[test]
fn hosts_have_turns_and_miss_what_no_window_opens_for() -> Result<()> {
    let site = dist::site()?;
    site.done("-o install ./hosts common.adm:/etc/hosts hour")?;
    let refused = |lines: &str, why: &str| -> Result<()> {
        let output = configure(&site, lines)?;
        let text = show(&output.stderr);
        ensure!(output.status.code() == Some(1) && text.contains(why), "{text}");
        ensure!(text.contains("config") && text.contains("line "), "{text}");
        Ok(())
    };
    refused("cron = \"0 * * * *\"\nsplay = \"soon\"\n", "frequency hour: splay \"soon\"")?;
    refused("cron = \"0 * * * *\"\nwindows = [\"at night\"]\n", "frequency hour: windows: ")?;
    refused("cron = \"0 * * * *\"\nsplay = \"2h\"\nexpires = \"1h\"\n", "longer than it has")?;
    refused("cron = \"0 * * * *\"\nsplay = \"1h\"\n", "60m until it is due again")?;
    refused("cron = \"0 * * * *\"\nexpires = \"12h\"\n", "60m until it is due again")?;

    // Once a year: the three hosts of r1 follow each other, h4 is alone behind r2.
    let yearly = "cron = \"0 0 1 1 *\"\nsplay = \"30m\"\n";
    ensure!(configure(&site, yearly)?.status.success());
    let mut of_r1 = turns(&site, &["h1", "h2", "h3"])?;
    let of_r2 = turns(&site, &["h4"])?[0];
    of_r1.sort_unstable();
    assert_eq!(of_r1, [of_r2, of_r2 + 600_000, of_r2 + 1_200_000]);
    let text = site.done("-o schedule h1 h4")?;
    assert!(text.lines().count() >= 3 && text.contains("h4"), "{text}");
    site.refused("-o schedule nosuch", 1, "nosuch")?;

    // Due every minute, where no window opens today or tomorrow: nobody gets it, and it is said.
    let days = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
    // 1970 began on a Thursday.
    let later = days[usize::try_from((now()? / 86_400 + 4 + 3) % 7)?];
    let closed = format!("cron = \"* * * * *\"\nwindows = [\"{later}\"]\nexpires = \"1s\"\n");
    ensure!(configure(&site, &closed)?.status.success());
    let missed = site.fleet.first_event("schedule.missed", 3 * LIMIT)?;
    let line = missed["line"].as_str().context("a line")?;
    assert!(line.contains("4 hosts had no turn in time: h[1-4]"), "{line}");
    let has = |host: &str| fs::exists(site.fleet.at(host, "/etc/hosts"));
    for host in ["h1", "h2", "h3", "h4"] {
        assert!(!has(host)?, "{host}: no window was open");
    }
    assert_eq!(site.no("-o status")?, "common.adm:/etc/hosts: h1 h2 h3 h4\n");

    let open = "cron = \"* * * * *\"\nsplay = \"2s\"\nwindows = [\"00-12,12-24\"]\n";
    ensure!(configure(&site, open)?.status.success());
    wait_for("everybody to have had his turn", 3 * LIMIT, || {
        let output = site.fdist("-o status")?;
        Ok(output.status.success().then_some(()))
    })?;
    for host in ["h1", "h2", "h3", "h4"] {
        assert!(has(host)?, "{host}");
    }
    Ok(())
}

/// A link on which nothing is heard for so long as the story takes stays up.
const CALM: &str = "beat_interval_ms = 60000\nredial_base_ms = 200\nredial_cap_ms = 2000\n";

#[test]
fn what_comes_after_its_window_has_closed_begins_in_the_next() -> Result<()> {
    let Some(clock) = Clock::new()? else { return Ok(()) };
    let nodes = ["controller", "r1", "r2", "h1", "h2", "h3", "h4"];
    let places = nodes.map(|node| (node.to_owned(), clock.place())).into();
    let fleet = Fleet::placed(binary()?, CALM, &std::env::temp_dir(), places)?;
    let site = dist::site_of(fleet)?;
    site.done("-o install ./hosts common.adm:/etc/hosts hour")?;
    let has = |host: &str| fs::exists(site.fleet.at(host, "/etc/hosts"));

    // The window is a minute, and opens after the controller has looked at its configuration.
    let now = now()?;
    let minute = now / 60 + 2;
    let ahead = i64::try_from(minute * 60 - 30 - now)?;
    clock.set_ahead(ahead)?;
    let at = |minute: u64| format!("{:02}:{:02}", minute / 60 % 24, minute % 60);
    let window = format!("{}-{}", at(minute), at(minute + 1));
    let cron = format!("{} * * * *", minute % 60);
    let hourly = format!("cron = \"{cron}\"\nzone = \"UTC\"\nwindows = [\"{window}\"]\n");
    ensure!(configure(&site, &hourly)?.status.success());
    // What is sent to it waits.
    site.fleet.signal("h4", Signal::STOP)?;
    wait_for("the others to have had their turn", LIMIT, || {
        Ok((has("h1")? && has("h2")? && has("h3")?).then_some(()))
    })?;
    clock.set_ahead(ahead + 60)?;
    site.fleet.signal("h4", Signal::CONT)?;
    let missed = site.fleet.first_event("dist.expired", LIMIT)?;
    let line = missed["line"].as_str().context("a line")?;
    assert!(missed["set"] == "h4" && line.contains("its window has closed"), "{missed:#}");
    assert!(!has("h4")?, "it has begun outside its window");
    site.wait_status("-o status", "common.adm:/etc/hosts: h4\n")?;

    let open = "cron = \"* * * * *\"\nwindows = [\"00-12,12-24\"]\n";
    ensure!(configure(&site, open)?.status.success());
    wait_for("h4 to have had its turn", 3 * LIMIT, || Ok(has("h4")?.then_some(())))
}
