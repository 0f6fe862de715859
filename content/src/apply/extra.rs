//! What is there that the manifest does not name, and may go.
//!
//! Directories are listed by descriptor; nothing is changed here. An entry is noted with the
//! inode that was seen, children before their parents, and is only deleted if it is still that
//! one. Never looked into: mount points, what a pattern leaves alone, and directories deeper than
//! anybody makes on purpose.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, FileType, Stat, StatxAttributes, StatxFlags, readlinkat, statx};
use rustix::io::Errno;

use super::error::{ApplyError, Stage};
use super::rules::Delete;
use super::survey::Surveyor;
use crate::manifest::{Entry, Kind, Manifest};
use crate::tree;

/// No install deletes more, whatever it is allowed.
const LIMIT: usize = 1 << 20;
/// Directories within one another.
const DEPTH: usize = 256;

/// An entry that goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Extra {
    pub(super) path: Vec<u8>,
    pub(super) inode: (u64, u64),
    pub(super) is_dir: bool,
}

impl Surveyor<'_> {
    /// Notes what may go of a directory that is in the manifest and on disk.
    pub(super) fn extras(&mut self, dir: &[u8], into: &mut Vec<Extra>) -> Result<(), ApplyError> {
        if self.rules.delete == Delete::Nothing || !self.ground.is_tree() {
            return Ok(());
        }
        for name in self.list(dir)? {
            let path = join(dir, &name);
            if !self.names(&path) {
                self.gather(path, into, 0)?;
            }
        }
        Ok(())
    }

    /// Notes an entry that may go, with all that is below it. `false`: something stays.
    pub(super) fn gather(
        &mut self,
        path: Vec<u8>,
        into: &mut Vec<Extra>,
        depth: usize,
    ) -> Result<bool, ApplyError> {
        let failed = |err| self.ground.failed(Stage::Compare, &path)(err);
        let is_saved = self.is_saved(&path);
        let (dir, name) = split(&path);
        let parent = self.eye.dirs.at(dir).map_err(failed)?;
        let Some(stat) = tree::look(parent, name).map_err(failed)? else { return Ok(true) };
        let is_dir = tree::kind(&stat) == FileType::Directory;
        if self.rules.exclude.matches(&path, is_dir) || is_saved {
            return Ok(false);
        }
        if is_dir {
            let mounted = is_mount_point(parent, name, &stat).map_err(failed)?;
            if mounted || depth >= DEPTH || !self.may_go(&path, &stat)? {
                return Ok(false);
            }
            let mut all = true;
            for name in self.list(&path)? {
                all &= self.gather(join(&path, &name), into, depth + 1)?;
            }
            if !all {
                return Ok(false);
            }
        } else if !self.may_go(&path, &stat)? {
            return Ok(false);
        }
        if into.len() >= LIMIT {
            let path = self.ground.shown(b"");
            return Err(ApplyError::TooMany {
                path,
                extra: LIMIT as u64 + 1,
                allowed: LIMIT as u64,
            });
        }
        into.push(Extra { path, inode: (stat.st_dev, stat.st_ino), is_dir });
        Ok(true)
    }

    /// Whether the rules let an entry go: always, or only what was put there and is as it was.
    fn may_go(&mut self, path: &[u8], stat: &Stat) -> Result<bool, ApplyError> {
        let before = match self.rules.delete {
            Delete::Nothing => return Ok(false),
            Delete::All => return Ok(true),
            Delete::Installed => self.before.and_then(|before| find(before, path)),
        };
        let Some(entry) = before else { return Ok(false) };
        let unchanged = match (&entry.kind, tree::kind(stat)) {
            (Kind::Dir, FileType::Directory) => true,
            (Kind::File { .. }, FileType::RegularFile) => {
                tree::size(stat) == entry.size() && self.is_as_installed(path, entry)?
            }
            // Another name of a file has the content of the first one.
            (Kind::HardLink { to }, FileType::RegularFile) => {
                match self.before.and_then(|before| find(before, to)) {
                    Some(head) if tree::size(stat) == head.size() => {
                        self.is_as_installed(path, head)?
                    }
                    _ => false,
                }
            }
            (Kind::Symlink { target }, FileType::Symlink) => {
                let (dir, name) = split(path);
                let failed = |err| self.ground.failed(Stage::Compare, path)(err);
                let parent = self.eye.dirs.at(dir).map_err(failed)?;
                let is = readlinkat(parent, name, Vec::new());
                is.map_err(|err| failed(err.into()))?.as_bytes() == target
            }
            _ => false,
        };
        if !unchanged {
            self.kept.add(self.ground.shown(path));
        }
        Ok(unchanged)
    }

    fn is_as_installed(&mut self, path: &[u8], entry: &Entry) -> Result<bool, ApplyError> {
        let (dir, name) = split(path);
        let parent = self.eye.dirs.at(dir);
        match parent.and_then(|parent| tree::open_file(parent, name)) {
            Ok((file, _)) => Ok(self.eye.holds(&file, entry.chunks())),
            Err(err) => Err(self.ground.failed(Stage::Compare, path)(err)),
        }
    }

    fn list(&mut self, dir: &[u8]) -> Result<Vec<Vec<u8>>, ApplyError> {
        let opened = self.eye.dirs.at(dir).and_then(tree::open_self);
        let listed = opened.and_then(|fd| tree::names(&fd));
        listed.map_err(self.ground.failed(Stage::Compare, dir))
    }

    /// Whether it is what was kept of a file that was replaced.
    fn is_saved(&self, path: &[u8]) -> bool {
        let suffix = self.rules.save.as_slice();
        let name = path.strip_suffix(suffix).filter(|_| !suffix.is_empty());
        name.is_some_and(|name| self.names(name))
    }

    pub(super) fn names(&self, path: &[u8]) -> bool {
        find(self.target, path).is_some()
    }
}

fn find<'a>(manifest: &'a Manifest, path: &[u8]) -> Option<&'a Entry> {
    let found = manifest.entries.binary_search_by(|entry| entry.path.as_slice().cmp(path));
    found.ok().map(|n| &manifest.entries[n])
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}

/// Directory and name of a path below the root.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

/// Whether another file system, or another part of this one, is mounted here.
fn is_mount_point(parent: BorrowedFd<'_>, name: &[u8], stat: &Stat) -> io::Result<bool> {
    if rustix::fs::fstat(parent)?.st_dev != stat.st_dev {
        return Ok(true);
    }
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    match statx(parent, name, flags, StatxFlags::empty()) {
        Ok(stat) => Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
        // A kernel that cannot say so has told apart file systems above.
        Err(Errno::NOSYS) => Ok(false),
        Err(err) => Err(err.into()),
    }
}
