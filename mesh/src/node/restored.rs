//! A root that was restored from a backup: what it has lost is told once more.
//!
//! What a parent has acknowledged is durable there, but a backup may be older. So whoever hears
//! that the root was restored takes back that anything was ever told, and tells all that it still
//! remembers, with the outputs. The root may not know such an order at all any more; it hands the
//! answers to its shell as they came.
//!
//! That it was restored, and which of two roots is the root, is for the shell to say.

use super::Node;
use crate::sabotage::Bug;
use crate::{Event, Output, Record, Report, Time};

impl Node {
    /// Tells everything to the parent that there is, and to the next one. That there is something
    /// to tell is on disk before anybody can acknowledge it anew.
    pub(super) fn tell_all_again(&mut self, now: Time) {
        if self.config.is_root() || self.config.has(Bug::TrustBackup) {
            return;
        }
        for id in self.shares.settled_orders() {
            self.out.save(Record::Answers(Report::new(id)));
        }
        self.uplog.start_over();
        self.shares.retell(now);
    }

    /// The root's shell is told of answers to an order that is not known here.
    pub(super) fn tell_unheard(&mut self, report: Report) {
        self.out.push(Output::Tell(Event::Unheard(report)));
        if self.config.has(Bug::AckUnheard) {
            return;
        }
        // A mark: the acknowledgement waits for it, and is on disk no sooner than what was told.
        self.out.save(Record::EventsGone(Vec::new()));
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::bench::{Bench, ORDER, PARENT, order};
    use super::*;
    use crate::{Digest, Frame, HostId, HostSet, Input, LinkId, Outcome, Peer, Saved, State};

    const BODY: Digest = Digest([7; 32]);

    fn report() -> Report {
        let mut report = Report::new(ORDER);
        let outcome = Outcome { state: State::Ok, body: Some(BODY) };
        report.tally.record(outcome, &HostSet::one(HostId(11)));
        report.bodies.insert(BODY, Bytes::from_static(b"done"));
        report
    }

    fn hello(link: LinkId) -> Input {
        let frame = Frame::Hello { log: 5, held_log: 0, held: 0, events: false, profiles: false };
        Input::Frame { link, frame }
    }

    /// What is told upward, with how many bodies.
    fn told(outputs: &[Output]) -> Vec<(u64, u64, usize)> {
        let reports = outputs.iter().filter_map(|output| match output {
            Output::Send { frame: Frame::Report { log, seq, report }, .. } => {
                Some((*log, *seq, report.bodies.len()))
            }
            _ => None,
        });
        reports.collect()
    }

    /// A relay below the root, whose only host has answered, which the root has acknowledged.
    fn settled() -> Bench {
        let mut relay = Bench::new(9, 1, Saved::default());
        let peer = Peer::Parent { place: 0, host: HostId::ROOT };
        relay.give(Input::LinkUp { link: PARENT, peer });
        relay.give(hello(PARENT));
        relay.child(21, 11);
        relay.give(hello(LinkId(21)));
        let given = order(&[11]);
        let frame = Frame::Order { log: 5, seq: 1, order: given.into() };
        relay.give(Input::Frame { link: PARENT, frame });
        let frame = Frame::Report { log: 21, seq: 1, report: report() };
        let outputs = relay.give(Input::Frame { link: LinkId(21), frame });
        let [(log, seq, 1)] = told(&outputs)[..] else { panic!("{outputs:?}") };
        let frame = Frame::ReportsHeld { log, through: seq };
        let outputs = relay.give(Input::Frame { link: PARENT, frame });
        let settled = |output: &Output| match output {
            Output::Save { record: Record::Settled(id), .. } => *id == ORDER,
            _ => false,
        };
        assert!(outputs.iter().any(settled), "{outputs:?}");
        relay
    }

    #[test]
    fn what_was_acknowledged_is_told_again_to_a_root_that_was_restored() {
        let mut relay = settled();
        let outputs = relay.give(Input::Restored);
        let doubted = |output: &Output| {
            matches!(output, Output::Save { record: Record::Answers(report), .. }
                if *report == Report::new(ORDER))
        };
        assert!(outputs.iter().any(doubted), "after a restart it is told again too: {outputs:?}");
        assert_eq!(told(&outputs).len(), 1, "{outputs:?}");
        // The link was with the root of before, which has the same number as the one to come.
        relay.give(Input::LinkDown { link: PARENT });
        let (next, host) = (LinkId(2), HostId::ROOT);
        relay.give(Input::LinkUp { link: next, peer: Peer::Parent { place: 0, host } });
        let outputs = relay.give(hello(next));
        assert!(matches!(told(&outputs)[..], [(_, _, 1)]), "with its output: {outputs:?}");
        // And only once.
        relay.give(Input::LinkDown { link: next });
        let next = LinkId(3);
        relay.give(Input::LinkUp { link: next, peer: Peer::Parent { place: 0, host } });
        let (log, held) = (relay.node.uplog.log(), 9);
        let frame = Frame::Hello { log: 6, held_log: log, held, events: false, profiles: false };
        let outputs = relay.give(Input::Frame { link: next, frame });
        assert_eq!(told(&outputs), [], "{outputs:?}");
    }

    #[test]
    fn a_root_tells_of_an_order_that_it_does_not_know_before_it_acknowledges() {
        let mut root = Bench::new(0, 0, Saved::default());
        root.child(21, 11);
        root.give(hello(LinkId(21)));
        let frame = Frame::Report { log: 21, seq: 1, report: report() };
        root.node.handle(root.now, Input::Frame { link: LinkId(21), frame });
        let outputs: Vec<_> = std::iter::from_fn(|| root.node.poll_output()).collect();
        let unheard = outputs.iter().position(
            |output| matches!(output, Output::Tell(Event::Unheard(told)) if *told == report()),
        );
        let saves = outputs.iter().position(|output| matches!(output, Output::Save { .. }));
        assert!(unheard.is_some() && unheard < saves, "{outputs:?}");
        let held = |output: &Output| {
            matches!(output, Output::Send { frame: Frame::ReportsHeld { .. }, .. })
        };
        assert!(!outputs.iter().any(held), "{outputs:?}");
        let late = root.wait(1);
        assert!(!late.iter().any(held), "the disk has not said yet that it is there: {late:?}");
        let Some(Output::Save { no, .. }) = outputs.get(saves.unwrap_or_default()) else {
            panic!("{outputs:?}")
        };
        root.give(Input::Saved { through: *no });
        assert!(root.wait(1).iter().any(held));
    }
}
