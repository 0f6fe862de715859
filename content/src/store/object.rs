//! Reading an object group by group, each checked as it is read.
//!
//! Opening reads the object once, to make its outline and to see that it is whole; then a hundred
//! readers share it, each at its own pace and with nothing in memory but the piece in its hands.

use std::fs::File;
use std::io::{BufReader, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::{Store, StoreError, disk, is_damage};
use crate::id::ContentId;
use crate::outline::{GROUP, Outline};

/// An object that is open for reading. It stays readable if it is removed from the store meanwhile.
pub struct Object {
    outline: Arc<Outline>,
    file: File,
    offset: u64,
}

impl Object {
    /// Its outline.
    pub fn outline(&self) -> &Arc<Outline> {
        &self.outline
    }

    /// Groups from this one on, at most so many. `None`: the disk gave other bytes than before.
    pub fn read(&self, first: usize, most: usize) -> Option<Vec<u8>> {
        read_groups(&self.outline, &self.file, self.offset, first, most)
    }
}

/// Reads groups of an object that begins at an offset of a file, and checks them.
pub fn read_groups(
    outline: &Outline,
    file: &File,
    offset: u64,
    first: usize,
    most: usize,
) -> Option<Vec<u8>> {
    let start = first * GROUP;
    let len = outline.len().checked_sub(start)?.min(most * GROUP);
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, offset + start as u64).ok()?;
    let whole = (first..).zip(bytes.chunks(GROUP)).all(|(n, group)| outline.check(n, group));
    whole.then_some(bytes)
}

impl Store {
    /// Opens an object, if it is here and undamaged. A damaged one is removed.
    pub fn open_object(&self, id: &ContentId) -> Result<Option<Object>, StoreError> {
        // Twice: between the index and the file, a volume may have gone with its last object.
        for _ in 0..2 {
            if let Some(object) = self.try_open(id)? {
                self.note_use(id)?;
                return Ok(Some(object));
            }
            if self.recheck(id)?.is_none() {
                break;
            }
        }
        Ok(None)
    }

    fn try_open(&self, id: &ContentId) -> Result<Option<Object>, StoreError> {
        let Some(place) = self.index.find(id)? else { return Ok(None) };
        let (path, offset) = self.locate(id, place);
        let open = || {
            let mut file = File::open(&path)?;
            file.seek(SeekFrom::Start(offset))?;
            let buffered = BufReader::with_capacity(16 * GROUP, &mut file);
            let outline = Outline::read(buffered, place.len() as usize)?;
            Ok(Object { outline: Arc::new(outline), file, offset })
        };
        match open() {
            Ok(object) => Ok(Some(object).filter(|object| object.outline.id() == *id)),
            Err(err) if is_damage(&err) => Ok(None),
            Err(err) => Err(disk("read", &path)(err)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_checked_when_it_is_opened_and_when_they_are_read() {
        let dir = tempfile::tempdir().expect("temp");
        let store = Store::open(dir.path()).expect("opens");
        for len in [0, 10, GROUP, 3 * GROUP, super::super::LARGE, 7 * GROUP + 5] {
            let bytes: Vec<u8> = (0..len).map(|n| (n * 7 % 251) as u8).collect();
            let id = ContentId::of(&bytes);
            store.put(ContentId::of(b"before"), b"before").expect("puts");
            store.put(id, &bytes).expect("puts");
            let object = store.open_object(&id).expect("reads").expect("is there");
            assert_eq!(object.read(0, usize::MAX / GROUP).as_deref(), Some(&bytes[..]));
            if len > GROUP {
                let (second, end) = (GROUP, (2 * GROUP).min(len));
                assert_eq!(object.read(1, 1).as_deref(), Some(&bytes[second..end]));
            }
            assert_eq!(object.read(object.outline().groups() + 1, 1), None);
        }
        let bytes = vec![7; 10 * GROUP];
        let id = ContentId::of(&bytes);
        store.put(id, &bytes).expect("puts");
        let object = store.open_object(&id).expect("reads").expect("is there");
        let mut damaged = bytes.clone();
        damaged[4 * GROUP] ^= 1;
        std::fs::write(store.object_path(&id), &damaged).expect("writes");
        assert_eq!(object.read(0, 4).as_deref(), Some(&bytes[..4 * GROUP]));
        assert_eq!(object.read(4, 1), None);
        assert!(store.open_object(&id).expect("reads").is_none(), "it is damaged");
        assert!(!store.has(&id).expect("has"), "and gone");
    }
}
