//! Changing the book: each change whole or not at all.
//!
//! Pure: a change is made on a copy of the book, and what is wrong with it is said by name. What
//! content holds was read before, and whether two entries clash is asked afterwards. What can be
//! changed lies below, by what it is about.

mod config;
mod domains;
mod entries;
mod hosts;
mod refusal;
#[cfg(test)]
mod tests;
mod wishes;

use std::collections::BTreeSet;

use super::book::Revision;
use super::domain::DomainPath;
use super::types::Author;

pub(crate) use entries::{Policy, PolicyEdit};
pub(crate) use hosts::HostEdit;
pub(crate) use refusal::Refusal;

/// How many contents of a domain an error names.
const NAMED: usize = 10;

/// How many characters of a name are shown. A user's has what was said and what the kernel knows.
const NAME: usize = 128;

/// What a change did.
#[derive(Debug, Default)]
pub(crate) struct Effect {
    /// What there is to say of it.
    pub(crate) notes: Vec<String>,
    /// Entries of which all hosts lack the content now.
    pub(crate) touched: BTreeSet<DomainPath>,
    /// New revisions, for the history.
    pub(crate) revisions: Vec<(u64, Revision)>,
}

/// Who changes something, and when.
#[derive(Clone, Debug)]
pub(crate) struct Pen {
    pub(crate) by: Author,
    pub(crate) at_ms: u64,
    pub(crate) note: String,
}

impl Author {
    /// As it is shown.
    pub(crate) fn text(&self) -> String {
        let clean =
            |text: &str| text.chars().filter(|c| !c.is_control()).take(NAME).collect::<String>();
        format!("{}@{}", clean(&self.user), clean(&self.host))
    }
}

type Done = Result<Effect, Refusal>;

/// The first few of a list.
fn shortened(names: Vec<String>) -> String {
    let more = names.len().saturating_sub(NAMED);
    let first = names.into_iter().take(NAMED).collect::<Vec<_>>().join(", ");
    if more == 0 { first } else { format!("{first} and {more} more") }
}
