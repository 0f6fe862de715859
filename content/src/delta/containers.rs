//! Making opened segments: which files are containers, and whether opening them pays.
//!
//! A segment is kept only if the very decoder that hosts run has made the new file of it again, bit
//! for bit, and if it is smaller than the difference between the two files as they are.

use std::collections::BTreeSet;
use std::ops::Range;

use super::decode::{Base, Delta};
use super::diff::Streams;
use super::encode::{Encoder, changes, parallel};
use super::head::{Item, Kind, write};
use super::opened::{EXPANDED, Shape, expand_new, expand_old, is_container, members};
use super::sorted::Sorted;
use super::{DIFF_RAW, DIFF_STREAMS, effort};
use crate::id::ContentId;
use crate::manifest::{ChunkRef, Entry};
use crate::pack::{PackError, Part, compress};
use crate::store::Store;

/// Containers of which more than this is new are opened one at a time.
const LARGE: usize = 4 << 20;

impl<'a> Encoder<'a> {
    /// Encodes the containers that are worth opening; returns the other files.
    pub(super) fn containers(
        &self,
        items: Vec<Item<'a>>,
    ) -> Result<(Vec<Part>, Vec<Item<'a>>), PackError> {
        let (mut large, mut small, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for item in items {
            match (self.may_open(&item)?, item.raw() > LARGE) {
                (true, true) => large.push(item),
                (true, false) => small.push(item),
                (false, _) => others.push(item),
            }
        }
        let mut tried = Vec::new();
        for item in &large {
            tried.push(self.open(item)?);
        }
        tried.extend(parallel(small.len(), |n| self.open(&small[n]))?);
        let mut parts = Vec::new();
        for (item, opened) in large.iter().chain(&small).zip(tried) {
            match opened {
                Some(bytes) => parts.push(self.keep(&bytes)?),
                None => others.push(*item),
            }
        }
        others.sort_unstable_by_key(|item| item.file);
        Ok((parts, others))
    }

    fn new_entry(&self, item: &Item<'_>) -> &'a Entry {
        &self.view.target.entries[self.view.layout[item.file].entry]
    }

    fn may_open(&self, item: &Item<'_>) -> Result<bool, PackError> {
        let Some(base) = item.base else { return Ok(false) };
        let (old, new) = (self.old(base), self.new_entry(item));
        if item.raw() > DIFF_RAW || old.size().max(new.size()) > EXPANDED {
            return Ok(false);
        }
        for entry in [old, new] {
            if !is_container(&self.chunk(&entry.chunks()[0])?) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The segment, if opening pays.
    fn open(&self, item: &Item<'a>) -> Result<Option<Vec<u8>>, PackError> {
        let base = item.base.expect("a container without a base is not opened");
        let old_file = self.bytes(self.old(base).chunks())?;
        let new_file = self.bytes(self.new_entry(item).chunks())?;
        let [in_old, in_new] = changed_members(&old_file, &new_file);
        let expanded = (expand_old(&old_file, &in_old), expand_new(&new_file, &in_new));
        let (Some((members, old)), Some(new)) = expanded else {
            return Ok(None);
        };
        drop(new_file);
        let length = new.expansion.len() as u64;
        let shape = Shape { old: members, new: new.pieces, length }.write();
        let sorted = Sorted::new(old);
        let changed = changes(&sorted, 0, &new.expansion);
        drop((sorted, new.expansion));
        let mut streams = Streams::default();
        streams.push(&changed, false);
        let mut lengths = streams.lengths();
        (lengths[4], lengths[5]) = (shape.len(), new.corrections.len());
        if lengths.iter().sum::<usize>() > DIFF_STREAMS {
            return Ok(None);
        }
        let frame = [streams.joined(), shape, new.corrections].concat();
        let mut bytes = write(Kind::Opened, &[*item], lengths, self.view);
        bytes.extend(compress(None, &frame, effort::difference_level(frame.len()))?);
        let pays = bytes.len() < self.closed(item, old_file)? && self.is_exact(item, &bytes)?;
        Ok(pays.then_some(bytes))
    }

    /// About how long the difference is if the files stay closed.
    fn closed(&self, item: &Item<'_>, old: Vec<u8>) -> Result<usize, PackError> {
        let sorted = Sorted::new(old);
        let mut streams = Streams::default();
        streams.push(&changes(&sorted, 0, &self.bytes(item.chunks)?), false);
        Ok(compress(None, &streams.joined(), 3)?.len())
    }

    /// Whether the decoder makes every chunk of it.
    fn is_exact(&self, item: &Item<'_>, bytes: &[u8]) -> Result<bool, PackError> {
        let delta = Delta::new(self.view.base, self.view.target);
        let mut made = 0;
        let mut count = |_: &ChunkRef, _: &[u8]| -> Result<(), PackError> {
            made += 1;
            Ok(())
        };
        let decoded = delta.decode(bytes, &mut Stored(self.store), &mut count);
        match decoded {
            Ok(decoded) => Ok(decoded.wrong.is_empty() && made == item.chunks.len()),
            Err(PackError::Format { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Of the members of both files, where those are that only one of them has.
fn changed_members(old: &[u8], new: &[u8]) -> [Vec<Range<usize>>; 2] {
    let ids = |file: &[u8]| -> Vec<(ContentId, Range<usize>)> {
        let ranges = members(file).into_iter();
        ranges.map(|range| (ContentId::of(&file[range.clone()]), range)).collect()
    };
    let both = [ids(old), ids(new)];
    let [old, new] = [0, 1].map(|n: usize| both[n].iter().map(|(id, _)| *id).collect());
    let (old, new): (BTreeSet<ContentId>, BTreeSet<ContentId>) = (old, new);
    both.map(|ids| {
        let changed = ids.into_iter().filter(|(id, _)| !(old.contains(id) && new.contains(id)));
        changed.map(|(_, range)| range).collect()
    })
}

/// The base as the store has it.
struct Stored<'a>(&'a Store);

impl Base for Stored<'_> {
    fn chunk(&mut self, _: &Entry, chunk: &ChunkRef, _: u64) -> Option<Vec<u8>> {
        self.0.get(&chunk.id).ok().flatten()
    }

    fn scratch(&mut self) -> std::io::Result<std::fs::File> {
        self.0.scratch()
    }
}
