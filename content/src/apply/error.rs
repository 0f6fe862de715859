//! What can go wrong while applying, said so that an operator knows what to do next.
//!
//! Each message names the stage, the path and the kind of the error, with a remedy where one
//! is known. The system's own words are the source of the error, not part of its text.

use std::fmt;
use std::io;

use rustix::io::Errno;

use crate::id::ContentId;
use crate::manifest::ManifestError;
use crate::store::StoreError;

/// Why an apply did not finish. Paths are made printable.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Nothing changed; the caller is at fault.
    #[error("\"{tag}\" is not a tag: one to 64 of a-z and 0-9")]
    Tag {
        /// The tag.
        tag: String,
    },
    /// Nothing changed; the operator gave a path we refuse.
    #[error("refusing destination {dest}: {reason}")]
    Destination {
        /// The destination.
        dest: String,
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// Nothing changed; somebody else could steer this link.
    #[error("refusing to follow the link {path} on the way to {dest}: {reason}")]
    Link {
        /// The link.
        path: String,
        /// The destination.
        dest: String,
        /// Why it is not trusted.
        reason: &'static str,
    },
    /// Nothing changed; the host holds something that is not replaced silently.
    #[error("{path} is {found}, but must become {wanted}; move it away and push again")]
    Conflict {
        /// Where.
        path: String,
        /// What is there.
        found: &'static str,
        /// What the manifest wants.
        wanted: &'static str,
    },
    /// Nothing changed; the file system is not able to.
    #[error("the file system of {path} cannot exchange two directories; push without --tree")]
    NoExchange {
        /// The destination.
        path: String,
    },
    /// Nothing changed; a name in the tree looks like one of our temporary files.
    #[error("{path} in the manifest is named like a temporary file of this very push")]
    Clash {
        /// The entry.
        path: String,
    },
    /// Nothing changed; the file system is too full.
    #[error("not enough room at {path}: {need} {what} needed, {have} free; free some and retry")]
    NoRoom {
        /// The destination.
        path: String,
        /// Bytes or inodes.
        what: &'static str,
        /// How many the new files take.
        need: u64,
        /// How many there are.
        have: u64,
    },
    /// Nothing changed; more would go than the operator allows.
    #[error(
        "{extra} entries below {path} would be deleted, and {allowed} may be; look at them with \
         --verify, then allow more with --max-delete"
    )]
    TooMany {
        /// The destination.
        path: String,
        /// How many entries would go.
        extra: u64,
        /// How many may.
        allowed: u64,
    },
    /// Nothing changed; the manifest breaks a rule.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Nothing changed; the missing chunks could not be had.
    #[error("the missing chunks did not come")]
    Provide(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Nothing changed; a chunk that was there is gone or damaged. Applying again fetches it.
    #[error("chunk {id} of {path} is gone or damaged; apply again to fetch it")]
    Chunk {
        /// The file.
        path: String,
        /// The chunk.
        id: ContentId,
    },
    /// Nothing changed; the store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system refused. Up to [`Stage::Write`] nothing changed, later some files are new.
    #[error("cannot {stage} {path}: {}{}", told(source).0, told(source).1)]
    Io {
        /// What we were at.
        stage: Stage,
        /// On which path.
        path: String,
        /// Whether some files of the tree are new already.
        partial: bool,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// What an apply was at when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Walking to the destination.
    Open,
    /// Comparing what is there.
    Compare,
    /// Removing a temporary file.
    Remove,
    /// Making a directory.
    Create,
    /// Writing a temporary file.
    Write,
    /// Flushing to disk.
    Sync,
    /// Keeping what is replaced.
    Save,
    /// Renaming into place.
    Replace,
    /// Setting owner, mode or time.
    Describe,
    /// Deleting what the manifest does not name.
    Delete,
}

impl ApplyError {
    /// Whether some files of the tree are new already. Applying again finishes the rest.
    pub fn partial(&self) -> bool {
        matches!(self, ApplyError::Io { partial: true, .. })
    }

    pub(super) fn made_partial(mut self) -> ApplyError {
        if let ApplyError::Io { partial, .. } = &mut self {
            *partial = true;
        }
        self
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Open => "open",
            Stage::Compare => "compare",
            Stage::Remove => "remove the temporary file of",
            Stage::Create => "create",
            Stage::Write => "write the new",
            Stage::Sync => "sync",
            Stage::Save => "keep the old",
            Stage::Replace => "replace",
            Stage::Describe => "set owner, mode or time of",
            Stage::Delete => "delete",
        })
    }
}

/// The kind of an error in plain words, and what helps.
fn told(err: &io::Error) -> (String, &'static str) {
    let known = match Errno::from_io_error(err) {
        Some(Errno::NOSPC) => ("no space left", "; free some space or inodes and retry"),
        Some(Errno::DQUOT) => ("disk quota exceeded", "; raise the quota and retry"),
        Some(Errno::ROFS) => ("read-only file system", "; remount it writable and retry"),
        Some(Errno::ACCESS) => ("permission denied", "; does the node run as root?"),
        Some(Errno::PERM) => ("not permitted", "; is the file immutable (lsattr)?"),
        Some(Errno::TXTBSY) => ("text file busy", ""),
        Some(Errno::BUSY) => ("busy", "; is it a mount point?"),
        Some(Errno::IO) => ("input/output error", "; check the disk (dmesg)"),
        Some(Errno::MFILE | Errno::NFILE) => ("too many open files", "; raise the limit"),
        Some(Errno::NAMETOOLONG) => ("name too long for this file system", ""),
        Some(Errno::FBIG) => ("file too large for this file system", ""),
        Some(Errno::NOTDIR | Errno::LOOP) => ("a directory became something else", "; retry"),
        _ => return (err.kind().to_string(), ""),
    };
    (known.0.to_owned(), known.1)
}
