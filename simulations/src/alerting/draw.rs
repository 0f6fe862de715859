//! Which trees alerts are tried in, and what happens to them.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::secs;
use crate::plan::{Fault, Place, Plan};

/// Which faults there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Deaths of the root.
    pub root: u64,
    /// Deaths of relays.
    pub relays: u64,
    /// Deaths of hosts.
    pub hosts: u64,
    /// Links that broke, or through which nothing came for a while.
    pub links: u64,
    /// Times that the same came again.
    pub again: u64,
}

/// Fair weather between the faults, and faults that last.
pub(super) fn plan(seed: u64) -> Plan {
    let mut plan = Plan::scale(seed, 1, 1);
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x616c_6572);
    plan.tree = tree(&mut rng);
    plan.work.clear();
    plan.beat = secs(rng.random_range(1..=5));
    (plan.backoff.base, plan.backoff.settled) = (secs(1) / 2, secs(10));
    plan.backoff.cap = secs(4);
    plan.horizon = secs(rng.random_range(120..400));
    plan.faults = faults(&mut rng, &plan.tree, plan.horizon);
    plan
}

/// A root, relays in one or two tiers, and hosts, some with a second parent.
fn tree(rng: &mut SmallRng) -> Vec<Place> {
    let nodes = rng.random_range(3..22);
    let relays = rng.random_range(1..=(nodes / 3).clamp(1, 6));
    let second = if relays > 2 && rng.random_bool(0.5) { relays / 2 } else { 0 };
    let mut tree = vec![Place { parents: Vec::new(), serves: true, children: None }];
    for node in 1..nodes {
        let (above, spare) = match node {
            node if node <= relays - second => (0..1, 0.0),
            node if node <= relays => (1..relays - second + 1, 0.5),
            _ if rng.random_bool(0.1) => (0..1, 0.0),
            _ => (1..relays + 1, 0.4),
        };
        let mut parents = vec![rng.random_range(above.clone())];
        let other = rng.random_range(above);
        if rng.random_bool(spare) && !parents.contains(&other) {
            parents.push(other);
        }
        tree.push(Place { parents, serves: node <= relays, children: None });
    }
    tree
}

fn faults(rng: &mut SmallRng, tree: &[Place], horizon: Duration) -> Vec<(Duration, Fault)> {
    let mut faults = Vec::new();
    for _ in 0..rng.random_range(1..8) {
        let mut at = horizon.mul_f64(rng.random_range(0.1..1.0));
        let node = rng.random_range(1..tree.len());
        let parents = &tree[node].parents;
        let parent = parents[rng.random_range(0..parents.len())];
        let lasts = secs([2, 20, 60, 120][rng.random_range(0..4)]);
        let lasts = lasts.mul_f64(rng.random_range(0.5..1.0));
        let fault = match rng.random_range(0..10) {
            0..4 => Fault::Kill { node, down: lasts },
            4 => Fault::Kill { node: 0, down: lasts },
            5 => Fault::Cut { child: node, noticed: rng.random_bool(0.5) },
            _ => Fault::Part { from: node, to: parent, both: true, lasts },
        };
        let times = if rng.random_bool(0.25) { rng.random_range(2..12) } else { 1 };
        for _ in 0..times {
            faults.push((at, fault.clone()));
            at += lasts + secs(rng.random_range(1..30));
        }
    }
    faults.sort_by_key(|(at, _)| *at);
    faults
}

/// The faults of a plan, by what they happen to.
pub(super) fn kinds(plan: &Plan) -> Faults {
    let mut kinds = Faults::default();
    let mut before = Vec::new();
    for (_, fault) in &plan.faults {
        match fault {
            Fault::Kill { node: 0, .. } => kinds.root += 1,
            Fault::Kill { node, .. } if plan.tree[*node].serves => kinds.relays += 1,
            Fault::Kill { .. } => kinds.hosts += 1,
            _ => kinds.links += 1,
        }
        kinds.again += u64::from(before.contains(&fault));
        before.push(fault);
    }
    kinds
}
