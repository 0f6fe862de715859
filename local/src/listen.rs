//! Sockets: made at the start, and again when something was in the way.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, UnixListener};
use tokio::time::sleep;
use tracing::{info, warn};

use crate::who::Who;

/// How long until the next try, if a socket cannot be had.
const AGAIN: Duration = Duration::from_secs(30);

/// Serves on a TCP port.
pub(crate) async fn tcp(addr: SocketAddr, router: Router) {
    let mut told = false;
    loop {
        let served = async {
            let listener = TcpListener::bind(addr).await?;
            info!(addr = %listener.local_addr()?, "metrics are served");
            axum::serve(listener, router.clone()).await
        };
        if let Err(error) = served.await
            && !std::mem::replace(&mut told, true)
        {
            warn!(%addr, %error, "metrics are not served; tried again every 30 s");
        }
        sleep(AGAIN).await;
    }
}

/// Serves on a Unix socket with this mode, and says who is at its other end.
pub(crate) async fn unix(path: PathBuf, mode: u32, router: Router) {
    let mut told = false;
    loop {
        let served = async {
            let router = router.clone().into_make_service_with_connect_info::<Who>();
            axum::serve(bind(&path, mode)?, router).await
        };
        if let Err(error) = served.await
            && !std::mem::replace(&mut told, true)
        {
            let socket = path.display();
            warn!(%socket, %error, "a socket is not there; tried again every 30 s");
        }
        sleep(AGAIN).await;
    }
}

/// The node's database is locked by this process, so a socket that is there is nobody's.
fn bind(path: &Path, mode: u32) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    Ok(listener)
}
