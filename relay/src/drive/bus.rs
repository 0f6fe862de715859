//! The bus at the drive loop: whether a message waits, and what crosses each link, as both of its
//! ends count it.

use std::sync::Arc;

use mesh::bus::{Message, Wanting};
use mesh::{Frame, Input, LinkId, Peer};

use super::Io;
use crate::bus::{BROKEN, Prospect};
use crate::link::{Link, Sealed};

impl Io {
    /// A link is over.
    pub(super) fn part(&mut self, id: LinkId) -> Option<Arc<Link>> {
        let link = self.links.lock().remove(&id)?;
        self.seal(&link);
        Some(link)
    }

    /// Whether something of the bus may be taken, which counts it. What comes by a link that is
    /// over comes too late: the other end has been told, or will be, that it was not taken.
    pub(super) fn admits(&self, input: &Input) -> bool {
        match input {
            Input::Frame { link, frame: Frame::Message(_) | Frame::Answer(_) } => {
                self.links.lock().get(link).is_some_and(|link| link.tally.take())
            }
            _ => true,
        }
    }

    /// A peer says what it has taken on links that are over.
    pub(super) fn counted(&mut self, link: LinkId, peer: Peer, past: &[protos::Taken]) {
        // One that is over as well has nothing to say of others.
        if self.links.lock().contains_key(&link) {
            self.seal_older(link, peer);
            self.hub.lost(self.ledger.hear(peer.host(), past));
        }
    }

    /// A hello goes to a peer, which hears with it what has come by links that are over.
    pub(super) fn account_for(&mut self, link: &Link) {
        self.seal_older(link.id, link.peer);
        link.tally.tell(self.ledger.tell(link.peer.host()));
    }

    /// Hands something of the bus to a link.
    pub(super) fn send_bus(&self, link: LinkId, frame: Frame) {
        let link = self.links.lock().get(&link).cloned();
        match link {
            Some(link) => link.send_bus(frame, &self.hub),
            // It was closed here, which the core is about to hear.
            None => self.hub.dropped(BROKEN, 1),
        }
    }

    /// Nothing of the bus crosses a link any more.
    fn seal(&mut self, link: &Link) {
        match link.tally.seal(link.peer.host()) {
            Some(Sealed::Account(account)) => {
                self.hub.lost(self.ledger.end(self.clock.now(), account));
            }
            Some(Sealed::Unfinished(count)) => self.hub.dropped(BROKEN, count),
            None => {}
        }
    }

    /// Older links with a peer are over, whether their ends were seen here yet or not.
    fn seal_older(&mut self, id: LinkId, peer: Peer) {
        let is_older = |link: &Arc<Link>| link.id < id && link.peer.host() == peer.host();
        self.links.all().into_iter().filter(is_older).for_each(|link| self.seal(&link));
    }

    /// Whether nobody who wants a message has room for it, and one of them is worth waiting for.
    pub(super) fn is_to_wait(&self, wanting: &Wanting, message: &Message) -> bool {
        let mut prospect = Prospect::new(message.body.len());
        let links = self.links.lock();
        wanting
            .links
            .iter()
            .filter_map(|id| links.get(id))
            .for_each(|link| link.look(&mut prospect));
        if wanting.here {
            self.hub.look(&message.subject, &mut prospect);
        }
        prospect.is_awaited()
    }
}
