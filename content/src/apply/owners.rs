//! Owner, mode and time of an entry: what they should be, whether they are, and setting them.
//!
//! Only root gives files away. Anybody else leaves the owner alone, and that is counted, not
//! hidden. Links have no mode of their own.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT, Uid, chownat,
    fchmod, fchown, fstat, futimens, openat, readlinkat, utimensat,
};
use rustix::io::Errno;

use crate::attributes;
use crate::guards::{Guard, holds};
use crate::manifest::{Entry, Kind, Name};
use crate::names::Names;
use crate::tree;

pub(super) struct Owners {
    pub(super) root: bool,
    /// Who owns what we make.
    us: (u32, u32),
    names: Names,
}

impl Owners {
    pub(super) fn new() -> Owners {
        let us = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Owners { root: us.0 == 0, us, names: Names::default() }
    }

    /// The user and group this host knows the owner of an entry by.
    pub(super) fn wanted(&mut self, entry: &Entry) -> (u32, u32) {
        let uid = self.names.uid(&entry.owner, entry.uid);
        (uid, self.names.gid(&entry.group, entry.gid))
    }

    /// Whether the owner is wrong and stays so, because we are not root.
    pub(super) fn skips(&mut self, entry: &Entry, stat: Option<&Stat>) -> bool {
        let is = stat.map_or(self.us, |stat| (stat.st_uid, stat.st_gid));
        !self.root && self.wanted(entry) != is
    }

    /// Whether we may set the mode and time of what is there.
    pub(super) fn may_describe(&self, stat: &Stat) -> bool {
        self.root || stat.st_uid == self.us.0
    }

    /// Whether anything we would set is not what it should be.
    pub(super) fn differs(&mut self, entry: &Entry, stat: &Stat) -> bool {
        let owner = self.root && self.wanted(entry) != (stat.st_uid, stat.st_gid);
        let is_link = matches!(entry.kind, Kind::Symlink { .. });
        let mode = !is_link && entry.mode != tree::mode(stat);
        owner || mode || entry.mtime != tree::mtime(stat)
    }

    /// The same in words, what is wanted first.
    pub(super) fn differences(&mut self, entry: &Entry, stat: &Stat) -> Vec<String> {
        let mut words = Vec::new();
        let is_link = matches!(entry.kind, Kind::Symlink { .. });
        if !is_link && entry.mode != tree::mode(stat) {
            words.push(format!("mode {:04o}, is {:04o}", entry.mode, tree::mode(stat)));
        }
        let (uid, gid) = self.wanted(entry);
        let shown =
            |name: Name, id: u32| if name.is_empty() { id.to_string() } else { name.to_string() };
        if self.root && uid != stat.st_uid {
            let (wanted, is) = (self.names.user(uid), self.names.user(stat.st_uid));
            words.push(format!("owner {}, is {}", shown(wanted, uid), shown(is, stat.st_uid)));
        }
        if self.root && gid != stat.st_gid {
            let (wanted, is) = (self.names.group(gid), self.names.group(stat.st_gid));
            words.push(format!("group {}, is {}", shown(wanted, gid), shown(is, stat.st_gid)));
        }
        if entry.mtime != tree::mtime(stat) {
            words.push("time".into());
        }
        words
    }

    /// Sets all of it on an open file or directory. The owner first: chown clears setuid and
    /// capabilities. `false`: not all attributes are kept.
    pub(super) fn describe(&mut self, fd: impl AsFd, entry: &Entry) -> io::Result<bool> {
        if self.root {
            let (uid, gid) = self.wanted(entry);
            fchown(&fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        let kept = attributes::write(&fd, &entry.attributes)?;
        fchmod(&fd, Mode::from_raw_mode(entry.mode))?;
        futimens(&fd, &times(entry))?;
        Ok(kept)
    }

    /// Whether an open file or directory has the attributes that it should have.
    pub(super) fn has_attributes(&self, fd: impl AsFd, entry: &Entry) -> io::Result<bool> {
        attributes::are(fd, &entry.attributes, self.root)
    }

    /// The same for a link. It cannot be opened for reading, but held: whatever has its name by
    /// then, only the link that was seen, or a new one of ours, gets an owner.
    pub(super) fn describe_link(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        entry: &Entry,
        seen: Option<(u64, u64)>,
    ) -> io::Result<()> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let link = openat(parent, name, flags, Mode::empty())?;
        let stat = fstat(&link)?;
        let is_link = tree::kind(&stat) == FileType::Symlink;
        let same = match (seen, &entry.kind) {
            _ if !is_link => false,
            (Some(seen), _) => (stat.st_dev, stat.st_ino) == seen,
            (None, Kind::Symlink { target }) => {
                stat.st_nlink == 1 && readlinkat(&link, "", Vec::new())?.as_bytes() == target
            }
            _ => false,
        };
        if !same && holds(Guard::SameInode) {
            return Err(io::Error::other("replaced by somebody else meanwhile"));
        }
        if self.root {
            let (uid, gid) = self.wanted(entry);
            let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            chownat(&link, "", uid, gid, AtFlags::EMPTY_PATH)?;
        }
        match utimensat(&link, "", &times(entry), AtFlags::EMPTY_PATH) {
            // Before Linux 5.8 only by name; a wrong time is all that can come of it.
            Err(Errno::INVAL) => {
                Ok(utimensat(parent, name, &times(entry), AtFlags::SYMLINK_NOFOLLOW)?)
            }
            set => Ok(set?),
        }
    }
}

fn times(entry: &Entry) -> Timestamps {
    let (tv_sec, nanos) = entry.mtime;
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec, tv_nsec: nanos.into() },
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;
    use crate::guards::without;
    use crate::{Patterns, Store, ingest};

    /// A link that was seen, and then a file in its place: the file keeps its owner and its time.
    #[test]
    fn what_has_taken_the_place_of_a_link_is_not_described() {
        let dir = tempfile::tempdir().expect("a folder");
        let store = Store::open(dir.path().join("store")).expect("opens");
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("source")).expect("makes");
        symlink("to", at("source/link")).expect("link");
        let read = ingest(&at("source"), &Patterns::default(), &store, &mut |_| ());
        let mut entry = read.expect("reads").manifest.entries.pop().expect("the link");
        entry.mtime = (1_000, 0);

        symlink("to", at("link")).expect("link");
        fs::write(at("file"), b"other").expect("file");
        let parent = fs::File::open(dir.path()).expect("opens");
        let inode = |name: &str| {
            let meta = fs::symlink_metadata(at(name)).expect("is there");
            Some((meta.dev(), meta.ino()))
        };
        let mtime = |name: &str| fs::symlink_metadata(at(name)).expect("is there").mtime();
        let mut owners = Owners::new();
        let mut describe = |seen| owners.describe_link(parent.as_fd(), b"link", &entry, seen);

        let (seen, before) = (inode("link"), mtime("file"));
        fs::rename(at("file"), at("link")).expect("renames");
        for seen in [seen, None] {
            let refused = describe(seen).expect_err("it is another");
            assert!(refused.to_string().contains("replaced"), "{refused}");
            assert_eq!(mtime("link"), before);
        }
        without(Guard::SameInode, || describe(seen)).expect("nobody looks");
        assert_eq!(mtime("link"), 1_000, "without the rule it would be");

        fs::remove_file(at("link")).expect("removes");
        symlink("to", at("link")).expect("link");
        describe(None).expect("a new link of ours");
        assert_eq!(mtime("link"), 1_000);
        describe(inode("link")).expect("the one that was seen");
    }
}
