//! Content stores: what is damaged is found, and fetched again by whoever needs it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tests::{Fleet, listing, sample_tree, show};

use crate::order;

const DEST: &str = "/srv/app";

/// Flips a bit in the middle of every file that holds content. Returns how many there were.
fn damage(store: &Path) -> Result<usize> {
    let mut files: Vec<PathBuf> = Vec::new();
    let mut folders = vec![store.join("objects"), store.join("volumes")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    for file in &files {
        let mut bytes = fs::read(file)?;
        let middle = bytes.len() / 2;
        *bytes.get_mut(middle).context("a byte")? ^= 1;
        fs::write(file, bytes)?;
    }
    Ok(files.len())
}

#[test]
fn a_relay_fetches_again_what_has_rotted() -> Result<()> {
    let mut fleet = Fleet::tree(1, 2)?;
    let source = fleet.path().join("source");
    sample_tree(&source, 3_000_000)?;
    fleet.kill("site1-host2")?;
    fleet.wait_up(2)?;
    let text = source.to_str().context("a plain path")?;
    let push = ["push", text, "--dest", DEST, "-a", "-t", "1s", "--async", "--json"];
    let id = order(&fleet, &push)?;
    fleet.wait_states(&id, &[("ok", 1), ("not-reached", 1)])?;
    // The relay keeps the pack for the host that is away, and its disk goes bad.
    fleet.kill("site1-relay")?;
    ensure!(damage(&fleet.state("site1-relay").join("store"))? > 0, "the relay keeps nothing");
    fleet.restart("site1-relay")?;
    fleet.restart("site1-host2")?;
    fleet.wait_states(&id, &[("ok", 2)])?;
    assert_eq!(listing(&fleet.at("site1-host2", DEST))?, listing(&source)?);
    Ok(())
}

#[test]
fn a_host_whose_store_has_rotted_gets_what_it_needs_again() -> Result<()> {
    let mut fleet = Fleet::tree(1, 1)?;
    let source = fleet.path().join("source");
    sample_tree(&source, 500_000)?;
    let text = source.to_str().context("a plain path")?;
    let push = ["push", text, "--dest", DEST, "-a", "--async", "--json"];
    let id = order(&fleet, &push)?;
    fleet.wait_states(&id, &[("ok", 1)])?;
    // The manifest that the next push builds on lies in the host's store.
    fleet.kill("site1-host1")?;
    ensure!(damage(&fleet.state("site1-host1").join("store"))? > 0, "the host keeps nothing");
    fleet.restart("site1-host1")?;
    fs::write(source.join("a/one.conf"), "one = 3\n".repeat(100))?;
    let id = order(&fleet, &push)?;
    fleet.wait_states(&id, &[("ok", 1)])?;
    assert_eq!(listing(&fleet.at("site1-host1", DEST))?, listing(&source)?);
    Ok(())
}

#[test]
fn stores_are_measured_checked_and_swept() -> Result<()> {
    let mut fleet = Fleet::tree(1, 1)?;
    let source = fleet.path().join("source");
    sample_tree(&source, 1_000_000)?;
    let text = source.to_str().context("a plain path")?;
    let push = ["push", text, "--dest", DEST, "-a", "--async", "--json"];
    let id = order(&fleet, &push)?;
    fleet.wait_states(&id, &[("ok", 1)])?;
    let usage = fleet.json(&["store", "usage", "--json"])?;
    assert!(usage["bytes"].as_u64() > Some(1_000_000), "{usage:#}");
    let check = fleet.json(&["store", "check", "--json"])?;
    assert_eq!(check["good"], usage["objects"], "{check:#}");

    // What was only looked at, or is in place nowhere, goes; what is in place stays.
    let other = fleet.path().join("other");
    fs::write(&other, vec![7; 300_000])?;
    let other = other.to_str().context("a plain path")?;
    fleet.barid(&["push", other, "--dest", "/srv/other", "-a", "--plan"])?;
    let swept = fleet.json(&["store", "gc", "--json"])?;
    assert!(swept["objects"].as_u64() > Some(0), "{swept:#}");
    let after = fleet.json(&["store", "usage", "--json"])?;
    assert!(after["bytes"].as_u64() > Some(1_000_000), "{after:#}");

    ensure!(damage(&fleet.state("controller").join("store"))? > 0, "nothing to damage");
    let output = fleet.barid(&["store", "check"])?;
    let said = show(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("was damaged"), "{said}");
    assert_eq!(fleet.json(&["store", "check", "--json"])?["damaged"], serde_json::json!([]));

    // A node's own, while it does not run.
    let state = fleet.state("site1-relay");
    let state = state.to_str().context("a plain path")?.to_owned();
    let running = fleet.barid(&["store", "check", "--state", &state])?;
    let said = show(&running.stderr);
    assert!(said.contains("stop the node first"), "{said}");
    fleet.kill("site1-relay")?;
    for verb in ["usage", "check", "gc"] {
        let output = fleet.barid(&["store", verb, "--state", &state])?;
        assert!(output.status.success(), "{verb}: {}", show(&output.stderr));
    }
    Ok(())
}
