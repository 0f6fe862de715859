//! Links in memory, with the promises of QUIC and no better ones.
//!
//! Each direction of a link is in order and loses nothing while the link lives: a partition makes
//! frames wait, not vanish in the middle. A link that dies may still deliver what was on its way,
//! or lose it; its ends are told at different times, or never. Nothing comes from a link after an
//! end was told that it is down.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use mesh::{Digest, Frame, LinkId, Peer, PullFault};
use rand::RngExt;
use rand::rngs::SmallRng;

use crate::plan::Span;
use crate::queue::{Event, Queue};

/// An end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Child = 0,
    Parent = 1,
}

impl Side {
    pub(crate) const BOTH: [Side; 2] = [Side::Child, Side::Parent];

    pub(crate) fn other(self) -> Side {
        match self {
            Side::Child => Side::Parent,
            Side::Parent => Side::Child,
        }
    }
}

/// What travels on a link.
#[derive(Debug)]
pub(crate) enum Item {
    /// The handshake is done.
    Up(Peer),
    /// A control frame.
    Frame(Frame),
    /// The link is gone.
    Down,
    /// A child's shell asks for content.
    Ask(Digest),
    /// The front of the content.
    Front(Digest),
    /// All of the content, or why not.
    Got(Digest, Result<(), PullFault>),
}

/// What an end knows of its link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Coming,
    Open,
    /// Down, hung up, or its process is dead.
    Closed,
}

pub(crate) struct End {
    pub(crate) node: usize,
    pub(crate) life: u64,
    pub(crate) phase: Phase,
    /// When the last thing on its way to this end arrives.
    last: Duration,
    stalled: VecDeque<Item>,
    /// Frames on their way to this end are lost.
    pub(crate) lost: bool,
    /// Numbers of log entries that this end has sent and not seen acknowledged.
    pub(crate) unheld: VecDeque<u64>,
}

pub(crate) struct Link {
    pub(crate) ends: [End; 2],
    /// Which place of the child's list the parent has.
    pub(crate) place: usize,
    /// Nothing more goes in.
    pub(crate) broken: bool,
}

impl Link {
    pub(crate) fn end(&self, side: Side) -> &End {
        &self.ends[side as usize]
    }

    pub(crate) fn end_mut(&mut self, side: Side) -> &mut End {
        &mut self.ends[side as usize]
    }

    /// The side of a link that a node holds.
    pub(crate) fn side(&self, node: usize) -> Side {
        match self.ends[Side::Child as usize].node == node {
            true => Side::Child,
            false => Side::Parent,
        }
    }
}

/// All links and partitions.
pub(crate) struct Net {
    pub(crate) links: BTreeMap<LinkId, Link>,
    blocked: BTreeMap<(usize, usize), u32>,
    pub(crate) delay: Span,
    made: u64,
}

/// A time out of a span.
pub(crate) fn draw(rng: &mut SmallRng, (least, most): Span) -> Duration {
    least + (most.saturating_sub(least)).mul_f64(rng.random_range(0.0..1.0))
}

impl Net {
    pub(crate) fn new(delay: Span) -> Net {
        Net { links: BTreeMap::new(), blocked: BTreeMap::new(), delay, made: 0 }
    }

    pub(crate) fn is_blocked(&self, from: usize, to: usize) -> bool {
        self.blocked.contains_key(&(from, to))
    }

    /// A link between two processes, of which neither knows yet.
    pub(crate) fn join(
        &mut self,
        child: (usize, u64),
        parent: (usize, u64),
        place: usize,
    ) -> LinkId {
        self.made += 1;
        let end = |(node, life)| End {
            node,
            life,
            phase: Phase::Coming,
            last: Duration::ZERO,
            stalled: VecDeque::new(),
            lost: false,
            unheld: VecDeque::new(),
        };
        let link = Link { ends: [end(child), end(parent)], place, broken: false };
        self.links.insert(LinkId(self.made), link);
        LinkId(self.made)
    }

    /// Sends something to one end of a link.
    pub(crate) fn send(
        &mut self,
        now: Duration,
        link: LinkId,
        to: Side,
        item: Item,
        (rng, queue): (&mut SmallRng, &mut Queue),
    ) {
        let takes = draw(rng, self.delay);
        self.send_after(now, takes, link, to, item, queue);
    }

    /// Sends something that takes this long.
    pub(crate) fn send_after(
        &mut self,
        now: Duration,
        takes: Duration,
        link: LinkId,
        to: Side,
        item: Item,
        queue: &mut Queue,
    ) {
        let Some(path) = self.links.get_mut(&link) else { return };
        if path.broken && !matches!(item, Item::Down) {
            return;
        }
        let (source, target) = (path.end(to.other()).node, path.end(to).node);
        if self.blocked.contains_key(&(source, target)) {
            return path.end_mut(to).stalled.push_back(item);
        }
        let end = path.end_mut(to);
        // Content has streams of its own and overtakes; all else is in order.
        let at = match item {
            Item::Front(_) | Item::Got(..) => end.last.max(now) + takes,
            _ => {
                end.last = end.last.max(now + takes);
                end.last
            }
        };
        queue.push(at, Event::Arrive { link, to, item });
    }

    /// Stops everything from one node to another.
    pub(crate) fn block(&mut self, from: usize, to: usize) {
        *self.blocked.entry((from, to)).or_default() += 1;
    }

    /// Ends one partition; what waited goes on.
    pub(crate) fn unblock(
        &mut self,
        now: Duration,
        (from, to): (usize, usize),
        (rng, queue): (&mut SmallRng, &mut Queue),
    ) {
        match self.blocked.get_mut(&(from, to)) {
            Some(count) if *count > 1 => return *count -= 1,
            _ => drop(self.blocked.remove(&(from, to))),
        }
        let ids: Vec<_> = self.links.keys().copied().collect();
        for id in ids {
            for side in Side::BOTH {
                let link = self.links.get_mut(&id).expect("nobody removes links here");
                if (link.end(side.other()).node, link.end(side).node) != (from, to) {
                    continue;
                }
                for item in std::mem::take(&mut link.end_mut(side).stalled) {
                    self.send(now, id, side, item, (rng, queue));
                }
            }
        }
    }

    /// Every partition there is.
    pub(crate) fn partitions(&self) -> BTreeSet<(usize, usize)> {
        self.blocked.keys().copied().collect()
    }

    /// Closes one end. A link with two closed ends is no more.
    pub(crate) fn close(&mut self, id: LinkId, side: Side) {
        if let Some(link) = self.links.get_mut(&id) {
            link.end_mut(side).phase = Phase::Closed;
            if link.end(side.other()).phase == Phase::Closed {
                self.links.remove(&id);
            }
        }
    }
}
