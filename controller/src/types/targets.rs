//! Who is meant: targets of an order as operators write them, and groups.
//!
//! What a set means is decided by the controller; here are only its words.

use serde::{Deserialize, Serialize};

/// Which hosts an order is for, as the options of the same names say; resolved by the controller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Targets {
    /// Sets of names, folded or not: `web[1-3],db1,@group`.
    pub sets: Vec<String>,
    /// Every host (not relays).
    pub all: bool,
    /// Groups: the sites, and those of `groups.toml`.
    pub groups: Vec<String>,
    /// Sets to leave out; they win.
    pub exclude: Vec<String>,
    /// Groups to leave out; they win.
    pub exclude_groups: Vec<String>,
    /// Sets outside of which nobody is meant.
    pub limit: Vec<String>,
    /// How many of those that are left to choose at random: `5`, `10%`, `1/site`; empty: all.
    pub pick: String,
    /// What decides the choice: the same seed chooses the same hosts.
    pub seed: u64,
}

/// The answer to `POST /v1/resolve`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// The names, in natural order.
    pub hosts: Vec<String>,
    /// The same, folded.
    pub set: String,
}

/// `POST /v1/groups`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GroupQuery {
    /// A source, `*` for each; empty: the groups of `groups.toml` and the sites.
    pub source: String,
    /// Only groups in which one of these is.
    pub of: Option<Targets>,
}

/// One group in the answer to `POST /v1/groups`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupInfo {
    /// As it is written in a set: `@lyon`, `@racks:r1`.
    pub name: String,
    /// Who is in it, folded; of those that were asked about.
    pub set: String,
    /// How many.
    pub count: u64,
    /// How long ago its source said so; 0 for what is known here.
    pub age_ms: u64,
    /// Why nobody knows who is in it; empty if all is well.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error: String,
}
