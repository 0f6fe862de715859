//! Hosts that print what nobody wants to read: without an end of line, without measure, and with
//! bytes that a terminal would obey.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use tests::{Fleet, LIMIT, show, until, wait_for};

use crate::{answer, order};

/// What each host prints, in all.
const NOISE: u64 = 10_000_000;
/// How much a node above them may grow by it, in KiB.
const MOST: u64 = 96 << 10;

/// The most memory that a process has ever had, in KiB.
fn peak_kib(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("a peak")?;
    Ok(line.split_whitespace().next().context("a number")?.parse()?)
}

#[test]
fn noise_from_everybody_is_counted_and_bounded_and_holds_nobody_up() -> Result<()> {
    let fleet = Fleet::tree(1, 5)?;
    let nodes = ["controller", "site1-relay"];
    let peak = |name| peak_kib(fleet.pid(name)?);
    let before = nodes.map(peak);
    // They wait in the end, so that whoever is not held up answers before them.
    let go = fleet.path().join("go");
    let line = format!("head -c {NOISE} /dev/urandom; {}", until(&go));
    let noise = order(&fleet, &["run", "-w", "site1-host[1-4]", "--async", "--json", &line])?;
    let mut viewer = fleet.command(&["attach", &noise]);
    let mut viewer = viewer.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    for _ in 0..5 {
        let output = fleet.barid(&["run", "-w", "site1-host5", "-b", "--", "echo", "well"])?;
        assert!(output.status.success(), "{}", show(&output.stderr));
        assert!(show(&output.stdout).contains("well"));
    }
    ensure!(viewer.try_wait()?.is_none(), "the noise has not ended");
    fs::write(&go, "")?;
    let mut shown = 0;
    let status = wait_for("the viewer to end", LIMIT, || {
        shown = shown.max(peak_kib(viewer.id()).unwrap_or_default());
        Ok(viewer.try_wait()?)
    })?;
    assert!(status.success(), "{status}");
    assert!(shown < MOST, "the viewer had {shown} KiB");
    let detail = fleet.wait_states(&noise, &[("ok", 4)])?;
    for host in 1..=4 {
        let name = format!("site1-host{host}");
        assert_eq!(answer(&detail, &name)?["stdout_size"], NOISE, "{name}");
    }
    for (name, before) in nodes.into_iter().zip(before) {
        let grown = peak(name)?.saturating_sub(before?);
        assert!(grown < MOST, "{name} has grown by {grown} KiB");
    }
    Ok(())
}

#[test]
fn a_terminal_is_shown_nothing_that_it_would_obey() -> Result<()> {
    if !Command::new("script").arg("--version").output().is_ok_and(|said| said.status.success()) {
        println!("skipped: there is no `script`, which makes a terminal");
        return Ok(());
    }
    let fleet = Fleet::tree(1, 2)?;
    // A title, a cleared screen, another screen, a bell, a backspace, C1 controls, a lone CR.
    let bytes = r"\033]0;owned\007\033[2J\033[?1049h\233[31mred\bX\rover\204\001";
    let print = format!(r"printf '{bytes} end %s\n' $BARID_NODE");
    for form in [&[][..], &["-b"], &["-L"], &["-N"], &["--diff"], &["--similar"]] {
        let mut args = vec!["run", "-w", "site1-host[1-2]", "--yes"];
        args.extend(form);
        args.push(&print);
        let barid = fleet.command(&args);
        let quoted = |word: &std::ffi::OsStr| {
            let word = word.to_str().context("plain words")?;
            anyhow::Ok(format!("'{}'", word.replace('\'', r"'\''")))
        };
        let words = std::iter::once(barid.get_program()).chain(barid.get_args()).map(quoted);
        let line = words.collect::<Result<Vec<_>>>()?.join(" ");
        let output = Command::new("script")
            .args(["--quiet", "--return", "--command", &line, "/dev/null"])
            .env("TERM", "xterm")
            .stdin(Stdio::null())
            .output()?;
        let seen = &output.stdout;
        assert!(output.status.success(), "{form:?}: {}", show(seen));
        assert!(show(seen).contains("end"), "{form:?}: {}", show(seen));
        let bad: [&[u8]; 7] =
            [b"\x1b]0;", b"\x1b[2J", b"\x1b[?1049h", b"\x9b31m", b"\x07", b"\x08X", b"\rover"];
        for bytes in bad {
            let has = seen.windows(bytes.len()).any(|window| window == bytes);
            assert!(!has, "{form:?} shows {:?} in {:?}", show(bytes), show(seen));
        }
    }
    Ok(())
}
