//! Files under control on their way to hosts: the examples of the specification that need some.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result};
use tests::{Fleet, LIMIT, Spec, wait_for};

use crate::domains::Site;

/// The relays and hosts of the examples.
pub(crate) fn site() -> Result<Site> {
    site_of(Fleet::new()?)
}

/// The same below a controller that is there, alone.
pub(crate) fn site_of(mut fleet: Fleet) -> Result<Site> {
    for relay in ["r1", "r2"] {
        fleet.add(&Spec::new("relay", relay, "controller"))?;
    }
    for (host, relay) in [("h1", "r1"), ("h2", "r1"), ("h3", "r1"), ("h4", "r2")] {
        fleet.add(&Spec::new("host", host, relay))?;
    }
    fleet.wait_up(6)?;
    Site::new(fleet)
}

impl Site {
    pub(crate) fn at(&self, host: &str, dest: &str) -> Option<String> {
        fs::read_to_string(self.fleet.at(host, dest)).ok()
    }

    pub(crate) fn wait_status(&self, line: &str, expected: &str) -> Result<()> {
        wait_for(&format!("{line} to say {expected:?}"), LIMIT, || {
            let output = self.fdist(line)?;
            Ok((tests::show(&output.stdout) == expected).then_some(()))
        })
    }
}

#[test]
fn x14_what_is_due_goes_to_whoever_lacks_it() -> Result<()> {
    let site = site()?;
    site.write("equiv", "+\n")?;
    site.write("motd", "hello\n")?;
    site.done("-o install ./hosts common.adm:/etc/hosts hour")?;
    site.done("-o install ./equiv cc.adm:/etc/hosts.equiv hour")?;
    site.done("-o install ./motd common.adm:/etc/motd day")?;
    site.done("-o dist --wait hour")?;
    let hosts = fs::read_to_string(site.fleet.path().join("hosts"))?;
    for host in ["h1", "h2", "h3", "h4"] {
        assert_eq!(site.at(host, "/etc/hosts").as_deref(), Some(hosts.as_str()), "{host}");
        assert_eq!(site.at(host, "/etc/motd"), None, "{host}: it is not due");
        let equiv = site.at(host, "/etc/hosts.equiv");
        assert_eq!(equiv.is_some(), ["h1", "h2"].contains(&host), "{host}");
    }
    site.prints("-o status common.adm:/etc/hosts cc.adm:/etc/hosts.equiv", "")?;
    assert_eq!(site.no("-o status")?, "common.adm:/etc/motd: h1 h2 h3 h4\n");
    // Two groups of hosts: those with one file and those with two.
    let runs = site.fleet.json(&["runs", "--json"])?;
    let kinds: Vec<_> = runs.as_array().context("orders")?.iter().map(|o| &o["kind"]).collect();
    assert_eq!(kinds, ["dist", "dist"]);

    site.done("-o dist --wait all h4")?;
    for host in ["h1", "h2", "h3", "h4"] {
        assert_eq!(site.at(host, "/etc/motd").is_some(), host == "h4", "{host}");
    }
    assert_eq!(site.no("-o status")?, "common.adm:/etc/motd: h1 h2 h3\n");
    // Whoever names a host wants it right, whatever it is known to have.
    fs::write(site.fleet.at("h4", "/etc/hosts"), "changed by hand\n")?;
    site.done("-o dist --wait all h4")?;
    assert_eq!(site.at("h4", "/etc/hosts").as_deref(), Some(hosts.as_str()));
    site.done("-o dist --wait day")?;
    site.prints("-o status", "")?;
    let nothing = site.fdist("-o dist all")?;
    assert!(tests::show(&nothing.stderr).contains("nobody lacks anything"));
    site.refused("-o dist nosuch", 1, "unknown frequency nosuch")?;
    site.refused("-o dist all h9", 1, "unknown host h9")?;
    Ok(())
}

#[test]
fn x11_attributes_reach_the_hosts() -> Result<()> {
    let site = site()?;
    site.write("motd", "hello\n")?;
    site.done("-o install ./motd cc.adm:/etc/motd day")?;
    site.done("-o dist --wait day")?;
    site.done("-o chmod 600 cc.adm:/etc/motd")?;
    assert_eq!(site.no("-o status")?, "cc.adm:/etc/motd: h1 h2\n");
    site.done("-o dist --wait day")?;
    for host in ["h1", "h2"] {
        let mode = fs::metadata(site.fleet.at(host, "/etc/motd"))?.permissions().mode();
        assert_eq!(mode & 0o7777, 0o600, "{host}");
    }
    site.prints("-o status", "")?;
    Ok(())
}

#[test]
fn x15_a_host_that_is_down_delays_nobody_and_gets_it_later() -> Result<()> {
    let mut site = site()?;
    site.done("-o install ./hosts common.adm:/etc/hosts hour")?;
    site.fleet.kill("h2")?;
    site.fleet.wait_up(5)?;
    site.done("-o dist hour")?;
    site.wait_status("-o status common.adm:/etc/hosts", "common.adm:/etc/hosts: h2\n")?;
    for host in ["h1", "h3", "h4"] {
        assert!(site.at(host, "/etc/hosts").is_some(), "{host}");
    }
    // While the first has not ended a second waits for it, and a third is not needed.
    let [second, third] = ["", ""].map(|_| site.fdist("-o dist hour"));
    assert!(tests::show(&second?.stderr).contains("begins when it has ended"));
    assert!(tests::show(&third?.stderr).contains("is dropped"));
    site.fleet.restart("h2")?;
    site.fleet.wait_up(6)?;
    site.wait_status("-o status", "")?;
    assert!(site.at("h2", "/etc/hosts").is_some());
    Ok(())
}

#[test]
fn x16_a_command_runs_once_for_each_update() -> Result<()> {
    let site = site()?;
    site.write("motd", "hello\n")?;
    let path = "cc.adm:/etc/motd";
    let marks = site.fleet.path().join("marks");
    fs::create_dir(&marks)?;
    site.done(&format!("-o install ./motd {path} day"))?;
    let command = format!("echo \"$FILE\" >> {}/$BARID_NODE", marks.display());
    assert!(site.command(&["-o", "shell", path, &command]).output()?.status.success());
    site.done("-o dist --wait day")?;
    let mark = |host: &str| fs::read_to_string(marks.join(host)).unwrap_or_default();
    assert_eq!((mark("h1").as_str(), mark("h2").as_str()), ("/etc/motd\n", "/etc/motd\n"));
    // Right already: no command.
    site.done("-o dist --wait day h1")?;
    site.done("-o dist --wait --compare day")?;
    assert_eq!(mark("h1"), "/etc/motd\n");
    site.write("motd", "other\n")?;
    site.done(&format!("-o cp ./motd {path}"))?;
    site.done("-o dist --wait day")?;
    assert_eq!((mark("h1").as_str(), mark("h3").as_str()), ("/etc/motd\n/etc/motd\n", ""));

    // A command that fails is told; the file is in place all the same.
    site.write("motd", "third\n")?;
    site.done(&format!("-o cp ./motd {path}"))?;
    assert!(site.command(&["-o", "shell", path, "echo no >&2; exit 3"]).output()?.status.success());
    let output = site.fdist("-o dist --wait -v day")?;
    assert_eq!(output.status.code(), Some(1));
    let text = tests::show(&output.stderr);
    assert!(text.contains("exit code 3: no"), "{text}");
    assert_eq!(site.at("h1", "/etc/motd").as_deref(), Some("third\n"));
    site.prints("-o status", "")?;
    Ok(())
}

#[test]
fn what_somebody_has_changed_is_found_and_lacking_from_then_on() -> Result<()> {
    let site = site()?;
    site.write("motd", "hello\n")?;
    fs::create_dir(site.fleet.path().join("tree"))?;
    site.write("tree/a", "a\n")?;
    site.write("tree/b", "b\n")?;
    site.done("-o install -s false ./motd common.adm:/etc/motd day")?;
    site.done("-o install --delete-extra ./tree osgrp.adm:/opt/tree hour")?;
    site.done("-o shell common.adm:/etc/motd")?;
    site.done("-o dist --wait all")?;
    assert_eq!(site.fleet.barid(&["file", "verify", "all"])?.status.code(), Some(0));
    site.prints("-o status", "")?;

    for host in ["h1", "h2"] {
        fs::write(site.fleet.at(host, "/etc/motd"), "by hand\n")?;
    }
    let motd = site.fleet.at("h4", "/etc/motd");
    fs::set_permissions(&motd, fs::Permissions::from_mode(0o600))?;
    fs::remove_file(site.fleet.at("h3", "/opt/tree/a"))?;
    fs::write(site.fleet.at("h3", "/opt/tree/c"), "c\n")?;
    let found = site.fleet.barid(&["file", "verify", "all"])?;
    assert_eq!(found.status.code(), Some(10), "{}", tests::show(&found.stderr));
    let text = tests::show(&found.stdout);
    let block = "h[1-2] (2)\n---------------\n* /etc/motd: content\n";
    assert!(text.contains(block), "{text}");
    assert!(text.contains("+ /opt/tree/a\n- /opt/tree/c\n"), "{text}");
    assert!(text.contains("~ /etc/motd: "), "{text}");
    // Nothing was changed, and who lacks what is known, here and in the report.
    assert_eq!(site.at("h1", "/etc/motd").as_deref(), Some("by hand\n"));
    let lacking = "common.adm:/etc/motd: h1 h2 h4\nosgrp.adm:/opt/tree: h3\n";
    assert_eq!(site.no("-o status")?, lacking);
    let report = site.fleet.json(&["report", "errors", "--json"])?;
    let problems = report["problems"].as_array().context("problems")?;
    let of = |path: &str, line: &str| {
        problems
            .iter()
            .any(|it| it["subject"] == "dist.drifted" && it["path"] == path && it["line"] == line)
    };
    assert!(of("common.adm:/etc/motd", "other content"), "{report:#}");
    let tree = "time, a: missing, c: not in the source";
    assert!(of("osgrp.adm:/opt/tree", tree), "{report:#}");
    assert_eq!(site.fdist("-o verify day h1")?.status.code(), Some(1), "the answer is no");

    site.done("-o dist --wait all")?;
    site.prints("-o status", "")?;
    assert_eq!(site.at("h2", "/etc/motd").as_deref(), Some("hello\n"));
    assert!(!site.fleet.at("h3", "/opt/tree/c").exists());
    assert_eq!(site.fleet.barid(&["file", "verify", "all"])?.status.code(), Some(0));
    site.refused("-o verify nosuch", 1, "unknown frequency nosuch")?;
    site.refused("-o verify all h9", 1, "unknown host h9")?;
    Ok(())
}

#[test]
fn x25_a_later_revision_is_not_cleared_by_a_word_about_an_earlier_one() -> Result<()> {
    let mut site = site()?;
    let path = "h1.host:/etc/motd";
    site.write("motd", "one\n")?;
    site.done(&format!("-o install ./motd {path} day"))?;
    // The host is stopped, not dead: the order reaches it, its answer comes late.
    site.fleet.signal("h1", rustix::process::Signal::STOP)?;
    site.done("-o dist day")?;
    site.write("motd", "two\n")?;
    site.done(&format!("-o cp ./motd {path}"))?;
    site.fleet.signal("h1", rustix::process::Signal::CONT)?;
    wait_for("the first revision to arrive", LIMIT, || {
        Ok((site.at("h1", "/etc/motd").as_deref() == Some("one\n")).then_some(()))
    })?;
    let id = site.fleet.json(&["runs", "--json"])?[0]["id"].as_str().context("an id")?.to_owned();
    site.fleet.wait_states(&id, &[("ok", 1)])?;
    assert_eq!(site.no("-o status")?, format!("{path}: h1\n"));
    site.fleet.kill("controller")?;
    site.fleet.restart("controller")?;
    site.fleet.wait_up(6)?;
    assert_eq!(site.no("-o status")?, format!("{path}: h1\n"));
    site.done("-o dist --wait day")?;
    site.prints("-o status", "")?;
    assert_eq!(site.at("h1", "/etc/motd").as_deref(), Some("two\n"));
    Ok(())
}

#[test]
fn x28_a_folder_is_one_entry() -> Result<()> {
    let site = site()?;
    let folder = site.fleet.path().join("x");
    fs::create_dir_all(folder.join("sub"))?;
    for n in 0..1_000 {
        fs::write(folder.join(format!("sub/f{n}")), format!("{n}\n"))?;
    }
    fs::write(folder.join("core"), "left out")?;
    site.done("-o install --delete-extra --exclude core ./x cc.adm:/usr/local/x day")?;
    let mut shall = tests::listing(&folder)?;
    shall.remove(std::path::Path::new("core"));
    assert_eq!(site.no("-o status")?, "cc.adm:/usr/local/x: h1 h2\n");
    site.done("-o dist --wait day")?;
    site.prints("-o status", "")?;
    for host in ["h1", "h2"] {
        assert_eq!(tests::listing(&site.fleet.at(host, "/usr/local/x"))?, shall, "{host}");
    }
    fs::write(folder.join("sub/f7"), "changed\n")?;
    fs::remove_file(folder.join("sub/f8"))?;
    fs::write(folder.join("core"), "left out again")?;
    fs::write(site.fleet.at("h2", "/usr/local/x/core"), "left alone")?;
    site.done("-o cp ./x cc.adm:/usr/local/x")?;
    site.done("-o dist --wait day")?;
    assert_eq!(site.at("h2", "/usr/local/x/sub/f7").as_deref(), Some("changed\n"));
    assert_eq!(site.at("h2", "/usr/local/x/core").as_deref(), Some("left alone"));
    assert_eq!(
        (site.at("h1", "/usr/local/x/core"), site.at("h1", "/usr/local/x/sub/f8")),
        (None, None)
    );
    site.refused("-o edit -e true cc.adm:/usr/local/x", 1, "is a folder")?;
    Ok(())
}

#[test]
fn one_file_that_cannot_be_placed_keeps_no_other_from_it() -> Result<()> {
    let site = site()?;
    for name in ["a", "b", "c"] {
        site.write(name, name)?;
        site.done(&format!("-o install ./{name} h3.host:/srv/{name} day"))?;
    }
    // A folder that is not empty stands where a file is to be.
    fs::create_dir_all(site.fleet.at("h3", "/srv/b/full"))?;
    let output = site.fdist("-o dist --wait -v day")?;
    assert_eq!(output.status.code(), Some(1), "{}", tests::show(&output.stderr));
    assert_eq!(site.no("-o status")?, "h3.host:/srv/b: h3\n");
    assert_eq!(site.at("h3", "/srv/a").as_deref(), Some("a"));
    assert_eq!(site.at("h3", "/srv/c").as_deref(), Some("c"));
    fs::remove_dir_all(site.fleet.at("h3", "/srv/b"))?;
    site.done("-o dist --wait day")?;
    site.prints("-o status", "")?;
    Ok(())
}

#[test]
fn content_that_is_damaged_keeps_no_other_file_from_being_distributed() -> Result<()> {
    let site = site()?;
    site.write("motd", "hello\n")?;
    site.done("-o install ./motd cc.adm:/etc/motd hour")?;
    crate::week::install_broken(&site.fleet, "cc.adm:/etc/broken")?;
    let output = site.fdist("-o dist --wait hour")?;
    let told = tests::show(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("cc.adm:/etc/broken: not delivered: "), "{told}");
    assert_eq!(site.at("h1", "/etc/motd").as_deref(), Some("hello\n"));
    assert_eq!(site.no("-o status")?, "cc.adm:/etc/broken: h1 h2\n");
    wait_for("the report to say so", LIMIT, || {
        let report = site.done("-o report hour")?;
        let is_told = report.contains("\ncc.adm:/etc/broken\n") && report.contains("dist.source");
        Ok(is_told.then_some(()))
    })?;
    // It is put in anew.
    site.done("-o cp ./motd cc.adm:/etc/broken")?;
    site.done("-o dist --wait hour")?;
    site.prints("-o status", "")?;
    Ok(())
}

#[test]
fn whoever_enrols_or_moves_lacks_what_is_new_there() -> Result<()> {
    let mut site = site()?;
    site.write("motd", "hello\n")?;
    site.done("-o install ./motd cc.adm:/etc/motd day")?;
    site.done("-o dist --wait day")?;
    // Recorded but not there.
    site.done("-o sethost h7 sun4.sunos.cc.adm")?;
    assert_eq!(site.no("-o status")?, "cc.adm:/etc/motd: h7\n");
    let told = site.fdist("-o dist --wait day")?;
    assert!(tests::show(&told.stderr).contains("not enrolled: h7"));
    site.fleet.add(&Spec {
        role: "host",
        name: "h7".into(),
        site: String::new(),
        parents: vec!["r2".into()],
        config: String::new(),
    })?;
    site.fleet.wait_up(7)?;
    site.done("-o dist --wait day")?;
    assert_eq!(site.at("h7", "/etc/motd").as_deref(), Some("hello\n"));
    site.prints("-o status", "")?;
    // h3 comes into the domain, h1 leaves it.
    site.done("-o sethost h3 sun4.sunos.cc.adm")?;
    site.done("-o sethost h1 ws.riscos.osgrp.adm")?;
    assert_eq!(site.no("-o status")?, "cc.adm:/etc/motd: h3\n");
    let run = site.fleet.barid(&["run", "-w", "@domain:cc.adm!h7", "-q", "true"])?;
    assert!(run.status.success(), "{}", tests::show(&run.stderr));
    let order = &site.fleet.json(&["runs", "--json"])?[0];
    assert_eq!(order["targets"], "h[2-3]");
    Ok(())
}

#[test]
fn a_distribution_goes_in_waves_and_the_schedule_waits_for_it() -> Result<()> {
    let site = site()?;
    site.write("motd", "one\n")?;
    // The command fails at the second host that gets it.
    let seen = site.fleet.path().join("seen");
    let command = format!("echo x >> {0}; [ $(wc -l < {0}) != 2 ]", seen.display());
    let motd = site.fleet.path().join("motd");
    let motd = motd.to_str().context("a plain path")?;
    let install = ["file", "install", "-s", &command, motd, "common.adm:/etc/motd", "day"];
    let installed = site.fleet.barid(&install)?;
    assert!(installed.status.success(), "{}", tests::show(&installed.stderr));
    let waves = ["--waves", "h1,50%,100%", "--gate", "errors<=0"];
    let stopped =
        site.fleet.barid(&[&["file", "dist", "--wait"], &waves[..], &["day"]].concat())?;
    let told = tests::show(&stopped.stderr);
    assert_eq!(stopped.status.code(), Some(4), "{told}");
    assert!(told.contains("stopped at wave 2 of 3: 1 of 1 hosts have failed"), "{told}");
    let has = |text: &str| {
        let hosts = ["h1", "h2", "h3", "h4"];
        hosts.iter().filter(|host| site.at(host, "/etc/motd").as_deref() == Some(text)).count()
    };
    // The file counts as in place where its command has failed.
    assert_eq!(has("one\n"), 2);
    let refused = site.fdist("-o dist day")?;
    let told = tests::show(&refused.stderr);
    assert!(refused.status.code() == Some(1) && told.contains("of day is unfinished"), "{told}");
    let schedule = site.fleet.json(&["file", "schedule", "--json"])?.to_string();
    assert!(schedule.contains("\"rollout\":"), "{schedule}");
    let resumed = site.fleet.barid(&["rollout", "resume"])?;
    assert_eq!(resumed.status.code(), Some(0), "{}", tests::show(&resumed.stderr));
    assert_eq!(has("one\n"), 4);
    site.prints("-o status", "")?;

    // What was edited meanwhile is not what the first wave has shown.
    site.write("two", "two\n")?;
    site.write("three", "three\n")?;
    site.done("-o cp ./two common.adm:/etc/motd")?;
    fs::remove_file(&seen)?;
    let gate = "errors<=0 check=false";
    let given = site
        .fleet
        .barid(&["file", "dist", "--wait", "--waves", "1,100%", "--gate", gate, "day"])?;
    assert_eq!(given.status.code(), Some(4), "{}", tests::show(&given.stderr));
    site.done("-o cp ./three common.adm:/etc/motd")?;
    let accepted = site.fleet.barid(&["rollout", "resume", "--accept"])?;
    let told = tests::show(&accepted.stderr);
    assert!(told.contains("common.adm:/etc/motd was changed since the rollout began"), "{told}");
    assert_eq!((has("two\n"), has("three\n")), (1, 0));
    assert_eq!(site.fleet.barid(&["rollout", "abort"])?.status.code(), Some(0));

    // A frequency may have waves of its own.
    let config = site.fleet.path().join("waves.toml");
    let exported = site.fleet.barid(&["domain", "export"])?;
    let exported = tests::show(&exported.stdout);
    let with = |waves: &str| {
        let day = format!("[frequency.day]\nwaves = \"{waves}\"\n");
        fs::write(&config, exported.replace("[frequency.day]\n", &day))
    };
    let import = ["domain", "import", config.to_str().context("a plain path")?];
    with("1,50%")?;
    let refused = site.fleet.barid(&import)?;
    assert!(tests::show(&refused.stderr).contains("the last one is 100%"), "{refused:?}");
    with("1,100%")?;
    let imported = site.fleet.barid(&import)?;
    assert!(imported.status.success(), "{}", tests::show(&imported.stderr));
    fs::write(&seen, "x\nx\nx\n")?;
    let output = site.fleet.barid(&["file", "dist", "--wait", "day"])?;
    let told = tests::show(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.contains("in waves: rollout") && told.contains("wave 2 of 2: 3 hosts"), "{told}");
    assert_eq!(has("three\n"), 4);
    Ok(())
}
