//! What a node keeps over a restart: [`Record`]s that it has written, and what was [`Saved`].

use std::sync::Arc;

use crate::fact::{FoldKey, Folded, Signature};
use crate::{HostId, HostSet, Order, OrderId, Report};

/// What is kept over a restart. The shell stores these by their keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// An order, by its id.
    Order(Arc<Order>),
    /// This host is about to start the order.
    Intent(OrderId),
    /// Answers taken over from a child or given by this host; appended to those of the order.
    /// They take back an earlier [`Record::Settled`] of it: the parent has not heard these yet.
    Answers(Report),
    /// Every answer that this node owes for the order has been acknowledged by the parent.
    Settled(OrderId),
    /// The bodies of its answers need not be kept: the parent holds them, and others need the room.
    Trimmed(OrderId),
    /// Root: these hosts, and those of earlier records, may begin a gated order.
    Released {
        /// The order.
        order: OrderId,
        /// Who is released now.
        hosts: HostSet,
    },
    /// Who was last seen below this child.
    Below {
        /// The child.
        child: HostId,
        /// Its subtree, itself included.
        below: HostSet,
    },
    /// Drop all that is kept of the order.
    Forget(OrderId),
    /// Events that this host has noticed itself, by their signature; replaces what there was.
    Own(Folded),
    /// None of its own events of these signatures need be remembered.
    OwnGone(Vec<Signature>),
    /// Events from below, by signature and window; replaces what there was.
    Events(Folded),
    /// The parent holds these. Of none: a mark between what came before and what comes after.
    EventsGone(Vec<FoldKey>),
}

/// What a shell found on disk at start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// Orders, with the ttl that is left.
    pub orders: Vec<Arc<Order>>,
    /// Orders that this host had begun.
    pub intents: Vec<OrderId>,
    /// Answers, in any order.
    pub answers: Vec<Report>,
    /// Orders whose answers the parent has.
    pub settled: Vec<OrderId>,
    /// Subtrees of children.
    pub below: Vec<(HostId, HostSet)>,
    /// Root: who was released, in any order.
    pub released: Vec<(OrderId, HostSet)>,
    /// Events of this host itself.
    pub own: Vec<Folded>,
    /// Events from below.
    pub events: Vec<Folded>,
}
