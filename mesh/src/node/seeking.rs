//! Answers to a relay's own order that have gone another way, and how they get back to it.
//!
//! Answers go up, and a relay hears only of those who live below it. A host that moves, in the
//! middle of an order of the relay that it had, answers where nobody knows the order. So the relay
//! asks above ([`Seek`](crate::seek::Seek)) until it has the host's own word. The question goes up,
//! and down to where the host lives now; whoever knows the answer sends it back the same way, and
//! so does whoever hears it later.
//!
//! Only own words go back, no suppositions. A child may ask only about orders of somebody below it,
//! and is believed only about hosts below it.

use super::Node;
use super::links::WRONG_SIDE;
use crate::fold::line_bytes;
use crate::sabotage::Bug;
use crate::{Frame, HostId, HostSet, LinkId, OrderId, Peer, Report, Tally, Time};

impl Node {
    /// Somebody has come or gone, or the parent: it may be time to ask.
    pub(super) fn stir_seek(&mut self, now: Time) {
        if !self.config.is_root() && self.shares.given() > 0 {
            self.seek.stir(now);
        }
    }

    /// Asks above about whoever has gone without an answer, if it is time to.
    pub(super) fn seek(&mut self, now: Time) {
        if !self.seek.is_due(now) || self.has(Bug::ForgetAstray) {
            return;
        }
        // With another parent it begins anew.
        let Some((link, _)) = self.uplink.ready() else { return };
        let open = self.shares.open_orders().into_iter();
        let astray: Vec<_> = open.filter(|id| !self.astray(*id).is_empty()).collect();
        for order in self.seek.turn(now, &astray) {
            let hosts = self.astray(order);
            self.out.send(link, Frame::Seek { order, hosts });
        }
    }

    /// Who is not reached below this relay now, and has not given its own word on an order of it:
    /// whoever has left, and whoever never lived here and had the order from a relay that has left.
    fn astray(&self, id: OrderId) -> HostSet {
        let share = self.shares.get(id).filter(|_| id.giver() == Some(self.config.host));
        let Some(share) = share else { return HostSet::new() };
        let Some(order) = &share.order else { return HostSet::new() };
        order.targets.difference(&self.routes.up()).difference(&share.tally.settled())
    }

    /// A relay, or whoever passes it on, asks what hosts have answered.
    pub(super) fn handle_seek(
        &mut self,
        now: Time,
        link: LinkId,
        peer: Peer,
        (order, hosts): (OrderId, HostSet),
    ) {
        if let Peer::Child { serves: false, .. } = peer {
            return self.hang_up(now, link, WRONG_SIDE);
        }
        let child = match peer {
            Peer::Parent { .. } => None,
            Peer::Child { host, .. } => Some(host),
        };
        let may_ask = child.is_none_or(|child| self.has_giver(child, order));
        if !may_ask || self.seek.is_too_much(now, link) {
            return;
        }
        let known = self.shares.get(order).map(|share| share.known(order));
        let told = known.map(|known| self.send_found(link, &known, &hosts, false));
        let mut rest = hosts.difference(&told.unwrap_or_default());
        if child.is_some() {
            self.seek.remember(now, link, order, rest.clone());
        }
        let children = self.routes.children().filter(|(host, _)| child != Some(*host));
        for (_, other) in children {
            let there = rest.intersection(&other.up);
            if let Some(link) = other.link.filter(|_| !there.is_empty()) {
                rest = rest.difference(&there);
                self.out.send(link, Frame::Seek { order, hosts: there });
            }
        }
        if child.is_some()
            && let Some((parent, _)) = self.uplink.ready()
            && !rest.is_empty()
        {
            self.out.send(parent, Frame::Seek { order, hosts: rest });
        }
    }

    /// Whether an order is of somebody below this child.
    fn has_giver(&self, child: HostId, order: OrderId) -> bool {
        let below = self.routes.child(child).map(|child| &child.below);
        order.giver().zip(below).is_some_and(|(giver, below)| below.contains(giver))
    }

    /// A report has come: perhaps somebody has asked for what it says. An output may have come
    /// before, where it is not kept; then its hosts are found when they are asked for again.
    pub(super) fn hand_back(&mut self, now: Time, report: &Report) {
        if self.seek.sought(now, report.order).is_some() {
            let known = self.shares.get(report.order).map(|share| share.known(report.order));
            self.pass_found(now, known.as_ref().unwrap_or(report), true);
        }
    }

    /// Sends on what was found, as far as somebody has asked for it.
    fn pass_found(&mut self, now: Time, known: &Report, whole: bool) {
        let Some((link, hosts)) = self.seek.sought(now, known.order) else { return };
        let hosts = hosts.clone();
        let told = self.send_found(link, known, &hosts, whole);
        self.seek.found(known.order, &told);
    }

    /// Sends the own words of these hosts towards the order's giver, as far as a frame goes: it
    /// asks for the rest. `whole`: only those whose outputs are at hand. Returns whose.
    fn send_found(
        &mut self,
        link: LinkId,
        known: &Report,
        hosts: &HostSet,
        whole: bool,
    ) -> HostSet {
        let mut report = Report::new(known.order);
        let mut room = self.config.limits.report_bytes;
        for (outcome, line) in known.tally.lines().filter(|(o, _)| !o.state.is_provisional()) {
            let line = line.intersection(hosts);
            let body = outcome.body.and_then(|digest| known.bodies.get_key_value(&digest));
            let cost = line_bytes(&line) + body.map_or(0, |(_, bytes)| bytes.len());
            let lacks = whole && outcome.body.is_some() && body.is_none();
            if line.is_empty() || lacks || cost > room {
                continue;
            }
            room -= cost;
            report.tally.record(*outcome, &line);
            report.bodies.extend(body.map(|(digest, bytes)| (*digest, bytes.clone())));
        }
        let told = report.tally.hosts().clone();
        if !told.is_empty() {
            self.out.send(link, Frame::Found { report });
        }
        told
    }

    /// Answers that were asked for: of this relay's own order, or on their way to its giver.
    pub(super) fn handle_found(&mut self, now: Time, peer: Peer, report: Report) {
        let is_own = report.order.giver() == Some(self.config.host);
        let report = match peer {
            Peer::Parent { .. } if is_own => return self.take_found(now, report),
            Peer::Parent { .. } => return self.pass_found(now, &report, false),
            Peer::Child { host, .. } => {
                let child = self.routes.child(host);
                own_words(report, &child.map(|child| child.below.clone()).unwrap_or_default())
            }
        };
        if self.seek.sought(now, report.order).is_some() {
            self.pass_found(now, &report, false);
        } else if let Some((link, _)) = self.uplink.ready()
            && !report.tally.is_empty()
        {
            self.out.send(link, Frame::Found { report });
        }
    }

    /// Takes what was found into the share of this relay's own order, like any answer.
    fn take_found(&mut self, now: Time, report: Report) {
        let share = self.shares.get(report.order);
        let Some(order) = share.and_then(|share| share.order.clone()) else { return };
        let news = self.merge(now, own_words(report, &order.targets));
        if !news.tally.is_empty() {
            self.seek.stir(now);
        }
        self.keep(news);
    }
}

/// What these hosts have said themselves.
fn own_words(mut report: Report, hosts: &HostSet) -> Report {
    let lines = report.tally.lines().filter(|(outcome, _)| !outcome.state.is_provisional());
    report.tally = lines.map(|(o, line)| (*o, line.intersection(hosts))).collect::<Tally>();
    report.with_bodies_of_lines()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::bench::{Bench, ORDER, PARENT, order};
    use super::*;
    use crate::{Digest, Event, Input, Order, Outcome, Output, Record, Saved, State, Subtree};

    /// The relay that has given the order, and the host that has left it.
    const GIVER: u32 = 9;
    const HOST: u32 = 11;
    const BODY: Digest = Digest([7; 32]);

    fn own() -> OrderId {
        ORDER.given_by(HostId(GIVER))
    }

    fn host() -> HostSet {
        HostSet::one(HostId(HOST))
    }

    /// What the host says, with its output or without.
    fn report(state: State, with: bool) -> Report {
        let mut report = Report::new(own());
        report.tally.record(Outcome { state, body: Some(BODY) }, &host());
        if with {
            report.bodies.insert(BODY, Bytes::from_static(b"done"));
        }
        report
    }

    fn hello(log: u64) -> Frame {
        Frame::Hello { log, held_log: 0, held: 0, events: false, profiles: false }
    }

    fn hear(bench: &mut Bench, link: u64, frame: Frame) -> Vec<Output> {
        bench.give(Input::Frame { link: LinkId(link), frame })
    }

    /// A node with a parent.
    fn relay(host: u32) -> Bench {
        let mut relay = Bench::new(host, 1, Saved::default());
        let peer = Peer::Parent { place: 0, host: HostId(90) };
        relay.give(Input::LinkUp { link: PARENT, peer });
        hear(&mut relay, PARENT.0, hello(5));
        relay
    }

    /// A relay below this node that reaches these hosts.
    fn branch(bench: &mut Bench, link: u64, relay: u32, hosts: &[u32]) {
        let peer = Peer::Child { host: HostId(relay), serves: true };
        bench.give(Input::LinkUp { link: LinkId(link), peer });
        hear(bench, link, hello(link));
        let all = hosts.iter().chain([&relay]).map(|host| HostId(*host));
        let below: HostSet = all.collect();
        let tree = Subtree { up: below.clone(), below, ..Subtree::default() };
        hear(bench, link, Frame::Below(tree));
    }

    /// The giver after its host has gone in the middle of the order.
    fn left() -> Bench {
        let mut relay = relay(GIVER);
        relay.child(21, HOST);
        hear(&mut relay, 21, hello(21));
        let run = Order { id: own(), gate: None, ..order(&[HOST]) };
        relay.give(Input::Submit(run.into()));
        hear(&mut relay, 21, Frame::OrdersHeld { log: 21, through: 1 });
        relay.give(Input::LinkDown { link: LinkId(21) });
        relay
    }

    fn seeks(outputs: &[Output]) -> Vec<(u64, HostSet)> {
        let seeks = outputs.iter().filter_map(|output| match output {
            Output::Send { link, frame: Frame::Seek { order, hosts } } if *order == own() => {
                Some((link.0, hosts.clone()))
            }
            _ => None,
        });
        seeks.collect()
    }

    fn found(outputs: &[Output]) -> Vec<(u64, Report)> {
        let found = outputs.iter().filter_map(|output| match output {
            Output::Send { link, frame: Frame::Found { report } } => Some((link.0, report.clone())),
            _ => None,
        });
        found.collect()
    }

    fn seek() -> Frame {
        Frame::Seek { order: own(), hosts: host() }
    }

    #[test]
    fn a_relay_asks_until_it_has_the_word_of_who_has_left() {
        let mut relay = left();
        assert_eq!(seeks(&relay.wait(1)), [(PARENT.0, host())]);
        assert_eq!(seeks(&relay.wait(1)), []);
        assert_eq!(seeks(&relay.wait(4)), [(PARENT.0, host())]);
        // A supposition is no answer.
        hear(&mut relay, PARENT.0, Frame::Found { report: report(State::NotReached, false) });
        assert_eq!(seeks(&relay.wait(10)), [(PARENT.0, host())]);
        let outputs = hear(&mut relay, PARENT.0, Frame::Found { report: report(State::Ok, true) });
        let told = |output: &Output| match output {
            Output::Tell(Event::Answers(told)) => *told == report(State::Ok, true),
            _ => false,
        };
        let saved = |output: &Output| match output {
            Output::Save { record: Record::Answers(kept), .. } => kept.bodies.contains_key(&BODY),
            _ => false,
        };
        assert!(outputs.iter().any(told) && outputs.iter().any(saved), "{outputs:?}");
        assert_eq!(seeks(&relay.wait(300)), []);
    }

    #[test]
    fn a_new_parent_is_asked_at_once_and_none_is_asked_of_who_is_here() {
        let mut relay = left();
        relay.wait(1);
        relay.wait(200);
        relay.give(Input::LinkDown { link: PARENT });
        assert_eq!(seeks(&relay.wait(60)), []);
        let peer = Peer::Parent { place: 0, host: HostId(91) };
        relay.give(Input::LinkUp { link: LinkId(2), peer });
        hear(&mut relay, 2, hello(6));
        assert_eq!(seeks(&relay.wait(1)), [(2, host())]);
        relay.child(22, HOST);
        assert_eq!(seeks(&relay.wait(120)), []);
    }

    /// A node above both: what it knows already it says, what it hears later it passes on once.
    #[test]
    fn the_answer_goes_back_where_the_question_came_from() {
        for knows in [true, false] {
            let mut node = relay(8);
            branch(&mut node, 21, GIVER, &[]);
            branch(&mut node, 22, 7, &[HOST]);
            let answer = report(State::Ok, true);
            let frame = Frame::Report { log: 22, seq: 1, report: answer.clone() };
            if knows {
                hear(&mut node, 22, frame.clone());
            }
            let asked = hear(&mut node, 21, seek());
            if knows {
                assert_eq!((found(&asked), seeks(&asked)), (vec![(21, answer)], vec![]));
                continue;
            }
            assert_eq!((found(&asked), seeks(&asked)), (vec![], vec![(22, host())]));
            assert_eq!(found(&hear(&mut node, 22, frame)), [(21, answer.clone())]);
            let frame = Frame::Report { log: 22, seq: 2, report: answer };
            assert_eq!(found(&hear(&mut node, 22, frame)), []);
        }
    }

    #[test]
    fn the_root_passes_on_what_it_does_not_keep_if_the_output_is_there() {
        let mut root = Bench::new(0, 0, Saved::default());
        branch(&mut root, 21, GIVER, &[]);
        branch(&mut root, 22, 7, &[HOST]);
        assert_eq!(seeks(&hear(&mut root, 21, seek())), [(22, host())]);
        let half = Frame::Report { log: 22, seq: 1, report: report(State::Ok, false) };
        assert_eq!(found(&hear(&mut root, 22, half)), []);
        // Who was asked sends what there is.
        let answer = report(State::Ok, false);
        let outputs = hear(&mut root, 22, Frame::Found { report: answer.clone() });
        assert_eq!(found(&outputs), [(21, answer)]);
    }

    #[test]
    fn where_the_host_lives_it_is_asked_and_its_answer_goes_up() {
        let mut relay = relay(7);
        relay.child(21, HOST);
        assert_eq!(seeks(&hear(&mut relay, PARENT.0, seek())), [(21, host())]);
        let answer = report(State::Ok, true);
        let outputs = hear(&mut relay, 21, Frame::Found { report: answer.clone() });
        assert_eq!(found(&outputs), [(PARENT.0, answer)]);
        // About others a child is not believed.
        relay.child(22, 12);
        let outputs = hear(&mut relay, 22, Frame::Found { report: report(State::Ok, true) });
        assert_eq!(found(&outputs), []);
    }

    #[test]
    fn nobody_asks_about_the_orders_of_others() {
        let mut node = relay(8);
        branch(&mut node, 21, 6, &[]);
        branch(&mut node, 22, 7, &[HOST]);
        let outputs = hear(&mut node, 21, seek());
        assert!(seeks(&outputs).is_empty() && found(&outputs).is_empty());
        // Nor does a host about anything.
        node.child(23, 12);
        let outputs = hear(&mut node, 23, seek());
        assert!(outputs.iter().any(|output| matches!(output, Output::Hangup { .. })));
    }

    #[test]
    fn what_is_found_goes_in_frames_that_fit() {
        let mut node = relay(8);
        branch(&mut node, 21, GIVER, &[]);
        branch(&mut node, 22, 7, &[11, 12, 13]);
        let mut answer = Report::new(own());
        for n in 11..=13u8 {
            let outcome = Outcome { state: State::Ok, body: Some(Digest([n; 32])) };
            answer.tally.record(outcome, &HostSet::one(HostId(n.into())));
            answer.bodies.insert(Digest([n; 32]), vec![n; 200 << 10].into());
        }
        hear(&mut node, 22, Frame::Report { log: 22, seq: 1, report: answer });
        let hosts = HostSet::from_ranges([(11, 13)]);
        let outputs = hear(&mut node, 21, Frame::Seek { order: own(), hosts });
        let [(21, first)] = &found(&outputs)[..] else { panic!("{outputs:?}") };
        assert_eq!(first.tally.hosts(), &HostSet::from_ranges([(11, 12)]));
        let hosts = HostSet::one(HostId(13));
        let outputs = hear(&mut node, 21, Frame::Seek { order: own(), hosts: hosts.clone() });
        assert_eq!(found(&outputs)[0].1.tally.hosts(), &hosts);
    }
}
