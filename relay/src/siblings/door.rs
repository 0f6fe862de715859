//! Who comes in: siblings that the parent has sent here for content.
//!
//! They find what is in the store or arriving, and nothing is fetched for them. They come to the
//! socket by which this host has dialled its parent, while the parent promotes it and a little
//! longer; else that socket lets nobody in.

use std::sync::Arc;
use std::time::Duration;

use protos::StreamKind;
use quinn::{Connection, Endpoint, Incoming, ServerConfig};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info};

use super::{Siblings, transport};
use crate::accept::stream_kind;
use crate::bulk::Bulk;
use crate::door::{Place, Places};
use crate::endpoint;
use crate::kind::{End, send_window};
use crate::link::{self, Link};
use crate::serve::Line;
use crate::transfer::Transfers;

/// How long the door stays open after the parent has last wanted it.
const OPEN: Duration = Duration::from_secs(600);
/// Handshakes under way at once, and siblings that are in.
const HANDSHAKES: usize = 8;
const SIBLINGS: usize = 64;
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// Streams of one sibling that are served at once.
const STREAMS: usize = 16;

impl Siblings {
    /// The parent promotes this host: siblings may come.
    pub(crate) fn open(&self, transfers: &Transfers, link: &Link) {
        let Some(endpoint) = link.endpoint.clone().filter(|_| self.0.serves) else { return };
        if self.doors().insert(link.id, Instant::now()).is_some() {
            return;
        }
        info!(parent = %link.name, "letting siblings in: the parent promotes this host");
        endpoint.set_server_config(Some(self.server()));
        let (siblings, transfers) = (self.clone(), transfers.clone());
        let (parent, id) = (link.conn.clone(), link.id);
        tokio::spawn(async move {
            tokio::select! {
                () = siblings.accept(&transfers, &endpoint) => {}
                () = siblings.until_closed(id) => {}
                _ = parent.closed() => {}
            }
            endpoint.set_server_config(None);
            siblings.doors().remove(&id);
        });
    }

    fn server(&self) -> ServerConfig {
        let tls = certs::sibling_server_config(&self.0.credentials.now());
        Arc::unwrap_or_clone(endpoint::quic_server(tls, transport(End::Parent)))
    }

    /// Until the parent has not wanted the door to be open for a while.
    async fn until_closed(&self, id: mesh::LinkId) {
        loop {
            sleep(OPEN).await;
            if self.doors().get(&id).is_none_or(|wanted| wanted.elapsed() >= OPEN) {
                return;
            }
        }
    }

    async fn accept(&self, transfers: &Transfers, endpoint: &Endpoint) {
        let places = Places::new(HANDSHAKES);
        while let Some(incoming) = endpoint.accept().await {
            let place = places.take(incoming.remote_address().ip());
            match place {
                Ok(place) if endpoint.open_connections() <= SIBLINGS => {
                    let (siblings, transfers) = (self.clone(), transfers.clone());
                    tokio::spawn(siblings.let_in(transfers, incoming, place));
                }
                _ => incoming.refuse(),
            }
        }
    }

    async fn let_in(self, transfers: Transfers, incoming: Incoming, place: Place) {
        let from = incoming.remote_address();
        let conn = match incoming.accept() {
            Ok(connecting) => timeout(HANDSHAKE_LIMIT, connecting).await,
            Err(error) => Ok(Err(error)),
        };
        drop(place);
        let Ok(Ok(conn)) = conn else { return debug!(%from, "a sibling's handshake failed") };
        let mesh = self.0.credentials.now().identity().mesh;
        match link::leaf_of(&conn) {
            Ok(leaf) if leaf.identity.mesh == mesh && !self.0.removed.has(&leaf.public) => {
                debug!(sibling = %leaf.identity.name, "a sibling has come");
                self.serve(&transfers, &conn).await;
            }
            _ => conn.close(link::CLOSE_PROTOCOL, b"not a node of this mesh"),
        }
    }

    async fn serve(&self, transfers: &Transfers, conn: &Connection) {
        let streams = Arc::new(Semaphore::new(STREAMS));
        let bulk = Arc::new(Bulk::new(0, false));
        conn.set_send_window(send_window(false));
        // Ends with the connection, whatever ends it.
        while let Ok((send, recv)) = conn.accept_bi().await {
            let Ok((StreamKind::Content, recv)) = stream_kind(recv).await else { continue };
            let Ok(slot) = streams.clone().try_acquire_owned() else { continue };
            let (siblings, transfers, bulk) = (self.clone(), transfers.clone(), bulk.clone());
            tokio::spawn(async move {
                let line = Line::new(&bulk, &siblings.0.counts.siblings);
                transfers.serve_sibling((send, recv), line).await;
                drop(slot);
            });
        }
    }
}
