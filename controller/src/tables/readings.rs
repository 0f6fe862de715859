//! Where it is kept what large sources were like when they were last read.

use content::ContentId;
use redb::{ReadableTable, ReadableTableMetadata, TableDefinition};

use super::{Result, Tables};

/// By source: the object in the store, and when it was read, in milliseconds since 1970.
pub(super) const READINGS: TableDefinition<&[u8], ([u8; 32], u64)> =
    TableDefinition::new("controller.readings.v1");
/// So many sources are remembered, those that were read last.
const LIMIT: u64 = 256;

impl Tables {
    /// What is remembered of this source, if anything is.
    pub(crate) fn reading(&self, source: &[u8]) -> Result<Option<ContentId>> {
        let table = self.journal.read()?.open_table(READINGS)?;
        Ok(table.get(source)?.map(|row| ContentId(row.value().0)))
    }

    /// Everything that is remembered.
    pub(crate) fn readings(&self) -> Result<Vec<ContentId>> {
        let table = self.journal.read()?.open_table(READINGS)?;
        table.iter()?.map(|row| Ok(ContentId(row?.1.value().0))).collect()
    }

    /// Remembers a source; of too many the one that was read longest ago goes.
    pub(crate) fn set_reading(&self, source: &[u8], seen: ContentId, now_ms: u64) -> Result<()> {
        let txn = self.journal.begin()?;
        {
            let mut table = txn.open_table(READINGS)?;
            table.insert(source, (seen.0, now_ms))?;
            while table.len()? > LIMIT {
                let mut oldest: Option<(u64, Vec<u8>)> = None;
                for row in table.iter()? {
                    let (source, row) = row?;
                    let row = (row.value().1, source.value().to_vec());
                    oldest = Some(oldest.map_or(row.clone(), |oldest| oldest.min(row)));
                }
                let Some((_, source)) = oldest else { break };
                table.remove(source.as_slice())?;
            }
        }
        txn.commit()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_too_many_sources_the_oldest_is_forgotten() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let journal = relay::Journal::open(&dir.path().join("db"), 1 << 20).expect("opens");
        let tables = Tables::open(journal).expect("they are made");
        let id = |n: u64| ContentId::of(&n.to_le_bytes());
        for n in 0..=LIMIT {
            let source = format!("/srv/{n}");
            tables.set_reading(source.as_bytes(), id(n), 1000 - n).expect("noted");
        }
        assert_eq!(tables.reading(b"/srv/255").expect("looks"), Some(id(255)));
        let last = format!("/srv/{LIMIT}");
        assert_eq!(tables.reading(last.as_bytes()).expect("looks"), None, "its time is the least");
        tables.set_reading(b"/srv/3", id(9), 5000).expect("noted");
        assert_eq!(tables.reading(b"/srv/3").expect("looks"), Some(id(9)));
        assert_eq!(tables.readings().expect("looks").len() as u64, LIMIT);
    }
}
