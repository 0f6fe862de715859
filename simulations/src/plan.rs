//! The plan: everything about a run that is not decided by the nodes, drawn from the seed.
//!
//! Swarm style: each seed switches features on and off by itself, so that some runs have nothing
//! but crashes, some nothing but slow disks, some tiny limits, and some no fault at all. Faults
//! with a time stand in a list (so that a later shrinker can strike some out); faults that wait
//! for a bad moment are odds in [`Weather`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mesh::sabotage::Bug;
use mesh::{Backoff, Config, Digest, EventLimits, HostId, HostSet, Limits, Need, Order, OrderId};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::{events, gated};

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
#[derive(Clone, Debug)]
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
    /// Faults with a time.
    pub faults: Vec<(Duration, Fault)>,
    /// Whether the last order lets only half of the hosts run at a time.
    pub gated: bool,
    /// Whether operators look on while commands run.
    pub viewers: bool,
    /// Pace and limits of events, and how many different ones there are; 0: none happen.
    pub events: (EventLimits, u8),
    /// When faults stop and everything heals.
    pub horizon: Duration,
    /// The bug planted in every node.
    pub bug: Option<Bug>,
}

/// A node's place in the tree.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its parents, in order of preference.
    pub parents: Vec<usize>,
    /// Whether it has children.
    pub serves: bool,
    /// How many children it takes at once, if fewer than the common limit.
    pub children: Option<usize>,
}

/// Delays and odds of the world.
#[derive(Clone, Debug)]
pub struct Weather {
    /// One way on a link, for one frame.
    pub delay: Span,
    /// From a save to the disk.
    pub save: Span,
    /// For the bytes of one content.
    pub transfer: Span,
    /// That a dialled parent has a link and the child has none.
    pub half_open: f64,
    /// That a transfer breaks while its link lives.
    pub torn: f64,
    /// That the bytes of a transfer are wrong.
    pub corrupt: f64,
    /// That a node dies at about the moment of a save.
    pub trip: f64,
    /// That a link breaks at about the moment of a report, an order or an acknowledgement.
    pub snap: f64,
}

/// One order of the workload.
#[derive(Clone, Debug)]
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
#[derive(Clone, Debug)]
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
    /// A node is told to prefer another of its parents.
    Steer {
        /// Which.
        node: usize,
    },
}

impl Plan {
    /// Draws the plan of a seed.
    pub fn draw(seed: u64, options: &Options) -> Plan {
        let mut rng = SmallRng::seed_from_u64(seed ^ 0x706c_616e);
        let rng = &mut rng;
        let tree = tree(rng, options.nodes);
        let horizon = secs(rng.random_range(40..100));
        let calm = rng.random_bool(0.08);
        let weather = weather(rng, calm);
        let work = workload(rng, tree.len(), horizon);
        let faults = if calm { Vec::new() } else { faults(rng, &tree, horizon) };
        Plan {
            seed,
            beat: millis(match rng.random_bool(0.2) {
                true => rng.random_range(300..900),
                false => rng.random_range(1_500..5_000),
            }),
            flush: Duration::from_millis(*pick(rng, &[0, 10, 10, 200])),
            backoff: Backoff {
                base: millis(500),
                cap: secs(8),
                settled: secs(10),
                climb: secs(10),
                climb_cap: secs(40),
            },
            limits: limits(rng),
            weather,
            tree,
            work,
            faults,
            horizon,
            viewers: rng.random_bool(0.6),
            gated: rng.random_bool(0.3),
            events: events::plan(rng),
            bug: options.bug,
        }
    }

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
            faults: Vec::new(),
            horizon: secs(15),
            viewers: false,
            gated: false,
            events: (EventLimits::default(), 0),
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
        config.events = self.events.0.clone();
        config.limits.children = place.children.unwrap_or(self.limits.children);
        config.bug = self.bug;
        config
    }

    /// A run over everybody, slow enough that a false supposition is heard before the answers.
    pub fn probe(&self, at: Duration) -> Work {
        let all = HostSet::from_ranges([(0, (self.tree.len() - 1) as u32)]);
        let gate = self.gated.then(|| gated::half(self.tree.len()));
        let hold = if self.gated { secs(60) } else { secs(2) };
        let order = Order { reach: secs(2), hold, gate, ..run(self.work.len(), all) };
        Work {
            at,
            expires: at + order.ttl,
            order: Arc::new(order),
            extra: None,
            takes: (secs(4), secs(6)),
        }
    }

    /// All content that the root has from the start.
    pub fn content(&self) -> impl Iterator<Item = Digest> {
        (0..CONTENTS).map(content)
    }
}

impl Weather {
    /// No faults, and short delays.
    pub fn fair() -> Weather {
        Weather {
            delay: (millis(1), millis(20)),
            save: (millis(1), millis(5)),
            transfer: (millis(5), millis(50)),
            half_open: 0.0,
            torn: 0.0,
            corrupt: 0.0,
            trip: 0.0,
            snap: 0.0,
        }
    }
}

const CONTENTS: u8 = 12;

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn content(n: u8) -> Digest {
    Digest([0xc0 + n; 32])
}

fn pick<'a, T>(rng: &mut SmallRng, choice: &'a [T]) -> &'a T {
    &choice[rng.random_range(0..choice.len())]
}

/// A root, one or two tiers of relays, and hosts with one to three parents.
fn tree(rng: &mut SmallRng, nodes: Option<usize>) -> Vec<Place> {
    let nodes = nodes.unwrap_or_else(|| rng.random_range(3..22)).max(2);
    let relays = match nodes {
        2 => 0,
        _ => rng.random_range(1..=(nodes / 3).clamp(1, 6)),
    };
    let second = if relays > 2 && rng.random_bool(0.5) { relays / 2 } else { 0 };
    let first = relays - second;
    let crowded = rng.random_bool(0.15);
    let mut tree = vec![Place { parents: Vec::new(), serves: true, children: None }];
    for n in 1..nodes {
        let (above, spare) = match n {
            n if n <= first => (0..1, 0.0),
            n if n <= relays => (1..first + 1, 0.7),
            _ if relays == 0 || rng.random_bool(0.1) => (0..1, 0.0),
            _ => (1..relays + 1, 0.6),
        };
        let mut parents = vec![rng.random_range(above.clone())];
        while rng.random_bool(spare) && parents.len() < 3 {
            let more = rng.random_range(above.clone());
            if !parents.contains(&more) {
                parents.push(more);
            }
        }
        let serves = n <= relays;
        // A crowded relay sends some away, so everybody keeps the root as the last resort.
        if crowded && !serves && !parents.contains(&0) {
            parents.push(0);
        }
        let children = (crowded && serves && n > first).then(|| rng.random_range(1..4));
        tree.push(Place { parents, serves, children });
    }
    tree
}

fn limits(rng: &mut SmallRng) -> Limits {
    let mut limits = Limits::default();
    if rng.random_bool(0.3) {
        limits.window = rng.random_range(1..4);
    }
    if rng.random_bool(0.3) {
        limits.pulls = rng.random_range(1..3);
    }
    if rng.random_bool(0.15) {
        limits.orders = rng.random_range(2..8);
    }
    if rng.random_bool(0.2) {
        limits.report_bytes = rng.random_range(60..400);
    }
    if rng.random_bool(0.1) {
        limits.body_bytes = rng.random_range(0..60);
    }
    limits
}

fn weather(rng: &mut SmallRng, calm: bool) -> Weather {
    if calm {
        return Weather::fair();
    }
    let mut odds = |often: f64, most: f64| match rng.random_bool(often) {
        true => rng.random_range(0.0..most),
        false => 0.0,
    };
    let (half_open, torn, corrupt) = (odds(0.3, 0.2), odds(0.3, 0.2), odds(0.2, 0.1));
    let (trip, snap) = (odds(0.5, 0.06), odds(0.5, 0.06));
    Weather {
        delay: (millis(1), millis(*pick(rng, &[5, 50, 200, 800]))),
        save: (millis(1), millis(*pick(rng, &[3, 20, 300]))),
        transfer: (millis(5), millis(*pick(rng, &[20, 500, 5_000]))),
        half_open,
        torn,
        corrupt,
        trip,
        snap,
    }
}

fn workload(rng: &mut SmallRng, nodes: usize, horizon: Duration) -> Vec<Work> {
    let count = rng.random_range(1..14);
    let pushes = *pick(rng, &[0.0, 0.3, 0.7]);
    let early = rng.random_bool(0.3);
    let cancels = *pick(rng, &[0.0, 0.0, 0.5]);
    let gates = *pick(rng, &[0.0, 0.4, 0.8]);
    let mut times: Vec<_> = (0..count)
        .map(|_| rng.random_range(0.0..if early { 0.2 } else { 1.0 }))
        .map(|share: f64| horizon.mul_f64(share))
        .collect();
    times.sort_unstable();
    let work = times.into_iter().enumerate().map(|(n, at)| {
        let targets = targets(rng, nodes);
        let order = match rng.random_bool(pushes) {
            true => push(rng, n, targets),
            false => {
                let reach = millis(rng.random_range(500..10_000));
                let order = Order { reach, hold: reach, ..run(n, targets) };
                match rng.random_bool(gates) {
                    true => Order {
                        gate: Some(gated::gate(rng, &order.targets)),
                        hold: order.ttl,
                        ..order
                    },
                    false => order,
                }
            }
        };
        let ttl = if rng.random_bool(0.1) { secs(rng.random_range(5..60)) } else { order.ttl };
        let extra =
            (order.again && rng.random_bool(0.8)).then(|| content(rng.random_range(0..CONTENTS)));
        let most = match order.gate {
            Some(_) => *pick(rng, &[100, 1_000, 4_500]),
            None => *pick(rng, &[100, 3_000, 12_000]),
        };
        let takes = (millis(10), millis(most));
        Work { at, expires: at + ttl, order: Arc::new(Order { ttl, ..order }), extra, takes }
    });
    let mut work: Vec<_> = work.collect();
    for n in 0..work.len() {
        if rng.random_bool(cancels) {
            let cancel = cancel(rng, work.len(), &work[n]);
            work.push(cancel);
        }
    }
    work
}

/// An order that takes another back, for some of its hosts or for all, while it lives.
fn cancel(rng: &mut SmallRng, n: usize, older: &Work) -> Work {
    let at = older.at + millis(*pick(rng, &[0, 500, 10_000])).mul_f64(rng.random_range(0.0..1.0));
    let share = *pick(rng, &[0.5, 1.0]);
    let targets: HostSet = older.order.targets.iter().filter(|_| rng.random_bool(share)).collect();
    let targets = if targets.is_empty() { older.order.targets.clone() } else { targets };
    let ttl = older.expires.saturating_sub(at);
    let order = Order {
        again: true,
        cancels: Some(older.order.id),
        reach: millis(rng.random_range(500..8_000)),
        hold: older.order.hold.max(secs(8)),
        ttl,
        ..run(n, targets)
    };
    Work {
        at,
        expires: at + ttl,
        order: Arc::new(order),
        extra: None,
        takes: (millis(1), millis(50)),
    }
}

fn targets(rng: &mut SmallRng, nodes: usize) -> HostSet {
    let share = *pick(rng, &[0.2, 0.6, 1.0]);
    let mut targets: HostSet =
        (0..nodes as u32).filter(|_| rng.random_bool(share)).map(HostId).collect();
    // A host that nobody has ever seen.
    if targets.is_empty() || rng.random_bool(0.1) {
        targets.insert(HostId(nodes as u32 + 7));
    }
    targets
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
        gate: None,
        body: Bytes::from_static(b"uptime"),
    }
}

fn push(rng: &mut SmallRng, n: usize, targets: HostSet) -> Order {
    let needs = (0..rng.random_range(0..3)).map(|_| {
        let hosts = targets.iter().filter(|_| rng.random_bool(0.8)).collect();
        let pieces = rng.random_range(1..5);
        let content = (0..pieces).map(|_| content(rng.random_range(0..CONTENTS))).collect();
        Need { hosts, content }
    });
    Order {
        needs: needs.collect(),
        reach: millis(rng.random_range(500..8_000)),
        hold: secs(rng.random_range(10..40)),
        again: true,
        ..run(n, targets)
    }
}

fn faults(rng: &mut SmallRng, tree: &[Place], horizon: Duration) -> Vec<(Duration, Fault)> {
    let mut faults = Vec::new();
    let kinds: Vec<u32> = (0..5).filter(|_| rng.random_bool(0.5)).collect();
    let count = if kinds.is_empty() { 0 } else { rng.random_range(1..25) };
    for _ in 0..count {
        let at = horizon.mul_f64(rng.random_range(0.02..1.0));
        let child = rng.random_range(1..tree.len());
        let lasts = millis(*pick(rng, &[300, 3_000, 15_000, 60_000]));
        let lasts = lasts.mul_f64(rng.random_range(0.1..1.0));
        let fault = match *pick(rng, &kinds) {
            0 => Fault::Kill { node: rng.random_range(1..tree.len()), down: lasts },
            1 => Fault::Kill { node: 0, down: lasts },
            4 => Fault::Steer { node: child },
            2 => Fault::Cut { child, noticed: rng.random_bool(0.7) },
            _ => {
                let parent = *pick(rng, &tree[child].parents);
                let up = rng.random_bool(0.5);
                let (from, to) = if up { (child, parent) } else { (parent, child) };
                Fault::Part { from, to, both: rng.random_bool(0.5), lasts }
            }
        };
        faults.push((at, fault));
    }
    faults.sort_by_key(|(at, _)| *at);
    faults
}
