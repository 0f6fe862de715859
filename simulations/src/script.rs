//! One run as a file: everything that a seed would have drawn, spelt out.
//!
//! This is what is left of a failing plan once it has been made small, so it is written to be
//! read: times in milliseconds, sets as `0-3,7`, and only what differs from the usual. Reading
//! what was written gives the same plan. Nothing of a file is trusted: a number that no node has
//! is an error that names it.

mod faults;
mod orders;
mod rollouts;
mod schedules;
mod weather;
mod words;

use mesh::sabotage::Bug;
use mesh::{Backoff, HostId, HostSet, Limits};
use serde::{Deserialize, Serialize};

use self::faults::FaultLines;
use self::orders::OrderLines;
use self::rollouts::RolloutLines;
use self::schedules::{ClockLines, ScheduleLines};
use self::weather::WeatherLines;
use self::words::{is_false, is_zero, millis, ms};
use crate::events::Storm;
use crate::plan::{self, Place, Plan, Work};

/// The file.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    seed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    bug: Option<String>,
    horizon_ms: u64,
    beat_ms: u64,
    flush_ms: u64,
    redial_ms: [u64; 3],
    climb_ms: [u64; 2],
    #[serde(default, skip_serializing_if = "is_false")]
    gated: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    viewers: bool,
    #[serde(default, skip_serializing_if = "is_zero")]
    fanout: usize,
    #[serde(default, skip_serializing_if = "Storm::is_none")]
    events: Storm,
    #[serde(default, skip_serializing_if = "LimitLines::is_usual")]
    limits: LimitLines,
    weather: WeatherLines,
    #[serde(rename = "node")]
    nodes: Vec<NodeLines>,
    #[serde(default, rename = "order", skip_serializing_if = "Vec::is_empty")]
    orders: Vec<OrderLines>,
    #[serde(default, rename = "rollout", skip_serializing_if = "Vec::is_empty")]
    rollouts: Vec<RolloutLines>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    clocks: Option<ClockLines>,
    #[serde(default, rename = "schedule", skip_serializing_if = "Vec::is_empty")]
    schedules: Vec<ScheduleLines>,
    #[serde(default, rename = "fault", skip_serializing_if = "Vec::is_empty")]
    faults: Vec<FaultLines>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct LimitLines {
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pulls: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    orders: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    report_bytes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_bytes: Option<usize>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct NodeLines {
    parents: Vec<usize>,
    #[serde(default, skip_serializing_if = "is_false")]
    serves: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    children: Option<usize>,
}

impl Script {
    /// What there is to write about a plan.
    pub fn of(plan: &Plan) -> Script {
        let Backoff { base, cap, settled, climb, climb_cap } = plan.backoff;
        Script {
            seed: plan.seed,
            bug: plan.bug.map(|bug| format!("{bug:?}")),
            horizon_ms: ms(plan.horizon),
            beat_ms: ms(plan.beat),
            flush_ms: ms(plan.flush),
            redial_ms: [ms(base), ms(cap), ms(settled)],
            climb_ms: [ms(climb), ms(climb_cap)],
            gated: plan.gated,
            viewers: plan.viewers,
            fanout: plan.fanout,
            events: plan.events,
            limits: LimitLines::of(&plan.limits),
            weather: WeatherLines::of(&plan.weather),
            nodes: plan.tree.iter().map(NodeLines::of).collect(),
            orders: plan.work.iter().map(OrderLines::of).collect(),
            rollouts: plan.rollouts.iter().map(RolloutLines::of).collect(),
            clocks: ClockLines::of(&plan.calendar),
            schedules: plan.calendar.edicts.iter().map(ScheduleLines::of).collect(),
            faults: plan.faults.iter().map(|(at, fault)| FaultLines::of(*at, fault)).collect(),
        }
    }

    /// The plan that is written here, or what is wrong with it.
    pub fn plan(self) -> Result<Plan, String> {
        let bug = self.bug.as_deref().map(named).transpose()?;
        let [base, cap, settled] = self.redial_ms.map(millis);
        let [climb, climb_cap] = self.climb_ms.map(millis);
        let tree: Vec<_> = self.nodes.into_iter().map(NodeLines::place).collect();
        check_tree(&tree)?;
        let work: Result<Vec<_>, _> = self.orders.into_iter().map(OrderLines::work).collect();
        let faults = self.faults.into_iter().map(|line| line.fault(tree.len()));
        let plan = Plan {
            seed: self.seed,
            beat: millis(self.beat_ms.max(1)),
            flush: millis(self.flush_ms),
            backoff: Backoff { base, cap, settled, climb, climb_cap },
            limits: self.limits.limits(),
            weather: self.weather.weather()?,
            work: work?,
            rollouts: self
                .rollouts
                .into_iter()
                .map(RolloutLines::rolling)
                .collect::<Result<_, _>>()?,
            calendar: schedules::calendar(self.clocks, self.schedules)?,
            faults: faults.collect::<Result<_, _>>()?,
            gated: self.gated,
            viewers: self.viewers,
            fanout: self.fanout,
            events: self.events,
            horizon: millis(self.horizon_ms),
            bug,
            tree,
        };
        let relay = |node: HostId| plan.tree.get(node.0 as usize).is_some_and(|place| place.serves);
        let orders = plan.work.iter().map(|work| work.order.id);
        if let Some(id) = orders.filter_map(|id| id.giver()).find(|giver| !relay(*giver)) {
            return Err(format!("given_by = {id} is no relay"));
        }
        let numbers =
            |work: &Work| plan.work.iter().filter(|w| w.order.id == work.order.id).count();
        match plan.work.iter().find(|work| numbers(work) > 1) {
            Some(twice) => Err(format!("two orders have no = {}", plan::order_no(twice.order.id))),
            None => Ok(plan),
        }
    }

    /// The file's text.
    pub fn text(&self) -> String {
        toml::to_string(self).expect("numbers, words and lists can be written")
    }
}

/// The planted bug of this name.
pub fn named(name: &str) -> Result<Bug, String> {
    let found = Bug::ALL.into_iter().find(|bug| format!("{bug:?}") == name);
    let names = || Bug::ALL.map(|bug| format!("{bug:?}")).join(", ");
    found.ok_or_else(|| format!("there is no bug {name:?}; bugs are {}", names()))
}

fn check_tree(tree: &[Place]) -> Result<(), String> {
    if tree.first().is_none_or(|root| !root.parents.is_empty()) {
        return Err("the first [[node]] is the root and has parents = []".into());
    }
    for (node, place) in tree.iter().enumerate().skip(1) {
        let wrong = place.parents.iter().find(|parent| {
            **parent == node || tree.get(**parent).is_none_or(|parent| !parent.serves)
        });
        if let Some(parent) = wrong {
            return Err(format!("node {node} has the parent {parent}, which takes no children"));
        }
        if place.parents.is_empty() {
            return Err(format!("node {node} has no parent"));
        }
    }
    Ok(())
}

impl LimitLines {
    fn of(limits: &Limits) -> LimitLines {
        let usual = Limits::default();
        let tight = |is: usize, usual: usize| (is != usual).then_some(is);
        LimitLines {
            window: tight(limits.window, usual.window),
            pulls: tight(limits.pulls, usual.pulls),
            orders: tight(limits.orders, usual.orders),
            report_bytes: tight(limits.report_bytes, usual.report_bytes),
            body_bytes: tight(limits.body_bytes, usual.body_bytes),
        }
    }

    fn is_usual(&self) -> bool {
        self.limits() == Limits::default()
    }

    fn limits(&self) -> Limits {
        let mut limits = Limits::default();
        let set = |limit: &mut usize, given: Option<usize>| *limit = given.unwrap_or(*limit);
        set(&mut limits.window, self.window);
        set(&mut limits.pulls, self.pulls);
        set(&mut limits.orders, self.orders);
        set(&mut limits.report_bytes, self.report_bytes);
        set(&mut limits.body_bytes, self.body_bytes);
        limits
    }
}

impl NodeLines {
    fn of(place: &Place) -> NodeLines {
        let Place { parents, serves, children } = place.clone();
        NodeLines { parents, serves, children }
    }

    fn place(self) -> Place {
        Place { parents: self.parents, serves: self.serves, children: self.children }
    }
}

/// Whether this host is one that a script may name; for plans that are made smaller.
pub(crate) fn renumber(hosts: &HostSet, gone: usize) -> HostSet {
    let gone = gone as u32;
    let moved = hosts.iter().filter(|host| host.0 != gone);
    moved.map(|host| HostId(host.0 - u32::from(host.0 > gone))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Options;
    use crate::scenario::{BUILT_IN, PlanError, Source};

    #[test]
    fn a_plan_that_was_written_is_the_plan_that_was_drawn() {
        for (name, _) in BUILT_IN {
            let source = Source::find(name).unwrap_or_else(|error| panic!("{error}"));
            for seed in 0..100 {
                let options = Options { bug: Some(Bug::BeginLate), nodes: None };
                let plan = source.plan(seed, &options);
                let text = Script::of(&plan).text();
                let again = Source::parse("it", &text).unwrap_or_else(|e| panic!("{e}\n{text}"));
                assert_eq!(again.plan(0, &Options::default()), plan, "{name} {seed}\n{text}");
            }
        }
    }

    #[test]
    fn what_does_not_fit_together_is_refused_by_name() {
        let source = Source::find("default").unwrap_or_else(|error| panic!("{error}"));
        let good = Script::of(&source.plan(3, &Options::default())).text();
        let refused = |from: &str, to: &str, part: &str| {
            assert!(good.contains(from), "{good}");
            let text = good.replacen(from, to, 1);
            match Source::parse("mine.toml", &text) {
                Err(error @ (PlanError::Wrong { .. } | PlanError::Syntax { .. })) => {
                    let error = error.to_string();
                    assert!(error.contains(part), "{error} lacks {part}");
                }
                other => panic!("{other:?}"),
            }
        };
        refused("seed", "bug = \"Moth\"\nseed", "Moth");
        refused("parents = []", "parents = [1]", "the root");
        refused("parents = [0]", "parents = [99]", "99");
        refused("seed", "sneed = 1\nseed", "sneed");
        refused("targets = \"", "targets = \"x", "no set");
        let late = "[clocks]\norigin_ms = 1792800000000\nhaste = 60\n\n[[schedule]]\nname = \"f0\"\n\
            at_ms = 0\n[schedule.due]\nminute = 5\nevery = 61\nzone = \"UTC\"\n\n[weather";
        refused("[weather", late, "[[schedule]] f0: every = 61 is not from 1 to 60");
        refused("[weather", &late.replace("61", "60").replace("UTC", "Moon"), "Moon");
    }
}
