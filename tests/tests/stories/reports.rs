//! Reports: the examples of the specification, by their numbers, and reports of a part of the
//! fleet.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{Fleet, LIMIT, PACE, Place, binary, show, wait_for};

use crate::domains::Site;
use crate::witness::mail_server_at;
use crate::{dist, order};

/// Runs a command that fails at these hosts, and waits until that is known.
fn fail(fleet: &Fleet, set: &str, script: &str, hosts: u64) -> Result<()> {
    let id = order(fleet, &["run", "-w", set, "--shell", "--async", "--json", script])?;
    fleet.wait_states(&id, &[("failed", hosts)])?;
    Ok(())
}

/// The problems of a report with commands that failed, and their hosts.
fn failed(fleet: &Fleet, report: &[&str]) -> Result<Vec<(String, String)>> {
    let report = fleet.json(&[&["report"], report, &["--json"]].concat())?;
    let problems = report["problems"].as_array().context("problems")?;
    let of_runs = problems.iter().filter(|problem| problem["subject"] == "run.failed");
    let mut found: Vec<_> = of_runs.map(said).collect();
    found.sort();
    Ok(found)
}

fn said(problem: &Value) -> (String, String) {
    let text = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
    (text("line"), text("set"))
}

fn set_filter(fleet: &Fleet, list: &str, text: &str) -> Result<()> {
    let file = fleet.path().join("filter");
    std::fs::write(&file, text)?;
    let file = file.to_str().context("a plain path")?;
    let output = fleet.barid(&["report", "filter", "set", list, file])?;
    ensure!(output.status.success(), "{}", show(&output.stderr));
    Ok(())
}

#[test]
fn x17_filters_route_and_what_is_new_is_urgent() -> Result<()> {
    let fleet = tree_at_noon(1, 1)?;
    set_filter(&fleet, "day", "device busy\n")?;
    set_filter(&fleet, "delete", "stale handle\n")?;
    for text in ["device busy", "stale handle", "stale handle, device busy", "brand-new"] {
        fail(&fleet, "site1-host1", &format!("echo {text} >&2; exit 1"), 1)?;
    }
    let lines = |kind: &str| -> Result<Vec<String>> {
        Ok(failed(&fleet, &[kind])?.into_iter().map(|(line, _)| line).collect())
    };
    assert_eq!(lines("hour")?, ["exit 1: brand-new"]);
    assert_eq!(lines("day")?, ["exit 1: brand-new", "exit 1: device busy"]);
    Ok(())
}

#[test]
fn x18_three_lines_are_one_event_and_one_line() -> Result<()> {
    let fleet = tree_at_noon(1, 1)?;
    fail(&fleet, "site1-host1", "printf 'one\n  two\n\tthree\n' >&2; exit 1", 1)?;
    let found = failed(&fleet, &["hour"])?;
    assert_eq!(found, [("exit 1: one two three".to_owned(), "site1-host1".to_owned())]);
    Ok(())
}

/// Fewer hosts than in the specification, since each is a process of its own here; three hundred
/// are in a test of the report itself.
#[test]
fn x19_equal_errors_of_many_are_one_line() -> Result<()> {
    let fleet = tree_at_noon(1, 25)?;
    fail(&fleet, "@site:site1!site1-relay", "echo no space left on device; exit 1", 25)?;
    let report = fleet.json(&["report", "hour", "--json"])?;
    let problems = report["problems"].as_array().context("problems")?;
    let of_runs: Vec<_> = problems.iter().filter(|p| p["subject"] == "run.failed").collect();
    let [problem] = of_runs.as_slice() else { anyhow::bail!("{report:#}") };
    assert_eq!((&problem["count"], &problem["hosts"]), (&25.into(), &25.into()));
    assert_eq!(problem["set"], "site1-host[1-25]");
    assert_eq!(problem["names"].as_array().context("names")?.len(), 20);
    assert_eq!(problem["class"], "space");
    let text = show(&fleet.barid(&["report", "hour"])?.stdout);
    assert_eq!(text.matches("no space left on device").count(), 1, "{text}");
    // The log of events has them all.
    let events = show(&fleet.barid(&["events", "--json", "run.failed"])?.stdout);
    assert!(events.contains("\"set\":\"site1-host[1-25]\""), "{events}");
    Ok(())
}

/// Where the clock on the wall shows this second of the day now, more or less.
pub(crate) fn where_it_is(second: i64) -> Result<Place> {
    let of_day = 86_400;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let ahead = (second - i64::try_from(now)?).rem_euclid(of_day);
    // West of Greenwich is positive there.
    let zone = format!("TZ=TEST-{}:{:02}:{:02}", ahead / 3_600, ahead / 60 % 60, ahead % 60);
    Ok(Place { before: vec!["env".into(), zone], listen: None })
}

/// A controller whose clock on the wall shows this time now.
pub(crate) fn at_oclock(hour: i64, minute: i64) -> Result<Fleet> {
    let place = where_it_is(hour * 3_600 + minute * 60)?;
    let places = BTreeMap::from([("controller".into(), place)]);
    Fleet::placed(binary()?, PACE, &std::env::temp_dir(), places)
}

/// A fleet whose controller's hour and day do not end while a story goes on.
fn tree_at_noon(sites: usize, hosts: usize) -> Result<Fleet> {
    let mut fleet = at_oclock(12, 1)?;
    fleet.grow(sites, hosts)?;
    Ok(fleet)
}

#[test]
fn x20_which_hour_is_meant() -> Result<()> {
    let title = |fleet: &Fleet, args: &[&str]| -> Result<String> {
        let report = fleet.json(&[&["report"], args, &["--json"]].concat())?;
        Ok(report["title"].as_str().context("a title")?.to_owned())
    };
    let early = Site::new(at_oclock(7, 15)?)?;
    let (today, yesterday) = (title(&early.fleet, &["day"])?, title(&early.fleet, &["day", "-1"])?);
    assert!(yesterday < today, "{yesterday} {today}");
    assert_eq!(title(&early.fleet, &["hour", "8"])?, format!("{yesterday} 08:00 to 09:00"));
    assert_eq!(title(&early.fleet, &["hour", "7"])?, format!("{today} 07:00 to 08:00"));
    let late = Site::new(at_oclock(10, 15)?)?;
    let today = title(&late.fleet, &["day"])?;
    assert_eq!(title(&late.fleet, &["hour", "8"])?, format!("{today} 08:00 to 09:00"));
    assert_eq!(title(&late.fleet, &["hour", "-2"])?, format!("{today} 08:00 to 09:00"));
    let text = late.done("-o report hour 8")?;
    assert!(text.starts_with(&format!("errors of the hour {today} 08:00 to 09:00\n")), "{text}");
    late.refused("-o report hour 24", 2, "24 is no hour")?;
    late.refused("-o report day 0", 2, "0 is no day")?;
    late.refused("-o report week", 2, "week")?;
    late.refused("-o report hour -49", 1, "no report")?;
    Ok(())
}

#[test]
fn x15_what_is_wrong_with_a_file_stands_under_its_domainpath() -> Result<()> {
    let mut site = dist::site_of(at_oclock(12, 1)?)?;
    site.done("-o install ./hosts common.adm:/etc/hosts hour")?;
    for (name, host) in [("a", "h3"), ("b", "h4")] {
        site.write(name, name)?;
        site.done(&format!("-o install ./{name} osgrp.adm:/srv/{name} hour"))?;
        // A folder that is not empty stands where a file is to be.
        std::fs::create_dir_all(site.fleet.at(host, &format!("/srv/{name}/full")))?;
    }
    site.fleet.kill("h2")?;
    site.fleet.wait_up(5)?;
    site.done("-o dist hour")?;
    let problems = wait_for("the host that is down to be in the report", 2 * LIMIT, || {
        let report = site.fleet.json(&["report", "hour", "--json"])?;
        let problems = report["problems"].as_array().context("problems")?.clone();
        let of_files = problems.into_iter().filter(|problem| problem["path"] != "");
        let of_files: Vec<Value> = of_files.collect();
        Ok((of_files.len() >= 3).then_some(of_files))
    })?;
    let short = |problem: &Value| {
        let text = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
        format!("{} {} {}", text("path"), text("set"), text("class"))
    };
    let found: Vec<_> = problems.iter().map(short).collect();
    let expected = [
        "common.adm:/etc/hosts h2 down",
        "osgrp.adm:/srv/a h3 client",
        "osgrp.adm:/srv/b h4 client",
    ];
    assert_eq!(found, expected, "{problems:#?}");
    let text = site.done("-o report hour")?;
    let (path, rest) = (
        text.find("\ncommon.adm:/etc/hosts\n").context("its heading")?,
        text.find("client down: not reached").context("its line")?,
    );
    assert!(path < rest, "{text}");
    Ok(())
}

#[test]
fn a_report_of_a_part_of_the_fleet_has_the_counts_of_its_hosts() -> Result<()> {
    let fleet = tree_at_noon(2, 2)?;
    fail(&fleet, "@site:site[1-2]!site[1-2]-relay", "echo everywhere; exit 1", 4)?;
    fail(&fleet, "site2-host1", "echo once; exit 1", 1)?;
    let row = |line: &str, set: &str| (format!("exit 1: {line}"), set.to_owned());
    let all = [row("everywhere", "site[1-2]-host[1-2]"), row("once", "site2-host1")];
    assert_eq!(failed(&fleet, &["hour"])?, all);
    let of_one = failed(&fleet, &["hour", "-w", "@site:site1"])?;
    assert_eq!(of_one, [row("everywhere", "site1-host[1-2]")]);
    let report = fleet.json(&["report", "errors", "--by", "site", "--json"])?;
    let parts = report["parts"].as_array().context("parts")?;
    let part = |name: &str| -> Result<Vec<(String, String)>> {
        let part = parts.iter().find(|part| part["name"] == name).context("the part")?;
        let problems = part["problems"].as_array().context("problems")?;
        let of_runs = problems.iter().filter(|problem| problem["subject"] == "run.failed");
        let mut found: Vec<_> = of_runs.map(said).collect();
        found.sort();
        Ok(found)
    };
    assert_eq!(part("site1")?, of_one);
    assert_eq!(part("site2")?, [row("everywhere", "site2-host[1-2]"), row("once", "site2-host1")]);
    let output = fleet.barid(&["report", "hour", "-w", "@site:nowhere"])?;
    ensure!(!output.status.success(), "{}", show(&output.stdout));
    assert!(show(&output.stderr).contains("nowhere"), "{}", show(&output.stderr));

    // By domain: the same hosts as the records have them.
    let config = fleet.path().join("config");
    std::fs::write(
        &config,
        "domains = [\"adm\", \"prt\"]\n[[level]]\nname = \"view\"\n\
         [frequency.day]\ncron = \"0 3 * * *\"\n",
    )?;
    let hosts = fleet.path().join("records");
    let record =
        |host: &str, views: &str| format!("10.0.0.{host} NONE site1-host{host} NONE r {views}\n");
    std::fs::write(&hosts, record("1", "adm,prt") + &record("2", "prt"))?;
    for (what, file) in [("domain", &config), ("host", &hosts)] {
        let output = fleet.barid(&[what, "import", file.to_str().context("a plain path")?])?;
        ensure!(output.status.success(), "{what}: {}", show(&output.stderr));
    }
    let text = show(&fleet.barid(&["report", "hour", "--by", "domain"])?.stdout);
    let parts: Vec<_> = text.lines().filter(|line| line.starts_with("== ")).collect();
    assert_eq!(parts, ["== - ==", "== adm ==", "== prt =="], "{text}");
    let of_adm = failed(&fleet, &["hour", "-w", "@domain:adm"])?;
    assert_eq!(of_adm, [row("everywhere", "site1-host1")]);
    Ok(())
}

/// A report by mail, as far as it matters here.
fn mailed(mail: &str) -> (String, String) {
    let line = |name: &str| mail.lines().find_map(|line| line.strip_prefix(name));
    let subject = line("Subject: ").unwrap_or_default().to_owned();
    (subject, line("Message-ID: ").unwrap_or_default().to_owned())
}

/// Midnight comes, with nobody to take mail, and the controller dies twice: the hour and the day
/// are told once each, when the server is back.
#[test]
fn what_is_over_is_mailed_once_and_waits_for_the_server() -> Result<()> {
    let mut fleet = tree_at_noon(1, 1)?;
    // A port at which nobody listens, for the time being.
    let addr = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let channel = format!(
        "[channels.ops]\nreports = [\"hour\", \"day\"]\nalerts = false\n\
         mail = {{ server = \"127.0.0.1\", port = {}, tls = \"none\", \
         from = \"barid@example.com\", to = [\"ops@example.com\"] }}\n",
        addr.port()
    );
    std::fs::write(fleet.state("controller").join("alerts.toml"), channel)?;
    let waiting = |fleet: &Fleet| -> Result<Option<u64>> {
        let channels = fleet.json(&["alerts", "channels", "--json"])?;
        Ok(channels[0]["waiting"].as_u64())
    };
    wait_for("the channel to be there", LIMIT, || waiting(&fleet))?;
    fail(&fleet, "site1-host1", "echo the shop is shut; exit 1", 1)?;

    fleet.kill("controller")?;
    fleet.put("controller", where_it_is(-5)?);
    fleet.restart("controller")?;
    wait_for("both reports to wait", LIMIT, || {
        Ok(waiting(&fleet)?.filter(|waiting| *waiting == 2))
    })?;
    fleet.kill("controller")?;
    fleet.restart("controller")?;
    wait_for("both reports to wait after the restart", LIMIT, || {
        Ok(waiting(&fleet)?.filter(|waiting| *waiting == 2))
    })?;

    let (_, mails) = mail_server_at(std::net::TcpListener::bind(addr)?)?;
    // A controller that dies before it knows that the server has a mail may send it again.
    wait_for("both mails to be gone", 2 * LIMIT, || {
        Ok(waiting(&fleet)?.filter(|waiting| *waiting == 0))
    })?;
    fleet.kill("controller")?;
    fleet.restart("controller")?;
    // What comes after them all is behind whatever else was to be sent.
    let test = fleet.barid(&["alerts", "test", "ops"])?;
    ensure!(test.status.success(), "{}", show(&test.stderr));
    let told = wait_for("the test", LIMIT, || {
        let told: Vec<_> = mails.all().iter().map(|mail| mailed(mail)).collect();
        let is_there = told.iter().any(|(subject, _)| subject.contains("this is a test"));
        Ok(is_there.then_some(told))
    })?;
    assert_eq!(told.len(), 3, "each once: {told:#?}");
    for (kind, part) in [("day", "problems in the day"), ("hour", "problems in the hour")] {
        let of_kind = |mail: &&String| {
            mailed(mail).0.contains(part) || {
                // One problem is one.
                mailed(mail).0.contains(&part.replace("problems", "problem"))
            }
        };
        let mails = mails.all();
        let mail = mails.iter().find(of_kind).with_context(|| format!("{kind} in {told:#?}"))?;
        assert!(mail.contains("exit 1: the shop is shut"), "{mail}");
        assert!(mail.contains("client command failed") && mail.contains("site1-host1"), "{mail}");
        assert!(!mail.contains("so far"), "{mail}");
    }
    let report = fleet.json(&["report", "hour", "-1", "--json"])?;
    let title = report["title"].as_str().context("a title")?;
    assert!(title.ends_with("23:00 to 00:00"), "{title}");
    assert!(told.iter().any(|(subject, _)| subject.contains(title)), "{title} in {told:#?}");
    Ok(())
}
