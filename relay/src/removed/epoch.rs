//! Which controller is the controller: the one of the latest epoch that a node has heard of.
//!
//! A controller that is restored from a backup begins an epoch, which stands in the list of removed
//! keys that the authority signs. Whoever holds a list with a later epoch than a peer says tells it
//! that list, upward too: so one host that has heard of the new controller is enough for the relay
//! above it to leave the old one, and for the old one to learn that it is the controller no more.
//! From the controller itself a node hears nothing at all before it knows that its epoch is not
//! over. Orders of an epoch that is over are refused by whoever would carry them out (`verify`).

use std::sync::Arc;
use std::time::Duration;

use mesh::{HostId, Peer};
use protos::SignedRemovals;
use tokio::sync::watch;
use tracing::warn;

use super::{RemovalsFault, Removed};
use crate::link::Link;

/// How long a link with a controller whose epoch is over lives on, so that it hears of that.
const FAREWELL: Duration = Duration::from_secs(2);

impl Removed {
    /// The latest epoch that is known here.
    pub(crate) fn epoch(&self) -> u64 {
        self.list().epoch
    }

    /// Whether nothing of what the controller says counts that is of this epoch.
    pub(crate) fn is_over(&self, epoch: u64) -> bool {
        epoch < self.epoch()
    }

    /// At the root: the later epoch, once it has heard of one.
    pub(crate) fn superseded(&self) -> watch::Receiver<Option<u64>> {
        self.0.superseded.subscribe()
    }

    /// Whether this is a root whose epoch is over.
    pub(crate) fn is_superseded(&self) -> bool {
        self.0.superseded.borrow().is_some()
    }

    /// A parent has said hello, with the epoch of its list; none: it takes no list. Returns whether
    /// it is a controller whose epoch is over, which is left.
    pub(crate) fn met(&self, link: &Arc<Link>, epoch: Option<u64>) -> bool {
        link.epoch.set(epoch).ok();
        let (own, before) = {
            let list = self.list();
            (list.epoch, list.before.as_ref().map(|(signed, _)| signed.clone()))
        };
        if self.is_over(epoch.unwrap_or_default()) && link.peer.host() == HostId::ROOT {
            self.leave(link);
            return true;
        }
        match epoch {
            Some(epoch) if epoch < own => self.tell(link),
            // What the controller of this epoch does not know yet.
            Some(_) => before.iter().for_each(|list| {
                link.send_removals(protos::encode_removals(list));
            }),
            None => {}
        }
        false
    }

    /// Takes a list of a child. One of a later epoch counts as if a parent had said it; of an
    /// earlier one the controller is told if it may not know all of its keys.
    pub(crate) fn hear(&self, signed: &SignedRemovals) -> Result<bool, RemovalsFault> {
        let list = self.read(signed)?;
        if list.epoch > self.epoch() {
            return self.take(signed);
        }
        if list.keys.iter().all(|key| self.has(key)) {
            return Ok(false);
        }
        match (&self.0.registrar, self.0.links.parent_link()) {
            (Some(registrar), _) => registrar.recall(&list.keys),
            (None, Some(parent)) if matches!(parent.epoch.get(), Some(Some(_))) => {
                parent.send_removals(protos::encode_removals(signed));
            }
            // The child says it again on its next link.
            (None, _) => {}
        }
        Ok(false)
    }

    /// What follows from the epoch that is known: a root whose own is over serves nobody any more,
    /// and everybody else leaves it.
    pub(super) fn follow_epoch(&self) {
        let epoch = self.epoch();
        let links = self.0.links.all();
        if let Some(registrar) = &self.0.registrar {
            if registrar.epoch() < epoch {
                warn!(epoch, "another controller was restored from a backup: this one is over");
                self.0.superseded.send_replace(Some(epoch));
                // They have been told why.
                links.into_iter().for_each(close_soon);
            }
            return;
        }
        let over = |link: &Arc<Link>| {
            let said = link.epoch.get().copied();
            let is_root = link.peer.host() == HostId::ROOT;
            is_root && said.is_some_and(|said| said.unwrap_or_default() < epoch)
        };
        let parents = links.iter().filter(|link| matches!(link.peer, Peer::Parent { .. }));
        for link in parents {
            match over(link) {
                true => self.leave(link),
                false if matches!(link.epoch.get(), Some(Some(said)) if *said < epoch) => {
                    self.tell(link);
                }
                false => {}
            }
        }
    }

    /// Tells a parent the list that is known here.
    fn tell(&self, link: &Link) {
        if let Some(signed) = self.list().signed.clone() {
            link.send_removals(protos::encode_removals(&signed));
        }
    }

    /// Ends the link with a controller whose epoch is over, telling it so if it can hear it.
    fn leave(&self, link: &Arc<Link>) {
        warn!(parent = %link.dialled, "leaving a controller in whose place another was restored");
        match link.epoch.get() {
            Some(Some(_)) => {
                self.tell(link);
                close_soon(link.clone());
            }
            _ => link.close("another controller was restored"),
        }
    }
}

fn close_soon(link: Arc<Link>) {
    tokio::spawn(async move {
        tokio::time::sleep(FAREWELL).await;
        link.close("another controller was restored");
    });
}
