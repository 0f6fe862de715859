//! Deleting what the survey has found that the manifest does not name.
//!
//! Each entry goes by its name below a directory that is held open, and only if it is the one
//! that was seen: what somebody has put in its place meanwhile is not ours to delete.

use std::io;

use rustix::fs::{AtFlags, unlinkat};
use rustix::io::Errno;

use super::error::{ApplyError, Stage};
use super::extra::{Extra, split};
use super::write::Writer;
use crate::tree;

impl Writer<'_> {
    /// Deletes what is in the way of an entry. Returns how many entries went.
    pub(super) fn clear(&mut self, n: usize) -> Result<u64, ApplyError> {
        match self.survey.clears.get(&n) {
            Some(extras) => self.delete(extras),
            None => Ok(0),
        }
    }

    /// Deletes these entries, children before their parents.
    pub(super) fn delete(&mut self, extras: &[Extra]) -> Result<u64, ApplyError> {
        let mut deleted = 0;
        for extra in extras {
            let gone = self.delete_one(extra);
            let gone = gone.map_err(self.ground.failed(Stage::Delete, &extra.path))?;
            deleted += u64::from(gone);
        }
        Ok(deleted)
    }

    /// `false`: it was gone already, or somebody has put something into it since.
    fn delete_one(&mut self, extra: &Extra) -> io::Result<bool> {
        let (dir, name) = split(&extra.path);
        self.in_dir(dir, |parent| {
            let Some(stat) = tree::look(parent, name)? else { return Ok(false) };
            if (stat.st_dev, stat.st_ino) != extra.inode {
                return Err(io::Error::other("replaced by somebody else meanwhile"));
            }
            let flags = if extra.is_dir { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            match unlinkat(parent, name, flags) {
                Ok(()) => Ok(true),
                Err(Errno::NOTEMPTY) => Ok(false),
                Err(err) => Err(err.into()),
            }
        })
    }
}
