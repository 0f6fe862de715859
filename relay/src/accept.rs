//! Children that dial in, and the join service beside them.
//!
//! A connection gets as far as its certificate allows: the mesh's own configuration demands one,
//! the join service's demands none and offers one stream and one answer. Handshakes are bounded in
//! number and time; under load an unknown address must first show that it is one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mesh::{LinkId, Peer};
use protos::StreamKind;
use quinn::{Connection, Endpoint, Incoming, RecvStream, SendStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::bulk::Bulk;
use crate::congestion;
use crate::door::{Place, Places, Turned, Why};
use crate::drive::Arrival;
use crate::endpoint::{self, JOIN_HINT};
use crate::join::{Asker, JoinService};
use crate::kind::send_window;
use crate::link::{self, CLOSE_PROTOCOL, CLOSE_REMOVED, Link, LinkError, PeerFault, Reader};
use crate::live::{Credit, Room};
use crate::memory::Memory;
use crate::records::Records;
use crate::removed::Removed;
use crate::renew::Current;
use crate::serve::Line;
use crate::transfer::Transfers;

/// Handshakes under way at once; throughput falls beyond.
const HANDSHAKES: usize = 32;
/// Enrolments under way at once.
const JOINS: usize = 64;
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
const JOIN_LIMIT: Duration = Duration::from_secs(30);
/// Content streams of one child served at once.
const STREAMS: usize = 32;

/// Numbers links; shared with the dialler.
#[derive(Clone, Default)]
pub(crate) struct LinkIds(Arc<AtomicU64>);

impl LinkIds {
    pub(crate) fn next(&self) -> LinkId {
        LinkId(self.0.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

/// What accepting needs.
#[derive(Clone)]
pub(crate) struct Acceptor {
    pub(crate) ids: LinkIds,
    pub(crate) inbox: link::Inbox,
    pub(crate) verifier: Arc<crate::verify::Verifier>,
    pub(crate) room: Room,
    pub(crate) bus_room: Arc<Semaphore>,
    pub(crate) removed: Removed,
    pub(crate) transfers: Transfers,
    pub(crate) join: JoinService,
    pub(crate) records: Records,
    pub(crate) join_config: Current<Arc<quinn::ServerConfig>>,
    pub(crate) max_connections: usize,
    /// The endpoint's own settings, for children whose way is remembered.
    pub(crate) config: Current<quinn::ServerConfig>,
    pub(crate) beat: Duration,
    pub(crate) memory: Arc<Memory>,
    /// Who did not come in.
    pub(crate) turned: Turned,
    /// Bits a second of content down each link; zero: no limit.
    pub(crate) rate_limit: u64,
}

impl Acceptor {
    /// Accepts until the endpoint is closed.
    pub(crate) async fn run(self, endpoint: Endpoint) {
        let handshakes = Places::new(HANDSHAKES);
        let joins = Places::new(JOINS);
        while let Some(incoming) = endpoint.accept().await {
            let from = incoming.remote_address().ip();
            if endpoint.open_connections() >= self.max_connections {
                self.refuse(incoming, Why::Crowded);
                continue;
            }
            let busy = handshakes.are_scarce() || joins.are_scarce();
            if busy && !incoming.remote_address_validated() && incoming.may_retry() {
                incoming.retry().ok();
                continue;
            }
            // Whoever is refused comes back after a random wait; nobody waits in this loop.
            if incoming.orig_dst_cid().starts_with(&JOIN_HINT) {
                match joins.take(from) {
                    Ok(place) => drop(tokio::spawn(self.clone().accept_join(incoming, place))),
                    Err(why) => self.refuse(incoming, why),
                }
                continue;
            }
            match handshakes.take(from) {
                Ok(place) => drop(tokio::spawn(self.clone().accept_child(incoming, place))),
                Err(why) => self.refuse(incoming, why),
            }
        }
    }

    fn refuse(&self, incoming: Incoming, why: Why) {
        let from = incoming.remote_address();
        if self.turned.away(from.ip(), why) {
            info!(%from, ?why, "refusing a connection");
        }
        incoming.refuse();
    }

    async fn accept_child(self, incoming: Incoming, place: Place) {
        let from = incoming.remote_address();
        let begun = match self.memory.recall(from.ip()) {
            Some(start) => {
                incoming.accept_with(endpoint::starting(&self.config.now(), self.beat, start))
            }
            None => incoming.accept(),
        };
        let conn = match begun {
            Ok(connecting) => timeout(HANDSHAKE_LIMIT, connecting).await,
            Err(error) => Ok(Err(error)),
        };
        drop(place);
        let conn = match conn {
            Ok(Ok(conn)) => conn,
            Ok(Err(error)) => {
                if self.turned.away(from.ip(), Why::Failed) {
                    info!(%from, error = %crate::chain(&error), "no link");
                }
                return;
            }
            Err(_) => {
                if self.turned.away(from.ip(), Why::Slow) {
                    info!(%from, "no link: the handshake took too long");
                }
                return;
            }
        };
        let leaf = match link::leaf_of(&conn) {
            Ok(leaf) if leaf.identity.mesh != self.verifier.mesh => {
                return self.turn_away(&conn, &PeerFault::Mesh);
            }
            Ok(leaf) if self.removed.has(&leaf.public) => {
                return self.turn_away(&conn, &PeerFault::Removed);
            }
            Ok(_) if self.removed.is_out() => return self.turn_away(&conn, &PeerFault::Out),
            Ok(_) if self.removed.is_superseded() => {
                return self.turn_away(&conn, &PeerFault::Superseded);
            }
            Ok(leaf) => leaf,
            Err(fault) => return self.turn_away(&conn, &fault),
        };
        let identity = leaf.identity;
        let peer = Peer::Child { host: link::host_of(&identity), serves: identity.role.serves() };
        let site = identity.site.clone();
        self.serve_child(conn, peer, (identity.name, leaf.public), &site).await;
    }

    async fn serve_child(self, conn: Connection, peer: Peer, who: (String, [u8; 32]), site: &str) {
        let id = self.ids.next();
        let key = who.1;
        let (mut link, mut queues) = Link::new(id, peer, who, conn.clone());
        let (counters, tally) = (link.counters.clone(), link.tally.clone());
        let serves = matches!(peer, Peer::Child { serves: true, .. });
        let bulk = Arc::new(Bulk::new(self.rate_limit, serves));
        link.bulk = Some(bulk.clone());
        if self.inbox.send(Arrival::Linked(Box::new(link))).await.is_err() {
            return;
        }
        let reader = Reader {
            id,
            peer,
            conn: conn.clone(),
            inbox: self.inbox.clone(),
            verifier: self.verifier.clone(),
            room: self.room.clone(),
            bus_room: self.bus_room.clone(),
            removed: self.removed.clone(),
            credit: Credit::new(true),
            met: None,
            packs: None,
            tails: Arc::default(),
            seeks: Arc::default(),
            tally,
            caps: None,
            bulk: Some(bulk.clone()),
            paced: self.transfers.paced.clone(),
        };
        let fan = self.transfers.fan.clone().filter(|_| !serves);
        if let Some(fan) = &fan {
            fan.meet((peer.host(), site), (id, &conn), key);
        }
        let streams = Arc::new(Semaphore::new(STREAMS));
        conn.set_send_window(send_window(serves));
        // Ends with the connection, whatever ends it.
        while let Ok((send, recv)) = conn.accept_bi().await {
            let (kind, recv) = match stream_kind(recv).await {
                Ok(kind) => kind,
                Err(error) => {
                    debug!(peer = %peer.host(), error = %crate::chain(&error), "a stream failed");
                    continue;
                }
            };
            match kind {
                StreamKind::Content => {
                    let Ok(slot) = streams.clone().try_acquire_owned() else { continue };
                    let (transfers, counters) = (self.transfers.clone(), counters.clone());
                    let bulk = bulk.clone();
                    tokio::spawn(async move {
                        let line = Line::new(&bulk, &counters);
                        transfers.serve((id, peer.host()), (send, recv), line).await;
                        drop(slot);
                    });
                }
                StreamKind::Join => {
                    let Ok(slot) = streams.clone().try_acquire_owned() else { continue };
                    let join = self.join.clone();
                    tokio::spawn(async move {
                        let serve = join.serve(Asker::Child, send, recv);
                        timeout(JOIN_LIMIT, serve).await.ok();
                        drop(slot);
                    });
                }
                StreamKind::Record => {
                    let Ok(slot) = streams.clone().try_acquire_owned() else { continue };
                    let records = self.records.clone();
                    tokio::spawn(async move {
                        records.serve(send, recv).await;
                        drop(slot);
                    });
                }
                kind => {
                    if let Err(error) = reader.attach(&mut queues, kind, send, recv) {
                        warn!(peer = %peer.host(), error = %crate::chain(&error), "closing a link");
                        conn.close(CLOSE_PROTOCOL, error.to_string().as_bytes());
                    }
                }
            }
        }
        if let Some(fan) = &fan {
            fan.part(peer.host(), id);
        }
        if let Some(start) = congestion::known(&conn) {
            self.memory.learn(conn.remote_address().ip(), start);
        }
        self.inbox.send(Arrival::Input(mesh::Input::LinkDown { link: id })).await.ok();
    }

    fn turn_away(&self, conn: &Connection, fault: &PeerFault) {
        let from = conn.remote_address();
        if self.turned.away(from.ip(), Why::Stranger) {
            warn!(%from, reason = %crate::chain(fault), "turning a peer away");
        }
        let code = match fault {
            PeerFault::Removed => CLOSE_REMOVED,
            _ => CLOSE_PROTOCOL,
        };
        conn.close(code, fault.to_string().as_bytes());
    }

    async fn accept_join(self, incoming: Incoming, _place: Place) {
        let from = incoming.remote_address();
        let Ok(connecting) = incoming.accept_with(self.join_config.now()) else { return };
        let why = match timeout(HANDSHAKE_LIMIT, connecting).await {
            Ok(Ok(conn)) => return self.serve_join(conn).await,
            Ok(Err(_)) => Why::Failed,
            Err(_) => Why::Slow,
        };
        if self.turned.away(from.ip(), why) {
            info!(%from, ?why, "a newcomer's handshake failed");
        }
    }

    async fn serve_join(self, conn: Connection) {
        let from = conn.remote_address();
        let serve = async {
            let (send, recv) = conn.accept_bi().await.ok()?;
            let (kind, recv) = stream_kind(recv).await.ok()?;
            if kind == StreamKind::Join {
                self.join.serve(Asker::Stranger, send, recv).await;
            }
            // The newcomer closes once it has read the answer.
            conn.closed().await;
            Some(())
        };
        if timeout(JOIN_LIMIT, serve).await.is_err() {
            info!(%from, "a newcomer took too long");
        }
    }
}

/// What a stream is for, by its first byte.
pub(crate) async fn stream_kind(
    mut recv: RecvStream,
) -> Result<(StreamKind, RecvStream), LinkError> {
    const LIMIT: Duration = Duration::from_secs(5);
    let mut kind = [0];
    timeout(LIMIT, recv.read_exact(&mut kind)).await.map_err(|_| LinkError::Timeout(LIMIT))??;
    let kind = StreamKind::try_from(kind[0]);
    let kind = kind.map_err(|_| LinkError::Protocol("a stream of an unknown kind"))?;
    Ok((kind, recv))
}

/// Opens a stream of a kind.
pub(crate) async fn open_stream(
    conn: &Connection,
    kind: StreamKind,
) -> Result<(SendStream, RecvStream), LinkError> {
    let (mut send, recv) = conn.open_bi().await.map_err(LinkError::Lost)?;
    send.write_all(&[kind as u8]).await.map_err(LinkError::Write)?;
    Ok((send, recv))
}
