//! What is there, what has to be done, and which chunks are on this disk already.
//!
//! Nothing is changed here. Content is compared by chunk hashes, never by time: a file is equal
//! or it is replaced. Every chunk of the target that is met in what is replaced is remembered with
//! its place, and those of what is equal as far as something is to be written of them; each is
//! hashed again when it is used, since the file may change until then. To look is the work of
//! [`eye`](super::eye); here is decided what follows.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{FileType, Stat, StatVfsMountFlags, fstatvfs, readlinkat};
use rustix::io::Errno;

use super::drift::word;
use super::error::{ApplyError, Stage};
use super::extra::{Extra, split};
use super::eye::{Content, Eye, Looked, Needed, how_many, look_ahead};
use super::ground::Ground;
use super::hard_links::HardLinks;
use super::owners::Owners;
use super::rules::{Delete, Rules};
use super::{Applied, Job, Named};
use crate::chunk::MAX_CHUNK;
use crate::guards::{Guard, holds};
use crate::id::ContentId;
use crate::manifest::{ChunkRef, Entry, Kind, Manifest};
use crate::store::Store;
use crate::tree;

/// Entries that are looked at ahead by several: few at first, since one of them may be the end of
/// it, then twice as many each time, and so many at most, since what was seen is in memory.
const FIRST: usize = 64;
const AHEAD: usize = 4096;

/// What to do about one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Keep,
    /// Content is right, mode, owner or time is not.
    Describe {
        dev: u64,
        ino: u64,
    },
    /// Made before the renames, or if it is later, in the place of what is not a directory, with
    /// them.
    MakeDir {
        later: bool,
    },
    /// File or link, to be renamed over what is there; an empty directory is removed first.
    Write {
        over_dir: bool,
        /// Whether only what describes it is wrong, and cannot be put right in place.
        equal: bool,
    },
    /// Something is there that is not replaced: an error, but not to those who only look.
    Blocked,
}

/// A chunk on disk: in the file that is now where this entry goes, at this offset.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) entry: usize,
    pub(super) offset: u64,
    /// Whether it is there in another tree than the one that is written.
    pub(super) other: bool,
}

/// The result, one action for each entry.
pub(super) struct Survey {
    pub(super) actions: Vec<Action>,
    pub(super) found: BTreeMap<ContentId, Found>,
    /// The entries whose content is there.
    equal: Vec<usize>,
    pub(super) applied: Applied,
    /// What goes in the end, children before their parents.
    pub(super) extras: Vec<Extra>,
    /// What goes before an entry can take its place.
    pub(super) clears: BTreeMap<usize, Vec<Extra>>,
    /// The directories that are made later, by path.
    later: BTreeSet<Vec<u8>>,
    pub(super) hard_links: HardLinks,
}

pub(super) fn survey(ground: &Ground, job: &Job<'_>) -> Result<Survey, ApplyError> {
    survey_with(ground, job, None).map(|(survey, _)| survey)
}

/// What each entry was that is there.
pub(super) type Stats = BTreeMap<usize, Stat>;

/// The same for those who only look: what is in the way is noted, and what was seen returned.
pub(super) fn look(ground: &Ground, job: &Job<'_>) -> Result<(Survey, Stats), ApplyError> {
    survey_with(ground, job, Some(Stats::new()))
}

fn survey_with(
    ground: &Ground,
    job: &Job<'_>,
    seen: Option<Stats>,
) -> Result<(Survey, Stats), ApplyError> {
    let target = job.target;
    let needed = Needed::new();
    let eye = || Eye::new(ground, target, &needed);
    let others = (1..how_many(target)).map_while(|_| eye().ok()).collect();
    let hard_links = HardLinks::of(target);
    let mut surveyor = Surveyor {
        ground,
        target,
        hard_links: &hard_links,
        rules: job.rules,
        before: job.before,
        eye: eye()?,
        others,
        looked: VecDeque::new(),
        ahead: FIRST,
        owners: Owners::new(),
        found: BTreeMap::new(),
        equal: Vec::new(),
        clears: BTreeMap::new(),
        kept: Named::default(),
        newer: Named::default(),
        seen,
    };
    let mut applied = Applied::default();
    let mut extras = Vec::new();
    let mut later = BTreeSet::new();
    let mut actions: Vec<Action> = Vec::with_capacity(target.entries.len());
    let mut absent: BTreeSet<&[u8]> = BTreeSet::new();
    for (n, entry) in target.entries.iter().enumerate() {
        let (dir, _) = ground.place(entry);
        let missing = !ground.missing.is_empty() || absent.contains(dir);
        let looked = surveyor.looked(n);
        let mut action = match hard_links.heads.get(&n) {
            // The names of one file are all right, or all made anew.
            Some(head) if actions[*head] == Action::Keep => Action::Keep,
            _ => surveyor.entry(n, entry, looked, missing)?,
        };
        if let Action::MakeDir { later: is_later } = &mut action {
            *is_later |= later.contains(dir);
            if *is_later {
                later.insert(entry.path.clone());
            }
        } else if entry.kind == Kind::Dir && action != Action::Blocked {
            surveyor.extras(&entry.path, &mut extras)?;
        }
        match action {
            Action::Keep | Action::Blocked => applied.unchanged += 1,
            Action::Describe { .. } => applied.metadata_fixed += 1,
            Action::MakeDir { .. } | Action::Write { .. } => applied.written += 1,
        }
        if matches!(action, Action::MakeDir { .. } | Action::Blocked) {
            absent.insert(&entry.path);
        }
        applied.owner_skipped += u64::from(surveyor.skips(entry, action)?);
        actions.push(action);
    }
    let Surveyor { found, equal, clears, kept, newer, seen, .. } = surveyor;
    (applied.kept, applied.newer) = (kept, newer);
    let mut survey = Survey { actions, found, equal, applied, extras, clears, later, hard_links };
    let wanted = survey.to_write(target);
    for (id, found) in survey.in_equal(target, &wanted) {
        survey.found.entry(id).or_insert(found);
    }
    Ok((survey, seen.unwrap_or_default()))
}

impl Survey {
    pub(super) fn nothing_to_do(&self) -> bool {
        self.extras.is_empty() && self.actions.iter().all(|action| *action == Action::Keep)
    }

    /// Notes which chunks are in another tree, where the same entries may be.
    pub(super) fn note_other(&mut self, ground: &Ground, job: &Job<'_>) -> Result<(), ApplyError> {
        let rules = Rules::default();
        let (survey, _) = look(ground, &Job { rules: &rules, before: None, ..*job })?;
        let equal = survey.in_equal(job.target, &self.to_write(job.target));
        for (id, found) in survey.found.into_iter().chain(equal) {
            self.found.entry(id).or_insert(Found { other: true, ..found });
        }
        Ok(())
    }

    /// The chunks of what is written.
    fn to_write(&self, target: &Manifest) -> BTreeSet<ContentId> {
        self.writes(target).flat_map(|(_, entry)| entry.chunks()).map(|chunk| chunk.id).collect()
    }

    /// Where these chunks are in files that are as they should be.
    fn in_equal(&self, target: &Manifest, wanted: &BTreeSet<ContentId>) -> Vec<(ContentId, Found)> {
        let mut all = Vec::new();
        if wanted.is_empty() {
            return all;
        }
        for entry in self.equal.iter().copied() {
            let mut offset = 0;
            for chunk in target.entries[entry].chunks() {
                if wanted.contains(&chunk.id) {
                    all.push((chunk.id, Found { entry, offset, other: false }));
                }
                offset += u64::from(chunk.len);
            }
        }
        all
    }

    /// How many entries go.
    pub(super) fn deletes(&self) -> u64 {
        let cleared = self.clears.values().map(Vec::len).sum::<usize>();
        (self.extras.len() + cleared) as u64
    }

    /// Refuses to delete more than the rules allow.
    pub(super) fn check_deletes(&self, ground: &Ground, rules: &Rules) -> Result<(), ApplyError> {
        let is_there = |action: &&Action| matches!(action, Action::Keep | Action::Describe { .. });
        let extra = self.deletes();
        let there = self.actions.iter().filter(is_there).count() as u64 + extra;
        let allowed = rules.max_delete.allowed(there);
        match extra > allowed {
            true => Err(ApplyError::TooMany { path: ground.shown(b""), extra, allowed }),
            false => Ok(()),
        }
    }

    /// Where the temporary files of a directory's entries go: into itself, or while something
    /// else has its place into the directory that is nearest above.
    pub(super) fn stage<'a>(&self, mut dir: &'a [u8]) -> &'a [u8] {
        while !dir.is_empty() && self.later.contains(dir) {
            dir = split(dir).0;
        }
        dir
    }

    /// The chunks that are neither on disk nor in the store, each once.
    pub(super) fn wanted(
        &self,
        target: &Manifest,
        store: &Store,
    ) -> Result<Vec<ChunkRef>, ApplyError> {
        let chunks = self.writes(target).flat_map(|(_, entry)| entry.chunks());
        let elsewhere = chunks.filter(|chunk| !self.found.contains_key(&chunk.id));
        let elsewhere: Vec<ChunkRef> = elsewhere.copied().collect();
        let mut ids: Vec<ContentId> = elsewhere.iter().map(|chunk| chunk.id).collect();
        ids.sort_unstable();
        ids.dedup();
        let mut absent = store.absent(&ids)?;
        Ok(elsewhere.into_iter().filter(|chunk| absent.remove(&chunk.id)).collect())
    }

    /// Refuses what cannot fit, before the first byte is fetched or written. Says how many bytes
    /// the files take.
    pub(super) fn preflight(&self, ground: &Ground, target: &Manifest) -> Result<u64, ApplyError> {
        let room = fstatvfs(&ground.dir);
        let room = room.map_err(|err| ground.failed(Stage::Open, b"")(err.into()))?;
        if room.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Err(ground.failed(Stage::Write, b"")(rustix::io::Errno::ROFS.into()));
        }
        let block = room.f_frsize.max(1);
        let blocks = self.writes(target).map(|(_, entry)| on_disk(entry).div_ceil(block));
        let blocks = blocks.fold(0, u64::saturating_add);
        let is_new =
            |action: &&Action| matches!(action, Action::MakeDir { .. } | Action::Write { .. });
        let inodes = self.actions.iter().filter(is_new).count() as u64;
        // Root may use what is kept back for it.
        let (free_blocks, free_inodes) = match rustix::process::geteuid().is_root() {
            true => (room.f_bfree, room.f_ffree),
            false => (room.f_bavail, room.f_favail),
        };
        let check = |what, need, have| match need > have {
            true => Err(ApplyError::NoRoom { path: ground.shown(b""), what, need, have }),
            false => Ok(()),
        };
        let bytes = blocks.saturating_mul(block);
        check("bytes", bytes, free_blocks.saturating_mul(block))?;
        // File systems without a fixed number of inodes say they have none at all.
        if room.f_files > 0 {
            check("inodes", inodes, free_inodes)?;
        }
        Ok(bytes)
    }

    /// The files and links to write, with their place in the manifest.
    pub(super) fn writes<'a>(
        &'a self,
        target: &'a Manifest,
    ) -> impl Iterator<Item = (usize, &'a Entry)> {
        let entries = target.entries.iter().enumerate();
        entries.filter(|(n, _)| matches!(self.actions[*n], Action::Write { .. }))
    }
}

/// A survey in progress; what is not in the manifest is looked at in [`extra`](super::extra).
pub(super) struct Surveyor<'a> {
    pub(super) ground: &'a Ground,
    pub(super) target: &'a Manifest,
    pub(super) hard_links: &'a HardLinks,
    pub(super) rules: &'a Rules,
    pub(super) before: Option<&'a Manifest>,
    pub(super) eye: Eye<'a>,
    /// Those that help it to look ahead.
    others: Vec<Eye<'a>>,
    /// What they have seen ahead, of the entry that is next and some after it.
    looked: VecDeque<Looked>,
    /// How many entries they look at next.
    ahead: usize,
    owners: Owners,
    found: BTreeMap<ContentId, Found>,
    equal: Vec<usize>,
    clears: BTreeMap<usize, Vec<Extra>>,
    /// What stays because it was changed since it was installed.
    pub(super) kept: Named,
    /// What stays because it is newer.
    newer: Named,
    /// What was seen, if somebody only looks.
    seen: Option<Stats>,
}

impl Surveyor<'_> {
    /// What was seen ahead of an entry; to be asked for each of them in order.
    fn looked(&mut self, n: usize) -> Looked {
        let is_worth_it = !self.others.is_empty() && self.ground.missing.is_empty();
        if is_worth_it && self.looked.is_empty() {
            let end = self.target.entries.len().min(n + self.ahead);
            self.ahead = AHEAD.min(2 * self.ahead);
            self.looked = look_ahead(&mut self.eye, &mut self.others, n..end).into();
        }
        self.looked.pop_front().unwrap_or(Looked::Unknown)
    }

    fn entry(
        &mut self,
        n: usize,
        entry: &Entry,
        looked: Looked,
        missing: bool,
    ) -> Result<Action, ApplyError> {
        let (stat, content) = match looked {
            _ if missing => (None, None),
            Looked::Nothing => (None, None),
            Looked::File(stat, content) => (Some(stat), Some(content)),
            Looked::Unknown => (self.eye.look(entry)?, None),
        };
        let Some(stat) = stat else {
            return Ok(match entry.kind {
                Kind::Dir => Action::MakeDir { later: false },
                Kind::File { .. } | Kind::Symlink { .. } | Kind::HardLink { .. } => {
                    Action::Write { over_dir: false, equal: false }
                }
            });
        };
        if let Some(seen) = &mut self.seen {
            seen.insert(n, stat);
        }
        let content_only = self.rules.content_only;
        let describe = match !content_only && self.owners.differs(entry, &stat) {
            true => Action::Describe { dev: stat.st_dev, ino: stat.st_ino },
            false => Action::Keep,
        };
        let write = |equal| Action::Write { over_dir: false, equal };
        match (&entry.kind, tree::kind(&stat)) {
            (Kind::Dir, FileType::Directory) => {
                if describe != Action::Keep && !self.owners.may_describe(&stat) {
                    let denied = rustix::io::Errno::PERM.into();
                    return Err(self.ground.failed(Stage::Describe, &entry.path)(denied));
                }
                Ok(match describe {
                    Action::Keep if !content_only && !self.dir_has_attributes(entry)? => {
                        Action::Describe { dev: stat.st_dev, ino: stat.st_ino }
                    }
                    describe => describe,
                })
            }
            (Kind::File { .. }, FileType::RegularFile) => {
                let content = match content {
                    Some(content) => content,
                    None => self.eye.content(entry, &stat)?,
                };
                self.file(n, entry, (&stat, content), describe)
            }
            (Kind::Symlink { target }, FileType::Symlink) => {
                let (dir, name) = self.ground.place(entry);
                let failed = |err| self.ground.failed(Stage::Compare, &entry.path)(err);
                let parent = self.eye.dirs.at(dir).map_err(failed)?;
                let is = readlinkat(parent, name, Vec::new());
                let is = is.map_err(|err| failed(err.into()))?;
                let equal = is.as_bytes() == target;
                let may = describe == Action::Keep || self.owners.may_describe(&stat);
                Ok(if equal && may { describe } else { write(equal) })
            }
            (Kind::HardLink { .. }, FileType::RegularFile) => Ok(write(true)),
            (Kind::File { .. } | Kind::Symlink { .. } | Kind::HardLink { .. }, found) => {
                match found {
                    FileType::RegularFile | FileType::Symlink => Ok(write(false)),
                    FileType::Directory if self.is_empty(entry)? => {
                        Ok(Action::Write { over_dir: true, equal: false })
                    }
                    found => self.clear(n, entry, found, write(false)),
                }
            }
            (Kind::Dir, found) => self.clear(n, entry, found, Action::MakeDir { later: true }),
        }
    }

    /// What to do about a file where a file is; `describe` for what is known to be wrong with what
    /// describes it.
    fn file(
        &mut self,
        n: usize,
        entry: &Entry,
        (stat, content): (&Stat, Content),
        describe: Action,
    ) -> Result<Action, ApplyError> {
        let Content { equal, dressed, chunks } = content;
        for (id, offset) in chunks {
            self.found.entry(id).or_insert(Found { entry: n, offset, other: false });
        }
        if equal {
            self.equal.push(n);
        }
        if !equal && self.rules.keep_newer && tree::mtime(stat) > entry.mtime {
            self.newer.add(self.ground.shown(&entry.path));
            return Ok(Action::Keep);
        }
        if !equal {
            self.check_saved(entry)?;
        }
        let describe = match dressed || self.rules.content_only {
            true => describe,
            false => Action::Describe { dev: stat.st_dev, ino: stat.st_ino },
        };
        // Setting the mode of a hard link sets it elsewhere too; replacing it does not.
        let single = stat.st_nlink == 1 || !holds(Guard::SingleName);
        let in_place = self.owners.may_describe(stat) && single;
        let right = equal && self.has_its_names(n, stat)?;
        let keep = right && (describe == Action::Keep || in_place);
        Ok(if keep { describe } else { Action::Write { over_dir: false, equal } })
    }

    /// Has what is in the way of an entry go before it, if the rules let all of it go.
    fn clear(
        &mut self,
        n: usize,
        entry: &Entry,
        found: FileType,
        then: Action,
    ) -> Result<Action, ApplyError> {
        let mut gone = Vec::new();
        let may = self.rules.delete != Delete::Nothing && self.ground.is_tree();
        if entry.path.is_empty() || !may || !self.gather(entry.path.clone(), &mut gone, 0)? {
            return match self.seen {
                Some(_) => Ok(Action::Blocked),
                None => Err(self.conflict(entry, found)),
            };
        }
        self.clears.insert(n, gone);
        Ok(then)
    }

    /// The name under which what is replaced is kept must be one.
    fn check_saved(&self, entry: &Entry) -> Result<(), ApplyError> {
        let kept = [entry.path.as_slice(), &self.rules.save].concat();
        if !self.rules.save.is_empty() && self.names(&kept) {
            // The old one would lie where the push puts another.
            return Err(self.ground.failed(Stage::Save, &kept)(Errno::EXIST.into()));
        }
        let long = self.ground.place(entry).1.len() + self.rules.save.len() > 255;
        match long && !self.rules.save.is_empty() {
            true => Err(self.ground.failed(Stage::Save, &entry.path)(Errno::NAMETOOLONG.into())),
            false => Ok(()),
        }
    }

    fn dir_has_attributes(&mut self, entry: &Entry) -> Result<bool, ApplyError> {
        let opened = self.eye.dirs.at(&entry.path).and_then(tree::open_self);
        let has = opened.and_then(|fd| self.owners.has_attributes(fd, entry));
        match has {
            // What may not be read is left alone.
            Err(err) if err.kind() == io::ErrorKind::PermissionDenied => Ok(true),
            has => has.map_err(self.ground.failed(Stage::Compare, &entry.path)),
        }
    }

    /// Whether the owner will be wrong once the action is done.
    fn skips(&mut self, entry: &Entry, action: Action) -> Result<bool, ApplyError> {
        if self.owners.root {
            return Ok(false);
        }
        let stat = match action {
            Action::Keep | Action::Describe { .. } | Action::Blocked => self.eye.look(entry)?,
            Action::MakeDir { .. } | Action::Write { .. } => None,
        };
        Ok(self.owners.skips(entry, stat.as_ref()))
    }

    fn is_empty(&mut self, entry: &Entry) -> Result<bool, ApplyError> {
        let (dir, name) = self.ground.place(entry);
        let listed = self.eye.dirs.at(dir).and_then(|parent| is_empty(parent, name));
        listed.map_err(self.ground.failed(Stage::Compare, &entry.path))
    }

    fn conflict(&self, entry: &Entry, found: FileType) -> ApplyError {
        let path = self.ground.shown(&entry.path);
        let found = match found {
            FileType::Directory => "a directory with something in it",
            found => word(found),
        };
        let wanted = match entry.kind {
            Kind::Dir => "a directory",
            Kind::File { .. } => "a file",
            Kind::Symlink { .. } => "a symbolic link",
            Kind::HardLink { .. } => "another name of a file",
        };
        ApplyError::Conflict { path, found, wanted }
    }
}

/// How much of a file is on disk once it is written: of one with holes, what is not a whole chunk
/// of zeros.
fn on_disk(entry: &Entry) -> u64 {
    if !entry.sparse {
        return entry.size();
    }
    let zeros: BTreeMap<u32, ContentId> = entry
        .chunks()
        .iter()
        .map(|chunk| chunk.len)
        .filter(|len| *len as usize == MAX_CHUNK)
        .map(|len| (len, ContentId::of(&vec![0; len as usize])))
        .take(1)
        .collect();
    let is_zero = |chunk: &&ChunkRef| zeros.get(&chunk.len) == Some(&chunk.id);
    let zero: u64 = entry.chunks().iter().filter(is_zero).map(|chunk| u64::from(chunk.len)).sum();
    entry.size() - zero
}

fn is_empty(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<bool> {
    let dir = tree::open_dir(parent, name)?;
    Ok(tree::names(&tree::open_self(dir.as_fd())?)?.is_empty())
}
