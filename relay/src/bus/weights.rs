//! What waits on the bus, weighed: for each who reads, and for the node as a whole.
//!
//! A message that waits for several is held once. Its place in each queue weighs something too, so
//! that many who read nothing take no more memory than the limits say, however short it is. Who has
//! next to nothing waiting finds room also when others have taken what all share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mesh::bus::BUS_BYTES;

use super::patience::Room;

/// Bytes that may wait for all subscribers and all requests of one node.
pub(super) const ALL: usize = 64 << 20;
/// Bytes beyond that for those for whom no more than a share waits. One user has not as many
/// connections as it takes to fill both.
const SPARE: usize = 64 << 20;
pub(super) const SHARE: usize = BUS_BYTES + ENTRY;
/// What a message weighs beside its body: its names, and what holds it.
const HEAD: usize = 512;
/// What its place in a queue does.
pub(super) const ENTRY: usize = 64;

/// A limit in bytes on what waits somewhere.
#[derive(Clone, Debug)]
pub(crate) struct Weights {
    waiting: Arc<AtomicUsize>,
    limit: usize,
}

/// What one thing weighs there, for as long as it waits.
#[derive(Debug)]
pub(crate) struct Weight {
    waiting: Arc<AtomicUsize>,
    bytes: usize,
}

impl Weights {
    pub(crate) fn new(limit: usize) -> Weights {
        Weights { waiting: Arc::default(), limit }
    }

    /// Takes so many bytes, if there is room. Nothing is too heavy for a place that is empty.
    pub(crate) fn take(&self, bytes: usize) -> Option<Weight> {
        let before = self.waiting.fetch_add(bytes, Ordering::AcqRel);
        let weight = Weight { waiting: self.waiting.clone(), bytes };
        (before == 0 || before + bytes <= self.limit).then_some(weight)
    }

    fn now(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    /// The room that there is for so many bytes.
    pub(crate) fn room(&self, bytes: usize) -> Room {
        match self.now() {
            now if now <= self.limit / 2 => Room::Half,
            now if now + bytes <= self.limit => Room::Some,
            _ => Room::None,
        }
    }
}

impl Drop for Weight {
    fn drop(&mut self) {
        self.waiting.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// The room of a node.
pub(super) struct Rooms {
    common: Weights,
    spare: Weights,
}

impl Default for Rooms {
    fn default() -> Rooms {
        Rooms { common: Weights::new(ALL), spare: Weights::new(SPARE) }
    }
}

/// Something that has come, for as long as it waits for anybody.
pub(super) struct Hold<'a, T> {
    rooms: &'a Rooms,
    bytes: usize,
    /// None: there is no room for anybody.
    held: Option<Arc<Held<T>>>,
    /// Whether it lies in the room of those for whom little waits.
    is_spare: bool,
}

struct Held<T> {
    value: T,
    _weight: Weight,
}

/// It, as it waits for one of them.
pub(super) struct Waits<T> {
    held: Arc<Held<T>>,
    _own: Weight,
    _entry: Weight,
}

impl Rooms {
    /// Holds something with so long a body.
    pub(super) fn hold<T>(&self, value: T, bytes: usize) -> Hold<'_, T> {
        let common = self.common.take(HEAD + bytes);
        let is_spare = common.is_none();
        let weight = common.or_else(|| self.spare.take(HEAD + bytes));
        let held = weight.map(|_weight| Arc::new(Held { value, _weight }));
        Hold { rooms: self, bytes, held, is_spare }
    }

    #[cfg(test)]
    pub(super) fn now(&self) -> (usize, usize) {
        (self.common.now(), self.spare.now())
    }
}

impl<T> Hold<'_, T> {
    /// Room for one for whom so much waits.
    pub(super) fn weigh(&self, waiting: &Weights) -> Option<Waits<T>> {
        let held = self.held.clone()?;
        let own = waiting.take(self.bytes + ENTRY)?;
        let has_little = waiting.now() <= SHARE;
        if self.is_spare && !has_little {
            return None;
        }
        let common = if self.is_spare { None } else { self.rooms.common.take(ENTRY) };
        let entry = match common {
            Some(entry) => entry,
            None if has_little => self.rooms.spare.take(ENTRY)?,
            None => return None,
        };
        Some(Waits { held, _own: own, _entry: entry })
    }
}

impl<T: Clone> Waits<T> {
    /// It, for the one who reads it now.
    pub(super) fn take(self) -> T {
        Arc::try_unwrap(self.held).map_or_else(|held| held.value.clone(), |held| held.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reads_nothing_takes_no_more_than_the_room_however_short_messages_are() {
        let rooms = Rooms::default();
        // As many as one user may have, about.
        let (readers, messages) = (1_000, 4_000);
        let own: Vec<_> = (0..readers).map(|_| Weights::new(4 << 20)).collect();
        let mut waiting = Vec::new();
        for _ in 0..messages {
            let hold = rooms.hold((), 1);
            waiting.extend(own.iter().filter_map(|own| hold.weigh(own)));
        }
        let (common, spare) = rooms.now();
        assert!(common <= ALL && spare <= SPARE, "{common} {spare}");
        assert!(waiting.len() < readers * messages / 2, "{}", waiting.len());
        assert!(size_of::<Waits<()>>() <= ENTRY);
        // Who has nothing waiting still finds room.
        let hold = rooms.hold((), 1);
        assert!(hold.weigh(&Weights::new(4 << 20)).is_some());
        drop((waiting, hold));
        assert_eq!(rooms.now(), (0, 0));
    }
}
