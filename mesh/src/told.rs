//! What a node tells whoever watches it.

use std::time::Duration;

use crate::fact::Folded;
use crate::{Digest, HostId, HostSet, OrderId, Peer, Profiled, PullFault, Reason, Report, Subtree};

/// What a node tells whoever watches it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A link stands.
    Linked {
        /// With whom.
        peer: Peer,
    },
    /// A link is gone.
    Unlinked {
        /// With whom.
        peer: Peer,
        /// Why, if this node closed it.
        reason: Option<Reason>,
    },
    /// The root's beat number has not moved for too long.
    RootStale {
        /// For how long.
        age: Duration,
    },
    /// The root's beat number moves again.
    RootFresh,
    /// Whether the parent itself tells people of a silent root, for all below it.
    Spoken(bool),
    /// Root: answers came in; to be made durable no later than the save that follows.
    Answers(Report),
    /// Root: answers to an order that it does not know, as they came; to be made durable no later
    /// than the save that follows. An order that is over may be such, or one that was given before
    /// the root was restored from a backup. Whoever invents one can send them, too.
    Unheard(Report),
    /// Root: each target of the order has an outcome now.
    Closed(OrderId),
    /// Root: these hosts may begin a gated order, beside those that were told before.
    Released {
        /// The order.
        order: OrderId,
        /// Who may begin.
        hosts: HostSet,
    },
    /// Root: nobody will be released any more for a gated order, though some never were and may
    /// still wait for it. They are to be told by an order under which it
    /// [lapses](crate::Order::lapses).
    Stopped {
        /// The order.
        order: OrderId,
        /// Those who wait in vain.
        hosts: HostSet,
        /// Why.
        why: Stop,
    },
    /// Root: the whole tree, as it is known now.
    Reachable(Subtree),
    /// Root: who lives below one of its own children, as the child says.
    Below {
        /// The child.
        child: HostId,
        /// Its subtree, itself included.
        below: HostSet,
    },
    /// A pull failed for good.
    PullFailed {
        /// What.
        content: Digest,
        /// Why.
        fault: PullFault,
    },
    /// Root: events, its own or from below; to be made durable no later than the save that follows.
    Happened(Vec<Folded>),
    /// Root: what hosts say of themselves. The newest of each is to be kept by the shell, which is
    /// told again whatever it may have lost with the process.
    Profiles(Vec<Profiled>),
    /// Events of this host found no room.
    Dropped {
        /// How many.
        count: u64,
    },
    /// A limit cut something.
    Cut {
        /// What, in words.
        what: &'static str,
        /// The order concerned.
        order: OrderId,
        /// How many.
        count: u64,
    },
}

/// Why the root releases nobody any more for a gated order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// Everybody who could be reached was released.
    Done,
    /// More hosts have failed than the order allows.
    Errors,
    /// More hosts were missed than the order allows.
    Missed,
    /// What is left of its validity is too short to begin anything.
    Late,
}
