//! The canonical bytes of a manifest, versions 1 and 2.
//!
//! ```text
//! version                       1 byte; 2 if any entry has what version 1 does not know
//! names                         count, then each: length, bytes; sorted, unique, all used
//! entries                       count, then each:
//!   tag                         kind | SAME_META | SPARSE | ATTRIBUTES; the last two in version 2
//!   path                        bytes shared with the previous path, length of the rest, rest
//!   mode uid gid owner group    unless SAME_META: as in the previous entry of this kind
//!   mtime                       seconds as zigzag difference to the previous entry, nanoseconds
//!   file: size, and unless 0 the chunk count and all chunk lengths but the last
//!   link: length, target
//!   hard link: length, path of the file (version 2)
//!   attributes, if the tag says so: count, then each: length, name, length, value
//! chunk ids                     32 bytes each, in the order of the entries
//! ```
//!
//! Numbers are LEB128. The ids stand apart because they do not compress: between the paths
//! they would spoil the statistics of what does. The format deliberately knows nothing of the
//! meaning; the rules are in the parent module, and canonical form is checked there.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{ChunkRef, Entry, Kind, Limits, Manifest, ManifestError, Name, limit};
use crate::attributes::{self, Attributes};
use crate::id::ContentId;

const VERSION: u8 = 1;
/// Hard links, holes, attributes.
const EXTENDED: u8 = 2;
const KIND: u8 = 0b011;
const DIR: u8 = 0;
const FILE: u8 = 1;
const SYMLINK: u8 = 2;
const HARD_LINK: u8 = 3;
const SAME_META: u8 = 0b100;
const SPARSE: u8 = 0b1000;
const ATTRIBUTES: u8 = 0b1_0000;

/// What entries of one kind mostly have in common: mode, uid, gid, owner, group.
type Meta = (u32, u32, u32, Name, Name);

pub(super) fn encode(manifest: &Manifest) -> Vec<u8> {
    let entries = &manifest.entries;
    let mut names: BTreeMap<&str, u64> = BTreeMap::new();
    names.extend(entries.iter().flat_map(|e| [(&*e.owner, 0), (&*e.group, 0)]));
    names.values_mut().zip(0..).for_each(|(index, n)| *index = n);

    let extended =
        |e: &Entry| e.sparse || !e.attributes.is_empty() || matches!(e.kind, Kind::HardLink { .. });
    let mut out = vec![if entries.iter().any(extended) { EXTENDED } else { VERSION }];
    number(&mut out, names.len() as u64);
    names.keys().for_each(|name| bytes(&mut out, name.as_bytes()));
    number(&mut out, entries.len() as u64);
    let mut previous: (&[u8], i64) = (&[], 0);
    let mut metas: [Option<Meta>; 4] = [const { None }; 4];
    for entry in entries {
        let kind = match entry.kind {
            Kind::Dir => DIR,
            Kind::File { .. } => FILE,
            Kind::Symlink { .. } => SYMLINK,
            Kind::HardLink { .. } => HARD_LINK,
        };
        let meta = Some(meta(entry));
        let same = metas[usize::from(kind)] == meta;
        let flag = |is: bool, flag: u8| if is { flag } else { 0 };
        let has_attributes = !entry.attributes.is_empty();
        let tag = kind | flag(same, SAME_META) | flag(entry.sparse, SPARSE);
        out.push(tag | flag(has_attributes, ATTRIBUTES));
        let shared = previous.0.iter().zip(&entry.path).take_while(|(a, b)| a == b).count();
        number(&mut out, shared as u64);
        bytes(&mut out, &entry.path[shared..]);
        if !same {
            for n in [entry.mode, entry.uid, entry.gid] {
                number(&mut out, n.into());
            }
            number(&mut out, names[&*entry.owner]);
            number(&mut out, names[&*entry.group]);
            metas[usize::from(kind)] = meta;
        }
        number(&mut out, zigzag(entry.mtime.0.wrapping_sub(previous.1)));
        number(&mut out, entry.mtime.1.into());
        encode_kind(&mut out, &entry.kind);
        if has_attributes {
            number(&mut out, entry.attributes.len() as u64);
            for (name, value) in entry.attributes.iter() {
                bytes(&mut out, name);
                bytes(&mut out, value);
            }
        }
        previous = (&entry.path, entry.mtime.0);
    }
    let ids = entries.iter().flat_map(Entry::chunks);
    ids.for_each(|chunk| out.extend_from_slice(&chunk.id.0));
    out
}

fn encode_kind(out: &mut Vec<u8>, kind: &Kind) {
    match kind {
        Kind::Dir => {}
        Kind::Symlink { target } => bytes(out, target),
        Kind::HardLink { to } => bytes(out, to),
        Kind::File { size, chunks } => {
            number(out, *size);
            if let Some((_, all_but_last)) = chunks.split_last() {
                number(out, chunks.len() as u64);
                all_but_last.iter().for_each(|chunk| number(out, chunk.len.into()));
            }
        }
    }
}

/// Users and groups by name in one manifest, at most.
const NAMES: u64 = 1 << 16;

/// Reads what [`encode`] wrote. The result obeys the format, not yet the rules.
pub(super) fn decode(input: &[u8], limits: &Limits) -> Result<Manifest, ManifestError> {
    limit("bytes", input.len() as u64, limits.encoded as u64)?;
    let mut reader = Reader { input, at: 0 };
    let version = reader.byte()?;
    if version != VERSION && version != EXTENDED {
        return Err(ManifestError::Version { found: version });
    }
    let mut names = Vec::new();
    let known = reader.number()?;
    limit("names of owners", known, NAMES)?;
    for _ in 0..known {
        let name = reader.bytes()?;
        let name = std::str::from_utf8(name).map_err(|_| reader.damaged("name is not UTF-8"))?;
        names.push(Name::from(name));
    }
    let count = reader.number()?;
    limit("entries", count, limits.entries as u64)?;
    // Nothing is reserved by a count that the bytes have not yet proven.
    let mut entries: Vec<Entry> = Vec::new();
    let mut metas: [Option<Meta>; 4] = [const { None }; 4];
    let (mut paths, mut chunks) = (0, 0);
    for _ in 0..count {
        let entry = reader.entry(entries.last(), &names, &mut metas)?;
        paths += entry.path.len();
        limit("path bytes", paths as u64, limits.paths as u64)?;
        chunks += entry.chunks().len();
        entries.push(entry);
    }
    if chunks.checked_mul(32) != Some(input.len() - reader.at) {
        return Err(reader.damaged("the chunk ids do not end where the manifest ends"));
    }
    let mut ids = input[reader.at..].chunks_exact(32);
    for entry in &mut entries {
        if let Kind::File { chunks, .. } = &mut entry.kind {
            for (chunk, id) in chunks.iter_mut().zip(&mut ids) {
                chunk.id.0.copy_from_slice(id);
            }
        }
    }
    Ok(Manifest { entries })
}

struct Reader<'a> {
    input: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn damaged(&self, what: &'static str) -> ManifestError {
        ManifestError::Damaged { at: self.at, what }
    }

    fn byte(&mut self) -> Result<u8, ManifestError> {
        let byte = *self.input.get(self.at).ok_or_else(|| self.damaged("it ends early"))?;
        self.at += 1;
        Ok(byte)
    }

    fn number(&mut self) -> Result<u64, ManifestError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return Err(self.damaged("a number is too large"));
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.damaged("a number does not end"))
    }

    fn number32(&mut self) -> Result<u32, ManifestError> {
        let value = self.number()?;
        u32::try_from(value).map_err(|_| self.damaged("a number is too large"))
    }

    fn bytes(&mut self) -> Result<&'a [u8], ManifestError> {
        let length = self.number()?;
        let rest = &self.input[self.at..];
        let length = usize::try_from(length).ok().filter(|length| *length <= rest.len());
        let length = length.ok_or_else(|| self.damaged("it ends early"))?;
        self.at += length;
        Ok(&rest[..length])
    }

    fn entry(
        &mut self,
        previous: Option<&Entry>,
        names: &[Name],
        metas: &mut [Option<Meta>; 4],
    ) -> Result<Entry, ManifestError> {
        let tag = self.byte()?;
        let kind = tag & KIND;
        // What a version 1 must not say makes it another encoding than the one of its meaning.
        if tag & !(KIND | SAME_META | SPARSE | ATTRIBUTES) != 0 {
            return Err(self.damaged("unknown kind of entry"));
        }
        let sparse = tag & SPARSE != 0;
        let (last_path, last_mtime) = match previous {
            Some(entry) => (entry.path.as_slice(), entry.mtime.0),
            None => (&[][..], 0),
        };
        let shared = usize::try_from(self.number()?).ok();
        let shared = shared.and_then(|shared| last_path.get(..shared));
        let shared = shared.ok_or_else(|| self.damaged("path shares more than there is"))?;
        let path = [shared, self.bytes()?].concat();
        let slot = &mut metas[usize::from(kind)];
        if tag & SAME_META == 0 {
            *slot = Some(self.meta(names)?);
        }
        let meta = slot.clone().ok_or_else(|| self.damaged("no entry of this kind before"))?;
        let (mode, uid, gid, owner, group) = meta;
        let seconds = last_mtime.wrapping_add(unzigzag(self.number()?));
        let mtime = (seconds, self.number32()?);
        let kind = self.kind(kind)?;
        let attributes = match tag & ATTRIBUTES {
            0 => Attributes::default(),
            _ => self.attributes()?,
        };
        Ok(Entry { path, kind, mode, uid, gid, owner, group, mtime, attributes, sparse })
    }

    fn attributes(&mut self) -> Result<Attributes, ManifestError> {
        let count = self.number()?;
        if count == 0 || count > attributes::MOST as u64 {
            return Err(self.damaged("no attributes, or too many"));
        }
        let mut pairs = Vec::new();
        for _ in 0..count {
            pairs.push((self.bytes()?.to_vec(), self.bytes()?.to_vec()));
        }
        Ok(pairs.into())
    }

    fn meta(&mut self, names: &[Name]) -> Result<Meta, ManifestError> {
        let (mode, uid, gid) = (self.number32()?, self.number32()?, self.number32()?);
        Ok((mode, uid, gid, self.name(names)?, self.name(names)?))
    }

    fn name(&mut self, names: &[Name]) -> Result<Name, ManifestError> {
        let index = usize::try_from(self.number()?).ok();
        let name = index.and_then(|index| names.get(index)).map(Arc::clone);
        name.ok_or_else(|| self.damaged("no such name"))
    }

    fn kind(&mut self, kind: u8) -> Result<Kind, ManifestError> {
        match kind {
            DIR => Ok(Kind::Dir),
            SYMLINK => Ok(Kind::Symlink { target: self.bytes()?.to_vec() }),
            HARD_LINK => Ok(Kind::HardLink { to: self.bytes()?.to_vec() }),
            _ => {
                let size = self.number()?;
                let count = if size == 0 { 0 } else { self.number()? };
                // Each chunk needs an id further on, so this many cannot be honest.
                if count > (self.input.len() - self.at) as u64 / 32 {
                    return Err(self.damaged("more chunks than ids"));
                }
                let (mut chunks, mut rest) = (Vec::new(), size);
                for _ in 1..count {
                    let len = self.number32()?;
                    let left = rest.checked_sub(len.into());
                    rest = left.ok_or_else(|| self.damaged("chunks exceed the size"))?;
                    chunks.push(ChunkRef { id: ContentId([0; 32]), len });
                }
                if count > 0 {
                    let len = u32::try_from(rest).map_err(|_| self.damaged("chunk too long"))?;
                    chunks.push(ChunkRef { id: ContentId([0; 32]), len });
                }
                Ok(Kind::File { size, chunks })
            }
        }
    }
}

fn meta(entry: &Entry) -> Meta {
    (entry.mode, entry.uid, entry.gid, entry.owner.clone(), entry.group.clone())
}

fn number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63).cast_unsigned()
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}
