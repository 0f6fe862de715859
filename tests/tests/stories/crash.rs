//! kill -9 of each kind of process in the middle of things: nothing runs twice, nothing that was
//! acknowledged is lost, and everything that can end does.

use std::fs;

use anyhow::{Context, Result, ensure};
use tests::{Fleet, LIMIT, listing, sample_tree, wait_for};

use crate::gate::Gate;
use crate::order;

const HOSTS: [&str; 4] = ["site1-host1", "site1-host2", "site2-host1", "site2-host2"];

fn run_with_crash(victim: &str) -> Result<()> {
    let mut fleet = Fleet::tree(2, 2)?;
    let gate = Gate::new(&fleet)?;
    let id = order(&fleet, &["run", "-a", "-u", "60s", "--async", "--json", &gate.line()])?;
    gate.wait_started(&HOSTS)?;
    fleet.kill(victim)?;
    gate.open()?;
    fleet.restart(victim)?;
    fleet.wait_states(&id, &[("ok", 4)])?;
    for host in HOSTS {
        ensure!(gate.starts(host) == 1, "{host} has started {} times", gate.starts(host));
    }
    Ok(())
}

#[test]
fn a_relay_dies_during_a_run() -> Result<()> {
    run_with_crash("site1-relay")
}

#[test]
fn the_controller_dies_during_a_run() -> Result<()> {
    run_with_crash("controller")
}

#[test]
fn a_host_dies_during_a_run_and_says_interrupted() -> Result<()> {
    let mut fleet = Fleet::tree(2, 2)?;
    let gate = Gate::new(&fleet)?;
    let id = order(&fleet, &["run", "-a", "-u", "60s", "--async", "--json", &gate.line()])?;
    gate.wait_started(&HOSTS)?;
    fleet.kill("site1-host1")?;
    fleet.restart("site1-host1")?;
    gate.open()?;
    fleet.wait_states(&id, &[("ok", 3), ("interrupted", 1)])?;
    assert_eq!(gate.starts("site1-host1"), 1);
    Ok(())
}

#[test]
fn answers_that_were_given_survive_the_controller() -> Result<()> {
    let mut fleet = Fleet::tree(1, 3)?;
    let id = order(&fleet, &["run", "-a", "--async", "--json", "--", "echo", "kept"])?;
    let before = fleet.wait_states(&id, &[("ok", 3)])?;
    fleet.kill("controller")?;
    fleet.restart("controller")?;
    let after = fleet.order(&id)?;
    assert_eq!(before["answers"], after["answers"]);
    fleet.wait_up(4)?;
    let id = order(&fleet, &["run", "-a", "--async", "--json", "--", "echo", "again"])?;
    fleet.wait_states(&id, &[("ok", 3)])?;
    Ok(())
}

/// Kills `victim` once `started` says that the push is on its way.
fn push_with_crash(victim: &str) -> Result<()> {
    let mut fleet = Fleet::tree(2, 2)?;
    let source = fleet.path().join("source");
    sample_tree(&source, 48 << 20)?;
    let text = source.to_str().context("a plain path")?.to_string();
    let store = fleet.state("site1-host1").join("store");
    let id = order(&fleet, &["push", &text, "-a", "--dest", "/srv/app", "--async", "--json"])?;
    wait_for("content to arrive at a host", LIMIT, || {
        let objects = fs::read_dir(store.join("objects"))?;
        Ok((objects.count() > 0).then_some(()))
    })?;
    fleet.kill(victim)?;
    fleet.restart(victim)?;
    fleet.wait_states(&id, &[("ok", 4)])?;
    for host in HOSTS {
        assert_eq!(listing(&fleet.at(host, "/srv/app"))?, listing(&source)?, "{host}");
    }
    Ok(())
}

#[test]
fn a_relay_dies_during_a_push() -> Result<()> {
    push_with_crash("site1-relay")
}

#[test]
fn a_host_dies_during_a_push() -> Result<()> {
    push_with_crash("site1-host1")
}

#[test]
fn the_controller_dies_during_a_push() -> Result<()> {
    push_with_crash("controller")
}

#[test]
fn a_host_that_hangs_holds_nobody_up() -> Result<()> {
    let fleet = Fleet::tree(1, 4)?;
    fleet.signal("site1-host2", rustix::process::Signal::STOP)?;
    let source = fleet.path().join("source");
    sample_tree(&source, 2 << 20)?;
    let text = source.to_str().context("a plain path")?;
    let push = ["push", text, "-a", "-t", "2s", "--dest", "/srv/app", "--async", "--json"];
    let push = order(&fleet, &push)?;
    let run = order(&fleet, &["run", "-a", "-t", "2s", "--async", "--json", "--", "echo", "hi"])?;
    // The order may have been handed to its socket before it was known to hang.
    let missed = |detail: &serde_json::Value| {
        let states = &detail["order"]["states"];
        let away = states["not-reached"].as_u64().or(states["relay-lost"].as_u64());
        (states["ok"] == 3 && away == Some(1)).then_some(())
    };
    for id in [&run, &push] {
        wait_for("everybody else to answer", LIMIT, || Ok(missed(&fleet.order(id)?)))?;
    }
    // It wakes: the push has waited for it, the run has not.
    fleet.signal("site1-host2", rustix::process::Signal::CONT)?;
    fleet.wait_states(&push, &[("ok", 4)])?;
    assert_eq!(listing(&fleet.at("site1-host2", "/srv/app"))?, listing(&source)?);
    Ok(())
}

#[test]
fn a_host_moves_to_its_second_parent_when_the_first_dies() -> Result<()> {
    let mut fleet = Fleet::new()?;
    let relay = |n: u8| tests::Spec {
        role: "relay",
        name: format!("relay{n}"),
        site: "site1".into(),
        parents: vec!["controller".into()],
        config: String::new(),
    };
    fleet.add(&relay(1))?;
    fleet.add(&relay(2))?;
    let parents = vec!["relay1".into(), "relay2".into()];
    for n in 1..=3 {
        fleet.add(&tests::Spec {
            role: "host",
            name: format!("host{n}"),
            site: "site1".into(),
            parents: parents.clone(),
            config: String::new(),
        })?;
    }
    fleet.wait_up(5)?;
    let gate = Gate::new(&fleet)?;
    let run = ["run", "-a", "-t", "30s", "-u", "60s", "--async", "--json", &gate.line()];
    let id = order(&fleet, &run)?;
    gate.wait_started(&["host1", "host2", "host3"])?;
    // The relay dies for good while the command runs: the answers come by the other one.
    fleet.kill("relay1")?;
    gate.open()?;
    fleet.wait_states(&id, &[("ok", 3)])?;
    for host in ["host1", "host2", "host3"] {
        assert_eq!(gate.starts(host), 1, "{host}");
    }
    Ok(())
}

#[test]
fn an_order_that_was_accepted_survives_the_controller() -> Result<()> {
    let mut fleet = Fleet::tree(1, 2)?;
    for _ in 0..5 {
        let run = ["run", "-a", "-t", "30s", "--async", "--json", "--", "true"];
        let id = order(&fleet, &run)?;
        // At this very moment, before anything else can have been written.
        fleet.kill("controller")?;
        fleet.restart("controller")?;
        fleet.wait_states(&id, &[("ok", 2)])?;
    }
    Ok(())
}

/// A command that notes the ids of its processes, its own and that of a child of it.
fn noted(fleet: &Fleet) -> Result<(std::path::PathBuf, String)> {
    let file = fleet.path().join("processes");
    let at = file.display();
    let line =
        format!("sleep 300 & echo $! > {at}.new; echo $$ >> {at}.new; mv {at}.new {at}; wait");
    Ok((file, line))
}

fn wait_gone(file: &std::path::Path) -> Result<()> {
    for pid in fs::read_to_string(file)?.lines() {
        wait_for("the process to be gone", LIMIT, || {
            Ok((!std::path::Path::new("/proc").join(pid).exists()).then_some(()))
        })?;
    }
    Ok(())
}

#[test]
fn what_a_killed_host_left_running_has_ended_when_it_says_interrupted() -> Result<()> {
    let mut fleet = Fleet::tree(1, 1)?;
    let (file, line) = noted(&fleet)?;
    let id = order(&fleet, &["run", "-a", "-u", "300s", "--async", "--json", &line])?;
    wait_for("the command to run", LIMIT, || Ok(file.exists().then_some(())))?;
    fleet.kill("site1-host1")?;
    for pid in fs::read_to_string(&file)?.lines() {
        ensure!(std::path::Path::new("/proc").join(pid).exists(), "{pid} ended with its node");
    }
    fleet.restart("site1-host1")?;
    fleet.wait_states(&id, &[("interrupted", 1)])?;
    wait_gone(&file)
}

#[test]
fn a_host_that_is_cut_off_ends_a_command_that_runs_too_long() -> Result<()> {
    let mut fleet = Fleet::tree(1, 1)?;
    let (file, line) = noted(&fleet)?;
    let run = ["run", "-a", "-t", "1s", "-u", "2s", "--async", "--json", &line];
    let id = order(&fleet, &run)?;
    wait_for("the command to run", LIMIT, || Ok(file.exists().then_some(())))?;
    fleet.kill("site1-relay")?;
    wait_gone(&file)?;
    wait_for("the host to be missed", LIMIT, || {
        let states = &fleet.order(&id)?["order"]["states"];
        // Which of the two depends on whether the relay had time to say that it has the order.
        let missed = states["relay-lost"] == 1 || states["not-reached"] == 1;
        Ok(missed.then_some(()))
    })?;
    // What it has to say comes when somebody hears it.
    fleet.restart("site1-relay")?;
    fleet.wait_states(&id, &[("timed-out", 1)])?;
    Ok(())
}
