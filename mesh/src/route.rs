//! Who lives below which child.
//!
//! Each child announces its subtree: everybody known there, and who of them is reachable now. A
//! host that is announced by two children (it moved) belongs to the one through which it is
//! reachable, and of two such to the later. What a child once announced is kept when its link
//! goes, so that a host that is away still has a place where its orders wait.

use std::collections::BTreeMap;

use crate::io::Deadline;
use crate::{HostId, HostSet, LinkId, Time, Wake};

/// A direct child and its subtree.
#[derive(Default)]
pub(crate) struct Child {
    pub(crate) link: Option<LinkId>,
    pub(crate) below: HostSet,
    pub(crate) up: HostSet,
    pub(crate) lost_at: Option<Time>,
}

/// The routing table of one node.
pub(crate) struct Routes {
    me: HostId,
    children: BTreeMap<HostId, Child>,
    links: BTreeMap<LinkId, HostId>,
    announce_at: Option<Time>,
}

impl Routes {
    pub(crate) fn new(me: HostId, saved: Vec<(HostId, HostSet)>, now: Time) -> Routes {
        let child = |(host, below)| (host, Child { below, lost_at: Some(now), ..Child::default() });
        let children = saved.into_iter().map(child).collect();
        Routes { me, children, links: BTreeMap::new(), announce_at: None }
    }

    /// Takes a child's new link. Returns the older link that it replaces.
    pub(crate) fn handle_up(&mut self, link: LinkId, host: HostId) -> Option<LinkId> {
        let old = self.children.entry(host).or_default().link.replace(link);
        if let Some(old) = old {
            self.links.remove(&old);
        }
        self.links.insert(link, host);
        old
    }

    /// Reacts to the end of a link. Returns the child whose link it was.
    pub(crate) fn handle_down(&mut self, now: Time, link: LinkId) -> Option<HostId> {
        let host = self.links.remove(&link)?;
        let child = self.children.get_mut(&host).expect("a link belongs to a known child");
        (child.link, child.lost_at) = (None, Some(now));
        child.up = HostSet::new();
        Some(host)
    }

    /// Takes what a child says of its subtree. Returns those who were not routed there before,
    /// and whether the table has changed.
    pub(crate) fn handle_below(
        &mut self,
        host: HostId,
        below: HostSet,
        up: HostSet,
    ) -> (HostSet, bool) {
        let mut below = below.difference(&HostSet::one(self.me));
        let up = up.intersection(&below);
        for (_, other) in self.children.iter_mut().filter(|(other, _)| **other != host) {
            let both = other.below.intersection(&below);
            if both.is_empty() {
                continue;
            }
            let theirs = other.up.intersection(&both).difference(&up);
            below = below.difference(&theirs);
            other.below = other.below.difference(&both.difference(&theirs));
            other.up = other.up.intersection(&other.below);
        }
        let child = self.children.entry(host).or_default();
        let news = below.difference(&child.below);
        let changed = child.below != below || child.up != up;
        (child.below, child.up, child.lost_at) = (below, up, None);
        (news, changed)
    }

    /// Asks for an announcement to the parent, folded with others that follow at once.
    pub(crate) fn announce_by(&mut self, at: Time) {
        self.announce_at = Some(self.announce_at.map_or(at, |old| old.min(at)));
    }

    /// Whether an announcement is due; it is taken as made.
    pub(crate) fn announcement_due(&mut self, now: Time) -> bool {
        self.announce_at.take_if(|at| *at <= now).is_some()
    }

    pub(crate) fn poll_timeout(&self) -> Deadline {
        self.announce_at.map(|at| (at, Wake::Announce))
    }

    pub(crate) fn child(&self, host: HostId) -> Option<&Child> {
        self.children.get(&host)
    }

    pub(crate) fn children(&self) -> impl Iterator<Item = (HostId, &Child)> {
        self.children.iter().map(|(host, child)| (*host, child))
    }

    /// Whether this child is linked.
    pub(crate) fn has_link(&self, host: HostId) -> bool {
        self.child(host).is_some_and(|child| child.link.is_some())
    }

    /// How many children are linked.
    pub(crate) fn linked(&self) -> usize {
        self.links.len()
    }

    /// Everybody known in this subtree, this node included.
    pub(crate) fn below(&self) -> HostSet {
        self.collect(|child| &child.below)
    }

    /// Everybody reachable in this subtree, this node included.
    pub(crate) fn up(&self) -> HostSet {
        self.collect(|child| &child.up)
    }

    fn collect(&self, of: impl Fn(&Child) -> &HostSet) -> HostSet {
        let ranges = self.children.values().flat_map(|child| of(child).ranges().iter().copied());
        HostSet::from_ranges(ranges.chain([(self.me.0, self.me.0)]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(first: u32, last: u32) -> HostSet {
        HostSet::from_ranges([(first, last)])
    }

    #[test]
    fn a_host_that_moved_belongs_where_it_is_reachable() {
        let mut routes = Routes::new(HostId(0), Vec::new(), Time::ZERO);
        let (a, b) = (HostId(1), HostId(2));
        routes.handle_up(LinkId(1), a);
        routes.handle_up(LinkId(2), b);
        routes.handle_below(a, hosts(10, 12), hosts(10, 12));
        // It moved to b, and a says so a little later: still b's.
        let (news, changed) = routes.handle_below(b, hosts(12, 13), hosts(12, 13));
        assert!(changed);
        assert_eq!(news, hosts(12, 13));
        routes.handle_below(a, hosts(10, 12), hosts(10, 11));
        assert_eq!(routes.child(a).map(|c| c.below.clone()), Some(hosts(10, 11)));
        assert_eq!(routes.child(b).map(|c| c.below.clone()), Some(hosts(12, 13)));
        // b's link goes: nobody is reachable there, and the place stays known.
        assert_eq!(routes.handle_down(Time::ZERO, LinkId(2)), Some(b));
        assert_eq!(routes.below(), HostSet::from_ranges([(0, 0), (10, 13)]));
        assert_eq!(routes.up(), HostSet::from_ranges([(0, 0), (10, 11)]));
    }

    #[test]
    fn a_newer_link_of_the_same_child_replaces_the_older() {
        let mut routes = Routes::new(HostId(0), Vec::new(), Time::ZERO);
        assert_eq!(routes.handle_up(LinkId(1), HostId(5)), None);
        assert_eq!(routes.handle_up(LinkId(2), HostId(5)), Some(LinkId(1)));
        assert_eq!(routes.handle_down(Time::ZERO, LinkId(1)), None);
        assert_eq!(routes.linked(), 1);
    }
}
