//! Output is seen while it is made: by one viewer or several, early or late, over a relay that
//! dies, from hosts that say too much; and however much of it is lost on the way, in the end each
//! line has come once.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};
use tests::{Fleet, LIMIT, connect, until, wait_for};

use crate::order;

/// Lines as they come, read by a thread of their own.
struct Reading {
    lines: Arc<Mutex<Vec<String>>>,
    thread: JoinHandle<()>,
}

impl Reading {
    fn start(from: impl BufRead + Send + 'static) -> Reading {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let seen = lines.clone();
        let thread = std::thread::spawn(move || {
            for line in from.lines().map_while(Result::ok) {
                seen.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        Reading { lines, thread }
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is_over(&self) -> bool {
        self.thread.is_finished()
    }
}

/// What was printed of each host, its lines in their sequence.
type ByHost = BTreeMap<String, Vec<String>>;

/// An operator at a terminal: a command, and what it has printed so far.
struct Operator {
    child: Child,
    out: Reading,
    err: Reading,
}

impl Operator {
    fn start(fleet: &Fleet, args: &[&str]) -> Result<Operator> {
        let mut child =
            fleet.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let out = Reading::start(BufReader::new(child.stdout.take().context("its output")?));
        let err = Reading::start(BufReader::new(child.stderr.take().context("its errors")?));
        Ok(Operator { child, out, err })
    }

    fn wait_line(&self, line: &str) -> Result<()> {
        wait_for(&format!("the line {line:?}"), LIMIT, || {
            Ok(self.out.lines().iter().any(|seen| seen == line).then_some(()))
        })
    }

    /// All that it has printed by its end, each host's lines for themselves.
    fn finish(self) -> Result<ByHost> {
        Ok(self.finish_with_remarks()?.0)
    }

    /// The same, and what it has remarked.
    fn finish_with_remarks(mut self) -> Result<(ByHost, Vec<String>)> {
        let is_over = || self.out.is_over() && self.err.is_over();
        wait_for("the command to end", LIMIT, || Ok(is_over().then_some(())))?;
        let (status, remarks) = (self.child.wait()?, self.err.lines());
        ensure!(status.success(), "{status}: {:?} {remarks:?}", self.out.lines());
        let mut by_host = ByHost::new();
        for line in self.out.lines() {
            let (host, text) = line.split_once(": ").with_context(|| format!("{line:?}"))?;
            by_host.entry(host.into()).or_default().push(text.into());
        }
        Ok((by_host, remarks))
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = rustix::process::Pid::from_raw(self.child.id().cast_signed());
        Ok(rustix::process::kill_process(pid.context("a process id")?, signal)?)
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A program that reads the events of an order from the API.
struct Watcher(Reading);

impl Watcher {
    fn start(fleet: &Fleet, id: &str) -> Result<Watcher> {
        let mut stream = UnixStream::connect(fleet.state("controller").join("barid.sock"))?;
        // HTTP/1.0: the body ends with the connection and is not cut into chunks.
        write!(stream, "GET /v1/orders/{id}/events?output=live HTTP/1.0\r\nHost: barid\r\n\r\n")?;
        Ok(Watcher(Reading::start(BufReader::new(stream))))
    }

    fn events(&self) -> Vec<Value> {
        let lines = self.0.lines();
        lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// What it knows of a host's standard output without a gap.
    fn heard(&self, host: &str) -> String {
        let mut text = String::new();
        for event in self.events() {
            if event["type"] != "output" || event["host"] != host || event["stream"] != "stdout" {
                continue;
            }
            let offset = event["offset"].as_u64().map_or(usize::MAX, |offset| offset as usize);
            let data = event["data"].as_str().unwrap_or_default();
            if let Some(known) = text.len().checked_sub(offset) {
                text.push_str(data.get(known..).unwrap_or_default());
            }
        }
        text
    }

    fn wait_heard(&self, host: &str, text: &str) -> Result<()> {
        wait_for(&format!("{text:?} of {host}"), LIMIT, || {
            Ok((self.heard(host) == text).then_some(()))
        })
    }

    fn wait_closed(&self) -> Result<()> {
        wait_for("the order to close", LIMIT, || {
            Ok(self.events().iter().any(|event| event["type"] == "closed").then_some(()))
        })
    }
}

/// Gives a run to the API, which no option of the CLI could give. Returns its id.
fn post_run(fleet: &Fleet, run: &Value) -> Result<String> {
    let mut stream = connect(fleet.state("controller").join("barid.sock"))?;
    let body = run.to_string();
    let head = "POST /v1/runs HTTP/1.0\r\nHost: barid\r\nContent-Type: application/json";
    write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, order) = answer.split_once("\r\n\r\n").context("an answer")?;
    let order: Value = serde_json::from_str(order).with_context(|| answer.clone())?;
    Ok(order["id"].as_str().with_context(|| answer.clone())?.to_owned())
}

/// A command waits at the gate until it is opened.
fn wait_at(fleet: &Fleet, gate: &str) -> String {
    until(&fleet.path().join(gate))
}

fn open(fleet: &Fleet, gate: &str) -> Result<()> {
    Ok(fs::write(fleet.path().join(gate), "")?)
}

#[test]
fn a_line_is_seen_before_the_command_ends() -> Result<()> {
    let fleet = Fleet::tree(1, 2)?;
    let line = format!("echo one; echo oops >&2; {}; printf 'two\nthree'", wait_at(&fleet, "go"));
    let operator = Operator::start(&fleet, &["run", "-w", "site1-host[1-2]", &line])?;
    operator.wait_line("site1-host1: one")?;
    operator.wait_line("site1-host2: one")?;
    open(&fleet, "go")?;
    let lines = operator.finish()?;
    let expected = ["one", "two", "three"].map(String::from).to_vec();
    let hosts = ["site1-host1", "site1-host2"];
    assert_eq!(lines, hosts.map(|host| (host.to_owned(), expected.clone())).into());
    Ok(())
}

#[test]
fn all_viewers_hear_it_whenever_they_come() -> Result<()> {
    let fleet = Fleet::tree(1, 1)?;
    let (first, second) = (wait_at(&fleet, "first"), wait_at(&fleet, "second"));
    let line = format!("echo one; {first}; echo two; {second}; echo three");
    let id = order(&fleet, &["run", "-a", "--async", "--json", &line])?;
    let early = [Watcher::start(&fleet, &id)?, Watcher::start(&fleet, &id)?];
    for watcher in &early {
        watcher.wait_heard("site1-host1", "one\n")?;
    }
    open(&fleet, "first")?;
    for watcher in &early {
        watcher.wait_heard("site1-host1", "one\ntwo\n")?;
    }
    let late = Watcher::start(&fleet, &id)?;
    late.wait_heard("site1-host1", "one\ntwo\n")?;
    open(&fleet, "second")?;
    for watcher in early.iter().chain([&late]) {
        watcher.wait_closed()?;
    }
    let detail = fleet.wait_states(&id, &[("ok", 1)])?;
    assert_eq!(crate::answer(&detail, "site1-host1")?["stdout"], "one\ntwo\nthree\n");
    Ok(())
}

/// Kills `victim` while all hosts speak and somebody watches.
fn watch_with_crash(victim: &str) -> Result<()> {
    let mut fleet = Fleet::tree(2, 1)?;
    let (first, second) = (wait_at(&fleet, "first"), wait_at(&fleet, "second"));
    let line = format!("seq 20000; {first}; echo two; {second}; echo three");
    let operator = Operator::start(&fleet, &["run", "-a", &line])?;
    let hosts = ["site1-host1", "site2-host1"];
    for host in hosts {
        operator.wait_line(&format!("{host}: 1"))?;
    }
    fleet.kill(victim)?;
    open(&fleet, "first")?;
    fleet.restart(victim)?;
    // Over the new links they are heard again, while the command still runs.
    for host in hosts {
        operator.wait_line(&format!("{host}: two"))?;
    }
    open(&fleet, "second")?;
    let numbers = (1..=20_000).map(|n| n.to_string());
    let expected: Vec<_> = numbers.chain(["two".into(), "three".into()]).collect();
    let lines = operator.finish()?;
    assert!(lines.keys().eq(hosts), "{:?}", lines.keys());
    assert!(lines.values().all(|lines| *lines == expected));
    Ok(())
}

#[test]
fn a_relay_that_dies_costs_no_line_and_doubles_none() -> Result<()> {
    watch_with_crash("site1-relay")
}

#[test]
fn a_controller_that_dies_costs_no_line_and_doubles_none() -> Result<()> {
    watch_with_crash("controller")
}

/// The most memory that a process has ever had, in KiB.
fn peak_kib(fleet: &Fleet, name: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", fleet.pid(name)?))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("a peak")?;
    Ok(line.split_whitespace().next().context("a number")?.parse()?)
}

#[test]
fn a_host_that_says_too_much_hurts_nobody() -> Result<()> {
    let fleet = Fleet::tree(1, 3)?;
    let nodes = ["controller", "site1-relay", "site1-host1"];
    let before = nodes.map(|name| peak_kib(&fleet, name));
    // 64 MiB of lines, and then it waits; the two others are brief.
    let line = format!(
        "case $BARID_NODE in *1) yes 'a line that says very little' | head -c 67108864; {};; esac; \
         echo end",
        wait_at(&fleet, "go")
    );
    let begun = Instant::now();
    let operator = Operator::start(&fleet, &["run", "-a", &line])?;
    operator.wait_line("site1-host1: a line that says very little")?;
    operator.wait_line("site1-host2: end")?;
    operator.wait_line("site1-host3: end")?;
    open(&fleet, "go")?;
    let (lines, remarks) = operator.finish_with_remarks()?;
    let took = begun.elapsed();
    let id = fleet.json(&["runs", "--limit", "1", "--json"])?[0]["id"].clone();
    let detail = fleet.order(id.as_str().context("an id")?)?;
    let answer = crate::answer(&detail, "site1-host1")?;
    assert_eq!(answer["stdout_size"], 67_108_864 + 4);
    // What was shown is what is kept, nothing of it twice, and then some of the rest, in whole
    // lines but for those at which it is said that something was left out.
    let kept: Vec<_> = answer["stdout"].as_str().context("text")?.lines().collect();
    assert!(kept.len() > 1_000, "{}", kept.len());
    let (first, rest) = lines["site1-host1"].split_at(kept.len() - 1);
    assert_eq!(first, &kept[..kept.len() - 1]);
    // Beyond what is kept a host tells 16 KiB every half second. The first line was begun before.
    let told: usize = rest.iter().map(String::len).sum();
    let pieces = 1 + took.as_millis() / 500;
    assert!(told as u128 <= pieces * (16 << 10) + 40, "{told} in {took:?}");
    let is_whole = |line: &str| ["a line that says very little", "end"].contains(&line);
    let parts = rest.iter().filter(|line| !is_whole(line)).count();
    let says = |remark: &&String| {
        remark.contains("were left out here") || remark.contains("stdout was cut")
    };
    assert!(parts <= remarks.iter().filter(says).count(), "{rest:?} {remarks:?}");
    for (name, before) in nodes.into_iter().zip(before) {
        let grown = peak_kib(&fleet, name)?.saturating_sub(before?);
        assert!(grown < 48 << 10, "{name} has grown by {grown} KiB");
    }
    Ok(())
}

#[test]
fn who_does_not_read_holds_nobody_up_and_misses_nothing() -> Result<()> {
    let fleet = Fleet::tree(1, 2)?;
    let line = format!("seq 30000; {}; seq 30001 30010", wait_at(&fleet, "go"));
    let operator = Operator::start(&fleet, &["run", "-a", &line])?;
    operator.wait_line("site1-host1: 1")?;
    operator.signal(Signal::STOP)?;
    let id = fleet.json(&["runs", "--limit", "1", "--json"])?[0]["id"].clone();
    let id = id.as_str().context("an id")?;
    // Another one sees everything meanwhile.
    let watcher = Watcher::start(&fleet, id)?;
    let all: String = (1..=30_000).map(|n| format!("{n}\n")).collect();
    watcher.wait_heard("site1-host2", &all)?;
    open(&fleet, "go")?;
    fleet.wait_states(id, &[("ok", 2)])?;
    operator.signal(Signal::CONT)?;
    let expected: Vec<String> = (1..=30_010).map(|n| n.to_string()).collect();
    let hosts = ["site1-host1", "site1-host2"];
    let lines = operator.finish()?;
    assert!(lines.keys().eq(hosts), "{:?}", lines.keys());
    assert!(lines.values().all(|lines| *lines == expected));
    Ok(())
}

#[test]
fn a_command_that_never_ends_is_heard_beyond_what_its_answer_keeps() -> Result<()> {
    let fleet = Fleet::tree(1, 1)?;
    let gates = ["first", "second", "third"].map(|gate| wait_at(&fleet, gate));
    let [first, second, third] = &gates;
    // Some 350 kB, of which an answer keeps 192 KiB; then far more than is at hand.
    let line = format!("seq 60000; {first}; echo two; {second}; seq 90000; echo three; {third}");
    let operator = Operator::start(&fleet, &["run", "-a", &line])?;
    operator.wait_line("site1-host1: 1")?;
    operator.wait_line("site1-host1: 60000")?;
    open(&fleet, "first")?;
    operator.wait_line("site1-host1: two")?;
    // Somebody who comes only now hears the beginning, and what is new.
    let late = Operator::start(&fleet, &["attach", "last"])?;
    late.wait_line("site1-host1: 1")?;
    late.wait_line("site1-host1: two")?;
    open(&fleet, "second")?;
    operator.wait_line("site1-host1: three")?;
    late.wait_line("site1-host1: three")?;
    open(&fleet, "third")?;
    for viewer in [operator, late] {
        let lines = &viewer.finish()?["site1-host1"];
        let twice = |word: &str| lines.iter().filter(|line| *line == word).count();
        assert_eq!((twice("two"), twice("three")), (1, 1));
        // Nothing that the answer keeps is missing.
        let kept = (1..30_000).map(|n| n.to_string());
        assert!(kept.zip(lines).all(|(number, line)| number == *line));
    }
    Ok(())
}

#[test]
fn a_command_of_which_little_is_kept_is_heard_all_the_same() -> Result<()> {
    let fleet = Fleet::tree(1, 1)?;
    // Far more than is kept and at hand, and far less than an answer could keep.
    let line = format!("seq 20000; {}; echo end", wait_at(&fleet, "go"));
    let run = json!({
        "targets": { "all": true }, "argv": [line], "shell": true,
        "reach_ms": 60_000, "timeout_ms": 60_000, "output_limit": 100,
    });
    let id = post_run(&fleet, &run)?;
    assert_eq!(fleet.order(&id)?["order"]["output_limit"], 100);
    let operator = Operator::start(&fleet, &["attach", &id])?;
    operator.wait_line("site1-host1: 1")?;
    operator.wait_line("site1-host1: 20000")?;
    open(&fleet, "go")?;
    let lines = &operator.finish()?["site1-host1"];
    assert_eq!(lines[..30], (1..=30).map(|n| n.to_string()).collect::<Vec<_>>());
    Ok(())
}
