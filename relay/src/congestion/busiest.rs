//! The most that was delivered within a second.
//!
//! A path carries at least that, however the acknowledgements came, as long as they were not held
//! up for longer. It says little of a path on which little was sent. Paths change: what was is
//! forgotten after a minute in which something was sent.

use std::time::{Duration, Instant};

use super::filter::Greatest;

const WITHIN: Duration = Duration::from_secs(1);
/// So many seconds in which something was delivered are remembered.
const SPAN: u64 = 60;

#[derive(Clone, Debug)]
pub(super) struct Busiest {
    begun: Option<Instant>,
    bytes: u64,
    /// Seconds in which something was delivered.
    busy: u64,
    most: Greatest,
}

impl Default for Busiest {
    fn default() -> Busiest {
        Busiest { begun: None, bytes: 0, busy: 0, most: Greatest::new(SPAN) }
    }
}

impl Busiest {
    pub(super) fn on_acked(&mut self, now: Instant, bytes: u64) {
        let is_within = |begun| now.saturating_duration_since(begun) < WITHIN;
        if !self.begun.is_some_and(is_within) {
            (self.begun, self.bytes) = (Some(now), 0);
            self.busy += 1;
        }
        self.bytes += bytes;
        self.most.push(self.busy, self.bytes);
    }

    /// In bytes a second.
    pub(super) fn rate(&self) -> u64 {
        self.most.value()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_second_counts() {
        let mut busiest = Busiest::default();
        let start = Instant::now();
        let mut acked = |millis, bytes| {
            busiest.on_acked(start + Duration::from_millis(millis), bytes);
            busiest.rate()
        };
        assert_eq!([acked(0, 10), acked(999, 20)], [10, 30]);
        assert_eq!([acked(1_000, 25), acked(1_500, 10), acked(9_000, 1)], [30, 35, 35]);
        let later = (10..80).map(|second| acked(second * 1_000, 2)).last();
        assert_eq!(later, Some(2), "it is slower now");
    }
}
