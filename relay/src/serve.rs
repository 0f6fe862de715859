//! Serving content to a child: one stream, at the pace of the child and of what arrives here.
//!
//! The reply says how long the object is and where the groups begin; of what the child has
//! already, nothing is sent. A child that does not read is given up after a while, so that it holds
//! neither memory nor a place; it asks again for the rest. A stream that waits for more to arrive
//! here waits as long as the link lives: only this node knows that there is nothing wrong.

use std::time::Duration;

use bytes::Bytes;
use content::{GROUP, Outline};
use mesh::{Asker, LinkId, PullFault};
use protos::{Encoding, PullReply, PullRequest};
use quinn::{RecvStream, SendStream, VarInt};
use tokio::time::timeout;
use tracing::debug;

use crate::link::{Counters, LinkError, read_framed, write_framed};
use crate::transfer::{Source, Transfers};

/// A stream that the child does not read for this long is given up.
const STALL: Duration = Duration::from_secs(30);
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
        link: LinkId,
        mut send: SendStream,
        mut recv: RecvStream,
        counters: &Counters,
    ) {
        send.set_priority(0).ok();
        if let Err(error) = self.try_serve(link, &mut send, &mut recv, counters).await {
            send.reset(RESET).ok();
            debug!(%link, error = %crate::chain(&error), "a content stream ended early");
        }
    }

    async fn try_serve(
        &self,
        link: LinkId,
        send: &mut SendStream,
        recv: &mut RecvStream,
        counters: &Counters,
    ) -> Result<(), LinkError> {
        let request = timeout(STALL, read_framed(recv)).await;
        let request = request.map_err(|_| LinkError::Timeout(STALL))??.ok_or(LinkError::Ended)?;
        let request = PullRequest::decode(&request)
            .map_err(|_| LinkError::Protocol("a request for content is not readable"))?;
        let (source, wish) = tokio::select! {
            found = self.find(request, link) => match found {
                Ok(found) => found,
                Err(fault) => {
                    write_framed(send, &PullReply::Fault(fault).encode()).await?;
                    send.finish().ok();
                    return Ok(());
                }
            },
            _ = send.stopped() => return Ok(()),
        };
        let served = match &source {
            Source::Object(object) if request.held == 0 && object.outline().len() <= COMPRESSED => {
                match object.read(0, object.outline().groups()) {
                    Some(bytes) => send_small(send, object.outline(), bytes.into(), counters).await,
                    None => Err(DAMAGED),
                }
            }
            source => send_groups(send, source, request, counters).await,
        };
        if let (Ok(()), Some(wish)) = (&served, wish) {
            wish.end();
        }
        served
    }

    /// Where to serve a request from, with the wish by which it is still arriving.
    async fn find(
        &self,
        request: PullRequest,
        link: LinkId,
    ) -> Result<(Source, Option<crate::transfer::Wish>), PullFault> {
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

const DAMAGED: LinkError = LinkError::Protocol("the store has lost what it serves");

/// Sends all of a small object, compressed if that helps.
async fn send_small(
    send: &mut SendStream,
    outline: &Outline,
    bytes: Bytes,
    counters: &Counters,
) -> Result<(), LinkError> {
    let (encoding, body) = match compressed(&bytes) {
        Some(body) => (Encoding::Zstd, body),
        None => (Encoding::Raw, bytes),
    };
    let outlined = encoding == Encoding::Raw && outline.groups() > 1;
    let reply = PullReply::Found { bytes: body.len() as u64, encoding, first: 0, outlined };
    write_framed(send, &reply.encode()).await?;
    if outlined {
        write(send, outline.encode().into(), counters).await?;
    }
    write(send, body, counters).await?;
    send.finish().ok();
    Ok(())
}

/// Sends the groups that the child lacks, as they come.
async fn send_groups(
    send: &mut SendStream,
    source: &Source,
    request: PullRequest,
    counters: &Counters,
) -> Result<(), LinkError> {
    let outline = match source {
        Source::Object(object) => object.outline().clone(),
        Source::Front(front) => front.outline().clone(),
    };
    let mut next = (request.held as usize).min(outline.groups());
    let outlined = !request.outlined && outline.groups() > 1;
    let first = u32::try_from(next).expect("no object has that many groups");
    let (bytes, encoding) = (outline.len() as u64, Encoding::Raw);
    let reply = PullReply::Found { bytes, encoding, first, outlined };
    write_framed(send, &reply.encode()).await?;
    if outlined {
        write(send, outline.encode().into(), counters).await?;
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
        next += piece.len().div_ceil(GROUP).max(1);
        write(send, piece, counters).await?;
    }
    send.finish().ok();
    Ok(())
}

/// Writes content, unless the child does not read.
async fn write(send: &mut SendStream, bytes: Bytes, counters: &Counters) -> Result<(), LinkError> {
    for start in (0..bytes.len()).step_by(GROUP) {
        let piece = bytes.slice(start..bytes.len().min(start + GROUP));
        let len = piece.len();
        let written = timeout(STALL, send.write_chunk(piece)).await;
        written.map_err(|_| LinkError::Timeout(STALL))?.map_err(LinkError::Write)?;
        counters.sent(len);
    }
    Ok(())
}

/// An object as one zstd frame, if that is worth it.
fn compressed(object: &Bytes) -> Option<Bytes> {
    let sample = &object[..object.len().min(4 << 10)];
    let helps = zstd::bulk::compress(sample, 1).is_ok_and(|s| s.len() * 10 < sample.len() * 9);
    let body = helps.then(|| zstd::bulk::compress(object, 3).ok()).flatten()?;
    (body.len() < object.len()).then(|| body.into())
}
