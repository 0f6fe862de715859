//! A host that was removed: cut off within seconds, wherever it dials, also after restarts.

use anyhow::{Context, Result, ensure};
use tests::{Fleet, LIMIT, Spec, show, wait_for};

use crate::order;

fn names(fleet: &Fleet) -> Result<Vec<String>> {
    let hosts = fleet.json(&["hosts", "--json"])?;
    let hosts = hosts.as_array().context("hosts")?.iter();
    Ok(hosts.filter_map(|host| host["name"].as_str().map(String::from)).collect())
}

fn wait_log(fleet: &Fleet, name: &str, text: &str, times: usize) -> Result<()> {
    wait_for(&format!("{name} to log `{text}`"), LIMIT, || {
        Ok((fleet.log(name).matches(text).count() >= times).then_some(()))
    })
}

#[test]
fn a_removed_host_is_refused_by_every_parent() -> Result<()> {
    let mut fleet = Fleet::tree(2, 1)?;
    // It knows both relays and the controller.
    let parents = ["site1-relay", "site2-relay", "controller"].map(String::from);
    fleet.add(&Spec {
        role: "host",
        name: "mole".into(),
        site: "site1".into(),
        parents: parents.to_vec(),
        config: String::new(),
    })?;
    fleet.wait_up(5)?;
    // One relay does not hear of it, for now.
    fleet.kill("site2-relay")?;
    fleet.wait_up(3)?;

    let many = fleet.barid(&["hosts", "remove", "mole,site1-host1"])?;
    assert_eq!(many.status.code(), Some(2), "{}", show(&many.stderr));
    let output = fleet.barid(&["hosts", "remove", "mole"])?;
    ensure!(output.status.success(), show(&output.stderr));
    fleet.wait_up(2)?;
    assert!(!names(&fleet)?.contains(&"mole".into()));
    wait_log(&fleet, "mole", "was removed from the mesh", 3)?;
    let unknown = fleet.barid(&["run", "-w", "mole", "--", "true"])?;
    assert_eq!(unknown.status.code(), Some(2), "{}", show(&unknown.stderr));

    // The relay that was away learns of it before or after the host finds it.
    fleet.restart("site2-relay")?;
    fleet.wait_up(4)?;
    // And nobody forgets it.
    for name in ["site1-relay", "controller", "mole"] {
        fleet.kill(name)?;
        fleet.restart(name)?;
    }
    fleet.wait_up(4)?;
    let before = fleet.log("mole").matches("was removed from the mesh").count();
    wait_log(&fleet, "mole", "was removed from the mesh", before + 3)?;
    let id = order(&fleet, &["run", "-a", "--async", "--json", "--", "true"])?;
    fleet.wait_states(&id, &[("ok", 2)])?;

    // Neither is its key taken by a new token, nor its number given to another.
    let token = fleet.token(&["--role", "host"])?;
    let spec = |name: &str| Spec {
        role: "host",
        name: name.into(),
        site: String::new(),
        parents: vec!["controller".into()],
        config: String::new(),
    };
    fleet.start_node(
        &spec("fresh"),
        &mut vec!["--join".into(), token, "--name".into(), "mole".into()],
    )?;
    fleet.wait_up(5)?;
    let hosts = fleet.json(&["hosts", "--json"])?;
    let fresh = hosts.as_array().context("hosts")?.iter().find(|host| host["name"] == "mole");
    assert_eq!(fresh.context("it is enrolled")?["id"], 6);
    Ok(())
}

#[test]
fn the_old_disk_of_a_host_that_was_installed_anew_is_refused() -> Result<()> {
    let mut fleet = Fleet::tree(1, 2)?;
    fleet.kill("site1-host2")?;
    fleet.wait_up(2)?;
    let token = fleet.token(&["--role", "host", "--site", "site1", "--name", "site1-host2"])?;
    let spec = Spec {
        role: "host",
        name: "anew".into(),
        site: "site1".into(),
        parents: vec!["site1-relay".into()],
        config: String::new(),
    };
    let mut args = vec!["--join".into(), token, "--name".into(), "site1-host2".into()];
    fleet.start_node(&spec, &mut args)?;
    fleet.wait_up(3)?;
    fleet.restart("site1-host2")?;
    wait_log(&fleet, "site1-host2", "was removed from the mesh", 2)?;
    let id = order(&fleet, &["run", "-a", "--async", "--json", "--", "true"])?;
    fleet.wait_states(&id, &[("ok", 2)])?;
    Ok(())
}

#[test]
fn the_children_of_a_removed_relay_find_another_parent() -> Result<()> {
    let mut fleet = Fleet::tree(2, 1)?;
    fleet.add(&Spec {
        role: "host",
        name: "child".into(),
        site: "site1".into(),
        parents: ["site1-relay", "site2-relay"].map(String::from).to_vec(),
        config: String::new(),
    })?;
    fleet.wait_up(5)?;
    let output = fleet.barid(&["hosts", "remove", "site1-relay"])?;
    ensure!(output.status.success(), show(&output.stderr));
    // Two relays' own hosts and the child, less the removed relay and its only host.
    fleet.wait_up(3)?;
    let id = order(&fleet, &["run", "-w", "child", "--async", "--json", "--", "true"])?;
    fleet.wait_states(&id, &[("ok", 1)])?;

    // Also if it starts anew and has forgotten.
    fleet.kill("site1-relay")?;
    fleet.kill("child")?;
    fleet.restart("site1-relay")?;
    wait_log(&fleet, "site1-relay", "serves nobody any more", 2)?;
    fleet.restart("child")?;
    fleet.wait_up(3)?;
    Ok(())
}
