//! Heads of output streams: whose output of which order is wanted, and whether it comes.
//!
//! What is wanted is signed by the controller as an envelope of its own kind, so that no relay can
//! ask a host for what nobody wants to see. How much of it the asker has is not: it may change
//! from try to try. After a reply without a fault the stream carries the bytes and nothing else.

use bytes::Bytes;
use mesh::{HostId, OrderId, Stream};
use prost::Message;

use crate::field::{array, clip, ensure, plain};
use crate::{CollectFile, Envelope, FieldError, Malformed, OrderError, pb, shape};

/// The kind of envelope that holds an [`OutputBody`].
pub const OUTPUT_KIND: &str = "barid.v1.output";

/// The longest head.
pub const OUTPUT_HEAD_LIMIT: usize = 64 << 10;

const DETAIL_LIMIT: usize = 1024;

/// Bytes that are no head of an output stream. Nothing has changed; the peer is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutputError {
    /// The head is longer than any may be.
    #[error("the head has {found} bytes; the limit is {OUTPUT_HEAD_LIMIT}")]
    TooLong {
        /// How long it is.
        found: usize,
    },
    /// Something else is signed than a wish for output.
    #[error("signed as `{0}`, which is no wish for output")]
    Kind(String),
    /// The envelope cannot be read.
    #[error(transparent)]
    Envelope(#[from] OrderError),
    /// The bytes are no head.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A field holds what it must not.
    #[error(transparent)]
    Field(#[from] FieldError),
}

/// Whose output is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputBody {
    /// The mesh.
    pub mesh: [u8; 16],
    /// The run.
    pub order: OrderId,
    /// The host that ran it.
    pub host: HostId,
    /// Which of its two streams.
    pub stream: Stream,
    /// Until when the wish is good, in milliseconds since 1970.
    pub not_after_ms: u64,
    /// What is wanted is the host's page of metrics, and nothing of an order.
    pub metrics: bool,
}

/// A wish on its way down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputRequest {
    /// The signed envelope, passed on unchanged.
    pub envelope: Bytes,
    /// How many bytes the asker has already.
    pub offset: u64,
    /// Of a wish to collect: pieces that are wanted; none: what there is.
    pub files: Vec<CollectFile>,
}

/// Whether it comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputReply {
    /// It follows, from the offset on.
    Found {
        /// How many bytes the host has kept in all.
        size: u64,
    },
    /// It does not.
    Fault {
        /// Why.
        fault: OutputFault,
        /// The same in words.
        detail: String,
    },
}

/// Why output does not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OutputFault {
    /// The host does not have it, or not any more.
    Gone,
    /// The host, or a node on the way, will not.
    Refused,
    /// There is no way to the host just now.
    Away,
    /// The way broke, or the disk did.
    Broken,
}

impl OutputBody {
    /// The bytes that are signed.
    pub fn encode(&self) -> Vec<u8> {
        let stream = match self.stream {
            Stream::Stdout => pb::Stream::Stdout,
            Stream::Stderr => pb::Stream::Stderr,
        };
        let body = pb::OutputBody {
            mesh: Bytes::copy_from_slice(&self.mesh),
            order: Bytes::copy_from_slice(&self.order.0),
            host: self.host.0,
            stream: stream.into(),
            not_after_ms: self.not_after_ms,
            metrics: self.metrics,
        };
        body.encode_to_vec()
    }

    /// Reads the body of an envelope. Whether its signature is good is for the caller to say.
    pub fn read(envelope: &Envelope) -> Result<OutputBody, OutputError> {
        if envelope.kind != OUTPUT_KIND {
            return Err(OutputError::Kind(envelope.kind.clone()));
        }
        let body: pb::OutputBody = read(&envelope.body)?;
        let stream = match pb::Stream::try_from(body.stream) {
            Ok(pb::Stream::Stdout) => Stream::Stdout,
            Ok(pb::Stream::Stderr) => Stream::Stderr,
            Ok(pb::Stream::Unspecified) | Err(_) => {
                ensure(false, "output.stream", "is neither stdout nor stderr")?;
                Stream::Stdout
            }
        };
        Ok(OutputBody {
            mesh: array("output.mesh", &body.mesh)?,
            order: OrderId(array("output.order", &body.order)?),
            host: HostId(body.host),
            stream,
            not_after_ms: body.not_after_ms,
            metrics: body.metrics,
        })
    }
}

impl OutputRequest {
    /// The bytes that travel.
    pub fn encode(&self) -> Bytes {
        let (envelope, offset) = (self.envelope.clone(), self.offset);
        let files = self.files.iter().map(CollectFile::to_pb).collect();
        pb::OutputRequest { envelope, offset, files }.encode_to_vec().into()
    }

    /// Reads a request.
    pub fn decode(bytes: &[u8]) -> Result<OutputRequest, OutputError> {
        let request: pb::OutputRequest = read(bytes)?;
        let files = request.files.iter().map(CollectFile::read).collect::<Result<_, _>>()?;
        Ok(OutputRequest { envelope: request.envelope, offset: request.offset, files })
    }
}

impl OutputReply {
    /// The bytes that travel.
    pub fn encode(&self) -> Bytes {
        let reply = match self {
            OutputReply::Found { size } => {
                // Present whatever it is: a message of no bytes has no header.
                pb::OutputReply { size: Some(*size), ..pb::OutputReply::default() }
            }
            OutputReply::Fault { fault, detail } => {
                let fault = match fault {
                    OutputFault::Gone => pb::OutputFault::Gone,
                    OutputFault::Refused => pb::OutputFault::Refused,
                    OutputFault::Away => pb::OutputFault::Away,
                    OutputFault::Broken => pb::OutputFault::Broken,
                };
                let detail = clip(detail, DETAIL_LIMIT).to_owned();
                pb::OutputReply { size: None, fault: fault.into(), detail }
            }
        };
        reply.encode_to_vec().into()
    }

    /// Reads a reply.
    pub fn decode(bytes: &[u8]) -> Result<OutputReply, OutputError> {
        let reply: pb::OutputReply = read(bytes)?;
        plain("output.detail", &reply.detail, DETAIL_LIMIT)?;
        let fault = match pb::OutputFault::try_from(reply.fault) {
            Ok(pb::OutputFault::Unspecified) => {
                return Ok(OutputReply::Found { size: reply.size.unwrap_or_default() });
            }
            Ok(pb::OutputFault::Gone) => OutputFault::Gone,
            Ok(pb::OutputFault::Refused) => OutputFault::Refused,
            Ok(pb::OutputFault::Away) => OutputFault::Away,
            Ok(pb::OutputFault::Broken) | Err(_) => OutputFault::Broken,
        };
        Ok(OutputReply::Fault { fault, detail: reply.detail })
    }
}

fn read<M: shape::Shaped>(bytes: &[u8]) -> Result<M, OutputError> {
    if bytes.len() > OUTPUT_HEAD_LIMIT {
        return Err(OutputError::TooLong { found: bytes.len() });
    }
    Ok(shape::decode_slice(bytes)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{mangle, number};

    fn body() -> impl Strategy<Value = OutputBody> {
        let stream = prop_oneof![Just(Stream::Stdout), Just(Stream::Stderr)];
        let ids = (any::<[u8; 16]>(), any::<[u8; 16]>(), any::<u32>());
        (ids, stream, number(), any::<bool>()).prop_map(
            |((mesh, order, host), stream, not_after_ms, metrics)| OutputBody {
                mesh,
                order: OrderId(order),
                host: HostId(host),
                stream,
                not_after_ms,
                metrics,
            },
        )
    }

    fn sealed(body: &[u8], kind: &str) -> Envelope {
        let (kind, body) = (kind.into(), Bytes::copy_from_slice(body));
        Envelope { kind, body, signature: [7; 64], key: Bytes::from_static(b"k") }
    }

    fn request() -> impl Strategy<Value = OutputRequest> {
        (body(), number()).prop_map(|(body, offset)| OutputRequest {
            envelope: sealed(&body.encode(), OUTPUT_KIND).encode(),
            offset,
            files: Vec::new(),
        })
    }

    fn reply() -> impl Strategy<Value = OutputReply> {
        let faults =
            [OutputFault::Gone, OutputFault::Refused, OutputFault::Away, OutputFault::Broken];
        prop_oneof![
            number().prop_map(|size| OutputReply::Found { size }),
            (proptest::sample::select(faults.to_vec()), "[a-z ]{0,9}")
                .prop_map(|(fault, detail)| OutputReply::Fault { fault, detail }),
        ]
    }

    proptest! {
        #[test]
        fn round_trip(body in body(), request in request(), reply in reply()) {
            let envelope = sealed(&body.encode(), OUTPUT_KIND);
            prop_assert_eq!(OutputBody::read(&envelope), Ok(body));
            prop_assert_eq!(OutputRequest::decode(&request.encode()), Ok(request));
            prop_assert!(!reply.encode().is_empty());
            prop_assert_eq!(OutputReply::decode(&reply.encode()), Ok(reply));
        }

        #[test]
        fn mangled_bytes_are_a_head_or_an_error(
            a in mangle(request(), OutputRequest::encode),
            b in mangle(reply(), OutputReply::encode),
            c in mangle(body(), OutputBody::encode),
        ) {
            for bytes in [a, b, c] {
                let _ = OutputRequest::decode(&bytes);
                let _ = OutputReply::decode(&bytes);
                let _ = OutputBody::read(&sealed(&bytes, OUTPUT_KIND));
            }
        }
    }

    #[test]
    fn limits() {
        let error = OutputReply::decode(&[0; OUTPUT_HEAD_LIMIT + 1]).expect_err("it is refused");
        assert_eq!(error.to_string(), "the head has 65537 bytes; the limit is 65536");
        let error = OutputBody::read(&sealed(b"x", "barid.v1.order")).expect_err("it is refused");
        assert!(error.to_string().contains("barid.v1.order"), "{error}");
        let silent = pb::OutputBody {
            mesh: Bytes::from_static(&[0; 16]),
            order: Bytes::from_static(&[0; 16]),
            ..pb::OutputBody::default()
        };
        let error = OutputBody::read(&sealed(&silent.encode_to_vec(), OUTPUT_KIND))
            .expect_err("it is refused");
        assert!(error.to_string().contains("neither stdout nor stderr"), "{error}");
        let long = OutputReply::Fault { fault: OutputFault::Gone, detail: "x".repeat(5_000) };
        assert!(OutputReply::decode(&long.encode()).is_ok());
    }
}
