//! Windowed extremes: the greatest of recent rates, the least of recent delays.
//!
//! A rate is worth remembering for some rounds, because noise and rivals only make it smaller; a
//! delay is worth remembering until it is seen again, because queues only make it greater. Both
//! forget, since links change.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The greatest of the values of the last `span` ticks (van Herk's monotone queue, so that it holds
/// at most one value for each tick).
#[derive(Clone, Debug)]
pub(crate) struct Greatest {
    span: u64,
    kept: VecDeque<(u64, u64)>,
}

impl Greatest {
    pub(crate) fn new(span: u64) -> Greatest {
        Greatest { span, kept: VecDeque::new() }
    }

    pub(crate) fn push(&mut self, tick: u64, value: u64) {
        while self.kept.back().is_some_and(|&(_, last)| last <= value) {
            self.kept.pop_back();
        }
        if self.kept.back().is_none_or(|&(last, _)| last < tick) {
            self.kept.push_back((tick, value));
        }
        while self.kept.front().is_some_and(|&(first, _)| first + self.span <= tick) {
            self.kept.pop_front();
        }
    }

    /// Zero as long as there is none.
    pub(crate) fn value(&self) -> u64 {
        self.kept.front().map_or(0, |&(_, value)| value)
    }

    pub(crate) fn clear(&mut self) {
        self.kept.clear();
    }
}

/// Delays are averaged over this many samples at least before they count.
const CHUNK: u32 = 4;
/// A chunk also lasts for this part of the delay.
const CHUNK_PART: u32 = 8;
/// A delay this near to the floor, in percent of it, confirms the floor.
const SAME_PERCENT: u32 = 103;

/// The delay of the path without a queue.
///
/// What matters for the number of bytes that fill a path is the *mean* time that a packet is under
/// way (Little's law), not the least: on a link with jitter the least is never seen again, and a
/// window made of it starves. So the floor is the least of the means of short chunks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Floor {
    value: Option<Duration>,
    seen: Option<Instant>,
    chunk: Option<Chunk>,
}

#[derive(Clone, Copy, Debug)]
struct Chunk {
    since: Instant,
    sum: Duration,
    count: u32,
}

impl Floor {
    /// Takes the delay of one packet in; the mean of a chunk that it completes.
    pub(crate) fn sample(&mut self, now: Instant, delay: Duration) -> Option<Duration> {
        let chunk = self.chunk.get_or_insert(Chunk { since: now, sum: Duration::ZERO, count: 0 });
        chunk.sum += delay;
        chunk.count += 1;
        let Some(value) = self.value else {
            // One sample is better than none.
            (self.value, self.seen) = (Some(delay), Some(now));
            return None;
        };
        let lasted = now.saturating_duration_since(chunk.since);
        if chunk.count < CHUNK || lasted < value / CHUNK_PART {
            return None;
        }
        let mean = chunk.sum / chunk.count;
        self.chunk = None;
        if mean * 100 <= value * SAME_PERCENT {
            self.seen = Some(now);
        }
        self.value = Some(value.min(mean));
        Some(mean)
    }

    pub(crate) fn value(&self) -> Option<Duration> {
        self.value
    }

    /// How long it was not seen.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        self.seen.map_or(Duration::ZERO, |seen| now.saturating_duration_since(seen))
    }

    /// The path has another floor.
    pub(crate) fn replace(&mut self, now: Instant, value: Duration) {
        (self.value, self.seen) = (Some(value), Some(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greatest_is_forgotten_in_time() {
        let mut rates = Greatest::new(3);
        assert_eq!(rates.value(), 0);
        for (tick, value, greatest) in
            [(1, 5, 5), (1, 7, 7), (1, 6, 7), (2, 4, 7), (3, 2, 7), (4, 3, 4), (5, 1, 3), (9, 1, 1)]
        {
            rates.push(tick, value);
            assert_eq!(rates.value(), greatest, "at {tick}");
            assert!(rates.kept.len() <= 3);
        }
    }

    #[test]
    fn a_floor_is_a_mean_and_not_one_lucky_packet() {
        let start = Instant::now();
        let mut floor = Floor::default();
        let ms = Duration::from_millis;
        for i in 0..80 {
            floor.sample(start + ms(i * 10), ms(if i % 4 == 3 { 60 } else { 100 }));
        }
        assert_eq!(floor.value(), Some(ms(90)));
        assert!(floor.age(start + ms(800)) < ms(100));
        floor.replace(start + ms(800), ms(150));
        assert_eq!(floor.value(), Some(ms(150)));
    }
}
