//! Any tree becomes any other: byte and metadata are equal, and doing it twice changes nothing.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rustix::fs::{
    AtFlags, Timespec, Timestamps, UTIME_OMIT, XattrFlags, fgetxattr, fsetxattr, utimensat,
};

use super::tests::{Bench, Provider};
use super::*;
use crate::show::show;
use crate::{Patterns, ingest};

/// What a tree is made of.
#[derive(Debug, Clone)]
enum Node {
    Dir { entries: BTreeMap<Vec<u8>, Node>, mode: u32, time: i64, dress: Dress },
    File { seed: u8, len: usize, mode: u32, time: (i64, u32), dress: Dress, holes: bool },
    Link { to: Vec<u8>, time: i64 },
}

/// Attributes: of a user, and a list that lets another user read.
#[derive(Debug, Clone, Copy)]
struct Dress {
    user: Option<u8>,
    access: Option<u32>,
}

/// A tree, and which of its files get another name, in which of its folders.
type Tree = (Node, Vec<(usize, usize)>);

/// Few names, so that trees have much in common; one is not UTF-8, one is hardly a name.
fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(b"a".to_vec()),
        Just(b"b".to_vec()),
        Just(b"\xff\xfe".to_vec()),
        Just(b"-rf *\n".to_vec()),
        Just("\u{e4}".as_bytes().to_vec()),
    ]
}

fn time() -> impl Strategy<Value = i64> {
    prop_oneof![Just(0), Just(-1_000_000), Just(1_700_000_000), 0..2_000_000_000_i64]
}

fn dress() -> impl Strategy<Value = Dress> {
    let user = prop_oneof![3 => Just(None), 1 => (0..3_u8).prop_map(Some)];
    let access = prop_oneof![5 => Just(None), 1 => (1000..1003_u32).prop_map(Some)];
    (user, access).prop_map(|(user, access)| Dress { user, access })
}

fn node() -> impl Strategy<Value = Node> {
    let len = prop_oneof![Just(0), 1..50_usize, Just(70_000), Just(600_000)];
    let mode = prop_oneof![Just(0o644), Just(0o755), Just(0o4755), Just(0o400), Just(0o2711)];
    let time = || (time(), 0..1_000_000_000_u32);
    let file = (0..3_u8, len, mode, time(), dress(), any::<bool>()).prop_map(
        |(seed, len, mode, time, dress, holes)| Node::File { seed, len, mode, time, dress, holes },
    );
    let target = prop_oneof![Just(b"a".to_vec()), Just(b"/nowhere/\xff".to_vec())];
    let link = (target, time()).prop_map(|(to, (time, _))| Node::Link { to, time });
    prop_oneof![4 => file, 1 => link].prop_recursive(3, 24, 4, |inner| dir(inner.boxed()))
}

fn dir(inner: BoxedStrategy<Node>) -> impl Strategy<Value = Node> {
    let mode = prop_oneof![Just(0o755), Just(0o700), Just(0o1777)];
    let entries = proptest::collection::btree_map(name(), inner, 0..4);
    (entries, mode, time(), dress()).prop_map(|(entries, mode, time, dress)| Node::Dir {
        entries,
        mode,
        time,
        dress,
    })
}

fn tree() -> impl Strategy<Value = Tree> {
    (dir(node().boxed()), proptest::collection::vec((0..9_usize, 0..9_usize), 0..4))
}

/// An access control list as the kernel has it: owner, this user, group, mask, others.
fn access(user: u32, mode: u32) -> Vec<u8> {
    let bits = |shift: u32| (mode >> shift & 7) as u16;
    let none = u32::MAX;
    let rows = [(1, bits(6), none), (2, 4, user), (4, 4, none), (0x10, bits(3), none)];
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, bits, id) in rows.into_iter().chain([(0x20, bits(0), none)]) {
        list.extend_from_slice(&u16::to_le_bytes(tag));
        list.extend_from_slice(&bits.to_le_bytes());
        list.extend_from_slice(&id.to_le_bytes());
    }
    list
}

fn describe(path: &Path, mode: u32, dress: Dress) {
    let file = fs::File::open(path).expect("opens");
    if let Some(user) = dress.user {
        // Not every file system that tests run on keeps them.
        let _ = fsetxattr(&file, "user.test", &[user; 40], XattrFlags::empty());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("mode");
    if let Some(user) = dress.access {
        let list = access(user, mode);
        let _ = fsetxattr(&file, "system.posix_acl_access", &list, XattrFlags::empty());
    }
}

/// Makes all but the times, and notes the paths of files and folders.
fn make(path: &Path, node: &Node, files: &mut Vec<PathBuf>, dirs: &mut Vec<PathBuf>) {
    match node {
        Node::Dir { entries, mode, dress, .. } => {
            fs::create_dir(path).expect("dir");
            dirs.push(path.to_path_buf());
            for (name, node) in entries {
                make(&path.join(OsString::from_vec(name.clone())), node, files, dirs);
            }
            describe(path, *mode, *dress);
        }
        Node::File { seed, len, mode, dress, holes, .. } => {
            let mut bytes = vec![0; *len];
            blake3::Hasher::new().update(&[*seed]).finalize_xof().fill(&mut bytes);
            let file = fs::File::create(path).expect("file");
            file.write_all_at(&bytes, 0).expect("written");
            if *holes {
                file.set_len(*len as u64 + 900_000).expect("longer");
                file.write_all_at(b"end", *len as u64 + 500_000).expect("written");
            }
            describe(path, *mode, *dress);
            files.push(path.to_path_buf());
        }
        Node::Link { to, .. } => {
            symlink(OsString::from_vec(to.clone()), path).expect("link");
        }
    }
}

fn set_times(path: &Path, node: &Node) {
    let (seconds, nanos) = match node {
        Node::Dir { entries, time, .. } => {
            for (name, node) in entries {
                set_times(&path.join(OsString::from_vec(name.clone())), node);
            }
            (*time, 0)
        }
        Node::File { time, .. } => *time,
        Node::Link { time, .. } => (*time, 0),
    };
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanos.into() },
    };
    utimensat(rustix::fs::CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("times");
}

fn make_tree(path: &Path, (node, links): &Tree) {
    let (mut files, mut dirs) = (Vec::new(), Vec::new());
    make(path, node, &mut files, &mut dirs);
    for (n, (file, dir)) in links.iter().enumerate() {
        if !files.is_empty() {
            let link = dirs[dir % dirs.len()].join(format!("h{n}"));
            fs::hard_link(&files[file % files.len()], link).expect("links");
        }
    }
    set_times(path, node);
}

/// Everything about a tree that a push keeps.
fn listing(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut first: BTreeMap<u64, PathBuf> = BTreeMap::new();
    let mut pending = vec![dir.to_path_buf()];
    let mut paths = Vec::new();
    while let Some(path) = pending.pop() {
        if path.symlink_metadata().expect("stat").is_dir() {
            pending.extend(fs::read_dir(&path).expect("lists").map(|e| e.expect("entry").path()));
        }
        paths.push(path);
    }
    paths.sort();
    for path in paths {
        let meta = path.symlink_metadata().expect("stat");
        let below = path.strip_prefix(dir).expect("below").to_path_buf();
        let (owner, time) = ((meta.uid(), meta.gid()), (meta.mtime(), meta.mtime_nsec()));
        let mut line = format!("{:o} {owner:?} {time:?} ", meta.mode());
        if meta.is_symlink() {
            line.push_str(&show(fs::read_link(&path).expect("link").as_os_str().as_bytes()));
        } else {
            let file = fs::File::open(&path).expect("opens");
            for name in ["user.test", "system.posix_acl_access", "system.posix_acl_default"] {
                let mut value = [0; 256];
                let has = fgetxattr(&file, name, value.as_mut_slice());
                line.push_str(&format!("{:?} ", has.map(|len| value[..len].to_vec())));
            }
        }
        if meta.is_file() {
            let bytes = fs::read(&path).expect("reads");
            let same = first.entry(meta.ino()).or_insert_with(|| below.clone());
            line.push_str(&format!("{same:?} {} ", meta.nlink()));
            line.push_str(&format!("{} {}", bytes.len(), crate::ContentId::of(&bytes)));
        }
        found.insert(below, line);
    }
    found
}

fn put(bench: &Bench, source: &Path) -> Result<Applied, ApplyError> {
    let read = ingest(source, &Patterns::default(), &bench.store, &mut |_| ()).expect("reads");
    let rules =
        Rules { delete: Delete::All, max_delete: MaxDelete::Percent(100), ..Rules::default() };
    let target = &read.manifest;
    let bytes = target.encode();
    assert_eq!(&Manifest::decode(&bytes, &Limits::default()).expect("decodes"), target);
    let job = Job { tag: "t1", dest: b"/d", target, rules: &rules, before: None };
    Installer::new(bench.at("root")).apply(&job, &bench.store, &mut Provider::default())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_becomes_any_other(trees in proptest::collection::vec(tree(), 2..4)) {
        let bench = Bench::new();
        for (n, tree) in trees.iter().enumerate() {
            let source = bench.at(&format!("tree{n}"));
            make_tree(&source, tree);
            put(&bench, &source).expect("applies");
            prop_assert_eq!(listing(&bench.at("root/d")), listing(&source));
            let again = put(&bench, &source).expect("applies");
            let changes = (again.written, again.metadata_fixed, again.deleted);
            prop_assert_eq!(changes, (0, 0, 0));
        }
    }
}

#[test]
fn holes_stay_holes_and_count_as_such_for_room() {
    let bench = Bench::new();
    fs::create_dir(bench.at("source")).expect("dir");
    let file = fs::File::create(bench.at("source/image")).expect("file");
    // Nearly all of it is a hole.
    file.set_len(256 << 20).expect("long");
    file.write_all_at(b"begin", 0).expect("written");
    file.write_all_at(b"end", (256 << 20) - 3).expect("written");
    let blocks = |path: &str| fs::metadata(bench.at(path)).expect("stat").blocks();
    if blocks("source/image") > 1_000 {
        println!("skipped: no holes here");
        return;
    }
    drop(file);
    put(&bench, &bench.at("source")).expect("applies");
    let installed = fs::metadata(bench.at("root/d/image")).expect("stat");
    assert_eq!(installed.len(), 256 << 20);
    assert!(installed.blocks() <= 64, "{}", installed.blocks());
    let mut end = [0; 3];
    let file = fs::File::open(bench.at("root/d/image")).expect("opens");
    file.read_exact_at(&mut end, (256 << 20) - 3).expect("reads");
    assert_eq!(&end, b"end");
}

#[test]
fn inherited_lists_do_not_stay_and_a_broken_pair_is_joined_again() {
    let bench = Bench::new();
    let target = bench.source(&[("a", b"x"), ("b", b"y")]);
    fs::hard_link(bench.at("source/a"), bench.at("source/c")).expect("link");
    fs::create_dir_all(bench.at("root/d")).expect("dir");
    let dir = fs::File::open(bench.at("root/d")).expect("opens");
    let list = access(1000, 0o755);
    if fsetxattr(&dir, "system.posix_acl_default", &list, XattrFlags::empty()).is_err() {
        println!("skipped: no lists here");
        return;
    }
    drop(target);
    put(&bench, &bench.at("source")).expect("applies");
    let expected = listing(&bench.at("source"));
    assert_eq!(listing(&bench.at("root/d")), expected);
    // The same bytes under another inode are not the same file.
    fs::copy(bench.at("root/d/c"), bench.at("root/d/c2")).expect("copies");
    fs::rename(bench.at("root/d/c2"), bench.at("root/d/c")).expect("renames");
    assert_eq!(put(&bench, &bench.at("source")).expect("applies").written, 2);
    assert_eq!(listing(&bench.at("root/d")), expected);
    // Nor is a name too many right.
    fs::hard_link(bench.at("root/d/a"), bench.at("root/elsewhere")).expect("link");
    assert_eq!(put(&bench, &bench.at("source")).expect("applies").written, 2);
    assert_eq!(listing(&bench.at("root/d")), expected);
}
