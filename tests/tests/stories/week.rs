//! An operator's week: domains are made, four hundred files come under control and go to sixty
//! hosts behind three relays in waves; a relay, a client's disk and a source break, and the reports
//! say so, as text and by mail.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{Fleet, LIMIT, Spec, noise, show, wait_for};

use crate::full_disk::Disk;
use crate::reports::{at_oclock, where_it_is};
use crate::witness::mail_server;

const RELAYS: [&str; 3] = ["north", "south", "west"];
/// Hosts behind each: every one is a process of its own.
const HOSTS: usize = 20;
const FILES: usize = 400;
const GROUPS: [&str; 3] = ["web", "db", "mail"];

const CONFIG: &str = r#"
domains = ["adm"]
[[level]]
name = "view"
[[level]]
name = "group"
[[level]]
name = "os"
values = ["linux"]
[frequency.hour]
cron = "0 * * * *"
automatic = false
[frequency.day]
cron = "0 3 * * *"
automatic = false
"#;

/// A file under control, and where it comes from.
struct File {
    source: PathBuf,
    dest: String,
    /// The group that gets it; none: everybody.
    group: Option<&'static str>,
    frequency: &'static str,
}

impl File {
    fn path(&self) -> String {
        match self.group {
            Some(group) => format!("{group}.adm:{}", self.dest),
            None => format!("adm:{}", self.dest),
        }
    }
}

/// The names of all hosts, with the group of each.
fn hosts() -> impl Iterator<Item = (String, &'static str)> {
    let of = |relay: &'static str| {
        (1..=HOSTS).map(move |n| (format!("{relay}{n}"), GROUPS[n % GROUPS.len()]))
    };
    RELAYS.into_iter().flat_map(of)
}

/// A tree such as `/etc` is: folders, small texts, some executable and some private.
fn write_etc(dir: &Path) -> Result<Vec<File>> {
    let folders = ["", "cron.d", "init.d", "ssl/private", "apt/conf.d", "security"];
    let mut files = Vec::new();
    for n in 0..FILES {
        let name = Path::new(folders[n % folders.len()]).join(format!("conf{n}"));
        let source = dir.join(&name);
        fs::create_dir_all(source.parent().context("a folder")?)?;
        let line = format!("# {n}\nkey{n} = value {}\n", n * n);
        fs::write(&source, line.repeat(1 + n % 40))?;
        let mode = if n % 11 == 0 { 0o600 } else { 0o644 } | if n % 7 == 0 { 0o111 } else { 0 };
        fs::set_permissions(&source, fs::Permissions::from_mode(mode))?;
        files.push(File {
            source,
            dest: format!("/etc/{}", name.display()),
            group: GROUPS.get(n % 4).copied(),
            frequency: if n % 5 == 0 { "hour" } else { "day" },
        });
    }
    Ok(files)
}

/// Runs a command that must end well.
#[track_caller]
fn done(fleet: &Fleet, args: &[&str]) -> Result<String> {
    let output = fleet.barid(args)?;
    ensure!(output.status.success(), "{args:?}: {} {}", output.status, show(&output.stderr));
    Ok(show(&output.stdout))
}

fn install(fleet: &Fleet, source: &Path, path: &str, frequency: &str) -> Result<()> {
    let source = source.to_str().context("a plain path")?;
    done(fleet, &["file", "install", source, path, frequency]).map(drop)
}

fn text_file(fleet: &Fleet, name: &str, text: &str) -> Result<String> {
    let path = fleet.path().join(name);
    fs::write(&path, text)?;
    Ok(path.to_str().context("a plain path")?.to_owned())
}

/// A controller, the relays, and the hosts with their records.
fn site(channel: &str) -> Result<Fleet> {
    let mut fleet = at_oclock(12, 1)?;
    fs::write(fleet.state("controller").join("alerts.toml"), channel)?;
    let mut records = String::new();
    for relay in RELAYS {
        fleet.add(&Spec::new("relay", relay, "controller").at(relay))?;
        for n in 1..=HOSTS {
            let name = format!("{relay}{n}");
            fleet.add(&Spec::new("host", &name, relay).at(relay))?;
            let (net, group) = (relay.len(), GROUPS[n % GROUPS.len()]);
            records += &format!("10.{net}.0.{n} NONE {name} NONE {relay} adm {group} linux\n");
        }
    }
    done(&fleet, &["domain", "import", &text_file(&fleet, "config", CONFIG)?])?;
    for group in GROUPS {
        done(&fleet, &["domain", "create", &format!("{group}.adm")])?;
    }
    done(&fleet, &["host", "import", &text_file(&fleet, "records", &records)?])?;
    fleet.wait_up((RELAYS.len() * (HOSTS + 1)) as u64)?;
    Ok(fleet)
}

/// Every host has exactly its files, with their bytes and modes.
fn check_placed(fleet: &Fleet, files: &[File], frequencies: &[&str]) -> Result<()> {
    for (host, group) in hosts() {
        for file in files {
            let at = fleet.at(&host, &file.dest);
            let is_due = frequencies.contains(&file.frequency);
            let gets = is_due && file.group.is_none_or(|own| own == group);
            ensure!(fs::exists(&at)? == gets, "{host}: {}: {gets}", file.path());
            if gets {
                let same = fs::read(&at)? == fs::read(&file.source)?;
                let mode = |path: &Path| Ok::<_, anyhow::Error>(fs::metadata(path)?.permissions());
                ensure!(same && mode(&at)? == mode(&file.source)?, "{host}: {}", file.path());
            }
        }
    }
    Ok(())
}

/// The big objects in the controller's store.
fn objects(fleet: &Fleet) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for folder in fs::read_dir(fleet.state("controller").join("store/objects"))? {
        for file in fs::read_dir(folder?.path())? {
            found.insert(file?.path());
        }
    }
    Ok(found)
}

/// Puts a file under control, and then breaks what the controller keeps of it.
pub(crate) fn install_broken(fleet: &Fleet, path: &str) -> Result<()> {
    let before = objects(fleet)?;
    let source = fleet.path().join("broken");
    fs::write(&source, noise(1, 3 << 20))?;
    install(fleet, &source, path, "hour")?;
    let new = objects(fleet)?;
    let new: Vec<_> = new.difference(&before).collect();
    ensure!(!new.is_empty(), "nothing of it is an object of its own");
    for object in new {
        let length = usize::try_from(fs::metadata(object)?.len())?;
        fs::set_permissions(object, fs::Permissions::from_mode(0o600))?;
        fs::write(object, noise(2, length))?;
    }
    Ok(())
}

/// The problems of a report as `PATH|CLASS|SET`.
fn problems(report: &Value, part: &str) -> Result<Vec<String>> {
    let text = |problem: &Value, name: &str| problem[name].as_str().unwrap_or("").to_owned();
    let short = |problem: &Value| {
        let names = ["path", "class", "set"].map(|name| text(problem, name));
        names.join("|")
    };
    Ok(report[part].as_array().context("a list")?.iter().map(short).collect())
}

/// The files come under control, and go out in waves.
fn monday(fleet: &Fleet, files: &[File]) -> Result<()> {
    for file in files {
        install(fleet, &file.source, &file.path(), file.frequency)?;
    }
    let output = fleet.barid(&["file", "status", "--json"])?;
    ensure!(output.status.code() == Some(1), "{}", show(&output.stderr));
    let status: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(status.as_array().context("files")?.len(), FILES);
    let waves = ["--waves", "1,20%,100%", "--gate", "errors<=0"];
    done(fleet, &[&["file", "dist", "--wait"], &waves[..], &["hour"]].concat())?;
    check_placed(fleet, files, &["hour"])?;
    done(fleet, &[&["file", "dist", "--wait"], &waves[..], &["day"]].concat())?;
    check_placed(fleet, files, &["hour", "day"])?;
    assert_eq!(done(fleet, &["file", "status"])?, "");
    let report = fleet.json(&["report", "hour", "--json"])?;
    assert_eq!(report["reached"], RELAYS.len() * HOSTS, "{report:#}");
    let is_for = |file: &File, group: &str| file.group.is_none_or(|own| own == group);
    let of = |group: &str| files.iter().filter(|file| is_for(file, group)).count();
    let placed: usize = hosts().map(|(_, group)| of(group)).sum();
    assert_eq!(report["updated"], placed, "{report:#}");
    Ok(())
}

/// Much breaks at once, and a file that all have is edited: `everybody`. `data`: one of a host
/// with a full disk, if it can have one.
fn tuesday(fleet: &mut Fleet, everybody: &str, data: &str, disk: Option<&Disk>) -> Result<String> {
    install(fleet, Path::new(data), "north1.host:/opt/data", "hour")?;
    done(fleet, &["file", "dist", "--wait", "hour"])?;
    install_broken(fleet, "web.adm:/etc/broken")?;
    disk.map(|disk| disk.fill(0)).transpose()?;
    fs::write(data, noise(3, 64 << 10))?;
    done(fleet, &["file", "cp", data, "north1.host:/opt/data"])?;
    done(fleet, &["file", "edit", "-e", "sh -c 'echo edited >> $1' --", everybody])?;
    fleet.kill("west")?;
    fleet.wait_up((2 * (HOSTS + 1)) as u64)?;
    let told = show(&fleet.barid(&["file", "dist", "hour"])?.stderr);
    assert!(told.contains("web.adm:/etc/broken: not delivered: "), "{told}");
    let west = format!("west[1-{HOSTS}]");
    let mut wanted = vec![
        "web.adm:/etc/broken|controller|".to_owned(),
        format!("{everybody}|down|{west}"),
        "|relay|controller".to_owned(),
    ];
    wanted.extend(disk.map(|_| "north1.host:/opt/data|space|north1".to_owned()));
    let told = wait_for("the report to say what broke", 3 * LIMIT, || {
        let found = problems(&fleet.json(&["report", "hour", "--json"])?, "problems")?;
        let is_told = |line: &String| found.iter().any(|problem| problem.starts_with(line));
        Ok(wanted.iter().all(is_told).then_some(()))
    });
    let text = done(fleet, &["report", "hour"])?;
    told.with_context(|| format!("{wanted:?} in {text}"))?;
    // Who is not behind what broke has the edit.
    let (_, dest) = everybody.split_once(':').context("a domainpath")?;
    for (host, _) in hosts().filter(|(host, _)| !host.starts_with("west")) {
        assert!(fs::read_to_string(fleet.at(&host, dest))?.ends_with("edited\n"), "{host}");
    }
    Ok(text)
}

/// All is repaired, and the next distribution brings what was missing.
fn wednesday(fleet: &mut Fleet, data: &str, disk: Option<&Disk>) -> Result<()> {
    disk.map(Disk::clear).transpose()?;
    fleet.restart("west")?;
    let whole = text_file(fleet, "broken", "whole again\n")?;
    done(fleet, &["file", "cp", &whole, "web.adm:/etc/broken"])?;
    fleet.wait_up((RELAYS.len() * (HOSTS + 1)) as u64)?;
    wait_for("everybody to have everything", 2 * LIMIT, || {
        fleet.barid(&["file", "dist", "--wait", "all"])?;
        Ok(fleet.barid(&["file", "status"])?.status.success().then_some(()))
    })?;
    let has = |host: &str, dest: &str| fs::read(fleet.at(host, dest));
    assert_eq!(has("north3", "/etc/broken")?, b"whole again\n");
    assert!(has("north1", "/opt/data")? == fs::read(data)?);
    Ok(())
}

#[test]
fn an_operators_week() -> Result<()> {
    let (addr, mails) = mail_server()?;
    let channel = format!(
        "[channels.ops]\nreports = [\"hour\", \"day\"]\nalerts = false\n\
         mail = {{ server = \"127.0.0.1\", port = {}, tls = \"none\", \
         from = \"barid@example.com\", to = [\"ops@example.com\"] }}\n",
        addr.port()
    );
    let mut fleet = site(&channel)?;
    // A disk of its own for one of the databases, if this user may have one.
    let disk = Disk::mount(&fleet.at("north1", "/opt"), 1);
    let files = write_etc(&fleet.path().join("etc"))?;
    monday(&fleet, &files)?;

    let everybody = files.iter().find(|f| f.group.is_none() && f.frequency == "hour");
    let everybody = everybody.context("a file of all")?.path();
    let data = text_file(&fleet, "data", "small\n")?;
    let text = tuesday(&mut fleet, &everybody, &data, disk.as_ref())?;
    let heading = format!("\n{everybody}\n");
    assert!(text.contains(&heading) && text.contains("lost the link with relay west"), "{text}");

    // Midnight: the hour and the day are over, and mailed.
    fleet.kill("controller")?;
    fleet.put("controller", where_it_is(-5)?);
    fleet.restart("controller")?;
    for kind in ["hour", "day"] {
        let mail = wait_for(&format!("the {kind} by mail"), 2 * LIMIT, || {
            let of = format!("problems in the {kind}");
            Ok(mails.all().into_iter().find(|mail| mail.contains(&of)))
        })?;
        let mail = mail.replace("\r\n", "\n");
        for part in [&heading[..], "web.adm:/etc/broken", "west[1-", "reached by distributions"] {
            assert!(mail.contains(part), "{part} in {mail}");
        }
    }
    wednesday(&mut fleet, &data, disk.as_ref())
}
