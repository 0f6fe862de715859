//! The content store of a node: bytes on disk, found by the hash of the bytes.
//!
//! The idea: objects of 64 KiB and more are files of their own; smaller ones are appended to
//! volume files, so that ten thousand small files cost neither ten thousand inodes nor ten
//! thousand syncs. A redb index says where each object is. Data is on disk before the index
//! knows of it, so a crash leaves, at worst, bytes that nobody points to, and those are
//! swept or overwritten at the next open. Whatever is read is hashed again: a damaged object is
//! the same as an absent one, and will be fetched again.
//!
//! ```text
//! index.redb    objects/ab/<hex>    volumes/<n>    partial/<hex>    tmp/new-<n>
//! ```
//!
//! What to keep is its owner's affair; only when there is no room, what the owner does not need
//! goes by itself ([`room`]). Space inside a volume comes back as a hole in it.

mod batch;
mod check;
mod index;
mod object;
mod partial;
mod room;
mod worth;

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::FallocateFlags;
use tracing::warn;

pub use self::batch::Batch;
pub use self::check::Checked;
use self::index::{Index, Place};
pub use self::object::{Object, read_groups};
pub use self::partial::Partial;
use self::room::Room;
pub use self::room::{Bounds, Owner, Pinned};
pub use self::worth::Price;
use crate::id::ContentId;

/// No object is longer.
pub const MAX_OBJECT: usize = 32 << 20;
/// Objects at least this long are files of their own.
const LARGE: usize = 64 << 10;
/// A volume that would become longer is closed, and the next one begun.
const VOLUME: u64 = 64 << 20;

/// Objects by content id. Shared between threads by reference; one process at a time.
pub struct Store {
    dir: PathBuf,
    /// For syncing the file system the store is on.
    root: File,
    index: Index,
    writer: Mutex<Writer>,
    temps: AtomicU64,
    room: Room,
}

/// How full a store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Objects it holds.
    pub objects: u64,
    /// Bytes in them.
    pub bytes: u64,
}

/// Why a store could not do something. Objects put before are not affected.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk refused; nothing was added.
    #[error("store: cannot {doing} {}", path.display())]
    Disk {
        /// What we tried.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The index refused; nothing was added.
    #[error("store: cannot {doing} the index")]
    Index {
        /// What we tried.
        doing: &'static str,
        /// What redb said.
        #[source]
        source: Box<redb::Error>,
    },
    /// The directory holds a store of a version we do not know.
    #[error("store: format {found} is not known to this version")]
    Format {
        /// The format it says it has.
        found: u64,
    },
    /// The caller gave an id that is not the hash of the bytes.
    #[error("store: the bytes given for {id} are other bytes")]
    Mismatch {
        /// The id.
        id: ContentId,
    },
    /// The disk is short of room; nothing was added.
    #[error("no space left on the state disk: less than {} MiB would stay free", floor >> 20)]
    Room {
        /// What is to stay free, in bytes.
        floor: u64,
    },
    /// It holds all that it may, and needs all of it; nothing was added.
    #[error(
        "no room in the content store: of {} MiB that it may have {} MiB are taken by what is \
         needed, and {} MiB are wanted", max >> 20, held >> 20, wanted.div_ceil(1 << 20)
    )]
    Quota {
        /// What it may hold, in bytes.
        max: u64,
        /// What it holds.
        held: u64,
        /// What was to be added.
        wanted: u64,
    },
    /// The caller gave too long an object.
    #[error("store: object {id} has {len} bytes, more than 32 MiB")]
    TooLarge {
        /// The id.
        id: ContentId,
        /// Its length.
        len: usize,
    },
}

impl StoreError {
    /// Whether there was no space; nothing was added, and what was there before is.
    pub fn is_full(&self) -> bool {
        match self {
            StoreError::Disk { source, .. } => crate::is_full(source),
            StoreError::Index { source, .. } => match &**source {
                redb::Error::Io(error) => crate::is_full(error),
                _ => false,
            },
            StoreError::Room { .. } | StoreError::Quota { .. } => true,
            _ => false,
        }
    }
}

/// The volume that grows. `None` until the first small object, and after a failed write: a
/// volume whose state on disk is in doubt is never appended to again.
struct Writer {
    active: Option<Volume>,
    next: u32,
}

struct Volume {
    number: u32,
    file: File,
    end: u64,
}

impl Store {
    /// Opens the store in a directory, or makes one there, and clears away what a crash left.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Store, StoreError> {
        let dir = dir.into();
        for name in ["", "objects", "volumes", "tmp"] {
            let path = dir.join(name);
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
            made.map_err(disk("create", &path))?;
        }
        // From here on no other process has this store open, so the sweeps hit only leftovers.
        let index = Index::open(&dir.join("index.redb"))?;
        let root = File::open(&dir).map_err(disk("open", &dir))?;
        // An index that a crash could make vanish would take every object along.
        root.sync_all().map_err(disk("sync", &dir))?;
        let writer = Mutex::new(Writer { active: None, next: 0 });
        let (temps, room) = (AtomicU64::new(0), Room::default());
        let store = Store { dir, root, index, writer, temps, room };
        store.sweep_temps()?;
        store.sweep_objects()?;
        store.sweep_volumes()?;
        store.expect_partials()?;
        Ok(store)
    }

    /// Whether the object is in the index. Its bytes are looked at when it is read.
    pub fn has(&self, id: &ContentId) -> Result<bool, StoreError> {
        Ok(self.index.find(id)?.is_some())
    }

    /// Those of these objects that are not in the index.
    pub fn absent(&self, ids: &[ContentId]) -> Result<BTreeSet<ContentId>, StoreError> {
        self.index.absent(ids)
    }

    /// How long the object is, if it is here.
    pub fn size(&self, id: &ContentId) -> Result<Option<u32>, StoreError> {
        Ok(self.index.find(id)?.map(|place| place.len()))
    }

    /// The object, if it is here and undamaged. A damaged one is removed.
    pub fn get(&self, id: &ContentId) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(place) = self.index.find(id)? else { return Ok(None) };
        match self.read(id, place)? {
            Some(bytes) => {
                self.note_use(id)?;
                Ok(Some(bytes))
            }
            None => self.recheck(id),
        }
    }

    /// Puts one object, durable on return. For more than one use a [`Batch`].
    pub fn put(&self, id: ContentId, bytes: &[u8]) -> Result<(), StoreError> {
        let mut batch = self.batch();
        batch.put(id, bytes)?;
        batch.commit()
    }

    /// Starts a batch of puts that share their syncs.
    pub fn batch(&self) -> Batch<'_> {
        Batch::new(self)
    }

    /// Removes objects; those that are not here are skipped.
    pub fn remove(&self, ids: &[ContentId]) -> Result<(), StoreError> {
        let mut writer = self.writer();
        self.remove_locked(&mut writer, ids)
    }

    /// Removes every object that `keep` says no to. Returns how many.
    pub fn retain(&self, keep: &dyn Fn(&ContentId) -> bool) -> Result<usize, StoreError> {
        let mut writer = self.writer();
        let gone: Vec<_> = self.index.ids()?.into_iter().filter(|id| !keep(id)).collect();
        self.remove_locked(&mut writer, &gone)?;
        self.retain_partial(keep)?;
        Ok(gone.len())
    }

    /// What is free on the disk, in bytes. A disk that does not say has room.
    pub fn free(&self) -> u64 {
        let free = rustix::fs::fstatvfs(&self.root);
        free.map_or(u64::MAX, |stat| stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// How large the disk is, in bytes; 0 if it does not say.
    pub fn disk(&self) -> u64 {
        let stat = rustix::fs::fstatvfs(&self.root);
        stat.map_or(0, |stat| stat.f_blocks.saturating_mul(stat.f_frsize))
    }

    /// An empty file on the disk of the store, without a name, for the caller's own use.
    pub fn scratch(&self) -> io::Result<File> {
        let path = self.temp_path();
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        fs::remove_file(&path)?;
        Ok(file)
    }

    /// How many objects and bytes there are.
    pub fn usage(&self) -> Result<Usage, StoreError> {
        self.index.usage()
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        // The active volume is taken out while it is worked on, so a panic leaves `None`.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes at a place, or `None` if they are not those of the id.
    fn read(&self, id: &ContentId, place: Place) -> Result<Option<Vec<u8>>, StoreError> {
        let (path, offset) = self.locate(id, place);
        let mut bytes = vec![0; place.len() as usize];
        let read = File::open(&path).and_then(|file| file.read_exact_at(&mut bytes, offset));
        match read {
            Ok(()) => Ok(Some(bytes).filter(|bytes| ContentId::of(bytes) == *id)),
            Err(err) if is_damage(&err) => Ok(None),
            Err(err) => Err(disk("read", &path)(err)),
        }
    }

    /// The file that holds a place, and where in it.
    fn locate(&self, id: &ContentId, place: Place) -> (PathBuf, u64) {
        match place {
            Place::Large { .. } => (self.object_path(id), 0),
            Place::Small { volume, offset, .. } => (self.volume_path(volume), offset.into()),
        }
    }

    /// Looks again while nobody can write, and removes the object if it is still damaged.
    fn recheck(&self, id: &ContentId) -> Result<Option<Vec<u8>>, StoreError> {
        let mut writer = self.writer();
        let Some(place) = self.index.find(id)? else { return Ok(None) };
        if let Some(bytes) = self.read(id, place)? {
            return Ok(Some(bytes));
        }
        warn!(%id, ?place, "object is damaged, removed");
        self.remove_locked(&mut writer, &[*id])?;
        Ok(None)
    }

    fn remove_locked(&self, writer: &mut Writer, ids: &[ContentId]) -> Result<(), StoreError> {
        let removed = self.index.remove(ids)?;
        for id in removed.large {
            remove_file(&self.object_path(&id))?;
        }
        for volume in removed.volumes {
            writer.active.take_if(|active| active.number == volume);
            remove_file(&self.volume_path(volume))?;
        }
        self.punch(&removed.holes);
        Ok(())
    }

    /// Gives the room of what is gone inside of volumes back. A file system that cannot has it back
    /// with the volume.
    fn punch(&self, holes: &[(u32, u32, u32)]) {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let mut open: Option<(u32, File)> = None;
        for (volume, offset, len) in holes.iter().filter(|(.., len)| *len > 0) {
            if open.as_ref().is_none_or(|(number, _)| number != volume) {
                let file = OpenOptions::new().write(true).open(self.volume_path(*volume));
                open = file.ok().map(|file| (*volume, file));
            }
            let Some((_, file)) = &open else { continue };
            if rustix::fs::fallocate(file, flags, u64::from(*offset), u64::from(*len)).is_err() {
                return;
            }
        }
    }

    fn object_path(&self, id: &ContentId) -> PathBuf {
        let hex = id.to_string();
        self.dir.join("objects").join(&hex[..2]).join(hex)
    }

    fn volume_path(&self, number: u32) -> PathBuf {
        self.dir.join("volumes").join(number.to_string())
    }

    fn temp_path(&self) -> PathBuf {
        let n = self.temps.fetch_add(1, Ordering::Relaxed);
        self.dir.join("tmp").join(format!("new-{n}"))
    }

    fn sweep_temps(&self) -> Result<(), StoreError> {
        for (name, path) in list(&self.dir.join("tmp"))? {
            if name.strip_prefix("new-").is_some_and(is_number) {
                remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// Removes large objects that were renamed into place but never made it into the index.
    fn sweep_objects(&self) -> Result<(), StoreError> {
        let objects = self.dir.join("objects");
        for (prefix, dir) in list(&objects)?.into_iter().filter(|(name, _)| name.len() == 2) {
            for (name, path) in list(&dir)? {
                let Ok(id) = name.parse::<ContentId>() else { continue };
                let known = matches!(self.index.find(&id)?, Some(Place::Large { .. }));
                if name.starts_with(&prefix) && !known {
                    remove_file(&path)?;
                }
            }
        }
        Ok(())
    }

    /// Removes volumes nobody points into, cuts unfinished tails, and picks one to go on with.
    fn sweep_volumes(&self) -> Result<(), StoreError> {
        let ends = self.index.volumes()?;
        for (name, path) in list(&self.dir.join("volumes"))? {
            let Some(number) = name.parse::<u32>().ok().filter(|_| is_number(&name)) else {
                continue;
            };
            match ends.get(&number) {
                None => remove_file(&path)?,
                Some(end) => cut_tail(&path, *end)?,
            }
        }
        let Some((&number, &end)) = ends.last_key_value() else { return Ok(()) };
        let path = self.volume_path(number);
        let mut writer = self.writer();
        writer.next = number.saturating_add(1);
        // A last volume that lost bytes is left to be read; the next object begins a new one.
        let whole = fs::metadata(&path).is_ok_and(|meta| meta.len() == end);
        if whole && end < VOLUME {
            let file = OpenOptions::new().write(true).open(&path).map_err(disk("open", &path))?;
            writer.active = Some(Volume { number, file, end });
        }
        Ok(())
    }
}

/// Whether a failed read tells of lost bytes, not of a process that is out of something.
fn is_damage(err: &io::Error) -> bool {
    let media = rustix::io::Errno::IO.raw_os_error();
    matches!(err.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound)
        || err.raw_os_error() == Some(media)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn cut_tail(path: &Path, end: u64) -> Result<(), StoreError> {
    let file = OpenOptions::new().write(true).open(path).map_err(disk("open", path))?;
    if file.metadata().map_err(disk("look at", path))?.len() > end {
        file.set_len(end).map_err(disk("cut", path))?;
    }
    Ok(())
}

/// Name and path of everything in a directory; names that are not UTF-8 cannot be ours.
fn list(dir: &Path) -> Result<Vec<(String, PathBuf)>, StoreError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(disk("list", dir))? {
        let entry = entry.map_err(disk("list", dir))?;
        if let Ok(name) = entry.file_name().into_string() {
            found.push((name, entry.path()));
        }
    }
    Ok(found)
}

fn remove_file(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(disk("remove", path)(err)),
        _ => Ok(()),
    }
}

fn create_file(path: &Path) -> Result<File, StoreError> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    made.map_err(disk("create", path))
}

fn disk(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    move |source| StoreError::Disk { doing, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests;
