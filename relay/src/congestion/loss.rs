//! Loss, sorted by what the sender was doing: is it the link's nature, or our own doing?
//!
//! A bad radio link loses one packet in fifty whether we send much or little. A full buffer or a
//! policer loses more, the more we send. So losses are counted apart for packets that were sent in
//! a trough, in cruise and on a crest of the sending rate, and only what *grows* with the rate is
//! taken for congestion; heavy loss is tried out with half of the window now and then. (BBRv2 and
//! BBRv3, draft-ietf-ccwg-bbr, react to any loss above 2 % instead, which starves them on the
//! links that this program is for.)

use super::sampling::Load;

/// Packets after which older ones count half.
const MEMORY: f64 = 1_000.0;
/// Loss in excess of this, in parts of one, is no accident.
const MARGIN: f64 = 0.02;
/// More than this is worth a trial, and so many packets are a sample.
const HEAVY: f64 = 0.12;
const SAMPLE: f64 = 200.0;
/// Fewer lost packets than this prove nothing.
const LEAST_LOST: f64 = 4.0;

/// Packets and how many of them were lost, the older ones counting less.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Count {
    sent: f64,
    lost: f64,
}

impl Count {
    fn add(&mut self, acked: f64, lost: f64) {
        self.sent += acked + lost;
        self.lost += lost;
        if self.sent > MEMORY {
            self.sent /= 2.0;
            self.lost /= 2.0;
        }
    }

    /// The part that was lost.
    pub(crate) fn part(&self) -> f64 {
        if self.sent > 0.0 { self.lost / self.sent } else { 0.0 }
    }

    /// Whether so many more were lost than `usual` that chance does not explain it: two standard
    /// deviations of a binomial distribution and the margin on top.
    fn exceeds(&self, usual: f64) -> bool {
        let expected = self.sent * usual;
        let spread = (expected * (1.0 - usual)).max(1.0).sqrt();
        self.lost >= LEAST_LOST && self.lost > expected + 2.0 * spread + self.sent * MARGIN
    }
}

/// The losses of a path.
#[derive(Clone, Debug, Default)]
pub(crate) struct Losses {
    trough: Count,
    cruise: Count,
    /// Since the crest began.
    crest: Count,
    /// Since the trial began.
    trial: Count,
    /// Since the round began.
    round: Count,
    /// Of the last packets in cruise and troughs.
    recent: Count,
}

impl Losses {
    pub(crate) fn acked(&mut self, load: Load, packets: f64) {
        self.add(load, packets, 0.0);
    }

    pub(crate) fn lost(&mut self, load: Load, packets: f64) {
        self.add(load, 0.0, packets);
    }

    fn add(&mut self, load: Load, acked: f64, lost: f64) {
        self.count(load).add(acked, lost);
        self.round.add(acked, lost);
        if matches!(load, Load::Cruise | Load::Trough) {
            self.recent.add(acked, lost);
        }
    }

    fn count(&mut self, load: Load) -> &mut Count {
        match load {
            Load::Trough => &mut self.trough,
            Load::Cruise => &mut self.cruise,
            Load::Crest => &mut self.crest,
            Load::Trial => &mut self.trial,
        }
    }

    pub(crate) fn begin_round(&mut self) {
        self.round = Count::default();
    }

    pub(crate) fn begin_trial(&mut self) {
        self.trial = Count::default();
    }

    /// The part that was lost in a trial, once it has lasted long enough.
    pub(crate) fn tried(&self) -> Option<f64> {
        (self.trial.sent >= SAMPLE).then(|| self.trial.part())
    }

    /// The part that was lost of the last packets, if that is more than a link should lose. To be
    /// asked each round; the answer comes once for so many packets.
    pub(crate) fn heavy(&mut self) -> Option<f64> {
        if self.recent.sent < SAMPLE {
            return None;
        }
        let recent = std::mem::take(&mut self.recent);
        recent.exceeds(HEAVY).then(|| recent.part())
    }

    pub(crate) fn begin_crest(&mut self) {
        self.crest = Count::default();
    }

    /// The part that the link loses whatever we do.
    pub(crate) fn usual(&self) -> f64 {
        let all = self.trough.sent + self.cruise.sent;
        if all > 0.0 { (self.trough.lost + self.cruise.lost) / all } else { 0.0 }
    }

    /// Whether the crest loses more than the path usually does.
    pub(crate) fn crest_exceeds(&self) -> bool {
        self.crest.exceeds(self.usual())
    }

    /// Whether cruise loses more than troughs do.
    pub(crate) fn grows_with_rate(&self) -> bool {
        // The trough is known badly, so it is given what it might have lost unseen.
        let trough = (self.trough.lost + 1.0) / (self.trough.sent + 2.0);
        let unsure = 2.0 * (trough * (1.0 - trough) / (self.trough.sent + 2.0)).sqrt();
        self.cruise.sent > 100.0 && self.cruise.exceeds(trough + unsure)
    }

    /// Whether this round loses more than the path usually does.
    pub(crate) fn round_exceeds(&self) -> bool {
        self.round.exceeds(self.usual())
    }

    /// Whether this round has lost at least this part, and not just a few packets.
    pub(crate) fn round_above(&self, part: f64) -> bool {
        self.round.lost >= 2.0 * LEAST_LOST && self.round.part() > part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(trough: (u32, u32), cruise: (u32, u32), crest: (u32, u32)) -> (bool, bool) {
        let mut losses = Losses::default();
        for (load, (acked, lost)) in
            [(Load::Trough, trough), (Load::Cruise, cruise), (Load::Crest, crest)]
        {
            losses.acked(load, f64::from(acked));
            losses.lost(load, f64::from(lost));
        }
        (losses.grows_with_rate(), losses.crest_exceeds())
    }

    #[test]
    fn loss_that_does_not_grow_is_the_links_nature() {
        assert_eq!(check((300, 3), (900, 9), (120, 2)), (false, false));
        assert_eq!(check((270, 30), (810, 90), (108, 14)), (false, false));
        assert_eq!(check((40, 0), (495, 5), (60, 3)), (false, false));
    }

    #[test]
    fn loss_that_grows_is_congestion() {
        // A policer: nothing below its rate, one in twenty above.
        assert_eq!(check((300, 0), (855, 45), (100, 20)), (true, true));
        // A short buffer on a lossy link: only the crest spills.
        assert_eq!(check((297, 3), (891, 9), (100, 18)), (false, true));
    }

    #[test]
    fn old_losses_fade() {
        let mut losses = Losses::default();
        losses.lost(Load::Cruise, 200.0);
        for _ in 0..8_000 {
            losses.acked(Load::Cruise, 1.0);
        }
        assert!(losses.usual() < 0.01, "{}", losses.usual());
    }
}
