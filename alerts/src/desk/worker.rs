//! What the desk does, one thing at a time: it takes what rules see and operators want, and does
//! what the engine wants.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use mesh::Kind;
use mesh::alerts::{Alert, Condition, Engine, Phase, Silence, Step};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, MissedTickBehavior, sleep_until};
use tracing::warn;

use super::channels::Stamp;
use super::events::{event, log};
use super::reacting::Reacting;
use super::{Ask, AskError, Reply, Setup};
use crate::clock::{Clock, to_ms};
use crate::courier::Courier;
use crate::keep::{AlertRow, Change};
use crate::message::Message;
use crate::outbox;
use crate::rules::Seen;
use crate::settings::Settings;

/// How often it looks whether its settings have changed and how its channels do.
const LOOK: Duration = Duration::from_secs(2);

/// A report that goes out next, by which channels, and who waits to hear that it is on disk for
/// each of them.
struct Handed {
    message: Message,
    couriers: Vec<Arc<Courier>>,
    reply: Reply<Result<usize, AskError>>,
}

/// What is on disk for each channel.
type Staged = Vec<(Arc<Courier>, outbox::Staged)>;

impl Handed {
    /// Puts it on disk for all channels or for none. Blocks.
    fn stage(&self) -> Result<Staged, AskError> {
        let mut staged = Staged::new();
        for courier in &self.couriers {
            match courier.outbox.stage_report(&self.message) {
                Ok(message) => staged.extend(message.map(|message| (courier.clone(), message))),
                Err(error) => {
                    warn!(channel = courier.name, %error, "a report cannot be kept");
                    for (courier, message) in staged {
                        courier.outbox.discard(message);
                    }
                    return Err(AskError::Disk(courier.name.clone()));
                }
            }
        }
        Ok(staged)
    }
}

/// From now on they may be sent.
fn release(staged: Staged) {
    for (courier, message) in staged {
        courier.outbox.release(message);
        courier.more.notify_one();
    }
}

/// The task.
pub(super) struct Worker {
    pub(super) setup: Setup,
    pub(super) clock: Clock,
    pub(super) engine: Engine,
    pub(super) settings: Arc<Settings>,
    pub(super) published: watch::Sender<Arc<Settings>>,
    /// What fires, as the node's events have it.
    firing: BTreeSet<String>,
    pub(super) stamp: Stamp,
    pub(super) wrong: Option<String>,
    pub(super) couriers: BTreeMap<String, (Arc<Courier>, JoinHandle<()>)>,
    pub(super) alive: Option<(Instant, JoinHandle<()>)>,
    /// What is not kept yet, by kind and key.
    changes: BTreeMap<(u8, String), Change>,
    handed: Vec<Handed>,
    pub(super) reacting: Reacting,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.couriers.values().for_each(|(_, task)| task.abort());
    }
}

impl Worker {
    pub(super) fn new(setup: Setup, published: watch::Sender<Arc<Settings>>) -> Worker {
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
        let reacting = Reacting::open(setup.state.join("alerts").join("reactions.json"));
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
            handed: Vec::new(),
            reacting,
        }
    }

    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Ask>) {
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
            Ask::HasReports(kind, reply) => {
                let couriers = self.reported(&kind);
                reply.send(couriers.map(|couriers| !couriers.is_empty())).ok();
            }
            Ask::Report(message, reply) => self.report(*message, reply),
        }
    }

    fn report(&mut self, message: Message, reply: Reply<Result<usize, AskError>>) {
        let kind = message.report.as_ref().map_or("", |report| report.kind.as_str());
        match self.reported(kind) {
            Ok(couriers) => self.handed.push(Handed { message, couriers, reply }),
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    /// The channels that have reports of this kind.
    fn reported(&self, kind: &str) -> Result<Vec<Arc<Courier>>, AskError> {
        if let Some(wrong) = self.wrong.clone().filter(|_| self.couriers.is_empty()) {
            return Err(AskError::Settings(wrong));
        }
        let couriers = self.couriers.values().map(|(courier, _)| courier);
        Ok(couriers.filter(|courier| courier.way.has_reports(kind)).cloned().collect())
    }

    pub(super) fn set(
        &mut self,
        source: &'static str,
        seen: Vec<Seen>,
        explained: &dyn Fn(&Condition) -> Option<String>,
    ) {
        let conditions = seen.into_iter().filter_map(|seen| self.settings.condition(seen));
        let conditions = conditions.collect();
        self.engine.set(self.clock.now(), source, conditions, explained);
    }

    /// Does what the engine wants: first onto the disk for the channels, then to the keeper, so
    /// that what is kept as told is told; and only then out, so that what has been told is kept as
    /// told.
    async fn drain(&mut self) {
        let (mut told, mut events, mut fired) = (Vec::new(), Vec::new(), Vec::new());
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
                    let event = self.event(&alert);
                    if event.is_some() && alert.phase == Phase::Firing {
                        fired.push(alert.clone());
                    }
                    events.extend(event);
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
        if told.is_empty() && handed.is_empty() && self.changes.is_empty() {
            return;
        }
        let (keeper, changes) = (self.setup.keeper.clone(), std::mem::take(&mut self.changes));
        let work = move || {
            let stage = |(courier, message): (Arc<Courier>, Message)| {
                let staged = courier.outbox.stage(message);
                (courier, staged)
            };
            let staged: Staged = told.into_iter().map(stage).collect();
            for handed in handed {
                let kept = handed.stage().map(release);
                handed.reply.send(kept.map(|()| handed.couriers.len())).ok();
            }
            let list: Vec<Change> = changes.values().cloned().collect();
            let kept = list.is_empty() || keeper.keep(&list);
            release(staged);
            if kept { BTreeMap::new() } else { changes }
        };
        self.changes = spawn_blocking(work).await.expect("keeping does not panic");
        // Last, so that nothing comes between telling and keeping that it was told.
        for event in events {
            // The node takes them; if it has ended, nobody wants to know.
            self.setup.events.send(event).await.ok();
        }
        for alert in fired {
            self.react(&alert).await;
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

    pub(super) fn change(&mut self, change: Change) {
        let key = match &change {
            Change::Alert(key, _) => (0, key.clone()),
            Change::Silence(id, _) => (1, id.clone()),
        };
        self.changes.insert(key, change);
    }
}
