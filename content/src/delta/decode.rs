//! Reading a delta segment with the files of the base at hand.
//!
//! Whatever the segment says is checked against the two manifests before anything is allocated:
//! there is room for what the chunks of its files have together, for the control stream, and for
//! the bases of one prefix. Bytes of the base are read chunk by chunk and checked by their ids;
//! a chunk that cannot be had counts as zeros.

use std::collections::BTreeSet;

use super::diff::{Ops, Patch};
use super::head::{Head, Kind, View, read};
use super::layout::{Fresh, layout};
use crate::id::ContentId;
use crate::manifest::{ChunkRef, Entry, Manifest};
use crate::pack::{OnChunk, PackError, decompress};

/// Old bytes that are changed in one go.
const BLOCK: usize = 64 << 10;
/// Chunks of the base that are kept at hand: 16 MiB at most, being of 256 KiB at most.
const HELD: usize = 64;

/// Where chunks of the base are read.
pub trait Base {
    /// The bytes of a chunk of a file of the base, which begins at this offset of the file. They
    /// are checked by the caller; `None` if they cannot be had.
    fn chunk(&mut self, entry: &Entry, chunk: &ChunkRef, offset: u64) -> Option<Vec<u8>>;
}

/// What a decoded segment did not bring.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decoded {
    /// Chunks of the target that came out as other bytes.
    pub wrong: Vec<ChunkRef>,
    /// Chunks of the base that were needed and could not be had. If there are none and yet a chunk
    /// is wrong, the maker of the segment is at fault.
    pub lost: Vec<ChunkRef>,
}

/// The way from one manifest to another: decodes the segments that were made for it.
#[derive(Debug)]
pub struct Delta<'a> {
    base: &'a Manifest,
    target: &'a Manifest,
    layout: Vec<Fresh>,
}

impl<'a> Delta<'a> {
    /// Compares the manifests.
    pub fn new(base: &'a Manifest, target: &'a Manifest) -> Delta<'a> {
        Delta { base, target, layout: layout(Some(base), target) }
    }

    /// Decodes a segment, and hands over each chunk that came out right. Takes 64 MiB at most,
    /// and what `f` takes.
    pub fn decode<E: From<PackError>>(
        &self,
        bytes: &[u8],
        source: &mut dyn Base,
        f: &mut OnChunk<'_, E>,
    ) -> Result<Decoded, E> {
        let view = View { base: self.base, target: self.target, layout: &self.layout };
        let (head, frame) = read(bytes, view)?;
        let mut old = Old { base: self.base, source, held: Vec::new(), lost: BTreeSet::new() };
        let mut out = Out { f, wrong: Vec::new() };
        match head.kind {
            Kind::Prefix => decode_prefix(&head, frame, &mut old, &mut out)?,
            Kind::Difference => decode_difference(&head, frame, &mut old, &mut out)?,
        }
        Ok(Decoded { wrong: out.wrong, lost: old.lost.into_iter().collect() })
    }
}

fn decode_prefix<E: From<PackError>>(
    head: &Head<'_>,
    frame: &[u8],
    old: &mut Old<'_>,
    out: &mut Out<'_, '_, E>,
) -> Result<(), E> {
    let mut prefix = Vec::new();
    for base in head.prefix() {
        // The head was checked: all bases together are short.
        let (start, size) = (prefix.len(), old.base.entries[base].size() as usize);
        prefix.resize(start + size, 0);
        old.read(base, 0, &mut prefix[start..]);
    }
    let prefix = Some(prefix.as_slice()).filter(|prefix| !prefix.is_empty());
    let raw = decompress(prefix, frame, head.raw())?;
    let mut rest = raw.as_slice();
    for chunk in head.items.iter().flat_map(|item| item.chunks) {
        let (bytes, tail) = rest.split_at(chunk.len as usize);
        out.chunk(chunk, bytes)?;
        rest = tail;
    }
    Ok(())
}

fn decode_difference<E: From<PackError>>(
    head: &Head<'_>,
    frame: &[u8],
    old: &mut Old<'_>,
    out: &mut Out<'_, '_, E>,
) -> Result<(), E> {
    let streams = decompress(None, frame, head.streams_total())?;
    let [control, gaps, words, _] = head.streams;
    let (mut control, rest) = streams.split_at(control);
    let (gaps, rest) = rest.split_at(gaps);
    let (words, mut literals) = rest.split_at(words);
    let mut patch = Patch::new(gaps, words)?;
    for item in &head.items {
        let mut chunks = Chunks { chunks: item.chunks, at: 0, buffer: Vec::new() };
        let Some(base) = item.base else {
            chunks.append(take(&mut literals, item.raw())?, out)?;
            continue;
        };
        let mut ops = Ops::new(item.raw(), old.base.entries[base].size());
        while let Some(op) = ops.next(&mut control)? {
            let (mut position, mut left) = (op.position, op.differences);
            while left > 0 {
                let mut block = vec![0; left.min(BLOCK)];
                old.read(base, position, &mut block);
                let done = patch.apply(&mut block, left > BLOCK)?;
                chunks.append(&block[..done], out)?;
                position += done as u64;
                left -= done;
            }
            chunks.append(take(&mut literals, op.literals)?, out)?;
        }
    }
    match control.is_empty() && literals.is_empty() && patch.is_done() {
        true => Ok(()),
        false => Err(PackError::Format { what: "its streams do not end with its files" }.into()),
    }
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], PackError> {
    let split = bytes.split_at_checked(length);
    let (now, later) = split.ok_or(PackError::Format { what: "its literals end early" })?;
    *bytes = later;
    Ok(now)
}

/// The chunks of one item as they fill up.
struct Chunks<'a> {
    chunks: &'a [ChunkRef],
    at: usize,
    buffer: Vec<u8>,
}

impl Chunks<'_> {
    /// How many bytes the present chunk lacks.
    fn room(&self) -> usize {
        let len = self.chunks.get(self.at).map_or(0, |chunk| chunk.len as usize);
        len - self.buffer.len()
    }

    fn append<E: From<PackError>>(
        &mut self,
        mut bytes: &[u8],
        out: &mut Out<'_, '_, E>,
    ) -> Result<(), E> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(self.room().min(bytes.len()));
            self.buffer.extend_from_slice(now);
            self.emit(out)?;
            bytes = later;
        }
        Ok(())
    }

    /// Hands over the chunk if it is full.
    fn emit<E: From<PackError>>(&mut self, out: &mut Out<'_, '_, E>) -> Result<(), E> {
        if self.room() == 0 {
            out.chunk(&self.chunks[self.at], &self.buffer)?;
            self.buffer.clear();
            self.at += 1;
        }
        Ok(())
    }
}

/// Where chunks of the target go: those that are right to the caller.
struct Out<'a, 'b, E> {
    f: &'a mut OnChunk<'b, E>,
    wrong: Vec<ChunkRef>,
}

impl<E> Out<'_, '_, E> {
    fn chunk(&mut self, chunk: &ChunkRef, bytes: &[u8]) -> Result<(), E> {
        if ContentId::of(bytes) == chunk.id {
            return (self.f)(chunk, bytes);
        }
        self.wrong.push(*chunk);
        Ok(())
    }
}

/// The base, read chunk by chunk.
struct Old<'a> {
    base: &'a Manifest,
    source: &'a mut dyn Base,
    /// The chunks read last, the most recent one last: entry, offset, bytes.
    held: Vec<(usize, u64, Vec<u8>)>,
    lost: BTreeSet<ChunkRef>,
}

impl Old<'_> {
    /// Fills `out` with the bytes of a file from an offset on; all of them are within the file.
    fn read(&mut self, entry: usize, mut offset: u64, mut out: &mut [u8]) {
        while !out.is_empty() {
            let (start, bytes) = self.at(entry, offset);
            let from = (offset - start) as usize;
            let length = (bytes.len() - from).min(out.len());
            let (now, later) = out.split_at_mut(length);
            now.copy_from_slice(&bytes[from..from + length]);
            offset += length as u64;
            out = later;
        }
    }

    /// The chunk that holds this offset, and where it begins.
    fn at(&mut self, entry: usize, offset: u64) -> (u64, &[u8]) {
        let holds = |(of, start, bytes): &(usize, u64, Vec<u8>)| {
            *of == entry && (*start..*start + bytes.len() as u64).contains(&offset)
        };
        if let Some(found) = self.held.iter().rposition(holds) {
            // A chunk in use moves to the end only from the older half: that is cheap and enough.
            if found < self.held.len() / 2 {
                let moved = self.held.remove(found);
                self.held.push(moved);
            }
        } else {
            let bytes = self.fetch(entry, offset);
            if self.held.len() >= HELD {
                self.held.remove(0);
            }
            self.held.push(bytes);
        }
        let found = self.held.iter().rposition(holds).expect("it was found or read just now");
        let (_, start, bytes) = &self.held[found];
        (*start, bytes)
    }

    fn fetch(&mut self, entry: usize, offset: u64) -> (usize, u64, Vec<u8>) {
        let file = &self.base.entries[entry];
        let mut start = 0;
        let holds = |chunk: &&ChunkRef| {
            let end = start + u64::from(chunk.len);
            let found = offset < end;
            start = if found { start } else { end };
            found
        };
        let chunk = file.chunks().iter().find(holds).expect("offsets are checked by the size");
        let bytes = self.source.chunk(file, chunk, start);
        let bytes = bytes.filter(|bytes| ContentId::of(bytes) == chunk.id);
        let bytes = bytes.filter(|bytes| bytes.len() == chunk.len as usize);
        let bytes = bytes.unwrap_or_else(|| {
            self.lost.insert(*chunk);
            vec![0; chunk.len as usize]
        });
        (entry, start, bytes)
    }
}
