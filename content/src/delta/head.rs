//! The head of a delta segment: its kind, which files of the layout it is about, and what each of
//! them is based on.
//!
//! ```text
//! magic "BRDD", version, kind     6 bytes
//! first chunk, chunks             where in the first file it begins, how many in all
//! runs                            count, then each: files passed over, files, base
//! streams                         the lengths of four: control, gaps, words, literals;
//!                                 of two more if opened: shape, corrections; none if prefix
//! ```
//!
//! Numbers are LEB128. The base of a run is 0 for "the same path in the base", 1 for none, and
//! otherwise the place of the first file's base in the base's manifest plus 2, the next file of
//! the run being based on the entry after that, and so on.
//!
//! Nothing is allocated by a number in the head: the layout, which follows from the signed
//! manifests, bounds the files, and the chunks of these files bound the output.

use super::layout::Fresh;
use super::{DIFF_RAW, DIFF_STREAMS, PREFIX_BASE, PREFIX_RAW};
use crate::manifest::{ChunkRef, Manifest};
use crate::pack::PackError;

const MAGIC: [u8; 4] = *b"BRDD";
const VERSION: u8 = 1;
const SAME_PATH: u64 = 0;
const NO_BASE: u64 = 1;
const ENTRY: u64 = 2;

/// The ways to make new bytes of old ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Prefix,
    Difference,
    Opened,
    /// Of many files, and each member is packed as it says itself.
    Mixed,
}

/// Lengths of streams: control, gaps, words, literals; in opened segments shape and corrections.
pub(super) type Lengths = [usize; 6];

/// Some chunks of one file, and the file of the base that they are made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Item<'a> {
    /// Place in the layout.
    pub(super) file: usize,
    /// A run of the file's chunks, not empty.
    pub(super) chunks: &'a [ChunkRef],
    /// Place in the base's manifest.
    pub(super) base: Option<usize>,
}

/// What the head says, checked against the manifests.
#[derive(Debug)]
pub(super) struct Head<'a> {
    pub(super) kind: Kind,
    pub(super) items: Vec<Item<'a>>,
    /// Lengths of the streams of a difference segment.
    pub(super) streams: Lengths,
}

impl Kind {
    /// How many streams are in the frame; none if it holds the chunks themselves.
    fn streams(self) -> usize {
        match self {
            Kind::Prefix => 0,
            Kind::Difference => 4,
            Kind::Opened | Kind::Mixed => 6,
        }
    }
}

impl Item<'_> {
    pub(super) fn raw(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.len as usize).fold(0, usize::saturating_add)
    }
}

/// Both ends' view of what a segment may refer to.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) base: &'a Manifest,
    pub(super) target: &'a Manifest,
    pub(super) layout: &'a [Fresh],
}

impl View<'_> {
    /// The file of the base with the path of this file of the layout.
    pub(super) fn same_path(&self, file: usize) -> Option<usize> {
        let path = &self.target.entries[self.layout[file].entry].path;
        let found = self.base.entries.binary_search_by(|entry| entry.path.cmp(path)).ok();
        found.filter(|found| !self.base.entries[*found].chunks().is_empty())
    }
}

/// Writes the head for items in the order of the layout.
pub(super) fn write(kind: Kind, items: &[Item<'_>], streams: Lengths, view: View<'_>) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&[VERSION, kind as u8]);
    let first =
        items.first().map_or(0, |item| place_of(&view.layout[item.file].chunks, item.chunks));
    number(&mut out, first as u64);
    number(&mut out, items.iter().map(|item| item.chunks.len() as u64).sum());
    let runs = runs(items, view);
    number(&mut out, runs.len() as u64);
    for (gap, files, base) in runs {
        number(&mut out, gap as u64);
        number(&mut out, files);
        number(&mut out, base);
    }
    for length in &streams[..kind.streams()] {
        number(&mut out, *length as u64);
    }
    out
}

/// Where a run of a file's chunks begins: no chunk is in a layout twice.
pub(super) fn place_of(all: &[ChunkRef], run: &[ChunkRef]) -> usize {
    run.first().and_then(|first| all.iter().position(|chunk| chunk == first)).unwrap_or(0)
}

fn runs(items: &[Item<'_>], view: View<'_>) -> Vec<(usize, u64, u64)> {
    let mut runs: Vec<(usize, u64, u64)> = Vec::new();
    let mut next = 0;
    for item in items {
        let code = match item.base {
            None => NO_BASE,
            Some(base) if view.same_path(item.file) == Some(base) => SAME_PATH,
            Some(base) => base as u64 + ENTRY,
        };
        let gap = item.file - next;
        next = item.file + 1;
        match runs.last_mut() {
            Some((_, files, base)) if gap == 0 && code == nth(*base, *files) => *files += 1,
            _ => runs.push((gap, 1, code)),
        }
    }
    runs
}

/// The base code of the nth file of a run whose first file has this one.
fn nth(code: u64, n: u64) -> u64 {
    if code < ENTRY { code } else { code.saturating_add(n) }
}

/// Reads a head, and returns what follows it.
pub(super) fn read<'a, 'b>(
    bytes: &'b [u8],
    view: View<'a>,
) -> Result<(Head<'a>, &'b [u8]), PackError> {
    let format = |what| PackError::Format { what };
    let (fixed, mut rest) = bytes.split_first_chunk::<6>().ok_or(format("it ends early"))?;
    if fixed[..4] != MAGIC {
        return Err(format("it is of another kind"));
    }
    let kind = match (fixed[4], fixed[5]) {
        (VERSION, 0) => Kind::Prefix,
        (VERSION, 1) => Kind::Difference,
        (VERSION, 2) => Kind::Opened,
        (VERSION, 3) => Kind::Mixed,
        _ => return Err(format("it is of another version")),
    };
    let mut skip = read_number(&mut rest)?;
    let mut left = read_number(&mut rest)?;
    let mut items: Vec<Item<'a>> = Vec::new();
    let mut file = 0_usize;
    for _ in 0..read_number(&mut rest)? {
        let (gap, files) = (read_number(&mut rest)?, read_number(&mut rest)?);
        let code = read_number(&mut rest)? as u64;
        file = file.saturating_add(gap);
        if files == 0 {
            return Err(format("a run of no files"));
        }
        for n in 0..files {
            let fresh = view.layout.get(file).ok_or(format("not a segment of these manifests"))?;
            let chunks = fresh.chunks.get(skip..).unwrap_or_default();
            let chunks = &chunks[..chunks.len().min(left)];
            if chunks.is_empty() {
                return Err(format("a file without chunks"));
            }
            (skip, left) = (0, left - chunks.len());
            let base = base_of(nth(code, n as u64), file, view)?;
            items.push(Item { file, chunks, base });
            file += 1;
        }
    }
    if left > 0 || items.is_empty() {
        return Err(format("its files and its chunks do not go together"));
    }
    let mut streams = [0; 6];
    for length in &mut streams[..kind.streams()] {
        *length = read_number(&mut rest)?;
    }
    let head = Head { kind, items, streams };
    head.check(view)?;
    Ok((head, rest))
}

fn base_of(code: u64, file: usize, view: View<'_>) -> Result<Option<usize>, PackError> {
    let base = match code {
        NO_BASE => return Ok(None),
        SAME_PATH => view.same_path(file),
        code => usize::try_from(code - ENTRY).ok(),
    };
    let base = base.filter(|base| view.base.entries.get(*base).is_some_and(|e| e.size() > 0));
    base.map(Some).ok_or(PackError::Format { what: "it is based on what is no file" })
}

impl Head<'_> {
    /// Bytes that the segment decodes to.
    pub(super) fn raw(&self) -> usize {
        self.items.iter().map(Item::raw).fold(0, usize::saturating_add)
    }

    /// The bases of a prefix segment, each once, in the order in which they are first used.
    pub(super) fn prefix(&self) -> Vec<usize> {
        let mut seen = std::collections::BTreeSet::new();
        let bases = self.items.iter().filter_map(|item| item.base);
        bases.filter(|base| seen.insert(*base)).collect()
    }

    /// Bytes in all streams of a difference segment.
    pub(super) fn streams_total(&self) -> usize {
        self.streams.iter().fold(0, |sum, length| sum.saturating_add(*length))
    }

    fn check(&self, view: View<'_>) -> Result<(), PackError> {
        let (raw, limit) = match self.kind {
            Kind::Prefix => (self.raw(), PREFIX_RAW),
            _ => (self.raw(), DIFF_RAW),
        };
        if raw > limit || self.streams_total() > DIFF_STREAMS {
            return Err(PackError::Format { what: "the segment is too long" });
        }
        let sizes = self.prefix().into_iter().map(|base| view.base.entries[base].size());
        let bases = sizes.fold(0, u64::saturating_add);
        if self.kind == Kind::Prefix && bases > PREFIX_BASE as u64 {
            return Err(PackError::Format { what: "the segment's bases are too long" });
        }
        if self.kind == Kind::Opened && self.items.len() > 1 {
            return Err(PackError::Format { what: "an opened segment is about one file" });
        }
        let opened = matches!(self.kind, Kind::Opened | Kind::Mixed);
        if opened && self.items.iter().any(|item| item.base.is_none()) {
            return Err(PackError::Format { what: "an opened segment without a base" });
        }
        Ok(())
    }
}

/// Appends a LEB128 number.
pub(super) fn number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a LEB128 number off the front.
pub(super) fn read_u64(bytes: &mut &[u8]) -> Result<u64, PackError> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) =
            bytes.split_first().ok_or(PackError::Format { what: "it ends early" })?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            return Err(PackError::Format { what: "a number is too large" });
        }
        value |= bits << shift;
        if *byte < 0x80 {
            return Ok(value);
        }
    }
    Err(PackError::Format { what: "a number does not end" })
}

/// Takes a number that must fit into memory's own measure.
pub(super) fn read_number(bytes: &mut &[u8]) -> Result<usize, PackError> {
    let value = read_u64(bytes)?;
    usize::try_from(value).map_err(|_| PackError::Format { what: "a number is too large" })
}
