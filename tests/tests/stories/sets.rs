//! Naming hosts: every kind of set, by the same words on every verb, and nothing runs where a
//! word is wrong.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tests::{Fleet, show};

/// What a verb writes, if all is well.
fn out(fleet: &Fleet, args: &[&str]) -> Result<String> {
    let output = fleet.barid(args)?;
    ensure!(output.status.success(), "{args:?}: {}", show(&output.stderr));
    Ok(show(&output.stdout).trim_end().to_owned())
}

fn fold(fleet: &Fleet, args: &[&str]) -> Result<String> {
    out(fleet, &[&["nodes", "fold"], args].concat())
}

#[test]
fn sets_need_no_controller() -> Result<()> {
    let mut fleet = Fleet::new()?;
    fleet.kill("controller")?;
    assert_eq!(fold(&fleet, &["a1", "a2", "a3!a1", "b[08-10]"])?, "a[1-3],b[08-10]");
    assert_eq!(out(&fleet, &["nodes", "expand", "r[1-2]n[1-2]!r1n2"])?, "r1n1\nr2n1\nr2n2");
    assert_eq!(out(&fleet, &["nodes", "expand", "-S", ",", "a[2,1]"])?, "a1,a2");
    assert_eq!(out(&fleet, &["nodes", "count", "a[1-100000]&a[99-200000]"])?, "99902");
    let mut command = fleet.command(&["nodes", "fold", "-"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    child
        .stdin
        .take()
        .context("it is piped")?
        .write_all(b"web2\nweb1 # the first\n\nweb3!web2\n")?;
    assert_eq!(show(&child.wait_with_output()?.stdout), "web[1-3]\n");
    let output = fleet.barid(&["nodes", "fold", "a[1-999999999]x[1-999999999]"])?;
    assert_eq!(output.status.code(), Some(2));
    assert!(show(&output.stderr).contains("more than 1000000"), "{}", show(&output.stderr));
    let output = fleet.barid(&["nodes", "fold", "@lyon"])?;
    assert_eq!(output.status.code(), Some(6), "groups are the controller's");
    Ok(())
}

const GROUPS: &str = r#"
odd = "site[1-2]-host[1-3/2]"
[sources.racks]
map = ["sh", "-c", "case $1 in r1) echo 'site1-host[1-2]';; r2) echo @odd;; esac", "map", "$GROUP"]
list = ["printf", "r1\nr2\n"]
"#;

#[test]
fn hosts_are_meant_by_name_pattern_group_place_state_and_past() -> Result<()> {
    let mut fleet = Fleet::tree(2, 3)?;
    fs::write(fleet.state("controller").join("groups.toml"), GROUPS)?;
    fleet.kill("site2-host2")?;
    fleet.wait_up(7)?;
    let file = fleet.path().join("hosts.txt");
    fs::write(&file, "# of the second site\nsite2-host[1-3]!site2-host2\n")?;
    let file = file.to_str().context("a path")?;
    let pick = ["-a", "--pick", "1/site", "--seed", "7"];
    let cases: [(&[&str], &str); 13] = [
        (&["-w", "site1-host*!site1-host2"], "site1-host[1,3]"),
        (&["-w", "/host[12]$/&@site1"], "site1-host[1-2]"),
        (&["-g", "odd", "-X", "site1"], "site2-host[1,3]"),
        (&["-w", "@racks:r1,@racks:r2"], "site1-host[1-3],site2-host[1,3]"),
        (&["-w", "@racks:*&@relay:site2-relay"], "site2-host[1,3]"),
        (&["-w", "@down"], "site2-host2"),
        (&["-w", "@*!@role:host"], "site[1-2]-relay"),
        (&["-a", "-x", "@down", "--limit", "@site:site2"], "site2-host[1,3]"),
        (&["--hostfile", file], "site2-host[1,3]"),
        (&["-w", &format!("@site2!^{file}")], "site2-host2"),
        (&["-r", "-a", "-x", "site1-host2"], "@odd,site2-host2"),
        (&["-r", "-w", "@up", "-x", "site1-host3"], "site1-host[1-2],site2-host[1,3]"),
        (&["-r", "-s", "racks", "-w", "@up"], "@racks:r2,site1-host2"),
    ];
    for (args, expected) in cases {
        assert_eq!(fold(&fleet, args)?, expected, "{args:?}");
    }
    assert_eq!(fold(&fleet, &pick)?, fold(&fleet, &pick)?);
    let each = out(&fleet, &[&["nodes", "expand"], &pick[..]].concat())?;
    let sites: Vec<_> = each.lines().filter_map(|name| name.split('-').next()).collect();
    assert_eq!(sites, ["site1", "site2"]);

    let output =
        fleet.barid(&["run", "-a", "-t", "1s", "case $BARID_NODE in *1) exit 3;; esac"])?;
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(fold(&fleet, &["-w", "@run:last/failed"])?, "site[1-2]-host1");
    assert_eq!(fold(&fleet, &["-w", "@run:last/missed"])?, "site2-host2");
    let output = fleet.barid(&["-w", "@run:last/failed", "-b", "echo", "again"])?;
    assert!(show(&output.stdout).contains("site[1-2]-host1 (2)"), "{}", show(&output.stdout));

    // A group that is wrong hides neither the others nor itself.
    fs::write(fleet.state("controller").join("groups.toml"), format!("bad = \"x\"\n{GROUPS}"))?;
    let groups = out(&fleet, &["nodes", "groups"])?;
    assert!(groups.contains("unknown host x") && groups.contains("@odd"), "{groups}");
    let groups = out(&fleet, &["nodes", "groups", "-s", "*", "site1-host1"])?;
    for group in ["@odd", "@site1 ", "@site:site1", "@racks:r1", "@racks:r2", "@relay:site1-relay"]
    {
        assert!(groups.contains(group), "{group} in {groups}");
    }
    assert!(!groups.contains("@site2"), "{groups}");
    Ok(())
}

#[test]
fn a_wrong_word_is_named_and_nothing_runs() -> Result<()> {
    let fleet = Fleet::tree(1, 2)?;
    let cases: [(&[&str], &str); 9] = [
        (&["-w", "site1-host[1-3]"], "did you mean site1-host2?"),
        (&["-a", "-x", "site1-hots1"], "did you mean site1-host1?"),
        (&["-a", "-x", "web*"], "no name fits web*"),
        (&["-a", "-X", "sitee1"], "did you mean @site1?"),
        (&["-a", "--limit", "5%"], "--pick 5%"),
        (&["-w", "@run:ffff/failed"], "no order ffff"),
        (&["-w", "site1-host1!"], "column 12"),
        (&["-a", "--hostfile", "/no/such/file"], "/no/such/file"),
        (&["-C", "-a"], "--plan"),
    ];
    for (targets, says) in cases {
        for verb in [&["run"][..], &["push", "/etc/hostname"]] {
            let command: &[&str] = if verb[0] == "run" { &["--", "true"] } else { &[] };
            let output = fleet.barid(&[verb, targets, command].concat())?;
            assert_eq!(output.status.code(), Some(2), "{verb:?} {targets:?}");
            assert!(show(&output.stderr).contains(says), "{targets:?}: {}", show(&output.stderr));
        }
    }
    assert_eq!(fleet.json(&["runs", "--json"])?.as_array().map(Vec::len), Some(0));
    Ok(())
}

#[test]
fn a_plan_does_nothing_and_many_are_asked_about() -> Result<()> {
    let mut fleet = Fleet::tree(2, 2)?;
    fleet.kill("site2-host2")?;
    fleet.wait_up(5)?;
    let plan = fleet.json(&["run", "-w", "@*", "--plan", "--json", "--", "uname", "-r"])?;
    assert_eq!(plan["set"], "site[1-2]-host[1-2],site[1-2]-relay");
    assert_eq!((&plan["down"], &plan["down_count"]), (&"site2-host2".into(), &1.into()));
    assert_eq!(plan["relays"], "site[1-2]-relay");
    assert_eq!(plan["links"].as_array().map(Vec::len), Some(2), "{plan:#}");
    assert!(plan["order_bytes"].as_u64().is_some_and(|bytes| bytes > 100), "{plan:#}");
    let text = out(&fleet, &["push", "/etc/hostname", "-a", "--plan"])?;
    assert!(
        text.contains("site1-relay") && text.contains("unreachable now: site2-host2"),
        "{text}"
    );

    let output = fleet.barid(&["run", "-a", "--confirm-over", "3", "--", "true"])?;
    assert_eq!(output.status.code(), Some(7), "there is nobody to ask");
    assert!(show(&output.stderr).contains("4 hosts"), "{}", show(&output.stderr));
    assert_eq!(fleet.json(&["runs", "--json"])?.as_array().map(Vec::len), Some(0));
    let few = ["run", "-w", "@site1", "--confirm-over", "3", "--", "true"];
    assert_eq!(fleet.barid(&few)?.status.code(), Some(0), "they are few");
    let yes = ["run", "-a", "-x", "@down", "--confirm-over", "1", "--yes", "--", "true"];
    assert_eq!(fleet.barid(&yes)?.status.code(), Some(0), "it is meant");
    Ok(())
}

#[test]
fn labels_choose_hosts_and_outlive_the_controller() -> Result<()> {
    let mut fleet = Fleet::tree(2, 2)?;
    let label = |fleet: &Fleet, args: &[&str]| out(fleet, &[&["hosts", "label"], args].concat());
    label(&fleet, &["-g", "site1", "kind=web", "rack=9", "spare="])?;
    label(&fleet, &["-w", "site2-host1", "kind=db", "rack=10"])?;
    label(&fleet, &["-w", "site1-host2", "spare-", "rack=10"])?;
    assert_eq!(fold(&fleet, &["-w", "{kind=web}"])?, "site1-host[1-2]");
    assert_eq!(fold(&fleet, &["-w", "{rack>9 && kind!=db}"])?, "site1-host2");
    fleet.kill("controller")?;
    fleet.restart("controller")?;
    fleet.wait_up(6)?;
    assert_eq!(fold(&fleet, &["-a", "-x", "{spare}"])?, "site2-host[1-2],site1-host2");
    let hosts = out(&fleet, &["hosts", "-w", "site1-host1"])?;
    assert!(hosts.contains("kind=web rack=9 spare"), "{hosts}");
    let output = fleet.barid(&["run", "-a", "-x", "{sparse}", "--", "true"])?;
    assert_eq!(output.status.code(), Some(2));
    assert!(show(&output.stderr).contains("did you mean spare?"), "{}", show(&output.stderr));
    Ok(())
}
