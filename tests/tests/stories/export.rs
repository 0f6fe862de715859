//! Events handed on to other programs: all of them, in their order, whoever is killed in between.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{Fleet, LIMIT, show, wait_for};

use crate::alerts::{give, wait_alerts, wait_channels};
use crate::order;

/// How long it waits for the rest of what somebody has begun to say.
const PATIENCE: Duration = Duration::from_secs(30);

/// A program that takes events, and can be dead: who connects then is cut off.
struct Receiver {
    addr: SocketAddr,
    heard: Arc<Mutex<Vec<Value>>>,
    dead: Arc<AtomicBool>,
}

impl Receiver {
    /// By HTTP, or counted lines of syslog.
    fn start(http: bool) -> Result<Receiver> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let addr = listener.local_addr()?;
        let (heard, dead) = (Arc::<Mutex<Vec<Value>>>::default(), Arc::<AtomicBool>::default());
        let (taken, died) = (heard.clone(), dead.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if died.load(Ordering::SeqCst) {
                    // It has begun to read, and is gone before it has said anything.
                    (&stream).read_exact(&mut [0]).ok();
                    continue;
                }
                // One after the other, so that the order is that in which they were sent.
                let Ok(events) = (if http { posted(&stream) } else { counted(&stream) }) else {
                    continue;
                };
                taken.lock().unwrap_or_else(PoisonError::into_inner).extend(events);
                if http {
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                    (&stream).write_all(answer).ok();
                }
            }
        });
        Ok(Receiver { addr, heard, dead })
    }

    fn all(&self) -> Vec<Value> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until it has heard of so many runs that failed, and returns how often anything came.
    /// What comes again comes in the same order.
    fn has(&self, runs: &BTreeSet<String>) -> Result<usize> {
        wait_for("all runs to be heard of", LIMIT, || {
            let failed = |event: &Value| event["subject"] == "run.failed";
            let all = self.all();
            let known: BTreeSet<_> = all
                .iter()
                .filter(|event| failed(event))
                .filter_map(|event| event["order"].as_str())
                .collect();
            Ok(runs.iter().all(|run| known.contains(run.as_str())).then_some(()))
        })?;
        let all = self.all();
        let (mut seen, mut newest) = (BTreeSet::new(), 0);
        for event in &all {
            let cursor = event["cursor"].as_u64().context("a cursor")?;
            let subject = event["subject"].as_str().context("a subject")?;
            ensure!(subject.starts_with("run"), "nobody wants {subject}");
            if seen.insert(cursor) {
                ensure!(cursor > newest, "{cursor} comes behind {newest}");
                newest = cursor;
            }
        }
        Ok(all.len())
    }
}

/// The lines of a POST.
fn posted(stream: &TcpStream) -> Result<Vec<Value>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream);
    let (mut line, mut length) = (String::new(), 0);
    while line != "\r\n" {
        line.clear();
        ensure!(reader.read_line(&mut line)? > 0, "it has ended");
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let text = String::from_utf8(body)?;
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// The texts of counted lines, up to the end.
fn counted(mut stream: &TcpStream) -> Result<Vec<Value>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (mut rest, mut events) = (text.as_str(), Vec::new());
    while let Some((length, after)) = rest.split_once(' ') {
        let (line, next) = after.split_at_checked(length.parse()?).context("a whole line")?;
        let (_, json) = line.split_once(" event - ").context("an event")?;
        events.push(serde_json::from_str(json)?);
        rest = next;
    }
    Ok(events)
}

/// A run that fails on the one host there is.
fn fail(fleet: &Fleet, runs: &mut BTreeSet<String>) -> Result<()> {
    let id = order(fleet, &["run", "-w", "site1-host1", "--async", "--json", "exit 7"])?;
    fleet.wait_states(&id, &[("failed", 1)])?;
    runs.insert(id);
    Ok(())
}

#[test]
fn every_event_is_handed_on_in_order_whoever_is_killed() -> Result<()> {
    let mut fleet = Fleet::tree(1, 1)?;
    let (hook, syslog) = (Receiver::start(true)?, Receiver::start(false)?);
    let channels = format!(
        "channels.siem = {{ alerts = false, timeout_s = 5, events = [\"run\"], \
         webhook = {{ url = \"http://{}/\" }} }}\n\
         channels.log = {{ alerts = false, timeout_s = 5, events = [\"run\"], \
         syslog = {{ tcp = \"{}\" }} }}\n",
        hook.addr, syslog.addr
    );
    let mut runs = BTreeSet::new();
    // What was there before is handed on as well.
    fail(&fleet, &mut runs)?;
    give(&fleet, "controller", &channels)?;
    wait_channels(&fleet, 2)?;
    fail(&fleet, &mut runs)?;
    let receivers = [&hook, &syslog];
    let first = runs_heard(&receivers, &runs)?;

    // They die with what they were sent, the controller is killed while it tries, and more happens.
    receivers.iter().for_each(|one| one.dead.store(true, Ordering::SeqCst));
    fail(&fleet, &mut runs)?;
    wait_alerts(&fleet, &["channel-failing/log.events", "channel-failing/siem.events"])?;
    fleet.kill("controller")?;
    fleet.restart("controller")?;
    fleet.wait_up(2)?;
    fail(&fleet, &mut runs)?;
    assert_eq!([hook.all().len(), syslog.all().len()], first, "they were dead");
    receivers.iter().for_each(|one| one.dead.store(false, Ordering::SeqCst));
    runs_heard(&receivers, &runs)?;
    wait_alerts(&fleet, &[])?;

    // A restart alone brings nothing again.
    let before = runs_heard(&receivers, &runs)?;
    fleet.kill("controller")?;
    fleet.restart("controller")?;
    fleet.wait_up(2)?;
    let again: Vec<Value> = hook.all().split_off(before[0]);
    let old = hook.all()[..before[0]].to_vec();
    assert!(again.iter().all(|event| !old.contains(event)), "{again:#?}");
    Ok(())
}

fn runs_heard(receivers: &[&Receiver; 2], runs: &BTreeSet<String>) -> Result<[usize; 2]> {
    Ok([receivers[0].has(runs)?, receivers[1].has(runs)?])
}

#[test]
fn channels_that_cannot_take_events_are_named() -> Result<()> {
    let fleet = Fleet::new()?;
    for (channel, why) in [
        ("mail = { server = \"x\", port = 1, from = \"a@b\", to = [\"c@d\"] }", "not by mail"),
        ("syslog = { udp = \"127.0.0.1:9\" }", "udp"),
    ] {
        give(&fleet, "controller", &format!("channels.x = {{ events = [\"*\"], {channel} }}\n"))?;
        let alerts = wait_for("the fault to be told", LIMIT, || {
            let alerts = show(&fleet.barid(&["alerts", "--json"])?.stdout);
            Ok(alerts.contains(why).then_some(alerts))
        })?;
        assert!(alerts.contains("channels.x: events"), "{alerts}");
    }
    fs::remove_file(fleet.state("controller").join("alerts.toml"))?;
    wait_alerts(&fleet, &[])?;
    Ok(())
}
