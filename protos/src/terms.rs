//! On what terms a push is carried out, as they are signed.
//!
//! The usual terms are not encoded at all, so that a plain push is what it always was. Any others
//! make it another kind of work, which a host that does not know it refuses.

use bytes::Bytes;

use crate::field::{at_most, at_most_bytes, ensure, no_nul, not_empty, within};
use crate::{FieldError, pb};

/// The most patterns of a push.
const PATTERNS: usize = 256;
/// The longest pattern.
const PATTERN_LIMIT: usize = 1024;

/// The longest suffix of what is kept.
const SAVE_LIMIT: usize = 32;
const SOURCE_LIMIT: usize = 4096;
const COMMAND_LIMIT: usize = 64 << 10;
const SPECIALS: usize = 64;

/// How a push is carried out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Patterns of what is left alone; at most 256, of at most 1,024 bytes each.
    pub exclude: Vec<String>,
    /// What goes that the manifest does not name.
    pub delete: Delete,
    /// How much of it may go.
    pub max_delete: MaxDelete,
    /// Whether nothing is changed, and the host only says what is different.
    pub verify: bool,
    /// With `verify`: whether the host says only what would keep the push from going through.
    pub preflight: bool,
    /// Whether the tree is built beside the one in place, exchanged as a whole, and the one before
    /// kept.
    pub tree: bool,
    /// Whether this is what was there before the last push.
    pub rollback: bool,
    /// Whether what holds the right thing is left as it is, whatever else is wrong with it.
    pub content_only: bool,
    /// Whether files that were changed later than those that would replace them stay.
    pub keep_newer: bool,
    /// What is put behind the name of a file that is replaced, to keep it; at most 32 bytes. Empty:
    /// it is not kept.
    pub save: Bytes,
    /// A line for the shell that comes first; if it fails nothing is touched. At most 64 KiB, as
    /// the other commands.
    pub before: String,
    /// A line for the shell that comes last, if anything has changed.
    pub after: String,
    /// Lines for the shell for changed files; at most 64.
    pub special: Vec<Special>,
    /// Where the tree was read, as commands are told it; at most 4,096 bytes.
    pub source: Bytes,
}

/// A line for the shell for each changed file that a pattern means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Special {
    /// The pattern; at most 1,024 bytes.
    pub pattern: String,
    /// The line.
    pub command: String,
}

/// What goes below the destination that the manifest does not name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delete {
    /// Nothing.
    #[default]
    Nothing,
    /// What an earlier push installed, if nobody has changed it since.
    Installed,
    /// Everything.
    All,
}

/// How much may be deleted before a host refuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MaxDelete {
    /// What the host thinks reasonable.
    #[default]
    Usual,
    /// So many entries.
    Entries(u64),
    /// So many of a hundred that are there; at most 100.
    Percent(u32),
}

impl Special {
    fn to_pb(&self) -> pb::Special {
        pb::Special { pattern: self.pattern.clone(), command: self.command.clone() }
    }
}

impl Terms {
    /// Whether there are commands.
    pub fn has_commands(&self) -> bool {
        !self.before.is_empty() || !self.after.is_empty() || !self.special.is_empty()
    }

    /// Whether there is nothing to say.
    pub(crate) fn are_usual(&self) -> bool {
        *self == Terms::default()
    }

    pub(crate) fn to_pb(&self) -> pb::Terms {
        let delete = match self.delete {
            Delete::Nothing => pb::Delete::Nothing,
            Delete::Installed => pb::Delete::Installed,
            Delete::All => pb::Delete::All,
        };
        let (max_entries, max_percent) = match self.max_delete {
            MaxDelete::Usual => (None, None),
            MaxDelete::Entries(n) => (Some(n), None),
            MaxDelete::Percent(n) => (None, Some(n)),
        };
        pb::Terms {
            exclude: self.exclude.clone(),
            delete: delete.into(),
            max_entries,
            max_percent,
            verify: self.verify,
            preflight: self.preflight,
            tree: self.tree,
            rollback: self.rollback,
            content_only: self.content_only,
            keep_newer: self.keep_newer,
            save: self.save.clone(),
            before: self.before.clone(),
            after: self.after.clone(),
            special: self.special.iter().map(Special::to_pb).collect(),
            source: self.source.clone(),
        }
    }

    pub(crate) fn read(terms: pb::Terms) -> Result<Terms, FieldError> {
        let delete = match pb::Delete::try_from(terms.delete) {
            Ok(pb::Delete::Nothing) => Delete::Nothing,
            Ok(pb::Delete::Installed) => Delete::Installed,
            Ok(pb::Delete::All) => Delete::All,
            Err(_) => {
                return Err(FieldError::Unknown { field: "terms.delete", found: terms.delete });
            }
        };
        let max_delete = match (terms.max_entries, terms.max_percent) {
            (None, None) => MaxDelete::Usual,
            (Some(n), None) => MaxDelete::Entries(n),
            (None, Some(n)) => MaxDelete::Percent(n),
            (Some(_), Some(_)) => {
                return Err(FieldError::Wrong {
                    field: "terms.max_entries",
                    fault: "comes beside max_percent",
                });
            }
        };
        let special = |pb::Special { pattern, command }| Special { pattern, command };
        Ok(Terms {
            exclude: terms.exclude,
            delete,
            max_delete,
            verify: terms.verify,
            preflight: terms.preflight,
            tree: terms.tree,
            rollback: terms.rollback,
            content_only: terms.content_only,
            keep_newer: terms.keep_newer,
            save: terms.save,
            before: terms.before,
            after: terms.after,
            special: terms.special.into_iter().map(special).collect(),
            source: terms.source,
        })
    }

    pub(crate) fn check(&self) -> Result<(), FieldError> {
        at_most("terms.exclude", self.exclude.len(), PATTERNS)?;
        for pattern in &self.exclude {
            not_empty("terms.exclude", pattern.len())?;
            at_most_bytes("terms.exclude", pattern.len(), PATTERN_LIMIT)?;
            no_nul("terms.exclude", pattern.as_bytes())?;
        }
        ensure(self.verify || !self.preflight, "terms.preflight", "is no part of verify")?;
        at_most_bytes("terms.save", self.save.len(), SAVE_LIMIT)?;
        no_nul("terms.save", &self.save)?;
        ensure(!self.save.contains(&b'/'), "terms.save", "has a slash")?;
        at_most_bytes("terms.source", self.source.len(), SOURCE_LIMIT)?;
        no_nul("terms.source", &self.source)?;
        at_most("terms.special", self.special.len(), SPECIALS)?;
        let specials = self.special.iter().map(|special| &special.command);
        for command in specials.chain([&self.before, &self.after]) {
            at_most_bytes("terms.command", command.len(), COMMAND_LIMIT)?;
            no_nul("terms.command", command.as_bytes())?;
        }
        for Special { pattern, command } in &self.special {
            not_empty("special.pattern", pattern.len())?;
            at_most_bytes("special.pattern", pattern.len(), PATTERN_LIMIT)?;
            not_empty("special.command", command.len())?;
        }
        if let MaxDelete::Percent(percent) = self.max_delete {
            within("terms.max_percent", percent.into(), (0, 100))?;
        }
        let whole = self.tree && self.delete != Delete::Nothing;
        ensure(!whole, "terms.delete", "has no meaning for a tree that is exchanged as a whole")?;
        let limited = self.max_delete != MaxDelete::Usual;
        ensure(!limited || self.delete != Delete::Nothing, "terms.delete", "is missing")
    }
}
