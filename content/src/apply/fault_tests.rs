//! Every call to the system that an install makes fails once, in a process of its own.
//!
//! `strace` has the n-th call of a kind fail, for each n there is. Whatever fails: each file is the
//! old one or the new one, whole and with its mode; a process that says it went through has all of
//! them new; one that says it did not names what it was at; and the next install puts all right.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::*;
use crate::{Patterns, ingest};

/// Where the child works: a folder with `source`, `store` and `root`.
const PLACE: &str = "BARID_TEST_FAULTS";

/// What is installed, and how.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// File by file, and what is not in the source goes.
    Files,
    /// The same as a whole.
    Whole,
    /// File by file, so few that each is synced by itself.
    Few,
}

impl Way {
    /// The test of this file that installs so.
    fn test(self) -> &'static str {
        match self {
            Way::Files => {
                "apply::fault_tests::\
                whatever_fails_files_are_old_or_new_and_the_next_install_mends_it"
            }
            Way::Whole => {
                "apply::fault_tests::whatever_fails_a_release_is_the_old_one_or_the_new_one"
            }
            Way::Few => "apply::fault_tests::whatever_fails_of_a_few_files_is_told_too",
        }
    }
}

/// What the child writes when it has come to the install.
const BEGUN: &str = "begun";
/// And behind it, what became of it.
pub(super) const WENT: &str = "went through";

/// Calls that an install makes, with faults that they have.
const CALLS: [(&str, &[&str]); 21] = [
    ("openat", &["EMFILE", "EIO", "ENOSPC", "EROFS"]),
    ("write", &["ENOSPC", "EIO", "EDQUOT"]),
    ("pwrite64", &["ENOSPC", "EIO"]),
    ("ftruncate", &["ENOSPC"]),
    ("syncfs", &["EIO", "ENOSPC"]),
    ("fsync", &["EIO"]),
    ("renameat", &["EIO", "ENOSPC", "EROFS"]),
    ("renameat2", &["EIO", "EROFS"]),
    ("linkat", &["EMLINK", "EIO"]),
    ("symlinkat", &["ENOSPC"]),
    ("mkdirat", &["ENOSPC", "EROFS"]),
    ("unlinkat", &["EIO", "EROFS"]),
    ("fchmod", &["EIO", "EROFS"]),
    ("fchown", &["EIO"]),
    ("fsetxattr", &["ENOSPC", "EIO"]),
    ("fremovexattr", &["EIO", "EROFS"]),
    ("utimensat", &["EIO", "EROFS"]),
    ("fcntl", &["EMFILE"]),
    ("getdents64", &["EIO"]),
    ("read", &["EIO"]),
    ("pread64", &["EIO"]),
];

type Listing = BTreeMap<PathBuf, String>;

pub(super) fn listing(dir: &Path) -> Listing {
    let mut found = Listing::new();
    let mut pending = vec![dir.to_path_buf()];
    while let Some(path) = pending.pop() {
        let Ok(meta) = path.symlink_metadata() else { continue };
        let mut line = format!("{:o} ", meta.mode());
        if meta.is_dir() {
            pending.extend(fs::read_dir(&path).expect("lists").map(|e| e.expect("entry").path()));
            // What is being filled has another mode meanwhile.
            line = "a folder".into();
        } else if meta.is_symlink() {
            line.push_str(&fs::read_link(&path).expect("link").to_string_lossy());
        } else {
            let bytes = fs::read(&path).expect("reads");
            line.push_str(&format!("{} {}", bytes.len(), crate::ContentId::of(&bytes)));
        }
        found.insert(path.strip_prefix(dir).expect("below").to_path_buf(), line);
    }
    found
}

fn fill(dir: &Path, version: u8, way: Way) {
    fs::create_dir_all(dir.join("sub/deep")).expect("dirs");
    let file = |name: &str, bytes: &[u8], mode: u32| {
        fs::write(dir.join(name), bytes).expect("file");
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(mode)).expect("mode");
    };
    file("changed", &[version; 3_000], 0o644);
    file("sub/changed", &[version; 100_000], 0o600 | u32::from(version));
    file("sub/deep/same", b"same", 0o600 | u32::from(version));
    if way == Way::Few {
        if version == 2 {
            fs::create_dir(dir.join("fresh")).expect("dir");
            file("fresh/file", b"fresh", 0o640);
        }
        return;
    }
    fs::hard_link(dir.join("changed"), dir.join("sub/linked")).expect("link");
    symlink(format!("to {version}"), dir.join("link")).expect("link");
    let only = dir.join(format!("only{version}"));
    fs::create_dir(&only).expect("dir");
    fs::write(only.join("file"), b"x").expect("file");
    let holes = fs::File::create(dir.join("holes")).expect("file");
    holes.set_len(300_000 + u64::from(version)).expect("longer");
    holes.write_all_at(&[version; 9_000], 100_000).expect("written");
    let name = if version == 1 { "user.one" } else { "user.two" };
    let value = [version; 10];
    let flags = rustix::fs::XattrFlags::empty();
    let _ = rustix::fs::setxattr(dir.join("changed"), name, &value, flags);
}

struct Never;

impl Chunks for Never {
    fn provide(&mut self, _: &[ChunkRef]) -> Result<(), ApplyError> {
        Ok(())
    }
}

pub(super) fn install(place: &Path, way: Way) -> Result<(), ApplyError> {
    let store = Store::open(place.join("store")).expect("the store opens");
    let source = place.join("source");
    let read = ingest(&source, &Patterns::default(), &store, &mut |_| ()).expect("reads");
    let delete = if way == Way::Files { Delete::All } else { Delete::Nothing };
    let rules = Rules { delete, max_delete: MaxDelete::Percent(100), ..Rules::default() };
    let target = &read.manifest;
    let job = Job { tag: "t1", dest: b"/srv/app", target, rules: &rules, before: None };
    fs::write(place.join(BEGUN), "").expect("noted");
    let installer = Installer::new(place.join("root"));
    if way == Way::Whole {
        installer.release(&job, &store, &mut Never)?;
    } else {
        installer.sweep(&job)?;
        installer.apply(&job, &store, &mut Never)?;
    }
    Ok(())
}

/// The child, which is this test again in a process of its own: installs what it is given, and
/// says what became of it. `false`: this is not the child.
pub(super) fn is_child(way: Way) -> bool {
    let Some(place) = std::env::var_os(PLACE).map(PathBuf::from) else { return false };
    let text = match install(&place, way) {
        Ok(()) => WENT.to_owned(),
        Err(error) => error.to_string(),
    };
    fs::write(place.join(BEGUN), &text).expect("noted");
    true
}

pub(super) struct Bench {
    temp: tempfile::TempDir,
    way: Way,
    /// What is in place before, and what shall be.
    pub(super) old: Listing,
    pub(super) new: Listing,
}

impl Bench {
    pub(super) fn new(way: Way) -> Bench {
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { memory.into() } else { std::env::temp_dir() };
        let temp = tempfile::tempdir_in(dir).expect("temp");
        let place = temp.path();
        fill(&place.join("one"), 1, way);
        fill(&place.join("two"), 2, way);
        let (old, new) = (listing(&place.join("one")), listing(&place.join("two")));
        Bench { temp, way, old, new }
    }

    pub(super) fn place(&self) -> &Path {
        self.temp.path()
    }

    /// The old version in place, and nothing else.
    pub(super) fn reset(&self) {
        let place = self.place();
        for name in ["root", "store", "source"] {
            let _ = fs::remove_dir_all(place.join(name));
        }
        let _ = fs::remove_file(place.join(BEGUN));
        fs::create_dir(place.join("root")).expect("dir");
        fs::rename(place.join("one"), place.join("source")).expect("renames");
        install(place, self.way).expect("nothing fails");
        fs::rename(place.join("source"), place.join("one")).expect("renames");
        fs::remove_file(place.join(BEGUN)).expect("removes");
        fs::create_dir_all(place.join("source")).expect("dir");
        fs::remove_dir(place.join("source")).expect("removes");
        copy(&place.join("two"), &place.join("source"));
    }

    /// Runs the child, with `strace` and these options before it.
    fn child(&self, strace: &[String]) -> Option<String> {
        let own = std::env::current_exe().expect("there is one");
        let mut command = Command::new("strace");
        // Of two options the last counts.
        command.args(["-f", "-o", "/dev/null"]).args(strace).arg(own);
        self.run(command)
    }

    /// Runs the child by this command. What it says of the install: nothing if it did not come to
    /// it.
    pub(super) fn run(&self, mut command: Command) -> Option<String> {
        command.args(["--exact", "--test-threads=1", self.way.test()]);
        command.env(PLACE, self.place()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().expect("it runs");
        fs::read_to_string(self.place().join(BEGUN)).ok()
    }

    /// Each file is an old one or a new one; what programs see of a whole tree is all of one.
    pub(super) fn check_whole(&self, what: &str) -> Listing {
        let is = listing(&self.place().join("root/srv/app"));
        for (path, line) in &is {
            let temporary = path.to_string_lossy().contains(".barid-");
            let known = self.old.get(path) == Some(line) || self.new.get(path) == Some(line);
            assert!(temporary || known, "{what}: {} is {line}", path.display());
        }
        if self.way == Way::Whole {
            assert!(is == self.old || is == self.new, "{what}: a mixture of both");
        }
        for path in self.old.keys().filter(|path| self.new.contains_key(*path)) {
            assert!(is.contains_key(path), "{what}: {} is missing", path.display());
        }
        is
    }
}

fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp runs");
    assert!(done.success());
}

/// Fails each call of each kind once. Returns how often an install was cut off by it.
fn fail_all(way: Way) -> Option<(usize, usize)> {
    if is_child(way) {
        return None;
    }
    if !Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_ok_and(|s| s.success()) {
        println!("skipped: there is no strace here");
        return None;
    }
    let bench = Bench::new(way);
    bench.reset();
    if bench.child(&["-e".into(), "trace=none".into()]).as_deref() != Some(WENT) {
        println!("skipped: nothing can be traced here");
        return None;
    }
    assert_eq!(listing(&bench.place().join("root/srv/app")), bench.new);
    if way == Way::Few {
        assert!(bench.turns("syncfs").is_empty(), "nobody else's files are waited for");
    }
    let (mut cut_off, mut tried) = (0, 0);
    for (call, faults) in CALLS {
        for nth in bench.turns(call) {
            let fault = faults[nth % faults.len()];
            let what = format!("{call} {nth} {fault}");
            bench.reset();
            let inject = format!("inject={call}:error={fault}:when={nth}");
            let said = bench.child(&["-e".into(), format!("trace={call}"), "-e".into(), inject]);
            tried += 1;
            let is = bench.check_whole(&what);
            match said.as_deref() {
                Some(WENT) => {
                    assert_eq!(is, bench.new, "{what}: it said that it went through");
                    // Whatever was not synced may be gone after the next power cut.
                    assert!(!["syncfs", "fsync"].contains(&call), "{what}: it was not told");
                }
                // The process died of it; what it left must be mended all the same.
                None | Some("") => {}
                Some(error) => {
                    cut_off += 1;
                    assert!(error.contains("cannot "), "{what}: {error}");
                }
            }
            install(bench.place(), way).unwrap_or_else(|error| panic!("{what}: {error}"));
            let mended = listing(&bench.place().join("root/srv/app"));
            assert_eq!(mended, bench.new, "{what}: not mended");
        }
    }
    Some((cut_off, tried))
}

impl Bench {
    /// Which calls of a kind, by number, belong to the install. Calls are counted for each thread.
    fn turns(&self, call: &str) -> Vec<usize> {
        // Of this one the others are checks of the standard library, in builds like this.
        let having = if call == "fcntl" { "F_DUPFD" } else { "" };
        self.reset();
        let log = self.place().join("log");
        let trace = format!("trace={call},openat");
        self.child(&["-e".into(), trace, "-o".into(), log.display().to_string()]);
        let text = fs::read_to_string(&log).unwrap_or_default();
        let note = format!("/{BEGUN}\"");
        let thread = text.lines().find(|line| line.contains(&note));
        let thread = thread.and_then(|line| line.split_whitespace().next()).unwrap_or_default();
        let (mut notes, mut calls, mut turns) = (0, 0, Vec::new());
        for line in text.lines().filter(|line| line.split_whitespace().next() == Some(thread)) {
            let is_note = line.contains(&note);
            notes += usize::from(is_note);
            if line.contains(&format!(" {call}(")) {
                calls += 1;
                if notes == 1 && !is_note && line.contains(having) {
                    turns.push(calls);
                }
            }
        }
        turns
    }
}

#[test]
fn whatever_fails_files_are_old_or_new_and_the_next_install_mends_it() {
    if let Some((cut_off, tried)) = fail_all(Way::Files) {
        println!("{cut_off} of {tried} installs were cut off");
        assert!(cut_off >= 20, "{cut_off} of {tried}");
    }
}

#[test]
fn whatever_fails_a_release_is_the_old_one_or_the_new_one() {
    if let Some((cut_off, tried)) = fail_all(Way::Whole) {
        println!("{cut_off} of {tried} releases were cut off");
        assert!(cut_off >= 20, "{cut_off} of {tried}");
    }
}

#[test]
fn whatever_fails_of_a_few_files_is_told_too() {
    if let Some((cut_off, tried)) = fail_all(Way::Few) {
        println!("{cut_off} of {tried} installs were cut off");
        assert!(cut_off >= 20, "{cut_off} of {tried}");
    }
}
