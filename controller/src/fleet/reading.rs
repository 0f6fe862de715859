//! Reading content into the store, and what its attributes become.
//!
//! What is distributed is a manifest: that of a file, or of a folder with all that is in it. An
//! edit keeps the attributes of the one before it; other attributes are another manifest with the
//! same bytes.

use std::path::PathBuf;
use std::sync::Arc;

use content::{ContentId, Kind, Limits, Manifest, Patterns, Store};

use super::book::Content;
use crate::fault::Failure;

/// How much of a file is looked at to see whether it is text.
const LOOKED_AT: usize = 64 << 10;

/// Reads and makes manifests.
#[derive(Clone)]
pub(crate) struct Shelf {
    pub(crate) store: Arc<Store>,
}

/// Other attributes of a file; what is not given stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) mode: Option<String>,
    pub(crate) owner: Option<String>,
    pub(crate) group: Option<String>,
}

impl Shelf {
    /// Reads a file or a folder. Blocks.
    pub(crate) fn read(&self, path: &str, exclude: &[String]) -> Result<Manifest, Failure> {
        let path = PathBuf::from(path);
        if !path.is_absolute() {
            let message = format!("{}: not an absolute path", path.display());
            return Err(Failure::bad(message, "the controller reads it, from its own root"));
        }
        self.store.make_room(0).map_err(|error| Failure::content(&error))?;
        let exclude = Patterns::new(exclude);
        let exclude = exclude.map_err(|error| Failure::bad(error.to_string(), "see --exclude"))?;
        let read = content::ingest(&path, &exclude, &self.store, &mut |_| ());
        let read = read.map_err(|error| match error {
            content::IngestError::Store(error) => Failure::content(&error),
            error => Failure::bad(relay::chain(&error), "nothing was changed"),
        })?;
        if let Some(odd) = read.skipped.first() {
            let message = format!("{}: neither file, folder nor symlink", odd.display());
            return Err(Failure::bad(message, "leave it out: --exclude NAME"));
        }
        Ok(read.manifest)
    }

    /// A file with other bytes; with the same it is what it was. Blocks.
    pub(crate) fn with_text(
        &self,
        mut manifest: Manifest,
        text: &str,
        at_ms: u64,
    ) -> Result<Manifest, Failure> {
        self.store.make_room(0).map_err(|error| Failure::content(&error))?;
        let kind = content::ingest_bytes(text.as_bytes(), &self.store);
        let kind = kind.map_err(|error| Failure::internal(relay::chain(&error)))?;
        let entry = &mut manifest.entries[0];
        if entry.kind != kind {
            let seconds = i64::try_from(at_ms / 1000).unwrap_or(i64::MAX);
            (entry.kind, entry.mtime, entry.sparse) = (kind, (seconds, 0), false);
        }
        Ok(manifest)
    }

    /// Keeps a manifest, and says what it is of. Blocks.
    pub(crate) fn keep(&self, manifest: &Manifest) -> Result<Content, Failure> {
        let root = manifest.root();
        let kept = self.store.put(root, &manifest.encode());
        kept.map_err(|error| Failure::content(&error))?;
        let first = &manifest.entries[0];
        let name = |name: &str, number: u32| match name {
            "" => number.to_string(),
            name => name.to_owned(),
        };
        let is_folder = first.kind == Kind::Dir;
        Ok(Content {
            root: root.to_string(),
            mode: first.mode,
            owner: name(&first.owner, first.uid),
            group: name(&first.group, first.gid),
            size: manifest.bytes(),
            modified_s: first.mtime.0,
            files: is_folder.then(|| manifest.files()),
            is_text: !is_folder && self.is_text(manifest)?,
        })
    }

    /// A manifest that was kept. Blocks.
    pub(crate) fn manifest(&self, root: &str) -> Result<Manifest, Failure> {
        let gone = || Failure::internal(format!("the manifest {root} is not in the store"));
        let id: ContentId = root.parse().map_err(|_| gone())?;
        let bytes = self.store.get(&id).map_err(|error| Failure::content(&error))?;
        let manifest = Manifest::decode(&bytes.ok_or_else(gone)?, &Limits::default());
        manifest.map_err(|error| Failure::internal(relay::chain(&error)))
    }

    /// One after the other the pieces of a file, checked against their hashes. Blocks.
    pub(crate) fn pieces(
        &self,
        manifest: &Manifest,
        take: &mut dyn FnMut(Vec<u8>) -> bool,
    ) -> Result<(), Failure> {
        for chunk in manifest.entries[0].chunks() {
            let bytes = self.store.get(&chunk.id).map_err(|error| Failure::content(&error))?;
            let gone = || Failure::internal(format!("{}: not in the store, or damaged", chunk.id));
            if !take(bytes.ok_or_else(gone)?) {
                break;
            }
        }
        Ok(())
    }

    fn is_text(&self, manifest: &Manifest) -> Result<bool, Failure> {
        let (mut seen, mut text) = (0, true);
        self.pieces(manifest, &mut |bytes| {
            let looked = &bytes[..bytes.len().min(LOOKED_AT - seen)];
            text &= !looked.contains(&0);
            seen += looked.len();
            text && seen < LOOKED_AT
        })?;
        Ok(text)
    }
}

/// The new bytes with the attributes of what was there. A file stays a file.
pub(crate) fn with_old_attributes(mut new: Manifest, old: &Manifest) -> Result<Manifest, String> {
    match (&new.entries[0].kind, &old.entries[0].kind) {
        (Kind::Dir, Kind::Dir) => {}
        (Kind::File { .. }, Kind::File { .. }) => {
            let (entry, old) = (&mut new.entries[0], &old.entries[0]);
            if entry.chunks() == old.chunks() {
                // The same bytes: it was not modified.
                entry.mtime = old.mtime;
            }
            (entry.mode, entry.uid, entry.gid) = (old.mode, old.uid, old.gid);
            (entry.owner, entry.group) = (old.owner.clone(), old.group.clone());
        }
        (Kind::Dir, _) => return Err("is a file, and the new content a folder".into()),
        _ => return Err("is a folder, and the new content a file".into()),
    }
    Ok(new)
}

/// The same bytes with other attributes.
pub(crate) fn with_attributes(
    mut manifest: Manifest,
    new: &Attributes,
) -> Result<Manifest, String> {
    let entry = &mut manifest.entries[0];
    if entry.kind == Kind::Dir {
        return Err("is a folder: its attributes are those of the folder it was read from".into());
    }
    if let Some(mode) = &new.mode {
        entry.mode = mode_of(mode, entry.mode)?;
    }
    // A name counts where it is known; the number stays for where it is not.
    if let Some(owner) = &new.owner {
        (entry.uid, entry.owner) = account(owner, entry.uid)?;
    }
    if let Some(group) = &new.group {
        (entry.gid, entry.group) = account(group, entry.gid)?;
    }
    Ok(manifest)
}

fn account(text: &str, number: u32) -> Result<(u32, Arc<str>), String> {
    let foreign = |c: char| c.is_whitespace() || c.is_control() || c == ':' || c == '/';
    if text.is_empty() || text.len() > 255 || text.starts_with('-') || text.contains(foreign) {
        return Err(format!("{text:?} is no name of an account"));
    }
    match text.parse::<u32>() {
        Ok(u32::MAX) => Err(format!("{text}: no such number of an account")),
        Ok(number) => Ok((number, "".into())),
        Err(_) => Ok((number, text.into())),
    }
}

/// Permissions as `chmod` has them: octal digits, or clauses such as `u+x,go-w,a=r`.
fn mode_of(text: &str, old: u32) -> Result<u32, String> {
    let wrong = || format!("{text:?} is no mode: octal digits, or clauses such as u+x,go-w");
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        let mode = u32::from_str_radix(text, 8).map_err(|_| wrong())?;
        return if mode <= 0o7777 { Ok(mode) } else { Err(wrong()) };
    }
    let mut mode = old;
    for clause in text.split(',') {
        let at = clause.find(['+', '-', '=']).ok_or_else(wrong)?;
        let (who, rest) = clause.split_at(at);
        let (mut bits, mut special) = (0, 0);
        for c in who.chars() {
            let (own, extra) = match c {
                'u' => (0o700, 0o4000),
                'g' => (0o070, 0o2000),
                'o' => (0o007, 0o1000),
                'a' => (0o777, 0o7000),
                _ => return Err(wrong()),
            };
            (bits, special) = (bits | own, special | extra);
        }
        if who.is_empty() {
            (bits, special) = (0o777, 0o7000);
        }
        let mut wanted = 0;
        for c in rest[1..].chars() {
            wanted |= match c {
                'r' => 0o444 & bits,
                'w' => 0o222 & bits,
                'x' => 0o111 & bits,
                's' => 0o6000 & special,
                't' => 0o1000,
                _ => return Err(wrong()),
            };
        }
        match &rest[..1] {
            "+" => mode |= wanted,
            "-" => mode &= !wanted,
            _ => mode = mode & !(bits | (special & 0o6000)) | wanted,
        }
    }
    Ok(mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_those_of_chmod() {
        let check =
            |text: &str, old: u32, new: u32| assert_eq!(mode_of(text, old), Ok(new), "{text}");
        check("600", 0o644, 0o600);
        check("4755", 0o644, 0o4755);
        check("u+x", 0o644, 0o744);
        check("go-rwx", 0o755, 0o700);
        check("a=r,u+w", 0o777, 0o644);
        check("+x", 0o644, 0o755);
        check("u+s,+t", 0o755, 0o5755);
        for text in ["", "9", "77777", "u", "u+q", "z+x", "u+x,", "0x1"] {
            assert!(mode_of(text, 0).is_err(), "{text}");
        }
    }
}
