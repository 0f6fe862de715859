//! Releases of gated orders: decided at the root, told downward, obeyed at the hosts.
//!
//! The root looks at an order's window whenever something about it has changed. A release is on
//! disk before it leaves. Every node tells each child the releases of those who live below it, and
//! tells them again on each new link; a host begins when it has the order, its content and a
//! release that is still good.

use std::sync::Arc;

use super::Node;
use crate::outbox::Gated;
use crate::sabotage::Bug;
use crate::window::{View, Window};
use crate::{
    Event, Gate, HostSet, Order, OrderId, Outcome, Output, Record, Report, State, Stop, Tally, Time,
};

/// After how many times the time in which a silent link is noticed a frame can be on its way no
/// more, in a tree as deep as one may be.
const TIERS: u32 = 4;

impl Node {
    /// Root: opens the window of a gated order. `released`: who was, before a restart.
    pub(super) fn open_window(&mut self, now: Time, order: &Arc<Order>, released: HostSet) {
        let Some(gate) = order.gate.as_ref().filter(|_| self.config.is_root()) else { return };
        let nothing = Tally::new();
        let tally = self.shares.get(order.id).map_or(&nothing, |share| &share.tally);
        let window = Window::new(now, &self.view(now, order, gate, tally), released.clone());
        // Of whom there is a word may have been given up: nobody else may begin in its place and
        // then this one, too. It counts as running once more, and is not let begin again.
        let unheard = released.difference(tally.hosts());
        self.windows.open(now, order.id, window);
        if !released.is_empty() {
            let (order, hosts) = (order.id, released.clone());
            if !self.shares.get(order).is_some_and(|share| share.closed) {
                self.out.push(Output::Tell(Event::Released { order, hosts }));
            }
            self.handle_go(now, order, &unheard, now + gate.begin);
        }
        if self.shares.get(order.id).is_some_and(|share| share.closed) {
            self.say_stopped(now, order.id);
        }
    }

    fn view<'a>(&self, now: Time, order: &'a Order, gate: &'a Gate, tally: &'a Tally) -> View<'a> {
        let stands = match self.has(Bug::ReleaseCancelled) {
            true => order.targets.clone(),
            false => self.cancels.spare(order.id, order.targets.clone()),
        };
        let heard = match self.has(Bug::FreeSupposed) {
            true => tally.hosts().clone(),
            false => tally.settled(),
        };
        let children = self.routes.children().filter(|_| gate.per_child.is_some());
        let children = children.map(|(_, child)| child.below.clone());
        View {
            order,
            gate,
            tally,
            stands,
            heard,
            up: self.routes.up(),
            down: self.absent.known_down(now, &order.targets),
            next_down: self.absent.next(now),
            children: children.collect(),
            slack: self.config.beat_interval * self.config.missed_beats * TIERS,
        }
    }

    /// Root: looks at every window about which something has changed.
    pub(super) fn look_at_windows(&mut self, now: Time) {
        while let Some(id) = self.windows.take_due(now) {
            let Some(share) = self.shares.get(id).filter(|share| share.may_leave) else { continue };
            let Some(order) = share.order.clone() else { continue };
            // Everybody has a word, and nobody is let begin any more.
            if share.closed && self.windows.get(id).is_some_and(Window::is_at_rest) {
                continue;
            }
            let Some(gate) = self.gate_of(&order) else { continue };
            let view = self.view(now, &order, &gate, &share.tally);
            let Some(window) = self.windows.get_mut(id) else { continue };
            let (step, again) = window.step(now, &view);
            if let Some(at) = again {
                self.windows.look_by(id, at);
            }
            // What is said of those who are given up is on disk before others take their place.
            self.suppose_of(now, id, State::RelayLost, &step.lost);
            if !step.release.is_empty() {
                self.release(id, step.release, now + gate.begin);
            }
            self.suppose_of(now, id, State::NotReached, &step.not_reached);
            if !step.skip.is_empty() {
                // Nobody but the root could have let them begin, so this is as good as their word.
                let mut report = Report::new(id);
                report.tally.record(Outcome::bare(State::Skipped), &step.skip);
                self.give(now, report);
            }
        }
    }

    fn gate_of(&self, order: &Order) -> Option<Gate> {
        let mut gate = order.gate.clone()?;
        if self.has(Bug::WindowPerLink) {
            gate.window *= self.routes.linked().max(1) as u64;
        }
        if self.has(Bug::ForgetBudget)
            && self.windows.get(order.id).is_some_and(|window| window.restored)
        {
            (gate.max_errors, gate.max_missed) = (None, None);
        }
        Some(gate)
    }

    fn release(&mut self, order: OrderId, hosts: HostSet, until: Time) {
        self.out.save(Record::Released { order, hosts: hosts.clone() });
        self.out.push(Output::Tell(Event::Released { order, hosts: hosts.clone() }));
        match self.has(Bug::GoBeforeSave) {
            true => self.gates.release(order, &hosts, until, self.config.host),
            false => self.out.after(Gated::Go { order, hosts, until }),
        }
    }

    /// Root: says of these hosts what is supposed, and keeps it.
    fn suppose_of(&mut self, now: Time, order: OrderId, state: State, hosts: &HostSet) {
        if !hosts.is_empty() {
            let mut report = Report::new(order);
            report.tally.record(Outcome::bare(state), hosts);
            let news = self.merge(now, report);
            self.keep(news);
        }
    }

    /// These hosts are released: the release is durable at the root, or comes from the parent.
    pub(super) fn handle_go(&mut self, now: Time, order: OrderId, hosts: &HostSet, until: Time) {
        let for_ever = std::time::Duration::from_secs(3600);
        let until = if self.has(Bug::BeginLate) { now + for_ever } else { until };
        self.gates.release(order, hosts, until, self.config.host);
        // From now on somebody may be missing.
        if let Some(share) = self.shares.get(order)
            && let Some(reach) = share.order.as_ref().map(|order| order.reach)
        {
            self.shares.check_by(order, now + reach);
            self.shares.look_by(order, now);
        }
        if hosts.contains(self.config.host) {
            self.begin(now, order);
        }
    }

    /// Whether this host may begin an order now, as far as releases go.
    pub(super) fn is_let(&self, order: &Order, now: Time) -> bool {
        let now = if self.has(Bug::BeginLate) { Time::ZERO } else { now };
        order.gate.is_none() || self.gates.lets(order.id, self.config.host, now)
    }

    /// Tells the children what they must know of releases, if something has changed.
    pub(super) fn pass_releases(&mut self, now: Time) {
        if !self.gates.take_stir() {
            return;
        }
        let shares = &self.shares;
        let known = |id| shares.get(id).is_some_and(|share| share.order.is_some());
        for id in self.gates.open(now, known) {
            let settled = self.shares.get(id).map(|share| share.tally.settled());
            let settled = settled.unwrap_or_default();
            for child in self.routes.children().map(|(_, child)| child) {
                if let Some(link) = child.link {
                    let owing = child.below.difference(&settled);
                    let among = match self.has(Bug::ReleaseCancelled) {
                        true => owing,
                        false => self.cancels.spare(id, owing),
                    };
                    self.gates.tell(now, link, id, &among, &mut self.out);
                }
            }
        }
    }

    /// What this host was to begin by now and has not, it begins no more.
    pub(super) fn give_up_late(&mut self, now: Time) {
        for id in self.gates.take_late(now) {
            if self.has(Bug::BeginLate) {
                continue;
            }
            if self.ledger.knows(id) && !self.ledger.is_over(id) {
                self.pulls.forget(id);
                self.ledger.answer(id);
                self.answer(now, id, Outcome::bare(State::Expired), None);
            }
        }
    }

    /// Those of these hosts of whom something must be heard by now: a gated order leaves alone
    /// whoever it has not let begin.
    pub(super) fn due_to_answer(&self, order: &Order, hosts: HostSet) -> HostSet {
        if order.gate.is_none() {
            return hosts;
        }
        let waiting = self.cancels.spare(order.id, hosts.clone());
        hosts.difference(&waiting.difference(&self.gates.hosts(order.id)))
    }

    /// Root: an order closes; says who still waits for a release that never comes.
    pub(super) fn say_stopped(&mut self, now: Time, id: OrderId) {
        let Some(share) = self.shares.get(id) else { return };
        let Some(order) = share.order.clone() else { return };
        let (Some(gate), Some(window)) = (&order.gate, self.windows.get(id)) else { return };
        let unheard = order.targets.difference(&share.tally.settled());
        let skipped = share.tally.lines().find(|(outcome, _)| outcome.state == State::Skipped);
        let skipped = skipped.map(|(_, hosts)| hosts.difference(window.released()));
        let skipped = self.cancels.spare(id, skipped.unwrap_or_default());
        let why = match skipped.is_empty() {
            true => Stop::Done,
            false => {
                let view = self.view(now, &order, gate, &share.tally);
                window.stop(now, &view).unwrap_or(Stop::Late)
            }
        };
        let hosts = self.cancels.spare(id, unheard.union(&skipped));
        if !hosts.is_empty() {
            self.out.push(Output::Tell(Event::Stopped { order: id, hosts, why }));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::bench::{Bench, CANCEL, ORDER, PARENT, answers, gone, order, starts};
    use super::*;
    use crate::{Frame, HostId, Input, LinkId, Peer, Saved};

    #[test]
    fn a_host_begins_when_it_has_both_and_once() {
        for go_first in [false, true] {
            let mut host = Bench::host();
            let first = if go_first { host.go(&[11], 5) } else { host.hear(1, order(&[11])) };
            assert!(!starts(&first));
            let second = if go_first { host.hear(1, order(&[11])) } else { host.go(&[11], 5) };
            assert!(starts(&second));
            assert!(!starts(&host.go(&[11], 5)) && !starts(&host.hear(2, order(&[11]))));
        }
        let mut host = Bench::host();
        host.hear(1, order(&[11, 12]));
        assert!(!starts(&host.go(&[12], 5)), "it is another's");
    }

    #[test]
    fn a_host_whose_disk_is_slow_does_not_begin_late() {
        let mut host = Bench::host();
        host.hear(1, order(&[11]));
        let (link, hosts) = (PARENT, HostSet::one(HostId(11)));
        let left = Duration::from_secs(5);
        let frame = Frame::Go { order: ORDER, hosts, left };
        host.node.handle(host.now, Input::Frame { link, frame });
        let intent =
            std::iter::from_fn(|| host.node.poll_output()).find_map(|output| match output {
                Output::Save { no, record: Record::Intent(_) } => Some(no),
                _ => None,
            });
        let through = intent.expect("the intent is saved first");
        host.now = host.now + left;
        let outputs = host.give(Input::Saved { through });
        assert!(!starts(&outputs));
        assert_eq!(answers(&outputs), [State::Expired]);
    }

    #[test]
    fn a_release_that_is_over_lets_nobody_begin() {
        let mut host = Bench::host();
        host.go(&[11], 5);
        assert_eq!(answers(&host.wait(5)), [], "it was never asked for anything");
        assert!(!starts(&host.hear(1, order(&[11]))));
        // With the order and no content it says so.
        let mut host = Bench::host();
        let need =
            crate::Need { hosts: HostSet::one(HostId(11)), content: vec![crate::Digest([7; 32])] };
        host.hear(1, Order { needs: vec![need], ..order(&[11]) });
        host.go(&[11], 5);
        assert_eq!(answers(&host.wait(5)), [State::Expired]);
    }

    #[test]
    fn who_waits_is_told_that_it_need_not() {
        for (lapses, word) in [(true, State::Expired), (false, State::Cancelled)] {
            let mut host = Bench::host();
            host.hear(1, order(&[11]));
            let back =
                Order { id: CANCEL, cancels: Some(ORDER), lapses, gate: None, ..order(&[11]) };
            assert_eq!(answers(&host.hear(2, back)), [word]);
            assert!(!starts(&host.go(&[11], 5)));
        }
        // One that runs goes on, if the order has only lapsed.
        let mut host = Bench::host();
        host.hear(1, order(&[11]));
        host.go(&[11], 5);
        let back =
            Order { id: CANCEL, cancels: Some(ORDER), lapses: true, gate: None, ..order(&[11]) };
        assert_eq!(answers(&host.hear(2, back)), []);
    }

    #[test]
    fn a_restarted_root_releases_nobody_for_whom_there_is_no_room() {
        let mut root = Bench::new(0, 0, Saved::default());
        for host in [11, 12, 13] {
            root.child(u64::from(host), host);
        }
        let outputs = root.give(Input::Submit(order(&[11, 12, 13]).into()));
        assert_eq!(gone(&outputs), [(LinkId(11), HostSet::one(HostId(11)))]);
        let saved = std::mem::take(&mut root.kept);
        let mut root = Bench::new(0, 0, saved);
        assert_eq!(gone(&root.child(21, 12)), []);
        // Who was released is told again; who has ended makes room for the next.
        assert_eq!(gone(&root.child(22, 11)), [(LinkId(22), HostSet::one(HostId(11)))]);
        let mut report = Report::new(ORDER);
        report.tally.record(Outcome::bare(State::Ok), &HostSet::one(HostId(11)));
        let frame = Frame::Report { log: 9, seq: 1, report };
        let outputs = root.give(Input::Frame { link: LinkId(22), frame });
        assert_eq!(gone(&outputs), [(LinkId(21), HostSet::one(HostId(12)))]);
    }

    #[test]
    fn who_may_have_been_given_up_is_not_let_begin_after_a_restart() {
        let mut root = Bench::new(0, 0, Saved::default());
        for host in [11, 12] {
            root.child(u64::from(host), host);
        }
        root.give(Input::Submit(order(&[11, 12]).into()));
        root.give(Input::LinkDown { link: LinkId(11) });
        // It is supposed lost, and in the end it is given up and another one takes its place.
        assert_eq!(answers(&root.wait(6)), [State::NotReached]);
        root.wait(85);
        assert_eq!(gone(&root.child(32, 12)), [(LinkId(32), HostSet::one(HostId(12)))]);
        let saved = std::mem::take(&mut root.kept);
        let mut root = Bench::new(0, 0, saved);
        assert_eq!(gone(&root.child(21, 11)), []);
        assert_eq!(gone(&root.child(22, 12)), [(LinkId(22), HostSet::one(HostId(12)))]);
    }

    #[test]
    fn a_relay_supposes_nothing_of_those_who_wait() {
        let mut relay = Bench::new(9, 1, Saved::default());
        let peer = Peer::Parent { place: 0, host: HostId(90) };
        relay.give(Input::LinkUp { link: PARENT, peer });
        relay.child(11, 11);
        relay.child(12, 12);
        relay.hear(1, order(&[11, 12]));
        assert_eq!(answers(&relay.wait(6)), []);
        relay.give(Input::LinkDown { link: LinkId(11) });
        relay.give(Input::LinkDown { link: LinkId(12) });
        assert_eq!(answers(&relay.wait(6)), []);
        relay.go(&[12], 60);
        assert_eq!(answers(&relay.wait(6)), [State::NotReached]);
        let tally = relay.node.tally(ORDER).expect("it knows the order");
        assert_eq!(*tally.hosts(), HostSet::one(HostId(12)));
    }
}
