//! Heads of content streams: what is wanted, and whether it comes.
//!
//! After a [`PullReply::Found`] the stream carries what it announces and nothing else: an object
//! as a whole in one zstd frame, or raw, its outline first if that was not known, and from the
//! first group that the asker does not have. A raw object may still be arriving at the sender; then
//! the stream goes on as it does.
//!
//! A [`PullReply::Sibling`] sends the asker elsewhere. It ends its direction of the stream when it
//! has the object, or asks on the same stream once more, for what it still lacks.

use std::net::SocketAddr;

use bytes::Bytes;
use mesh::{Digest, Lost, PullFault};
use prost::Message;

use crate::field::array;
use crate::{FieldError, Malformed, pb, shape};

/// The longest head.
pub const PULL_LIMIT: usize = 256;

/// Bytes that are no head of a content stream. Nothing has changed; the peer is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PullError {
    /// The head is longer than any may be.
    #[error("the head has {found} bytes; the limit is {PULL_LIMIT}")]
    TooLong {
        /// How long it is.
        found: usize,
    },
    /// The reply is neither that the content is there nor why it is not.
    #[error("the reply is of a kind that this version does not know")]
    Kind,
    /// The bytes are no head.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A field holds what it must not.
    #[error(transparent)]
    Field(#[from] FieldError),
}

/// Somebody wants content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PullRequest {
    /// What.
    pub content: Digest,
    /// How many groups of 16 KiB the asker has already, from the first on.
    pub held: u32,
    /// Whether it has the outline.
    pub outlined: bool,
    /// Whether it may be sent to a sibling, and siblings to it.
    pub willing: bool,
    /// Why the sibling failed that it was sent to on this stream.
    pub lost: Option<Lost>,
}

/// Whether it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullReply {
    /// It follows.
    Found {
        /// The length of the object; of one that is compressed, how many bytes follow.
        bytes: u64,
        /// How they are encoded.
        encoding: Encoding,
        /// The first group that follows. A sender that knows nothing of groups sends all.
        first: u32,
        /// Whether the outline comes before the groups.
        outlined: bool,
        /// Whether siblings may be sent to the asker for it.
        promoted: bool,
    },
    /// It does not.
    Fault(PullFault),
    /// It is to be had from a sibling.
    Sibling {
        /// Where.
        address: SocketAddr,
        /// Its public key.
        key: [u8; 32],
    },
    /// The sibling takes too long: whoever was sent there should ask again.
    Recall,
}

/// How content is encoded on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// As it is.
    Raw,
    /// As one zstd frame.
    Zstd,
}

impl PullRequest {
    /// The bytes that travel.
    pub fn encode(&self) -> Bytes {
        let content = Bytes::copy_from_slice(&self.content.0);
        let (held, outlined, willing) = (self.held, self.outlined, self.willing);
        let sibling_fault = write_lost(self.lost).into();
        pb::PullRequest { content, held, outlined, willing, sibling_fault }.encode_to_vec().into()
    }

    /// Reads a request.
    pub fn decode(bytes: &[u8]) -> Result<PullRequest, PullError> {
        let request: pb::PullRequest = read(bytes)?;
        let content = Digest(array("pull.content", &request.content)?);
        let (held, outlined, willing) = (request.held, request.outlined, request.willing);
        let lost = read_lost(request.sibling_fault)?;
        Ok(PullRequest { content, held, outlined, willing, lost })
    }
}

impl PullReply {
    /// The bytes that travel.
    pub fn encode(&self) -> Bytes {
        use pb::pull_reply::Reply;
        let reply = match *self {
            PullReply::Found { bytes, encoding, first, outlined, promoted } => {
                let encoding = match encoding {
                    Encoding::Raw => pb::Encoding::Raw,
                    Encoding::Zstd => pb::Encoding::Zstd,
                };
                let encoding = encoding.into();
                Reply::Found(pb::Found { bytes, encoding, first, outlined, promoted })
            }
            PullReply::Fault(fault) => {
                let fault = match fault {
                    PullFault::Absent => pb::PullFault::Absent,
                    PullFault::Broken => pb::PullFault::Broken,
                    PullFault::Corrupt => pb::PullFault::Corrupt,
                    PullFault::Disk => pb::PullFault::Disk,
                    PullFault::Busy => pb::PullFault::Busy,
                };
                Reply::Fault(fault.into())
            }
            PullReply::Sibling { address, key } => Reply::Sibling(pb::Sibling {
                address: address.to_string(),
                key: Bytes::copy_from_slice(&key),
            }),
            PullReply::Recall => Reply::Recall(pb::Recall {}),
        };
        pb::PullReply { reply: Some(reply) }.encode_to_vec().into()
    }

    /// Reads a reply.
    pub fn decode(bytes: &[u8]) -> Result<PullReply, PullError> {
        use pb::pull_reply::Reply;
        match read::<pb::PullReply>(bytes)?.reply.ok_or(PullError::Kind)? {
            Reply::Found(pb::Found { bytes, encoding, first, outlined, promoted }) => {
                let encoding = read_encoding(encoding)?;
                Ok(PullReply::Found { bytes, encoding, first, outlined, promoted })
            }
            Reply::Fault(fault) => Ok(PullReply::Fault(read_fault(fault)?)),
            Reply::Sibling(pb::Sibling { address, key }) => {
                let fault = FieldError::Wrong {
                    field: "sibling.address",
                    fault: "is not an IP address with a port",
                };
                let address = address.parse().map_err(|_| fault)?;
                Ok(PullReply::Sibling { address, key: array("sibling.key", &key)? })
            }
            Reply::Recall(pb::Recall {}) => Ok(PullReply::Recall),
        }
    }
}

fn read<M: shape::Shaped>(bytes: &[u8]) -> Result<M, PullError> {
    if bytes.len() > PULL_LIMIT {
        return Err(PullError::TooLong { found: bytes.len() });
    }
    Ok(shape::decode_slice(bytes)?)
}

fn read_encoding(found: i32) -> Result<Encoding, FieldError> {
    match pb::Encoding::try_from(found) {
        Ok(pb::Encoding::Raw) => Ok(Encoding::Raw),
        Ok(pb::Encoding::Zstd) => Ok(Encoding::Zstd),
        Ok(pb::Encoding::Unspecified) | Err(_) => {
            Err(FieldError::Unknown { field: "found.encoding", found })
        }
    }
}

fn read_fault(found: i32) -> Result<PullFault, FieldError> {
    match pb::PullFault::try_from(found) {
        Ok(pb::PullFault::Absent) => Ok(PullFault::Absent),
        Ok(pb::PullFault::Broken) => Ok(PullFault::Broken),
        Ok(pb::PullFault::Corrupt) => Ok(PullFault::Corrupt),
        Ok(pb::PullFault::Disk) => Ok(PullFault::Disk),
        Ok(pb::PullFault::Busy) => Ok(PullFault::Busy),
        Ok(pb::PullFault::Unspecified) | Err(_) => {
            Err(FieldError::Unknown { field: "reply.fault", found })
        }
    }
}

fn write_lost(lost: Option<Lost>) -> pb::SiblingFault {
    match lost {
        None => pb::SiblingFault::Unspecified,
        Some(Lost::Unreached) => pb::SiblingFault::Unreached,
        Some(Lost::Absent) => pb::SiblingFault::Absent,
        Some(Lost::Broken) => pb::SiblingFault::Broken,
        Some(Lost::Slow) => pb::SiblingFault::Slow,
        Some(Lost::Altered) => pb::SiblingFault::Altered,
    }
}

fn read_lost(found: i32) -> Result<Option<Lost>, FieldError> {
    match pb::SiblingFault::try_from(found) {
        Ok(pb::SiblingFault::Unspecified) => Ok(None),
        Ok(pb::SiblingFault::Unreached) => Ok(Some(Lost::Unreached)),
        Ok(pb::SiblingFault::Absent) => Ok(Some(Lost::Absent)),
        Ok(pb::SiblingFault::Broken) => Ok(Some(Lost::Broken)),
        Ok(pb::SiblingFault::Slow) => Ok(Some(Lost::Slow)),
        Ok(pb::SiblingFault::Altered) => Ok(Some(Lost::Altered)),
        Err(_) => Err(FieldError::Unknown { field: "pull.sibling_fault", found }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{digest, mangle, number};

    fn request() -> impl Strategy<Value = PullRequest> {
        let lost = [Lost::Unreached, Lost::Absent, Lost::Broken, Lost::Slow, Lost::Altered];
        let lost = proptest::option::of(proptest::sample::select(lost.to_vec()));
        (digest(), any::<u32>(), any::<bool>(), any::<bool>(), lost).prop_map(
            |(content, held, outlined, willing, lost)| PullRequest {
                content,
                held,
                outlined,
                willing,
                lost,
            },
        )
    }

    fn reply() -> impl Strategy<Value = PullReply> {
        let encoding = prop_oneof![Just(Encoding::Raw), Just(Encoding::Zstd)];
        let faults = [
            PullFault::Absent,
            PullFault::Broken,
            PullFault::Corrupt,
            PullFault::Disk,
            PullFault::Busy,
        ];
        prop_oneof![
            (number(), encoding, any::<u32>(), any::<bool>(), any::<bool>()).prop_map(
                |(bytes, encoding, first, outlined, promoted)| PullReply::Found {
                    bytes,
                    encoding,
                    first,
                    outlined,
                    promoted
                }
            ),
            (any::<std::net::IpAddr>(), any::<u16>(), any::<[u8; 32]>()).prop_map(
                |(ip, port, key)| PullReply::Sibling { address: SocketAddr::new(ip, port), key }
            ),
            Just(PullReply::Recall),
            proptest::sample::select(faults.to_vec()).prop_map(PullReply::Fault),
        ]
    }

    proptest! {
        #[test]
        fn round_trip(request in request(), reply in reply()) {
            prop_assert_eq!(PullRequest::decode(&request.encode()), Ok(request));
            prop_assert_eq!(PullReply::decode(&reply.encode()), Ok(reply));
        }

        #[test]
        fn mangled_bytes_are_a_head_or_an_error(
            a in mangle(request(), PullRequest::encode),
            b in mangle(reply(), PullReply::encode),
        ) {
            for bytes in [a, b] {
                let _ = PullRequest::decode(&bytes);
                let _ = PullReply::decode(&bytes);
            }
        }
    }

    #[test]
    fn limits() {
        let check = |bytes: &[u8], expected: &str| {
            assert_eq!(PullReply::decode(bytes).expect_err("it is refused").to_string(), expected);
        };
        check(&[0; PULL_LIMIT + 1], "the head has 257 bytes; the limit is 256");
        check(b"", "the reply is of a kind that this version does not know");
        check(b"\x10\x09", "reply.fault has the value 9, which this version does not know");
        check(b"\x0a\x00", "found.encoding has the value 0, which this version does not know");
        check(b"\x1a\x03\x0a\x01x", "sibling.address is not an IP address with a port");
        assert_eq!(
            PullRequest::decode(b"\x0a\x01x").expect_err("it is refused").to_string(),
            "pull.content has 1 bytes and must have 32"
        );
    }
}
