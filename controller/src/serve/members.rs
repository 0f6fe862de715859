//! Who has come and who has gone: the inventory is read again, and the mesh is told. With that it
//! is told what is due when.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use mesh::HostId;
use tracing::warn;

use crate::enrol::Enroller;
use crate::fleet::Fleet;
use crate::live::Live;
use crate::tables::{HostRow, Tables};

/// Tells the mesh who was removed from it, and what is due when.
pub(super) struct Publisher {
    pub(super) enroller: Enroller,
    pub(super) node: Arc<relay::Running>,
    /// Held while a list is made and told: of two at once the older must not come last.
    pub(super) turn: Mutex<()>,
}

impl Publisher {
    /// Tells what is known, and from here on what comes.
    pub(super) fn begin(self, published: &OnceLock<Publisher>) {
        self.publish();
        published.set(self).ok();
    }

    fn publish(&self) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        match self.enroller.signed_removals() {
            Ok(Some(list)) => {
                if let Err(error) = self.node.remove(&list) {
                    tracing::error!(error = %relay::chain(&error), "removals are not told");
                }
            }
            Ok(None) => {}
            Err(error) => warn!(error = %relay::chain(&error), "removals are not told"),
        }
    }
}

/// Reads the inventory again when somebody has enrolled or was removed. Of many at once a few read
/// for all: whoever waits for its turn finds that it was read after its own change.
pub(super) fn on_change(live: Live, tables: Tables, fleet: Fleet) -> Arc<dyn Fn() + Send + Sync> {
    let (changes, read) = (AtomicU64::new(0), Mutex::new(0));
    Arc::new(move || {
        let own = changes.fetch_add(1, Ordering::SeqCst) + 1;
        // One at a time: of two newcomers at once, the older reading must not come last.
        let mut read = read.lock().unwrap_or_else(PoisonError::into_inner);
        if *read >= own {
            return;
        }
        let covered = changes.load(Ordering::SeqCst);
        match tables.hosts() {
            Ok(hosts) => {
                let hosts = Arc::new(hosts);
                let mut state = live.state();
                state.hosts = hosts.clone();
                Arc::make_mut(&mut state.facts).retain(|id, _| hosts.contains_key(id));
                drop(state);
                meet(&fleet, &hosts);
                *read = covered;
            }
            Err(error) => {
                tracing::error!(error = %relay::chain(&error), "the inventory is not read");
            }
        }
    })
}

/// Tells the mesh that somebody was removed, or that something else is due.
pub(super) fn on_removal(publisher: Arc<OnceLock<Publisher>>) -> Arc<dyn Fn() + Send + Sync> {
    Arc::new(move || {
        if let Some(publisher) = publisher.get() {
            publisher.publish();
        }
    })
}

/// Lets the fleet's book know who has enrolled. At the latest the next start does it again.
pub(super) fn meet(fleet: &Fleet, hosts: &BTreeMap<HostId, HostRow>) {
    if let Err(failure) = fleet.meet(hosts) {
        warn!(error = %failure.error.message, "the fleet does not know who has enrolled");
    }
}
