//! Answers to questions about the fleet.
//!
//! Pure: from a book and its roll. Who still lacks what is told to it, since that lies in tables.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use mesh::HostSet;

use super::book::{Book, Entry, Revision, Roll};
use super::change::Refusal;
use super::domain::{Domain, DomainPath, Wild, contained};
use super::hostdata::{self, From, Record, is_place_holder};
use super::precedence::{Member, is_in, place, winners};
use super::types::{
    Compared, DomainFiles, EntryInfo, FileDomains, FileOf, FileStatus, HostDomains, RelayClients,
    RevisionInfo, TableText,
};
use super::{distdata, levels::Levels};
use crate::sets;

/// What is known of the fleet.
pub(crate) struct Reader<'a> {
    pub(crate) book: &'a Book,
    pub(crate) roll: &'a Roll,
}

impl Reader<'_> {
    /// A host with its domains and files.
    pub(crate) fn host(&self, asked: &str) -> HostDomains {
        let Some(name) = self.book.host(asked) else {
            return HostDomains { name: asked.into(), ..HostDomains::default() };
        };
        let place = self.roll.place(name).expect("the roll has every host");
        let files = self.roll.files(place).into_iter().map(|path| self.file_of(path)).collect();
        let records = self.book.hosts[name].iter();
        let unknown: BTreeSet<String> =
            records.flat_map(|record| record.unknown(&self.book.levels)).collect();
        HostDomains {
            name: name.into(),
            known: true,
            enrolled: self.book.enrolled.contains_key(name),
            domains: self.roll.members[place].domains.iter().map(Domain::to_string).collect(),
            files,
            unknown: unknown.into_iter().collect(),
        }
    }

    /// The members of a domain, by their places.
    pub(crate) fn members(&self, name: &Domain) -> Result<HostSet, Refusal> {
        if let Some(host) = name.host() {
            let at = self.book.host(host).and_then(|name| self.roll.place(name));
            let at = at.ok_or_else(|| Refusal::UnknownHost(host.into()))?;
            return Ok(HostSet::one(place(at)));
        }
        self.book.levels.verify(name, Wild::On)?;
        let name = self.book.levels.normal(name);
        let members = self.roll.members.iter().enumerate();
        let members = members.filter(|(_, member)| is_in(member, &name));
        Ok(members.map(|(n, _)| place(n)).collect())
    }

    pub(crate) fn host_names(&self, places: &HostSet) -> Vec<String> {
        let name = |at: mesh::HostId| self.roll.members[at.0 as usize].name.clone();
        let mut names: Vec<String> = places.iter().map(name).collect();
        names.sort_by(|a, b| sets::natural_cmp(a, b));
        names
    }

    /// Hosts of which something is not known, be it only that nobody has recorded them.
    pub(crate) fn unknown(&self, enrolled: &[String]) -> Vec<HostDomains> {
        let known = self.book.hosts.keys().map(|name| self.host(name));
        let mut found: Vec<HostDomains> = known.filter(|host| !host.unknown.is_empty()).collect();
        let new = enrolled.iter().filter(|name| !self.book.hosts.contains_key(*name));
        found.extend(new.map(|name| HostDomains {
            name: name.clone(),
            enrolled: true,
            unknown: vec!["record".into()],
            ..HostDomains::default()
        }));
        found.sort_by(|a, b| sets::natural_cmp(&a.name, &b.name));
        found
    }

    /// All domains below one, or all.
    pub(crate) fn domains(&self, below: Option<&Domain>) -> Result<Vec<String>, Refusal> {
        let levels: &Levels = &self.book.levels;
        if let Some(below) = below {
            levels.verify(below, Wild::On)?;
        }
        let mut found = Vec::new();
        for depth in 1..=levels.levels.len() {
            let mut words = below.map_or_else(Vec::new, |below| below.words().to_vec());
            if depth < words.len() {
                continue;
            }
            words.resize(depth, super::domain::COMMON.to_owned());
            found.extend(levels.full(&Domain::of(words))?);
        }
        // By the tree: each right after what it stands below.
        found.sort();
        Ok(found.iter().map(Domain::to_string).collect())
    }

    /// The files that a domain gets, as they are stored.
    pub(crate) fn list(&self, name: &Domain) -> Result<DomainFiles, Refusal> {
        self.book.levels.verify(name, Wild::On)?;
        let own = self.book.levels.normal(name);
        let reaches = |path: &&DomainPath| match (own.host(), path.domain.host()) {
            (Some(host), _) => {
                let member = self.roll.place(host).map(|at| &self.roll.members[at]);
                member.is_some_and(|m| is_in(m, &self.book.levels.normal(&path.domain)))
            }
            (None, Some(_)) => false,
            (None, None) => contained(&own, &self.book.levels.normal(&path.domain), Wild::On),
        };
        let files = self.book.entries.keys().filter(reaches).map(|path| self.file_of(path));
        Ok(DomainFiles { domain: name.to_string(), files: files.collect() })
    }

    /// To whom a path, or the content of an entry, goes.
    pub(crate) fn files(&self, asked: &[String]) -> Result<Vec<FileDomains>, Refusal> {
        if asked.is_empty() {
            let paths: BTreeSet<&String> =
                self.book.entries.keys().map(|path| &path.path).collect();
            let all: Vec<String> = paths.into_iter().cloned().collect();
            return if all.is_empty() { Ok(Vec::new()) } else { self.files(&all) };
        }
        let mut found = Vec::new();
        for asked in asked {
            let chosen: Vec<&DomainPath> = if asked.starts_with('/') {
                self.book.entries.keys().filter(|path| path.path == *asked).collect()
            } else {
                let path: DomainPath = asked.parse()?;
                self.book.sharing(self.book.entry(&path)?.source).collect()
            };
            let mut shared: BTreeMap<u64, Vec<EntryInfo>> = BTreeMap::new();
            for path in chosen {
                let source = self.book.entries[path].source;
                shared.entry(source).or_default().push(self.entry(path)?);
            }
            let mut shared: Vec<Vec<EntryInfo>> = shared.into_values().collect();
            shared.sort_by(|a, b| a[0].path.cmp(&b[0].path));
            found.push(FileDomains { path: asked.clone(), shared });
        }
        Ok(found)
    }

    pub(crate) fn entry(&self, path: &DomainPath) -> Result<EntryInfo, Refusal> {
        let Entry { source, frequency, command, editor, delete, exclude, subscribers } =
            &**self.book.entry(path)?;
        let row = &self.book.sources[source];
        Ok(EntryInfo {
            path: path.to_string(),
            source: format!("s{source}"),
            frequency: frequency.clone(),
            command: command.clone(),
            editor: editor.clone(),
            revision: revision(&row.revision),
            delete_extra: *delete,
            exclude: exclude.clone(),
            lock: row.lock.as_ref().map_or_else(String::new, |lock| lock.by()),
            optional: subscribers.is_some(),
            generator: row.generator,
        })
    }

    /// What members of two domains get.
    pub(crate) fn compare(&self, one: &Domain, other: &Domain) -> Result<Compared, Refusal> {
        let (one, other) = (self.reached(one)?, self.reached(other)?);
        let mut compared = Compared::default();
        let all: BTreeSet<&String> = one.keys().chain(other.keys()).copied().collect();
        for path in all {
            let group = match (one.get(path), other.get(path)) {
                (Some(_), None) => &mut compared.only_one,
                (None, _) => &mut compared.only_other,
                (Some(a), Some(b)) if a == b => &mut compared.shared,
                (Some(a), Some(b)) => {
                    let roots = |sources: &BTreeSet<u64>| -> BTreeSet<&String> {
                        let root = |source| &self.book.sources[source].revision.content.root;
                        sources.iter().map(root).collect()
                    };
                    let same = roots(a) == roots(b);
                    if same { &mut compared.identical } else { &mut compared.different }
                }
            };
            group.push(path.clone());
        }
        Ok(compared)
    }

    /// What somebody in a domain gets by it, and whoever is beneath: by path the sources.
    fn reached(&self, name: &Domain) -> Result<BTreeMap<&String, BTreeSet<u64>>, Refusal> {
        self.book.levels.verify(name, Wild::On)?;
        let normal = |domain: &Domain| self.book.levels.normal(domain);
        let name = normal(name);
        let mut reached: BTreeMap<&String, BTreeSet<u64>> = BTreeMap::new();
        // A member that is nowhere deeper gets what wins by the shorter and wildcard names.
        let member = Member { name: String::new(), domains: vec![name.clone()] };
        // What somebody has to subscribe to, no domain gets.
        let is_for_all = |path: &&DomainPath| self.book.entries[*path].subscribers.is_none();
        let paths: Vec<&DomainPath> = self.roll.paths.iter().filter(is_for_all).collect();
        let plain = winners(&self.book.levels, &[member], &paths);
        for (path, hosts) in paths.iter().zip(&plain.of_entry) {
            if !hosts.is_empty() {
                reached.entry(&path.path).or_default().insert(self.book.entries[*path].source);
            }
        }
        // And what is stored deeper down, for some of the members.
        let beneath = |path: &&&DomainPath| {
            let domain = normal(&path.domain);
            domain.depth() > name.depth() && contained(&domain, &name, Wild::Off)
        };
        for path in paths.iter().filter(beneath) {
            reached.entry(&path.path).or_default().insert(self.book.entries[*path].source);
        }
        Ok(reached)
    }

    /// Who lacks an entry; `lacking`: of those that have enrolled.
    pub(crate) fn status(
        &self,
        path: &DomainPath,
        lacking: &HostSet,
        by_id: &BTreeMap<u32, usize>,
    ) -> Result<FileStatus, Refusal> {
        let entry = self.book.entry(path)?;
        let members = self.roll.of_entry(path);
        let not_enrolled = self.roll.not_enrolled(&members);
        let name =
            |id: mesh::HostId| by_id.get(&id.0).map(|at| self.roll.members[*at].name.clone());
        let mut hosts: Vec<String> = lacking.iter().filter_map(name).collect();
        hosts.extend(not_enrolled.iter().cloned());
        hosts.sort_by(|a, b| sets::natural_cmp(a, b));
        Ok(FileStatus {
            path: path.to_string(),
            revision: self.book.sources[&entry.source].revision.number,
            set: sets::fold(&hosts),
            hosts,
            not_enrolled,
        })
    }

    /// The clients of relays, by address.
    pub(crate) fn network(&self, asked: &[String]) -> Result<Vec<RelayClients>, Refusal> {
        let mut clients: BTreeMap<&str, Vec<&Record>> = BTreeMap::new();
        for record in self.book.records().filter(|record| !is_place_holder(&record.relay)) {
            clients.entry(&record.relay).or_default().push(record);
        }
        let wanted: Vec<&str> = match asked {
            [] => clients.keys().copied().collect(),
            asked => asked.iter().map(String::as_str).collect(),
        };
        let mut found = Vec::new();
        for relay in wanted {
            let mut records = match clients.get(relay) {
                Some(records) => records.clone(),
                None if self.book.enrolled.contains_key(relay) => Vec::new(),
                None => return Err(Refusal::Host(format!("{relay}: unknown relay"))),
            };
            records.sort_by_key(|record| (record.ip.parse::<IpAddr>().ok(), &record.name));
            let pairs = records.iter().map(|record| (record.ip.clone(), record.name.clone()));
            found.push(RelayClients { relay: relay.into(), clients: pairs.collect() });
        }
        Ok(found)
    }

    /// Host records with another relay.
    pub(crate) fn move_relay(&self, from: &str, to: &str) -> Result<TableText, Refusal> {
        let relays = self.book.records().map(|record| record.relay.as_str());
        if !relays.into_iter().any(|relay| relay == to) && !self.book.enrolled.contains_key(to) {
            return Err(Refusal::Host(format!("{to}: unknown relay")));
        }
        let from: From = from.parse().map_err(Refusal::Host)?;
        // A host with several addresses moves as a whole.
        let moves: BTreeSet<&String> =
            self.book.records().filter(|record| from.has(record)).map(|r| &r.name).collect();
        let moved = |record: &Record| {
            let mut record = record.clone();
            if moves.contains(&record.name) {
                record.relay = to.to_owned();
            }
            record
        };
        let records: Vec<Record> = self.book.records().map(moved).collect();
        Ok(TableText { text: hostdata::write(&records), complaints: Vec::new() })
    }

    /// A text form.
    pub(crate) fn export(&self, what: &str) -> Result<TableText, Refusal> {
        let text = match what {
            "hosts" => hostdata::write(self.book.records()),
            "files" => {
                let row = |(path, entry): (&DomainPath, &std::sync::Arc<Entry>)| distdata::Row {
                    dest: path.path.clone(),
                    domain: path.domain.clone(),
                    source: entry.source,
                    frequency: entry.frequency.clone(),
                    command: entry.command.clone(),
                    editor: entry.editor.clone(),
                };
                let rows: Vec<distdata::Row> = self.book.entries.iter().map(row).collect();
                distdata::write(&rows)
            }
            "config" => toml::to_string(&self.book.config())
                .map_err(|error| Refusal::Config(error.to_string()))?,
            other => {
                let what = format!("{other:?} has no text form: there are hosts, files and config");
                return Err(Refusal::Host(what));
            }
        };
        Ok(TableText { text, complaints: Vec::new() })
    }

    fn file_of(&self, path: &DomainPath) -> FileOf {
        let Entry { frequency, subscribers, .. } = &*self.book.entries[path];
        let (frequency, optional) = (frequency.clone(), subscribers.is_some());
        FileOf { frequency, path: path.to_string(), optional }
    }
}

/// A revision as the API tells it.
pub(crate) fn revision(revision: &Revision) -> RevisionInfo {
    let Revision { number, content, by, at_ms, note } = revision.clone();
    RevisionInfo {
        number,
        root: content.root,
        mode: content.mode,
        owner: content.owner,
        group: content.group,
        size: content.size,
        files: content.files.unwrap_or(0),
        text: content.is_text,
        folder: content.files.is_some(),
        modified_s: content.modified_s,
        by,
        at_ms,
        note,
    }
}

/// What stands twice in the tables made of host records.
pub(crate) fn table(book: &Book, ethers: bool, several: bool) -> TableText {
    let table = match ethers {
        true => hostdata::ethers_table(book.records()),
        false => hostdata::hosts_table(book.records(), several),
    };
    TableText { text: table.text, complaints: table.complaints }
}
