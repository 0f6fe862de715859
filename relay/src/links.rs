//! The links that a node has: the drive loop's own, and a view of them for everybody else.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use mesh::{HostId, LinkId, Peer};

use crate::congestion;
use crate::link::Link;

/// How a link stands, for status pages.
#[derive(Clone, Debug)]
pub struct LinkStatus {
    /// Who is at the other end.
    pub host: HostId,
    /// Its name, by its certificate.
    pub name: String,
    /// Whether it is this node's parent.
    pub is_parent: bool,
    /// From where it is linked.
    pub address: String,
    /// Since when.
    pub since: SystemTime,
    /// Round-trip time, in microseconds.
    pub rtt_us: u64,
    /// UDP payload bytes sent, with all that QUIC adds.
    pub wire_sent: u64,
    /// UDP payload bytes received.
    pub wire_received: u64,
    /// Content bytes sent.
    pub content_sent: u64,
    /// Content bytes received.
    pub content_received: u64,
    /// What content may go down it, in bits a second; 0: as much as it carries.
    pub cap: u64,
    /// Whether it gives way to other traffic.
    pub yields: bool,
    /// Bytes a second that it was seen to carry; 0: not known, as of one that has carried little.
    pub rate: u64,
    /// Whether its round trip is so short (3 ms) that the peer is in the same building.
    pub is_short: bool,
    /// For how long nothing has come from the peer.
    pub silent: Duration,
    /// Whether the peer has missed two beats.
    pub suspect: bool,
}

/// A view of the links for others than the drive loop.
#[derive(Clone, Default)]
pub(crate) struct Links(Arc<Mutex<BTreeMap<LinkId, Arc<Link>>>>);

impl Links {
    pub(crate) fn lock(&self) -> MutexGuard<'_, BTreeMap<LinkId, Arc<Link>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn status(&self) -> Vec<LinkStatus> {
        self.lock().values().map(|link| status(link)).collect()
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Arc<Link>> {
        self.lock().values().cloned().collect()
    }

    /// The connection of a link, if it stands.
    pub(crate) fn conn(&self, link: LinkId) -> Option<quinn::Connection> {
        self.lock().get(&link).map(|link| link.conn.clone())
    }

    /// The endpoints that were made for links of their own.
    pub(crate) fn endpoints(&self) -> Vec<quinn::Endpoint> {
        self.lock().values().filter_map(|link| link.endpoint.clone()).collect()
    }

    /// The link to the parent, if there is one.
    pub(crate) fn parent_link(&self) -> Option<Arc<Link>> {
        let links = self.lock();
        links.values().find(|link| matches!(link.peer, Peer::Parent { .. })).cloned()
    }

    /// The connection to the parent, if there is one.
    pub(crate) fn parent(&self) -> Option<quinn::Connection> {
        self.parent_link().map(|link| link.conn.clone())
    }
}

fn status(link: &Link) -> LinkStatus {
    let stats = link.conn.stats();
    let (silent, suspect) = link.counters.heard.silence();
    let load = |n: &AtomicU64| n.load(Ordering::Relaxed);
    LinkStatus {
        host: link.peer.host(),
        name: link.name.clone(),
        is_parent: matches!(link.peer, Peer::Parent { .. }),
        address: link.conn.remote_address().to_string(),
        since: link.since,
        rtt_us: u64::try_from(link.conn.rtt().as_micros()).unwrap_or(u64::MAX),
        wire_sent: stats.udp_tx.bytes,
        wire_received: stats.udp_rx.bytes,
        content_sent: load(&link.counters.content_sent),
        content_received: load(&link.counters.content_received),
        cap: link.bulk.as_ref().map_or(0, |bulk| bulk.rate()),
        yields: congestion::yields(&link.conn),
        rate: congestion::carries(&link.conn).unwrap_or(0),
        is_short: congestion::is_short(&link.conn),
        silent,
        suspect,
    }
}
