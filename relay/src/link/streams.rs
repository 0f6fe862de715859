//! The streams of a link that carry frames: which there are, and two tasks for each.
//!
//! The child opens them and the parent attaches what comes to its queues; either way one task
//! writes and one reads. How they do that is in `write` and `read`; here is when they start, and
//! what it means for the link when they end.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use mesh::{LinkId, Peer};
use protos::StreamKind;
use quinn::{Connection, RecvStream, SendStream};
use tokio::sync::{Semaphore, watch};
use tracing::{debug, warn};

use super::framed::LinkError;
use super::tally::Tally;
use super::write::{Coder, write_frames};
use super::{CLOSE_HANGUP, CLOSE_PROTOCOL, Inbox, Queues};
use crate::bulk::Bulk;
use crate::cap::Caps;
use crate::live::{Credit, Room};
use crate::paced::Paced;
use crate::removed::Removed;
use crate::skew::Chime;
use crate::verify::Verifier;

/// The streams that carry frames, by their place among a link's queues.
pub(crate) const CLASSES: [Class; 5] = [
    Class { kind: StreamKind::Beats, priority: 30, name: "beats" },
    Class { kind: StreamKind::Control, priority: 20, name: "control" },
    Class { kind: StreamKind::Reports, priority: 10, name: "reports" },
    Class { kind: StreamKind::Live, priority: 5, name: "live" },
    Class { kind: StreamKind::Bus, priority: 3, name: "bus" },
];
/// The place of previews.
pub(super) const LIVE: usize = 3;
/// The place of the bus.
pub(super) const BUS: usize = 4;

/// A stream that carries frames.
pub(crate) struct Class {
    kind: StreamKind,
    priority: i32,
    /// What it is called in metrics.
    pub(crate) name: &'static str,
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
    /// Of the controller's child: whether the controller may be heard, by its hello.
    pub(crate) met: Option<Arc<watch::Sender<bool>>>,
    /// For messages of the bus that wait for the drive loop.
    pub(crate) bus_room: Arc<Semaphore>,
    /// Of a node that speaks for others: whether its parent can read packed reports.
    pub(crate) packs: Option<Arc<AtomicBool>>,
    /// Whether the peer can read previews of what no answer keeps.
    pub(crate) tails: Arc<AtomicBool>,
    /// Whether the peer takes questions about answers that have gone another way.
    pub(crate) seeks: Arc<AtomicBool>,
    /// What of the bus crosses the link.
    pub(crate) tally: Arc<Tally>,
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
        let chime = matches!(self.peer, Peer::Child { .. }).then(Chime::default);
        let (packs, caps) = (self.packs.clone(), self.caps.clone());
        let (tails, seeks) = (self.tails.clone(), self.seeks.clone());
        let removed = self.removed.clone();
        let (tally, told) = (self.tally.clone(), 0);
        let coder = Coder { packs, packer: None, caps, chime, tails, seeks, removed, tally, told };
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
            let (recv, heard) = ((recv, &received.frames[class].received), &received.heard);
            if kind != StreamKind::Control && !reader.may_hear().await {
                return;
            }
            let read = match kind {
                StreamKind::Live => reader.read_live(recv, live).await,
                StreamKind::Bus => reader.read_bus(recv).await,
                _ => reader.read_frames(recv, heard).await,
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
}
