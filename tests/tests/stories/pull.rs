//! Collecting files from hosts: what is equal crosses once, what has come does not come again.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{Fleet, LIMIT, Spec, noise, show, wait_for};

use crate::full_disk::Disk;
use crate::order;

const PATH: &str = "/srv/data";
const MIB: usize = 1 << 20;

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::create_dir_all(path.parent().context("a parent")?)?;
    Ok(fs::write(path, bytes)?)
}

/// What one pull has told, and its exit code.
fn pull(fleet: &Fleet, args: &[&str]) -> Result<(Vec<Value>, Option<i32>)> {
    let output = fleet.barid(&[&["pull"], args, &["--json"]].concat())?;
    Ok((hosts(&output.stdout)?, output.status.code()))
}

/// What was told of each host.
fn hosts(stdout: &[u8]) -> Result<Vec<Value>> {
    let events: Vec<Value> =
        show(stdout).lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    Ok(events.into_iter().filter(|event| event["type"] == "host").collect())
}

fn received(hosts: &[Value]) -> u64 {
    hosts.iter().filter_map(|host| host["received"].as_u64()).sum()
}

fn to(fleet: &Fleet) -> (PathBuf, String) {
    let to = fleet.path().join("collected");
    let text = to.to_string_lossy().into_owned();
    (to, text)
}

#[test]
fn what_hosts_have_alike_comes_once_and_a_second_time_not_at_all() -> Result<()> {
    let fleet = Fleet::tree(2, 3)?;
    let common = noise(1, 3 * MIB);
    let names: Vec<String> =
        (1..=2).flat_map(|site| (1..=3).map(move |n| format!("site{site}-host{n}"))).collect();
    for name in &names {
        let data = fleet.at(name, PATH);
        write(&data.join("sub/common.bin"), &common)?;
        write(&data.join("name"), name.as_bytes())?;
        write(&data.join("left.tmp"), b"no")?;
        fs::set_permissions(data.join("name"), fs::Permissions::from_mode(0o6755))?;
        symlink("sub/common.bin", data.join("good"))?;
        symlink("/etc/passwd", data.join("bad"))?;
    }
    let (dir, to) = to(&fleet);
    let args = [PATH, "-a", "--to", &to, "--exclude", "*.tmp"];
    let (told, code) = pull(&fleet, &args)?;
    assert_eq!(code, Some(0), "{told:#?}");
    assert_eq!(told.len(), 6);
    assert!(received(&told) < 4 << 20, "{}", received(&told));
    for name in &names {
        let data = dir.join(name).join("srv/data");
        assert!(fs::read(data.join("sub/common.bin"))? == common, "{name}");
        assert_eq!(fs::read(data.join("name"))?, name.as_bytes());
        assert!(!data.join("left.tmp").exists());
        // Nothing that a host sends can do harm here.
        assert_eq!(fs::metadata(data.join("name"))?.mode() & 0o7777, 0o755);
        assert_eq!(fs::read_link(data.join("good"))?, Path::new("sub/common.bin"));
        assert!(fs::symlink_metadata(data.join("bad")).is_err());
    }
    assert!(told.iter().all(|host| host["left_out"] == 1 && host["named"][0] == "bad"));
    let (again, code) = pull(&fleet, &args)?;
    assert_eq!(code, Some(0), "{again:#?}");
    assert!(again.iter().all(|host| host["written"] == 0), "{again:#?}");
    assert!(received(&again) < 100_000, "{}", received(&again));

    // A single file, and one that grew.
    let log = fleet.at("site1-host1", "/var/log/app.log");
    write(&log, &noise(2, 2 * MIB))?;
    let args = ["/var/log/app.log", "-w", "site1-host1", "--to", &to];
    assert_eq!(pull(&fleet, &args)?.1, Some(0));
    fs::OpenOptions::new().append(true).open(&log)?.write_all(b"one more line\n")?;
    let (grown, code) = pull(&fleet, &args)?;
    assert_eq!(code, Some(0), "{grown:#?}");
    assert!(received(&grown) < MIB as u64, "{grown:#?}");
    assert!(fs::read(dir.join("site1-host1/var/log/app.log"))? == fs::read(&log)?);
    Ok(())
}

#[test]
fn who_is_away_or_has_nothing_is_named() -> Result<()> {
    let mut fleet = Fleet::tree(1, 3)?;
    write(&fleet.at("site1-host1", PATH).join("a"), b"a")?;
    write(&fleet.at("site1-host3", PATH).join("a"), b"a")?;
    fleet.kill("site1-host3")?;
    let (dir, to) = to(&fleet);
    let output = fleet.barid(&["pull", PATH, "-a", "--to", &to, "-t", "1s"])?;
    let (out, err) = (show(&output.stdout), show(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{out}{err}");
    assert!(err.contains("site1-host2: failed: ") && err.contains("cannot open"), "{err}");
    assert!(err.contains("site1-host3: not-reached: it cannot be reached"), "{err}");
    assert!(out.contains("1 of 3 hosts") && out.contains("not-reached (1): site1-host3"), "{out}");
    assert_eq!(fs::read(dir.join("site1-host1/srv/data/a"))?, b"a");
    let wrong = fleet.barid(&["pull", "srv/data", "-a", "--to", &to])?;
    assert_eq!(wrong.status.code(), Some(2), "{}", show(&wrong.stderr));
    Ok(())
}

/// Bytes in the files below a folder.
fn bytes_in(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => bytes_in(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

#[test]
fn a_relay_that_dies_in_the_middle_costs_nothing_that_has_come() -> Result<()> {
    let mut fleet = Fleet::tree(2, 3)?;
    let each = 48 * MIB;
    for n in 1..=3 {
        let data = fleet.at(&format!("site1-host{n}"), PATH);
        write(&data.join("big.bin"), &noise(10 + n, each))?;
        write(&fleet.at(&format!("site2-host{n}"), PATH).join("small"), b"small")?;
    }
    let (dir, to) = to(&fleet);
    let args = ["pull", PATH, "-a", "--to", &to, "-t", "2s", "--json"];
    let mut command = fleet.command(&args);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let store = fleet.state("controller").join("collect");
    wait_for("some of it to come", LIMIT, || {
        Ok((bytes_in(&store.join("objects")) > 8 << 20).then_some(()))
    })?;
    fleet.kill("site1-relay")?;
    let output = child.wait_with_output()?;
    let first = hosts(&output.stdout)?;
    assert_eq!(output.status.code(), Some(3), "{first:#?}");
    let state = |host: &Value| host["state"] == "not-reached";
    let missed: Vec<_> = first.iter().filter(|host| state(host)).collect();
    assert!(!missed.is_empty() && missed.len() <= 3, "{first:#?}");
    assert!(
        missed
            .iter()
            .all(|host| { host["host"].as_str().is_some_and(|name| name.starts_with("site1")) })
    );
    assert!(!dir.join("site1-host3/srv/data/big.bin").exists(), "nothing is there by half");

    fleet.restart("site1-relay")?;
    fleet.wait_up(8)?;
    // With the usual patience: a busy machine may keep a host silent for two seconds.
    let (second, code) = pull(&fleet, &args[1..5])?;
    assert_eq!(code, Some(0), "{second:#?}");
    for n in 1..=3 {
        let (name, big) = (format!("site1-host{n}"), noise(10 + n, each));
        assert!(fs::read(dir.join(&name).join("srv/data/big.bin"))? == big, "{name}");
    }
    let (total, came) = ((3 * each) as u64, received(&first) + received(&second));
    println!("{came} bytes came for {total}, {} before the break", received(&first));
    ensure!(came < total + (3 << 20), "{came} bytes came for {total}");
    assert!(bytes_in(&store.join("objects")) == 0, "what is in place is nowhere else");
    Ok(())
}

#[test]
fn hosts_do_not_fill_a_disk_together() -> Result<()> {
    let fleet = Fleet::tree(1, 3)?;
    let Some(disk) = Disk::mount(&fleet.path().join("collected"), 164) else { return Ok(()) };
    let (dir, to) = to(&fleet);
    for n in 1..=2 {
        write(&fleet.at(&format!("site1-host{n}"), PATH).join("big"), &noise(n, 60 * MIB))?;
    }
    write(&fleet.at("site1-host3", PATH).join("small"), b"small")?;
    let (told, code) = pull(&fleet, &[PATH, "-a", "--to", &to])?;
    assert_eq!(code, Some(1), "{told:#?}");
    let (went, not): (Vec<_>, Vec<_>) = told.iter().partition(|host| host["state"] == "ok");
    assert_eq!((went.len(), not.len()), (2, 1), "{told:#?}");
    let why = not[0]["message"].as_str().context("a reason")?;
    assert!(why.contains(&to) && why.contains("not enough room"), "{why}");
    let refused = not[0]["host"].as_str().context("a name")?;
    assert!(not[0]["received"].as_u64() < Some(MIB as u64), "no piece was asked for: {told:#?}");
    assert!(!dir.join(refused).join("srv/data").exists(), "nothing of it is there");
    assert_eq!(fs::read(dir.join("site1-host3/srv/data/small"))?, b"small");
    assert!(disk.free()? > 64 << 20);
    // Once there is room it comes.
    let other = if refused == "site1-host1" { "site1-host2" } else { "site1-host1" };
    fs::remove_dir_all(dir.join(other))?;
    let (told, code) = pull(&fleet, &[PATH, "-w", refused, "--to", &to])?;
    assert_eq!(code, Some(0), "{told:#?}");
    Ok(())
}

/// A thin link is full all the time, with a little of each: that is no reason to ask for anything
/// twice, nor to give anybody up.
#[test]
fn hosts_behind_one_thin_link_share_it_and_what_they_have_alike_comes_once() -> Result<()> {
    let mut fleet = Fleet::new()?;
    let cap = "[[cap]]\nrate = \"48k\"\n";
    fleet.add(&Spec::new("relay", "relay", "controller").at("site1").with(cap))?;
    // With its list each host takes 20 s at least, of an operator who is less patient than that.
    for (n, name) in (1..).zip(["a", "b"]) {
        fleet.add(&Spec::new("host", name, "relay").at("site1"))?;
        write(&fleet.at(name, PATH).join("common"), &noise(9, 60_000))?;
        write(&fleet.at(name, PATH).join("own"), &noise(n, 30_000))?;
    }
    fleet.wait_up(3)?;
    let (dir, to) = to(&fleet);
    let (told, code) = pull(&fleet, &[PATH, "-a", "--to", &to, "-t", "5s"])?;
    assert_eq!(code, Some(0), "{told:#?}");
    assert!(received(&told) < 150_000, "{told:#?}");
    for name in ["a", "b"] {
        let common = fs::read(dir.join(name).join("srv/data/common"))?;
        assert!(common == noise(9, 60_000), "{name}");
    }
    Ok(())
}

#[test]
fn slow_hosts_hold_up_nobody_for_long() -> Result<()> {
    let mut fleet = Fleet::new()?;
    fleet.add(&Spec::new("relay", "relay", "controller").at("site1"))?;
    for name in ["a", "b"] {
        let cap = "[[cap]]\nrate = \"8k\"\n";
        fleet.add(&Spec::new("host", name, "relay").at("site1").with(cap))?;
    }
    fleet.add(&Spec::new("host", "c", "relay").at("site1"))?;
    fleet.wait_up(4)?;
    // The list of what the two have is 10 KB long, and a second brings 1 KB of it.
    for n in 0..300u32 {
        for name in ["a", "b"] {
            let file = fleet.at(name, PATH).join(format!("{n}"));
            write(&file, &noise(n.into(), 40))?;
        }
    }
    write(&fleet.at("c", PATH).join("data"), b"data")?;
    let line = "head -c 3000000 /dev/zero | tr '\\0' x";
    let id = order(&fleet, &["run", "-w", "c", "--async", "--json", line])?;
    fleet.wait_states(&id, &[("ok", 1)])?;
    let (dir, to) = to(&fleet);
    let mut command = fleet.command(&["pull", PATH, "-a", "--to", &to, "-t", "5s", "--json"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let asked = |name: &str| fleet.log(name).contains("the controller looks at what is here");
    wait_for("both to be asked", LIMIT, || Ok((asked("a") && asked("b")).then_some(())))?;
    // The way through their relay is free for others.
    let out = fleet.barid(&["out", &id, "-w", "c"])?;
    assert!(out.status.success() && out.stdout.len() == 3_000_000, "{}", show(&out.stderr));
    let output = child.wait_with_output()?;
    let told = hosts(&output.stdout)?;
    let of = |name: &str| told.iter().find(|host| host["host"] == name).context("it was told of");
    assert_eq!(of("c")?["state"], "ok", "{told:#?}");
    assert_eq!(fs::read(dir.join("c/srv/data/data"))?, b"data");
    // As much as their links carry is enough.
    for name in ["a", "b"] {
        assert_eq!(of(name)?["state"], "ok", "{told:#?}");
        assert!(fs::read(dir.join(name).join("srv/data/299"))? == noise(299, 40), "{name}");
    }
    Ok(())
}
