//! Giving way: the part of the path that is taken by a sender that wants to be noticed by nobody.
//!
//! As LEDBAT (RFC 6817) does, it looks at the delay: a queue that is not our own means that
//! somebody else wants the link, and a third of what we had is left to him each round trip, until
//! the queue has gone. What is free afterwards is taken again by a tenth each round trip. Unlike
//! with LEDBAT our own queue has no fixed length: it is what the window holds beyond the path. The
//! floor of the delay comes from the troughs of the cycle, as everywhere in this controller.

use std::time::Duration;

/// The least part, so that the end of the queue is seen.
const LEAST: f64 = 0.02;
const SHRINK: f64 = 0.67;
const GROW: f64 = 1.1;
/// A delay counts as somebody's queue if it is longer than our own by this part of the floor, and
/// so much on top.
const QUEUE_PART: u32 = 10;
const SLACK: Duration = Duration::from_millis(4);

/// The part of what the path holds that we take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Part(f64);

impl Default for Part {
    fn default() -> Part {
        Part(1.0)
    }
}

impl Part {
    /// A round trip had this mean delay, or lost more than usual, where we would have made it no
    /// longer than `own` on a path with this floor.
    pub(crate) fn on_round(
        &mut self,
        delay: Duration,
        own: Duration,
        floor: Duration,
        lossy: bool,
    ) {
        let queue = delay > own.max(floor) + floor / QUEUE_PART + SLACK;
        self.0 = match queue || lossy {
            true => (self.0 * SHRINK).max(LEAST),
            false => (self.0 * GROW).min(1.0),
        };
    }

    pub(crate) fn is_whole(self) -> bool {
        self.0 >= 1.0
    }

    pub(crate) fn of(self, bytes: u64) -> u64 {
        (bytes as f64 * self.0) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_is_not_ours_shrinks_the_part_and_calm_restores_it() {
        let mut part = Part::default();
        let round = |part: &mut Part, delay, own, lossy| {
            let [delay, own, floor] = [delay, own, 100].map(Duration::from_millis);
            part.on_round(delay, own, floor, lossy);
        };
        round(&mut part, 119, 105, false);
        assert_eq!((part.of(1_000), part.is_whole()), (1_000, true));
        round(&mut part, 120, 105, false);
        round(&mut part, 100, 50, true);
        assert_eq!((part.of(1_000), part.is_whole()), (448, false));
        (0..20).for_each(|_| round(&mut part, 115, 50, false));
        assert_eq!(part.of(1_000), 20);
        (0..42).for_each(|_| round(&mut part, 114, 50, false));
        assert!(part.is_whole());
    }
}
