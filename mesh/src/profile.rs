//! Profiles: what hosts say of themselves, on its way up until the parent has it.
//!
//! A profile is a state and no event: only the newest of each host counts, so there is nothing to
//! add up and nothing to keep of what was before. The host numbers its own ([`Profile::revision`]),
//! and of two the higher one is the newer, by whatever ways they came. A node remembers the
//! newest of everybody below it, equal texts once, and tells its parent what is news, hosts that
//! say the same as one text and a set.
//!
//! Nothing of it is on disk here. A parent acknowledges what it has in memory; when it starts
//! again its log has another number, and its children tell all that they know anew. Only the root
//! tells somebody who keeps it. What is said is text that only its readers take apart.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;

use crate::config::Limits;
use crate::outbox::Outbox;
use crate::wake::Deadline;
use crate::{Event, Frame, HostId, HostSet, LinkId, Output, Time, Wake};

/// How long the text of a profile may be, in bytes.
pub const PROFILE_BYTES: usize = 4_096;
/// Profiles that differ in one frame, at most.
pub const PROFILE_LINES: usize = 4_096;
/// What a line costs on the wire beside its text, about, and each range of its hosts.
const LINE_BYTES: usize = 16;
const RANGE_BYTES: usize = 8;

/// What a host says of itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Profile {
    /// The host's own count of its profiles: of two the higher one is newer.
    pub revision: u64,
    /// What it says, at most [`PROFILE_BYTES`].
    pub text: Bytes,
}

/// A profile, and the hosts whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profiled {
    /// What they say.
    pub profile: Profile,
    /// Who.
    pub hosts: HostSet,
}

/// What has been told and is not acknowledged.
struct Flight {
    no: u64,
    lines: Vec<HostSet>,
    /// The last of them, in the order in which lines are told.
    last: (Bytes, u64),
}

/// The profiles of a node and of all below it.
pub(crate) struct Profiles {
    me: HostId,
    root: bool,
    /// Hosts that are known at most, and the bytes of their texts.
    limits: (usize, usize),
    frame_bytes: usize,
    known: BTreeMap<HostId, Profile>,
    /// How many hosts each text has.
    texts: BTreeMap<Bytes, usize>,
    bytes: usize,
    /// Whose profile the parent does not have.
    news: BTreeSet<HostId>,
    due: Option<Time>,
    /// The link of a parent that takes profiles.
    link: Option<LinkId>,
    /// The parent's own log: another one is another process, which knows nothing.
    parent: u64,
    flight: Option<Flight>,
    no: u64,
    /// The line after which the next ones are told: what is not taken must not keep others back.
    after: Option<(Bytes, u64)>,
    /// How long what was not taken waits for the next time.
    patience: Duration,
    /// Whether an older profile takes the place of a newer one: the planted bug.
    careless: bool,
}

impl Profiles {
    pub(crate) fn new(me: HostId, root: bool, limits: &Limits, careless: bool) -> Profiles {
        Profiles {
            me,
            root,
            limits: (limits.profiles, limits.profile_bytes),
            frame_bytes: limits.report_bytes,
            known: BTreeMap::new(),
            texts: BTreeMap::new(),
            bytes: 0,
            news: BTreeSet::new(),
            due: None,
            link: None,
            parent: 0,
            flight: None,
            no: 0,
            after: None,
            patience: Duration::ZERO,
            careless,
        }
    }

    /// How many hosts are known, and how many bytes their texts have.
    pub(crate) fn len(&self) -> (usize, usize) {
        (self.known.len(), self.bytes)
    }

    /// This host says something of itself.
    pub(crate) fn say(&mut self, now: Time, profile: Profile, out: &mut Outbox) {
        if self.root {
            let line = Profiled { profile, hosts: HostSet::one(self.me) };
            return out.push(Output::Tell(Event::Profiles(vec![line])));
        }
        if self.learn(self.me, profile) == Some(true) {
            self.tell_by(now);
        }
    }

    /// A child tells profiles, of those who are routed through it. What is said of others, and
    /// that for which there is no room, is for later.
    ///
    /// # Errors
    /// It breaks the protocol, and how.
    pub(crate) fn take(
        &mut self,
        at: Time,
        (child, serves): (HostId, bool),
        below: &HostSet,
        (link, no): (LinkId, u64),
        lines: Vec<Profiled>,
        out: &mut Outbox,
    ) -> Result<(), &'static str> {
        if !serves && lines.iter().any(|line| line.hosts != HostSet::one(child)) {
            return Err("a host told profiles of others than itself");
        }
        let below = below.union(&HostSet::one(child));
        let (mut held, mut own) = (lines.len(), Vec::new());
        for (at_line, mut line) in lines.into_iter().enumerate() {
            let hosts = line.hosts.difference(&HostSet::one(self.me));
            line.hosts = hosts.intersection(&below);
            if line.hosts != hosts {
                held = held.min(at_line);
            }
            if self.root {
                own.push(line);
            } else if !self.take_line(at, line) {
                held = held.min(at_line);
                break;
            }
        }
        own.retain(|line| !line.hosts.is_empty());
        if !own.is_empty() {
            out.push(Output::Tell(Event::Profiles(own)));
        }
        out.send(link, Frame::ProfilesHeld { no, held });
        Ok(())
    }

    /// Whether there was room for all of it.
    fn take_line(&mut self, at: Time, line: Profiled) -> bool {
        if line.hosts.len() > self.limits.0 as u64 {
            return false;
        }
        for host in line.hosts.iter() {
            match self.learn(host, line.profile.clone()) {
                Some(true) => self.tell_by(at),
                Some(false) => {}
                None => return false,
            }
        }
        true
    }

    /// Takes in what a host says. Returns whether that is news; `None` if there is no room.
    fn learn(&mut self, host: HostId, profile: Profile) -> Option<bool> {
        let old = self.known.get(&host);
        let is_newer = old.is_none_or(|old| match self.careless {
            true => *old != profile,
            false => *old < profile,
        });
        if !is_newer {
            return Some(false);
        }
        let more = if self.texts.contains_key(&profile.text) { 0 } else { profile.text.len() };
        let full = old.is_none() && self.known.len() >= self.limits.0;
        let heavy = more > 0 && self.bytes + more > self.limits.1;
        // The own one always finds room.
        if host != self.me && (full || heavy) {
            return None;
        }
        self.forget(host);
        let text = match self.texts.get_key_value(&profile.text) {
            Some((text, _)) => text.clone(),
            None => {
                self.bytes += profile.text.len();
                // Let go of the frame that it came in.
                Bytes::copy_from_slice(&profile.text)
            }
        };
        *self.texts.entry(text.clone()).or_default() += 1;
        self.known.insert(host, Profile { revision: profile.revision, text });
        self.news.insert(host);
        Some(true)
    }

    fn forget(&mut self, host: HostId) {
        let Some(old) = self.known.remove(&host) else { return };
        self.news.remove(&host);
        let hosts = self.texts.get_mut(&old.text).expect("each text that is known is counted");
        *hosts -= 1;
        if *hosts == 0 {
            self.bytes -= old.text.len();
            self.texts.remove(&old.text);
        }
    }

    fn tell_by(&mut self, at: Time) {
        self.due = Some(self.due.map_or(at, |old| old.min(at)));
    }

    /// The parent has said hello: whether it takes profiles, and by which log it is known. Another
    /// process is told everything of those who are still below.
    pub(crate) fn handle_hello(
        &mut self,
        now: Time,
        (link, log): (LinkId, u64),
        takes: bool,
        below: &HostSet,
    ) {
        self.link = Some(link).filter(|_| takes);
        if std::mem::replace(&mut self.parent, log) != log {
            let gone: Vec<_> =
                self.known.keys().copied().filter(|host| !below.contains(*host)).collect();
            gone.into_iter().for_each(|host| self.forget(host));
            self.news = self.known.keys().copied().collect();
        }
        if !self.news.is_empty() {
            self.tell_by(now);
        }
    }

    /// A link has gone; if it was the parent's, what was on its way may be lost.
    pub(crate) fn handle_down(&mut self, link: LinkId, lose: bool) {
        if self.link == Some(link) {
            self.link = None;
            let flight = self.flight.take().filter(|_| !lose);
            self.bring_back(flight.into_iter().flat_map(|flight| flight.lines));
        }
    }

    /// The parent has so many lines of those that were on their way, and of the rest no room for
    /// some, or it has not heard yet that they are below. These wait: at first for the least time,
    /// then ever longer, up to the most, as long as nothing is taken.
    pub(crate) fn handle_held(
        &mut self,
        now: Time,
        link: LinkId,
        (no, held): (u64, usize),
        (least, most): (Duration, Duration),
    ) {
        if self.link != Some(link) {
            return;
        }
        let Some(mut flight) = self.flight.take_if(|flight| flight.no == no) else { return };
        let rest = flight.lines.split_off(held.min(flight.lines.len()));
        self.patience = match held {
            0 if !rest.is_empty() => (self.patience * 2).clamp(least, most.max(least)),
            _ => Duration::ZERO,
        };
        if !rest.is_empty() {
            self.due = Some(now + self.patience.max(least));
            self.after = Some(flight.last);
            self.bring_back(rest);
        }
    }

    fn bring_back(&mut self, lines: impl IntoIterator<Item = HostSet>) {
        for hosts in lines {
            self.news.extend(hosts.iter().filter(|host| self.known.contains_key(host)));
        }
    }

    /// Others are reachable now: what was news of them may be told.
    pub(crate) fn routes_changed(&mut self, at: Time) {
        if !self.news.is_empty() {
            self.tell_by(at);
        }
    }

    /// Whether it is time to tell the parent, and nothing is on its way.
    pub(crate) fn is_due(&self, now: Time) -> bool {
        let waits = self.link.is_some() && self.flight.is_none();
        waits && self.due.is_some_and(|due| due <= now)
    }

    /// Sends the parent what is news of those who are reachable through this node. Who is not
    /// speaks for himself where he is now, or here when he is back: of him the parent would take
    /// nothing from here.
    pub(crate) fn tell_parent(&mut self, now: Time, up: &HostSet, out: &mut Outbox) {
        let Some(link) = self.link.filter(|_| self.is_due(now)) else { return };
        self.due = None;
        let lines = self.next_lines(up);
        let Some(last) = lines.last().map(|line| &line.profile) else { return };
        let last = (last.text.clone(), last.revision);
        for host in lines.iter().flat_map(|line| line.hosts.iter()) {
            self.news.remove(&host);
        }
        if self.news.iter().any(|host| up.contains(*host)) {
            self.due = Some(now);
        }
        self.no += 1;
        let told = lines.iter().map(|line| line.hosts.clone()).collect();
        self.flight = Some(Flight { no: self.no, lines: told, last });
        out.send(link, Frame::Profiles { no: self.no, lines });
    }

    /// As many lines of news as a frame may have. Those with the same text follow each other, which
    /// then crosses the link once.
    fn next_lines(&self, up: &HostSet) -> Vec<Profiled> {
        let mut by_profile = BTreeMap::<(&Bytes, u64), Vec<HostId>>::new();
        for host in self.news.iter().filter(|host| up.contains(**host)) {
            let Profile { revision, text } = &self.known[host];
            by_profile.entry((text, *revision)).or_default().push(*host);
        }
        let (mut lines, mut bytes) = (Vec::<Profiled>::new(), 0);
        let begin = self.after.as_ref().map(|(text, revision)| (text, *revision));
        let behind = begin.map_or_else(BTreeMap::new, |(text, no)| {
            by_profile.split_off(&(text, no.saturating_add(1)))
        });
        for ((text, revision), hosts) in behind.into_iter().chain(by_profile) {
            let hosts: HostSet = hosts.into_iter().collect();
            let same = lines.last().is_some_and(|last| last.profile.text == *text);
            let text_bytes = if same { 0 } else { text.len() };
            let size = LINE_BYTES + text_bytes + RANGE_BYTES * hosts.ranges().len();
            let is_full = bytes + size > self.frame_bytes && !lines.is_empty();
            if is_full || lines.len() == PROFILE_LINES {
                break;
            }
            bytes += size;
            lines.push(Profiled { profile: Profile { revision, text: text.clone() }, hosts });
        }
        lines
    }

    pub(crate) fn poll_timeout(&self) -> Deadline {
        let waits = self.link.is_some() && self.flight.is_none();
        self.due.filter(|_| waits).map(|at| (at, Wake::Profiles))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UP: LinkId = LinkId(1);
    const DOWN: LinkId = LinkId(2);
    const WAITS: (Duration, Duration) = (Duration::from_secs(0), Duration::from_secs(60));

    fn at(secs: u64) -> Time {
        Time(std::time::Duration::from_secs(secs))
    }

    fn hosts(first: u32, last: u32) -> HostSet {
        HostSet::from_ranges([(first, last)])
    }

    fn line(revision: u64, text: &'static str, hosts: HostSet) -> Profiled {
        Profiled { profile: Profile { revision, text: Bytes::from_static(text.as_bytes()) }, hosts }
    }

    fn relay(limits: Limits) -> Profiles {
        let mut relay = Profiles::new(HostId(5), false, &limits, false);
        relay.handle_hello(at(0), (UP, 7), true, &hosts(0, 99));
        relay
    }

    /// What a relay below tells, and how much of it is held.
    fn take(relay: &mut Profiles, lines: Vec<Profiled>) -> usize {
        let mut out = Outbox::default();
        let (child, below) = ((HostId(6), true), hosts(6, 99));
        relay.take(at(1), child, &below, (DOWN, 1), lines, &mut out).expect("it is good");
        match out.pop() {
            Some(Output::Send { frame: Frame::ProfilesHeld { held, .. }, .. }) => held,
            other => panic!("{other:?}"),
        }
    }

    fn told(relay: &mut Profiles, now: Time) -> Option<(u64, Vec<Profiled>)> {
        told_of(relay, now, &hosts(0, 99))
    }

    fn told_of(relay: &mut Profiles, now: Time, up: &HostSet) -> Option<(u64, Vec<Profiled>)> {
        let mut out = Outbox::default();
        relay.tell_parent(now, up, &mut out);
        match out.pop()? {
            Output::Send { link: UP, frame: Frame::Profiles { no, lines } } => Some((no, lines)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn hosts_that_say_the_same_are_one_line_and_are_told_once() {
        let mut relay = relay(Limits::default());
        for host in 10..60 {
            let one = line(3, "os=debian", HostSet::one(HostId(host)));
            let mut out = Outbox::default();
            let (child, below) = ((HostId(host), false), HostSet::new());
            let taken = relay.take(at(1), child, &below, (DOWN, 1), vec![one], &mut out);
            assert_eq!(taken, Ok(()));
        }
        assert_eq!(relay.len(), (50, 9));
        let all = vec![line(3, "os=debian", hosts(10, 59))];
        assert_eq!(told(&mut relay, at(2)), Some((1, all)));
        assert_eq!(relay.poll_timeout(), None);
        relay.handle_held(at(9), UP, (1, 1), WAITS);
        assert_eq!(told(&mut relay, at(10)), None);
        // The same again is no news, nor is what is older.
        assert_eq!(take(&mut relay, vec![line(3, "os=debian", hosts(10, 59))]), 1);
        assert_eq!(take(&mut relay, vec![line(2, "os=plan9", hosts(10, 59))]), 1);
        assert_eq!(told(&mut relay, at(11)), None);
        assert_eq!(take(&mut relay, vec![line(4, "os=debian", hosts(11, 11))]), 1);
        let news = vec![line(4, "os=debian", hosts(11, 11))];
        assert_eq!(told(&mut relay, at(12)), Some((2, news)));
    }

    #[test]
    fn another_parent_process_is_told_everything_and_the_same_one_what_it_lacks() {
        let mut relay = relay(Limits::default());
        take(&mut relay, vec![line(1, "a", hosts(10, 11)), line(1, "b", hosts(12, 12))]);
        let all = vec![line(1, "a", hosts(10, 11)), line(1, "b", hosts(12, 12))];
        assert_eq!(told(&mut relay, at(2)), Some((1, all.clone())));
        relay.handle_down(UP, false);
        relay.handle_hello(at(3), (UP, 7), true, &hosts(0, 99));
        assert_eq!(told(&mut relay, at(3)), Some((2, all)), "it was not acknowledged");
        relay.handle_held(at(9), UP, (2, 2), WAITS);
        relay.handle_down(UP, false);
        relay.handle_hello(at(4), (UP, 7), true, &hosts(0, 99));
        assert_eq!(told(&mut relay, at(4)), None);
        relay.handle_down(UP, false);
        relay.handle_hello(at(5), (UP, 8), true, &hosts(0, 11));
        let left = vec![line(1, "a", hosts(10, 11))];
        assert_eq!(told(&mut relay, at(5)), Some((3, left)), "12 lives elsewhere by now");
        assert_eq!(relay.len(), (2, 1));
    }

    #[test]
    fn what_finds_no_room_is_told_again_later() {
        let mut small = relay(Limits { profiles: 3, profile_bytes: 4, ..Limits::default() });
        assert_eq!(take(&mut small, vec![line(1, "abc", hosts(10, 11))]), 1);
        let more = vec![line(1, "abc", hosts(12, 12)), line(1, "abc", hosts(13, 13))];
        assert_eq!(take(&mut small, more), 1);
        assert_eq!(take(&mut small, vec![line(2, "xyz", hosts(10, 10))]), 0);
        assert_eq!(take(&mut small, vec![line(2, "z", hosts(10, 10))]), 1);
        assert_eq!(small.len(), (3, 4));
        assert_eq!(take(&mut small, vec![line(3, "z", hosts(10, 10))]), 1);
        assert_eq!(small.len(), (3, 4), "the same text anew");
        assert!(told(&mut small, at(2)).is_some_and(|(no, lines)| no == 1 && lines.len() == 2));
        // The first line is that of the lower revision.
        small.handle_held(at(60), UP, (1, 1), WAITS);
        assert_eq!(small.poll_timeout(), Some((at(60), Wake::Profiles)));
        assert_eq!(told(&mut small, at(59)), None);
        assert_eq!(told(&mut small, at(60)), Some((2, vec![line(3, "z", hosts(10, 10))])));
    }

    #[test]
    fn a_relay_speaks_for_those_who_are_routed_through_it() {
        for root in [false, true] {
            let mut parent = Profiles::new(HostId(5), root, &Limits::default(), false);
            parent.handle_hello(at(0), (UP, 7), true, &hosts(0, 99));
            let mut out = Outbox::default();
            let lines = vec![
                line(1, "a", hosts(10, 11)),
                line(u64::MAX, "b", hosts(11, 30)),
                line(u64::MAX, "c", hosts(40, 40)),
                line(1, "d", hosts(12, 12)),
            ];
            let child = (HostId(6), true);
            let taken = parent.take(at(1), child, &hosts(10, 12), (DOWN, 1), lines, &mut out);
            assert_eq!(taken, Ok(()));
            let cut = vec![
                line(1, "a", hosts(10, 11)),
                line(u64::MAX, "b", hosts(11, 12)),
                line(1, "d", hosts(12, 12)),
            ];
            if root {
                assert_eq!(out.pop(), Some(Output::Tell(Event::Profiles(cut))));
            } else {
                assert_eq!(parent.len().0, 3, "10 to 12");
            }
            let held = Frame::ProfilesHeld { no: 1, held: 1 };
            assert_eq!(out.pop(), Some(Output::Send { link: DOWN, frame: held }));
        }
    }

    #[test]
    fn who_is_not_reachable_here_is_told_when_he_is_back() {
        let mut relay = relay(Limits::default());
        take(&mut relay, vec![line(1, "a", hosts(10, 12))]);
        let up = hosts(0, 11);
        assert_eq!(told_of(&mut relay, at(2), &up), Some((1, vec![line(1, "a", hosts(10, 11))])));
        relay.handle_held(at(9), UP, (1, 1), WAITS);
        assert_eq!(relay.poll_timeout(), None, "nothing is said again and again");
        relay.routes_changed(at(20));
        assert_eq!(told_of(&mut relay, at(20), &up), None);
        relay.routes_changed(at(30));
        assert_eq!(told(&mut relay, at(30)), Some((2, vec![line(1, "a", hosts(12, 12))])));
        relay.handle_held(at(40), UP, (2, 1), WAITS);
        relay.routes_changed(at(40));
        assert_eq!(relay.poll_timeout(), None);
    }

    #[test]
    fn what_is_not_taken_waits_ever_longer_until_something_is() {
        let mut relay = relay(Limits::default());
        take(&mut relay, vec![line(1, "a", hosts(10, 10))]);
        let waits = (Duration::from_secs(5), Duration::from_secs(60));
        let mut now = 2;
        for (no, wait) in [5, 10, 20, 40, 60, 60].into_iter().enumerate() {
            assert!(told(&mut relay, at(now)).is_some());
            relay.handle_held(at(now), UP, (no as u64 + 1, 0), waits);
            now += wait;
            assert_eq!(relay.poll_timeout(), Some((at(now), Wake::Profiles)));
        }
        assert!(told(&mut relay, at(now)).is_some());
        relay.handle_held(at(now), UP, (7, 1), waits);
        assert_eq!(relay.poll_timeout(), None);
        take(&mut relay, vec![line(2, "b", hosts(10, 10))]);
        assert!(told(&mut relay, at(now + 1)).is_some());
        relay.handle_held(at(now), UP, (8, 0), waits);
        assert_eq!(relay.poll_timeout(), Some((at(now + 5), Wake::Profiles)));
    }

    #[test]
    fn a_line_that_is_not_taken_keeps_no_other_back() {
        let room = 2 * (LINE_BYTES + RANGE_BYTES + 1);
        let mut relay = relay(Limits { report_bytes: room, ..Limits::default() });
        let all = ["a", "b", "c", "d", "e"].into_iter().zip(10..);
        let all: Vec<_> = all.map(|(text, no)| line(1, text, hosts(no, no))).collect();
        take(&mut relay, all.clone());
        let mut seen = Vec::new();
        for no in 1..=3 {
            let (told, lines) = told(&mut relay, at(2 + no)).expect("something is left");
            assert_eq!(told, no);
            seen.extend(lines);
            relay.handle_held(at(2 + no), UP, (no, 0), WAITS);
        }
        seen.dedup();
        assert_eq!(seen[..5], all, "each has had its turn, though nothing was taken");
    }

    #[test]
    fn a_host_speaks_for_itself_and_an_older_parent_is_told_nothing() {
        let mut relay = relay(Limits::default());
        let mut out = Outbox::default();
        let mut take = |hosts| {
            let (child, lines) = ((HostId(7), false), vec![line(1, "a", hosts)]);
            relay.take(at(0), child, &HostSet::new(), (DOWN, 1), lines, &mut out)
        };
        assert!(take(hosts(8, 8)).is_err() && take(hosts(7, 8)).is_err());
        assert!(take(hosts(7, 7)).is_ok());
        relay.handle_hello(at(1), (UP, 9), false, &hosts(0, 99));
        assert_eq!((told(&mut relay, at(2)), relay.poll_timeout()), (None, None));
    }
}
