//! The outline of an object: enough to check any 16 KiB of it by themselves.
//!
//! An object's id is its BLAKE3 hash, and BLAKE3 is a tree: the hash follows from the chaining
//! values of aligned pieces. An outline is the list of these values, one for each group of 16 KiB.
//! It proves itself, since merged they must give the id, and then each group can be checked as it
//! arrives: handed on before the rest is here, and kept if the rest never comes. It costs 32 bytes
//! for each 16 KiB, 0.2 %; an object of one group needs none.
//!
//! Source: "BLAKE3: one function, fast everywhere", section 2.1, and `blake3::hazmat`. What is
//! known as Bao interleaves the inner nodes with the data; a list is smaller, and one may begin
//! to read anywhere.

use std::io::{self, Read};

use blake3::hazmat::{ChainingValue, HasherExt, Mode};
use blake3::hazmat::{merge_subtrees_non_root, merge_subtrees_root};

use crate::id::ContentId;
use crate::store::MAX_OBJECT;

/// Bytes in a group; only the last one of an object may be shorter.
pub const GROUP: usize = 16 << 10;

/// The chaining values of an object's groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline {
    id: ContentId,
    len: usize,
    /// None if there is only one group: the id says it all.
    groups: Vec<ChainingValue>,
}

/// The bytes are not the outline of this object. Whoever sent them is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutlineError {
    /// No object is that long.
    #[error("an object has at most 32 MiB, not {len} bytes")]
    TooLong {
        /// The length that was claimed.
        len: u64,
    },
    /// The list has another length than an object of this length needs.
    #[error("the outline has {found} bytes, and not {expected}")]
    Length {
        /// How many there are.
        found: usize,
        /// How many there must be.
        expected: usize,
    },
    /// The values do not merge to the id.
    #[error("the outline is of another object")]
    Other,
}

impl Outline {
    /// The outline of these bytes.
    ///
    /// # Panics
    /// If they are more than [`MAX_OBJECT`](crate::MAX_OBJECT).
    pub fn of(bytes: &[u8]) -> Outline {
        assert!(bytes.len() <= MAX_OBJECT, "an object has at most 32 MiB");
        if bytes.len() <= GROUP {
            return Outline { id: ContentId::of(bytes), len: bytes.len(), groups: Vec::new() };
        }
        let groups: Vec<_> = (0u64..).zip(bytes.chunks(GROUP)).map(|(n, g)| value(n, g)).collect();
        Outline { id: root(&groups), len: bytes.len(), groups }
    }

    /// The outline of the next `len` bytes of a reader, with one group in memory.
    pub fn read(mut from: impl Read, len: usize) -> io::Result<Outline> {
        let mut group = vec![0; len.min(GROUP)];
        if len <= GROUP {
            from.read_exact(&mut group)?;
            return Ok(Outline::of(&group));
        }
        let mut groups = Vec::with_capacity(len.div_ceil(GROUP));
        for (n, start) in (0u64..).zip((0..len).step_by(GROUP)) {
            let group = &mut group[..GROUP.min(len - start)];
            from.read_exact(group)?;
            groups.push(value(n, group));
        }
        Ok(Outline { id: root(&groups), len, groups })
    }

    /// How many bytes [`Outline::encode`] gives for an object of this length.
    pub fn encoded_len(len: usize) -> usize {
        if len <= GROUP { 0 } else { len.div_ceil(GROUP) * size_of::<ChainingValue>() }
    }

    /// The chaining values, one after the other.
    pub fn encode(&self) -> Vec<u8> {
        self.groups.concat()
    }

    /// Reads the outline of an object of which the id is trusted and the length is claimed.
    ///
    /// A wrong length shows here or at the last group.
    pub fn decode(id: ContentId, len: u64, bytes: &[u8]) -> Result<Outline, OutlineError> {
        let fits = usize::try_from(len).ok().filter(|len| *len <= MAX_OBJECT);
        let len = fits.ok_or(OutlineError::TooLong { len })?;
        let expected = Outline::encoded_len(len);
        if bytes.len() != expected {
            return Err(OutlineError::Length { found: bytes.len(), expected });
        }
        let (groups, _) = bytes.as_chunks();
        if len > GROUP && root(groups) != id {
            return Err(OutlineError::Other);
        }
        Ok(Outline { id, len, groups: groups.to_vec() })
    }

    /// The object's id.
    pub fn id(&self) -> ContentId {
        self.id
    }

    /// The object's length in bytes.
    #[expect(clippy::len_without_is_empty, reason = "it is the object's length, not a list's")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// How many groups the object has; at least one, which may be empty.
    pub fn groups(&self) -> usize {
        self.len.div_ceil(GROUP).max(1)
    }

    /// How many bytes a group has.
    pub fn group_len(&self, group: usize) -> usize {
        self.len.saturating_sub(group * GROUP).min(GROUP)
    }

    /// Whether these are the bytes of this group.
    pub fn check(&self, group: usize, bytes: &[u8]) -> bool {
        if group >= self.groups() || bytes.len() != self.group_len(group) {
            return false;
        }
        match self.groups.get(group) {
            Some(expected) => value(group as u64, bytes) == *expected,
            None => ContentId::of(bytes) == self.id,
        }
    }
}

/// The chaining value of the n-th group of an object with more than one.
fn value(n: u64, group: &[u8]) -> ChainingValue {
    blake3::Hasher::new().set_input_offset(n * GROUP as u64).update(group).finalize_non_root()
}

/// The hash of an object of more than one group.
fn root(groups: &[ChainingValue]) -> ContentId {
    let (left, right) = groups.split_at(left_half(groups.len()));
    ContentId(*merge_subtrees_root(&inner(left), &inner(right), Mode::Hash).as_bytes())
}

fn inner(groups: &[ChainingValue]) -> ChainingValue {
    match groups {
        [one] => *one,
        more => {
            let (left, right) = more.split_at(left_half(more.len()));
            merge_subtrees_non_root(&inner(left), &inner(right), Mode::Hash)
        }
    }
}

/// The largest power of two below `groups`: what BLAKE3 puts to the left. Whole groups are whole
/// subtrees, so the rule for chunks holds for groups too.
fn left_half(groups: usize) -> usize {
    groups.div_ceil(2).next_power_of_two()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(&len.to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    }

    #[test]
    fn it_leads_to_the_hash_at_every_shape_of_tree() {
        let groups = (0..12).chain([15, 16, 17, 31, 33, 64, 100]);
        let lengths = groups.flat_map(|n| [n * GROUP, n * GROUP + 1, (n + 1) * GROUP - 1]);
        for len in lengths.chain([1, 1024, 1025]) {
            let bytes = bytes(len);
            let outline = Outline::of(&bytes);
            assert_eq!(outline.id(), ContentId::of(&bytes), "{len}");
            assert_eq!(Outline::read(bytes.as_slice(), len).expect("reads"), outline);
            let encoded = outline.encode();
            assert_eq!(encoded.len(), Outline::encoded_len(len));
            let decoded = Outline::decode(outline.id(), len as u64, &encoded);
            assert_eq!(decoded.as_ref(), Ok(&outline));
            let groups: Vec<_> = match len {
                0 => vec![&bytes[..]],
                _ => bytes.chunks(GROUP).collect(),
            };
            assert_eq!(outline.groups(), groups.len());
            assert!(groups.iter().enumerate().all(|(n, group)| outline.check(n, group)));
        }
    }

    #[test]
    fn other_outlines_are_refused() {
        let bytes = bytes(3 * GROUP);
        let (outline, id) = (Outline::of(&bytes), ContentId::of(&bytes));
        let encoded = outline.encode();
        let check = |len: usize, bytes: &[u8], expected| {
            assert_eq!(Outline::decode(id, len as u64, bytes), Err(expected));
        };
        check(3 * GROUP, &encoded[1..], OutlineError::Length { found: 95, expected: 96 });
        check(GROUP, &encoded, OutlineError::Length { found: 96, expected: 0 });
        check(2 * GROUP, &encoded[..64], OutlineError::Other);
        check(MAX_OBJECT + 1, &[], OutlineError::TooLong { len: MAX_OBJECT as u64 + 1 });
        let mut flipped = encoded.clone();
        flipped[40] ^= 1;
        check(3 * GROUP, &flipped, OutlineError::Other);
        // An inner node given for a group passes as an outline; no group does.
        let merged = merge_subtrees_non_root(&outline.groups[0], &outline.groups[1], Mode::Hash);
        let short = [merged, outline.groups[2]].concat();
        let short = Outline::decode(id, 2 * GROUP as u64, &short).expect("it merges to the id");
        assert!(!short.check(0, &bytes[..GROUP]));
    }

    proptest! {
        #[test]
        fn a_changed_group_is_seen(len in 1usize..(5 * GROUP), at in any::<prop::sample::Index>()) {
            let mut bytes = bytes(len);
            let (outline, at) = (Outline::of(&bytes), at.index(len));
            bytes[at] ^= 1;
            for (n, group) in bytes.chunks(GROUP).enumerate() {
                prop_assert_eq!(outline.check(n, group), n != at / GROUP);
            }
            prop_assert!(!outline.check(outline.groups(), &[]));
        }
    }
}
