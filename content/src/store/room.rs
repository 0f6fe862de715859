//! How much a store holds at most, and making room for more.
//!
//! Before anything is put there must be room for it: within the bytes that the store may have, what
//! is still arriving counted in full, and on the disk. If there is not, what nobody needs goes,
//! least worth first ([`super::worth`]), a little more than must so that not every object pays for
//! it. If what is left is all needed the object is refused before its first byte.
//!
//! What is needed is for the owner of the store to say; what its callers are just working with they
//! pin themselves. A store without an owner (a controller's, a test's) drops nothing by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::worth::{Price, choose};
use super::{Store, StoreError};
use crate::id::ContentId;

/// Uses that are noted together at most.
const NOTED: usize = 4096;
/// How long to wait after everything turned out to be needed, before looking again.
const PAUSE: Duration = Duration::from_secs(1);
/// Which part of a limit is freed besides, when it is reached.
const SLACK: u64 = 16;

/// How large a store may become. The default: as large as the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of its own, at most.
    pub max: u64,
    /// What is to stay free on the disk, in bytes, as long as there is something to drop.
    pub keep_free: u64,
    /// What stays free in any case, in bytes.
    pub floor: u64,
    /// What it costs to fetch something again.
    pub price: Price,
}

impl Default for Bounds {
    fn default() -> Bounds {
        let price = Price { trip_us: 0, mib_us: 0 };
        Bounds { max: u64::MAX, keep_free: 0, floor: 0, price }
    }
}

/// Whoever knows what a store is for.
pub trait Owner: Send + Sync {
    /// What is needed of it; `None`: that cannot be said now, so all of it.
    fn needed(&self) -> Option<BTreeSet<ContentId>>;

    /// Whether something that is put now is worth keeping when it is not needed any more.
    fn keeps(&self, id: &ContentId) -> bool;
}

/// The state of all this.
#[derive(Default)]
pub(super) struct Room {
    bounds: Mutex<Bounds>,
    owner: OnceLock<Box<dyn Owner>>,
    /// What callers work with, and how many of them do.
    pins: Mutex<BTreeMap<ContentId, usize>>,
    /// What was used since the index was last told.
    used: Mutex<BTreeSet<ContentId>>,
    /// How long what is arriving will be.
    arriving: Mutex<BTreeMap<ContentId, u64>>,
    /// Fronts of objects that somebody holds open: they are not swept, whoever names them.
    open: Mutex<BTreeMap<ContentId, Weak<File>>>,
    /// One makes room at a time; since when it is known that there is nothing to drop.
    turn: Mutex<Option<Instant>>,
}

/// Objects that stay as long as this lives.
pub struct Pinned<'a> {
    store: &'a Store,
    ids: Mutex<Vec<ContentId>>,
}

impl Pinned<'_> {
    /// Pins these as well.
    pub fn add(&self, ids: impl IntoIterator<Item = ContentId>) {
        let (mut own, mut pins) = (lock(&self.ids), lock(&self.store.room.pins));
        for id in ids {
            *pins.entry(id).or_default() += 1;
            own.push(id);
        }
    }
}

impl Drop for Pinned<'_> {
    fn drop(&mut self) {
        let mut pins = lock(&self.store.room.pins);
        for id in lock(&self.ids).iter() {
            if let Some(count) = pins.get_mut(id) {
                *count -= 1;
                if *count == 0 {
                    pins.remove(id);
                }
            }
        }
    }
}

impl Store {
    /// From here on it keeps within bounds.
    pub fn bound(&self, bounds: Bounds) {
        *lock(&self.room.bounds) = bounds;
    }

    /// The bounds.
    pub fn bounds(&self) -> Bounds {
        *lock(&self.room.bounds)
    }

    /// From here on whatever its owner does not need may go when there is no room. Said once.
    pub fn own(&self, owner: Box<dyn Owner>) {
        self.room.owner.set(owner).ok();
    }

    pub(super) fn keeps(&self, id: &ContentId) -> bool {
        self.room.owner.get().is_some_and(|owner| owner.keeps(id))
    }

    /// Keeps what the caller works with from going.
    pub fn pin(&self, ids: impl IntoIterator<Item = ContentId>) -> Pinned<'_> {
        let pinned = Pinned { store: self, ids: Mutex::default() };
        pinned.add(ids);
        pinned
    }

    /// Removes objects, but for those that somebody works with just now.
    pub fn remove_unpinned(
        &self,
        ids: impl IntoIterator<Item = ContentId>,
    ) -> Result<(), StoreError> {
        // Held until they are gone: whoever pins something knows then what is here of it.
        let pins = lock(&self.room.pins);
        let gone: Vec<_> = ids.into_iter().filter(|id| !pins.contains_key(id)).collect();
        self.remove(&gone)
    }

    /// What stays also when nothing needs it.
    pub fn kept(&self) -> Result<BTreeSet<ContentId>, StoreError> {
        self.index.kept()
    }

    /// Bytes in objects that these are not among.
    pub fn spare(&self, needed: &BTreeSet<ContentId>) -> Result<u64, StoreError> {
        let (spare, _) = self.index.spare(&|id| needed.contains(id))?;
        Ok(spare.iter().map(|spare| u64::from(spare.len)).sum())
    }

    /// Makes room for so many bytes more, or says why there is none.
    pub fn make_room(&self, more: u64) -> Result<(), StoreError> {
        self.make_room_beside(0, more)
    }

    /// Whether so many bytes more would find room once everything is dropped that nobody needs.
    /// Drops nothing.
    pub fn would_fit(&self, more: u64) -> Result<(), StoreError> {
        let bounds = self.bounds();
        let needed = self.room.owner.get().and_then(|owner| owner.needed());
        let spare = match needed {
            Some(needed) => self.spare(&needed)?,
            None => 0,
        };
        self.check_room(&bounds, (0, more), spare)
    }

    /// How many bytes more would find room once everything is dropped that nobody needs.
    pub fn room(&self) -> Result<u64, StoreError> {
        let bounds = self.bounds();
        let needed = self.room.owner.get().and_then(|owner| owner.needed());
        let spare = match needed {
            Some(needed) => self.spare(&needed)?,
            None => 0,
        };
        let held = self.held()?.saturating_sub(spare);
        let free = self.free().saturating_add(spare);
        Ok(bounds.max.saturating_sub(held).min(free.saturating_sub(bounds.floor)))
    }

    /// Makes room for these, as far as they are not here or on their way, or says why there is
    /// none.
    pub fn make_room_for(&self, objects: &[(ContentId, u32)]) -> Result<(), StoreError> {
        let mut more = 0;
        for (id, len) in objects {
            let arrives = lock(&self.room.arriving).contains_key(id);
            if !arrives && !self.has(id)? {
                more += u64::from(*len);
            }
        }
        self.make_room(more)
    }

    /// As [`Store::make_room`], when so many bytes that are no objects yet lie on the disk already.
    pub(super) fn make_room_beside(&self, there: u64, more: u64) -> Result<(), StoreError> {
        let bounds = self.bounds();
        let over = self.over(&bounds, there, more)?;
        if over > 0 && self.room.owner.get().is_some() {
            self.evict(&bounds, (there, more))?;
        }
        self.check_room(&bounds, (there, more), 0)
    }

    /// Says why there is no room, if so much of what is here were not.
    fn check_room(
        &self,
        bounds: &Bounds,
        (there, more): (u64, u64),
        spare: u64,
    ) -> Result<(), StoreError> {
        let held = self.held()?.saturating_sub(spare);
        if more + there > 0 && held.saturating_add(there).saturating_add(more) > bounds.max {
            let (max, wanted) = (bounds.max, there.saturating_add(more));
            return Err(StoreError::Quota { max, held, wanted });
        }
        if self.free().saturating_add(spare) < bounds.floor.saturating_add(more) {
            return Err(StoreError::Room { floor: bounds.floor });
        }
        Ok(())
    }

    /// How many bytes too many there would be.
    fn over(&self, bounds: &Bounds, there: u64, more: u64) -> Result<u64, StoreError> {
        let own = self.held()?.saturating_add(there).saturating_add(more);
        let own = over(own, bounds.max);
        let keep = bounds.keep_free.max(bounds.floor);
        let disk = match keep.saturating_add(more).saturating_sub(self.free()) {
            0 => 0,
            lack => lack.saturating_add(keep / SLACK),
        };
        Ok(own.max(disk))
    }

    /// How many bytes must go, or nothing more is put.
    fn lacks(&self, bounds: &Bounds, there: u64, more: u64) -> Result<u64, StoreError> {
        let own = self.held()?.saturating_add(there).saturating_add(more);
        let disk = bounds.floor.saturating_add(more).saturating_sub(self.free());
        Ok(own.saturating_sub(bounds.max).max(disk))
    }

    /// How long what is arriving will be that nobody waits for.
    fn spare_fronts(&self, pinned: &dyn Fn(&ContentId) -> bool) -> u64 {
        let arriving = lock(&self.room.arriving);
        let spare = arriving.iter().filter(|(id, _)| !pinned(id) && !self.is_held_open(id));
        spare.map(|(_, len)| *len).sum()
    }

    /// Bytes of objects, and of what is arriving.
    fn held(&self) -> Result<u64, StoreError> {
        let arriving: u64 = lock(&self.room.arriving).values().sum();
        Ok(self.usage()?.bytes.saturating_add(arriving))
    }

    fn evict(&self, bounds: &Bounds, (there, more): (u64, u64)) -> Result<(), StoreError> {
        let mut turn = lock(&self.room.turn);
        let over = self.over(bounds, there, more)?;
        if over == 0 || turn.is_some_and(|since| since.elapsed() < PAUSE) {
            return Ok(());
        }
        let needed = self.room.owner.get().and_then(|owner| owner.needed());
        let Some(needed) = needed else { return Ok(()) };
        // Held until they are gone: whoever pins something knows then what is here of it.
        let pins = lock(&self.room.pins);
        let pinned = |id: &ContentId| needed.contains(id) || pins.contains_key(id);
        self.note_uses()?;
        let (spare, level) = self.index.spare(&pinned)?;
        // What is refused all the same is not to cost others what they can use. Whoever else fills
        // the disk gets what there is.
        let lacks = self.lacks(bounds, there, more)?;
        let fronts = self.spare_fronts(&pinned);
        let all = spare.iter().map(|spare| u64::from(spare.len)).fold(fronts, u64::saturating_add);
        if all < lacks && more + there > 0 {
            warn!(bytes = all, wanted = lacks, "there is too little to drop: the rest is needed");
            *turn = Some(Instant::now());
            return Ok(());
        }
        self.retain_partial(&pinned)?;
        let over = self.over(bounds, there, more)?;
        let (gone, risen) = choose(spare, over, level);
        if risen > level {
            self.index.rise(risen)?;
        }
        let before = self.held()?;
        self.remove(&gone)?;
        let freed = before.saturating_sub(self.held()?);
        if freed >= over {
            info!(objects = gone.len(), bytes = freed, "dropped cached content to make room");
            *turn = None;
        } else {
            warn!(bytes = freed, wanted = over, "there is too little to drop: the rest is needed");
            *turn = Some(Instant::now());
        }
        Ok(())
    }

    /// An object was used. Only where it may matter.
    pub(super) fn note_use(&self, id: &ContentId) -> Result<(), StoreError> {
        if self.room.owner.get().is_none() {
            return Ok(());
        }
        let full = {
            let mut used = lock(&self.room.used);
            used.insert(*id);
            used.len() >= NOTED
        };
        if full { self.note_uses() } else { Ok(()) }
    }

    fn note_uses(&self) -> Result<(), StoreError> {
        let used = std::mem::take(&mut *lock(&self.room.used));
        match used.is_empty() {
            true => Ok(()),
            false => self.index.touch(&used, self.bounds().price),
        }
    }

    /// An object of this length begins to arrive.
    pub(super) fn expect(&self, id: ContentId, len: u64) {
        lock(&self.room.arriving).insert(id, len);
    }

    /// It is whole, or does not come.
    pub(super) fn expect_no_more(&self, id: &ContentId) {
        lock(&self.room.arriving).remove(id);
    }

    /// Somebody has the front of an object open.
    pub(super) fn hold_open(&self, id: ContentId, file: &Arc<File>) {
        let mut open = lock(&self.room.open);
        open.retain(|_, file| file.strong_count() > 0);
        open.insert(id, Arc::downgrade(file));
    }

    /// Whether anybody has it open still.
    pub(super) fn is_held_open(&self, id: &ContentId) -> bool {
        lock(&self.room.open).get(id).is_some_and(|file| file.strong_count() > 0)
    }
}

/// How far a number is above a limit, and a little more.
fn over(number: u64, limit: u64) -> u64 {
    match number.saturating_sub(limit) {
        0 => 0,
        over => over.saturating_add(limit / SLACK),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
