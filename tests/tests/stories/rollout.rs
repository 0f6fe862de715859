//! Pushes in waves: who gets it when, what a gate stops, and how it goes on.
//!
//! A line that each host runs before anything else is the witness: it writes down who begins.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{Fleet, LIMIT, PACE, binary, show, until, wait_for};

use crate::order;

const DEST: &str = "/srv/app";

/// Where hosts write that they begin; who finds its name in `bad` fails.
struct Scene {
    dir: PathBuf,
    source: String,
}

impl Scene {
    fn new(fleet: &Fleet) -> Result<Scene> {
        let dir = fleet.path().join("witness");
        fs::create_dir_all(dir.join("bad"))?;
        let source = fleet.path().join("source");
        fs::create_dir_all(&source)?;
        fs::write(source.join("version"), "1\n")?;
        Ok(Scene { dir, source: source.to_str().context("a plain path")?.into() })
    }

    fn set_version(&self, version: &str) -> Result<()> {
        Ok(fs::write(PathBuf::from(&self.source).join("version"), version)?)
    }

    fn push(&self, fleet: &Fleet, more: &[&str]) -> Result<std::process::Output> {
        let dir = self.dir.display();
        let before = format!("echo $BARID_NODE >> {dir}/log; [ ! -e {dir}/bad/$BARID_NODE ]");
        let args = ["push", &self.source, "--dest", DEST, "-a", "--before", &before];
        fleet.barid(&[&args, more].concat())
    }

    fn begun(&self) -> BTreeSet<String> {
        let text = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        text.lines().map(String::from).collect()
    }

    fn spoil(&self, host: &str, is_bad: bool) -> Result<()> {
        let path = self.dir.join("bad").join(host);
        match is_bad {
            true => fs::write(path, "")?,
            false => fs::remove_file(path)?,
        }
        Ok(())
    }
}

fn rollout(fleet: &Fleet) -> Result<Value> {
    fleet.json(&["rollout", "show", "last", "--json"])
}

fn wait_state(fleet: &Fleet, state: &str) -> Result<Value> {
    wait_for(&format!("the rollout to be {state}"), LIMIT, || {
        let now = rollout(fleet)?;
        Ok((now["state"] == state).then_some(now))
    })
}

/// How many hosts of each wave are ok.
fn ok(rollout: &Value) -> Vec<u64> {
    let waves = rollout["waves"].as_array().map(Vec::as_slice).unwrap_or_default();
    waves.iter().filter_map(|wave| wave["ok"].as_u64()).collect()
}

#[test]
fn a_wave_opens_when_the_check_of_the_one_before_has_passed() -> Result<()> {
    let fleet = Fleet::tree(2, 4)?;
    let scene = Scene::new(&fleet)?;
    // Who has begun by the time of each check.
    let (log, counts) = (scene.dir.join("log"), scene.dir.join("counts"));
    let gate = format!(
        "errors<=0 check=\"echo $BARID_WAVE/$BARID_WAVES $(sort -u {} | wc -l) >> {}\"",
        log.display(),
        counts.display()
    );
    let output = scene.push(&fleet, &["--waves", "1,50%,100%", "--gate", &gate])?;
    let told = show(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert_eq!(fs::read_to_string(&counts)?, "1/3 1\n2/3 4\n3/3 8\n", "{told}");
    assert!(told.contains("wave 2 of 3: 3 hosts: push "), "{told}");
    let done = rollout(&fleet)?;
    assert_eq!((ok(&done), &done["state"]), (vec![1, 3, 4], &"done".into()), "{done:#}");
    assert_eq!(fs::read_to_string(fleet.at("site2-host4", DEST).join("version"))?, "1\n");
    // The first four are a sample of both sites.
    let first = done["waves"][1]["set"].as_str().context("a set")?;
    ensure!(first.contains("site1") && first.contains("site2"), "{first}");
    Ok(())
}

#[test]
fn a_gate_that_fails_stops_it_and_resuming_goes_on() -> Result<()> {
    let mut fleet = Fleet::tree(2, 3)?;
    let scene = Scene::new(&fleet)?;
    assert_eq!(scene.push(&fleet, &["--all-at-once"])?.status.code(), Some(0));
    fs::remove_file(scene.dir.join("log"))?;
    scene.set_version("2\n")?;
    scene.spoil("site1-host3", true)?;
    let waves = ["--waves", "site1-host1,site1-host[2-3],100%", "--gate", "errors<=0"];
    let output = scene.push(&fleet, &waves)?;
    let told = show(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{told}");
    assert!(told.contains("stopped at wave 2 of 3: 1 of 2 hosts have failed"), "{told}");
    let short = rollout(&fleet)?["short"].as_str().context("an id")?.to_owned();
    let resume = ["rollout", "resume", &short];
    assert!(told.contains(&format!("barid {}", resume.join(" "))), "{told}");
    let expected = ["site1-host1", "site1-host2", "site1-host3"].map(String::from);
    assert_eq!(scene.begun(), expected.into());
    let errors = fleet.json(&["report", "errors", "--json"])?.to_string();
    assert!(errors.contains("rollout stopped"), "{errors}");

    // It is where it was after a restart, and again does not pass.
    fleet.kill("controller")?;
    fleet.restart("controller")?;
    fleet.wait_up(8)?;
    assert_eq!(fleet.barid(&resume)?.status.code(), Some(4));
    assert_eq!(scene.begun().len(), 3);
    // With the cause gone it goes on with the wave at which it was, and then to the end.
    scene.spoil("site1-host3", false)?;
    let output = fleet.barid(&resume)?;
    assert_eq!(output.status.code(), Some(0), "{}", show(&output.stderr));
    assert_eq!(ok(&rollout(&fleet)?), [1, 2, 3]);
    assert_eq!(scene.begun().len(), 6);
    assert_eq!(fs::read_to_string(fleet.at("site2-host3", DEST).join("version"))?, "2\n");
    Ok(())
}

#[test]
fn a_stopped_rollout_is_accepted_or_taken_back() -> Result<()> {
    let fleet = Fleet::tree(1, 4)?;
    let scene = Scene::new(&fleet)?;
    assert_eq!(scene.push(&fleet, &["--all-at-once"])?.status.code(), Some(0));
    scene.set_version("2\n")?;
    scene.spoil("site1-host2", true)?;
    let waves = ["--waves", "site1-host[1-2],3,100%", "--gate", "ok>=100%"];
    assert_eq!(scene.push(&fleet, &waves)?.status.code(), Some(4));
    // Back: who has the new one, wherever the rollout has got to.
    let short = rollout(&fleet)?["short"].as_str().context("an id")?.to_owned();
    let output = fleet.barid(&["rollback", &short, "--yes"])?;
    assert_eq!(output.status.code(), Some(0), "{}", show(&output.stderr));
    let version = |host: &str| fs::read_to_string(fleet.at(host, DEST).join("version"));
    assert_eq!((version("site1-host1")?, version("site1-host4")?), ("1\n".into(), "1\n".into()));
    // What went back is not rolled out once more by the old one.
    let output = fleet.barid(&["rollout", "resume", &short])?;
    let told = show(&output.stderr);
    assert!(
        output.status.code() == Some(4) && told.contains("has gone to /srv/app since"),
        "{told}"
    );
    assert_eq!(fleet.barid(&["rollout", "abort", &short])?.status.code(), Some(0));

    // Another one, whose first wave is good enough as it is.
    assert_eq!(scene.push(&fleet, &waves)?.status.code(), Some(4));
    let output = fleet.barid(&["rollout", "resume", "--accept", "--gate", "ok>=50%"])?;
    assert_eq!(output.status.code(), Some(0), "{}", show(&output.stderr));
    assert_eq!(ok(&rollout(&fleet)?), [1, 1, 1]);
    assert_eq!((version("site1-host1")?, version("site1-host4")?), ("2\n".into(), "2\n".into()));
    assert_eq!(version("site1-host2")?, "1\n");

    // What was given last are all of its waves.
    let ok = fleet.barid(&["nodes", "fold", "@run:last/ok"])?;
    assert_eq!(show(&ok.stdout), "site1-host[1,3-4]\n", "{}", show(&ok.stderr));
    let output = fleet.barid(&["rollback", "last", "--yes"])?;
    assert_eq!(output.status.code(), Some(0), "{}", show(&output.stderr));
    for host in ["site1-host1", "site1-host3", "site1-host4"] {
        assert_eq!(version(host)?, "1\n", "{host}");
    }
    Ok(())
}

#[test]
fn pausing_outlives_the_controller_and_aborting_is_for_good() -> Result<()> {
    let mut fleet = Fleet::tree(1, 3)?;
    let scene = Scene::new(&fleet)?;
    let go = scene.dir.join("go");
    let gate = format!("errors<=0 check=\"{}\"", until(&go));
    let waves = ["--waves", "1,2,100%", "--gate", &gate, "--async", "--json"];
    let given = scene.push(&fleet, &waves)?;
    let given: Value = serde_json::from_slice(&given.stdout)?;
    let id = given["id"].as_str().context("an id")?;
    wait_for("the check to run", LIMIT, || {
        Ok((rollout(&fleet)?["stage"] == "checking").then_some(()))
    })?;
    assert_eq!(fleet.barid(&["rollout", "pause", id])?.status.code(), Some(0));
    assert_eq!(fleet.barid(&["rollout", "pause", id])?.status.code(), Some(1));
    fleet.kill("controller")?;
    fleet.restart("controller")?;
    fleet.wait_up(4)?;
    fs::write(&go, "")?;
    wait_for(
        "the first wave to pass",
        LIMIT,
        || Ok((rollout(&fleet)?["wave"] == 2).then_some(())),
    )?;
    let paused = rollout(&fleet)?;
    assert_eq!((&paused["state"], &paused["stage"]), (&"paused".into(), &"due".into()));
    assert_eq!(scene.begun().len(), 1);

    fs::remove_file(&go)?;
    assert_eq!(fleet.barid(&["rollout", "resume", id, "--async"])?.status.code(), Some(0));
    wait_for("the second check to run", LIMIT, || {
        let now = rollout(&fleet)?;
        Ok((now["stage"] == "checking" && now["wave"] == 2).then_some(()))
    })?;
    assert_eq!(fleet.barid(&["rollout", "abort", id])?.status.code(), Some(0));
    fs::write(&go, "")?;
    let aborted = wait_state(&fleet, "aborted")?;
    assert_eq!(ok(&aborted), [1, 1, 0], "{aborted:#}");
    assert_eq!(fleet.barid(&["rollout", "resume", id])?.status.code(), Some(1));
    // Another rollout to the same place may begin now, and ends.
    let output = scene.push(&fleet, &["--waves", "1,100%"])?;
    assert_eq!(output.status.code(), Some(0), "{}", show(&output.stderr));
    Ok(())
}

#[test]
fn a_wave_that_runs_goes_on_when_the_controller_is_back() -> Result<()> {
    let mut fleet = Fleet::tree(2, 2)?;
    let scene = Scene::new(&fleet)?;
    let (go, dir) = (scene.dir.join("go"), scene.dir.display().to_string());
    let before = format!("echo $BARID_NODE >> {dir}/log; {}", until(&go));
    let push = ["push", &scene.source, "--dest", DEST, "-a", "--before", &before];
    let waves = ["--waves", "50%,100%", "--async", "--json"];
    order(&fleet, &[&push[..], &waves].concat())?;
    wait_for("the first wave to begin", LIMIT, || Ok((scene.begun().len() == 2).then_some(())))?;
    fleet.kill("controller")?;
    fs::write(&go, "")?;
    fleet.restart("controller")?;
    let done = wait_state(&fleet, "done")?;
    assert_eq!(ok(&done), [2, 2], "{done:#}");
    // Each wave was given once.
    let orders = |wave: usize| done["waves"][wave]["orders"].as_array().map(Vec::len);
    assert_eq!((orders(0), orders(1)), (Some(1), Some(1)), "{done:#}");
    Ok(())
}

#[test]
fn a_pause_takes_a_running_wave_back_from_who_has_not_begun_and_resuming_gives_it() -> Result<()> {
    let mut fleet = Fleet::tree(1, 3)?;
    let scene = Scene::new(&fleet)?;
    fleet.kill("site1-host3")?;
    fleet.wait_up(3)?;
    let (go, dir) = (scene.dir.join("go"), scene.dir.display().to_string());
    let before = format!("echo $BARID_NODE >> {dir}/log; {}", until(&go));
    let push = ["push", &scene.source, "--dest", DEST, "-a", "--before", &before, "-t", "2s"];
    let waves = ["--waves", "100%", "--gate", "errors<=0", "--async", "--json"];
    order(&fleet, &[&push[..], &waves].concat())?;
    wait_for("two hosts to begin", LIMIT, || Ok((scene.begun().len() == 2).then_some(())))?;
    assert_eq!(fleet.barid(&["rollout", "pause"])?.status.code(), Some(0));
    // Whether it has got to taking anything back or not, the next controller does.
    fleet.kill("controller")?;
    fleet.restart("controller")?;
    let paused = wait_for("it to be taken back from one", LIMIT, || {
        let now = rollout(&fleet)?;
        Ok((now["taken_back"] == 1).then_some(now))
    })?;
    assert_eq!((&paused["state"], &paused["stage"]), (&"paused".into(), &"given".into()));
    let given = paused["waves"][0]["orders"][0].as_str().context("an order")?;
    fleet.restart("site1-host3")?;
    wait_for("the one that is back to have heard of it", LIMIT, || {
        Ok((fleet.order(given)?["order"]["states"]["cancelled"] == 1).then_some(()))
    })?;
    fs::write(&go, "")?;
    fleet.wait_states(given, &[("ok", 2), ("cancelled", 1)])?;
    let paused = rollout(&fleet)?;
    assert_eq!((&paused["state"], &paused["taken_back"]), (&"paused".into(), &1.into()));
    assert_eq!((ok(&paused), &paused["waves"][0]["pending"]), (vec![2], &1.into()));
    let shown = show(&fleet.barid(&["rollout", "show"])?.stdout);
    assert!(shown.contains("taken back from 1 that had not begun"), "{shown}");
    assert_eq!(scene.begun().len(), 2);

    let output = fleet.barid(&["rollout", "resume"])?;
    assert_eq!(output.status.code(), Some(0), "{}", show(&output.stderr));
    let done = rollout(&fleet)?;
    assert_eq!((&done["state"], ok(&done)), (&"done".into(), vec![3]), "{done:#}");
    assert_eq!(done["waves"][0]["orders"].as_array().map(Vec::len), Some(2));
    let log = fs::read_to_string(scene.dir.join("log"))?;
    assert_eq!(log.lines().count(), 3, "each has begun once: {log}");
    Ok(())
}

/// A push to everybody while a wave waits for somebody: he gets the newer tree alone, which is no
/// failure of the rollout.
#[test]
fn a_newer_push_takes_the_place_of_a_wave_and_nobody_has_missed_it() -> Result<()> {
    let mut fleet = Fleet::tree(1, 2)?;
    let scene = Scene::new(&fleet)?;
    fleet.kill("site1-host2")?;
    fleet.wait_up(2)?;
    let push = ["push", &scene.source, "--dest", DEST, "-a", "--async", "--json"];
    let waves = ["--waves", "100%", "--gate", "errors<=0 missed<=100% soak=1h"];
    order(&fleet, &[&push[..], &waves].concat())?;
    let wave = |rollout: &Value| {
        let wave = &rollout["waves"][0];
        let counts = ["ok", "missed", "pending", "superseded"];
        counts.map(|count| wave[count].as_u64().unwrap_or_default())
    };
    let wait = |counts: [u64; 4]| {
        wait_for(&format!("the wave to stand at {counts:?}"), LIMIT, || {
            Ok((wave(&rollout(&fleet)?) == counts).then_some(()))
        })
    };
    wait([1, 1, 0, 0])?;
    scene.set_version("2\n")?;
    let newer = order(&fleet, &push)?;
    wait([1, 0, 0, 1])?;
    wait_for("the wave to soak without who gets the newer push", LIMIT, || {
        let shown = show(&fleet.barid(&["rollout", "show"])?.stdout);
        Ok((shown.contains("NEWER") && shown.contains("soaks")).then_some(()))
    })?;
    fleet.restart("site1-host2")?;
    fleet.wait_states(&newer, &[("ok", 2)])?;
    assert_eq!(wave(&rollout(&fleet)?), [1, 0, 0, 1], "it has said that it skips it");
    for host in ["site1-host1", "site1-host2"] {
        assert_eq!(fs::read_to_string(fleet.at(host, DEST).join("version"))?, "2\n", "{host}");
    }
    Ok(())
}

#[test]
fn a_site_that_breaks_is_left_out_and_the_others_go_on() -> Result<()> {
    let fleet = Fleet::tree(2, 3)?;
    let scene = Scene::new(&fleet)?;
    for host in 1..=3 {
        scene.spoil(&format!("site2-host{host}"), true)?;
    }
    let waves = ["--waves", "2,4,100%", "--gate", "ok>=100% site-errors<=0"];
    let output = scene.push(&fleet, &waves)?;
    let told = show(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{told}");
    assert!(told.contains("left out: site2"), "{told}");
    let done = rollout(&fleet)?;
    assert_eq!((&done["state"], &done["left_out"][0]), (&"done".into(), &"site2".into()));
    let site1 = scene.begun().iter().filter(|host| host.starts_with("site1")).count();
    assert_eq!((site1, scene.begun().len()), (3, 4), "one of the bad site has tried it");
    for host in 1..=3 {
        scene.spoil(&format!("site2-host{host}"), false)?;
    }
    let output = fleet.barid(&["rollout", "resume"])?;
    assert_eq!(output.status.code(), Some(0), "{}", show(&output.stderr));
    assert_eq!(scene.begun().len(), 6);
    assert_eq!(fs::read_to_string(fleet.at("site2-host3", DEST).join("version"))?, "1\n");
    Ok(())
}

#[test]
fn a_wave_wholly_at_a_site_that_breaks_stops_and_accepting_leaves_that_site_alone() -> Result<()> {
    let fleet = Fleet::tree(2, 3)?;
    let scene = Scene::new(&fleet)?;
    for host in 1..=3 {
        scene.spoil(&format!("site2-host{host}"), true)?;
    }
    let waves = ["--waves", "site1-host1,site2-host[1-3],100%", "--gate", "site-errors<=0"];
    let output = scene.push(&fleet, &waves)?;
    let told = show(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{told}");
    assert!(told.contains("every host of this wave is at a site that was left out"), "{told}");
    let stopped = rollout(&fleet)?;
    assert_eq!((&stopped["state"], &stopped["wave"]), (&"stopped".into(), &2.into()));
    assert!(!scene.begun().iter().any(|host| host == "site1-host2" || host == "site1-host3"));

    // They would be well by now, but whoever takes it as it is wants nothing of them.
    for host in 1..=3 {
        scene.spoil(&format!("site2-host{host}"), false)?;
    }
    fs::remove_file(scene.dir.join("log"))?;
    let output = fleet.barid(&["rollout", "resume", "--accept"])?;
    let told = show(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "some have not got it: {told}");
    assert!(told.contains("left out: site2"), "{told}");
    let done = rollout(&fleet)?;
    assert_eq!((&done["state"], &done["left_out"][0]), (&"done".into(), &"site2".into()));
    assert_eq!(scene.begun(), ["site1-host2", "site1-host3"].map(String::from).into());
    Ok(())
}

#[test]
fn many_hosts_get_it_in_waves_unless_somebody_says_otherwise() -> Result<()> {
    let mut fleet = Fleet::prepared(binary()?, PACE, &["--waves-above", "2"], |_| Ok(()))?;
    fleet.grow(1, 3)?;
    let scene = Scene::new(&fleet)?;
    let output = scene.push(&fleet, &[])?;
    let told = show(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.contains("3 hosts in 2 waves") && told.contains("--all-at-once"), "{told}");
    assert_eq!(ok(&rollout(&fleet)?), [1, 2]);
    let before = fleet.json(&["rollout", "--json"])?;
    assert_eq!(scene.push(&fleet, &["--all-at-once"])?.status.code(), Some(0));
    assert_eq!(fleet.json(&["rollout", "--json"])?, before, "that was no rollout");
    Ok(())
}

#[test]
fn what_is_no_rollout_is_refused_with_the_reason() -> Result<()> {
    let fleet = Fleet::tree(1, 4)?;
    let scene = Scene::new(&fleet)?;
    for (args, says) in [
        (&["--waves", "50%,10%,100%"][..], "10% does not go beyond 50%"),
        (&["--waves", "1,50%"], "2 of 4 hosts are in none of them"),
        (&["--waves", "x%"], "cannot be part of a name"),
        (&["--waves", "1,5%,1%,100%"], "1% does not go beyond 5%"),
        (&["--waves", "110%"], "neither a number"),
        (&["--waves", "@nobody,100%"], "unknown group nobody"),
        (&["--waves", "site1-relay,100%"], "holds none of the targets"),
        (&["--waves", "1,100%", "--gate", "ok>=2"], "wave 1 can never pass: it has 1"),
        (&["--waves", "1,100%", "--gate", "ok=2"], "\"ok=2\" is no condition"),
        (&["--waves", "1,100%", "--gate", "soak=1y"], "soak=\"1y\" is no time"),
        (&["--waves", "1,100%", "--verify"], "--verify"),
        (&["--waves", "1,100%", "--all-at-once"], "--all-at-once"),
    ] {
        let output = scene.push(&fleet, args)?;
        let told = show(&output.stderr);
        assert!(!output.status.success() && told.contains(says), "{args:?}: {told}");
    }
    assert_eq!(fleet.json(&["rollout", "--json"])?, serde_json::json!([]));
    assert!(scene.begun().is_empty());
    for verb in ["show", "pause", "resume", "abort"] {
        let output = fleet.barid(&["rollout", verb, "last"])?;
        assert!(show(&output.stderr).contains("no rollout last"), "{output:?}");
    }
    Ok(())
}
