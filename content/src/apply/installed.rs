//! The files that an earlier push has put in place, as the base of a delta.
//!
//! They are read a chunk at a time, and never mapped into memory: whoever shortens a mapped file
//! kills the process that reads it. What is no longer as it was installed is noticed by whoever
//! asks, by the chunk's id; nothing here says what a file should be.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use super::ground::{self, Ground};
use super::{ApplyError, Installer, Job, Rules};
use crate::manifest::{ChunkRef, Entry, Manifest};
use crate::tree::{self, Dirs};

/// An installed tree, open for reading.
pub struct Installed {
    ground: Ground,
    dirs: Dirs,
    /// The file read last, by its path in the manifest.
    open: Option<(Vec<u8>, Option<File>)>,
}

impl Installer {
    /// The tree at a destination, of which this manifest says what it was when it was installed.
    /// What is not there is not an error: nothing can be read of it then.
    pub fn installed(&self, dest: &[u8], manifest: &Manifest) -> Result<Installed, ApplyError> {
        // No temporary file is made, so the tag does not matter.
        let rules = Rules::default();
        let job = Job { tag: "", dest, target: manifest, rules: &rules, before: None };
        let ground = ground::resolve(&self.root, &job)?;
        let root = ground.dir.try_clone();
        let root = root.map_err(ground.failed(super::Stage::Open, b""))?;
        Ok(Installed { dirs: Dirs::new(root), ground, open: None })
    }
}

impl Installed {
    fn file(&mut self, entry: &Entry) -> Option<&File> {
        if self.open.as_ref().is_none_or(|(path, _)| *path != entry.path) {
            let (dir, name) = self.ground.place(entry);
            let there = self.ground.missing.is_empty();
            let parent = if there { self.dirs.at(dir).ok() } else { None };
            let file = parent.and_then(|parent| tree::open_file(parent, name).ok());
            self.open = Some((entry.path.clone(), file.map(|(file, _)| file)));
        }
        self.open.as_ref().and_then(|(_, file)| file.as_ref())
    }
}

impl Installed {
    /// The bytes where a chunk of a file should be; not checked.
    pub(crate) fn chunk(
        &mut self,
        entry: &Entry,
        chunk: &ChunkRef,
        offset: u64,
    ) -> Option<Vec<u8>> {
        let mut bytes = vec![0; chunk.len as usize];
        self.file(entry)?.read_exact_at(&mut bytes, offset).ok()?;
        Some(bytes)
    }
}
