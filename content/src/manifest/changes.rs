//! What changes from one tree to the next, entry by entry, as far as the manifests tell.
//!
//! The signs are those of a [`Drift`](crate::Drift): `+` new, `*` other content or another kind,
//! `~` described otherwise, `-` no longer in the tree.

use super::{Entry, Manifest};
use crate::show::show;

/// The step from one manifest to another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Entries that are new.
    pub added: u64,
    /// Entries with other content, or of another kind.
    pub changed: u64,
    /// Entries of which only mode, owner or time is another.
    pub described: u64,
    /// Entries that are no longer there.
    pub removed: u64,
    /// Bytes in the files that are new or have other content.
    pub bytes: u64,
    /// A line for each, in the order of paths, as many as were asked for.
    pub lines: Vec<String>,
}

impl Manifest {
    /// What changes from `base` to this. At most `lines` lines are made.
    pub fn changes(&self, base: &Manifest, lines: usize) -> Changes {
        let mut changes = Changes::default();
        let mut note = |sign: char, entry: &Entry| {
            if changes.lines.len() < lines {
                let path = if entry.path.is_empty() { ".".into() } else { show(&entry.path) };
                changes.lines.push(format!("{sign} {path}"));
            }
            match sign {
                '+' => changes.added += 1,
                '*' => changes.changed += 1,
                '~' => changes.described += 1,
                _ => changes.removed += 1,
            }
            if matches!(sign, '+' | '*') {
                changes.bytes = changes.bytes.saturating_add(entry.size());
            }
        };
        let (mut old, mut new) = (base.entries.iter().peekable(), self.entries.iter().peekable());
        loop {
            match (old.peek(), new.peek()) {
                (None, None) => return changes,
                (Some(entry), None) => note('-', entry),
                (Some(entry), Some(other)) if entry.path < other.path => note('-', entry),
                (None, Some(entry)) => {
                    note('+', entry);
                    new.next();
                    continue;
                }
                (Some(other), Some(entry)) if other.path > entry.path => {
                    note('+', entry);
                    new.next();
                    continue;
                }
                (Some(before), Some(entry)) => {
                    if before.kind != entry.kind {
                        note('*', entry);
                    } else if before != entry {
                        note('~', entry);
                    }
                    new.next();
                }
            }
            old.next();
        }
    }
}
