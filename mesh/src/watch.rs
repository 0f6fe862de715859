//! Whose output is wanted while it is still being made.
//!
//! A watch is soft state: the set of watched orders comes from above, whole each time, and goes on
//! to the children that lead to somebody who still owes an answer. Nothing of it is kept over a
//! restart or a new parent. Each order in it has a generation, which holds for one link only; a new
//! one asks for the output from its beginning, since somebody new watches or something was lost on
//! the way. What hosts then say is a preview: it may be lost anywhere, and the answer still
//! brings the whole output.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::outbox::Outbox;
use crate::{Frame, HostId, LinkId, OrderId};

/// How many orders can be watched at once.
pub const WATCHED: usize = 64;

/// The longest piece of output in one preview, in bytes.
pub const SAID_BYTES: usize = 16 << 10;

/// Which of a command's two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A preview: what a command has just written at one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The order that the command belongs to.
    pub order: OrderId,
    /// Where it runs.
    pub host: HostId,
    /// Where it was written to.
    pub stream: Stream,
    /// How many bytes of that stream came before.
    pub offset: u64,
    /// What was written, at most [`SAID_BYTES`] and never nothing.
    pub bytes: Bytes,
}

/// The generation of a watched order, as it came and as this node passes it on.
#[derive(Clone, Copy)]
struct Wish {
    above: u64,
    here: u64,
}

/// What is watched, and who was told.
#[derive(Default)]
pub(crate) struct Watch {
    wanted: BTreeMap<OrderId, Wish>,
    generation: u64,
    /// What each child knows; who is not in it knows of nothing.
    told: BTreeMap<LinkId, BTreeMap<OrderId, u64>>,
    stirred: bool,
}

impl Watch {
    /// Takes what is watched from now on. Returns whether that is a change.
    pub(crate) fn want(&mut self, orders: &BTreeMap<OrderId, u64>) -> bool {
        let before = self.generations();
        self.wanted.retain(|order, _| orders.contains_key(order));
        for (order, above) in orders {
            let same = self.wanted.get(order).is_some_and(|wish| wish.above == *above);
            if !same && (self.wanted.contains_key(order) || self.wanted.len() < WATCHED) {
                self.generation += 1;
                self.wanted.insert(*order, Wish { above: *above, here: self.generation });
            }
        }
        let changed = self.generations() != before;
        self.stirred |= changed;
        changed
    }

    /// What is watched, in this node's own generations.
    pub(crate) fn generations(&self) -> BTreeMap<OrderId, u64> {
        self.wanted.iter().map(|(order, wish)| (*order, wish.here)).collect()
    }

    /// Which orders are watched.
    pub(crate) fn orders(&self) -> impl Iterator<Item = OrderId> + '_ {
        self.wanted.keys().copied()
    }

    /// Whether an order is watched.
    pub(crate) fn wants(&self, order: OrderId) -> bool {
        self.wanted.contains_key(&order)
    }

    /// Something has changed below: what children must know may be something else now.
    pub(crate) fn stir(&mut self) {
        self.stirred |= !self.wanted.is_empty();
    }

    /// Whether to look again at what children must know; it is taken as done.
    pub(crate) fn take_stir(&mut self) -> bool {
        std::mem::take(&mut self.stirred)
    }

    /// Tells a child the orders that concern it, unless it knows.
    pub(crate) fn tell(
        &mut self,
        link: LinkId,
        concerns: impl Fn(OrderId) -> bool,
        out: &mut Outbox,
    ) {
        let mut orders = self.generations();
        orders.retain(|order, _| concerns(*order));
        if self.told.get(&link).map_or(orders.is_empty(), |told| *told == orders) {
            return;
        }
        out.send(link, Frame::Watch { orders: orders.clone() });
        self.told.insert(link, orders);
    }

    /// A child's link is gone, and with it what the child was told.
    pub(crate) fn handle_down(&mut self, link: LinkId) {
        self.told.remove(&link);
    }

    /// Nobody can watch an order that is forgotten.
    pub(crate) fn forget(&mut self, order: OrderId) {
        self.stirred |= self.wanted.remove(&order).is_some();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Output;

    fn id(n: u8) -> OrderId {
        OrderId([n; 16])
    }

    fn told(watch: &mut Watch, link: u64, concerns: &[u8]) -> Option<Vec<OrderId>> {
        let mut out = Outbox::default();
        watch.tell(LinkId(link), |order| concerns.contains(&order.0[0]), &mut out);
        match out.pop() {
            Some(Output::Send { frame: Frame::Watch { orders }, .. }) => {
                Some(orders.into_keys().collect())
            }
            Some(other) => panic!("{other:?}"),
            None => None,
        }
    }

    #[test]
    fn a_child_is_told_what_concerns_it_and_only_what_is_new() {
        let mut watch = Watch::default();
        assert_eq!(told(&mut watch, 1, &[1, 2]), None, "nobody watches, so nothing is sent");
        assert!(watch.want(&BTreeMap::from([(id(1), 7), (id(2), 7)])));
        assert!(watch.take_stir() && !watch.take_stir());
        assert_eq!(told(&mut watch, 1, &[1]), Some(vec![id(1)]));
        assert_eq!(told(&mut watch, 2, &[]), None);
        assert_eq!(told(&mut watch, 1, &[1]), None);
        // The last viewer of one has gone.
        assert!(watch.want(&BTreeMap::from([(id(2), 7)])));
        assert_eq!(told(&mut watch, 1, &[1]), Some(vec![]));
        // A new link knows nothing.
        watch.handle_down(LinkId(1));
        assert_eq!(told(&mut watch, 1, &[2]), Some(vec![id(2)]));
        watch.forget(id(2));
        assert!(watch.take_stir() && !watch.wants(id(2)));
        assert_eq!(told(&mut watch, 1, &[2]), Some(vec![]));
    }

    #[test]
    fn a_generation_is_new_when_the_one_above_is_or_when_the_watch_begins_again() {
        let mut watch = Watch::default();
        let mut take = |above: u64| {
            let changed = watch.want(&BTreeMap::from([(id(1), above)]));
            (changed, watch.generations()[&id(1)])
        };
        let first = take(5);
        assert!(first.0);
        assert_eq!(take(5), (false, first.1));
        let second = take(6);
        assert!(second.0 && second.1 != first.1);
        watch.want(&BTreeMap::new());
        assert!(watch.want(&BTreeMap::from([(id(1), 6)])));
        assert!(![first.1, second.1].contains(&watch.generations()[&id(1)]));
    }

    #[test]
    fn what_can_be_watched_is_bounded() {
        let mut watch = Watch::default();
        let many = (0..200).map(|n| (id(n), 1)).collect();
        assert!(watch.want(&many));
        assert_eq!(watch.generations().len(), WATCHED);
        assert!(!watch.want(&many));
    }
}
