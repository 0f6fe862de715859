//! What the watcher of the node is told at which an order was given: only targets answer, states
//! move forward, and an order closes once, when everybody has answered.

use std::collections::{BTreeMap, BTreeSet};

use mesh::{HostId, OrderId, Outcome, Report};

use super::Violation;
use super::known::Known;
use crate::disk::Image;
use crate::plan::giver;

/// What they were told, in the present lives of their nodes.
#[derive(Default)]
pub(super) struct Watched {
    watched: BTreeMap<OrderId, BTreeMap<HostId, Outcome>>,
    closed: BTreeSet<OrderId>,
}

impl Watched {
    /// It is told how hosts do. `calm`: no supposition about anybody can be true,
    /// but that somebody on the way had no room.
    pub(super) fn answers(
        &mut self,
        known: &Known,
        report: &Report,
        calm: bool,
    ) -> Result<(), Violation> {
        let targets = known.orders.get(&report.order).map(|order| order.targets.clone());
        let targets = targets.unwrap_or_default();
        if !report.tally.hosts().is_subset(&targets) {
            let detail = format!("{:?} has {}", report.order, report.tally.hosts());
            return Err(Violation::new("only targets answer", detail));
        }
        let words = self.watched.entry(report.order).or_default();
        for (outcome, hosts) in report.tally.lines() {
            for host in hosts.iter() {
                let old = words.insert(host, *outcome);
                if old.is_some_and(|old| old.state.weight() > outcome.state.weight()) {
                    let detail = format!("{host:?} went from {old:?} to {outcome:?}");
                    return Err(Violation::new("states move forward", detail));
                }
                let is_wrong = calm && !known.is_turned_away(report.order);
                if is_wrong && outcome.state.is_provisional() {
                    let detail = format!("{host:?} is said to be {outcome:?} and is well");
                    return Err(Violation::new("no false supposition", detail));
                }
            }
        }
        Ok(())
    }

    /// It is told that an order is closed.
    pub(super) fn closed(
        &mut self,
        known: &Known,
        id: OrderId,
        expired: bool,
    ) -> Result<(), Violation> {
        let targets = known.orders.get(&id).map(|order| order.targets.len());
        let heard = self.watched.get(&id).map(|words| words.len() as u64);
        if !self.closed.insert(id) {
            let detail = format!("{id:?}");
            return Err(Violation::new("closed once", detail));
        }
        if targets != heard {
            let detail = format!("{id:?} with {heard:?} of {targets:?}, {expired}");
            return Err(Violation::new("closed when complete", detail));
        }
        Ok(())
    }

    /// A node died: its next life tells anew.
    pub(super) fn died(&mut self, me: HostId) {
        self.closed.retain(|id| giver(*id) != me);
        self.watched.retain(|id, _| giver(*id) != me);
    }

    /// A node is about to start with this disk.
    pub(super) fn restarted(&mut self, me: HostId, image: &Image) {
        for (id, tally) in image.tallies.iter().filter(|(id, _)| giver(**id) == me) {
            let words = self.watched.entry(*id).or_default();
            for (outcome, hosts) in tally.lines() {
                words.extend(hosts.iter().map(|host| (host, *outcome)));
            }
        }
    }
}
