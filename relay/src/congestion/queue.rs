//! Whose queue is it? What the delays of one cycle after the other tell of others on the path.
//!
//! Each cycle has a trough in which our own queue is gone. If the delay does not come down then,
//! there is a crowd of our own kind (the queue stays short, and all should ask for less), a rival
//! that fills queues (it becomes long and moves), or the path has become longer (it does not move
//! at all, whatever we do).

use std::time::Duration;

/// Ten times the delay, as part of the floor, up to which the queue counts as empty, and above
/// which it is longer than any queue of our own kind.
const EMPTY: u32 = 11;
const LONG: u32 = 13;
/// Ten times what a delay may vary on top of that.
const SLACK: Duration = Duration::from_millis(20);
/// A floor that was not seen for so long may rise, and one for so long is given up.
const FLOOR_OLD: Duration = Duration::from_secs(10);
const FLOOR_GONE: Duration = Duration::from_secs(120);
/// Cycles with an empty queue in a row, after which the floor may rise by a little.
const CALM: u32 = 8;
/// Cycles in a row that must not empty the queue before it is a rival's; fewer if the rate that we
/// get has fallen meanwhile.
const STANDING: u32 = 3;
const STANDING_SLOWED: u32 = 2;
/// Percent by which the delay of a path varies within a cycle without a queue: bursts are ten
/// packets; and percent by which its least varies from cycle to cycle.
const FLAT_WITHIN: u32 = 6;
const FLAT_BETWEEN: u32 = 1;
/// So many cycles the delay must be flat to be the path's; more beside a rival, since its queue is
/// often equally long when we look.
const SAME: u32 = 2;
const SAME_RIVAL: u32 = 3;

/// What a cycle has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The queue is ours.
    Empty,
    /// The floor is higher than believed.
    Risen,
    /// Others like us are there.
    Crowd,
    /// A long queue, but not for long enough.
    Unclear,
    /// Somebody else keeps it full.
    Rival,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    pub(crate) verdict: Verdict,
    /// The least delay of the cycle.
    pub(crate) least: Duration,
}

/// What is known of the queue.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Queue {
    /// The least and the greatest delay of this cycle.
    least: Option<Duration>,
    peak: Duration,
    /// The least of the cycle before, and for how many cycles it has been the same.
    before: Option<Duration>,
    same: u32,
    /// For how many cycles it did not empty, and whether it was long in one of them.
    standing: u32,
    long: bool,
    /// For how many cycles it did empty.
    calm: u32,
    /// Whether the rate was given up for a lower one since it last emptied.
    slowed: bool,
    /// The window when it last emptied.
    window: u64,
}

impl Queue {
    /// Takes one delay in, a mean over some packets.
    pub(crate) fn saw(&mut self, delay: Duration) {
        self.least = Some(self.least.map_or(delay, |least| least.min(delay)));
        self.peak = self.peak.max(delay);
    }

    /// Judges the cycle that ends now; the floor was not seen for `age`.
    pub(crate) fn judge(&mut self, floor: Duration, age: Duration, beside: bool) -> Option<View> {
        let least = self.least.take()?;
        let peak = std::mem::take(&mut self.peak);
        let verdict = if least * 10 <= floor * EMPTY + SLACK {
            self.calm += 1;
            if age > FLOOR_OLD && self.calm >= CALM { Verdict::Risen } else { Verdict::Empty }
        } else {
            self.calm = 0;
            self.judge_standing(least, peak, floor, age, beside)
        };
        Some(View { verdict, least })
    }

    fn judge_standing(
        &mut self,
        least: Duration,
        peak: Duration,
        floor: Duration,
        age: Duration,
        beside: bool,
    ) -> Verdict {
        let long = peak * 10 > floor * LONG + SLACK;
        self.standing += 1;
        self.long |= long;
        let flat = peak * 100 <= least * (100 + FLAT_WITHIN);
        let same = self
            .before
            .replace(least)
            .is_some_and(|before| before.abs_diff(least) * 100 <= least * FLAT_BETWEEN);
        self.same = match (flat || beside, same) {
            (true, true) => self.same + 1,
            (true, false) => 1,
            (false, _) => 0,
        };
        let enough = if beside { SAME_RIVAL } else { SAME };
        let sure = if self.slowed { STANDING_SLOWED } else { STANDING };
        if self.same >= enough || age > FLOOR_GONE {
            Verdict::Risen
        } else if self.long && self.standing >= sure && !flat && !beside {
            Verdict::Rival
        } else if long {
            Verdict::Unclear
        } else {
            Verdict::Crowd
        }
    }

    /// It was empty, or what it was made of has gone.
    pub(crate) fn emptied(&mut self, window: u64) {
        *self = Queue { window, calm: self.calm, ..Queue::default() };
    }

    pub(crate) fn window(&self) -> u64 {
        self.window
    }

    pub(crate) fn slowed(&self) -> bool {
        self.slowed
    }

    pub(crate) fn set_slowed(&mut self) {
        self.slowed = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The verdicts over cycles of these least and greatest delays, above a floor of 100 ms.
    #[track_caller]
    fn check(cycles: &[(u64, u64)], verdicts: &[Verdict]) {
        let (ms, mut queue) = (Duration::from_millis, Queue::default());
        let mut beside = false;
        let got: Vec<Verdict> = cycles
            .iter()
            .map(|(least, peak)| {
                queue.saw(ms(*peak));
                queue.saw(ms(*least));
                let view = queue.judge(ms(100), ms(1_000), beside).expect("it saw two");
                assert_eq!(view.least, ms(*least));
                beside |= view.verdict == Verdict::Rival;
                if matches!(view.verdict, Verdict::Empty | Verdict::Risen) {
                    queue.emptied(0);
                    beside = false;
                }
                view.verdict
            })
            .collect();
        assert_eq!(got, verdicts);
    }

    #[test]
    fn ours_a_crowds_or_a_rivals() {
        use Verdict::{Crowd, Empty, Risen, Rival, Unclear};
        check(&[(100, 130), (101, 150)], &[Empty, Empty]);
        check(&[(115, 128), (118, 130), (105, 120)], &[Crowd, Crowd, Empty]);
        check(
            &[(120, 150), (140, 180), (150, 190), (160, 199), (102, 140)],
            &[Unclear, Unclear, Rival, Unclear, Empty],
        );
        // Longer by half: it never moves.
        check(&[(105, 155), (150, 153), (150, 154)], &[Empty, Unclear, Risen]);
        // Taken for a rival first.
        check(
            &[(130, 160), (140, 170), (150, 180), (150, 400), (150, 500), (150, 600)],
            &[Unclear, Unclear, Rival, Unclear, Unclear, Risen],
        );
    }

    #[test]
    fn nothing_seen_is_nothing_known() {
        assert!(Queue::default().judge(Duration::ZERO, Duration::ZERO, false).is_none());
    }
}
