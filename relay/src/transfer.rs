//! Content of one node: its store, what is arriving, and the way to ask the core for more.
//!
//! One stream moves one object. What is in the store is served at once; what is not is asked of
//! the core, which has it fetched once for everybody, and is served from its [`Front`] as it
//! arrives. Nobody sees a byte that has not been checked against the id.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use content::{ContentId, Object, Owner, Store, StoreError};
use mesh::{Asker, Class, Digest, HostId, Input, Kind, PullFault, RequestId, Severity};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::warn;

use crate::ahead::Ahead;
use crate::claims::Claims;
use crate::drive::Arrival;
use crate::fanout::Fan;
use crate::front::Front;
use crate::journal::Journal;
use crate::notice;
use crate::paced::Paced;
use crate::siblings::Siblings;

/// Content of one node.
#[derive(Clone)]
pub(crate) struct Transfers {
    pub(crate) store: Arc<Store>,
    pub(crate) inbox: mpsc::Sender<Arrival>,
    /// What is to go slowly.
    pub(crate) paced: Paced,
    /// What orders bring here; only at a node that keeps what they have brought.
    pub(crate) claims: Option<Claims>,
    /// This node.
    pub(crate) host: HostId,
    /// What is decoded before its order begins; only at a host that does not serve.
    pub(crate) ahead: Option<Ahead>,
    /// Who fetches from whom below; only at a node that serves.
    pub(crate) fan: Option<Fan>,
    /// Siblings of this host; only at one that does not serve.
    pub(crate) siblings: Option<Siblings>,
    requests: Arc<AtomicU64>,
    /// Objects that are being read right now, so that a hundred children share one.
    open: Shared<Object>,
    /// Objects that are arriving, and those who are served what has arrived.
    fronts: Shared<Front>,
    /// What is being pulled; changed, too, when a front begins.
    pulls: Arc<watch::Sender<BTreeSet<Digest>>>,
}

/// Something is being pulled, until this is dropped.
pub(crate) struct Pulling {
    pulls: Arc<watch::Sender<BTreeSet<Digest>>>,
    content: Digest,
}

impl Drop for Pulling {
    fn drop(&mut self) {
        self.pulls.send_modify(|pulls| {
            pulls.remove(&self.content);
        });
    }
}

/// Things by their content, for as long as somebody holds them.
type Shared<T> = Arc<Mutex<BTreeMap<Digest, Weak<T>>>>;

/// Where a child is served from.
pub(crate) enum Source {
    /// All of it is here.
    Object(Arc<Object>),
    /// It is arriving.
    Front(Arc<Front>),
}

impl Transfers {
    pub(crate) fn new(store: Arc<Store>, inbox: mpsc::Sender<Arrival>) -> Transfers {
        let (claims, paced, requests, open, fronts) = Default::default();
        let (host, ahead, fan, siblings) = (HostId::ROOT, None, None, None);
        let pulls = Arc::default();
        Transfers {
            store,
            inbox,
            claims,
            host,
            ahead,
            fan,
            siblings,
            paced,
            requests,
            open,
            fronts,
            pulls,
        }
    }

    /// An object in full, from the store or by way of the core from upstream.
    pub(crate) async fn obtain(&self, content: Digest) -> Result<Bytes, PullFault> {
        let id = ContentId(content.0);
        // Twice: an object that proves damaged when it is read is fetched again, once.
        for _ in 0..2 {
            if let Some(bytes) = self.in_store(move |store| store.get(&id)).await? {
                return Ok(bytes.into());
            }
            self.want(content, Asker::Local).await?.end();
        }
        let bytes = self.in_store(move |store| store.get(&id)).await?;
        bytes.map(Bytes::from).ok_or(PullFault::Corrupt)
    }

    /// Has an object brought here. Whoever wants it for a child may be told so when its front is
    /// here; the wish stands until it is dropped or [`Wish::end`]ed.
    pub(crate) async fn want(
        &self,
        content: Digest,
        by: impl Fn(RequestId) -> Asker,
    ) -> Result<Wish, PullFault> {
        let by = by(RequestId(self.requests.fetch_add(1, Ordering::Relaxed)));
        let (reply, answer) = oneshot::channel();
        let want = Arrival::Want { by, content, reply };
        self.inbox.send(want).await.map_err(|_| PullFault::Broken)?;
        let mut wish = Wish { by, inbox: self.inbox.clone(), stands: true };
        let result = answer.await.unwrap_or(Err(PullFault::Broken));
        if result.is_err() {
            wish.stands = false;
        }
        result.map(|()| wish)
    }

    /// Where an object can be served from, if any of it is here.
    pub(crate) async fn source(&self, content: Digest) -> Result<Option<Source>, PullFault> {
        if let Some(object) = held(&self.open, content) {
            return Ok(Some(Source::Object(object)));
        }
        let id = ContentId(content.0);
        if let Some(object) = self.in_store(move |store| store.open_object(&id)).await? {
            return Ok(Some(Source::Object(share(&self.open, content, object))));
        }
        Ok(held(&self.fronts, content).map(Source::Front))
    }

    /// The same of what is being pulled, as soon as any of it is here. Nothing is asked for.
    pub(crate) async fn coming(&self, content: Digest) -> Result<Option<Source>, PullFault> {
        let mut pulls = self.pulls.subscribe();
        loop {
            let pulled = pulls.borrow_and_update().contains(&content);
            if let Some(source) = self.source(content).await? {
                return Ok(Some(source));
            }
            if !pulled {
                return Ok(None);
            }
            pulls.changed().await.expect("the sender is held here");
        }
    }

    /// Notes that something is being pulled.
    pub(crate) fn pulling(&self, content: Digest) -> Pulling {
        self.pulls.send_modify(|pulls| {
            pulls.insert(content);
        });
        Pulling { pulls: self.pulls.clone(), content }
    }

    /// The front of an object, if any of it is here; also what an earlier process has left.
    pub(crate) async fn front(&self, content: Digest) -> Result<Option<Arc<Front>>, PullFault> {
        if let Some(front) = held(&self.fronts, content) {
            return Ok(Some(front));
        }
        let id = ContentId(content.0);
        let left = self.in_store(move |store| store.find_partial(&id)).await?;
        Ok(left.map(|partial| {
            let front = Front::new(partial.outline().clone(), Some(partial));
            let front = share(&self.fronts, content, front);
            self.pulls.send_modify(|_| ());
            front
        }))
    }

    /// Begins to take in an object of which nothing is here.
    pub(crate) async fn begin(&self, outline: content::Outline) -> Result<Arc<Front>, PullFault> {
        let (content, outline) = (Digest(outline.id().0), Arc::new(outline));
        let begun = outline.clone();
        let keeps = Store::keeps_partial(outline.len());
        let transfers = self.clone();
        let begin = move |_: &Store| {
            let begin = |store: &Store| store.begin_partial(begun.clone());
            keeps.then(|| transfers.in_room(begin)).transpose()
        };
        let partial = self.in_store(begin).await?;
        let front = share(&self.fronts, content, Front::new(outline, partial));
        self.pulls.send_modify(|_| ());
        Ok(front)
    }

    /// What is here of an object is of no use.
    pub(crate) async fn drop_front(&self, content: Digest) -> Result<(), PullFault> {
        lock(&self.fronts).remove(&content);
        let id = ContentId(content.0);
        self.in_store(move |store| store.drop_partial(&id)).await
    }

    /// Nobody brings the rest of an object: those who are served what has come of it learn that.
    pub(crate) fn abandon(&self, content: Digest) {
        if let Some(front) = held(&self.fronts, content) {
            front.set_abandoned(true);
        }
    }

    /// Tells that somebody has sent other bytes than content has. `from`: what he is, and his name.
    pub(crate) async fn tell_altered(&self, (role, name): (&str, &str), content: Digest) {
        let class = if self.fan.is_some() { Class::Relay } else { Class::Client };
        let kind = Kind { subject: "push.altered", severity: Severity::Error, class };
        let text = format!("{role} {name} has sent other bytes than content {content} has");
        warn!("{text}: refused");
        let happening = notice::make((self.host, name), kind, &text);
        self.inbox.send(Arrival::Input(Input::Happened(happening))).await.ok();
    }

    /// What is arriving just now, and what was decoded of it.
    pub(crate) fn arriving(&self) -> BTreeSet<ContentId> {
        let mut arriving = arriving(&self.fronts);
        arriving.extend(self.ahead.iter().flat_map(|ahead| ahead.held()));
        arriving
    }

    /// Does what takes room; if there is none, what was decoded ahead gives way, and it is done
    /// again. Blocks.
    pub(crate) fn in_room<T>(
        &self,
        work: impl Fn(&Store) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match (work(&self.store), &self.ahead) {
            (Err(error), Some(ahead)) if error.is_full() && ahead.give_back() => work(&self.store),
            (done, _) => done,
        }
    }

    /// Has the store drop what orders, what is installed and what is arriving do not need, whenever
    /// there is no room.
    pub(crate) fn own(&mut self, claims: Claims, journal: Journal) {
        self.claims = Some(claims.clone());
        let fronts = self.fronts.clone();
        self.store.own(Box::new(Cache { claims, journal, fronts }));
    }

    /// Does something with the store, on a thread that may block.
    pub(crate) async fn in_store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, PullFault> {
        let store = self.store.clone();
        let done = tokio::task::spawn_blocking(move || work(&store)).await;
        done.expect("work in the store does not panic").map_err(|error| {
            warn!(error = %crate::chain(&error), "the content store failed");
            PullFault::Disk
        })
    }
}

/// What a store is to a node that keeps more in it than it needs.
struct Cache {
    claims: Claims,
    journal: Journal,
    fronts: Shared<Front>,
}

impl Owner for Cache {
    fn needed(&self) -> Option<BTreeSet<ContentId>> {
        let installed = self.journal.all_installed();
        let installed = installed.inspect_err(|error| {
            warn!(error = %crate::chain(error), "nothing is dropped from the cache");
        });
        let installed = installed.ok()?.into_iter().map(|digest| ContentId(digest.0));
        let mut needed = self.claims.needed();
        needed.extend(installed.chain(arriving(&self.fronts)));
        Some(needed)
    }

    fn keeps(&self, id: &ContentId) -> bool {
        self.claims.pushes(id)
    }
}

fn arriving(fronts: &Shared<Front>) -> BTreeSet<ContentId> {
    let fronts = lock(fronts);
    let held = fronts.iter().filter(|(_, front)| front.strong_count() > 0);
    held.map(|(content, _)| ContentId(content.0)).collect()
}

/// Somebody waits for content. Dropped, the core learns that nobody does any more.
pub(crate) struct Wish {
    by: Asker,
    inbox: mpsc::Sender<Arrival>,
    stands: bool,
}

impl Wish {
    /// The content has come.
    pub(crate) fn end(mut self) {
        self.stands = false;
    }
}

impl Drop for Wish {
    fn drop(&mut self) {
        if self.stands {
            let unwanted = mesh::Input::Unwanted { by: self.by };
            // If the inbox is full just now, the end of the link says it once more.
            self.inbox.try_send(Arrival::Input(unwanted)).ok();
        }
    }
}

fn held<T>(shared: &Shared<T>, content: Digest) -> Option<Arc<T>> {
    lock(shared).get(&content).and_then(Weak::upgrade)
}

/// Shares a new thing, or gives the one that somebody else shared meanwhile.
fn share<T>(shared: &Shared<T>, content: Digest, new: T) -> Arc<T> {
    let mut shared = lock(shared);
    shared.retain(|_, thing| thing.strong_count() > 0);
    if let Some(there) = shared.get(&content).and_then(Weak::upgrade) {
        return there;
    }
    let new = Arc::new(new);
    shared.insert(content, Arc::downgrade(&new));
    new
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
