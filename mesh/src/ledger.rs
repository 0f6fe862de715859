//! The orders that this host itself carries out, each at most once.
//!
//! An order is entered when it arrives, starts when its content is here and its intent is durable,
//! and is remembered until it has expired everywhere. After a crash an order with an intent but no
//! answer was interrupted: one that may run again does, any other only says so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::{Digest, Order, OrderId, PullFault};

enum Entry {
    Fetching { order: Arc<Order>, left: BTreeSet<Digest>, missing: Vec<(Digest, PullFault)> },
    Running,
    Answered,
}

/// An order whose content is all here, or known not to come.
#[derive(Clone, Debug)]
pub(crate) struct Ready {
    pub(crate) order: Arc<Order>,
    pub(crate) missing: Vec<(Digest, PullFault)>,
}

/// What this host knows of its own orders.
#[derive(Default)]
pub(crate) struct Ledger {
    entries: BTreeMap<OrderId, Entry>,
}

impl Ledger {
    /// Whether the order was ever entered here.
    pub(crate) fn knows(&self, order: OrderId) -> bool {
        self.entries.contains_key(&order)
    }

    /// Enters a new order that waits for this content.
    pub(crate) fn enter(&mut self, order: Arc<Order>, content: Vec<Digest>) {
        let left = content.into_iter().collect();
        self.entries.insert(order.id, Entry::Fetching { order, left, missing: Vec::new() });
    }

    /// Notes that an order was answered, now or before a restart.
    pub(crate) fn answer(&mut self, order: OrderId) {
        self.entries.insert(order, Entry::Answered);
    }

    /// A piece of content came, or will not.
    pub(crate) fn handle_pulled(
        &mut self,
        id: OrderId,
        content: Digest,
        result: Result<(), PullFault>,
    ) {
        if let Some(Entry::Fetching { left, missing, .. }) = self.entries.get_mut(&id)
            && left.remove(&content)
            && let Err(fault) = result
        {
            missing.push((content, fault));
        }
    }

    /// The order, if it waits for nothing any more; it counts as running from here on.
    pub(crate) fn begin(&mut self, id: OrderId) -> Option<Ready> {
        let entry = self.entries.get_mut(&id)?;
        let ready = |entry: &Entry| match entry {
            Entry::Fetching { left, missing, .. } => left.is_empty() || !missing.is_empty(),
            _ => false,
        };
        if !ready(entry) {
            return None;
        }
        match std::mem::replace(entry, Entry::Running) {
            Entry::Fetching { order, missing, .. } => Some(Ready { order, missing }),
            _ => None,
        }
    }

    /// An order that has not begun and can.
    pub(crate) fn waiting(&self, order: OrderId) -> Option<&Order> {
        match self.entries.get(&order) {
            Some(Entry::Fetching { order, .. }) => Some(order),
            _ => None,
        }
    }

    /// Whether an order waits for the end of its run.
    pub(crate) fn is_running(&self, order: OrderId) -> bool {
        matches!(self.entries.get(&order), Some(Entry::Running))
    }

    /// Whether an order was begun, or answered: nobody can take it back any more.
    pub(crate) fn is_over(&self, order: OrderId) -> bool {
        matches!(self.entries.get(&order), Some(Entry::Running | Entry::Answered))
    }

    pub(crate) fn forget(&mut self, order: OrderId) {
        self.entries.remove(&order);
    }
}
