//! Content of pushes that are to go slowly: which it is, and how fast it may go over each link.
//!
//! The rate stands in the signed order, so every node on the way knows it. What two orders bring
//! goes as fast as the faster one says. What a host lacks beyond that which its order names, since
//! it could not use a delta, is not known here and goes as fast as any content.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use mesh::{Digest, Order, OrderId};
use protos::{Envelope, OrderBody};

/// The most pieces of content that are kept in mind; the oldest orders go first.
const KEPT: usize = 65_536;

/// Which content is to go slowly.
#[derive(Clone, Default)]
pub(crate) struct Paced(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    by_content: BTreeMap<Digest, (OrderId, u64)>,
    orders: VecDeque<(OrderId, Vec<Digest>)>,
}

impl Paced {
    /// An order has come that brings its content at this rate, in bits a second; 0: any.
    pub(crate) fn note(&self, order: &Order, rate: u64) {
        self.note_within(order, rate, KEPT);
    }

    /// The same, of an order that this node has kept itself.
    pub(crate) fn recall(&self, order: &Order) {
        if order.needs.is_empty() {
            return;
        }
        let envelope = Envelope::decode(order.body.clone()).ok();
        let body = envelope.and_then(|envelope| OrderBody::decode(&envelope.body).ok());
        self.note(order, body.map_or(0, |body| body.rate));
    }

    fn note_within(&self, order: &Order, rate: u64, most: usize) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let content = || order.needs.iter().flat_map(|need| &need.content).copied();
        if rate == 0 {
            // Somebody else wants it as fast as it can go.
            for content in content() {
                kept.by_content.remove(&content);
            }
            return;
        }
        let mut noted = Vec::new();
        for content in content() {
            let slower = kept.by_content.get(&content).is_none_or(|&(_, other)| other < rate);
            if slower {
                kept.by_content.insert(content, (order.id, rate));
                noted.push(content);
            }
        }
        if !noted.is_empty() {
            kept.orders.push_back((order.id, noted));
        }
        while kept.by_content.len() > most || kept.orders.len() > most {
            let Some((oldest, content)) = kept.orders.pop_front() else { break };
            for content in content {
                if kept.by_content.get(&content).is_some_and(|(order, _)| *order == oldest) {
                    kept.by_content.remove(&content);
                }
            }
        }
    }

    /// With which order and how fast a piece of content goes, if it is to go slowly.
    pub(crate) fn find(&self, content: Digest) -> Option<(OrderId, u64)> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.by_content.get(&content).copied()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use mesh::{HostId, HostSet, Need};

    use super::*;

    fn order(id: u8, content: &[u8]) -> Order {
        let hosts = HostSet::one(HostId(1));
        let content = content.iter().map(|n| Digest([*n; 32])).collect();
        Order {
            id: OrderId([id; 16]),
            targets: hosts.clone(),
            needs: vec![Need { hosts, content }],
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
    fn the_faster_of_two_orders_counts_and_the_oldest_are_forgotten() {
        let paced = Paced::default();
        let rate =
            |content| paced.find(Digest([content; 32])).map(|(order, rate)| (order.0[0], rate));
        paced.note_within(&order(1, &[1, 2]), 100, 4);
        paced.note_within(&order(2, &[2, 3]), 200, 4);
        paced.note_within(&order(3, &[3]), 50, 4);
        assert_eq!([rate(1), rate(2), rate(3)], [Some((1, 100)), Some((2, 200)), Some((2, 200))]);
        paced.note_within(&order(4, &[3]), 0, 4);
        assert_eq!(rate(3), None);
        paced.note_within(&order(5, &[4, 5, 6]), 70, 4);
        assert_eq!([rate(1), rate(2), rate(4)], [None, Some((2, 200)), Some((5, 70))]);
    }
}
