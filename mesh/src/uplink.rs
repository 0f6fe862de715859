//! Choosing and redialling a parent.
//!
//! Parents are an ordered list. After a loss the node tries them in turn, starting with the first,
//! each try after a random wait (full jitter over an exponential span, so that a thousand children
//! of a dead relay do not return in one instant). The span only shrinks again once a link has
//! proven itself by living for a while. `climb` returns to a parent further up the list.

use rand::RngExt;
use rand::rngs::SmallRng;

use crate::climb::Climb;
use crate::outbox::Outbox;
use crate::wake::{Deadline, sooner};
use crate::{Backoff, HostId, LinkId, Output, Time, Wake};

enum State {
    Waiting { until: Time },
    Dialling,
    Up(Up),
}

#[derive(Clone, Copy)]
struct Up {
    link: LinkId,
    host: HostId,
    place: usize,
    since: Time,
    /// The parent has said hello.
    ready: bool,
    /// It was returned to from a parent further down.
    climbed: bool,
}

/// What becomes of a new link to a parent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is the parent's link now, in place of another.
    Now(Option<LinkId>),
    /// It waits for a word of the parent; the link that stands is kept until then.
    Held,
    /// There is a better one.
    Not,
}

/// The link to the parent, or the way to one.
pub(crate) struct Uplink {
    parents: usize,
    backoff: Backoff,
    next: usize,
    tries: u32,
    state: State,
    climb: Climb,
    /// A dial is under way to a place of an older list.
    outdated: bool,
}

impl Uplink {
    pub(crate) fn new(parents: usize, backoff: Backoff, now: Time) -> Uplink {
        let climb = Climb::new(&backoff);
        let state = State::Waiting { until: now };
        Uplink { parents, backoff, next: 0, tries: 0, state, climb, outdated: false }
    }

    /// The parent's link, if there is one.
    pub(crate) fn link(&self) -> Option<LinkId> {
        self.up().map(|up| up.link)
    }

    /// The parent's link once the parent has said hello on it.
    pub(crate) fn ready(&self) -> Option<(LinkId, HostId)> {
        self.up().filter(|up| up.ready).map(|up| (up.link, up.host))
    }

    fn up(&self) -> Option<Up> {
        match self.state {
            State::Up(up) => Some(up),
            _ => None,
        }
    }

    fn place(&self) -> Option<usize> {
        self.up().map(|up| up.place)
    }

    pub(crate) fn handle_hello(&mut self, now: Time, link: LinkId, rng: &mut SmallRng) {
        if let State::Up(up) = &mut self.state
            && up.link == link
            && !up.ready
        {
            up.ready = true;
            self.climb.handle_ready(now, up.place, rng);
        }
    }

    /// Takes a new link, or holds it beside the one that there is: a parent that serves is not
    /// given up for one that has not spoken.
    pub(crate) fn handle_up(
        &mut self,
        now: Time,
        link: LinkId,
        host: HostId,
        place: usize,
    ) -> Taken {
        self.climb.handle_dialled(place);
        // Who was dialled by an older list counts as the worst, and is soon left for a better one.
        let place = if std::mem::take(&mut self.outdated) { self.parents } else { place };
        match self.up() {
            Some(up) if up.ready => {
                if place < up.place && self.climb.hold(now, link, host, place) {
                    return Taken::Held;
                }
                self.climb.try_again(now, up.place);
                Taken::Not
            }
            _ => Taken::Now(self.take(now, link, host, place, false)),
        }
    }

    /// Takes a new list, and soon looks for the best of it. `here`: where the present parent is on
    /// it; who is not on it is left once another has spoken.
    pub(crate) fn handle_parents(
        &mut self,
        now: Time,
        parents: usize,
        here: Option<usize>,
        rng: &mut SmallRng,
    ) {
        self.parents = parents;
        self.next = 0;
        self.outdated = matches!(self.state, State::Dialling) || self.climb.is_trying();
        if let State::Up(up) = &mut self.state {
            up.place = here.unwrap_or(parents);
        }
        let ready = self.up().filter(|up| up.ready);
        self.climb.handle_parents(now, ready.map_or(0, |up| up.place), rng);
    }

    /// Does not look for a better parent: [`Bug::StayLow`](crate::sabotage::Bug).
    #[cfg(feature = "sabotage")]
    pub(crate) fn stay(&mut self) {
        self.climb = Climb::new(&self.backoff);
    }

    /// Whether this link waits for a word of a better parent.
    pub(crate) fn holds(&self, link: LinkId) -> bool {
        self.climb.is_held(link)
    }

    /// The better parent has spoken on this link: it takes the place of the link that is returned.
    pub(crate) fn climb(&mut self, now: Time, link: LinkId) -> Option<LinkId> {
        let (host, place) = self.climb.take(link)?;
        self.take(now, link, host, place, true)
    }

    fn take(
        &mut self,
        now: Time,
        link: LinkId,
        host: HostId,
        place: usize,
        climbed: bool,
    ) -> Option<LinkId> {
        let old = self.link();
        self.state = State::Up(Up { link, host, place, since: now, ready: false, climbed });
        self.next = place;
        old
    }

    /// Reacts to the end of a link. Returns whether it was the parent's.
    pub(crate) fn handle_down(&mut self, now: Time, link: LinkId, rng: &mut SmallRng) -> bool {
        if self.climb.handle_down(now, link, self.place(), rng) {
            return false;
        }
        let Some(up) = self.up().filter(|up| up.link == link) else { return false };
        let lasted = now.since(up.since) >= self.backoff.settled;
        if lasted {
            self.tries = 0;
        }
        // A parent that takes the link and never says hello (it is full, or stuck) is as good as
        // one that cannot be dialled, and so is one that does not last.
        self.next = if up.ready && lasted { 0 } else { (up.place + 1) % self.parents.max(1) };
        self.climb.handle_lost(up.climbed, lasted);
        self.wait(now, rng);
        true
    }

    pub(crate) fn handle_dial_failed(&mut self, now: Time, place: usize, rng: &mut SmallRng) {
        if self.climb.handle_failed(now, place, self.place(), rng) {
            return;
        }
        self.outdated = false;
        if let State::Dialling = self.state {
            self.next = (self.next + 1) % self.parents.max(1);
            self.wait(now, rng);
        }
    }

    /// Dials if it is time to. Returns a link that was held, and was silent for too long.
    pub(crate) fn handle_timeout(&mut self, now: Time, out: &mut Outbox) -> Option<LinkId> {
        if let State::Waiting { until } = self.state
            && until <= now
            && self.parents > 0
        {
            self.state = State::Dialling;
            out.push(Output::Dial { place: self.next });
        }
        self.climb.handle_timeout(now, out)
    }

    pub(crate) fn poll_timeout(&self) -> Deadline {
        let redial = match self.state {
            State::Waiting { until } if self.parents > 0 => Some((until, Wake::Redial)),
            _ => None,
        };
        sooner(redial, self.climb.poll_timeout())
    }

    /// Full jitter: a random share of a span that doubles with each round through the list.
    fn wait(&mut self, now: Time, rng: &mut SmallRng) {
        let round = self.tries / self.parents.max(1) as u32;
        let span = self.backoff.base.saturating_mul(1 << round.min(20)).min(self.backoff.cap);
        self.tries = self.tries.saturating_add(1);
        self.state = State::Waiting { until: now + span.mul_f64(rng.random_range(0.0..1.0)) };
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rand::SeedableRng;

    use super::*;
    use crate::Config;

    fn dialled(out: &mut Outbox) -> Option<usize> {
        match out.pop() {
            Some(Output::Dial { place }) => Some(place),
            _ => None,
        }
    }

    #[test]
    fn walks_the_list_and_backs_off_within_the_span() {
        let backoff = Config::new(HostId(1), 2, false).backoff;
        let mut rng = SmallRng::seed_from_u64(1);
        let mut out = Outbox::default();
        let mut uplink = Uplink::new(2, backoff.clone(), Time::ZERO);
        let mut now = Time::ZERO;
        for n in 0..40 {
            let (until, _) = uplink.poll_timeout().expect("it waits");
            let span = backoff.base.saturating_mul(1 << (n / 2_u32).min(20)).min(backoff.cap);
            assert!(n == 0 || until.since(now) <= span, "try {n} waits {:?}", until.since(now));
            now = until;
            uplink.handle_timeout(now, &mut out);
            assert_eq!(dialled(&mut out), Some(n as usize % 2));
            uplink.handle_dial_failed(now, n as usize % 2, &mut rng);
        }
    }

    #[test]
    fn only_a_link_that_lived_resets_the_span() {
        let backoff = Config::new(HostId(1), 1, false).backoff;
        let mut rng = SmallRng::seed_from_u64(2);
        let mut uplink = Uplink::new(1, backoff.clone(), Time::ZERO);
        for _ in 0..10 {
            uplink.handle_up(Time::ZERO, LinkId(1), HostId(0), 0);
            uplink.handle_down(Time::ZERO + Duration::from_secs(1), LinkId(1), &mut rng);
        }
        assert_eq!(uplink.tries, 10);
        uplink.handle_up(Time::ZERO, LinkId(1), HostId(0), 0);
        uplink.handle_down(Time::ZERO + backoff.settled, LinkId(1), &mut rng);
        assert_eq!(uplink.tries, 1);
    }
}
