//! What there is: the mesh, its hosts and their labels, the controller's links, tokens to join.
//!
//! How hosts come to hang below other relays is said in `tree`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::targets::Targets;

/// `GET /v1/status`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The mesh's id.
    pub mesh: String,
    /// The controller's version.
    pub version: String,
    /// Where nodes dial (UDP).
    pub listen: String,
    /// Nodes enrolled, the controller left out.
    pub nodes: u64,
    /// Of them reachable.
    pub up: u64,
    /// Orders that are not closed yet.
    pub open_orders: u64,
    /// Why the controller takes no new orders at present; empty if it does.
    #[serde(default)]
    pub degraded: String,
    /// Orders that are no longer kept, with their answers.
    #[serde(default)]
    pub retired: u64,
    /// When the youngest of them was given.
    #[serde(default)]
    pub retired_until_ms: u64,
    /// Events that are not kept any more.
    #[serde(default)]
    pub events_retired: u64,
    /// Until when the youngest of them had grown.
    #[serde(default)]
    pub events_retired_until_ms: u64,
    /// Of a relay's own socket: its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<String>,
}

/// One line of `GET /v1/hosts`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostInfo {
    /// Its number.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Its site.
    pub site: String,
    /// `relay` or `host`.
    pub role: String,
    /// Whether it is reachable now.
    pub up: bool,
    /// The name of the controller's direct child through which it is reached; its own if it is one.
    /// At a relay: of its own child, or the relay's for that child.
    pub via: String,
    /// When it enrolled.
    pub enrolled_ms: u64,
    /// The name of its own parent, `controller` or a relay; empty if that is not known.
    #[serde(default)]
    pub parent: String,
    /// Whether its state disk is short of room: it refuses new work.
    #[serde(default)]
    pub degraded: bool,
    /// What operators have said of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Whether it is not reachable because nothing is heard of it, or of the relay that it is
    /// behind; not because it was stopped.
    #[serde(default)]
    pub stale: bool,
    /// What it says of itself.
    #[serde(default)]
    pub facts: BTreeMap<String, String>,
    /// When it said so; 0: it never did.
    #[serde(default)]
    pub facts_ms: u64,
}

/// `POST /v1/labels`; answered with how many hosts that concerns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NewLabels {
    /// Which hosts.
    pub targets: Targets,
    /// Labels that they get, in the place of any with these names.
    pub set: BTreeMap<String, String>,
    /// Names of labels that they lose.
    pub remove: Vec<String>,
}

/// One of the controller's own links, in `GET /v1/links`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkInfo {
    /// Who is at the other end.
    pub name: String,
    /// Its site.
    pub site: String,
    /// From where it is linked; empty if it is not linked now.
    pub address: String,
    /// Since when; 0 if it is not linked now.
    pub since_ms: u64,
    /// Round-trip time in microseconds.
    pub rtt_us: u64,
    /// How many nodes are known behind it, itself included.
    pub nodes: u64,
    /// Of them reachable.
    pub up: u64,
    /// UDP payload bytes sent over all its connections since enrolment.
    pub wire_sent: u64,
    /// UDP payload bytes received.
    pub wire_received: u64,
    /// Content bytes sent.
    pub content_sent: u64,
    /// Content bytes received.
    pub content_received: u64,
    /// What content may go down it now, in bits a second; 0: as much as it carries.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cap: u64,
    /// What it was seen to carry, in bits a second; 0: not known, as of one that has carried
    /// little yet. With a round trip of less than 3 ms it is the most that it has carried within a
    /// second, from 12 Mbit/s on.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub carries: u64,
    /// Whether content gives way to other traffic there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub yields: bool,
    /// For how long nothing has come from it, in milliseconds; 0 if it is not linked now.
    #[serde(default)]
    pub silent_ms: u64,
    /// Whether it has missed two beats. With the third its link is given up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspect: bool,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// `POST /v1/tokens`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// `relay` or `host`.
    pub role: String,
    /// The site of the newcomer; may be empty.
    #[serde(default)]
    pub site: String,
    /// The only name that may use it; empty: any free name.
    #[serde(default)]
    pub name: String,
    /// How long it is good, at most a day.
    pub ttl_s: u64,
}

/// A token, as it is made (with its text) or listed (without).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenInfo {
    /// Its public name.
    pub id: String,
    /// The whole token; only in the answer that makes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The role that it grants.
    pub role: String,
    /// The site that it grants.
    pub site: String,
    /// The only name that may use it, if any.
    pub name: String,
    /// When it stops being good.
    pub expires_ms: u64,
    /// The host that has used it, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_by: Option<String>,
}
