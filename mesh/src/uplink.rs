//! Choosing and redialling a parent.
//!
//! Parents are an ordered list. After a loss the node tries them in turn, starting with the first,
//! each try after a random wait (full jitter over an exponential span, so that a thousand children
//! of a dead relay do not return in one instant). The span only shrinks again once a link has
//! proven itself by living for a while.

use rand::RngExt;
use rand::rngs::SmallRng;

use crate::io::Deadline;
use crate::outbox::Outbox;
use crate::{Backoff, HostId, LinkId, Output, Time, Wake};

enum State {
    Waiting { until: Time },
    Dialling,
    Up { link: LinkId, host: HostId, since: Time, ready: bool },
}

/// The link to the parent, or the way to one.
pub(crate) struct Uplink {
    parents: usize,
    backoff: Backoff,
    next: usize,
    tries: u32,
    state: State,
}

impl Uplink {
    pub(crate) fn new(parents: usize, backoff: Backoff, now: Time) -> Uplink {
        Uplink { parents, backoff, next: 0, tries: 0, state: State::Waiting { until: now } }
    }

    /// The parent's link, if there is one.
    pub(crate) fn link(&self) -> Option<LinkId> {
        match self.state {
            State::Up { link, .. } => Some(link),
            _ => None,
        }
    }

    /// The parent's link once the parent has said hello on it.
    pub(crate) fn ready(&self) -> Option<(LinkId, HostId)> {
        match self.state {
            State::Up { link, host, ready: true, .. } => Some((link, host)),
            _ => None,
        }
    }

    pub(crate) fn handle_hello(&mut self, link: LinkId) {
        if let State::Up { link: up, ready, .. } = &mut self.state {
            *ready |= *up == link;
        }
    }

    /// Takes a new link; the one that it replaces, if any, is returned.
    pub(crate) fn handle_up(
        &mut self,
        now: Time,
        link: LinkId,
        host: HostId,
        place: usize,
    ) -> Option<LinkId> {
        let old = self.link();
        self.state = State::Up { link, host, since: now, ready: false };
        self.next = place;
        old
    }

    /// Reacts to the end of a link. Returns whether it was the parent's.
    pub(crate) fn handle_down(&mut self, now: Time, link: LinkId, rng: &mut SmallRng) -> bool {
        match self.state {
            State::Up { link: up, since, ready, .. } if up == link => {
                if now.since(since) >= self.backoff.settled {
                    self.tries = 0;
                }
                // A parent that takes the link and never says hello (it is full, or stuck) is as
                // good as one that cannot be dialled.
                self.next = if ready { 0 } else { (self.next + 1) % self.parents.max(1) };
                self.wait(now, rng);
                true
            }
            _ => false,
        }
    }

    pub(crate) fn handle_dial_failed(&mut self, now: Time, rng: &mut SmallRng) {
        if let State::Dialling = self.state {
            self.next = (self.next + 1) % self.parents.max(1);
            self.wait(now, rng);
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Time, out: &mut Outbox) {
        if let State::Waiting { until } = self.state
            && until <= now
            && self.parents > 0
        {
            self.state = State::Dialling;
            out.push(Output::Dial { place: self.next });
        }
    }

    pub(crate) fn poll_timeout(&self) -> Deadline {
        match self.state {
            State::Waiting { until } if self.parents > 0 => Some((until, Wake::Redial)),
            _ => None,
        }
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
            uplink.handle_dial_failed(now, &mut rng);
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
