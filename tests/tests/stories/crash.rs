//! kill -9 of each kind of process in the middle of things: nothing runs twice, nothing that was
//! acknowledged is lost, and everything that can end does.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use tests::{Fleet, LIMIT, listing, sample_tree, wait_for};

use crate::order;

/// A command that leaves a line where it has started, and ends when it is let go.
struct Gate {
    dir: PathBuf,
}

impl Gate {
    fn new(fleet: &Fleet) -> Result<Gate> {
        let dir = fleet.path().join("gate");
        fs::create_dir(&dir)?;
        Ok(Gate { dir })
    }

    fn line(&self) -> String {
        let dir = self.dir.display();
        format!(
            "echo x >> {dir}/$BARID_NODE; while ! [ -e {dir}/go ]; do sleep 0.05; done; echo done"
        )
    }

    fn open(&self) -> Result<()> {
        Ok(fs::write(self.dir.join("go"), "")?)
    }

    /// How often the command has started at a host.
    fn starts(&self, host: &str) -> usize {
        fs::read_to_string(self.dir.join(host)).map_or(0, |text| text.lines().count())
    }

    fn wait_started(&self, hosts: &[&str]) -> Result<()> {
        wait_for("the command to run everywhere", LIMIT, || {
            Ok(hosts.iter().all(|host| self.starts(host) > 0).then_some(()))
        })
    }
}

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
