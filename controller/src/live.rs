//! What is going on right now: who is reachable, what has just been answered.
//!
//! The core's events pass through here twice: first into the node's commit, then, once that is
//! durable, to those who watch. Watchers read from a bounded broadcast; one who is too slow is told
//! that it has missed something and asks again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mesh::{Event, HostId, HostSet, OrderId, Report, Stop};
use redb::WriteTransaction;
use relay::{JournalError, Witness};
use tokio::sync::{Notify, broadcast, watch};

use crate::clock::now_ms;
use crate::outcomes;
use crate::tables::facts::{AllFacts, note_facts};
use crate::tables::restored::{Origin, note_unheard};
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
    /// Moves when there are more events.
    pub(crate) events: watch::Sender<u64>,
    /// Told when hosts were noted that wait in vain for a release.
    pub(crate) stopped: Arc<Notify>,
    /// Told when the tree has changed.
    pub(crate) changed: Arc<Notify>,
    state: Arc<Mutex<State>>,
}

/// The picture of the fleet that the API shows.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) up: HostSet,
    pub(crate) degraded: HostSet,
    /// Of those who are not up, who has fallen silent.
    pub(crate) silent: HostSet,
    /// The own children of each node that has any.
    pub(crate) branches: BTreeMap<HostId, HostSet>,
    pub(crate) hosts: Hosts,
    /// The labels of those that have some.
    pub(crate) labels: Arc<BTreeMap<HostId, Labels>>,
    /// What hosts say of themselves.
    pub(crate) facts: Arc<AllFacts>,
    /// From what this controller was restored, if it was.
    pub(crate) origin: Origin,
    /// The subtrees of the controller's own children.
    pub(crate) below: BTreeMap<HostId, HostSet>,
    /// Of runs that are open and let hosts begin a few at a time: who may.
    pub(crate) released: BTreeMap<OrderId, HostSet>,
}

/// The inventory.
type Hosts = Arc<BTreeMap<HostId, HostRow>>;

impl State {
    /// What it takes to describe orders.
    pub(crate) fn known(&self) -> (Hosts, BTreeMap<OrderId, HostSet>) {
        (self.hosts.clone(), self.released.clone())
    }
}

impl Live {
    pub(crate) fn new() -> Live {
        let (updates, events) = (broadcast::channel(BACKLOG).0, watch::channel(0).0);
        let (stopped, changed, state) = Default::default();
        Live { updates, events, stopped, changed, state }
    }

    pub(crate) fn watch(&self) -> broadcast::Receiver<Update> {
        self.updates.subscribe()
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something that watchers want to know is in the tables.
    pub(crate) fn tell(&self, update: Update) {
        // Nobody watching is no error.
        self.updates.send(update).ok();
    }

    /// The writer of the node's commits.
    pub(crate) fn witness(&self) -> Box<dyn Witness> {
        Box::new(Scribe { live: self.clone(), facts: AllFacts::new() })
    }
}

struct Scribe {
    live: Live,
    /// What is news in the commit that is being written.
    facts: AllFacts,
}

impl Witness for Scribe {
    fn see(&mut self, event: &Event) {
        match event {
            Event::Reachable(tree) => {
                let mut state = self.live.state();
                state.up = tree.up.clone();
                state.degraded = tree.degraded.clone();
                state.silent = tree.silent.clone();
                state.branches = tree.branches.clone();
                self.live.changed.notify_one();
            }
            Event::Released { order, hosts } => {
                let mut state = self.live.state();
                let released = state.released.entry(*order).or_default();
                *released = released.union(hosts);
            }
            Event::Below { child, below } => {
                self.live.state().below.insert(*child, below.clone());
                self.live.changed.notify_one();
            }
            _ => {}
        }
    }

    fn keeps(&self, event: &Event) -> bool {
        let restored = || self.live.state().origin.epoch > 0;
        matches!(event, Event::Unheard(_)) && restored()
            || matches!(
                event,
                Event::Answers(_)
                    | Event::Closed(_)
                    | Event::Stopped { .. }
                    | Event::Happened(_)
                    | Event::Profiles(_)
            )
    }

    fn note(&mut self, txn: &WriteTransaction, event: &Event) -> Result<(), JournalError> {
        match event {
            Event::Answers(report) => {
                tables::note_answers(txn, report)?;
                let hosts = self.live.state().hosts.clone();
                outcomes::note(txn, report, &hosts, now_ms())
            }
            Event::Unheard(report) => {
                let origin = self.live.state().origin;
                note_unheard(txn, report, origin, now_ms())
            }
            Event::Closed(id) => {
                tables::note_closed(txn, *id, now_ms())?;
                outcomes::note_closed(txn, *id, now_ms())
            }
            Event::Happened(events) => tables::events::note_events(txn, events, None, now_ms()),
            Event::Profiles(lines) => {
                let enrolled = self.live.state().hosts.keys().copied().collect();
                self.facts.extend(note_facts(txn, lines, &enrolled, now_ms())?);
                Ok(())
            }
            Event::Stopped { order, hosts, why } => {
                let why = match why {
                    Stop::Done => None,
                    Stop::Errors => Some("errors"),
                    Stop::Missed => Some("missed"),
                    Stop::Late => Some("deadline"),
                };
                tables::note_stopped(txn, *order, hosts, why)
            }
            _ => Ok(()),
        }
    }

    fn committed(&mut self, events: &mut dyn Iterator<Item = Event>) {
        if !self.facts.is_empty() {
            let news = std::mem::take(&mut self.facts);
            Arc::make_mut(&mut self.live.state().facts).extend(news);
        }
        let mut grown = false;
        for event in events {
            grown |= !matches!(event, Event::Stopped { .. } | Event::Profiles(_));
            let update = match event {
                Event::Answers(report) => Update::Answers(Arc::new(report)),
                Event::Closed(id) => {
                    self.live.state().released.remove(&id);
                    Update::Closed(id)
                }
                Event::Stopped { .. } => {
                    self.live.stopped.notify_one();
                    continue;
                }
                _ => continue,
            };
            // Nobody watching is no error.
            self.live.updates.send(update).ok();
        }
        if grown {
            self.live.events.send_modify(|no| *no += 1);
        }
    }
}
