//! Decoding what a push brings while the rest of it is on its way.
//!
//! An order begins when all of its content is here, and would then decode all of it. What has come
//! whole is decoded before: its chunks go into the store, where the installer finds them, so that
//! after the last byte only the last segments are left to do. Nothing depends on it: whatever is
//! not there when the order begins, or did not come out right because the base is another, is
//! decoded or fetched then.
//!
//! The chunks belong to their order. They go when it has ended here, whether it began or not, and
//! before that whenever somebody else needs the room; a sweep spares them, a restart does not.
//! Nothing is decoded ahead that would leave less room than it takes.
//!
//! Only at nodes that pass nothing on: a relay has others to serve meanwhile.

mod decoder;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use content::{ContentId, Store};
use mesh::{Digest, Order, OrderId, Record};
use tokio::sync::{oneshot, watch};
use tracing::warn;

pub(crate) use self::decoder::Decoder;

/// How much less of the processor a decoder gets than others do.
const NICE: i32 = 5;

/// What is decoded ahead at one host; clones are the same.
#[derive(Clone)]
pub(crate) struct Ahead(Arc<Shared>);

struct Shared {
    store: Arc<Store>,
    orders: Mutex<BTreeMap<OrderId, Waiting>>,
    changed: watch::Sender<()>,
}

/// An order whose content is on its way, or which has begun.
struct Waiting {
    order: Arc<Order>,
    /// Something of it has come that was not looked at.
    is_stirred: bool,
    /// It is being looked at.
    is_busy: bool,
    /// Nothing more is decoded for it.
    is_over: bool,
    /// It has ended here.
    has_ended: bool,
    /// Parts that were decoded.
    parts: BTreeSet<Digest>,
    /// What they have brought into the store.
    chunks: BTreeSet<ContentId>,
}

impl Ahead {
    /// With the orders that a node knew before, and that have not begun. What has come of them is
    /// decoded again.
    pub(crate) fn new(store: Arc<Store>, known: impl IntoIterator<Item = Arc<Order>>) -> Ahead {
        let (orders, changed) = Default::default();
        let ahead = Ahead(Arc::new(Shared { store, orders, changed }));
        known.into_iter().for_each(|order| ahead.enter(&order, true));
        ahead
    }

    /// Something is about to be kept.
    pub(crate) fn note(&self, record: &Record) {
        match record {
            Record::Order(order) => self.enter(order, false),
            // It may never have begun.
            Record::Answers(report) => self.end(report.order),
            Record::Forget(id) => self.end(*id),
            _ => {}
        }
    }

    fn enter(&self, order: &Arc<Order>, is_stirred: bool) {
        if order.needs.is_empty() {
            return;
        }
        let waiting = Waiting {
            order: order.clone(),
            is_stirred,
            is_busy: false,
            is_over: false,
            has_ended: false,
            parts: BTreeSet::new(),
            chunks: BTreeSet::new(),
        };
        self.lock().entry(order.id).or_insert(waiting);
    }

    /// An order has ended here. What it has brought goes soon: its answer need not wait for that.
    pub(crate) fn end(&self, id: OrderId) {
        if let Some(waiting) = self.lock().get_mut(&id) {
            (waiting.is_over, waiting.has_ended) = (true, true);
            self.0.changed.send_replace(());
        }
    }

    /// This content is in the store.
    pub(crate) fn arrived(&self, content: Digest) {
        let mut orders = self.lock();
        let needs = |order: &Order| order.needs.iter().any(|need| need.content.contains(&content));
        for waiting in orders.values_mut().filter(|w| !w.is_over && needs(&w.order)) {
            waiting.is_stirred = true;
            self.0.changed.send_replace(());
        }
    }

    /// An order is carried out from here on. Waits for what is being decoded for it.
    pub(crate) async fn begin(&self, id: OrderId) {
        let mut changed = self.0.changed.subscribe();
        let is_busy = || {
            let mut orders = self.lock();
            let waiting = orders.get_mut(&id);
            waiting.is_some_and(|waiting| {
                waiting.is_over = true;
                waiting.is_busy
            })
        };
        while is_busy() {
            changed.changed().await.ok();
        }
    }

    /// What lies in the store, named by nothing else.
    pub(crate) fn held(&self) -> BTreeSet<ContentId> {
        self.lock().values().flat_map(|waiting| waiting.chunks.iter().copied()).collect()
    }

    /// Somebody needs room: all of it goes that nobody works with just now, and nothing more is
    /// decoded for what waits now. Returns whether there was any. Blocks.
    pub(crate) fn give_back(&self) -> bool {
        let mut chunks = BTreeSet::new();
        for waiting in self.lock().values_mut() {
            waiting.is_over = true;
            chunks.append(&mut waiting.chunks);
        }
        let any = !chunks.is_empty();
        self.remove(chunks);
        any
    }

    /// Decodes whatever comes, until the runtime ends.
    pub(crate) async fn run(self, decoder: Decoder) {
        let mut changed = self.0.changed.subscribe();
        loop {
            changed.mark_unchanged();
            while let Some((id, has_ended)) = self.next() {
                let (ahead, decoder) = (self.clone(), decoder.clone());
                let work = move || match has_ended {
                    true => ahead.drop_order(id),
                    false => decoder.look(&ahead, id),
                };
                if let Err(error) = in_background(work).await {
                    warn!(%error, "nothing is decoded ahead: there is no thread for it");
                    break;
                }
            }
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// An order that is to be forgotten, or else looked at, and which of the two.
    fn next(&self) -> Option<(OrderId, bool)> {
        let orders = self.lock();
        let ended = orders.iter().find(|(_, waiting)| waiting.has_ended);
        let stirred = || orders.iter().find(|(_, w)| w.is_stirred && !w.is_over);
        ended.or_else(stirred).map(|(id, waiting)| (*id, waiting.has_ended))
    }

    /// An order is looked at until this is dropped.
    fn look_at(&self, id: OrderId) -> Option<Look> {
        let mut orders = self.lock();
        let waiting = orders.get_mut(&id).filter(|waiting| !waiting.is_over)?;
        (waiting.is_busy, waiting.is_stirred) = (true, false);
        Some(Look { ahead: self.clone(), order: waiting.order.clone() })
    }

    fn drop_order(&self, id: OrderId) {
        let gone = self.lock().remove(&id);
        self.remove(gone.map(|waiting| waiting.chunks).unwrap_or_default());
    }

    fn remove(&self, chunks: BTreeSet<ContentId>) {
        if !chunks.is_empty()
            && let Err(error) = self.0.store.remove_unpinned(chunks)
        {
            warn!(error = %crate::chain(&error), "what was decoded ahead is still in the store");
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<OrderId, Waiting>> {
        self.0.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One look at an order.
struct Look {
    ahead: Ahead,
    order: Arc<Order>,
}

impl Look {
    /// Whether nothing more is to be decoded.
    fn is_over(&self) -> bool {
        self.ahead.lock().get(&self.order.id).is_none_or(|waiting| waiting.is_over)
    }

    /// Nothing is to be gained here.
    fn end(&self) {
        if let Some(waiting) = self.ahead.lock().get_mut(&self.order.id) {
            waiting.is_over = true;
        }
    }

    /// Whether a part was decoded before.
    fn has(&self, part: Digest) -> bool {
        self.ahead.lock().get(&self.order.id).is_some_and(|w| w.parts.contains(&part))
    }

    /// A part was decoded, and has brought these chunks.
    fn decoded(&self, part: Digest, mut chunks: BTreeSet<ContentId>) {
        if let Some(waiting) = self.ahead.lock().get_mut(&self.order.id) {
            waiting.parts.insert(part);
            waiting.chunks.append(&mut chunks);
        }
        // It was forgotten meanwhile.
        self.ahead.remove(chunks);
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        if let Some(waiting) = self.ahead.lock().get_mut(&self.order.id) {
            waiting.is_busy = false;
        }
        self.ahead.0.changed.send_replace(());
    }
}

/// Does something on a thread of its own that gives way to the others.
async fn in_background(work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    let (done, end) = oneshot::channel();
    let work = move || {
        // Of this thread alone; if it is not to be had, nothing is lost but a comfort.
        if let Ok(usual) = rustix::process::getpriority_process(None) {
            rustix::process::setpriority_process(None, usual + NICE).ok();
        }
        work();
        done.send(()).ok();
    };
    std::thread::Builder::new().name("ahead".into()).spawn(work)?;
    // A thread that panics has dropped it.
    end.await.ok();
    Ok(())
}

#[cfg(test)]
mod tests;
