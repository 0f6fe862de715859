//! Which objects of a full store go first: those that cost least to fetch again, for the room that
//! they take and for as long as nobody has used them.
//!
//! This is GreedyDual-Size (Cao and Irani, 1997). An object that is used is worth what a byte of it
//! costs to fetch, on top of a water level; the one of least worth goes, and the level rises to
//! its worth. So what is used is above what is not, and what is dear sinks more slowly, but sinks.
//! It needs no clock, and a few bytes for each object.
//!
//! Pure: what is pinned, and what the numbers are, is for the caller to say.

use crate::id::ContentId;

/// What it costs to fetch something again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Price {
    /// A round trip, in microseconds.
    pub trip_us: u64,
    /// What one MiB takes besides, in microseconds.
    pub mib_us: u64,
}

/// An object that may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spare {
    pub(super) id: ContentId,
    pub(super) len: u32,
    pub(super) worth: u64,
}

impl Price {
    /// What an object that is used at this water level is worth.
    pub(super) fn worth(self, level: u64, len: u32) -> u64 {
        let trip = u128::from(self.trip_us) << 20;
        let share = trip / u128::from(len.max(1)) + u128::from(self.mib_us);
        level.saturating_add(u64::try_from(share).unwrap_or(u64::MAX))
    }
}

/// What goes so that this many bytes come free, or all if they do not suffice; and the level then.
pub(super) fn choose(mut spare: Vec<Spare>, bytes: u64, level: u64) -> (Vec<ContentId>, u64) {
    spare.sort_unstable_by_key(|spare| (spare.worth, std::cmp::Reverse(spare.len), spare.id));
    let (mut gone, mut freed, mut level) = (Vec::new(), 0, level);
    for spare in spare {
        if freed >= bytes {
            break;
        }
        freed += u64::from(spare.len);
        level = level.max(spare.worth);
        gone.push(spare.id);
    }
    (gone, level)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const PRICE: Price = Price { trip_us: 100_000, mib_us: 800_000 };

    fn id(n: u8) -> ContentId {
        ContentId([n; 32])
    }

    /// A cache of so many bytes, of which `uses` are made in turn. Returns what is there at the
    /// end, with lengths.
    fn play(uses: &[u8], len: impl Fn(u8) -> u32, most: u64) -> BTreeMap<u8, u64> {
        let (mut worths, mut level) = (BTreeMap::<u8, u64>::new(), 0);
        for name in uses {
            let full: u64 = worths.keys().filter(|n| *n != name).map(|n| u64::from(len(*n))).sum();
            let over = (full + u64::from(len(*name))).saturating_sub(most);
            let spare = worths.iter().filter(|(n, _)| *n != name);
            let spare = spare.map(|(n, worth)| Spare { id: id(*n), len: len(*n), worth: *worth });
            let (gone, risen) = choose(spare.collect(), over, level);
            assert!(risen >= level, "the level never sinks");
            level = risen;
            worths.retain(|n, _| !gone.contains(&id(*n)));
            worths.insert(*name, PRICE.worth(level, len(*name)));
        }
        worths
    }

    #[test]
    fn small_objects_cost_more_by_the_byte_and_stay_longer() {
        let len = |name| if name < 10 { 1 << 20 } else { 16 << 10 };
        let small: Vec<u8> = (10..20).collect();
        let uses: Vec<u8> = small.iter().copied().chain([0, 1, 2, 3]).collect();
        let left = play(&uses, len, (2 << 20) + (200 << 10));
        assert_eq!(left.keys().copied().filter(|n| *n < 10).collect::<Vec<_>>(), [2, 3]);
        assert!(small.iter().all(|n| left.contains_key(n)), "{left:?}");
    }

    #[test]
    fn what_is_not_used_any_more_goes_in_the_end_however_dear() {
        let len = |name| if name == 0 { 1_000 } else { 1 << 20 };
        // Two hundred others in turn, through a cache of four.
        let others = (1..=200).cycle().take(200_000);
        let uses: Vec<u8> = std::iter::once(0).chain(others).collect();
        assert!(play(&uses[..50], len, 4 << 20).contains_key(&0));
        assert!(!play(&uses, len, 4 << 20).contains_key(&0));
    }

    proptest! {
        #[test]
        fn enough_goes_and_no_more_than_needed(
            lens in proptest::collection::vec((0u32..1000, 0u64..50), 0..40),
            bytes in 0u64..30_000,
        ) {
            let spare: Vec<_> = lens.iter().zip(0..).map(|((len, worth), n)| {
                Spare { id: id(n), len: *len, worth: *worth }
            }).collect();
            let find = |id: &ContentId| spare.iter().find(|spare| spare.id == *id);
            let of = |id: &ContentId| *find(id).expect("it is one of them");
            let all: u64 = spare.iter().map(|spare| u64::from(spare.len)).sum();
            let (gone, level) = choose(spare.clone(), bytes, 7);
            let freed: u64 = gone.iter().map(|id| u64::from(of(id).len)).sum();
            prop_assert!(freed >= bytes.min(all));
            if let Some((last, before)) = gone.split_last() {
                let before: u64 = before.iter().map(|id| u64::from(of(id).len)).sum();
                prop_assert!(before < bytes, "{last} need not have gone");
                prop_assert_eq!(level, of(last).worth.max(7));
            }
            // Nobody who stays is worth less than somebody who goes.
            let stays = spare.iter().filter(|spare| !gone.contains(&spare.id));
            let least = stays.map(|spare| spare.worth).min().unwrap_or(u64::MAX);
            prop_assert!(gone.iter().all(|id| of(id).worth <= least));
        }

        #[test]
        fn the_limit_holds_and_what_was_used_last_is_there(
            uses in proptest::collection::vec(0u8..20, 1..200),
            lens in proptest::collection::vec(1u32..1000, 20),
        ) {
            let left = play(&uses, |name| lens[usize::from(name)], 3000);
            let sum: u64 = left.keys().map(|name| u64::from(lens[usize::from(*name)])).sum();
            prop_assert!(sum <= 3000);
            prop_assert!(left.contains_key(uses.last().expect("at least one")));
        }
    }
}
