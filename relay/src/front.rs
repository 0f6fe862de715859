//! Content on its way: one task brings it, any number of children read it as it comes.
//!
//! A [`Front`] is what has arrived of one object, every group of it verified. The newest groups are
//! in memory until enough of them are there to be written; older ones are read from the disk, each
//! reader at its own pace. So a child that comes late or reads slowly holds up nobody and keeps
//! nothing in memory, and a link that breaks costs no more than the group that was half there.

use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use content::{GROUP, Outline, Partial, Store, StoreError, read_groups};
use tokio::sync::watch;

/// Verified bytes that may wait for being written, and what is read in one go.
const PIECE: usize = 256 << 10;

/// How far an object has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reach {
    /// Groups that can be read.
    pub(crate) groups: usize,
    /// Nobody brings the rest.
    pub(crate) abandoned: bool,
}

/// What has arrived of an object.
pub(crate) struct Front {
    outline: Arc<Outline>,
    reach: watch::Sender<Reach>,
    body: Mutex<Body>,
    /// Held by the one task that brings more.
    pub(crate) intake: tokio::sync::Mutex<Intake>,
}

/// Where the groups are.
struct Body {
    /// Groups in the file.
    written: usize,
    file: Option<Arc<File>>,
    /// Groups that follow them.
    fresh: BytesMut,
}

/// The writing side of a front. Small objects have no file before they are whole.
pub(crate) struct Intake {
    partial: Option<Partial>,
}

/// What a reader is given.
pub(crate) enum Piece {
    /// These groups.
    Bytes(Bytes),
    /// They are on the disk: read them there, on a thread that may block.
    OnDisk(Arc<File>, usize),
}

impl Front {
    /// The front of an object of which nothing is here, or what an earlier transfer left.
    pub(crate) fn new(outline: Arc<Outline>, partial: Option<Partial>) -> Front {
        let written = partial.as_ref().map_or(0, Partial::groups);
        let file = partial.as_ref().map(|partial| partial.file().clone());
        Front {
            outline,
            reach: watch::Sender::new(Reach { groups: written, abandoned: false }),
            body: Mutex::new(Body { written, file, fresh: BytesMut::new() }),
            intake: tokio::sync::Mutex::new(Intake { partial }),
        }
    }

    pub(crate) fn outline(&self) -> &Arc<Outline> {
        &self.outline
    }

    /// How far it has come, now and later.
    pub(crate) fn watch(&self) -> watch::Receiver<Reach> {
        self.reach.subscribe()
    }

    pub(crate) fn reach(&self) -> Reach {
        *self.reach.borrow()
    }

    /// Says whether somebody brings the rest.
    pub(crate) fn set_abandoned(&self, abandoned: bool) {
        self.reach.send_if_modified(|reach| {
            std::mem::replace(&mut reach.abandoned, abandoned) != abandoned
        });
    }

    /// Takes the n-th group, which has been checked, if it is the next one: a stream of a link that
    /// is just dying may have brought it meanwhile. Returns whether it is time to write.
    pub(crate) fn push(&self, n: usize, group: &[u8]) -> bool {
        let mut body = self.body();
        if n == self.reach().groups {
            body.fresh.extend_from_slice(group);
            self.reach.send_modify(|reach| reach.groups += 1);
        }
        body.fresh.len() >= PIECE
    }

    /// Groups from this one on, as many as one piece holds. They must be within reach.
    pub(crate) fn piece(&self, first: usize) -> Piece {
        let body = self.body();
        match (&body.file, first.checked_sub(body.written)) {
            (Some(file), None) => {
                Piece::OnDisk(file.clone(), (body.written - first).min(PIECE / GROUP))
            }
            (_, at) => {
                let fresh = &body.fresh[at.unwrap_or(0) * GROUP..];
                Piece::Bytes(Bytes::copy_from_slice(&fresh[..fresh.len().min(PIECE)]))
            }
        }
    }

    /// The same, read by whoever asks. `None`: the disk gave other bytes than were written.
    pub(crate) async fn read(self: &Arc<Front>, first: usize) -> Option<Bytes> {
        match self.piece(first) {
            Piece::Bytes(bytes) => Some(bytes),
            Piece::OnDisk(file, groups) => {
                let outline = self.outline.clone();
                let read = move || read_groups(&outline, &file, 0, first, groups);
                let read = tokio::task::spawn_blocking(read).await;
                read.expect("reading does not panic").map(Bytes::from)
            }
        }
    }

    /// Writes what is in memory to the file, if there is one. Blocks.
    pub(crate) fn write(&self, intake: &mut Intake) -> Result<(), StoreError> {
        let Some(partial) = &mut intake.partial else { return Ok(()) };
        // More may be pushed meanwhile; only the holder of the intake takes away.
        let fresh = Bytes::copy_from_slice(&self.body().fresh);
        if fresh.is_empty() {
            return Ok(());
        }
        partial.append(&fresh)?;
        let mut body = self.body();
        body.written = partial.groups();
        drop(body.fresh.split_to(fresh.len()));
        Ok(())
    }

    /// Makes the object, which is whole, one of the store's. Blocks.
    pub(crate) fn finish(&self, store: &Store, intake: &mut Intake) -> Result<(), StoreError> {
        self.write(intake)?;
        match &intake.partial {
            Some(partial) => store.adopt(partial),
            None => {
                let bytes = Bytes::copy_from_slice(&self.body().fresh);
                store.put(self.outline.id(), &bytes)
            }
        }
    }

    fn body(&self) -> MutexGuard<'_, Body> {
        self.body.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
