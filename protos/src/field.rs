//! What fields must hold, and what is said of one that does not.

use std::time::Duration;

use bytes::Bytes;

/// A field that does not hold what it must. Nothing has been done with the message; whoever made
/// it is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// Something that must be there is not.
    #[error("{field} is missing or empty")]
    Missing {
        /// The field.
        field: &'static str,
    },
    /// Something of a fixed length has another.
    #[error("{field} has {found} bytes and must have {expected}")]
    Length {
        /// The field.
        field: &'static str,
        /// How many bytes it must have.
        expected: usize,
        /// How many it has.
        found: usize,
    },
    /// Too many bytes.
    #[error("{field} has {found} bytes; the limit is {limit}")]
    TooLong {
        /// The field.
        field: &'static str,
        /// How many bytes it may have.
        limit: usize,
        /// How many it has.
        found: usize,
    },
    /// Too many elements.
    #[error("{field} has {found} elements; the limit is {limit}")]
    TooMany {
        /// The field.
        field: &'static str,
        /// How many elements it may have.
        limit: usize,
        /// How many it has.
        found: usize,
    },
    /// A number out of its range.
    #[error("{field} is {found} and must be from {least} to {most}")]
    Range {
        /// The field.
        field: &'static str,
        /// The least that it may be.
        least: u64,
        /// The most that it may be.
        most: u64,
        /// What it is.
        found: u64,
    },
    /// A value that this version does not know.
    #[error("{field} has the value {found}, which this version does not know")]
    Unknown {
        /// The field.
        field: &'static str,
        /// The value.
        found: i32,
    },
    /// Something else that the field must not be.
    #[error("{field} {fault}")]
    Wrong {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        fault: &'static str,
    },
}

type Result<T> = std::result::Result<T, FieldError>;

pub(crate) fn array<const N: usize>(field: &'static str, bytes: &[u8]) -> Result<[u8; N]> {
    let length = FieldError::Length { field, expected: N, found: bytes.len() };
    bytes.try_into().map_err(|_| length)
}

pub(crate) fn ensure(holds: bool, field: &'static str, fault: &'static str) -> Result<()> {
    if holds { Ok(()) } else { Err(FieldError::Wrong { field, fault }) }
}

/// What must be there.
pub(crate) fn given<T>(field: &'static str, value: Option<T>) -> Result<T> {
    value.ok_or(FieldError::Missing { field })
}

pub(crate) fn not_empty(field: &'static str, length: usize) -> Result<()> {
    if length == 0 { Err(FieldError::Missing { field }) } else { Ok(()) }
}

pub(crate) fn at_most_bytes(field: &'static str, found: usize, limit: usize) -> Result<()> {
    if found > limit { Err(FieldError::TooLong { field, limit, found }) } else { Ok(()) }
}

pub(crate) fn at_most(field: &'static str, found: usize, limit: usize) -> Result<()> {
    if found > limit { Err(FieldError::TooMany { field, limit, found }) } else { Ok(()) }
}

pub(crate) fn within(field: &'static str, found: u64, (least, most): (u64, u64)) -> Result<()> {
    match (least..=most).contains(&found) {
        true => Ok(()),
        false => Err(FieldError::Range { field, least, most, found }),
    }
}

/// A short text without control characters.
pub(crate) fn plain(field: &'static str, text: &str, limit: usize) -> Result<()> {
    at_most_bytes(field, text.len(), limit)?;
    ensure(!text.chars().any(char::is_control), field, "has a control character")
}

/// Bytes that can be given to the kernel as a string.
pub(crate) fn no_nul(field: &'static str, bytes: &[u8]) -> Result<()> {
    ensure(!bytes.contains(&0), field, "has a NUL byte")
}

/// An absolute path that does not climb.
pub(crate) fn path(field: &'static str, path: &[u8], limit: usize) -> Result<()> {
    at_most_bytes(field, path.len(), limit)?;
    no_nul(field, path)?;
    ensure(path.first() == Some(&b'/'), field, "is not an absolute path")?;
    let dots = |part: &[u8]| part == b"." || part == b"..";
    ensure(!path.split(|&b| b == b'/').any(dots), field, "has . or .. in its path")
}

/// Whole milliseconds, rounded up so that a wait is never shorter than was meant.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// A slice that does not keep the whole message in memory.
pub(crate) fn own(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

/// The beginning of `text`, of at most `limit` bytes.
pub(crate) fn clip(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}
