//! Changes to who gets what nobody has to get: optional entries, and who has subscribed to them.
//!
//! Operators subscribe any host. A host subscribes itself only to what its domains offer, and
//! takes back only what it has wished itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Done, Effect, Refusal};
use crate::fleet::book::{Book, Entry, Wish};
use crate::fleet::domain::DomainPath;

/// The most subscriptions to one entry.
const SUBSCRIBERS: usize = 100_000;

impl Book {
    /// Lets an entry go only to whoever subscribes, or to everybody in its domain again. Who has
    /// subscribed is forgotten then.
    pub(crate) fn set_optional(&mut self, path: &DomainPath, optional: bool) -> Done {
        let entry = self.entry(path)?;
        if entry.subscribers.is_some() != optional {
            let subscribers = optional.then(BTreeMap::new);
            self.set_subscribers(path, subscribers)?;
        }
        Ok(Effect::default())
    }

    pub(crate) fn subscribe(&mut self, name: &str, path: &DomainPath, wish: Wish) -> Done {
        let host = self.host(name).ok_or_else(|| Refusal::UnknownHost(name.into()))?.to_owned();
        let mut subscribers = self.subscribers(path)?.clone();
        if subscribers.len() >= SUBSCRIBERS {
            let what = format!("has {SUBSCRIBERS} subscribers already");
            return Err(Refusal::Entry { path: path.clone(), what });
        }
        // What operators have given a host does not become less by its own wish.
        let stands = subscribers.get(&host) == Some(&Wish::Operator);
        if !stands && subscribers.insert(host, wish) != Some(wish) {
            self.set_subscribers(path, Some(subscribers))?;
        }
        Ok(Effect::default())
    }

    pub(crate) fn unsubscribe(&mut self, name: &str, path: &DomainPath, wish: Wish) -> Done {
        let host = self.host(name).ok_or_else(|| Refusal::UnknownHost(name.into()))?.to_owned();
        let mut subscribers = self.subscribers(path)?.clone();
        let wrong = |what: &str| {
            let what = format!("{host} {what}");
            Refusal::Entry { path: path.clone(), what }
        };
        match (subscribers.get(&host), wish) {
            (None, _) => return Err(wrong("has not subscribed")),
            (Some(Wish::Operator), Wish::Host) => {
                return Err(wrong("was subscribed by an operator, who alone can end it"));
            }
            (Some(_), _) => drop(subscribers.remove(&host)),
        }
        self.set_subscribers(path, Some(subscribers))?;
        Ok(Effect::default())
    }

    /// Hosts that are not recorded any more have no subscriptions.
    pub(super) fn drop_strangers(&mut self) {
        let hosts = self.hosts.clone();
        let is_gone = |entry: &Entry| {
            let mut names = entry.subscribers.iter().flat_map(BTreeMap::keys);
            names.any(|name| !hosts.contains_key(name))
        };
        if !self.entries.values().any(|entry| is_gone(entry)) {
            return;
        }
        let entries = Arc::make_mut(&mut self.entries).values_mut();
        for entry in entries.filter(|entry| is_gone(entry)) {
            if let Some(subscribers) = &mut Arc::make_mut(entry).subscribers {
                subscribers.retain(|name, _| hosts.contains_key(name));
            }
        }
    }

    fn subscribers(&self, path: &DomainPath) -> Result<&BTreeMap<String, Wish>, Refusal> {
        let what = "is not optional: whoever is in its domain gets it, and nobody else";
        let wrong = || Refusal::Entry { path: path.clone(), what: what.into() };
        self.entry(path)?.subscribers.as_ref().ok_or_else(wrong)
    }

    fn set_subscribers(
        &mut self,
        path: &DomainPath,
        subscribers: Option<BTreeMap<String, Wish>>,
    ) -> Result<(), Refusal> {
        let entry = Entry { subscribers, ..(**self.entry(path)?).clone() };
        Arc::make_mut(&mut self.entries).insert(path.clone(), Arc::new(entry));
        Ok(())
    }
}
