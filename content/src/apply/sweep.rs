//! What an apply that was killed has left: temporary files under names that its tag begins.
//!
//! In a directory with few entries each name that can be there is tried. One with many is listed,
//! which is one look and not one for each of them.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, unlinkat};
use rustix::io::Errno;

use super::error::{ApplyError, Stage};
use super::extra::split;
use super::rules::Delete;
use super::{Installer, Job, check, ground, temp_name, temp_prefix};
use crate::manifest::Kind;
use crate::tree::{self, Dirs};

/// With more entries than this a directory is listed.
const FEW: usize = 16;

impl Installer {
    /// Removes the temporary files that a killed apply of this job left, and counts them.
    pub fn sweep(&self, job: &Job<'_>) -> Result<u64, ApplyError> {
        check(job)?;
        let ground = ground::resolve(&self.root, job)?;
        if !ground.missing.is_empty() {
            return Ok(0);
        }
        let entries = &job.target.entries;
        let mut places: BTreeMap<&[u8], Vec<usize>> = BTreeMap::new();
        let mut last = None;
        for (n, entry) in entries.iter().enumerate().filter(|(_, e)| e.kind != Kind::Dir) {
            let (mut dir, _) = ground.place(entry);
            // Neighbours have one directory, which is listed anyway once there are many of them.
            if last.replace(dir) == Some(dir) && places[dir].len() > FEW {
                continue;
            }
            loop {
                let few = places.entry(dir).or_default();
                if few.len() <= FEW {
                    few.push(n);
                }
                // Below what was to be replaced by a directory they lie above it.
                if dir.is_empty() || job.rules.delete == Delete::Nothing {
                    break;
                }
                dir = split(dir).0;
            }
        }
        let root = ground.dir.try_clone();
        let mut dirs = Dirs::new(root.map_err(ground.failed(Stage::Open, b""))?);
        let mut removed = 0;
        for (dir, few) in places {
            // A directory that is not there holds no leftovers.
            let Ok(parent) = dirs.at(dir) else { continue };
            let left = match few.len() > FEW {
                false => names(few.into_iter(), job),
                // Where nobody may look it can still be tried.
                true => left_in(parent, job).unwrap_or_else(|| names(0..entries.len(), job)),
            };
            for name in left {
                match unlinkat(parent, name, AtFlags::empty()) {
                    Ok(()) => removed += 1,
                    Err(Errno::NOENT) => {}
                    Err(err) => return Err(ground.failed(Stage::Remove, dir)(err.into())),
                }
            }
        }
        Ok(removed)
    }
}

/// The names that the temporary files of these entries may have.
fn names(entries: impl Iterator<Item = usize>, job: &Job<'_>) -> Vec<String> {
    // The second is that of a file that was about to be kept.
    let kept = (!job.rules.save.is_empty()).then_some(job.target.entries.len());
    let places = entries.flat_map(|n| [Some(n), kept.map(|all| n + all)]);
    places.flatten().map(|n| temp_name(job.tag, n)).collect()
}

/// Which of such names are in a directory; `None` if it cannot be listed.
fn left_in(dir: BorrowedFd<'_>, job: &Job<'_>) -> Option<Vec<String>> {
    let prefix = temp_prefix(job.tag);
    let most = 2 * job.target.entries.len();
    let all = tree::open_self(dir).and_then(|dir| tree::names(&dir)).ok()?;
    let all = all.into_iter().filter_map(|name| String::from_utf8(name).ok());
    let is_ours = |name: &String| {
        let number = name.strip_prefix(&prefix).and_then(|number| number.parse::<usize>().ok());
        number.is_some_and(|n| n < most && *name == temp_name(job.tag, n))
    };
    Some(all.filter(is_ours).collect())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::tests::Bench;
    use super::*;
    use crate::apply::Rules;

    /// A folder with so many files, and one below it with a single one.
    fn swept(files: usize, rules: &Rules) -> u64 {
        let bench = Bench::new();
        let names: Vec<String> = (0..files).map(|n| format!("d/{n:03}")).collect();
        let mut all: Vec<(&str, &[u8])> = names.iter().map(|name| (&**name, &b"x"[..])).collect();
        all.push(("d/e/f", b"x"));
        let target = bench.source(&all);
        let at = |name: &str| bench.at("root/srv").join(name);
        fs::create_dir_all(at("d/e")).expect("makes");
        let last = target.entries.len() - 1;
        let ours = [(0, "d/.barid-t1-3"), (last, "d/e/.barid-t1-"), (last, "d/.barid-t1-")];
        let ours = ours.map(|(n, name)| if n == 0 { name.into() } else { format!("{name}{n}") });
        let others =
            ["d/.barid-t2-3", "d/.barid-t1-x", "d/.barid-t1-03", "d/.barid-t1-99999", "d/3"];
        for name in ours.iter().map(String::as_str).chain(others) {
            fs::write(at(name), "left").expect("writes");
        }
        let job = Job { tag: "t1", dest: b"/srv", target: &target, rules, before: None };
        let installer = Installer::new(bench.at("root"));
        let removed = installer.sweep(&job).expect("sweeps");
        assert!(others.iter().all(|name| at(name).exists()), "of {files}");
        assert!(!at(&ours[0]).exists() && !at(&ours[1]).exists(), "of {files}");
        assert_eq!(installer.sweep(&job).expect("sweeps"), 0);
        removed
    }

    #[test]
    fn a_folder_is_listed_or_tried_and_what_is_others_stays() {
        let upwards = Rules { delete: Delete::All, ..Rules::default() };
        for files in [FEW - 1, FEW + 5] {
            assert_eq!(swept(files, &upwards), 3, "of {files}");
        }
        // What was not going to take the place of a folder has left nothing above itself.
        assert_eq!(swept(FEW - 1, &Rules::default()), 2);
    }
}
