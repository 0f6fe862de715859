//! Rollouts: a small row for each that moves with it, and its waves, which never change.

use std::collections::BTreeSet;

use mesh::{HostSet, OrderId};
use redb::{ReadableTable, TableDefinition, WriteTransaction};

use super::{ORDERS, OrderRow, Result, Tables, json, parse};
use crate::rollout::row::RolloutRow;

pub(super) const ROLLOUTS: TableDefinition<[u8; 16], &[u8]> =
    TableDefinition::new("controller.rollouts.v1");
pub(super) const WAVES: TableDefinition<[u8; 16], &[u8]> =
    TableDefinition::new("controller.waves.v1");

impl Tables {
    /// Enters a rollout; from here on it goes on by itself.
    pub(crate) fn add_rollout(
        &self,
        id: OrderId,
        row: &RolloutRow,
        waves: &[HostSet],
    ) -> Result<()> {
        let ranges: Vec<&[(u32, u32)]> = waves.iter().map(HostSet::ranges).collect();
        let txn = self.journal.begin()?;
        note_rollout(&txn, id, row)?;
        txn.open_table(WAVES)?.insert(id.0, json(&ranges).as_slice())?;
        txn.commit()?;
        Ok(())
    }

    /// `stopped`: why it has stopped just now, which is an event.
    pub(crate) fn set_rollout(
        &self,
        id: OrderId,
        row: &RolloutRow,
        stopped: Option<&str>,
        now_ms: u64,
    ) -> Result<()> {
        let txn = self.journal.begin()?;
        note_rollout(&txn, id, row)?;
        if let Some(why) = stopped {
            let what = format!("rollout stopped: {}: {why}", row.what);
            crate::outcomes::note_rollout(&txn, id, &what, now_ms)?;
        }
        txn.commit()?;
        Ok(())
    }

    pub(crate) fn rollout(&self, id: OrderId) -> Result<Option<RolloutRow>> {
        let table = self.journal.read()?.open_table(ROLLOUTS)?;
        Ok(table.get(id.0)?.map(|row| parse(row.value())))
    }

    /// The waves of a rollout, each a part of its targets.
    pub(crate) fn waves(&self, id: OrderId) -> Result<Vec<HostSet>> {
        let table = self.journal.read()?.open_table(WAVES)?;
        let waves: Vec<Vec<(u32, u32)>> =
            table.get(id.0)?.map(|row| parse(row.value())).unwrap_or_default();
        Ok(waves.into_iter().map(HostSet::from_ranges).collect())
    }

    /// All rollouts, newest first.
    pub(crate) fn rollouts(&self) -> Result<Vec<(OrderId, RolloutRow)>> {
        let table = self.journal.read()?.open_table(ROLLOUTS)?;
        let rows = table.iter()?.rev().map(|row| {
            let (id, row) = row?;
            Ok((OrderId(id.value()), parse(row.value())))
        });
        rows.collect()
    }

    /// The newest push to a place since then, other than these.
    pub(crate) fn later_push(
        &self,
        dest: &str,
        since_ms: u64,
        except: &BTreeSet<OrderId>,
    ) -> Result<Option<OrderId>> {
        let table = self.journal.read()?.open_table(ORDERS)?;
        for row in table.iter()?.rev() {
            let (id, row) = row?;
            let (id, row) = (OrderId(id.value()), parse::<OrderRow>(row.value()));
            if row.issued_ms < since_ms {
                break;
            }
            let is_there = row.push.is_some_and(|push| !push.verify && push.dest == dest);
            if is_there && !except.contains(&id) {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    /// Drops the rollouts that have ended before this time. Returns how many.
    pub(crate) fn retire_rollouts(&self, before_ms: u64) -> Result<usize> {
        let mut gone = self.rollouts()?;
        gone.retain(|(_, row)| row.is_over() && row.ended_ms < before_ms);
        if !gone.is_empty() {
            let txn = self.journal.begin()?;
            for (id, _) in &gone {
                txn.open_table(ROLLOUTS)?.remove(id.0)?;
                txn.open_table(WAVES)?.remove(id.0)?;
            }
            txn.commit()?;
        }
        Ok(gone.len())
    }
}

/// Writes how a rollout stands into a transaction.
pub(crate) fn note_rollout(txn: &WriteTransaction, id: OrderId, row: &RolloutRow) -> Result<()> {
    txn.open_table(ROLLOUTS)?.insert(id.0, json(row).as_slice())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::PushInfo;

    fn id(no: u64) -> OrderId {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&no.to_be_bytes());
        OrderId(id)
    }

    #[test]
    fn a_later_push_to_a_place_is_found_behind_any_number_of_orders() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let journal = relay::Journal::open(&dir.path().join("controller.redb"), 1 << 20);
        let tables = Tables::open(journal.expect("a journal")).expect("tables");
        let txn = tables.journal.begin().expect("it begins");
        for no in 1..=5_000 {
            let push = |verify| PushInfo { dest: "/srv".into(), verify, ..Default::default() };
            let push = match no {
                2 | 3 => Some(push(false)),
                4 => Some(push(true)),
                _ => None,
            };
            let row = OrderRow { issued_ms: no, push, ..OrderRow::default() };
            let mut orders = txn.open_table(ORDERS).expect("a table");
            orders.insert(id(no).0, json(&row).as_slice()).expect("it is kept");
        }
        txn.commit().expect("committed");
        let later = |dest, since, ours: &[u64]| {
            let ours = ours.iter().map(|no| id(*no)).collect();
            tables.later_push(dest, since, &ours).expect("it is read")
        };
        assert_eq!(later("/srv", 1, &[]), Some(id(3)));
        assert_eq!(later("/srv", 1, &[3]), Some(id(2)));
        assert_eq!(later("/srv", 1, &[2, 3]), None, "to look is no push");
        assert_eq!((later("/srv", 4, &[]), later("/etc", 1, &[])), (None, None));
    }
}
