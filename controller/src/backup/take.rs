//! Making a backup while the controller works.
//!
//! Database, and what content it needs, are of one moment: while the file is copied nobody writes,
//! and nothing is cleaned away until the content is there too. Content is named by its hash, so
//! what an earlier backup has brought is not copied again.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use content::ContentId;
use tracing::{info, warn};

use super::layout::{
    self, ABOUT, AUTHORITY, About, BadBackup, CONTENT, DATABASE, OBJECTS, SETTINGS,
};
use crate::api::Api;
use crate::clock::now_ms;
use crate::retention::CleanError;
use crate::types::{Backup, NewBackup};

/// A backup was not made. Those that there were are as they were.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoBackup {
    #[error("{}: {doing} failed", path.display())]
    Disk { path: PathBuf, doing: &'static str, source: io::Error },
    #[error("{}: another backup is being made there", path.display())]
    Busy { path: PathBuf },
    #[error("{}: the backup of {mesh}, another mesh, is there", path.display())]
    Mesh { path: PathBuf, mesh: String },
    #[error("{}: there is a backup of this moment already", path.display())]
    Twice { path: PathBuf },
    #[error("the database cannot be copied")]
    Journal(#[from] relay::JournalError),
    #[error("the content store cannot be read")]
    Store(#[from] content::StoreError),
    #[error("what content is needed is not known")]
    Needed(#[from] CleanError),
    #[error(transparent)]
    Bad(#[from] BadBackup),
}

fn failed(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> NoBackup {
    move |source| NoBackup::Disk { path: path.to_owned(), doing, source }
}

/// Makes a backup, and drops the oldest ones beyond `keep`. Blocks.
pub(crate) fn take(api: &Api, new: &NewBackup) -> Result<Backup, NoBackup> {
    let dir = Path::new(&new.dir);
    layout::folder(&dir.join(OBJECTS)).map_err(failed(dir, "making the folder"))?;
    let _lock = lock(dir)?;
    let known = layout::backups(dir)?;
    if let Some(last) = known.last() {
        let about = layout::check(&dir.join(last));
        if let Ok(about) = about
            && about.mesh != api.mesh
        {
            return Err(NoBackup::Mesh { path: dir.to_owned(), mesh: about.mesh });
        }
    }
    sweep(dir)?;
    let part = dir.join(".part");
    let made = make(api, dir, &part);
    if made.is_err() {
        // What is left of it goes before the next one.
        fs::remove_dir_all(&part).ok();
    }
    let mut made = made?;
    made.dropped = drop_old(dir, new.keep.max(1))?;
    info!(backup = %made.path, objects = made.objects, new = made.new_objects, "made a backup");
    Ok(made)
}

fn make(api: &Api, dir: &Path, part: &Path) -> Result<Backup, NoBackup> {
    layout::folder(&part.join("authority")).map_err(failed(part, "making the folder"))?;
    let database = part.join(DATABASE);
    let moment = || {
        let needed = api.cleaner.needed()?;
        let (origin, nodes) = (api.tables.origin()?, api.tables.hosts()?.len() as u64);
        Ok::<_, NoBackup>((needed, About::new(api.mesh.clone(), origin.epoch, now_ms(), nodes)))
    };
    let (needed, mut about) = api.cleaner.journal.copy(&database, moment)??;
    // It opens, and a start from it has nothing to mend.
    drop(relay::Journal::open(&database, 4 << 20)?);
    for name in AUTHORITY.into_iter().chain(SETTINGS) {
        match fs::read(api.state.join(name)) {
            Ok(bytes) => layout::write(&part.join(name), &bytes)
                .map_err(failed(&part.join(name), "writing it"))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound && SETTINGS.contains(&name) => {}
            Err(source) => {
                let path = api.state.join(name);
                return Err(NoBackup::Disk { path, doing: "reading it", source });
            }
        }
    }
    let brought = bring(api, dir, needed)?;
    let mut lines = String::new();
    brought.there.iter().for_each(|id| lines.push_str(&format!("{id}\n")));
    layout::write(&part.join(CONTENT), lines.as_bytes()).map_err(failed(part, "writing it"))?;
    about.objects = brought.there.len() as u64;
    for name in AUTHORITY.into_iter().chain(SETTINGS).chain([DATABASE, CONTENT]) {
        let path = part.join(name);
        if path.exists() {
            let hash = layout::hash_of(&path).map_err(failed(&path, "reading it"))?;
            about.files.insert(name.into(), hash);
        }
    }
    let text = serde_json::to_vec_pretty(&about).expect("plain fields are valid JSON");
    layout::write(&part.join(ABOUT), &text).map_err(failed(part, "writing it"))?;
    layout::sync_all(dir).map_err(failed(dir, "syncing it"))?;
    let path = dir.join(name(about.taken_ms));
    if path.exists() {
        return Err(NoBackup::Twice { path });
    }
    fs::rename(part, &path).map_err(failed(&path, "naming it"))?;
    layout::sync(dir).map_err(failed(dir, "syncing it"))?;
    Ok(Backup {
        path: path.display().to_string(),
        taken_ms: about.taken_ms,
        nodes: about.nodes,
        objects: about.objects,
        new_objects: brought.new,
        new_bytes: brought.bytes,
        lacking: brought.lacking,
        dropped: 0,
    })
}

/// The name of a backup of this moment, by UTC.
fn name(taken_ms: u64) -> String {
    let at = i64::try_from(taken_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    at.map_or_else(|| taken_ms.to_string(), |at| at.strftime("%Y%m%dT%H%M%S.%3fZ").to_string())
}

/// What has become of the content.
#[derive(Default)]
struct Brought {
    there: BTreeSet<ContentId>,
    new: u64,
    bytes: u64,
    /// How much of it is not in the store, or damaged there.
    lacking: u64,
}

/// Brings content that is not there yet.
fn bring(api: &Api, dir: &Path, needed: BTreeSet<ContentId>) -> Result<Brought, NoBackup> {
    let (store, mut brought) = (&api.packer.store, Brought::default());
    for id in needed {
        let path = layout::object(dir, &id);
        let size = store.size(&id)?.map(u64::from);
        let there = fs::metadata(&path).ok().map(|meta| meta.len());
        if there.is_some() && (size.is_none() || there == size) {
            brought.there.insert(id);
            continue;
        }
        let Some(bytes) = store.get(&id)? else {
            brought.lacking += 1;
            continue;
        };
        let new = dir.join(OBJECTS).join(".new");
        let put = || {
            layout::folder(path.parent().unwrap_or(dir))?;
            fs::remove_file(&new).or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            })?;
            fs::write(&new, &bytes)?;
            fs::rename(&new, &path)
        };
        put().map_err(failed(&path, "writing it"))?;
        brought.there.insert(id);
        brought.new += 1;
        brought.bytes += bytes.len() as u64;
    }
    if brought.lacking > 0 {
        warn!(pieces = brought.lacking, "content that is needed is not in the store");
    }
    Ok(brought)
}

/// One backup at a time is made in a folder.
fn lock(dir: &Path) -> Result<File, NoBackup> {
    let path = dir.join("lock");
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(failed(&path, "opening it"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(NoBackup::Busy { path: dir.to_owned() }),
        Err(TryLockError::Error(source)) => {
            Err(NoBackup::Disk { path, doing: "locking it", source })
        }
    }
}

/// Clears away what a backup has left that was not finished.
fn sweep(dir: &Path) -> Result<(), NoBackup> {
    let part = dir.join(".part");
    match fs::remove_dir_all(&part) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(NoBackup::Disk { path: part, doing: "clearing it away", source })
        }
        _ => Ok(()),
    }
}

/// Drops the oldest backups beyond so many, and content that none needs any more. Returns how many.
fn drop_old(dir: &Path, keep: u64) -> Result<u64, NoBackup> {
    let all = layout::backups(dir)?;
    let most = usize::try_from(keep).unwrap_or(usize::MAX);
    let (old, kept) = all.split_at(all.len().saturating_sub(most));
    if old.is_empty() {
        return Ok(0);
    }
    let mut needed = BTreeSet::new();
    for name in kept {
        needed.extend(layout::content(&dir.join(name))?);
    }
    for name in old {
        let path = dir.join(name);
        fs::remove_file(path.join(ABOUT)).map_err(failed(&path, "removing it"))?;
        fs::remove_dir_all(&path).map_err(failed(&path, "removing it"))?;
    }
    let objects = dir.join(OBJECTS);
    for folder in fs::read_dir(&objects).map_err(failed(&objects, "reading it"))?.flatten() {
        let Ok(entries) = fs::read_dir(folder.path()) else { continue };
        for entry in entries.flatten() {
            let id = entry.file_name().to_str().and_then(|name| name.parse::<ContentId>().ok());
            if id.is_some_and(|id| !needed.contains(&id)) {
                let path = entry.path();
                fs::remove_file(&path).map_err(failed(&path, "removing it"))?;
            }
        }
    }
    Ok(old.len() as u64)
}
