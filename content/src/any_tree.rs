//! Any tree: what tests push from one disk to another, and all of it that must be the same there.
//!
//! Folders, files, links and hard links; names that are not UTF-8; holes, times, modes, owners,
//! attributes, access lists and capabilities. Names and contents are few, so that trees have much
//! in common.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use rustix::fs::{
    AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT, XattrFlags, fgetxattr, fsetxattr, utimensat,
};

use crate::show::show;

/// A folder, and which of its files get another name, in which of its folders.
pub(crate) type Tree = (Node, Vec<(usize, usize)>);

/// What a tree is made of.
#[derive(Debug, Clone)]
pub(crate) enum Node {
    Dir { entries: BTreeMap<Vec<u8>, Node>, mode: u32, time: (i64, u32), dress: Dress },
    File { body: Body, mode: u32, time: (i64, u32), dress: Dress, holes: bool },
    Link { to: Vec<u8>, time: (i64, u32) },
}

/// What is in a file.
#[derive(Debug, Clone)]
pub(crate) struct Body {
    seed: u8,
    len: usize,
    text: bool,
    /// What stands in its middle besides: it is a new version of the same without.
    edit: Option<u8>,
}

/// What a node has besides its mode and time. Not every file system keeps all of it, and only
/// root gives some of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dress {
    /// An attribute of a user.
    user: Option<u8>,
    /// A list that lets another user read.
    access: Option<u32>,
    /// Of a folder: a list for what is made in it; of a file: a capability.
    special: bool,
    owner: Option<u32>,
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Names that trees share, of which one is not UTF-8 and one is hardly a name, and any others.
fn name() -> impl Strategy<Value = Vec<u8>> {
    let odd = vec(any::<u8>().prop_filter("in no name", |b| *b != 0 && *b != b'/'), 1..5);
    let odd = odd.prop_filter("special", |name| name != b"." && name != b"..");
    prop_oneof![
        3 => Just(b"a".to_vec()),
        3 => Just(b"b".to_vec()),
        3 => Just(b"\xff\xfe".to_vec()),
        3 => Just(b"-rf *\n".to_vec()),
        3 => Just("\u{e4}".as_bytes().to_vec()),
        2 => "[ab]{1,2}(\\.c)?".prop_map(String::into_bytes),
        3 => odd,
    ]
}

fn time() -> impl Strategy<Value = (i64, u32)> {
    let seconds = prop_oneof![
        Just(0),
        Just(-1_000_000),
        Just(1_700_000_000),
        0..2_000_000_000_i64,
        0..4_000_000_000_i64
    ];
    (seconds, 0..1_000_000_000_u32)
}

fn mode() -> impl Strategy<Value = u32> {
    // A user who is not root can neither read nor fill what the mode forbids.
    let floor = if is_root() { 0 } else { 0o700 };
    const USUAL: &[u32] = &[0o644, 0o755, 0o4755, 0o400, 0o2711, 0o1777];
    prop_oneof![2 => proptest::sample::select(USUAL), 1 => 0_u32..0o10000]
        .prop_map(move |mode| mode | floor)
}

fn dress() -> impl Strategy<Value = Dress> {
    let user = prop_oneof![3 => Just(None), 1 => (0..3_u8).prop_map(Some)];
    let access = prop_oneof![5 => Just(None), 1 => (1000..1003_u32).prop_map(Some)];
    let owner = prop_oneof![3 => Just(None), 1 => (54_321..54_324_u32).prop_map(Some)];
    (user, access, proptest::bool::weighted(0.15), owner)
        .prop_map(|(user, access, special, owner)| Dress { user, access, special, owner })
}

fn body() -> impl Strategy<Value = Body> {
    let len = prop_oneof![
        Just(0),
        1..50_usize,
        Just(70_000),
        Just(600_000),
        0..300_usize,
        0..200_000_usize
    ];
    (0..3_u8, len, any::<bool>()).prop_map(|(seed, len, text)| Body { seed, len, text, edit: None })
}

fn node() -> impl Strategy<Value = Node> {
    let file = (body(), mode(), time(), dress(), any::<bool>())
        .prop_map(|(body, mode, time, dress, holes)| Node::File { body, mode, time, dress, holes });
    let target =
        prop_oneof![Just(b"a".to_vec()), Just(b"/nowhere/\xff".to_vec()), vec(1_u8..255, 1..9)];
    let link = (target, time()).prop_map(|(to, time)| Node::Link { to, time });
    prop_oneof![4 => file, 1 => link].prop_recursive(3, 24, 4, |inner| dir(inner.boxed()))
}

fn dir(inner: BoxedStrategy<Node>) -> impl Strategy<Value = Node> {
    (btree_map(name(), inner, 0..4), mode(), time(), dress())
        .prop_map(|(entries, mode, time, dress)| Node::Dir { entries, mode, time, dress })
}

/// Any tree.
pub(crate) fn tree() -> impl Strategy<Value = Tree> {
    (dir(node().boxed()), vec((0..9_usize, 0..9_usize), 0..4))
}

/// The second, but files that are in both are new versions of what they were in the first.
pub(crate) fn evolve(first: &Tree, second: &Tree) -> Tree {
    fn step(first: &Node, second: &mut Node) {
        match (first, second) {
            (Node::Dir { entries: old, .. }, Node::Dir { entries: new, .. }) => {
                for (name, new) in new {
                    old.get(name).into_iter().for_each(|old| step(old, new));
                }
            }
            (Node::File { body: old, .. }, Node::File { body: new, .. }) => {
                *new = Body { edit: Some(new.seed), ..old.clone() };
            }
            _ => {}
        }
    }
    let mut evolved = second.clone();
    step(&first.0, &mut evolved.0);
    evolved
}

impl Body {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        blake3::Hasher::new().update(&[self.seed]).finalize_xof().fill(&mut bytes);
        if self.text {
            bytes.iter_mut().for_each(|byte| *byte = b'a' + *byte % 16);
        }
        if let Some(edit) = self.edit {
            let middle = bytes.len() / 2;
            bytes.splice(middle..middle, [b'A' + edit; 40]);
        }
        bytes
    }
}

/// An access control list as the kernel has it: owner, this user, group, mask, others.
pub(crate) fn access(user: u32, mode: u32) -> Vec<u8> {
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

/// To bind low ports, as the kernel has it in its second version.
fn capability() -> Vec<u8> {
    [0x0200_0001_u32, 1 << 10, 0, 0, 0].into_iter().flat_map(u32::to_le_bytes).collect()
}

/// An owner takes setuid and capabilities along, so it comes first, and lists come after the mode.
fn describe(path: &Path, mode: u32, dress: Dress) {
    let file = fs::File::open(path).expect("opens");
    // Not every file system that tests run on keeps them.
    let set = |name: &str, value: &[u8]| _ = fsetxattr(&file, name, value, XattrFlags::empty());
    if let Some(owner) = dress.owner.filter(|_| is_root()) {
        chown(path, Some(owner), Some(owner + 1)).expect("owner");
    }
    if let Some(user) = dress.user {
        set("user.test", &[user; 40]);
    }
    let is_dir = file.metadata().expect("stat").is_dir();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("mode");
    if let Some(user) = dress.access {
        set("system.posix_acl_access", &access(user, mode));
    }
    match (dress.special, is_dir) {
        (true, true) => set("system.posix_acl_default", &access(1_000, 0o750)),
        (true, false) => set("security.capability", &capability()),
        (false, _) => {}
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
        Node::File { body, mode, dress, holes, .. } => {
            let bytes = body.bytes();
            let file = fs::File::create(path).expect("file");
            file.write_all_at(&bytes, 0).expect("written");
            if *holes {
                file.set_len(bytes.len() as u64 + 900_000).expect("longer");
                file.write_all_at(b"end", bytes.len() as u64 + 500_000).expect("written");
            }
            describe(path, *mode, *dress);
            files.push(path.to_path_buf());
        }
        Node::Link { to, .. } => symlink(OsString::from_vec(to.clone()), path).expect("link"),
    }
}

fn set_times(path: &Path, node: &Node) {
    let (seconds, nanos) = match node {
        Node::Dir { entries, time, .. } => {
            for (name, node) in entries {
                set_times(&path.join(OsString::from_vec(name.clone())), node);
            }
            *time
        }
        Node::File { time, .. } | Node::Link { time, .. } => *time,
    };
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanos.into() },
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("times");
}

/// Makes the tree where there is nothing yet.
pub(crate) fn make_tree(path: &Path, (node, links): &Tree) {
    let (mut files, mut dirs) = (Vec::new(), Vec::new());
    make(path, node, &mut files, &mut dirs);
    for (n, (file, dir)) in links.iter().enumerate() {
        if !files.is_empty() {
            let link = dirs[dir % dirs.len()].join(format!("hard{n}"));
            fs::hard_link(&files[file % files.len()], link).expect("links");
        }
    }
    set_times(path, node);
}

/// Everything about a tree that a push keeps, by path.
pub(crate) fn listing(dir: &Path) -> BTreeMap<PathBuf, String> {
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
            for name in NAMES {
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

const NAMES: [&str; 4] =
    ["user.test", "system.posix_acl_access", "system.posix_acl_default", "security.capability"];
