//! Keeping the content cache small: what no valid order and no installed manifest names, goes.
//!
//! Runs at the start and when orders have expired. It may take away something that was fetched for
//! an order which is not in the journal yet; whoever wants that then has it fetched once more.
//!
//! What a relay has brought for a push stays beyond its order, as far as there is room
//! ([`content::Bounds`]). The store sees to that by itself when something is put; when somebody
//! else fills the disk, it is reminded from here.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use content::{ContentId, Store};
use tokio::sync::{Mutex, Notify};
use tracing::{info, warn};

use crate::claims::Claims;
use crate::journal::{Journal, JournalError};
use crate::settings::Settings;
use crate::transfer::Transfers;

/// Orders that expire about together share a sweep.
const PAUSE: Duration = Duration::from_secs(10);
/// How often the store is reminded of its bounds.
const REMIND: Duration = Duration::from_secs(30);

/// Sweeps one node's content cache.
#[derive(Clone)]
pub(crate) struct Sweeper {
    store: Arc<Store>,
    journal: Journal,
    asked: Arc<Notify>,
}

impl Sweeper {
    pub(crate) fn new(store: Arc<Store>, journal: Journal) -> Sweeper {
        Sweeper { store, journal, asked: Arc::default() }
    }

    /// Has the cache swept soon.
    pub(crate) fn ask(&self) {
        self.asked.notify_one();
    }

    /// Sweeps whenever it was asked, until the runtime ends. Not while something is installed,
    /// which takes `turn`: its pieces lie in the store, and nothing names them.
    pub(crate) async fn run(self, turn: Arc<Mutex<()>>, transfers: Transfers) {
        loop {
            if tokio::time::timeout(REMIND, self.asked.notified()).await.is_err() {
                let store = self.store.clone();
                // What it cannot do it has said.
                tokio::task::spawn_blocking(move || store.make_room(0).ok()).await.ok();
                continue;
            }
            tokio::time::sleep(PAUSE).await;
            let turn = turn.clone().lock_owned().await;
            let (sweeper, arriving) = (self.clone(), transfers.arriving());
            let sweep = move || {
                let _turn = turn;
                sweeper.sweep(&arriving);
            };
            tokio::task::spawn_blocking(sweep).await.ok();
        }
    }

    /// Sweeps now, but for what is arriving. Blocks.
    pub(crate) fn sweep(&self, arriving: &BTreeSet<ContentId>) {
        match self.try_sweep(arriving) {
            Ok(0) => {}
            Ok(dropped) => info!(dropped, "dropped cached content that nothing needs any more"),
            Err(error) => warn!(error = %crate::chain(&*error), "the cache was not swept"),
        }
    }

    fn try_sweep(&self, arriving: &BTreeSet<ContentId>) -> Result<usize, SweepError> {
        let mut stays = named(&self.journal)?;
        stays.extend(self.store.kept()?);
        Ok(self.store.retain(&|id| stays.contains(id) || arriving.contains(id))?)
    }
}

pub(crate) type SweepError = Box<dyn std::error::Error + Send + Sync>;

fn named(journal: &Journal) -> Result<BTreeSet<ContentId>, JournalError> {
    let mut named = journal.needed()?;
    named.extend(journal.all_installed()?);
    Ok(named.into_iter().map(|digest| ContentId(digest.0)).collect())
}

/// How many bytes of the cache of a node that does not run nothing needs now.
pub fn spare_in_store(store: &Store, journal: &Journal) -> Result<u64, SweepError> {
    let mut needed = Claims::of(journal.settled_orders()?).needed();
    needed.extend(journal.all_installed()?.into_iter().map(|digest| ContentId(digest.0)));
    Ok(store.spare(&needed)?)
}

/// Sets the bounds of a relay's store, and says so if what it needs is more than it usually has.
/// Blocks.
pub(crate) fn bound_around_needed(store: &Store, journal: &Journal, settings: &Settings) {
    let needed = spare_in_store(store, journal)
        .and_then(|spare| Ok(store.usage()?.bytes.saturating_sub(spare)));
    let needed = needed.unwrap_or_else(|error| {
        warn!(error = %crate::chain(&*error), "it is not known what the content store needs");
        0
    });
    let usual = settings.bounds(true, store.disk());
    let bounds = settings.bounds_around(needed, true, store.disk());
    if bounds.max > usual.max {
        let (needed_mib, usual_mib, max_mib) = (needed >> 20, usual.max >> 20, bounds.max >> 20);
        info!(
            needed_mib,
            usual_mib,
            max_mib,
            "the content store needs more than it usually may have, and may have more until the \
             next start; store_max_mib sets another limit"
        );
    }
    store.bound(bounds);
}

/// Sweeps the cache of a node that does not run. Returns how many objects went.
pub fn sweep_store(store: &Store, journal: &Journal) -> Result<usize, SweepError> {
    let named = named(journal)?;
    Ok(store.retain(&|id| named.contains(id))?)
}
