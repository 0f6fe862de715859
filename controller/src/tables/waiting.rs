//! Orders for which hosts may still wait.

use mesh::OrderId;

use super::{ORDERS, OrderRow, Result, Tables, parse};

/// How many orders are looked at. What is older, on a controller that gives more than so many
/// within the validity of one, is not found.
const LOOKED_AT: usize = 5_000;

impl Tables {
    /// The orders of a kind that were given before this one and are still valid, newest first.
    pub(crate) fn waiting(
        &self,
        kind: &str,
        before: OrderId,
        now_ms: u64,
    ) -> Result<Vec<(OrderId, OrderRow)>> {
        let table = self.journal.read()?.open_table(ORDERS)?;
        let mut found = Vec::new();
        for row in table.range(..before.0)?.rev().take(LOOKED_AT) {
            let (id, row) = row?;
            let row: OrderRow = parse(row.value());
            if row.kind == kind && row.expires_ms > now_ms {
                found.push((OrderId(id.value()), row));
            }
        }
        Ok(found)
    }
}
