//! Who still lacks a file.
//!
//! Every change that hosts must hear of has a number, and numbers only grow. A host is entered
//! with the number of the change that made it lack the file; an order carries the number at which
//! it was planned. A confirmation counts if its order was planned no earlier than the host was
//! entered, and that is the only rule: then the order brought what the change was about, however
//! late, often or in whatever sequence confirmations come. At the host itself an older order never
//! replaces what a newer one has put in place.
//!
//! A host that was found by a verification to have something else lacks the file, too, and only an
//! order that was given after that one can clear it. If that was heard first the host is said to
//! lack what it has, until the next order finds it right.

use std::collections::BTreeMap;

use mesh::{HostSet, OrderId};
use serde::{Deserialize, Serialize};

/// How one file stands with the hosts that get it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub(crate) struct Standing {
    /// By the number of the change since which they lack it.
    lacking: BTreeMap<u64, HostSet>,
    /// By its root hash what hosts have last said to have, for deltas against it.
    has: BTreeMap<String, HostSet>,
    /// By the verification that found it out who has something else.
    drifted: BTreeMap<OrderId, HostSet>,
}

type Ranges = Vec<(u32, u32)>;

#[derive(Clone, Serialize, Deserialize)]
struct Stored {
    lacking: BTreeMap<u64, Ranges>,
    has: BTreeMap<String, Ranges>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    drifted: Vec<([u8; 16], Ranges)>,
}

impl From<Stored> for Standing {
    fn from(stored: Stored) -> Standing {
        let set = HostSet::from_ranges;
        let drifted = stored.drifted.into_iter();
        Standing {
            lacking: stored.lacking.into_iter().map(|(n, r)| (n, set(r))).collect(),
            has: stored.has.into_iter().map(|(root, r)| (root, set(r))).collect(),
            drifted: drifted.map(|(by, r)| (OrderId(by), set(r))).collect(),
        }
    }
}

impl From<Standing> for Stored {
    fn from(standing: Standing) -> Stored {
        let ranges = |set: HostSet| set.ranges().to_vec();
        Stored {
            lacking: standing.lacking.into_iter().map(|(n, set)| (n, ranges(set))).collect(),
            has: standing.has.into_iter().map(|(root, set)| (root, ranges(set))).collect(),
            drifted: standing.drifted.into_iter().map(|(by, set)| (by.0, ranges(set))).collect(),
        }
    }
}

impl Standing {
    /// These hosts lack the file since this change.
    pub(crate) fn enter(&mut self, hosts: &HostSet, change: u64) {
        self.without(hosts, u64::MAX);
        if !hosts.is_empty() {
            let set = self.lacking.entry(change).or_default();
            *set = set.union(hosts);
        }
    }

    /// These hosts do not get the file any more.
    pub(crate) fn leave(&mut self, hosts: &HostSet) {
        self.without(hosts, u64::MAX);
        self.forget(hosts);
        take(&mut self.drifted, hosts);
    }

    /// These hosts have said that they have what an order brought that was planned at this number:
    /// the content of this root hash.
    pub(crate) fn confirm(
        &mut self,
        hosts: &HostSet,
        (planned, order): (u64, OrderId),
        root: &str,
    ) {
        let later = self.drifted.range(order..).flat_map(|(_, set)| set.ranges());
        let hosts = &hosts.difference(&HostSet::from_ranges(later.copied()));
        take(&mut self.drifted, hosts);
        self.without(hosts, planned);
        self.forget(hosts);
        if hosts.is_empty() {
            return;
        }
        let set = self.has.entry(root.to_owned()).or_default();
        *set = set.union(hosts);
    }

    /// These hosts have said to a verification, which was planned at this number, that what they
    /// have is something else. Returns those who were thought to have it right.
    ///
    /// Who lacks it anyway may well have what he was last known to have, and so keeps that; and who
    /// does not get the file any more has nothing to do with it.
    pub(crate) fn drift(&mut self, hosts: &HostSet, (planned, order): (u64, OrderId)) -> HostSet {
        let lacking = self.lacking();
        let has = HostSet::from_ranges(self.has.values().flat_map(HostSet::ranges).copied());
        let new = hosts.intersection(&has).difference(&lacking);
        if !new.is_empty() {
            let set = self.lacking.entry(planned).or_default();
            *set = set.union(&new);
        }
        self.forget(&new);
        let later = self.drifted.range(order..).flat_map(|(_, set)| set.ranges());
        let known = HostSet::from_ranges(later.copied());
        let hosts = hosts.intersection(&lacking.union(&new)).difference(&known);
        take(&mut self.drifted, &hosts);
        if !hosts.is_empty() {
            let set = self.drifted.entry(order).or_default();
            *set = set.union(&hosts);
        }
        new
    }

    /// Nobody knows what these hosts have.
    pub(crate) fn forget(&mut self, hosts: &HostSet) {
        take(&mut self.has, hosts);
    }

    /// Who lacks the file.
    pub(crate) fn lacking(&self) -> HostSet {
        HostSet::from_ranges(self.lacking.values().flat_map(HostSet::ranges).copied())
    }

    /// What hosts have, as far as they have said.
    pub(crate) fn has(&self) -> &BTreeMap<String, HostSet> {
        &self.has
    }

    fn without(&mut self, hosts: &HostSet, through: u64) {
        self.lacking.retain(|change, set| {
            if *change <= through {
                *set = set.difference(hosts);
            }
            !set.is_empty()
        });
    }
}

/// Takes hosts out of all sets.
fn take<K: Ord>(sets: &mut BTreeMap<K, HostSet>, hosts: &HostSet) {
    sets.retain(|_, set| {
        *set = set.difference(hosts);
        !set.is_empty()
    });
}

#[cfg(test)]
mod tests {
    use mesh::HostId;
    use proptest::prelude::*;

    use super::*;

    const HOSTS: u32 = 4;

    fn one(host: u32) -> HostSet {
        HostSet::one(HostId(host))
    }

    fn by(order: usize) -> OrderId {
        OrderId((order as u128).to_be_bytes())
    }

    fn all() -> HostSet {
        HostSet::from_ranges([(0, HOSTS - 1)])
    }

    #[test]
    fn a_late_word_about_an_older_revision_changes_nothing() {
        let mut standing = Standing::default();
        standing.enter(&all(), 1);
        let first = 1;
        standing.enter(&all(), 2);
        standing.confirm(&one(1), (first, by(1)), "one");
        assert_eq!(standing.lacking(), all());
        standing.confirm(&one(1), (2, by(2)), "two");
        assert_eq!(standing.lacking(), all().difference(&one(1)));
    }

    #[test]
    fn it_is_kept_as_it_is() {
        let mut standing = Standing::default();
        standing.enter(&all(), 1);
        standing.enter(&one(2), 5);
        standing.confirm(&one(3), (5, by(1)), "two");
        standing.drift(&one(1), (5, by(2)));
        let text = serde_json::to_string(&standing).expect("plain");
        assert_eq!(serde_json::from_str::<Standing>(&text).expect("read"), standing);
        standing.leave(&all());
        assert_eq!(standing, Standing::default());
    }

    #[test]
    fn only_what_was_given_after_a_verification_clears_what_it_has_found() {
        let mut standing = Standing::default();
        standing.confirm(&all(), (1, by(1)), "one");
        standing.drift(&one(1), (1, by(3)));
        assert_eq!(
            (standing.lacking(), standing.has()["one"].contains(HostId(1))),
            (one(1), false)
        );
        // Of what was given before it the word comes late.
        standing.confirm(&one(1), (1, by(2)), "one");
        assert_eq!(standing.lacking(), one(1));
        // What was found before tells nothing of what is there now, and clears nothing.
        standing.drift(&one(1), (1, by(2)));
        standing.confirm(&one(1), (1, by(3)), "one");
        assert_eq!(standing.lacking(), one(1));
        standing.confirm(&one(1), (1, by(4)), "one");
        assert_eq!(standing, {
            let mut standing = Standing::default();
            standing.confirm(&all(), (1, by(1)), "one");
            standing
        });
    }

    #[test]
    fn who_lacks_only_what_is_newer_keeps_what_it_has_for_deltas() {
        let mut standing = Standing::default();
        standing.enter(&all(), 1);
        standing.confirm(&all(), (1, by(1)), "v1");
        standing.enter(&all(), 2);
        assert!(standing.drift(&all(), (2, by(2))).is_empty(), "nobody was thought to have v2");
        assert_eq!(standing.has()["v1"], all());
        // What was given before that does not clear it all the same.
        standing.confirm(&one(1), (2, by(1)), "v2");
        assert_eq!((standing.lacking(), &standing.has()["v1"]), (all(), &all()));
    }

    #[test]
    fn what_hosts_find_one_after_the_other_is_kept_of_all_of_them() {
        let mut standing = Standing::default();
        standing.confirm(&all(), (1, by(1)), "one");
        assert_eq!(standing.drift(&one(1), (1, by(3))), one(1));
        assert_eq!(standing.drift(&one(2), (1, by(3))), one(2));
        assert!(standing.drift(&one(2), (1, by(3))).is_empty(), "it is known");
        let both = one(1).union(&one(2));
        standing.confirm(&both, (1, by(2)), "one");
        assert_eq!(standing.lacking(), both, "of what was given before the word comes late");
    }

    #[test]
    fn who_has_left_is_not_entered_by_what_it_finds() {
        let mut standing = Standing::default();
        standing.confirm(&all(), (1, by(1)), "one");
        standing.leave(&one(1));
        let before = standing.clone();
        assert!(standing.drift(&one(1), (1, by(2))).is_empty());
        assert_eq!(standing, before);
    }

    /// What can happen to one file, its hosts and the words between them.
    #[derive(Clone, Debug)]
    enum Step {
        /// It changes.
        Edit,
        /// A host goes to another entry and comes back, or is installed anew.
        Rejoin(u32),
        /// An order is made for a host, perhaps to look only.
        Plan(u32, bool),
        /// An order that was made arrives at its host.
        Arrive(usize),
        /// A word that was said arrives, perhaps again.
        Hear(usize),
        /// Somebody changes it at a host.
        Spoil(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => Just(Step::Edit),
            1 => (0..HOSTS).prop_map(Step::Rejoin),
            5 => (0..HOSTS, any::<u8>()).prop_map(|(host, n)| Step::Plan(host, n % 3 == 0)),
            4 => any::<usize>().prop_map(Step::Arrive),
            4 => any::<usize>().prop_map(Step::Hear),
            1 => (0..HOSTS).prop_map(Step::Spoil),
        ]
    }

    #[derive(Clone, Copy)]
    struct Order {
        host: u32,
        planned: u64,
        revision: u64,
        /// The host only looks.
        looks: bool,
    }

    /// A host's word about an order, by its number.
    #[derive(Clone, Copy)]
    struct Word {
        no: usize,
        order: Order,
        /// If it was to look and has found something else: what it knows of was done until then.
        drifted: Option<u64>,
    }

    /// What a host has: by which order, which revision (0: something else), and how often somebody
    /// has changed it.
    #[derive(Clone, Copy, Default)]
    struct Own {
        order: usize,
        revision: u64,
        spoilt: u64,
        /// How often the controller has been told of it.
        known: u64,
    }

    proptest! {
        /// Whoever does not have the newest revision is never taken for one who has, whatever
        /// comes late, twice or in the wrong sequence; and when all is said nobody is left over.
        #[test]
        fn nobody_who_lacks_it_is_ever_forgotten(
            steps in proptest::collection::vec(step(), 0..120),
        ) {
            let mut standing = Standing::default();
            let (mut change, mut revision) = (1, 1);
            standing.enter(&all(), change);
            let mut orders: Vec<Order> = Vec::new();
            let mut own = [Own::default(); HOSTS as usize];
            let mut words: Vec<Word> = Vec::new();
            let arrive = |no: usize, orders: &[Order], own: &mut [Own]| {
                let order = orders[no - 1];
                let own = &mut own[order.host as usize];
                // Orders are numbered from 1; an older one does not replace a newer.
                (no >= own.order).then(|| {
                    if order.looks {
                        let drifted = (own.revision != order.revision).then_some(own.spoilt);
                        return Word { no, order, drifted };
                    }
                    (own.order, own.revision) = (no, order.revision);
                    Word { no, order, drifted: None }
                })
            };
            let hear = |standing: &mut Standing, own: &mut [Own], word: Word| {
                let Word { no, order, drifted } = word;
                let (host, of) = (one(order.host), (order.planned, by(no)));
                match drifted {
                    Some(spoilt) => {
                        let own = &mut own[order.host as usize];
                        own.known = own.known.max(spoilt);
                        drop(standing.drift(&host, of));
                    }
                    None => standing.confirm(&host, of, &order.revision.to_string()),
                }
            };
            for step in steps {
                match step {
                    Step::Edit => {
                        (change, revision) = (change + 1, revision + 1);
                        standing.enter(&all(), change);
                    }
                    Step::Rejoin(host) => {
                        change += 1;
                        own[host as usize].revision = 0;
                        standing.enter(&one(host), change);
                    }
                    Step::Spoil(host) => {
                        let own = &mut own[host as usize];
                        (own.revision, own.spoilt) = (0, own.spoilt + 1);
                    }
                    Step::Plan(host, looks) => {
                        orders.push(Order { host, planned: change, revision, looks });
                    }
                    Step::Arrive(n) if !orders.is_empty() => {
                        words.extend(arrive(n % orders.len() + 1, &orders, &mut own));
                    }
                    Step::Hear(n) if !words.is_empty() => {
                        hear(&mut standing, &mut own, words[n % words.len()]);
                    }
                    Step::Arrive(_) | Step::Hear(_) => {}
                }
                for (host, own) in (0..HOSTS).zip(own) {
                    // What nobody has looked at since nobody can know.
                    let lacks = own.revision != revision && own.spoilt == own.known;
                    prop_assert!(!lacks || standing.lacking().contains(HostId(host)), "{host}");
                }
            }
            for host in 0..HOSTS {
                orders.push(Order { host, planned: change, revision, looks: false });
                words.extend(arrive(orders.len(), &orders, &mut own));
            }
            words.iter().for_each(|word| hear(&mut standing, &mut own, *word));
            prop_assert!(standing.lacking().is_empty());
        }
    }
}
