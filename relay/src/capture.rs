//! The output of a command: read into a bounded buffer that others may look into while it grows.
//!
//! Beyond the limit bytes are read and counted, not kept, so that the command never blocks and the
//! true size is known.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long output is read on after the command itself has ended, should a child of it linger.
const LINGER: Duration = Duration::from_secs(1);

/// Output as far as it has been read: what is kept, and its true size.
#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    size: u64,
}

/// A view of output that is still being made.
#[derive(Clone, Default)]
pub(crate) struct Output(Arc<Mutex<Kept>>);

impl Output {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is kept from here on, at most `limit` bytes of it.
    pub(crate) fn piece(&self, from: usize, limit: usize) -> Bytes {
        let kept = self.lock();
        let rest = kept.bytes.get(from..).unwrap_or_default();
        Bytes::copy_from_slice(&rest[..rest.len().min(limit)])
    }

    fn add(&self, bytes: &[u8], limit: usize) {
        let mut kept = self.lock();
        kept.size += bytes.len() as u64;
        let room = limit.saturating_sub(kept.bytes.len());
        kept.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

/// A pipe that is being read.
pub(crate) struct Capture {
    output: Output,
    task: JoinHandle<()>,
}

impl Capture {
    /// Starts to read a pipe; the first `limit` bytes are kept.
    pub(crate) fn start(
        pipe: Option<impl AsyncRead + Unpin + Send + 'static>,
        limit: usize,
    ) -> Capture {
        let output = Output::default();
        let task = tokio::spawn(read_bounded(pipe, limit, output.clone()));
        Capture { output, task }
    }

    /// What is read so far, and what follows.
    pub(crate) fn output(&self) -> Output {
        self.output.clone()
    }

    /// What was read until the pipe's end, and how much there was; a process that lingers does not
    /// hold this up for long.
    pub(crate) async fn finish(mut self) -> (Bytes, u64) {
        if timeout(LINGER, &mut self.task).await.is_err() {
            self.task.abort();
        }
        let kept = std::mem::take(&mut *self.output.lock());
        (kept.bytes.into(), kept.size)
    }
}

async fn read_bounded(pipe: Option<impl AsyncRead + Unpin>, limit: usize, output: Output) {
    let Some(mut pipe) = pipe else { return };
    let mut buffer = vec![0; 16 << 10];
    while let Ok(read @ 1..) = pipe.read(&mut buffer).await {
        output.add(&buffer[..read], limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_over_the_limit_is_counted_and_not_kept() {
        let capture = Capture::start(Some(&b"0123456789"[..]), 4);
        assert_eq!(capture.finish().await, (Bytes::from_static(b"0123"), 10));
    }

    #[test]
    fn pieces_follow_each_other_to_the_end_of_what_is_kept() {
        let output = Output::default();
        output.add(b"01234567", 6);
        assert_eq!(output.piece(0, 4), "0123");
        assert_eq!(output.piece(4, 4), "45");
        assert_eq!(output.piece(6, 4), "");
        assert_eq!(output.piece(9, 4), "");
    }
}
