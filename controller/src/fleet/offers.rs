//! What is offered to hosts: optional entries, who has subscribed to them or asked for them, and
//! what a host is entitled to.
//!
//! Pure. What a host says it wants is compared with what is recorded, and becomes nothing else: an
//! entry that is not for this host is refused in the same words as one that is not there.

use std::collections::{BTreeMap, BTreeSet};

use mesh::{HostId, HostSet};

use super::ask::Reader;
use super::book::{Entry, Wish};
use super::change::Refusal;
use super::domain::DomainPath;
use super::missing::Standing;
use super::precedence::{Member, Offer, is_in, offered};
use super::types::Subscriptions;
use crate::sets;

/// Why a host does not get what it asks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotOffered {
    /// There is nothing of that name for it.
    #[error("nothing of the name {0:?} is for this host")]
    Nothing(String),
    /// It gets something else at the same path.
    #[error("{wanted}: this host gets {path} from {other}", path = wanted.path)]
    Other {
        /// What it wants.
        wanted: DomainPath,
        /// What it gets.
        other: DomainPath,
    },
    /// There is nothing to subscribe to.
    #[error("{0}: is not optional: this host gets it anyway")]
    Anyway(DomainPath),
}

impl Reader<'_> {
    /// The entry that a host asks for by a path or a domainpath: one that it gets, or an optional
    /// one that it may have.
    pub(crate) fn wanted(&self, place: usize, text: &str) -> Result<DomainPath, NotOffered> {
        let gets = self.roll.files(place);
        let own = gets.iter().copied().find(|own| names(own, text));
        let wanted = own.or_else(|| self.best(place, text)).ok_or_else(|| nothing(text))?;
        match gets.iter().find(|own| own.path == wanted.path && **own != wanted) {
            // It would be undone when the other is distributed.
            Some(other) => {
                let (wanted, other) = (wanted.clone(), (*other).clone());
                Err(NotOffered::Other { wanted, other })
            }
            None => Ok(wanted.clone()),
        }
    }

    /// The entry to which a host may subscribe, by a path or a domainpath.
    pub(crate) fn optional(&self, place: usize, text: &str) -> Result<DomainPath, NotOffered> {
        if let Some(best) = self.best(place, text) {
            return Ok(best.clone());
        }
        let gets = self.roll.files(place).into_iter().find(|own| names(own, text));
        Err(gets.map_or_else(|| nothing(text), |own| NotOffered::Anyway(own.clone())))
    }

    /// The entry to which a host has subscribed, by a path or a domainpath.
    pub(crate) fn subscribed(&self, place: usize, text: &str) -> Result<DomainPath, NotOffered> {
        let own = &self.roll.members[place].name;
        let has = |(_, entry): &(&DomainPath, &std::sync::Arc<Entry>)| {
            entry.subscribers.as_ref().is_some_and(|wishes| wishes.contains_key(own))
        };
        let mut all = self.book.entries.iter().filter(has).map(|(path, _)| path);
        all.find(|path| names(path, text)).cloned().ok_or_else(|| nothing(text))
    }

    /// The optional entries that a host may have.
    pub(crate) fn offers(&self, place: usize) -> Vec<&DomainPath> {
        let member = &self.roll.members[place];
        let is_offered = |path: &&DomainPath| {
            let Some(subscribers) = &self.book.entries[*path].subscribers else { return false };
            subscribers.get(&member.name) == Some(&Wish::Operator)
                || is_in(member, &self.book.levels.normal(&path.domain))
        };
        self.roll.paths.iter().filter(is_offered).collect()
    }

    /// Of the optional entries that are meant the one that fits a host best.
    fn best(&self, place: usize, text: &str) -> Option<&DomainPath> {
        let fitting: Vec<&DomainPath> =
            self.offers(place).into_iter().filter(|offer| names(offer, text)).collect();
        let offers = fitting.iter().map(|path| Offer { path, only: None }).collect::<Vec<_>>();
        let member = Member::clone(&self.roll.members[place]);
        let winners = offered(&self.book.levels, &[member], &offers);
        let best = winners.of_entry.iter().position(|hosts| !hosts.is_empty());
        // Where operators have subscribed it from elsewhere there is nothing to compare.
        best.map(|n| fitting[n]).or(fitting.first().copied().filter(|_| fitting.len() == 1))
    }

    /// Who has an optional entry. `by_id`: the places of hosts by their numbers.
    pub(crate) fn subscriptions(
        &self,
        path: &DomainPath,
        standing: &Standing,
        by_id: &BTreeMap<u32, usize>,
    ) -> Result<Subscriptions, Refusal> {
        let entry = self.book.entry(path)?;
        let Some(wishes) = &entry.subscribers else {
            let what = "is not optional".into();
            return Err(Refusal::Entry { path: path.clone(), what });
        };
        let revision = &self.book.sources[&entry.source].revision;
        let members = self.roll.of_entry(path);
        let subscribers = self.host_names(&members);
        let ids = self.roll.ids(&members);
        let names = |hosts: &HostSet| self.names_of(hosts, by_id);
        let (mut lacking, mut holders, mut outdated) =
            (names(&standing.lacking()), Vec::new(), Vec::new());
        lacking.extend(self.roll.not_enrolled(&members));
        for (root, hosts) in standing.has() {
            let own = names(&hosts.difference(&ids));
            let is_newest = *root == revision.content.root;
            let list = if is_newest { &mut holders } else { &mut outdated };
            list.extend(own);
        }
        let stands: BTreeSet<&String> = subscribers.iter().collect();
        let resting = wishes.keys().filter(|name| !stands.contains(name)).cloned().collect();
        for names in [&mut lacking, &mut holders, &mut outdated] {
            names.sort_by(|a, b| sets::natural_cmp(a, b));
        }
        let (path, revision) = (path.to_string(), revision.number);
        Ok(Subscriptions { path, revision, subscribers, lacking, resting, holders, outdated })
    }

    fn names_of(&self, hosts: &HostSet, by_id: &BTreeMap<u32, usize>) -> Vec<String> {
        let name = |id: HostId| by_id.get(&id.0).map(|at| self.roll.members[*at].name.clone());
        hosts.iter().filter_map(name).collect()
    }
}

/// Whether a path or a domainpath names an entry. Nothing else is made of the text.
fn names(path: &DomainPath, text: &str) -> bool {
    path.path == text || path.to_string() == text
}

fn nothing(text: &str) -> NotOffered {
    NotOffered::Nothing(text.chars().take(256).collect())
}

#[cfg(test)]
mod tests {
    use mesh::OrderId;

    use super::*;
    use crate::fleet::book::testing::{book, content};
    use crate::fleet::book::{Book, Roll};
    use crate::fleet::change::{Pen, Policy};
    use crate::fleet::types::Author;

    fn p(text: &str) -> DomainPath {
        text.parse().expect(text)
    }

    /// Entries; those with a question mark are optional.
    fn with(entries: &[&str]) -> Book {
        let mut book = book();
        let pen = Pen { by: Author::default(), at_ms: 0, note: String::new() };
        for text in entries {
            let path = text.trim_end_matches('?');
            let policy = Policy {
                frequency: "day".into(),
                command: String::new(),
                editor: None,
                delete: false,
                exclude: Vec::new(),
                optional: text.ends_with('?'),
            };
            book.install(&p(path), content(path), policy, &pen).expect(path);
        }
        book
    }

    type Ask = fn(&Reader<'_>, usize, &str) -> Result<DomainPath, NotOffered>;

    fn ask(book: &Book, ask: Ask, host: &str, text: &str) -> Result<String, String> {
        let roll = Roll::of(book);
        let place = roll.place(host).expect(host);
        let told = ask(&Reader { book, roll: &roll }, place, text);
        told.map(|path| path.to_string()).map_err(|error| error.to_string())
    }

    fn wanted(book: &Book, host: &str, text: &str) -> Result<String, String> {
        ask(book, |reader, place, text| reader.wanted(place, text), host, text)
    }

    fn optional(book: &Book, host: &str, text: &str) -> Result<String, String> {
        ask(book, |reader, place, text| reader.optional(place, text), host, text)
    }

    #[test]
    fn a_host_gets_what_its_domains_offer_and_nothing_else() {
        let mut book = with(&[
            "common.adm:/etc/motd",
            "osgrp.adm:/etc/motd",
            "osgrp.adm:/opt/tool?",
            "riscos.osgrp.adm:/opt/tool?",
            "cc.adm:/opt/other?",
        ]);
        let ok = |book: &Book, host: &str, text: &str, is: &str| {
            assert_eq!(wanted(book, host, text).as_deref(), Ok(is), "{host} {text}");
        };
        ok(&book, "h1", "/etc/motd", "common.adm:/etc/motd");
        ok(&book, "h3", "/etc/motd", "osgrp.adm:/etc/motd");
        ok(&book, "h3", "/opt/tool", "riscos.osgrp.adm:/opt/tool");
        ok(&book, "h3", "osgrp.adm:/opt/tool", "osgrp.adm:/opt/tool");
        // What is not there and what is for others are told alike.
        for text in ["/opt/tool", "osgrp.adm:/opt/tool", "/nosuch", "x:/y", "../..", "", "{{a}}"] {
            let nothing = Err(format!("nothing of the name {text:?} is for this host"));
            assert_eq!(wanted(&book, "h1", text), nothing);
            assert_eq!(optional(&book, "h1", text), nothing);
        }
        // What wins elsewhere is not for whoever gets another at the same path.
        let error = wanted(&book, "h3", "common.adm:/etc/motd").expect_err("h3 gets another");
        assert!(error.starts_with("nothing of the name"), "{error}");
        let error = optional(&book, "h3", "/etc/motd").expect_err("for all");
        assert!(error.contains("this host gets it anyway"), "{error}");
        book.subscribe("h3", &p("osgrp.adm:/opt/tool"), Wish::Host).expect("offered");
        ok(&book, "h3", "/opt/tool", "osgrp.adm:/opt/tool");
        let error = wanted(&book, "h3", "riscos.osgrp.adm:/opt/tool").expect_err("one path");
        assert!(error.contains("gets /opt/tool from osgrp.adm:/opt/tool"), "{error}");
        // Operators may give it what its domains do not.
        book.subscribe("h3", &p("cc.adm:/opt/other"), Wish::Operator).expect("given");
        ok(&book, "h3", "/opt/other", "cc.adm:/opt/other");
        assert_eq!(optional(&book, "h3", "/opt/other").as_deref(), Ok("cc.adm:/opt/other"));
    }

    #[test]
    fn who_has_it_is_told_apart() {
        let mut book = with(&["osgrp.adm:/opt/tool?"]);
        let tool = p("osgrp.adm:/opt/tool");
        for (host, wish) in [("h1", Wish::Operator), ("h3", Wish::Host), ("h2", Wish::Host)] {
            book.subscribe(host, &tool, wish).expect(host);
        }
        let roll = Roll::of(&book);
        let id = |name: &str| HostSet::one(HostId(book.enrolled[name].id));
        let mut standing = Standing::default();
        standing.enter(&id("h1").union(&id("h3")), 1);
        standing.confirm(&id("h1"), (1, OrderId([1; 16])), "osgrp.adm:/opt/tool");
        standing.confirm(&id("h4"), (1, OrderId([1; 16])), "osgrp.adm:/opt/tool");
        standing.confirm(&id("h2"), (1, OrderId([1; 16])), "an older one");
        let reader = Reader { book: &book, roll: &roll };
        let told = reader.subscriptions(&tool, &standing, &roll.by_id()).expect("told");
        assert_eq!(told.subscribers, ["h1", "h3"]);
        assert_eq!(told.lacking, ["h3"]);
        assert_eq!(told.resting, ["h2"]);
        assert_eq!((told.holders, told.outdated), (vec!["h4".into()], vec!["h2".to_string()]));
    }
}
