//! Which fault has struck a node in which state: the proof that seeds go where they should.
//!
//! Each time a fault strikes, the node that it strikes is looked at from outside: what it runs,
//! what is on its way to its disk, what it still owes. The counts of all seeds make a matrix; a
//! cell that [can be reached](Coverage::missing) and is empty means that the seeds prove less than
//! they seem to.

use std::fmt;

use mesh::{HostId, Record};

use crate::net::{Phase, Side};
use crate::sim::Sim;

/// What strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strike {
    Kill,
    Trip,
    Cut,
    Snap,
    Part,
    Isolate,
    HalfOpen,
    Torn,
    Corrupt,
    FullDisk,
    FailDisk,
    Clock,
    Restore,
}

/// What the node is in the middle of; several hold at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Root,
    Relay,
    Host,
    Dead,
    Recovering,
    Dialling,
    Idle,
    OrderUnsaved,
    IntentUnsaved,
    AnswerUnsaved,
    ReleaseUnsaved,
    Running,
    Pulling,
    Serving,
    Waiting,
    Owing,
    Full,
    CutOff,
    Turn,
}

const STRIKES: [(Strike, &str); 13] = [
    (Strike::Kill, "kill"),
    (Strike::Trip, "kill at a save"),
    (Strike::Cut, "cut"),
    (Strike::Snap, "cut at a frame"),
    (Strike::Part, "part"),
    (Strike::Isolate, "isolate"),
    (Strike::HalfOpen, "half open"),
    (Strike::Torn, "torn content"),
    (Strike::Corrupt, "wrong content"),
    (Strike::FullDisk, "full disk"),
    (Strike::FailDisk, "failing disk"),
    (Strike::Clock, "clock"),
    (Strike::Restore, "restore"),
];

const STATES: [(State, &str); 19] = [
    (State::Root, "root"),
    (State::Relay, "relay"),
    (State::Host, "host"),
    (State::Dead, "dead"),
    (State::Recovering, "recovers"),
    (State::Dialling, "dials"),
    (State::Idle, "idle"),
    (State::OrderUnsaved, "~order"),
    (State::IntentUnsaved, "~intent"),
    (State::AnswerUnsaved, "~answer"),
    (State::ReleaseUnsaved, "~release"),
    (State::Running, "runs"),
    (State::Pulling, "pulls"),
    (State::Serving, "serves"),
    (State::Waiting, "waits"),
    (State::Owing, "owes"),
    (State::Full, "full"),
    (State::CutOff, "cut off"),
    (State::Turn, "turns"),
];

/// A process is recovering for so long, if its disk had something.
const RECOVERING: std::time::Duration = std::time::Duration::from_secs(1);

/// The counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    counts: [[u64; STATES.len()]; STRIKES.len()],
}

impl Coverage {
    /// Adds what other runs have seen.
    pub fn add(&mut self, other: &Coverage) {
        let cells = self.counts.iter_mut().flatten().zip(other.counts.iter().flatten());
        cells.for_each(|(count, more)| *count += more);
    }

    /// Faults that have never struck anybody.
    pub fn unused(&self) -> Vec<&'static str> {
        let rows = STRIKES.iter().zip(&self.counts);
        rows.filter(|(_, row)| row.iter().all(|n| *n == 0)).map(|((_, name), _)| *name).collect()
    }

    /// Cells that can be reached and were not, of the faults that have struck at all.
    pub fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        for ((strike, what), row) in STRIKES.iter().zip(&self.counts) {
            if row.iter().all(|count| *count == 0) {
                continue;
            }
            for ((state, who), count) in STATES.iter().zip(row) {
                if *count == 0 && can_be(*strike, *state) {
                    missing.push(format!("{what} x {who}"));
                }
            }
        }
        missing
    }
}

/// Whether a fault can strike a node in such a state at all.
fn can_be(strike: Strike, state: State) -> bool {
    // Who has a link to its parent, or gets content by it.
    let on_uplink = matches!(
        strike,
        Strike::Cut | Strike::Snap | Strike::HalfOpen | Strike::Torn | Strike::Corrupt
    );
    let by_content = matches!(strike, Strike::Torn | Strike::Corrupt);
    if strike == Strike::Restore {
        // Only the root is, which has no parent and all content, so that nobody waits for it; and
        // in such runs nothing has a pace or is due.
        let never = [
            State::Relay,
            State::Host,
            State::Dialling,
            State::Pulling,
            State::Serving,
            State::ReleaseUnsaved,
            State::Waiting,
            State::Owing,
            State::Turn,
        ];
        return !never.contains(&state);
    }
    match state {
        // The root has no parent.
        State::Root | State::ReleaseUnsaved => !on_uplink,
        // What is dead saves nothing, sends nothing, and is not killed.
        State::Dead => {
            matches!(strike, Strike::Part | Strike::Isolate | Strike::FullDisk | Strike::Clock)
        }
        // Who dials has no link that could break, and a link that stands half is dialled.
        State::Dialling => !on_uplink || strike == Strike::HalfOpen,
        // Whoever gets content has asked for it.
        State::Idle => !by_content && strike != Strike::Trip && strike != Strike::FailDisk,
        State::Pulling => strike != Strike::HalfOpen,
        // A full disk saves nothing at which it could fail or at which one could die.
        State::Full => strike != Strike::FailDisk,
        _ => true,
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<15}", "")?;
        STATES.iter().try_for_each(|(_, name)| write!(f, "{name:>9}"))?;
        for ((strike, name), row) in STRIKES.iter().zip(&self.counts) {
            write!(f, "\n{name:<15}")?;
            for ((state, _), count) in STATES.iter().zip(row) {
                match (count, can_be(*strike, *state)) {
                    (0, false) => write!(f, "{:>9}", "-")?,
                    (count, _) => write!(f, "{count:>9}")?,
                }
            }
        }
        Ok(())
    }
}

impl Sim {
    /// A fault strikes a node.
    pub(crate) fn struck(&mut self, strike: Strike, node: usize) {
        for (n, (state, _)) in STATES.iter().enumerate() {
            if self.is(node, *state) {
                self.coverage.counts[strike as usize][n] += 1;
            }
        }
    }

    fn is(&self, node: usize, state: State) -> bool {
        let (seat, place) = (&self.seats[node], &self.plan.tree[node]);
        let image = &seat.disk.image;
        let pending = |of: &dyn Fn(&Record) -> bool| seat.disk.pending().any(of);
        let Some(process) = &seat.process else {
            let role = matches!(state, State::Root | State::Relay | State::Host);
            return state == State::Dead || role && self.plays(node, state);
        };
        match state {
            State::Root | State::Relay | State::Host => self.plays(node, state),
            State::Dead => false,
            State::Recovering => seat.life > 1 && self.now < process.started + RECOVERING,
            State::Dialling => !place.parents.is_empty() && !self.is_linked(node),
            State::Idle => {
                let busy = process.running.len() + process.pulling.len() + process.asks.len();
                busy + seat.disk.backlog() == 0
            }
            State::OrderUnsaved => pending(&|record| matches!(record, Record::Order(_))),
            State::IntentUnsaved => pending(&|record| matches!(record, Record::Intent(_))),
            State::AnswerUnsaved => pending(&|record| matches!(record, Record::Answers(_))),
            State::ReleaseUnsaved => pending(&|record| matches!(record, Record::Released { .. })),
            State::Running => !process.running.is_empty(),
            State::Pulling => !process.pulling.is_empty(),
            State::Serving => !process.streams.is_empty() || !process.asks.is_empty(),
            State::Waiting => {
                let mine = |order: &mesh::Order| order.targets.contains(HostId(node as u32));
                let mut gated = image.orders.values().filter(|o| o.gate.is_some() && mine(o));
                gated.any(|order| !image.intents.contains(&order.id))
            }
            State::Owing => node != 0 && image.owes(),
            State::Full => self.now < seat.disk.full_until,
            State::Turn => !process.desk.groups.is_empty() || !process.desk.jobs.is_empty(),
            State::CutOff => self.net.is_cut_off(node),
        }
    }

    fn plays(&self, node: usize, role: State) -> bool {
        let place = &self.plan.tree[node];
        let is = match (place.parents.is_empty(), place.serves) {
            (true, _) => State::Root,
            (false, true) => State::Relay,
            (false, false) => State::Host,
        };
        is == role
    }

    fn is_linked(&self, node: usize) -> bool {
        let mut ends = self.net.links.values().map(|link| link.end(Side::Child));
        ends.any(|end| end.node == node && end.phase == Phase::Open)
    }
}
