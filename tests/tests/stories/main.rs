//! What Barid promises, tried with real processes.

mod ahead;
mod alerts;
mod alike;
mod apart;
mod astray;
mod bad_input;
mod bus;
mod cache;
mod cancel;
mod caps;
mod causes;
mod check;
mod commands;
mod crash;
mod crowded;
mod day;
mod delegate;
mod demo;
mod dist;
mod domains;
mod double;
mod effort;
mod enrol;
mod events;
mod export;
mod facts;
mod failover;
mod fanout;
mod flood;
mod forms;
mod full_disk;
mod gate;
mod given;
mod hostile;
mod kept;
mod killing;
mod live;
mod metrics;
mod namespaces;
mod out;
mod outage;
mod overtaking;
mod pace;
mod packed;
mod plans;
mod preflight;
mod pull;
mod push;
mod reactions;
mod refusals;
mod remove;
mod renew;
mod reports;
mod restored;
mod rollback;
mod rollout;
mod rules;
mod run;
mod schedule;
mod secure;
mod sets;
mod shares;
mod siblings;
mod site;
mod slow;
mod stage;
mod stale;
mod store;
mod subscribers;
mod superseding;
mod tampered;
mod terms;
mod trial;
mod underway;
mod waiting;
mod weak;
mod week;
mod whatif;
mod wishes;
mod witness;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::Fleet;

/// Gives an order without waiting for it. Returns its id.
fn order(fleet: &Fleet, args: &[&str]) -> Result<String> {
    let output = fleet.barid(args)?;
    ensure!(output.status.success(), "{args:?}: {}", tests::show(&output.stderr));
    let lines = tests::show(&output.stdout);
    let id = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let id = id.filter_map(|line| find_id(&line)).next_back();
    id.with_context(|| format!("an order in the answer to {args:?}:\n{lines}"))
}

fn find_id(line: &Value) -> Option<String> {
    let order = line.get("order").unwrap_or(line);
    order["id"].as_str().map(String::from)
}

/// The answer of one host.
fn answer<'a>(detail: &'a Value, host: &str) -> Result<&'a Value> {
    let answers = detail["answers"].as_array().context("answers")?;
    let found = answers.iter().find(|answer| {
        answer["hosts"].as_array().is_some_and(|hosts| hosts.iter().any(|name| name == host))
    });
    found.with_context(|| format!("an answer of {host} in {detail:#}"))
}
