//! The most that was delivered within a second.
//!
//! A path carries at least that, however the acknowledgements came, as long as they were not held
//! up for longer. It says little of a path on which little was sent.

use std::time::{Duration, Instant};

const WITHIN: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, Default)]
pub(super) struct Busiest {
    begun: Option<Instant>,
    bytes: u64,
    most: u64,
}

impl Busiest {
    pub(super) fn on_acked(&mut self, now: Instant, bytes: u64) {
        let is_within = |begun| now.saturating_duration_since(begun) < WITHIN;
        if !self.begun.is_some_and(is_within) {
            (self.begun, self.bytes) = (Some(now), 0);
        }
        self.bytes += bytes;
        self.most = self.most.max(self.bytes);
    }

    /// In bytes a second.
    pub(super) fn rate(&self) -> u64 {
        self.most
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
    }
}
