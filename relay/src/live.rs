//! Telling what a command writes while it runs, to those who watch.
//!
//! Nobody watches most commands, and then nothing happens here. Whoever begins to watch gets the
//! output from its first byte that is kept, a piece of each stream at a time. What an answer does
//! not keep goes on more slowly: of a command that writes faster than that its last lines are told,
//! and what lies between is left out, which the numbers of the bytes show.
//!
//! Previews that are on their way through this node, its own and those of its children, share a
//! fixed number of places ([`Room`]): one that finds none waits where it is. A child sends no more
//! of them than its parent has room for ([`Credit`]). So a slow link slows the previews down, back
//! to their hosts, and they neither pile up nor are lost. Answers do not come this way.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use mesh::{HostId, Input, OrderId, SAID_BYTES, Said, Stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep};

use crate::capture::{Output, Piece};
use crate::drive::Arrival;

/// Previews that may be on their way through a node at once, of at most 16 KiB each.
pub(crate) const PLACES: usize = 64;
/// Previews that a host, or a relay, may send before its parent has taken the first of them. A
/// parent has many children; those of a relay speak for many hosts over a long way.
const CREDIT: [usize; 2] = [4, PLACES];
/// How often a command that is watched is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How often it is once no answer will have what it writes: 32 KiB a second are told then.
const LOOK_BEYOND: Duration = Duration::from_millis(500);

/// The orders that are watched, each with its generation.
pub(crate) type Watched = BTreeMap<OrderId, u64>;

/// A place of a preview, from when it is read until it is written to the parent's stream.
pub(crate) type Place = OwnedSemaphorePermit;

/// The places of a node's previews.
#[derive(Clone)]
pub(crate) struct Room(Arc<Semaphore>);

impl Room {
    pub(crate) fn new() -> Room {
        Room(Arc::new(Semaphore::new(PLACES)))
    }

    /// Waits for a place; whoever came first gets it first.
    pub(crate) async fn place(&self) -> Place {
        self.0.clone().acquire_owned().await.expect("it is never closed")
    }
}

/// How many previews the parent has room for, as this side of a link knows it.
#[derive(Clone)]
pub(crate) struct Credit(Arc<Semaphore>);

impl Credit {
    /// `serves`: whether this node speaks for others as well.
    pub(crate) fn new(serves: bool) -> Credit {
        Credit(Arc::new(Semaphore::new(CREDIT[usize::from(serves)])))
    }

    /// Takes room for one preview, if there is some.
    pub(crate) fn try_spend(&self) -> bool {
        self.0.try_acquire().map(|one| one.forget()).is_ok()
    }

    /// Waits for room for one preview.
    pub(crate) async fn spend(&self) {
        self.0.acquire().await.expect("it is never closed").forget();
    }

    /// The parent has taken a preview. One that says so too often gains nothing.
    pub(crate) fn earn(&self) {
        if self.0.available_permits() < PLACES {
            self.0.add_permits(1);
        }
    }
}

/// What telling needs.
#[derive(Clone)]
pub(crate) struct Teller {
    pub(crate) host: HostId,
    pub(crate) watched: watch::Receiver<Watched>,
    pub(crate) room: Room,
    pub(crate) inbox: mpsc::Sender<Arrival>,
}

impl Teller {
    /// Tells what is written whenever somebody watches. Whoever runs the command drops this when
    /// it ends: the answer has the rest.
    pub(crate) async fn tell(&self, order: OrderId, outputs: [(Stream, Output); 2]) -> Infallible {
        let mut watched = self.watched.clone();
        loop {
            let begun = watched.wait_for(|orders| orders.contains_key(&order)).await;
            // The sender is gone when the node stops, and this task with it.
            let Ok(generation) = begun.map(|orders| orders.get(&order).copied()) else {
                return std::future::pending().await;
            };
            let mut told = [(0, Instant::now()); 2];
            while self.watched.borrow().get(&order).copied() == generation {
                for ((stream, output), (told, next)) in outputs.iter().zip(&mut told) {
                    if *next <= Instant::now() {
                        let beyond = self.tell_piece(order, *stream, output, told).await;
                        *next = Instant::now() + if beyond { LOOK_BEYOND } else { LOOK };
                    }
                }
                sleep(LOOK).await;
            }
        }
    }

    /// Tells what comes next in a stream. Returns whether it is something that no answer will have.
    async fn tell_piece(
        &self,
        order: OrderId,
        stream: Stream,
        output: &Output,
        told: &mut u64,
    ) -> bool {
        if output.piece(*told, 1).bytes.is_empty() {
            return false;
        }
        // What is told is what there is when there is room for it.
        let place = self.room.place().await;
        let Piece { offset, bytes, is_tail } = output.piece(*told, SAID_BYTES);
        *told = offset + bytes.len() as u64;
        if !bytes.is_empty() {
            let said = Said { order, host: self.host, stream, offset, bytes };
            self.inbox.send(Arrival::Preview { input: Input::Said(said), place }).await.ok();
        }
        is_tail
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn credit_is_spent_and_earned_and_has_a_limit() {
        let credit = Credit::new(false);
        let spend_all = || (0..).take_while(|_| credit.try_spend()).count();
        assert_eq!(spend_all(), 4);
        let waiting = tokio::spawn({
            let credit = credit.clone();
            async move { credit.spend().await }
        });
        credit.earn();
        waiting.await.expect("it does not panic");
        (0..1_000).for_each(|_| credit.earn());
        assert_eq!(spend_all(), PLACES);
    }
}
