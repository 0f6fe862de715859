//! Containers, opened: zip files (wheels, jars), gzip and xz files, and Debian packages, whose
//! packed members are taken apart and made again bit for bit.
//!
//! The idea: a packed file changes all over when one byte of what is in it does, so differences
//! are made between what is *in* the old and the new file. The encoder finds out how each member
//! was packed, and that travels; the host unpacks the members of the old file, makes the new plain
//! bytes of them, and packs these again as it is told.
//!
//! A file is a sequence of plain members between bytes that stay as they are; this sequence with
//! its members plain is its *expansion*. A member that both files have stays closed in both: it
//! needs no corrections. So does what cannot be made again exactly, and any file whose structure
//! is not understood.

use std::ops::Range;

use super::codec::{Codec, fill};
use super::head::{Kind, number, read_u64};
use super::members::Packed;
use crate::pack::PackError;

/// An expansion is no longer, nor are those of one segment together.
pub(super) const EXPANDED: u64 = 256 << 20;
/// Plain bytes that are packed in one go.
pub(super) const PIECE: usize = 4 << 20;
/// Plain bytes that are looked at to open one file, those of members that stay closed included.
const WORK: u64 = 2 * EXPANDED;
/// Members of an old file, and pieces of a new one, at most.
const MEMBERS: u64 = 1 << 17;
/// Members of one segment that are packed otherwise than deflated, at most.
pub(super) const SLOW: usize = 1 << 12;

/// A packed member of an old file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    /// Bytes before it, from the last one on.
    pub(super) gap: u64,
    /// Its bytes in the file.
    pub(super) packed: u64,
    /// Its plain bytes.
    pub(super) plain: u64,
    pub(super) codec: Codec,
}

/// A part of a packed member of a new file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    /// Bytes before it, from the last one on; none unless it begins a member.
    pub(super) gap: u64,
    /// Its plain bytes.
    pub(super) plain: u64,
    /// Its corrections.
    pub(super) corrections: u64,
    /// How the member is packed that it begins, if it begins one.
    pub(super) begins: Option<Codec>,
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
    /// The kind of segment that says how the members are packed, if need be.
    pub(super) fn kind(&self) -> Kind {
        let old = self.old.iter().map(|member| &member.codec);
        let mut all = old.chain(self.new.iter().filter_map(|piece| piece.begins.as_ref()));
        if all.all(|codec| *codec == Codec::Deflate) { Kind::Opened } else { Kind::Mixed }
    }

    pub(super) fn write(&self, kind: Kind) -> Vec<u8> {
        let mut out = Vec::new();
        let say = |out: &mut Vec<u8>, codec: &Codec| {
            if kind == Kind::Mixed {
                codec.write(out);
            }
        };
        number(&mut out, self.length);
        number(&mut out, self.old.len() as u64);
        for member in &self.old {
            for n in [member.gap, member.packed, member.plain] {
                number(&mut out, n);
            }
            say(&mut out, &member.codec);
        }
        number(&mut out, self.new.len() as u64);
        for piece in &self.new {
            let corrections = piece.corrections << 1 | u64::from(piece.begins.is_some());
            for n in [piece.gap, piece.plain, corrections] {
                number(&mut out, n);
            }
            if let Some(codec) = &piece.begins {
                say(&mut out, codec);
            }
        }
        out
    }

    /// Takes a shape for an old file of this size off the front. Nothing in it is longer than it
    /// may be.
    pub(super) fn read(bytes: &mut &[u8], old_size: u64, kind: Kind) -> Result<Shape, PackError> {
        let refuse = |what| PackError::Format { what };
        let said = |bytes: &mut &[u8]| match kind {
            Kind::Mixed => Codec::read(bytes),
            _ => Ok(Codec::Deflate),
        };
        let mut shape = Shape { length: read_u64(bytes)?, ..Shape::default() };
        let (mut used, mut expanded) = (0_u64, 0_u64);
        for _ in 0..count(bytes)? {
            let [gap, packed, plain] = [read_u64(bytes)?, read_u64(bytes)?, read_u64(bytes)?];
            used = used.saturating_add(gap).saturating_add(packed);
            expanded = expanded.saturating_add(gap).saturating_add(plain);
            shape.old.push(Member { gap, packed, plain, codec: said(bytes)? });
        }
        let rest = old_size.checked_sub(used).ok_or(refuse("its members are not in the base"))?;
        let mut new = 0_u64;
        for _ in 0..count(bytes)? {
            let [gap, plain, corrections] = [read_u64(bytes)?, read_u64(bytes)?, read_u64(bytes)?];
            let begins = if corrections & 1 == 1 { Some(said(bytes)?) } else { None };
            new = new.saturating_add(gap).saturating_add(plain);
            if plain > PIECE as u64 || (gap > 0 && begins.is_none()) {
                return Err(refuse("a piece of a member is not as it must be"));
            }
            shape.new.push(Piece { gap, plain, corrections: corrections >> 1, begins });
        }
        let longest = expanded.saturating_add(rest).max(shape.length);
        if longest > EXPANDED || new > shape.length {
            return Err(refuse("its members are too long"));
        }
        Ok(shape)
    }

    /// Length of the old expansion.
    pub(super) fn old_length(&self, old_size: u64) -> u64 {
        let packed: u64 = self.old.iter().map(|member| member.packed).sum();
        let plain: u64 = self.old.iter().map(|member| member.plain).sum();
        old_size - packed + plain
    }

    /// Bytes of corrections, of all pieces.
    pub(super) fn corrections(&self) -> usize {
        let all = self.new.iter().map(|piece| piece.corrections);
        usize::try_from(all.fold(0, u64::saturating_add)).unwrap_or(usize::MAX)
    }

    /// Plain bytes that are packed otherwise than deflated.
    pub(super) fn packed(&self) -> u64 {
        let mut is_slow = false;
        let slow = self.new.iter().filter(|piece| {
            is_slow = piece.begins.as_ref().map_or(is_slow, |codec| *codec != Codec::Deflate);
            is_slow
        });
        slow.map(|piece| piece.plain).sum()
    }

    /// Members that are not deflated: each takes memory and time, however short it is.
    pub(super) fn slow(&self) -> usize {
        let old = self.old.iter().filter(|member| member.codec != Codec::Deflate);
        let new = self.new.iter().filter_map(|piece| piece.begins.as_ref());
        old.count() + new.filter(|codec| **codec != Codec::Deflate).count()
    }
}

fn count(bytes: &mut &[u8]) -> Result<u64, PackError> {
    let count = read_u64(bytes)?;
    let few = (count <= MEMBERS).then_some(count);
    few.ok_or(PackError::Format { what: "it has too many members" })
}

/// The expansion of an old file: those of the members that can be unpacked, and all bytes.
pub(super) fn expand_old(file: &[u8], packed: &[Packed]) -> Option<(Vec<Member>, Vec<u8>)> {
    let (mut members, mut expansion, mut at) = (Vec::new(), Vec::new(), 0);
    let mut work = WORK;
    for (range, codec) in packed {
        let before = expansion.len();
        expansion.extend_from_slice(&file[at..range.start]);
        let gap = range.start - at;
        let start = expansion.len();
        let room = EXPANDED.saturating_sub(start as u64).min(work);
        let mut source = &file[range.clone()];
        let mut read = |out: &mut [u8]| fill(&mut source, out);
        let whole = codec.unpack(&mut read, room, &mut |bytes| -> Result<(), ()> {
            expansion.extend_from_slice(bytes);
            Ok(())
        });
        work = work.saturating_sub((expansion.len() - start) as u64);
        // Whatever cannot be unpacked to its very end stays as it is.
        if whole.is_ok_and(|whole| whole) {
            let plain = (expansion.len() - start) as u64;
            let (gap, packed) = (gap as u64, range.len() as u64);
            members.push(Member { gap, packed, plain, codec: codec.clone() });
            at = range.end;
        } else {
            expansion.truncate(before);
        }
    }
    expansion.extend_from_slice(&file[at..]);
    let fits = expansion.len() as u64 <= EXPANDED && members.len() as u64 <= MEMBERS;
    (fits && !members.is_empty()).then_some((members, expansion))
}

/// The expansion of a new file, and what makes the file of it.
#[derive(Default)]
pub(super) struct Opened {
    pub(super) pieces: Vec<Piece>,
    /// Where the members are that these pieces make.
    pub(super) places: Vec<Place>,
    pub(super) expansion: Vec<u8>,
    pub(super) corrections: Vec<u8>,
}

/// A member of a new file: where it is, and which pieces make it.
pub(super) struct Place {
    pub(super) file: Range<usize>,
    pub(super) pieces: Range<usize>,
}

/// Expands a new file at these members; `None` if none of them can be made again.
pub(super) fn expand_new(file: &[u8], packed: &[Packed]) -> Option<Opened> {
    let mut opened = Opened::default();
    let (mut at, mut work) = (0, WORK);
    for (range, codec) in packed {
        let gap = range.start - at;
        let room = EXPANDED.saturating_sub((opened.expansion.len() + gap) as u64);
        let apart = codec.take_apart(&file[range.clone()], room, &mut work);
        let Some((codec, pieces)) = apart else { continue };
        opened.expansion.extend_from_slice(&file[at..range.start]);
        let first = opened.pieces.len();
        for (n, (plain, corrections)) in pieces.iter().enumerate() {
            opened.pieces.push(Piece {
                gap: if n == 0 { gap as u64 } else { 0 },
                plain: plain.len() as u64,
                corrections: corrections.len() as u64,
                begins: (n == 0).then(|| codec.clone()),
            });
            opened.expansion.extend_from_slice(plain);
            opened.corrections.extend_from_slice(corrections);
        }
        opened.places.push(Place { file: range.clone(), pieces: first..opened.pieces.len() });
        at = range.end;
    }
    opened.expansion.extend_from_slice(&file[at..]);
    let few = opened.pieces.len() as u64 <= MEMBERS;
    let fits = few && opened.expansion.len() as u64 <= EXPANDED;
    (fits && !opened.pieces.is_empty()).then_some(opened)
}
