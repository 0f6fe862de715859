//! The ways in which members of containers are packed, behind one interface: unpacked, taken apart
//! into plain bytes and what is needed to pack them again, and packed again.

use super::deflate;
use super::head::{number, read_number};
use super::opened::PIECE;
use super::xz::{self, Xz};
use crate::pack::PackError;

/// How a member is packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Codec {
    /// Deflated; how exactly, corrections say.
    Deflate,
    /// A block of an xz file.
    Xz(Xz),
}

/// Plain bytes of a piece, and its corrections.
pub(super) type Plain = (Vec<u8>, Vec<u8>);

impl Codec {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Codec::Deflate => number(out, 0),
            Codec::Xz(xz) => {
                number(out, 1);
                xz.write(out);
            }
        }
    }

    pub(super) fn read(bytes: &mut &[u8]) -> Result<Codec, PackError> {
        let codec = match read_number(bytes)? {
            0 => Some(Codec::Deflate),
            1 => Xz::read(bytes).map(Codec::Xz),
            _ => None,
        };
        codec.ok_or(PackError::Format { what: "a member is packed in no known way" })
    }

    /// Unpacks all that `read` gives. Whether the member ended with it, and within the limit.
    pub(super) fn unpack<E>(
        &self,
        read: &mut dyn FnMut(&mut [u8]) -> usize,
        limit: u64,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<bool, E> {
        match self {
            Codec::Deflate => deflate::unpack(read, limit, sink),
            Codec::Xz(xz) => xz::unpack(xz, read, limit, sink),
        }
    }

    /// How a member can be packed again, and its plain bytes, piece by piece, if there are no more
    /// than the limit. It has not been packed again yet, or not all of it. `work`: how many plain
    /// bytes may still be looked at, be it in vain; it is made less by those that were.
    pub(super) fn take_apart(
        &self,
        member: &[u8],
        limit: u64,
        work: &mut u64,
    ) -> Option<(Codec, Vec<Plain>)> {
        match self {
            Codec::Deflate => Some((Codec::Deflate, deflate::take_apart(member, limit, work)?)),
            Codec::Xz(xz) => {
                let (xz, plain) = xz::take_apart(member, xz, limit, work)?;
                let pieces = plain.chunks(PIECE).map(|piece| (piece.to_vec(), Vec::new()));
                Some((Codec::Xz(xz), pieces.collect()))
            }
        }
    }
}

/// Packs a member again.
pub(super) enum Packer {
    Deflate(deflate::Packer),
    Xz(xz::Packer),
}

impl Packer {
    pub(super) fn new(codec: &Codec) -> Option<Packer> {
        Some(match codec {
            Codec::Deflate => Packer::Deflate(deflate::Packer::new()),
            Codec::Xz(xz) => Packer::Xz(xz::Packer::new(xz)?),
        })
    }

    /// What comes out when this piece goes in; `None` if it cannot be packed.
    pub(super) fn piece(
        &mut self,
        plain: &[u8],
        corrections: &[u8],
        is_last: bool,
    ) -> Option<Vec<u8>> {
        match self {
            Packer::Deflate(packer) => packer.piece(plain, corrections),
            Packer::Xz(packer) => packer.piece(plain, is_last),
        }
    }
}

/// Moves bytes from a slice, as many as there is room for.
pub(super) fn fill(source: &mut &[u8], out: &mut [u8]) -> usize {
    let (now, later) = source.split_at(out.len().min(source.len()));
    out[..now.len()].copy_from_slice(now);
    *source = later;
    now.len()
}
