//! Reactions: what an alert begins by itself, at the controller and at a relay that is cut off; not
//! too often, told as events, and never with a word of the alert in what is run.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::{Fleet, LIMIT, Spec, show, wait_for};

use crate::alerts::{give, wait_alerts};
use crate::bus::{Subscriber, wait_heard};

/// Events of this subject whose line has this in it.
fn events(fleet: &Fleet, subject: &str, like: &str) -> Result<Vec<Value>> {
    let output = fleet.barid(&["events", "--json", "--since", "1h", subject])?;
    ensure!(output.status.success(), "{}", show(&output.stderr));
    let all = show(&output.stdout);
    let all = all.lines().map(|line| Ok(serde_json::from_str::<Value>(line)?));
    let is_like = |event: &Value| event["line"].as_str().is_some_and(|line| line.contains(like));
    let all: Vec<Value> = all.collect::<Result<_>>()?;
    Ok(all.into_iter().filter(is_like).collect())
}

fn found(fleet: &Fleet, subject: &str, like: &str) -> Result<Value> {
    wait_for(&format!("{subject}: {like}"), LIMIT, || {
        Ok(events(fleet, subject, like)?.into_iter().next())
    })
}

#[test]
fn the_controller_gives_an_order_when_a_host_is_lost_and_not_too_often() -> Result<()> {
    let mut fleet = Fleet::tree(1, 3)?;
    let (seen, local) = (fleet.path().join("seen"), fleet.path().join("local"));
    let line = format!("printf %s \"$BARID_ALERT\" > {}; echo done", seen.display());
    let reactions = format!(
        "[[reaction]]\nname = \"look\"\nkinds = [\"host-lost\"]\nmost = 1\n\
         run = {{ hosts = \"site1-host2\", line = '''{line}''' }}\n\
         [[reaction]]\nname = \"tell\"\nkinds = [\"host-lost\"]\nmost = 9\n\
         publish = {{ subject = \"fleet.lost\" }}\n\
         [[reaction]]\nname = \"here\"\nkinds = [\"host-lost\"]\nsites = [\"site1\"]\n\
         command = {{ argv = [\"/bin/sh\", \"-c\", \"cat > {}\"] }}\n\
         [[reaction]]\nname = \"elsewhere\"\nkinds = [\"host-lost\"]\nsites = [\"site2\"]\n\
         publish = {{ subject = \"fleet.elsewhere\" }}\n",
        local.display()
    );
    give(&fleet, "controller", &reactions)?;
    let mut hears = Subscriber::new(&fleet, "site1-host2", &["fleet.>"])?;
    wait_heard(&fleet, "controller", "fleet.lost", true)?;
    fleet.kill("site1-host1")?;
    wait_alerts(&fleet, &["host-lost/site1-host1"])?;
    let event = found(&fleet, "alert.reaction", "reaction look to host-lost/site1-host1")?;
    let said = event["line"].as_str().context("a line")?;
    assert!(said.contains(" at site1-host2: printf"), "{said}");
    let id = said.split_once("order ").and_then(|(_, rest)| rest.split(' ').next());
    let id = id.context("an order")?;
    let detail = fleet.wait_states(id, &[("ok", 1)])?;
    assert_eq!(detail["order"]["what"], line, "the line is what stands in the file");
    let told: Value = serde_json::from_str(&fs::read_to_string(&seen)?)?;
    assert_eq!(told["alerts"][0]["key"], "host-lost/site1-host1", "{told:#}");
    let message = hears.message()?;
    assert_eq!(message["subject"], "fleet.lost");
    let told: Value = serde_json::from_str(message["data"].as_str().context("JSON")?)?;
    assert_eq!(told["alerts"][0]["labels"]["host"], "site1-host1", "{told:#}");
    found(&fleet, "alert.reaction", "reaction here to")?;
    assert_eq!(serde_json::from_str::<Value>(&fs::read_to_string(&local)?)?["status"], "firing");

    // A second one within the hour is held, also after a restart; who may, goes on.
    fleet.kill("controller")?;
    fleet.restart("controller")?;
    fleet.wait_up(3)?;
    fleet.kill("site1-host3")?;
    let held = found(&fleet, "alert.reaction-held", "reaction look to host-lost/site1-host3")?;
    assert!(held["line"].as_str().is_some_and(|line| line.contains("1 times in 3600 s")));
    let told: Value = serde_json::from_str(hears.message()?["data"].as_str().context("JSON")?)?;
    assert_eq!(told["alerts"][0]["labels"]["host"], "site1-host3", "{told:#}");
    let runs = fleet.json(&["runs", "--json"])?;
    assert_eq!(runs.as_array().map(Vec::len), Some(1), "one order in all: {runs:#}");
    assert!(events(&fleet, "alert.reaction", "reaction elsewhere")?.is_empty());
    let known = fleet.json(&["alerts", "reactions", "--json"])?;
    let known = known.as_array().context("a list")?;
    let names: Vec<_> = known.iter().filter_map(|one| one["name"].as_str()).collect();
    assert_eq!(names, ["look", "tell", "here", "elsewhere"]);
    let look = &known[0];
    assert_eq!(
        (&look["begun"], &look["most"], &look["held_count"]),
        (&json!(1), &json!(1), &json!(1))
    );
    assert_eq!((&look["last"]["state"], &look["held"]["state"]), (&json!("done"), &json!("held")));
    assert_eq!(look["last"]["alert"], "host-lost/site1-host1", "also after the restart: {look:#}");
    assert_eq!(look["held"]["alert"], "host-lost/site1-host3", "{look:#}");
    assert!(known[3]["last"].is_null() && known[3]["held"].is_null(), "{:#}", known[3]);

    // Nothing is done where somebody works.
    fleet.restart("site1-host1")?;
    fleet.restart("site1-host3")?;
    wait_alerts(&fleet, &[])?;
    let silence = ["alerts", "silence", "--kind", "host-lost", "--for", "1h", "--reason", "works"];
    assert!(fleet.barid(&silence)?.status.success());
    fleet.kill("site1-host3")?;
    found(&fleet, "alert.reaction-held", "reaction tell to host-lost/site1-host3 is held: sil")?;
    Ok(())
}

#[test]
fn a_relay_that_is_cut_off_does_what_its_own_file_says() -> Result<()> {
    let mut fleet = Fleet::new()?;
    let done = fleet.path().join("done");
    let reactions = format!(
        "[[reaction]]\nname = \"alone\"\nkinds = [\"controller-silent\"]\n\
         publish = {{ subject = \"site.alone\" }}\n\
         [[reaction]]\nname = \"script\"\nkinds = [\"controller-silent\"]\n\
         command = {{ argv = [\"/bin/sh\", \"-c\", \"cat > {0}.new && mv {0}.new {0}\"] }}\n",
        done.display()
    );
    give(&fleet, "relay", &reactions)?;
    fleet.add(&Spec::new("relay", "relay", "controller").at("lyon"))?;
    fleet.add(&Spec::new("host", "host", "relay").at("lyon"))?;
    fleet.wait_up(2)?;
    let mut hears = Subscriber::new(&fleet, "host", &["site.>"])?;
    wait_heard(&fleet, "relay", "site.alone", true)?;
    fleet.kill("controller")?;
    let message = hears.message()?;
    assert_eq!((&message["subject"], &message["node"]), (&"site.alone".into(), &"relay".into()));
    let told = wait_for("the command", LIMIT, || {
        Ok(done.exists().then(|| fs::read_to_string(&done)).transpose()?)
    })?;
    let told: Value = serde_json::from_str(&told)?;
    assert_eq!(told["alerts"][0]["key"], "controller-silent/lyon", "{told:#}");
    // What was done can be seen there meanwhile, and is known when the controller is back.
    let state = fleet.state("relay");
    let state = state.to_str().context("a path")?;
    wait_for("both to be done", LIMIT, || {
        let known = fleet.json(&["alerts", "reactions", "--json", "--state", state])?;
        let known = known.as_array().context("a list")?;
        let is_done = |one: &Value| one["last"]["state"] == "done";
        Ok((known.len() == 2 && known.iter().all(is_done)).then_some(()))
    })?;
    fleet.restart("controller")?;
    fleet.wait_up(2)?;
    found(&fleet, "alert.reaction", "reaction alone to controller-silent/lyon: published on")?;
    found(&fleet, "alert.reaction", "reaction script to controller-silent/lyon: its command")?;
    Ok(())
}

#[test]
fn reactions_that_cannot_be_are_named_and_those_that_fail_are_told() -> Result<()> {
    let mut fleet = Fleet::tree(1, 1)?;
    let wrong = "[[reaction]]\nname = \"a\"\nkinds = [\"host-lost\"]\nrun.line = \"true\"\n";
    give(&fleet, "controller", wrong)?;
    let alerts = wait_alerts(&fleet, &["alerts-config/alerts.toml"])?;
    let summary = alerts[0]["summary"].as_str().context("a summary")?;
    assert!(summary.contains("alerts.toml: line "), "{summary}");
    assert!(summary.contains("reaction \"a\": run: give hosts = \"SET\""), "{summary}");
    // A set that is none is told now, and not when the alert begins.
    let no_set = "[[reaction]]\nname = \"a\"\nkinds = [\"host-lost\"]\n\
                  run = { hosts = \"web[1-3\", line = \"true\" }\n";
    give(&fleet, "controller", no_set)?;
    wait_for("the set to be named", LIMIT, || {
        let alerts = wait_alerts(&fleet, &["alerts-config/alerts.toml"])?;
        let summary = alerts[0]["summary"].as_str().context("a summary")?;
        let says = "reaction \"a\": run.hosts: \"web[1-3\" (column 4): this";
        Ok(summary.contains(says).then_some(()))
    })?;
    let program = fleet.path().join("fails");
    fs::write(&program, "#!/bin/sh\necho no such valve >&2\nexit 3\n")?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    let fails = format!(
        "[[reaction]]\nname = \"valve\"\nkinds = [\"host-lost\"]\ncommand.argv = [\"{}\"]\n\
         [[reaction]]\nname = \"nobody\"\nkinds = [\"host-lost\"]\n\
         run = {{ hosts = \"no-such-host\", line = \"true\" }}\n",
        program.display()
    );
    give(&fleet, "controller", &fails)?;
    wait_alerts(&fleet, &[])?;
    fleet.kill("site1-host1")?;
    let failed = found(&fleet, "alert.reaction-failed", "reaction valve to")?;
    assert!(failed["line"].as_str().is_some_and(|line| line.contains("no such valve")));
    assert_eq!(failed["severity"], "warning");
    found(&fleet, "alert.reaction-failed", "no-such-host")?;
    assert!(fleet.json(&["runs", "--json"])?.as_array().is_some_and(Vec::is_empty));
    Ok(())
}
