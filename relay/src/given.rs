//! What a command is given besides its words: bytes to read, and files in a private folder.
//!
//! Both come by content hash, so they cross each link once and are verified before the command
//! begins. Its input is a sealed file in memory, which nobody can change or name; its files, which
//! only its account can read, lie in a folder of their own and go when the command has ended. What
//! a node that was killed has left of them goes when it starts again.
//!
//! The folder stays the node's: an account that owned it could put a link in its place and have
//! the node clean up what lies behind that.

use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use bytes::Bytes;
use mesh::PullFault;
use protos::{File, Part};
use rustix::fs::{MemfdFlags, SealFlags};
use tracing::warn;

use crate::account::Account;
use crate::transfer::Transfers;

/// What folders outside of the node's own begin with.
const PREFIX: &str = "barid-";

/// What commands of this node are given.
#[derive(Clone)]
pub(crate) struct Giver {
    pub(crate) transfers: Transfers,
    /// The node's own folder for such files, which only its own account can enter.
    pub(crate) dir: PathBuf,
}

/// Why a command is not given what its order says. It is not started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GiveError {
    #[error("{0}")]
    Content(&'static str),
    #[error("its content is longer or shorter than the order says")]
    Length,
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
}

/// The files of one command; dropping this removes them.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// Names the folder to whoever cleans up after this process, if it is not the node's own.
    note: Option<PathBuf>,
    pub(crate) first: PathBuf,
}

impl Folder {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        remove(&self.path);
        if let Some(note) = &self.note {
            std::fs::remove_file(note).ok();
        }
    }
}

impl Giver {
    /// What a command reads: nothing, or these bytes.
    pub(crate) async fn stdin(&self, parts: &[Part]) -> Result<Stdio, GiveError> {
        if parts.is_empty() {
            return Ok(Stdio::null());
        }
        let pieces = self.pieces(parts).await?;
        let sealed = tokio::task::spawn_blocking(move || sealed(&pieces)).await;
        let sealed = sealed.expect("writing to memory does not panic");
        let sealed = sealed.map_err(|source| GiveError::Io { what: "its input".into(), source });
        Ok(sealed?.into())
    }

    /// Puts files into a folder for an account; nothing, if there are none.
    pub(crate) async fn files(
        &self,
        files: &[File],
        account: Option<&Account>,
    ) -> Result<Option<Folder>, GiveError> {
        let mut whole = Vec::new();
        for file in files {
            whole.push((file.name.clone(), self.pieces(&file.parts).await?));
        }
        if whole.is_empty() {
            return Ok(None);
        }
        let (dir, account) = (self.dir.clone(), account.cloned());
        let made = tokio::task::spawn_blocking(move || place(&dir, whole, account.as_ref())).await;
        made.expect("writing files does not panic").map(Some)
    }

    async fn pieces(&self, parts: &[Part]) -> Result<Vec<Bytes>, GiveError> {
        let mut pieces = Vec::new();
        for part in parts {
            let fault = |fault: PullFault| GiveError::Content(crate::exec::word(fault));
            let piece = self.transfers.obtain(part.id).await.map_err(fault)?;
            if piece.len() != part.bytes as usize {
                return Err(GiveError::Length);
            }
            pieces.push(piece);
        }
        Ok(pieces)
    }

    /// Removes what a process that was killed has left. Blocks.
    pub(crate) fn sweep(&self) {
        let Ok(left) = std::fs::read_dir(&self.dir) else { return };
        for entry in left.flatten() {
            let path = entry.path();
            if path.is_dir() {
                remove(&path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let folder = PathBuf::from(text.trim_end());
            let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.starts_with(PREFIX) && folder.parent() == Some(&std::env::temp_dir()) {
                remove(&folder);
            }
            std::fs::remove_file(&path).ok();
        }
    }
}

/// A file in memory that can be read and not changed.
fn sealed(pieces: &[Bytes]) -> io::Result<std::fs::File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = std::fs::File::from(rustix::fs::memfd_create("barid-stdin", flags)?);
    for piece in pieces {
        file.write_all(piece)?;
    }
    file.rewind()?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file)
}

type Whole = Vec<(String, Vec<Bytes>)>;

fn place(dir: &Path, files: Whole, account: Option<&Account>) -> Result<Folder, GiveError> {
    let failed = |path: &Path| {
        let what = path.display().to_string();
        move |source| GiveError::Io { what, source }
    };
    let id = hex(&certs::random::<16>());
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed(dir))?;
    let (path, note) = match account {
        None => (dir.join(id), None),
        // Another account cannot enter the node's own folder.
        Some(_) => {
            let (path, note) = (std::env::temp_dir().join(format!("{PREFIX}{id}")), dir.join(id));
            std::fs::write(&note, path.display().to_string()).map_err(failed(&note))?;
            (path, Some(note))
        }
    };
    let first = path.join(files.first().map_or("", |(name, _)| name));
    let folder = Folder { path: path.clone(), note, first };
    DirBuilder::new().mode(0o700).create(&path).map_err(failed(&path))?;
    for (name, pieces) in files {
        let path = path.join(name);
        let write = || -> io::Result<()> {
            let options = OpenOptions::new().write(true).create_new(true).mode(0o500).clone();
            let mut file = options.open(&path)?;
            pieces.iter().try_for_each(|piece| file.write_all(piece))?;
            file.set_permissions(Permissions::from_mode(0o500))?;
            give(&path, account, |account| Some(account.uid.as_raw()))
        };
        write().map_err(failed(&path))?;
    }
    let mode = if account.is_some() { 0o550 } else { 0o500 };
    std::fs::set_permissions(&path, Permissions::from_mode(mode)).map_err(failed(&path))?;
    give(&path, account, |_| None).map_err(failed(&path))?;
    Ok(folder)
}

/// Gives a file to an account's group, and to that owner.
fn give(
    path: &Path,
    account: Option<&Account>,
    owner: fn(&Account) -> Option<u32>,
) -> io::Result<()> {
    match account {
        Some(account) => chown(path, owner(account), Some(account.gid.as_raw())),
        None => Ok(()),
    }
}

/// Removes a folder that this node has made. A link in its place is removed, not followed.
fn remove(path: &Path) {
    if path.is_symlink() {
        std::fs::remove_file(path).ok();
        return;
    }
    // Without the right to write nobody but root could empty it.
    std::fs::set_permissions(path, Permissions::from_mode(0o700)).ok();
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            warn!(path = %path.display(), %error, "the files of a command are not removed");
        }
        _ => {}
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn files_are_private_and_go_with_their_folder() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let dir = temp.path().join("given");
        let pieces = vec![Bytes::from_static(b"ab"), Bytes::from_static(b"c")];
        let folder = place(&dir, vec![("x.sh".into(), pieces)], None).expect("it is placed");
        assert_eq!(std::fs::read(&folder.first).expect("it is there"), b"abc");
        let mode = |path: &Path| path.metadata().expect("it is there").permissions().mode() & 0o777;
        assert_eq!((mode(&folder.first), mode(folder.path())), (0o500, 0o500));
        let path = folder.path().to_owned();
        drop(folder);
        assert!(!path.exists() && dir.exists());
    }

    #[test]
    fn what_a_killed_process_left_is_swept_and_nothing_else() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let dir = temp.path().join("given");
        let folder = place(&dir, vec![("x".into(), Vec::new())], None).expect("it is placed");
        let kept = temp.path().join("kept");
        std::fs::create_dir(&kept).expect("made");
        std::fs::write(dir.join("note"), kept.display().to_string()).expect("written");
        let own = folder.path().to_owned();
        std::mem::forget(folder);
        let (inbox, _) = tokio::sync::mpsc::channel(1);
        let store = content::Store::open(temp.path().join("store")).expect("a store");
        let giver = Giver {
            transfers: Transfers::new(std::sync::Arc::new(store), inbox),
            dir: dir.clone(),
        };
        giver.sweep();
        assert!(!own.exists() && kept.exists() && !dir.join("note").exists());
    }

    #[test]
    fn input_cannot_be_changed() {
        let mut file = sealed(&[Bytes::from_static(b"words")]).expect("it is written");
        let mut text = String::new();
        io::Read::read_to_string(&mut file, &mut text).expect("it is readable");
        assert_eq!(text, "words");
        assert!(file.write_all(b"more").is_err() && file.set_len(1).is_err());
    }
}
