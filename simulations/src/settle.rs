//! After the storm: once faults stop, the tree must find its way back by itself, and be quiet.
//!
//! [`Sim::play`] is the whole of a run: rough weather until the plan's horizon, then healing, then
//! a bounded time to converge, then silence, then one more order over everybody in which no host
//! may be supposed lost by anyone.

use std::collections::BTreeMap;
use std::time::Duration;

use mesh::{HostId, HostSet, OrderId, Subtree};

use crate::checks::{Checks, Violation};
use crate::net::{End, Phase, Side};
use crate::plan::{CONTENTS, giver};
use crate::queue::Event;
use crate::sim::Sim;

/// How long after healing everything must be in its place.
const WITHIN: Duration = Duration::from_secs(300);
/// The holds and suppositions of old orders are over by then.
const LAST_HOLD: Duration = Duration::from_secs(100);
/// How long the tree is watched for silence.
const SILENCE: Duration = Duration::from_secs(15);
/// How often a node may ask by a link within that time for answers to one order that have gone
/// another way. It begins with a pause of five seconds.
const ASKS: u32 = 3;
/// How long the last order may take.
const PROBE: Duration = Duration::from_secs(20);
/// Everybody has found a parent by then.
const HOME: Duration = Duration::from_secs(60);

impl Sim {
    /// Plays the plan to its end.
    pub fn play(&mut self) -> Result<(), Violation> {
        self.run_until(self.plan.horizon)?;
        let healed = self.now;
        self.heal()?;
        if !self.plan.calendar.edicts.is_empty() {
            self.run_until(self.now + HOME.max(self.patience()))?;
            self.end_schedules()?;
        }
        loop {
            self.run_until(self.now + Duration::from_secs(5))?;
            match self.unsettled(healed) {
                None => break,
                Some(_) if self.now < healed + WITHIN.max(self.patience()) => {}
                Some(detail) => return Err(Violation::new("convergence", detail)),
            }
        }
        self.run_until(self.now.max(healed + LAST_HOLD.max(self.patience())))?;
        let talk = self.stats.talk;
        self.asks = Some(BTreeMap::new());
        self.run_until(self.now + SILENCE)?;
        if self.stats.talk > talk {
            let detail = format!("{} frames at rest", self.stats.talk - talk);
            return Err(Violation::new("quiet at rest", detail));
        }
        let asks = self.asks.take().unwrap_or_default();
        if let Some(((node, _, order), count)) = asks.iter().find(|(_, count)| **count > ASKS) {
            let detail = format!("node {node} asks {count} times for {order:?} at rest");
            return Err(Violation::new("quiet at rest", detail));
        }
        self.probe()?;
        self.last_word()?;
        self.burst()?;
        match self.unsettled(healed) {
            None => Ok(()),
            Some(detail) => Err(Violation::new("convergence", detail)),
        }
    }

    /// How long slow beats and long waits may keep a tree from being whole: a dead link is noticed
    /// by its beats at each end, one after the other, and then a parent is dialled, or a better
    /// one. After that all content may still have to come over the slowest link.
    fn patience(&self) -> Duration {
        let missed = self.seats[0].config.missed_beats;
        let backoff = &self.plan.backoff;
        let weather = &self.plan.weather;
        let rates = [weather.wan.rate, weather.lan.rate].into_iter().flatten();
        let content = u64::from(CONTENTS) * weather.content_bytes;
        let slowest = rates.map(|rate| content as f64 / rate as f64).fold(0.0, f64::max);
        self.plan.beat * (missed + 1) * 3
            + (backoff.cap + backoff.climb_cap) * 2
            + Duration::from_secs_f64(slowest)
    }

    /// One more order over everybody, in a tree where nothing is wrong.
    fn probe(&mut self) -> Result<(), Violation> {
        let work = self.plan.probe(self.now);
        let id = work.order.id;
        self.checks.add(&work);
        self.checks.calm = true;
        self.plan.work.push(work);
        self.queue.push(self.now, Event::Submit { work: self.plan.work.len() - 1 });
        self.watch(&[id])?;
        self.run_until(self.now + PROBE)?;
        let everybody = HostSet::from_ranges([(0, (self.seats.len() - 1) as u32)]);
        let root = self.seats[0].process.as_ref();
        let tally = root.and_then(|root| root.node.tally(id));
        let settled = tally.map(|tally| tally.settled());
        if self.checks.known.is_rejected(id) {
            return Ok(());
        }
        // Those below a node that has no room are not reached.
        let is_covered = tally.is_some_and(|tally| *tally.hosts() == everybody);
        let is_turned_away = is_covered && self.checks.known.is_turned_away(id);
        if settled.as_ref() != Some(&everybody) && !is_turned_away {
            let detail = format!("only {settled:?} answered in a healthy tree");
            return Err(Violation::new("a healthy tree answers", detail));
        }
        // Who is full of orders that were lost with the root has refused, and says nothing.
        if self.was_restored() && self.checks.known.is_crowded_out(id) {
            return Ok(());
        }
        let heard = self.heard_in(id);
        if heard != everybody.difference(&HostSet::one(HostId::ROOT)) {
            let detail = format!("only {heard} were heard in a healthy tree");
            return Err(Violation::new("a healthy tree is heard", detail));
        }
        Ok(())
    }

    /// What is not as it should be, in words.
    fn unsettled(&self, healed: Duration) -> Option<String> {
        let everybody = HostSet::from_ranges([(0, (self.seats.len() - 1) as u32)]);
        let Some(root) = &self.seats[0].process else { return Some("the root is dead".into()) };
        if root.node.up() != everybody {
            return Some(format!("only {} are up", root.node.up()));
        }
        if let Some(detail) = self.misshown(&root.shown, &everybody) {
            return Some(detail);
        }
        for (node, seat) in self.seats.iter().enumerate() {
            let Some(process) = &seat.process else { return Some(format!("{node} is dead")) };
            if !process.pulling.is_empty() {
                return Some(format!("{node} still pulls {:?}", process.pulling));
            }
            if let Some(detail) = self.too_low(node, process.node.parent()) {
                return Some(detail);
            }
            if !process.asks.is_empty() || !process.wants.is_empty() {
                return Some(format!("{node} keeps {:?} waiting", process.asks));
            }
            if !process.running.is_empty() {
                return Some(format!("{node} still runs {:?}", process.running));
            }
        }
        if let Some(no) = self.rolls.iter().position(|roll| !roll.rests()) {
            return Some(format!("rollout {no} neither goes on nor stops"));
        }
        if let Some(detail) = self.unscheduled() {
            return Some(detail);
        }
        if let Some(detail) = self.uncounted().or_else(|| self.outdated()) {
            return Some(detail);
        }
        let orders = self.plan.work.iter().filter(|work| work.expires > self.now);
        orders.map(|work| work.order.id).find_map(|id| self.unanswered(id, healed))
    }

    /// Whether a node could have a better parent than the one it has.
    fn too_low(&self, node: usize, parent: Option<HostId>) -> Option<String> {
        let parents = &self.plan.tree[node].parents;
        let has = |other: &usize| parent == Some(HostId(*other as u32));
        // A parent that takes only a few may have turned it away.
        let open = |other: &&usize| self.plan.tree[**other].children.is_none();
        let better = parents.iter().take_while(|other| !has(other)).find(open)?;
        Some(format!("{node} has {parent:?} for its parent, and could have {better}"))
    }

    /// How the tree that the root shows differs from the links that there are.
    fn misshown(&self, shown: &Subtree, everybody: &HostSet) -> Option<String> {
        if shown.up != *everybody {
            return Some(format!("only {} are shown as up", shown.up));
        }
        let mut branches: BTreeMap<HostId, Vec<HostId>> = BTreeMap::new();
        for link in self.net.links.values() {
            let [child, parent] = Side::BOTH.map(|side| link.end(side));
            let live =
                |end: &End| end.phase == Phase::Open && self.seats[end.node].life == end.life;
            if live(child) && live(parent) {
                let (child, parent) = (HostId(child.node as u32), HostId(parent.node as u32));
                branches.entry(parent).or_default().push(child);
            }
        }
        let branches: BTreeMap<_, HostSet> = branches
            .into_iter()
            .map(|(parent, hosts)| (parent, hosts.into_iter().collect()))
            .collect();
        let same = shown.branches == branches;
        (!same).then(|| format!("the tree is {branches:?}, shown is {:?}", shown.branches))
    }

    /// What the node at which it was given lacks about an order that is still valid.
    fn unanswered(&self, id: OrderId, healed: Duration) -> Option<String> {
        if self.is_lost(id) {
            return self.untold(id);
        }
        if self.checks.known.is_rejected(id) {
            return None;
        }
        let everybody = HostSet::from_ranges([(0, (self.seats.len() - 1) as u32)]);
        let giver = &self.seats[giver(id).0 as usize];
        let node = &giver.process.as_ref()?.node;
        let work = self.work(id)?;
        if self.is_pointless(&work.order) {
            return None;
        }
        let (order, tally) = (&work.order, node.tally(id));
        // Who lives elsewhere is sought there, but not given what it has not got.
        let elsewhere = match id.giver() {
            Some(_) => everybody.difference(&node.up()),
            None => HostSet::new(),
        };
        if !Checks::covers(tally, order) {
            return Some(format!("{id:?} for {} has {tally:?}", order.targets));
        }
        let tally = tally?;
        let bodies = giver.disk.image.bodies.get(&id);
        for host in order.targets.intersection(&everybody).iter() {
            let said = tally.outcome(host)?;
            let own = self.checks.words.own(id, host);
            let own = own.and_then(|words| words.iter().max_by_key(|word| word.state.weight()));
            if own.is_some_and(|own| said.state.weight() < own.state.weight()) {
                return Some(format!("{host:?} says {own:?} of {id:?}, its giver {said:?}"));
            }
            let crowded = self.checks.known.is_crowded_out(id);
            // Who waits for a release that never comes must be told so.
            let got = self.checks.known.has_got(host, id) && !(crowded && order.gate.is_some());
            let soon = work.at + order.hold > healed + HOME.max(self.patience());
            let soon = soon && !elsewhere.contains(host);
            if (got || soon && !crowded) && said.state.is_provisional() {
                let how = if got { "has it" } else { "could have it" };
                return Some(format!("{host:?} {how}, its giver says {said:?} of {id:?}"));
            }
            let body = said.body.filter(|digest| !bodies.is_some_and(|b| b.contains(digest)));
            // Where there is little room outputs may be missing, but somebody must have said so,
            // or only the root that was lost had them.
            let lost = self.was_restored() && self.checks.known.trimmed.contains(&id);
            if let Some(digest) = body.filter(|_| !lost && !self.checks.known.cut.contains(&id)) {
                return Some(format!("its giver lacks {digest:?} of {host:?} for {id:?}"));
            }
        }
        None
    }

    /// Who the root reaches now.
    pub fn reached(&self) -> HostSet {
        let root = self.seats[HostId::ROOT.0 as usize].process.as_ref();
        root.map(|root| root.node.up()).unwrap_or_default()
    }
}
