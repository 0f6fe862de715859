//! Orders about the tree itself: who is to have which parent, and how much content from it.
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

/// `POST /v1/tree/cap`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewCap {
    /// A relay or host, or a site: then those of its nodes whose parents are elsewhere.
    pub name: String,
    /// What their links may carry of content; none: they only say what holds.
    #[serde(default)]
    pub cap: Option<Cap>,
    /// How long to wait for a node that cannot be reached.
    pub reach_ms: u64,
}

/// What becomes of the cap of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Cap {
    /// As the node's own calendar says again.
    Clear,
    /// So much, in the place of the calendar.
    Set {
        /// Bits a second, at least 8,000; 0: as much as the link carries.
        rate: u64,
        /// For how long; 0: until it is changed.
        for_ms: u64,
    },
}

/// `POST /v1/tree/survey`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewSurvey {
    /// Who is asked for its parents.
    pub targets: Targets,
    /// How long to wait for a node that cannot be reached.
    pub reach_ms: u64,
}
