//! Names of one file: they are all right, or all made anew.
//!
//! The first name, in the order of the manifest, is the file; the others are made as links to it
//! before any of them takes its place. So a file that should have other names is never described
//! in place, and none is left over under an old inode.

use std::collections::BTreeMap;

use rustix::fs::Stat;

use super::error::ApplyError;
use super::survey::Surveyor;
use crate::manifest::{Kind, Manifest};

/// Which entries are names of one file.
#[derive(Default)]
pub(super) struct HardLinks {
    /// Of each name but the first: the place of the first.
    pub(super) heads: BTreeMap<usize, usize>,
    /// Of each first name: the others.
    pub(super) names: BTreeMap<usize, Vec<usize>>,
}

impl HardLinks {
    /// Of the entries of a manifest that was checked.
    pub(super) fn of(target: &Manifest) -> HardLinks {
        let place = |to: &[u8]| {
            let found = target.entries.binary_search_by(|entry| entry.path.as_slice().cmp(to));
            found.expect("the manifest was checked: the file comes earlier")
        };
        let mut links = HardLinks::default();
        for (n, entry) in target.entries.iter().enumerate() {
            if let Kind::HardLink { to } = &entry.kind {
                let head = place(to);
                links.heads.insert(n, head);
                links.names.entry(head).or_default().push(n);
            }
        }
        links
    }
}

impl Surveyor<'_> {
    /// Whether a file has just the other names that it should have. Of one that should have none
    /// nobody asks: it is replaced if need be, and its other names stay as they are.
    pub(super) fn has_its_names(&mut self, n: usize, stat: &Stat) -> Result<bool, ApplyError> {
        let hard_links = self.hard_links;
        let Some(names) = hard_links.names.get(&n) else { return Ok(true) };
        for name in names {
            let entry = &self.target.entries[*name];
            // Its directory may be missing, or be something else.
            let found = self.eye.look(entry).unwrap_or_default();
            let same = |other: Stat| (other.st_dev, other.st_ino) == (stat.st_dev, stat.st_ino);
            if !found.is_some_and(same) {
                return Ok(false);
            }
        }
        Ok(usize::try_from(stat.st_nlink).is_ok_and(|found| found == names.len() + 1))
    }
}
