//! Telling hosts that wait for a release in vain that none will come.
//!
//! The core says who they are when a run closes; that is noted in the tables with the close itself,
//! and from there turned into a signed order, so that a controller which dies in between does it
//! when it is back. Nobody waits for it, and it is not listed: for the operator those hosts have
//! their outcome already.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tracing::warn;

use crate::orders::{Desk, blocking};

/// How often to look at least.
const AGAIN: Duration = Duration::from_secs(60);

/// Gives such orders whenever some are noted. Runs until it is dropped.
pub(crate) async fn close(desk: Desk, noted: Arc<Notify>) {
    loop {
        let tables = desk.tables.clone();
        let due = blocking(move || Ok(tables.stopped()?)).await;
        match due {
            Ok(due) => {
                for (id, row, hosts) in due {
                    if let Err(failure) = desk.lapse(id, &row, hosts).await {
                        let error = failure.error.message;
                        warn!(order = %id, error, "hosts that wait in vain are not told");
                    }
                }
            }
            Err(failure) => warn!(error = %failure.error.message, "the tables cannot be read"),
        }
        // Whoever could not be told just now is told at the next look.
        tokio::time::timeout(AGAIN, noted.notified()).await.ok();
    }
}
