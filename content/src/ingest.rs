//! Reading a tree (or one file) into a manifest and a store.
//!
//! The idea: one walk lists every name, then two threads read each file exactly once, cutting,
//! hashing and storing as they go. A file is looked at before and after it is read; one that
//! changed in between is read again, and after three tries the ingest fails and names it: a
//! push must never carry a file that existed at no moment. A file that is what it was at an
//! earlier reading need not be read at all.
//!
//! It deliberately follows no link below the source (the source itself may be one), and reads
//! nothing twice to be sure.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::time::SystemTime;

use rustix::fs::{FileType, Mode, OFlags, SeekFrom, Stat, readlinkat};

use crate::attributes::{self, Attributes};
use crate::chunk::Cutter;
use crate::id::ContentId;
use crate::manifest::{ChunkRef, Entry, Kind, Limits, Manifest, ManifestError};
use crate::names::Names;
use crate::patterns::Patterns;
use crate::seen::{Marker, Marks, Seen};
use crate::show::show;
use crate::store::{Batch, Store, StoreError};
use crate::tree::{self, Dirs};

/// How often a file that keeps changing is read before we give up.
const TRIES: usize = 3;
const READERS: usize = 2;

/// How far an ingest has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Files read so far.
    pub files: u64,
    /// Bytes read so far.
    pub bytes: u64,
    /// Files to be read.
    pub total_files: u64,
    /// Bytes in them, as the walk saw it.
    pub total_bytes: u64,
}

/// What an ingest made.
#[derive(Debug)]
pub struct Ingested {
    /// The tree. Its chunks are in the store.
    pub manifest: Manifest,
    /// Sockets, pipes and devices, which a push does not carry.
    pub skipped: Vec<PathBuf>,
    /// What the files were like, for [`ingest_again`].
    pub marks: Marks,
}

/// Why nothing was ingested. The store may hold chunks that nobody refers to.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The source could not be read; the path says where.
    #[error("cannot {doing} {path}: {}", source.kind())]
    Read {
        /// What we tried.
        doing: &'static str,
        /// Where, made printable.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Somebody writes to this file.
    #[error("{path} changed while it was read")]
    Changed {
        /// The file, made printable.
        path: String,
    },
    /// The source is neither a directory nor a regular file.
    #[error("{path} is neither a directory nor a regular file")]
    Source {
        /// The source, made printable.
        path: String,
    },
    /// The tree breaks a rule of manifests, such as a path that is too long.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The chunks could not be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Reads a tree or a file into the store, and says what is in it.
///
/// What `exclude` means is left out, directories with all they hold. If the source itself is a
/// symbolic link, what it points to is read.
pub fn ingest(
    source: &Path,
    exclude: &Patterns,
    store: &Store,
    progress: &mut dyn FnMut(Progress),
) -> Result<Ingested, IngestError> {
    read(source, exclude, (Some(store), None), progress)
}

/// The same, but files that are what they were when they were seen, and whose content is still in
/// the store, are not read.
pub fn ingest_again(
    source: &Path,
    exclude: &Patterns,
    store: &Store,
    seen: Option<&Seen>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Ingested, IngestError> {
    read(source, exclude, (Some(store), seen), progress)
}

/// Only says what is in a tree or a file: nothing is stored, and a file that grows meanwhile is
/// taken as far as it went when it was looked at.
pub fn look(
    source: &Path,
    exclude: &Patterns,
    progress: &mut dyn FnMut(Progress),
) -> Result<Ingested, IngestError> {
    read(source, exclude, (None, None), progress)
}

fn read(
    source: &Path,
    exclude: &Patterns,
    (store, seen): (Option<&Store>, Option<&Seen>),
    progress: &mut dyn FnMut(Progress),
) -> Result<Ingested, IngestError> {
    let marker = Marker::new(source, SystemTime::now());
    let mut walk = Walk::new(source, exclude);
    let base = walk.run()?;
    let Walk { mut found, skipped, .. } = walk;
    found.sort_by(|a, b| a.path.cmp(&b.path));
    let known = match (store, seen) {
        (Some(store), Some(seen)) => {
            seen.recall(found.iter().map(|file| (file.path.as_slice(), &file.stat)), store)?
        }
        _ => vec![None; found.len()],
    };
    let reader = Reader { source, base: &base, store };
    let contents = reader.all(&found, &known, progress)?;

    let mut names = Names::default();
    let mut entries: Vec<Entry> = Vec::with_capacity(found.len());
    let mut stats = Vec::with_capacity(found.len());
    let heads = heads(&found);
    for (n, (Found { path, stat, link, attributes }, content)) in
        found.into_iter().zip(contents).enumerate()
    {
        if let Some(head) = heads.get(&n) {
            // It is described as the file that it is another name of.
            let kind = Kind::HardLink { to: entries[*head].path.clone() };
            let (attributes, sparse) = (Attributes::default(), false);
            entries.push(Entry { path, kind, attributes, sparse, ..entries[*head].clone() });
            stats.push(stat);
            continue;
        }
        // A file is described as it was when it was read, not as the walk saw it.
        let (stat, kind, attributes, sparse) = match (content, link) {
            (Some(Content { stat, chunks, attributes, sparse }), _) => {
                (stat, Kind::File { size: tree::size(&stat), chunks }, attributes, sparse)
            }
            (None, Some(target)) => (stat, Kind::Symlink { target }, attributes, false),
            (None, None) => (stat, Kind::Dir, attributes, false),
        };
        let (uid, gid) = (stat.st_uid, stat.st_gid);
        let (owner, group) = (names.user(uid), names.group(gid));
        let (mode, mtime) = (tree::mode(&stat), tree::mtime(&stat));
        entries.push(Entry { path, kind, mode, uid, gid, owner, group, mtime, attributes, sparse });
        stats.push(stat);
    }
    let manifest = Manifest { entries };
    manifest.check(&Limits::default())?;
    Ok(Ingested { manifest, skipped, marks: marker.marks(stats.iter()) })
}

/// What the walk saw.
struct Found {
    path: Vec<u8>,
    stat: Stat,
    /// The target if it is a link.
    link: Option<Vec<u8>>,
    /// Of a directory.
    attributes: Attributes,
}

impl Found {
    fn is_file(&self) -> bool {
        tree::kind(&self.stat) == FileType::RegularFile
    }
}

/// What a file was like when it was read.
struct Content {
    stat: Stat,
    chunks: Vec<ChunkRef>,
    attributes: Attributes,
    sparse: bool,
}

/// Of all names of one file but the first: which one that is.
fn heads(found: &[Found]) -> BTreeMap<usize, usize> {
    let mut first: BTreeMap<(u64, u64), usize> = BTreeMap::new();
    let mut heads = BTreeMap::new();
    for (n, Found { stat, .. }) in found.iter().enumerate() {
        if tree::kind(stat) == FileType::RegularFile && stat.st_nlink > 1 {
            let head = *first.entry((stat.st_dev, stat.st_ino)).or_insert(n);
            if head != n {
                heads.insert(n, head);
            }
        }
    }
    heads
}

/// Where paths are resolved: below a directory, or this one open file.
enum Base {
    Tree(OwnedFd),
    Single,
}

struct Walk<'a> {
    source: &'a Path,
    exclude: &'a Patterns,
    found: Vec<Found>,
    skipped: Vec<PathBuf>,
}

impl<'a> Walk<'a> {
    fn new(source: &'a Path, exclude: &'a Patterns) -> Walk<'a> {
        Walk { source, exclude, found: Vec::new(), skipped: Vec::new() }
    }

    fn run(&mut self) -> Result<Base, IngestError> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let opened = rustix::fs::open(self.source, flags, Mode::empty());
        let root = opened.map_err(|err| failed("open", self.source, b"")(err.into()))?;
        let stat = rustix::fs::fstat(&root);
        let stat = stat.map_err(|err| failed("look at", self.source, b"")(err.into()))?;
        let (path, attributes) = (Vec::new(), Attributes::default());
        self.found.push(Found { path, stat, link: None, attributes });
        match tree::kind(&stat) {
            FileType::RegularFile => return Ok(Base::Single),
            FileType::Directory => {}
            _ => return Err(IngestError::Source { path: shown(self.source, b"") }),
        }
        let again = root.try_clone().map_err(failed("open", self.source, b""))?;
        let mut dirs = Dirs::new(again);
        let mut pending = vec![0];
        while let Some(n) = pending.pop() {
            self.list(&mut dirs, n, &mut pending)?;
        }
        Ok(Base::Tree(root))
    }

    /// Lists the directory that was found at this place.
    fn list(
        &mut self,
        dirs: &mut Dirs,
        at: usize,
        pending: &mut Vec<usize>,
    ) -> Result<(), IngestError> {
        let dir = &*self.found[at].path.clone();
        let open = dirs.at(dir).map_err(failed("open", self.source, dir))?;
        let listed = tree::open_self(open)
            .and_then(|fd| Ok((attributes::read(&fd)?.unwrap_or_default(), tree::names(&fd)?)));
        let (attributes, names) = listed.map_err(failed("list", self.source, dir))?;
        self.found[at].attributes = attributes;
        for name in names {
            let path = if dir.is_empty() { name.clone() } else { [dir, b"/", &name].concat() };
            let looked = tree::look(open, &name).map_err(failed("look at", self.source, &path))?;
            // Removed since it was listed: then it is not part of the tree.
            let Some(stat) = looked else { continue };
            let is_dir = tree::kind(&stat) == FileType::Directory;
            if self.exclude.matches(&path, is_dir) {
                continue;
            }
            let mut link = None;
            match tree::kind(&stat) {
                FileType::Directory => pending.push(self.found.len()),
                FileType::RegularFile => {}
                FileType::Symlink => {
                    let target = readlinkat(open, name.as_slice(), Vec::new());
                    let target = target
                        .map_err(|err| failed("read link", self.source, &path)(err.into()))?;
                    link = Some(target.into_bytes());
                }
                _ => {
                    self.skipped.push(self.source.join(OsString::from_vec(path)));
                    continue;
                }
            }
            self.found.push(Found { path, stat, link, attributes: Attributes::default() });
        }
        Ok(())
    }
}

struct Reader<'a> {
    source: &'a Path,
    base: &'a Base,
    /// None: nothing is stored.
    store: Option<&'a Store>,
}

impl Reader<'_> {
    /// The content of every file, in the order given; `None` for what is not a file. Those that
    /// are known are not read.
    fn all(
        &self,
        found: &[Found],
        known: &[Option<&Entry>],
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Vec<Option<Content>>, IngestError> {
        let heads = heads(found);
        let is_wanted = |(n, file): (usize, &Found)| {
            file.is_file() && !heads.contains_key(&n) && known[n].is_none()
        };
        let wanted: Vec<bool> = found.iter().enumerate().map(is_wanted).collect();
        let files =
            || found.iter().zip(&wanted).filter(|(_, wanted)| **wanted).map(|(file, _)| file);
        let total_files = files().count() as u64;
        let total_bytes = files().map(|file| tree::size(&file.stat)).sum();
        let mut done = Progress { files: 0, bytes: 0, total_files, total_bytes };
        let next = AtomicUsize::new(0);
        let remembered = |(file, entry): (&Found, &Option<&Entry>)| {
            let Entry { attributes, sparse, .. } = (*entry)?;
            let (chunks, attributes) = (entry.map(Entry::chunks)?.to_vec(), attributes.clone());
            Some(Content { stat: file.stat, chunks, attributes, sparse: *sparse })
        };
        let mut contents: Vec<Option<Content>> = found.iter().zip(known).map(remembered).collect();
        std::thread::scope(|scope| {
            let (sender, receiver) = mpsc::sync_channel(64);
            let readers: Vec<_> = (0..READERS)
                .map(|_| {
                    let (sender, next, wanted) = (sender.clone(), &next, &wanted);
                    scope.spawn(move || self.some(found, wanted, next, &sender))
                })
                .collect();
            drop(sender);
            for bytes in receiver {
                done.files += 1;
                done.bytes += bytes;
                progress(done);
            }
            let mut failed = None;
            for reader in readers {
                match reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)) {
                    Ok(read) => read.into_iter().for_each(|(n, file)| contents[n] = Some(file)),
                    Err((n, err)) if failed.as_ref().is_none_or(|(m, _)| n < *m) => {
                        failed = Some((n, err));
                    }
                    Err(_) => {}
                }
            }
            failed.map_or(Ok(()), |(_, err)| Err(err))
        })?;
        Ok(contents)
    }

    /// The work of one thread: the next file that nobody has taken, until there is none.
    fn some(
        &self,
        found: &[Found],
        wanted: &[bool],
        next: &AtomicUsize,
        sender: &SyncSender<u64>,
    ) -> Result<Vec<(usize, Content)>, (usize, IngestError)> {
        let mut read = Vec::new();
        let mut batch = self.store.map(Store::batch);
        let mut cutter = Cutter::new();
        let mut dirs = match self.base {
            Base::Single => None,
            Base::Tree(root) => {
                let root = root.try_clone().map_err(failed("open", self.source, b""));
                Some(Dirs::new(root.map_err(|err| (0, err))?))
            }
        };
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            let Some(file) = found.get(n) else { break };
            if !wanted[n] {
                continue;
            }
            let path = &file.path;
            let open = || match &mut dirs {
                Some(dirs) => open_below(dirs, path),
                None => open_single(self.source),
            };
            let content = self.file(path, open, &mut cutter, &mut batch);
            let content = content.and_then(|content| match same_file(&content.stat, &file.stat) {
                true => Ok(content),
                // Other names of the file that the walk saw would become names of another one.
                false if file.stat.st_nlink > 1 => {
                    Err(IngestError::Changed { path: shown(self.source, path) })
                }
                false => Ok(content),
            });
            let content = content.map_err(|err| {
                next.store(found.len(), Ordering::Relaxed);
                (n, err)
            })?;
            // Nobody listens only when the caller's progress function has panicked.
            let _ = sender.send(tree::size(&content.stat));
            read.push((n, content));
        }
        if let Some(batch) = batch {
            batch.commit().map_err(|err| (found.len(), err.into()))?;
        }
        Ok(read)
    }

    fn file(
        &self,
        path: &[u8],
        mut open: impl FnMut() -> io::Result<(File, Stat)>,
        cutter: &mut Cutter,
        batch: &mut Option<Batch<'_>>,
    ) -> Result<Content, IngestError> {
        for _ in 0..TRIES {
            let (file, before) = open().map_err(failed("open", self.source, path))?;
            let mut chunks = Vec::new();
            let mut sink = |bytes: &[u8]| -> Result<(), Stop> {
                let id = match batch {
                    Some(batch) => batch.add(bytes)?,
                    None => ContentId::of(bytes),
                };
                let len = u32::try_from(bytes.len()).expect("the cutter keeps chunks short");
                chunks.push(ChunkRef { id, len });
                Ok(())
            };
            match stable(file, &before, self.store.is_none(), cutter, &mut sink) {
                Ok(Some((attributes, sparse))) => {
                    return Ok(Content { stat: before, chunks, attributes, sparse });
                }
                Ok(None) => {}
                Err(Stop::Disk(err)) => return Err(failed("read", self.source, path)(err)),
                Err(Stop::Store(err)) => return Err(err.into()),
            }
        }
        Err(IngestError::Changed { path: shown(self.source, path) })
    }
}

/// Why reading one file stopped.
#[derive(Debug, thiserror::Error)]
enum Stop {
    #[error(transparent)]
    Disk(#[from] io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Cuts a file, and says which attributes it has and whether it has holes, if it has stayed the
/// same meanwhile, or has only grown and may.
fn stable(
    file: File,
    before: &Stat,
    may_grow: bool,
    cutter: &mut Cutter,
    sink: &mut dyn FnMut(&[u8]) -> Result<(), Stop>,
) -> Result<Option<(Attributes, bool)>, Stop> {
    let size = tree::size(before);
    let attributes = attributes::read(&file)?.unwrap_or_default();
    let sparse = has_holes(&file, before);
    let most = if may_grow { size } else { u64::MAX };
    let read = cutter.cut(io::Read::take(&file, most), size, sink)?;
    let after = rustix::fs::fstat(&file).map_err(io::Error::from)?;
    let grown = may_grow && same_file(before, &after) && tree::size(&after) > size;
    let good = read == size && (grown || tree::unchanged(before, &after));
    Ok(good.then_some((attributes, sparse)))
}

/// Whether part of a file is not on disk because it is zero. Leaves the file at its beginning.
fn has_holes(file: &File, stat: &Stat) -> bool {
    let size = tree::size(stat);
    let allocated = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512);
    if allocated >= size {
        return false;
    }
    // Compressed files have fewer blocks as well, but no holes.
    let hole = rustix::fs::seek(file, SeekFrom::Hole(0));
    rustix::fs::seek(file, SeekFrom::Start(0)).is_ok() && hole.is_ok_and(|at| at < size)
}

fn same_file(a: &Stat, b: &Stat) -> bool {
    (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)
}

fn open_below(dirs: &mut Dirs, path: &[u8]) -> io::Result<(File, Stat)> {
    let slash = path.iter().rposition(|byte| *byte == b'/');
    let (dir, name) = match slash {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[][..], path),
    };
    tree::open_file(dirs.at(dir)?, name)
}

fn open_single(source: &Path) -> io::Result<(File, Stat)> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(source, flags, Mode::empty())?);
    let stat = rustix::fs::fstat(&file)?;
    match tree::kind(&stat) {
        FileType::RegularFile => Ok((file, stat)),
        _ => Err(io::Error::other("not a regular file")),
    }
}

fn shown(source: &Path, path: &[u8]) -> String {
    match path {
        b"" => show(source.as_os_str().as_bytes()),
        path => show(source.join(OsStr::from_bytes(path)).as_os_str().as_bytes()),
    }
}

fn failed<'a>(
    doing: &'static str,
    source: &'a Path,
    path: &'a [u8],
) -> impl FnOnce(io::Error) -> IngestError + use<'a> {
    move |err| IngestError::Read { doing, path: shown(source, path), source: err }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::*;

    fn check(source: &Path, exclude: &[&str]) -> (Vec<String>, Ingested) {
        let dir = tempfile::tempdir().expect("temp");
        let store = Store::open(dir.path()).expect("store");
        let exclude: Vec<_> = exclude.iter().map(|text| (*text).to_owned()).collect();
        let exclude = Patterns::new(&exclude).expect("patterns");
        let mut last = None;
        let ingested = ingest(source, &exclude, &store, &mut |p| last = Some(p)).expect("reads");
        let manifest = &ingested.manifest;
        if let Some(last) = last {
            assert_eq!((last.files, last.bytes), (manifest.files(), manifest.bytes()));
            assert_eq!((last.total_files, last.total_bytes), (last.files, last.bytes));
        }
        for chunk in manifest.entries.iter().flat_map(Entry::chunks) {
            assert_eq!(store.size(&chunk.id).expect("has"), Some(chunk.len));
        }
        let paths = manifest.entries.iter().map(|entry| show(&entry.path)).collect();
        (paths, ingested)
    }

    #[test]
    fn a_tree_is_listed_sorted_and_without_what_is_excluded() {
        let temp = tempfile::tempdir().expect("temp");
        let root = temp.path();
        for dir in ["a", "a/b", ".git", "z"] {
            fs::create_dir(root.join(dir)).expect("dir");
        }
        for file in ["a.txt", "a/b/c", ".git/config", "z/.git"] {
            fs::write(root.join(file), file).expect("file");
        }
        std::os::unix::fs::symlink("/nowhere", root.join("link")).expect("link");
        let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).expect("socket");
        let (paths, ingested) = check(root, &[".git"]);
        assert_eq!(paths, ["", "a", "a.txt", "a/b", "a/b/c", "link", "z"]);
        assert_eq!(ingested.skipped, [root.join("socket")]);
        let (paths, _) = check(root, &["a/b/", ".git", "/*.txt", "link"]);
        assert_eq!(paths, ["", "a", "z"]);
        let (paths, _) = check(&root.join("a.txt"), &[]);
        assert_eq!(paths, [""]);
    }

    #[test]
    fn errors_name_the_path() {
        let temp = tempfile::tempdir().expect("temp");
        let store = Store::open(temp.path().join("store")).expect("store");
        let absent = temp.path().join("absent");
        let err =
            ingest(&absent, &Patterns::default(), &store, &mut |_| ()).expect_err("not there");
        let text = err.to_string();
        assert_eq!(text, format!("cannot open {}: entity not found", absent.display()));
        let socket = temp.path().join("socket");
        let _socket = std::os::unix::net::UnixListener::bind(&socket).expect("socket");
        let err =
            ingest(&socket, &Patterns::default(), &store, &mut |_| ()).expect_err("not a file");
        assert!(matches!(err, IngestError::Source { .. }), "{err}");
    }

    /// Reads one file; `disturb` is told the number of each try, in the middle of it.
    fn disturbed(disturb: impl Fn(usize, &Path)) -> Result<Vec<u8>, IngestError> {
        let temp = tempfile::tempdir().expect("temp");
        let store = Store::open(temp.path().join("store")).expect("store");
        let path = temp.path().join("file");
        fs::write(&path, "first").expect("file");
        let reader = Reader { source: &path, base: &Base::Single, store: Some(&store) };
        let tries = AtomicUsize::new(0);
        let open = || {
            let opened = open_single(&path)?;
            disturb(tries.fetch_add(1, Ordering::Relaxed), &path);
            Ok(opened)
        };
        let mut batch = Some(store.batch());
        let Content { chunks, .. } = reader.file(b"", open, &mut Cutter::new(), &mut batch)?;
        batch.expect("it is still there").commit()?;
        Ok(store.get(&chunks[0].id)?.expect("it was put"))
    }

    #[test]
    fn a_file_that_changes_is_read_again_and_then_refused() {
        let append = |path: &Path| {
            let mut file = fs::OpenOptions::new().append(true).open(path).expect("opens");
            file.write_all(b" more").expect("appends");
        };
        assert_eq!(disturbed(|_, _| ()).expect("quiet"), b"first");
        let once = disturbed(|n, path| {
            if n == 0 {
                append(path)
            }
        });
        assert_eq!(once.expect("the second try is quiet"), b"first more");
        let err = disturbed(|_, path| append(path)).expect_err("never quiet");
        assert!(err.to_string().ends_with("file changed while it was read"), "{err}");
        let same_size = disturbed(|_, path| fs::write(path, "other").expect("writes"));
        // The content read is whole, but mtime says that it may not have been.
        same_size.expect_err("rewritten with the same size");
    }

    #[test]
    fn who_only_looks_takes_a_file_that_grows_as_far_as_it_went() {
        let temp = tempfile::tempdir().expect("temp");
        let path = temp.path().join("file");
        let looked = |change: &dyn Fn(&mut fs::File)| {
            fs::write(&path, "first").expect("file");
            let reader = Reader { source: &path, base: &Base::Single, store: None };
            let open = || {
                let opened = open_single(&path)?;
                change(&mut fs::OpenOptions::new().append(true).open(&path)?);
                Ok(opened)
            };
            reader.file(b"", open, &mut Cutter::new(), &mut None)
        };
        let content = looked(&|file| file.write_all(b" more").expect("appends")).expect("it grew");
        let [chunk] = &content.chunks[..] else { panic!("{:?}", content.chunks) };
        assert_eq!((tree::size(&content.stat), chunk.id), (5, ContentId::of(b"first")));
        assert!(looked(&|file| file.set_len(3).expect("cuts")).is_err(), "it shrank");
        // What was looked at can be read piece by piece, and a link leads nowhere.
        let mut pieces = crate::Pieces::open(&path).expect("opens");
        assert_eq!(pieces.read(b"", 1, 3).as_deref(), None, "it is shorter");
        assert_eq!(pieces.read(b"", 1, 2).as_deref(), Some(&b"ir"[..]));
        std::os::unix::fs::symlink("file", temp.path().join("link")).expect("links");
        let mut pieces = crate::Pieces::open(temp.path()).expect("opens");
        assert_eq!(pieces.read(b"file", 0, 3).as_deref(), Some(&b"fir"[..]));
        for path in [&b"link"[..], b"absent", b"..", b"../file", b"/etc/passwd", b""] {
            assert_eq!(pieces.read(path, 0, 1), None, "{path:?}");
        }
    }
}
