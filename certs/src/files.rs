//! Secrets on disk: private directories, and files only their owner can read.
//!
//! A file is written under another name, made durable, and only then given its own name, so its
//! own name always stands for a whole file. A lock on the directory keeps two writers apart and
//! lets a writer clear what an interrupted one left behind. Reading refuses a secret that others
//! can read: a key that leaked must be noticed, not used.
//!
//! It trusts the owner of the directory and root; it does not defend against either.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// No file of this crate is nearly as large.
const SIZE_MAX: u64 = 64 * 1024;

/// What is wrong with a file or a directory. Writing failed before the file had its name, unless
/// the last step, making the name durable, is what failed.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file that is only ever created is there already.
    #[error("{} already exists and is never overwritten", path.display())]
    Exists {
        /// Which file.
        path: PathBuf,
    },
    /// A secret that is not one any more.
    #[error("{path} is open to group or others (mode {mode:04o}); run: chmod 600 {path}",
        path = path.display())]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A directory in which others could replace our files.
    #[error("{path} can be written by group or others (mode {mode:04o}); run: chmod 700 {path}",
        path = path.display())]
    Shared {
        /// Which directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A file or directory that somebody else can change at will.
    #[error("{} belongs to user {owner}, neither to us nor to root", path.display())]
    Foreign {
        /// Which file or directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// Not a file of ours.
    #[error("{} is not a regular file of at most {SIZE_MAX} bytes", path.display())]
    Odd {
        /// Which file.
        path: PathBuf,
    },
}

/// Makes a directory, and the ones above it, for its owner only. One that is there already must
/// not be writable by others.
pub fn private_dir(path: &Path) -> Result<(), FileError> {
    let parent = parent(path);
    fs::create_dir_all(parent).map_err(failed("create the directory", parent))?;
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {
            let parent = File::open(parent).and_then(|dir| dir.sync_all());
            parent.map_err(failed("make durable", path))
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => check_dir(path),
        Err(error) => Err(failed("create the directory", path)(error)),
    }
}

/// Writes a secret that must not be there yet.
pub fn create_secret(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    write(path, bytes, |temporary| {
        // Unlike a rename, a link never replaces what is there.
        match fs::hard_link(temporary, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(FileError::Exists { path: path.into() })
            }
            done => done.map_err(failed("create", path)),
        }
    })
}

/// Writes a secret in place of the one that may be there. Whoever looks, at whatever moment and
/// after whatever crash, finds the old one or the new one, whole.
pub fn replace_secret(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    write(path, bytes, |temporary| fs::rename(temporary, path).map_err(failed("replace", path)))
}

/// Reads a secret, unless group or others can read it too.
pub fn read_secret(path: &Path) -> Result<Vec<u8>, FileError> {
    let file = File::open(path).map_err(failed("open", path))?;
    let metadata = file.metadata().map_err(failed("look at", path))?;
    check_owner(path, metadata.uid())?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(FileError::Exposed { path: path.into(), mode });
    }
    read_whole(path, &file)
}

/// Reads a small file that is no secret.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    read_whole(path, &File::open(path).map_err(failed("open", path))?)
}

fn read_whole(path: &Path, file: &File) -> Result<Vec<u8>, FileError> {
    let metadata = file.metadata().map_err(failed("look at", path))?;
    let mut bytes = Vec::new();
    if metadata.is_file() {
        file.take(SIZE_MAX + 1).read_to_end(&mut bytes).map_err(failed("read", path))?;
    }
    if !metadata.is_file() || bytes.len() as u64 > SIZE_MAX {
        return Err(FileError::Odd { path: path.into() });
    }
    Ok(bytes)
}

/// Writes a whole, durable file beside `path` and lets `name` give it its name.
fn write(
    path: &Path,
    bytes: &[u8],
    name: impl FnOnce(&Path) -> Result<(), FileError>,
) -> Result<(), FileError> {
    let dir = parent(path);
    let handle = File::open(dir).map_err(failed("open", dir))?;
    handle.lock().map_err(failed("lock", dir))?;
    let temporary = temporary(path);
    // We hold the lock, so a file of this name is what an interrupted writer left.
    remove(&temporary)?;
    let done = fill(&temporary, bytes).and_then(|()| name(&temporary));
    let removed = remove(&temporary);
    done.and(removed)?;
    handle.sync_all().map_err(failed("make durable", path))
}

fn fill(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(failed("create", path))?;
    file.write_all(bytes).map_err(failed("write", path))?;
    file.sync_all().map_err(failed("make durable", path))
}

fn remove(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

fn temporary(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".new");
    name.into()
}

fn check_dir(path: &Path) -> Result<(), FileError> {
    let metadata = fs::metadata(path).map_err(failed("look at", path))?;
    if !metadata.is_dir() {
        return Err(FileError::Exists { path: path.into() });
    }
    check_owner(path, metadata.uid())?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o022 != 0 {
        return Err(FileError::Shared { path: path.into(), mode });
    }
    Ok(())
}

fn check_owner(path: &Path, owner: u32) -> Result<(), FileError> {
    if owner == 0 || owner == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    Err(FileError::Foreign { path: path.into(), owner })
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    move |source| FileError::Io { action, path: path.into(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("it is there").mode() & 0o7777
    }

    #[test]
    fn created_once_replaced_often() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("secret");
        create_secret(&path, b"one").expect("it can be written");
        assert_eq!(mode(&path), 0o600);
        assert!(matches!(create_secret(&path, b"two"), Err(FileError::Exists { .. })));
        assert_eq!(read_secret(&path).expect("it is there and private"), b"one");
        replace_secret(&path, b"three").expect("it can be written");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(read_secret(&path).expect("it is there and private"), b"three");
        assert_eq!(
            fs::read_dir(dir.path()).expect("it is there").count(),
            1,
            "no temporary file stays"
        );
    }

    #[test]
    fn what_an_interrupted_writer_left_is_cleared() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("secret");
        fs::write(temporary(&path), b"hal").expect("it can be written");
        create_secret(&path, b"whole").expect("it can be written");
        fs::write(temporary(&path), b"hal").expect("it can be written");
        replace_secret(&path, b"new").expect("it can be written");
        assert_eq!(read_secret(&path).expect("it is there and private"), b"new");
        assert_eq!(fs::read_dir(dir.path()).expect("it is there").count(), 1);
    }

    #[test]
    fn an_exposed_secret_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("secret");
        create_secret(&path, b"x").expect("it can be written");
        for bits in [0o640, 0o604, 0o620, 0o601] {
            fs::set_permissions(&path, fs::Permissions::from_mode(bits)).expect("it is ours");
            let error = read_secret(&path).expect_err("it is refused").to_string();
            assert!(error.contains(&format!("chmod 600 {}", path.display())), "{error}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).expect("it is ours");
        read_secret(&path).expect("it is there and private");
    }

    #[test]
    fn directories_are_private() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("a/b");
        private_dir(&path).expect("it can be made");
        assert_eq!(mode(&path), 0o700);
        private_dir(&path).expect("it can be made");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o770)).expect("it is ours");
        let error = private_dir(&path).expect_err("it is refused").to_string();
        assert!(error.contains("chmod 700"), "{error}");
        fs::write(dir.path().join("file"), b"").expect("it can be written");
        assert!(private_dir(&dir.path().join("file")).is_err());
    }

    #[test]
    fn odd_files_are_refused() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        assert!(matches!(read(dir.path()), Err(FileError::Odd { .. })));
        let path = dir.path().join("large");
        create_secret(&path, &vec![0; SIZE_MAX as usize + 1]).expect("it can be written");
        assert!(matches!(read_secret(&path), Err(FileError::Odd { .. })));
    }
}
