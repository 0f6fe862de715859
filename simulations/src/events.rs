//! Events: hosts notice things while the weather is rough, and in the end the root has counted
//! each exactly once, by whatever ways and however often it was told.
//!
//! The truth is counted here: how many events each host was given, how many of them were on its
//! disk when it died, and nothing of the windows and maxima by which the core counts.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use mesh::{
    Class, Digest, EventLimits, Fact, FoldKey, Folded, Happening, HostId, Input, Sample, Severity,
    Signature, WINDOW_MS,
};
use rand::RngExt;
use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};

use crate::checks::Violation;
use crate::queue::Event;
use crate::sim::Sim;

/// Virtual seconds are minutes to the clocks of hosts, so that windows come and go.
const HASTE: u64 = 60;

/// How long a plan may be before its events come more slowly.
const SPAN: Duration = Duration::from_secs(100);

/// Events of one signature at one host.
type Kind = (HostId, Signature);

/// What is known of events from outside.
#[derive(Default)]
pub(crate) struct Happened {
    /// Events that were given to a host and that no save covers yet.
    fresh: BTreeMap<Kind, u64>,
    /// Events in saves that are not durable yet, save by save.
    saving: BTreeMap<Kind, VecDeque<u64>>,
    /// Events that are or were on the disk of their host.
    durable: BTreeMap<Kind, u64>,
    /// How many of them its disk says there were, window by window.
    said: BTreeMap<Kind, BTreeMap<u32, u64>>,
    /// Records that each node has told its parent, the same ones again included.
    records: BTreeMap<HostId, u64>,
}

impl Happened {
    fn noticed(&mut self, host: HostId, signature: Signature) {
        *self.fresh.entry((host, signature)).or_default() += 1;
    }

    /// A host asks for its count to be kept.
    pub(crate) fn saving(&mut self, me: HostId, folded: &Folded) {
        let kind = (me, folded.fact.signature);
        let fresh = self.fresh.remove(&kind).unwrap_or_default();
        self.saving.entry(kind).or_default().push_back(fresh);
    }

    /// A host's count is on its disk.
    pub(crate) fn durable(&mut self, me: HostId, folded: &Folded) -> Result<(), Violation> {
        let kind = (me, folded.fact.signature);
        let said = self.said.entry(kind).or_default().entry(folded.window).or_default();
        let more = folded.total().saturating_sub(*said);
        *said = (*said).max(folded.total());
        let happened = self.saving.entry(kind).or_default().pop_front().unwrap_or_default();
        if more != happened {
            let detail = format!("{me:?} counts {more} new ones where {happened} happened");
            return Err(Violation::new("events are counted", detail));
        }
        *self.durable.entry(kind).or_default() += more;
        Ok(())
    }

    /// A process died: what was not on its disk never happened.
    pub(crate) fn died(&mut self, me: HostId) {
        self.fresh.retain(|(host, _), _| *host != me);
        self.saving.retain(|(host, _), _| *host != me);
    }

    /// A node tells events: no more of them than its host has on disk.
    pub(crate) fn telling(&mut self, me: HostId, events: &[Folded]) -> Result<(), Violation> {
        *self.records.entry(me).or_default() += events.len() as u64;
        for folded in events {
            for (host, count) in &folded.counts {
                let said = self.said.get(&(*host, folded.fact.signature));
                let said = said.and_then(|windows| windows.get(&folded.window)).copied();
                if *count > said.unwrap_or_default() {
                    let detail = format!("{me:?} tells {count} of {host:?}, which has {said:?}");
                    return Err(Violation::new("an event is true", detail));
                }
            }
        }
        Ok(())
    }

    /// How many records a node has told its parent.
    pub(crate) fn records(&self, me: HostId) -> u64 {
        self.records.get(&me).copied().unwrap_or_default()
    }

    /// What the root has miscounted.
    fn miscounted(&self, known: &BTreeMap<FoldKey, Folded>) -> Option<String> {
        let mut counted = BTreeMap::<Kind, u64>::new();
        for (key, folded) in known {
            for (host, count) in &folded.counts {
                *counted.entry((*host, key.signature)).or_default() += count;
            }
        }
        let durable = self.durable.iter().filter(|(_, count)| **count > 0);
        for (kind, count) in durable {
            let found = counted.remove(kind).unwrap_or_default();
            if found != *count {
                let (host, signature) = kind;
                return Some(format!("{host:?} has {count} of {signature:?}, the root {found}"));
            }
        }
        let odd = counted.into_iter().find(|(_, count)| *count > 0);
        odd.map(|(kind, count)| format!("the root has {count} of {kind:?}, which never were"))
    }
}

/// What hosts notice, and at which pace and within which limits it goes up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Storm {
    /// How many different things there are to notice; 0: nothing happens.
    kinds: u8,
    save_ms: u64,
    flush_ms: u64,
    repeat_ms: u64,
    held: usize,
    burst: usize,
}

impl Storm {
    /// Draws one, in this share of runs.
    pub(crate) fn draw(rng: &mut SmallRng, share: f64) -> Storm {
        if rng.random_bool(1.0 - share) {
            return Storm::default();
        }
        Storm {
            kinds: rng.random_range(1..5),
            save_ms: rng.random_range(1..500),
            flush_ms: rng.random_range(1..2_000),
            repeat_ms: rng.random_range(1..6_000),
            held: if rng.random_bool(0.2) { rng.random_range(3..12) } else { 1_000 },
            burst: if rng.random_bool(0.2) { rng.random_range(1..4) } else { 100 },
        }
    }

    /// Whether nothing happens.
    pub(crate) fn is_none(&self) -> bool {
        self.kinds == 0
    }

    /// What of it the nodes are given.
    pub(crate) fn limits(&self) -> EventLimits {
        if self.is_none() {
            return EventLimits::default();
        }
        EventLimits {
            save: Duration::from_millis(self.save_ms),
            flush: Duration::from_millis(self.flush_ms),
            repeat: Duration::from_millis(self.repeat_ms),
            held: self.held,
            counts: 2 * self.held,
            burst: self.burst,
            ..EventLimits::default()
        }
    }
}

impl Sim {
    /// Has things happen now and then at each host.
    pub(crate) fn plan_events(&mut self) {
        if !self.plan.events.is_none() {
            for node in 0..self.seats.len() {
                let at = Duration::from_secs(3).mul_f64(self.rng.random_range(0.0..1.0));
                self.queue.push(at, Event::Notice { node });
            }
        }
    }

    /// A host notices something, perhaps several times; its clock may be anything.
    pub(crate) fn notice(&mut self, node: usize) -> Result<(), Violation> {
        if !self.rough {
            return Ok(());
        }
        let longest = Duration::from_secs(*[1, 4, 12].get(node % 3).expect("one of three"));
        // A plan of days has no more of them than one of minutes.
        let slower = self.plan.horizon.as_secs_f64() / SPAN.as_secs_f64();
        let longest = longest.mul_f64(slower.max(1.0));
        let next = self.now + longest.mul_f64(self.rng.random_range(0.0..1.0));
        self.queue.push(next, Event::Notice { node });
        // No more than a few hosts change, and not often.
        self.profile(node, node % 3 == 1)?;
        for _ in 0..self.rng.random_range(1..4) {
            let now_ms = u64::try_from(self.now.as_millis()).unwrap_or(u64::MAX) * HASTE;
            // A clock that jumps to and fro.
            let at_ms = match self.rng.random_bool(0.1) {
                true => self.rng.random_range(0..10 * WINDOW_MS),
                false => now_ms,
            };
            let what = self.rng.random_range(0..self.plan.events.kinds);
            self.strike(node, at_ms, what)?;
        }
        Ok(())
    }

    /// A host notices one thing now, if it runs.
    pub(crate) fn strike(&mut self, node: usize, at_ms: u64, what: u8) -> Result<(), Violation> {
        if self.seats[node].process.is_none() {
            return Ok(());
        }
        let host = HostId(node as u32);
        let happening = happening(host, at_ms, what);
        self.checks.happened.noticed(host, happening.fact.signature);
        self.feed(node, Input::Happened(happening))
    }

    /// How many events the root has counted, and has on its disk.
    pub(crate) fn counted(&self) -> u64 {
        self.seats[0].disk.image.happened.values().map(Folded::total).sum()
    }

    /// What of events the root has not counted, or has counted wrongly.
    pub(crate) fn uncounted(&self) -> Option<String> {
        self.checks.happened.miscounted(&self.seats[0].disk.image.happened)
    }
}

pub(crate) fn happening(host: HostId, at_ms: u64, what: u8) -> Happening {
    let like = format!("thing {}", char::from(b'a' + what));
    let hash = |bytes: &[u8]| Digest([bytes.last().copied().unwrap_or_default(); 32]);
    let fact = Fact::new("host.test", Severity::Error, Class::Client, &like, hash);
    let sample = Sample { at_ms, host, line: like, text: String::new(), order: None };
    Happening { fact: Arc::new(fact), sample, count: 1, reserved: false }
}
