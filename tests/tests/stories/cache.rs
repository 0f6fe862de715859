//! The content store of a relay: it keeps what it has brought, within bounds, and says no early.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tests::{Fleet, Spec, noise, show};

use crate::full_disk::Disk;
use crate::{answer, order};

const DEST: &str = "/srv/app";

/// A controller, and a host behind a relay with these settings.
fn fleet(config: &str, prepare: impl FnOnce(&Path)) -> Result<Fleet> {
    let mut fleet = Fleet::new()?;
    prepare(&fleet.state("relay"));
    fleet.add(&Spec::new("relay", "relay", "controller").at("lyon").with(config))?;
    fleet.add(&Spec::new("host", "host", "relay").at("lyon"))?;
    fleet.wait_up(2)?;
    Ok(fleet)
}

/// A file of so many bytes that nothing else is like.
fn source(fleet: &Fleet, seed: u64, bytes: usize) -> Result<PathBuf> {
    let path = fleet.path().join(format!("source{seed}"));
    fs::write(&path, noise(seed, bytes))?;
    Ok(path)
}

/// Pushes a file to the host, each to a place of its own.
fn push(fleet: &Fleet, source: &Path) -> Result<String> {
    let name = source.file_name().and_then(|name| name.to_str()).context("a plain name")?;
    let (source, dest) = (source.to_str().context("a plain path")?, format!("{DEST}/{name}"));
    order(fleet, &["push", source, "--dest", &dest, "-w", "host", "--async", "--json"])
}

fn pushed(fleet: &Fleet, seed: u64, bytes: usize) -> Result<()> {
    let source = source(fleet, seed, bytes)?;
    let id = push(fleet, &source)?;
    fleet.wait_states(&id, &[("ok", 1)])?;
    let dest = format!("{DEST}/source{seed}");
    assert!(fs::read(fleet.at("host", &dest))? == fs::read(&source)?, "another file");
    Ok(())
}

/// Bytes in the files below a folder.
pub(crate) fn bytes_in(dir: &Path) -> Result<u64> {
    let mut sum = 0;
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            if meta.is_dir() { folders.push(entry.path()) } else { sum += meta.len() }
        }
    }
    Ok(sum)
}

#[test]
fn it_keeps_what_it_has_brought_as_long_as_there_is_room() -> Result<()> {
    let mut fleet = fleet("store_max_mib = 7\n", |_| ())?;
    for seed in 0..8 {
        pushed(&fleet, seed, 2 << 20)?;
        let objects = fleet.state("relay").join("store/objects");
        assert!(bytes_in(&objects)? <= 7 << 20, "{seed}: {}", bytes_in(&objects)?);
    }
    let log = fleet.log("relay");
    assert!(log.contains("dropped cached content to make room"), "{log}");
    fleet.kill("relay")?;
    let state = fleet.state("relay");
    let state = state.to_str().context("a plain path")?.to_owned();
    let usage = fleet.json(&["store", "usage", "--state", &state, "--json"])?;
    assert_eq!(usage["max"], 7 << 20, "{usage:#}");
    assert!(usage["spare"].as_u64() > Some(4 << 20), "{usage:#}");
    let text = show(&fleet.barid(&["store", "usage", "--state", &state])?.stdout);
    assert!(text.contains(" of at most 7.0 MiB, of which "), "{text}");
    Ok(())
}

#[test]
fn a_push_that_it_cannot_take_in_fails_before_its_first_byte() -> Result<()> {
    let fleet = fleet("store_max_mib = 4\n", |_| ())?;
    let source = source(&fleet, 100, 20 << 20)?;
    let id = push(&fleet, &source)?;
    let detail = fleet.wait_states(&id, &[("failed", 1)])?;
    let fault = answer(&detail, "host")?["fault"].to_string();
    assert!(fault.contains("no room") && fault.contains("at a relay above"), "{fault}");
    let log = fleet.log("relay");
    assert!(log.contains("a push is not taken in: ") || log.contains("a push is not taken in"));
    assert!(log.contains("of 4 MiB that it may have"), "{log}");
    let store = fleet.state("relay").join("store");
    let taken = bytes_in(&store.join("objects"))? + bytes_in(&store.join("volumes"))?;
    assert!(taken < 64 << 10, "{taken}");
    // What fits goes through.
    pushed(&fleet, 101, 3 << 20)
}

#[test]
fn it_gives_way_when_somebody_else_fills_the_disk() -> Result<()> {
    let mut disk = None;
    let fleet =
        fleet("min_free_mib = 2\nstore_keep_free_mib = 6\nstore_max_mib = 40\n", |state| {
            disk = Disk::mount(state, 64);
        })?;
    let Some(disk) = disk else { return Ok(()) };
    for seed in 0..4 {
        pushed(&fleet, seed, 6 << 20)?;
    }
    assert!(bytes_in(&fleet.state("relay").join("store/objects"))? > 20 << 20);
    // There is less room than the next push needs, and cached content that nobody waits for.
    disk.fill(3 << 20)?;
    pushed(&fleet, 9, 6 << 20)?;
    assert!(disk.free()? > 2 << 20, "{}", disk.free()?);
    let log = fleet.log("relay");
    assert!(!log.contains("the state disk is full"), "{log}");
    Ok(())
}
