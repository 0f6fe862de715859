//! The forms of output: what is alike together, what differs beside it, and every byte in a file.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{Fleet, Lines, show};

/// What a verb writes to its two streams, if it ends with this code.
fn said(fleet: &Fleet, code: i32, args: &[&str]) -> Result<(String, String)> {
    let output = fleet.barid(args)?;
    let (out, err) = (show(&output.stdout).to_string(), show(&output.stderr).to_string());
    ensure!(output.status.code() == Some(code), "{args:?}: {} {err}", output.status);
    Ok((out, err))
}

/// Says something that differs only in the host's name and numbers, but for one host.
const ALIKE: &str = "case $BARID_NODE in *site2-host2) echo all is lost; exit 0;; esac; \
    echo \"$BARID_NODE up ${#BARID_NODE} days, pid $$, kernel 6.1.0\"";

#[test]
fn answers_that_are_alike_are_one() -> Result<()> {
    let fleet = Fleet::tree(2, 2)?;
    let (out, _) = said(&fleet, 0, &["run", "-a", "--similar", ALIKE])?;
    let rule = "---------------";
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[..3], [rule, "site1-host[1-2],site2-host1 (3)", rule], "{out}");
    assert!(lines[3].starts_with("<host> up 11 days, pid <"), "{out}");
    assert!(lines[3].ends_with(">, kernel 6.1.0"), "{out}");
    assert_eq!(lines[4..], [rule, "site2-host2", rule, "all is lost"], "{out}");

    let (out, _) = said(&fleet, 0, &["runs", "show", "last", "--similar", "--json"])?;
    let lines: Vec<Value> =
        out.lines().map(serde_json::from_str).collect::<Result<_, _>>().context("JSON")?;
    let alike = lines.iter().find(|line| line["type"] == "similar").context("a template")?;
    assert_eq!(alike["set"], "site1-host[1-2],site2-host1");
    assert_eq!(alike["values"]["site1-host1"][0], "site1-host1", "{alike:#}");
    assert_eq!(alike["values"].as_object().map(|hosts| hosts.len()), Some(3));
    let (out, _) = said(&fleet, 0, &["-v", "runs", "show", "last", "--similar"])?;
    assert!(out.lines().any(|line| line.starts_with("  site2-host1: ")), "{out}");
    Ok(())
}

#[test]
fn differences_are_to_what_most_have_said() -> Result<()> {
    let fleet = Fleet::tree(2, 2)?;
    let line =
        "echo one; case $BARID_NODE in *site2-host2) echo 2;; *) echo two;; esac; echo three";
    let (out, err) = said(&fleet, 0, &["run", "-a", "--diff", line])?;
    assert_eq!(
        out,
        "--- site1-host[1-2],site2-host1 (3)\n+++ site2-host2\n\
         @@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n"
    );
    assert!(err.contains("4 targets: 4 ok"), "{err}");
    let (out, err) = said(&fleet, 0, &["run", "-a", "--diff", "--", "echo", "same"])?;
    assert!(out.is_empty() && err.contains("all 4 answers are equal"), "{out}{err}");
    Ok(())
}

#[test]
fn each_host_has_a_file_with_its_bytes() -> Result<()> {
    let fleet = Fleet::tree(1, 2)?;
    let (out, err) = (fleet.path().join("o/out"), fleet.path().join("err"));
    let args = ["--outdir", out.to_str().context("a path")?, "--errdir", err.to_str().context("")?];
    let line = "printf 'a\\0\\377b'; echo \"$BARID_NODE\" >&2; exit 3";
    said(&fleet, 1, &[&["run", "-a", "-b"], &args[..], &[line]].concat())?;
    assert_eq!(fs::read(out.join("site1-host1"))?, b"a\0\xffb");
    assert_eq!(fs::read(err.join("site1-host2"))?, b"site1-host2\n");
    said(&fleet, 0, &[&["run", "-w", "site1-host1"], &args[..], &["--", "true"]].concat())?;
    assert_eq!(fs::read(out.join("site1-host1"))?, b"", "an older answer does not stay");
    assert_eq!(fs::read(out.join("site1-host2"))?, b"a\0\xffb", "nobody asked this one");
    let output = fleet.barid(&["run", "-a", "--outdir", "/dev/null/x", "--", "true"])?;
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(fleet.json(&["runs", "--json"])?.as_array().map(Vec::len), Some(2), "nothing ran");
    Ok(())
}

#[test]
fn groups_stand_for_their_members() -> Result<()> {
    let fleet = Fleet::tree(2, 2)?;
    let (out, _) = said(&fleet, 0, &["run", "-a", "-br", "--", "echo", "x"])?;
    assert!(out.contains("\n@site1,@site2 (4)\n"), "{out}");
    let (out, _) = said(&fleet, 0, &["run", "-a", "-x", "site1-host1", "-bLr", "--", "echo", "x"])?;
    assert_eq!(out, "@site2,site1-host2: x\n");
    Ok(())
}

#[test]
fn equal_lines_come_once_as_soon_as_all_have_them() -> Result<()> {
    let fleet = Fleet::tree(1, 3)?;
    let gate = fleet.path().join("gate");
    ensure!(Command::new("mkfifo").arg(&gate).status()?.success(), "mkfifo");
    let line = format!(
        "case $BARID_NODE in *3) n=three;; *) n=less;; esac; echo all; echo $n; \
         case $BARID_NODE in *3) read x < {}; echo end;; esac",
        gate.display()
    );
    let mut run = fleet.command(&["run", "-a", "-bL", "-q", &line]);
    let mut run = run.stdout(Stdio::piped()).spawn()?;
    let lines = Lines::of(run.stdout.take().context("it is piped")?);
    let next = || lines.next_line();
    // The third host still waits; what all have by now is there.
    assert_eq!(next()?, "site1-host[1-3]: all");
    assert_eq!(next()?, "site1-host[1-2]: less");
    assert_eq!(next()?, "site1-host3: three");
    fs::write(&gate, "go\n")?;
    assert_eq!(next()?, "site1-host3: end");
    assert_eq!(run.wait()?.code(), Some(0));
    Ok(())
}
