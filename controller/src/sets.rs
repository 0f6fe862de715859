//! Sets of names, as people write them: `web[1-3,5,008-010/2],db1`.
//!
//! A set is terms with commas or white space between them. A term is a name in which brackets stand
//! for numbers: `rack[1-2]-n[01-16]`. [`expand`] lists the names, [`fold`] writes names as briefly
//! as it can, and `expand(fold(names))` is the same set again. Numbers keep their zeros: `n[08-10]`
//! is `n08,n09,n10`.
//!
//! Pure functions. Nothing here knows which hosts exist: `@` and `:` (groups), `*` and `?` (globs)
//! are letters like any other, and [`terms`] gives the terms one by one to whoever knows better.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap, HashSet};

/// How many names one text may stand for.
pub const MAX_NAMES: u64 = 1_000_000;
/// The longest term, in bytes, brackets not counted.
const MAX_NAME_LEN: usize = 255;
/// The most brackets in one term.
const MAX_BRACKETS: usize = 16;
/// The longest number that is counted with; longer ones are text.
const MAX_DIGITS: usize = 18;
/// How much of a long text an error shows on either side of the fault.
const EXCERPT: usize = 40;

/// A text that is not a set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} (column {column}): {fault}", excerpt(text, *column))]
pub struct SetError {
    /// The whole text.
    pub text: String,
    /// Where it goes wrong, in characters from 1.
    pub column: usize,
    /// What is wrong there.
    pub fault: SetFault,
}

/// What is wrong with a text that is not a set. Whoever wrote the text is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetFault {
    /// Two commas in a row, or one at either end.
    #[error("there is no name beside this comma")]
    Empty,
    /// A bracket is opened and not closed.
    #[error("this bracket is never closed")]
    Unclosed,
    /// A bracket is closed that was not opened.
    #[error("there is no `[` for this `]`")]
    Unopened,
    /// A bracket inside a bracket.
    #[error("brackets cannot stand inside brackets")]
    Nested,
    /// A bracket with nothing in it, or nothing between its commas.
    #[error("a number is missing here")]
    NoNumber,
    /// Something in a bracket that is neither a number nor a range.
    #[error("{0:?} is not a number: brackets hold numbers and ranges, as in [1-3,5,008-010/2]")]
    NotANumber(String),
    /// A number too long to count with.
    #[error("a number in brackets has at most {MAX_DIGITS} digits")]
    LongNumber,
    /// A range whose end is before its start.
    #[error("the range runs backwards: {start} is after {end}")]
    Backwards {
        /// As written.
        start: String,
        /// As written.
        end: String,
    },
    /// A range whose ends are padded differently.
    #[error("the ends of the range have different widths: {start} and {end}")]
    Width {
        /// As written.
        start: String,
        /// As written.
        end: String,
    },
    /// A step of zero.
    #[error("a step is at least 1")]
    Step,
    /// A character that no name has.
    #[error("{0:?} cannot be part of a name")]
    Character(char),
    /// One of nodeset's operators.
    #[error("the operator `{0}` is not known here: use -x to leave hosts out")]
    Operator(char),
    /// A name nobody has.
    #[error("a name has at most {MAX_NAME_LEN} characters")]
    LongName,
    /// More brackets than anybody means.
    #[error("a name has at most {MAX_BRACKETS} brackets")]
    ManyBrackets,
    /// More names than anybody means.
    #[error("this is more than {MAX_NAMES} names")]
    TooMany,
}

/// The names that a text stands for, in the order written, each once.
pub fn expand(text: &str) -> Result<Vec<String>, SetError> {
    let mut patterns = Vec::new();
    let mut total = 0u64;
    for (offset, term) in split(text)? {
        let pattern =
            Pattern::parse(term).map_err(|(at, fault)| wrong(text, offset + at, fault))?;
        total = total.saturating_add(pattern.count());
        if total > MAX_NAMES {
            return Err(wrong(text, offset, SetFault::TooMany));
        }
        patterns.push(pattern);
    }
    let mut names = Vec::with_capacity(usize::try_from(total).expect("a million fits"));
    for pattern in &patterns {
        pattern.write(&mut names);
    }
    drop_repeated(&mut names);
    Ok(names)
}

/// The terms of a text, in the order written: what commas and white space outside of brackets part.
pub fn terms(text: &str) -> Result<Vec<&str>, SetError> {
    Ok(split(text)?.into_iter().map(|(_, term)| term).collect())
}

/// Writes names as one text: sorted, repetitions dropped, the last number of each name folded.
pub fn fold(names: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let names: Vec<_> = names.into_iter().collect();
    let mut names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    names.sort_unstable_by(|a, b| natural_cmp(a, b));
    names.dedup();
    let parts: Vec<Numbered> = names.into_iter().map(Numbered::parse).collect();
    let widths = padded_widths(&parts);
    let mut groups: Vec<Group> = Vec::new();
    let mut known: HashMap<(&str, &str, usize), usize> = HashMap::new();
    for part in &parts {
        let width = part.width(widths.get(&(part.prefix, part.suffix)));
        let numbers = part.digits.and_then(|digits| digits.parse().ok());
        let Some(number) = numbers else {
            groups.push(Group { part: *part, width, numbers: Vec::new() });
            continue;
        };
        let at = *known.entry((part.prefix, part.suffix, width)).or_insert_with(|| {
            groups.push(Group { part: *part, width, numbers: Vec::new() });
            groups.len() - 1
        });
        groups[at].numbers.push(number);
    }
    let mut text = String::new();
    for group in groups {
        if !text.is_empty() {
            text.push(',');
        }
        group.write(&mut text);
    }
    text
}

/// How people sort names: numbers by their value, so `web2` comes before `web10`. A total order.
pub fn natural_cmp(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a.as_bytes(), b.as_bytes());
    while let (Some(&x), Some(&y)) = (left.first(), right.first()) {
        if x.is_ascii_digit() && y.is_ascii_digit() {
            let (number, after) = left.split_at(digits_at_start(left));
            let (other, after_other) = right.split_at(digits_at_start(right));
            let (number, other) = (strip_zeros(number), strip_zeros(other));
            let order = number.len().cmp(&other.len()).then_with(|| number.cmp(other));
            if order.is_ne() {
                return order;
            }
            (left, right) = (after, after_other);
        } else if x != y {
            return x.cmp(&y);
        } else {
            (left, right) = (&left[1..], &right[1..]);
        }
    }
    // Names that differ in zeros only are told apart by plain order.
    left.len().cmp(&right.len()).then_with(|| a.cmp(b))
}

/// The known name that was most likely meant, if any is close.
pub fn suggest(unknown: &str, known: impl IntoIterator<Item = impl AsRef<str>>) -> Option<String> {
    let wanted: Vec<char> = unknown.chars().collect();
    let mut limit = (wanted.len() / 3).clamp(1, 3);
    let number = Numbered::parse(unknown).value();
    let mut best: Option<(usize, u64, String)> = None;
    for name in known {
        let name = name.as_ref();
        let Some(distance) = distance(&wanted, name, limit) else { continue };
        let gap = match (number, Numbered::parse(name).value()) {
            (Some(a), Some(b)) => a.abs_diff(b),
            _ => u64::MAX,
        };
        let closer = best.as_ref().is_none_or(|(d, g, n)| {
            (distance, gap).cmp(&(*d, *g)).then_with(|| natural_cmp(name, n)).is_lt()
        });
        if closer {
            limit = distance;
            best = Some((distance, gap, name.to_owned()));
        }
    }
    best.map(|(_, _, name)| name)
}

fn wrong(text: &str, at: usize, fault: SetFault) -> SetError {
    let column = text[..at].chars().count() + 1;
    SetError { text: text.to_owned(), column, fault }
}

/// The text around a column, quoted.
fn excerpt(text: &str, column: usize) -> String {
    let skipped = column.saturating_sub(EXCERPT + 1);
    let shown: String = text.chars().skip(skipped).take(2 * EXCERPT).collect();
    let more = text.chars().nth(skipped + 2 * EXCERPT).is_some();
    let (before, after) = (if skipped > 0 { "..." } else { "" }, if more { "..." } else { "" });
    format!("{:?}", format!("{before}{shown}{after}"))
}

/// Splits at the top level into terms with their byte offsets. Brackets are balanced thereafter.
fn split(text: &str) -> Result<Vec<(usize, &str)>, SetError> {
    let mut terms = Vec::new();
    let mut start = None;
    let mut open = None;
    // The last comma that still wants a name after it, or, at first, before it.
    let mut comma = None;
    for (at, c) in text.char_indices() {
        let parts = open.is_none() && (c == ',' || c.is_whitespace());
        if parts {
            if let Some(begin) = start.take() {
                terms.push((begin, &text[begin..at]));
                comma = None;
            }
            if c == ',' {
                if comma.is_some() || terms.is_empty() {
                    return Err(wrong(text, at, SetFault::Empty));
                }
                comma = Some(at);
            }
            continue;
        }
        start.get_or_insert(at);
        match c {
            '[' if open.is_some() => return Err(wrong(text, at, SetFault::Nested)),
            '[' => open = Some(at),
            ']' if open.take().is_none() => return Err(wrong(text, at, SetFault::Unopened)),
            _ => {}
        }
    }
    if let Some(at) = open {
        return Err(wrong(text, at, SetFault::Unclosed));
    }
    match (start, comma) {
        (Some(begin), _) => terms.push((begin, &text[begin..])),
        (None, Some(at)) => return Err(wrong(text, at, SetFault::Empty)),
        (None, None) => {}
    }
    Ok(terms)
}

fn drop_repeated(names: &mut Vec<String>) {
    let mut seen = HashSet::with_capacity(names.len());
    let first: Vec<bool> = names.iter().map(|name| seen.insert(name.as_str())).collect();
    drop(seen);
    let mut first = first.into_iter();
    names.retain(|_| first.next().unwrap_or(true));
}

/// A fault with its byte offset in the term.
type Wrong = (usize, SetFault);

/// One term, read: text, then brackets each followed by text.
struct Pattern<'a> {
    head: &'a str,
    brackets: Vec<(Vec<Range>, &'a str)>,
}

impl<'a> Pattern<'a> {
    /// Reads a term whose brackets are balanced.
    fn parse(term: &'a str) -> Result<Pattern<'a>, Wrong> {
        let mut pieces = term.split('[');
        let head = pieces.next().unwrap_or_default();
        check_text(head, 0)?;
        let mut length = head.len();
        let mut at = head.len() + 1;
        let mut brackets = Vec::new();
        for piece in pieces {
            let (inside, after) = piece.split_once(']').expect("brackets are balanced");
            let ranges = ranges(inside, at)?;
            check_text(after, at + inside.len() + 1)?;
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

    /// How many names, repetitions included.
    fn count(&self) -> u64 {
        let each = self.brackets.iter().map(|(ranges, _)| {
            ranges.iter().fold(0u64, |sum, range| sum.saturating_add(range.count()))
        });
        each.fold(1, u64::saturating_mul)
    }

    fn write(&self, names: &mut Vec<String>) {
        write_names(self.head, &self.brackets, names);
    }
}

fn write_names(before: &str, brackets: &[(Vec<Range>, &str)], names: &mut Vec<String>) {
    let Some(((ranges, after), rest)) = brackets.split_first() else {
        names.push(before.to_owned());
        return;
    };
    for range in ranges {
        for index in 0..range.count() {
            let number = range.start + index * range.step;
            let width = range.width;
            write_names(&format!("{before}{number:0width$}{after}"), rest, names);
        }
    }
}

fn check_text(text: &str, at: usize) -> Result<(), Wrong> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "._-@:*?".contains(c);
    match text.char_indices().find(|(_, c)| !fine(*c)) {
        None => Ok(()),
        Some((i, c)) if "!&^".contains(c) => Err((at + i, SetFault::Operator(c))),
        Some((i, c)) => Err((at + i, SetFault::Character(c))),
    }
}

/// Numbers from `start` to `end`, every `step`th, with at least `width` digits.
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

/// A name, taken apart at its last number.
#[derive(Clone, Copy)]
struct Numbered<'a> {
    prefix: &'a str,
    digits: Option<&'a str>,
    suffix: &'a str,
}

impl<'a> Numbered<'a> {
    fn parse(name: &'a str) -> Numbered<'a> {
        let plain = Numbered { prefix: name, digits: None, suffix: "" };
        let Some(last) = name.rfind(|c: char| c.is_ascii_digit()) else { return plain };
        let (front, suffix) = name.split_at(last + 1);
        let (prefix, digits) = front.split_at(front.trim_end_matches(is_digit).len());
        if digits.len() > MAX_DIGITS {
            return plain;
        }
        Numbered { prefix, digits: Some(digits), suffix }
    }

    fn value(&self) -> Option<u64> {
        self.digits?.parse().ok()
    }

    fn is_padded(&self) -> bool {
        self.digits.is_some_and(|digits| digits.len() > 1 && digits.starts_with('0'))
    }

    /// The width to write this number with: its own if it is padded, otherwise the widest padding
    /// of its neighbours that leaves it as it is, so that 08, 09, 10 fold together.
    fn width(&self, padded: Option<&BTreeSet<usize>>) -> usize {
        let length = self.digits.map_or(0, str::len);
        if self.is_padded() {
            return length;
        }
        padded.and_then(|widths| widths.range(..=length).next_back().copied()).unwrap_or(0)
    }
}

fn is_digit(c: char) -> bool {
    c.is_ascii_digit()
}

fn digits_at_start(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|b| b.is_ascii_digit()).count()
}

fn strip_zeros(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().take_while(|b| **b == b'0').count();
    &digits[zeros..]
}

/// Which padded widths occur beside each prefix and suffix.
fn padded_widths<'a>(parts: &[Numbered<'a>]) -> HashMap<(&'a str, &'a str), BTreeSet<usize>> {
    let mut widths: HashMap<_, BTreeSet<usize>> = HashMap::new();
    for part in parts.iter().filter(|part| part.is_padded()) {
        let length = part.digits.map_or(0, str::len);
        widths.entry((part.prefix, part.suffix)).or_default().insert(length);
    }
    widths
}

/// Names that differ in their last number only.
struct Group<'a> {
    part: Numbered<'a>,
    width: usize,
    numbers: Vec<u64>,
}

impl Group<'_> {
    fn write(mut self, text: &mut String) {
        let Numbered { prefix, suffix, .. } = self.part;
        self.numbers.sort_unstable();
        let bracket = self.numbers.len() > 1;
        text.push_str(prefix);
        text.push_str(if bracket { "[" } else { "" });
        let mut rest = self.numbers.as_slice();
        while let Some(&first) = rest.first() {
            let run = (1u64..).zip(&rest[1..]).take_while(|(i, n)| first + i == **n).count();
            let width = self.width;
            text.push_str(&format!("{first:0width$}"));
            if run > 0 {
                text.push_str(&format!("-{:0width$}", rest[run]));
            }
            rest = &rest[run + 1..];
            text.push_str(if rest.is_empty() { "" } else { "," });
        }
        text.push_str(if bracket { "]" } else { "" });
        text.push_str(suffix);
    }
}

/// The edit distance (insert, delete, replace, swap neighbours) if it is at most `limit`.
fn distance(wanted: &[char], name: &str, limit: usize) -> Option<usize> {
    let name: Vec<char> = name.chars().collect();
    if wanted.len().abs_diff(name.len()) > limit {
        return None;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=name.len()).collect();
    for (i, &c) in wanted.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &d) in name.iter().enumerate() {
            let mut cost = (above[j] + usize::from(c != d)).min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && c == name[j - 1] && wanted[i - 1] == d {
                cost = cost.min(before[j - 1] + 1);
            }
            row.push(cost);
        }
        if row.iter().min().is_none_or(|least| *least > limit) {
            return None;
        }
        (before, above) = (above, row);
    }
    above.last().copied().filter(|distance| *distance <= limit)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn check(text: &str, expected: &str) {
        let names = expand(text).expect("a set");
        assert_eq!(names.join(" "), expected, "{text}");
    }

    fn check_fold(names: &str, expected: &str) {
        assert_eq!(fold(names.split_whitespace()), expected);
    }

    #[test]
    fn expands() {
        check("", "");
        check(" \n", "");
        check("web1", "web1");
        check("web[1-3,5,008-010/2]", "web1 web2 web3 web5 web008 web010");
        check("n[08-11]", "n08 n09 n10 n11");
        check("n[08-101/31]", "n08 n39 n70 n101");
        check("web[1, 3 ]", "web1 web3");
        check("r[1-2]-n[1-2].a", "r1-n1.a r1-n2.a r2-n1.a r2-n2.a");
        check("a,b c , d\te", "a b c d e");
        check("b a b a[1-2] a1", "b a a1 a2");
        check("@rack[1-2],@site:lyon,web*", "@rack1 @rack2 @site:lyon web*");
        check("n[0-0]", "n0");
    }

    #[test]
    fn errors_name_the_place() {
        let check = |text: &str, column: usize, says: &str| {
            let error = expand(text).expect_err(text);
            assert_eq!(error.column, column, "{error}");
            assert!(error.to_string().contains(says), "{error}");
        };
        check("web[1-3", 4, "never closed");
        check("web1-3]", 7, "no `[`");
        check("a[1[2]]", 4, "inside brackets");
        check("a,,b", 3, "no name");
        check(",a", 1, "no name");
        check("a, ", 2, "no name");
        check("a[]", 3, "missing");
        check("a[1,]", 5, "missing");
        check("a[1-]", 5, "missing");
        check("x,a[1-b]", 7, "\"b\" is not a number");
        check("a[3-1]", 3, "3 is after 1");
        check("a[1-010]", 3, "different widths");
        check("a[010-20]", 3, "different widths");
        check("a[1-5/0]", 7, "step");
        check("a[1234567890123456789]", 3, "18 digits");
        check("a!b", 2, "operator `!`");
        check("é\u{1b}", 1, "cannot be part");
        check("ok,a/b", 5, "'/' cannot be part");
        check("x a[1-1000][1-1001]", 3, "more than 1000000");
        check("a[0-999999999999999999][0-999999999999999999]", 1, "more than 1000000");
        check(&"a".repeat(256), 1, "at most 255");
        check(&format!("a{}", "[1]".repeat(17)), 1, "at most 16 brackets");
        let long = format!("{}[", "a,".repeat(100));
        let shown = expand(&long).expect_err("open").to_string();
        assert!(shown.len() < 150 && shown.contains("..."), "{shown}");
    }

    #[test]
    fn the_limit_is_a_million() {
        assert_eq!(expand("n[1-1000000]").map(|names| names.len()), Ok(1_000_000));
    }

    #[test]
    fn terms_stand_alone() {
        let found = terms("web[1-3,5],@group db* ,x").expect("terms");
        assert_eq!(found, ["web[1-3,5]", "@group", "db*", "x"]);
        assert_eq!(terms(" "), Ok(Vec::new()));
        assert!(terms("a[1").is_err());
    }

    #[test]
    fn folds() {
        check_fold("", "");
        check_fold("web3 web1 web2 web5", "web[1-3,5]");
        check_fold("web1", "web1");
        check_fold("db web1 db", "db,web1");
        check_fold("n08 n09 n10 n11", "n[08-11]");
        check_fold("n8 n9 n10 n008 n009 n010", "n[008-010],n[8-10]");
        check_fold("n1 n2 n01 n02 n10", "n[01-02,10],n[1-2]");
        check_fold("n099 n100 n101", "n[099-101]");
        check_fold("n1-ib n2-ib n2", "n[1-2]-ib,n2");
        check_fold("1 2 3", "[1-3]");
        check_fold(
            "v12345678901234567890 v12345678901234567891",
            &["v12345678901234567890", "v12345678901234567891"].join(","),
        );
        let sites = expand("site2-host[1-5],site1-host[1-5]").expect("a set");
        assert_eq!(fold(&sites), "site1-host[1-5],site2-host[1-5]");
    }

    #[test]
    fn sorts_as_people_do() {
        let mut names = ["web10", "web2", "web02", "Web1", "web", "web2-a", "a1b3", "a1b20"];
        names.sort_by(|a, b| natural_cmp(a, b));
        assert_eq!(names, ["Web1", "a1b3", "a1b20", "web", "web02", "web2", "web2-a", "web10"]);
    }

    #[test]
    fn suggests_what_is_close() {
        let known = expand("web[1-8],db1,gateway,@up").expect("a set");
        let check = |unknown: &str, expected: Option<&str>| {
            assert_eq!(suggest(unknown, &known).as_deref(), expected, "{unknown}");
        };
        check("web9", Some("web8"));
        check("wbe3", Some("web3"));
        check("gatway", Some("gateway"));
        check("db", Some("db1"));
        check("mail", None);
        check("", None);
    }

    /// A bound for an unoptimised build on a busy machine; the figure itself is 50 ms.
    #[test]
    fn ten_thousand_irregular_names_are_quick() {
        let texts = (0..10_000u64).map(|i| i * i * 7919 % 100_003);
        let names: Vec<String> = texts.map(|i| format!("r{}-n{i:04}-x{}", i % 97, i % 3)).collect();
        let began = Instant::now();
        let folded = fold(&names);
        let expanded: HashSet<String> = expand(&folded).expect("a set").into_iter().collect();
        let took = began.elapsed();
        assert_eq!(expanded, names.into_iter().collect());
        assert!(took < Duration::from_millis(500), "{took:?}");
        println!("fold and expand 10,000 names: {took:?}");
    }
}
