//! Answers that have gone another way: how often they are asked for, and who has asked.
//!
//! A relay that gives orders itself does not hear what a host does that has moved away. So it asks
//! above, by the names of the hosts, and asks again as long as somebody is astray: soon at first,
//! then ever more seldom, since a host may be away for as long as the order is valid. Whoever
//! passes a question on remembers for a while where it came from, so that what is found goes back
//! there, once, and nothing that nobody has asked for goes down. What is lost is asked for again,
//! so none of this is on a disk.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::wake::Deadline;
use crate::{HostSet, LinkId, OrderId, Time, Wake};

/// How long whoever has gone is given to be found elsewhere, before the first question.
const SETTLE: Duration = Duration::from_secs(1);
/// How long until the next question, at first and at most.
const WAITS: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(120)];
/// Orders that are asked about at once.
const AT_ONCE: usize = 16;
/// Questions that are taken from one link within the first of the waits.
const TAKEN: usize = 4 * AT_ONCE;
/// Questions that are remembered at once, and for how long: until they come again.
const ASKED: usize = 1_024;
const MEMORY: Duration = Duration::from_secs(300);

/// The pace of one node's questions, and what its neighbours ask.
#[derive(Default)]
pub(crate) struct Seek {
    at: Option<Time>,
    wait: Option<Duration>,
    last: Option<OrderId>,
    /// Since when how many have come by each link.
    taken: BTreeMap<LinkId, (Time, usize)>,
    asked: BTreeMap<OrderId, Asked>,
}

/// Who is sought, for whom.
struct Asked {
    link: LinkId,
    hosts: HostSet,
    until: Time,
}

impl Seek {
    /// Something has changed: asks soon, and more often again.
    pub(crate) fn stir(&mut self, now: Time) {
        let soon = now + SETTLE;
        self.at = Some(self.at.map_or(soon, |at| at.min(soon)));
        self.wait = None;
    }

    /// Whether to ask now; it counts as done.
    pub(crate) fn is_due(&mut self, now: Time) -> bool {
        self.at.take_if(|at| *at <= now).is_some()
    }

    /// Which of the orders of which somebody is astray to ask about now, each in its turn. Asks
    /// again if there are any.
    pub(crate) fn turn(&mut self, now: Time, astray: &[OrderId]) -> Vec<OrderId> {
        let Some(last) = astray.last() else {
            (self.wait, self.last) = (None, None);
            return Vec::new();
        };
        let wait = self.wait.map_or(WAITS[0], |wait| (wait * 2).min(WAITS[1]));
        (self.wait, self.at) = (Some(wait), Some(now + wait));
        let from = self.last.filter(|from| from < last);
        let later = |id: &&OrderId| from.is_none_or(|from| **id > from);
        let turn: Vec<_> = astray.iter().filter(later).take(AT_ONCE).copied().collect();
        self.last = turn.last().copied();
        turn
    }

    /// Whether a question that has come by this link is one too many.
    pub(crate) fn is_too_much(&mut self, now: Time, link: LinkId) -> bool {
        let (since, count) = self.taken.entry(link).or_insert((now, 0));
        if now >= *since + WAITS[0] {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        *count > TAKEN
    }

    /// A child asks for these. What it has asked before of the same order counts no more.
    pub(crate) fn remember(&mut self, now: Time, link: LinkId, order: OrderId, hosts: HostSet) {
        self.asked.remove(&order);
        if self.asked.len() >= ASKED {
            self.asked.retain(|_, asked| now < asked.until);
        }
        if self.asked.len() < ASKED && !hosts.is_empty() {
            self.asked.insert(order, Asked { link, hosts, until: now + MEMORY });
        }
    }

    /// Who is sought that has spoken on an order, and by which link what they say goes back.
    pub(crate) fn sought(&self, now: Time, order: OrderId) -> Option<(LinkId, &HostSet)> {
        let asked = self.asked.get(&order).filter(|asked| now < asked.until)?;
        Some((asked.link, &asked.hosts))
    }

    /// These have been found.
    pub(crate) fn found(&mut self, order: OrderId, hosts: &HostSet) {
        let Some(asked) = self.asked.get_mut(&order) else { return };
        asked.hosts = asked.hosts.difference(hosts);
        if asked.hosts.is_empty() {
            self.asked.remove(&order);
        }
    }

    pub(crate) fn handle_down(&mut self, link: LinkId) {
        self.taken.remove(&link);
        self.asked.retain(|_, asked| asked.link != link);
    }

    pub(crate) fn poll_timeout(&self) -> Deadline {
        self.at.map(|at| (at, Wake::Seek))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HostId;

    fn at(secs: u64) -> Time {
        Time::ZERO + Duration::from_secs(secs)
    }

    fn id(n: usize) -> OrderId {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&(n as u64).to_be_bytes());
        OrderId(id)
    }

    #[test]
    fn questions_become_rarer_until_something_changes() {
        let mut seek = Seek::default();
        seek.stir(at(0));
        let mut asked = Vec::new();
        for secs in 0..500 {
            if seek.is_due(at(secs)) {
                assert_eq!(seek.turn(at(secs), &[id(1)]), [id(1)]);
                asked.push(secs);
            }
        }
        assert_eq!(asked, [1, 6, 16, 36, 76, 156, 276, 396]);
        seek.stir(at(500));
        assert!(!seek.is_due(at(500)) && seek.is_due(at(501)));
        seek.turn(at(501), &[id(1)]);
        assert_eq!(seek.poll_timeout(), Some((at(506), Wake::Seek)));
        // Nobody is astray any more.
        assert!(seek.is_due(at(506)));
        assert!(seek.turn(at(506), &[]).is_empty());
        assert_eq!(seek.poll_timeout(), None);
    }

    #[test]
    fn many_orders_take_turns() {
        let ids: Vec<_> = (0..40).map(id).collect();
        let mut seek = Seek::default();
        let mut turns = || seek.turn(at(0), &ids);
        let turns = [turns(), turns(), turns(), turns()];
        assert_eq!(turns.each_ref().map(Vec::len), [16, 16, 8, 16]);
        assert_eq!(turns[..3].concat(), ids);
        assert_eq!(turns[3], ids[..16]);
    }

    #[test]
    fn a_link_that_asks_too_much_is_not_listened_to_for_a_while() {
        let (mut seek, link) = (Seek::default(), LinkId(1));
        let taken = (0..200).filter(|_| !seek.is_too_much(at(1), link)).count();
        assert_eq!(taken, TAKEN);
        assert!(!seek.is_too_much(at(1), LinkId(2)), "others are");
        assert!(seek.is_too_much(at(5), link) && !seek.is_too_much(at(6), link));
        seek.handle_down(link);
        assert!(!seek.taken.contains_key(&link));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_ends() {
        let (mut seek, link) = (Seek::default(), LinkId(1));
        let both = HostSet::from_ranges([(1, 2)]);
        for n in 0..2 * ASKED {
            seek.remember(at(0), link, id(n), both.clone());
        }
        assert_eq!(seek.asked.len(), ASKED);
        assert_eq!(seek.sought(at(0), id(0)), Some((link, &both)));
        seek.found(id(0), &HostSet::one(HostId(1)));
        assert_eq!(seek.sought(at(0), id(0)), Some((link, &HostSet::one(HostId(2)))));
        seek.found(id(0), &both);
        assert_eq!(seek.sought(at(0), id(0)), None);
        assert_eq!(seek.sought(at(300), id(1)), None);
        seek.remember(at(0), link, id(4_000), both.clone());
        seek.remember(at(300), LinkId(2), id(5_000), both.clone());
        assert_eq!(seek.asked.len(), 1, "what is over makes room");
        seek.handle_down(LinkId(2));
        assert!(seek.asked.is_empty());
    }
}
