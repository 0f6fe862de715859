//! The operators' socket, and the address that the node listens at.

use std::future::Future;
use std::path::Path;

use axum::Router;
use tokio::sync::watch;
use tracing::{info, warn};

use super::RunError;
use crate::asker::Peer;

/// Notes where nodes dial, for those who look.
pub(super) fn write_listen(state: &Path, listen: &str) -> Result<(), RunError> {
    let path = state.join("listen");
    match std::fs::write(&path, format!("{listen}\n")) {
        Err(error) if content::is_full(&error) => {
            warn!(path = %path.display(), %error, "the address is not noted");
            Ok(())
        }
        written => written.map_err(|source| RunError::Socket { path, source }),
    }
}

/// Serves the API until it is told to stop, or the node has ended.
pub(super) async fn serve(
    state: &Path,
    router: Router,
    stop: impl Future<Output = ()>,
    mut ended: watch::Receiver<bool>,
) -> Result<(), RunError> {
    let path = state.join("barid.sock");
    let failed = |source| RunError::Socket { path: path.clone(), source };
    let listener = local::bind(&path, 0o600).await.map_err(failed)?;
    info!(socket = %path.display(), "ready");
    let server = axum::serve(listener, router.into_make_service_with_connect_info::<Peer>());
    tokio::select! {
        served = server.into_future() => served.map_err(failed),
        () = stop => Ok(()),
        // The node's own error is reported by its stop.
        _ = ended.wait_for(|ended| *ended) => Ok(()),
    }
}
