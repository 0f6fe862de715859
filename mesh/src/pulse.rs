//! Beats, both ways on every link, and who is silent.
//!
//! A node beats on each link as often as the slower of its two ends wants to: where each byte is
//! dear the child says so, and the parent follows. Each beat carries the number of the *root's* own
//! beat that the sender last heard of, and how often that can move, so a host behind a healthy
//! relay still learns how old the controller's word is. A peer that misses three of its own
//! intervals is stale and its link is given up, at whichever end notices first.
//!
//! Beats of the two ends go together: who hears one and would beat soon does so at once. Then one
//! packet carries the answer and the acknowledgement, and only the answer needs one of its own. So
//! that both directions cost the same, the ends take turns: who began waits [`SLACK`] longer than
//! who has answered.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::agenda::Agenda;
use crate::outbox::Outbox;
use crate::sabotage::Bug;
use crate::wake::Deadline;
use crate::{Config, Event, Frame, LinkId, Output, Time, Wake};

struct Pace {
    /// When the peer was last heard, and how often it says that it beats.
    last: Time,
    interval: Duration,
    /// How often we want to beat, and when we last did.
    ours: Duration,
    sent: Time,
    /// The root's number as the peer has last said it on this link.
    root: Option<u64>,
    /// Whether the peer is the parent.
    up: bool,
}

/// Why a beat is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// It is time to.
    Begin,
    /// The peer has beaten.
    Answer,
}

/// What a beat says.
pub(crate) struct Beat {
    pub(crate) root: u64,
    pub(crate) interval: Duration,
    pub(crate) root_interval: Duration,
    pub(crate) speaks: bool,
}

/// Who has begun waits longer than an interval by a part of it: one in so many. On paths whose
/// round trip is longer than that the ends may begin at the same time, which costs a packet more.
const SLACK: u32 = 8;
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
    /// When the root's number moves, and who is silent is looked at.
    next: Time,
    links: BTreeMap<LinkId, Pace>,
    /// When to beat on each.
    due: Agenda<LinkId>,
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
            due: Agenda::default(),
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
        let pace = Pace { last: now, interval: ours, ours, sent: now, root: None, up };
        self.links.insert(link, pace);
        // The child begins.
        self.beat(now, link, if up { Turn::Answer } else { Turn::Begin }, out);
    }

    /// A link is gone; `up`: it was the parent's, which speaks for this node no more.
    pub(crate) fn handle_down(&mut self, link: LinkId, up: bool) {
        self.links.remove(&link);
        self.due.clear(link);
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
        let (mut said, mut changed) = (None, false);
        if let Some(pace) = self.links.get_mut(&link) {
            said = pace.root.replace(beat.root);
            let before = pace.interval();
            pace.interval = beat.interval.clamp(INTERVALS.0, INTERVALS.1);
            changed = pace.interval() != before;
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
        match changed {
            // The peer must know how long silence is no bad sign.
            true => self.beat(now, link, Turn::Answer, out),
            false => self.answer(now, link, out),
        }
    }

    /// The peer has beaten: so does this node, unless it just has. Beats that do not go together do
    /// so from then on, whatever they were apart.
    fn answer(&mut self, now: Time, link: LinkId, out: &mut Outbox) {
        let Some(pace) = self.links.get(&link) else { return };
        let interval = pace.interval();
        if now.since(pace.sent) >= interval / 2 {
            self.beat(now, link, Turn::Answer, out);
        } else if pace.up {
            // Both may have begun at the same time. The next time it is the child.
            self.due.by(link, now + interval + interval / SLACK / 2);
        }
    }

    /// Beats if it is time to. Returns the links whose peers are stale.
    pub(crate) fn handle_timeout(&mut self, now: Time, out: &mut Outbox) -> Vec<LinkId> {
        if self.next <= now && self.is_root {
            self.root += 1;
        }
        while let Some(link) = self.due.due(now) {
            self.beat(now, link, Turn::Begin, out);
        }
        if self.root_due().is_some_and(|due| due <= now) {
            self.root_stale = true;
            out.push(Output::Tell(Event::RootStale { age: self.root_age(now) }));
        }
        if now < self.next {
            return Vec::new();
        }
        self.next = now + self.interval;
        let stale = |pace: &Pace| now.since(pace.last) > pace.interval * self.missed;
        self.links.iter().filter(|(_, pace)| stale(pace)).map(|(link, _)| *link).collect()
    }

    pub(crate) fn poll_timeout(&self) -> Deadline {
        let times = [Some(self.next), self.due.next(), self.root_due()];
        times.into_iter().flatten().min().map(|at| (at, Wake::Pulse))
    }

    /// When the root is silent, if nothing comes of it.
    fn root_due(&self) -> Option<Time> {
        let waits = !self.is_root && !self.root_stale;
        // Each node on the way passes it on at beats of its own, which slip past one another.
        let most = self.root_interval * (self.missed + 1) + self.root_interval / 2;
        waits.then(|| self.root_moved + most)
    }

    fn beat(&mut self, now: Time, link: LinkId, turn: Turn, out: &mut Outbox) {
        let Some(pace) = self.links.get_mut(&link) else { return };
        pace.sent = now;
        let interval = pace.interval();
        let wait = match turn {
            Turn::Begin => interval + interval / SLACK,
            Turn::Answer => interval,
        };
        self.due.set(link, now + wait);
        let root_interval = self.root_interval.max(interval);
        let speaks = self.speaks || self.spoken;
        out.send(link, Frame::Beat { root: self.root, interval, root_interval, speaks });
    }
}

impl Pace {
    /// How often to beat on this link.
    fn interval(&self) -> Duration {
        self.ours.max(self.interval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HostId;

    fn beat(root: u64, interval: Duration) -> Beat {
        Beat { root, interval, root_interval: interval, speaks: false }
    }

    const LINK: LinkId = LinkId(1);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A parent and a child whose link is up at different times, by so much; the child wants to
    /// beat this often. When each of them beats, within so much time.
    fn play(trip: Duration, apart: Duration, child: Duration, lasts: Duration) -> [Vec<Time>; 2] {
        let slow = Config { uplink_interval: child, ..Config::new(HostId(1), 1, false) };
        let configs = [Config::new(HostId(0), 0, true), slow];
        let mut ends = configs.each_ref().map(|config| Pulse::new(config, Time::ZERO));
        let ups = [Time::ZERO, Time::ZERO + apart];
        let (mut sent, mut is_up) = ([Vec::new(), Vec::new()], [false; 2]);
        let mut flying = std::collections::VecDeque::<(Time, usize, Beat)>::new();
        loop {
            let timeouts = ends.iter().filter_map(|end| end.poll_timeout()).map(|(at, _)| at);
            let late = (0..2).filter(|end| !is_up[*end]).map(|end| ups[end]);
            let now = timeouts.chain(late).chain(flying.front().map(|(at, ..)| *at)).min();
            let now = now.expect("there is always something to come");
            if now > Time::ZERO + lasts {
                return sent;
            }
            for end in 0..2 {
                let mut out = Outbox::default();
                if now >= ups[end] && !std::mem::replace(&mut is_up[end], now >= ups[end]) {
                    ends[end].handle_up(now, LINK, end == 1, &mut out);
                }
                while let Some((at, to, beat)) = flying.pop_front() {
                    if at > now || to != end {
                        flying.push_front((at, to, beat));
                        break;
                    }
                    ends[end].handle_frame(now, LINK);
                    ends[end].handle_beat(now, LINK, beat, end == 1, &mut out);
                }
                let stale = ends[end].handle_timeout(now, &mut out);
                assert!(stale.is_empty(), "{end} finds the other stale at {now:?}: {sent:?}");
                while let Some(output) = out.pop() {
                    if let Output::Send { frame, .. } = output
                        && let Frame::Beat { root, interval, root_interval, speaks } = frame
                    {
                        sent[end].push(now);
                        let beat = Beat { root, interval, root_interval, speaks };
                        flying.push_back((now + trip / 2, 1 - end, beat));
                    }
                }
            }
        }
    }

    /// A root and nodes below one another, by links with these round trips and some jitter. How
    /// long the last of them is at most without news of the root, once all are linked, and whether
    /// anybody says that the root is silent.
    fn chain(trips: &[Duration], seed: u64, lasts: Duration) -> (Duration, bool) {
        let configs: Vec<_> = (0..=trips.len() as u32)
            .map(|n| Config::new(HostId(n), usize::from(n > 0), true))
            .collect();
        let mut ends: Vec<_> =
            configs.iter().map(|config| Pulse::new(config, Time::ZERO)).collect();
        let (up, down) = (LinkId(1), LinkId(2));
        let mut outs: Vec<_> = ends.iter().map(|_| Outbox::default()).collect();
        for n in 0..trips.len() {
            ends[n].handle_up(Time::ZERO, down, false, &mut outs[n]);
            ends[n + 1].handle_up(Time::ZERO, up, true, &mut outs[n + 1]);
        }
        let mut flying = std::collections::BTreeMap::<(Time, u64), (usize, LinkId, Beat)>::new();
        let (mut now, mut dice, mut count) = (Time::ZERO, seed, 0);
        let (mut longest, mut said) = (Duration::ZERO, false);
        while now < Time::ZERO + lasts {
            for n in 0..ends.len() {
                assert!(ends[n].handle_timeout(now, &mut outs[n]).is_empty(), "{n} at {now:?}");
                while let Some(output) = outs[n].pop() {
                    said |= matches!(output, Output::Tell(Event::RootStale { .. }));
                    let Output::Send { link, frame, .. } = output else { continue };
                    let Frame::Beat { root, interval, root_interval, speaks } = frame else {
                        continue;
                    };
                    let (to, by, trip) = match link == up {
                        true => (n - 1, down, trips[n - 1]),
                        false => (n + 1, up, trips[n]),
                    };
                    dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let late = Duration::from_micros((dice >> 40) % 10_000);
                    let beat = Beat { root, interval, root_interval, speaks };
                    count += 1;
                    flying.insert((now + trip / 2 + late, count), (to, by, beat));
                }
            }
            let timeouts = ends.iter().filter_map(|end| end.poll_timeout()).map(|(at, _)| at);
            let first = flying.keys().next().map(|(at, _)| *at);
            now = timeouts.chain(first).min().expect("there is always something to come").max(now);
            while let Some(entry) = flying.first_entry().filter(|entry| entry.key().0 <= now) {
                let (to, link, beat) = entry.remove();
                if now > Time::ZERO + lasts / 100 {
                    longest = longest.max(ends[trips.len()].root_age(now));
                }
                ends[to].handle_frame(now, link);
                ends[to].handle_beat(now, link, beat, link == up, &mut outs[to]);
            }
        }
        (longest, said)
    }

    #[test]
    fn news_of_the_root_slips_on_a_long_way_and_it_is_not_silent_for_that() {
        let trips = [600, 250, 100, 1].map(ms);
        let mut worst = Duration::ZERO;
        for seed in 0..10 {
            let (longest, said) = chain(&trips, seed, ms(4 * 3_600_000));
            assert!(!said, "seed {seed}: {longest:?}");
            worst = worst.max(longest);
        }
        // What is allowed is needed, and would not be by much less.
        let interval = Config::new(HostId(0), 0, true).beat_interval;
        assert!(worst > interval * 3 && worst < interval * 4 + interval / 4, "{worst:?}");
    }

    #[test]
    fn a_link_beats_as_slowly_as_its_slower_end_wants() {
        let lasts = ms(120_000);
        for (child, count) in [(20, [8, 7]), (5, [25, 25])] {
            let sent = play(Duration::ZERO, Duration::ZERO, ms(child * 1_000), lasts);
            // In two minutes, with the one at link-up, and the parent's that says that it follows.
            assert_eq!(sent.map(|times| times.len()), count);
        }
    }

    #[test]
    fn the_ends_take_turns_and_answer_at_once() {
        let lasts = ms(600_000);
        for (trip, child) in [(0, 5), (50, 5), (300, 5), (300, 20), (1_000, 20)] {
            let (trip, child) = (ms(trip), ms(child * 1_000));
            for apart in 0..24 {
                let apart = ms(500) * apart;
                let sent = play(trip, apart, child, lasts);
                let what = format!("{trip:?} there and back, {apart:?} apart: {sent:?}");
                let mut begun = [0, 0];
                let late =
                    |end: usize| sent[end].iter().skip_while(|at| **at < Time::ZERO + lasts / 4);
                for (end, other) in [(0, 1), (1, 0)] {
                    let times: Vec<_> = late(end).copied().collect();
                    for pair in times.windows(2) {
                        let gap = pair[1].since(pair[0]);
                        assert!(gap >= child && gap <= child + child / SLACK + trip, "{what}");
                        // One that answers comes half a round trip after what it answers.
                        let is_answer = |at: &Time| *at + trip / 2 == pair[1];
                        begun[end] += usize::from(!sent[other].iter().any(is_answer));
                    }
                }
                assert!(begun[0].abs_diff(begun[1]) <= 1, "{begun:?}, {what}");
                let count = late(0).count().min(late(1).count());
                assert!(begun[0] + begun[1] <= count + 1, "{begun:?} of {count}, {what}");
            }
        }
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
        assert_eq!(stale_after, Some(95));
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
