//! Orders of every kind once they are given: how they stand, what hosts answer, taking them back.
//!
//! What an order was made of is with its kind: `runs`, `pushes`, `tree`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::pushes::PushInfo;

/// An order, in `GET /v1/orders`, `GET /v1/orders/{id}` and the answers that make one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderInfo {
    /// Its id, 32 hex digits.
    pub id: String,
    /// The short id that people type: the end of the whole id, in practice unique for a long time.
    pub short: String,
    /// `run`, `push`, `stage`, `dist`, `cancel`, `steer`, ...
    pub kind: String,
    /// What was ordered, in one line.
    pub what: String,
    /// The targets, folded.
    pub targets: String,
    /// How many.
    pub count: u64,
    /// When it was given.
    pub issued_ms: u64,
    /// When each target had an outcome; 0 while it is open.
    pub closed_ms: u64,
    /// How many targets stand where: by state word, `pending` for those without an outcome.
    pub states: BTreeMap<String, u64>,
    /// For a `cancel`: the id of the order that it takes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancels: Option<String>,
    /// Why the rest of a run was skipped: `errors`, `missed` or `deadline`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
    /// The id of the run of which this one is a repetition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<String>,
    /// For a push: what it weighs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push: Option<PushInfo>,
    /// For a stage: the same. Hosts that are `ok` have its content, and nothing is in place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<PushInfo>,
    /// For a stage: until when it can be started.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub stays_until_ms: u64,
    /// For a run: how much of each of stdout and stderr its answers have at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_limit: Option<u64>,
    /// The relay whose own operator has given it; else it was given here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_by: Option<String>,
    /// Who has given it, as far as is known: `root`, or `ada (root)` if somebody says that he is
    /// ada, and is root; or what did it by itself, as `schedule`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
    /// For a push or a distribution: the newer orders that have taken its place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub superseded: Vec<Superseded>,
}

/// A newer order that has taken the place of one, at hosts that have not begun it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Superseded {
    /// The short id of the newer order.
    pub by: String,
    /// The hosts, folded.
    pub set: String,
    /// How many.
    pub count: u64,
}

/// `GET /v1/orders/{id}`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderDetail {
    /// The order.
    pub order: OrderInfo,
    /// Its answers, equal ones together, the largest group first.
    pub answers: Vec<Answer>,
    /// Names of targets without an outcome.
    pub pending: Vec<String>,
}

/// One group of equal answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Names of the hosts, in natural order.
    pub hosts: Vec<String>,
    /// The same, folded.
    pub set: String,
    /// `ok`, `failed`, `signalled`, `timed-out`, `interrupted`, `cancelled`, `refused`, `skipped`,
    /// `expired`, `relay-lost`, `not-reached`.
    pub state: String,
    /// The exit code of `failed`, the signal of `signalled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// Standard output: UTF-8 text, or base64 if `binary`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stdout: String,
    /// Standard error, likewise.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stderr: String,
    /// Whether stdout and stderr are base64.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub binary: bool,
    /// True size of standard output.
    #[serde(default)]
    pub stdout_size: u64,
    /// True size of standard error.
    #[serde(default)]
    pub stderr_size: u64,
    /// What the host keeps for a while of standard output that was cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout_kept: Option<KeptOutput>,
    /// What it keeps of standard error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr_kept: Option<KeptOutput>,
    /// What the host itself says went wrong: `stage: kind: detail`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub fault: String,
    /// Warnings of a push.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Files, links and folders written by a push.
    #[serde(default)]
    pub written: u64,
    /// Files, links and folders that a push found in place.
    #[serde(default)]
    pub unchanged: u64,
    /// Files, links and folders that a push deleted.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub deleted: u64,
    /// Of a verification: entries that are not as they should be; they are told on stdout.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub drift: u64,
    /// Whether the output was cut by a limit on the way, though the outcome is right.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub body_lost: bool,
}

/// Output that a host keeps: `GET /v1/orders/{id}/output/{host}` has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptOutput {
    /// The first so many bytes of the stream.
    pub bytes: u64,
    /// Their BLAKE3 hash, 64 hex digits.
    pub hash: String,
}

/// One line of `GET /v1/orders/{id}/events`: all that is known, then what comes, until it closes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum OrderEvent {
    /// Hosts have answered; a later line about the same host replaces an earlier one.
    Answer(Box<Answer>),
    /// With `?output=live`: what a command has written at one host, while it runs. A preview:
    /// pieces may be missing, come again or follow after the answer, which has everything.
    Output {
        /// Its name.
        host: String,
        /// `stdout` or `stderr`.
        stream: String,
        /// How many bytes of that stream came before.
        offset: u64,
        /// What was written: UTF-8 text, or base64 if `binary`.
        data: String,
        /// Whether `data` is base64, as where a piece ends within a character.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        binary: bool,
    },
    /// How far a push is, about twice a second while it runs.
    Progress {
        /// Hosts with an outcome.
        done: u64,
        /// All of them.
        total: u64,
        /// By site: content bytes sent over its link for all orders since this stream began.
        content_sent: BTreeMap<String, u64>,
    },
    /// Each target has an outcome.
    Closed {
        /// The order as it stands.
        order: Box<OrderInfo>,
    },
    /// The stream ends early; ask again.
    Lagged,
}

/// `POST /v1/orders/{id}/cancel`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewCancel {
    /// How long to wait for a host that cannot be reached.
    pub reach_ms: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}
