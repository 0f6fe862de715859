//! The controller's own tables, beside those of its node in the same redb file.
//!
//! Rows are JSON where a person may want to read them (`dump` needs no schema) and protobuf where
//! they are many. What concerns an order is written in the node's own commits, so that an answer
//! which was acknowledged to a relay is in these tables too.

mod alerting;
mod answers;
pub(crate) mod events;
pub(crate) mod facts;
pub(crate) mod given;
mod hosts;
mod orders;
mod placed;
pub(crate) mod reached;
mod readings;
pub(crate) mod restored;
mod retire;
pub(crate) mod rollouts;
pub(crate) mod stages;
mod waiting;

use std::collections::BTreeMap;

use mesh::HostId;
use redb::{ReadableTable, TableDefinition, TableHandle, WriteTransaction};
use relay::{Journal, JournalError};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use self::answers::{ANSWERS, BODIES};
pub(crate) use self::answers::{body_in, note_answers};
pub(crate) use self::hosts::{Accepted, Enrolment};
pub(crate) use self::orders::{
    LAPSE, Note, OrderRow, note_closed, note_stopped, note_superseded, order_row,
};
use self::orders::{OPEN, ORDERS, STOPPED};
use self::placed::{PACKS, PLACED, PREVIOUS};

const HOSTS: TableDefinition<u32, &[u8]> = TableDefinition::new("controller.hosts.v1");
const NAMES: TableDefinition<&str, u32> = TableDefinition::new("controller.names.v1");
const TOKENS: TableDefinition<[u8; 8], &[u8]> = TableDefinition::new("controller.tokens.v1");
/// What operators have said of hosts.
const LABELS: TableDefinition<u32, &[u8]> = TableDefinition::new("controller.labels.v1");
const TRAFFIC: TableDefinition<u32, &[u8]> = TableDefinition::new("controller.traffic.v1");

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

/// Every table is named here, once.
macro_rules! tables {
    ($($table:path),* $(,)?) => {
        fn table_names() -> Vec<&'static str> {
            vec![$($table.name()),*]
        }

        fn make_tables(txn: &WriteTransaction) -> Result<()> {
            $(txn.open_table($table)?;)*
            Ok(())
        }
    };
}

tables! {
    HOSTS,
    NAMES,
    TOKENS,
    ORDERS,
    OPEN,
    STOPPED,
    ANSWERS,
    BODIES,
    PLACED,
    PREVIOUS,
    TRAFFIC,
    LABELS,
    PACKS,
    REMOVED,
    COUNTS,
    alerting::ALERTS,
    alerting::SILENCES,
    alerting::CERTIFICATES,
    events::EVENTS,
    events::LOG,
    events::GROWTH,
    events::SIGNATURES,
    events::EVENT_COUNTS,
    events::FILTERS,
    rollouts::ROLLOUTS,
    rollouts::WAVES,
    facts::FACTS,
    given::DELEGATIONS,
    given::GIVEN,
    given::HANDED,
    given::RECORDED,
    stages::STAGES,
    reached::REACHED,
    readings::READINGS,
}

impl Tables {
    pub(crate) fn open(journal: Journal) -> Result<Tables> {
        if !journal.has_tables(&table_names())? {
            let txn = journal.begin()?;
            make_tables(&txn)?;
            txn.commit()?;
        }
        Ok(Tables { journal })
    }

    #[cfg(test)]
    pub(crate) fn write(&self, write: impl FnOnce(&WriteTransaction) -> Result<()>) -> Result<()> {
        let txn = self.journal.begin()?;
        write(&txn)?;
        txn.commit()?;
        Ok(())
    }

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

fn json(row: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(row).expect("a plain row is valid JSON")
}

/// Rows are written by this program under a versioned table name: they are readable.
fn parse<T: DeserializeOwned>(row: &[u8]) -> T {
    serde_json::from_slice(row).expect("the controller reads the rows that it wrote")
}
