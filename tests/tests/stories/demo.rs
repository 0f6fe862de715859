//! The demo, behind emulated lines.

use std::process::Command;

use anyhow::{Context, Result};
use tests::{sample_tree, show};

/// On a bad line the demo does all that it does on a good one, and says what the line was like.
#[test]
fn the_demo_works_behind_a_very_weak_line() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = dir.path().join("source");
    sample_tree(&source, 50_000)?;
    let demo = Command::new(tests::binary()?)
        .args(["demo", "--wan", "veryweak", "--sites", "1", "--hosts-per-site", "2", "--push"])
        .arg(&source)
        .env("TMPDIR", dir.path())
        .output()?;
    let said = show(&demo.stdout);
    assert!(demo.status.success(), "{said}{}", show(&demo.stderr));
    let line = "each site hangs on an emulated line, veryweak: 2 Mbit/s down and up, \
                300 ms round trip, 3 % lost each way";
    assert!(said.contains(line), "{said}");
    let passed = said.lines().find(|line| line.contains("have come through")).context("a line")?;
    assert!(passed.trim().starts_with("site1: "), "{passed}");
    assert!(!passed.contains(", 0 packets were lost"), "{passed}");
    let left: Vec<_> = std::fs::read_dir(dir.path())?.collect();
    assert_eq!(left.len(), 1, "only the source is left: {left:?}");
    Ok(())
}

#[test]
fn a_line_that_nobody_knows_is_refused() -> Result<()> {
    let demo = Command::new(tests::binary()?).args(["demo", "--wan", "moon"]).output()?;
    assert_eq!(demo.status.code(), Some(2));
    assert!(show(&demo.stderr).contains("veryweak"), "{}", show(&demo.stderr));
    Ok(())
}
