//! Whose order it is: the node at which an order was given speaks for all its targets.
//!
//! That is the root, or a relay whose own operator has given it by an authority that the root has
//! delegated; the order's id says which. Answers end there: its watcher keeps them, and nobody
//! above is told by reports, since nobody above knows the order. Everything else, how it goes down,
//! waits, is supposed and begins at most once, is as with any order.

use std::sync::Arc;

use super::Node;
use crate::sabotage::Bug;
use crate::{Event, HostSet, Order, OrderId, Output, Report, Time};

impl Node {
    /// Whether an order was given at this node.
    pub(super) fn gives(&self, id: OrderId) -> bool {
        self.config.is_root() || id.giver() == Some(self.config.host)
    }

    /// Opens an order's share. `below`: who lives here.
    pub(super) fn adopt(&mut self, now: Time, order: &Arc<Order>, below: &HostSet) {
        let id = order.id;
        let own = self.gives(id);
        let speaks_for_all = own && !(id.giver().is_some() && self.has(Bug::SpeakForBelow));
        let duty = match speaks_for_all {
            true => order.targets.clone(),
            false => order.targets.intersection(below),
        };
        self.shares.adopt(now, order, duty);
        if let Some(share) = self.shares.get_mut(id) {
            share.own = own;
        }
    }

    /// Whether an id claims to be of this node, which knows no such order: it was forgotten when it
    /// had expired, and nobody asks for its answers then, or somebody below has made it up.
    pub(super) fn is_unheard_of(&self, id: OrderId) -> bool {
        self.gives(id) && self.shares.get(id).is_none()
    }

    /// Whether what the parent was told of an order before a restart counts, whichever parent there
    /// is now. Not of a relay's: whoever was told may live elsewhere in the tree, where nobody
    /// passes it on to the giver.
    pub(super) fn is_told_for_good(&self, id: OrderId) -> bool {
        id.giver().is_none() || self.has(Bug::TrustLastParent)
    }

    /// Tells a relay's watcher all that is known of an order that was given there.
    pub(super) fn tell_known(&mut self, known: Report, closed: bool) {
        let id = known.order;
        if !known.tally.is_empty() {
            self.out.push(Output::Tell(Event::Answers(known)));
        }
        if closed {
            self.out.push(Output::Tell(Event::Closed(id)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::super::bench::{Bench, ORDER, PARENT, order};
    use crate::{
        Digest, Event, Frame, HostId, HostSet, Input, LinkId, Order, OrderId, Outcome, Output,
        Peer, Record, Report, Saved, State,
    };

    /// The relay whose operator gives orders.
    const RELAY: u32 = 9;
    const BODY: Digest = Digest([7; 32]);

    fn own() -> OrderId {
        ORDER.given_by(HostId(RELAY))
    }

    /// A run of the relay's operator.
    fn run(targets: &[u32]) -> Order {
        let hold = Duration::from_secs(5);
        Order { id: own(), gate: None, hold, ..order(targets) }
    }

    /// A relay with a parent, and two hosts below it.
    fn relay(saved: Saved) -> Bench {
        let mut relay = Bench::new(RELAY, 1, saved);
        let peer = Peer::Parent { place: 0, host: HostId(90) };
        relay.give(Input::LinkUp { link: PARENT, peer });
        let frame = Frame::Hello { log: 5, held_log: 0, held: 0, events: false, profiles: false };
        relay.give(Input::Frame { link: PARENT, frame });
        for (link, host) in [(21, 11), (22, 12)] {
            relay.child(link, host);
            let hello =
                Frame::Hello { log: link, held_log: 0, held: 0, events: false, profiles: false };
            relay.give(Input::Frame { link: LinkId(link), frame: hello });
        }
        relay
    }

    fn says(relay: &mut Bench, link: u64, seq: u64, host: u32) -> Vec<Output> {
        let mut report = Report::new(own());
        let outcome = Outcome { state: State::Ok, body: Some(BODY) };
        report.tally.record(outcome, &HostSet::one(HostId(host)));
        report.bodies.insert(BODY, Bytes::from_static(b"done"));
        let frame = Frame::Report { log: link, seq, report };
        relay.give(Input::Frame { link: LinkId(link), frame })
    }

    fn told(outputs: &[Output]) -> Vec<(HostSet, usize)> {
        let told = outputs.iter().filter_map(|output| match output {
            Output::Tell(Event::Answers(report)) => {
                Some((report.tally.hosts().clone(), report.bodies.len()))
            }
            _ => None,
        });
        told.collect()
    }

    fn closes(outputs: &[Output]) -> bool {
        outputs
            .iter()
            .any(|output| matches!(output, Output::Tell(Event::Closed(id)) if *id == own()))
    }

    fn reports_up(outputs: &[Output]) -> bool {
        let up = |output: &Output| {
            matches!(output, Output::Send { link: PARENT, frame: Frame::Report { .. } })
        };
        outputs.iter().any(up)
    }

    #[test]
    fn its_giver_saves_an_order_before_it_leaves_and_keeps_the_answers() {
        let mut relay = relay(Saved::default());
        let outputs = relay.give(Input::Submit(run(&[11, 12]).into()));
        let saved = outputs
            .iter()
            .position(|output| matches!(output, Output::Save { record: Record::Order(_), .. }));
        let left = outputs
            .iter()
            .position(|output| matches!(output, Output::Send { frame: Frame::Order { .. }, .. }));
        assert!(saved.expect("it is kept") < left.expect("it leaves"));

        let mut all = says(&mut relay, 21, 1, 11);
        assert_eq!(told(&all), [(HostSet::one(HostId(11)), 1)]);
        assert!(!closes(&all));
        let last = says(&mut relay, 22, 1, 12);
        assert!(closes(&last));
        all.extend(last);
        all.extend(relay.wait(60));
        assert!(!reports_up(&all), "nobody above knows the order");
    }

    #[test]
    fn answers_to_an_order_that_it_has_not_given_are_held_and_nothing_else() {
        let mut relay = relay(Saved::default());
        let outputs = says(&mut relay, 21, 1, 11);
        assert!(told(&outputs).is_empty());
        assert!(!outputs.iter().any(|output| matches!(output, Output::Save { .. })));
        assert!(relay.node.tally(own()).is_none());
        let held = |output: &Output| {
            matches!(output, Output::Send { frame: Frame::ReportsHeld { through: 1, .. }, .. })
        };
        assert!(outputs.iter().chain(&relay.wait(1)).any(held), "nor is it said again");
    }

    #[test]
    fn it_speaks_for_targets_that_are_nowhere_below_it() {
        let mut relay = relay(Saved::default());
        relay.give(Input::Submit(run(&[11, 77]).into()));
        says(&mut relay, 21, 1, 11);
        let outputs = relay.wait(6);
        assert_eq!(told(&outputs), [(HostSet::one(HostId(77)), 0)]);
        assert!(closes(&outputs));
    }

    #[test]
    fn what_it_knew_is_told_again_after_a_restart() {
        let mut before = relay(Saved::default());
        before.give(Input::Submit(run(&[11, 12]).into()));
        says(&mut before, 21, 1, 11);
        let mut again = Bench::new(RELAY, 1, before.kept);
        let outputs = again.give(Input::Degraded(false));
        assert_eq!(told(&outputs), [(HostSet::one(HostId(11)), 1)]);
        assert!(!closes(&outputs), "one is missing");
    }

    #[test]
    fn what_another_parent_was_told_before_a_restart_is_told_again() {
        let relays = Order { id: own(), ..run(&[11]) };
        let controllers = Order { id: ORDER, ..run(&[11]) };
        let mut saved = Saved::default();
        for order in [controllers, relays] {
            let mut report = Report::new(order.id);
            report.tally.record(Outcome::bare(State::Ok), &HostSet::one(HostId(11)));
            saved.answers.push(report);
            saved.settled.push(order.id);
            saved.orders.push(order.into());
        }
        let mut host = Bench::new(11, 1, saved);
        let peer = Peer::Parent { place: 0, host: HostId(90) };
        host.give(Input::LinkUp { link: PARENT, peer });
        let frame = Frame::Hello { log: 5, held_log: 0, held: 0, events: false, profiles: false };
        let mut all = host.give(Input::Frame { link: PARENT, frame });
        all.extend(host.wait(1));
        let told = all.iter().filter_map(|output| match output {
            Output::Send { frame: Frame::Report { report, .. }, .. } => Some(report.order),
            _ => None,
        });
        assert_eq!(told.collect::<Vec<_>>(), [own()]);
    }

    #[test]
    fn an_order_of_another_relay_is_passed_on_and_answered_upward() {
        let mut relay = relay(Saved::default());
        let other = Order { id: ORDER.given_by(HostId(8)), ..run(&[11]) };
        relay.hear(1, other.clone());
        let mut report = Report::new(other.id);
        report.tally.record(Outcome::bare(State::Ok), &HostSet::one(HostId(11)));
        let frame = Frame::Report { log: 21, seq: 1, report };
        let outputs = relay.give(Input::Frame { link: LinkId(21), frame });
        assert!(told(&outputs).is_empty());
        assert!(reports_up(&outputs) || reports_up(&relay.wait(1)));
        assert!(!reports_up(&relay.wait(1)));
        let mut again = relay.hear(2, other);
        again.extend(relay.wait(1));
        assert!(reports_up(&again), "whoever asks again has a giver who has not heard it");
    }
}
