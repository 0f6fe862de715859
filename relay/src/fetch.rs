//! Fetching content from the parent: each group checked as it comes, and kept whatever happens.
//!
//! What is here already, in memory or from before a restart, is not asked for again; whichever
//! parent is asked goes on from there. As soon as the outline is here and proves itself, the core
//! is told that the content arrives, and children are served. There is no limit on how long a
//! group may take: the parent may itself wait for its own, and if it is the link that stalls, its
//! missing beats end it.

use std::sync::Arc;

use content::{ContentId, GROUP, Outline};
use mesh::{Digest, Input, PullFault};
use protos::{Encoding, PullReply, PullRequest, StreamKind};
use quinn::{Connection, RecvStream};
use tokio::task::JoinHandle;
use tracing::debug;

use crate::accept::open_stream;
use crate::drive::Arrival;
use crate::front::Front;
use crate::link::{Counters, LinkError, read_framed, write_framed};
use crate::transfer::Transfers;

/// The largest object that is ever accepted; the store has the same limit.
const OBJECT_LIMIT: usize = content::MAX_OBJECT;
/// What is read in one go of a body that has no groups.
const PIECE: usize = 64 << 10;

impl Transfers {
    /// Fetches an object from the parent into the store. One at a time for each object.
    pub(crate) async fn pull(
        &self,
        conn: &Connection,
        content: Digest,
        counters: &Counters,
    ) -> Result<(), PullFault> {
        let id = ContentId(content.0);
        if self.in_store(move |store| store.has(&id)).await? {
            self.abandon(content);
            return Ok(());
        }
        let claims = self.claims.clone();
        let room = self.in_store(move |store| match claims {
            Some(claims) => claims.make_room(store, content),
            None => store.make_room(0).map(|()| true),
        });
        if !room.await? {
            return Err(PullFault::Disk);
        }
        let known = self.front(content).await?;
        if let Some(front) = &known {
            front.set_abandoned(false);
        }
        let broken = |error: LinkError| {
            debug!(error = %crate::chain(&error), "a pull broke");
            PullFault::Broken
        };
        let (mut send, mut recv) = open_stream(conn, StreamKind::Content).await.map_err(broken)?;
        let held = known.as_ref().map_or(0, |front| front.reach().groups);
        let held = u32::try_from(held).expect("no object has that many groups");
        let request = PullRequest { content, held, outlined: known.is_some() };
        write_framed(&mut send, &request.encode()).await.map_err(broken)?;
        let reply = read_framed(&mut recv).await.map_err(broken)?.ok_or(PullFault::Broken)?;
        let found = match PullReply::decode(&reply).map_err(|_| PullFault::Corrupt)? {
            PullReply::Found { bytes, encoding, first, outlined } => {
                Found { len: bytes, encoding, first: first as usize, outlined }
            }
            PullReply::Fault(fault) => return Err(fault),
        };
        match found.encoding {
            Encoding::Zstd => {
                self.take_whole(id, found, &mut recv, counters).await?;
                // Children who were served what had arrived ask again; now all of it is here.
                self.abandon(content);
                Ok(())
            }
            Encoding::Raw => self.take_groups(known, id, found, &mut recv, counters).await,
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
        self.in_store(move |store| {
            let Ok(object) = zstd::bulk::decompress(&body, OBJECT_LIMIT) else {
                return Ok(Err(PullFault::Corrupt));
            };
            match ContentId::of(&object) == id {
                true => store.put(id, &object).map(Ok),
                false => Ok(Err(PullFault::Corrupt)),
            }
        })
        .await?
    }

    /// Takes an object group by group.
    async fn take_groups(
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
struct Found {
    len: u64,
    encoding: Encoding,
    first: usize,
    outlined: bool,
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
    recv.read_exact(&mut encoded).await.map_err(|_| PullFault::Broken)?;
    counters.received(len);
    Outline::decode(id, found.len, &encoded).map_err(|_| PullFault::Corrupt)
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
        recv.read_exact(group).await.map_err(|_| PullFault::Broken)?;
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
