//! Events handed on to other programs by the channels that have them, in the order of their
//! cursors.
//!
//! How far each channel is, is on disk, and moves once it has taken what it was given: so a
//! receiver that was away, and a controller that was, go on where they stopped, and what was under
//! way comes again. Each channel has a task of its own, so that one which hangs holds up no other.
//! A channel that takes nothing is an alert.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use alerts::{Batch, Exported, Seen, Sender};
use mesh::Severity;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::events::{info as event_info, is_below};
use crate::fault::Failure;
use crate::live::Live;
use crate::orders::blocking;
use crate::tables::Tables;
use crate::tables::events::EventRow;

/// How often it is looked which channels there are, and how they do.
const LOOK: Duration = Duration::from_secs(2);
/// Events that are handed over at once, and how long their lines may be together.
const AT_ONCE: usize = 256;
const BYTES: usize = 1 << 20;
/// The longest pause between two tries.
const CAP: Duration = Duration::from_secs(60);

/// What hands them on.
#[derive(Clone)]
pub(crate) struct Export {
    desk: alerts::Desk,
    from: Sender,
    live: Live,
    tables: Tables,
    /// What is wrong with channels that take nothing.
    failing: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Export {
    pub(crate) fn new(desk: alerts::Desk, from: Sender, live: Live, tables: Tables) -> Export {
        Export { desk, from, live, tables, failing: Arc::default() }
    }

    /// Hands on what there is and what comes, until the runtime ends.
    pub(crate) async fn run(self) {
        let mut at_work = BTreeMap::<String, JoinHandle<()>>::new();
        loop {
            let wanted = self.desk.settings().exports();
            at_work.retain(|name, task| {
                let stays = wanted.contains_key(name);
                if !stays {
                    task.abort();
                    self.failing().remove(name);
                }
                stays
            });
            for name in wanted.into_keys() {
                let (export, channel) = (self.clone(), name.clone());
                at_work.entry(name).or_insert_with(|| tokio::spawn(export.pass(channel)));
            }
            let seen = self.failing().iter().map(|(name, error)| seen(name, error)).collect();
            self.desk.set("export", seen, |_| None).await;
            tokio::time::sleep(LOOK).await;
        }
    }

    fn failing(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands on by one channel.
    async fn pass(self, channel: String) {
        let mut grown = self.live.events.subscribe();
        let mut tries = 0;
        loop {
            grown.borrow_and_update();
            match self.step(&channel).await {
                Ok(more) => {
                    tries = 0;
                    if self.failing().remove(&channel).is_some() {
                        info!(channel, "events go out again");
                    }
                    if !more && grown.changed().await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    if self.failing().insert(channel.clone(), error.clone()).is_none() {
                        warn!(channel, error, "events are not taken");
                    }
                    tries += 1;
                    tokio::time::sleep(Duration::from_secs(1 << tries.min(6)).min(CAP) / 2).await;
                }
            }
        }
    }

    /// Hands on what comes next. Whether there may be more.
    async fn step(&self, channel: &str) -> Result<bool, String> {
        let failed = |failure: Failure| failure.error.message;
        let (tables, name) = (self.tables.clone(), channel.to_owned());
        let rows = blocking(move || {
            let after = tables.exported(&name)?;
            Ok(tables.events(after, AT_ONCE)?)
        });
        let mut rows = rows.await.map_err(failed)?;
        let settings = self.desk.settings();
        let wanted = settings.exports().remove(channel).unwrap_or_default();
        let mut batch = Batch { from: self.from.clone(), ..Batch::default() };
        let (mut bytes, mut fit) = (0, 0);
        let hosts = self.live.state().hosts.clone();
        for row in &rows {
            let subject = &row.folded.fact.subject;
            if wanted.iter().any(|pattern| is_below(subject, pattern)) {
                let json = serde_json::to_string(&event_info(row, &hosts));
                let json = json.expect("an event is plain data");
                bytes += json.len();
                if bytes > BYTES && !batch.events.is_empty() {
                    break;
                }
                batch.events.push(exported(row, json));
            }
            fit += 1;
        }
        rows.truncate(fit);
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(false) };
        if !batch.events.is_empty() {
            batch.key = format!("events-{}-{}", first.cursor, last.cursor);
            let sent = settings.export(channel, &batch).await;
            sent.map_err(|error| error.to_string())?;
        }
        let (tables, name, cursor) = (self.tables.clone(), channel.to_owned(), last.cursor);
        blocking(move || Ok(tables.note_exported(&name, cursor)?)).await.map_err(failed)?;
        Ok(true)
    }
}

fn exported(row: &EventRow, json: String) -> Exported {
    let level = match row.folded.fact.severity {
        Severity::Info => 6,
        Severity::Warning => 4,
        Severity::Error => 3,
    };
    Exported { at_ms: row.heard_last_ms, level, json }
}

fn seen(name: &str, error: &str) -> Seen {
    Seen {
        kind: "channel-failing",
        of: format!("{name}.events"),
        group: "alerts".into(),
        labels: BTreeMap::from([("channel".into(), name.into())]),
        summary: format!("channel {name} takes no events: {error}"),
        ..Seen::default()
    }
}
