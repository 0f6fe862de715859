//! Dialling a parent: resolve, connect, look who answers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh::{HostId, Input, Peer};
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tracing::{debug, info};

use crate::accept::LinkIds;
use crate::cap::Caps;
use crate::drive::Arrival;
use crate::link::{self, Inbox, Link, PeerFault, Reader};
use crate::live::{Credit, Room};
use crate::outputs::Outputs;
use crate::paced::Paced;
use crate::removed::Removed;
use crate::renew::Current;
use crate::verify::Verifier;

const DIAL_LIMIT: Duration = Duration::from_secs(15);
/// How long one address may be silent before the next of the name is tried.
const ADDRESS_LIMIT: Duration = Duration::from_secs(4);

/// What dialling needs.
#[derive(Clone)]
pub(crate) struct Dialler {
    pub(crate) ids: LinkIds,
    pub(crate) inbox: Inbox,
    pub(crate) verifier: Arc<Verifier>,
    pub(crate) room: Room,
    pub(crate) bus_room: Arc<Semaphore>,
    pub(crate) removed: Removed,
    /// Whether this node is a parent, too.
    pub(crate) serves: bool,
    pub(crate) config: Current<ClientConfig>,
    pub(crate) server_name: String,
    /// For what the parent asks of this node.
    pub(crate) outputs: Outputs,
    /// What is said to the parent of the content that it sends.
    pub(crate) caps: Caps,
    pub(crate) paced: Paced,
}

/// Why a parent was not reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name does not resolve.
    #[error("the address cannot be resolved")]
    Resolve(#[source] std::io::Error),
    /// The name resolves to nothing.
    #[error("the address resolves to nothing")]
    Nowhere,
    /// No socket.
    #[error(transparent)]
    Socket(#[from] crate::endpoint::EndpointError),
    /// The parameters are refused before anything is sent.
    #[error("the connection cannot be begun")]
    Connect(#[source] quinn::ConnectError),
    /// Nobody answers, or the handshake fails.
    #[error("no connection")]
    Connection(#[source] quinn::ConnectionError),
    /// Nothing came of it in time.
    #[error("no answer within {} s", ADDRESS_LIMIT.as_secs())]
    Timeout,
}

impl Dialler {
    /// Dials the parent at a place of the list; tells the drive loop what came of it.
    pub(crate) async fn dial(self, place: usize, addr: String) {
        let config = self.config.now();
        let dialled = timeout(DIAL_LIMIT, connect(&addr, &config, &self.server_name)).await;
        let (endpoint, conn) = match dialled.unwrap_or(Err(DialError::Timeout)) {
            Ok(connected) => connected,
            Err(error) => {
                info!(parent = %addr, error = %crate::chain(&error), "the parent is not reached");
                return self.failed(place).await;
            }
        };
        let leaf = link::leaf_of(&conn).and_then(|leaf| match &leaf.identity {
            _ if self.removed.has(&leaf.public) => Err(PeerFault::Removed),
            who if who.mesh == self.verifier.mesh && who.role.serves() => Ok(leaf),
            _ => Err(PeerFault::Mesh),
        });
        match leaf {
            Ok(leaf) => {
                let peer = Peer::Parent { place, host: link::host_of(&leaf.identity) };
                self.run((endpoint, conn, addr), peer, (leaf.identity.name, leaf.public)).await;
            }
            Err(fault) => {
                info!(parent = %addr, reason = %crate::chain(&fault), "not a parent for us");
                conn.close(link::CLOSE_PROTOCOL, fault.to_string().as_bytes());
                self.failed(place).await;
            }
        }
    }

    /// Tells the drive loop that nobody was reached.
    pub(crate) async fn failed(self, place: usize) {
        self.inbox.send(Arrival::Input(Input::DialFailed { place })).await.ok();
    }

    async fn run(
        self,
        (endpoint, conn, addr): (Endpoint, Connection, String),
        peer: Peer,
        who: (String, [u8; 32]),
    ) {
        let id = self.ids.next();
        let (mut link, queues) = Link::new(id, peer, who, conn.clone());
        let tally = link.tally.clone();
        link.endpoint = Some(endpoint);
        link.dialled = addr;
        if self.inbox.send(Arrival::Linked(Box::new(link))).await.is_err() {
            return;
        }
        let removed = self.removed.clone();
        let reader = Reader {
            id,
            peer,
            conn: conn.clone(),
            inbox: self.inbox.clone(),
            verifier: self.verifier,
            room: self.room,
            bus_room: self.bus_room,
            removed: self.removed,
            credit: Credit::new(self.serves),
            met: (peer.host() == HostId::ROOT).then(|| Arc::new(watch::Sender::new(false))),
            packs: self.serves.then(Arc::default),
            tails: Arc::default(),
            seeks: Arc::default(),
            tally,
            caps: Some(self.caps),
            bulk: None,
            paced: self.paced,
        };
        if let Err(error) = reader.open_streams(queues).await {
            debug!(error = %crate::chain(&error), "the parent's streams failed");
        }
        self.outputs.serve(&conn).await;
        let reason = conn.closed().await;
        info!(parent = %peer.host(), %reason, "the parent's link ended");
        if let ConnectionError::ApplicationClosed(closed) = &reason
            && closed.error_code == link::CLOSE_REMOVED
        {
            removed.set_out(true);
        }
        self.inbox.send(Arrival::Input(Input::LinkDown { link: id })).await.ok();
    }
}

/// Connects to the first of a name's addresses that answers. The endpoint is the connection's own:
/// waiting for it to be idle makes sure that a farewell has left.
pub(crate) async fn connect(
    addr: &str,
    config: &ClientConfig,
    server_name: &str,
) -> Result<(Endpoint, Connection), DialError> {
    let addrs = tokio::net::lookup_host(addr).await.map_err(DialError::Resolve)?;
    let mut last = DialError::Nowhere;
    for addr in addrs {
        match connect_one(addr, config, server_name).await {
            Ok(connected) => return Ok(connected),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn connect_one(
    addr: SocketAddr,
    config: &ClientConfig,
    server_name: &str,
) -> Result<(Endpoint, Connection), DialError> {
    let endpoint = crate::endpoint::dialling(addr)?;
    let connecting = endpoint.connect_with(config.clone(), addr, server_name);
    let connecting = connecting.map_err(DialError::Connect)?;
    let connected = timeout(ADDRESS_LIMIT, connecting).await.map_err(|_| DialError::Timeout)?;
    let conn = connected.map_err(DialError::Connection)?;
    Ok((endpoint, conn))
}
