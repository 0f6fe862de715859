//! Events on their way up: what this host has noticed, what came from below, until the parent has
//! it.
//!
//! A host counts its own events, saves the count, and only then tells it. A relay folds what its
//! children tell with what it has, tells it upward after a short wait, the same signature not more
//! often than `repeat`, and acknowledges once it is on its own disk. What the parent has
//! acknowledged a relay forgets: counts join by their maximum, so whatever is told again or on a
//! detour changes nothing above.
//!
//! One frame is on its way at a time. Where there is no room, a node says so, and the sender keeps
//! what it has and counts on: so the room that a long break takes is bounded by how many different
//! things happen, not by how often. Only the host itself ever drops an event, the least bad first,
//! counts it, and tells.
//!
//! A host's count within a window must never begin anew, or the larger one would hide it. Therefore
//! windows never go back, whatever the clock does, and the count of the latest one stays on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::agenda::Agenda;
use crate::config::EventLimits;
use crate::fact::{FoldKey, Folded, Happening, MOST, Severity, Signature, WINDOW_MS};
use crate::outbox::{EventsAck, Gated, Outbox};
use crate::wake::{Deadline, sooner};
use crate::{Event, Frame, HostId, LinkId, Output, Record, Time, Wake};

/// What a host or a fact costs on the wire, about.
const HOST_BYTES: usize = 12;
const FACT_BYTES: usize = 64;
/// Hosts in one frame.
const HOSTS: usize = 16_384;

/// This host's own events of one signature, in its latest window for them.
struct Own {
    folded: Folded,
    /// How many of them the parent holds.
    told: u64,
    /// Whether the disk has fewer of them.
    dirty: bool,
}

impl Own {
    fn count(&self) -> u64 {
        self.folded.total()
    }
}

/// Events that the parent is to be told.
struct Held {
    folded: Folded,
    /// Whose count has grown since the parent was told.
    news: BTreeSet<HostId>,
    /// Whether the disk has less than this.
    dirty: bool,
    /// Whether the disk has any of it.
    stored: bool,
}

/// What has been sent and is not acknowledged.
struct Flight {
    link: LinkId,
    no: u64,
    events: Vec<Flying>,
}

type Flying = (FoldKey, Vec<(HostId, u64)>);

/// How many more signatures a child may open.
struct Allowance {
    left: usize,
    at: Time,
}

/// The events of a node.
pub(crate) struct Events {
    me: HostId,
    root: bool,
    limits: EventLimits,
    frame_bytes: usize,
    /// The latest window that this host has counted in.
    latest: u32,
    own: BTreeMap<Signature, Own>,
    gone: Vec<Signature>,
    /// How many own events have found no room since that was last told.
    dropped: u64,
    held: BTreeMap<FoldKey, Held>,
    /// How many counts of hosts there are in them.
    counts: usize,
    due: Agenda<FoldKey>,
    /// When each signature was last told.
    told: BTreeMap<Signature, Time>,
    flight: Option<Flight>,
    no: u64,
    pause_until: Time,
    save_at: Option<Time>,
    acks: BTreeMap<HostId, EventsAck>,
    allowances: BTreeMap<HostId, Allowance>,
    /// Root: whose events are not acknowledged yet, each by its link.
    waiting: BTreeMap<HostId, LinkId>,
    /// Whether counts are added up: the planted bug.
    sums: bool,
}

impl Events {
    /// With what was on disk: own counts, and what came from below.
    pub(crate) fn new(
        me: HostId,
        root: bool,
        limits: EventLimits,
        frame_bytes: usize,
        sums: bool,
    ) -> Events {
        Events {
            me,
            root,
            limits,
            frame_bytes,
            latest: 0,
            own: BTreeMap::new(),
            gone: Vec::new(),
            dropped: 0,
            held: BTreeMap::new(),
            counts: 0,
            due: Agenda::default(),
            told: BTreeMap::new(),
            flight: None,
            no: 0,
            pause_until: Time::ZERO,
            save_at: None,
            acks: BTreeMap::new(),
            allowances: BTreeMap::new(),
            waiting: BTreeMap::new(),
            sums,
        }
    }

    /// Takes what was on disk, as nothing that anybody knows of.
    pub(crate) fn restore(
        &mut self,
        now: Time,
        own: Vec<Folded>,
        held: Vec<Folded>,
        out: &mut Outbox,
    ) {
        for folded in held {
            self.fold(now, &folded, true, out);
        }
        for folded in own {
            self.latest = self.latest.max(folded.window);
            let signature = folded.fact.signature;
            self.own.insert(signature, Own { folded: folded.clone(), told: 0, dirty: false });
            self.own_is_saved(now, &folded, out);
        }
    }

    /// Its own events of this signature.
    pub(crate) fn own(&self, signature: Signature) -> Option<Folded> {
        self.own.get(&signature).map(|own| own.folded.clone())
    }

    /// How many counts of hosts there are in those that the parent is to be told.
    pub(crate) fn counts(&self) -> usize {
        self.counts
    }

    /// How many different events are held.
    pub(crate) fn len(&self) -> (usize, usize) {
        (self.own.len(), self.held.len())
    }

    /// This host has noticed something.
    pub(crate) fn happen(&mut self, now: Time, happening: Happening) {
        let Happening { fact, sample, count, reserved } = happening;
        let count = count.min(MOST);
        let window = u32::try_from(sample.at_ms / WINDOW_MS).unwrap_or(u32::MAX);
        let window = window.max(self.latest);
        let signature = fact.signature;
        let open = self.own.get(&signature).map(|own| own.folded.window < window && is_over(own));
        match open {
            // Within a window, or as long as nobody listens, it is counted on.
            Some(false) => {}
            None if !reserved && !self.has_room(fact.severity, window) => {
                self.dropped = self.dropped.saturating_add(count);
                self.save_by(now);
                return;
            }
            Some(true) | None => {
                self.latest = window;
                let folded = Folded {
                    window,
                    fact,
                    sample: sample.clone().into(),
                    first_ms: sample.at_ms,
                    last_ms: sample.at_ms,
                    counts: BTreeMap::from([(self.me, 0)]),
                };
                self.own.insert(signature, Own { folded, told: 0, dirty: true });
            }
        }
        let own = self.own.get_mut(&signature).expect("it is there or was put there");
        let known = own.folded.counts.entry(self.me).or_default();
        *known = known.saturating_add(count).min(MOST);
        own.folded.first_ms = own.folded.first_ms.min(sample.at_ms);
        own.folded.last_ms = own.folded.last_ms.max(sample.at_ms);
        own.dirty = true;
        self.save_by(now);
    }

    /// Whether an own event that is new may take a place. What is less bad finds fewer places.
    fn has_room(&mut self, severity: Severity, window: u32) -> bool {
        let limit = match severity {
            Severity::Info => self.limits.own / 2,
            Severity::Warning => self.limits.own / 4 * 3,
            Severity::Error => self.limits.own,
        };
        if self.own.len() < limit {
            return true;
        }
        let over = |(_, own): &(&Signature, &Own)| is_over(own) && own.folded.window < window;
        let oldest = self.own.iter().filter(over).min_by_key(|(_, own)| own.folded.last_ms);
        let Some(oldest) = oldest.map(|(signature, _)| *signature) else { return false };
        self.own.remove(&oldest);
        self.gone.push(oldest);
        true
    }

    /// A child tells events.
    ///
    /// # Errors
    /// It breaks the protocol, and how.
    pub(crate) fn take(
        &mut self,
        now: Time,
        (child, serves): (HostId, bool),
        (link, no): (LinkId, u64),
        events: Vec<Folded>,
        out: &mut Outbox,
    ) -> Result<(), &'static str> {
        let own = |folded: &Folded| {
            folded.sample.host == child && folded.counts.keys().all(|host| *host == child)
        };
        if !serves && !events.iter().all(own) {
            return Err("a host told events of others than itself");
        }
        let mut taken = 0;
        if self.root {
            if self.waiting.insert(child, link) == Some(link) {
                return Err("events before the last ones were acknowledged");
            }
            let mut events = events;
            // A relay has asked this of its own children already.
            let held = events.iter().take_while(|_| serves || self.earns(now, child)).count();
            events.truncate(held);
            out.push(Output::Tell(Event::Happened(events)));
            // Something that the acknowledgement waits for, together with what was just told.
            out.save(Record::EventsGone(Vec::new()));
            out.after(Gated::AckEvents(vec![EventsAck { child, link, no, held }]));
            return Ok(());
        }
        for folded in &events {
            // What only this host has told goes when the parent has it; a child's word keeps it.
            let known = self.held.get(&folded.key());
            let is_known =
                known.is_some_and(|held| held.folded.counts.keys().any(|host| *host != self.me));
            let brings =
                |held: &Held| folded.counts.keys().any(|h| !held.folded.counts.contains_key(h));
            let is_wider = known.is_none_or(brings) && self.counts >= self.limits.counts;
            if is_wider || !is_known && !self.may_open(now, child, serves) {
                break;
            }
            self.fold(now, folded, false, out);
            taken += 1;
        }
        self.acks.insert(child, EventsAck { child, link, no, held: taken });
        self.save_by(now);
        Ok(())
    }

    /// Root: the events of a child are acknowledged, and it may tell the next ones.
    pub(crate) fn acknowledged(&mut self, child: HostId, link: LinkId) {
        if self.waiting.get(&child) == Some(&link) {
            self.waiting.remove(&child);
        }
    }

    /// Whether a child may bring something that is not here yet.
    fn may_open(&mut self, now: Time, child: HostId, serves: bool) -> bool {
        if self.held.len() >= self.limits.held {
            return false;
        }
        let burst = if serves { self.limits.held } else { self.limits.burst };
        self.spend(now, child, burst)
    }

    /// Root: whether a host without a relay may bring one more.
    fn earns(&mut self, now: Time, child: HostId) -> bool {
        self.spend(now, child, self.limits.burst)
    }

    /// A burst, and one more each second.
    fn spend(&mut self, now: Time, child: HostId, burst: usize) -> bool {
        if self.allowances.len() > 2 * self.limits.held {
            self.allowances.clear();
        }
        let allowance = self.allowances.entry(child).or_insert(Allowance { left: burst, at: now });
        let earned = usize::try_from(now.since(allowance.at).as_secs()).unwrap_or(usize::MAX);
        if earned > 0 {
            allowance.left = allowance.left.saturating_add(earned).min(burst);
            allowance.at = now;
        }
        let may = allowance.left > 0;
        allowance.left = allowance.left.saturating_sub(1);
        may
    }

    /// Joins events into those that are held, and has what is news told in time.
    fn fold(&mut self, now: Time, folded: &Folded, saved: bool, out: &mut Outbox) {
        if self.root {
            out.push(Output::Tell(Event::Happened(vec![folded.clone()])));
            out.save(Record::EventsGone(Vec::new()));
            return;
        }
        let key = folded.key();
        let sums = self.sums;
        let (held, mut grown) = self.hold(key, folded);
        if sums {
            grown.clear();
            for (host, count) in &folded.counts {
                *held.folded.counts.entry(*host).or_default() += count;
                grown.push((*host, *count));
            }
        }
        held.stored |= saved;
        held.dirty |= !saved && !grown.is_empty();
        if grown.is_empty() {
            if held.news.is_empty() && !self.is_in_flight(key) {
                self.forget(key, out);
            }
            return;
        }
        held.news.extend(grown.iter().map(|(host, _)| *host));
        let wait = if saved { Duration::ZERO } else { self.limits.flush };
        self.tell_by(key, now + wait);
    }

    /// Own events are on disk: they may be told.
    pub(crate) fn own_is_saved(&mut self, now: Time, folded: &Folded, out: &mut Outbox) {
        if self.root {
            self.fold(now, folded, true, out);
            if let Some(own) = self.own.get_mut(&folded.fact.signature) {
                own.told = own.told.max(folded.total());
            }
            return;
        }
        let key = folded.key();
        let me = self.me;
        let (held, grown) = self.hold(key, folded);
        if !grown.is_empty() {
            held.news.insert(me);
            self.tell_by(key, now);
        }
    }

    /// Joins events into what is held of them: of whom there are more now, and how many.
    fn hold(&mut self, key: FoldKey, folded: &Folded) -> (&mut Held, Vec<(HostId, u64)>) {
        let held = self.held.entry(key).or_insert_with(|| Held {
            folded: Folded { counts: BTreeMap::new(), ..folded.clone() },
            news: BTreeSet::new(),
            dirty: false,
            stored: false,
        });
        let before = held.folded.counts.len();
        let grown = held.folded.join(folded);
        self.counts += held.folded.counts.len() - before;
        (held, grown)
    }

    fn tell_by(&mut self, key: FoldKey, at: Time) {
        let last = self.told.get(&key.signature);
        let at = last.map_or(at, |last| at.max(*last + self.limits.repeat));
        self.due.by(key, at);
    }

    fn save_by(&mut self, now: Time) {
        self.save_at.get_or_insert(now + self.limits.save);
    }

    /// Saves what has changed, all of it together.
    pub(crate) fn handle_timeout(&mut self, now: Time, out: &mut Outbox) {
        if self.save_at.take_if(|at| *at <= now).is_none() {
            return;
        }
        let mut own = Vec::new();
        for entry in self.own.values_mut().filter(|own| own.dirty) {
            entry.dirty = false;
            out.save(Record::Own(entry.folded.clone()));
            own.push(entry.folded.clone());
        }
        // Only now: at each moment the latest window is on disk.
        if !self.gone.is_empty() {
            out.save(Record::OwnGone(std::mem::take(&mut self.gone)));
        }
        if !own.is_empty() {
            out.after(Gated::OwnEvents(own));
        }
        for held in self.held.values_mut().filter(|held| held.dirty) {
            (held.dirty, held.stored) = (false, true);
            out.save(Record::Events(held.folded.clone()));
        }
        let acks: Vec<_> = std::mem::take(&mut self.acks).into_values().collect();
        if !acks.is_empty() {
            out.after(Gated::AckEvents(acks));
        }
        if self.dropped > 0 {
            let count = std::mem::take(&mut self.dropped);
            out.push(Output::Tell(Event::Dropped { count }));
        }
    }

    /// Sends the parent what is due, if nothing is on its way.
    pub(crate) fn tell_parent(&mut self, now: Time, link: LinkId, out: &mut Outbox) {
        if self.flight.is_some() || now < self.pause_until {
            return;
        }
        let (mut events, mut flying) = (Vec::new(), Vec::new());
        let (mut bytes, mut hosts) = (0, 0);
        while let Some(key) = self.due.due(now) {
            let Some(held) = self.held.get_mut(&key) else {
                self.due.clear(key);
                continue;
            };
            debug_assert!(!held.news.is_empty(), "what is due is news");
            let Folded { fact, sample, .. } = &held.folded;
            let size = FACT_BYTES
                + fact.subject.len()
                + fact.like.len()
                + sample.line.len()
                + sample.text.len();
            let room = self.frame_bytes.saturating_sub(bytes + size) / HOST_BYTES;
            let room = room.min(HOSTS - hosts);
            if room == 0 && !events.is_empty() {
                break;
            }
            let known = &held.folded.counts;
            let news = held.news.iter().take(room.max(1));
            let counts: BTreeMap<_, _> = news.map(|host| (*host, known[host])).collect();
            held.news.retain(|host| !counts.contains_key(host));
            if held.news.is_empty() {
                self.due.clear(key);
            }
            bytes += size + HOST_BYTES * counts.len();
            hosts += counts.len();
            flying.push((key, counts.iter().map(|(host, count)| (*host, *count)).collect()));
            events.push(Folded { counts, ..held.folded.clone() });
            self.told.insert(key.signature, now);
            if hosts >= HOSTS {
                break;
            }
        }
        if events.is_empty() {
            return;
        }
        if self.told.len() > 2 * self.limits.held {
            let repeat = self.limits.repeat;
            self.told.retain(|_, at| now.since(*at) < repeat);
        }
        self.no += 1;
        self.flight = Some(Flight { link, no: self.no, events: flying });
        out.send(link, Frame::Events { no: self.no, events });
    }

    /// The parent has this many of those that were on their way, and no room for the rest.
    pub(crate) fn handle_held(
        &mut self,
        now: Time,
        link: LinkId,
        (no, held): (u64, usize),
        out: &mut Outbox,
    ) {
        let flight = self.flight.take_if(|flight| flight.link == link && flight.no == no);
        let Some(mut flight) = flight else { return };
        let rest = flight.events.split_off(held.min(flight.events.len()));
        if !rest.is_empty() {
            self.pause_until = now + self.limits.repeat;
            self.bring_back(now, rest);
        }
        for (key, counts) in flight.events {
            let mine = counts.iter().find(|(host, _)| *host == self.me);
            if let (Some((_, count)), Some(own)) = (mine, self.own.get_mut(&key.signature))
                && own.folded.window == key.window
            {
                own.told = own.told.max(*count);
            }
            if self.held.get(&key).is_some_and(|held| held.news.is_empty()) {
                self.forget(key, out);
            }
        }
    }

    /// The parent's link has gone: what was on its way is told again.
    pub(crate) fn handle_down(&mut self, now: Time) {
        if let Some(flight) = self.flight.take() {
            self.bring_back(now, flight.events);
        }
    }

    /// The planted bug: what was on its way counts as told.
    #[cfg(feature = "sabotage")]
    pub(crate) fn lose_flight(&mut self, out: &mut Outbox) {
        if let Some(flight) = &self.flight {
            let (link, no) = (flight.link, flight.no);
            self.handle_held(Time::ZERO, link, (no, usize::MAX), out);
        }
    }

    fn bring_back(&mut self, now: Time, events: Vec<Flying>) {
        for (key, counts) in events {
            if let Some(held) = self.held.get_mut(&key) {
                held.news.extend(counts.into_iter().map(|(host, _)| host));
                self.due.by(key, now);
            }
        }
    }

    fn is_in_flight(&self, key: FoldKey) -> bool {
        self.flight.as_ref().is_some_and(|flight| flight.events.iter().any(|(k, _)| *k == key))
    }

    fn forget(&mut self, key: FoldKey, out: &mut Outbox) {
        self.due.clear(key);
        let Some(held) = self.held.remove(&key) else { return };
        self.counts -= held.folded.counts.len();
        if held.stored {
            out.save(Record::EventsGone(vec![key]));
        }
    }

    /// `tells`: whether there is a parent who would listen.
    pub(crate) fn poll_timeout(&self, tells: bool) -> Deadline {
        let due = self.due.next().filter(|_| tells && self.flight.is_none());
        let tell = due.map(|at| (at.max(self.pause_until), Wake::Events));
        sooner(tell, self.save_at.map(|at| (at, Wake::Events)))
    }
}

/// Whether the parent holds all of it.
fn is_over(own: &Own) -> bool {
    !own.dirty && own.told >= own.count()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::Digest;
    use crate::fact::{Class, Fact, Sample};

    const ME: HostId = HostId(9);
    const LINK: LinkId = LinkId(1);
    const UP: LinkId = LinkId(2);

    fn hash(bytes: &[u8]) -> Digest {
        let mut digest = [0; 32];
        bytes.iter().enumerate().for_each(|(n, b)| digest[n % 16] ^= b.rotate_left(n as u32 / 16));
        Digest(digest)
    }

    fn happening(what: u32, at_ms: u64, severity: Severity) -> Happening {
        let like = format!("thing {what}");
        let fact = Fact::new("host.test", severity, Class::Client, &like, hash);
        let sample = Sample { at_ms, host: ME, line: like, text: String::new(), order: None };
        Happening { fact: Arc::new(fact), sample, count: 1, reserved: false }
    }

    fn from(host: u32, what: u32, count: u64) -> Folded {
        let Happening { fact, mut sample, .. } = happening(what, 5, Severity::Error);
        sample.host = HostId(host);
        let counts = BTreeMap::from([(HostId(host), count)]);
        Folded { window: 0, fact, sample: sample.into(), first_ms: 5, last_ms: 5, counts }
    }

    fn made(limits: EventLimits) -> Events {
        Events::new(ME, false, limits, 1 << 16, false)
    }

    fn at(secs: u64) -> Time {
        Time::ZERO + Duration::from_secs(secs)
    }

    type Line = (String, u32, u64);

    /// What the parent is told now: what, in which window, and how many in all.
    fn told(kept: &mut Events, now: Time) -> Option<(u64, Vec<Line>)> {
        let mut out = Outbox::default();
        kept.handle_timeout(now, &mut out);
        // The disk is as fast as can be.
        while let Some(step) = out.saved(u64::MAX) {
            if let Gated::OwnEvents(own) = step {
                own.iter().for_each(|folded| kept.own_is_saved(now, folded, &mut out));
            }
        }
        kept.tell_parent(now, UP, &mut out);
        let sent = std::iter::from_fn(|| out.pop()).find_map(|output| match output {
            Output::Send { frame: Frame::Events { no, events }, .. } => Some((no, events)),
            _ => None,
        });
        let line = |f: &Folded| (f.fact.like.clone(), f.window, f.total());
        sent.map(|(no, events)| (no, events.iter().map(line).collect()))
    }

    fn held(kept: &mut Events, now: Time, no: u64, count: usize) {
        kept.handle_held(now, UP, (no, count), &mut Outbox::default());
    }

    #[test]
    fn counts_go_on_within_a_window_and_while_nobody_listens() {
        let mut kept = made(EventLimits::default());
        kept.happen(at(0), happening(1, 10, Severity::Error));
        kept.happen(at(0), happening(1, WINDOW_MS + 5, Severity::Error));
        assert_eq!(told(&mut kept, at(1)), Some((1, vec![("thing 1".into(), 0, 2)])));
        held(&mut kept, at(2), 1, 9);
        // All of it is told, so the next window opens, and none before it ever again.
        kept.happen(at(3), happening(1, WINDOW_MS + 9, Severity::Error));
        kept.happen(at(3), happening(2, 3, Severity::Error));
        let second = vec![("thing 2".into(), 1, 1)];
        assert_eq!(told(&mut kept, at(4)), Some((2, second)));
        held(&mut kept, at(5), 2, 9);
        let first = vec![("thing 1".into(), 1, 1)];
        assert_eq!(told(&mut kept, at(20)), Some((3, first)), "not more often than `repeat`");
    }

    #[test]
    fn a_relay_says_once_what_many_say_and_forgets_what_is_held() {
        let (mut kept, mut out) = (made(EventLimits::default()), Outbox::default());
        for host in 100..400 {
            let events = vec![from(host, 1, 2)];
            let taken = kept.take(at(0), (HostId(host), false), (LINK, 1), events, &mut out);
            assert_eq!(taken, Ok(()));
        }
        assert_eq!(told(&mut kept, at(2)), Some((1, vec![("thing 1".into(), 0, 600)])));
        // One more while that is on its way, and one that says nothing new.
        kept.take(at(2), (HostId(100), false), (LINK, 2), vec![from(100, 1, 3)], &mut out)
            .expect("it is good");
        kept.take(at(2), (HostId(101), false), (LINK, 2), vec![from(101, 1, 2)], &mut out)
            .expect("it is good");
        held(&mut kept, at(3), 1, 9);
        assert_eq!(told(&mut kept, at(4)), None);
        assert_eq!(told(&mut kept, at(13)), Some((2, vec![("thing 1".into(), 0, 3)])));
        held(&mut kept, at(14), 2, 9);
        assert_eq!(kept.len(), (0, 0));
    }

    #[test]
    fn what_was_on_its_way_is_told_again() {
        let (mut kept, mut out) = (made(EventLimits::default()), Outbox::default());
        kept.take(at(0), (HostId(100), false), (LINK, 1), vec![from(100, 1, 2)], &mut out)
            .expect("it is good");
        assert!(told(&mut kept, at(2)).is_some());
        kept.handle_down(at(3));
        let again = vec![("thing 1".into(), 0, 2)];
        assert_eq!(told(&mut kept, at(20)), Some((2, again.clone())));
        held(&mut kept, at(20), 1, 9);
        held(&mut kept, at(21), 2, 0);
        assert_eq!(told(&mut kept, at(22)), None, "there is no room above");
        assert_eq!(told(&mut kept, at(40)), Some((3, again)));
    }

    #[test]
    fn a_host_speaks_for_itself() {
        let (mut kept, mut out) = (made(EventLimits::default()), Outbox::default());
        let mut take = |child, event| {
            kept.take(at(0), (HostId(child), false), (LINK, 1), vec![event], &mut out).is_ok()
        };
        assert!(!take(7, from(8, 1, 1)));
        let mut sample = from(7, 1, 1);
        sample.sample = from(8, 1, 1).sample;
        assert!(!take(7, sample));
        assert!(take(7, from(7, 1, 1)));
    }

    #[test]
    fn equal_events_of_many_hosts_have_a_limit_too() {
        let limits = EventLimits { counts: 3, ..EventLimits::default() };
        let (mut kept, mut out) = (made(limits), Outbox::default());
        let mut take = |kept: &mut Events, child, what, count| {
            let events = vec![from(child, what, count)];
            let taken = kept.take(at(0), (HostId(child), false), (LINK, 1), events, &mut out);
            taken.expect("it is good");
            kept.counts()
        };
        assert_eq!([7, 8, 9].map(|child| take(&mut kept, child, 1, 1)), [1, 2, 3]);
        assert_eq!(take(&mut kept, 7, 1, 5), 3, "it counts on");
        assert_eq!(take(&mut kept, 10, 1, 1), 3, "a host more");
        assert_eq!(take(&mut kept, 7, 2, 1), 3, "another event");
        assert_eq!(told(&mut kept, at(2)), Some((1, vec![("thing 1".into(), 0, 7)])));
        held(&mut kept, at(3), 1, 9);
        assert_eq!(kept.counts(), 0);
        assert_eq!(take(&mut kept, 10, 1, 1), 1);
    }

    #[test]
    fn a_flood_of_one_child_is_turned_away_and_others_are_not() {
        let limits = EventLimits { burst: 4, ..EventLimits::default() };
        let (mut kept, mut out) = (made(limits), Outbox::default());
        let flood: Vec<_> = (0..100).map(|what| from(7, what, 1)).collect();
        kept.take(at(0), (HostId(7), false), (LINK, 1), flood, &mut out).expect("it is good");
        kept.take(at(0), (HostId(8), false), (LinkId(5), 1), vec![from(8, 200, 1)], &mut out)
            .expect("it is good");
        assert_eq!(kept.len(), (0, 5));
        let acks: Vec<_> = kept.acks.values().map(|ack| (ack.child, ack.held)).collect();
        assert_eq!(acks, [(HostId(7), 4), (HostId(8), 1)]);
    }

    #[test]
    fn a_child_that_joins_what_only_this_host_has_told_takes_a_place_too() {
        let limits = EventLimits { held: 1, ..EventLimits::default() };
        let (mut kept, mut out) = (made(limits), Outbox::default());
        kept.happen(at(0), happening(1, 10, Severity::Error));
        assert!(told(&mut kept, at(1)).is_some());
        // Else this would stay when the host's own goes, and make room for the next of its own.
        kept.take(at(2), (HostId(7), false), (LINK, 1), vec![from(7, 1, 1)], &mut out)
            .expect("it is good");
        assert_eq!(kept.acks[&HostId(7)].held, 0, "there is no room");
        held(&mut kept, at(3), 1, 1);
        kept.take(at(4), (HostId(7), false), (LINK, 2), vec![from(7, 1, 1)], &mut out)
            .expect("it is good");
        assert_eq!((kept.acks[&HostId(7)].held, kept.len()), (1, (1, 1)));
    }

    #[test]
    fn the_least_bad_goes_first_is_counted_and_told() {
        let limits = EventLimits { own: 8, ..EventLimits::default() };
        let mut kept = made(limits);
        let mut all = |severity, from: u32| {
            (from..from + 8).for_each(|what| kept.happen(at(0), happening(what, 5, severity)));
            (kept.own.len(), kept.dropped)
        };
        assert_eq!(all(Severity::Info, 100), (4, 4));
        assert_eq!(all(Severity::Warning, 200), (6, 10));
        assert_eq!(all(Severity::Error, 300), (8, 16));
        let reserved = Happening { reserved: true, ..happening(400, 5, Severity::Warning) };
        kept.happen(at(0), reserved);
        assert_eq!((kept.own.len(), kept.dropped), (9, 16));
        let mut out = Outbox::default();
        kept.handle_timeout(at(1), &mut out);
        let dropped = std::iter::from_fn(|| out.pop()).find_map(|output| match output {
            Output::Tell(Event::Dropped { count }) => Some(count),
            _ => None,
        });
        assert_eq!(dropped, Some(16));
    }
}
