//! More that is wrong at one node than it has room for: that is said, and what had no place gets
//! one when there is room.

use std::fs;

use anyhow::{Context, Result};
use serde_json::{Map, Value};
use tests::{Fleet, LIMIT, Spec, wait_for};

use crate::alerts::{SOON, give, lines, wait_word};

/// So many alerts has a node room for (docs/operations.md).
const MOST: usize = 10_000;
const SILENT: &str = "controller-silent/lyon";

#[test]
fn what_has_no_place_is_told_of_and_gets_one_later() -> Result<()> {
    let mut fleet = Fleet::new()?;
    let path = fleet.path().join("relay.alerts");
    let channel = format!(
        "channels.out = {{ kinds = ['controller-silent', 'alerts-crowded'], \
         file = {{ path = \"{}\" }} }}\n",
        path.display()
    );
    let settings = fleet.state("relay").join("alerts.toml");
    // What is over stays an alert for long, at first.
    let slow = SOON.replace("clear_s = 1\n", "clear_s = 3600\n") + &channel;
    give(&fleet, "relay", &channel)?;
    fleet.add(&Spec::new("relay", "relay", "controller").at("lyon"))?;
    fleet.wait_up(1)?;

    // An alert as the relay itself keeps it.
    fleet.kill("controller")?;
    wait_word(&path, &format!("+{SILENT}"))?;
    let kept = fleet.state("relay").join("alerts").join("state.json");
    let mut rows: Value = wait_for("the alert to be kept", LIMIT, || {
        let rows: Value = serde_json::from_slice(&fs::read(&kept)?)?;
        Ok((rows["alerts"][SILENT]["told_ms"].is_u64()).then_some(rows))
    })?;
    fleet.restart("controller")?;
    wait_word(&path, &format!("-{SILENT}"))?;
    fleet.kill("relay")?;

    // As many as there is room for, of other causes.
    let crowd: Map<String, Value> = (0..MOST)
        .map(|n| {
            let (mut row, key) = (rows["alerts"][SILENT].clone(), format!("disk-low/x{n}"));
            (row["kind"], row["key"]) = ("disk-low".into(), key.clone().into());
            (key, row)
        })
        .collect();
    rows["alerts"] = crowd.into();
    fs::write(&kept, rows.to_string())?;
    fs::write(&settings, &slow)?;
    fleet.restart("relay")?;
    fleet.wait_up(1)?;
    fleet.kill("controller")?;
    let words = wait_word(&path, "+alerts-crowded/relay")?;
    let count = |words: &[String]| words.iter().filter(|word| word[1..] == *SILENT).count();
    assert_eq!(count(&words), 2, "it has no place: {words:?}");

    // Those that are over go, and there is room.
    give(&fleet, "relay", &channel)?;
    let words = wait_word(&path, "-alerts-crowded/relay")?;
    assert_eq!(words.iter().filter(|word| word.ends_with("crowded/relay")).count(), 2, "{words:?}");
    wait_for("what had no place to be told", LIMIT, || {
        Ok((count(&lines(&path)?) == 3).then_some(()))
    })
    .with_context(|| format!("{:?}", lines(&path)))
}
