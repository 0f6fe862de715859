//! The promises, checked from outside after each step.
//!
//! [`Checks`] knows what really happened (which word each command ended with, what each disk
//! holds) and compares what nodes say and do with it. It shares no code with what it checks except
//! the plain values: host sets, tallies, frames.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mesh::{
    Config, Event, Frame, HostId, Input, LinkId, Node, Order, OrderId, Outcome, Peer, Record,
    Report, State, Tally,
};

use crate::absences::Absences;
use crate::events::Happened;
use crate::gated::Gated;
use crate::plan::{Plan, Work};
use crate::seat::Seat;

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which check it is.
    pub check: &'static str,
    /// What was seen.
    pub detail: String,
}

impl Violation {
    pub(crate) fn new(check: &'static str, detail: String) -> Violation {
        Violation { check, detail }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {}", self.check, self.detail)
    }
}

impl std::error::Error for Violation {}

/// One order at one host.
type Job = (OrderId, HostId);
/// A log that a node reads: reader, the reader's life, writer, and the log's number.
type Log = (HostId, u64, HostId, u64);

/// What is known from outside.
pub struct Checks {
    orders: BTreeMap<OrderId, Arc<Order>>,
    expires: BTreeMap<OrderId, Duration>,
    /// How often each command was started.
    starts: BTreeMap<Job, u32>,
    /// Started by the process that lives now.
    started_now: BTreeSet<Job>,
    /// What a host may say of an order: what its command really did, or that it was interrupted.
    words: BTreeSet<(Job, Outcome)>,
    /// What is, or once was, on the disk of the host itself.
    durable: BTreeMap<Job, BTreeSet<Outcome>>,
    /// Orders, or answers to them, that were ever on the disk of a node.
    held: BTreeSet<(HostId, OrderId)>,
    /// Orders themselves that were ever on the disk of a node.
    got: BTreeSet<(HostId, OrderId)>,
    /// Orders that were taken back before their host had them.
    barred: BTreeSet<Job>,
    /// Nodes that said that an order was too much for them.
    refused: BTreeSet<(HostId, OrderId)>,
    /// Nodes that forgot an order, by age or for room.
    forgot: BTreeSet<(HostId, OrderId)>,
    /// Log entries that came in and were not acknowledged yet.
    orders_in: BTreeMap<Log, BTreeMap<u64, OrderId>>,
    reports_in: BTreeMap<Log, BTreeMap<u64, Report>>,
    /// The other end of each link that a node has.
    peers: BTreeMap<(HostId, LinkId), HostId>,
    /// What the root's watcher was told, in the root's present life.
    watched: BTreeMap<OrderId, BTreeMap<HostId, Outcome>>,
    closed: BTreeSet<OrderId>,
    /// The last beat that any life of the root has made.
    last_beat: u64,
    /// How often nodes have waited for how long before they dialled again.
    waits: BTreeMap<Duration, u32>,
    /// What is known of runs that go on a few hosts at a time.
    pub(crate) gated: Gated,
    /// What is known of events.
    pub(crate) happened: Happened,
    /// Who was lost when.
    pub(crate) absences: Absences,
    /// The tree is whole and stays so: no supposition about anybody can be true.
    pub(crate) calm: bool,
    /// Some limit of the plan makes nodes cut bodies.
    cuts: bool,
}

impl Checks {
    pub(crate) fn new(plan: &Plan) -> Checks {
        let mut checks = Checks {
            orders: BTreeMap::new(),
            expires: BTreeMap::new(),
            starts: BTreeMap::new(),
            started_now: BTreeSet::new(),
            words: BTreeSet::new(),
            durable: BTreeMap::new(),
            held: BTreeSet::new(),
            got: BTreeSet::new(),
            barred: BTreeSet::new(),
            refused: BTreeSet::new(),
            forgot: BTreeSet::new(),
            orders_in: BTreeMap::new(),
            reports_in: BTreeMap::new(),
            peers: BTreeMap::new(),
            watched: BTreeMap::new(),
            closed: BTreeSet::new(),
            last_beat: 0,
            waits: BTreeMap::new(),
            gated: Gated::default(),
            happened: Happened::default(),
            absences: Absences::default(),
            calm: false,
            cuts: plan.limits.body_bytes < 1 << 20,
        };
        plan.work.iter().for_each(|work| checks.add(work));
        checks
    }

    /// Takes note of an order that will be given.
    pub(crate) fn add(&mut self, work: &Work) {
        self.orders.insert(work.order.id, work.order.clone());
        self.expires.insert(work.order.id, work.expires);
        self.gated.add(&work.order);
    }

    /// Whether the root has an order on disk, or has refused it.
    pub(crate) fn is_kept(&self, id: OrderId) -> bool {
        self.held.contains(&(HostId::ROOT, id)) || self.is_rejected(id)
    }

    /// Whether the root has refused an order, or the one that it would have taken back.
    pub(crate) fn is_rejected(&self, id: OrderId) -> bool {
        let older = self.orders.get(&id).and_then(|order| order.cancels);
        let refused = |id| self.refused.contains(&(HostId::ROOT, id));
        refused(id) || older.is_some_and(refused)
    }

    /// Whether a node has ever had an order on disk.
    pub(crate) fn has_got(&self, host: HostId, id: OrderId) -> bool {
        self.got.contains(&(host, id))
    }

    /// Whether any node on the way has refused or forgotten an order to keep its limits, or one
    /// that takes it back.
    pub(crate) fn is_crowded_out(&self, id: OrderId) -> bool {
        let cancels = |by: &OrderId| self.orders.get(by).is_some_and(|o| o.cancels == Some(id));
        self.refused.iter().any(|(_, refused)| *refused == id || cancels(refused))
    }

    /// What is or was on a host's own disk about an order.
    pub(crate) fn own_words(&self, id: OrderId, host: HostId) -> Option<&BTreeSet<Outcome>> {
        self.durable.get(&(id, host))
    }

    /// What really became of a command: its host may say so from now on.
    pub(crate) fn word(&mut self, order: OrderId, host: HostId, outcome: Outcome) {
        self.words.insert(((order, host), outcome));
    }

    /// A process died: what it was in the middle of is no more.
    pub(crate) fn died(&mut self, seat: &Seat) {
        let me = seat.host();
        self.gated.died(me);
        self.happened.died(me);
        self.started_now.retain(|(_, host)| *host != me);
        self.orders_in.retain(|(reader, ..), _| *reader != me);
        self.reports_in.retain(|(reader, ..), _| *reader != me);
        self.peers.retain(|(host, _), _| *host != me);
        if me == HostId::ROOT {
            self.closed.clear();
            self.watched.clear();
        }
    }

    /// A process is about to start with this disk.
    pub(crate) fn restarted(&mut self, seat: &Seat) {
        let me = seat.host();
        let image = &seat.disk.image;
        for (id, order) in image.orders.iter().filter(|(_, order)| !order.again) {
            let said = image.tallies.get(id).and_then(|tally| tally.outcome(me));
            if image.intents.contains(id) && said.is_none() && order.targets.contains(me) {
                self.words.insert(((*id, me), Outcome::bare(State::Interrupted)));
            }
        }
        if me == HostId::ROOT {
            for (id, tally) in &image.tallies {
                let words = self.watched.entry(*id).or_default();
                for (outcome, hosts) in tally.lines() {
                    words.extend(hosts.iter().map(|host| (host, *outcome)));
                }
            }
        }
    }

    /// Something is about to happen to a node.
    pub(crate) fn input(&mut self, seat: &Seat, input: &Input) {
        let (me, life) = (seat.host(), seat.life);
        match input {
            Input::LinkUp { link, peer } => {
                self.peers.insert((me, *link), peer.host());
                // Each hello of a new link starts the sender's numbers where it wants.
                debug_assert!(matches!(peer, Peer::Parent { .. } | Peer::Child { .. }));
            }
            Input::LinkDown { link } => {
                self.peers.remove(&(me, *link));
                self.gated.parted(me, *link);
            }
            Input::BadOrder { link, log, seq, order, outcome: Some(_), .. } => {
                if let Some(peer) = self.peers.get(&(me, *link)) {
                    let log = self.orders_in.entry((me, life, *peer, *log)).or_default();
                    log.insert(*seq, *order);
                }
            }
            Input::Submit(order) => self.may_be_cancelled(me, order),
            Input::Frame { link, frame: Frame::Order { log, seq, order } } => {
                self.may_be_cancelled(me, order);
                if let Some(peer) = self.peers.get(&(me, *link)) {
                    let log = self.orders_in.entry((me, life, *peer, *log)).or_default();
                    log.insert(*seq, order.id);
                }
            }
            Input::Frame { frame: Frame::Go { order, hosts, .. }, .. } if hosts.contains(me) => {
                self.may_be_late(me, *order);
            }
            Input::Frame { link, frame: Frame::Report { log, seq, report } } => {
                if let Some(peer) = self.peers.get(&(me, *link)) {
                    let log = self.reports_in.entry((me, life, *peer, *log)).or_default();
                    log.insert(*seq, report.clone());
                }
            }
            _ => {}
        }
    }

    /// A node has closed a link: what still comes from it is not taken.
    pub(crate) fn hung_up(&mut self, me: HostId, link: LinkId) {
        self.peers.remove(&(me, link));
        self.gated.parted(me, link);
    }

    /// Whether a node has a link, and has not closed it.
    pub(crate) fn holds(&self, me: HostId, link: LinkId) -> bool {
        self.peers.contains_key(&(me, link))
    }

    /// A host that knows that an order was taken back may say so of the older one.
    fn may_be_cancelled(&mut self, me: HostId, order: &Order) {
        if let Some(older) = order.cancels.filter(|_| order.targets.contains(me)) {
            let states = match order.lapses {
                true => &[State::Expired, State::Cancelled][..],
                false => &[State::Cancelled],
            };
            self.words.extend(states.iter().map(|state| ((older, me), Outcome::bare(*state))));
        }
    }

    /// A host that was released and could not begin in time may say so.
    fn may_be_late(&mut self, me: HostId, order: OrderId) {
        self.words.insert(((order, me), Outcome::bare(State::Expired)));
    }

    /// A node asks for a record to be kept.
    pub(crate) fn saving(
        &mut self,
        seat: &Seat,
        no: u64,
        record: &Record,
    ) -> Result<(), Violation> {
        let before = seat.process.as_ref().map_or(0, |process| process.saves);
        if no != before + 1 {
            let detail = format!("{:?} numbers a save {no} after {before}", seat.host());
            return Err(Violation::new("saves are numbered", detail));
        }
        match record {
            Record::Forget(id) => drop(self.forgot.insert((seat.host(), *id))),
            Record::Own(folded) => self.happened.saving(seat.host(), folded),
            _ => {}
        }
        Ok(())
    }

    /// A record is on disk now.
    pub(crate) fn durable(&mut self, seat: &Seat, record: &Record) -> Result<(), Violation> {
        let me = seat.host();
        let report = match record {
            Record::Order(order) => {
                self.held.insert((me, order.id));
                self.got.insert((me, order.id));
                if let Some(older) = order.cancels.filter(|_| order.targets.contains(me))
                    && !self.got.contains(&(me, older))
                {
                    self.barred.insert((older, me));
                }
                return Ok(());
            }
            Record::Answers(report) => report,
            Record::Own(folded) => return self.happened.durable(me, folded),
            Record::Released { order, hosts } => {
                self.may_be_late(me, *order);
                return self.gated.released(*order, hosts, &seat.disk.image);
            }
            _ => return Ok(()),
        };
        self.held.insert((me, report.order));
        self.sums_up(report)?;
        for (outcome, hosts) in report.tally.lines() {
            if me == HostId::ROOT && outcome.state.is_provisional() {
                self.gated.supposed(report.order, hosts);
            }
            if me == HostId::ROOT && outcome.state == State::Skipped {
                for host in self.gated.skipped(report.order, hosts).iter() {
                    self.durable.entry((report.order, host)).or_default().insert(*outcome);
                }
                continue;
            }
            if outcome.state == State::Refused && self.refused.contains(&(me, report.order)) {
                for host in hosts.iter() {
                    self.durable.entry((report.order, host)).or_default().insert(*outcome);
                }
            } else if hosts.contains(me) && !outcome.state.is_provisional() {
                self.own_word(report.order, me, *outcome)?;
            }
        }
        Ok(())
    }

    fn own_word(&mut self, order: OrderId, me: HostId, said: Outcome) -> Result<(), Violation> {
        if !self.words.contains(&((order, me), said)) {
            let detail = format!("{me:?} keeps {said:?} for {order:?}, which did not happen");
            return Err(Violation::new("an answer is true", detail));
        }
        let words = self.durable.entry((order, me)).or_default();
        if words.insert(said) {
            self.gated.kept(order, said)?;
        }
        if words.iter().filter(|word| word.state.weight() >= 4).count() > 1 {
            let detail = format!("{me:?} has several for {order:?}: {words:?}");
            return Err(Violation::new("one final answer", detail));
        }
        Ok(())
    }

    /// A node has done all that it wanted about an input.
    pub(crate) fn done(&self, me: HostId, link: LinkId, now: Duration) -> Result<(), Violation> {
        self.gated.told_all(me, link, now, |order, host| {
            let said = self.durable.get(&(order, host)).is_some_and(|words| !words.is_empty());
            let expired = self.expires.get(&order).is_none_or(|at| *at <= now);
            said || expired || self.forgot.contains(&(me, order))
        })
    }

    /// A command starts.
    pub(crate) fn starting(
        &mut self,
        seat: &Seat,
        order: &Order,
        now: Duration,
    ) -> Result<(), Violation> {
        let (me, id) = (seat.host(), order.id);
        let broken =
            |check, text: &str| Err(Violation::new(check, format!("{me:?} starts {id:?} {text}")));
        if !order.targets.contains(me) {
            return broken("authority", "which is not for it");
        }
        if !self.held.contains(&(HostId::ROOT, id)) {
            return broken("authority", "which the root might not remember");
        }
        if !seat.disk.image.intents.contains(&id) {
            return broken("intent before effect", "before its intent is on disk");
        }
        if self.barred.contains(&(id, me)) {
            return broken("cancelled", "though it was taken back before it came");
        }
        self.gated.starting(me, id, now)?;
        let starts = self.starts.entry((id, me)).or_default();
        *starts += 1;
        if !order.again && *starts > 1 {
            return broken("at most once", "a second time");
        }
        if !self.started_now.insert((id, me)) {
            return broken("at most once", "twice in one life");
        }
        let words = self.durable.get(&(id, me));
        if words.is_some_and(|words| words.iter().any(|word| word.state.weight() >= 4)) {
            return broken("at most once", "though it has answered");
        }
        Ok(())
    }

    /// A frame leaves a node.
    pub(crate) fn sending(
        &mut self,
        seat: &Seat,
        frame: &Frame,
        now: Duration,
    ) -> Result<(), Violation> {
        let me = seat.host();
        match frame {
            Frame::Report { report, .. } => {
                self.sums_up(report)?;
                self.is_true(me, report)
            }
            Frame::OrdersHeld { log, through } => {
                let logs = self.orders_in.range_mut((me, 0, HostId(0), 0)..);
                let logs = logs.take_while(|((reader, ..), _)| *reader == me);
                for (_, entries) in logs.filter(|((.., number), _)| number == log) {
                    let rest = entries.split_off(&(through + 1));
                    for (seq, id) in std::mem::replace(entries, rest) {
                        if !self.held.contains(&(me, id)) {
                            let detail = format!("{me:?} acknowledges #{seq} {id:?}");
                            return Err(Violation::new("durable before acknowledged", detail));
                        }
                    }
                }
                Ok(())
            }
            Frame::ReportsHeld { log, through } => self.reports_held(seat, (*log, *through), now),
            Frame::Beat { root, .. } => self.beating(me, *root),
            Frame::Hello { .. } | Frame::Below(_) => Ok(()),
            Frame::Watch { .. } | Frame::Said(_) | Frame::Go { .. } => Ok(()),
            Frame::Events { events, .. } => self.happened.telling(me, events),
            Frame::EventsHeld { .. } => Ok(()),
            Frame::Order { order, .. } => match self.orders.contains_key(&order.id) {
                true => Ok(()),
                false => {
                    let detail = format!("{me:?} sends {:?} at {now:?}", order.id);
                    Err(Violation::new("authority", detail))
                }
            },
        }
    }

    /// Only the root makes beats of the root.
    fn beating(&mut self, me: HostId, root: u64) -> Result<(), Violation> {
        if me == HostId::ROOT {
            self.last_beat = self.last_beat.max(root);
        } else if root > self.last_beat {
            let detail =
                format!("{me:?} tells of beat {root}, the last one was {}", self.last_beat);
            return Err(Violation::new("a beat is the root's", detail));
        }
        Ok(())
    }

    /// A node dials again after such a wait. To the nanosecond, chance makes no three equal.
    pub(crate) fn dialling(&mut self, me: HostId, wait: Duration) -> Result<(), Violation> {
        let equal = self.waits.entry(wait).or_default();
        *equal += 1;
        if *equal > 2 && !wait.is_zero() {
            let detail = format!("{me:?} waits {wait:?}, as {} before it did", *equal - 1);
            return Err(Violation::new("redials are spread", detail));
        }
        Ok(())
    }

    fn reports_held(
        &mut self,
        seat: &Seat,
        (log, through): (u64, u64),
        now: Duration,
    ) -> Result<(), Violation> {
        let me = seat.host();
        let logs = self.reports_in.range_mut((me, 0, HostId(0), 0)..);
        let logs = logs.take_while(|((reader, ..), _)| *reader == me);
        for (_, entries) in logs.filter(|((.., number), _)| *number == log) {
            let rest = entries.split_off(&(through + 1));
            for (seq, report) in std::mem::replace(entries, rest) {
                let id = report.order;
                let known = self.held.contains(&(me, id)) && !self.forgot.contains(&(me, id));
                let expired = self.expires.get(&id).is_none_or(|at| *at <= now);
                if expired || me == HostId::ROOT && !known || self.forgot.contains(&(me, id)) {
                    continue;
                }
                let kept = seat.disk.image.tallies.get(&id).cloned().unwrap_or_default();
                let settled = report.tally.settled();
                let targets = self.orders.get(&id).map(|order| order.targets.clone());
                let settled = settled.intersection(&targets.unwrap_or_default());
                let bodies = seat.disk.image.bodies.get(&id);
                let has_body =
                    |digest| bodies.is_some_and(|bodies| bodies.contains(digest)) || self.cuts;
                if !settled.is_subset(&kept.settled()) || !report.bodies.keys().all(has_body) {
                    let detail = format!("{me:?} acknowledges #{seq} {report:?}");
                    return Err(Violation::new("durable before acknowledged", detail));
                }
            }
        }
        Ok(())
    }

    /// The root's watcher, or a node's log, is told something.
    pub(crate) fn told(
        &mut self,
        seat: &Seat,
        event: &Event,
        expired: bool,
    ) -> Result<(), Violation> {
        let me = seat.host();
        match event {
            Event::Cut { what: "orders", order } => {
                self.refused.insert((me, *order));
                Ok(())
            }
            Event::Answers(report) => self.answers(seat, report),
            Event::Closed(id) => {
                let targets = self.orders.get(id).map(|order| order.targets.len());
                let heard = self.watched.get(id).map(|words| words.len() as u64);
                if !self.closed.insert(*id) {
                    let detail = format!("{id:?}");
                    return Err(Violation::new("closed once", detail));
                }
                if targets != heard {
                    let detail = format!("{id:?} with {heard:?} of {targets:?}, {expired}");
                    return Err(Violation::new("closed when complete", detail));
                }
                Ok(())
            }
            Event::Reachable(tree) if !tree.up.is_subset(&tree.below) => {
                let detail = format!("{} is up, {} is known", tree.up, tree.below);
                Err(Violation::new("routes", detail))
            }
            _ => Ok(()),
        }
    }

    fn answers(&mut self, seat: &Seat, report: &Report) -> Result<(), Violation> {
        self.sums_up(report)?;
        self.is_true(seat.host(), report)?;
        let targets = self.orders.get(&report.order).map(|order| order.targets.clone());
        let targets = targets.unwrap_or_default();
        if !report.tally.hosts().is_subset(&targets) {
            let detail = format!("{:?} has {}", report.order, report.tally.hosts());
            return Err(Violation::new("only targets answer", detail));
        }
        let words = self.watched.entry(report.order).or_default();
        for (outcome, hosts) in report.tally.lines() {
            for host in hosts.iter() {
                let old = words.insert(host, *outcome);
                if old.is_some_and(|old| old.state.weight() > outcome.state.weight()) {
                    let detail = format!("{host:?} went from {old:?} to {outcome:?}");
                    return Err(Violation::new("states move forward", detail));
                }
                if self.calm && outcome.state.is_provisional() {
                    let detail = format!("{host:?} is said to be {outcome:?} and is well");
                    return Err(Violation::new("no false supposition", detail));
                }
            }
        }
        Ok(())
    }

    /// Every line has its hosts for itself.
    fn sums_up(&self, report: &Report) -> Result<(), Violation> {
        let sum: u64 = report.tally.lines().map(|(_, hosts)| hosts.len()).sum();
        if sum != report.tally.hosts().len() {
            let detail = format!("{sum} hosts in the lines of {:?}", report.tally);
            return Err(Violation::new("a tally sums up", detail));
        }
        Ok(())
    }

    /// What is said of a host stands, or stood, on that host's own disk.
    fn is_true(&self, me: HostId, report: &Report) -> Result<(), Violation> {
        let own = |outcome: &&Outcome| !outcome.state.is_provisional();
        for (outcome, hosts) in report.tally.lines().filter(|(outcome, _)| own(outcome)) {
            for host in hosts.iter() {
                let words = self.durable.get(&(report.order, host));
                if !words.is_some_and(|words| words.contains(outcome)) {
                    let detail = format!("{me:?} says {outcome:?} of {host:?}, which did not");
                    return Err(Violation::new("a receipt is true", detail));
                }
            }
        }
        Ok(())
    }

    /// Limits hold after each step.
    pub(crate) fn bounds(&self, me: HostId, config: &Config, node: &Node) -> Result<(), Violation> {
        if node.orders() > config.limits.orders {
            let detail = format!("{me:?} remembers {} orders", node.orders());
            return Err(Violation::new("bounds", detail));
        }
        let (own, held) = node.events();
        if own > config.events.own + 1 || held > config.events.held + own {
            let detail = format!("{me:?} remembers {own} events and {held} to be told");
            return Err(Violation::new("bounds", detail));
        }
        Ok(())
    }

    /// The words that stand in a tally for each host, once; a help for the settlement.
    pub(crate) fn covers(tally: Option<&Tally>, order: &Order) -> bool {
        tally.is_some_and(|tally| *tally.hosts() == order.targets)
    }
}
