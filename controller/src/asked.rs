//! What hosts have said they lack of a tree that is about to be pushed.
//!
//! The idea: of hosts that were never pushed to the controller knows nothing, though they may have
//! nearly all of it. If they were asked first, the pieces that at least one of them lacks are
//! packed for all of them. It is a guess all the same: what has changed since is fetched piece by
//! piece.

use std::ops::Range;

use content::{ContentId, Manifest};
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
        let Some(row) = self.tables.order(order)? else { return Ok(None) };
        let root = root.to_string();
        let same = |push: &crate::types::PushInfo| push.dest == dest && push.manifest == root;
        if !row.push.is_some_and(|push| push.verify && same(&push)) {
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
                runs.extend(lacks.runs);
            }
        }
        Ok((!hosts.is_empty()).then(|| Asked { hosts, runs: union(runs) }))
    }
}

/// All runs, in order and apart from each other.
fn union(runs: Vec<Range<u32>>) -> Vec<Range<usize>> {
    let mut places: Vec<_> = runs;
    places.sort_unstable_by_key(|run| run.start);
    let mut all = Lacks::joined(places, 0);
    let mut near = 1;
    while all.len() > RUNS {
        all = Lacks::joined(all, near);
        near = near.saturating_mul(2);
    }
    all.into_iter().map(|run| run.start as usize..run.end as usize).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_of_them_lacks_is_packed_for_all() {
        assert_eq!(union(vec![5..7, 0..2, 6..9, 2..3, 20..21]), [0..3, 5..9, 20..21]);
        assert_eq!(union(vec![0..10, 3..4, 20..21]), [0..10, 20..21]);
        let many = (0..2_000).map(|n| 5 * n..5 * n + 1).collect();
        let few = union(many);
        assert!(few.len() <= RUNS && few[0].start == 0, "{}", few.len());
        assert_eq!(few.last().map(|run| run.end), Some(9_996));
    }
}
