//! Watches downward and previews upward.
//!
//! A watch follows its order: to the children below which somebody still owes an answer. A
//! preview is taken only from where its host lives, and only while somebody watches.

use std::collections::BTreeMap;

use super::Node;
use crate::{Frame, HostId, HostSet, LinkId, OrderId, Output, Reason, Said, Time};

impl Node {
    /// The parent, or the shell of the root, says what is watched.
    pub(super) fn handle_watch(&mut self, orders: &BTreeMap<OrderId, u64>) {
        if self.watch.want(orders) && !self.config.is_root() {
            self.out.push(Output::Watch { orders: self.watch.generations() });
        }
    }

    /// Tells the children what they must know of the watches, if something has changed.
    pub(super) fn pass_watches(&mut self) {
        if !self.watch.take_stir() {
            return;
        }
        let links: Vec<_> =
            self.routes.children().filter_map(|(host, child)| Some((host, child.link?))).collect();
        for (child, link) in links {
            let owing: Vec<_> =
                self.watch.orders().filter(|order| self.wants(*order, child)).collect();
            self.watch.tell(link, |order| owing.contains(&order), &mut self.out);
        }
    }

    /// A child says what a host below it has written.
    pub(super) fn handle_said(
        &mut self,
        now: Time,
        link: LinkId,
        (child, serves): (HostId, bool),
        said: Said,
    ) {
        if !serves && said.host != child {
            let reason = Reason::Protocol("a host spoke for others than itself");
            return self.hang_up(now, link, reason);
        }
        // Who has just moved may still be heard from where it was.
        if self.routes.child(child).is_some_and(|child| child.below.contains(said.host)) {
            self.pass_said(said);
        }
    }

    /// Passes a preview on, if somebody watches and the host has not answered yet.
    pub(super) fn pass_said(&mut self, said: Said) {
        if !self.watch.wants(said.order) || !self.owes(said.order, said.host) {
            return;
        }
        if self.config.is_root() {
            self.out.push(Output::Preview(said));
        } else if let Some(link) = self.uplink.link() {
            self.out.send(link, Frame::Said(said));
        }
    }

    /// Whether an order is meant for this host and its own word is still to come.
    fn owes(&self, id: OrderId, host: HostId) -> bool {
        let Some(share) = self.shares.get(id) else { return false };
        let is_meant = share.order.as_ref().is_some_and(|order| order.targets.contains(host));
        is_meant && !share.tally.has_settled(&HostSet::one(host))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::Subtree;
    use crate::{Config, Input, Order, Outcome, Peer, Report, Saved, State, Stream, Time};

    const ORDER: OrderId = OrderId([1; 16]);
    const PARENT: LinkId = LinkId(1);

    fn order(targets: &[u32]) -> Arc<Order> {
        Arc::new(Order {
            id: ORDER,
            targets: targets.iter().map(|host| HostId(*host)).collect(),
            needs: Vec::new(),
            reach: Duration::from_secs(5),
            hold: Duration::from_secs(5),
            ttl: Duration::from_secs(60),
            again: false,
            cancels: None,
            lapses: false,
            supersedes: Vec::new(),
            gate: None,
            body: Bytes::from_static(b"order"),
        })
    }

    fn said(host: u32) -> Said {
        let bytes = Bytes::from_static(b"words");
        Said { order: ORDER, host: HostId(host), stream: Stream::Stdout, offset: 0, bytes }
    }

    fn give(node: &mut Node, input: Input) -> Vec<Output> {
        node.handle(Time::ZERO, input);
        std::iter::from_fn(|| node.poll_output()).collect()
    }

    fn hear(node: &mut Node, link: LinkId, frame: Frame) -> Vec<Output> {
        give(node, Input::Frame { link, frame })
    }

    /// A node with a parent, and children with their subtrees on links of the same number.
    fn node(host: u32, children: &[(u32, bool, &[u32])]) -> Node {
        let config = Config::new(HostId(host), 1, !children.is_empty());
        let mut node = Node::new(config, Saved::default(), 1, Time::ZERO);
        let peer = Peer::Parent { place: 0, host: HostId(90) };
        give(&mut node, Input::LinkUp { link: PARENT, peer });
        for (child, serves, below) in children {
            let link = LinkId(u64::from(*child));
            let peer = Peer::Child { host: HostId(*child), serves: *serves };
            give(&mut node, Input::LinkUp { link, peer });
            let below: HostSet = below.iter().map(|host| HostId(*host)).collect();
            hear(
                &mut node,
                link,
                Frame::Below(Subtree { below: below.clone(), up: below, ..Subtree::default() }),
            );
        }
        node
    }

    fn watch(generation: u64) -> Frame {
        Frame::Watch { orders: [(ORDER, generation)].into() }
    }

    /// Whom these outputs tell of watches, and of how many.
    fn watches(outputs: &[Output]) -> Vec<(LinkId, usize)> {
        let watch = |output: &Output| match output {
            Output::Send { link, frame: Frame::Watch { orders } } => Some((*link, orders.len())),
            _ => None,
        };
        outputs.iter().filter_map(watch).collect()
    }

    fn passes(outputs: &[Output], said: &Said) -> bool {
        let up = Output::Send { link: PARENT, frame: Frame::Said(said.clone()) };
        outputs.contains(&up)
    }

    #[test]
    fn a_watch_goes_where_answers_are_owed_whether_it_or_the_order_comes_first() {
        for watch_first in [false, true] {
            let mut node = node(9, &[(10, true, &[10, 11, 12]), (20, true, &[20, 21])]);
            let entry = Frame::Order { log: 1, seq: 1, order: order(&[11]) };
            let frames = match watch_first {
                true => [watch(5), entry],
                false => [entry, watch(5)],
            };
            let told = frames.map(|frame| watches(&hear(&mut node, PARENT, frame)));
            assert_eq!(told, [vec![], vec![(LinkId(10), 1)]]);
            // The host moves to the other child, and the last viewer leaves.
            let below: HostSet = [20, 21, 11].map(HostId).into_iter().collect();
            let moved =
                Frame::Below(Subtree { below: below.clone(), up: below, ..Subtree::default() });
            let told = watches(&hear(&mut node, LinkId(20), moved));
            assert_eq!(told, [(LinkId(10), 0), (LinkId(20), 1)]);
            let none = Frame::Watch { orders: BTreeMap::new() };
            assert_eq!(watches(&hear(&mut node, PARENT, none)), [(LinkId(20), 0)]);
        }
    }

    #[test]
    fn a_preview_passes_from_where_its_host_lives_until_it_has_answered() {
        let mut node = node(9, &[(10, true, &[10, 11]), (20, true, &[20, 21]), (30, false, &[30])]);
        let entry = Frame::Order { log: 1, seq: 1, order: order(&[11, 21, 30]) };
        hear(&mut node, PARENT, entry);
        let said = said(11);
        let frame = Frame::Said(said.clone());
        let from = |node: &mut Node, child| hear(node, LinkId(child), frame.clone());
        assert!(!passes(&from(&mut node, 10), &said), "nobody watches");
        hear(&mut node, PARENT, watch(5));
        assert!(passes(&from(&mut node, 10), &said));
        assert!(!passes(&from(&mut node, 20), &said), "it does not live there");
        let other = Said { host: HostId(10), ..said.clone() };
        assert!(!passes(&hear(&mut node, LinkId(10), Frame::Said(other.clone())), &other));
        let mut report = Report::new(ORDER);
        report.tally.record(Outcome::bare(State::Ok), &HostSet::one(HostId(11)));
        hear(&mut node, LinkId(10), Frame::Report { log: 1, seq: 1, report });
        assert!(!passes(&from(&mut node, 10), &said), "it has answered");
        let outputs = from(&mut node, 30);
        assert!(matches!(outputs[0], Output::Hangup { link: LinkId(30), .. }), "{outputs:?}");
    }

    #[test]
    fn a_new_link_to_a_parent_begins_with_the_first_byte() {
        let mut node = node(9, &[]);
        let wanted = |outputs: Vec<Output>| {
            outputs.into_iter().find_map(|output| match output {
                Output::Watch { orders } => Some(orders.get(&ORDER).copied()),
                _ => None,
            })
        };
        let first = wanted(hear(&mut node, PARENT, watch(1))).flatten().expect("it is new");
        assert_eq!(wanted(hear(&mut node, PARENT, watch(1))), None);
        assert_eq!(wanted(give(&mut node, Input::LinkDown { link: PARENT })), Some(None));
        let (link, host) = (LinkId(2), HostId(91));
        give(&mut node, Input::LinkUp { link, peer: Peer::Parent { place: 0, host } });
        // The new parent counts from one as well.
        let second = wanted(hear(&mut node, link, watch(1))).flatten().expect("it is new");
        assert_ne!(first, second);
        let third = wanted(hear(&mut node, link, watch(2))).flatten().expect("it is new");
        assert_ne!(second, third);
    }
}
