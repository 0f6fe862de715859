//! What a direction of a link is like, and links with names.

use std::time::Duration;

use thiserror::Error;

use super::Loss;

/// A time during which nothing comes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blackout {
    /// When the first begins, after the start of the link.
    pub from: Duration,
    /// How long it lasts.
    pub length: Duration,
    /// After how long the next one begins, counted from begin to begin. None: there is only one.
    pub every: Option<Duration>,
}

impl Blackout {
    /// Whether it is dark at this time.
    pub fn covers(&self, at: Duration) -> bool {
        let Some(since) = at.checked_sub(self.from) else { return false };
        let since = match self.every.map(|every| every.as_nanos()) {
            Some(every) if every > 0 => since.as_nanos() % every,
            _ => since.as_nanos(),
        };
        since < self.length.as_nanos()
    }

    /// Whether it will never be dark again.
    pub(super) fn is_over(&self, at: Duration) -> bool {
        self.every.is_none() && at >= self.from.saturating_add(self.length)
    }
}

/// What one direction of a link is like.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// Bits a second. None: as fast as it comes.
    pub rate: Option<u64>,
    /// Bytes that may wait for their turn, the packet on its way out included. One packet may
    /// always wait, however large. What comes on top is dropped at the tail.
    pub queue: usize,
    /// From the last bit that leaves to its arrival.
    pub delay: Duration,
    /// At most so much is added to the delay of each packet, evenly distributed. Without
    /// reordering a packet also waits for those before it.
    pub jitter: Duration,
    /// Whether jitter may let a packet overtake another.
    pub reorder: bool,
    /// What is lost on the way.
    pub loss: Loss,
    /// When nothing comes through.
    pub blackouts: Vec<Blackout>,
}

/// A shape whose numbers make no sense.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ShapeError {
    /// A link of no bits a second passes nothing; that is a blackout.
    #[error("a rate of 0 bit/s passes nothing: switch the link off instead")]
    NoRate,
    /// Loss out of range.
    #[error("{0}: loss is a share of 0 to 1, in bursts of 0 to 0.5 and a mean length of 1 or more")]
    Loss(String),
    /// A profile that nobody knows.
    #[error("there is no link profile {name:?}; there are: {}", Profile::NAMES.join(", "))]
    Name {
        /// What was asked for.
        name: String,
    },
}

impl Shape {
    /// A direction without limits.
    pub fn open() -> Shape {
        Shape {
            rate: None,
            queue: usize::MAX,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            reorder: false,
            loss: Loss::None,
            blackouts: Vec::new(),
        }
    }

    /// A rate in bits a second, half of a round trip, and a queue of what the link holds in one
    /// whole round trip.
    fn of(rate: u64, round_trip: Duration, loss: Loss) -> Shape {
        Shape {
            rate: Some(rate),
            queue: bytes_in(rate, round_trip),
            delay: round_trip / 2,
            loss,
            ..Shape::open()
        }
    }

    /// Whether its numbers make sense.
    ///
    /// # Errors
    /// The first number that does not.
    pub fn check(&self) -> Result<(), ShapeError> {
        if self.rate == Some(0) {
            return Err(ShapeError::NoRate);
        }
        match self.loss.is_sound() {
            true => Ok(()),
            false => Err(ShapeError::Loss(format!("{:?}", self.loss))),
        }
    }
}

/// What a rate carries in some time, in whole bytes.
fn bytes_in(rate: u64, time: Duration) -> usize {
    let bytes = u128::from(rate) * time.as_nanos() / 8_000_000_000;
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// Both directions of a link. Down is towards the site.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// Towards the site.
    pub down: Shape,
    /// From the site.
    pub up: Shape,
}

impl Profile {
    /// The names that [`Profile::named`] knows.
    pub const NAMES: [&str; 9] =
        ["lan", "clean10", "weak", "veryweak", "mid50", "long50", "geo", "breaky", "shallow"];

    /// The same both ways.
    pub fn even(shape: Shape) -> Profile {
        Profile { down: shape.clone(), up: shape }
    }

    /// A link by name. All have a queue of one round trip at full rate unless said otherwise:
    ///
    /// | name | rate | round trip | loss, each way | |
    /// |---|---|---|---|---|
    /// | `lan` | 1 Gbit/s | 0.2 ms | | 512 KiB of queue |
    /// | `clean10` | 10 Mbit/s | 100 ms | | |
    /// | `weak` | 10 Mbit/s | 100 ms | 1 % | |
    /// | `veryweak` | 2 Mbit/s | 300 ms | 3 % | |
    /// | `mid50` | 50 Mbit/s | 100 ms | 0.1 % | |
    /// | `long50` | 50 Mbit/s | 300 ms | 0.1 % | |
    /// | `geo` | 4 down, 1 up Mbit/s | 600 ms | 1 %, six in a row on average | |
    /// | `breaky` | 10 Mbit/s | 100 ms | 1 % | dark for 20 s each minute, and once for 10 minutes |
    /// | `shallow` | 10 Mbit/s | 100 ms | 1 % | 30 ms of queue |
    ///
    /// # Errors
    /// There is none of that name; the message lists those that are.
    pub fn named(name: &str) -> Result<Profile, ShapeError> {
        const MBIT: u64 = 1_000_000;
        let ms = Duration::from_millis;
        let weak = Shape::of(10 * MBIT, ms(100), Loss::Random(0.01));
        let profile = match name {
            "lan" => {
                let shape = Shape::of(1000 * MBIT, Duration::from_micros(200), Loss::None);
                Profile::even(Shape { queue: 512 << 10, ..shape })
            }
            "clean10" => Profile::even(Shape { loss: Loss::None, ..weak }),
            "weak" => Profile::even(weak),
            "veryweak" => Profile::even(Shape::of(2 * MBIT, ms(300), Loss::Random(0.03))),
            "mid50" => Profile::even(Shape::of(50 * MBIT, ms(100), Loss::Random(0.001))),
            "long50" => Profile::even(Shape::of(50 * MBIT, ms(300), Loss::Random(0.001))),
            "geo" => {
                let loss = Loss::Bursts { share: 0.01, mean: 6.0 };
                let of = |rate| Shape::of(rate * MBIT, ms(600), loss);
                Profile { down: of(4), up: of(1) }
            }
            "breaky" => {
                let blackout = |from, length, every: Option<u64>| Blackout {
                    from: Duration::from_secs(from),
                    length: Duration::from_secs(length),
                    every: every.map(Duration::from_secs),
                };
                let blackouts = vec![blackout(30, 20, Some(60)), blackout(300, 600, None)];
                Profile::even(Shape { blackouts, ..weak })
            }
            "shallow" => Profile::even(Shape { queue: bytes_in(10 * MBIT, ms(30)), ..weak }),
            _ => return Err(ShapeError::Name { name: name.into() }),
        };
        Ok(profile)
    }

    /// The round trip of a small packet on an idle link, without jitter.
    pub fn round_trip(&self) -> Duration {
        self.down.delay + self.up.delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_known_and_sound() {
        for name in Profile::NAMES {
            let profile = Profile::named(name).expect("it is in the list");
            assert_eq!(profile.down.check(), Ok(()), "{name}");
            assert_eq!(profile.up.check(), Ok(()), "{name}");
        }
        let error = Profile::named("weka").expect_err("nobody knows it").to_string();
        assert!(error.contains("\"weka\"") && error.contains("veryweak"), "{error}");
    }

    #[test]
    fn weak_is_what_its_name_says() {
        let weak = Profile::named("weak").expect("it is known");
        assert_eq!(weak.down.rate, Some(10_000_000));
        assert_eq!(weak.down.queue, 125_000);
        assert_eq!(weak.round_trip(), Duration::from_millis(100));
        let geo = Profile::named("geo").expect("it is known");
        assert_eq!((geo.down.queue, geo.up.queue), (300_000, 75_000));
    }

    #[test]
    fn senseless_numbers_are_refused() {
        let shape = Shape { rate: Some(0), ..Shape::open() };
        assert_eq!(shape.check(), Err(ShapeError::NoRate));
        for loss in [
            Loss::Random(1.1),
            Loss::Random(f64::NAN),
            Loss::Bursts { share: 0.6, mean: 2.0 },
            Loss::Bursts { share: 0.1, mean: 0.5 },
        ] {
            let refused = Shape { loss, ..Shape::open() }.check();
            assert!(matches!(refused, Err(ShapeError::Loss(_))), "{loss:?}: {refused:?}");
        }
    }

    #[test]
    fn blackouts_come_once_or_again_and_again() {
        let s = Duration::from_secs;
        let once = Blackout { from: s(3), length: s(2), every: None };
        let dark: Vec<_> = (0..20).filter(|at| once.covers(s(*at))).collect();
        assert_eq!(dark, [3, 4]);
        let again = Blackout { every: Some(s(10)), ..once };
        let dark: Vec<_> = (0..25).filter(|at| again.covers(s(*at))).collect();
        assert_eq!(dark, [3, 4, 13, 14, 23, 24]);
    }
}
