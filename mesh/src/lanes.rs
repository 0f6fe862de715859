//! The order log: for each child, the orders that it must get, numbered, until it holds them.
//!
//! A lane survives its link. When the child comes back it says what it holds and gets the rest.
//! Numbers live as long as the process (a restart opens a new log and sends what is still open;
//! the child knows by the order's id what it has seen), so only the orders themselves are on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::outbox::Outbox;
use crate::{Frame, HostId, LinkId, Order, OrderId};

#[derive(Default)]
struct Lane {
    link: Option<LinkId>,
    next: u64,
    sent: u64,
    /// What was sent on this link and is not acknowledged, also if it has been withdrawn since: the
    /// child will still acknowledge it.
    in_flight: BTreeSet<u64>,
    /// What the child may not hold yet, by its number.
    waiting: BTreeMap<u64, Arc<Order>>,
    /// Every open order that was ever put on this lane, with its last number.
    offered: BTreeMap<OrderId, u64>,
    /// Those of them that the child holds.
    held: BTreeSet<OrderId>,
}

impl Lane {
    /// The child holds everything through this number.
    fn hold(&mut self, through: u64) {
        while self.in_flight.first().is_some_and(|seq| *seq <= through) {
            self.in_flight.pop_first();
        }
        while let Some(first) = self.waiting.first_entry().filter(|first| *first.key() <= through) {
            self.held.insert(first.remove().id);
        }
    }

    /// Takes an order off, though it stays known as offered.
    fn withdraw(&mut self, order: OrderId, window: usize) {
        let Some(seq) = self.offered.get(&order) else { return };
        self.waiting.remove(seq);
        // One that was asked about may also have been sent under an older number.
        let sent = self.waiting.iter().take(window);
        let older: Vec<_> = sent.filter(|(_, o)| o.id == order).map(|(seq, _)| *seq).collect();
        older.iter().for_each(|seq| drop(self.waiting.remove(seq)));
    }
}

/// The order logs towards all children.
pub(crate) struct Lanes {
    log: u64,
    window: usize,
    lanes: BTreeMap<HostId, Lane>,
}

impl Lanes {
    pub(crate) fn new(log: u64, window: usize) -> Lanes {
        Lanes { log, window, lanes: BTreeMap::new() }
    }

    /// The number of this node's log, for its hello.
    pub(crate) fn log(&self) -> u64 {
        self.log
    }

    /// Puts an order on a child's lane, once.
    pub(crate) fn offer(&mut self, child: HostId, order: &Arc<Order>, out: &mut Outbox) {
        let lane = self.lanes.entry(child).or_default();
        if !lane.offered.contains_key(&order.id) {
            lane.next += 1;
            lane.offered.insert(order.id, lane.next);
            lane.waiting.insert(lane.next, order.clone());
            Self::pump(self.log, self.window, lane, out);
        }
    }

    /// Sends a child an order once more that it may have: the question how it stands there. One
    /// that is still to be sent asks as well.
    pub(crate) fn ask(&mut self, child: HostId, order: &Arc<Order>, out: &mut Outbox) {
        let Some(lane) = self.lanes.get_mut(&child) else { return };
        let may_have = match lane.offered.get(&order.id) {
            // Also if it has not acknowledged it: it may have spoken before it was heard of who is
            // below it now.
            Some(seq) => *seq <= lane.sent,
            None => lane.held.contains(&order.id),
        };
        if may_have {
            lane.offered.remove(&order.id);
            self.offer(child, order, out);
        }
    }

    /// The child has said hello on a new link and told what it holds of which log. Returns whether
    /// it knows this log; if not, it may have lost its disk, and everything open is offered again.
    pub(crate) fn handle_hello(
        &mut self,
        child: HostId,
        link: LinkId,
        (held_log, held): (u64, u64),
        out: &mut Outbox,
    ) -> bool {
        let log = self.log;
        let lane = self.lanes.entry(child).or_default();
        lane.link = Some(link);
        lane.in_flight.clear();
        if held_log == log {
            lane.hold(held);
        } else {
            lane.waiting.clear();
            lane.offered.clear();
            lane.held.clear();
        }
        lane.sent = lane.waiting.first_key_value().map_or(lane.next, |(seq, _)| seq - 1);
        Self::pump(log, self.window, lane, out);
        held_log == log
    }

    pub(crate) fn handle_down(&mut self, child: HostId) {
        if let Some(lane) = self.lanes.get_mut(&child) {
            lane.link = None;
        }
    }

    /// The child holds everything through this number.
    pub(crate) fn handle_held(&mut self, child: HostId, log: u64, held: u64, out: &mut Outbox) {
        if let Some(lane) = self.lanes.get_mut(&child)
            && log == self.log
        {
            lane.hold(held);
            Self::pump(log, self.window, lane, out);
        }
    }

    /// Whether the child holds this order.
    pub(crate) fn holds(&self, child: HostId, order: OrderId) -> bool {
        self.lanes.get(&child).is_some_and(|lane| lane.held.contains(&order))
    }

    /// Takes an order off the lanes of all children that are away: its time is over.
    pub(crate) fn withdraw(&mut self, order: OrderId) {
        for lane in self.lanes.values_mut().filter(|lane| lane.link.is_none()) {
            lane.withdraw(order, self.window);
        }
    }

    /// Takes an order off a child's lane if it has not been sent to where the child is now.
    pub(crate) fn take_back(&mut self, child: HostId, order: OrderId) {
        let Some(lane) = self.lanes.get_mut(&child) else { return };
        let is_sent = lane.offered.get(&order).is_some_and(|seq| *seq <= lane.sent);
        if lane.link.is_none() || !is_sent {
            lane.withdraw(order, self.window);
        }
    }

    /// Takes an order off the lane of a child that is away, as if it had never been offered.
    pub(crate) fn take_off(&mut self, child: HostId, order: OrderId) {
        if let Some(lane) = self.lanes.get_mut(&child).filter(|lane| lane.link.is_none()) {
            lane.withdraw(order, self.window);
            lane.offered.remove(&order);
        }
    }

    /// Takes an order off every lane: it is past its validity.
    pub(crate) fn forget(&mut self, order: OrderId) {
        for lane in self.lanes.values_mut() {
            lane.withdraw(order, self.window);
            lane.held.remove(&order);
            lane.offered.remove(&order);
        }
    }

    fn pump(log: u64, window: usize, lane: &mut Lane, out: &mut Outbox) {
        let Some(link) = lane.link else { return };
        let Lane { waiting, sent, in_flight, .. } = lane;
        let room = window.saturating_sub(in_flight.len());
        for (seq, order) in waiting.range(*sent + 1..).take(room) {
            *sent = *seq;
            in_flight.insert(*seq);
            out.send(link, Frame::Order { log, seq: *seq, order: order.clone() });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::{HostSet, Output};

    const CHILD: HostId = HostId(7);
    const LOG: u64 = 1;

    fn order(n: u8) -> Arc<Order> {
        Arc::new(Order {
            id: OrderId([n; 16]),
            targets: HostSet::one(CHILD),
            needs: Vec::new(),
            reach: Duration::from_secs(5),
            hold: Duration::from_secs(5),
            ttl: Duration::from_secs(60),
            again: false,
            cancels: None,
            lapses: false,
            supersedes: Vec::new(),
            gate: None,
            body: Bytes::new(),
        })
    }

    fn sent(out: &mut Outbox) -> Vec<u64> {
        let frames = std::iter::from_fn(|| out.pop()).map(|output| match output {
            Output::Send { frame: Frame::Order { seq, .. }, .. } => seq,
            other => panic!("{other:?}"),
        });
        frames.collect()
    }

    /// A lane with a window of two, five orders, and a child that has just said hello.
    fn lanes(out: &mut Outbox) -> Lanes {
        let mut lanes = Lanes::new(LOG, 2);
        (1..=5).for_each(|n| lanes.offer(CHILD, &order(n), out));
        lanes.handle_hello(CHILD, LinkId(1), (LOG, 0), out);
        lanes
    }

    #[test]
    fn what_is_forgotten_in_flight_takes_its_place_until_it_is_acknowledged() {
        let mut out = Outbox::default();
        let mut lanes = lanes(&mut out);
        assert_eq!(sent(&mut out), [1, 2]);
        lanes.forget(order(1).id);
        lanes.offer(CHILD, &order(6), &mut out);
        assert_eq!(sent(&mut out), []);
        lanes.handle_held(CHILD, LOG, 1, &mut out);
        assert_eq!(sent(&mut out), [3]);
        lanes.handle_held(CHILD, LOG, 3, &mut out);
        assert_eq!(sent(&mut out), [4, 5]);
    }

    #[test]
    fn what_was_sent_is_asked_about_also_before_it_is_acknowledged() {
        let mut out = Outbox::default();
        let mut lanes = lanes(&mut out);
        assert_eq!(sent(&mut out), [1, 2]);
        lanes.ask(CHILD, &order(2), &mut out);
        lanes.ask(CHILD, &order(2), &mut out);
        // This one asks when it is sent.
        lanes.ask(CHILD, &order(3), &mut out);
        lanes.handle_held(CHILD, LOG, 2, &mut out);
        assert_eq!(sent(&mut out), [3, 4]);
        lanes.handle_held(CHILD, LOG, 4, &mut out);
        assert_eq!(sent(&mut out), [5, 6], "the last is the question");
    }

    #[test]
    fn a_new_link_has_nothing_in_flight() {
        let mut out = Outbox::default();
        let mut lanes = lanes(&mut out);
        assert_eq!(sent(&mut out), [1, 2]);
        lanes.forget(order(2).id);
        lanes.handle_down(CHILD);
        lanes.handle_hello(CHILD, LinkId(2), (LOG, 0), &mut out);
        assert_eq!(sent(&mut out), [1, 3]);
        assert!(!lanes.holds(CHILD, order(1).id));
        lanes.handle_held(CHILD, LOG, 3, &mut out);
        assert!(lanes.holds(CHILD, order(1).id) && lanes.holds(CHILD, order(3).id));
    }
}
