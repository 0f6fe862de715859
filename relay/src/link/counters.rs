//! What has crossed a link, in bytes: frames by their class, and content; and when something last
//! came.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::streams::CLASSES;

/// Bytes of one class that crossed a link.
#[derive(Default, Debug)]
pub(crate) struct Flow {
    pub(crate) sent: AtomicU64,
    pub(crate) received: AtomicU64,
}

/// Bytes that crossed a link, without the overhead of QUIC.
#[derive(Default, Debug)]
pub(crate) struct Counters {
    /// Of each class.
    pub(crate) frames: [Flow; CLASSES.len()],
    pub(crate) content_sent: AtomicU64,
    pub(crate) content_received: AtomicU64,
    /// When something last came from the peer.
    pub(crate) heard: Heard,
}

/// When something last came from a peer, and how often it says that it beats.
#[derive(Debug)]
pub(crate) struct Heard {
    begun: Instant,
    /// Both in milliseconds; the first since the link began.
    last: AtomicU64,
    interval: AtomicU64,
}

impl Default for Heard {
    fn default() -> Heard {
        Heard { begun: Instant::now(), last: AtomicU64::new(0), interval: AtomicU64::new(0) }
    }
}

impl Heard {
    /// Something has come.
    pub(super) fn note(&self) {
        self.last.store(millis(self.begun.elapsed()), Ordering::Relaxed);
    }

    /// The peer says how often it beats.
    pub(super) fn note_interval(&self, interval: Duration) {
        self.interval.store(millis(interval), Ordering::Relaxed);
    }

    /// For how long nothing has come, and whether two beats are missed by that. Before the third
    /// is missed as well the link is given up.
    pub(crate) fn silence(&self) -> (Duration, bool) {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        let interval = Duration::from_millis(self.interval.load(Ordering::Relaxed));
        let silence = self.begun.elapsed().saturating_sub(last);
        (silence, is_suspect(silence, interval))
    }
}

/// Whether two beats are missed. One may be a little late.
fn is_suspect(silence: Duration, interval: Duration) -> bool {
    !interval.is_zero() && silence > interval * 2 + interval / 8
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Counters {
    pub(crate) fn sent(&self, bytes: usize) {
        self.content_sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes of content either way.
    pub(crate) fn moved(&self) -> u64 {
        let (sent, received) = (&self.content_sent, &self.content_received);
        sent.load(Ordering::Relaxed) + received.load(Ordering::Relaxed)
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.content_received.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

pub(super) fn count(counter: &AtomicU64, bytes: usize) {
    counter.fetch_add(bytes as u64, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_missed_beats_are_suspect() {
        let ms = Duration::from_millis;
        let suspect = |silence| is_suspect(ms(silence), ms(5_000));
        assert_eq!([10_000, 10_600, 10_700].map(suspect), [false, false, true]);
        // A peer that has not beaten yet is new.
        assert!(!is_suspect(ms(60_000), Duration::ZERO));
    }
}
