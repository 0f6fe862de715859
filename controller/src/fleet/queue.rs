//! Which host's question is answered next.
//!
//! Hosts are taken in turn, so that one that asks much waits for itself and for nobody else. Each
//! may ask a few times at once, and then once in a while: of one host there are never more than
//! these few. Pure: what a question is, and what is said to it, is elsewhere.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use mesh::HostId;

/// So often may a host ask at once, and then once in this time.
const BURST: u32 = 10;
const EACH: Duration = Duration::from_secs(30);
/// How many questions wait at most, of all hosts.
const WAITING: usize = 1_024;

/// Questions that wait.
pub(super) struct Queue<Q> {
    turns: Turns,
    /// Of each host that has some, the oldest first.
    waiting: BTreeMap<HostId, VecDeque<Q>>,
    /// These hosts, each once, in the sequence in which they are answered.
    row: VecDeque<HostId>,
}

/// Why a question is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Busy {
    /// The host asks too often; after this time it may ask again.
    Host(Duration),
    /// All together do.
    All,
}

impl<Q> Queue<Q> {
    pub(super) fn new() -> Queue<Q> {
        Queue { turns: Turns::default(), waiting: BTreeMap::new(), row: VecDeque::new() }
    }

    /// A host asks.
    pub(super) fn add(&mut self, host: HostId, question: Q, now: Instant) -> Result<(), Busy> {
        if self.waiting.values().map(VecDeque::len).sum::<usize>() >= WAITING {
            return Err(Busy::All);
        }
        self.turns.take(host, now).map_err(Busy::Host)?;
        let own = self.waiting.entry(host).or_default();
        if own.is_empty() {
            self.row.push_back(host);
        }
        own.push_back(question);
        Ok(())
    }

    /// What is answered next. Whoever has more to ask comes after everybody else who waits.
    pub(super) fn next(&mut self) -> Option<Q> {
        let host = self.row.pop_front()?;
        let own = self.waiting.get_mut(&host)?;
        let question = own.pop_front();
        match own.is_empty() {
            true => drop(self.waiting.remove(&host)),
            false => self.row.push_back(host),
        }
        question
    }

    /// Forgets how often hosts have asked that are not known any more, if there are any.
    pub(super) fn forget(&mut self, known: usize, is_known: impl Fn(HostId) -> bool) {
        if self.turns.0.len() > known {
            self.turns.0.retain(|host, _| is_known(*host));
        }
    }
}

/// How often hosts have asked: for each the time at which all of its turns are there again.
#[derive(Default)]
struct Turns(BTreeMap<HostId, Instant>);

impl Turns {
    /// Takes a turn of a host, or says how long until it has one.
    fn take(&mut self, host: HostId, now: Instant) -> Result<(), Duration> {
        let whole = self.0.get(&host).copied().map_or(now, |at| at.max(now));
        let most = now + EACH * (BURST - 1);
        if whole > most {
            return Err(whole - most);
        }
        self.0.insert(host, whole + EACH);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_asks_so_often_and_no_other_pays_for_it() {
        let (mut queue, now) = (Queue::new(), Instant::now());
        let mut ask = |host, now| queue.add(HostId(host), (), now);
        for n in 0..BURST {
            assert_eq!(ask(1, now), Ok(()), "{n}");
        }
        assert_eq!(ask(1, now), Err(Busy::Host(EACH)));
        assert_eq!(ask(2, now), Ok(()));
        // Who is refused does not wait longer for it.
        let later = now + EACH;
        assert_eq!(ask(1, later), Ok(()));
        assert_eq!(ask(1, later), Err(Busy::Host(EACH)));
        let all = now + EACH * (BURST + 1);
        for _ in 0..BURST {
            assert_eq!(ask(1, all), Ok(()));
        }
        assert!(ask(1, all).is_err());
        queue.forget(2, |_| unreachable!("nobody is gone"));
        queue.forget(1, |host| host == HostId(2));
        assert_eq!(queue.turns.0.len(), 1);
    }

    #[test]
    fn hosts_are_answered_in_turn_and_each_in_its_own_sequence() {
        let (mut queue, now) = (Queue::new(), Instant::now());
        for (host, text) in [(1, "a"), (1, "b"), (1, "c"), (2, "d"), (3, "e"), (2, "f")] {
            queue.add(HostId(host), text, now).expect("it may ask");
        }
        assert_eq!([queue.next(), queue.next()], [Some("a"), Some("d")]);
        queue.add(HostId(4), "g", now).expect("it may ask");
        let rest: Vec<_> = std::iter::from_fn(|| queue.next()).collect();
        assert_eq!(rest, ["e", "b", "f", "g", "c"]);
        assert!(queue.waiting.is_empty() && queue.row.is_empty());
    }

    #[test]
    fn there_is_a_limit_for_all_together_and_it_costs_nobody_a_turn() {
        let (mut queue, now) = (Queue::new(), Instant::now());
        for host in (0..).take(WAITING) {
            queue.add(HostId(host), (), now).expect("there is room");
        }
        let last = HostId(u32::MAX);
        assert_eq!(queue.add(last, (), now), Err(Busy::All));
        assert!(!queue.turns.0.contains_key(&last));
        assert_eq!(queue.next(), Some(()));
        assert_eq!(queue.add(last, (), now), Ok(()));
    }
}
