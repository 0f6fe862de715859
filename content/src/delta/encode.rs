//! Making the segments of a delta, once for the whole fleet.
//!
//! Every file of the layout gets a base if there is one, and a kind: binaries are tried both ways
//! and take the smaller, text goes into prefix segments unless it is too long for one. Files of one
//! kind are gathered, in the order of the layout, into segments of bounded size; a file that is
//! longer than a segment is cut between chunks. Two threads take one segment after the other.
//!
//! Old bytes are sorted only if something of the new ones is likely to be found in them: whole up
//! to 256 MiB, and of a longer file what lies around the same relative place, so that a file of any
//! length takes bounded memory.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::bases::Bases;
use super::diff::{Changes, Streams, ops};
use super::effort;
use super::head::{Item, Kind, View, place_of, write};
use super::layout::layout;
use super::sorted::Sorted;
use super::trial;
use super::{DIFF_RAW, DIFF_STREAMS, PREFIX_BASE, PREFIX_RAW};
use crate::manifest::{ChunkRef, Entry, Manifest};
use crate::pack::{PackError, Part, compress, part};
use crate::store::Store;

/// What bounds memory and time; in tests everything is smaller.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    /// Old bytes that are sorted at once at most; sorting takes seven times as much memory.
    pub(super) sorted: u64,
    /// Of a longer file, new bytes for which old ones are sorted at once.
    pub(super) stretch: usize,
    /// And what is sorted on either side of their own place in the old file.
    pub(super) around: u64,
    /// A longer file is compared piece by piece. However that turns out, one piece fits into a
    /// segment.
    pub(super) piece: usize,
    /// Raw bytes whose changes are held in memory at once.
    pub(super) wave: usize,
    /// Bytes in the streams of a difference segment: fewer than there may be, so that there is
    /// work for two threads.
    pub(super) solid: usize,
    /// Bytes in the streams of a segment with opened containers.
    pub(super) opened: usize,
    /// Raw bytes in a prefix segment, and bytes in its prefix.
    pub(super) prefix: (usize, usize),
}

impl Sizes {
    pub(super) const REAL: Sizes = Sizes {
        sorted: 256 << 20,
        stretch: 16 << 20,
        around: 8 << 20,
        piece: DIFF_STREAMS / 8,
        wave: 256 << 20,
        solid: 4 << 20,
        opened: DIFF_STREAMS,
        prefix: (PREFIX_RAW, PREFIX_BASE),
    };
}

/// Differences of fewer bytes are not worth a try.
const SMALLEST: u64 = 128;
pub(super) const ENCODERS: usize = 2;

/// Encodes what leads from the base to the target, and stores the segments. With the rate of the
/// slowest link, in bytes a second, containers stay closed that would only be there later for being
/// opened, and levels are lower. Also returns whether anything is longer for it.
pub(crate) fn encode(
    base: &Manifest,
    target: &Manifest,
    store: &Store,
    rate: Option<u64>,
) -> Result<(Vec<Part>, bool), PackError> {
    encode_over(base, target, store, (Sizes::REAL, rate))
}

/// The same in many small segments.
#[cfg(test)]
pub(crate) fn encode_small(
    base: &Manifest,
    target: &Manifest,
    store: &Store,
) -> Result<Vec<Part>, PackError> {
    encode_within(base, target, store, super::tests::SMALL)
}

#[cfg(test)]
pub(super) fn encode_within(
    base: &Manifest,
    target: &Manifest,
    store: &Store,
    sizes: Sizes,
) -> Result<Vec<Part>, PackError> {
    Ok(encode_over(base, target, store, (sizes, None))?.0)
}

fn encode_over(
    base: &Manifest,
    target: &Manifest,
    store: &Store,
    (sizes, rate): (Sizes, Option<u64>),
) -> Result<(Vec<Part>, bool), PackError> {
    let layout = layout(Some(base), target);
    let view = View { base, target, layout: &layout };
    let encoder = Encoder { view, store, sizes, rate, is_spared: AtomicBool::new(false) };
    let bases = encoder.bases()?;
    let mut differences = Vec::new();
    let mut prefixes = Vec::new();
    let items = bases.into_iter().enumerate();
    let items = items.map(|(file, base)| Item { file, chunks: &layout[file].chunks, base });
    let (mut parts, items) = encoder.containers(items.collect())?;
    for item in items {
        match encoder.differs(&item)? {
            true => differences.push(item),
            false => prefixes.push(item),
        }
    }
    parts.extend(encoder.differences(&differences, &mut prefixes)?);
    prefixes.sort_unstable_by_key(|item| item.file);
    parts.extend(encoder.prefixes(prefixes)?);
    Ok((parts, encoder.is_spared.into_inner()))
}

pub(super) struct Encoder<'a> {
    pub(super) view: View<'a>,
    pub(super) store: &'a Store,
    pub(super) sizes: Sizes,
    /// Of the slowest link, in bytes a second, if that is known.
    pub(super) rate: Option<u64>,
    /// Whether something is longer than it could be because of that.
    pub(super) is_spared: AtomicBool,
}

impl<'a> Encoder<'a> {
    /// The base of each file of the layout; none if the store does not hold all of it.
    fn bases(&self) -> Result<Vec<Option<usize>>, PackError> {
        let bases = Bases::new(self.view);
        let choose = |file| -> Result<Option<usize>, PackError> {
            let Some(base) = bases.choose(file) else { return Ok(None) };
            Ok(self.has(base)?.then_some(base))
        };
        let mut chosen = (0..self.view.layout.len()).map(choose).collect::<Result<Vec<_>, _>>()?;
        self.add_alike(&mut chosen, bases.gone())?;
        Ok(chosen)
    }

    /// Whether the store holds all of a file of the base.
    pub(super) fn has(&self, base: usize) -> Result<bool, PackError> {
        for chunk in self.old(base).chunks() {
            if !self.store.has(&chunk.id)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(super) fn old(&self, base: usize) -> &'a Entry {
        &self.view.base.entries[base]
    }

    /// Whether a difference is to be tried.
    fn differs(&self, item: &Item<'_>) -> Result<bool, PackError> {
        let Some(base) = item.base else { return Ok(false) };
        let fresh = &self.view.layout[item.file];
        let (raw, old) = self.sizes.prefix;
        if fresh.bytes() > raw as u64 || self.old(base).size() > old as u64 {
            return Ok(true);
        }
        if fresh.bytes() < SMALLEST {
            return Ok(false);
        }
        let first = self.chunk(&fresh.chunks[0])?;
        Ok(first.iter().take(4096).any(|byte| *byte == 0))
    }

    /// Encodes the difference segments; files that are smaller another way go to `prefixes`.
    fn differences(
        &self,
        items: &[Item<'a>],
        prefixes: &mut Vec<Item<'a>>,
    ) -> Result<Vec<Part>, PackError> {
        let mut parts = Vec::new();
        let items: Vec<_> = items.iter().flat_map(|item| pieces(item, self.sizes.wave)).collect();
        // Changes are held in memory until they are encoded: so not those of everything at once.
        for wave in groups(&items, |wave, item| raw(wave) + item.raw() <= self.sizes.wave) {
            let (long, short): (Vec<_>, Vec<_>) =
                wave.into_iter().partition(|item| self.is_long(item));
            let mut changed = Vec::new();
            for item in long {
                changed.extend(self.long(item)?);
            }
            let tried = parallel(short.len(), |n| self.short(&short[n]))?;
            for (item, tried) in short.iter().zip(tried) {
                match tried {
                    Some(pieces) => changed.extend(pieces),
                    None => prefixes.push(*item),
                }
            }
            // Stable: the pieces of one file stay in order.
            changed.sort_by_key(|(item, _)| item.file);
            parts.extend(self.difference_segments(&changed)?);
        }
        Ok(parts)
    }

    /// Whether the base takes so much memory that only one such file should be sorted at a time.
    fn is_long(&self, item: &Item<'_>) -> bool {
        item.base.is_some_and(|base| self.old(base).size() > self.sizes.sorted / 8)
    }

    /// What makes a file of its base, unless the base as a prefix is better.
    fn short(&self, item: &Item<'a>) -> Result<Option<Vec<(Item<'a>, Changes)>>, PackError> {
        let base = item.base.expect("files without a base are not tried");
        let sorted = Sorted::new(self.bytes(self.old(base).chunks())?);
        let (mut streams, mut new, mut changed) = (Streams::default(), Vec::new(), Vec::new());
        for piece in pieces(item, self.sizes.piece) {
            let bytes = self.bytes(piece.chunks)?;
            let changes = changes(&sorted, 0, &bytes);
            streams.push(&changes, !changed.is_empty());
            changed.push((piece, changes));
            new.extend(bytes);
        }
        if sorted.old().len() > self.sizes.prefix.1 || new.len() > self.sizes.prefix.0 {
            return Ok(Some(changed));
        }
        let level = effort::trial_level(new.len());
        let difference = compress(None, &streams.joined(), level)?.len();
        let prefix = compress(Some(sorted.old()), &new, level)?.len();
        Ok((difference <= prefix).then_some(changed))
    }

    /// What makes the pieces of a long file of its base.
    fn long(&self, item: Item<'a>) -> Result<Vec<(Item<'a>, Changes)>, PackError> {
        let base = item.base.expect("files without a base are not tried");
        let old = self.old(base);
        if old.size() <= self.sizes.sorted {
            let sorted = Sorted::new(self.bytes(old.chunks())?);
            let pieces = pieces(&item, self.sizes.piece);
            let changed =
                |n: usize| Ok((pieces[n], changes(&sorted, 0, &self.bytes(pieces[n].chunks)?)));
            return parallel(pieces.len(), changed);
        }
        let stretches = pieces(&item, self.sizes.stretch);
        let changed = parallel(stretches.len(), |n| {
            let (origin, chunks) = self.around(old, &stretches[n]);
            let sorted = Sorted::new(self.bytes(chunks)?);
            let pieces = pieces(&stretches[n], self.sizes.piece).into_iter();
            let changed = pieces
                .map(|piece| Ok((piece, changes(&sorted, origin, &self.bytes(piece.chunks)?))));
            changed.collect::<Result<Vec<_>, PackError>>()
        })?;
        Ok(changed.into_iter().flatten().collect())
    }

    /// Gathers pieces into segments and encodes these.
    fn difference_segments(&self, pieces: &[(Item<'a>, Changes)]) -> Result<Vec<Part>, PackError> {
        let weight = |n: usize| pieces[n].1.weight();
        let bytes: usize = (0..pieces.len()).map(weight).sum();
        let level = self.level(bytes as u64, self.sizes.solid);
        let mut groups: Vec<Range<usize>> = Vec::new();
        let (mut bytes, mut heavy) = (0, 0);
        for (n, (item, _)) in pieces.iter().enumerate() {
            (bytes, heavy) = (bytes + item.raw(), heavy + weight(n));
            let joins = |group: &Range<usize>| {
                let last = &pieces[group.end - 1].0;
                let fits = bytes <= DIFF_RAW && heavy <= self.sizes.solid;
                fits && (self.goes_on(last, item) || self.follows(last, item))
            };
            match groups.last_mut() {
                Some(group) if joins(group) => group.end = n + 1,
                _ => {
                    groups.push(n..n + 1);
                    (bytes, heavy) = (item.raw(), weight(n));
                }
            }
        }
        parallel(groups.len(), |n| {
            let (mut streams, mut items) = (Streams::default(), Vec::<Item<'a>>::new());
            for (item, changes) in &pieces[groups[n].clone()] {
                let goes_on = items.last().is_some_and(|last| self.goes_on(last, item));
                streams.push(changes, goes_on);
                match items.last_mut() {
                    Some(last) if goes_on => {
                        let all = &self.view.layout[item.file].chunks;
                        let start = place_of(all, last.chunks);
                        last.chunks = &all[start..start + last.chunks.len() + item.chunks.len()];
                    }
                    _ => items.push(*item),
                }
            }
            let mut out = write(Kind::Difference, &items, streams.lengths(), self.view);
            out.extend_from_slice(&effort::squeeze(None, &streams.joined(), level)?);
            self.keep(&out)
        })
    }

    /// Whether one is the end of its file and the other the beginning of another.
    fn follows(&self, last: &Item<'_>, item: &Item<'_>) -> bool {
        let all = |item: &Item<'_>| &self.view.layout[item.file].chunks;
        let ends = all(last).last() == last.chunks.last();
        let begins = all(item).first() == item.chunks.first();
        last.file != item.file && ends && begins
    }

    /// Whether one is the next piece of the other's file.
    fn goes_on(&self, last: &Item<'_>, item: &Item<'_>) -> bool {
        let all = &self.view.layout[last.file].chunks;
        let next = place_of(all, last.chunks) + last.chunks.len();
        last.file == item.file && all.get(next) == item.chunks.first()
    }

    /// The chunks of the old file around the relative place of a piece of the new one.
    fn around(&self, old: &'a Entry, piece: &Item<'_>) -> (u64, &'a [ChunkRef]) {
        let entry = &self.view.target.entries[self.view.layout[piece.file].entry];
        let place = |chunk: Option<&ChunkRef>| {
            let before = entry.chunks().iter().take_while(|other| Some(*other) != chunk);
            let offset: u64 = before.map(|chunk| u64::from(chunk.len)).sum();
            let scaled = u128::from(offset) * u128::from(old.size()) / u128::from(entry.size());
            u64::try_from(scaled).unwrap_or(u64::MAX)
        };
        let from = place(piece.chunks.first()).saturating_sub(self.sizes.around);
        // Chunks that are missing may lie far apart: then the first of them decide.
        let until = place(piece.chunks.last()).saturating_add(self.sizes.around);
        let until = until.min(from + self.sizes.sorted);
        let (mut origin, mut end) = (0, 0);
        let mut range: Range<usize> = 0..0;
        for (n, chunk) in old.chunks().iter().enumerate() {
            let (start, stop) = (end, end + u64::from(chunk.len));
            end = stop;
            if stop <= from || start >= until {
                continue;
            }
            if range.is_empty() {
                (origin, range) = (start, n..n);
            }
            range.end = n + 1;
        }
        (origin, &old.chunks()[range])
    }

    /// Encodes the prefix segments.
    fn prefixes(&self, items: Vec<Item<'a>>) -> Result<Vec<Part>, PackError> {
        let bytes = items.iter().map(|item| item.raw() as u64).sum();
        let level = self.level(bytes, self.sizes.prefix.0);
        let items: Vec<_> =
            items.iter().flat_map(|item| pieces(item, self.sizes.prefix.0)).collect();
        let old = |item: &Item<'_>| item.base.map_or(0, |base| self.old(base).size());
        let groups = groups(&items, |group, item| {
            raw(group) + item.raw() <= self.sizes.prefix.0
                && group.iter().map(old).sum::<u64>() + old(item) <= self.sizes.prefix.1 as u64
                && group.last().is_some_and(|last| self.follows(last, item))
        });
        parallel(groups.len(), |n| {
            let group = &groups[n];
            let mut prefix = Vec::new();
            let mut seen = std::collections::BTreeSet::new();
            for base in group.iter().filter_map(|item| item.base) {
                if seen.insert(base) {
                    prefix.extend(self.bytes(self.old(base).chunks())?);
                }
            }
            let mut raw = Vec::new();
            for item in group {
                raw.extend(self.bytes(item.chunks)?);
            }
            let prefix = Some(prefix.as_slice()).filter(|prefix| !prefix.is_empty());
            let mut out = write(Kind::Prefix, group, [0; 6], self.view);
            out.extend_from_slice(&effort::squeeze(prefix, &raw, level)?);
            self.keep(&out)
        })
    }

    /// The level for so many bytes in segments of `solid`. Notes whether it is a lower one for what
    /// is known of the links.
    pub(super) fn level(&self, bytes: u64, solid: usize) -> i32 {
        let best = effort::update_level(bytes, solid, None);
        let level = effort::update_level(bytes, solid, self.rate);
        if level < best {
            self.is_spared.store(true, Ordering::Relaxed);
        }
        level
    }

    pub(super) fn keep(&self, encoded: &[u8]) -> Result<Part, PackError> {
        let part = part(encoded);
        self.store.put(part.id, encoded)?;
        Ok(part)
    }

    pub(super) fn bytes(&self, chunks: &[ChunkRef]) -> Result<Vec<u8>, PackError> {
        let mut bytes = Vec::new();
        for chunk in chunks {
            bytes.extend(self.chunk(chunk)?);
        }
        Ok(bytes)
    }

    pub(super) fn chunk(&self, chunk: &ChunkRef) -> Result<Vec<u8>, PackError> {
        let bytes = self.store.get(&chunk.id)?;
        let bytes = bytes.filter(|bytes| bytes.len() == chunk.len as usize);
        bytes.ok_or(PackError::Missing { id: chunk.id })
    }
}

pub(super) fn changes(sorted: &Sorted, origin: u64, new: &[u8]) -> Changes {
    if !sorted.is_like(new) || !trial::pays(sorted, new) {
        return Changes::literal(new);
    }
    let changes = Changes::new(ops(sorted, origin, new), sorted.old(), origin, new);
    // What has nothing in common with its base is not to become longer for it.
    if changes.weight() > new.len() { Changes::literal(new) } else { changes }
}

fn raw(items: &[Item<'_>]) -> usize {
    items.iter().map(Item::raw).sum()
}

/// Gathers neighbours for as long as they fit together.
pub(super) fn groups<'a>(
    items: &[Item<'a>],
    fits: impl Fn(&[Item<'a>], &Item<'a>) -> bool,
) -> Vec<Vec<Item<'a>>> {
    let mut groups: Vec<Vec<Item<'a>>> = Vec::new();
    for item in items {
        match groups.last_mut() {
            Some(group) if fits(group, item) => group.push(*item),
            _ => groups.push(vec![*item]),
        }
    }
    groups
}

/// Cuts a file between chunks, so that no piece is longer than a segment.
fn pieces<'a>(item: &Item<'a>, limit: usize) -> Vec<Item<'a>> {
    let (mut pieces, mut rest) = (Vec::new(), item.chunks);
    while !rest.is_empty() {
        let mut raw = 0;
        let fit = rest.iter().take_while(|chunk| {
            raw += chunk.len as usize;
            raw <= limit
        });
        let (now, later) = rest.split_at(fit.count().max(1));
        pieces.push(Item { chunks: now, ..*item });
        rest = later;
    }
    pieces
}

/// Does numbered jobs on two threads; the results are in the order of the numbers.
pub(super) fn parallel<T: Send>(
    jobs: usize,
    job: impl Fn(usize) -> Result<T, PackError> + Sync,
) -> Result<Vec<T>, PackError> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<(usize, T)>, PackError> {
        let mut done = Vec::new();
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= jobs {
                return Ok(done);
            }
            let result = job(n).inspect_err(|_| next.store(jobs, Ordering::Relaxed))?;
            done.push((n, result));
        }
    };
    let mut done = std::thread::scope(|scope| -> Result<Vec<(usize, T)>, PackError> {
        let threads: Vec<_> = (0..ENCODERS.min(jobs)).map(|_| scope.spawn(work)).collect();
        let mut all = Vec::new();
        for thread in threads {
            let done = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            all.extend(done?);
        }
        Ok(all)
    })?;
    done.sort_unstable_by_key(|(n, _)| *n);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}
