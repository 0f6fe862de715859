//! Orders as they were given, and which of them are not closed.

use mesh::{HostSet, OrderId, Outcome, Report, State, Tally};
use redb::{ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction};
use relay::Journal;
use serde::{Deserialize, Serialize};

use super::answers::{ANSWERS, note_answers, read_tally};
use super::{Result, Tables, json, parse};
use crate::types::{NewRun, PushInfo};

pub(super) const ORDERS: TableDefinition<[u8; 16], &[u8]> =
    TableDefinition::new("controller.orders.v1");
/// The orders that are not closed, so that nobody has to look through all the others.
pub(super) const OPEN: TableDefinition<[u8; 16], ()> = TableDefinition::new("controller.open.v1");
/// Hosts that wait in vain for a release, until they are told.
pub(super) const STOPPED: TableDefinition<[u8; 16], &[u8]> =
    TableDefinition::new("controller.stopped.v1");

/// The kind of an order that tells hosts not to wait for a release any more. Operators do not see
/// it.
pub(crate) const LAPSE: &str = "lapse";
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
    /// The relay whose own operator has given it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) given_by: Option<String>,
    /// Who has given it, for people to read.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) by: String,
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

/// Something to be written in the commit that keeps an order.
pub(crate) type Note = Box<dyn FnOnce(&WriteTransaction, OrderId) -> Result<()> + Send>;

impl Tables {
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

    /// The newest order of the controller itself, if there is one.
    pub(crate) fn newest_order(&self) -> Result<Option<OrderId>> {
        let table = self.journal.read()?.open_table(ORDERS)?;
        for row in table.iter()?.rev() {
            let id = OrderId(row?.0.value());
            if id.giver().is_none() {
                return Ok(Some(id));
            }
        }
        Ok(None)
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
