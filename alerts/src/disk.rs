//! Putting a small file in place of another: whoever looks finds the old one or the new one, whole,
//! after whatever crash.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

/// Writes a file beside its place, makes it durable, and puts it there; makes the folder first.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(dir)?;
    let beside = path.with_extension("new");
    let mut file = fs::File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    fs::File::open(dir)?.sync_all()
}
