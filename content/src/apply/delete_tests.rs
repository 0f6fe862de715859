//! Tests of what is deleted, and of what never is.

use std::fs;
use std::os::unix::fs::symlink;

use super::tests::Bench;
use super::*;
use crate::{Kind, Patterns, ingest};

fn rules(delete: Delete, exclude: &[&str], max_delete: MaxDelete) -> Rules {
    let exclude: Vec<_> = exclude.iter().map(|text| (*text).to_owned()).collect();
    let exclude = Patterns::new(&exclude).expect("patterns");
    Rules { exclude, delete, max_delete, ..Rules::default() }
}

fn all(exclude: &[&str]) -> Rules {
    rules(Delete::All, exclude, MaxDelete::Usual)
}

impl Bench {
    fn apply_by(
        &self,
        rules: &Rules,
        before: Option<&Manifest>,
        target: &Manifest,
    ) -> Result<Applied, ApplyError> {
        let job = Job { tag: "t1", dest: b"/d", target, rules, before };
        let mut none = super::tests::Provider::default();
        Installer::new(self.at("root")).apply(&job, &self.store, &mut none)
    }

    fn has(&self, path: &str) -> bool {
        self.at("root/d").join(path).symlink_metadata().is_ok()
    }
}

#[test]
fn what_the_manifest_does_not_name_goes_and_what_is_excluded_stays() {
    let bench = Bench::new();
    let target = bench.source(&[("a", b"new"), ("s/b", b"new")]);
    bench.fill("root/d", &[("old", b"x"), ("s/old/deep/f", b"x"), ("s/log/l", b"x"), ("e/", b"")]);
    symlink("/etc/passwd", bench.at("root/d/s/old/link")).expect("link");
    let _socket = std::os::unix::net::UnixListener::bind(bench.at("root/d/sock")).expect("socket");
    bench.fill("root", &[("outside/f", b"x")]);
    symlink("../outside", bench.at("root/d/out")).expect("link");

    let applied = bench.apply_by(&Rules::default(), None, &target).expect("applies");
    assert_eq!((applied.written, applied.deleted, bench.has("old")), (2, 0, true));
    let applied = bench.apply_by(&all(&["log/"]), None, &target).expect("applies");
    // old, s/old with three in it, e, sock and out.
    assert_eq!((applied.written, applied.deleted), (0, 8));
    for gone in ["old", "s/old", "e", "sock", "out"] {
        assert!(!bench.has(gone), "{gone}");
    }
    assert!(bench.has("s/log/l") && bench.at("root/outside/f").exists());
    let again = bench.apply_by(&all(&["log/"]), None, &target).expect("applies");
    assert_eq!((again.written, again.metadata_fixed, again.deleted), (0, 0, 0));
}

#[test]
fn more_than_is_allowed_is_refused_before_anything_changes() {
    let bench = Bench::new();
    let target = bench.source(&[("a", b"new")]);
    for n in 0..120 {
        bench.fill("root/d", &[(format!("old{n}").as_str(), b"x")]);
    }
    let before = bench.listing();
    let error = bench.apply_by(&all(&[]), None, &target).expect_err("too many");
    let text = error.to_string();
    assert!(text.starts_with("120 entries below /d would be deleted, and 100 may be;"), "{text}");
    assert!(!error.partial());
    for few in [MaxDelete::Entries(119), MaxDelete::Percent(50)] {
        let rules = rules(Delete::All, &[], few);
        bench.apply_by(&rules, None, &target).expect_err("too many");
    }
    assert_eq!(bench.listing(), before);
    let enough = rules(Delete::All, &[], MaxDelete::Entries(120));
    assert_eq!(bench.apply_by(&enough, None, &target).expect("applies").deleted, 120);
}

#[test]
fn of_what_was_installed_only_what_is_unchanged_goes() {
    let bench = Bench::new();
    let before = bench.source(&[
        ("keep", b"1"),
        ("same", b"1"),
        ("changed", b"1"),
        ("dir/same", b"1"),
        ("mixed/same", b"1"),
    ]);
    bench.apply("/d", &before).expect("applies");
    bench.fill("root/d", &[("changed", b"2"), ("mixed/own", b"x"), ("own/f", b"x")]);
    let target = bench.source(&[("keep", b"1")]);
    let installed = rules(Delete::Installed, &[], MaxDelete::Usual);
    let applied = bench.apply_by(&installed, None, &target).expect("applies");
    assert_eq!(applied.deleted, 0, "nobody knows what was installed");
    let applied = bench.apply_by(&installed, Some(&before), &target).expect("applies");
    assert_eq!((applied.deleted, applied.kept.count), (4, 1));
    assert_eq!(applied.kept.paths, ["/d/changed"]);
    for (path, stays) in [
        ("same", false),
        ("dir", false),
        ("mixed/same", false),
        ("mixed/own", true),
        ("own/f", true),
        ("changed", true),
    ] {
        assert_eq!(bench.has(path), stays, "{path}");
    }
}

#[test]
fn directories_and_files_take_each_others_places_if_what_was_there_may_go() {
    let bench = Bench::new();
    let target = bench.source(&[("a/deep/f", b"new"), ("b", b"new"), ("c/g", b"new")]);
    let start = |bench: &Bench| {
        let _ = fs::remove_dir_all(bench.at("root/d"));
        bench.fill("root/d", &[("a", b"old"), ("b/x/y", b"old"), ("z", b"old")]);
        symlink("b", bench.at("root/d/c")).expect("link");
    };
    start(&bench);
    bench.refused("/d", &target, "d/a is a file, but must become a directory");
    let before = bench.listing();
    let kept = bench.apply_by(&all(&["y"]), None, &target).expect_err("y is to stay");
    assert!(matches!(kept, ApplyError::Conflict { .. }), "{kept}");
    assert_eq!(bench.listing(), before);
    let applied = bench.apply_by(&all(&[]), None, &target).expect("applies");
    assert_eq!((applied.written, applied.deleted), (6, 6));
    for (path, bytes) in [("a/deep/f", b"new"), ("b", b"new"), ("c/g", b"new")] {
        assert_eq!(fs::read(bench.at("root/d").join(path)).expect(path), bytes);
    }
    // The same with what was installed, and somebody's own file in the way.
    let earlier = bench.source(&[("a", b"old"), ("b/x/y", b"old"), ("z", b"old")]);
    let installed = rules(Delete::Installed, &[], MaxDelete::Usual);
    start(&bench);
    fs::remove_file(bench.at("root/d/c")).expect("removes");
    bench.fill("root/d", &[("b/own", b"x")]);
    let kept = bench.apply_by(&installed, Some(&earlier), &target).expect_err("b/own stays");
    assert!(kept.to_string().contains("d/b is a directory with something in it"), "{kept}");
    fs::remove_file(bench.at("root/d/b/own")).expect("removes");
    let applied = bench.apply_by(&installed, Some(&earlier), &target).expect("applies");
    assert_eq!((applied.written, applied.deleted), (6, 5));
}

#[test]
fn what_was_replaced_meanwhile_is_not_deleted() {
    let bench = Bench::new();
    let target = bench.source(&[("a", b"new")]);
    bench.fill("root/d", &[("a", b"new"), ("old", b"x"), ("dir/f", b"x")]);
    let rules = all(&[]);
    let job = Job { tag: "t1", dest: b"/d", target: &target, rules: &rules, before: None };
    let ground = ground::resolve(&bench.at("root"), &job).expect("resolves");
    let survey = survey::survey(&ground, &job).expect("surveys");
    let mut writer = Writer::new(&ground, &job, &bench.store, &survey);
    writer.run().expect("writes");
    fs::rename(bench.at("root/d/old"), bench.at("root/d/older")).expect("renames");
    fs::write(bench.at("root/d/old"), b"another").expect("writes");
    let error = writer.switch().expect_err("it is another file");
    assert!(error.to_string().contains("delete /d/old"), "{error}");
    assert_eq!(fs::read(bench.at("root/d/old")).expect("reads"), b"another");

    // What comes into a directory that goes keeps it.
    let survey = survey::survey(&ground, &job).expect("surveys");
    let mut writer = Writer::new(&ground, &job, &bench.store, &survey);
    writer.run().expect("writes");
    bench.fill("root/d", &[("dir/new", b"x")]);
    writer.switch().expect("switches");
    assert!(bench.has("dir/new") && !bench.has("dir/f") && !bench.has("old"));
}

#[test]
fn mount_points_stay() {
    let bench = Bench::new();
    let target = bench.source(&[("a", b"new")]);
    bench.fill("root/d", &[("m/", b""), ("n/", b"")]);
    bench.fill("mounted", &[("f", b"x")]);
    let mount = |what: &str, to: &str| {
        let mut command = std::process::Command::new("mount");
        command.args(["--bind"]).arg(bench.at(what)).arg(bench.at(to));
        command.stderr(std::process::Stdio::null()).status().is_ok_and(|status| status.success())
    };
    if !mount("mounted", "root/d/m") {
        println!("skipped: nothing can be mounted here");
        return;
    }
    let applied = bench.apply_by(&all(&[]), None, &target);
    let kept = bench.at("mounted/f").exists();
    let at = bench.at("root/d/m");
    assert!(std::process::Command::new("umount").arg(at).status().expect("runs").success());
    let applied = applied.expect("applies");
    assert_eq!((applied.deleted, kept), (1, true));
}

#[test]
fn a_single_file_deletes_nothing() {
    let bench = Bench::new();
    bench.fill("source2", &[("f", b"x")]);
    let read =
        crate::ingest(&bench.at("source2/f"), &Patterns::default(), &bench.store, &mut |_| ());
    let target = read.expect("reads").manifest;
    bench.fill("root", &[("other", b"x")]);
    assert_eq!(bench.apply_by(&all(&[]), None, &target).expect("applies").deleted, 0);
    assert!(bench.at("root/other").exists());
    fs::remove_file(bench.at("root/d")).expect("removes");
    bench.fill("root/d", &[("x", b"x")]);
    bench.apply_by(&all(&[]), None, &target).expect_err("a folder is in the way");
}

#[test]
fn directories_within_one_another_without_end_stay() {
    let bench = Bench::new();
    let target = bench.source(&[("a", b"new")]);
    let deep = vec!["x"; 400].join("/");
    fs::create_dir_all(bench.at("root/d").join(deep)).expect("dirs");
    assert_eq!(bench.apply_by(&all(&[]), None, &target).expect("applies").deleted, 0);
    assert!(bench.has("x/x"));
}

#[test]
fn a_comparison_tells_every_kind_of_difference_and_changes_nothing() {
    let bench = Bench::new();
    let files: [(&str, &[u8]); 6] = [
        ("content", b"same"),
        ("d/missing", b"x"),
        ("kind", b"x"),
        ("linked", b"x"),
        ("mode", b"x"),
        ("blocked/f", b"x"),
    ];
    bench.source(&files);
    symlink("here", bench.at("source/link")).expect("link");
    let read = crate::ingest(&bench.at("source"), &Patterns::default(), &bench.store, &mut |_| ());
    let target = read.expect("reads").manifest;
    bench.apply("/d", &target).expect("applies");
    let compare = |rules: &Rules| {
        let job = Job { tag: "t1", dest: b"/d", target: &target, rules, before: None };
        Installer::new(bench.at("root")).compare(&job).expect("compares")
    };
    assert_eq!(compare(&all(&[])), Drift::default());

    let at = |name: &str| bench.at("root/d").join(name);
    let odd = |name: &str| {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(at(name), fs::Permissions::from_mode(0o640)).expect("mode");
    };
    fs::write(at("content"), b"else").expect("writes");
    fs::remove_dir_all(at("d")).expect("removes");
    fs::remove_file(at("kind")).expect("removes");
    symlink("x", at("kind")).expect("link");
    fs::remove_file(at("link")).expect("removes");
    symlink("there", at("link")).expect("link");
    fs::hard_link(at("linked"), bench.at("root/other")).expect("link");
    ["linked", "mode"].iter().for_each(|name| odd(name));
    fs::remove_dir_all(at("blocked")).expect("removes");
    fs::write(at("blocked"), b"x").expect("writes");
    fs::write(at("extra"), b"x").expect("writes");

    let before = bench.listing();
    let drift = compare(&Rules::default());
    let times = drift.text.lines().filter(|line| !line.ends_with(": time"));
    let expected = "! blocked: is a file, and is not replaced\n+ blocked/f\n\
         * content: content\n+ d\n\
                    + d/missing\n* kind: is a symbolic link\n* link: content\n\
                    ~ linked: mode 0644, is 0640\n~ mode: mode 0644, is 0640\n";
    let text: String = times.map(|line| format!("{line}\n")).collect();
    assert_eq!(text, expected);
    assert_eq!(drift.size, drift.text.len() as u64);
    assert_eq!(drift.entries, drift.text.lines().count() as u64);

    let drift = compare(&rules(Delete::All, &[], MaxDelete::Entries(1)));
    assert!(
        drift.text.starts_with("* blocked: is a file\n") || drift.text.contains("\n* blocked: is")
    );
    assert!(drift.text.ends_with("- blocked\n- extra\n"), "{}", drift.text);
    assert_eq!(drift.obstacles.len(), 1);
    assert!(drift.obstacles[0].starts_with("2 entries below /d would be deleted"));
    assert_eq!(bench.listing(), before);

    let obstacles = |rules: &Rules| {
        let job = Job { tag: "t1", dest: b"/d", target: &target, rules, before: None };
        let installer = Installer::new(bench.at("root"));
        installer.preflight(&job, &bench.store).expect("asks").obstacles
    };
    let said = obstacles(&Rules::default());
    assert_eq!(said, ["/d/blocked is a file, and is not replaced"]);
    let said = obstacles(&rules(Delete::All, &[], MaxDelete::Entries(1)));
    assert!(said.len() == 1 && said[0].starts_with("2 entries below /d"), "{said:?}");
    assert!(obstacles(&rules(Delete::All, &[], MaxDelete::Usual)).is_empty());
    assert_eq!(bench.listing(), before);
}

#[test]
fn a_long_comparison_is_cut_between_lines_and_counted() {
    let bench = Bench::new();
    let names: Vec<_> = (0..2_000).map(|n| format!("{n:0200}")).collect();
    let files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b"x"[..])).collect();
    let target = bench.source(&files);
    let rules = Rules::default();
    let job = Job { tag: "t1", dest: b"/d", target: &target, rules: &rules, before: None };
    let drift = Installer::new(bench.at("root")).compare(&job).expect("compares");
    assert_eq!(drift.entries, 2_001);
    assert_eq!(drift.size, 4 + 2_000 * 203);
    assert!(drift.text.len() <= 256 << 10 && drift.text.ends_with('\n'));
}

#[test]
fn other_names_of_files_are_things_that_were_installed_too() {
    let bench = Bench::new();
    bench.source(&[("keep", b"1"), ("a", b"both"), ("x/a", b"both")]);
    let [a, other, third] = ["source/a", "source/x/b", "source/x/c"].map(|path| bench.at(path));
    fs::hard_link(&a, other).expect("link");
    fs::hard_link(&a, third).expect("link");
    let read = ingest(&bench.at("source"), &Patterns::default(), &bench.store, &mut |_| ());
    let before = read.expect("reads").manifest;
    assert!(before.entries.iter().any(|entry| matches!(entry.kind, Kind::HardLink { .. })));
    bench.apply("/d", &before).expect("applies");
    // One of the names is another file by now.
    fs::remove_file(bench.at("root/d/x/c")).expect("removes");
    bench.fill("root/d", &[("x/c", b"mine")]);
    let target = bench.source(&[("keep", b"1")]);
    let installed = rules(Delete::Installed, &[], MaxDelete::Usual);
    let applied = bench.apply_by(&installed, Some(&before), &target).expect("applies");
    assert_eq!((applied.deleted, applied.kept.paths), (3, vec!["/d/x/c".to_owned()]));
    assert!(!bench.has("a") && !bench.has("x/a") && !bench.has("x/b") && bench.has("x/c"));
}
