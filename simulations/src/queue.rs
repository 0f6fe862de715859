//! What will happen when: a heap of events by virtual time, first come first served within one.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::Duration;

use mesh::bus::Answer;
use mesh::{Digest, LinkId, OrderId, RequestId};

use crate::fan::Fetch;
use crate::net::{Item, Side};
use crate::viewers::Word;

/// Something that will happen. What belongs to one process names its life, so that it passes
/// without effect when the process is dead by then.
pub(crate) enum Event {
    /// A node's own deadline.
    Wake { node: usize, life: u64 },
    /// Something comes out of a link's end.
    Arrive { link: LinkId, to: Side, item: Item },
    /// A record reaches the disk.
    Durable { node: usize, life: u64, through: u64 },
    /// A dialled parent answers, or not.
    Dialled { node: usize, life: u64, place: usize, parent: usize },
    /// Dialling has failed.
    DialFailed { node: usize, life: u64, place: usize },
    /// Content was in the local store.
    Found { node: usize, life: u64, content: Digest },
    /// A command is half done and wants more content.
    Midway { node: usize, life: u64, order: OrderId, request: RequestId },
    /// A command ends.
    Ended { node: usize, life: u64, order: OrderId },
    /// The operator gives an order of the plan, or gives it again as it was not confirmed.
    Submit { work: usize },
    /// The operator looks at a rollout of the plan.
    Roll { no: usize },
    /// A fault of the plan.
    Fault { index: usize },
    /// The backup is made from which a fault of the plan will bring the root back.
    Backup { index: usize },
    /// A process dies in a bad moment.
    Trip { node: usize, life: u64, down: Duration },
    /// A link breaks in a bad moment.
    Snap { link: LinkId },
    /// Viewers come and go.
    Visit,
    /// A command says something that is watched.
    Speak { node: usize, life: u64, said: Word },
    /// A host looks how far it has come with a sibling.
    Fetch(Fetch),
    /// A program answers a message of the bus.
    Reply { node: usize, life: u64, answer: Answer },
    /// The operator sets when a frequency is due.
    Edict { no: usize },
    /// A relay, or the root, looks at its schedule.
    Look { node: usize, life: u64 },
    /// Children that have not spoken are not waited for any more.
    Silent { node: usize, life: u64, no: u64 },
    /// A host has put something right.
    Righted { node: usize, life: u64 },
    /// A host notices something.
    Notice { node: usize },
    /// A full disk may have room again.
    Room { node: usize },
    /// A partition ends.
    Heal { from: usize, to: usize },
    /// A dead process starts again.
    Restart { node: usize },
}

struct Due {
    at: Duration,
    no: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Due) -> Ordering {
        (self.at, self.no).cmp(&(other.at, other.no))
    }
}

/// The events to come.
#[derive(Default)]
pub(crate) struct Queue {
    heap: BinaryHeap<Reverse<Due>>,
    pushed: u64,
}

impl Queue {
    pub(crate) fn push(&mut self, at: Duration, event: Event) {
        self.pushed += 1;
        self.heap.push(Reverse(Due { at, no: self.pushed, event }));
    }

    /// The next event, if it is due by `until`.
    pub(crate) fn pop(&mut self, until: Duration) -> Option<(Duration, Event)> {
        if self.heap.peek()?.0.at > until {
            return None;
        }
        self.heap.pop().map(|Reverse(due)| (due.at, due.event))
    }
}
