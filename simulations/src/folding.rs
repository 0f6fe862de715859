//! A storm of events: a hundred hosts notice fifty different things, a hundred thousand times a
//! second in all. Whatever becomes of their relay meanwhile, what goes up stays little, and in the
//! end the root has counted each event once.

use std::time::Duration;

use mesh::HostId;

use crate::checks::Violation;
use crate::plan::{Fault, Place, Plan};
use crate::sim::Sim;
use crate::trace::Sink;

/// Different things that hosts notice, and how often each host does each of them in a second.
pub const SIGNATURES: u8 = 50;
const EACH: u32 = 20;
/// Half of them below each of two relays.
const HOSTS: usize = 100;
const RELAYS: [usize; 2] = [1, 2];
/// How long the storm lasts, in seconds.
const LASTS: u32 = 24;
/// When all are below the relay that they prefer.
const BEGINS: Duration = Duration::from_secs(20);
/// Within how long of its end all must have been counted.
const WITHIN: Duration = Duration::from_secs(60);

/// What a storm has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Storm {
    /// Events that hosts have noticed.
    pub raw: u64,
    /// Events that the root has counted.
    pub counted: u64,
    /// Records that each relay has sent up while it lasted.
    pub records: [u64; 2],
    /// For how long that was, in seconds.
    pub seconds: u64,
    /// Hosts that were below another relay at its end than when it began.
    pub moved: usize,
}

/// Plays one. `dies`: the first relay does while it lasts, and comes back after it.
pub fn storm(dies: bool) -> Result<Storm, Violation> {
    let mut sim = Sim::new(plan(dies), Sink::Hash);
    sim.run_until(BEGINS)?;
    let hosts = 1 + RELAYS.len()..1 + RELAYS.len() + HOSTS;
    let before: Vec<_> = hosts.clone().map(|host| sim.net.parent(host)).collect();
    let (mut raw, mut moved) = (0, vec![false; HOSTS]);
    for slot in 0..LASTS * EACH {
        sim.run_until(BEGINS + Duration::from_secs(1) * slot / EACH)?;
        let now_ms = u64::try_from(sim.now.as_millis()).unwrap_or(u64::MAX);
        for host in hosts.clone() {
            for what in 0..SIGNATURES {
                sim.strike(host, now_ms, what)?;
                raw += 1;
            }
        }
        for (n, host) in hosts.clone().enumerate() {
            let parent = sim.net.parent(host);
            moved[n] |= parent.is_some() && parent != before[n];
        }
    }
    let end = BEGINS + Duration::from_secs(1) * LASTS;
    sim.run_until(end)?;
    let records = RELAYS.map(|relay| sim.checks.happened.records(HostId(relay as u32)));
    while let Some(wrong) = sim.uncounted() {
        if sim.now > end + WITHIN {
            return Err(Violation::new("events are counted", wrong));
        }
        sim.run_until(sim.now + Duration::from_secs(1))?;
    }
    let moved = moved.into_iter().filter(|moved| *moved).count();
    Ok(Storm { raw, counted: sim.counted(), records, seconds: u64::from(LASTS), moved })
}

fn plan(dies: bool) -> Plan {
    let mut plan = Plan::scale(1, RELAYS.len(), HOSTS);
    plan.work.clear();
    plan.beat = Duration::from_secs(1);
    plan.backoff.base = Duration::from_millis(500);
    plan.backoff.cap = Duration::from_secs(2);
    // Who was there before its relay soon finds its way to it.
    (plan.backoff.climb, plan.backoff.climb_cap) = (Duration::from_secs(1), Duration::from_secs(2));
    plan.horizon = Duration::from_secs(3_600);
    for (node, place) in plan.tree.iter_mut().enumerate().filter(|(_, place)| !place.serves) {
        let [one, two] = RELAYS;
        let parents = if node % 2 == 0 { vec![one, two] } else { vec![two, one] };
        *place = Place { parents, ..place.clone() };
    }
    if dies {
        let early = BEGINS + Duration::from_secs(1) * LASTS / 4;
        let down = Duration::from_secs(30);
        plan.faults.push((early, Fault::Kill { node: RELAYS[0], down }));
    }
    plan
}
