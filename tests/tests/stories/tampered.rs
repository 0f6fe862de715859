//! A relay that lies about content: the node below it refuses, says who it was, and goes on where
//! it was as soon as somebody tells the truth.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{Fleet, LIMIT, Spec, listing, noise, show, wait_for};

use crate::double::{Lie, RelayDouble};
use crate::order;

fn altered(fleet: &Fleet) -> Result<Vec<Value>> {
    let output = fleet.barid(&["events", "--json", "--since", "1d", "push"])?;
    let lines = show(&output.stdout);
    let events = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    Ok(events.filter(|event| event["subject"] == "push.altered").collect())
}

#[test]
fn what_a_relay_alters_truncates_mixes_or_extends_is_refused_by_the_next_node() -> Result<()> {
    let mut fleet = Fleet::new()?;
    fleet.add(&Spec::new("relay", "liar", "controller").at("lyon"))?;
    fleet.add(&Spec::new("relay", "r2", "liar").at("lyon"))?;
    fleet.add(&Spec::new("host", "web1", "r2").at("lyon"))?;
    fleet.wait_up(3)?;
    fleet.kill("liar")?;
    let [listen, parent] = ["liar", "controller"].map(|name| fleet.listen(name));
    let double = RelayDouble::start(&fleet.state("liar"), &listen?, &parent?)?;
    let mut told = 0;
    for (n, lie) in [Lie::Alter, Lie::Truncate, Lie::Mix, Lie::Extend].into_iter().enumerate() {
        let source = fleet.path().join(format!("source{n}"));
        fs::create_dir(&source)?;
        fs::write(source.join("file"), noise(n as u64, 3 << 20))?;
        let text = source.to_str().context("a plain path")?;
        let dest = format!("/srv/{n}");
        let args = ["push", text, "-w", "web1", "--dest", &dest, "--async", "--json"];
        double.lie(lie);
        let id = order(&fleet, &args)?;
        fleet.wait_states(&id, &[("failed", 1)]).with_context(|| format!("{lie:?}"))?;
        ensure!(double.lied() >= 3, "{lie:?}: it has lied {} times", double.lied());
        ensure!(!fleet.at("web1", &dest).exists(), "{lie:?}: something of it is in place");
        let count = |events: &[Value]| -> u64 {
            events.iter().filter_map(|event| event["count"].as_u64()).sum()
        };
        let events = wait_for("the lies to be events", LIMIT, || {
            let events = altered(&fleet)?;
            Ok((count(&events) >= told + 3).then_some(events))
        })?;
        told = count(&events);
        for event in &events {
            let line = event["line"].as_str().context("a line")?;
            ensure!(line.contains("parent liar has sent other bytes"), "{lie:?}: {line}");
            ensure!(event["set"] == "r2", "{lie:?}: {event}");
        }
        double.lie(Lie::None);
        let id = order(&fleet, &args)?;
        fleet.wait_states(&id, &[("ok", 1)]).with_context(|| format!("after {lie:?}"))?;
        ensure!(listing(&fleet.at("web1", &dest))? == listing(&source)?, "{lie:?}");
    }
    Ok(())
}

/// An address, and from where datagrams have come to it until now.
fn strangers() -> Result<(SocketAddr, Arc<Mutex<BTreeSet<SocketAddr>>>)> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let (address, seen) = (socket.local_addr()?, Arc::<Mutex<BTreeSet<_>>>::default());
    let noting = seen.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 2_000];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            noting.lock().expect("nobody panics").insert(from);
        }
    });
    Ok((address, seen))
}

#[test]
fn a_relay_that_sends_hosts_to_strangers_is_believed_so_often_and_costs_time_alone() -> Result<()> {
    /// Handshakes in vain, after which a host is not willing any more.
    const VAIN: usize = 16;
    let mut fleet = Fleet::new()?;
    fleet.add(&Spec::new("relay", "liar", "controller").at("lyon"))?;
    fleet.add(&Spec::new("host", "web1", "liar").at("lyon"))?;
    fleet.wait_up(2)?;
    fleet.kill("liar")?;
    let [listen, parent] = ["liar", "controller"].map(|name| fleet.listen(name));
    let double = RelayDouble::start(&fleet.state("liar"), &listen?, &parent?)?;
    let (address, seen) = strangers()?;
    double.lie(Lie::Astray(address));
    let mut pushes = Vec::new();
    for n in 0..VAIN + 8 {
        let source = fleet.path().join(format!("source{n}"));
        fs::create_dir(&source)?;
        fs::write(source.join("file"), noise(n as u64, 100_000))?;
        let text = source.to_str().context("a plain path")?.to_owned();
        let dest = format!("/srv/{n}");
        let args = ["push", &text, "-w", "web1", "--dest", &dest, "--async", "--json"];
        pushes.push((order(&fleet, &args)?, source, dest));
    }
    for (id, source, dest) in pushes {
        fleet.wait_states(&id, &[("ok", 1)])?;
        ensure!(listing(&fleet.at("web1", &dest))? == listing(&source)?, "{dest}");
    }
    let seen = seen.lock().expect("nobody panics").len();
    ensure!(double.lied() >= VAIN as u64, "it has lied {} times", double.lied());
    ensure!(seen == VAIN, "{seen} handshakes with strangers");
    Ok(())
}
