//! What a node wants, in order, and what waits for the disk.
//!
//! Machines push outputs here while they handle one input. A step that must not happen before a
//! record is durable is parked with [`Outbox::after`] and comes back from [`Outbox::saved`].

use std::collections::VecDeque;

use crate::fact::Folded;
use crate::ledger::Ready;
use crate::{Frame, HostId, HostSet, LinkId, OrderId, Output, Record, Report, Time};

/// A step that waits for a record to be durable.
#[derive(Clone, Debug)]
pub(crate) enum Gated {
    /// Tell the parent that its orders through this number are held.
    AckOrders { link: LinkId, log: u64, through: u64 },
    /// Tell a child that its reports through this number are held.
    AckReports { child: HostId, log: u64, through: u64 },
    /// Put an order on its way to the children.
    Offer(OrderId),
    /// Carry out an order.
    Start(Ready),
    /// Take this host's own answer into the tally.
    Answer(Report),
    /// Let these hosts begin, if they do until then.
    Go { order: OrderId, hosts: HostSet, until: Time },
    /// Let own events be told.
    OwnEvents(Vec<Folded>),
    /// Tell children that their events of these numbers are held, as far as there was room.
    AckEvents(Vec<EventsAck>),
}

/// What a child is to be told of its events.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EventsAck {
    pub(crate) child: HostId,
    pub(crate) link: LinkId,
    pub(crate) no: u64,
    /// How many of them.
    pub(crate) held: usize,
}

/// The queue of outputs, and the steps parked behind saves.
#[derive(Default)]
pub(crate) struct Outbox {
    queue: VecDeque<Output>,
    saves: u64,
    gates: VecDeque<(u64, Gated)>,
}

impl Outbox {
    pub(crate) fn push(&mut self, output: Output) {
        self.queue.push_back(output);
    }

    pub(crate) fn send(&mut self, link: LinkId, frame: Frame) {
        self.push(Output::Send { link, frame });
    }

    /// Asks for a record to be kept; [`Outbox::after`] refers to the latest one.
    pub(crate) fn save(&mut self, record: Record) {
        self.saves += 1;
        self.push(Output::Save { no: self.saves, record });
    }

    /// Parks a step until every record saved so far is durable.
    pub(crate) fn after(&mut self, step: Gated) {
        self.gates.push_back((self.saves, step));
    }

    /// The next step that was waiting for the save `through` or an earlier one.
    pub(crate) fn saved(&mut self, through: u64) -> Option<Gated> {
        let ready = self.gates.front().is_some_and(|(no, _)| *no <= through);
        if ready { self.gates.pop_front().map(|(_, step)| step) } else { None }
    }

    pub(crate) fn pop(&mut self) -> Option<Output> {
        self.queue.pop_front()
    }
}
