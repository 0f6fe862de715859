//! Pulls: files from hosts to the controller.

use serde::{Deserialize, Serialize};

use super::targets::Targets;

/// `POST /v1/pulls`; answered by a stream of [`PullEvent`] lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewPull {
    /// From whom.
    pub targets: Targets,
    /// A file or folder at the hosts, absolute.
    pub path: String,
    /// A folder at the controller, absolute; each host gets one of its own in it.
    pub to: String,
    /// Patterns of what is left out.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// How long to wait for a host of which nothing comes, in milliseconds.
    pub reach_ms: u64,
}

/// One line of the answer to `POST /v1/pulls`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum PullEvent {
    /// It goes on.
    Begun {
        /// From how many hosts.
        hosts: u64,
    },
    /// Something has come.
    Receiving {
        /// From whom.
        host: String,
        /// Bytes from this host so far, as they crossed the links.
        received: u64,
    },
    /// One host is done.
    Host(PullHost),
    /// All are.
    Ended,
}

/// What has been collected from one host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullHost {
    /// The host.
    pub host: String,
    /// `ok`, `failed` or `not-reached`.
    pub state: String,
    /// Why not, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Files that it has there.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Files, folders and links that were written here.
    pub written: u64,
    /// Those that were here already.
    pub unchanged: u64,
    /// Bytes that came from it, as they crossed the links.
    pub received: u64,
    /// Sockets, pipes and devices, which are not collected.
    #[serde(default)]
    pub skipped: u64,
    /// Links that would lead out of the folder, and are left out.
    #[serde(default)]
    pub left_out: u64,
    /// The first of those.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub named: Vec<String>,
}
