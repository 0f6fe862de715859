//! The room on the disks that files are collected to, which all hosts of all collections share.
//!
//! Each host says how long its files are before a byte of them comes; by then that much is
//! promised to it, until they are in place, and whoever finds too little left is refused. So hosts
//! that each would fit do not fill the disk together, and a host that names one piece a million
//! times does not fill it alone.
//!
//! While files are written they count twice, as promised and as not free any more: on a disk that
//! is nearly full somebody may be refused who would just have fitted, and can be collected later.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes that are promised, by disk.
#[derive(Default)]
pub(super) struct Promises(Mutex<BTreeMap<u64, u64>>);

/// Room that is somebody's as long as this lives.
pub(super) struct Promised<'a> {
    of: &'a Promises,
    disk: u64,
    bytes: u64,
}

/// Too little is left. Nothing was promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not enough room: its files take {} MiB, and of {} MiB that may be filled {} MiB are for those \
     of other hosts; make room, or pull from fewer at a time",
    mib(*bytes), free >> 20, mib(*promised)
)]
pub(super) struct NoRoom {
    bytes: u64,
    free: u64,
    promised: u64,
}

impl Promises {
    /// Promises room on a disk of which so many bytes may be filled now.
    pub(super) fn take(
        &self,
        disk: u64,
        bytes: u64,
        free: impl FnOnce() -> u64,
    ) -> Result<Promised<'_>, NoRoom> {
        let mut all = self.lock();
        let (promised, free) = (all.get(&disk).copied().unwrap_or(0), free());
        let sum = promised.saturating_add(bytes);
        if sum > free {
            return Err(NoRoom { bytes, free, promised });
        }
        all.insert(disk, sum);
        Ok(Promised { of: self, disk, bytes })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Promised<'_> {
    fn drop(&mut self) {
        let mut all = self.of.lock();
        if let Some(sum) = all.get_mut(&self.disk) {
            *sum -= self.bytes;
            if *sum == 0 {
                all.remove(&self.disk);
            }
        }
    }
}

/// Rounded up, so that nothing is called nothing that is something.
fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_promised_to_one_is_not_there_for_another_until_it_is_in_place() {
        let promises = Promises::default();
        let take = |disk, bytes| promises.take(disk, bytes, || 100 << 20);
        let first = take(1, 60 << 20).expect("there is room");
        let refused = take(1, 41 << 20).err().expect("there is not");
        assert_eq!(refused, NoRoom { bytes: 41 << 20, free: 100 << 20, promised: 60 << 20 });
        assert!(refused.to_string().contains("of 100 MiB that may be filled 60 MiB"), "{refused}");
        let (second, _other) = (take(1, 40 << 20), take(2, 100 << 20));
        assert!(second.is_ok(), "the last of it");
        drop(first);
        assert!(take(1, 61 << 20).is_err() && take(1, 60 << 20).is_ok());
        drop(second);
        assert!(take(1, u64::MAX).is_err(), "whatever a host says");
        assert_eq!(promises.lock().keys().copied().collect::<Vec<_>>(), [2]);
    }
}
