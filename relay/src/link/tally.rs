//! What of the bus has crossed one link, as both ends count it.
//!
//! A writer counts what it hands to the connection before it does, and the drive loop what it has
//! taken. Once the link is sealed both stand still: what comes later is not taken, and is not lost
//! without a word either, since the other end counts it as sent.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mesh::HostId;
use protos::Taken;
use quinn::Connection;

/// Set in the number of messages sent once the link is sealed.
const SEALED: u64 = 1 << 63;

/// The counts of one link.
#[derive(Default)]
pub(crate) struct Tally {
    /// What both ends call this link; 0: it has no name.
    name: u64,
    /// Handed to the connection, and of these what it has taken whole.
    sent: AtomicU64,
    written: AtomicU64,
    /// What of these the peer has said that it has.
    arrived: AtomicU64,
    /// What came from the peer.
    taken: AtomicU64,
    /// Whether the peer says what it has taken.
    counts: AtomicBool,
    /// What a hello on this link says of links with this peer that are over.
    past: OnceLock<Vec<Taken>>,
}

/// The counts of a link that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    /// Who was at the other end.
    pub(crate) peer: HostId,
    /// What both call the link.
    pub(crate) name: u64,
    /// Handed to the connection.
    pub(crate) sent: u64,
    /// What of it the peer has said that it has.
    pub(crate) arrived: u64,
    /// What has come from the peer.
    pub(crate) taken: u64,
}

/// A link was sealed.
pub(crate) enum Sealed {
    /// The peer counts too.
    Account(Account),
    /// It is too old for that. So many were in a write that has not ended.
    Unfinished(u64),
}

impl Tally {
    /// Named by the secrets of the connection, which nobody else has.
    pub(crate) fn of(conn: &Connection) -> Tally {
        let mut name = [0; 8];
        let made = conn.export_keying_material(&mut name, b"barid link", b"");
        let name = made.map_or(0, |()| u64::from_le_bytes(name));
        Tally { name, ..Tally::default() }
    }

    /// One that is called so, of a peer that counts.
    #[cfg(test)]
    pub(crate) fn named(name: u64) -> Tally {
        let tally = Tally { name, ..Tally::default() };
        tally.meet(true);
        tally
    }

    /// So many are about to be handed to the connection. `false`: the link is sealed, and they are
    /// not to be.
    pub(crate) fn begin(&self, count: u64) -> bool {
        let add = |sent| (sent & SEALED == 0).then_some(sent + count);
        self.sent.fetch_update(Ordering::AcqRel, Ordering::Acquire, add).is_ok()
    }

    /// The connection has taken so many whole.
    pub(super) fn end(&self, count: u64) {
        self.written.fetch_add(count, Ordering::AcqRel);
    }

    /// A message has come. `false`: the link is sealed, and it is not to be taken.
    pub(crate) fn take(&self) -> bool {
        let is_open = self.sent.load(Ordering::Acquire) & SEALED == 0;
        self.taken.fetch_add(u64::from(is_open), Ordering::AcqRel);
        is_open
    }

    /// How many have come.
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Acquire)
    }

    /// The peer says how many it has taken; 0: it does not.
    pub(super) fn hear(&self, taken: u64) {
        self.arrived.fetch_max(taken, Ordering::AcqRel);
    }

    /// The peer says whether it counts.
    pub(super) fn meet(&self, counts: bool) {
        self.counts.store(counts, Ordering::Release);
    }

    /// What a hello on this link is to say. Only the first word counts.
    pub(crate) fn tell(&self, past: Vec<Taken>) {
        self.past.set(past).ok();
    }

    /// What it says.
    pub(super) fn past(&self) -> &[Taken] {
        self.past.get().map_or(&[], Vec::as_slice)
    }

    /// Nothing is sent or taken any more. `None`: it was sealed already.
    pub(crate) fn seal(&self, peer: HostId) -> Option<Sealed> {
        let sent = self.sent.fetch_or(SEALED, Ordering::AcqRel);
        if sent & SEALED != 0 {
            return None;
        }
        let arrived = self.arrived.load(Ordering::Acquire).min(sent);
        Some(match self.counts.load(Ordering::Acquire) && self.name != 0 {
            true => {
                let (name, taken) = (self.name, self.taken());
                Sealed::Account(Account { peer, name, sent, arrived, taken })
            }
            false => Sealed::Unfinished(sent - self.written.load(Ordering::Acquire).min(sent)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_after_the_end_counts_at_neither_end() {
        let tally = Tally::named(5);
        assert!(tally.begin(3) && tally.begin(4) && tally.take());
        tally.end(3);
        tally.hear(2);
        tally.hear(0);
        let Some(Sealed::Account(account)) = tally.seal(HostId(9)) else { panic!("it counts") };
        let peer = HostId(9);
        assert_eq!(account, Account { peer, name: 5, sent: 7, arrived: 2, taken: 1 });
        assert!(!tally.begin(1) && !tally.take() && tally.seal(HostId(9)).is_none());
        assert_eq!(tally.taken(), 1);
    }

    #[test]
    fn of_a_peer_that_does_not_count_what_was_being_written_is_lost() {
        let tally = Tally::named(5);
        tally.meet(false);
        assert!(tally.begin(3) && tally.begin(4));
        tally.end(3);
        assert!(matches!(tally.seal(HostId(9)), Some(Sealed::Unfinished(4))));
    }
}
