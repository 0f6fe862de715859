//! A controller whose machine is lost, and another one that is made of its backup.

use std::fs;
use std::io::{Read, Write};
use std::net::UdpSocket;
use std::os::unix::net::UnixStream;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{Fleet, LIMIT, Spec, show, wait_for};

use crate::order;

/// Nodes that look for a better parent every second: so they find the old controller at once.
const EAGER: &str = "return_base_ms = 1000\nreturn_cap_ms = 2000\n";

/// Two relays that know where a second controller would be, and hosts behind them.
fn site() -> Result<(Fleet, String)> {
    let mut fleet = Fleet::new()?;
    let standby = UdpSocket::bind("127.0.0.1:0")?.local_addr()?.to_string();
    fleet.route("standby", standby.clone());
    for relay in ["r1", "r2"] {
        let spec = Spec::new("relay", relay, "controller").at("lyon").with(EAGER);
        fleet.add(&Spec { parents: vec!["controller".into(), "standby".into()], ..spec })?;
    }
    for (host, relay) in [("h1", "r1"), ("h2", "r1"), ("h3", "r2"), ("gone", "r2")] {
        fleet.add(&Spec::new("host", host, relay).at("lyon"))?;
    }
    fleet.wait_up(6)?;
    Ok((fleet, standby))
}

fn done(fleet: &Fleet, args: &[&str]) -> Result<String> {
    let output = fleet.barid(args)?;
    let said = || format!("{args:?}: {}\n{}", show(&output.stdout), show(&output.stderr));
    ensure!(output.status.success(), said());
    Ok(show(&output.stdout))
}

/// What is made of the newest backup for the controller of this name.
fn restore(fleet: &Fleet, name: &str) -> Result<std::process::Output> {
    let (dir, state) = (fleet.path().join("backups"), fleet.state(name));
    let mut command = Command::new(tests::binary()?);
    command.args(["--json", "controller", "restore"]).arg(dir).arg("--state").arg(state);
    Ok(command.output()?)
}

fn restored(fleet: &Fleet, name: &str) -> Result<Value> {
    let output = restore(fleet, name)?;
    ensure!(output.status.success(), show(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn backup(fleet: &Fleet) -> Result<Value> {
    let dir = fleet.path().join("backups");
    fleet.json(&["controller", "backup", dir.to_str().context("plain")?, "--json"])
}

/// All alerts and silences of a controller, as its API says them.
fn alerts_of(fleet: &Fleet, name: &str) -> Result<String> {
    let mut stream = UnixStream::connect(fleet.state(name).join("barid.sock"))?;
    stream.write_all(b"GET /v1/alerts HTTP/1.0\r\n\r\n")?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said)
}

/// The whole of the example: a new controller goes on with the nodes, keeps what hosts have
/// answered after the backup, brings back nothing that was removed, has nothing carried out twice
/// that was ordered before; and the old one, when it is back, does no harm and knows it.
#[test]
fn x26_a_controller_is_restored_and_the_old_one_is_refused() -> Result<()> {
    let (mut fleet, standby) = site()?;
    fs::write(fleet.path().join("motd"), "hello\n")?;
    let motd = fleet.path().join("motd");
    let (motd, count) = (motd.to_str().context("plain")?, fleet.path().join("count"));
    done(&fleet, &["domain", "create", "lyon"])?;
    for host in ["h1", "h2", "h3"] {
        done(&fleet, &["host", "set", host, "lyon"])?;
    }
    done(&fleet, &["file", "install", motd, "lyon:/etc/motd", "day"])?;
    done(&fleet, &["file", "dist", "day", "--wait"])?;
    let line = format!("echo $BARID_NODE >> {}", count.display());
    done(&fleet, &["run", "-w", "h1", "--", &line])?;
    let token = fleet.token(&["--role", "host"])?;
    let made = backup(&fleet)?;
    assert_eq!((made["nodes"].as_u64(), made["lacking"].as_u64()), (Some(6), Some(0)), "{made}");
    assert!(made["new_objects"].as_u64() > Some(0), "{made}");
    let again = backup(&fleet)?;
    assert_eq!(again["new_objects"], 0, "what is there is not copied again: {again}");

    // What happens after the backup.
    let late = order(&fleet, &["run", "-w", "h[1-3]", "--json", "--async", "--", "echo late"])?;
    fleet.wait_states(&late, &[("ok", 3)])?;
    fleet.kill("h2")?;
    let mark = fleet.path().join("mark");
    let line = format!("touch {}", mark.display());
    let held = &["run", "-w", "h2", "--defer", "-t", "2s", "--json", "--async", "--", &line];
    let held = order(&fleet, held)?;
    wait_for("it to wait for h2", LIMIT, || {
        let states = fleet.order(&held)?["order"]["states"].clone();
        Ok((states["not-reached"] == 1).then_some(()))
    })?;
    done(&fleet, &["hosts", "remove", "gone"])?;
    fleet.add(&Spec::new("host", "new", "r1"))?;
    let number = wait_for("new to be up", LIMIT, || {
        let hosts = fleet.json(&["hosts", "--json"])?;
        let hosts = hosts.as_array().context("a list")?;
        let new = hosts.iter().find(|host| host["name"] == "new" && host["up"] == true);
        Ok(new.and_then(|host| host["id"].as_u64()))
    })?;
    fleet.kill("controller")?;

    let told = restored(&fleet, "standby")?;
    assert_eq!((&told["tokens"], &told["missing"]), (&1.into(), &0.into()), "{told}");
    let taken = restore(&fleet, "standby")?;
    assert_eq!(taken.status.code(), Some(1));
    assert!(show(&taken.stderr).contains("there is something here already"), "{taken:?}");
    fleet.take_over("standby", &standby)?;
    wait_for("the nodes to be below it", LIMIT, || {
        let hosts = fleet.json(&["hosts", "--json"])?;
        let up = hosts.as_array().context("a list")?.iter().filter(|host| host["up"] == true);
        Ok((up.count() == 4).then_some(()))
    })?;
    // The answers of the run that the backup does not know are here, with their output.
    let detail = wait_for("what the backup does not know", LIMIT, || {
        let output = fleet.barid(&["runs", "show", &late, "--json"])?;
        let detail: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        Ok((detail["order"]["states"]["ok"] == 3).then_some(detail))
    })?;
    assert_eq!(detail["order"]["kind"], "lost", "{detail}");
    assert!(detail.to_string().contains("late"), "{detail}");
    let shown = fleet.json(&["controller", "show", "--json"])?;
    assert_eq!(shown["unknown_nodes"], Value::from(vec![number]), "{shown}");
    assert!(shown["lost"].as_array().context("a list")?.contains(&late.clone().into()), "{shown}");
    // Who was removed after the backup is out again.
    wait_for("the new controller to know who was removed", LIMIT, || {
        let hosts = fleet.json(&["hosts", "--json"])?;
        let names = hosts.as_array().context("a list")?.iter().map(|host| host["name"].clone());
        Ok((!names.collect::<Vec<_>>().contains(&"gone".into())).then_some(()))
    })?;

    // What waited for h2 is not begun any more, and it says why.
    fleet.restart("h2")?;
    let detail = wait_for("h2 to refuse it", LIMIT, || {
        let detail = fleet.order(&held)?;
        Ok((detail["order"]["states"]["refused"] == 1).then_some(detail))
    })?;
    assert!(detail.to_string().contains("before the controller was restored"), "{detail}");
    assert!(!mark.exists());
    done(&fleet, &["run", "-w", "h[1-3]", "-t", "60s", "--", "true"])?;
    fs::write(motd, "new\n")?;
    done(&fleet, &["file", "cp", motd, "lyon:/etc/motd"])?;
    done(&fleet, &["file", "dist", "day", "--wait"])?;
    for host in ["h1", "h2", "h3"] {
        assert_eq!(fs::read_to_string(fleet.at(host, "/etc/motd"))?, "new\n", "{host}");
    }
    assert_eq!(fs::read_to_string(&count)?, "h1\n", "nothing was done twice");
    // The token that was not used by then may have been used since.
    let mut words = vec!["--name".into(), "thief".into(), "--join".into(), token];
    fleet.start_node(&Spec::new("host", "thief", "r1"), &mut words)?;
    wait_for("it to be refused", LIMIT, || {
        Ok(fleet.log("thief").contains("the token is unknown").then_some(()))
    })?;

    fleet.restart("controller")?;
    for _ in 0..2 {
        fleet.ask("controller");
        wait_for("the old controller to hear of it", LIMIT, || {
            let shown = fleet.barid(&["controller", "show"])?;
            Ok((shown.status.code() == Some(1)).then_some(()))
        })?;
        let refused = fleet.barid(&["run", "-w", "h1", "--", "true"])?;
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        let said = show(&refused.stderr);
        assert!(said.contains("another controller was restored from a backup at "), "{said}");
        assert_eq!(fleet.barid(&["hosts"])?.status.code(), Some(0), "it can be read");
        // Nor does it tell anybody that all its nodes are gone.
        wait_for("it to be silent", LIMIT, || {
            let silences = alerts_of(&fleet, "controller")?.matches("in the place of").count();
            ensure!(silences < 2, "it is silent once: {silences}");
            Ok((silences == 1).then_some(()))
        })?;
        fleet.ask("standby");
        // It knows it after a restart, too.
        fleet.kill("controller")?;
        fleet.restart("controller")?;
    }
    wait_for("the new controller to be told", LIMIT, || {
        let events = done(&fleet, &["events", "controller.superseded"])?;
        Ok(events.contains("a controller that is over answers at 127.0.0.1").then_some(()))
    })?;
    done(&fleet, &["run", "-w", "h[1-3]", "-t", "60s", "--", "true"])?;
    Ok(())
}

/// What is wrong with a backup is said before anything is made of it, and content that it lacks is
/// counted.
#[test]
fn a_backup_that_is_damaged_is_refused_and_old_ones_are_dropped() -> Result<()> {
    let mut fleet = Fleet::new()?;
    let none = restore(&fleet, "other")?;
    assert_eq!(none.status.code(), Some(1));
    assert!(show(&none.stderr).contains("backups: cannot be read"), "{none:?}");
    let nowhere = fleet.barid(&["controller", "backup", "/proc/none"])?;
    assert_eq!(nowhere.status.code(), Some(2));
    let said = show(&nowhere.stderr);
    assert!(said.contains("/proc/none: making the folder failed"), "{said}");
    fs::write(fleet.path().join("motd"), tests::noise(1, 200_000))?;
    let motd = fleet.path().join("motd");
    let motd = motd.to_str().context("plain")?;
    done(&fleet, &["domain", "create", "lyon"])?;
    done(&fleet, &["file", "install", motd, "lyon:/etc/motd", "day"])?;
    let dir = fleet.path().join("backups");
    let backup = |keep: &str| {
        let dir = dir.to_str().context("plain")?;
        fleet.json(&["controller", "backup", dir, "--keep", keep, "--json"])
    };
    backup("2")?;
    backup("2")?;
    fs::write(fleet.path().join("motd"), tests::noise(2, 200_000))?;
    done(&fleet, &["file", "remove", "lyon:/etc/motd"])?;
    done(&fleet, &["file", "install", motd, "lyon:/etc/motd", "day"])?;
    let last = backup("1")?;
    assert_eq!(last["dropped"], 2, "{last}");
    let path = std::path::PathBuf::from(last["path"].as_str().context("a path")?);
    let name = path.file_name().and_then(|name| name.to_str()).context("a name")?.to_owned();
    let names = fs::read_dir(&dir)?.flatten().map(|entry| entry.file_name()).filter(|name| {
        name.to_str().is_some_and(|name| name.starts_with(|first: char| first.is_ascii_digit()))
    });
    assert_eq!(names.collect::<Vec<_>>(), [name.as_str()]);
    let needed = fs::read_to_string(path.join("content"))?;
    let mut objects = Vec::new();
    for folder in fs::read_dir(dir.join("objects"))? {
        objects.extend(fs::read_dir(folder?.path())?.flatten().map(|entry| entry.path()));
    }
    assert_eq!(objects.len(), needed.lines().count(), "what only the others needed is gone");

    // Another mesh's backups do not go into the same folder.
    let mut other = Fleet::new()?;
    let mixed = other.barid(&["controller", "backup", dir.to_str().context("plain")?])?;
    assert_eq!(mixed.status.code(), Some(1));
    assert!(show(&mixed.stderr).contains("another mesh, is there"), "{mixed:?}");
    other.kill("controller")?;

    let database = path.join("controller.redb");
    let whole = fs::read(&database)?;
    let mut bent = whole.clone();
    let middle = bent.len() / 2;
    bent[middle] ^= 1;
    fs::write(&database, bent)?;
    let damaged = restore(&fleet, "other")?;
    assert_eq!(damaged.status.code(), Some(1));
    assert!(show(&damaged.stderr).contains("controller.redb: it is damaged"), "{damaged:?}");
    assert!(!fleet.state("other").exists(), "nothing was made");
    fs::write(&database, whole)?;

    // A piece of content that is damaged costs that piece.
    let lost = objects.iter().max_by_key(|path| fs::metadata(path).map_or(0, |meta| meta.len()));
    fs::write(lost.context("there is one")?, "bent")?;
    let part = restore(&fleet, "other")?;
    assert_eq!(part.status.code(), Some(1));
    let told: Value = serde_json::from_slice(&part.stdout)?;
    assert_eq!(told["missing"], 1, "{told}");
    fleet.kill("controller")?;
    fleet.take_over("other", "127.0.0.1:0")?;
    let files = done(&fleet, &["domain", "files", "lyon"])?;
    assert!(files.contains("lyon:/etc/motd"), "{files}");
    let checked = done(&fleet, &["controller", "show"])?;
    assert!(checked.contains("restored "), "{checked}");
    Ok(())
}
