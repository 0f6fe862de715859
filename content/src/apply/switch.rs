//! Phase B: the renames, then the deletions, then what only metadata was wrong of, and the
//! directories.
//!
//! Directories come last and deepest first: filling one changes its time, and one that is to be
//! read-only could not be filled. A failure here leaves some files new; the remaining temporary
//! files are removed, and applying again finishes the work.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, fstat, linkat, renameat, unlinkat};
use rustix::io::Errno;

use super::error::{ApplyError, Stage};
use super::write::{Writer, fresh, make};
use super::{Action, temp_name};
use crate::guards::{Guard, holds};
use crate::manifest::{Entry, Kind};
use crate::tree;

impl Writer<'_> {
    /// Puts everything in place. Returns how many entries were deleted.
    pub(super) fn switch(&mut self) -> Result<u64, ApplyError> {
        self.replace_all().map_err(|err| {
            self.undo();
            err.made_partial()
        })
    }

    fn replace_all(&mut self) -> Result<u64, ApplyError> {
        let ground = self.ground;
        let (target, survey) = (self.target, self.survey);
        let mut deleted = 0;
        for (n, entry) in target.entries.iter().enumerate() {
            if survey.actions[n] == (Action::MakeDir { later: true }) {
                deleted += self.clear(n)?;
                let made = self.make_later(entry);
                made.map_err(ground.failed(Stage::Create, &entry.path))?;
            }
        }
        // From the end, so that what is left is always a prefix of the list.
        while let Some(n) = self.temps.last().copied() {
            let entry = &target.entries[n];
            deleted += self.clear(n)?;
            self.replace(n, entry).map_err(ground.failed(Stage::Replace, &entry.path))?;
            self.temps.pop();
        }
        deleted += self.delete(&survey.extras)?;
        self.restore_modes();
        for (n, entry) in target.entries.iter().enumerate().rev() {
            let described = match (&entry.kind, survey.actions[n]) {
                (Kind::Dir, Action::Keep) if self.rules.content_only => Ok(()),
                (Kind::Dir, _) => self.describe_dir(entry),
                (_, Action::Describe { dev, ino }) => self.describe(entry, (dev, ino)),
                _ => Ok(()),
            };
            described.map_err(ground.failed(Stage::Describe, &entry.path))?;
        }
        self.sync_switched()?;
        Ok(deleted)
    }

    fn make_later(&mut self, entry: &Entry) -> io::Result<()> {
        let (dir, name) = self.ground.place(entry);
        self.in_dir(dir, |parent| make(parent, name)).map(|_| ())
    }

    fn replace(&mut self, n: usize, entry: &Entry) -> io::Result<()> {
        let (dir, name) = self.ground.place(entry);
        let dirs = self.dirs.as_mut().expect("opened in phase A");
        let stage = self.survey.stage(dir);
        let from = if stage == dir { None } else { Some(dirs.at(stage)?.try_clone_to_owned()?) };
        let parent = dirs.at(dir)?;
        if matches!(self.survey.actions[n], Action::Write { over_dir: true, .. }) {
            unlinkat(parent, name, AtFlags::REMOVEDIR)?;
        }
        let from = from.as_ref().map_or(parent, AsFd::as_fd);
        let changes = matches!(self.survey.actions[n], Action::Write { equal: false, .. });
        if changes && !self.rules.save.is_empty() {
            let kept = [name, &self.rules.save].concat();
            save(parent, name, &kept, &temp_name(self.tag, n + self.target.entries.len()))?;
        }
        Ok(renameat(from, temp_name(self.tag, n), parent, name)?)
    }

    fn describe(&mut self, entry: &Entry, seen: (u64, u64)) -> io::Result<()> {
        let (dir, name) = self.ground.place(entry);
        let parent = self.dirs.as_mut().expect("opened in phase A").at(dir)?;
        if let Kind::Symlink { .. } = entry.kind {
            return self.owners.describe_link(parent, name, entry, Some(seen));
        }
        let (file, stat) = tree::open_file(parent, name)?;
        if (stat.st_dev, stat.st_ino) != seen && holds(Guard::SameInode) {
            return Err(io::Error::other("replaced by somebody else meanwhile"));
        }
        let kept = self.owners.describe(&file, entry)?;
        self.attributes_lost += u64::from(!kept);
        Ok(())
    }

    fn describe_dir(&mut self, entry: &Entry) -> io::Result<()> {
        let fd = self.dirs.as_mut().expect("opened in phase A").at(&entry.path)?;
        let differs = self.owners.differs(entry, &fstat(fd)?);
        let fd = match tree::open_self(fd) {
            // What may not be read and is right otherwise is left alone.
            Err(err) if !differs && err.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
            opened => opened?,
        };
        if !differs && self.owners.has_attributes(&fd, entry)? {
            return Ok(());
        }
        let kept = self.owners.describe(fd, entry)?;
        self.attributes_lost += u64::from(!kept);
        Ok(())
    }
}

/// Gives what is to be replaced another name to stay under, in the place of what has that name.
/// By way of a temporary name, so that there is no moment without either.
fn save(parent: BorrowedFd<'_>, name: &[u8], kept: &[u8], temp: &str) -> io::Result<()> {
    let Some(stat) = tree::look(parent, name)? else { return Ok(()) };
    if !matches!(tree::kind(&stat), FileType::RegularFile | FileType::Symlink) {
        return Ok(());
    }
    fresh(parent, temp, |parent| Ok(linkat(parent, name, parent, temp, AtFlags::empty())?))?;
    // Of two names of one file a rename would leave both.
    match renameat(parent, temp, parent, kept) {
        Ok(()) => {}
        Err(err) => {
            let _ = unlinkat(parent, temp, AtFlags::empty());
            return Err(err.into());
        }
    }
    match unlinkat(parent, temp, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(err) => Err(err.into()),
    }
}
