//! What a backup is on disk, and how it is read back.
//!
//! ```text
//! DIR/objects/ab/<hex>     content by its hash, of all backups in this folder
//! DIR/<time>/              one backup: controller.redb, authority/, settings
//! DIR/<time>/content       the hashes that it needs, a line for each
//! DIR/<time>/backup.json   what it is, with the hash of every file beside it; written last
//! ```
//!
//! A backup has its name only once all of it is durable, and nothing in it changes after that, so
//! the folder can be copied to another machine at any time by any means.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use content::ContentId;
use serde::{Deserialize, Serialize};

/// The file that says what a backup is.
pub(super) const ABOUT: &str = "backup.json";
/// The file with the hashes of its content.
pub(super) const CONTENT: &str = "content";
/// The folder of all content.
pub(super) const OBJECTS: &str = "objects";
pub(super) const DATABASE: &str = "controller.redb";
/// The authority's keys and certificate, below the state folder.
pub(super) const AUTHORITY: [&str; 3] =
    ["authority/ca.key", "authority/ca.crt", "authority/order.key"];
/// Settings in the state folder, which may be missing.
pub(super) const SETTINGS: [&str; 3] = ["groups.toml", "alerts.toml", "bus.toml"];
/// The version of all this.
const VERSION: u32 = 1;

/// What a backup is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct About {
    pub(super) version: u32,
    pub(super) mesh: String,
    /// The epoch of the controller that it is of.
    pub(super) epoch: u64,
    /// The moment that it shows, in milliseconds since 1970.
    pub(super) taken_ms: u64,
    pub(super) nodes: u64,
    pub(super) objects: u64,
    /// The files beside it, with the BLAKE3 hash of each.
    pub(super) files: BTreeMap<String, String>,
}

impl About {
    pub(super) fn new(mesh: String, epoch: u64, taken_ms: u64, nodes: u64) -> About {
        let files = BTreeMap::new();
        About { version: VERSION, mesh, epoch, taken_ms, nodes, objects: 0, files }
    }
}

/// A backup that cannot be used. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum BadBackup {
    /// A file cannot be read.
    #[error("{}: cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is none.
    #[error("{}: there is no backup here", path.display())]
    Nothing {
        /// The folder.
        path: PathBuf,
    },
    /// The description is not one.
    #[error("{}: it does not say what backup this is: {text}", path.display())]
    About {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        text: String,
    },
    /// It was made by a later version.
    #[error("{}: a backup of version {found}, which this program does not know", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// A file is another one than was written.
    #[error("{}: it is damaged: its hash is not what the backup says", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The list of content is not one.
    #[error("{}: line {line} is no hash", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> BadBackup {
    move |source| BadBackup::Read { path: path.to_owned(), source }
}

/// The whole backups in a folder, oldest first.
pub(super) fn backups(dir: &Path) -> Result<Vec<String>, BadBackup> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(unreadable(dir))? {
        let entry = entry.map_err(unreadable(dir))?;
        if let Ok(name) = entry.file_name().into_string()
            && is_name(&name)
            && entry.path().join(ABOUT).is_file()
        {
            found.push(name);
        }
    }
    found.sort();
    Ok(found)
}

/// Whether a folder of this name is a backup; one that is being made has another.
pub(super) fn is_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_digit())
}

/// What a backup says that it is, after a look at every file beside it.
pub(super) fn check(backup: &Path) -> Result<About, BadBackup> {
    let about = about(backup)?;
    for (name, hash) in &about.files {
        let path = backup.join(name);
        if hash_of(&path).map_err(unreadable(&path))? != *hash {
            return Err(BadBackup::Damaged { path });
        }
    }
    let needed = AUTHORITY.into_iter().chain([DATABASE, CONTENT]);
    match needed.into_iter().find(|name| !about.files.contains_key(*name)) {
        Some(name) => {
            let text = format!("{name} is not named");
            Err(BadBackup::About { path: backup.join(ABOUT), text })
        }
        None => Ok(about),
    }
}

fn about(backup: &Path) -> Result<About, BadBackup> {
    let path = backup.join(ABOUT);
    let text = fs::read(&path).map_err(unreadable(&path))?;
    let wrong = |text: String| BadBackup::About { path: path.clone(), text };
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let versioned: Versioned =
        serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
    if versioned.version != VERSION {
        return Err(BadBackup::Version { path, found: versioned.version });
    }
    let about: About = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
    let known = |name: &String| {
        let mut names = AUTHORITY.into_iter().chain(SETTINGS).chain([DATABASE, CONTENT]);
        names.any(|known| known == name)
    };
    match about.files.keys().find(|name| !known(name)) {
        Some(name) => Err(wrong(format!("`{name}` is no file of a backup"))),
        None => Ok(about),
    }
}

/// The content that a backup needs.
pub(super) fn content(backup: &Path) -> Result<Vec<ContentId>, BadBackup> {
    let path = backup.join(CONTENT);
    let text = fs::read_to_string(&path).map_err(unreadable(&path))?;
    let ids = text.lines().enumerate().map(|(n, line)| {
        line.parse().map_err(|_| BadBackup::Content { path: path.clone(), line: n + 1 })
    });
    ids.collect()
}

/// Where an object lies.
pub(super) fn object(dir: &Path, id: &ContentId) -> PathBuf {
    let hex = id.to_string();
    dir.join(OBJECTS).join(&hex[..2]).join(hex)
}

/// The BLAKE3 hash of a file.
pub(super) fn hash_of(path: &Path) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize().to_hex().to_string()),
            read => hasher.update(&buffer[..read]),
        };
    }
}

/// Writes a private file that is not there yet.
pub(super) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes a private folder, if it is not there.
pub(super) fn folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Makes the names in a folder durable.
pub(super) fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Makes all durable that was written to the file system of a folder.
pub(super) fn sync_all(dir: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(File::open(dir)?)?)
}
