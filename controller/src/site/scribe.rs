//! The writer of a relay's commits: answers to orders of its operators, beside the node's records.

use std::sync::Arc;

use mesh::Event;
use redb::WriteTransaction;
use relay::{JournalError, Witness};
use tokio::sync::Notify;

use crate::clock::now_ms;
use crate::live::{Live, Update};
use crate::tables;

/// Writes, and tells those who watch.
pub(super) struct Scribe {
    pub(super) live: Live,
    pub(super) news: Arc<Notify>,
}

impl Witness for Scribe {
    fn see(&mut self, _: &Event) {}

    /// A relay's node tells these of orders that were given at it, and of no others.
    fn keeps(&self, event: &Event) -> bool {
        matches!(event, Event::Answers(_) | Event::Closed(_))
    }

    fn note(&mut self, txn: &WriteTransaction, event: &Event) -> Result<(), JournalError> {
        match event {
            Event::Answers(report) => tables::note_answers(txn, report),
            Event::Closed(id) => tables::note_closed(txn, *id, now_ms()),
            _ => Ok(()),
        }
    }

    fn committed(&mut self, events: &mut dyn Iterator<Item = Event>) {
        for event in events {
            match event {
                Event::Answers(report) => self.live.tell(Update::Answers(Arc::new(report))),
                Event::Closed(id) => self.live.tell(Update::Closed(id)),
                _ => continue,
            }
            self.news.notify_one();
        }
    }
}
