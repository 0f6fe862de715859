//! What is read back at a start: all rows in memory, and what of them the core is to know.
//!
//! An order goes only when both clocks say that it is over (this node's, and that of the
//! controller, as the ids of younger orders show it), or when it no longer decodes.
//!
//! It changes nothing on disk; what is over is only named.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use mesh::{Frame, HostId, OrderId, Report, Saved};
use protos::{Incoming, OrderBody};
use redb::{ReadTransaction, ReadableTable};

use super::rows::{kind, without_bodies};
use super::{ANSWERS, BELOW, EVENTS, INTENTS, JournalError, ORDERS, OWN_EVENTS, RELEASED, SETTLED};
use crate::daybook::Row;
use crate::hash;

/// How long answers to orders that this node was never given are kept.
const ORPHAN_AGE: Duration = Duration::from_secs(24 * 3600);

/// All that is kept, as it is on disk.
#[derive(Default)]
pub(super) struct Image {
    pub(super) orders: BTreeMap<OrderId, Bytes>,
    answers: BTreeMap<OrderId, Vec<Bytes>>,
    intents: BTreeSet<OrderId>,
    settled: BTreeSet<OrderId>,
    below: BTreeMap<u32, Bytes>,
    released: BTreeMap<OrderId, Vec<Bytes>>,
    own_events: BTreeMap<[u8; 16], Bytes>,
    events: BTreeMap<([u8; 16], u32), Bytes>,
}

impl Image {
    /// Only the orders that are in the tables.
    pub(super) fn of_orders(txn: &ReadTransaction) -> Result<Image, JournalError> {
        let mut image = Image::default();
        for row in txn.open_table(ORDERS)?.iter()? {
            let (key, value) = row?;
            image.orders.insert(OrderId(key.value()), Bytes::copy_from_slice(value.value()));
        }
        Ok(image)
    }

    /// What is in the tables.
    pub(super) fn read(txn: &ReadTransaction) -> Result<Image, JournalError> {
        let mut image = Image::of_orders(txn)?;
        let bytes = Bytes::copy_from_slice;
        for row in txn.open_table(ANSWERS)?.iter()? {
            let (key, value) = row?;
            let answers = image.answers.entry(OrderId(key.value().0)).or_default();
            answers.push(bytes(value.value()));
        }
        for row in txn.open_table(INTENTS)?.iter()? {
            image.intents.insert(OrderId(row?.0.value()));
        }
        for row in txn.open_table(SETTLED)?.iter()? {
            image.settled.insert(OrderId(row?.0.value()));
        }
        for row in txn.open_table(BELOW)?.iter()? {
            let (key, value) = row?;
            image.below.insert(key.value(), bytes(value.value()));
        }
        for row in txn.open_table(RELEASED)?.iter()? {
            let (key, value) = row?;
            let released = image.released.entry(OrderId(key.value().0)).or_default();
            released.push(bytes(value.value()));
        }
        for row in txn.open_table(OWN_EVENTS)?.iter()? {
            let (key, value) = row?;
            image.own_events.insert(key.value(), bytes(value.value()));
        }
        for row in txn.open_table(EVENTS)?.iter()? {
            let (key, value) = row?;
            image.events.insert(key.value(), bytes(value.value()));
        }
        Ok(image)
    }

    /// What [`keep`](super::keep) does, to this.
    pub(super) fn apply(&mut self, row: Row) {
        let id = row.order();
        match row.kind {
            kind::ORDER => drop(self.orders.insert(id, row.body)),
            kind::INTENT => drop(self.intents.insert(id)),
            kind::ANSWERS => {
                self.settled.remove(&id);
                self.answers.entry(id).or_default().push(row.body);
            }
            kind::SETTLED => drop(self.settled.insert(id)),
            kind::TRIMMED => {
                for frame in self.answers.entry(id).or_default() {
                    if let Some(bare) = without_bodies(frame) {
                        *frame = bare;
                    }
                }
            }
            kind::BELOW => drop(self.below.insert(row.child(), row.body)),
            kind::RELEASED => self.released.entry(id).or_default().push(row.body),
            kind::OWN_EVENT => drop(self.own_events.insert(row.id, row.body)),
            kind::OWN_EVENTS_GONE => {
                row.keys().for_each(|key| drop(self.own_events.remove(&key.0)))
            }
            kind::EVENT => {
                if let Some(folded) = protos::decode_folded(row.body.clone(), hash) {
                    self.events.insert((row.id, folded.window), row.body);
                }
            }
            kind::EVENTS_GONE => row.keys().for_each(|key| drop(self.events.remove(&key))),
            kind::FORGET => {
                self.released.remove(&id);
                self.orders.remove(&id);
                self.answers.remove(&id);
                self.intents.remove(&id);
                self.settled.remove(&id);
            }
            _ => {}
        }
    }

    /// The orders, each with whether the parent holds every answer to it.
    pub(super) fn bodies(self) -> impl Iterator<Item = (OrderBody, bool)> {
        self.orders.into_iter().filter_map(move |(id, envelope)| {
            let body = OrderBody::of_envelope(envelope).ok()?;
            Some((body, self.settled.contains(&id)))
        })
    }

    /// What of it the core is to know at this time, and which orders are over.
    pub(super) fn saved(self, now: SystemTime) -> (Saved, BTreeSet<OrderId>) {
        let (mut saved, mut gone) = (Saved::default(), BTreeSet::new());
        // Ids sort by time. What a relay has given says nothing of the controller's clock.
        let mut of_controller = self.orders.keys().rev().filter(|id| id.giver().is_none());
        let newest = of_controller.next().map_or(UNIX_EPOCH, |id| born(*id));
        let mut known = BTreeSet::new();
        for (id, envelope) in self.orders {
            match order(envelope, now, newest) {
                Some(order) => {
                    known.insert(id);
                    saved.orders.push(Arc::new(order));
                }
                None => drop(gone.insert(id)),
            }
        }
        for (id, frames) in self.answers {
            let old = |now| age(id, now) > ORPHAN_AGE;
            if gone.contains(&id) || !known.contains(&id) && old(now) && old(newest) {
                gone.insert(id);
            } else {
                saved.answers.extend(frames.into_iter().filter_map(report));
            }
        }
        saved.intents.extend(self.intents.difference(&gone));
        saved.settled.extend(self.settled.difference(&gone));
        let event = |bytes| protos::decode_folded(bytes, hash);
        saved.own.extend(self.own_events.into_values().filter_map(event));
        saved.events.extend(self.events.into_values().filter_map(event));
        let below = self.below.into_iter();
        saved
            .below
            .extend(below.filter_map(|(child, frame)| Some((HostId(child), below_of(frame)?))));
        for (id, frames) in self.released.into_iter().filter(|(id, _)| !gone.contains(id)) {
            saved
                .released
                .extend(frames.into_iter().filter_map(|frame| Some((id, below_of(frame)?))));
        }
        (saved, gone)
    }
}

/// An order from its envelope, unless it has expired by this clock and also by that of the
/// controller, which has given an order as late as `newest`.
fn order(envelope: Bytes, now: SystemTime, newest: SystemTime) -> Option<mesh::Order> {
    let body = OrderBody::of_envelope(envelope.clone()).ok()?;
    let end = UNIX_EPOCH + Duration::from_millis(body.not_after_ms);
    let longest = Duration::from_millis(body.not_after_ms.saturating_sub(body.not_before_ms));
    let ttl = match end.duration_since(now) {
        // A clock that is far behind says too much.
        Ok(left) => left.min(longest),
        Err(_) if end < newest => return None,
        Err(_) => longest,
    };
    Some(body.to_mesh(envelope, ttl))
}

fn report(frame: Bytes) -> Option<Report> {
    match protos::decode_frame(frame, hash) {
        Ok(Incoming::Frame(Frame::Report { report, .. })) => Some(report),
        _ => None,
    }
}

fn below_of(frame: Bytes) -> Option<mesh::HostSet> {
    match protos::decode_frame(frame, hash) {
        Ok(Incoming::Frame(Frame::Below(subtree))) => Some(subtree.below),
        _ => None,
    }
}

/// When an order was made, by the controller's clock: its id begins with the milliseconds of its
/// birth (UUIDv7).
fn born(id: OrderId) -> SystemTime {
    let millis = id.0[..6].iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
    UNIX_EPOCH + Duration::from_millis(millis)
}

fn age(id: OrderId, now: SystemTime) -> Duration {
    now.duration_since(born(id)).unwrap_or_default()
}
