//! Where the bus has too little room: links drop what they cannot hold. Here it is known what was
//! dropped and where; so in a healthy tree everything else must be heard, in the sequence of each
//! publisher, and have crossed no link twice or for nothing. Readers who are slow are not the
//! core's: the shell has them, and its own tests.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mesh::{Frame, LinkId};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::bus::{Key, LAST, WITHIN, interest};
use crate::checks::Violation;
use crate::net::{Phase, Side};
use crate::sim::Sim;

/// How many messages each speaker says.
const WORDS: usize = 12;
/// How many messages a link holds in bad weather.
const ROOM: usize = 4;
/// What somebody listens to who does not want to hear them.
const OTHER: &str = "c";

/// Links with little room.
pub(crate) struct Crowd {
    /// How many messages and answers a link holds in each direction.
    pub(crate) room: usize,
    /// How many are on their way, by their link and to which side.
    waiting: BTreeMap<(LinkId, usize), usize>,
    /// What has crossed a link, from whom to whom, or found no room there.
    crossed: Vec<(usize, usize, Key)>,
    dropped: BTreeSet<(usize, usize, Key)>,
    /// What each node has heard, in its sequence.
    heard: BTreeMap<usize, Vec<Key>>,
}

impl Default for Crowd {
    fn default() -> Crowd {
        Crowd::with(ROOM)
    }
}

impl Crowd {
    fn with(room: usize) -> Crowd {
        let (waiting, crossed) = (BTreeMap::new(), Vec::new());
        Crowd { room, waiting, crossed, dropped: BTreeSet::new(), heard: BTreeMap::new() }
    }

    /// A message is there for the programs at a node.
    pub(crate) fn heard(&mut self, node: usize, key: Key) {
        self.heard.entry(node).or_default().push(key);
    }

    /// Something of the bus has left a link.
    pub(crate) fn arrived(&mut self, link: LinkId, to: Side) {
        if let Some(waiting) = self.waiting.get_mut(&(link, to as usize)) {
            *waiting = waiting.saturating_sub(1);
        }
    }
}

/// Who is linked with whom, as a tree: the parent of each node.
struct Tree(BTreeMap<usize, usize>);

impl Tree {
    /// From a node up to the root.
    fn up(&self, node: usize) -> Vec<usize> {
        let mut way = vec![node];
        // A circle is not longer than all nodes.
        while let Some(parent) = way.last().and_then(|node| self.0.get(node))
            && way.len() <= self.0.len()
        {
            way.push(*parent);
        }
        way
    }

    /// The steps from one node to another.
    fn way(&self, from: usize, to: usize) -> Vec<(usize, usize)> {
        let (mut up, mut down) = (self.up(from), self.up(to));
        while up.len() > 1 && down.len() > 1 && up[up.len() - 2] == down[down.len() - 2] {
            up.pop();
            down.pop();
        }
        down.pop();
        up.extend(down.into_iter().rev());
        up.windows(2).map(|step| (step[0], step[1])).collect()
    }

    /// Whether a node is reached from `to` without going back to `from`.
    fn is_behind(&self, (from, to): (usize, usize), node: usize) -> bool {
        self.way(from, node).first() == Some(&(from, to))
    }
}

impl Sim {
    /// Whether a link takes what is to go from a node by the bus; else it is dropped.
    pub(crate) fn bus_fits(&mut self, node: usize, link: LinkId, to: Side, frame: &Frame) -> bool {
        let Some(peer) = self.net.links.get(&link).map(|path| path.end(to).node) else {
            return true;
        };
        let crowd = &mut self.chatter.crowd;
        let waiting = crowd.waiting.entry((link, to as usize)).or_default();
        let fits = *waiting < crowd.room;
        *waiting += usize::from(fits);
        if let Frame::Message(message) = frame {
            let step = (node, peer, (message.from, message.id));
            match fits {
                true => crowd.crossed.push(step),
                false => drop(crowd.dropped.insert(step)),
            }
        }
        fits
    }

    /// In a healthy tree two speak at once to some of the others, with too little room for it.
    pub(crate) fn burst(&mut self) -> Result<(), Violation> {
        let mut rng = SmallRng::seed_from_u64(self.plan.seed ^ 0x6275_7273_7400);
        let nodes = self.seats.len();
        let listens: Vec<bool> = (0..nodes).map(|_| rng.random_bool(0.5)).collect();
        for (node, listens) in listens.iter().enumerate() {
            self.listen(node, interest(&[if *listens { LAST } else { OTHER }]))?;
        }
        self.run_until(self.now + WITHIN)?;
        self.chatter.crowd = Crowd::with(rng.random_range(1..=6));
        let first = rng.random_range(0..nodes);
        let speakers = [first, (first + rng.random_range(1..nodes.max(2))) % nodes];
        let mut said = BTreeMap::<usize, Vec<Key>>::new();
        for _ in 0..WORDS {
            for speaker in speakers {
                if self.seats[speaker].process.is_some() {
                    self.say(speaker, LAST, false)?;
                    said.entry(speaker).or_default().push(self.chatter.last_of(speaker));
                }
            }
            if rng.random_bool(0.4) {
                let pause = Duration::from_millis(rng.random_range(1..200));
                self.run_until(self.now + pause)?;
            }
        }
        self.run_until(self.now + WITHIN)?;
        let tree = self.tree()?;
        let listeners: Vec<usize> = (0..nodes).filter(|node| listens[*node]).collect();
        self.check_heard(&tree, &listeners, &said)?;
        self.check_crossed(&tree, &listeners)
    }

    fn tree(&self) -> Result<Tree, Violation> {
        let mut parents = BTreeMap::new();
        let open = |side: &Side, path: &crate::net::Link| path.end(*side).phase == Phase::Open;
        for path in self.net.links.values() {
            if path.broken || !Side::BOTH.iter().all(|side| open(side, path)) {
                continue;
            }
            let (child, parent) = (path.end(Side::Child).node, path.end(Side::Parent).node);
            if let Some(other) = parents.insert(child, parent) {
                let detail = format!("node {child} is linked with {other} and {parent}");
                return Err(Violation::new("convergence", detail));
            }
        }
        Ok(Tree(parents))
    }

    /// Who listens has heard all that was not dropped on its way, in its sequence.
    fn check_heard(
        &self,
        tree: &Tree,
        listeners: &[usize],
        said: &BTreeMap<usize, Vec<Key>>,
    ) -> Result<(), Violation> {
        let crowd = &self.chatter.crowd;
        let live = |node: &&usize| self.seats[**node].process.is_some();
        for node in listeners.iter().filter(live) {
            let all_heard = crowd.heard.get(node).cloned().unwrap_or_default();
            for (speaker, keys) in said {
                let way = tree.way(*speaker, *node);
                let lost =
                    |key: &Key| way.iter().any(|(a, b)| crowd.dropped.contains(&(*a, *b, *key)));
                let due: Vec<Key> = keys.iter().copied().filter(|key| !lost(key)).collect();
                let from = self.seats[*speaker].host();
                let heard: Vec<Key> =
                    all_heard.iter().filter(|key| key.0 == from).copied().collect();
                let all = |keys: &[Key]| keys.iter().copied().collect::<BTreeSet<Key>>();
                let detail = || format!("node {node} hears {heard:?} of {due:?}, over {way:?}");
                if all(&heard) != all(&due) {
                    return Err(Violation::new("what is not dropped is heard", detail()));
                }
                if heard != due {
                    return Err(Violation::new("one node's messages keep their order", detail()));
                }
            }
        }
        Ok(())
    }

    /// Nothing has crossed a link twice, back, or to where nobody listens.
    fn check_crossed(&self, tree: &Tree, listeners: &[usize]) -> Result<(), Violation> {
        let mut crossed = BTreeSet::new();
        for (from, to, key) in &self.chatter.crowd.crossed {
            let link = (*from.min(to), *from.max(to), *key);
            let detail = || format!("{key:?} goes from node {from} to {to}");
            if !crossed.insert(link) {
                return Err(Violation::new("a message crosses a link once", detail()));
            }
            if !listeners.iter().any(|node| tree.is_behind((*from, *to), *node)) {
                return Err(Violation::new("a message goes where it is wanted", detail()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_in_a_tree() {
        let tree = Tree(BTreeMap::from([(1, 0), (2, 0), (3, 1), (4, 1)]));
        assert_eq!(tree.way(3, 2), [(3, 1), (1, 0), (0, 2)]);
        assert_eq!(tree.way(3, 4), [(3, 1), (1, 4)]);
        assert_eq!((tree.way(3, 3), tree.way(0, 4)), (vec![], vec![(0, 1), (1, 4)]));
        assert!(tree.is_behind((0, 1), 4) && !tree.is_behind((0, 2), 4));
        assert!(tree.is_behind((3, 1), 2) && !tree.is_behind((3, 1), 3));
    }
}
