//! Pushes: files from the controller to hosts, on what terms, and the way back.
//!
//! What hosts answer is in `orders`, what a push would change in `plan`.

use serde::{Deserialize, Serialize};

use super::ApiError;
use super::orders::OrderInfo;
use super::rollouts::{RolloutInfo, Waves};
use super::targets::Targets;

/// `POST /v1/pushes`; answered by a stream of [`PushEvent`] lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewPush {
    /// Where.
    pub targets: Targets,
    /// A folder or file at the controller, absolute.
    pub source: String,
    /// Where it goes at each host, absolute.
    pub dest: String,
    /// Patterns of what is left alone: neither sent nor deleted.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// What goes below the destination that the source lacks: `installed` what an earlier push
    /// installed and nobody has changed since, `all` everything; empty: nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub delete: String,
    /// How many entries a host may delete (`50`, `5%` of what is there) before it refuses; empty:
    /// 100 or 10 %, whichever is more.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub max_delete: String,
    /// Whether the tree is put in place as a whole, by exchange with the one that is there, which
    /// is kept for going back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tree: bool,
    /// Whether what holds the right thing is left as it is, whatever its mode, owner and time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub content_only: bool,
    /// Whether files that were changed later than those of the source stay.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keep_newer: bool,
    /// What is put behind the name of a file that is replaced, to keep it; empty: it is not kept.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub save: String,
    /// A line for the shell at each host, before anything is touched; if it fails nothing is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub before: String,
    /// A line for the shell at each host, when all is in place, if anything has changed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub after: String,
    /// Lines for the shell for changed files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub special: Vec<Special>,
    /// Whether owners and groups go by number, not by name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub numeric_ids: bool,
    /// Whether nothing is changed, and hosts only say what is different.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub verify: bool,
    /// With `verify`: whether hosts only say what would keep the push from going through.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub preflight: bool,
    /// The id of a preflight of the same push: the tree that was read for it is pushed, as long as
    /// it is in the store, and hosts of which nothing else is known get what they said then that
    /// they lack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<String>,
    /// How fast its content may go over each link, in bits a second; 0: as fast as it can.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rate: u64,
    /// How many bytes may go over each of the controller's links; with more nothing is pushed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_link_bytes: Option<u64>,
    /// How long to wait for a host that cannot be reached before saying so.
    pub reach_ms: u64,
    /// How long the push waits for hosts that are away.
    pub hold_ms: u64,
    /// The waves in which it goes; without, and for more hosts than the controller lets have it at
    /// once, the usual ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waves: Option<Waves>,
    /// Whether everybody gets it at once, however many they are.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all_at_once: bool,
    /// When it is to begin: `[DATE] TIME [ZONE]`, as in `22:00` or `2026-12-01 02:30 UTC`; the zone
    /// `site` means the clocks of the hosts' sites. Empty: at once.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub begins: String,
    /// Whether only its content travels now, and stays where it is needed for `hold_ms`, until it
    /// is started.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stage: bool,
}

/// `POST /v1/pushes/{id}/start`: what was staged is put in place; answered by a stream of
/// [`PushEvent`] lines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewStart {
    /// At which hosts of the stage; all, if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub targets: Option<Targets>,
    /// How long to wait for a host that cannot be reached before saying so.
    pub reach_ms: u64,
    /// How long the push waits for hosts that are away.
    pub hold_ms: u64,
    /// The waves in which it goes, as of a push.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waves: Option<Waves>,
    /// Whether everybody gets it at once, however many they are.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all_at_once: bool,
    /// When it is to begin, as of a push.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub begins: String,
    /// How many bytes may go over each of the controller's links, beyond what was staged; with more
    /// nothing is started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_link_bytes: Option<u64>,
}

/// A line for the shell for each changed file that a pattern means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Special {
    /// The pattern, as in `exclude`.
    pub pattern: String,
    /// The line. `FILE`, `REMFILE` and `BASEFILE` in its environment tell the file.
    pub command: String,
}

/// `POST /v1/rollbacks`; answered by a stream of [`PushEvent`] lines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewRollback {
    /// The push that is undone, wherever it is still in place; empty: what is at `dest`.
    #[serde(default)]
    pub push: String,
    /// Where to go back to what was there before; only without `push`.
    #[serde(default)]
    pub dest: String,
    /// Which hosts; with `push` it may be left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub targets: Option<Targets>,
    /// How long to wait for a host that cannot be reached before saying so.
    pub reach_ms: u64,
    /// How long the order waits for hosts that are away.
    pub hold_ms: u64,
}

/// One line of the answer to `POST /v1/pushes`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum PushEvent {
    /// The source is being read.
    Reading {
        /// Files so far.
        files: u64,
        /// Bytes so far.
        bytes: u64,
    },
    /// The pack is being made.
    Packing,
    /// The order is on its way.
    Ordered {
        /// The order.
        order: Box<OrderInfo>,
        /// Entries that are neither file, directory nor symlink.
        skipped: Vec<String>,
    },
    /// It goes out in waves, by itself.
    Rolling {
        /// The rollout.
        rollout: Box<RolloutInfo>,
        /// Entries that are neither file, directory nor symlink.
        skipped: Vec<String>,
    },
    /// Nothing was ordered.
    Failed {
        /// Why.
        error: ApiError,
    },
}

/// What a push weighs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushInfo {
    /// Files in the tree.
    pub files: u64,
    /// Bytes in the tree.
    pub bytes: u64,
    /// Bytes of the packs made for it, all bases together.
    pub pack_bytes: u64,
    /// The tree's root hash.
    pub manifest: String,
    /// Where it goes.
    pub dest: String,
    /// Whether it was put in place as a whole, and what was there before kept.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tree: bool,
    /// Whether nothing was to be changed, only compared.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub verify: bool,
    /// How fast its content may go over each link, in bits a second; 0: as fast as it can.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rate: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}
