//! What a push runs at the hosts, and what it keeps of files beside their bytes.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{XattrFlags, getxattr, setxattr};
use tests::{Fleet, LIMIT, sample_tree, until, wait_for};

use crate::{answer, order};

const DEST: &str = "/srv/app";
const HOST: &str = "site1-host1";

fn push(fleet: &Fleet, source: &Path, more: &[&str]) -> Result<String> {
    let source = source.to_str().context("a plain path")?;
    let args = ["push", source, "--dest", DEST, "-a", "--async", "--json"];
    order(fleet, &[&args, more].concat())
}

#[test]
fn commands_come_before_for_files_and_after() -> Result<()> {
    let fleet = Fleet::tree(1, 1)?;
    let source = fleet.path().join("source");
    sample_tree(&source, 10_000)?;
    let there = fleet.at(HOST, DEST);

    let id = push(&fleet, &source, &["--before", "echo no; exit 3", "--after", "echo never"])?;
    let detail = fleet.wait_states(&id, &[("failed", 1)])?;
    let said = answer(&detail, HOST)?;
    assert_eq!((&said["code"], &said["stdout"]), (&3.into(), &"no\n".into()), "{detail:#}");
    let fault = said["fault"].as_str().context("a fault")?;
    assert!(fault.contains("before: command: `echo no; exit 3` exited with 3"), "{fault}");
    assert!(!there.exists(), "nothing was touched");

    let special = r#"*.conf=printf '%s %s %s\n' "$FILE" "$REMFILE" "$BASEFILE""#;
    let commands =
        ["--before", "echo to $DEST", "--special", special, "--after", "echo $COUNT: $FILES"];
    let id = push(&fleet, &source, &commands)?;
    let detail = fleet.wait_states(&id, &[("ok", 1)])?;
    let said = answer(&detail, HOST)?["stdout"].as_str().context("output")?;
    let from = source.display();
    let expected = format!(
        "to {DEST}\n{from}/a/b/two.conf {DEST}/a/b/two.conf two.conf\n\
         {from}/a/one.conf {DEST}/a/one.conf one.conf\n8: {DEST}/a/b/c/leaf:{DEST}/a/b/two.conf:"
    );
    assert!(said.starts_with(&expected), "{said}");

    // Nothing has changed: only what comes before is run.
    let id = push(&fleet, &source, &commands)?;
    let detail = fleet.wait_states(&id, &[("ok", 1)])?;
    assert_eq!(answer(&detail, HOST)?["stdout"], format!("to {DEST}\n"), "{detail:#}");

    // A failure afterwards is a failure, but the files are in place, and that is known.
    fs::write(source.join("a/one.conf"), "one = 2\n")?;
    let id = push(&fleet, &source, &["--after", "exit 4"])?;
    let detail = fleet.wait_states(&id, &[("failed", 1)])?;
    assert_eq!(answer(&detail, HOST)?["written"], 1, "{detail:#}");
    assert_eq!(fs::read_to_string(there.join("a/one.conf"))?, "one = 2\n");
    let source = source.to_str().context("a path")?;
    let plan = fleet.json(&["push", source, "--dest", DEST, "-a", "--plan", "--json"])?;
    let step = &plan["push"]["steps"][0];
    assert_eq!((&step["known"], &step["changed"]), (&true.into(), &0.into()), "{plan:#}");
    Ok(())
}

#[test]
fn a_host_that_dies_before_the_last_command_has_ended_runs_it_again() -> Result<()> {
    let mut fleet = Fleet::tree(1, 1)?;
    let source = fleet.path().join("source");
    sample_tree(&source, 10_000)?;
    let (log, go) = (fleet.path().join("log"), fleet.path().join("go"));
    let line = format!("echo $COUNT >> {}; {}", log.display(), until(&go));
    let id = push(&fleet, &source, &["--after", &line])?;
    let runs = || fs::read_to_string(&log).unwrap_or_default().lines().count();
    wait_for("the command to run", LIMIT, || Ok((runs() == 1).then_some(())))?;
    fleet.kill(HOST)?;
    fs::write(&go, "")?;
    fleet.restart(HOST)?;
    fleet.wait_states(&id, &[("ok", 1)])?;
    // Nothing had to be written any more, and still the command came, for all files.
    assert_eq!(fs::read_to_string(&log)?, "8\n8\n");
    Ok(())
}

#[test]
fn links_holes_and_attributes_arrive_and_old_files_are_kept() -> Result<()> {
    let fleet = Fleet::tree(1, 1)?;
    let source = fleet.path().join("source");
    sample_tree(&source, 10_000)?;
    fs::hard_link(source.join("run.sh"), source.join("a/also"))?;
    let image = fs::File::create(source.join("image"))?;
    image.set_len(8 << 20)?;
    image.write_all_at(b"end", (8 << 20) - 3)?;
    drop(image);
    let dressed = source.join("a/one.conf");
    let keeps = setxattr(&dressed, "user.origin", b"here", XattrFlags::empty()).is_ok();
    let id = push(&fleet, &source, &[])?;
    fleet.wait_states(&id, &[("ok", 1)])?;
    let there = fleet.at(HOST, DEST);
    let (one, other) = (fs::metadata(there.join("run.sh"))?, fs::metadata(there.join("a/also"))?);
    assert_eq!((one.ino(), one.nlink()), (other.ino(), 2));
    let (is, was) = (fs::metadata(there.join("image"))?, fs::metadata(source.join("image"))?);
    assert!(is.len() == was.len() && is.blocks() <= was.blocks() + 16, "{}", is.blocks());
    if keeps {
        let mut value = [0; 16];
        let length = getxattr(there.join("a/one.conf"), "user.origin", &mut value[..])?;
        assert_eq!(&value[..length], b"here");
    }

    fs::write(&dressed, "one = 2\n")?;
    let id = push(&fleet, &source, &["--savetargets", ".OLD", "--delete"])?;
    fleet.wait_states(&id, &[("ok", 1)])?;
    assert_eq!(fs::read_to_string(there.join("a/one.conf"))?, "one = 2\n");
    assert_eq!(fs::read_to_string(there.join("a/one.conf.OLD"))?, "one = 1\n".repeat(100));
    assert!(!there.join("run.sh.OLD").exists(), "it was not replaced");
    Ok(())
}
