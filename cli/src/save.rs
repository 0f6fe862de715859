//! `--outdir`, `--errdir`: a file for each host with what it has written.
//!
//! A file holds exactly the bytes of the host's answer, and is empty if there were none. Names come
//! from the controller and are made safe all the same: no name leaves the folder, and nothing that
//! lies there under the name, such as a link, is followed.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use controller::types::Answer;

use crate::fail::Failure;
use crate::gathered::{stderr, stdout};
use crate::render::is_supposed;

/// Where files go.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct SaveArgs {
    /// A file for each host in this folder with its standard output
    #[arg(long, value_name = "DIR", help_heading = "View")]
    pub(crate) outdir: Option<PathBuf>,
    /// A file for each host in this folder with its standard error
    #[arg(long, value_name = "DIR", help_heading = "View")]
    pub(crate) errdir: Option<PathBuf>,
}

impl SaveArgs {
    /// Makes the folders, so that one that cannot be had is known before anything is started.
    pub(crate) fn ready(&self) -> Result<(), Failure> {
        for dir in self.outdir.iter().chain(&self.errdir) {
            fs::create_dir_all(dir).map_err(|error| {
                let what = format!("{}: the folder cannot be made: {error}", dir.display());
                Failure::usage(what, "name a folder in which files can be written")
            })?;
        }
        Ok(())
    }

    /// Writes what hosts have answered. A later answer takes the place of an earlier one.
    pub(crate) fn save(&self, answer: &Answer, hosts: &[String]) -> Result<(), Failure> {
        if is_supposed(answer) {
            return Ok(());
        }
        let parts = [(&self.outdir, stdout(answer)), (&self.errdir, stderr(answer))];
        for (dir, bytes) in parts {
            let Some(dir) = dir else { continue };
            for host in hosts {
                let path = dir.join(safe(host));
                write(&path, &bytes).map_err(|error| {
                    let what = format!("{}: cannot be written: {error}", path.display());
                    let help = "the order goes on; `barid runs show` has the output";
                    Failure::new(crate::exit::Exit::Failed, "output", what).with_help(help)
                })?;
            }
        }
        Ok(())
    }
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).custom_flags(libc::O_NOFOLLOW);
    options.open(path)?.write_all(bytes)
}

/// A name as a file's: what could be anything but a part of a name is written as `%2F`. Different
/// names stay different.
pub(crate) fn safe(name: &str) -> String {
    let mut file = String::with_capacity(name.len());
    for (at, b) in name.bytes().enumerate() {
        let plain = b.is_ascii_alphanumeric() || b"_-@".contains(&b) || (b == b'.' && at > 0);
        match plain {
            true => file.push(char::from(b)),
            false => file.push_str(&format!("%{b:02X}")),
        }
    }
    if file.is_empty() { "%".into() } else { file }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::gathered::testing::answer;

    #[test]
    fn a_file_has_the_bytes_of_its_host() {
        let dir = tempfile::tempdir().expect("a folder");
        let save = SaveArgs {
            outdir: Some(dir.path().join("a/out")),
            errdir: Some(dir.path().join("err")),
        };
        save.ready().expect("made");
        let read = |path: &str| fs::read(dir.path().join(path)).expect("a file");
        let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let binary = Answer { binary: true, ..answer("n1", "ok", None, "/wA=") };
        save.save(&binary, &names(&["n1", "n2", "../x"])).expect("written");
        assert_eq!(read("a/out/n1"), b"\xff\x00");
        assert_eq!((read("a/out/%2E.%2Fx"), read("err/n2")), (b"\xff\x00".to_vec(), vec![]));
        save.save(&answer("n1", "failed", Some(1), "x"), &names(&["n1"])).expect("written");
        assert_eq!(read("a/out/n1"), b"x");
        save.save(&answer("n1", "not-reached", None, ""), &names(&["n1"])).expect("nothing to do");
        assert_eq!(read("a/out/n1"), b"x");
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("a/out/n3")).expect("linked");
        let failure = save.save(&binary, &names(&["n3"])).expect_err("a link is not followed");
        assert!(failure.text().contains("a/out/n3"), "{failure:?}");
    }

    #[test]
    fn a_folder_that_cannot_be_is_named() {
        let save = SaveArgs { outdir: Some("/dev/null/x".into()), errdir: None };
        assert!(save.ready().expect_err("no").text().contains("/dev/null/x"));
    }

    proptest! {
        #[test]
        fn every_name_is_one_file_in_the_folder(a in "\\PC{0,6}", b in "[./%a-]{0,4}") {
            for name in [&a, &b] {
                let file = safe(name);
                prop_assert!(!file.is_empty() && !file.contains('/') && !file.starts_with('.'));
            }
            prop_assert_eq!(a == b, safe(&a) == safe(&b));
        }
    }
}
