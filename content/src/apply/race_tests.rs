//! Somebody who owns the directory that is installed into swaps what is in it, as fast as can be,
//! to have us write, describe or delete elsewhere.
//!
//! The swaps are exchanges of two names, so that there is always something. What lies outside must
//! come out of tens of thousands of installs as it was. And each rule that keeps it so is taken
//! away once: then it must not.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::tests::{Bench, Provider};
use super::*;
use crate::guards::{Guard, without};
use crate::{Patterns, ingest};

/// Installs while somebody swaps; with all rules in place.
const INSTALLS: usize = 20_000;
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

    /// Installs while the attack goes on, until `done` says so. Returns how many installs went
    /// through.
    fn race(&self, attack: Attack, mut done: impl FnMut(usize) -> bool) -> usize {
        let home = self.bench.at("root/home/dir");
        let _ = fs::remove_dir_all(&home);
        self.install(1).expect("nobody disturbs");
        let outside = self.bench.at("outside");
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| attack.go_on(&home, &outside, &stop));
            let mut through = 0;
            let mut n = 0;
            while !done(n) {
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
            self.race(attack, |_| {
                broken = self.look() != self.outside;
                broken || began.elapsed() > PATIENCE
            })
        });
        assert!(broken, "nothing came through without {guard:?}");
    }
}

impl Attack {
    fn go_on(self, home: &Path, outside: &Path, stop: &AtomicBool) {
        let spare = home.join("spare");
        let mut n = 0_usize;
        while !stop.load(Ordering::Relaxed) {
            n += 1;
            match self {
                Attack::Folder => {
                    let _ = symlink(outside, &spare);
                    exchange(&spare, &home.join("d"));
                }
                Attack::HardLink => {
                    let _ = fs::hard_link(outside.join("own"), &spare);
                    exchange(&spare, &home.join(["d/own", "top"][n % 2]));
                    if n.is_multiple_of(7) {
                        let _ = fs::remove_file(&spare);
                    }
                }
                Attack::Temporary => {
                    let dir = ["d", ""][n % 2];
                    let temp = home.join(dir).join(temp_name("t1", n % 6));
                    let _ = symlink(outside.join("f"), temp);
                }
            }
        }
    }
}

fn exchange(a: &Path, b: &Path) {
    let _ = renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE);
}

#[test]
fn nobody_who_swaps_names_leads_an_install_elsewhere() {
    let scene = Scene::new();
    for attack in [Attack::Folder, Attack::HardLink, Attack::Temporary] {
        let through = scene.race(attack, |n| {
            if n.is_multiple_of(500) {
                assert_eq!(scene.look(), scene.outside, "after {n} installs");
            }
            n == INSTALLS / 3
        });
        assert_eq!(scene.look(), scene.outside);
        assert!(through > 0, "the installs were only ever disturbed");
    }
}

#[test]
fn a_link_on_the_way_would_lead_elsewhere() {
    Scene::new().breaks_without(Guard::NoLinkOnTheWay, Attack::Folder);
}

#[test]
fn a_temporary_file_that_was_found_would_be_another() {
    Scene::new().breaks_without(Guard::FreshTemporary, Attack::Temporary);
}

#[test]
fn another_inode_would_be_described() {
    Scene::new().breaks_without(Guard::SameInode, Attack::HardLink);
}

#[test]
fn another_name_would_be_described() {
    Scene::new().breaks_without(Guard::SingleName, Attack::HardLink);
}

#[test]
fn a_planted_link_above_would_be_followed() {
    let scene = Scene::new();
    let open = fs::Permissions::from_mode(0o777);
    fs::create_dir(scene.bench.at("root/home")).expect("dir");
    fs::set_permissions(scene.bench.at("root/home"), open).expect("mode");
    fs::create_dir(scene.bench.at("root/private")).expect("dir");
    symlink("/private", scene.bench.at("root/home/dir")).expect("link");
    scene.install(0).expect_err("somebody else may have made it");
    let private = || fs::read_dir(scene.bench.at("root/private")).expect("lists").count();
    assert_eq!(private(), 0);
    without(Guard::TrustedLink, || scene.install(0)).expect("it is followed");
    assert!(private() > 0);
}
