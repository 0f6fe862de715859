//! Rollouts: a small row for each that moves with it, and its waves, which never change.

use mesh::{HostSet, OrderId};
use redb::{ReadableTable, TableDefinition, WriteTransaction};

use super::{Result, Tables, json, parse};
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
