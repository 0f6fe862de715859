//! Tests of `room`: whole stores with limits.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::outline::{GROUP, Outline};

const PRICE: Price = Price { trip_us: 100_000, mib_us: 800_000 };
const LARGE: u64 = 64 << 10;

fn object(seed: u64, len: u64) -> (ContentId, Vec<u8>) {
    let mut bytes = vec![0; usize::try_from(len).expect("short")];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    (ContentId::of(&bytes), bytes)
}

/// Needs what it says, and keeps what is named so.
struct Test(Arc<Mutex<BTreeSet<ContentId>>>, BTreeSet<ContentId>);

impl Owner for Test {
    fn needed(&self) -> Option<BTreeSet<ContentId>> {
        Some(lock(&self.0).clone())
    }

    fn keeps(&self, id: &ContentId) -> bool {
        self.1.contains(id)
    }
}

/// A store of so many bytes, and what its owner needs.
fn store(dir: &tempfile::TempDir, max: u64) -> (Store, Arc<Mutex<BTreeSet<ContentId>>>) {
    let store = Store::open(dir.path()).expect("opens");
    let needed = Arc::new(Mutex::new(BTreeSet::new()));
    store.bound(Bounds { max, price: PRICE, ..Bounds::default() });
    store.own(Box::new(Test(needed.clone(), BTreeSet::from([object(0, 100).0]))));
    (store, needed)
}

#[test]
fn what_nobody_needs_makes_room_and_what_is_used_goes_last() {
    let dir = tempfile::tempdir().expect("temp");
    let (store, needed) = store(&dir, 10 * LARGE);
    let all: Vec<_> = (0..10).map(|seed| object(seed, LARGE)).collect();
    all.iter().for_each(|(id, bytes)| store.put(*id, bytes).expect("puts"));
    lock(&needed).insert(all[0].0);
    let pinned = store.pin([all[1].0]);
    // Once more than one was dropped, what is used is worth more than what is not.
    let (more, bytes) = object(100, LARGE);
    store.put(more, &bytes).expect("there is room");
    assert!(store.usage().expect("usage").bytes <= 10 * LARGE);
    let has = |id: &ContentId| store.has(id).expect("has");
    let left: Vec<_> = all[2..].iter().map(|(id, _)| *id).filter(has).collect();
    assert_eq!(left.len(), 6, "one that had to go, and one besides");
    assert!(store.get(&left[0]).expect("reads").is_some(), "it is used");
    for seed in 200..203 {
        let (id, bytes) = object(seed, 2 * LARGE);
        lock(&needed).insert(id);
        store.put(id, &bytes).expect("there is room");
        assert!(has(&left[0]), "it goes after the others");
    }
    assert!(left[1..].iter().filter(|id| has(id)).count() < 3);
    assert!(store.has(&all[0].0).expect("has") && store.has(&all[1].0).expect("has"));
    drop(pinned);
}

#[test]
fn what_would_fit_is_told_without_dropping_anything() {
    let dir = tempfile::tempdir().expect("temp");
    let (store, needed) = store(&dir, 3 * LARGE);
    let all: Vec<_> = (0..3).map(|seed| object(seed, LARGE)).collect();
    all.iter().for_each(|(id, bytes)| store.put(*id, bytes).expect("puts"));
    lock(&needed).insert(all[0].0);
    store.would_fit(2 * LARGE).expect("two are not needed");
    let error = store.would_fit(3 * LARGE).expect_err("one is");
    assert!(matches!(error, StoreError::Quota { held, .. } if held == LARGE), "{error}");
    store.bound(Bounds { floor: u64::MAX / 2, ..store.bounds() });
    assert!(matches!(store.would_fit(1), Err(StoreError::Room { .. })));
    assert!(all.iter().all(|(id, _)| store.has(id).expect("has")), "nothing has gone");
}

#[test]
fn when_all_is_needed_it_is_refused_before_its_first_byte() {
    let dir = tempfile::tempdir().expect("temp");
    let (store, needed) = store(&dir, 3 * LARGE);
    let all: Vec<_> = (0..3).map(|seed| object(seed, LARGE)).collect();
    all.iter().for_each(|(id, bytes)| store.put(*id, bytes).expect("puts"));
    lock(&needed).extend(all.iter().map(|(id, _)| *id));
    let (id, bytes) = object(9, 2 * LARGE);
    let outline = Arc::new(Outline::of(&bytes));
    for error in [store.put(id, &bytes), store.begin_partial(outline.clone()).map(drop)] {
        let error = error.expect_err("there is no room");
        assert!(matches!(error, StoreError::Quota { .. }) && error.is_full(), "{error}");
    }
    let (small, few) = object(10, 100);
    assert!(matches!(store.put(small, &few), Err(StoreError::Quota { .. })));
    assert!(store.find_partial(&id).expect("reads").is_none());
    assert!(all.iter().all(|(id, _)| store.has(id).expect("has")));
    // When two are not needed any more there is, once it is time to look again.
    lock(&needed).clear();
    *lock(&store.room.turn) = None;
    store.put(id, &bytes).expect("there is room");
    assert!(store.usage().expect("usage").bytes <= 3 * LARGE);
}

#[test]
fn what_does_not_fit_at_all_costs_nothing_that_is_there() {
    let dir = tempfile::tempdir().expect("temp");
    let (store, needed) = store(&dir, 4 * LARGE);
    let all: Vec<_> = (0..4).map(|seed| object(seed, LARGE)).collect();
    all.iter().for_each(|(id, bytes)| store.put(*id, bytes).expect("puts"));
    lock(&needed).extend([all[0].0, all[1].0]);
    let wanted = [(object(9, 1).0, 3 * LARGE as u32)];
    let refused = store.make_room_for(&wanted).expect_err("two of four are needed");
    assert!(matches!(refused, StoreError::Quota { .. }), "{refused}");
    assert!(all.iter().all(|(id, _)| store.has(id).expect("has")));
    *lock(&store.room.turn) = None;
    store.make_room_for(&[(object(9, 1).0, 2 * LARGE as u32)]).expect("the others are not");
    assert_eq!(store.usage().expect("usage").bytes, 2 * LARGE);
}

#[test]
fn what_is_arriving_counts_in_full_also_after_a_restart() {
    let dir = tempfile::tempdir().expect("temp");
    let (id, bytes) = object(1, 2 * LARGE);
    let outline = Arc::new(Outline::of(&bytes));
    {
        let (store, _) = store(&dir, 3 * LARGE);
        let mut partial = store.begin_partial(outline).expect("begins");
        partial.append(&bytes[..GROUP]).expect("appends");
    }
    let (store, needed) = store(&dir, 3 * LARGE);
    lock(&needed).insert(id);
    let (other, more) = object(2, LARGE + 1);
    assert!(matches!(store.put(other, &more), Err(StoreError::Quota { .. })));
    // Nobody waits for the rest any more.
    lock(&needed).clear();
    *lock(&store.room.turn) = None;
    store.put(other, &more).expect("there is room");
    assert!(store.find_partial(&id).expect("reads").is_none());
}

#[test]
fn small_objects_give_their_room_back_though_their_volume_stays() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().expect("temp");
    let store = Store::open(dir.path()).expect("opens");
    let all: Vec<_> = (0..100).map(|seed| object(seed, 60 << 10)).collect();
    let mut batch = store.batch();
    all.iter().for_each(|(id, bytes)| batch.put(*id, bytes).expect("puts"));
    batch.commit().expect("commits");
    let blocks = || std::fs::metadata(store.volume_path(0)).expect("stat").blocks() * 512;
    let before = blocks();
    let gone: Vec<_> = all.iter().skip(1).map(|(id, _)| *id).collect();
    store.remove(&gone).expect("removes");
    if blocks() == before {
        println!("skipped: this file system makes no holes");
        return;
    }
    assert!(blocks() < before / 5, "{} of {before}", blocks());
    assert_eq!(store.get(&all[0].0).expect("reads").as_ref(), Some(&all[0].1));
    drop(store);
    let store = Store::open(dir.path()).expect("opens");
    assert_eq!(store.check().expect("checks").good, 1);
}

#[test]
fn a_store_without_an_owner_only_refuses() {
    let dir = tempfile::tempdir().expect("temp");
    let store = Store::open(dir.path()).expect("opens");
    store.bound(Bounds { max: 2 * LARGE, ..Bounds::default() });
    let all: Vec<_> = (0..3).map(|seed| object(seed, LARGE)).collect();
    store.put(all[0].0, &all[0].1).expect("puts");
    store.put(all[1].0, &all[1].1).expect("puts");
    assert!(matches!(store.put(all[2].0, &all[2].1), Err(StoreError::Quota { .. })));
    assert_eq!(store.usage().expect("usage").objects, 2);
    store.bound(Bounds { floor: u64::MAX / 2, ..Bounds::default() });
    assert!(matches!(store.put(all[2].0, &all[2].1), Err(StoreError::Room { .. })));
}

#[test]
fn what_is_kept_is_remembered() {
    let dir = tempfile::tempdir().expect("temp");
    let all: Vec<_> = (0..3).map(|seed| object(seed, 100)).collect();
    {
        let (store, _) = store(&dir, u64::MAX);
        all.iter().for_each(|(id, bytes)| store.put(*id, bytes).expect("puts"));
    }
    let (store, _) = store(&dir, u64::MAX);
    assert_eq!(store.kept().expect("reads"), BTreeSet::from([all[0].0]));
    store.get(&all[0].0).expect("reads");
    store.note_uses().expect("notes");
    assert_eq!(store.kept().expect("reads"), BTreeSet::from([all[0].0]), "also when it is used");
    store.remove(&[all[0].0]).expect("removes");
    assert!(store.kept().expect("reads").is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn the_limit_holds_and_what_is_needed_stays(
        puts in proptest::collection::vec((0u64..30, any::<bool>()), 1..60),
    ) {
        let dir = tempfile::tempdir().expect("temp");
        let max = 40 * 8_000;
        let (store, needed) = store(&dir, max);
        let len = |seed: u64| 1_000 + seed * 2_000;
        let mut there = BTreeSet::new();
        for (seed, pin) in puts {
            *lock(&store.room.turn) = None;
            let (id, bytes) = object(seed, len(seed));
            let before = store.index.ids().expect("reads");
            match store.put(id, &bytes) {
                Ok(()) => {
                    if pin {
                        lock(&needed).insert(id);
                        there.insert(id);
                    }
                    prop_assert!(store.has(&id).expect("has"));
                }
                Err(error) => {
                    prop_assert!(error.is_full());
                    let pinned = lock(&needed).clone();
                    let held: u64 = (0..30)
                        .filter(|seed| pinned.contains(&object(*seed, len(*seed)).0))
                        .map(len)
                        .sum();
                    prop_assert!(held + len(seed) > max, "there was something to drop");
                    prop_assert_eq!(store.index.ids().expect("reads"), before, "for nothing");
                }
            }
            prop_assert!(store.usage().expect("usage").bytes <= max);
            for id in &there {
                prop_assert!(store.has(id).expect("has"));
            }
        }
    }
}
