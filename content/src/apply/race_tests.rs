//! Somebody who owns the directory that is installed into swaps what is in it, as fast as can be,
//! to have us write, describe or delete elsewhere.
//!
//! The swaps are exchanges of two names, so that there is always something. What lies outside must
//! come out of a hundred thousand swaps of each kind as it was. And each rule that keeps it so is
//! taken away once: then it must not.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::tests::{Bench, Provider};
use super::*;
use crate::guards::{Guard, without};
use crate::{Patterns, ingest};

/// So many swaps must have gone through during installs, with all rules in place, of each kind.
const ATTEMPTS: usize = 100_000;
/// And so many installs must have been tried meanwhile.
const INSTALLS: usize = 6_000;
/// How long it may take until something comes through where a rule is missing.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the attacker swaps in the directory, with names of what is outside.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Attack {
    /// A folder with a link to one outside.
    Folder,
    /// A file with another name of one outside.
    HardLink,
    /// Temporary names are taken by links to a file outside.
    Temporary,
}

struct Scene {
    bench: Bench,
    /// Two versions: other content, other modes, other names.
    versions: [Manifest; 2],
    outside: Vec<(PathBuf, Vec<u8>)>,
}

impl Scene {
    fn new() -> Scene {
        let bench = Bench::in_memory();
        let version = |mode: u32, text: &[u8], name: &str| {
            bench.source(&[("d/f", text), ("d/own", b"same"), (name, b"x"), ("top", b"same")]);
            for path in ["source/d/own", "source/top"] {
                let mode = fs::Permissions::from_mode(mode);
                fs::set_permissions(bench.at(path), mode).expect("mode");
            }
            let patterns = Patterns::default();
            ingest(&bench.at("source"), &patterns, &bench.store, &mut |_| ()).expect("reads")
        };
        let one = version(0o644, b"one", "d/one").manifest;
        let two = version(0o666, b"two", "d/two").manifest;
        let outside: [(&str, &[u8]); 4] =
            [("f", b"victim"), ("own", b"same"), ("one", b"v"), ("two", b"v")];
        bench.fill("outside", &outside);
        let scene = Scene { bench, versions: [one, two], outside: Vec::new() };
        let outside = scene.look();
        Scene { outside, ..scene }
    }

    fn look(&self) -> Vec<(PathBuf, Vec<u8>)> {
        self.bench.listing_of("outside")
    }

    /// Installs one version or the other, each time from the start of what the last one left.
    fn install(&self, n: usize) -> Result<Applied, ApplyError> {
        let delete = if n.is_multiple_of(3) { Delete::All } else { Delete::Nothing };
        let rules = Rules { delete, ..Rules::default() };
        let target = &self.versions[n % 2];
        let job = Job { tag: "t1", dest: b"/home/dir", target, rules: &rules, before: None };
        let installer = Installer::new(self.bench.at("root"));
        installer.apply(&job, &self.bench.store, &mut Provider::default())
    }

    /// Installs while the attack goes on, until `done` says so of the installs and the swaps that
    /// there were. Returns how many installs went through.
    fn race(&self, attack: Attack, mut done: impl FnMut(usize, usize) -> bool) -> usize {
        let home = self.bench.at("root/home/dir");
        let _ = fs::remove_dir_all(&home);
        self.install(1).expect("nobody disturbs");
        let outside = self.bench.at("outside");
        let (stop, swaps) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| attack.go_on(&home, &outside, (&stop, &swaps)));
            let mut through = 0;
            let mut n = 0;
            while !done(n, swaps.load(Ordering::Relaxed)) {
                through += usize::from(self.install(n).is_ok());
                n += 1;
            }
            stop.store(true, Ordering::Relaxed);
            through
        })
    }

    /// Something comes through once this rule is missing.
    fn breaks_without(&self, guard: Guard, attack: Attack) {
        let began = Instant::now();
        let mut broken = false;
        without(guard, || {
            self.race(attack, |_, _| {
                broken = self.look() != self.outside;
                broken || began.elapsed() > PATIENCE
            })
        });
        assert!(broken, "nothing came through without {guard:?}");
    }

    /// A link above the destination, which somebody else may have made, is followed.
    fn follows_without(&self, guard: Guard) {
        let open = fs::Permissions::from_mode(0o777);
        fs::create_dir(self.bench.at("root/home")).expect("dir");
        fs::set_permissions(self.bench.at("root/home"), open).expect("mode");
        fs::create_dir(self.bench.at("root/private")).expect("dir");
        symlink("/private", self.bench.at("root/home/dir")).expect("link");
        self.install(0).expect_err("somebody else may have made it");
        let private = || fs::read_dir(self.bench.at("root/private")).expect("lists").count();
        assert_eq!(private(), 0);
        without(guard, || self.install(0)).expect("it is followed");
        assert!(private() > 0);
    }
}

impl Attack {
    fn go_on(self, home: &Path, outside: &Path, (stop, swaps): (&AtomicBool, &AtomicUsize)) {
        let spare = home.join("spare");
        let mut n = 0_usize;
        while !stop.load(Ordering::Relaxed) {
            n += 1;
            let swapped = match self {
                Attack::Folder => {
                    let _ = symlink(outside, &spare);
                    exchange(&spare, &home.join("d"))
                }
                Attack::HardLink => {
                    let _ = fs::hard_link(outside.join("own"), &spare);
                    let swapped = exchange(&spare, &home.join(["d/own", "top"][n % 2]));
                    if n.is_multiple_of(7) {
                        let _ = fs::remove_file(&spare);
                    }
                    swapped
                }
                Attack::Temporary => {
                    let dir = ["d", ""][n % 2];
                    let temp = home.join(dir).join(temp_name("t1", n % 6));
                    if temp.is_symlink() {
                        let _ = fs::remove_file(&temp);
                    }
                    symlink(outside.join("f"), temp).is_ok()
                }
            };
            swaps.fetch_add(usize::from(swapped), Ordering::Relaxed);
        }
    }
}

fn exchange(a: &Path, b: &Path) -> bool {
    renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).is_ok()
}

#[test]
fn nobody_who_swaps_names_leads_an_install_elsewhere() {
    let scene = Scene::new();
    for attack in [Attack::Folder, Attack::HardLink, Attack::Temporary] {
        let through = scene.race(attack, |n, swaps| {
            if n.is_multiple_of(500) {
                assert_eq!(scene.look(), scene.outside, "after {n} installs");
            }
            n >= INSTALLS && swaps >= ATTEMPTS
        });
        assert_eq!(scene.look(), scene.outside);
        assert!(through > 0, "the installs were only ever disturbed");
    }
}

/// What is missed without a rule: an attack that then succeeds, or a link that is then followed.
fn is_missed(guard: Guard) {
    let scene = Scene::new();
    match guard {
        Guard::NoLinkOnTheWay => scene.breaks_without(guard, Attack::Folder),
        Guard::FreshTemporary => scene.breaks_without(guard, Attack::Temporary),
        Guard::SameInode | Guard::SingleName => scene.breaks_without(guard, Attack::HardLink),
        Guard::TrustedLink => scene.follows_without(guard),
    }
}

#[test]
fn each_rule_is_missed_when_it_is_taken_away() {
    Guard::ALL.into_iter().for_each(is_missed);
}
