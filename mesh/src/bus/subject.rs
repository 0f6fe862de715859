//! Subjects and patterns over them: words between full stops.
//!
//! In a pattern `*` is any one word, and `>` at its end one or more. Words are printable ASCII, so
//! that a subject can stand in a log, a path of a request and on a terminal as it is.

use std::fmt;

/// How long a subject or pattern may be, in bytes, and how many words it may have.
const BYTES: usize = 255;
/// How many words a subject may have.
pub const SUBJECT_WORDS: usize = 16;

/// The first word of subjects that are the nodes' own.
pub const RESERVED: &str = "_keep";

/// Whether a subject or pattern is the nodes' own, and not for programs.
pub fn is_reserved(text: &str) -> bool {
    text.split('.').next() == Some(RESERVED)
}

/// Text that is no subject or pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubjectError {
    /// It is empty, or two full stops follow each other.
    Empty,
    /// It is longer than 255 bytes.
    TooLong,
    /// It has more than 16 words.
    TooManyWords,
    /// Something else than a printable ASCII character.
    Character,
    /// `*` or `>` where it means nothing.
    Wildcard,
}

impl fmt::Display for SubjectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SubjectError::Empty => "a word of it is empty",
            SubjectError::TooLong => "it is longer than 255 bytes",
            SubjectError::TooManyWords => "it has more than 16 words",
            SubjectError::Character => "it has a character that is not printable ASCII",
            SubjectError::Wildcard => {
                "`*` stands for a whole word of a pattern, `>` for all words at its end, and \
                 neither stands in a subject"
            }
        })
    }
}

impl std::error::Error for SubjectError {}

/// What a message is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject(String);

/// Subjects that somebody wants.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern(String);

fn check(text: &str, wild: bool) -> Result<(), SubjectError> {
    if text.len() > BYTES {
        return Err(SubjectError::TooLong);
    }
    if text.split('.').count() > SUBJECT_WORDS {
        return Err(SubjectError::TooManyWords);
    }
    let mut words = text.split('.').peekable();
    while let Some(word) = words.next() {
        if word.is_empty() {
            return Err(SubjectError::Empty);
        }
        if !word.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(SubjectError::Character);
        }
        let meant = wild && (word == "*" || word == ">" && words.peek().is_none());
        if word.contains(['*', '>']) && !meant {
            return Err(SubjectError::Wildcard);
        }
    }
    Ok(())
}

impl Subject {
    /// A subject of this text.
    pub fn new(text: &str) -> Result<Subject, SubjectError> {
        check(text, false).map(|()| Subject(text.into()))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Pattern {
    /// A pattern of this text.
    pub fn new(text: &str) -> Result<Pattern, SubjectError> {
        check(text, true).map(|()| Pattern(text.into()))
    }

    /// The pattern that matches everything.
    pub(super) fn all() -> Pattern {
        Pattern(">".into())
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn words(&self) -> usize {
        self.0.split('.').count()
    }

    /// Whether a subject is meant.
    pub fn matches(&self, subject: &Subject) -> bool {
        is_within(&self.0, &subject.0)
    }

    /// Whether everything that another matches is matched.
    pub fn covers(&self, other: &Pattern) -> bool {
        is_within(&self.0, &other.0)
    }

    /// A pattern of fewer words that covers this one, which has more.
    pub(super) fn coarser(&self, words: usize) -> Pattern {
        if words <= 1 {
            return Pattern::all();
        }
        let first: Vec<&str> = self.0.split('.').take(words - 1).collect();
        Pattern(format!("{}.>", first.join(".")))
    }
}

/// Whether all that `inner` means, a subject being itself, is meant by `outer`.
fn is_within(outer: &str, inner: &str) -> bool {
    let (mut outer, mut inner) = (outer.split('.'), inner.split('.'));
    loop {
        match (outer.next(), inner.next()) {
            (None, None) => return true,
            (Some(">"), Some(_)) => return true,
            (Some("*"), Some(word)) if word != ">" => {}
            (Some(wanted), Some(word)) if wanted == word => {}
            _ => return false,
        }
    }
}
