//! The child's side of siblings that help each other: fetching content from one, and being one.
//!
//! The parent says who fetches from whom, and nothing more hangs on its word than time: whoever
//! fetches checks each group by the name of the object, which a signed order has said, and asks the
//! parent for the rest when the sibling does not answer, is slow, or lies. A host opens no port for
//! this: siblings come to the socket by which it has dialled its parent, which listens only while
//! the parent promotes it, and only to nodes of the mesh. `door` is who comes in, `reach` where a
//! host looks for siblings.

mod door;
mod reach;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use certs::Credentials;
use mesh::{Digest, LinkId, Lost, PullFault};
use protos::{Encoding, PullReply, StreamKind};
use quinn::{ClientConfig, Connection, RecvStream, TransportConfig, VarInt};
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use self::reach::Vain;
use crate::accept::open_stream;
use crate::cap::Caps;
use crate::dial::DialError;
use crate::endpoint;
use crate::fetch::{Found, request_for};
use crate::kind::{End, IDLE, LinkKind};
use crate::link::{self, Counters, LinkError, PeerFault, read_framed, write_framed};
use crate::metrics::Counts;
use crate::removed::Removed;
use crate::renew::Current;
use crate::transfer::Transfers;

/// How long a sibling may take to let this node in. In one building that is a thousand times more
/// than it takes, and where a firewall lies between it is what each first try costs.
const REACH: Duration = Duration::from_secs(1);
/// How long nothing may come of an object.
const STALL: Duration = Duration::from_secs(10);
/// How long a connection between siblings lives on after its last byte.
const LINGER: Duration = Duration::from_secs(15);
/// Connections to siblings that are kept.
const KEPT: usize = 64;

/// What one host needs to fetch from siblings, and to serve them.
#[derive(Clone)]
pub(crate) struct Siblings(Arc<Inner>);

struct Inner {
    credentials: Current<Credentials>,
    removed: Removed,
    caps: Caps,
    counts: Arc<Counts>,
    /// Whether this host takes part.
    serves: bool,
    /// By the sibling's key, with its name.
    conns: Mutex<BTreeMap<[u8; 32], (Connection, String)>>,
    /// Links whose socket lets siblings in, and when the parent has last wanted that.
    doors: Mutex<BTreeMap<LinkId, Instant>>,
    vain: Vain,
}

/// Whom the parent has sent this host to.
#[derive(Clone, Copy)]
pub(crate) struct Sibling {
    pub(crate) address: SocketAddr,
    pub(crate) key: [u8; 32],
    /// Where the parent is itself.
    pub(crate) parent: IpAddr,
}

/// Why a sibling is not one to fetch from.
#[derive(Debug, thiserror::Error)]
enum Unmet {
    #[error("{0} is not the address of a sibling")]
    Address(SocketAddr),
    #[error("too many siblings were not reached")]
    Often,
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error(transparent)]
    Peer(#[from] PeerFault),
}

impl Siblings {
    pub(crate) fn new(
        (credentials, serves): (Current<Credentials>, bool),
        removed: Removed,
        caps: Caps,
        counts: Arc<Counts>,
    ) -> Siblings {
        let (conns, doors, vain) = Default::default();
        Siblings(Arc::new(Inner { credentials, removed, caps, counts, serves, conns, doors, vain }))
    }

    /// Whether this host may be sent to siblings, and siblings to it. What it gets from the parent
    /// may be held to a rate; what it would get from others would not be. Nor if it was sent to
    /// several of late who were not there.
    pub(crate) fn is_willing(&self) -> bool {
        let allowance = self.0.caps.now();
        self.0.serves && allowance.rate == 0 && !allowance.yields && !self.0.vain.is_much()
    }

    /// Fetches an object, or the rest of it, from a sibling. The inner error is the sibling's, and
    /// the parent's stream goes on; the outer one ends the pull.
    pub(crate) async fn fetch(
        &self,
        transfers: &Transfers,
        content: Digest,
        sibling: Sibling,
        word: &mut RecvStream,
    ) -> Result<Result<(), Lost>, PullFault> {
        let counters = Counters::default();
        let fetched = tokio::select! {
            fetched = self.take_from(transfers, content, sibling, &counters) => fetched,
            word = read_framed(word) => match word {
                Ok(Some(word)) => match PullReply::decode(&word) {
                    Ok(PullReply::Recall) => Ok(Err(Lost::Slow)),
                    _ => Err(PullFault::Corrupt),
                },
                _ => Err(PullFault::Broken),
            },
            () = stalled(&counters) => Ok(Err(Lost::Slow)),
        };
        let got = counters.content_received.load(Ordering::Relaxed);
        self.0.counts.siblings.received(got as usize);
        fetched
    }

    async fn take_from(
        &self,
        transfers: &Transfers,
        content: Digest,
        sibling: Sibling,
        counters: &Counters,
    ) -> Result<Result<(), Lost>, PullFault> {
        let (conn, name) = match self.meet(sibling).await {
            Ok(met) => met,
            Err(error) => {
                let (address, error) = (sibling.address, crate::chain(&error));
                debug!(%address, %error, "a sibling is not reached");
                return Ok(Err(Lost::Unreached));
            }
        };
        let lost = match transfers.pull_from_sibling(&conn, content, counters).await {
            Ok(()) => return Ok(Ok(())),
            Err(PullFault::Disk) => return Err(PullFault::Disk),
            Err(PullFault::Absent | PullFault::Busy) => Lost::Absent,
            Err(PullFault::Broken) => Lost::Broken,
            Err(PullFault::Corrupt) => Lost::Altered,
        };
        if lost == Lost::Altered {
            transfers.tell_altered(("host", &name), content).await;
            conn.close(link::CLOSE_PROTOCOL, b"that is not what the content is");
        }
        Ok(Err(lost))
    }

    /// The connection to a sibling, a new one if there is none.
    async fn meet(&self, sibling: Sibling) -> Result<(Connection, String), Unmet> {
        let Sibling { address, key, parent } = sibling;
        if let Some(met) = self.conns().get(&key)
            && met.0.close_reason().is_none()
        {
            return Ok(met.clone());
        }
        if !reach::can_be(address, parent) {
            return Err(Unmet::Address(address));
        }
        if self.0.removed.has(&key) {
            return Err(PeerFault::Removed.into());
        }
        if !self.0.vain.begin() {
            return Err(Unmet::Often);
        }
        let config = client(&self.0.credentials.now(), key);
        let endpoint = endpoint::dialling(address).map_err(DialError::Socket)?;
        let connecting = endpoint.connect_with(config, address, certs::SIBLING_NAME);
        let connecting = connecting.map_err(DialError::Connect)?;
        let conn = timeout(REACH, connecting).await.map_err(|_| DialError::Timeout)?;
        let conn = conn.map_err(DialError::Connection)?;
        let identity = link::leaf_of(&conn)?.identity;
        if identity.mesh != self.0.credentials.now().identity().mesh {
            return Err(PeerFault::Mesh.into());
        }
        self.0.vain.take_back();
        let mut conns = self.conns();
        conns.retain(|_, (conn, _)| conn.close_reason().is_none());
        if conns.len() >= KEPT {
            conns.pop_first();
        }
        conns.insert(key, (conn.clone(), identity.name.clone()));
        Ok((conn, identity.name))
    }

    fn doors(&self) -> MutexGuard<'_, BTreeMap<LinkId, Instant>> {
        self.0.doors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn conns(&self) -> MutexGuard<'_, BTreeMap<[u8; 32], (Connection, String)>> {
        self.0.conns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transfers {
    /// Fetches an object, or the rest of it, from a sibling that has it or is getting it.
    async fn pull_from_sibling(
        &self,
        conn: &Connection,
        content: Digest,
        counters: &Counters,
    ) -> Result<(), PullFault> {
        let broken = |error: LinkError| {
            debug!(error = %crate::chain(&error), "a sibling's stream broke");
            PullFault::Broken
        };
        let known = self.front(content).await?;
        let (mut send, mut recv) = open_stream(conn, StreamKind::Content).await.map_err(broken)?;
        let request = request_for(content, &known, false);
        write_framed(&mut send, &request.encode()).await.map_err(broken)?;
        let reply = read_framed(&mut recv).await.map_err(broken)?.ok_or(PullFault::Broken)?;
        match PullReply::decode(&reply).map_err(|_| PullFault::Corrupt)? {
            PullReply::Found { bytes, encoding: Encoding::Raw, first, outlined, .. } => {
                let found = Found { len: bytes, first: first as usize, outlined };
                let id = content::ContentId(content.0);
                self.take_groups(known, id, found, &mut recv, counters).await
            }
            PullReply::Fault(fault) => Err(fault),
            _ => Err(PullFault::Corrupt),
        }
    }
}

/// Until nothing has come for a while.
async fn stalled(counters: &Counters) {
    let mut before = counters.moved();
    loop {
        sleep(STALL).await;
        let now = counters.moved();
        if now == before {
            return;
        }
        before = now;
    }
}

fn client(credentials: &Credentials, key: [u8; 32]) -> ClientConfig {
    let tls = certs::sibling_client_config(credentials, key);
    endpoint::quic_client(tls, transport(End::Child { serves: false }))
}

/// Connections between siblings are of one building, and end when nothing moves.
fn transport(end: End) -> TransportConfig {
    let mut transport = LinkKind::Lan.transport(end, IDLE / 6, None);
    let linger = VarInt::from_u32(LINGER.as_millis() as u32);
    transport.max_idle_timeout(Some(linger.into())).keep_alive_interval(None);
    transport
}
