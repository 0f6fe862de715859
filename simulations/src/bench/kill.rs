//! Not a measurement but a trial: rounds of kill -9 during runs, with a file on each host as the
//! witness of what really started.
//!
//! In each round a run goes over the whole fleet, every second one a few hosts at a time, and
//! meanwhile a relay, some hosts, and now and then the controller are killed and started again.
//! Afterwards every host has one state, which is its own word and agrees with its witness: nobody
//! has started twice, whoever says ok has started, and no more ran at a time than was let begin.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tests::wait_for;

use crate::fleet::{Bench, host, relay};
use crate::table;

/// Relays of the fleet.
const RELAYS: usize = 3;
/// Hosts at a time in rounds that go on by and by.
const WINDOW: usize = 8;
/// How long a round may take.
const LIMIT: Duration = Duration::from_secs(180);
/// No round begins later; the table tells how many were played.
const LAST: Duration = Duration::from_secs(40 * 60);

/// A die that needs no crate.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % most as u64).unwrap_or_default()
    }
}

/// Plays the rounds; the first broken promise is an error.
pub(crate) fn trial(barid: &Path, hosts: usize, rounds: usize) -> Result<()> {
    let each = hosts.div_ceil(RELAYS);
    let mut bench = Bench::start(barid, &[each; RELAYS])?;
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut sums = BTreeMap::<String, u64>::new();
    let (begun, mut played) = (Instant::now(), 0);
    for round in 0..rounds {
        if begun.elapsed() > LAST {
            break;
        }
        played += 1;
        let paced = round % 2 == 1;
        let dir = bench.fleet.path().join(format!("round-{round}"));
        fs::create_dir(&dir)?;
        let found = play(&mut bench, &dir, paced, each, &mut dice);
        let states = found.with_context(|| format!("round {round}"))?;
        for (state, count) in states {
            *sums.entry(state).or_default() += count;
        }
        bench.wait()?;
    }
    table::heading("kill -9 during runs");
    let mut rows = vec![
        vec!["rounds".into(), format!("{played} of {rounds}")],
        vec!["hosts behind 3 relays".into(), (each * RELAYS).to_string()],
    ];
    rows.extend(sums.iter().map(|(state, n)| vec![format!("ended as {state}"), n.to_string()]));
    rows.push(vec!["commands that started twice".into(), "0".into()]);
    table::print(&["", "count"], &rows);
    Ok(())
}

fn play(
    bench: &mut Bench,
    dir: &Path,
    paced: bool,
    each: usize,
    dice: &mut Dice,
) -> Result<BTreeMap<String, u64>> {
    let at = dir.display();
    let line = format!(
        "echo \"+ $BARID_NODE\" >> {at}/log; echo x >> {at}/$BARID_NODE; sleep 0.3; \
         echo \"- $BARID_NODE\" >> {at}/log"
    );
    let pace = if paced { json!({ "window": WINDOW }) } else { json!({}) };
    let run = json!({
        "targets": { "all": true }, "argv": [line], "shell": true, "pace": pace,
        "reach_ms": 60_000, "timeout_ms": 60_000, "output_limit": 1000,
    });
    let order = bench.api.ask("POST", "/v1/runs", Some(&run))?;
    let id = order["id"].as_str().context("an id")?.to_owned();
    let count = each * RELAYS;
    // The bad moment lies anywhere in the run.
    let until = dice.below(count.min(if paced { count } else { count / 2 + 1 }));
    wait_for("the run to be under way", LIMIT, || {
        let begun = fs::read_to_string(dir.join("log")).unwrap_or_default();
        Ok((begun.lines().count() >= until).then_some(()))
    })?;
    let mut victims = vec![relay(1 + dice.below(RELAYS))];
    if !paced {
        // A command of a killed node writes no end, so that the witness could not count them.
        victims.extend((0..3).map(|_| host(1 + dice.below(RELAYS), 1 + dice.below(each))));
    }
    if dice.below(4) == 0 {
        victims.push("controller".into());
    }
    victims.sort();
    victims.dedup();
    for victim in &victims {
        bench.fleet.kill(victim)?;
    }
    for victim in victims.iter().rev() {
        bench.fleet.restart(victim)?;
    }
    bench.reconnect()?;
    let detail = wait_for("everybody's own word", LIMIT, || settled(bench, &id, count))?;
    check(dir, &detail, paced)
}

/// The order, once every host has given its own word.
fn settled(bench: &mut Bench, id: &str, count: usize) -> Result<Option<Value>> {
    let detail = bench.api.ask("GET", &format!("/v1/orders/{id}"), None)?;
    let states = detail["order"]["states"].as_object().context("states")?;
    let own = states.iter().filter(|(state, _)| {
        !["pending", "waiting", "relay-lost", "not-reached"].contains(&state.as_str())
    });
    let sum: u64 = own.filter_map(|(_, number)| number.as_u64()).sum();
    Ok((sum == count as u64).then_some(detail))
}

/// Whether what the hosts say agrees with what they did.
fn check(dir: &Path, detail: &Value, paced: bool) -> Result<BTreeMap<String, u64>> {
    let mut sums = BTreeMap::new();
    for answer in detail["answers"].as_array().context("answers")? {
        let state = answer["state"].as_str().context("a state")?;
        for host in answer["hosts"].as_array().context("hosts")? {
            let host = host.as_str().context("a name")?;
            let text = fs::read_to_string(dir.join(host)).unwrap_or_default();
            let starts = text.lines().count();
            match (state, starts) {
                ("ok", 1) | ("interrupted", 0 | 1) => {}
                _ => bail!("{host} says {state} and has started {starts} times"),
            }
            *sums.entry(state.to_owned()).or_default() += 1;
        }
    }
    if paced {
        let (mut running, mut most) = (0usize, 0);
        for line in fs::read_to_string(dir.join("log"))?.lines() {
            running = if line.starts_with('+') { running + 1 } else { running - 1 };
            most = most.max(running);
        }
        ensure!(most <= WINDOW, "{most} hosts ran at once; the window is {WINDOW}");
    }
    Ok(sums)
}
