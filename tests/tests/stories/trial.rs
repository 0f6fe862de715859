//! A trial by kill -9: relays and hosts die in the middle of runs, round after round, and a file at
//! each host is the witness of what really started. `barid bench kill` is the same with hundreds of
//! hosts and more rounds.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tests::{Fleet, LIMIT, until, wait_for};

use crate::order;

const SITES: usize = 3;
const HOSTS: usize = 3;
const ROUNDS: usize = 4;

#[test]
fn whoever_is_killed_nothing_starts_twice_and_everybody_answers() -> Result<()> {
    let mut fleet = Fleet::tree(SITES, HOSTS)?;
    let mut sums = BTreeMap::<String, usize>::new();
    for round in 0..ROUNDS {
        let dir = fleet.path().join(format!("round{round}"));
        fs::create_dir(&dir)?;
        for state in play(&mut fleet, &dir, round)? {
            *sums.entry(state).or_default() += 1;
        }
        fleet.wait_up((SITES * (HOSTS + 1)) as u64)?;
    }
    // Whoever was not killed, and that is most of them, has carried out every order.
    let ok = sums.get("ok").copied().unwrap_or_default();
    ensure!(ok >= ROUNDS * (SITES * HOSTS - 2), "{sums:?}");
    Ok(())
}

/// One run with deaths in it. Returns the states of all hosts.
fn play(fleet: &mut Fleet, dir: &Path, round: usize) -> Result<Vec<String>> {
    let at = dir.display();
    let go = until(&dir.join("go"));
    let line = format!("echo x >> {at}/$BARID_NODE; echo x >> {at}/all; {go}");
    let sets = "site[1-3]-host[1-3]";
    let id =
        order(fleet, &["run", "-w", sets, "-t", "60s", "-u", "60s", "--async", "--json", &line])?;
    // The moment moves through the run: when the first has started, when more have, when all have.
    let begun = 1 + round * (SITES * HOSTS - 1) / (ROUNDS - 1);
    wait_for("the run to be under way", LIMIT, || {
        let started = fs::read_to_string(dir.join("all")).unwrap_or_default();
        Ok((started.lines().count() >= begun).then_some(()))
    })?;
    let site = 1 + round % SITES;
    let victims = [
        format!("site{site}-relay"),
        format!("site{site}-host1"),
        format!("site{}-host2", 1 + site % SITES),
    ];
    for victim in &victims {
        fleet.kill(victim)?;
    }
    fs::write(dir.join("go"), "")?;
    for victim in victims.iter().rev() {
        fleet.restart(victim)?;
    }
    let detail = wait_for("everybody's own word", LIMIT, || settled(fleet, &id))?;
    let mut states = Vec::new();
    for answer in detail["answers"].as_array().context("answers")? {
        let state = answer["state"].as_str().context("a state")?;
        for host in answer["hosts"].as_array().context("hosts")? {
            let host = host.as_str().context("a name")?;
            let starts = fs::read_to_string(dir.join(host)).unwrap_or_default().lines().count();
            match (state, starts) {
                ("ok", 1) | ("interrupted", 0 | 1) => states.push(state.to_owned()),
                _ => bail!("round {round}: {host} says {state} and has started {starts} times"),
            }
        }
    }
    ensure!(states.len() == SITES * HOSTS, "round {round}: {states:?}");
    Ok(states)
}

/// The order, once every host has given its own word.
fn settled(fleet: &Fleet, id: &str) -> Result<Option<Value>> {
    let detail = fleet.order(id)?;
    let states = detail["order"]["states"].as_object().context("states")?;
    let own = states.iter().filter(|(state, _)| ["ok", "interrupted"].contains(&state.as_str()));
    let sum: u64 = own.filter_map(|(_, count)| count.as_u64()).sum();
    Ok((sum == (SITES * HOSTS) as u64).then_some(detail))
}
