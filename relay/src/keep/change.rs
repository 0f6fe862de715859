//! What is written of what is kept: a change that is on disk as a whole, or not at all.
//!
//! What finds no room pushes out the oldest. Whether that is a loss depends on the policy; why it
//! went is told, so that losses are counted by their reasons.

use mesh::bus::{Pattern, Subject};
use redb::{ReadableTable, WriteTransaction};

use super::entry::Entry;
use super::settings::{Keep, Policy};
use super::store::{MESSAGES, READERS, Reader, Result, SHELVES, SUBJECTS, Shelf, UPTIME, readers};

/// How many readers of one shelf there may be, and how many of one user beside the node's own.
const READERS_OF_ONE: usize = 256;
const READERS_OF_USER: usize = 32;
/// How many messages make room in one step: when a limit has become much smaller, the rest goes in
/// the next ones, and nobody waits for all of them.
const SHRINK: usize = 10_000;

/// How many messages were lost, by why they went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lost {
    /// There were too many, or too many bytes.
    pub(super) crowded: u64,
    /// They were too old.
    pub(super) old: u64,
}

impl Lost {
    pub(super) fn all(self) -> u64 {
        self.crowded + self.old
    }
}

/// Why there is no room for one more reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Crowded {
    #[error("{READERS_OF_ONE} read this stream already, the most it takes")]
    All,
    #[error("user {0} has {READERS_OF_USER} readers of this stream already, the most of one user")]
    User(u32),
}

/// Whose a reader is: the names of all but the node's own user begin with his number.
fn user(reader: &str) -> Option<u32> {
    reader.split_once(':').and_then(|(user, _)| user.parse().ok())
}

/// What speaks against one more reader.
fn crowded(known: &[Reader], reader: &str) -> Option<Crowded> {
    let his = |user_id| known.iter().filter(|Reader(name, ..)| user(name) == Some(user_id)).count();
    match user(reader) {
        Some(one) if his(one) >= READERS_OF_USER => Some(Crowded::User(one)),
        _ if known.len() >= READERS_OF_ONE => Some(Crowded::All),
        _ => None,
    }
}

/// A change that is being made.
pub(super) struct Change {
    txn: WriteTransaction,
    up_ms: u64,
}

impl Change {
    pub(super) fn new(txn: WriteTransaction, up_ms: u64) -> Change {
        Change { txn, up_ms }
    }

    /// Sees to it that all tables are there. Returns how long the node had run.
    pub(super) fn open(&self) -> Result<Option<u64>> {
        self.txn.open_table(MESSAGES)?;
        self.txn.open_table(SUBJECTS)?;
        self.txn.open_table(READERS)?;
        self.txn.open_table(SHELVES)?;
        Ok(self.txn.open_table(UPTIME)?.get(())?.map(|up| up.value()))
    }

    /// Puts something on a shelf. Returns its number, and what is lost by that.
    pub(super) fn put(&self, keep: &Keep, entry: &Entry) -> Result<(u64, Lost)> {
        let mut shelf = self.shelf(keep)?;
        let seq = shelf.next;
        let row = entry.encode(self.up_ms);
        {
            let mut messages = self.txn.open_table(MESSAGES)?;
            if keep.policy == Policy::Latest {
                let mut subjects = self.txn.open_table(SUBJECTS)?;
                let key = (&*keep.shelf, &*entry.subject);
                let old = subjects.insert(key, seq)?.map(|old| old.value());
                if let Some(old) = old
                    && let Some(gone) = messages.remove((&*keep.shelf, old))?
                {
                    shelf.count -= 1;
                    shelf.bytes = shelf.bytes.saturating_sub(gone.value().len() as u64);
                }
            }
            messages.insert((&*keep.shelf, seq), &*row)?;
        }
        (shelf.next, shelf.count) = (seq + 1, shelf.count + 1);
        shelf.bytes += row.len() as u64;
        let lost = self.shrink(keep, &mut shelf)?;
        shelf.dropped += lost.all() + entry.missed;
        self.set_shelf(keep, shelf)?;
        Ok((seq, lost))
    }

    /// Lets what is too old go. Returns what is lost.
    pub(super) fn age(&self, keep: &Keep) -> Result<Lost> {
        let mut shelf = self.shelf(keep)?;
        let before = shelf;
        let lost = self.shrink(keep, &mut shelf)?;
        shelf.dropped += lost.all();
        if shelf != before {
            self.set_shelf(keep, shelf)?;
        }
        Ok(lost)
    }

    /// Pushes the oldest out until the limits are held.
    fn shrink(&self, keep: &Keep, shelf: &mut Shelf) -> Result<Lost> {
        let age_ms = keep.age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        let name = &*keep.shelf;
        let mut messages = self.txn.open_table(MESSAGES)?;
        let (mut lost, mut readers) = (Lost::default(), None);
        for _ in 0..SHRINK {
            let first = {
                let row = messages.range((name, 0)..=(name, u64::MAX))?.next().transpose()?;
                row.map(|(key, row)| {
                    let row = row.value();
                    (key.value().1, row.len() as u64, Entry::decode(row))
                })
            };
            let Some((seq, len, entry)) = first else { break };
            let up_ms = entry.as_ref().map_or(0, |(_, up_ms)| *up_ms);
            let crowded = shelf.count > keep.count || shelf.bytes > keep.bytes && shelf.count > 1;
            let old = age_ms.is_some_and(|age| self.up_ms.saturating_sub(up_ms) > age);
            if !crowded && !old {
                break;
            }
            messages.remove((name, seq))?;
            shelf.count = shelf.count.saturating_sub(1);
            shelf.bytes = shelf.bytes.saturating_sub(len);
            let is_lost = match keep.policy {
                Policy::Latest => {
                    let mut subjects = self.txn.open_table(SUBJECTS)?;
                    let subject = entry.map_or(String::new(), |(entry, _)| entry.subject);
                    subjects.remove((name, &*subject))?;
                    crowded
                }
                Policy::Queue => true,
                Policy::Stream => {
                    if readers.is_none() {
                        readers = Some(self.readers(name)?);
                    }
                    let subject = entry.and_then(|(entry, _)| Subject::new(&entry.subject).ok());
                    let lacks = |(had, pattern): &(u64, Pattern)| {
                        seq > *had && subject.as_ref().is_some_and(|it| pattern.matches(it))
                    };
                    readers.iter().flatten().any(lacks)
                }
            };
            let why = if crowded { &mut lost.crowded } else { &mut lost.old };
            *why += u64::from(is_lost);
        }
        Ok(lost)
    }

    /// What each reader has, and of which subjects he reads.
    fn readers(&self, shelf: &str) -> Result<Vec<(u64, Pattern)>> {
        let readers = readers(&self.txn.open_table(READERS)?, shelf)?;
        let known = |Reader(_, seq, of): Reader| Some((seq, Pattern::new(&of).ok()?));
        Ok(readers.into_iter().filter_map(known).collect())
    }

    /// A reader who is new begins: behind what is there, or before it; one who is not reads of
    /// these subjects from now on. Returns behind which number.
    pub(super) fn begin_reader(
        &self,
        (keep, pattern): (&Keep, &Pattern),
        reader: &str,
        new: bool,
    ) -> Result<std::result::Result<u64, Crowded>> {
        let shelf = self.shelf(keep)?;
        let mut table = self.txn.open_table(READERS)?;
        let name = &*keep.shelf;
        let known = table.get((name, reader))?.map(|row| row.value().0);
        if known.is_none()
            && let Some(crowded) = crowded(&readers(&table, name)?, reader)
        {
            return Ok(Err(crowded));
        }
        let messages = self.txn.open_table(MESSAGES)?;
        let first = messages.range((name, 0)..=(name, u64::MAX))?.next().transpose()?;
        let first = first.map_or(shelf.next, |(key, _)| key.value().1);
        let after = known.unwrap_or(if new { shelf.next } else { first } - 1);
        table.insert((name, reader), (after, pattern.as_str()))?;
        Ok(Ok(after))
    }

    /// A reader has what is there up to a number. Whether he is known, and the number.
    pub(super) fn ack(&self, keep: &Keep, reader: &str, seq: u64) -> Result<bool> {
        let shelf = self.shelf(keep)?;
        let mut table = self.txn.open_table(READERS)?;
        let key = (&*keep.shelf, reader);
        let known = table.get(key)?.map(|row| (row.value().0, row.value().1.to_owned()));
        let Some((before, of)) = known.filter(|_| seq < shelf.next) else { return Ok(false) };
        if seq > before {
            table.insert(key, (seq, &*of))?;
        }
        Ok(true)
    }

    /// A reader will not come again. Whether he was known.
    pub(super) fn forget(&self, keep: &Keep, reader: &str) -> Result<bool> {
        let mut table = self.txn.open_table(READERS)?;
        let known = table.remove((&*keep.shelf, reader))?.is_some();
        Ok(known)
    }

    /// A message of a queue is done. Whether it was there.
    pub(super) fn done(&self, keep: &Keep, seq: u64) -> Result<bool> {
        let gone = {
            let mut messages = self.txn.open_table(MESSAGES)?;
            messages.remove((&*keep.shelf, seq))?.map(|row| row.value().len() as u64)
        };
        let Some(len) = gone else { return Ok(false) };
        let mut shelf = self.shelf(keep)?;
        shelf.count = shelf.count.saturating_sub(1);
        shelf.bytes = shelf.bytes.saturating_sub(len);
        self.set_shelf(keep, shelf)?;
        Ok(true)
    }

    fn shelf(&self, keep: &Keep) -> Result<Shelf> {
        let row = self.txn.open_table(SHELVES)?.get(&*keep.shelf)?.map(|row| row.value());
        Ok(Shelf::of(row))
    }

    fn set_shelf(&self, keep: &Keep, shelf: Shelf) -> Result<()> {
        let Shelf { next, count, bytes, dropped } = shelf;
        self.txn.open_table(SHELVES)?.insert(&*keep.shelf, (next, count, bytes, dropped))?;
        Ok(())
    }

    pub(super) fn commit(self) -> Result<()> {
        self.txn.open_table(UPTIME)?.insert((), self.up_ms)?;
        Ok(self.txn.commit()?)
    }
}
