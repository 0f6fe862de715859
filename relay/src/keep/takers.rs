//! Who has which message of a queue, and until when.
//!
//! It is in memory alone: after a restart everything that is not done can be taken again. For each
//! pattern by which messages are taken it is known up to which number there is nothing more to
//! take, so that a queue is looked through once and not once for each message.

use std::collections::BTreeMap;
use std::time::Instant;

/// Messages of one queue that are taken at once.
const TAKEN: usize = 1_000;
/// Patterns of one queue whose places are known; whose is not begins at the oldest message.
const PLACES: usize = 256;

/// Of all queues, by their names.
#[derive(Default)]
pub(super) struct Takers(BTreeMap<String, Queue>);

#[derive(Default)]
struct Queue {
    /// Until when somebody has a message, and what he was told.
    taken: BTreeMap<u64, (Instant, u64)>,
    /// Up to which number nothing is left, by the pattern.
    places: BTreeMap<String, u64>,
}

impl Takers {
    /// How many messages of a queue somebody has.
    pub(super) fn taken(&self, name: &str) -> u64 {
        self.0.get(name).map_or(0, |queue| queue.taken.len() as u64)
    }

    /// Whether somebody has this message.
    pub(super) fn has(&self, name: &str, seq: u64) -> bool {
        self.0.get(name).is_some_and(|queue| queue.taken.contains_key(&seq))
    }

    /// Behind which number to look for one that matches a pattern. None: so many are taken that one
    /// must be done or given back first.
    pub(super) fn begin(&mut self, name: &str, pattern: &str, now: Instant) -> Option<u64> {
        let Some(queue) = self.0.get_mut(name) else { return Some(0) };
        queue.give_back(now);
        let place = queue.places.get(pattern).copied().unwrap_or(0);
        (queue.taken.len() < TAKEN).then_some(place)
    }

    /// Up to this number there is nothing more for a pattern.
    pub(super) fn note(&mut self, name: &str, pattern: &str, through: u64) {
        let queue = self.0.entry(name.to_owned()).or_default();
        if queue.places.len() >= PLACES && !queue.places.contains_key(pattern) {
            queue.places.pop_first();
        }
        queue.places.insert(pattern.to_owned(), through);
    }

    /// Somebody has a message, until then.
    pub(super) fn take(&mut self, name: &str, seq: u64, until: Instant, token: u64) {
        self.0.entry(name.to_owned()).or_default().taken.insert(seq, (until, token));
    }

    /// Whether a message is his who was told this. Whoever was slow has it, as long as nobody else
    /// does.
    pub(super) fn is_his(&self, name: &str, seq: u64, token: u64) -> bool {
        let taken = self.0.get(name).and_then(|queue| queue.taken.get(&seq));
        taken.is_some_and(|(_, known)| *known == token)
    }

    /// A message is done.
    pub(super) fn done(&mut self, name: &str, seq: u64) {
        if let Some(queue) = self.0.get_mut(name) {
            queue.taken.remove(&seq);
        }
    }

    /// These queues are there from now on, and may be others than before.
    pub(super) fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        self.0.retain(|name, _| is_there(name));
    }

    #[cfg(test)]
    pub(super) fn end_all(&mut self, now: Instant) {
        let taken = self.0.values_mut().flat_map(|queue| queue.taken.values_mut());
        taken.for_each(|(until, _)| *until = now);
    }
}

impl Queue {
    /// Whose time is over has his message no more.
    fn give_back(&mut self, now: Instant) {
        let over = |(_, (until, _)): &(&u64, &(Instant, u64))| *until <= now;
        let Some(first) = self.taken.iter().find(over).map(|(seq, _)| *seq) else { return };
        self.taken.retain(|_, (until, _)| *until > now);
        for place in self.places.values_mut() {
            *place = (*place).min(first.saturating_sub(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_given_back_is_found_again_and_places_are_few() {
        let (mut takers, now) = (Takers::default(), Instant::now());
        let late = now + Duration::from_secs(60);
        assert_eq!(takers.begin("q", "a", now), Some(0));
        for seq in [3, 5, 8] {
            takers.take("q", seq, if seq == 5 { now } else { late }, seq);
            takers.note("q", "a", seq);
        }
        takers.note("q", "b", 2);
        assert!(takers.is_his("q", 5, 5) && !takers.is_his("q", 5, 6) && takers.has("q", 8));
        assert_eq!(takers.begin("q", "a", now), Some(4), "5 is there again");
        assert_eq!((takers.begin("q", "b", now), takers.taken("q")), (Some(2), 2));
        takers.done("q", 3);
        assert_eq!((takers.taken("q"), takers.taken("other")), (1, 0));
        for n in 0..2 * PLACES as u64 {
            takers.note("q", &format!("c{n}"), n);
        }
        assert_eq!(takers.0["q"].places.len(), PLACES);
        for seq in 0..TAKEN as u64 {
            takers.take("q", seq, late, seq);
        }
        assert_eq!(takers.begin("q", "a", now), None, "too many are taken");
        takers.retain(|name| name != "q");
        assert_eq!(takers.begin("q", "a", now), Some(0));
    }
}
