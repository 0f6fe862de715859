//! Handing what was ordered here, and what became of it, to the controller.
//!
//! One part at a time, the oldest order first, again and again until the controller has it on disk.
//! An order that it refuses is tried again later, behind the others. Without a link nothing is
//! lost: it is all in the tables.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use mesh::{HostId, OrderId};
use protos::{RECORD_KIND, RECORD_LIMIT, Record, RecordReply, SignedRecord};
use tracing::{debug, warn};

use super::Desk;
use crate::clock::now_ms;
use crate::orders::blocking;
use crate::tables::given::Unhanded;

/// How long until the next try, at first and at most.
const PAUSES: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(60)];
/// How long news wait for others.
const GATHER: Duration = Duration::from_millis(500);
/// How often it is looked whether there is anything, without a word of it.
const LOOK: Duration = Duration::from_secs(300);
/// How long after the end of its validity the node has forgotten an order, in milliseconds.
const FORGOTTEN_MS: u64 = 120_000;
/// About how many bytes of answers are read at once.
const AT_ONCE: usize = RECORD_LIMIT / 2;

/// Hands over whatever comes, until the runtime ends.
pub(super) async fn run(desk: Desk) {
    let mut pause = PAUSES[0];
    loop {
        desk.close_expired().await;
        if !desk.node.links().iter().any(|link| link.is_parent) {
            pause = PAUSES[0];
            tokio::time::sleep(pause).await;
            continue;
        }
        let handed = desk.hand_all().await;
        pause = if handed { PAUSES[0] } else { (pause * 2).min(PAUSES[1]) };
        let wait = if handed { LOOK } else { pause };
        tokio::select! {
            // Answers that come together go together.
            () = desk.news.notified() => tokio::time::sleep(GATHER).await,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

impl Desk {
    /// Closes what the node has forgotten without a last word: it was not running at the time.
    async fn close_expired(&self) {
        let tables = self.tables.clone();
        let before_ms = now_ms().saturating_sub(FORGOTTEN_MS);
        let closed = blocking(move || Ok(tables.close_expired(before_ms)?)).await;
        if let Err(failure) = closed {
            warn!(error = %failure.error.message, "what has expired here is not closed");
        }
    }

    /// Hands over all that there is. `false`: something has still to be told.
    async fn hand_all(&self) -> bool {
        let mut refused = BTreeSet::new();
        loop {
            let (tables, but) = (self.tables.clone(), refused.clone());
            let next = blocking(move || Ok(tables.unhanded(AT_ONCE, &but)?)).await;
            let next = match next {
                Ok(Some(next)) => next,
                Ok(None) => return refused.is_empty(),
                Err(failure) => {
                    warn!(error = %failure.error.message, "what was ordered here is not told");
                    return false;
                }
            };
            match self.hand(&next).await {
                Handed::Yes => {}
                Handed::No => return false,
                Handed::Refused(why) => {
                    warn!(order = %next.id, %why, "the controller does not take what became of it");
                    refused.insert(next.id);
                    continue;
                }
            }
            let tables = self.tables.clone();
            if blocking(move || Ok(tables.note_handed(&next)?)).await.is_err() {
                return false;
            }
        }
    }

    async fn hand(&self, next: &Unhanded) -> Handed {
        for record in parts(next, self.credentials.identity().mesh.0, self.me()) {
            let body = record.encode();
            let signature = self.credentials.key().sign(RECORD_KIND, &body);
            match self.node.hand(&SignedRecord { body, signature }).await {
                Ok(RecordReply::Kept) => {}
                Ok(RecordReply::Refused(why)) => return Handed::Refused(why),
                Err(error) => {
                    debug!(error = %relay::chain(&error), "not handed to the controller");
                    return Handed::No;
                }
            }
        }
        Handed::Yes
    }
}

enum Handed {
    Yes,
    /// Nobody took it.
    No,
    Refused(String),
}

/// What is to be told, in parts that fit: the order, then bodies, then answers, and last whether it
/// is closed.
fn parts(next: &Unhanded, mesh: [u8; 16], relay: HostId) -> Vec<Record> {
    let empty = |order: OrderId| Record {
        mesh,
        relay,
        order,
        envelope: Bytes::new(),
        bodies: Vec::new(),
        reports: Vec::new(),
        closed_ms: 0,
    };
    let mut parts = vec![empty(next.id)];
    let mut room = RECORD_LIMIT;
    if let Some(envelope) = &next.envelope {
        parts[0].envelope = envelope.clone();
        room -= envelope.len();
    }
    let bodies = next.bodies.iter().map(|body| (true, body));
    let answers = next.answers.iter().map(|(_, frame)| (false, frame));
    for (is_body, bytes) in bodies.chain(answers) {
        // What a field costs beside its bytes.
        let cost = bytes.len() + 8;
        if cost > room {
            parts.push(empty(next.id));
            room = RECORD_LIMIT;
        }
        room = room.saturating_sub(cost);
        let part = parts.last_mut().expect("there is one at least");
        let list = if is_body { &mut part.bodies } else { &mut part.reports };
        list.push(bytes.clone());
    }
    let last = parts.last_mut().expect("there is one at least");
    last.closed_ms = next.closed_ms;
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_told_once_in_parts_that_fit_a_frame() {
        let body = |n: u8| Bytes::from(vec![n; 400_000]);
        let next = Unhanded {
            id: OrderId([1; 16]),
            envelope: Some(Bytes::from(vec![9; protos::DELEGATED_LIMIT])),
            answers: vec![(3, Bytes::from(vec![7; 300_000])), (4, Bytes::from(vec![8; 500_000]))],
            bodies: (0..5).map(body).collect(),
            closed_ms: 99,
        };
        let parts = parts(&next, [1; 16], HostId(7));
        assert!(parts[0].envelope == next.envelope.clone().expect("it is there"));
        assert!(parts[1..].iter().all(|part| part.envelope.is_empty()));
        let bodies: Vec<_> = parts.iter().flat_map(|part| part.bodies.clone()).collect();
        assert_eq!(bodies, next.bodies);
        let reports: Vec<_> = parts.iter().flat_map(|part| part.reports.clone()).collect();
        assert_eq!(reports.len(), 2);
        let closed: Vec<_> = parts.iter().map(|part| part.closed_ms).collect();
        assert_eq!(closed.iter().filter(|ms| **ms > 0).count(), 1);
        assert_eq!(closed.last(), Some(&99));
        for part in parts {
            let signed = SignedRecord { body: part.encode(), signature: [0; 64] };
            assert!(signed.encode().len() <= protos::FRAME_LIMIT);
        }
    }
}
