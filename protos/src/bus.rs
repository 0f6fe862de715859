//! The frames of the bus: interest, messages and answers. Who may say what is for the core.

use bytes::Bytes;
use mesh::HostId;
use mesh::bus::{Answer, BUS_BYTES, Interest, Message, PATTERNS, Pattern, Subject};

use crate::field::{at_most, ensure, own, plain};
use crate::{FieldError, pb};

/// The longest name of a node.
const NAME: usize = 255;

pub(crate) fn encode_interest(interest: &Interest) -> pb::Interest {
    pb::Interest { patterns: interest.patterns().map(|one| one.as_str().to_owned()).collect() }
}

pub(crate) fn decode_interest(interest: &pb::Interest) -> Result<Interest, FieldError> {
    at_most("interest.patterns", interest.patterns.len(), PATTERNS)?;
    let pattern = |text: &String| {
        let fault = "has one that is no pattern";
        Pattern::new(text).map_err(|_| FieldError::Wrong { field: "interest.patterns", fault })
    };
    let patterns: Vec<_> = interest.patterns.iter().map(pattern).collect::<Result<_, _>>()?;
    Ok(Interest::of(patterns, PATTERNS))
}

pub(crate) fn encode_message(message: &Message) -> pb::BusMessage {
    pb::BusMessage {
        id: message.id,
        from: message.from.0,
        node: message.node.clone(),
        subject: message.subject.as_str().into(),
        request: message.request,
        body: message.body.clone(),
    }
}

pub(crate) fn decode_message(message: pb::BusMessage) -> Result<Message, FieldError> {
    plain("message.node", &message.node, NAME)?;
    let (field, fault) = ("message.subject", "is no subject");
    let subject = Subject::new(&message.subject);
    Ok(Message {
        id: message.id,
        from: HostId(message.from),
        subject: subject.map_err(|_| FieldError::Wrong { field, fault })?,
        request: message.request,
        body: body("message.body", &message.body)?,
        node: message.node,
    })
}

pub(crate) fn encode_answer(answer: &Answer) -> pb::BusAnswer {
    pb::BusAnswer {
        to: answer.to.0,
        request: answer.request,
        from: answer.from.0,
        node: answer.node.clone(),
        body: answer.body.clone(),
    }
}

pub(crate) fn decode_answer(answer: pb::BusAnswer) -> Result<Answer, FieldError> {
    plain("answer.node", &answer.node, NAME)?;
    Ok(Answer {
        to: HostId(answer.to),
        request: answer.request,
        from: HostId(answer.from),
        body: body("answer.body", &answer.body)?,
        node: answer.node,
    })
}

/// The copy lets go of the frame.
fn body(field: &'static str, bytes: &Bytes) -> Result<Bytes, FieldError> {
    ensure(bytes.len() <= BUS_BYTES, field, "is longer than 64 KiB")?;
    Ok(own(bytes))
}
