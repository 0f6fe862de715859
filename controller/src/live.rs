//! What is going on right now: who is reachable, what has just been answered.
//!
//! The core's events pass through here twice: first into the node's commit, then, once that is
//! durable, to those who watch. Watchers read from a bounded broadcast; one who is too slow is told
//! that it has missed something and asks again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mesh::{Event, HostId, HostSet, OrderId, Report};
use redb::WriteTransaction;
use relay::{JournalError, Witness};
use tokio::sync::broadcast;

use crate::clock::now_ms;
use crate::tables::{self, HostRow, Labels};

/// How many updates a watcher may lie behind.
const BACKLOG: usize = 4_096;

/// Something that watchers of an order want to know.
#[derive(Clone, Debug)]
pub(crate) enum Update {
    Answers(Arc<Report>),
    Closed(OrderId),
}

impl Update {
    pub(crate) fn order(&self) -> OrderId {
        match self {
            Update::Answers(report) => report.order,
            Update::Closed(id) => *id,
        }
    }
}

/// Shared by the witness, who writes it, and the API, which reads it.
#[derive(Clone)]
pub(crate) struct Live {
    updates: broadcast::Sender<Update>,
    state: Arc<Mutex<State>>,
}

/// The picture of the fleet that the API shows.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) up: HostSet,
    pub(crate) hosts: Arc<BTreeMap<HostId, HostRow>>,
    /// The labels of those that have some.
    pub(crate) labels: Arc<BTreeMap<HostId, Labels>>,
    /// The subtrees of the controller's own children.
    pub(crate) below: BTreeMap<HostId, HostSet>,
}

impl Live {
    pub(crate) fn new() -> Live {
        Live { updates: broadcast::channel(BACKLOG).0, state: Arc::default() }
    }

    pub(crate) fn watch(&self) -> broadcast::Receiver<Update> {
        self.updates.subscribe()
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The writer of the node's commits.
    pub(crate) fn witness(&self) -> Box<dyn Witness> {
        Box::new(Scribe { live: self.clone(), pending: Vec::new() })
    }
}

struct Scribe {
    live: Live,
    pending: Vec<Update>,
}

impl Witness for Scribe {
    fn note(&mut self, txn: &WriteTransaction, event: &Event) -> Result<(), JournalError> {
        match event {
            Event::Answers(report) => {
                tables::note_answers(txn, report)?;
                self.pending.push(Update::Answers(Arc::new(report.clone())));
            }
            Event::Closed(id) => {
                tables::note_closed(txn, *id, now_ms())?;
                self.pending.push(Update::Closed(*id));
            }
            Event::Reachable { up, .. } => self.live.state().up = up.clone(),
            Event::Below { child, below } => {
                self.live.state().below.insert(*child, below.clone());
            }
            _ => {}
        }
        Ok(())
    }

    fn committed(&mut self) {
        for update in self.pending.drain(..) {
            // Nobody watching is no error.
            self.live.updates.send(update).ok();
        }
    }
}
