//! Reading pieces of files below a path that was looked at before.
//!
//! Whoever asks names a file and a place in it; what is there now is read, by descriptors and
//! without following a link below the path. Whether it is what it was is for the asker to check.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};

use crate::tree::{self, Dirs};

/// A file or a folder, open for reading pieces of it.
pub struct Pieces {
    /// None: it is a file.
    dirs: Option<Dirs>,
    /// The file that was read last, if it is one.
    open: (Vec<u8>, Option<File>),
}

impl Pieces {
    /// Opens a path; if it is a link itself, what it points to.
    pub fn open(source: &Path) -> io::Result<Pieces> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let root = rustix::fs::open(source, flags, Mode::empty())?;
        match tree::kind(&rustix::fs::fstat(&root)?) {
            FileType::Directory => {
                Ok(Pieces { dirs: Some(Dirs::new(root)), open: (Vec::new(), None) })
            }
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let file = File::from(rustix::fs::open(source, flags, Mode::empty())?);
                Ok(Pieces { dirs: None, open: (Vec::new(), Some(file)) })
            }
            _ => Err(io::Error::other("neither a directory nor a regular file")),
        }
    }

    /// So many bytes of the file with this path, empty for the source itself. `None`: it has none
    /// there, is no file, or cannot be read.
    pub fn read(&mut self, path: &[u8], offset: u64, len: usize) -> Option<Vec<u8>> {
        if self.open.0 != path {
            let dirs = self.dirs.as_mut()?;
            // No name leads upward: each component is looked up in the directory above it.
            let plain = |part: &[u8]| !matches!(part, b"" | b"." | b"..");
            if !path.split(|byte| *byte == b'/').all(plain) {
                return None;
            }
            let (dir, name) = match path.iter().rposition(|byte| *byte == b'/') {
                Some(slash) => (&path[..slash], &path[slash + 1..]),
                None => (&[][..], path),
            };
            let file = dirs.at(dir).and_then(|dir| tree::open_file(dir, name)).ok();
            self.open = (path.to_vec(), file.map(|(file, _)| file));
        }
        let mut bytes = vec![0; len];
        self.open.1.as_ref()?.read_exact_at(&mut bytes, offset).ok()?;
        Some(bytes)
    }
}
