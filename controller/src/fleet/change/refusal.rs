//! Why a change is refused, by name.
//!
//! What operators may do about it is said where the API answers.

use super::entries::ENTRIES;
use crate::fleet::domain::{Domain, DomainError, DomainPath, DomainPathError};
use crate::fleet::hostdata::LineError;
use crate::fleet::levels::LevelError;

/// Why a change was refused. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(transparent)]
    Name(#[from] DomainError),
    #[error(transparent)]
    Path(#[from] DomainPathError),
    #[error(transparent)]
    Level(#[from] LevelError),
    #[error("{domain}: not empty: {contents}")]
    NotEmpty { domain: Domain, contents: String },
    #[error("{from} and {to}: not at the same level")]
    OtherLevel { from: Domain, to: Domain },
    #[error(transparent)]
    Line(#[from] LineError),
    #[error("the configuration is not readable: {0}")]
    Config(String),
    #[error("{what} would go: {names}")]
    WouldGo { what: &'static str, names: String },
    #[error("{0}: unknown host")]
    UnknownHost(String),
    #[error("{0}")]
    Host(String),
    #[error("{0}: not under control")]
    UnknownEntry(DomainPath),
    #[error("{0}: exists already")]
    EntryExists(DomainPath),
    #[error("unknown frequency {name}: there are {known}")]
    UnknownFrequency { name: String, known: String },
    #[error("{path}: {what}")]
    Entry { path: DomainPath, what: String },
    #[error("{path}: locked by {by} since {since}")]
    Locked { path: DomainPath, by: String, since: String },
    #[error("{0}: not locked")]
    NotLocked(DomainPath),
    #[error("{path}: no revision {number}")]
    NoRevision { path: DomainPath, number: u32 },
    #[error("{host} would get {} from {} and {} alike", both.0.path, both.0, both.1)]
    Clash { host: String, both: Box<(DomainPath, DomainPath)> },
    #[error("more than {ENTRIES} files under control")]
    Full,
}
