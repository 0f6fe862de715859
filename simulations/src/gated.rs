//! Runs that go on a few hosts at a time: how they are drawn, and what must hold of them.
//!
//! [`Gated`] counts for itself which commands run (it sees each start, each end and each death),
//! and what stands on the root's disk; from that it knows whether a window or a budget was kept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use mesh::{Batch, Frame, Gate, HostId, HostSet, LinkId, Order, OrderId, Outcome, Share, State};
use rand::RngExt;
use rand::rngs::SmallRng;

use crate::checks::Violation;
use crate::disk::Image;
use crate::plan::{Plan, Work};
use crate::queue::Event;
use crate::sim::Sim;

/// How long a gated command takes at most.
pub(crate) const LONGEST: Duration = Duration::from_secs(5);

/// Draws a gate over these targets.
pub(crate) fn gate(rng: &mut SmallRng, targets: &HostSet) -> Gate {
    let window = rng.random_range(1..5);
    let mut maybe = |often, most: u64| rng.random_bool(often).then(|| rng.random_range(0..most));
    let (max_errors, max_missed) = (maybe(0.4, 4), maybe(0.2, 4));
    let (per_child, batch, per_lot) = (maybe(0.3, 3), maybe(0.3, 5), maybe(0.3, 2));
    let batch = batch.map(|size| Batch { size: size + 1, wait: Duration::from_secs(size) });
    let lots = match per_lot {
        Some(_) => (0..2).map(|n| targets.iter().filter(|h| h.0 % 2 == n).collect()).collect(),
        None => Vec::new(),
    };
    Gate {
        window,
        per_child: per_child.map(|most| share(window, most)),
        lots,
        per_lot: share(window, per_lot.unwrap_or_default()),
        batch,
        max_errors,
        max_missed,
        begin: Duration::from_secs(rng.random_range(2..10)),
        longest: LONGEST,
    }
}

/// One or two hosts, or a part of the group.
fn share(window: u64, most: u64) -> Share {
    match window % 2 {
        0 => Share::Percent([20, 50, 100][most as usize % 3]),
        _ => Share::Hosts(most + 1),
    }
}

/// A gate that lets half of a healthy tree run at a time.
pub(crate) fn half(nodes: usize) -> Gate {
    Gate {
        window: nodes as u64 / 2 + 1,
        per_child: None,
        lots: Vec::new(),
        per_lot: Share::Hosts(1),
        batch: None,
        max_errors: None,
        max_missed: None,
        begin: Duration::from_secs(10),
        longest: Duration::from_secs(10),
    }
}

/// What is known from outside of all gated orders.
#[derive(Default)]
pub(crate) struct Gated {
    gates: BTreeMap<OrderId, Gate>,
    /// The commands that run now.
    running: BTreeMap<OrderId, BTreeSet<HostId>>,
    /// Those that have failed, as they did themselves.
    failed: BTreeMap<OrderId, u64>,
    /// Who stands as released on the root's disk.
    released: BTreeMap<OrderId, HostSet>,
    /// Who stands as skipped there, and was never released.
    skipped: BTreeMap<OrderId, HostSet>,
    /// Released hosts of whom the root has supposed the worst: how they end it may learn too late.
    supposed: BTreeMap<OrderId, HostSet>,
    /// Releases that are on their way to the root's disk, and when they were decided.
    decided: Vec<(OrderId, HostSet, Duration)>,
    /// By when whoever is released must have begun, as far as the root counts on it.
    begin_by: BTreeMap<(OrderId, HostId), Duration>,
    /// Orders that somebody has, at any time, taken back, and for whom.
    back: BTreeMap<OrderId, HostSet>,
    /// The releases that each process knows of: of which order, whom, and until when.
    known: BTreeMap<HostId, Vec<(OrderId, HostSet, Duration)>>,
    /// Whom each open link was told of.
    told: BTreeMap<(HostId, LinkId), BTreeMap<OrderId, HostSet>>,
    /// Whom the child at the other end of each open link reaches.
    reached: BTreeMap<(HostId, LinkId), HostSet>,
}

impl Gated {
    /// Takes note of an order that will be given.
    pub(crate) fn add(&mut self, order: &Order) {
        if let Some(gate) = &order.gate {
            self.gates.insert(order.id, gate.clone());
        }
        if let Some(older) = order.cancels {
            let back = self.back.entry(older).or_default();
            *back = back.union(&order.targets);
        }
    }

    /// A frame comes to a node.
    pub(crate) fn hearing(&mut self, me: HostId, link: LinkId, frame: &Frame, now: Duration) {
        match frame {
            Frame::Go { order, hosts, left } => self.know(me, *order, hosts, now + *left),
            Frame::Below(tree) => drop(self.reached.insert((me, link), tree.up.clone())),
            _ => {}
        }
    }

    /// A node knows of a release. One that it hears of again has no more time than before.
    pub(crate) fn know(&mut self, me: HostId, order: OrderId, hosts: &HostSet, until: Duration) {
        let known = self.known.entry(me).or_default();
        let before = known.iter().filter(|(id, ..)| *id == order);
        let fresh = before.fold(hosts.clone(), |fresh, (_, hosts, _)| fresh.difference(hosts));
        known.push((order, fresh, until));
    }

    /// A node tells a child of a release.
    pub(crate) fn telling(&mut self, me: HostId, link: LinkId, frame: &Frame) {
        if let Frame::Go { order, hosts, .. } = frame {
            let told = self.told.entry((me, link)).or_default().entry(*order).or_default();
            *told = told.union(hosts);
        }
    }

    /// A link is no more, as far as one end of it knows.
    pub(crate) fn parted(&mut self, me: HostId, link: LinkId) {
        self.told.remove(&(me, link));
        self.reached.remove(&(me, link));
    }

    /// A child has just said whom it reaches, and the node has done about it what it wanted. Then
    /// the child knows of every release of those whom nobody else reaches. `over`: whose release
    /// is of no use any more.
    pub(crate) fn told_all(
        &self,
        me: HostId,
        link: LinkId,
        now: Duration,
        over: impl Fn(OrderId, HostId) -> bool,
    ) -> Result<(), Violation> {
        let Some(reached) = self.reached.get(&(me, link)) else { return Ok(()) };
        let mine = self.reached.range((me, LinkId(0))..).take_while(|((node, _), _)| *node == me);
        let others = mine.filter(|((_, other), _)| *other != link).map(|(_, hosts)| hosts);
        let only = others.fold(reached.clone(), |only, hosts| only.difference(hosts));
        let nobody = HostSet::new();
        for (order, hosts, until) in self.known.get(&me).into_iter().flatten() {
            // A node may take a quarter of a second off.
            if *until <= now + Duration::from_millis(250) {
                continue;
            }
            let told = self.told.get(&(me, link)).and_then(|told| told.get(order));
            let back = self.back.get(order).unwrap_or(&nobody);
            let untold = hosts.intersection(&only).difference(told.unwrap_or(&nobody));
            let mut untold = untold.difference(back);
            untold = untold.iter().filter(|host| !over(*order, *host)).collect();
            if !untold.is_empty() {
                let detail =
                    format!("{me:?} keeps from {link:?} that {untold} may begin {order:?}");
                return Err(Violation::new("a child is told of releases", detail));
            }
        }
        Ok(())
    }

    /// A command starts.
    pub(crate) fn starting(
        &mut self,
        me: HostId,
        id: OrderId,
        now: Duration,
    ) -> Result<(), Violation> {
        let Some(gate) = self.gates.get(&id) else { return Ok(()) };
        let has = |sets: &BTreeMap<OrderId, HostSet>| sets.get(&id).is_some_and(|s| s.contains(me));
        if !has(&self.released) {
            let detail = format!("{me:?} starts {id:?}, and the root might not remember why");
            return Err(Violation::new("released before it begins", detail));
        }
        if has(&self.skipped) {
            let detail = format!("{me:?} starts {id:?}, which it was said to skip");
            return Err(Violation::new("who is skipped does not begin", detail));
        }
        if self.begin_by.get(&(id, me)).is_some_and(|by| *by < now) {
            let detail = format!("{me:?} starts {id:?}, and the root might have given it up");
            return Err(Violation::new("who begins, begins in time", detail));
        }
        let running = self.running.entry(id).or_default();
        running.insert(me);
        let within = |group: &dyn Fn(&HostId) -> bool, most: u64| {
            running.iter().filter(|host| group(host)).count() as u64 <= most
        };
        let most = |lot: &HostSet| match gate.per_lot {
            Share::Hosts(number) => number,
            Share::Percent(percent) => {
                (lot.iter().count() as f64 * f64::from(percent) / 100.0).ceil() as u64
            }
        };
        let lots = gate.lots.iter().all(|lot| within(&|host| lot.contains(*host), most(lot)));
        if !lots || !within(&|_| true, gate.window) {
            let detail = format!("{running:?} run {id:?} at once, with {gate:?}");
            return Err(Violation::new("the window", detail));
        }
        Ok(())
    }

    /// A command has ended.
    pub(crate) fn ended(&mut self, me: HostId, id: OrderId) {
        if let Some(running) = self.running.get_mut(&id) {
            running.remove(&me);
        }
    }

    /// How a command has ended stands on its host's own disk.
    pub(crate) fn kept(&mut self, id: OrderId, outcome: Outcome) -> Result<(), Violation> {
        let Some(gate) = self.gates.get(&id) else { return Ok(()) };
        if matches!(outcome.state, State::Failed(_) | State::Signalled(_)) {
            let failed = self.failed.entry(id).or_default();
            *failed += 1;
            let unsure = self.supposed.get(&id).map_or(0, HostSet::len);
            let most = gate.max_errors.map(|most| most + gate.window + unsure);
            if most.is_some_and(|most| *failed > most) {
                let detail = format!("{failed} hosts have failed in {id:?}, with {gate:?}");
                return Err(Violation::new("the budget", detail));
            }
        }
        Ok(())
    }

    /// A host dies, and its commands with it.
    pub(crate) fn died(&mut self, me: HostId) {
        self.known.remove(&me);
        self.told.retain(|(node, _), _| *node != me);
        self.reached.retain(|(node, _), _| *node != me);
        self.running.values_mut().for_each(|running| running.retain(|host| *host != me));
    }

    /// The root decides on a release, which goes to its disk first.
    pub(crate) fn deciding(&mut self, id: OrderId, hosts: &HostSet, now: Duration) {
        self.decided.push((id, hosts.clone(), now));
    }

    /// When a release was decided that stands on the disk now.
    fn decided(&mut self, id: OrderId, hosts: &HostSet) -> Option<Duration> {
        let is = |(order, whom, _): &(OrderId, HostSet, Duration)| *order == id && whom == hosts;
        let place = self.decided.iter().position(is)?;
        Some(self.decided.swap_remove(place).2)
    }

    /// A release stands on the root's disk, beside what was there before it.
    pub(crate) fn released(
        &mut self,
        id: OrderId,
        hosts: &HostSet,
        image: &Image,
    ) -> Result<(), Violation> {
        let broken = |why: &str| {
            let detail = format!("{hosts} of {id:?}: {why}");
            Err(Violation::new("nobody is released amiss", detail))
        };
        let (Some(gate), Some(order)) = (self.gates.get(&id), image.orders.get(&id)) else {
            return broken("it has no gate");
        };
        if !hosts.is_subset(&order.targets) {
            return broken("not for all of them");
        }
        // The root's own word is on its disk before it counts.
        let others = hosts.difference(&HostSet::one(HostId::ROOT));
        let back = |o: &&Arc<Order>| o.cancels == Some(id) && o.targets.intersects(&others);
        if let Some(cancel) = image.orders.values().find(back) {
            return broken(&format!("taken back by {:?}", cancel.id));
        }
        let tally = image.tallies.get(&id).cloned().unwrap_or_default();
        if tally.hosts().intersects(&others) {
            return broken("has an outcome");
        }
        let count = |of: &dyn Fn(State) -> bool| -> u64 {
            let lines = tally.lines().filter(|(outcome, _)| of(outcome.state));
            lines.map(|(_, hosts)| hosts.difference(&HostSet::one(HostId::ROOT)).len()).sum()
        };
        let errors = count(&|state| {
            matches!(state, State::Failed(_) | State::Signalled(_) | State::Refused)
        });
        let missed = count(&|state| {
            let unsure = matches!(state, State::Interrupted | State::Expired | State::TimedOut);
            unsure || state.is_provisional()
        });
        let over = |most: Option<u64>, count| most.is_some_and(|most| count > most);
        if over(gate.max_errors, errors) || over(gate.max_missed, missed) {
            return broken(&format!("after {errors} errors and {missed} misses, with {gate:?}"));
        }
        let released = self.released.entry(id).or_default();
        if released.intersects(hosts) {
            return broken("released before");
        }
        *released = released.union(hosts);
        Ok(())
    }

    /// The root supposes the worst of these hosts.
    pub(crate) fn supposed(&mut self, id: OrderId, hosts: &HostSet) {
        if let Some(released) = self.released.get(&id) {
            let supposed = self.supposed.entry(id).or_default();
            *supposed = supposed.union(&hosts.intersection(released));
        }
    }

    /// Whether this node may skip hosts of an order.
    pub(crate) fn is_skipper(&self, me: HostId, id: OrderId) -> bool {
        me == HostId::ROOT && self.gates.contains_key(&id)
    }

    /// The root says that these hosts are skipped. Returns those of whom it may.
    pub(crate) fn skipped(&mut self, id: OrderId, hosts: &HostSet) -> HostSet {
        if !self.gates.contains_key(&id) {
            return HostSet::new();
        }
        let nobody = HostSet::new();
        let mine = hosts.difference(self.released.get(&id).unwrap_or(&nobody));
        let skipped = self.skipped.entry(id).or_default();
        *skipped = skipped.union(&mine);
        mine
    }
}

impl Plan {
    /// The order by which an operator tells those who wait in vain that they need not.
    fn closing(&self, now: Duration, older: &Work, hosts: &HostSet) -> Work {
        let ttl = older.expires.saturating_sub(now);
        let order = Order {
            again: true,
            cancels: Some(older.order.id),
            lapses: true,
            hold: ttl,
            ttl,
            ..crate::plan::run(self.free_no(), hosts.clone())
        };
        let takes = (Duration::from_millis(1), Duration::from_millis(50));
        Work { at: now, expires: now + ttl, order: Arc::new(order), extra: None, takes }
    }
}

impl Sim {
    /// A release is on the root's disk, some time after it was decided.
    pub(crate) fn let_go(&mut self, id: OrderId, hosts: &HostSet) {
        let begin = self.work(id).and_then(|work| work.order.gate.as_ref()).map(|gate| gate.begin);
        let begin = begin.unwrap_or_default();
        let decided = self.checks.gated.decided(id, hosts).unwrap_or(self.now);
        let until = decided + begin.saturating_sub(Duration::from_secs(1));
        self.checks.gated.know(HostId::ROOT, id, hosts, until);
        let by = self.now + begin + self.on_its_way();
        let hosts = hosts.iter().map(|host| ((id, host), by));
        self.checks.gated.begin_by.extend(hosts);
    }

    /// The root starts anew: whoever it has released has more time from now on.
    pub(crate) fn root_starts(&mut self) {
        let more = self.now + self.on_its_way();
        let gated = &mut self.checks.gated;
        for ((id, _), by) in &mut gated.begin_by {
            *by = more + gated.gates.get(id).map(|gate| gate.begin).unwrap_or_default();
        }
    }

    /// How long a release may take to its host, through a tree with silent links.
    fn on_its_way(&self) -> Duration {
        self.plan.beat * self.seats[0].config.missed_beats * 4
    }

    /// The root says that a gated order is over for hosts that never began: the operator tells
    /// them, once.
    pub(crate) fn stopped(&mut self, id: OrderId, hosts: &HostSet) {
        let told = |work: &Work| work.order.cancels == Some(id) && work.order.lapses;
        if self.plan.work.iter().any(told) {
            return;
        }
        let Some(older) = self.work(id) else { return };
        let work = self.plan.closing(self.now, older, hosts);
        self.checks.add(&work);
        self.plan.work.push(work);
        self.queue.push(self.now, Event::Submit { work: self.plan.work.len() - 1 });
    }
}
