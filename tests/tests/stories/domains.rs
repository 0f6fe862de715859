//! The examples of the specification of domains and files, by their numbers, as far as they need
//! no hosts: with the real controller, and the binary called as `fdist`.

use std::fs;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use tests::{Fleet, show};

/// The views, groups, systems and machines of the examples.
pub(crate) const CONFIG: &str = r#"
domains = ["adm", "prt", "cc.adm", "osgrp.adm", "lab1.prt"]

[[level]]
name = "view"

[[level]]
name = "group"

[[level]]
name = "os"
values = ["sunos", "riscos"]

[[level]]
name = "hardware"
values = ["sun3", "sun4", "ws"]
only = { sun3 = ["sunos"], sun4 = ["sunos"], ws = ["riscos"] }

[[level]]
name = "disk"
default = "disked"
values = ["disked", "diskless"]

[frequency.hour]
cron = "0 * * * *"
automatic = false

[frequency.day]
cron = "0 3 * * *"
automatic = false
"#;

const HOSTS: &str = "\
130.62.5.1 08:00:20:01:02:03 h1 loghost,mailhost r1 adm cc sunos sun4 NONE
130.62.5.2 UNKNOWN h2 NONE r1 adm cc sunos sun4 diskless
130.62.6.7 NONE h3 NONE r1 adm osgrp riscos ws NONE   # a comment
130.62.6.10 NONE h4 four r2 adm,prt osgrp,lab1 riscos ws disked
130.62.1.1 NONE gw NONE NONE IGNORE NONE NONE NONE NONE
";

/// A site with the controller's tables filled, and `fdist` to ask it.
pub(crate) struct Site {
    pub(crate) fleet: Fleet,
}

impl Site {
    pub(crate) fn new(fleet: Fleet) -> Result<Site> {
        let site = Site { fleet };
        std::os::unix::fs::symlink(tests::binary()?, site.fleet.path().join("fdist"))?;
        site.write("config", CONFIG)?;
        site.write("hosts", HOSTS)?;
        site.done("-o import config config")?;
        site.done("-o import hosts hosts")?;
        Ok(site)
    }

    /// Writes a file into the folder in which `fdist` runs.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<()> {
        Ok(fs::write(self.fleet.path().join(name), text)?)
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.fleet.path().join("fdist"));
        command.args(words).current_dir(self.fleet.path()).stdin(Stdio::null());
        command.env("BARID_SOCKET", self.fleet.state("controller").join("barid.sock"));
        command
    }

    pub(crate) fn fdist(&self, line: &str) -> Result<Output> {
        Ok(self.command(&line.split(' ').collect::<Vec<_>>()).output()?)
    }

    /// What a command prints that ends well.
    #[track_caller]
    pub(crate) fn done(&self, line: &str) -> Result<String> {
        let output = self.fdist(line)?;
        let context = format!("fdist {line}: {} {}", output.status, show(&output.stderr));
        ensure!(output.status.success(), context);
        Ok(show(&output.stdout))
    }

    /// A command that ends with this code and says so in one line.
    #[track_caller]
    pub(crate) fn refused(&self, line: &str, code: i32, says: &str) -> Result<()> {
        let output = self.fdist(line)?;
        let text = show(&output.stderr);
        let context = format!("fdist {line}: {} {text:?}", output.status);
        ensure!(output.status.code() == Some(code), context);
        ensure!(text.contains(says) && text.lines().count() == 1, context);
        let command = line.split_whitespace().skip_while(|word| *word != "-o").nth(1);
        let command = command.context("a command")?;
        ensure!(text.starts_with(&format!("fdist: {command}: ")), context);
        Ok(())
    }

    #[track_caller]
    pub(crate) fn prints(&self, line: &str, expected: &str) -> Result<()> {
        assert_eq!(self.done(line)?, expected, "{line}");
        Ok(())
    }

    /// What a command prints that ends with 1: the answer is no.
    #[track_caller]
    pub(crate) fn no(&self, line: &str) -> Result<String> {
        let output = self.fdist(line)?;
        ensure!(output.status.code() == Some(1), "{line}: {}", show(&output.stderr));
        Ok(show(&output.stdout))
    }
}

fn site() -> Result<Site> {
    Site::new(Fleet::new()?)
}

#[test]
fn x01_members_of_domains() -> Result<()> {
    let site = site()?;
    site.prints("-o hosts cc.adm", "h1\nh2\n")?;
    site.prints("-o hosts sun4.sunos.cc.adm", "h1\n")?;
    site.prints("-o hosts diskless.sun4.sunos.cc.adm", "h2\n")?;
    site.prints("-o hosts common.adm", "h1\nh2\nh3\nh4\n")?;
    site.prints("ws.common.common.adm -o hosts", "h3\nh4\n")?;
    site.refused("-o hosts nosuch.adm", 1, "unknown group \"nosuch\" below adm")?;
    site.prints("-o hosts --unknown", "h2 ether\n")?;
    Ok(())
}

#[test]
fn x02_domains_of_hosts() -> Result<()> {
    let site = site()?;
    site.prints("-o domain h4", "disked.ws.riscos.osgrp.adm\ndisked.ws.riscos.lab1.prt\n")?;
    site.prints("-o domain four", "disked.ws.riscos.osgrp.adm\ndisked.ws.riscos.lab1.prt\n")?;
    site.refused("-o domain nosuch", 1, "unknown host nosuch")?;
    let output = site.fdist("-o domain h1 nosuch")?;
    assert_eq!(output.status.code(), Some(1));
    assert!(show(&output.stdout).contains("disked.sun4.sunos.cc.adm"));
    Ok(())
}

#[test]
fn x03_new_domains() -> Result<()> {
    let site = site()?;
    site.done("-o create new.osgrp.adm")?;
    site.prints("-o hosts new.osgrp.adm", "")?;
    site.refused("-o create new.osgrp.adm", 1, "exists already")?;
    site.refused("-o create x.nogrp.adm", 1, "the parent nogrp.adm is missing")?;
    site.refused(
        "-o create sun4.riscos.cc.adm",
        1,
        "hardware sun4 is not possible with os riscos",
    )?;
    site.refused("-o create common.adm", 1, "reserved")?;
    site.done("-o create lab")?;
    let plain = site.command(&["-o", "create", "x.adm"]);
    let mut other = Command::new("setpriv");
    other.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    other.arg(plain.get_program()).args(plain.get_args()).stdin(Stdio::null());
    other.env("BARID_SOCKET", site.fleet.state("controller").join("barid.sock"));
    // The folder of the fleet is ours alone: somebody else needs another way to the binary.
    match other.output() {
        Ok(output) if output.status.code() == Some(3) => {}
        Ok(output) if show(&output.stderr).contains("setpriv") => {
            eprintln!("skipped: no other account here: {}", show(&output.stderr));
        }
        Ok(output) => panic!("{}: {}", output.status, show(&output.stderr)),
        Err(error) => eprintln!("skipped: setpriv: {error}"),
    }
    // And where no controller is.
    let mut elsewhere = site.command(&["-o", "create", "x.adm"]);
    let output = elsewhere.env("BARID_SOCKET", "/nonexistent/barid.sock").output()?;
    assert_eq!(output.status.code(), Some(3));
    assert!(show(&output.stderr).starts_with("fdist: create: only on the controller ("));
    Ok(())
}

#[test]
fn x04_files_of_a_domain() -> Result<()> {
    let site = site()?;
    site.write("equiv", "+\n")?;
    site.done("-o install ./hosts common.adm:/etc/hosts hour")?;
    site.done("-o install ./equiv cc.adm:/etc/hosts.equiv hour")?;
    let listed = "Files distributed to domain cc.adm:\n\
                  hour common.adm:/etc/hosts\nhour cc.adm:/etc/hosts.equiv\n";
    site.prints("-o list cc.adm", listed)?;
    site.refused("-o install ./hosts common.adm:/etc/hosts hour", 1, "exists already")?;
    site.refused("-o install ./hosts common.adm:/etc/h all", 1, "unknown frequency all")?;
    site.refused("-o install ./hosts nosuch.adm:/etc/h day", 1, "unknown group")?;
    site.refused("-o install ./nothing cc.adm:/etc/h day", 1, "./nothing")?;
    site.refused("-o install ./hosts cc.adm:/etc/../h day", 1, "no `..`")?;
    Ok(())
}

#[test]
fn x05_which_entry_applies() -> Result<()> {
    let site = site()?;
    for name in ["m1", "m2", "m3"] {
        site.write(name, name)?;
    }
    site.done("-o install ./m1 common.adm:/etc/motd day")?;
    site.done("-o install ./m2 osgrp.adm:/etc/motd day")?;
    let file = |host: &str| site.done(&format!("-o domain -F {host}"));
    assert!(file("h1")?.contains("day common.adm:/etc/motd"));
    assert!(file("h2")?.contains("day common.adm:/etc/motd"));
    assert!(file("h3")?.contains("day osgrp.adm:/etc/motd"));
    site.done("-o install ./m3 riscos.common.adm:/etc/motd day")?;
    for host in ["h3", "h4"] {
        assert!(file(host)?.contains("day riscos.common.adm:/etc/motd"), "{host}");
    }
    let text = "h3 would get /etc/motd from riscos.common.adm:/etc/motd \
                and common.osgrp.adm:/etc/motd alike";
    site.refused("-o install ./m1 common.osgrp.adm:/etc/motd day", 1, text)?;
    assert!(!site.done("-o file -a /etc/motd")?.contains("common.osgrp.adm"));
    // Nor may a host come into such a place.
    site.done("-o create x.prt")?;
    site.done("-o install ./m1 x.prt:/etc/issue day")?;
    site.done("-o install ./m2 cc.adm:/etc/issue day")?;
    site.prints("-o sethost h9 sun4.sunos.cc.adm sun4.sunos.x.prt", "")?;
    assert!(file("h9")?.contains("day cc.adm:/etc/issue"), "the first view decides");
    Ok(())
}

#[test]
fn x06_separate_and_shared() -> Result<()> {
    let site = site()?;
    site.write("motd", "hello\n")?;
    let (motd, issue) = ("cc.adm:/etc/motd", "osgrp.adm:/etc/issue");
    site.done(&format!("-o install ./motd {motd} day"))?;
    site.done(&format!("-o install {motd} {issue} day"))?;
    let edit = |path: &str, text: &str| {
        let editor = format!("sh -c \"echo {text} >> $1\" --");
        let output = site.command(&["-o", "edit", "-e", &editor, path]).output()?;
        ensure!(output.status.success(), "{}", show(&output.stderr));
        Ok(())
    };
    edit(motd, "one")?;
    site.prints(&format!("-o cat {motd}"), "hello\none\n")?;
    site.prints(&format!("-o cat {issue}"), "hello\n")?;
    let output = site.command(&["-o", "shell", issue, "touch /mark it"]).output()?;
    assert!(output.status.success());
    site.done(&format!("-o mrg {motd} {issue}"))?;
    edit(issue, "two")?;
    for path in [motd, issue] {
        site.prints(&format!("-o cat {path}"), "hello\none\ntwo\n")?;
    }
    assert!(site.done("-o file -a /etc/issue")?.contains("day touch /mark it"));
    site.done(&format!("-o mrg {motd} {issue}"))?;
    Ok(())
}

#[test]
fn x07_comparing_domains() -> Result<()> {
    let site = site()?;
    site.write("a", "a\n")?;
    site.write("b", "b\n")?;
    site.done("-o install ./a cc.adm:/etc/a day")?;
    site.done("-o install ./b cc.adm:/etc/b day")?;
    site.done("-o clone cc.adm c2.adm")?;
    let shared = "To both, from one shared source:\n";
    site.prints("-o compare cc.adm c2.adm", &format!("{shared}/etc/a\n/etc/b\n"))?;
    // A separate source with other content.
    site.done("-o rm c2.adm:/etc/a")?;
    site.done("-o install cc.adm:/etc/a c2.adm:/etc/a day")?;
    let identical = "To both, identical content from separate sources:\n/etc/a\n";
    site.prints("-o compare cc.adm c2.adm", &format!("{identical}{shared}/etc/b\n"))?;
    site.done("-o cp ./b c2.adm:/etc/a")?;
    let compared = site.no("-o compare cc.adm c2.adm")?;
    assert_eq!(compared, format!("To both, with different content:\n/etc/a\n{shared}/etc/b\n"));
    Ok(())
}

#[test]
fn x08_deleting_domains() -> Result<()> {
    let site = site()?;
    site.write("a", "a\n")?;
    site.done("-o install ./a osgrp.adm:/etc/a day")?;
    site.done("-o install ./a cc.adm:/etc/a day")?;
    site.done("-o mrg osgrp.adm:/etc/a cc.adm:/etc/a")?;
    site.refused("-o delete osgrp.adm", 1, "osgrp.adm:/etc/a, host h3, host h4")?;
    site.prints("-o delete -f osgrp.adm", "osgrp is UNKNOWN now at h3, h4\n")?;
    site.prints("-o list cc.adm", "Files distributed to domain cc.adm:\nday cc.adm:/etc/a\n")?;
    site.prints("-o cat cc.adm:/etc/a", "a\n")?;
    site.refused("-o cat osgrp.adm:/etc/a", 1, "not under control")?;
    site.refused("-o delete osgrp.adm", 1, "unknown group")?;
    Ok(())
}

#[test]
fn x09_who_gets_a_file() -> Result<()> {
    let site = site()?;
    site.write("a", "a\n")?;
    for path in ["cc.adm", "osgrp.adm", "lab1.prt"] {
        site.done(&format!("-o install ./a {path}:/etc/motd day -s true"))?;
    }
    site.done("-o mrg cc.adm:/etc/motd lab1.prt:/etc/motd")?;
    let heading = "File /etc/motd is distributed to:\n";
    let groups = "cc.adm:/etc/motd\nlab1.prt:/etc/motd\n\nosgrp.adm:/etc/motd\n";
    site.prints("-o file /etc/motd", &format!("{heading}{groups}"))?;
    assert!(site.done("-o file /etc/motd -a")?.contains("osgrp.adm:/etc/motd day true\n"));
    site.refused("-o file /etc/nosuch", 1, "not under control")?;
    Ok(())
}

#[test]
fn x10_editing() -> Result<()> {
    let site = site()?;
    let path = "cc.adm:/etc/motd";
    site.write("motd", "hello\n")?;
    site.done(&format!("-o install ./motd {path} day"))?;
    let history = || site.fleet.json(&["file", "history", path, "--json"]);
    let before = history()?;
    site.done(&format!("-o edit -e true {path}"))?;
    assert_eq!(history()?, before);
    let editor = "sh -c \"echo x >> $1\" --";
    assert!(site.command(&["-o", "edit", "-e", editor, path]).output()?.status.success());
    assert_eq!(history()?[0]["number"], 2);
    assert_eq!(site.no(&format!("-o status {path}"))?, format!("{path}: h1 h2\n"));
    site.refused(&format!("-o edit -e false {path}"), 1, "discarded")?;
    site.prints(&format!("-o cat {path}"), "hello\nx\n")?;
    site.done(&format!("-o setedit {path} NONE"))?;
    site.refused(&format!("-o edit {path}"), 1, "not editable")?;

    // Somebody edits, and is killed.
    let started = site.fleet.path().join("started");
    let script = format!("sh -c \"touch {}; exec sleep 600\" --", started.display());
    let mut first = site.command(&["-o", "edit", "-e", &script, path]);
    std::os::unix::process::CommandExt::process_group(&mut first, 0);
    let mut first = first.spawn()?;
    let waited =
        tests::wait_for("the editor to start", tests::LIMIT, || Ok(started.exists().then_some(())));
    let second = site.refused(&format!("-o edit -e true {path}"), 1, "locked by ");
    let cp = site.refused(&format!("-o cp ./hosts {path}"), 1, "locked by ");
    let group = rustix::process::Pid::from_raw(first.id().cast_signed()).context("a pid")?;
    rustix::process::kill_process_group(group, rustix::process::Signal::KILL)?;
    first.wait()?;
    waited.and(second).and(cp)?;
    site.refused(&format!("-o edit -e true {path}"), 1, "locked by ")?;
    assert!(site.done(&format!("-o unlock {path}"))?.contains("was locked by "));
    site.refused(&format!("-o unlock {path}"), 1, "not locked")?;
    site.done(&format!("-o edit -e true {path}"))?;
    Ok(())
}

#[test]
fn x11_attributes_and_usage() -> Result<()> {
    let site = site()?;
    site.write("motd", "hello\n")?;
    site.done("-o install ./motd cc.adm:/etc/motd day")?;
    site.done("-o chmod 600 cc.adm:/etc/motd")?;
    assert_eq!(site.no("-o status cc.adm:/etc/motd")?, "cc.adm:/etc/motd: h1 h2\n");
    assert!(site.done("-o ls -l cc.adm:/etc/motd")?.contains("-rw-------"));
    site.refused("-o rm -r cc.adm:/etc/motd", 2, "-r")?;
    site.refused("-o chmod -R 600 cc.adm:/etc/motd", 2, "-R")?;
    site.refused("-o chmod 9 cc.adm:/etc/motd", 1, "no mode")?;
    site.refused("-o nosuch", 2, "nosuch")?;
    site.done("-o rm cc.adm:/etc/motd")?;
    site.prints("-o status", "")?;
    Ok(())
}

#[test]
fn x12_comparing_content() -> Result<()> {
    let site = site()?;
    site.write("a", "a\nb\n")?;
    site.write("b", "a\nc\n")?;
    site.write("z", "a\0c\n")?;
    for name in ["a", "b", "z"] {
        site.done(&format!("-o install ./{name} cc.adm:/{name} day"))?;
    }
    let diff = site.no("-o cmp cc.adm:/a cc.adm:/b")?;
    assert!(diff.contains("--- cc.adm:/a\n+++ cc.adm:/b\n") && diff.contains("-b\n+c\n"), "{diff}");
    assert_eq!(
        site.no("-o cmp cc.adm:/a cc.adm:/z")?,
        "cmp: cc.adm:/a is a text file\ncmp: cc.adm:/z is a binary file\n"
    );
    site.done("-o cmp cc.adm:/a cc.adm:/a")?;
    site.refused("-o cmp cc.adm:/a cc.adm:/nosuch", 2, "not under control")?;
    Ok(())
}

#[test]
fn x13_the_plan_as_a_distfile() -> Result<()> {
    let site = site()?;
    site.write("equiv", "+\n")?;
    site.done("-o install ./hosts common.adm:/etc/hosts hour -s true")?;
    site.done("-o install ./equiv osgrp.adm:/etc/hosts.equiv hour")?;
    site.done("-o install ./equiv cc.adm:/etc/daily day")?;
    let hour = site.done("-o build hour")?;
    assert_eq!(site.done("-o build hour")?, hour, "the same bytes");
    assert!(!hour.contains("daily"), "{hour}");
    let some = site.done("-o build -d cc.adm hour")?;
    let targets = |text: &str| -> Vec<String> {
        let lists = text.lines().filter_map(|line| line.split_once(" -> ( "));
        let lists = lists.filter_map(|(_, list)| list.strip_suffix(" )"));
        let mut hosts: Vec<_> = lists.flat_map(|list| list.split(' ')).map(String::from).collect();
        hosts.sort();
        hosts
    };
    assert_eq!(targets(&some), ["h1", "h2"]);
    assert_eq!(targets(&hour), ["h1", "h2", "h3", "h3", "h4", "h4"]);
    site.done("-o build all -f plan")?;
    let written = fs::read_to_string(site.fleet.path().join("plan"))?;
    assert_eq!(written, site.done("-o build all")?);
    site.refused("-o build nosuch", 1, "unknown frequency nosuch")?;
    site.refused("-o build -d nosuch.adm hour", 1, "unknown group")?;

    // The program itself reads it, where it is installed.
    let mut rdist = Command::new("rdist");
    rdist.args(["-n", "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut rdist = match rdist.stderr(Stdio::piped()).spawn() {
        Ok(child) => child,
        Err(error) => {
            eprintln!("skipped: rdist: {error}");
            return Ok(());
        }
    };
    use std::io::Write;
    rdist.stdin.take().context("its input")?.write_all(some.as_bytes())?;
    let output = rdist.wait_with_output()?;
    let plan = show(&output.stdout) + &show(&output.stderr);
    ensure!(output.status.success(), plan);
    for host in ["h1", "h2", "h3", "h4"] {
        assert_eq!(plan.contains(host), ["h1", "h2"].contains(&host), "{host}: {plan}");
    }
    Ok(())
}

#[test]
fn x24_host_tables() -> Result<()> {
    let site = site()?;
    let more = "130.62.5.1 NONE h5 four r1 adm cc sunos sun4 NONE\n\
                10.0.0.9 NONE h1 loghost,mailhost r1 adm cc sunos sun4 NONE\n";
    site.write("more", &format!("{HOSTS}{more}"))?;
    site.done("-o import hosts more")?;
    let output = site.fdist("-o mkhost")?;
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(show(&output.stdout).lines().count(), 7);
    let complaints = show(&output.stderr);
    for word in ["address 130.62.5.1", "name h1", "alias four"] {
        let line = format!("fdist: mkhost: duplicate {word}");
        assert!(complaints.lines().any(|said| said.starts_with(&line)), "{complaints}");
    }
    let several = show(&site.fdist("-o mkhost -s")?.stderr);
    assert!(!several.contains("duplicate name") && several.contains("alias four"), "{several}");
    site.prints("-o mkether", "08:00:20:01:02:03 h1\n")?;

    let before = site.done("-o export hosts")?;
    let moved = site.done("-o chslave r1 r2")?;
    assert_eq!(moved.lines().filter(|line| line.contains(" r2 ")).count(), 6, "{moved}");
    let moved = site.done("-o chslave 130.62.6 r2")?;
    assert!(moved.contains("h3 NONE r2") && moved.contains("h2 NONE r1"), "{moved}");
    site.refused("-o chslave r1 nosuch", 1, "nosuch: unknown relay")?;
    assert_eq!(site.done("-o export hosts")?, before);
    site.write("moved", &moved)?;
    site.done("-o import hosts moved")?;
    assert_eq!(site.done("-o export hosts")?, moved);
    let clients = "Clients of relay r2:\n130.62.6.7 h3\n130.62.6.10 h4\n";
    site.prints("-o network r2", clients)?;
    site.refused("-o network r9", 1, "r9: unknown relay")?;
    Ok(())
}

#[test]
fn x24_a_generated_file_follows_the_host_records() -> Result<()> {
    let site = site()?;
    let path = "cc.adm:/etc/hosts";
    site.write("first", "by hand\n")?;
    site.done(&format!("-o install ./first {path} day"))?;
    site.done(&format!("-o chmod 640 {path}"))?;
    let notes = site.done(&format!("-o generator {path} mkhost"))?;
    assert!(notes.contains("made anew by mkhost"), "{notes}");
    let table = site.done("-o mkhost")?;
    site.prints(&format!("-o cat {path}"), &table)?;
    let revisions =
        || -> Result<usize> { Ok(site.done(&format!("-o history {path}"))?.lines().count()) };
    let made = revisions()?;
    assert!(site.done(&format!("-o ls -l {path}"))?.contains("rw-r-----"));

    // It follows, and only where its bytes are others.
    site.done("-o sethost h2 --aliases mirror")?;
    assert!(site.done(&format!("-o cat {path}"))?.contains(" h2 mirror\n"));
    assert_eq!(revisions()?, made + 1);
    site.done("-o sethost h2 --relay r2")?;
    site.done(&format!("-o generator {path} mkhost -s"))?;
    assert_eq!(revisions()?, made + 1);

    // Nobody writes it by hand, as long as it is made.
    let why = "is made by mkhost -s from the host records";
    site.refused(&format!("-o cp ./first {path}"), 1, why)?;
    site.refused(&format!("-o rollback {path}"), 1, why)?;
    site.refused(&format!("-o edit -e true {path}"), 1, why)?;
    site.done(&format!("-o generator {path} none"))?;
    site.done(&format!("-o cp ./first {path}"))?;
    site.done("-o sethost h2 --aliases other")?;
    site.prints(&format!("-o cat {path}"), "by hand\n")?;
    site.refused("-o generator cc.adm:/nosuch mkhost", 1, "cc.adm:/nosuch")?;
    Ok(())
}

#[test]
fn text_forms_are_read_as_they_were_written() -> Result<()> {
    let site = site()?;
    site.write("a", "a\n")?;
    site.done("-o install ./a cc.adm:/etc/a:b day -s true")?;
    for what in ["hosts", "files", "config"] {
        let text = site.done(&format!("-o export {what}"))?;
        site.write("text", &text)?;
        site.done(&format!("-o import {what} text"))?;
        assert_eq!(site.done(&format!("-o export {what}"))?, text, "{what}");
    }
    site.write("bad", "1.2.3.4 NONE x NONE r1 adm nosuch sunos sun4 NONE\n")?;
    site.refused(
        "-o import hosts bad -f",
        1,
        "bad: line 1: x: disked.sun4.sunos.nosuch.adm: unknown",
    )?;
    site.refused("-o import hosts a", 1, "a: line 1: 1 fields instead of 10")?;
    site.write("few", "")?;
    site.refused("-o import hosts few", 1, "gw, h1, h2, h3, h4")?;
    site.prints("-o hosts cc.adm", "h1\nh2\n")?;
    Ok(())
}

#[test]
fn history_differences_and_the_way_back() -> Result<()> {
    let mut site = site()?;
    site.write("a", "one\n")?;
    site.write("b", "two\n")?;
    let path = "cc.adm:/etc/a";
    site.done(&format!("-o install ./a {path} day"))?;
    let mut second = site.command(&["-o", "cp", "-m", "because", "./b", path]);
    second.env("USER", "mallory").env_remove("SUDO_USER");
    assert!(second.output()?.status.success());
    // Who did it is what the kernel knows, whatever somebody calls himself.
    let user = show(&Command::new("id").arg("-un").output()?.stdout).trim().to_owned();
    let told = site.done(&format!("-o history {path}"))?;
    assert!(!told.contains("mallory") && told.contains(&format!("{user}@")), "{told}");
    let diff = site.no(&format!("-o diff {path}"))?;
    assert!(diff.contains("-one\n+two\n"), "{diff}");
    assert!(site.done(&format!("-o history {path}"))?.contains("because"));
    site.done(&format!("-o rollback {path}"))?;
    site.prints(&format!("-o cat {path}"), "one\n")?;
    site.refused(&format!("-o rollback {path} 9"), 1, "no revision 9")?;
    // All of it is still there when the controller comes back.
    site.fleet.kill("controller")?;
    site.fleet.restart("controller")?;
    let history = site.fleet.json(&["file", "history", path, "--json"])?;
    let numbers: Vec<_> =
        history.as_array().context("a list")?.iter().map(|r| &r["number"]).collect();
    assert_eq!(numbers, [3, 2, 1]);
    site.prints(&format!("-o cat {path}"), "one\n")?;
    assert_eq!(site.no("-o status")?, format!("{path}: h1 h2\n"));
    site.done(&format!("-o cp {path} ./out"))?;
    assert_eq!(fs::read_to_string(site.fleet.path().join("out"))?, "one\n");
    Ok(())
}
