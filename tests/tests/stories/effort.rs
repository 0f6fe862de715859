//! How hard content is packed: as hard as the slowest link that waits for it has it sooner.
//!
//! The link carries 50 Mbit/s, and a cap makes it a weak one.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{Fleet, LIMIT, listing, noise, wait_for};

use crate::order;
use crate::packed::{changed, text, xz};
use crate::weak::behind;

/// Log lines: the better levels save a tenth of them.
fn lines(seed: u64, count: usize) -> String {
    let numbers = noise(seed, 6 * count);
    let line = |n: &[u8]| {
        let (host, path, took) = (n[0] % 50, u16::from_le_bytes([n[1], n[2]]), n[3]);
        let (hour, minute) = (n[4] % 24, n[5] % 60);
        format!("{hour:02}:{minute:02} host{host} app: GET /items/{path} took {took} ms\n")
    };
    numbers.chunks(6).map(line).collect()
}

/// Pushes to both hosts. Returns how many bytes travel.
fn push(fleet: &Fleet, source: &str, dest: &str, more: &[&str]) -> Result<u64> {
    let args = ["push", source, "--dest", dest, "-a", "--async", "--json"];
    let detail = fleet.wait_states(&order(fleet, &[&args, more].concat())?, &[("ok", 2)])?;
    for host in ["site1-host1", "site1-host2"] {
        ensure!(listing(&fleet.at(host, dest))? == listing(source.as_ref())?, "{host}");
    }
    detail["order"]["push"]["pack_bytes"].as_u64().with_context(|| format!("{detail:#}"))
}

#[test]
fn the_slowest_link_decides_how_hard_content_is_packed() -> Result<()> {
    const STRONG: u64 = 12_000_000;
    const WEAK: [&str; 2] = ["--rate", "2M"];
    if let Err(error) = Command::new("xz").arg("--version").output() {
        println!("skipped: xz: {error}");
        return Ok(());
    }
    let (fleet, _link) = behind("mid50")?;
    let source = fleet.path().join("source");
    fs::create_dir(&source)?;
    let text_of = source.to_str().context("a plain path")?;
    let mut seed = 10;
    wait_for("the link to have shown what it carries", LIMIT, || {
        seed += 1;
        fs::write(source.join("noise"), noise(seed, 3_000_000))?;
        push(&fleet, text_of, "/srv/noise", &[])?;
        let links = fleet.json(&["tree", "--json"])?;
        let carries = carries(&links).unwrap_or(0);
        Ok((carries >= STRONG).then_some(()))
    })?;

    fs::write(source.join("module.xz"), xz(&text(1), &["-6"])?)?;
    for dest in ["/srv/a", "/srv/b", "/srv/c"] {
        push(&fleet, text_of, dest, &[])?;
    }
    // What is new is packed harder for a weak link, and what was packed so serves all.
    fs::write(source.join("log"), lines(1, 30_000))?;
    let strong = push(&fleet, text_of, "/srv/a", &[])?;
    let weak = push(&fleet, text_of, "/srv/b", &WEAK)?;
    assert!(20 * weak < 19 * strong, "{weak} and {strong}");
    assert_eq!(push(&fleet, text_of, "/srv/c", &[])?, weak);

    // A container that takes long to pack again is opened for a weak link alone.
    let module = xz(&changed(text(1)), &["-6"])?;
    fs::write(source.join("module.xz"), &module)?;
    let strong = push(&fleet, text_of, "/srv/a", &[])?;
    let weak = push(&fleet, text_of, "/srv/b", &WEAK)?;
    assert!(strong > module.len() as u64 / 2, "{strong} of {}", module.len());
    assert!(weak < module.len() as u64 / 10, "{weak} of {}", module.len());
    assert_eq!(push(&fleet, text_of, "/srv/c", &[])?, weak);
    Ok(())
}

/// What the controller's one link was seen to carry, in bits a second.
fn carries(tree: &Value) -> Option<u64> {
    match tree {
        Value::Object(map) => match map.get("carries") {
            Some(value) => value.as_u64(),
            None => map.values().find_map(carries),
        },
        Value::Array(list) => list.iter().find_map(carries),
        _ => None,
    }
}
