//! Orders that later orders take back.
//!
//! An order that cancels another is an order like any: signed, with targets, forwarded, saved and
//! answered. Whoever knows it withholds the older one from hosts that have not got it, and a host
//! that is meant carries the older one out no more. The two may come in any sequence and by
//! different parents, so what is remembered is the pair, for as long as the later one lives. Both
//! expire at the same moment: the older one never comes later, nor was it forgotten before.

use std::collections::BTreeMap;

use crate::{HostSet, Order, OrderId};

/// For each order that was taken back: for which hosts.
#[derive(Default)]
pub(crate) struct Cancels {
    hosts: BTreeMap<OrderId, HostSet>,
}

impl Cancels {
    /// Takes note of an order. Returns the one that it takes back, if it does.
    pub(crate) fn add(&mut self, order: &Order) -> Option<OrderId> {
        let older = order.cancels?;
        let hosts = self.hosts.entry(older).or_default();
        *hosts = hosts.union(&order.targets);
        Some(older)
    }

    /// Those of these hosts for which an order still stands.
    pub(crate) fn spare(&self, order: OrderId, hosts: HostSet) -> HostSet {
        self.hosts.get(&order).map_or_else(|| hosts.clone(), |gone| hosts.difference(gone))
    }

    /// Forgets an order, and what it took back.
    pub(crate) fn forget(&mut self, order: &Order) {
        if let Some(older) = order.cancels {
            self.hosts.remove(&older);
        }
    }
}
