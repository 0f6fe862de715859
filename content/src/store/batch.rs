//! Many puts, few syncs.
//!
//! Small objects gather in memory, large ones in temporary files. A commit appends and renames
//! them, syncs, and only then tells the index, in one transaction. Many share one sync of the file
//! system; a few do not wait for what others have written there. A batch that has
//! grown large commits by itself: objects are named by their content, so half a batch is
//! not half of anything.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};

use super::index::Place;
use super::{LARGE, MAX_OBJECT, Store, StoreError, VOLUME, Volume, Writer, create_file, disk};
use crate::id::ContentId;

/// Small objects held in memory at most.
const HELD: usize = 2 << 20;
/// So many large objects are synced one by one at most.
const FEW: usize = 4;
/// Bytes in large objects at most, before they are committed.
const UNSYNCED: u64 = 64 << 20;

/// Objects on their way into a [`Store`]. Dropped without a commit, what is left is not put.
pub struct Batch<'a> {
    store: &'a Store,
    ids: BTreeSet<ContentId>,
    /// Small objects one after the other, and where each begins.
    held: Vec<u8>,
    small: Vec<(ContentId, usize, u32)>,
    large: Vec<(ContentId, PathBuf, u32)>,
    unsynced: u64,
}

impl<'a> Batch<'a> {
    pub(super) fn new(store: &'a Store) -> Batch<'a> {
        let (ids, held, small, large) = Default::default();
        Batch { store, ids, held, small, large, unsynced: 0 }
    }

    /// Adds an object, after checking that the id is the hash of the bytes.
    pub fn put(&mut self, id: ContentId, bytes: &[u8]) -> Result<(), StoreError> {
        if bytes.len() <= MAX_OBJECT && ContentId::of(bytes) != id {
            return Err(StoreError::Mismatch { id });
        }
        self.insert(id, bytes)
    }

    /// Adds an object of which only the bytes are known. Returns its id.
    pub fn add(&mut self, bytes: &[u8]) -> Result<ContentId, StoreError> {
        let id = ContentId::of(bytes);
        self.insert(id, bytes)?;
        Ok(id)
    }

    fn insert(&mut self, id: ContentId, bytes: &[u8]) -> Result<(), StoreError> {
        if bytes.len() > MAX_OBJECT {
            return Err(StoreError::TooLarge { id, len: bytes.len() });
        }
        if self.ids.contains(&id) {
            return Ok(());
        }
        let len = u32::try_from(bytes.len()).expect("an object has at most 32 MiB");
        // Many small ones are looked for together once they are to be written.
        if bytes.len() < LARGE {
            self.small.push((id, self.held.len(), len));
            self.held.extend_from_slice(bytes);
        } else if self.store.has(&id)? {
            return Ok(());
        } else {
            self.make_room(u64::from(len))?;
            let path = self.store.temp_path();
            let mut file = create_file(&path)?;
            self.large.push((id, path.clone(), len));
            file.write_all(bytes).map_err(disk("write", &path))?;
            self.unsynced += u64::from(len);
        }
        self.ids.insert(id);
        match self.held.len() >= HELD || self.unsynced >= UNSYNCED {
            true => self.flush(),
            false => Ok(()),
        }
    }

    /// Makes all of it durable.
    pub fn commit(mut self) -> Result<(), StoreError> {
        self.flush()
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        if self.ids.is_empty() {
            return Ok(());
        }
        let store = self.store;
        let ids: Vec<ContentId> = self.ids.iter().copied().collect();
        let new = store.absent(&ids)?;
        self.small.retain(|(id, ..)| new.contains(id));
        if self.small.is_empty() && self.large.is_empty() {
            self.reset();
            return Ok(());
        }
        // If there is none, what was written beside is removed with this batch.
        self.make_room(0)?;
        let mut writer = store.writer();
        // Another batch may have brought some of it meanwhile.
        let new = store.absent(&ids)?;
        self.small.retain(|(id, ..)| new.contains(id));
        let mut places = Vec::new();
        let put = self.put_all(&mut writer, &new, &mut places);
        if put.is_err() {
            // What is not in the index would lie there until the next start.
            for (id, place) in places {
                if let Place::Large { .. } = place {
                    let _ = fs::remove_file(store.object_path(&id));
                }
            }
        }
        drop(writer);
        self.reset();
        put
    }

    /// Room for what is gathered, and so much more.
    fn make_room(&self, more: u64) -> Result<(), StoreError> {
        let small: u64 = self.small.iter().map(|(_, _, len)| u64::from(*len)).sum();
        self.store.make_room_beside(self.unsynced, small + more)
    }

    /// Moves and appends everything into its place, and tells the index.
    fn put_all(
        &self,
        writer: &mut Writer,
        new: &BTreeSet<ContentId>,
        places: &mut Vec<(ContentId, Place)>,
    ) -> Result<(), StoreError> {
        let store = self.store;
        let large: Vec<_> = self.large.iter().filter(|(id, ..)| new.contains(id)).collect();
        let together = large.len() > FEW;
        let mut filled = BTreeSet::new();
        for (id, temp, len) in large {
            if !together {
                let synced = fs::File::open(temp).and_then(|file| file.sync_all());
                synced.map_err(disk("sync", temp))?;
            }
            let path = store.object_path(id);
            let dir = path.parent().expect("an object path has a parent");
            make_dir(dir)?;
            fs::rename(temp, &path).map_err(disk("rename", &path))?;
            filled.extend([dir.to_path_buf(), store.dir.join("objects")]);
            places.push((*id, Place::Large { len: *len }));
        }
        // Taken out: if anything fails below, this volume is never appended to again.
        let volume = writer.active.take();
        let volume = self.append(writer, volume, places, together)?;
        if together {
            let synced = rustix::fs::syncfs(&store.root);
            synced.map_err(|err| disk("sync", &store.dir)(err.into()))?;
        } else {
            filled.iter().try_for_each(|dir| sync_dir(dir))?;
        }
        store.index.add(places, store.bounds().price, &|id| store.keeps(id))?;
        writer.active = volume;
        Ok(())
    }

    /// Appends the small objects to volumes, synced unless the caller syncs everything.
    fn append(
        &self,
        writer: &mut Writer,
        mut active: Option<Volume>,
        places: &mut Vec<(ContentId, Place)>,
        synced_later: bool,
    ) -> Result<Option<Volume>, StoreError> {
        let mut rest = self.small.as_slice();
        while !rest.is_empty() {
            let mut volume = match active.take() {
                Some(volume) if volume.end < VOLUME => volume,
                _ => self.store.new_volume(writer)?,
            };
            let mut run = Vec::new();
            let start = volume.end;
            while let Some(((id, at, len), tail)) = rest.split_first() {
                let grown = volume.end + u64::from(*len);
                if grown > VOLUME && volume.end > 0 {
                    break;
                }
                let offset = u32::try_from(volume.end).expect("a volume has at most 64 MiB");
                places.push((*id, Place::Small { volume: volume.number, offset, len: *len }));
                run.extend_from_slice(&self.held[*at..*at + *len as usize]);
                volume.end = grown;
                rest = tail;
            }
            let path = self.store.volume_path(volume.number);
            if let Err(error) = volume.file.write_all_at(&run, start) {
                // On a full disk half of it would stay, try after try.
                let _ = volume.file.set_len(start);
                return Err(disk("write", &path)(error));
            }
            if !synced_later {
                volume.file.sync_data().map_err(disk("sync", &path))?;
            }
            // A volume that had no room for even one more object is left behind as it is.
            active = Some(volume).filter(|_| rest.is_empty());
        }
        Ok(active)
    }

    fn reset(&mut self) {
        for (_, temp, _) in self.large.drain(..) {
            // Gone if it was renamed; otherwise it was not needed, or the open sweep gets it.
            let _ = fs::remove_file(temp);
        }
        self.ids.clear();
        self.held.clear();
        self.small.clear();
        self.unsynced = 0;
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.reset();
    }
}

impl Store {
    fn new_volume(&self, writer: &mut Writer) -> Result<Volume, StoreError> {
        let number = writer.next;
        writer.next = number.checked_add(1).expect("four billion volumes are 256 PiB");
        let path = self.volume_path(number);
        let file = create_file(&path)?;
        sync_dir(path.parent().expect("a volume path has a parent"))?;
        Ok(Volume { number, file, end: 0 })
    }
}

fn make_dir(dir: &Path) -> Result<(), StoreError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(disk("create", dir))
}

pub(super) fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    let synced = fs::File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(disk("sync", dir))
}
