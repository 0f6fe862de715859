//! What is acknowledged is durable: an order or a report that a node says it has is on its disk.

use std::collections::BTreeMap;
use std::time::Duration;

use mesh::{Frame, HostId, Input, LinkId, OrderId, Peer, Report};

use super::Violation;
use super::known::Known;
use crate::seat::Seat;

/// A log that a node reads: reader, the reader's life, writer, and the log's number.
type Log = (HostId, u64, HostId, u64);

/// What came in and was not acknowledged yet.
pub(super) struct Acks {
    orders_in: BTreeMap<Log, BTreeMap<u64, OrderId>>,
    reports_in: BTreeMap<Log, BTreeMap<u64, Report>>,
    /// The other end of each link that a node has.
    peers: BTreeMap<(HostId, LinkId), HostId>,
    /// Some limit of the plan makes nodes cut bodies.
    cuts: bool,
}

impl Acks {
    pub(super) fn new(cuts: bool) -> Acks {
        let (orders_in, reports_in, peers) = Default::default();
        Acks { orders_in, reports_in, peers, cuts }
    }

    /// Something is about to happen to a node.
    pub(super) fn input(&mut self, seat: &Seat, input: &Input) {
        let (me, life) = (seat.host(), seat.life);
        match input {
            Input::LinkUp { link, peer } => {
                self.peers.insert((me, *link), peer.host());
                // Each hello of a new link starts the sender's numbers where it wants.
                debug_assert!(matches!(peer, Peer::Parent { .. } | Peer::Child { .. }));
            }
            Input::LinkDown { link } => self.parted(me, *link),
            Input::BadOrder { link, log, seq, order, outcome: Some(_), .. } => {
                if let Some(peer) = self.peers.get(&(me, *link)) {
                    let log = self.orders_in.entry((me, life, *peer, *log)).or_default();
                    log.insert(*seq, *order);
                }
            }
            Input::Frame { link, frame: Frame::Order { log, seq, order } } => {
                if let Some(peer) = self.peers.get(&(me, *link)) {
                    let log = self.orders_in.entry((me, life, *peer, *log)).or_default();
                    log.insert(*seq, order.id);
                }
            }
            Input::Frame { link, frame: Frame::Report { log, seq, report } } => {
                if let Some(peer) = self.peers.get(&(me, *link)) {
                    let log = self.reports_in.entry((me, life, *peer, *log)).or_default();
                    log.insert(*seq, report.clone());
                }
            }
            _ => {}
        }
    }

    /// A link is no more, as far as this end of it knows.
    pub(super) fn parted(&mut self, me: HostId, link: LinkId) {
        self.peers.remove(&(me, link));
    }

    /// Whether a node has a link, and has not closed it.
    pub(super) fn holds(&self, me: HostId, link: LinkId) -> bool {
        self.peers.contains_key(&(me, link))
    }

    /// A process died: what it has not acknowledged comes again.
    pub(super) fn died(&mut self, me: HostId) {
        self.orders_in.retain(|(reader, ..), _| *reader != me);
        self.reports_in.retain(|(reader, ..), _| *reader != me);
        self.peers.retain(|(host, _), _| *host != me);
    }

    /// A node acknowledges orders up to this one.
    pub(super) fn orders_held(
        &mut self,
        known: &Known,
        me: HostId,
        (log, through): (u64, u64),
    ) -> Result<(), Violation> {
        let logs = self.orders_in.range_mut((me, 0, HostId(0), 0)..);
        let logs = logs.take_while(|((reader, ..), _)| *reader == me);
        for (_, entries) in logs.filter(|((.., number), _)| *number == log) {
            let rest = entries.split_off(&(through + 1));
            for (seq, id) in std::mem::replace(entries, rest) {
                if !known.held.contains(&(me, id)) {
                    let detail = format!("{me:?} acknowledges #{seq} {id:?}");
                    return Err(Violation::new("durable before acknowledged", detail));
                }
            }
        }
        Ok(())
    }

    /// A node acknowledges reports up to this one.
    pub(super) fn reports_held(
        &mut self,
        known: &Known,
        seat: &Seat,
        (log, through): (u64, u64),
        now: Duration,
    ) -> Result<(), Violation> {
        let me = seat.host();
        let logs = self.reports_in.range_mut((me, 0, HostId(0), 0)..);
        let logs = logs.take_while(|((reader, ..), _)| *reader == me);
        for (_, entries) in logs.filter(|((.., number), _)| *number == log) {
            let rest = entries.split_off(&(through + 1));
            for (seq, report) in std::mem::replace(entries, rest) {
                let id = report.order;
                let stands = known.held.contains(&(me, id)) && !known.forgot.contains(&(me, id));
                let expired = known.is_expired(id, now);
                let image = &seat.disk.image;
                let unheard = image.unheard.get(&id).filter(|_| me == HostId::ROOT);
                let nothing = me == HostId::ROOT && !stands && image.retold == 0;
                if expired || nothing || known.forgot.contains(&(me, id)) {
                    continue;
                }
                let kept = unheard.or(image.tallies.get(&id)).cloned().unwrap_or_default();
                let settled = report.tally.settled();
                let targets = known.orders.get(&id).map(|order| order.targets.clone());
                let settled = settled.intersection(&targets.unwrap_or_default());
                let bodies = seat.disk.image.bodies.get(&id);
                let has_body =
                    |digest| bodies.is_some_and(|bodies| bodies.contains(digest)) || self.cuts;
                if !settled.is_subset(&kept.settled()) || !report.bodies.keys().all(has_body) {
                    let detail = format!("{me:?} acknowledges #{seq} {report:?}");
                    return Err(Violation::new("durable before acknowledged", detail));
                }
            }
        }
        Ok(())
    }
}
