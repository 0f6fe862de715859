//! What to do beside a flow that fills queues: be like it, for as long as it is there.
//!
//! A sender that never queues gets nothing beside one that does (Copa, NSDI 2018, section 2.2, has
//! the argument and the remedy: a competitive mode for as long as the queue does not empty). The
//! mode here is CUBIC, RFC 9438, since that is what nearly every rival is: growth by a cubic
//! function of the time since the last loss, with its region that is friendly to Reno.

use std::time::{Duration, Instant};

/// RFC 9438, section 4: growth in packets for the cube of a second.
const C: f64 = 0.4;
/// What remains after a loss. More than the 0.7 of the RFC, and so is the growth of the friendly
/// region (in packets a round trip, 0.53 there), because each loss also costs us a trough.
const BETA: f64 = 0.85;
const RENO: f64 = 1.0;

/// The window of a rival that is as strong as the one that we share the queue with.
#[derive(Clone, Debug)]
pub(crate) struct Cubic {
    /// In packets, all of them.
    window: f64,
    greatest: f64,
    reno: f64,
    /// Seconds from the last loss to the greatest window, the K of the RFC.
    rise: f64,
    since: Instant,
}

impl Cubic {
    /// A flow that has `window` bytes in flight now and had `greatest` before the rival came.
    pub(crate) fn new(now: Instant, window: u64, greatest: u64, mtu: u64) -> Cubic {
        let (window, greatest) = (window as f64 / mtu as f64, greatest as f64 / mtu as f64);
        let greatest = greatest.max(window);
        Cubic { window, greatest, reno: window, rise: rise(window, greatest), since: now }
    }

    /// Once a round trip.
    pub(crate) fn grow(&mut self, now: Instant, rtt: Duration) {
        let time = (now.saturating_duration_since(self.since) + rtt).as_secs_f64();
        let cubic = self.greatest + C * (time - self.rise).powi(3);
        self.reno += RENO;
        // Not by more than half in one round trip (section 4.2 of the RFC).
        self.window = cubic.max(self.reno).clamp(self.window, self.window * 1.5);
    }

    /// At most once a round trip.
    pub(crate) fn shrink(&mut self, now: Instant) {
        // A greatest that falls from loss to loss makes room for newcomers (section 4.7).
        self.greatest = if self.window < self.greatest {
            self.window * (1.0 + BETA) / 2.0
        } else {
            self.window
        };
        self.window *= BETA;
        self.rise = rise(self.window, self.greatest);
        self.reno = self.window;
        self.since = now;
    }

    /// In bytes.
    pub(crate) fn window(&self, mtu: u64) -> u64 {
        (self.window * mtu as f64) as u64
    }

    /// Not beyond this, in bytes.
    pub(crate) fn bound(&mut self, most: u64, mtu: u64) {
        self.window = self.window.min(most as f64 / mtu as f64);
        self.reno = self.reno.min(self.window);
    }
}

/// How many seconds the cubic function takes from a window to the greatest.
fn rise(window: f64, greatest: f64) -> f64 {
    ((greatest - window) / C).max(0.0).cbrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_costs_a_part_and_the_window_comes_back() {
        let (start, rtt) = (Instant::now(), Duration::from_millis(100));
        let mut cubic = Cubic::new(start, 100_000, 0, 1_000);
        cubic.shrink(start);
        assert_eq!(cubic.window(1_000), 85_000);
        let mut rounds = 0;
        while cubic.window(1_000) < 100_000 {
            rounds += 1;
            assert!(rounds < 100);
            cubic.grow(start + rtt * rounds, rtt);
        }
        // The cube root of 100 * 0.15 / 0.4 is 3.3 seconds; by one packet a round it takes 1.5.
        assert!((14..=16).contains(&rounds), "{rounds}");
        cubic.shrink(start + rtt * rounds);
        cubic.shrink(start + rtt * (rounds + 1));
        assert!(cubic.window(1_000) < 75_000);
    }

    #[test]
    fn it_grows_from_where_it_starts() {
        let (start, rtt) = (Instant::now(), Duration::from_millis(100));
        let mut cubic = Cubic::new(start, 20_000, 20_000, 1_000);
        for round in 1..=50 {
            cubic.grow(start + rtt * round, rtt);
        }
        let grown = cubic.window(1_000);
        assert!((65_000..90_000).contains(&grown), "{grown}");
    }
}
