//! The writing side of a link: from a queue to the bytes of its stream.
//!
//! What waits is gathered, so that many small frames are one write. Previews wait for thanks.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};

use bytes::{Bytes, BytesMut};
use mesh::Frame;
use protos::{Beside, Packer};
use quinn::{Connection, SendStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::Queued;
use super::counters::count;
use super::framed::LinkError;
use super::tally::Tally;
use super::unsent::Unsent;
use crate::cap::Caps;
use crate::follow::{FOLLOW, follow};
use crate::live::Credit;
use crate::removed::Removed;
use crate::skew::{self, Chime};

/// A writer gathers this much before it hands bytes to the connection.
const GATHER: usize = 32 << 10;

/// Writes what is queued until nobody can queue any more.
pub(super) async fn write_frames(
    (mut send, sent): (SendStream, &AtomicU64),
    mut queue: mpsc::Receiver<Queued>,
    (credit, mut coder): (&Credit, Coder),
    follower: Option<Connection>,
) -> Result<(), LinkError> {
    let mut buffer = BytesMut::new();
    // What of the bus lies in the buffer.
    let mut unsent = Vec::<Unsent>::new();
    let mut waiting = queue.recv().await;
    while let Some(first) = waiting {
        let mut next = Some(first);
        while let Some(queued) = next {
            if coder.withholds(&queued) {
                next = queue.try_recv().ok();
                continue;
            }
            if let Queued::Frame(Frame::Said(_), _) = queued
                && !credit.try_spend()
            {
                // What the parent would thank for must have left before anybody waits for thanks.
                send.write_all(&buffer).await.map_err(LinkError::Write)?;
                buffer.clear();
                credit.spend().await;
            }
            let body = match queued {
                Queued::Bus(message) => {
                    let body = protos::encode_frame(message.frame());
                    unsent.push(message);
                    body
                }
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
        if !buffer.is_empty() {
            let count = unsent.len() as u64;
            if count > 0 && !coder.tally.begin(count) {
                return Ok(());
            }
            unsent.drain(..).for_each(Unsent::sent);
            send.write_chunk(buffer.split().freeze()).await.map_err(LinkError::Write)?;
            coder.tally.end(count);
        }
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

/// How the frames of one stream become bytes.
pub(super) struct Coder {
    /// Whether the parent can unpack reports.
    pub(super) packs: Option<Arc<AtomicBool>>,
    pub(super) packer: Option<Packer>,
    pub(super) caps: Option<Caps>,
    /// Towards a child: which beats say what time it is.
    pub(super) chime: Option<Chime>,
    /// Whether the parent can read previews of what no answer keeps.
    pub(super) tails: Arc<AtomicBool>,
    /// Whether the peer takes questions about answers that have gone another way.
    pub(super) seeks: Arc<AtomicBool>,
    /// Whose epoch a hello says.
    pub(super) removed: Removed,
    /// What of the bus crosses the link, and how much of what came the peer was told.
    pub(super) tally: Arc<Tally>,
    pub(super) told: u64,
}

impl Coder {
    /// Whether this must not be sent, since the peer would take it for nonsense.
    fn withholds(&self, queued: &Queued) -> bool {
        match queued {
            Queued::Frame(Frame::Said(said), _) => {
                let end = said.offset.saturating_add(said.bytes.len() as u64);
                end > u64::from(protos::OUTPUT_LIMIT) && !self.tails.load(Ordering::Relaxed)
            }
            Queued::Frame(Frame::Seek { .. } | Frame::Found { .. }, _) => {
                !self.seeks.load(Ordering::Relaxed)
            }
            _ => false,
        }
    }

    /// The bytes of a frame: of a report packed, if the parent can unpack it; of a beat with what
    /// content may come, what time it is and what of the bus has come; of a hello with the epoch
    /// that is known here, and what has come by links that are over.
    fn encode(&mut self, frame: &Frame) -> Bytes {
        let packs = self.packs.as_ref().is_some_and(|packs| packs.load(Ordering::Relaxed));
        let packed = match frame {
            Frame::Report { log, seq, report } if packs => {
                self.packer.get_or_insert_with(Packer::default).pack(*log, *seq, report)
            }
            Frame::Hello { .. } => {
                let (epoch, past) = (self.removed.epoch(), self.tally.past());
                Some(protos::encode_hello(frame, epoch, past))
            }
            Frame::Beat { .. } => Some(protos::encode_beat(frame, self.beside())),
            _ => None,
        };
        packed.unwrap_or_else(|| protos::encode_frame(frame))
    }

    /// What a beat says besides. What of the bus has come is said when it is news, so that a link
    /// at rest says no more than it must.
    fn beside(&mut self) -> Beside {
        let allowance = self.caps.as_ref().map(Caps::now).unwrap_or_default();
        let strikes = self.chime.as_mut().is_some_and(Chime::strikes);
        let clock_s = if strikes { skew::unix_s() } else { 0 };
        let (taken, told) = (self.tally.taken(), self.told);
        self.told = taken;
        Beside { allowance, clock_s, taken: if taken == told { 0 } else { taken } }
    }
}
