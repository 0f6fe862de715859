//! Who is lost in the tree, and who is only unknown behind somebody who is.
//!
//! From who is reachable and who lives below whom follow the causes: the highest nodes that are
//! not reachable. Everybody below such a node is *behind* it, of whom nothing is known. If a node
//! reaches none of its children any more, that is one cause and not as many as it has children.
//!
//! Whoever was behind something needs time to come back after it has: redialling backs off. So
//! such a node is given [`Fallen::returning`] instead of the usual time, also after a start of the
//! controller.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::{HostId, HostSet, Time};

/// The tree as its root knows it.
#[derive(Clone, Copy, Debug)]
pub struct World<'a> {
    /// Everybody who should be there, the root left out.
    pub known: &'a HostSet,
    /// Who is reachable.
    pub up: &'a HostSet,
    /// The own children of nodes that have any, as far as it is said.
    pub branches: &'a BTreeMap<HostId, HostSet>,
    /// Whom each child of the root has below it, for what the branches leave out.
    pub below: &'a BTreeMap<HostId, HostSet>,
}

/// The parent of each node, as the root knows it: from who has which children, and, below a child
/// of the root that says nothing of it, that child.
pub fn parents(
    below: &BTreeMap<HostId, HostSet>,
    branches: &BTreeMap<HostId, HostSet>,
) -> BTreeMap<HostId, HostId> {
    let mut parents = BTreeMap::new();
    for (child, below) in below {
        let parent = |id| if id == *child { HostId::ROOT } else { *child };
        parents.extend(below.iter().map(|id| (id, parent(id))));
    }
    for (parent, hosts) in branches {
        parents.extend(hosts.iter().map(|id| (id, *parent)));
    }
    parents
}

/// What is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// A node.
    Node(HostId),
    /// All that is directly below a node, which itself is reachable.
    Below(HostId),
}

/// A cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// What is lost.
    pub what: What,
    /// Who is unknown because of it. For [`What::Below`] these are those directly below, too.
    pub behind: HostSet,
    /// For how long it must be so.
    pub hold: Duration,
    /// The larger cause, if there is one.
    pub cause: Option<What>,
}

#[derive(Clone, Copy)]
struct Standing {
    parent: HostId,
    up: bool,
    /// When that last changed.
    since: Time,
    /// When it last began to reach somebody below it again, and whether it reaches nobody now.
    whole: Time,
    barren: bool,
}

/// The rule about lost nodes.
pub struct Fallen {
    /// How long a node must be away.
    pub hold: Duration,
    /// How long instead, if what was between has just come back.
    pub returning: Duration,
    nodes: BTreeMap<HostId, Standing>,
}

/// Children from which on their common loss is one cause.
const SEVERAL: usize = 2;
/// No tree is deeper; whoever says so is not believed.
const DEPTH: usize = 64;

impl Fallen {
    /// The rule, before it has seen anything.
    pub fn new(hold: Duration, returning: Duration, now: Time) -> Fallen {
        let root =
            Standing { parent: HostId::ROOT, up: true, since: now, whole: now, barren: false };
        Fallen { hold, returning, nodes: BTreeMap::from([(HostId::ROOT, root)]) }
    }

    /// Looks at the tree. Returns all causes, in the order of [`What`].
    pub fn look(&mut self, now: Time, world: World<'_>) -> Vec<Lost> {
        self.learn(now, world);
        let mut children: BTreeMap<HostId, Vec<HostId>> = BTreeMap::new();
        for (id, node) in self.nodes.iter().filter(|(id, _)| **id != HostId::ROOT) {
            children.entry(node.parent).or_default().push(*id);
        }
        let mut lost = Vec::new();
        for (parent, below) in &children {
            let down: Vec<_> = below.iter().copied().filter(|id| !self.nodes[id].up).collect();
            let all = down.len() == below.len() && below.len() >= SEVERAL;
            let Some(node) = self.nodes.get_mut(parent).filter(|node| node.up) else { continue };
            if std::mem::replace(&mut node.barren, all) && !all {
                // From now on those who are still away have a way back.
                node.whole = now;
            }
            let (way, cause) = (node.since.max(node.whole), all.then_some(What::Below(*parent)));
            let mut own = Vec::new();
            for id in down {
                let hold = if self.nodes[&id].since <= way { self.returning } else { self.hold };
                let behind = self.behind(id, &children);
                own.push(Lost { what: What::Node(id), behind, hold, cause });
            }
            if all {
                let hold = own.iter().map(|lost| lost.hold).min().unwrap_or_default();
                let ranges = own.iter().flat_map(|lost| lost.behind.ranges().iter().copied());
                let behind =
                    HostSet::from_ranges(ranges.chain(below.iter().map(|id| (id.0, id.0))));
                lost.push(Lost { what: What::Below(*parent), behind, hold, cause: None });
            }
            lost.extend(own);
        }
        lost.sort_by_key(|lost| lost.what);
        lost
    }

    /// Whom a node is below.
    pub fn parent(&self, id: HostId) -> Option<HostId> {
        self.nodes.get(&id).map(|node| node.parent)
    }

    fn learn(&mut self, now: Time, world: World<'_>) {
        let parents = parents(world.below, world.branches);
        self.nodes.retain(|id, _| *id == HostId::ROOT || world.known.contains(*id));
        for id in world.known.iter().filter(|id| *id != HostId::ROOT) {
            let up = world.up.contains(id);
            let parent = parents.get(&id).copied().filter(|parent| *parent != id);
            // Who has not been seen since the start was lost before everything else.
            let node = self.nodes.entry(id).or_insert(Standing {
                parent: HostId::ROOT,
                up: false,
                since: Time::ZERO,
                whole: now,
                barren: false,
            });
            node.parent = parent.unwrap_or(node.parent);
            if node.up != up {
                (node.up, node.since, node.whole, node.barren) = (up, now, now, false);
            }
        }
        self.straighten();
    }

    /// Whoever has no way up to the root, as only a liar can make it, hangs on the root.
    fn straighten(&mut self) {
        let ids: Vec<_> = self.nodes.keys().copied().collect();
        for id in ids {
            let (mut at, mut steps) = (id, 0);
            while at != HostId::ROOT && steps <= DEPTH {
                let parent = self.nodes.get(&at).map(|node| node.parent);
                at = parent.unwrap_or(HostId::ROOT);
                steps += 1;
            }
            let known = |parent| self.nodes.contains_key(parent);
            let orphan = self.nodes.get(&id).is_some_and(|node| !known(&node.parent));
            if (steps > DEPTH || orphan)
                && let Some(node) = self.nodes.get_mut(&id)
            {
                node.parent = HostId::ROOT;
            }
        }
    }

    /// Who is below a node and not reachable.
    fn behind(&self, id: HostId, children: &BTreeMap<HostId, Vec<HostId>>) -> HostSet {
        let (mut found, mut open) = (Vec::new(), vec![id]);
        while let Some(at) = open.pop() {
            for below in children.get(&at).into_iter().flatten() {
                if !self.nodes[below].up {
                    found.push((below.0, below.0));
                    open.push(*below);
                }
            }
        }
        HostSet::from_ranges(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLD: Duration = Duration::from_secs(10);
    const RETURNING: Duration = Duration::from_secs(60);

    /// Relays 1 and 2 below the root; 10 to 12 below 1; relay 3 below 2 with 20 and 21.
    struct Tree {
        fallen: Fallen,
        known: HostSet,
        branches: BTreeMap<HostId, HostSet>,
        now: Time,
    }

    impl Tree {
        fn new() -> Tree {
            let set = |ranges: &[(u32, u32)]| HostSet::from_ranges(ranges.iter().copied());
            Tree {
                fallen: Fallen::new(HOLD, RETURNING, Time::ZERO),
                known: set(&[(1, 3), (10, 12), (20, 21)]),
                branches: BTreeMap::from([
                    (HostId(0), set(&[(1, 2)])),
                    (HostId(1), set(&[(10, 12)])),
                    (HostId(2), set(&[(3, 3)])),
                    (HostId(3), set(&[(20, 21)])),
                ]),
                now: Time::ZERO,
            }
        }

        /// What is said a second later, with these down.
        fn look(&mut self, down: &[u32]) -> Vec<(What, u64, Duration, Option<What>)> {
            self.now = self.now + Duration::from_secs(1);
            let down: HostSet = down.iter().map(|id| HostId(*id)).collect();
            let up = self.known.difference(&down);
            let (known, branches) = (&self.known, &self.branches);
            let world = World { known, up: &up, branches, below: &BTreeMap::new() };
            let lost = self.fallen.look(self.now, world);
            lost.into_iter().map(|l| (l.what, l.behind.len(), l.hold, l.cause)).collect()
        }
    }

    fn node(id: u32) -> What {
        What::Node(HostId(id))
    }

    #[test]
    fn a_dead_relay_is_one_cause_with_all_behind_it() {
        let mut tree = Tree::new();
        assert_eq!(tree.look(&[]), []);
        assert_eq!(tree.look(&[2, 3, 20, 21]), [(node(2), 3, HOLD, None)]);
        // It is back, and 20 is not yet: it is given time.
        assert_eq!(tree.look(&[20]), [(node(20), 0, RETURNING, None)]);
        assert_eq!(tree.look(&[]), []);
        assert_eq!(tree.look(&[20]), [(node(20), 0, HOLD, None)]);
        // A host that has found another relay is not behind the dead one.
        assert_eq!(tree.look(&[1, 10, 11]), [(node(1), 2, HOLD, None)]);
    }

    #[test]
    fn who_reaches_none_of_its_children_is_one_cause() {
        let mut tree = Tree::new();
        tree.look(&[]);
        let below = What::Below(HostId(1));
        let each = |id| (node(id), 0, HOLD, Some(below));
        let lost = tree.look(&[10, 11, 12]);
        assert_eq!(lost, [each(10), each(11), each(12), (below, 3, HOLD, None)]);
        // One is back: the others have a way back as well.
        let each = |id| (node(id), 0, RETURNING, None);
        assert_eq!(tree.look(&[10, 11]), [each(10), each(11)]);
        // An only child is lost by itself, and so is each of some.
        assert_eq!(tree.look(&[3, 20, 21]), [(node(3), 2, HOLD, None)]);
    }

    #[test]
    fn at_the_start_everybody_is_given_time() {
        let mut tree = Tree::new();
        let all: Vec<u32> = tree.known.iter().map(|id| id.0).collect();
        let root = What::Below(HostId::ROOT);
        let lost = tree.look(&all);
        let of = [(node(1), 3, RETURNING, Some(root)), (node(2), 3, RETURNING, Some(root))];
        assert_eq!(lost, [of[0], of[1], (root, 8, RETURNING, None)]);
        assert_eq!(tree.look(&[1, 10, 11, 12]), [(node(1), 3, RETURNING, None)]);
        tree.look(&[]);
        let root = (root, 8, HOLD, None);
        assert_eq!(tree.look(&all).last(), Some(&root));
    }

    #[test]
    fn a_tree_that_is_a_lie_ends_all_the_same() {
        let mut tree = Tree::new();
        tree.branches.insert(HostId(3), HostSet::from_ranges([(2, 2), (20, 21)]));
        tree.branches.insert(HostId(0), HostSet::from_ranges([(1, 1)]));
        tree.look(&[]);
        let lost = tree.look(&[2, 3]);
        assert!(lost.iter().any(|(what, ..)| *what == node(2)), "{lost:?}");
        // A relay that was removed leaves its hosts to the root.
        tree.known = HostSet::from_ranges([(1, 1), (10, 12), (20, 21)]);
        assert_eq!(tree.look(&[20]), [(node(20), 0, HOLD, None)]);
    }
}
