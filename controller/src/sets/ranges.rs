//! Patterns: names in which brackets stand for numbers, `rack[1-2]n[01-16]`.
//!
//! A pattern says how many names it stands for before any of them is made, so that whoever reads
//! one can refuse it first.

use super::{MAX_BRACKETS, MAX_DIGITS, MAX_NAME_LEN, SetFault};

/// A fault with its byte offset in the text that was read.
pub(super) type Wrong = (usize, SetFault);

/// A name, or many: text, then brackets each followed by text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern<'a> {
    head: &'a str,
    brackets: Vec<(Vec<Range>, &'a str)>,
}

impl<'a> Pattern<'a> {
    /// Reads a text whose brackets are balanced; `other` are the characters that it may have beside
    /// letters and digits.
    pub(super) fn parse(text: &'a str, other: &str) -> Result<Pattern<'a>, Wrong> {
        let mut pieces = text.split('[');
        let head = pieces.next().unwrap_or_default();
        check_text(head, 0, other)?;
        let mut length = head.len();
        let mut at = head.len() + 1;
        let mut brackets = Vec::new();
        for piece in pieces {
            let (inside, after) = piece.split_once(']').expect("brackets are balanced");
            let ranges = ranges(inside, at)?;
            check_text(after, at + inside.len() + 1, other)?;
            length += after.len();
            at += piece.len() + 1;
            brackets.push((ranges, after));
        }
        if length > MAX_NAME_LEN {
            return Err((0, SetFault::LongName));
        }
        if brackets.len() > MAX_BRACKETS {
            return Err((0, SetFault::ManyBrackets));
        }
        Ok(Pattern { head, brackets })
    }

    /// The name, if it is one without brackets.
    pub fn single(&self) -> Option<&'a str> {
        self.brackets.is_empty().then_some(self.head)
    }

    /// How many names it stands for, repetitions included.
    pub fn count(&self) -> u64 {
        let each = self.brackets.iter().map(|(ranges, _)| {
            ranges.iter().fold(0u64, |sum, range| sum.saturating_add(range.count()))
        });
        each.fold(1, u64::saturating_mul)
    }

    /// The names, in the order written, repetitions included.
    pub fn names(&self) -> Vec<String> {
        let mut names = Vec::with_capacity(usize::try_from(self.count()).unwrap_or(0));
        let mut name = self.head.to_owned();
        write_names(&mut name, &self.brackets, &mut names);
        names
    }

    /// The texts between the brackets.
    pub(super) fn texts(&self) -> impl Iterator<Item = &'a str> {
        std::iter::once(self.head).chain(self.brackets.iter().map(|(_, after)| *after))
    }
}

fn write_names(name: &mut String, brackets: &[(Vec<Range>, &str)], names: &mut Vec<String>) {
    use std::fmt::Write;
    let Some(((ranges, after), rest)) = brackets.split_first() else {
        names.push(name.clone());
        return;
    };
    let length = name.len();
    for range in ranges {
        for index in 0..range.count() {
            let (number, width) = (range.start + index * range.step, range.width);
            write!(name, "{number:0width$}{after}").expect("a text can grow");
            write_names(name, rest, names);
            name.truncate(length);
        }
    }
}

fn check_text(text: &str, at: usize, other: &str) -> Result<(), Wrong> {
    let fine = |c: char| c.is_ascii_alphanumeric() || other.contains(c);
    match text.char_indices().find(|(_, c)| !fine(*c)) {
        None => Ok(()),
        Some((i, c)) => Err((at + i, SetFault::Character(c))),
    }
}

/// Numbers from `start` to `end`, every `step`th, with at least `width` digits.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Range {
    start: u64,
    end: u64,
    step: u64,
    width: usize,
}

impl Range {
    fn count(&self) -> u64 {
        (self.end - self.start) / self.step + 1
    }
}

fn ranges(inside: &str, mut at: usize) -> Result<Vec<Range>, Wrong> {
    let mut found = Vec::new();
    for item in inside.split(',') {
        let lead = item.len() - item.trim_start().len();
        found.push(range(item.trim(), at + lead)?);
        at += item.len() + 1;
    }
    Ok(found)
}

fn range(item: &str, at: usize) -> Result<Range, Wrong> {
    let (span, step) = match item.split_once('/') {
        Some((span, step)) => (span, number(step, at + span.len() + 1)?),
        None => (item, 1),
    };
    if step == 0 {
        return Err((at + span.len() + 1, SetFault::Step));
    }
    let (first, last) = span.split_once('-').unwrap_or((span, span));
    let start = number(first, at)?;
    let end = number(last, at + span.len() - last.len())?;
    let ends = || (first.to_owned(), last.to_owned());
    if end < start {
        let (start, end) = ends();
        return Err((at, SetFault::Backwards { start, end }));
    }
    let is_padded = |text: &str| text.len() > 1 && text.starts_with('0');
    let differs = (is_padded(last) && last.len() != first.len())
        || (is_padded(first) && last.len() < first.len());
    if differs {
        let (start, end) = ends();
        return Err((at, SetFault::Width { start, end }));
    }
    let width = if is_padded(first) { first.len() } else { 0 };
    Ok(Range { start, end, step, width })
}

fn number(text: &str, at: usize) -> Result<u64, Wrong> {
    if text.is_empty() {
        return Err((at, SetFault::NoNumber));
    }
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err((at, SetFault::NotANumber(text.to_owned())));
    }
    if text.len() > MAX_DIGITS {
        return Err((at, SetFault::LongNumber));
    }
    Ok(text.parse().expect("18 digits fit"))
}
