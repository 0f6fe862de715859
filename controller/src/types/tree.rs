//! Orders about the tree itself: who is to have which parent.
//!
//! How the tree is now is in `hosts`.

use serde::{Deserialize, Serialize};

use super::targets::Targets;

/// `POST /v1/tree/move`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewMove {
    /// Relays and hosts.
    pub targets: Targets,
    /// The parents that they are to have, as `host:port`; none: as configured. At most 8.
    pub to: Vec<String>,
    /// How long to wait for a node that cannot be reached.
    pub reach_ms: u64,
}

/// `POST /v1/tree/drain`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewDrain {
    /// The relay that its children are to leave.
    pub relay: String,
    /// Those that were told to leave it may have it again.
    #[serde(default)]
    pub undo: bool,
    /// How long to wait for a node that cannot be reached.
    pub reach_ms: u64,
}
