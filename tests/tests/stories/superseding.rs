//! Newer pushes take the place of older ones at hosts that are away: what comes to them over a weak
//! link is the newer tree alone, and what has to be done for the older one is still done.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::Value;
use tests::{Fleet, LIMIT, noise, show, wait_for};

use crate::{answer, order};

const DEST: &str = "/srv/app";
/// The one that is away.
const AWAY: &str = "site1-host2";

struct Scene {
    fleet: Fleet,
    source: PathBuf,
}

impl Scene {
    /// Both hosts have a tree, and then one of them goes.
    fn new() -> Result<Scene> {
        let fleet = Fleet::tree(1, 2)?;
        let source = fleet.path().join("source");
        fs::create_dir_all(&source)?;
        let mut scene = Scene { fleet, source };
        scene.write(0)?;
        let id = scene.push(&[])?;
        scene.fleet.wait_states(&id, &[("ok", 2)])?;
        scene.fleet.kill(AWAY)?;
        scene.fleet.wait_up(2)?;
        Ok(scene)
    }

    fn write(&self, seed: u64) -> Result<()> {
        Ok(fs::write(self.source.join("big.bin"), noise(seed, 300_000))?)
    }

    /// Pushes to both without waiting. Returns the id.
    fn push(&self, more: &[&str]) -> Result<String> {
        let source = self.source.to_str().context("a plain path")?;
        let push = ["push", source, "--dest", DEST, "-a", "--async"];
        order(&self.fleet, &[&push[..], &["--json"], more].concat())
    }

    fn there(&self) -> Result<Vec<u8>> {
        Ok(fs::read(self.fleet.at(AWAY, DEST).join("big.bin"))?)
    }

    /// How often the host that was away has put something in place.
    fn installs(&self) -> usize {
        self.fleet.log(AWAY).matches(" installed").count()
    }
}

fn short(id: &str) -> &str {
    &id[id.len() - 6..]
}

#[test]
fn a_host_that_was_away_gets_the_newest_of_three_pushes_alone() -> Result<()> {
    let mut scene = Scene::new()?;
    let before = scene.installs();
    let mut ids = Vec::new();
    for seed in 1..=3 {
        scene.write(seed)?;
        ids.push(scene.push(&[])?);
        scene.fleet.wait_states(&ids[ids.len() - 1], &[("ok", 1), ("not-reached", 1)])?;
    }
    // It is known at once who gets which one instead.
    let first = scene.fleet.order(&ids[0])?;
    let superseded = first["order"]["superseded"].as_array().context("it is superseded")?;
    let by: Vec<&Value> = superseded.iter().map(|one| &one["by"]).collect();
    assert_eq!(by, [short(&ids[1]), short(&ids[2])]);
    assert_eq!((&superseded[0]["set"], &superseded[0]["count"]), (&AWAY.into(), &1.into()));
    let of = format!("@run:{}/superseded", short(&ids[0]));
    let set = scene.fleet.barid(&["nodes", "expand", &of])?;
    assert_eq!(show(&set.stdout).trim(), AWAY, "{}", show(&set.stderr));

    // Neither the controller nor the relay remembers it only in memory.
    for node in ["controller", "site1-relay"] {
        scene.fleet.kill(node)?;
        scene.fleet.restart(node)?;
    }
    scene.fleet.restart(AWAY)?;
    scene.fleet.wait_states(&ids[2], &[("ok", 2)])?;
    for id in &ids[..2] {
        let detail = scene.fleet.wait_states(id, &[("ok", 1), ("skipped", 1)])?;
        let fault = answer(&detail, AWAY)?["fault"].as_str().context("a reason")?;
        assert!(fault.starts_with("push: superseded: by "), "{fault}");
    }
    assert_eq!(scene.there()?, noise(3, 300_000));
    assert_eq!(scene.installs() - before, 1, "{}", scene.fleet.log(AWAY));
    let shown = scene.fleet.barid(&["runs", "show", &ids[0]])?;
    let told = show(&shown.stderr);
    assert!(told.contains(&format!("{AWAY}: skipped: superseded: by ")), "{told}");
    // It had no say, so nothing of it is taken for what was there before.
    scene.write(4)?;
    let id = scene.push(&[])?;
    scene.fleet.wait_states(&id, &[("ok", 2)])?;
    let back = scene.fleet.barid(&["rollback", &id])?;
    assert_eq!(back.status.code(), Some(0), "{}", show(&back.stderr));
    assert_eq!(scene.there()?, noise(3, 300_000));
    Ok(())
}

/// Two pushes to a host that is away, the second of which does not do all that the first does:
/// both are brought there, and the second is what counts.
#[test]
fn a_push_that_does_not_do_all_of_it_takes_nobodys_place() -> Result<()> {
    let mut scene = Scene::new()?;
    let more = scene.source.join("more");
    let after = format!("touch {}", scene.fleet.path().join("after").display());
    let mut older = Vec::new();
    for (first, names_more) in [(&[][..], true), (&["--after", &after], false)] {
        scene.write(1)?;
        if names_more {
            fs::write(&more, "more\n")?;
        }
        let id = scene.push(first)?;
        scene.fleet.wait_states(&id, &[("ok", 1), ("not-reached", 1)])?;
        if names_more {
            fs::remove_file(&more)?;
        }
        older.push(id);
    }
    // It would be forgotten before the others are.
    scene.write(2)?;
    older.push(scene.push(&["--hold", "48h"])?);
    scene.write(3)?;
    let newest = scene.push(&[])?;
    scene.fleet.wait_states(&newest, &[("ok", 1), ("not-reached", 1)])?;
    for id in &older {
        let detail = scene.fleet.order(id)?;
        assert_eq!(detail["order"]["superseded"], Value::Null, "{detail:#}");
    }
    scene.fleet.restart(AWAY)?;
    scene.fleet.wait_states(&newest, &[("ok", 2)])?;
    wait_for("the older ones to be done or found too old", LIMIT, || {
        let mut states =
            older.iter().map(|id| Ok(scene.fleet.order(id)?["order"]["states"].clone()));
        let is_over = |states: Result<Value>| {
            let states = states.ok()?;
            let count = |word: &str| states[word].as_u64().unwrap_or_default();
            Some(count("ok") + count("skipped") == 2)
        };
        Ok(states.all(|states| is_over(states) == Some(true)).then_some(()))
    })?;
    assert_eq!(scene.there()?, noise(3, 300_000));
    Ok(())
}

#[test]
fn a_distribution_takes_the_place_of_one_whose_files_it_holds() -> Result<()> {
    let mut site = crate::dist::site()?;
    site.write("motd", "one\n")?;
    site.write("issue", "one\n")?;
    site.done("-o install ./motd common.adm:/etc/motd day")?;
    site.done("-o install ./issue common.adm:/etc/issue hour")?;
    site.done("-o dist --wait all")?;
    site.fleet.kill("h3")?;
    site.fleet.wait_up(5)?;
    // Three times to one that is away: one file, both, and the other one.
    for (no, frequency) in [(1, "day"), (2, "all"), (3, "hour")] {
        site.write("motd", &format!("{no}\n"))?;
        site.done("-o cp ./motd common.adm:/etc/motd")?;
        site.write("issue", &format!("{no}\n"))?;
        site.done("-o cp ./issue common.adm:/etc/issue")?;
        site.fdist(&format!("-o dist --wait {frequency} h3"))?;
    }
    let runs = site.fleet.json(&["runs", "--limit", "3", "--json"])?;
    let runs = runs.as_array().context("a list")?;
    let taken = |run: &Value| run["superseded"].as_array().map_or(0, Vec::len);
    // The newest stands first. The last one lacks a file of the second, which brings it.
    assert_eq!(runs.iter().map(taken).collect::<Vec<_>>(), [0, 0, 1], "{runs:#?}");
    assert_eq!(runs[2]["superseded"][0]["by"], runs[1]["short"]);
    site.fleet.restart("h3")?;
    site.fleet.wait_up(6)?;
    site.done("-o dist --wait all")?;
    wait_for("h3 to have both files", LIMIT, || {
        let has = |dest| fs::read_to_string(site.fleet.at("h3", dest)).ok();
        let both = (has("/etc/motd"), has("/etc/issue"));
        Ok((both == (Some("3\n".into()), Some("3\n".into()))).then_some(()))
    })
}
