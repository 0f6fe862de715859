//! Facts: what hosts say of themselves reaches the controller, chooses hosts, and outlives
//! whoever passed it on.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{Fleet, Spec, show, wait_for};

const LIMIT: Duration = Duration::from_secs(30);
const OFTEN: &str = "facts_interval_ms = 100\nevent_flush_ms = 20\n";

fn host(name: &str, parent: &str) -> Spec {
    Spec {
        role: "host",
        name: name.into(),
        site: "lyon".into(),
        parents: vec![parent.into()],
        config: OFTEN.into(),
    }
}

/// A relay with two hosts behind it, and a host beside it, which have all said what they are.
fn fleet() -> Result<Fleet> {
    let mut fleet = Fleet::new()?;
    let relay = Spec { role: "relay", name: "r1".into(), ..host("", "controller") };
    fleet.add(&relay)?;
    for (name, parent) in [("web1", "r1"), ("web2", "r1"), ("db1", "controller")] {
        fleet.add(&host(name, parent))?;
    }
    fleet.wait_up(4)?;
    for name in ["r1", "web1", "web2", "db1"] {
        wait_for_fact(&fleet, name, "barid", Some(env!("CARGO_PKG_VERSION")))?;
    }
    Ok(fleet)
}

fn facts(fleet: &Fleet, name: &str) -> Result<Value> {
    let hosts = fleet.json(&["hosts", "--json", "-w", name])?;
    Ok(hosts[0]["facts"].clone())
}

fn wait_for_fact(fleet: &Fleet, name: &str, fact: &str, value: Option<&str>) -> Result<()> {
    wait_for("a fact", LIMIT, || Ok((facts(fleet, name)?[fact].as_str() == value).then_some(())))
}

fn fold(fleet: &Fleet, set: &str) -> Result<String> {
    let output = fleet.barid(&["nodes", "fold", "-w", set])?;
    ensure!(output.status.success(), "{set}: {}", show(&output.stderr));
    Ok(show(&output.stdout).trim().to_owned())
}

#[test]
fn hosts_say_what_they_are_and_are_chosen_by_it() -> Result<()> {
    let mut fleet = fleet()?;
    let web = facts(&fleet, "web1")?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    assert_eq!(web["kernel"], kernel.trim(), "{web}");
    assert_eq!(
        fold(&fleet, &format!("{{kernel={} && cpus>=1}}", kernel.trim()))?,
        "db1,r1,web[1-2]"
    );

    // What an operator puts into the file of a host is told when it changes, and taken back.
    let file = fleet.state("web2").join("facts");
    fs::write(&file, "rack = \"b 4\"\nos=tuxos\nsp ace=1\n")?;
    wait_for_fact(&fleet, "web2", "rack", Some("b 4"))?;
    assert_eq!(fold(&fleet, "{rack=\"b 4\"}")?, "web2");
    assert_eq!(fold(&fleet, "@os:tuxos")?, "web2");
    let shown = fleet.barid(&["hosts", "--facts", "-w", "web2"])?;
    let shown = show(&shown.stdout);
    assert!(shown.contains("os=tuxos") && shown.contains("rack=\"b 4\""), "{shown}");
    wait_for("the wrong line to be named", LIMIT, || {
        let events = fleet.barid(&["events", "host.facts"])?;
        Ok(show(&events.stdout).contains("a name has up to").then_some(()))
    })?;

    // An operator's label wins.
    let label = fleet.barid(&["hosts", "label", "-w", "web2", "os=debian12"])?;
    ensure!(label.status.success(), "{}", show(&label.stderr));
    assert_eq!(fold(&fleet, "@os:debian12")?, "web2");
    let gone = fleet.barid(&["nodes", "fold", "-w", "@os:tuxos"])?;
    assert_eq!(gone.status.code(), Some(2), "{}", show(&gone.stderr));

    // All of it is on the controller's disk, also of hosts that are away.
    fleet.kill("web2")?;
    fleet.kill("controller")?;
    fleet.restart("controller")?;
    assert_eq!(fold(&fleet, "{rack=\"b 4\"}")?, "web2");

    // What has changed while the relay was dead is told by the next one.
    fleet.kill("r1")?;
    fs::write(fleet.state("web1").join("facts"), "rack=7\n")?;
    fs::remove_file(&file)?;
    fleet.restart("r1")?;
    fleet.restart("web2")?;
    wait_for_fact(&fleet, "web1", "rack", Some("7"))?;
    wait_for_fact(&fleet, "web2", "rack", None)
}

#[test]
fn a_host_that_is_removed_takes_its_facts_along() -> Result<()> {
    let mut fleet = fleet()?;
    fs::write(fleet.state("db1").join("facts"), "rack=9\n")?;
    wait_for_fact(&fleet, "db1", "rack", Some("9"))?;
    let removed = fleet.barid(&["hosts", "remove", "db1"])?;
    ensure!(removed.status.success(), "{}", show(&removed.stderr));
    let gone = fleet.barid(&["nodes", "fold", "-w", "{rack=9}"])?;
    assert_eq!(gone.status.code(), Some(2), "{}", show(&gone.stderr));
    fleet.kill("controller")?;
    fleet.restart("controller")?;
    let hosts = fleet.json(&["hosts", "--json"])?;
    let names = hosts.as_array().context("hosts")?.iter().map(|host| host["name"].as_str());
    assert_eq!(names.flatten().collect::<Vec<_>>(), ["r1", "web1", "web2"]);
    Ok(())
}
