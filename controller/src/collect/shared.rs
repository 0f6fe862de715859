//! What the hosts of one collection share: a piece that several have is fetched once.
//!
//! While a host's files are put together its pieces lie in a store of their own, each as long as
//! somebody needs it; afterwards they are in the files, and are read from there. Of a piece that
//! is just coming nobody else asks. What a collection that broke off has brought stays in the
//! store for a day, for whoever goes on with it, unless the room is needed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use content::{Bounds, ChunkRef, ContentId, Kind, Manifest, Owner, Store, StoreError};

/// Places of pieces that are remembered; of what is beyond, some may be fetched again.
const PLACES: usize = 1 << 20;
/// How long to wait for somebody else's piece before looking again.
const LOOK: Duration = Duration::from_millis(500);

/// How long what a collection has left is good for something.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// Shared by all collections that go on.
pub(crate) struct Shared {
    pub(super) store: Store,
    state: Arc<Mutex<State>>,
    changed: Condvar,
    /// When the last collection began.
    used: Mutex<SystemTime>,
}

/// Needs what hosts need that are being collected from.
struct Needs(Arc<Mutex<State>>);

impl Owner for Needs {
    fn needed(&self) -> Option<BTreeSet<ContentId>> {
        Some(lock(&self.0).needed.keys().copied().collect())
    }

    fn keeps(&self, _: &ContentId) -> bool {
        true
    }
}

#[derive(Default)]
struct State {
    /// In which file a piece is, and where.
    places: BTreeMap<ContentId, (Arc<PathBuf>, u64)>,
    /// Pieces that are coming.
    coming: BTreeSet<ContentId>,
    /// How many hosts need a piece to stay in the store.
    needed: BTreeMap<ContentId, usize>,
}

impl Shared {
    /// Opens the store of collections in a folder, with what an earlier one has left there. Blocks.
    pub(crate) fn open(dir: PathBuf, bounds: Bounds) -> Result<Shared, StoreError> {
        let used = std::fs::metadata(dir.join("index.redb")).and_then(|meta| meta.modified());
        let used = Mutex::new(used.unwrap_or_else(|_| SystemTime::now()));
        let store = Store::open(dir)?;
        store.bound(bounds);
        let state = Arc::new(Mutex::new(State::default()));
        store.own(Box::new(Needs(state.clone())));
        Ok(Shared { store, state, changed: Condvar::new(), used })
    }

    /// The first collection after a while begins: where files were then is not known any more, and
    /// what was left too long ago goes. Blocks.
    pub(super) fn begin_anew(&self) -> Result<(), StoreError> {
        self.lock().places.clear();
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.elapsed().is_ok_and(|age| age > KEPT) {
            self.store.retain(&|_| false)?;
        }
        *used = SystemTime::now();
        Ok(())
    }

    /// From here on these stay in the store.
    pub(super) fn need(&self, ids: &BTreeSet<ContentId>) {
        let mut state = self.lock();
        for id in ids {
            *state.needed.entry(*id).or_default() += 1;
        }
    }

    /// One host does not need these any more. If it has got them, what nobody needs goes.
    pub(super) fn release(&self, ids: &BTreeSet<ContentId>, got: bool) -> Result<(), StoreError> {
        let mut gone = Vec::new();
        let mut state = self.lock();
        for id in ids {
            if let Some(count) = state.needed.get_mut(id) {
                *count -= 1;
                if *count == 0 {
                    state.needed.remove(id);
                    gone.push(*id);
                }
            }
        }
        // Under the lock: nobody may begin to need them meanwhile.
        if got { self.store.remove(&gone) } else { Ok(()) }
    }

    /// A host's files are in place below this path.
    pub(super) fn note(&self, base: &Path, manifest: &Manifest) {
        use std::os::unix::ffi::OsStrExt;
        let mut state = self.lock();
        for entry in &manifest.entries {
            let Kind::File { chunks, .. } = &entry.kind else { continue };
            let path = match entry.path.as_slice() {
                b"" => base.to_owned(),
                path => base.join(std::ffi::OsStr::from_bytes(path)),
            };
            let (path, mut offset) = (Arc::new(path), 0);
            for chunk in chunks {
                if state.places.len() < PLACES {
                    state.places.entry(chunk.id).or_insert_with(|| (path.clone(), offset));
                }
                offset += u64::from(chunk.len);
            }
        }
    }

    /// Takes from files of other hosts what is there of these. Says what is not.
    pub(super) fn take(&self, wanted: &[ChunkRef]) -> Result<Vec<ChunkRef>, StoreError> {
        let (mut left, mut batch) = (Vec::new(), self.store.batch());
        for chunk in wanted {
            if self.store.has(&chunk.id)? {
                continue;
            }
            let place = self.lock().places.get(&chunk.id).cloned();
            let bytes = place.and_then(|(path, offset)| {
                let mut bytes = vec![0; chunk.len as usize];
                let read =
                    File::open(&*path).and_then(|file| file.read_exact_at(&mut bytes, offset));
                // Somebody may have changed the file meanwhile.
                read.ok().filter(|()| ContentId::of(&bytes) == chunk.id).map(|()| bytes)
            });
            match bytes {
                Some(bytes) => batch.put(chunk.id, &bytes)?,
                None => left.push(*chunk),
            }
        }
        batch.commit()?;
        Ok(left)
    }

    /// Chooses what the caller fetches: what nobody else does just now. If that is nothing, waits
    /// a moment for the others.
    pub(super) fn begin(&self, left: &[ChunkRef]) -> Vec<ChunkRef> {
        let mut state = self.lock();
        let mine: Vec<_> =
            left.iter().filter(|chunk| state.coming.insert(chunk.id)).copied().collect();
        if mine.is_empty() {
            let waited = self.changed.wait_timeout(state, LOOK);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
        }
        mine
    }

    /// They have come, or do not.
    pub(super) fn end(&self, mine: &[ChunkRef]) {
        let mut state = self.lock();
        for chunk in mine {
            state.coming.remove(&chunk.id);
        }
        drop(state);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use content::Patterns;

    use super::*;

    #[test]
    fn a_piece_is_fetched_by_one_and_read_from_its_files_by_the_others() {
        let dir = tempfile::tempdir().expect("temp");
        let open = || Shared::open(dir.path().join("store"), Bounds::default()).expect("opens");
        let shared = open();
        let base = dir.path().join("a");
        std::fs::create_dir(&base).expect("made");
        std::fs::write(base.join("file"), "content").expect("written");
        let none = Patterns::new(&[]).expect("no patterns");
        let manifest = content::look(&base, &none, &mut |_| ()).expect("looks").manifest;
        let chunk = ChunkRef { id: ContentId::of(b"content"), len: 7 };
        let (wanted, ids) = ([chunk], BTreeSet::from([chunk.id]));
        let take = |shared: &Shared| shared.take(&wanted).expect("looks");
        let has = |shared: &Shared| shared.store.has(&chunk.id).expect("has");

        shared.need(&ids);
        assert_eq!(take(&shared), wanted);
        assert_eq!(shared.begin(&wanted), wanted);
        assert!(shared.begin(&wanted).is_empty(), "it is coming");
        shared.store.put(chunk.id, b"content").expect("puts");
        shared.end(&wanted);
        shared.need(&ids);
        assert!(take(&shared).is_empty());
        shared.release(&ids, true).expect("releases");
        assert!(has(&shared), "the other needs it");
        shared.note(&base, &manifest);
        shared.release(&ids, true).expect("releases");
        assert!(!has(&shared));
        // From the file, unless that is another by now.
        shared.need(&ids);
        assert!(take(&shared).is_empty());
        shared.release(&ids, true).expect("releases");
        std::fs::write(base.join("file"), "changed").expect("written");
        assert_eq!(take(&shared), wanted);
        // Who has not got all goes on later.
        shared.need(&ids);
        shared.store.put(chunk.id, b"content").expect("puts");
        shared.release(&ids, false).expect("releases");
        drop(shared);
        let shared = open();
        shared.begin_anew().expect("begins");
        assert!(has(&shared));
        *shared.used.lock().expect("unpoisoned") -= 2 * KEPT;
        shared.begin_anew().expect("begins");
        assert!(!has(&shared), "but not for ever");
    }
}
