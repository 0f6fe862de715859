//! The grammar: from a text to terms and operators, with the place of every fault.
//!
//! The parser goes through the text once. It makes no name: a pattern says how many names it stands
//! for, and a text that stands for too many is refused here, before anything is allocated for them.

use super::labels::Predicate;
use super::ranges::{Pattern, Wrong};
use super::{MAX_DEPTH, MAX_NAMES, SetError, SetFault, check_regex, wrong};

/// What names may have beside letters and digits.
const IN_NAMES: &str = "._-@:*?";
/// What groups may have beside letters and digits: the states of past runs stand after `/`.
const IN_GROUPS: &str = "._-:/*?+";

/// A set as it was written: terms, each with the operator before it, worked off left to right.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set<'a> {
    /// The terms. The first has no operator before it and counts as [`Op::Or`] with nobody.
    pub terms: Vec<(Op, Term<'a>)>,
}

/// One part of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term<'a> {
    /// Where it begins, in bytes.
    pub at: usize,
    /// How it was written.
    pub text: &'a str,
    /// What it is.
    pub what: What<'a>,
}

/// What stands between what is before and what comes after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// `,` or white space: those in either.
    Or,
    /// `!`: those before without those after.
    Minus,
    /// `&`: those in both.
    And,
    /// `^`: those in one of the two only.
    Xor,
}

/// What a term is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What<'a> {
    /// Names, with numbers in brackets.
    Names(Pattern<'a>),
    /// The same with `*` and `?` for text that is not known.
    Glob(Pattern<'a>),
    /// `/REGEX/`: names in which this is found.
    Regex(&'a str),
    /// `{...}`: hosts with such labels.
    Labels(Predicate<'a>),
    /// `^FILE`: the sets in a file, a line each.
    File(&'a str),
    /// `@GROUP` or `@SOURCE:GROUP`; the group may be a pattern or a glob.
    Group(Option<&'a str>, Pattern<'a>),
    /// `( SET )`
    Set(Set<'a>),
}

impl Pattern<'_> {
    /// Whether it has a `*` or `?`.
    pub fn is_glob(&self) -> bool {
        self.texts().any(|text| text.contains(['*', '?']))
    }
}

/// Reads a set.
pub fn parse(text: &str) -> Result<Set<'_>, SetError> {
    let mut parser = Parser { text, at: 0, names: 0 };
    let set = parser.set(None, MAX_DEPTH).map_err(|(at, fault)| wrong(text, at, fault))?;
    Ok(set)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    /// How many names the terms so far stand for.
    names: u64,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn skip_space(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
    }

    /// Up to the end, or to the end of the parenthesis that was opened at `open`.
    fn set(&mut self, open: Option<usize>, depth: usize) -> Result<Set<'a>, Wrong> {
        let mut set = Set::default();
        // The last operator, which wants a term after it.
        let mut waiting: Option<(usize, char)> = None;
        loop {
            let before = self.at;
            self.skip_space();
            let spaced = self.at > before;
            let at = self.at;
            match (self.peek(), open) {
                (None, Some(open)) => return Err((open, SetFault::OpenParenthesis)),
                (Some(')'), None) => return Err((at, SetFault::ClosedParenthesis)),
                (None | Some(')'), _) => {
                    if let Some((at, operator)) = waiting {
                        return Err((at, beside(operator)));
                    }
                    return Ok(set);
                }
                (Some(c @ (',' | '!' | '&')), _) => self.operator(&set, &mut waiting, c)?,
                (Some('^'), _) if waiting.is_none() && !set.terms.is_empty() => {
                    self.operator(&set, &mut waiting, '^')?;
                }
                (Some(_), _) => {
                    if waiting.is_none() && !set.terms.is_empty() && !spaced {
                        return Err((at, SetFault::NoOperator));
                    }
                    let op = waiting.take().map_or(Op::Or, |(_, c)| op(c));
                    let term = self.term(depth)?;
                    set.terms.push((op, term));
                }
            }
        }
    }

    fn operator(
        &mut self,
        set: &Set<'a>,
        waiting: &mut Option<(usize, char)>,
        c: char,
    ) -> Result<(), Wrong> {
        if waiting.is_some() || set.terms.is_empty() {
            return Err((self.at, beside(c)));
        }
        *waiting = Some((self.at, c));
        self.at += 1;
        Ok(())
    }

    fn term(&mut self, depth: usize) -> Result<Term<'a>, Wrong> {
        let at = self.at;
        let what = match self.peek() {
            Some('(') => self.parenthesis(depth)?,
            Some('/') => self.regex()?,
            Some('^') => self.file()?,
            Some('@') => self.group()?,
            Some('{') => self.labels()?,
            _ => {
                let text = self.word()?;
                let pattern = Pattern::parse(text, IN_NAMES).map_err(|w| moved(w, at))?;
                self.add(at, pattern.count())?;
                match pattern.is_glob() {
                    true => What::Glob(pattern),
                    false => What::Names(pattern),
                }
            }
        };
        Ok(Term { at, text: &self.text[at..self.at], what })
    }

    fn parenthesis(&mut self, depth: usize) -> Result<What<'a>, Wrong> {
        let at = self.at;
        let depth = depth.checked_sub(1).ok_or((at, SetFault::Deep))?;
        self.at += 1;
        let set = self.set(Some(at), depth)?;
        self.at += 1;
        Ok(What::Set(set))
    }

    fn regex(&mut self) -> Result<What<'a>, Wrong> {
        let at = self.at;
        let mut escaped = false;
        let end = self.text[at + 1..].find(|c| {
            let ends = c == '/' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let end = at + 1 + end.ok_or((at, SetFault::OpenRegex))?;
        let regex = &self.text[at + 1..end];
        check_regex(regex).map_err(|why| (at, SetFault::Regex(why)))?;
        self.at = end + 1;
        Ok(What::Regex(regex))
    }

    fn labels(&mut self) -> Result<What<'a>, Wrong> {
        let start = self.at + 1;
        let parsed = Predicate::parse(&self.text[start..]);
        let (predicate, length) = parsed.map_err(|(at, fault)| match fault {
            SetFault::OpenBrace => (start - 1, fault),
            fault => (start + at, fault),
        })?;
        self.at = start + length + 1;
        Ok(What::Labels(predicate))
    }

    fn file(&mut self) -> Result<What<'a>, Wrong> {
        let at = self.at;
        let rest = &self.text[at + 1..];
        let end = rest.find(|c: char| c.is_whitespace() || ",!&^()".contains(c));
        let path = &rest[..end.unwrap_or(rest.len())];
        if path.is_empty() {
            return Err((at, SetFault::NoFile));
        }
        self.at += 1 + path.len();
        Ok(What::File(path))
    }

    fn group(&mut self) -> Result<What<'a>, Wrong> {
        let at = self.at;
        self.at += 1;
        let word = self.word()?;
        let colon = word.find([':', '[']).filter(|at| word[*at..].starts_with(':'));
        let (source, name) = match colon {
            Some(colon) => (Some(&word[..colon]), &word[colon + 1..]),
            None => (None, word),
        };
        let start = self.at - name.len();
        if let Some(source) = source {
            let fine = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            if let Some((i, c)) = source.char_indices().find(|(_, c)| !fine(*c)) {
                return Err((at + 1 + i, SetFault::Character(c)));
            }
        }
        if name.is_empty() || source == Some("") {
            return Err((at, SetFault::NoGroup));
        }
        let pattern = Pattern::parse(name, IN_GROUPS).map_err(|w| moved(w, start))?;
        self.add(at, pattern.count())?;
        Ok(What::Group(source, pattern))
    }

    /// Counts names that a term stands for.
    fn add(&mut self, at: usize, names: u64) -> Result<(), Wrong> {
        self.names = self.names.saturating_add(names);
        if self.names > MAX_NAMES { Err((at, SetFault::TooMany)) } else { Ok(()) }
    }

    /// Up to the next operator, space or parenthesis outside of brackets, which are balanced in it.
    fn word(&mut self) -> Result<&'a str, Wrong> {
        let start = self.at;
        let rest = &self.text[start..];
        let mut open = None;
        let mut end = rest.len();
        for (i, c) in rest.char_indices() {
            match c {
                '[' if open.is_some() => return Err((start + i, SetFault::Nested)),
                '[' => open = Some(start + i),
                ']' if open.take().is_none() => return Err((start + i, SetFault::Unopened)),
                _ if open.is_some() => {}
                _ if c.is_whitespace() || ",!&^()".contains(c) => {
                    end = i;
                    break;
                }
                _ => {}
            }
        }
        if let Some(at) = open {
            return Err((at, SetFault::Unclosed));
        }
        self.at = start + end;
        Ok(&rest[..end])
    }
}

fn op(c: char) -> Op {
    match c {
        '!' => Op::Minus,
        '&' => Op::And,
        '^' => Op::Xor,
        _ => Op::Or,
    }
}

/// What is wrong with an operator that has nothing on one side.
fn beside(operator: char) -> SetFault {
    match operator {
        ',' => SetFault::Empty,
        c => SetFault::Alone(c),
    }
}

fn moved((at, fault): Wrong, by: usize) -> Wrong {
    (at + by, fault)
}
