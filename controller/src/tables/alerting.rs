//! Alerts, silences, and until when the certificates of nodes are good.

use std::collections::BTreeMap;

use alerts::{Change, Kept};
use mesh::HostId;
use redb::{ReadableTable, TableDefinition};

use super::{Result, Tables, json, parse};

pub(super) const ALERTS: TableDefinition<&str, &[u8]> =
    TableDefinition::new("controller.alerts.v1");
pub(super) const SILENCES: TableDefinition<&str, &[u8]> =
    TableDefinition::new("controller.silences.v1");
/// When the newest certificate of a node ends, and for how long it was made.
pub(super) const CERTIFICATES: TableDefinition<u32, (u64, u64)> =
    TableDefinition::new("controller.certificates.v1");

impl Tables {
    pub(crate) fn kept_alerts(&self) -> Result<Kept> {
        let txn = self.journal.read()?;
        let mut kept = Kept::default();
        for row in txn.open_table(ALERTS)?.iter()? {
            let (key, row) = row?;
            kept.alerts.insert(key.value().into(), parse(row.value()));
        }
        for row in txn.open_table(SILENCES)?.iter()? {
            let (id, row) = row?;
            kept.silences.insert(id.value().into(), parse(row.value()));
        }
        Ok(kept)
    }

    /// Enters changes, all or none.
    pub(crate) fn keep_alerts(&self, changes: &[Change]) -> Result<()> {
        let txn = self.journal.begin()?;
        {
            let (mut alerts, mut silences) = (txn.open_table(ALERTS)?, txn.open_table(SILENCES)?);
            for change in changes {
                match change {
                    Change::Alert(key, Some(row)) => {
                        alerts.insert(key.as_str(), json(row).as_slice())?;
                    }
                    Change::Alert(key, None) => drop(alerts.remove(key.as_str())?),
                    Change::Silence(id, Some(row)) => {
                        silences.insert(id.as_str(), json(row).as_slice())?;
                    }
                    Change::Silence(id, None) => drop(silences.remove(id.as_str())?),
                }
            }
        }
        txn.commit()?;
        Ok(())
    }

    /// Notes that a node was given a certificate.
    pub(crate) fn note_certificate(&self, id: u32, ends_ms: u64, life_ms: u64) -> Result<()> {
        let txn = self.journal.begin()?;
        txn.open_table(CERTIFICATES)?.insert(id, (ends_ms, life_ms))?;
        txn.commit()?;
        Ok(())
    }

    /// When the certificates of nodes end, as far as it was noted, and for how long each was made.
    pub(crate) fn certificates(&self) -> Result<BTreeMap<HostId, (u64, u64)>> {
        let table = self.journal.read()?.open_table(CERTIFICATES)?;
        let rows = table.iter()?.map(|row| {
            let (id, row) = row?;
            Ok((HostId(id.value()), row.value()))
        });
        rows.collect()
    }
}
