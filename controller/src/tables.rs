//! The controller's own tables, beside those of its node in the same redb file.
//!
//! Rows are JSON where a person may want to read them (`dump` needs no schema) and protobuf where
//! they are many. What concerns an order is written in the node's own commits, so that an answer
//! which was acknowledged to a relay is in these tables too.

mod alerting;
pub(crate) mod events;
pub(crate) mod facts;
mod hosts;
pub(crate) mod reached;
mod retire;
pub(crate) mod rollouts;
pub(crate) mod stages;
mod waiting;

use std::collections::BTreeMap;

use bytes::Bytes;
use content::ContentId;
use mesh::{Digest, Frame, HostId, HostSet, OrderId, Outcome, Report, State, Tally};
use protos::Incoming;
use redb::{ReadableTable, ReadableTableMetadata, TableDefinition, TableHandle, WriteTransaction};
use relay::{Journal, JournalError};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub(crate) use self::hosts::{Accepted, Enrolment};
use crate::packs::PackRow;
use crate::types::{NewRun, PushInfo};

const HOSTS: TableDefinition<u32, &[u8]> = TableDefinition::new("controller.hosts.v1");
const NAMES: TableDefinition<&str, u32> = TableDefinition::new("controller.names.v1");
const TOKENS: TableDefinition<[u8; 8], &[u8]> = TableDefinition::new("controller.tokens.v1");
const ORDERS: TableDefinition<[u8; 16], &[u8]> = TableDefinition::new("controller.orders.v1");
/// The orders that are not closed, so that nobody has to look through all the others.
const OPEN: TableDefinition<[u8; 16], ()> = TableDefinition::new("controller.open.v1");
/// Hosts that wait in vain for a release, until they are told.
const STOPPED: TableDefinition<[u8; 16], &[u8]> = TableDefinition::new("controller.stopped.v1");
const ANSWERS: TableDefinition<([u8; 16], u64), &[u8]> =
    TableDefinition::new("controller.answers.v1");
const BODIES: TableDefinition<([u8; 16], [u8; 32]), &[u8]> =
    TableDefinition::new("controller.bodies.v1");
const PLACED: TableDefinition<(&[u8], u32), [u8; 32]> =
    TableDefinition::new("controller.placed.v1");
/// Root of a tree, and whether what came after it was put in place as a whole.
type Before = ([u8; 32], bool);
/// What was there before.
const PREVIOUS: TableDefinition<(&[u8], u32), Before> =
    TableDefinition::new("controller.previous.v1");
/// What operators have said of hosts.
const LABELS: TableDefinition<u32, &[u8]> = TableDefinition::new("controller.labels.v1");
/// By the roots of base and target; that of no base is all zeros.
const PACKS: TableDefinition<([u8; 32], [u8; 32]), &[u8]> =
    TableDefinition::new("controller.packs.v1");
const TRAFFIC: TableDefinition<u32, &[u8]> = TableDefinition::new("controller.traffic.v1");

/// The kind of an order that tells hosts not to wait for a release any more. Operators do not see
/// it.
pub(crate) const LAPSE: &str = "lapse";
/// Keys that are no longer of the mesh.
const REMOVED: TableDefinition<[u8; 32], &[u8]> = TableDefinition::new("controller.removed.v1");
/// The version of the list of them, the highest number that a host ever had, and what was retired.
const COUNTS: TableDefinition<&str, u64> = TableDefinition::new("controller.counts.v1");

/// An enrolled node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HostRow {
    pub(crate) name: String,
    pub(crate) site: String,
    pub(crate) role: String,
    pub(crate) key: [u8; 32],
    pub(crate) enrolled_ms: u64,
}

/// What operators have said of a host: names and values.
pub(crate) type Labels = BTreeMap<String, String>;
/// A key that was removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RemovedRow {
    pub(crate) id: u32,
    pub(crate) name: String,
    pub(crate) removed_ms: u64,
}

/// A join token; never its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TokenRow {
    pub(crate) check: [u8; 32],
    pub(crate) role: String,
    pub(crate) site: String,
    pub(crate) name: String,
    pub(crate) expires_ms: u64,
    pub(crate) used_by: Option<u32>,
}

/// An order as it was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(Default))]
pub(crate) struct OrderRow {
    pub(crate) kind: String,
    pub(crate) what: String,
    pub(crate) targets: Vec<(u32, u32)>,
    pub(crate) issued_ms: u64,
    pub(crate) closed_ms: u64,
    /// When its validity ends; the node forgets it a little later.
    #[serde(default)]
    pub(crate) expires_ms: u64,
    /// The id of the order that this one takes back.
    #[serde(default)]
    pub(crate) cancels: Option<String>,
    pub(crate) push: Option<PushInfo>,
    /// What was asked for, so that it can be given again.
    #[serde(default)]
    pub(crate) run: Option<Box<NewRun>>,
    /// Why the rest of it was skipped.
    #[serde(default)]
    pub(crate) stopped: Option<String>,
    /// The id of the order that it repeats.
    #[serde(default)]
    pub(crate) retries: Option<String>,
    /// The id of the order by which hosts that wait in vain were told.
    #[serde(default)]
    pub(crate) closer: Option<String>,
    /// The ids of orders that have taken its place, and at which hosts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) superseded: Vec<(String, Vec<(u32, u32)>)>,
}

impl OrderRow {
    pub(crate) fn targets(&self) -> HostSet {
        HostSet::from_ranges(self.targets.iter().copied())
    }

    /// The hosts at which it was superseded and, as far as is known by these answers, has not been
    /// begun.
    pub(crate) fn not_begun(&self, tally: &Tally) -> HostSet {
        let mut lines = tally.lines();
        let skipped = lines.find(|(outcome, _)| **outcome == Outcome::bare(State::Skipped));
        let skipped = skipped.map(|(_, hosts)| hosts.clone()).unwrap_or_default();
        let taken = self.superseded().fold(HostSet::new(), |all, (_, hosts)| all.union(&hosts));
        taken.difference(&tally.settled().difference(&skipped))
    }

    /// The ids of orders that have taken its place, and at which hosts.
    pub(crate) fn superseded(&self) -> impl Iterator<Item = (&str, HostSet)> {
        let set = |ranges: &[(u32, u32)]| HostSet::from_ranges(ranges.iter().copied());
        self.superseded.iter().map(move |(by, ranges)| (by.as_str(), set(ranges)))
    }
}

/// What crossed a link in all its connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Traffic {
    pub(crate) wire_sent: u64,
    pub(crate) wire_received: u64,
    pub(crate) content_sent: u64,
    pub(crate) content_received: u64,
}

/// Access to the controller's tables. Calls block: use them on a blocking thread.
#[derive(Clone)]
pub(crate) struct Tables {
    journal: Journal,
}

type Result<T> = std::result::Result<T, JournalError>;

/// Something to be written in the commit that keeps an order.
pub(crate) type Note = Box<dyn FnOnce(&WriteTransaction, OrderId) -> Result<()> + Send>;

impl Tables {
    pub(crate) fn open(journal: Journal) -> Result<Tables> {
        let names = [
            HOSTS.name(),
            NAMES.name(),
            TOKENS.name(),
            ORDERS.name(),
            OPEN.name(),
            STOPPED.name(),
            ANSWERS.name(),
            BODIES.name(),
            PLACED.name(),
            TRAFFIC.name(),
            LABELS.name(),
            PACKS.name(),
            REMOVED.name(),
            COUNTS.name(),
            alerting::ALERTS.name(),
            alerting::SILENCES.name(),
            alerting::CERTIFICATES.name(),
            events::EVENTS.name(),
            events::LOG.name(),
            events::GROWTH.name(),
            events::SIGNATURES.name(),
            events::EVENT_COUNTS.name(),
            events::FILTERS.name(),
            rollouts::ROLLOUTS.name(),
            rollouts::WAVES.name(),
            facts::FACTS.name(),
            stages::STAGES.name(),
            reached::REACHED.name(),
        ];
        if journal.has_tables(&names)? {
            return Ok(Tables { journal });
        }
        let txn = journal.begin()?;
        txn.open_table(HOSTS)?;
        txn.open_table(NAMES)?;
        txn.open_table(TOKENS)?;
        txn.open_table(ORDERS)?;
        txn.open_table(OPEN)?;
        txn.open_table(STOPPED)?;
        txn.open_table(ANSWERS)?;
        txn.open_table(BODIES)?;
        txn.open_table(PLACED)?;
        txn.open_table(PACKS)?;
        txn.open_table(TRAFFIC)?;
        txn.open_table(LABELS)?;
        txn.open_table(REMOVED)?;
        txn.open_table(COUNTS)?;
        txn.open_table(alerting::ALERTS)?;
        txn.open_table(alerting::SILENCES)?;
        txn.open_table(alerting::CERTIFICATES)?;
        txn.open_table(events::EVENTS)?;
        txn.open_table(events::LOG)?;
        txn.open_table(events::GROWTH)?;
        txn.open_table(events::SIGNATURES)?;
        txn.open_table(events::EVENT_COUNTS)?;
        txn.open_table(events::FILTERS)?;
        txn.open_table(rollouts::ROLLOUTS)?;
        txn.open_table(rollouts::WAVES)?;
        txn.open_table(facts::FACTS)?;
        txn.open_table(stages::STAGES)?;
        txn.open_table(reached::REACHED)?;
        txn.commit()?;
        Ok(Tables { journal })
    }

    #[cfg(test)]
    pub(crate) fn write(&self, write: impl FnOnce(&WriteTransaction) -> Result<()>) -> Result<()> {
        let txn = self.journal.begin()?;
        write(&txn)?;
        txn.commit()?;
        Ok(())
    }

    /// Enters an order together with its envelope: from here on it is carried out, also if this
    /// process dies before the core has heard of it.
    pub(crate) fn add_order(
        &self,
        id: OrderId,
        row: &OrderRow,
        envelope: &[u8],
        note: Option<Note>,
    ) -> Result<()> {
        let txn = self.journal.begin()?;
        if let Some(note) = note {
            note(&txn, id)?;
        }
        Journal::keep_order(&txn, id, envelope)?;
        txn.open_table(ORDERS)?.insert(id.0, json(row).as_slice())?;
        txn.open_table(OPEN)?.insert(id.0, ())?;
        txn.commit()?;
        Ok(())
    }

    pub(crate) fn order(&self, id: OrderId) -> Result<Option<OrderRow>> {
        let table = self.journal.read()?.open_table(ORDERS)?;
        Ok(table.get(id.0)?.map(|row| parse(row.value())))
    }

    /// Orders that operators have given, newest first.
    pub(crate) fn orders(&self, limit: usize) -> Result<Vec<(OrderId, OrderRow)>> {
        let table = self.journal.read()?.open_table(ORDERS)?;
        let mut orders = Vec::new();
        for row in table.iter()?.rev() {
            let (id, row) = row?;
            let row: OrderRow = parse(row.value());
            if row.kind != LAPSE && orders.len() < limit {
                orders.push((OrderId(id.value()), row));
            }
            if orders.len() >= limit {
                break;
            }
        }
        Ok(orders)
    }

    /// What an order asks for, as it was signed.
    pub(crate) fn order_body(&self, id: OrderId) -> Result<Option<protos::OrderBody>> {
        self.journal.order(id)
    }

    /// The runs of which hosts wait in vain for a release, and those hosts.
    pub(crate) fn stopped(&self) -> Result<Vec<(OrderId, OrderRow, HostSet)>> {
        let txn = self.journal.read()?;
        let (stopped, orders) = (txn.open_table(STOPPED)?, txn.open_table(ORDERS)?);
        let mut found = Vec::new();
        for row in stopped.iter()? {
            let (id, ranges) = row?;
            let hosts = HostSet::from_ranges(parse::<Vec<(u32, u32)>>(ranges.value()));
            if let Some(order) = orders.get(id.value())? {
                found.push((OrderId(id.value()), parse(order.value()), hosts));
            }
        }
        Ok(found)
    }

    /// Those hosts were told by an order, or need not be told any more.
    pub(crate) fn note_closer(&self, id: OrderId, closer: Option<OrderId>) -> Result<()> {
        let txn = self.journal.begin()?;
        if let Some(mut row) = order_row(&txn, id)? {
            row.closer = Some(closer.map_or_else(String::new, |closer| closer.to_string()));
            txn.open_table(ORDERS)?.insert(id.0, json(&row).as_slice())?;
        }
        txn.open_table(STOPPED)?.remove(id.0)?;
        txn.commit()?;
        Ok(())
    }

    /// The ids whose hex text satisfies `matches`, newest first, two at most.
    pub(crate) fn find_orders(&self, matches: impl Fn(&str) -> bool) -> Result<Vec<OrderId>> {
        let table = self.journal.read()?.open_table(ORDERS)?;
        let mut found = Vec::new();
        for row in table.iter()?.rev() {
            let id = OrderId(row?.0.value());
            if matches(&id.to_string()) {
                found.push(id);
            }
            if found.len() == 2 {
                break;
            }
        }
        Ok(found)
    }

    /// The newest order that does not take another back: what people mean by "the last".
    pub(crate) fn last_order(&self) -> Result<Option<OrderId>> {
        let table = self.journal.read()?.open_table(ORDERS)?;
        for row in table.iter()?.rev() {
            let (id, row) = row?;
            if parse::<OrderRow>(row.value()).cancels.is_none() {
                return Ok(Some(OrderId(id.value())));
            }
        }
        Ok(None)
    }

    /// How many orders wait for somebody.
    pub(crate) fn open_orders(&self) -> Result<usize> {
        let open = self.journal.read()?.open_table(OPEN)?.len()?;
        Ok(usize::try_from(open).unwrap_or(usize::MAX))
    }

    /// Closes the orders whose validity has ended while no controller ran: the node has forgotten
    /// them, and nobody else would ever say of the silent ones that they are lost.
    pub(crate) fn close_expired(&self, now_ms: u64) -> Result<()> {
        let mut expired = Vec::new();
        for row in self.journal.read()?.open_table(OPEN)?.iter()? {
            let id = OrderId(row?.0.value());
            let row = self.order(id)?;
            if let Some(row) = row.filter(|row| (1..now_ms).contains(&row.expires_ms)) {
                expired.push((id, row.targets()));
            }
        }
        if expired.is_empty() {
            return Ok(());
        }
        let txn = self.journal.begin()?;
        for (id, targets) in expired {
            let (tally, _) = read_tally(&txn.open_table(ANSWERS)?, id)?;
            let mut report = Report::new(id);
            let silent = targets.difference(tally.hosts());
            report.tally.record(Outcome::bare(State::RelayLost), &silent);
            note_answers(&txn, &report)?;
            note_closed(&txn, id, now_ms)?;
        }
        txn.commit()?;
        Ok(())
    }

    pub(crate) fn tally(&self, id: OrderId) -> Result<(Tally, u64)> {
        read_tally(&self.journal.read()?.open_table(ANSWERS)?, id)
    }

    pub(crate) fn body(&self, id: OrderId, digest: Digest) -> Result<Option<Bytes>> {
        let table = self.journal.read()?.open_table(BODIES)?;
        Ok(table.get((id.0, digest.0))?.map(|body| Bytes::copy_from_slice(body.value())))
    }

    /// What each host was last given at this destination.
    pub(crate) fn placed(&self, dest: &[u8]) -> Result<BTreeMap<HostId, Digest>> {
        let table = self.journal.read()?.open_table(PLACED)?;
        let rows = table.range((dest, 0)..=(dest, u32::MAX))?.map(|row| {
            let (key, root) = row?;
            Ok((HostId(key.value().1), Digest(root.value())))
        });
        rows.collect()
    }

    /// What each host had at this destination before, and whether it has kept it as a release.
    pub(crate) fn previous(&self, dest: &[u8]) -> Result<BTreeMap<HostId, (Digest, bool)>> {
        let table = self.journal.read()?.open_table(PREVIOUS)?;
        let rows = table.range((dest, 0)..=(dest, u32::MAX))?.map(|row| {
            let (key, row) = row?;
            let (root, tree) = row.value();
            Ok((HostId(key.value().1), (Digest(root), tree)))
        });
        rows.collect()
    }

    /// The pack that takes one tree to another, if it was made before.
    pub(crate) fn pack(&self, key: (Option<ContentId>, ContentId)) -> Result<Option<PackRow>> {
        let table = self.journal.read()?.open_table(PACKS)?;
        Ok(table.get(pack_key(key))?.map(|row| parse(row.value())))
    }

    pub(crate) fn set_pack(
        &self,
        key: (Option<ContentId>, ContentId),
        row: &PackRow,
    ) -> Result<()> {
        let txn = self.journal.begin()?;
        txn.open_table(PACKS)?.insert(pack_key(key), json(row).as_slice())?;
        txn.commit()?;
        Ok(())
    }

    /// Drops the packs that `keep` does not want. Returns how many.
    pub(crate) fn retain_packs(&self, keep: impl Fn(&PackRow) -> bool) -> Result<usize> {
        let mut gone = Vec::new();
        for row in self.journal.read()?.open_table(PACKS)?.iter()? {
            let (key, row) = row?;
            gone.extend((!keep(&parse(row.value()))).then(|| key.value()));
        }
        if !gone.is_empty() {
            let txn = self.journal.begin()?;
            for key in &gone {
                txn.open_table(PACKS)?.remove(key)?;
            }
            txn.commit()?;
        }
        Ok(gone.len())
    }

    // Traffic.

    pub(crate) fn traffic(&self) -> Result<BTreeMap<HostId, Traffic>> {
        let table = self.journal.read()?.open_table(TRAFFIC)?;
        let rows = table.iter()?.map(|row| {
            let (id, row) = row?;
            Ok((HostId(id.value()), parse(row.value())))
        });
        rows.collect()
    }

    pub(crate) fn set_traffic(&self, rows: &BTreeMap<HostId, Traffic>) -> Result<()> {
        let txn = self.journal.begin()?;
        for (id, row) in rows {
            txn.open_table(TRAFFIC)?.insert(id.0, json(row).as_slice())?;
        }
        txn.commit()?;
        Ok(())
    }
}

/// What an order's answers come to, and how many bodies were cut.
fn read_tally(
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
    crate::fleet::note_answers(txn, report, &known)?;
    drop(bodies);
    note_placed(txn, report)
}

/// A host that has said ok to a push has the push's manifest at its destination.
fn note_placed(txn: &WriteTransaction, report: &Report) -> Result<()> {
    let Some(row) = order_row(txn, report.order)? else { return Ok(()) };
    let Some(push) = row.push.filter(|push| !push.verify) else { return Ok(()) };
    let Ok(root) = push.manifest.parse::<content::ContentId>() else { return Ok(()) };
    let mut placed = txn.open_table(PLACED)?;
    let mut previous = txn.open_table(PREVIOUS)?;
    let bodies = txn.open_table(BODIES)?;
    for (outcome, hosts) in report.tally.lines() {
        // A command may have failed when all was in place already.
        let mut said = None;
        if let Some(digest) = outcome.body.filter(|_| outcome.state != mesh::State::Ok) {
            let body = bodies.get((report.order.0, digest.0))?;
            said = body.map(|body| protos::Answer::decode(Bytes::copy_from_slice(body.value())));
        }
        let placed_it = matches!(said, Some(Ok(protos::Answer { push: Some(_), .. })));
        for host in hosts.iter() {
            match outcome.state {
                state if state == mesh::State::Ok || placed_it => {
                    let key = (push.dest.as_bytes(), host.0);
                    let before = placed.insert(key, root.0)?.map(|before| before.value());
                    if let Some(before) = before.filter(|before| *before != root.0) {
                        previous.insert(key, (before, push.tree))?;
                    }
                }
                // Nobody knows what is there now.
                mesh::State::Interrupted => {
                    placed.remove((push.dest.as_bytes(), host.0))?;
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Notes that hosts wait in vain for a release of an order, and why, unless they were told.
pub(crate) fn note_stopped(
    txn: &WriteTransaction,
    id: OrderId,
    hosts: &HostSet,
    why: Option<&str>,
) -> Result<()> {
    let Some(mut row) = order_row(txn, id)?.filter(|row| row.closer.is_none()) else {
        return Ok(());
    };
    if row.stopped.is_none() {
        row.stopped = why.map(String::from);
        txn.open_table(ORDERS)?.insert(id.0, json(&row).as_slice())?;
    }
    txn.open_table(STOPPED)?.insert(id.0, json(&hosts.ranges()).as_slice())?;
    Ok(())
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

/// Notes whose place an order takes.
pub(crate) fn note_superseded(
    txn: &WriteTransaction,
    olders: &[(OrderId, HostSet)],
    by: OrderId,
) -> Result<()> {
    for (older, hosts) in olders {
        let Some(mut row) = order_row(txn, *older)? else { continue };
        row.superseded.push((by.to_string(), hosts.ranges().to_vec()));
        txn.open_table(ORDERS)?.insert(older.0, json(&row).as_slice())?;
    }
    Ok(())
}

/// Marks an order as closed. Returns its row.
pub(crate) fn note_closed(txn: &WriteTransaction, id: OrderId, now_ms: u64) -> Result<()> {
    let Some(mut row) = order_row(txn, id)? else { return Ok(()) };
    if row.closed_ms == 0 {
        row.closed_ms = now_ms;
        txn.open_table(ORDERS)?.insert(id.0, json(&row).as_slice())?;
        txn.open_table(OPEN)?.remove(id.0)?;
    }
    Ok(())
}

/// An order as it stands in a transaction.
pub(crate) fn order_row(txn: &WriteTransaction, id: OrderId) -> Result<Option<OrderRow>> {
    let table = txn.open_table(ORDERS)?;
    let row = table.get(id.0)?.map(|row| parse(row.value()));
    Ok(row)
}

fn pack_key((base, target): (Option<ContentId>, ContentId)) -> ([u8; 32], [u8; 32]) {
    (base.map_or([0; 32], |base| base.0), target.0)
}

fn json(row: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(row).expect("a plain row is valid JSON")
}

/// Rows are written by this program under a versioned table name: they are readable.
fn parse<T: DeserializeOwned>(row: &[u8]) -> T {
    serde_json::from_slice(row).expect("the controller reads the rows that it wrote")
}
