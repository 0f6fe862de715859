//! What an order would do and cost, told before it is given.
//!
//! Nothing here is done or kept: the answer holds for the moment in which it was made.

use serde::{Deserialize, Serialize};

use super::pushes::NewPush;
use super::runs::NewRun;
use crate::fleet::types::NewDist;

/// `POST /v1/plan`: what an order would do. Nothing is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlanQuery {
    /// A run; its command may be missing.
    Run(Box<NewRun>),
    /// A push; its source is read and packed, as if it were to be given.
    Push(Box<NewPush>),
    /// A distribution; its orders are packed likewise.
    Dist(Box<NewDist>),
}

/// The answer to `POST /v1/plan`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The targets, in natural order.
    pub hosts: Vec<String>,
    /// The same, folded.
    pub set: String,
    /// Those that cannot be reached now, folded.
    pub down: String,
    /// How many.
    pub down_count: u64,
    /// Relays among the targets, folded.
    pub relays: String,
    /// The controller's own links that the order would cross, the one with the most targets first.
    pub links: Vec<PlanLink>,
    /// How many bytes the order has on each link, frames of QUIC left out; of a distribution all of
    /// its orders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_bytes: Option<u64>,
    /// For a push: what it would change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push: Option<PushPlan>,
    /// For a distribution: what it would bring.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dist: Option<DistPlan>,
    /// If it would go in waves: who gets it when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waves: Option<WavesPlan>,
    /// For a push that says `preflight`: whether the relays above its hosts have room for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rooms: Vec<PlanRoom>,
}

/// What a push brings to a relay, in a [`Plan`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanRoom {
    /// The relay.
    pub relay: String,
    /// Its site.
    pub site: String,
    /// The content that the push brings there, in bytes; some of it may be there already.
    pub bytes: u64,
    /// What would find room in its content store, in bytes; none: it does not say.
    pub room: Option<u64>,
}

/// How the targets of a [`Plan`] divide over waves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WavesPlan {
    /// What each wave must have come to; empty: `errors<=1% missed<=10%`.
    pub gate: String,
    /// The waves, in their sequence.
    pub waves: Vec<PlanWave>,
}

/// A wave of a [`WavesPlan`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanWave {
    /// The hosts, folded.
    pub set: String,
    /// How many.
    pub count: u64,
    /// Those of them that cannot be reached now, folded.
    pub down: String,
    /// How many.
    pub down_count: u64,
}

/// What a distribution would bring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DistPlan {
    /// The files, by their domainpaths.
    pub files: Vec<String>,
    /// In how many orders, were it given to everybody at once.
    pub orders: u64,
    /// What there is to say of it, a line each.
    pub notes: Vec<String>,
}

/// What a push would change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushPlan {
    /// Files in the source.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// The root hash of the tree.
    pub manifest: String,
    /// What changes, for each of the trees that hosts have now.
    pub steps: Vec<PushStep>,
    /// Entries of the source that are neither file, directory nor symlink.
    pub skipped: Vec<String>,
}

/// What a push changes for hosts that have the same tree now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushStep {
    /// The hosts, folded.
    pub set: String,
    /// How many.
    pub count: u64,
    /// Whether it is known what they have; else all of the source counts as new.
    pub known: bool,
    /// Entries that are new.
    pub added: u64,
    /// Entries with other content, or of another kind.
    pub changed: u64,
    /// Entries of which only mode, owner or time changes.
    pub described: u64,
    /// Entries that the source no longer has; they go with `delete`.
    pub removed: u64,
    /// The first of these, as `+ path`, `* path`, `~ path` and `- path`.
    pub changes: Vec<String>,
    /// Bytes in the files that are new or have other content.
    pub changed_bytes: u64,
    /// Bytes that travel for it.
    pub pack_bytes: u64,
}

/// A link of the controller in a [`Plan`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanLink {
    /// Who is at the other end; empty: nobody knows the way to these targets.
    pub via: String,
    /// Its site.
    pub site: String,
    /// How many targets are behind it, itself included.
    pub targets: u64,
    /// How many of them cannot be reached now.
    pub down: u64,
    /// Round-trip time in microseconds; 0 if the link is down.
    pub rtt_us: u64,
    /// For a push or a distribution: the bytes of its orders and of what its hosts need, which go
    /// over it once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}
