//! What each reaction has come to lately, for operators who ask.
//!
//! What has ended is on disk, so that a restart forgets nothing of it. What cannot be written is
//! known until then all the same: the event of it is the record that lasts.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use tracing::warn;

use crate::disk;
use crate::info::Reacted;

/// How much of what a reaction has come to is kept.
const TEXT: usize = 500;

/// Of each reaction, by its name.
#[derive(Clone)]
pub(super) struct Past {
    path: PathBuf,
    known: Arc<Mutex<BTreeMap<String, One>>>,
    /// Held from a change until it is written, so that the newest is what stays.
    writing: Arc<Mutex<()>>,
}

/// Of one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct One {
    /// What it has come to last.
    pub(super) last: Option<Reacted>,
    /// Why it was last held, and how often since it was first declared.
    pub(super) held: Option<Reacted>,
    pub(super) held_count: u64,
}

impl Past {
    /// What is known of an earlier process. Blocks.
    pub(super) fn open(path: PathBuf) -> Past {
        let known = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                warn!(path = %path.display(), %error, "what reactions have come to is not known");
                BTreeMap::new()
            }),
            Err(_) => BTreeMap::new(),
        };
        Past { path, known: Arc::new(Mutex::new(known)), writing: Arc::default() }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, One>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn of(&self, name: &str) -> One {
        self.known().get(name).cloned().unwrap_or_default()
    }

    /// These are declared; of others nothing more is known.
    pub(super) fn retain(&self, is_declared: impl Fn(&str) -> bool) {
        self.known().retain(|name, _| is_declared(name));
    }

    /// A reaction has come to something.
    pub(super) async fn ended(&self, name: &str, what: Reacted) {
        self.change(name, |one| one.last = Some(what)).await;
    }

    /// A reaction was held.
    pub(super) async fn held(&self, name: &str, what: Reacted) {
        let change = |one: &mut One| {
            (one.held, one.held_count) = (Some(what), one.held_count + 1);
        };
        self.change(name, change).await;
    }

    async fn change(&self, name: &str, change: impl FnOnce(&mut One) + Send + 'static) {
        let (past, name) = (self.clone(), name.to_owned());
        let noted = spawn_blocking(move || past.note(&name, change)).await;
        noted.expect("keeping does not panic");
    }

    /// Blocks.
    fn note(&self, name: &str, change: impl FnOnce(&mut One)) {
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = {
            let mut known = self.known();
            change(known.entry(name.to_owned()).or_default());
            serde_json::to_vec(&*known).expect("names and texts are valid JSON")
        };
        if let Err(error) = disk::replace(&self.path, &bytes) {
            warn!(path = %self.path.display(), %error, "what a reaction has come to is not kept");
        }
    }
}

/// A text that is short.
pub(super) fn short(text: &str) -> String {
    text.chars().take(TEXT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_reaction_has_come_to_outlives_a_restart() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("alerts").join("reacted.json");
        let what = |state: &str, at_ms| {
            let (alert, text) = ("host-lost/web1".to_owned(), short(&"x".repeat(TEXT + 1)));
            Reacted { state: state.into(), at_ms, alert, text }
        };
        let past = Past::open(path.clone());
        past.ended("a", what("done", 1)).await;
        past.held("a", what("held", 2)).await;
        past.held("a", what("held", 3)).await;
        past.ended("b", what("failed", 4)).await;
        let past = Past::open(path.clone());
        let (last, held) = (Some(what("done", 1)), Some(what("held", 3)));
        assert_eq!(past.of("a"), One { last, held, held_count: 2 });
        past.retain(|name| name != "b");
        assert_eq!((past.of("b"), past.of("a").held_count), (One::default(), 2));
        std::fs::write(&path, "no JSON").expect("written");
        assert_eq!(Past::open(path).of("a"), One::default(), "and the desk goes on");
    }
}
