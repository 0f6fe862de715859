//! Making opened segments: which files are containers, and whether opening them pays.
//!
//! A container is opened only if that is smaller than the difference between the two files as they
//! are, and if the very decoder that hosts run has made the new file again, bit for bit. Those
//! with members that are not deflated are gathered into segments, as kernel modules are small and
//! many; and there is a limit to them, since to pack them again takes hosts long.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use super::cuts::Run;
use super::decode::{Base, Delta};
use super::diff::{Changes, Streams};
use super::encode::{Encoder, changes, groups, parallel};
use super::head::{Item, Kind, place_of, write};
use super::members::{Packed, is_container, is_deflated, members};
use super::opened::{EXPANDED, Member, Opened, SLOW, Shape, expand_new, expand_old};
use super::sorted::Sorted;
use super::{DIFF_RAW, effort};
use crate::id::ContentId;
use crate::manifest::{ChunkRef, Entry};
use crate::pack::{PackError, Part, compress};
use crate::store::Store;

/// Containers of which more than this is new are opened one at a time.
const LARGE: usize = 4 << 20;
/// Small ones whose changes are held in memory at once, up to 16 MiB of each.
const WAVE: usize = 16;

/// What may be done with a file.
enum Way {
    /// It is no container, or opening it would take too long.
    Closed,
    /// All that is in it is deflated.
    Quick,
    /// It takes long to pack again.
    Slow,
}

/// A container that is worth opening, or a run of it.
struct Candidate<'a> {
    item: Item<'a>,
    kind: Kind,
    shape: Vec<u8>,
    changes: Changes,
    corrections: Vec<u8>,
    /// Length of the longer of the two expansions and files.
    longest: u64,
    /// Members that are not deflated.
    slow: usize,
    /// Plain bytes that are not deflated.
    packed: u64,
    /// Its segment, if it has one for itself.
    alone: Vec<u8>,
}

impl<'a> Encoder<'a> {
    /// Encodes the containers that are worth opening; returns the other files.
    pub(super) fn containers(
        &self,
        items: Vec<Item<'a>>,
    ) -> Result<(Vec<Part>, Vec<Item<'a>>), PackError> {
        let (mut waves, mut quick, mut slow) = (Vec::new(), Vec::new(), Vec::new());
        let (mut others, mut budget) = (Vec::new(), effort::PACKED_AGAIN);
        for item in items {
            match self.way(&item, &mut budget)? {
                Way::Closed => others.push(item),
                _ if item.raw() > LARGE => waves.push(vec![item]),
                Way::Quick => quick.push(item),
                Way::Slow => slow.push(item),
            }
        }
        waves.extend(groups(&quick, |wave, _| wave.len() < WAVE));
        // There are not many bytes in these, and they go into segments together.
        waves.extend((!slow.is_empty()).then_some(slow));
        let mut parts = Vec::new();
        for wave in waves {
            let mut candidates = Vec::new();
            let tried = parallel(wave.len(), |n| self.open(wave[n]))?;
            for (item, opened) in wave.into_iter().zip(tried) {
                others.extend(closed(&item, &opened));
                candidates.extend(opened);
            }
            let segments = self.gather(candidates);
            for (part, inexact) in parallel(segments.len(), |n| self.exact(&segments[n]))? {
                parts.extend(part);
                others.extend(inexact);
            }
        }
        let place = |item: &Item<'_>| place_of(&self.view.layout[item.file].chunks, item.chunks);
        others.sort_unstable_by_key(|item| (item.file, place(item)));
        Ok((parts, others))
    }

    pub(super) fn new_entry(&self, item: &Item<'_>) -> &'a Entry {
        &self.view.target.entries[self.view.layout[item.file].entry]
    }

    /// Of those that are slow to pack again only so many are opened.
    fn way(&self, item: &Item<'_>, budget: &mut u64) -> Result<Way, PackError> {
        let Some(base) = item.base else { return Ok(Way::Closed) };
        let (old, new) = (self.old(base), self.new_entry(item));
        if item.raw() > DIFF_RAW || old.size().max(new.size()) > EXPANDED {
            return Ok(Way::Closed);
        }
        let (old, first) = (self.chunk(&old.chunks()[0])?, self.chunk(&new.chunks()[0])?);
        if !is_container(&old) || !is_container(&first) {
            return Ok(Way::Closed);
        }
        if is_deflated(&first) {
            // Nobody knows yet what opening it would save on a slower link.
            let may_be_sooner = effort::may_be_sooner(item.raw() as u64, self.rate);
            if !may_be_sooner {
                self.is_spared.store(true, Ordering::Relaxed);
            }
            return Ok(if may_be_sooner { Way::Quick } else { Way::Closed });
        }
        let Some(left) = budget.checked_sub(new.size()) else { return Ok(Way::Closed) };
        *budget = left;
        Ok(Way::Slow)
    }

    /// The container opened as far as that pays, in as many runs as it takes.
    fn open(&self, item: Item<'a>) -> Result<Vec<Candidate<'a>>, PackError> {
        let base = item.base.expect("a container without a base is not opened");
        let old_file = self.bytes(self.old(base).chunks())?;
        let new_file = self.bytes(self.new_entry(&item).chunks())?;
        let [in_old, in_new] = changed_members(&old_file, &new_file);
        let Some((members, old)) = expand_old(&old_file, &in_old) else { return Ok(Vec::new()) };
        let Some(new) = expand_new(&new_file, &in_new) else { return Ok(Vec::new()) };
        let longest = old_file.len().max(new_file.len()).max(old.len()) as u64;
        drop(new_file);
        let sorted = Sorted::new(old);
        // It would be all of it as it is, which is less while it is packed.
        if !sorted.is_like(&new.expansion) {
            return Ok(Vec::new());
        }
        let runs = self.cut(item, members, &sorted, new)?;
        drop(sorted);
        if runs.is_empty() {
            return Ok(Vec::new());
        }
        let sorted = Sorted::new(old_file);
        let mut opened = Vec::new();
        for run in runs {
            let mut candidate = Candidate::new(run, longest);
            if self.pays(&mut candidate, &sorted)? {
                opened.push(candidate);
            }
        }
        Ok(opened)
    }

    /// The whole of an opened container, or runs of it if it is too much for one segment.
    fn cut(
        &self,
        item: Item<'a>,
        members: Vec<Member>,
        sorted: &Sorted,
        new: Opened,
    ) -> Result<Vec<Run<'a>>, PackError> {
        let Opened { pieces, places, expansion, corrections } = new;
        let changes = changes(sorted, 0, &expansion);
        let shape = Shape { old: members, new: pieces, length: expansion.len() as u64 };
        let beside = shape.write(shape.kind()).len() + corrections.len();
        let (streams, limit) = (changes.streams() + beside, self.sizes.opened);
        let whole = Run { item, shape, changes, corrections };
        match streams <= limit {
            true => Ok(vec![whole]),
            false => self.runs(&whole, &places, &expansion, sorted.old(), limit),
        }
    }

    /// Whether it pays to open a container, or this run of it.
    fn pays(&self, candidate: &mut Candidate<'a>, old: &Sorted) -> Result<bool, PackError> {
        let Some(alone) = self.segment(&[candidate])? else { return Ok(false) };
        let saved = self.difference(&candidate.item, old)?.saturating_sub(alone.len());
        candidate.alone = alone;
        let is_sooner =
            |rate| candidate.packed == 0 || effort::is_sooner(saved as u64, candidate.packed, rate);
        let pays = saved > 0 && self.rate.is_none_or(is_sooner);
        if saved > 0 && !pays {
            self.is_spared.store(true, Ordering::Relaxed);
        }
        Ok(pays)
    }

    /// About how long the difference is if the files stay closed.
    fn difference(&self, item: &Item<'_>, old: &Sorted) -> Result<usize, PackError> {
        let mut streams = Streams::default();
        streams.push(&changes(old, 0, &self.bytes(item.chunks)?), false);
        Ok(compress(None, &streams.joined(), 3)?.len())
    }

    /// Which containers go into one segment.
    fn gather(&self, candidates: Vec<Candidate<'a>>) -> Vec<Vec<Candidate<'a>>> {
        let mut segments: Vec<Vec<Candidate<'a>>> = Vec::new();
        let mut open: Option<(usize, Load)> = None;
        for candidate in candidates {
            let load = Load::of(&candidate);
            // A run of a file does not go together with others.
            let all = self.view.layout[candidate.item.file].chunks.len();
            let joins = candidate.kind == Kind::Mixed && candidate.item.chunks.len() == all;
            let joined = match open.filter(|_| joins) {
                Some((n, before)) => before.with(load, self.sizes.opened).map(|both| (n, both)),
                None => None,
            };
            match joined {
                Some((n, _)) => segments[n].push(candidate),
                None => segments.push(vec![candidate]),
            }
            open = joined.or(joins.then_some((segments.len() - 1, load)));
        }
        segments
    }

    /// The segment of these containers, as far as all of them are made again exactly, and the
    /// files that are not.
    fn exact(
        &self,
        candidates: &[Candidate<'a>],
    ) -> Result<(Option<Part>, Vec<Item<'a>>), PackError> {
        let mut left: Vec<_> = candidates.iter().collect();
        let mut inexact = Vec::new();
        while !left.is_empty() {
            let Some(bytes) = self.segment(&left)? else { break };
            let Some(wrong) = self.wrong(&bytes)? else { break };
            if wrong.is_empty() {
                return Ok((Some(self.keep(&bytes)?), inexact));
            }
            let is_wrong = |item: &Item<'_>| item.chunks.iter().any(|chunk| wrong.contains(chunk));
            inexact.extend(left.iter().map(|one| one.item).filter(is_wrong));
            left.retain(|one| !is_wrong(&one.item));
        }
        inexact.extend(left.iter().map(|one| one.item));
        Ok((None, inexact))
    }

    /// The bytes of a segment; none if its streams are too long.
    fn segment(&self, candidates: &[&Candidate<'a>]) -> Result<Option<Vec<u8>>, PackError> {
        if let [one] = candidates
            && !one.alone.is_empty()
        {
            return Ok(Some(one.alone.clone()));
        }
        let mut streams = Streams::default();
        let (mut shapes, mut corrections, mut items) = (Vec::new(), Vec::new(), Vec::new());
        for candidate in candidates {
            streams.push(&candidate.changes, false);
            shapes.extend_from_slice(&candidate.shape);
            corrections.extend_from_slice(&candidate.corrections);
            items.push(candidate.item);
        }
        let mut lengths = streams.lengths();
        (lengths[4], lengths[5]) = (shapes.len(), corrections.len());
        if lengths.iter().sum::<usize>() > self.sizes.opened {
            return Ok(None);
        }
        let kind = candidates.first().map_or(Kind::Opened, |first| first.kind);
        let frame = [streams.joined(), shapes, corrections].concat();
        let mut bytes = write(kind, &items, lengths, self.view);
        let level = self.level(frame.len() as u64, self.sizes.opened);
        bytes.extend(effort::squeeze(None, &frame, level)?);
        Ok(Some(bytes))
    }

    /// Which chunks the decoder does not make of it; `None` if it makes nothing.
    fn wrong(&self, bytes: &[u8]) -> Result<Option<BTreeSet<ChunkRef>>, PackError> {
        let delta = Delta::new(self.view.base, self.view.target);
        let mut ignore = |_: &ChunkRef, _: &[u8]| -> Result<(), PackError> { Ok(()) };
        match delta.decode(bytes, &mut Stored(self.store), &mut ignore) {
            Ok(decoded) => Ok(Some(decoded.wrong.into_iter().collect())),
            Err(PackError::Format { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl<'a> Candidate<'a> {
    fn new(run: Run<'a>, longest: u64) -> Candidate<'a> {
        let Run { item, shape, changes, corrections } = run;
        let (kind, slow, packed) = (shape.kind(), shape.slow(), shape.packed());
        let longest = longest.max(shape.length);
        let (shape, alone) = (shape.write(kind), Vec::new());
        Candidate { item, kind, shape, changes, corrections, longest, slow, packed, alone }
    }
}

/// What of a file stays closed when these runs of it are opened.
fn closed<'a>(item: &Item<'a>, opened: &[Candidate<'a>]) -> Vec<Item<'a>> {
    let (mut closed, mut rest) = (Vec::new(), item.chunks);
    for run in opened.iter().map(|candidate| candidate.item.chunks) {
        let (before, later) = rest.split_at(place_of(rest, run));
        closed.push(Item { chunks: before, ..*item });
        rest = &later[run.len()..];
    }
    closed.push(Item { chunks: rest, ..*item });
    closed.retain(|item| !item.chunks.is_empty());
    closed
}

/// What counts against the limits of a segment.
#[derive(Clone, Copy)]
struct Load {
    raw: usize,
    streams: usize,
    longest: u64,
    slow: usize,
}

impl Load {
    fn of(candidate: &Candidate<'_>) -> Load {
        Load {
            raw: candidate.item.raw(),
            streams: candidate.changes.weight()
                + candidate.shape.len()
                + candidate.corrections.len(),
            longest: candidate.longest,
            slow: candidate.slow,
        }
    }

    /// Both together, if they fit into one segment whose streams have `streams` bytes at most.
    fn with(self, more: Load, streams: usize) -> Option<Load> {
        let both = Load {
            raw: self.raw + more.raw,
            streams: self.streams + more.streams,
            longest: self.longest + more.longest,
            slow: self.slow + more.slow,
        };
        // Half of what a host would take, so that there is work for two threads.
        let fits = both.raw <= DIFF_RAW / 2
            && both.streams <= streams / 4
            && both.longest <= EXPANDED / 4
            && both.slow <= SLOW;
        fits.then_some(both)
    }
}

/// Of the members of both files, those that only one of them has.
fn changed_members(old: &[u8], new: &[u8]) -> [Vec<Packed>; 2] {
    let ids = |file: &[u8]| -> Vec<(ContentId, Packed)> {
        let packed = members(file).into_iter();
        packed.map(|packed| (ContentId::of(&file[packed.0.clone()]), packed)).collect()
    };
    let both = [ids(old), ids(new)];
    let [old, new] = [0, 1].map(|n: usize| both[n].iter().map(|(id, _)| *id).collect());
    let (old, new): (BTreeSet<ContentId>, BTreeSet<ContentId>) = (old, new);
    both.map(|ids| {
        let changed = ids.into_iter().filter(|(id, _)| !(old.contains(id) && new.contains(id)));
        changed.map(|(_, packed)| packed).collect()
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
