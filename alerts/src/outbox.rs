//! What waits for a channel: messages in files, a file for each, in their order.
//!
//! A message is on disk before anybody takes it for told, and goes when the channel has it. There
//! is room for so many; beyond that the oldest but the first, which may be on its way, are dropped,
//! counted, and the count is told. Where the disk takes nothing, messages wait in memory within the
//! same limit.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing::warn;

use crate::disk::replace;
use crate::message::Message;

/// How large a message may be that is read back.
const LONGEST: u64 = 4 << 20;

/// The messages that wait for one channel.
pub(crate) struct Outbox {
    dir: PathBuf,
    inner: Mutex<Inner>,
}

/// A message that is on disk and not to be sent yet.
pub(crate) struct Staged {
    number: u64,
    /// The message, if the disk did not take it.
    kept: Option<Box<Message>>,
}

struct Inner {
    waiting: VecDeque<(u64, Option<Box<Message>>)>,
    next: u64,
    most: usize,
    /// Those of which no message that was taken has told.
    dropped: u64,
}

impl Outbox {
    /// Opens the folder of a channel, with what an earlier process has left there.
    pub(crate) fn open(dir: &Path, most: usize) -> Outbox {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".json"));
            numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
        }
        numbers.sort_unstable();
        let next = numbers.last().map_or(1, |last| last + 1);
        let waiting = numbers.into_iter().map(|number| (number, None)).collect();
        let inner = Mutex::new(Inner { waiting, next, most, dropped: 0 });
        Outbox { dir: dir.into(), inner }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on so many may wait.
    pub(crate) fn set_most(&self, most: usize) {
        self.lock().most = most;
    }

    /// Puts a message on disk, if the disk takes it, where it is sent if this process dies. Until
    /// it is released nobody sends it. Blocks.
    pub(crate) fn stage(&self, message: Message) -> Staged {
        let mut inner = self.lock();
        let number = inner.next;
        inner.next += 1;
        let kept = match self.write(number, &message) {
            Ok(()) => None,
            Err(error) => {
                let path = self.dir.display();
                warn!(%path, %error, "an alert waits in memory, because it cannot be kept");
                Some(Box::new(message))
            }
        };
        Staged { number, kept }
    }

    /// The same for a report; who hands it over has it until the disk takes it. None: it waits here
    /// already, since who has handed it over died before that was kept. Blocks.
    pub(crate) fn stage_report(&self, message: &Message) -> io::Result<Option<Staged>> {
        let mut inner = self.lock();
        if self.holds(&inner, &message.id) {
            return Ok(None);
        }
        let number = inner.next;
        inner.next += 1;
        self.write(number, message)?;
        Ok(Some(Staged { number, kept: None }))
    }

    /// Takes back what was staged: nobody sends it. Blocks.
    pub(crate) fn discard(&self, staged: Staged) {
        fs::remove_file(self.path(staged.number)).ok();
    }

    fn holds(&self, inner: &Inner, id: &str) -> bool {
        inner.waiting.iter().any(|(number, kept)| match kept {
            Some(message) => message.id == id,
            None => self.read(*number).is_ok_and(|message| message.id == id),
        })
    }

    /// Puts a message that was staged at the end.
    pub(crate) fn release(&self, Staged { number, kept }: Staged) {
        let mut inner = self.lock();
        while inner.waiting.len() >= inner.most {
            // The first may be on its way.
            let place = usize::from(inner.waiting.len() > 1);
            let Some((number, _)) = inner.waiting.remove(place) else { break };
            fs::remove_file(self.path(number)).ok();
            inner.dropped += 1;
        }
        inner.waiting.push_back((number, kept));
    }

    /// The oldest message, with the number by which it is taken out. Blocks.
    pub(crate) fn front(&self) -> Option<(u64, Message)> {
        let mut inner = self.lock();
        loop {
            let (number, kept) = inner.waiting.front()?;
            let (number, kept) = (*number, kept.as_deref().cloned());
            let dropped = inner.dropped;
            match kept.map_or_else(|| self.read(number), Ok) {
                Ok(message) => return Some((number, Message { dropped, ..message })),
                Err(error) => {
                    let path = self.path(number);
                    warn!(path = %path.display(), %error, "an alert that waited is lost");
                    fs::remove_file(path).ok();
                    inner.waiting.pop_front();
                    inner.dropped += 1;
                }
            }
        }
    }

    /// Takes a message out: the channel has it, or will never have it. `told`: of how many dropped
    /// ones it has told. Blocks.
    pub(crate) fn remove(&self, number: u64, told: u64) {
        let mut inner = self.lock();
        inner.waiting.retain(|(other, _)| *other != number);
        inner.dropped = inner.dropped.saturating_sub(told);
        fs::remove_file(self.path(number)).ok();
    }

    /// How many wait, and how many were dropped of which nobody was told.
    pub(crate) fn count(&self) -> (usize, u64) {
        let inner = self.lock();
        (inner.waiting.len(), inner.dropped)
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:012}.json"))
    }

    fn write(&self, number: u64, message: &Message) -> io::Result<()> {
        replace(&self.path(number), &serde_json::to_vec(message)?)
    }

    fn read(&self, number: u64) -> io::Result<Message> {
        let path = self.path(number);
        if fs::metadata(&path)?.len() > LONGEST {
            return Err(io::Error::other("it is too long"));
        }
        Ok(serde_json::from_slice(&fs::read(&path)?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Sender, Written};

    fn message(n: u64) -> Message {
        Message::plain(&Sender::default(), "test", &format!("number {n}"), n)
    }

    fn fronts(outbox: &Outbox) -> Vec<(u64, u64)> {
        let mut found = Vec::new();
        while let Some((number, message)) = outbox.front() {
            outbox.remove(number, message.dropped);
            found.push((message.at_ms, message.dropped));
        }
        found
    }

    fn push(outbox: &Outbox, message: Message) {
        let staged = outbox.stage(message);
        outbox.release(staged);
    }

    #[test]
    fn what_waits_outlives_a_restart_in_its_order() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let outbox = Outbox::open(&dir.path().join("ops"), 10);
        (1..=3).for_each(|n| push(&outbox, message(n)));
        let (number, first) = outbox.front().expect("there are some");
        assert_eq!((first.at_ms, outbox.count()), (1, (3, 0)));
        outbox.remove(number, first.dropped);
        let outbox = Outbox::open(&dir.path().join("ops"), 10);
        push(&outbox, message(4));
        assert_eq!(fronts(&outbox), [(2, 0), (3, 0), (4, 0)]);
        let left = fs::read_dir(dir.path().join("ops")).expect("it is there").count();
        assert_eq!(left, 0);
    }

    #[test]
    fn beyond_the_limit_the_oldest_go_and_are_counted() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let outbox = Outbox::open(dir.path(), 3);
        (1..=10).for_each(|n| push(&outbox, message(n)));
        assert_eq!(outbox.count(), (3, 7));
        assert_eq!(fronts(&outbox), [(1, 7), (9, 0), (10, 0)]);
    }

    #[test]
    fn what_is_dropped_counts_until_a_message_that_was_taken_has_told_it() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let outbox = Outbox::open(dir.path(), 2);
        (1..=3).for_each(|n| push(&outbox, message(n)));
        let (number, first) = outbox.front().expect("there are some");
        // More are dropped while the first is on its way, and then it is taken.
        (4..=5).for_each(|n| push(&outbox, message(n)));
        outbox.remove(number, first.dropped);
        assert_eq!((first.dropped, outbox.count()), (1, (1, 2)));
        // One that is refused has told nobody.
        let (number, _) = outbox.front().expect("there is one");
        outbox.remove(number, 0);
        assert_eq!(outbox.count(), (0, 2));
        push(&outbox, message(6));
        assert_eq!(fronts(&outbox), [(6, 2)]);
    }

    #[test]
    fn without_a_disk_messages_wait_in_memory_and_what_is_spoilt_is_passed_over() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        fs::write(dir.path().join("file"), "no folder").expect("written");
        let outbox = Outbox::open(&dir.path().join("file"), 3);
        (1..=2).for_each(|n| push(&outbox, message(n)));
        assert_eq!(fronts(&outbox), [(1, 0), (2, 0)]);
        fs::write(dir.path().join("000000000007.json"), "{").expect("written");
        let outbox = Outbox::open(dir.path(), 3);
        push(&outbox, message(3));
        assert_eq!(fronts(&outbox), [(3, 1)]);
    }

    #[test]
    fn what_is_staged_is_sent_by_who_comes_after_a_crash_and_before_that_by_nobody() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let outbox = Outbox::open(dir.path(), 10);
        let staged = outbox.stage(message(1));
        assert!(outbox.front().is_none());
        assert_eq!(Outbox::open(dir.path(), 10).front().expect("it is on disk").1.at_ms, 1);
        outbox.release(staged);
        assert_eq!(outbox.front().expect("it is released").1.at_ms, 1);
    }

    #[test]
    fn a_report_that_waits_does_not_wait_twice() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let report = |end_ms| {
            let (kind, subject, text) = ("hour".into(), String::new(), String::new());
            let written = Written { kind, subject, text, start_ms: 1, end_ms };
            Message::report(&Sender::default(), written, end_ms)
        };
        let stage =
            |outbox: &Outbox, n| outbox.stage_report(&report(n)).expect("the disk takes it");
        let push_report = |outbox: &Outbox, n| {
            let staged = stage(outbox, n).expect("it does not wait");
            outbox.release(staged);
        };
        push_report(&Outbox::open(dir.path(), 10), 2);
        let outbox = Outbox::open(dir.path(), 10);
        assert!(stage(&outbox, 2).is_none());
        push_report(&outbox, 3);
        assert_eq!(fronts(&outbox), [(2, 0), (3, 0)]);
        outbox.discard(stage(&outbox, 2).expect("it does not wait"));
        assert!(Outbox::open(dir.path(), 10).front().is_none(), "it was taken back");
        // What the disk does not take does not wait.
        fs::write(dir.path().join("file"), "no folder").expect("written");
        let without = Outbox::open(&dir.path().join("file"), 10);
        assert!(without.stage_report(&report(2)).is_err() && without.front().is_none());
        push_report(&outbox, 2);
        push(&outbox, message(4));
        push(&outbox, message(4));
        assert_eq!(fronts(&outbox), [(2, 0), (4, 0), (4, 0)], "what is sent is not known here");
    }
}
