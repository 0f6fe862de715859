//! What somebody wants: a few patterns.
//!
//! Where there are too many they become coarser, those with the most words first, until they fit.
//! Then more may come than was asked for, and never less; each end still looks for itself.

use std::collections::BTreeSet;

use super::subject::{Pattern, Subject};

/// A set of patterns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interest(BTreeSet<Pattern>);

impl Interest {
    /// What these patterns mean together, in at most so many.
    pub fn of(patterns: impl IntoIterator<Item = Pattern>, limit: usize) -> Interest {
        let mut patterns: BTreeSet<Pattern> = patterns.into_iter().collect();
        while patterns.len() > limit.max(1) {
            let most = patterns.iter().map(Pattern::words).max().unwrap_or(1);
            if most == 1 {
                return Interest(BTreeSet::from([Pattern::all()]));
            }
            let coarser = |pattern: Pattern| match pattern.words() < most {
                true => pattern,
                false => pattern.coarser(most - 1),
            };
            patterns = patterns.into_iter().map(coarser).collect();
        }
        Interest(patterns)
    }

    /// The patterns.
    pub fn patterns(&self) -> impl Iterator<Item = &Pattern> {
        self.0.iter()
    }

    /// Whether this very pattern is in it.
    pub(super) fn has(&self, pattern: &Pattern) -> bool {
        self.0.contains(pattern)
    }

    /// Whether a subject is wanted.
    pub fn matches(&self, subject: &Subject) -> bool {
        self.0.iter().any(|pattern| pattern.matches(subject))
    }
}
