//! Links: what comes and goes with them, what their frames say, and who lives below them.
//!
//! A link's end and a move of hosts touch every machine; here is the one place that tells each.

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::Node;
use crate::outbox::Gated;
use crate::pulse::Beat;
use crate::route::Moves;
use crate::sabotage::Bug;
use crate::uplink::Taken;
use crate::{Event, Frame, HostId, HostSet, LinkId, Output, Peer, Reason, Record, Subtree, Time};

/// A frame that only the peer at the other side of such a link may send.
pub(super) const WRONG_SIDE: Reason = Reason::Protocol("a frame from the wrong side");

impl Node {
    pub(super) fn handle_link_up(&mut self, now: Time, link: LinkId, peer: Peer) {
        let replaced = match peer {
            Peer::Parent { place, host } => match self.uplink.handle_up(now, link, host, place) {
                Taken::Now(replaced) => replaced,
                Taken::Held => {
                    self.peers.insert(link, peer);
                    return;
                }
                Taken::Not => {
                    let reason = Reason::Replaced;
                    return self.out.push(Output::Hangup { link, reason });
                }
            },
            Peer::Child { host, .. } => {
                if let Some(reason) = self.refusal(host) {
                    return self.out.push(Output::Hangup { link, reason });
                }
                self.routes.handle_up(link, host)
            }
        };
        self.peers.insert(link, peer);
        self.begin_link(now, link, peer, replaced);
    }

    /// Tells every machine of a link that stands, in place of another, if it is.
    fn begin_link(&mut self, now: Time, link: LinkId, peer: Peer, replaced: Option<LinkId>) {
        match peer {
            // What was lost with an older link is asked for again by the new one's first watch.
            Peer::Parent { .. } => self.handle_watch(&BTreeMap::new()),
            Peer::Child { .. } => {
                self.watch.stir();
                if !self.has(Bug::LoseReleases) {
                    self.gates.stir();
                }
            }
        }
        if let Some(old) = replaced {
            self.forget_link(now, old, None);
            // The machines have the new link in the old one's place already; until the peer says
            // hello on it, nothing may be sent to either.
            match peer {
                Peer::Parent { .. } => self.uplog.handle_down(),
                Peer::Child { host, .. } => self.lanes.handle_down(host),
            }
            self.out.push(Output::Hangup { link: old, reason: Reason::Replaced });
        }
        self.out.push(Output::Tell(Event::Linked { peer }));
        let (log, inlog) = match peer {
            Peer::Parent { .. } => (self.uplog.log(), self.orders_in),
            Peer::Child { host, .. } => {
                (self.lanes.log(), self.reports_in.get(&host).copied().unwrap_or_default())
            }
        };
        let (held_log, held) = (inlog.log, inlog.held);
        let hello = Frame::Hello { log, held_log, held, events: true, profiles: true };
        self.out.send(link, hello);
        let is_parent = matches!(peer, Peer::Parent { .. });
        self.pulse.handle_up(now, link, is_parent, &mut self.out);
        self.bus.handle_up(now + self.config.flush, link, is_parent);
        if let Peer::Parent { .. } = peer {
            self.announce(link);
            self.pulls.handle_up(link, &mut self.out);
        }
    }

    /// Why this node does not take a child, if it does not.
    fn refusal(&self, child: HostId) -> Option<Reason> {
        if !self.config.serves {
            return Some(Reason::Protocol("this node has no children"));
        }
        if child == self.config.host {
            return Some(Reason::Protocol("a node dialled itself"));
        }
        let more = !self.routes.has_link(child);
        let full = self.routes.linked() >= self.config.limits.children;
        (more && full).then_some(Reason::Full("children"))
    }

    /// Closes a link that the peer has spoilt.
    pub(super) fn hang_up(&mut self, now: Time, link: LinkId, reason: Reason) {
        self.out.push(Output::Hangup { link, reason });
        self.drop_link(now, link, Some(reason));
    }

    pub(super) fn drop_link(&mut self, now: Time, link: LinkId, reason: Option<Reason>) {
        if self.uplink.holds(link) {
            self.peers.remove(&link);
            self.uplink.handle_down(now, link, &mut self.rng);
        } else if let Some(peer) = self.forget_link(now, link, reason) {
            self.out.push(Output::Tell(Event::Unlinked { peer, reason }));
        }
    }

    /// Takes a link out of every machine.
    fn forget_link(&mut self, now: Time, link: LinkId, reason: Option<Reason>) -> Option<Peer> {
        let peer = self.peers.remove(&link)?;
        self.pulse.handle_down(link, self.uplink.link() == Some(link));
        self.acks.handle_down(link);
        self.watch.handle_down(link);
        self.gates.handle_down(link);
        self.seek.handle_down(link);
        self.bus.handle_down(link, now + self.config.flush);
        #[cfg(feature = "sabotage")]
        if self.has(Bug::LosePulls) && self.uplink.link() == Some(link) {
            self.pulls.lose();
        }
        self.pulls.handle_down(link);
        self.lose_listener(now, link);
        self.profiles.handle_down(link, self.has(Bug::LoseProfiles));
        let redials = !self.config.has(Bug::LoseRedial);
        let mut punctual = SmallRng::seed_from_u64(0);
        let jitter = if self.config.has(Bug::NoJitter) { &mut punctual } else { &mut self.rng };
        if redials && self.uplink.handle_down(now, link, jitter) {
            if self.has(Bug::LoseInFlight) {
                self.uplog.handle_held(self.uplog.log(), u64::MAX);
            }
            self.uplog.handle_down();
            self.handle_watch(&BTreeMap::new());
        }
        if let Peer::Child { host, .. } = peer
            && let Some(child) = self.routes.child(host).filter(|child| child.link == Some(link))
        {
            // They may have come and gone before anybody was told.
            self.absent.came(&child.up);
        }
        if let Some((child, moves)) =
            self.routes.handle_down(now, link, reason == Some(Reason::Stale))
        {
            self.follow(now, moves);
            self.lanes.handle_down(child);
            self.shares.check_again(now, self.config.grace());
            self.routes_changed(now);
        }
        Some(peer)
    }

    pub(super) fn handle_frame(&mut self, now: Time, link: LinkId, frame: Frame) {
        let Some(peer) = self.peers.get(&link).copied() else { return };
        if self.uplink.holds(link) {
            let replaced = self.uplink.climb(now, link);
            self.begin_link(now, link, peer, replaced);
        }
        self.pulse.handle_frame(now, link);
        match (peer, frame) {
            (_, Frame::Beat { root, interval, root_interval, speaks }) => {
                let from_parent = matches!(peer, Peer::Parent { .. });
                let beat = Beat { root, interval, root_interval, speaks };
                self.pulse.handle_beat(now, link, beat, from_parent, &mut self.out);
            }
            (Peer::Parent { host, .. }, Frame::Hello { log, held_log, held, events, profiles }) => {
                self.handle_parent_hello(now, link, host, (held_log, held));
                if self.uplink.link() == Some(link) {
                    self.listener = Some(link).filter(|_| events);
                    let below = self.routes.below();
                    self.profiles.handle_hello(now, (link, log), profiles, &below);
                }
            }
            (Peer::Child { host, .. }, Frame::Hello { held_log, held, .. }) => {
                if !self.lanes.handle_hello(host, link, (held_log, held), &mut self.out) {
                    self.offer_all(now, host);
                }
            }
            (Peer::Child { host, serves }, Frame::Below(subtree)) => {
                self.handle_below(now, link, (host, serves), subtree);
            }
            (Peer::Parent { .. }, Frame::Order { log, seq, order }) => {
                if self.orders_in.accept(log, seq) {
                    self.take_order(now, order);
                }
                self.hold_order(now, link, log, seq);
            }
            (Peer::Child { host, .. }, Frame::OrdersHeld { log, through }) => {
                self.lanes.handle_held(host, log, through, &mut self.out);
            }
            (Peer::Child { host, serves }, Frame::Report { log, seq, report }) => {
                if !serves && !report.tally.hosts().is_subset(&HostSet::one(host)) {
                    let reason = Reason::Protocol("a host reported others than itself");
                    return self.hang_up(now, link, reason);
                }
                if !self.has_room_for(report.order) {
                    return self.hang_up(now, link, Reason::Full("answers"));
                }
                self.handle_report(now, host, (log, seq), report);
            }
            (Peer::Parent { .. }, Frame::ReportsHeld { log, through }) => {
                let orders = self.uplog.handle_held(log, through);
                self.settle(orders);
            }
            (Peer::Parent { .. }, Frame::Watch { orders }) => self.handle_watch(&orders),
            (Peer::Parent { .. }, Frame::Go { order, hosts, left }) => {
                self.handle_go(now, order, &hosts, now + left);
            }
            (_, Frame::Seek { order, hosts }) => self.handle_seek(now, link, peer, (order, hosts)),
            (_, Frame::Found { report }) => self.handle_found(now, peer, report),
            (Peer::Child { .. }, Frame::Events { no, events }) => {
                self.handle_events(now, link, peer, (no, events));
            }
            (Peer::Parent { .. }, Frame::EventsHeld { no, held }) => {
                self.happened.handle_held(now, link, (no, held), &mut self.out);
            }
            (Peer::Child { host, serves }, Frame::Profiles { no, lines }) => {
                self.handle_profiles(now, link, (host, serves), (no, lines));
            }
            (Peer::Parent { .. }, Frame::ProfilesHeld { no, held }) => {
                let waits = (self.config.beat_interval, self.config.backoff.settled);
                self.profiles.handle_held(now, link, (no, held), waits);
            }
            (Peer::Child { host, serves }, Frame::Said(said)) => {
                self.handle_said(now, link, (host, serves), said);
            }
            (_, Frame::Interest(interest)) => self.handle_interest(now, link, interest),
            (_, Frame::Message(message)) => self.handle_message(now, link, peer, message),
            (_, Frame::Answer(answer)) => self.handle_answer(now, link, peer, answer),
            _ => self.hang_up(now, link, WRONG_SIDE),
        }
    }

    fn handle_parent_hello(&mut self, now: Time, link: LinkId, host: HostId, held: (u64, u64)) {
        self.uplink.handle_hello(now, link, &mut self.rng);
        self.stir_seek(now);
        #[cfg(feature = "sabotage")]
        if self.has(Bug::StayLow) {
            self.uplink.stay();
        }
        match self.uplog.handle_hello(link, host, held, &mut self.out) {
            Some(acked) => self.settle(acked),
            None if self.has(Bug::TrustOldParent) => {}
            None => self.shares.retell(now),
        }
    }

    /// Acknowledges an entry of the parent's log once it is durable here.
    pub(super) fn hold_order(&mut self, now: Time, link: LinkId, log: u64, seq: u64) {
        if self.has(Bug::AckOrdersBeforeSave) {
            return self.out.send(link, Frame::OrdersHeld { log, through: seq });
        }
        self.out.after(Gated::AckOrders { link, log, through: seq });
        self.handle_saved(now, 0);
    }

    pub(super) fn ack_orders(&mut self, now: Time, link: LinkId, log: u64, through: u64) {
        let same = self.orders_in.saved(log, through);
        if same && matches!(self.peers.get(&link), Some(Peer::Parent { .. })) {
            self.acks.add(now, link, Frame::OrdersHeld { log, through }, &mut self.out);
        }
    }

    fn handle_below(
        &mut self,
        now: Time,
        link: LinkId,
        (child, serves): (HostId, bool),
        subtree: Subtree,
    ) {
        if subtree.below.contains(self.config.host) {
            let reason = Reason::Protocol("a loop: its subtree holds this node");
            return self.hang_up(now, link, reason);
        }
        if !serves && subtree.below != HostSet::one(child) {
            let reason = Reason::Protocol("a host announced others than itself");
            return self.hang_up(now, link, reason);
        }
        let (moves, changed) = self.routes.handle_below(child, subtree);
        if changed {
            self.routes_changed(now);
        }
        self.follow(now, moves);
    }

    /// Hosts have moved from one child to another: what is known of them moves along, and open
    /// orders reach whoever came.
    fn follow(&mut self, now: Time, moves: Moves) {
        if !moves.is_empty() {
            self.watch.stir();
            self.gates.stir();
        }
        for (child, news) in moves {
            let below = self.routes.child(child).map(|c| c.below.clone()).unwrap_or_default();
            if self.config.is_root() {
                self.out.push(Output::Tell(Event::Below { child, below: below.clone() }));
            }
            self.out.save(Record::Below { child, below });
            if !news.is_empty() {
                for id in self.shares.orders_for(&news) {
                    self.shares.extend_duty(now, id, &news);
                    self.shares.look_by(id, now);
                    self.ask(id, child, &news);
                }
                self.offer_all(now, child);
            }
        }
    }

    pub(super) fn routes_changed(&mut self, now: Time) {
        self.windows.stir_all(now);
        self.stir_seek(now);
        self.profiles.routes_changed(now + self.config.flush);
        self.routes.announce_by(now + self.config.flush);
    }

    /// Says what has changed below, if it is time to.
    pub(super) fn announce_changes(&mut self, now: Time) {
        if !self.routes.announcement_due(now) {
            return;
        }
        if let Some(link) = self.uplink.link() {
            self.announce(link);
        } else if self.config.is_root() {
            let subtree = self.routes.subtree();
            self.absent.see(now, subtree.up.clone());
            self.out.push(Output::Tell(Event::Reachable(subtree)));
        }
    }

    fn announce(&mut self, link: LinkId) {
        self.out.send(link, Frame::Below(self.routes.subtree()));
    }
}
