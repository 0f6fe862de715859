//! The report log: what this node tells its parent, numbered, until the parent holds it.
//!
//! Only what is in flight stands in the log; what has not been said yet stays folded in the
//! tallies of the shares. So a long break costs no memory, and after it a site says in three lines
//! what happened meanwhile.

use std::collections::VecDeque;

use crate::outbox::Outbox;
use crate::{Frame, HostId, LinkId, OrderId, Report};

/// The report log towards the parent.
pub(crate) struct Uplog {
    log: u64,
    window: usize,
    next: u64,
    link: Option<LinkId>,
    parent: Option<HostId>,
    /// Whether the next parent counts as another one, whoever it is.
    anew: bool,
    /// What the parent has not acknowledged; without a report it does not count as told if the
    /// parent does, but takes its place until then.
    in_flight: VecDeque<(u64, Option<Report>)>,
}

impl Uplog {
    pub(crate) fn new(log: u64, window: usize) -> Uplog {
        let (link, parent, anew, in_flight) = (None, None, false, VecDeque::new());
        Uplog { log, window, next: 0, link, parent, anew, in_flight }
    }

    /// The number of this node's log, for its hello.
    pub(crate) fn log(&self) -> u64 {
        self.log
    }

    /// Whether another report may be sent now.
    pub(crate) fn has_room(&self) -> bool {
        self.link.is_some() && self.in_flight.len() < self.window
    }

    /// Sends a report and keeps it until it is acknowledged.
    pub(crate) fn push(&mut self, report: Report, out: &mut Outbox) {
        let link = self.link.expect("the caller has asked has_room");
        self.next += 1;
        let frame = Frame::Report { log: self.log, seq: self.next, report: report.clone() };
        self.in_flight.push_back((self.next, Some(report)));
        out.send(link, frame);
    }

    /// The parent has said hello. What it does not hold is sent again. `None` if this parent is
    /// another one than before: then nothing that was told counts, and the caller starts over.
    pub(crate) fn handle_hello(
        &mut self,
        link: LinkId,
        parent: HostId,
        (held_log, held): (u64, u64),
        out: &mut Outbox,
    ) -> Option<Vec<OrderId>> {
        self.link = Some(link);
        let other = self.parent.replace(parent).is_some_and(|old| old != parent);
        let moved = std::mem::take(&mut self.anew) || other;
        if moved {
            self.in_flight.clear();
            return None;
        }
        let acked = self.handle_held(held_log, held);
        for (seq, report) in &self.in_flight {
            if let Some(report) = report.clone() {
                out.send(link, Frame::Report { log: self.log, seq: *seq, report });
            }
        }
        Some(acked)
    }

    /// Nothing that was told counts any more, neither with this parent nor with the next.
    pub(crate) fn start_over(&mut self) {
        self.in_flight.iter_mut().for_each(|(_, report)| *report = None);
        self.anew = true;
    }

    pub(crate) fn handle_down(&mut self) {
        self.link = None;
    }

    /// The parent holds everything through this number. Returns the orders that it was about.
    pub(crate) fn handle_held(&mut self, log: u64, through: u64) -> Vec<OrderId> {
        let mut orders = Vec::new();
        while log == self.log && self.in_flight.front().is_some_and(|(seq, _)| *seq <= through) {
            let (_, report) = self.in_flight.pop_front().expect("it has a front");
            orders.extend(report.map(|report| report.order));
        }
        orders
    }

    /// Whether a report on this order is on its way.
    pub(crate) fn is_in_flight(&self, order: OrderId) -> bool {
        self.in_flight.iter().any(|(_, report)| report.as_ref().is_some_and(|r| r.order == order))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_starts_over_keeps_within_the_window() {
        let (mut log, mut out) = (Uplog::new(7, 2), Outbox::default());
        let report = |n| Report::new(OrderId([n; 16]));
        log.handle_hello(LinkId(1), HostId::ROOT, (0, 0), &mut out);
        log.push(report(1), &mut out);
        log.push(report(2), &mut out);
        log.start_over();
        assert!(!log.has_room() && !log.is_in_flight(OrderId([1; 16])));
        // What the parent says of it settles nothing, and makes room.
        assert_eq!(log.handle_held(7, 1), []);
        assert!(log.has_room());
        log.push(report(1), &mut out);
        assert_eq!(log.handle_held(7, 3), [OrderId([1; 16])]);
        // With the next link nothing of before takes any place.
        log.push(report(2), &mut out);
        log.start_over();
        log.handle_down();
        assert_eq!(log.handle_hello(LinkId(2), HostId::ROOT, (7, 0), &mut out), None);
        log.push(report(1), &mut out);
        assert!(log.has_room());
    }
}
