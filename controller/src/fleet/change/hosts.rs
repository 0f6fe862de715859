//! Changes to the records of hosts: one by one, or all of them from their text form.
//!
//! Whether a host has enrolled is not recorded here, and nobody loses a key by a change.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Done, Effect, Refusal, shortened};
use crate::fleet::book::Book;
use crate::fleet::domain::Domain;
use crate::fleet::hostdata::{self, Record, UNKNOWN, is_place_holder};
use crate::fleet::levels::Levels;

/// What is changed about a host.
#[derive(Default)]
pub(crate) struct HostEdit {
    pub(crate) ip: Option<String>,
    pub(crate) ether: Option<String>,
    pub(crate) aliases: Option<Vec<String>>,
    pub(crate) relay: Option<String>,
    pub(crate) domains: Option<Vec<Domain>>,
}

impl Book {
    pub(crate) fn import_hosts(&mut self, text: &str, force: bool) -> Done {
        let records = hostdata::read(text, &self.levels)?;
        let mut hosts: BTreeMap<String, Vec<Record>> = BTreeMap::new();
        for record in records {
            hosts.entry(record.name.clone()).or_default().push(record);
        }
        let gone: Vec<String> =
            self.hosts.keys().filter(|name| !hosts.contains_key(*name)).cloned().collect();
        if !gone.is_empty() && !force {
            let (what, names) = ("hosts that are not in the text", shortened(gone));
            return Err(Refusal::WouldGo { what, names });
        }
        let (old, count, gone) = (self.hosts.clone(), hosts.len(), gone.len());
        let kept = |(name, records): (String, Vec<Record>)| match old.get(&name) {
            Some(same) if **same == records => (name, same.clone()),
            _ => (name, Arc::new(records)),
        };
        let hosts: BTreeMap<_, _> = hosts.into_iter().map(kept).collect();
        let same = |(name, new): &(&String, &Arc<Vec<Record>>)| {
            old.get(*name).is_some_and(|old| Arc::ptr_eq(old, new))
        };
        let changed = count - hosts.iter().filter(same).count();
        if changed + gone > 0 {
            self.hosts = Arc::new(hosts);
            self.drop_strangers();
        }
        let notes = vec![format!("{count} hosts: {changed} new or changed, {gone} gone")];
        Ok(Effect { notes, ..Effect::default() })
    }

    /// Changes something about a host, or records it.
    pub(crate) fn set_host(&mut self, name: &str, edit: &HostEdit) -> Done {
        let depth = self.levels.levels.len();
        let records = self.hosts.get(name).map(|records| (**records).clone());
        let mut records = records.unwrap_or_else(|| vec![Record::named(name, depth)]);
        if records.len() > 1 && (edit.ip.is_some() || edit.ether.is_some()) {
            let what = format!("{name}: has {} addresses: import their records", records.len());
            return Err(Refusal::Host(what));
        }
        for record in &mut records {
            let take = |field: &mut String, new: &Option<String>| {
                if let Some(new) = new {
                    field.clone_from(new);
                }
            };
            take(&mut record.ip, &edit.ip);
            take(&mut record.ether, &edit.ether);
            take(&mut record.relay, &edit.relay);
            if let Some(aliases) = &edit.aliases {
                let none = || vec![hostdata::NONE.to_owned()];
                record.aliases = if aliases.is_empty() { none() } else { aliases.clone() };
            }
            if let Some(domains) = &edit.domains {
                place(record, domains, &self.levels);
            }
            hostdata::check(record, &self.levels).map_err(Refusal::Host)?;
        }
        if self.hosts.get(name).is_none_or(|old| **old != records) {
            Arc::make_mut(&mut self.hosts).insert(name.to_owned(), Arc::new(records));
        }
        Ok(Effect::default())
    }

    pub(crate) fn remove_host(&mut self, name: &str) -> Done {
        match Arc::make_mut(&mut self.hosts).remove(name) {
            Some(_) => {
                self.drop_strangers();
                Ok(Effect::default())
            }
            None => Err(Refusal::UnknownHost(name.into())),
        }
    }
}

/// Writes domains into a record.
fn place(record: &mut Record, domains: &[Domain], levels: &Levels) {
    let unknown = || vec![UNKNOWN.to_owned()];
    let word = |domain: &Domain, level: usize| {
        let default = levels.levels[level].default.is_some();
        let none = || if default { hostdata::NONE } else { UNKNOWN }.to_owned();
        domain.words().get(level).cloned().unwrap_or_else(none)
    };
    let column = |level: usize| -> Vec<String> {
        let mut words: Vec<String> = domains.iter().map(|domain| word(domain, level)).collect();
        if words.iter().all(|word| *word == words[0]) && level > 0 {
            words.truncate(1);
        }
        if words.is_empty() { unknown() } else { words }
    };
    let mut columns = (0..levels.levels.len()).map(column);
    record.views = columns.next().unwrap_or_else(unknown);
    record.levels = columns.collect();
    debug_assert!(domains.is_empty() || !is_place_holder(&record.views[0]));
}
