//! `alerts.toml`: the channels of a node, the pace of its alerts, what it makes of each kind, and
//! what it does about some.
//!
//! Unknown keys are refused, and so is a channel that cannot work. Secrets lie in files of their
//! own that nobody else may read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mesh::alerts::{Alert, Condition, Pace, Severity};
use serde::Deserialize;

use crate::channel::{self, Channel, SendError};
use crate::desk::{AskError, OrderCheck};
use crate::export::Batch;
use crate::message::Message;
use crate::reactions::{self, Action, Reaction};
use crate::rules::{RULES, Rule, Seen};
use crate::syntax::{SyntaxError, line_of};

/// How many messages wait for a channel.
const QUEUE: usize = 1_000;
/// The longest time that can be said, in seconds: a hundred years, which stands for never.
const LONGEST_S: u64 = 100 * 365 * 24 * 3600;

/// The settings.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    pub(crate) pace: Pace,
    pub(crate) queue: usize,
    rules: BTreeMap<String, RuleEntry>,
    pub(crate) channels: BTreeMap<String, Way>,
    pub(crate) deadman: Option<Deadman>,
    /// How long a node that was behind something may take to come back.
    pub(crate) returning: Option<Duration>,
    pub(crate) reactions: Vec<Reaction>,
}

/// A channel, and what goes by it.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    pub(crate) channel: Channel,
    pub(crate) filter: Filter,
    pub(crate) timeout: Duration,
    /// Which reports.
    pub(crate) reports: BTreeSet<Kind>,
    /// Events of which subjects.
    pub(crate) events: Vec<String>,
}

/// A kind of report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Hour,
    Day,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Hour => "hour",
            Kind::Day => "day",
        }
    }
}

/// Which alerts go by a channel.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    /// Whether any do.
    alerts: bool,
    severity: Severity,
    sites: BTreeSet<String>,
    kinds: BTreeSet<String>,
}

/// A sign of life to somebody who notices when it stays away.
#[derive(Clone, Debug)]
pub(crate) struct Deadman {
    pub(crate) channel: String,
    pub(crate) every: Duration,
}

/// Settings that are of no use; what was in force before stays so.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("{}: reading failed", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not what it should be.
    #[error("{}: {what}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        what: SyntaxError,
    },
    /// It says something that cannot be.
    #[error("{}: {what}", path.display())]
    Meaning {
        /// The file.
        path: PathBuf,
        /// What, and what to do.
        what: String,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    clear_s: u64,
    gather_s: u64,
    repeat_s: u64,
    damp_s: u64,
    returning_s: Option<u64>,
    queue: usize,
    rules: BTreeMap<String, RuleEntry>,
    channels: BTreeMap<String, ChannelEntry>,
    deadman: Option<DeadmanEntry>,
    reaction: Vec<toml::Spanned<reactions::Entry>>,
}

impl Default for File {
    fn default() -> File {
        let pace = Pace::default();
        File {
            clear_s: pace.clear.as_secs(),
            gather_s: pace.gather.as_secs(),
            repeat_s: pace.repeat.as_secs(),
            damp_s: pace.damp.as_secs(),
            returning_s: None,
            queue: QUEUE,
            rules: BTreeMap::new(),
            channels: BTreeMap::new(),
            deadman: None,
            reaction: Vec::new(),
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RuleEntry {
    off: bool,
    severity: Option<Word>,
    hold_s: Option<u64>,
    percent: Option<u64>,
    count: Option<u64>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Word {
    Info,
    Warning,
    Critical,
}

impl From<Word> for Severity {
    fn from(word: Word) -> Severity {
        match word {
            Word::Info => Severity::Info,
            Word::Warning => Severity::Warning,
            Word::Critical => Severity::Critical,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChannelEntry {
    #[serde(default = "ChannelEntry::alerts")]
    alerts: bool,
    #[serde(default)]
    reports: BTreeSet<Kind>,
    #[serde(default)]
    events: Vec<String>,
    severity: Option<Word>,
    #[serde(default)]
    sites: BTreeSet<String>,
    #[serde(default)]
    kinds: BTreeSet<String>,
    #[serde(default = "ChannelEntry::timeout_s")]
    timeout_s: u64,
    command: Option<channel::CommandEntry>,
    webhook: Option<channel::WebhookEntry>,
    syslog: Option<channel::SyslogEntry>,
    file: Option<channel::FileEntry>,
    journald: Option<channel::JournaldEntry>,
    mail: Option<channel::MailEntry>,
}

impl ChannelEntry {
    fn alerts() -> bool {
        true
    }

    fn timeout_s() -> u64 {
        30
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeadmanEntry {
    channel: String,
    #[serde(default = "DeadmanEntry::every_s")]
    every_s: u64,
}

impl DeadmanEntry {
    fn every_s() -> u64 {
        60
    }
}

impl Settings {
    /// Reads the settings; without a file there are no channels.
    pub fn load(path: &Path) -> Result<Settings, SettingsError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(SettingsError::Io { path: path.into(), source }),
        };
        let file: File = toml::from_str(&text).map_err(|error| {
            let what = SyntaxError::new(&text, error);
            SettingsError::Syntax { path: path.into(), what }
        })?;
        let wrong = |what| SettingsError::Meaning { path: path.into(), what };
        Settings::checked(file, |at| line_of(&text, at)).map_err(wrong)
    }

    /// What they say that cannot be done here: by a node that gives no orders, or by one that has
    /// something against them.
    pub(crate) fn unfit(&self, check: Option<OrderCheck>) -> Option<String> {
        let Some(check) = check else { return self.orders() };
        self.reactions.iter().find_map(|Reaction { name, line, action, .. }| match action {
            Action::Act(act) if act.is_order() => {
                check(act).err().map(|why| format!("line {line}: reaction {name:?}: {why}"))
            }
            _ => None,
        })
    }

    /// What they say that only the controller can do.
    fn orders(&self) -> Option<String> {
        if let Some((name, _)) = self.channels.iter().find(|(_, way)| !way.events.is_empty()) {
            return Some(format!("channels.{name}: events: only the controller hands them on"));
        }
        let gives = |reaction: &&Reaction| match &reaction.action {
            Action::Act(act) => act.is_order(),
            Action::Command(_) => false,
        };
        self.reactions.iter().find(gives).map(|Reaction { name, line, .. }| {
            format!(
                "line {line}: reaction {name:?}: only the controller gives orders; here it can be \
                 command or publish"
            )
        })
    }

    fn checked(file: File, line: impl Fn(usize) -> usize) -> Result<Settings, String> {
        let secs = Duration::from_secs;
        if file.repeat_s == 0 || file.queue == 0 {
            return Err("repeat_s and queue must be more than 0".into());
        }
        within("clear_s", file.clear_s)?;
        within("gather_s", file.gather_s)?;
        within("repeat_s", file.repeat_s)?;
        within("damp_s", file.damp_s)?;
        within("returning_s", file.returning_s.unwrap_or_default())?;
        for (kind, rule) in &file.rules {
            let known = known_kind(kind);
            known
                .and_then(|()| within("hold_s", rule.hold_s.unwrap_or_default()))
                .map_err(|wrong| format!("rules.{kind}: {wrong}"))?;
        }
        let mut channels = BTreeMap::new();
        for (name, entry) in file.channels {
            let way = way(&name, entry).map_err(|wrong| format!("channels.{name}: {wrong}"))?;
            channels.insert(name, way);
        }
        let deadman = file.deadman.map(|entry| {
            let known = channels.contains_key(&entry.channel);
            let wrong = || format!("deadman.channel: there is no channel {:?}", entry.channel);
            if entry.every_s == 0 {
                return Err("deadman.every_s must be more than 0".into());
            }
            within("deadman.every_s", entry.every_s)?;
            let every = secs(entry.every_s);
            known.then(|| Deadman { channel: entry.channel.clone(), every }).ok_or_else(wrong)
        });
        Ok(Settings {
            pace: Pace {
                clear: secs(file.clear_s),
                gather: secs(file.gather_s),
                repeat: secs(file.repeat_s),
                damp: secs(file.damp_s),
                ..Pace::default()
            },
            queue: file.queue,
            rules: file.rules,
            channels,
            deadman: deadman.transpose()?,
            returning: file.returning_s.map(secs),
            reactions: reactions::checked(file.reaction, line)?,
        })
    }

    /// Whether an alert goes by any channel.
    pub(crate) fn hears(&self, alert: &Alert) -> bool {
        self.channels.iter().any(|(name, way)| way.filter.passes(name, alert))
    }

    /// Whether anybody can be told.
    pub fn has_channels(&self) -> bool {
        !self.channels.is_empty()
    }

    /// The channels by which alerts go.
    pub fn channels(&self) -> impl Iterator<Item = &str> {
        let hear = self.channels.iter().filter(|(_, way)| way.filter.alerts);
        hear.map(|(name, _)| name.as_str())
    }

    /// Sends a message by one channel, now and once.
    pub async fn test(&self, channel: &str, message: &Message) -> Result<(), AskError> {
        let unknown = || AskError::Unknown { what: "channel", name: channel.into() };
        let way = self.channels.get(channel).ok_or_else(unknown)?;
        let failed = |error: String| AskError::Channel { name: channel.into(), error };
        way.send(message).await.map_err(|error| failed(error.to_string()))
    }

    /// The channels by which events go, and of which subjects.
    pub fn exports(&self) -> BTreeMap<String, Vec<String>> {
        let some = self.channels.iter().filter(|(_, way)| !way.events.is_empty());
        some.map(|(name, way)| (name.clone(), way.events.clone())).collect()
    }

    /// Hands events on by one channel, now and once.
    pub async fn export(&self, channel: &str, batch: &Batch) -> Result<(), AskError> {
        let unknown = || AskError::Unknown { what: "channel", name: channel.into() };
        let way = self.channels.get(channel).ok_or_else(unknown)?;
        let failed = |error: String| AskError::Channel { name: channel.into(), error };
        way.export(batch).await.map_err(|error| failed(error.to_string()))
    }

    /// How long something of this kind must last.
    pub fn hold(&self, kind: &str) -> Duration {
        let own = self.rules.get(kind).and_then(|rule| rule.hold_s).map(Duration::from_secs);
        own.unwrap_or_else(|| Rule::of(kind).map_or(Duration::ZERO, |rule| rule.hold))
    }

    /// How long a node that was behind something may take to come back.
    pub fn returning(&self) -> Option<Duration> {
        self.returning
    }

    /// The share of an order's targets from which on its failures are an alert, in percent.
    pub fn percent(&self, kind: &str) -> Option<u64> {
        self.rules.get(kind)?.percent
    }

    /// From how many on something is an alert; none: never.
    pub fn count(&self, kind: &str) -> Option<u64> {
        self.rules.get(kind)?.count
    }

    /// The condition that something is; none if its kind is switched off.
    pub(crate) fn condition(&self, seen: Seen) -> Option<Condition> {
        let (own, rule) = (self.rules.get(seen.kind), Rule::of(seen.kind)?);
        if own.is_some_and(|own| own.off) {
            return None;
        }
        let severity = own.and_then(|own| own.severity).map_or(rule.severity, Severity::from);
        let hold = self.hold(seen.kind);
        Some(seen.under(severity, hold))
    }
}

impl Way {
    /// Whether reports of this kind go by it.
    pub(crate) fn has_reports(&self, kind: &str) -> bool {
        self.reports.iter().any(|known| known.word() == kind)
    }

    /// Sends a message within the channel's time.
    pub(crate) async fn send(&self, message: &Message) -> Result<(), SendError> {
        self.in_time(self.channel.send(message)).await
    }

    /// Hands events on within the channel's time.
    async fn export(&self, batch: &Batch) -> Result<(), SendError> {
        self.in_time(self.channel.export(batch)).await
    }

    async fn in_time(
        &self,
        sent: impl Future<Output = Result<(), SendError>>,
    ) -> Result<(), SendError> {
        match tokio::time::timeout(self.timeout, sent).await {
            Ok(result) => result,
            Err(_) => {
                let limit = self.timeout.as_secs();
                Err(SendError::Later(format!("no answer within {limit} s")))
            }
        }
    }
}

impl Filter {
    /// Whether an alert goes by the channel of this name.
    pub(crate) fn passes(&self, channel: &str, alert: &Alert) -> bool {
        let Condition { kind, severity, labels, .. } = &alert.condition;
        let own = kind == "channel-failing" && labels.get("channel").is_some_and(|c| c == channel);
        let site = labels.get("site").map_or("", String::as_str);
        self.alerts
            && *severity >= self.severity
            && !own
            && (self.sites.is_empty() || self.sites.contains(site))
            && (self.kinds.is_empty() || self.kinds.contains(kind))
    }
}

pub(crate) fn known_kind(kind: &str) -> Result<(), String> {
    let kinds = || RULES.iter().map(|rule| rule.kind).collect::<Vec<_>>().join(", ");
    let known = Rule::of(kind).is_some();
    known.then_some(()).ok_or_else(|| format!("no such kind of alert: there are {}", kinds()))
}

/// Whether a time in seconds is one that can be waited for.
fn within(key: &str, secs: u64) -> Result<(), String> {
    let fits = secs <= LONGEST_S;
    fits.then_some(()).ok_or_else(|| format!("{key} must be {LONGEST_S} (a hundred years) at most"))
}

fn way(name: &str, entry: ChannelEntry) -> Result<Way, String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if name.is_empty() || name.len() > 32 || !name.bytes().all(plain) {
        return Err("a name is letters, digits, - and _, at most 32".into());
    }
    for kind in &entry.kinds {
        known_kind(kind).map_err(|wrong| format!("kinds: {kind}: {wrong}"))?;
    }
    if entry.timeout_s == 0 {
        return Err("timeout_s must be more than 0".into());
    }
    within("timeout_s", entry.timeout_s)?;
    let mut found = Vec::new();
    found.extend(entry.command.map(channel::CommandEntry::channel));
    found.extend(entry.webhook.map(channel::WebhookEntry::channel));
    found.extend(entry.syslog.map(channel::SyslogEntry::channel));
    found.extend(entry.file.map(channel::FileEntry::channel));
    found.extend(entry.journald.map(channel::JournaldEntry::channel));
    found.extend(entry.mail.map(channel::MailEntry::channel));
    let (Some(channel), true) = (found.pop(), found.is_empty()) else {
        return Err("give one of command, webhook, syslog, file, journald, mail".into());
    };
    let (channel, reports) = (channel?, entry.reports);
    if !reports.is_empty() && !channel.has_reports() {
        return Err(format!("reports go by mail, command or file, not by {}", channel.kind()));
    }
    let events = entry.events;
    if let Some(wrong) =
        events.iter().find(|subject| !mesh::is_subject(&subject.replace('*', "any")))
    {
        return Err(format!("events: {wrong:?} is no subject: for example run, run.failed, *"));
    }
    if let Some(why) = channel.no_events().filter(|_| !events.is_empty()) {
        return Err(format!("events {why}"));
    }
    if reports.is_empty() && events.is_empty() && !entry.alerts {
        return Err("without alerts, reports and events nothing goes by it".into());
    }
    let severity = entry.severity.map_or(Severity::Info, Severity::from);
    let (alerts, sites, kinds) = (entry.alerts, entry.sites, entry.kinds);
    let filter = Filter { alerts, severity, sites, kinds };
    Ok(Way { channel, filter, timeout: Duration::from_secs(entry.timeout_s), reports, events })
}

#[cfg(test)]
mod tests {
    use mesh::alerts::Phase;

    use super::*;

    fn read(text: &str) -> Result<Settings, String> {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("alerts.toml");
        std::fs::write(&path, text).expect("written");
        Settings::load(&path).map_err(|error| {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            format!("{error} {}", source.unwrap_or_default())
        })
    }

    #[test]
    fn the_example_is_valid() {
        let settings = read(include_str!("../../examples/alerts.toml")).expect("valid");
        assert_eq!(settings.channels.len(), 4);
        assert!(settings.deadman.is_some() && settings.has_channels());
        let none = Settings::load(Path::new("/nonexistent/alerts.toml")).expect("defaults");
        assert!(!none.has_channels());
    }

    #[track_caller]
    fn refused(text: &str, why: &str) {
        let error = read(text).expect_err(text);
        assert!(error.contains(why), "{error}");
    }

    #[test]
    fn what_cannot_work_is_named() {
        refused("clear = 3", "unknown field `clear`");
        refused("rules.host-gone.off = true", "rules.host-gone: no such kind of alert: there are");
        refused("channels.a.severity = 'info'", "channels.a: give one of command, webhook");
        let both = "channels.a = { file = { path = '/x' }, command = { argv = ['/y'] } }";
        refused(both, "channels.a: give one of");
        refused("channels.'a/b'.file = { path = '/x' }", "channels.a/b: a name is letters");
        refused("channels.a.file = { path = 'x' }", "file.path: x is not absolute");
        refused("channels.a.command = { argv = [] }", "it names no program");
        refused("channels.a.command = { argv = ['page'] }", "\"page\" is not an absolute path");
        refused("channels.a.webhook = { url = 'ftp://x' }", "begins neither with http://");
        refused("channels.a.webhook = { url = 'http://u:p@x/' }", "holds a password");
        let missing = "channels.a.webhook = { url = 'http://x/', secret_file = '/nonexistent' }";
        refused(missing, "/nonexistent: No such file");
        refused("channels.a.syslog = { udp = 'x' }", "\"x\" is not HOST:PORT");
        refused("channels.a.syslog = {}", "give one of unix, udp, tcp, tls");
        refused("channels.a.syslog = { tls = 'x' }", "\"x\" is not HOST:PORT");
        let ca = "channels.a.syslog = { tls = 'x:6514', ca_file = '/nonexistent' }";
        refused(ca, "syslog.tls: /nonexistent: ");
        let half = "channels.a.syslog = { tls = 'x:6514', cert_file = '/x' }";
        refused(half, "cert_file and key_file go together");
        let plain = "channels.a.syslog = { tcp = 'x:514', ca_file = '/x' }";
        refused(plain, "ca_file, cert_file and key_file are for tls");
        let mail = "channels.a.mail = { server = 's', from = 'x', to = ['a@b.c'] }";
        refused(mail, "mail.from: \"x\" is no address");
        let plain = "channels.a.mail = { server = 's', tls = 'none', ca_file = '/x', \
                     from = 'b@c.d', to = ['a@b.c'] }";
        refused(plain, "mail: ca_file is for tls");
        refused("deadman = { channel = 'a' }", "deadman.channel: there is no channel \"a\"");
        refused("repeat_s = 0", "must be more than 0");
        let most = "must be 3153600000 (a hundred years) at most";
        for key in ["clear_s", "gather_s", "repeat_s", "damp_s", "returning_s"] {
            refused(&format!("{key} = 3153600001"), &format!("{key} {most}"));
            assert!(read(&format!("{key} = 3153600000")).is_ok(), "{key}");
        }
        let hold = "rules.host-lost.hold_s = 9223372036854775807";
        refused(hold, &format!("rules.host-lost: hold_s {most}"));
        let file = "channels.a.file.path = '/x'\n";
        let every = format!("{file}deadman = {{ channel = 'a', every_s = 9223372036854775807 }}");
        refused(&every, &format!("deadman.every_s {most}"));
        let timeout = format!("{file}channels.a.timeout_s = 9223372036854775807");
        refused(&timeout, &format!("channels.a: timeout_s {most}"));
        let reports = "channels.a = { reports = ['hour'], syslog = { udp = 'x:1' } }";
        refused(reports, "reports go by mail, command or file, not by syslog");
        let week = "channels.a = { reports = ['week'], file = { path = '/x' } }";
        refused(week, "unknown variant");
        let nothing = "channels.a = { alerts = false, file = { path = '/x' } }";
        refused(nothing, "nothing goes by it");
        let events = "channels.a = { events = ['run..x'], file = { path = '/x' } }";
        refused(events, "\"run..x\" is no subject");
        let events = "channels.a = { events = ['*'], syslog = { udp = 'x:1' } }";
        refused(events, "events go by tls, tcp or unix, not by udp");
        let events = "channels.a = { events = ['*'], command = { argv = ['/x'] } }";
        refused(events, "events go by webhook, syslog or file, not by command");
        let kinds = "channels.a = { kinds = ['x'], file = { path = '/x' } }";
        refused(kinds, "kinds: x: no such kind");
    }

    #[test]
    fn only_the_controller_hands_events_on() {
        let settings =
            read("channels.a = { alerts = false, events = ['run'], file = { path = '/x' } }");
        let settings = settings.expect("valid");
        assert_eq!(settings.exports()["a"], ["run"]);
        let wrong = settings.orders().expect("a relay has no events to hand on");
        assert!(wrong.starts_with("channels.a: events: only the controller"), "{wrong}");
        assert_eq!(read("").expect("valid").orders(), None);
    }

    #[test]
    fn reactions_that_cannot_work_are_named_with_their_line() {
        let begin = "clear_s = 1\n\n[[reaction]]\nname = 'a'\nkinds = ['relay-lost']\n";
        let check = |lines: &str, why: &str| {
            refused(&format!("{begin}{lines}"), &format!("line 3: reaction \"a\": {why}"));
        };
        check("", "give one of command, publish, run, distribute");
        check("publish.subject = 'x'\ndistribute.frequency = 'hour'\n", "give one of");
        check("publish.subject = 'a..b'\n", "publish.subject: \"a..b\" is no subject");
        check("publish.subject = '_keep.who'\n", "publish.subject: \"_keep.who\" is for the nodes");
        check("command.argv = ['x']\n", "command.argv: \"x\" is not an absolute path");
        check("run.line = 'true'\n", "run: give hosts = \"SET\" or that_host = true");
        check("run = { line = 'true', hosts = 'a', that_host = true }\n", "run: give hosts or");
        check("run = { line = ' ', that_host = true }\n", "run.line: a line has");
        check("most = 0\npublish.subject = 'x'\n", "most must be more than 0");
        check("timeout_s = 90000\npublish.subject = 'x'\n", "timeout_s must be 86400 at most");
        let twice = format!("{begin}publish.subject = 'x'\n[[reaction]]\nname = 'a'\nkinds = []\n");
        refused(&twice, "line 7: reaction \"a\": there is another one");
        refused("[[reaction]]\nname = 'a'\nkinds = ['x']\n", "kinds: x: no such kind");
        refused("[[reaction]]\nname = 'a'\nkinds = []\n", "kinds: name the kinds");
        let runs = read(&format!("{begin}run = {{ line = 'true', that_host = true }}\n"));
        let orders = runs.expect("a controller may").orders().expect("it gives orders");
        assert!(orders.starts_with("line 3: reaction \"a\": only the controller"), "{orders}");
        let sets = read(&format!("{begin}run = {{ line = 'true', hosts = 'a[' }}\n"));
        let sets = sets.expect("what a set is only the controller knows");
        assert_eq!(sets.unfit(Some(|_| Ok(()))), None);
        let wrong = sets.unfit(Some(|act| Err(format!("{act:?}")))).expect("it is asked");
        assert!(wrong.starts_with("line 3: reaction \"a\": Run"), "{wrong}");
        let says = read(&format!("{begin}publish.subject = 'x'\n")).expect("valid");
        assert_eq!((says.orders(), says.reactions.len()), (None, 1));
    }

    #[test]
    fn what_is_wrong_is_told_without_secrets() {
        let check = |text: &str, why: &str| {
            let error = read(text).expect_err(text);
            assert!(error.contains(why) && !error.contains("hush"), "{error}");
        };
        check(
            "queue = 7\nchannels.a.webhook = 'http://x/hush'",
            "line 2: channels.a.webhook: invalid type: string",
        );
        check("\n\nchannels.a.webhook = { url = 'http://x/hush }", "line 3: ");
        check("channels.a.webhook = { urls = 'http://x/hush' }", "unknown field `urls`");
        for url in ["ftp://x/hush", "http://u:hush@x/", "http:///hush", "hush hush"] {
            check(&format!("channels.a.webhook = {{ url = '{url}' }}"), "webhook.url");
        }
    }

    #[test]
    fn a_secret_that_others_may_read_is_none() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("secret");
        std::fs::write(&path, "key\n").expect("written");
        let text = format!(
            "channels.a.webhook = {{ url = 'http://x/', secret_file = '{}' }}",
            path.display()
        );
        let set = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode));
        set(0o644).expect("it is ours");
        refused(&text, "others may read it: chmod 600");
        set(0o600).expect("it is ours");
        assert!(read(&text).is_ok());
    }

    #[test]
    fn kinds_and_channels_have_their_own_rules() {
        let text = "rules.host-lost = { hold_s = 99, severity = 'critical' }\n\
                    rules.disk-low.off = true\n\
                    channels.a = { severity = 'critical', sites = ['lyon'], \
                    file = { path = '/x' } }\n";
        let settings = read(text).expect("valid");
        let seen = |kind, site: &str| Seen {
            kind,
            of: "web1".into(),
            labels: BTreeMap::from([("site".into(), site.into())]),
            ..Seen::default()
        };
        assert!(settings.condition(seen("disk-low", "lyon")).is_none());
        let condition = settings.condition(seen("host-lost", "lyon")).expect("it is on");
        assert_eq!(condition.hold, Duration::from_secs(99));
        assert_eq!(
            (condition.severity, condition.key.as_str()),
            (Severity::Critical, "host-lost/web1")
        );
        let passes = |kind, site| {
            let condition = settings.condition(seen(kind, site)).expect("it is on");
            let alert = Alert::kept(condition, "s".into(), Phase::Firing, mesh::Time::ZERO);
            settings.channels["a"].filter.passes("a", &alert)
        };
        assert!(passes("host-lost", "lyon"));
        assert!(!passes("host-lost", "oslo") && !passes("parent-lost", "lyon"));
    }
}
