//! What distributions have put in place at this host, kept so that it can be put right when nobody
//! above is there.
//!
//! Of each destination a note says which manifest is there, how often it is distributed, and which
//! command belongs to it; of small files a copy of the content stays in the store, up to a limit
//! for all of them. What has no copy can be had of the parent only, as long as that has it. The
//! notes stand beside those of what is installed, behind a mark that no path has.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use bytes::Bytes;
use content::{ContentId, Entry, Kind, Limits, Manifest, Store, StoreError};
use mesh::{Digest, OrderId};
use tracing::debug;

use crate::journal::{Journal, JournalError};

/// What stands behind the destination in the rows of a note: before the frequency, and alone.
const MARK: &[u8] = b"\0dist:";
const COMMAND: &[u8] = b"\0dist-command";
/// The largest file of which a copy is kept, and how much the store may have with them.
const SMALL: u64 = 256 << 10;
const ALL: u64 = 64 << 20;

/// Access to the notes and copies. Calls block.
#[derive(Clone)]
pub(crate) struct Copies<'a> {
    pub(crate) journal: &'a Journal,
    pub(crate) store: &'a Store,
}

/// Something that an order has put in place.
pub(crate) struct Placed {
    pub(crate) dest: Bytes,
    pub(crate) manifest: Digest,
    pub(crate) command: Bytes,
    pub(crate) frequency: String,
}

/// A note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) dest: Bytes,
    pub(crate) frequency: String,
    pub(crate) manifest: Digest,
    pub(crate) order: OrderId,
    /// The object that is the command, if there is one.
    pub(crate) command: Option<Digest>,
}

impl Copies<'_> {
    /// Notes what an order has put in place.
    pub(crate) fn note(&self, order: OrderId, placed: &[Placed]) -> Result<(), CopyError> {
        let old: BTreeMap<Bytes, Note> =
            self.notes()?.into_iter().map(|note| (note.dest.clone(), note)).collect();
        let mut rows: Vec<(Vec<u8>, Option<Digest>)> = Vec::new();
        for Placed { dest, manifest, command, frequency } in placed {
            if let Some(old) = old.get(dest).filter(|old| old.frequency != *frequency) {
                rows.push(([dest, MARK, old.frequency.as_bytes()].concat(), None));
            }
            rows.push(([dest, MARK, frequency.as_bytes()].concat(), Some(*manifest)));
            let key = [dest, COMMAND].concat();
            if !command.is_empty() {
                let id = ContentId::of(command);
                self.store.put(id, command)?;
                rows.push((key, Some(Digest(id.0))));
            } else if old.get(dest).is_some_and(|old| old.command.is_some()) {
                rows.push((key, None));
            }
        }
        let rows: Vec<_> = rows.iter().map(|(key, root)| (&key[..], *root)).collect();
        Ok(self.journal.set_all_installed(&rows, order)?)
    }

    /// All notes, by destination.
    pub(crate) fn notes(&self) -> Result<Vec<Note>, JournalError> {
        let (mut notes, mut commands) = (Vec::new(), BTreeMap::new());
        for (key, manifest, order) in self.journal.installed_rows()? {
            let Some(end) = key.iter().position(|byte| *byte == 0) else { continue };
            let (dest, mark) = key.split_at(end);
            let dest = Bytes::copy_from_slice(dest);
            if mark == COMMAND {
                commands.insert(dest, manifest);
            } else if let Some(frequency) = mark.strip_prefix(MARK) {
                let frequency = String::from_utf8_lossy(frequency).into_owned();
                notes.push(Note { dest, frequency, manifest, order, command: None });
            }
        }
        for note in &mut notes {
            note.command = commands.get(&note.dest).copied();
        }
        Ok(notes)
    }

    /// Keeps copies of what is small of a tree that lies there.
    pub(crate) fn keep(&self, root: &Path, dest: &[u8], target: &Manifest) {
        let below = std::ffi::OsStr::from_bytes(dest.strip_prefix(b"/").unwrap_or(dest));
        let dest = root.join(below);
        for (entry, _) in small(target) {
            let at = match entry.path.is_empty() {
                true => dest.clone(),
                false => dest.join(std::ffi::OsStr::from_bytes(&entry.path)),
            };
            if let Err(error) = self.keep_file(&at, entry) {
                // Somebody has changed it just now, or there is no room: then there is no copy.
                debug!(path = %at.display(), %error, "no copy is kept");
            }
        }
    }

    fn keep_file(&self, at: &Path, entry: &Entry) -> Result<(), CopyError> {
        let Kind::File { chunks, .. } = &entry.kind else { return Ok(()) };
        let lacks = |id: &ContentId| Ok::<_, StoreError>(!self.store.has(id)?);
        let mut is_there = true;
        for chunk in chunks {
            is_there &= !lacks(&chunk.id)?;
        }
        if is_there || self.store.usage()?.bytes > ALL {
            return Ok(());
        }
        let mut file = File::open(at)?;
        for chunk in chunks {
            let mut bytes = vec![0; chunk.len as usize];
            file.read_exact(&mut bytes)?;
            if ContentId::of(&bytes) == chunk.id {
                self.store.put(chunk.id, &bytes)?;
            }
        }
        Ok(())
    }

    /// The objects of which copies are kept.
    pub(crate) fn kept(&self) -> Result<BTreeSet<ContentId>, CopyError> {
        let mut kept = BTreeSet::new();
        for note in self.notes()? {
            if let Some(target) = self.manifest(note.manifest)? {
                kept.extend(small(&target).flat_map(|(_, chunks)| chunks));
            }
        }
        Ok(kept)
    }

    /// A manifest that is in the store.
    pub(crate) fn manifest(&self, root: Digest) -> Result<Option<Manifest>, StoreError> {
        let bytes = self.store.get(&ContentId(root.0))?;
        Ok(bytes.and_then(|bytes| Manifest::decode(&bytes, &Limits::default()).ok()))
    }
}

/// Files of which copies are kept, with their content.
fn small(target: &Manifest) -> impl Iterator<Item = (&Entry, Vec<ContentId>)> {
    target.entries.iter().filter_map(|entry| match &entry.kind {
        Kind::File { size, chunks } if *size <= SMALL => {
            Some((entry, chunks.iter().map(|chunk| chunk.id).collect()))
        }
        _ => None,
    })
}

/// Something of it could not be kept; nothing that is in place is another for it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CopyError {
    #[error("the node's database failed")]
    Journal(#[from] JournalError),
    #[error("the content store of this host failed")]
    Store(#[from] StoreError),
    #[error("the file cannot be read")]
    File(#[from] std::io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_follow_what_is_in_place() {
        let dir = tempfile::tempdir().expect("a folder");
        let journal = Journal::open(&dir.path().join("db"), 1 << 20).expect("opens");
        let store = Store::open(dir.path().join("store")).expect("opens");
        let copies = Copies { journal: &journal, store: &store };
        let placed = |dest: &'static str, command: &'static str, frequency: &str| Placed {
            frequency: frequency.into(),
            dest: Bytes::from_static(dest.as_bytes()),
            manifest: Digest([7; 32]),
            command: Bytes::from_static(command.as_bytes()),
        };
        let (one, two) = (OrderId([1; 16]), OrderId([2; 16]));
        copies.note(one, &[placed("/a", "true", "day"), placed("/a/b", "", "day")]).expect("noted");
        journal.set_installed(b"/a", Digest([7; 32]), one).expect("noted");
        let told = |copies: &Copies<'_>| -> Vec<(Bytes, String, OrderId, bool)> {
            let notes = copies.notes().expect("read").into_iter();
            notes.map(|n| (n.dest, n.frequency, n.order, n.command.is_some())).collect()
        };
        let row = |dest: &'static str, frequency: &str, order, command| {
            (Bytes::from_static(dest.as_bytes()), frequency.to_owned(), order, command)
        };
        assert_eq!(told(&copies), [row("/a", "day", one, true), row("/a/b", "day", one, false)]);
        // Another frequency, and no command any more.
        copies.note(two, &[placed("/a", "", "hour")]).expect("noted");
        assert_eq!(told(&copies), [row("/a", "hour", two, false), row("/a/b", "day", one, false)]);
    }
}
