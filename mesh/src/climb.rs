//! Returning to a better parent.
//!
//! A node that had to take a parent further down its list looks, after a while, whether one above
//! answers again. It keeps the link that it has until the better parent has said something on the
//! new one, so that a parent which takes links and then is silent costs nothing. A parent that does
//! not last once it has been returned to is tried again only after twice as long, and so on up to a
//! cap, so that nobody flaps.

use std::time::Duration;

use rand::RngExt;
use rand::rngs::SmallRng;

use crate::outbox::Outbox;
use crate::wake::Deadline;
use crate::{Backoff, HostId, LinkId, Output, Reason, Time, Wake};

/// How long a better parent may be silent on a link that it has taken.
const SILENCE: Duration = Duration::from_secs(15);

/// Within how long a new list is followed.
const SOON: Duration = Duration::from_secs(2);

/// A link to a better parent that has not said anything yet.
struct Candidate {
    link: LinkId,
    host: HostId,
    place: usize,
    until: Time,
}

/// The way back up the list of parents.
pub(crate) struct Climb {
    base: Duration,
    cap: Duration,
    /// How long the next round waits, at most.
    wait: Duration,
    /// When the next try is due, and which parent it is for.
    due: Option<(Time, usize)>,
    trying: Option<usize>,
    candidate: Option<Candidate>,
}

impl Climb {
    pub(crate) fn new(backoff: &Backoff) -> Climb {
        Climb {
            base: backoff.climb,
            cap: backoff.climb_cap.max(backoff.climb),
            wait: backoff.climb,
            due: None,
            trying: None,
            candidate: None,
        }
    }

    /// The node has a parent at this place: the first is the best.
    pub(crate) fn handle_ready(&mut self, now: Time, place: usize, rng: &mut SmallRng) {
        self.due = (place > 0).then(|| (self.later(now, rng), 0));
    }

    /// The list is another one: the node has a parent at this place of it, and tries the better
    /// ones soon, though not in the same moment as everybody else who was told.
    pub(crate) fn handle_parents(&mut self, now: Time, place: usize, rng: &mut SmallRng) {
        self.wait = self.base;
        self.trying = None;
        if let Some(candidate) = &mut self.candidate {
            candidate.until = now;
        }
        let soon = now + SOON.mul_f64(rng.random_range(0.0..1.0));
        self.due = (place > 0).then_some((soon, 0));
    }

    /// A link was not taken, and may have been the one that was tried for: a dial of an older list
    /// cannot be told from one of the new.
    pub(crate) fn try_again(&mut self, now: Time, place: usize) {
        let idle = self.due.is_none() && self.trying.is_none() && self.candidate.is_none();
        if idle && place > 0 {
            self.due = Some((now + SOON, 0));
        }
    }

    pub(crate) fn is_trying(&self) -> bool {
        self.trying.is_some()
    }

    /// The node has no parent any more. Had it climbed to it, `lasted` says whether it lived long
    /// enough to be trusted.
    pub(crate) fn handle_lost(&mut self, climbed: bool, lasted: bool) {
        self.due = None;
        if lasted {
            self.wait = self.base;
        } else if climbed {
            self.wait = self.wait.saturating_mul(2).min(self.cap);
        }
    }

    /// A dial has led to a link.
    pub(crate) fn handle_dialled(&mut self, place: usize) {
        self.trying.take_if(|trying| *trying == place);
    }

    /// Holds a link to a better parent until it says something. A second one is not needed.
    pub(crate) fn hold(&mut self, now: Time, link: LinkId, host: HostId, place: usize) -> bool {
        if self.candidate.is_some() {
            return false;
        }
        self.candidate = Some(Candidate { link, host, place, until: now + SILENCE });
        true
    }

    pub(crate) fn is_held(&self, link: LinkId) -> bool {
        self.candidate.as_ref().is_some_and(|candidate| candidate.link == link)
    }

    /// The better parent has spoken: who it is, and its place.
    pub(crate) fn take(&mut self, link: LinkId) -> Option<(HostId, usize)> {
        let taken = self.candidate.take_if(|candidate| candidate.link == link)?;
        Some((taken.host, taken.place))
    }

    /// A try has failed; `place` is where the node is now. Returns whether it was one of ours.
    pub(crate) fn handle_failed(
        &mut self,
        now: Time,
        failed: usize,
        place: Option<usize>,
        rng: &mut SmallRng,
    ) -> bool {
        if self.trying != Some(failed) {
            return false;
        }
        self.trying = None;
        self.go_on(now, failed, place, rng);
        true
    }

    /// A link has ended before it was taken. Returns whether it was one of ours.
    pub(crate) fn handle_down(
        &mut self,
        now: Time,
        link: LinkId,
        place: Option<usize>,
        rng: &mut SmallRng,
    ) -> bool {
        let Some((_, failed)) = self.take(link) else { return false };
        self.go_on(now, failed, place, rng);
        true
    }

    /// The next better parent at once, or all of them again after a wait.
    fn go_on(&mut self, now: Time, failed: usize, place: Option<usize>, rng: &mut SmallRng) {
        self.due = match place {
            Some(place) if failed + 1 < place => Some((now, failed + 1)),
            Some(place) if place > 0 => {
                self.wait = self.wait.saturating_mul(2).min(self.cap);
                Some((self.later(now, rng), 0))
            }
            _ => None,
        };
    }

    /// Dials if it is time to. Returns a link whose parent has been silent for too long.
    pub(crate) fn handle_timeout(&mut self, now: Time, out: &mut Outbox) -> Option<LinkId> {
        if let Some((at, place)) = self.due
            && at <= now
            && self.trying.is_none()
            && self.candidate.is_none()
        {
            self.due = None;
            self.trying = Some(place);
            out.push(Output::Dial { place });
        }
        let silent = self.candidate.as_ref().filter(|candidate| candidate.until <= now)?;
        out.push(Output::Hangup { link: silent.link, reason: Reason::Stale });
        Some(silent.link)
    }

    pub(crate) fn poll_timeout(&self) -> Deadline {
        if let Some(candidate) = &self.candidate {
            return Some((candidate.until, Wake::Climb));
        }
        self.due.filter(|_| self.trying.is_none()).map(|(at, _)| (at, Wake::Climb))
    }

    /// A random moment in the second half of the wait: soon enough to matter, and not the same for
    /// all the children of a relay that comes back.
    fn later(&self, now: Time, rng: &mut SmallRng) -> Time {
        now + self.wait.mul_f64(rng.random_range(0.5..1.0))
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::Config;

    fn dialled(climb: &mut Climb, out: &mut Outbox) -> (Time, usize) {
        let (at, _) = climb.poll_timeout().expect("it climbs");
        assert_eq!(climb.handle_timeout(at, out), None);
        match out.pop() {
            Some(Output::Dial { place }) => (at, place),
            other => panic!("no dial but {other:?}"),
        }
    }

    #[test]
    fn tries_each_better_parent_and_waits_longer_from_round_to_round() {
        let backoff = Config::new(HostId(1), 3, false).backoff;
        let (mut rng, mut out) = (SmallRng::seed_from_u64(1), Outbox::default());
        let mut climb = Climb::new(&backoff);
        climb.handle_ready(Time::ZERO, 2, &mut rng);
        let (mut now, mut span) = (Time::ZERO, backoff.climb);
        for _ in 0..20 {
            let (at, place) = dialled(&mut climb, &mut out);
            assert_eq!(place, 0);
            assert!(at.since(now) >= span / 2 && at.since(now) <= span);
            assert!(climb.handle_failed(at, 0, Some(2), &mut rng));
            let (again, place) = dialled(&mut climb, &mut out);
            assert_eq!((again, place), (at, 1));
            assert!(climb.handle_failed(at, 1, Some(2), &mut rng));
            (now, span) = (at, (span * 2).min(backoff.climb_cap));
        }
    }

    #[test]
    fn who_does_not_last_is_returned_to_less_often() {
        let backoff = Config::new(HostId(1), 2, false).backoff;
        let mut climb = Climb::new(&backoff);
        climb.handle_lost(false, false);
        assert_eq!(climb.wait, backoff.climb);
        climb.handle_lost(true, false);
        climb.handle_lost(true, false);
        assert_eq!(climb.wait, backoff.climb * 4);
        climb.handle_lost(true, true);
        assert_eq!(climb.wait, backoff.climb);
    }

    #[test]
    fn a_silent_candidate_is_let_go() {
        let backoff = Config::new(HostId(1), 2, false).backoff;
        let (mut rng, mut out) = (SmallRng::seed_from_u64(1), Outbox::default());
        let mut climb = Climb::new(&backoff);
        climb.handle_ready(Time::ZERO, 1, &mut rng);
        let (at, place) = dialled(&mut climb, &mut out);
        climb.handle_dialled(place);
        assert!(climb.hold(at, LinkId(7), HostId(0), 0));
        assert!(climb.is_held(LinkId(7)));
        let (until, _) = climb.poll_timeout().expect("it watches the candidate");
        assert_eq!(climb.handle_timeout(until, &mut out), Some(LinkId(7)));
        assert!(climb.handle_down(until, LinkId(7), Some(1), &mut rng));
        assert!(climb.poll_timeout().is_some_and(|(at, _)| at > until));
    }
}
