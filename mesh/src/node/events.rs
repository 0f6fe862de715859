//! Events and profiles: what this host notices, what children tell, and the way of both upward.

use super::Node;
use crate::fact::{Folded, Happening};
use crate::outbox::EventsAck;
use crate::sabotage::Bug;
use crate::{Frame, HostId, LinkId, Peer, Profiled, Reason, Time};

impl Node {
    pub(super) fn restore_events(&mut self, now: Time, own: Vec<Folded>, held: Vec<Folded>) {
        let own = if self.has(Bug::ForgetCounts) { Vec::new() } else { own };
        self.happened.restore(now, own, held, &mut self.out);
    }

    pub(super) fn happen(&mut self, now: Time, happening: Happening) {
        let signature = happening.fact.signature;
        self.happened.happen(now, happening);
        if self.has(Bug::TellEventsBeforeSave)
            && let Some(own) = self.happened.own(signature)
        {
            self.happened.own_is_saved(now, &own, &mut self.out);
        }
    }

    /// Saves what there is of events, if it is time to.
    pub(super) fn save_events(&mut self, now: Time) {
        self.happened.handle_timeout(now, &mut self.out);
        self.handle_saved(now, 0);
    }

    pub(super) fn own_events_are_saved(&mut self, now: Time, events: &[Folded]) {
        for folded in events {
            self.happened.own_is_saved(now, folded, &mut self.out);
        }
    }

    pub(super) fn handle_events(
        &mut self,
        now: Time,
        link: LinkId,
        peer: Peer,
        (no, events): (u64, Vec<Folded>),
    ) {
        let Peer::Child { host, serves } = peer else { return };
        if self.has(Bug::AckEventsBeforeSave) {
            self.ack_events(vec![EventsAck { child: host, link, no, held: events.len() }]);
        }
        let taken = self.happened.take(now, (host, serves), (link, no), events, &mut self.out);
        if let Err(fault) = taken {
            return self.hang_up(now, link, Reason::Protocol(fault));
        }
        self.handle_saved(now, 0);
    }

    /// A child tells profiles of those who are routed through it; they wait a little for others,
    /// as events do.
    pub(super) fn handle_profiles(
        &mut self,
        now: Time,
        link: LinkId,
        child: (HostId, bool),
        (no, lines): (u64, Vec<Profiled>),
    ) {
        let at = now + self.config.events.flush;
        let below = self.routes.child(child.0).map(|c| c.below.clone()).unwrap_or_default();
        let taken = self.profiles.take(at, child, &below, (link, no), lines, &mut self.out);
        if let Err(fault) = taken {
            self.hang_up(now, link, Reason::Protocol(fault));
        }
    }

    /// Tells children what has become of their events, if they are still on the same link.
    pub(super) fn ack_events(&mut self, acks: Vec<EventsAck>) {
        for EventsAck { child, link, no, held } in acks {
            self.happened.acknowledged(child, link);
            if self.routes.child(child).and_then(|child| child.link) == Some(link) {
                self.out.send(link, Frame::EventsHeld { no, held });
            }
        }
    }

    /// Sends the parent the events that are due.
    pub(super) fn tell_events(&mut self, now: Time) {
        if let Some(link) = self.listener {
            self.happened.tell_parent(now, link, &mut self.out);
        }
    }

    /// A link has gone; if it was the parent's, nobody takes events for now.
    pub(super) fn lose_listener(&mut self, now: Time, link: LinkId) {
        if self.listener == Some(link) {
            self.listener = None;
            #[cfg(feature = "sabotage")]
            if self.has(Bug::LoseEvents) {
                self.happened.lose_flight(&mut self.out);
            }
            self.happened.handle_down(now);
        }
    }
}
