//! Tests of releases: whole trees that are exchanged, and put back.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::tests::{Bench, Provider};
use super::*;

impl Bench {
    fn release(&self, tag: &str, target: &Manifest) -> Result<(Applied, Before), ApplyError> {
        let rules = Rules::default();
        let job = Job { tag, dest: b"/srv/app", target, rules: &rules, before: None };
        let mut none = Provider { fail: true, ..Provider::default() };
        Installer::new(self.at("root")).release(&job, &self.store, &mut none)
    }

    fn back(&self) -> Result<bool, ApplyError> {
        Installer::new(self.at("root")).roll_back(b"/srv/app")
    }

    fn text(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.at("root/srv").join(path)).ok()
    }

    fn beside(&self) -> Vec<String> {
        let listed = fs::read_dir(self.at("root/srv")).expect("lists");
        let names = listed.map(|entry| entry.expect("entry").file_name());
        let mut names: Vec<_> = names.map(|name| name.to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

#[test]
fn releases_take_turns_and_the_one_before_is_kept() {
    let bench = Bench::new();
    let [one, two, three] = ["1", "2", "3"].map(|text| {
        bench.source(&[("version", text.as_bytes()), ("same", b"same"), (text, b"own")])
    });
    assert_eq!(bench.release("t1", &one).expect("released").1, Before::Nothing);
    assert!(!bench.back().expect("asked"), "there is nothing before the first");
    let (applied, before) = bench.release("t2", &two).expect("released");
    assert_eq!((applied.written, before), (4, Before::Kept));
    assert_eq!(bench.text("app/version").as_deref(), Some("2"));
    assert!(bench.text("app/1").is_none(), "a release holds nothing of the one before");
    assert_eq!(bench.text(".app.barid-previous/version").as_deref(), Some("1"));
    let (applied, before) = bench.release("t3", &two).expect("released");
    assert_eq!((applied.written, applied.unchanged, before), (0, 4, Before::Same));
    bench.release("t4", &three).expect("released");
    assert_eq!(bench.text(".app.barid-previous/version").as_deref(), Some("2"));
    assert_eq!(bench.beside(), [".app.barid-previous", "app"]);

    let rules = Rules::default();
    let asked = |dest: &[u8]| {
        let job = Job { tag: "t5", dest, target: &one, rules: &rules, before: None };
        Installer::new(bench.at("root")).preflight_release(&job, &bench.store)
    };
    for dest in [&b"/srv/app"[..], b"/srv/other"] {
        assert_eq!(asked(dest).expect("asks"), Preflight::default());
    }
    asked(b"/srv/app/version").expect_err("it is a file");
    assert_eq!(bench.beside(), [".app.barid-previous", "app"], "nothing is changed");

    let inode = |path: &str| fs::metadata(bench.at("root/srv").join(path)).expect("stat").ino();
    let (new, old) = (inode("app"), inode(".app.barid-previous"));
    assert!(bench.back().expect("asked"));
    assert_eq!((inode("app"), inode(".app.barid-previous")), (old, new));
    assert_eq!(bench.text("app/version").as_deref(), Some("2"));
    assert!(bench.back().expect("asked"));
    assert_eq!(bench.text("app/version").as_deref(), Some("3"));
    let two_again = bench.release("t5", &two).expect("released");
    assert_eq!(two_again.1, Before::Kept);
    assert_eq!(bench.text("app/version").as_deref(), Some("2"));
}

#[test]
fn bytes_come_from_the_tree_in_place_and_a_release_that_cannot_be_built_changes_nothing() {
    let bench = Bench::new();
    let big: Vec<u8> = (0..600_000_u32).flat_map(u32::to_le_bytes).collect();
    let one = bench.source(&[("big", &big), ("version", b"1")]);
    bench.release("t1", &one).expect("released");
    let two = bench.source(&[("big", &big), ("version", b"2")]);
    let ids = |manifest: &Manifest| -> Vec<_> {
        manifest.entries.iter().flat_map(Entry::chunks).map(|chunk| chunk.id).collect()
    };
    bench.store.remove(&ids(&two)).expect("removed");
    let before = bench.listing();
    bench.release("t2", &two).expect_err("nobody has the new version");
    assert_eq!(bench.listing(), before);
    bench.store.put(crate::ContentId::of(b"2"), b"2").expect("put");
    let (applied, _) = bench.release("t2", &two).expect("released");
    assert_eq!(applied.written, 3);
    assert_eq!(fs::read(bench.at("root/srv/app/big")).expect("reads"), big);
}

#[test]
fn an_order_that_was_cut_off_is_finished_and_what_others_left_goes() {
    let bench = Bench::new();
    let [one, two, three] =
        ["1", "2", "3"].map(|text| bench.source(&[("version", text.as_bytes())]));
    bench.release("t1", &one).expect("released");
    bench.release("t2", &two).expect("released");
    let at = |name: &str| bench.at("root/srv").join(name);
    let (live, previous, old) = (at("app"), at(".app.barid-previous"), at(".app.barid-old"));
    let next = at(".app.barid-next-t3");

    // Cut off after the old one was put aside, before the exchange.
    fs::rename(&previous, &old).expect("renames");
    bench.fill("root/srv/.app.barid-next-t9", &[("half", b"built")]);
    bench.release("t3", &three).expect("released");
    assert_eq!(bench.text("app/version").as_deref(), Some("3"));
    assert_eq!(bench.text(".app.barid-previous/version").as_deref(), Some("2"));
    assert_eq!(bench.beside(), [".app.barid-previous", "app"]);

    // Cut off after the exchange: what was in place has the name of what was built.
    fs::rename(&previous, &next).expect("renames");
    let (_, before) = bench.release("t3", &three).expect("released");
    assert_eq!(before, Before::Kept);
    assert_eq!(bench.text(".app.barid-previous/version").as_deref(), Some("2"));
    assert!(live.exists() && !next.exists() && !old.exists());
}

#[test]
fn what_is_no_directory_and_what_has_mounts_is_not_exchanged() {
    let bench = Bench::new();
    let target = bench.source(&[("version", b"1")]);
    bench.fill("root/srv", &[("app", b"a file")]);
    let error = bench.release("t1", &target).expect_err("a file is in the way");
    assert!(error.to_string().contains("/srv/app is a file, but must become a directory"));
    let file = bench.at("source/version");
    let patterns = crate::Patterns::default();
    let read = crate::ingest(&file, &patterns, &bench.store, &mut |_| ()).expect("reads");
    let error = bench.release("t1", &read.manifest).expect_err("a file is no release");
    assert!(error.to_string().contains("only a directory"), "{error}");
    fs::remove_file(bench.at("root/srv/app")).expect("removes");
    bench.release("t1", &target).expect("released");
    bench.fill("root/srv/app", &[("data/", b"")]);
    bench.fill("mounted", &[("f", b"x")]);
    let point = bench.at("root/srv/app/data");
    let mut mount = std::process::Command::new("mount");
    mount.arg("--bind").arg(bench.at("mounted")).arg(&point);
    if !mount.stderr(std::process::Stdio::null()).status().is_ok_and(|status| status.success()) {
        println!("skipped: nothing can be mounted here");
        return;
    }
    let other = bench.source(&[("version", b"2")]);
    let refused = bench.release("t2", &other);
    assert!(std::process::Command::new("umount").arg(&point).status().expect("runs").success());
    let text = refused.expect_err("the mount would move").to_string();
    assert!(text.contains("data is a mount point"), "{text}");
    assert_eq!(bench.text("app/version").as_deref(), Some("1"));
}
