//! Parents that die and come back.

use anyhow::{Context, Result};
use tests::{Fleet, LIMIT, Spec, wait_for};

use crate::order;

/// Nodes that look for a better parent every second.
const EAGER: &str = "return_base_ms = 1000\nreturn_cap_ms = 2000\n";

/// Two relays of a site, and a host that has both for its parents.
fn site() -> Result<Fleet> {
    let mut fleet = Fleet::new()?;
    for (role, name, parents) in [
        ("relay", "r1", &["controller"][..]),
        ("relay", "r2", &["controller"]),
        ("host", "web", &["r1", "r2"]),
    ] {
        fleet.add(&Spec {
            role,
            name: name.into(),
            site: "lyon".into(),
            parents: parents.iter().map(|name| name.to_string()).collect(),
            config: EAGER.into(),
        })?;
    }
    fleet.wait_up(3)?;
    Ok(fleet)
}

/// Waits until a host is up and has this parent.
fn wait_parent(fleet: &Fleet, host: &str, parent: &str) -> Result<()> {
    wait_for(&format!("{host} to be behind {parent}"), LIMIT, || {
        let hosts = fleet.json(&["hosts", "--json"])?;
        let hosts = hosts.as_array().context("a list of hosts")?;
        let here = |host_row: &&serde_json::Value| host_row["name"] == host;
        let found = hosts.iter().find(here).context("the host is enrolled")?;
        Ok((found["parent"] == parent && found["up"] == true).then_some(()))
    })
}

/// In the middle of a run the host's relay dies. The run ends well by the other relay, having
/// started once; when the first one is back the host returns to it.
#[test]
fn a_host_finds_another_parent_and_returns_to_the_first() -> Result<()> {
    let mut fleet = site()?;
    wait_parent(&fleet, "web", "r1")?;
    let (count, go) = (fleet.path().join("count"), fleet.path().join("go"));
    let line = format!(
        "echo started >> {}; while ! test -e {}; do sleep 0.05; done",
        count.display(),
        go.display()
    );
    let id = order(&fleet, &["run", "-w", "web", "--async", "--json", "-u", "120s", "--", &line])?;
    wait_for("the command to start", LIMIT, || Ok(count.exists().then_some(())))?;
    fleet.kill("r1")?;
    wait_parent(&fleet, "web", "r2")?;
    std::fs::write(&go, "")?;
    fleet.wait_states(&id, &[("ok", 1)])?;
    assert_eq!(std::fs::read_to_string(&count)?, "started\n");
    fleet.restart("r1")?;
    wait_parent(&fleet, "web", "r1")?;
    let again = fleet.barid(&["run", "-w", "web", "-t", "60s", "--", "true"])?;
    assert!(again.status.success(), "{}", tests::show(&again.stderr));
    Ok(())
}

/// A better parent that takes links and says nothing: the host stays with the one that serves it.
#[test]
fn a_silent_parent_is_not_returned_to() -> Result<()> {
    let fleet = site()?;
    wait_parent(&fleet, "web", "r1")?;
    fleet.signal("r1", rustix::process::Signal::STOP)?;
    wait_parent(&fleet, "web", "r2")?;
    let dials = |fleet: &Fleet| fleet.log("web").matches("the parent is not reached").count();
    wait_for("the host to have tried r1 again", LIMIT, || Ok((dials(&fleet) >= 2).then_some(())))?;
    let ran = fleet.barid(&["run", "-w", "web", "--", "true"])?;
    assert!(ran.status.success(), "{}", tests::show(&ran.stderr));
    wait_parent(&fleet, "web", "r2")?;
    fleet.signal("r1", rustix::process::Signal::CONT)?;
    wait_parent(&fleet, "web", "r1")
}
