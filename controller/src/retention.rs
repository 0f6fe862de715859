//! What goes in time: old orders with their answers, used-up tokens, and content that nobody needs.
//!
//! Only what is over goes: an order that is closed, and whose validity ended long enough ago that
//! no node speaks of it any more. Of those the oldest go first, by age, by number, or because all
//! output together has grown too large. Content stays as long as an order that is still valid
//! brings it somewhere, or a host has said that it has it in place, since the next push to that
//! host builds on it. A push that is being made holds all of it off.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use content::{ContentId, Limits, Manifest, Store};
use protos::{Push, Work};
use relay::{Journal, JournalError};
use tokio::sync::RwLock;
use tracing::{info, warn};

use crate::clock::now_ms;
use crate::fleet::Fleet;
use crate::packs;
use crate::tables::Tables;

/// How often to look.
const EVERY: Duration = Duration::from_secs(3600);
/// When to look first, and again if a push was being made.
const SOON: Duration = Duration::from_secs(60);
/// How long after the end of its validity nobody speaks of an order any more.
pub(crate) const SILENCE_MS: u64 = 3600 * 1000;
/// How long tokens that are good for nothing are listed.
const TOKEN_MS: u64 = 7 * 24 * 3600 * 1000;

/// How much of the past is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Keep {
    /// How long orders are kept after they were given, in milliseconds.
    pub(crate) age_ms: u64,
    /// How many.
    pub(crate) orders: usize,
    /// How much output of all orders together, in bytes.
    pub(crate) output: u64,
}

impl Default for Keep {
    fn default() -> Keep {
        Keep { age_ms: 90 * 24 * 3600 * 1000, orders: 100_000, output: 1 << 30 }
    }
}

/// Cleans up.
#[derive(Clone)]
pub(crate) struct Cleaner {
    pub(crate) tables: Tables,
    pub(crate) journal: Journal,
    pub(crate) store: Arc<Store>,
    pub(crate) keep: Keep,
    /// Held for reading by whoever makes a push.
    pub(crate) pushes: Arc<RwLock<()>>,
    /// What is under control, with its history.
    pub(crate) fleet: Fleet,
}

impl Cleaner {
    /// Cleans up now and then, until the runtime ends.
    pub(crate) async fn run(self) {
        let mut pause = SOON;
        loop {
            tokio::time::sleep(pause).await;
            pause = EVERY;
            let Ok(turn) = self.pushes.clone().try_write_owned() else {
                pause = SOON;
                continue;
            };
            let cleaner = self.clone();
            let clean = move || {
                let _turn = turn;
                cleaner.clean(now_ms())
            };
            match tokio::task::spawn_blocking(clean).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => warn!(error = %relay::chain(&error), "not cleaned up"),
                Err(error) => warn!(%error, "not cleaned up"),
            }
        }
    }

    /// Cleans up as of this time. Blocks.
    pub(crate) fn clean(&self, now_ms: u64) -> Result<(), CleanError> {
        // Usually nothing: the node closes orders, unless it had no room when it started.
        self.tables.close_expired(now_ms.saturating_sub(SILENCE_MS))?;
        let orders = self.tables.retire(self.keep, now_ms)?;
        let tokens = self.tables.retire_tokens(now_ms.saturating_sub(TOKEN_MS))?;
        self.tables.retire_rollouts(now_ms.saturating_sub(self.keep.age_ms))?;
        self.tables.retire_events(now_ms.saturating_sub(self.keep.age_ms), now_ms)?;
        let needed = self.needed()?;
        let objects = self.store.retain(&|id| needed.contains(id))?;
        let packs = packs::drop_gone(&self.tables, &self.store)?;
        if orders + tokens + objects + packs > 0 {
            info!(orders, tokens, objects, packs, "cleaned up what is over");
        }
        Ok(())
    }

    /// All content that somebody may still ask for. Blocks.
    pub(crate) fn needed(&self) -> Result<BTreeSet<ContentId>, CleanError> {
        let mut needed = BTreeSet::new();
        let mut trees = self.tables.all_placed()?;
        for order in self.journal.orders()? {
            let named = order.needs.iter().flat_map(|need| &need.content);
            needed.extend(named.map(|digest| ContentId(digest.0)));
            let pushes = match order.work {
                Work::Push(push) | Work::Stage(push) => vec![push],
                Work::Dist(dist) => dist.items.into_iter().map(|item| item.push).collect(),
                _ => Vec::new(),
            };
            for push in pushes {
                needed.extend(parts(&push));
                trees.insert(push.manifest);
            }
        }
        needed.extend(self.tables.readings()?);
        let rolled_out = self.tables.rollouts()?;
        let rolled_out = rolled_out.iter().filter(|(_, row)| !row.is_done());
        let mut controlled = self.fleet.store.roots()?;
        controlled.extend(rolled_out.filter_map(|(_, row)| row.root().map(String::from)));
        let controlled = controlled.iter().filter_map(|root| root.parse::<ContentId>().ok());
        for root in trees.into_iter().map(|root| ContentId(root.0)).chain(controlled) {
            needed.insert(root);
            let bytes = self.store.get(&root)?;
            let manifest =
                bytes.and_then(|bytes| Manifest::decode(&bytes, &Limits::default()).ok());
            if let Some(manifest) = manifest {
                let chunks = manifest.entries.iter().flat_map(content::Entry::chunks);
                needed.extend(chunks.map(|chunk| chunk.id));
            }
        }
        Ok(needed)
    }
}

/// Everything in which a push travels.
fn parts(push: &Push) -> impl Iterator<Item = ContentId> {
    let bundles = push.bundles.iter();
    let bundles =
        bundles.flat_map(|b| [&b.manifest].into_iter().chain(&b.segments).chain(&b.deltas));
    bundles.chain([&push.full_manifest]).map(|part| ContentId(part.id.0))
}

/// Cleaning up has failed; what is gone by then was over, and nothing else is gone.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CleanError {
    /// The tables failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The content store failed.
    #[error(transparent)]
    Store(#[from] content::StoreError),
}
