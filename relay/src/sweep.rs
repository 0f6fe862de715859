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

use content::{Bounds, ContentId, Store};
use tokio::sync::{Mutex, Notify};
use tracing::{info, warn};

use crate::claims::Claims;
use crate::copies::Copies;
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
        stays.extend(Copies { journal: &self.journal, store: &self.store }.kept()?);
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
    spare_beside(&Claims::of(journal.settled_orders()?), store, journal)
}

fn spare_beside(claims: &Claims, store: &Store, journal: &Journal) -> Result<u64, SweepError> {
    let mut needed = claims.needed();
    needed.extend(journal.all_installed()?.into_iter().map(|digest| ContentId(digest.0)));
    Ok(store.spare(&needed)?)
}

/// Lets a relay's store have more than its usual bounds if it needs that, and says so. Blocks.
pub(crate) fn bound_around_needed(
    store: &Store,
    journal: &Journal,
    claims: &Claims,
    settings: &Settings,
) {
    let needed = |used: u64| {
        let spare = spare_beside(claims, store, journal)?;
        Ok(used.saturating_sub(spare))
    };
    let found = store.usage().map_err(SweepError::from);
    let found = found.and_then(|usage| beyond(settings, store.disk(), usage.bytes, needed));
    match found {
        Ok(None) => {}
        Ok(Some((needed, bounds))) => {
            let usual = settings.bounds(true, store.disk());
            let (needed_mib, usual_mib) = (needed >> 20, usual.max >> 20);
            info!(
                needed_mib,
                usual_mib,
                max_mib = bounds.max >> 20,
                "the content store needs more than it usually may have, and may have more until \
                 the next start; store_max_mib sets another limit"
            );
            store.bound(bounds);
        }
        Err(error) => {
            warn!(error = %crate::chain(&*error), "it is not known what the content store needs");
        }
    }
}

/// How much is needed of a store that uses so much, and its bounds around that, if they are wider
/// than the usual ones. It takes long to find out, and mostly what is used says enough.
fn beyond(
    settings: &Settings,
    disk: u64,
    used: u64,
    needed: impl FnOnce(u64) -> Result<u64, SweepError>,
) -> Result<Option<(u64, Bounds)>, SweepError> {
    let usual = settings.bounds(true, disk).max;
    if settings.bounds_around(used, true, disk).max <= usual {
        return Ok(None);
    }
    let needed = needed(used)?;
    let bounds = settings.bounds_around(needed, true, disk);
    Ok((bounds.max > usual).then_some((needed, bounds)))
}

/// Sweeps the cache of a node that does not run. Returns how many objects went.
pub fn sweep_store(store: &Store, journal: &Journal) -> Result<usize, SweepError> {
    let mut named = named(journal)?;
    named.extend(Copies { journal, store }.kept()?);
    Ok(store.retain(&|id| named.contains(id))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_store_needs_is_looked_up_only_if_it_may_be_too_much() {
        let disk = 16 << 30;
        let usual = Settings::default();
        let limited = Settings { store_max_mib: 3, ..Settings::default() };
        let check = |settings: &Settings, used: u64, needed: u64| {
            let mut asked = false;
            let found = beyond(settings, disk, used, |_| {
                asked = true;
                Ok(needed)
            });
            let found = found.expect("it is known").map(|(needed, bounds)| (needed, bounds.max));
            (asked, found)
        };
        assert_eq!(check(&usual, 7 << 30, 7 << 30), (false, None));
        assert_eq!(check(&limited, 15 << 30, 15 << 30), (false, None));
        assert_eq!(check(&usual, 12 << 30, 2 << 30), (true, None));
        assert_eq!(check(&usual, 12 << 30, 12 << 30), (true, Some((12 << 30, 13 << 30))));
    }
}
