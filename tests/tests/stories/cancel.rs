//! Orders that are taken back: what runs ends with all its children, what has not begun never
//! does, and whoever is away is told when it is back.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tests::{Fleet, LIMIT, show, wait_for};

use crate::gate::Gate;
use crate::{answer, order};

const HOSTS: [&str; 4] = ["site1-host1", "site1-host2", "site2-host1", "site2-host2"];

/// Gives a run that never ends by itself, and waits until it has started at these hosts.
fn endless(fleet: &Fleet, gate: &Gate, hosts: &[&str]) -> Result<String> {
    let run = ["run", "-a", "-t", "60s", "-u", "300s", "--async", "--json", &gate.line()];
    let id = order(fleet, &run)?;
    gate.wait_started(hosts)?;
    Ok(id)
}

/// The processes whose ids stand in a file.
fn processes(file: &Path) -> Result<Vec<String>> {
    Ok(fs::read_to_string(file)?.lines().map(String::from).collect())
}

#[test]
fn a_command_ends_with_its_children_and_keeps_what_it_said() -> Result<()> {
    let fleet = Fleet::tree(1, 2)?;
    let dir = fleet.path().join("pids");
    fs::create_dir(&dir)?;
    let at = dir.display();
    let line = format!(
        "echo begun; tail -f /dev/null & \
         echo $! > {at}/$BARID_NODE.new; echo $$ >> {at}/$BARID_NODE.new; \
         setsid tail -f /dev/null & echo $! >> {at}/$BARID_NODE.new; \
         mv {at}/$BARID_NODE.new {at}/$BARID_NODE; wait"
    );
    let id = order(&fleet, &["run", "-a", "-u", "300s", "--async", "--json", &line])?;
    let hosts = ["site1-host1", "site1-host2"];
    wait_for("the command to run everywhere", LIMIT, || {
        Ok(hosts.iter().all(|host| dir.join(host).exists()).then_some(()))
    })?;
    let output = fleet.barid(&["cancel", &id])?;
    assert_eq!(output.status.code(), Some(0), "{}", show(&output.stderr));
    let told = show(&output.stderr);
    assert!(told.contains("2 cancelled (site1-host[1-2])"), "{told}");
    let detail = fleet.wait_states(&id, &[("cancelled", 2)])?;
    assert_eq!(answer(&detail, "site1-host1")?["stdout"], "begun\n");
    for host in hosts {
        let pids = processes(&dir.join(host))?;
        // The third has a session of its own, out of the group's reach.
        assert_eq!(pids.len(), 3, "{pids:?}");
        for pid in pids {
            wait_for("the process to be gone", LIMIT, || {
                Ok((!Path::new("/proc").join(&pid).exists()).then_some(()))
            })?;
        }
    }
    Ok(())
}

#[test]
fn only_what_goes_on_can_be_taken_back() -> Result<()> {
    let fleet = Fleet::tree(1, 1)?;
    let id = order(&fleet, &["run", "-a", "--async", "--json", "--", "true"])?;
    fleet.wait_states(&id, &[("ok", 1)])?;
    let output = fleet.barid(&["cancel", &id])?;
    assert_eq!(output.status.code(), Some(1));
    assert!(show(&output.stderr).contains("nothing to take back"), "{}", show(&output.stderr));

    let gate = Gate::new(&fleet)?;
    endless(&fleet, &gate, &["site1-host1"])?;
    let cancel = order(&fleet, &["cancel", "last", "--async", "--json"])?;
    let output = fleet.barid(&["cancel", &cancel])?;
    assert_eq!(output.status.code(), Some(1), "a cancel is not taken back");
    // The last order is still the run, and asking for its end again is harmless.
    let again = fleet.barid(&["cancel", "last"])?;
    let told = show(&again.stderr);
    ensure!(again.status.success() || told.contains("nothing to take back"), "{told}");
    let output = fleet.barid(&["attach", "last"])?;
    assert_eq!(output.status.code(), Some(130), "{}", show(&output.stderr));
    let output = fleet.barid(&["cancel", "ffffff"])?;
    assert_eq!(output.status.code(), Some(1), "{}", show(&output.stderr));
    Ok(())
}

#[test]
fn a_host_that_is_away_never_begins_what_was_taken_back() -> Result<()> {
    let mut fleet = Fleet::tree(2, 2)?;
    fleet.kill("site1-host2")?;
    fleet.wait_up(5)?;
    let gate = Gate::new(&fleet)?;
    let others = ["site1-host1", "site2-host1", "site2-host2"];
    let id = endless(&fleet, &gate, &others)?;
    let output = fleet.barid(&["cancel", &id, "-t", "1s"])?;
    assert_eq!(output.status.code(), Some(3), "{}", show(&output.stderr));
    assert!(show(&output.stderr).contains("site1-host2: not reached"), "{output:?}");
    fleet.restart("site1-host2")?;
    fleet.wait_states(&id, &[("cancelled", 4)])?;
    assert_eq!(gate.starts("site1-host2"), 0);
    Ok(())
}

/// Cancels while `victim` is dead; it comes back afterwards.
fn cancel_with_crash(victim: &str, states: &[(&str, u64)]) -> Result<()> {
    let mut fleet = Fleet::tree(2, 2)?;
    let gate = Gate::new(&fleet)?;
    let id = endless(&fleet, &gate, &HOSTS)?;
    if victim == "controller" {
        order(&fleet, &["cancel", &id, "--async", "--json"])?;
        fleet.kill(victim)?;
    } else {
        fleet.kill(victim)?;
        order(&fleet, &["cancel", &id, "--async", "--json"])?;
    }
    fleet.restart(victim)?;
    fleet.wait_states(&id, states)?;
    for host in HOSTS {
        assert_eq!(gate.starts(host), 1, "{host}");
    }
    Ok(())
}

#[test]
fn a_relay_dies_around_a_cancel() -> Result<()> {
    cancel_with_crash("site1-relay", &[("cancelled", 4)])
}

#[test]
fn a_host_dies_around_a_cancel() -> Result<()> {
    cancel_with_crash("site1-host1", &[("cancelled", 3), ("interrupted", 1)])
}

#[test]
fn an_accepted_cancel_survives_the_controller() -> Result<()> {
    cancel_with_crash("controller", &[("cancelled", 4)])
}

/// A viewer without a terminal, once the run goes on everywhere.
fn viewer(fleet: &Fleet, gate: &Gate) -> Result<Child> {
    let line = gate.line();
    let mut viewer = fleet.attended(&["run", "-a", "-u", "300s", &line]);
    viewer.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let viewer = viewer.spawn()?;
    gate.wait_started(&["site1-host1", "site1-host2"])?;
    Ok(viewer)
}

fn send(child: &Child, signal: Signal) -> Result<()> {
    let pid = i32::try_from(child.id())?;
    Ok(kill_process(Pid::from_raw(pid).context("a process id")?, signal)?)
}

#[test]
fn an_interrupt_without_a_terminal_cancels() -> Result<()> {
    let fleet = Fleet::tree(1, 2)?;
    let gate = Gate::new(&fleet)?;
    let viewer = viewer(&fleet, &gate)?;
    send(&viewer, Signal::INT)?;
    let output = viewer.wait_with_output()?;
    assert_eq!(output.status.code(), Some(130), "{}", show(&output.stderr));
    let told = show(&output.stderr);
    assert!(told.contains("2 cancelled (site1-host[1-2])"), "{told}");
    Ok(())
}

#[test]
fn a_viewer_that_is_hung_up_leaves_the_run_and_another_one_attaches() -> Result<()> {
    let fleet = Fleet::tree(1, 2)?;
    let gate = Gate::new(&fleet)?;
    let viewer = viewer(&fleet, &gate)?;
    send(&viewer, Signal::HUP)?;
    let output = viewer.wait_with_output()?;
    assert_eq!(output.status.code(), Some(131), "{}", show(&output.stderr));
    assert!(show(&output.stderr).contains("barid attach"), "{}", show(&output.stderr));
    gate.open()?;
    let output = fleet.barid(&["attach", "last", "-b"])?;
    assert_eq!(output.status.code(), Some(0), "{}", show(&output.stderr));
    let text = show(&output.stdout);
    assert!(text.contains("site1-host[1-2] (2)") && text.contains("done"), "{text}");
    Ok(())
}
