//! Who notices that the controller is gone, or that a relay does not distribute any more: the
//! examples of the specification, with limits of seconds instead of 75 minutes.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{Fleet, LIMIT, Spec, show, wait_for};

/// Everything soon, where beats come every 0.5 s.
const SOON: &str = "
clear_s = 1
gather_s = 1
returning_s = 30
rules.controller-silent.hold_s = 1
rules.relay-lost.hold_s = 1
rules.parent-lost.hold_s = 1
";

/// Lets a node tell by a file, before it starts.
fn give(fleet: &Fleet, node: &str) -> Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let (state, told) = (fleet.state(node), fleet.path().join(format!("{node}.alerts")));
    fs::create_dir_all(&state)?;
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700))?;
    let channel = format!("channels.log.file = {{ path = \"{}\" }}\n", told.display());
    fs::write(state.join("alerts.toml"), format!("{SOON}{channel}"))?;
    Ok(told)
}

/// What was told by a file, each alert as `+key` or `-key`.
fn told(path: &Path) -> Result<Vec<String>> {
    let mut words = Vec::new();
    for line in fs::read_to_string(path).unwrap_or_default().lines() {
        let message: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        for alert in message["alerts"].as_array().context("alerts")? {
            let sign = if alert["status"] == "firing" { '+' } else { '-' };
            words.push(format!("{sign}{}", alert["key"].as_str().context("a key")?));
        }
    }
    Ok(words)
}

fn wait_told(path: &Path, word: &str) -> Result<()> {
    wait_for(&format!("{word} in {}", path.display()), LIMIT, || {
        Ok(told(path)?.iter().any(|other| other == word).then_some(()))
    })
}

/// A controller with two relays, a host behind each, and what all but the hosts have told.
fn site() -> Result<(Fleet, [PathBuf; 3])> {
    let mut fleet = Fleet::new()?;
    let files = ["controller", "r1", "r2"].map(|node| give(&fleet, node));
    for relay in ["r1", "r2"] {
        fleet.add(&Spec::new("relay", relay, "controller").at(&format!("site-{relay}")))?;
        fleet.add(&Spec::new("host", &format!("{relay}-host"), relay))?;
    }
    fleet.wait_up(4)?;
    let [root, r1, r2] = files;
    Ok((fleet, [root?, r1?, r2?]))
}

#[test]
fn x21_every_relay_tells_that_the_controller_is_gone_and_that_it_is_back() -> Result<()> {
    let (mut fleet, [_, r1, r2]) = site()?;
    fleet.kill("controller")?;
    wait_told(&r1, "+controller-silent/site-r1")?;
    wait_told(&r2, "+controller-silent/site-r2")?;
    fleet.restart("controller")?;
    wait_told(&r1, "-controller-silent/site-r1")?;
    wait_told(&r2, "-controller-silent/site-r2")?;
    Ok(())
}

#[test]
fn x22_a_relay_that_hangs_is_told_of_and_one_that_was_removed_tells_it_itself() -> Result<()> {
    use rustix::process::Signal;
    let (fleet, [root, _, r2]) = site()?;
    // The process is alive, and does nothing.
    fleet.signal("r2", Signal::STOP)?;
    let told = wait_told(&root, "+relay-lost/r2");
    fleet.signal("r2", Signal::CONT)?;
    told?;
    wait_told(&root, "-relay-lost/r2")?;
    // It runs, and nobody knows it any more.
    let removed = fleet.barid(&["hosts", "remove", "r2"])?;
    ensure!(removed.status.success(), show(&removed.stderr));
    wait_told(&r2, "+controller-silent/site-r2")?;
    Ok(())
}

/// The first half of the example; the second is in `restored`.
#[test]
fn x26_a_relay_whose_controller_is_gone_has_its_clients_put_files_right() -> Result<()> {
    let mut site = crate::dist::site()?;
    let fdist = site.fleet.path().join("fdist");
    let marks = site.fleet.path().join("marks");
    fs::create_dir(&marks)?;
    // A small file that came whole, and is a copy; one that came as a difference; a daily one.
    site.done("-o install ./hosts common.adm:/etc/hosts hour")?;
    site.write("motd", "hello\n")?;
    site.done("-o install ./motd common.adm:/etc/motd day")?;
    let command = format!("echo \"$FILE\" >> {}/$BARID_NODE", marks.display());
    ensure!(site.command(&["-o", "shell", "common.adm:/etc/hosts", &command]).status()?.success());
    site.done("-o dist --wait all")?;
    site.write("hosts2", "127.0.0.1 localhost\n")?;
    site.done("-o cp ./hosts2 common.adm:/etc/hosts")?;
    site.done("-o dist --wait hour")?;
    site.fleet.kill("controller")?;

    let state = site.fleet.state("r1");
    let ldist = |words: &[&str]| {
        let mut command = std::process::Command::new(&fdist);
        command.args(["-o", "ldist"]).args(words).arg("--state").arg(&state);
        command.output().context("fdist")
    };
    fs::remove_file(site.fleet.at("h1", "/etc/hosts"))?;
    fs::write(site.fleet.at("h2", "/etc/hosts"), "changed by hand\n")?;
    fs::remove_file(site.fleet.at("h1", "/etc/motd"))?;
    fs::remove_file(site.fleet.at("h4", "/etc/hosts"))?;
    let before = fs::read_to_string(marks.join("h1"))?;
    let told = wait_for("its clients to hear it", LIMIT, || {
        let told = ldist(&["hour", "--within", "20s"])?;
        Ok(told.status.success().then_some(told))
    })?;
    assert_eq!(site.at("h1", "/etc/hosts").as_deref(), Some("127.0.0.1 localhost\n"));
    assert_eq!(site.at("h2", "/etc/hosts").as_deref(), Some("127.0.0.1 localhost\n"));
    assert_eq!(site.at("h1", "/etc/motd"), None, "it is not of this frequency");
    assert_eq!(site.at("h4", "/etc/hosts"), None, "it is another's client");
    assert_eq!(fs::read_to_string(marks.join("h1"))?, before + "/etc/hosts\n", "{told:?}");
    // Only those who are named, and nobody who is not its client.
    fs::remove_file(site.fleet.at("h2", "/etc/motd"))?;
    let told = ldist(&["all", "h1"])?;
    assert_eq!(show(&told.stdout), "h1: /etc/motd is right again\n", "{}", show(&told.stderr));
    assert_eq!(site.at("h2", "/etc/motd"), None);
    let other = ldist(&["all", "h4"])?;
    assert_eq!(other.status.code(), Some(1));
    assert!(show(&other.stderr).contains("h4: not linked to this relay"), "{other:?}");
    let told = ldist(&["-r", "all"])?;
    assert_eq!((told.status.code(), told.stdout.len()), (Some(0), 0));
    wait_for("it to be right", LIMIT, || Ok(site.at("h2", "/etc/motd").map(drop)))?;
    // What is right is left alone, and what somebody else has put there since stays.
    let again = ldist(&["all"])?;
    assert_eq!((again.status.code(), show(&again.stdout).as_str()), (Some(0), ""));
    Ok(())
}

#[test]
fn x23_check_says_what_is_stale_and_tells_it_by_itself() -> Result<()> {
    let (mut fleet, [_, r1, _]) = site()?;
    let fdist = fleet.path().join("fdist");
    std::os::unix::fs::symlink(tests::binary()?, &fdist)?;
    let state = fleet.state("r1");
    let check = |words: &[&str]| {
        let mut command = std::process::Command::new(&fdist);
        command.args(["-o", "check"]).args(words).arg("--state").arg(&state);
        command.output().context("fdist")
    };
    let fresh = check(&["-v"])?;
    assert_eq!(fresh.status.code(), Some(0), "{}", show(&fresh.stderr));
    let text = show(&fresh.stdout);
    assert!(text.starts_with("controller: heard ") && text.contains(" ago\n"), "{text}");
    assert!(text.ends_with("clients: 1 of 1 reached\n"), "{text}");
    let quiet = check(&["-cmq"])?;
    assert_eq!((quiet.status.code(), quiet.stdout.len()), (Some(0), 0));
    assert!(!told(&r1)?.iter().any(|word| word.contains("check")));

    fleet.kill("controller")?;
    let stale = |words: &[&str]| {
        wait_for("check to find it stale", LIMIT, || {
            let output = check(&[words, &["--limit", "2s"]].concat())?;
            Ok((output.status.code() == Some(1)).then_some(output))
        })
    };
    let output = stale(&["-cmq"])?;
    assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
    wait_told(&r1, "+check/r1")?;
    let text = show(&stale(&["-c"])?.stdout);
    assert!(text.starts_with("controller: heard ") && text.contains(", more than 2.0 s"), "{text}");
    // Those below it are asked for unless -c says not to.
    fleet.kill("r1-host")?;
    let text = show(&wait_for("its host to be gone", LIMIT, || {
        let output = check(&["--limit", "1h"])?;
        Ok((output.status.code() == Some(1)).then_some(output.stdout))
    })?);
    assert_eq!(text, "clients: 0 of 1 reached\n");
    assert_eq!(check(&["-c", "--limit", "1h"])?.status.code(), Some(0));

    // The end is told once, and a node that does not answer is stale, too.
    fleet.restart("r1-host")?;
    fleet.restart("controller")?;
    wait_for("check to find it fresh", LIMIT, || {
        Ok((check(&["-m"])?.status.code() == Some(0)).then_some(()))
    })?;
    check(&["-m"])?;
    let count = |word: &str| -> Result<usize> {
        Ok(told(&r1)?.iter().filter(|other| *other == word).count())
    };
    assert_eq!(count("-check/r1")?, 1);
    fleet.kill("r1")?;
    let dead = check(&["-m"])?;
    assert_eq!(dead.status.code(), Some(1));
    assert!(show(&dead.stdout).starts_with("the node does not answer at "), "{dead:?}");
    assert!(count("+check/r1")? >= 2);
    Ok(())
}
