//! Orders that later orders take back.
//!
//! An order that cancels another is an order like any: signed, with targets, forwarded, saved and
//! answered. Whoever knows it withholds the older one from hosts that have not got it, and a host
//! that is meant carries the older one out no more. The two may come in any sequence and by
//! different parents, so what is remembered is the pair, for as long as the later one lives. Both
//! expire at the same moment: the older one never comes later, nor was it forgotten before.

use std::collections::BTreeMap;

use crate::{HostId, HostSet, Order, OrderId};

/// For each order that was taken back: for which hosts, and for which of them in earnest.
#[derive(Default)]
pub(crate) struct Cancels {
    hosts: BTreeMap<OrderId, HostSet>,
    in_earnest: BTreeMap<OrderId, HostSet>,
}

impl Cancels {
    /// Takes note of an order. Returns the one that it takes back, if it does.
    pub(crate) fn add(&mut self, order: &Order) -> Option<OrderId> {
        let older = order.cancels?;
        let hosts = self.hosts.entry(older).or_default();
        *hosts = hosts.union(&order.targets);
        if !order.lapses {
            let hosts = self.in_earnest.entry(older).or_default();
            *hosts = hosts.union(&order.targets);
        }
        Some(older)
    }

    /// Whether an order that a host never began has merely lapsed.
    pub(crate) fn lapses(&self, order: OrderId, host: HostId) -> bool {
        !self.in_earnest.get(&order).is_some_and(|hosts| hosts.contains(host))
    }

    /// Those of these hosts for which an order still stands.
    pub(crate) fn spare(&self, order: OrderId, hosts: HostSet) -> HostSet {
        self.hosts.get(&order).map_or_else(|| hosts.clone(), |gone| hosts.difference(gone))
    }

    /// Forgets an order, and what it took back.
    pub(crate) fn forget(&mut self, order: &Order) {
        if let Some(older) = order.cancels {
            self.hosts.remove(&older);
            self.in_earnest.remove(&older);
        }
    }
}
