//! Size and speed: one run over a tree of thousands, and how many seeds a second.

use std::time::{Duration, Instant};

use crate::checks::Violation;
use crate::plan::Plan;
use crate::played::Stats;
use crate::sim::Sim;
use crate::trace::Sink;

/// What a large run has shown.
#[derive(Clone, Debug)]
pub struct Scale {
    /// The run.
    pub stats: Stats,
    /// Virtual time until everybody was linked.
    pub linked: Duration,
    /// Virtual time from the order to the last answer at the root.
    pub answered: Duration,
    /// How long the machine took.
    pub real: Duration,
    /// Resident memory at the end, in KiB, where the system says it.
    pub memory_kib: Option<u64>,
}

/// A root, `relays` and `hosts`; everybody links, then one run over all.
pub fn scale(seed: u64, relays: usize, hosts: usize) -> Result<Scale, Violation> {
    let begun = Instant::now();
    let mut sim = Sim::new(Plan::scale(seed, relays, hosts), Sink::Hash);
    let everybody = (relays + hosts + 1) as u64;
    let step = Duration::from_millis(50);
    while sim.reached().len() < everybody {
        if sim.now > Duration::from_secs(10) {
            let detail = format!("{} of {everybody} are up", sim.reached().len());
            return Err(Violation::new("scale: linked", detail));
        }
        sim.run_until(sim.now + step)?;
    }
    let linked = sim.now;
    let work = sim.plan.work[0].clone();
    sim.run_until(work.at)?;
    while sim.answers(work.order.id) < everybody - 1 {
        if sim.now > work.at + Duration::from_secs(20) {
            let detail = format!("{} answers", sim.answers(work.order.id));
            return Err(Violation::new("scale: answered", detail));
        }
        sim.run_until(sim.now + step)?;
    }
    Ok(Scale {
        stats: sim.stats(),
        linked,
        answered: sim.now - work.at,
        real: begun.elapsed(),
        memory_kib: memory_kib(),
    })
}

impl Sim {
    fn answers(&self, id: mesh::OrderId) -> u64 {
        let root = self.seats[0].process.as_ref();
        let tally = root.and_then(|root| root.node.tally(id));
        tally.map_or(0, |tally| tally.settled().len())
    }
}

pub(crate) fn memory_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
