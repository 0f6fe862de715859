//! Decoding an opened segment: the members of the old container unpacked, those of the new one
//! packed again.
//!
//! The expansion of the old file goes to a scratch file, since differences refer to any place in
//! it; that of the new one is made from its beginning to its end and is never whole anywhere. At
//! most 4 MiB of it are packed at once. If a piece of the old file is not as it should be,
//! nothing of the new one can be made, and all of its chunks count as wrong; so do those that come
//! out otherwise, or not at all, because members are not packed here as they were.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::FileExt as _;

use super::codec::Packer;
use super::decode::{Making, Old, Out, take};
use super::head::{Head, View};
use super::opened::{EXPANDED, Piece, SLOW, Shape};
use crate::manifest::ChunkRef;
use crate::pack::{PackError, decompress};

pub(super) fn decode_opened<E: From<PackError>>(
    head: &Head<'_>,
    frame: &[u8],
    view: View<'_>,
    old: &mut Old<'_>,
    out: &mut Out<'_, '_, E>,
) -> Result<(), E> {
    let refuse = |what| PackError::Format { what };
    let streams = decompress(None, frame, head.streams_total())?;
    let (mut making, [mut shapes, mut corrections]) = Making::new(&streams, head)?;
    let (mut room, mut slow) = (EXPANDED, SLOW);
    for item in &head.items {
        let base = item.base.ok_or(refuse("an opened segment without a base"))?;
        let size = view.base.entries[base].size();
        let entry = &view.target.entries[view.layout[item.file].entry];
        let shape = Shape::read(&mut shapes, size, head.kind)?;
        let old_length = shape.old_length(size);
        let longest = size.max(entry.size()).max(old_length).max(shape.length);
        room = room.checked_sub(longest).ok_or(refuse("the containers are too long"))?;
        slow = slow.checked_sub(shape.slow()).ok_or(refuse("it has too many members"))?;
        let corrections = take(&mut corrections, shape.corrections())?;
        let expansion = expand(base, size, &shape, old);
        let chunks = view.base.entries[base].chunks();
        if chunks.iter().any(|chunk| old.lost.contains(chunk)) {
            check_all(base, size, old);
            out.wrong.extend(item.chunks);
            // The streams are used up as ever.
            let mut zeros = |_: u64, block: &mut [u8]| -> Result<(), PackError> {
                block.fill(0);
                Ok(())
            };
            making.file(shape.length, old_length, &mut zeros, &mut |_| Ok::<_, E>(()))?;
            continue;
        }
        let expansion = expansion?;
        let wanted = item.chunks.iter().copied().collect();
        let writing =
            Writing { chunks: entry.chunks(), wanted, buffer: Vec::new(), is_spoiled: false, out };
        let mut closing = Closing {
            pieces: &shape.new,
            plain: Vec::new(),
            gap: None,
            corrections,
            writing,
            packer: None,
        };
        let mut read =
            |at: u64, block: &mut [u8]| expansion.read_exact_at(block, at).map_err(scratch);
        making.file(shape.length, old_length, &mut read, &mut |bytes| closing.push(bytes))?;
        closing.end();
    }
    if !shapes.is_empty() || !corrections.is_empty() {
        return Err(refuse("its streams do not end with its files").into());
    }
    Ok(making.end()?)
}

fn scratch(source: std::io::Error) -> PackError {
    PackError::Scratch(source)
}

/// Writes the expansion of the old file.
fn expand(base: usize, size: u64, shape: &Shape, old: &mut Old<'_>) -> Result<File, PackError> {
    let file = old.source.scratch().map_err(scratch)?;
    let mut to = BufWriter::with_capacity(256 << 10, file);
    let mut at = 0;
    for member in &shape.old {
        copy(base, at, member.gap, old, &mut to)?;
        at += member.gap;
        let mut left = member.packed;
        let (mut position, mut plain) = (at, 0);
        let mut read = |block: &mut [u8]| {
            let now = block.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            old.read(base, position, &mut block[..now]);
            position += now as u64;
            left -= now as u64;
            now
        };
        let whole = member.codec.unpack(&mut read, member.plain, &mut |bytes| {
            plain += bytes.len() as u64;
            to.write_all(bytes).map_err(scratch)
        })?;
        if !whole || plain != member.plain {
            return Err(PackError::Format { what: "a member of the base is not as it says" });
        }
        at += member.packed;
    }
    copy(base, at, size - at, old, &mut to)?;
    to.into_inner().map_err(|error| scratch(error.into_error()))
}

fn copy(
    base: usize,
    from: u64,
    length: u64,
    old: &mut Old<'_>,
    to: &mut BufWriter<File>,
) -> Result<(), PackError> {
    let (mut at, end) = (from, from + length);
    while at < end {
        let mut block = vec![0; (end - at).min(64 << 10) as usize];
        old.read(base, at, &mut block);
        to.write_all(&block).map_err(scratch)?;
        at += block.len() as u64;
    }
    Ok(())
}

/// Looks at every piece of the base, so that all that are lost are known.
fn check_all(base: usize, size: u64, old: &mut Old<'_>) {
    let mut block = [0; 16 << 10];
    for at in (0..size).step_by(block.len()) {
        let length = (size - at).min(block.len() as u64) as usize;
        old.read(base, at, &mut block[..length]);
    }
}

/// Turns the expansion of the new file into the file.
struct Closing<'a, 'o, 'p, 'b, E> {
    pieces: &'a [Piece],
    /// What is left of the gap before the first of the pieces; `None` if it was not begun.
    gap: Option<u64>,
    /// Plain bytes of the first of the pieces so far.
    plain: Vec<u8>,
    corrections: &'a [u8],
    /// None if no member was begun, or the last one could not be packed.
    packer: Option<Packer>,
    writing: Writing<'a, 'o, 'p, 'b, E>,
}

impl<E> Closing<'_, '_, '_, '_, E> {
    fn push(&mut self, mut bytes: &[u8]) -> Result<(), E> {
        loop {
            let Some((piece, later)) = self.pieces.split_first() else {
                return self.writing.append(bytes);
            };
            let gap = *self.gap.get_or_insert(piece.gap);
            if gap > 0 {
                let (now, rest) = bytes.split_at(bytes.len().min(gap as usize));
                self.writing.append(now)?;
                self.gap = Some(gap - now.len() as u64);
                bytes = rest;
            } else {
                let room = piece.plain as usize - self.plain.len();
                let (now, rest) = bytes.split_at(bytes.len().min(room));
                self.plain.extend_from_slice(now);
                bytes = rest;
                if self.plain.len() as u64 == piece.plain {
                    self.close(piece, later.first().is_none_or(|next| next.begins.is_some()))?;
                    (self.pieces, self.gap) = (later, None);
                    continue;
                }
            }
            if bytes.is_empty() {
                return Ok(());
            }
        }
    }

    fn close(&mut self, piece: &Piece, is_last: bool) -> Result<(), E> {
        // All corrections together are as long as the pieces say.
        let (corrections, later) = self.corrections.split_at(piece.corrections as usize);
        self.corrections = later;
        if let Some(codec) = &piece.begins {
            // The one before it goes first: it may take 100 MiB.
            self.packer = None;
            self.packer = Packer::new(codec);
        }
        let packed = self.packer.as_mut().filter(|_| !self.writing.is_spoiled);
        let packed = packed.and_then(|packer| packer.piece(&self.plain, corrections, is_last));
        self.plain.clear();
        match packed {
            Some(packed) => self.writing.append(&packed),
            None => {
                self.writing.is_spoiled = true;
                Ok(())
            }
        }
    }

    /// Chunks that were not made are wrong.
    fn end(self) {
        self.writing.out.wrong.extend(self.writing.wanted);
    }
}

/// The new file, of which only some chunks are wanted.
struct Writing<'a, 'o, 'p, 'b, E> {
    /// Those that are not full yet.
    chunks: &'a [ChunkRef],
    wanted: BTreeSet<ChunkRef>,
    buffer: Vec<u8>,
    /// Whether a member could not be made: then no byte after it is at its place.
    is_spoiled: bool,
    out: &'o mut Out<'p, 'b, E>,
}

impl<E> Writing<'_, '_, '_, '_, E> {
    fn append(&mut self, mut bytes: &[u8]) -> Result<(), E> {
        while !bytes.is_empty() && !self.is_spoiled {
            let Some((chunk, later)) = self.chunks.split_first() else {
                // It is longer than it should be; what there should be has been made.
                return Ok(());
            };
            let room = chunk.len as usize - self.buffer.len();
            let (now, rest) = bytes.split_at(bytes.len().min(room));
            self.buffer.extend_from_slice(now);
            bytes = rest;
            if self.buffer.len() == chunk.len as usize {
                if self.wanted.remove(chunk) {
                    self.out.chunk(chunk, &self.buffer)?;
                }
                self.buffer.clear();
                self.chunks = later;
            }
        }
        Ok(())
    }
}
