//! Whom distributions have reached, and how much they have brought there, for the counts of
//! reports: by quarter of an hour, by the controller's clock.
//!
//! It is written in the commit that takes in what hosts have said, and what is said again adds
//! nothing: a host is counted once, and a file of a host when it is news that it is in place.

use mesh::HostSet;
use redb::{ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::events::QUARTER_MS;
use super::{Result, Tables, json, parse};

/// By quarter of an hour.
pub(super) const REACHED: TableDefinition<u32, &[u8]> =
    TableDefinition::new("controller.reached.v1");
/// For how many quarters this is kept: somewhat longer than daily reports.
const KEPT: u32 = 4 * 24 * 63;

/// What distributions have come to in a while.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reached {
    /// Hosts that have said what became of one.
    pub(crate) hosts: HostSet,
    /// Files that they have newly in place, each counted for each host.
    pub(crate) files: u64,
}

#[derive(Default, Serialize, Deserialize)]
struct Row {
    hosts: Vec<(u32, u32)>,
    files: u64,
}

/// Takes in what hosts have said.
pub(crate) fn note_reached(txn: &WriteTransaction, new: &Reached, now_ms: u64) -> Result<()> {
    let quarter = quarter(now_ms);
    let mut table = txn.open_table(REACHED)?;
    let old = table.get(quarter)?.map(|row| parse::<Row>(row.value()));
    let is_first = old.is_none();
    let old = old.unwrap_or_default();
    let hosts = HostSet::from_ranges(old.hosts.iter().copied()).union(&new.hosts);
    let row = Row { hosts: hosts.ranges().to_vec(), files: old.files + new.files };
    table.insert(quarter, json(&row).as_slice())?;
    if is_first {
        table.retain_in(..quarter.saturating_sub(KEPT), |_, _| false)?;
    }
    Ok(())
}

impl Tables {
    /// What came of distributions from then until then, in whole quarters of an hour.
    pub(crate) fn reached(&self, start_ms: u64, end_ms: u64) -> Result<Reached> {
        let table = self.journal.read()?.open_table(REACHED)?;
        let until = quarter(end_ms.saturating_add(QUARTER_MS - 1));
        let (mut ranges, mut files) = (Vec::new(), 0_u64);
        for row in table.range(quarter(start_ms)..until)? {
            let row: Row = parse(row?.1.value());
            ranges.extend(row.hosts);
            files += row.files;
        }
        Ok(Reached { hosts: HostSet::from_ranges(ranges), files })
    }
}

fn quarter(ms: u64) -> u32 {
    u32::try_from(ms / QUARTER_MS).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use mesh::HostId;
    use relay::Journal;

    use super::*;

    #[test]
    fn hosts_count_once_and_what_is_old_goes() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let journal = Journal::open(&dir.path().join("c.redb"), 1 << 20).expect("it is made");
        let tables = Tables::open(journal).expect("they are made");
        let one = |host: u32, files| Reached { hosts: HostSet::one(HostId(host)), files };
        let note = |new: &Reached, at| {
            tables.write(|txn| note_reached(txn, new, at)).expect("noted");
        };
        let noon = 1_800_000_000_000 / QUARTER_MS * QUARTER_MS;
        note(&one(1, 3), noon);
        note(&one(1, 0), noon + QUARTER_MS - 1);
        note(&one(2, 1), noon + QUARTER_MS);
        let all = tables.reached(noon, noon + 2 * QUARTER_MS).expect("read");
        assert_eq!((all.hosts.len(), all.files), (2, 4));
        let first = tables.reached(noon, noon + QUARTER_MS).expect("read");
        assert_eq!((first.hosts.len(), first.files), (1, 3));
        assert_eq!(tables.reached(0, noon).expect("read"), Reached::default());
        note(&one(1, 1), noon + u64::from(KEPT + 1) * QUARTER_MS);
        assert_eq!(tables.reached(0, noon + QUARTER_MS).expect("read"), Reached::default());
    }
}
