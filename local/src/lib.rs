//! What a node offers on its own machine: a Unix socket in its state folder, and its metrics on a
//! TCP port too if its settings want that.
//!
//! It speaks HTTP, as the controller's API does. Nothing here may keep a node from its work: a
//! port that is taken is told and tried again, and a question too many is turned away.

mod figures;
mod listen;

use std::net::SocketAddr;
use std::path::PathBuf;

use axum::Router;

pub use figures::{metrics_of, page};

/// What is offered.
pub struct Setup {
    /// The node's state folder.
    pub state: PathBuf,
    /// Where its metrics can be read, without any proof of who asks.
    pub listen: Option<SocketAddr>,
    /// The metrics.
    pub metrics: Router,
}

/// Offers it, until the runtime ends.
pub fn start(setup: Setup) {
    let Setup { state, listen, metrics } = setup;
    if let Some(addr) = listen {
        tokio::spawn(listen::tcp(addr, metrics.clone()));
    }
    tokio::spawn(listen::unix(state.join("node.sock"), metrics));
}
