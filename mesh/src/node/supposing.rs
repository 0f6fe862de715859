//! Suppositions: what a node says of hosts that say nothing.
//!
//! Whoever could not be reached in time is supposed so by the node that notices, and whoever is
//! known to be down at once. It is the nearest node that knows: the one whose link is gone, or the
//! root if nobody has a way. The host's own word replaces all of it whenever it comes; but a run
//! that was said not to have reached somebody is not handed to them any more, since the operator
//! may order the same once more.

use super::Node;
use crate::sabotage::Bug;
use crate::{Event, HostId, HostSet, Order, OrderId, Outcome, Output, Report, State, Time};

impl Node {
    /// Says of those who are known to be down that they are not reached.
    pub(super) fn say_known_down(&mut self, now: Time, id: OrderId) {
        let Some(share) = self.shares.get(id) else { return };
        let Some(order) = share.order.clone().filter(|_| share.may_leave) else { return };
        let missing = self.due_to_answer(&order, share.missing());
        let (mut down, mut again) = (HostSet::new(), None::<Time>);
        if self.config.is_root() {
            let nowhere = missing.difference(&self.routes.below());
            down = self.absent.known_down(now, &nowhere);
            again = self.absent.next(now).filter(|_| down != nowhere);
        }
        let grace = match self.has(Bug::ForgetGrace) {
            true => std::time::Duration::ZERO,
            false => self.config.grace(),
        };
        for (host, child) in self.routes.children().filter(|(_, child)| child.link.is_none()) {
            let waiting = missing.intersection(&child.below);
            if waiting.is_empty() || self.lanes.holds(host, id) {
                continue;
            }
            let until = child.lost_at.unwrap_or(now) + grace;
            if until <= now {
                down = down.union(&waiting);
                if !order.outlasts_reach() {
                    self.lanes.take_off(host, id);
                }
            } else {
                again = Some(again.map_or(until, |old| old.min(until)));
            }
        }
        if !down.is_empty() {
            let mut report = Report::new(id);
            report.tally.record(Outcome::bare(State::NotReached), &down);
            let news = self.merge(now, report);
            self.keep(news);
        }
        if let Some(at) = again {
            self.shares.look_by(id, at);
        }
    }

    /// Whether a run has been said not to reach any of those below a child who owe an answer. If
    /// the parent asks all the same, that was not believed, and counts for nothing here.
    pub(super) fn has_given_up(&self, id: OrderId, child: HostId) -> bool {
        let Some(share) = self.shares.get(id) else { return false };
        let (Some(order), Some(child)) = (&share.order, self.routes.child(child)) else {
            return false;
        };
        if order.outlasts_reach() || share.doubted {
            return false;
        }
        let mut lines = share.tally.lines();
        let missed = lines.find(|(outcome, _)| outcome.state == State::NotReached);
        let owing = order.targets.intersection(&child.below).difference(&share.tally.settled());
        missed.is_some_and(|(_, missed)| owing.is_subset(missed))
    }

    /// Says of those who should have been reached by now what is known of them.
    pub(super) fn check_reach(&mut self, now: Time, id: OrderId) {
        let Some(share) = self.shares.get(id) else { return };
        let Some(order) = &share.order else { return };
        let hold_until = share.hold_until;
        let (order, missing) = (order.clone(), share.missing());
        let missing = match now >= hold_until {
            true => missing,
            false => self.due_to_answer(&order, missing),
        };
        let (report, again) = match missing {
            missing if missing.is_empty() => (Report::new(id), None),
            missing => self.suppose(now, &order, &missing, now >= hold_until),
        };
        if now >= hold_until {
            self.lanes.withdraw(id);
        }
        let again = [again, Some(hold_until).filter(|at| *at > now)].into_iter().flatten().min();
        if let Some(at) = again {
            self.shares.check_by(id, at);
        }
        // Kept like any other word: a child that supposes the same is told that it is held here.
        let news = self.merge(now, report);
        self.keep(news);
    }

    /// What to say of those who are silent, and when there may be more to say. `over`: the order
    /// waits for nobody any more.
    fn suppose(
        &self,
        now: Time,
        order: &Order,
        missing: &HostSet,
        over: bool,
    ) -> (Report, Option<Time>) {
        let (mut report, mut again) = (Report::new(order.id), None::<Time>);
        let mut say =
            |state, hosts: &HostSet| drop(report.tally.record(Outcome::bare(state), hosts));
        say(State::NotReached, &missing.difference(&self.routes.below()));
        for (host, child) in self.routes.children() {
            let waiting = missing.intersection(&child.below);
            if waiting.is_empty() {
                continue;
            }
            let patience = child.lost_at.unwrap_or(now) + order.reach;
            match (child.link, self.lanes.holds(host, order.id)) {
                (_, false) => say(State::NotReached, &waiting),
                // The child will say. If it has spoken while its word did not count, because they
                // were routed elsewhere, then at the end of the hold this node says it.
                (Some(_), true) if !over => {}
                (Some(_), true) => say(State::NotReached, &waiting.difference(&child.up)),
                (None, true) if now < patience => {
                    again = Some(again.map_or(patience, |old| old.min(patience)));
                }
                (None, true) => say(State::RelayLost, &waiting),
            }
        }
        (report, again)
    }

    /// An order is past its validity: whoever is silent still gets a last word, then it goes. Of
    /// one that never came here nobody knows the validity: what the children have handed over
    /// stays until the parent has it, however long that is away.
    pub(super) fn expire(&mut self, now: Time, id: OrderId) {
        let is_told = !self.shares.has_news(id) && !self.uplog.is_in_flight(id);
        if !is_told && self.shares.get(id).is_some_and(|share| share.order.is_none()) {
            return self.shares.remember(id, now);
        }
        if self.gives(id)
            && let Some(share) = self.shares.get_mut(id)
            && share.order.is_some()
            && !share.closed
        {
            let mut report = Report::new(id);
            report.tally.record(Outcome::bare(State::RelayLost), &share.missing());
            self.out.push(Output::Tell(Event::Answers(report)));
            self.out.push(Output::Tell(Event::Closed(id)));
        }
        self.forget(id);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::bench::{Bench, ORDER, PARENT, answers, order};
    use super::*;
    use crate::{Config, Frame, Input, LinkId, Peer, Record, Saved};

    fn hosts(first: u32, last: u32) -> HostSet {
        HostSet::from_ranges([(first, last)])
    }

    /// A run that waits for nobody longer than five seconds.
    fn run(targets: &[u32]) -> Order {
        Order { gate: None, hold: Duration::from_secs(5), ..order(targets) }
    }

    fn relay() -> Bench {
        let mut relay = Bench::new(9, 1, Saved::default());
        let peer = Peer::Parent { place: 0, host: HostId(90) };
        relay.give(Input::LinkUp { link: PARENT, peer });
        relay
    }

    #[test]
    fn answers_to_an_order_that_never_came_here_wait_for_the_parent() {
        let mut relay = Bench::new(9, 1, Saved::default());
        relay.child(2, 11);
        let mut report = Report::new(ORDER);
        report.tally.record(Outcome::bare(State::Cancelled), &hosts(11, 11));
        let frame = Frame::Report { log: 1, seq: 1, report: report.clone() };
        relay.give(Input::Frame { link: LinkId(2), frame });
        let forgets = |outputs: &[Output]| {
            let forget = Record::Forget(ORDER);
            outputs.iter().any(|o| matches!(o, Output::Save { record, .. } if *record == forget))
        };
        assert!(!forgets(&relay.wait(3 * 3600)), "the parent is away");
        let peer = Peer::Parent { place: 0, host: HostId(90) };
        relay.give(Input::LinkUp { link: PARENT, peer });
        let frame = Frame::Hello { log: 5, held_log: 0, held: 0, events: false, profiles: false };
        let mut outputs = relay.give(Input::Frame { link: PARENT, frame });
        outputs.extend(relay.wait(1));
        let told = outputs.iter().find_map(|output| match output {
            Output::Send { frame: Frame::Report { log, seq, report }, .. } => {
                Some((*log, *seq, report.clone()))
            }
            _ => None,
        });
        let (log, through, what) = told.expect("it is told");
        assert_eq!(what, report);
        relay.give(Input::Frame { link: PARENT, frame: Frame::ReportsHeld { log, through } });
        assert!(forgets(&relay.wait(2 * 3600)), "the parent has it");
    }

    /// Time passes, and whoever is at the other end of these links beats.
    fn idle(bench: &mut Bench, secs: u64, links: &[u64]) {
        let interval = Duration::from_secs(5);
        for root in 0..secs {
            bench.wait(1);
            for link in links.iter().copied().map(LinkId) {
                let frame = Frame::Beat { root, interval, root_interval: interval, speaks: false };
                bench.give(Input::Frame { link, frame });
            }
        }
    }

    fn sent(outputs: &[Output], to: u64) -> bool {
        let mut frames = outputs.iter().filter_map(|output| match output {
            Output::Send { link, frame } => Some((*link, frame)),
            _ => None,
        });
        frames.any(|(link, frame)| link == LinkId(to) && matches!(frame, Frame::Order { .. }))
    }

    /// Host 11 dials in by link 21, after a restart.
    fn comes(relay: &mut Bench) -> Vec<Output> {
        relay.child(21, 11);
        let frame = Frame::Hello { log: 7, held_log: 0, held: 0, events: false, profiles: false };
        relay.give(Input::Frame { link: LinkId(21), frame })
    }

    /// What the node says when it is woken at once.
    fn at_once(bench: &mut Bench) -> Vec<State> {
        answers(&bench.wait(0))
    }

    #[test]
    fn who_has_been_away_for_long_is_not_reached_at_once() {
        let grace = Config::new(HostId(9), 1, true).grace().as_secs();
        let mut relay = relay();
        relay.child(11, 11);
        relay.child(12, 12);
        relay.give(Input::LinkDown { link: LinkId(11) });
        idle(&mut relay, grace, &[1, 12]);
        relay.hear(1, run(&[11, 12]));
        assert_eq!(at_once(&mut relay), [State::NotReached]);
        let tally = relay.node.tally(ORDER).expect("it knows the order");
        assert_eq!(*tally.hosts(), hosts(11, 11));
        // The operator may have ordered it again by now.
        assert!(!sent(&comes(&mut relay), 21));
        // Unless nobody believed it.
        let again = relay.hear(2, run(&[11, 12]));
        assert!(sent(&again, 21));
    }

    #[test]
    fn who_has_just_gone_has_the_grace_to_come_back() {
        let mut relay = relay();
        relay.child(11, 11);
        relay.give(Input::LinkDown { link: LinkId(11) });
        idle(&mut relay, 1, &[1]);
        relay.hear(1, run(&[11]));
        assert_eq!(at_once(&mut relay), []);
        assert!(sent(&comes(&mut relay), 21));
        assert_eq!(answers(&relay.wait(4)), []);
    }

    #[test]
    fn the_grace_ends_within_the_time_to_reach_a_host() {
        let grace = Config::new(HostId(9), 1, true).grace().as_secs();
        let mut relay = relay();
        relay.child(11, 11);
        relay.give(Input::LinkDown { link: LinkId(11) });
        idle(&mut relay, grace - 2, &[1]);
        relay.hear(1, run(&[11]));
        assert_eq!(at_once(&mut relay), []);
        assert_eq!(answers(&relay.wait(2)), [State::NotReached]);
    }

    #[test]
    fn a_push_waits_on_for_those_who_are_not_reached() {
        let grace = Config::new(HostId(9), 1, true).grace().as_secs();
        let mut relay = relay();
        relay.child(11, 11);
        relay.give(Input::LinkDown { link: LinkId(11) });
        idle(&mut relay, grace, &[1]);
        relay.hear(1, Order { gate: None, ..order(&[11]) });
        assert_eq!(at_once(&mut relay), [State::NotReached]);
        assert!(sent(&comes(&mut relay), 21));
    }

    #[test]
    fn the_root_speaks_for_those_who_live_nowhere_and_not_right_after_its_start() {
        for (awake, said) in [(29, vec![]), (30, vec![State::NotReached])] {
            let mut root = Bench::new(0, 0, Saved::default());
            root.child(11, 11);
            idle(&mut root, awake, &[11]);
            root.give(Input::Submit(run(&[11, 12]).into()));
            assert_eq!(at_once(&mut root), said);
        }
    }
}
