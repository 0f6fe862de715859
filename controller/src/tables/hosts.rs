//! The inventory: hosts, the tokens by which they come, and the keys of those that are removed.

use std::collections::{BTreeMap, BTreeSet};

use mesh::{HostId, HostSet};
use protos::{REMOVED_KEYS, Removals, Schedule};
use redb::{ReadableTable, WriteTransaction};

use super::{
    COUNTS, HOSTS, HostRow, LABELS, Labels, NAMES, PLACED, REMOVED, RemovedRow, Result, TOKENS,
    TRAFFIC, Tables, TokenRow, json, parse,
};

impl Tables {
    pub(crate) fn hosts(&self) -> Result<BTreeMap<HostId, HostRow>> {
        let table = self.journal.read()?.open_table(HOSTS)?;
        let mut hosts = BTreeMap::new();
        for row in table.iter()? {
            let (id, row) = row?;
            hosts.insert(HostId(id.value()), parse(row.value()));
        }
        Ok(hosts)
    }

    /// The labels of all hosts that have some.
    pub(crate) fn labels(&self) -> Result<BTreeMap<HostId, Labels>> {
        let table = self.journal.read()?.open_table(LABELS)?;
        let rows = table.iter()?.map(|row| {
            let (id, row) = row?;
            Ok((HostId(id.value()), parse(row.value())))
        });
        rows.collect()
    }

    /// Changes the labels of hosts, all in one transaction, or nothing if `change` refuses one.
    pub(crate) fn change_labels<E>(
        &self,
        hosts: &HostSet,
        change: impl Fn(HostId, &mut Labels) -> std::result::Result<(), E>,
    ) -> Result<std::result::Result<(), E>> {
        let txn = self.journal.begin()?;
        {
            let mut table = txn.open_table(LABELS)?;
            for id in hosts.iter() {
                let mut labels: Labels =
                    table.get(id.0)?.map(|row| parse(row.value())).unwrap_or_default();
                if let Err(error) = change(id, &mut labels) {
                    return Ok(Err(error));
                }
                if labels.is_empty() {
                    table.remove(id.0)?;
                } else {
                    table.insert(id.0, json(&labels).as_slice())?;
                }
            }
        }
        txn.commit()?;
        Ok(Ok(()))
    }

    pub(crate) fn token(&self, id: [u8; 8]) -> Result<Option<TokenRow>> {
        let table = self.journal.read()?.open_table(TOKENS)?;
        Ok(table.get(id)?.map(|row| parse(row.value())))
    }

    pub(crate) fn tokens(&self) -> Result<Vec<([u8; 8], TokenRow)>> {
        let table = self.journal.read()?.open_table(TOKENS)?;
        let rows = table.iter()?.map(|row| {
            let (id, row) = row?;
            Ok((id.value(), parse(row.value())))
        });
        rows.collect()
    }

    pub(crate) fn set_token(&self, id: [u8; 8], token: &TokenRow) -> Result<()> {
        let txn = self.journal.begin()?;
        txn.open_table(TOKENS)?.insert(id, json(token).as_slice())?;
        txn.commit()?;
        Ok(())
    }

    /// Returns whether there was such a token.
    pub(crate) fn remove_token(&self, id: [u8; 8]) -> Result<bool> {
        let txn = self.journal.begin()?;
        let known = txn.open_table(TOKENS)?.remove(id)?.is_some();
        txn.commit()?;
        Ok(known)
    }

    /// Decides on a newcomer in one transaction: `decide` sees the token, the id and row of the
    /// host that has the name now, and the next free id, and says what to write. A host that comes
    /// with another key needs room for the old one among those removed since `since_ms`; without it
    /// `full` says why it is refused.
    pub(crate) fn enrol<E>(
        &self,
        token: [u8; 8],
        name: &str,
        (since_ms, full): (u64, impl FnOnce() -> E),
        decide: impl FnOnce(Option<TokenRow>, Option<(u32, HostRow)>, u32) -> Enrolment<E>,
    ) -> Result<std::result::Result<(u32, HostRow), E>> {
        let txn = self.journal.begin()?;
        let decided = {
            let mut hosts = txn.open_table(HOSTS)?;
            let mut names = txn.open_table(NAMES)?;
            let mut tokens = txn.open_table(TOKENS)?;
            let row = tokens.get(token)?.map(|row| parse::<TokenRow>(row.value()));
            let holder = names.get(name)?.map(|id| id.value());
            let holder: Option<(u32, HostRow)> = match holder {
                Some(id) => hosts.get(id)?.map(|row| (id, parse(row.value()))),
                None => None,
            };
            let last = hosts.last()?.map_or(0, |(id, _)| id.value());
            // The number of a host that was removed is never given again.
            let most = txn.open_table(COUNTS)?.get(LAST_HOST)?.map_or(0, |id| id.value());
            let next = last.max(u32::try_from(most).unwrap_or(u32::MAX)).saturating_add(1);
            let old = holder.as_ref().map(|(id, row)| (*id, row.clone()));
            match decide(row, holder, next) {
                Enrolment::Refuse(error) => Err(error),
                Enrolment::Accept(accepted) => {
                    let Accepted { id, host, token: used } = *accepted;
                    // Whoever has the old disk of a host that was installed anew is not the host.
                    if let Some((id, old)) = old.filter(|(_, old)| old.key != host.key) {
                        if removed_since(&txn.open_table(REMOVED)?, since_ms)?.len() >= REMOVED_KEYS
                        {
                            return Ok(Err(full()));
                        }
                        note_removed(&txn, id, &old, host.enrolled_ms)?;
                        // Nor has it said yet what it is now.
                        txn.open_table(super::facts::FACTS)?.remove(id)?;
                    }
                    hosts.insert(id, json(&host).as_slice())?;
                    names.insert(name, id)?;
                    tokens.insert(token, json(&used).as_slice())?;
                    Ok((id, host))
                }
            }
        };
        if decided.is_ok() {
            txn.commit()?;
        }
        Ok(decided)
    }

    /// Takes hosts out of the inventory, with their keys. Returns those that were in it.
    pub(crate) fn remove_hosts(&self, ids: &HostSet, now_ms: u64) -> Result<Vec<HostRow>> {
        let txn = self.journal.begin()?;
        let mut gone = Vec::new();
        {
            let (mut hosts, mut names) = (txn.open_table(HOSTS)?, txn.open_table(NAMES)?);
            let (mut traffic, mut labels) = (txn.open_table(TRAFFIC)?, txn.open_table(LABELS)?);
            for id in ids.iter() {
                let row = hosts.remove(id.0)?.map(|row| parse::<HostRow>(row.value()));
                let Some(row) = row else { continue };
                names.remove(row.name.as_str())?;
                traffic.remove(id.0)?;
                labels.remove(id.0)?;
                txn.open_table(super::facts::FACTS)?.remove(id.0)?;
                txn.open_table(super::alerting::CERTIFICATES)?.remove(id.0)?;
                note_removed(&txn, id.0, &row, now_ms)?;
                gone.push(row);
            }
            txn.open_table(PLACED)?.retain(|(_, id), _| !ids.contains(HostId(id)))?;
        }
        txn.commit()?;
        Ok(gone)
    }

    /// The version of the list of removed keys, and those that were removed at this time or later.
    pub(crate) fn removed(&self, since_ms: u64) -> Result<(u64, BTreeSet<[u8; 32]>)> {
        let txn = self.journal.read()?;
        let version = txn.open_table(COUNTS)?.get(REMOVALS)?.map_or(0, |version| version.value());
        Ok((version, removed_since(&txn.open_table(REMOVED)?, since_ms)?))
    }

    /// The mesh is to know this schedule: with another than before the list of removed keys, with
    /// which it travels, has another version.
    pub(crate) fn note_schedule(&self, schedule: &Schedule) -> Result<()> {
        let mut start = [0; 8];
        let text = Removals { schedule: schedule.clone(), ..Removals::default() }.encode();
        start.copy_from_slice(&relay::hash(&text).0[..8]);
        let hash = if *schedule == Schedule::default() { 0 } else { u64::from_le_bytes(start) };
        let known = self.journal.read()?.open_table(COUNTS)?.get(SCHEDULE)?.map(|row| row.value());
        if known.unwrap_or(0) == hash {
            return Ok(());
        }
        let txn = self.journal.begin()?;
        {
            let mut counts = txn.open_table(COUNTS)?;
            counts.insert(SCHEDULE, hash)?;
            let version = counts.get(REMOVALS)?.map_or(0, |version| version.value());
            counts.insert(REMOVALS, version + 1)?;
        }
        txn.commit()?;
        Ok(())
    }

    /// Certificates are made for so long from now on. Returns the longest for which any was ever
    /// made: a removed key may have one of those.
    pub(crate) fn note_lifetime(&self, lifetime_ms: u64) -> Result<u64> {
        let known = self.journal.read()?.open_table(COUNTS)?.get(LIFETIME)?.map(|row| row.value());
        // Nothing is written without need: a controller must start while its disk is full.
        if let Some(known) = known.filter(|known| *known >= lifetime_ms) {
            return Ok(known);
        }
        let txn = self.journal.begin()?;
        txn.open_table(COUNTS)?.insert(LIFETIME, lifetime_ms)?;
        txn.commit()?;
        Ok(lifetime_ms)
    }

    /// Whether a key was removed.
    pub(crate) fn is_removed(&self, key: &[u8; 32]) -> Result<bool> {
        Ok(self.journal.read()?.open_table(REMOVED)?.get(key)?.is_some())
    }
}

pub(super) const REMOVALS: &str = "removals";
pub(super) const LAST_HOST: &str = "last-host";
const LIFETIME: &str = "longest-certificate-ms";
/// The hash of the schedule that the mesh knows; 0: it knows none.
const SCHEDULE: &str = "schedule";

/// The keys that were removed at this time or later.
fn removed_since(
    table: &impl ReadableTable<[u8; 32], &'static [u8]>,
    since_ms: u64,
) -> Result<BTreeSet<[u8; 32]>> {
    let mut keys = BTreeSet::new();
    for row in table.iter()? {
        let (key, row) = row?;
        if parse::<RemovedRow>(row.value()).removed_ms >= since_ms {
            keys.insert(key.value());
        }
    }
    Ok(keys)
}

/// Enters a host's key among those that are removed.
fn note_removed(txn: &WriteTransaction, id: u32, host: &HostRow, now_ms: u64) -> Result<()> {
    let row = RemovedRow { id, name: host.name.clone(), removed_ms: now_ms };
    txn.open_table(REMOVED)?.insert(host.key, json(&row).as_slice())?;
    let mut counts = txn.open_table(COUNTS)?;
    let version = counts.get(REMOVALS)?.map_or(0, |version| version.value());
    counts.insert(REMOVALS, version + 1)?;
    let most = counts.get(LAST_HOST)?.map_or(0, |most| most.value());
    counts.insert(LAST_HOST, most.max(id.into()))?;
    Ok(())
}

/// What becomes of a newcomer.
pub(crate) enum Enrolment<E> {
    /// Nothing is written.
    Refuse(E),
    /// The host is entered and the token marked.
    Accept(Box<Accepted>),
}

/// A newcomer's number and row, and the token as it is now.
pub(crate) struct Accepted {
    pub(crate) id: u32,
    pub(crate) host: HostRow,
    pub(crate) token: TokenRow,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, key: u8) -> HostRow {
        let (name, role) = (name.into(), "host".into());
        HostRow { name, site: String::new(), role, key: [key; 32], enrolled_ms: 500 }
    }

    #[test]
    fn a_host_that_is_installed_anew_needs_room_among_the_removed_keys() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let journal = relay::Journal::open(&dir.path().join("db"), 1 << 20).expect("opens");
        let tables = Tables::open(journal.clone()).expect("opens");
        let token = TokenRow {
            check: [0; 32],
            role: "host".into(),
            site: String::new(),
            name: "db1".into(),
            expires_ms: 1_000,
            used_by: None,
        };
        let enrol = |key, since_ms| {
            let accepted = Accepted { id: 1, host: host("db1", key), token: token.clone() };
            let full = (since_ms, || "full");
            let decide = |_, _, _| Enrolment::Accept(Box::new(accepted));
            tables.enrol([7; 8], "db1", full, decide).expect("the tables work")
        };
        assert!(enrol(1, 0).is_ok());
        let txn = journal.begin().expect("begins");
        for n in 0..REMOVED_KEYS as u32 {
            let mut old = host("old", 0);
            old.key[..4].copy_from_slice(&n.to_be_bytes());
            note_removed(&txn, n, &old, 100).expect("noted");
        }
        txn.commit().expect("commits");
        assert!(enrol(1, 0).is_ok(), "the same key again needs no room");
        assert_eq!(enrol(2, 0), Err("full"));
        assert_eq!(tables.hosts().expect("reads")[&HostId(1)].key, [1; 32]);
        assert!(enrol(2, 101).is_ok(), "their certificates have ended by now");
        assert_eq!(tables.removed(101).expect("reads").1, BTreeSet::from([[1; 32]]));
    }

    #[test]
    fn another_schedule_is_another_version() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let journal = relay::Journal::open(&dir.path().join("db"), 1 << 20).expect("opens");
        let tables = Tables::open(journal).expect("opens");
        let hourly = timing::Times::new("0 * * * *", "UTC");
        let frequencies = [("hour".to_owned(), hourly)].into();
        let (none, some) = (Schedule::default(), Schedule { frequencies, ..Schedule::default() });
        let versions = [&none, &some, &some, &none, &none].map(|schedule| {
            tables.note_schedule(schedule).expect("noted");
            tables.removed(0).expect("reads").0
        });
        assert_eq!(versions, [0, 1, 1, 2, 2]);
    }

    #[test]
    fn the_longest_lifetime_is_never_forgotten() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let journal = relay::Journal::open(&dir.path().join("db"), 1 << 20).expect("opens");
        let tables = Tables::open(journal).expect("opens");
        let noted = [5, 9, 3].map(|ms| tables.note_lifetime(ms).expect("noted"));
        assert_eq!(noted, [5, 9, 9]);
    }
}
