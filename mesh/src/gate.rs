//! Who may begin a gated order, as far as this node has heard, and which child has been told.
//!
//! A release is soft state: it comes from above, as often as links come and go, and joins what is
//! known already. It ends by itself, since each node knows for how long its hosts still may begin;
//! what is left of that travels with it. Who decides on releases is [`window`](crate::window) at
//! the root; here is only what every node does with them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::agenda::Agenda;
use crate::outbox::Outbox;
use crate::wake::Deadline;
use crate::{Frame, HostId, HostSet, LinkId, OrderId, Time, Wake};

/// Releases that end within the same quarter of a second end together, so that a run over many
/// hosts, one after the other, costs a few of them.
const GRAIN: u64 = 250;

/// What is known of the releases of one order.
#[derive(Default)]
struct Released {
    /// Everybody.
    hosts: HostSet,
    /// Those who may still begin, by when they no longer may.
    lots: BTreeMap<Time, HostSet>,
}

/// The releases that a node knows of.
pub(crate) struct Gates {
    most: usize,
    orders: BTreeMap<OrderId, Released>,
    /// Whom each child knows to be released.
    told: BTreeMap<LinkId, BTreeMap<OrderId, HostSet>>,
    /// When this host itself may begin no more.
    mine: Agenda,
    stirred: bool,
}

impl Gates {
    /// `most`: the orders of which releases are remembered.
    pub(crate) fn new(most: usize) -> Gates {
        let (orders, told) = Default::default();
        Gates { most, orders, told, mine: Agenda::default(), stirred: false }
    }

    /// These hosts may begin until then. Who was released before keeps the time it had.
    pub(crate) fn release(&mut self, order: OrderId, hosts: &HostSet, until: Time, me: HostId) {
        if !self.orders.contains_key(&order) && self.orders.len() >= self.most {
            return;
        }
        let released = self.orders.entry(order).or_default();
        let fresh = hosts.difference(&released.hosts);
        if fresh.is_empty() {
            return;
        }
        released.hosts = released.hosts.union(&fresh);
        let lot = released.lots.entry(rounded(until)).or_default();
        *lot = lot.union(&fresh);
        if fresh.contains(me) {
            self.mine.set(order, rounded(until));
        }
        self.stirred = true;
    }

    /// Whether this host may begin now.
    pub(crate) fn lets(&self, order: OrderId, me: HostId, now: Time) -> bool {
        let released = self.orders.get(&order);
        released.is_some_and(|released| {
            released.lots.range(after(now)..).any(|(_, hosts)| hosts.contains(me))
        })
    }

    /// Everybody who was ever released, as far as this node knows.
    pub(crate) fn hosts(&self, order: OrderId) -> HostSet {
        self.orders.get(&order).map(|released| released.hosts.clone()).unwrap_or_default()
    }

    /// Something has changed below: children may have to be told.
    pub(crate) fn stir(&mut self) {
        self.stirred |= !self.orders.is_empty();
    }

    /// Whether to look again at what children must know; it is taken as done.
    pub(crate) fn take_stir(&mut self) -> bool {
        std::mem::take(&mut self.stirred)
    }

    /// The orders of which somebody may still begin. What is over is forgotten, in whole if the
    /// order itself never came.
    pub(crate) fn open(&mut self, now: Time, known: impl Fn(OrderId) -> bool) -> Vec<OrderId> {
        self.orders.retain(|order, released| {
            released.lots = released.lots.split_off(&after(now));
            !released.lots.is_empty() || known(*order)
        });
        let open = self.orders.iter().filter(|(_, released)| !released.lots.is_empty());
        open.map(|(order, _)| *order).collect()
    }

    /// Tells a child of the releases among these hosts, unless it knows.
    pub(crate) fn tell(
        &mut self,
        now: Time,
        link: LinkId,
        order: OrderId,
        among: &HostSet,
        out: &mut Outbox,
    ) {
        let Some(released) = self.orders.get(&order) else { return };
        let told = self.told.entry(link).or_default().entry(order).or_default();
        for (until, lot) in released.lots.range(after(now)..) {
            let hosts = lot.intersection(among).difference(told);
            if !hosts.is_empty() {
                *told = told.union(&hosts);
                let left = until.since(now);
                out.send(link, Frame::Go { order, hosts, left });
            }
        }
    }

    /// A child's link is gone, and with it what the child was told.
    pub(crate) fn handle_down(&mut self, link: LinkId) {
        self.told.remove(&link);
    }

    /// The orders that this host was to begin by now.
    pub(crate) fn take_late(&mut self, now: Time) -> Vec<OrderId> {
        self.mine.take_due(now)
    }

    pub(crate) fn forget(&mut self, order: OrderId) {
        self.orders.remove(&order);
        self.mine.clear(order);
        self.told.values_mut().for_each(|told| drop(told.remove(&order)));
    }

    pub(crate) fn poll_timeout(&self) -> Deadline {
        self.mine.next().map(|at| (at, Wake::Gate))
    }
}

fn rounded(at: Time) -> Time {
    let millis = u64::try_from(at.0.as_millis()).unwrap_or(u64::MAX);
    Time(Duration::from_millis(millis - millis % GRAIN))
}

/// The first moment that is later.
fn after(now: Time) -> Time {
    now + Duration::from_nanos(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Output;

    const ORDER: OrderId = OrderId([1; 16]);
    const LINK: LinkId = LinkId(1);
    const NOBODY: HostId = HostId(99);

    fn at(secs: u64) -> Time {
        Time::ZERO + Duration::from_secs(secs)
    }

    fn hosts(first: u32, last: u32) -> HostSet {
        HostSet::from_ranges([(first, last)])
    }

    fn told(gates: &mut Gates, now: Time, among: &HostSet) -> Vec<(HostSet, Duration)> {
        let mut out = Outbox::default();
        gates.tell(now, LINK, ORDER, among, &mut out);
        let frames = std::iter::from_fn(|| out.pop()).map(|output| match output {
            Output::Send { frame: Frame::Go { hosts, left, .. }, .. } => (hosts, left),
            other => panic!("{other:?}"),
        });
        frames.collect()
    }

    #[test]
    fn a_child_is_told_once_on_each_link_and_of_what_is_left() {
        let mut gates = Gates::new(4);
        gates.release(ORDER, &hosts(1, 3), at(10), NOBODY);
        gates.release(ORDER, &hosts(2, 5), at(20), NOBODY);
        assert!(gates.take_stir() && !gates.take_stir());
        let secs = Duration::from_secs;
        let all = [(hosts(2, 3), secs(9)), (hosts(4, 4), secs(19))];
        assert_eq!(told(&mut gates, at(1), &hosts(2, 4)), all);
        assert_eq!(told(&mut gates, at(1), &hosts(2, 4)), []);
        assert_eq!(told(&mut gates, at(2), &hosts(1, 4)), [(hosts(1, 1), secs(8))]);
        gates.handle_down(LINK);
        assert_eq!(told(&mut gates, at(10), &hosts(1, 9)), [(hosts(4, 5), secs(10))]);
        gates.release(ORDER, &hosts(1, 5), at(30), NOBODY);
        gates.handle_down(LINK);
        assert_eq!(told(&mut gates, at(20), &hosts(1, 9)), [], "a second release adds no time");
        assert_eq!(gates.hosts(ORDER), hosts(1, 5));
    }

    #[test]
    fn a_host_may_begin_until_its_time_is_over() {
        let mut gates = Gates::new(4);
        assert!(!gates.lets(ORDER, HostId(3), at(0)));
        gates.release(ORDER, &hosts(1, 3), at(10), HostId(3));
        assert!(gates.lets(ORDER, HostId(3), at(9)) && !gates.lets(ORDER, HostId(4), at(9)));
        assert!(!gates.lets(ORDER, HostId(3), at(10)));
        assert_eq!(gates.poll_timeout(), Some((at(10), Wake::Gate)));
        assert_eq!((gates.take_late(at(9)), gates.take_late(at(10))), (vec![], vec![ORDER]));
    }

    #[test]
    fn what_never_comes_is_forgotten_and_there_is_a_limit() {
        let mut gates = Gates::new(2);
        for n in 0..3 {
            gates.release(OrderId([n; 16]), &hosts(1, 1), at(10), NOBODY);
        }
        assert_eq!(gates.open(at(9), |_| false).len(), 2);
        assert_eq!(gates.open(at(10), |order| order == OrderId([0; 16])), []);
        assert_eq!(gates.orders.len(), 1);
        gates.forget(OrderId([0; 16]));
        assert!(gates.orders.is_empty());
    }
}
