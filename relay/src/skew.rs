//! Whether this node's clock agrees with its parent's.
//!
//! Orders are good within five minutes of wrong clocks, so somebody should know long before. A
//! parent says in its beats what time it is; a word that comes late makes its clock look behind,
//! never ahead, and by seconds at most, so that a minute is beyond doubt. Whose clock of the two is
//! wrong cannot be known here: it says of which node to look first.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// So far apart clocks are told of, in seconds, and so close they agree again.
const APART: i64 = 60;
const CLOSE: i64 = 30;
/// So many beats in a row must say so.
const BEATS: u32 = 3;
/// How often it is said again while it lasts.
const AGAIN: Duration = Duration::from_secs(300);
/// After the first beats of a link, which all say the time, each so-manieth does.
const EACH: u64 = 4;

/// Which beats to a child say what time it is. Those of a new link do, so that a wrong clock shows
/// at once; later only some, since each byte counts on a link at rest.
#[derive(Debug, Default)]
pub struct Chime(u64);

impl Chime {
    /// Whether the next beat says it.
    pub fn strikes(&mut self) -> bool {
        self.0 += 1;
        self.0 <= u64::from(BEATS) || self.0.is_multiple_of(EACH)
    }
}

/// What is to be said of the clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// It is ahead of the parent's by so many seconds, or behind.
    Apart(i64),
    /// It agrees again.
    Close,
}

/// What the beats of one parent have said.
#[derive(Default)]
pub(crate) struct Skew {
    apart: u32,
    told: Option<Instant>,
}

/// The time now, in unix seconds.
pub(crate) fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl Skew {
    /// A beat says that it is this time there, while it is that time here. Returns by how much this
    /// clock is ahead, and what is to be said.
    pub(crate) fn hear(&mut self, there: u64, here: u64, now: Instant) -> (i64, Option<Said>) {
        let ahead = i64::try_from(i128::from(here) - i128::from(there)).unwrap_or(i64::MAX);
        if ahead.saturating_abs() <= CLOSE {
            self.apart = 0;
            return (ahead, self.told.take().map(|_| Said::Close));
        }
        if ahead.saturating_abs() < APART {
            return (ahead, None);
        }
        self.apart = self.apart.saturating_add(1);
        let due = self.told.is_none_or(|told| now.duration_since(told) >= AGAIN);
        let say = self.apart >= BEATS && due;
        if say {
            self.told = Some(now);
        }
        (ahead, say.then_some(Said::Apart(ahead)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_apart_for_three_beats_is_said_and_said_again() {
        let (mut skew, start) = (Skew::default(), Instant::now());
        let mut hear = |there: u64, here: u64, after: u64| {
            skew.hear(there, here, start + Duration::from_secs(after))
        };
        assert_eq!(hear(1_000, 1_059, 0), (59, None));
        assert_eq!(hear(1_000, 1_093, 0), (93, None));
        assert_eq!(hear(1_005, 1_098, 5), (93, None));
        assert_eq!(hear(1_010, 1_103, 10), (93, Some(Said::Apart(93))));
        assert_eq!(hear(1_015, 1_108, 15), (93, None), "once is enough");
        assert_eq!(hear(1_310, 1_403, 310), (93, Some(Said::Apart(93))), "while it lasts");
        assert_eq!(hear(1_315, 1_360, 315), (45, None), "neither nor");
        assert_eq!(hear(1_320, 1_349, 320), (29, Some(Said::Close)));
        assert_eq!(hear(1_325, 1_354, 325), (29, None));
        // A parent that says anything at all.
        assert_eq!(hear(u64::MAX, 0, 330).0, i64::MAX);
        assert_eq!(hear(0, u64::MAX, 330).0, i64::MAX);
    }

    #[test]
    fn the_first_beats_say_the_time_and_then_each_fourth() {
        let mut chime = Chime::default();
        let said: Vec<u32> = (1..=13).filter(|_| chime.strikes()).collect();
        assert_eq!(said, [1, 2, 3, 4, 8, 12]);
    }

    #[test]
    fn one_beat_that_came_late_says_nothing() {
        let (mut skew, now) = (Skew::default(), Instant::now());
        for _ in 0..9 {
            assert_eq!(skew.hear(0, 100, now).1, None);
            assert_eq!(skew.hear(95, 100, now), (5, None));
        }
    }
}
