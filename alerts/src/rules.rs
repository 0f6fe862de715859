//! The kinds of alerts: how bad each is, how long it must last, and what to do about it.
//!
//! Who sees something makes a [`Seen`] of it; the settings may say otherwise than the table here,
//! or switch a kind off.

use std::collections::BTreeMap;
use std::time::Duration;

use mesh::alerts::{Condition, Severity};

/// A kind of alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name.
    pub kind: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// How long it must last.
    pub hold: Duration,
    /// What to do about it.
    pub help: &'static str,
}

const fn rule(kind: &'static str, severity: Severity, hold_s: u64, help: &'static str) -> Rule {
    Rule { kind, severity, hold: Duration::from_secs(hold_s), help }
}

/// All kinds there are.
pub(crate) const RULES: [Rule; 15] = [
    rule(
        "host-lost",
        Severity::Warning,
        10,
        "its relay is there, so look at the host itself: is it running, is barid node running",
    ),
    rule(
        "relay-lost",
        Severity::Critical,
        10,
        "the relay or its link to the parent is down: look at the site's line, then at the relay; \
         what is behind it gets its orders when it is back",
    ),
    rule(
        "below-lost",
        Severity::Critical,
        10,
        "all children of one node are gone at once: look at the network or the switch next to it",
    ),
    rule(
        "controller-silent",
        Severity::Critical,
        10,
        "nothing is heard from the controller here: look at the controller, then at the line to it",
    ),
    rule(
        "parent-lost",
        Severity::Warning,
        30,
        "no parent of this node answers: look at its relay, and at the network between",
    ),
    rule(
        "disk-low",
        Severity::Warning,
        10,
        "make room on the disk that holds the node's state: it refuses new work until then",
    ),
    rule(
        "certificate-ending",
        Severity::Warning,
        0,
        "the node has not renewed its certificate, as it does by itself while it reaches the \
         controller: see why it does not, or join it anew with a token for its name",
    ),
    rule(
        "orders-failing",
        Severity::Warning,
        0,
        "barid runs shows what failed, barid retry gives it again",
    ),
    rule(
        "clock-apart",
        Severity::Warning,
        0,
        "look at the clocks of both, beginning with the node that is nearest to the controller: \
         orders are refused when clocks are five minutes apart",
    ),
    rule(
        "limit-reached",
        Severity::Warning,
        0,
        "something was dropped or cut, and counted: barid events shows what, and of which node",
    ),
    rule(
        "schedule-missed",
        Severity::Warning,
        0,
        "a distribution was not begun when it was due: see why in the log of the controller; what \
         was missed while it was away is made up for by the next one",
    ),
    rule("errors-many", Severity::Warning, 0, "barid report errors shows each problem once"),
    rule(
        "channel-failing",
        Severity::Warning,
        60,
        "alerts wait on disk for this channel: see the error, then barid alerts test CHANNEL",
    ),
    rule(
        "alerts-config",
        Severity::Warning,
        0,
        "correct alerts.toml: what was read before stays in force until then",
    ),
    rule(
        "alerts-crowded",
        Severity::Warning,
        0,
        "more is wrong at once than there is room for: see barid alerts ls",
    ),
];

impl Rule {
    /// The rule of a kind.
    pub fn of(kind: &str) -> Option<&'static Rule> {
        RULES.iter().find(|rule| rule.kind == kind)
    }
}

/// Something wrong, before the settings have had their say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Which kind it is.
    pub kind: &'static str,
    /// What of that kind: the name of a host, as a rule.
    pub of: String,
    /// The site, or whatever else it is told together with.
    pub group: String,
    /// Names that filters and silences go by.
    pub labels: BTreeMap<String, String>,
    /// It in one line.
    pub summary: String,
    /// How long it must last, if longer than usual.
    pub hold: Duration,
    /// The key of the cause that explains it.
    pub cause: Option<String>,
}

impl Seen {
    /// The key of something of a kind.
    pub fn key(kind: &str, of: &str) -> String {
        format!("{kind}/{of}")
    }

    /// The condition that it is under a rule.
    pub(crate) fn under(self, severity: Severity, hold: Duration) -> Condition {
        Condition {
            key: Seen::key(self.kind, &self.of),
            kind: self.kind.into(),
            group: self.group,
            severity,
            labels: self.labels,
            summary: self.summary,
            hold: hold.max(self.hold),
            cause: self.cause,
        }
    }
}
