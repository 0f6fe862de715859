//! Tokens: single use, bound to role and site, expiring; and nobody else gets in.

use std::time::Duration;

use anyhow::Result;
use tests::{Fleet, LIMIT, Spec, show, wait_for};

fn join(fleet: &Fleet, name: &str, token: &str) -> Result<std::process::Output> {
    let state = fleet.path().join(format!("joiner-{name}"));
    let parent = fleet.listen("controller")?;
    let state = state.to_str().expect("a plain path");
    let args = ["join", "--state", state, "--parent", &parent, "--token", token, "--name", name];
    fleet.barid(&args)
}

#[test]
fn a_token_enrols_one_host_once() -> Result<()> {
    let fleet = Fleet::new()?;
    let token = fleet.token(&["--role", "host", "--site", "lyon"])?;
    let first = join(&fleet, "first", &token)?;
    assert!(first.status.success(), "{}", show(&first.stderr));
    let second = join(&fleet, "second", &token)?;
    assert!(!second.status.success());
    assert!(show(&second.stderr).contains("used already"), "{}", show(&second.stderr));
    let hosts = fleet.json(&["hosts", "--json"])?;
    assert_eq!(hosts.as_array().map(Vec::len), Some(1), "{hosts}");
    assert_eq!((&hosts[0]["name"], &hosts[0]["site"]), (&"first".into(), &"lyon".into()));
    Ok(())
}

#[test]
fn a_token_ends_and_says_so() -> Result<()> {
    let fleet = Fleet::new()?;
    let token = fleet.token(&["--role", "host", "--ttl", "1s"])?;
    // The first answer that names the expiry comes when it is over; before, the name is refused.
    let late = wait_for("the token to expire", Duration::from_secs(20), || {
        let listed = fleet.json(&["token", "list", "--json"])?;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        let expires = listed[0]["expires_ms"].as_u64().unwrap_or(u64::MAX);
        Ok((u128::from(expires) < now.as_millis()).then_some(()))
    });
    late?;
    let output = join(&fleet, "late", &token)?;
    assert!(!output.status.success());
    assert!(show(&output.stderr).contains("expired"), "{}", show(&output.stderr));
    Ok(())
}

#[test]
fn a_token_of_another_controller_is_not_believed() -> Result<()> {
    let (ours, theirs) = (Fleet::new()?, Fleet::new()?);
    let token = theirs.token(&["--role", "host"])?;
    let output = join(&ours, "stray", &token)?;
    assert!(!output.status.success());
    assert_eq!(ours.json(&["hosts", "--json"])?.as_array().map(Vec::len), Some(0));
    Ok(())
}

#[test]
fn a_name_that_is_taken_needs_a_token_made_for_it() -> Result<()> {
    let fleet = Fleet::new()?;
    let token = fleet.token(&["--role", "host"])?;
    assert!(join(&fleet, "db1", &token)?.status.success());
    std::fs::remove_dir_all(fleet.path().join("joiner-db1"))?;
    // Somebody with any other token cannot take the name.
    let output = join(&fleet, "db1", &fleet.token(&["--role", "host"])?)?;
    assert!(show(&output.stderr).contains("taken"), "{}", show(&output.stderr));
    // The host that was installed anew can, and keeps its number.
    let before = fleet.json(&["hosts", "--json"])?;
    let output = join(&fleet, "db1", &fleet.token(&["--role", "host", "--name", "db1"])?)?;
    assert!(output.status.success(), "{}", show(&output.stderr));
    let after = fleet.json(&["hosts", "--json"])?;
    assert_eq!(before[0]["id"], after[0]["id"]);
    assert_eq!(after.as_array().map(Vec::len), Some(1));
    Ok(())
}

#[test]
fn a_node_that_comes_before_its_relay_has_a_link_waits_for_it() -> Result<()> {
    let mut fleet = Fleet::tree(1, 0)?;
    let token = fleet.token(&["--role", "host", "--site", "site1"])?;
    fleet.kill("controller")?;
    let early = Spec {
        role: "host",
        name: "early".into(),
        site: "site1".into(),
        parents: vec!["site1-relay".into()],
        config: String::new(),
    };
    fleet
        .start_node(&early, &mut ["--name", "early", "--join", &token].map(String::from).into())?;
    wait_for("the newcomer to say what it waits for", LIMIT, || {
        let log = fleet.log("early");
        Ok(log.contains("no link to its own parent").then_some(()))
    })?;
    fleet.restart("controller")?;
    fleet.wait_up(2)?;
    assert!(fleet.log("early").contains("enrolled"), "{}", fleet.log("early"));
    Ok(())
}
