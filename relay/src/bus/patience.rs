//! Whether a program that publishes waits, instead of losing what it says.
//!
//! Who publishes as fast as he can is soon faster than those who read. So he is answered once
//! somebody who wants his message has room for it: he goes at the pace of the fastest of them, and
//! what the others cannot take is dropped for them, and counted. Whose queue was full is waited for
//! until half of it is free, for a second at most; after that nobody waits for him until it is. So
//! one who reads nothing costs a program a second, once, and only if nobody else listens.
//!
//! What comes by links never waits: the tree is not held up by anybody.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// For how long a queue that is full is waited for.
const LONG: Duration = Duration::from_secs(1);
/// How long a program waits for all of them together, and until it tries again.
pub(super) const LONGEST: Duration = Duration::from_secs(2);
pub(super) const FIRST: Duration = Duration::from_millis(1);
pub(super) const NEXT: Duration = Duration::from_millis(20);

/// How much room a queue has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Room {
    /// Not for this message.
    None,
    /// For this one.
    Some,
    /// Half of it is free.
    Half,
}

/// The queue of one who wants messages: since when it was full, and not half free since.
#[derive(Default)]
pub(crate) struct Patience(Mutex<Option<Instant>>);

/// What is to be expected of those who want a message.
#[derive(Debug)]
pub(crate) struct Prospect {
    now: Instant,
    bytes: usize,
    has_room: bool,
    is_awaited: bool,
}

impl Prospect {
    /// Of a message with so long a body.
    pub(crate) fn new(bytes: usize) -> Prospect {
        Prospect { now: Instant::now(), bytes, has_room: false, is_awaited: false }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether somebody who wants it has room.
    #[cfg(test)]
    pub(super) fn has_room(&self) -> bool {
        self.has_room
    }

    /// One who wants it, and the room that he has.
    pub(crate) fn note(&mut self, patience: &Patience, room: Room) {
        let mut since = patience.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (*since, room) {
            (_, Room::Half) => *since = None,
            (None, Room::None) => *since = Some(self.now),
            _ => {}
        }
        match *since {
            None => self.has_room = true,
            Some(since) => self.is_awaited |= self.now < since + LONG,
        }
    }

    /// Whether the message is to wait.
    pub(crate) fn is_awaited(&self) -> bool {
        self.is_awaited && !self.has_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(these: &[(&Patience, Room)]) -> bool {
        let mut prospect = Prospect::new(1);
        these.iter().for_each(|(patience, room)| prospect.note(patience, *room));
        prospect.is_awaited()
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_is_waited_for_until_half_of_it_is_free_and_not_for_long() {
        let one = Patience::default();
        assert!(!waits(&[]) && !waits(&[(&one, Room::Some)]), "it was never full");
        assert!(waits(&[(&one, Room::None)]));
        assert!(waits(&[(&one, Room::Some)]), "until it is worth the while");
        assert!(!waits(&[(&one, Room::Half)]) && !waits(&[(&one, Room::Some)]));
        assert!(waits(&[(&one, Room::None)]));
        tokio::time::advance(LONG).await;
        assert!(!waits(&[(&one, Room::None)]) && !waits(&[(&one, Room::Some)]), "no longer");
        assert!(!waits(&[(&one, Room::Half)]));
        assert!(waits(&[(&one, Room::None)]), "it has read, and so it is waited for again");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_one_while_another_has_room() {
        let (full, other) = (Patience::default(), Patience::default());
        assert!(!waits(&[(&full, Room::None), (&other, Room::Some)]));
        assert!(waits(&[(&full, Room::None), (&other, Room::None)]));
        assert!(!waits(&[(&full, Room::None), (&other, Room::Half)]));
        tokio::time::advance(LONG).await;
        // Of one who reads nothing it is no matter any more.
        assert!(waits(&[(&full, Room::None), (&other, Room::None)]), "for the one who reads");
        assert!(!waits(&[(&full, Room::None), (&other, Room::Half)]));
    }
}
