//! Containers, opened: zip files (wheels, jars) and gzip files, whose deflated members are taken
//! apart and made again bit for bit.
//!
//! The idea: a deflated file changes all over when one byte of what is in it does, so differences
//! are made between what is *in* the old and the new file. The encoder finds, for each deflated
//! member, what its deflater did otherwise than a known one would have (the `preflate` method),
//! and these corrections travel; the host inflates the members of the old file, makes the new plain
//! bytes of them, and deflates these again as the corrections say.
//!
//! A file is a sequence of plain members between bytes that stay as they are; this sequence with
//! its members plain is its *expansion*. A member that both files have stays closed in both: it
//! needs no corrections. So does what cannot be made again exactly, and any file whose structure
//! is not understood.

use std::io::Cursor;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_HAS_MORE_INPUT;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};
use preflate_rs::{ExitCode, PreflateConfig, PreflateStreamProcessor, RecreateStreamProcessor};

use super::head::{number, read_u64};
use crate::pack::PackError;

/// An expansion is no longer.
pub(super) const EXPANDED: u64 = 256 << 20;
/// Plain bytes that are deflated in one go.
const PIECE: usize = 4 << 20;
/// Members of an old file, and pieces of a new one, at most.
const MEMBERS: u64 = 1 << 17;
/// Deflated bytes that are looked at in one go; a block that is longer takes more.
const FEED: usize = 256 << 10;
/// What inflating looks back on.
const WINDOW: usize = 32 << 10;

/// A deflated member of an old file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Member {
    /// Bytes before it, from the last one on.
    pub(super) gap: u64,
    /// Its bytes in the file.
    pub(super) deflated: u64,
    /// Its plain bytes.
    pub(super) plain: u64,
}

/// A part of a deflated member of a new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    /// Bytes before it, from the last one on; none unless it begins a member.
    pub(super) gap: u64,
    /// Its plain bytes.
    pub(super) plain: u64,
    /// Its corrections.
    pub(super) corrections: u64,
    /// Whether it begins a member.
    pub(super) begins: bool,
}

/// How both expansions are made up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) old: Vec<Member>,
    pub(super) new: Vec<Piece>,
    /// Length of the new expansion.
    pub(super) length: u64,
}

impl Shape {
    pub(super) fn write(&self) -> Vec<u8> {
        let mut out = Vec::new();
        number(&mut out, self.length);
        number(&mut out, self.old.len() as u64);
        for member in &self.old {
            for n in [member.gap, member.deflated, member.plain] {
                number(&mut out, n);
            }
        }
        number(&mut out, self.new.len() as u64);
        for piece in &self.new {
            let corrections = piece.corrections << 1 | u64::from(piece.begins);
            for n in [piece.gap, piece.plain, corrections] {
                number(&mut out, n);
            }
        }
        out
    }

    /// Reads a shape for an old file of this size. Nothing in it is longer than it may be.
    pub(super) fn read(mut bytes: &[u8], old_size: u64) -> Result<Shape, PackError> {
        let refuse = |what| PackError::Format { what };
        let mut shape = Shape { length: read_u64(&mut bytes)?, ..Shape::default() };
        let (mut used, mut expanded) = (0_u64, 0_u64);
        for _ in 0..count(&mut bytes)? {
            let [gap, deflated, plain] =
                [read_u64(&mut bytes)?, read_u64(&mut bytes)?, read_u64(&mut bytes)?];
            used = used.saturating_add(gap).saturating_add(deflated);
            expanded = expanded.saturating_add(gap).saturating_add(plain);
            shape.old.push(Member { gap, deflated, plain });
        }
        let rest = old_size.checked_sub(used).ok_or(refuse("its members are not in the base"))?;
        let mut new = 0_u64;
        for _ in 0..count(&mut bytes)? {
            let [gap, plain, corrections] =
                [read_u64(&mut bytes)?, read_u64(&mut bytes)?, read_u64(&mut bytes)?];
            let begins = corrections & 1 == 1;
            new = new.saturating_add(gap).saturating_add(plain);
            if plain > PIECE as u64 || (gap > 0 && !begins) {
                return Err(refuse("a piece of a member is not as it must be"));
            }
            shape.new.push(Piece { gap, plain, corrections: corrections >> 1, begins });
        }
        let longest = expanded.saturating_add(rest).max(shape.length);
        match longest <= EXPANDED && new <= shape.length && bytes.is_empty() {
            true => Ok(shape),
            false => Err(refuse("its members are too long")),
        }
    }

    /// Length of the old expansion.
    pub(super) fn old_length(&self, old_size: u64) -> u64 {
        let deflated: u64 = self.old.iter().map(|member| member.deflated).sum();
        let plain: u64 = self.old.iter().map(|member| member.plain).sum();
        old_size - deflated + plain
    }
}

fn count(bytes: &mut &[u8]) -> Result<u64, PackError> {
    let count = read_u64(bytes)?;
    let few = (count <= MEMBERS).then_some(count);
    few.ok_or(PackError::Format { what: "it has too many members" })
}

/// Where the deflated members of a zip or gzip file may be, in order; none if it is neither.
pub(super) fn members(file: &[u8]) -> Vec<Range<usize>> {
    match file {
        [b'P', b'K', 3, 4, ..] => zip(file).unwrap_or_default(),
        [0x1f, 0x8b, 8, flags, ..] => gzip(file, *flags).into_iter().collect(),
        _ => Vec::new(),
    }
}

/// Whether a file that begins like this may have deflated members.
pub(super) fn is_container(start: &[u8]) -> bool {
    matches!(start, [b'P', b'K', 3, 4, ..] | [0x1f, 0x8b, 8, ..])
}

/// By the central directory: local headers may leave lengths out.
fn zip(file: &[u8]) -> Option<Vec<Range<usize>>> {
    let tail = file.len().saturating_sub(0xffff + 22);
    let end = tail + file[tail..].windows(4).rposition(|four| four == b"PK\x05\x06")?;
    let two = |at: usize| Some(u16::from_le_bytes(file.get(at..at + 2)?.try_into().ok()?).into());
    let four = |at: usize| -> Option<usize> {
        usize::try_from(u32::from_le_bytes(file.get(at..at + 4)?.try_into().ok()?)).ok()
    };
    let (count, mut at): (usize, usize) = (two(end + 10)?, four(end + 16)?);
    let mut members = Vec::new();
    for _ in 0..count {
        let [method, name, extra, comment] =
            [two(at + 10)?, two(at + 28)?, two(at + 30)?, two(at + 32)?];
        let (deflated, local) = (four(at + 20)?, four(at + 42)?);
        let start = local.checked_add(30)? + two(local + 26)? + two(local + 28)?;
        if method == 8 && deflated > 0 {
            members.push(start..start.checked_add(deflated)?);
        }
        at += 46 + name + extra + comment;
    }
    members.sort_by_key(|member| member.start);
    let apart = members.windows(2).all(|pair| pair[0].end <= pair[1].start);
    let inside = members.last().is_none_or(|last| last.end <= file.len());
    (apart && inside).then_some(members)
}

/// A gzip file of one member, which ends eight bytes before the file does.
fn gzip(file: &[u8], flags: u8) -> Option<Range<usize>> {
    let mut at = 10;
    if flags & 4 != 0 {
        at += 2 + usize::from(u16::from_le_bytes(file.get(at..at + 2)?.try_into().ok()?));
    }
    for text in [8, 16] {
        if flags & text != 0 {
            at += 1 + file.get(at..)?.iter().position(|byte| *byte == 0)?;
        }
    }
    at += if flags & 2 != 0 { 2 } else { 0 };
    let end = file.len().checked_sub(8)?;
    (at < end).then_some(at..end)
}

/// The expansion of an old file: those of the members that inflate, and all bytes.
pub(super) fn expand_old(file: &[u8], ranges: &[Range<usize>]) -> Option<(Vec<Member>, Vec<u8>)> {
    let (mut members, mut expansion, mut at) = (Vec::new(), Vec::new(), 0);
    for range in ranges {
        let before = expansion.len();
        expansion.extend_from_slice(&file[at..range.start]);
        let gap = range.start - at;
        let start = expansion.len();
        let room = (EXPANDED as usize).saturating_sub(start);
        let mut source = &file[range.clone()];
        let mut read = |out: &mut [u8]| {
            let (now, later) = source.split_at(out.len().min(source.len()));
            out[..now.len()].copy_from_slice(now);
            source = later;
            now.len()
        };
        let inflated = inflate(&mut read, room as u64, &mut |bytes| -> Result<(), ()> {
            expansion.extend_from_slice(bytes);
            Ok(())
        });
        // Whatever does not inflate to its very end stays as it is.
        if inflated.is_ok_and(|whole| whole) {
            let plain = (expansion.len() - start) as u64;
            let (gap, deflated) = (gap as u64, range.len() as u64);
            members.push(Member { gap, deflated, plain });
            at = range.end;
        } else {
            expansion.truncate(before);
        }
    }
    expansion.extend_from_slice(&file[at..]);
    let fits = expansion.len() as u64 <= EXPANDED && members.len() as u64 <= MEMBERS;
    (fits && !members.is_empty()).then_some((members, expansion))
}

/// Inflates all that `read` gives. Whether the stream ended with it, and within the limit.
pub(super) fn inflate<E>(
    read: &mut dyn FnMut(&mut [u8]) -> usize,
    limit: u64,
    sink: &mut dyn FnMut(&[u8]) -> Result<(), E>,
) -> Result<bool, E> {
    let mut inflater = Box::new(DecompressorOxide::new());
    let (mut input, mut filled, mut used) = (vec![0; 64 << 10], 0, 0);
    let (mut window, mut at, mut total) = (vec![0; 2 * WINDOW], 0, 0_u64);
    loop {
        if used == filled {
            (filled, used) = (read(&mut input), 0);
        }
        let flags = if filled > 0 { TINFL_FLAG_HAS_MORE_INPUT } else { 0 };
        let (status, taken, made) =
            decompress(&mut inflater, &input[used..filled], &mut window, at, flags);
        used += taken;
        total += made as u64;
        if total > limit {
            return Ok(false);
        }
        sink(&window[at..at + made])?;
        at = (at + made) % window.len();
        match status {
            TINFLStatus::Done => return Ok(used == filled && read(&mut input) == 0),
            TINFLStatus::NeedsMoreInput if filled > 0 => {}
            TINFLStatus::HasMoreOutput => {}
            _ => return Ok(false),
        }
    }
}

/// The expansion of a new file, and what makes the file of it.
pub(super) struct Opened {
    pub(super) pieces: Vec<Piece>,
    pub(super) expansion: Vec<u8>,
    pub(super) corrections: Vec<u8>,
}

/// Expands a new file at these members; `None` if none of them can be made again.
pub(super) fn expand_new(file: &[u8], ranges: &[Range<usize>]) -> Option<Opened> {
    let mut opened = Opened { pieces: Vec::new(), expansion: Vec::new(), corrections: Vec::new() };
    let mut at = 0;
    for range in ranges {
        let Some(pieces) = take_apart(&file[range.clone()]) else { continue };
        let plain: usize = pieces.iter().map(|(plain, _)| plain.len()).sum();
        let gap = range.start - at;
        if opened.expansion.len() + gap + plain > EXPANDED as usize {
            break;
        }
        opened.expansion.extend_from_slice(&file[at..range.start]);
        for (n, (plain, corrections)) in pieces.iter().enumerate() {
            opened.pieces.push(Piece {
                gap: if n == 0 { gap as u64 } else { 0 },
                plain: plain.len() as u64,
                corrections: corrections.len() as u64,
                begins: n == 0,
            });
            opened.expansion.extend_from_slice(plain);
            opened.corrections.extend_from_slice(corrections);
        }
        at = range.end;
    }
    opened.expansion.extend_from_slice(&file[at..]);
    let few = opened.pieces.len() as u64 <= MEMBERS;
    let fits = few && opened.expansion.len() as u64 <= EXPANDED;
    (fits && !opened.pieces.is_empty()).then_some(opened)
}

/// The plain bytes of a member and the corrections, piece by piece.
fn take_apart(member: &[u8]) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let config = PreflateConfig {
        plain_text_limit: PIECE,
        verify_compression: true,
        ..PreflateConfig::default()
    };
    let attempt = || -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut processor = PreflateStreamProcessor::new(&config);
        let (mut pieces, mut start, mut end) = (Vec::new(), 0, FEED.min(member.len()));
        let mut corrections = 0;
        while !processor.is_done() {
            match processor.decompress(&member[start..end]) {
                Ok(piece) => {
                    let plain = processor.plain_text().text().to_vec();
                    // Nothing gained, or not a member of one deflated stream alone.
                    if plain.is_empty() && piece.compressed_size == 0 {
                        return None;
                    }
                    corrections += piece.corrections.len();
                    pieces.push((plain, piece.corrections));
                    processor.shrink_to_dictionary();
                    start += piece.compressed_size;
                    end = (start + FEED).min(member.len());
                }
                Err(error) if error.exit_code() == ExitCode::ShortRead && end < member.len() => {
                    end = (end + FEED).min(member.len());
                }
                Err(_) => return None,
            }
        }
        // Corrections as long as the member are as good as none.
        (start == member.len() && corrections < member.len() / 2).then_some(pieces)
    };
    // It is others' code on bytes that nobody has checked: a panic in it is a "no".
    catch_unwind(AssertUnwindSafe(attempt)).ok().flatten()
}

/// Makes deflated members again.
pub(super) struct Remake {
    processor: Option<RecreateStreamProcessor>,
}

impl Remake {
    pub(super) fn new() -> Remake {
        Remake { processor: None }
    }

    /// The deflated bytes of a piece.
    pub(super) fn piece(
        &mut self,
        begins: bool,
        plain: &[u8],
        corrections: &[u8],
    ) -> Result<Vec<u8>, PackError> {
        let refuse = || PackError::Format { what: "a member cannot be made again" };
        let fresh = begins.then(RecreateStreamProcessor::new);
        let mut processor = fresh.or(self.processor.take()).ok_or_else(refuse)?;
        let attempt = || {
            let made = processor.recompress(&mut Cursor::new(plain), corrections);
            made.ok().map(|(deflated, _)| (deflated, processor))
        };
        let made = catch_unwind(AssertUnwindSafe(attempt)).ok().flatten();
        let (deflated, processor) = made.ok_or_else(refuse)?;
        self.processor = Some(processor);
        Ok(deflated)
    }
}
