//! [`Agenda`]: when something is due at which order (or whatever else), the earliest first.
//!
//! An order stands in an agenda at most once. Asking what comes next costs nothing, and a change
//! costs the logarithm of the orders in it, so that ten thousand that wait for tomorrow do not
//! slow down the one that is due now.

use std::collections::{BTreeMap, BTreeSet};

use crate::{OrderId, Time};

/// One moment for each order in it.
pub(crate) struct Agenda<K = OrderId> {
    at: BTreeMap<K, Time>,
    queue: BTreeSet<(Time, K)>,
}

impl<K> Default for Agenda<K> {
    fn default() -> Agenda<K> {
        Agenda { at: BTreeMap::new(), queue: BTreeSet::new() }
    }
}

impl<K: Copy + Ord> Agenda<K> {
    /// Enters an order, or moves it to another moment.
    pub(crate) fn set(&mut self, order: K, at: Time) {
        self.clear(order);
        self.at.insert(order, at);
        self.queue.insert((at, order));
    }

    /// Enters an order at this moment, unless it stands at an earlier one.
    pub(crate) fn by(&mut self, order: K, at: Time) {
        if self.at.get(&order).is_none_or(|old| at < *old) {
            self.set(order, at);
        }
    }

    /// Enters an order at this moment, or moves it there, unless it is due already.
    pub(crate) fn put_off(&mut self, order: K, now: Time, at: Time) {
        if self.at(order).is_none_or(|old| now < old) {
            self.set(order, at);
        }
    }

    /// The moment of an order.
    pub(crate) fn at(&self, order: K) -> Option<Time> {
        self.at.get(&order).copied()
    }

    /// Takes an order out.
    pub(crate) fn clear(&mut self, order: K) {
        if let Some(at) = self.at.remove(&order) {
            self.queue.remove(&(at, order));
        }
    }

    /// The earliest moment.
    pub(crate) fn next(&self) -> Option<Time> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// The order that has been due for longest.
    pub(crate) fn due(&self, now: Time) -> Option<K> {
        self.queue.first().filter(|(at, _)| *at <= now).map(|(_, order)| *order)
    }

    /// Takes out all orders that are due, those that have been so for longest first.
    pub(crate) fn take_due(&mut self, now: Time) -> Vec<K> {
        let due = std::iter::from_fn(|| {
            let order = self.due(now)?;
            self.clear(order);
            Some(order)
        });
        due.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_due_comes_in_the_order_of_its_moments() {
        let id = |n| OrderId([n; 16]);
        let at = |secs| Time::ZERO + Duration::from_secs(secs);
        let mut agenda = Agenda::default();
        agenda.set(id(1), at(30));
        agenda.set(id(2), at(20));
        agenda.set(id(3), at(10));
        agenda.by(id(1), at(15));
        agenda.by(id(1), at(40));
        agenda.set(id(3), at(50));
        agenda.put_off(id(3), at(49), at(60));
        agenda.put_off(id(3), at(60), at(70));
        assert_eq!(agenda.at(id(3)), Some(at(60)));
        assert_eq!((agenda.next(), agenda.due(at(14))), (Some(at(15)), None));
        assert_eq!(agenda.take_due(at(20)), [id(1), id(2)]);
        agenda.clear(id(3));
        assert_eq!((agenda.next(), agenda.at.len()), (None, 0));
    }
}
