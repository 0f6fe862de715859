//! Links in memory, with the promises of QUIC and no better ones.
//!
//! Each direction of a link is in order and loses nothing while the link lives: a partition makes
//! frames wait, not vanish in the middle, and a packet that is lost makes its frame come a round
//! trip later, and all behind it. On a link with a rate frames go one after the other, and so does
//! content beside them: frames come first and are so short that they cost content nothing. A link
//! that dies may still deliver what was on its way, or lose it; its ends are told at different
//! times, or never. Nothing comes from a link after an end was told that it is down.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use mesh::{Digest, Frame, LinkId, Lost, Peer, PullFault};
use rand::RngExt;
use rand::rngs::SmallRng;

use crate::plan::{Profile, Span, Weather};
use crate::queue::{Event, Queue};
use crate::schedules::{Job, List};

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

/// Of which kind a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// To the root, or between relays.
    Wan = 0,
    /// From a host to its relay.
    Lan = 1,
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
    /// How often the root was restored.
    Epoch(u64),
    /// What is due when, by the controller's word.
    List(Box<List>),
    /// Something is due, and it is the child's turn.
    Due(Box<Job>),
    /// What was due under this number is done; how it was.
    Did(u64, u64),
    /// A child's shell asks for content.
    Ask(Digest),
    /// The front of the content.
    Front(Digest),
    /// All of the content, or why not, and how many bytes of it were still to come.
    Got(Digest, Result<(), PullFault>, u64),
    /// The content is to be fetched from this node.
    Elsewhere(Digest, usize),
    /// What came of that; none: it is there.
    Word(Digest, Option<Lost>),
    /// Nobody is to wait for that sibling any longer.
    Recall(Digest),
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
    /// Until when frames, and content, keep a link with a rate busy in this direction.
    busy: [Duration; 2],
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
    pub(crate) kind: Kind,
    /// Nothing more goes in.
    pub(crate) broken: bool,
}

impl Meter {
    fn count(&mut self, child: usize, to: Side, item: &Item, bytes: u64) {
        let depth = self.depths.get(child).copied().unwrap_or_default();
        let Some(tier) = depth.checked_sub(1).and_then(|tier| self.tiers.get_mut(tier)) else {
            return;
        };
        match (item, to) {
            (Item::Frame(Frame::Beat { .. }), _) if !self.beats => {}
            (Item::Frame(_), Side::Child) => tier.down = (tier.down.0 + 1, tier.down.1 + bytes),
            (Item::Frame(_), Side::Parent) => tier.up = (tier.up.0 + 1, tier.up.1 + bytes),
            _ => {}
        }
    }
}

impl End {
    /// How long something waits and takes until the last of its bytes is on a link with a rate.
    fn wait(&mut self, now: Duration, rate: u64, bytes: u64, item: &Item) -> Duration {
        let lane = match item {
            Item::Frame(_) => 0,
            Item::Got(_, Ok(()), _) => 1,
            _ => return Duration::ZERO,
        };
        let busy = &mut self.busy[lane];
        *busy = (*busy).max(now) + Duration::from_secs_f64(bytes as f64 / rate as f64);
        *busy - now
    }
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
    /// What the links of each kind are like.
    profiles: [Profile; 2],
    made: u64,
    /// What has crossed the links of each tier, if anybody wants to know.
    pub(crate) meter: Option<Meter>,
}

/// Counts what crosses links.
#[derive(Default)]
pub(crate) struct Meter {
    /// How deep each node stands; the root's children are at 1.
    pub(crate) depths: Vec<usize>,
    /// The links between one depth and the next, from the root on.
    pub(crate) tiers: Vec<Crossed>,
    /// Whether beats count.
    pub(crate) beats: bool,
}

/// What has crossed the links of a tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Crossed {
    /// Frames to the children, and their bytes with the headers below them.
    pub down: (u64, u64),
    /// Frames to the parents.
    pub up: (u64, u64),
    /// Bytes of content.
    pub content: u64,
}

/// What a frame costs beside itself: its share of a packet, and the headers of QUIC, UDP and IP.
pub(crate) const OVERHEAD: u64 = 60;
/// A packet that is lost so often is lost with its link.
const TRIES: u32 = 8;

/// A time out of a span.
pub(crate) fn draw(rng: &mut SmallRng, (least, most): Span) -> Duration {
    least + (most.saturating_sub(least)).mul_f64(rng.random_range(0.0..1.0))
}

impl Net {
    pub(crate) fn new(weather: &Weather) -> Net {
        Net {
            links: BTreeMap::new(),
            blocked: BTreeMap::new(),
            profiles: [weather.wan, weather.lan],
            made: 0,
            meter: None,
        }
    }

    /// From now on links are like this.
    pub(crate) fn set_weather(&mut self, weather: &Weather) {
        self.profiles = [weather.wan, weather.lan];
    }

    /// What a link is like.
    pub(crate) fn profile(&self, link: LinkId) -> Profile {
        let kind = self.links.get(&link).map_or(Kind::Wan, |link| link.kind);
        self.profiles[kind as usize]
    }

    /// One way on a link of the slower kind.
    pub(crate) fn delay(&self) -> Span {
        self.profiles[Kind::Wan as usize].delay
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
        kind: Kind,
    ) -> LinkId {
        self.made += 1;
        let end = |(node, life)| End {
            node,
            life,
            phase: Phase::Coming,
            last: Duration::ZERO,
            busy: [Duration::ZERO; 2],
            stalled: VecDeque::new(),
            lost: false,
            unheld: VecDeque::new(),
        };
        let link = Link { ends: [end(child), end(parent)], place, kind, broken: false };
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
        let Profile { delay, loss, .. } = self.profile(link);
        let mut takes = draw(rng, delay);
        let mut tries = 1;
        while loss > 0.0 && tries < TRIES && rng.random_bool(loss) {
            takes += delay.1 * 2;
            tries += 1;
        }
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
        let rate = self.profiles[path.kind as usize].rate;
        let bytes = match &item {
            Item::Frame(frame) if rate.is_some() || self.meter.is_some() => {
                protos::encode_frame(frame).len() as u64 + OVERHEAD
            }
            Item::Got(_, Ok(()), bytes) => *bytes,
            _ => 0,
        };
        if let Some(meter) = &mut self.meter {
            meter.count(path.end(Side::Child).node, to, &item, bytes);
        }
        let end = path.end_mut(to);
        let takes = takes + rate.map_or(Duration::ZERO, |rate| end.wait(now, rate, bytes, &item));
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

    /// All of a content crosses a link, be it at once or as it came.
    pub(crate) fn count_content(&mut self, link: LinkId, bytes: u64) {
        let child = self.links.get(&link).map(|link| link.end(Side::Child).node);
        if let (Some(meter), Some(child)) = (&mut self.meter, child)
            && let Some(tier) = meter.depths.get(child).and_then(|depth| depth.checked_sub(1))
            && let Some(tier) = meter.tiers.get_mut(tier)
        {
            tier.content += bytes;
        }
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

    /// The node at one end of a link, if the link is open there.
    pub(crate) fn open_end(&self, link: LinkId, side: Side) -> Option<usize> {
        let end = self.links.get(&link)?.end(side);
        (end.phase == Phase::Open).then_some(end.node)
    }

    /// The links that a node has open, of which it is this side.
    pub(crate) fn open_links(&self, node: usize, side: Side) -> Vec<LinkId> {
        let open = self.links.iter().filter(|(_, link)| {
            let end = link.end(side);
            end.node == node && end.phase == Phase::Open
        });
        open.map(|(id, _)| *id).collect()
    }

    /// The parent that a node is linked to.
    pub(crate) fn parent(&self, node: usize) -> Option<usize> {
        self.links.values().find_map(|link| {
            let [child, parent] = Side::BOTH.map(|side| link.end(side));
            let is_open = child.node == node && child.phase == Phase::Open && !link.broken;
            is_open.then_some(parent.node)
        })
    }

    /// The process at one end of a link, and its life, if the link is open there.
    pub(crate) fn open_process(&self, link: LinkId, side: Side) -> Option<(usize, u64)> {
        let end = self.links.get(&link)?.end(side);
        (end.phase == Phase::Open).then_some((end.node, end.life))
    }

    /// The child of a link, if the link is open at its end.
    pub(crate) fn open_child(&self, link: LinkId) -> Option<usize> {
        self.open_end(link, Side::Child)
    }

    /// Whether a node is kept from somebody.
    pub(crate) fn is_cut_off(&self, node: usize) -> bool {
        self.blocked.keys().any(|(from, to)| *from == node || *to == node)
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
