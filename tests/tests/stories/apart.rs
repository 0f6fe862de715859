//! Siblings on bad networks: hosts that a firewall keeps from each other, and one on a slow line.
//! Everybody gets everything, no byte twice, and what was tried in vain is not tried again.
//!
//! Needs root and namespaces; where they are absent each story says so and passes.

use anyhow::{Result, ensure};
use simulations::lab::{Lab, Site};
use tests::{Fleet, LIMIT, PACE, Spec, listing, wait_for};

use crate::fanout::{RELAY, host, of_siblings, push_as, sent};
use crate::namespaces::one_site;

const HOSTS: usize = 6;
const BYTES: usize = 16 << 20;
/// A port that is taken to be slow, so that these few hosts are many; on a busy machine nobody is
/// near.
const FANOUT: &str = "[siblings]\nfanout = 2\nport_mbit = 200\nworth_ms = 100\nnear_ms = 10000\n";

/// A relay with its hosts, each on a machine of its own; it ends before they do.
struct World {
    fleet: Fleet,
    lab: Lab,
}

impl World {
    fn new() -> Result<Option<World>> {
        let relay = Spec::new("relay", RELAY, "controller").at("lyon").with(FANOUT);
        let site = one_site("lan", PACE, &relay, &(0..HOSTS).map(host).collect::<Vec<_>>())?;
        Ok(site.map(|(fleet, lab)| World { fleet, lab }))
    }

    fn site(&self) -> &Site {
        &self.lab.sites[0]
    }

    /// What siblings have given each other.
    fn shared(&self) -> Result<f64> {
        let all = (0..HOSTS).map(|n| of_siblings(&self.fleet, &host(n)));
        all.map(|one| Ok(one?[0])).sum()
    }

    /// How often the relay has said that a sibling did not help.
    fn vain(&self) -> usize {
        self.fleet.log(RELAY).matches("a sibling did not help").count()
    }
}

#[test]
fn a_firewall_between_hosts_costs_some_tries_and_then_none() -> Result<()> {
    let Some(world) = World::new()? else { return Ok(()) };
    world.site().part_hosts()?;
    let mut tries = Vec::new();
    // Each host is failed by two others at most, before it is left out.
    while tries.len() < HOSTS && tries.last() != Some(&0) {
        let (n, before, vain) = (tries.len() as u64, sent(&world.fleet)?, world.vain());
        let id = push_as(&world.fleet, &format!("large{n}"), (n, BYTES), &["-a"])?;
        world.fleet.wait_states(&id, &[("ok", HOSTS as u64)])?;
        let relay = sent(&world.fleet)? - before;
        let flat = (HOSTS * BYTES) as f64;
        ensure!(relay > flat && relay < flat * 1.05, "the relay has sent {relay} of {flat}");
        tries.push(world.vain() - vain);
    }
    println!("apart: tries in vain during each push: {tries:?}");
    ensure!(tries[0] > 0, "nobody was sent to a sibling");
    ensure!(tries.last() == Some(&0), "what was in vain is tried again: {tries:?}");
    assert_eq!(world.shared()?, 0.0);
    Ok(())
}

#[test]
fn a_sibling_on_a_slow_line_is_left_and_holds_nobody_up() -> Result<()> {
    let Some(world) = World::new()? else { return Ok(()) };
    let (fleet, slow) = (&world.fleet, host(0));
    world.site().slow(1, 5)?;
    // It is the first to ask, so that others are sent to it.
    let first = push_as(fleet, "large", (1, BYTES), &["-w", &slow])?;
    wait_for("the slow one to get some of it", LIMIT, || Ok((sent(fleet)? > 3e5).then_some(())))?;
    let others = push_as(fleet, "large", (1, BYTES), &["-w", "web[1-5]"])?;
    fleet.wait_states(&others, &[("ok", HOSTS as u64 - 1)])?;
    let late = fleet.order(&first)?;
    ensure!(late["order"]["states"]["ok"].is_null(), "it was no slower than they: {late:#}");
    let (gave, recalls) = (of_siblings(fleet, &slow)?[1], world.vain());
    ensure!(gave > 0.0, "nobody was sent to it");
    ensure!(recalls > 0, "nobody was called back from it");
    fleet.wait_states(&first, &[("ok", 1)])?;
    let (flat, sum) = ((HOSTS * BYTES) as f64, sent(fleet)? + world.shared()?);
    println!("apart: {recalls} recalls, the slow one gave {gave}, {sum} of {flat} have come");
    ensure!(sum > flat && sum < flat * 1.05, "{sum} of {flat} have come");
    let expected = listing(&fleet.path().join("large"))?;
    for n in 0..HOSTS {
        ensure!(listing(&fleet.at(&host(n), "/srv/large"))? == expected, "{}", host(n));
    }
    Ok(())
}
