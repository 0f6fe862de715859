//! Trees that are put in place as a whole, and can be put back at once.
//!
//! The idea: the new tree is built beside the old one with the same installer as any other, out
//! of the old one's bytes as far as they are the same, and is complete and on disk before two
//! names are exchanged in one step of the file system. What was there is kept as the previous
//! release; going back to it exchanges the names again, without a byte.
//!
//! ```text
//! /srv/app                   what programs see
//! /srv/.app.barid-next-ORDER what an order is building
//! /srv/.app.barid-previous   what was there before
//! /srv/.app.barid-old        what was there before that, on its way out
//! ```
//!
//! It deliberately refuses to move a tree in which something is mounted: the mount would move with
//! it. An order that was killed in the middle and begins again finds by the name with its own tag
//! whether it had exchanged the names.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{FileType, RenameFlags, Stat, renameat, renameat_with};
use rustix::io::Errno;

use super::drift::{Preflight, word};
use super::error::{ApplyError, Stage};
use super::ground::{self, Ground};
use super::rules::{Delete, MaxDelete, Rules};
use super::{Applied, Chunks, Installer, Job};
use crate::manifest::Kind;
use crate::show::show;
use crate::store::Store;
use crate::tree;

/// The names of one release.
struct Names {
    live: Vec<u8>,
    /// What the names of all trees that are being built begin with.
    building: Vec<u8>,
    next: Vec<u8>,
    previous: Vec<u8>,
    old: Vec<u8>,
}

/// The folder that holds a release and those before it.
struct Site<'a> {
    dest: &'a [u8],
    ground: Ground,
    names: Names,
}

/// What became of the tree that was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// There was none.
    Nothing,
    /// It was the same already, and is still in place.
    Same,
    /// It is kept as the previous release.
    Kept,
}

impl Installer {
    /// Puts a tree in place as a whole, and keeps the one before. An error has changed nothing
    /// that programs see.
    pub fn release(
        &self,
        job: &Job<'_>,
        store: &Store,
        chunks: &mut dyn Chunks,
    ) -> Result<(Applied, Before), ApplyError> {
        super::check(job)?;
        if job.target.entries.first().is_none_or(|root| root.kind != Kind::Dir) {
            let reason = "only a directory can be put in place as a whole";
            return Err(ApplyError::Destination { dest: show(job.dest), reason });
        }
        let site = Site::find(self, job.dest, job.tag)?;
        site.remove_abandoned()?;
        let live = site.kind(&site.names.live)?;
        let exact =
            Rules { delete: Delete::All, max_delete: MaxDelete::Percent(100), ..Rules::default() };
        match live {
            None => {}
            Some(FileType::Directory) => {
                site.refuse_mounts(&site.names.live)?;
                let job = Job { rules: &exact, ..*job };
                if self.compare(&job)?.entries == 0 {
                    return site.finish(job.target.entries.len() as u64);
                }
            }
            Some(found) => return Err(site.conflict(&site.names.live, word(found))),
        }
        let next = site.path(&site.names.next);
        let live_ground = match live {
            Some(_) => Some(ground::resolve(&self.root, job)?),
            None => None,
        };
        let build = Job { dest: &next, rules: &exact, before: None, ..*job };
        let applied = self.apply_beside(&build, live_ground.as_ref(), store, chunks)?;
        // What was missing above the release is there now.
        let site = Site::find(self, job.dest, job.tag)?;
        site.switch(live.is_some())?;
        let before = if live.is_some() { Before::Kept } else { Before::Nothing };
        Ok((applied, before))
    }

    /// What putting a tree in place as a whole would come to now. Changes nothing.
    pub fn preflight_release(&self, job: &Job<'_>, store: &Store) -> Result<Preflight, ApplyError> {
        let site = Site::find(self, job.dest, job.tag)?;
        let live = match site.kind(&site.names.live)? {
            None => None,
            Some(FileType::Directory) => {
                site.refuse_mounts(&site.names.live)?;
                Some(ground::resolve(&self.root, job)?)
            }
            Some(found) => return Err(site.conflict(&site.names.live, word(found))),
        };
        let (next, rules) = (site.path(&site.names.next), Rules::default());
        let build = Job { dest: &next, rules: &rules, before: None, ..*job };
        self.preflight_beside(&build, live.as_ref(), store)
    }

    /// Puts the previous release back, and keeps the present one as the previous. `false`: there
    /// is none.
    pub fn roll_back(&self, dest: &[u8]) -> Result<bool, ApplyError> {
        let site = Site::find(self, dest, "")?;
        let there = [&site.names.live, &site.names.previous];
        for name in there {
            match site.kind(name)? {
                Some(FileType::Directory) => site.refuse_mounts(name)?,
                None => return Ok(false),
                Some(found) => return Err(site.conflict(name, word(found))),
            }
        }
        site.exchange(&site.names.previous)?;
        Ok(true)
    }

    /// Device and inode of the release that is in place, and of the previous one. They tell
    /// whether the two were exchanged.
    pub fn releases(&self, dest: &[u8]) -> Result<[Option<(u64, u64)>; 2], ApplyError> {
        let site = Site::find(self, dest, "")?;
        let inode = |stat: Stat| (stat.st_dev, stat.st_ino);
        let (live, previous) = (site.look(&site.names.live)?, site.look(&site.names.previous)?);
        Ok([live.map(inode), previous.map(inode)])
    }
}

impl<'a> Site<'a> {
    fn find(installer: &Installer, dest: &'a [u8], tag: &str) -> Result<Site<'a>, ApplyError> {
        let ground = ground::resolve_parent(&installer.root, dest)?;
        let live = ground.leaf().to_vec();
        let name = |suffix: &str| [b".", live.as_slice(), suffix.as_bytes()].concat();
        let names = Names {
            building: name(".barid-next-"),
            next: [name(".barid-next-"), tag.as_bytes().to_vec()].concat(),
            previous: name(".barid-previous"),
            old: name(".barid-old"),
            live,
        };
        if names.next.len().max(names.previous.len()) > 255 {
            let reason = "its name is too long for the names that a release has beside it";
            return Err(ApplyError::Destination { dest: show(dest), reason });
        }
        Ok(Site { dest, ground, names })
    }

    /// The whole path of one of the names.
    fn path(&self, name: &[u8]) -> Vec<u8> {
        let parent = self.dest.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        [&self.dest[..parent], b"/", name].concat()
    }

    fn dir(&self) -> BorrowedFd<'_> {
        self.ground.dir.as_fd()
    }

    fn look(&self, name: &[u8]) -> Result<Option<Stat>, ApplyError> {
        if !self.ground.missing.is_empty() {
            return Ok(None);
        }
        tree::look(self.dir(), name).map_err(self.failed(Stage::Open, name))
    }

    fn kind(&self, name: &[u8]) -> Result<Option<FileType>, ApplyError> {
        Ok(self.look(name)?.as_ref().map(tree::kind))
    }

    /// Removes what other orders have begun to build and never ended.
    fn remove_abandoned(&self) -> Result<(), ApplyError> {
        if !self.ground.missing.is_empty() {
            return Ok(());
        }
        let listed = tree::open_self(self.dir()).and_then(|fd| tree::names(&fd));
        for name in listed.map_err(self.failed(Stage::Open, b""))? {
            if name.starts_with(&self.names.building) && name != self.names.next {
                self.remove(&name)?;
            }
        }
        Ok(())
    }

    /// What is in place is right. If this order was cut off just after it had exchanged the names,
    /// the rest is done.
    fn finish(&self, unchanged: u64) -> Result<(Applied, Before), ApplyError> {
        let (next, previous) = (&self.names.next, &self.names.previous);
        let mut before = Before::Same;
        if self.kind(next)?.is_some() {
            if self.kind(previous)?.is_some() {
                self.remove(&self.names.old)?;
                self.rename(previous, &self.names.old)?;
            }
            self.rename(next, previous)?;
            self.sync()?;
            before = Before::Kept;
        }
        self.remove(&self.names.old)?;
        Ok((Applied { unchanged, ..Applied::default() }, before))
    }

    /// Lets what was built take the place of what is there.
    fn switch(&self, is_live: bool) -> Result<(), ApplyError> {
        let Names { live, next, previous, old, .. } = &self.names;
        if !is_live {
            let renamed = renameat_with(self.dir(), next, self.dir(), live, RenameFlags::NOREPLACE);
            renamed.map_err(|err| self.failed(Stage::Replace, live)(err.into()))?;
            return self.sync();
        }
        if self.kind(previous)?.is_none() && self.kind(old)?.is_some() {
            // Somebody was killed between this rename and the exchange.
            self.rename(old, previous)?;
        }
        self.remove(old)?;
        let kept = self.kind(previous)?.is_some();
        if kept {
            self.rename(previous, old)?;
        }
        if let Err(error) = self.exchange(next) {
            if kept {
                self.rename(old, previous)?;
            }
            return Err(error);
        }
        self.rename(next, previous)?;
        self.sync()?;
        // All is in place. What cannot be removed is in the way of the next one, which says so.
        self.remove(old).ok();
        Ok(())
    }

    /// The tree of this name and the one in place exchange their names, and that is on disk.
    fn exchange(&self, name: &[u8]) -> Result<(), ApplyError> {
        let live = self.names.live.as_slice();
        match renameat_with(self.dir(), name, self.dir(), live, RenameFlags::EXCHANGE) {
            Ok(()) => self.sync(),
            Err(Errno::INVAL | Errno::NOSYS) => {
                Err(ApplyError::NoExchange { path: show(self.dest) })
            }
            Err(err) => Err(self.failed(Stage::Replace, live)(err.into())),
        }
    }

    fn rename(&self, from: &[u8], to: &[u8]) -> Result<(), ApplyError> {
        let renamed = renameat(self.dir(), from, self.dir(), to);
        renamed.map_err(|err| self.failed(Stage::Replace, from)(err.into()))
    }

    fn sync(&self) -> Result<(), ApplyError> {
        let opened = tree::open_self(self.dir());
        let synced = opened.and_then(|fd| Ok(rustix::fs::fsync(fd)?));
        synced.map_err(self.failed(Stage::Sync, b""))
    }

    /// Removes a tree that nobody needs any more.
    fn remove(&self, name: &[u8]) -> Result<(), ApplyError> {
        if self.kind(name)?.is_none() {
            return Ok(());
        }
        self.refuse_mounts(name)?;
        // The standard library goes down by descriptors, and follows no link.
        let path = std::path::PathBuf::from(format!("/proc/self/fd/{}", self.dir().as_raw_fd()));
        let removed = std::fs::remove_dir_all(path.join(std::ffi::OsStr::from_bytes(name)));
        removed.map_err(self.failed(Stage::Delete, name))
    }

    fn refuse_mounts(&self, name: &[u8]) -> Result<(), ApplyError> {
        let found = mounted(self.dir(), name).map_err(self.failed(Stage::Compare, name))?;
        found.map_or(Ok(()), |path| {
            let (found, wanted) = ("a mount point", "part of a release that moves as a whole");
            Err(ApplyError::Conflict { path: show(&path), found, wanted })
        })
    }

    fn conflict(&self, name: &[u8], found: &'static str) -> ApplyError {
        ApplyError::Conflict { path: show(&self.path(name)), found, wanted: "a directory" }
    }

    fn failed(&self, stage: Stage, name: &[u8]) -> impl FnOnce(io::Error) -> ApplyError + use<> {
        let path = if name.is_empty() { show(self.dest) } else { show(&self.path(name)) };
        move |source| ApplyError::Io { stage, path, partial: false, source }
    }
}

/// The first mount point at or below a name, as the kernel lists them.
fn mounted(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let link = rustix::fs::readlink(format!("/proc/self/fd/{}", dir.as_raw_fd()), Vec::new())?;
    let mut path = link.into_bytes();
    if path.last() != Some(&b'/') {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    let mut mounts = Vec::new();
    File::open("/proc/self/mountinfo")?.read_to_end(&mut mounts)?;
    let points = mounts.split(|byte| *byte == b'\n').filter_map(|line| {
        let point = line.split(|byte| *byte == b' ').nth(4)?;
        Some(unescaped(point))
    });
    Ok(points.into_iter().find(|point| {
        point
            .strip_prefix(path.as_slice())
            .is_some_and(|rest| matches!(rest.first(), None | Some(b'/')))
    }))
}

/// The kernel writes blanks and the like as `\040`.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| byte == b'\\');
        let code = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|code| u8::from_str_radix(code, 8).ok()) {
            Some(code) => {
                plain.push(code);
                rest = &after[3..];
            }
            None => {
                plain.push(byte);
                rest = after;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use rustix::fs::{Mode, OFlags};

    use super::*;

    #[test]
    fn paths_of_mounts_are_read_as_they_are() {
        assert_eq!(unescaped(br"/a\040b\134c\0"), b"/a b\\c\\0");
        let proc = rustix::fs::open("/", OFlags::PATH, Mode::empty()).expect("the root");
        let found = |name: &[u8]| mounted(proc.as_fd(), name).expect("read");
        assert_eq!(found(b"proc").as_deref(), Some(&b"/proc"[..]));
        assert_eq!(found(b"pro"), None);
    }
}
