//! The controller's content store: how much is in it, checking it, and sweeping it.
//!
//! What goes in, and when it may go, are no words of the API.

use serde::{Deserialize, Serialize};

/// The answer to `GET /v1/store`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreInfo {
    /// Objects in the content store.
    pub objects: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// What is free on the disk, in bytes.
    pub free: u64,
    /// How many bytes there may be; none: as many as the disk takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u64>,
    /// Bytes in objects that could go at once, if that is known: nothing needs them now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spare: Option<u64>,
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
