//! The output of a command: read into a bounded buffer that others may look into while it grows.
//!
//! Beyond the limit bytes go to the host's spool, from the first one on, as far as that has room;
//! the rest is read and counted, not kept, so that the command never blocks for long and the true
//! size is known. The last of it is at hand all the same, for whoever watches just now.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use mesh::{Digest, OrderId, Stream};
use protos::Kept;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::spool::{Spool, Writing};

/// How long output is read on after the command itself has ended, should a child of it linger.
const LINGER: Duration = Duration::from_secs(1);
/// What is written to the spool in one go.
const PIECE: usize = 64 << 10;

/// How much of what is over the limit is at hand while the command runs: the last of it.
const TAIL: usize = 64 << 10;

/// Output as far as it has been read: what is kept of it at hand, and its true size.
#[derive(Default)]
struct Read {
    bytes: Vec<u8>,
    /// The last of what is over the limit.
    tail: VecDeque<u8>,
    size: u64,
}

/// Some of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// How many bytes came before.
    pub(crate) offset: u64,
    pub(crate) bytes: Bytes,
    /// Whether no answer will have it.
    pub(crate) is_tail: bool,
}

/// A view of output that is still being made.
#[derive(Clone, Default)]
pub(crate) struct Output(Arc<Mutex<Read>>);

impl Output {
    fn lock(&self) -> MutexGuard<'_, Read> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What there is from here on, at most `limit` bytes of it. What is over the limit and no
    /// longer at hand is left out, to the beginning of a line.
    pub(crate) fn piece(&self, from: u64, limit: usize) -> Piece {
        let read = self.lock();
        if let Some(rest) = usize::try_from(from).ok().and_then(|from| read.bytes.get(from..))
            && !rest.is_empty()
        {
            let bytes = Bytes::copy_from_slice(&rest[..rest.len().min(limit)]);
            return Piece { offset: from, bytes, is_tail: false };
        }
        let begins = read.size - read.tail.len() as u64;
        let skip = match from.checked_sub(begins) {
            Some(skip) => usize::try_from(skip).unwrap_or(usize::MAX).min(read.tail.len()),
            None => read.tail.iter().position(|b| *b == b'\n').map_or(0, |at| at + 1),
        };
        let bytes = read.tail.iter().skip(skip).take(limit).copied().collect();
        Piece { offset: begins + skip as u64, bytes, is_tail: true }
    }

    /// Takes more output. Returns the part of it that is over the limit.
    fn add<'b>(&self, bytes: &'b [u8], limit: usize) -> &'b [u8] {
        let mut read = self.lock();
        read.size += bytes.len() as u64;
        let room = limit.saturating_sub(read.bytes.len()).min(bytes.len());
        let (kept, over) = bytes.split_at(room);
        read.bytes.extend_from_slice(kept);
        let last = &over[over.len().saturating_sub(TAIL)..];
        let old = (read.tail.len() + last.len()).saturating_sub(TAIL);
        read.tail.drain(..old);
        read.tail.extend(last);
        over
    }
}

/// Where output goes that is over the limit.
#[derive(Clone)]
pub(crate) struct Overflow {
    pub(crate) spool: Spool,
    pub(crate) order: OrderId,
    pub(crate) stream: Stream,
}

/// What was read of a pipe in the end.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Captured {
    /// The first of it, up to the limit.
    pub(crate) bytes: Bytes,
    /// How much there was.
    pub(crate) size: u64,
    /// What the spool has of it, if it was more than the limit.
    pub(crate) kept: Option<Kept>,
}

/// A pipe that is being read.
pub(crate) struct Capture {
    output: Output,
    stop: Arc<Notify>,
    task: JoinHandle<Option<Kept>>,
}

impl Capture {
    /// Starts to read a pipe; the first `limit` bytes are kept at hand.
    pub(crate) fn start(
        pipe: Option<impl AsyncRead + Unpin + Send + 'static>,
        limit: usize,
        overflow: Overflow,
    ) -> Capture {
        let output = Output::default();
        let stop = Arc::new(Notify::new());
        let task = read_bounded(pipe, limit, output.clone(), overflow, stop.clone());
        let task = tokio::spawn(task);
        Capture { output, stop, task }
    }

    /// What is read so far, and what follows.
    pub(crate) fn output(&self) -> Output {
        self.output.clone()
    }

    /// What was read until the pipe's end, and how much there was; a process that lingers does not
    /// hold this up for long.
    pub(crate) async fn finish(mut self) -> Captured {
        let kept = match timeout(LINGER, &mut self.task).await {
            Ok(kept) => kept,
            Err(_) => {
                self.stop.notify_one();
                self.task.await
            }
        };
        let read = std::mem::take(&mut *self.output.lock());
        let kept = kept.ok().flatten();
        Captured { bytes: read.bytes.into(), size: read.size, kept }
    }
}

async fn read_bounded(
    pipe: Option<impl AsyncRead + Unpin>,
    limit: usize,
    output: Output,
    overflow: Overflow,
    stop: Arc<Notify>,
) -> Option<Kept> {
    let mut pipe = pipe?;
    let mut rest = Rest::Nothing;
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = tokio::select! {
            () = stop.notified() => break,
            read = pipe.read(&mut buffer) => read,
        };
        let Ok(read @ 1..) = read else { break };
        let over = output.add(&buffer[..read], limit);
        if !over.is_empty() {
            rest = rest.add(over, &output, &overflow).await;
        }
    }
    rest.end().await
}

/// Output over the limit, on its way to the spool.
enum Rest {
    Nothing,
    /// The spool does not take it.
    Lost,
    Spooled(Box<Spooled>),
}

struct Spooled {
    writing: Writing,
    hash: blake3::Hasher,
    bytes: u64,
    /// What is gathered for the next write.
    waiting: Vec<u8>,
}

impl Rest {
    async fn add(self, over: &[u8], output: &Output, overflow: &Overflow) -> Rest {
        let mut spooled = match self {
            Rest::Lost => return Rest::Lost,
            Rest::Spooled(spooled) => spooled,
            Rest::Nothing => match begin(overflow).await {
                Some(writing) => {
                    let (hash, bytes) = (blake3::Hasher::new(), 0);
                    let waiting = output.lock().bytes.clone();
                    Box::new(Spooled { writing, hash, bytes, waiting })
                }
                None => return Rest::Lost,
            },
        };
        spooled.waiting.extend_from_slice(over);
        match spooled.waiting.len() >= PIECE {
            true => Rest::Spooled(spooled.write().await),
            false => Rest::Spooled(spooled),
        }
    }

    async fn end(self) -> Option<Kept> {
        let Rest::Spooled(spooled) = self else { return None };
        let spooled = spooled.write().await;
        let hash = Digest(*spooled.hash.finalize().as_bytes());
        (spooled.bytes > 0).then_some(Kept { bytes: spooled.bytes, hash })
    }
}

impl Spooled {
    async fn write(mut self: Box<Self>) -> Box<Spooled> {
        let written = tokio::task::spawn_blocking(move || {
            let fit = self.writing.add(&self.waiting);
            self.hash.update(&self.waiting[..fit]);
            self.bytes += fit as u64;
            self.waiting.clear();
            self
        });
        written.await.expect("writing to the spool does not panic")
    }
}

async fn begin(overflow: &Overflow) -> Option<Writing> {
    let Overflow { spool, order, stream } = overflow.clone();
    let begun = tokio::task::spawn_blocking(move || spool.begin(order, stream)).await;
    begun.expect("opening a file does not panic")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::space::Space;

    fn overflow(dir: &std::path::Path, quota: u64) -> Overflow {
        let spool = Spool::open(dir.join("spool"), quota, Space::new(dir, 0));
        Overflow { spool, order: OrderId([1; 16]), stream: Stream::Stdout }
    }

    #[tokio::test]
    async fn what_is_over_the_limit_is_counted_and_kept_in_the_spool() {
        let dir = tempfile::tempdir().expect("a folder");
        let overflow = overflow(dir.path(), 1 << 20);
        let text: Vec<u8> = (0..100_000_u32).flat_map(u32::to_be_bytes).take(200_000).collect();
        let pipe = std::io::Cursor::new(text.clone());
        let captured = Capture::start(Some(pipe), 5, overflow.clone()).finish().await;
        let hash = Digest(*blake3::hash(&text).as_bytes());
        assert_eq!((&captured.bytes[..], captured.size), (&text[..5], 200_000));
        assert_eq!(captured.kept, Some(Kept { bytes: 200_000, hash }));
        let (mut file, _) = overflow.spool.find(overflow.order, Stream::Stdout).expect("a file");
        let mut found = Vec::new();
        std::io::Read::read_to_end(&mut file, &mut found).expect("readable");
        assert_eq!(found, text);
    }

    #[tokio::test]
    async fn what_fits_is_not_written_and_what_the_spool_lacks_is_counted() {
        let dir = tempfile::tempdir().expect("a folder");
        let fits = Capture::start(Some(&b"0123"[..]), 4, overflow(dir.path(), 1 << 20));
        let bytes = Bytes::from_static(b"0123");
        assert_eq!(fits.finish().await, Captured { bytes: bytes.clone(), size: 4, kept: None });
        assert!(!dir.path().join("spool").exists());
        let lost = Capture::start(Some(&b"0123456789"[..]), 4, overflow(dir.path(), 0));
        assert_eq!(lost.finish().await, Captured { bytes, size: 10, kept: None });
        let part = Capture::start(Some(&b"0123456789"[..]), 4, overflow(dir.path(), 32));
        let kept = part.finish().await.kept.expect("some of it");
        assert_eq!(kept, Kept { bytes: 8, hash: Digest(*blake3::hash(b"01234567").as_bytes()) });
    }

    #[test]
    fn pieces_follow_each_other_to_the_end_of_what_is_kept() {
        let output = Output::default();
        assert_eq!(output.add(b"01234567", 6), b"67");
        let piece = |from, limit| {
            let Piece { offset, bytes, is_tail } = output.piece(from, limit);
            (offset, String::from_utf8(bytes.to_vec()).expect("plain text"), is_tail)
        };
        assert_eq!(piece(0, 4), (0, "0123".into(), false));
        assert_eq!(piece(4, 4), (4, "45".into(), false));
        assert_eq!(piece(6, 1), (6, "6".into(), true));
        assert_eq!(piece(7, 4), (7, "7".into(), true));
        assert_eq!(piece(8, 4), (8, String::new(), true));
        assert_eq!(piece(100, 4), (8, String::new(), true));
    }

    #[test]
    fn of_what_is_over_the_limit_the_last_is_at_hand_from_a_line_on() {
        let output = Output::default();
        let lines: String = (0..20_000).map(|n| format!("line {n:06}\n")).collect();
        lines.as_bytes().chunks(1_000).for_each(|chunk| {
            output.add(chunk, 100);
        });
        let Piece { offset, bytes, is_tail } = output.piece(100, TAIL);
        let from = usize::try_from(offset).expect("it is small");
        assert_eq!((&bytes[..], is_tail), (&lines.as_bytes()[from..], true));
        assert!(bytes.starts_with(b"line ") && bytes.len() > TAIL - 12, "{}", bytes.len());
        // A single write that is longer than all that is at hand.
        output.add(&vec![b'x'; 3 * TAIL], 100);
        let Piece { offset, bytes, .. } = output.piece(100, usize::MAX);
        assert_eq!((offset, bytes.len()), ((lines.len() + 2 * TAIL) as u64, TAIL));
    }
}
