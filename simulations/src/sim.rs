//! [`Sim`]: virtual time, one event after the other, and what each does to a node.
//!
//! A step takes the next event, gives a node at most one input at a time, obeys all that it wants,
//! and lets the checks look on. Nothing here depends on anything but the plan and its seed.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use mesh::{Digest, Frame, HostId, Input, LinkId, Node, Order, OrderId, Saved};
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};

use crate::bus::Chatter;
use crate::checks::{Checks, Violation};
use crate::coverage::{Coverage, Strike};
use crate::disk::Entry;
use crate::fan::{self, Failures};
use crate::net::Net;
use crate::plan::{Plan, Work, giver};
use crate::played::Stats;
use crate::queue::{Event, Queue};
use crate::restoring::Restoring;
use crate::rolling::Roll;
use crate::schedules::End;
use crate::seat::{Process, Seat};
use crate::trace::{self, Sink, Trace};
use crate::viewers::Viewers;

/// How often a node may be woken in one instant before it counts as a storm.
const RESTLESS: u32 = 50;

/// A world of nodes.
pub struct Sim {
    pub(crate) plan: Plan,
    pub(crate) now: Duration,
    pub(crate) rng: SmallRng,
    pub(crate) queue: Queue,
    pub(crate) seats: Vec<Seat>,
    pub(crate) net: Net,
    pub(crate) checks: Checks,
    pub(crate) trace: Trace,
    pub(crate) stats: Stats,
    /// While nothing happens: how often each node asks by each link for answers to each order.
    pub(crate) asks: Option<BTreeMap<(usize, LinkId, OrderId), u32>>,
    pub(crate) viewers: Viewers,
    pub(crate) chatter: Chatter,
    pub(crate) coverage: Coverage,
    /// Where the plan's rollouts are.
    pub(crate) rolls: Vec<Roll>,
    /// Who was failed by which sibling.
    pub(crate) failures: Failures,
    /// When the root had every answer to an order.
    pub(crate) closed: BTreeMap<OrderId, Duration>,
    /// By when orders of turns must have begun.
    pub(crate) ends: BTreeMap<OrderId, End>,
    /// Whether all commands end well and say the same.
    pub(crate) alike: bool,
    /// Whether content is always handed on as it comes.
    pub(crate) steady: bool,
    /// Whether faults still happen.
    pub(crate) rough: bool,
    /// Backups of the root, and what came of them.
    pub(crate) restoring: Restoring,
}

impl Sim {
    /// The world of a plan, with every process about to start.
    pub fn new(plan: Plan, sink: Sink) -> Sim {
        let seats = (0..plan.tree.len()).map(|node| Seat {
            config: plan.config(node),
            disk: Default::default(),
            process: None,
            life: 0,
            skew_ms: 0,
            epoch: 0,
        });
        let mut sim = Sim {
            now: Duration::ZERO,
            rng: SmallRng::seed_from_u64(plan.seed),
            queue: Queue::default(),
            seats: seats.collect(),
            net: Net::new(&plan.weather),
            checks: Checks::new(&plan),
            trace: Trace::new(sink),
            stats: Stats { nodes: plan.tree.len(), ..Stats::default() },
            asks: None,
            viewers: Viewers::default(),
            chatter: Chatter::default(),
            coverage: Coverage::default(),
            rolls: plan.rollouts.iter().map(Roll::new).collect(),
            failures: Failures::new(),
            closed: BTreeMap::new(),
            ends: BTreeMap::new(),
            alike: false,
            steady: false,
            rough: true,
            restoring: Restoring::default(),
            plan,
        };
        sim.seats[0].disk.image.store = sim.plan.content().collect();
        for node in 0..sim.seats.len() {
            let at = Duration::from_secs(1).mul_f64(sim.rng.random_range(0.0..1.0));
            sim.queue.push(at, Event::Restart { node });
        }
        for work in 0..sim.plan.work.len() {
            sim.queue.push(sim.plan.work[work].at, Event::Submit { work });
        }
        for no in 0..sim.plan.rollouts.len() {
            sim.queue.push(sim.plan.rollouts[no].at, Event::Roll { no });
        }
        for index in 0..sim.plan.faults.len() {
            sim.queue.push(sim.plan.faults[index].0, Event::Fault { index });
        }
        sim.plan_events();
        sim.plan_schedules();
        sim.plan_backups();
        if sim.plan.viewers {
            sim.queue.push(Duration::ZERO, Event::Visit);
        }
        sim
    }

    /// What the run has cost so far.
    pub fn stats(&self) -> Stats {
        Stats {
            steps: self.trace.steps(),
            hash: self.trace.hash(),
            virtual_time: self.now,
            ..self.stats
        }
    }

    /// Runs until this moment.
    pub fn run_until(&mut self, until: Duration) -> Result<(), Violation> {
        while let Some((at, event)) = self.queue.pop(until) {
            self.now = at;
            self.step(event)?;
        }
        self.now = until;
        Ok(())
    }

    fn step(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Wake { node, life } => self.wake(node, life),
            Event::Arrive { link, to, item } => self.arrive(link, to, item),
            Event::Durable { node, life, through } => self.durable(node, life, through),
            Event::Dialled { node, life, place, parent } => {
                self.dialled((node, life), place, parent)
            }
            Event::DialFailed { node, life, place } if self.lives(node, life) => {
                self.feed(node, Input::DialFailed { place })
            }
            Event::Found { node, life, content } if self.lives(node, life) => {
                self.got(node, None, content, Ok(()))
            }
            Event::Midway { node, life, order, request } if self.lives(node, life) => {
                self.midway(node, order, request)
            }
            Event::Ended { node, life, order } if self.lives(node, life) => self.ended(node, order),
            Event::Submit { work } => self.submit(work),
            Event::Roll { no } => self.roll(no),
            Event::Fault { index } if self.rough => self.fault(index),
            Event::Backup { index } => {
                self.back_up(index);
                Ok(())
            }
            Event::Trip { node, life, down } if self.rough && self.lives(node, life) => {
                self.struck(Strike::Trip, node);
                self.kill(node, down)
            }
            Event::Snap { link } if self.rough => {
                if let Some(child) = self.net.open_child(link) {
                    self.struck(Strike::Snap, child);
                }
                let noticed = self.rng.random_bool(0.7);
                self.cut(link, noticed);
                Ok(())
            }
            Event::Edict { no } => {
                self.edict(no);
                Ok(())
            }
            Event::Look { node, life } => self.look(node, life),
            Event::Silent { node, life, no } => self.silent(node, life, no),
            Event::Righted { node, life } => self.righted(node, life),
            Event::Room { node } => self.room(node),
            Event::Heal { from, to } => {
                let dice = (&mut self.rng, &mut self.queue);
                self.net.unblock(self.now, (from, to), dice);
                Ok(())
            }
            Event::Restart { node } => self.restart(node),
            Event::Notice { node } => self.notice(node),
            Event::Visit if self.rough => self.visit(),
            Event::Reply { node, life, answer } if self.lives(node, life) => {
                self.reply(node, answer)
            }
            Event::Fetch(fetch) if self.lives(fetch.node, fetch.life) => self.fetch(fetch),
            Event::Speak { node, life, said } if self.lives(node, life) => self.speak(node, said),
            _ => Ok(()),
        }
    }

    /// Whether a process is still the one that it was.
    pub(crate) fn lives(&self, node: usize, life: u64) -> bool {
        self.seats[node].life == life && self.seats[node].process.is_some()
    }

    /// Gives a node one input and obeys what it wants.
    pub(crate) fn feed(&mut self, node: usize, input: Input) -> Result<(), Violation> {
        if self.seats[node].process.is_none() {
            return Ok(());
        }
        self.trace.step(self.now, node, trace::marks(&input));
        if self.trace.wants_text() {
            self.trace.line(self.now, node, &trace::input(&input));
        }
        self.checks.input(&self.seats[node], &input);
        let me = HostId(node as u32);
        self.checks.absences.input(me, &input, self.now);
        let announced = match &input {
            // What still comes by a link that the node has closed is not taken.
            Input::Frame { link, frame } if self.checks.holds(me, *link) => {
                self.checks.gated.hearing(me, *link, frame, self.now);
                self.overhear(node, *link, frame);
                matches!(frame, Frame::Below { .. }).then_some(*link)
            }
            _ => None,
        };
        let seat = &mut self.seats[node];
        if let Some(process) = &mut seat.process {
            if let Input::DialFailed { .. } = input {
                process.parted = Some(self.now);
            }
            let time = process.time(self.now);
            process.node.handle(time, input);
        }
        self.drain(node)?;
        Checks::fits(&self.seats[node])?;
        announced.map_or(Ok(()), |link| self.checks.done(me, link, self.now))
    }

    /// Starts a process with what its disk has.
    pub(crate) fn restart(&mut self, node: usize) -> Result<(), Violation> {
        if self.seats[node].process.is_some() {
            return Ok(());
        }
        self.checks.restarted(&self.seats[node]);
        if node == 0 {
            self.root_starts();
        }
        let (plan, now) = (&self.plan, self.now);
        let expires = |id: OrderId| plan.work.iter().find(|w| w.order.id == id).map(|w| w.expires);
        let left = |id: OrderId| expires(id).unwrap_or_default().saturating_sub(now);
        let seat = &mut self.seats[node];
        let saved: Saved = seat.disk.image.load(left, &mut self.rng);
        let core = Node::new(seat.config.clone(), saved, self.rng.next_u64(), mesh::Time::ZERO);
        seat.life += 1;
        let mut fanout = mesh::Fanout::new(fan::limits(&self.plan));
        fanout.plant(self.plan.bug);
        seat.process = Some(Process::new(core, fanout, now));
        self.trace.step(now, node, [100, seat.life]);
        if self.trace.wants_text() {
            self.trace.line(now, node, "starts");
        }
        self.open_desk(node);
        self.drain(node)?;
        self.retell(node)?;
        self.profile(node, false)?;
        if self.now < self.seats[node].disk.full_until {
            self.feed(node, Input::Degraded(true))?;
        }
        self.die_again(node);
        Ok(())
    }

    /// A process that has just started may die again while it recovers.
    fn die_again(&mut self, node: usize) {
        if self.rough && self.seats[node].life > 1 {
            let weather = &self.plan.weather;
            if self.rng.random_bool(weather.twice) {
                let within = weather.save.1 * 2;
                let at = self.now + within.mul_f64(self.rng.random_range(0.0..1.0));
                let down = Duration::from_secs(2).mul_f64(self.rng.random_range(0.0..1.0));
                let life = self.seats[node].life;
                self.queue.push(at, Event::Trip { node, life, down });
            }
        }
    }

    fn wake(&mut self, node: usize, life: u64) -> Result<(), Violation> {
        let now = self.now;
        let seat = &mut self.seats[node];
        let due = |process: &&mut Process| process.wake == Some(now);
        let Some(process) = seat.process.as_mut().filter(due).filter(|_| seat.life == life) else {
            return Ok(());
        };
        process.wake = None;
        process.restless += 1;
        process.node.handle_timeout(process.time(now));
        self.trace.step(now, node, [101, 0]);
        if self.trace.wants_text() {
            self.trace.line(now, node, "timeout");
        }
        self.drain(node)
    }

    /// Obeys a node until it wants nothing more, and notes when it wants to be woken.
    fn drain(&mut self, node: usize) -> Result<(), Violation> {
        while let Some(output) =
            self.seats[node].process.as_mut().and_then(|process| process.node.poll_output())
        {
            if self.trace.wants_text() {
                let text = format!("    {}", trace::output(&output));
                self.trace.line(self.now, node, &text);
            }
            self.obey(node, output)?;
        }
        let now = self.now;
        let seat = &mut self.seats[node];
        let Some(process) = &mut seat.process else { return Ok(()) };
        self.checks.bounds(seat.config.host, &seat.config, &process.node)?;
        let Some((at, _)) = process.node.poll_timeout() else { return Ok(()) };
        let at = (process.started + at.0).max(now);
        if at > now {
            process.restless = 0;
        }
        if process.restless > RESTLESS {
            let detail = format!("node {node} wants to be woken at once, over and over");
            return Err(Violation::new("timer storm", detail));
        }
        if process.wake != Some(at) {
            process.wake = Some(at);
            self.queue.push(at, Event::Wake { node, life: seat.life });
        }
        Ok(())
    }

    pub(crate) fn durable(
        &mut self,
        node: usize,
        life: u64,
        through: u64,
    ) -> Result<(), Violation> {
        if !self.lives(node, life) || self.now < self.seats[node].disk.full_until {
            return Ok(());
        }
        let disk = &mut self.seats[node].disk;
        if std::mem::take(&mut disk.failing) && self.rough {
            let down = disk.down;
            self.struck(Strike::FailDisk, node);
            return self.kill(node, down);
        }
        while let Some(entry) = self.seats[node].disk.pop(through) {
            self.land(node, &entry)?;
        }
        self.feed(node, Input::Saved { through })
    }

    /// An entry is on the disk.
    pub(crate) fn land(&mut self, node: usize, entry: &Entry) -> Result<(), Violation> {
        self.seats[node].disk.image.apply(entry);
        if let Entry::Save { record, .. } = entry {
            self.checks.durable(&self.seats[node], record)?;
            if let mesh::Record::Released { order, hosts } = record {
                self.let_go(*order, hosts);
            }
        }
        Ok(())
    }

    /// The operator gives an order, and gives it again until it is known to be kept.
    fn submit(&mut self, work: usize) -> Result<(), Violation> {
        let Work { order, expires, .. } = &self.plan.work[work];
        let (id, left) = (order.id, expires.saturating_sub(self.now));
        if left.is_zero() || self.checks.known.is_kept(id) {
            return Ok(());
        }
        let giver = giver(id);
        if giver == HostId::ROOT && self.seats[0].process.is_some() && self.gave(id) {
            return Ok(());
        }
        let Work { order, .. } = &self.plan.work[work];
        self.queue.push(self.now + Duration::from_secs(2), Event::Submit { work });
        // An operator takes back only what his node has taken.
        let is_known = |older| {
            let is_there = giver != HostId::ROOT || self.is_at_hand(older);
            is_there && self.checks.known.has_got(giver, older)
        };
        if !order.cancels.is_none_or(is_known) {
            return Ok(());
        }
        let mut order = Order { ttl: left, ..Order::clone(order) };
        order.supersedes.retain(|(older, _)| is_known(*older));
        self.feed(giver.0 as usize, Input::Submit(order.into()))
    }

    /// When an order stops being valid.
    pub(crate) fn expiry(&self, id: OrderId) -> Duration {
        self.work(id).map(|work| work.expires).unwrap_or_default()
    }

    pub(crate) fn work(&self, id: OrderId) -> Option<&Work> {
        self.plan.work.iter().find(|work| work.order.id == id)
    }
}

/// One of the few bodies that commands print.
pub(crate) fn body(n: u8) -> (Digest, Bytes) {
    (Digest([n; 32]), Bytes::from(vec![n; 10 + usize::from(n)]))
}
