//! On what terms a push is carried out, as they are signed.
//!
//! The usual terms are not encoded at all, so that a plain push is what it always was. Any others
//! make it another kind of work, which a host that does not know it refuses.

use crate::field::{at_most, at_most_bytes, ensure, no_nul, not_empty, within};
use crate::{FieldError, pb};

/// The most patterns of a push.
const PATTERNS: usize = 256;
/// The longest pattern.
const PATTERN_LIMIT: usize = 1024;

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

impl Terms {
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
        Ok(Terms { exclude: terms.exclude, delete, max_delete, verify: terms.verify })
    }

    pub(crate) fn check(&self) -> Result<(), FieldError> {
        at_most("terms.exclude", self.exclude.len(), PATTERNS)?;
        for pattern in &self.exclude {
            not_empty("terms.exclude", pattern.len())?;
            at_most_bytes("terms.exclude", pattern.len(), PATTERN_LIMIT)?;
            no_nul("terms.exclude", pattern.as_bytes())?;
        }
        if let MaxDelete::Percent(percent) = self.max_delete {
            within("terms.max_percent", percent.into(), (0, 100))?;
        }
        let limited = self.max_delete != MaxDelete::Usual;
        ensure(!limited || self.delete != Delete::Nothing, "terms.delete", "is missing")
    }
}
