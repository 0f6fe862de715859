//! Changing the book: each change whole or not at all.
//!
//! Pure: a change is made on a copy of the book, and what is wrong with it is said by name. What
//! content holds was read before, and whether two entries clash is asked afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::book::{Book, Config, Content, Entry, Lock, Revision, Source};
use super::distdata;
use super::domain::{Domain, DomainError, DomainPath, DomainPathError, Wild, contained};
use super::hostdata::{self, LineError, Record, UNKNOWN, is_place_holder};
use super::levels::{LevelError, Levels};
use super::types::{Author, Frequency};

/// What opens any entry by the operator's own editor, and what by none.
pub(crate) const EDITOR: &str = "EDITOR";
pub(crate) const NO_EDITOR: &str = "NONE";
/// How many contents of a domain an error names.
const NAMED: usize = 10;
/// The most files under control.
const ENTRIES: usize = 100_000;

/// Why a change was refused. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(transparent)]
    Name(#[from] DomainError),
    #[error(transparent)]
    Path(#[from] DomainPathError),
    #[error(transparent)]
    Level(#[from] LevelError),
    #[error("{domain}: not empty: {contents}")]
    NotEmpty { domain: Domain, contents: String },
    #[error("{from} and {to}: not at the same level")]
    OtherLevel { from: Domain, to: Domain },
    #[error(transparent)]
    Line(#[from] LineError),
    #[error("the configuration is not readable: {0}")]
    Config(String),
    #[error("{what} would go: {names}")]
    WouldGo { what: &'static str, names: String },
    #[error("{0}: unknown host")]
    UnknownHost(String),
    #[error("{0}")]
    Host(String),
    #[error("{0}: not under control")]
    UnknownEntry(DomainPath),
    #[error("{0}: exists already")]
    EntryExists(DomainPath),
    #[error("unknown frequency {name}: there are {known}")]
    UnknownFrequency { name: String, known: String },
    #[error("{path}: {what}")]
    Entry { path: DomainPath, what: String },
    #[error("{path}: locked by {by} since {since}")]
    Locked { path: DomainPath, by: String, since: String },
    #[error("{0}: not locked")]
    NotLocked(DomainPath),
    #[error("{path}: no revision {number}")]
    NoRevision { path: DomainPath, number: u32 },
    #[error("{host} would get {} from {} and {} alike", both.0.path, both.0, both.1)]
    Clash { host: String, both: Box<(DomainPath, DomainPath)> },
    #[error("more than {ENTRIES} files under control")]
    Full,
}

/// What a change did.
#[derive(Debug, Default)]
pub(crate) struct Effect {
    /// What there is to say of it.
    pub(crate) notes: Vec<String>,
    /// Entries of which all hosts lack the content now.
    pub(crate) touched: BTreeSet<DomainPath>,
    /// New revisions, for the history.
    pub(crate) revisions: Vec<(u64, Revision)>,
}

/// Who changes something, and when.
#[derive(Clone, Debug)]
pub(crate) struct Pen {
    pub(crate) by: Author,
    pub(crate) at_ms: u64,
    pub(crate) note: String,
}

impl Author {
    /// As it is shown.
    pub(crate) fn text(&self) -> String {
        let clean =
            |text: &str| text.chars().filter(|c| !c.is_control()).take(64).collect::<String>();
        format!("{}@{}", clean(&self.user), clean(&self.host))
    }
}

type Done = Result<Effect, Refusal>;

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
            Arc::make_mut(&mut self.entries).insert(new, entry);
        }
        Ok(effect)
    }

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
            Some(_) => Ok(Effect::default()),
            None => Err(Refusal::UnknownHost(name.into())),
        }
    }

    pub(crate) fn import_config(&mut self, text: &str) -> Done {
        let config: Config =
            toml::from_str(text).map_err(|error| Refusal::Config(error.to_string()))?;
        let levels = Levels { levels: config.level, domains: config.domains };
        levels.check()?;
        if levels.levels.len() != self.levels.levels.len() && !self.hosts.is_empty() {
            let what = "the number of levels cannot change while there are host records: \
                        export them, remove them, and import them again";
            return Err(Refusal::Config(what.into()));
        }
        for record in self.hosts.values().flat_map(|records| records.iter()) {
            hostdata::check(record, &levels).map_err(Refusal::Host)?;
        }
        for path in self.entries.keys() {
            levels.verify(&path.domain, Wild::On)?;
        }
        for (name, frequency) in &config.frequency {
            check_frequency(name, frequency).map_err(Refusal::Config)?;
        }
        let used = self.entries.values().map(|entry| &entry.frequency);
        if let Some(used) = used.into_iter().find(|name| !config.frequency.contains_key(*name)) {
            let what = format!("frequency {used} is missing, which files have");
            return Err(Refusal::Config(what));
        }
        if *self.levels != levels {
            self.levels = Arc::new(levels);
        }
        if *self.frequencies != config.frequency {
            self.frequencies = Arc::new(config.frequency);
        }
        Ok(Effect::default())
    }

    pub(crate) fn import_files(&mut self, text: &str, force: bool) -> Done {
        let mut effect = Effect::default();
        let mut entries = BTreeMap::new();
        for (line, row) in distdata::read(text)? {
            let at = |what: String| LineError { line, what };
            let path = DomainPath { domain: row.domain, path: row.dest };
            if !self.sources.contains_key(&row.source) {
                return Err(at(format!("s{}: there is no such source here", row.source)).into());
            }
            let known = self.check_frequency_name(&row.frequency);
            known.map_err(|error| at(error.to_string()))?;
            let verified = self.levels.verify(&path.domain, Wild::On);
            verified.map_err(|error| at(error.to_string()))?;
            check_editor(&row.editor).map_err(at)?;
            let old = self.entries.get(&path);
            // How a folder is kept is not in the text.
            let folder = old.map(|old| (old.delete, old.exclude.clone())).unwrap_or_default();
            let entry = Entry {
                source: row.source,
                frequency: row.frequency,
                command: row.command,
                editor: row.editor,
                delete: folder.0,
                exclude: folder.1,
            };
            if old.is_none_or(|old| self.root(old.source) != self.root(entry.source)) {
                effect.touched.insert(path.clone());
            }
            let twice = LineError { line, what: format!("{path}: stands there twice") };
            if entries.insert(path, Arc::new(entry)).is_some() {
                return Err(twice.into());
            }
        }
        let gone = |path: &&DomainPath| !entries.contains_key(*path);
        let gone: Vec<String> = self.entries.keys().filter(gone).map(|p| p.to_string()).collect();
        if !gone.is_empty() && !force {
            let (what, names) = ("files that are not in the text", shortened(gone));
            return Err(Refusal::WouldGo { what, names });
        }
        let (count, gone) = (entries.len(), gone.len());
        effect.notes.push(format!("{count} files: {gone} gone"));
        if *self.entries != entries {
            self.entries = Arc::new(entries);
            self.drop_unused();
        }
        Ok(effect)
    }

    /// Puts content under control. `shared`: its source, if it is there already.
    pub(crate) fn install(
        &mut self,
        path: &DomainPath,
        content: Content,
        policy: Policy,
        pen: &Pen,
    ) -> Done {
        self.levels.verify(&path.domain, Wild::On)?;
        if self.entries.contains_key(path) {
            return Err(Refusal::EntryExists(path.clone()));
        }
        if self.entries.len() >= ENTRIES {
            return Err(Refusal::Full);
        }
        self.check_frequency_name(&policy.frequency)?;
        let Policy { frequency, command, editor, delete, exclude } = policy;
        let usual = if content.is_text { EDITOR } else { NO_EDITOR };
        let editor = editor.unwrap_or_else(|| usual.into());
        let wrong = |what| Refusal::Entry { path: path.clone(), what };
        check_editor(&editor).map_err(wrong)?;
        distdata::check_command(&command).map_err(wrong)?;
        if delete && content.files.is_none() {
            return Err(wrong("is a file: only in a folder there is something to delete".into()));
        }
        self.last_source += 1;
        let source = self.last_source;
        let revision = pen.revision(1, content);
        let row = Source { revision: revision.clone(), lock: None };
        Arc::make_mut(&mut self.sources).insert(source, Arc::new(row));
        let entry = Entry { source, frequency, command, editor, delete, exclude };
        Arc::make_mut(&mut self.entries).insert(path.clone(), Arc::new(entry));
        let touched = [path.clone()].into();
        Ok(Effect { touched, revisions: vec![(source, revision)], ..Effect::default() })
    }

    /// Gives content of an entry a new revision. The same content is no change at all.
    pub(crate) fn put(
        &mut self,
        path: &DomainPath,
        content: Content,
        lock: Option<&str>,
        pen: &Pen,
    ) -> Done {
        let number = self.entry(path)?.source;
        self.check_lock(path, lock)?;
        let source = &self.sources[&number];
        if source.revision.content == content {
            return Ok(Effect::default());
        }
        let revision = pen.revision(source.revision.number + 1, content);
        let row = Source { revision: revision.clone(), lock: source.lock.clone() };
        Arc::make_mut(&mut self.sources).insert(number, Arc::new(row));
        let touched = self.sharing(number).cloned().collect();
        Ok(Effect { touched, revisions: vec![(number, revision)], ..Effect::default() })
    }

    pub(crate) fn merge(&mut self, from: &DomainPath, to: &DomainPath) -> Done {
        let (source, old) = (self.entry(from)?.source, self.entry(to)?.clone());
        if source == old.source {
            return Ok(Effect::default());
        }
        self.check_lock(to, None)?;
        let mut effect = Effect::default();
        if self.root(source) != self.root(old.source) {
            effect.touched.insert(to.clone());
        }
        let entry = Arc::new(Entry { source, ..(*old).clone() });
        Arc::make_mut(&mut self.entries).insert(to.clone(), entry);
        self.drop_unused();
        Ok(effect)
    }

    /// Changes the policy of an entry.
    pub(crate) fn set_policy(&mut self, path: &DomainPath, edit: PolicyEdit) -> Done {
        let mut entry = (**self.entry(path)?).clone();
        let wrong = |what| Refusal::Entry { path: path.clone(), what };
        match edit {
            PolicyEdit::Frequency(frequency) => {
                self.check_frequency_name(&frequency)?;
                entry.frequency = frequency;
            }
            PolicyEdit::Command(command) => {
                distdata::check_command(&command).map_err(wrong)?;
                entry.command = command;
            }
            PolicyEdit::Editor(editor) => {
                let is_text = self.sources[&entry.source].revision.content.is_text;
                let usual = if is_text { EDITOR } else { NO_EDITOR };
                entry.editor = editor.unwrap_or_else(|| usual.into());
                check_editor(&entry.editor).map_err(wrong)?;
            }
        }
        if **self.entry(path)? != entry {
            Arc::make_mut(&mut self.entries).insert(path.clone(), Arc::new(entry));
        }
        Ok(Effect::default())
    }

    pub(crate) fn remove(&mut self, paths: &[DomainPath]) -> Done {
        for path in paths {
            self.entry(path)?;
            // What others share stays, locked or not.
            if self.sharing(self.entry(path)?.source).count() == 1 {
                self.check_lock(path, None)?;
            }
            Arc::make_mut(&mut self.entries).remove(path);
        }
        if !paths.is_empty() {
            self.drop_unused();
        }
        Ok(Effect::default())
    }

    pub(crate) fn lock(&mut self, path: &DomainPath, token: String, pen: &Pen) -> Done {
        let number = self.entry(path)?.source;
        self.check_lock(path, None)?;
        let lock = Lock { by: pen.by.clone(), at_ms: pen.at_ms, token };
        let row = Source { lock: Some(lock), ..(*self.sources[&number]).clone() };
        Arc::make_mut(&mut self.sources).insert(number, Arc::new(row));
        Ok(Effect::default())
    }

    pub(crate) fn unlock(&mut self, path: &DomainPath, token: Option<&str>) -> Done {
        let number = self.entry(path)?.source;
        let source = &self.sources[&number];
        let lock = source.lock.as_ref().ok_or_else(|| Refusal::NotLocked(path.clone()))?;
        if token.is_some() {
            self.check_lock(path, token)?;
        }
        let notes = vec![format!("{path}: was locked by {} since {}", lock.by(), lock.since())];
        let row = Source { lock: None, ..(**source).clone() };
        Arc::make_mut(&mut self.sources).insert(number, Arc::new(row));
        Ok(Effect { notes, ..Effect::default() })
    }

    pub(crate) fn entry(&self, path: &DomainPath) -> Result<&Arc<Entry>, Refusal> {
        self.entries.get(path).ok_or_else(|| Refusal::UnknownEntry(path.clone()))
    }

    /// Nobody else may have locked the content of an entry.
    pub(crate) fn check_lock(&self, path: &DomainPath, token: Option<&str>) -> Result<(), Refusal> {
        match &self.sources[&self.entry(path)?.source].lock {
            Some(lock) if token != Some(&lock.token) => {
                let (by, since) = (lock.by(), lock.since());
                Err(Refusal::Locked { path: path.clone(), by, since })
            }
            // Whoever had it lost it: what they bring may be older than what is there.
            None if token.is_some() => Err(Refusal::NotLocked(path.clone())),
            _ => Ok(()),
        }
    }

    fn root(&self, source: u64) -> Option<&str> {
        self.sources.get(&source).map(|source| source.revision.content.root.as_str())
    }

    fn check_frequency_name(&self, name: &str) -> Result<(), Refusal> {
        if self.frequencies.contains_key(name) {
            return Ok(());
        }
        let known = self.frequencies.keys().cloned().collect::<Vec<_>>().join(", ");
        Err(Refusal::UnknownFrequency { name: name.into(), known })
    }

    fn drop_unused(&mut self) {
        let used: BTreeSet<u64> = self.entries.values().map(|entry| entry.source).collect();
        if self.sources.keys().any(|source| !used.contains(source)) {
            Arc::make_mut(&mut self.sources).retain(|source, _| used.contains(source));
        }
    }
}

/// How an entry is distributed.
pub(crate) struct Policy {
    pub(crate) frequency: String,
    pub(crate) command: String,
    pub(crate) editor: Option<String>,
    /// Of a folder: whether what is not in it goes at the hosts.
    pub(crate) delete: bool,
    /// Patterns of what is left out of a folder.
    pub(crate) exclude: Vec<String>,
}

/// One thing about how an entry is distributed.
pub(crate) enum PolicyEdit {
    Frequency(String),
    Command(String),
    Editor(Option<String>),
}

/// What is changed about a host.
#[derive(Default)]
pub(crate) struct HostEdit {
    pub(crate) ip: Option<String>,
    pub(crate) ether: Option<String>,
    pub(crate) aliases: Option<Vec<String>>,
    pub(crate) relay: Option<String>,
    pub(crate) domains: Option<Vec<Domain>>,
}

impl Pen {
    fn revision(&self, number: u32, content: Content) -> Revision {
        let note = self.note.chars().take(1024).collect();
        Revision { number, content, by: self.by.text(), at_ms: self.at_ms, note }
    }
}

impl Lock {
    pub(crate) fn by(&self) -> String {
        format!("{} (process {})", self.by.text(), self.by.pid)
    }

    fn since(&self) -> String {
        super::clock_text(self.at_ms)
    }
}

/// Whether a frequency makes sense.
pub(crate) fn check_frequency(name: &str, frequency: &Frequency) -> Result<(), String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || name.len() > 64 || !name.chars().all(fine) || name == "all" {
        return Err(format!("{name:?} is no name of a frequency"));
    }
    super::cron::check(frequency).map_err(|error| format!("frequency {name}: {error}"))
}

fn check_editor(editor: &str) -> Result<(), String> {
    match editor.is_empty() || editor.len() > 1024 || editor.contains(char::is_control) {
        true => Err(format!("{editor:?} is no editor: a path, a command, EDITOR or NONE")),
        false => Ok(()),
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

/// The first few of a list.
fn shortened(names: Vec<String>) -> String {
    let more = names.len().saturating_sub(NAMED);
    let first = names.into_iter().take(NAMED).collect::<Vec<_>>().join(", ");
    if more == 0 { first } else { format!("{first} and {more} more") }
}

#[cfg(test)]
#[path = "change_tests.rs"]
mod tests;
