//! Cutting a container whose changes are too long for the streams of one segment.
//!
//! It is cut before and behind members, into runs with as much of the changes each as a segment
//! takes. A run makes some chunks of the file only, but a decoder makes every file from its
//! beginning: so a run begins with as many old bytes as lie before it in the file, as they are,
//! which costs nothing and is in none of its chunks. It ends with its last chunk, of which what
//! lies behind the cut is literals. What is in no run stays closed.

use std::ops::Range;

use super::diff::{Changes, Op};
use super::encode::Encoder;
use super::head::Item;
use super::opened::{Place, Shape};
use crate::pack::PackError;

/// Some chunks of a container, and what makes them of the old one.
pub(super) struct Run<'a> {
    pub(super) item: Item<'a>,
    pub(super) shape: Shape,
    pub(super) changes: Changes,
    pub(super) corrections: Vec<u8>,
}

/// A place between members, or between a member and what is around it.
#[derive(Clone, Copy)]
struct Cut {
    file: usize,
    expansion: usize,
    piece: usize,
    correction: usize,
    /// Where in the file the next member begins.
    member: usize,
}

impl<'a> Encoder<'a> {
    /// Cuts an opened file into runs whose streams have `limit` bytes at most, as far as it can be
    /// cut. `whole` is all of it in one, `places` are its members.
    pub(super) fn runs(
        &self,
        whole: &Run<'a>,
        places: &[Place],
        expansion: &[u8],
        old: &[u8],
        limit: usize,
    ) -> Result<Vec<Run<'a>>, PackError> {
        let cuts = cuts(whole, places, expansion.len());
        let mut ops = Cursor { ops: whole.changes.ops(), done: 0 };
        let weigh = |pair: &[Cut]| {
            let bytes = &expansion[pair[0].expansion..pair[1].expansion];
            let changes = Changes::new(ops.take(bytes.len()), old, 0, bytes);
            changes.streams() + pair[1].correction - pair[0].correction
        };
        let weights: Vec<usize> = cuts.windows(2).map(weigh).collect();
        let positions = self.positions(&whole.item);
        let rest = |cut: &Cut| rest(&whole.item, &positions, cut.file);
        let rests: Vec<usize> = cuts.iter().map(rest).collect();
        let shape = whole.shape.write(whole.shape.kind()).len();
        let mut ops = Cursor { ops: whole.changes.ops(), done: 0 };
        let (mut runs, mut at) = (Vec::new(), 0);
        for range in halves(&weights, &rests, limit.saturating_sub(shape)) {
            let (from, until) = (cuts[range.start], cuts[range.end]);
            ops.take(from.expansion - at);
            let ops = ops.take(until.expansion - from.expansion);
            at = until.expansion;
            let first = positions.partition_point(|start| *start < from.file);
            let end = positions.partition_point(|start| *start < until.file);
            // Without a member there is nothing to open.
            if first == end || from.piece == until.piece {
                continue;
            }
            let rest = match rests[range.end] {
                0 => Vec::new(),
                rest => {
                    let mut last = self.chunk(&whole.item.chunks[end - 1])?;
                    last.split_off(last.len() - rest)
                }
            };
            let bytes = [&expansion[from.expansion..until.expansion], &rest];
            let item = Item { chunks: &whole.item.chunks[first..end], ..whole.item };
            runs.push(run(item, whole, (from, until), ops, bytes, old));
        }
        Ok(runs)
    }

    /// Where in their file the chunks of an item begin.
    fn positions(&self, item: &Item<'a>) -> Vec<usize> {
        let mut wanted = item.chunks.iter().peekable();
        let (mut positions, mut at) = (Vec::new(), 0);
        for chunk in self.new_entry(item).chunks() {
            if wanted.next_if_eq(&chunk).is_some() {
                positions.push(at);
            }
            at += chunk.len as usize;
        }
        positions
    }
}

/// How much of the chunk that begins before a place in the file lies behind it.
fn rest(item: &Item<'_>, positions: &[usize], place: usize) -> usize {
    let last = positions.partition_point(|start| *start < place).checked_sub(1);
    last.map_or(0, |n| (positions[n] + item.chunks[n].len as usize).saturating_sub(place))
}

/// One run: `ops` make the first of these bytes, the rest of the last chunk is literals.
fn run<'a>(
    item: Item<'a>,
    whole: &Run<'a>,
    (from, until): (Cut, Cut),
    ops: Vec<Op>,
    [own, rest]: [&[u8]; 2],
    old: &[u8],
) -> Run<'a> {
    let mut bytes = Vec::with_capacity(from.file + own.len() + rest.len());
    let mut all = Vec::new();
    while bytes.len() < from.file {
        let differences = old.len().min(from.file - bytes.len());
        all.push(Op { position: 0, differences, literals: 0 });
        bytes.extend_from_slice(&old[..differences]);
    }
    bytes.extend_from_slice(own);
    bytes.extend_from_slice(rest);
    all.extend(ops);
    if !rest.is_empty() {
        all.push(Op { position: 0, differences: 0, literals: rest.len() });
    }
    let changes = Changes::new(all, old, 0, &bytes);
    let mut pieces = whole.shape.new[from.piece..until.piece].to_vec();
    // Before the first of them lies all that does before it in the file.
    pieces[0].gap = from.member as u64;
    let length = bytes.len() as u64;
    let shape = Shape { old: whole.shape.old.clone(), new: pieces, length };
    let corrections = whole.corrections[from.correction..until.correction].to_vec();
    Run { item, shape, changes, corrections }
}

/// The beginning, each member's two ends, and the end.
fn cuts(whole: &Run<'_>, places: &[Place], length: usize) -> Vec<Cut> {
    let mut at = Cut { file: 0, expansion: 0, piece: 0, correction: 0, member: 0 };
    at.member = places.first().map_or(0, |place| place.file.start);
    let mut cuts = vec![at];
    for (n, place) in places.iter().enumerate() {
        at.expansion += place.file.start - at.file;
        at.file = place.file.start;
        cuts.push(at);
        let pieces = &whole.shape.new[place.pieces.clone()];
        at.file = place.file.end;
        at.expansion += pieces.iter().map(|piece| piece.plain as usize).sum::<usize>();
        at.piece = place.pieces.end;
        at.member = places.get(n + 1).map_or(at.file, |next| next.file.start);
        at.correction += pieces.iter().map(|piece| piece.corrections as usize).sum::<usize>();
        cuts.push(at);
    }
    at.file += length - at.expansion;
    at.expansion = length;
    cuts.push(at);
    cuts
}

/// Cuts in two as evenly as can be, until all weigh no more than the limit, with the `rests` that
/// are added where a run ends. What is too heavy by itself is left out.
fn halves(weights: &[usize], rests: &[usize], limit: usize) -> Vec<Range<usize>> {
    let whole = 0..weights.len();
    let (mut ranges, mut todo) = (Vec::new(), vec![whole]);
    while let Some(range) = todo.pop() {
        let total: usize = weights[range.clone()].iter().sum();
        if total + rests[range.end] <= limit {
            ranges.push(range);
            continue;
        }
        let mut before = 0;
        let middle = (range.start + 1..range.end).min_by_key(|n| {
            before += weights[n - 1];
            (2 * before).abs_diff(total)
        });
        if let Some(middle) = middle {
            todo.extend([middle..range.end, range.start..middle]);
        }
    }
    ranges
}

/// Takes ops off the front, by the new bytes that they cover.
struct Cursor<'a> {
    ops: &'a [Op],
    /// Bytes of the first of them that are taken.
    done: usize,
}

impl Cursor<'_> {
    fn take(&mut self, mut bytes: usize) -> Vec<Op> {
        let mut taken = Vec::new();
        while let Some((op, later)) = self.ops.split_first().filter(|_| bytes > 0) {
            let over = self.done.min(op.differences);
            let (differences, literals) = (op.differences - over, op.literals - (self.done - over));
            let now = bytes.min(differences + literals);
            taken.push(Op {
                position: op.position + over as u64,
                differences: differences.min(now),
                literals: now - differences.min(now),
            });
            bytes -= now;
            self.done += now;
            if self.done == op.differences + op.literals {
                (self.ops, self.done) = (later, 0);
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_weigh_no_more_than_they_may() {
        let cut = |weights: &[usize], rests: &[usize], limit| -> Vec<(usize, usize)> {
            halves(weights, rests, limit).iter().map(|range| (range.start, range.end)).collect()
        };
        let even = |weights: &[usize], limit| cut(weights, &vec![0; weights.len() + 1], limit);
        assert_eq!(even(&[1, 2, 3], 6), [(0, 3)]);
        assert_eq!(even(&[1, 2, 3], 5), [(0, 2), (2, 3)]);
        assert_eq!(even(&[1, 9, 1, 0, 9, 1], 11), [(0, 2), (2, 6)]);
        assert_eq!(even(&[1, 9, 1, 30, 9, 1], 12), [(0, 3), (4, 6)], "one is too heavy");
        assert_eq!(even(&[7], 6), []);
        assert_eq!(cut(&[3, 3, 3, 3], &[0, 2, 2, 2, 0], 8), [(0, 2), (2, 4)]);
        assert_eq!(cut(&[3, 3, 3, 3], &[0, 2, 2, 2, 0], 7), [(0, 1), (1, 2), (2, 4)]);
    }

    #[test]
    fn ops_are_cut_where_it_is_said() {
        let op = |position, differences, literals| Op { position, differences, literals };
        let ops = [op(10, 4, 2), op(30, 0, 3), op(50, 5, 0)];
        let take = |lengths: &[usize]| -> Vec<Vec<Op>> {
            let mut cursor = Cursor { ops: &ops, done: 0 };
            lengths.iter().map(|length| cursor.take(*length)).collect()
        };
        assert_eq!(take(&[14]), [ops.to_vec()]);
        let three = [vec![op(10, 3, 0)], vec![op(13, 1, 2), op(30, 0, 1)]];
        assert_eq!(take(&[3, 4]), three);
        assert_eq!(
            take(&[5, 0, 2]),
            [vec![op(10, 4, 1)], vec![], vec![op(14, 0, 1), op(30, 0, 1)]]
        );
        assert_eq!(take(&[13, 9])[1], [op(54, 1, 0)]);
    }
}
