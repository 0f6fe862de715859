//! Who watches what hosts write while they still run, and what the mesh must know of it.
//!
//! The mesh passes previews of those orders only that somebody here watches. Who comes to an order
//! that ends at once costs nothing: interest counts only once a viewer has stayed for a moment.
//! Each further viewer of an order has it told from the beginning, for all of them; they know by
//! the offset what they have. Previews come by a bounded broadcast of their own: a viewer who reads
//! too slowly misses some of them, and has the order told from the beginning after a while.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mesh::{OrderId, Said, WATCHED};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, sleep_until};

/// How long an order must be open while somebody watches before hosts are asked for previews.
const PATIENCE: Duration = Duration::from_millis(200);
/// How long a viewer who was too slow waits before the order is told from the beginning; each time
/// twice as long as before, since a command that never ends may always be faster.
const AGAIN: Duration = Duration::from_secs(5);
/// The longest such wait.
const AGAIN_AT_MOST: Duration = Duration::from_secs(300);

/// The orders that are watched, each with its generation.
pub(crate) type Watched = BTreeMap<OrderId, u64>;

type Subscribe = dyn Fn() -> broadcast::Receiver<Said> + Send + Sync;

/// All viewers.
#[derive(Clone)]
pub(crate) struct Viewers {
    subscribe: Arc<Subscribe>,
    state: Arc<Mutex<State>>,
}

struct State {
    /// How many watch each order, and its generation.
    orders: BTreeMap<OrderId, (usize, u64)>,
    generation: u64,
    watched: watch::Sender<Watched>,
}

impl Viewers {
    /// No viewers yet. What they watch is shown by the receiver.
    pub(crate) fn new(
        subscribe: impl Fn() -> broadcast::Receiver<Said> + Send + Sync + 'static,
    ) -> (Viewers, watch::Receiver<Watched>) {
        let (watched, watching) = watch::channel(Watched::new());
        let state = State { orders: BTreeMap::new(), generation: 0, watched };
        let viewers =
            Viewers { subscribe: Arc::new(subscribe), state: Arc::new(Mutex::new(state)) };
        (viewers, watching)
    }

    /// Somebody comes to an order that is open, and watches what hosts write, if they want to.
    pub(crate) fn view(&self, order: OrderId, wants: bool) -> View {
        let at = wants.then(|| Instant::now() + PATIENCE);
        View { viewers: self.clone(), order, at, again: AGAIN, previews: None }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Has an order told from the beginning, for `more` viewers more. `false`: too many orders are
    /// watched already.
    fn begin(&mut self, order: OrderId, more: usize) -> bool {
        if !self.orders.contains_key(&order) && self.orders.len() >= WATCHED {
            return false;
        }
        self.generation += 1;
        let (viewers, generation) = self.orders.entry(order).or_default();
        (*viewers, *generation) = (*viewers + more, self.generation);
        self.tell();
        true
    }

    fn leave(&mut self, order: OrderId) {
        if let Some((viewers, _)) = self.orders.get_mut(&order) {
            *viewers -= 1;
            if *viewers == 0 {
                self.orders.remove(&order);
                self.tell();
            }
        }
    }

    fn tell(&self) {
        let watched = self.orders.iter().map(|(order, (_, generation))| (*order, *generation));
        self.watched.send_replace(watched.collect());
    }
}

/// One viewer of one order; dropping it is leaving.
pub(crate) struct View {
    viewers: Viewers,
    order: OrderId,
    /// When to have the order told from the beginning.
    at: Option<Instant>,
    /// How long to wait with it if this viewer is too slow.
    again: Duration,
    previews: Option<broadcast::Receiver<Said>>,
}

impl View {
    /// The next preview; never, if none are wanted. Nothing is lost if this is dropped while it
    /// waits.
    pub(crate) async fn next(&mut self) -> Said {
        loop {
            tokio::select! {
                said = next_of(&mut self.previews) => match said {
                    Ok(said) if said.order == self.order => return said,
                    Ok(_) => {}
                    Err(RecvError::Lagged(_)) => {
                        if self.at.is_none() {
                            self.at = Some(Instant::now() + self.again);
                            self.again = (2 * self.again).min(AGAIN_AT_MOST);
                        }
                    }
                    // The node has stopped: nothing more comes.
                    Err(RecvError::Closed) => return pending().await,
                },
                () = until(self.at) => self.begin(),
            }
        }
    }

    fn begin(&mut self) {
        self.at = None;
        if self.previews.is_some() {
            self.viewers.lock().begin(self.order, 0);
            return;
        }
        // Listening begins before anybody is asked to speak.
        let previews = (self.viewers.subscribe)();
        if self.viewers.lock().begin(self.order, 1) {
            self.previews = Some(previews);
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        if self.previews.is_some() {
            self.viewers.lock().leave(self.order);
        }
    }
}

async fn next_of(previews: &mut Option<broadcast::Receiver<Said>>) -> Result<Said, RecvError> {
    match previews {
        Some(previews) => previews.recv().await,
        None => pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use mesh::{HostId, Stream};

    use super::*;

    const A: OrderId = OrderId([1; 16]);
    const B: OrderId = OrderId([2; 16]);

    fn said(order: OrderId, offset: u64) -> Said {
        let bytes = Bytes::from_static(b"x");
        Said { order, host: HostId(1), stream: Stream::Stdout, offset, bytes }
    }

    struct Desk {
        viewers: Viewers,
        watching: watch::Receiver<Watched>,
        previews: broadcast::Sender<Said>,
    }

    fn desk() -> Desk {
        let (previews, _) = broadcast::channel(4);
        let sender = previews.clone();
        let (viewers, watching) = Viewers::new(move || sender.subscribe());
        Desk { viewers, watching, previews }
    }

    impl Desk {
        /// A viewer whose interest counts already.
        async fn view(&mut self, order: OrderId) -> View {
            let mut view = self.viewers.view(order, true);
            self.watching.mark_unchanged();
            tokio::select! {
                said = view.next() => panic!("nobody has spoken: {said:?}"),
                changed = self.watching.changed() => changed.expect("the viewers live"),
            }
            view
        }

        fn watched(&self) -> Watched {
            self.watching.borrow().clone()
        }
    }

    #[tokio::test]
    async fn an_order_is_watched_as_long_as_somebody_does_and_anew_for_each() {
        let mut desk = desk();
        let first = desk.view(A).await;
        let before = desk.watched();
        let second = desk.view(A).await;
        let after = desk.watched();
        assert_eq!((before.len(), after.len()), (1, 1));
        assert_ne!(before, after, "the newcomer gets it from the beginning");
        drop(first);
        assert_eq!(desk.watched(), after);
        drop(second);
        assert_eq!(desk.watched(), Watched::new());
    }

    #[tokio::test]
    async fn who_leaves_at_once_or_wants_nothing_is_not_counted() {
        let desk = desk();
        drop(desk.viewers.view(A, true));
        let mut view = desk.viewers.view(A, false);
        let waited = tokio::time::timeout(2 * PATIENCE, view.next()).await;
        assert!(waited.is_err() && desk.watched().is_empty());
    }

    #[tokio::test]
    async fn previews_of_the_order_come_and_no_others() {
        let mut desk = desk();
        let mut view = desk.view(A).await;
        for said in [said(B, 0), said(A, 0), said(B, 1), said(A, 1)] {
            desk.previews.send(said).expect("somebody listens");
        }
        assert_eq!(view.next().await, said(A, 0));
        assert_eq!(view.next().await, said(A, 1));
    }

    #[tokio::test]
    async fn who_was_too_slow_goes_on_and_is_told_from_the_beginning_later() {
        let mut desk = desk();
        let mut view = desk.view(A).await;
        for n in 0..6 {
            desk.previews.send(said(A, n)).expect("somebody listens");
        }
        assert_eq!(view.next().await, said(A, 2));
        assert!(view.at.is_some_and(|at| at > Instant::now()));
        let before = desk.watched();
        view.begin();
        assert_ne!(desk.watched(), before);
        drop(view);
        assert_eq!(desk.watched(), Watched::new());
    }

    #[tokio::test]
    async fn what_can_be_watched_is_bounded() {
        let desk = desk();
        let order = |n: usize| OrderId([u8::try_from(n).expect("it is small"); 16]);
        let mut views: Vec<_> = (0..=WATCHED).map(|n| desk.viewers.view(order(n), true)).collect();
        views.iter_mut().for_each(View::begin);
        assert_eq!(desk.watched().len(), WATCHED);
        views.clear();
        assert_eq!(desk.watched(), Watched::new());
    }
}
