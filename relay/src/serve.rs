//! Serving content to a child: one stream, at the pace of the child and of what arrives here.
//!
//! The reply says how long the object is and where the groups begin; of what the child has
//! already, nothing is sent. Objects take turns on the link ([`Bulk`]). A child that does not read
//! is given up after a while, so that it holds neither memory nor a place; it asks again for the
//! rest. With many children some are sent to siblings first ([`Fan`]). A stream that waits for more to arrive here waits as long as the link lives, and lets
//! others go first: only this node knows that there is nothing wrong.

use std::time::Duration;

use bytes::Bytes;
use content::{GROUP, Outline};
use mesh::{Asker, HostId, LinkId, OrderId, PullFault};
use protos::{Encoding, PullReply, PullRequest};
use quinn::{RecvStream, SendStream, VarInt};
use tokio::time::timeout;
use tracing::debug;

use crate::bulk::{Bulk, Turn};
use crate::fanout::{Fan, Getting, Turned};
use crate::link::{Counters, LinkError, read_framed, write_framed};
use crate::transfer::{Source, Transfers, Wish};

/// A stream that the child does not read for this long is given up, if nothing else moves on its
/// link either: objects wait for each other. Links have their beats to find out that they are dead.
const STALL: Duration = Duration::from_secs(60);
/// Groups that are read and written in one go.
const GROUPS: usize = 16;
/// How often an object may be gone again when it is to be served.
const TRIES: usize = 8;
/// Objects up to this size are tried to compress; packs, which are larger, never shrink.
const COMPRESSED: usize = 256 << 10;
/// The stream ends early: nobody brings the rest, or the disk has failed.
const RESET: VarInt = VarInt::from_u32(1);

impl Transfers {
    /// Answers one request of a child.
    pub(crate) async fn serve(
        &self,
        link: (LinkId, HostId),
        (mut send, mut recv): (SendStream, RecvStream),
        line: Line<'_>,
    ) {
        send.set_priority(0).ok();
        if let Err(error) = self.try_serve(link, (&mut send, &mut recv), line).await {
            send.reset(RESET).ok();
            debug!(link = %link.0, error = %crate::chain(&error), "a content stream ended early");
        }
    }

    /// Answers one request of a sibling, with what is here or arriving.
    pub(crate) async fn serve_sibling(
        &self,
        (mut send, mut recv): (SendStream, RecvStream),
        line: Line<'_>,
    ) {
        let serve = async {
            let request = read_request(&mut recv).await?;
            match self.coming(request.content).await {
                Ok(Some(source)) => send_groups(&mut send, &source, request, line).await,
                Ok(None) => deny(&mut send, PullFault::Absent).await,
                Err(fault) => deny(&mut send, fault).await,
            }
        };
        let served: Result<(), LinkError> = serve.await;
        if let Err(error) = served {
            send.reset(RESET).ok();
            debug!(error = %crate::chain(&error), "a sibling's stream ended early");
        }
    }

    async fn try_serve(
        &self,
        (link, child): (LinkId, HostId),
        (send, recv): (&mut SendStream, &mut RecvStream),
        line: Line<'_>,
    ) -> Result<(), LinkError> {
        let request = read_request(recv).await?;
        let line = Line { paced: self.paced.find(request.content), ..line };
        let (source, wish) = tokio::select! {
            found = self.find(request, link) => match found {
                Ok(found) => found,
                Err(fault) => return deny(send, fault).await,
            },
            _ = send.stopped() => return Ok(()),
        };
        let (request, mut getting) = match &self.fan {
            None => (request, None),
            Some(fan) => {
                let capped = line.paced.is_some() || line.bulk.rate() > 0;
                match fan.turn((child, request), &source, capped, (send, recv)).await? {
                    Turned::Here(request, getting) => (request, Some(getting)),
                    Turned::Elsewhere => {
                        wish.into_iter().for_each(Wish::end);
                        send.finish().ok();
                        return Ok(());
                    }
                }
            }
        };
        let fan = self.fan.as_ref().map(|fan| (fan, child));
        let promoted = getting.as_ref().is_some_and(|getting| getting.promoted);
        let line = Line { fan, promoted, ..line };
        let served = match &source {
            // Who has the outline has begun to take groups, and is given no other form.
            Source::Object(object)
                if request.held == 0
                    && !request.outlined
                    && object.outline().len() <= COMPRESSED =>
            {
                match object.read(0, object.outline().groups()) {
                    Some(bytes) => send_small(send, object.outline(), bytes.into(), line).await,
                    None => Err(DAMAGED),
                }
            }
            source => send_groups(send, source, request, line).await,
        };
        if served.is_ok() {
            wish.into_iter().for_each(Wish::end);
            getting.iter_mut().for_each(Getting::end);
        }
        served
    }

    /// Where to serve a request from, with the wish by which it is still arriving.
    async fn find(
        &self,
        request: PullRequest,
        link: LinkId,
    ) -> Result<(Source, Option<Wish>), PullFault> {
        // What is arriving is asked of the core as well, which then knows that it is waited for.
        if let Some(source @ Source::Object(_)) = self.source(request.content).await? {
            return Ok((source, None));
        }
        let mut wish = None;
        for _ in 0..TRIES {
            // The old wish goes when the new one stands: the core must not think that nobody waits.
            wish = Some(self.want(request.content, |id| Asker::Child(link, id)).await?);
            if let Some(source) = self.source(request.content).await? {
                return Ok((source, wish));
            }
            // It had begun to arrive, and broke off before anybody could hold on to it.
        }
        drop(wish);
        Err(PullFault::Broken)
    }
}

/// What is shared by all content of a link.
#[derive(Clone, Copy)]
pub(crate) struct Line<'a> {
    pub(crate) bulk: &'a Bulk,
    pub(crate) counters: &'a Counters,
    /// The order that the object is of and how fast it may go, if it has a rate of its own.
    pub(crate) paced: Option<(OrderId, u64)>,
    /// Where it is counted how fast a child takes it.
    pub(crate) fan: Option<(&'a Fan, HostId)>,
    /// Whether the child is told that siblings may come to it.
    pub(crate) promoted: bool,
}

impl<'a> Line<'a> {
    pub(crate) fn new(bulk: &'a Bulk, counters: &'a Counters) -> Line<'a> {
        Line { bulk, counters, paced: None, fan: None, promoted: false }
    }
}

/// The request that a stream begins with.
async fn read_request(recv: &mut RecvStream) -> Result<PullRequest, LinkError> {
    let request = timeout(STALL, read_framed(recv)).await;
    let request = request.map_err(|_| LinkError::Timeout(STALL))??.ok_or(LinkError::Ended)?;
    PullRequest::decode(&request)
        .map_err(|_| LinkError::Protocol("a request for content is not readable"))
}

async fn deny(send: &mut SendStream, fault: PullFault) -> Result<(), LinkError> {
    write_framed(send, &PullReply::Fault(fault).encode()).await?;
    send.finish().ok();
    Ok(())
}

const DAMAGED: LinkError = LinkError::Protocol("the store has lost what it serves");

/// Sends all of a small object, compressed if that helps.
async fn send_small(
    send: &mut SendStream,
    outline: &Outline,
    bytes: Bytes,
    line: Line<'_>,
) -> Result<(), LinkError> {
    let (encoding, body) = match compressed(&bytes) {
        Some(body) => (Encoding::Zstd, body),
        None => (Encoding::Raw, bytes),
    };
    let outlined = encoding == Encoding::Raw && outline.groups() > 1;
    let (bytes, promoted) = (body.len() as u64, false);
    let reply = PullReply::Found { bytes, encoding, first: 0, outlined, promoted };
    let mut turn = line.turn();
    line.wait(&mut turn, send, body.len()).await?;
    write_framed(send, &reply.encode()).await?;
    if outlined {
        line.write(&turn, send, outline.encode().into()).await?;
    }
    line.write(&turn, send, body).await?;
    line.end(turn, send).await
}

/// Sends the groups that the child lacks, as they come.
async fn send_groups(
    send: &mut SendStream,
    source: &Source,
    request: PullRequest,
    line: Line<'_>,
) -> Result<(), LinkError> {
    let outline = match source {
        Source::Object(object) => object.outline().clone(),
        Source::Front(front) => front.outline().clone(),
    };
    let mut next = (request.held as usize).min(outline.groups());
    let outlined = !request.outlined && outline.groups() > 1;
    let first = u32::try_from(next).expect("no object has that many groups");
    let (bytes, encoding, promoted) = (outline.len() as u64, Encoding::Raw, line.promoted);
    let reply = PullReply::Found { bytes, encoding, first, outlined, promoted };
    let left = |next: usize| outline.len().saturating_sub(next * GROUP);
    let mut turn = line.turn();
    line.wait(&mut turn, send, left(next)).await?;
    write_framed(send, &reply.encode()).await?;
    if outlined {
        line.write(&turn, send, outline.encode().into()).await?;
    }
    while next < outline.groups() {
        let piece = match source {
            Source::Object(object) => {
                let object = object.clone();
                let read = move || object.read(next, GROUPS);
                let read = tokio::task::spawn_blocking(read).await;
                read.expect("reading does not panic").map(Bytes::from)
            }
            Source::Front(front) => {
                let mut reach = front.watch();
                if reach.borrow().groups <= next {
                    turn.pass();
                }
                tokio::select! {
                    reached = reach.wait_for(|reach| reach.groups > next || reach.abandoned) => {
                        let reached = *reached.expect("the front is held here");
                        if reached.groups <= next {
                            return Err(LinkError::Protocol("the rest does not come"));
                        }
                    }
                    _ = send.stopped() => return Err(LinkError::Ended),
                }
                front.read(next).await
            }
        };
        let piece = piece.ok_or(DAMAGED)?;
        line.wait(&mut turn, send, left(next)).await?;
        next += piece.len().div_ceil(GROUP).max(1);
        let bytes = piece.len();
        line.write(&turn, send, piece).await?;
        if let (Source::Object(_), Some((fan, child))) = (source, line.fan) {
            fan.sent(child, bytes);
        }
    }
    line.end(turn, send).await
}

impl Line<'_> {
    fn turn(self) -> Turn {
        match self.paced {
            Some((order, rate)) => self.bulk.turn_of(order, rate),
            None => self.bulk.turn(),
        }
    }

    /// Waits for an object's turn, if it has none.
    async fn wait(
        self,
        turn: &mut Turn,
        send: &mut SendStream,
        bytes: usize,
    ) -> Result<(), LinkError> {
        tokio::select! {
            () = turn.wait(bytes) => Ok(()),
            _ = send.stopped() => Err(LinkError::Ended),
        }
    }

    /// Writes content, unless the child does not read.
    async fn write(
        self,
        turn: &Turn,
        send: &mut SendStream,
        bytes: Bytes,
    ) -> Result<(), LinkError> {
        let wrote = |bytes| self.counters.sent(bytes);
        let write = self.bulk.write(turn, send, &bytes, wrote);
        self.while_moving(write).await?.map_err(LinkError::Write)
    }

    /// The stream is complete when the child has it all.
    async fn end(self, turn: Turn, send: &mut SendStream) -> Result<(), LinkError> {
        self.while_moving(turn.end(send)).await
    }

    async fn while_moving<T>(self, work: impl Future<Output = T>) -> Result<T, LinkError> {
        let mut work = std::pin::pin!(work);
        let mut before = self.counters.moved();
        loop {
            match timeout(STALL, work.as_mut()).await {
                Ok(done) => return Ok(done),
                Err(_) if self.counters.moved() == before => return Err(LinkError::Timeout(STALL)),
                Err(_) => before = self.counters.moved(),
            }
        }
    }
}

/// An object as one zstd frame, if that is worth it.
fn compressed(object: &Bytes) -> Option<Bytes> {
    let sample = &object[..object.len().min(4 << 10)];
    let helps = zstd::bulk::compress(sample, 1).is_ok_and(|s| s.len() * 10 < sample.len() * 9);
    let body = helps.then(|| zstd::bulk::compress(object, 3).ok()).flatten()?;
    (body.len() < object.len()).then(|| body.into())
}
