//! Backups of the controller, and what it was restored from, as the API says it.
//!
//! How a backup lies on disk is not a word of the API.

use serde::{Deserialize, Serialize};

/// The body of `POST /v1/backups`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewBackup {
    /// The folder of the backups, on the controller's machine; an absolute path.
    pub dir: String,
    /// How many backups are kept there, this one included.
    pub keep: u64,
}

/// The answer to `POST /v1/backups`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// Where it is.
    pub path: String,
    /// The moment that it shows.
    pub taken_ms: u64,
    /// Nodes in its inventory.
    pub nodes: u64,
    /// Objects of content that it needs.
    pub objects: u64,
    /// Of them those that no earlier backup had.
    pub new_objects: u64,
    /// Bytes in these.
    pub new_bytes: u64,
    /// Objects that it would need and that the controller's store does not have.
    pub lacking: u64,
    /// How many old backups were dropped.
    pub dropped: u64,
}

/// What was made of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// The state folder.
    pub state: String,
    /// The backup.
    pub backup: String,
    /// The moment that it shows.
    pub taken_ms: u64,
    /// The epoch that begins.
    pub epoch: u64,
    /// Orders that were not closed then. Whoever has not begun one refuses it from now on.
    pub orders: Vec<RestoredOrder>,
    /// Rollouts that are paused now.
    pub paused: Vec<RestoredOrder>,
    /// Join tokens that are void now.
    pub tokens: u64,
    /// Objects of content that the backup should have and does not.
    pub missing: u64,
}

/// An order or rollout of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredOrder {
    /// Its id.
    pub id: String,
    /// `run`, `push` and so on.
    pub kind: String,
    /// What it is, in one line.
    pub what: String,
    /// When it was given.
    pub issued_ms: u64,
}

/// The answer to `GET /v1/controller`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControllerInfo {
    /// The mesh.
    pub mesh: String,
    /// When it was restored; 0: never.
    pub epoch: u64,
    /// The moment that the backup shows from which it was.
    pub backup_ms: u64,
    /// When another controller was restored in its place; 0: it has heard of none.
    pub superseded_ms: u64,
    /// Orders that were given after the backup, as far as nodes have told of them.
    pub lost: Vec<String>,
    /// Numbers of nodes that have enrolled after the backup, as far as they are linked.
    pub unknown_nodes: Vec<u32>,
}
