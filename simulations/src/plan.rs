//! The plan: everything about a run that is not decided by the nodes.
//!
//! A [`Scenario`](crate::Scenario) draws it from a seed, or a file holds it as it is. Faults with
//! a time stand in a list, so that whoever looks for the smallest plan that still fails can strike
//! some out; faults that wait for a bad moment are odds in [`Weather`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mesh::sabotage::Bug;
use mesh::{Backoff, Config, Digest, HostId, HostSet, Limits, Order, OrderId};

use crate::events::Storm;
use crate::gated;
use crate::rolling::Rolling;
use crate::schedules::calendar::Calendar;

/// A span of time to draw from: shortest and longest.
pub type Span = (Duration, Duration);

/// What the caller of a run can choose besides the seed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// How many nodes the tree has; drawn if not given.
    pub nodes: Option<usize>,
    /// The bug planted in every node.
    pub bug: Option<Bug>,
}

/// One run, before it runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Where it was drawn from, and the seed of every die thrown later.
    pub seed: u64,
    /// The nodes, by host number; 0 is the root.
    pub tree: Vec<Place>,
    /// How often a node beats.
    pub beat: Duration,
    /// How long answers wait to be folded.
    pub flush: Duration,
    /// How nodes redial.
    pub backoff: Backoff,
    /// The limits of every node.
    pub limits: Limits,
    /// Delays and odds.
    pub weather: Weather,
    /// What the operator orders, in sequence of time.
    pub work: Vec<Work>,
    /// What the operator rolls out in waves.
    pub rollouts: Vec<Rolling>,
    /// What is due when, by whose clocks.
    pub calendar: Calendar,
    /// Faults with a time.
    pub faults: Vec<(Duration, Fault)>,
    /// Whether the last order lets only half of the hosts run at a time.
    pub gated: bool,
    /// Whether operators look on while commands run.
    pub viewers: bool,
    /// To how many hosts a parent sends content itself before it sends others to these; 0: to all.
    pub fanout: usize,
    /// What hosts notice.
    pub events: Storm,
    /// When faults stop and everything heals.
    pub horizon: Duration,
    /// The bug planted in every node.
    pub bug: Option<Bug>,
}

/// A node's place in the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its parents, in order of preference.
    pub parents: Vec<usize>,
    /// Whether it has children.
    pub serves: bool,
    /// How many children it takes at once, if fewer than the common limit.
    pub children: Option<usize>,
}

/// What a link is like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Profile {
    /// One way, for one frame.
    pub delay: Span,
    /// That a frame is lost and comes with the next try, a round trip later.
    pub loss: f64,
    /// Bytes a second, if it is not endless.
    pub rate: Option<u64>,
}

/// Delays and odds of the world.
#[derive(Clone, Debug, PartialEq)]
pub struct Weather {
    /// Links to the root and between relays.
    pub wan: Profile,
    /// Links from hosts to relays.
    pub lan: Profile,
    /// From a save to the disk.
    pub save: Span,
    /// For the bytes of one content, beside what they take on a link with a rate.
    pub transfer: Span,
    /// How many bytes a content has.
    pub content_bytes: u64,
    /// That a dialled parent has a link and the child has none.
    pub half_open: f64,
    /// That a transfer breaks while its link lives.
    pub torn: f64,
    /// That the bytes of a transfer are wrong.
    pub corrupt: f64,
    /// That a node dies at about the moment of a save.
    pub trip: f64,
    /// That it dies once more while it recovers.
    pub twice: f64,
    /// That some of what was not confirmed is on the disk all the same.
    pub kept: f64,
    /// That a link breaks at about the moment of a report, an order or an acknowledgement.
    pub snap: f64,
}

/// One order of the workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    /// When the operator gives it.
    pub at: Duration,
    /// The order.
    pub order: Arc<Order>,
    /// When it stops being valid.
    pub expires: Duration,
    /// Content that a host finds out only half way that it wants.
    pub extra: Option<Digest>,
    /// How long a host takes.
    pub takes: Span,
}

/// A fault with a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A process dies and comes back.
    Kill {
        /// Which.
        node: usize,
        /// For how long it is dead.
        down: Duration,
    },
    /// The link of a child to its parent breaks; each end notices, or neither does.
    Cut {
        /// The child.
        child: usize,
        /// Whether the ends are told.
        noticed: bool,
    },
    /// Nothing passes from one node to another.
    Part {
        /// From here.
        from: usize,
        /// To there.
        to: usize,
        /// And back?
        both: bool,
        /// For how long.
        lasts: Duration,
    },
    /// Nothing passes between a node and anybody.
    Isolate {
        /// Which.
        node: usize,
        /// For how long.
        lasts: Duration,
    },
    /// A disk takes nothing more.
    FullDisk {
        /// Whose.
        node: usize,
        /// For how long.
        lasts: Duration,
    },
    /// A disk fails at the next save, and the process ends.
    FailDisk {
        /// Whose.
        node: usize,
        /// For how long it is dead.
        down: Duration,
    },
    /// A node's clock is put forward or back.
    Clock {
        /// Whose.
        node: usize,
        /// By how many milliseconds.
        by_ms: i64,
    },
    /// The root's machine is lost, and another begins with a backup.
    Restore {
        /// How old the backup is by then.
        age: Duration,
        /// For how long there is no root.
        down: Duration,
    },
    /// A node is told to prefer another of its parents.
    Steer {
        /// Which.
        node: usize,
    },
}

impl Plan {
    /// A healthy tree of a root, `relays` and `hosts`, and one run over everybody.
    pub fn scale(seed: u64, relays: usize, hosts: usize) -> Plan {
        let mut tree = vec![Place { parents: Vec::new(), serves: true, children: None }];
        tree.extend((0..relays).map(|_| Place { parents: vec![0], serves: true, children: None }));
        let share = hosts.div_ceil(relays);
        tree.extend((0..hosts).map(|n| Place {
            parents: vec![1 + n / share],
            serves: false,
            children: None,
        }));
        let all = HostSet::from_ranges([(1, (tree.len() - 1) as u32)]);
        let order = Order { reach: secs(30), hold: secs(30), ..run(0, all) };
        let work = Work {
            at: secs(10),
            expires: secs(10) + order.ttl,
            order: Arc::new(order),
            extra: None,
            takes: (millis(50), secs(1)),
        };
        Plan {
            seed,
            tree,
            beat: secs(5),
            flush: millis(10),
            backoff: Config::new(HostId::ROOT, 0, true).backoff,
            limits: Limits::default(),
            weather: Weather::fair(),
            work: vec![work],
            rollouts: Vec::new(),
            calendar: Calendar::default(),
            faults: Vec::new(),
            horizon: secs(15),
            viewers: false,
            fanout: 0,
            gated: false,
            events: Storm::default(),
            bug: None,
        }
    }

    /// The configuration of a node.
    pub fn config(&self, node: usize) -> Config {
        let place = &self.tree[node];
        let mut config = Config::new(HostId(node as u32), place.parents.len(), place.serves);
        config.beat_interval = self.beat;
        config.flush = self.flush;
        config.backoff = self.backoff.clone();
        config.limits = self.limits.clone();
        config.events = self.events.limits();
        config.limits.children = place.children.unwrap_or(self.limits.children);
        config.bug = self.bug;
        config
    }

    /// A run over everybody, slow enough that a false supposition is heard before the answers.
    pub fn probe(&self, at: Duration) -> Work {
        let all = HostSet::from_ranges([(0, (self.tree.len() - 1) as u32)]);
        let gate = self.gated.then(|| gated::half(self.tree.len()));
        let hold = if self.gated { secs(60) } else { secs(2) };
        let order = Order { reach: secs(2), hold, gate, ..run(self.free_no(), all) };
        Work {
            at,
            expires: at + order.ttl,
            order: Arc::new(order),
            extra: None,
            takes: (secs(4), secs(6)),
        }
    }

    /// A number that no order of the plan has.
    pub(crate) fn free_no(&self) -> usize {
        let last = self.work.iter().map(|work| order_no(work.order.id)).max();
        last.map_or(0, |last| last as usize + 1)
    }

    /// All content that the root has from the start.
    pub fn content(&self) -> impl Iterator<Item = Digest> {
        (0..CONTENTS).map(content)
    }
}

impl Weather {
    /// No faults, and short delays.
    pub fn fair() -> Weather {
        let fair = Profile { delay: (millis(1), millis(20)), loss: 0.0, rate: None };
        Weather {
            wan: fair,
            lan: fair,
            save: (millis(1), millis(5)),
            transfer: (millis(5), millis(50)),
            content_bytes: 0,
            half_open: 0.0,
            torn: 0.0,
            corrupt: 0.0,
            trip: 0.0,
            twice: 0.0,
            kept: 0.0,
            snap: 0.0,
        }
    }
}

/// How many different contents there are.
pub(crate) const CONTENTS: u8 = 12;

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub(crate) fn content(n: u8) -> Digest {
    Digest([0xc0 + n; 32])
}

/// The number that a content's name was made of.
pub(crate) fn content_no(content: &Digest) -> u8 {
    content.0[0].saturating_sub(0xc0)
}

/// The node at which an order is given.
pub(crate) fn giver(id: OrderId) -> HostId {
    id.giver().unwrap_or(HostId::ROOT)
}

/// The number that an order's id was made of.
pub(crate) fn order_no(id: OrderId) -> u64 {
    if id.giver().is_some() {
        // A relay's number stands before it.
        let [.., a, b, c] = id.0;
        return u64::from(u32::from_be_bytes([0, a, b, c])).saturating_sub(1);
    }
    let bytes: [u8; 8] = id.0[8..].try_into().expect("an id has 16 bytes");
    u64::from_be_bytes(bytes).saturating_sub(1)
}

pub(crate) fn run(n: usize, targets: HostSet) -> Order {
    let mut id = [0; 16];
    id[8..].copy_from_slice(&(n as u64 + 1).to_be_bytes());
    Order {
        id: OrderId(id),
        targets,
        needs: Vec::new(),
        reach: secs(5),
        hold: secs(5),
        ttl: secs(3600),
        again: false,
        cancels: None,
        lapses: false,
        supersedes: Vec::new(),
        gate: None,
        body: Bytes::from_static(b"uptime"),
    }
}
