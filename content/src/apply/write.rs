//! Phase A: everything new is written beside its destination, and nothing is replaced.
//!
//! Each file goes to a temporary name in its own directory, gets its owner, mode and time on the
//! descriptor, and is synced with the others. If anything fails, the temporary files and the
//! directories made are removed again.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;

use rustix::fs::{
    AtFlags, Mode, OFlags, fchmod, fstat, linkat, mkdirat, openat, symlinkat, unlinkat,
};
use rustix::io::Errno;

use super::error::{ApplyError, Stage};
use super::ground::Ground;
use super::owners::Owners;
use super::survey::Survey;
use super::{Action, Job, Rules, temp_name};
use crate::guards::{Guard, holds};
use crate::id::ContentId;
use crate::manifest::{ChunkRef, Entry, Kind, Manifest};
use crate::store::Store;
use crate::tree::{self, Dirs};

/// An apply in progress: phase A is here, phase B in [`switch`](super::switch).
pub(super) struct Writer<'a> {
    pub(super) ground: &'a Ground,
    pub(super) target: &'a Manifest,
    pub(super) tag: &'a str,
    pub(super) rules: &'a Rules,
    store: &'a Store,
    pub(super) survey: &'a Survey,
    pub(super) owners: Owners,
    pub(super) dirs: Option<Dirs>,
    /// Entries whose temporary file exists.
    pub(super) temps: Vec<usize>,
    /// Directories made on the way to the ground, and in the tree.
    pub(super) parents: Vec<(OwnedFd, Vec<u8>)>,
    made: Vec<Vec<u8>>,
    /// Read-only directories of ours that were opened for filling, and their mode.
    loosened: Vec<(Vec<u8>, u32)>,
    /// Of files that get other names: their device and inode.
    inodes: BTreeMap<usize, (u64, u64)>,
    /// Entries of which not all attributes are kept.
    pub(super) attributes_lost: u64,
    /// One open directory on each file system written to.
    pub(super) devices: BTreeMap<u64, OwnedFd>,
    /// If what is done is so little that it is synced by itself: what was written.
    pub(super) few: Option<Vec<(usize, File)>>,
    /// Another tree that has some of the chunks.
    other: Option<(&'a Ground, Dirs)>,
    /// The file a chunk was last read from, and whether it is in the other tree.
    source: Option<((usize, bool), File)>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(
        ground: &'a Ground,
        job: &Job<'a>,
        store: &'a Store,
        survey: &'a Survey,
    ) -> Writer<'a> {
        Writer {
            ground,
            target: job.target,
            tag: job.tag,
            rules: job.rules,
            store,
            survey,
            owners: Owners::new(),
            dirs: None,
            temps: Vec::new(),
            parents: Vec::new(),
            made: Vec::new(),
            loosened: Vec::new(),
            inodes: BTreeMap::new(),
            attributes_lost: 0,
            devices: BTreeMap::new(),
            few: survey.is_little(job.target).then(Vec::new),
            other: None,
            source: None,
        }
    }

    /// Reads what the survey has found in another tree from there.
    pub(super) fn read_from(&mut self, other: Option<&'a Ground>) -> Result<(), ApplyError> {
        if let Some(ground) = other {
            let root = ground.dir.try_clone().map_err(ground.failed(Stage::Open, b""))?;
            self.other = Some((ground, Dirs::new(root)));
        }
        Ok(())
    }

    /// Writes all temporary files and syncs them; returns the bytes in them. On an error the
    /// disk is as it was.
    pub(super) fn run(&mut self) -> Result<u64, ApplyError> {
        self.write_all().inspect_err(|_| self.undo())
    }

    fn write_all(&mut self) -> Result<u64, ApplyError> {
        let (ground, target, survey) = (self.ground, self.target, self.survey);
        let root = self.make_parents().map_err(ground.failed(Stage::Create, b""))?;
        self.dirs = Some(Dirs::new(root));
        self.note_device(b"").map_err(ground.failed(Stage::Open, b""))?;
        let mut bytes = 0;
        for (n, entry) in target.entries.iter().enumerate() {
            match survey.actions[n] {
                Action::MakeDir { later: false } => {
                    let made = self.make_dir(entry);
                    made.map_err(ground.failed(Stage::Create, &entry.path))?;
                }
                Action::Write { .. } => {
                    self.write(n, entry)?;
                    bytes += entry.size();
                }
                Action::Keep
                | Action::Blocked
                | Action::Describe { .. }
                | Action::MakeDir { later: true } => {}
            }
        }
        self.source = None;
        self.sync_written()?;
        Ok(bytes)
    }

    /// Makes what is missing on the way to the ground, open to all as parents usually are.
    fn make_parents(&mut self) -> io::Result<OwnedFd> {
        let mut at = self.ground.dir.try_clone()?;
        for (left, name) in (0..self.ground.missing.len()).rev().zip(&self.ground.missing) {
            let made = make(at.as_fd(), name)?;
            let dir = tree::open_dir(at.as_fd(), name)?;
            if made {
                self.parents.push((at, name.clone()));
                // The last one is the root of a tree, which gets its own mode in the end.
                if left > 0 || !self.ground.is_tree() {
                    fchmod(tree::open_self(dir.as_fd())?, Mode::from_raw_mode(0o755))?;
                }
            }
            at = dir;
        }
        Ok(at)
    }

    fn make_dir(&mut self, entry: &Entry) -> io::Result<()> {
        // The root of a tree was made as the last of the parents.
        if entry.path.is_empty() {
            return Ok(());
        }
        let (dir, name) = entry.split();
        if self.in_dir(dir, |parent| make(parent, name))? {
            self.made.push(entry.path.clone());
        }
        Ok(())
    }

    fn write(&mut self, n: usize, entry: &Entry) -> Result<(), ApplyError> {
        let ground = self.ground;
        let failed = || ground.failed(Stage::Write, &entry.path);
        let dir = self.survey.stage(ground.place(entry).0);
        let temp = temp_name(self.tag, n);
        if let Kind::Symlink { target } = &entry.kind {
            let link = |parent: BorrowedFd<'_>| Ok(symlinkat(target.as_slice(), parent, &*temp)?);
            self.in_dir(dir, |parent| fresh(parent, &temp, link)).map_err(failed())?;
            self.temps.push(n);
            let parent = self.dirs.as_mut().map(|dirs| dirs.at(dir)).expect("opened before");
            let owners = &mut self.owners;
            let described = parent
                .and_then(|parent| owners.describe_link(parent, temp.as_bytes(), entry, None));
            return described.map_err(ground.failed(Stage::Describe, &entry.path));
        }
        if let Some(head) = self.survey.hard_links.heads.get(&n).copied() {
            return self.link(n, head, entry).map_err(failed());
        }
        let mut flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
        flags.set(OFlags::EXCL | OFlags::NOFOLLOW, holds(Guard::FreshTemporary));
        let mode = Mode::RUSR | Mode::WUSR;
        let create = |parent: BorrowedFd<'_>| Ok(openat(parent, &*temp, flags, mode)?);
        let created = self.in_dir(dir, |parent| fresh(parent, &temp, create));
        let mut file = File::from(created.map_err(failed())?);
        self.temps.push(n);
        let mut offset = 0;
        for chunk in entry.chunks() {
            let bytes = self.chunk(chunk, entry)?;
            match entry.sparse {
                true => write_data(&file, &bytes, offset).map_err(failed())?,
                false => file.write_all(&bytes).map_err(failed())?,
            }
            offset += bytes.len() as u64;
        }
        if entry.sparse {
            file.set_len(offset).map_err(failed())?;
        }
        let described = self.owners.describe(&file, entry);
        let kept = described.map_err(ground.failed(Stage::Describe, &entry.path))?;
        self.attributes_lost += u64::from(!kept);
        let stat = fstat(&file).map_err(|err| failed()(err.into()))?;
        let device = stat.st_dev;
        if self.survey.hard_links.names.contains_key(&n) {
            self.inodes.insert(n, (device, stat.st_ino));
        }
        if !self.devices.contains_key(&device) {
            self.note_device(dir).map_err(failed())?;
        }
        self.note_written(n, file);
        Ok(())
    }

    /// Makes another name of a file that was just written.
    fn link(&mut self, n: usize, head: usize, entry: &Entry) -> io::Result<()> {
        let file = &self.target.entries[head];
        let from = self.survey.stage(self.ground.place(file).0);
        let to = self.survey.stage(self.ground.place(entry).0);
        let (old, new) = (temp_name(self.tag, head), temp_name(self.tag, n));
        let dirs = self.dirs.as_mut().expect("opened before");
        let from = dirs.at(from)?.try_clone_to_owned()?;
        let flags = AtFlags::empty();
        let make = |to: BorrowedFd<'_>| Ok(linkat(&from, &*old, to, &*new, flags)?);
        self.in_dir(to, |to| fresh(to, &new, make))?;
        self.temps.push(n);
        // Whoever may write there could have put another file in its place.
        let dirs = self.dirs.as_mut().expect("opened before");
        let made = tree::look(dirs.at(to)?, new.as_bytes())?;
        let inode = made.map(|stat| (stat.st_dev, stat.st_ino));
        match inode.is_some() && inode == self.inodes.get(&head).copied() {
            true => Ok(()),
            false => Err(io::Error::other("replaced by somebody else meanwhile")),
        }
    }

    /// The bytes of a chunk, checked: from this disk if they are still there, or the store.
    fn chunk(&mut self, chunk: &ChunkRef, entry: &Entry) -> Result<Vec<u8>, ApplyError> {
        if let Some(bytes) = self.chunk_on_disk(chunk) {
            return Ok(bytes);
        }
        let stored = self.store.get(&chunk.id)?;
        let stored = stored.filter(|bytes| bytes.len() == chunk.len as usize);
        let gone = || ApplyError::Chunk { path: self.ground.shown(&entry.path), id: chunk.id };
        stored.ok_or_else(gone)
    }

    fn chunk_on_disk(&mut self, chunk: &ChunkRef) -> Option<Vec<u8>> {
        let found = self.survey.found.get(&chunk.id)?;
        let from = (found.entry, found.other);
        if self.source.as_ref().is_none_or(|(open, _)| *open != from) {
            let entry = &self.target.entries[found.entry];
            let (ground, dirs) = match &mut self.other {
                Some((ground, dirs)) if found.other => (*ground, dirs),
                _ => (self.ground, self.dirs.as_mut()?),
            };
            let (dir, name) = ground.place(entry);
            let parent = dirs.at(dir).ok()?;
            self.source = Some((from, tree::open_file(parent, name).ok()?.0));
        }
        let (_, file) = self.source.as_ref()?;
        let mut bytes = vec![0; chunk.len as usize];
        file.read_exact_at(&mut bytes, found.offset).ok()?;
        Some(bytes).filter(|bytes| ContentId::of(bytes) == chunk.id)
    }

    /// Does something in a directory of the tree. If it is our own and read-only, it is opened
    /// for that; its mode is set in the end anyway.
    pub(super) fn in_dir<T>(
        &mut self,
        dir: &[u8],
        job: impl Fn(BorrowedFd<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        let dirs = self.dirs.as_mut().expect("opened before");
        let parent = dirs.at(dir)?;
        match job(parent) {
            Err(err) if err.kind() == io::ErrorKind::PermissionDenied => {
                let stat = fstat(parent)?;
                let mode = tree::mode(&stat);
                let ours = self.ground.is_tree() && self.owners.may_describe(&stat);
                if !ours || mode & 0o300 == 0o300 {
                    return Err(err);
                }
                fchmod(tree::open_self(parent)?, Mode::from_raw_mode(mode | 0o300))?;
                self.loosened.push((dir.to_vec(), mode));
                job(parent)
            }
            done => done,
        }
    }

    fn note_device(&mut self, dir: &[u8]) -> io::Result<()> {
        let dirs = self.dirs.as_mut().expect("opened before");
        let fd = tree::open_self(dirs.at(dir)?)?;
        self.devices.insert(fstat(&fd)?.st_dev, fd);
        Ok(())
    }

    /// Removes what was written and made. What cannot be removed is left for a sweep.
    pub(super) fn undo(&mut self) {
        let Some(dirs) = &mut self.dirs else {
            return self.undo_parents();
        };
        for n in self.temps.drain(..) {
            let dir = self.survey.stage(self.ground.place(&self.target.entries[n]).0);
            if let Ok(parent) = dirs.at(dir) {
                let _ = unlinkat(parent, temp_name(self.tag, n), AtFlags::empty());
            }
        }
        for path in self.made.drain(..).rev() {
            let slash = path.iter().rposition(|byte| *byte == b'/');
            let name = slash.map_or(0, |slash| slash + 1);
            if let Ok(parent) = dirs.at(&path[..slash.unwrap_or(0)]) {
                let _ = unlinkat(parent, &path[name..], AtFlags::REMOVEDIR);
            }
        }
        self.restore_modes();
        self.undo_parents();
    }

    fn undo_parents(&mut self) {
        for (parent, name) in self.parents.drain(..).rev() {
            let _ = unlinkat(&parent, name, AtFlags::REMOVEDIR);
        }
    }

    /// Closes the read-only directories again.
    pub(super) fn restore_modes(&mut self) {
        let Some(dirs) = &mut self.dirs else { return };
        for (dir, mode) in self.loosened.drain(..).rev() {
            if let Ok(fd) = dirs.at(&dir).and_then(tree::open_self) {
                let _ = fchmod(fd, Mode::from_raw_mode(mode));
            }
        }
    }
}

/// Makes a directory for us alone; `false` if somebody has just made one there.
pub(super) fn make(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<bool> {
    match mkdirat(parent, name, Mode::RWXU) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => tree::open_dir(parent, name).map(|_| false),
        Err(err) => Err(err.into()),
    }
}

/// Writes what is not zero, block by block; the rest stays a hole.
fn write_data(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    const BLOCK: u64 = 4096;
    let mut at = 0;
    while at < bytes.len() {
        let to_edge = BLOCK - (offset + at as u64) % BLOCK;
        let end = bytes.len().min(at + usize::try_from(to_edge).unwrap_or(usize::MAX));
        let block = &bytes[at..end];
        if block.iter().any(|byte| *byte != 0) {
            file.write_all_at(block, offset + at as u64)?;
        }
        at = end;
    }
    Ok(())
}

/// Makes something under a temporary name; one that a killed apply of this job left goes first.
pub(super) fn fresh<T>(
    parent: BorrowedFd<'_>,
    temp: &str,
    create: impl Fn(BorrowedFd<'_>) -> io::Result<T>,
) -> io::Result<T> {
    match create(parent) {
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {
            unlinkat(parent, temp, AtFlags::empty())?;
            create(parent)
        }
        done => done,
    }
}
