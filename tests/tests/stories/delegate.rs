//! The operators of a relay: what was delegated they order while the site is cut off, nothing else,
//! and the controller hears of it afterwards.

use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{Fleet, LIMIT, show, wait_for};

use crate::answer;
use crate::gate::Gate;

const RELAY: &str = "site1-relay";
const HOSTS: [&str; 2] = ["site1-host1", "site1-host2"];

/// What somebody at the relay types.
fn at_relay(fleet: &Fleet, args: &[&str]) -> Result<Output> {
    let mut command = Command::new(tests::binary()?);
    command.arg("--socket").arg(fleet.state(RELAY).join("barid.sock")).args(args);
    Ok(command.stdin(Stdio::null()).output()?)
}

fn json_at_relay(fleet: &Fleet, args: &[&str]) -> Result<Value> {
    let output = at_relay(fleet, args)?;
    ensure!(output.status.success(), "{args:?}: {}", show(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Gives a run at the relay. Returns its id.
fn give(fleet: &Fleet, args: &[&str]) -> Result<String> {
    let order = json_at_relay(fleet, &[&["run", "--async", "--json"], args].concat())?;
    order["id"].as_str().map(String::from).context("an id")
}

/// Waits until the relay shows these states of an order.
fn wait_at_relay(fleet: &Fleet, id: &str, states: &Value) -> Result<Value> {
    wait_for(&format!("{id} to be {states}"), LIMIT, || {
        // It may just be starting.
        let detail = json_at_relay(fleet, &["runs", "show", id, "--json"]).ok();
        Ok(detail.filter(|detail| detail["order"]["states"] == *states))
    })
}

fn delegate(fleet: &Fleet, args: &[&str]) -> Result<()> {
    let output = fleet.barid(&[&["tree", "delegate", RELAY], args].concat())?;
    ensure!(output.status.success(), "{}", show(&output.stderr));
    Ok(())
}

/// Waits until the controller has an order of the relay with these states.
fn wait_handed(fleet: &Fleet, id: &str, states: &Value) -> Result<Value> {
    wait_for(&format!("the controller to have {id}"), LIMIT, || {
        let output = fleet.barid(&["runs", "show", id, "--json"])?;
        if !output.status.success() {
            return Ok(None);
        }
        let detail: Value = serde_json::from_slice(&output.stdout)?;
        Ok((detail["order"]["states"] == *states).then_some(detail))
    })
}

#[test]
fn a_site_that_is_cut_off_takes_its_operators_orders_and_tells_of_them_later() -> Result<()> {
    let mut fleet = Fleet::tree(2, 2)?;
    let refused = at_relay(&fleet, &["run", "-a", "--", "true"])?;
    assert_eq!(refused.status.code(), Some(5), "{}", show(&refused.stderr));
    assert!(show(&refused.stderr).contains("nothing is delegated to site1-relay"));

    delegate(&fleet, &["--for", "3h"])?;
    let listed = fleet.json(&["tree", "delegate", "--json"])?;
    assert_eq!((&listed[0]["state"], &listed[0]["count"]), (&"holds".into(), &3.into()));
    fleet.kill("controller")?;

    let up = wait_for("the relay to know who is up", LIMIT, || {
        let hosts = json_at_relay(&fleet, &["hosts", "--json"])?;
        let hosts = hosts.as_array().context("hosts")?.clone();
        Ok(hosts.iter().all(|host| host["up"] == true).then_some(hosts))
    })?;
    assert_eq!(up.len(), 3, "itself and its hosts: {up:?}");
    for host in up.iter().filter(|host| host["name"] != RELAY) {
        assert_eq!((&host["via"], &host["parent"]), (&RELAY.into(), &RELAY.into()), "{host}");
    }
    let tree = at_relay(&fleet, &["tree"])?;
    assert!(show(&tree.stdout).starts_with("site1-relay  "), "{}", show(&tree.stdout));

    let gathered = at_relay(&fleet, &["run", "-a", "-b", "--", "echo", "cut off"])?;
    let text = show(&gathered.stdout);
    assert!(gathered.status.success() && text.contains("site1-host[1-2]"), "{text}");
    let foreign = at_relay(&fleet, &["run", "-w", "site2-host1", "--", "true"])?;
    assert_eq!(foreign.status.code(), Some(2), "{}", show(&foreign.stderr));
    for (beyond, why) in [
        (&["push", "/etc/hostname", "-a"][..], "a relay does not do that"),
        (&["run", "-a", "-f", "1", "--", "true"], "has no pace"),
        (&["run", "-a", "--defer", "--", "true"], "waits for nobody"),
        (&["run", "-a", "-u", "4h", "--", "true"], "could run longer"),
    ] {
        let output = at_relay(&fleet, beyond)?;
        let said = show(&output.stderr);
        assert!(!output.status.success() && said.contains(why), "{beyond:?}: {said}");
    }

    // It dies in the middle of a run: nothing runs twice, and nothing of it is lost.
    let gate = Gate::new(&fleet)?;
    let id = give(&fleet, &["-a", "-u", "60s", &gate.line()])?;
    gate.wait_started(&HOSTS)?;
    fleet.kill(RELAY)?;
    fleet.restart(RELAY)?;
    gate.open()?;
    let detail = wait_at_relay(&fleet, &id, &serde_json::json!({ "ok": 2 }))?;
    assert_eq!(answer(&detail, HOSTS[0])?["stdout"], "done\n");
    for host in HOSTS {
        assert_eq!(gate.starts(host), 1, "{host}");
    }

    // And one is taken back.
    let long = give(&fleet, &["-a", "-u", "60s", "sleep 600"])?;
    let cancelled = at_relay(&fleet, &["cancel", &long])?;
    assert!(cancelled.status.success(), "{}", show(&cancelled.stderr));
    wait_at_relay(&fleet, &long, &serde_json::json!({ "cancelled": 2 }))?;

    fleet.restart("controller")?;
    let handed = wait_handed(&fleet, &id, &serde_json::json!({ "ok": 2 }))?;
    assert_eq!(handed["order"]["given_by"], RELAY);
    assert!(handed["order"]["closed_ms"].as_u64().is_some_and(|ms| ms > 0));
    assert_eq!(answer(&handed, HOSTS[1])?["stdout"], "done\n");
    wait_handed(&fleet, &long, &serde_json::json!({ "cancelled": 2 }))?;
    let runs = show(&fleet.barid(&["runs"])?.stdout);
    assert!(runs.contains("[site1-relay] sleep 600"), "{runs}");
    Ok(())
}

#[test]
fn what_was_delegated_is_for_some_and_is_taken_back() -> Result<()> {
    let fleet = Fleet::tree(1, 2)?;
    delegate(&fleet, &["--for", "3h", "-w", HOSTS[0]])?;
    let id = give(&fleet, &["-a", "--", "echo", "one"])?;
    wait_at_relay(&fleet, &id, &serde_json::json!({ "ok": 1 }))?;
    // Also with a link to the controller, which hears of it at once.
    let handed = wait_handed(&fleet, &id, &serde_json::json!({ "ok": 1 }))?;
    assert_eq!(handed["order"]["targets"], HOSTS[0]);
    let other = at_relay(&fleet, &["run", "-w", HOSTS[1], "--", "true"])?;
    assert_eq!(other.status.code(), Some(2), "{}", show(&other.stderr));
    // It knows its own name, but must not run anything there.
    let own = at_relay(&fleet, &["run", "-w", RELAY, "--", "true"])?;
    assert_eq!(own.status.code(), Some(5), "{}", show(&own.stderr));

    delegate(&fleet, &["--revoke"])?;
    wait_for("the relay to hear that it may order nothing", LIMIT, || {
        let refused = at_relay(&fleet, &["run", "-a", "--", "true"])?;
        Ok((refused.status.code() == Some(5)).then_some(()))
    })?;
    let listed = fleet.json(&["tree", "delegate", "--json"])?;
    assert_eq!(listed[0]["state"], "taken-back");
    let again = fleet.barid(&["tree", "delegate", RELAY, "--revoke"])?;
    assert_eq!(again.status.code(), Some(1), "{}", show(&again.stderr));
    let host = fleet.barid(&["tree", "delegate", HOSTS[0], "--for", "3h"])?;
    assert_eq!(host.status.code(), Some(2), "{}", show(&host.stderr));
    Ok(())
}
