//! Runs that go on a few hosts at a time: windows, batches, budgets, deadlines, and what becomes
//! of them when somebody dies. A file to which every host writes is the witness.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use tests::{Fleet, LIMIT, show, until, wait_for};

use crate::order;

/// Where hosts write that they begin and that they have ended.
struct Witness {
    dir: PathBuf,
}

impl Witness {
    fn new(fleet: &Fleet) -> Result<Witness> {
        let dir = fleet.path().join("witness");
        fs::create_dir(&dir)?;
        Ok(Witness { dir })
    }

    /// A command that ends with this code, when it is let go.
    fn line(&self, code: u8) -> String {
        let (dir, go) = (self.dir.display(), until(&self.dir.join("go")));
        format!(
            "echo \"+ $BARID_NODE\" >> {dir}/log; {go}; sleep 0.1; \
             echo \"- $BARID_NODE\" >> {dir}/log; exit {code}"
        )
    }

    fn open(&self) -> Result<()> {
        Ok(fs::write(self.dir.join("go"), "")?)
    }

    /// What was written: whether it is a beginning, and by whom.
    fn log(&self) -> Vec<(bool, String)> {
        let text = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        let lines = text.lines().filter_map(|line| line.split_once(' '));
        lines.map(|(sign, host)| (sign == "+", host.to_owned())).collect()
    }

    fn starts(&self) -> BTreeMap<String, usize> {
        let mut starts = BTreeMap::new();
        for (_, host) in self.log().into_iter().filter(|(begins, _)| *begins) {
            *starts.entry(host).or_default() += 1;
        }
        starts
    }

    fn wait_started(&self, hosts: usize) -> Result<()> {
        wait_for("the first hosts to begin", LIMIT, || {
            Ok((self.starts().len() >= hosts).then_some(()))
        })
    }

    /// How many ran at once, at most.
    fn most(&self) -> usize {
        let (mut running, mut most) = (0usize, 0);
        for (begins, _) in self.log() {
            running = if begins { running + 1 } else { running.saturating_sub(1) };
            most = most.max(running);
        }
        most
    }

    /// That so many hosts have begun, each once.
    #[track_caller]
    fn assert_once(&self, hosts: usize) {
        let starts = self.starts();
        assert_eq!(starts.len(), hosts, "{starts:?}");
        assert!(starts.values().all(|times| *times == 1), "{starts:?}");
    }
}

#[test]
fn no_more_than_the_window_run_at_a_time() -> Result<()> {
    let fleet = Fleet::tree(2, 6)?;
    let witness = Witness::new(&fleet)?;
    // A quarter of twelve.
    let run = ["run", "-a", "-f", "25%", "--async", "--json", &witness.line(0)];
    let id = order(&fleet, &run)?;
    witness.wait_started(3)?;
    // Somebody else's order is not held up by one that waits.
    let other = order(&fleet, &["run", "-a", "--async", "--json", "--", "true"])?;
    fleet.wait_states(&other, &[("ok", 12)])?;
    witness.assert_once(3);
    witness.open()?;
    fleet.wait_states(&id, &[("ok", 12)])?;
    witness.assert_once(12);
    assert_eq!(witness.most(), 3);
    Ok(())
}

#[test]
fn sites_have_windows_of_their_own() -> Result<()> {
    let fleet = Fleet::tree(2, 3)?;
    let witness = Witness::new(&fleet)?;
    let ways =
        [("--per-site", "1"), ("--per-relay", "1"), ("--per-site", "10%"), ("--per-relay", "10%")];
    for (option, number) in ways {
        fs::remove_file(witness.dir.join("log")).ok();
        fs::remove_file(witness.dir.join("go")).ok();
        let run = ["run", "-a", option, number, "--async", "--json", &witness.line(0)];
        let id = order(&fleet, &run)?;
        witness.wait_started(2)?;
        let sites: Vec<_> = witness.starts().into_keys().map(|host| host[..5].to_owned()).collect();
        assert_eq!(sites, ["site1", "site2"], "{option} {number}");
        witness.open()?;
        fleet.wait_states(&id, &[("ok", 6)])?;
        witness.assert_once(6);
        assert_eq!(witness.most(), 2, "{option} {number}");
    }
    Ok(())
}

#[test]
fn a_batch_begins_when_the_one_before_it_has_ended() -> Result<()> {
    let fleet = Fleet::tree(2, 4)?;
    let witness = Witness::new(&fleet)?;
    witness.open()?;
    let line = witness.line(0);
    let run = ["run", "-a", "--batch", "50%", "--batch-wait", "100ms", "-f", "3", &line];
    let output = fleet.barid(&run)?;
    assert_eq!(output.status.code(), Some(0), "{}", show(&output.stderr));
    witness.assert_once(8);
    let log = witness.log();
    let (first, second) = log.split_at(8);
    let begun = |part: &[(bool, String)]| part.iter().filter(|(begins, _)| *begins).count();
    assert_eq!((begun(first), begun(second)), (4, 4), "{log:?}");
    assert!(witness.most() <= 3);
    Ok(())
}

#[test]
fn a_budget_stops_the_run_and_the_rest_can_be_given_later() -> Result<()> {
    let fleet = Fleet::tree(2, 6)?;
    let witness = Witness::new(&fleet)?;
    witness.open()?;
    let bad = fleet.path().join("bad");
    fs::write(&bad, "")?;
    let line = format!("{}; ", witness.line(0).replace("exit 0", "[ ! -e BAD ]"))
        .replace("BAD", &bad.display().to_string());
    let output = fleet.barid(&["run", "-a", "-f", "2", "--max-errors", "1", &line])?;
    let told = show(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{told}");
    assert!(told.contains("stopped, more hosts have failed than allowed"), "{told}");
    let begun = witness.starts().len();
    assert!((2..=3).contains(&begun), "{begun} have begun");
    witness.assert_once(begun);
    let detail = fleet.order("last")?;
    assert_eq!(detail["order"]["stopped"], "errors");
    assert_eq!(detail["order"]["states"]["skipped"], 12 - begun, "{detail:#}");
    // Whoever was skipped is told so, though nobody sees the order that does it.
    ensure!(!witness.starts().contains_key("site2-host6"), "the last one has begun");
    wait_for("the last host to be told", LIMIT, || {
        Ok(fleet.log("site2-host6").contains("carried out").then_some(()))
    })?;
    let runs = fleet.json(&["runs", "--json"])?;
    assert_eq!(runs.as_array().map(Vec::len), Some(1), "{runs:#}");
    fs::remove_file(&bad)?;
    let output = fleet.barid(&["retry", "last", "--state", "skipped", "-b"])?;
    assert_eq!(output.status.code(), Some(0), "{}", show(&output.stderr));
    witness.assert_once(12);
    let output = fleet.barid(&["retry", "last", "--state", "failed"])?;
    assert!(show(&output.stderr).contains("no host of the run"), "{output:?}");
    Ok(())
}

#[test]
fn a_host_that_is_missed_stops_the_run_if_it_should() -> Result<()> {
    let mut fleet = Fleet::tree(1, 4)?;
    let witness = Witness::new(&fleet)?;
    let run = ["run", "-a", "-f", "1", "-t", "1s", "-k", "--async", "--json", &witness.line(0)];
    let id = order(&fleet, &run)?;
    witness.wait_started(1)?;
    let first = witness.starts().into_keys().next().expect("one has begun");
    fleet.kill(&first)?;
    let skipped =
        |detail: &serde_json::Value| (detail["order"]["states"]["skipped"] == 3).then_some(());
    wait_for("the rest to be skipped", LIMIT, || Ok(skipped(&fleet.order(&id)?)))?;
    assert_eq!(fleet.order(&id)?["order"]["stopped"], "missed");
    fleet.restart(&first)?;
    fleet.wait_states(&id, &[("interrupted", 1), ("skipped", 3)])?;
    witness.assert_once(1);
    Ok(())
}

#[test]
fn after_its_deadline_nobody_begins() -> Result<()> {
    let fleet = Fleet::tree(1, 3)?;
    let witness = Witness::new(&fleet)?;
    let line = witness.line(0);
    let run = ["run", "-a", "-f", "1", "--deadline", "4s", "--async", "--json", &line];
    let id = order(&fleet, &run)?;
    witness.wait_started(1)?;
    wait_for("the rest to be skipped", LIMIT, || {
        Ok((fleet.order(&id)?["order"]["states"]["skipped"] == 2).then_some(()))
    })?;
    witness.open()?;
    let detail = fleet.wait_states(&id, &[("ok", 1), ("skipped", 2)])?;
    assert_eq!(detail["order"]["stopped"], "deadline");
    witness.assert_once(1);
    Ok(())
}

#[test]
fn a_host_that_is_away_has_its_turn_when_it_is_back() -> Result<()> {
    let mut fleet = Fleet::tree(1, 3)?;
    let witness = Witness::new(&fleet)?;
    fleet.kill("site1-host1")?;
    fleet.wait_up(3)?;
    let run = ["run", "-a", "-f", "1", "-t", "2s", "--async", "--json", &witness.line(0)];
    let id = order(&fleet, &run)?;
    // The first of the set is away, and costs the others nothing.
    witness.wait_started(1)?;
    fleet.restart("site1-host1")?;
    fleet.wait_up(4)?;
    witness.open()?;
    fleet.wait_states(&id, &[("ok", 3)])?;
    witness.assert_once(3);
    assert_eq!(witness.most(), 1);

    fleet.kill("site1-host1")?;
    let line = witness.line(0);
    let output = fleet.barid(&["run", "-a", "-f", "2", "-t", "1s", &line])?;
    assert_eq!(output.status.code(), Some(3), "{}", show(&output.stderr));
    assert!(show(&output.stderr).contains("site1-host1: not reached"), "{output:?}");
    Ok(())
}

fn goes_on_after(victim: &str) -> Result<()> {
    let mut fleet = Fleet::tree(2, 6)?;
    let witness = Witness::new(&fleet)?;
    let run = ["run", "-a", "-f", "3", "-t", "30s", "--async", "--json", &witness.line(0)];
    let id = order(&fleet, &run)?;
    witness.wait_started(3)?;
    fleet.kill(victim)?;
    fleet.restart(victim)?;
    witness.open()?;
    fleet.wait_states(&id, &[("ok", 12)])?;
    witness.assert_once(12);
    assert_eq!(witness.most(), 3);
    Ok(())
}

#[test]
fn a_run_goes_on_when_the_controller_comes_back() -> Result<()> {
    goes_on_after("controller")
}

#[test]
fn a_run_goes_on_when_a_relay_comes_back() -> Result<()> {
    goes_on_after("site1-relay")
}

#[test]
fn who_waits_can_be_cancelled() -> Result<()> {
    let fleet = Fleet::tree(2, 3)?;
    let witness = Witness::new(&fleet)?;
    let run = ["run", "-a", "-f", "2", "--async", "--json", &witness.line(0)];
    let id = order(&fleet, &run)?;
    witness.wait_started(2)?;
    let output = fleet.barid(&["cancel", &id])?;
    assert_eq!(output.status.code(), Some(0), "{}", show(&output.stderr));
    fleet.wait_states(&id, &[("cancelled", 6)])?;
    witness.open()?;
    let next = order(&fleet, &["run", "-a", "--async", "--json", "--", "true"])?;
    fleet.wait_states(&next, &[("ok", 6)])?;
    witness.assert_once(2);
    Ok(())
}

#[test]
fn what_failed_is_tried_again_and_nothing_else() -> Result<()> {
    let fleet = Fleet::tree(2, 2)?;
    let witness = Witness::new(&fleet)?;
    witness.open()?;
    let dir = witness.dir.display();
    // The hosts of one site fail the first time.
    let line = format!(
        "{}; case $BARID_NODE in site1*) [ -e {dir}/$BARID_NODE ] || \
         {{ touch {dir}/$BARID_NODE; exit 3; }};; esac",
        witness.line(0).replace("; exit 0", "")
    );
    let output = fleet.barid(&["run", "-a", "--retry", "2:100ms", &line])?;
    let told = show(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.contains("again on 2 hosts: site1-host[1-2]"), "{told}");
    let starts = witness.starts();
    let times: Vec<_> = starts.values().copied().collect();
    ensure!(times == [2, 2, 1, 1], "{starts:?}");
    let runs = fleet.json(&["runs", "--json"])?;
    assert_eq!(runs[0]["retries"], runs[1]["id"]);
    Ok(())
}

#[test]
fn what_makes_no_sense_is_refused() -> Result<()> {
    let fleet = Fleet::tree(1, 1)?;
    for (run, code) in [
        (&["run", "-a", "-f", "0", "true"][..], 2),
        (&["run", "-a", "--batch", "200%", "true"], 2),
        (&["run", "-a", "--batch", "0", "true"], 2),
        (&["run", "-a", "-k", "--max-errors", "3", "true"], 2),
        (&["retry", "last"], 1),
    ] {
        let output = fleet.barid(run)?;
        assert_eq!(output.status.code(), Some(code), "{run:?}: {}", show(&output.stderr));
    }
    Ok(())
}
