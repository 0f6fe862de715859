//! Orders downward: taken from above, put on the lanes of children, carried out by this host.
//!
//! A relay forwards before it saves, since whoever is above keeps the order meanwhile; the node at
//! which it was given saves first. A host saves its intent and only then starts.

use std::sync::Arc;

use bytes::Bytes;

use super::Node;
use super::links::WRONG_SIDE;
use crate::fold::Share;
use crate::ledger::Ready;
use crate::outbox::Gated;
use crate::sabotage::Bug;
use crate::{
    Digest, Event, HostId, HostSet, LinkId, Order, OrderId, Outcome, Output, Peer, PullFault,
    Record, Report, State, Time,
};

impl Node {
    /// A new order, from the parent or the operator.
    pub(super) fn take_order(&mut self, now: Time, order: Arc<Order>) {
        let id = order.id;
        let known = self.shares.get(id).is_some_and(|share| share.order.is_some());
        if known && self.has(Bug::TakeTwice) {
            self.ledger.forget(id);
            self.enter(now, order.clone());
        }
        if known {
            // The parent asks how it stands: a supposition may have reached it while the host was
            // routed elsewhere, and counted for nothing.
            self.shares.doubt(id);
            if id.giver().is_some() {
                // And what was told may have gone another way than to its giver, and be forgotten.
                self.shares.tell_again(id);
            }
            if !self.gives(id) {
                self.offer_to_all(now, id);
            }
            return self.shares.flush_by(id, now);
        }
        // What it has supposed when it had no room counts for nothing, now that it is asked again.
        self.shares.doubt(id);
        let below = self.routes.below();
        if self.shares.beside(id) >= self.config.limits.orders {
            // What this host has carried out it must remember, lest it does so again.
            let kind = id.giver().is_some();
            let may_go = |id: OrderId, share: &Share| {
                let same = id.giver().is_some() == kind;
                same && share.order.is_some() && !self.ledger.knows(id)
            };
            match self.shares.oldest_settled(now, may_go) {
                Some(old) => self.forget(old),
                None => return self.refuse(now, &order, &below),
            }
        }
        self.adopt(now, &order, &below);
        // The watch may have been faster than its order.
        if self.watch.wants(id) {
            self.watch.stir();
        }
        self.open_window(now, &order, HostSet::new());
        // What this host says of the older ones is on the disk before the order is: a node that
        // dies in between is given the order once more, and says it again.
        for older in self.cancels.add(&order) {
            self.take_back(now, older);
        }
        if self.gives(id) && !(id.giver().is_some() && self.has(Bug::GiveBeforeSave)) {
            // Nothing happens anywhere that its giver could forget: the order first, then its way.
            self.out.save(Record::Order(order.clone()));
            self.out.after(Gated::Offer(id));
            self.handle_saved(now, 0);
        } else {
            // Whoever is above keeps the order until it is held here, so it may go on at once.
            self.offer_to_all(now, id);
            self.out.save(Record::Order(order.clone()));
        }
        self.fetch_for_children(&order, &below);
        self.enter(now, order);
    }

    /// Another order takes this one back, for some hosts: who has not begun it never will. Whoever
    /// runs it is told by the order that does it, when it starts there.
    fn take_back(&mut self, now: Time, older: OrderId) {
        let children: Vec<_> = self.routes.children().map(|(host, _)| host).collect();
        for child in children {
            if !self.wants(older, child) {
                self.lanes.take_back(child, older);
            }
        }
        if !self.ledger.is_over(older) && !self.stands_here(older) {
            self.call_off(now, older);
        }
        let is_wanted = self.routes.children().any(|(child, _)| self.wants(older, child));
        if !is_wanted && self.ledger.waiting(older).is_none() {
            self.pulls.forget(older);
        }
        // Who waited for a release must say by now that it waits no more.
        self.windows.stir(now, older);
        let share = self.shares.get(older).and_then(|share| share.order.as_ref());
        if let Some(reach) = share.filter(|order| order.gate.is_some()).map(|order| order.reach) {
            self.shares.check_by(older, now + reach);
            self.shares.look_by(older, now);
        }
    }

    /// This host answers that it has not begun an order and will not.
    fn call_off(&mut self, now: Time, id: OrderId) {
        self.pulls.forget(id);
        self.ledger.answer(id);
        let state = self.cancels.word(id, self.config.host).unwrap_or(State::Cancelled);
        self.answer(now, id, Outcome::bare(state), None);
    }

    /// Whether nobody has taken back an order for this host.
    fn stands_here(&self, id: OrderId) -> bool {
        self.has(Bug::StartCancelled) || !self.cancels.spare(id, self.me()).is_empty()
    }

    /// An order that must not be carried out: it is answered, if it is meant for this host, and
    /// then held like any other entry of the parent's log.
    pub(super) fn handle_bad_order(
        &mut self,
        now: Time,
        link: LinkId,
        (log, seq): (u64, u64),
        id: OrderId,
        answer: Option<(Outcome, Option<Bytes>)>,
    ) {
        match self.peers.get(&link) {
            Some(Peer::Parent { .. }) => {}
            // A child must not move the mark up to which this node holds its parent's log.
            Some(Peer::Child { .. }) => return self.hang_up(now, link, WRONG_SIDE),
            None => return,
        }
        self.pulse.handle_frame(now, link);
        let new = self.orders_in.accept(log, seq);
        if let Some((outcome, body)) = answer.filter(|_| new && !self.ledger.knows(id)) {
            self.answer(now, id, outcome, body);
        }
        self.hold_order(now, link, log, seq);
    }

    /// Opens an order that was on the disk at start.
    pub(super) fn restore(&mut self, now: Time, order: Arc<Order>, begun: bool, below: &HostSet) {
        let id = order.id;
        self.adopt(now, &order, below);
        if let Some(share) = self.shares.get_mut(id) {
            share.may_leave = true;
            share.closed = share.is_complete();
            // The watcher of a relay may have missed the last words before the end.
            if share.own && !self.config.is_root() {
                let (known, closed) = (share.known(id), share.closed);
                self.tell_known(known, closed);
            }
        }
        self.shares.look_by(id, now);
        if self.ledger.knows(id) || !order.targets.contains(self.config.host) {
            return;
        }
        if begun && (!order.again || self.has(Bug::NeverAgain)) {
            self.ledger.answer(id);
            self.answer(now, id, Outcome::bare(State::Interrupted), None);
        } else if begun && self.cancels.word(id, self.config.host) == Some(State::Skipped) {
            // What it has begun it brings to its end, whatever comes after.
            self.prepare(now, order);
        } else {
            self.enter(now, order);
        }
    }

    /// There is no room for an order. Where it was given nobody can have begun it, and of itself a
    /// node knows as much. Of those below it knows only that it does not hand the order on: who has
    /// moved away, or has come from elsewhere, may have begun it.
    fn refuse(&mut self, now: Time, order: &Order, below: &HostSet) {
        self.out.push(Output::Tell(Event::Cut { what: "orders", order: order.id, count: 1 }));
        let duty = match self.gives(order.id) && !self.config.is_root() {
            true => order.targets.clone(),
            false => order.targets.intersection(below),
        };
        let answers_for_all = self.gives(order.id) || self.has(Bug::RefuseForOthers);
        let refused = if answers_for_all { duty.clone() } else { duty.intersection(&self.me()) };
        let mut report = Report::new(order.id);
        report.tally.record(Outcome::bare(State::Refused), &refused);
        report.tally.record(Outcome::bare(State::NotReached), &duty.difference(&refused));
        self.give(now, report);
    }

    /// Puts an order on the lanes of all children that it concerns, now and from here on.
    pub(super) fn offer_to_all(&mut self, now: Time, id: OrderId) {
        let Some(share) = self.shares.get_mut(id) else { return };
        share.may_leave = true;
        self.shares.look_by(id, now);
        self.windows.stir(now, id);
        let children: Vec<_> = self.routes.children().map(|(host, _)| host).collect();
        for child in children {
            self.offer(now, id, child);
        }
    }

    /// Puts all orders that are still open on the lane of a child that came, or came back.
    pub(super) fn offer_all(&mut self, now: Time, child: HostId) {
        for id in self.shares.open_orders() {
            self.offer(now, id, child);
        }
    }

    /// Puts an order on a child's lane if somebody below it still owes an answer.
    fn offer(&mut self, now: Time, id: OrderId, child: HostId) {
        let Some(share) = self.shares.get(id) else { return };
        let Some(order) = &share.order else { return };
        let may_come = share.may_leave && now < share.hold_until;
        if may_come && self.wants(id, child) && !self.has_given_up(id, child) {
            self.lanes.offer(child, order, &mut self.out);
        }
    }

    /// Whether an order still stands for somebody below a child who owes an answer.
    pub(super) fn wants(&self, id: OrderId, child: HostId) -> bool {
        let Some(share) = self.shares.get(id) else { return false };
        let (Some(order), Some(child)) = (&share.order, self.routes.child(child)) else {
            return false;
        };
        let hosts = self.cancels.spare(id, order.targets.intersection(&child.below));
        !share.tally.has_settled(&hosts)
    }

    /// Asks a child about hosts that are routed through it only now and have no word yet.
    pub(super) fn ask(&mut self, id: OrderId, child: HostId, news: &HostSet) {
        if let Some(share) = self.shares.get(id)
            && let Some(order) = &share.order
            && share.missing().intersects(news)
        {
            self.lanes.ask(child, order, &mut self.out);
        }
    }

    /// A relay asks for what its subtree will want before anybody below does.
    fn fetch_for_children(&mut self, order: &Order, below: &HostSet) {
        if self.config.serves && !self.config.is_root() {
            let below = below.difference(&self.me());
            for content in order.content_for(&below.intersection(&order.targets)) {
                self.pulls.handle_needed(order.id, content, &mut self.out);
            }
        }
    }

    /// Enters an order into this host's own ledger, if it is meant.
    fn enter(&mut self, now: Time, order: Arc<Order>) {
        if !order.targets.contains(self.config.host) || self.ledger.knows(order.id) {
            return;
        }
        if !self.stands_here(order.id) {
            return self.call_off(now, order.id);
        }
        // It may have had no room for it when it was given it first, and whoever was told may have
        // ordered the same once more.
        let share = self.shares.get(order.id);
        let has_refused = share.is_some_and(|share| share.tally.has_settled(&self.me()));
        if !has_refused || self.has(Bug::BeginRefused) {
            self.prepare(now, order);
        }
    }

    /// Gets what an order of this host needs, and begins it.
    fn prepare(&mut self, now: Time, order: Arc<Order>) {
        let id = order.id;
        let content = match self.config.is_root() {
            // What the root's orders need lies in its own store; there is nobody to ask for it.
            true => Vec::new(),
            false => order.content_for(&self.me()),
        };
        self.ledger.enter(order, content.clone());
        for piece in content {
            self.pulls.handle_needed(id, piece, &mut self.out);
        }
        self.begin(now, id);
    }

    /// Starts a local order if its content is here: the intent first, then the start.
    pub(super) fn begin(&mut self, now: Time, id: OrderId) {
        if !self.ledger.waiting(id).is_some_and(|order| self.is_let(order, now)) {
            return;
        }
        let Some(ready) = self.ledger.begin(id) else { return };
        self.out.save(Record::Intent(id));
        if self.has(Bug::StartBeforeIntent) {
            let (order, missing) = (ready.order, ready.missing);
            return self.out.push(Output::Start { order, missing });
        }
        self.out.after(Gated::Start(ready));
        self.handle_saved(now, 0);
    }

    /// Carries out an order whose intent is durable. A release may have ended while the intent was
    /// on its way to the disk; then the root may have given its place away.
    pub(super) fn start(&mut self, now: Time, ready: Ready) {
        let Ready { order, missing } = ready;
        if self.is_let(&order, now) || self.has(Bug::StartLate) {
            return self.out.push(Output::Start { order, missing });
        }
        if self.ledger.is_running(order.id) {
            self.ledger.answer(order.id);
            self.answer(now, order.id, Outcome::bare(State::Expired), None);
        }
    }

    pub(super) fn handle_pulled(
        &mut self,
        now: Time,
        content: Digest,
        result: Result<(), PullFault>,
    ) {
        for order in self.pulls.handle_pulled(content, result, &mut self.out) {
            self.ledger.handle_pulled(order, content, result);
            self.begin(now, order);
        }
    }

    /// Forgets an order in every machine, and on the disk.
    pub(super) fn forget(&mut self, id: OrderId) {
        if let Some(order) = self.shares.get(id).and_then(|share| share.order.as_deref()) {
            self.cancels.forget(order);
        }
        self.shares.forget(id);
        self.lanes.forget(id);
        self.pulls.forget(id);
        self.ledger.forget(id);
        self.watch.forget(id);
        self.gates.forget(id);
        self.windows.forget(id);
        self.out.save(Record::Forget(id));
    }
}

#[cfg(test)]
mod tests {
    use super::super::bench::{Bench, ORDER, PARENT, answers, order, starts};
    use super::*;
    use crate::{Frame, Input, Need, Saved};

    const NEWER: OrderId = OrderId([9; 16]);
    const OLD: Digest = Digest([7; 32]);

    /// A push that needs this content.
    fn push(id: OrderId, content: &[Digest]) -> Order {
        let hosts = HostSet::one(HostId(11));
        let need = Need { hosts, content: content.to_vec() };
        let needs = if content.is_empty() { Vec::new() } else { vec![need] };
        Order { id, needs, again: true, gate: None, ..order(&[11]) }
    }

    fn newer() -> Order {
        Order { supersedes: vec![(ORDER, HostSet::one(HostId(11)))], ..push(NEWER, &[]) }
    }

    #[test]
    fn who_waits_for_an_older_push_begins_the_newer_one_alone() {
        for newer_first in [false, true] {
            let mut host = Bench::host();
            let mut outputs = Vec::new();
            if newer_first {
                outputs.extend(host.hear(1, newer()));
                outputs.extend(host.hear(2, push(ORDER, &[OLD])));
            } else {
                host.hear(1, push(ORDER, &[OLD]));
                outputs.extend(host.hear(2, newer()));
            }
            assert_eq!(answers(&outputs), [State::Skipped]);
            assert!(starts(&outputs));
            assert!(!starts(&host.give(Input::Pulled { content: OLD, result: Ok(()) })));
        }
    }

    #[test]
    fn what_has_begun_goes_on_over_a_restart_too() {
        let mut host = Bench::host();
        assert!(starts(&host.hear(1, push(ORDER, &[]))));
        assert_eq!(answers(&host.hear(2, newer())), []);
        let saved = std::mem::take(&mut host.kept);
        let mut host = Bench::new(11, 1, saved);
        let started = host.wait(0);
        let began = started.iter().filter_map(|output| match output {
            Output::Start { order, .. } => Some(order.id),
            _ => None,
        });
        assert_eq!(began.collect::<Vec<_>>(), [ORDER, NEWER]);
        assert_eq!(answers(&started), []);
    }

    #[test]
    fn who_comes_back_is_given_the_newer_push_alone() {
        for newer_first in [false, true] {
            let mut relay = Bench::new(9, 1, Saved::default());
            let peer = Peer::Parent { place: 0, host: HostId(90) };
            relay.give(Input::LinkUp { link: PARENT, peer });
            relay.child(11, 11);
            relay.child(12, 12);
            relay.give(Input::LinkDown { link: LinkId(11) });
            let both = Order { targets: order(&[11, 12]).targets, ..push(ORDER, &[]) };
            let mut orders = [both, newer()];
            if newer_first {
                orders.reverse();
            }
            for (seq, order) in (1..).zip(orders) {
                relay.hear(seq, order);
            }
            relay.child(21, 11);
            let (events, profiles) = (false, false);
            let frame = Frame::Hello { log: 7, held_log: 0, held: 0, events, profiles };
            let outputs = relay.give(Input::Frame { link: LinkId(21), frame });
            let given = outputs.iter().filter_map(|output| match output {
                Output::Send { link, frame: Frame::Order { order, .. } } => {
                    (*link == LinkId(21)).then_some(order.id)
                }
                _ => None,
            });
            assert_eq!(given.collect::<Vec<_>>(), [NEWER]);
        }
    }
}
