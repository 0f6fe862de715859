//! The first look at bytes: whether they are a message of this shape at all.
//!
//! prost is lenient where a peer may be hostile: of a field that comes twice it takes the last, it
//! cuts numbers to their width, and a megabyte of empty elements becomes fifty of memory. So the
//! bytes are walked first, without allocating, by tables that build.rs makes of the .proto files.
//! What passes has every singular field at most once, one arm of each oneof, numbers in their
//! shortest form and range, text in UTF-8, and no more elements than the limits allow.
//!
//! Fields that the tables do not know are skipped: a peer one minor version ahead may send them.
//! Whether the values make sense together is not decided here.

use bytes::Bytes;

use crate::pb;

/// Elements of repeated fields in one message, with all that is nested in it.
const ELEMENTS: usize = 65_536;
/// Numbers in one packed field: two for each of 65,536 ranges of a host set.
const NUMBERS: usize = 131_072;
/// How deeply messages nest.
const DEPTH: u32 = 16;

include!(concat!(env!("OUT_DIR"), "/shapes.rs"));

pub(crate) struct Message {
    name: &'static str,
    fields: &'static [Field],
}

struct Field {
    number: u32,
    name: &'static str,
    kind: Kind,
    many: bool,
    one_of: Option<u32>,
}

enum Kind {
    /// A varint of at most this value; packed, if there are many.
    Number(u64),
    Bytes,
    Text,
    Message(&'static Message),
}

/// Bytes that are not a message of the expected kind. Nothing has been done with them; whoever
/// made them is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The bytes end in the middle of something.
    #[error("{message} is cut off")]
    CutOff {
        /// The message.
        message: &'static str,
    },
    /// A number is too large for its field, or takes more bytes than it needs.
    #[error("{message}.{field} has a number out of range or not in its shortest form")]
    Number {
        /// The message.
        message: &'static str,
        /// The field.
        field: &'static str,
    },
    /// A field that can be there once is there twice, or two arms of one choice are.
    #[error("{message}.{field} comes twice or beside a field that excludes it")]
    Twice {
        /// The message.
        message: &'static str,
        /// The field.
        field: &'static str,
    },
    /// A field is encoded as something else than what it is.
    #[error("{message}.{field} is of another type than expected")]
    Type {
        /// The message.
        message: &'static str,
        /// The field.
        field: &'static str,
    },
    /// A field has, or the whole message by the time it comes to this field, too many elements.
    #[error("{message}.{field} has too many elements; the limit is {limit}")]
    Elements {
        /// The message.
        message: &'static str,
        /// The field.
        field: &'static str,
        /// The limit.
        limit: usize,
    },
    /// Text is not UTF-8.
    #[error("{message}.{field} is not UTF-8 text")]
    Text {
        /// The message.
        message: &'static str,
        /// The field.
        field: &'static str,
    },
    /// Messages within messages, too many of them.
    #[error("{message} nests deeper than {DEPTH} messages")]
    Depth {
        /// The message.
        message: &'static str,
    },
    /// The bytes are no protobuf.
    #[error("{message} is not a protobuf message")]
    Protobuf {
        /// The message.
        message: &'static str,
    },
}

/// A message of prost with its table.
pub(crate) trait Shaped: prost::Message + Default {
    /// The table.
    const SHAPE: &'static Message;
}

macro_rules! shaped {
    ($($type:ident $shape:ident,)*) => {
        $(impl Shaped for pb::$type { const SHAPE: &'static Message = &$shape; })*
    };
}
shaped! {
    Frame FRAME,
    Envelope ENVELOPE,
    OrderBody ORDER_BODY,
    Answer ANSWER,
    Facts FACTS,
    JoinRequest JOIN_REQUEST,
    JoinReply JOIN_REPLY,
    GrantBody GRANT_BODY,
    PullRequest PULL_REQUEST,
    PullReply PULL_REPLY,
    Removals REMOVALS,
    SignedRemovals SIGNED_REMOVALS,
    Delegation DELEGATION,
    Delegated DELEGATED,
    Delegate DELEGATE,
    SignedRecord SIGNED_RECORD,
    Record RECORD,
    RecordReply RECORD_REPLY,
    CollectBody COLLECT_BODY,
    OutputRequest OUTPUT_REQUEST,
    OutputBody OUTPUT_BODY,
    OutputReply OUTPUT_REPLY,
}

/// Reads a message; its byte fields are slices of `bytes`. The caller has checked the length.
pub(crate) fn decode<M: Shaped>(bytes: Bytes) -> Result<M, Malformed> {
    let mut elements = ELEMENTS;
    check(&bytes, M::SHAPE, DEPTH, &mut elements)?;
    M::decode(bytes).map_err(|_| Malformed::Protobuf { message: M::SHAPE.name })
}

/// Reads a message; its byte fields are copies.
pub(crate) fn decode_slice<M: Shaped>(bytes: &[u8]) -> Result<M, Malformed> {
    let mut elements = ELEMENTS;
    check(bytes, M::SHAPE, DEPTH, &mut elements)?;
    M::decode(bytes).map_err(|_| Malformed::Protobuf { message: M::SHAPE.name })
}

/// Walks the fields of one message. `elements` is how many more the whole may have.
fn check(
    mut rest: &[u8],
    shape: &'static Message,
    depth: u32,
    elements: &mut usize,
) -> Result<(), Malformed> {
    let message = shape.name;
    let depth = depth.checked_sub(1).ok_or(Malformed::Depth { message })?;
    let (mut seen, mut chosen) = (0u32, 0u32);
    while !rest.is_empty() {
        let key = varint(&mut rest).map_err(|fault| fault.of(message, "tag"))?;
        let number = u32::try_from(key >> 3).map_err(|_| Malformed::Protobuf { message })?;
        let wire = (key & 7) as u8;
        let Some(at) = shape.fields.iter().position(|field| field.number == number) else {
            skip(&mut rest, wire, number, message)?;
            continue;
        };
        let field = &shape.fields[at];
        let packed = field.many && matches!(field.kind, Kind::Number(_));
        if !field.many || packed {
            let arm = field.one_of.map_or(0, |choice| 1 << choice);
            if seen & (1 << at) != 0 || chosen & arm != 0 {
                return Err(Malformed::Twice { message, field: field.name });
            }
            seen |= 1 << at;
            chosen |= arm;
        } else {
            let limit = Malformed::Elements { message, field: field.name, limit: ELEMENTS };
            *elements = elements.checked_sub(1).ok_or(limit)?;
        }
        check_field(&mut rest, wire, (message, field), (depth, elements))?;
    }
    Ok(())
}

/// Takes the value of a field off `rest`.
fn check_field(
    rest: &mut &[u8],
    wire: u8,
    (message, field): (&'static str, &Field),
    (depth, elements): (u32, &mut usize),
) -> Result<(), Malformed> {
    let name = field.name;
    let single = matches!(field.kind, Kind::Number(_)) && !field.many;
    if wire != if single { 0 } else { 2 } {
        return Err(Malformed::Type { message, field: name });
    }
    if let (true, &Kind::Number(most)) = (single, &field.kind) {
        return number(rest, most).map_err(|fault| fault.of(message, name));
    }
    let mut value = delimited(rest).map_err(|fault| fault.of(message, name))?;
    match field.kind {
        Kind::Number(most) => {
            let mut count = 0;
            while !value.is_empty() {
                number(&mut value, most).map_err(|fault| fault.of(message, name))?;
                count += 1;
                if count > NUMBERS {
                    return Err(Malformed::Elements { message, field: name, limit: NUMBERS });
                }
            }
            Ok(())
        }
        Kind::Bytes => Ok(()),
        Kind::Text => match std::str::from_utf8(value) {
            Ok(_) => Ok(()),
            Err(_) => Err(Malformed::Text { message, field: name }),
        },
        Kind::Message(shape) => check(value, shape, depth, elements),
    }
}

/// Takes the value of an unknown field off `rest`.
fn skip(rest: &mut &[u8], wire: u8, number: u32, message: &'static str) -> Result<(), Malformed> {
    let fixed = |rest: &mut &[u8], bytes| match rest.split_at_checked(bytes) {
        Some((_, after)) => {
            *rest = after;
            Ok(())
        }
        None => Err(Fault::CutOff),
    };
    let skipped = match wire {
        _ if number == 0 || number >= 1 << 29 => return Err(Malformed::Protobuf { message }),
        0 => varint(rest).map(drop),
        1 => fixed(rest, 8),
        2 => delimited(rest).map(drop),
        5 => fixed(rest, 4),
        _ => return Err(Malformed::Protobuf { message }),
    };
    skipped.map_err(|fault| fault.of(message, "unknown"))
}

/// What can be wrong with a number, before it is known whose it is.
enum Fault {
    CutOff,
    Number,
}

impl Fault {
    fn of(self, message: &'static str, field: &'static str) -> Malformed {
        match self {
            Fault::CutOff => Malformed::CutOff { message },
            Fault::Number => Malformed::Number { message, field },
        }
    }
}

fn number(rest: &mut &[u8], most: u64) -> Result<(), Fault> {
    if varint(rest)? > most { Err(Fault::Number) } else { Ok(()) }
}

fn delimited<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Fault> {
    let length = usize::try_from(varint(rest)?).map_err(|_| Fault::CutOff)?;
    let (value, after) = rest.split_at_checked(length).ok_or(Fault::CutOff)?;
    *rest = after;
    Ok(value)
}

/// Takes a varint in its shortest form off `rest`.
fn varint(rest: &mut &[u8]) -> Result<u64, Fault> {
    let mut value = 0;
    for at in 0..10 {
        let byte = *rest.get(at).ok_or(Fault::CutOff)?;
        // The tenth byte has room for one bit; a last byte of zero says nothing.
        if (at == 9 && byte > 1) || (at > 0 && byte == 0) {
            return Err(Fault::Number);
        }
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            *rest = &rest[at + 1..];
            return Ok(value);
        }
    }
    Err(Fault::Number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_bytes<M: Shaped + std::fmt::Debug>(bytes: &[u8], expected: &str) {
        let error = decode_slice::<M>(bytes).expect_err("it is refused");
        assert_eq!(error.to_string(), expected);
        assert_eq!(decode::<M>(Bytes::copy_from_slice(bytes)).expect_err("it is refused"), error);
    }

    #[test]
    fn refuses_what_prost_would_bend() {
        // A Beat with its root twice, then cut off in the middle.
        check_bytes::<pb::Frame>(
            b"\x12\x04\x08\x01\x08\x01",
            "Beat.root comes twice or beside a field that excludes it",
        );
        check_bytes::<pb::Frame>(b"\x12\x04\x08\x01", "Frame is cut off");
        check_bytes::<pb::Frame>(b"\x12\x01\x08", "Beat is cut off");
        // Two arms of the oneof.
        check_bytes::<pb::Frame>(
            b"\x12\x00\x0a\x00",
            "Frame.hello comes twice or beside a field that excludes it",
        );
        // An interval of 2^32, which prost would read as 0.
        check_bytes::<pb::Frame>(
            b"\x12\x06\x10\x80\x80\x80\x80\x10",
            "Beat.interval_ms has a number out of range or not in its shortest form",
        );
        let long = "Beat.root has a number out of range or not in its shortest form";
        check_bytes::<pb::Frame>(b"\x12\x03\x08\x81\x00", long);
        check_bytes::<pb::Frame>(b"\x12\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", long);
        // The root as bytes, and a host set that is not packed.
        check_bytes::<pb::Frame>(b"\x12\x02\x0a\x00", "Beat.root is of another type than expected");
        check_bytes::<pb::Frame>(
            b"\x1a\x02\x08\x01",
            "Below.below is of another type than expected",
        );
        check_bytes::<pb::Envelope>(b"\x0a\x01\xff", "Envelope.kind is not UTF-8 text");
        // A group, and field number 0.
        check_bytes::<pb::Envelope>(b"\x53\x54", "Envelope is not a protobuf message");
        check_bytes::<pb::Envelope>(b"\x00\x00", "Envelope is not a protobuf message");
    }

    #[test]
    fn unknown_fields_are_skipped() {
        for tail in [&b"\xa0\x06\x05"[..], b"\xa1\x0612345678", b"\xa2\x06\x01x", b"\xa5\x061234"] {
            let bytes = [b"\x0a\x01k", tail].concat();
            assert_eq!(decode_slice::<pb::Envelope>(&bytes).expect("it was encoded so").kind, "k");
            assert!(decode_slice::<pb::Envelope>(&bytes[..bytes.len() - 1]).is_err());
        }
    }

    #[test]
    fn counts_before_it_allocates() {
        let lines = [&b"\x12\x00"[..]; ELEMENTS + 1].concat();
        let nest = |tag: u8, inner: &[u8]| {
            let mut bytes = vec![tag];
            prost::encode_length_delimiter(inner.len(), &mut bytes).expect("a vector grows");
            [&bytes, inner].concat()
        };
        check_bytes::<pb::Frame>(
            &nest(0x32, &nest(0x1a, &lines)),
            "Report.lines has too many elements; the limit is 65536",
        );
        let numbers = vec![0; NUMBERS + 1];
        check_bytes::<pb::Frame>(
            &nest(0x1a, &nest(0x0a, &numbers)),
            "Below.below has too many elements; the limit is 131072",
        );
        assert!(decode_slice::<pb::Frame>(&nest(0x1a, &nest(0x0a, &numbers[1..]))).is_ok());
    }
}
