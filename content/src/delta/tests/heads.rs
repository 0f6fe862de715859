//! Heads of segments: read as they were written, and a format that does not change by itself.

use proptest::prelude::*;

use super::*;
use crate::delta::head::{Item, Kind as SegmentKind, View, read, write};

proptest! {
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
