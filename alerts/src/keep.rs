//! What is kept of alerts and silences over a restart, as rows of JSON.
//!
//! The controller has them in its tables, a node in one small file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use mesh::alerts::{Ack, Alert, Condition, Phase, Severity, Silence};
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::clock::{from_ms, to_ms};
use crate::disk::replace;

/// An alert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertRow {
    key: String,
    kind: String,
    group: String,
    severity: Word,
    labels: BTreeMap<String, String>,
    summary: String,
    hold_ms: u64,
    cause: Option<String>,
    source: String,
    phase: PhaseWord,
    began_ms: u64,
    fired_ms: Option<u64>,
    ended_ms: Option<u64>,
    told_ms: Option<u64>,
    fires_ms: Vec<u64>,
    ack: Option<AckRow>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct AckRow {
    by: String,
    note: String,
    at_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Info,
    Warning,
    Critical,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum PhaseWord {
    Pending,
    Firing,
    Over,
}

/// A silence.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SilenceRow {
    /// Its id.
    pub id: String,
    /// For each of these labels the alert has one of the values; `kind` is one of them.
    pub labels: BTreeMap<String, BTreeSet<String>>,
    /// From when on, in unix milliseconds.
    pub from_ms: u64,
    /// Until when.
    pub until_ms: u64,
    /// Who has asked for it.
    pub author: String,
    /// Why.
    pub reason: String,
}

impl From<&Alert> for AlertRow {
    fn from(alert: &Alert) -> AlertRow {
        let Condition { key, kind, group, severity, labels, summary, hold, cause } =
            alert.condition.clone();
        let ack = alert.ack.as_ref().map(|ack| AckRow {
            by: ack.by.clone(),
            note: ack.note.clone(),
            at_ms: to_ms(ack.at),
        });
        AlertRow {
            key,
            kind,
            group,
            severity: match severity {
                Severity::Info => Word::Info,
                Severity::Warning => Word::Warning,
                Severity::Critical => Word::Critical,
            },
            labels,
            summary,
            hold_ms: u64::try_from(hold.as_millis()).unwrap_or(u64::MAX),
            cause,
            source: alert.source.clone(),
            phase: match alert.phase {
                Phase::Pending => PhaseWord::Pending,
                Phase::Firing => PhaseWord::Firing,
                Phase::Over => PhaseWord::Over,
            },
            began_ms: to_ms(alert.began),
            fired_ms: alert.fired.map(to_ms),
            ended_ms: alert.ended.map(to_ms),
            told_ms: alert.told.map(to_ms),
            fires_ms: alert.fires.iter().copied().map(to_ms).collect(),
            ack,
        }
    }
}

impl From<AlertRow> for Alert {
    fn from(row: AlertRow) -> Alert {
        let condition = Condition {
            key: row.key,
            kind: row.kind,
            group: row.group,
            severity: match row.severity {
                Word::Info => Severity::Info,
                Word::Warning => Severity::Warning,
                Word::Critical => Severity::Critical,
            },
            labels: row.labels,
            summary: row.summary,
            hold: std::time::Duration::from_millis(row.hold_ms),
            cause: row.cause,
        };
        let phase = match row.phase {
            PhaseWord::Pending => Phase::Pending,
            PhaseWord::Firing => Phase::Firing,
            PhaseWord::Over => Phase::Over,
        };
        let ack = row.ack.map(|ack| Ack { by: ack.by, note: ack.note, at: from_ms(ack.at_ms) });
        let mut alert = Alert::kept(condition, row.source, phase, from_ms(row.began_ms));
        alert.fired = row.fired_ms.map(from_ms);
        alert.ended = row.ended_ms.map(from_ms);
        alert.told = row.told_ms.map(from_ms);
        alert.fires = row.fires_ms.into_iter().map(from_ms).collect();
        alert.ack = ack;
        alert
    }
}

impl From<&Silence> for SilenceRow {
    fn from(silence: &Silence) -> SilenceRow {
        let Silence { id, labels, from, until, author, reason } = silence.clone();
        SilenceRow { id, labels, from_ms: to_ms(from), until_ms: to_ms(until), author, reason }
    }
}

impl From<SilenceRow> for Silence {
    fn from(row: SilenceRow) -> Silence {
        let (from, until) = (from_ms(row.from_ms), from_ms(row.until_ms));
        let SilenceRow { id, labels, author, reason, .. } = row;
        Silence { id, labels, from, until, author, reason }
    }
}

/// What an earlier process has kept.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Kept {
    /// Alerts, by their keys.
    pub alerts: BTreeMap<String, AlertRow>,
    /// Silences, by their ids.
    pub silences: BTreeMap<String, SilenceRow>,
}

/// Something to keep, or to forget.
#[derive(Clone, Debug)]
pub enum Change {
    /// An alert by its key; none: it is forgotten.
    Alert(String, Option<Box<AlertRow>>),
    /// A silence by its id; none: it has ended.
    Silence(String, Option<Box<SilenceRow>>),
}

/// Keeps alerts over a restart. Calls block.
pub trait Keeper: Send + Sync {
    /// What was kept.
    fn load(&self) -> Kept;
    /// Keeps these changes, all or none. `false`: it could not; the same comes again.
    fn keep(&self, changes: &[Change]) -> bool;
}

/// Keeps them in a file.
pub struct FileKeeper {
    path: PathBuf,
    kept: Mutex<Kept>,
}

impl FileKeeper {
    /// The file may not be there yet. One that is not readable is taken for empty: what still is
    /// wrong is told again.
    pub fn open(path: PathBuf) -> FileKeeper {
        let kept = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                warn!(path = %path.display(), %error, "the alerts that were kept are not readable");
                Kept::default()
            }),
            Err(_) => Kept::default(),
        };
        FileKeeper { path, kept: Mutex::new(kept) }
    }
}

impl Keeper for FileKeeper {
    fn load(&self) -> Kept {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn keep(&self, changes: &[Change]) -> bool {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        for change in changes.iter().cloned() {
            match change {
                Change::Alert(key, Some(row)) => drop(kept.alerts.insert(key, *row)),
                Change::Alert(key, None) => drop(kept.alerts.remove(&key)),
                Change::Silence(id, Some(row)) => drop(kept.silences.insert(id, *row)),
                Change::Silence(id, None) => drop(kept.silences.remove(&id)),
            }
        }
        let bytes = serde_json::to_vec(&*kept).expect("rows are plain data");
        if let Err(error) = replace(&self.path, &bytes) {
            warn!(path = %self.path.display(), %error, "alerts are not kept");
        }
        // What is in memory is written with the next change.
        true
    }
}
