//! What a host has done of what was due, so that it does nothing twice, whoever says it.
//!
//! Pure: it is for the caller to keep it, and to have it kept before anybody is told.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Planted;
use crate::planted::has;

/// So many frequencies are kept, and so many times of each: an hour of a clock that is put back, of
/// what is due each minute.
const FREQUENCIES: usize = 256;
const TIMES: usize = 64;

/// What was done last of each frequency, and what came of it. Not only the very last time: another
/// relay, whose clock is behind or which has not heard of a change, may still say one before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Once<T>(BTreeMap<String, Last<T>>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Last<T> {
    due_ms: u64,
    done: T,
    /// What was done before that.
    #[serde(default = "Vec::new")]
    before: Vec<(u64, T)>,
}

impl<T> Default for Once<T> {
    fn default() -> Once<T> {
        Once(BTreeMap::new())
    }
}

/// Whether a host may still begin what it was told to begin before then; 0: whenever it can.
pub fn may_begin(by_ms: u64, now_ms: u64, planted: Planted) -> bool {
    by_ms == 0 || now_ms < by_ms || has!(planted, BeginOutside)
}

impl<T: Clone> Once<T> {
    /// What has come of the time that was due then, if it was done.
    pub fn known(&self, frequency: &str, due_ms: u64, planted: Planted) -> Option<T> {
        let Last { due_ms: last_ms, done: last, before } = self.0.get(frequency)?;
        let mut all = before.iter().map(|(at, done)| (at, done)).chain([(last_ms, last)]);
        let (_, done) = all.find(|(at, _)| **at == due_ms)?;
        (!has!(planted, DoAgain)).then(|| done.clone())
    }

    /// It was done, and this has come of it.
    pub fn note(&mut self, frequency: &str, due_ms: u64, done: T) {
        let before = self.0.remove(frequency).map_or_else(Vec::new, |last| {
            let mut before = last.before;
            before.push((last.due_ms, last.done));
            before.drain(..before.len().saturating_sub(TIMES - 1));
            before
        });
        self.0.insert(frequency.to_owned(), Last { due_ms, done, before });
        if self.0.len() > FREQUENCIES {
            let oldest = self.0.iter().min_by_key(|(_, last)| last.due_ms);
            let oldest = oldest.map(|(name, _)| name.clone());
            oldest.map(|name| self.0.remove(&name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_done_once_and_what_came_of_it_is_known() {
        let known = |once: &Once<u8>, name, due_ms| once.known(name, due_ms, Planted::default());
        let mut once = Once::default();
        once.note("day", 60, 7);
        assert_eq!(known(&once, "day", 60), Some(7));
        assert_eq!((known(&once, "day", 120), known(&once, "hour", 60)), (None, None));
        // One that is behind says what was done before.
        once.note("day", 120, 8);
        assert_eq!((known(&once, "day", 60), known(&once, "day", 120)), (Some(7), Some(8)));
        (1..TIMES as u64).for_each(|n| once.note("week", n, 1));
        once.note("week", 100, 2);
        assert_eq!((known(&once, "week", 1), known(&once, "week", 100)), (Some(1), Some(2)));
        once.note("week", 200, 3);
        assert_eq!(known(&once, "week", 1), None, "there is a limit");
        for n in 0..FREQUENCIES as u64 {
            once.note(&format!("f{n}"), 1_000 + n, 1);
        }
        assert_eq!((once.0.len(), known(&once, "day", 60)), (FREQUENCIES, None));
    }
}
