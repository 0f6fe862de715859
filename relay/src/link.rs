//! A link: one QUIC connection, its five streams of frames, and their queues.
//!
//! Beats, control, reports, previews and the bus each have a stream of their own with a strict
//! priority, all above content. The child opens the streams, the first byte tells which is which.
//! Each direction of a stream has a bounded queue and a task; sending is a `try_send`, and a queue
//! that is full is a lost link, so that a child that does not read can never hold anybody up. Only
//! the streams of previews and of the bus may stall or be missing: nothing depends on them, and
//! what does not fit is dropped.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use mesh::{Frame, HostId, Input, LinkId, Outcome, Peer};
use protos::{Allowance, Incoming, Packer, SignedRemovals, StreamKind, Unpacker};
use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::bulk::Bulk;
use crate::bus::{Weight, Weights};
use crate::cap::Caps;
use crate::congestion;
use crate::drive::Arrival;
use crate::follow::{FOLLOW, follow};
use crate::hash;
use crate::live::{Credit, PLACES, Place, Room};
use crate::metrics::traffic::Traffic;
use crate::paced::Paced;
use crate::removed::Removed;
use crate::skew::{self, Skew};
use crate::verify::Verifier;

/// Frames that may wait for a stream. With the core's window of 64 entries for each log this is
/// never reached by a peer that reads.
const QUEUE: usize = 512;
/// What may wait for the stream of previews: as many previews, or words that some were taken, as
/// can be under way, and watches.
const LIVE_QUEUE: usize = 2 * PLACES;
/// A writer gathers this much before it hands bytes to the connection.
const GATHER: usize = 32 << 10;

/// Why a connection is closed, as the peer sees it.
pub(crate) const CLOSE_STOPPING: VarInt = VarInt::from_u32(0);
pub(crate) const CLOSE_PROTOCOL: VarInt = VarInt::from_u32(1);
pub(crate) const CLOSE_HANGUP: VarInt = VarInt::from_u32(2);
pub(crate) const CLOSE_REMOVED: VarInt = VarInt::from_u32(3);
/// Why a stream is given up: the question cannot be passed on now.
pub(crate) const STREAM_NO_UPLINK: VarInt = VarInt::from_u32(1);

/// The streams that carry frames, by their place in [`Link::queues`].
pub(crate) const CLASSES: [Class; 5] = [
    Class { kind: StreamKind::Beats, priority: 30, name: "beats" },
    Class { kind: StreamKind::Control, priority: 20, name: "control" },
    Class { kind: StreamKind::Reports, priority: 10, name: "reports" },
    Class { kind: StreamKind::Live, priority: 5, name: "live" },
    Class { kind: StreamKind::Bus, priority: 3, name: "bus" },
];
const LIVE: usize = 3;
const BUS: usize = 4;
/// Messages and answers leave so much of the queue of the bus to words about interest, which must
/// arrive.
const INTEREST: usize = 32;
/// Bytes of messages and answers that may wait for a link.
const BUS_WAITING: usize = 1 << 20;

/// A stream that carries frames.
pub(crate) struct Class {
    kind: StreamKind,
    priority: i32,
    /// What it is called in metrics.
    pub(crate) name: &'static str,
}

/// Bytes of one class that crossed a link.
#[derive(Default, Debug)]
pub(crate) struct Flow {
    pub(crate) sent: AtomicU64,
    pub(crate) received: AtomicU64,
}

/// Bytes that crossed a link, without the overhead of QUIC.
#[derive(Default, Debug)]
pub(crate) struct Counters {
    /// Of each class.
    pub(crate) frames: [Flow; CLASSES.len()],
    pub(crate) content_sent: AtomicU64,
    pub(crate) content_received: AtomicU64,
}

impl Counters {
    pub(crate) fn sent(&self, bytes: usize) {
        self.content_sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes of content either way.
    pub(crate) fn moved(&self) -> u64 {
        let (sent, received) = (&self.content_sent, &self.content_received);
        sent.load(Ordering::Relaxed) + received.load(Ordering::Relaxed)
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.content_received.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// The sending side of a link, owned by the drive loop.
pub(crate) struct Link {
    pub(crate) id: LinkId,
    pub(crate) peer: Peer,
    pub(crate) name: String,
    /// Its public key.
    pub(crate) key: [u8; 32],
    pub(crate) conn: Connection,
    /// The endpoint that was made for this connection, if this side has dialled.
    pub(crate) endpoint: Option<quinn::Endpoint>,
    /// The address that this side has dialled, if it has.
    pub(crate) dialled: String,
    pub(crate) since: SystemTime,
    pub(crate) counters: Arc<Counters>,
    /// Where it is added up, once the drive loop has it.
    pub(crate) traffic: Option<Traffic>,
    /// Content on its way down, if the peer is a child.
    pub(crate) bulk: Option<Arc<Bulk>>,
    /// The last beat, which can be said again.
    beat: Mutex<Option<Box<Frame>>>,
    queues: [mpsc::Sender<Queued>; CLASSES.len()],
    bus_waiting: Weights,
    /// What the peer is still to be told of what is wanted on the bus.
    interest: Arc<Mutex<Option<Frame>>>,
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(traffic) = self.traffic.take() {
            traffic.end(self);
        }
    }
}

/// What waits for its stream.
enum Queued {
    /// A frame, with the place that it takes if it is a preview.
    Frame(Frame, Option<Place>),
    /// A message or an answer of the bus, with what it weighs.
    Bus(Frame, Weight),
    /// What is wanted on the bus: the newest word of it, whatever has been said since it waits.
    Interest(Arc<Mutex<Option<Frame>>>),
    /// The word that a preview was taken.
    Heard,
    /// Whose keys are no longer of the mesh, encoded.
    Removals(Bytes),
}

/// The queues of a link, waiting for their streams.
pub(crate) struct Queues {
    receivers: [Option<mpsc::Receiver<Queued>>; CLASSES.len()],
    /// Where the reader of previews says that it has taken one.
    live: mpsc::Sender<Queued>,
    counters: Arc<Counters>,
}

/// A queue that has no room.
pub(crate) struct Full;

/// Where frames and ends of links are reported.
pub(crate) type Inbox = mpsc::Sender<Arrival>;

impl Link {
    pub(crate) fn new(
        id: LinkId,
        peer: Peer,
        (name, key): (String, [u8; 32]),
        conn: Connection,
    ) -> (Link, Queues) {
        let channels: [_; CLASSES.len()] = std::array::from_fn(|class| {
            mpsc::channel(if class == LIVE { LIVE_QUEUE } else { QUEUE })
        });
        let [(a, v), (b, w), (c, x), (d, y), (e, z)] = channels;
        let (counters, since) = (Arc::<Counters>::default(), SystemTime::now());
        let receivers = [Some(v), Some(w), Some(x), Some(y), Some(z)];
        let (queues, live) = ([a, b, c, d.clone(), e], d);
        let bus_waiting = Weights::new(BUS_WAITING);
        let (endpoint, dialled, traffic, bulk, beat, interest) = Default::default();
        let there = Queues { receivers, live, counters: counters.clone() };
        let link = Link {
            id,
            peer,
            name,
            key,
            conn,
            endpoint,
            dialled,
            since,
            counters,
            traffic,
            bulk,
            beat,
            queues,
            bus_waiting,
            interest,
        };
        (link, there)
    }

    /// Queues a frame. An error: the peer does not read. On a link that has ended it is dropped.
    pub(crate) fn send(&self, frame: Frame, place: Option<Place>) -> Result<(), Full> {
        if let Frame::Beat { .. } = &frame {
            *self.beat.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(Box::new(frame.clone()));
        }
        let class = match frame {
            Frame::Beat { .. } => 0,
            Frame::Report { .. } | Frame::ReportsHeld { .. } => 2,
            Frame::Events { .. } | Frame::EventsHeld { .. } => 2,
            Frame::Profiles { .. } | Frame::ProfilesHeld { .. } => 2,
            Frame::Watch { .. } | Frame::Said(_) => LIVE,
            Frame::Interest(_) => {
                self.send_interest(frame);
                return Ok(());
            }
            Frame::Message(_) | Frame::Answer(_) => BUS,
            _ => 1,
        };
        match self.queues[class].try_send(Queued::Frame(frame, place)) {
            Err(mpsc::error::TrySendError::Full(_)) if class != LIVE => Err(Full),
            _ => Ok(()),
        }
    }

    /// Tells what is wanted on the bus. What was not sent yet is not worth sending any more, so it
    /// takes one place, however often it changes.
    fn send_interest(&self, frame: Frame) {
        let mut told = self.interest.lock().unwrap_or_else(PoisonError::into_inner);
        if told.replace(frame).is_none() {
            // Messages leave room for it; a queue that is closed wants nothing.
            self.queues[BUS].try_send(Queued::Interest(self.interest.clone())).ok();
        }
    }

    /// Queues a message or an answer of the bus, if there is room; else it is dropped.
    pub(crate) fn send_bus(&self, frame: Frame) -> Result<(), Full> {
        let (bytes, queue) = (body_of(&frame).len(), &self.queues[BUS]);
        // A peer without a bus has no queue any more, and was told nothing of what is wanted here.
        if queue.is_closed() {
            return Ok(());
        }
        let room = queue.capacity() > INTEREST;
        let weight = self.bus_waiting.take(bytes).filter(|_| room).ok_or(Full)?;
        queue.try_send(Queued::Bus(frame, weight)).map_err(|_| Full)
    }

    /// How many frames wait for their streams.
    pub(crate) fn waiting(&self) -> usize {
        self.queues.iter().map(|queue| queue.max_capacity() - queue.capacity()).sum()
    }

    /// Says the last beat again, for what the shell says with it.
    pub(crate) fn repeat_beat(&self) {
        let beat = self.beat.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(beat) = beat {
            // With a full queue the link is lost anyway.
            self.queues[0].try_send(Queued::Frame(*beat, None)).ok();
        }
    }

    /// Queues the list of removed keys. A child that does not read loses its link by other frames.
    pub(crate) fn send_removals(&self, frame: Bytes) {
        self.queues[1].try_send(Queued::Removals(frame)).ok();
    }

    /// Ends the link of a peer that was removed from the mesh.
    pub(crate) fn close_removed(&self) {
        self.conn.close(CLOSE_REMOVED, PeerFault::Removed.to_string().as_bytes());
    }

    pub(crate) fn close(&self, reason: &str) {
        self.conn.close(CLOSE_HANGUP, reason.as_bytes());
    }
}

/// What the tasks of a link need.
#[derive(Clone)]
pub(crate) struct Reader {
    pub(crate) id: LinkId,
    pub(crate) peer: Peer,
    pub(crate) conn: Connection,
    pub(crate) inbox: Inbox,
    pub(crate) verifier: Arc<Verifier>,
    pub(crate) room: Room,
    pub(crate) removed: Removed,
    pub(crate) credit: Credit,
    /// For messages of the bus that wait for the drive loop.
    pub(crate) bus_room: Arc<Semaphore>,
    /// Of a node that speaks for others: whether its parent can read packed reports.
    pub(crate) packs: Option<Arc<AtomicBool>>,
    /// Of a child: what it says of the content that it is to get.
    pub(crate) caps: Option<Caps>,
    /// Of a parent: the content that the child gets.
    pub(crate) bulk: Option<Arc<Bulk>>,
    pub(crate) paced: Paced,
}

impl Reader {
    /// The child's side: opens the five streams and starts their tasks.
    pub(crate) async fn open_streams(&self, mut queues: Queues) -> Result<(), LinkError> {
        for (n, class) in CLASSES.iter().enumerate() {
            let (mut send, recv) = self.conn.open_bi().await.map_err(LinkError::Lost)?;
            send.set_priority(class.priority).ok();
            send.write_all(&[class.kind as u8]).await.map_err(LinkError::Write)?;
            self.start(n, (send, recv), &mut queues).expect("each class is opened once");
        }
        Ok(())
    }

    /// The parent's side: attaches a stream that the child opened to its queue.
    pub(crate) fn attach(
        &self,
        queues: &mut Queues,
        kind: StreamKind,
        send: SendStream,
        recv: RecvStream,
    ) -> Result<(), LinkError> {
        let class = CLASSES.iter().position(|class| class.kind == kind);
        let class = class.ok_or(LinkError::Protocol("a stream of an unexpected kind"))?;
        send.set_priority(CLASSES[class].priority).ok();
        self.start(class, (send, recv), queues).ok_or(LinkError::Protocol("a stream opened twice"))
    }

    /// Starts the tasks of a class. `None`: it has them already.
    fn start(
        &self,
        class: usize,
        (send, recv): (SendStream, RecvStream),
        queues: &mut Queues,
    ) -> Option<()> {
        let queue = queues.receivers[class].take()?;
        let (kind, live) = (CLASSES[class].kind, queues.live.clone());
        let (sent, received) = (queues.counters.clone(), queues.counters.clone());
        let (conn, credit) = (self.conn.clone(), self.credit.clone());
        // A lost beat is made good by the next one.
        let urgent = matches!(kind, StreamKind::Control | StreamKind::Reports);
        let follower = urgent.then(|| conn.clone());
        let says_time = matches!(self.peer, Peer::Child { .. });
        let (packs, caps) = (self.packs.clone(), self.caps.clone());
        let coder = Coder { packs, packer: None, caps, says_time };
        tokio::spawn(async move {
            let written = tokio::select! {
                written = write_frames(
                    (send, &sent.frames[class].sent),
                    queue,
                    (&credit, coder),
                    follower,
                ) => written,
                // Nobody will thank any more, and what waits must give up its place.
                _ = conn.closed() => return,
            };
            if let Err(error) = written {
                debug!(error = %crate::chain(&error), ?kind, "a link's writer ended");
                // A peer that does not know previews or the bus refuses their stream and nothing
                // else.
                if !matches!(kind, StreamKind::Live | StreamKind::Bus) {
                    conn.close(CLOSE_HANGUP, b"write failed");
                }
            }
        });
        let reader = self.clone();
        tokio::spawn(async move {
            let recv = (recv, &received.frames[class].received);
            let read = match kind {
                StreamKind::Live => reader.read_live(recv, live).await,
                StreamKind::Bus => reader.read_bus(recv).await,
                _ => reader.read_frames(recv).await,
            };
            match read {
                Ok(()) | Err(LinkError::Lost(_) | LinkError::Ended) => {}
                Err(error) => {
                    let (host, error) = (reader.peer.host(), crate::chain(&error));
                    warn!(peer = %host, %error, "closing a link: the peer broke the protocol");
                    reader.conn.close(CLOSE_PROTOCOL, error.as_bytes());
                }
            }
        });
        Some(())
    }

    /// Reads frames until the stream ends. Waits while the node is busy, so that the peer slows
    /// down by flow control and nothing piles up here.
    async fn read_frames(
        &self,
        (mut recv, received): (RecvStream, &AtomicU64),
    ) -> Result<(), LinkError> {
        let (mut unpacker, mut clocks) = (None, Skew::default());
        while let Some(bytes) = read_framed(&mut recv).await? {
            count(received, bytes.len() + protos::HEADER_BYTES);
            let incoming = protos::decode_frame(bytes, hash).map_err(LinkError::Frame)?;
            if let Peer::Parent { .. } = self.peer {
                self.removed.set_out(false);
            }
            let input = match incoming {
                Incoming::Frame(
                    Frame::Watch { .. }
                    | Frame::Said(_)
                    | Frame::Interest(_)
                    | Frame::Message(_)
                    | Frame::Answer(_),
                )
                | Incoming::Heard => return Err(WRONG_STREAM),
                Incoming::Frame(frame) => Input::Frame { link: self.id, frame },
                Incoming::Beat { frame, allowance, clock_s } => {
                    self.allow(allowance);
                    if let Peer::Parent { .. } = self.peer
                        && clock_s > 0
                    {
                        let (here, now) = (skew::unix_s(), std::time::Instant::now());
                        let (ahead, said) = clocks.hear(clock_s, here, now);
                        let heard = Arrival::Clock { ahead, said, parent: self.peer.host() };
                        self.inbox.send(heard).await.ok();
                    }
                    Input::Frame { link: self.id, frame }
                }
                Incoming::Hello { frame, unpacks } => {
                    self.packs.iter().for_each(|packs| packs.store(unpacks, Ordering::Relaxed));
                    Input::Frame { link: self.id, frame }
                }
                Incoming::Packed(packed) => {
                    let unpacker = unpacker.get_or_insert_with(Unpacker::default);
                    let frame = unpacker.unpack(packed, hash).map_err(LinkError::Frame)?;
                    Input::Frame { link: self.id, frame }
                }
                Incoming::Order { log, seq, envelope } => self.check_order(log, seq, envelope),
                Incoming::Removals(list) => {
                    self.take_removals(list).await?;
                    continue;
                }
            };
            if self.inbox.send(Arrival::Input(input)).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The same for the stream of previews. One is thanked for when it has its place here.
    async fn read_live(
        &self,
        (mut recv, received): (RecvStream, &AtomicU64),
        live: mpsc::Sender<Queued>,
    ) -> Result<(), LinkError> {
        while let Some(bytes) = read_framed(&mut recv).await? {
            count(received, bytes.len() + protos::HEADER_BYTES);
            let input = |frame| Input::Frame { link: self.id, frame };
            let sent = match protos::decode_frame(bytes, hash).map_err(LinkError::Frame)? {
                Incoming::Frame(frame @ Frame::Said(_)) => {
                    let place = self.room.place().await;
                    // For a child that does not read there will be no more room.
                    live.try_send(Queued::Heard).ok();
                    self.inbox.send(Arrival::Preview { input: input(frame), place }).await
                }
                Incoming::Frame(frame @ Frame::Watch { .. }) => {
                    self.inbox.send(Arrival::Input(input(frame))).await
                }
                Incoming::Heard => {
                    self.credit.earn();
                    Ok(())
                }
                Incoming::Frame(_)
                | Incoming::Beat { .. }
                | Incoming::Hello { .. }
                | Incoming::Packed(_)
                | Incoming::Order { .. }
                | Incoming::Removals(_) => return Err(WRONG_STREAM),
            };
            if sent.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The same for the stream of the bus. Messages have few places before the drive loop, so that
    /// whoever sends many waits for it, and orders do not wait for him.
    async fn read_bus(
        &self,
        (mut recv, received): (RecvStream, &AtomicU64),
    ) -> Result<(), LinkError> {
        while let Some(bytes) = read_framed(&mut recv).await? {
            count(received, bytes.len() + protos::HEADER_BYTES);
            let frame = match protos::decode_frame(bytes, hash).map_err(LinkError::Frame)? {
                Incoming::Frame(
                    frame @ (Frame::Interest(_) | Frame::Message(_) | Frame::Answer(_)),
                ) => frame,
                _ => return Err(WRONG_STREAM),
            };
            let place = self.bus_room.clone().acquire_owned().await;
            let _place = place.expect("it is never closed");
            let input = Input::Frame { link: self.id, frame };
            if self.inbox.send(Arrival::Bus { input, _place }).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Only a parent says who was removed; who has said it first is the authority.
    async fn take_removals(&self, list: SignedRemovals) -> Result<(), LinkError> {
        if !matches!(self.peer, Peer::Parent { .. }) {
            return Err(LinkError::Protocol("a list of removals from a child"));
        }
        let removed = self.removed.clone();
        let taken = tokio::task::spawn_blocking(move || removed.take(&list)).await;
        taken.expect("taking a list does not panic").map_err(LinkError::Removals)
    }

    /// A child has said what content it is to get.
    fn allow(&self, allowance: Allowance) {
        if let Some(bulk) = &self.bulk {
            bulk.declare(allowance.rate);
            congestion::set_yields(&self.conn, allowance.yields);
        }
    }

    fn check_order(&self, log: u64, seq: u64, envelope: Bytes) -> Input {
        let link = self.id;
        match self.verifier.admit(&envelope) {
            Ok((order, rate)) => {
                self.paced.note(&order, rate);
                let order = Arc::new(order);
                Input::Frame { link, frame: Frame::Order { log, seq, order } }
            }
            Err(refused) => {
                let from = self.peer.host();
                warn!(%from, order = ?refused.id, reason = %refused.fault, "refusing an order");
                let body = refused.answer().encode();
                let outcome = Outcome { state: refused.state(), body: Some(hash(&body)) };
                let order = refused.id.unwrap_or(mesh::OrderId([0; 16]));
                let outcome = Some(outcome).filter(|_| refused.meant);
                Input::BadOrder { link, log, seq, order, outcome, body: Some(body) }
            }
        }
    }
}

const WRONG_STREAM: LinkError = LinkError::Protocol("a frame on a stream of another kind");

/// Why a link ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("the connection is gone")]
    Lost(#[source] quinn::ConnectionError),
    #[error("the stream ended")]
    Ended,
    #[error("the peer has no link to its own parent")]
    NoUplink,
    #[error("the peer broke the protocol: {0}")]
    Protocol(&'static str),
    #[error("a frame is not readable")]
    Frame(#[source] protos::FrameError),
    #[error("the length of a frame is not acceptable")]
    Header(#[source] protos::HeaderError),
    #[error("writing failed")]
    Write(#[source] quinn::WriteError),
    #[error(transparent)]
    Removals(#[from] crate::removed::RemovalsFault),
    #[error("no sign of life for {} s", .0.as_secs())]
    Timeout(Duration),
}

impl From<quinn::ReadExactError> for LinkError {
    fn from(error: quinn::ReadExactError) -> LinkError {
        match error {
            quinn::ReadExactError::ReadError(quinn::ReadError::ConnectionLost(error)) => {
                LinkError::Lost(error)
            }
            quinn::ReadExactError::ReadError(quinn::ReadError::Reset(STREAM_NO_UPLINK)) => {
                LinkError::NoUplink
            }
            _ => LinkError::Ended,
        }
    }
}

/// The next length-prefixed message of a stream; `None` at its clean end.
pub(crate) async fn read_framed(recv: &mut RecvStream) -> Result<Option<Bytes>, LinkError> {
    read_framed_within(recv, protos::FRAME_LIMIT).await
}

/// The same, for messages that may not be as long as a frame.
pub(crate) async fn read_framed_within(
    recv: &mut RecvStream,
    limit: usize,
) -> Result<Option<Bytes>, LinkError> {
    let mut header = [0; 4];
    match recv.read_exact(&mut header).await {
        Ok(()) => {}
        Err(quinn::ReadExactError::FinishedEarly(0)) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let len = protos::parse_header_within(header, limit).map_err(LinkError::Header)?;
    let mut body = BytesMut::zeroed(len);
    recv.read_exact(&mut body).await?;
    Ok(Some(body.freeze()))
}

/// Writes one length-prefixed message.
pub(crate) async fn write_framed(send: &mut SendStream, body: &[u8]) -> Result<(), LinkError> {
    send.write_all(&protos::frame_header(body.len())).await.map_err(LinkError::Write)?;
    send.write_all(body).await.map_err(LinkError::Write)
}

async fn write_frames(
    (mut send, sent): (SendStream, &AtomicU64),
    mut queue: mpsc::Receiver<Queued>,
    (credit, mut coder): (&Credit, Coder),
    follower: Option<Connection>,
) -> Result<(), LinkError> {
    let mut buffer = BytesMut::new();
    let mut waiting = queue.recv().await;
    while let Some(first) = waiting {
        let mut next = Some(first);
        while let Some(queued) = next {
            if let Queued::Frame(Frame::Said(_), _) = queued
                && !credit.try_spend()
            {
                // What the parent would thank for must have left before anybody waits for thanks.
                send.write_all(&buffer).await.map_err(LinkError::Write)?;
                buffer.clear();
                credit.spend().await;
            }
            let body = match queued {
                Queued::Bus(frame, _weight) => protos::encode_frame(&frame),
                Queued::Interest(newest) => {
                    let newest = newest.lock().unwrap_or_else(PoisonError::into_inner).take();
                    newest.map_or_else(Bytes::new, |frame| protos::encode_frame(&frame))
                }
                Queued::Frame(frame, _place) => coder.encode(&frame),
                Queued::Heard => protos::encode_heard(),
                Queued::Removals(frame) => frame,
            };
            if !body.is_empty() {
                count(sent, body.len() + protos::HEADER_BYTES);
                buffer.extend_from_slice(&protos::frame_header(body.len()));
                buffer.extend_from_slice(&body);
            }
            next = if buffer.len() < GATHER { queue.try_recv().ok() } else { None };
        }
        send.write_chunk(buffer.split().freeze()).await.map_err(LinkError::Write)?;
        waiting = match &follower {
            Some(conn) => match timeout(FOLLOW, queue.recv()).await {
                Ok(next) => next,
                Err(_) => {
                    follow(conn);
                    queue.recv().await
                }
            },
            None => queue.recv().await,
        };
    }
    send.finish().ok();
    Ok(())
}

fn count(counter: &AtomicU64, bytes: usize) {
    counter.fetch_add(bytes as u64, Ordering::Relaxed);
}

/// What a message or an answer of the bus carries.
fn body_of(frame: &Frame) -> &[u8] {
    match frame {
        Frame::Message(message) => &message.body,
        Frame::Answer(answer) => &answer.body,
        _ => &[],
    }
}

/// How the frames of one stream become bytes.
struct Coder {
    /// Whether the parent can unpack reports.
    packs: Option<Arc<AtomicBool>>,
    packer: Option<Packer>,
    caps: Option<Caps>,
    /// Whether beats say what time it is.
    says_time: bool,
}

impl Coder {
    /// The bytes of a frame: of a report packed, if the parent can unpack it; of a beat with what
    /// content may come, or what time it is.
    fn encode(&mut self, frame: &Frame) -> Bytes {
        let packs = self.packs.as_ref().is_some_and(|packs| packs.load(Ordering::Relaxed));
        let packed = match frame {
            Frame::Report { log, seq, report } if packs => {
                self.packer.get_or_insert_with(Packer::default).pack(*log, *seq, report)
            }
            Frame::Beat { .. } if self.says_time => {
                Some(protos::encode_frame_at(frame, skew::unix_s()))
            }
            Frame::Beat { .. } => {
                self.caps.as_ref().map(|caps| protos::encode_allowing(frame, caps.now()))
            }
            _ => None,
        };
        packed.unwrap_or_else(|| protos::encode_frame(frame))
    }
}

/// Who the other end of a finished handshake is, by its certificate.
pub(crate) fn leaf_of(conn: &Connection) -> Result<certs::Leaf, PeerFault> {
    let chain = conn.peer_identity().ok_or(PeerFault::Nameless)?;
    let chain = chain
        .downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>()
        .map_err(|_| PeerFault::Nameless)?;
    certs::peer_leaf(&chain).map_err(PeerFault::Certificate)
}

/// A peer whose identity is not acceptable.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerFault {
    #[error("the peer has shown no certificate")]
    Nameless,
    #[error("the peer's certificate is not acceptable")]
    Certificate(#[source] certs::PeerError),
    #[error("the peer belongs to another mesh")]
    Mesh,
    #[error("this node was removed from the mesh")]
    Removed,
    #[error("this relay was removed from the mesh: try another parent")]
    Out,
}

/// The number of a host as the core knows it.
pub(crate) fn host_of(identity: &certs::Identity) -> HostId {
    HostId(identity.id)
}
