//! Getting onto the disk what an install has written.
//!
//! The idea: a few files are synced one by one, and a few directories; a sync of the whole file
//! system would wait for all that others have written there, so that a busy database would hold up
//! one changed line. Of many files each by itself costs more than that, and they share one.
//!
//! It deliberately counts only files and directories: of links and of what goes nobody but the file
//! system knows when it is on disk.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{fsync, syncfs};

use super::Action;
use super::error::{ApplyError, Stage};
use super::survey::Survey;
use super::write::Writer;
use crate::manifest::{Kind, Manifest};
use crate::tree;

/// So many entries are synced one by one at most.
const FEW: usize = 16;

impl Survey {
    /// Whether what is to be done is so little, and such, that it is synced by itself.
    pub(super) fn is_little(&self, target: &Manifest) -> bool {
        let plain = |(n, action): (usize, &Action)| match (action, &target.entries[n].kind) {
            (Action::Write { .. }, Kind::File { .. }) => !self.hard_links.names.contains_key(&n),
            (Action::MakeDir { later }, _) => !later,
            (Action::Describe { .. }, Kind::File { .. } | Kind::Dir) => true,
            _ => false,
        };
        let actions = self.actions.iter().enumerate();
        let mut todo = actions.filter(|(_, action)| **action != Action::Keep);
        self.deletes() == 0 && todo.clone().count() <= FEW && todo.all(plain)
    }
}

impl Writer<'_> {
    /// Syncs what was written beside its destination.
    pub(super) fn sync_written(&mut self) -> Result<(), ApplyError> {
        let Some(written) = &mut self.few else { return self.sync_all() };
        let (ground, target) = (self.ground, self.target);
        std::mem::take(written).into_iter().try_for_each(|(n, file)| {
            file.sync_all().map_err(ground.failed(Stage::Sync, &target.entries[n].path))
        })
    }

    /// Syncs the directories in which something has changed, and what was only described.
    pub(super) fn sync_switched(&mut self) -> Result<(), ApplyError> {
        if self.few.is_none() {
            return self.sync_all();
        }
        // What may be written but not read cannot be synced by itself.
        let Ok(changed) = self.changed() else { return self.sync_all() };
        let synced = changed.iter().try_for_each(fsync);
        synced.map_err(|err| self.ground.failed(Stage::Sync, b"")(err.into()))
    }

    /// Opens what was changed in place.
    fn changed(&mut self) -> io::Result<Vec<OwnedFd>> {
        let mut changed = Vec::new();
        for (parent, _) in &self.parents {
            changed.push(tree::open_self(parent.as_fd())?);
        }
        let (ground, target) = (self.ground, self.target);
        let dirs = self.dirs.as_mut().expect("opened before");
        let mut filled: BTreeSet<&[u8]> = BTreeSet::new();
        for (n, entry) in target.entries.iter().enumerate() {
            let (dir, name) = ground.place(entry);
            match (self.survey.actions[n], &entry.kind) {
                (Action::Keep | Action::Blocked, _) => {}
                (Action::Write { .. }, _) => _ = filled.insert(dir),
                (Action::Describe { .. }, Kind::Dir) => _ = filled.insert(&entry.path),
                (Action::MakeDir { .. }, _) => filled.extend([dir, entry.path.as_slice()]),
                (Action::Describe { .. }, _) => {
                    changed.push(OwnedFd::from(tree::open_file(dirs.at(dir)?, name)?.0));
                }
            }
        }
        for dir in filled {
            changed.push(tree::open_self(dirs.at(dir)?)?);
        }
        Ok(changed)
    }

    /// One sync for each file system.
    fn sync_all(&self) -> Result<(), ApplyError> {
        let synced = self.devices.values().try_for_each(syncfs);
        synced.map_err(|err| self.ground.failed(Stage::Sync, b"")(err.into()))
    }

    /// Keeps a file that was written open until it is synced, if it is one of few.
    pub(super) fn note_written(&mut self, n: usize, file: File) {
        if let Some(written) = &mut self.few {
            written.push((n, file));
        }
    }
}
