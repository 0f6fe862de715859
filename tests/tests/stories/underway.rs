//! What of the bus is under way on a link that breaks: what is published is what is delivered and
//! what is told as dropped, to the last message, where the two ends meet again; and where they do
//! not, what may be lost is told.

use std::io::BufRead;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rustix::process::Signal;
use serde_json::Value;
use tests::{Fleet, LIMIT, Spec, connect, wait_for};

use crate::bus::{Publisher, wait_heard};
use crate::failover::{two_relays, wait_parent};
use crate::metrics::scrape;
use crate::namespaces::one_site;
use crate::subscribers::{cut_off, dropped, subscribe};

const RELAY: &str = "site1-relay";
const HOST: &str = "site1-host1";
/// What a node drops on the way. What a subscriber misses he is told himself.
const WAYS: [&str; 3] = ["link", "broken-link", "broken-link-unsure"];
/// Both ends of a link beat so slowly that it is stale after 15 s.
const PACE: &str = "beat_interval_ms = 5000\nredial_base_ms = 200\nredial_cap_ms = 2000\n";
const DARK: Duration = Duration::from_secs(20);
/// Long enough for some of them to be in packets of their own.
const BYTES: usize = 900;

/// Somebody who publishes as fast as his node takes it, and somebody who hears it.
struct Flood {
    /// Messages that somebody has wanted, and what has come of them, what was missed included.
    wanted: Arc<AtomicU64>,
    heard: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    publishing: JoinHandle<Result<()>>,
}

impl Flood {
    fn begin(fleet: &Fleet, from: &str, to: &str, subject: &'static str) -> Result<Flood> {
        let reader = subscribe(&fleet.state(to).join("node.sock"), &[subject])?;
        let heard = Arc::<AtomicU64>::default();
        let count = heard.clone();
        // It ends with the node.
        std::thread::spawn(move || hear(reader, &count));
        wait_heard(fleet, from, subject, true)?;
        let mut publisher = Publisher(connect(fleet.state(from).join("node.sock"))?);
        let (wanted, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (count, over) = (wanted.clone(), stop.clone());
        let publishing = std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let is_wanted = publisher.publish(subject, &[b'x'; BYTES])?;
                count.fetch_add(u64::from(is_wanted), Ordering::Relaxed);
            }
            Ok(())
        });
        let flood = Flood { wanted, heard, stop, publishing };
        flood.wait_more("the flood to arrive")?;
        Ok(flood)
    }

    fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    /// Waits until more has come.
    fn wait_more(&self, what: &str) -> Result<()> {
        let before = self.heard();
        wait_for(what, LIMIT, || Ok((self.heard() > before + 100).then_some(())))
    }

    /// Publishes no more. Returns how many were wanted, and where it is counted what was heard.
    fn end(self) -> Result<(u64, Arc<AtomicU64>)> {
        self.stop.store(true, Ordering::Relaxed);
        self.publishing.join().map_err(|_| anyhow!("the publisher panicked"))??;
        Ok((self.wanted.load(Ordering::Relaxed), self.heard))
    }
}

/// Counts what comes, and what is missed.
fn hear(mut reader: impl BufRead, count: &AtomicU64) {
    let mut line = String::new();
    while reader.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
        if let Ok(said) = serde_json::from_str::<Value>(&line) {
            let is_flood = said["message"]["data"].as_str().is_some_and(|data| data != "probe");
            let missed = said["missed"].as_u64().unwrap_or_default();
            count.fetch_add(u64::from(is_flood) + missed, Ordering::Relaxed);
        }
        line.clear();
    }
}

/// What these nodes have dropped in one of the ways.
fn all_dropped(fleet: &Fleet, nodes: &[&str], way: &str) -> Result<u64> {
    let counts = nodes.iter().map(|node| dropped(fleet, node, way));
    Ok(counts.collect::<Result<Vec<_>>>()?.into_iter().sum::<f64>() as u64)
}

#[test]
fn what_is_under_way_on_a_line_that_breaks_is_delivered_or_told_to_the_last_message() -> Result<()>
{
    let relay = Spec::new("relay", RELAY, "controller").at("site1");
    let Some((mut fleet, lab)) = one_site("weak", PACE, &relay, &[HOST.into()])? else {
        return Ok(());
    };
    let nodes = ["controller", RELAY, HOST];
    let floods = [
        Flood::begin(&fleet, "controller", HOST, "flood.down")?,
        Flood::begin(&fleet, HOST, "controller", "flood.up")?,
    ];
    let losses = || [0, 1].map(|n| fleet.log(nodes[n]).matches(" unlinked").count());
    let before = losses();
    lab.sites[0].link().darken(DARK);
    wait_for("both ends to miss each other", LIMIT, || {
        let now = losses();
        Ok((now[0] > before[0] && now[1] > before[1]).then_some(()))
    })?;
    fleet.wait_up(2)?;
    for flood in &floods {
        flood.wait_more("the flood to arrive again")?;
    }
    let ends = floods.into_iter().map(Flood::end).collect::<Result<Vec<_>>>()?;
    let wanted: u64 = ends.iter().map(|(wanted, _)| wanted).sum();
    let heard = || ends.iter().map(|(_, heard)| heard.load(Ordering::Relaxed)).sum::<u64>();
    let told = |fleet: &Fleet| WAYS.iter().map(|way| all_dropped(fleet, &nodes, way)).sum();
    let mut last = (0, 0);
    let known = wait_for("all to be delivered or told", LIMIT, || {
        let dropped: Result<u64> = told(&fleet);
        last = (heard(), dropped?);
        Ok((last.0 + last.1 >= wanted).then_some(last))
    });
    let (delivered, lost) = known.with_context(|| format!("{last:?} of {wanted}"))?;
    assert_eq!(delivered + lost, wanted, "{delivered} were delivered and {lost} told");
    assert!(all_dropped(&fleet, &nodes, "broken-link")? > 0, "the line has broken in the flood");
    assert_eq!(all_dropped(&fleet, &nodes, "broken-link-unsure")?, 0, "they have met again");
    // The fleet is told of as many.
    wait_for("it to be told in the fleet", LIMIT, || {
        let events: u64 = nodes.iter().map(|node| cut_off(&fleet, node)).sum::<Result<u64>>()?;
        Ok((events == all_dropped(&fleet, &nodes, "broken-link")?).then_some(()))
    })?;
    assert_eq!((heard(), told(&fleet)?), (delivered, lost), "nothing is counted twice");
    Ok(())
}

/// Bytes of beats that the host has from the first relay.
fn beats_of(fleet: &Fleet) -> Result<f64> {
    let page = scrape(fleet, "web", "/metrics")?;
    let labels = [("side", "parent"), ("peer", "r1"), ("dir", "received"), ("class", "beats")];
    page.value("barid_link_bytes_total", &labels).context("its beats")
}

#[test]
fn who_goes_to_another_relay_tells_what_may_have_been_lost_with_the_first() -> Result<()> {
    // It stays where it is.
    let mut fleet = two_relays("")?;
    wait_parent(&fleet, "web", "r1")?;
    let flood = Flood::begin(&fleet, "web", "controller", "flood.up")?;
    // What has come so far the relay says with its next beats.
    let (arrived, mut beats) = (flood.heard(), beats_of(&fleet)?);
    for _ in 0..3 {
        beats = wait_for("a beat", LIMIT, || {
            let now = beats_of(&fleet)?;
            Ok((now > beats).then_some(now))
        })?;
    }
    fleet.signal("r1", Signal::STOP)?;
    wait_parent(&fleet, "web", "r2")?;
    flood.wait_more("the flood to come by the other relay")?;
    fleet.kill("r1")?;
    let (wanted, heard) = flood.end()?;
    let nodes = ["web", "r2", "controller"];
    let told = |way| all_dropped(&fleet, &nodes, way);
    let unsure = wait_for("what may be lost to be told", LIMIT, || {
        let unsure = told("broken-link-unsure")?;
        Ok((unsure > 0).then_some(unsure))
    })?;
    let mut last = (0, 0);
    wait_for("what is missing to be no more than that", LIMIT, || {
        let sure = heard.load(Ordering::Relaxed) + told("link")? + told("broken-link")?;
        last = (sure, unsure);
        Ok((sure + unsure >= wanted && sure <= wanted).then_some(()))
    })
    .with_context(|| format!("{last:?} of {wanted}"))?;
    assert!(unsure + arrived <= wanted, "the relay has said that it had {arrived}: {unsure}");
    wait_for("it to be told in the fleet", LIMIT, || {
        let events: u64 = nodes.iter().map(|node| cut_off(&fleet, node)).sum::<Result<u64>>()?;
        Ok((events == told("broken-link")? + unsure).then_some(()))
    })
}
