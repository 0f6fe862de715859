//! Orders that later orders take back.
//!
//! An order that cancels another is an order like any: signed, with targets, forwarded, saved and
//! answered. Whoever knows it withholds the older one from hosts that have not got it, and a host
//! that is meant carries the older one out no more. The two may come in any sequence and by
//! different parents, so what is remembered is the pair, for as long as the later one lives. Both
//! expire at the same moment: the older one never comes later, nor was it forgotten before.
//!
//! An order that does all that an older one does may supersede it: then there is no third order,
//! and whoever withholds the older one has the newer one to give.

use std::collections::BTreeMap;

use crate::{HostId, HostSet, Order, OrderId, State};

/// For whom an order takes an older one back, and what they say of it.
struct Back {
    hosts: HostSet,
    word: State,
}

/// The orders that were taken back, each with those that did it.
#[derive(Default)]
pub(crate) struct Cancels {
    backs: BTreeMap<OrderId, BTreeMap<OrderId, Back>>,
}

impl Cancels {
    /// Takes note of an order. Returns those that it takes back.
    pub(crate) fn add(&mut self, order: &Order) -> Vec<OrderId> {
        if let Some(older) = order.cancels {
            let word = if order.lapses { State::Expired } else { State::Cancelled };
            self.back(older, order.id, Back { hosts: order.targets.clone(), word });
        }
        for (older, hosts) in &order.supersedes {
            let hosts = hosts.intersection(&order.targets);
            self.back(*older, order.id, Back { hosts, word: State::Skipped });
        }
        olders(order).collect()
    }

    fn back(&mut self, older: OrderId, by: OrderId, back: Back) {
        self.backs.entry(older).or_default().insert(by, back);
    }

    /// What a host says of an order that it never began because it was taken back.
    pub(crate) fn word(&self, order: OrderId, host: HostId) -> Option<State> {
        let backs = self.backs.get(&order).into_iter().flat_map(BTreeMap::values);
        let words = backs.filter(|back| back.hosts.contains(host)).map(|back| back.word);
        words.max_by_key(|word| word.weight())
    }

    /// Those of these hosts for which an order still stands.
    pub(crate) fn spare(&self, order: OrderId, hosts: HostSet) -> HostSet {
        let backs = self.backs.get(&order).into_iter().flat_map(BTreeMap::values);
        backs.fold(hosts, |hosts, back| hosts.difference(&back.hosts))
    }

    /// Forgets an order, and what it took back.
    pub(crate) fn forget(&mut self, order: &Order) {
        for older in olders(order) {
            if let Some(backs) = self.backs.get_mut(&older) {
                backs.remove(&order.id);
                if backs.is_empty() {
                    self.backs.remove(&older);
                }
            }
        }
    }
}

fn olders(order: &Order) -> impl Iterator<Item = OrderId> {
    order.cancels.into_iter().chain(order.supersedes.iter().map(|(older, _)| *older))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;

    fn one(host: u32) -> HostSet {
        HostSet::one(HostId(host))
    }

    fn order(no: u8, targets: &[u32]) -> Order {
        Order {
            id: OrderId([no; 16]),
            targets: targets.iter().map(|host| HostId(*host)).collect(),
            needs: Vec::new(),
            reach: Duration::ZERO,
            hold: Duration::ZERO,
            ttl: Duration::ZERO,
            again: true,
            cancels: None,
            lapses: false,
            supersedes: Vec::new(),
            gate: None,
            body: Bytes::new(),
        }
    }

    #[test]
    fn each_order_is_taken_back_for_as_long_as_somebody_remembers_why() {
        let (older, all) = (OrderId([1; 16]), HostSet::from_ranges([(1, 3)]));
        let newer = order(2, &[1, 3]);
        let newer = Order { supersedes: vec![(older, one(1).union(&one(2)))], ..newer };
        let cancel = Order { cancels: Some(older), ..order(3, &[1, 2]) };
        let mut cancels = Cancels::default();
        assert_eq!(cancels.add(&newer), [older]);
        // Only of its own targets.
        assert_eq!(cancels.spare(older, all.clone()), one(2).union(&one(3)));
        assert_eq!(cancels.word(older, HostId(1)), Some(State::Skipped));
        assert_eq!(cancels.word(older, HostId(2)), None);
        cancels.add(&cancel);
        assert_eq!(cancels.spare(older, all.clone()), one(3));
        assert_eq!(cancels.word(older, HostId(1)), Some(State::Cancelled));
        cancels.forget(&newer);
        assert_eq!(cancels.spare(older, all.clone()), one(3));
        cancels.forget(&cancel);
        assert_eq!(cancels.spare(older, all.clone()), all);
        assert!(cancels.backs.is_empty());
    }
}
