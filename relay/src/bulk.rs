//! Content on its way down one link: what may lie in QUIC's send buffer, in which order, how fast.
//!
//! Streams of a higher priority are packed first, but that helps an order only if it can be written
//! at all: QUIC's send buffer belongs to the connection, and content that fills it makes orders
//! wait for acknowledgements. So content takes a share of the buffer by places, an object keeps its
//! places until the child has acknowledged it, and the rest of the buffer is always free. Objects
//! leave in the order in which they were asked for, each with a priority below the one before: the
//! first can be used, or passed on, while the second is under way.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex as Lock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use mesh::OrderId;
use quinn::{SendStream, WriteError};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

use crate::kind::ahead;

/// What is written in one go.
const PIECE: usize = 64 << 10;
/// Bytes that one place stands for.
const PLACE: usize = 64 << 10;
/// Orders with a rate of their own that one link keeps apart.
const PACED: usize = 64;

/// The content that goes down one link.
pub struct Bulk {
    places: Arc<Semaphore>,
    /// Of these, what objects that go slowly may take together: a half, so that there is always
    /// room for others. One order has a half of that, so that it never holds up another one.
    slow: Arc<Semaphore>,
    /// Of one object at most.
    each: u32,
    asked: AtomicI32,
    /// What this node allows, and what the child does; in bits a second, 0: any.
    own: AtomicU64,
    declared: AtomicU64,
    bucket: Bucket,
    /// Of the orders that are to go slowly, the youngest last.
    paced: Lock<VecDeque<(OrderId, Paced)>>,
}

/// The pace of one order, and the places that its objects may take.
#[derive(Clone)]
struct Paced {
    bucket: Arc<Bucket>,
    places: Arc<Semaphore>,
}

/// The place of one object in the row, and its right to be sent once it has waited for it.
pub struct Turn {
    priority: i32,
    places: Arc<Semaphore>,
    each: u32,
    held: Vec<OwnedSemaphorePermit>,
    /// For an object that goes slowly: what is shared with the others of its order, and with all
    /// that go slowly, and its rate.
    shared: Vec<Arc<Semaphore>>,
    paced: Option<Arc<Bucket>>,
}

impl Bulk {
    /// Bulk on a link that may carry so many bits a second of it; zero: as many as it can. The
    /// child passes content on, or does not.
    pub fn new(rate: u64, serves: bool) -> Bulk {
        let each = ahead(serves) / PLACE as u32;
        Bulk {
            // One object on its way and the next one already behind it.
            places: Arc::new(Semaphore::new(2 * each as usize)),
            slow: Arc::new(Semaphore::new(each as usize)),
            each,
            asked: AtomicI32::new(-1),
            own: AtomicU64::new(rate),
            declared: AtomicU64::new(0),
            bucket: Bucket::new(rate),
            paced: Lock::default(),
        }
    }

    /// Changes the limit of this node, in bits a second; zero: none.
    pub fn limit(&self, rate: u64) {
        self.own.store(rate, Ordering::Relaxed);
        self.bucket.set(self.rate());
    }

    /// The child says what it allows. The lower of the two counts.
    pub(crate) fn declare(&self, rate: u64) {
        self.declared.store(rate, Ordering::Relaxed);
        self.bucket.set(self.rate());
    }

    /// What may go down, in bits a second; zero: as much as the link carries.
    pub(crate) fn rate(&self) -> u64 {
        let rates = [&self.own, &self.declared].map(|rate| rate.load(Ordering::Relaxed));
        rates.into_iter().filter(|rate| *rate > 0).min().unwrap_or(0)
    }

    /// A place behind all that was asked for before, for an object of an order that has a rate of
    /// its own.
    pub(crate) fn turn_of(&self, order: OrderId, rate: u64) -> Turn {
        let mut paced = self.paced.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, each) =
            (paced.iter().find(|(known, _)| *known == order), self.each.div_ceil(2));
        let pace = match known {
            Some((_, pace)) => pace.clone(),
            None => {
                let bucket = Arc::new(Bucket::new(rate));
                let pace = Paced { bucket, places: Arc::new(Semaphore::new(each as usize)) };
                paced.push_back((order, pace.clone()));
                if paced.len() > PACED {
                    paced.pop_front();
                }
                pace
            }
        };
        let shared = vec![pace.places, self.slow.clone()];
        Turn { paced: Some(pace.bucket), shared, each, ..self.turn() }
    }

    /// A place behind all that was asked for before.
    pub fn turn(&self) -> Turn {
        // After two thousand million objects the order is lost for one of them.
        let priority = self.asked.fetch_sub(1, Ordering::Relaxed).min(-1);
        let (places, each) = (self.places.clone(), self.each);
        Turn { priority, places, each, held: Vec::new(), shared: Vec::new(), paced: None }
    }

    /// Writes some of an object whose turn it is, telling of each piece that QUIC has taken.
    ///
    /// # Errors
    /// The child does not want the stream any more, or has gone.
    pub async fn write(
        &self,
        turn: &Turn,
        send: &mut SendStream,
        body: &Bytes,
        wrote: impl Fn(usize),
    ) -> Result<(), WriteError> {
        send.set_priority(turn.priority).ok();
        let mut rest = body.clone();
        while !rest.is_empty() {
            let paced = turn.paced.as_ref().map_or(PIECE, |paced| paced.piece());
            let piece = rest.split_to(rest.len().min(paced).min(self.bucket.piece()));
            let bytes = piece.len();
            if let Some(paced) = &turn.paced {
                paced.take(bytes).await;
            }
            self.bucket.take(bytes).await;
            send.write_chunk(piece).await?;
            wrote(bytes);
        }
        Ok(())
    }
}

impl Turn {
    /// Waits until it is the turn of an object of which so many bytes are left.
    pub async fn wait(&mut self, bytes: usize) {
        if self.held.is_empty() {
            let places = u32::try_from(bytes.div_ceil(PLACE)).unwrap_or(self.each);
            let places = places.clamp(1, self.each);
            let mut held = Vec::new();
            for from in self.shared.iter().chain([&self.places]) {
                let taken = from.clone().acquire_many_owned(places).await;
                held.push(taken.expect("nobody closes the places"));
            }
            self.held = held;
        }
    }

    /// Lets others go first, because there is nothing to send just now.
    pub fn pass(&mut self) {
        self.held.clear();
    }

    /// The turn ends when the child has acknowledged the whole stream.
    pub async fn end(self, send: &mut SendStream) {
        send.finish().ok();
        send.stopped().await.ok();
    }
}

/// A token bucket whose tokens may be owed: whoever takes more than there is pays by waiting, and
/// the next one waits after him.
pub(crate) struct Bucket {
    /// Bytes a second.
    rate: AtomicU64,
    /// When all that was taken is paid for.
    paid: Mutex<Instant>,
}

/// What an idle bucket saves up.
const SAVED: Duration = Duration::from_millis(50);
/// A capped link gets so many pieces a second, so that each is short for whoever shares it.
const PIECES: u64 = 20;
/// The least piece: some packets.
const LEAST_PIECE: usize = 4 << 10;

impl Bucket {
    pub(crate) fn new(rate: u64) -> Bucket {
        Bucket { rate: AtomicU64::new(rate / 8), paid: Mutex::new(Instant::now()) }
    }

    /// Changes the rate, in bits a second; zero: none.
    pub(crate) fn set(&self, rate: u64) {
        self.rate.store(rate / 8, Ordering::Relaxed);
    }

    /// How much to take in one go.
    pub(crate) fn piece(&self) -> usize {
        match self.rate.load(Ordering::Relaxed) {
            0 => PIECE,
            rate => usize::try_from(rate / PIECES).unwrap_or(PIECE).clamp(LEAST_PIECE, PIECE),
        }
    }

    pub(crate) async fn take(&self, bytes: usize) {
        if self.rate.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut paid = self.paid.lock().await;
        let now = Instant::now();
        let from = (*paid).max(now.checked_sub(SAVED).unwrap_or(now));
        sleep_until(from).await;
        // The limit may have been changed while we waited.
        let rate = self.rate.load(Ordering::Relaxed);
        if rate > 0 {
            *paid = from + Duration::from_secs_f64(bytes as f64 / rate as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_bucket_keeps_the_rate_and_can_be_changed() {
        let (bucket, begun) = (Bucket::new(8_000_000), Instant::now());
        for _ in 0..100 {
            bucket.take(100_000).await;
        }
        // Ten megabytes at one megabyte a second; the last piece is paid for by the next.
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(9_800), "{took:?}");
        assert!(took <= Duration::from_millis(10_000), "{took:?}");
        bucket.rate.store(10_000_000, Ordering::Relaxed);
        bucket.take(100_000).await;
        let begun = Instant::now();
        for _ in 0..100 {
            bucket.take(100_000).await;
        }
        assert!(begun.elapsed() <= Duration::from_millis(1_020), "{:?}", begun.elapsed());
        bucket.rate.store(0, Ordering::Relaxed);
        let begun = Instant::now();
        bucket.take(1 << 40).await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    #[test]
    fn the_lower_of_two_limits_counts() {
        let bulk = Bulk::new(0, true);
        assert_eq!(bulk.rate(), 0);
        bulk.declare(2_000_000);
        assert_eq!((bulk.rate(), bulk.bucket.piece()), (2_000_000, 12_500));
        bulk.limit(64_000);
        assert_eq!((bulk.rate(), bulk.bucket.piece()), (64_000, LEAST_PIECE));
        bulk.declare(0);
        assert_eq!(bulk.rate(), 64_000);
        bulk.limit(0);
        assert_eq!((bulk.rate(), bulk.bucket.piece()), (0, PIECE));
    }

    #[test]
    fn objects_of_one_order_share_its_rate() {
        let bulk = Bulk::new(0, true);
        let turn = |order| bulk.turn_of(OrderId([order; 16]), 8_000).paced.expect("it has a rate");
        let first = turn(0);
        assert!(Arc::ptr_eq(&first, &turn(0)));
        assert!(!Arc::ptr_eq(&first, &turn(1)));
        (1..=64).for_each(|order| drop(turn(order)));
        assert!(!Arc::ptr_eq(&first, &turn(0)), "it was forgotten");
    }

    #[tokio::test]
    async fn what_goes_slowly_leaves_room_for_the_rest() {
        let bulk = Bulk::new(0, true);
        let mut slow = [1, 1, 2, 3].map(|order| bulk.turn_of(OrderId([order; 16]), 8_000));
        slow[0].wait(32 << 20).await;
        let waits = async |turn: &mut Turn| {
            tokio::time::timeout(Duration::from_millis(20), turn.wait(32 << 20)).await.is_err()
        };
        assert!(waits(&mut slow[1]).await, "one large one of an order at a time");
        assert!(!waits(&mut slow[2]).await, "another order has its own pace");
        assert!(waits(&mut slow[3]).await, "two of them");
        assert!(!waits(&mut bulk.turn()).await, "what goes fast has its place");
        slow[0].pass();
        assert!(!waits(&mut slow[3]).await);
    }

    #[tokio::test]
    async fn small_objects_of_a_slow_order_follow_each_other() {
        let bulk = Bulk::new(0, false);
        let mut turns = [(); 4].map(|()| bulk.turn_of(OrderId([1; 16]), 8_000));
        for turn in &mut turns {
            turn.wait(1).await;
        }
        let held: usize = turns.iter().map(|turn| turn.held.len()).sum();
        assert_eq!(held, 4 * 3, "of the order, of the slow ones, of the link");
    }

    #[tokio::test]
    async fn large_objects_go_two_at_a_time_and_in_order() {
        let bulk = Bulk::new(0, true);
        let [mut first, mut second, mut third] = std::array::from_fn(|_| bulk.turn());
        assert!(first.priority > second.priority, "{} {}", first.priority, second.priority);
        assert!(third.priority < second.priority && first.priority < 0);
        first.wait(32 << 20).await;
        second.wait(32 << 20).await;
        let waits = async |turn: &mut Turn| {
            tokio::time::timeout(Duration::from_millis(20), turn.wait(1)).await.is_err()
        };
        assert!(waits(&mut third).await, "there is no place left");
        first.pass();
        assert!(!waits(&mut third).await, "the first has nothing to send");
        assert!(!waits(&mut first).await, "there is room for small ones");
        drop(third);
    }
}
