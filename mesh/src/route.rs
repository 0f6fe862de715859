//! Who lives below which child.
//!
//! Each child announces its subtree: everybody known there, and who of them is reachable now. A
//! host that is announced by two children (it moved) belongs to the one through which it is
//! reachable, and of two such to the later. A child that is believed and then loses the host gives
//! it back to the other: that one has said what it had to say and will not say it again. What a
//! child once announced is kept when its link goes, so that a host that is away still has a place
//! where its orders wait.

use std::collections::BTreeMap;

use crate::wake::Deadline;
use crate::{HostId, HostSet, LinkId, Subtree, Time, Wake};

/// A direct child and its subtree.
#[derive(Default)]
pub(crate) struct Child {
    pub(crate) link: Option<LinkId>,
    pub(crate) below: HostSet,
    pub(crate) up: HostSet,
    /// Whom it last said that it reaches, whoever else is believed.
    claims_up: HostSet,
    /// What it says of those who are degraded, who are silent, and of whose children live where.
    degraded: HostSet,
    silent: HostSet,
    branches: BTreeMap<HostId, HostSet>,
    pub(crate) lost_at: Option<Time>,
    /// Whether it has no link because nothing was heard of it, not because somebody closed it.
    hushed: bool,
}

impl Child {
    /// Who of its subtree has fallen silent: as it says itself, or, while it is away, everybody
    /// behind it, since nobody else would know of their end.
    fn silent(&self, host: HostId) -> HostSet {
        let me = HostSet::one(host);
        let silent = match self.link {
            Some(_) => self.silent.difference(&me),
            None if self.hushed => self.below.clone(),
            None => self.below.difference(&me),
        };
        silent.intersection(&self.below).difference(&self.up)
    }
}

/// Children whose subtree has changed, each with those who are routed through it only now.
pub(crate) type Moves = BTreeMap<HostId, HostSet>;

/// The routing table of one node.
pub(crate) struct Routes {
    me: HostId,
    degraded: bool,
    children: BTreeMap<HostId, Child>,
    links: BTreeMap<LinkId, HostId>,
    announce_at: Option<Time>,
}

impl Routes {
    pub(crate) fn new(me: HostId, saved: Vec<(HostId, HostSet)>, now: Time) -> Routes {
        let hushed = true;
        let child =
            |(host, below)| (host, Child { below, lost_at: Some(now), hushed, ..Child::default() });
        let children = saved.into_iter().map(child).collect();
        Routes { me, degraded: false, children, links: BTreeMap::new(), announce_at: None }
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

    /// Reacts to the end of a link, which may have been that nothing was heard by it. Returns the
    /// child whose link it was, and who has moved.
    pub(crate) fn handle_down(
        &mut self,
        now: Time,
        link: LinkId,
        hushed: bool,
    ) -> Option<(HostId, Moves)> {
        let host = self.links.remove(&link)?;
        let child = self.children.get_mut(&host).expect("a link belongs to a known child");
        (child.link, child.lost_at, child.hushed) = (None, Some(now), hushed);
        (child.up, child.claims_up) = (HostSet::new(), HostSet::new());
        child.degraded = HostSet::new();
        let mut moves = Moves::new();
        let stay = self.give_up(host, &mut moves);
        self.children.entry(host).or_default().below = stay;
        Some((host, moves))
    }

    /// Takes what a child says of its subtree. Returns who has moved, and whether the table has
    /// changed.
    pub(crate) fn handle_below(&mut self, host: HostId, subtree: Subtree) -> (Moves, bool) {
        let Subtree { below, up, degraded, silent, branches } = subtree;
        let claims = below.difference(&HostSet::one(self.me));
        let up = up.intersection(&claims);
        let child = self.children.entry(host).or_default();
        let (old, old_up) = (child.below.clone(), child.up.clone());
        (child.claims_up, child.lost_at) = (up.clone(), None);
        let same = child.degraded == degraded && child.silent == silent;
        let other = !same || child.branches != branches;
        (child.degraded, child.silent, child.branches) = (degraded, silent, branches);
        let mut moves = Moves::new();
        let given_back = old.difference(&self.give_up(host, &mut moves));
        let mut mine = claims.difference(&given_back);
        // Who is reachable through another child, and not through this one, stays there.
        for (_, other) in self.children.iter().filter(|(other, _)| **other != host) {
            let both = other.claims_up.intersection(&mine).intersection(&other.below);
            if !both.is_empty() {
                mine = mine.difference(&both.difference(&up));
            }
        }
        for (id, other) in self.children.iter_mut().filter(|(other, _)| **other != host) {
            let taken = other.below.intersection(&mine);
            if !taken.is_empty() {
                other.below = other.below.difference(&taken);
                other.up = other.up.difference(&taken);
                moves.entry(*id).or_default();
            }
        }
        let child = self.children.entry(host).or_default();
        child.up = up.intersection(&mine);
        child.below = mine;
        let changed = other || child.below != old || child.up != old_up || !moves.is_empty();
        if child.below != old {
            moves.insert(host, child.below.difference(&old));
        }
        (moves, changed)
    }

    /// Routes those whom a child does not reach any more through another that does: it said so
    /// before, while this one was believed. Returns who stays with the child.
    fn give_up(&mut self, host: HostId, moves: &mut Moves) -> HostSet {
        let Some(child) = self.children.get(&host) else { return HostSet::new() };
        let mut stay = child.below.clone();
        let mut away = stay.difference(&child.claims_up);
        if away.is_empty() {
            return stay;
        }
        for (id, other) in self.children.iter_mut().filter(|(other, _)| **other != host) {
            let back = other.claims_up.intersection(&away);
            if !back.is_empty() {
                (stay, away) = (stay.difference(&back), away.difference(&back));
                other.below = other.below.union(&back);
                other.up = other.up.union(&back);
                moves.insert(*id, back);
                moves.entry(host).or_default();
            }
        }
        stay
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

    /// All that this node says of its subtree. A branch is believed as far as it is routed here.
    pub(crate) fn subtree(&self) -> Subtree {
        let own = self.children.iter().filter(|(host, child)| child.below.contains(**host));
        let own: HostSet = own.map(|(host, _)| *host).collect();
        let mut degraded: Vec<_> =
            self.degraded.then_some((self.me.0, self.me.0)).into_iter().collect();
        let (mut all, mut room) = (Subtree::default(), Subtree::room());
        let mut silent = Vec::new();
        for (host, child) in &self.children {
            degraded.extend(child.degraded.intersection(&child.up).ranges());
            silent.extend(child.silent(*host).ranges());
        }
        all.add_branch(&mut room, self.me, own);
        for child in self.children.values() {
            for (relay, hosts) in child.branches.iter().filter(|(r, _)| child.below.contains(**r)) {
                all.add_branch(&mut room, *relay, hosts.intersection(&child.below));
            }
        }
        (all.below, all.up) = (self.below(), self.up());
        all.degraded = HostSet::from_ranges(degraded);
        all.silent = HostSet::from_ranges(silent);
        all
    }

    /// Says whether this node is degraded itself. Returns whether that is news.
    pub(crate) fn set_degraded(&mut self, degraded: bool) -> bool {
        std::mem::replace(&mut self.degraded, degraded) != degraded
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

    fn says(below: HostSet, up: HostSet) -> Subtree {
        Subtree { below, up, ..Subtree::default() }
    }

    #[test]
    fn a_host_that_moved_belongs_where_it_is_reachable() {
        let mut routes = Routes::new(HostId(0), Vec::new(), Time::ZERO);
        let (a, b) = (HostId(1), HostId(2));
        routes.handle_up(LinkId(1), a);
        routes.handle_up(LinkId(2), b);
        routes.handle_below(a, says(hosts(10, 12), hosts(10, 12)));
        // It moved to b, and a says so a little later: still b's.
        let (moves, changed) = routes.handle_below(b, says(hosts(12, 13), hosts(12, 13)));
        assert!(changed);
        assert_eq!(moves, Moves::from([(a, HostSet::new()), (b, hosts(12, 13))]));
        routes.handle_below(a, says(hosts(10, 12), hosts(10, 11)));
        assert_eq!(routes.child(a).map(|c| c.below.clone()), Some(hosts(10, 11)));
        assert_eq!(routes.child(b).map(|c| c.below.clone()), Some(hosts(12, 13)));
        // b's link goes: nobody is reachable there, and the place stays known.
        assert_eq!(routes.handle_down(Time::ZERO, LinkId(2), false), Some((b, Moves::new())));
        assert_eq!(routes.below(), HostSet::from_ranges([(0, 0), (10, 13)]));
        assert_eq!(routes.up(), HostSet::from_ranges([(0, 0), (10, 11)]));
    }

    #[test]
    fn a_host_that_was_claimed_in_error_is_given_back() {
        let (a, b) = (HostId(1), HostId(2));
        let both = || {
            let mut routes = Routes::new(HostId(0), Vec::new(), Time::ZERO);
            routes.handle_up(LinkId(1), a);
            routes.handle_up(LinkId(2), b);
            routes.handle_below(b, says(hosts(12, 12), hosts(12, 12)));
            // a has not noticed yet that it has lost 12, and speaks last.
            routes.handle_below(a, says(hosts(10, 12), hosts(10, 12)));
            assert_eq!(routes.child(b).map(|c| c.below.clone()), Some(HostSet::new()));
            routes
        };
        let back = Moves::from([(a, HostSet::new()), (b, hosts(12, 12))]);
        let mut routes = both();
        assert_eq!(routes.handle_below(a, says(hosts(10, 12), hosts(10, 11))).0, back);
        assert_eq!(routes.child(b).map(|c| c.up.clone()), Some(hosts(12, 12)));
        let mut routes = both();
        assert_eq!(routes.handle_down(Time::ZERO, LinkId(1), false), Some((a, back)));
        assert_eq!(routes.up(), HostSet::from_ranges([(0, 0), (12, 12)]));
    }

    #[test]
    fn a_newer_link_of_the_same_child_replaces_the_older() {
        let mut routes = Routes::new(HostId(0), Vec::new(), Time::ZERO);
        assert_eq!(routes.handle_up(LinkId(1), HostId(5)), None);
        assert_eq!(routes.handle_up(LinkId(2), HostId(5)), Some(LinkId(1)));
        assert_eq!(routes.handle_down(Time::ZERO, LinkId(1), false), None);
        assert_eq!(routes.linked(), 1);
    }

    #[test]
    fn who_lives_where_and_who_is_degraded_is_passed_on_as_far_as_it_is_routed_here() {
        let mut routes = Routes::new(HostId(0), Vec::new(), Time::ZERO);
        let (a, b) = (HostId(1), HostId(2));
        routes.handle_up(LinkId(1), a);
        routes.handle_up(LinkId(2), b);
        let degraded = hosts(10, 11);
        let branches = BTreeMap::from([(a, hosts(10, 12)), (HostId(77), hosts(10, 10))]);
        let below = hosts(1, 1).union(&hosts(10, 12));
        let told = Subtree { degraded, branches, ..says(below.clone(), below) };
        assert!(routes.handle_below(a, told.clone()).1);
        assert!(!routes.handle_below(a, told).1, "nothing is new");
        // 11 moves to b, where it is well; a's word about it counts no more.
        let below = hosts(2, 2).union(&hosts(11, 11));
        routes.handle_below(b, says(below.clone(), below));
        assert!(routes.set_degraded(true) && !routes.set_degraded(true));
        let all = routes.subtree();
        assert_eq!(all.degraded, HostSet::from_ranges([(0, 0), (10, 10)]));
        let left = HostSet::from_ranges([(10, 10), (12, 12)]);
        assert_eq!(all.branches, BTreeMap::from([(HostId(0), hosts(1, 2)), (a, left)]));
        routes.handle_down(Time::ZERO, LinkId(1), false);
        assert_eq!(routes.subtree().degraded, hosts(0, 0));
        assert_eq!(routes.subtree().branches.len(), 2, "its place stays known");
    }

    #[test]
    fn silent_is_who_has_not_said_goodbye_and_who_is_behind_somebody_who_is_away() {
        let saved = vec![(HostId(7), hosts(7, 7))];
        let mut routes = Routes::new(HostId(0), saved, Time::ZERO);
        let (relay, host) = (HostId(1), HostId(2));
        let silent = |routes: &Routes| routes.subtree().silent;
        assert_eq!(silent(&routes), hosts(7, 7), "nothing was heard of it since the start");
        routes.handle_up(LinkId(7), HostId(7));
        routes.handle_up(LinkId(1), relay);
        routes.handle_up(LinkId(2), host);
        routes.handle_below(HostId(7), says(hosts(7, 7), hosts(7, 7)));
        routes.handle_below(host, says(hosts(2, 2), hosts(2, 2)));
        // 11 has fallen silent behind the relay, 12 has ended.
        let below = hosts(1, 1).union(&hosts(10, 12));
        let up = hosts(1, 1).union(&hosts(10, 10));
        let told = Subtree { silent: hosts(11, 11), ..says(below.clone(), up) };
        assert!(routes.handle_below(relay, told.clone()).1);
        assert!(!routes.handle_below(relay, told.clone()).1, "nothing is new");
        assert_eq!(silent(&routes), hosts(11, 11));
        routes.handle_down(Time::ZERO, LinkId(2), false);
        routes.handle_down(Time::ZERO, LinkId(7), true);
        assert_eq!(silent(&routes), hosts(7, 7).union(&hosts(11, 11)));
        // A relay that has ended takes along who would know of those behind it.
        routes.handle_down(Time::ZERO, LinkId(1), false);
        assert_eq!(silent(&routes), hosts(7, 7).union(&hosts(10, 12)));
        routes.handle_up(LinkId(3), relay);
        routes.handle_below(relay, Subtree { silent: HostSet::new(), ..told });
        routes.handle_up(LinkId(4), HostId(7));
        assert_eq!(silent(&routes), HostSet::new());
    }
}
