//! Rows: what the core has saved, as it is kept, and where in the tables it goes.
//!
//! A row is the same in the daybook and on its way into the tables, so that all that the daybook
//! holds can be moved there. What a later version has written is passed over.
//!
//! Not here: what the rows together say after a restart; that is in `image`.

use bytes::Bytes;
use mesh::{Folded, Frame, OrderId, Record, Report, Subtree};
use protos::Incoming;
use redb::{ReadableTable, WriteTransaction};

use super::{ANSWERS, BELOW, EVENTS, INTENTS, JournalError, ORDERS, OWN_EVENTS, RELEASED, SETTLED};
use crate::daybook::Row;
use crate::hash;

/// What a row of the journal is.
pub(super) mod kind {
    pub(crate) const ORDER: u8 = 1;
    pub(crate) const INTENT: u8 = 2;
    pub(crate) const ANSWERS: u8 = 3;
    pub(crate) const SETTLED: u8 = 4;
    pub(crate) const BELOW: u8 = 5;
    pub(crate) const FORGET: u8 = 6;
    pub(crate) const RELEASED: u8 = 7;
    pub(crate) const TRIMMED: u8 = 8;
    pub(crate) const OWN_EVENT: u8 = 60;
    pub(crate) const OWN_EVENTS_GONE: u8 = 61;
    pub(crate) const EVENT: u8 = 62;
    pub(crate) const EVENTS_GONE: u8 = 63;
}

impl Row {
    /// A record of the core as it is kept.
    pub(crate) fn of(record: &Record) -> Row {
        let row = |kind, id: &OrderId, body| Row { kind, id: id.0, body };
        match record {
            Record::Order(order) => row(kind::ORDER, &order.id, order.body.clone()),
            Record::Intent(id) => row(kind::INTENT, id, Bytes::new()),
            Record::Answers(report) => {
                let frame = Frame::Report { log: 0, seq: 0, report: report.clone() };
                row(kind::ANSWERS, &report.order, protos::encode_frame(&frame))
            }
            Record::Settled(id) => row(kind::SETTLED, id, Bytes::new()),
            Record::Trimmed(id) => row(kind::TRIMMED, id, Bytes::new()),
            Record::Below { child, below } => {
                let mut id = [0; 16];
                id[..4].copy_from_slice(&child.0.to_be_bytes());
                row(kind::BELOW, &OrderId(id), set(below))
            }
            Record::Released { order, hosts } => row(kind::RELEASED, order, set(hosts)),
            Record::Forget(id) => row(kind::FORGET, id, Bytes::new()),
            Record::Own(folded) => event(kind::OWN_EVENT, folded),
            Record::OwnGone(signatures) => {
                let keys = signatures.iter().map(|signature| (signature.0, 0));
                Row { kind: kind::OWN_EVENTS_GONE, id: [0; 16], body: keys_of(keys) }
            }
            Record::Events(folded) => event(kind::EVENT, folded),
            Record::EventsGone(keys) => {
                let keys = keys.iter().map(|key| (key.signature.0, key.window));
                Row { kind: kind::EVENTS_GONE, id: [0; 16], body: keys_of(keys) }
            }
        }
    }

    pub(super) fn order(&self) -> OrderId {
        OrderId(self.id)
    }

    /// The keys of events.
    pub(super) fn keys(&self) -> impl Iterator<Item = ([u8; 16], u32)> {
        self.body.as_chunks::<20>().0.iter().map(|key| {
            let (mut signature, mut window) = ([0; 16], [0; 4]);
            signature.copy_from_slice(&key[..16]);
            window.copy_from_slice(&key[16..]);
            (signature, u32::from_be_bytes(window))
        })
    }

    pub(super) fn child(&self) -> u32 {
        u32::from_be_bytes(self.id[..4].try_into().expect("four bytes"))
    }
}

/// Writes a row into the tables.
pub(crate) fn keep(txn: &WriteTransaction, row: &Row) -> Result<(), JournalError> {
    match row.kind {
        kind::ORDER => drop(txn.open_table(ORDERS)?.insert(row.id, row.body.as_ref())?),
        kind::INTENT => drop(txn.open_table(INTENTS)?.insert(row.id, ())?),
        kind::ANSWERS => {
            // There is something to tell again.
            txn.open_table(SETTLED)?.remove(row.id)?;
            add(&mut txn.open_table(ANSWERS)?, row)?;
        }
        kind::SETTLED => drop(txn.open_table(SETTLED)?.insert(row.id, ())?),
        kind::TRIMMED => trim(txn, row.order())?,
        kind::BELOW => drop(txn.open_table(BELOW)?.insert(row.child(), row.body.as_ref())?),
        kind::RELEASED => add(&mut txn.open_table(RELEASED)?, row)?,
        kind::FORGET => forget(txn, row.order())?,
        kind::OWN_EVENT => drop(txn.open_table(OWN_EVENTS)?.insert(row.id, row.body.as_ref())?),
        kind::OWN_EVENTS_GONE => {
            let mut table = txn.open_table(OWN_EVENTS)?;
            for (signature, _) in row.keys() {
                table.remove(signature)?;
            }
        }
        kind::EVENT => {
            if let Some(folded) = protos::decode_folded(row.body.clone(), hash) {
                let key = (row.id, folded.window);
                txn.open_table(EVENTS)?.insert(key, row.body.as_ref())?;
            }
        }
        kind::EVENTS_GONE => {
            let mut table = txn.open_table(EVENTS)?;
            for key in row.keys() {
                table.remove(key)?;
            }
        }
        // A later version has written it, and this one does not know what it is for.
        _ => {}
    }
    Ok(())
}

/// Takes away all rows of an order.
pub(super) fn forget(txn: &WriteTransaction, id: OrderId) -> Result<(), JournalError> {
    txn.open_table(ORDERS)?.remove(id.0)?;
    txn.open_table(INTENTS)?.remove(id.0)?;
    txn.open_table(SETTLED)?.remove(id.0)?;
    txn.open_table(ANSWERS)?.retain_in((id.0, 0)..=(id.0, u64::MAX), |_, _| false)?;
    txn.open_table(RELEASED)?.retain_in((id.0, 0)..=(id.0, u64::MAX), |_, _| false)?;
    Ok(())
}

/// Takes the bodies out of the answers to an order.
fn trim(txn: &WriteTransaction, id: OrderId) -> Result<(), JournalError> {
    let mut table = txn.open_table(ANSWERS)?;
    let mut bare = Vec::new();
    for row in table.range((id.0, 0)..=(id.0, u64::MAX))? {
        let (key, frame) = row?;
        if let Some(frame) = without_bodies(frame.value()) {
            bare.push((key.value(), frame));
        }
    }
    for (key, frame) in bare {
        table.insert(key, frame.as_ref())?;
    }
    Ok(())
}

/// A report without its bodies, if it has any.
pub(super) fn without_bodies(frame: &[u8]) -> Option<Bytes> {
    match protos::decode_frame(Bytes::copy_from_slice(frame), hash) {
        Ok(Incoming::Frame(Frame::Report { log, seq, report })) if !report.bodies.is_empty() => {
            let report = Report { bodies: Default::default(), ..report };
            Some(protos::encode_frame(&Frame::Report { log, seq, report }))
        }
        _ => None,
    }
}

/// Adds to what there is of the row's order.
fn add(
    table: &mut redb::Table<'_, ([u8; 16], u64), &'static [u8]>,
    row: &Row,
) -> Result<(), JournalError> {
    let last = table.range((row.id, 0)..=(row.id, u64::MAX))?.next_back().transpose()?;
    let next = last.map_or(0, |(key, _)| key.value().1 + 1);
    table.insert((row.id, next), row.body.as_ref())?;
    Ok(())
}

fn keys_of(keys: impl Iterator<Item = ([u8; 16], u32)>) -> Bytes {
    keys.flat_map(|(signature, window)| signature.into_iter().chain(window.to_be_bytes())).collect()
}

/// An event as it is kept, under its signature.
fn event(kind: u8, folded: &Folded) -> Row {
    Row { kind, id: folded.fact.signature.0, body: protos::encode_folded(folded) }
}

/// The bytes of a host set.
fn set(hosts: &mesh::HostSet) -> Bytes {
    protos::encode_frame(&Frame::Below(Subtree { below: hosts.clone(), ..Subtree::default() }))
}
