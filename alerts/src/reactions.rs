//! `[[reaction]]` in `alerts.toml`: what is to be done when an alert begins to fire.
//!
//! What is done stands in the file word by word. What the alert says may come from a host, and is
//! data: it is given as JSON to read, or in the environment, and never becomes part of a command
//! line, a path or a subject. Without a `[[reaction]]` nothing is done.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use mesh::alerts::{Alert, Severity};
use mesh::bus::{Subject, is_reserved};
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};

use crate::channel::{self, Channel};
use crate::settings::{Word, known_kind};

/// How many there may be.
const MOST: usize = 32;
/// How long a line may be, and how many alerts of an hour something is done for.
const LINE: usize = 4_096;
const OFTEN: u64 = 1_000;
/// How often something is done at most, unless it is said: once in so long.
const PER_S: u64 = 3_600;
/// How long something may take.
const TIMEOUT_S: u64 = 300;
const LONGEST_S: u64 = 24 * 3_600;

/// One of them.
#[derive(Clone, Debug)]
pub(crate) struct Reaction {
    pub(crate) name: String,
    /// In which line of the file it begins.
    pub(crate) line: usize,
    pub(crate) kinds: BTreeSet<String>,
    pub(crate) sites: BTreeSet<String>,
    pub(crate) severity: Severity,
    /// At most so often within so long.
    pub(crate) most: usize,
    pub(crate) per: Duration,
    pub(crate) timeout: Duration,
    pub(crate) action: Action,
}

/// What is to be done, and by whom.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// A program here.
    Command(Channel),
    /// Something that whoever runs this desk must do.
    Act(Act),
}

/// Something that a desk cannot do itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// To publish the alert on the bus.
    Publish {
        /// Under which subject.
        subject: String,
    },
    /// To give an order to run a line.
    Run {
        /// Where: a set; none: at the host that the alert is about.
        hosts: Option<String>,
        /// The line.
        line: String,
        /// As whom; empty: as the nodes do.
        user: String,
        /// How long it may run.
        timeout: Duration,
    },
    /// To bring what is under control to whoever lacks it.
    Distribute {
        /// Of which frequency.
        frequency: String,
    },
}

impl Action {
    /// What it does, in a line.
    pub(crate) fn line(&self) -> String {
        match self {
            Action::Command(channel) => channel.line(),
            Action::Act(Act::Publish { subject }) => format!("publish on {subject}"),
            Action::Act(Act::Distribute { frequency }) => format!("distribute {frequency}"),
            Action::Act(Act::Run { hosts, line, user, .. }) => {
                let at = hosts.as_deref().unwrap_or("the host of the alert");
                let user = if user.is_empty() { String::new() } else { format!(" as {user}") };
                format!("run at {at}{user}: {line}")
            }
        }
    }
}

impl Act {
    /// Whether only a controller can do it.
    pub fn is_order(&self) -> bool {
        !matches!(self, Act::Publish { .. })
    }
}

/// Something that is to be done now.
#[derive(Debug)]
pub struct Wanted {
    /// What.
    pub act: Act,
    /// The alert, as JSON.
    pub told: Bytes,
    /// The host that it is about, if there is one.
    pub host: Option<String>,
    /// What it has come to.
    pub reply: oneshot::Sender<Result<String, String>>,
}

/// The next thing that is still to be done. What has waited for so long that its reaction was told
/// to have failed is not done behind that; `None`: nobody wants anything any more.
pub async fn next_wanted(wanted: &mut mpsc::Receiver<Wanted>) -> Option<Wanted> {
    loop {
        let next = wanted.recv().await?;
        if !next.reply.is_closed() {
            return Some(next);
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    name: String,
    kinds: BTreeSet<String>,
    #[serde(default)]
    sites: BTreeSet<String>,
    severity: Option<Word>,
    #[serde(default = "Entry::most")]
    most: u64,
    #[serde(default = "Entry::per_s")]
    per_s: u64,
    #[serde(default = "Entry::timeout_s")]
    timeout_s: u64,
    command: Option<channel::CommandEntry>,
    publish: Option<PublishEntry>,
    run: Option<RunEntry>,
    distribute: Option<DistributeEntry>,
}

impl Entry {
    fn most() -> u64 {
        1
    }

    fn per_s() -> u64 {
        PER_S
    }

    fn timeout_s() -> u64 {
        TIMEOUT_S
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PublishEntry {
    subject: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RunEntry {
    /// A set, or that it is the host of the alert.
    hosts: Option<String>,
    #[serde(default)]
    that_host: bool,
    line: String,
    #[serde(default)]
    user: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DistributeEntry {
    frequency: String,
}

/// What a file says, or in which line and what is wrong with it. `line`: of a place in the file.
pub(crate) fn checked(
    entries: Vec<toml::Spanned<Entry>>,
    line: impl Fn(usize) -> usize,
) -> Result<Vec<Reaction>, String> {
    let mut reactions = Vec::<Reaction>::new();
    for entry in entries {
        let line = line(entry.span().start);
        let entry = entry.into_inner();
        let name = entry.name.clone();
        let wrong = |wrong: String| format!("line {line}: reaction {name:?}: {wrong}");
        if reactions.iter().any(|other| other.name == name) {
            return Err(wrong("there is another one of this name".into()));
        }
        if reactions.len() == MOST {
            return Err(wrong(format!("there are more than {MOST}")));
        }
        reactions.push(reaction(entry, line).map_err(wrong)?);
    }
    Ok(reactions)
}

fn reaction(entry: Entry, line: usize) -> Result<Reaction, String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let name = entry.name;
    if name.is_empty() || name.len() > 32 || !name.bytes().all(plain) {
        return Err("a name is letters, digits, - and _, at most 32".into());
    }
    if entry.kinds.is_empty() {
        return Err("kinds: name the kinds of alerts, at least one".into());
    }
    for kind in &entry.kinds {
        known_kind(kind).map_err(|wrong| format!("kinds: {kind}: {wrong}"))?;
    }
    let within = |what: &str, value: u64, most: u64| match value {
        0 => Err(format!("{what} must be more than 0")),
        value if value > most => Err(format!("{what} must be {most} at most")),
        value => Ok(value),
    };
    let most = within("most", entry.most, OFTEN)?;
    let per = Duration::from_secs(within("per_s", entry.per_s, 366 * LONGEST_S)?);
    let timeout = Duration::from_secs(within("timeout_s", entry.timeout_s, LONGEST_S)?);
    let mut found = Vec::new();
    found.extend(entry.command.map(|command| command.channel().map(Action::Command)));
    found.extend(entry.publish.map(|publish| publish.act().map(Action::Act)));
    found.extend(entry.run.map(|run| run.act(timeout).map(Action::Act)));
    found.extend(entry.distribute.map(|all| all.act().map(Action::Act)));
    let (Some(action), true) = (found.pop(), found.is_empty()) else {
        return Err("give one of command, publish, run, distribute".into());
    };
    Ok(Reaction {
        name,
        line,
        kinds: entry.kinds,
        sites: entry.sites,
        severity: entry.severity.map_or(Severity::Info, Severity::from),
        most: usize::try_from(most).unwrap_or(usize::MAX),
        per,
        timeout,
        action: action?,
    })
}

impl PublishEntry {
    fn act(self) -> Result<Act, String> {
        let subject = self.subject;
        match Subject::new(&subject) {
            Err(fault) => Err(format!("publish.subject: {subject:?} is no subject: {fault}")),
            Ok(_) if is_reserved(&subject) => {
                Err(format!("publish.subject: {subject:?} is for the nodes themselves"))
            }
            Ok(_) => Ok(Act::Publish { subject }),
        }
    }
}

impl RunEntry {
    fn act(self, timeout: Duration) -> Result<Act, String> {
        let RunEntry { hosts, that_host, line, user } = self;
        if line.trim().is_empty() || line.len() > LINE || line.contains('\0') {
            return Err(format!("run.line: a line has 1 to {LINE} bytes"));
        }
        match &hosts {
            Some(_) if that_host => Err("run: give hosts or that_host, not both".into()),
            None if !that_host => Err("run: give hosts = \"SET\" or that_host = true".into()),
            Some(set) if set.trim().is_empty() => Err("run.hosts: it names nobody".into()),
            _ => Ok(Act::Run { hosts, line, user, timeout }),
        }
    }
}

impl DistributeEntry {
    fn act(self) -> Result<Act, String> {
        match self.frequency.as_str() {
            "" => Err("distribute.frequency: it names none".into()),
            _ => Ok(Act::Distribute { frequency: self.frequency }),
        }
    }
}

impl Reaction {
    /// Whether it is for an alert.
    pub(crate) fn is_for(&self, alert: &Alert) -> bool {
        let condition = &alert.condition;
        let site = condition.labels.get("site").map_or("", String::as_str);
        self.kinds.contains(&condition.kind)
            && condition.severity >= self.severity
            && (self.sites.is_empty() || self.sites.contains(site))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_told_to_have_failed_is_not_done_later() {
        let (acts, mut wanted) = mpsc::channel(2);
        let want = |subject: &str| {
            let (reply, done) = oneshot::channel();
            let (act, told) = (Act::Publish { subject: subject.into() }, Bytes::new());
            let sent = acts.try_send(Wanted { act, told, host: None, reply });
            sent.expect("there is room");
            done
        };
        drop(want("given up"));
        let _waits = want("waits");
        let next = next_wanted(&mut wanted).await.expect("one waits");
        assert_eq!(next.act, Act::Publish { subject: "waits".into() });
        drop(acts);
        assert!(next_wanted(&mut wanted).await.is_none());
    }
}
