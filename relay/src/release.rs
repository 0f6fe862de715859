//! Pushes that put a tree in place as a whole, and going back to the one before.
//!
//! The journal says which tree is in place and which one is kept as the previous release, so that
//! going back is the exchange of two names. What an order is about to exchange is noted before,
//! by its inode: the order may begin again after a crash, and must not exchange twice.

use content::{Applied, Before, Chunks, Installer, Job};
use mesh::{Digest, OrderId};
use protos::Push;

use crate::install::{InstallError, Installs};

/// Rows of the journal beside that of a destination; no path has a NUL.
const PREVIOUS: &[u8] = b"\0previous";
const SWITCH: &[u8] = b"\0switch";

impl Installs {
    /// Puts the tree in place as a whole.
    pub(crate) fn release(
        &self,
        order: OrderId,
        push: &Push,
        job: &Job<'_>,
        chunks: &mut dyn Chunks,
    ) -> Result<Applied, InstallError> {
        let journal = |error| InstallError::Journal(error);
        let now = self.journal.installed(&push.dest).map_err(journal)?;
        let previous = [&push.dest, PREVIOUS].concat();
        let installer = Installer::new(self.root.clone());
        let store = &*self.transfers.store;
        let released = installer.release(job, store, chunks);
        let (applied, before) = match released {
            Ok(released) => released,
            Err(error) => {
                // Nobody knows for certain what lies where: going back builds the tree anew.
                let row = [(&previous[..], None)];
                self.journal.set_all_installed(&row, order).map_err(journal)?;
                return Err(InstallError::Apply(error));
            }
        };
        self.keep_manifest(push, job)?;
        let mut rows = vec![(&push.dest[..], Some(push.manifest))];
        match before {
            // If the journal lags behind, nobody knows for certain what is kept.
            Before::Same if now.is_some_and(|(root, _)| root == push.manifest) => {}
            Before::Same => rows.push((&previous, None)),
            Before::Nothing => rows.push((&previous, None)),
            Before::Kept => rows.push((&previous, now.map(|(root, _)| root))),
        }
        self.journal.set_all_installed(&rows, order).map_err(journal)?;
        Ok(applied)
    }

    /// Exchanges the tree in place with the previous release, if that is the one that is wanted.
    /// `false`: it is not.
    pub(crate) fn roll_back(&self, order: OrderId, push: &Push) -> Result<bool, InstallError> {
        let journal = |error| InstallError::Journal(error);
        let previous = [&push.dest, PREVIOUS].concat();
        let switch = [&push.dest, SWITCH].concat();
        let kept = self.journal.installed(&previous).map_err(journal)?;
        if kept.is_none_or(|(root, _)| root != push.manifest) {
            return Ok(false);
        }
        let installer = Installer::new(self.root.clone());
        let [live, other] = installer.releases(&push.dest).map_err(InstallError::Apply)?;
        let noted = self.journal.installed(&switch).map_err(journal)?;
        let done = |inode| noted.is_some_and(|noted| noted == (digest(inode), order));
        if !live.is_some_and(done) {
            let Some(other) = other else { return Ok(false) };
            let row = [(&switch[..], Some(digest(other)))];
            self.journal.set_all_installed(&row, order).map_err(journal)?;
            if !installer.roll_back(&push.dest).map_err(InstallError::Apply)? {
                return Ok(false);
            }
        }
        let now = self.journal.installed(&push.dest).map_err(journal)?;
        let rows: [(&[u8], _); 3] = [
            (&push.dest, Some(push.manifest)),
            (&previous, now.map(|(root, _)| root)),
            (&switch, None),
        ];
        self.journal.set_all_installed(&rows, order).map_err(journal)?;
        Ok(true)
    }
}

/// An inode where the journal has room for a hash.
fn digest((device, inode): (u64, u64)) -> Digest {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&device.to_le_bytes());
    bytes[8..16].copy_from_slice(&inode.to_le_bytes());
    Digest(bytes)
}
