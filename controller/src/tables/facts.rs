//! What hosts say of themselves: the newest of each that is enrolled.
//!
//! A host's own count says which of two is newer, whatever way and however often they come; what
//! comes twice is not written twice. Only its limits are believed of the text: names, values and
//! lengths are checked before anything of it is kept. The count begins at the hour of the host's
//! clock and grows by little more than the hours, so one that is far beyond the present is a lie
//! or a clock that is wrong. It is refused: nothing newer could ever take its place.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh::{HostId, HostSet, Profiled};
use protos::Facts;
use redb::{ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};
use tracing::{debug, warn};

use super::{Result, Tables, json, parse};

pub(super) const FACTS: TableDefinition<u32, &[u8]> = TableDefinition::new("controller.facts.v1");

const HOUR_MS: u64 = 3_600_000;
/// How many hours beyond the present a revision may be: a year.
const AHEAD_HOURS: u64 = 366 * 24;
/// A clock that shows less than the beginning of 2026 was never set, and judges nobody.
const NEVER_SET_MS: u64 = 1_767_225_600_000;

/// What a host says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FactsRow {
    pub(crate) revision: u64,
    pub(crate) heard_ms: u64,
    pub(crate) facts: Facts,
}

/// The facts of all hosts that have said some. Those of hosts that say the same lie there once.
pub(crate) type AllFacts = BTreeMap<HostId, Arc<FactsRow>>;

/// Keeps what is newer than what was there. Returns that.
pub(crate) fn note_facts(
    txn: &WriteTransaction,
    lines: &[Profiled],
    enrolled: &HostSet,
    now_ms: u64,
) -> Result<AllFacts> {
    let (mut table, mut news) = (txn.open_table(FACTS)?, AllFacts::new());
    let newest = match now_ms < NEVER_SET_MS {
        true => u64::MAX,
        false => now_ms / HOUR_MS + AHEAD_HOURS,
    };
    for Profiled { profile, hosts } in lines {
        if profile.revision > newest {
            let revision = profile.revision;
            warn!(%hosts, revision, newest, "what hosts say is of the future and not kept");
            continue;
        }
        let facts = match protos::decode_facts(profile.text.clone()) {
            Ok(facts) => facts,
            Err(error) => {
                debug!(%hosts, error = %relay::chain(&error), "what hosts say is not readable");
                continue;
            }
        };
        let row = Arc::new(FactsRow { revision: profile.revision, heard_ms: now_ms, facts });
        let bytes = json(&*row);
        for host in hosts.intersection(enrolled).iter() {
            let old = table.get(host.0)?.map(|old| parse::<FactsRow>(old.value()));
            let newer = old.is_none_or(|old| match old.revision == row.revision {
                true => old.facts != row.facts,
                // What an older controller has kept of the future gives way.
                false => old.revision < row.revision || old.revision > newest,
            });
            if newer {
                table.insert(host.0, bytes.as_slice())?;
                news.insert(host, row.clone());
            }
        }
    }
    Ok(news)
}

impl Tables {
    /// What all hosts say of themselves.
    pub(crate) fn facts(&self) -> Result<AllFacts> {
        let table = self.journal.read()?.open_table(FACTS)?;
        let (mut facts, mut known) = (AllFacts::new(), BTreeMap::<Vec<u8>, Arc<FactsRow>>::new());
        for row in table.iter()? {
            let (id, row) = row?;
            let row = match known.get(row.value()) {
                Some(same) => same.clone(),
                None => {
                    let new = Arc::new(parse(row.value()));
                    known.entry(row.value().to_vec()).or_insert(new).clone()
                }
            };
            facts.insert(HostId(id.value()), row);
        }
        Ok(facts)
    }
}

#[cfg(test)]
mod tests {
    use mesh::Profile;

    use super::*;

    fn line(revision: u64, os: &str, hosts: &[u32]) -> Profiled {
        let facts = Facts::from([("os".to_owned(), os.to_owned())]);
        let profile = Profile { revision, text: protos::encode_facts(&facts) };
        Profiled { profile, hosts: hosts.iter().copied().map(HostId).collect() }
    }

    #[test]
    fn the_newest_of_each_enrolled_host_is_kept() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let journal = relay::Journal::open(&dir.path().join("db"), 1 << 20).expect("opens");
        let tables = Tables::open(journal).expect("opens");
        let enrolled = HostSet::from_ranges([(1, 4)]);
        let note_at = |now_ms: u64, lines: &[Profiled]| {
            let mut news = Vec::new();
            let note = |txn: &WriteTransaction| {
                let kept = note_facts(txn, lines, &enrolled, now_ms)?;
                news = kept.into_keys().map(|id| id.0).collect();
                Ok(())
            };
            tables.write(note).expect("written");
            news
        };
        let note = |lines: &[Profiled]| note_at(NEVER_SET_MS, lines);
        assert_eq!(note(&[line(5, "debian", &[1, 2, 3, 9])]), [1, 2, 3]);
        assert!(note(&[line(5, "debian", &[1, 2, 3, 9])]).is_empty());
        let noise = mesh::Profile { revision: 9, text: b"\xff\xff".as_slice().into() };
        let noise = Profiled { profile: noise, hosts: HostSet::one(HostId(1)) };
        assert_eq!(note(&[noise, line(4, "plan9", &[2]), line(6, "alpine", &[3])]), [3]);
        let far = NEVER_SET_MS / HOUR_MS + AHEAD_HOURS + 1;
        assert!(note(&[line(far, "far", &[1]), line(u64::MAX, "lie", &[2])]).is_empty());
        let facts = tables.facts().expect("reads");
        let os = |id: u32| facts[&HostId(id)].facts["os"].as_str();
        assert_eq!([os(1), os(2), os(3)], ["debian", "debian", "alpine"]);
        let keep = |txn: &WriteTransaction| {
            let facts = Facts::from([("os".to_owned(), "lie".to_owned())]);
            let lie = json(&FactsRow { revision: u64::MAX, heard_ms: 7, facts });
            txn.open_table(FACTS)?.insert(4, lie.as_slice())?;
            Ok(())
        };
        tables.write(keep).expect("written");
        assert_eq!(note(&[line(5, "debian", &[4])]), [4], "it is no lie for good");
        assert_eq!(note_at(7, &[line(far, "far", &[4])]), [4], "a clock that was never set");
        assert_eq!(note(&[line(6, "debian", &[4])]), [4], "and then it was");
        assert!(Arc::ptr_eq(&facts[&HostId(1)], &facts[&HostId(2)]), "the same lies there once");
    }
}
