//! What was answered to orders: tallies as they came, and each body once.

use std::collections::BTreeMap;

use bytes::Bytes;
use mesh::{Digest, Frame, OrderId, Report, Tally};
use protos::Incoming;
use redb::{ReadableTable, TableDefinition, WriteTransaction};

use super::placed::note_placed;
use super::{Result, Tables};
use crate::clock::now_ms;
use crate::outcomes;

pub(super) const ANSWERS: TableDefinition<([u8; 16], u64), &[u8]> =
    TableDefinition::new("controller.answers.v1");
pub(super) const BODIES: TableDefinition<([u8; 16], [u8; 32]), &[u8]> =
    TableDefinition::new("controller.bodies.v1");

impl Tables {
    pub(crate) fn tally(&self, id: OrderId) -> Result<(Tally, u64)> {
        read_tally(&self.journal.read()?.open_table(ANSWERS)?, id)
    }

    pub(crate) fn body(&self, id: OrderId, digest: Digest) -> Result<Option<Bytes>> {
        let table = self.journal.read()?.open_table(BODIES)?;
        Ok(table.get((id.0, digest.0))?.map(|body| Bytes::copy_from_slice(body.value())))
    }
}

/// What an order's answers come to, and how many bodies were cut.
pub(super) fn read_tally(
    table: &impl ReadableTable<([u8; 16], u64), &'static [u8]>,
    id: OrderId,
) -> Result<(Tally, u64)> {
    let (mut tally, mut cut) = (Tally::new(), 0);
    for row in table.range((id.0, 0)..=(id.0, u64::MAX))? {
        let frame = Bytes::copy_from_slice(row?.1.value());
        if let Ok(Incoming::Frame(Frame::Report { report, .. })) =
            protos::decode_frame(frame, relay::hash)
        {
            tally.join(&report.tally);
            cut += report.cut;
        }
    }
    Ok((tally, cut))
}

/// Writes answers into a transaction of the node's journal.
pub(crate) fn note_answers(txn: &WriteTransaction, report: &Report) -> Result<()> {
    let id = report.order.0;
    let mut answers = txn.open_table(ANSWERS)?;
    let last = answers.range((id, 0)..=(id, u64::MAX))?.next_back().transpose()?;
    let next = last.map_or(0, |(key, _)| key.value().1 + 1);
    let bare = Report { bodies: BTreeMap::new(), ..report.clone() };
    let frame = protos::encode_frame(&Frame::Report { log: 0, seq: 0, report: bare });
    answers.insert((id, next), frame.as_ref())?;
    let mut bodies = txn.open_table(BODIES)?;
    for (digest, body) in &report.bodies {
        bodies.insert((id, digest.0), body.as_ref())?;
    }
    let known = |digest: Digest| -> Result<Option<Bytes>> {
        let body = bodies.get((id, digest.0))?;
        Ok(body.map(|body| Bytes::copy_from_slice(body.value())))
    };
    let drifted = crate::fleet::note_answers(txn, report, &known)?;
    drop(bodies);
    outcomes::note_drifted(txn, report.order, &drifted, now_ms())?;
    note_placed(txn, report)
}

/// A body of the answers to an order.
pub(crate) fn body_in(
    txn: &WriteTransaction,
    id: OrderId,
    digest: Digest,
) -> Result<Option<Bytes>> {
    let table = txn.open_table(BODIES)?;
    let body = table.get((id.0, digest.0))?.map(|body| Bytes::copy_from_slice(body.value()));
    Ok(body)
}
