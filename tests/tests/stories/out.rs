//! Output beyond what an answer keeps: at the host for a while, and fetched from there.

use std::fs;
use std::io::Write;

use anyhow::{Context, Result};
use tests::{Fleet, LIMIT, Spec, show, wait_for};

use crate::{answer, order};

const HOST: &str = "site1-host1";

/// Bytes that no text has, a good deal more than an answer keeps.
const NOISE: &str = "awk 'BEGIN { for (n = 0; n < 400000; n++) printf \"%d\\377\\200\", n }'";

fn noise() -> Vec<u8> {
    (0..400_000).flat_map(|n: u32| [n.to_string().as_bytes(), b"\xff\x80"].concat()).collect()
}

fn run(fleet: &Fleet, line: &str, hosts: u64) -> Result<String> {
    let id = order(fleet, &["run", "-a", "--async", "--json", line])?;
    fleet.wait_states(&id, &[("ok", hosts)])?;
    Ok(id)
}

#[test]
fn the_rest_of_an_output_comes_byte_for_byte_through_relays() -> Result<()> {
    let fleet = Fleet::tree(1, 2)?;
    let line = format!("export LC_ALL=C; {NOISE}; {NOISE} >&2; test $BARID_NODE = {HOST} || echo");
    let id = run(&fleet, &line, 2)?;
    let shown = fleet.barid(&["runs", "show", &id])?;
    for option in ["", " --stderr"] {
        let hint = format!("`barid out {} -w {HOST}{option}` fetches", &id[id.len() - 6..]);
        assert!(show(&shown.stderr).contains(&hint), "{hint}: {}", show(&shown.stderr));
    }

    let out = fleet.barid(&["out", &id, "-w", HOST])?;
    assert!(out.status.success(), "{}", show(&out.stderr));
    assert!(out.stdout == noise(), "{} bytes came", out.stdout.len());

    // One of each kind is fetched, whatever the number of hosts, and a file is whole or absent.
    let dir = fleet.path().join("outs");
    let dir = dir.to_str().context("a plain name")?;
    let out = fleet.json(&["--json", "out", &id, "--stderr", "--outdir", dir])?;
    assert_eq!((&out["size"], &out["hosts"][1]), (&noise().len().into(), &"site1-host2".into()));
    for host in [HOST, "site1-host2"] {
        assert!(fs::read(format!("{dir}/{host}"))? == noise(), "{host}");
    }
    let fetched = |host: &str| fleet.log(host).matches("output is fetched").count();
    assert_eq!((fetched(HOST), fetched("site1-host2")), (2, 0));
    Ok(())
}

#[test]
fn what_was_begun_is_gone_on_with() -> Result<()> {
    let fleet = Fleet::tree(1, 1)?;
    let id = run(&fleet, &format!("export LC_ALL=C; {NOISE}"), 1)?;
    let dir = fleet.path().join("outs");
    fs::create_dir_all(&dir)?;
    // Half of it is there already: only the rest is asked for.
    let mut part = fs::File::create(dir.join(format!(".{HOST}.{id}.part")))?;
    part.write_all(&noise()[..1_000_000])?;
    let args = ["out", &id, "-w", HOST, "--outdir", dir.to_str().context("a plain name")?];
    let out = fleet.barid(&args)?;
    assert!(out.status.success(), "{}", show(&out.stderr));
    assert!(fs::read(dir.join(HOST))? == noise());
    assert!(!dir.join(format!(".{HOST}.{id}.part")).exists());
    // What an earlier try has spoilt is found out, and does not stay in the way.
    fs::write(dir.join(format!(".{HOST}.{id}.part")), "not what it wrote")?;
    let out = fleet.barid(&args)?;
    assert_eq!(out.status.code(), Some(1), "{}", show(&out.stderr));
    assert!(show(&out.stderr).contains("not what the host wrote"), "{}", show(&out.stderr));
    assert!(fleet.barid(&args)?.status.success());
    Ok(())
}

#[test]
fn what_is_gone_or_away_is_said_to_be() -> Result<()> {
    let mut fleet = Fleet::new()?;
    fleet.add(&Spec {
        role: "host",
        name: HOST.into(),
        site: "site1".into(),
        parents: vec!["controller".into()],
        config: "spool_mib = 2\n".into(),
    })?;
    fleet.wait_up(1)?;
    let line = "head -c 400000 /dev/zero | tr '\\0' x";
    let first = run(&fleet, line, 1)?;
    let detail = fleet.order(&first)?;
    assert_eq!(answer(&detail, HOST)?["stdout_kept"]["bytes"], 400_000);
    let small = run(&fleet, "echo small", 1)?;
    assert_eq!(show(&fleet.barid(&["out", &small])?.stdout), "small\n");
    for _ in 0..5 {
        run(&fleet, line, 1)?;
    }
    let out = fleet.barid(&["out", &first])?;
    assert_eq!(out.status.code(), Some(1));
    let text = show(&out.stderr);
    assert!(text.contains(&format!("{HOST}: it is not in the spool of the host")), "{text}");
    // Its answers take their part of the room, so it is more than one.
    assert!(text.contains("dropped 4 outputs"), "{text}");
    // What the host itself has cut is kept as far as there was room, and it says so.
    let long = run(&fleet, "head -c 3000000 /dev/zero | tr '\\0' x", 1)?;
    let out = fleet.barid(&["out", &long])?;
    assert_eq!((out.status.code(), out.stdout.len()), (Some(0), 512 << 10));
    assert!(show(&out.stderr).contains("had room for 512.0 KiB of 2.9 MiB"), "{out:?}");
    fleet.kill(HOST)?;
    wait_for("the host to be missed", LIMIT, || {
        let out = fleet.barid(&["out", &long])?;
        Ok((out.status.code() == Some(3)).then_some(()))
    })
}
