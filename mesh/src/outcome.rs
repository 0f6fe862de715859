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
    /// The host found nothing to do, or the root has stopped the order before it let it begin.
    Skipped,
    /// The order's time was over when the host could have begun.
    Expired,
    /// The link on the way to the host was lost after the order had been handed over.
    /// A later, better word replaces this.
    RelayLost,
    /// The order could not be handed over in time. A later, better word replaces this.
    NotReached,
}

impl State {
    /// The word for it, as everybody prints it.
    pub fn word(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Failed(_) => "failed",
            State::Signalled(_) => "signalled",
            State::TimedOut => "timed-out",
            State::Interrupted => "interrupted",
            State::Cancelled => "cancelled",
            State::Refused => "refused",
            State::Skipped => "skipped",
            State::Expired => "expired",
            State::RelayLost => "relay-lost",
            State::NotReached => "not-reached",
        }
    }

    /// Which of two words about one host wins: the heavier. What a host did beats what it refused
    /// to do, and both beat what somebody on the way supposed.
    pub fn weight(self) -> u8 {
        match self {
            State::Ok | State::Failed(_) | State::Signalled(_) | State::TimedOut => 5,
            State::Interrupted | State::Cancelled => 4,
            State::Refused | State::Skipped => 3,
            State::Expired => 2,
            State::RelayLost => 1,
            State::NotReached => 0,
        }
    }

    /// Whether this is a supposition made on the way, which the host's own word replaces.
    pub fn is_provisional(self) -> bool {
        self.weight() <= 1
    }

    /// Whether the host was missed: nobody knows that the command has ended by itself, or it never
    /// began because it was too late.
    pub fn is_missed(self) -> bool {
        match self {
            State::TimedOut
            | State::Interrupted
            | State::Expired
            | State::RelayLost
            | State::NotReached => true,
            State::Ok
            | State::Failed(_)
            | State::Signalled(_)
            | State::Cancelled
            | State::Refused
            | State::Skipped => false,
        }
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
        let supposed = self.lines.iter().filter(|(outcome, _)| outcome.state.is_provisional());
        self.hosts.difference(&gathered(supposed.map(|(_, hosts)| hosts)))
    }

    /// Whether all these are in it with their own word.
    pub(crate) fn has_settled(&self, hosts: &HostSet) -> bool {
        let mut supposed = self.lines.iter().filter(|(outcome, _)| outcome.state.is_provisional());
        hosts.is_subset(&self.hosts) && !supposed.any(|(_, line)| line.intersects(hosts))
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
        if hosts.is_empty() {
            return HostSet::new();
        }
        let lines = BTreeMap::from([(outcome, hosts.clone())]);
        self.join(&Tally { lines, hosts: hosts.clone() }).hosts
    }

    /// Joins another tally into this one. Returns the part of it that was news.
    pub fn join(&mut self, other: &Tally) -> Tally {
        let known = self.hosts.intersection(&other.hosts);
        let bettered = self.bettered_by(other, &known);
        let news = match known.is_empty() {
            true => other.clone(),
            false => other.only(&other.hosts.difference(&known).union(&bettered)),
        };
        if !bettered.is_empty() {
            for line in self.lines.values_mut().filter(|line| line.intersects(&bettered)) {
                *line = line.difference(&bettered);
            }
            self.lines.retain(|_, line| !line.is_empty());
        }
        if !news.is_empty() {
            self.hosts = self.hosts.union(&news.hosts);
        }
        for (outcome, hosts) in &news.lines {
            let line = self.lines.entry(*outcome).or_default();
            *line = line.union(hosts);
        }
        news
    }

    /// Those of `known`, who are in both tallies, whose word in `other` beats the one in this.
    fn bettered_by(&self, other: &Tally, known: &HostSet) -> HostSet {
        if known.is_empty() {
            return HostSet::new();
        }
        // Both lists cover the same hosts in ascending order.
        let (old, new) = (self.ranges_of(known), other.ranges_of(known));
        let (mut old, mut new) = (old.into_iter().peekable(), new.into_iter().peekable());
        let mut bettered = Vec::new();
        while let (Some(a), Some(b)) = (old.peek(), new.peek()) {
            let last = a.1.min(b.1);
            if b.2.beats(a.2) {
                bettered.push((a.0.max(b.0), last));
            }
            old.next_if(|a| a.1 == last);
            new.next_if(|b| b.1 == last);
        }
        HostSet::from_ranges(bettered)
    }

    /// The ranges of all lines, as far as they are in `hosts`, in ascending order.
    fn ranges_of(&self, hosts: &HostSet) -> Vec<(u32, u32, &Outcome)> {
        let mut ranges = Vec::new();
        for (outcome, line) in &self.lines {
            let line = line.intersection(hosts);
            ranges.extend(line.ranges().iter().map(|&(first, last)| (first, last, outcome)));
        }
        ranges.sort_unstable_by_key(|&(first, ..)| first);
        ranges
    }

    /// The part of this tally that is about `hosts`.
    fn only(&self, hosts: &HostSet) -> Tally {
        self.lines.iter().map(|(outcome, line)| (*outcome, line.intersection(hosts))).collect()
    }

    /// The lines of this tally that do not stand in `told` in the same words.
    pub fn news_since(&self, told: &Tally) -> Tally {
        let news = self.lines.iter().map(|(outcome, hosts)| match told.lines.get(outcome) {
            Some(known) => (*outcome, hosts.difference(known)),
            None => (*outcome, hosts.clone()),
        });
        news.collect()
    }

    /// Whether some line of this tally does not stand in `told` in the same words.
    pub(crate) fn has_news_since(&self, told: &Tally) -> bool {
        let known = |outcome, hosts: &HostSet| {
            told.lines.get(outcome).is_some_and(|known| hosts.is_subset(known))
        };
        self.lines.iter().any(|(outcome, hosts)| !known(outcome, hosts))
    }

    /// Takes back what `other` says, where this tally says the same.
    pub fn retract(&mut self, other: &Tally) {
        let mut gone = Vec::new();
        for (outcome, hosts) in &other.lines {
            if let Some(line) = self.lines.get_mut(outcome) {
                gone.push(line.intersection(hosts));
                *line = line.difference(hosts);
            }
        }
        self.hosts = self.hosts.difference(&gathered(&gone));
        self.lines.retain(|_, line| !line.is_empty());
    }
}

/// Everybody in any of these sets.
fn gathered<'a>(sets: impl IntoIterator<Item = &'a HostSet>) -> HostSet {
    HostSet::from_ranges(sets.into_iter().flat_map(|set| set.ranges().iter().copied()))
}

impl FromIterator<(Outcome, HostSet)> for Tally {
    fn from_iter<I: IntoIterator<Item = (Outcome, HostSet)>>(lines: I) -> Tally {
        let mut sets = BTreeMap::<_, Vec<_>>::new();
        for (outcome, hosts) in lines.into_iter().filter(|(_, hosts)| !hosts.is_empty()) {
            sets.entry(outcome).or_default().push(hosts);
        }
        let lines: BTreeMap<_, _> =
            sets.into_iter().map(|(outcome, sets)| (outcome, gathered(&sets))).collect();
        let hosts = gathered(lines.values());
        // Where no host has two words, as in every tally that was one before, this is all.
        if lines.values().map(HostSet::len).sum::<u64>() == hosts.len() {
            return Tally { lines, hosts };
        }
        let mut tally = Tally::new();
        for (outcome, hosts) in &lines {
            tally.record(*outcome, hosts);
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

    fn line() -> impl Strategy<Value = (Outcome, HostSet)> {
        let body = prop_oneof![Just(None), (0u8..3).prop_map(|n| Some(Digest([n; 32])))];
        let hosts = proptest::collection::btree_set(0u32..20, 0..8)
            .prop_map(|set| set.into_iter().map(HostId).collect::<HostSet>());
        (state(), body, hosts).prop_map(|(state, body, hosts)| (Outcome { state, body }, hosts))
    }

    fn tally() -> impl Strategy<Value = Tally> {
        proptest::collection::vec(line(), 0..6).prop_map(|lines| lines.into_iter().collect())
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
        fn agrees_with_a_plain_map(lines in proptest::collection::vec(line(), 0..6), b in tally()) {
            let mut plain = BTreeMap::<HostId, Outcome>::new();
            let mut enter = |outcome: &Outcome, hosts: &HostSet| {
                hosts.iter().for_each(|host| {
                    let word = plain.entry(host).or_insert(*outcome);
                    if outcome.beats(word) {
                        *word = *outcome;
                    }
                });
            };
            lines.iter().for_each(|(outcome, hosts)| enter(outcome, hosts));
            b.lines().for_each(|(outcome, hosts)| enter(outcome, hosts));
            let a: Tally = lines.into_iter().collect();
            let mut sum = a.clone();
            let news = sum.join(&b);
            prop_assert_eq!(&news, &sum.news_since(&a));
            prop_assert_eq!(sum.has_news_since(&a), !news.is_empty());
            for host in (0..20).map(HostId) {
                prop_assert_eq!(sum.outcome(host), plain.get(&host).copied());
                let settled = sum.settled().contains(host);
                prop_assert_eq!(sum.has_settled(&HostSet::one(host)), settled);
            }
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
    fn many_lines_join_without_being_compared_with_each_other() {
        // As many lines and ranges as a report may have, interleaved; pairwise work would be 10^9.
        let tally = |shift: u32| -> Tally {
            let line = |n: u32| {
                let outcome = Outcome::bare(State::Failed((n + shift) as i32 + 1));
                (
                    outcome,
                    HostSet::from_ranges((0..6).map(|k| (k * 40_000 + n * 3, k * 40_000 + n * 3))),
                )
            };
            (0..10_000).map(line).collect()
        };
        let (mut sum, better) = (tally(0), tally(1));
        assert_eq!(sum.join(&better), better);
        assert_eq!(sum, better);
        assert!(sum.join(&tally(0)).is_empty());
        sum.retract(&better);
        assert!(sum.is_empty() && sum.hosts().is_empty());
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
