//! As whom commands run, and what they are given: users, folders, variables, input, files.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tests::{Fleet, LIMIT, PACE, Place, Spec, noise, show, wait_for};

use crate::{answer, order};

const HOST: &str = "site1-host1";

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs something everywhere. Returns what the one host of the fleet printed.
fn printed(fleet: &Fleet, args: &[&str]) -> Result<String> {
    let run = [&["run", "-a", "--async", "--json"][..], args].concat();
    let id = order(fleet, &run)?;
    let detail = fleet.wait_states(&id, &[("ok", 1)])?;
    Ok(answer(&detail, HOST)?["stdout"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn a_command_runs_as_the_user_that_is_named_or_not_at_all() -> Result<()> {
    let fleet = Fleet::tree(1, 1)?;
    let run = ["run", "-a", "-l", "nobody-of-that-name", "--async", "--json", "--", "id"];
    let id = order(&fleet, &run)?;
    let detail = fleet.wait_states(&id, &[("refused", 1)])?;
    let fault = answer(&detail, HOST)?["fault"].as_str().unwrap_or_default().to_owned();
    assert!(fault.contains("this host has no user nobody-of-that-name"), "{fault}");
    let line = "id -un; id -gn; echo $HOME $USER $LOGNAME; pwd; umask; \
                ls -d /root >/dev/null && cat /etc/shadow 2>/dev/null | wc -c";
    let other = ["-l", "daemon", "--umask", "027", line];
    if is_root() {
        let text = printed(&fleet, &other)?;
        let expected = "daemon\ndaemon\n/usr/sbin daemon daemon\n/\n0027\n0\n";
        assert_eq!(text, expected);
        // A folder that this user may not enter is no place to run in.
        let run = ["run", "-a", "-l", "daemon", "--dir", "/root", "--async", "--json", "pwd; true"];
        let mode = fs::metadata("/root")?.permissions();
        if std::os::unix::fs::PermissionsExt::mode(&mode) & 0o001 == 0 {
            let id = order(&fleet, &run)?;
            fleet.wait_states(&id, &[("failed", 1)])?;
        }
    } else {
        let run = [&["run", "-a", "--async", "--json"][..], &other].concat();
        let id = order(&fleet, &run)?;
        let detail = fleet.wait_states(&id, &[("refused", 1)])?;
        let fault = answer(&detail, HOST)?["fault"].as_str().unwrap_or_default().to_owned();
        assert!(fault.contains("not as root"), "{fault}");
    }
    Ok(())
}

#[test]
fn a_command_gets_nothing_that_its_node_was_started_with() -> Result<()> {
    // Whoever starts this node has left a descriptor open.
    let before = ["sh", "-c", "exec 9</dev/null; exec \"$@\"", "sh"].map(String::from).to_vec();
    let places = [(HOST.to_owned(), Place { before, listen: None })].into();
    let mut fleet = Fleet::placed(tests::binary()?, PACE, &std::env::temp_dir(), places)?;
    fleet.add(&Spec {
        role: "host",
        name: HOST.into(),
        site: "site1".into(),
        parents: vec!["controller".into()],
        config: String::new(),
    })?;
    fleet.wait_up(1)?;
    let node = Path::new("/proc").join(fleet.pid(HOST)?.to_string()).join("fd/9");
    ensure!(fs::symlink_metadata(&node).is_ok(), "the node itself has it");
    let text = printed(&fleet, &["test -e /proc/self/fd/9 && echo open || echo closed"])?;
    assert_eq!(text, "closed\n");
    if is_root() {
        // As another user: a session of its own, so no terminal of the node's.
        let line = "read pid comm state parent group session tty rest </proc/$$/stat; \
                    echo $((pid == session)) $((pid == group)) $tty";
        assert_eq!(printed(&fleet, &["-l", "daemon", line])?, "1 1 0\n");
    }
    Ok(())
}

#[test]
fn folder_variables_and_mask_are_what_was_said() -> Result<()> {
    let fleet = Fleet::tree(1, 1)?;
    let dir = fleet.path().join("here");
    fs::create_dir(&dir)?;
    let line = "pwd; umask; echo $A/$B/$PATH_IS_NOT_PASSED_ON";
    let text = dir.to_str().context("a plain path")?;
    let args = ["--dir", text, "--umask", "077", "--env", "A=1 2", "--env", "B=", line];
    assert_eq!(printed(&fleet, &args)?, format!("{text}\n0077\n1 2//\n"));
    // A name without a value is taken from here.
    let run = ["run", "-a", "--json", "--env", "CARRIED", "--", "printenv", "CARRIED"];
    let output = fleet.command(&run).env("CARRIED", "along").output()?;
    assert!(show(&output.stdout).contains("along"), "{output:?}");
    let output = fleet.command(&run).env_remove("CARRIED").output()?;
    assert_eq!(output.status.code(), Some(2), "{}", show(&output.stderr));
    Ok(())
}

/// The content that has crossed the link to a site.
fn sent(fleet: &Fleet, relay: &str) -> Result<u64> {
    let tree = fleet.json(&["tree", "--json"])?;
    let links = tree.as_array().or(tree["links"].as_array()).context("links")?;
    let link = links.iter().find(|link| link["name"] == relay);
    link.and_then(|link| link["content_sent"].as_u64()).context("a count of bytes")
}

#[test]
fn input_goes_to_all_and_over_each_link_once() -> Result<()> {
    let fleet = Fleet::tree(2, 4)?;
    let path = fleet.path().join("input");
    // A megabyte that no compression makes smaller.
    let bytes = noise(0, 1 << 20);
    fs::write(&path, &bytes)?;
    let before = sent(&fleet, "site1-relay")?;
    let text = path.to_str().context("a plain path")?;
    let run = ["run", "-a", "--stdin", text, "--async", "--json", "--", "cksum"];
    let id = order(&fleet, &run)?;
    let detail = fleet.wait_states(&id, &[("ok", 8)])?;
    assert_eq!(detail["answers"].as_array().map(Vec::len), Some(1), "all have read the same");
    let said = answer(&detail, HOST)?["stdout"].as_str().unwrap_or_default().to_owned();
    assert!(said.contains(" 1048576"), "{said}");
    let crossed = sent(&fleet, "site1-relay")? - before;
    let once = bytes.len() as u64;
    assert!((once..once + once / 50).contains(&crossed), "{crossed} bytes for {once}");
    Ok(())
}

#[test]
fn input_may_come_from_a_pipe_and_without_any_there_is_none() -> Result<()> {
    let fleet = Fleet::tree(1, 1)?;
    let mut child = fleet
        .command(&["run", "-a", "-N", "--stdin", "-", "--", "tr", "a-z", "A-Z"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    child.stdin.take().context("a pipe")?.write_all(b"words\n")?;
    let output = child.wait_with_output()?;
    assert_eq!(show(&output.stdout), "WORDS\n");
    assert_eq!(printed(&fleet, &["--", "cat"])?, "");
    let output = fleet.barid(&["run", "-a", "--stdin", "/no/such/file", "--", "cat"])?;
    assert_eq!(output.status.code(), Some(2), "{}", show(&output.stderr));
    Ok(())
}

#[test]
fn files_come_along_and_go_again() -> Result<()> {
    let fleet = Fleet::tree(1, 1)?;
    let script = fleet.path().join("probe.sh");
    fs::write(
        &script,
        "#!/bin/sh\necho $0; cat $BARID_DIR/data; id -un; stat -c '%U %a' $BARID_DIR; echo $1\n",
    )?;
    let data = fleet.path().join("data");
    fs::write(&data, "carried\n")?;
    let paths = [script.to_str().context("plain")?, data.to_str().context("plain")?];
    let with = ["--with", paths[0], "--with", paths[1]];
    let users = if is_root() { &["root", "daemon"][..] } else { &[][..] };
    for user in users {
        let words = [&with[..], &["-l", user, "--", "sh", "{file}", "x{file}"]].concat();
        let said = printed(&fleet, &words)?;
        let lines: Vec<&str> = said.lines().collect();
        let [path, carried, who, owner, last] = lines.as_slice() else { panic!("{said}") };
        assert!(path.ends_with("/probe.sh") && *last == format!("x{path}"), "{said}");
        assert_eq!((*carried, who), ("carried", user));
        // Whoever may read the files must not be able to put something else in their place.
        assert_eq!(*owner, if *user == "root" { "root 500" } else { "root 550" });
        let folder = Path::new(path).parent().context("a folder")?;
        wait_for("the files to be gone", LIMIT, || Ok((!folder.exists()).then_some(())))?;
    }
    // In the node's own folder it can be executed as it is.
    let words = [&with[..], &["--", "{file}", "y"]].concat();
    assert!(printed(&fleet, &words)?.ends_with("y\n"));
    Ok(())
}

#[test]
fn files_that_a_killed_node_left_go_when_it_is_back() -> Result<()> {
    let mut fleet = Fleet::tree(1, 1)?;
    let file = fleet.path().join("file");
    fs::write(&file, "x")?;
    let place = fleet.path().join("place");
    let line = format!("echo $BARID_DIR > {0}.new; mv {0}.new {0}; sleep 300", place.display());
    let text = file.to_str().context("a plain path")?;
    let user = if is_root() { "daemon" } else { "" };
    let given = if user.is_empty() { vec![] } else { vec!["-l", user] };
    if is_root() {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(fleet.path(), mode)?;
    }
    let run = [&["run", "-a", "--with", text, "--async", "--json"][..], &given, &[&line]].concat();
    order(&fleet, &run)?;
    let folder = wait_for("the command to run", LIMIT, || Ok(fs::read_to_string(&place).ok()))?;
    let folder = Path::new(folder.trim_end());
    ensure!(folder.exists(), "{} is there", folder.display());
    fleet.kill(HOST)?;
    ensure!(folder.exists(), "nobody has cleaned up");
    fleet.restart(HOST)?;
    wait_for("the files to be gone", LIMIT, || Ok((!folder.exists()).then_some(())))
}

#[test]
fn what_a_run_brought_along_is_there_when_it_is_given_again() -> Result<()> {
    let fleet = Fleet::tree(1, 1)?;
    let flag = fleet.path().join("flag");
    let input = fleet.path().join("input");
    fs::write(&input, "kept\n")?;
    let line = format!("cat; [ -e {} ]", flag.display());
    let text = input.to_str().context("a plain path")?;
    let id = order(&fleet, &["run", "-a", "--stdin", text, "--async", "--json", &line])?;
    fleet.wait_states(&id, &[("failed", 1)])?;
    fs::write(&flag, "")?;
    fs::remove_file(&input)?;
    let id = order(&fleet, &["retry", "last", "--async", "--json"])?;
    let detail = fleet.wait_states(&id, &[("ok", 1)])?;
    assert_eq!(answer(&detail, HOST)?["stdout"], "kept\n");
    Ok(())
}
