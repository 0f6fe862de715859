//! Tests of `delta`: of segments, without a disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use zstd::zstd_safe::CParameter;

use super::encode::{Sizes, encode_within};
use super::head::{Item, Kind as SegmentKind, View, read, write};
use super::*;
use crate::chunk::Cutter;
use crate::id::ContentId;
use crate::manifest::{ChunkRef, Entry, Kind, Manifest};
use crate::pack::{PackError, Part};
use crate::store::Store;

type Files = BTreeMap<String, Vec<u8>>;

fn noise(seed: u64, len: usize) -> Vec<u8> {
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
const SMALL: Sizes = Sizes {
    sorted: 200_000,
    stretch: 150_000,
    around: 50_000,
    piece: 70_000,
    wave: 300_000,
    solid: 60_000,
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

/// What a new version does to a file.
#[derive(Debug, Clone)]
enum Edit {
    Keep,
    Remove,
    Rename,
    Replace(u64),
    Change(Vec<(prop::sample::Index, Vec<u8>, bool)>),
}

fn edit() -> impl Strategy<Value = Edit> {
    let change = (any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 0..20));
    let change = (change, any::<bool>()).prop_map(|((at, bytes), insert)| (at, bytes, insert));
    prop_oneof![
        1 => Just(Edit::Keep),
        1 => Just(Edit::Remove),
        1 => Just(Edit::Rename),
        1 => any::<u64>().prop_map(Edit::Replace),
        4 => prop::collection::vec(change, 1..30).prop_map(Edit::Change),
    ]
}

fn apply(edits: &[(String, Vec<u8>, Edit)]) -> (Files, Files) {
    let (mut old, mut new) = (Files::new(), Files::new());
    for (path, bytes, edit) in edits {
        if old.contains_key(path) {
            continue;
        }
        old.insert(path.clone(), bytes.clone());
        match edit {
            Edit::Keep => drop(new.insert(path.clone(), bytes.clone())),
            Edit::Remove => {}
            Edit::Rename => drop(new.insert(format!("{path}-7"), bytes.clone())),
            Edit::Replace(seed) => drop(new.insert(path.clone(), noise(*seed, bytes.len() / 2))),
            Edit::Change(changes) => {
                let mut changed = bytes.clone();
                for (at, with, insert) in changes {
                    let at = at.index(changed.len() + 1);
                    let end = if *insert { at } else { changed.len().min(at + with.len()) };
                    changed.splice(at..end, with.iter().copied());
                }
                new.insert(path.clone(), changed);
            }
        }
    }
    (old, new)
}

fn versions() -> impl Strategy<Value = (Files, Files)> {
    let name = "[ab][0-9]?(\\.c|\\.so)?";
    let len = prop_oneof![3 => 0..3_000_usize, 2 => 0..100_000_usize, 1 => 100_000..500_000_usize];
    let bytes = (0..4_u64, len, any::<bool>()).prop_map(|(seed, len, bin)| body(seed, len, bin));
    let file = (name, bytes, edit());
    prop::collection::vec(file, 1..8).prop_map(|files| apply(&files))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_files_to_any_others(
        (old, new) in versions(),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
    ) {
        let paths: Vec<_> = old.keys().map(String::as_str).collect();
        let altered: Vec<_> = picks.iter().map(|pick| *pick.get(&paths)).collect();
        check(&old, &new, &altered, SMALL);
    }
}

fn one(path: &str, bytes: Vec<u8>) -> Files {
    [(path.to_owned(), bytes)].into()
}

fn size(pair: &Pair) -> u32 {
    pair.parts.iter().map(|part| part.bytes).sum()
}

#[test]
fn what_moved_or_did_not_change_costs_nothing() {
    let old: Files =
        [("a.c", 1), ("b.c", 2)].map(|(path, seed)| (path.to_owned(), noise(seed, 90_000))).into();
    let mut new = old.clone();
    let moved = new.remove("a.c").expect("it is there");
    new.insert("elsewhere/a.c".into(), moved);
    assert_eq!(check(&old, &new, &[], Sizes::REAL).parts, []);
}

#[test]
fn one_line_costs_a_line() {
    let old = one("a.txt", body(5, 50_000, false));
    let mut new = old.clone();
    new.get_mut("a.txt").expect("it is there").splice(20_000..20_000, *b"one line more\n");
    let pair = check(&old, &new, &[], Sizes::REAL);
    assert!(size(&pair) < 100, "{}", size(&pair));
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

#[test]
fn moved_addresses_cost_next_to_nothing() {
    let (old, new) = programs();
    let (old, new) = (one("p.so", old), one("p.so", new));
    let pair = check(&old, &new, &[], Sizes::REAL);
    // 10,000 addresses moved: as a prefix alone each would cost some bytes.
    assert!(size(&pair) < 2_000, "{}", size(&pair));
    let bytes = pair.bytes(&pair.parts[0]);
    assert_eq!(bytes[5], 1, "a difference is the better kind here");
}

#[test]
fn a_long_file_is_made_from_what_lies_around_its_place() {
    let (mut old, mut new) = programs();
    for seed in 0..4 {
        let more = noise(20 + seed, 300_000);
        old.extend_from_slice(&more);
        new.extend_from_slice(&more);
        let at = new.len() - 1000;
        new[at] ^= 0xff;
    }
    let pair = check(&one("vm.img", old), &one("vm.img", new), &["vm.img"], SMALL);
    assert!(size(&pair) < 60_000, "{}", size(&pair));
}

#[test]
fn a_renamed_library_has_a_base() {
    let (old, new) = programs();
    let old = one("libs/libblas64_-6bb31eeb.so", old);
    let pair = check(&old, &one("libs/libblas64_-56d6093b.so", new.clone()), &[], Sizes::REAL);
    assert!(size(&pair) < 2_000, "{}", size(&pair));
    // So has one that has another name altogether: most of its chunks are somewhere.
    let mut edited = new;
    edited[5_000] ^= 1;
    let old = one("libs/libblas64_-6bb31eeb.so", edited.clone());
    edited[300_000] ^= 1;
    let pair = check(&old, &one("etc/other", edited), &[], Sizes::REAL);
    assert!(size(&pair) < 200, "{}", size(&pair));
}

#[test]
fn a_base_that_the_store_lacks_is_not_used() {
    let dir = tempfile::tempdir().expect("temp");
    let store = Store::open(dir.path()).expect("store");
    let (old, new) = (one("f", noise(1, 5_000)), one("f", noise(1, 5_001)));
    let (base, target) = (tree(&old, &store), tree(&new, &store));
    store.remove(&[base.entries[1].chunks()[0].id]).expect("removes");
    let parts = encode(&base, &target, &store).expect("encodes");
    let bytes = store.get(&parts[0].id).expect("reads").expect("it was stored");
    let nobody = Files::new();
    let mut none = Memory { files: &nobody, altered: BTreeSet::new() };
    let mut got = 0;
    let mut count = |_: &ChunkRef, bytes: &[u8]| -> Result<(), PackError> {
        got += bytes.len();
        Ok(())
    };
    let decoded = Delta::new(&base, &target).decode(&bytes, &mut none, &mut count);
    assert_eq!((decoded.expect("decodes"), got), (Decoded::default(), 5_001));
}

#[test]
fn only_what_is_made_of_a_wrong_file_is_wrong() {
    let files = |edit: &dyn Fn(&mut Vec<u8>)| -> Files {
        let file = |n: u64| {
            let mut bytes = noise(n, 3_000);
            edit(&mut bytes);
            (format!("f{n}"), bytes)
        };
        (0..20).map(file).collect()
    };
    let (old, new) = (files(&|_| ()), files(&|bytes| bytes.insert(1_500, b'x')));
    let pair = Pair::new(&old, &new, Sizes::REAL);
    assert_eq!(pair.parts.len(), 1, "one solid segment");
    let altered = BTreeSet::from(["f3"]);
    let [got, wrong, lost] = pair.decode(&mut Memory { files: &old, altered });
    assert_eq!((got.len(), wrong.len(), lost.len()), (19, 1, 1));
}

fn samples() -> Vec<(Pair, Files)> {
    let text = one("a.txt", body(5, 2_000, false));
    let mut texts = text.clone();
    texts.insert("b.txt".into(), body(6, 900, false));
    let mut new = texts.clone();
    new.get_mut("a.txt").expect("it is there").splice(700..710, *b"changed");
    new.get_mut("b.txt").expect("it is there").truncate(500);
    let (old_program, new_program) = programs();
    let old_program = one("p.so", old_program[..4_000].to_vec());
    let new_program = one("p.so", new_program[..3_900].to_vec());
    let first = Pair::new(&texts, &new, Sizes::REAL);
    let second = Pair::new(&old_program, &new_program, Sizes::REAL);
    vec![(first, texts), (second, old_program)]
}

/// Where the frame of a segment begins, and what is in it.
fn opened(pair: &Pair, bytes: &[u8]) -> (usize, Vec<u8>) {
    let layout = layout(Some(&pair.base), &pair.target);
    let view = View { base: &pair.base, target: &pair.target, layout: &layout };
    let (head, frame) = read(bytes, view).expect("it is whole");
    let length = match head.kind {
        SegmentKind::Prefix => return (bytes.len() - frame.len(), Vec::new()),
        SegmentKind::Difference | SegmentKind::Opened => head.streams_total(),
    };
    (bytes.len() - frame.len(), zstd::bulk::decompress(frame, length).expect("decompresses"))
}

/// Decodes bytes that may be anything: whatever is handed over is right, and nothing panics.
fn survive(delta: &Delta<'_>, bytes: &[u8], source: &mut Memory<'_>) -> bool {
    let mut keep = |chunk: &ChunkRef, bytes: &[u8]| -> Result<(), PackError> {
        assert_eq!((ContentId::of(bytes), bytes.len()), (chunk.id, chunk.len as usize));
        Ok(())
    };
    delta.decode(bytes, source, &mut keep).is_ok()
}

fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

fn mutate(bytes: &mut Vec<u8>, random: &mut u64) {
    for _ in 0..splitmix(random) % 3 + 1 {
        let at = splitmix(random) as usize % bytes.len().max(1);
        let odd = [0, 1, 0x7f, 0x80, 0xff, splitmix(random) as u8];
        let byte = odd[splitmix(random) as usize % odd.len()];
        match splitmix(random) % 5 {
            0 | 1 if at < bytes.len() => bytes[at] = byte,
            2 => bytes.insert(at.min(bytes.len()), byte),
            3 if at < bytes.len() => drop(bytes.remove(at)),
            4 if splitmix(random).is_multiple_of(8) => bytes.truncate(at),
            _ => {}
        }
    }
}

#[test]
fn a_hundred_thousand_damaged_segments() {
    const ROUNDS: u64 = 100_000;
    let limit = Instant::now() + Duration::from_secs(240);
    let samples = samples();
    let cases: Vec<_> = samples
        .iter()
        .map(|(pair, files)| {
            let bytes = pair.bytes(&pair.parts[0]);
            let (frame, inside) = opened(pair, &bytes);
            (Delta::new(&pair.base, &pair.target), files, bytes, frame, inside)
        })
        .collect();
    let mut compressor = zstd::bulk::Compressor::new(1).expect("level 1");
    compressor.set_parameter(CParameter::ChecksumFlag(false)).expect("sets");
    let (mut random, mut accepted) = (20_260_714, 0);
    for round in 0..ROUNDS {
        assert!(round % 1000 > 0 || Instant::now() < limit, "stuck at round {round}");
        let (delta, files, bytes, frame, inside) = &cases[(round % 2) as usize];
        let mut mutated = bytes.clone();
        match round / 2 % 3 {
            0 => mutate(&mut mutated, &mut random),
            1 => {
                let mut head = mutated[..*frame].to_vec();
                mutate(&mut head, &mut random);
                mutated.splice(..*frame, head);
            }
            // Behind the compression: the streams themselves.
            _ => {
                let mut inside = inside.clone();
                mutate(&mut inside, &mut random);
                mutated.truncate(*frame);
                mutated.extend(compressor.compress(&inside).expect("compresses"));
            }
        }
        let mut source = Memory { files, altered: BTreeSet::new() };
        accepted += u64::from(survive(delta, &mutated, &mut source));
    }
    // Some are well formed: then what is wrong in them has been found by the chunks.
    assert!(accepted > 0 && accepted < ROUNDS / 2, "{accepted}");
}

proptest! {
    #[test]
    fn mutated_segments_never_yield_wrong_chunks(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3), 1..4),
        which in 0..2_usize,
    ) {
        thread_local!(static SAMPLES: Vec<(Pair, Files)> = samples());
        SAMPLES.with(|samples| {
            let (pair, files) = &samples[which];
            let mut bytes = pair.bytes(&pair.parts[0]);
            for (at, byte, edit) in edits {
                let at = at.index(bytes.len());
                match edit {
                    0 => bytes[at] = byte,
                    1 => bytes.truncate(at.max(1)),
                    _ => bytes.insert(at, byte),
                }
            }
            let mut source = Memory { files, altered: BTreeSet::new() };
            survive(&Delta::new(&pair.base, &pair.target), &bytes, &mut source);
        });
    }

    #[test]
    fn heads_are_read_as_they_were_written(
        bases in prop::collection::vec(prop::option::of(0..6_usize), 1..6),
        skip in 0..3_usize,
        difference in any::<bool>(),
        streams in any::<[u16; 6]>(),
    ) {
        let dir = tempfile::tempdir().expect("temp");
        let store = Store::open(dir.path()).expect("store");
        let old: Files = (0..6).map(|n| (format!("f{n}"), noise(n, 100))).collect();
        let new: Files = (0..6).map(|n| (format!("f{n}"), noise(n + 50, 400_000))).collect();
        let (base, target) = (tree(&old, &store), tree(&new, &store));
        let layout = layout(Some(&base), &target);
        let view = View { base: &base, target: &target, layout: &layout };
        let mut items: Vec<_> = bases
            .iter()
            .enumerate()
            .map(|(file, base)| Item {
                file,
                chunks: &layout[file].chunks,
                base: base.map(|base| base + 1),
            })
            .collect();
        items[0].chunks = &items[0].chunks[skip.min(items[0].chunks.len() - 1)..];
        let kind = if difference { SegmentKind::Difference } else { SegmentKind::Prefix };
        let streams = streams.map(usize::from);
        let streams = match difference {
            true => [streams[0], streams[1], streams[2], streams[3], 0, 0],
            false => [0; 6],
        };
        let mut bytes = write(kind, &items, streams, view);
        bytes.extend_from_slice(b"frame");
        let (head, rest) = read(&bytes, view).expect("it was just written");
        prop_assert_eq!((head.kind, head.items), (kind, items));
        prop_assert_eq!((head.streams, rest), (streams, &b"frame"[..]));
    }
}

#[test]
fn the_bytes_of_a_head_are_a_format() {
    let dir = tempfile::tempdir().expect("temp");
    let store = Store::open(dir.path()).expect("store");
    let files = |seed| -> Files {
        ["a", "b", "c", "d"]
            .iter()
            .zip(seed..)
            .map(|(name, n)| ((*name).into(), noise(n, 9)))
            .collect()
    };
    let (base, target) = (tree(&files(0), &store), tree(&files(9), &store));
    let layout = layout(Some(&base), &target);
    let view = View { base: &base, target: &target, layout: &layout };
    let item = |file: usize, base| Item { file, chunks: &layout[file].chunks, base };
    let items = [item(0, Some(1)), item(1, Some(2)), item(3, None)];
    let head = write(SegmentKind::Difference, &items, [1, 200, 3, 4, 0, 0], view);
    let expected =
        [b"BRDD\x01\x01".as_slice(), &[0, 3], &[2, 0, 2, 0, 1, 1, 1], &[1, 200, 1, 3, 4]];
    assert_eq!(head, expected.concat());
    let items = [item(1, Some(3)), item(2, Some(4))];
    let head = write(SegmentKind::Prefix, &items, [0; 6], view);
    assert_eq!(head, [b"BRDD\x01\x00".as_slice(), &[0, 2], &[1, 1, 2, 5]].concat());
}

/// A zip file as far as anybody needs it: deflated members, one stored, and the directory.
fn zip(members: &[(&str, Vec<u8>)], level: u8) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    let two = |n: usize| u16::try_from(n).expect("short").to_le_bytes();
    let four = |n: usize| u32::try_from(n).expect("short").to_le_bytes();
    for (n, (name, plain)) in members.iter().enumerate() {
        let stored = n == 1;
        let body = match stored {
            true => plain.clone(),
            false => miniz_oxide::deflate::compress_to_vec(plain, level),
        };
        let offset = file.len();
        let method = two(if stored { 0 } else { 8 });
        // What both headers share: version, flags, method, time, checksum, lengths, name, extra.
        let sum = ContentId::of(plain).0;
        let common = [
            &two(20)[..],
            &two(0),
            &method,
            &two(7),
            &two(7),
            &sum[..4],
            &four(body.len()),
            &four(plain.len()),
            &two(name.len()),
            &two(0),
        ]
        .concat();
        file.extend([b"PK\x03\x04", common.as_slice(), name.as_bytes(), &body].concat());
        directory.extend(
            [
                b"PK\x01\x02",
                &two(20)[..],
                &common,
                &two(0),
                &two(0),
                &two(0),
                &four(0),
                &four(offset),
                name.as_bytes(),
            ]
            .concat(),
        );
    }
    let (start, count) = (file.len(), two(members.len()));
    file.extend(&directory);
    file.extend(
        [
            b"PK\x05\x06",
            &two(0)[..],
            &two(0),
            &count,
            &count,
            &four(directory.len()),
            &four(start),
            &two(0),
        ]
        .concat(),
    );
    file
}

fn gzip(plain: &[u8], level: u8) -> Vec<u8> {
    let deflated = miniz_oxide::deflate::compress_to_vec(plain, level);
    [b"\x1f\x8b\x08\x08\0\0\0\0\0\x03name\0", deflated.as_slice(), &[1; 8]].concat()
}

fn kinds(pair: &Pair) -> Vec<u8> {
    pair.parts.iter().map(|part| pair.bytes(part)[5]).collect()
}

fn wheels() -> (Files, Files) {
    let text = body(3, 150_000, false);
    let members = |edit: &dyn Fn(&mut Vec<u8>)| {
        let mut large = text.clone();
        edit(&mut large);
        let members = [("large.py", large), ("stored", noise(4, 900)), ("b.so", programs().0)];
        let end = noise(8, 70_000);
        zip(&[&members[..], &[("last", end), ("empty", Vec::new())]].concat(), 6)
    };
    let old = one("app.whl", members(&|_| ()));
    let new = one("app.whl", members(&|large| drop(large.splice(900..900, *b"one line more\n"))));
    (old, new)
}

#[test]
fn what_is_in_a_container_is_compared_and_the_container_made_again() {
    let (old, new) = wheels();
    let pair = check(&old, &new, &["app.whl"], Sizes::REAL);
    assert_eq!(kinds(&pair), [2]);
    assert!(size(&pair) < 3_000, "{}", size(&pair));
    let mut text = body(3, 1_000_000, false);
    let old = one("src.tar.gz", gzip(&text, 9));
    text.splice(500..500, *b"one line more\n");
    let pair = check(&old, &one("src.tar.gz", gzip(&text, 9)), &["src.tar.gz"], Sizes::REAL);
    assert_eq!(kinds(&pair), [2]);
    assert!(size(&pair) < 3_000, "{}", size(&pair));
}

#[test]
fn a_container_that_is_none_stays_closed() {
    let (old, new) = wheels();
    let bytes = &new["app.whl"];
    let directory = bytes.windows(4).rposition(|four| four == b"PK\x01\x02").expect("it is there");
    let mut damaged = vec![bytes[..bytes.len() / 2].to_vec(), bytes[..bytes.len() - 30].to_vec()];
    for at in [directory + 10, directory + 20, directory + 23, directory + 42, directory + 45, 100]
    {
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x91;
        damaged.push(bytes);
    }
    damaged.push(b"PK\x03\x04".repeat(900));
    damaged.push([b"\x1f\x8b\x08\x1f".as_slice(), &noise(1, 900)].concat());
    for bytes in damaged {
        let new = one("app.whl", bytes);
        check(&old, &new, &["app.whl"], Sizes::REAL);
        check(&new, &old, &["app.whl"], Sizes::REAL);
    }
}

#[test]
fn damaged_opened_segments() {
    let (old, new) = wheels();
    let pair = Pair::new(&old, &new, Sizes::REAL);
    let bytes = pair.bytes(&pair.parts[0]);
    let (frame, inside) = opened(&pair, &bytes);
    let delta = Delta::new(&pair.base, &pair.target);
    let (mut random, limit) = (7, Instant::now() + Duration::from_secs(120));
    let layout = layout(Some(&pair.base), &pair.target);
    let view = View { base: &pair.base, target: &pair.target, layout: &layout };
    let corrections = read(&bytes, view).expect("it is whole").0.streams[5];
    for round in 0..300 {
        assert!(Instant::now() < limit, "stuck at round {round}");
        let mut mutated = bytes.clone();
        match round % 3 {
            0 => mutate(&mut mutated, &mut random),
            // What corrects a deflater is others' format, and signed: the rest is mutated.
            _ => {
                let (ours, theirs) = inside.split_at(inside.len() - corrections);
                let mut ours = ours.to_vec();
                mutate(&mut ours, &mut random);
                mutated.truncate(frame);
                let inside = [ours.as_slice(), theirs].concat();
                mutated.extend(zstd::bulk::compress(&inside, 1).expect("compresses"));
            }
        }
        survive(&delta, &mutated, &mut Memory { files: &old, altered: BTreeSet::new() });
    }
}
