//! The manifest: every name, every piece of metadata and every chunk id of a tree.
//!
//! The idea: one tree has exactly one manifest, and one manifest has exactly one encoding, so
//! the hash of the encoding ([`Manifest::root`]) names the tree, and a signed order only needs
//! to carry that hash. A manifest from a peer is refused whole unless it is canonical and obeys
//! the path rules; after that nobody has to check a path again.
//!
//! It deliberately holds no time of "now", nothing about the host it was made on, and no
//! policy: whether a link may point outside or a mode may carry setuid is decided elsewhere.

mod changes;
mod codec;

use std::sync::Arc;

pub use self::changes::Changes;
use crate::attributes::{self, Attributes};
use crate::chunk::MAX_CHUNK;
use crate::id::ContentId;
use crate::show::show;

/// A user or group name; one allocation is shared by all entries that use it.
pub type Name = Arc<str>;

/// A tree, or a single file.
///
/// **Invariant** (of every decoded or ingested one): entries are sorted by path bytes and
/// unique; the first has the empty path and is the root; every parent is a directory entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The entries, the root first.
    pub entries: Vec<Entry>,
}

/// One name in the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the root, `/` between components, empty for the root; need not be UTF-8.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// The twelve permission bits. Links have none of their own: always 0o777.
    pub mode: u32,
    /// Owner as a number, used where the name is empty or unknown.
    pub uid: u32,
    /// Group as a number, used where the name is empty or unknown.
    pub gid: u32,
    /// Owner by name, may be empty.
    pub owner: Name,
    /// Group by name, may be empty.
    pub group: Name,
    /// Modification time: seconds since 1970, may be negative, and nanoseconds.
    pub mtime: (i64, u32),
    /// Access control lists, capabilities and attributes of users.
    pub attributes: Attributes,
    /// Whether a file has holes: what is zero in it need not be on disk.
    pub sparse: bool,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Dir,
    /// A regular file: the chunks in order, their lengths adding up to the size.
    File {
        /// Bytes in the file.
        size: u64,
        /// The content, in order.
        chunks: Vec<ChunkRef>,
    },
    /// A symbolic link.
    Symlink {
        /// The text of the link, never followed by us.
        target: Vec<u8>,
    },
    /// Another name of a file that comes earlier; what describes it is the same.
    HardLink {
        /// The path of that file.
        to: Vec<u8>,
    },
}

/// A chunk: the id to check it by and how long it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkRef {
    /// BLAKE3 of the bytes.
    pub id: ContentId,
    /// Bytes, 1 to [`MAX_CHUNK`].
    pub len: u32,
}

/// How much a peer may ask of us with one manifest.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Canonical bytes.
    pub encoded: usize,
    /// Entries.
    pub entries: usize,
    /// All paths and link texts together, which prefix elision makes smaller on the wire.
    pub paths: usize,
    /// Content of all files together.
    pub bytes: u64,
}

impl Default for Limits {
    /// Ten times what we have seen in the field: 4 million entries, 1 PiB.
    fn default() -> Limits {
        Limits { encoded: 512 << 20, entries: 4 << 20, paths: 1 << 30, bytes: 1 << 50 }
    }
}

/// Why a manifest is refused. Nothing has changed; whoever made the bytes is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Made by a version we do not know.
    #[error("manifest format {found} is not known to this version")]
    Version {
        /// The version byte.
        found: u8,
    },
    /// More than the limits allow.
    #[error("the manifest has too many {what}: the limit is {limit}")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// The bytes end early, or a number or name in them makes no sense.
    #[error("the manifest is damaged at byte {at}: {what}")]
    Damaged {
        /// Offset into the canonical bytes.
        at: usize,
        /// What is wrong there.
        what: &'static str,
    },
    /// The bytes mean something, but are not the one encoding of it.
    #[error("the manifest is not in canonical form")]
    NotCanonical,
    /// No entry with the empty path, or it is a link.
    #[error("the manifest does not begin with its root")]
    NoRoot,
    /// An entry breaks a rule.
    #[error("entry {index} of the manifest ({path}): {what}")]
    Entry {
        /// Place in the manifest.
        index: usize,
        /// The path, made printable.
        path: String,
        /// The rule.
        what: &'static str,
    },
}

impl Manifest {
    /// The one encoding of this manifest.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads canonical bytes; everything else is refused.
    pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Manifest, ManifestError> {
        let manifest = codec::decode(bytes, limits)?;
        manifest.check(limits)?;
        // Instead of one rule for each way to write the same thing twice, there is this one.
        if manifest.encode() != bytes {
            return Err(ManifestError::NotCanonical);
        }
        Ok(manifest)
    }

    /// The name of the tree: the hash of the canonical bytes.
    pub fn root(&self) -> ContentId {
        ContentId::of(&self.encode())
    }

    /// How many regular files there are.
    pub fn files(&self) -> u64 {
        self.entries.iter().filter(|entry| matches!(entry.kind, Kind::File { .. })).count() as u64
    }

    /// Bytes in all files.
    pub fn bytes(&self) -> u64 {
        self.entries.iter().map(Entry::size).fold(0, u64::saturating_add)
    }

    /// Checks every rule that is about meaning: order, paths, parents, sizes, numbers.
    pub fn check(&self, limits: &Limits) -> Result<(), ManifestError> {
        let root = self.entries.first().ok_or(ManifestError::NoRoot)?;
        if !root.path.is_empty() || !matches!(root.kind, Kind::Dir | Kind::File { .. }) {
            return Err(ManifestError::NoRoot);
        }
        let (mut paths, mut bytes) = (0_usize, 0_u64);
        for (index, entry) in self.entries.iter().enumerate() {
            let refuse = |what| ManifestError::Entry { index, path: show(&entry.path), what };
            entry.check().map_err(refuse)?;
            if index > 0 {
                check_place(&self.entries[..index], entry).map_err(refuse)?;
            }
            if let Kind::HardLink { to } = &entry.kind {
                check_hard_link(&self.entries[..index], entry, to).map_err(refuse)?;
            }
            paths = paths.saturating_add(entry.path.len() + entry.target().len());
            bytes = bytes.saturating_add(entry.size());
        }
        limit("entries", self.entries.len() as u64, limits.entries as u64)?;
        limit("path bytes", paths as u64, limits.paths as u64)?;
        limit("content bytes", bytes, limits.bytes)
    }
}

impl Entry {
    /// Bytes of content; 0 for anything but a file.
    pub fn size(&self) -> u64 {
        match &self.kind {
            Kind::File { size, .. } => *size,
            Kind::Dir | Kind::Symlink { .. } | Kind::HardLink { .. } => 0,
        }
    }

    /// The chunks of a file; none for anything else.
    pub fn chunks(&self) -> &[ChunkRef] {
        match &self.kind {
            Kind::File { chunks, .. } => chunks,
            Kind::Dir | Kind::Symlink { .. } | Kind::HardLink { .. } => &[],
        }
    }

    /// Parent path and last component. The root has neither.
    pub fn split(&self) -> (&[u8], &[u8]) {
        match self.path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&self.path[..slash], &self.path[slash + 1..]),
            None => (&[], &self.path),
        }
    }

    fn target(&self) -> &[u8] {
        match &self.kind {
            Kind::Symlink { target } => target,
            Kind::HardLink { to } => to,
            Kind::Dir | Kind::File { .. } => &[],
        }
    }

    fn check(&self) -> Result<(), &'static str> {
        check_path(&self.path)?;
        if self.mode > 0o7777 {
            return Err("mode has more than twelve bits");
        }
        // To chown, -1 means "leave as it is"; no file may be owned by accident.
        if self.uid == u32::MAX || self.gid == u32::MAX {
            return Err("owner or group is -1");
        }
        if [&self.owner, &self.group].iter().any(|name| name.len() > 255 || name.contains('\0')) {
            return Err("owner or group name is too long or holds a NUL");
        }
        if self.mtime.1 >= 1_000_000_000 {
            return Err("nanoseconds are a second or more");
        }
        let is_file = matches!(self.kind, Kind::File { .. });
        if !is_file && self.kind != Kind::Dir && !self.attributes.is_empty() {
            return Err("a link with attributes");
        }
        if self.sparse && !is_file {
            return Err("holes in what is not a file");
        }
        attributes::check(&self.attributes, self.kind == Kind::Dir)?;
        match &self.kind {
            Kind::Dir | Kind::HardLink { .. } => Ok(()),
            Kind::Symlink { target } if target.is_empty() => Err("link without a target"),
            Kind::Symlink { target } if target.len() > 4095 => Err("link target is too long"),
            Kind::Symlink { target } if target.contains(&0) => Err("link target holds a NUL"),
            Kind::Symlink { .. } => Ok(()),
            Kind::File { size, chunks } => check_chunks(*size, chunks),
        }
    }
}

fn check_path(path: &[u8]) -> Result<(), &'static str> {
    if path.is_empty() {
        return Ok(());
    }
    if path.len() > 4095 {
        return Err("path is longer than 4095 bytes");
    }
    if path.contains(&0) {
        return Err("path holds a NUL");
    }
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" => return Err("path has an empty component"),
            b"." | b".." => return Err("path has a . or .. component"),
            name if name.len() > 255 => return Err("a name is longer than 255 bytes"),
            _ => {}
        }
    }
    Ok(())
}

fn check_chunks(size: u64, chunks: &[ChunkRef]) -> Result<(), &'static str> {
    if chunks.iter().any(|chunk| chunk.len == 0 || chunk.len as usize > MAX_CHUNK) {
        return Err("a chunk is empty or longer than 256 KiB");
    }
    let sum = chunks.iter().map(|chunk| u64::from(chunk.len)).fold(0, u64::saturating_add);
    if sum != size {
        return Err("the chunks do not add up to the size");
    }
    Ok(())
}

fn check_place(before: &[Entry], entry: &Entry) -> Result<(), &'static str> {
    let (parent, _) = entry.split();
    if let Some(last) = before.last() {
        if last.path >= entry.path {
            return Err("not in order, or there twice");
        }
        // The place of a neighbour is good, and so is one right below a directory.
        let beside = !last.path.is_empty() && last.split().0 == parent;
        if beside || (last.path == parent && last.kind == Kind::Dir) {
            return Ok(());
        }
    }
    match before.binary_search_by(|other| other.path.as_slice().cmp(parent)) {
        Ok(found) if before[found].kind == Kind::Dir => Ok(()),
        Ok(_) => Err("its parent is not a directory"),
        Err(_) => Err("its parent is missing"),
    }
}

fn check_hard_link(before: &[Entry], entry: &Entry, to: &[u8]) -> Result<(), &'static str> {
    let found = before.binary_search_by(|other| other.path.as_slice().cmp(to));
    let found = found.ok().map(|n| &before[n]);
    let found = found.filter(|file| matches!(file.kind, Kind::File { .. }));
    let file = found.ok_or("another name of what is not an earlier file")?;
    let same = (file.mode, file.uid, file.gid, file.mtime)
        == (entry.mode, entry.uid, entry.gid, entry.mtime)
        && (&file.owner, &file.group) == (&entry.owner, &entry.group);
    if same { Ok(()) } else { Err("another name of a file that is described otherwise") }
}

fn limit(what: &'static str, found: u64, limit: u64) -> Result<(), ManifestError> {
    if found > limit {
        return Err(ManifestError::TooLarge { what, limit });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
