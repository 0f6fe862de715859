//! Events and error reports: folded, counted exactly whatever dies, and harmless to whoever reads.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{Fleet, LIMIT, show, wait_for};

use crate::order;

/// Events as `barid events --json` shows them.
fn events(fleet: &Fleet, args: &[&str]) -> Result<Vec<Value>> {
    let args = [&["events", "--json", "--since", "1d"], args].concat();
    let output = fleet.barid(&args)?;
    ensure!(output.status.success(), "{args:?}: {}", show(&output.stderr));
    let lines = show(&output.stdout);
    lines.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

fn report(fleet: &Fleet) -> Result<Vec<Value>> {
    let report = fleet.json(&["report", "errors", "--json"])?;
    Ok(report["problems"].as_array().context("problems")?.clone())
}

fn sum(events: &[Value], of: impl Fn(&Value) -> bool) -> u64 {
    events.iter().filter(|event| of(event)).filter_map(|event| event["count"].as_u64()).sum()
}

#[test]
fn a_run_that_fails_is_one_event_and_one_line_of_the_report() -> Result<()> {
    let fleet = Fleet::tree(2, 2)?;
    // Three lines with what differs from host to host in them, and what a terminal must not see.
    let script =
        "printf 'job %s failed\\n  disk \\033[2Jfull\\n  at %s\\n' $$ $(date +%s) >&2; exit 3";
    let id = order(&fleet, &["run", "-a", "--shell", "--async", "--json", script])?;
    fleet.wait_states(&id, &[("failed", 4)])?;
    let failed = wait_for("the closing of the run to be an event", LIMIT, || {
        let all = events(&fleet, &["run"])?;
        let closed = all.iter().any(|event| event["subject"] == "run.closed");
        Ok(closed.then_some(all))
    })?;
    let failed: Vec<_> = failed.iter().filter(|e| e["subject"] == "run.failed").collect();
    ensure!(failed.len() == 1, "{failed:#?}");
    let event = failed[0];
    assert_eq!((&event["count"], &event["hosts"]), (&4.into(), &4.into()));
    assert_eq!(event["set"], "site[1-2]-host[1-2]");
    assert_eq!(event["order"], id.as_str());
    let line = event["line"].as_str().context("a line")?;
    ensure!(line.starts_with("exit 3: job ") && line.contains("disk [2Jfull at"), "{line:?}");
    ensure!(!line.contains(char::is_control), "{line:?}");
    assert_eq!(event["text"].as_str().context("a text")?.lines().count(), 3);
    let problems = report(&fleet)?;
    let problem = problems.iter().find(|p| p["subject"] == "run.failed").context("a problem")?;
    assert_eq!((&problem["hosts"], &problem["is_new"]), (&4.into(), &true.into()));
    assert_eq!(problem["class"], "command");
    let text = fleet.barid(&["report", "hour"])?;
    ensure!(text.status.success() && show(&text.stdout).contains("client command failed"));
    Ok(())
}

#[test]
fn filters_decide_and_a_bad_one_changes_nothing() -> Result<()> {
    let fleet = Fleet::tree(1, 2)?;
    for word in ["routine trouble", "old noise", "something new"] {
        let id = order(
            &fleet,
            &["run", "-a", "--shell", "--async", "--json", &format!("echo {word}; exit 1")],
        )?;
        fleet.wait_states(&id, &[("failed", 2)])?;
    }
    let set = |list: &str, text: &str| -> Result<std::process::Output> {
        let file = fleet.path().join("filter");
        std::fs::write(&file, text)?;
        fleet.barid(&["report", "filter", "set", list, file.to_str().context("a path")?])
    };
    ensure!(set("day", "# can wait\nroutine .*\n")?.status.success());
    ensure!(set("delete", "old noise\n")?.status.success());
    let bad = set("delete", "fine\nno(t fine\n")?;
    assert_eq!(bad.status.code(), Some(2));
    ensure!(show(&bad.stderr).contains("filter.delete, line 2:"), "{}", show(&bad.stderr));
    let lines = |kind: &str| -> Result<Vec<String>> {
        let report = fleet.json(&["report", kind, "--json"])?;
        let problems = report["problems"].as_array().context("problems")?;
        let of_runs = problems.iter().filter(|p| p["subject"] == "run.failed");
        Ok(of_runs.filter_map(|p| Some(p["line"].as_str()?.to_owned())).collect())
    };
    assert_eq!(lines("hour")?, ["exit 1: something new"]);
    assert_eq!(lines("day")?.len(), 2);
    assert_eq!(fleet.barid(&["report", "hour", "24"])?.status.code(), Some(2));
    assert_eq!(fleet.barid(&["report", "day", "-100"])?.status.code(), Some(1));
    Ok(())
}

/// Every start of a host is one event of that host. However often the relay and the controller are
/// killed while such events are on their way, each is counted once.
#[test]
fn each_event_is_counted_once_whoever_is_killed() -> Result<()> {
    const HOSTS: u64 = 6;
    const ROUNDS: u64 = 4;
    let mut fleet = Fleet::tree(1, HOSTS as usize)?;
    let hosts: Vec<String> = (1..=HOSTS).map(|n| format!("site1-host{n}")).collect();
    let is_start = |event: &Value| event["class"] == "client";
    let wait = |fleet: &Fleet, starts: u64| {
        wait_for("all starts to be counted", 2 * LIMIT, || {
            let found = sum(&events(fleet, &["host.started"])?, is_start);
            ensure!(found <= starts, "{found} of {starts} were counted");
            Ok((found == starts).then_some(()))
        })
    };
    wait(&fleet, HOSTS)?;
    for round in 1..=ROUNDS {
        for host in &hosts {
            fleet.kill(host)?;
            fleet.restart(host)?;
        }
        let victim = if round % 2 == 0 { "controller" } else { "site1-relay" };
        fleet.kill(victim)?;
        fleet.restart(victim)?;
        // Once more when some of it has been told.
        wait_for("something of it to arrive", 2 * LIMIT, || {
            let found = sum(&events(&fleet, &["host.started"])?, is_start);
            Ok((found > HOSTS * round).then_some(()))
        })?;
        fleet.kill("site1-relay")?;
        fleet.restart("site1-relay")?;
        wait(&fleet, HOSTS * (round + 1))?;
    }
    Ok(())
}

#[test]
fn whoever_follows_sees_what_comes_and_goes_on_from_a_cursor() -> Result<()> {
    let mut fleet = Fleet::tree(1, 2)?;
    wait_for("the fleet to have started", LIMIT, || {
        let all = events(&fleet, &["host.started"])?;
        Ok((sum(&all, |event| event["class"] == "client") == 2).then_some(()))
    })?;
    let cursor = events(&fleet, &[])?.last().context("an event")?["cursor"].to_string();
    fleet.kill("site1-host2")?;
    let lost = wait_for("the lost link to be told", LIMIT, || {
        let output =
            fleet.barid(&["events", "--json", "--after", &cursor, "--severity", "warning"])?;
        let lines = show(&output.stdout);
        let found = lines.lines().map(serde_json::from_str::<Value>);
        let found: Vec<Value> = found.collect::<Result<_, _>>()?;
        Ok(found.into_iter().find(|event| event["subject"] == "link.lost"))
    })?;
    assert_eq!(lost["node"], "site1-relay");
    ensure!(lost["line"].as_str().is_some_and(|line| line.contains("host site1-host2")));
    assert_eq!(lost["class"], "down");
    assert_eq!(lost["sites"], serde_json::json!(["site1"]));
    let mut child = fleet.command(&["events", "-f", "--json", "link.up"]);
    let mut child = child.stdout(std::process::Stdio::piped()).spawn()?;
    let out = child.stdout.take().context("its output")?;
    fleet.restart("site1-host2")?;
    let (told, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in std::io::BufRead::lines(std::io::BufReader::new(out)).map_while(Result::ok) {
            told.send(line).ok();
        }
    });
    let after: u64 = lost["cursor"].as_u64().context("a cursor")?;
    let up = loop {
        let line: Value = serde_json::from_str(&heard.recv_timeout(LIMIT)?)?;
        if line["cursor"].as_u64() > Some(after) && line["class"] == "relay" {
            break line;
        }
    };
    child.kill()?;
    child.wait()?;
    ensure!(up["subject"] == "link.up", "{up:#}");
    Ok(())
}
