//! One direction of a link, as a state machine without a clock.
//!
//! A packet waits in a bounded queue (what does not fit is dropped at the tail), leaves it at the
//! rate of the link, may be lost or fall into a blackout as it leaves, and arrives a delay later.
//! Time is handed in, counted from any start that the caller likes; the same seed, packets and
//! times give the same link, however often it is polled in between.
//!
//! It does not copy, look into or merge packets, and knows no headers: the caller says how many
//! bytes of the rate a packet takes. **A batch of segments handed to a socket in one call (GSO) is
//! many packets on the wire**: take it apart with [`segments`] first, or a link of 1 % loss loses
//! 64 KiB at once and its queue holds ten times what it should.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::loss::Chain;
use super::{Blackout, Shape, ShapeError};

/// Bytes that may wait, and as many that may be on their way, whatever a shape says: what 1 Gbit/s
/// carries in two seconds.
const LIMIT: usize = 256 << 20;

/// Packets and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// How many packets.
    pub packets: u64,
    /// How many bytes, as told by whoever pushed them.
    pub bytes: u64,
}

impl Count {
    fn add(&mut self, size: usize) {
        self.packets += 1;
        self.bytes += size as u64;
    }

    fn remove(&mut self, size: usize) {
        self.packets -= 1;
        self.bytes -= size as u64;
    }
}

/// What has become of all packets so far: `pushed` is the sum of the five others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Handed in.
    pub pushed: Count,
    /// Handed out at the other end.
    pub delivered: Count,
    /// Lost on the wire at random or in bursts.
    pub lost: Count,
    /// Lost on the wire in a blackout.
    pub blacked_out: Count,
    /// Dropped because the queue was full.
    pub overflowed: Count,
    /// Waiting or on the way.
    pub held: Count,
    /// The most bytes that have ever waited in the queue at once.
    pub queue_high: usize,
}

/// One direction of a link that carries packets of the type `P`.
pub struct Engine<P> {
    shape: Shape,
    switched_off: bool,
    rng: SmallRng,
    chain: Chain,
    /// The latest time that was handed in.
    now: Duration,
    waiting: VecDeque<Waiting<P>>,
    waiting_bytes: usize,
    /// When the first of `waiting` has left the queue; meaningless without one.
    leaves: Duration,
    flying: BinaryHeap<Reverse<Flying<P>>>,
    flying_bytes: usize,
    /// The latest arrival so far, before which nothing else may arrive unless reordering is on.
    last_arrival: Duration,
    launched: u64,
    counters: Counters,
}

struct Waiting<P> {
    size: usize,
    packet: P,
}

struct Flying<P> {
    arrives: Duration,
    no: u64,
    size: usize,
    packet: P,
}

impl<P> Engine<P> {
    /// An idle link at time zero.
    ///
    /// # Errors
    /// A number of the shape makes no sense.
    pub fn new(shape: Shape, seed: u64) -> Result<Engine<P>, ShapeError> {
        shape.check()?;
        Ok(Engine {
            shape,
            switched_off: false,
            rng: SmallRng::seed_from_u64(seed),
            chain: Chain::default(),
            now: Duration::ZERO,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            leaves: Duration::ZERO,
            flying: BinaryHeap::new(),
            flying_bytes: 0,
            last_arrival: Duration::ZERO,
            launched: 0,
            counters: Counters::default(),
        })
    }

    /// Hands in a packet that takes `size` bytes of the rate, at least one. False: it was dropped
    /// because there was no room. A time before the latest one counts as the latest one, here and
    /// elsewhere.
    pub fn push(&mut self, now: Duration, size: usize, packet: P) -> bool {
        self.advance(now);
        // A packet of nothing would fill the queue with as many as one likes.
        let size = size.max(1);
        self.counters.pushed.add(size);
        self.counters.held.add(size);
        let Some(rate) = self.shape.rate else {
            return self.launch(self.now, size, packet);
        };
        let free = self.shape.queue.min(LIMIT).saturating_sub(self.waiting_bytes);
        if size > free && !self.waiting.is_empty() {
            self.counters.held.remove(size);
            self.counters.overflowed.add(size);
            return false;
        }
        if self.waiting.is_empty() {
            self.leaves = self.now.saturating_add(time_of(size, rate));
        }
        self.waiting_bytes += size;
        self.counters.queue_high = self.counters.queue_high.max(self.waiting_bytes);
        self.waiting.push_back(Waiting { size, packet });
        true
    }

    /// The next packet that has arrived by now. To be called until it returns none.
    pub fn poll(&mut self, now: Duration) -> Option<P> {
        self.advance(now);
        if self.flying.peek()?.0.arrives > self.now {
            return None;
        }
        let Reverse(flying) = self.flying.pop()?;
        self.flying_bytes -= flying.size;
        self.counters.held.remove(flying.size);
        self.counters.delivered.add(flying.size);
        Some(flying.packet)
    }

    /// Before this time [`Engine::poll`] returns nothing unless something is pushed or changed. It
    /// may return nothing then, too, since the packet may be lost; then there is a later deadline.
    pub fn next_deadline(&self) -> Option<Duration> {
        let flying = self.flying.peek().map(|Reverse(flying)| flying.arrives);
        let waiting =
            (!self.waiting.is_empty()).then(|| self.leaves.saturating_add(self.shape.delay));
        [flying, waiting].into_iter().flatten().min()
    }

    /// Changes what the link is like from now on. What has left the queue arrives as it would
    /// have; what waits in it stays, even if it is more than a smaller queue may hold.
    ///
    /// # Errors
    /// A number of the shape makes no sense. Nothing has changed.
    pub fn reshape(&mut self, now: Duration, shape: Shape) -> Result<(), ShapeError> {
        shape.check()?;
        self.advance(now);
        let before = std::mem::replace(&mut self.shape, shape);
        match (before.rate, self.shape.rate) {
            (Some(old), Some(new)) if !self.waiting.is_empty() => {
                // What is left of the packet in front leaves at the new rate.
                let left = self.leaves.saturating_sub(self.now).as_nanos();
                self.leaves =
                    self.now.saturating_add(nanos(left * u128::from(old) / u128::from(new)));
            }
            (Some(_), None) => {
                let all = std::mem::take(&mut self.waiting);
                self.waiting_bytes = 0;
                for Waiting { size, packet } in all {
                    self.launch(self.now, size, packet);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// One blackout more. Those that are over are forgotten.
    pub fn darken(&mut self, now: Duration, blackout: Blackout) {
        self.advance(now);
        self.shape.blackouts.retain(|black| !black.is_over(now));
        self.shape.blackouts.push(blackout);
    }

    /// Switches the link off or on again by hand. While it is off, what leaves the queue is lost,
    /// as in a blackout; what is on its way arrives.
    pub fn switch(&mut self, now: Duration, on: bool) {
        self.advance(now);
        self.switched_off = !on;
    }

    /// What the link is like now.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// What has become of all packets by now.
    pub fn counters(&mut self, now: Duration) -> Counters {
        self.advance(now);
        self.counters
    }

    /// Bytes that wait in the queue now.
    pub fn queued(&mut self, now: Duration) -> usize {
        self.advance(now);
        self.waiting_bytes
    }

    /// Lets everything leave the queue that has done so by now. Each fate is decided at the time
    /// and in the order of leaving, so it does not depend on when somebody looks.
    fn advance(&mut self, now: Duration) {
        self.now = self.now.max(now);
        while let Some(rate) = self.shape.rate
            && self.leaves <= self.now
            && let Some(Waiting { size, packet }) = self.waiting.pop_front()
        {
            self.waiting_bytes -= size;
            let left = self.leaves;
            if let Some(next) = self.waiting.front() {
                self.leaves = left.saturating_add(time_of(next.size, rate));
            }
            self.launch(left, size, packet);
        }
    }

    /// Puts a packet on the wire. False: there was no room.
    fn launch(&mut self, left: Duration, size: usize, packet: P) -> bool {
        let dark = self.switched_off || self.shape.blackouts.iter().any(|black| black.covers(left));
        // The chain goes on in the dark, too.
        let lost = self.chain.loses(self.shape.loss, &mut self.rng);
        let full = self.flying_bytes.saturating_add(size) > LIMIT;
        if dark || lost || full {
            self.counters.held.remove(size);
            let count = match (dark, lost) {
                (true, _) => &mut self.counters.blacked_out,
                (_, true) => &mut self.counters.lost,
                _ => &mut self.counters.overflowed,
            };
            count.add(size);
            return dark || lost;
        }
        let mut arrives = left.saturating_add(self.shape.delay);
        if self.shape.jitter > Duration::ZERO {
            let share = self.rng.random_range(0.0..1.0);
            arrives = arrives.saturating_add(self.shape.jitter.mul_f64(share));
        }
        if !self.shape.reorder {
            arrives = arrives.max(self.last_arrival);
        }
        self.last_arrival = self.last_arrival.max(arrives);
        self.launched += 1;
        self.flying_bytes += size;
        self.flying.push(Reverse(Flying { arrives, no: self.launched, size, packet }));
        true
    }
}

/// How long a packet of this size takes at this rate, rounded up to a nanosecond.
fn time_of(size: usize, rate: u64) -> Duration {
    let bits = size as u128 * 8;
    nanos((bits * 1_000_000_000).div_ceil(u128::from(rate.max(1))))
}

/// At most some 584 years.
fn nanos(nanos: u128) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// The datagrams in a batch that is handed to a socket in one call, or comes from one: all are as
/// long as `segment`, but for the last, which may be shorter. Without `segment` there is one.
pub fn segments(batch: &[u8], segment: Option<usize>) -> impl Iterator<Item = &[u8]> {
    batch.chunks(segment.unwrap_or(batch.len()).max(1))
}

impl<P> PartialEq for Flying<P> {
    fn eq(&self, other: &Flying<P>) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<P> Eq for Flying<P> {}

impl<P> PartialOrd for Flying<P> {
    fn partial_cmp(&self, other: &Flying<P>) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<P> Ord for Flying<P> {
    fn cmp(&self, other: &Flying<P>) -> Ordering {
        (self.arrives, self.no).cmp(&(other.arrives, other.no))
    }
}

#[cfg(test)]
mod tests;
