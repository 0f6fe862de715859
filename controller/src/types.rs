//! The words of the operators' API: JSON over HTTP on the controller's Unix socket.
//!
//! The CLI, scripts and any later web page speak only these. Within version 1 fields are only ever
//! added. Times are Unix milliseconds, sizes are bytes, durations carry their unit in their name.

use std::collections::BTreeMap;

mod events;

pub use events::{EventInfo, Filter, Problem, Report};
use serde::{Deserialize, Serialize};

/// An error as the API gives it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// A stable word for programs: `unknown-host`, `empty-set`, `bad-request`, `not-found`, ...
    pub code: String,
    /// What is wrong, naming the thing.
    pub message: String,
    /// What to do about it; may be empty.
    #[serde(default)]
    pub help: String,
}

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

/// `POST /v1/plan`: what an order would do. Nothing is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlanQuery {
    /// A run; its command may be missing.
    Run(Box<NewRun>),
    /// A push; its source is read and packed, as if it were to be given.
    Push(Box<NewPush>),
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
    /// For a run: how many bytes the order has on each link, frames of QUIC left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_bytes: Option<u64>,
    /// For a push: what it would change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push: Option<PushPlan>,
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
    /// For a push: the bytes of the order and of what its hosts need, which go over it once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
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
}

/// One line of `GET /v1/hosts`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
}

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
    /// At most so many of them behind each of the controller's own children.
    pub per_relay: Option<u64>,
    /// At most so many of them of each site.
    pub per_site: Option<u64>,
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
}

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
    /// How many bytes may go over each of the controller's links; with more nothing is pushed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_link_bytes: Option<u64>,
    /// How long to wait for a host that cannot be reached before saying so.
    pub reach_ms: u64,
    /// How long the push waits for hosts that are away.
    pub hold_ms: u64,
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

/// The answer to `GET /v1/store`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreInfo {
    /// Objects in the content store.
    pub objects: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// What is free on the disk, in bytes.
    pub free: u64,
}

/// The answer to `POST /v1/store/check`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreCheck {
    /// Objects that are what their names say.
    pub good: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// The ids of those that were not, and are removed.
    pub damaged: Vec<String>,
}

/// The answer to `POST /v1/store/gc`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreSweep {
    /// Objects that were removed.
    pub objects: u64,
    /// Bytes in them.
    pub bytes: u64,
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
    /// Nothing was ordered.
    Failed {
        /// Why.
        error: ApiError,
    },
}

/// An order, in `GET /v1/orders`, `GET /v1/orders/{id}` and the answers that make one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderInfo {
    /// Its id, 32 hex digits.
    pub id: String,
    /// The short id that people type: the end of the whole id, in practice unique for a long time.
    pub short: String,
    /// `run`, `push` or `cancel`.
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
}

/// `POST /v1/orders/{id}/cancel`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewCancel {
    /// How long to wait for a host that cannot be reached.
    pub reach_ms: u64,
}

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
}

/// One group of equal answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    Answer(Answer),
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
        order: OrderInfo,
    },
    /// The stream ends early; ask again.
    Lagged,
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

fn is_zero(number: &u64) -> bool {
    *number == 0
}
