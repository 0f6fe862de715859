//! Alerts: from what is wrong now to what somebody must be told, once for each cause.
//!
//! Rules say which [`Condition`]s hold; the [`Engine`] makes [`Alert`]s of them, which are pending
//! until they have lasted, then firing, then over, and hands out [`Notice`]s: few, grouped,
//! repeated while they last, damped where they come and go, and quiet where a larger cause says it
//! all or an operator has asked for silence. [`Fallen`] is the rule about the tree as its root
//! sees it, [`Above`] the one about what is above a node.
//!
//! Nothing here sends anything, and time is given: a shell has the channels, and the simulator
//! compares the alerts with what it knows to be true.

mod above;
mod engine;
mod fallen;
mod silence;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::Time;

pub use above::{Above, Missing};
pub use engine::{AckError, Engine, OWN};
pub use fallen::{Fallen, Lost, What, World, parents};
pub use silence::{Silence, Silences};

/// How much somebody should hurry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Good to know.
    Info,
    /// Today.
    Warning,
    /// Now.
    Critical,
}

/// Something that is wrong now, as a rule sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// What tells it from all others, also over restarts: `relay-lost/lyon-r1`.
    pub key: String,
    /// Which rule says so: `relay-lost`.
    pub kind: String,
    /// What is told together: the site.
    pub group: String,
    /// How much it matters.
    pub severity: Severity,
    /// Names that filters, silences and receivers go by.
    pub labels: BTreeMap<String, String>,
    /// It in one line.
    pub summary: String,
    /// How long it must last before it is an alert.
    pub hold: Duration,
    /// The key of the condition that explains this one: while that holds, this one is quiet.
    pub cause: Option<String>,
}

/// How an alert stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// It has not lasted long enough, or a larger cause explains it.
    Pending,
    /// It is so.
    Firing,
    /// It was so.
    Over,
}

/// Who has taken an alert upon himself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Who.
    pub by: String,
    /// What he says about it.
    pub note: String,
    /// When.
    pub at: Time,
}

/// A condition with its history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// What is or was wrong.
    pub condition: Condition,
    /// The rule's source, which alone says when it ends.
    pub source: String,
    /// How it stands.
    pub phase: Phase,
    /// Since when the condition holds, or held.
    pub began: Time,
    /// When it last became an alert.
    pub fired: Option<Time>,
    /// Since when the condition does not hold any more.
    pub ended: Option<Time>,
    /// When somebody was last told that it fires; none: nobody thinks so.
    pub told: Option<Time>,
    /// When it became an alert, the last few times.
    pub fires: Vec<Time>,
    /// Who has taken it upon himself.
    pub ack: Option<Ack>,
    /// Since when it waits to become an alert.
    waits: Time,
    /// Whether its cause holds.
    quiet: bool,
    /// Whether somebody may have been told by an earlier process that died before it could keep it.
    unsure: bool,
}

impl Alert {
    /// An alert as it was kept over a restart.
    pub fn kept(condition: Condition, source: String, phase: Phase, began: Time) -> Alert {
        Alert {
            condition,
            source,
            phase,
            began,
            fired: None,
            ended: None,
            told: None,
            fires: Vec::new(),
            ack: None,
            waits: began,
            quiet: false,
            unsure: false,
        }
    }

    /// Whether a larger cause explains it at present.
    pub fn is_inhibited(&self) -> bool {
        self.quiet
    }

    /// Whether it counts as something that is wrong now, by itself.
    pub fn is_firing(&self) -> bool {
        self.phase == Phase::Firing && !self.quiet
    }

    /// Whether somebody may think that it fires.
    pub(crate) fn is_believed(&self) -> bool {
        self.told.is_some() || self.unsure
    }

    /// Whether it comes and goes: it has fired twice within this time.
    pub fn is_flapping(&self, now: Time, within: Duration) -> bool {
        self.fires.iter().filter(|at| now.since(**at) < within).count() > 1
    }
}

/// What somebody is told of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum News {
    /// It fires.
    Firing,
    /// It still fires.
    Again,
    /// It is over.
    Over,
}

/// One message: what is new in a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The group.
    pub group: String,
    /// The alerts, the worst first, each with what is new about it.
    pub alerts: Vec<(News, Alert)>,
}

/// What the engine wants of its shell, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this. It is told at least once: should the shell die before the [`Step::Changed`] that
    /// follow are kept, it is told again.
    Tell(Notice),
    /// An alert stands otherwise than before: keep it.
    Changed(Box<Alert>),
    /// Nothing is known of an alert any more.
    Forgotten(String),
}

/// The pace and limits of an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pace {
    /// How long a condition must be gone before its alert is over.
    pub clear: Duration,
    /// How long a group waits for others before it is told.
    pub gather: Duration,
    /// How often an alert that lasts is told again.
    pub repeat: Duration,
    /// An alert that fires twice within this time is told as over only after as long in health.
    pub damp: Duration,
    /// How long an alert is remembered when it is over.
    pub remember: Duration,
    /// How many alerts are known at once; of more, those over are forgotten first, and what then
    /// still has no place is counted.
    pub alerts: usize,
    /// How many alerts one message names, of those of a notice that go its way.
    pub notice: usize,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            clear: Duration::from_secs(10),
            gather: Duration::from_secs(5),
            repeat: Duration::from_secs(3600),
            damp: Duration::from_secs(600),
            remember: Duration::from_secs(7 * 24 * 3600),
            alerts: 10_000,
            notice: 100,
        }
    }
}
