//! Bad input: a clear error for the one concerned, nothing half done, everybody else unaffected.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use tests::{Fleet, listing, sample_tree, show};

use crate::{answer, order};

#[test]
fn what_does_not_exist_is_named_and_nothing_runs() -> Result<()> {
    let fleet = Fleet::tree(1, 2)?;
    let cases: [(&[&str], &str); 6] = [
        (&["run", "-w", "site1-host[1-3]", "--", "true"], "site1-host3"),
        (&["run", "-g", "nowhere", "--", "true"], "nowhere"),
        (&["run", "-w", "site1-host1", "-x", "site1-host1", "--", "true"], "empty"),
        (&["run", "-w", "web[1-", "--", "true"], "web[1-"),
        (&["push", "/no/such/folder", "-a"], "/no/such/folder"),
        (&["runs", "show", "ffffffff"], "ffffffff"),
    ];
    for (args, named) in cases {
        let output = fleet.barid(args)?;
        assert!(!output.status.success(), "{args:?}");
        assert!(show(&output.stderr).contains(named), "{args:?}: {}", show(&output.stderr));
    }
    assert_eq!(fleet.barid(&["run", "--", "true"])?.status.code(), Some(2), "no targets");
    assert_eq!(fleet.json(&["runs", "--json"])?.as_array().map(Vec::len), Some(0));
    Ok(())
}

#[test]
fn a_controller_that_is_not_there_is_exit_6() -> Result<()> {
    let mut fleet = Fleet::new()?;
    fleet.kill("controller")?;
    let output = fleet.barid(&["hosts"])?;
    assert_eq!(output.status.code(), Some(6));
    assert!(show(&output.stderr).contains("barid.sock"), "{}", show(&output.stderr));
    Ok(())
}

#[test]
fn a_destination_that_cannot_be_written_fails_there_alone() -> Result<()> {
    let fleet = Fleet::tree(1, 3)?;
    let source = fleet.path().join("source");
    sample_tree(&source, 100_000)?;
    fs::write(fleet.at("site1-host2", "/srv"), "a file where a folder should be")?;
    let text = source.to_str().context("a path")?;
    let id = order(&fleet, &["push", text, "-a", "--dest", "/srv/app", "--async", "--json"])?;
    let detail = fleet.wait_states(&id, &[("ok", 2), ("failed", 1)])?;
    let fault = answer(&detail, "site1-host2")?["fault"].to_string();
    assert!(fault.contains("srv"), "{fault}");
    assert_eq!(fs::read_to_string(fleet.at("site1-host2", "/srv"))?.len(), 31);
    assert_eq!(listing(&fleet.at("site1-host1", "/srv/app"))?, listing(&source)?);
    Ok(())
}

/// A mounted file system that goes with its owner.
struct Mount(std::path::PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

#[test]
fn a_full_disk_fails_there_alone_and_leaves_the_old_tree() -> Result<()> {
    let fleet = Fleet::tree(1, 2)?;
    let root = fleet.state("site1-host1").join("root");
    let args = ["-t", "tmpfs", "-o", "size=2m", "tmpfs"];
    let mounted = Command::new("mount").args(args).arg(&root).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        println!("skipped: this user may not mount a tmpfs");
        return Ok(());
    }
    let _mount = Mount(root);
    let source = fleet.path().join("source");
    sample_tree(&source, 100_000)?;
    let text = source.to_str().context("a path")?;
    let push = ["push", text, "-a", "--dest", "/srv/app", "--async", "--json"];
    let id = order(&fleet, &push)?;
    fleet.wait_states(&id, &[("ok", 2)])?;
    let small = listing(&source)?;

    fs::remove_dir_all(&source)?;
    sample_tree(&source, 8 << 20)?;
    let id = order(&fleet, &push)?;
    let detail = fleet.wait_states(&id, &[("ok", 1), ("failed", 1)])?;
    let fault = answer(&detail, "site1-host1")?["fault"].to_string();
    assert!(fault.contains("room") || fault.contains("space"), "{fault}");
    assert_eq!(listing(&fleet.at("site1-host1", "/srv/app"))?, small, "the old tree stays");
    assert_eq!(listing(&fleet.at("site1-host2", "/srv/app"))?, listing(&source)?);
    Ok(())
}
