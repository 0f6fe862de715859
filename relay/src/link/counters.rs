//! What has crossed a link, in bytes: frames by their class, and content.

use std::sync::atomic::{AtomicU64, Ordering};

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
