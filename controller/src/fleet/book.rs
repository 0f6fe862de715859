//! All that is recorded of the fleet, as one value.
//!
//! A change is made on a copy, checked as a whole, and takes the place of the old book only once
//! it is on disk; copies are cheap, since their parts are shared. Beside it stands the [`Roll`],
//! which follows from the book: who gets what.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use mesh::{HostId, HostSet};
use serde::{Deserialize, Serialize};

use super::domain::{Domain, DomainPath};
use super::hostdata::Record;
use super::levels::{Level, Levels};
use super::precedence::{self, Clash, Member, Offer, Winners};
use super::types::{Author, Frequency, Generator, Site};

/// What may be changed of a book, and what follows from the inventory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Book {
    pub(crate) levels: Arc<Levels>,
    pub(crate) frequencies: Arc<BTreeMap<String, Frequency>>,
    /// What is recorded of sites.
    pub(crate) sites: Arc<BTreeMap<String, Site>>,
    /// The records of each host, sorted by address.
    pub(crate) hosts: Arc<BTreeMap<String, Arc<Vec<Record>>>>,
    pub(crate) entries: Arc<BTreeMap<DomainPath, Arc<Entry>>>,
    pub(crate) sources: Arc<BTreeMap<u64, Arc<Source>>>,
    /// Who of them has enrolled.
    pub(crate) enrolled: Arc<BTreeMap<String, Arc<Enrolled>>>,
    /// The number of the last change that hosts must hear of.
    pub(crate) change: u64,
    /// The number of the last source.
    pub(crate) last_source: u64,
}

/// A file under control, as it goes to one domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) source: u64,
    pub(crate) frequency: String,
    pub(crate) command: String,
    pub(crate) editor: String,
    /// Of a folder: whether what is not in it goes at the hosts.
    #[serde(default)]
    pub(crate) delete: bool,
    /// Patterns of what is left out of a folder, and left alone at the hosts.
    #[serde(default)]
    pub(crate) exclude: Vec<String>,
    /// If it goes only to whoever has subscribed: who has, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) subscribers: Option<BTreeMap<String, Wish>>,
}

impl Entry {
    /// Those whose subscription stands; none: nobody has to subscribe. `is_in`: whether a host is
    /// in the entry's domain.
    fn subscribed(&self, is_in: impl Fn(&str) -> bool) -> Option<Vec<&str>> {
        let mut standing = Vec::new();
        for (name, wish) in self.subscribers.as_ref()? {
            if *wish == Wish::Operator || is_in(name) {
                standing.push(name.as_str());
            }
        }
        Some(standing)
    }
}

/// Whose wish a subscription is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Wish {
    /// The operators': it stands wherever the host belongs.
    Operator,
    /// The host's own: it rests while the host is not in the entry's domain.
    Host,
}

/// Content under control.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Source {
    pub(crate) revision: Revision,
    pub(crate) lock: Option<Lock>,
    /// What makes it, if people do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) generator: Option<Generator>,
}

/// Content as it was at one time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Revision {
    pub(crate) number: u32,
    pub(crate) content: Content,
    pub(crate) by: String,
    pub(crate) at_ms: u64,
    pub(crate) note: String,
}

/// What was read into the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Content {
    /// The hash of its manifest.
    pub(crate) root: String,
    pub(crate) mode: u32,
    pub(crate) owner: String,
    pub(crate) group: String,
    pub(crate) size: u64,
    pub(crate) modified_s: i64,
    /// How many files are in it, if it is a folder.
    pub(crate) files: Option<u64>,
    pub(crate) is_text: bool,
}

/// Somebody keeps others from changing content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lock {
    pub(crate) by: Author,
    pub(crate) at_ms: u64,
    pub(crate) token: String,
}

/// The number of a host in the mesh, and whose key it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Enrolled {
    pub(crate) id: u32,
    pub(crate) key: [u8; 32],
}

/// The text form of what is neither a host nor a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    #[serde(default)]
    pub(crate) domains: BTreeSet<Domain>,
    pub(crate) level: Vec<Level>,
    pub(crate) frequency: BTreeMap<String, Frequency>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) site: BTreeMap<String, Site>,
}

impl Default for Book {
    fn default() -> Book {
        Book {
            levels: Arc::default(),
            frequencies: Arc::new(Frequency::usual()),
            sites: Arc::default(),
            hosts: Arc::default(),
            entries: Arc::default(),
            sources: Arc::default(),
            enrolled: Arc::default(),
            change: 0,
            last_source: 0,
        }
    }
}

impl Book {
    pub(crate) fn config(&self) -> Config {
        Config {
            domains: self.levels.domains.clone(),
            level: self.levels.levels.clone(),
            frequency: (*self.frequencies).clone(),
            site: (*self.sites).clone(),
        }
    }

    /// The host that a name or an alias means.
    pub(crate) fn host(&self, name: &str) -> Option<&str> {
        if let Some((name, _)) = self.hosts.get_key_value(name) {
            return Some(name);
        }
        let has = |records: &Arc<Vec<Record>>| {
            records.iter().any(|record| record.aliases.iter().any(|alias| alias == name))
        };
        self.hosts.iter().find(|(_, records)| has(records)).map(|(name, _)| name.as_str())
    }

    /// The full domains of a host.
    pub(crate) fn domains(&self, name: &str) -> Vec<Domain> {
        let first = self.hosts.get(name).and_then(|records| records.first());
        first.map_or_else(Vec::new, |record| record.domains(&self.levels))
    }

    /// The records of all hosts.
    pub(crate) fn records(&self) -> impl Iterator<Item = &Record> {
        self.hosts.values().flat_map(|records| records.iter())
    }

    /// The entries that have a source.
    pub(crate) fn sharing(&self, source: u64) -> impl Iterator<Item = &DomainPath> {
        let has = move |(_, entry): &(&DomainPath, &Arc<Entry>)| entry.source == source;
        self.entries.iter().filter(has).map(|(path, _)| path)
    }

    /// Whether who gets what may be another than in that book.
    pub(crate) fn may_move(&self, old: &Book) -> bool {
        let same_paths = || {
            let mut pairs = self.entries.iter().zip(old.entries.iter());
            self.entries.len() == old.entries.len()
                && pairs
                    .all(|((a, one), (b, other))| a == b && one.subscribers == other.subscribers)
        };
        !Arc::ptr_eq(&self.levels, &old.levels)
            || !Arc::ptr_eq(&self.hosts, &old.hosts)
            || !Arc::ptr_eq(&self.enrolled, &old.enrolled)
            || !(Arc::ptr_eq(&self.entries, &old.entries) || same_paths())
    }
}

/// Who gets what, by the names of hosts and entries.
#[derive(Clone, Debug, Default)]
pub(crate) struct Roll {
    /// The hosts, sorted by name, with their domains.
    pub(crate) members: Vec<Member>,
    /// The number of each in the mesh, if it has enrolled.
    ids: Vec<Option<u32>>,
    /// The entries, sorted.
    pub(crate) paths: Vec<DomainPath>,
    pub(crate) winners: Winners,
    places: HashMap<String, usize>,
}

impl Roll {
    pub(crate) fn of(book: &Book) -> Roll {
        let member = |name: &String| Member { name: name.clone(), domains: book.domains(name) };
        let members: Vec<Member> = book.hosts.keys().map(member).collect();
        let ids = book.hosts.keys().map(|name| book.enrolled.get(name).map(|e| e.id)).collect();
        let paths: Vec<DomainPath> = book.entries.keys().cloned().collect();
        let places = members.iter().enumerate().map(|(n, member)| (member.name.clone(), n));
        let places: HashMap<String, usize> = places.collect();
        let winners = {
            let offers = book.entries.iter().map(|(path, entry)| {
                let domain = book.levels.normal(&path.domain);
                let only = entry.subscribed(|name| {
                    let member = places.get(name).map(|place| &members[*place]);
                    member.is_some_and(|member| precedence::is_in(member, &domain))
                });
                Offer { path, only }
            });
            precedence::offered(&book.levels, &members, &offers.collect::<Vec<_>>())
        };
        Roll { members, ids, paths, winners, places }
    }

    /// The hosts that get an entry, as places among the members.
    pub(crate) fn of_entry(&self, path: &DomainPath) -> HostSet {
        let place = self.paths.binary_search(path).ok();
        place.map_or_else(HostSet::new, |place| self.winners.of_entry[place].clone())
    }

    /// The numbers of those of them that have enrolled.
    pub(crate) fn ids(&self, places: &HostSet) -> HostSet {
        let ids = places.iter().filter_map(|place| self.ids[place.0 as usize].map(HostId));
        let ids: Vec<(u32, u32)> = ids.map(|id| (id.0, id.0)).collect();
        HostSet::from_ranges(ids)
    }

    /// The names of those of them that have not.
    pub(crate) fn not_enrolled(&self, places: &HostSet) -> Vec<String> {
        let missing = places.iter().filter(|place| self.ids[place.0 as usize].is_none());
        missing.map(|place| self.members[place.0 as usize].name.clone()).collect()
    }

    /// The hosts by their numbers in the mesh.
    pub(crate) fn by_id(&self) -> BTreeMap<u32, usize> {
        let ids = self.ids.iter().enumerate();
        ids.filter_map(|(place, id)| Some(((*id)?, place))).collect()
    }

    /// Where a host stands among the members.
    pub(crate) fn place(&self, name: &str) -> Option<usize> {
        self.places.get(name).copied()
    }

    /// The entries that a host gets, sorted by path.
    pub(crate) fn files(&self, place: usize) -> Vec<&DomainPath> {
        let host = precedence::place(place);
        let all = self.paths.iter().zip(&self.winners.of_entry);
        all.filter(|(_, hosts)| hosts.contains(host)).map(|(path, _)| path).collect()
    }

    /// The first clash that is not there in the other: a host, and the two entries.
    pub(crate) fn new_clash(&self, old: &Roll) -> Option<(&str, &DomainPath, &DomainPath)> {
        let named = |roll: &'_ Roll, clash: &Clash| {
            let (one, other) = (roll.paths[clash.one].clone(), roll.paths[clash.other].clone());
            (roll.members[clash.host].name.clone(), one, other)
        };
        let known: BTreeSet<_> = old.winners.clashes.iter().map(|c| named(old, c)).collect();
        let clashes = self.winners.clashes.iter();
        let clash = clashes.into_iter().find(|clash| !known.contains(&named(self, clash)))?;
        let name = self.members[clash.host].name.as_str();
        Some((name, &self.paths[clash.one], &self.paths[clash.other]))
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! The book of the specification's examples.

    use super::*;
    use crate::fleet::{hostdata, levels};

    pub(crate) fn book() -> Book {
        let levels = levels::testing::levels();
        let records = hostdata::read(hostdata::testing::HOSTS, &levels).expect("it is right");
        let mut hosts: BTreeMap<String, Arc<Vec<Record>>> = BTreeMap::new();
        for record in records {
            hosts.insert(record.name.clone(), Arc::new(vec![record]));
        }
        let enrolled = |(n, name): (usize, &String)| {
            let id = u32::try_from(n).expect("few") + 1;
            (name.clone(), Arc::new(Enrolled { id, key: [0; 32] }))
        };
        let enrolled = hosts.keys().enumerate().map(enrolled).collect();
        Book {
            levels: Arc::new(levels),
            hosts: Arc::new(hosts),
            enrolled: Arc::new(enrolled),
            ..Book::default()
        }
    }

    pub(crate) fn content(root: &str) -> Content {
        Content {
            root: root.into(),
            mode: 0o644,
            owner: "root".into(),
            group: "root".into(),
            size: 1,
            modified_s: 0,
            files: None,
            is_text: true,
        }
    }
}
