//! What this node notes in files of its state folder, as JSON; and lists of names in a line.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::warn;

/// What is noted in a file. What is not there, or not readable, counts as nothing; the latter is
/// said.
pub(crate) fn read<T: DeserializeOwned + Default>(path: &Path) -> T {
    let noted = std::fs::read(path).ok().and_then(|bytes| {
        let read = serde_json::from_slice(&bytes);
        read.inspect_err(|error| warn!(path = %path.display(), %error, "not readable")).ok()
    });
    noted.unwrap_or_default()
}

/// Notes something in a file, in the place of what was there. Whether it is on disk; if not, that
/// is said.
pub(crate) fn write<T: Serialize>(path: &Path, value: &T) -> bool {
    let bytes = serde_json::to_vec(value).expect("plain values are valid JSON");
    let saved = certs::files::replace_secret(path, &bytes);
    let saved = saved.inspect_err(|error| {
        warn!(path = %path.display(), error = relay::chain(error), "not noted");
    });
    saved.is_ok()
}

/// The first so many, and how many there are beside them.
pub(crate) fn list(texts: &[String], most: usize, more: u64) -> String {
    let named = texts.iter().take(most).cloned().collect::<Vec<_>>().join(", ");
    match texts.len().saturating_sub(most) as u64 + more {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}
