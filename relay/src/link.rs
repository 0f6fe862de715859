//! A link: one QUIC connection, its five streams of frames, and their queues.
//!
//! Beats, control, reports, previews and the bus each have a stream of their own with a strict
//! priority, all above content. The child opens the streams, the first byte tells which is which.
//! Each direction of a stream has a bounded queue and a task; sending is a `try_send`, and a queue
//! that is full is a lost link, so that a child that does not read can never hold anybody up. Only
//! the streams of previews and of the bus may stall or be missing: nothing depends on them, and
//! what does not fit is dropped.
//!
//! Here is the sending side, which the drive loop owns. `streams` starts the tasks, `read` and
//! `write` are what they do, `framed` is how messages lie on a stream, `unsent` what of the bus is
//! lost with its link, `tally` what of it has crossed, `counters` what has crossed in bytes, `peer`
//! who is at the other end.

mod counters;
mod framed;
mod peer;
mod read;
mod streams;
mod tally;
mod unsent;
mod write;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use mesh::{Frame, LinkId, Peer};
use quinn::{Connection, VarInt};
use tokio::sync::mpsc;

use self::streams::{BUS, LIVE};
use self::unsent::Unsent;
use crate::bulk::Bulk;
use crate::bus::{BROKEN, Hub, LINK, Patience, Prospect, Room, Weights};
use crate::drive::Arrival;
use crate::live::{PLACES, Place};
use crate::metrics::traffic::Traffic;

pub(crate) use self::counters::Counters;
pub(crate) use self::framed::{LinkError, read_framed, read_framed_within, write_framed};
pub(crate) use self::peer::{PeerFault, host_of, leaf_of};
pub(crate) use self::streams::{CLASSES, Reader};
pub(crate) use self::tally::{Account, Sealed, Tally};

/// Frames that may wait for a stream. With the core's window of 64 entries for each log this is
/// never reached by a peer that reads.
const QUEUE: usize = 512;
/// What may wait for the stream of previews: as many previews, or words that some were taken, as
/// can be under way, and watches.
const LIVE_QUEUE: usize = 2 * PLACES;

/// Why a connection is closed, as the peer sees it.
pub(crate) const CLOSE_STOPPING: VarInt = VarInt::from_u32(0);
pub(crate) const CLOSE_PROTOCOL: VarInt = VarInt::from_u32(1);
pub(crate) const CLOSE_HANGUP: VarInt = VarInt::from_u32(2);
pub(crate) const CLOSE_REMOVED: VarInt = VarInt::from_u32(3);
/// Why a stream is given up: the question cannot be passed on now.
pub(crate) const STREAM_NO_UPLINK: VarInt = VarInt::from_u32(1);

/// Messages and answers leave so much of the queue of the bus to words about interest, which must
/// arrive.
const INTEREST: usize = 32;
/// Bytes of messages and answers that may wait for a link.
const BUS_WAITING: usize = 1 << 20;

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
    /// The epoch that the parent has said, once it has said hello; none: it knows of none.
    pub(crate) epoch: OnceLock<Option<u64>>,
    /// The last beat, which can be said again.
    beat: Mutex<Option<Box<Frame>>>,
    queues: [mpsc::Sender<Queued>; CLASSES.len()],
    bus_waiting: Weights,
    /// What of the bus has crossed it.
    pub(crate) tally: Arc<Tally>,
    /// Whether programs here that publish wait for it.
    patience: Patience,
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
    /// A message or an answer of the bus.
    Bus(Unsent),
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
        let tally = Arc::new(Tally::of(&conn));
        let (endpoint, dialled, traffic, bulk, epoch) = Default::default();
        let (beat, patience, interest) = Default::default();
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
            epoch,
            beat,
            queues,
            bus_waiting,
            tally,
            patience,
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
            Frame::Seek { .. } | Frame::Found { .. } => return self.send_seek(frame),
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

    /// Queues a question about answers that have gone another way, or what was found. It is asked
    /// again if it is dropped, so it takes no room from what must not be.
    fn send_seek(&self, frame: Frame) -> Result<(), Full> {
        let queue = &self.queues[2];
        if queue.capacity() > queue.max_capacity() / 2 {
            queue.try_send(Queued::Frame(frame, None)).ok();
        }
        Ok(())
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

    /// Queues a message or an answer of the bus, if there is room; else it is dropped, which is
    /// counted.
    pub(crate) fn send_bus(&self, frame: Frame, hub: &Hub) {
        let (bytes, queue) = (body_of(&frame).len(), &self.queues[BUS]);
        if queue.is_closed() {
            // The link has just ended, or the peer has no bus.
            return hub.dropped(BROKEN, 1);
        }
        let room = queue.capacity() > INTEREST;
        match self.bus_waiting.take(bytes).filter(|_| room) {
            // What comes back, since the link has ended just now, counts itself.
            Some(weight) => {
                queue.try_send(Queued::Bus(Unsent::new(frame, weight, hub))).ok();
            }
            None => hub.dropped(LINK, 1),
        }
    }

    /// What is to be expected of this link for a message.
    pub(crate) fn look(&self, prospect: &mut Prospect) {
        let queue = &self.queues[BUS];
        let places = match queue.capacity() {
            free if free <= INTEREST => Room::None,
            free if free < QUEUE / 2 => Room::Some,
            _ => Room::Half,
        };
        if !queue.is_closed() {
            prospect.note(&self.patience, places.min(self.bus_waiting.room(prospect.bytes())));
        }
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

    /// Queues a list of removed keys. A peer that does not read loses its link by other frames.
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

/// What a message or an answer of the bus carries.
fn body_of(frame: &Frame) -> &[u8] {
    match frame {
        Frame::Message(message) => &message.body,
        Frame::Answer(answer) => &answer.body,
        _ => &[],
    }
}
