//! What files were like when they were last read, so that what has not changed is not read again.
//!
//! The idea: a file is what it was as long as device, inode, size and both times are. Nobody can
//! set the time of a change as they like, so a file that is swapped or written gets another. Three
//! cases are left, and only the last one has to be known to people: two writes within one tick of
//! the kernel's clock, so a file that was changed just before it was read is not remembered; file
//! systems whose times come from another machine, so nothing there is; and whoever writes through a
//! mapping that was writable before the file was read, which the kernel notes when it writes back.
//!
//! It deliberately holds no content: what is not in the store any more is read again.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, fstatfs};

use crate::id::ContentId;
use crate::manifest::{Entry, Kind, Limits, Manifest};
use crate::store::{Store, StoreError};
use crate::tree;

/// How long a file must have been left alone before it was read. Kernels count in steps of up to
/// 10 ms, file systems in up to two seconds.
const QUIET: Duration = Duration::from_secs(3);
const VERSION: u8 = 1;
/// What a mark takes in bytes.
const MARK: usize = 28;
/// How hard what is seen is compressed.
const LEVEL: i32 = 1;
/// File systems that ask another machine or a program for times: NFS, SMB (three numbers), FUSE,
/// 9P, Ceph, AFS, Coda.
const ELSEWHERE: [u32; 9] = [
    0x6969,
    0x517b,
    0xff53_4d42,
    0xfe53_4d42,
    0x6573_5546,
    0x0102_1997,
    0x00c3_6400,
    0x5346_414f,
    0x7375_7245,
];

/// What tells a file from every other one and from what it is after a change, beside its size and
/// the time in the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    dev: u64,
    inode: u64,
    changed: (i64, u32),
}

impl Mark {
    // The C types differ between processors; on some of them the conversions do nothing.
    #[allow(clippy::useless_conversion)]
    fn of(stat: &Stat) -> Mark {
        let nanos = u32::try_from(stat.st_ctime_nsec).unwrap_or(0);
        let (dev, inode) = (stat.st_dev.into(), stat.st_ino.into());
        Mark { dev, inode, changed: (stat.st_ctime.into(), nanos) }
    }
}

/// A mark for each entry of a manifest; `None` for what has to be read whenever it is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marks(Vec<Option<Mark>>);

/// Which files a reading may mark.
pub(crate) struct Marker {
    /// The device whose times are to be believed, if that is one.
    device: Option<u64>,
    /// Seconds and nanoseconds since 1970: what was changed later is not marked.
    until: (i64, u32),
}

impl Marker {
    /// For a tree that begins here and is read from now on.
    pub(crate) fn new(root: &Path, now: SystemTime) -> Marker {
        let opened = rustix::fs::open(root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        let stat = opened.and_then(|root| {
            // The type's width differs between processors, the numbers have 32 bits.
            let is_here = !ELSEWHERE.contains(&(fstatfs(&root)?.f_type as u32));
            Ok(Some(fstat(&root)?).filter(|_| is_here))
        });
        let stat = stat.ok().flatten();
        let quiet = now.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(QUIET);
        let until = (i64::try_from(quiet.as_secs()).unwrap_or(0), quiet.subsec_nanos());
        Marker { device: stat.map(|stat| Mark::of(&stat).dev), until }
    }

    fn mark(&self, stat: &Stat) -> Option<Mark> {
        let mark = Mark::of(stat);
        let settled = mark.changed < self.until && tree::mtime(stat) < self.until;
        let is_file = tree::kind(stat) == FileType::RegularFile;
        (is_file && settled && self.device == Some(mark.dev)).then_some(mark)
    }

    /// The marks of entries, from how each of them was when it was read.
    pub(crate) fn marks<'a>(&self, stats: impl Iterator<Item = &'a Stat>) -> Marks {
        Marks(stats.map(|stat| self.mark(stat)).collect())
    }
}

/// A tree as it was read once.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    manifest: Manifest,
    marks: Marks,
}

impl Seen {
    /// What is remembered of a reading.
    pub fn new(manifest: Manifest, marks: Marks) -> Seen {
        assert_eq!(manifest.entries.len(), marks.0.len(), "there is a mark for each entry");
        Seen { manifest, marks }
    }

    /// The tree.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The tree.
    pub fn into_manifest(self) -> Manifest {
        self.manifest
    }

    /// As bytes, to be kept. They are compressed.
    pub fn encode(&self) -> Vec<u8> {
        let manifest = self.manifest.encode();
        let mut out = Vec::with_capacity(9 + manifest.len() + (MARK + 1) * self.marks.0.len());
        out.push(VERSION);
        out.extend_from_slice(&(manifest.len() as u64).to_le_bytes());
        out.extend_from_slice(&manifest);
        for mark in &self.marks.0 {
            out.push(mark.is_some().into());
            if let Some(Mark { dev, inode, changed }) = mark {
                out.extend_from_slice(&dev.to_le_bytes());
                out.extend_from_slice(&inode.to_le_bytes());
                out.extend_from_slice(&changed.0.to_le_bytes());
                out.extend_from_slice(&changed.1.to_le_bytes());
            }
        }
        zstd::bulk::compress(&out, LEVEL).expect("memory is all that it takes")
    }

    /// Reads what [`encode`](Seen::encode) wrote; `None` if it is anything else.
    pub fn decode(bytes: &[u8]) -> Option<Seen> {
        let limits = Limits::default();
        let most = limits.encoded + (MARK + 1) * limits.entries;
        let size = zstd::bulk::Decompressor::upper_bound(bytes).filter(|size| *size <= most)?;
        let bytes = zstd::bulk::decompress(bytes, size).ok()?;
        let (version, rest) = bytes.split_first()?;
        let (length, rest) = rest.split_first_chunk()?;
        let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
        let (manifest, mut rest) = rest.split_at_checked(length)?;
        let manifest = Manifest::decode(manifest, &limits).ok()?;
        let mut marks = Vec::with_capacity(manifest.entries.len());
        for _ in &manifest.entries {
            let is_some;
            (is_some, rest) = rest.split_first()?;
            marks.push(None);
            if *is_some != 0 {
                let (dev, after) = rest.split_first_chunk()?;
                let (inode, after) = after.split_first_chunk()?;
                let (seconds, after) = after.split_first_chunk()?;
                let (nanos, after) = after.split_first_chunk()?;
                let changed = (i64::from_le_bytes(*seconds), u32::from_le_bytes(*nanos));
                let (dev, inode) = (u64::from_le_bytes(*dev), u64::from_le_bytes(*inode));
                *marks.last_mut()? = Some(Mark { dev, inode, changed });
                rest = after;
            }
        }
        let is_ours = *version == VERSION && rest.is_empty();
        is_ours.then(|| Seen::new(manifest, Marks(marks)))
    }

    /// The file at this path, if it is what it was when it was read.
    fn unchanged(&self, path: &[u8], stat: &Stat) -> Option<&Entry> {
        let entries = &self.manifest.entries;
        let at = entries.binary_search_by(|entry| entry.path.as_slice().cmp(path)).ok()?;
        let (entry, mark) = (&entries[at], self.marks.0[at]?);
        let same = mark == Mark::of(stat) && entry.mtime == tree::mtime(stat);
        let sized = matches!(entry.kind, Kind::File { size, .. } if size == tree::size(stat));
        (same && sized).then_some(entry)
    }

    /// Those of these files that are what they were when they were read, and whose content is in
    /// the store; in the same order.
    pub(crate) fn recall<'a>(
        &self,
        files: impl Iterator<Item = (&'a [u8], &'a Stat)>,
        store: &Store,
    ) -> Result<Vec<Option<&Entry>>, StoreError> {
        let mut known: Vec<_> = files.map(|(path, stat)| self.unchanged(path, stat)).collect();
        let chunks = known.iter().flatten().flat_map(|entry| entry.chunks());
        let mut chunks: Vec<ContentId> = chunks.map(|chunk| chunk.id).collect();
        chunks.sort_unstable();
        chunks.dedup();
        let gone = store.absent(&chunks)?;
        if !gone.is_empty() {
            let is_gone =
                |entry: &Entry| entry.chunks().iter().any(|chunk| gone.contains(&chunk.id));
            known.iter_mut().for_each(|entry| *entry = entry.filter(|entry| !is_gone(entry)));
        }
        Ok(known)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, FileTimes};
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use crate::ingest::{Ingested, ingest_again};
    use crate::patterns::Patterns;

    /// A tree of three files, and a store.
    struct Place {
        temp: tempfile::TempDir,
        store: Store,
    }

    impl Place {
        fn new() -> Place {
            let temp = tempfile::tempdir().expect("temp");
            let store = Store::open(temp.path().join("store")).expect("store");
            let place = Place { temp, store };
            fs::create_dir_all(place.at("d")).expect("dir");
            for name in ["a", "b", "d/c"] {
                fs::write(place.at(name), name).expect("writes");
            }
            place
        }

        fn at(&self, name: &str) -> std::path::PathBuf {
            self.temp.path().join("tree").join(name)
        }

        /// Reads the tree. Returns how many files were read as well.
        fn read(&self, seen: Option<&Seen>) -> (Ingested, u64) {
            let mut read = 0;
            let mut tell = |done: crate::Progress| read = done.files;
            let (tree, all) = (self.at(""), Patterns::default());
            let ingested = ingest_again(&tree, &all, &self.store, seen, &mut tell).expect("reads");
            (ingested, read)
        }

        /// What is remembered as if all files had been left alone for long.
        fn seen(&self) -> Seen {
            let (Ingested { manifest, .. }, _) = self.read(None);
            let later = SystemTime::now() + 2 * QUIET;
            let stat = |entry: &Entry| {
                let path = std::str::from_utf8(&entry.path).expect("it is ours");
                rustix::fs::stat(self.at(path)).expect("it is there")
            };
            let stats: Vec<_> = manifest.entries.iter().map(stat).collect();
            let marks = Marker::new(&self.at(""), later).marks(stats.iter());
            Seen::new(manifest, marks)
        }
    }

    #[test]
    fn what_has_not_changed_is_not_read_and_is_the_same() {
        let place = Place::new();
        let seen = place.seen();
        let (again, read) = place.read(Some(&seen));
        assert_eq!((read, &again.manifest), (0, &seen.manifest));
        fs::write(place.at("new"), "new").expect("writes");
        let (more, read) = place.read(Some(&seen));
        assert_eq!((read, more.manifest.files()), (1, 4));
        assert_eq!(more.manifest, place.read(None).0.manifest);
    }

    #[test]
    fn what_was_written_with_the_same_size_and_the_old_time_is_read() {
        let place = Place::new();
        let seen = place.seen();
        let path = place.at("a");
        let old = fs::metadata(&path).expect("it is there");
        fs::write(&path, "z").expect("writes");
        let times = FileTimes::new().set_modified(old.modified().expect("has one"));
        File::options()
            .write(true)
            .open(&path)
            .and_then(|file| file.set_times(times))
            .expect("set");
        assert_eq!(fs::metadata(&path).expect("it is there").mtime_nsec(), old.mtime_nsec());
        let (again, read) = place.read(Some(&seen));
        assert_eq!((read, &again.manifest), (1, &place.read(None).0.manifest));
        assert_ne!(again.manifest, seen.manifest);
    }

    #[test]
    fn a_file_in_the_place_of_another_is_read() {
        let place = Place::new();
        let seen = place.seen();
        fs::rename(place.at("a"), place.at("x")).expect("renames");
        fs::rename(place.at("b"), place.at("a")).expect("renames");
        fs::rename(place.at("x"), place.at("b")).expect("renames");
        let (again, read) = place.read(Some(&seen));
        assert_eq!((read, again.manifest), (2, place.read(None).0.manifest));
    }

    #[test]
    fn what_is_not_in_the_store_any_more_is_read() {
        let place = Place::new();
        let seen = place.seen();
        let gone = ContentId::of(b"d/c");
        place.store.remove(&[gone]).expect("removes");
        let (again, read) = place.read(Some(&seen));
        assert_eq!((read, &again.manifest), (1, &seen.manifest));
        assert!(place.store.has(&gone).expect("looks"));
    }

    #[test]
    fn what_has_just_been_written_is_not_remembered() {
        let place = Place::new();
        let (Ingested { manifest, marks, .. }, _) = place.read(None);
        let (_, read) = place.read(Some(&Seen::new(manifest, marks)));
        assert_eq!(read, 3, "they may have been written again within one tick of the clock");
    }

    #[test]
    fn it_is_kept_as_bytes_and_rubbish_is_not_believed() {
        let place = Place::new();
        let seen = place.seen();
        let bytes = seen.encode();
        assert_eq!(Seen::decode(&bytes).as_ref(), Some(&seen));
        assert_eq!(seen.marks.0.iter().flatten().count(), 3, "directories have none");
        for end in 0..bytes.len() {
            assert_eq!(Seen::decode(&bytes[..end]), None);
        }
        let raw = zstd::bulk::decompress(&bytes, 1 << 20).expect("it is ours");
        let again = |raw: &[u8]| Seen::decode(&zstd::bulk::compress(raw, 1).expect("compresses"));
        assert_eq!(again(&raw), Some(seen));
        assert_eq!(again(&[&[9], &raw[1..]].concat()), None, "another version");
        assert_eq!(again(&[&raw[..], &[0]].concat()), None);
        assert_eq!(again(&[&raw[..1], &[255; 8], &raw[9..]].concat()), None, "a length");
    }
}
