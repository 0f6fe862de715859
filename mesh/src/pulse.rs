//! Beats, both ways on every link, and who is silent.
//!
//! A node beats on all its links at one tick. Each beat carries the number of the *root's* own
//! beat that the sender last heard of, so a host behind a healthy relay still learns how old the
//! controller's word is. A peer that misses three of its own intervals is stale and its link is
//! given up, at whichever end notices first.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::io::Deadline;
use crate::outbox::Outbox;
use crate::{Config, Event, Frame, LinkId, Output, Time, Wake};

struct Heard {
    last: Time,
    interval: Duration,
}

/// The beats of one node.
pub(crate) struct Pulse {
    interval: Duration,
    missed: u32,
    is_root: bool,
    root: u64,
    root_moved: Time,
    root_stale: bool,
    next: Time,
    links: BTreeMap<LinkId, Heard>,
}

impl Pulse {
    pub(crate) fn new(config: &Config, now: Time) -> Pulse {
        Pulse {
            interval: config.beat_interval,
            missed: config.missed_beats,
            is_root: config.is_root(),
            root: 0,
            root_moved: now,
            root_stale: false,
            next: now + config.beat_interval,
            links: BTreeMap::new(),
        }
    }

    /// How long ago the root's number last moved, as far as this node knows.
    pub(crate) fn root_age(&self, now: Time) -> Duration {
        if self.is_root { Duration::ZERO } else { now.since(self.root_moved) }
    }

    pub(crate) fn handle_up(&mut self, now: Time, link: LinkId, out: &mut Outbox) {
        self.links.insert(link, Heard { last: now, interval: self.interval });
        out.send(link, self.beat());
    }

    pub(crate) fn handle_down(&mut self, link: LinkId) {
        self.links.remove(&link);
    }

    /// Any frame is a sign of life.
    pub(crate) fn handle_frame(&mut self, now: Time, link: LinkId) {
        if let Some(heard) = self.links.get_mut(&link) {
            heard.last = now;
        }
    }

    /// Takes a beat; only the parent's says anything of the root. A root that came back from a
    /// backup may count from a lower number, so any change is a move.
    pub(crate) fn handle_beat(
        &mut self,
        now: Time,
        link: LinkId,
        (root, interval): (u64, Duration),
        from_parent: bool,
        out: &mut Outbox,
    ) {
        if let Some(heard) = self.links.get_mut(&link) {
            heard.interval = interval.clamp(Duration::from_millis(10), Duration::from_secs(3600));
        }
        if from_parent && root != self.root {
            self.root = root;
            self.root_moved = now;
            if std::mem::take(&mut self.root_stale) {
                out.push(Output::Tell(Event::RootFresh));
            }
        }
    }

    /// Beats if it is time to. Returns the links whose peers are stale.
    pub(crate) fn handle_timeout(&mut self, now: Time, out: &mut Outbox) -> Vec<LinkId> {
        if now < self.next {
            return Vec::new();
        }
        self.next = now + self.interval;
        if self.is_root {
            self.root += 1;
        }
        for link in self.links.keys() {
            out.send(*link, self.beat());
        }
        let age = self.root_age(now);
        if !self.root_stale && age > self.interval * (self.missed + 1) {
            self.root_stale = true;
            out.push(Output::Tell(Event::RootStale { age }));
        }
        let stale = |heard: &Heard| now.since(heard.last) > heard.interval * self.missed;
        self.links.iter().filter(|(_, heard)| stale(heard)).map(|(link, _)| *link).collect()
    }

    pub(crate) fn poll_timeout(&self) -> Deadline {
        Some((self.next, Wake::Pulse))
    }

    fn beat(&self) -> Frame {
        Frame::Beat { root: self.root, interval: self.interval }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HostId;

    #[test]
    fn a_silent_peer_is_stale_after_three_of_its_own_intervals() {
        let config = Config::new(HostId(1), 1, false);
        let (mut pulse, mut out) = (Pulse::new(&config, Time::ZERO), Outbox::default());
        pulse.handle_up(Time::ZERO, LinkId(1), &mut out);
        let slow = Duration::from_secs(20);
        pulse.handle_beat(Time::ZERO, LinkId(1), (1, slow), true, &mut out);
        let at = |secs| Time::ZERO + Duration::from_secs(secs);
        assert!(pulse.handle_timeout(at(55), &mut out).is_empty());
        assert_eq!(pulse.handle_timeout(at(61), &mut out), [LinkId(1)]);
    }

    #[test]
    fn an_old_root_is_told_once_while_the_parent_beats() {
        let config = Config::new(HostId(1), 1, false);
        let (mut pulse, mut out) = (Pulse::new(&config, Time::ZERO), Outbox::default());
        pulse.handle_up(Time::ZERO, LinkId(1), &mut out);
        let mut told = 0;
        for n in 1..20 {
            let now = Time::ZERO + config.beat_interval * n;
            pulse.handle_frame(now, LinkId(1));
            pulse.handle_beat(now, LinkId(1), (7, config.beat_interval), true, &mut out);
            assert!(pulse.handle_timeout(now, &mut out).is_empty());
        }
        while let Some(output) = out.pop() {
            told += u32::from(matches!(output, Output::Tell(Event::RootStale { .. })));
        }
        assert_eq!(told, 1);
        let now = Time::ZERO + config.beat_interval * 21;
        pulse.handle_beat(now, LinkId(1), (8, config.beat_interval), true, &mut out);
        assert_eq!(out.pop(), Some(Output::Tell(Event::RootFresh)));
    }
}
