//! What would become of the tree, and what then does.

use anyhow::{Context, Result};
use serde_json::json;
use tests::{Fleet, LIMIT, Spec, show, wait_for};

/// Two relays at the controller and one behind the first; hosts with two parents and with one.
fn fleet() -> Result<Fleet> {
    let mut fleet = Fleet::new()?;
    for (role, name, parents) in [
        ("relay", "r1", &["controller"][..]),
        ("relay", "r2", &["controller"]),
        ("relay", "r3", &["r1"]),
        ("host", "web1", &["r1", "r2"]),
        ("host", "web2", &["r1", "r2"]),
        ("host", "lone", &["r1"]),
        ("host", "deep", &["r3"]),
    ] {
        let parents = parents.iter().map(|name| name.to_string()).collect();
        let (name, site, config) = (name.to_owned(), "lyon".into(), String::new());
        fleet.add(&Spec { role, name: name.clone(), site, parents, config })?;
        // Whoever enrols through a relay needs it linked; and then each has its first parent.
        wait_for(&format!("{name} to be up"), LIMIT, || {
            let hosts = fleet.json(&["hosts", "--json"])?;
            let hosts = hosts.as_array().context("a list")?;
            let up = hosts.iter().any(|host| host["name"] == name.as_str() && host["up"] == true);
            Ok(up.then_some(()))
        })?;
    }
    Ok(fleet)
}

/// Who is up, and behind whom.
fn parents(fleet: &Fleet) -> Result<Vec<(String, String)>> {
    let hosts = fleet.json(&["hosts", "--json"])?;
    let hosts = hosts.as_array().context("a list")?;
    let up = hosts.iter().filter(|host| host["up"] == true);
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    Ok(up.map(|host| (text(&host["name"]), text(&host["parent"]))).collect())
}

/// What is said of the loss of a relay is what happens when it is killed.
#[test]
fn what_is_said_of_a_loss_comes_true() -> Result<()> {
    let mut fleet = fleet()?;
    let before = parents(&fleet)?;
    let asked = fleet.barid(&["--json", "tree", "what-if", "--lose", "r1"])?;
    assert_eq!(asked.status.code(), Some(1), "{}", show(&asked.stderr));
    let said: serde_json::Value = serde_json::from_slice(&asked.stdout)?;
    assert_eq!(said["orphans"], json!(["lone", "r3", "web1", "web2"]));
    let gain = json!([{ "parent": "r2", "children": ["web1", "web2"], "then": 2, "most": 2000 }]);
    assert_eq!(said["gains"], gain, "{said:#}");
    assert_eq!(said["cut_off"], json!(["deep", "lone", "r3"]), "{said:#}");
    assert_eq!(parents(&fleet)?, before, "it has changed something");

    fleet.kill("r1")?;
    let then = |name: &str, parent: &str| (name.to_owned(), parent.to_owned());
    let mut then = vec![then("r2", "controller"), then("web1", "r2"), then("web2", "r2")];
    then.sort();
    wait_for("the tree to be what was said", LIMIT, || {
        let mut now = parents(&fleet)?;
        now.sort();
        Ok((now == then).then_some(()))
    })
}

#[test]
fn what_cannot_be_lost_is_refused() -> Result<()> {
    let fleet = fleet()?;
    for (lose, words) in [
        ("web1", "web1 is a host"),
        ("nobody", "no relay nobody"),
        ("r2:web1", "web1 is behind r1, not r2"),
    ] {
        let output = fleet.barid(&["tree", "what-if", "--lose", lose])?;
        assert_eq!(output.status.code(), Some(2));
        assert!(show(&output.stderr).contains(words), "{}", show(&output.stderr));
    }
    let link = fleet.barid(&["tree", "what-if", "--lose", "r1:web1"])?;
    let said = show(&link.stdout);
    assert!(said.contains("1 node loses its parent, 0 are cut off"), "{said}");
    assert!(said.contains("to r2  web1"), "{said}");
    assert_eq!(link.status.code(), Some(0), "{said}");
    Ok(())
}
