//! One run as a file: everything that a seed would have drawn, spelt out.
//!
//! This is what is left of a failing plan once it has been made small, so it is written to be
//! read: times in milliseconds, sets as `0-3,7`, and only what differs from the usual. Reading
//! what was written gives the same plan. Nothing of a file is trusted: a number that no node has
//! is an error that names it.

use std::sync::Arc;
use std::time::Duration;

use mesh::sabotage::Bug;
use mesh::{Backoff, Batch, Gate, HostId, HostSet, Limits, Need, Order, OrderId, Share};
use serde::{Deserialize, Serialize};

use crate::events::Storm;
use crate::plan::{self, CONTENTS, Fault, Place, Plan, Profile, Span, Weather, Work};
use crate::rolling::Rolling;

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
struct WeatherLines {
    wan: LinkLines,
    lan: LinkLines,
    save_ms: [u64; 2],
    transfer_ms: [u64; 2],
    #[serde(default, skip_serializing_if = "is_nothing")]
    content_bytes: u64,
    #[serde(default, skip_serializing_if = "is_never")]
    half_open: f64,
    #[serde(default, skip_serializing_if = "is_never")]
    torn: f64,
    #[serde(default, skip_serializing_if = "is_never")]
    corrupt: f64,
    #[serde(default, skip_serializing_if = "is_never")]
    trip: f64,
    #[serde(default, skip_serializing_if = "is_never")]
    twice: f64,
    #[serde(default, skip_serializing_if = "is_never")]
    kept: f64,
    #[serde(default, skip_serializing_if = "is_never")]
    snap: f64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct LinkLines {
    delay_ms: [u64; 2],
    #[serde(default, skip_serializing_if = "is_never")]
    loss: f64,
    /// Bytes a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<u64>,
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

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RolloutLines {
    at_ms: u64,
    waves: Vec<String>,
    ok_percent: u32,
    soak_ms: u64,
    resumes: u32,
    takes_ms: [u64; 2],
    #[serde(default, skip_serializing_if = "is_false")]
    careless: bool,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct OrderLines {
    no: u64,
    at_ms: u64,
    targets: String,
    reach_ms: u64,
    hold_ms: u64,
    ttl_ms: u64,
    takes_ms: [u64; 2],
    #[serde(default, skip_serializing_if = "is_false")]
    again: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    cancels: Option<u64>,
    #[serde(default, skip_serializing_if = "is_false")]
    lapses: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    extra: Option<u8>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    needs: Vec<NeedLines>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gate: Option<GateLines>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct NeedLines {
    hosts: String,
    content: Vec<u8>,
}

/// A number, or a percentage.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(untagged)]
enum ShareLine {
    Hosts(u64),
    Percent { percent: u32 },
}

impl ShareLine {
    fn of(share: Share) -> ShareLine {
        match share {
            Share::Hosts(number) => ShareLine::Hosts(number),
            Share::Percent(percent) => ShareLine::Percent { percent },
        }
    }

    fn share(self) -> Result<Share, String> {
        match self {
            ShareLine::Hosts(0) | ShareLine::Percent { percent: 0 | 101.. } => {
                Err("a gate lets at least one host begin: per_lot and per_child are not 0".into())
            }
            ShareLine::Hosts(number) => Ok(Share::Hosts(number)),
            ShareLine::Percent { percent } => Ok(Share::Percent(percent)),
        }
    }
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct GateLines {
    window: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    per_child: Option<ShareLine>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    lots: Vec<String>,
    per_lot: ShareLine,
    /// How many, and after how long a wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    batch_ms: Option<[u64; 2]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_errors: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_missed: Option<u64>,
    begin_ms: u64,
    longest_ms: u64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, tag = "kind", rename_all = "kebab-case")]
enum FaultLines {
    Kill { at_ms: u64, node: usize, down_ms: u64 },
    Cut { at_ms: u64, child: usize, noticed: bool },
    Part { at_ms: u64, from: usize, to: usize, both: bool, lasts_ms: u64 },
    Isolate { at_ms: u64, node: usize, lasts_ms: u64 },
    Steer { at_ms: u64, node: usize },
    FullDisk { at_ms: u64, node: usize, lasts_ms: u64 },
    FailDisk { at_ms: u64, node: usize, down_ms: u64 },
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_never(odds: &f64) -> bool {
    *odds == 0.0
}

fn is_nothing(number: &u64) -> bool {
    *number == 0
}

fn ms(time: Duration) -> u64 {
    time.as_millis() as u64
}

fn span((least, most): Span) -> [u64; 2] {
    [ms(least), ms(most)]
}

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn spanned([least, most]: [u64; 2]) -> Result<Span, String> {
    match least <= most {
        true => Ok((millis(least), millis(most))),
        false => Err(format!("the span [{least}, {most}] ends before it begins")),
    }
}

fn odds(name: &str, odds: f64) -> Result<f64, String> {
    match (0.0..=1.0).contains(&odds) {
        true => Ok(odds),
        false => Err(format!("{name} = {odds} is not from 0 to 1")),
    }
}

fn id(no: u64) -> OrderId {
    plan::run(no as usize, HostSet::new()).id
}

fn hosts(text: &str) -> Result<HostSet, String> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some((first.parse::<u32>().ok()?, last.parse::<u32>().ok()?))
    };
    let parts = text.split(',').filter(|part| !part.is_empty());
    let ranges: Option<Vec<_>> = parts.map(range).collect();
    let ranges = ranges.filter(|list| list.iter().all(|(first, last)| first <= last));
    let ranges = ranges.ok_or_else(|| format!("{text:?} is no set as \"0-3,7\""))?;
    Ok(HostSet::from_ranges(ranges))
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
            events: plan.events,
            limits: LimitLines::of(&plan.limits),
            weather: WeatherLines::of(&plan.weather),
            nodes: plan.tree.iter().map(NodeLines::of).collect(),
            orders: plan.work.iter().map(OrderLines::of).collect(),
            rollouts: plan.rollouts.iter().map(RolloutLines::of).collect(),
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
            faults: faults.collect::<Result<_, _>>()?,
            gated: self.gated,
            viewers: self.viewers,
            events: self.events,
            horizon: millis(self.horizon_ms),
            bug,
            tree,
        };
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

impl WeatherLines {
    fn of(weather: &Weather) -> WeatherLines {
        let link = |profile: Profile| LinkLines {
            delay_ms: span(profile.delay),
            loss: profile.loss,
            rate: profile.rate,
        };
        WeatherLines {
            wan: link(weather.wan),
            lan: link(weather.lan),
            save_ms: span(weather.save),
            transfer_ms: span(weather.transfer),
            content_bytes: weather.content_bytes,
            half_open: weather.half_open,
            torn: weather.torn,
            corrupt: weather.corrupt,
            trip: weather.trip,
            twice: weather.twice,
            kept: weather.kept,
            snap: weather.snap,
        }
    }

    fn weather(self) -> Result<Weather, String> {
        let link = |lines: LinkLines| {
            let (delay, loss) = (spanned(lines.delay_ms)?, odds("loss", lines.loss)?);
            Ok::<_, String>(Profile { delay, loss, rate: lines.rate.filter(|rate| *rate > 0) })
        };
        Ok(Weather {
            wan: link(self.wan)?,
            lan: link(self.lan)?,
            save: spanned(self.save_ms)?,
            transfer: spanned(self.transfer_ms)?,
            content_bytes: self.content_bytes,
            half_open: odds("half_open", self.half_open)?,
            torn: odds("torn", self.torn)?,
            corrupt: odds("corrupt", self.corrupt)?,
            trip: odds("trip", self.trip)?,
            twice: odds("twice", self.twice)?,
            kept: odds("kept", self.kept)?,
            snap: odds("snap", self.snap)?,
        })
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

impl RolloutLines {
    fn of(rolling: &Rolling) -> RolloutLines {
        RolloutLines {
            at_ms: ms(rolling.at),
            waves: rolling.waves.iter().map(HostSet::to_string).collect(),
            ok_percent: rolling.ok,
            soak_ms: ms(rolling.soak),
            resumes: rolling.resumes,
            takes_ms: span(rolling.takes),
            careless: rolling.careless,
        }
    }

    fn rolling(self) -> Result<Rolling, String> {
        let waves = self.waves.iter().map(|text| hosts(text)).collect::<Result<Vec<_>, _>>()?;
        if waves.is_empty() || waves.iter().any(HostSet::is_empty) || self.ok_percent > 100 {
            return Err("a rollout has waves of hosts, and an ok_percent up to 100".into());
        }
        Ok(Rolling {
            at: millis(self.at_ms),
            waves,
            ok: self.ok_percent,
            soak: millis(self.soak_ms),
            resumes: self.resumes,
            takes: spanned(self.takes_ms)?,
            careless: self.careless,
        })
    }
}

impl OrderLines {
    fn of(work: &Work) -> OrderLines {
        let order = &work.order;
        let need = |need: &Need| NeedLines {
            hosts: need.hosts.to_string(),
            content: need.content.iter().map(plan::content_no).collect(),
        };
        OrderLines {
            no: plan::order_no(order.id),
            at_ms: ms(work.at),
            targets: order.targets.to_string(),
            reach_ms: ms(order.reach),
            hold_ms: ms(order.hold),
            ttl_ms: ms(work.expires - work.at),
            takes_ms: span(work.takes),
            again: order.again,
            cancels: order.cancels.map(plan::order_no),
            lapses: order.lapses,
            extra: work.extra.as_ref().map(plan::content_no),
            needs: order.needs.iter().map(need).collect(),
            gate: order.gate.as_ref().map(GateLines::of),
        }
    }

    fn work(self) -> Result<Work, String> {
        let content = |n: u8| match n < CONTENTS {
            true => Ok(plan::content(n)),
            false => Err(format!("order {} wants content {n} of {CONTENTS}", self.no)),
        };
        let need = |need: &NeedLines| {
            let content: Result<_, String> = need.content.iter().map(|n| content(*n)).collect();
            Ok(Need { hosts: hosts(&need.hosts)?, content: content? })
        };
        let needs: Result<_, String> = self.needs.iter().map(need).collect();
        let (at, ttl) = (millis(self.at_ms), millis(self.ttl_ms));
        let order = Order {
            id: id(self.no),
            needs: needs?,
            reach: millis(self.reach_ms),
            hold: millis(self.hold_ms),
            ttl,
            again: self.again,
            cancels: self.cancels.map(id),
            lapses: self.lapses,
            gate: self.gate.map(GateLines::gate).transpose()?,
            ..plan::run(self.no as usize, hosts(&self.targets)?)
        };
        let extra = self.extra.map(content).transpose()?;
        let takes = spanned(self.takes_ms)?;
        Ok(Work { at, expires: at + ttl, order: Arc::new(order), extra, takes })
    }
}

impl GateLines {
    fn of(gate: &Gate) -> GateLines {
        GateLines {
            window: gate.window,
            per_child: gate.per_child.map(ShareLine::of),
            lots: gate.lots.iter().map(HostSet::to_string).collect(),
            per_lot: ShareLine::of(gate.per_lot),
            batch_ms: gate.batch.map(|batch| [batch.size, ms(batch.wait)]),
            max_errors: gate.max_errors,
            max_missed: gate.max_missed,
            begin_ms: ms(gate.begin),
            longest_ms: ms(gate.longest),
        }
    }

    fn gate(self) -> Result<Gate, String> {
        if self.window == 0 {
            return Err("a gate lets at least one host begin: the window is not 0".into());
        }
        let lots: Result<_, String> = self.lots.iter().map(|lot| hosts(lot)).collect();
        let batch = |[size, wait]: [u64; 2]| Batch { size: size.max(1), wait: millis(wait) };
        Ok(Gate {
            window: self.window,
            per_child: self.per_child.map(ShareLine::share).transpose()?,
            lots: lots?,
            per_lot: self.per_lot.share()?,
            batch: self.batch_ms.map(batch),
            max_errors: self.max_errors,
            max_missed: self.max_missed,
            begin: millis(self.begin_ms),
            longest: millis(self.longest_ms),
        })
    }
}

impl FaultLines {
    fn of(at: Duration, fault: &Fault) -> FaultLines {
        let at_ms = ms(at);
        match *fault {
            Fault::Kill { node, down } => FaultLines::Kill { at_ms, node, down_ms: ms(down) },
            Fault::Cut { child, noticed } => FaultLines::Cut { at_ms, child, noticed },
            Fault::Part { from, to, both, lasts } => {
                FaultLines::Part { at_ms, from, to, both, lasts_ms: ms(lasts) }
            }
            Fault::Isolate { node, lasts } => {
                FaultLines::Isolate { at_ms, node, lasts_ms: ms(lasts) }
            }
            Fault::Steer { node } => FaultLines::Steer { at_ms, node },
            Fault::FullDisk { node, lasts } => {
                FaultLines::FullDisk { at_ms, node, lasts_ms: ms(lasts) }
            }
            Fault::FailDisk { node, down } => {
                FaultLines::FailDisk { at_ms, node, down_ms: ms(down) }
            }
        }
    }

    fn fault(self, nodes: usize) -> Result<(Duration, Fault), String> {
        let (at_ms, fault, who) = match self {
            FaultLines::Kill { at_ms, node, down_ms } => {
                (at_ms, Fault::Kill { node, down: millis(down_ms) }, [node, node])
            }
            FaultLines::Cut { at_ms, child, noticed } => {
                (at_ms, Fault::Cut { child, noticed }, [child, child])
            }
            FaultLines::Part { at_ms, from, to, both, lasts_ms } => {
                (at_ms, Fault::Part { from, to, both, lasts: millis(lasts_ms) }, [from, to])
            }
            FaultLines::Isolate { at_ms, node, lasts_ms } => {
                (at_ms, Fault::Isolate { node, lasts: millis(lasts_ms) }, [node, node])
            }
            FaultLines::Steer { at_ms, node } => (at_ms, Fault::Steer { node }, [node, node]),
            FaultLines::FullDisk { at_ms, node, lasts_ms } => {
                (at_ms, Fault::FullDisk { node, lasts: millis(lasts_ms) }, [node, node])
            }
            FaultLines::FailDisk { at_ms, node, down_ms } => {
                (at_ms, Fault::FailDisk { node, down: millis(down_ms) }, [node, node])
            }
        };
        match who.iter().find(|node| **node >= nodes) {
            Some(node) => Err(format!("a fault at {at_ms} ms names node {node} of {nodes}")),
            None => Ok((millis(at_ms), fault)),
        }
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
    }
}
