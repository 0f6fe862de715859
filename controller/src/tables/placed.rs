//! What hosts have in place, as far as they have said so, and the packs that lead there.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use content::ContentId;
use mesh::{Digest, HostId, Report, State};
use redb::{ReadableTable, TableDefinition, WriteTransaction};

use super::answers::BODIES;
use super::orders::order_row;
use super::{Result, Tables, json, parse};
use crate::packs::PackRow;

pub(super) const PLACED: TableDefinition<(&[u8], u32), [u8; 32]> =
    TableDefinition::new("controller.placed.v1");
/// Root of a tree, and whether what came after it was put in place as a whole.
type Before = ([u8; 32], bool);
/// What was there before.
pub(super) const PREVIOUS: TableDefinition<(&[u8], u32), Before> =
    TableDefinition::new("controller.previous.v1");
/// By the roots of base and target; that of no base is all zeros.
pub(super) const PACKS: TableDefinition<([u8; 32], [u8; 32]), &[u8]> =
    TableDefinition::new("controller.packs.v1");

impl Tables {
    /// What each host was last given at this destination.
    pub(crate) fn placed(&self, dest: &[u8]) -> Result<BTreeMap<HostId, Digest>> {
        let table = self.journal.read()?.open_table(PLACED)?;
        let rows = table.range((dest, 0)..=(dest, u32::MAX))?.map(|row| {
            let (key, root) = row?;
            Ok((HostId(key.value().1), Digest(root.value())))
        });
        rows.collect()
    }

    /// What each host had at this destination before, and whether it has kept it as a release.
    pub(crate) fn previous(&self, dest: &[u8]) -> Result<BTreeMap<HostId, (Digest, bool)>> {
        let table = self.journal.read()?.open_table(PREVIOUS)?;
        let rows = table.range((dest, 0)..=(dest, u32::MAX))?.map(|row| {
            let (key, row) = row?;
            let (root, tree) = row.value();
            Ok((HostId(key.value().1), (Digest(root), tree)))
        });
        rows.collect()
    }

    /// The trees that any host has said to have anywhere, and those that it had before.
    pub(crate) fn all_placed(&self) -> Result<BTreeSet<Digest>> {
        let table = self.journal.read()?.open_table(PLACED)?;
        let mut trees = BTreeSet::new();
        for row in table.iter()? {
            trees.insert(Digest(row?.1.value()));
        }
        let table = self.journal.read()?.open_table(PREVIOUS)?;
        for row in table.iter()? {
            trees.insert(Digest(row?.1.value().0));
        }
        Ok(trees)
    }

    /// The pack that takes one tree to another, if it was made before.
    pub(crate) fn pack(&self, key: (Option<ContentId>, ContentId)) -> Result<Option<PackRow>> {
        let table = self.journal.read()?.open_table(PACKS)?;
        Ok(table.get(pack_key(key))?.map(|row| parse(row.value())))
    }

    pub(crate) fn set_pack(
        &self,
        key: (Option<ContentId>, ContentId),
        row: &PackRow,
    ) -> Result<()> {
        let txn = self.journal.begin()?;
        txn.open_table(PACKS)?.insert(pack_key(key), json(row).as_slice())?;
        txn.commit()?;
        Ok(())
    }

    /// Drops the packs that `keep` does not want. Returns how many.
    pub(crate) fn retain_packs(&self, keep: impl Fn(&PackRow) -> bool) -> Result<usize> {
        let mut gone = Vec::new();
        for row in self.journal.read()?.open_table(PACKS)?.iter()? {
            let (key, row) = row?;
            gone.extend((!keep(&parse(row.value()))).then(|| key.value()));
        }
        if !gone.is_empty() {
            let txn = self.journal.begin()?;
            for key in &gone {
                txn.open_table(PACKS)?.remove(key)?;
            }
            txn.commit()?;
        }
        Ok(gone.len())
    }
}

/// A host that has said ok to a push has the push's manifest at its destination.
pub(super) fn note_placed(txn: &WriteTransaction, report: &Report) -> Result<()> {
    let Some(row) = order_row(txn, report.order)? else { return Ok(()) };
    let Some(push) = row.push.filter(|push| !push.verify) else { return Ok(()) };
    let Ok(root) = push.manifest.parse::<ContentId>() else { return Ok(()) };
    let mut placed = txn.open_table(PLACED)?;
    let mut previous = txn.open_table(PREVIOUS)?;
    let bodies = txn.open_table(BODIES)?;
    for (outcome, hosts) in report.tally.lines() {
        // A command may have failed when all was in place already.
        let mut said = None;
        if let Some(digest) = outcome.body.filter(|_| outcome.state != State::Ok) {
            let body = bodies.get((report.order.0, digest.0))?;
            said = body.map(|body| protos::Answer::decode(Bytes::copy_from_slice(body.value())));
        }
        let placed_it = matches!(said, Some(Ok(protos::Answer { push: Some(_), .. })));
        for host in hosts.iter() {
            match outcome.state {
                state if state == State::Ok || placed_it => {
                    let key = (push.dest.as_bytes(), host.0);
                    let before = placed.insert(key, root.0)?.map(|before| before.value());
                    if let Some(before) = before.filter(|before| *before != root.0) {
                        previous.insert(key, (before, push.tree))?;
                    }
                }
                // Nobody knows what is there now.
                State::Interrupted => {
                    placed.remove((push.dest.as_bytes(), host.0))?;
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn pack_key((base, target): (Option<ContentId>, ContentId)) -> ([u8; 32], [u8; 32]) {
    (base.map_or([0; 32], |base| base.0), target.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn before_the_first_push_nothing_was_anywhere() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let journal = relay::Journal::open(&dir.path().join("db"), 1 << 20);
        let journal = journal.expect("opens");
        let tables = Tables::open(journal).expect("they are made");
        assert_eq!(tables.placed(b"/srv").expect("reads"), BTreeMap::new());
        assert_eq!(tables.previous(b"/srv").expect("reads"), BTreeMap::new());
        assert_eq!(tables.all_placed().expect("reads"), BTreeSet::new());
    }
}
