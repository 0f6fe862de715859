//! Sets of names, as people write them: `web[1-3,5,008-010/2]!web2,db1`.
//!
//! A set is terms with operators between them, worked off from left to right: `,` or white space
//! (either), `!` (without), `&` (both), `^` (one of the two only); parentheses group. A term is
//!
//! | term | |
//! |---|---|
//! | `rack[1-2]n[01-16]` | names, in which brackets stand for numbers |
//! | `web*`, `web?[1-9]` | names that look like this |
//! | `/^web\d+$/` | names in which this regular expression is found |
//! | `@web`, `@site:lyon`, `@*` | a group, by itself or of a source |
//! | `{os=debian && rack<=4}` | hosts with such labels |
//! | `^hosts.txt` | the sets in a file |
//! | `( ... )` | a set |
//!
//! [`parse()`] reads a text, [`evaluate`] works it off for whoever knows what the terms mean.
//! [`expand`] needs nobody: it takes names and operators only. [`fold`] writes names as briefly as
//! it can, and `expand(fold(names))` is the same set again. Numbers keep their zeros: `n[08-10]` is
//! `n08,n09,n10`.
//!
//! Pure functions, and limits before any allocation. Nothing here knows which hosts exist, reads a
//! file or asks anybody.

mod eval;
mod fold;
mod hash;
mod labels;
mod near;
mod parse;
mod pick;
mod ranges;
mod regroup;

use regex::bytes::{Regex, RegexBuilder};

pub use eval::{Algebra, Names, evaluate};
pub use fold::{fold, fold_stepped};
pub use labels::{Comparison, Predicate, check_label};
pub use near::{natural_cmp, suggest};
pub use parse::{Op, Set, Term, What, parse};
pub use pick::{Pick, PickError};
pub use ranges::Pattern;
pub use regroup::{Group, regroup};

/// How many names one text may stand for.
pub const MAX_NAMES: u64 = 1_000_000;
/// The longest term, in bytes, brackets not counted.
const MAX_NAME_LEN: usize = 255;
/// The most brackets in one term.
const MAX_BRACKETS: usize = 16;
/// The longest number that is counted with; longer ones are text.
const MAX_DIGITS: usize = 18;
/// How deep parentheses may stand in parentheses.
const MAX_DEPTH: usize = 32;
/// The longest regular expression, in bytes.
const MAX_REGEX_LEN: usize = 512;
/// How much memory a regular expression may take when it is compiled, in bytes.
const MAX_REGEX_SIZE: usize = 1 << 20;
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
    /// An operator with nothing before or after it.
    #[error("the operator `{0}` needs a set on both sides")]
    Alone(char),
    /// Two terms with nothing between them.
    #[error("an operator is missing here: `,` `!` `&` or `^`")]
    NoOperator,
    /// A bracket is opened and not closed.
    #[error("this bracket is never closed")]
    Unclosed,
    /// A bracket is closed that was not opened.
    #[error("there is no `[` for this `]`")]
    Unopened,
    /// A bracket inside a bracket.
    #[error("brackets cannot stand inside brackets")]
    Nested,
    /// A parenthesis is opened and not closed.
    #[error("this parenthesis is never closed")]
    OpenParenthesis,
    /// A parenthesis is closed that was not opened.
    #[error("there is no `(` for this `)`")]
    ClosedParenthesis,
    /// Parentheses in parentheses in parentheses.
    #[error("parentheses stand at most {MAX_DEPTH} deep in each other")]
    Deep,
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
    /// A regular expression without an end.
    #[error("this regular expression has no `/` at its end")]
    OpenRegex,
    /// A regular expression that is none.
    #[error("this regular expression is wrong: {0}")]
    Regex(String),
    /// An `@` without a group.
    #[error("a group is missing here, as in @web or @site:lyon")]
    NoGroup,
    /// A `^` without a file.
    #[error("a file is missing here, as in ^hosts.txt")]
    NoFile,
    /// A brace is opened and not closed.
    #[error("this brace is never closed")]
    OpenBrace,
    /// Something between braces that goes on where it should not.
    #[error("`&&` or `||` is missing here, or the `}}`")]
    Test,
    /// A test without a label.
    #[error("a label is missing here, as in {{os=debian && !gpu}}")]
    NoLabel,
    /// A comparison without a value.
    #[error("a value is missing here; what has spaces stands in \"quotes\"")]
    NoValue,
    /// A quote is opened and not closed.
    #[error("this quote is never closed")]
    OpenQuote,
    /// Something that only the controller knows, where it is not asked.
    #[error("{0} is not a name: groups, globs, labels and files mean nothing here")]
    NotAName(String),
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

/// The names that a text of names and operators stands for, in the order written, each once.
pub fn expand(text: &str) -> Result<Vec<String>, SetError> {
    let names = evaluate(&parse(text)?, &mut |term| match &term.what {
        What::Names(pattern) => Ok(Names::from(pattern.names())),
        _ => Err(wrong(text, term.at, SetFault::NotAName(term.text.to_owned()))),
    })?;
    Ok(names.into_vec())
}

/// Those of some names that look like a glob, which `*` and `?` make.
pub fn matching<'n>(glob: &str, names: impl Iterator<Item = &'n str>) -> Vec<&'n str> {
    names.filter(|name| near::glob_matches(glob, name)).collect()
}

/// Those of some names in which a regular expression is found. It has been read by [`parse()`].
pub fn found<'n>(regex: &str, names: impl Iterator<Item = &'n str>) -> Vec<&'n str> {
    let Ok(regex) = compiled(regex) else { return Vec::new() };
    names.filter(|name| regex.is_match(name.as_bytes())).collect()
}

fn compiled(regex: &str) -> Result<Regex, String> {
    if regex.len() > MAX_REGEX_LEN {
        return Err(format!("it has more than {MAX_REGEX_LEN} bytes"));
    }
    let built = RegexBuilder::new(regex).unicode(false).size_limit(MAX_REGEX_SIZE).build();
    built.map_err(|error| {
        // The last line says what is wrong; those before it show where, in a drawing.
        let text = error.to_string();
        text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
    })
}

fn check_regex(regex: &str) -> Result<(), String> {
    compiled(regex).map(drop)
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

#[cfg(test)]
mod tests;
