//! Alerts against the truth: relays, links, hosts and the root die, flap and heal, and at any
//! moment the alerts are those that a look from above would give, within [`WITHIN`].
//!
//! The truth is taken from outside: which processes live and which ways are open. Only who is
//! below whom is asked of the root, since a node with several parents may be anywhere. The rules
//! are those that ship; here is no clock but the simulator's.

mod draw;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mesh::alerts::{
    Alert, Condition, Engine, Fallen, Lost, Missing, News, Pace, Severity, Silence, Step, What,
    World,
};
use mesh::{HostId, HostSet, Subtree, Time};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::checks::Violation;
use crate::plan::Fault;
use crate::sim::Sim;
use crate::trace::Sink;

use self::draw::{kinds, plan};

pub use self::draw::Faults;

/// Within how long of a change the alerts are true.
pub const WITHIN: Duration = Duration::from_secs(45);
/// How often the alerts and the truth are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How long a condition must last.
const HOLD: Duration = Duration::from_secs(10);
/// How long a node that was behind something may take to come back.
const RETURNING: Duration = Duration::from_secs(20);

/// What is wrong with the root's rules, so that the checks can show that they look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Planted {
    /// Nothing.
    #[default]
    Nothing,
    /// They see nothing of one host.
    Blind,
    /// Who is only unknown behind a relay counts as lost.
    Storm,
}

/// What a run has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The faults.
    pub faults: Faults,
    /// Alerts of the root that were told as firing.
    pub root: u64,
    /// Alerts of other nodes that were told as firing.
    pub nodes: u64,
    /// Causes that were true for at least [`WITHIN`].
    pub causes: u64,
}

/// Plays one seed.
pub fn run(seed: u64, planted: Planted) -> Result<Told, Violation> {
    let mut world = Watched { planted, ..Watched::new(seed) };
    while world.sim.now < world.end {
        world.sim.run_until(world.sim.now + LOOK)?;
        world.look()?;
    }
    Ok(world.told)
}

/// The alerts of one node, which outlive its process as they would on its disk.
#[derive(Default)]
struct Desk {
    /// The process that they belong to, and its engine.
    life: u64,
    engine: Option<(Engine, Fallen)>,
    kept: BTreeMap<String, Alert>,
    told: u64,
}

struct Watched {
    sim: Sim,
    end: Duration,
    desks: Vec<Desk>,
    /// Which nodes have channels.
    speaks: Vec<bool>,
    /// Since when each cause is as it is: whether it is true, and how often it became so.
    truth: BTreeMap<String, (bool, Duration, u64)>,
    /// When something last happened to a node or to what is above it.
    touched: Vec<Duration>,
    told: Told,
    planted: Planted,
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

impl Watched {
    fn new(seed: u64) -> Watched {
        let plan = plan(seed);
        let mut rng = SmallRng::seed_from_u64(seed ^ 0x7370_6561);
        let nodes = plan.tree.len();
        let speaks: Vec<bool> = (0..nodes).map(|node| node > 0 && rng.random_bool(0.6)).collect();
        // Faults may be told of until the horizon; then all must come to rest.
        let last = plan.faults.iter().map(|(at, _)| *at).max().unwrap_or_default();
        let end = last.max(plan.horizon) + secs(200) + WITHIN;
        let mut sim = Sim::new(plan, Sink::Hash);
        for (seat, speaks) in sim.seats.iter_mut().zip(&speaks) {
            seat.config.speaks = *speaks;
        }
        let desks = (0..nodes).map(|_| Desk::default()).collect();
        let touched = vec![Duration::ZERO; nodes];
        let told = Told { faults: kinds(&sim.plan), ..Told::default() };
        let (truth, planted) = (BTreeMap::new(), Planted::Nothing);
        Watched { sim, end, desks, speaks, truth, touched, told, planted }
    }

    /// Gives each node's rules what it sees, and compares what they make of it.
    fn look(&mut self) -> Result<(), Violation> {
        self.note_faults();
        let reached = self.reached();
        for node in 1..self.desks.len() {
            if self.speaks[node] {
                self.look_up(node);
                self.check_above(node, &reached)?;
            }
        }
        self.look_down();
        if self.sim.seats[0].process.is_some() {
            self.note_truth(&reached);
            self.check_root()?;
        }
        Ok(())
    }

    /// A fault begins or ends: whoever is or may be below it needs time again.
    fn note_faults(&mut self) {
        let (now, before) = (self.sim.now, self.sim.now.saturating_sub(LOOK));
        let mut hit = BTreeSet::new();
        for (at, fault) in &self.sim.plan.faults {
            let (node, lasts) = match fault {
                Fault::Kill { node, down } => (*node, *down),
                Fault::Cut { child, .. } => (*child, Duration::ZERO),
                Fault::Part { from, lasts, .. } => (*from, *lasts),
                // There are no others here.
                _ => continue,
            };
            if [*at, *at + lasts].iter().any(|at| *at > before && *at <= now) {
                hit.insert(node);
            }
        }
        let tree = &self.sim.plan.tree;
        // Parents come before their children.
        for (node, place) in tree.iter().enumerate() {
            if hit.contains(&node) || place.parents.iter().any(|parent| hit.contains(parent)) {
                hit.insert(node);
                self.touched[node] = now;
            }
        }
    }

    /// Who lives and has an open way to the root. Whoever has a parent stays with it, even if that
    /// one is cut off; whoever has none may find any.
    fn reached(&self) -> Vec<bool> {
        let tree = &self.sim.plan.tree;
        let mut reached = vec![false; tree.len()];
        for node in 0..tree.len() {
            let open = |parent: &usize| {
                let net = &self.sim.net;
                reached[*parent] && !net.is_blocked(node, *parent) && !net.is_blocked(*parent, node)
            };
            let lives = self.sim.seats[node].process.is_some();
            let lives_at = |parent: &usize| self.sim.seats[*parent].process.is_some();
            reached[node] = lives
                && match self.sim.net.parent(node).filter(lives_at) {
                    Some(parent) => open(&parent),
                    None => node == 0 || tree[node].parents.iter().any(open),
                };
        }
        reached
    }

    /// What a node says of what is above it.
    fn look_up(&mut self, node: usize) {
        let Some(process) = &self.sim.seats[node].process else { return };
        let condition = process.above.missing().map(|missing| match missing {
            Missing::Controller => condition("controller-silent".into(), HOLD),
            Missing::Parent(_) => condition("parent-lost".into(), HOLD),
        });
        let (now, life) = (Time(self.sim.now), self.sim.seats[node].life);
        let desk = &mut self.desks[node];
        desk.alive(life, now);
        desk.set(now, condition.into_iter().collect(), &|_| None);
    }

    fn look_down(&mut self) {
        let Some(process) = &self.sim.seats[0].process else { return };
        let (now, life) = (Time(self.sim.now), self.sim.seats[0].life);
        let known = HostSet::from_ranges([(1, (self.sim.seats.len() - 1) as u32)]);
        let Subtree { up, branches, .. } = &process.shown;
        let below = &process.below;
        let desk = &mut self.desks[0];
        desk.alive(life, now);
        let Some((_, fallen)) = &mut desk.engine else { return };
        let mut lost = fallen.look(now, World { known: &known, up, branches, below });
        match self.planted {
            Planted::Nothing => {}
            Planted::Blind => lost.retain(|lost| lost.what != What::Node(HostId(1))),
            Planted::Storm => {
                let behind = lost.iter().flat_map(|lost| lost.behind.iter());
                let behind: Vec<HostId> = behind.collect();
                lost.extend(behind.into_iter().map(|host| {
                    let (what, behind) = (What::Node(host), HostSet::default());
                    Lost { what, behind, hold: Duration::ZERO, cause: None }
                }));
            }
        }
        let mut causes = BTreeMap::new();
        for lost in &lost {
            if let What::Node(_) = lost.what {
                causes.extend(lost.behind.iter().map(|b| (key(What::Node(b)), key(lost.what))));
            }
        }
        let conditions = lost.iter().map(|lost| Condition {
            cause: lost.cause.map(key),
            ..condition(key(lost.what), lost.hold)
        });
        let conditions = conditions.collect();
        desk.set(now, conditions, &|alert| causes.get(&alert.key).cloned());
    }

    /// Which causes there are, seen from above.
    fn note_truth(&mut self, reached: &[bool]) {
        let Some(process) = &self.sim.seats[0].process else { return };
        let mut parents: BTreeMap<usize, usize> = BTreeMap::new();
        for (child, below) in &process.below {
            let child = child.0 as usize;
            parents.extend(below.iter().map(|id| (id.0 as usize, child)));
            parents.insert(child, 0);
        }
        for (parent, hosts) in &process.shown.branches {
            parents.extend(hosts.iter().map(|id| (id.0 as usize, parent.0 as usize)));
        }
        let parent = |node: usize| parents.get(&node).copied().unwrap_or(0);
        let nodes = 1..reached.len();
        let lost = |node: usize| !reached[node] && reached[parent(node)];
        let children = |of: usize| nodes.clone().filter(move |node| parent(*node) == of);
        let barren = |of: usize| {
            reached[of] && children(of).count() > 1 && children(of).all(|node| !reached[node])
        };
        let mut on: BTreeSet<String> = (0..reached.len())
            .filter(|node| barren(*node))
            .map(|node| key(What::Below(HostId(node as u32))))
            .collect();
        let single = nodes.clone().filter(|node| lost(*node) && !barren(parent(*node)));
        on.extend(single.map(|node| key(What::Node(HostId(node as u32)))));
        let now = self.sim.now;
        let keys: BTreeSet<String> = self.truth.keys().chain(&on).cloned().collect();
        for key in &keys {
            let is = on.contains(key);
            let (was, since, times) = self.truth.entry(key.clone()).or_insert((false, now, 0));
            if *was != is {
                (*was, *since, *times) = (is, now, *times + u64::from(is));
            } else if is && now.saturating_sub(*since) == WITHIN {
                self.told.causes += 1;
            }
        }
    }

    /// The alerts of the root are the causes, and nothing was told that was not one.
    fn check_root(&mut self) -> Result<(), Violation> {
        let now = self.sim.now;
        let desk = &self.desks[0];
        let Some((engine, _)) = &desk.engine else { return Ok(()) };
        let firing: BTreeSet<&str> = engine
            .alerts()
            .filter(|alert| alert.is_firing())
            .map(|alert| alert.condition.key.as_str())
            .collect();
        let keys: BTreeSet<&str> =
            firing.iter().copied().chain(self.truth.keys().map(String::as_str)).collect();
        for key in keys {
            let (is, since, _) = self.truth.get(key).copied().unwrap_or_default();
            let stable = since.max(self.calm_since(key));
            if now.saturating_sub(stable) > WITHIN && firing.contains(key) != is {
                let what = if is { "is not an alert" } else { "is an alert and not so" };
                let detail = format!("{key} {what}; since {since:?} {is}, firing: {firing:?}");
                return Err(Violation::new("alerts are true", detail));
            }
        }
        self.told.root = desk.told;
        Ok(())
    }

    /// Since when nothing has happened to a node, or to anybody whose share of a cause it is.
    fn calm_since(&self, key: &str) -> Duration {
        let id = key.rsplit('/').next().and_then(|id| id.parse::<usize>().ok()).unwrap_or(0);
        let tree = &self.sim.plan.tree;
        // What becomes of a node also shows in its siblings: they share the cause of a parent.
        let kin = (0..tree.len()).filter(|node| {
            let near = |parent: &usize| *parent == id || tree[id].parents.contains(parent);
            *node == id || tree[*node].parents.iter().any(near)
        });
        kin.map(|node| self.touched[node]).max().unwrap_or_default()
    }

    /// Whoever lives and is cut off for long has been told of by himself or somebody above him,
    /// and whoever is not has nothing to say.
    fn check_above(&mut self, node: usize, reached: &[bool]) -> Result<(), Violation> {
        let now = self.sim.now;
        let seat = &self.sim.seats[node];
        if seat.process.is_none() || now.saturating_sub(self.touched[node]) <= WITHIN {
            return Ok(());
        }
        let mut told = self.is_told(node);
        if reached[node] && told {
            let detail = format!("{node} says that somebody above it is missing, and nobody is");
            return Err(Violation::new("who is not cut off is quiet", detail));
        }
        let mut at = node;
        while !reached[node] && !told {
            let Some(parent) = self.sim.net.parent(at) else { break };
            told = self.is_told(parent);
            at = parent;
        }
        if !reached[node] && !told {
            let detail = format!("{node} is cut off, and neither it nor anybody above it says so");
            return Err(Violation::new("who is cut off is told of", detail));
        }
        self.told.nodes = self.desks[1..].iter().map(|desk| desk.told).sum();
        Ok(())
    }

    fn is_told(&self, node: usize) -> bool {
        let engine = self.desks[node].engine.as_ref().filter(|_| self.speaks[node]);
        engine.is_some_and(|(engine, _)| engine.alerts().any(Alert::is_firing))
    }
}

impl Desk {
    /// A process of the node lives: a new one begins with what the last has kept.
    fn alive(&mut self, life: u64, now: Time) {
        if self.engine.is_none() || self.life != life {
            let kept = self.kept.values().cloned();
            let engine = Engine::new(Pace::default(), kept, Vec::<Silence>::new(), now);
            (self.life, self.engine) = (life, Some((engine, Fallen::new(HOLD, RETURNING, now))));
        }
    }

    fn set(
        &mut self,
        now: Time,
        conditions: Vec<Condition>,
        explained: &dyn Fn(&Condition) -> Option<String>,
    ) {
        let Some((engine, _)) = &mut self.engine else { return };
        engine.handle_timeout(now);
        engine.set(now, "tree", conditions, explained);
        while let Some(step) = engine.poll_step() {
            match step {
                Step::Tell(notice) => {
                    let fires = notice.alerts.iter().filter(|(news, _)| *news == News::Firing);
                    self.told += fires.count() as u64;
                }
                Step::Changed(alert) => {
                    self.kept.insert(alert.condition.key.clone(), *alert);
                }
                Step::Forgotten(key) => drop(self.kept.remove(&key)),
            }
        }
    }
}

fn key(what: What) -> String {
    match what {
        What::Node(id) => format!("lost/{}", id.0),
        What::Below(id) => format!("below/{}", id.0),
    }
}

fn condition(key: String, hold: Duration) -> Condition {
    Condition {
        kind: "lost".into(),
        group: String::new(),
        severity: Severity::Warning,
        labels: BTreeMap::new(),
        summary: String::new(),
        hold,
        cause: None,
        key,
    }
}
