//! Acknowledgements that wait a moment for company.
//!
//! An acknowledgement only lets the peer forget, so nobody waits for it. Sent alone it costs both
//! ends a datagram and a wake-up; a moment later it often goes with a report, or with the
//! acknowledgement of the next entry, as TCP's delayed acknowledgements do (RFC 1122, 4.2.3.2).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::outbox::Outbox;
use crate::wake::Deadline;
use crate::{Frame, LinkId, Time, Wake};

/// The last acknowledgement of a link that has not been sent, and how many entries it stands for.
struct Waiting {
    frame: Frame,
    entries: usize,
}

/// What is still to be acknowledged, link by link.
pub(crate) struct Acks {
    delay: Duration,
    most: usize,
    due: Option<Time>,
    waiting: BTreeMap<LinkId, Waiting>,
}

impl Acks {
    /// None waits longer than `delay`, and none stands for more than a quarter of the `window`.
    pub(crate) fn new(delay: Duration, window: usize) -> Acks {
        Acks { delay, most: (window / 4).max(1), due: None, waiting: BTreeMap::new() }
    }

    /// Takes an acknowledgement to be sent soon. It covers what waits for the same link.
    pub(crate) fn add(&mut self, now: Time, link: LinkId, frame: Frame, out: &mut Outbox) {
        let entries = 1 + self.waiting.get(&link).map_or(0, |waiting| waiting.entries);
        self.waiting.insert(link, Waiting { frame, entries });
        if entries >= self.most {
            self.send(link, out);
        } else {
            self.due.get_or_insert(now + self.delay);
        }
    }

    /// Sends what waits for this link, because something else goes there now.
    pub(crate) fn send(&mut self, link: LinkId, out: &mut Outbox) {
        if let Some(Waiting { frame, .. }) = self.waiting.remove(&link) {
            out.send(link, frame);
        }
        if self.waiting.is_empty() {
            self.due = None;
        }
    }

    /// The link has gone; the next hello says what is held.
    pub(crate) fn handle_down(&mut self, link: LinkId) {
        self.waiting.remove(&link);
    }

    /// Sends all that waits, if the moment is over.
    pub(crate) fn handle_timeout(&mut self, now: Time, out: &mut Outbox) {
        if self.due.take_if(|due| *due <= now).is_some() {
            for (link, Waiting { frame, .. }) in std::mem::take(&mut self.waiting) {
                out.send(link, frame);
            }
        }
    }

    pub(crate) fn poll_timeout(&self) -> Deadline {
        self.due.map(|due| (due, Wake::Ack))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Output;

    const DELAY: Duration = Duration::from_millis(50);
    const LINK: LinkId = LinkId(1);

    fn held(through: u64) -> Frame {
        Frame::OrdersHeld { log: 1, through }
    }

    fn sent(out: &mut Outbox) -> Vec<Frame> {
        let frames = std::iter::from_fn(|| out.pop()).map(|output| match output {
            Output::Send { frame, .. } => frame,
            other => panic!("{other:?} was not asked for"),
        });
        frames.collect()
    }

    #[test]
    fn the_last_one_goes_for_all_when_the_moment_is_over() {
        let (mut acks, mut out) = (Acks::new(DELAY, 64), Outbox::default());
        let now = Time::ZERO;
        acks.add(now, LINK, held(1), &mut out);
        acks.add(now + DELAY / 2, LINK, held(2), &mut out);
        assert_eq!(acks.poll_timeout(), Some((now + DELAY, Wake::Ack)));
        acks.handle_timeout(now + DELAY / 2, &mut out);
        assert_eq!(sent(&mut out), []);
        acks.handle_timeout(now + DELAY, &mut out);
        assert_eq!(sent(&mut out), [held(2)]);
        assert_eq!(acks.poll_timeout(), None);
    }

    #[test]
    fn it_goes_at_once_with_something_else_or_when_it_stands_for_many() {
        let (mut acks, mut out) = (Acks::new(DELAY, 8), Outbox::default());
        acks.add(Time::ZERO, LINK, held(1), &mut out);
        acks.send(LINK, &mut out);
        assert_eq!(sent(&mut out), [held(1)]);
        assert_eq!(acks.poll_timeout(), None);
        acks.add(Time::ZERO, LINK, held(2), &mut out);
        assert_eq!(sent(&mut out), []);
        acks.add(Time::ZERO, LINK, held(3), &mut out);
        assert_eq!(sent(&mut out), [held(3)]);
    }

    #[test]
    fn nothing_is_sent_to_a_link_that_has_gone() {
        let (mut acks, mut out) = (Acks::new(DELAY, 64), Outbox::default());
        acks.add(Time::ZERO, LINK, held(1), &mut out);
        acks.handle_down(LINK);
        acks.handle_timeout(Time::ZERO + DELAY, &mut out);
        assert_eq!(sent(&mut out), []);
    }
}
