//! Whatever this crate reads from a link or a disk, damaged: nothing panics, hangs or takes memory
//! because a damaged number says so, and what is accepted is right. Deltas are in `delta/tests`.

use damage::survive;

use super::*;
use crate::pack::{PackError, decode_manifest};

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// A tree with all kinds of entries, and the store that it was read into.
fn tree(edit: bool) -> (tempfile::TempDir, Store, Ingested) {
    let dir = tempfile::tempdir().expect("temp");
    let at = |path: &str| dir.path().join("tree").join(path);
    std::fs::create_dir_all(at("usr/lib")).expect("dirs");
    std::fs::write(at("usr/lib/a.so"), noise(1, 150_000)).expect("writes");
    std::fs::write(at("usr/lib/b.txt"), if edit { "another" } else { "text" }).expect("writes");
    std::fs::write(at("empty"), "").expect("writes");
    std::fs::hard_link(at("usr/lib/b.txt"), at("usr/hard")).expect("links");
    std::os::unix::fs::symlink("usr/lib", at("lib")).expect("links");
    let store = Store::open(dir.path().join("store")).expect("store");
    let ingested = ingest(&at(""), &Patterns::default(), &store, &mut |_| ()).expect("reads");
    (dir, store, ingested)
}

fn manifests() -> [Manifest; 2] {
    [false, true].map(|edit| tree(edit).2.manifest)
}

#[test]
fn manifests_are_canonical_or_refused() {
    let samples = manifests().map(|manifest| manifest.encode());
    survive("manifests", &samples, 60_000, |bytes| {
        let manifest = Manifest::decode(bytes, &Limits::default());
        if let Ok(manifest) = &manifest {
            assert_eq!(manifest.encode(), bytes);
        }
        manifest.is_ok()
    });
}

#[test]
fn manifest_parts_are_bounded_by_what_is_allowed() {
    let (_dir, store, Ingested { manifest, .. }) = tree(false);
    let base = tree(true).2.manifest;
    let limits = Limits { encoded: 1 << 20, entries: 100, ..Limits::default() };
    for base in [None, Some(&base)] {
        let part = pack::encode_manifest_part(base, &manifest, &store, 3).expect("encodes");
        let part = store.get(&part.id).expect("reads").expect("it was stored");
        let base = base.map(Manifest::encode);
        survive("manifest parts", &[part], 20_000, |bytes| {
            decode_manifest(bytes, base.as_deref(), &limits).is_ok()
        });
    }
}

#[test]
fn segments_bring_what_is_in_the_plan_or_nothing() {
    let (_dir, store, Ingested { manifest, .. }) = tree(false);
    let bundle = pack::encode(None, &manifest, &store, 3).expect("encodes");
    let part = &bundle.segments[0].id;
    let part = store.get(part).expect("reads").expect("it was stored");
    let plan = plan(None, &manifest);
    survive("segments", &[part], 5_000, |bytes| {
        let mut check = |chunk: &ChunkRef, bytes: &[u8]| -> Result<(), PackError> {
            assert_eq!((ContentId::of(bytes), bytes.len()), (chunk.id, chunk.len as usize));
            Ok(())
        };
        Segment::decode(bytes, &plan, &mut check).is_ok()
    });
}

#[test]
fn outlines_lead_to_the_id_or_are_refused() {
    let object = noise(2, 5 * GROUP + 7);
    let outline = Outline::of(&object);
    let length = (object.len() as u64).to_le_bytes();
    // As it lies beside an object that is not whole.
    let sample = [&length[..], &outline.encode()].concat();
    survive("outlines", &[sample], 60_000, |bytes| {
        let Some((length, values)) = bytes.split_first_chunk() else { return false };
        let found = Outline::decode(outline.id(), u64::from_le_bytes(*length), values);
        if let Ok(found) = &found {
            assert!(*found == outline || found.len() != object.len());
        }
        found.is_ok()
    });
}

#[test]
fn what_was_seen_is_read_or_forgotten() {
    let (_dir, _store, Ingested { manifest, marks, .. }) = tree(false);
    let bytes = Seen::new(manifest, marks).encode();
    let inside = zstd::bulk::decompress(&bytes, 1 << 20).expect("it is ours");
    survive("seen, compressed", &[bytes], 20_000, |bytes| Seen::decode(bytes).is_some());
    survive("seen", &[inside], 20_000, |inside| {
        let bytes = zstd::bulk::compress(inside, 1).expect("compresses");
        Seen::decode(&bytes).is_some()
    });
}

#[test]
fn chunks_are_named_by_ids_alone() {
    let sample = ContentId::of(b"x").to_string().into_bytes();
    survive("ids", &[sample], 60_000, |bytes| {
        let id = std::str::from_utf8(bytes).ok().and_then(|text| text.parse::<ContentId>().ok());
        assert!(id.is_none_or(|id| id.to_string().as_bytes() == bytes));
        id.is_some()
    });
}

#[test]
fn volumes_that_are_damaged_serve_nothing_wrong() {
    let (dir, store, Ingested { manifest, .. }) = tree(false);
    drop(store);
    let dir = dir.path().join("store");
    let volume = dir.join("volumes/0");
    let whole = std::fs::read(&volume).expect("it is there");
    let read = |bytes: &[u8]| {
        std::fs::write(&volume, bytes).expect("writes");
        let Ok(store) = Store::open(&dir) else { return false };
        let chunks = manifest.entries.iter().flat_map(|entry| entry.chunks());
        let served = |chunk: &ChunkRef| {
            let found = store.get(&chunk.id).ok().flatten();
            assert!(found.as_ref().is_none_or(|bytes| ContentId::of(bytes) == chunk.id));
            found.is_some()
        };
        chunks.filter(|chunk| !served(chunk)).count() == 0
    };
    survive("volumes", &[whole], 300, read);
}
