//! What operators write wrongly about the fleet: it is refused with the file, the line and the
//! reason, and nothing has changed. And what becomes of a site that is cut off.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::{LIMIT, show};

use crate::dist;
use crate::domains::{CONFIG, Site};

/// All that is recorded, as text, and the filters.
fn all(site: &Site) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for what in ["hosts", "files", "config"] {
        all.push(site.done(&format!("-o export {what}"))?);
    }
    for list in ["delete", "day"] {
        let output = site.fleet.barid(&["report", "filter", "show", list])?;
        ensure!(output.status.success(), show(&output.stderr));
        all.push(show(&output.stdout));
    }
    Ok(all)
}

#[test]
fn what_is_written_wrongly_is_refused_with_its_line_and_changes_nothing() -> Result<()> {
    let site = dist::site()?;
    site.write("motd", "hello\n")?;
    site.done("-o install ./motd common.adm:/etc/motd day")?;
    let before = all(&site)?;
    let config = |from: &str, to: &str, says: &[&str]| -> Result<()> {
        ensure!(CONFIG.contains(from), "{from}");
        site.write("mine", &CONFIG.replacen(from, to, 1))?;
        let output = site.fdist("-o import config mine")?;
        let told = show(&output.stderr);
        ensure!(output.status.code() == Some(1), "{told}");
        for says in says {
            ensure!(told.contains(says), "{told:?} lacks {says:?}");
        }
        ensure!(told.contains("mine") && told.contains("line "), "{told}");
        Ok(())
    };
    // Domains and levels: unknown, malformed, below something that is not there.
    config("\"lab1.prt\"", "\"lab1.nosuch\"", &["line 2", "lab1.nosuch", "nosuch is missing"])?;
    config("\"lab1.prt\"", "\"lab1..prt\"", &["line 2", "lab1..prt"])?;
    config("\"lab1.prt\"", "\"lab/1.prt\"", &["line 2", "lab/1.prt"])?;
    config("[\"sunos\", \"riscos\"]", "[\"sun os\"]", &["line 12", "sun os"])?;
    config("[[level]]\nname = \"group\"", "[[level]]\nnmae = \"group\"", &["line 8", "nmae"])?;
    // Frequencies.
    config("cron = \"0 3 * * *\"", "cron = \"0 25 * * *\"", &["line 28", "frequency day", "25"])?;
    config("cron = \"0 3 * * *\"", "cron = \"0 3 * *\"", &["line 28", "frequency day"])?;
    let never = "cron = \"0 3 * * *\"\nwaves = \"1,100%\"\ngate = \"ok>=2\"";
    config("cron = \"0 3 * * *\"", never, &["line 28", "can never pass"])?;
    let other = "cron = \"0 3 * * *\"\ngate = \"soak=1y\"\nwaves = \"1,100%\"";
    config("cron = \"0 3 * * *\"", other, &["line 28", "soak=\"1y\" is no time"])?;
    let zone = "cron = \"0 3 * * *\"\nzone = \"Mars/Base\"";
    config("cron = \"0 3 * * *\"", zone, &["line 28", "Mars/Base"])?;

    // Host records and files.
    let hosts = fs::read_to_string(site.fleet.path().join("hosts"))?;
    site.write("mine", &hosts.replace("r1 adm osgrp riscos", "r1 adm nowhere riscos"))?;
    site.refused("-o import hosts mine -f", 1, "mine: line 3: h3: ")?;
    site.write("mine", &hosts.replace("130.62.5.2 UNKNOWN", "130.62.5 UNKNOWN"))?;
    site.refused("-o import hosts mine -f", 1, "mine: line 2: ")?;
    let files = site.done("-o export files")?;
    let line = files.lines().count();
    let entry = files.lines().last().context("an entry")?;
    for (wrong, says) in [
        (entry.replace("common.adm:", "nowhere.adm:"), "nowhere"),
        (entry.replace("common.adm:", "common.adm"), "5 fields instead of 6"),
        (entry.replace(":day:", ":never:"), "never"),
    ] {
        ensure!(wrong != entry, "{entry}");
        site.write("mine", &files.replace(entry, &wrong))?;
        site.refused("-o import files mine -f", 1, &format!("mine: line {line}: "))?;
        site.refused("-o import files mine -f", 1, says)?;
    }
    // Two entries of which a host could get either.
    site.done("-o install ./motd common.cc.adm:/etc/two day")?;
    site.refused("-o install ./motd sunos.common.adm:/etc/two day", 1, "h1 would get /etc/two")?;
    site.done("-o rm common.cc.adm:/etc/two")?;
    site.refused("-o install ./motd nowhere.adm:/etc/x day", 1, "nowhere")?;
    let unknown = site.fleet.barid(&["run", "-w", "@domain:nowhere.adm", "--", "true"])?;
    ensure!(!unknown.status.success() && show(&unknown.stderr).contains("nowhere"), "{unknown:?}");

    // Groups that mean themselves.
    let groups = site.fleet.state("controller").join("groups.toml");
    fs::write(&groups, "a = \"@b\"\nb = \"@a\"\n")?;
    let cyclic = site.fleet.barid(&["run", "-w", "@a", "--", "true"])?;
    ensure!(show(&cyclic.stderr).contains("refers to itself"), "{cyclic:?}");
    // Expressions.
    site.write("mine", "device busy\nbroken (\n")?;
    let mine = site.fleet.path().join("mine");
    let mine = mine.to_str().context("a plain path")?;
    let output = site.fleet.barid(&["report", "filter", "set", "day", mine])?;
    let told = show(&output.stderr);
    ensure!(output.status.code() == Some(1) || output.status.code() == Some(2), "{told}");
    ensure!(told.contains("line 2") && told.contains("broken ("), "{told}");

    assert_eq!(all(&site)?, before, "something has changed");
    let orders = site.fleet.json(&["runs", "--json"])?;
    assert_eq!(orders, json!([]), "something was given");
    Ok(())
}

#[test]
fn waves_are_domains_and_what_a_site_that_is_cut_off_has_missed_is_said() -> Result<()> {
    let mut site = dist::site()?;
    site.write("motd", "hello\n")?;
    let motd = site.fleet.path().join("motd");
    let motd = motd.to_str().context("a plain path")?;
    let tiers = "@domain:osgrp.adm,@domain:cc.adm,100%";
    let push = ["push", motd, "--dest", "/etc/motd", "-w", "h[1-4]", "--waves"];
    let output = site.fleet.barid(&[&push[..], &[tiers]].concat())?;
    assert!(output.status.success(), "{}", show(&output.stderr));
    let done = site.fleet.json(&["rollout", "show", "last", "--json"])?;
    let waves: Vec<_> = done["waves"].as_array().context("waves")?.iter().collect();
    let hosts: Vec<_> = waves.iter().map(|wave| &wave["hosts"]).collect();
    assert_eq!((hosts, &done["state"]), (vec![&json!(2), &json!(2)], &json!("done")), "{done:#}");
    let of = |wave: &Value| -> Result<String> {
        let order = wave["orders"][0].as_str().context("an order")?.to_owned();
        let output = site.fleet.barid(&["nodes", "expand", &format!("@run:{order}/ok")])?;
        Ok(show(&output.stdout).replace('\n', " "))
    };
    assert_eq!((of(waves[0])?, of(waves[1])?), ("h3 h4 ".into(), "h1 h2 ".into()), "{done:#}");
    let nowhere = site.fleet.barid(&[&push[..], &["@domain:nowhere.adm,100%"]].concat())?;
    ensure!(!nowhere.status.success() && show(&nowhere.stderr).contains("nowhere"), "{nowhere:?}");

    site.done("-o install ./hosts common.adm:/etc/hosts hour")?;
    site.fleet.kill("r2")?;
    site.fleet.wait_up(4)?;
    site.done("-o dist hour")?;
    let line = site.fleet.first_event("dist.missed", 4 * LIMIT)?;
    let told = line["line"].as_str().context("a line")?;
    assert!(told.contains("common.adm:/etc/hosts") && line["set"] == "h4", "{line}");
    assert_eq!(site.no("-o status")?, "common.adm:/etc/hosts: h4\n");
    site.fleet.restart("r2")?;
    site.wait_status("-o status", "")?;
    Ok(())
}
