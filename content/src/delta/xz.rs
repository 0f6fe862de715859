//! Members packed by xz: each block of an xz file, without its header and its check.
//!
//! xz says in a block's header by which filters it was packed, but not how hard its encoder tried.
//! There are nine ways (the presets, which differ in little else than the dictionary, which is in
//! the header). They are tried on the beginning of a block: the first 128 KiB that come out are
//! those of the block, or it is another. The bytes that an encoder makes may differ from one
//! version of liblzma to another, so the one that is compiled in is part of the format.
//!
//! What needs more memory than a host should give for it stays closed.

use liblzma::stream::{Action, Filters, LzmaOptions, PRESET_EXTREME, Status, Stream};

use super::codec::Codec;
use super::head::read_number;
use super::members::Packed;
use super::opened::{EXPANDED, PIECE};

/// What an xz file begins with.
pub(super) const MAGIC: [u8; 6] = *b"\xfd7zXZ\0";
/// Dictionaries have 8 MiB at most, as this says: to pack with one takes 12 times as much.
const DICTIONARY: u8 = 22;
/// Bytes of a block by which the way it was packed is recognised.
const TRIED: usize = 128 << 10;
/// Bytes that a chain of filters may take in a block's header.
const CHAIN: usize = 32;
/// Bytes that go through the library at once.
const STEP: usize = 64 << 10;
const LZMA2: u8 = 0x21;
/// `lc`, `lp` and `pb` as the format has them in one byte: 3, 0 and 2.
const USUAL: u8 = 93;
/// The ways to pack; which of them travels.
const WAYS: [u32; 9] = [0, 1, 2, 3, 4, 5, 6, 6 | PRESET_EXTREME, 3 | PRESET_EXTREME];

/// How a block is packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Xz {
    /// Place of the way in [`WAYS`]; of no meaning to what unpacks.
    way: u8,
    /// `lc`, `lp` and `pb`; likewise.
    bits: u8,
    /// The filters as they are in the block's header.
    chain: Vec<u8>,
}

impl Xz {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.way, self.bits, self.chain.len() as u8]);
        out.extend_from_slice(&self.chain);
    }

    /// `None` if there is no such way to pack, or not within the limits.
    pub(super) fn read(bytes: &mut &[u8]) -> Option<Xz> {
        let ([way, bits, length], rest) = bytes.split_first_chunk()?;
        let (chain, rest) = rest.split_at_checked(usize::from(*length))?;
        *bytes = rest;
        let xz = Xz { way: *way, bits: *bits, chain: chain.to_vec() };
        (xz.encoder().is_some() && xz.decoder().is_some()).then_some(xz)
    }

    fn decoder(&self) -> Option<Filters> {
        let (mut filters, dictionary) = filters(&self.chain)?;
        filters.lzma2_properties(&[dictionary]).ok()?;
        Some(filters)
    }

    fn encoder(&self) -> Option<Filters> {
        let (mut filters, dictionary) = filters(&self.chain)?;
        let mut options = LzmaOptions::new_preset(*WAYS.get(usize::from(self.way))?).ok()?;
        let bits = u32::from(self.bits);
        let (literal, place, position) = (bits % 9, bits / 9 % 5, bits / 45);
        if literal + place > 4 || position > 4 {
            return None;
        }
        options.literal_context_bits(literal).literal_position_bits(place);
        options.position_bits(position).dict_size(size(dictionary));
        filters.lzma2(&options);
        Some(filters)
    }
}

/// Bytes of a dictionary.
fn size(dictionary: u8) -> u32 {
    (2 | u32::from(dictionary & 1)) << (dictionary / 2 + 11)
}

/// All filters of a chain but its last, and the dictionary of the last, which is LZMA2.
fn filters(mut chain: &[u8]) -> Option<(Filters, u8)> {
    let mut filters = Filters::new();
    loop {
        let (&[id, length], rest) = chain.split_first_chunk()?;
        let (properties, rest) = rest.split_at_checked(usize::from(length))?;
        chain = rest;
        match id {
            LZMA2 => {
                let &[dictionary] = properties else { return None };
                return (chain.is_empty() && dictionary <= DICTIONARY)
                    .then_some((filters, dictionary));
            }
            3 => filters.delta_properties(properties),
            4 => filters.x86_properties(properties),
            5 => filters.powerpc_properties(properties),
            6 => filters.ia64_properties(properties),
            7 => filters.arm_properties(properties),
            8 => filters.arm_thumb_properties(properties),
            9 => filters.sparc_properties(properties),
            10 => filters.arm64_properties(properties),
            11 => filters.riscv_properties(properties),
            _ => return None,
        }
        .ok()?;
    }
}

/// The blocks of a file of one stream, by the index at its end.
pub(super) fn blocks(file: &[u8]) -> Option<Vec<Packed>> {
    let footer = file.len().checked_sub(12).filter(|at| *at >= 12)?;
    let backward = u32::from_le_bytes(file[footer + 4..footer + 8].try_into().ok()?);
    let length = (usize::try_from(backward).ok()?).checked_add(1)?.checked_mul(4)?;
    let start = footer.checked_sub(length).filter(|start| *start >= 12)?;
    let (zero, mut index) = file[start..footer].split_first()?;
    if file[file.len() - 2..] != *b"YZ" || *zero != 0 {
        return None;
    }
    let check = match file[7] & 15 {
        0 => 0,
        kind => 4 << ((kind - 1) / 3),
    };
    let (mut blocks, mut at) = (Vec::new(), 12);
    for _ in 0..read_number(&mut index).ok()? {
        let [bare, plain] = [read_number(&mut index).ok()?, read_number(&mut index).ok()?];
        let end = bare.checked_add(at).filter(|end| *end <= start)?;
        let (header, chain) = header(&file[at..end])?;
        let range = at + header..end.checked_sub(check)?;
        if range.is_empty() {
            return None;
        }
        let bits = bits(&file[range.clone()]);
        let xz = Xz { way: 6, bits, chain };
        if plain > 0 && plain as u64 <= EXPANDED && xz.encoder().is_some() {
            blocks.push((range, Codec::Xz(xz)));
        }
        at = end.next_multiple_of(4);
    }
    (at == start).then_some(blocks)
}

/// The length of a block's header, and the filters in it.
fn header(block: &[u8]) -> Option<(usize, Vec<u8>)> {
    let (&[length, flags], _) = block.split_first_chunk()?;
    let length = (usize::from(length) + 1) * 4;
    let mut rest = block.get(2..length - 4)?;
    for size in [0x40, 0x80] {
        if flags & size != 0 {
            read_number(&mut rest).ok()?;
        }
    }
    let mut chain = Vec::new();
    for _ in 0..=flags & 3 {
        let (id, size) = (read_number(&mut rest).ok()?, read_number(&mut rest).ok()?);
        let (properties, later) = rest.split_at_checked(size)?;
        chain.extend([u8::try_from(id).ok()?, u8::try_from(size).ok()?]);
        chain.extend_from_slice(properties);
        rest = later;
    }
    (chain.len() <= CHAIN).then_some((length, chain))
}

/// `lc`, `lp` and `pb` of a block, from its first chunk that is not stored.
fn bits(mut block: &[u8]) -> u8 {
    loop {
        let skip = match *block {
            [1 | 2, high, low, ..] => 4 + (usize::from(high) << 8 | usize::from(low)),
            [0xc0..=0xff, _, _, _, _, bits, ..] => return bits,
            _ => return USUAL,
        };
        block = block.get(skip..).unwrap_or_default();
    }
}

/// Unpacks all that `read` gives. Whether the block ended with it, and within the limit.
pub(super) fn unpack<E>(
    xz: &Xz,
    read: &mut dyn FnMut(&mut [u8]) -> usize,
    limit: u64,
    sink: &mut dyn FnMut(&[u8]) -> Result<(), E>,
) -> Result<bool, E> {
    let stream = xz.decoder().and_then(|filters| Stream::new_raw_decoder(&filters).ok());
    let Some(mut stream) = stream else { return Ok(false) };
    let (mut input, mut filled, mut used) = (vec![0; STEP], 0, 0);
    let mut output = vec![0; STEP];
    loop {
        if used == filled {
            (filled, used) = (read(&mut input), 0);
        }
        let (taken, made) = (stream.total_in(), stream.total_out());
        let status = stream.process(&input[used..filled], &mut output, Action::Run);
        used += (stream.total_in() - taken) as usize;
        if stream.total_out() > limit {
            return Ok(false);
        }
        sink(&output[..(stream.total_out() - made) as usize])?;
        match status {
            Ok(Status::StreamEnd) => return Ok(used == filled && read(&mut input) == 0),
            Ok(Status::Ok) => {}
            _ => return Ok(false),
        }
    }
}

/// How a block was packed, and its plain bytes; `None` if that cannot be found out, or not within
/// the limit of plain bytes. All that go through the library are taken from `work`.
pub(super) fn take_apart(
    block: &[u8],
    xz: &Xz,
    limit: u64,
    work: &mut u64,
) -> Option<(Xz, Vec<u8>)> {
    let (mut plain, mut source) = (Vec::new(), block);
    let mut read = |out: &mut [u8]| super::codec::fill(&mut source, out);
    let whole = unpack(xz, &mut read, limit.min(*work), &mut |bytes| -> Result<(), ()> {
        plain.extend_from_slice(bytes);
        Ok(())
    });
    spend(work, plain.len());
    if whole != Ok(true) {
        return None;
    }
    let mut ways = likely(xz).map(|way| Xz { way, ..xz.clone() });
    let xz = ways.find(|xz| begins_so(xz, &plain, block, work))?;
    Some((xz, plain))
}

/// Whether there is more to spend. Nothing costs less than a step.
fn spend(work: &mut u64, bytes: usize) -> bool {
    *work = work.saturating_sub(bytes.max(STEP) as u64);
    *work > 0
}

/// All ways, the most likely first.
fn likely(xz: &Xz) -> impl Iterator<Item = u8> {
    let dictionary = filters(&xz.chain).map_or(0, |(_, dictionary)| size(dictionary));
    let first: &[u8] = match dictionary >> 10 {
        256 => &[0],
        // As the kernel's modules are packed, or by `xz -1`.
        1024 => &[6, 1],
        2048 => &[2],
        4096 => &[4, 3, 8],
        _ => &[6, 7, 5],
    };
    let others = [6, 7, 5, 4, 3, 2, 1, 0, 8].into_iter().filter(|way| !first.contains(way));
    first.iter().copied().chain(others)
}

/// Whether the beginning of a block, or all of it if it is short, comes out the same this way.
fn begins_so(xz: &Xz, plain: &[u8], block: &[u8], work: &mut u64) -> bool {
    let Some(mut packer) = Packer::new(xz) else { return false };
    let mut at = 0;
    let mut pieces = plain.chunks(STEP).peekable();
    while let Some(piece) = pieces.next() {
        let Some(packed) = packer.piece(piece, pieces.peek().is_none()) else { return false };
        if !spend(work, piece.len()) || !block[at..].starts_with(&packed) {
            return false;
        }
        at += packed.len();
        if at >= TRIED {
            return true;
        }
    }
    at == block.len()
}

/// Packs a block, piece by piece.
pub(super) struct Packer {
    stream: Stream,
}

impl Packer {
    pub(super) fn new(xz: &Xz) -> Option<Packer> {
        let stream = Stream::new_raw_encoder(&xz.encoder()?).ok()?;
        Some(Packer { stream })
    }

    /// What comes out when this piece, of 4 MiB at most, goes in.
    pub(super) fn piece(&mut self, plain: &[u8], is_last: bool) -> Option<Vec<u8>> {
        debug_assert!(plain.len() <= PIECE);
        let action = if is_last { Action::Finish } else { Action::Run };
        let (begun, mut packed) = (self.stream.total_in(), Vec::with_capacity(STEP));
        loop {
            let used = (self.stream.total_in() - begun) as usize;
            packed.reserve(STEP);
            match self.stream.process_vec(&plain[used..], &mut packed, action) {
                Ok(Status::StreamEnd) => return Some(packed),
                Ok(Status::Ok | Status::MemNeeded) => {}
                _ => return None,
            }
            let used = (self.stream.total_in() - begun) as usize;
            if !is_last && used == plain.len() && packed.len() < packed.capacity() {
                return Some(packed);
            }
        }
    }
}
