//! Orders, which travel down, and reports, which travel up.
//!
//! The core routes an order by its targets and keeps its times; what is ordered stays in `body`,
//! opaque bytes that are signed end to end and passed on as they came. Wall-clock validity is the
//! shell's business: it turns the signed "not after" into the `ttl` that is left at arrival.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;

use crate::{Digest, HostSet, OrderId, Tally};

/// An instruction on its way down the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Its id, the key under which every node remembers it.
    pub id: OrderId,
    /// Who shall carry it out.
    pub targets: HostSet,
    /// Which content whom needs before the order can start.
    pub needs: Vec<Need>,
    /// How long to wait for a host that cannot be reached before saying so.
    pub reach: Duration,
    /// How long the order waits at the last parent for a host that is away; at least `reach`.
    pub hold: Duration,
    /// How long the order is still valid; then every node forgets it.
    pub ttl: Duration,
    /// Whether a host that died in the middle starts it again (a push) or not (a run).
    pub again: bool,
    /// The order that this one takes back: who has not begun it never will, who runs it ends it.
    /// Both expire at the same moment.
    pub cancels: Option<OrderId>,
    /// Whether the order that this one takes back has merely lapsed: a host that has not begun it
    /// says that it has expired, not that it was cancelled, and what runs goes on.
    pub lapses: bool,
    /// Older orders that it takes the place of, each for some of its targets: who has not begun
    /// one of those says that it is skipped, and what runs goes on. None is valid, or waits for
    /// hosts, for longer than this one.
    pub supersedes: Vec<(OrderId, HostSet)>,
    /// If given, hosts wait until the root releases them, a few at a time.
    pub gate: Option<Gate>,
    /// The signed envelope, passed on unchanged.
    pub body: Bytes,
}

/// How the root lets the targets of an order begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gate {
    /// At most so many hosts at any time between their release and their end. Never 0.
    pub window: u64,
    /// At most so many of them behind each of the root's own children; a share is one of the
    /// targets that live there at the moment.
    pub per_child: Option<Share>,
    /// Groups of hosts of which at most [`Gate::per_lot`] run at any time, sites for example.
    pub lots: Vec<HostSet>,
    /// See [`Gate::lots`].
    pub per_lot: Share,
    /// So many at a time, and the next ones when all of these have ended.
    pub batch: Option<Batch>,
    /// After more errors than this nobody is released any more. Who was not reached, or not heard
    /// of to the end, is no error.
    pub max_errors: Option<u64>,
    /// After more misses than this nobody is released any more.
    pub max_missed: Option<u64>,
    /// How long after its release a host may still begin; then it never does.
    pub begin: Duration,
    /// How long a host that has begun takes at most.
    pub longest: Duration,
}

/// How many hosts of a group. Never none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// So many. Never 0.
    Hosts(u64),
    /// So many of a hundred, from 1 to 100.
    Percent(u32),
}

impl Share {
    /// How many that is of so many hosts, rounded up: at least one, if there is one.
    pub fn of(self, hosts: u64) -> u64 {
        match self {
            Share::Hosts(number) => number,
            Share::Percent(percent) => hosts.saturating_mul(percent.into()).div_ceil(100),
        }
    }
}

/// A part of the targets that begins only when the part before it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// How many hosts. Never 0.
    pub size: u64,
    /// How long to wait after the one before it.
    pub wait: Duration,
}

/// Content that some of the targets of an order need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// Who needs it.
    pub hosts: HostSet,
    /// What, in the order in which it is best fetched.
    pub content: Vec<Digest>,
}

impl Order {
    /// Whether it goes on waiting for a host of whom it is said that it was not reached.
    pub(crate) fn outlasts_reach(&self) -> bool {
        self.hold > self.reach
    }

    /// The content that `hosts` need between them, each once, in the order's sequence.
    pub fn content_for(&self, hosts: &HostSet) -> Vec<Digest> {
        let mut content = Vec::new();
        for need in &self.needs {
            if !need.hosts.intersection(hosts).is_empty() {
                let fresh = need.content.iter().filter(|id| !content.contains(*id));
                let fresh: Vec<_> = fresh.copied().collect();
                content.extend(fresh);
            }
        }
        content
    }
}

/// News about one order on its way up: folded outcomes, and the bodies not sent on this link yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The order that it is about.
    pub order: OrderId,
    /// Who ended how.
    pub tally: Tally,
    /// Bodies that the tally refers to, each distinct one once.
    pub bodies: BTreeMap<Digest, Bytes>,
    /// How many bodies a limit on the way has cut; their outcomes are still in the tally.
    pub cut: u64,
}

impl Report {
    /// A report that says nothing yet.
    pub fn new(order: OrderId) -> Report {
        Report { order, tally: Tally::new(), bodies: BTreeMap::new(), cut: 0 }
    }

    /// The report without the bodies that none of its lines refers to.
    pub(crate) fn with_bodies_of_lines(mut self) -> Report {
        let lines = self.tally.lines();
        let named: BTreeSet<_> = lines.filter_map(|(outcome, _)| outcome.body).collect();
        self.bodies.retain(|digest, _| named.contains(digest));
        self
    }
}
