//! What other tools send from one version to the next, each with its best flags. Tools that are not
//! installed are said to be so; nothing is fetched.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::tree;

/// A way to go from one version to the next.
pub(crate) struct Peer {
    /// What it is.
    pub(crate) what: String,
    /// The bytes that it sends; none if it is not installed.
    pub(crate) bytes: Option<u64>,
}

/// A file that is another in the new version, and the old one with the same path.
struct Changed {
    old: Option<PathBuf>,
    new: PathBuf,
}

/// All of them.
pub(crate) fn all(work: &Path, old: &Path, new: &Path) -> Result<Vec<Peer>> {
    let dir = work.join("peers");
    fs::create_dir(&dir)?;
    let changed = changed(old, new)?;
    let peers = [
        ("changed files, zstd -19 each", zstd_each(&dir, &changed, false)?),
        ("zstd -19 --long --patch-from, each changed file", zstd_each(&dir, &changed, true)?),
        ("the same over all changed files, sorted, as one", zstd_solid(&dir, &changed)?),
        ("bsdiff, each changed file (zstd -19 where there was none)", bsdiff(&dir, &changed)?),
        ("xdelta3 -9, sorted tars of all files", xdelta3(&dir, old, new)?),
        ("rsync -ac -z --zc=zstd --zl=19, both directions", rsync(&dir, old, new)?),
        ("casync, the index and new chunks", casync(&dir, old, new)?),
        ("OSTree, a static delta without fallbacks", ostree(&dir, old, new)?),
    ];
    Ok(peers.map(|(what, bytes)| Peer { what: what.into(), bytes }).into())
}

fn changed(old: &Path, new: &Path) -> Result<Vec<Changed>> {
    if new.is_file() {
        return Ok(vec![Changed { old: Some(old.into()), new: new.into() }]);
    }
    let mut changed = Vec::new();
    for path in tree::files(new)? {
        let before = old.join(path.strip_prefix(new)?);
        let before = before.is_file().then_some(before);
        let same = match &before {
            Some(before) => fs::read(before)? == fs::read(&path)?,
            None => false,
        };
        if !same {
            changed.push(Changed { old: before, new: path });
        }
    }
    // As packs sort them: what is alike comes together.
    changed.sort_by_key(|file| {
        let of = |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_owned());
        (of(file.new.extension()), of(file.new.file_name()), file.new.clone())
    });
    Ok(changed)
}

/// Whether a program is there.
fn has(program: &str) -> bool {
    let found = Command::new("sh").arg("-c").arg(format!("command -v {program}")).output();
    found.is_ok_and(|output| output.status.success())
}

fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    let failed = || format!("{command:?}: {}", tests::show(&output.stderr));
    ensure!(output.status.success(), failed());
    Ok(tests::show(&output.stdout))
}

fn zstd(old: Option<&Path>, new: &Path, to: &Path) -> Result<u64> {
    let mut command = Command::new("zstd");
    command.args(["-q", "-f", "-19", "--long=31"]);
    if let Some(old) = old {
        command.arg(format!("--patch-from={}", old.display()));
    }
    run(command.arg(new).arg("-o").arg(to))?;
    Ok(fs::metadata(to)?.len())
}

fn zstd_each(dir: &Path, changed: &[Changed], patch: bool) -> Result<Option<u64>> {
    if !has("zstd") {
        return Ok(None);
    }
    let one = |file: &Changed| {
        let old =
            file.old.as_deref().filter(|old| patch && fs::metadata(old).is_ok_and(|m| m.len() > 0));
        zstd(old, &file.new, &dir.join("out"))
    };
    changed.iter().map(one).sum::<Result<u64>>().map(Some)
}

fn zstd_solid(dir: &Path, changed: &[Changed]) -> Result<Option<u64>> {
    if !has("zstd") {
        return Ok(None);
    }
    let join = |name: &str, files: &mut dyn Iterator<Item = &Path>| -> Result<PathBuf> {
        let mut bytes = Vec::new();
        for file in files {
            bytes.extend(fs::read(file)?);
        }
        fs::write(dir.join(name), bytes)?;
        Ok(dir.join(name))
    };
    let old = join("old", &mut changed.iter().filter_map(|file| file.old.as_deref()))?;
    let new = join("new", &mut changed.iter().map(|file| file.new.as_path()))?;
    let some = fs::metadata(&old)?.len() > 0;
    zstd(some.then_some(old.as_path()), &new, &dir.join("out")).map(Some)
}

fn bsdiff(dir: &Path, changed: &[Changed]) -> Result<Option<u64>> {
    if !has("bsdiff") || !has("zstd") {
        return Ok(None);
    }
    let to = dir.join("out");
    let one = |file: &Changed| {
        // It maps both files, which nobody can do with an empty one.
        let some = |path: &&PathBuf| fs::metadata(path).is_ok_and(|meta| meta.len() > 0);
        let Some(old) = file.old.as_ref().filter(|_| some(&&file.new)).filter(some) else {
            return zstd(None, &file.new, &to);
        };
        run(Command::new("bsdiff").arg(old).arg(&file.new).arg(&to))?;
        Ok(fs::metadata(&to)?.len())
    };
    changed.iter().map(one).sum::<Result<u64>>().map(Some)
}

fn xdelta3(dir: &Path, old: &Path, new: &Path) -> Result<Option<u64>> {
    if !has("xdelta3") || !has("tar") {
        return Ok(None);
    }
    for (name, of) in [("old.tar", old), ("new.tar", new)] {
        let mut tar = Command::new("tar");
        tar.args(["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "-cf"]);
        tar.arg(dir.join(name));
        match of.is_file() {
            true => tar.arg("-C").arg(of.parent().context("a folder")?).args(of.file_name()),
            false => tar.arg("-C").arg(of).arg("."),
        };
        run(&mut tar)?;
    }
    // The window is as long as the source, so that all of it can be referred to.
    let window = fs::metadata(dir.join("old.tar"))?.len().next_power_of_two().max(1 << 19);
    let mut command = Command::new("xdelta3");
    command.args(["-e", "-f", "-9", "-B"]).arg(window.to_string()).arg("-s");
    run(command.arg(dir.join("old.tar")).arg(dir.join("new.tar")).arg(dir.join("out")))?;
    Ok(Some(fs::metadata(dir.join("out"))?.len()))
}

/// The receiver is a process on the other end of a pipe, and has a copy of the old version.
fn rsync(dir: &Path, old: &Path, new: &Path) -> Result<Option<u64>> {
    if !has("rsync") {
        return Ok(None);
    }
    let (shell, there) = (dir.join("shell"), dir.join("there"));
    fs::write(&shell, "#!/bin/sh\nshift\nexec \"$@\"\n")?;
    fs::set_permissions(&shell, fs::Permissions::from_mode(0o700))?;
    run(Command::new("cp").arg("-a").arg(old).arg(&there))?;
    let slash = |path: &Path| match path.is_file() {
        true => path.display().to_string(),
        false => format!("{}/", path.display()),
    };
    let mut command = Command::new("rsync");
    command.args(["-ac", "-z", "--zc=zstd", "--zl=19", "--stats", "--no-human-readable", "-e"]);
    command.arg(&shell).arg(slash(new)).arg(format!("there:{}", slash(&there)));
    let stats = run(&mut command)?;
    let count = |what: &str| -> Result<u64> {
        let line = stats.lines().find_map(|line| line.strip_prefix(what));
        let digits: String =
            line.context("the statistics of rsync")?.chars().filter(char::is_ascii_digit).collect();
        Ok(digits.parse()?)
    };
    let total = count("Total bytes sent:")? + count("Total bytes received:")?;
    fs::remove_dir_all(&there).or_else(|_| fs::remove_file(&there))?;
    Ok(Some(total))
}

/// A folder, or one that holds the file.
fn folder(dir: &Path, name: &str, of: &Path) -> Result<PathBuf> {
    if of.is_dir() {
        return Ok(of.into());
    }
    let made = dir.join(name);
    fs::create_dir(&made)?;
    fs::copy(of, made.join("file"))?;
    Ok(made)
}

/// Chunks of both versions lie in one store; what the new one adds is what is fetched.
fn casync(dir: &Path, old: &Path, new: &Path) -> Result<Option<u64>> {
    if !has("casync") {
        return Ok(None);
    }
    let store = dir.join("casync.castr");
    let mut sizes = Vec::new();
    for (name, of) in [("casync-old", old), ("casync-new", new)] {
        let mut make = Command::new("casync");
        make.args(["make", "--without=privileged"]).arg(format!("--store={}", store.display()));
        let index = dir.join(format!("{name}.caidx"));
        run(make.arg(&index).arg(folder(dir, name, of)?))?;
        let chunks = tree::files(&store)?.into_iter();
        let bytes = chunks.map(|path| Ok(fs::metadata(path)?.len())).sum::<Result<u64>>()?;
        sizes.push((bytes, fs::metadata(&index)?.len()));
    }
    let [(before, _), (after, index)] = sizes[..] else { return Ok(None) };
    Ok(Some(after - before + index))
}

/// In one file, with everything as a delta or whole in it.
fn ostree(dir: &Path, old: &Path, new: &Path) -> Result<Option<u64>> {
    if !has("ostree") {
        return Ok(None);
    }
    let repo = format!("--repo={}", dir.join("ostree").display());
    run(Command::new("ostree").args(["init", "--mode=archive", &repo]))?;
    let mut commits = Vec::new();
    for (name, of) in [("ostree-old", old), ("ostree-new", new)] {
        let mut commit = Command::new("ostree");
        let tree = format!("--tree=dir={}", folder(dir, name, of)?.display());
        commit.args(["commit", &repo, "-b", "versions", &tree, "--timestamp=2026-01-01"]);
        commits.push(run(&mut commit)?.trim().to_owned());
    }
    let [from, to] = &commits[..] else { return Ok(None) };
    let out = dir.join("out");
    fs::remove_file(&out).ok();
    let mut delta = Command::new("ostree");
    delta.args(["static-delta", "generate", &repo, "--inline", "--min-fallback-size=0"]);
    delta.args([&format!("--from={from}"), &format!("--to={to}")]);
    run(delta.arg(format!("--filename={}", out.display())))?;
    Ok(Some(fs::metadata(&out)?.len()))
}
