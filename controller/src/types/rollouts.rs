//! Rollouts: what goes out in waves, and how it stands.

use serde::{Deserialize, Serialize};

/// How something goes out in waves; a part of what is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Waves {
    /// How far it has come after each wave: `1,5%,25%,100%`, or sets of hosts among them.
    pub waves: String,
    /// What a wave must have come to before the next one opens: `ok>=98% errors<=1% missed<=5%
    /// site-errors<=2 soak=10m check="COMMAND"`; empty: `errors<=1% missed<=10%`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub gate: String,
}

/// A rollout, in `GET /v1/rollouts`, `GET /v1/rollouts/{id}` and the lines of its `events`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutInfo {
    /// Its id, 32 hex digits.
    pub id: String,
    /// The short id that people type.
    pub short: String,
    /// `push` or `dist`.
    pub kind: String,
    /// What goes out, in one line.
    pub what: String,
    /// The gate, as it was asked for.
    pub gate: String,
    /// How many hosts it is for.
    pub hosts: u64,
    /// When it was begun.
    pub issued_ms: u64,
    /// When it has ended; 0 before.
    pub ended_ms: u64,
    /// `running`, `paused`, `stopped`, `aborted` or `done`.
    pub state: String,
    /// Of one that goes on: `waiting` for its beginning, `due`, `given`, `soaking` or `checking`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stage: String,
    /// When it is to begin; 0: at once.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub begins_ms: u64,
    /// Until when it soaks; 0: it does not.
    #[serde(default)]
    pub soaks_until_ms: u64,
    /// Why it has stopped.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// Which wave goes on or went last, from 1.
    pub wave: u64,
    /// All of them; in a list of rollouts none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waves: Vec<WaveInfo>,
    /// The sites that are left out, since too many of their hosts have failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// From how many hosts that had not begun a pause has taken it back; they get it when it is
    /// resumed. Not in a list of rollouts.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub taken_back: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A wave of a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaveInfo {
    /// How many hosts.
    pub hosts: u64,
    /// Who they are, folded.
    pub set: String,
    /// How many are ok.
    pub ok: u64,
    /// How many have failed.
    pub errors: u64,
    /// How many were not reached, not heard of to the end, or had it taken back.
    pub missed: u64,
    /// Of how many there is no word yet, or that it has not begun.
    pub pending: u64,
    /// How many are left out with their site.
    #[serde(default)]
    pub left_out: u64,
    /// How many get something newer instead, which has taken its place before they had begun.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub superseded: u64,
    /// The short ids of its orders, in the sequence in which they were given.
    pub orders: Vec<String>,
}

/// `POST /v1/rollouts/{id}/resume`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewResume {
    /// Whether the wave at which it has stopped is taken as good as it is.
    #[serde(default)]
    pub accept: bool,
    /// Another gate from here on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<String>,
}
