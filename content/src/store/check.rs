//! Looking at every object of a store, so that damage is found before somebody needs it.
//!
//! An object that is not what its name says is removed, as it is when it is read: then it is
//! absent, and whoever needs it fetches it. Nothing is locked meanwhile, so a check may run beside
//! all work.

use super::{Store, StoreError};
use crate::id::ContentId;

/// What a check has found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// Objects that are what their names say.
    pub good: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Objects that were not, and are removed.
    pub damaged: Vec<ContentId>,
}

impl Store {
    /// Reads every object that is here now.
    pub fn check(&self) -> Result<Checked, StoreError> {
        let mut checked = Checked::default();
        for id in self.index.ids()? {
            match self.get(&id)? {
                Some(bytes) => {
                    checked.good += 1;
                    checked.bytes += bytes.len() as u64;
                }
                None => checked.damaged.push(id),
            }
        }
        Ok(checked)
    }
}
