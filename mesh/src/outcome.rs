//! What became of an order: the terminal state of one host, and tallies of many.
//!
//! A [`Tally`] maps outcomes to host sets, so a site of a thousand hosts that agree is one line.
//! Joining tallies is commutative, associative and idempotent: a report may arrive twice, late or
//! by two ways and the sum stays right. Where two words about one host differ, the stronger one
//! wins, by [`State::weight`].

use std::collections::BTreeMap;

use crate::{Digest, HostId, HostSet};

/// The terminal state of one host for one order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// The command ended with 0, or the files are in place.
    Ok,
    /// The command ended with this code (never 0), or the push failed at this host.
    Failed(i32),
    /// The command was ended by this signal.
    Signalled(i32),
    /// The command ran longer than the order allows and was killed by its host.
    TimedOut,
    /// The host died while it ran; how far it got is unknown. It was not run again.
    Interrupted,
    /// An operator cancelled it.
    Cancelled,
    /// The host would not: a bad signature, a foreign target set, too much to do.
    Refused,
    /// The host found nothing to do.
    Skipped,
    /// The order was past its validity when the host could have begun.
    Expired,
    /// The link on the way to the host was lost after the order had been handed over.
    /// A later, better word replaces this.
    RelayLost,
    /// The order could not be handed over in time. A later, better word replaces this.
    NotReached,
}

impl State {
    /// Which of two words about one host wins: the heavier. What a host did beats what it refused
    /// to do, and both beat what somebody on the way supposed.
    pub fn weight(self) -> u8 {
        match self {
            State::Ok | State::Failed(_) | State::Signalled(_) | State::TimedOut => 4,
            State::Interrupted | State::Cancelled => 3,
            State::Refused | State::Skipped | State::Expired => 2,
            State::RelayLost => 1,
            State::NotReached => 0,
        }
    }

    /// Whether this is a supposition made on the way, which the host's own word replaces.
    pub fn is_provisional(self) -> bool {
        self.weight() <= 1
    }
}

/// A terminal state with the digest of the output that came with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Outcome {
    /// The state.
    pub state: State,
    /// The body (output, fault) of the answer; equal bodies have equal digests.
    pub body: Option<Digest>,
}

impl Outcome {
    /// An outcome without a body.
    pub fn bare(state: State) -> Outcome {
        Outcome { state, body: None }
    }

    /// Whether this word replaces `other` for the same host. A total order, so that any sequence
    /// of arrivals ends in the same word.
    fn beats(&self, other: &Outcome) -> bool {
        let key = |outcome: &Outcome| (outcome.state.weight(), *outcome);
        key(self) > key(other)
    }
}

/// Which hosts ended how. Every host stands in exactly one line.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Tally {
    lines: BTreeMap<Outcome, HostSet>,
    hosts: HostSet,
}

impl Tally {
    /// A tally of nobody.
    pub fn new() -> Tally {
        Tally::default()
    }

    /// The outcomes with their hosts.
    pub fn lines(&self) -> impl Iterator<Item = (&Outcome, &HostSet)> {
        self.lines.iter()
    }

    /// Everybody who is in it.
    pub fn hosts(&self) -> &HostSet {
        &self.hosts
    }

    /// Those who are in it with their own word, not with a supposition.
    pub fn settled(&self) -> HostSet {
        let mut settled = self.hosts.clone();
        for (_, hosts) in self.lines.iter().filter(|(o, _)| o.state.is_provisional()) {
            settled = settled.difference(hosts);
        }
        settled
    }

    /// Whether nobody is in it.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The outcome of one host.
    pub fn outcome(&self, host: HostId) -> Option<Outcome> {
        self.lines.iter().find(|(_, hosts)| hosts.contains(host)).map(|(outcome, _)| *outcome)
    }

    /// Enters a word about `hosts`. Returns those for whom it was news.
    pub fn record(&mut self, outcome: Outcome, hosts: &HostSet) -> HostSet {
        let mut news = hosts.difference(&self.hosts);
        let known = hosts.intersection(&self.hosts);
        if !known.is_empty() {
            for (_, line) in self.lines.iter_mut().filter(|(old, _)| outcome.beats(old)) {
                let moved = line.intersection(&known);
                if !moved.is_empty() {
                    *line = line.difference(&moved);
                    news = news.union(&moved);
                }
            }
            self.lines.retain(|_, line| !line.is_empty());
        }
        if !news.is_empty() {
            self.hosts = self.hosts.union(&news);
            let line = self.lines.entry(outcome).or_default();
            *line = line.union(&news);
        }
        news
    }

    /// Joins another tally into this one. Returns the part of it that was news.
    pub fn join(&mut self, other: &Tally) -> Tally {
        let mut news = Tally::new();
        for (outcome, hosts) in &other.lines {
            let fresh = self.record(*outcome, hosts);
            news.record(*outcome, &fresh);
        }
        news
    }

    /// The lines of this tally that do not stand in `told` in the same words.
    pub fn news_since(&self, told: &Tally) -> Tally {
        let mut news = Tally::new();
        for (outcome, hosts) in &self.lines {
            let fresh = match told.lines.get(outcome) {
                Some(known) => hosts.difference(known),
                None => hosts.clone(),
            };
            news.record(*outcome, &fresh);
        }
        news
    }

    /// Takes back what `other` says, where this tally says the same.
    pub fn retract(&mut self, other: &Tally) {
        for (outcome, hosts) in &other.lines {
            if let Some(line) = self.lines.get_mut(outcome) {
                self.hosts = self.hosts.difference(&line.intersection(hosts));
                *line = line.difference(hosts);
            }
        }
        self.lines.retain(|_, line| !line.is_empty());
    }
}

impl FromIterator<(Outcome, HostSet)> for Tally {
    fn from_iter<I: IntoIterator<Item = (Outcome, HostSet)>>(lines: I) -> Tally {
        let mut tally = Tally::new();
        for (outcome, hosts) in lines {
            tally.record(outcome, &hosts);
        }
        tally
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn state() -> impl Strategy<Value = State> {
        prop_oneof![
            Just(State::Ok),
            (1..3).prop_map(State::Failed),
            Just(State::Interrupted),
            Just(State::Refused),
            Just(State::RelayLost),
            Just(State::NotReached),
        ]
    }

    fn tally() -> impl Strategy<Value = Tally> {
        let body = prop_oneof![Just(None), (0u8..3).prop_map(|n| Some(Digest([n; 32])))];
        let hosts = proptest::collection::btree_set(0u32..20, 0..8)
            .prop_map(|set| set.into_iter().map(HostId).collect::<HostSet>());
        let line = (state(), body, hosts)
            .prop_map(|(state, body, hosts)| (Outcome { state, body }, hosts));
        proptest::collection::vec(line, 0..6).prop_map(|lines| lines.into_iter().collect())
    }

    fn joined(a: &Tally, b: &Tally) -> Tally {
        let mut sum = a.clone();
        sum.join(b);
        sum
    }

    proptest! {
        #[test]
        fn joining_is_a_semilattice(a in tally(), b in tally(), c in tally()) {
            prop_assert_eq!(joined(&a, &b), joined(&b, &a));
            prop_assert_eq!(joined(&joined(&a, &b), &c), joined(&a, &joined(&b, &c)));
            prop_assert_eq!(joined(&a, &a), a);
        }

        #[test]
        fn everybody_stands_in_one_line(a in tally(), b in tally()) {
            let sum = joined(&a, &b);
            prop_assert_eq!(sum.hosts(), &a.hosts().union(b.hosts()));
            prop_assert_eq!(sum.lines().map(|(_, h)| h.len()).sum::<u64>(), sum.hosts().len());
        }

        #[test]
        fn news_brings_the_listener_up_to_date(a in tally(), b in tally()) {
            let sum = joined(&a, &b);
            prop_assert_eq!(joined(&a, &sum.news_since(&a)), sum.clone());
            let mut rest = sum.clone();
            rest.retract(&sum.news_since(&a));
            prop_assert!(rest.news_since(&a).is_empty());
        }
    }

    #[test]
    fn a_real_exit_beats_a_supposition() {
        let host = HostSet::one(HostId(4));
        let mut tally = Tally::new();
        tally.record(Outcome::bare(State::NotReached), &host);
        tally.record(Outcome::bare(State::RelayLost), &host);
        assert_eq!(tally.record(Outcome::bare(State::Failed(1)), &host), host);
        assert!(tally.record(Outcome::bare(State::NotReached), &host).is_empty());
        assert_eq!(tally.outcome(HostId(4)), Some(Outcome::bare(State::Failed(1))));
    }
}
