//! Events and error reports.

use serde::{Deserialize, Serialize};

/// Events that are alike, as far as they are known: an answer of `GET /v1/events`. The same id
/// comes again, with a higher cursor, when there are more of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventInfo {
    /// Where this stands in the sequence of all that has become known; to go on from.
    pub cursor: u64,
    /// What these events are known by.
    pub id: String,
    /// What the whole of them is known by, whatever the time and the order.
    pub signature: String,
    /// What they are about, as in `run.failed`.
    pub subject: String,
    /// `info`, `warning` or `error`.
    pub severity: String,
    /// Whose trouble it is: `controller`, `relay`, `down`, `space`, `command` or `client`.
    pub class: String,
    /// One of them, in one line.
    pub line: String,
    /// The whole of it, if it was more than a line; else empty.
    pub text: String,
    /// Who has said that.
    pub node: String,
    /// The line without what may differ from host to host.
    pub like: String,
    /// The order that it is about; else empty.
    pub order: String,
    /// How many events.
    pub count: u64,
    /// How many hosts.
    pub hosts: u64,
    /// Which hosts, folded.
    pub set: String,
    /// Their sites.
    pub sites: Vec<String>,
    /// The first of them, by the clock of its host.
    pub first_ms: u64,
    /// The last of them, by the clock of its host.
    pub last_ms: u64,
    /// When the controller has heard of the first of them.
    pub heard_ms: u64,
    /// When the controller has heard of the last of them.
    pub heard_last_ms: u64,
}

/// What went wrong in a while: an answer of `GET /v1/reports/...`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// `hour`, `day` or `errors`.
    pub kind: String,
    /// From then on, by the controller's clock.
    pub start_ms: u64,
    /// Until then.
    pub end_ms: u64,
    /// The same in words, in the controller's time zone.
    pub title: String,
    /// Whether the time is over.
    pub is_over: bool,
    /// What is wrong, each thing once.
    pub problems: Vec<Problem>,
    /// What was wrong in the time before that, of the same length, and is not any more.
    pub resolved: Vec<Problem>,
    /// The same by site or domain, if that was asked for. Who has none is in the part `-`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<ReportPart>,
    /// Events that `filter.delete` has taken out.
    pub discarded: u64,
    /// Events that are in the daily report only.
    pub daily: u64,
    /// Hosts that have said what became of a distribution.
    #[serde(default)]
    pub reached: u64,
    /// Files that hosts have newly in place, each counted for each host; none in a report of some
    /// hosts only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated: Option<u64>,
    /// Whether a part of this is not kept any more.
    pub is_partial: bool,
}

/// What went wrong in a site or domain, with the counts of its hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportPart {
    /// The site or domain.
    pub name: String,
    /// As in [`Report`].
    pub problems: Vec<Problem>,
    /// As in [`Report`].
    pub resolved: Vec<Problem>,
}

/// Errors that are alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// As in [`EventInfo`].
    pub signature: String,
    /// As in [`EventInfo`].
    pub subject: String,
    /// As in [`EventInfo`].
    pub severity: String,
    /// As in [`EventInfo`].
    pub class: String,
    /// The file under control that it is about, as a domainpath; else empty.
    #[serde(default)]
    pub path: String,
    /// One of them, in one line. In a report of some hosts others may have said it.
    pub line: String,
    /// The whole of it, if it was more than a line; empty if none of these hosts has said it.
    pub text: String,
    /// Who has said that; empty if none of these hosts has.
    pub node: String,
    /// What it probably comes from, and what to do; may be empty.
    pub cause: String,
    /// The order that it is about; empty if none of these hosts has said it.
    pub order: String,
    /// How many events.
    pub count: u64,
    /// How many hosts.
    pub hosts: u64,
    /// Which hosts, folded.
    pub set: String,
    /// The first names of them, at most twenty.
    pub names: Vec<String>,
    /// The first, by the clock of its host; 0 in a report of some hosts if others had it, too.
    pub first_ms: u64,
    /// The last, by the clock of its host, or 0 likewise.
    pub last_ms: u64,
    /// Whether nothing like it was known before, of any host.
    pub is_new: bool,
}

/// A list of expressions: `GET` and `PUT /v1/filters/{delete,day}`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// The list as it was written, one expression a line.
    pub text: String,
}
