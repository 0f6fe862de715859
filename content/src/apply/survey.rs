//! What is there, what has to be done, and which chunks are on this disk already.
//!
//! Nothing is changed here. Content is compared by chunk hashes, never by time: a file is equal
//! or it is replaced. Every chunk of the target that is met on the way is remembered with its
//! place; it is hashed again when it is used, since the file may change until then.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{FileType, Stat, StatVfsMountFlags, fstatvfs, readlinkat};

use super::Applied;
use super::error::{ApplyError, Stage};
use super::ground::Ground;
use super::owners::Owners;
use crate::chunk::{AVERAGE_CHUNK, Cutter, MAX_CHUNK};
use crate::id::ContentId;
use crate::manifest::{ChunkRef, Entry, Kind, Manifest};
use crate::store::Store;
use crate::tree::{self, Dirs};

/// What to do about one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Keep,
    /// Content is right, mode, owner or time is not.
    Describe {
        dev: u64,
        ino: u64,
    },
    MakeDir,
    /// File or link, to be renamed over what is there; an empty directory is removed first.
    Write {
        over_dir: bool,
    },
}

/// A chunk on disk: in the file that is now where this entry goes, at this offset.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) entry: usize,
    pub(super) offset: u64,
}

/// The result, one action for each entry.
pub(super) struct Survey {
    pub(super) actions: Vec<Action>,
    pub(super) found: BTreeMap<ContentId, Found>,
    pub(super) applied: Applied,
}

pub(super) fn survey(ground: &Ground, target: &Manifest) -> Result<Survey, ApplyError> {
    let root = ground.dir.try_clone().map_err(ground.failed(Stage::Open, b""))?;
    let chunks = target.entries.iter().flat_map(Entry::chunks);
    let mut surveyor = Surveyor {
        ground,
        dirs: Dirs::new(root),
        owners: Owners::new(),
        needed: chunks.map(|chunk| chunk.id).collect(),
        found: BTreeMap::new(),
        cutter: Cutter::new(),
        buffer: Vec::new(),
    };
    let mut applied = Applied::default();
    let mut actions = Vec::with_capacity(target.entries.len());
    let mut absent: BTreeSet<&[u8]> = BTreeSet::new();
    for (n, entry) in target.entries.iter().enumerate() {
        let (dir, _) = ground.place(entry);
        let missing = !ground.missing.is_empty() || absent.contains(dir);
        let action = surveyor.entry(n, entry, missing)?;
        match action {
            Action::Keep => applied.unchanged += 1,
            Action::Describe { .. } => applied.metadata_fixed += 1,
            Action::MakeDir | Action::Write { .. } => applied.written += 1,
        }
        if action == Action::MakeDir {
            absent.insert(&entry.path);
        }
        applied.owner_skipped += u64::from(surveyor.skips(entry, action)?);
        actions.push(action);
    }
    Ok(Survey { actions, found: surveyor.found, applied })
}

impl Survey {
    pub(super) fn nothing_to_do(&self) -> bool {
        self.actions.iter().all(|action| *action == Action::Keep)
    }

    /// The chunks that are neither on disk nor in the store, each once.
    pub(super) fn wanted(
        &self,
        target: &Manifest,
        store: &Store,
    ) -> Result<Vec<ChunkRef>, ApplyError> {
        let mut seen = BTreeSet::new();
        let mut wanted = Vec::new();
        for (_, entry) in self.writes(target) {
            for chunk in entry.chunks() {
                let new = !self.found.contains_key(&chunk.id) && seen.insert(chunk.id);
                if new && !store.has(&chunk.id)? {
                    wanted.push(*chunk);
                }
            }
        }
        Ok(wanted)
    }

    /// Refuses what cannot fit, before the first byte is fetched or written.
    pub(super) fn preflight(&self, ground: &Ground, target: &Manifest) -> Result<(), ApplyError> {
        let room = fstatvfs(&ground.dir);
        let room = room.map_err(|err| ground.failed(Stage::Open, b"")(err.into()))?;
        if room.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Err(ground.failed(Stage::Write, b"")(rustix::io::Errno::ROFS.into()));
        }
        let block = room.f_frsize.max(1);
        let blocks = self.writes(target).map(|(_, entry)| entry.size().div_ceil(block));
        let blocks = blocks.fold(0, u64::saturating_add);
        let is_new = |action: &&Action| matches!(action, Action::MakeDir | Action::Write { .. });
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
        check("bytes", blocks.saturating_mul(block), free_blocks.saturating_mul(block))?;
        // File systems without a fixed number of inodes say they have none at all.
        if room.f_files > 0 { check("inodes", inodes, free_inodes) } else { Ok(()) }
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

struct Surveyor<'a> {
    ground: &'a Ground,
    dirs: Dirs,
    owners: Owners,
    needed: BTreeSet<ContentId>,
    found: BTreeMap<ContentId, Found>,
    cutter: Cutter,
    buffer: Vec<u8>,
}

impl Surveyor<'_> {
    fn entry(&mut self, n: usize, entry: &Entry, missing: bool) -> Result<Action, ApplyError> {
        let stat = if missing { None } else { self.look(entry)? };
        let Some(stat) = stat else {
            return Ok(match entry.kind {
                Kind::Dir => Action::MakeDir,
                Kind::File { .. } | Kind::Symlink { .. } => Action::Write { over_dir: false },
            });
        };
        let describe = match self.owners.differs(entry, &stat) {
            true => Action::Describe { dev: stat.st_dev, ino: stat.st_ino },
            false => Action::Keep,
        };
        let write = Action::Write { over_dir: false };
        match (&entry.kind, tree::kind(&stat)) {
            (Kind::Dir, FileType::Directory) => {
                if describe != Action::Keep && !self.owners.may_describe(&stat) {
                    let denied = rustix::io::Errno::PERM.into();
                    return Err(self.ground.failed(Stage::Describe, &entry.path)(denied));
                }
                Ok(describe)
            }
            (Kind::File { .. }, FileType::RegularFile) => {
                // Setting the mode of a hard link sets it elsewhere too; replacing it does not.
                let in_place = self.owners.may_describe(&stat) && stat.st_nlink == 1;
                let equal = self.compare(n, entry, &stat)?;
                let keep = equal && (describe == Action::Keep || in_place);
                Ok(if keep { describe } else { write })
            }
            (Kind::Symlink { target }, FileType::Symlink) => {
                let (dir, name) = self.ground.place(entry);
                let failed = |err| self.ground.failed(Stage::Compare, &entry.path)(err);
                let parent = self.dirs.at(dir).map_err(failed)?;
                let is = readlinkat(parent, name, Vec::new());
                let is = is.map_err(|err| failed(err.into()))?;
                let keep = is.as_bytes() == target
                    && (describe == Action::Keep || self.owners.may_describe(&stat));
                Ok(if keep { describe } else { write })
            }
            (Kind::File { .. } | Kind::Symlink { .. }, found) => match found {
                FileType::RegularFile | FileType::Symlink => Ok(write),
                FileType::Directory if self.is_empty(entry)? => {
                    Ok(Action::Write { over_dir: true })
                }
                found => Err(self.conflict(entry, found)),
            },
            (Kind::Dir, found) => Err(self.conflict(entry, found)),
        }
    }

    /// Whether the owner will be wrong once the action is done.
    fn skips(&mut self, entry: &Entry, action: Action) -> Result<bool, ApplyError> {
        if self.owners.root {
            return Ok(false);
        }
        let stat = match action {
            Action::Keep | Action::Describe { .. } => self.look(entry)?,
            Action::MakeDir | Action::Write { .. } => None,
        };
        Ok(self.owners.skips(entry, stat.as_ref()))
    }

    fn look(&mut self, entry: &Entry) -> Result<Option<Stat>, ApplyError> {
        let (dir, name) = self.ground.place(entry);
        let parent = self.dirs.at(dir);
        let looked = parent.and_then(|parent| match name {
            b"" => Ok(Some(rustix::fs::fstat(parent)?)),
            name => tree::look(parent, name),
        });
        looked.map_err(self.ground.failed(Stage::Compare, &entry.path))
    }

    fn is_empty(&mut self, entry: &Entry) -> Result<bool, ApplyError> {
        let (dir, name) = self.ground.place(entry);
        let listed = self.dirs.at(dir).and_then(|parent| is_empty(parent, name));
        listed.map_err(self.ground.failed(Stage::Compare, &entry.path))
    }

    fn conflict(&self, entry: &Entry, found: FileType) -> ApplyError {
        let path = self.ground.shown(&entry.path);
        let found = match found {
            FileType::Directory => "a directory with something in it",
            FileType::RegularFile => "a file",
            FileType::Symlink => "a symbolic link",
            _ => "a device, pipe or socket",
        };
        let wanted = match entry.kind {
            Kind::Dir => "a directory",
            Kind::File { .. } => "a file",
            Kind::Symlink { .. } => "a symbolic link",
        };
        ApplyError::Conflict { path, found, wanted }
    }

    /// Whether the file there has the content of the entry; notes the chunks it has anyway.
    fn compare(&mut self, n: usize, entry: &Entry, stat: &Stat) -> Result<bool, ApplyError> {
        let (dir, name) = self.ground.place(entry);
        let opened = self.dirs.at(dir).and_then(|parent| tree::open_file(parent, name));
        let file = match opened {
            Ok((file, _)) => file,
            // What may not be read can still be replaced.
            Err(err) if err.kind() == io::ErrorKind::PermissionDenied => return Ok(false),
            Err(err) => return Err(self.ground.failed(Stage::Compare, &entry.path)(err)),
        };
        let same_size = tree::size(stat) == entry.size();
        let compared = match same_size && self.equal(n, &file, entry.chunks()) {
            true => return Ok(true),
            // A small file is one chunk, and that one was just found to be another.
            false if same_size && entry.size() <= AVERAGE_CHUNK as u64 => Ok(()),
            false => self.note(n, &file, tree::size(stat)),
        };
        compared.map_err(self.ground.failed(Stage::Compare, &entry.path))?;
        Ok(false)
    }

    /// Compares chunk by chunk, as the manifest has cut them. An unreadable file is not equal.
    fn equal(&mut self, n: usize, file: &std::fs::File, chunks: &[ChunkRef]) -> bool {
        self.buffer.resize(MAX_CHUNK, 0);
        let (mut equal, mut offset) = (true, 0);
        let mut reader = file;
        for chunk in chunks {
            let bytes = &mut self.buffer[..chunk.len as usize];
            if reader.read_exact(bytes).is_err() {
                return false;
            }
            let id = ContentId::of(bytes);
            equal &= id == chunk.id;
            if self.needed.contains(&id) {
                self.found.entry(id).or_insert(Found { entry: n, offset });
            }
            offset += u64::from(chunk.len);
        }
        equal
    }

    /// Cuts a file that will be replaced, and notes where chunks of the target are in it.
    fn note(&mut self, n: usize, mut file: &std::fs::File, size: u64) -> io::Result<()> {
        io::Seek::rewind(&mut file)?;
        let (needed, found) = (&self.needed, &mut self.found);
        let mut offset = 0;
        self.cutter.cut(file, size, &mut |bytes| -> io::Result<()> {
            let id = ContentId::of(bytes);
            if needed.contains(&id) {
                found.entry(id).or_insert(Found { entry: n, offset });
            }
            offset += bytes.len() as u64;
            Ok(())
        })?;
        Ok(())
    }
}

fn is_empty(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<bool> {
    let dir = tree::open_dir(parent, name)?;
    for entry in rustix::fs::Dir::read_from(tree::open_self(dir.as_fd())?)? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}
