//! Pushes in two steps: the content travels when there is time, and is put in place by an order
//! that needs no more of any link.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::json;
use tests::{Fleet, listing, noise, sample_tree, show};

use crate::order;
use crate::rollback::content_sent;

const DEST: &str = "/srv/app";
const BIG: usize = 1_000_000;

struct Scene {
    fleet: Fleet,
    source: PathBuf,
}

impl Scene {
    fn new() -> Result<Scene> {
        let fleet = Fleet::tree(1, 3)?;
        let source = fleet.path().join("source");
        sample_tree(&source, BIG)?;
        Ok(Scene { fleet, source })
    }

    fn stage(&self, more: &[&str]) -> Result<String> {
        let source = self.source.to_str().context("a plain path")?;
        let stage = ["push", source, "--dest", DEST, "-a", "--stage", "--async", "--json"];
        order(&self.fleet, &[&stage[..], more].concat())
    }

    fn start(&self, id: &str, more: &[&str]) -> Result<String> {
        order(&self.fleet, &[&["push", "--start", id, "--async", "--json"], more].concat())
    }

    fn there(&self, host: &str) -> PathBuf {
        self.fleet.at(host, DEST)
    }
}

#[test]
fn what_was_staged_is_started_with_next_to_nothing_on_the_link() -> Result<()> {
    let mut scene = Scene::new()?;
    let away = "site1-host3";
    scene.fleet.kill(away)?;
    scene.fleet.wait_up(3)?;
    let staged = listing(&scene.source)?;
    let id = scene.stage(&["-t", "2s"])?;
    scene.fleet.wait_states(&id, &[("ok", 2), ("not-reached", 1)])?;
    let sent = content_sent(&scene.fleet)?;
    assert!(sent > BIG as u64, "{sent}");
    let shown = show(&scene.fleet.barid(&["runs", "show", &id])?.stdout);
    assert!(shown.contains("staged at 2 of 3 hosts until "), "{shown}");
    let short = &id[id.len() - 6..];
    assert!(shown.contains(&format!("`barid push --start {short}`")), "{shown}");
    let of = scene.fleet.barid(&["nodes", "expand", &format!("@run:{short}/ok")])?;
    assert_eq!(show(&of.stdout), "site1-host1\nsite1-host2\n");
    for host in ["site1-host1", "site1-host2"] {
        assert!(!scene.there(host).exists(), "{host} has put something in place");
    }

    // What becomes of the source does not matter, and everybody remembers it.
    fs::write(scene.source.join("big.bin"), "another\n")?;
    for node in ["controller", "site1-relay", "site1-host1"] {
        scene.fleet.kill(node)?;
        scene.fleet.restart(node)?;
    }
    scene.fleet.wait_up(3)?;
    let sent = content_sent(&scene.fleet)?;
    let push = scene.start(&id, &["-t", "2s"])?;
    scene.fleet.wait_states(&push, &[("ok", 2), ("not-reached", 1)])?;
    assert_eq!(content_sent(&scene.fleet)? - sent, 0, "content has gone over the link");
    assert_eq!(listing(&scene.there("site1-host1"))?, staged);
    // One that has missed it gets the content with the start, out of its relay.
    scene.fleet.restart(away)?;
    scene.fleet.wait_states(&push, &[("ok", 3)])?;
    assert_eq!(listing(&scene.there(away))?, staged);
    assert_eq!(content_sent(&scene.fleet)? - sent, 0, "content has gone over the link");
    Ok(())
}

#[test]
fn a_stage_brings_what_changes_and_is_started_in_waves_or_for_some() -> Result<()> {
    let scene = Scene::new()?;
    let source = scene.source.to_str().context("a plain path")?;
    let first = order(&scene.fleet, &["push", source, "--dest", DEST, "-a", "--async", "--json"])?;
    scene.fleet.wait_states(&first, &[("ok", 3)])?;
    let mut bytes = fs::read(scene.source.join("big.bin"))?;
    bytes.extend(noise(7, 50_000));
    fs::write(scene.source.join("big.bin"), &bytes)?;
    let sent = content_sent(&scene.fleet)?;
    let id = scene.stage(&["--delete"])?;
    scene.fleet.wait_states(&id, &[("ok", 3)])?;
    let brought = content_sent(&scene.fleet)? - sent;
    assert!((50_000..100_000).contains(&brought), "{brought}");
    fs::write(scene.there("site1-host1").join("extra"), "extra\n")?;

    let one = scene.start(&id, &["-w", "site1-host1"])?;
    scene.fleet.wait_states(&one, &[("ok", 1)])?;
    assert!(!scene.there("site1-host1").join("extra").exists(), "the terms were staged, too");
    assert_ne!(fs::read(scene.there("site1-host2").join("big.bin"))?, bytes);
    let output = scene.fleet.barid(&["push", "--start", &id, "--waves", "1,100%"])?;
    assert_eq!(output.status.code(), Some(0), "{}", show(&output.stderr));
    let done = scene.fleet.json(&["rollout", "show", "last", "--json"])?;
    assert_eq!((&done["state"], &done["hosts"]), (&json!("done"), &json!(3)), "{done:#}");
    assert_eq!(fs::read(scene.there("site1-host3").join("big.bin"))?, bytes);
    assert_eq!(content_sent(&scene.fleet)? - sent, brought);
    Ok(())
}

#[test]
fn one_command_stages_and_starts_in_waves() -> Result<()> {
    let mut scene = Scene::new()?;
    let source = scene.source.to_str().context("a plain path")?.to_owned();
    let push = ["push", &source, "--dest", DEST, "-a", "--stage"];
    let sent = content_sent(&scene.fleet)?;
    for (args, says) in [
        (&["--waves", "1,50%"][..], "are in none of them"),
        (&["--waves", "1,100%", "--gate", "ok>=2"], "wave 1 can never pass"),
        (&["--waves", "1,100%", "--async"], "leave --async out"),
    ] {
        let output = scene.fleet.barid(&[&push[..], args].concat())?;
        let told = show(&output.stderr);
        assert!(!output.status.success() && told.contains(says), "{args:?}: {told}");
    }
    assert_eq!(content_sent(&scene.fleet)?, sent, "nothing travels for what cannot be started");
    assert_eq!(scene.fleet.json(&["runs", "--json"])?, json!([]));

    let both = [&push[..], &["--waves", "1,100%"]].concat();
    let output = scene.fleet.barid(&both)?;
    let told = show(&output.stdout);
    assert!(output.status.success(), "{told}\n{}", show(&output.stderr));
    assert!(told.contains("staged at 3 of 3 hosts"), "{told}");
    let done = scene.fleet.json(&["rollout", "show", "last", "--json"])?;
    assert_eq!((&done["state"], &done["hosts"]), (&json!("done"), &json!(3)), "{done:#}");
    assert_eq!(done["waves"].as_array().map(Vec::len), Some(2), "{done:#}");
    let kinds = scene.fleet.json(&["runs", "--json"])?;
    let kinds: Vec<_> = kinds.as_array().context("orders")?.iter().map(|o| &o["kind"]).collect();
    assert_eq!(kinds, ["push", "push", "stage"], "the newest first");
    assert_eq!(listing(&scene.there("site1-host3"))?, listing(&scene.source)?);

    // Somebody has not got the content: nothing begins, and what would begin it is said.
    scene.fleet.kill("site1-host3")?;
    scene.fleet.wait_up(3)?;
    fs::write(scene.source.join("more"), noise(9, 1_000))?;
    let output = scene.fleet.barid(&[&both[..], &["-t", "2s"]].concat())?;
    let told = show(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{told}");
    assert!(told.contains("not started: the content is not at every host"), "{told}");
    assert!(told.contains("barid push --start ") && told.contains(" --waves '1,100%'"), "{told}");
    assert!(!scene.there("site1-host1").join("more").exists());
    Ok(())
}

#[test]
fn what_is_no_stage_is_not_started() -> Result<()> {
    let scene = Scene::new()?;
    let id = scene.stage(&["-x", "site1-host3"])?;
    scene.fleet.wait_states(&id, &[("ok", 2)])?;
    let push = scene.start(&id, &[])?;
    scene.fleet.wait_states(&push, &[("ok", 2)])?;
    for (args, says) in [
        (&[&push[..]][..], "was not staged"),
        (&["ffffff"], "no order ffffff"),
        (&[&id, "-w", "site1-host3"], "1 of these hosts were not targets"),
        (&[&id, "--waves", "1,50%"], "are in none of them"),
    ] {
        let output = scene.fleet.barid(&[&["push", "--start"], args].concat())?;
        let told = show(&output.stderr);
        assert!(!output.status.success() && told.contains(says), "{args:?}: {told}");
    }
    let source = scene.source.to_str().context("a plain path")?;
    let wrong = scene.fleet.barid(&["push", source, "-a", "--stage", "--verify"])?;
    assert_eq!(wrong.status.code(), Some(2), "{}", show(&wrong.stderr));
    Ok(())
}

/// So many seconds from now, as it is written for `--start-at`.
fn in_seconds(seconds: u32) -> Result<String> {
    let (ahead, form) = (format!("+{seconds} seconds"), "+%F %T UTC");
    let said = std::process::Command::new("date").args(["-u", "-d", &ahead, form]).output()?;
    Ok(show(&said.stdout).trim().to_owned())
}

#[test]
fn a_start_waits_for_its_time_and_may_not_cost_more_than_is_said() -> Result<()> {
    let mut scene = Scene::new()?;
    let away = "site1-host3";
    scene.fleet.kill(away)?;
    scene.fleet.wait_up(3)?;
    let id = scene.stage(&["-t", "2s"])?;
    scene.fleet.wait_states(&id, &[("ok", 2), ("not-reached", 1)])?;
    // Who has missed the stage would need all of it.
    let little = ["--max-bytes-per-link", "20K"];
    let start = ["push", "--start", &id, "--async"];
    let dear = scene.fleet.barid(&[&start[..], &little].concat())?;
    assert_eq!(dear.status.code(), Some(1), "{dear:?}");
    assert!(show(&dear.stderr).contains("bytes would go over the link to site1-relay"), "{dear:?}");
    let far = in_seconds(20 * 24 * 3600)?;
    let late = scene.fleet.barid(&[&start[..], &["--start-at", &far]].concat())?;
    assert!(show(&late.stderr).contains("the stage has expired by then"), "{late:?}");
    for (when, why) in [
        ("soon", "`soon` is no time zone"),
        ("22:00 site", "nobody has said what time it is at site1"),
        ("2020-01-01 10:00", "2020-01-01 10:00 has passed"),
    ] {
        let refused = scene.fleet.barid(&[&start[..], &["--start-at", when]].concat())?;
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
        assert!(show(&refused.stderr).contains(why), "{refused:?}");
    }
    let here = ["-w", "site1-host[1-2]"];
    let hour = in_seconds(3600)?;
    scene.start(&id, &[&here[..], &little, &["--start-at", &hour]].concat())?;
    for _ in 0..2 {
        let shown = scene.fleet.json(&["rollout", "show", "last", "--json"])?;
        assert_eq!((&shown["state"], &shown["stage"]), (&json!("running"), &json!("waiting")));
        assert_eq!(shown["waves"][0]["pending"], 2, "{shown}");
        scene.fleet.kill("controller")?;
        scene.fleet.restart("controller")?;
        scene.fleet.wait_up(3)?;
    }
    let shown = show(&scene.fleet.barid(&["rollout", "show"])?.stdout);
    assert!(shown.contains("running: wave 1 of 1 begins in "), "{shown}");
    assert!(!scene.there("site1-host1").exists());
    assert!(scene.fleet.barid(&["rollout", "abort", "last"])?.status.success());

    let soon = in_seconds(15)?;
    scene.start(&id, &[&here[..], &little, &["--start-at", &soon]].concat())?;
    let done = tests::wait_for("it to begin and end", tests::LIMIT, || {
        let shown = scene.fleet.json(&["rollout", "show", "last", "--json"])?;
        Ok((shown["state"] == "done").then_some(shown))
    })?;
    let order = done["waves"][0]["orders"][0].as_str().context("an order")?;
    let given = scene.fleet.order(order)?["order"]["issued_ms"].as_u64();
    assert!(given >= done["begins_ms"].as_u64() && given > Some(0), "{done}");
    assert!(scene.there("site1-host2").exists());
    Ok(())
}
