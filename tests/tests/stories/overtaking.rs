//! Distributions that go on beside each other, with an edit between their plans; and pushes, of
//! which the one that was asked for first is packed last.

use std::fs;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{Fleet, LIMIT, Lines, noise, show, wait_for};

use crate::{dist, order};

/// So much that packing it takes longer than an edit and an order of what was edited.
const LARGE: usize = 24 << 20;

#[test]
fn what_was_planned_before_an_edit_never_comes_after_it() -> Result<()> {
    let site = dist::site()?;
    site.write("motd", "one\n")?;
    fs::write(site.fleet.path().join("large"), noise(1, LARGE))?;
    let motd = "common.adm:/etc/motd";
    site.done(&format!("-o install ./motd {motd} hour"))?;
    site.done("-o install ./large common.adm:/srv/large hour")?;
    site.write("motd", "two\n")?;
    site.wait_heard("h1")?;

    // It is planned with the first revision, and still packed when there is a second.
    let first = site.command(&["-o", "dist", "--wait", "hour"]).spawn()?;
    wait_for("the first to be made", LIMIT, || {
        let all = site.fleet.json(&["file", "schedule", "--json"])?;
        let mut all = all.as_array().context("frequencies")?.iter();
        Ok(all.any(|one| one["frequency"] == "hour" && one["running"] == true).then_some(()))
    })?;
    site.done(&format!("-o cp ./motd {motd}"))?;
    site.gets("h1", &["request", "/etc/motd"])?;
    assert_eq!(site.at("h1", "/etc/motd").as_deref(), Some("two\n"));
    let first = first.wait_with_output()?;
    ensure!(first.status.success(), "{}", show(&first.stderr));
    assert_eq!(site.at("h1", "/etc/motd").as_deref(), Some("two\n"), "the older came later");

    site.done("-o dist --wait hour")?;
    for host in ["h1", "h2", "h3", "h4"] {
        assert_eq!(site.at(host, "/etc/motd").as_deref(), Some("two\n"), "{host}");
        assert_eq!(fs::metadata(site.fleet.at(host, "/srv/large"))?.len(), LARGE as u64, "{host}");
    }
    site.prints("-o status", "")
}

/// Pushes one tree, and another one while that is packed. Returns their orders.
fn two_pushes(fleet: &Fleet, bytes: usize) -> Result<(Value, Value)> {
    let trees = ["first", "second"].map(|name| fleet.path().join(name));
    for tree in &trees {
        fs::create_dir_all(tree)?;
        fs::write(tree.join("which"), tree.as_os_str().as_encoded_bytes())?;
    }
    // Packing takes longer for what can be compressed a little.
    let letters = noise(bytes as u64, bytes).into_iter().map(|byte| b'a' + (byte & 0xf));
    fs::write(trees[0].join("large"), letters.collect::<Vec<_>>())?;
    let [first, second] = trees.each_ref().map(|tree| tree.to_str().unwrap_or_default());

    let to = ["-a", "--dest", "/srv/app", "--json"];
    let mut command = fleet.command(&[&["push", first], &to[..]].concat());
    let mut pushing = command.stdout(Stdio::piped()).spawn()?;
    let told = Lines::of(pushing.stdout.take().context("a pipe")?);
    let id = |event: &Value| event["order"]["id"].as_str().map(String::from);
    let next = |kind: &str| -> Result<Value> {
        loop {
            let event: Value = serde_json::from_str(&told.next_line()?)?;
            if event["type"] == kind {
                return Ok(event);
            }
        }
    };
    next("packing")?;
    let second = order(fleet, &[&["push", second, "--async"], &to[..]].concat())?;
    fleet.wait_states(&second, &[("ok", 1)])?;
    let first = id(&next("ordered")?).context("its id")?;
    pushing.wait()?;
    Ok((fleet.order(&first)?, fleet.order(&second)?))
}

#[test]
fn a_push_that_is_packed_for_long_never_comes_after_one_that_was_asked_for_later() -> Result<()> {
    let fleet = Fleet::tree(1, 1)?;
    for bytes in [LARGE, 4 * LARGE, 16 * LARGE] {
        let (first, second) = two_pushes(&fleet, bytes)?;
        let given = |order: &Value| order["order"]["issued_ms"].as_u64().context("when");
        let there = fs::read_to_string(fleet.at("site1-host1", "/srv/app/which"))?;
        assert!(there.ends_with("second"), "{there}");
        // Else it was packed before the second was even asked for, and that was no trial.
        if given(&first)? > given(&second)? {
            assert_eq!(first["order"]["states"]["skipped"], 1, "{first:#}");
            return Ok(());
        }
    }
    anyhow::bail!("the first was always packed before the second");
}
