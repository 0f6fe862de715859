//! The fleet as the controller keeps it: one change at a time, on disk before it counts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use content::Manifest;
use mesh::{HostId, HostSet};
use protos::Schedule;
use relay::Journal;

use super::ask::Reader;
use super::book::{Book, Enrolled, Revision, Roll, Wish};
use super::change::{Effect, HostEdit, Pen, Policy, PolicyEdit, Refusal};
use super::domain::{Domain, DomainPath};
use super::reading::{Attributes, Shelf, with_attributes, with_old_attributes};
use super::store::{Moves, Store};
use super::types::{Change, Changed, Frequency, NewChange, Origin};
use crate::clock::now_ms;
use crate::fault::Failure;
use crate::tables::HostRow;

/// Keeps the fleet's book.
#[derive(Clone)]
pub(crate) struct Fleet {
    pub(crate) store: Store,
    pub(crate) shelf: Shelf,
    known: Arc<RwLock<Known>>,
    /// Held while a change is made.
    turn: Arc<Mutex<()>>,
}

/// The book and what follows from it.
#[derive(Clone, Default)]
pub(crate) struct Known {
    pub(crate) book: Arc<Book>,
    pub(crate) roll: Arc<Roll>,
}

impl Known {
    /// What is due when: the frequencies that begin by themselves and of which there are files.
    pub(crate) fn schedule(&self) -> Schedule {
        let used: BTreeSet<&str> =
            self.book.entries.values().map(|entry| entry.frequency.as_str()).collect();
        let is_used = |(name, frequency): &(&String, &Frequency)| {
            frequency.automatic && used.contains(name.as_str())
        };
        let frequencies = self.book.frequencies.iter().filter(is_used);
        let frequencies: BTreeMap<_, _> =
            frequencies.map(|(name, frequency)| (name.clone(), frequency.times())).collect();
        let zones = self.book.sites.iter().map(|(site, is)| (site.clone(), is.zone.clone()));
        let zones = if frequencies.is_empty() { BTreeMap::new() } else { zones.collect() };
        Schedule { frequencies, zones }
    }

    pub(crate) fn reader(&self) -> Reader<'_> {
        Reader { book: &self.book, roll: &self.roll }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        let text = refusal.to_string();
        let bad = |help: &str| Failure::bad(text.clone(), help);
        match refusal {
            Refusal::Name(_) | Refusal::Line(_) | Refusal::Config(_) | Refusal::Host(_) => bad(""),
            Refusal::Path(_) => bad("a domainpath is DOMAIN:PATH, as in common.adm:/etc/hosts"),
            Refusal::Level(_) => bad("`barid domain tree` shows which there are"),
            Refusal::UnknownHost(_) => bad("`barid host list` lists them"),
            Refusal::UnknownEntry(_) | Refusal::NoRevision { .. } => {
                bad("`barid file list` lists what is under control")
            }
            Refusal::UnknownFrequency { .. } | Refusal::Entry { .. } => bad(""),
            Refusal::OtherLevel { .. } => bad(""),
            Refusal::NotEmpty { .. } => Failure::conflict(text, "-f deletes these, too"),
            Refusal::WouldGo { .. } => Failure::conflict(text, "-f lets them go"),
            Refusal::EntryExists(_) => Failure::conflict(text, "edit it, or remove it first"),
            Refusal::Locked { .. } => {
                Failure::conflict(text, "unlock it if it was left by accident")
            }
            Refusal::NotLocked(_) | Refusal::Full => Failure::conflict(text, ""),
            Refusal::Clash { .. } => {
                Failure::conflict(text, "give one of them more words, or fewer wildcards")
            }
        }
    }
}

impl Fleet {
    /// Opens the fleet's tables.
    pub(crate) fn open(
        journal: Journal,
        content: Arc<content::Store>,
    ) -> Result<Fleet, relay::JournalError> {
        let store = Store::open(journal)?;
        let book = store.book()?;
        let roll = Arc::new(Roll::of(&book));
        let known = Known { book: Arc::new(book), roll };
        Ok(Fleet {
            store,
            shelf: Shelf { store: content },
            known: Arc::new(RwLock::new(known)),
            turn: Arc::default(),
        })
    }

    /// How things are.
    pub(crate) fn known(&self) -> Known {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Somebody has enrolled, anew perhaps, or was removed. Blocks.
    pub(crate) fn meet(&self, hosts: &BTreeMap<HostId, HostRow>) -> Result<(), Failure> {
        let _turn = self.begin();
        let old = self.known();
        let enrolled = |(id, row): (&HostId, &HostRow)| {
            (row.name.clone(), Arc::new(Enrolled { id: id.0, key: row.key }))
        };
        let now: BTreeMap<String, Arc<Enrolled>> = hosts.iter().map(enrolled).collect();
        if now == *old.book.enrolled {
            return Ok(());
        }
        // Whoever has another key was installed anew: nobody knows what is there.
        let has_changed = |(name, new): &(&String, &Arc<Enrolled>)| {
            old.book.enrolled.get(*name).is_some_and(|old| old.key != new.key)
        };
        let renewed: HostSet =
            now.iter().filter(has_changed).map(|(_, enrolled)| HostId(enrolled.id)).collect();
        let book = Book { enrolled: Arc::new(now), ..(*old.book).clone() };
        self.commit(&old, book, Effect::default(), &renewed)
    }

    /// Makes a change. Blocks.
    pub(crate) fn change(&self, new: NewChange) -> Result<Changed, Failure> {
        let NewChange { by, change } = new;
        let mut pen = Pen { by, at_ms: now_ms(), note: String::new() };
        // Reading may take long, and changes nothing.
        let read = match &change {
            Change::Install { content: Origin::File(path), exclude, .. } => {
                Some(self.shelf.read(path, exclude)?)
            }
            Change::Put { content: Origin::File(from), path, .. } => {
                let exclude = self.known().book.entry(&entry(path)?)?.exclude.clone();
                Some(self.shelf.read(from, &exclude)?)
            }
            _ => None,
        };
        let _turn = self.begin();
        let old = self.known();
        let mut book = (*old.book).clone();
        let mut lock = None;
        let effect = match change {
            Change::Lock { path } => {
                let token: String =
                    certs::random::<16>().iter().map(|byte| format!("{byte:02x}")).collect();
                let effect = book.lock(&entry(&path)?, token.clone(), &pen)?;
                lock = Some(token);
                effect
            }
            change => self.apply(&mut book, change, read, &mut pen)?,
        };
        let changed = book != *old.book;
        let notes = effect.notes.clone();
        if changed {
            self.commit(&old, book, effect, &HostSet::new())?;
        }
        Ok(Changed { changed, notes, lock })
    }

    /// A host's own wish to get an entry from now on, or no more. Blocks.
    pub(crate) fn wish(
        &self,
        host: &str,
        path: &DomainPath,
        wanted: bool,
    ) -> Result<bool, Failure> {
        let _turn = self.begin();
        let old = self.known();
        let mut book = (*old.book).clone();
        let effect = match wanted {
            true => book.subscribe(host, path, Wish::Host)?,
            false => book.unsubscribe(host, path, Wish::Host)?,
        };
        let changed = book != *old.book;
        if changed {
            self.commit(&old, book, effect, &HostSet::new())?;
        }
        Ok(changed)
    }

    fn apply(
        &self,
        book: &mut Book,
        change: Change,
        read: Option<Manifest>,
        pen: &mut Pen,
    ) -> Result<Effect, Failure> {
        Ok(match change {
            Change::CreateDomain { domain } => book.create_domain(&name(&domain)?)?,
            Change::DeleteDomain { domain, force } => book.delete_domain(&name(&domain)?, force)?,
            Change::CloneDomain { from, to } => book.clone_domain(&name(&from)?, &name(&to)?)?,
            Change::ImportHosts { text, force } => book.import_hosts(&text, force)?,
            Change::SetHost { name: host, ip, ether, aliases, relay, domains } => {
                let names = |domains: Vec<String>| domains.iter().map(|d| name(d)).collect();
                let domains = domains.map(names).transpose()?;
                book.set_host(&host, &HostEdit { ip, ether, aliases, relay, domains })?
            }
            Change::RemoveHost { name } => book.remove_host(&name)?,
            Change::ImportConfig { text } => book.import_config(&text)?,
            Change::ImportFiles { text, force } => book.import_files(&text, force)?,
            Change::Install {
                content,
                path,
                frequency,
                editor,
                command,
                exclude,
                delete_extra: delete,
                optional,
            } => {
                let manifest = self.origin(book, content, read)?;
                let content = self.shelf.keep(&manifest)?;
                let policy = Policy { frequency, command, editor, delete, exclude, optional };
                book.install(&entry(&path)?, content, policy, pen)?
            }
            Change::Put { content, path, lock, note, .. } => {
                pen.note = note;
                let path = entry(&path)?;
                let manifest = self.origin(book, content, read)?;
                let wrong = |what| Refusal::Entry { path: path.clone(), what };
                let old = self.shelf.manifest(self.root(book, &path)?)?;
                let manifest = with_old_attributes(manifest, &old).map_err(wrong)?;
                book.put(&path, self.shelf.keep(&manifest)?, lock.as_deref(), pen)?
            }
            Change::SetAttributes { paths, mode, owner, group } => {
                let attributes = Attributes { mode, owner, group };
                self.set_attributes(book, &paths, &attributes, pen)?
            }
            Change::Rollback { path, revision } => {
                self.roll_back(book, &entry(&path)?, revision, pen)?
            }
            Change::Merge { from, to } => book.merge(&entry(&from)?, &entry(&to)?)?,
            Change::SetFrequency { path, frequency } => {
                book.set_policy(&entry(&path)?, PolicyEdit::Frequency(frequency))?
            }
            Change::SetCommand { path, command } => {
                book.set_policy(&entry(&path)?, PolicyEdit::Command(command))?
            }
            Change::SetEditor { path, editor } => {
                book.set_policy(&entry(&path)?, PolicyEdit::Editor(editor))?
            }
            Change::SetOptional { .. } | Change::Subscribe { .. } | Change::Unsubscribe { .. } => {
                apply_wish(book, change)?
            }
            Change::Remove { paths } => {
                let paths = paths.iter().map(|path| entry(path)).collect::<Result<Vec<_>, _>>()?;
                book.remove(&paths)?
            }
            Change::Unlock { path, lock } => book.unlock(&entry(&path)?, lock.as_deref())?,
            Change::Lock { .. } => unreachable!("a lock is given by the caller"),
        })
    }

    fn origin(
        &self,
        book: &Book,
        content: Origin,
        read: Option<Manifest>,
    ) -> Result<Manifest, Failure> {
        match (content, read) {
            (Origin::Entry(path), _) => self.shelf.manifest(self.root(book, &entry(&path)?)?),
            (Origin::File(_), Some(manifest)) => Ok(manifest),
            (Origin::File(path), None) => Err(Failure::internal(format!("{path}: was not read"))),
        }
    }

    fn root<'a>(&self, book: &'a Book, path: &DomainPath) -> Result<&'a str, Failure> {
        let source = book.entry(path)?.source;
        Ok(&book.sources[&source].revision.content.root)
    }

    fn set_attributes(
        &self,
        book: &mut Book,
        paths: &[String],
        attributes: &Attributes,
        pen: &mut Pen,
    ) -> Result<Effect, Failure> {
        let mut all = Effect::default();
        pen.note = "attributes".into();
        for path in paths {
            let path = entry(path)?;
            let old = self.shelf.manifest(self.root(book, &path)?)?;
            let wrong = |what| Refusal::Entry { path: path.clone(), what };
            let manifest = with_attributes(old, attributes).map_err(wrong)?;
            let effect = book.put(&path, self.shelf.keep(&manifest)?, None, pen)?;
            all.touched.extend(effect.touched);
            all.revisions.extend(effect.revisions);
        }
        Ok(all)
    }

    fn roll_back(
        &self,
        book: &mut Book,
        path: &DomainPath,
        number: u32,
        pen: &mut Pen,
    ) -> Result<Effect, Failure> {
        let source = book.entry(path)?.source;
        let newest = book.sources[&source].revision.number;
        let wanted = if number == 0 { newest.saturating_sub(1) } else { number };
        let revisions = self.store.revisions(source)?;
        let old = revisions.into_iter().find(|revision| revision.number == wanted);
        let gone = || Refusal::NoRevision { path: path.clone(), number: wanted };
        let old: Revision = old.ok_or_else(gone)?;
        // Whether its manifest is still there is better asked now.
        self.shelf.manifest(&old.content.root)?;
        pen.note = format!("back to revision {wanted}");
        Ok(book.put(path, old.content, None, pen)?)
    }

    /// Writes the new book, and lets it count. `renewed`: hosts of which nothing is known any more.
    fn commit(
        &self,
        old: &Known,
        mut book: Book,
        effect: Effect,
        renewed: &HostSet,
    ) -> Result<(), Failure> {
        let roll = match book.may_move(&old.book) {
            true => Arc::new(Roll::of(&book)),
            false => old.roll.clone(),
        };
        if let Some((host, one, other)) = roll.new_clash(&old.roll) {
            let (host, both) = (host.to_owned(), Box::new((one.clone(), other.clone())));
            return Err(Refusal::Clash { host, both }.into());
        }
        let moves = moves(&old.roll, &roll, &effect.touched, renewed);
        book.change = old.book.change + 1;
        self.store.write(&old.book, &book, &effect.revisions, &moves)?;
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        *known = Known { book: Arc::new(book), roll };
        Ok(())
    }

    fn begin(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What operators want of optional entries.
fn apply_wish(book: &mut Book, change: Change) -> Result<Effect, Failure> {
    Ok(match change {
        Change::SetOptional { path, optional } => book.set_optional(&entry(&path)?, optional)?,
        Change::Subscribe { host, path } => {
            book.subscribe(&host, &entry(&path)?, Wish::Operator)?
        }
        Change::Unsubscribe { host, path } => {
            book.unsubscribe(&host, &entry(&path)?, Wish::Operator)?
        }
        _ => Effect::default(),
    })
}

fn name(text: &str) -> Result<Domain, Failure> {
    Ok(text.parse::<Domain>().map_err(Refusal::Name)?)
}

pub(crate) fn entry(text: &str) -> Result<DomainPath, Failure> {
    Ok(text.parse::<DomainPath>().map_err(Refusal::Path)?)
}

/// Who lacks what he did not lack before, and who gets what no more.
fn moves(
    old: &Arc<Roll>,
    new: &Arc<Roll>,
    touched: &BTreeSet<DomainPath>,
    renewed: &HostSet,
) -> Moves {
    let mut moves = Moves::default();
    let has_moved = !Arc::ptr_eq(old, new);
    if has_moved {
        let gone = |path: &&DomainPath| new.paths.binary_search(path).is_err();
        moves.gone = old.paths.iter().filter(gone).cloned().collect();
    }
    for (at, path) in new.paths.iter().enumerate() {
        let is_touched = touched.contains(path);
        if !is_touched && !has_moved {
            continue;
        }
        let now = new.ids(&new.winners.of_entry[at]);
        let before = if has_moved { old.ids(&old.of_entry(path)) } else { now.clone() };
        let enter = match is_touched {
            true => now.clone(),
            false => now.difference(&before).union(&now.intersection(renewed)),
        };
        let leave = before.difference(&now);
        if !enter.is_empty() || is_touched || old.paths.binary_search(path).is_err() {
            moves.enter.insert(path.clone(), enter);
        }
        if !leave.is_empty() {
            moves.leave.insert(path.clone(), leave);
        }
    }
    moves
}
