//! Making a tree on disk equal to a manifest.
//!
//! The idea: look first, then write everything beside its destination, sync it, and only then
//! rename. Until the first rename nothing of the old tree has changed, and whatever fails
//! takes its temporary files along. What is on disk already is compared by content; chunks found
//! in files that will be replaced are used, so only what is nowhere on this node is asked for.
//!
//! ```text
//! resolve -> survey -> preflight -> provide -> write -> sync
//!         -> rename -> delete -> directories -> sync
//! ```
//!
//! **Invariant**: after [`resolve`](ground::resolve) every call names a single component below a
//! directory that is held open, and never follows a link.
//!
//! It deletes what the manifest does not name only if the [`Rules`] say so, and never more than
//! they allow. It deliberately renames file by file: a reader sees each file old or new, never
//! half, but may see some of each while it runs. Only where a directory takes the place of a file
//! or the other way round there is nothing for a moment.

mod drift;
mod error;
mod extra;
mod eye;
mod ground;
mod hard_links;
mod installed;
mod owners;
mod release;
mod remove;
mod rules;
mod survey;
mod sweep;
mod switch;
mod sync;
mod write;

use std::collections::BTreeSet;
use std::path::PathBuf;

pub use self::drift::{Drift, Preflight};
pub use self::error::{ApplyError, Stage};
use self::ground::Ground;
pub use self::installed::Installed;
pub use self::release::Before;
pub use self::rules::{Delete, MaxDelete, Rules};
use self::survey::Action;
use self::write::Writer;
use crate::manifest::{ChunkRef, Entry, Limits, Manifest};
use crate::store::Store;

/// Puts trees in place, all of them below one root.
#[derive(Debug, Clone)]
pub struct Installer {
    root: PathBuf,
}

/// One tree to put in place.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// Short unique text of the order, `[a-z0-9]+`: names our temporary files.
    pub tag: &'a str,
    /// Absolute path as the operator gave it, taken below the root of the installer.
    pub dest: &'a [u8],
    /// What the destination shall be.
    pub target: &'a Manifest,
    /// How.
    pub rules: &'a Rules,
    /// What an earlier push has put there, if that is known.
    pub before: Option<&'a Manifest>,
}

/// Where missing chunks come from.
pub trait Chunks {
    /// Gets chunks that are neither on disk nor in the store; called at most once for a job.
    /// On `Ok` each of them is in the store.
    fn provide(&mut self, wanted: &[ChunkRef]) -> Result<(), ApplyError>;

    /// Says whether the files may be written, once it is known that they fit by themselves;
    /// before the first byte is asked for or written.
    fn admit(&mut self, writing: &Writing) -> Result<(), ApplyError> {
        let _ = writing;
        Ok(())
    }
}

/// What is about to be written, all of it beside what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Writing {
    /// Bytes of files on the disk.
    pub bytes: u64,
    /// Bytes of pieces that are neither on the disk nor in the store.
    pub wanted: u64,
}

/// What an apply did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// Files and links put in place, and directories made.
    pub written: u64,
    /// Entries that were right already.
    pub unchanged: u64,
    /// Bytes written into files.
    pub bytes_written: u64,
    /// Entries that only had another mode, owner or time.
    pub metadata_fixed: u64,
    /// Entries whose owner would differ, left alone because we are not root.
    pub owner_skipped: u64,
    /// Entries of which not all attributes are kept: the file system, or who we are, does not let
    /// them be.
    pub attributes_lost: u64,
    /// Entries deleted.
    pub deleted: u64,
    /// Entries that were to be deleted but are not as they were installed, and so stay.
    pub kept: Named,
    /// Files that were changed later than those that would replace them, and so stay.
    pub newer: Named,
    /// The places in the manifest of files and links that were written.
    pub updated: Vec<usize>,
}

/// How many entries, and the first of them by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Named {
    /// How many.
    pub count: u64,
    /// The paths of the first.
    pub paths: Vec<String>,
}

impl Named {
    /// So many are named.
    const MOST: usize = 8;

    fn add(&mut self, path: String) {
        self.count += 1;
        if self.paths.len() < Named::MOST {
            self.paths.push(path);
        }
    }
}

impl Installer {
    /// An installer whose destinations are all below `root`: `/` in production.
    pub fn new(root: PathBuf) -> Installer {
        Installer { root }
    }

    /// Makes the destination equal to the target.
    ///
    /// An error from before the renames ([`ApplyError::partial`] is false) has changed nothing;
    /// one from after them is mended by applying again.
    pub fn apply(
        &self,
        job: &Job<'_>,
        store: &Store,
        chunks: &mut dyn Chunks,
    ) -> Result<Applied, ApplyError> {
        self.apply_beside(job, None, store, chunks)
    }

    /// The same, with bytes from another tree in which those of the target may be.
    fn apply_beside(
        &self,
        job: &Job<'_>,
        other: Option<&Ground>,
        store: &Store,
        chunks: &mut dyn Chunks,
    ) -> Result<Applied, ApplyError> {
        check(job)?;
        let ground = ground::resolve(&self.root, job)?;
        let mut survey = survey::survey(&ground, job)?;
        if let Some(other) = other.filter(|_| !survey.nothing_to_do()) {
            survey.note_other(other, job)?;
        }
        survey.check_deletes(&ground, job.rules)?;
        let mut applied = survey.applied.clone();
        if survey.nothing_to_do() {
            return Ok(applied);
        }
        let bytes = survey.preflight(&ground, job.target)?;
        // From here on nothing goes that is counted on.
        let writes = survey.writes(job.target).flat_map(|(_, entry)| entry.chunks());
        let pieces: BTreeSet<_> = writes.map(|chunk| chunk.id).collect();
        let _pinned = store.pin(pieces);
        let wanted = survey.wanted(job.target, store)?;
        let missing = wanted.iter().map(|chunk| u64::from(chunk.len)).sum();
        chunks.admit(&Writing { bytes, wanted: missing })?;
        if !wanted.is_empty() {
            chunks.provide(&wanted)?;
        }
        let mut writer = Writer::new(&ground, job, store, &survey);
        writer.read_from(other)?;
        applied.bytes_written = writer.run()?;
        applied.deleted = writer.switch()?;
        applied.attributes_lost = writer.attributes_lost;
        applied.updated = survey.writes(job.target).map(|(n, _)| n).collect();
        Ok(applied)
    }
}

fn temp_prefix(tag: &str) -> String {
    format!(".barid-{tag}-")
}

fn temp_name(tag: &str, n: usize) -> String {
    format!("{}{n}", temp_prefix(tag))
}

/// The manifest is checked once more: it decides what root writes, whoever decoded it.
fn check(job: &Job<'_>) -> Result<(), ApplyError> {
    let tag = job.tag.as_bytes();
    let plain = tag.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    if !plain || tag.is_empty() || tag.len() > 64 {
        return Err(ApplyError::Tag { tag: crate::show::show(tag) });
    }
    let unlimited = Limits { bytes: u64::MAX, ..Limits::default() };
    job.target.check(&unlimited)?;
    let prefix = temp_prefix(job.tag);
    let clashes = |entry: &&Entry| entry.split().1.starts_with(prefix.as_bytes());
    match job.target.entries.iter().find(clashes) {
        Some(entry) => Err(ApplyError::Clash { path: crate::show::show(&entry.path) }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod admit_tests;
#[cfg(test)]
mod any_tests;
#[cfg(test)]
mod delete_tests;
#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod race_tests;
#[cfg(test)]
mod release_tests;
#[cfg(test)]
mod rules_tests;
#[cfg(test)]
mod short_tests;
#[cfg(test)]
mod tests;
