//! Carrying out a push at this host: get the manifest, get what is missing, install.
//!
//! The host takes the bundle whose base it has; failing that it compares the target with what is
//! on disk and fetches single chunks, so that a base which is not what the controller believes
//! costs the files concerned and no more. All of it is blocking work on one thread at a time.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use content::{
    Applied, ApplyError, ChunkRef, Chunks, ContentId, Installer, Job, Limits, Manifest, Origin,
    Pinned, Preflight, Segment, Unpack,
};
use mesh::{Asker, Digest, HostId, OrderId, PullFault, State};
use protos::{Answer, Bundle, Lacks, Part, Push, Pushed};
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tracing::{info, warn};

use crate::commands::Updated;
use crate::copies::{Copies, CopyError, Note, Placed};
use crate::exec::{failed, word};
use crate::journal::Journal;
use crate::owed::Owed;
use crate::terms;
use crate::transfer::{Transfers, Wish};

/// Single chunks wanted of the core at once.
const WANTED_AT_ONCE: usize = 256;

/// The installs of one host.
#[derive(Clone)]
pub(crate) struct Installs {
    pub(crate) host: HostId,
    pub(crate) root: PathBuf,
    /// The node's own folder, which no push may touch.
    pub(crate) state: PathBuf,
    pub(crate) journal: Journal,
    pub(crate) transfers: Transfers,
    /// One install at a time; the executor takes it.
    pub(crate) turn: Arc<Mutex<()>>,
    /// Whether packs are kept for children.
    pub(crate) serves: bool,
}

/// What a push has changed.
pub(crate) struct Changed {
    pub(crate) updated: Updated,
    /// Whether anything at all.
    pub(crate) any: bool,
}

/// Why a push failed at this host; nothing is half done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InstallError {
    #[error("the pack cannot be had: {0}")]
    Fetch(&'static str),
    #[error("the pack is not readable")]
    Pack(#[from] content::PackError),
    #[error("the manifest is not the one that the order names")]
    Manifest,
    #[error("what the push is to leave alone is not readable")]
    Pattern(#[from] content::PatternError),
    #[error("{0} is, holds or is in this node's own state folder")]
    Own(String),
    #[error("the content store of this host failed")]
    Store(#[source] content::StoreError),
    #[error("the node's database failed")]
    Journal(#[source] crate::journal::JournalError),
    #[error(transparent)]
    Apply(ApplyError),
}

impl InstallError {
    /// Whether something of the new tree may be in place all the same.
    pub(crate) fn may_have_changed(&self) -> bool {
        match self {
            InstallError::Apply(error) => error.partial(),
            InstallError::Store(_) | InstallError::Journal(_) => true,
            _ => false,
        }
    }
}

impl Installs {
    /// Installs a push on a blocking thread. Says what has changed, if it went through and there
    /// are commands that want to know.
    pub(crate) async fn install(
        &self,
        order: OrderId,
        push: Push,
    ) -> ((State, Answer), Option<Changed>) {
        let (installs, handle) = (self.clone(), Handle::current());
        let work = move || installs.install_blocking(order, &push, &handle);
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(Some((answer, changed)))) => ((State::Ok, answer), changed),
            Ok(Ok(None)) => {
                let detail = "a push that was given later is in place already".to_string();
                ((State::Skipped, failed("install", "superseded", detail).1), None)
            }
            Ok(Err(error)) => (failure(&error), None),
            Err(error) => (failed("install", "the installer failed", error.to_string()), None),
        }
    }

    pub(crate) fn install_blocking(
        &self,
        order: OrderId,
        push: &Push,
        handle: &Handle,
    ) -> Result<Option<(Answer, Option<Changed>)>, InstallError> {
        let newest = self.journal.installed(&push.dest).map_err(InstallError::Journal)?;
        if !push.terms.verify && newest.is_some_and(|(_, newest)| newest > order) {
            return Ok(None);
        }
        let clears = push.terms.tree || push.terms.delete != protos::Delete::Nothing;
        if touches(&self.state, &self.root, &push.dest, clears) {
            return Err(InstallError::Own(String::from_utf8_lossy(&push.dest).into()));
        }
        let store = &*self.transfers.store;
        for part in &push.inline {
            store.put(ContentId::of(part), part).map_err(InstallError::Store)?;
        }
        let rules = terms::rules(&push.terms)?;
        let pins = store.pin([]);
        let mut work = Work { installs: self, push, handle, bundle: None, base: None, pins };
        let (target, before) = work.choose()?;
        let (tag, before) = (order.to_string(), before.as_ref());
        let (tag, dest) = (&tag[20..], &push.dest);
        let job = Job { tag, dest, target: &target, rules: &rules, before };
        if push.terms.verify {
            let answer = self.verify(push, &job)?;
            if !self.serves {
                store.remove(&parts(push)).map_err(InstallError::Store)?;
            }
            return Ok(Some((answer, None)));
        }
        let mut resumed = false;
        if push.terms.has_commands() {
            let place = (push.dest.clone(), push.manifest);
            let owed = self.owed().begin(order, &[place]).map_err(InstallError::Journal)?;
            resumed = !owed.is_empty();
        }
        let put = self.put(order, push, (&work, &job), resumed);
        if let Err(error) = &put
            && push.terms.has_commands()
            && !resumed
            && !error.may_have_changed()
        {
            let dest = push.dest.clone();
            self.owed().end(&[dest]).map_err(InstallError::Journal)?;
        }
        put
    }

    /// Puts what was prepared in place. `resumed`: an earlier attempt has begun to, and commands
    /// are owed for it.
    fn put(
        &self,
        order: OrderId,
        push: &Push,
        (work, job): (&Work<'_>, &Job<'_>),
        resumed: bool,
    ) -> Result<Option<(Answer, Option<Changed>)>, InstallError> {
        let (store, target) = (&*self.transfers.store, job.target);
        if push.terms.tree && push.terms.rollback && self.roll_back(order, push)? {
            self.keep_manifest(push, job)?;
            info!(dest = %String::from_utf8_lossy(&push.dest), "rolled back");
            let written = target.entries.len() as u64;
            let pushed = Some(Pushed { written, ..Pushed::default() });
            let all = 0..target.entries.len();
            let updated = Updated::of(push, target, all.filter(|n| is_file(target, *n)))?;
            let answer = Answer { push: pushed, ..Answer::default() };
            return Ok(Some((answer, Some(Changed { updated, any: true }))));
        }
        let mut source = Source { work, target, fetched: Vec::new() };
        let applied = match push.terms.tree {
            true => self.release(order, push, job, &mut source)?,
            false => self.overlay(order, push, job, &mut source)?,
        };
        let fetched = std::mem::take(&mut source.fetched);
        // The files are in place: their chunks need not lie in the store as well.
        store.remove(&fetched).map_err(InstallError::Store)?;
        if !self.serves {
            store.remove(&parts(push)).map_err(InstallError::Store)?;
        }
        let (dest, written, deleted) =
            (String::from_utf8_lossy(&push.dest), applied.written, applied.deleted);
        info!(%dest, written, deleted, "installed");
        let pushed = Pushed {
            written,
            unchanged: applied.unchanged,
            bytes: applied.bytes_written,
            fixed: applied.metadata_fixed,
            deleted,
            drift: 0,
            warnings: warnings(&applied),
            lacks: None,
        };
        let any = resumed || written + deleted + applied.metadata_fixed > 0;
        let updated = match (push.terms.has_commands(), resumed) {
            (false, _) => Updated::default(),
            (true, false) => Updated::of(push, target, applied.updated.iter().copied())?,
            (true, true) => {
                let all = 0..target.entries.len();
                Updated::of(push, target, all.filter(|n| is_file(target, *n)))?
            }
        };
        let answer = Answer { push: Some(pushed), ..Answer::default() };
        Ok(Some((answer, Some(Changed { updated, any }))))
    }

    /// The commands that are owed at destinations.
    pub(crate) fn owed(&self) -> Owed {
        Owed { journal: self.journal.clone() }
    }

    /// Puts a tree in place file by file.
    fn overlay(
        &self,
        order: OrderId,
        push: &Push,
        job: &Job<'_>,
        chunks: &mut dyn Chunks,
    ) -> Result<Applied, InstallError> {
        let installer = Installer::new(self.root.clone());
        // This order may have been begun before, by a process that was killed.
        installer.sweep(job).map_err(InstallError::Apply)?;
        let applied = installer.apply(job, &self.transfers.store, chunks);
        let applied = applied.map_err(InstallError::Apply)?;
        self.keep_manifest(push, job)?;
        // Also of what was right already: an order given before this one must not come after it.
        let before = self.journal.installed(&push.dest).map_err(InstallError::Journal)?;
        if before != Some((push.manifest, order)) {
            let noted = self.journal.set_installed(&push.dest, push.manifest, order);
            noted.map_err(InstallError::Journal)?;
        }
        Ok(applied)
    }

    /// Keeps the manifest of what is in place: the next push builds on it.
    pub(crate) fn keep_manifest(&self, push: &Push, job: &Job<'_>) -> Result<(), InstallError> {
        let kept = self.transfers.store.put(ContentId(push.manifest.0), &job.target.encode());
        kept.map_err(InstallError::Store)
    }

    /// Notes what an order has put in place, and keeps copies of what is small.
    pub(crate) fn keep_copies(&self, order: OrderId, placed: &[Placed]) -> Result<(), CopyError> {
        let copies = Copies { journal: &self.journal, store: &self.transfers.store };
        copies.note(order, placed)?;
        for Placed { dest, manifest, .. } in placed {
            if let Some(target) = copies.manifest(*manifest)? {
                copies.keep(&self.root, dest, &target);
            }
        }
        Ok(())
    }

    /// Puts right what an order has put in place, from what is kept here, or else from the parent.
    /// Returns how much was not right; `None`: something else has been put there since.
    pub(crate) fn put_right(
        &self,
        note: &Note,
        handle: &Handle,
    ) -> Result<Option<u64>, InstallError> {
        let installed = self.journal.installed(&note.dest).map_err(InstallError::Journal)?;
        if installed != Some((note.manifest, note.order)) {
            return Ok(None);
        }
        let store = &*self.transfers.store;
        let push = Push {
            dest: note.dest.clone(),
            manifest: note.manifest,
            full_manifest: Part { id: note.manifest, bytes: 0 },
            bundles: Vec::new(),
            inline: Vec::new(),
            terms: protos::Terms::default(),
        };
        let pins = store.pin([]);
        let work = Work { installs: self, push: &push, handle, bundle: None, base: None, pins };
        let target = work.load_manifest(note.manifest)?.ok_or(InstallError::Manifest)?;
        let (rules, tag) = (terms::rules(&push.terms)?, note.order.to_string());
        let (tag, dest) = (&tag[20..], &note.dest[..]);
        let job = Job { tag, dest, target: &target, rules: &rules, before: None };
        let installer = Installer::new(self.root.clone());
        installer.sweep(&job).map_err(InstallError::Apply)?;
        let mut source = Source { work: &work, target: &target, fetched: Vec::new() };
        let applied = installer.apply(&job, store, &mut source).map_err(InstallError::Apply)?;
        Ok(Some(applied.written + applied.metadata_fixed))
    }

    /// Says how the destination differs, and changes nothing.
    fn verify(&self, push: &Push, job: &Job<'_>) -> Result<Answer, InstallError> {
        let installer = Installer::new(self.root.clone());
        let store = &*self.transfers.store;
        if push.terms.preflight {
            let found = match push.terms.tree {
                true => installer.preflight_release(job, store),
                false => installer.preflight(job, store),
            };
            let Preflight { obstacles, missing } = found.map_err(InstallError::Apply)?;
            let lacks = Some(lacks(job.target, &missing));
            let dest = String::from_utf8_lossy(&push.dest);
            info!(%dest, obstacles = obstacles.len(), "asked");
            let push = Some(Pushed { warnings: obstacles, lacks, ..Pushed::default() });
            return Ok(Answer { push, ..Answer::default() });
        }
        let drift = installer.compare(job).map_err(InstallError::Apply)?;
        info!(dest = %String::from_utf8_lossy(&push.dest), drift = drift.entries, "verified");
        let would = |obstacle: String| format!("a push would not go through: {obstacle}");
        let warnings = drift.obstacles.into_iter().map(would).collect();
        let push = Some(Pushed { drift: drift.entries, warnings, ..Pushed::default() });
        let (stdout, stdout_size) = (drift.text.into(), drift.size);
        Ok(Answer { stdout, stdout_size, push, ..Answer::default() })
    }
}

/// Which pieces of a tree are missing, by their places among those that travel to a new host.
fn lacks(target: &Manifest, missing: &[ChunkRef]) -> Lacks {
    let missing: std::collections::BTreeSet<_> = missing.iter().map(|chunk| chunk.id).collect();
    let plan = content::plan(None, target);
    let places = (0..).zip(&plan).filter(|(_, chunk)| missing.contains(&chunk.id));
    Lacks::new(u32::try_from(plan.len()).unwrap_or(u32::MAX), places.map(|(place, _)| place))
}

/// Whether a push would put something into the node's own folder, or take it away with what is
/// around it. An install root within it, as a demo has, is a world of its own.
fn touches(state: &Path, root: &Path, dest: &[u8], clears: bool) -> bool {
    let Ok(state) = state.canonicalize() else { return false };
    let root = root.canonicalize().unwrap_or_else(|_| root.to_path_buf());
    if root.starts_with(&state) {
        return false;
    }
    let below = dest.strip_prefix(b"/").unwrap_or(dest);
    let dest = root.join(OsStr::from_bytes(below));
    // What is there of it may be links; the rest is as it was given.
    let there = dest.ancestors().find_map(|at| Some((at, at.canonicalize().ok()?)));
    let dest = match there {
        Some((at, real)) => real.join(dest.strip_prefix(at).unwrap_or(&dest)),
        None => dest.clone(),
    };
    dest.starts_with(&state) || (clears && state.starts_with(&dest))
}

fn is_file(target: &Manifest, n: usize) -> bool {
    !matches!(target.entries[n].kind, content::Kind::Dir)
}

/// What did not go as well as it might.
fn warnings(applied: &Applied) -> Vec<String> {
    let mut warnings = Vec::new();
    if applied.owner_skipped > 0 {
        let n = applied.owner_skipped;
        warnings.push(format!("the owner of {n} entries is not kept: the node is not root"));
    }
    if applied.attributes_lost > 0 {
        let n = applied.attributes_lost;
        warnings.push(format!("not all attributes of {n} entries are kept: they cannot be there"));
    }
    let named = [
        (&applied.kept, "not deleted, since they were changed there"),
        (&applied.newer, "left as they are, since they are newer there"),
    ];
    for (kept, what) in named.into_iter().filter(|(kept, _)| kept.count > 0) {
        let some = kept.paths.join(", ");
        let more = if kept.count > kept.paths.len() as u64 { " and others" } else { "" };
        warnings.push(format!("{what}: {some}{more}"));
    }
    warnings
}

/// Every object in which a push may have come here.
fn parts(push: &Push) -> Vec<ContentId> {
    let bundles = push.bundles.iter().flat_map(parts_of);
    let sent = bundles.chain([&push.full_manifest]).map(|part| ContentId(part.id.0));
    sent.chain(push.inline.iter().map(|part| ContentId::of(part))).collect()
}

fn parts_of(bundle: &Bundle) -> impl Iterator<Item = &Part> {
    std::iter::once(&bundle.manifest).chain(&bundle.segments).chain(&bundle.deltas)
}

/// One push while it is carried out.
struct Work<'a> {
    installs: &'a Installs,
    push: &'a Push,
    handle: &'a Handle,
    bundle: Option<&'a Bundle>,
    base: Option<Manifest>,
    /// What lies in the store for this, named by nothing else.
    pins: Pinned<'a>,
}

impl Work<'_> {
    /// Decides for a bundle and decodes the target's manifest. Returns that of what is installed
    /// as well, if it is known.
    fn choose(&mut self) -> Result<(Manifest, Option<Manifest>), InstallError> {
        let installed = self.installs.journal.installed(&self.push.dest);
        let installed = installed.map_err(InstallError::Journal)?;
        let base = match installed {
            Some((root, _)) => self.load_manifest(root)?.map(|manifest| (root, manifest)),
            None => None,
        };
        let based = |root| self.push.bundles.iter().find(|b| b.base == Some(root));
        let host = self.installs.host;
        let full = || self.push.bundles.iter().find(|b| b.base.is_none() && b.hosts.contains(host));
        let (part, canonical) = match &base {
            Some((root, manifest)) if based(*root).is_some() => {
                let bundle = based(*root).expect("it was just found");
                (self.bundle, self.base) = (Some(bundle), Some(manifest.clone()));
                (&bundle.manifest, Some(manifest.encode()))
            }
            _ => {
                self.bundle = full();
                let part = self.bundle.map_or(&self.push.full_manifest, |b| &b.manifest);
                (part, None)
            }
        };
        let bytes = self.part(part)?;
        let target =
            content::pack::decode_manifest(&bytes, canonical.as_deref(), &Limits::default());
        let target = target.map_err(InstallError::Pack)?;
        match target.root() == ContentId(self.push.manifest.0) {
            true => Ok((target, base.map(|(_, manifest)| manifest))),
            false => Err(InstallError::Manifest),
        }
    }

    fn load_manifest(&self, root: Digest) -> Result<Option<Manifest>, InstallError> {
        let bytes = self.installs.transfers.store.get(&ContentId(root.0));
        let bytes = bytes.map_err(InstallError::Store)?;
        Ok(bytes.and_then(|bytes| Manifest::decode(&bytes, &Limits::default()).ok()))
    }

    /// A part of the pack: from the store, or fetched now.
    fn part(&self, part: &Part) -> Result<Bytes, InstallError> {
        self.pins.add([ContentId(part.id.0)]);
        let transfers = self.installs.transfers.clone();
        let object = self.handle.block_on(transfers.obtain(part.id));
        object.map_err(|fault| InstallError::Fetch(word(fault)))
    }

    /// Brings chunks into the store, out of the bundle or singly. Returns what is in the store
    /// besides, for as long as the files are not in place.
    fn unpack(&self, wanted: &[ChunkRef], target: &Manifest) -> Result<Vec<ContentId>, ApplyError> {
        let store = &*self.installs.transfers.store;
        self.segments(wanted, target).map_err(provide)?;
        if let (Some(bundle), Some(base)) = (self.bundle, &self.base) {
            let installer = Installer::new(self.installs.root.clone());
            let installed = installer.installed(&self.push.dest, base)?;
            let part = |part: &Part| content::Part { id: ContentId(part.id.0), bytes: part.bytes };
            let deltas: Vec<_> = bundle.deltas.iter().map(part).collect();
            let mut unpack = Unpack { base, target, deltas: &deltas, installed, store };
            return unpack.run(wanted, &mut Upstream { work: self });
        }
        self.fetch(wanted).map_err(provide)?;
        Ok(Vec::new())
    }

    /// Sees that all of it will find room in the store, before the first byte of it comes.
    fn make_room(&self, wanted: &[ChunkRef]) -> Result<(), InstallError> {
        let parts = self.bundle.iter().flat_map(|bundle| parts_of(bundle));
        let parts = parts.map(|part| (ContentId(part.id.0), part.bytes));
        let all: Vec<_> = parts.chain(wanted.iter().map(|chunk| (chunk.id, chunk.len))).collect();
        self.pins.add(all.iter().map(|(id, _)| *id));
        let transfers = &self.installs.transfers;
        transfers.in_room(|store| store.make_room_for(&all)).map_err(InstallError::Store)
    }

    /// Unpacks what the bundle has of chunks as they are.
    fn segments(&self, wanted: &[ChunkRef], target: &Manifest) -> Result<(), InstallError> {
        let Some(bundle) = self.bundle.filter(|bundle| !bundle.segments.is_empty()) else {
            return Ok(());
        };
        let wanted: std::collections::BTreeSet<_> = wanted.iter().map(|chunk| chunk.id).collect();
        let plan = content::plan(self.base.as_ref(), target);
        let store = &*self.installs.transfers.store;
        for part in &bundle.segments {
            let bytes = self.part(part)?;
            // It may have been decoded ahead.
            let brings = Segment::chunks(&bytes, &plan)?;
            if !brings.iter().any(|chunk| wanted.contains(&chunk.id)) {
                continue;
            }
            let mut batch = store.batch();
            Segment::decode(&bytes, &plan, &mut |chunk, bytes| match wanted.contains(&chunk.id) {
                true => batch.put(chunk.id, bytes).map_err(InstallError::Store),
                false => Ok(()),
            })?;
            batch.commit().map_err(InstallError::Store)?;
        }
        Ok(())
    }

    /// Fetches chunks one by one: those that no bundle brings.
    fn fetch(&self, chunks: &[ChunkRef]) -> Result<(), InstallError> {
        let store = &*self.installs.transfers.store;
        let absent = |chunk: &&ChunkRef| !store.has(&chunk.id).unwrap_or(false);
        let left: Vec<_> = chunks.iter().filter(absent).map(|chunk| chunk.id).collect();
        self.pins.add(chunks.iter().map(|chunk| chunk.id));
        if !left.is_empty() {
            info!(chunks = left.len(), "fetching single chunks: the base is not as expected");
        }
        for ids in left.chunks(WANTED_AT_ONCE) {
            let transfers = &self.installs.transfers;
            let all = async {
                let mut tasks = tokio::task::JoinSet::new();
                for id in ids {
                    let (transfers, id) = (transfers.clone(), Digest(id.0));
                    let want = async move { transfers.want(id, Asker::Local).await.map(Wish::end) };
                    tasks.spawn(want);
                }
                tasks.join_all().await.into_iter().collect::<Result<(), PullFault>>()
            };
            self.handle.block_on(all).map_err(|fault| InstallError::Fetch(word(fault)))?;
        }
        Ok(())
    }
}

/// Where the installer gets what it misses.
struct Source<'a> {
    work: &'a Work<'a>,
    target: &'a Manifest,
    fetched: Vec<ContentId>,
}

impl Chunks for Source<'_> {
    fn provide(&mut self, wanted: &[ChunkRef]) -> Result<(), ApplyError> {
        self.fetched = wanted.iter().map(|chunk| chunk.id).collect();
        self.work.make_room(wanted).map_err(provide)?;
        let besides = self.work.unpack(wanted, self.target);
        let besides = besides.inspect_err(|error| {
            warn!(error = %crate::chain(error), "content is missing");
        })?;
        self.fetched.extend(besides);
        Ok(())
    }
}

/// The rest of the mesh, by way of the parent.
struct Upstream<'a> {
    work: &'a Work<'a>,
}

impl Origin for Upstream<'_> {
    fn part(&mut self, part: &content::Part) -> Result<Vec<u8>, ApplyError> {
        let part = Part { id: Digest(part.id.0), bytes: part.bytes };
        self.work.part(&part).map(Vec::from).map_err(provide)
    }

    fn fetch(&mut self, chunks: &[ChunkRef]) -> Result<(), ApplyError> {
        self.work.fetch(chunks).map_err(provide)
    }
}

fn provide(error: InstallError) -> ApplyError {
    ApplyError::Provide(Box::new(error))
}

/// What the host answers when a push failed: the stage, the kind and the whole story.
fn failure(error: &InstallError) -> (State, Answer) {
    let stage = match error {
        InstallError::Apply(ApplyError::Provide(_))
        | InstallError::Fetch(_)
        | InstallError::Pack(_)
        | InstallError::Manifest
        | InstallError::Pattern(_) => "fetch",
        InstallError::Own(_) => "install",
        InstallError::Apply(_) => "install",
        InstallError::Store(_) | InstallError::Journal(_) => "store",
    };
    failed(stage, "push", crate::chain(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_touches_the_nodes_own_folder() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let root = dir.path().join("root");
        let state = root.join("var/lib/barid");
        std::fs::create_dir_all(&state).expect("can be made");
        std::os::unix::fs::symlink("var/lib", root.join("link")).expect("can be made");
        let check = |dest: &str, clears| touches(&state, &root, dest.as_bytes(), clears);
        for dest in ["/var/lib", "/var", "/link"] {
            assert!(check(dest, true), "{dest} holds it");
            assert!(!check(dest, false), "{dest} is only added to");
        }
        for dest in ["/var/lib/barid", "/link/barid/store", "/var/lib/barid/not/there"] {
            assert!(check(dest, false), "{dest} is in it");
        }
        for dest in ["/srv/site", "/var/lib/barid2", "/var/lib/other/not/there"] {
            assert!(!check(dest, true), "{dest} is elsewhere");
        }
        let inner = state.join("root");
        std::fs::create_dir(&inner).expect("can be made");
        assert!(!touches(&state, &inner, b"/srv", true), "a root within the folder");
    }
}
