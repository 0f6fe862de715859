//! Silences: operators ask not to be told of some alerts for a while.
//!
//! A silence that begins later is a maintenance window. It hides nothing: the alerts are there,
//! they are only not told, and what still fires at its end is told then.

use std::collections::{BTreeMap, BTreeSet};

use crate::Time;

use super::Alert;

/// Who is not told of what, until when, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silence {
    /// Its name.
    pub id: String,
    /// For each of these labels one of the values must be the alert's. The kind of an alert counts
    /// as its label `kind`. Without any, every alert is meant.
    pub labels: BTreeMap<String, BTreeSet<String>>,
    /// From when on.
    pub from: Time,
    /// Until when.
    pub until: Time,
    /// Who has asked for it.
    pub author: String,
    /// Why.
    pub reason: String,
}

impl Silence {
    /// Whether this alert is meant.
    pub fn covers(&self, alert: &Alert) -> bool {
        self.labels.iter().all(|(label, values)| {
            let value = match label.as_str() {
                "kind" => Some(&alert.condition.kind),
                label => alert.condition.labels.get(label),
            };
            value.is_some_and(|value| values.contains(value))
        })
    }

    fn lasts(&self, now: Time) -> bool {
        self.from <= now && now < self.until
    }
}

/// All silences that have not ended.
#[derive(Clone, Debug, Default)]
pub struct Silences(BTreeMap<String, Silence>);

/// How many there may be.
const MOST: usize = 1_000;

impl Silences {
    /// Takes one. `false`: there are too many.
    pub fn add(&mut self, silence: Silence) -> bool {
        let room = self.0.len() < MOST || self.0.contains_key(&silence.id);
        if room {
            self.0.insert(silence.id.clone(), silence);
        }
        room
    }

    /// Ends one. Returns it, if there was such a one.
    pub fn remove(&mut self, id: &str) -> Option<Silence> {
        self.0.remove(id)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Silence> {
        self.0.values()
    }

    /// Those that have ended, which are dropped.
    pub fn take_ended(&mut self, now: Time) -> Vec<String> {
        let ended: Vec<_> = self.0.extract_if(.., |_, silence| silence.until <= now).collect();
        ended.into_iter().map(|(id, _)| id).collect()
    }

    /// The silence that covers an alert now and lasts longest.
    pub fn covering(&self, now: Time, alert: &Alert) -> Option<&Silence> {
        let covers = |silence: &&Silence| silence.lasts(now) && silence.covers(alert);
        self.0.values().filter(covers).max_by_key(|silence| silence.until)
    }
}
