//! Which code a round has reached, where the build counts it.
//!
//! The idea is that of AFL and libFuzzer: the compiler puts a counter at each edge of the control
//! flow, and an input is worth keeping if it moved a counter into a range where no input before
//! it had moved that one. [`crate`] says how to build so. Without it nothing is ever new.
//!
//! It deliberately counts for the whole process: other threads are heard as well.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// Where the counters of this process lie, first and after last.
static REGIONS: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());

/// Called before `main` by each part that was built with counters (LLVM's SanitizerCoverage,
/// `inline-8bit-counters`).
#[allow(unsafe_code, reason = "the compiler calls it by this name")]
#[unsafe(no_mangle)]
extern "C" fn __sanitizer_cov_8bit_counters_init(first: *const u8, after: *const u8) {
    let region = (first.addr(), after.addr());
    let mut regions = REGIONS.lock().unwrap_or_else(PoisonError::into_inner);
    if !regions.contains(&region) {
        first.expose_provenance();
        regions.push(region);
    }
}

/// Called in the same way with what says where each counter's code is, which nobody asks for here.
#[allow(unsafe_code, reason = "the compiler calls it by this name")]
#[unsafe(no_mangle)]
extern "C" fn __sanitizer_cov_pcs_init(_first: *const usize, _after: *const usize) {}

/// What inputs have reached so far.
#[derive(Debug)]
pub(crate) struct Coverage {
    /// Eight to a number, since most are 0.
    counters: Vec<&'static [AtomicU64]>,
    /// Of each counter the ranges in which it has been, a bit for each.
    been: Vec<[u8; 8]>,
}

impl Coverage {
    /// Nothing is reached yet. `None` if this was built without counters.
    pub(crate) fn new() -> Option<Coverage> {
        let regions = REGIONS.lock().unwrap_or_else(PoisonError::into_inner);
        let counters = regions.iter().map(|region| counters(*region));
        Coverage::of(counters.collect())
    }

    /// By these counters.
    pub(crate) fn of(counters: Vec<&'static [AtomicU64]>) -> Option<Coverage> {
        let length = counters.iter().map(|counters| counters.len()).sum();
        (length > 0).then(|| Coverage { counters, been: vec![[0; 8]; length] })
    }

    /// A round begins.
    pub(crate) fn begin(&self) {
        self.counters.iter().copied().flatten().for_each(|eight| eight.store(0, Relaxed));
    }

    /// A round has ended; whether it has reached anything new.
    pub(crate) fn is_new(&mut self) -> bool {
        let mut new = false;
        for (eight, been) in self.counters.iter().copied().flatten().zip(&mut self.been) {
            let eight = eight.load(Relaxed);
            if eight == 0 {
                continue;
            }
            for (count, been) in eight.to_ne_bytes().into_iter().zip(been) {
                let now = range(count);
                new |= *been & now != now;
                *been |= now;
            }
        }
        new
    }
}

/// The range of a count, as a bit: 1, 2, 3, 4 to 7, 8 to 15, 16 to 31, 32 to 127, and above.
fn range(count: u8) -> u8 {
    match count {
        0 => 0,
        1 => 1,
        2 => 2,
        3 => 4,
        4..=7 => 8,
        8..=15 => 16,
        16..=31 => 32,
        32..=127 => 64,
        128.. => 128,
    }
}

/// The counters of a region, but for a few at its ends.
#[allow(unsafe_code, reason = "where they lie is known by the compiler's word alone")]
fn counters((first, after): (usize, usize)) -> &'static [AtomicU64] {
    let aligned = first.next_multiple_of(8);
    let length = after.saturating_sub(aligned) / 8;
    // SAFETY: the compiler reserves these bytes in the program's own data, for as long as it runs.
    // Code adds to them as well, and not as one step; a count that is lost matters to nobody.
    unsafe { std::slice::from_raw_parts(std::ptr::with_exposed_provenance(aligned), length) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_new_in_each_range_once() {
        static COUNTERS: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];
        let mut coverage = Coverage::of(vec![&COUNTERS[..1], &COUNTERS[1..]]).expect("counters");
        let mut round = |counts: &[(usize, u8)]| {
            coverage.begin();
            for (at, count) in counts {
                let mut eight = [0; 8];
                eight[at % 8] = *count;
                COUNTERS[at / 8].fetch_or(u64::from_ne_bytes(eight), Relaxed);
            }
            coverage.is_new()
        };
        assert!(!round(&[]));
        assert!(round(&[(0, 1), (19, 5)]));
        assert!(!round(&[(0, 1), (19, 7)]));
        assert!(round(&[(0, 2)]) && round(&[(19, 255)]) && round(&[(8, 1)]) && round(&[(1, 1)]));
        assert!(!round(&[(0, 2), (8, 1), (19, 200)]));
    }
}
