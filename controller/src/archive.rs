//! What relays tell of the orders of their own operators: checked, and kept as orders among others.
//!
//! The order is read from its envelope, whose delegation this controller has signed; the answers
//! are the relay's word. A relay can tell only of orders whose ids name it, so it replaces nothing
//! of anybody else, and so much a day, so that it drives nothing out. What it is told of after a
//! delegation was taken back is kept all the same: it is what has happened.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use certs::{Authority, OrderKey};
use mesh::{Frame, OrderId, Report};
use protos::{
    DELEGATED_KIND, Envelope, Incoming, OrderBody, RECORD_KIND, Record, RecordReply, SignedRecord,
    Work,
};
use tracing::{info, warn};

use crate::clock::now_ms;
use crate::live::{Live, Update};
use crate::orders::CANCEL;
use crate::tables::given::{NotKept, Told};
use crate::tables::{HostRow, OrderRow, Tables};

/// Keeps records.
#[derive(Clone)]
pub(crate) struct Archive {
    pub(crate) authority: Arc<Authority>,
    pub(crate) tables: Tables,
    pub(crate) live: Live,
}

impl Archive {
    /// What becomes of a part. Blocks.
    pub(crate) fn keep(&self, part: SignedRecord) -> RecordReply {
        match self.try_keep(part) {
            Ok(()) => RecordReply::Kept,
            Err(why) => {
                warn!(%why, "a record of a relay is not kept");
                RecordReply::Refused(why)
            }
        }
    }

    fn try_keep(&self, part: SignedRecord) -> Result<(), String> {
        let record = Record::decode(part.body.clone()).map_err(|error| error.to_string())?;
        let hosts = self.live.state().hosts.clone();
        let relay = hosts.get(&record.relay).filter(|row| row.role == "relay");
        let relay = relay.ok_or("no such relay is in the inventory")?;
        let signed = OrderKey(relay.key).verify(RECORD_KIND, &part.body, &part.signature);
        signed.map_err(|_| "the record is not signed by the relay that it names")?;
        if record.mesh != self.authority.mesh().0 || record.order.giver() != Some(record.relay) {
            return Err("the record is not about an order of that relay".into());
        }
        let order = self.order(&record, relay)?;
        let reports = record.reports.into_iter().map(|frame| report(frame, record.order));
        let reports = reports.collect::<Result<_, _>>()?;
        let told = Told {
            id: record.order,
            relay: record.relay.0,
            order,
            bodies: record.bodies,
            reports,
            closed_ms: record.closed_ms,
        };
        match self.tables.note_record(&told, &hosts, now_ms()) {
            Ok(Ok(())) => {}
            Ok(Err(NotKept::Unknown)) => return Err("the order itself has not come".into()),
            Ok(Err(NotKept::Daily)) => {
                return Err("so much is not taken from one relay on a day: again tomorrow".into());
            }
            Err(error) => {
                warn!(error = %relay::chain(&error), "a record of a relay could not be written");
                return Err("the controller failed: try again".into());
            }
        }
        if let Some(order) = &told.order {
            info!(order = %told.id, relay = %relay.name, what = %order.what, "given at a relay");
        }
        self.tell(told);
        Ok(())
    }

    /// The order of a first part, as it is listed.
    fn order(&self, record: &Record, relay: &HostRow) -> Result<Option<OrderRow>, String> {
        if record.envelope.is_empty() {
            return Ok(None);
        }
        let envelope = Envelope::decode(record.envelope.clone());
        let envelope = envelope.map_err(|error| error.to_string())?;
        if envelope.kind != DELEGATED_KIND {
            return Err("what the record is about is no order of a relay".into());
        }
        let key = self.authority.order_signer().key();
        let (delegation, body) =
            relay::open_given(&envelope, &key).map_err(|fault| fault.to_string())?;
        match body.id == record.order && delegation.key == relay.key {
            true => Ok(Some(row(&body, &relay.name)?)),
            false => Err("the record has the order of somebody else".into()),
        }
    }

    /// Lets those know who watch the order.
    fn tell(&self, told: Told) {
        let closed = told.closed_ms > 0;
        for mut report in told.reports {
            let bodies = told.bodies.iter().map(|body| (relay::hash(body), body.clone()));
            report.bodies.extend(bodies);
            self.live.tell(Update::Answers(Arc::new(report)));
        }
        if closed {
            self.live.tell(Update::Closed(told.id));
        }
        self.live.events.send_modify(|no| *no += 1);
    }
}

/// A report of an order, as it travels in a record.
fn report(frame: Bytes, order: OrderId) -> Result<Report, String> {
    match protos::decode_frame(frame, relay::hash) {
        Ok(Incoming::Frame(Frame::Report { report, .. })) if report.order == order => {
            Ok(Report { bodies: BTreeMap::new(), ..report })
        }
        Ok(_) => Err("an answer in the record is not to its order".into()),
        Err(error) => Err(error.to_string()),
    }
}

/// An order as it is listed; what it says of itself, the relay does not say again.
fn row(body: &OrderBody, relay: &str) -> Result<OrderRow, String> {
    let (kind, what, cancels) = match &body.work {
        Work::Run(run) => {
            let words: Vec<_> =
                run.argv.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect();
            ("run", words.join(" "), None)
        }
        Work::Cancel(older) => (CANCEL, format!("{older}"), Some(older.to_string())),
        _ => return Err("a relay gives no orders of that kind".into()),
    };
    Ok(OrderRow {
        kind: kind.into(),
        what,
        targets: body.targets.ranges().to_vec(),
        issued_ms: born_ms(body.id),
        closed_ms: 0,
        expires_ms: body.not_after_ms,
        cancels,
        push: None,
        run: None,
        stopped: None,
        retries: None,
        closer: None,
        superseded: Vec::new(),
        given_by: Some(relay.into()),
        by: body.issued_by.clone(),
    })
}

/// When an order was made, by the clock of whoever made it.
fn born_ms(id: OrderId) -> u64 {
    id.0[..6].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
