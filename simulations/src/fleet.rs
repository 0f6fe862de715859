//! Size: large healthy trees of the real core in one process, measured phase by phase.
//!
//! A [`Shape`] is a tree of equal branches and what its links are like. [`measure`] links it, lets
//! it rest, runs a command everywhere, pushes to everybody, and has every host notice the same
//! fault; for each it says how long the last host took and what crossed the links of each tier.
//! The [`model`](crate::model) says what it should be.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mesh::{HostId, HostSet, Limits, Need, Order};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::checks::Violation;
pub use crate::net::Crossed;
use crate::net::Meter;
use crate::plan::{self, Place, Plan, Profile, Weather, Work};
use crate::sim::Sim;
use crate::trace::Sink;

/// A tree of equal branches.
#[derive(Clone, Debug)]
pub struct Shape {
    /// How many children a node of each depth has, the root first. The last ones are hosts.
    pub fans: Vec<usize>,
    /// Links between relays and to the root.
    pub wan: Profile,
    /// Links from hosts to their relays.
    pub lan: Profile,
    /// How often a node beats.
    pub beat: Duration,
    /// How long answers wait for others to fold with.
    pub flush: Duration,
    /// The longest and the shortest save.
    pub save: plan::Span,
    /// How long a command takes.
    pub takes: plan::Span,
    /// How much a push brings to each host.
    pub content: u64,
    /// How many bytes an order has.
    pub order: usize,
}

/// What a phase has cost.
#[derive(Clone, Debug)]
pub struct Phase {
    /// Until the root had the last answer.
    pub last: Duration,
    /// What crossed the links of each tier; beats only at rest.
    pub tiers: Vec<Crossed>,
}

/// What a tree has cost.
#[derive(Clone, Debug)]
pub struct Measured {
    /// How many nodes there are.
    pub nodes: usize,
    /// From the first start until all were linked.
    pub linked: Phase,
    /// While nothing happens, for [`REST`].
    pub rest: Phase,
    /// A command that ends alike everywhere.
    pub alike: Phase,
    /// A command with twelve different ends.
    pub mixed: Phase,
    /// The same content to everybody.
    pub push: Phase,
    /// Every host notices the same fault within [`STORM`].
    pub storm: Phase,
    /// How long the machine took.
    pub real: Duration,
    /// Resident memory, in KiB, where the system says it.
    pub memory_kib: Option<u64>,
}

/// For how long the tree is watched at rest.
pub const REST: Duration = Duration::from_secs(60);
/// Within this every host notices a fault.
pub const STORM: Duration = Duration::from_secs(10);
/// Within this everything must have happened.
const LIMIT: Duration = Duration::from_secs(600);

impl Shape {
    /// Sites behind links of 10 Mbit/s and 100 ms of round trip, and everything else as usual.
    pub fn far(fans: Vec<usize>, content: u64) -> Shape {
        let micros = Duration::from_micros;
        let even = |delay, rate| Profile { delay: (delay, delay), loss: 0.0, rate: Some(rate) };
        Shape {
            fans,
            wan: even(micros(50_000), 1_250_000),
            lan: even(micros(250), 125_000_000),
            beat: Duration::from_secs(5),
            flush: Duration::from_millis(10),
            save: (micros(2_000), micros(2_000)),
            takes: (Duration::from_millis(10), Duration::from_millis(510)),
            content,
            order: 300,
        }
    }

    /// How many nodes stand at each depth, the root first.
    pub fn counts(&self) -> Vec<usize> {
        let below = self.fans.iter().scan(1, |count, fan| {
            *count *= fan;
            Some(*count)
        });
        std::iter::once(1).chain(below).collect()
    }

    /// What the links below a depth are like.
    pub fn profile(&self, tier: usize) -> Profile {
        if tier + 1 < self.fans.len() || tier == 0 { self.wan } else { self.lan }
    }

    /// The places, numbered so that everybody below a node is a run of numbers, and their depths.
    fn tree(&self) -> (Vec<Place>, Vec<usize>) {
        let (mut tree, mut depths) = (Vec::new(), Vec::new());
        self.grow(None, 0, &mut tree, &mut depths);
        (tree, depths)
    }

    fn grow(
        &self,
        parent: Option<usize>,
        depth: usize,
        tree: &mut Vec<Place>,
        depths: &mut Vec<usize>,
    ) {
        let (me, fan) = (tree.len(), self.fans.get(depth).copied());
        let (parents, serves) = (parent.into_iter().collect(), fan.is_some());
        tree.push(Place { parents, serves, children: None });
        depths.push(depth);
        for _ in 0..fan.unwrap_or_default() {
            self.grow(Some(me), depth + 1, tree, depths);
        }
    }

    fn plan(&self, seed: u64, tree: Vec<Place>) -> Plan {
        let fair = Weather::fair();
        let still = (Duration::ZERO, Duration::ZERO);
        Plan {
            seed,
            beat: self.beat,
            flush: self.flush,
            backoff: mesh::Config::new(HostId::ROOT, 0, true).backoff,
            limits: Limits::default(),
            weather: Weather {
                wan: self.wan,
                lan: self.lan,
                save: self.save,
                transfer: still,
                content_bytes: self.content,
                ..fair
            },
            tree,
            work: Vec::new(),
            rollouts: Vec::new(),
            calendar: crate::schedules::calendar::Calendar::default(),
            faults: Vec::new(),
            events: Default::default(),
            horizon: Duration::ZERO,
            viewers: false,
            fanout: 0,
            gated: false,
            bug: None,
        }
    }
}

/// Plays a tree of this shape.
pub fn measure(seed: u64, shape: &Shape) -> Result<Measured, Violation> {
    let begun = Instant::now();
    let (tree, depths) = shape.tree();
    let nodes = tree.len();
    let leaves: Vec<_> = (0..nodes).filter(|node| !tree[*node].serves).collect();
    let mut sim = Sim::new(shape.plan(seed, tree), Sink::Hash);
    let tiers = vec![Crossed::default(); shape.fans.len()];
    sim.net.meter = Some(Meter { depths, tiers, beats: false });
    let step = Duration::from_millis(100);
    while sim.reached().len() < nodes as u64 {
        sim.within(LIMIT, "everybody linked")?;
        sim.run_until(sim.now + step)?;
    }
    let linked = Phase { last: sim.now, tiers: sim.take_tiers() };
    // What was flushed last is over.
    sim.run_until(sim.now + Duration::from_secs(2))?;
    sim.take_tiers();
    sim.count_beats(true);
    sim.run_until(sim.now + REST)?;
    let rest = Phase { last: REST, tiers: sim.take_tiers() };
    sim.count_beats(false);
    (sim.alike, sim.steady) = (true, true);
    let alike = sim.order(shape, false)?;
    sim.alike = false;
    let mixed = sim.order(shape, false)?;
    sim.alike = true;
    let push = sim.order(shape, true)?;
    let storm = sim.storm(&leaves)?;
    let memory_kib = crate::scale::memory_kib();
    Ok(Measured {
        nodes,
        linked,
        rest,
        alike,
        mixed,
        push,
        storm,
        real: begun.elapsed(),
        memory_kib,
    })
}

impl Sim {
    /// One order over everybody but the root, from its submission to its last answer.
    fn order(&mut self, shape: &Shape, push: bool) -> Result<Phase, Violation> {
        let all = HostSet::from_ranges([(1, (self.seats.len() - 1) as u32)]);
        let hold = Duration::from_secs(300);
        let need = Need { hosts: all.clone(), content: vec![plan::content(0)] };
        let order = Order {
            needs: if push { vec![need] } else { Vec::new() },
            again: push,
            reach: hold,
            hold,
            body: Bytes::from(vec![0; shape.order]),
            ..plan::run(self.plan.free_no(), all)
        };
        let still = (Duration::ZERO, Duration::ZERO);
        let (id, expires) = (order.id, self.now + order.ttl);
        let work = Work {
            at: self.now,
            expires,
            order: Arc::new(order),
            extra: None,
            takes: if push { still } else { shape.takes },
        };
        self.checks.add(&work);
        self.plan.work.push(work);
        let (begun, step) = (self.now, Duration::from_millis(100));
        let limit = begun + LIMIT;
        self.take_tiers();
        let work = self.plan.work.len() - 1;
        self.queue.push(begun, crate::queue::Event::Submit { work });
        while !self.closed.contains_key(&id) {
            self.within(limit, "the last answer")?;
            self.run_until(self.now + step)?;
        }
        let last = self.closed.get(&id).copied().unwrap_or(self.now) - begun;
        // The last acknowledgements belong to it.
        self.run_until(self.now + Duration::from_secs(2))?;
        Ok(Phase { last, tiers: self.take_tiers() })
    }

    /// Something that all hosts notice, each at a time of its own, until the root has all of it on
    /// its disk.
    fn storm(&mut self, hosts: &[usize]) -> Result<Phase, Violation> {
        let (begun, step) = (self.now, Duration::from_millis(10));
        let mut rng = SmallRng::seed_from_u64(self.plan.seed);
        let mut notices: Vec<_> =
            hosts.iter().map(|host| (STORM.mul_f64(rng.random_range(0.0..1.0)), *host)).collect();
        notices.sort_unstable();
        self.take_tiers();
        for (after, host) in notices {
            self.run_until(begun + after)?;
            self.strike(host, 0, 0)?;
        }
        while self.counted() < hosts.len() as u64 {
            self.within(begun + LIMIT, "event of every host")?;
            self.run_until(self.now + step)?;
        }
        let last = self.now - begun;
        // The last acknowledgements belong to it.
        self.run_until(self.now + Duration::from_secs(2))?;
        Ok(Phase { last, tiers: self.take_tiers() })
    }

    fn within(&self, limit: Duration, what: &str) -> Result<(), Violation> {
        match self.now < limit {
            true => Ok(()),
            false => Err(Violation::new("scale", format!("no {what} by {:?}", self.now))),
        }
    }

    fn count_beats(&mut self, beats: bool) {
        if let Some(meter) = &mut self.net.meter {
            meter.beats = beats;
        }
    }

    fn take_tiers(&mut self) -> Vec<Crossed> {
        let Some(meter) = &mut self.net.meter else { return Vec::new() };
        let fresh = vec![Crossed::default(); meter.tiers.len()];
        std::mem::replace(&mut meter.tiers, fresh)
    }
}
