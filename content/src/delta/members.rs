//! Where the packed members of a container are: zip files (wheels, jars), gzip and xz files, and
//! Debian packages, which are archives of such.
//!
//! Only what can be told from the file's own structure is told, and a file whose structure is not
//! understood has no members. Whether a member can be made again is not known here.

use std::ops::Range;

use super::codec::Codec;
use super::xz;

/// What a Debian package begins with: an archive whose first member has this name.
const DEB: &[u8] = b"!<arch>\ndebian-binary";
/// The header of a member of an `ar` archive.
const AR: usize = 60;

/// A packed member: where it is, and how it is packed as far as can be seen.
pub(super) type Packed = (Range<usize>, Codec);

/// Where the packed members of a file may be, in order; none if it is no container.
pub(super) fn members(file: &[u8]) -> Vec<Packed> {
    let deflated = |range| (range, Codec::Deflate);
    match file {
        [b'P', b'K', 3, 4, ..] => zip(file).unwrap_or_default().into_iter().map(deflated).collect(),
        [0x1f, 0x8b, 8, flags, ..] => gzip(file, *flags).map(deflated).into_iter().collect(),
        _ if file.starts_with(&xz::MAGIC) => xz::blocks(file).unwrap_or_default(),
        _ if file.starts_with(DEB) => deb(file).unwrap_or_default(),
        _ => Vec::new(),
    }
}

/// Whether a file that begins like this may have packed members.
pub(super) fn is_container(start: &[u8]) -> bool {
    is_deflated(start) || start.starts_with(&xz::MAGIC) || start.starts_with(DEB)
}

/// Whether all members of such a container are deflated, which is quickly done again.
pub(super) fn is_deflated(start: &[u8]) -> bool {
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

/// The members of the members of a Debian package.
fn deb(file: &[u8]) -> Option<Vec<Packed>> {
    let (mut packed, mut at) = (Vec::new(), 8);
    while at < file.len() {
        let header = file.get(at..at + AR)?;
        let size = std::str::from_utf8(&header[48..58]).ok()?.trim_end().parse::<usize>().ok()?;
        let start = at + AR;
        let end = start.checked_add(size)?;
        // A package within a package is not looked into.
        let inner = file.get(start..end).filter(|inner| !inner.starts_with(DEB))?;
        let inner = members(inner).into_iter();
        packed.extend(inner.map(|(range, codec)| (range.start + start..range.end + start, codec)));
        // Members begin at even places.
        at = end + end % 2;
    }
    Some(packed)
}
