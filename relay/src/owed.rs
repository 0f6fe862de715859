//! Commands that a distribution owes its files: noted before anything is written, ticked off one
//! by one, and found again by a node that was killed in between.

use std::collections::BTreeSet;

use mesh::OrderId;
use redb::{ReadableTable, TableDefinition};

use crate::journal::{Journal, JournalError};

/// Order and place of the file in it.
const OWED: TableDefinition<([u8; 16], u32), ()> = TableDefinition::new("owed.v1");

/// Access to the notes. Calls block for a commit.
pub(crate) struct Owed {
    pub(crate) journal: Journal,
}

impl Owed {
    /// Notes the files of an order that have commands. Returns those whose commands are owed since
    /// the order was begun before. Distributions go one at a time, so all other notes are of
    /// orders that will not be carried out again.
    pub(crate) fn begin(
        &self,
        order: OrderId,
        places: &[u32],
    ) -> Result<BTreeSet<u32>, JournalError> {
        if places.is_empty() {
            return Ok(BTreeSet::new());
        }
        let txn = self.journal.begin()?;
        let mut owed = BTreeSet::new();
        {
            let mut table = txn.open_table(OWED)?;
            for row in table.range((order.0, 0)..=(order.0, u32::MAX))? {
                owed.insert(row?.0.value().1);
            }
            table.retain(|(other, _), ()| other == order.0)?;
            if owed.is_empty() {
                for place in places {
                    table.insert((order.0, *place), ())?;
                }
            }
        }
        txn.commit()?;
        Ok(owed)
    }

    /// The command of this file has run.
    pub(crate) fn tick_off(&self, order: OrderId, place: u32) -> Result<(), JournalError> {
        let txn = self.journal.begin()?;
        txn.open_table(OWED)?.remove((order.0, place))?;
        txn.commit()?;
        Ok(())
    }

    /// The order is carried out: nothing is owed any more.
    pub(crate) fn end(&self, order: OrderId) -> Result<(), JournalError> {
        let left = {
            let txn = self.journal.read()?;
            match txn.open_table(OWED) {
                Ok(table) => table.range((order.0, 0)..=(order.0, u32::MAX))?.next().is_some(),
                Err(_) => false,
            }
        };
        if left {
            let txn = self.journal.begin()?;
            txn.open_table(OWED)?.retain_in((order.0, 0)..=(order.0, u32::MAX), |_, ()| false)?;
            txn.commit()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_killed_node_finds_what_it_owes() {
        let dir = tempfile::tempdir().expect("a folder");
        let open = || Journal::open(&dir.path().join("db"), 1 << 20).expect("opens");
        let (one, two) = (OrderId([1; 16]), OrderId([2; 16]));
        {
            let owed = Owed { journal: open() };
            assert!(owed.begin(one, &[0, 3, 5]).expect("noted").is_empty());
            owed.tick_off(one, 3).expect("ticked off");
        }
        let owed = Owed { journal: open() };
        assert_eq!(owed.begin(one, &[0, 3, 5]).expect("noted"), [0, 5].into());
        owed.end(one).expect("over");
        assert!(owed.begin(one, &[0]).expect("noted").is_empty());
        assert!(owed.begin(two, &[1]).expect("noted").is_empty());
        assert!(owed.begin(one, &[0]).expect("noted").is_empty(), "of other orders nothing stays");
        assert!(owed.begin(two, &[]).expect("nothing to note").is_empty());
        owed.end(two).expect("nothing to end");
    }
}
