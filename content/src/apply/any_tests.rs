//! Any tree becomes any other: byte and metadata are equal, and doing it twice changes nothing.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rustix::fs::{AtFlags, Timespec, Timestamps, UTIME_OMIT, utimensat};

use super::tests::{Bench, Provider};
use super::*;
use crate::show::show;
use crate::{Patterns, ingest};

/// What a tree is made of.
#[derive(Debug, Clone)]
enum Node {
    Dir(BTreeMap<Vec<u8>, Node>, u32, i64),
    File { seed: u8, len: usize, mode: u32, time: i64, nanos: u32 },
    Link(Vec<u8>, i64),
}

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

fn node() -> impl Strategy<Value = Node> {
    let len = prop_oneof![Just(0), 1..50_usize, Just(70_000), Just(600_000)];
    let mode = prop_oneof![Just(0o644), Just(0o755), Just(0o4755), Just(0o400), Just(0o2711)];
    let file = (0..3_u8, len, mode, time(), 0..1_000_000_000_u32)
        .prop_map(|(seed, len, mode, time, nanos)| Node::File { seed, len, mode, time, nanos });
    let target = prop_oneof![Just(b"a".to_vec()), Just(b"/nowhere/\xff".to_vec())];
    let leaf =
        prop_oneof![4 => file, 1 => (target, time()).prop_map(|(to, at)| Node::Link(to, at))];
    leaf.prop_recursive(3, 24, 4, |inner| dir(inner.boxed()))
}

fn dir(inner: BoxedStrategy<Node>) -> impl Strategy<Value = Node> {
    let mode = prop_oneof![Just(0o755), Just(0o700), Just(0o1777)];
    let entries = proptest::collection::btree_map(name(), inner, 0..4);
    (entries, mode, time()).prop_map(|(entries, mode, time)| Node::Dir(entries, mode, time))
}

fn tree() -> impl Strategy<Value = Node> {
    dir(node().boxed())
}

fn make(path: &Path, node: &Node) {
    let (seconds, nanos) = match node {
        Node::Dir(entries, mode, time) => {
            fs::create_dir(path).expect("dir");
            for (name, node) in entries {
                make(&path.join(OsString::from_vec(name.clone())), node);
            }
            fs::set_permissions(path, fs::Permissions::from_mode(*mode)).expect("mode");
            (*time, 0)
        }
        Node::File { seed, len, mode, time, nanos } => {
            let mut bytes = vec![0; *len];
            blake3::Hasher::new().update(&[*seed]).finalize_xof().fill(&mut bytes);
            fs::write(path, bytes).expect("file");
            fs::set_permissions(path, fs::Permissions::from_mode(*mode)).expect("mode");
            (*time, *nanos)
        }
        Node::Link(to, time) => {
            symlink(OsString::from_vec(to.clone()), path).expect("link");
            (*time, 0)
        }
    };
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanos.into() },
    };
    utimensat(rustix::fs::CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("times");
}

/// Everything about a tree that a push keeps.
fn listing(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut pending = vec![dir.to_path_buf()];
    while let Some(path) = pending.pop() {
        let meta = path.symlink_metadata().expect("stat");
        let mut line = format!(
            "{:o} {}:{} {}.{} ",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.mtime(),
            meta.mtime_nsec()
        );
        if meta.is_dir() {
            pending.extend(fs::read_dir(&path).expect("lists").map(|e| e.expect("entry").path()));
        } else if meta.is_symlink() {
            line.push_str(&show(fs::read_link(&path).expect("link").as_os_str().as_bytes()));
        } else {
            let bytes = fs::read(&path).expect("reads");
            line.push_str(&format!("{} {}", bytes.len(), crate::ContentId::of(&bytes)));
        }
        found.insert(path.strip_prefix(dir).expect("below").to_path_buf(), line);
    }
    found
}

fn put(bench: &Bench, source: &Path) -> Result<Applied, ApplyError> {
    let read = ingest(source, &Patterns::default(), &bench.store, &mut |_| ()).expect("reads");
    let rules =
        Rules { delete: Delete::All, max_delete: MaxDelete::Percent(100), ..Rules::default() };
    let target = &read.manifest;
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
            make(&source, tree);
            put(&bench, &source).expect("applies");
            prop_assert_eq!(listing(&bench.at("root/d")), listing(&source));
            let again = put(&bench, &source).expect("applies");
            let changes = (again.written, again.metadata_fixed, again.deleted);
            prop_assert_eq!(changes, (0, 0, 0));
        }
    }
}
