//! Tests of `apply`.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use super::*;
use crate::{Patterns, ingest};

/// A source, a root to install below, and one store that has all chunks of what was ingested.
pub(super) struct Bench {
    temp: tempfile::TempDir,
    pub(super) store: Store,
}

/// A provider that finds nothing to do, fails, or counts.
#[derive(Default)]
pub(super) struct Provider {
    pub(super) fail: bool,
    pub(super) asked: Vec<ChunkRef>,
}

impl Chunks for Provider {
    fn provide(&mut self, wanted: &[ChunkRef]) -> Result<(), ApplyError> {
        self.asked.extend_from_slice(wanted);
        if self.fail { Err(ApplyError::Provide("the link is down".into())) } else { Ok(()) }
    }
}

impl Bench {
    pub(super) fn new() -> Bench {
        Bench::in_dir(&std::env::temp_dir())
    }

    /// Where a sync costs nothing, if there is such a place.
    pub(super) fn in_memory() -> Bench {
        let memory = Path::new("/dev/shm");
        if memory.is_dir() { Bench::in_dir(memory) } else { Bench::new() }
    }

    fn in_dir(dir: &Path) -> Bench {
        let temp = tempfile::tempdir_in(dir).expect("temp");
        fs::create_dir(temp.path().join("root")).expect("root");
        let store = Store::open(temp.path().join("store")).expect("store");
        Bench { temp, store }
    }

    pub(super) fn at(&self, path: &str) -> PathBuf {
        self.temp.path().join(path)
    }

    /// Writes files into `source`, a name ending in `/` being a directory, and ingests it.
    pub(super) fn source(&self, files: &[(&str, &[u8])]) -> Manifest {
        let source = self.at("source");
        let _ = fs::remove_dir_all(&source);
        self.fill("source", files);
        ingest(&source, &Patterns::default(), &self.store, &mut |_| ()).expect("ingests").manifest
    }

    pub(super) fn fill(&self, dir: &str, files: &[(&str, &[u8])]) {
        for (name, bytes) in files {
            let path = self.at(dir).join(name);
            fs::create_dir_all(path.parent().expect("parent")).expect("dirs");
            match name.ends_with('/') {
                true => fs::create_dir_all(&path).expect("dir"),
                false => fs::write(&path, bytes).expect("file"),
            }
        }
    }

    pub(super) fn apply(&self, dest: &str, target: &Manifest) -> Result<Applied, ApplyError> {
        let mut provider = Provider { fail: false, asked: Vec::new() };
        self.apply_with(dest, target, &mut provider)
    }

    fn apply_with(
        &self,
        dest: &str,
        target: &Manifest,
        provider: &mut Provider,
    ) -> Result<Applied, ApplyError> {
        let job = Job {
            tag: "t1",
            dest: dest.as_bytes(),
            target,
            rules: &Rules::default(),
            before: None,
        };
        Installer::new(self.at("root")).apply(&job, &self.store, provider)
    }

    /// Every path below the root, with what is in it.
    pub(super) fn listing(&self) -> Vec<(PathBuf, Vec<u8>)> {
        self.listing_of("root")
    }

    pub(super) fn listing_of(&self, dir: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        let mut pending = vec![self.at(dir)];
        while let Some(path) = pending.pop() {
            let meta = path.symlink_metadata().expect("stat");
            let mut content = format!("{:o} ", meta.mode()).into_bytes();
            if meta.is_dir() {
                let listed = fs::read_dir(&path).expect("lists");
                pending.extend(listed.map(|entry| entry.expect("entry").path()));
            } else if meta.is_symlink() {
                content.extend(fs::read_link(&path).expect("link").as_os_str().as_bytes());
            } else if meta.is_file() {
                content.extend(fs::read(&path).expect("reads"));
            }
            found.push((path, content));
        }
        found.sort();
        found
    }

    /// The apply fails with an error that holds these words, and the root stays as it was.
    pub(super) fn refused(&self, dest: &str, target: &Manifest, words: &str) -> ApplyError {
        let before = self.listing();
        let err = self.apply(dest, target).expect_err(words);
        assert!(err.to_string().contains(words), "{err} does not say: {words}");
        assert_eq!(before, self.listing(), "{err}");
        err
    }
}

#[test]
fn destinations_we_refuse() {
    let bench = Bench::new();
    let target = bench.source(&[("f", b"x")]);
    bench.refused("", &target, "not absolute");
    bench.refused("relative", &target, "not absolute");
    bench.refused("/", &target, "root directory");
    bench.refused("/a/../b", &target, ". or ..");
    bench.refused("/a//b", &target, "empty component");
    bench.refused("/a/", &target, "empty component");
    bench.refused("/a\0b", &target, "NUL");
    bench.refused(&format!("/{}", "x".repeat(256)), &target, "255");
    bench.refused(&"/x".repeat(2100), &target, "4095");
    let store = &bench.store;
    let mut none = Provider { fail: true, asked: Vec::new() };
    for dest in ["/proc/barid", "/sys", "/dev/shm/x"] {
        let job = Job {
            tag: "t1",
            dest: dest.as_bytes(),
            target: &target,
            rules: &Rules::default(),
            before: None,
        };
        let err = Installer::new("/".into()).apply(&job, store, &mut none).expect_err(dest);
        assert!(err.to_string().contains("below /proc, /sys or /dev"), "{err}");
    }
    for tag in ["", "a b", "../x", "UP", &"x".repeat(65)] {
        let job = Job { tag, dest: b"/d", target: &target, rules: &Rules::default(), before: None };
        let err = Installer::new(bench.at("root")).apply(&job, store, &mut none).expect_err(tag);
        assert!(matches!(err, ApplyError::Tag { .. }), "{err}");
    }
}

#[test]
fn an_invalid_manifest_is_refused_here_too() {
    let bench = Bench::new();
    let mut target = bench.source(&[("f", b"x")]);
    target.entries[1].path = b"../escaped".to_vec();
    bench.refused("/d", &target, ". or ..");
    let target = bench.source(&[(".barid-t1-0", b"x")]);
    bench.refused("/d", &target, "temporary file");
}

#[test]
fn conflicts_are_found_before_anything_changes() {
    let bench = Bench::new();
    let target = bench.source(&[("a", b"new"), ("b", b"new"), ("z/", b"")]);
    bench.fill("root/d", &[("a", b"old"), ("b/full", b"x")]);
    bench.refused("/d", &target, "d/b is a directory with something in it, but must become a file");
    fs::remove_dir_all(bench.at("root/d/b")).expect("removes");
    bench.fill("root/d", &[("z", b"file")]);
    bench.refused("/d", &target, "d/z is a file, but must become a directory");
    fs::remove_file(bench.at("root/d/z")).expect("removes");
    symlink("/etc", bench.at("root/d/z")).expect("link");
    bench.refused("/d", &target, "d/z is a symbolic link, but must become a directory");
    fs::remove_file(bench.at("root/d/z")).expect("removes");
    let _socket = std::os::unix::net::UnixListener::bind(bench.at("root/d/b")).expect("socket");
    bench.refused("/d", &target, "device, pipe or socket");
    bench.refused("/d/a/below", &target, "is not a directory");
}

#[test]
fn empty_directories_files_and_links_replace_one_another() {
    let bench = Bench::new();
    bench.source(&[("a", b"file"), ("b", b"file")]);
    bench.fill("root/d", &[("a/", b""), ("c", b"file")]);
    symlink("/etc/passwd", bench.at("root/d/b")).expect("link");
    symlink("elsewhere", bench.at("source/c")).expect("link");
    let source = bench.at("source");
    let target =
        ingest(&source, &Patterns::default(), &bench.store, &mut |_| ()).expect("reads").manifest;
    let applied = bench.apply("/d", &target).expect("applies");
    assert_eq!((applied.written, applied.bytes_written), (3, 8));
    assert_eq!(fs::read(bench.at("root/d/b")).expect("reads"), b"file");
    assert!(bench.at("root/d/b").symlink_metadata().expect("stat").is_file());
    assert_eq!(fs::read_link(bench.at("root/d/c")).expect("link"), Path::new("elsewhere"));
}

#[test]
fn a_failing_provider_leaves_the_old_tree() {
    let bench = Bench::new();
    let target = bench.source(&[("a", b"new"), ("b/c", b"newer")]);
    let ids: Vec<_> = target.entries.iter().flat_map(Entry::chunks).map(|c| c.id).collect();
    bench.store.remove(&ids).expect("removes");
    bench.fill("root/d", &[("a", b"old")]);
    let before = bench.listing();
    let mut provider = Provider { fail: true, asked: Vec::new() };
    let err = bench.apply_with("/d", &target, &mut provider).expect_err("no chunks");
    assert!(matches!(err, ApplyError::Provide(_)), "{err}");
    assert_eq!(provider.asked.len(), 2);
    assert_eq!(before, bench.listing());
    // It says that it has them, but it has not: found out while writing, all is undone.
    let err = bench.refused("/new/place", &target, "is gone or damaged");
    assert!(!err.partial());
    bench.refused("/d", &target, "is gone or damaged");
}

#[test]
fn only_chunks_that_are_nowhere_are_asked_for() {
    let bench = Bench::new();
    let noise = |seed: u8, len| {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
        bytes
    };
    let mut big = noise(1, 2 << 20);
    bench.fill("root/d", &[("big", &big), ("name", b"same content")]);
    big.splice(1_000_000..1_000_000, *b"an insertion");
    let target = bench.source(&[("big", &big), ("name", b"x"), ("renamed", b"same content")]);
    let chunks: Vec<_> = target.entries.iter().flat_map(Entry::chunks).copied().collect();
    let ids: Vec<_> = chunks.iter().map(|chunk| chunk.id).collect();
    bench.store.remove(&ids).expect("removes");
    let mut provider = Provider { fail: true, asked: Vec::new() };
    bench.apply_with("/d", &target, &mut provider).expect_err("no chunks");
    assert!(chunks.len() > 20 && provider.asked.len() <= 4, "{}", provider.asked.len());
    for chunk in &provider.asked {
        let file = fs::read(bench.at("source/big")).expect("reads");
        let mut all = vec![b"x".to_vec()];
        let mut sink = |bytes: &[u8]| -> std::io::Result<()> {
            all.push(bytes.to_vec());
            Ok(())
        };
        let size = file.len() as u64;
        crate::chunk::Cutter::new().cut(file.as_slice(), size, &mut sink).expect("cuts");
        let bytes = all.iter().find(|bytes| crate::ContentId::of(bytes) == chunk.id);
        bench.store.put(chunk.id, bytes.expect("one of them")).expect("puts");
    }
    let applied = bench.apply("/d", &target).expect("applies");
    assert_eq!(applied.written, 3);
    assert_eq!(fs::read(bench.at("root/d/big")).expect("reads"), big);
    assert_eq!(fs::read(bench.at("root/d/renamed")).expect("reads"), b"same content");
}

#[test]
fn metadata_alone_is_fixed_in_place_but_never_through_a_hard_link() {
    let bench = Bench::new();
    let target = bench.source(&[("a", b"same"), ("b", b"same too"), ("d/", b"")]);
    bench.apply("/d", &target).expect("applies");
    let inode = |name: &str| fs::metadata(bench.at("root/d").join(name)).expect("stat").ino();
    let before = (inode("a"), inode("b"));
    fs::hard_link(bench.at("root/d/b"), bench.at("root/linked")).expect("link");
    for name in ["a", "b", "d"] {
        let odd = fs::Permissions::from_mode(0o711);
        fs::set_permissions(bench.at("root/d").join(name), odd).expect("mode");
    }
    let applied = bench.apply("/d", &target).expect("applies");
    assert_eq!((applied.written, applied.metadata_fixed, applied.unchanged), (1, 2, 1));
    assert_eq!(inode("a"), before.0);
    assert_ne!(inode("b"), before.1);
    let linked = fs::metadata(bench.at("root/linked")).expect("stat");
    assert_eq!((linked.ino(), linked.mode() & 0o777), (before.1, 0o711));
}

#[test]
fn directories_without_write_permission_can_be_filled() {
    let bench = Bench::new();
    bench.fill("source", &[("ro/deep/f", b"x")]);
    for dir in ["source/ro/deep", "source/ro"] {
        let mode = fs::Permissions::from_mode(0o555);
        fs::set_permissions(bench.at(dir), mode).expect("mode");
    }
    let read = || {
        ingest(&bench.at("source"), &Patterns::default(), &bench.store, &mut |_| ()).expect("reads")
    };
    let target = read().manifest;
    bench.apply("/d", &target).expect("applies");
    let deep = bench.at("root/d/ro/deep");
    assert_eq!(fs::metadata(&deep).expect("stat").mode() & 0o777, 0o555);
    fs::set_permissions(bench.at("source/ro/deep"), fs::Permissions::from_mode(0o755)).expect("");
    fs::write(bench.at("source/ro/deep/g"), b"y").expect("writes");
    let applied = bench.apply("/d", &read().manifest).expect("applies");
    assert_eq!(applied.written, 1);
    assert_eq!(fs::metadata(&deep).expect("stat").mode() & 0o777, 0o755);
    for dir in ["source/ro", "root/d/ro"] {
        fs::set_permissions(bench.at(dir), fs::Permissions::from_mode(0o755)).expect("mode");
    }
}

#[test]
fn trusted_links_on_the_way_are_followed_below_the_root() {
    let bench = Bench::new();
    let target = bench.source(&[("f", b"x")]);
    bench.fill("root", &[("real/sub/", b""), ("other/", b"")]);
    symlink("/real", bench.at("root/absolute")).expect("link");
    symlink("../../../real/./sub", bench.at("root/other/relative")).expect("link");
    symlink("nowhere", bench.at("root/dangling")).expect("link");
    symlink("loop", bench.at("root/loop")).expect("link");
    bench.apply("/absolute/one", &target).expect("applies");
    bench.apply("/other/relative/two", &target).expect("applies");
    assert!(bench.at("root/real/one/f").exists() && bench.at("root/real/sub/two/f").exists());
    bench.refused("/dangling/x", &target, "leads nowhere");
    bench.refused("/loop/x", &target, "too many links");
    // Where others may write, somebody may have put the link for us to follow.
    let open = fs::Permissions::from_mode(0o777);
    fs::set_permissions(bench.at("root/other"), open).expect("mode");
    bench.refused("/other/relative/three", &target, "others may write");
}

#[test]
fn a_link_of_another_user_is_refused() {
    let bench = Bench::new();
    let target = bench.source(&[("f", b"x")]);
    fs::create_dir(bench.at("root/real")).expect("dir");
    symlink("real", bench.at("root/planted")).expect("link");
    if std::os::unix::fs::lchown(bench.at("root/planted"), Some(12345), None).is_err() {
        println!("skipped: only root can give a link to another user");
        return;
    }
    bench.refused("/planted/sub", &target, "owned by another user");
    bench.refused("/planted", &target, "owned by another user");
}

#[test]
fn leftovers_of_a_killed_apply_are_replaced_or_swept() {
    let bench = Bench::new();
    let target = bench.source(&[("a", b"new"), ("s/b", b"new")]);
    let leftover = |dir: &str, n: usize| bench.at("root/d").join(dir).join(temp_name("t1", n));
    let (a, b) = (leftover("", 1), leftover("s", 3));
    bench.fill("root/d/s", &[]);
    fs::create_dir_all(bench.at("root/d/s")).expect("dir");
    fs::write(&a, b"half").expect("writes");
    symlink("/etc/passwd", &b).expect("link");
    let stranger = bench.at("root/d/.barid-t2-1");
    fs::write(&stranger, b"of another order").expect("writes");
    let installer = Installer::new(bench.at("root"));
    let sweep = |dest: &str| {
        let (dest, rules) = (dest.as_bytes(), Rules::default());
        let job = Job { tag: "t1", dest, target: &target, rules: &rules, before: None };
        installer.sweep(&job).expect("sweeps")
    };
    assert_eq!((sweep("/d"), sweep("/d"), sweep("/not/there")), (2, 0, 0));
    assert!(stranger.exists());
    fs::write(&a, b"half").expect("writes");
    symlink("/etc/passwd", &b).expect("link");
    bench.apply("/d", &target).expect("applies");
    assert!(!a.exists() && b.symlink_metadata().is_err() && stranger.exists());
    assert_eq!(fs::read(bench.at("root/d/s/b")).expect("reads"), b"new");
}

/// A file system of a few pages, or `None` (and a printed reason) where none can be mounted.
struct Tmpfs<'a>(&'a Path);

impl<'a> Tmpfs<'a> {
    fn mount(path: &'a Path, options: &str) -> Option<Tmpfs<'a>> {
        fs::create_dir_all(path).expect("dir");
        let mut command = std::process::Command::new("mount");
        command.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(path);
        if !command.output().is_ok_and(|output| output.status.success()) {
            println!("skipped: cannot mount a tmpfs here");
            return None;
        }
        Some(Tmpfs(path))
    }
}

impl Drop for Tmpfs<'_> {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0).status();
    }
}

#[test]
fn a_full_file_system_is_found_early_or_undone() {
    let bench = Bench::new();
    let target = bench.source(&[("a", &[1; 40_000]), ("b", &[2; 40_000]), ("c", b"")]);
    let path = bench.at("root/full");
    let Some(_mounted) = Tmpfs::mount(&path, "size=64k,nr_inodes=20") else { return };
    let err = bench.refused("/full/d", &target, "not enough room");
    assert!(err.to_string().contains("bytes needed"), "{err}");
    let many: Vec<String> = (0..30).map(|n| format!("f{n}")).collect();
    let many: Vec<_> = many.iter().map(|name| (name.as_str(), b"".as_slice())).collect();
    let target = bench.source(&many);
    bench.refused("/full/d", &target, "inodes needed");
    // Full below the destination, where the preflight does not look: found while writing.
    let target = bench.source(&[("a", b"new"), ("full/a", &[1; 90_000])]);
    bench.fill("root", &[("a", b"old")]);
    fs::create_dir(bench.at("root/e")).expect("dir");
    let inner = bench.at("root/e/full");
    let Some(_inner) = Tmpfs::mount(&inner, "size=64k") else { return };
    let err = bench.refused("/e", &target, "no space left");
    assert!(err.to_string().starts_with("cannot write the new /e/full/a"), "{err}");
}

#[test]
fn a_read_only_file_system_is_named() {
    let bench = Bench::new();
    let target = bench.source(&[("a", b"x")]);
    let path = bench.at("root/ro");
    let Some(_mounted) = Tmpfs::mount(&path, "size=64k,ro") else { return };
    bench.refused("/ro/d", &target, "read-only file system; remount it");
}

#[test]
fn a_failure_among_the_renames_says_so_and_is_mended_by_the_next_apply() {
    let bench = Bench::new();
    let target = bench.source(&[("a", b"new"), ("b", b"new")]);
    bench.fill("root/d", &[("a/", b""), ("b", b"old")]);
    let job =
        Job { tag: "t1", dest: b"/d", target: &target, rules: &Rules::default(), before: None };
    let ground = ground::resolve(&bench.at("root"), &job).expect("resolves");
    let survey = survey::survey(&ground, &job).expect("surveys");
    let mut writer = Writer::new(&ground, &job, &bench.store, &survey);
    writer.run().expect("writes");
    // Somebody fills the directory that was empty when we looked.
    bench.fill("root/d", &[("a/x", b"")]);
    let err = writer.switch().expect_err("the directory is not empty");
    assert!(err.partial(), "{err}");
    let names: Vec<_> = bench.listing().into_iter().map(|(path, _)| path).collect();
    assert!(names.iter().all(|path| !path.to_string_lossy().contains(".barid-")), "{names:?}");
    fs::remove_file(bench.at("root/d/a/x")).expect("removes");
    let applied = bench.apply("/d", &target).expect("applies");
    assert_eq!((applied.written, applied.unchanged), (1, 1));
}

#[test]
fn root_gives_owner_and_setuid_and_others_count_what_they_cannot_give() {
    let bench = Bench::new();
    let mut target = bench.source(&[("f", b"x"), ("d/", b"")]);
    for entry in &mut target.entries {
        // A name no host has, so that the number counts.
        (entry.uid, entry.gid) = (12345, 54321);
        entry.owner = "no-such-user".into();
        entry.group = "".into();
        entry.mode = 0o6755;
    }
    let applied = bench.apply("/d", &target).expect("applies");
    let meta = |name: &str| fs::metadata(bench.at("root/d").join(name)).expect("stat");
    if rustix::process::geteuid().is_root() {
        for meta in [meta("f"), meta("d"), meta("")] {
            assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (12345, 54321, 0o6755));
        }
        assert_eq!(applied.owner_skipped, 0);
    } else {
        assert_eq!((applied.written, applied.owner_skipped), (3, 3));
        let again = bench.apply("/d", &target).expect("applies");
        assert_eq!((again.unchanged, again.owner_skipped), (3, 3));
    }
}

#[test]
fn a_local_source_that_changed_since_the_survey_is_never_used() {
    let bench = Bench::new();
    bench.fill("root/d", &[("a", b"wanted"), ("b", b"old")]);
    let target = bench.source(&[("a", b"other!"), ("b", b"wanted")]);
    let wanted = crate::ContentId::of(b"wanted");
    for stored in [true, false] {
        fs::write(bench.at("root/d/a"), b"wanted").expect("writes");
        let job =
            Job { tag: "t1", dest: b"/d", target: &target, rules: &Rules::default(), before: None };
        let ground = ground::resolve(&bench.at("root"), &job).expect("resolves");
        let survey = survey::survey(&ground, &job).expect("surveys");
        assert!(survey.found.contains_key(&wanted));
        fs::write(bench.at("root/d/a"), b"forged").expect("writes");
        if !stored {
            bench.store.remove(&[wanted]).expect("removes");
        }
        let before = bench.listing();
        let mut writer = Writer::new(&ground, &job, &bench.store, &survey);
        let written = writer.run();
        if stored {
            written.expect("the store has it");
            let temp = fs::read(bench.at("root/d").join(temp_name("t1", 2))).expect("reads");
            assert_eq!(temp, b"wanted");
            writer.undo();
        } else {
            let err = written.expect_err("nobody has it any more");
            assert!(matches!(err, ApplyError::Chunk { .. }), "{err}");
        }
        assert_eq!(before, bench.listing());
    }
}
