//! Tests of what an operator may ask beyond the manifest: only content, nothing newer, keep what is
//! replaced.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::tests::{Bench, Provider};
use super::*;

fn put(bench: &Bench, rules: &Rules, target: &Manifest) -> Result<Applied, ApplyError> {
    let job = Job { tag: "t1", dest: b"/d", target, rules, before: None };
    Installer::new(bench.at("root")).apply(&job, &bench.store, &mut Provider::default())
}

#[test]
fn where_only_content_counts_the_rest_is_left_as_it_is() {
    let bench = Bench::new();
    let target = bench.source(&[("a", b"same"), ("b", b"new"), ("d/", b"")]);
    bench.fill("root/d", &[("a", b"same"), ("b", b"old"), ("d/", b"")]);
    for name in ["a", "d", ""] {
        let odd = fs::Permissions::from_mode(0o711);
        fs::set_permissions(bench.at("root/d").join(name), odd).expect("mode");
    }
    let rules = Rules { content_only: true, ..Rules::default() };
    let applied = put(&bench, &rules, &target).expect("applies");
    assert_eq!((applied.written, applied.metadata_fixed, applied.unchanged), (1, 0, 3));
    let mode = |name: &str| fs::metadata(bench.at("root/d").join(name)).expect("stat").mode();
    assert_eq!(["a", "d", ""].map(|name| mode(name) & 0o777), [0o711; 3]);
    assert_eq!(fs::read(bench.at("root/d/b")).expect("reads"), b"new");
    let again = put(&bench, &rules, &target).expect("applies");
    assert_eq!((again.written, again.metadata_fixed), (0, 0));
}

#[test]
fn what_is_newer_stays_if_that_is_asked_and_is_named() {
    let bench = Bench::new();
    let target = bench.source(&[("newer", b"1"), ("older", b"1"), ("same", b"1")]);
    bench.fill("root/d", &[("newer", b"2"), ("older", b"2"), ("same", b"1")]);
    let at = |name: &str| bench.at("root/d").join(name);
    let set = |name: &str, ahead: i64| {
        let file = fs::File::options().append(true).open(at(name)).expect("opens");
        let now = target.entries[1].mtime.0 + ahead;
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(now.unsigned_abs());
        file.set_modified(time).expect("time");
    };
    [("newer", 100), ("older", -100), ("same", 100)].iter().for_each(|(name, s)| set(name, *s));
    let rules = Rules { keep_newer: true, ..Rules::default() };
    let applied = put(&bench, &rules, &target).expect("applies");
    assert_eq!(
        (applied.newer.count, applied.newer.paths.as_slice()),
        (1, &["/d/newer".into()][..])
    );
    assert_eq!(fs::read(at("newer")).expect("reads"), b"2");
    assert_eq!(fs::read(at("older")).expect("reads"), b"1");
    let applied = put(&bench, &Rules::default(), &target).expect("applies");
    assert_eq!((applied.newer.count, fs::read(at("newer")).expect("reads")), (0, b"1".to_vec()));
}

#[test]
fn what_is_replaced_is_kept_once_and_not_deleted() {
    let bench = Bench::new();
    let rules = Rules { save: b".OLD".to_vec(), delete: Delete::All, ..Rules::default() };
    let listing = || {
        let mut names: Vec<_> = fs::read_dir(bench.at("root/d"))
            .expect("lists")
            .map(|entry| entry.expect("entry").file_name().into_string().expect("plain"))
            .collect();
        names.sort();
        names
    };
    let text = |name: &str| fs::read_to_string(bench.at("root/d").join(name)).expect("reads");
    for n in 1..=3 {
        let target = bench.source(&[("a", n.to_string().as_bytes()), ("same", b"x")]);
        let _ = fs::remove_file(bench.at("source/l"));
        symlink(n.to_string(), bench.at("source/l")).expect("link");
        let source = bench.at("source");
        let read = crate::ingest(&source, &crate::Patterns::default(), &bench.store, &mut |_| ());
        drop(target);
        put(&bench, &rules, &read.expect("reads").manifest).expect("applies");
    }
    assert_eq!(listing(), ["a", "a.OLD", "l", "l.OLD", "same"]);
    assert_eq!((text("a"), text("a.OLD")), ("3".into(), "2".into()));
    let old = fs::read_link(bench.at("root/d/l.OLD")).expect("link");
    assert_eq!(old, std::path::Path::new("2"));

    let long = "n".repeat(253);
    let target = bench.source(&[(long.as_str(), b"1")]);
    put(&bench, &rules, &target).expect("nothing is replaced yet");
    let target = bench.source(&[(long.as_str(), b"2")]);
    let before = bench.listing();
    let error = put(&bench, &rules, &target).expect_err("there is no such name");
    assert!(error.to_string().starts_with("cannot keep the old /d/nnn"), "{error}");
    assert_eq!(bench.listing(), before);
}
