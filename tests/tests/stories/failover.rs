//! Parents that die and come back.

use anyhow::{Context, Result};
use simulations::wan::{Profile, UdpLink};
use tests::{Fleet, LIMIT, Spec, until, wait_for};

use crate::order;

/// Nodes that look for a better parent every second.
const EAGER: &str = "return_base_ms = 1000\nreturn_cap_ms = 2000\n";

fn site() -> Result<Fleet> {
    two_relays(EAGER)
}

/// Two relays of a site, and a host that has both for its parents.
pub(crate) fn two_relays(config: &str) -> Result<Fleet> {
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
            config: config.into(),
        })?;
    }
    fleet.wait_up(3)?;
    Ok(fleet)
}

/// Both streams of an operator's command.
fn said(output: &std::process::Output) -> String {
    tests::show(&output.stdout) + &tests::show(&output.stderr)
}

/// Waits until a host is up and has this parent.
pub(crate) fn wait_parent(fleet: &Fleet, host: &str, parent: &str) -> Result<()> {
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
    let line = format!("echo started >> {}; {}", count.display(), until(&go));
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

/// A relay is drained: its child goes to the other one, also after a restart, and returns when it
/// may. A child without another parent stays, and says so.
#[test]
fn a_relay_is_drained_and_taken_back() -> Result<()> {
    let mut fleet = site()?;
    fleet.add(&Spec {
        role: "host",
        name: "lone".into(),
        site: "lyon".into(),
        parents: vec!["r1".into()],
        config: String::new(),
    })?;
    fleet.wait_up(4)?;
    wait_parent(&fleet, "web", "r1")?;
    let drained = fleet.barid(&["tree", "drain", "r1"])?;
    let said = said(&drained);
    assert_eq!(drained.status.code(), Some(1), "{said}");
    assert!(said.contains("behind r2"), "{said}");
    assert!(said.contains("it has no other parent"), "{said}");
    wait_parent(&fleet, "web", "r2")?;
    wait_parent(&fleet, "lone", "r1")?;
    fleet.kill("web")?;
    fleet.restart("web")?;
    wait_parent(&fleet, "web", "r2")?;
    let undone = fleet.barid(&["tree", "drain", "r1", "--undo"])?;
    assert!(undone.status.success(), "{}", tests::show(&undone.stdout));
    wait_parent(&fleet, "web", "r1")
}

/// What an operator is told of a tree before something in it fails.
#[test]
fn what_is_weak_about_a_tree_is_said() -> Result<()> {
    let mut fleet = site()?;
    wait_parent(&fleet, "web", "r1")?;
    let found = |fleet: &Fleet| -> Result<Vec<(String, String)>> {
        let found = fleet.barid(&["tree", "check", "--json"])?;
        let text = |finding: &serde_json::Value, key: &str| finding[key].as_str().map(String::from);
        let found: serde_json::Value = serde_json::from_slice(&found.stdout)?;
        let found = found.as_array().context("a list of findings")?.iter();
        found.map(|f| text(f, "kind").zip(text(f, "what")).context("a finding")).collect()
    };
    let pair = |kind: &str, what: &str| (kind.to_owned(), what.to_owned());
    assert_eq!(found(&fleet)?, [pair("idle", "r2")]);
    for (role, name, site, parent) in [
        ("host", "stray", "lyon", "controller"),
        ("relay", "only", "oslo", "controller"),
        ("host", "db1", "oslo", "only"),
        ("host", "db2", "oslo", "only"),
        ("relay", "inner", "oslo", "only"),
        ("host", "db3", "oslo", "inner"),
    ] {
        fleet.add(&Spec::new(role, name, parent).at(site))?;
    }
    fleet.wait_up(9)?;
    wait_parent(&fleet, "db2", "only")?;
    wait_parent(&fleet, "db3", "inner")?;
    let all = [
        pair("past its relay", "stray"),
        pair("single point", "inner"),
        pair("single point", "only"),
        pair("idle", "r2"),
    ];
    assert_eq!(found(&fleet)?, all);
    let check = fleet.barid(&["tree", "check"])?;
    let text = tests::show(&check.stdout);
    assert_eq!(check.status.code(), Some(1), "{text}");
    assert!(text.contains("only  without it 4 nodes are cut off"), "{text}");
    assert!(text.contains("inner  without it 1 node is cut off"), "{text}");
    fleet.kill("r1")?;
    wait_parent(&fleet, "web", "r2")?;
    assert!(found(&fleet)?.contains(&pair("idle", "r1")), "its child has gone to the other");
    Ok(())
}

/// A node is given a parent that its configuration does not name, and then its own again. An
/// address where nobody answers changes nothing, and is told.
#[test]
fn a_host_is_moved_and_moved_back() -> Result<()> {
    let mut fleet = site()?;
    let (r1, root) = (fleet.listen("r1")?, fleet.listen("controller")?);
    fleet.add(&Spec {
        role: "host",
        name: "lone".into(),
        site: "lyon".into(),
        parents: vec!["r2".into()],
        config: EAGER.into(),
    })?;
    fleet.wait_up(4)?;
    wait_parent(&fleet, "lone", "r2")?;
    let moved = fleet.barid(&["tree", "move", "-w", "lone", "--to", &r1])?;
    assert!(moved.status.success(), "{}", tests::show(&moved.stderr));
    wait_parent(&fleet, "lone", "r1")?;
    let both = format!("127.0.0.1:1,{root}");
    let moved = fleet.barid(&["tree", "move", "-w", "lone", "--to", &both])?;
    let said = said(&moved);
    assert_eq!(moved.status.code(), Some(1), "{said}");
    assert!(said.contains("still behind controller"), "{said}");
    wait_parent(&fleet, "lone", "controller")?;
    let back = fleet.barid(&["tree", "move", "-w", "lone", "--back"])?;
    assert!(back.status.success(), "{}", tests::show(&back.stdout));
    wait_parent(&fleet, "lone", "r2")?;
    let path = fleet.barid(&["tree", "path", "lone"])?;
    let shown = tests::show(&path.stdout);
    assert_eq!(shown, "controller\n  r2  relay  site lyon  up\n    lone  host  site lyon  up\n");
    let wrong = fleet.barid(&["tree", "move", "-w", "lone", "--to", "r2"])?;
    assert_eq!(wrong.status.code(), Some(2));
    assert!(tests::show(&wrong.stderr).contains("host:port"));
    Ok(())
}

/// A parent that is far away goes behind one that is near, whatever the settings say first, and
/// stays there over a restart.
#[test]
fn the_nearer_parent_is_taken_where_parents_are_measured() -> Result<()> {
    let mut fleet = site()?;
    let far = fleet.listen("r1")?.parse().context("where it listens")?;
    let any = "127.0.0.1:0".parse().context("an address")?;
    let line = UdpLink::start(any, far, &Profile::named("veryweak")?, 5)?;
    fleet.route("r1", line.address().to_string());
    fleet.add(&Spec {
        role: "host",
        name: "chooser".into(),
        site: "lyon".into(),
        parents: vec!["r1".into(), "r2".into()],
        config: format!("{EAGER}measure_interval_ms = 1000\n"),
    })?;
    fleet.wait_up(4)?;
    wait_parent(&fleet, "chooser", "r2")?;
    assert!(fleet.log("chooser").contains("another parent serves better"));
    let changes = |fleet: &Fleet| fleet.log("chooser").matches("serves better").count();
    assert_eq!(changes(&fleet), 1, "{}", fleet.log("chooser"));
    fleet.kill("chooser")?;
    fleet.restart("chooser")?;
    wait_parent(&fleet, "chooser", "r2")?;
    let kept = std::fs::read_to_string(fleet.state("chooser").join("parents.toml"))?;
    assert!(kept.contains("ranked"), "{kept}");
    // One that dies is no reason to stay away from the other.
    fleet.kill("r2")?;
    wait_parent(&fleet, "chooser", "r1")
}
