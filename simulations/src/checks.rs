//! The promises, checked from outside after each step.
//!
//! [`Checks`] knows what really happened (which word each command ended with, what each disk
//! holds) and compares what nodes say and do with it. It shares no code with what it checks except
//! the plain values: host sets, tallies, frames. Each group of promises has a file of its own
//! below, with what it must remember; here it is only said who looks at what, and in which order.

mod acks;
mod commands;
mod known;
mod pace;
mod watched;
mod words;

use std::fmt;
use std::time::Duration;

use mesh::{
    Config, Event, Frame, HostId, Input, LinkId, Node, Order, OrderId, Record, Report, State, Tally,
};

use self::acks::Acks;
use self::commands::{Commands, Said};
use self::known::Known;
use self::pace::Pace;
use self::watched::Watched;
use self::words::{Words, sums_up};
use crate::absences::Absences;
use crate::events::Happened;
use crate::gated::Gated;
use crate::plan::{Plan, Work, giver};
use crate::profiles::Profiles;
use crate::rolling::Rolled;
use crate::schedules::account::Timed;
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

/// What is known from outside.
pub struct Checks {
    pub(crate) known: Known,
    pub(crate) words: Words,
    commands: Commands,
    acks: Acks,
    watched: Watched,
    pace: Pace,
    /// What is known of runs that go on a few hosts at a time.
    pub(crate) gated: Gated,
    /// What is known of rollouts.
    pub(crate) rolled: Rolled,
    /// How long each rollout of the plan soaks.
    soaks: Vec<Duration>,
    /// What is known of events.
    pub(crate) happened: Happened,
    /// What is known of profiles.
    pub(crate) profiles: Profiles,
    /// Who was lost when.
    pub(crate) absences: Absences,
    /// What was due when, and what came of it.
    pub(crate) timed: Timed,
    /// The tree is whole and stays so: no supposition about anybody can be true.
    pub(crate) calm: bool,
}

impl Checks {
    pub(crate) fn new(plan: &Plan) -> Checks {
        let mut checks = Checks {
            known: Known::default(),
            words: Words::default(),
            commands: Commands::default(),
            acks: Acks::new(plan.limits.body_bytes < 1 << 20),
            watched: Watched::default(),
            pace: Pace::default(),
            gated: Gated::default(),
            rolled: Rolled::default(),
            soaks: plan.rollouts.iter().map(|rolling| rolling.soak).collect(),
            happened: Happened::default(),
            profiles: Profiles::default(),
            absences: Absences::default(),
            timed: Timed::default(),
            calm: false,
        };
        plan.work.iter().for_each(|work| checks.add(work));
        checks
    }

    /// Takes note of an order that will be given.
    pub(crate) fn add(&mut self, work: &Work) {
        self.known.add(work);
        self.gated.add(&work.order);
    }

    /// A process died: what it was in the middle of is no more.
    pub(crate) fn died(&mut self, seat: &Seat) {
        let me = seat.host();
        self.gated.died(me);
        self.happened.died(me);
        self.profiles.died(me);
        self.commands.died(me);
        self.acks.died(me);
        self.watched.died(me);
    }

    /// The root has an older disk from now on.
    pub(crate) fn restored(&mut self) {
        self.words.restored();
    }

    /// A process is about to start with this disk.
    pub(crate) fn restarted(&mut self, seat: &Seat) {
        let me = seat.host();
        self.words.restarted(me, &seat.disk.image);
        self.watched.restarted(me, &seat.disk.image);
    }

    /// Something is about to happen to a node.
    pub(crate) fn input(&mut self, seat: &Seat, input: &Input) {
        let me = seat.host();
        self.acks.input(seat, input);
        match input {
            Input::LinkDown { link } => self.gated.parted(me, *link),
            Input::Submit(order) => self.words.may_be_cancelled(me, order),
            Input::Frame { frame: Frame::Order { order, .. }, .. } => {
                self.words.may_be_cancelled(me, order);
            }
            Input::Frame { frame: Frame::Go { order, hosts, .. }, .. } if hosts.contains(me) => {
                self.words.may_be_late(me, *order);
            }
            _ => {}
        }
    }

    /// A node has closed a link: what still comes from it is not taken.
    pub(crate) fn hung_up(&mut self, me: HostId, link: LinkId) {
        self.acks.parted(me, link);
        self.gated.parted(me, link);
    }

    /// Whether a node has a link, and has not closed it.
    pub(crate) fn holds(&self, me: HostId, link: LinkId) -> bool {
        self.acks.holds(me, link)
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
            Record::Forget(id) => drop(self.known.forgot.insert((seat.host(), *id))),
            Record::Trimmed(id) => drop(self.known.trimmed.insert(*id)),
            Record::Own(folded) => self.happened.saving(seat.host(), folded),
            _ => {}
        }
        Ok(())
    }

    /// What waits at a node, or is kept to be told once more, takes no more room than it may.
    pub(crate) fn fits(seat: &Seat) -> Result<(), Violation> {
        let Some(process) = &seat.process else { return Ok(()) };
        let (bodies, (own, held)) = (process.node.bodies(), process.node.events());
        let (room, limits) = (seat.config.limits.body_bytes, &seat.config.events);
        if bodies > room || own > limits.own || held > limits.held + limits.own {
            let detail = format!("{:?} has {bodies} bytes, {own} and {held}", seat.host());
            return Err(Violation::new("what waits fits", detail));
        }
        Ok(())
    }

    /// A record is on disk now.
    pub(crate) fn durable(&mut self, seat: &Seat, record: &Record) -> Result<(), Violation> {
        let me = seat.host();
        let report = match record {
            Record::Order(order) => {
                self.known.held.insert((me, order.id));
                self.known.got.insert((me, order.id));
                self.commands.kept(me, order, &self.known);
                return Ok(());
            }
            Record::Answers(report) => report,
            Record::Own(folded) => return self.happened.durable(me, folded),
            Record::Released { order, hosts } => {
                self.words.may_be_late(me, *order);
                return self.gated.released(*order, hosts, &seat.disk.image);
            }
            _ => return Ok(()),
        };
        self.known.held.insert((me, report.order));
        sums_up(report)?;
        for (outcome, hosts) in report.tally.lines() {
            if me == HostId::ROOT && outcome.state.is_provisional() {
                self.gated.supposed(report.order, hosts);
            }
            if outcome.state == State::Skipped && self.gated.is_skipper(me, report.order) {
                let skipped = self.gated.skipped(report.order, hosts);
                self.words.keep_for(report.order, skipped.iter(), *outcome);
                continue;
            }
            // Where an order was given it is refused for all, and elsewhere by each for itself.
            let has_refused = self.known.refused.contains(&(me, report.order));
            if outcome.state == State::Refused && has_refused {
                let gives = giver(report.order) == me;
                let its_own = hosts.iter().filter(|host| gives || *host == me);
                self.words.keep_for(report.order, its_own, *outcome);
            } else if hosts.contains(me) && !outcome.state.is_provisional() {
                self.words.keep(report.order, me, *outcome, &mut self.gated)?;
            }
        }
        Ok(())
    }

    /// A node has done all that it wanted about an input.
    pub(crate) fn done(&self, me: HostId, link: LinkId, now: Duration) -> Result<(), Violation> {
        self.gated.told_all(me, link, now, |order, host| {
            let said = self.words.own(order, host).is_some_and(|words| !words.is_empty());
            let expired = self.known.is_expired(order, now);
            said || expired || self.known.forgot.contains(&(me, order))
        })
    }

    /// A command starts.
    pub(crate) fn starting(
        &mut self,
        seat: &Seat,
        order: &Order,
        now: Duration,
    ) -> Result<(), Violation> {
        let said = Said { known: &self.known, words: &self.words, gated: &mut self.gated };
        self.commands.starting(seat, order, said, now)?;
        self.rolled.starting(seat.host(), order.id, |no| self.soaks[no], now)
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
            Frame::Report { report, .. } | Frame::Found { report } => {
                sums_up(report)?;
                self.words.is_true(me, report)?;
                if matches!(frame, Frame::Report { .. }) && giver(report.order) == me {
                    let detail = format!("{me:?} tells its parent of {:?}", report.order);
                    return Err(Violation::new("its giver is told", detail));
                }
                Ok(())
            }
            Frame::OrdersHeld { log, through } => {
                self.acks.orders_held(&self.known, me, (*log, *through))
            }
            Frame::ReportsHeld { log, through } => {
                self.acks.reports_held(&self.known, seat, (*log, *through), now)
            }
            Frame::Beat { root, .. } => self.pace.beating(me, *root),
            Frame::Hello { .. } | Frame::Below(_) => Ok(()),
            Frame::Watch { .. } | Frame::Said(_) | Frame::Go { .. } => Ok(()),
            Frame::Seek { .. } => Ok(()),
            Frame::Interest(_) | Frame::Message(_) | Frame::Answer(_) => Ok(()),
            Frame::Events { events, .. } => self.happened.telling(me, events),
            Frame::EventsHeld { .. } | Frame::ProfilesHeld { .. } => Ok(()),
            Frame::Profiles { lines, .. } => self.profiles.telling(me, lines),
            Frame::Order { order, .. } => match self.known.orders.contains_key(&order.id) {
                true => Ok(()),
                false => {
                    let detail = format!("{me:?} sends {:?} at {now:?}", order.id);
                    Err(Violation::new("authority", detail))
                }
            },
        }
    }

    /// A node dials again after such a wait.
    pub(crate) fn dialling(&mut self, me: HostId, wait: Duration) -> Result<(), Violation> {
        self.pace.dialling(me, wait)
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
            Event::Cut { what: "orders", order, .. } => {
                self.known.refused.insert((me, *order));
                Ok(())
            }
            Event::Cut { order, .. } => {
                self.known.cut.insert(*order);
                Ok(())
            }
            Event::Answers(Report { order, .. }) | Event::Closed(order) if giver(*order) != me => {
                Err(Violation::new("its giver is told", format!("{me:?} of {order:?}")))
            }
            Event::Answers(report) => {
                sums_up(report)?;
                self.words.is_true(me, report)?;
                self.watched.answers(&self.known, report, self.calm)
            }
            Event::Closed(id) => self.watched.closed(&self.known, *id, expired),
            Event::Reachable(tree) if !tree.up.is_subset(&tree.below) => {
                let detail = format!("{} is up, {} is known", tree.up, tree.below);
                Err(Violation::new("routes", detail))
            }
            Event::Reachable(tree) if !tree.silent.is_subset(&tree.below.difference(&tree.up)) => {
                let detail = format!("{} is silent, {} is up", tree.silent, tree.up);
                Err(Violation::new("who is silent is not up", detail))
            }
            _ => Ok(()),
        }
    }

    /// Limits hold after each step.
    pub(crate) fn bounds(&self, me: HostId, config: &Config, node: &Node) -> Result<(), Violation> {
        if node.orders() > config.limits.orders {
            let detail = format!("{me:?} remembers {} orders", node.orders());
            return Err(Violation::new("bounds", detail));
        }
        let (profiles, limit) = (node.profiles().0, config.limits.profiles);
        if profiles > limit + 1 {
            let detail = format!("{me:?} remembers {profiles} profiles of {limit}");
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
