//! A full state disk: whoever has it goes on degraded, and everybody else does not notice.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;
use tests::{Fleet, LIMIT, PACE, Spec, binary, sample_tree, show, wait_for};

use crate::gate::Gate;
use crate::{answer, order};

const FULL: &str = "no space left on the state disk";

/// A small disk that goes with its owner.
pub(crate) struct Disk(PathBuf);

impl Disk {
    /// `None`: this user may not mount one.
    pub(crate) fn mount(dir: &Path, mib: u64) -> Option<Disk> {
        fs::create_dir_all(dir).ok()?;
        let options = format!("size={mib}m,mode=0700");
        let args = ["-t", "tmpfs", "-o", &options, "tmpfs"];
        let mounted = Command::new("mount").args(args).arg(dir).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Disk(dir.into())),
            _ => {
                println!("skipped: this user may not mount a tmpfs");
                None
            }
        }
    }

    pub(crate) fn free(&self) -> Result<u64> {
        let stat = rustix::fs::statvfs(&self.0)?;
        Ok(stat.f_bavail * stat.f_frsize)
    }

    /// Fills it until this many bytes are left.
    pub(crate) fn fill(&self, left: u64) -> Result<()> {
        let path = self.0.join("ballast");
        let mut file = File::options().append(true).create(true).open(path)?;
        while self.free()? > left {
            let bytes = (self.free()? - left).min(64 << 10);
            if file.write_all(&vec![7; usize::try_from(bytes)?]).is_err() {
                break;
            }
        }
        Ok(())
    }

    pub(crate) fn clear(&self) -> Result<()> {
        Ok(fs::remove_file(self.0.join("ballast"))?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

fn spec(role: &'static str, name: &str, parent: &str) -> Spec {
    Spec {
        role,
        name: name.into(),
        site: "lyon".into(),
        parents: vec![parent.into()],
        config: "min_free_mib = 16\n".into(),
    }
}

/// Waits until the controller says that a node is degraded, or is not; it is reachable meanwhile.
fn wait_degraded(fleet: &Fleet, name: &str, degraded: bool) -> Result<()> {
    wait_for(&format!("{name} degraded: {degraded}"), LIMIT, || {
        let hosts = fleet.json(&["hosts", "--json"])?;
        let host = hosts.as_array().context("hosts")?.iter().find(|host| host["name"] == name);
        let host = host.context("it is enrolled")?;
        Ok((host["degraded"] == degraded && host["up"] == true).then_some(()))
    })
}

fn fault(detail: &Value, host: &str) -> Result<String> {
    Ok(answer(detail, host)?["fault"].to_string())
}

const RUN: [&str; 7] = ["run", "-a", "--async", "--json", "--reach", "3s", "--"];

fn run(fleet: &Fleet, command: &str) -> Result<String> {
    order(fleet, &[&RUN[..], &[command]].concat())
}

#[test]
fn a_host_refuses_work_goes_on_and_recovers() -> Result<()> {
    let mut fleet = Fleet::new()?;
    fleet.add(&spec("relay", "relay", "controller"))?;
    let Some(disk) = Disk::mount(&fleet.state("poor"), 48) else { return Ok(()) };
    fleet.add(&spec("host", "poor", "relay"))?;
    fleet.add(&spec("host", "rich", "relay"))?;
    fleet.wait_up(3)?;
    let first = run(&fleet, "true")?;
    fleet.wait_states(&first, &[("ok", 2)])?;
    let process = fleet.pid("poor")?;
    wait_for("something to be set aside", LIMIT, || {
        Ok(disk.0.join("reserve").exists().then_some(()))
    })?;

    // Little room: no pushes, but commands, which may make some.
    disk.fill(8 << 20)?;
    wait_degraded(&fleet, "poor", true)?;
    let source = fleet.path().join("source");
    sample_tree(&source, 10_000)?;
    let text = source.to_str().context("a path")?;
    let push = order(&fleet, &["push", text, "-a", "--dest", "/srv/app", "--async", "--json"])?;
    let detail = fleet.wait_states(&push, &[("ok", 1), ("refused", 1)])?;
    assert!(fault(&detail, "poor")?.contains(FULL), "{detail:#}");
    let id = run(&fleet, "true")?;
    fleet.wait_states(&id, &[("ok", 2)])?;

    // None at all: what was set aside is room for saying no.
    disk.fill(0)?;
    let refused = run(&fleet, "true")?;
    let detail = fleet.wait_states(&refused, &[("ok", 1), ("refused", 1)])?;
    assert!(fault(&detail, "poor")?.contains(FULL), "{detail:#}");

    // Not even that: it is silent about new orders, and there.
    let (mut silent, long) = (String::new(), "x".repeat(100_000));
    for _ in 0..40 {
        disk.fill(0)?;
        silent = order(&fleet, &[&RUN[..], &["true", &long]].concat())?;
        let states = wait_for("the end of the run", LIMIT, || {
            let states = fleet.order(&silent)?["order"]["states"].clone();
            Ok((states.get("pending").is_none()).then_some(states))
        })?;
        if states.get("not-reached").is_some() {
            break;
        }
    }
    fleet.wait_states(&silent, &[("ok", 1), ("not-reached", 1)])?;
    wait_degraded(&fleet, "poor", true)?;
    let tree = show(&fleet.barid(&["tree"])?.stdout);
    assert!(tree.contains("degraded"), "{tree}");

    // It starts like this, too.
    fleet.kill("poor")?;
    fleet.restart("poor")?;
    wait_degraded(&fleet, "poor", true)?;
    let process = (process, fleet.pid("poor")?);

    disk.clear()?;
    wait_degraded(&fleet, "poor", false)?;
    // Its time to be reached was over before there was room.
    fleet.wait_states(&silent, &[("ok", 1), ("not-reached", 1)])?;
    let last = run(&fleet, "true")?;
    fleet.wait_states(&last, &[("ok", 2)])?;
    fleet.wait_states(&refused, &[("ok", 1), ("refused", 1)])?;
    assert_eq!(fleet.pid("poor")?, process.1);
    let log = fleet.log("poor");
    let said = log.lines().filter(|line| line.contains("the state disk is short of room")).count();
    assert!(said <= 2, "once in each of its lives:\n{log}");
    assert!(!log.contains(" ERROR "), "{log}");
    Ok(())
}

#[test]
fn a_relay_passes_on_what_it_cannot_keep() -> Result<()> {
    let mut fleet = Fleet::new()?;
    let Some(disk) = Disk::mount(&fleet.state("relay"), 48) else { return Ok(()) };
    fleet.add(&spec("relay", "relay", "controller"))?;
    fleet.add(&spec("host", "a", "relay"))?;
    fleet.add(&spec("host", "b", "relay"))?;
    fleet.wait_up(3)?;
    let gate = Gate::new(&fleet)?;
    let held = order(&fleet, &["run", "-a", "--async", "--json", &gate.line()])?;
    gate.wait_started(&["a", "b"])?;
    let (process, long) = (fleet.pid("relay")?, "x".repeat(100_000));

    // Orders that are too long for what it can keep without room. Twice, since what was set aside
    // is given up the first time.
    for _ in 0..2 {
        disk.fill(0)?;
        for _ in 0..10 {
            let id = order(&fleet, &[&RUN[..], &["true", &long]].concat())?;
            fleet.wait_states(&id, &[("ok", 2)])?;
        }
    }
    assert!(fleet.log("relay").contains("the state disk is full"), "{}", fleet.log("relay"));
    wait_degraded(&fleet, "relay", true)?;
    gate.open()?;
    fleet.wait_states(&held, &[("ok", 2)])?;
    assert_eq!(fleet.pid("relay")?, process);

    // What it had not kept is with the hosts still.
    fleet.kill("relay")?;
    disk.clear()?;
    fleet.restart("relay")?;
    fleet.wait_up(3)?;
    wait_degraded(&fleet, "relay", false)?;
    let id = run(&fleet, "true")?;
    fleet.wait_states(&id, &[("ok", 2)])?;
    assert_eq!((gate.starts("a"), gate.starts("b")), (1, 1));
    Ok(())
}

#[test]
fn a_controller_takes_no_orders_and_loses_no_answers() -> Result<()> {
    let mut disk = None;
    let prepare = |state: &Path| {
        disk = Disk::mount(state, 32);
        Ok(())
    };
    let mut fleet = Fleet::prepared(binary()?, PACE, &["--min-free", "4"], prepare)?;
    let Some(disk) = disk else { return Ok(()) };
    fleet.add(&spec("relay", "relay", "controller"))?;
    fleet.add(&spec("host", "a", "relay"))?;
    fleet.add(&spec("host", "b", "relay"))?;
    fleet.wait_up(3)?;
    let gate = Gate::new(&fleet)?;
    // Answers that need more room than there is.
    let line = format!("{}; head -c 100000 /dev/urandom | base64 -w0", gate.line());
    let held: Vec<String> = (0..20)
        .map(|_| order(&fleet, &["run", "-a", "--async", "--json", &line]))
        .collect::<Result<_>>()?;
    gate.wait_started(&["a", "b"])?;

    disk.fill(0)?;
    let output = fleet.barid(&["run", "-a", "--", "true"])?;
    assert_eq!(output.status.code(), Some(1), "{}", show(&output.stderr));
    assert!(show(&output.stderr).contains(FULL), "{}", show(&output.stderr));
    gate.open()?;
    wait_for("the controller to find no room", LIMIT, || {
        disk.fill(0)?;
        Ok(fleet.log("controller").contains("the state disk is full").then_some(()))
    })?;
    fleet.wait_up(3)?;
    let tree = show(&fleet.barid(&["tree"])?.stdout);
    assert!(tree.contains(FULL), "{tree}");
    // It starts like this, too.
    fleet.kill("controller")?;
    disk.fill(0)?;
    fleet.restart("controller")?;
    fleet.wait_up(3)?;

    disk.clear()?;
    for id in &held {
        fleet.wait_states(id, &[("ok", 2)])?;
    }
    let id = run(&fleet, "true")?;
    fleet.wait_states(&id, &[("ok", 2)])?;
    assert_eq!((gate.starts("a"), gate.starts("b")), (20, 20));
    Ok(())
}
