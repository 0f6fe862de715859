//! Any tree becomes any other: byte and metadata are equal, and doing it twice changes nothing.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use proptest::prelude::*;
use rustix::fs::{XattrFlags, fsetxattr};

use super::tests::{Bench, Provider};
use super::*;
use crate::any_tree::{access, listing, make_tree, tree};
use crate::{Patterns, ingest};

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
