//! What crosses the socket: JSON, and in streams one object a line.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// What became of a message that was published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// Whether anybody wants it, as far as the node knows.
    pub heard: bool,
    /// Where it is kept, if that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<Place>,
}

/// Where a message is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The number of the node that keeps it.
    pub by: u32,
    /// As what.
    pub name: String,
    /// Under which number.
    pub seq: u64,
    /// Since when, in unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_ms: Option<u64>,
    /// Of a queue: what is to be said when it is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// What comes to a subscriber.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    /// From here on messages come; these are the patterns.
    Ready(Vec<String>),
    /// A message.
    Message(Message),
    /// So many messages found no room, since they were not read fast enough.
    Missed(u64),
    /// No more will come, and why.
    Fault(Fault),
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// What it is about.
    pub subject: String,
    /// The number of the node where it was published.
    pub from: u32,
    /// What that node calls itself.
    pub node: String,
    /// If answers are wanted: what an answer has to name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// The body, as text or in base64.
    pub data: String,
    /// Whether it is in base64.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub binary: bool,
    /// If it comes from where it is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<Place>,
}

/// What a queue had for somebody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// The message; none: there was none in time.
    pub message: Option<Message>,
}

/// What a node keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllKept {
    /// One by one.
    pub kept: Vec<Kept>,
    /// What is wrong with its settings, if anything; what was kept before is kept on.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub wrong: String,
}

/// One of the things that a node keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its name.
    pub name: String,
    /// Which subjects.
    pub subject: String,
    /// `latest`, `queue` or `stream`.
    pub policy: String,
    /// How many messages are there.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The number of the next one.
    pub next: u64,
    /// How many were lost before everybody had them.
    pub dropped: u64,
    /// Of a queue: how many somebody has.
    pub taken: u64,
    /// How many were lost since the node was started, by why: `limit`, `age`, `pace`, `disk` or
    /// `size`.
    #[serde(default)]
    pub lost: BTreeMap<String, u64>,
    /// Of a stream: those readers who are furthest behind.
    pub readers: Vec<Reader>,
}

/// A reader of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reader {
    /// His name.
    pub name: String,
    /// Up to which number he has acknowledged all.
    pub through: u64,
}

/// What comes to whoever has asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AnswerLine {
    /// An answer.
    Answer(Answer),
    /// No more will come.
    End(End),
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The number of the node that answers.
    pub from: u32,
    /// What that node calls itself.
    pub node: String,
    /// The body, as text or in base64.
    pub data: String,
    /// Whether it is in base64.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub binary: bool,
}

/// Why no more answers will come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// The reason.
    pub why: Why,
    /// How many there were.
    pub answers: u64,
}

/// A reason why no more answers will come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// There are as many as were wanted.
    Enough,
    /// The time is over.
    Deadline,
    /// Nobody wants such messages.
    Nobody,
    /// The node has stopped.
    Stopped,
}

/// A request that was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// A stable word for programs: `bad-request`, `denied`, `full`, `stopping`, `unknown`...
    pub code: String,
    /// What is wrong, naming the thing.
    pub message: String,
    /// What to do about it; may be empty.
    #[serde(default)]
    pub help: String,
}

/// A body as text, or in base64 if it is none.
pub fn encode_data(body: &[u8]) -> (String, bool) {
    match std::str::from_utf8(body) {
        Ok(text) => (text.into(), false),
        Err(_) => (data_encoding::BASE64.encode(body), true),
    }
}

/// The bytes of a body; none if it is said to be in base64 and is not.
pub fn decode_data(data: &str, binary: bool) -> Option<Bytes> {
    match binary {
        false => Some(Bytes::copy_from_slice(data.as_bytes())),
        true => data_encoding::BASE64.decode(data.as_bytes()).ok().map(Bytes::from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_as_they_cross() {
        let line = |line: &Line| serde_json::to_string(line).expect("it is JSON");
        assert_eq!(line(&Line::Ready(vec!["a.>".into()])), r#"{"ready":["a.>"]}"#);
        assert_eq!(line(&Line::Missed(3)), r#"{"missed":3}"#);
        let (data, binary) = encode_data(b"\xff\x00");
        assert_eq!((data.as_str(), binary), ("/wA=", true));
        assert_eq!(decode_data(&data, binary).as_deref(), Some(&b"\xff\x00"[..]));
        assert_eq!(decode_data("not base64!", true), None);
        let (subject, node) = ("a".to_owned(), "web1".to_owned());
        let (request, kept, data) = (None, None, "hi".into());
        let message = Message { subject, from: 7, node, request, data, binary: false, kept };
        let text = r#"{"message":{"subject":"a","from":7,"node":"web1","data":"hi"}}"#;
        assert_eq!(line(&Line::Message(message.clone())), text);
        assert_eq!(serde_json::from_str::<Line>(text).expect("it is read"), Line::Message(message));
        let end = AnswerLine::End(End { why: Why::Nobody, answers: 0 });
        let text = serde_json::to_string(&end).expect("it is JSON");
        assert_eq!(text, r#"{"end":{"why":"nobody","answers":0}}"#);
    }
}
