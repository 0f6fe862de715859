//! How a new host joins: its request, and the grant or refusal that comes back.
//!
//! Both ends speak to somebody they do not know yet, so the limit is far below that of frames.
//! Whether proof, signature and certificate are good is for the caller to say; so is whether the
//! version suits ([`check_version`](crate::check_version)), because a refusal can then say why.

use bytes::Bytes;
use mesh::HostId;
use prost::Message;

use crate::field::{array, at_most_bytes, clip, not_empty, own, plain};
use crate::{FieldError, Malformed, VERSION, pb, shape, wire};

/// The longest request and reply.
pub const JOIN_LIMIT: usize = 64 << 10;

const NAME_LIMIT: usize = 63;
const DER_LIMIT: usize = 16 << 10;
const REFUSAL_LIMIT: usize = 1024;

/// Bytes that are no request, reply or grant. Nothing has changed; the peer is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// The message is longer than any may be.
    #[error("the message has {found} bytes; the limit is {JOIN_LIMIT}")]
    TooLong {
        /// How long it is.
        found: usize,
    },
    /// The reply is neither a grant nor a refusal.
    #[error("the reply is of a kind that this version does not know")]
    Kind,
    /// The bytes are no such message.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A field holds what it must not.
    #[error(transparent)]
    Field(#[from] FieldError),
}

/// A host asks to join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinRequest {
    /// The protocol that it speaks.
    pub version: (u16, u16),
    /// The token that invites it.
    pub token_id: [u8; 8],
    /// The name that it wants; at most 63 bytes.
    pub name: String,
    /// Its certificate request, DER; at most 16 KiB.
    pub csr: Bytes,
    /// The proof that it holds the token.
    pub proof: [u8; 64],
    /// Whether it is enrolled already and asks for a new certificate for the same key. Token and
    /// proof mean nothing then: the certificate request shows that it holds the key.
    pub renewal: bool,
}

impl JoinRequest {
    /// A request of our version.
    pub fn new(token_id: [u8; 8], name: String, csr: Bytes, proof: [u8; 64]) -> JoinRequest {
        JoinRequest { version: VERSION, token_id, name, csr, proof, renewal: false }
    }

    /// A request for a new certificate, of our version.
    pub fn renewal(name: String, csr: Bytes) -> JoinRequest {
        JoinRequest { renewal: true, ..JoinRequest::new([0; 8], name, csr, [0; 64]) }
    }

    /// The bytes that travel.
    pub fn encode(&self) -> Bytes {
        let request = pb::JoinRequest {
            major: self.version.0.into(),
            minor: self.version.1.into(),
            token_id: Bytes::copy_from_slice(&self.token_id),
            name: self.name.clone(),
            csr: self.csr.clone(),
            proof: Bytes::copy_from_slice(&self.proof),
            renewal: self.renewal,
        };
        request.encode_to_vec().into()
    }

    /// Reads a request.
    pub fn decode(bytes: Bytes) -> Result<JoinRequest, JoinError> {
        let request: pb::JoinRequest = read(bytes)?;
        check_name("join.name", &request.name)?;
        check_der("join.csr", &request.csr)?;
        Ok(JoinRequest {
            version: wire::version("join", request.major, request.minor)?,
            token_id: array("join.token_id", &request.token_id)?,
            name: request.name,
            csr: request.csr,
            proof: array("join.proof", &request.proof)?,
            renewal: request.renewal,
        })
    }
}

/// The controller's reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinReply {
    /// The host is in.
    Grant(Grant),
    /// It is not, and why, for its operator to read; cut to 1,024 bytes.
    Refusal(String),
}

impl JoinReply {
    /// The bytes that travel.
    pub fn encode(&self) -> Bytes {
        use pb::join_reply::Reply;
        let reply = match self {
            JoinReply::Grant(grant) => Reply::Grant(pb::Grant {
                body: grant.body.clone(),
                signature: Bytes::copy_from_slice(&grant.signature),
                authority: grant.authority.clone(),
            }),
            JoinReply::Refusal(text) => Reply::Refusal(clip(text, REFUSAL_LIMIT).to_owned()),
        };
        pb::JoinReply { reply: Some(reply) }.encode_to_vec().into()
    }

    /// Reads a reply.
    pub fn decode(bytes: Bytes) -> Result<JoinReply, JoinError> {
        use pb::join_reply::Reply;
        match read::<pb::JoinReply>(bytes)?.reply.ok_or(JoinError::Kind)? {
            Reply::Grant(grant) => {
                not_empty("grant.body", grant.body.len())?;
                check_der("grant.authority", &grant.authority)?;
                Ok(JoinReply::Grant(Grant {
                    signature: array("grant.signature", &grant.signature)?,
                    body: grant.body,
                    authority: grant.authority,
                }))
            }
            Reply::Refusal(text) => {
                at_most_bytes("reply.refusal", text.len(), REFUSAL_LIMIT)?;
                Ok(JoinReply::Refusal(text))
            }
        }
    }
}

/// A grant as it is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The bytes of a [`GrantBody`].
    pub body: Bytes,
    /// The authority's signature over them.
    pub signature: [u8; 64],
    /// The authority's certificate, DER, which the token's pin must match; at most 16 KiB.
    pub authority: Bytes,
}

/// What a host is granted. Read it after the signature was found good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantBody {
    /// The mesh.
    pub mesh: [u8; 16],
    /// Its number there. Never the controller's.
    pub id: HostId,
    /// Its role, as certificates spell it; at most 63 bytes.
    pub role: String,
    /// Its site; may be empty; at most 63 bytes.
    pub site: String,
    /// Its name; at most 63 bytes.
    pub name: String,
    /// Its certificate, DER; at most 16 KiB.
    pub certificate: Bytes,
    /// The key that orders are signed with.
    pub order_key: [u8; 32],
}

impl GrantBody {
    /// The bytes to sign.
    pub fn encode(&self) -> Bytes {
        let body = pb::GrantBody {
            mesh: Bytes::copy_from_slice(&self.mesh),
            id: self.id.0,
            role: self.role.clone(),
            site: self.site.clone(),
            name: self.name.clone(),
            certificate: self.certificate.clone(),
            order_key: Bytes::copy_from_slice(&self.order_key),
        };
        body.encode_to_vec().into()
    }

    /// Reads the body of a grant.
    pub fn decode(bytes: Bytes) -> Result<GrantBody, JoinError> {
        let body: pb::GrantBody = read(bytes)?;
        if HostId(body.id) == HostId::ROOT {
            return Err(FieldError::Missing { field: "grant.id" }.into());
        }
        check_name("grant.role", &body.role)?;
        plain("grant.site", &body.site, NAME_LIMIT)?;
        check_name("grant.name", &body.name)?;
        check_der("grant.certificate", &body.certificate)?;
        Ok(GrantBody {
            mesh: array("grant.mesh", &body.mesh)?,
            id: HostId(body.id),
            role: body.role,
            site: body.site,
            name: body.name,
            certificate: own(&body.certificate),
            order_key: array("grant.order_key", &body.order_key)?,
        })
    }
}

fn read<M: shape::Shaped>(bytes: Bytes) -> Result<M, JoinError> {
    if bytes.len() > JOIN_LIMIT {
        return Err(JoinError::TooLong { found: bytes.len() });
    }
    Ok(shape::decode(bytes)?)
}

fn check_name(field: &'static str, name: &str) -> Result<(), FieldError> {
    not_empty(field, name.len())?;
    plain(field, name, NAME_LIMIT)
}

fn check_der(field: &'static str, der: &Bytes) -> Result<(), FieldError> {
    not_empty(field, der.len())?;
    at_most_bytes(field, der.len(), DER_LIMIT)
}

#[cfg(test)]
mod tests {
    use proptest::array::{uniform8, uniform16, uniform32};
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{mangle, name, signature, some_bytes, text};

    fn request() -> impl Strategy<Value = JoinRequest> {
        (any::<(u16, u16)>(), uniform8(any::<u8>()), name(), some_bytes(60), signature()).prop_map(
            |(version, token_id, name, csr, proof)| JoinRequest {
                renewal: proof[0] % 2 == 1,
                version,
                token_id,
                name,
                csr,
                proof,
            },
        )
    }

    fn reply() -> impl Strategy<Value = JoinReply> {
        let grant = (some_bytes(60), signature(), some_bytes(60))
            .prop_map(|(body, signature, authority)| Grant { body, signature, authority });
        prop_oneof![grant.prop_map(JoinReply::Grant), text(40).prop_map(JoinReply::Refusal),]
    }

    fn body() -> impl Strategy<Value = GrantBody> {
        let site = prop_oneof![Just(String::new()), name()];
        let key = uniform32(any::<u8>());
        (uniform16(any::<u8>()), 1u32.., name(), site, name(), some_bytes(60), key).prop_map(
            |(mesh, id, role, site, name, certificate, order_key)| GrantBody {
                mesh,
                id: HostId(id),
                role,
                site,
                name,
                certificate,
                order_key,
            },
        )
    }

    proptest! {
        #[test]
        fn round_trip(request in request(), reply in reply(), body in body()) {
            prop_assert_eq!(JoinRequest::decode(request.encode()), Ok(request));
            prop_assert_eq!(JoinReply::decode(reply.encode()), Ok(reply));
            prop_assert_eq!(GrantBody::decode(body.encode()), Ok(body));
        }

        #[test]
        fn mangled_bytes_are_a_message_or_an_error(
            a in mangle(request(), JoinRequest::encode),
            b in mangle(reply(), JoinReply::encode),
            c in mangle(body(), GrantBody::encode),
        ) {
            for bytes in [a, b, c] {
                let _ = JoinRequest::decode(bytes.clone());
                let _ = JoinReply::decode(bytes.clone());
                let _ = GrantBody::decode(bytes);
            }
        }
    }

    #[test]
    fn limits() {
        let good = JoinRequest::new([1; 8], "web1".to_owned(), Bytes::from_static(b"c"), [2; 64]);
        let check = |change: fn(&mut JoinRequest), expected: &str| {
            let mut request = good.clone();
            change(&mut request);
            let error = JoinRequest::decode(request.encode()).expect_err("it is refused");
            assert_eq!(error.to_string(), expected);
        };
        check(|r| r.name.clear(), "join.name is missing or empty");
        check(|r| r.name = "n".repeat(64), "join.name has 64 bytes; the limit is 63");
        check(|r| r.name = "a\nb".to_owned(), "join.name has a control character");
        check(|r| r.csr = Bytes::new(), "join.csr is missing or empty");
        check(
            |r| r.csr = vec![0; DER_LIMIT + 1].into(),
            "join.csr has 16385 bytes; the limit is 16384",
        );
        check(
            |r| r.csr = vec![0; JOIN_LIMIT].into(),
            "the message has 65624 bytes; the limit is 65536",
        );
        let short = pb::JoinRequest {
            token_id: vec![1; 7].into(),
            name: "n".to_owned(),
            csr: vec![1].into(),
            ..Default::default()
        };
        let error = JoinRequest::decode(short.encode_to_vec().into()).expect_err("it is refused");
        assert_eq!(error.to_string(), "join.token_id has 7 bytes and must have 8");
        assert_eq!(JoinReply::decode(Bytes::new()), Err(JoinError::Kind));
        let refusal = JoinReply::Refusal("é".repeat(1000));
        let cut = JoinReply::Refusal("é".repeat(512));
        assert_eq!(JoinReply::decode(refusal.encode()), Ok(cut));
    }
}
