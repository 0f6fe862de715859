//! [`Desk`]: the task that owns the engine. Rules hand in what they see, operators ask, and what
//! the engine wants is done: messages into the queues of channels, then rows to the keeper.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh::alerts::{AckError, Alert, Condition, Engine, OWN, Phase, Severity, Silence, Step};
use mesh::{Class, Kind, Time};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, MissedTickBehavior, sleep_until};
use tracing::{info, warn};

use crate::clock::{Clock, to_ms};
use crate::courier::Courier;
use crate::info::{AlertInfo, ChannelInfo, Overview};
use crate::keep::{AlertRow, Change, Keeper, SilenceRow};
use crate::message::{Message, Sender, Written, short, word};
use crate::outbox::Outbox;
use crate::rules::{Rule, Seen};
use crate::settings::{Settings, SettingsError};

/// Things that may wait for the desk.
const ASKS: usize = 256;
/// How often it looks whether its settings have changed and how its channels do.
const LOOK: Duration = Duration::from_secs(2);

/// What a desk is made of.
pub struct Setup {
    /// The node's state folder: `alerts.toml` is there, and `alerts/` for what waits.
    pub state: PathBuf,
    /// Who speaks.
    pub from: Sender,
    /// Who keeps alerts over a restart.
    pub keeper: Arc<dyn Keeper>,
    /// Where it says what fires and what is over, for the events of the node.
    pub events: mpsc::Sender<(Kind, String)>,
}

/// The way to a desk. It ends when all of them are gone.
#[derive(Clone)]
pub struct Desk {
    asks: mpsc::Sender<Ask>,
    settings: watch::Receiver<Arc<Settings>>,
}

/// A request of an operator that was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// There is nothing of that name.
    #[error("there is no {what} {name}")]
    Unknown {
        /// What was looked for.
        what: &'static str,
        /// Under which name.
        name: String,
    },
    /// It has ended already.
    #[error("the alert {0} is over")]
    Over(String),
    /// No more can be taken.
    #[error("there are too many silences")]
    Full,
    /// The channel did not take the test.
    #[error("channel {name}: {error}")]
    Channel {
        /// The channel.
        name: String,
        /// What went wrong.
        error: String,
    },
    /// Nobody knows which channels there are.
    #[error("the settings of alerts are not valid: {0}")]
    Settings(String),
    /// The desk has ended.
    #[error("alerts are not at work here")]
    Gone,
}

type Reply<T> = oneshot::Sender<T>;
type Explained = Box<dyn Fn(&Condition) -> Option<String> + Send>;

enum Ask {
    Set { source: &'static str, seen: Vec<Seen>, explained: Explained },
    List(Reply<Overview>),
    Ack { name: String, by: String, note: String, reply: Reply<Result<AlertInfo, AskError>> },
    Silence(SilenceRow, Reply<Result<SilenceRow, AskError>>),
    Unsilence(String, Reply<Result<(), AskError>>),
    Test(String, Reply<Result<(), AskError>>),
    Report(Box<Message>, Reply<Result<usize, AskError>>),
}

/// Who waits to hear by how many channels a report goes, once it is on disk for each.
type Handed = (usize, Reply<Result<usize, AskError>>);

impl Desk {
    /// All that a source sees now. `explained`: why nothing is known of what it leaves out.
    pub async fn set(
        &self,
        source: &'static str,
        seen: Vec<Seen>,
        explained: impl Fn(&Condition) -> Option<String> + Send + 'static,
    ) {
        let explained = Box::new(explained);
        self.asks.send(Ask::Set { source, seen, explained }).await.ok();
    }

    /// All alerts, silences and channels.
    pub async fn list(&self) -> Result<Overview, AskError> {
        self.ask(Ask::List).await
    }

    /// Somebody takes an alert, named by its key or the beginning of its id, upon himself.
    pub async fn ack(&self, name: &str, by: &str, note: &str) -> Result<AlertInfo, AskError> {
        let (name, by, note) = (name.into(), by.into(), note.into());
        self.ask(|reply| Ask::Ack { name, by, note, reply }).await?
    }

    /// Takes a silence and gives it an id.
    pub async fn silence(&self, silence: SilenceRow) -> Result<SilenceRow, AskError> {
        self.ask(|reply| Ask::Silence(silence, reply)).await?
    }

    /// Ends a silence.
    pub async fn unsilence(&self, id: &str) -> Result<(), AskError> {
        let id = id.into();
        self.ask(|reply| Ask::Unsilence(id, reply)).await?
    }

    /// Sends a test message by a channel, and waits until it is taken or not.
    pub async fn test(&self, channel: &str) -> Result<(), AskError> {
        let channel = channel.into();
        self.ask(|reply| Ask::Test(channel, reply)).await?
    }

    /// Hands a report to each channel that has those of its kind. Returns how many these are, once
    /// it is on disk for all of them.
    pub async fn report(
        &self,
        from: &Sender,
        report: Written,
        at_ms: u64,
    ) -> Result<usize, AskError> {
        let message = Box::new(Message::report(from, report, at_ms));
        self.ask(|reply| Ask::Report(message, reply)).await?
    }

    /// The settings as they are in force.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.borrow().clone()
    }

    async fn ask<T>(&self, ask: impl FnOnce(Reply<T>) -> Ask) -> Result<T, AskError> {
        let (reply, answer) = oneshot::channel();
        self.asks.send(ask(reply)).await.map_err(|_| AskError::Gone)?;
        answer.await.map_err(|_| AskError::Gone)
    }
}

/// Starts a desk. Settings that are not valid are an alert of their own.
pub fn start(setup: Setup) -> Desk {
    let (asks, inbox) = mpsc::channel(ASKS);
    let (published, settings) = watch::channel(Arc::default());
    tokio::spawn(async move {
        let worker = spawn_blocking(move || Worker::new(setup, published)).await;
        worker.expect("reading settings does not panic").run(inbox).await;
    });
    Desk { asks, settings }
}

/// What tells whether a file has changed.
type Stamp = Option<(SystemTime, u64)>;

struct Worker {
    setup: Setup,
    clock: Clock,
    engine: Engine,
    settings: Arc<Settings>,
    published: watch::Sender<Arc<Settings>>,
    /// What fires, as the node's events have it.
    firing: BTreeSet<String>,
    stamp: Stamp,
    wrong: Option<String>,
    couriers: BTreeMap<String, (Arc<Courier>, JoinHandle<()>)>,
    alive: Option<(Instant, JoinHandle<()>)>,
    /// What is not kept yet, by kind and key.
    changes: BTreeMap<(u8, String), Change>,
    /// Reports that go out next, and who waits for that.
    reports: Vec<(Arc<Courier>, Message)>,
    handed: Vec<Handed>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.couriers.values().for_each(|(_, task)| task.abort());
    }
}

impl Worker {
    fn new(setup: Setup, published: watch::Sender<Arc<Settings>>) -> Worker {
        let clock = Clock::new();
        let kept = setup.keeper.load();
        let alerts: Vec<_> = kept.alerts.into_values().map(Alert::from).collect();
        let firing = alerts.iter().filter(|alert| alert.phase == Phase::Firing);
        let firing = firing.map(|alert| alert.condition.key.clone()).collect();
        let silences = kept.silences.into_values().map(Silence::from);
        let settings = Arc::<Settings>::default();
        let now = clock.now();
        let mut engine = Engine::new(settings.pace.clone(), alerts, silences, now);
        // Until settings are read, there is nobody to tell.
        engine.set_audience(now, |_| false);
        Worker {
            setup,
            clock,
            engine,
            settings,
            published,
            firing,
            stamp: None,
            wrong: None,
            couriers: BTreeMap::new(),
            alive: None,
            changes: BTreeMap::new(),
            reports: Vec::new(),
            handed: Vec::new(),
        }
    }

    async fn run(mut self, mut inbox: mpsc::Receiver<Ask>) {
        self.read_settings().await;
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.drain().await;
            let wake = self.engine.poll_timeout(self.clock.now());
            let wake = wake.map(|at| Instant::now() + self.clock.until(at));
            let sleep = async {
                match wake {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                ask = inbox.recv() => match ask {
                    Some(ask) => self.take(ask),
                    None => return,
                },
                () = sleep => self.engine.handle_timeout(self.clock.now()),
                _ = look.tick() => self.look().await,
            }
        }
    }

    fn take(&mut self, ask: Ask) {
        let now = self.clock.now();
        match ask {
            Ask::Set { source, seen, explained } => self.set(source, seen, &*explained),
            Ask::List(reply) => drop(reply.send(self.list(now))),
            Ask::Ack { name, by, note, reply } => {
                reply.send(self.ack(now, &name, &by, &note)).ok();
            }
            Ask::Silence(silence, reply) => drop(reply.send(self.silence(now, silence))),
            Ask::Unsilence(id, reply) => {
                let known = self.engine.unsilence(now, &id);
                let unknown = || AskError::Unknown { what: "silence", name: id.clone() };
                let result = known.then_some(()).ok_or_else(unknown);
                self.change(Change::Silence(id, None));
                reply.send(result).ok();
            }
            Ask::Test(name, reply) => self.test(name, reply),
            Ask::Report(message, reply) => self.report(*message, reply),
        }
    }

    fn report(&mut self, message: Message, reply: Reply<Result<usize, AskError>>) {
        if let Some(wrong) = self.wrong.clone().filter(|_| self.couriers.is_empty()) {
            return drop(reply.send(Err(AskError::Settings(wrong))));
        }
        let kind = message.report.as_ref().map_or("", |report| report.kind.as_str());
        let couriers = self.couriers.values().map(|(courier, _)| courier);
        let wanted = couriers.filter(|courier| courier.way.has_reports(kind));
        let before = self.reports.len();
        self.reports.extend(wanted.map(|courier| (courier.clone(), message.clone())));
        self.handed.push((self.reports.len() - before, reply));
    }

    fn set(
        &mut self,
        source: &'static str,
        seen: Vec<Seen>,
        explained: &dyn Fn(&Condition) -> Option<String>,
    ) {
        let conditions = seen.into_iter().filter_map(|seen| self.settings.condition(seen));
        let conditions = conditions.collect();
        self.engine.set(self.clock.now(), source, conditions, explained);
    }

    fn list(&self, now: Time) -> Overview {
        let alerts = self.engine.alerts().map(|alert| self.asked(now, alert)).collect();
        let silences = self.engine.silences().iter().map(SilenceRow::from).collect();
        let channel = |(name, (courier, _)): (&String, &(Arc<Courier>, JoinHandle<()>))| {
            let health = courier.health();
            ChannelInfo {
                name: name.clone(),
                kind: courier.way.channel.kind().into(),
                waiting: courier.outbox.count().0,
                sent: health.sent,
                refused: health.refused,
                failing_ms: health.failing.map_or(0, to_ms),
                error: health.error.clone(),
            }
        };
        let channels = self.couriers.iter().map(channel).collect();
        Overview { alerts, silences, channels }
    }

    fn asked(&self, now: Time, alert: &Alert) -> AlertInfo {
        let Condition { key, kind, group, severity, labels, summary, cause, .. } =
            alert.condition.clone();
        let silence = self.engine.silences().covering(now, alert);
        AlertInfo {
            id: short(&key),
            severity: word(severity).into(),
            state: match alert.phase {
                Phase::Pending => "pending",
                Phase::Firing => "firing",
                Phase::Over => "over",
            }
            .into(),
            help: Rule::of(&kind).map_or("", |rule| rule.help).into(),
            key,
            kind,
            group,
            labels,
            summary,
            began_ms: to_ms(alert.began),
            fired_ms: alert.fired.map_or(0, to_ms),
            ended_ms: alert.ended.map_or(0, to_ms),
            told_ms: alert.told.map_or(0, to_ms),
            flapping: alert.is_flapping(now, self.settings.pace.damp),
            inhibited_by: cause.filter(|_| alert.is_inhibited()),
            silenced_by: silence.map(|silence| silence.id.clone()),
            acked_by: alert.ack.as_ref().map(|ack| ack.by.clone()),
            note: alert.ack.as_ref().map_or_else(String::new, |ack| ack.note.clone()),
        }
    }

    fn ack(&mut self, now: Time, name: &str, by: &str, note: &str) -> Result<AlertInfo, AskError> {
        let unknown = || AskError::Unknown { what: "alert", name: name.into() };
        let meant = |key: &str| key == name || name.len() >= 4 && short(key).starts_with(name);
        let found = self.engine.alerts().map(|a| &a.condition.key).find(|key| meant(key));
        let key = found.ok_or_else(unknown)?.clone();
        self.engine.ack(now, &key, by, note).map_err(|error| match error {
            AckError::Unknown => unknown(),
            AckError::Over => AskError::Over(key.clone()),
        })?;
        let alert = self.engine.alert(&key).ok_or_else(unknown)?;
        Ok(self.asked(now, alert))
    }

    fn silence(&mut self, now: Time, mut row: SilenceRow) -> Result<SilenceRow, AskError> {
        let text = serde_json::to_string(&row).unwrap_or_default();
        row.id = short(&format!("{text}{}", now.0.as_nanos()));
        if !self.engine.silence(now, row.clone().into()) {
            return Err(AskError::Full);
        }
        self.change(Change::Silence(row.id.clone(), Some(Box::new(row.clone()))));
        Ok(row)
    }

    fn test(&self, name: String, reply: Reply<Result<(), AskError>>) {
        let Some(courier) = self.couriers.get(&name).map(|(courier, _)| courier.clone()) else {
            let unknown = AskError::Unknown { what: "channel", name };
            return drop(reply.send(Err(unknown)));
        };
        let at_ms = to_ms(self.clock.now());
        let message = Message::plain(&self.setup.from, "test", "this is a test", at_ms);
        tokio::spawn(async move {
            let sent = courier.send(&message).await;
            if sent.is_ok() {
                courier.again.notify_one();
            }
            let failed = |error: crate::SendError| {
                let error = error.to_string();
                AskError::Channel { name: courier.name.clone(), error }
            };
            reply.send(sent.map_err(failed)).ok();
        });
    }
}

impl Worker {
    /// Does what the engine wants: first onto the disk for the channels, then to the keeper, so
    /// that what is kept as told is told; and only then out, so that what has been told is kept as
    /// told.
    async fn drain(&mut self) {
        let (mut told, mut events) = (std::mem::take(&mut self.reports), Vec::new());
        while let Some(step) = self.engine.poll_step() {
            match step {
                Step::Tell(notice) => {
                    let at_ms = to_ms(self.clock.now());
                    for (name, (courier, _)) in &self.couriers {
                        let passes = |alert: &Alert| courier.way.filter.passes(name, alert);
                        let (from, most) = (&self.setup.from, self.settings.pace.notice);
                        let message = Message::of(from, &notice, at_ms, most, passes);
                        told.extend(message.map(|message| (courier.clone(), message)));
                    }
                }
                Step::Changed(alert) => {
                    log(&alert, self.settings.has_channels());
                    events.extend(self.event(&alert));
                    let row = Box::new(AlertRow::from(&*alert));
                    self.change(Change::Alert(alert.condition.key, Some(row)));
                }
                Step::Forgotten(key) => {
                    self.firing.remove(&key);
                    self.change(Change::Alert(key, None));
                }
            }
        }
        while let Some(id) = self.engine.poll_ended() {
            self.change(Change::Silence(id, None));
        }
        let handed = std::mem::take(&mut self.handed);
        if told.is_empty() && self.changes.is_empty() {
            return done(handed);
        }
        let (keeper, changes) = (self.setup.keeper.clone(), std::mem::take(&mut self.changes));
        let work = move || {
            let stage = |(courier, message): (Arc<Courier>, Message)| {
                let staged = courier.outbox.stage(message)?;
                Some((courier, staged))
            };
            let staged: Vec<_> = told.into_iter().filter_map(stage).collect();
            let list: Vec<Change> = changes.values().cloned().collect();
            let kept = list.is_empty() || keeper.keep(&list);
            for (courier, message) in staged {
                courier.outbox.release(message);
                courier.more.notify_one();
            }
            if kept { BTreeMap::new() } else { changes }
        };
        self.changes = spawn_blocking(work).await.expect("keeping does not panic");
        done(handed);
        // Last, so that nothing comes between telling and keeping that it was told.
        for event in events {
            // The node takes them; if it has ended, nobody wants to know.
            self.setup.events.send(event).await.ok();
        }
    }

    /// What is to be said of an alert as an event, if it begins to fire or is over.
    fn event(&mut self, alert: &Alert) -> Option<(Kind, String)> {
        let key = &alert.condition.key;
        let fires = match alert.phase {
            Phase::Firing => self.firing.insert(key.clone()).then_some(true),
            Phase::Over => self.firing.remove(key).then_some(false),
            Phase::Pending => None,
        }?;
        Some(event(&alert.condition, fires))
    }

    fn change(&mut self, change: Change) {
        let key = match &change {
            Change::Alert(key, _) => (0, key.clone()),
            Change::Silence(id, _) => (1, id.clone()),
        };
        self.changes.insert(key, change);
    }

    /// What is looked at from time to time.
    async fn look(&mut self) {
        if self.stamp != stamp(&self.path()) {
            self.read_settings().await;
        }
        let failing = self.couriers.values().filter_map(|(courier, _)| failing(courier));
        let mut seen: Vec<Seen> = failing.collect();
        seen.extend(self.wrong.clone().map(|wrong| Seen {
            kind: "alerts-config",
            of: "alerts.toml".into(),
            group: "alerts".into(),
            summary: wrong,
            ..Seen::default()
        }));
        if self.engine.crowded() > 0 {
            let summary = format!("{} conditions have no place", self.engine.crowded());
            let (of, group) = (self.setup.from.node.clone(), "alerts".into());
            seen.push(Seen { kind: "alerts-crowded", of, group, summary, ..Seen::default() });
        }
        self.set(OWN, seen, &|_| None);
        self.sign_of_life();
    }

    fn path(&self) -> PathBuf {
        self.setup.state.join("alerts.toml")
    }

    async fn read_settings(&mut self) {
        let path = self.path();
        self.stamp = stamp(&path);
        let read = spawn_blocking(move || Settings::load(&path)).await;
        match read.expect("reading settings does not panic") {
            Ok(settings) => {
                self.wrong = None;
                self.use_settings(settings);
            }
            Err(error) => {
                let text = chain(&error);
                warn!(error = %text, "the settings of alerts are not valid and not used");
                self.wrong = Some(text);
            }
        }
    }

    /// Takes new settings: channels get new couriers, and what waited goes on waiting.
    fn use_settings(&mut self, settings: Settings) {
        let mut old = std::mem::take(&mut self.couriers);
        for (name, way) in settings.channels.clone() {
            let (outbox, health) = match old.remove(&name) {
                Some((courier, task)) => {
                    task.abort();
                    courier.outbox.set_most(settings.queue);
                    (courier.outbox.clone(), courier.health.clone())
                }
                None => {
                    let dir = self.setup.state.join("alerts").join(&name);
                    (Arc::new(Outbox::open(&dir, settings.queue)), Arc::default())
                }
            };
            let (clock, more, again) = (self.clock, Default::default(), Default::default());
            let courier = Courier { name: name.clone(), way, outbox, health, clock, more, again };
            let courier = Arc::new(courier);
            let task = tokio::spawn(courier.clone().run());
            self.couriers.insert(name, (courier, task));
        }
        old.values().for_each(|(_, task)| task.abort());
        let now = self.clock.now();
        let settings = Arc::new(settings);
        self.engine.set_pace(now, settings.pace.clone());
        let hears = settings.clone();
        self.engine.set_audience(now, move |alert| hears.hears(alert));
        self.published.send_replace(settings.clone());
        self.settings = settings;
    }

    /// Says that this desk is alive, if somebody wants to hear it. One that is not taken is not
    /// tried again: staying away is what it is for.
    fn sign_of_life(&mut self) {
        let Some(deadman) = &self.settings.deadman else { return };
        let due = match &self.alive {
            Some((at, task)) => Instant::now() >= *at + deadman.every && task.is_finished(),
            None => true,
        };
        let Some((courier, _)) = self.couriers.get(&deadman.channel).filter(|_| due) else {
            return;
        };
        let (courier, from) = (courier.clone(), &self.setup.from);
        let message = Message::plain(from, "alive", "barid is alive", to_ms(self.clock.now()));
        let task = tokio::spawn(async move {
            courier.send(&message).await.ok();
        });
        self.alive = Some((Instant::now(), task));
    }
}

/// Tells those who wait for reports that these are on disk.
fn done(handed: Vec<Handed>) {
    handed.into_iter().for_each(|(count, reply)| drop(reply.send(Ok(count))));
}

/// What is wrong with a channel.
fn failing(courier: &Courier) -> Option<Seen> {
    let health = courier.health();
    health.failing?;
    let (name, (waiting, dropped)) = (&courier.name, courier.outbox.count());
    let dropped = match dropped {
        0 => String::new(),
        n => format!(", {n} were dropped"),
    };
    Some(Seen {
        kind: "channel-failing",
        of: name.clone(),
        group: "alerts".into(),
        labels: BTreeMap::from([("channel".into(), name.clone())]),
        summary: format!(
            "channel {name} takes no alerts ({waiting} wait{dropped}): {}",
            health.error
        ),
        ..Seen::default()
    })
}

/// An alert as an event: the words of its cause, which no report takes for another trouble.
fn event(condition: &Condition, fires: bool) -> (Kind, String) {
    let class = match condition.kind.as_str() {
        "host-lost" => Class::Down,
        "relay-lost" | "below-lost" | "parent-lost" => Class::Relay,
        "disk-low" => Class::Space,
        _ => Class::Controller,
    };
    let subject = match (condition.kind.as_str(), fires) {
        ("channel-failing", true) => "alert.channel-failed",
        (_, true) => "alert.firing",
        (_, false) => "alert.resolved",
    };
    let severity = match condition.severity {
        _ if !fires => mesh::Severity::Info,
        Severity::Info => mesh::Severity::Info,
        Severity::Warning => mesh::Severity::Warning,
        Severity::Critical => mesh::Severity::Error,
    };
    let text = format!("{}: {}", condition.kind, condition.summary);
    (Kind { subject, severity, class }, text)
}

fn stamp(path: &std::path::Path) -> Stamp {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len()))
}

/// `audience`: whether anybody else is told.
fn log(alert: &Alert, audience: bool) {
    let (key, summary) = (&alert.condition.key, &alert.condition.summary);
    match alert.phase {
        Phase::Firing if alert.told.is_none() => warn!(key, summary, "alert"),
        Phase::Over if alert.told.is_some() || !audience && alert.fired.is_some() => {
            info!(key, summary, "alert over");
        }
        _ => {}
    }
}

fn chain(error: &SettingsError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
