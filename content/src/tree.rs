//! Directories by descriptor: how both ingest and apply reach a path without trusting it.
//!
//! The idea: a path is walked component by component with `O_NOFOLLOW` from a directory that is
//! held open, so nobody who may write below it can send us elsewhere by swapping a component
//! for a link. The descriptors on the way to the last path are kept, because paths come sorted.
//!
//! It deliberately follows no link at all; whether one above the tree may be followed is decided
//! where the destination is resolved.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, openat, statat};

use crate::guards::{Guard, holds};

/// Descriptors kept at most, however deep the tree.
const KEPT: usize = 32;

/// The directories below one root.
pub(crate) struct Dirs {
    root: OwnedFd,
    path: Vec<u8>,
    /// Length of the prefix of `path` that each descriptor stands for, shortest first.
    kept: VecDeque<(usize, OwnedFd)>,
}

impl Dirs {
    pub(crate) fn new(root: OwnedFd) -> Dirs {
        Dirs { root, path: Vec::new(), kept: VecDeque::new() }
    }

    /// The directory at a relative path, empty for the root. Opened with `O_PATH`.
    pub(crate) fn at(&mut self, path: &[u8]) -> io::Result<BorrowedFd<'_>> {
        while let Some((length, _)) = self.kept.back() {
            let same = self.path.get(..*length) == path.get(..*length);
            if same && matches!(path.get(*length), None | Some(b'/')) {
                break;
            }
            self.kept.pop_back();
        }
        let mut at = self.kept.back().map_or(0, |(length, _)| *length);
        self.path.clear();
        self.path.extend_from_slice(path);
        while at < path.len() {
            let start = if at == 0 { 0 } else { at + 1 };
            let slash = path[start..].iter().position(|byte| *byte == b'/');
            let end = slash.map_or(path.len(), |slash| start + slash);
            let from = self.kept.back().map_or(self.root.as_fd(), |(_, fd)| fd.as_fd());
            let fd = open_dir(from, &path[start..end])?;
            self.kept.push_back((end, fd));
            if self.kept.len() > KEPT {
                self.kept.pop_front();
            }
            at = end;
        }
        Ok(self.kept.back().map_or(self.root.as_fd(), |(_, fd)| fd.as_fd()))
    }
}

/// Opens a directory entry that must be a directory, only to work below it.
pub(crate) fn open_dir(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    let mut flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    flags.set(OFlags::NOFOLLOW, holds(Guard::NoLinkOnTheWay));
    Ok(openat(parent, name, flags, Mode::empty())?)
}

/// Opens the directory itself for reading: to list it, sync it, or change what it is like.
pub(crate) fn open_self(dir: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat(dir, ".", flags, Mode::empty())?)
}

/// Opens an existing regular file for reading; anything else is an error, and nothing blocks.
pub(crate) fn open_file(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<(File, Stat)> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = openat(parent, name, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&fd)?;
    if kind(&stat) != FileType::RegularFile {
        return Err(io::Error::other("not a regular file"));
    }
    Ok((File::from(fd), stat))
}

/// Sorted names in an open directory, without the two that every directory has.
pub(crate) fn names(dir: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// What a name stands for, the link itself if it is one; `None` if there is nothing.
pub(crate) fn look(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<Stat>> {
    match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(err) => Err(err.into()),
    }
}

pub(crate) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// The twelve permission bits.
pub(crate) fn mode(stat: &Stat) -> u32 {
    stat.st_mode & 0o7777
}

pub(crate) fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

// The C types differ between processors; on some of them the conversions do nothing.
#[allow(clippy::useless_conversion)]
pub(crate) fn mtime(stat: &Stat) -> (i64, u32) {
    (stat.st_mtime.into(), u32::try_from(stat.st_mtime_nsec).unwrap_or(0))
}

/// Whether two looks at one file saw the same content, as far as the kernel can tell.
pub(crate) fn unchanged(before: &Stat, after: &Stat) -> bool {
    let all = |s: &Stat| (s.st_dev, s.st_ino, s.st_size, mtime(s), s.st_ctime, s.st_ctime_nsec);
    all(before) == all(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_no_link_and_keeps_few_descriptors() {
        let temp = tempfile::tempdir().expect("temp");
        let deep = vec!["d"; 100].join("/");
        std::fs::create_dir_all(temp.path().join(&deep)).expect("dirs");
        std::fs::create_dir(temp.path().join("dd")).expect("dir");
        std::os::unix::fs::symlink("d", temp.path().join("link")).expect("link");
        let root = rustix::fs::open(temp.path(), OFlags::PATH, Mode::empty()).expect("root");
        let mut dirs = Dirs::new(root);
        let inode = |fd: BorrowedFd<'_>| rustix::fs::fstat(fd).expect("stat").st_ino;
        for path in [deep.as_str(), "d/d", "dd", "d", &deep, "", &deep[..151]] {
            let expected = rustix::fs::stat(temp.path().join(path)).expect("stat").st_ino;
            assert_eq!(inode(dirs.at(path.as_bytes()).expect(path)), expected, "{path}");
            assert!(dirs.kept.len() <= KEPT);
        }
        dirs.at(b"link").expect_err("a link is not a directory");
        dirs.at(b"d/absent").expect_err("not there");
        assert!(dirs.at(b"d/d").is_ok(), "an error does not spoil what is kept");
    }
}
