//! A site whose controller is gone goes on with its schedule, and tells it afterwards.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde_json::Value;
use tests::{LIMIT, show, wait_for};

use crate::dist;
use crate::domains::{CONFIG, Site};

/// So long before it is due everything must be told.
const AHEAD: u64 = 60;

/// The configuration with `day` due once, soon, and `hour` each minute. Returns the line of `day`.
fn configure(site: &Site) -> Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let minute = (now + AHEAD) / 60 + 1;
    let day = format!("{} {} * * *", minute % 60, minute / 60 % 24);
    let config = CONFIG.replace("0 3 * * *", &day).replace("0 * * * *", "* * * * *");
    site.write("config", &config.replace("automatic = false\n", ""))?;
    site.done("-o import config config")?;
    Ok(day)
}

fn events(site: &Site) -> Result<Vec<Value>> {
    let output = site.fleet.barid(&["events", "--json", "schedule.site"])?;
    let lines = show(&output.stdout);
    Ok(lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

#[test]
fn a_site_that_is_cut_off_does_what_is_due_once_and_tells_it() -> Result<()> {
    let mut site = dist::site()?;
    site.write("motd", "hello\n")?;
    site.done("-o install ./motd common.adm:/etc/motd day")?;
    site.done("-o install ./hosts common.adm:/etc/hosts hour")?;
    site.done("-o dist --wait all")?;
    let hosts = fs::read_to_string(site.fleet.path().join("hosts"))?;
    let day = configure(&site)?;
    for relay in ["r1", "r2"] {
        let list = site.fleet.state(relay).join("removals");
        wait_for(&format!("{relay} to know the schedule"), LIMIT, || {
            let known = fs::read(&list).unwrap_or_default();
            Ok(known.windows(day.len()).any(|part| part == day.as_bytes()).then_some(()))
        })?;
    }
    site.fleet.kill("controller")?;
    fs::write(site.fleet.at("h1", "/etc/motd"), "changed by hand\n")?;
    fs::remove_file(site.fleet.at("h4", "/etc/motd"))?;
    for host in ["h1", "h4"] {
        wait_for(&format!("{host} to be put right"), 4 * LIMIT, || {
            Ok((site.at(host, "/etc/motd").as_deref() == Some("hello\n")).then_some(()))
        })?;
    }
    let noted = site.fleet.state("r1").join("site.json");
    wait_for("r1 to have noted it", LIMIT, || {
        let noted: Value = serde_json::from_slice(&fs::read(&noted)?)?;
        let said = &noted["day"]["said"];
        Ok((said["hosts"] == 4 && said["restored"] == 1 && said["failed"] == 0).then_some(()))
    })?;

    // It was done for today, whatever is killed; what is due each minute goes on.
    fs::write(site.fleet.at("h1", "/etc/motd"), "changed again\n")?;
    site.fleet.kill("r1")?;
    site.fleet.restart("r1")?;
    fs::remove_file(site.fleet.at("h1", "/etc/hosts"))?;
    wait_for("the next minute", 3 * LIMIT, || {
        Ok((site.at("h1", "/etc/hosts").as_deref() == Some(hosts.as_str())).then_some(()))
    })?;
    assert_eq!(site.at("h1", "/etc/motd").as_deref(), Some("changed again\n"));

    site.fleet.restart("controller")?;
    let told = |like: &str, by: &str| {
        wait_for(&format!("{like:?} by {by}"), LIMIT, || {
            let mut told = events(&site)?.into_iter();
            let is_it =
                |event: &Value| event["set"] == by && event["line"].to_string().contains(like);
            Ok(told.find(is_it))
        })
        .with_context(|| format!("{:#?}", events(&site)))
    };
    told("day, without the controller: put right: /etc/motd", "h[1,4]")?;
    told("day, without the controller: all is right", "h[2-3]")?;
    // Also by the one that was killed right after.
    told("day, due", "r[1-2]")?;
    Ok(())
}
