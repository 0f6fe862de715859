//! Objects that are not whole yet: what has arrived of them survives a restart.
//!
//! A partial object is its first groups in `partial/<hex>` and its outline in
//! `partial/<hex>.outline`. Nothing is synced and no index knows of it: when it is opened, the
//! outline must prove itself and each group is checked against it, so whatever a crash has torn is
//! cut off, and the transfer goes on from there. A whole one is synced and gets a second name among
//! the objects; it loses its first one when the index knows it, so that whoever dies in between has
//! it still.
//!
//! It deliberately does not guard against two writers of one object; the caller has one.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::batch::sync_dir;
use super::index::Place;
use super::{LARGE, MAX_OBJECT, Store, StoreError, disk, list, remove_file};
use crate::id::ContentId;
use crate::outline::{GROUP, Outline};

const OUTLINE: &str = ".outline";

/// The front of an object on disk.
pub struct Partial {
    outline: Arc<Outline>,
    file: Arc<File>,
    path: PathBuf,
    groups: usize,
}

impl Partial {
    /// The outline of the whole object.
    pub fn outline(&self) -> &Arc<Outline> {
        &self.outline
    }

    /// How many groups there are, from the first on.
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// The file, to read groups from; also after the object is whole.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Adds whole groups. They must have been checked. After an error there is no more than before.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let written = self.file.write_all_at(bytes, (self.groups * GROUP) as u64);
        written.map_err(disk("write", &self.path))?;
        self.groups += bytes.len().div_ceil(GROUP);
        Ok(())
    }

    /// Counts the groups that are what the outline says, and cuts off the rest.
    fn count(&mut self) -> Result<(), StoreError> {
        let mut group = vec![0; GROUP];
        while self.groups < self.outline.groups() {
            let group = &mut group[..self.outline.group_len(self.groups)];
            let read = self.file.read_exact_at(group, (self.groups * GROUP) as u64);
            if read.is_err() || !self.outline.check(self.groups, group) {
                break;
            }
            self.groups += 1;
        }
        let end = (self.groups * GROUP).min(self.outline.len());
        self.file.set_len(end as u64).map_err(disk("cut", &self.path))
    }
}

impl Store {
    /// Whether an object of this length is kept while it arrives. Smaller ones are not worth it.
    pub fn keeps_partial(len: usize) -> bool {
        len >= LARGE
    }

    /// What an earlier transfer has left of an object, if anything.
    pub fn find_partial(&self, id: &ContentId) -> Result<Option<Partial>, StoreError> {
        let (path, outline) = self.partial_paths(id);
        let (Ok(file), Ok(encoded)) =
            (OpenOptions::new().read(true).write(true).open(&path), fs::read(&outline))
        else {
            return Ok(None);
        };
        let (len, values) = match encoded.split_first_chunk() {
            Some((len, values)) => (u64::from_le_bytes(*len), values),
            None => (0, &[][..]),
        };
        let outline = Outline::decode(*id, len, values).ok();
        let Some(outline) = outline.filter(|outline| Store::keeps_partial(outline.len())) else {
            self.drop_partial(id)?;
            return Ok(None);
        };
        let (outline, file) = (Arc::new(outline), Arc::new(file));
        self.hold_open(*id, &file);
        let mut partial = Partial { outline, file, path, groups: 0 };
        partial.count()?;
        Ok(Some(partial))
    }

    /// Begins an object, in place of whatever there was of it.
    pub fn begin_partial(&self, outline: Arc<Outline>) -> Result<Partial, StoreError> {
        self.drop_partial(&outline.id())?;
        self.make_room(outline.len() as u64)?;
        let (path, beside) = self.partial_paths(&outline.id());
        let dir = path.parent().expect("a partial path has a parent");
        let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(disk("create", dir))?;
        let open = |path: &Path| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(true).mode(0o600);
            options.open(path).map_err(disk("create", path))
        };
        let file = Arc::new(open(&path)?);
        self.hold_open(outline.id(), &file);
        let encoded = [&(outline.len() as u64).to_le_bytes()[..], &outline.encode()].concat();
        open(&beside)?.write_all_at(&encoded, 0).map_err(disk("write", &beside))?;
        self.expect(outline.id(), outline.len() as u64);
        Ok(Partial { outline, file, path, groups: 0 })
    }

    /// Puts an object that is whole now among the others, durable on return.
    ///
    /// # Panics
    /// If it is not whole.
    pub fn adopt(&self, partial: &Partial) -> Result<(), StoreError> {
        assert_eq!(partial.groups, partial.outline.groups(), "only whole objects are adopted");
        let id = partial.outline.id();
        partial.file.sync_data().map_err(disk("sync", &partial.path))?;
        let writer = self.writer();
        if !self.has(&id)? {
            let path = self.object_path(&id);
            let dir = path.parent().expect("an object path has a parent");
            let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
            made.map_err(disk("create", dir))?;
            // Where there are no hard links, and in place of what a crash has left.
            let linked = fs::hard_link(&partial.path, &path).is_ok();
            if !linked {
                fs::rename(&partial.path, &path).map_err(disk("rename", &path))?;
            }
            for dir in [dir, &self.dir.join("objects")] {
                sync_dir(dir)?;
            }
            let len = u32::try_from(partial.outline.len()).expect("an object has at most 32 MiB");
            let place = [(id, Place::Large { len })];
            let added = self.index.add(&place, self.bounds().price, &|id| self.keeps(id));
            if added.is_err() && linked {
                // Nothing would count it there, and it has its first name still.
                fs::remove_file(&path).ok();
            }
            added?;
        }
        drop(writer);
        self.drop_partial(&id)
    }

    /// Drops what there is of an object that is not whole.
    pub fn drop_partial(&self, id: &ContentId) -> Result<(), StoreError> {
        let (path, outline) = self.partial_paths(id);
        self.expect_no_more(id);
        remove_file(&path)?;
        remove_file(&outline)
    }

    /// Counts what earlier transfers have left as what it is to become, and drops what has become
    /// that.
    pub(super) fn expect_partials(&self) -> Result<(), StoreError> {
        let dir = self.dir.join("partial");
        for (name, path) in if dir.exists() { list(&dir)? } else { Vec::new() } {
            let Some(Ok(id)) = name.strip_suffix(OUTLINE).map(str::parse) else { continue };
            if self.has(&id)? {
                self.drop_partial(&id)?;
                continue;
            }
            let mut len = [0; 8];
            let read = File::open(&path).and_then(|file| file.read_exact_at(&mut len, 0));
            if read.is_ok() {
                self.expect(id, u64::from_le_bytes(len).min(MAX_OBJECT as u64));
            }
        }
        Ok(())
    }

    /// Drops every partial object that `keep` says no to and nobody holds open, and what is none.
    pub(super) fn retain_partial(
        &self,
        keep: &dyn Fn(&ContentId) -> bool,
    ) -> Result<(), StoreError> {
        let dir = self.dir.join("partial");
        if !dir.exists() {
            return Ok(());
        }
        for (name, path) in list(&dir)? {
            let id = name.strip_suffix(OUTLINE).unwrap_or(&name).parse::<ContentId>();
            match id {
                Ok(id) if keep(&id) || self.is_held_open(&id) => {}
                Ok(id) => self.drop_partial(&id)?,
                Err(_) => remove_file(&path)?,
            }
        }
        Ok(())
    }

    fn partial_paths(&self, id: &ContentId) -> (PathBuf, PathBuf) {
        let path = self.dir.join("partial").join(id.to_string());
        let outline = path.with_extension(&OUTLINE[1..]);
        (path, outline)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::Owner;

    const LEN: usize = 5 * GROUP + 100;

    fn object() -> (Vec<u8>, Arc<Outline>) {
        let mut bytes = vec![0; LEN];
        blake3::Hasher::new().update(b"partial").finalize_xof().fill(&mut bytes);
        let outline = Arc::new(Outline::of(&bytes));
        (bytes, outline)
    }

    fn open(dir: &tempfile::TempDir) -> Store {
        Store::open(dir.path()).expect("the store opens")
    }

    #[test]
    fn what_somebody_holds_open_is_not_swept() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (store, (bytes, outline)) = (open(&dir), object());
        let mut partial = store.begin_partial(outline.clone()).expect("it begins");
        store.retain_partial(&|_| false).expect("it is swept");
        partial.append(&bytes).expect("it goes on");
        store.adopt(&partial).expect("it is whole");
        assert!(store.has(&outline.id()).expect("it is looked for"));
        drop(partial);
        let other = Arc::new(Outline::of(&bytes[..4 * GROUP + 1]));
        drop(store.begin_partial(other.clone()).expect("it begins"));
        store.retain_partial(&|_| false).expect("it is swept");
        assert!(store.find_partial(&other.id()).expect("it is looked for").is_none());
    }

    #[test]
    fn it_goes_on_after_a_restart_and_is_an_object_when_it_is_whole() {
        let dir = tempfile::tempdir().expect("temp");
        let (bytes, outline) = object();
        let store = open(&dir);
        assert!(store.find_partial(&outline.id()).expect("reads").is_none());
        let mut partial = store.begin_partial(outline.clone()).expect("begins");
        partial.append(&bytes[..2 * GROUP]).expect("appends");
        drop((partial, store));
        let store = open(&dir);
        let mut partial = store.find_partial(&outline.id()).expect("reads").expect("is there");
        assert_eq!((partial.groups(), partial.outline()), (2, &outline));
        partial.append(&bytes[2 * GROUP..]).expect("appends");
        assert!(!store.has(&outline.id()).expect("has"));
        store.adopt(&partial).expect("adopts");
        assert_eq!(store.get(&outline.id()).expect("reads").as_deref(), Some(&bytes[..]));
        assert!(store.find_partial(&outline.id()).expect("reads").is_none());
        store.adopt(&partial).expect("twice changes nothing");
        drop(store);
        assert_eq!(open(&dir).get(&outline.id()).expect("reads").as_deref(), Some(&bytes[..]));
    }

    /// Looks at the store of `dir` in the moment before the index is told of something.
    struct Before {
        dir: PathBuf,
        copy: PathBuf,
    }

    impl Owner for Before {
        fn needed(&self) -> Option<BTreeSet<ContentId>> {
            None
        }

        fn keeps(&self, _: &ContentId) -> bool {
            for name in ["partial", "objects"] {
                copy(&self.dir.join(name), &self.copy.join(name));
            }
            true
        }
    }

    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).expect("it can be made");
        for (name, path) in list(from).expect("it is listed") {
            match path.is_dir() {
                true => copy(&path, &to.join(name)),
                false => drop(fs::copy(&path, to.join(name)).expect("it is copied")),
            }
        }
    }

    #[test]
    fn who_dies_before_the_index_knows_what_is_whole_has_it_still() {
        let (dir, crashed) =
            (tempfile::tempdir().expect("temp"), tempfile::tempdir().expect("temp"));
        let ((bytes, outline), store) = (object(), open(&dir));
        let before = Before { dir: dir.path().into(), copy: crashed.path().into() };
        store.own(Box::new(before));
        let mut partial = store.begin_partial(outline.clone()).expect("begins");
        partial.append(&bytes).expect("appends");
        store.adopt(&partial).expect("adopts");
        let name = outline.id().to_string();
        assert!(crashed.path().join("objects").join(&name[..2]).join(&name).exists(), "too early");
        let store = open(&crashed);
        assert!(!store.has(&outline.id()).expect("has"), "too late");
        let partial = store.find_partial(&outline.id()).expect("reads").expect("it is there");
        assert_eq!(partial.groups(), outline.groups());
        store.adopt(&partial).expect("adopts");
        assert_eq!(store.get(&outline.id()).expect("reads").as_deref(), Some(&bytes[..]));
    }

    #[test]
    fn who_dies_after_the_index_knows_what_is_whole_has_it_once() {
        let dir = tempfile::tempdir().expect("temp");
        let ((bytes, outline), store) = (object(), open(&dir));
        store.put(outline.id(), &bytes).expect("puts");
        let mut partial = store.begin_partial(outline.clone()).expect("begins");
        partial.append(&bytes).expect("appends");
        drop((partial, store));
        let store = open(&dir);
        assert_eq!(list(&dir.path().join("partial")).expect("lists"), []);
        assert_eq!(store.get(&outline.id()).expect("reads").as_deref(), Some(&bytes[..]));
    }

    #[test]
    fn what_a_crash_has_torn_is_cut_off() {
        let (bytes, outline) = object();
        let check = |damage: &dyn Fn(&Path, &Path), expected: Option<usize>| {
            let dir = tempfile::tempdir().expect("temp");
            let store = open(&dir);
            let mut partial = store.begin_partial(outline.clone()).expect("begins");
            partial.append(&bytes).expect("appends");
            let (data, beside) = store.partial_paths(&outline.id());
            damage(&data, &beside);
            let found = store.find_partial(&outline.id()).expect("reads");
            assert_eq!(found.map(|partial| partial.groups()), expected);
            assert_eq!(data.exists(), expected.is_some());
        };
        let write = |path: &Path, bytes: &[u8]| fs::write(path, bytes).expect("writes");
        let mut flipped = bytes.clone();
        flipped[3 * GROUP] ^= 1;
        check(&|_, _| {}, Some(6));
        check(&|data, _| write(data, &flipped), Some(3));
        check(&|data, _| write(data, &bytes[..GROUP + 1]), Some(1));
        check(&|data, _| write(data, &[]), Some(0));
        check(&|data, _| write(data, &[&bytes[..], b"more"].concat()), Some(6));
        check(&|_, beside| write(beside, b"torn"), None);
        check(&|_, beside| write(beside, &[]), None);
    }

    #[test]
    fn what_nobody_needs_is_swept() {
        let dir = tempfile::tempdir().expect("temp");
        let (_, outline) = object();
        let store = open(&dir);
        store.begin_partial(outline.clone()).expect("begins");
        store.retain(&|id| *id == outline.id()).expect("sweeps");
        assert!(store.find_partial(&outline.id()).expect("reads").is_some());
        store.retain(&|_| false).expect("sweeps");
        assert!(store.find_partial(&outline.id()).expect("reads").is_none());
        assert_eq!(list(&dir.path().join("partial")).expect("lists"), []);
    }
}
