//! Fetching content from the parent: each group checked as it comes, and kept whatever happens.
//!
//! What is here already, in memory or from before a restart, is not asked for again; whichever
//! parent is asked goes on from there. As soon as the outline is here and proves itself, the core
//! is told that the content arrives, and children are served. There is no limit on how long a
//! group may take: the parent may itself wait for its own, and if it is the link that stalls, its
//! missing beats end it.
//!
//! A parent of many may send this host to a sibling instead; what that fails to give is asked of
//! the parent on the same stream.

use std::sync::Arc;

use content::{ContentId, GROUP, Outline};
use mesh::{Digest, Input, PullFault};
use protos::{Encoding, PullError, PullReply, PullRequest, StreamKind};
use quinn::{ReadExactError, RecvStream};
use tokio::task::JoinHandle;
use tracing::debug;

use crate::accept::open_stream;
use crate::drive::Arrival;
use crate::front::Front;
use crate::link::{Counters, Link, LinkError, read_framed, write_framed};
use crate::siblings::Sibling;
use crate::transfer::Transfers;

/// The largest object that is ever accepted; the store has the same limit.
const OBJECT_LIMIT: usize = content::MAX_OBJECT;
/// What is read in one go of a body that has no groups.
const PIECE: usize = 64 << 10;

impl Transfers {
    /// Fetches an object into the store, from the parent or from whom it names. One at a time for
    /// each object.
    pub(crate) async fn pull(&self, link: &Link, content: Digest) -> Result<(), PullFault> {
        let (id, counters) = (ContentId(content.0), &*link.counters);
        if self.in_store(move |store| store.has(&id)).await? {
            self.abandon(content);
            return Ok(());
        }
        let transfers = self.clone();
        let room = self.in_store(move |store| match &transfers.claims {
            Some(claims) => claims.make_room(store, content),
            None => transfers.in_room(|store| store.make_room(0)).map(|()| true),
        });
        if !room.await? {
            return Err(PullFault::Disk);
        }
        let _pulling = self.pulling(content);
        let mut known = self.front(content).await?;
        if let Some(front) = &known {
            front.set_abandoned(false);
        }
        let broken = |error: LinkError| {
            debug!(error = %crate::chain(&error), "a pull broke");
            PullFault::Broken
        };
        let (mut send, mut recv) =
            open_stream(&link.conn, StreamKind::Content).await.map_err(broken)?;
        let siblings = self.siblings.as_ref().filter(|siblings| siblings.is_willing());
        let mut request = request_for(content, &known, siblings.is_some());
        loop {
            write_framed(&mut send, &request.encode()).await.map_err(broken)?;
            let mut reply = reply_of(&mut recv).await.map_err(broken)?;
            if reply == Ok(PullReply::Recall) && request.lost.is_some() {
                // It has crossed our asking again.
                reply = reply_of(&mut recv).await.map_err(broken)?;
            }
            let Ok(reply) = reply else {
                self.tell_altered(("parent", &link.name), content).await;
                return Err(PullFault::Corrupt);
            };
            let (found, encoding) = match reply {
                PullReply::Found { bytes, encoding, first, outlined, promoted } => {
                    if let Some(siblings) = siblings.filter(|_| promoted) {
                        siblings.open(self, link);
                    }
                    (Found { len: bytes, first: first as usize, outlined }, encoding)
                }
                PullReply::Fault(fault) => return Err(fault),
                PullReply::Sibling { address, key } if request.willing => {
                    let siblings = siblings.expect("it was willing");
                    siblings.open(self, link);
                    let parent = link.conn.remote_address().ip();
                    let sibling = Sibling { address, key, parent };
                    let fetched = siblings.fetch(self, content, sibling, &mut recv).await?;
                    let Err(lost) = fetched else {
                        send.finish().ok();
                        return Ok(());
                    };
                    known = self.front(content).await?;
                    request = request_for(content, &known, false);
                    request.lost = Some(lost);
                    continue;
                }
                PullReply::Sibling { .. } | PullReply::Recall => return Err(PullFault::Corrupt),
            };
            let taken = match encoding {
                Encoding::Zstd => {
                    let taken = self.take_whole(id, found, &mut recv, counters).await;
                    // Children who were served what had arrived ask again; now all of it is here.
                    taken.inspect(|()| self.abandon(content))
                }
                Encoding::Raw => self.take_groups(known, id, found, &mut recv, counters).await,
            };
            if taken == Err(PullFault::Corrupt) {
                self.tell_altered(("parent", &link.name), content).await;
            }
            return taken;
        }
    }

    /// Takes an object that comes compressed and as a whole.
    async fn take_whole(
        &self,
        id: ContentId,
        found: Found,
        recv: &mut RecvStream,
        counters: &Counters,
    ) -> Result<(), PullFault> {
        let len = usize::try_from(found.len).ok().filter(|len| *len <= OBJECT_LIMIT);
        let len = len.ok_or(PullFault::Corrupt)?;
        // Grown as bytes arrive: a peer that promises much and sends little costs little.
        let mut body = Vec::new();
        while body.len() < len {
            let chunk = recv.read_chunk(PIECE.min(len - body.len()), true).await;
            let chunk = chunk.ok().flatten().ok_or(PullFault::Broken)?.bytes;
            counters.received(chunk.len());
            body.extend_from_slice(&chunk);
        }
        let transfers = self.clone();
        self.in_store(move |_| {
            let Ok(object) = zstd::bulk::decompress(&body, OBJECT_LIMIT) else {
                return Ok(Err(PullFault::Corrupt));
            };
            match ContentId::of(&object) == id {
                true => transfers.in_room(|store| store.put(id, &object)).map(Ok),
                false => Ok(Err(PullFault::Corrupt)),
            }
        })
        .await?
    }

    /// Takes an object group by group.
    pub(crate) async fn take_groups(
        &self,
        known: Option<Arc<Front>>,
        id: ContentId,
        found: Found,
        recv: &mut RecvStream,
        counters: &Counters,
    ) -> Result<(), PullFault> {
        let content = Digest(id.0);
        let front = match known {
            Some(front) if front.outline().len() as u64 == found.len => {
                if found.outlined {
                    // It was not asked for, and is no other than the one that is here.
                    take_outline(id, found, recv, counters).await?;
                }
                front
            }
            // Only a file that a crash has torn can be of another length; or the parent lies.
            Some(_) => {
                self.drop_front(content).await?;
                return Err(PullFault::Corrupt);
            }
            None => {
                let outline = take_outline(id, found, recv, counters).await?;
                self.begin(outline).await?
            }
        };
        if front.outline().groups() > 1 {
            self.inbox.send(Arrival::Input(Input::Arriving { content })).await.ok();
        }
        let taken = take(self, &front, found.first, recv, counters).await;
        // What has crossed the link must not do so again, whatever ended this stream.
        self.write(front.clone()).await?;
        taken?;
        self.in_store(move |store| front.finish(store, &mut front.intake.blocking_lock())).await
    }

    /// Writes what a front has in memory to the disk.
    async fn write(&self, front: Arc<Front>) -> Result<(), PullFault> {
        self.in_store(move |_| front.write(&mut front.intake.blocking_lock())).await
    }
}

/// What the parent has said of an object.
#[derive(Clone, Copy)]
pub(crate) struct Found {
    pub(crate) len: u64,
    pub(crate) first: usize,
    pub(crate) outlined: bool,
}

/// Asks for what is not here of an object.
pub(crate) fn request_for(
    content: Digest,
    known: &Option<Arc<Front>>,
    willing: bool,
) -> PullRequest {
    let held = known.as_ref().map_or(0, |front| front.reach().groups);
    let held = u32::try_from(held).expect("no object has that many groups");
    PullRequest { content, held, outlined: known.is_some(), willing, lost: None }
}

/// The parent's next word on a stream.
async fn reply_of(recv: &mut RecvStream) -> Result<Result<PullReply, PullError>, LinkError> {
    let reply = read_framed(recv).await?.ok_or(LinkError::Ended)?;
    Ok(PullReply::decode(&reply))
}

/// Reads the outline, which proves itself. Small objects have none.
async fn take_outline(
    id: ContentId,
    found: Found,
    recv: &mut RecvStream,
    counters: &Counters,
) -> Result<Outline, PullFault> {
    let len = usize::try_from(found.len).ok().filter(|len| *len <= OBJECT_LIMIT);
    let len = Outline::encoded_len(len.ok_or(PullFault::Corrupt)?);
    if found.outlined != (len > 0) {
        return Err(PullFault::Corrupt);
    }
    let mut encoded = vec![0; len];
    recv.read_exact(&mut encoded).await.map_err(ended)?;
    counters.received(len);
    Outline::decode(id, found.len, &encoded).map_err(|_| PullFault::Corrupt)
}

/// Why a stream ends early: whoever cannot send the rest resets it, and if it ends as if it were
/// complete, it was made to.
fn ended(error: ReadExactError) -> PullFault {
    match error {
        ReadExactError::FinishedEarly(_) => PullFault::Corrupt,
        ReadExactError::ReadError(_) => PullFault::Broken,
    }
}

/// Takes the groups that a stream brings. They are written while more arrive, as many at a time
/// as have come meanwhile, so that a process which is killed loses hardly any of them.
async fn take(
    transfers: &Transfers,
    front: &Arc<Front>,
    first: usize,
    recv: &mut RecvStream,
    counters: &Counters,
) -> Result<(), PullFault> {
    let outline = front.outline().clone();
    let mut group = vec![0; GROUP];
    let mut writing = None;
    for n in first..outline.groups() {
        let group = &mut group[..outline.group_len(n)];
        recv.read_exact(group).await.map_err(ended)?;
        counters.received(group.len());
        if !outline.check(n, group) {
            return Err(PullFault::Corrupt);
        }
        let full = front.push(n, group);
        if full || writing.as_ref().is_none_or(JoinHandle::is_finished) {
            if let Some(writing) = writing.take() {
                let written: Result<_, _> = writing.await;
                written.expect("writing does not panic")?;
            }
            let (transfers, front) = (transfers.clone(), front.clone());
            writing = Some(tokio::spawn(async move { transfers.write(front).await }));
        }
    }
    match front.reach().groups < outline.groups() {
        // The parent has left a gap.
        true => Err(PullFault::Corrupt),
        false => Ok(()),
    }
}
