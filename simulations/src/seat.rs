//! One node's place in the world: its disk, which survives, and its process, which may not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mesh::alerts::Above;
use mesh::{
    Config, Digest, Fanout, HostId, HostSet, LinkId, Node, OrderId, Outcome, RequestId, Subtree,
    Time,
};

use crate::disk::Disk;
use crate::schedules::Desk;

/// A computer.
pub(crate) struct Seat {
    pub(crate) config: Config,
    pub(crate) disk: Disk,
    pub(crate) process: Option<Process>,
    /// How many processes it has had.
    pub(crate) life: u64,
    /// How far its clock is from what it should be.
    pub(crate) skew_ms: i64,
    /// How often the root was restored, as far as this computer has heard and kept in a file.
    pub(crate) epoch: u64,
}

/// A process: a node and what its shell remembers.
pub(crate) struct Process {
    pub(crate) node: Node,
    pub(crate) started: Duration,
    /// When it last had no parent any more, or failed to dial one, and has not dialled since.
    pub(crate) parted: Option<Duration>,
    /// When it wants to be woken.
    pub(crate) wake: Option<Duration>,
    /// How often it was woken in one instant.
    pub(crate) restless: u32,
    /// The last save asked for.
    pub(crate) saves: u64,
    /// Content on its way here, by the link that it comes on.
    pub(crate) pulling: BTreeMap<Digest, LinkId>,
    /// What of it has begun to arrive.
    pub(crate) fronts: BTreeSet<Digest>,
    /// Links by which children are sent what is arriving, as it comes.
    pub(crate) streams: Vec<(LinkId, Digest)>,
    /// Requests of children that wait.
    pub(crate) asks: BTreeMap<RequestId, (LinkId, Digest)>,
    /// Requests of own commands that wait.
    pub(crate) wants: BTreeMap<RequestId, OrderId>,
    /// Commands under way, and how each will end.
    pub(crate) running: BTreeMap<OrderId, Outcome>,
    pub(crate) requests: u64,
    /// Orders whose output is wanted while they run.
    pub(crate) watched: BTreeMap<OrderId, u64>,
    /// The tree as the root has last told it.
    pub(crate) shown: Subtree,
    /// Whom each of its children has below it, as the root has last told it.
    pub(crate) below: BTreeMap<HostId, HostSet>,
    /// What is above this node.
    pub(crate) above: Above,
    /// Which hosts fetch from whom.
    pub(crate) fanout: Fanout,
    /// Children that are with a sibling for something.
    pub(crate) away: BTreeSet<(LinkId, Digest)>,
    /// Of a host: what it fetches from which sibling, as was said on which link.
    pub(crate) fetching: BTreeMap<Digest, (usize, LinkId)>,
    /// What it knows of schedules.
    pub(crate) desk: Desk,
}

impl Seat {
    pub(crate) fn host(&self) -> HostId {
        self.config.host
    }
}

impl Process {
    pub(crate) fn new(node: Node, fanout: Fanout, started: Duration) -> Process {
        Process {
            node,
            started,
            parted: None,
            wake: None,
            restless: 0,
            saves: 0,
            pulling: BTreeMap::new(),
            fronts: BTreeSet::new(),
            streams: Vec::new(),
            asks: BTreeMap::new(),
            wants: BTreeMap::new(),
            running: BTreeMap::new(),
            requests: 0,
            watched: BTreeMap::new(),
            shown: Subtree::default(),
            below: BTreeMap::new(),
            above: Above::default(),
            fanout,
            away: BTreeSet::new(),
            fetching: BTreeMap::new(),
            desk: Desk::default(),
        }
    }

    /// The process's own clock.
    pub(crate) fn time(&self, now: Duration) -> Time {
        Time(now - self.started)
    }

    /// A link is gone, and with it all content that was on it.
    pub(crate) fn drop_content(&mut self, link: LinkId) {
        self.drop_pulls(link);
        self.away.retain(|(to, _)| *to != link);
        self.streams.retain(|(to, _)| *to != link);
        self.asks.retain(|_, (from, _)| *from != link);
    }

    /// Nothing comes on a link any more. Returns what was to come.
    pub(crate) fn drop_pulls(&mut self, link: LinkId) -> Vec<Digest> {
        let gone = self.pulling.extract_if(.., |_, from| *from == link);
        let gone: Vec<_> = gone.map(|(content, _)| content).collect();
        for content in &gone {
            self.fronts.remove(content);
            self.fetching.remove(content);
        }
        gone
    }

    pub(crate) fn request(&mut self) -> RequestId {
        self.requests += 1;
        RequestId(self.requests)
    }
}
