//! Beats, both ways on every link, and who is silent.
//!
//! A node beats on its links at one tick, on each link as often as the slower of its two ends wants
//! to: where each byte is dear the child says so, and the parent follows. Each beat carries the
//! number of the *root's* own beat that the sender last heard of, and how often that can move, so a
//! host behind a healthy relay still learns how old the controller's word is. A peer that misses
//! three of its own intervals is stale and its link is given up, at whichever end notices first.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::outbox::Outbox;
use crate::sabotage::Bug;
use crate::wake::Deadline;
use crate::{Config, Event, Frame, LinkId, Output, Time, Wake};

struct Pace {
    /// When the peer was last heard, and how often it says that it beats.
    last: Time,
    interval: Duration,
    /// How often we want to beat, and when next.
    ours: Duration,
    next: Time,
    /// The root's number as the peer has last said it on this link.
    root: Option<u64>,
}

/// What a beat says.
pub(crate) struct Beat {
    pub(crate) root: u64,
    pub(crate) interval: Duration,
    pub(crate) root_interval: Duration,
    pub(crate) speaks: bool,
}

const INTERVALS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(3600));

/// The beats of one node.
pub(crate) struct Pulse {
    interval: Duration,
    uplink_interval: Duration,
    missed: u32,
    is_root: bool,
    /// Whether this node, and whether its parent, tells people of a silent root.
    speaks: bool,
    spoken: bool,
    root: u64,
    root_moved: Time,
    root_stale: bool,
    /// How often the root's number can move here.
    root_interval: Duration,
    next: Time,
    links: BTreeMap<LinkId, Pace>,
}

impl Pulse {
    pub(crate) fn new(config: &Config, now: Time) -> Pulse {
        Pulse {
            interval: config.beat_interval,
            uplink_interval: config.uplink_interval.max(config.beat_interval),
            missed: config.missed_beats,
            is_root: config.is_root() || config.has(Bug::BeatOnBehalf),
            speaks: config.speaks,
            spoken: false,
            root: 0,
            root_moved: now,
            root_stale: false,
            root_interval: config.beat_interval,
            next: now + config.beat_interval,
            links: BTreeMap::new(),
        }
    }

    /// How long ago the root's number last moved, as far as this node knows.
    pub(crate) fn root_age(&self, now: Time) -> Duration {
        if self.is_root { Duration::ZERO } else { now.since(self.root_moved) }
    }

    /// Whether the root was heard of at all, and whether it is silent.
    pub(crate) fn root_word(&self) -> (bool, bool) {
        (self.root > 0, self.root_stale)
    }

    pub(crate) fn handle_up(&mut self, now: Time, link: LinkId, up: bool, out: &mut Outbox) {
        let ours = if up { self.uplink_interval } else { self.interval };
        self.links.insert(link, Pace { last: now, interval: ours, ours, next: now, root: None });
        self.beat(now, link, out);
    }

    /// A link is gone; `up`: it was the parent's, which speaks for this node no more.
    pub(crate) fn handle_down(&mut self, link: LinkId, up: bool) {
        self.links.remove(&link);
        self.spoken &= !up;
    }

    /// Any frame is a sign of life.
    pub(crate) fn handle_frame(&mut self, now: Time, link: LinkId) {
        if let Some(heard) = self.links.get_mut(&link) {
            heard.last = now;
        }
    }

    /// Takes a beat; only the parent's says anything of the root. A root that came back from a
    /// backup may count from a lower number, so any change on one link is a move. What a parent
    /// says first is none unless it is more than was known: it may have heard nothing for long.
    pub(crate) fn handle_beat(
        &mut self,
        now: Time,
        link: LinkId,
        beat: Beat,
        from_parent: bool,
        out: &mut Outbox,
    ) {
        let mut said = None;
        if let Some(pace) = self.links.get_mut(&link) {
            said = pace.root.replace(beat.root);
            pace.interval = beat.interval.clamp(INTERVALS.0, INTERVALS.1);
        }
        if from_parent {
            self.root_interval =
                beat.root_interval.clamp(self.interval.min(INTERVALS.1), INTERVALS.1);
        }
        if from_parent && std::mem::replace(&mut self.spoken, beat.speaks) != beat.speaks {
            out.push(Output::Tell(Event::Spoken(beat.speaks)));
        }
        let moved = said.map_or(beat.root > self.root, |said| beat.root != said);
        if from_parent && moved {
            self.root = beat.root;
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
        let due = |pace: &Pace| pace.next <= now;
        let due: Vec<_> =
            self.links.iter().filter(|(_, pace)| due(pace)).map(|(l, _)| *l).collect();
        for link in due {
            self.beat(now, link, out);
        }
        let age = self.root_age(now);
        if !self.root_stale && age > self.root_interval * (self.missed + 1) {
            self.root_stale = true;
            out.push(Output::Tell(Event::RootStale { age }));
        }
        let stale = |pace: &Pace| now.since(pace.last) > pace.interval * self.missed;
        self.links.iter().filter(|(_, pace)| stale(pace)).map(|(link, _)| *link).collect()
    }

    pub(crate) fn poll_timeout(&self) -> Deadline {
        Some((self.next, Wake::Pulse))
    }

    fn beat(&mut self, now: Time, link: LinkId, out: &mut Outbox) {
        let Some(pace) = self.links.get_mut(&link) else { return };
        let interval = pace.ours.max(pace.interval);
        pace.next = now + interval;
        let root_interval = self.root_interval.max(interval);
        let speaks = self.speaks || self.spoken;
        out.send(link, Frame::Beat { root: self.root, interval, root_interval, speaks });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HostId;

    fn beat(root: u64, interval: Duration) -> Beat {
        Beat { root, interval, root_interval: interval, speaks: false }
    }

    #[test]
    fn a_link_beats_as_slowly_as_its_slower_end_wants() {
        let config = Config::new(HostId(0), 0, true);
        let (mut pulse, mut out) = (Pulse::new(&config, Time::ZERO), Outbox::default());
        let slow = Duration::from_secs(20);
        for link in [1, 2] {
            pulse.handle_up(Time::ZERO, LinkId(link), false, &mut out);
        }
        pulse.handle_beat(Time::ZERO, LinkId(1), beat(0, slow), false, &mut out);
        let (mut beats, mut intervals) = ([0, 0], Vec::new());
        for n in 1..=24 {
            let now = Time::ZERO + config.beat_interval * n;
            (1..=2).for_each(|link| pulse.handle_frame(now, LinkId(link)));
            assert!(pulse.handle_timeout(now, &mut out).is_empty());
        }
        while let Some(output) = out.pop() {
            let Output::Send { link, frame: Frame::Beat { interval, root_interval, .. }, .. } =
                output
            else {
                continue;
            };
            assert_eq!(interval, root_interval);
            beats[link.0 as usize - 1] += 1;
            intervals.extend((link == LinkId(1)).then_some(interval));
        }
        // Two minutes: the one at link-up, the first tick, and from then on every 20 s.
        assert_eq!(beats, [7, 25]);
        assert!(intervals[1..].iter().all(|interval| *interval == slow), "{intervals:?}");
    }

    #[test]
    fn below_a_slow_link_the_root_is_not_stale_too_soon() {
        let config = Config::new(HostId(1), 1, false);
        let (mut pulse, mut out) = (Pulse::new(&config, Time::ZERO), Outbox::default());
        pulse.handle_up(Time::ZERO, LinkId(1), true, &mut out);
        let mut stale_after = None;
        for n in 1..=60 {
            let now = Time::ZERO + config.beat_interval * n;
            let root_interval = Duration::from_secs(20);
            let beat = Beat { speaks: true, root_interval, ..beat(1, config.beat_interval) };
            pulse.handle_frame(now, LinkId(1));
            pulse.handle_beat(now, LinkId(1), beat, true, &mut out);
            pulse.handle_timeout(now, &mut out);
            while let Some(output) = out.pop() {
                if matches!(output, Output::Tell(Event::RootStale { .. })) {
                    stale_after = stale_after.or(Some(n * 5));
                }
            }
        }
        assert_eq!(stale_after, Some(90));
    }

    #[test]
    fn a_silent_peer_is_stale_after_three_of_its_own_intervals() {
        let config = Config::new(HostId(1), 1, false);
        let (mut pulse, mut out) = (Pulse::new(&config, Time::ZERO), Outbox::default());
        pulse.handle_up(Time::ZERO, LinkId(1), true, &mut out);
        let slow = Duration::from_secs(20);
        pulse.handle_beat(Time::ZERO, LinkId(1), beat(1, slow), true, &mut out);
        let at = |secs| Time::ZERO + Duration::from_secs(secs);
        assert!(pulse.handle_timeout(at(55), &mut out).is_empty());
        assert_eq!(pulse.handle_timeout(at(61), &mut out), [LinkId(1)]);
    }

    #[test]
    fn what_another_parent_has_heard_long_ago_is_no_news() {
        let config = Config::new(HostId(1), 2, false);
        let (mut pulse, mut out) = (Pulse::new(&config, Time::ZERO), Outbox::default());
        let at = |secs| Time::ZERO + Duration::from_secs(secs);
        let mut says = |pulse: &mut Pulse, secs, link, root| {
            let beat = beat(root, config.beat_interval);
            pulse.handle_beat(at(secs), LinkId(link), beat, true, &mut out);
            pulse.root_age(at(secs)).as_secs()
        };
        (1..=3).for_each(|n| pulse.handle_up(at(0), LinkId(n), true, &mut Outbox::default()));
        assert_eq!(says(&mut pulse, 1, 1, 40), 0);
        // One that has just started, and one that was cut off.
        assert_eq!(says(&mut pulse, 11, 2, 0), 10);
        assert_eq!(says(&mut pulse, 16, 3, 20), 15);
        assert_eq!(says(&mut pulse, 17, 2, 0), 16);
        // A root that counts from nothing again.
        assert_eq!(says(&mut pulse, 18, 2, 3), 0);
        assert_eq!(says(&mut pulse, 20, 3, 20), 2);
        assert_eq!(says(&mut pulse, 21, 1, 41), 0);
    }

    #[test]
    fn an_old_root_is_told_once_while_the_parent_beats() {
        let config = Config::new(HostId(1), 1, false);
        let (mut pulse, mut out) = (Pulse::new(&config, Time::ZERO), Outbox::default());
        pulse.handle_up(Time::ZERO, LinkId(1), true, &mut out);
        let mut told = 0;
        for n in 1..20 {
            let now = Time::ZERO + config.beat_interval * n;
            pulse.handle_frame(now, LinkId(1));
            pulse.handle_beat(now, LinkId(1), beat(7, config.beat_interval), true, &mut out);
            assert!(pulse.handle_timeout(now, &mut out).is_empty());
        }
        while let Some(output) = out.pop() {
            told += u32::from(matches!(output, Output::Tell(Event::RootStale { .. })));
        }
        assert_eq!(told, 1);
        let now = Time::ZERO + config.beat_interval * 21;
        pulse.handle_beat(now, LinkId(1), beat(8, config.beat_interval), true, &mut out);
        assert_eq!(out.pop(), Some(Output::Tell(Event::RootFresh)));
    }
}
