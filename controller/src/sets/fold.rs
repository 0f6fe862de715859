//! Writing names as briefly as it can be done: `rack[1-2]n[01-16]`.
//!
//! Names that differ in their numbers only are points in a space with one dimension for each
//! number. Points that agree in all dimensions but one are joined along that one, then what has
//! been joined is joined along the others, until nothing changes. That is not always the shortest
//! way to write a set (finding it is a covering problem), but what was written with brackets comes
//! back as it was, and every name is in one part only.
//!
//! The conventions are those of ClusterShell: numbers of a width stay together, those that are
//! shorter come first, zeros are kept; parts are in the order of their texts, and of those that
//! differ in numbers only the largest comes first.

use std::collections::hash_map::Entry;
use std::fmt::Write;

use super::hash::Map;
use super::{MAX_BRACKETS, MAX_DIGITS};

/// Stands for a number in the text of a shape. No name has it, and it sorts before what names have.
const SLOT: char = '\0';

/// Writes names as one text: each once, in the order of their texts, numbers folded.
pub fn fold(names: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    fold_stepped(names, usize::MAX)
}

/// The same, in which numbers that have steps between them are a range, `n[0-20/2]`, if they are at
/// least so many.
pub fn fold_stepped(names: impl IntoIterator<Item = impl AsRef<str>>, least: usize) -> String {
    let mut shapes: Map<String, Vec<Point>> = Map::default();
    let mut shape = String::new();
    for name in names {
        shape.clear();
        let point = take_apart(name.as_ref(), &mut shape);
        match shapes.get_mut(&shape) {
            Some(points) => points.push(point),
            None => {
                shapes.insert(shape.clone(), vec![point]);
            }
        }
    }
    let mut shapes: Vec<(String, Vec<Point>)> = shapes.into_iter().collect();
    shapes.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    let mut text = String::new();
    for (shape, mut points) in shapes {
        points.sort_unstable();
        points.dedup();
        text.push_str(if text.is_empty() { "" } else { "," });
        text.push_str(&write_shape(&shape, points, least));
    }
    text
}

/// All names of one shape. The points are sorted, and none is there twice.
fn write_shape(shape: &str, points: Vec<Point>, least: usize) -> String {
    let write = |mut parts: Vec<Part>| {
        let size = |part: &Part| part.iter().map(Vec::len).product::<usize>();
        parts.sort_unstable_by(|a, b| size(b).cmp(&size(a)).then_with(|| a.cmp(b)));
        let mut text = String::new();
        for part in parts {
            text.push_str(if text.is_empty() { "" } else { "," });
            write_part(&mut text, shape, &part, least);
        }
        text
    };
    match points.first().map_or(0, Vec::len) {
        0 => write(vec![Vec::new()]),
        1 => write(vec![vec![points.into_iter().flatten().collect()]]),
        _ => {
            let text = write(join(&points, true));
            if !text.contains(',') {
                return text;
            }
            // Which dimension comes first can make a difference; the shorter text is the better.
            let other = write(join(&points, false));
            if other.len() < text.len() { other } else { text }
        }
    }
}

/// A number as it is written: how many digits, and what they come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Number {
    width: u8,
    value: u64,
}

impl Number {
    fn is_padded(self) -> bool {
        self.width > 1 && self.value < 10u64.pow(u32::from(self.width) - 1)
    }

    /// Whether `next` is the next number in a range with this step that began with `first`.
    fn is_before(self, next: Number, step: u64, first: Number) -> bool {
        // 9 goes on to 10, but 08-99 does not go on to 100.
        let same_width = self.width == next.width || (!first.is_padded() && !next.is_padded());
        next.value == self.value + step && same_width
    }
}

/// The numbers of one name.
type Point = Vec<Number>;
/// For each dimension its numbers, in order.
type Part = Vec<Vec<Number>>;

/// The numbers of a name; its text, with a slot for each of them, is appended to `shape`.
fn take_apart(name: &str, shape: &mut String) -> Point {
    let mut point = Vec::new();
    let bytes = name.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes[at..].iter().take_while(|b| b.is_ascii_digit()).count();
        let end = match digits {
            0 => at + bytes[at..].iter().take_while(|b| !b.is_ascii_digit()).count(),
            _ => at + digits,
        };
        let piece = &name[at..end];
        // Numbers that nobody counts with are text.
        match piece.parse() {
            Ok(value) if (1..=MAX_DIGITS).contains(&digits) && point.len() < MAX_BRACKETS => {
                point.push(Number { width: u8::try_from(digits).unwrap_or(u8::MAX), value });
                shape.push(SLOT);
            }
            _ => shape.push_str(piece),
        }
        at = end;
    }
    point
}

/// Joins points to as few parts as going along one dimension after the other finds, from the last
/// to the first or the other way round, until nothing changes.
fn join(points: &[Point], from_last: bool) -> Vec<Part> {
    let mut sets = Sets::default();
    let ids = points.iter().map(|point| {
        let id = |number: &Number| sets.one(*number);
        point.iter().map(id).collect()
    });
    let mut parts: Vec<Vec<u32>> = ids.collect();
    let dimensions = parts.first().map_or(0, Vec::len);
    loop {
        let before = parts.len();
        for step in 0..dimensions {
            let along = if from_last { dimensions - 1 - step } else { step };
            parts = join_along(parts, along, &mut sets);
        }
        if parts.len() == before || parts.len() == 1 {
            break;
        }
    }
    let part = |ids: Vec<u32>| ids.into_iter().map(|id| sets.numbers(id).to_vec()).collect();
    parts.into_iter().map(part).collect()
}

/// Sets of numbers, each known by a number of its own, so that equal ones are found quickly.
#[derive(Default)]
struct Sets {
    known: Vec<Vec<Number>>,
    ids: Map<Vec<Number>, u32>,
    ones: Map<Number, u32>,
}

impl Sets {
    /// The set of one number.
    fn one(&mut self, number: Number) -> u32 {
        *self.ones.entry(number).or_insert_with(|| {
            self.known.push(vec![number]);
            last(&self.known)
        })
    }

    /// The set of several numbers, in order.
    fn many(&mut self, numbers: Vec<Number>) -> u32 {
        match self.ids.entry(numbers) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                self.known.push(new.key().clone());
                *new.insert(last(&self.known))
            }
        }
    }

    fn numbers(&self, id: u32) -> &[Number] {
        &self.known[id as usize]
    }
}

fn last(known: &[Vec<Number>]) -> u32 {
    u32::try_from(known.len() - 1).expect("each set comes from a name, or joins several")
}

/// Joins the parts that differ in this dimension only.
fn join_along(parts: Vec<Vec<u32>>, along: usize, sets: &mut Sets) -> Vec<Vec<u32>> {
    let mut rows: Map<Vec<u32>, Vec<u32>> = Map::default();
    rows.reserve(parts.len());
    for mut part in parts {
        let id = std::mem::replace(&mut part[along], 0);
        rows.entry(part).or_default().push(id);
    }
    let joined = rows.into_iter().map(|(mut part, ids)| {
        part[along] = match ids.as_slice() {
            [one] => *one,
            many => {
                let all = many.iter().flat_map(|id| sets.numbers(*id)).copied();
                let mut all: Vec<Number> = all.collect();
                all.sort_unstable();
                sets.many(all)
            }
        };
        part
    });
    joined.collect()
}

fn write_part(text: &mut String, shape: &str, part: &[Vec<Number>], least: usize) {
    let mut numbers = part.iter();
    for (n, piece) in shape.split(SLOT).enumerate() {
        if n > 0 {
            write_numbers(text, numbers.next().expect("a slot for each dimension"), least);
        }
        text.push_str(piece);
    }
}

fn write_numbers(text: &mut String, numbers: &[Number], least: usize) {
    let bracket = numbers.len() > 1;
    text.push_str(if bracket { "[" } else { "" });
    let mut rest = numbers;
    while let Some(&first) = rest.first() {
        let run_of = |step| {
            rest.windows(2).take_while(|pair| pair[0].is_before(pair[1], step, first)).count()
        };
        let (mut step, mut run) = (1, run_of(1));
        let gap = rest.get(1).map_or(1, |second| second.value.saturating_sub(first.value));
        if run == 0 && gap > 1 && run_of(gap).saturating_add(1) >= least {
            (step, run) = (gap, run_of(gap));
        }
        let (width, last) = (usize::from(first.width), rest[run]);
        write!(text, "{:0width$}", first.value).expect("a text can grow");
        if run > 0 {
            write!(text, "-{:0width$}", last.value).expect("a text can grow");
        }
        if step > 1 {
            write!(text, "/{step}").expect("a text can grow");
        }
        rest = &rest[run + 1..];
        text.push_str(if rest.is_empty() { "" } else { "," });
    }
    text.push_str(if bracket { "]" } else { "" });
}
