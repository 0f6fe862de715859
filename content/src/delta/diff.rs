//! New bytes as differences to old ones: which old bytes to subtract from which new ones.
//!
//! This is the idea of bsdiff (Colin Percival, "Naive differences of executable code", 2003): an
//! exact match is extended both ways for as long as more than half of the bytes agree, because in
//! programs what follows a match is mostly the same code with other addresses in it. The
//! matches come from a suffix array ([`Sorted`]). Two shortcuts are ours: where the distance at
//! hand goes on matching nothing is searched, and what is in no old run of eight bytes is passed
//! over.
//!
//! What differs is ours too. bsdiff stores one difference for each byte, nearly all of them zero,
//! and leaves the zeros to the compressor. Here the bytes that agree are counted, and four bytes
//! from the first that does not are subtracted as one little-endian number: an address that
//! moved is one small number, which comes again wherever the same thing is referred to, and no
//! carry spoils it. On compiled Python extensions this takes up to a third off the whole.

use super::head::{Lengths, number, read_number, read_u64};
use super::sorted::{Sorted, common};
use crate::pack::PackError;

/// A match must beat what the present distance gives by more than this, or is not worth a jump.
const MARGIN: usize = 8;
/// Where the present distance matches this far, nothing better is searched for.
const FOLLOWED: usize = 24;

/// First new bytes as differences to old ones at a position, then new bytes as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Op {
    /// Where the old bytes begin.
    pub(super) position: u64,
    /// How many bytes are differences.
    pub(super) differences: usize,
    /// How many bytes follow as they are.
    pub(super) literals: usize,
}

/// Covers the new bytes with ops. Positions count from `origin`, where the old bytes begin.
pub(super) fn ops(sorted: &Sorted, origin: u64, new: &[u8]) -> Vec<Op> {
    let old = sorted.old();
    let mut ops = Vec::new();
    // The last match: where it begins in the new and in the old bytes.
    let mut last = (0, 0);
    let mut scan = 0;
    let mut length = 0;
    while scan < new.len() {
        scan += length;
        let found = next_match(sorted, new, scan, last);
        (scan, length) = (found.scan, found.length);
        if found.follows && scan < new.len() {
            continue;
        }
        let (forward, backward) = extend(old, new, last, (scan, found.position));
        let next = scan - backward;
        let differences = forward;
        let literals = next - last.0 - differences;
        if differences + literals > 0 {
            ops.push(Op { position: origin + last.1 as u64, differences, literals });
        }
        last = (next, found.position - backward);
    }
    ops
}

struct Match {
    scan: usize,
    position: usize,
    length: usize,
    /// Whether it is at the distance of the last one.
    follows: bool,
}

/// The next place in the new bytes with a match that is worth taking, or their end.
fn next_match(sorted: &Sorted, new: &[u8], start: usize, last: (usize, usize)) -> Match {
    let old = sorted.old();
    let aligned = |at: usize| (at + last.1).checked_sub(last.0).filter(|at| *at < old.len());
    let agrees = |at: usize| aligned(at).is_some_and(|place| old[place] == new[at]);
    // How many of the new bytes from `scan` to `counted` agree at the present distance.
    let (mut scan, mut counted, mut score) = (start, start, 0_usize);
    while scan < new.len() {
        if let Some(place) = aligned(scan) {
            let length = common(&old[place..], &new[scan..]);
            if length >= FOLLOWED {
                return Match { scan, position: place, length, follows: true };
            }
        }
        let (position, length) = sorted.longest(&new[scan..]);
        let until = scan + length.max(1);
        while counted < until {
            score += usize::from(agrees(counted));
            counted += 1;
        }
        if length > 0 && length == score && counted == until {
            return Match { scan, position, length, follows: true };
        }
        if length > score + MARGIN {
            return Match { scan, position, length, follows: false };
        }
        score -= usize::from(agrees(scan));
        scan += 1;
    }
    Match { scan, position: 0, length: 0, follows: false }
}

/// How far the last match goes on forward and the next one backward, without overlap.
fn extend(old: &[u8], new: &[u8], last: (usize, usize), next: (usize, usize)) -> (usize, usize) {
    let gap = next.0 - last.0;
    let ahead = new[last.0..next.0].iter().zip(&old[last.1..]).map(|(new, old)| new == old);
    let mut forward = farthest(ahead);
    let mut backward = 0;
    if next.0 < new.len() {
        let behind = new[last.0..next.0].iter().rev().zip(old[..next.1].iter().rev());
        backward = farthest(behind.map(|(new, old)| new == old));
    }
    if forward + backward > gap {
        // Both want these bytes: split where the most agree.
        let overlap = forward + backward - gap;
        let start = forward - overlap;
        let (mut score, mut best, mut taken) = (0_isize, 0, 0);
        for n in 0..overlap {
            let at = last.0 + start + n;
            score += isize::from(new[at] == old[last.1 + start + n]);
            score -= isize::from(new[at] == old[next.1 + at - next.0]);
            if score > best {
                (best, taken) = (score, n + 1);
            }
        }
        forward = start + taken;
        backward -= taken;
    }
    (forward, backward)
}

/// How far to go so that agreeing bytes outnumber the others by most.
fn farthest(agree: impl Iterator<Item = bool>) -> usize {
    let (mut score, mut best, mut length) = (0_isize, 0, 0);
    for (n, agrees) in agree.enumerate() {
        score += if agrees { 1 } else { -1 };
        if score > best {
            (best, length) = (score, n + 1);
        }
    }
    length
}

/// New bytes as what is done to old ones.
#[derive(Debug, Default)]
pub(super) struct Changes {
    ops: Vec<Op>,
    /// Bytes that agree, and the difference of the four after them.
    words: Vec<(u64, i32)>,
    /// Bytes that agree after the last of the words.
    tail: u64,
    literals: Vec<u8>,
}

impl Changes {
    /// What makes `new` of `old`, which begins at `origin` and covers all that the ops refer to.
    pub(super) fn new(ops: Vec<Op>, old: &[u8], origin: u64, new: &[u8]) -> Changes {
        let mut changes = Changes::default();
        let mut rest = new;
        for op in &ops {
            let (now, later) = rest.split_at(op.differences);
            changes.compare(&old[(op.position - origin) as usize..], now);
            let (now, later) = later.split_at(op.literals);
            changes.literals.extend_from_slice(now);
            rest = later;
        }
        changes.ops = ops;
        changes
    }

    /// New bytes as they are.
    pub(super) fn literal(new: &[u8]) -> Changes {
        let op = Op { position: 0, differences: 0, literals: new.len() };
        Changes { ops: vec![op], literals: new.to_vec(), ..Changes::default() }
    }

    fn compare(&mut self, old: &[u8], new: &[u8]) {
        let mut at = 0;
        while at < new.len() {
            let same = common(&old[at..], &new[at..]);
            self.tail += same as u64;
            at += same;
            if at < new.len() && old[at] != new[at] {
                let length = (new.len() - at).min(WORD);
                let word = word(&new[at..at + length]).wrapping_sub(word(&old[at..at + length]));
                // Fewer than four bytes at the end: the sign is that of the bytes there are.
                let spare = 8 * (WORD - length) as u32;
                self.words.push((self.tail, (word << spare).cast_signed() >> spare));
                self.tail = 0;
                at += length;
            }
        }
    }

    pub(super) fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// How many bytes the streams take.
    pub(super) fn streams(&self) -> usize {
        let mut streams = Streams::default();
        streams.push(self, false);
        streams.lengths().iter().sum()
    }

    /// About how many bytes the streams take.
    pub(super) fn weight(&self) -> usize {
        4 * self.ops.len() + 4 * self.words.len() + self.literals.len()
    }
}

/// Bytes that are subtracted as one number.
const WORD: usize = 4;

fn word(bytes: &[u8]) -> u32 {
    let mut word = [0; WORD];
    word[..bytes.len()].copy_from_slice(bytes);
    u32::from_le_bytes(word)
}

/// The four streams of a difference segment.
#[derive(Debug, Default)]
pub(super) struct Streams {
    control: Vec<u8>,
    gaps: Vec<u8>,
    words: Vec<u8>,
    literals: Vec<u8>,
    /// Where the old bytes were left, and how many bytes agree since the last word.
    position: u64,
    tail: u64,
}

impl Streams {
    /// Appends changes, of another file or of the next piece of the same one.
    pub(super) fn push(&mut self, changes: &Changes, goes_on: bool) {
        if !goes_on {
            self.position = 0;
        }
        for op in &changes.ops {
            let jump = op.position.wrapping_sub(self.position).cast_signed();
            number(&mut self.control, zigzag(jump));
            number(&mut self.control, op.differences as u64);
            number(&mut self.control, op.literals as u64);
            self.position = op.position + op.differences as u64;
        }
        for (gap, word) in &changes.words {
            number(&mut self.gaps, self.tail + gap);
            number(&mut self.words, zigzag((*word).into()));
            self.tail = 0;
        }
        self.tail += changes.tail;
        self.literals.extend_from_slice(&changes.literals);
    }

    /// How long each of them is, in the order in which they travel; two more are not here.
    pub(super) fn lengths(&self) -> Lengths {
        let [control, gaps, words, literals] =
            [&self.control, &self.gaps, &self.words, &self.literals].map(Vec::len);
        [control, gaps, words, literals, 0, 0]
    }

    /// One after the other.
    pub(super) fn joined(&self) -> Vec<u8> {
        [self.control.as_slice(), &self.gaps, &self.words, &self.literals].concat()
    }
}

/// Turns old bytes into new ones, as the gaps and the words say.
pub(super) struct Patch<'a> {
    gaps: &'a [u8],
    words: &'a [u8],
    /// Bytes that agree before the next word; `None` if there is no other.
    gap: Option<u64>,
}

impl<'a> Patch<'a> {
    pub(super) fn new(gaps: &'a [u8], words: &'a [u8]) -> Result<Patch<'a>, PackError> {
        let mut patch = Patch { gaps, words, gap: None };
        patch.next_gap()?;
        Ok(patch)
    }

    /// Changes bytes of one op, which goes on after them if there is `more`; returns how many are
    /// done. All of them, but for a word at their end that reaches into what follows.
    pub(super) fn apply(&mut self, bytes: &mut [u8], more: bool) -> Result<usize, PackError> {
        let mut at = 0;
        while let Some(gap) = self.gap {
            let left = bytes.len() - at;
            if gap >= left as u64 {
                self.gap = Some(gap - left as u64);
                break;
            }
            at += gap as usize;
            let length = (bytes.len() - at).min(WORD);
            if length < WORD && more {
                self.gap = Some(0);
                return Ok(at);
            }
            let value = i32::try_from(unzigzag(read_u64(&mut self.words)?));
            let value =
                value.map_err(|_| PackError::Format { what: "a difference is too large" })?;
            let place = &mut bytes[at..at + length];
            let sum = word(place).wrapping_add(value.cast_unsigned()).to_le_bytes();
            place.copy_from_slice(&sum[..length]);
            at += length;
            self.next_gap()?;
        }
        Ok(bytes.len())
    }

    /// Whether everything has been used.
    pub(super) fn is_done(&self) -> bool {
        self.gap.is_none() && self.words.is_empty()
    }

    fn next_gap(&mut self) -> Result<(), PackError> {
        self.gap = if self.gaps.is_empty() { None } else { Some(read_u64(&mut self.gaps)?) };
        Ok(())
    }
}

/// Takes ops off the front of a control stream, one after the other.
pub(super) struct Ops {
    /// New bytes that no op has covered yet.
    left: usize,
    position: u64,
    /// Length of the old bytes.
    size: u64,
}

impl Ops {
    /// The ops that cover exactly `raw` new bytes and refer to nothing beyond `size` old ones.
    pub(super) fn new(raw: usize, size: u64) -> Ops {
        Ops { left: raw, position: 0, size }
    }

    /// The next op; `None` once all is covered.
    pub(super) fn next(&mut self, control: &mut &[u8]) -> Result<Option<Op>, PackError> {
        let refuse = |what| PackError::Format { what };
        if self.left == 0 {
            return Ok(None);
        }
        let jump = unzigzag(read_u64(control)?).cast_unsigned();
        let position = self.position.wrapping_add(jump);
        let (differences, literals) = (read_number(control)?, read_number(control)?);
        let end = position.checked_add(differences as u64).filter(|end| *end <= self.size);
        self.position = end.ok_or(refuse("it copies from beyond the end of its base"))?;
        let bytes = differences.checked_add(literals).filter(|bytes| *bytes > 0);
        let rest = bytes.and_then(|bytes| self.left.checked_sub(bytes));
        self.left = rest.ok_or(refuse("its operations do not fit the file"))?;
        Ok(Some(Op { position, differences, literals }))
    }
}

fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63).cast_unsigned()
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}
