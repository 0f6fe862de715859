//! Tests of `delta`: of segments, without a disk.
//!
//! Here is what they share: versions of files in memory, and what one costs after another. Each
//! pair of versions is encoded twice and decoded once with the right base and once with a wrong
//! one.

mod containers;
mod damage;
mod files;
mod heads;
mod packed;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::encode::{Sizes, encode_within};
use super::*;
use crate::chunk::Cutter;
use crate::id::ContentId;
use crate::manifest::{ChunkRef, Entry, Kind, Manifest};
use crate::pack::{PackError, Part};
use crate::store::Store;

type Files = BTreeMap<String, Vec<u8>>;

pub(super) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Bytes that repeat themselves now and then, as text does; with NULs, as programs have.
fn body(seed: u64, len: usize, binary: bool) -> Vec<u8> {
    let words = noise(seed % 2, 400);
    let picks = noise(seed, len.div_ceil(4));
    let word = |pick: &u8| {
        let at = usize::from(*pick) % 96 * 4;
        words[at..at + 4].iter().map(move |byte| if binary { byte % 8 } else { byte % 64 + 48 })
    };
    picks.iter().flat_map(word).take(len).collect()
}

fn tree(files: &Files, store: &Store) -> Manifest {
    let mut batch = store.batch();
    let name = Arc::<str>::from("root");
    let entry = |path: &str, kind| Entry {
        path: path.as_bytes().to_vec(),
        kind,
        mode: 0o644,
        uid: 0,
        gid: 0,
        owner: name.clone(),
        group: name.clone(),
        mtime: (1_700_000_000, 5),
        attributes: crate::Attributes::default(),
        sparse: false,
    };
    let mut entries = vec![entry("", Kind::Dir)];
    let mut cutter = Cutter::new();
    for (path, bytes) in files {
        let mut chunks = Vec::new();
        let mut keep = |chunk: &[u8]| -> std::io::Result<()> {
            let id = ContentId::of(chunk);
            batch.put(id, chunk).expect("puts");
            chunks.push(ChunkRef { id, len: u32::try_from(chunk.len()).expect("short") });
            Ok(())
        };
        cutter.cut(bytes.as_slice(), bytes.len() as u64, &mut keep).expect("cuts");
        entries.push(entry(path, Kind::File { size: bytes.len() as u64, chunks }));
    }
    batch.commit().expect("commits");
    Manifest { entries }
}

/// A base whose files are in memory; those of some paths are not what they should be.
struct Memory<'a> {
    files: &'a Files,
    altered: BTreeSet<&'a str>,
}

impl Base for Memory<'_> {
    fn chunk(&mut self, entry: &Entry, chunk: &ChunkRef, offset: u64) -> Option<Vec<u8>> {
        let path = std::str::from_utf8(&entry.path).expect("plain names");
        let start = offset as usize;
        let bytes = self.files[path][start..start + chunk.len as usize].to_vec();
        match self.altered.contains(path) {
            true if offset == 0 => None,
            true => Some(vec![7; bytes.len() / 2]),
            false => Some(bytes),
        }
    }

    fn scratch(&mut self) -> std::io::Result<std::fs::File> {
        tempfile::tempfile()
    }
}

/// Far smaller than the real ones, so that every way to cut and to gather is gone.
pub(super) const SMALL: Sizes = Sizes {
    sorted: 200_000,
    stretch: 150_000,
    around: 50_000,
    piece: 70_000,
    wave: 300_000,
    solid: 60_000,
    opened: 60_000,
    prefix: (90_000, 160_000),
};

struct Pair {
    _dir: tempfile::TempDir,
    store: Store,
    base: Manifest,
    target: Manifest,
    parts: Vec<Part>,
}

impl Pair {
    fn new(old: &Files, new: &Files, sizes: Sizes) -> Pair {
        let dir = tempfile::tempdir().expect("temp");
        let store = Store::open(dir.path()).expect("store");
        let (base, target) = (tree(old, &store), tree(new, &store));
        let parts = encode_within(&base, &target, &store, sizes).expect("encodes");
        let again = encode_within(&base, &target, &store, sizes).expect("encodes");
        assert_eq!(parts, again, "encoding is deterministic");
        Pair { _dir: dir, store, base, target, parts }
    }

    fn bytes(&self, part: &Part) -> Vec<u8> {
        self.store.get(&part.id).expect("reads").expect("it was stored")
    }

    fn layout(&self) -> BTreeSet<ChunkRef> {
        let layout = layout(Some(&self.base), &self.target);
        layout.into_iter().flat_map(|fresh| fresh.chunks).collect()
    }

    /// Decodes all segments; returns the chunks that came, those that did not, and what was lost.
    fn decode(&self, source: &mut dyn Base) -> [BTreeSet<ChunkRef>; 3] {
        let delta = Delta::new(&self.base, &self.target);
        let [mut got, mut wrong, mut lost] = [const { BTreeSet::new() }; 3];
        for part in &self.parts {
            let mut keep = |chunk: &ChunkRef, bytes: &[u8]| -> Result<(), PackError> {
                assert_eq!((ContentId::of(bytes), bytes.len()), (chunk.id, chunk.len as usize));
                assert!(got.insert(*chunk), "no chunk comes twice");
                Ok(())
            };
            let bytes = self.bytes(part);
            let decoded = delta.decode(&bytes, source, &mut keep).expect("decodes");
            wrong.extend(decoded.wrong);
            lost.extend(decoded.lost);
        }
        [got, wrong, lost]
    }
}

fn check(old: &Files, new: &Files, altered: &[&str], sizes: Sizes) -> Pair {
    let pair = Pair::new(old, new, sizes);
    let all = pair.layout();
    let [got, wrong, lost] = pair.decode(&mut Memory { files: old, altered: BTreeSet::new() });
    assert_eq!((got, wrong.len(), lost.len()), (all.clone(), 0, 0));

    let altered = altered.iter().copied().collect();
    let [got, wrong, lost] = pair.decode(&mut Memory { files: old, altered });
    assert!(got.is_disjoint(&wrong));
    assert_eq!(&got | &wrong, all, "a wrong base never takes a chunk away without saying so");
    assert!(!lost.is_empty() || wrong.is_empty());
    pair
}

fn one(path: &str, bytes: Vec<u8>) -> Files {
    [(path.to_owned(), bytes)].into()
}

fn size(pair: &Pair) -> u32 {
    pair.parts.iter().map(|part| part.bytes).sum()
}

/// A program of 400,000 bytes with an address in every tenth word, and the same a little further.
fn programs() -> (Vec<u8>, Vec<u8>) {
    let mut old = noise(9, 400_000);
    old[..4].copy_from_slice(&[0; 4]);
    let picks = noise(10, 40_000);
    for (n, pick) in picks.iter().enumerate().filter(|(n, _)| n % 4 == 0) {
        let address = 0x0040_0000 + u32::from(*pick) * 1000;
        old[10 * n + 4..10 * n + 8].copy_from_slice(&address.to_le_bytes());
    }
    let mut new = old.clone();
    for n in (0..40_000).filter(|n| n % 4 == 0) {
        let place = &mut new[10 * n + 4..10 * n + 8];
        let address = u32::from_le_bytes((&*place).try_into().expect("four bytes")) + 0x1f8;
        place.copy_from_slice(&address.to_le_bytes());
    }
    new.splice(200_000..200_000, noise(11, 500));
    (old, new)
}
