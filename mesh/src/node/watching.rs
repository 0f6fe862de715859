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
