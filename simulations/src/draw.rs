//! From a scenario and a seed to a plan: every die that is thrown before a run begins.
//!
//! All times are whole milliseconds, so that a plan written to a file is the plan that was drawn.

use std::sync::Arc;
use std::time::Duration;

use mesh::{HostId, HostSet, Limits, Need, Order};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::dice::Tight;
use crate::events::Storm;
use crate::fan;
use crate::gated;
use crate::given;
use crate::plan::{CONTENTS, Fault, Options, Place, Plan, Profile, Weather, Work, content, run};
use crate::restoring;
use crate::rolling::Rolling;
use crate::scenario::{FaultKind, LimitDice, LinkDice, Scenario, TreeDice, WorkDice};
use crate::schedules::calendar::{self, Calendar};

impl Scenario {
    /// Draws the plan of a seed.
    pub fn draw(&self, seed: u64, options: &Options) -> Plan {
        let mut rng = SmallRng::seed_from_u64(seed ^ 0x706c_616e);
        let rng = &mut rng;
        let tree = tree(rng, &self.tree, options.nodes);
        let horizon = self.time.horizon_s.secs(rng);
        let calm = self.time.calm.hits(rng);
        let weather = if calm { Weather::fair() } else { self.weather(rng) };
        let work = workload(rng, &self.work, tree.len(), horizon);
        let faults = if calm { Vec::new() } else { self.faults(rng, &tree, horizon) };
        let mut plan = Plan {
            seed,
            beat: self.time.beat_ms.millis(rng),
            flush: self.time.flush_ms.millis(rng),
            backoff: mesh::Backoff {
                base: self.time.redial_base_ms.millis(rng),
                cap: self.time.redial_cap_ms.millis(rng),
                settled: self.time.redial_settled_ms.millis(rng),
                climb: self.time.climb_ms.millis(rng),
                climb_cap: self.time.climb_cap_ms.millis(rng),
            },
            limits: limits(rng, &self.limits),
            weather,
            tree,
            work,
            faults,
            horizon,
            viewers: self.work.viewers.hits(rng),
            fanout: 0,
            gated: self.work.last_gated.hits(rng),
            events: Storm::draw(rng, self.work.events),
            rollouts: Vec::new(),
            calendar: Calendar::default(),
            bug: options.bug,
        };
        // Drawn last, so that a seed without any is what it was before there were some.
        for _ in 0..self.work.rollouts.draw(rng) {
            let nodes = plan.tree.len();
            plan.rollouts.push(Rolling::draw(rng, nodes, plan.horizon));
        }
        for rolling in &mut plan.rollouts {
            *rolling = rolling.clone().paused(rng);
        }
        let superseded = self.work.superseded.draw(rng);
        for n in 0..plan.work.len() {
            if is_push(&plan.work[n].order) && rng.random_bool(superseded) {
                let newer = newer(rng, plan.free_no(), &plan.work[n]);
                plan.work.push(newer);
            }
        }
        given::draw(&mut plan, &self.work.given);
        fan::draw_width(&mut plan, &self.work.fanout);
        calendar::draw(&mut plan, (&self.work.schedules, &self.faults.clocks));
        restoring::draw(&mut plan, &self.faults.restores);
        plan
    }

    fn weather(&self, rng: &mut SmallRng) -> Weather {
        let (links, odds) = (&self.links, &self.odds);
        let wan = profile(rng, &links.wan);
        let lan = links.lan.as_ref().map_or(wan, |lan| profile(rng, lan));
        let least = Duration::from_millis(1);
        Weather {
            wan,
            lan,
            save: (least, links.save_ms.millis(rng).max(least)),
            transfer: (least, links.transfer_ms.millis(rng).max(least)),
            content_bytes: links.content_kb.draw(rng) * 1_000,
            half_open: odds.half_open.draw(rng),
            torn: odds.torn.draw(rng),
            corrupt: odds.corrupt.draw(rng),
            trip: odds.trip.draw(rng),
            twice: odds.twice.draw(rng),
            kept: odds.kept.draw(rng),
            snap: odds.snap.draw(rng),
        }
    }

    fn faults(
        &self,
        rng: &mut SmallRng,
        tree: &[Place],
        horizon: Duration,
    ) -> Vec<(Duration, Fault)> {
        let mut kinds = self.faults.kinds.clone();
        kinds.retain(|_| self.faults.each.hits(rng));
        let count = if kinds.is_empty() { 0 } else { self.faults.count.draw(rng) };
        let mut faults: Vec<_> = (0..count)
            .map(|_| {
                let at = share_of(rng, horizon, 0.02..1.0);
                let lasts = self.faults.lasts_ms.millis(rng);
                let lasts = share_of(rng, lasts, 0.1..1.0);
                let kind = *pick(rng, &kinds);
                (at, fault(rng, kind, tree, lasts))
            })
            .collect();
        faults.sort_by_key(|(at, _)| *at);
        faults
    }
}

fn pick<'a, T>(rng: &mut SmallRng, choice: &'a [T]) -> &'a T {
    &choice[rng.random_range(0..choice.len())]
}

/// A random share of a time, in whole milliseconds.
fn share_of(rng: &mut SmallRng, time: Duration, share: std::ops::Range<f64>) -> Duration {
    Duration::from_millis(time.mul_f64(rng.random_range(share)).as_millis() as u64)
}

/// A root, one or two tiers of relays, and hosts with one to three parents.
fn tree(rng: &mut SmallRng, dice: &TreeDice, nodes: Option<usize>) -> Vec<Place> {
    let nodes = nodes.unwrap_or_else(|| dice.nodes.draw(rng) as usize).max(2);
    let relays = match nodes {
        2 => 0,
        _ => (dice.relays.draw(rng) as usize).clamp(1, (nodes / 3).max(1)),
    };
    let second = if relays > 2 && dice.second_tier.hits(rng) { relays / 2 } else { 0 };
    let first = relays - second;
    let crowded = dice.crowded.hits(rng);
    let mut tree = vec![Place { parents: Vec::new(), serves: true, children: None }];
    for n in 1..nodes {
        let (above, spare) = match n {
            n if n <= first => (0..1, false),
            n if n <= relays => (1..first + 1, true),
            _ if relays == 0 || dice.direct.hits(rng) => (0..1, false),
            _ => (1..relays + 1, true),
        };
        let mut parents = vec![rng.random_range(above.clone())];
        while spare && parents.len() < above.len().min(3) && dice.spare.hits(rng) {
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

fn profile(rng: &mut SmallRng, dice: &LinkDice) -> Profile {
    let delay = dice.delay_ms.millis(rng);
    let rate = dice.rate_kbit.draw(rng) * 1_000 / 8;
    Profile {
        delay: (delay, delay + dice.jitter_ms.millis(rng)),
        loss: dice.loss.draw(rng),
        rate: (rate > 0).then_some(rate),
    }
}

fn limits(rng: &mut SmallRng, dice: &LimitDice) -> Limits {
    let mut limits = Limits::default();
    let mut tighten = |limit: &mut usize, dice: &Option<Tight>| {
        if let Some(tight) = dice.as_ref().and_then(|dice| dice.draw(rng)) {
            *limit = tight as usize;
        }
    };
    tighten(&mut limits.window, &dice.window);
    tighten(&mut limits.pulls, &dice.pulls);
    tighten(&mut limits.orders, &dice.orders);
    tighten(&mut limits.report_bytes, &dice.report_bytes);
    tighten(&mut limits.body_bytes, &dice.body_bytes);
    limits
}

fn workload(rng: &mut SmallRng, dice: &WorkDice, nodes: usize, horizon: Duration) -> Vec<Work> {
    let count = dice.orders.draw(rng);
    let (pushes, gated) = (dice.pushes.draw(rng), dice.gated.draw(rng));
    let cancelled = dice.cancelled.draw(rng);
    let until = if dice.early.hits(rng) { 0.2 } else { 1.0 };
    let mut times: Vec<_> = (0..count).map(|_| share_of(rng, horizon, 0.0..until)).collect();
    times.sort_unstable();
    let work = times.into_iter().enumerate().map(|(n, at)| {
        let targets = targets(rng, dice, nodes);
        let order = match rng.random_bool(pushes) {
            true => push(rng, dice, n, targets),
            false => {
                let (reach, ttl) = (dice.reach_ms.millis(rng), dice.ttl_s.secs(rng));
                let hold = reach.max(dice.run_hold_s.secs(rng));
                let order = Order { reach, hold, ttl, ..run(n, targets) };
                match rng.random_bool(gated) {
                    true => Order {
                        gate: Some(gated::gate(rng, &order.targets)),
                        hold: order.ttl,
                        ..order
                    },
                    false => order,
                }
            }
        };
        let short = dice.short_lived.hits(rng);
        let ttl = if short { dice.short_ttl_s.secs(rng) } else { order.ttl };
        let extra =
            (order.again && rng.random_bool(0.8)).then(|| content(rng.random_range(0..CONTENTS)));
        let longest = if order.gate.is_some() { gated::LONGEST } else { Duration::MAX };
        let least = Duration::from_millis(10);
        let takes = (least, dice.takes_ms.millis(rng).clamp(least, longest));
        Work { at, expires: at + ttl, order: Arc::new(Order { ttl, ..order }), extra, takes }
    });
    let mut work: Vec<_> = work.collect();
    for n in 0..work.len() {
        if rng.random_bool(cancelled) {
            let cancel = cancel(rng, work.len(), &work[n]);
            work.push(cancel);
        }
    }
    work
}

/// An order that takes another back, for some of its hosts or for all, while it lives.
fn cancel(rng: &mut SmallRng, n: usize, older: &Work) -> Work {
    let later = Duration::from_millis(*pick(rng, &[1, 500, 10_000]));
    let at = older.at + share_of(rng, later, 0.0..1.0);
    let share = *pick(rng, &[0.5, 1.0]);
    let targets: HostSet = older.order.targets.iter().filter(|_| rng.random_bool(share)).collect();
    let targets = if targets.is_empty() { older.order.targets.clone() } else { targets };
    let ttl = older.expires.saturating_sub(at);
    let order = Order {
        again: true,
        cancels: Some(older.order.id),
        reach: Duration::from_millis(rng.random_range(500..8_000)),
        hold: older.order.hold.max(Duration::from_secs(8)),
        ttl,
        ..run(n, targets)
    };
    let takes = (Duration::from_millis(1), Duration::from_millis(50));
    Work { at, expires: at + ttl, order: Arc::new(order), extra: None, takes }
}

fn is_push(order: &Order) -> bool {
    order.again && order.cancels.is_none()
}

/// A push that takes the place of another, for some of its hosts or for all, and outlives it.
fn newer(rng: &mut SmallRng, n: usize, older: &Work) -> Work {
    let later = Duration::from_millis(*pick(rng, &[1, 500, 10_000]));
    let at = older.at + share_of(rng, later, 0.0..1.0);
    let share = *pick(rng, &[0.5, 1.0]);
    let hosts: HostSet = older.order.targets.iter().filter(|_| rng.random_bool(share)).collect();
    let hosts = if hosts.is_empty() { older.order.targets.clone() } else { hosts };
    let pieces = rng.random_range(0..4);
    let content: Vec<_> = (0..pieces).map(|_| content(rng.random_range(0..CONTENTS))).collect();
    let need = Need { hosts: hosts.clone(), content };
    let expires = older.expires + Duration::from_secs(rng.random_range(0..30));
    let ttl = expires.saturating_sub(at);
    let order = Order {
        again: true,
        needs: if need.content.is_empty() { Vec::new() } else { vec![need] },
        reach: Duration::from_millis(rng.random_range(500..8_000)),
        hold: older.order.hold.max(Duration::from_secs(8)),
        ttl,
        supersedes: vec![(older.order.id, hosts.clone())],
        ..run(n, hosts)
    };
    Work { at, expires, order: Arc::new(order), extra: None, takes: older.takes }
}

fn targets(rng: &mut SmallRng, dice: &WorkDice, nodes: usize) -> HostSet {
    let share = dice.targets.draw(rng);
    let mut targets: HostSet =
        (0..nodes as u32).filter(|_| rng.random_bool(share)).map(HostId).collect();
    // A host that nobody has ever seen.
    if targets.is_empty() || dice.strangers.hits(rng) {
        targets.insert(HostId(nodes as u32 + 7));
    }
    targets
}

fn push(rng: &mut SmallRng, dice: &WorkDice, n: usize, targets: HostSet) -> Order {
    let needs = (0..rng.random_range(0..3)).map(|_| {
        let hosts = targets.iter().filter(|_| rng.random_bool(0.8)).collect();
        let pieces = rng.random_range(1..5);
        let content = (0..pieces).map(|_| content(rng.random_range(0..CONTENTS))).collect();
        Need { hosts, content }
    });
    let (needs, reach) = (needs.collect(), dice.reach_ms.millis(rng));
    Order {
        needs,
        reach,
        hold: reach.max(dice.push_hold_s.secs(rng)),
        ttl: dice.ttl_s.secs(rng),
        again: true,
        ..run(n, targets)
    }
}

fn fault(rng: &mut SmallRng, kind: FaultKind, tree: &[Place], lasts: Duration) -> Fault {
    let child = rng.random_range(1..tree.len());
    let mut among = |wanted: &dyn Fn(&Place) -> bool| {
        let found: Vec<_> = (1..tree.len()).filter(|node| wanted(&tree[*node])).collect();
        if found.is_empty() { child } else { *pick(rng, &found) }
    };
    match kind {
        FaultKind::Kill => Fault::Kill { node: child, down: lasts },
        FaultKind::KillRoot => Fault::Kill { node: 0, down: lasts },
        FaultKind::Cut => Fault::Cut { child, noticed: rng.random_bool(0.7) },
        FaultKind::Part => {
            let parent = *pick(rng, &tree[child].parents);
            let up = rng.random_bool(0.5);
            let (from, to) = if up { (child, parent) } else { (parent, child) };
            Fault::Part { from, to, both: rng.random_bool(0.5), lasts }
        }
        FaultKind::IsolateRoot => Fault::Isolate { node: 0, lasts },
        FaultKind::IsolateRelay => Fault::Isolate { node: among(&|place| place.serves), lasts },
        FaultKind::IsolateHost => Fault::Isolate { node: among(&|place| !place.serves), lasts },
        FaultKind::Steer => Fault::Steer { node: child },
        FaultKind::FullDisk => Fault::FullDisk { node: rng.random_range(0..tree.len()), lasts },
        FaultKind::FailDisk => {
            Fault::FailDisk { node: rng.random_range(0..tree.len()), down: lasts }
        }
    }
}
