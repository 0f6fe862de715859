//! Content over a link: serving it to children, pulling it from the parent.
//!
//! One stream for one object. What is in the store is served at once; what is not is asked of the
//! core, which fetches it upstream once for everybody. Objects are verified by their hash before
//! anybody else sees them. A stream that makes no progress is given up, so that a stuck child
//! holds neither memory nor a place.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use content::{ContentId, Store};
use mesh::{Asker, Digest, LinkId, PullFault, RequestId};
use protos::{Encoding, PullReply, PullRequest, StreamKind};
use quinn::{Connection, RecvStream, SendStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::accept::open_stream;
use crate::bulk::Bulk;
use crate::drive::Arrival;
use crate::link::{Counters, LinkError, read_framed, write_framed};

/// A stream that moves nothing for this long is given up, if the link moves nothing either. Links
/// have their beats to find out sooner that they are dead.
const STALL: Duration = Duration::from_secs(60);
/// What is read in one go.
const PIECE: usize = 64 << 10;
/// The largest object that is ever accepted; the store has the same limit.
const OBJECT_LIMIT: usize = 32 << 20;

/// Content of one node: its store, and the way to ask the core.
#[derive(Clone)]
pub(crate) struct Transfers {
    pub(crate) store: Arc<Store>,
    inbox: mpsc::Sender<Arrival>,
    requests: Arc<AtomicU64>,
    /// Objects that are being served right now, so that a hundred children share one copy.
    hot: Arc<Mutex<BTreeMap<Digest, Weak<Bytes>>>>,
}

impl Transfers {
    pub(crate) fn new(store: Arc<Store>, inbox: mpsc::Sender<Arrival>) -> Transfers {
        Transfers { store, inbox, requests: Arc::default(), hot: Arc::default() }
    }

    /// Answers one request of a child.
    pub(crate) async fn serve(
        &self,
        link: LinkId,
        (mut send, mut recv): (SendStream, RecvStream),
        bulk: &Bulk,
        counters: &Counters,
    ) {
        send.set_priority(0).ok();
        if let Err(error) = self.try_serve(link, (&mut send, &mut recv), bulk, counters).await {
            debug!(%link, error = %crate::chain(&error), "a content stream ended early");
        }
    }

    async fn try_serve(
        &self,
        link: LinkId,
        (send, recv): (&mut SendStream, &mut RecvStream),
        bulk: &Bulk,
        counters: &Counters,
    ) -> Result<(), LinkError> {
        let request = timeout(STALL, read_framed(recv)).await;
        let request = request.map_err(|_| LinkError::Timeout(STALL))??.ok_or(LinkError::Ended)?;
        let request = PullRequest::decode(&request)
            .map_err(|_| LinkError::Protocol("a request for content is not readable"))?;
        let by = |id| Asker::Child(link, id);
        let found = tokio::select! {
            found = self.obtain(request.content, by) => found,
            _ = send.stopped() => return Ok(()),
        };
        let object = match found {
            Ok(object) => object,
            Err(fault) => {
                write_framed(send, &PullReply::Fault(fault).encode()).await?;
                send.finish().ok();
                return Ok(());
            }
        };
        let (encoding, body) = encoded(&object);
        let turn = tokio::select! {
            turn = bulk.turn(body.len()) => turn,
            _ = send.stopped() => return Ok(()),
        };
        let reply = PullReply::Found { bytes: body.len() as u64, encoding };
        write_framed(send, &reply.encode()).await?;
        let write = bulk.write(&turn, send, &body, |bytes| counters.sent(bytes));
        while_moving(counters, write).await?.map_err(LinkError::Write)?;
        while_moving(counters, turn.end(send)).await
    }

    /// An object from the store, or by way of the core from upstream.
    pub(crate) async fn obtain(
        &self,
        content: Digest,
        by: impl Fn(RequestId) -> Asker,
    ) -> Result<Arc<Bytes>, PullFault> {
        // Twice: an object that proves damaged when it is read is fetched again, once.
        for _ in 0..2 {
            if let Some(object) = self.load(content).await? {
                return Ok(object);
            }
            self.want(content, &by).await?;
        }
        self.load(content).await?.ok_or(PullFault::Corrupt)
    }

    /// Has an object brought into the store.
    pub(crate) async fn want(
        &self,
        content: Digest,
        by: impl Fn(RequestId) -> Asker,
    ) -> Result<(), PullFault> {
        let by = by(RequestId(self.requests.fetch_add(1, Ordering::Relaxed)));
        let (reply, answer) = oneshot::channel();
        let want = Arrival::Want { by, content, reply };
        self.inbox.send(want).await.map_err(|_| PullFault::Broken)?;
        let withdraw = Withdraw { by, inbox: self.inbox.clone(), armed: true };
        let result = answer.await.unwrap_or(Err(PullFault::Broken));
        withdraw.disarm();
        result
    }

    async fn load(&self, content: Digest) -> Result<Option<Arc<Bytes>>, PullFault> {
        let hot = |hot: &BTreeMap<_, Weak<Bytes>>| hot.get(&content).and_then(Weak::upgrade);
        if let Some(object) = hot(&lock(&self.hot)) {
            return Ok(Some(object));
        }
        let (store, id) = (self.store.clone(), ContentId(content.0));
        let loaded = tokio::task::spawn_blocking(move || store.get(&id)).await;
        let loaded = loaded.expect("reading the store does not panic").map_err(|error| {
            warn!(error = %crate::chain(&error), "the content store cannot be read");
            PullFault::Disk
        })?;
        let Some(bytes) = loaded else { return Ok(None) };
        let mut shared = lock(&self.hot);
        shared.retain(|_, object| object.strong_count() > 0);
        // Somebody else may have loaded it meanwhile.
        if let Some(object) = hot(&shared) {
            return Ok(Some(object));
        }
        let object = Arc::new(Bytes::from(bytes));
        shared.insert(content, Arc::downgrade(&object));
        Ok(Some(object))
    }

    /// Fetches an object from the parent into the store.
    pub(crate) async fn pull(
        &self,
        conn: &Connection,
        content: Digest,
        counters: &Counters,
    ) -> Result<(), PullFault> {
        let (store, id) = (self.store.clone(), ContentId(content.0));
        let held = tokio::task::spawn_blocking(move || store.has(&id)).await;
        if held.expect("looking into the store does not panic").unwrap_or(false) {
            return Ok(());
        }
        let body = fetch(conn, content, counters).await?;
        let store = self.store.clone();
        let put = move || {
            if ContentId::of(&body) != id {
                return Err(PullFault::Corrupt);
            }
            store.put(id, &body).map_err(|error| {
                warn!(error = %crate::chain(&error), "the content store cannot be written");
                PullFault::Disk
            })
        };
        tokio::task::spawn_blocking(put).await.expect("storing does not panic")
    }
}

/// Waits for something as long as the link moves any content at all: objects wait for each other.
async fn while_moving<T>(
    counters: &Counters,
    work: impl Future<Output = T>,
) -> Result<T, LinkError> {
    let mut work = std::pin::pin!(work);
    let mut before = counters.moved();
    loop {
        match timeout(STALL, work.as_mut()).await {
            Ok(done) => return Ok(done),
            Err(_) if counters.moved() == before => return Err(LinkError::Timeout(STALL)),
            Err(_) => before = counters.moved(),
        }
    }
}

/// Tells the core that nobody waits any more, should the waiting be dropped.
struct Withdraw {
    by: Asker,
    inbox: mpsc::Sender<Arrival>,
    armed: bool,
}

impl Withdraw {
    fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for Withdraw {
    fn drop(&mut self) {
        if self.armed {
            let unwanted = mesh::Input::Unwanted { by: self.by };
            // If the inbox is full just now, the end of the link says it once more.
            self.inbox.try_send(Arrival::Input(unwanted)).ok();
        }
    }
}

async fn fetch(
    conn: &Connection,
    content: Digest,
    counters: &Counters,
) -> Result<Vec<u8>, PullFault> {
    let broken = |error: LinkError| {
        debug!(error = %crate::chain(&error), "a pull broke");
        PullFault::Broken
    };
    let (mut send, mut recv) = open_stream(conn, StreamKind::Content).await.map_err(broken)?;
    write_framed(&mut send, &PullRequest { content }.encode()).await.map_err(broken)?;
    // The parent may itself have to wait for its own parent: no limit but the link's life.
    let reply = read_framed(&mut recv).await.map_err(broken)?.ok_or(PullFault::Broken)?;
    let (bytes, encoding) = match PullReply::decode(&reply).map_err(|_| PullFault::Corrupt)? {
        PullReply::Found { bytes, encoding } => (bytes, encoding),
        PullReply::Fault(fault) => return Err(fault),
    };
    let len = usize::try_from(bytes).ok().filter(|len| *len <= OBJECT_LIMIT);
    let len = len.ok_or(PullFault::Corrupt)?;
    // Grown as bytes arrive: a peer that promises much and sends little costs little.
    let mut body = Vec::new();
    while body.len() < len {
        let read = timeout(STALL, recv.read_chunk(PIECE, true)).await;
        let chunk = read.map_err(|_| PullFault::Broken)?.map_err(|_| PullFault::Broken)?;
        let chunk = chunk.ok_or(PullFault::Broken)?.bytes;
        counters.received(chunk.len());
        body.extend_from_slice(&chunk);
    }
    match encoding {
        _ if body.len() != len => Err(PullFault::Corrupt),
        Encoding::Raw => Ok(body),
        Encoding::Zstd => {
            zstd::bulk::decompress(&body, OBJECT_LIMIT).map_err(|_| PullFault::Corrupt)
        }
    }
}

/// The form in which an object travels: compressed if that helps, which for packs it never does.
fn encoded(object: &Bytes) -> (Encoding, Bytes) {
    let sample = &object[..object.len().min(4 << 10)];
    let helps = zstd::bulk::compress(sample, 1).is_ok_and(|s| s.len() * 10 < sample.len() * 9);
    match helps.then(|| zstd::bulk::compress(object, 3)) {
        Some(Ok(body)) if body.len() < object.len() => (Encoding::Zstd, body.into()),
        _ => (Encoding::Raw, object.clone()),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
