//! Each write that an install makes is cut short once: the disk takes half of it.
//!
//! If the rest finds room, nothing has happened. If it does not, the old tree stays, and the error
//! says so. A library that is put before the system's own (`short.c`) cuts them.

use std::process::Command;

use super::fault_tests::{Bench, WENT, Way, install, is_child, listing};

/// Builds the library; `None` where that cannot be done.
fn library(bench: &Bench) -> Option<std::path::PathBuf> {
    let [source, library] = ["short.c", "short.so"].map(|name| bench.place().join(name));
    std::fs::write(&source, include_str!("short.c")).expect("written");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O1", "-Wall", "-o"]).arg(&library).arg(&source);
    match compiler.output() {
        Err(error) => println!("skipped: no compiler: {error}"),
        Ok(output) if !output.status.success() => {
            let said = String::from_utf8_lossy(&output.stderr);
            println!("skipped: no library for this system can be made here: {said}");
        }
        Ok(_) => return Some(library),
    }
    None
}

/// Returns how many writes were cut short.
fn cut_all(way: Way, is_full: bool) -> Option<usize> {
    if is_child(way) {
        return None;
    }
    let bench = Bench::new(way);
    let library = library(&bench)?;
    for turn in 1.. {
        bench.reset();
        let note = bench.place().join("short");
        let _ = std::fs::remove_file(&note);
        let own = std::env::current_exe().expect("there is one");
        let mut command = Command::new(own);
        command.env("LD_PRELOAD", &library).env("BARID_TEST_SHORT", turn.to_string());
        if is_full {
            command.env("BARID_TEST_FULL", "");
        }
        let said = bench.run(command).unwrap_or_default();
        if !note.exists() {
            assert_eq!(said, WENT);
            return Some(turn - 1);
        }
        let is = bench.check_whole(&format!("write {turn}"));
        if is_full {
            assert!(said.starts_with("cannot write"), "write {turn}: {said}");
            assert!(said.contains("no space left"), "write {turn}: {said}");
            assert_eq!(is, bench.old, "write {turn}: not as before");
        } else {
            assert_eq!(said, WENT, "write {turn}");
            assert_eq!(is, bench.new, "write {turn}: it said that it went through");
        }
        install(bench.place(), way).unwrap_or_else(|error| panic!("write {turn}: {error}"));
        let mended = listing(&bench.place().join("root/srv/app"));
        assert_eq!(mended, bench.new, "write {turn}: not mended");
    }
    None
}

#[test]
fn a_write_that_is_cut_short_goes_on() {
    for way in [Way::Files, Way::Whole, Way::Few] {
        if let Some(cut) = cut_all(way, false) {
            assert!(cut >= 2, "only {cut} writes");
        }
    }
}

#[test]
fn a_write_that_is_cut_short_by_a_full_disk_leaves_the_old_tree() {
    for way in [Way::Files, Way::Whole, Way::Few] {
        if let Some(cut) = cut_all(way, true) {
            assert!(cut >= 2, "only {cut} writes");
        }
    }
}
