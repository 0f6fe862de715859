//! The operators' socket, and the address that the node listens at.

use std::future::Future;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use axum::Router;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tracing::{info, warn};

use super::RunError;

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
    // The database is locked by this process, so a socket that is there is nobody's.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&path).map_err(failed)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    info!(socket = %path.display(), "ready");
    let server = axum::serve(listener, router);
    tokio::select! {
        served = server.into_future() => served.map_err(failed),
        () = stop => Ok(()),
        // The node's own error is reported by its stop.
        _ = ended.wait_for(|ended| *ended) => Ok(()),
    }
}
