//! A controller out of a backup, on any machine.
//!
//! All of it is made beside the state folder and gets its name last, so that a restore that breaks
//! off has made nothing. It begins an epoch: from then on every node that hears of it refuses the
//! controller from which the backup came, and whatever that has ordered and nobody has begun.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use certs::Authority;
use content::{ContentId, Store};

use super::layout::{self, AUTHORITY, BadBackup, DATABASE, SETTINGS};
use crate::clock::to_ms;
use crate::tables::Tables;
use crate::tables::restored::Begun;
use crate::types::{Restored, RestoredOrder};

/// Objects that share a sync.
const AT_ONCE: usize = 256;

/// Nothing was restored, and nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The backup cannot be used.
    #[error(transparent)]
    Bad(#[from] BadBackup),
    /// There is something in the state folder already.
    #[error("{}: there is something here already", path.display())]
    Taken {
        /// The folder.
        path: PathBuf,
    },
    /// The disk refused.
    #[error("{}: cannot be written", path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The keys in the backup are no authority's.
    #[error("the authority in the backup cannot be used")]
    Authority(#[from] certs::OpenError),
    /// They are another authority's than the backup says.
    #[error("the authority in the backup is that of mesh {found}, and the backup of {said}")]
    Mesh {
        /// Whose it is.
        found: String,
        /// What the backup says.
        said: String,
    },
    /// The database in the backup cannot be used.
    #[error("the database in the backup cannot be used")]
    Journal(#[from] relay::JournalError),
    /// The content store cannot be made.
    #[error("the content store cannot be made")]
    Store(#[from] content::StoreError),
}

fn disk(path: &Path) -> impl FnOnce(io::Error) -> RestoreError {
    move |source| RestoreError::Disk { path: path.to_owned(), source }
}

/// Makes a state folder out of the newest backup in a folder, or the one of this name. Blocks.
pub fn restore(dir: &Path, name: Option<&str>, state: &Path) -> Result<Restored, RestoreError> {
    let nothing = |path: &Path| BadBackup::Nothing { path: path.to_owned() };
    let backup = match name {
        Some(name) if layout::is_name(name) && !name.contains('/') => dir.join(name),
        Some(name) => return Err(nothing(&dir.join(name)).into()),
        None => {
            let newest = layout::backups(dir)?.pop();
            dir.join(newest.ok_or_else(|| nothing(dir))?)
        }
    };
    if !backup.is_dir() {
        return Err(nothing(&backup).into());
    }
    let about = layout::check(&backup)?;
    if fs::read_dir(state).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(RestoreError::Taken { path: state.to_owned() });
    }
    let mut part = state.as_os_str().to_owned();
    part.push(".restoring");
    let part = PathBuf::from(part);
    if part.exists() {
        fs::remove_dir_all(&part).map_err(disk(&part))?;
    }
    let made = fill((&backup, about.taken_ms), dir, &part);
    let (begun, missing) = match made {
        Ok(made) if made.mesh == about.mesh => (made.begun, made.missing),
        Ok(made) => {
            fs::remove_dir_all(&part).ok();
            return Err(RestoreError::Mesh { found: made.mesh, said: about.mesh });
        }
        Err(error) => {
            fs::remove_dir_all(&part).ok();
            return Err(error);
        }
    };
    layout::sync_all(&part).map_err(disk(&part))?;
    fs::rename(&part, state).map_err(disk(state))?;
    let parent = state.parent().filter(|dir| !dir.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    layout::sync(parent).map_err(disk(parent))?;
    Ok(told(&backup, state, &begun, missing))
}

/// What was made.
struct Made {
    mesh: String,
    begun: Begun,
    /// How many objects are missing from the backup, or damaged in it.
    missing: u64,
}

fn fill((backup, taken_ms): (&Path, u64), dir: &Path, part: &Path) -> Result<Made, RestoreError> {
    layout::folder(&part.join("authority")).map_err(disk(part))?;
    for name in AUTHORITY.into_iter().chain(SETTINGS) {
        let from = backup.join(name);
        if from.exists() {
            let bytes = fs::read(&from).map_err(disk(&from))?;
            layout::write(&part.join(name), &bytes).map_err(disk(&part.join(name)))?;
        }
    }
    let authority = Authority::open(&part.join("authority"))?;
    let database = part.join(DATABASE);
    fs::copy(backup.join(DATABASE), &database).map_err(disk(&database))?;
    let journal = relay::Journal::open(&database, 64 << 20)?;
    let tables = Tables::open(journal)?;
    let now_ms = to_ms(SystemTime::now());
    let begun = tables.begin_epoch(taken_ms, now_ms)?;
    let store = Store::open(part.join("store"))?;
    let mut missing = 0;
    for ids in layout::content(backup)?.chunks(AT_ONCE) {
        missing += put(&store, dir, ids)?;
    }
    Ok(Made { mesh: authority.mesh().to_string(), begun, missing })
}

/// Puts objects into a store. Returns how many of them are missing, or are other bytes.
fn put(store: &Store, dir: &Path, ids: &[ContentId]) -> Result<u64, RestoreError> {
    let (mut batch, mut missing) = (store.batch(), 0);
    for id in ids {
        match fs::read(layout::object(dir, id)) {
            Ok(bytes) if ContentId::of(&bytes) == *id => batch.put(*id, &bytes)?,
            _ => missing += 1,
        }
    }
    batch.commit()?;
    Ok(missing)
}

fn told(backup: &Path, state: &Path, begun: &Begun, missing: u64) -> Restored {
    let orders = begun.open.iter().filter(|(_, row)| row.kind != crate::tables::LAPSE);
    let orders = orders.map(|(id, row)| RestoredOrder {
        id: id.to_string(),
        kind: row.kind.clone(),
        what: row.what.clone(),
        issued_ms: row.issued_ms,
    });
    let paused = begun.paused.iter().map(|(id, row)| RestoredOrder {
        id: id.to_string(),
        kind: row.kind().into(),
        what: row.what.clone(),
        issued_ms: row.issued_ms,
    });
    Restored {
        state: state.display().to_string(),
        backup: backup.display().to_string(),
        taken_ms: begun.origin.taken_ms,
        epoch: begun.origin.epoch,
        orders: orders.collect(),
        paused: paused.collect(),
        tokens: begun.tokens,
        missing,
    }
}
