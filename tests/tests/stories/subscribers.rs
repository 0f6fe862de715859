//! A thousand programs that have subscribed at one node: each hears everything once and in its
//! sequence, whoever among them reads nothing, and neither siblings nor orders wait for them. And
//! many who publish faster than others read.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use tests::{Fleet, LIMIT, binary, connect, show, wait_for};

use crate::bus::{Publisher, Subscriber, publish, wait_heard};
use crate::metrics::scrape;

/// How many there are, and of how many one reads nothing.
const SUBSCRIBERS: usize = 1_000;
const DEAF: usize = 4;
/// How many messages each is to hear.
const WORDS: usize = 20;
/// How many come for those who read nothing, and how long each is.
const FLOOD: usize = 2_000;
const BYTES: usize = 500;

/// A program that has subscribed, without a process of its own.
pub(super) fn subscribe(socket: &Path, patterns: &[&str]) -> Result<BufReader<UnixStream>> {
    let mut stream = connect(socket)?;
    let subjects: Vec<_> = patterns.iter().map(|text| format!("subject={text}")).collect();
    let what = format!("/v1/bus/sub?{}", subjects.join("&").replace('>', "%3E"));
    write!(stream, "POST {what} HTTP/1.1\r\nhost: barid\r\ncontent-length: 0\r\n\r\n")?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while !line.contains("\"ready\"") {
        line.clear();
        ensure!(reader.read_line(&mut line)? > 0, "the node has closed the connection");
    }
    Ok(reader)
}

/// What one of them hears up to the last word, and how many he is told that he has missed.
fn hears(reader: &mut BufReader<UnixStream>, last: &str) -> Result<(Vec<String>, u64)> {
    let (mut heard, mut missed, mut line) = (Vec::new(), 0, String::new());
    loop {
        line.clear();
        ensure!(reader.read_line(&mut line)? > 0, "the node has closed the connection");
        // Between the lines stand the lengths of chunks.
        let Ok(said) = serde_json::from_str::<Value>(&line) else { continue };
        missed += said["missed"].as_u64().unwrap_or_default();
        let Some(data) = said["message"]["data"].as_str() else { continue };
        if data == last {
            return Ok((heard, missed));
        }
        if data != "probe" {
            heard.push(data.to_owned());
        }
    }
}

/// What a node holds in memory, in bytes.
fn memory(fleet: &Fleet, node: &str) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{}/status", fleet.pid(node)?))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("its memory")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
}

/// How many messages a node has dropped for some.
pub(super) fn dropped(fleet: &Fleet, node: &str, place: &str) -> Result<f64> {
    let page = scrape(fleet, node, "/metrics")?;
    Ok(page.value("barid_bus_dropped_total", &[("for", place)]).unwrap_or_default())
}

#[test]
fn a_thousand_subscribers_hear_everything_and_hurt_nobody() -> Result<()> {
    let fleet = Fleet::tree(1, 2)?;
    let socket = fleet.state("site1-host1").join("node.sock");
    let is_deaf = |no: &usize| no.is_multiple_of(DEAF);
    let mut all = (0..SUBSCRIBERS)
        .map(|no| {
            let both = ["crowd.>", "flood.>"];
            let patterns = if is_deaf(&no) { &both[..] } else { &both[..1] };
            subscribe(&socket, patterns).with_context(|| format!("the {no}th"))
        })
        .collect::<Result<Vec<_>>>()?;
    let mut sibling = Subscriber::new(&fleet, "site1-host2", &["crowd.>", "sibling"])?;
    // What all want is heard of the others already.
    wait_heard(&fleet, "controller", "sibling", true)?;
    wait_heard(&fleet, "controller", "crowd.word", true)?;
    let page = scrape(&fleet, "site1-host1", "/metrics")?;
    let subscribers = page.value("barid_bus_subscribers", &[]);
    assert!(subscribers >= Some(SUBSCRIBERS as f64), "{subscribers:?}");

    // Those who read nothing have their queues full, and one who reads as they do misses nothing.
    let mut reads = subscribe(&socket, &["flood.>"])?;
    let reading = std::thread::spawn(move || hears(&mut reads, "last"));
    let before = memory(&fleet, "site1-host1")?;
    let mut publisher = Publisher(connect(&socket)?);
    let body = "x".repeat(BYTES);
    for _ in 0..FLOOD {
        publisher.publish("flood.word", body.as_bytes())?;
    }
    publisher.publish("flood.word", b"last")?;
    let (heard, missed) = reading.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
    assert_eq!((heard.len(), missed), (FLOOD, 0));
    let grown = memory(&fleet, "site1-host1")?.saturating_sub(before);
    assert!(grown < 64 << 20, "what waits for many is held once: {grown}");
    assert!(dropped(&fleet, "site1-host1", "subscriber")? > 0.0, "they read nothing");

    let words: Vec<String> = (0..WORDS).map(|no| format!("word {no}")).collect();
    for word in &words {
        assert!(publish(&fleet, "controller", "crowd.word", word)?);
    }
    // Orders go on, and who lives beside them has heard it all.
    assert!(fleet.barid(&["run", "-a", "true"])?.status.success());
    for word in &words {
        assert_eq!(sibling.message()?["data"], word.as_str());
    }
    assert!(publish(&fleet, "controller", "crowd.word", "last")?);
    for (no, reader) in all.iter_mut().enumerate().filter(|(no, _)| !is_deaf(no)) {
        assert_eq!(hears(reader, "last")?, (words.clone(), 0), "the {no}th");
    }
    // Who begins to read is told how much he has not heard.
    let all_words = FLOOD + 1 + WORDS + 1;
    let publishing = std::thread::spawn(move || -> Result<()> {
        // He may have no room for the last word yet.
        for _ in 0..100 {
            publisher.publish("flood.end", b"end")?;
            std::thread::yield_now();
        }
        Ok(())
    });
    let (heard, missed) = hears(&mut all[0], "end")?;
    publishing.join().map_err(|_| anyhow::anyhow!("the publisher panicked"))??;
    let known = heard.len() as u64 + missed;
    assert!(missed > 0 && known >= all_words as u64 && known <= all_words as u64 + 100, "{known}");
    Ok(())
}

/// Publishes large messages until the node has the program wait. Returns how many that took.
fn until_slowed(fleet: &Fleet, node: &str) -> Result<usize> {
    const BYTES: usize = 60_000;
    let mut publisher = Publisher(connect(fleet.state(node).join("node.sock"))?);
    let mut said = 0;
    wait_for(&format!("{node} to have a program wait"), LIMIT, || {
        for _ in 0..20 {
            publisher.publish("flood.word", &[b'x'; BYTES])?;
        }
        said += 20;
        let page = scrape(fleet, node, "/metrics")?;
        let waited = page.value("barid_bus_waited_total", &[]).unwrap_or_default();
        Ok((waited > 0.0).then_some(()))
    })?;
    Ok(said)
}

#[test]
fn a_program_is_slowed_before_what_it_publishes_is_lost() -> Result<()> {
    // With slow beats, so that a node that is stopped for a moment is not taken for dead.
    let mut fleet = Fleet::with(binary()?, "redial_base_ms = 200\nredial_cap_ms = 2000\n")?;
    fleet.grow(1, 1)?;
    let host = fleet.state("site1-host1").join("node.sock");
    let mut reads = subscribe(&host, &["flood.>"])?;
    wait_heard(&fleet, "site1-relay", "flood.word", true)?;
    // One who reads nothing.
    let said = until_slowed(&fleet, "site1-host1")?;
    let mut publisher = Publisher(connect(&host)?);
    let reading = std::thread::spawn(move || {
        let heard = hears(&mut reads, "last");
        (reads, heard)
    });
    while !reading.is_finished() {
        publisher.publish("flood.word", b"last")?;
    }
    let (_reads, heard) = reading.join().map_err(|_| anyhow::anyhow!("the reader panicked"))?;
    let (heard, missed) = heard?;
    let known = heard.len() + usize::try_from(missed)?;
    assert!(known >= said, "nothing is lost that is not told: {known} of {said}");
    // A node that reads nothing.
    fleet.signal("site1-host1", Signal::STOP)?;
    let slowed = until_slowed(&fleet, "site1-relay");
    fleet.signal("site1-host1", Signal::CONT)?;
    slowed?;
    Ok(())
}

/// How many messages were lost with links of this node that broke, by its events.
pub(super) fn cut_off(fleet: &Fleet, node: &str) -> Result<u64> {
    let output = fleet.barid(&["events", "--json", "--since", "1h", "bus.cut-off"])?;
    let lines = show(&output.stdout);
    let events: Vec<Value> =
        lines.lines().map(|line| Ok(serde_json::from_str(line)?)).collect::<Result<_>>()?;
    let of = events.iter().filter(|event| event["set"] == node);
    Ok(of.filter_map(|event| event["count"].as_u64()).sum())
}

#[test]
fn what_waits_for_a_link_that_breaks_is_counted_and_told() -> Result<()> {
    let mut fleet = Fleet::with(binary()?, "redial_base_ms = 200\nredial_cap_ms = 2000\n")?;
    fleet.grow(1, 1)?;
    let _reads = subscribe(&fleet.state("site1-host1").join("node.sock"), &["flood.>"])?;
    wait_heard(&fleet, "site1-relay", "flood.word", true)?;
    fleet.signal("site1-host1", Signal::STOP)?;
    let slowed = until_slowed(&fleet, "site1-relay");
    let said = match slowed {
        Ok(said) => said as f64,
        Err(error) => {
            fleet.signal("site1-host1", Signal::CONT)?;
            return Err(error);
        }
    };
    assert_eq!(dropped(&fleet, "site1-relay", "broken-link")?, 0.0);
    let full = dropped(&fleet, "site1-relay", "link")?;
    fleet.kill("site1-host1")?;
    // A queue of a link holds 1 MiB, and that many are no more than were said.
    let lost = wait_for("what waited to be counted", LIMIT, || {
        let lost = dropped(&fleet, "site1-relay", "broken-link")?;
        Ok((lost >= 17.0).then_some(lost))
    })?;
    assert!(lost + full <= said, "{lost} and {full} of {said}");
    wait_for("it to be told", LIMIT, || {
        Ok((cut_off(&fleet, "site1-relay")? as f64 == lost).then_some(()))
    })?;
    // Who is back hears again.
    fleet.restart("site1-host1")?;
    fleet.wait_up(2)?;
    let mut reads = subscribe(&fleet.state("site1-host1").join("node.sock"), &["flood.>"])?;
    wait_heard(&fleet, "site1-relay", "flood.word", true)?;
    assert!(publish(&fleet, "site1-relay", "flood.word", "last")?);
    assert_eq!(hears(&mut reads, "last")?, (Vec::new(), 0));
    Ok(())
}
