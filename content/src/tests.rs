//! The way of a tree: from one disk, through both kinds of parts, onto another disk.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use crate::*;

/// What a test puts at a path.
#[derive(Debug, Clone)]
enum Node {
    Dir,
    File(Vec<u8>),
    Link(Vec<u8>),
}

type Tree = BTreeMap<Vec<Vec<u8>>, (Node, u32, (i64, u32))>;

fn name() -> impl Strategy<Value = Vec<u8>> {
    let odd = vec(any::<u8>().prop_filter("in no name", |b| *b != 0 && *b != b'/'), 1..5);
    let odd = odd.prop_filter("special", |name| name != b"." && name != b"..");
    prop_oneof![2 => "[ab]{1,2}(\\.c)?".prop_map(String::into_bytes), 1 => odd]
}

fn node() -> impl Strategy<Value = Node> {
    let noise = (any::<u64>(), 0..200_000_usize).prop_map(|(seed, len)| {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
        Node::File(bytes)
    });
    prop_oneof![
        2 => Just(Node::Dir),
        2 => vec(any::<u8>(), 0..300).prop_map(Node::File),
        2 => noise,
        1 => vec(1_u8..255, 1..9).prop_map(Node::Link),
    ]
}

fn tree() -> impl Strategy<Value = Tree> {
    // A user who is not root can neither read nor fill what the mode forbids.
    let floor = if rustix::process::geteuid().is_root() { 0 } else { 0o700 };
    let mode = (0_u32..0o10000).prop_map(move |mode| mode | floor);
    let mtime = (0_i64..4_000_000_000, 0_u32..1_000_000_000);
    btree_map(vec(name(), 1..4), (node(), mode, mtime), 0..8)
}

/// Makes the tree, leaving out what would be below something that is not a directory.
fn make(root: &Path, tree: &Tree) {
    fs::create_dir(root).expect("root");
    let path_of = |names: &[Vec<u8>]| -> PathBuf {
        root.join(names.iter().map(|name| OsStr::from_bytes(name)).collect::<PathBuf>())
    };
    let mut made = Vec::new();
    for (names, (node, mode, mtime)) in tree {
        let path = path_of(names);
        if path.symlink_metadata().is_ok() {
            continue;
        }
        if fs::create_dir_all(path_of(&names[..names.len() - 1])).is_err() {
            continue;
        }
        let parent = path.parent().expect("parent");
        if !parent.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
            continue;
        }
        match node {
            Node::Dir => fs::create_dir(&path).expect("dir"),
            Node::File(bytes) => fs::write(&path, bytes).expect("file"),
            Node::Link(target) => symlink(OsStr::from_bytes(target), &path).expect("link"),
        }
        made.push((path, node, mode, mtime));
    }
    for (path, node, mode, (secs, nanos)) in made.iter().rev() {
        if !matches!(node, Node::Link(_)) {
            fs::set_permissions(path, fs::Permissions::from_mode(**mode)).expect("mode");
        }
        let time = Timespec { tv_sec: *secs, tv_nsec: (*nanos).into() };
        let times = Timestamps { last_access: time, last_modification: time };
        utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("times");
    }
}

/// Mode, owner, group, time, and content.
type Seen = (u32, u32, u32, (i64, i64), Vec<u8>);

/// Everything that must be equal, by relative path.
fn look(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut seen = BTreeMap::new();
    let mut pending = vec![root.to_path_buf()];
    while let Some(path) = pending.pop() {
        let meta = path.symlink_metadata().expect("stat");
        let content = if meta.is_dir() {
            let listed = fs::read_dir(&path).expect("lists");
            pending.extend(listed.map(|entry| entry.expect("entry").path()));
            Vec::new()
        } else if meta.is_symlink() {
            fs::read_link(&path).expect("link").as_os_str().as_bytes().to_vec()
        } else {
            fs::read(&path).expect("reads")
        };
        let relative = path.strip_prefix(root).expect("below").to_path_buf();
        let times = (meta.mtime(), meta.mtime_nsec());
        seen.insert(relative, (meta.mode(), meta.uid(), meta.gid(), times, content));
    }
    seen
}

/// Segments, decoded into the store of the receiver when chunks are asked for.
struct Parts<'a> {
    bundle: &'a Bundle,
    plan: Vec<ChunkRef>,
    from: &'a Store,
    to: &'a Store,
}

impl Chunks for Parts<'_> {
    fn provide(&mut self, wanted: &[ChunkRef]) -> Result<(), ApplyError> {
        assert!(!wanted.is_empty());
        let mut batch = self.to.batch();
        for part in &self.bundle.segments {
            let bytes = self.from.get(&part.id)?.expect("parts are in the store");
            Segment::decode::<PackError>(&bytes, &self.plan, &mut |chunk, bytes| {
                Ok(batch.put(chunk.id, bytes)?)
            })
            .expect("segments decode");
        }
        Ok(batch.commit()?)
    }
}

/// A delta, unpacked with what was installed at `/old/er/dest`.
struct Based<'a> {
    bundle: &'a Bundle,
    unpack: Unpack<'a>,
    from: &'a Store,
    /// Bytes in chunks that were fetched singly.
    fetched: u64,
}

impl Chunks for Based<'_> {
    fn provide(&mut self, wanted: &[ChunkRef]) -> Result<(), ApplyError> {
        let (to, from) = (self.unpack.store, self.from);
        let mut sender = Sender { from, to, fetched: &mut self.fetched };
        let besides = self.unpack.run(wanted, &mut sender)?;
        Ok(to.remove(&besides)?)
    }
}

struct Sender<'a> {
    from: &'a Store,
    to: &'a Store,
    fetched: &'a mut u64,
}

impl Origin for Sender<'_> {
    fn part(&mut self, part: &Part) -> Result<Vec<u8>, ApplyError> {
        Ok(self.from.get(&part.id)?.expect("parts are in the store"))
    }

    fn fetch(&mut self, chunks: &[ChunkRef]) -> Result<(), ApplyError> {
        let mut batch = self.to.batch();
        for chunk in chunks {
            let bytes = self.from.get(&chunk.id)?.expect("whatever is asked for is there");
            batch.put(chunk.id, &bytes)?;
            *self.fetched += u64::from(chunk.len);
        }
        Ok(batch.commit()?)
    }
}

/// Returns how many bytes travelled as single chunks.
fn send(base: Option<&Manifest>, source: &Path, installer: &Installer, stores: [&Store; 2]) -> u64 {
    let [from, to] = stores;
    let target = ingest(source, &Patterns::default(), from, &mut |_| ()).expect("ingests").manifest;
    let bundle = pack::encode(base, &target, from, 3).expect("encodes");
    let part = from.get(&bundle.manifest.id).expect("reads").expect("is there");
    let base_bytes = base.map(Manifest::encode);
    let limits = Limits::default();
    let decoded = pack::decode_manifest(&part, base_bytes.as_deref(), &limits).expect("decodes");
    assert_eq!((&decoded, decoded.root()), (&target, target.root()));

    let job = Job {
        tag: "t1",
        dest: b"/deep/er/dest",
        target: &decoded,
        rules: &Rules::default(),
        before: None,
    };
    let mut fetched = 0;
    let first = match base {
        None => {
            let plan = plan(None, &decoded);
            installer.apply(&job, to, &mut Parts { bundle: &bundle, plan, from, to })
        }
        Some(base) => {
            let installed = installer.installed(b"/old/er/dest", base).expect("opens");
            let deltas = &bundle.deltas;
            let unpack = Unpack { base, target: &decoded, deltas, installed, store: to };
            let mut based = Based { bundle: &bundle, unpack, from, fetched: 0 };
            let applied = installer.apply(&job, to, &mut based);
            assert!(based.bundle.segments.is_empty());
            fetched = based.fetched;
            applied
        }
    };
    let first = first.expect("applies");
    let entries = decoded.entries.len() as u64;
    assert_eq!(first.written + first.unchanged + first.metadata_fixed, entries);

    struct Never;
    impl Chunks for Never {
        fn provide(&mut self, _: &[ChunkRef]) -> Result<(), ApplyError> {
            panic!("everything is there");
        }
    }
    let again = installer.apply(&job, to, &mut Never).expect("applies");
    let expected =
        Applied { unchanged: entries, owner_skipped: again.owner_skipped, ..Applied::default() };
    assert_eq!(again, expected);
    fetched
}

/// Files that are in both trees become new versions of what they were in the first.
fn evolve(first: &Tree, second: &Tree) -> Tree {
    let mut evolved = second.clone();
    for (path, (node, ..)) in &mut evolved {
        let before = first.get(path).map(|(node, ..)| node);
        if let (Node::File(new), Some(Node::File(old))) = (node, before) {
            let (mut bytes, middle) = (old.clone(), old.len() / 2);
            bytes.splice(middle..middle, new.iter().copied().take(40));
            *new = bytes;
        }
    }
    evolved
}

/// Regular files below a directory, sorted.
fn files(root: &Path) -> Vec<PathBuf> {
    let is_file = |path: &PathBuf| root.join(path).symlink_metadata().is_ok_and(|m| m.is_file());
    look(root).into_keys().filter(is_file).map(|path| root.join(path)).collect()
}

/// Does something to a file that a push knows nothing of. Returns how long it was.
fn damage(path: &Path, how: u8) -> u64 {
    let Ok(mut bytes) = fs::read(path) else { return 0 };
    let length = bytes.len() as u64;
    match how % 4 {
        0 => fs::remove_file(path).expect("removes"),
        1 => fs::write(path, &bytes[..bytes.len() / 3]).expect("shortens"),
        2 => fs::write(path, [b"more".as_slice(), &bytes].concat()).expect("grows"),
        _ => {
            bytes.iter_mut().skip(7).take(1).for_each(|byte| *byte ^= 1);
            fs::write(path, bytes).expect("changes");
        }
    }
    length
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_tree_arrives_as_it_was(
        first in tree(),
        second in tree(),
        damages in vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
    ) {
        let temp = tempfile::tempdir().expect("temp");
        let at = |name: &str| temp.path().join(name);
        let stores = ["from", "to"].map(|name| Store::open(at(name)).expect("store"));
        let stores = [&stores[0], &stores[1]];
        fs::create_dir(at("root")).expect("root");
        let installer = Installer::new(at("root"));
        let dest = at("root/deep/er/dest");

        make(&at("first"), &first);
        send(None, &at("first"), &installer, stores);
        prop_assert_eq!(look(&at("first")), look(&dest));

        // The second goes to a fresh destination, as a difference to the first.
        let base = ingest(&at("first"), &Patterns::default(), stores[0], &mut |_| ());
        let base = base.expect("ingests").manifest;
        fs::rename(at("root/deep"), at("root/old")).expect("moves away");
        let old = at("root/old/er/dest");
        let found = files(&old);
        let mut lost = 0;
        for (pick, how) in damages.iter().filter(|_| !found.is_empty()) {
            lost += damage(pick.get::<PathBuf>(&found), *how);
        }
        make(&at("second"), &evolve(&first, &second));
        let fetched = send(Some(&base), &at("second"), &installer, stores);
        prop_assert_eq!(look(&at("second")), look(&dest));
        // A file may be the base of something in either kind of segment.
        prop_assert!(fetched <= 2 * lost, "{} fetched for {} lost", fetched, lost);
    }
}

#[test]
fn a_single_file_arrives_as_it_was() {
    let temp = tempfile::tempdir().expect("temp");
    let at = |name: &str| temp.path().join(name);
    let stores = ["from", "to"].map(|name| Store::open(at(name)).expect("store"));
    fs::create_dir(at("root")).expect("root");
    for content in [b"one".as_slice(), b"", &[7; 300_000]] {
        fs::write(at("file"), content).expect("writes");
        send(None, &at("file"), &Installer::new(at("root")), [&stores[0], &stores[1]]);
        assert_eq!(look(&at("file")), look(&at("root/deep/er/dest")));
    }
}

#[test]
fn a_missing_base_is_fetched_once_though_it_is_wanted_itself() {
    let temp = tempfile::tempdir().expect("temp");
    let at = |name: &str| temp.path().join(name);
    let stores = ["from", "to"].map(|name| Store::open(at(name)).expect("store"));
    let stores = [&stores[0], &stores[1]];
    for name in ["root", "source"] {
        fs::create_dir(at(name)).expect("makes");
    }
    let installer = Installer::new(at("root"));
    let mut program = vec![0; 30_000];
    blake3::Hasher::new().finalize_xof().fill(&mut program[10..]);
    fs::write(at("source/lib-1.so"), &program).expect("writes");
    send(None, &at("source"), &installer, stores);
    let base = ingest(&at("source"), &Patterns::default(), stores[0], &mut |_| ())
        .expect("ingests")
        .manifest;
    fs::rename(at("root/deep"), at("root/old")).expect("moves away");

    // The second library is made from the first, which is gone at the host.
    fs::remove_file(at("root/old/er/dest/lib-1.so")).expect("removes");
    program.splice(15_000..15_000, [7; 6_000]);
    fs::write(at("source/lib-2.so"), &program).expect("writes");
    stores[1].retain(&|_| false).expect("empties");
    assert_eq!(send(Some(&base), &at("source"), &installer, stores), 30_000);
    assert_eq!(look(&at("source")), look(&at("root/deep/er/dest")));
}
