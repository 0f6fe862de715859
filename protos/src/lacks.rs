//! Which pieces of a push a host lacks that was asked before.
//!
//! The pieces are those of the whole tree, in the order in which they travel; hosts say which runs
//! of them they have nowhere. On the wire these are lengths by turns: so many that are there, so
//! many that are not. So hosts that lack the same say the same bytes.

use std::ops::Range;

use crate::field::{at_most, ensure};
use crate::{FieldError, pb};

/// What a host that was asked lacks of the pieces of a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lacks {
    /// How many pieces the tree has.
    pub pieces: u32,
    /// Runs of those that are missing, in order; at most [`Lacks::RUNS`].
    pub runs: Vec<Range<u32>>,
}

impl Lacks {
    /// The most runs.
    pub const RUNS: usize = 1_024;

    /// Of pieces by their places, in order. Runs that are near each other become one if there would
    /// be too many: more is said to be missing then, never less.
    pub fn new(pieces: u32, missing: impl Iterator<Item = u32>) -> Lacks {
        let mut runs = Lacks::joined(missing.map(|at| at..at.saturating_add(1)), 0);
        let mut near = 1;
        while runs.len() > Lacks::RUNS {
            runs = Lacks::joined(runs, near);
            near = near.saturating_mul(2);
        }
        Lacks { pieces, runs }
    }

    /// Runs in the order of their beginnings, those as one that overlap or have at most so many
    /// pieces between them.
    pub fn joined(runs: impl IntoIterator<Item = Range<u32>>, near: u32) -> Vec<Range<u32>> {
        let mut joined: Vec<Range<u32>> = Vec::new();
        for run in runs {
            match joined.last_mut() {
                Some(last) if run.start <= last.end.saturating_add(near) => {
                    last.end = last.end.max(run.end);
                }
                _ => joined.push(run),
            }
        }
        joined
    }

    pub(crate) fn to_pb(&self) -> pb::Lacks {
        let mut lengths = Vec::with_capacity(2 * self.runs.len());
        let mut at = 0;
        for run in self.runs.iter().take(Lacks::RUNS) {
            lengths.extend([run.start.saturating_sub(at), run.end.saturating_sub(run.start)]);
            at = run.end;
        }
        pb::Lacks { pieces: self.pieces, lengths }
    }

    pub(crate) fn read(lacks: pb::Lacks) -> Result<Lacks, FieldError> {
        const FIELD: &str = "lacks.lengths";
        at_most(FIELD, lacks.lengths.len(), 2 * Lacks::RUNS)?;
        let mut runs = Vec::new();
        let mut at = 0_u32;
        let (pairs, rest) = lacks.lengths.as_chunks::<2>();
        ensure(rest.is_empty(), FIELD, "ends with what is there")?;
        for (n, [there, missing]) in pairs.iter().enumerate() {
            ensure(*missing > 0 && (*there > 0 || n == 0), FIELD, "has an empty run")?;
            let start = at.checked_add(*there);
            let end = start.and_then(|start| start.checked_add(*missing));
            let (Some(start), Some(end)) = (start, end) else {
                return Err(FieldError::Wrong { field: FIELD, fault: "are too long" });
            };
            ensure(end <= lacks.pieces, FIELD, "has more than there are")?;
            runs.push(start..end);
            at = end;
        }
        Ok(Lacks { pieces: lacks.pieces, runs })
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::btree_set;
    use proptest::prelude::*;

    use super::*;

    fn missing(lacks: &Lacks) -> Vec<u32> {
        lacks.runs.iter().cloned().flatten().collect()
    }

    proptest! {
        #[test]
        fn they_come_back_as_they_were(places in btree_set(0..5_000_u32, 0..200)) {
            let lacks = Lacks::new(5_000, places.iter().copied());
            prop_assert_eq!(missing(&lacks), places.into_iter().collect::<Vec<_>>());
            prop_assert_eq!(Lacks::read(lacks.to_pb()), Ok(lacks));
        }

        #[test]
        fn whatever_comes_is_read_or_refused(pieces: u32, lengths: Vec<u32>) {
            if let Ok(lacks) = Lacks::read(pb::Lacks { pieces, lengths }) {
                prop_assert!(lacks.runs.windows(2).all(|two| two[0].end < two[1].start));
                prop_assert!(lacks.runs.iter().all(|run| !run.is_empty() && run.end <= pieces));
            }
        }
    }

    #[test]
    fn too_many_runs_become_fewer_that_hold_them_all() {
        let lacks = Lacks::new(100_000, (0..100_000).step_by(7));
        assert!(lacks.runs.len() <= Lacks::RUNS);
        let all = missing(&lacks);
        assert!((0..100_000).step_by(7).all(|at| all.binary_search(&at).is_ok()));
        let odd = Lacks::new(100_000, (0..3_000).map(|n| n * n / 100));
        assert!(odd.runs.len() <= Lacks::RUNS);
        assert_eq!(Lacks::read(odd.to_pb()), Ok(odd));
    }

    #[test]
    fn what_is_no_list_of_runs_is_refused() {
        for lengths in [vec![1], vec![0, 0], vec![1, 1, 0, 1], vec![5, 6], vec![u32::MAX, 1]] {
            Lacks::read(pb::Lacks { pieces: 10, lengths: lengths.clone() })
                .expect_err(&format!("{lengths:?}"));
        }
    }
}
