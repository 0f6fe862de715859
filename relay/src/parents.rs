//! Which parents a node has, and in which order: those of its settings, what orders say, and what
//! was measured if the settings want that.
//!
//! An order may put other parents before the configured ones, which stay behind them, so that no
//! order can cut a node off; or it may name a relay to stay away from, which then comes last, to be
//! dialled only when nobody else answers. Both are kept in a file over restarts. A node learns who
//! answers at an address when it links there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mesh::HostId;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::rank::{Measured, rank};

/// The file in the state folder.
const FILE: &str = "parents.toml";

/// The list of one node.
#[derive(Clone)]
pub(crate) struct Parents(Arc<Inner>);

struct Inner {
    path: PathBuf,
    configured: Vec<String>,
    /// Whether those of the settings are ranked by what was measured.
    measures: bool,
    kept: Mutex<Kept>,
    /// Held while the file is written.
    writing: Mutex<()>,
}

/// What orders have said, and who answers where.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Kept {
    moved: Vec<String>,
    avoid: BTreeSet<u32>,
    known: BTreeMap<String, u32>,
    /// Those of the settings as they were last ranked, and by what.
    ranked: Vec<String>,
    measured: BTreeMap<String, Measured>,
}

/// What an order wants of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// These first; none: as configured.
    Move(Vec<String>),
    /// Stay away from this relay, or not any more.
    Avoid(HostId, bool),
}

/// Why a change was not made. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangeError {
    /// All parents are the relay that is to be left.
    #[error("it has no other parent")]
    Only,
    /// The file cannot be written.
    #[error("{}: writing failed", path.display())]
    Keep {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl Parents {
    /// The configured list with what earlier orders have said. A damaged file counts for nothing.
    pub(crate) fn open(dir: &Path, configured: Vec<String>, measures: bool) -> Parents {
        let path = dir.join(FILE);
        let kept = match std::fs::read_to_string(&path) {
            Ok(text) => toml::from_str(&text).unwrap_or_else(|error| {
                warn!(path = %path.display(), %error, "not used: the parents are as configured");
                Kept::default()
            }),
            Err(_) => Kept::default(),
        };
        let kept = Mutex::new(kept);
        Parents(Arc::new(Inner { path, configured, measures, kept, writing: Mutex::default() }))
    }

    /// The addresses, the best first.
    pub(crate) fn list(&self) -> Vec<String> {
        self.list_of(&self.lock())
    }

    fn list_of(&self, kept: &Kept) -> Vec<String> {
        let mut list: Vec<String> = Vec::new();
        for address in kept.moved.iter().chain(&self.standing_of(kept)) {
            if !list.contains(address) {
                list.push(address.clone());
            }
        }
        list.sort_by_key(|address| kept.is_avoided(address));
        list
    }

    /// The addresses, the best first, each with who has answered there, if anybody ever has.
    pub(crate) fn known(&self) -> Vec<(String, Option<HostId>)> {
        let kept = self.lock();
        let known = |address| kept.known.get(&address).map(|id| HostId(*id));
        let list = self.list_of(&kept).into_iter();
        list.map(|address| (address.clone(), known(address))).collect()
    }

    /// Those of the settings, as they are ranked.
    fn standing_of(&self, kept: &Kept) -> Vec<String> {
        if !self.0.measures {
            return self.0.configured.clone();
        }
        let still = kept.ranked.iter().filter(|address| self.0.configured.contains(address));
        let mut list: Vec<String> = still.cloned().collect();
        let new = self.0.configured.iter().filter(|address| !kept.ranked.contains(address));
        list.extend(new.cloned());
        list
    }

    /// Notes a measurement.
    pub(crate) fn measure(&self, address: &str, note: impl FnOnce(&mut Measured)) {
        let mut kept = self.lock();
        // What is only in an order keeps the place that the order gives it.
        if self.0.configured.iter().any(|known| known == address) {
            note(kept.measured.entry(address.into()).or_default());
        }
    }

    /// Ranks those of the settings by what was measured. Returns whether that changes the list.
    /// Blocks.
    pub(crate) fn rank(&self) -> bool {
        let mut kept = self.lock();
        let before = self.list_of(&kept);
        let mut ranked = self.standing_of(&kept);
        kept.measured.retain(|address, _| ranked.contains(address));
        rank(&mut ranked, &kept.measured);
        kept.ranked = ranked;
        let changed = before != self.list_of(&kept);
        drop(kept);
        if let Err(error) = self.keep(None) {
            warn!(error = %crate::chain(&error), "how parents are ranked is not kept");
        }
        changed
    }

    /// Who is the best parent that ever answered, as far as it is known.
    pub(crate) fn known_best(&self) -> Option<HostId> {
        let kept = self.lock();
        let list = self.list_of(&kept);
        list.iter().find_map(|address| kept.known.get(address)).map(|id| HostId(*id))
    }

    /// The address at a place of the list.
    pub(crate) fn at(&self, place: usize) -> Option<String> {
        self.list().into_iter().nth(place)
    }

    /// Where an address stands in the list.
    pub(crate) fn place(&self, address: &str) -> Option<usize> {
        self.list().iter().position(|other| other == address)
    }

    /// Notes who answers at an address. Returns whether that changes the order of the list.
    pub(crate) fn learn(&self, address: &str, host: HostId) -> bool {
        let mut kept = self.lock();
        let before = self.list_of(&kept);
        if kept.known.insert(address.into(), host.0) == Some(host.0) {
            return false;
        }
        let list = self.list_of(&kept);
        kept.known.retain(|address, _| list.contains(address));
        drop(kept);
        // The drive loop waits for no disk. If it fails, it is learned again at the next link.
        let parents = self.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = parents.keep(None) {
                warn!(error = %crate::chain(&error), "who answers where is not kept");
            }
        });
        before != list
    }

    /// Does what an order says, durably.
    pub(crate) fn change(&self, change: &Change) -> Result<(), ChangeError> {
        self.keep(Some(change))
    }

    /// Writes what is known, or a change to it, which counts once it is on disk.
    fn keep(&self, change: Option<&Change>) -> Result<(), ChangeError> {
        let _turn = self.0.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kept = self.lock().clone();
        match change {
            None => {}
            Some(Change::Move(first)) => kept.moved = first.clone(),
            Some(Change::Avoid(relay, true)) => drop(kept.avoid.insert(relay.0)),
            Some(Change::Avoid(relay, false)) => drop(kept.avoid.remove(&relay.0)),
        }
        if let Some(Change::Avoid(_, true)) = change
            && self.list_of(&kept).iter().all(|address| kept.is_avoided(address))
        {
            return Err(ChangeError::Only);
        }
        let path = &self.0.path;
        let text = toml::to_string_pretty(&kept).expect("addresses and numbers are valid TOML");
        certs::files::replace_secret(path, text.as_bytes()).map_err(|error| {
            let source = std::io::Error::other(error);
            ChangeError::Keep { path: path.clone(), source }
        })?;
        let mut now = self.lock();
        (now.moved, now.avoid) = (kept.moved, kept.avoid);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn is_avoided(&self, address: &str) -> bool {
        self.known.get(address).is_some_and(|host| self.avoid.contains(host))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn what_orders_say_goes_first_and_is_kept() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let open = || Parents::open(dir.path(), names(&["a:1", "b:1"]), false);
        let parents = open();
        assert_eq!(parents.list(), names(&["a:1", "b:1"]));
        parents.change(&Change::Move(names(&["c:1", "b:1"]))).expect("it can be written");
        assert_eq!(parents.list(), names(&["c:1", "b:1", "a:1"]));
        assert_eq!(open().list(), parents.list());
        assert_eq!(parents.place("a:1"), Some(2));
        parents.change(&Change::Move(Vec::new())).expect("it can be written");
        assert_eq!(open().list(), names(&["a:1", "b:1"]));
    }

    #[tokio::test]
    async fn who_is_avoided_comes_last_once_it_is_known_where_it_answers() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let parents = Parents::open(dir.path(), names(&["a:1", "b:1"]), false);
        parents.change(&Change::Avoid(HostId(7), true)).expect("nobody is known to be it");
        assert_eq!(parents.list(), names(&["a:1", "b:1"]));
        assert!(parents.learn("a:1", HostId(7)), "the order changes");
        assert!(!parents.learn("a:1", HostId(7)));
        assert_eq!(parents.list(), names(&["b:1", "a:1"]));
        parents.change(&Change::Avoid(HostId(7), false)).expect("it can be written");
        assert_eq!(parents.list(), names(&["a:1", "b:1"]));
    }

    #[test]
    fn what_was_measured_ranks_those_of_the_settings_and_is_kept() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let open = |names, measures| Parents::open(dir.path(), names, measures);
        let all = names(&["a:1", "b:1", "c:1"]);
        let parents = open(all.clone(), true);
        let ms = std::time::Duration::from_millis;
        for (address, delay) in [("a:1", ms(300)), ("b:1", ms(20)), ("x:1", ms(1))] {
            parents.measure(address, |measured| measured.on_rtt(delay));
        }
        assert!(parents.rank(), "the order changes");
        assert!(!parents.rank(), "once");
        assert_eq!(parents.list(), names(&["b:1", "a:1", "c:1"]));
        assert_eq!(open(all.clone(), true).list(), parents.list());
        // An order goes before it; a parent that is new in the settings comes last.
        parents.change(&Change::Move(names(&["c:1"]))).expect("it can be written");
        assert_eq!(parents.list(), names(&["c:1", "b:1", "a:1"]));
        parents.change(&Change::Move(Vec::new())).expect("it can be written");
        let later = open(names(&["new:1", "a:1", "b:1"]), true);
        assert_eq!(later.list(), names(&["b:1", "a:1", "new:1"]));
        assert_eq!(open(all.clone(), false).list(), all);
    }

    #[tokio::test]
    async fn the_only_parent_is_not_avoided() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let parents = Parents::open(dir.path(), names(&["a:1", "b:1"]), false);
        parents.learn("a:1", HostId(7));
        parents.learn("b:1", HostId(7));
        let refused = parents.change(&Change::Avoid(HostId(7), true));
        assert!(matches!(refused, Err(ChangeError::Only)));
        assert_eq!(parents.list(), names(&["a:1", "b:1"]));
    }
}
