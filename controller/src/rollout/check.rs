//! A gate's command: a line for the shell of the controller, which says by its exit code whether
//! the next wave may open.
//!
//! It has little of an environment: `PATH`, where the operators' socket is, and which wave of
//! which rollout it is about. It may take ten minutes, and is run again if the controller dies
//! while it runs.

use std::path::Path;
use std::time::Duration;

use tokio::process::Command;

use crate::upcall::{self, UpcallError};

/// How long it may take.
const LIMIT: Duration = Duration::from_secs(600);

/// What a check is about.
pub(super) struct About {
    pub(super) rollout: String,
    /// From 1.
    pub(super) wave: usize,
    pub(super) waves: usize,
}

/// Runs the line. What is said otherwise is why the gate does not open.
pub(super) async fn check(line: &str, socket: &Path, about: &About) -> Result<(), String> {
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", line])
        .env_clear()
        .env("PATH", upcall::PATH)
        .env("LANG", "C.UTF-8")
        .env("BARID_SOCKET", socket)
        .env("BARID_ROLLOUT", &about.rollout)
        .env("BARID_WAVE", about.wave.to_string())
        .env("BARID_WAVES", about.waves.to_string());
    let ended = upcall::listen_to(command, "the check", LIMIT).await;
    ended.map(drop).map_err(|error: UpcallError| error.to_string())
}
