//! Heavy loss on trial: does it go away with half of the window?
//!
//! Loss that does not grow from trough to cruise may still be ours, if even a trough is too much
//! for a very short buffer; nothing but a much smaller window can tell. If the loss stays, it is
//! the link's own, and believed for a while, so that a trial costs little on a link that is bad.

use super::loss::Losses;

/// The part of the window that a trial leaves.
const WINDOW: f64 = 0.5;
/// If less than this part of the loss remains, it was ours, and this part of the window is kept.
const LEFT: f64 = 0.7;
const KEPT: f64 = 0.75;
/// Round trips for which a link is believed.
const BELIEVED: u64 = 300;

/// The trials of one path.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trials {
    /// The part that was lost when the trial began, and the window then.
    running: Option<(f64, u64)>,
    /// Until this round heavy loss is the link's own.
    acquitted: u64,
}

/// What follows for the bytes in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// A trial begins: no more than this.
    Begun(u64),
    /// The loss was ours: no more than this from now on.
    Guilty(u64),
    /// It was not: no bound.
    Acquitted,
}

impl Trials {
    pub(crate) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub(crate) fn stop(&mut self) {
        self.running = None;
    }

    /// To be called each round; a trial begins only if it `may`.
    pub(crate) fn look(
        &mut self,
        losses: &mut Losses,
        round: u64,
        window: u64,
        may: bool,
    ) -> Option<Finding> {
        if let Some((blamed, before)) = self.running {
            let left = losses.tried()?;
            self.running = None;
            if left < blamed * LEFT {
                return Some(Finding::Guilty((before as f64 * KEPT) as u64));
            }
            self.acquitted = round + BELIEVED;
            return Some(Finding::Acquitted);
        }
        let blamed = losses.heavy().filter(|_| may && round >= self.acquitted)?;
        losses.begin_trial();
        self.running = Some((blamed, window));
        Some(Finding::Begun((window as f64 * WINDOW) as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::super::sampling::Load;
    use super::*;

    fn lose(losses: &mut Losses, load: Load, percent: f64) {
        losses.acked(load, 400.0 - 4.0 * percent);
        losses.lost(load, 4.0 * percent);
    }

    #[test]
    fn what_goes_away_was_ours_and_what_stays_is_believed() {
        let (mut trials, mut losses) = (Trials::default(), Losses::default());
        lose(&mut losses, Load::Cruise, 10.0);
        assert_eq!(trials.look(&mut losses, 1, 1_000, true), None);
        lose(&mut losses, Load::Cruise, 30.0);
        assert_eq!(trials.look(&mut losses, 2, 1_000, true), Some(Finding::Begun(500)));
        assert_eq!(trials.look(&mut losses, 3, 500, true), None);
        lose(&mut losses, Load::Trial, 5.0);
        assert_eq!(trials.look(&mut losses, 4, 500, true), Some(Finding::Guilty(750)));
        lose(&mut losses, Load::Cruise, 30.0);
        assert_eq!(trials.look(&mut losses, 5, 1_000, true), Some(Finding::Begun(500)));
        lose(&mut losses, Load::Trial, 30.0);
        assert_eq!(trials.look(&mut losses, 6, 500, true), Some(Finding::Acquitted));
        lose(&mut losses, Load::Cruise, 30.0);
        assert_eq!(trials.look(&mut losses, 7, 1_000, true), None);
        lose(&mut losses, Load::Cruise, 30.0);
        assert_eq!(trials.look(&mut losses, 306, 1_000, true), Some(Finding::Begun(500)));
    }
}
