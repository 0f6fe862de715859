//! The spool of a host: what its commands have written beyond what their answers keep.
//!
//! A command whose output fits its answer never touches the disk. Of one that writes more, the
//! whole stream goes into a file here, from the first byte, so that it can be fetched later. The
//! files of all commands together have a quota: the oldest that nobody writes any more go first,
//! and one stream may take a quarter of it. What does not fit is only counted. Nothing is synced:
//! after a crash a file may be short, and whoever fetches it knows by the hash in the answer.
//!
//! The quota is shared with answers and events that wait here on their way up, and these files are
//! the first to go: what somebody may want once more counts less than what nobody has heard yet.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mesh::{OrderId, Stream};
use tracing::{info, warn};

use crate::space::Space;

/// One stream of one command.
type Key = (OrderId, Stream);

/// The spool; clones are the same one.
#[derive(Clone)]
pub(crate) struct Spool(Arc<Inner>);

struct Inner {
    dir: PathBuf,
    /// Bytes of all files together, at most.
    quota: u64,
    space: Space,
    /// How much of the quota others need.
    yielded: AtomicU64,
    files: Mutex<Files>,
}

#[derive(Default)]
struct Files {
    /// Ids sort by time, so the oldest is the first.
    kept: BTreeMap<Key, Kept>,
    bytes: u64,
    /// How many files have gone to make room, and how many of them nobody was told of.
    gone: u64,
    untold: u64,
}

struct Kept {
    bytes: u64,
    open: bool,
}

/// A file that is being written.
pub(crate) struct Writing {
    spool: Spool,
    key: Key,
    file: File,
    written: u64,
    /// Nothing more is taken: what follows would leave a hole.
    full: bool,
}

impl Spool {
    /// The spool in a folder, with what is in it. Blocks.
    pub(crate) fn open(dir: PathBuf, quota: u64, space: Space) -> Spool {
        let mut files = Files::default();
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let key = entry.file_name().to_str().and_then(key_of);
            match (key, entry.metadata()) {
                (Some(key), Ok(meta)) if meta.is_file() => {
                    files.bytes += meta.len();
                    files.kept.insert(key, Kept { bytes: meta.len(), open: false });
                }
                _ => drop(fs::remove_file(entry.path())),
            }
        }
        let (yielded, files) = (AtomicU64::new(0), Mutex::new(files));
        let spool = Spool(Arc::new(Inner { dir, quota, space, yielded, files }));
        spool.make_room(0);
        spool
    }

    /// Begins the file of a stream. `None`: there is no room, or no spool. Blocks.
    pub(crate) fn begin(&self, order: OrderId, stream: Stream) -> Option<Writing> {
        let key = (order, stream);
        if self.0.quota == 0 || self.0.space.lack(self.0.space.floor()).is_some() {
            return None;
        }
        let made = fs::create_dir_all(&self.0.dir).and_then(|()| {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600);
            options.open(self.path(key))
        });
        match made {
            Ok(file) => {
                let mut files = self.lock();
                let old = files.kept.insert(key, Kept { bytes: 0, open: true });
                files.bytes -= old.map_or(0, |old| old.bytes);
                drop(files);
                Some(Writing { spool: self.clone(), key, file, written: 0, full: false })
            }
            Err(error) => {
                warn!(%order, %error, "the rest of a command's output cannot be kept");
                None
            }
        }
    }

    /// The file of a stream and how long it is, if it is here. Blocks.
    pub(crate) fn find(&self, order: OrderId, stream: Stream) -> Option<(File, u64)> {
        let file = File::open(self.path((order, stream))).ok()?;
        let size = file.metadata().ok()?.len();
        Some((file, size))
    }

    /// Others need so much of the quota from now on. Returns whether files must go for it, by
    /// [`Spool::settle`].
    pub(crate) fn give_way(&self, bytes: u64) -> bool {
        let before = self.0.yielded.swap(bytes, Ordering::Relaxed);
        bytes > before && self.bytes() > self.room()
    }

    /// Lets files go that are over what is left of the quota. Blocks.
    pub(crate) fn settle(&self) {
        self.make_room(0);
    }

    /// How many files have gone since this was last asked, without anybody having fetched them.
    pub(crate) fn take_gone(&self) -> u64 {
        std::mem::take(&mut self.lock().untold)
    }

    /// How many have gone since the start.
    pub(crate) fn gone(&self) -> u64 {
        self.lock().gone
    }

    /// What of the quota is for files.
    fn room(&self) -> u64 {
        self.0.quota.saturating_sub(self.0.yielded.load(Ordering::Relaxed))
    }

    /// How many bytes it keeps.
    pub(crate) fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    /// What to say of a stream that is not here.
    pub(crate) fn absence(&self) -> String {
        let (mib, gone) = (self.0.quota >> 20, self.lock().gone);
        format!(
            "it is not in the spool of the host, which keeps {mib} MiB (`spool_mib`) and has \
             dropped {gone} outputs, the oldest first, since its node started"
        )
    }

    /// Lets the oldest files go until so many bytes more fit. Returns whether they do.
    fn make_room(&self, bytes: u64) -> bool {
        let mut files = self.lock();
        let mut gone = 0;
        let room = self.room();
        while files.bytes.saturating_add(bytes) > room {
            let oldest = files.kept.iter().find(|(_, kept)| !kept.open).map(|(key, _)| *key);
            let Some(key) = oldest else { break };
            let kept = files.kept.remove(&key);
            files.bytes -= kept.map_or(0, |kept| kept.bytes);
            fs::remove_file(self.path(key)).ok();
            gone += 1;
        }
        files.gone += gone;
        files.untold += gone;
        if gone > 0 {
            info!(gone, "old outputs have left the spool to make room");
        }
        files.bytes.saturating_add(bytes) <= room
    }

    fn path(&self, (order, stream): Key) -> PathBuf {
        self.0.dir.join(name_of(order, stream))
    }

    fn lock(&self) -> MutexGuard<'_, Files> {
        self.0.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writing {
    /// Adds to the file what fits, and says how many bytes that were. Once something did not fit
    /// nothing more does. Blocks.
    pub(crate) fn add(&mut self, bytes: &[u8]) -> usize {
        if self.full {
            return 0;
        }
        let each = self.spool.0.quota / 4;
        let fit = usize::try_from(each.saturating_sub(self.written)).unwrap_or(usize::MAX);
        let fit = fit.min(bytes.len());
        self.full = fit < bytes.len();
        let is_short = self.spool.0.space.lack(self.spool.0.space.floor()).is_some();
        if is_short || !self.spool.make_room(fit as u64) {
            self.full = true;
            return 0;
        }
        if let Err(error) = self.file.write_all(&bytes[..fit]) {
            let order = self.key.0;
            warn!(%order, %error, "the rest of a command's output cannot be kept");
            self.full = true;
            // Part of it may be there: the file ends where it is known to be right.
            self.file.set_len(self.written).ok();
            return 0;
        }
        self.written += fit as u64;
        let mut files = self.spool.lock();
        files.bytes += fit as u64;
        if let Some(kept) = files.kept.get_mut(&self.key) {
            kept.bytes += fit as u64;
        }
        fit
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if let Some(kept) = self.spool.lock().kept.get_mut(&self.key) {
            kept.open = false;
        }
    }
}

fn name_of(order: OrderId, stream: Stream) -> String {
    let end = match stream {
        Stream::Stdout => "out",
        Stream::Stderr => "err",
    };
    format!("{order}.{end}")
}

fn key_of(name: &str) -> Option<Key> {
    let (id, end) = name.split_once('.')?;
    let mut order = [0; 16];
    if id.len() != 32 || !id.is_ascii() {
        return None;
    }
    for (at, byte) in order.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&id[2 * at..2 * at + 2], 16).ok()?;
    }
    let key = match end {
        "out" => (OrderId(order), Stream::Stdout),
        "err" => (OrderId(order), Stream::Stderr),
        _ => return None,
    };
    (name_of(key.0, key.1) == name).then_some(key)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn order(n: u8) -> OrderId {
        OrderId([n; 16])
    }

    fn spool(dir: &Path, quota: u64) -> Spool {
        Spool::open(dir.join("spool"), quota, Space::new(dir, 0))
    }

    fn put(spool: &Spool, n: u8, bytes: usize) -> usize {
        let mut writing = spool.begin(order(n), Stream::Stdout).expect("there is room");
        writing.add(&vec![n; bytes])
    }

    fn size(spool: &Spool, n: u8) -> Option<u64> {
        spool.find(order(n), Stream::Stdout).map(|(_, size)| size)
    }

    #[test]
    fn the_oldest_go_first_and_one_takes_a_quarter_at_most() {
        let dir = tempfile::tempdir().expect("a folder");
        let kept = spool(dir.path(), 400);
        for n in 1..=4 {
            assert_eq!(put(&kept, n, 100), 100);
        }
        assert_eq!(put(&kept, 5, 150), 100);
        assert_eq!((size(&kept, 1), size(&kept, 2), size(&kept, 5)), (None, Some(100), Some(100)));
        assert!(kept.absence().contains("dropped 1 outputs"), "{}", kept.absence());
        // The next process finds what there is, and keeps to a smaller quota from then on.
        fs::write(dir.path().join("spool/stray"), "x").expect("written");
        let kept = spool(dir.path(), 250);
        assert_eq!((size(&kept, 3), size(&kept, 4), size(&kept, 5)), (None, Some(100), Some(100)));
        assert!(!dir.path().join("spool/stray").exists());
        assert_eq!(kept.lock().bytes, 200);
    }

    #[test]
    fn files_make_way_for_what_waits_to_be_told() {
        let dir = tempfile::tempdir().expect("a folder");
        let kept = spool(dir.path(), 400);
        (1..=3).for_each(|n| assert_eq!(put(&kept, n, 100), 100));
        assert!(!kept.give_way(100), "it fits");
        assert!(kept.give_way(250));
        kept.settle();
        assert_eq!((size(&kept, 1), size(&kept, 2), size(&kept, 3)), (None, None, Some(100)));
        assert_eq!((kept.take_gone(), kept.take_gone(), kept.gone()), (2, 0, 2));
        // Others may need more than there is; then nothing is kept, until they need less.
        assert!(kept.give_way(u64::MAX));
        kept.settle();
        assert_eq!((kept.bytes(), put(&kept, 4, 100)), (0, 0));
        assert!(!kept.give_way(300));
        assert_eq!(put(&kept, 5, 100), 100);
    }

    #[test]
    fn what_is_being_written_stays_and_never_has_a_hole() {
        let dir = tempfile::tempdir().expect("a folder");
        let kept = spool(dir.path(), 400);
        let mut open: Vec<_> =
            (1..=4).map(|n| kept.begin(order(n), Stream::Stderr).expect("there is room")).collect();
        open.iter_mut().for_each(|writing| assert_eq!(writing.add(&[7; 100]), 100));
        let mut fifth = kept.begin(order(5), Stream::Stdout).expect("a file");
        assert_eq!(fifth.add(&[1; 10]), 0, "all of it is in use");
        drop(open);
        assert_eq!(fifth.add(&[2; 10]), 0, "something is missing before it");
        assert_eq!(put(&kept, 6, 100), 100);
    }

    #[test]
    fn without_a_quota_or_room_nothing_is_kept() {
        let dir = tempfile::tempdir().expect("a folder");
        assert!(spool(dir.path(), 0).begin(order(1), Stream::Stdout).is_none());
        let space = Space::new(dir.path(), u64::MAX);
        let full = Spool::open(dir.path().join("spool"), 400, space);
        assert!(full.begin(order(1), Stream::Stdout).is_none());
    }

    #[test]
    fn names_are_keys_and_nothing_else_is() {
        let key = (order(0xab), Stream::Stderr);
        assert_eq!(key_of(&name_of(key.0, key.1)), Some(key));
        let upper = name_of(key.0, key.1).replace("ab", "AB");
        for name in ["", "x", "abab.out", upper.as_str(), "é.out"] {
            assert_eq!(key_of(name), None, "{name}");
        }
    }
}
