//! What a node notices, as events: what its core tells of links, content and limits, and what the
//! shell sees by itself.
//!
//! The core counts them, folds them and takes them upward; here they get their words. A node speaks
//! for itself: of a peer it says no more than what has become of their link.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use certs::Role;
use mesh::{Class, Event, Happening, HostId, Kind, Peer, Severity};

use crate::bus::Dropped;
use crate::exec::word;
use crate::metrics::Counts;
use crate::skew::Said;

/// Names of peers that are remembered.
const NAMES: usize = 4_096;
/// Events that may wait for the core; it takes all of them before anything else.
const QUEUE: usize = 4_096;

const fn kind(subject: &'static str, severity: Severity, class: Class) -> Kind {
    Kind { subject, severity, class }
}

/// What waits to be told to the core.
pub(crate) struct Notices {
    host: HostId,
    name: String,
    role: Role,
    names: BTreeMap<HostId, String>,
    queue: VecDeque<Happening>,
    counts: Arc<Counts>,
}

impl Notices {
    pub(crate) fn new(host: HostId, name: &str, role: Role, counts: Arc<Counts>) -> Notices {
        let (names, queue) = (BTreeMap::new(), VecDeque::new());
        let mut notices = Notices { host, name: name.into(), role, names, queue, counts };
        let class = notices.class();
        let text = format!("{role} started, version {}", env!("CARGO_PKG_VERSION"));
        notices.note(kind("host.started", Severity::Info, class), name, &text);
        notices
    }

    /// The next one for the core.
    pub(crate) fn next(&mut self) -> Option<Happening> {
        self.queue.pop_front()
    }

    /// Remembers what a peer is called.
    pub(crate) fn meet(&mut self, host: HostId, name: &str) {
        if self.names.len() < NAMES || self.names.contains_key(&host) {
            self.names.insert(host, name.into());
        }
    }

    /// The state disk is short of room, or is not any more.
    pub(crate) fn degraded(&mut self, short: bool) {
        let (kind, text) = match short {
            true => {
                let kind = kind("host.disk-low", Severity::Error, Class::Space);
                (kind, "the state disk is short of room: no new work is taken")
            }
            false => {
                let kind = kind("host.disk-ok", Severity::Info, Class::Space);
                (kind, "there is room on the state disk again")
            }
        };
        self.note(kind, "", text);
    }

    /// This clock and the parent's do not agree, or do again.
    pub(crate) fn clock(&mut self, said: &Said, parent: HostId) {
        let class = self.class();
        let name = self.names.get(&parent).cloned().unwrap_or_else(|| format!("#{parent}"));
        let (kind, text) = match said {
            Said::Apart(ahead) => {
                let side = if *ahead > 0 { "ahead of" } else { "behind" };
                let by = ahead.unsigned_abs();
                let text = format!("the clock is {by} s {side} that of the parent {name}");
                (kind("host.clock-apart", Severity::Warning, class), text)
            }
            Said::Close => {
                let text = format!("the clock agrees again with that of the parent {name}");
                (kind("host.clock-close", Severity::Info, class), text)
            }
        };
        self.note(kind, &name, &text);
    }

    /// A controller answers in whose place another was restored.
    pub(crate) fn superseded(&mut self, address: &str) {
        let kind = kind("controller.superseded", Severity::Warning, Class::Controller);
        let text = format!("a controller that is over answers at {address}: it was told, and left");
        self.note(kind, address, &text);
    }

    /// Messages of the bus were dropped.
    pub(crate) fn bus_dropped(&mut self, dropped: Dropped) {
        let room = "messages of the bus found no room and were dropped";
        let kept = "messages that the bus keeps here were lost: barid bus kept says why";
        // That the link broke is told, and an alert if it lasts: this is no other trouble.
        let links = "messages of the bus were lost with a link that broke";
        let unsure = "messages of the bus were under way on a link that broke, and nobody has said \
                      that they arrived: so many are lost at most";
        let all = [
            ("bus.dropped", room, dropped.room),
            ("bus.dropped", kept, dropped.kept),
            ("bus.cut-off", links, dropped.links),
            ("bus.cut-off", unsure, dropped.unsure),
        ];
        for (subject, text, count) in all.into_iter().filter(|(_, _, count)| *count > 0) {
            self.note_many(kind(subject, Severity::Warning, self.class()), text, count);
        }
    }

    /// Long outputs have gone that nobody has fetched.
    pub(crate) fn spool_dropped(&mut self, count: u64) {
        let text = "outputs that were kept for `barid out` have gone to make room";
        if count > 0 {
            self.note_many(kind("host.spool-dropped", Severity::Info, Class::Space), text, count);
        }
    }

    /// The core has told something.
    pub(crate) fn told(&mut self, event: &Event) {
        let class = self.class();
        match event {
            Event::Linked { peer } => {
                let name = self.name_of(peer);
                let text = format!("linked with {} {name}", side(peer));
                self.note(kind("link.up", Severity::Info, class), &name, &text);
            }
            Event::Unlinked { peer, reason } => {
                let name = self.name_of(peer);
                let class = match peer {
                    Peer::Child { serves: true, .. } | Peer::Parent { .. } => Class::Relay,
                    Peer::Child { .. } => Class::Down,
                };
                let why = reason.map_or_else(String::new, |reason| format!(" ({reason:?})"));
                let text = format!("lost the link with {} {name}{why}", side(peer));
                self.note(kind("link.lost", Severity::Warning, class), &name, &text);
            }
            Event::RootStale { age } => {
                let kind = kind("beat.stale", Severity::Error, Class::Controller);
                let text = format!("nothing new from the controller for {} s", age.as_secs());
                self.note(kind, "", &text);
            }
            Event::RootFresh => {
                let kind = kind("beat.fresh", Severity::Info, Class::Controller);
                self.note(kind, "", "the controller is heard again");
            }
            Event::PullFailed { content, fault } => {
                let kind = kind("push.content", Severity::Error, class);
                self.note(
                    kind,
                    "",
                    &format!("content {content} could not be had: {}", word(*fault)),
                );
            }
            Event::Cut { what, order, count } => {
                let kind = kind("run.cut", Severity::Warning, class);
                let text = format!("a limit was reached: {what} of order {order}");
                self.note_many(kind, &text, *count);
            }
            Event::Dropped { count } => {
                let kind = kind("host.events-dropped", Severity::Warning, class);
                let text = "more different things happened than can be told: events were dropped";
                let mut happening = self.make(kind, "", text);
                (happening.count, happening.reserved) = (*count, true);
                self.queue.push_back(happening);
            }
            _ => {}
        }
    }

    /// Something of this kind has happened. `name` is whatever name in it makes no difference.
    pub(crate) fn note(&mut self, kind: Kind, name: &str, text: &str) {
        self.counts.noticed(kind.severity);
        if self.queue.len() < QUEUE {
            let happening = self.make(kind, name, text);
            self.queue.push_back(happening);
        }
    }

    /// Something of this kind has happened so often.
    fn note_many(&mut self, kind: Kind, text: &str, count: u64) {
        self.counts.noticed(kind.severity);
        if self.queue.len() < QUEUE {
            let happening = Happening { count, ..self.make(kind, "", text) };
            self.queue.push_back(happening);
        }
    }

    fn make(&self, kind: Kind, name: &str, text: &str) -> Happening {
        make((self.host, if name.is_empty() { &self.name } else { name }), kind, text)
    }

    fn name_of(&self, peer: &Peer) -> String {
        let host = peer.host();
        self.names.get(&host).cloned().unwrap_or_else(|| format!("#{host}"))
    }

    /// Whose trouble it is if it is this node's own.
    fn class(&self) -> Class {
        match self.role {
            Role::Controller => Class::Controller,
            Role::Relay => Class::Relay,
            Role::Host => Class::Client,
        }
    }
}

/// An event that happens now.
pub(crate) fn make(who: (HostId, &str), kind: Kind, text: &str) -> Happening {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let at_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    Happening::new(kind, who, at_ms, text, crate::hash)
}

fn side(peer: &Peer) -> &'static str {
    match peer {
        Peer::Parent { .. } => "parent",
        Peer::Child { serves: true, .. } => "relay",
        Peer::Child { serves: false, .. } => "host",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(mut notices: Notices) -> Vec<Happening> {
        std::iter::from_fn(|| notices.next()).collect()
    }

    #[test]
    fn children_that_are_lost_are_one_event_whatever_they_are_called() {
        let mut notices = Notices::new(HostId(1), "r1", Role::Relay, Arc::new(Counts::new()));
        for (n, name) in ["alpha", "beta", "web-17"].into_iter().enumerate() {
            let host = HostId(10 + n as u32);
            notices.meet(host, name);
            let peer = Peer::Child { host, serves: false };
            notices.told(&Event::Unlinked { peer, reason: None });
        }
        let events = all(notices);
        assert_eq!(events[0].sample.line, "relay started, version 0.1.0");
        assert_eq!(events[2].sample.line, "lost the link with host beta");
        assert_eq!(events[1].fact.like, "lost the link with host *");
        assert!(events[1..].iter().all(|event| event.fact == events[1].fact));
        assert_eq!(events[1].fact.class, Class::Down);
    }

    #[test]
    fn what_was_dropped_is_counted_and_finds_room() {
        let mut notices = Notices::new(HostId(3), "web3", Role::Host, Arc::new(Counts::new()));
        notices.told(&Event::Dropped { count: 12 });
        let events = all(notices);
        assert!(events[1].reserved && events[1].count == 12, "{events:?}");
        assert!(mesh::is_subject(&events[1].fact.subject));
    }
}
