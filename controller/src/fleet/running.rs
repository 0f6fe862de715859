//! What goes on of each frequency, and who may begin beside it.
//!
//! Of one frequency one distribution goes on at a time. A second is kept until the first has
//! ended, which is when each of its hosts has an outcome; a third is dropped, since the second
//! will do what it wants. Those who have their turn are distributions of their own, which go on
//! beside each other and keep a second waiting, too, but are never kept themselves: whoever cannot
//! begin goes on waiting with the schedule, which is on disk and knows his windows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mesh::HostSet;

use super::dist::ALL;
use super::types::NewDist;

/// How many groups of hosts of one frequency may have their turn at once.
const TURNS: usize = 64;

/// What goes on.
#[derive(Clone, Default)]
pub struct Running {
    /// The frequencies of which a distribution goes on.
    on: Arc<Mutex<BTreeMap<String, On>>>,
    /// Those of which a rollout is unfinished, and which one.
    rolled: Arc<Mutex<BTreeMap<String, String>>>,
}

/// What goes on of a frequency.
#[derive(Default)]
struct On {
    /// Whether one does that is for whoever lacks something, or for those who were named.
    whole: bool,
    /// The one that waits for the end of all others.
    next: Option<NewDist>,
    /// Those who have their turn; nobody is in two of them.
    turns: Vec<HostSet>,
}

/// Whether a distribution may begin.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn {
    /// It may.
    Now,
    /// Once what goes on has ended.
    Later,
    /// Not at all: one waits already.
    Dropped,
}

impl Running {
    /// Whether one of this frequency goes on.
    pub(crate) fn is_on(&self, frequency: &str) -> bool {
        self.lock().contains_key(frequency)
    }

    /// Who has his turn of this frequency at the moment; none if nobody else may begin.
    pub fn in_turn(&self, frequency: &str) -> Option<HostSet> {
        match self.lock().get(frequency) {
            None => Some(HostSet::new()),
            Some(on) if on.is_closed() => None,
            Some(on) => Some(on.turns.iter().fold(HostSet::new(), |all, one| all.union(one))),
        }
    }

    /// One would begin.
    pub fn begin(&self, new: &NewDist) -> Turn {
        let mut running = self.lock();
        let on = running.entry(new.frequency.clone()).or_default();
        match &new.only {
            Some(hosts) => {
                let has_turn = |one: &HostSet| !one.intersection(hosts).is_empty();
                if on.is_closed() || on.turns.iter().any(has_turn) {
                    return Turn::Dropped;
                }
                on.turns.push(hosts.clone());
                Turn::Now
            }
            None if !on.whole && on.turns.is_empty() => {
                on.whole = true;
                Turn::Now
            }
            None if on.next.is_none() => {
                on.next = Some(new.clone());
                Turn::Later
            }
            None => Turn::Dropped,
        }
    }

    /// It has ended. Returns the one that has waited for that, which goes on now.
    pub fn end(&self, ended: &NewDist) -> Option<NewDist> {
        let mut running = self.lock();
        let on = running.get_mut(&ended.frequency)?;
        match &ended.only {
            Some(hosts) => on.turns.retain(|one| one != hosts),
            None => on.whole = false,
        }
        if on.whole || !on.turns.is_empty() {
            return None;
        }
        let next = on.next.take();
        on.whole = next.is_some();
        if next.is_none() {
            running.remove(&ended.frequency);
        }
        next
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, On>> {
        self.on.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The unfinished rollout of a frequency, or, for all of them, of any.
    pub(crate) fn rolled(&self, frequency: &str) -> Option<String> {
        let rolled = self.rolled.lock().unwrap_or_else(PoisonError::into_inner);
        let own = rolled.get(frequency).or(rolled.get(ALL));
        own.or(rolled.values().next().filter(|_| frequency == ALL)).cloned()
    }

    /// Notes that a rollout of a frequency is unfinished, or is over.
    pub(crate) fn note_rollout(&self, frequency: &str, rollout: &str, is_over: bool) {
        let mut rolled = self.rolled.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_over {
            rolled.insert(frequency.into(), rollout.into());
        } else if rolled.get(frequency).is_some_and(|known| known == rollout) {
            rolled.remove(frequency);
        }
    }
}

impl On {
    /// Whether nobody may have his turn now.
    fn is_closed(&self) -> bool {
        self.whole || self.next.is_some() || self.turns.len() >= TURNS
    }
}

#[cfg(test)]
mod tests {
    use mesh::HostId;

    use super::*;

    #[test]
    fn a_second_waits_and_a_third_is_dropped() {
        let running = Running::default();
        let new = |frequency: &str, host: &str| NewDist {
            frequency: frequency.into(),
            hosts: vec![host.into()],
            ..NewDist::of("")
        };
        assert_eq!(running.begin(&new("hour", "a")), Turn::Now);
        assert_eq!(running.begin(&new("day", "a")), Turn::Now, "they are independent");
        assert_eq!(running.begin(&new("hour", "b")), Turn::Later);
        assert_eq!(running.begin(&new("hour", "c")), Turn::Dropped);
        assert_eq!(running.end(&new("hour", "a")), Some(new("hour", "b")));
        assert_eq!(running.begin(&new("hour", "d")), Turn::Later, "the one that waited goes on");
        assert_eq!(running.end(&new("hour", "b")), Some(new("hour", "d")));
        assert_eq!(running.end(&new("hour", "d")), None);
        assert!(!running.is_on("hour") && running.is_on("day"));
    }

    #[test]
    fn turns_go_on_beside_each_other_and_nothing_of_them_is_kept() {
        let running = Running::default();
        let turn = |host| NewDist { only: Some(HostSet::one(HostId(host))), ..NewDist::of("hour") };
        let named = NewDist { hosts: vec!["web1".into()], ..NewDist::of("hour") };
        assert_eq!(running.in_turn("hour"), Some(HostSet::new()));
        assert_eq!((running.begin(&turn(1)), running.begin(&turn(2))), (Turn::Now, Turn::Now));
        assert_eq!(running.begin(&turn(2)), Turn::Dropped, "he has it already");
        assert_eq!(running.in_turn("hour"), Some(HostSet::from_ranges([(1, 2)])));
        assert_eq!(running.begin(&named), Turn::Later);
        assert_eq!(running.in_turn("hour"), None, "an operator is not kept waiting by more");
        assert_eq!(running.begin(&turn(3)), Turn::Dropped);
        assert_eq!(running.end(&turn(2)), None);
        assert_eq!(running.end(&turn(1)), Some(named.clone()), "as it was asked for");
        assert_eq!((running.in_turn("hour"), running.begin(&turn(3))), (None, Turn::Dropped));
        assert_eq!(running.end(&named), None);
        assert!(!running.is_on("hour"));
        for host in 0..TURNS {
            let host = u32::try_from(host).expect("there are few");
            assert_eq!(running.begin(&turn(host)), Turn::Now);
        }
        assert_eq!(running.in_turn("hour"), None, "there is a limit");
    }

    #[test]
    fn a_rollout_holds_its_frequency_and_all() {
        let running = Running::default();
        running.note_rollout("hour", "a", false);
        let rolled = |frequency| running.rolled(frequency);
        assert_eq!((rolled("hour").as_deref(), rolled(ALL).as_deref()), (Some("a"), Some("a")));
        assert_eq!(rolled("day"), None);
        running.note_rollout("hour", "b", true);
        assert!(rolled("hour").is_some(), "that one is another's");
        running.note_rollout("hour", "a", true);
        running.note_rollout(ALL, "c", false);
        assert_eq!(rolled("day").as_deref(), Some("c"));
    }
}
