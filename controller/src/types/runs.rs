//! Runs: a command, what it is given, how many hosts at a time, and doing it again.
//!
//! What hosts answer is in `orders`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::targets::Targets;

/// `POST /v1/runs`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewRun {
    /// Where.
    pub targets: Targets,
    /// The command and its arguments; with `shell`, one line.
    pub argv: Vec<String>,
    /// Whether `argv[0]` is a line for `/bin/sh -c`.
    #[serde(default)]
    pub shell: bool,
    /// Working directory; empty: `/`.
    #[serde(default)]
    pub dir: String,
    /// Additions to the command's environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// As whom it runs; empty: as the node does.
    #[serde(default)]
    pub user: String,
    /// Which permissions its new files lack; as the node's, if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub umask: Option<u32>,
    /// What it reads, as it was handed in with `POST /v1/pieces`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stdin: Vec<Piece>,
    /// Files that it is given in a private folder, handed in likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<GivenFile>,
    /// How many hosts at a time, and when to stop.
    #[serde(default)]
    pub pace: Pace,
    /// How long to wait for a host that cannot be reached.
    pub reach_ms: u64,
    /// How long the run waits for hosts that are away, after the others have answered; 0: no longer
    /// than `reach_ms`. Not together with a pace.
    #[serde(default)]
    pub hold_ms: u64,
    /// How long the command may run.
    pub timeout_ms: u64,
    /// How much of each of stdout and stderr is kept.
    pub output_limit: u64,
}

/// The most bytes that a command can be given to read.
pub const STDIN_LIMIT: u64 = protos::STDIN_LIMIT;

/// The most bytes of all files that a command can be given.
pub const FILES_LIMIT: u64 = protos::FILES_LIMIT;

/// A piece of content, as `POST /v1/pieces` answers: the request's body is the piece, of at most
/// 4 MiB.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Piece {
    /// Its hash, 64 hex digits.
    pub id: String,
    /// How many bytes it has.
    pub bytes: u64,
}

/// A file that a command is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GivenFile {
    /// Its name, without a path.
    pub name: String,
    /// Its bytes, in their sequence.
    pub pieces: Vec<Piece>,
}

/// How many hosts run at a time, and when to stop. Without any of it all begin at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pace {
    /// At most so many hosts (`5`, `"10%"` of the targets, at least one) at any time; with only a
    /// batch as many as that, with only a budget 64.
    pub window: Option<Amount>,
    /// At most so many of them behind each of the controller's own children (`5`, `"10%"` of the
    /// targets that are there at the moment, at least one).
    pub per_relay: Option<Amount>,
    /// At most so many of them of each site (`5`, `"10%"` of its targets, at least one).
    pub per_site: Option<Amount>,
    /// So many hosts (`5`, `10%` of the targets), and the next ones when all of these have ended.
    pub batch: Option<String>,
    /// How long to wait between two batches.
    pub batch_wait_ms: u64,
    /// Once more than so many (`0`, `2%`) have failed, the rest is skipped.
    pub max_errors: Option<String>,
    /// Once more than so many were missed, the rest is skipped.
    pub max_missed: Option<String>,
    /// After this time nobody begins any more: the rest is skipped.
    pub deadline_ms: Option<u64>,
}

/// A number, or a percentage as text: `5`, `"10%"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Amount {
    /// So many.
    Number(u64),
    /// A part, or a number as text.
    Text(String),
}

/// `POST /v1/orders/{id}/retry`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewRetry {
    /// Which hosts of the run: those that ended in one of these states. `failed`, `missed`,
    /// `timeout`, `skipped`, `cancelled`, `all` (of these), or a state as answers have it.
    pub states: Vec<String>,
    /// How long to wait for a host that cannot be reached, instead of as the run did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reach_ms: Option<u64>,
    /// How long the command may run, instead of as it might in the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}
