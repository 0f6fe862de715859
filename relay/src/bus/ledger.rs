//! What of the bus was lost on links that are over.
//!
//! What a connection has taken may have arrived or not when it breaks. Each end counts what it has
//! sent and what it has taken, and when the two meet again each tells the other what came by their
//! links that are over: the difference is lost, exactly. If they do not meet again in time, or the
//! other has started anew and knows nothing of it, what it had not said that it has may be lost.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use mesh::{HostId, Time};
use protos::{PAST, Taken};

use crate::link::Account;

/// How long a peer is waited for that may say what it has taken.
const WAIT: Duration = Duration::from_secs(30);
/// For how long it is known here what has come: the peer may see the end of a link later.
const KNOWN: Duration = Duration::from_secs(120);
/// Links that are over of which the counts are known, those of one peer at most [`PAST`].
const LINKS: usize = 8_192;

/// What is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lost {
    /// So many are.
    pub(crate) surely: u64,
    /// So many more may be.
    pub(crate) perhaps: u64,
}

impl std::ops::AddAssign for Lost {
    fn add_assign(&mut self, more: Lost) {
        self.surely += more.surely;
        self.perhaps += more.perhaps;
    }
}

/// A link that is over.
struct Past {
    at: Time,
    account: Account,
    /// Whether it is still to be known what of it is lost.
    is_open: bool,
}

/// The counts of links that are over.
#[derive(Default)]
pub(crate) struct Ledger {
    /// Those of each peer, oldest first.
    peers: BTreeMap<HostId, VecDeque<Past>>,
    /// Whose link ended when, oldest first. Some of them are gone from there already.
    ends: VecDeque<(Time, HostId)>,
    /// The same of those of which it is to be known what is lost.
    waits: VecDeque<(Time, HostId)>,
}

impl Past {
    /// It will not be known any more what of it is lost.
    fn give_up(&mut self) -> Lost {
        let Account { sent, arrived, .. } = self.account;
        let open = std::mem::take(&mut self.is_open);
        Lost { surely: 0, perhaps: if open { sent - arrived } else { 0 } }
    }
}

impl Ledger {
    /// A link is over. Returns what is given up to make room.
    pub(crate) fn end(&mut self, now: Time, account: Account) -> Lost {
        let mut lost = Lost::default();
        let links = self.peers.entry(account.peer).or_default();
        let is_open = account.sent > account.arrived;
        links.push_back(Past { at: now, account, is_open });
        if links.len() > PAST {
            lost += links.pop_front().map(|mut past| past.give_up()).unwrap_or_default();
        }
        self.ends.push_back((now, account.peer));
        self.waits.extend(is_open.then_some((now, account.peer)));
        if self.waits.len() > LINKS {
            lost += self.give_up();
        }
        if self.ends.len() > LINKS {
            lost += self.forget();
        }
        lost
    }

    /// Waits no longer for what the peer of the link that ended first may say of it.
    fn give_up(&mut self) -> Lost {
        let mut lost = Lost::default();
        let Some((at, peer)) = self.waits.pop_front() else { return lost };
        let links = self.peers.get_mut(&peer).into_iter().flatten();
        links.filter(|past| past.at <= at).for_each(|past| lost += past.give_up());
        lost
    }

    /// Forgets the link that ended first.
    fn forget(&mut self) -> Lost {
        let Some((at, peer)) = self.ends.pop_front() else { return Lost::default() };
        let Some(links) = self.peers.get_mut(&peer) else { return Lost::default() };
        // It may have made room for a later one.
        let first = links.pop_front_if(|past| past.at <= at);
        if links.is_empty() {
            self.peers.remove(&peer);
        }
        first.map(|mut past| past.give_up()).unwrap_or_default()
    }

    /// What is to be said to a peer of links with it that are over.
    pub(crate) fn tell(&self, peer: HostId) -> Vec<Taken> {
        let links = self.peers.get(&peer).into_iter().flatten();
        links.map(|past| Taken { link: past.account.name, taken: past.account.taken }).collect()
    }

    /// A peer says what it has taken on links with this node that are over.
    pub(crate) fn hear(&mut self, peer: HostId, said: &[Taken]) -> Lost {
        let mut lost = Lost::default();
        for past in self.peers.get_mut(&peer).into_iter().flatten() {
            let Account { name, sent, .. } = past.account;
            match said.iter().find(|said| said.link == name) {
                Some(said) if past.is_open => {
                    past.is_open = false;
                    lost.surely += sent.saturating_sub(said.taken);
                }
                _ => lost += past.give_up(),
            }
        }
        lost
    }

    /// What is given up by now, since who might have said more has not come back.
    pub(crate) fn expire(&mut self, now: Time) -> Lost {
        let mut lost = Lost::default();
        while self.ends.front().is_some_and(|(at, _)| now.since(*at) >= KNOWN) {
            lost += self.forget();
        }
        while self.waits.front().is_some_and(|(at, _)| now.since(*at) >= WAIT) {
            lost += self.give_up();
        }
        lost
    }

    /// When something is to be given up next.
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        self.waits.front().map(|(at, _)| *at + WAIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::{Sealed, Tally};

    const PEER: HostId = HostId(7);

    fn at(s: u64) -> Time {
        Time(Duration::from_secs(s))
    }

    fn account(name: u64, sent: u64, arrived: u64) -> Account {
        Account { peer: PEER, name, sent, arrived, taken: 10 * name }
    }

    fn surely(surely: u64) -> Lost {
        Lost { surely, perhaps: 0 }
    }

    fn perhaps(perhaps: u64) -> Lost {
        Lost { surely: 0, perhaps }
    }

    #[test]
    fn who_comes_back_says_what_was_lost_and_it_is_counted_once() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.end(at(0), account(1, 100, 40)), Lost::default());
        assert_eq!(ledger.tell(PEER), [Taken { link: 1, taken: 10 }]);
        assert_eq!(ledger.poll_timeout(), Some(at(30)));
        let said = [Taken { link: 1, taken: 93 }, Taken { link: 9, taken: 1 }];
        assert_eq!(ledger.hear(PEER, &said), surely(7));
        assert_eq!(ledger.hear(PEER, &said), Lost::default());
        assert_eq!(ledger.hear(PEER, &[]), Lost::default());
        assert_eq!(ledger.expire(at(60)), Lost::default());
        assert_eq!(ledger.tell(PEER).len(), 1, "the peer may not have heard it yet");
        assert_eq!(ledger.expire(at(120)), Lost::default());
        assert!(ledger.peers.is_empty() && ledger.ends.is_empty() && ledger.waits.is_empty());
    }

    #[test]
    fn who_does_not_come_back_or_knows_nothing_leaves_what_is_not_known() {
        let mut ledger = Ledger::default();
        ledger.end(at(0), account(1, 100, 40));
        ledger.end(at(9), account(2, 5, 5));
        assert_eq!(ledger.expire(at(29)), Lost::default());
        assert_eq!(ledger.expire(at(30)), perhaps(60));
        assert_eq!(ledger.hear(PEER, &[Taken { link: 1, taken: 93 }]), Lost::default(), "too late");
        ledger.end(at(40), account(3, 8, 2));
        assert_eq!(ledger.hear(PEER, &[]), perhaps(6), "it has started anew");
        assert_eq!(ledger.expire(at(200)), Lost::default());
    }

    #[test]
    fn what_is_known_is_bounded_and_nothing_goes_without_a_word() {
        let mut ledger = Ledger::default();
        let mut lost = Lost::default();
        for name in 0..10 {
            lost += ledger.end(at(0), account(name, 1, 0));
        }
        assert_eq!((lost, ledger.tell(PEER).len()), (perhaps(6), PAST));
        for host in 0..2 * LINKS as u32 {
            let peer = HostId(1_000 + host);
            lost += ledger.end(at(1), Account { peer, ..account(1, 1, 0) });
        }
        assert!(ledger.peers.len() <= LINKS + 1 && ledger.ends.len() == LINKS);
        lost += ledger.expire(at(500));
        assert_eq!(lost, perhaps(10 + 2 * LINKS as u64));
        assert!(ledger.peers.is_empty() && ledger.waits.is_empty());
    }

    /// Two ends of links that break at any moment, and that meet again.
    #[test]
    fn over_many_breaks_what_was_sent_is_what_was_taken_and_what_is_told() {
        for seed in 1..=200_u64 {
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut draw = |below: u64| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state % below
            };
            let mut ends = [Ledger::default(), Ledger::default()];
            let (mut sent, mut taken) = ([0; 2], [0; 2]);
            let mut lost = [Lost::default(); 2];
            let breaks = 1 + draw(20);
            for link in 1..=breaks + 1 {
                let tallies = [Tally::named(link), Tally::named(link)];
                let hellos = [0, 1].map(|end| ends[end].tell(PEER));
                // A hello may be lost with its link, but not for ever.
                for end in 0..2 {
                    if link > breaks || link % 3 == 0 || draw(2) == 0 {
                        lost[end] += ends[end].hear(PEER, &hellos[1 - end]);
                    }
                }
                if link > breaks {
                    break;
                }
                for end in 0..2 {
                    let (count, batch) = (draw(50), 1 + draw(5));
                    for _ in 0..count {
                        assert!(tallies[end].begin(batch));
                        sent[end] += batch;
                    }
                    for _ in 0..draw(count * batch + 1) {
                        assert!(tallies[1 - end].take());
                        taken[end] += 1;
                    }
                }
                for end in 0..2 {
                    let Some(Sealed::Account(over)) = tallies[end].seal(PEER) else {
                        panic!("it counts");
                    };
                    lost[end] += ends[end].end(at(link), over);
                    assert!(!tallies[end].begin(1) && !tallies[end].take(), "it is over");
                }
            }
            for end in 0..2 {
                assert_eq!(lost[end], surely(sent[end] - taken[end]), "seed {seed}");
            }
        }
    }
}
