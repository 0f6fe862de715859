//! The fluid model: what a tree of any size costs, by arithmetic.
//!
//! It knows how the core behaves (an order is forwarded before it is saved, answers wait for
//! others as long as the core has the patience, an acknowledgement waits for others, content
//! crosses each link once and is handed on as it comes) and what frames weigh, since it asks the
//! encoder of the wire. What is random in the core is its mean here, but for when commands end, and
//! nothing ever goes wrong. Where the simulator reaches, the two are compared; beyond, the model
//! goes on alone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use mesh::{
    Config, Digest, EventLimits, Folded, Frame, Happening, HostId, HostSet, Order, Outcome,
    Patience, Report, State, Tally, Time,
};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::events::happening;
use crate::fleet::{Phase, REST, STORM, Shape};
use crate::net::{Crossed, OVERHEAD};
use crate::plan;

/// How many different ends the commands of a mixed run have, as the simulator draws them.
const ENDS: [(State, u64); 3] = [(State::Ok, 2), (State::Failed(1), 1), (State::Signalled(9), 1)];
const BODIES: u8 = 4;
/// How many hosts, and how many relays of each tier, end and report at times of their own; the
/// others do as one of these. And of how many relays the reports are weighed.
const HOSTS_PLAYED: usize = 4_096;
const NODES_PLAYED: usize = 64;
const NODES_WEIGHED: usize = 4;
/// Content is handed on in pieces of this size.
const PIECE: f64 = 16.0 * 1024.0;

/// What a run costs.
pub fn run(shape: &Shape, mixed: bool) -> Phase {
    let window = (shape.takes.1 - shape.takes.0).as_secs_f64();
    // Whoever is slowest is as slow as can be, where there are many; and two saves at each end.
    let counts = shape.counts();
    let hosts: usize = counts.iter().skip(1).sum();
    let slowest = shape.takes.0.as_secs_f64() + window * hosts as f64 / (hosts as f64 + 1.0);
    let save = shape.save.1.as_secs_f64();
    let (down, up) = (way(shape, order_bytes(shape)), way(shape, OVERHEAD as f64));
    let mut last = save + down + save + slowest + save + up;
    let tiers = answers(shape, Ends::Over(window), mixed);
    // A link that cannot carry its answers while they come is done later.
    let late =
        tiers.iter().zip(counts.iter().skip(1)).enumerate().map(|(tier, (crossed, links))| {
            let rate = shape.profile(tier).rate.map_or(f64::INFINITY, |rate| rate as f64);
            crossed.up.1 as f64 / *links as f64 / rate - window
        });
    last += late.fold(0.0, f64::max);
    Phase { last: Duration::from_secs_f64(last), tiers }
}

/// What a push of the same content to everybody costs.
pub fn push(shape: &Shape) -> Phase {
    let content = shape.content as f64;
    let counts = shape.counts();
    let save = shape.save.1.as_secs_f64();
    // The order goes down and each relay asks at once; then content goes over the slowest link
    // and no more than a piece of it waits anywhere below.
    let rates = (0..shape.fans.len()).map(|tier| shape.profile(tier).rate);
    let rates: Vec<f64> = rates.map(|rate| rate.map_or(f64::INFINITY, |r| r as f64)).collect();
    let slowest = rates.iter().copied().fold(f64::INFINITY, f64::min);
    let pieces: f64 = rates.iter().skip(1).map(|rate| PIECE / rate).sum();
    let first = shape.profile(0).delay.0.as_secs_f64();
    let down = way(shape, order_bytes(shape));
    let ends = way(shape, OVERHEAD as f64);
    let asked = first + order_bytes(shape) / rates[0] + first + content / slowest;
    let last = save + asked + ends + pieces + save + save + ends;
    let floor = save + down + save + save + ends;
    let mut tiers = answers(shape, Ends::Together, false);
    for (crossed, links) in tiers.iter_mut().zip(counts.iter().skip(1)) {
        crossed.content = *links as u64 * shape.content;
    }
    Phase { last: Duration::from_secs_f64(last.max(floor)), tiers }
}

/// What it costs that every host notices the same fault within [`STORM`].
///
/// A relay tells a flush after the first of them, and then once in each `repeat`, as long as there
/// is news. Those below it that have several relays between them and the hosts do so in step.
pub fn storm(shape: &Shape) -> Phase {
    let limits = EventLimits::default();
    let (flush, repeat) = (limits.flush.as_secs_f64(), limits.repeat.as_secs_f64());
    let (span, save) = (STORM.as_secs_f64(), shape.save.1.as_secs_f64());
    let rounds = 1.0 + ((span - flush) / repeat).ceil().max(0.0);
    let relays = shape.fans.len().saturating_sub(1) as f64;
    // The tree below the root that hears of it last is as late with its first word as many are.
    let counts = shape.counts();
    let hosts = counts.last().copied().unwrap_or_default() as f64;
    let branches = shape.fans.first().copied().unwrap_or_default() as f64;
    let first = span / (hosts / branches + 1.0) * (1.0 + branches.ln());
    let noticed = limits.save.as_secs_f64() + save;
    let last = first + noticed + relays * flush + (rounds - 1.0) * repeat;
    let held = weight(&Frame::EventsHeld { no: 100, held: 1 });
    let mut behind = 1.0;
    let mut tiers = vec![Crossed::default(); shape.fans.len()];
    for tier in (0..shape.fans.len()).rev() {
        let links = counts[tier + 1] as f64;
        let is_host = tier + 1 == shape.fans.len();
        let rounds = if is_host { 1.0 } else { rounds };
        // What comes in one round: the first after a flush, all others after a whole pause.
        let until = |round: f64| ((flush + round * repeat) / span).min(1.0);
        let sizes = (0..rounds as u32).map(f64::from).map(|round| {
            let before = if round > 0.0 { until(round - 1.0) } else { 0.0 };
            events_bytes(behind, if is_host { 1.0 } else { until(round) - before })
        });
        let up: f64 = sizes.sum();
        let frames = (links * rounds) as u64;
        tiers[tier] = Crossed {
            down: (frames, (links * rounds * held) as u64),
            up: (frames, (links * up) as u64),
            content: 0,
        };
        behind *= shape.fans[tier] as f64;
    }
    let last = last + way(shape, events_bytes(behind / branches, 0.5)) + save;
    Phase { last: Duration::from_secs_f64(last), tiers }
}

/// The bytes of a frame that tells of this share of so many hosts: a sample, encoded.
fn events_bytes(hosts: f64, share: f64) -> f64 {
    let mut rng = SmallRng::seed_from_u64(2);
    let all = (0..hosts.round().max(1.0) as u32).map(|host| HostId(1_000 + host));
    let mut counts: BTreeMap<_, _> =
        all.filter(|_| rng.random_bool(share.clamp(0.0, 1.0))).map(|host| (host, 1)).collect();
    counts.entry(HostId(1_000)).or_insert(1);
    let Happening { fact, sample, .. } = happening(HostId(1_000), 0, 0);
    let folded = Folded { window: 0, fact, sample: sample.into(), first_ms: 0, last_ms: 0, counts };
    weight(&Frame::Events { no: 100, events: vec![folded] })
}

/// What a tree costs at rest, for [`REST`].
pub fn rest(shape: &Shape) -> Phase {
    let beat =
        Frame::Beat { root: 1_000, interval: shape.beat, root_interval: shape.beat, speaks: false };
    let (each, size) = (REST.as_secs_f64() / shape.beat.as_secs_f64(), weight(&beat));
    let crossed = |links: &usize| {
        let frames = *links as f64 * each;
        let way = (frames as u64, (frames * size) as u64);
        Crossed { down: way, up: way, content: 0 }
    };
    Phase { last: REST, tiers: shape.counts().iter().skip(1).map(crossed).collect() }
}

/// Frames that the root sends and takes, a second.
pub fn root_rate(phase: &Phase) -> f64 {
    let root = phase.tiers.first().copied().unwrap_or_default();
    (root.down.0 + root.up.0) as f64 / phase.last.as_secs_f64()
}

/// One way through the tree, for a frame of so many bytes.
fn way(shape: &Shape, bytes: f64) -> f64 {
    let tier = |tier| {
        let profile = shape.profile(tier);
        let (least, most) = profile.delay;
        let rate = profile.rate.map_or(f64::INFINITY, |rate| rate as f64);
        (least + most).as_secs_f64() / 2.0 + bytes / rate
    };
    (0..shape.fans.len()).map(tier).sum()
}

fn weight(frame: &Frame) -> f64 {
    (protos::encode_frame(frame).len() as u64 + OVERHEAD) as f64
}

fn order_frame(shape: &Shape) -> Frame {
    let order =
        Order { body: Bytes::from(vec![0; shape.order]), ..plan::run(0, HostSet::one(HostId(1))) };
    Frame::Order { log: u64::MAX, seq: 100, order: order.into() }
}

fn order_bytes(shape: &Shape) -> f64 {
    weight(&order_frame(shape))
}

/// When commands end.
#[derive(Clone, Copy)]
enum Ends {
    /// At any time within this many seconds.
    Over(f64),
    /// All at about the same time.
    Together,
}

/// What the answers of everybody, and the order and all acknowledgements, weigh on each tier.
fn answers(shape: &Shape, ends: Ends, mixed: bool) -> Vec<Crossed> {
    let counts = shape.counts();
    let ack = weight(&Frame::ReportsHeld { log: u64::MAX, through: 100 });
    let mut tiers = vec![Crossed::default(); shape.fans.len()];
    let mut rng = SmallRng::seed_from_u64(3);
    // When nodes of a tier report, and how many hosts live behind the link of one.
    let (mut nodes, mut behind) = (vec![vec![0.0]], 1.0);
    if let Ends::Over(window) = ends {
        nodes = (0..HOSTS_PLAYED).map(|_| vec![rng.random_range(0.0..window)]).collect();
    }
    for tier in (0..shape.fans.len()).rev() {
        let (links, fan) = (counts[tier + 1] as f64, shape.fans[tier]);
        let heard = (0..NODES_PLAYED.min(counts[tier])).map(|_| hear(&nodes, fan, &mut rng));
        let heard: Vec<_> = heard.collect();
        let times = mean(nodes.iter().map(|reports| reports.len() as f64));
        let acks = match ends {
            Ends::Together => times,
            Ends::Over(_) => mean(heard.iter().map(|heard| acks(heard) / fan as f64)),
        };
        let weighed = nodes.iter().take(NODES_WEIGHED);
        let bytes = mean(weighed.map(|reports| report_bytes(behind, reports, mixed, ends)));
        tiers[tier] = Crossed {
            down: (
                (links * (1.0 + acks)) as u64,
                (links * (order_bytes(shape) + acks * ack)) as u64,
            ),
            up: ((links * (times + 1.0)) as u64, (links * (bytes + ack)) as u64),
            content: 0,
        };
        nodes = match ends {
            Ends::Over(window) => {
                let reports = |heard: &Vec<_>| {
                    let own = rng.random_range(0.0..window);
                    let mut times: Vec<_> = heard.iter().map(|(at, _)| *at).chain([own]).collect();
                    times.sort_by(f64::total_cmp);
                    tell(&times, shape.flush)
                };
                heard.iter().map(reports).collect()
            }
            // A relay tells its own end, and those of each tier below that is far away.
            Ends::Together => {
                let far = |tier: &usize| shape.profile(*tier).delay.0 > shape.flush;
                vec![vec![0.0; 1 + (tier..shape.fans.len()).filter(far).count()]]
            }
        };
        behind = fan as f64 * behind + 1.0;
    }
    tiers
}

/// When a node hears of answers and from which child, if it has so many children, each of which
/// reports as one of these nodes does.
fn hear(nodes: &[Vec<f64>], fan: usize, rng: &mut SmallRng) -> Vec<(f64, usize)> {
    let mut heard = Vec::new();
    for child in 0..fan {
        let reports = &nodes[rng.random_range(0..nodes.len())];
        heard.extend(reports.iter().map(|at| (*at, child)));
    }
    heard.sort_by(|one, other| one.0.total_cmp(&other.0));
    heard
}

/// When a relay reports what comes at these times, by the core's own rule. With the last of it
/// nobody is missing, and it reports at once.
fn tell(news: &[f64], flush: Duration) -> Vec<f64> {
    let time = |at: f64| Time::ZERO + Duration::from_secs_f64(at);
    let (mut reports, mut patience) = (Vec::new(), None::<Patience>);
    for at in news {
        match &mut patience {
            None => patience = Some(Patience::new(time(*at), flush)),
            Some(patience) => {
                let due = patience.due();
                if due <= time(*at) {
                    reports.push(due.since(Time::ZERO).as_secs_f64());
                }
                patience.hear(time(*at), true);
            }
        }
    }
    reports.extend(news.last());
    reports
}

/// How many acknowledgements a node sends for what it hears: when the first that waits is due,
/// each child gets one for all that it has said.
fn acks(heard: &[(f64, usize)]) -> f64 {
    let delay = Config::new(HostId::ROOT, 0, true).ack_delay.as_secs_f64();
    let (mut count, mut due, mut waiting) = (0, f64::NEG_INFINITY, BTreeSet::new());
    for (at, child) in heard {
        if *at > due {
            count += waiting.len();
            waiting.clear();
            due = at + delay;
        }
        waiting.insert(*child);
    }
    (count + waiting.len()) as f64
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    sum / f64::max(count, 1.0)
}

/// The bytes of all reports on a link with so many hosts behind it, encoded. A report has those
/// who ended since the one before, who may be anybody; if all end at once they are a run of
/// numbers, and the last report has no more than the first.
fn report_bytes(hosts: f64, reports: &[f64], mixed: bool, ends: Ends) -> f64 {
    let mut rng = SmallRng::seed_from_u64(1);
    let mut said = BTreeMap::<Digest, Bytes>::new();
    let (mut total, mut before) = (0.0, 0.0);
    for (no, at) in reports.iter().enumerate() {
        let share = match ends {
            Ends::Over(window) if no + 1 < reports.len() => at.min(window) / window,
            _ => 1.0,
        };
        let share = match ends {
            Ends::Over(_) => share - std::mem::replace(&mut before, share),
            Ends::Together => share,
        };
        let mut tally = Tally::new();
        let mut lines = BTreeMap::<Outcome, Vec<HostId>>::new();
        let chosen = (0..hosts.round() as u32).filter(|_| rng.random_bool(share.clamp(0.0, 1.0)));
        for host in chosen.collect::<Vec<_>>() {
            lines.entry(outcome(&mut rng, mixed)).or_default().push(HostId(1_000 + host));
        }
        for (outcome, hosts) in &lines {
            tally.record(*outcome, &hosts.iter().copied().collect());
        }
        // Each distinct body travels once on a link.
        let mut report = Report { tally, ..Report::new(plan::run(0, HostSet::new()).id) };
        let digests = lines.keys().filter_map(|outcome| outcome.body);
        for digest in digests {
            let body = crate::sim::body(digest.0[0]).1;
            if said.insert(digest, body.clone()).is_none() {
                report.bodies.insert(digest, body);
            }
        }
        total += weight(&Frame::Report { log: u64::MAX, seq: 100, report });
    }
    total
}

fn outcome(rng: &mut SmallRng, mixed: bool) -> Outcome {
    if !mixed {
        return Outcome { state: State::Ok, body: Some(crate::sim::body(1).0) };
    }
    let mut pick = rng.random_range(0..ENDS.iter().map(|(_, weight)| weight).sum());
    let end = ENDS.iter().find(|(_, weight)| {
        let hit = pick < *weight;
        pick = pick.saturating_sub(*weight);
        hit
    });
    let body = rng.random_range(1..=BODIES);
    let state = end.map_or(State::Ok, |(state, _)| *state);
    Outcome { state, body: Some(crate::sim::body(body).0) }
}
