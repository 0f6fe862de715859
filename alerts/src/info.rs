//! Alerts and channels as operators see them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::keep::SilenceRow;

/// All that a desk knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overview {
    /// Its alerts, by their keys.
    pub alerts: Vec<AlertInfo>,
    /// Its silences that have not ended.
    pub silences: Vec<SilenceRow>,
    /// Its channels.
    pub channels: Vec<ChannelInfo>,
    /// What it does by itself, in the order of the file.
    #[serde(default)]
    pub reactions: Vec<ReactionInfo>,
}

/// How an alert stands, for operators.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertInfo {
    /// What tells it from all others.
    pub key: String,
    /// The same, short.
    pub id: String,
    /// Its kind.
    pub kind: String,
    /// `info`, `warning` or `critical`.
    pub severity: String,
    /// `pending`, `firing` or `over`.
    pub state: String,
    /// What it is told together with.
    pub group: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// It in one line.
    pub summary: String,
    /// What to do.
    pub help: String,
    /// Since when it is so, in unix milliseconds.
    pub began_ms: u64,
    /// Since when it is an alert; 0: it never was.
    pub fired_ms: u64,
    /// Since when it is not so any more; 0: it is.
    pub ended_ms: u64,
    /// When somebody was last told that it fires; 0: nobody thinks so.
    pub told_ms: u64,
    /// Whether it comes and goes.
    pub flapping: bool,
    /// The key of the larger cause that keeps it quiet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inhibited_by: Option<String>,
    /// The id of the silence that keeps it quiet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silenced_by: Option<String>,
    /// Who has taken it upon himself, and what he says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acked_by: Option<String>,
    /// What he says.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// How a channel does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelInfo {
    /// Its name.
    pub name: String,
    /// `command`, `webhook`, `syslog`, `file`, `journald` or `mail`.
    pub kind: String,
    /// How many messages wait for it.
    pub waiting: usize,
    /// How many it has taken since the start.
    pub sent: u64,
    /// How many it has refused.
    pub refused: u64,
    /// Since when it takes nothing; 0: it does.
    pub failing_ms: u64,
    /// What it said last, if that was no.
    pub error: String,
}

/// A reaction, and what has come of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReactionInfo {
    /// Its name.
    pub name: String,
    /// The kinds of alerts that it is for.
    pub kinds: Vec<String>,
    /// The sites; none: all.
    pub sites: Vec<String>,
    /// At least of this severity.
    pub severity: String,
    /// What it does, in a line.
    pub does: String,
    /// At most so often within so many seconds.
    pub most: u64,
    /// So many.
    pub per_s: u64,
    /// How often it has begun within these.
    pub begun: u64,
    /// When it last began, if that is known; 0: it is not, or never.
    pub begun_ms: u64,
    /// Whether it goes on now.
    pub goes_on: bool,
    /// What it has come to last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Reacted>,
    /// How often it was held: not done, though an alert wanted it.
    pub held_count: u64,
    /// Why, the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Reacted>,
}

/// What a reaction has come to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reacted {
    /// `done`, `failed` or `held`.
    pub state: String,
    /// When, in unix milliseconds.
    pub at_ms: u64,
    /// For which alert, by its key.
    pub alert: String,
    /// What has come of it, or why nothing.
    pub text: String,
}

/// Somebody takes an alert upon himself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewAck {
    /// The alert: its key, or its id or the beginning of it.
    pub alert: String,
    /// Who takes it upon himself.
    pub by: String,
    /// What he says about it.
    #[serde(default)]
    pub note: String,
}

/// A channel is tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewTest {
    /// The channel.
    pub channel: String,
}
