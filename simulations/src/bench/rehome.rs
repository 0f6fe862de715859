//! From the death of a relay to its hosts being behind another: relays that are killed, and relays
//! that stand still with all their links in place, as behind a line that is half open.
//!
//! Nodes beat, redial and look for parents as by default. The moments are spread over a beat. What
//! is measured ends when the controller lists the host below its second parent; then a command goes
//! to all of them.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tests::{Fleet, Spec, wait_for};

use crate::table::{self, Spread};

/// So many relays end in each way.
const EACH: usize = 5;
/// Hosts behind each.
const HOSTS: usize = 4;
/// Between two ends.
const APART: Duration = Duration::from_millis(1_300);
/// What is promised.
const BOUND: Duration = Duration::from_secs(30);
const LIMIT: Duration = Duration::from_secs(120);

/// How a relay ends.
#[derive(Clone, Copy)]
enum End {
    Killed,
    Still,
}

/// Measures both.
pub(crate) fn measure(barid: &Path) -> Result<()> {
    let mut fleet = Fleet::with(barid.to_owned(), "")?;
    for site in 1..=2 * EACH {
        let at = format!("site{site}");
        for relay in [first(site), second(site)] {
            fleet.add(&Spec::new("relay", &relay, "controller").at(&at))?;
        }
        for n in 1..=HOSTS {
            let spec = Spec::new("host", &host(site, n), &first(site)).at(&at);
            fleet.add(&Spec { parents: vec![first(site), second(site)], ..spec })?;
        }
    }
    fleet.wait_up((2 * EACH * (2 + HOSTS)) as u64)?;
    let home = (1..=2 * EACH).map(|site| (Instant::now(), site)).collect();
    until_behind(&fleet, home, first)?;

    let mut rows = Vec::new();
    for (what, end, sites) in [
        ("is killed (-9)", End::Killed, 1..=EACH),
        ("stands still, links in place", End::Still, EACH + 1..=2 * EACH),
    ] {
        let mut ended = Vec::new();
        for site in sites {
            ended.push((Instant::now(), site));
            match end {
                End::Killed => fleet.kill(&first(site))?,
                End::Still => fleet.signal(&first(site), Signal::STOP)?,
            }
            std::thread::sleep(APART);
        }
        let mut row = vec![what.to_owned()];
        row.extend(Spread::of(until_behind(&fleet, ended, second)?).cells());
        row.push(table::time(BOUND));
        rows.push(row);
    }
    let said = fleet.barid(&["run", "-w", "site[1-10]-host[1-4]", "-b", "--", "true"])?;
    ensure!(said.status.success(), "a run after it: {}", tests::show(&said.stderr));

    table::heading("From the end of a relay to its hosts being behind another");
    let head = ["the relay", "hosts", "p50", "p99", "least", "most", "the bound"];
    table::print(&head, &rows);
    Ok(())
}

fn first(site: usize) -> String {
    format!("site{site}-relay1")
}

fn second(site: usize) -> String {
    format!("site{site}-relay2")
}

fn host(site: usize, n: usize) -> String {
    format!("site{site}-host{n}")
}

/// Waits until the hosts of these sites are up behind a relay. How long each took since its moment.
fn until_behind(
    fleet: &Fleet,
    since: Vec<(Instant, usize)>,
    relay: fn(usize) -> String,
) -> Result<Vec<Duration>> {
    let names =
        |(at, site): (Instant, usize)| (1..=HOSTS).map(move |n| (at, host(site, n), relay(site)));
    let mut left: Vec<_> = since.into_iter().flat_map(names).collect();
    let mut times = Vec::new();
    wait_for("hosts to be behind their relay", LIMIT, || {
        let hosts = fleet.json(&["hosts", "--json"])?;
        let hosts = hosts.as_array().context("a list of hosts")?;
        left.retain(|(at, name, relay)| {
            let row = hosts.iter().find(|row| row["name"] == name.as_str());
            let there = row.is_some_and(|row| row["parent"] == relay.as_str() && row["up"] == true);
            times.extend(there.then(|| at.elapsed()));
            !there
        });
        Ok(left.is_empty().then_some(()))
    })?;
    Ok(times)
}
