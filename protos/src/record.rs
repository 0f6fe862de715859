//! What became of an order that a relay's own operator has given, on its way to the controller.
//!
//! A record goes up in parts, each signed by the relay, since answers may be longer than a frame.
//! The first has the order itself; each part can come twice. What is in them is data: which of the
//! targets said what is for the controller to compare with the order.

use bytes::Bytes;
use mesh::{HostId, OrderId};
use prost::Message;

use crate::field::{array, clip, not_empty};
use crate::{FRAME_LIMIT, FieldError, Malformed, pb, shape};

/// What a part is signed as.
pub const RECORD_KIND: &str = "barid.v1.record";

/// How much of bodies and reports one part may have, for it to fit a frame.
pub const RECORD_LIMIT: usize = FRAME_LIMIT - (64 << 10);

const REFUSAL_LIMIT: usize = 1024;

/// Bytes that are no part of a record. Nothing has changed; the peer is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The bytes are no such message.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A field holds what it must not.
    #[error(transparent)]
    Field(#[from] FieldError),
}

/// A part as it travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedRecord {
    /// A [`Record`], as it was signed.
    pub body: Bytes,
    /// The relay's signature.
    pub signature: [u8; 64],
}

/// A part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The mesh.
    pub mesh: [u8; 16],
    /// The relay.
    pub relay: HostId,
    /// The order.
    pub order: OrderId,
    /// The order's envelope; empty in all parts but the first.
    pub envelope: Bytes,
    /// Bodies of answers.
    pub bodies: Vec<Bytes>,
    /// Frames with a report each, without bodies.
    pub reports: Vec<Bytes>,
    /// When each target had an outcome, in milliseconds since 1970; 0: not yet.
    pub closed_ms: u64,
}

/// What the controller says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordReply {
    /// It has the part on its disk.
    Kept,
    /// It does not want it, and why; cut to 1,024 bytes.
    Refused(String),
}

impl SignedRecord {
    /// The bytes that travel.
    pub fn encode(&self) -> Bytes {
        let signature = Bytes::copy_from_slice(&self.signature);
        let record = pb::SignedRecord { body: self.body.clone(), signature };
        record.encode_to_vec().into()
    }

    /// Reads a part.
    pub fn decode(bytes: Bytes) -> Result<SignedRecord, RecordError> {
        let record: pb::SignedRecord = shape::decode(bytes)?;
        not_empty("signed_record.body", record.body.len())?;
        let signature = array("signed_record.signature", &record.signature)?;
        Ok(SignedRecord { body: record.body, signature })
    }
}

impl Record {
    /// The bytes to sign.
    pub fn encode(&self) -> Bytes {
        let record = pb::Record {
            mesh: Bytes::copy_from_slice(&self.mesh),
            relay: self.relay.0,
            order: Bytes::copy_from_slice(&self.order.0),
            envelope: self.envelope.clone(),
            bodies: self.bodies.clone(),
            reports: self.reports.clone(),
            closed_ms: self.closed_ms,
        };
        record.encode_to_vec().into()
    }

    /// Reads what was signed.
    pub fn decode(bytes: Bytes) -> Result<Record, RecordError> {
        let record: pb::Record = shape::decode(bytes)?;
        Ok(Record {
            mesh: array("record.mesh", &record.mesh)?,
            relay: HostId(record.relay),
            order: OrderId(array("record.order", &record.order)?),
            envelope: record.envelope,
            bodies: record.bodies,
            reports: record.reports,
            closed_ms: record.closed_ms,
        })
    }
}

impl RecordReply {
    /// The bytes that travel.
    pub fn encode(&self) -> Bytes {
        let reply = match self {
            RecordReply::Kept => pb::RecordReply { kept: true, refusal: String::new() },
            RecordReply::Refused(why) => {
                pb::RecordReply { kept: false, refusal: clip(why, REFUSAL_LIMIT).to_owned() }
            }
        };
        reply.encode_to_vec().into()
    }

    /// Reads a reply.
    pub fn decode(bytes: Bytes) -> Result<RecordReply, RecordError> {
        let reply: pb::RecordReply = shape::decode(bytes)?;
        match reply.kept {
            true => Ok(RecordReply::Kept),
            false => Ok(RecordReply::Refused(reply.refusal)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{bytes, mangle, signature, some_bytes};

    fn records() -> impl Strategy<Value = Record> {
        let ids = any::<([u8; 16], u32, [u8; 16])>();
        let parts = (bytes(20), vec(some_bytes(20), 0..3), vec(some_bytes(20), 0..3));
        (ids, parts, any::<u64>()).prop_map(
            |((mesh, relay, order), (envelope, bodies, reports), closed_ms)| Record {
                mesh,
                relay: HostId(relay),
                order: OrderId(order),
                envelope,
                bodies,
                reports,
                closed_ms,
            },
        )
    }

    proptest! {
        #[test]
        fn round_trips(record in records(), signature in signature(), why in "[a-z ]{1,40}") {
            let signed = SignedRecord { body: record.encode(), signature };
            prop_assert_eq!(SignedRecord::decode(signed.encode()), Ok(signed));
            prop_assert_eq!(Record::decode(record.encode()), Ok(record));
            for reply in [RecordReply::Kept, RecordReply::Refused(why)] {
                prop_assert_eq!(RecordReply::decode(reply.encode()), Ok(reply));
            }
        }

        #[test]
        fn mangled_bytes_are_a_record_or_an_error(bytes in mangle(records(), Record::encode)) {
            if let Ok(record) = Record::decode(bytes.clone()) {
                prop_assert_eq!(Record::decode(record.encode()), Ok(record));
            }
            SignedRecord::decode(bytes.clone()).ok();
            RecordReply::decode(bytes).ok();
        }
    }
}
