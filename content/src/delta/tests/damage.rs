//! Segments that are damaged, by chance and by intent: what is handed over is right, nothing
//! panics, and nothing takes for ever.

use ::damage::{Corpus, Random};
use proptest::prelude::*;
use zstd::bulk::Compressor;
use zstd::zstd_safe::CParameter;

use super::containers::wheels;
use super::*;
use crate::delta::head::{Kind as SegmentKind, View, read};
use crate::delta::members::members;
use crate::delta::opened::{Shape, expand_old};

#[test]
fn a_hundred_thousand_damaged_segments() {
    let samples = samples();
    let mut cases: Vec<_> = samples.iter().map(|(pair, files)| Case::new(pair, files, 0)).collect();
    let survived = ::damage::run("delta segments", 100_000, |random| {
        let which = random.below(cases.len());
        cases[which].play(random)
    });
    // Some are well formed: then what is wrong in them has been found by the chunks.
    assert!(survived.accepted > 0 && survived.accepted < survived.rounds / 2, "{survived:?}");
}

#[test]
fn damaged_opened_segments() {
    let (old, new) = wheels();
    let pair = Pair::new(&old, &new, Sizes::REAL);
    let bytes = pair.bytes(&pair.parts[0]);
    let layout = layout(Some(&pair.base), &pair.target);
    let view = View { base: &pair.base, target: &pair.target, layout: &layout };
    // What corrects a deflater is others' format, and signed: the rest is damaged. Few times, for
    // if lengths are damaged it shifts, and then others' code may never come to an end.
    let corrections = read(&bytes, view).expect("it is whole").0.streams[5];
    let mut case = Case::new(&pair, &old, corrections);
    ::damage::run("opened wheels", 300, |random| case.play(random));
}

#[test]
fn damaged_mixed_segments() {
    let text = body(3, 6_000, false);
    let pack = |text: &[u8]| -> Files {
        [("a.deb", packed::deb(text)), ("b.ko.xz", packed::xz(text, 1))]
            .map(|(path, bytes)| (path.to_owned(), bytes))
            .into()
    };
    let (old, new) = (pack(&text), pack(&[&text[..2_900], b"more", &text[2_900..]].concat()));
    let pair = Pair::new(&old, &new, Sizes::REAL);
    assert_eq!(containers::kinds(&pair), [3]);
    let mut case = Case::new(&pair, &old, 0);
    let survived = ::damage::run("mixed segments", 600, |random| case.play(random));
    assert!(survived.accepted > 0, "{survived:?}");
}

#[test]
fn damaged_containers_have_their_members_inside() {
    let text = body(3, 6_000, false);
    let samples = [
        wheels().0["app.whl"].clone(),
        containers::gzip(&text, 6),
        packed::deb(&text),
        packed::xz(&text, 1),
    ];
    let survived = ::damage::survive("containers", &samples, 40_000, |file| {
        let (found, mut end) = (members(file), 0);
        for (range, _) in &found {
            assert!(end <= range.start && range.start < range.end && range.end <= file.len());
            end = range.end;
        }
        !found.is_empty()
    });
    assert!(survived.accepted > survived.rounds / 10, "{survived:?}");
    ::damage::survive("members", &samples[1..], 3_000, |file| {
        let expanded = expand_old(file, &members(file));
        expanded.is_some_and(|(members, expansion)| {
            let shape = Shape { old: members, ..Shape::default() };
            assert_eq!(shape.old_length(file.len() as u64), expansion.len() as u64);
            true
        })
    });
}

/// A segment to be damaged: as it is, in its head, or behind the compression, all but its last
/// bytes.
struct Case<'a> {
    delta: Delta<'a>,
    files: &'a Files,
    /// The head, what follows it, and the last bytes of what is in that.
    parts: [Vec<u8>; 3],
    corpora: [Corpus; 3],
    compressor: Compressor<'static>,
}

impl<'a> Case<'a> {
    fn new(pair: &'a Pair, files: &'a Files, spared: usize) -> Case<'a> {
        let bytes = pair.bytes(&pair.parts[0]);
        let (frame, inside) = opened(pair, &bytes);
        let delta = Delta::new(&pair.base, &pair.target);
        // Without a checksum: what is in the frame is looked at.
        let mut compressor = Compressor::new(1).expect("level 1");
        compressor.set_parameter(CParameter::ChecksumFlag(false)).expect("sets");
        let mut source = Memory { files, altered: BTreeSet::new() };
        assert!(survive(&delta, &bytes, &mut source), "it is refused as it is");
        let ([head, rest], [ours, theirs]) =
            (halves(&bytes, frame), halves(&inside, inside.len() - spared));
        let corpora = [bytes, head.clone(), ours].map(|sample| Corpus::new(&[sample]));
        Case { delta, files, parts: [head, rest, theirs], corpora, compressor }
    }

    /// Damages it once; whether it is accepted.
    fn play(&mut self, random: &mut Random) -> bool {
        let Case { delta, files, parts: [head, rest, theirs], corpora, compressor } = self;
        let decode = |bytes: &[u8]| {
            let mut source = Memory { files, altered: BTreeSet::new() };
            survive(delta, bytes, &mut source)
        };
        let way = random.below(3);
        corpora[way].play(random, |damaged| match way {
            0 => decode(damaged),
            1 => decode(&[damaged, rest].concat()),
            _ => {
                let inside = compressor.compress(&[damaged, theirs].concat()).expect("fits");
                decode(&[&**head, &inside].concat())
            }
        })
    }
}

fn halves(bytes: &[u8], at: usize) -> [Vec<u8>; 2] {
    let (first, second) = bytes.split_at(at);
    [first, second].map(<[u8]>::to_vec)
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
pub(super) fn opened(pair: &Pair, bytes: &[u8]) -> (usize, Vec<u8>) {
    let layout = layout(Some(&pair.base), &pair.target);
    let view = View { base: &pair.base, target: &pair.target, layout: &layout };
    let (head, frame) = read(bytes, view).expect("it is whole");
    let length = match head.kind {
        SegmentKind::Prefix => return (bytes.len() - frame.len(), Vec::new()),
        _ => head.streams_total(),
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
