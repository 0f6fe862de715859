//! What is counted while it happens, to be read when somebody asks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::page::Family;

/// How many different words one family counts apart; the rest is counted as `other`.
const WORDS: usize = 32;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts so many more.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counts by a few words, such as kinds and results.
#[derive(Debug, Default)]
pub struct Words<const N: usize>(Mutex<BTreeMap<[&'static str; N], u64>>);

impl<const N: usize> Words<N> {
    /// Counts so many more of these words.
    pub fn add(&self, words: [&'static str; N], more: u64) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let words = match counts.len() < WORDS || counts.contains_key(&words) {
            true => words,
            false => ["other"; N],
        };
        *counts.entry(words).or_default() += more;
    }

    /// Puts the counts into a family, with these names for the words.
    pub fn put(&self, names: [&'static str; N], family: &mut Family) {
        for (words, count) in &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            let labels: [_; N] = std::array::from_fn(|n| (names[n], words[n]));
            family.put(&labels, *count as f64);
        }
    }
}

/// How long things took, in buckets.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    /// One more than bounds: the last is for all that took longer.
    buckets: Box<[AtomicU64]>,
    micros: AtomicU64,
}

impl Histogram {
    /// For times around these bounds, in seconds, rising.
    pub fn new(bounds: &'static [f64]) -> Histogram {
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram { bounds, buckets, micros: AtomicU64::new(0) }
    }

    /// Something took so long.
    pub fn observe(&self, took: Duration) {
        let bucket = self.bounds.partition_point(|bound| *bound < took.as_secs_f64());
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// Puts the times into a family of histograms.
    pub fn put(&self, labels: &[(&'static str, &str)], family: &mut Family) {
        let mut count = 0;
        let mut below = |bucket: &AtomicU64| {
            count += bucket.load(Ordering::Relaxed);
            count
        };
        let buckets: Vec<u64> = self.buckets.iter().map(&mut below).collect();
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        let sum = self.micros.load(Ordering::Relaxed) as f64 / 1e6;
        family.put_histogram(labels, &bounds.zip(buckets).collect::<Vec<_>>(), sum);
    }
}
