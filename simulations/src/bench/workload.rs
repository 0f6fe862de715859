//! What is pushed in a laboratory: something new, or something in a new version.
//!
//! Beside each workload stands how few bytes it can be: the new version as one file in the manner
//! of tar under zstd at level 19, with the old version before it as a prefix where there is one.
//! Nothing that must also fit into a real system's rules will be much smaller.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use zstd::zstd_safe::CParameter;

use crate::{table, tree};

/// Bytes that do not compress.
const NOISE: usize = 20_000_000;
const SEED: u64 = 20_260_714;
const LEVEL: i32 = 19;
/// Of a wheel, whatever this machine is.
const PLATFORMS: [&str; 3] =
    ["manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux2014_x86_64"];
const PYTHON: &str = "3.12";

/// Something to push.
pub(crate) struct Workload {
    pub(crate) name: String,
    /// What the hosts have before. Nothing if there is none.
    pub(crate) old: Option<PathBuf>,
    pub(crate) new: PathBuf,
    /// The fewest bytes.
    pub(crate) least: u64,
    /// How many files and bytes the new version has.
    pub(crate) size: String,
}

/// The names that [`fetch`] knows.
pub(crate) const NAMES: [&str; 4] = ["noise", "headers", "numpy", "django"];

/// Makes or fetches a workload below a folder.
pub(crate) fn fetch(name: &str, dir: &Path) -> Result<Workload> {
    let dir = dir.join(name);
    let new = dir.join("new");
    fs::create_dir_all(&new)?;
    let (old, title) = match name {
        "noise" => {
            let mut bytes = vec![0; NOISE];
            SmallRng::seed_from_u64(SEED).fill_bytes(&mut bytes);
            fs::write(new.join("noise.bin"), bytes)?;
            (None, "one file that does not compress".to_owned())
        }
        "headers" => (None, headers(&dir, &new)?),
        "numpy" => wheels(&dir, "numpy", ["2.4.5", "2.4.6"])?,
        "django" => wheels(&dir, "django", ["5.2.18", "5.2.19"])?,
        _ => anyhow::bail!("no workload {name:?}; there are: {}", NAMES.join(", ")),
    };
    Workload::new(title, old, new)
}

/// Any two folders: from the first to the second.
pub(crate) fn pair(old: &Path, new: &Path) -> Result<Workload> {
    let name = format!("{} to {}", old.display(), new.display());
    Workload::new(name, Some(old.canonicalize()?), new.canonicalize()?)
}

impl Workload {
    fn new(name: String, old: Option<PathBuf>, new: PathBuf) -> Result<Workload> {
        let files = tree::files(&new)?;
        let bytes: u64 =
            files.iter().map(|path| Ok(fs::metadata(path)?.len())).sum::<std::io::Result<u64>>()?;
        let size = format!("{} files, {}", files.len(), table::bytes(bytes));
        let before = old.as_deref().map(tree::tar).transpose()?.unwrap_or_default();
        let least = least(&before, &tree::tar(&new)?)?;
        Ok(Workload { name, old, new, least, size })
    }
}

/// How long the new bytes are under zstd, the old ones being known.
fn least(old: &[u8], new: &[u8]) -> Result<u64> {
    let counted = tree::Counted::new(std::io::sink());
    let mut encoder = zstd::Encoder::with_ref_prefix(counted, LEVEL, old)?;
    // Without both of these the prefix is as good as not there.
    let window = (old.len() + new.len()).next_power_of_two().ilog2().clamp(20, 27);
    encoder.set_parameter(CParameter::WindowLog(window))?;
    encoder.set_parameter(CParameter::EnableLongDistanceMatching(true))?;
    encoder.write_all(new)?;
    Ok(encoder.finish()?.count)
}

/// The newest kernel headers that Debian has.
fn headers(dir: &Path, new: &Path) -> Result<String> {
    let search = ["search", "--names-only", "^linux-headers-[0-9.-]*-common$"];
    let found = output(Command::new("apt-cache").args(search))?;
    let names = found.lines().filter_map(|line| line.split(' ').next());
    let name = names.max().context("no package of kernel headers: is apt set up?")?;
    output(Command::new("apt-get").args(["download", "-q", name]).current_dir(dir))?;
    let package = file_named(dir, ".deb")?;
    output(Command::new("dpkg-deb").arg("-x").arg(package).arg(new))?;
    Ok(name.to_owned())
}

/// Two versions of a Python package, unpacked as an installer does it: with fresh times.
fn wheels(dir: &Path, name: &str, versions: [&str; 2]) -> Result<(Option<PathBuf>, String)> {
    for (version, to) in versions.iter().zip(["old", "new"]) {
        let at = dir.join(format!("wheel-{to}"));
        let mut command = Command::new("python3");
        command.args(["-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:"]);
        command.args(["--disable-pip-version-check", "--python-version", PYTHON]);
        command.args(PLATFORMS.iter().flat_map(|platform| ["--platform", platform]));
        command.arg("-d").arg(&at).arg(format!("{name}=={version}"));
        output(&mut command)?;
        let wheel = file_named(&at, ".whl")?;
        let to = dir.join(to);
        output(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(wheel).arg(to))?;
    }
    // Installed some time ago: of files that are as long and as old as before rsync sees nothing.
    let then = SystemTime::now() - Duration::from_secs(24 * 3600);
    for path in tree::files(&dir.join("old"))? {
        fs::File::options().write(true).open(path)?.set_modified(then)?;
    }
    let [before, after] = versions;
    Ok((Some(dir.join("old")), format!("{name}, {before} to {after}")))
}

fn file_named(dir: &Path, end: &str) -> Result<PathBuf> {
    let files = tree::files(dir)?;
    let found = files.into_iter().find(|path| path.to_string_lossy().ends_with(end));
    found.with_context(|| format!("no {end} in {}", dir.display()))
}

fn output(command: &mut Command) -> Result<String> {
    let made = command.stdin(Stdio::null()).output();
    let output = made.with_context(|| format!("starting {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", tests::show(&output.stderr).trim());
    Ok(tests::show(&output.stdout))
}

/// Makes sure that a folder holds every file of another with the same bytes. Returns how many files
/// it holds besides: of an old version that were not deleted.
pub(crate) fn compare(source: &Path, there: &Path) -> Result<usize> {
    let files = tree::files(source)?;
    for path in &files {
        let copy = there.join(path.strip_prefix(source)?);
        let read = |path: &Path| fs::read(path).with_context(|| path.display().to_string());
        ensure!(read(path)? == read(&copy)?, "{} is not its source", copy.display());
    }
    Ok(tree::files(there)?.len() - files.len())
}
