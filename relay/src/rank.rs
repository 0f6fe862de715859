//! Which of a node's parents serves it best, by what was measured.
//!
//! A parent is worth the time that an order and a megabyte of content take from it: two round trips
//! and the megabyte at the best rate that was seen. One is put before another only if it is clearly
//! faster, by half, than the ranking so far has it; so two that are alike never change places, and
//! one that wavers does so at most as often as it is measured. Who was never measured keeps its
//! place.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The content by which parents are compared.
const MEGABYTE: f64 = 1e6;
/// How much faster, as a part of the time, is clearly faster.
const CLEARLY: f64 = 1.5;
/// A round trip below this is as good as none: it is the hosts' own.
const LOCAL: Duration = Duration::from_millis(5);
/// What an older measurement counts, as a part, when there is a new one.
const OLD: f64 = 0.75;

/// What is known of the way to a parent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Measured {
    /// Round trip in microseconds; 0: not known.
    pub(crate) rtt_us: u64,
    /// Bytes of content a second; 0: not known.
    pub(crate) rate: u64,
}

impl Measured {
    /// A round trip was seen.
    pub(crate) fn on_rtt(&mut self, rtt: Duration) {
        let now = rtt.as_micros() as f64;
        self.rtt_us = mean(self.rtt_us, now).max(1);
    }

    /// Content came at this rate. It may have been slow for many reasons, and fast for one.
    pub(crate) fn on_rate(&mut self, rate: u64) {
        self.rate = rate.max((self.rate as f64 * OLD) as u64);
    }

    /// How long an order and a megabyte take; without `rates` the order alone.
    fn cost(self, rates: bool) -> f64 {
        let rtt = Duration::from_micros(self.rtt_us).max(LOCAL).as_secs_f64();
        2.0 * rtt + if rates { MEGABYTE / self.rate.max(1) as f64 } else { 0.0 }
    }

    fn is_clearly_better(self, than: Measured) -> bool {
        if self.rtt_us == 0 || than.rtt_us == 0 {
            return false;
        }
        let rates = self.rate > 0 && than.rate > 0;
        self.cost(rates) * CLEARLY < than.cost(rates)
    }
}

fn mean(old: u64, new: f64) -> u64 {
    (if old == 0 { new } else { old as f64 * OLD + new * (1.0 - OLD) }) as u64
}

/// Puts those forward that are clearly better than who stands before them.
pub(crate) fn rank(list: &mut [String], measured: &BTreeMap<String, Measured>) {
    let of = |address: &String| measured.get(address).copied().unwrap_or_default();
    for n in 1..list.len() {
        let mut at = n;
        while at > 0 && of(&list[at]).is_clearly_better(of(&list[at - 1])) {
            list.swap(at, at - 1);
            at -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Measured {
        Measured { rtt_us: ms * 1_000, rate: 0 }
    }

    #[track_caller]
    fn check(measured: &[(&str, Measured)], ranked: &[&str]) {
        let measured = measured.iter().map(|(name, of)| (name.to_string(), *of)).collect();
        let mut list = ["a", "b", "c"].map(String::from);
        rank(&mut list, &measured);
        assert_eq!(list, ranked, "{measured:?}");
        rank(&mut list, &measured);
        assert_eq!(list, ranked, "again");
    }

    #[test]
    fn who_is_clearly_faster_goes_first_and_others_keep_their_places() {
        check(&[], &["a", "b", "c"]);
        check(&[("a", ms(100)), ("b", ms(70)), ("c", ms(110))], &["a", "b", "c"]);
        check(&[("a", ms(100)), ("b", ms(60)), ("c", ms(30))], &["c", "b", "a"]);
        // Nobody goes before one who was never measured.
        check(&[("b", ms(60)), ("c", ms(30))], &["a", "c", "b"]);
        // In one building a millisecond is no reason.
        check(&[("a", ms(4)), ("b", ms(1))], &["a", "b", "c"]);
        let rate = |of: Measured, rate| Measured { rate, ..of };
        // Nearer, and slower by much: the megabyte decides.
        let (near, far) = (rate(ms(20), 125_000), rate(ms(100), 1_250_000));
        check(&[("a", near), ("b", far)], &["b", "a", "c"]);
        check(&[("a", near), ("b", ms(100))], &["a", "b", "c"]);
    }

    #[test]
    fn who_wavers_does_not_change_places() {
        let mut list = ["a", "b"].map(String::from);
        let mut measured: BTreeMap<String, Measured> = BTreeMap::new();
        for n in 0..1_000_u64 {
            // Both vary by a third, in turn.
            let delays = [("a", 80 + n * 37 % 40), ("b", 80 + n * 53 % 40)];
            for (name, delay) in delays {
                measured.entry(name.into()).or_default().on_rtt(Duration::from_millis(delay));
            }
            rank(&mut list, &measured);
            assert_eq!(list, ["a", "b"], "after {n}");
        }
        for _ in 0..20 {
            measured.entry("b".into()).or_default().on_rtt(Duration::from_millis(40));
        }
        rank(&mut list, &measured);
        assert_eq!(list, ["b", "a"]);
    }

    #[test]
    fn a_slow_transfer_says_little_and_a_fast_one_much() {
        let mut of = Measured::default();
        of.on_rate(1_000);
        of.on_rate(10);
        assert_eq!(of.rate, 750);
        of.on_rate(5_000);
        assert_eq!(of.rate, 5_000);
    }
}
