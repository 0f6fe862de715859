//! Reading the source of a push.
//!
//! Of a large one it is remembered what it was like, so that the next push reads only what has
//! changed. That is an object in the store and a row that names it; neither is missed if it goes.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use content::{ContentId, IngestError, Manifest, Patterns, Seen};
use tokio::sync::mpsc;

use crate::clock::now_ms;
use crate::fault::Failure;
use crate::push::Packer;
use crate::types::PushEvent;

/// Of trees with so many files, or so many bytes in them, it is remembered what was read.
const REMEMBERED_FILES: u64 = 500;
const REMEMBERED_BYTES: u64 = 16 << 20;
/// Reading progress is told after this many files.
const TELL_EVERY: u64 = 500;

impl Packer {
    /// Reads a tree, without what has not changed since it was last read, unless `anew`.
    pub(crate) fn read(
        &self,
        source: &Path,
        exclude: &Patterns,
        anew: bool,
        tell: &mpsc::Sender<PushEvent>,
    ) -> Result<(Manifest, Vec<String>), Failure> {
        let mut next = 0;
        let mut progress = |progress: content::Progress| {
            if progress.files >= next {
                next = progress.files + TELL_EVERY;
                let (files, bytes) = (progress.files, progress.bytes);
                tell.try_send(PushEvent::Reading { files, bytes }).ok();
            }
        };
        let seen = if anew { None } else { self.seen(source)? };
        let store = &self.store;
        let read = content::ingest_again(source, exclude, store, seen.as_ref(), &mut progress);
        let read = read.map_err(|error| {
            let text = relay::chain(&error);
            match error {
                IngestError::Changed { .. } => {
                    Failure::conflict(text, "push again when it is quiet")
                }
                IngestError::Store(error) => Failure::content(&error),
                _ => Failure::bad(text, "nothing was pushed"),
            }
        })?;
        let skipped = read.skipped.iter().map(|path| path.display().to_string()).collect();
        let read = Seen::new(read.manifest, read.marks);
        if seen.is_none_or(|seen| seen != read) {
            self.remember(source, &read)?;
        }
        Ok((read.into_manifest(), skipped))
    }

    /// What a source was like when it was last read.
    fn seen(&self, source: &Path) -> Result<Option<Seen>, Failure> {
        let Some(id) = self.tables.reading(source.as_os_str().as_bytes())? else { return Ok(None) };
        let bytes = self.store.get(&id).map_err(|error| Failure::content(&error))?;
        Ok(bytes.and_then(|bytes| Seen::decode(&bytes)))
    }

    /// Remembers what was read, if that saves more the next time than it costs now.
    fn remember(&self, source: &Path, read: &Seen) -> Result<(), Failure> {
        let tree = read.manifest();
        if tree.files() < REMEMBERED_FILES && tree.bytes() < REMEMBERED_BYTES {
            return Ok(());
        }
        let bytes = read.encode();
        if bytes.len() <= content::MAX_OBJECT {
            let id = ContentId::of(&bytes);
            self.store.put(id, &bytes).map_err(|error| Failure::content(&error))?;
            self.tables.set_reading(source.as_os_str().as_bytes(), id, now_ms())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_large_source_is_remembered_and_what_is_lost_of_that_does_no_harm() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let packer = Packer::in_folder(dir.path());
        let source = dir.path().join("source");
        fs::create_dir(&source).expect("makes");
        let (tell, _told) = mpsc::channel(8);
        let read = || {
            let read = packer.read(&source, &Patterns::default(), false, &tell);
            read.expect("reads").0
        };
        let reading = || {
            let name = source.as_os_str().as_bytes();
            packer.tables.reading(name).expect("looks")
        };
        fs::write(source.join("0"), "few").expect("writes");
        read();
        assert_eq!(reading(), None, "it is read sooner than remembered");
        for n in 0..REMEMBERED_FILES {
            fs::write(source.join(n.to_string()), n.to_string()).expect("writes");
        }
        let tree = read();
        let id = reading().expect("it is remembered");
        let bytes = packer.store.get(&id).expect("reads").expect("it is kept");
        let seen = Seen::decode(&bytes).expect("it is whole");
        assert_eq!(seen.manifest(), &tree);

        packer.store.remove(&[id]).expect("removes");
        fs::write(source.join("0"), "more").expect("writes");
        let other = read();
        assert_ne!(other, tree);
        assert!(reading().is_some_and(|other| other != id));
    }
}
