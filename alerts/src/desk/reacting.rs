//! Doing something about an alert that begins to fire: not too often, noted before it is done, and
//! told as an event whatever it comes to.
//!
//! A reaction that was noted and not begun when the process died is not made up for: what acts by
//! itself should rather do too little. Nothing is done for an alert that is silenced, since
//! somebody works there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use mesh::alerts::Alert;
use mesh::{Class, Kind, Severity, Time};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;
use tracing::{info, warn};

use super::reacted::{One, Past, short};
use super::worker::Worker;
use crate::clock::{Clock, to_ms};
use crate::disk;
use crate::info::{Reacted, ReactionInfo};
use crate::message::{Message, word};
use crate::reactions::{Action, Reaction, Wanted};

/// When each reaction has begun lately, in unix milliseconds, and what is still being done.
pub(super) struct Reacting {
    path: PathBuf,
    begun: BTreeMap<String, Vec<u64>>,
    pub(super) past: Past,
    tasks: BTreeMap<String, JoinHandle<()>>,
}

const BEGUN: Kind =
    Kind { subject: "alert.reaction", severity: Severity::Info, class: Class::Controller };
const HELD: Kind =
    Kind { subject: "alert.reaction-held", severity: Severity::Warning, class: Class::Controller };
const FAILED: Kind = Kind {
    subject: "alert.reaction-failed",
    severity: Severity::Warning,
    class: Class::Controller,
};

impl Reacting {
    /// What is known of an earlier process. Blocks.
    pub(super) fn open(path: PathBuf) -> Reacting {
        let begun = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                warn!(path = %path.display(), %error, "how often was reacted lately is not known");
                BTreeMap::new()
            }),
            Err(_) => BTreeMap::new(),
        };
        let past = Past::open(path.with_file_name("reacted.json"));
        Reacting { path, begun, past, tasks: BTreeMap::new() }
    }

    fn goes_on(&self, name: &str) -> bool {
        self.tasks.get(name).is_some_and(|task| !task.is_finished())
    }

    /// Why a reaction is not to be done now, if it is not. What lies in the future was noted by a
    /// wrong clock, and counts as if it were now: once its time is over the reaction goes on.
    fn held(&mut self, reaction: &Reaction, now_ms: u64) -> Option<String> {
        if self.goes_on(&reaction.name) {
            return Some("the last one still goes on".into());
        }
        let per_ms = u64::try_from(reaction.per.as_millis()).unwrap_or(u64::MAX);
        let begun = self.begun.entry(reaction.name.clone()).or_default();
        begun.iter_mut().for_each(|at| *at = (*at).min(now_ms));
        begun.retain(|at| now_ms - at < per_ms);
        let (count, per) = (begun.len(), reaction.per.as_secs());
        (count >= reaction.most).then(|| format!("{count} times in {per} s are enough"))
    }

    /// Notes that a reaction begins, on disk.
    async fn note(&mut self, name: &str, now_ms: u64) -> Result<(), String> {
        self.begun.entry(name.to_owned()).or_default().push(now_ms);
        let (path, bytes) = (self.path.clone(), serde_json::to_vec(&self.begun));
        let bytes = bytes.expect("names and numbers are valid JSON");
        let kept = spawn_blocking(move || disk::replace(&path, &bytes)).await;
        kept.expect("keeping does not panic").map_err(|error| format!("it is not noted: {error}"))
    }
}

impl Worker {
    /// What is declared, and what has come of it.
    pub(super) fn reactions(&self, now: Time) -> Vec<ReactionInfo> {
        let now_ms = to_ms(now);
        let names = |names: &BTreeSet<String>| names.iter().cloned().collect();
        let one = |reaction: &Reaction| {
            let name = &reaction.name;
            let per_ms = u64::try_from(reaction.per.as_millis()).unwrap_or(u64::MAX);
            let begun = self.reacting.begun.get(name).map_or(&[][..], Vec::as_slice);
            let lately = |at: &&u64| now_ms.saturating_sub(**at) < per_ms;
            let One { last, held, held_count } = self.reacting.past.of(name);
            ReactionInfo {
                name: name.clone(),
                kinds: names(&reaction.kinds),
                sites: names(&reaction.sites),
                severity: word(reaction.severity).into(),
                does: reaction.action.line(),
                most: reaction.most as u64,
                per_s: reaction.per.as_secs(),
                begun: begun.iter().filter(lately).count() as u64,
                begun_ms: begun.last().copied().unwrap_or(0),
                goes_on: self.reacting.goes_on(name),
                last,
                held_count,
                held,
            }
        };
        self.settings.reactions.iter().map(one).collect()
    }

    /// Does what is to be done for an alert that has begun to fire.
    pub(super) async fn react(&mut self, alert: &Alert) {
        let settings = self.settings.clone();
        let now = self.clock.now();
        for reaction in settings.reactions.iter().filter(|reaction| reaction.is_for(alert)) {
            let (name, key) = (&reaction.name, &alert.condition.key);
            let silence = self.engine.silences().covering(now, alert);
            let held = match silence {
                Some(silence) => Some(format!("silenced by {}", silence.author)),
                None => self.reacting.held(reaction, to_ms(now)),
            };
            if let Some(why) = held {
                info!(name, key, why, "no reaction");
                self.reacting.past.held(name, told("held", to_ms(now), key, &why)).await;
                let text = format!("reaction {name} to {key} is held: {why}");
                self.setup.events.send((HELD, text)).await.ok();
                continue;
            }
            if let Err(why) = self.reacting.note(name, to_ms(now)).await {
                self.reacting.past.ended(name, told("failed", to_ms(now), key, &why)).await;
                self.setup.events.send((FAILED, failed(name, key, &why))).await.ok();
                continue;
            }
            info!(name, key, "reaction");
            let work = Work {
                reaction: reaction.clone(),
                message: Message::firing(&self.setup.from, alert, to_ms(now)),
                host: alert.condition.labels.get("host").cloned(),
                key: key.clone(),
                past: self.reacting.past.clone(),
                clock: self.clock,
                acts: self.setup.acts.clone(),
                events: self.setup.events.clone(),
            };
            self.reacting.tasks.insert(name.clone(), tokio::spawn(work.run()));
        }
    }
}

fn told(state: &str, at_ms: u64, alert: &str, text: &str) -> Reacted {
    Reacted { state: state.into(), at_ms, alert: short(alert), text: short(text) }
}

fn failed(name: &str, key: &str, why: &str) -> String {
    warn!(name, key, why, "the reaction failed");
    format!("reaction {name} to {key} failed: {why}")
}

/// A reaction that is being done.
struct Work {
    reaction: Reaction,
    message: Message,
    host: Option<String>,
    key: String,
    past: Past,
    clock: Clock,
    acts: mpsc::Sender<Wanted>,
    events: mpsc::Sender<(Kind, String)>,
}

impl Work {
    async fn run(self) {
        let (name, key) = (&self.reaction.name, &self.key);
        // What gives an order has its own time beside it.
        let within = self.reaction.timeout + Duration::from_secs(30);
        let done = match timeout(within, self.act()).await {
            Ok(done) => done,
            Err(_) => Err(format!("it took longer than {} s", within.as_secs())),
        };
        let at_ms = to_ms(self.clock.now());
        let what = match &done {
            Ok(text) => told("done", at_ms, key, text),
            Err(text) => told("failed", at_ms, key, text),
        };
        self.past.ended(name, what).await;
        let event = match done {
            Ok(done) => (BEGUN, format!("reaction {name} to {key}: {done}")),
            Err(why) => (FAILED, failed(name, key, &why)),
        };
        self.events.send(event).await.ok();
    }

    async fn act(&self) -> Result<String, String> {
        match &self.reaction.action {
            Action::Command(channel) => {
                let sent = timeout(self.reaction.timeout, channel.send(&self.message)).await;
                let limit = self.reaction.timeout.as_secs();
                let sent = sent.map_err(|_| format!("it did not end within {limit} s"))?;
                sent.map(|()| "its command has ended well".into())
                    .map_err(|error| error.to_string())
            }
            Action::Act(act) => {
                let told = serde_json::to_vec(&self.message).expect("a message is plain data");
                let (reply, done) = oneshot::channel();
                let (act, host) = (act.clone(), self.host.clone());
                let wanted = Wanted { act, told: told.into(), host, reply };
                let gone = "nobody does it here";
                self.acts.send(wanted).await.map_err(|_| gone)?;
                done.await.map_err(|_| gone)?
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reactions::checked;

    #[derive(serde::Deserialize)]
    struct File {
        reaction: Vec<toml::Spanned<crate::reactions::Entry>>,
    }

    fn reaction() -> Reaction {
        let text = "[[reaction]]\nname = 'a'\nkinds = ['host-lost']\nmost = 2\nper_s = 10\n\
                    publish.subject = 'x'\n";
        let file: File = toml::from_str(text).expect("it is TOML");
        checked(file.reaction, |_| 1).expect("it is valid").remove(0)
    }

    #[tokio::test]
    async fn what_was_done_often_enough_is_held_also_over_a_restart_and_by_a_wrong_clock() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("alerts").join("reactions.json");
        let (reaction, mut reacting) = (reaction(), Reacting::open(path.clone()));
        for now in [1_000_000, 1_004_000] {
            assert_eq!(reacting.held(&reaction, now), None);
            reacting.note("a", now).await.expect("it is noted");
        }
        let mut reacting = Reacting::open(path.clone());
        let held = reacting.held(&reaction, 1_009_999);
        assert_eq!(held.as_deref(), Some("2 times in 10 s are enough"));
        assert_eq!(reacting.held(&reaction, 1_010_000), None, "the first is long ago");
        let mut reacting = Reacting::open(path.clone());
        assert!(reacting.held(&reaction, 500_000).is_some(), "a clock that was put back");
        assert!(reacting.held(&reaction, 509_999).is_some());
        assert_eq!(reacting.held(&reaction, 510_000), None, "and not for ever");
        reacting.tasks.insert("a".into(), tokio::spawn(std::future::pending()));
        let held = reacting.held(&reaction, 9_000_000);
        assert_eq!(held.as_deref(), Some("the last one still goes on"));
        // What cannot be noted is not done.
        std::fs::remove_dir_all(dir.path().join("alerts")).expect("removed");
        std::fs::write(dir.path().join("alerts"), "no folder").expect("written");
        assert!(reacting.note("a", 1).await.is_err());
    }
}
