//! Who is known to be away, and not only for the moment.
//!
//! A host that changes its parent, or whose relay starts again, is gone from the tree for some
//! seconds. Nothing should be said of it for that. Whoever has been away for longer than the
//! *grace* is known to be down: an order answers for it at once instead of waiting until it is
//! certain that nobody comes. After a start everybody has all of the grace to come back.
//!
//! It does not know where hosts live; it only sees who is reachable, whenever that changes.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::{HostSet, Time};

/// At how many moments somebody may have gone before the oldest count as one.
const MOMENTS: usize = 64;

/// Who has gone, and when.
pub(crate) struct Absent {
    grace: Duration,
    started: Time,
    up: HostSet,
    /// Those who have gone within the grace, by the moment at which it ends.
    lately: BTreeMap<Time, HostSet>,
}

impl Absent {
    pub(crate) fn new(now: Time, grace: Duration) -> Absent {
        Absent { grace, started: now, up: HostSet::new(), lately: BTreeMap::new() }
    }

    /// These are reachable from now on, and nobody else.
    pub(crate) fn see(&mut self, now: Time, up: HostSet) {
        self.lately.retain(|until, hosts| {
            *hosts = hosts.difference(&up);
            *until > now && !hosts.is_empty()
        });
        let gone = self.up.difference(&up);
        self.up = up;
        if !gone.is_empty() {
            let entry = self.lately.entry(now + self.grace).or_default();
            *entry = entry.union(&gone);
        }
        if self.lately.len() > MOMENTS
            && let Some((_, oldest)) = self.lately.pop_first()
            && let Some(mut next) = self.lately.first_entry()
        {
            let both = next.get().union(&oldest);
            next.insert(both);
        }
    }

    /// These were reachable until now, whoever else is.
    pub(crate) fn came(&mut self, up: &HostSet) {
        self.up = self.up.union(up);
    }

    /// Those of these hosts who are known to be down.
    pub(crate) fn known_down(&self, now: Time, hosts: &HostSet) -> HostSet {
        if now < self.started + self.grace {
            return HostSet::new();
        }
        let lately = self.lately.iter().filter(|(until, _)| **until > now);
        lately.fold(hosts.difference(&self.up), |down, (_, hosts)| down.difference(hosts))
    }

    /// When somebody may become known to be down who is not now, if nobody comes or goes.
    pub(crate) fn next(&self, now: Time) -> Option<Time> {
        let started = self.started + self.grace;
        let lately = self.lately.keys().copied().find(|until| *until > now);
        lately.into_iter().chain((started > now).then_some(started)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(first: u32, last: u32) -> HostSet {
        HostSet::from_ranges([(first, last)])
    }

    fn at(secs: u64) -> Time {
        Time::ZERO + Duration::from_secs(secs)
    }

    #[test]
    fn who_is_away_for_longer_than_the_grace_is_down() {
        let mut absent = Absent::new(at(0), Duration::from_secs(30));
        let all = hosts(1, 9);
        assert_eq!(
            (absent.known_down(at(29), &all), absent.next(at(29))),
            (hosts(1, 0), Some(at(30)))
        );
        assert_eq!((absent.known_down(at(30), &all), absent.next(at(30))), (all.clone(), None));
        absent.see(at(40), hosts(1, 8));
        absent.see(at(41), hosts(1, 6));
        absent.see(at(45), hosts(1, 5));
        assert_eq!(
            (absent.known_down(at(45), &all), absent.next(at(45))),
            (hosts(9, 9), Some(at(71)))
        );
        // 7 comes back, and goes again: its grace begins anew.
        absent.see(at(50), hosts(1, 5).union(&hosts(7, 7)));
        absent.see(at(60), hosts(1, 5));
        assert_eq!(absent.known_down(at(75), &all), hosts(6, 6).union(&hosts(8, 9)));
        assert_eq!(absent.known_down(at(90), &all), hosts(6, 9));
        assert_eq!(absent.known_down(at(90), &hosts(1, 6)), hosts(6, 6));
        // Who came and went between two looks has a grace as well.
        absent.came(&hosts(10, 10));
        absent.see(at(100), hosts(1, 5));
        assert_eq!(absent.known_down(at(129), &hosts(9, 10)), hosts(9, 9));
        assert_eq!(absent.known_down(at(130), &hosts(9, 10)), hosts(9, 10));
    }

    #[test]
    fn many_moments_are_few() {
        let mut absent = Absent::new(at(0), Duration::from_secs(1_000));
        absent.see(at(1), hosts(1, 200));
        for n in 1..=150 {
            absent.see(at(1 + u64::from(n)), hosts(n + 1, 200));
        }
        assert!(absent.lately.len() <= MOMENTS);
        assert_eq!(
            absent.known_down(at(1_010), &hosts(1, 200)),
            HostSet::new(),
            "later, not sooner"
        );
        assert_eq!(absent.known_down(at(1_151), &hosts(1, 200)), hosts(1, 150));
    }
}
