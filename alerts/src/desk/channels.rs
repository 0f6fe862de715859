//! The channels of the desk: settings are read when they have changed, and what is wrong with
//! either is an alert of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use mesh::alerts::OWN;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tracing::warn;

use super::worker::Worker;
use crate::clock::to_ms;
use crate::courier::Courier;
use crate::message::Message;
use crate::outbox::Outbox;
use crate::rules::Seen;
use crate::settings::{Settings, SettingsError};

/// What tells whether a file has changed.
pub(super) type Stamp = Option<(SystemTime, u64)>;

impl Worker {
    /// What is looked at from time to time.
    pub(super) async fn look(&mut self) {
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

    pub(super) async fn read_settings(&mut self) {
        let path = self.path();
        self.stamp = stamp(&path);
        let read = spawn_blocking(move || Settings::load(&path)).await;
        match read.expect("reading settings does not panic") {
            Ok(settings) => match settings.unfit(self.setup.orders) {
                Some(what) => self.refuse(format!("{}: {what}", self.path().display())),
                None => {
                    self.wrong = None;
                    self.use_settings(settings);
                }
            },
            Err(error) => self.refuse(chain(&error)),
        }
    }

    fn refuse(&mut self, text: String) {
        warn!(error = %text, "the settings of alerts are not valid and not used");
        self.wrong = Some(text);
    }

    /// Takes new settings: channels get new couriers, and what waited goes on waiting.
    fn use_settings(&mut self, settings: Settings) {
        let is_declared = |name: &str| settings.reactions.iter().any(|one| one.name == name);
        self.reacting.past.retain(is_declared);
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

fn stamp(path: &Path) -> Stamp {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len()))
}

fn chain(error: &SettingsError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
