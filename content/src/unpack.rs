//! Getting the chunks that an installer wants, out of what came and of what is there.
//!
//! The idea: first what costs nothing, chunks that lie in other files of the base; then the
//! segments of the delta; and last, singly, whatever is still missing. Nothing that the host
//! holds is trusted, and nothing wrong with it is an error: it only makes this push cost more.
//!
//! A base that is not as it was installed spoils the chunks that are made of it, which may be more
//! than its own, since the files in a segment refer to each other. Once a segment is decoded both
//! are known: how long the wrong chunks are, and how long the pieces of the base that were missing.
//! The shorter of the two is fetched, so a file changed by hand costs at most its own old bytes.
//!
//! It deliberately knows no network: an [`Origin`] does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;

use tracing::warn;

use crate::apply::{ApplyError, Installed};
use crate::delta::{Base, Decoded, Delta};
use crate::id::ContentId;
use crate::manifest::{ChunkRef, Entry, Manifest};
use crate::pack::{PackError, Part};
use crate::store::{Store, StoreError};

/// Where a host gets what it does not have.
pub trait Origin {
    /// The bytes of a part of the push.
    fn part(&mut self, part: &Part) -> Result<Vec<u8>, ApplyError>;

    /// Gets single chunks. On `Ok` each of them is in the store.
    fn fetch(&mut self, chunks: &[ChunkRef]) -> Result<(), ApplyError>;
}

/// A delta at a host that has the base, or should have it.
pub struct Unpack<'a> {
    /// What was installed before.
    pub base: &'a Manifest,
    /// What shall be.
    pub target: &'a Manifest,
    /// The segments of the delta.
    pub deltas: &'a [Part],
    /// The base on disk.
    pub installed: Installed,
    /// Where the chunks go.
    pub store: &'a Store,
}

impl Unpack<'_> {
    /// Brings these chunks into the store. Returns those that are in it besides, and that nobody
    /// needs once the files are in place: pieces of the base that had to be fetched.
    pub fn run(
        &mut self,
        wanted: &[ChunkRef],
        origin: &mut dyn Origin,
    ) -> Result<Vec<ContentId>, ApplyError> {
        self.copy(wanted)?;
        let mut repaired = Vec::new();
        let delta = Delta::new(self.base, self.target);
        let absent = self.absent(wanted)?.into_iter();
        let mut missing = absent.map(|chunk| chunk.id).collect::<BTreeSet<_>>();
        for part in self.deltas {
            if missing.is_empty() {
                break;
            }
            let bytes = origin.part(part)?;
            // It may have been decoded ahead. One that cannot be read is told of by the decoder.
            let brings = delta.chunks(&bytes);
            if brings.is_ok_and(|all| all.iter().all(|chunk| !missing.contains(&chunk.id))) {
                continue;
            }
            let decoded = self.decode(&delta, &bytes, &mut missing)?;
            let wrong = decoded.wrong.iter().filter(|chunk| missing.contains(&chunk.id));
            let lost = length(decoded.lost.iter());
            // If nothing of the base was missing, decoding it again makes the same.
            if lost > 0 && lost < length(wrong) {
                let lost = self.absent(&decoded.lost)?;
                // Whoever holds the target need not hold the base: then there is the other way.
                match origin.fetch(&lost) {
                    Ok(()) => {
                        // One that the target has as well is no longer missing.
                        let besides = lost.iter().filter(|chunk| !missing.remove(&chunk.id));
                        repaired.extend(besides.map(|chunk| chunk.id));
                    }
                    Err(error) => warn!(%error, "pieces of the base cannot be had"),
                }
                self.decode(&delta, &bytes, &mut missing)?;
            }
        }
        let left = wanted.iter().filter(|chunk| missing.contains(&chunk.id));
        let left: Vec<_> = left.copied().collect();
        if !left.is_empty() {
            origin.fetch(&left)?;
        }
        Ok(repaired)
    }

    /// Brings what one segment has into the store, as far as it can be made of what is here.
    /// Whatever does not come out right is left to [`Unpack::run`].
    pub fn ahead(&mut self, delta: &Delta<'_>, bytes: &[u8]) -> Result<(), StoreError> {
        let brings = delta.chunks(bytes).unwrap_or_default();
        let absent = self.absent(&brings)?.into_iter();
        let mut missing = absent.map(|chunk| chunk.id).collect();
        self.decode(delta, bytes, &mut missing).map(drop)
    }

    /// Takes what the base has: files that moved, or parts of them.
    fn copy(&mut self, wanted: &[ChunkRef]) -> Result<(), StoreError> {
        let mut places: BTreeMap<ContentId, (&Entry, &ChunkRef, u64)> = BTreeMap::new();
        let wanted: BTreeSet<_> = wanted.iter().map(|chunk| chunk.id).collect();
        for entry in &self.base.entries {
            let mut offset = 0;
            for chunk in entry.chunks() {
                if wanted.contains(&chunk.id) {
                    places.entry(chunk.id).or_insert((entry, chunk, offset));
                }
                offset += u64::from(chunk.len);
            }
        }
        let mut places: Vec<_> = places.into_values().collect();
        places.sort_by_key(|(entry, _, offset)| (&entry.path, *offset));
        let mut batch = self.store.batch();
        for (entry, chunk, offset) in places {
            let bytes = self.installed.chunk(entry, chunk, offset);
            if let Some(bytes) = bytes.filter(|bytes| ContentId::of(bytes) == chunk.id) {
                batch.put(chunk.id, &bytes)?;
            }
        }
        batch.commit()
    }

    /// Decodes a segment into the store; what it brings is no longer missing.
    fn decode(
        &mut self,
        delta: &Delta<'_>,
        bytes: &[u8],
        missing: &mut BTreeSet<ContentId>,
    ) -> Result<Decoded, StoreError> {
        let mut base = OnDisk { installed: &mut self.installed, store: self.store };
        let mut batch = self.store.batch();
        let mut keep = |chunk: &ChunkRef, bytes: &[u8]| -> Result<(), PackError> {
            match missing.remove(&chunk.id) {
                true => Ok(batch.put(chunk.id, bytes)?),
                false => Ok(()),
            }
        };
        let decoded = delta.decode(bytes, &mut base, &mut keep);
        batch.commit()?;
        match decoded {
            Ok(decoded) => {
                if decoded.lost.is_empty() && !decoded.wrong.is_empty() {
                    warn!(chunks = decoded.wrong.len(), "a delta is not what it was made for");
                }
                Ok(decoded)
            }
            Err(PackError::Store(error)) => Err(error),
            Err(error) => {
                warn!(%error, "a delta cannot be used: its chunks are fetched singly");
                Ok(Decoded::default())
            }
        }
    }

    /// Those of the chunks that the store does not hold.
    fn absent(&self, chunks: &[ChunkRef]) -> Result<Vec<ChunkRef>, StoreError> {
        let mut absent = Vec::new();
        for chunk in chunks {
            if !self.store.has(&chunk.id)? {
                absent.push(*chunk);
            }
        }
        Ok(absent)
    }
}

fn length<'a>(chunks: impl Iterator<Item = &'a ChunkRef>) -> u64 {
    chunks.map(|chunk| u64::from(chunk.len)).sum()
}

/// The base as it is on disk, and from the store where it is not as it was.
pub struct OnDisk<'a> {
    /// The tree.
    pub installed: &'a mut Installed,
    /// The store, which has scratch files too.
    pub store: &'a Store,
}

impl Base for OnDisk<'_> {
    fn chunk(&mut self, entry: &Entry, chunk: &ChunkRef, offset: u64) -> Option<Vec<u8>> {
        let bytes = self.installed.chunk(entry, chunk, offset);
        let good = bytes.filter(|bytes| ContentId::of(bytes) == chunk.id);
        good.or_else(|| self.store.get(&chunk.id).ok().flatten())
    }

    fn scratch(&mut self) -> io::Result<File> {
        self.store.scratch()
    }
}
