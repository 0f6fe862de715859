//! Reading a delta segment with the files of the base at hand.
//!
//! Whatever the segment says is checked against the two manifests before anything is allocated:
//! there is room for what the chunks of its files have together, for the control stream, and for
//! the bases of one prefix. Bytes of the base are read chunk by chunk and checked by their ids;
//! a chunk that cannot be had counts as zeros.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;

use super::diff::{Ops, Patch};
use super::head::{Head, Kind, View, read};
use super::layout::{Fresh, layout};
use super::remade::decode_opened;
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

    /// An empty file without a name, for what is in a container: 256 MiB at most.
    fn scratch(&mut self) -> io::Result<File>;
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

    /// The chunks that a segment brings, by its head: nothing is decoded.
    pub fn chunks(&self, bytes: &[u8]) -> Result<Vec<ChunkRef>, PackError> {
        let view = View { base: self.base, target: self.target, layout: &self.layout };
        let (head, _) = read(bytes, view)?;
        Ok(head.items.iter().flat_map(|item| item.chunks).copied().collect())
    }

    /// Decodes a segment, and hands over each chunk that came out right. Takes 64 MiB at most, 96
    /// more while it packs by xz, and what `f` takes.
    pub fn decode<E: From<PackError>>(
        &self,
        bytes: &[u8],
        source: &mut dyn Base,
        f: &mut OnChunk<'_, E>,
    ) -> Result<Decoded, E> {
        let view = View { base: self.base, target: self.target, layout: &self.layout };
        let (head, frame) = read(bytes, view)?;
        let mut old = Old::new(self.base, source);
        let mut out = Out { f, wrong: Vec::new() };
        match head.kind {
            Kind::Prefix => decode_prefix(&head, frame, &mut old, &mut out)?,
            Kind::Difference => decode_difference(&head, frame, &mut old, &mut out)?,
            Kind::Opened | Kind::Mixed => {
                decode_opened(&head, frame, view, &mut old, &mut out)?;
            }
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
    let (mut making, _) = Making::new(&streams, head)?;
    for item in &head.items {
        let mut chunks = Chunks { chunks: item.chunks, at: 0, buffer: Vec::new() };
        let mut sink = |bytes: &[u8]| chunks.append(bytes, out);
        let Some(base) = item.base else {
            sink(take(&mut making.literals, item.raw())?)?;
            continue;
        };
        let size = old.base.entries[base].size();
        making.file(
            item.raw() as u64,
            size,
            &mut |at, block| {
                old.read(base, at, block);
                Ok(())
            },
            &mut sink,
        )?;
    }
    Ok(making.end()?)
}

/// Fills a block with old bytes from a place on.
pub(super) type ReadOld<'a> = dyn FnMut(u64, &mut [u8]) -> Result<(), PackError> + 'a;

/// The streams of a segment while they are used up.
pub(super) struct Making<'a> {
    control: &'a [u8],
    patch: Patch<'a>,
    literals: &'a [u8],
}

impl<'a> Making<'a> {
    /// Also returns the streams that are not about differences: shape and corrections.
    pub(super) fn new(
        streams: &'a [u8],
        head: &Head<'_>,
    ) -> Result<(Making<'a>, [&'a [u8]; 2]), PackError> {
        let mut rest = streams;
        let mut next = |n: usize| take(&mut rest, head.streams[n]);
        let (control, gaps, words) = (next(0)?, next(1)?, next(2)?);
        let (literals, shape, corrections) = (next(3)?, next(4)?, next(5)?);
        let making = Making { control, patch: Patch::new(gaps, words)?, literals };
        Ok((making, [shape, corrections]))
    }

    /// Makes `raw` new bytes of `size` old ones.
    pub(super) fn file<E: From<PackError>>(
        &mut self,
        raw: u64,
        size: u64,
        read: &mut ReadOld<'_>,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let raw = usize::try_from(raw).map_err(|_| PackError::Format { what: "it is too long" })?;
        let mut ops = Ops::new(raw, size);
        while let Some(op) = ops.next(&mut self.control)? {
            let (mut position, mut left) = (op.position, op.differences);
            while left > 0 {
                let mut block = vec![0; left.min(BLOCK)];
                read(position, &mut block)?;
                let done = self.patch.apply(&mut block, left > BLOCK)?;
                sink(&block[..done])?;
                position += done as u64;
                left -= done;
            }
            sink(take(&mut self.literals, op.literals)?)?;
        }
        Ok(())
    }

    /// Checks that nothing is left.
    pub(super) fn end(&self) -> Result<(), PackError> {
        match self.control.is_empty() && self.literals.is_empty() && self.patch.is_done() {
            true => Ok(()),
            false => Err(PackError::Format { what: "its streams do not end with its files" }),
        }
    }
}

pub(super) fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], PackError> {
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
pub(super) struct Out<'a, 'b, E> {
    f: &'a mut OnChunk<'b, E>,
    pub(super) wrong: Vec<ChunkRef>,
}

impl<E> Out<'_, '_, E> {
    pub(super) fn chunk(&mut self, chunk: &ChunkRef, bytes: &[u8]) -> Result<(), E> {
        if ContentId::of(bytes) == chunk.id {
            return (self.f)(chunk, bytes);
        }
        self.wrong.push(*chunk);
        Ok(())
    }
}

/// The base, read chunk by chunk.
pub(super) struct Old<'a> {
    pub(super) base: &'a Manifest,
    pub(super) source: &'a mut dyn Base,
    /// The chunks read last, the most recent one last: entry, offset, bytes.
    held: Vec<(usize, u64, Vec<u8>)>,
    /// Where the chunks of the file read last begin.
    starts: (usize, Vec<u64>),
    pub(super) lost: BTreeSet<ChunkRef>,
}

impl<'a> Old<'a> {
    fn new(base: &'a Manifest, source: &'a mut dyn Base) -> Old<'a> {
        // No entry has this number, so the first file read is another.
        let starts = (usize::MAX, Vec::new());
        Old { base, source, held: Vec::new(), starts, lost: BTreeSet::new() }
    }

    /// Fills `out` with the bytes of a file from an offset on; all of them are within the file.
    pub(super) fn read(&mut self, entry: usize, mut offset: u64, mut out: &mut [u8]) {
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
        let found = self.held.iter().rposition(holds);
        let found = found.unwrap_or_else(|| {
            let (start, bytes) = self.fetch(entry, offset);
            if self.held.len() >= HELD {
                self.held.remove(0);
            }
            self.held.push((entry, start, bytes));
            self.held.len() - 1
        });
        let (_, start, bytes) = &self.held[found];
        (*start, bytes)
    }

    fn fetch(&mut self, entry: usize, offset: u64) -> (u64, Vec<u8>) {
        let file = &self.base.entries[entry];
        if self.starts.0 != entry {
            let mut end = 0;
            let starts = file.chunks().iter().map(|chunk| {
                end += u64::from(chunk.len);
                end - u64::from(chunk.len)
            });
            self.starts = (entry, starts.collect());
        }
        // Offsets are checked by the size, so there is a chunk that begins at or before each.
        let nth = self.starts.1.partition_point(|start| *start <= offset) - 1;
        let (chunk, start) = (&file.chunks()[nth], self.starts.1[nth]);
        let bytes = self.source.chunk(file, chunk, start);
        let bytes = bytes.filter(|bytes| ContentId::of(bytes) == chunk.id);
        let bytes = bytes.filter(|bytes| bytes.len() == chunk.len as usize);
        let bytes = bytes.unwrap_or_else(|| {
            self.lost.insert(*chunk);
            vec![0; chunk.len as usize]
        });
        (start, bytes)
    }
}
