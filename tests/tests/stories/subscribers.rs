//! A thousand programs that have subscribed at one node: each hears everything once and in its
//! sequence, whoever among them reads nothing, and neither siblings nor orders wait for them.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{Fleet, connect};

use crate::bus::{Subscriber, publish, wait_heard};
use crate::metrics::scrape;

/// How many there are, and of how many one reads nothing.
const SUBSCRIBERS: usize = 1_000;
const DEAF: usize = 4;
/// How many messages each is to hear.
const WORDS: usize = 20;

/// A program that has subscribed, without a process of its own.
fn subscribe(socket: &Path) -> Result<BufReader<UnixStream>> {
    let mut stream = connect(socket)?;
    let head = "POST /v1/bus/sub?subject=crowd.> HTTP/1.1\r\nhost: barid\r\ncontent-length: 0\r\n";
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while !line.contains("\"ready\"") {
        line.clear();
        ensure!(reader.read_line(&mut line)? > 0, "the node has closed the connection");
    }
    Ok(reader)
}

/// What one of them hears, up to the last word.
fn hears(reader: &mut BufReader<UnixStream>) -> Result<Vec<String>> {
    let (mut heard, mut line) = (Vec::new(), String::new());
    loop {
        line.clear();
        ensure!(reader.read_line(&mut line)? > 0, "the node has closed the connection");
        // Between the lines stand the lengths of chunks.
        let Ok(said) = serde_json::from_str::<Value>(&line) else { continue };
        ensure!(said["missed"].is_null(), "it misses some: {said}");
        let Some(data) = said["message"]["data"].as_str() else { continue };
        if data == "last" {
            return Ok(heard);
        }
        if data != "probe" {
            heard.push(data.to_owned());
        }
    }
}

#[test]
fn a_thousand_subscribers_hear_everything_and_hurt_nobody() -> Result<()> {
    let fleet = Fleet::tree(1, 2)?;
    let socket = fleet.state("site1-host1").join("node.sock");
    let mut all = (0..SUBSCRIBERS)
        .map(|no| subscribe(&socket).with_context(|| format!("the {no}th")))
        .collect::<Result<Vec<_>>>()?;
    let mut sibling = Subscriber::new(&fleet, "site1-host2", &["crowd.>", "sibling"])?;
    // What all want is heard of the others already.
    wait_heard(&fleet, "controller", "sibling", true)?;
    wait_heard(&fleet, "controller", "crowd.word", true)?;
    let before = scrape(&fleet, "site1-host1", "/metrics")?;
    let subscribers = before.value("barid_bus_subscribers", &[]);
    assert!(subscribers >= Some(SUBSCRIBERS as f64), "{subscribers:?}");
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
    for (no, reader) in all.iter_mut().enumerate().filter(|(no, _)| no % DEAF != 0) {
        assert_eq!(hears(reader)?, words, "the {no}th");
    }
    // Those who read nothing have it waiting; nothing is lost for so little.
    let after = scrape(&fleet, "site1-host1", "/metrics")?;
    assert_eq!(after.value("barid_bus_dropped_total", &[("for", "subscriber")]), None);
    Ok(())
}
