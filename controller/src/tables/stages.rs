//! What was staged, by the order that stages it.

use mesh::OrderId;
use redb::{TableDefinition, WriteTransaction};

use super::{Result, Tables, json, parse};
use crate::stage::StageRow;

pub(super) const STAGES: TableDefinition<[u8; 16], &[u8]> =
    TableDefinition::new("controller.stages.v1");

impl Tables {
    /// What an order has staged, if it is one that does.
    pub(crate) fn stage(&self, id: OrderId) -> Result<Option<StageRow>> {
        let table = self.journal.read()?.open_table(STAGES)?;
        Ok(table.get(id.0)?.map(|row| parse(row.value())))
    }
}

/// Writes what is staged into the transaction that keeps the order.
pub(crate) fn note_stage(txn: &WriteTransaction, id: OrderId, row: &StageRow) -> Result<()> {
    txn.open_table(STAGES)?.insert(id.0, json(row).as_slice())?;
    Ok(())
}

/// Drops it with its order.
pub(super) fn drop_stage(txn: &WriteTransaction, id: OrderId) -> Result<()> {
    txn.open_table(STAGES)?.remove(id.0)?;
    Ok(())
}
