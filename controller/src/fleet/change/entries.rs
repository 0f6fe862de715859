//! Changes to files under control: their content, how they are distributed, and locks on them.
//!
//! Entries may share content: a change of it touches all of them, and it stays until the last of
//! them goes. Content was read before: here counts only what was found then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use timing::clock_text;

use super::{Done, Effect, Pen, Refusal, shortened};
use crate::fleet::book::{Book, Content, Entry, Lock, Revision, Source};
use crate::fleet::distdata;
use crate::fleet::domain::{DomainPath, Wild};
use crate::fleet::hostdata::LineError;

/// What opens any entry by the operator's own editor, and what by none.
const EDITOR: &str = "EDITOR";
const NO_EDITOR: &str = "NONE";
/// The most files under control.
pub(super) const ENTRIES: usize = 100_000;

/// How an entry is distributed.
pub(crate) struct Policy {
    pub(crate) frequency: String,
    pub(crate) command: String,
    pub(crate) editor: Option<String>,
    /// Of a folder: whether what is not in it goes at the hosts.
    pub(crate) delete: bool,
    /// Patterns of what is left out of a folder.
    pub(crate) exclude: Vec<String>,
    /// Whether it goes only to whoever subscribes.
    pub(crate) optional: bool,
}

/// One thing about how an entry is distributed.
pub(crate) enum PolicyEdit {
    Frequency(String),
    Command(String),
    Editor(Option<String>),
}

impl Book {
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
            // How a folder is kept is not in the text, nor who has subscribed.
            let folder = old.map(|old| (old.delete, old.exclude.clone())).unwrap_or_default();
            let entry = Entry {
                source: row.source,
                frequency: row.frequency,
                command: row.command,
                editor: row.editor,
                delete: folder.0,
                exclude: folder.1,
                subscribers: old.and_then(|old| old.subscribers.clone()),
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
        let Policy { frequency, command, editor, delete, exclude, optional } = policy;
        let subscribers = optional.then(BTreeMap::new);
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
        let entry = Entry { source, frequency, command, editor, delete, exclude, subscribers };
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
        clock_text(self.at_ms)
    }
}

fn check_editor(editor: &str) -> Result<(), String> {
    match editor.is_empty() || editor.len() > 1024 || editor.contains(char::is_control) {
        true => Err(format!("{editor:?} is no editor: a path, a command, EDITOR or NONE")),
        false => Ok(()),
    }
}
