//! The smallest plan that still breaks the same promise.
//!
//! A failing plan is played again and again with a part of it left out: faults, orders, nodes,
//! odds, limits. What fails in the same check without the part did not need it. Parts go in
//! halves first and one by one in the end, over and over until none can go. A plan with a part
//! less throws its dice otherwise, so each is given a few seeds to fail with.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use mesh::{HostSet, Limits, Order};

use crate::given;
use crate::plan::{Fault, Plan, Weather};
use crate::played::{self, Failure};
use crate::script::renumber;
use crate::trace::Sink;

/// What was found.
pub struct Shrunk {
    /// The failure of the smallest plan, and the plan.
    pub failure: Box<Failure>,
    /// How many plans were played.
    pub played: u32,
}

/// Makes a failure as small as `most` plays can.
pub fn shrink(failure: Box<Failure>, most: u32) -> Shrunk {
    let mut search = Search { failure, left: most };
    loop {
        let before = size(&search.failure.plan);
        search.cut_short();
        search.drop_faults();
        search.drop_orders();
        search.drop_rollouts();
        search.drop_schedules();
        search.drop_nodes();
        search.calm_down();
        search.narrow();
        if size(&search.failure.plan) == before || search.left == 0 {
            break;
        }
    }
    Shrunk { failure: search.failure, played: most - search.left }
}

/// With how many other seeds a smaller plan is tried.
const SEEDS: u64 = 4;

struct Search {
    failure: Box<Failure>,
    left: u32,
}

/// How much a plan has in it.
fn size(plan: &Plan) -> (usize, usize, usize, u64, usize) {
    let targets = plan.work.iter().map(|work| work.order.targets.len()).sum();
    let odds = odds(&mut plan.weather.clone()).into_iter().filter(|odds| **odds > 0.0).count();
    let tight = usize::from(plan.limits != Limits::default());
    let orders = plan.work.len() + plan.rollouts.len() + plan.calendar.edicts.len();
    (plan.tree.len(), orders, plan.faults.len(), targets, odds + tight)
}

fn odds(weather: &mut Weather) -> [&mut f64; 9] {
    [
        &mut weather.half_open,
        &mut weather.torn,
        &mut weather.corrupt,
        &mut weather.trip,
        &mut weather.twice,
        &mut weather.kept,
        &mut weather.snap,
        &mut weather.wan.loss,
        &mut weather.lan.loss,
    ]
}

impl Search {
    /// Takes a smaller plan in the present one's place, if it fails in the same check.
    fn try_out(&mut self, plan: Plan) -> bool {
        let check = self.failure.violation.check;
        let first = self.failure.plan.seed;
        for n in 0..SEEDS {
            if self.left == 0 {
                return false;
            }
            self.left -= 1;
            let plan = Plan { seed: first.wrapping_add(n), ..plan.clone() };
            match played::play(plan, Sink::Hash) {
                Err(failure) if failure.violation.check == check => {
                    self.failure = failure;
                    return true;
                }
                _ => {}
            }
        }
        false
    }

    /// Leaves out as many of `count` parts as can be: in halves, then in ever smaller pieces.
    /// `without` makes the plan without the parts from one number to another.
    fn drop_parts(
        &mut self,
        count: impl Fn(&Plan) -> usize,
        without: impl Fn(&Plan, usize, usize) -> Option<Plan>,
    ) {
        let mut piece = count(&self.failure.plan).div_ceil(2);
        while piece > 0 {
            let mut at = 0;
            while at < count(&self.failure.plan) {
                let until = (at + piece).min(count(&self.failure.plan));
                let smaller = without(&self.failure.plan, at, until);
                if !smaller.is_some_and(|plan| self.try_out(plan)) {
                    at = until;
                }
            }
            piece = if piece == 1 { 0 } else { piece.div_ceil(2) };
        }
    }

    /// Lets the faults stop soon after the failure.
    fn cut_short(&mut self) {
        let second = Duration::from_secs(1);
        let at = Duration::from_secs(self.failure.at.as_secs()) + second;
        if at < self.failure.plan.horizon {
            let plan = &self.failure.plan;
            let mut shorter = Plan { horizon: at, ..plan.clone() };
            shorter.faults.retain(|(when, _)| *when < at);
            shorter.work.retain(|work| work.at < at);
            self.try_out(shorter);
        }
    }

    fn drop_faults(&mut self) {
        self.drop_parts(
            |plan| plan.faults.len(),
            |plan, from, until| {
                let mut plan = plan.clone();
                plan.faults.drain(from..until);
                Some(plan)
            },
        );
    }

    /// Orders go together with those that take them back.
    fn drop_rollouts(&mut self) {
        self.drop_parts(
            |plan| plan.rollouts.len(),
            |plan, from, until| {
                let mut plan = plan.clone();
                plan.rollouts.drain(from..until);
                Some(plan)
            },
        );
    }

    fn drop_schedules(&mut self) {
        self.drop_parts(
            |plan| plan.calendar.edicts.len(),
            |plan, from, until| {
                let mut plan = plan.clone();
                plan.calendar.edicts.drain(from..until);
                Some(plan)
            },
        );
    }

    fn drop_orders(&mut self) {
        self.drop_parts(
            |plan| plan.work.len(),
            |plan, from, until| {
                let mut plan = plan.clone();
                plan.work.drain(from..until);
                let left: BTreeSet<_> = plan.work.iter().map(|work| work.order.id).collect();
                plan.work.retain(|w| w.order.cancels.is_none_or(|older| left.contains(&older)));
                Some(plan)
            },
        );
    }

    fn drop_nodes(&mut self) {
        let mut node = self.failure.plan.tree.len() - 1;
        while node > 0 {
            if let Some(plan) = without_node(&self.failure.plan, node) {
                self.try_out(plan);
            }
            node -= 1;
        }
    }

    /// Sets odds to nothing and limits to what is usual, one after the other.
    fn calm_down(&mut self) {
        for n in 0..odds(&mut self.failure.plan.weather.clone()).len() {
            let mut plan = self.failure.plan.clone();
            let odds = &mut odds(&mut plan.weather)[n];
            if **odds > 0.0 {
                **odds = 0.0;
                self.try_out(plan);
            }
        }
        let plan = self.failure.plan.clone();
        let usual = Limits::default();
        let simpler = [
            Plan { viewers: false, ..plan.clone() },
            Plan { fanout: 0, ..plan.clone() },
            Plan { gated: false, ..plan.clone() },
            Plan { limits: Limits { window: usual.window, ..plan.limits.clone() }, ..plan.clone() },
            Plan { limits: usual, ..plan.clone() },
        ];
        for simpler in simpler.into_iter().filter(|simpler| *simpler != plan) {
            self.try_out(simpler);
        }
    }

    /// Makes the orders that are left smaller: fewer targets, no content.
    fn narrow(&mut self) {
        for n in 0..self.failure.plan.work.len() {
            let order = &self.failure.plan.work[n].order;
            if !order.needs.is_empty() || self.failure.plan.work[n].extra.is_some() {
                let mut plan = self.failure.plan.clone();
                plan.work[n].extra = None;
                alter(&mut plan, n, |order| order.needs.clear());
                self.try_out(plan);
            }
            for host in self.failure.plan.work[n].order.targets.clone().iter() {
                let mut plan = self.failure.plan.clone();
                if plan.work[n].order.targets.len() > 1 {
                    alter(&mut plan, n, |order| {
                        order.keep(|set| set.difference(&HostSet::one(host)))
                    });
                    self.try_out(plan);
                }
            }
        }
    }
}

fn alter(plan: &mut Plan, n: usize, change: impl FnOnce(&mut Order)) {
    let mut order = Order::clone(&plan.work[n].order);
    change(&mut order);
    plan.work[n].order = Arc::new(order);
}

trait Keep {
    /// Changes every set of hosts of an order.
    fn keep(&mut self, change: impl Fn(&HostSet) -> HostSet);
}

impl Keep for Order {
    fn keep(&mut self, change: impl Fn(&HostSet) -> HostSet) {
        self.targets = change(&self.targets);
        self.needs.iter_mut().for_each(|need| need.hosts = change(&need.hosts));
        self.supersedes.iter_mut().for_each(|(_, hosts)| *hosts = change(hosts));
        self.supersedes.retain(|(_, hosts)| !hosts.is_empty());
        if let Some(gate) = &mut self.gate {
            gate.lots.iter_mut().for_each(|lot| *lot = change(lot));
        }
    }
}

/// The plan without a node. Who had it as the only parent gets its parents.
fn without_node(plan: &Plan, gone: usize) -> Option<Plan> {
    let mut plan = plan.clone();
    let place = plan.tree.remove(gone);
    let moved = |node: usize| node - usize::from(node > gone);
    for child in &mut plan.tree {
        let lost = child.parents.contains(&gone);
        child.parents.retain(|parent| *parent != gone);
        if lost && child.parents.is_empty() {
            child.parents.clone_from(&place.parents);
        }
        child.parents.iter_mut().for_each(|parent| *parent = moved(*parent));
    }
    if plan.tree.len() < 2 {
        return None;
    }
    for n in 0..plan.work.len() {
        alter(&mut plan, n, |order| order.keep(|set| renumber(set, gone)));
    }
    given::without_node(&mut plan, gone);
    plan.work.retain(|work| !work.order.targets.is_empty());
    let left: BTreeSet<_> = plan.work.iter().map(|work| work.order.id).collect();
    plan.work.retain(|w| w.order.cancels.is_none_or(|older| left.contains(&older)));
    for rolling in &mut plan.rollouts {
        rolling.waves.iter_mut().for_each(|wave| *wave = renumber(wave, gone));
        rolling.waves.retain(|wave| !wave.is_empty());
    }
    plan.rollouts.retain(|rolling| !rolling.waves.is_empty());
    plan.faults.retain(|(_, fault)| !nodes_of(fault).contains(&gone));
    for (_, fault) in &mut plan.faults {
        match fault {
            Fault::Kill { node, .. }
            | Fault::Cut { child: node, .. }
            | Fault::Isolate { node, .. }
            | Fault::Steer { node }
            | Fault::Clock { node, .. }
            | Fault::FullDisk { node, .. }
            | Fault::FailDisk { node, .. } => *node = moved(*node),
            Fault::Part { from, to, .. } => (*from, *to) = (moved(*from), moved(*to)),
            Fault::Restore { .. } => {}
        }
    }
    Some(plan)
}

fn nodes_of(fault: &Fault) -> [usize; 2] {
    match *fault {
        Fault::Kill { node, .. }
        | Fault::Cut { child: node, .. }
        | Fault::Isolate { node, .. }
        | Fault::Steer { node }
        | Fault::Clock { node, .. }
        | Fault::FullDisk { node, .. }
        | Fault::FailDisk { node, .. } => [node, node],
        Fault::Part { from, to, .. } => [from, to],
        Fault::Restore { .. } => [0, 0],
    }
}
