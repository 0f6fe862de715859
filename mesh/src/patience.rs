//! [`Patience`]: how long news waits for more of it before it is told.
//!
//! While news keeps coming the wait doubles from one telling to the next, up to [`LONGEST_WAIT`]
//! times the least one: many hosts that answer over seconds would else be told of in hundreds of
//! reports. After a pause it begins anew, so that a lone answer is as quick as ever.
//!
//! And nobody waits for what does not come: when nothing has come for [`CEASED`] times as long as
//! it took lately from one piece of news to the next, what is there is told at once. So one host
//! that never answers does not hold up the last words of all the others.

use std::time::Duration;

use crate::Time;

/// How many times the least wait news waits for more of it at most.
pub const LONGEST_WAIT: u32 = 32;
/// News has ceased after so many times its mean distance. Of news that comes at random times one
/// piece in thirty or so is followed by such a gap.
const CEASED: u32 = 4;
/// A new distance counts one in so many towards the mean, so that a tail has its own.
const MEMORY: u32 = 8;

/// When to tell news of one kind, of which some has come.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    least: Duration,
    wait: Duration,
    /// When the wait is over.
    over: Time,
    /// When the last news of this series came, and how far it is lately from one to the next.
    last: Time,
    distance: Option<Duration>,
}

impl Patience {
    /// The first news has come; `least` is how long it waits for more at least.
    pub fn new(now: Time, least: Duration) -> Patience {
        Patience { least, wait: least, over: now + least, last: now, distance: None }
    }

    /// More news has come. `grows`: whether it may wait for longer than what was told before.
    pub fn hear(&mut self, now: Time, grows: bool) {
        let told = self.due();
        if told <= now {
            let wait = self.wait * 2;
            if !grows || told + wait <= now {
                *self = Patience::new(now, self.least);
                return;
            }
            self.wait = wait.min(self.least * LONGEST_WAIT);
            self.over = now + self.wait;
        }
        let one = now.since(self.last);
        let mean = |before: Duration| (before * (MEMORY - 1) + one) / MEMORY;
        (self.last, self.distance) = (now, Some(self.distance.map_or(one, mean)));
    }

    /// When to tell what has come, if nothing more does.
    pub fn due(&self) -> Time {
        let Some(distance) = self.distance else { return self.over };
        self.over.min(self.last + (distance * CEASED).max(self.least))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: Duration = Duration::from_millis(10);

    fn at(ms: u64) -> Time {
        Time::ZERO + Duration::from_millis(ms)
    }

    /// When news is told that comes at these times.
    fn told(news: impl IntoIterator<Item = u64>, grows: bool) -> Vec<u64> {
        let (mut patience, mut told) = (None::<Patience>, Vec::new());
        let ms = |time: Time| time.since(Time::ZERO).as_millis() as u64;
        for now in news {
            let before = patience.map(|patience| patience.due());
            told.extend(before.filter(|due| *due <= at(now)).map(ms));
            match &mut patience {
                Some(patience) => patience.hear(at(now), grows),
                None => patience = Some(Patience::new(at(now), LEAST)),
            }
        }
        told.extend(patience.map(|patience| ms(patience.due())));
        told
    }

    #[test]
    fn the_wait_grows_while_news_keeps_coming_and_no_further_than_the_longest() {
        assert_eq!(told(0..1_300, true)[..8], [10, 30, 70, 150, 310, 630, 950, 1_270]);
        assert_eq!(told(0..60, false), [10, 20, 30, 40, 50, 60]);
    }

    #[test]
    fn after_a_pause_all_begins_anew() {
        let news = (0..=100).chain([5_000]);
        assert_eq!(told(news, true), [10, 30, 70, 110, 5_010]);
    }

    #[test]
    fn news_that_has_ceased_is_told_at_once() {
        // One each 5 ms: the last wait would be over at 630, and after 20 ms nothing will come.
        let news = (0..=400).step_by(5);
        assert_eq!(told(news, true), [10, 30, 70, 150, 310, 420]);
        // A lone gap costs one telling more, and the wait goes on to grow behind it.
        let news = (0..=180).step_by(5).chain((210..=600).step_by(5));
        assert_eq!(told(news, true), [10, 30, 70, 150, 200, 530, 620]);
    }

    #[test]
    fn a_thin_tail_of_much_news_is_not_told_piece_by_piece() {
        let told = told((0..500).chain((500..4_500).step_by(40)), true);
        let tail = told.iter().filter(|at| **at > 600).count();
        assert!((13..20).contains(&tail), "{told:?}");
    }

    #[test]
    fn rare_news_waits_no_longer_than_before() {
        // One each 100 ms is each told by itself: what comes is no more than a pause later.
        assert_eq!(told((0..=300).step_by(100), true), [10, 110, 210, 310]);
        assert_eq!(told([0, 5], true), [10]);
    }
}
