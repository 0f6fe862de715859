//! What hosts have said they lack of a tree that is about to be pushed.
//!
//! The idea: of hosts that were never pushed to the controller knows nothing, though they may have
//! nearly all of it. If they were asked first, the pieces that at least one of them lacks are
//! packed for all of them. It is a guess all the same: what has changed since is fetched piece by
//! piece.

use std::ops::Range;
use std::path::Path;

use content::{ContentId, Entry, Manifest};
use mesh::{HostSet, OrderId, State};
use protos::Lacks;

use crate::fault::Failure;
use crate::push::Packer;

/// More runs than this become fewer: each is an object of its own on its way.
const RUNS: usize = 256;

/// Hosts that were asked.
pub(crate) struct Asked {
    pub(crate) hosts: HostSet,
    /// Runs of the pieces that one of them lacks, by their places in the plan of the whole tree.
    pub(crate) runs: Vec<Range<usize>>,
}

impl Packer {
    /// What the answers to a preflight say of this tree at this destination. Of another tree, or of
    /// nothing that is known, they say nothing.
    pub(crate) fn asked(
        &self,
        order: OrderId,
        dest: &str,
        (root, target): (ContentId, &Manifest),
    ) -> Result<Option<Asked>, Failure> {
        if self.asked_about(order, dest)? != Some(root) {
            return Ok(None);
        }
        let pieces = content::plan(None, target).len();
        let (mut hosts, mut runs) = (HostSet::new(), Vec::new());
        let (tally, _) = self.tables.tally(order)?;
        for (outcome, who) in tally.lines().filter(|(outcome, _)| outcome.state == State::Ok) {
            let Some(digest) = outcome.body else { continue };
            let body = self.tables.body(order, digest)?.map(protos::Answer::decode);
            let Some(Ok(protos::Answer { push: Some(push), .. })) = body else { continue };
            // An older host has compared, and does not say it.
            if let Some(lacks) = push.lacks.filter(|lacks| lacks.pieces as usize == pieces) {
                hosts = hosts.union(who);
                runs = union(runs, lacks.runs);
            }
        }
        Ok((!hosts.is_empty()).then(|| Asked { hosts, runs: few(runs) }))
    }

    /// The tree that hosts were asked about, if all of it is still here: what they have said holds
    /// for that one, and nobody has to read it again.
    pub(crate) fn asked_tree(
        &self,
        order: OrderId,
        (source, dest): (&Path, &str),
    ) -> Result<Option<Manifest>, Failure> {
        let row = self.tables.order(order)?;
        if row.is_none_or(|row| row.what != question(source, dest)) {
            return Ok(None);
        }
        let Some(root) = self.asked_about(order, dest)? else { return Ok(None) };
        let Some(manifest) = self.manifest(root)? else { return Ok(None) };
        for chunk in manifest.entries.iter().flat_map(Entry::chunks) {
            let is_here = self.store.has(&chunk.id);
            if !is_here.map_err(|error| Failure::content(&error))? {
                return Ok(None);
            }
        }
        Ok(Some(manifest))
    }

    /// The root of the tree that a preflight was about, if it was about this destination.
    fn asked_about(&self, order: OrderId, dest: &str) -> Result<Option<ContentId>, Failure> {
        let push = self.tables.order(order)?.and_then(|row| row.push);
        let push = push.filter(|push| push.verify && push.dest == dest);
        Ok(push.and_then(|push| push.manifest.parse().ok()))
    }
}

/// A preflight in one line.
pub(crate) fn question(source: &Path, dest: &str) -> String {
    format!("preflight {} -> {dest}", source.display())
}

/// Runs of both, in order and apart from each other.
fn union(one: Vec<Range<u32>>, other: Vec<Range<u32>>) -> Vec<Range<u32>> {
    let mut all = [one, other].concat();
    all.sort_unstable_by_key(|run| run.start);
    Lacks::joined(all, 0)
}

/// The same with what is between them, if there are too many.
fn few(runs: Vec<Range<u32>>) -> Vec<Range<usize>> {
    let mut all = runs;
    let mut near = 1;
    while all.len() > RUNS {
        all = Lacks::joined(all, near);
        near = near.saturating_mul(2);
    }
    all.into_iter().map(|run| run.start as usize..run.end as usize).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use std::fs;
    use tokio::sync::mpsc;

    use super::*;
    use crate::tables::OrderRow;
    use crate::types::NewPush;

    #[test]
    fn the_tree_that_hosts_were_asked_about_is_pushed_and_not_read_again() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let packer = Packer::in_folder(dir.path());
        let source = dir.path().join("source");
        fs::write(&source, "one").expect("writes");
        let new = json!({
            "targets": { "all": true }, "source": source, "dest": "/srv/x", "verify": true,
            "preflight": true, "reach_ms": 1, "hold_ms": 1,
        });
        let new: NewPush = serde_json::from_value(new).expect("a push");
        let (tell, _told) = mpsc::channel(8);
        let asked = packer.pack(&new, HostSet::from_ranges([(1, 1)]), &tell).expect("packs");
        let (id, draft) = (OrderId([7; 16]), asked.draft);
        let row = OrderRow { what: draft.what, push: draft.push, ..OrderRow::default() };
        packer.tables.add_order(id, &row, b"", None).expect("noted");

        fs::write(&source, "two").expect("writes");
        let asked_in = Some(id.to_string());
        let new = NewPush { verify: false, preflight: false, asked: asked_in, ..new };
        let step = |new: &NewPush| packer.step(new, &tell).expect("read").manifest;
        assert_eq!(step(&new), asked.manifest);
        let elsewhere = NewPush { dest: "/srv/y".into(), ..new.clone() };
        assert_ne!(step(&elsewhere), asked.manifest, "it was about another place");
        let pieces = asked.manifest.entries.iter().flat_map(Entry::chunks);
        packer.store.remove(&pieces.map(|chunk| chunk.id).collect::<Vec<_>>()).expect("removes");
        assert_ne!(step(&new), asked.manifest, "what has gone is read again");
    }

    #[test]
    fn what_one_of_them_lacks_is_packed_for_all() {
        assert_eq!(union(vec![0..2, 5..7, 20..21], vec![2..3, 6..9]), [0..3, 5..9, 20..21]);
        assert_eq!(union(vec![0..10, 20..21], vec![3..4, 4..5]), [0..10, 20..21]);
        let few = few((0..2_000).map(|n| 5 * n..5 * n + 1).collect());
        assert!(few.len() <= RUNS && few[0].start == 0, "{}", few.len());
        assert_eq!(few.last().map(|run| run.end), Some(9_996));
    }
}
