//! Commands that are owed to what lies at a destination: noted before anything is written there,
//! and ticked off once they have run.
//!
//! A note is about the destination and not about the order that made it. A node that is killed
//! between files and their command finds the note when it begins the order again; and if an order
//! has changed files and then failed, the next one to the same place finds them right, and the note
//! says that their command has not run all the same.

use std::collections::BTreeSet;

use bytes::Bytes;
use mesh::{Digest, OrderId};

use crate::journal::{Journal, JournalError};

/// What the row of a note has behind the destination.
const MARK: &[u8] = b"\0commands";

/// Access to the notes. Calls block for a commit: a task uses [`Owed::ended`].
#[derive(Clone)]
pub(crate) struct Owed {
    pub(crate) journal: Journal,
}

impl Owed {
    /// Notes that something is about to change at these destinations, each with the manifest that
    /// it shall have. Returns those where commands were owed already.
    pub(crate) fn begin(
        &self,
        order: OrderId,
        places: &[(Bytes, Digest)],
    ) -> Result<BTreeSet<Bytes>, JournalError> {
        let mut owed = BTreeSet::new();
        let mut keys = Vec::new();
        for (dest, manifest) in places {
            let key = [dest, MARK].concat();
            match self.journal.installed(&key)? {
                Some(_) => drop(owed.insert(dest.clone())),
                None => keys.push((key, *manifest)),
            }
        }
        if !keys.is_empty() {
            let rows: Vec<_> = keys.iter().map(|(key, root)| (&key[..], Some(*root))).collect();
            self.journal.set_all_installed(&rows, order)?;
        }
        Ok(owed)
    }

    /// [`Owed::end`], for tasks.
    pub(crate) async fn ended(&self, dests: Vec<Bytes>) -> Result<(), JournalError> {
        let owed = self.clone();
        let done = tokio::task::spawn_blocking(move || owed.end(&dests));
        done.await.unwrap_or(Err(JournalError::Stopped))
    }

    /// Nothing is owed at these destinations any more.
    pub(crate) fn end(&self, dests: &[Bytes]) -> Result<(), JournalError> {
        if dests.is_empty() {
            return Ok(());
        }
        let keys: Vec<_> = dests.iter().map(|dest| [dest, MARK].concat()).collect();
        let rows: Vec<_> = keys.iter().map(|key| (&key[..], None)).collect();
        self.journal.set_all_installed(&rows, OrderId([0; 16]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_owed_is_owed_to_whichever_order_comes_next() {
        let dir = tempfile::tempdir().expect("a folder");
        let open = || Journal::open(&dir.path().join("db"), 1 << 20).expect("opens");
        let place = |name: &'static str| (Bytes::from_static(name.as_bytes()), Digest([7; 32]));
        let (a, b) = (place("/a"), place("/b"));
        {
            let owed = Owed { journal: open() };
            let none = owed.begin(OrderId([1; 16]), &[a.clone(), b.clone()]).expect("noted");
            assert!(none.is_empty());
            owed.end(std::slice::from_ref(&b.0)).expect("ticked off");
        }
        let owed = Owed { journal: open() };
        let due = owed.begin(OrderId([2; 16]), &[a.clone(), b.clone()]).expect("noted");
        assert_eq!(due, [a.0.clone()].into());
        owed.end(&[a.0.clone(), b.0.clone()]).expect("ticked off");
        assert!(owed.begin(OrderId([3; 16]), &[a, b]).expect("noted").is_empty());
    }
}
