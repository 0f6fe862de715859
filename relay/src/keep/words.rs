//! What a node that keeps messages is asked, and what it answers: bodies of requests on the bus.
//!
//! A question is JSON. An answer is a line of JSON, and behind it the bodies of the messages that
//! it tells of, so that none need be escaped. What has come from elsewhere may be anything.

use std::collections::BTreeMap;

use bytes::Bytes;
use mesh::bus::BUS_BYTES;
use serde::{Deserialize, Serialize};

use super::settings::Policy;

/// The longest body of a message that can be kept: with what is to be said of it, it fits into an
/// answer.
pub const KEPT_BYTES: usize = 60 << 10;
/// What an answer may take for the messages in it.
const ROOM: usize = BUS_BYTES - 1_024;

/// Who keeps messages like these?
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Who {
    pub(super) subject: String,
    pub(super) policy: Policy,
}

/// Is this message kept?
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Has {
    pub(super) from: u32,
    pub(super) id: u64,
}

/// Where a new reader begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Begin {
    /// At the oldest message that is there.
    #[default]
    First,
    /// At the next one that comes.
    New,
}

/// A question to the node that keeps something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ask {
    /// What it keeps.
    List,
    /// The newest of each subject, of those behind this number.
    Latest {
        /// Of which subjects.
        subject: String,
        /// Behind which number.
        after: u64,
    },
    /// What comes next in a stream.
    Read {
        /// Of which subjects.
        subject: String,
        /// Who reads: his place is known there.
        reader: String,
        /// Where he begins, if he is new.
        from: Begin,
        /// Behind which number; none: behind what he has acknowledged.
        after: Option<u64>,
        /// How long to wait if there is nothing.
        wait_ms: u64,
    },
    /// A reader has no need any more of what is there up to this number.
    Ack {
        /// Of which subjects.
        subject: String,
        /// Who.
        reader: String,
        /// Up to which number.
        seq: u64,
    },
    /// A reader will not come again.
    Forget {
        /// Of which subjects.
        subject: String,
        /// Who.
        reader: String,
    },
    /// The next message of a queue that nobody else has.
    Take {
        /// Of which subjects.
        subject: String,
        /// How long to wait if there is none.
        wait_ms: u64,
    },
    /// A message of a queue is done.
    Done {
        /// Of which subjects.
        subject: String,
        /// Which.
        seq: u64,
        /// What was said with it.
        token: u64,
    },
}

impl Ask {
    /// How long an answer may be waited for.
    pub(super) fn wait_ms(&self) -> u64 {
        match self {
            Ask::Read { wait_ms, .. } | Ask::Take { wait_ms, .. } => *wait_ms,
            _ => 0,
        }
    }
}

/// A message that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its number.
    pub seq: u64,
    /// What it is about.
    pub subject: String,
    /// The number of the node where it was published.
    pub from: u32,
    /// What that node calls itself.
    pub node: String,
    /// When it came to where it is kept.
    pub at_ms: u64,
    /// How many bytes of what follows the line are its body.
    len: usize,
    /// The body.
    #[serde(skip)]
    pub body: Bytes,
}

impl Record {
    pub(super) fn new(seq: u64, entry: super::entry::Entry) -> Record {
        let super::entry::Entry { subject, from, node, at_ms, body, .. } = entry;
        Record { seq, subject, from, node, at_ms, len: body.len(), body }
    }

    /// Not less than what it takes in an answer.
    pub(super) fn weight(&self) -> usize {
        // Of printable characters at most one more is needed for each.
        128 + 2 * (self.subject.len() + self.node.len()) + self.body.len()
    }
}

/// A question that has no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// A stable word: `unknown`, `full`, `disk`, `over`, `bad-request`.
    pub code: String,
    /// What is wrong.
    pub message: String,
}

/// One of the things that a node keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its name.
    pub name: String,
    /// Which subjects.
    pub subject: String,
    /// How.
    pub policy: String,
    /// How many messages are there.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The number of the next one.
    pub next: u64,
    /// How many were dropped before everybody had them.
    pub dropped: u64,
    /// How many are taken, of a queue.
    #[serde(default)]
    pub taken: u64,
    /// How many were lost since the node was started, by why: `limit` (count or bytes), `age`,
    /// `pace` (they came faster than they could be taken), `disk` (it has no room, or fails) and
    /// `size`.
    #[serde(default)]
    pub lost: BTreeMap<String, u64>,
    /// Readers, and what they have acknowledged; those furthest behind.
    #[serde(default)]
    pub readers: Vec<(String, u64)>,
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reply {
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    /// What this is kept as.
    pub name: String,
    /// Messages.
    pub records: Vec<Record>,
    /// All up to this number was looked at.
    pub through: u64,
    /// So many were dropped before these.
    pub missed: u64,
    /// Whether there are more.
    pub more: bool,
    /// What is to be said when the message is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<u64>,
    /// What is kept.
    pub kept: Vec<Kept>,
    /// What is wrong with the settings.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub wrong: String,
}

impl Reply {
    pub(super) fn fault(code: &str, message: impl Into<String>) -> Reply {
        let fault = Fault { code: code.into(), message: message.into() };
        Reply { fault: Some(fault), ..Reply::default() }
    }

    /// Whether there is nothing in it that anybody has waited for.
    pub(super) fn is_empty(&self) -> bool {
        self.fault.is_none() && self.records.is_empty() && self.missed == 0 && !self.more
    }

    pub(super) fn encode(&self) -> Bytes {
        let mut bytes = serde_json::to_vec(self).expect("plain data is valid JSON");
        bytes.push(b'\n');
        for record in &self.records {
            bytes.extend_from_slice(&record.body);
        }
        bytes.into()
    }

    /// Reads an answer; none: it is none.
    pub(super) fn decode(bytes: &Bytes) -> Option<Reply> {
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let mut reply: Reply = serde_json::from_slice(&bytes[..end]).ok()?;
        let mut at = end + 1;
        for record in &mut reply.records {
            let until = at.checked_add(record.len).filter(|until| *until <= bytes.len())?;
            record.body = bytes.slice(at..until);
            at = until;
        }
        Some(reply)
    }
}

/// How many more records find room in an answer.
pub(super) struct Room(usize);

impl Room {
    pub(super) fn new() -> Room {
        Room(ROOM)
    }

    /// Whether this one does.
    pub(super) fn take(&mut self, record: &Record) -> bool {
        let left = self.0.checked_sub(record.weight());
        self.0 = left.unwrap_or(0);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn record(seq: u64, body: Bytes) -> Record {
        let (subject, node) = ("\"".repeat(255), "\\".repeat(255));
        Record { seq, subject, from: u32::MAX, node, at_ms: u64::MAX, len: body.len(), body }
    }

    #[test]
    fn what_can_be_kept_fits_into_an_answer() {
        let record = record(u64::MAX, vec![0; KEPT_BYTES].into());
        assert!(Room::new().take(&record));
        let (through, missed) = (u64::MAX, u64::MAX);
        let token = Some(u64::MAX);
        let name = "n".repeat(64);
        let records = vec![record];
        let reply = Reply { name, records, through, missed, token, more: true, ..Reply::default() };
        let bytes = reply.encode();
        assert!(bytes.len() <= BUS_BYTES, "{}", bytes.len());
        assert_eq!(Reply::decode(&bytes), Some(reply));
    }

    proptest! {
        #[test]
        fn answers_come_back_as_they_were_and_pieces_of_them_are_none(
            bodies in vec(vec(any::<u8>(), 0..99), 0..9),
            cut in any::<proptest::sample::Index>(),
        ) {
            let records = bodies.into_iter().zip(1..).map(|(b, seq)| record(seq, b.into()));
            let reply = Reply { records: records.collect(), ..Reply::default() };
            let bytes = reply.encode();
            prop_assert_eq!(Reply::decode(&bytes), Some(reply));
            let piece = bytes.slice(..cut.index(bytes.len()));
            let all: usize = Reply::decode(&piece).into_iter()
                .flat_map(|reply| reply.records).map(|record| record.body.len()).sum();
            prop_assert!(all <= piece.len());
        }

        #[test]
        fn anything_is_an_answer_or_none(bytes in vec(any::<u8>(), 0..200)) {
            Reply::decode(&bytes.into());
        }
    }

    #[test]
    fn damaged_answers_and_questions_are_read_or_refused() {
        let records = vec![record(1, Bytes::from_static(b"one")), record(2, Bytes::new())];
        let (token, name) = (Some(9), "n".to_owned());
        let reply = Reply { name, records, token, more: true, ..Reply::default() }.encode();
        damage::survive("answers of keepers", &[reply.to_vec()], 60_000, |bytes| {
            let found = Reply::decode(&Bytes::copy_from_slice(bytes));
            let bodies = found.iter().flat_map(|reply| &reply.records).map(|one| one.body.len());
            assert!(bodies.sum::<usize>() <= bytes.len());
            found.is_some()
        });
        let subject = "app.x".to_owned();
        let ask = Ask::Ack { subject: subject.clone(), reader: "r".into(), seq: 5 };
        let read = Ask::Read {
            subject,
            reader: "r".into(),
            from: Begin::New,
            after: Some(3),
            wait_ms: 500,
        };
        let samples = [ask, read, Ask::List].map(|ask| serde_json::to_vec(&ask).expect("JSON"));
        damage::survive("questions to keepers", &samples, 60_000, |bytes| {
            serde_json::from_slice::<Ask>(bytes).is_ok()
        });
    }
}
