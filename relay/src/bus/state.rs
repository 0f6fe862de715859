//! Who listens at a node, who waits for answers, and which requests have come to whom.
//!
//! Each has limits, for the node as a whole and for a user of the machine, so that one leaves room
//! for the others.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use mesh::HostId;
use mesh::bus::{Answer, Message, Pattern, Subject, is_reserved};
use tokio::sync::mpsc;

use super::patience::{Patience, Room};
use super::weights::{ENTRY, Waits, Weights};
use super::{BusError, QUEUE};

/// Subscribers of one node.
pub(super) const SUBSCRIBERS: usize = 4_096;
/// Patterns of all subscribers of one node: each message is compared with all of them. And of those
/// of one user.
pub(super) const OF_ALL: usize = 4_096;
pub(super) const OF_USER: usize = 1_024;
/// Requests that programs here have got and may answer; of more the oldest are forgotten.
pub(super) const ANSWERABLE: usize = 4_096;

#[derive(Default)]
pub(super) struct State {
    pub(super) next: u64,
    subscribers: BTreeMap<u64, Subscriber>,
    /// Who wants the subject that was looked up last; none: that may have changed.
    last: Option<(Subject, Vec<u64>)>,
    pub(super) requests: BTreeMap<u64, Waiting>,
    pub(super) answerable: Answerable,
}

impl State {
    /// One more who listens.
    pub(super) fn enter(&mut self, id: u64, one: Subscriber) {
        self.last = None;
        self.subscribers.insert(id, one);
    }

    /// Whoever leaves.
    pub(super) fn leave(&mut self, id: u64) {
        self.last = None;
        self.subscribers.remove(&id);
    }

    /// All who listen to anything.
    pub(super) fn all(&self) -> impl ExactSizeIterator<Item = &Subscriber> {
        self.subscribers.values()
    }

    /// Those whom a message is for. It is looked up twice, before a message is taken and when it
    /// is delivered, and many on one subject come in a row.
    pub(super) fn wanting(&mut self, subject: &Subject) -> impl Iterator<Item = &Subscriber> {
        if self.last.as_ref().is_none_or(|(last, _)| last != subject) {
            let these = self.subscribers.iter().filter(|(_, one)| one.wants(subject));
            self.last = Some((subject.clone(), these.map(|(id, _)| *id).collect()));
        }
        let these = self.last.iter().flat_map(|(_, these)| these);
        these.filter_map(|id| self.subscribers.get(id))
    }

    /// Whether there is room for one more subscriber with so many patterns.
    pub(super) fn admit(&self, owner: Owner, patterns: usize) -> Result<(), BusError> {
        let known = |whose: &dyn Fn(Owner) -> bool| -> usize {
            let these = self.subscribers.values().filter(|one| whose(one.owner));
            these.map(|one| one.patterns.len()).sum()
        };
        if let Owner::User(user) = owner
            && known(&|other| other == owner) + patterns > OF_USER
        {
            return Err(BusError::Share { user });
        }
        if self.subscribers.len() >= SUBSCRIBERS {
            return Err(BusError::Full { what: "subscribers", most: SUBSCRIBERS });
        }
        if known(&|_| true) + patterns > OF_ALL {
            return Err(BusError::Full { what: "patterns", most: OF_ALL });
        }
        Ok(())
    }
}

/// Requests that have come to programs here, the youngest last.
#[derive(Default)]
pub(super) struct Answerable {
    pub(super) known: BTreeSet<(HostId, u64)>,
    pub(super) row: VecDeque<(HostId, u64)>,
}

impl Answerable {
    pub(super) fn note(&mut self, request: (HostId, u64)) {
        if self.known.insert(request) {
            self.row.push_back(request);
        }
        while self.row.len() > ANSWERABLE {
            self.row.pop_front().map(|oldest| self.known.remove(&oldest));
        }
    }
}

/// Whose a subscription is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// The node itself, which alone hears what is its own.
    Node,
    /// The node's own user, or root.
    Own,
    /// Another user, who has a share.
    User(u32),
}

pub(super) struct Subscriber {
    pub(super) owner: Owner,
    pub(super) patterns: Vec<Pattern>,
    pub(super) queue: mpsc::Sender<Waits<Message>>,
    pub(super) waiting: Weights,
    pub(super) patience: Patience,
    pub(super) missed: Arc<AtomicU64>,
}

impl Subscriber {
    /// Whether a message is for him.
    fn wants(&self, subject: &Subject) -> bool {
        (self.owner == Owner::Node || !is_reserved(subject.as_str()))
            && self.patterns.iter().any(|pattern| pattern.matches(subject))
    }

    /// The room that he has for so many bytes.
    pub(super) fn room(&self, bytes: usize) -> Room {
        let places = match self.queue.capacity() {
            0 => Room::None,
            free if free < QUEUE / 2 => Room::Some,
            _ => Room::Half,
        };
        places.min(self.waiting.room(bytes + ENTRY))
    }
}

/// A request that waits for answers.
#[derive(Clone)]
pub(super) struct Waiting {
    pub(super) queue: mpsc::Sender<Waits<Answer>>,
    pub(super) waiting: Weights,
}
