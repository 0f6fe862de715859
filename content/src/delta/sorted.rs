//! Old bytes, sorted so that the longest match for new ones is found quickly.
//!
//! A suffix array (by `divsufsort`) with two shortcuts: a table of where the suffixes with each
//! first two bytes begin, and a bitmap of all runs of eight bytes that there are, hashed. Most new
//! bytes begin no run of eight that is in the old ones, and then there is nothing to search.
//!
//! It takes up to seven bytes for each old byte; that is why callers cap the length. And it takes
//! time, so it is only done when somebody searches: new bytes that have nothing in common with the
//! old ones are told by a [sample](super::sample).

use std::sync::OnceLock;

use super::sample::{self, Sample};

/// Matches shorter than this are not found, nor would anybody use them.
pub(super) const SHORTEST: usize = 8;
/// Matches are followed no further than this; a longer one is found in pieces.
const LONGEST: usize = 64 << 10;

/// Old bytes and, once it was asked for, their order.
pub(super) struct Sorted {
    old: Vec<u8>,
    sample: OnceLock<Sample>,
    index: OnceLock<Index>,
}

struct Index {
    order: Vec<i32>,
    starts: Vec<u32>,
    grams: Vec<u64>,
    shift: u32,
}

impl Index {
    /// Of 2 GiB at most.
    fn of(old: &[u8]) -> Index {
        let mut order = vec![0; old.len()];
        divsufsort::sort_in_place(old, &mut order);
        let bits = (old.len().max(64) * 8).next_power_of_two().ilog2();
        let shift = 64 - bits;
        let mut grams = vec![0; 1 << (bits - 6)];
        for gram in old.windows(SHORTEST) {
            let at = hash(gram, shift);
            grams[at / 64] |= 1 << (at % 64);
        }
        Index { order, starts: starts(old), grams, shift }
    }
}

impl Sorted {
    /// Of 2 GiB at most.
    pub(super) fn new(old: Vec<u8>) -> Sorted {
        Sorted { old, sample: OnceLock::new(), index: OnceLock::new() }
    }

    /// The old bytes.
    pub(super) fn old(&self) -> &[u8] {
        &self.old
    }

    /// Whether it is worth searching for the new bytes in the old ones.
    pub(super) fn is_like(&self, new: &[u8]) -> bool {
        let sample = || self.sample.get_or_init(|| Sample::of(&self.old));
        new.len() < sample::SHORTEST || sample().is_like(new)
    }

    /// Where in the old bytes the longest match for the beginning of `new` is, and how long it
    /// is; of no length if there is none of at least [`SHORTEST`] bytes.
    pub(super) fn longest(&self, new: &[u8]) -> (usize, usize) {
        let Some(gram) = new.get(..SHORTEST) else { return (0, 0) };
        let Index { order, starts, grams, shift } = self.index.get_or_init(|| Index::of(&self.old));
        let at = hash(gram, *shift);
        if grams[at / 64] & 1 << (at % 64) == 0 {
            return (0, 0);
        }
        let key = usize::from(new[0]) << 8 | usize::from(new[1]);
        let (mut low, mut high) = (starts[key] as usize, starts[key + 1] as usize);
        // What the suffixes just outside the range are known to share with the new bytes.
        let (mut before, mut after) = (2, 2);
        let mut best = (0, 0);
        while low < high {
            let middle = low + (high - low) / 2;
            let position = order[middle] as usize;
            let known = before.min(after).min(self.old.len() - position);
            let suffix = &self.old[position + known..];
            let length = known + common(suffix, &new[known..]);
            if length > best.1 {
                best = (position, length);
            }
            // A suffix that ends is smaller than anything that goes on.
            let next = (self.old.get(position + length), new.get(length));
            match next {
                _ if length >= LONGEST => break,
                (Some(old), Some(new)) if old > new => (high, after) = (middle, length),
                (_, None) => break,
                _ => (low, before) = (middle + 1, length),
            }
        }
        if best.1 < SHORTEST { (0, 0) } else { best }
    }
}

/// For each first two bytes the index of the first suffix; one more entry ends the last.
fn starts(old: &[u8]) -> Vec<u32> {
    let mut starts = vec![0_u32; 0x1_0001];
    for pair in old.windows(2) {
        starts[(usize::from(pair[0]) << 8 | usize::from(pair[1])) + 1] += 1;
    }
    let mut sum = 0;
    for start in &mut starts {
        sum += *start;
        *start = sum;
    }
    // The suffix of one byte is the first of those that begin with this byte.
    if let Some(last) = old.last() {
        starts[usize::from(*last) << 8..].iter_mut().for_each(|start| *start += 1);
    }
    starts
}

fn hash(gram: &[u8], shift: u32) -> usize {
    let gram: [u8; SHORTEST] = gram.try_into().expect("it is as long as the shortest match");
    (u64::from_le_bytes(gram).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> shift) as usize
}

/// How many bytes two slices share at their front, up to [`LONGEST`].
pub(super) fn common(a: &[u8], b: &[u8]) -> usize {
    let shorter = a.len().min(b.len()).min(LONGEST);
    let (a, b) = (&a[..shorter], &b[..shorter]);
    let words = a.chunks_exact(8).zip(b.chunks_exact(8));
    let mut shared = 8 * words.take_while(|(a, b)| a == b).count();
    while shared < shorter && a[shared] == b[shared] {
        shared += 1;
    }
    shared
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::delta::diff::Changes;

    fn check(old: &[u8], new: &[u8]) {
        let sorted = Sorted::new(old.to_vec());
        let (position, length) = sorted.longest(new);
        let shared = |at: usize| common(&old[at..], new);
        let longest = (0..old.len()).map(shared).max().unwrap_or(0);
        let expected = if longest < SHORTEST { 0 } else { longest };
        assert_eq!(length, expected, "{old:?} {new:?}");
        assert!(length == 0 || shared(position) == length);
    }

    proptest! {
        #[test]
        fn the_longest_match_is_found(
            old in prop::collection::vec(0_u8..3, 0..200),
            new in prop::collection::vec(0_u8..3, 0..40),
            at in any::<prop::sample::Index>(),
        ) {
            check(&old, &new);
            let at = at.index(old.len() + 1);
            check(&old, &[&old[at..], new.as_slice()].concat());
        }
    }

    #[test]
    fn what_has_nothing_in_common_is_not_searched_for() {
        use crate::delta::{encode::changes, tests::noise};
        let (old, new) = (noise(1, 1 << 20), noise(2, 1 << 20));
        let sorted = Sorted::new(old.clone());
        assert_eq!(changes(&sorted, 0, &new).weight(), Changes::literal(&new).weight());
        assert!(sorted.index.get().is_none());
        let moved = [&new[..300_000], &old[200_000..230_000], &new[300_000..]].concat();
        assert!(changes(&sorted, 0, &moved).weight() < new.len() + 1_000);
        assert!(sorted.index.get().is_some());
    }

    #[test]
    fn the_ends_are_found_too() {
        for byte in [0, 7, 255] {
            check(&[byte; 40], &[byte; 50]);
            check(&[byte; 50], &[byte; 40]);
        }
        check(b"", b"something new");
        check(b"the very end", b"the very end");
    }
}
