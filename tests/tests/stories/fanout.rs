//! Hosts that get large content from each other: the relay sends it to a few of them, and whatever
//! one of these does costs nobody more than a moment.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{Fleet, LIMIT, Spec, listing, noise, show, wait_for};

use crate::double::HostDouble;
use crate::metrics::scrape;
use crate::order;

pub(crate) const RELAY: &str = "r1";
const HOSTS: usize = 8;
const BYTES: usize = 64 << 20;
const DEST: &str = "/srv/large";

/// A port that is taken to be slow, so that these few hosts are many. On a busy machine nobody is
/// near.
const FANOUT: &str = "[siblings]\nfanout = 2\nport_mbit = 10\nworth_ms = 100\nnear_ms = 10000\n";

pub(crate) fn host(n: usize) -> String {
    format!("web{n}")
}

/// A relay with its hosts, of which the first `lines.len()` have these lines in their settings.
fn site(relay: &str, hosts: usize, lines: &[&str]) -> Result<Fleet> {
    let mut fleet = Fleet::new()?;
    fleet.add(&Spec::new("relay", RELAY, "controller").at("lyon").with(relay))?;
    for n in 0..hosts {
        let lines = lines.get(n).copied().unwrap_or_default();
        fleet.add(&Spec::new("host", &host(n), RELAY).at("lyon").with(lines))?;
    }
    fleet.wait_up(1 + hosts as u64)?;
    Ok(fleet)
}

fn push(fleet: &Fleet, bytes: usize, to: &[&str]) -> Result<String> {
    push_as(fleet, "large", (7, bytes), to)
}

/// Pushes a folder of this name in the fleet's own, with a file of so many bytes that a seed gives.
pub(crate) fn push_as(
    fleet: &Fleet,
    name: &str,
    (seed, bytes): (u64, usize),
    to: &[&str],
) -> Result<String> {
    let source = fleet.path().join(name);
    if !source.exists() {
        fs::create_dir(&source)?;
        fs::write(source.join("file"), noise(seed, bytes))?;
    }
    let text = source.to_str().context("a plain path")?;
    let dest = format!("/srv/{name}");
    order(fleet, &[&["push", text, "--dest", &dest, "--async", "--json"], to].concat())
}

/// Content that the relay has sent to hosts.
pub(crate) fn sent(fleet: &Fleet) -> Result<f64> {
    let labels = [("side", "host"), ("dir", "sent"), ("class", "content")];
    let page = scrape(fleet, RELAY, "/metrics")?;
    Ok(page.value("barid_link_bytes_total", &labels).unwrap_or_default())
}

/// Content that a host has fetched from siblings, and given to them.
pub(crate) fn of_siblings(fleet: &Fleet, host: &str) -> Result<[f64; 2]> {
    let page = scrape(fleet, host, "/metrics")?;
    let value = |dir| page.value("barid_sibling_bytes_total", &[("dir", dir)]).unwrap_or_default();
    Ok([value("received"), value("sent")])
}

fn ensure_equal(fleet: &Fleet, hosts: std::ops::Range<usize>) -> Result<()> {
    let expected = listing(&fleet.path().join("large"))?;
    for n in hosts {
        ensure!(listing(&fleet.at(&host(n), DEST))? == expected, "{} has another tree", host(n));
    }
    Ok(())
}

#[test]
fn a_relay_of_many_sends_large_content_to_a_few() -> Result<()> {
    let fleet = site(FANOUT, HOSTS, &[])?;
    let id = push(&fleet, BYTES, &["-a"])?;
    fleet.wait_states(&id, &[("ok", HOSTS as u64)])?;
    ensure_equal(&fleet, 0..HOSTS)?;
    let relay = sent(&fleet)?;
    let all: Vec<_> = (0..HOSTS).map(|n| of_siblings(&fleet, &host(n))).collect::<Result<_>>()?;
    let received: f64 = all.iter().map(|[received, _]| received).sum();
    let flat = (HOSTS * BYTES) as f64;
    println!("fanout: the relay has sent {relay} of {flat}, siblings {received}");
    assert!(relay < flat * 0.6, "the relay has sent {relay} of {flat}");
    // Each byte has come to each host once.
    let sum = relay + received;
    assert!(sum > flat && sum < flat * 1.05, "{sum} of {flat}");
    assert!(all.iter().filter(|[_, sent]| *sent > 0.0).count() >= 2, "{all:?}");
    Ok(())
}

#[test]
fn a_few_hosts_or_a_relay_that_does_not_want_it_change_nothing() -> Result<()> {
    for relay in ["", "[siblings]\nfanout = 0\nport_mbit = 10\nnear_ms = 10000\n"] {
        let fleet = site(relay, 4, &[])?;
        let id = push(&fleet, 8 << 20, &["-a"])?;
        fleet.wait_states(&id, &[("ok", 4)])?;
        ensure!(sent(&fleet)? > f64::from(4 * (8 << 20)));
        for n in 0..4 {
            assert_eq!(of_siblings(&fleet, &host(n))?, [0.0, 0.0]);
            assert!(!fleet.log(&host(n)).contains("letting siblings in"));
        }
    }
    Ok(())
}

#[test]
fn a_host_that_dies_or_does_not_take_part_costs_its_siblings_nothing_twice() -> Result<()> {
    let mut fleet = site(FANOUT, HOSTS, &["", "[siblings]\nserve = false\n"])?;
    let id = push(&fleet, BYTES, &["-a"])?;
    let victim = wait_for("a host to serve siblings", LIMIT, || {
        let serves = |n: &usize| of_siblings(&fleet, &host(*n)).is_ok_and(|[_, sent]| sent > 1e6);
        Ok((0..HOSTS).find(serves))
    })?;
    fleet.kill(&host(victim))?;
    fleet.restart(&host(victim))?;
    fleet.wait_states(&id, &[("ok", HOSTS as u64)])?;
    ensure_equal(&fleet, 0..HOSTS)?;
    assert_eq!(of_siblings(&fleet, &host(1))?, [0.0, 0.0], "it does not take part");
    let others = (0..HOSTS).filter(|n| *n != victim);
    let received: Vec<_> =
        others.map(|n| Ok(of_siblings(&fleet, &host(n))?[0])).collect::<Result<_>>()?;
    let sum = sent(&fleet)? + received.iter().sum::<f64>();
    // What the victim had fetched itself is forgotten with it; nobody else fetches anything twice.
    let flat = (HOSTS * BYTES) as f64;
    assert!(sum < flat * 1.1, "{sum} of {flat}");
    Ok(())
}

#[test]
fn a_host_that_lies_is_refused_and_named() -> Result<()> {
    let mut fleet = site(&FANOUT.replace("fanout = 2", "fanout = 1"), 4, &[])?;
    let liar = host(0);
    fleet.kill(&liar)?;
    fleet.wait_up(4)?;
    let double = HostDouble::start(&fleet.state(&liar), &fleet.listen(RELAY)?)?;
    fleet.wait_up(5)?;
    push(&fleet, 8 << 20, &["-w", &liar])?;
    wait_for("the double to have the content", LIMIT, || Ok((double.had() > 0).then_some(())))?;
    let id = push(&fleet, 8 << 20, &["-w", "web[1-3]"])?;
    fleet.wait_states(&id, &[("ok", 3)])?;
    ensure_equal(&fleet, 1..4)?;
    ensure!(double.lied() > 0, "nobody was sent to it");
    let event = wait_for("the lie to be an event", LIMIT, || {
        let output = fleet.barid(&["events", "--json", "--since", "1d", "push"])?;
        let lines = show(&output.stdout);
        let events = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        Ok(events.into_iter().find(|event| event["subject"] == "push.altered"))
    })?;
    let line = event["line"].as_str().context("a line")?;
    ensure!(line.contains(&format!("host {liar} has sent other bytes")), "{line}");
    Ok(())
}
