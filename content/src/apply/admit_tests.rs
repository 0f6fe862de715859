//! Tests of what an installer asks before it writes: whether it may, and that nothing goes which
//! it counts on.

use std::collections::BTreeSet;

use super::tests::Bench;
use super::*;
use crate::id::ContentId;
use crate::store::{Bounds, Owner};

/// Needs nothing, so that everything may go.
struct Nobody;

impl Owner for Nobody {
    fn needed(&self) -> Option<BTreeSet<ContentId>> {
        Some(BTreeSet::new())
    }

    fn keeps(&self, _: &ContentId) -> bool {
        false
    }
}

/// Fills the store with other things while the files wait to be written, or does not admit them.
struct Meanwhile<'a> {
    store: &'a Store,
    admits: bool,
    asked: Option<Writing>,
}

impl Chunks for Meanwhile<'_> {
    fn provide(&mut self, _: &[ChunkRef]) -> Result<(), ApplyError> {
        Err(ApplyError::Provide("all of it was here".into()))
    }

    fn admit(&mut self, writing: &Writing) -> Result<(), ApplyError> {
        self.asked = Some(*writing);
        if !self.admits {
            return Err(ApplyError::Provide("there is no room for it".into()));
        }
        for n in 0..64 {
            let other = vec![n; 10_000];
            self.store.put(ContentId::of(&other), &other)?;
        }
        Ok(())
    }
}

fn apply(bench: &Bench, target: &Manifest, chunks: &mut dyn Chunks) -> Result<Applied, ApplyError> {
    let rules = Rules::default();
    let job = Job { tag: "t1", dest: b"/srv", target, rules: &rules, before: None };
    Installer::new(bench.at("root")).apply(&job, &bench.store, chunks)
}

#[test]
fn what_is_counted_on_stays_until_it_is_written() {
    let bench = Bench::new();
    let target = bench.source(&[("a", &[200; 9_000]), ("b", &[201; 9_000]), ("c", &[200; 9_000])]);
    bench.store.own(Box::new(Nobody));
    bench.store.bound(Bounds { max: 50_000, ..Bounds::default() });
    let mut meanwhile = Meanwhile { store: &bench.store, admits: true, asked: None };
    let applied = apply(&bench, &target, &mut meanwhile).expect("all of it is here");
    assert_eq!(applied.bytes_written, 27_000);
    let asked = meanwhile.asked.expect("it was asked");
    assert!(asked.bytes >= 27_000 && asked.wanted == 0, "{asked:?}");
    // Afterwards nobody counts on it.
    bench.store.make_room(49_000).expect("all of it may go");
}

#[test]
fn what_is_not_admitted_is_neither_asked_for_nor_written() {
    let bench = Bench::new();
    let target = bench.source(&[("a", b"one"), ("b", b"two")]);
    let before = bench.listing();
    let ids: Vec<_> = target.entries.iter().flat_map(Entry::chunks).map(|chunk| chunk.id).collect();
    bench.store.remove(&ids).expect("removes");
    let mut meanwhile = Meanwhile { store: &bench.store, admits: false, asked: None };
    let refused = apply(&bench, &target, &mut meanwhile).expect_err("it is not admitted");
    assert!(matches!(refused, ApplyError::Provide(_)) && !refused.partial());
    assert_eq!(meanwhile.asked.expect("it was asked").wanted, 6);
    assert_eq!(bench.listing(), before);
}
