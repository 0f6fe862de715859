//! What a node offers on its own machine: a Unix socket in its state folder, with its metrics, the
//! bus and the files of this host; the bus and the files on another socket for programs of other
//! users, and its metrics on a TCP port, if its settings want that.
//!
//! It speaks HTTP, as the controller's API does. Nothing here may keep a node from its work: a
//! port that is taken is told and tried again, and a question too many is turned away.

mod bus;
mod desk;
mod figures;
mod files;
mod keep;
mod listen;
mod notes;
mod once;
mod policy;
mod restore;
mod room;
mod site;
mod standing;
mod who;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use relay::Running;

use crate::once::Once;
use crate::policy::Policy;

pub use figures::{metrics_of, page};
pub use listen::bind;
pub use restore::{NewRestore, RestoreDone, RestoreLine};
pub use standing::Standing;

/// What is offered.
pub struct Setup {
    /// The node's state folder.
    pub state: PathBuf,
    /// The node.
    pub node: Arc<Running>,
    /// The metrics.
    pub metrics: Router,
    /// Where metrics can be read besides, without any proof of who asks, and which.
    pub listen: Option<(SocketAddr, Router)>,
    /// Another Unix socket, with the bus alone, that every user may open.
    pub bus: Option<PathBuf>,
}

/// Offers it, until the runtime ends.
pub fn start(setup: Setup) {
    let Setup { state, node, metrics, listen, bus } = setup;
    let policy = Arc::new(Policy::new(&state));
    let router = bus::router(&node, policy.clone()).merge(files::router(&node, policy));
    if let Some((addr, metrics)) = listen {
        tokio::spawn(listen::tcp(addr, metrics));
    }
    if let Some(path) = bus {
        tokio::spawn(listen::unix(path, 0o666, router.clone()));
    }
    let own = router.merge(metrics).merge(restore::router(node.clone()));
    let own = own.merge(standing::router(node.clone())).merge(desk::router(node.clone()));
    let once = Arc::new(Once::open(&state));
    tokio::spawn(restore::obey(node.clone(), once.clone()));
    tokio::spawn(site::keep(node, once, state.clone()));
    tokio::spawn(listen::unix(state.join("node.sock"), 0o600, own));
}

/// Serves a socket that only its owner may open, until the runtime ends.
pub async fn serve(path: PathBuf, router: Router) {
    listen::unix(path, 0o600, router).await;
}
