//! Records of what relays' own operators have ordered, on their way up to the controller.
//!
//! Each part is a stream of its own: one question, one answer, passed on by relays as it came. It
//! is signed by the relay that tells it, so nobody on the way can change it. A part may be as long
//! as a frame, so a node reads only so many at once.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use protos::{FRAME_LIMIT, RecordError, RecordReply, SignedRecord, StreamKind};
use quinn::{Connection, RecvStream, SendStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::debug;

use crate::accept::open_stream;
use crate::join::Registrar;
use crate::link::{LinkError, STREAM_NO_UPLINK, read_framed_within, write_framed};
use crate::links::Links;

/// Parts that are on their way through a node at once.
const TURNS: usize = 2;
/// How long one may take, to the controller and back.
const LIMIT: Duration = Duration::from_secs(120);
/// Behind reports and before content.
const PRIORITY: i32 = 1;

/// Takes parts of records, or passes them to the parent.
#[derive(Clone)]
pub(crate) struct Records {
    registrar: Option<Arc<dyn Registrar>>,
    links: Links,
    turns: Arc<Semaphore>,
}

/// A part that was not handed over. It may have come or not: say it again.
#[derive(Debug, thiserror::Error)]
pub enum NotHanded {
    /// There is no link to a parent.
    #[error("there is no link to a parent")]
    NoParent,
    /// The link broke, or a parent does not take records.
    #[error("the parent has not taken it")]
    Link(#[source] LinkFault),
    /// There was no answer in time.
    #[error("no answer within {} s", LIMIT.as_secs())]
    Timeout,
    /// The answer is not readable.
    #[error("the answer is not readable")]
    Unreadable(#[from] RecordError),
}

/// What went wrong with a stream.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct LinkFault(String);

impl Records {
    pub(crate) fn new(registrar: Option<Arc<dyn Registrar>>, links: Links) -> Records {
        Records { registrar, links, turns: Arc::new(Semaphore::new(TURNS)) }
    }

    /// One part of a child's, or of somebody below it.
    pub(crate) async fn serve(&self, mut send: SendStream, mut recv: RecvStream) {
        match timeout(LIMIT, self.try_serve(&mut send, &mut recv)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(error = %crate::chain(&error), "a record broke off"),
            Err(_) => debug!("a record took too long"),
        }
    }

    async fn try_serve(
        &self,
        send: &mut SendStream,
        recv: &mut RecvStream,
    ) -> Result<(), LinkError> {
        let _turn = self.turns.acquire().await;
        let part = read_framed_within(recv, FRAME_LIMIT).await?.ok_or(LinkError::Ended)?;
        let reply = match (&self.registrar, self.links.parent()) {
            (Some(registrar), _) => keep(registrar.clone(), part).await,
            (None, Some(parent)) => ask(&parent, &part).await?,
            (None, None) => {
                send.reset(STREAM_NO_UPLINK).ok();
                return Err(LinkError::NoUplink);
            }
        };
        write_framed(send, &reply).await?;
        send.finish().ok();
        // Waits until the child has it.
        send.stopped().await.ok();
        Ok(())
    }

    /// Hands a part of this node's own records to the controller.
    pub(crate) async fn hand(&self, part: &SignedRecord) -> Result<RecordReply, NotHanded> {
        let parent = self.links.parent().ok_or(NotHanded::NoParent)?;
        let asked = timeout(LIMIT, ask(&parent, &part.encode())).await;
        let reply = asked.map_err(|_| NotHanded::Timeout)?;
        let reply = reply.map_err(|error| NotHanded::Link(LinkFault(crate::chain(&error))))?;
        Ok(RecordReply::decode(reply)?)
    }
}

async fn ask(parent: &Connection, part: &[u8]) -> Result<Bytes, LinkError> {
    let (mut up, mut down) = open_stream(parent, StreamKind::Record).await?;
    up.set_priority(PRIORITY).ok();
    write_framed(&mut up, part).await?;
    up.finish().ok();
    read_framed_within(&mut down, protos::JOIN_LIMIT).await?.ok_or(LinkError::Ended)
}

async fn keep(registrar: Arc<dyn Registrar>, part: Bytes) -> Bytes {
    let part = match SignedRecord::decode(part) {
        Ok(part) => part,
        Err(error) => return refusal(&format!("the record is not readable: {error}")),
    };
    match tokio::task::spawn_blocking(move || registrar.keep(part)).await {
        Ok(reply) => reply.encode(),
        Err(_) => refusal("the controller failed: try again"),
    }
}

fn refusal(why: &str) -> Bytes {
    RecordReply::Refused(why.into()).encode()
}
