//! The rest of an output, on its way from the host that spooled it to whoever asks the controller;
//! and the metrics of a node, which go the same way.
//!
//! A parent opens a stream to the child behind which the host lives, says what is wanted, and
//! reads. A relay does the same one step further and passes the bytes on as they come: nothing is
//! kept on the way, and QUIC's flow control makes the disk of the host as slow as the slowest link.
//! What breaks is asked for again from where it broke. The wish is signed by the controller, and
//! every node looks at the signature before it does anything.
//!
//! What is collected from hosts ([`crate::collect`]) takes the same way.
//!
//! Upward the pieces of at most [`TURNS`] streams go at a time, below everything else on the link.
//! A host that sends nothing, or a little now and then, takes no turn meanwhile.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use mesh::HostId;
use protos::{
    COLLECT_KIND, CollectBody, Envelope, OUTPUT_HEAD_LIMIT, OutputBody, OutputFault, OutputReply,
    OutputRequest, StreamKind,
};
use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use tracing::{debug, info};

use crate::accept::{open_stream, stream_kind};
use crate::cap::Caps;
use crate::collect::Collector;
use crate::drive::Arrival;
use crate::link::{LinkError, read_framed_within, write_framed};
use crate::links::Links;
use crate::metrics::Metrics;
use crate::spool::Spool;
use crate::verify::Verifier;

/// Streams of output that go up from a node at once.
const TURNS: usize = 2;
/// How long a child may take to take the stream; one that is older never does.
const OPEN: Duration = Duration::from_secs(10);
/// How long it may take until an answer begins, over all links.
const REPLY: Duration = Duration::from_secs(60);
/// A stream in which nothing moves for this long is given up.
const STALL: Duration = Duration::from_secs(60);
/// What is read and written in one go.
const PIECE: usize = 64 << 10;
/// Behind everything else of the link.
const PRIORITY: i32 = -1;
/// The rest does not come.
const RESET: VarInt = VarInt::from_u32(1);

/// What passing output on needs.
#[derive(Clone)]
pub(crate) struct Outputs {
    pub(crate) host: HostId,
    pub(crate) verifier: Arc<Verifier>,
    /// None at the controller, which runs nothing.
    pub(crate) spool: Option<Spool>,
    pub(crate) metrics: Metrics,
    pub(crate) collector: Collector,
    pub(crate) inbox: mpsc::Sender<Arrival>,
    pub(crate) links: Links,
    caps: Caps,
    turns: Arc<Semaphore>,
}

/// Output that comes.
pub struct Coming {
    /// How many bytes the host has kept in all.
    pub size: u64,
    recv: RecvStream,
}

/// Why output does not come. Nothing has changed anywhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct NotComing {
    /// What kind of reason it is.
    pub fault: OutputFault,
    /// The reason in words.
    pub detail: String,
}

impl Coming {
    /// The next bytes; `None` at the end. An error: the rest does not come now.
    pub async fn next(&mut self) -> Result<Option<Bytes>, NotComing> {
        match timeout(STALL, self.recv.read_chunk(PIECE, true)).await {
            Ok(Ok(chunk)) => Ok(chunk.map(|chunk| chunk.bytes)),
            Ok(Err(_)) => Err(broken("the way broke")),
            Err(_) => Err(broken("nothing has come for a minute")),
        }
    }
}

impl Outputs {
    pub(crate) fn new(
        host: HostId,
        verifier: Arc<Verifier>,
        (spool, metrics): (Option<Spool>, Metrics),
        collector: Collector,
        inbox: mpsc::Sender<Arrival>,
        links: Links,
        caps: Caps,
    ) -> Outputs {
        let turns = Arc::new(Semaphore::new(TURNS));
        Outputs { host, verifier, spool, metrics, collector, inbox, links, caps, turns }
    }

    /// Answers the parent's streams until the link ends.
    pub(crate) async fn serve(&self, conn: &Connection) {
        while let Ok((send, recv)) = conn.accept_bi().await {
            let outputs = self.clone();
            tokio::spawn(async move {
                if let Err(error) = outputs.answer(send, recv).await {
                    debug!(error = %crate::chain(&error), "an output stream ended early");
                }
            });
        }
    }

    async fn answer(&self, mut send: SendStream, recv: RecvStream) -> Result<(), LinkError> {
        send.set_priority(PRIORITY).ok();
        let (kind, mut recv) = stream_kind(recv).await?;
        if kind != StreamKind::Output {
            return Err(LinkError::Protocol("a parent opened a stream of an unexpected kind"));
        }
        let request = timeout(STALL, read_framed_within(&mut recv, OUTPUT_HEAD_LIMIT)).await;
        let request = request.map_err(|_| LinkError::Timeout(STALL))??.ok_or(LinkError::Ended)?;
        let passed = match self.source(&request).await {
            Err(NotComing { fault, detail }) => {
                write_framed(&mut send, &OutputReply::Fault { fault, detail }.encode()).await
            }
            Ok(Source::Way(coming)) => self.pass_on(&mut send, coming).await,
            Ok(Source::File(file, size, offset)) => {
                self.read_out(&mut send, file, size, offset).await
            }
            Ok(Source::Text(text)) => {
                let found = OutputReply::Found { size: text.len() as u64 };
                write_framed(&mut send, &found.encode()).await?;
                self.send_piece(&mut send, text).await
            }
            Ok(Source::Made(pieces)) => self.hand_out(&mut send, pieces).await,
        };
        match passed {
            Ok(()) => {
                send.finish().ok();
                Ok(())
            }
            Err(error) => {
                send.reset(RESET).ok();
                Err(error)
            }
        }
    }

    /// Where what is wanted comes from.
    async fn source(&self, request: &Bytes) -> Result<Source, NotComing> {
        let refused = |detail: String| NotComing { fault: OutputFault::Refused, detail };
        let request = OutputRequest::decode(request).map_err(|e| refused(e.to_string()))?;
        let wish = self.wish(&request.envelope).map_err(refused)?;
        if wish.host() != self.host {
            return self.ask(wish.host(), &request).await.map(Source::Way);
        }
        let wish = match wish {
            Wish::Output(wish) if wish.metrics => {
                let text = Bytes::from(self.metrics.page().await.text());
                return Ok(Source::Text(text));
            }
            Wish::Output(wish) => wish,
            Wish::Collect(body) => {
                let pieces = self.collector.answer(body, request.files).await;
                return Ok(Source::Made(pieces));
            }
        };
        let gone = |spool: Option<&Spool>| NotComing {
            fault: OutputFault::Gone,
            detail: spool.map_or("this node runs no commands".into(), Spool::absence),
        };
        let spool = self.spool.clone().ok_or_else(|| gone(None))?;
        let (found, spool) =
            tokio::task::spawn_blocking(move || (spool.find(wish.order, wish.stream), spool))
                .await
                .expect("opening a file does not panic");
        let (file, size) = found.ok_or_else(|| gone(Some(&spool)))?;
        info!(order = %wish.order, stream = ?wish.stream, bytes = size, "output is fetched");
        Ok(Source::File(Arc::new(file), size, request.offset))
    }

    /// What a wish is for, if it is the controller's.
    fn wish(&self, envelope: &Bytes) -> Result<Wish, String> {
        let envelope = Envelope::decode(envelope.clone()).map_err(|error| error.to_string())?;
        let read = match envelope.kind.as_str() {
            COLLECT_KIND => CollectBody::read(&envelope).map(Wish::Collect),
            _ => OutputBody::read(&envelope).map(Wish::Output),
        };
        let wish = read.map_err(|error| error.to_string())?;
        let (mesh, not_after_ms) = match &wish {
            Wish::Output(body) => (body.mesh, body.not_after_ms),
            Wish::Collect(body) => (body.mesh, body.not_after_ms),
        };
        self.verifier.check_wish(&envelope, mesh).map_err(|fault| fault.to_string())?;
        let end = UNIX_EPOCH + Duration::from_millis(not_after_ms);
        // For others it is only passed on: a relay whose clock is wrong keeps nobody from it.
        match end.duration_since(SystemTime::now()) {
            Err(late) if wish.host() == self.host => {
                let secs = late.duration().as_secs();
                Err(format!("the wish is no longer good since {secs} s: do the clocks differ?"))
            }
            _ => Ok(wish),
        }
    }

    /// Asks the child behind which a host lives.
    pub(crate) async fn ask(
        &self,
        host: HostId,
        request: &OutputRequest,
    ) -> Result<Coming, NotComing> {
        let away = |detail: &str| NotComing { fault: OutputFault::Away, detail: detail.into() };
        let (reply, way) = oneshot::channel();
        let asked = self.inbox.send(Arrival::Way { host, reply }).await;
        asked.map_err(|_| away("the node is stopping"))?;
        let link = way.await.ok().flatten().and_then(|link| self.links.conn(link));
        let conn = link.ok_or_else(|| away("the host cannot be reached now"))?;
        let old = "the next node on the way does not take the question: it is older than this, \
                   or four others are asked there already";
        let opened = timeout(OPEN, open_stream(&conn, StreamKind::Output)).await;
        let (mut send, mut recv) =
            opened.map_err(|_| away(old))?.map_err(|_| broken("the way broke"))?;
        let asked = async {
            write_framed(&mut send, &request.encode()).await?;
            send.finish().ok();
            read_framed_within(&mut recv, OUTPUT_HEAD_LIMIT).await?.ok_or(LinkError::Ended)
        };
        let reply = timeout(REPLY, asked).await;
        let reply = reply.map_err(|_| away("no answer within a minute"))?;
        let reply = reply.map_err(|_| broken("the way broke"))?;
        match OutputReply::decode(&reply) {
            Ok(OutputReply::Found { size }) => Ok(Coming { size, recv }),
            Ok(OutputReply::Fault { fault, detail }) => Err(NotComing { fault, detail }),
            Err(error) => Err(broken(&error.to_string())),
        }
    }
}

/// What the controller wants.
enum Wish {
    /// What a command has written.
    Output(OutputBody),
    /// What is below a path.
    Collect(CollectBody),
}

impl Wish {
    fn host(&self) -> HostId {
        match self {
            Wish::Output(body) => body.host,
            Wish::Collect(body) => body.host,
        }
    }
}

/// Where output comes from.
enum Source {
    /// The disk of this host: the file, how long it is, and where to begin.
    File(Arc<File>, u64, u64),
    /// The metrics of this node.
    Text(Bytes),
    /// The child that leads there.
    Way(Coming),
    /// This host, as it makes it.
    Made(mpsc::Receiver<Bytes>),
}

fn broken(detail: &str) -> NotComing {
    NotComing { fault: OutputFault::Broken, detail: detail.into() }
}

impl Outputs {
    async fn pass_on(&self, send: &mut SendStream, mut coming: Coming) -> Result<(), LinkError> {
        write_framed(send, &OutputReply::Found { size: coming.size }.encode()).await?;
        loop {
            let piece = tokio::select! {
                piece = coming.next() => piece,
                _ = send.stopped() => return Err(LinkError::Ended),
            };
            match piece {
                Ok(Some(piece)) => self.send_piece(send, piece).await?,
                Ok(None) => return Ok(()),
                Err(_) => return Err(LinkError::Protocol("the rest does not come")),
            }
        }
    }

    async fn read_out(
        &self,
        send: &mut SendStream,
        file: Arc<File>,
        size: u64,
        offset: u64,
    ) -> Result<(), LinkError> {
        write_framed(send, &OutputReply::Found { size }.encode()).await?;
        let mut at = offset.min(size);
        while at < size {
            let (file, want) =
                (file.clone(), usize::try_from(size - at).unwrap_or(PIECE).min(PIECE));
            let read = tokio::task::spawn_blocking(move || {
                let mut piece = vec![0; want];
                file.read_exact_at(&mut piece, at).map(|()| piece)
            });
            let piece = read.await.expect("reading does not panic");
            let piece =
                piece.map_err(|_| LinkError::Protocol("the spool has lost what it serves"))?;
            at += piece.len() as u64;
            self.send_piece(send, piece.into()).await?;
        }
        Ok(())
    }

    async fn hand_out(
        &self,
        send: &mut SendStream,
        mut pieces: mpsc::Receiver<Bytes>,
    ) -> Result<(), LinkError> {
        write_framed(send, &OutputReply::Found { size: 0 }.encode()).await?;
        loop {
            let piece = tokio::select! {
                piece = pieces.recv() => piece,
                _ = send.stopped() => return Err(LinkError::Ended),
            };
            match piece {
                Some(piece) => self.send_piece(send, piece).await?,
                None => return Ok(()),
            }
        }
    }

    /// Sends a piece in its turn. Whoever has to wait for the next one keeps nobody waiting.
    async fn send_piece(&self, send: &mut SendStream, mut rest: Bytes) -> Result<(), LinkError> {
        let _turn = self.turns.acquire().await.expect("it is never closed");
        while !rest.is_empty() {
            let piece = rest.split_to(self.caps.piece().min(rest.len()));
            self.caps.take(piece.len()).await;
            let sent = timeout(STALL, send.write_chunk(piece)).await;
            sent.map_err(|_| LinkError::Timeout(STALL))?.map_err(LinkError::Write)?;
        }
        Ok(())
    }
}
