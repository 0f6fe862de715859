//! Who still lacks a file.
//!
//! Every change that hosts must hear of has a number, and numbers only grow. A host is entered
//! with the number of the change that made it lack the file; an order carries the number at which
//! it was planned. A confirmation counts if its order was planned no earlier than the host was
//! entered, and that is the only rule: then the order brought what the change was about, however
//! late, often or in whatever sequence confirmations come. At the host itself an older order never
//! replaces what a newer one has put in place.

use std::collections::BTreeMap;

use mesh::HostSet;
use serde::{Deserialize, Serialize};

/// How one file stands with the hosts that get it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub(crate) struct Standing {
    /// By the number of the change since which they lack it.
    lacking: BTreeMap<u64, HostSet>,
    /// By its root hash what hosts have last said to have, for deltas against it.
    has: BTreeMap<String, HostSet>,
}

type Ranges = Vec<(u32, u32)>;

#[derive(Clone, Serialize, Deserialize)]
struct Stored {
    lacking: BTreeMap<u64, Ranges>,
    has: BTreeMap<String, Ranges>,
}

impl From<Stored> for Standing {
    fn from(stored: Stored) -> Standing {
        Standing {
            lacking: stored
                .lacking
                .into_iter()
                .map(|(n, r)| (n, HostSet::from_ranges(r)))
                .collect(),
            has: stored.has.into_iter().map(|(root, r)| (root, HostSet::from_ranges(r))).collect(),
        }
    }
}

impl From<Standing> for Stored {
    fn from(standing: Standing) -> Stored {
        let ranges = |set: HostSet| set.ranges().to_vec();
        Stored {
            lacking: standing.lacking.into_iter().map(|(n, set)| (n, ranges(set))).collect(),
            has: standing.has.into_iter().map(|(root, set)| (root, ranges(set))).collect(),
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
    }

    /// These hosts have said that they have what an order brought that was planned at this number:
    /// the content of this root hash.
    pub(crate) fn confirm(&mut self, hosts: &HostSet, planned: u64, root: &str) {
        self.without(hosts, planned);
        self.forget(hosts);
        let set = self.has.entry(root.to_owned()).or_default();
        *set = set.union(hosts);
    }

    /// Nobody knows what these hosts have.
    pub(crate) fn forget(&mut self, hosts: &HostSet) {
        self.has.retain(|_, set| {
            *set = set.difference(hosts);
            !set.is_empty()
        });
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

#[cfg(test)]
mod tests {
    use mesh::HostId;
    use proptest::prelude::*;

    use super::*;

    const HOSTS: u32 = 4;

    fn one(host: u32) -> HostSet {
        HostSet::one(HostId(host))
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
        standing.confirm(&one(1), first, "one");
        assert_eq!(standing.lacking(), all());
        standing.confirm(&one(1), 2, "two");
        assert_eq!(standing.lacking(), all().difference(&one(1)));
    }

    #[test]
    fn it_is_kept_as_it_is() {
        let mut standing = Standing::default();
        standing.enter(&all(), 1);
        standing.enter(&one(2), 5);
        standing.confirm(&one(3), 5, "two");
        let text = serde_json::to_string(&standing).expect("plain");
        assert_eq!(serde_json::from_str::<Standing>(&text).expect("read"), standing);
        standing.leave(&all());
        assert_eq!(standing, Standing::default());
    }

    /// What can happen to one file, its hosts and the words between them.
    #[derive(Clone, Debug)]
    enum Step {
        /// It changes.
        Edit,
        /// A host goes to another entry and comes back, or is installed anew.
        Rejoin(u32),
        /// An order is made for a host.
        Plan(u32),
        /// An order that was made arrives at its host.
        Arrive(usize),
        /// A word that was said arrives, perhaps again.
        Hear(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => Just(Step::Edit),
            1 => (0..HOSTS).prop_map(Step::Rejoin),
            4 => (0..HOSTS).prop_map(Step::Plan),
            4 => any::<usize>().prop_map(Step::Arrive),
            4 => any::<usize>().prop_map(Step::Hear),
        ]
    }

    #[derive(Clone, Copy)]
    struct Order {
        host: u32,
        planned: u64,
        revision: u64,
    }

    proptest! {
        /// Whoever does not have the newest revision is never taken for one who has, whatever
        /// comes late, twice or in the wrong sequence; and when all is said nobody is left over.
        #[test]
        fn nobody_who_lacks_it_is_ever_forgotten(steps in proptest::collection::vec(step(), 0..120)) {
            let mut standing = Standing::default();
            let (mut change, mut revision) = (1, 1);
            standing.enter(&all(), change);
            let mut orders: Vec<Order> = Vec::new();
            // For each host the order and the revision in place.
            let mut placed: Vec<(usize, u64)> = vec![(0, 0); HOSTS as usize];
            let mut words: Vec<Order> = Vec::new();
            let arrive = |n: usize, orders: &[Order], placed: &mut Vec<(usize, u64)>| {
                let order = orders[n];
                let own = &mut placed[order.host as usize];
                // Orders are numbered from 1; an older one does not replace a newer.
                (n + 1 >= own.0).then(|| {
                    *own = (n + 1, order.revision);
                    order
                })
            };
            let hear = |standing: &mut Standing, word: Order| {
                standing.confirm(&one(word.host), word.planned, &word.revision.to_string());
            };
            for step in steps {
                match step {
                    Step::Edit => {
                        (change, revision) = (change + 1, revision + 1);
                        standing.enter(&all(), change);
                    }
                    Step::Rejoin(host) => {
                        change += 1;
                        placed[host as usize].1 = 0;
                        standing.enter(&one(host), change);
                    }
                    Step::Plan(host) => orders.push(Order { host, planned: change, revision }),
                    Step::Arrive(n) if !orders.is_empty() => {
                        words.extend(arrive(n % orders.len(), &orders, &mut placed));
                    }
                    Step::Hear(n) if !words.is_empty() => {
                        hear(&mut standing, words[n % words.len()]);
                    }
                    Step::Arrive(_) | Step::Hear(_) => {}
                }
                for host in 0..HOSTS {
                    let lacks = placed[host as usize].1 != revision;
                    prop_assert!(!lacks || standing.lacking().contains(HostId(host)), "{host}");
                }
            }
            for host in 0..HOSTS {
                orders.push(Order { host, planned: change, revision });
                words.extend(arrive(orders.len() - 1, &orders, &mut placed));
            }
            words.iter().for_each(|word| hear(&mut standing, *word));
            prop_assert!(standing.lacking().is_empty());
        }
    }
}
