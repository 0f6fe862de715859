//! When a node wants to be woken, and why.

use crate::Time;

/// Why a node wants to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wake {
    /// To beat, and to look who has not.
    Pulse,
    /// To dial a parent again.
    Redial,
    /// To look for a better parent.
    Climb,
    /// To announce its subtree.
    Announce,
    /// To send folded answers up.
    Flush,
    /// To acknowledge what nothing else has gone with.
    Ack,
    /// To see who was not reached.
    Reach,
    /// To forget an order.
    Expire,
    /// To release hosts, or to give them up.
    Gate,
    /// To save or tell events.
    Events,
    /// To say what is wanted of the bus.
    Bus,
    /// To tell profiles.
    Profiles,
    /// To ask for answers that have gone another way.
    Seek,
}

/// A deadline with its cause.
pub(crate) type Deadline = Option<(Time, Wake)>;

/// The earlier of two deadlines.
pub(crate) fn sooner(a: Deadline, b: Deadline) -> Deadline {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
