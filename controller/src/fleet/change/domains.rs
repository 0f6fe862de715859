//! Changes to domains: making, deleting and cloning them, with what is in them.
//!
//! A domain with contents goes only if it must; its hosts stay, and do not know any more which one
//! they are in. A clone shares all content with what it was cloned from.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Done, Effect, Refusal, shortened};
use crate::fleet::book::{Book, Entry};
use crate::fleet::domain::{Domain, DomainPath, Wild, contained};
use crate::fleet::hostdata::{Record, UNKNOWN};

impl Book {
    pub(crate) fn create_domain(&mut self, domain: &Domain) -> Done {
        Arc::make_mut(&mut self.levels).create(domain)?;
        Ok(Effect::default())
    }

    pub(crate) fn delete_domain(&mut self, domain: &Domain, force: bool) -> Done {
        self.levels.verify(domain, Wild::Off)?;
        let within = |path: &&DomainPath| contained(&path.domain, domain, Wild::Off);
        let files: Vec<DomainPath> = self.entries.keys().filter(within).cloned().collect();
        let below: Vec<String> = self.levels.beneath(domain).map(Domain::to_string).collect();
        let is_in =
            |name: &&String| self.domains(name).iter().any(|own| contained(own, domain, Wild::Off));
        let hosts: Vec<String> = self.hosts.keys().filter(is_in).cloned().collect();
        let is_empty = files.is_empty() && below.is_empty() && hosts.is_empty();
        if !force && !is_empty {
            let hosts = hosts.iter().map(|host| format!("host {host}"));
            let contents = files.iter().map(DomainPath::to_string).chain(below).chain(hosts);
            let contents = shortened(contents.collect());
            return Err(Refusal::NotEmpty { domain: domain.clone(), contents });
        }
        Arc::make_mut(&mut self.levels).delete(domain)?;
        let mut effect = self.remove(&files)?;
        for host in &hosts {
            let records = Arc::make_mut(&mut self.hosts).get_mut(host).expect("it was just found");
            for record in Arc::make_mut(records) {
                make_unknown(record, domain);
            }
        }
        if !hosts.is_empty() {
            let word = domain.words().last().expect("a domain has words");
            effect.notes.push(format!("{word} is UNKNOWN now at {}", shortened(hosts)));
        }
        Ok(effect)
    }

    pub(crate) fn clone_domain(&mut self, from: &Domain, to: &Domain) -> Done {
        self.levels.verify(from, Wild::Off)?;
        if from.depth() != to.depth() {
            return Err(Refusal::OtherLevel { from: from.clone(), to: to.clone() });
        }
        let moved = |domain: &Domain| {
            let rest = &domain.words()[from.depth()..];
            Domain::of(to.words().iter().chain(rest).cloned().collect())
        };
        let levels = Arc::make_mut(&mut self.levels);
        let below: Vec<Domain> = levels.beneath(from).cloned().collect();
        levels.create(to)?;
        for domain in below {
            // The order of names has each parent before what is below it.
            levels.create(&moved(&domain))?;
        }
        let own: Vec<(DomainPath, Arc<Entry>)> = self
            .entries
            .iter()
            .filter(|(path, _)| contained(&path.domain, from, Wild::Off))
            .map(|(path, entry)| (path.clone(), entry.clone()))
            .collect();
        let mut effect = Effect::default();
        for (path, entry) in own {
            let new = DomainPath { domain: moved(&path.domain), path: path.path };
            if self.entries.contains_key(&new) {
                return Err(Refusal::EntryExists(new));
            }
            effect.touched.insert(new.clone());
            // Who has subscribed to the one has not to the other.
            let subscribers = entry.subscribers.as_ref().map(|_| BTreeMap::new());
            let entry = Entry { subscribers, ..(*entry).clone() };
            Arc::make_mut(&mut self.entries).insert(new, Arc::new(entry));
        }
        Ok(effect)
    }
}

/// The level value of a host that made it a member of a domain is not known any more.
fn make_unknown(record: &mut Record, domain: &Domain) {
    let depth = domain.depth();
    let Some(k) = record.views.iter().position(|view| *view == domain.words()[0]) else { return };
    let unknown = UNKNOWN.to_owned();
    if depth > 1 {
        let (views, values) = (record.views.len(), &mut record.levels[depth - 2]);
        if values.len() == 1 && views > 1 {
            *values = vec![values[0].clone(); views];
        }
        values[k] = unknown;
        return;
    }
    if record.views.len() == 1 {
        record.views = vec![unknown];
        return;
    }
    let views = record.views.len();
    record.views.remove(k);
    for values in record.levels.iter_mut().filter(|values| values.len() == views) {
        values.remove(k);
    }
}
