//! Whether the core has told everything again since the controller was restored.
//!
//! The list with the new epoch is on disk before the core hears of it, and what the core notes
//! about it comes there later. A node that is killed in between knows the epoch when it is back,
//! and no longer that there is something to tell. So the epoch is written down before the list is,
//! and that goes when the core's notes are on disk; a node that starts with it has its core tell
//! all once again.

use std::sync::PoisonError;

use tracing::warn;

use super::Removed;

/// The epoch of which the core's notes are not known to be on disk; without it there is none.
const FILE: &str = "removals.untold";

/// From the word to the core until its notes are on disk.
#[derive(Debug, Default)]
pub(crate) struct Retelling {
    /// The epoch of which the core has just heard.
    begun: Option<u64>,
    /// That epoch, and the last save that belongs to it.
    waits: Option<(u64, u64)>,
    /// The last save that the core has asked for.
    asked: u64,
}

impl Retelling {
    /// The core hears of this epoch.
    pub(crate) fn begin(&mut self, epoch: u64) {
        self.begun = Some(epoch);
    }

    /// The core asks for a save.
    pub(crate) fn saving(&mut self, no: u64) {
        self.asked = no;
    }

    /// The core wants nothing more.
    pub(crate) fn drained(&mut self) {
        if let Some(epoch) = self.begun.take() {
            self.waits = Some((epoch, self.asked));
        }
    }

    /// Everything up to this save is on disk. Returns the epoch that is told by now, once.
    pub(crate) fn saved(&mut self, through: u64) -> Option<u64> {
        let (epoch, _) = self.waits.take_if(|(_, last)| *last <= through)?;
        Some(epoch)
    }
}

impl Removed {
    /// Whether the core may have to be told that the controller was restored. Blocks.
    pub(crate) fn is_untold(&self) -> bool {
        // The controller's own node tells nobody above it.
        self.0.registrar.is_none() && self.0.path.with_file_name(FILE).exists()
    }

    /// A list of this later epoch is about to be kept. Blocks.
    pub(super) fn note_untold(&self, epoch: u64) -> std::io::Result<()> {
        if self.0.registrar.is_some() {
            return Ok(());
        }
        let _held = self.0.untold.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.0.path.with_file_name(FILE);
        let written = certs::files::replace_secret(&path, format!("{epoch}\n").as_bytes());
        written.map_err(std::io::Error::other)
    }

    /// The core's notes about this epoch are on disk. Blocks.
    pub(crate) fn note_told(&self, epoch: u64) {
        let _held = self.0.untold.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.0.path.with_file_name(FILE);
        let untold = std::fs::read_to_string(&path).unwrap_or_default();
        // Of a later one the core has not been told yet.
        if untold.trim().parse::<u64>().is_ok_and(|untold| untold > epoch) {
            return;
        }
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                // Then everything is told once more after the next start.
                warn!(path = %path.display(), %error, "not removed");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_told_behind_all_that_the_core_notes_about_it() {
        let mut retelling = Retelling::default();
        retelling.saving(3);
        retelling.drained();
        assert_eq!(retelling.saved(9), None, "there is nothing to note");
        retelling.begin(7);
        retelling.saving(4);
        retelling.saving(5);
        assert_eq!(retelling.saved(9), None, "the core is not done");
        retelling.drained();
        retelling.saving(6);
        retelling.drained();
        assert_eq!((retelling.saved(4), retelling.saved(5)), (None, Some(7)));
        assert_eq!(retelling.saved(6), None, "once");
        // Nothing was to be noted: all that was asked for is there already.
        retelling.begin(8);
        retelling.drained();
        assert_eq!(retelling.saved(6), Some(8));
    }
}
