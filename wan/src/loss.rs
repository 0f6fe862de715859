//! Which packets a link loses.
//!
//! Bursts are a Gilbert-Elliott chain (Gilbert 1960, Elliott 1963) of a good state that loses
//! nothing and a bad one that loses everything: the run lengths of losses are geometric with the
//! mean that was asked for, and the share of lost packets is the one that was asked for.

use rand::RngExt;
use rand::rngs::SmallRng;

/// How packets are lost on the wire. Loss takes a packet that has already used up its share of the
/// rate, as a radio link does, so that the most that can come through is (1 - loss) of the rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Loss {
    /// Nothing is lost.
    None,
    /// Each packet on its own, with this probability, 0 to 1.
    Random(f64),
    /// In bursts.
    Bursts {
        /// The share of packets that is lost in the long run, 0 to 0.5.
        share: f64,
        /// Lost packets in a row, on average; at least 1.
        mean: f64,
    },
}

impl Loss {
    /// The share of packets that is lost in the long run.
    pub fn share(self) -> f64 {
        match self {
            Loss::None => 0.0,
            Loss::Random(share) | Loss::Bursts { share, .. } => share,
        }
    }

    /// Whether its numbers make sense.
    pub(super) fn is_sound(self) -> bool {
        match self {
            Loss::None => true,
            Loss::Random(share) => (0.0..=1.0).contains(&share),
            Loss::Bursts { share, mean } => {
                (0.0..=0.5).contains(&share) && mean.is_finite() && mean >= 1.0
            }
        }
    }
}

/// The state of the chain.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Chain {
    is_bad: bool,
}

impl Chain {
    /// Decides over the next packet.
    pub(super) fn loses(&mut self, loss: Loss, rng: &mut SmallRng) -> bool {
        let mut chance = |share: f64| rng.random_range(0.0..1.0) < share;
        match loss {
            Loss::None => false,
            Loss::Random(share) => chance(share),
            Loss::Bursts { share, mean } => {
                // In balance the chain leaves the bad state as often as it enters it:
                // share / mean = (1 - share) * enter. With share <= 0.5 and mean >= 1 this is at
                // most 1.
                let leave = 1.0 / mean;
                let enter = share * leave / (1.0 - share);
                self.is_bad = match self.is_bad {
                    true => !chance(leave),
                    false => chance(enter),
                };
                self.is_bad
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;

    use super::*;

    const PACKETS: usize = 200_000;

    /// The share that is lost and the mean length of a run of losses.
    fn measured(loss: Loss, seed: u64) -> (f64, f64) {
        let (mut chain, mut rng) = (Chain::default(), SmallRng::seed_from_u64(seed));
        let (mut lost, mut runs, mut before) = (0_u32, 0_u32, false);
        for _ in 0..PACKETS {
            let now = chain.loses(loss, &mut rng);
            lost += u32::from(now);
            runs += u32::from(now && !before);
            before = now;
        }
        (f64::from(lost) / PACKETS as f64, f64::from(lost) / f64::from(runs.max(1)))
    }

    #[test]
    fn nothing_and_everything() {
        assert_eq!(measured(Loss::None, 1).0, 0.0);
        assert_eq!(measured(Loss::Random(1.0), 1).0, 1.0);
        assert_eq!(measured(Loss::Bursts { share: 0.0, mean: 6.0 }, 1).0, 0.0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn random_loss_is_the_share_asked_for(share in 0.001..0.5_f64, seed: u64) {
            let (got, run) = measured(Loss::Random(share), seed);
            // Six standard deviations of a binomial distribution.
            let slack = 6.0 * (share * (1.0 - share) / PACKETS as f64).sqrt();
            prop_assert!((got - share).abs() < slack, "{got} for {share}");
            prop_assert!((run - 1.0 / (1.0 - share)).abs() < 0.25, "runs of {run} for {share}");
        }

        #[test]
        fn bursts_are_as_frequent_and_as_long_as_asked(
            share in 0.005..0.3_f64,
            mean in 1.0..20.0_f64,
            seed: u64,
        ) {
            let (got, run) = measured(Loss::Bursts { share, mean }, seed);
            // Losses come in about share * n / mean independent runs of a geometric length.
            let runs = share * PACKETS as f64 / mean;
            let slack = 6.0 * (2.0 / runs).sqrt();
            prop_assert!((got / share - 1.0).abs() < slack, "{got} for {share}, {mean}");
            prop_assert!((run / mean - 1.0).abs() < slack, "runs of {run} for {mean}");
        }
    }
}
