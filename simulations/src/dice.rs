//! Dice as they stand in a plan's file: numbers, shares and odds that each seed draws.
//!
//! A number is `5`, or `"3 to 21"` with both ends, or a list of such of which one is taken; a
//! number that shall come more often stands in the list more often. A share is a number from 0 to
//! 1, or a list of them. Nothing here knows what is drawn.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::SmallRng;
use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};

/// A whole number to be drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dice(Vec<RangeInclusive<u64>>);

/// A number from 0 to 1 to be drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Share(Vec<f64>);

/// Odds that only some of the runs have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Odds {
    /// The share of runs that have them.
    #[serde(deserialize_with = "one_share")]
    runs: f64,
    /// In such a run they are drawn from 0 up to here.
    #[serde(deserialize_with = "one_share")]
    most: f64,
}

/// A limit that is tight in only some of the runs.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tight {
    /// The share of runs in which it is.
    #[serde(deserialize_with = "one_share")]
    runs: f64,
    /// What it is then.
    of: Dice,
}

impl Dice {
    /// Always this number.
    pub fn fixed(number: u64) -> Dice {
        Dice(vec![number..=number])
    }

    /// Draws it.
    pub fn draw(&self, rng: &mut SmallRng) -> u64 {
        let range = match self.0.as_slice() {
            [range] => range,
            list => &list[rng.random_range(0..list.len())],
        };
        rng.random_range(range.clone())
    }

    /// Draws a time of so many milliseconds.
    pub fn millis(&self, rng: &mut SmallRng) -> Duration {
        Duration::from_millis(self.draw(rng))
    }

    /// Draws a time of so many seconds.
    pub fn secs(&self, rng: &mut SmallRng) -> Duration {
        Duration::from_secs(self.draw(rng))
    }
}

impl Share {
    /// Always this share.
    pub fn fixed(share: f64) -> Share {
        Share(vec![share])
    }

    /// Draws it.
    pub fn draw(&self, rng: &mut SmallRng) -> f64 {
        self.0[rng.random_range(0..self.0.len())]
    }

    /// Throws a die with these odds.
    pub fn hits(&self, rng: &mut SmallRng) -> bool {
        let odds = self.draw(rng);
        rng.random_bool(odds)
    }
}

impl Odds {
    /// Draws the odds of a run.
    pub fn draw(&self, rng: &mut SmallRng) -> f64 {
        match self.most > 0.0 && rng.random_bool(self.runs) {
            true => rng.random_range(0.0..self.most),
            false => 0.0,
        }
    }
}

impl Tight {
    /// Draws the limit of a run, if it is tight in this one.
    pub fn draw(&self, rng: &mut SmallRng) -> Option<u64> {
        rng.random_bool(self.runs).then(|| self.of.draw(rng))
    }
}

impl<'de> Deserialize<'de> for Dice {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Dice, D::Error> {
        from.deserialize_any(DiceVisitor)
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Share, D::Error> {
        from.deserialize_any(ShareVisitor)
    }
}

struct DiceVisitor;

impl<'de> Visitor<'de> for DiceVisitor {
    type Value = Dice;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, \"3 to 21\", or a list of these")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Dice, E> {
        match u64::try_from(number) {
            Ok(number) => Ok(Dice::fixed(number)),
            Err(_) => Err(E::custom(format!("{number} is less than nothing"))),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Dice, E> {
        let ends = text.split_once(" to ").and_then(|(first, last)| {
            Some((first.trim().parse::<u64>().ok()?, last.trim().parse::<u64>().ok()?))
        });
        match ends {
            Some((first, last)) if first <= last => Ok(Dice(vec![first..=last])),
            Some(_) => Err(E::custom(format!("{text:?} ends before it begins"))),
            None => Err(E::custom(format!("{text:?} is not as \"3 to 21\""))),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Dice, A::Error> {
        let mut ranges = Vec::new();
        while let Some(Dice(more)) = list.next_element()? {
            ranges.extend(more);
        }
        match ranges.is_empty() {
            true => Err(A::Error::custom("nothing to choose from")),
            false => Ok(Dice(ranges)),
        }
    }
}

struct ShareVisitor;

impl<'de> Visitor<'de> for ShareVisitor {
    type Value = Share;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number from 0 to 1, or a list of these")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Share, E> {
        self.visit_f64(number as f64)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Share, E> {
        match (0.0..=1.0).contains(&number) {
            true => Ok(Share(vec![number])),
            false => Err(E::custom(format!("{number} is not from 0 to 1"))),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Share, A::Error> {
        let mut shares = Vec::new();
        while let Some(Share(more)) = list.next_element()? {
            shares.extend(more);
        }
        match shares.is_empty() {
            true => Err(A::Error::custom("nothing to choose from")),
            false => Ok(Share(shares)),
        }
    }
}

pub(crate) fn one_share<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    match Share::deserialize(from)?.0.as_slice() {
        [share] => Ok(*share),
        _ => Err(D::Error::custom("one number from 0 to 1, not a list")),
    }
}
