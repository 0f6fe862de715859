//! Content on its way down one link: what may lie in QUIC's send buffer, in which order, how fast.
//!
//! Streams of a higher priority are packed first, but that helps an order only if it can be written
//! at all: QUIC's send buffer belongs to the connection, and content that fills it makes orders
//! wait for acknowledgements. So content takes a share of the buffer by places, an object keeps its
//! places until the child has acknowledged it, and the rest of the buffer is always free. Objects
//! leave in the order in which they were asked for, each with a priority below the one before: the
//! first can be used, or passed on, while the second is under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use quinn::{SendStream, WriteError};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

use crate::kind::ahead;

/// What is written in one go.
const PIECE: usize = 64 << 10;
/// Bytes that one place stands for.
const PLACE: usize = 64 << 10;

/// The content that goes down one link.
pub struct Bulk {
    places: Arc<Semaphore>,
    /// Of one object at most.
    each: u32,
    asked: AtomicI32,
    bucket: Bucket,
}

/// The place of one object in the row, and its right to be sent once it has waited for it.
pub struct Turn {
    priority: i32,
    places: Arc<Semaphore>,
    each: u32,
    held: Option<OwnedSemaphorePermit>,
}

impl Bulk {
    /// Bulk on a link that may carry so many bits a second of it; zero: as many as it can. The
    /// child passes content on, or does not.
    pub fn new(rate: u64, serves: bool) -> Bulk {
        let each = ahead(serves) / PLACE as u32;
        Bulk {
            // One object on its way and the next one already behind it.
            places: Arc::new(Semaphore::new(2 * each as usize)),
            each,
            asked: AtomicI32::new(-1),
            bucket: Bucket::new(rate),
        }
    }

    /// Changes the limit, in bits a second; zero: none.
    pub fn limit(&self, rate: u64) {
        self.bucket.rate.store(rate / 8, Ordering::Relaxed);
    }

    /// A place behind all that was asked for before.
    pub fn turn(&self) -> Turn {
        // After two thousand million objects the order is lost for one of them.
        let priority = self.asked.fetch_sub(1, Ordering::Relaxed).min(-1);
        Turn { priority, places: self.places.clone(), each: self.each, held: None }
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
        for start in (0..body.len()).step_by(PIECE) {
            let piece = body.slice(start..body.len().min(start + PIECE));
            let bytes = piece.len();
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
        if self.held.is_none() {
            let places = u32::try_from(bytes.div_ceil(PLACE)).unwrap_or(self.each);
            let places = places.clamp(1, self.each);
            let held = self.places.clone().acquire_many_owned(places).await;
            self.held = Some(held.expect("nobody closes the places"));
        }
    }

    /// Lets others go first, because there is nothing to send just now.
    pub fn pass(&mut self) {
        self.held = None;
    }

    /// The turn ends when the child has acknowledged the whole stream.
    pub async fn end(self, send: &mut SendStream) {
        send.finish().ok();
        send.stopped().await.ok();
    }
}

/// A token bucket whose tokens may be owed: whoever takes more than there is pays by waiting, and
/// the next one waits after him.
struct Bucket {
    /// Bytes a second.
    rate: AtomicU64,
    /// When all that was taken is paid for.
    paid: Mutex<Instant>,
}

/// What an idle bucket saves up.
const SAVED: Duration = Duration::from_millis(50);

impl Bucket {
    fn new(rate: u64) -> Bucket {
        Bucket { rate: AtomicU64::new(rate / 8), paid: Mutex::new(Instant::now()) }
    }

    async fn take(&self, bytes: usize) {
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
