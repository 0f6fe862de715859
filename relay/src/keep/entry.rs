//! A message as it is kept: a row of the store.
//!
//! The length of a head in JSON, the head, and the body as it came.

use bytes::Bytes;
use mesh::bus::Message;
use serde::{Deserialize, Serialize};

/// A message as it is kept; or, without a subject, the word that some are missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) subject: String,
    pub(super) from: u32,
    pub(super) node: String,
    pub(super) at_ms: u64,
    pub(super) missed: u64,
    pub(super) body: Bytes,
}

#[derive(Serialize, Deserialize)]
struct Head {
    subject: String,
    from: u32,
    node: String,
    at_ms: u64,
    up_ms: u64,
    #[serde(default)]
    missed: u64,
}

impl Entry {
    pub(super) fn of(message: &Message, at_ms: u64) -> Entry {
        let (subject, from) = (message.subject.as_str().into(), message.from.0);
        let (node, body) = (message.node.clone(), message.body.clone());
        Entry { subject, from, node, at_ms, missed: 0, body }
    }

    /// So many messages did not come here.
    pub(super) fn gap(missed: u64, at_ms: u64) -> Entry {
        let (subject, node, body) = (String::new(), String::new(), Bytes::new());
        Entry { subject, from: 0, node, at_ms, missed, body }
    }

    pub(super) fn encode(&self, up_ms: u64) -> Vec<u8> {
        let (subject, node) = (self.subject.clone(), self.node.clone());
        let (from, at_ms, missed) = (self.from, self.at_ms, self.missed);
        let head = serde_json::to_vec(&Head { subject, from, node, at_ms, up_ms, missed });
        let head = head.expect("plain data is valid JSON");
        let len = u32::try_from(head.len()).expect("names are short");
        [&len.to_be_bytes()[..], &head, &self.body].concat()
    }

    /// None: it is no entry.
    pub(super) fn decode(row: &[u8]) -> Option<(Entry, u64)> {
        let (len, rest) = row.split_first_chunk::<4>()?;
        let (head, body) = rest.split_at_checked(u32::from_be_bytes(*len) as usize)?;
        let Head { subject, from, node, at_ms, up_ms, missed } =
            serde_json::from_slice(head).ok()?;
        let body = Bytes::copy_from_slice(body);
        Some((Entry { subject, from, node, at_ms, missed, body }, up_ms))
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_and_whatever_is_there_may_be_none(
            body in vec(any::<u8>(), 0..99),
            cut in any::<proptest::sample::Index>(),
            noise in vec(any::<u8>(), 0..99),
        ) {
            let (subject, node, body) = ("a.x".to_owned(), "web1".to_owned(), body.into());
            let entry = Entry { subject, from: 7, node, at_ms: 5, missed: 0, body };
            let row = entry.encode(9);
            prop_assert_eq!(Entry::decode(&row), Some((entry.clone(), 9)));
            let piece = Entry::decode(&row[..cut.index(row.len())]);
            prop_assert!(piece.is_none_or(|(piece, _)| piece.body.len() < entry.body.len()));
            Entry::decode(&noise);
        }
    }

    #[test]
    fn damaged_rows_are_entries_or_none() {
        let (subject, node, body) = ("a.x".to_owned(), "web1".to_owned(), "a body".into());
        let entry = Entry { subject, from: 7, node, at_ms: 5, missed: 0, body };
        damage::survive("kept messages", &[entry.encode(9)], 60_000, |row| {
            let found = Entry::decode(row);
            assert!(found.as_ref().is_none_or(|(entry, _)| entry.body.len() < row.len()));
            found.is_some()
        });
    }
}
