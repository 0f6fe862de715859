//! What all streams share: their kinds, the header of each message on them, and the version.
//!
//! The first byte of a bidirectional stream is its [`StreamKind`]. Then come messages, each after
//! a header: its length, four bytes, most significant first. The length is checked before anything
//! is allocated for it.

use std::fmt;

/// The longest frame.
pub const FRAME_LIMIT: usize = 1 << 20;

/// The length of a header.
pub const HEADER_BYTES: usize = 4;

/// The protocol that this code speaks: major and minor version.
pub const VERSION: (u16, u16) = (1, 0);

/// What a bidirectional stream is for; its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum StreamKind {
    /// Hello, subtrees and orders, with what is held of them.
    Control = 1,
    /// Beats, which must not wait behind anything.
    Beats = 2,
    /// Reports, with what is held of them.
    Reports = 3,
    /// One piece of content.
    Content = 4,
    /// One join.
    Join = 5,
    /// What commands write while they run, and who wants to know.
    Live = 6,
    /// The rest of one output; opened by the parent.
    Output = 7,
    /// The bus.
    Bus = 8,
    /// A part of a record of what a relay's own operator has ordered.
    Record = 9,
}

impl From<StreamKind> for u8 {
    fn from(kind: StreamKind) -> u8 {
        kind as u8
    }
}

impl TryFrom<u8> for StreamKind {
    type Error = UnknownStream;

    fn try_from(byte: u8) -> Result<StreamKind, UnknownStream> {
        match byte {
            1 => Ok(StreamKind::Control),
            2 => Ok(StreamKind::Beats),
            3 => Ok(StreamKind::Reports),
            4 => Ok(StreamKind::Content),
            5 => Ok(StreamKind::Join),
            6 => Ok(StreamKind::Live),
            7 => Ok(StreamKind::Output),
            8 => Ok(StreamKind::Bus),
            9 => Ok(StreamKind::Record),
            _ => Err(UnknownStream { byte }),
        }
    }
}

/// A stream of a kind that this version does not know. The peer is at fault, or newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer opened a stream of kind {byte}, which this version does not know")]
pub struct UnknownStream {
    /// The first byte of the stream.
    pub byte: u8,
}

/// A header that announces no message that may come. Nothing was read after it; the peer is at
/// fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// It announces nothing.
    #[error("the peer announces a message of 0 bytes")]
    Empty,
    /// It announces too much.
    #[error("the peer announces a message of {found} bytes; the limit is {limit}")]
    TooLong {
        /// How long a message may be here.
        limit: usize,
        /// How long the announced one would be.
        found: usize,
    },
}

/// The header of a message of `length` bytes. A message over the limit gets a header that the
/// peer refuses, so the stream never loses its step; whoever sends should not let it come to that.
pub fn frame_header(length: usize) -> [u8; HEADER_BYTES] {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}

/// The length of the frame that comes after this header, at most [`FRAME_LIMIT`].
pub fn parse_header(header: [u8; HEADER_BYTES]) -> Result<usize, HeaderError> {
    parse_header_within(header, FRAME_LIMIT)
}

/// The length of the message that comes after this header, at most `limit`. For streams where
/// less than a frame can come, and least of all from a peer that is not known yet.
pub fn parse_header_within(header: [u8; HEADER_BYTES], limit: usize) -> Result<usize, HeaderError> {
    match usize::try_from(u32::from_be_bytes(header)).unwrap_or(usize::MAX) {
        0 => Err(HeaderError::Empty),
        found if found > limit => Err(HeaderError::TooLong { limit, found }),
        length => Ok(length),
    }
}

/// Whether a peer of this version and we understand each other: the same major version, and minor
/// versions that differ by one at most.
pub fn check_version(peer: (u16, u16)) -> Result<(), VersionError> {
    check_versions(VERSION, peer)
}

fn check_versions(own: (u16, u16), peer: (u16, u16)) -> Result<(), VersionError> {
    if own.0 == peer.0 && own.1.abs_diff(peer.1) <= 1 {
        return Ok(());
    }
    Err(VersionError { own, peer })
}

/// Two versions too far apart. Neither side is at fault; one must be upgraded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub struct VersionError {
    /// What this side speaks.
    pub own: (u16, u16),
    /// What the peer speaks.
    pub peer: (u16, u16),
}

impl fmt::Display for VersionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (own, peer) = (self.own, self.peer);
        let behind = if own < peer { "this side" } else { "the peer" };
        write!(
            f,
            "the peer speaks protocol {}.{} and this side {}.{}, ",
            peer.0, peer.1, own.0, own.1
        )?;
        write!(f, "which may differ by one minor version: upgrade {behind}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers() {
        for length in [1, 255, 65_536, FRAME_LIMIT] {
            assert_eq!(parse_header(frame_header(length)), Ok(length));
        }
        assert_eq!(frame_header(0x01_02_03), [0, 1, 2, 3]);
        assert_eq!(parse_header([0; 4]), Err(HeaderError::Empty));
        for length in [FRAME_LIMIT + 1, usize::MAX] {
            assert!(parse_header(frame_header(length)).is_err());
        }
        assert_eq!(
            parse_header_within([0, 0, 1, 1], 256).expect_err("it is refused").to_string(),
            "the peer announces a message of 257 bytes; the limit is 256"
        );
    }

    #[test]
    fn one_minor_version_apart() {
        for peer in [(1, 3), (1, 4), (1, 5)] {
            assert_eq!(check_versions((1, 4), peer), Ok(()));
        }
        let check = |peer, upgrade: &str| {
            let message = check_versions((1, 4), peer).expect_err("it is refused").to_string();
            assert!(message.ends_with(upgrade), "{message}");
            assert!(message.contains("this side 1.4"), "{message}");
        };
        check((1, 2), "upgrade the peer");
        check((0, 4), "upgrade the peer");
        check((1, 6), "upgrade this side");
        check((2, 4), "upgrade this side");
        assert!(check_version(VERSION).is_ok());
    }

    #[test]
    fn stream_kinds() {
        let known: Vec<u8> = (0..=255).filter(|&byte| StreamKind::try_from(byte).is_ok()).collect();
        assert_eq!(known, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
        for byte in known {
            assert_eq!(u8::from(StreamKind::try_from(byte).expect("it is a kind")), byte);
        }
    }
}
