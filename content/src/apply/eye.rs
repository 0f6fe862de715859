//! Looking at what is there, without deciding anything.
//!
//! To read and hash the files of a large tree is most of a push that changes little, so several
//! threads look at them at once, each with descriptors and a buffer of its own. Entries are
//! looked at independently of each other. What follows from it is decided by the
//! [survey](super::survey) in the order of the manifest, whoever has looked.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, available_parallelism};

use rustix::fs::{FileType, Stat};

use super::error::{ApplyError, Stage};
use super::ground::Ground;
use super::owners::Owners;
use crate::chunk::{AVERAGE_CHUNK, Cutter, MAX_CHUNK};
use crate::id::ContentId;
use crate::manifest::{ChunkRef, Entry, Kind, Manifest};
use crate::tree::{self, Dirs};

/// Threads at most: a host has other things to do.
const MOST: usize = 4;
/// Fewer files are looked at by one; the trees of tests have few.
const FEW: usize = if cfg!(test) { 2 } else { 64 };
/// Entries that a thread takes at once: neighbours share directories.
const STEP: usize = 16;

/// The chunks of the target, once somebody has asked.
pub(super) type Needed = OnceLock<BTreeSet<ContentId>>;

/// Looks at the places of entries.
pub(super) struct Eye<'a> {
    ground: &'a Ground,
    target: &'a Manifest,
    needed: &'a Needed,
    pub(super) dirs: Dirs,
    owners: Owners,
    cutter: Cutter,
    buffer: Vec<u8>,
}

/// What was seen where a file should be.
pub(super) enum Looked {
    /// Nobody has looked, or not everything could be seen.
    Unknown,
    Nothing,
    File(Stat, Content),
}

/// What is in a file that is there.
pub(super) struct Content {
    /// It is what the entry says.
    pub(super) equal: bool,
    /// The attributes are what the entry says.
    pub(super) dressed: bool,
    /// If it is not equal: chunks of the target that are in it, and where.
    pub(super) chunks: Vec<(ContentId, u64)>,
}

impl<'a> Eye<'a> {
    pub(super) fn new(
        ground: &'a Ground,
        target: &'a Manifest,
        needed: &'a Needed,
    ) -> Result<Eye<'a>, ApplyError> {
        let root = ground.dir.try_clone().map_err(ground.failed(Stage::Open, b""))?;
        Ok(Eye {
            ground,
            target,
            needed,
            dirs: Dirs::new(root),
            owners: Owners::new(),
            cutter: Cutter::new(),
            buffer: Vec::new(),
        })
    }

    /// What has the place of an entry; `None` if nothing has.
    pub(super) fn look(&mut self, entry: &Entry) -> Result<Option<Stat>, ApplyError> {
        let (dir, name) = self.ground.place(entry);
        let parent = self.dirs.at(dir);
        let looked = parent.and_then(|parent| match name {
            b"" => Ok(Some(rustix::fs::fstat(parent)?)),
            name => tree::look(parent, name),
        });
        looked.map_err(self.ground.failed(Stage::Compare, &entry.path))
    }

    /// What has the place of a file, and what is in it.
    fn look_into(&mut self, entry: &Entry) -> Looked {
        match self.look(entry) {
            Ok(None) => Looked::Nothing,
            Ok(Some(stat)) if tree::kind(&stat) == FileType::RegularFile => {
                let content = self.content(entry, &stat);
                content.map_or(Looked::Unknown, |content| Looked::File(stat, content))
            }
            Ok(Some(_)) | Err(_) => Looked::Unknown,
        }
    }

    /// What is in the file that is where an entry says that one should be.
    pub(super) fn content(&mut self, entry: &Entry, stat: &Stat) -> Result<Content, ApplyError> {
        let failed = || self.ground.failed(Stage::Compare, &entry.path);
        let (dir, name) = self.ground.place(entry);
        let mut content = Content { equal: false, dressed: true, chunks: Vec::new() };
        let file = match self.dirs.at(dir).and_then(|parent| tree::open_file(parent, name)) {
            Ok((file, _)) => file,
            // What may not be read can still be replaced.
            Err(err) if err.kind() == io::ErrorKind::PermissionDenied => return Ok(content),
            Err(err) => return Err(failed()(err)),
        };
        content.dressed = self.owners.has_attributes(&file, entry).map_err(failed())?;
        let same_size = tree::size(stat) == entry.size();
        content.equal = same_size && self.equal(&file, entry.chunks(), &mut content.chunks);
        // A small file is one chunk, and that one was just found to be another.
        let is_one = same_size && entry.size() <= AVERAGE_CHUNK as u64;
        if !content.equal && !is_one {
            let noted = self.note(&file, tree::size(stat), &mut content.chunks);
            noted.map_err(self.ground.failed(Stage::Compare, &entry.path))?;
        }
        Ok(content)
    }

    /// Compares chunk by chunk, as the manifest has cut them. An unreadable file is not equal.
    fn equal(
        &mut self,
        file: &File,
        chunks: &[ChunkRef],
        found: &mut Vec<(ContentId, u64)>,
    ) -> bool {
        self.buffer.resize(MAX_CHUNK, 0);
        let mut offset = 0;
        let mut reader = file;
        for chunk in chunks {
            let bytes = &mut self.buffer[..chunk.len as usize];
            if reader.read_exact(bytes).is_err() {
                return false;
            }
            let id = ContentId::of(bytes);
            if id != chunk.id {
                if needed(self.needed, self.target).contains(&id) {
                    found.push((id, offset));
                }
                return false;
            }
            offset += u64::from(chunk.len);
        }
        true
    }

    /// Whether a file holds these chunks and nothing else; it has their length already.
    pub(super) fn holds(&mut self, file: &File, chunks: &[ChunkRef]) -> bool {
        self.buffer.resize(MAX_CHUNK, 0);
        let mut reader = file;
        chunks.iter().all(|chunk| {
            let bytes = &mut self.buffer[..chunk.len as usize];
            reader.read_exact(bytes).is_ok() && ContentId::of(bytes) == chunk.id
        })
    }

    /// Cuts a file that will be replaced, and notes where chunks of the target are in it.
    fn note(
        &mut self,
        mut file: &File,
        size: u64,
        found: &mut Vec<(ContentId, u64)>,
    ) -> io::Result<()> {
        io::Seek::rewind(&mut file)?;
        let needed = needed(self.needed, self.target);
        let mut offset = 0;
        self.cutter.cut(file, size, &mut |bytes| -> io::Result<()> {
            let id = ContentId::of(bytes);
            // Holes are one chunk again and again.
            if needed.contains(&id) && found.last().is_none_or(|(last, _)| *last != id) {
                found.push((id, offset));
            }
            offset += bytes.len() as u64;
            Ok(())
        })?;
        Ok(())
    }
}

/// How many look at the files of a manifest.
pub(super) fn how_many(target: &Manifest) -> usize {
    let files = target.entries.iter().filter(|entry| matches!(entry.kind, Kind::File { .. }));
    match files.take(FEW).count() < FEW {
        true => 1,
        false => available_parallelism().map_or(1, usize::from).min(MOST),
    }
}

/// Looks at the files among these entries, with all eyes at once.
pub(super) fn look_ahead(
    eye: &mut Eye<'_>,
    others: &mut [Eye<'_>],
    entries: Range<usize>,
) -> Vec<Looked> {
    let next = AtomicUsize::new(entries.start);
    let take = || {
        let start = next.fetch_add(STEP, Ordering::Relaxed);
        (start < entries.end).then(|| start..entries.end.min(start + STEP))
    };
    let work = |eye: &mut Eye<'_>| {
        let mut seen = Vec::new();
        while let Some(step) = take() {
            for n in step {
                let entry = &eye.target.entries[n];
                if let Kind::File { .. } = entry.kind {
                    seen.push((n, eye.look_into(entry)));
                }
            }
        }
        seen
    };
    let mut looked: Vec<_> = entries.clone().map(|_| Looked::Unknown).collect();
    let seen = thread::scope(|scope| {
        // Where there is no room for a thread, the others do its part.
        let spawn = |eye| thread::Builder::new().spawn_scoped(scope, || work(eye)).ok();
        let others: Vec<_> = others.iter_mut().filter_map(spawn).collect();
        let mut seen = work(eye);
        for other in others {
            seen.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        seen
    });
    for (n, what) in seen {
        looked[n - entries.start] = what;
    }
    looked
}

fn needed<'a>(needed: &'a Needed, target: &Manifest) -> &'a BTreeSet<ContentId> {
    let chunks = target.entries.iter().flat_map(Entry::chunks);
    needed.get_or_init(|| chunks.map(|chunk| chunk.id).collect())
}
