//! Tests of `pack`.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::manifest::{Entry, Kind};
use crate::store::Batch;

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn entry(path: &str, kind: Kind) -> Entry {
    let name = Arc::<str>::from("root");
    let (owner, group) = (name.clone(), name);
    let path = path.as_bytes().to_vec();
    let (attributes, sparse, mtime) = (crate::Attributes::default(), false, (1_700_000_000, 5));
    Entry { path, kind, mode: 0o644, uid: 0, gid: 0, owner, group, mtime, attributes, sparse }
}

/// A tree of one-chunk files, which are put into the store.
fn tree(files: &[(&str, Vec<u8>)], store: Option<&Store>) -> Manifest {
    let mut batch = store.map(Store::batch);
    let mut entries = vec![entry("", Kind::Dir)];
    for (path, bytes) in files {
        let id = ContentId::of(bytes);
        if let Some(batch) = &mut batch {
            batch.put(id, bytes).expect("puts");
        }
        let chunks = vec![ChunkRef { id, len: u32::try_from(bytes.len()).expect("small") }];
        entries.push(entry(path, Kind::File { size: bytes.len() as u64, chunks }));
    }
    batch.map_or(Ok(()), Batch::commit).expect("commits");
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Manifest { entries }
}

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().expect("temp");
    let store = Store::open(dir.path()).expect("store");
    (dir, store)
}

fn decode_all(bundle: &Bundle, plan: &[ChunkRef], store: &Store) -> Vec<ChunkRef> {
    let mut got = Vec::new();
    for part in &bundle.segments {
        let bytes = store.get(&part.id).expect("reads").expect("is there");
        assert_eq!(bytes.len(), part.bytes as usize);
        let mut keep = |chunk: &ChunkRef, bytes: &[u8]| -> Result<(), PackError> {
            assert_eq!((ContentId::of(bytes), bytes.len()), (chunk.id, chunk.len as usize));
            got.push(*chunk);
            Ok(())
        };
        Segment::decode(&bytes, plan, &mut keep).expect("decodes");
    }
    got
}

#[test]
fn the_plan_groups_what_is_alike_and_leaves_out_what_the_base_has() {
    let of = |text: &str| text.as_bytes().to_vec();
    let names = ["b.c", "a.h", "x.h", "Makefile", ".c", "same.h", "old.h"];
    let mut files: Vec<_> = names.iter().map(|name| (*name, of(name))).collect();
    files[5].1 = of("a.h");
    let base = tree(&[("elsewhere", of("old.h"))], None);
    let plan = plan(Some(&base), &tree(&files, None));
    let ids: Vec<_> = plan.iter().map(|chunk| chunk.id).collect();
    let expected = [".c", "Makefile", "b.c", "a.h", "x.h"];
    assert_eq!(ids, expected.map(|name| ContentId::of(name.as_bytes())));
}

#[test]
fn segments_are_cut_at_eight_mebibytes_and_hold_the_whole_plan() {
    let (_dir, store) = store();
    let names: Vec<String> = (0..90).map(|n| format!("f{n:02}")).collect();
    let files: Vec<_> =
        names.iter().zip(0..).map(|(name, n)| (name.as_str(), noise(n, 200_000))).collect();
    let target = tree(&files, Some(&store));
    let bundle = encode(None, &target, &store, 1).expect("encodes");
    assert_eq!(bundle.segments.len(), 3);
    let plan = plan(None, &target);
    assert_eq!(decode_all(&bundle, &plan, &store), plan);
    let again = encode(None, &target, &store, 1).expect("encodes");
    assert_eq!(again, bundle, "encoding is deterministic");
    let same = encode(Some(&target), &target, &store, 1).expect("encodes");
    assert_eq!((same.base, same.segments), (Some(target.root()), vec![]));
    store.remove(&[plan[7].id]).expect("removes");
    let err = encode(None, &target, &store, 1).expect_err("a chunk is missing");
    assert!(matches!(err, PackError::Missing { id } if id == plan[7].id), "{err}");
}

#[test]
fn a_small_change_to_a_large_manifest_is_small() {
    let mut base = vec![entry("", Kind::Dir)];
    for n in 0..5000_u32 {
        let name = format!("usr_share_doc_package-{n:04}-{}_copyright", n * 7 % 13);
        let chunk = ChunkRef { id: ContentId::of(name.as_bytes()), len: 1000 };
        let kind = Kind::File { size: 1000, chunks: vec![chunk] };
        let mtime = (1_700_000_000 + i64::from(n * 7919 % 100_000), n * 104_729 % 1_000_000);
        base.push(Entry { mtime, ..entry(&name, kind) });
    }
    base.sort_by(|a, b| a.path.cmp(&b.path));
    let base = Manifest { entries: base };
    let mut target = base.clone();
    let chunk = ChunkRef { id: ContentId::of(b"new"), len: 3 };
    target.entries[2500].kind = Kind::File { size: 3, chunks: vec![chunk] };
    target.entries[2500].mtime = (1_800_000_000, 1);
    let (base_bytes, target_bytes) = (base.encode(), target.encode());
    let whole = encode_manifest(None, &target_bytes, DEFAULT_LEVEL).expect("encodes");
    let delta = encode_manifest(Some(&base_bytes), &target_bytes, DEFAULT_LEVEL).expect("encodes");
    assert!(delta.len() < 1024, "{} of {}", delta.len(), whole.len());
    let limits = Limits::default();
    assert_eq!(decode_manifest(&delta, Some(&base_bytes), &limits).expect("decodes"), target);
    assert_eq!(decode_manifest(&whole, None, &limits).expect("decodes"), target);
    assert!(matches!(decode_manifest(&delta, None, &limits), Err(PackError::Base)));
    assert!(matches!(decode_manifest(&whole, Some(&base_bytes), &limits), Err(PackError::Base)));
    let wrong = decode_manifest(&delta, Some(&base_bytes[1..]), &limits);
    assert!(wrong.map_or(true, |manifest| manifest.root() != target.root()));
    let tight = Limits { encoded: target_bytes.len() - 1, ..limits };
    let err = decode_manifest(&whole, None, &tight).expect_err("too long");
    assert!(matches!(err, PackError::Manifest(ManifestError::TooLarge { .. })), "{err}");
}

#[test]
fn a_prefix_longer_than_the_tables_of_the_level_still_helps() {
    let base = noise(1, 12 << 20);
    let mut target = base.clone();
    target.splice(5_000_000..5_000_000, *b"inserted");
    let delta = compress(Some(&base), &target, DEFAULT_LEVEL).expect("compresses");
    assert!(delta.len() < 16 << 10, "{}", delta.len());
    assert_eq!(decompress(Some(&base), &delta, target.len()).expect("decodes"), target);
}

#[test]
fn a_prefix_helps_at_every_level_that_is_used() {
    let old = noise(3, 1 << 18);
    let mut new = old.clone();
    new[1_000] ^= 1;
    for level in [5, 9, 12, 19] {
        let packed = compress(Some(&old), &new, level).expect("compresses");
        assert!(packed.len() < 1_000, "level {level}: {}", packed.len());
        assert_eq!(decompress(Some(&old), &packed, new.len()).expect("decodes"), new);
    }
}

#[test]
fn output_is_bounded_to_the_byte() {
    let raw = vec![0; 10_000];
    let frame = compress(None, &raw, 3).expect("compresses");
    assert_eq!(decompress(None, &frame, 10_000).expect("decodes"), raw);
    assert!(decompress(None, &frame, 9_999).is_err());
    assert!(decompress(None, &frame, 10_001).is_err());
    assert!(decompress(None, &[frame.as_slice(), &frame].concat(), 20_000).is_err());
}

fn sample() -> (Vec<ChunkRef>, Vec<u8>) {
    let (_dir, store) = store();
    let files: Vec<_> = [("a", 10), ("b", 3000), ("c", 70)]
        .map(|(name, len)| (name, noise(len, len as usize / 2).repeat(2)))
        .to_vec();
    let target = tree(&files, Some(&store));
    let plan = plan(None, &target);
    let bytes = encode_segment(&plan, 0..plan.len(), &store, 3).expect("encodes");
    (plan, bytes)
}

proptest! {
    #[test]
    fn mutated_segments_never_yield_wrong_chunks(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3), 1..4),
    ) {
        thread_local!(static SAMPLE: (Vec<ChunkRef>, Vec<u8>) = sample());
        let (plan, mut bytes) = SAMPLE.with(Clone::clone);
        for (at, byte, edit) in edits {
            let at = at.index(bytes.len());
            match edit {
                0 => bytes[at] = byte,
                1 => { bytes.truncate(at.max(1)); }
                _ => bytes.insert(at, byte),
            }
        }
        let _ = Segment::decode(&bytes, &plan, &mut |chunk, bytes| -> Result<(), PackError> {
            assert_eq!(ContentId::of(bytes), chunk.id);
            assert_eq!(bytes.len(), chunk.len as usize);
            Ok(())
        });
        let _ = decode_manifest(&bytes, None, &Limits::default());
    }
}

#[test]
fn a_segment_of_another_plan_is_refused() {
    let (plan, bytes) = sample();
    let mut none = |_: &ChunkRef, _: &[u8]| -> Result<(), PackError> { Ok(()) };
    Segment::decode(&bytes, &plan, &mut none).expect("decodes");
    assert!(Segment::decode(&bytes, &plan[1..], &mut none).is_err());
    let mut other = plan.clone();
    other[1].id = ContentId([0; 32]);
    let err = Segment::decode(&bytes, &other, &mut none).expect_err("wrong chunk");
    assert!(matches!(err, PackError::Chunk { .. }), "{err}");
    other = vec![ChunkRef { id: plan[0].id, len: u32::MAX }; 3];
    assert!(Segment::decode(&bytes, &other, &mut none).is_err());
}
