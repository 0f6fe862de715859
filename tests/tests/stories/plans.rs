//! What a push or a distribution in waves would do, told before anything is done.

use std::fs;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tests::{Fleet, show};

use crate::dist::site;

/// The hosts of each wave, and who of them is down.
fn waves(plan: &Value) -> Vec<(u64, String)> {
    let waves = plan["waves"]["waves"].as_array().map(Vec::as_slice).unwrap_or_default();
    let wave = |wave: &Value| {
        let down = wave["down"].as_str().unwrap_or_default().to_owned();
        (wave["count"].as_u64().unwrap_or_default(), down)
    };
    waves.iter().map(wave).collect()
}

#[test]
fn a_push_in_waves_is_told_and_not_begun() -> Result<()> {
    let mut fleet = Fleet::tree(2, 2)?;
    fleet.kill("site2-host2")?;
    fleet.wait_up(5)?;
    let source = fleet.path().join("source");
    fs::write(&source, "text\n")?;
    let source = source.to_str().context("a plain path")?;
    let push = ["push", source, "--dest", "/srv/x", "-a", "--waves", "1,3,100%"];
    let plan = fleet.json(&[&push[..], &["--gate", "soak=1h", "--plan", "--json"]].concat())?;
    let up = |count| (count, String::new());
    assert_eq!(waves(&plan), [up(1), up(2), (1, "site2-host2".into())], "{plan:#}");
    assert_eq!((&plan["waves"]["gate"], &plan["push"]["files"]), (&json!("soak=1h"), &json!(1)));
    let text = fleet.barid(&[&push[..], &["--plan"]].concat())?;
    let told = show(&text.stdout);
    assert!(told.contains("each wave opens after the gate: errors<=1% missed<=10%"), "{told}");
    assert!(told.contains("\n3     1      1     site2-host2\n"), "{told}");
    // What would be refused is refused.
    let bad = fleet.barid(&[&push[..5], &["--waves", "1,50%", "--plan"]].concat())?;
    assert!(show(&bad.stderr).contains("are in none of them"), "{}", show(&bad.stderr));
    let gate = ["--gate", "ok>=2", "--plan"];
    let bad = fleet.barid(&[&push[..], &gate].concat())?;
    assert!(show(&bad.stderr).contains("wave 1 can never pass"), "{}", show(&bad.stderr));
    assert_eq!(fleet.json(&["rollout", "--json"])?, json!([]));
    assert_eq!(fleet.json(&["runs", "--json"])?, json!([]));
    assert!(!fleet.at("site1-host1", "/srv/x").exists());
    // And what one that goes on would be in the way of.
    let check = ["--gate", "check=\"exec tail -f /dev/null\"", "--async"];
    assert_eq!(fleet.barid(&[&push[..], &check].concat())?.status.code(), Some(0));
    let bad = fleet.barid(&[&push[..], &["--plan"]].concat())?;
    assert!(show(&bad.stderr).contains(" to /srv/x is running"), "{}", show(&bad.stderr));
    Ok(())
}

#[test]
fn a_distribution_is_told_and_not_begun() -> Result<()> {
    let site = site()?;
    site.write("motd", "hello\n")?;
    site.done("-o install ./motd common.adm:/etc/motd day")?;
    site.done("-o install ./motd cc.adm:/etc/cc day")?;
    let dist = ["file", "dist", "day", "--plan"];
    let plan = site.fleet.json(&[&dist[..], &["--waves", "1,100%", "--json"]].concat())?;
    assert_eq!(plan["set"], "h[1-4]", "{plan:#}");
    assert_eq!(plan["dist"]["files"], json!(["cc.adm:/etc/cc", "common.adm:/etc/motd"]));
    assert_eq!(waves(&plan).iter().map(|wave| wave.0).collect::<Vec<_>>(), [1, 3]);
    let links = plan["links"].as_array().context("links")?;
    assert!(links.iter().all(|link| link["bytes"].as_u64() > Some(0)), "{plan:#}");
    let told = show(&site.fleet.barid(&dist)?.stdout);
    assert!(told.contains("cost: 2 files in 2 orders") && !told.contains("WAVE"), "{told}");
    assert!(!site.fleet.at("h1", "/etc/motd").exists());
    assert_eq!(site.fleet.json(&["runs", "--json"])?, json!([]));
    assert_eq!(site.fleet.json(&["rollout", "--json"])?, json!([]));
    site.done("-o dist --wait day")?;
    let told = show(&site.fleet.barid(&dist)?.stdout);
    assert!(told.contains("nobody lacks anything"), "{told}");
    Ok(())
}
