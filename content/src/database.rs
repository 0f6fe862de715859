//! A redb database that outlives a full disk.
//!
//! redb refuses everything after an I/O error until the database is opened anew. Here the file is
//! watched: an error for want of space marks the database as full, and whoever asks for it next
//! opens it again, which loses nothing that was committed. The file grows by holes, much more than
//! is needed, so the error comes when a page is written. Any other failure to write, a failed sync
//! above all, is final: nobody knows what is on disk.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use redb::backends::FileBackend;
use redb::{BackendError, Database as Redb, DatabaseError, StorageBackend};

/// How often, and after what pause each time, a database that somebody still holds is tried.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(10);

/// What is asked of the disk, as it is asked: from this a test can make every state that a power
/// failure may leave behind.
pub trait Tape: std::fmt::Debug + Send + Sync {
    /// Bytes were written at this place.
    fn wrote(&self, path: &Path, at: u64, bytes: &[u8]);
    /// A file has come to be under this name, whole and durable.
    fn placed(&self, path: &Path);
    /// The file was given this length.
    fn resized(&self, path: &Path, len: u64);
    /// All that was asked for of this file is durable.
    fn synced(&self, path: &Path);
}

/// One redb file, opened as often as need be.
pub struct Database {
    path: PathBuf,
    cache: usize,
    fate: Arc<Fate>,
    database: RwLock<Option<Arc<Redb>>>,
}

/// What has become of the file.
#[derive(Debug, Default)]
struct Fate {
    full: AtomicBool,
    broken: AtomicBool,
    /// Who is told of what is written.
    tape: Option<Arc<dyn Tape>>,
    /// For tests: where the disk ends, in bytes; 0: nowhere.
    #[cfg(test)]
    end: std::sync::atomic::AtomicU64,
}

impl Database {
    /// Opens or creates a database. `cache` bounds its memory, in bytes.
    pub fn open(path: &Path, cache: usize) -> Result<Database, DatabaseError> {
        Database::taped(path, cache, None)
    }

    /// The same, with somebody who is told of all that is written.
    pub fn taped(
        path: &Path,
        cache: usize,
        tape: Option<Arc<dyn Tape>>,
    ) -> Result<Database, DatabaseError> {
        let fate = Arc::new(Fate { tape, ..Fate::default() });
        let database = open(path, cache, &fate)?;
        let database = RwLock::new(Some(Arc::new(database)));
        Ok(Database { path: path.into(), cache, fate, database })
    }

    /// The database, opened anew if it was full. Hold it no longer than one transaction: while
    /// anybody does, it cannot be opened again.
    pub fn current(&self) -> Result<Arc<Redb>, DatabaseError> {
        if !self.is_full() {
            let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(database) = &*database {
                return Ok(database.clone());
            }
        }
        self.open_again()
    }

    /// Copies the file as it is at one moment. Meanwhile nobody writes, and `also` is done, so that
    /// what it looks at is of the same moment; whoever wants to write waits.
    pub fn copy<T>(&self, to: &Path, also: impl FnOnce() -> T) -> Result<T, redb::Error> {
        let database = self.current()?;
        // It has the right to write and does not use it. What was committed is whole on disk.
        let _alone = database.begin_write()?;
        let done = also();
        std::fs::copy(&self.path, to)?;
        File::open(to)?.sync_all()?;
        Ok(done)
    }

    /// Whether the last thing that happened to the file was that it found no space.
    pub fn is_full(&self) -> bool {
        self.fate.full.load(Ordering::Acquire) && !self.is_broken()
    }

    /// Whether writing has failed in a way that says nothing of what is on disk.
    pub fn is_broken(&self) -> bool {
        self.fate.broken.load(Ordering::Acquire)
    }

    fn open_again(&self) -> Result<Arc<Redb>, DatabaseError> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(database) = &*database
            && !self.is_full()
        {
            return Ok(database.clone());
        }
        *database = None;
        self.fate.full.store(false, Ordering::Release);
        let mut tries = 0..TRIES;
        let opened = loop {
            match open(&self.path, self.cache, &self.fate) {
                // Whoever is in the middle of a transaction lets go soon.
                Err(DatabaseError::DatabaseAlreadyOpen) if tries.next().is_some() => {
                    std::thread::sleep(PAUSE);
                }
                opened => break opened,
            }
        };
        match opened {
            Ok(opened) => Ok(database.insert(Arc::new(opened)).clone()),
            Err(error) => {
                self.fate.full.store(true, Ordering::Release);
                Err(error)
            }
        }
    }
}

fn open(path: &Path, cache: usize, fate: &Arc<Fate>) -> Result<Redb, DatabaseError> {
    if !path.exists() {
        create(path, cache, fate)?;
    }
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).open(path)?;
    let watched = Watched { path: path.into(), file: FileBackend::new(file)?, fate: fate.clone() };
    redb::Builder::new().set_cache_size(cache).create_with_backend(watched)
}

/// Makes an empty database under another name first: redb never opens a file again that a power
/// failure has left while it was made.
fn create(path: &Path, cache: usize, fate: &Arc<Fate>) -> Result<(), DatabaseError> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.new", std::process::id()));
    let new = path.with_file_name(name);
    let made = fill(&new, cache, fate).and_then(|()| Ok(put_in_place(&new, path)?));
    std::fs::remove_file(&new).ok();
    if made? && let Some(tape) = &fate.tape {
        tape.placed(path);
    }
    Ok(())
}

fn fill(new: &Path, cache: usize, fate: &Arc<Fate>) -> Result<(), DatabaseError> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(true).open(new)?;
    let watched = Watched { path: new.into(), file: FileBackend::new(file)?, fate: fate.clone() };
    drop(redb::Builder::new().set_cache_size(cache).create_with_backend(watched)?);
    Ok(File::open(new)?.sync_all()?)
}

/// Gives a file its name. `false`: somebody else was faster, which unlike a rename this respects.
fn put_in_place(new: &Path, path: &Path) -> io::Result<bool> {
    match std::fs::hard_link(new, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
        linked => linked?,
    }
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    File::open(dir.unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(true)
}

/// Whether an error means that there is no space.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// A file whose failures are noted.
#[derive(Debug)]
struct Watched {
    path: PathBuf,
    file: FileBackend,
    fate: Arc<Fate>,
}

impl Watched {
    fn note<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result {
            let fate = if is_full(error) { &self.fate.full } else { &self.fate.broken };
            fate.store(true, Ordering::Release);
        }
        result
    }
}

impl StorageBackend for Watched {
    fn len(&self) -> io::Result<u64> {
        self.note(self.file.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.note(self.file.read(offset, out))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.note(self.file.set_len(len))?;
        if let Some(tape) = &self.fate.tape {
            tape.resized(&self.path, len);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let synced = self.file.sync_data();
        if synced.is_err() {
            // Also for want of space: what was not written is forgotten by the system.
            self.fate.broken.store(true, Ordering::Release);
        } else if let Some(tape) = &self.fate.tape {
            tape.synced(&self.path);
        }
        synced
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        #[cfg(test)]
        if (1..offset + data.len() as u64).contains(&self.fate.end.load(Ordering::Relaxed)) {
            return self.note(Err(io::ErrorKind::StorageFull.into()));
        }
        self.note(self.file.write(offset, data))?;
        if let Some(tape) = &self.fate.tape {
            tape.wrote(&self.path, offset, data);
        }
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use redb::{ReadableDatabase, TableDefinition};

    use super::*;

    const TABLE: TableDefinition<'static, u32, &[u8]> = TableDefinition::new("table");

    fn put(database: &Database, key: u32) -> Result<(), redb::Error> {
        let txn = database.current()?.begin_write()?;
        txn.open_table(TABLE)?.insert(key, [7; 10_000].as_slice())?;
        Ok(txn.commit()?)
    }

    fn has(database: &Database, key: u32) -> bool {
        let found = || -> Result<bool, redb::Error> {
            let table = database.current()?.begin_read()?.open_table(TABLE)?;
            Ok(table.get(key)?.is_some())
        };
        found().expect("it is read")
    }

    #[test]
    fn a_full_disk_costs_what_was_not_committed_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("database.redb");
        let database = Database::open(&path, 1 << 20).expect("it is made");
        put(&database, 1).expect("there is room");
        database.fate.end.store(400_000, Ordering::Relaxed);
        let failed =
            (2..200).find(|key| put(&database, *key).is_err()).expect("it is full some time");
        assert!(database.is_full());
        // It can be read, and it stays full.
        assert!(has(&database, 1) && has(&database, failed - 1) && !has(&database, failed));
        assert!((0..10).any(|n| put(&database, failed + n).is_err()) && database.is_full());
        database.fate.end.store(0, Ordering::Relaxed);
        put(&database, failed).expect("there is room again");
        assert!(!database.is_full() && has(&database, failed) && has(&database, failed - 1));
        drop(database);
        let database = Database::open(&path, 1 << 20).expect("it is opened");
        assert!(has(&database, 1) && has(&database, failed));
    }

    #[test]
    fn a_copy_has_all_that_was_committed_and_nothing_of_what_comes_after() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("database.redb");
        let database = std::sync::Arc::new(Database::open(&path, 1 << 20).expect("it is made"));
        (0..20).for_each(|key| put(&database, key).expect("there is room"));
        let writer = std::thread::spawn({
            let database = database.clone();
            move || (20..60).for_each(|key| put(&database, key).expect("there is room"))
        });
        for n in 0..5 {
            let to = dir.path().join(format!("copy-{n}"));
            let last = database.copy(&to, || (0..60).take_while(|key| has(&database, *key)).last());
            let last = last.expect("it is copied").expect("there are some");
            let copy = Database::open(&to, 1 << 20).expect("it is whole");
            assert!((0..=last).all(|key| has(&copy, key)), "{last}");
            assert!(!(last + 1..60).any(|key| has(&copy, key)), "{last}");
        }
        writer.join().expect("it ends");
        assert!((0..60).all(|key| has(&database, key)), "nobody was kept from writing for good");
    }

    #[test]
    fn one_process_at_a_time_still() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("database.redb");
        let database = Database::open(&path, 1 << 20).expect("it is made");
        assert!(matches!(Database::open(&path, 1 << 20), Err(DatabaseError::DatabaseAlreadyOpen)));
        drop(database);
        assert!(Database::open(&path, 1 << 20).is_ok());
    }
}
