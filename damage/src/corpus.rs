//! The inputs that are damaged: samples, and what has been learnt from damaging them.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use crate::coverage::Coverage;
use crate::{Random, damage};

/// No more inputs are kept than this.
const LIMIT: usize = 20_000;
/// Nor any that is so much longer than the longest sample, in bytes.
const LONGER: usize = 4096;
/// Names a file whose bytes are read, and nothing else.
pub(crate) const FILE: &str = "BARID_DAMAGE_FILE";
/// The input that is read now, where rounds cannot be played again from their number alone.
static NOW: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// Inputs to damage. In a build that counts what is reached (see [`crate`]) an input that reached
/// something new joins the samples, so that later ones begin from there.
#[derive(Debug)]
pub struct Corpus {
    samples: Vec<Vec<u8>>,
    learnt: Vec<Vec<u8>>,
    longest: usize,
    coverage: Option<Coverage>,
    /// This one, and no other.
    only: Option<Vec<u8>>,
}

impl Corpus {
    /// Of samples that are right.
    ///
    /// # Panics
    ///
    /// If `BARID_DAMAGE_FILE` names a file that cannot be read.
    pub fn new(samples: &[Vec<u8>]) -> Corpus {
        let longest = samples.iter().map(Vec::len).max().unwrap_or_default();
        let only = std::env::var_os(FILE).map(|path| {
            fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        });
        let coverage = Coverage::new();
        let (samples, learnt) = (samples.to_vec(), Vec::new());
        Corpus { samples, learnt, longest: longest + LONGER, coverage, only }
    }

    /// Has `read` read one of them, damaged; returns what it says.
    pub fn play(&mut self, random: &mut Random, read: impl FnOnce(&[u8]) -> bool) -> bool {
        if let Some(only) = &self.only {
            return read(only);
        }
        let mut bytes = self.pick(random).clone();
        damage(&mut bytes, self.pick(random), random);
        let Some(coverage) = &mut self.coverage else { return read(&bytes) };
        NOW.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&bytes);
        coverage.begin();
        let accepted = read(&bytes);
        let new = coverage.is_new();
        if new && self.learnt.len() < LIMIT && bytes.len() <= self.longest {
            self.learnt.push(bytes);
        }
        accepted
    }

    /// A sample each other time, for what has been learnt is often refused early; of that rather
    /// what came late.
    fn pick(&self, random: &mut Random) -> &Vec<u8> {
        let learnt = self.learnt.len();
        if learnt == 0 || random.below(2) == 0 {
            return &self.samples[random.below(self.samples.len())];
        }
        &self.learnt[random.below(learnt).max(random.below(learnt))]
    }
}

/// Keeps what is read now in a file, if only that tells how to read it again. Returns where.
pub(crate) fn keep() -> Option<PathBuf> {
    let now = NOW.lock().unwrap_or_else(PoisonError::into_inner);
    let mut hasher = DefaultHasher::new();
    now.hash(&mut hasher);
    let path = std::env::temp_dir().join(format!("barid-damage-{:016x}", hasher.finish()));
    (!now.is_empty() && fs::write(&path, &*now).is_ok()).then_some(path)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    /// Accepts five bytes alone, and counts how far it came.
    fn locked(bytes: &[u8], reached: &[AtomicU64]) -> bool {
        let right = bytes.iter().zip(b"open!").take_while(|(a, b)| a == b).count();
        reached[..right].iter().for_each(|counter| counter.store(1, Relaxed));
        right == 5
    }

    #[test]
    fn what_reaches_further_is_damaged_further() {
        static REACHED: [AtomicU64; 5] = [const { AtomicU64::new(0) }; 5];
        let opens = |coverage| {
            let mut corpus = Corpus { coverage, ..Corpus::new(&[vec![0; 5]]) };
            let mut random = Random::new(7);
            (0..1_000_000).any(|_| corpus.play(&mut random, |bytes| locked(bytes, &REACHED)))
        };
        assert!(opens(Coverage::of(vec![&REACHED])), "it is found a byte at a time");
        assert!(!opens(None), "and not by chance");
    }
}
