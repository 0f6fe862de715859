//! What is known of orders: what was given, and on whose disk it ever was.
//!
//! The other checks ask here. Nothing here is a promise by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use mesh::{HostId, Order, OrderId};

use crate::plan::{Work, giver};

/// All orders, and where they are.
#[derive(Default)]
pub(crate) struct Known {
    pub(super) orders: BTreeMap<OrderId, Arc<Order>>,
    expires: BTreeMap<OrderId, Duration>,
    /// Orders, or answers to them, that were ever on the disk of a node.
    pub(super) held: BTreeSet<(HostId, OrderId)>,
    /// Orders themselves that were ever on the disk of a node.
    pub(super) got: BTreeSet<(HostId, OrderId)>,
    /// Nodes that said that an order was too much for them.
    pub(super) refused: BTreeSet<(HostId, OrderId)>,
    /// Orders of which some output in an answer found no room somewhere, and that was told.
    pub(crate) cut: BTreeSet<OrderId>,
    /// Orders of which some node has forgotten outputs that its parent had, to have room.
    pub(crate) trimmed: BTreeSet<OrderId>,
    /// Nodes that forgot an order, by age or for room.
    pub(super) forgot: BTreeSet<(HostId, OrderId)>,
}

impl Known {
    /// Takes note of an order that will be given.
    pub(super) fn add(&mut self, work: &Work) {
        self.orders.insert(work.order.id, work.order.clone());
        self.expires.insert(work.order.id, work.expires);
    }

    /// Whether an order is on the disk of the node at which it was given, or was refused there.
    pub(crate) fn is_kept(&self, id: OrderId) -> bool {
        self.held.contains(&(giver(id), id)) || self.is_rejected(id)
    }

    /// Whether that node has refused an order, or the one that it would have taken back.
    pub(crate) fn is_rejected(&self, id: OrderId) -> bool {
        let older = self.orders.get(&id).and_then(|order| order.cancels);
        let refused = |id| self.refused.contains(&(giver(id), id));
        refused(id) || older.is_some_and(refused)
    }

    /// Whether some node on the way had no room for an order, and so did not hand it on.
    pub(crate) fn is_turned_away(&self, id: OrderId) -> bool {
        self.refused.iter().any(|(node, refused)| *refused == id && *node != giver(id))
    }

    /// Whether a node has ever had an order on disk.
    pub(crate) fn has_got(&self, host: HostId, id: OrderId) -> bool {
        self.got.contains(&(host, id))
    }

    /// Whether any node on the way has refused or forgotten an order to keep its limits, or one
    /// that takes it back.
    pub(crate) fn is_crowded_out(&self, id: OrderId) -> bool {
        let takes_back = |order: &Order| {
            let mut olders = order.supersedes.iter().map(|(older, _)| *older).chain(order.cancels);
            olders.any(|older| older == id)
        };
        let cancels = |by: &OrderId| self.orders.get(by).is_some_and(|o| takes_back(o));
        self.refused.iter().any(|(_, refused)| *refused == id || cancels(refused))
    }

    /// Whether any node has forgotten an order.
    pub(crate) fn is_forgotten(&self, id: OrderId) -> bool {
        self.forgot.iter().any(|(_, forgot)| *forgot == id)
    }

    /// Whether an order's time is over.
    pub(super) fn is_expired(&self, id: OrderId, now: Duration) -> bool {
        self.expires.get(&id).is_none_or(|at| *at <= now)
    }
}
