//! The last things that were seen, so that none is taken twice.

use std::collections::{BTreeSet, VecDeque};

/// A bounded memory.
pub(super) struct Recent<T> {
    order: VecDeque<T>,
    known: BTreeSet<T>,
    limit: usize,
}

impl<T: Ord + Copy> Recent<T> {
    pub(super) fn new(limit: usize) -> Recent<T> {
        Recent { order: VecDeque::new(), known: BTreeSet::new(), limit: limit.max(1) }
    }

    /// Whether this was not seen lately. It is now.
    pub(super) fn is_new(&mut self, thing: T) -> bool {
        if !self.known.insert(thing) {
            return false;
        }
        self.order.push_back(thing);
        if self.order.len() > self.limit
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}
