//! Packs that were made before: the same step from one tree to the next is encoded once, however
//! many pushes make it.
//!
//! A row names the parts; the parts lie in the content store. If one of them is gone, the row is as
//! good as absent, and the pack is made again.

use content::pack::{self, Bundle, Part};
use content::{ContentId, Manifest, Store};
use serde::{Deserialize, Serialize};

use crate::fault::Failure;
use crate::tables::Tables;

/// Another encoder, another version: packs made by an older one are not taken.
const VERSION: u32 = 1;

/// The parts of a pack, by id and length.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PackRow {
    version: u32,
    manifest: (String, u32),
    segments: Vec<(String, u32)>,
    deltas: Vec<(String, u32)>,
    /// It was packed less than it could be, since the slowest link carries so many bytes a second;
    /// 0: it was not.
    #[serde(default)]
    spared_at: u64,
}

/// What takes hosts with the base, or with nothing, to the target: made before, or now. `rate`: of
/// the slowest link, in bytes a second, if it is known; a pack for a faster one is made anew.
pub(crate) fn bundle(
    tables: &Tables,
    store: &Store,
    base: Option<(ContentId, &Manifest)>,
    target: (ContentId, &Manifest),
    (level, rate): (i32, Option<u64>),
) -> Result<Bundle, Failure> {
    let failed = |error: &dyn std::error::Error| Failure::internal(relay::chain(error));
    let key = (base.map(|(root, _)| root), target.0);
    if let Some(row) = tables.pack(key)? {
        let fits = row.spared_at == 0 || rate.is_some_and(|rate| rate >= row.spared_at);
        let found = row.bundle(key.0).filter(|bundle| fits && is_whole(bundle, store));
        if let Some(found) = found {
            return Ok(found);
        }
    }
    let base = base.map(|(_, manifest)| manifest);
    let made = pack::encode_over(rate, base, target.1, (store, level));
    let (made, is_spared) = made.map_err(|error| failed(&error))?;
    let spared_at = rate.filter(|_| is_spared).unwrap_or(0);
    tables.set_pack(key, &PackRow { spared_at, ..PackRow::of(&made) })?;
    Ok(made)
}

/// Drops the rows of packs of which a part is gone, or that another encoder has made: nobody takes
/// them any more. Returns how many.
pub(crate) fn drop_gone(tables: &Tables, store: &Store) -> Result<usize, relay::JournalError> {
    let is_good = |row: &PackRow| row.bundle(None).is_some_and(|bundle| is_whole(&bundle, store));
    tables.retain_packs(is_good)
}

fn is_whole(bundle: &Bundle, store: &Store) -> bool {
    let is_there = |part: &Part| store.size(&part.id).is_ok_and(|size| size == Some(part.bytes));
    bundle.parts().all(is_there)
}

impl PackRow {
    fn of(bundle: &Bundle) -> PackRow {
        let part = |part: &Part| (part.id.to_string(), part.bytes);
        PackRow {
            version: VERSION,
            manifest: part(&bundle.manifest),
            segments: bundle.segments.iter().map(part).collect(),
            deltas: bundle.deltas.iter().map(part).collect(),
            spared_at: 0,
        }
    }

    fn bundle(&self, base: Option<ContentId>) -> Option<Bundle> {
        let part = |(id, bytes): &(String, u32)| Some(Part { id: id.parse().ok()?, bytes: *bytes });
        let parts = |parts: &[(String, u32)]| parts.iter().map(part).collect::<Option<Vec<_>>>();
        (self.version == VERSION).then_some(())?;
        Some(Bundle {
            base,
            manifest: part(&self.manifest)?,
            segments: parts(&self.segments)?,
            deltas: parts(&self.deltas)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_step_is_encoded_once() {
        let temp = tempfile::tempdir().expect("temp");
        let at = |name: &str| temp.path().join(name);
        let journal = relay::Journal::open(&at("db"), 1 << 20).expect("opens");
        let tables = Tables::open(journal).expect("opens");
        let store = Store::open(at("store")).expect("opens");
        let tree = |text: &str| {
            fs::create_dir_all(at("tree")).expect("makes");
            fs::write(at("tree/file"), text).expect("writes");
            content::ingest(&at("tree"), &content::Patterns::default(), &store, &mut |_| ())
                .expect("reads")
                .manifest
        };
        let (old, new) = (tree("one\n"), tree("two\n"));
        let make = |base: Option<&Manifest>| {
            let base = base.map(|base| (base.root(), base));
            bundle(&tables, &store, base, (new.root(), &new), (3, None)).expect("encodes")
        };
        let first = make(Some(&old));
        assert_eq!((first.deltas.len(), first.segments.len()), (1, 0));
        assert_eq!(make(None).segments.len(), 1);

        // One in which files were spared for a fast link is made anew for a slower one alone.
        let key = (Some(old.root()), new.root());
        let row = |spared_at| PackRow { spared_at, deltas: Vec::new(), ..PackRow::of(&first) };
        for (rate, is_taken) in [(None, false), (Some(99), false), (Some(100), true)] {
            tables.set_pack(key, &row(100)).expect("writes");
            let old = Some((old.root(), &old));
            let made = bundle(&tables, &store, old, (new.root(), &new), (3, rate));
            assert_eq!(made.expect("encodes").deltas.is_empty(), is_taken, "{rate:?}");
        }
        tables.set_pack(key, &PackRow::of(&first)).expect("writes");

        // Without the old file nothing but the row can tell what was encoded before.
        let chunk = old.entries[1].chunks()[0].id;
        store.remove(&[chunk]).expect("removes");
        assert_eq!(make(Some(&old)), first);
        store.remove(&[first.deltas[0].id]).expect("removes");
        assert_eq!(drop_gone(&tables, &store).expect("drops"), 1);
        assert_eq!(drop_gone(&tables, &store).expect("drops"), 0, "the other one is whole");
        let again = make(Some(&old));
        assert_ne!(again, first, "a part was gone, and so is the base: it was made anew");
        assert!(is_whole(&again, &store));
        assert_eq!(drop_gone(&tables, &store).expect("drops"), 0);
    }
}
