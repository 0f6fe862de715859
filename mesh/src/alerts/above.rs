//! What is above a node: its parent, and the controller's word.
//!
//! The controller's beats carry a number that every node passes on, so a host behind a healthy
//! relay knows when the controller is silent. One node of a site should say so: a parent that has
//! channels says it for everybody below, and while it is linked its children are quiet. Who has
//! lost a relay says that, and not what follows from it.

use crate::{Event, HostId, Peer};

/// What is missing above a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Missing {
    /// The controller: the link to it, or any news of it.
    Controller,
    /// The parent, which is not the controller; none if no parent was reached since the start.
    Parent(Option<HostId>),
}

/// The upper side of one node.
#[derive(Clone, Debug, Default)]
pub struct Above {
    parent: Option<HostId>,
    last: Option<HostId>,
    stale: bool,
    spoken: bool,
}

impl Above {
    /// A node that starts. `last`: who its parent was before, if that is known.
    pub fn new(last: Option<HostId>) -> Above {
        Above { last, ..Above::default() }
    }

    /// Takes what the node tells. Returns whether that may have changed what is missing.
    pub fn handle(&mut self, event: &Event) -> bool {
        match event {
            Event::Linked { peer: Peer::Parent { host, .. } } => {
                (self.parent, self.last) = (Some(*host), Some(*host));
            }
            // A newer link to a parent may come before the end of the older.
            Event::Unlinked { peer: Peer::Parent { host, .. }, .. } => {
                self.parent.take_if(|parent| parent == host);
                self.spoken &= self.parent.is_some();
            }
            Event::RootStale { .. } => self.stale = true,
            Event::RootFresh => self.stale = false,
            Event::Spoken(spoken) => self.spoken = *spoken,
            _ => return false,
        }
        true
    }

    /// What is missing that nobody else tells of.
    pub fn missing(&self) -> Option<Missing> {
        match (self.parent, self.last) {
            (None, Some(HostId::ROOT)) => Some(Missing::Controller),
            (None, last) => Some(Missing::Parent(last)),
            (Some(_), _) if self.stale && !self.spoken => Some(Missing::Controller),
            (Some(_), _) => None,
        }
    }

    /// Whether there is a parent.
    pub fn is_linked(&self) -> bool {
        self.parent.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn linked(host: u32) -> Event {
        Event::Linked { peer: Peer::Parent { place: 0, host: HostId(host) } }
    }

    fn unlinked(host: u32) -> Event {
        let peer = Peer::Parent { place: 0, host: HostId(host) };
        Event::Unlinked { peer, reason: None }
    }

    const STALE: Event = Event::RootStale { age: Duration::from_secs(20) };

    #[track_caller]
    fn check(events: &[Event], missing: Option<Missing>) {
        let mut above = Above::default();
        for event in events {
            above.handle(event);
        }
        assert_eq!(above.missing(), missing, "{events:?}");
    }

    #[test]
    fn who_is_missing_is_named_once() {
        check(&[], Some(Missing::Parent(None)));
        assert_eq!(Above::new(Some(HostId::ROOT)).missing(), Some(Missing::Controller));
        check(&[linked(0)], None);
        check(&[linked(0), unlinked(0), STALE], Some(Missing::Controller));
        check(&[linked(7), unlinked(7), STALE], Some(Missing::Parent(Some(HostId(7)))));
        check(&[linked(7), unlinked(7), linked(8), Event::RootFresh], None);
        // The newer link comes before the end of the older.
        check(&[linked(7), linked(8), unlinked(7)], None);
    }

    #[test]
    fn a_parent_that_speaks_speaks_for_all_below_it() {
        check(&[linked(7), STALE], Some(Missing::Controller));
        check(&[linked(7), Event::Spoken(true), STALE], None);
        check(
            &[linked(7), Event::Spoken(true), STALE, Event::Spoken(false)],
            Some(Missing::Controller),
        );
        let lost = [linked(7), Event::Spoken(true), STALE, unlinked(7)];
        check(&lost, Some(Missing::Parent(Some(HostId(7)))));
        // The next one does not speak.
        check(&[&lost[..], &[linked(8)]].concat(), Some(Missing::Controller));
    }
}
