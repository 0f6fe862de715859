//! Segments that are damaged, by chance and by intent: what is handed over is right, nothing
//! panics, and nothing takes for ever.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use zstd::zstd_safe::CParameter;

use super::containers::wheels;
use super::*;
use crate::delta::head::{Kind as SegmentKind, View, read};

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
