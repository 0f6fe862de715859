//! `POST /v1/pulls`: collects a path from many hosts into a folder here, `DIR/HOST/PATH`.
//!
//! Each host says what it has, as a manifest; what the folder has of it already stays, and the
//! rest is asked for piece by piece, of one host only if several have it alike. So whatever
//! breaks, nothing that has come crosses a link again: collecting once more goes on. Each host's
//! files are put in place together, by the installer of pushes.
//!
//! What hosts send is data (see [`tame`]). Nothing of it is kept on the way; it goes below
//! everything else of a link, and at the pace of this disk.

mod pace;
mod room;
mod shared;
mod source;
mod tame;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{DirBuilder, File, TryLockError};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use content::{Applied, ApplyError, Installer, Job, Manifest, Patterns, Rules};
use mesh::HostId;
use protos::OutputFault;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::{info, warn};

pub(crate) use self::shared::Shared;
use self::source::{Missing, Source, check_wish};
use self::tame::tame;
use crate::api::{Api, body};
use crate::fault::Failure;
use crate::lines::line_stream;
use crate::orders::blocking;
use crate::types::{NewPull, PullEvent, PullHost};

/// Hosts that are collected from at once.
const AT_ONCE: usize = 8;
/// Hosts behind one of the controller's own children at once: as many as have a turn on the way up
/// beside each other. A turn is for one piece, but behind a thin link that takes longer than hosts
/// are waited for: at 48 kbit/s, half of it for each of two, some 20 s. Who has to wait for a turn
/// would look like somebody who is away.
const AT_ONCE_BEHIND: usize = 2;
/// How often a host is looked at anew whose files change meanwhile.
const LOOKS: usize = 3;
/// How often what was left is looked at.
const CLEAN: Duration = Duration::from_secs(3600);
/// How many entries that were left out are named.
const NAMED: usize = 8;
/// Names the temporary files. Only one collection writes to a folder.
const TAG: &str = "pull";

/// What collections share, once there has been one.
#[derive(Clone, Default)]
pub(crate) struct Collections(Arc<Mutex<Option<Arc<Shared>>>>);

/// One collection.
struct Collection {
    api: Api,
    shared: Arc<Shared>,
    path: Bytes,
    exclude: Vec<String>,
    to: PathBuf,
    reach: Duration,
    tell: mpsc::Sender<PullEvent>,
    /// Held as long as anything writes there.
    folder: File,
}

/// What is in place of one host, and the links of it that are not.
type Collected = (Applied, Arc<Manifest>, Vec<Vec<u8>>);

/// `POST /v1/pulls`
pub(crate) async fn pull(State(api): State<Api>, bytes: Bytes) -> Result<Response, Failure> {
    let new: NewPull = body(&bytes)?;
    let (hosts, targets) = api.meant(new.targets.clone()).await?;
    check(&new)?;
    let (lines, stream) = line_stream::<PullEvent>();
    let collection = blocking({
        let (api, tell) = (api.clone(), lines.clone());
        move || Collection::begin(api, new, tell)
    });
    let collection = Arc::new(collection.await?);
    let below = api.live.state().below.clone();
    let of = |host: HostId| Waiting {
        host,
        name: hosts.get(&host).map(|row| row.name.clone()).unwrap_or_default(),
        behind: below.iter().find(|(_, set)| set.contains(host)).map(|(child, _)| *child),
    };
    let waiting: VecDeque<_> = targets.iter().map(of).collect();
    info!(path = %String::from_utf8_lossy(&collection.path), hosts = waiting.len(), "collecting");
    tokio::spawn(async move {
        lines.send(PullEvent::Begun { hosts: waiting.len() as u64 }).await.ok();
        collect_all(&collection, waiting).await;
        // The folder is free before anybody hears that it is done.
        drop(collection);
        lines.send(PullEvent::Ended).await.ok();
    });
    Ok(stream)
}

/// A host whose turn will come.
struct Waiting {
    host: HostId,
    name: String,
    /// Which of the controller's children leads there, if that is known.
    behind: Option<HostId>,
}

/// Collects from all, a few at a time.
async fn collect_all(collection: &Arc<Collection>, mut waiting: VecDeque<Waiting>) {
    let mut going = JoinSet::new();
    let mut busy: BTreeMap<Option<HostId>, usize> = BTreeMap::new();
    loop {
        let free = |next: &Waiting| busy.get(&next.behind).is_none_or(|n| *n < AT_ONCE_BEHIND);
        let next = waiting.iter().position(free).filter(|_| going.len() < AT_ONCE);
        if let Some(next) = next.and_then(|at| waiting.remove(at)) {
            *busy.entry(next.behind).or_default() += 1;
            let collection = collection.clone();
            going.spawn_blocking(move || {
                collection.collect(next.host, &next.name);
                next.behind
            });
            continue;
        }
        match going.join_next().await {
            Some(Ok(behind)) => *busy.entry(behind).or_default() -= 1,
            // A task that has panicked took its place with it.
            Some(Err(error)) => warn!(%error, "a host was not collected from"),
            None if waiting.is_empty() => return,
            None => busy.clear(),
        }
    }
}

/// Whether what is asked for can be at all.
fn check(new: &NewPull) -> Result<(), Failure> {
    let plain = |path: &str| {
        let parts = Path::new(path).components();
        path.starts_with('/') && !parts.clone().any(|part| part == Component::ParentDir)
    };
    if !plain(&new.path) || Path::new(&new.path).components().count() < 2 {
        let message = format!("{}: not an absolute path below /", new.path);
        return Err(Failure::bad(message, "name a file or folder at the hosts, as /var/log/app"));
    }
    if !plain(&new.to) {
        let message = format!("{}: not an absolute path", new.to);
        return Err(Failure::bad(message, "it is a folder at the controller"));
    }
    let patterns = Patterns::new(&new.exclude);
    patterns.map_err(|error| Failure::bad(error.to_string(), "see --exclude"))?;
    let help = "name fewer or shorter patterns with --exclude, or a folder further down";
    check_wish(&new.path, &new.exclude).map_err(|what| Failure::bad(what, help))
}

impl Collections {
    /// What collections share; the first opens it.
    fn shared(&self, api: &Api) -> Result<Arc<Shared>, Failure> {
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |error: content::StoreError| Failure::content(&error);
        let opened = match shared.take() {
            Some(opened) => opened,
            None => {
                let bounds = api.packer.store.bounds();
                Arc::new(Shared::open(api.state.join("collect"), bounds).map_err(failed)?)
            }
        };
        let shared = shared.insert(opened);
        if Arc::strong_count(shared) == 1 {
            shared.begin_anew();
        }
        Ok(shared.clone())
    }

    /// Drops now and then what collections have left that nobody went on with, until the runtime
    /// ends.
    pub(crate) async fn keep_clean(self, api: Api) {
        loop {
            tokio::time::sleep(CLEAN).await;
            let (own, api) = (self.clone(), api.clone());
            let clean = move || {
                // Nothing was collected here yet.
                if !api.state.join("collect").exists() {
                    return Ok(0);
                }
                let shared = own.shared(&api)?;
                shared.clean(SystemTime::now()).map_err(|error| Failure::content(&error))
            };
            match blocking(clean).await {
                Ok(0) => {}
                Ok(pieces) => info!(pieces, "dropped what pulls have left a day ago"),
                Err(failure) => warn!(error = %failure.error.message, "what pulls have left stays"),
            }
        }
    }
}

impl Collection {
    /// Makes the folder its own. Blocks.
    fn begin(api: Api, new: NewPull, tell: mpsc::Sender<PullEvent>) -> Result<Collection, Failure> {
        let to = PathBuf::from(&new.to);
        let refused = |error: &std::io::Error| {
            let message = format!("{}: {error}", to.display());
            Failure::bad(message, "name a folder that the controller may write to")
        };
        make_dir(&to).map_err(|error| refused(&error))?;
        let folder = File::open(&to).map_err(|error| refused(&error))?;
        match folder.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let message = format!("{}: another pull writes there", to.display());
                return Err(Failure::conflict(message, "wait for it, or name another folder"));
            }
            Err(TryLockError::Error(error)) => return Err(refused(&error)),
        }
        Ok(Collection {
            shared: api.collections.shared(&api)?,
            api,
            path: Bytes::from(new.path.into_bytes()),
            exclude: new.exclude,
            to,
            reach: Duration::from_millis(new.reach_ms),
            tell,
            folder,
        })
    }

    /// Collects from one host, and tells how that went. Blocks.
    fn collect(&self, host: HostId, name: &str) {
        if self.tell.is_closed() {
            return;
        }
        let mut source = Source::new(self, host, name);
        let mut outcome = Err(Missing::changed());
        for _ in 0..LOOKS {
            outcome = self.try_collect(&mut source);
            if !matches!(outcome, Err(Missing::Changed)) {
                break;
            }
        }
        let mut told = PullHost {
            host: name.to_owned(),
            received: source.received,
            skipped: source.skipped,
            ..PullHost::default()
        };
        match outcome {
            Ok((applied, manifest, left_out)) => {
                told.state = "ok".into();
                (told.files, told.bytes) = (manifest.files(), manifest.bytes());
                (told.written, told.unchanged) = (applied.written, applied.unchanged);
                told.left_out = left_out.len() as u64;
                let shown = left_out.iter().take(NAMED);
                told.named = shown.map(|path| String::from_utf8_lossy(path).into()).collect();
            }
            // Whoever asked has left.
            Err(Missing::Left) => return,
            Err(missing) => {
                told.state = missing.state().into();
                told.message = relay::chain(&missing);
                warn!(host = name, error = told.message, "not collected");
            }
        }
        self.tell.blocking_send(PullEvent::Host(told)).ok();
    }

    /// One attempt: look, get what is missing, put in place.
    fn try_collect(&self, source: &mut Source<'_>) -> Result<Collected, Missing> {
        // The list of a host may be long: it is held once.
        let (target, left_out) = tame(source.look()?);
        let target = Arc::new(target);
        let dir = self.to.join(source.name);
        make_dir(&dir).map_err(|error| Missing::Folder(dir.clone(), error))?;
        let needed: BTreeSet<_> = chunks(&target).collect();
        self.shared.need(&needed);
        let applied = self.apply(source, &dir, &target);
        source.promised = None;
        if applied.is_ok() {
            self.shared.note(&dir.join(below(&self.path)), &target);
        }
        let released = self.shared.release(&needed, applied.is_ok());
        let applied = applied?;
        released.map_err(Missing::Store)?;
        Ok((applied, target, left_out))
    }

    fn apply(
        &self,
        source: &mut Source<'_>,
        dir: &Path,
        target: &Arc<Manifest>,
    ) -> Result<Applied, Missing> {
        let installer = Installer::new(dir.to_owned());
        let rules = Rules::default();
        let job = Job { tag: TAG, dest: &self.path, target, rules: &rules, before: None };
        source.target = Some(target.clone());
        let swept = installer.sweep(&job);
        let applied = swept.and_then(|_| installer.apply(&job, &self.shared.store, source));
        applied.map_err(|error| match error {
            ApplyError::Provide(error) => match error.downcast::<Missing>() {
                Ok(missing) => *missing,
                Err(error) => Missing::Apply(ApplyError::Provide(error)),
            },
            error => Missing::Apply(error),
        })
    }
}

impl Missing {
    /// The word for it.
    fn state(&self) -> &'static str {
        match self {
            Missing::Away(not) if not.fault != OutputFault::Refused => "not-reached",
            _ => "failed",
        }
    }
}

fn chunks(manifest: &Manifest) -> impl Iterator<Item = content::ContentId> {
    manifest.entries.iter().flat_map(content::Entry::chunks).map(|chunk| chunk.id)
}

/// An absolute path as one below something.
fn below(path: &[u8]) -> &Path {
    use std::os::unix::ffi::OsStrExt;
    let at = path.iter().position(|byte| *byte != b'/').unwrap_or(path.len());
    Path::new(std::ffi::OsStr::from_bytes(&path[at..]))
}

fn make_dir(dir: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}
