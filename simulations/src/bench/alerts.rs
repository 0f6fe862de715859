//! From a kill to the word of it: how long until somebody is told that a host, a relay or the
//! controller is gone, beside what the settings promise.
//!
//! Nodes beat as in the field, every 5 s, and what is wrong must last as long as by default. Each
//! dies once, at moments that have nothing to do with beats. The controller tells of hosts and
//! relays; of the controller, the relays that have channels do, each for its site. What is measured
//! ends when a channel has written it to a file.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tests::{Fleet, Spec, wait_for};

use crate::table::{self, Spread};

/// Of each kind so many die. As many relays besides are there to tell of the controller.
const EACH: usize = 5;
/// Hosts behind a relay.
const HOSTS: usize = 2;
/// Between two deaths: the moments are spread over a beat.
const APART: Duration = Duration::from_millis(1_300);
/// What is in force by default, said once more: it is what the bound is made of.
const HOLD_S: u64 = 10;
const GATHER_S: u64 = 5;
const BEAT_S: u64 = 5;
const MISSED: u64 = 3;
/// What docs/operations.md promises: rules and channels look every few seconds besides.
const BOUND: Duration = Duration::from_secs(40);
const LIMIT: Duration = Duration::from_secs(120);
/// Nodes beat as they would in the field; redialling is quick.
const PACE: &str = "redial_base_ms = 200\nredial_cap_ms = 2000\n";

/// Something that dies, and where it is told, as which word.
struct Death {
    at: Instant,
    told: PathBuf,
    key: String,
}

/// Measures all three.
pub(crate) fn measure(barid: &Path) -> Result<()> {
    let mut fleet = Fleet::with(barid.to_owned(), PACE)?;
    let root = give(&fleet, "controller")?;
    let mut speak = Vec::new();
    for no in 1..=2 * EACH {
        let (site, relay) = (format!("site{no}"), relay(no));
        if no > EACH {
            speak.push((give(&fleet, &relay)?, format!("controller-silent/{site}")));
        }
        fleet.add(&Spec::new("relay", &relay, "controller").at(&site))?;
        for n in 1..=HOSTS {
            fleet.add(&Spec::new("host", &host(no, n), &relay).at(&site))?;
        }
    }
    let nodes = (2 * EACH * (1 + HOSTS)) as u64;
    fleet.wait_up(nodes)?;

    let dead: Vec<_> = (EACH + 1..=2 * EACH).map(|no| (host(no, 1), "host-lost")).collect();
    let hosts = deaths(&mut fleet, &root, &dead)?;
    let dead: Vec<_> = (1..=EACH).map(|no| (relay(no), "relay-lost")).collect();
    let relays = deaths(&mut fleet, &root, &dead)?;
    let at = Instant::now();
    fleet.kill("controller")?;
    let controller = speak.into_iter().map(|(told, key)| Death { at, told, key });
    let controller = until_told(controller.collect())?;

    table::heading("From a kill to the word of it");
    let rows: Vec<Vec<String>> = [
        ("a host", "controller", hosts),
        ("a relay with hosts", "controller", relays),
        ("the controller", "relays", controller),
    ]
    .into_iter()
    .map(|(what, who, times)| {
        let mut row = vec![what.to_owned(), who.to_owned()];
        row.extend(Spread::of(times).cells());
        row.push(table::time(BOUND));
        row
    })
    .collect();
    let head = ["kill -9 of", "told by", "kills", "p50", "p99", "least", "most", "the bound"];
    table::print(&head, &rows);
    println!(
        "\nThe bound: {MISSED} beats of {BEAT_S} s, {HOLD_S} s for which it must last, \
         {GATHER_S} s in which news are gathered, and what it takes until rules look again. Of a \
         relay's hosts nothing is told."
    );
    Ok(())
}

fn relay(no: usize) -> String {
    format!("site{no}-relay")
}

fn host(no: usize, n: usize) -> String {
    format!("site{no}-host{n}")
}

/// Gives a node a channel. Returns where it writes.
fn give(fleet: &Fleet, node: &str) -> Result<PathBuf> {
    let (state, told) = (fleet.state(node), fleet.path().join(format!("{node}.told")));
    fs::create_dir_all(&state)?;
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700))?;
    let mut text = format!("gather_s = {GATHER_S}\n");
    for kind in ["host-lost", "relay-lost", "controller-silent"] {
        text += &format!("rules.{kind}.hold_s = {HOLD_S}\n");
    }
    text += &format!("channels.file.file = {{ path = \"{}\" }}\n", told.display());
    fs::write(state.join("alerts.toml"), text)?;
    Ok(told)
}

/// Kills these, one after the other, and measures how long it takes until each is told.
fn deaths(fleet: &mut Fleet, told: &Path, dead: &[(String, &str)]) -> Result<Vec<Duration>> {
    let mut deaths = Vec::new();
    for (name, kind) in dead {
        deaths.push(Death { at: Instant::now(), told: told.into(), key: format!("{kind}/{name}") });
        fleet.kill(name)?;
        std::thread::sleep(APART);
    }
    until_told(deaths)
}

fn until_told(mut deaths: Vec<Death>) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    wait_for("everything to be told", LIMIT, || {
        let mut left = Vec::new();
        for death in deaths.drain(..) {
            match is_told(&death.told, &death.key)? {
                true => times.push(death.at.elapsed()),
                false => left.push(death),
            }
        }
        deaths = left;
        Ok(deaths.is_empty().then_some(()))
    })?;
    Ok(times)
}

/// Whether a file says that an alert is on, and nothing of a host of a relay that is gone.
fn is_told(path: &Path, key: &str) -> Result<bool> {
    let text = fs::read_to_string(path).unwrap_or_default();
    // The last line may not be whole yet.
    for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
        let told: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        for alert in told["alerts"].as_array().context("alerts")? {
            let other = alert["key"].as_str().context("a key")?;
            let behind = (1..=EACH).any(|no| other.starts_with(&format!("host-lost/site{no}-")));
            if behind {
                bail!("{other} is told, and its relay is gone");
            }
            if other == key && alert["status"] == "firing" {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
