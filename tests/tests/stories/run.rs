//! Commands: everywhere, folded, with the right states and exit codes.

use std::process::Command;

use anyhow::{Context, Result};
use tests::{Fleet, show};

use crate::{answer, order};

#[test]
fn equal_answers_fold_and_failures_are_told() -> Result<()> {
    let fleet = Fleet::tree(2, 3)?;
    let output = fleet.barid(&["run", "-a", "-b", "--", "echo", "hello"])?;
    assert_eq!(output.status.code(), Some(0), "{}", show(&output.stderr));
    let text = show(&output.stdout);
    assert!(text.contains("site[1-2]-host[1-3] (6)"), "{text}");
    assert_eq!(text.matches("hello").count(), 1, "{text}");

    let line = "case $BARID_NODE in *2) echo bad >&2; exit 7;; esac; echo fine";
    let output = fleet.barid(&["run", "-a", "-B", line])?;
    assert_eq!(output.status.code(), Some(1));
    let all = show(&output.stdout) + &show(&output.stderr);
    assert!(all.contains("site[1-2]-host2"), "{all}");
    assert!(all.contains('7') && all.contains("bad"), "{all}");

    let output = fleet.barid(&["run", "-a", "-S", "-b", line])?;
    assert_eq!(output.status.code(), Some(7), "-S gives the largest code");

    let output = fleet.barid(&["run", "-w", "site1-host[1-2]", "--", "echo", "a b"])?;
    let mut lines: Vec<_> = show(&output.stdout).lines().map(String::from).collect();
    lines.sort();
    assert_eq!(lines, ["site1-host1: a b", "site1-host2: a b"]);
    Ok(())
}

#[test]
fn every_end_has_its_own_state() -> Result<()> {
    let fleet = Fleet::tree(1, 1)?;
    let host = "site1-host1";
    let states: [(&[&str], &str, Option<i64>); 5] = [
        (&["--", "true"], "ok", None),
        (&["exit 3"], "failed", Some(3)),
        (&["kill -9 $$"], "signalled", Some(9)),
        (&["-u", "200ms", "--", "tail", "-f", "/dev/null"], "timed-out", None),
        (&["--", "/no/such/program"], "failed", Some(127)),
    ];
    for (command, state, code) in states {
        let id = order(&fleet, &[&["run", "-w", host, "--async", "--json"], command].concat())?;
        let detail = fleet.wait_states(&id, &[(state, 1)])?;
        assert_eq!(answer(&detail, host)?["code"].as_i64(), code, "{detail:#}");
    }
    Ok(())
}

#[test]
fn what_a_limit_cuts_keeps_its_true_size() -> Result<()> {
    let fleet = Fleet::tree(1, 1)?;
    let line = "head -c 3000000 /dev/zero | tr '\\0' x";
    let id = order(&fleet, &["run", "-a", "--async", "--json", line])?;
    let detail = fleet.wait_states(&id, &[("ok", 1)])?;
    let answer = answer(&detail, "site1-host1")?;
    assert_eq!(answer["stdout_size"], 3_000_000);
    let kept = answer["stdout"].as_str().map_or(0, str::len);
    assert!(kept > 1_000 && kept < 1_000_000, "{kept}");
    Ok(())
}

#[test]
fn nobody_who_can_be_reached_seems_away_for_lack_of_patience() -> Result<()> {
    let fleet = Fleet::tree(2, 3)?;
    let output = fleet.barid(&["run", "-a", "-t", "0", "-b", "--", "echo", "here"])?;
    assert_eq!(output.status.code(), Some(0), "{}", show(&output.stderr));
    Ok(())
}

#[test]
fn a_host_that_is_away_is_named_and_costs_the_others_nothing() -> Result<()> {
    let mut fleet = Fleet::tree(1, 3)?;
    fleet.kill("site1-host2")?;
    fleet.wait_up(3)?;
    let output = fleet.barid(&["run", "-a", "-t", "1s", "-b", "--", "echo", "here"])?;
    assert_eq!(output.status.code(), Some(3), "missed hosts are exit 3");
    let all = show(&output.stdout) + &show(&output.stderr);
    assert!(all.contains("site1-host[1,3] (2)"), "{all}");
    assert!(all.contains("site1-host2") && all.contains("not-reached"), "{all}");
    Ok(())
}

#[test]
fn who_is_known_to_be_down_is_not_waited_for() -> Result<()> {
    let mut fleet = Fleet::tree(1, 2)?;
    fleet.kill("site1-host2")?;
    fleet.wait_up(2)?;
    // Nobody would wait for ten minutes here: it is down as soon as its relay's grace is over.
    let id = order(&fleet, &["run", "-a", "-t", "10m", "--async", "--json", "--", "true"])?;
    fleet.wait_states(&id, &[("ok", 1), ("not-reached", 1)])?;
    let id = order(&fleet, &["run", "-a", "-t", "10m", "--async", "--json", "--", "true"])?;
    fleet.wait_states(&id, &[("ok", 1), ("not-reached", 1)])?;
    // It comes back, and has not been given what it was said not to have.
    fleet.restart("site1-host2")?;
    fleet.wait_up(3)?;
    let last = order(&fleet, &["run", "-a", "--async", "--json", "--", "true"])?;
    fleet.wait_states(&last, &[("ok", 2)])?;
    fleet.wait_states(&id, &[("ok", 1), ("not-reached", 1)])?;
    Ok(())
}

/// A host that is away gets a deferred run when it is back, once, also if the controller and the
/// relay have died meanwhile; one that was taken back it does not get.
#[test]
fn who_was_away_gets_a_deferred_run_once() -> Result<()> {
    let mut fleet = Fleet::tree(1, 2)?;
    let count = fleet.path().join("count");
    let line = format!("echo $BARID_ORDER >> {}", count.display());
    fleet.kill("site1-host2")?;
    fleet.wait_up(2)?;
    let args = ["run", "-w", "site1-host2", "-t", "2s", "--defer", "--expires", "10m", "--", &line];
    let first = fleet.barid(&args)?;
    assert_eq!(first.status.code(), Some(3), "{}", show(&first.stderr));
    assert!(show(&first.stderr).contains("gets it within"), "{}", show(&first.stderr));
    let id = fleet.order("last")?["order"]["id"].as_str().map(String::from).expect("an id");
    let second = fleet.barid(&args)?;
    assert_eq!(second.status.code(), Some(3), "{}", show(&second.stderr));
    let cancelled = order(&fleet, &["cancel", "last", "--async", "--json"])?;
    for name in ["controller", "site1-relay"] {
        fleet.kill(name)?;
        fleet.restart(name)?;
    }
    fleet.wait_up(2)?;
    fleet.restart("site1-host2")?;
    fleet.wait_states(&id, &[("ok", 1)])?;
    fleet.wait_states(&cancelled, &[("ok", 1)])?;
    assert_eq!(std::fs::read_to_string(&count)?, format!("{id}\n"));
    Ok(())
}

#[test]
fn an_order_names_who_gave_it() -> Result<()> {
    let fleet = Fleet::tree(1, 2)?;
    let user = show(&Command::new("id").arg("-un").output()?.stdout).trim().to_owned();
    let source = fleet.path().join("source");
    std::fs::create_dir(&source)?;
    std::fs::write(source.join("a"), "a")?;
    let source = source.to_str().context("a plain path")?;
    let push = ["push", source, "-a", "--dest", "/srv/a"];
    let given: [(&str, &[&str], String); 4] = [
        ("", &["run", "-a", "--", "true"], user.clone()),
        ("ada", &["run", "-a", "--", "true"], format!("ada ({user})")),
        // Given later, by the controller, and in the name of whoever has asked.
        ("eve", &[&push[..], &["--waves", "1,100%"]].concat(), format!("eve ({user})")),
        ("ada eve", &["run", "-a", "--", "true"], user.clone()),
    ];
    for (said, args, by) in &given {
        let mut command = fleet.command(args);
        match *said {
            "" => command.env_remove("SUDO_USER"),
            said => command.env("SUDO_USER", said),
        };
        let output = command.output()?;
        assert!(output.status.success(), "{args:?}: {}", show(&output.stderr));
        assert_eq!(fleet.json(&["runs", "--json"])?[0]["by"], **by, "{args:?}");
    }
    let runs = show(&fleet.barid(&["runs"])?.stdout);
    assert_eq!(runs.matches(&format!("ada ({user})")).count(), 1, "{runs}");
    assert_eq!(runs.matches(&format!("eve ({user})")).count(), 2, "one for each wave: {runs}");
    Ok(())
}
