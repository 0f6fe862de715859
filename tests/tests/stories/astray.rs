//! A host that moves to another relay in the middle of an order that the relay it had has given:
//! that relay hears what became of it all the same.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::{Fleet, LIMIT, show, wait_for};

use crate::answer;
use crate::failover::two_relays;
use crate::gate::Gate;

/// Two relays of a site, and a host that has both for its parents.
fn site() -> Result<Fleet> {
    let fleet = two_relays("")?;
    let delegated = fleet.barid(&["tree", "delegate", "r1", "--for", "3h"])?;
    ensure!(delegated.status.success(), "{}", show(&delegated.stderr));
    Ok(fleet)
}

/// What r1 answers its operator.
fn at_r1(fleet: &Fleet, args: &[&str]) -> Result<Value> {
    let mut command = Command::new(tests::binary()?);
    command.arg("--socket").arg(fleet.state("r1").join("barid.sock")).args(args);
    let output = command.output()?;
    ensure!(output.status.success(), "{args:?}: {}", show(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn wait_states(fleet: &Fleet, id: &str, states: &Value) -> Result<Value> {
    wait_for(&format!("r1 to say {states} of {id}"), LIMIT, || {
        let detail = at_r1(fleet, &["runs", "show", id, "--json"])?;
        Ok((detail["order"]["states"] == *states).then_some(detail))
    })
}

/// Gives a run at r1 that waits for the gate, and moves the host while it runs.
fn give_and_move(fleet: &Fleet, gate: &Gate) -> Result<String> {
    let order = at_r1(fleet, &["run", "--async", "--json", "-a", "-u", "120s", &gate.line()])?;
    gate.wait_started(&["web"])?;
    let drained = fleet.barid(&["tree", "drain", "r1"])?;
    ensure!(drained.status.success(), "{}", show(&drained.stdout));
    order["id"].as_str().map(String::from).context("an id")
}

#[test]
fn what_it_did_comes_back_to_the_relay_that_it_has_left() -> Result<()> {
    let fleet = site()?;
    let gate = Gate::new(&fleet)?;
    let id = give_and_move(&fleet, &gate)?;
    gate.open()?;
    let detail = wait_states(&fleet, &id, &json!({ "ok": 1 }))?;
    assert_eq!(answer(&detail, "web")?["stdout"], "done\n");
    assert_eq!(gate.starts("web"), 1);
    wait_for("the controller to hear it from r1", LIMIT, || {
        let detail = fleet.json(&["runs", "show", &id, "--json"]).ok();
        Ok(detail.filter(|detail| detail["order"]["states"] == json!({ "ok": 1 })).map(drop))
    })
}

/// Nobody is there who could pass it on when it is done: first it counts as lost, then it does not.
#[test]
fn a_relay_that_was_cut_off_asks_for_it_later() -> Result<()> {
    let mut fleet = site()?;
    let gate = Gate::new(&fleet)?;
    let id = give_and_move(&fleet, &gate)?;
    fleet.kill("controller")?;
    gate.open()?;
    wait_states(&fleet, &id, &json!({ "relay-lost": 1 }))?;
    fleet.restart("controller")?;
    let detail = wait_states(&fleet, &id, &json!({ "ok": 1 }))?;
    assert_eq!(answer(&detail, "web")?["stdout"], "done\n");
    assert_eq!(gate.starts("web"), 1);
    Ok(())
}
