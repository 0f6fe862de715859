//! Orders about the tree itself: who is to have which parent, and how much content from it.
//!
//! How the tree is now is in `hosts`.

use serde::{Deserialize, Serialize};

use super::orders::OrderInfo;
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

/// `POST /v1/delegations`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewDelegation {
    /// The relay.
    pub relay: String,
    /// For how long its operators may give orders; 0: what they may is taken back.
    pub for_ms: u64,
    /// Which orders: `run`, with taking them back.
    #[serde(default)]
    pub kinds: Vec<String>,
    /// For whom; not given: for the relay and everybody below it now.
    #[serde(default)]
    pub targets: Option<Targets>,
    /// How long to wait for the relay if it cannot be reached; it gets it when it is back.
    pub reach_ms: u64,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delegated {
    /// The order that tells the relay; not of what is taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<OrderInfo>,
    /// What holds from now on, or what was taken back.
    pub delegations: Vec<DelegationInfo>,
}

/// What the operators of a relay may order, in `GET /v1/delegations`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelegationInfo {
    /// The relay.
    pub relay: String,
    /// `holds`, `ended` or `taken-back`.
    pub state: String,
    /// Which orders.
    pub kinds: Vec<String>,
    /// For whom, folded.
    pub targets: String,
    /// How many nodes these are.
    pub count: u64,
    /// From when on.
    pub from_ms: u64,
    /// Until when.
    pub until_ms: u64,
}
