//! What is kept, on disk: messages in the order in which they came, with numbers, and how far each
//! reader is.
//!
//! Each `[[keep]]` has a shelf. What finds no room there pushes out the oldest; whether that is a
//! loss depends on the policy, and losses are counted. Age is counted in the time that the node
//! runs, so that a wrong clock throws nothing away.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use content::Database;
use mesh::bus::{Message, Pattern, Subject};
use redb::{Durability, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::settings::{Keep, Policy};
use super::words::{Kept, Record, Room};
use crate::JournalError;

type Result<T> = std::result::Result<T, JournalError>;

/// A message, by its shelf and number: the length of a head in JSON, the head, the body.
const MESSAGES: TableDefinition<(&str, u64), &[u8]> = TableDefinition::new("bus.messages.v1");
/// Of the policy `latest`: the number of the newest message of a subject.
const SUBJECTS: TableDefinition<(&str, &str), u64> = TableDefinition::new("bus.subjects.v1");
/// What a reader has acknowledged, and of which subjects he reads, by shelf and reader.
const READERS: TableDefinition<(&str, &str), (u64, &str)> = TableDefinition::new("bus.readers.v1");
/// The next number of a shelf, how many messages are there, their bytes, and how many were lost.
const SHELVES: TableDefinition<&str, (u64, u64, u64, u64)> = TableDefinition::new("bus.shelves.v1");
/// How long the node has run, in milliseconds.
const UPTIME: TableDefinition<(), u64> = TableDefinition::new("bus.uptime.v1");

/// Memory for the database.
const CACHE: usize = 8 << 20;
/// The age of a shelf is looked at so often, if nothing comes.
pub(super) const LOOK: Duration = Duration::from_secs(10);
/// How many messages are looked at for one answer.
const SCAN: u64 = 10_000;
/// How many readers of one shelf there may be, and of how many it is told.
const READERS_OF_ONE: usize = 256;
const TOLD: usize = 20;

/// A message as it is kept; or, without a subject, the word that some are missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) subject: String,
    pub(super) from: u32,
    pub(super) node: String,
    pub(super) at_ms: u64,
    pub(super) missed: u64,
    pub(super) body: Bytes,
}

#[derive(Serialize, Deserialize)]
struct Head {
    subject: String,
    from: u32,
    node: String,
    at_ms: u64,
    up_ms: u64,
    #[serde(default)]
    missed: u64,
}

impl Entry {
    pub(super) fn of(message: &Message, at_ms: u64) -> Entry {
        let (subject, from) = (message.subject.as_str().into(), message.from.0);
        let (node, body) = (message.node.clone(), message.body.clone());
        Entry { subject, from, node, at_ms, missed: 0, body }
    }

    /// So many messages did not come here.
    pub(super) fn gap(missed: u64, at_ms: u64) -> Entry {
        let (subject, node, body) = (String::new(), String::new(), Bytes::new());
        Entry { subject, from: 0, node, at_ms, missed, body }
    }

    fn encode(&self, up_ms: u64) -> Vec<u8> {
        let (subject, node) = (self.subject.clone(), self.node.clone());
        let (from, at_ms, missed) = (self.from, self.at_ms, self.missed);
        let head = serde_json::to_vec(&Head { subject, from, node, at_ms, up_ms, missed });
        let head = head.expect("plain data is valid JSON");
        let len = u32::try_from(head.len()).expect("names are short");
        [&len.to_be_bytes()[..], &head, &self.body].concat()
    }

    /// None: it is no entry.
    fn decode(row: &[u8]) -> Option<(Entry, u64)> {
        let (len, rest) = row.split_first_chunk::<4>()?;
        let (head, body) = rest.split_at_checked(u32::from_be_bytes(*len) as usize)?;
        let Head { subject, from, node, at_ms, up_ms, missed } =
            serde_json::from_slice(head).ok()?;
        let body = Bytes::copy_from_slice(body);
        Some((Entry { subject, from, node, at_ms, missed, body }, up_ms))
    }
}

/// A shelf.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Shelf {
    next: u64,
    count: u64,
    bytes: u64,
    dropped: u64,
}

impl Shelf {
    fn of(row: Option<(u64, u64, u64, u64)>) -> Shelf {
        let (next, count, bytes, dropped) = row.unwrap_or((1, 0, 0, 0));
        Shelf { next, count, bytes, dropped }
    }
}

/// What was found for somebody.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) records: Vec<Record>,
    /// Up to which number was looked.
    pub(super) through: u64,
    /// How many are missing before the first record.
    pub(super) missed: u64,
    pub(super) more: bool,
}

/// The database.
pub(super) struct Store {
    database: Database,
    /// How long the node had run before, and since when it does now.
    before_ms: u64,
    since: Instant,
}

impl Store {
    pub(super) fn open(path: &Path) -> Result<Store> {
        let failed = |source| JournalError::Open { path: path.into(), source: Box::new(source) };
        let database = Database::open(path, CACHE).map_err(failed)?;
        let mut store = Store { database, before_ms: 0, since: Instant::now() };
        let change = store.begin()?;
        change.txn.open_table(MESSAGES)?;
        change.txn.open_table(SUBJECTS)?;
        change.txn.open_table(READERS)?;
        change.txn.open_table(SHELVES)?;
        let before = change.txn.open_table(UPTIME)?.get(())?.map(|up| up.value());
        change.commit()?;
        store.before_ms = before.unwrap_or(0);
        Ok(store)
    }

    fn up_ms(&self) -> u64 {
        let since = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.before_ms.saturating_add(since)
    }

    /// Begins a change, which is on disk when it is committed, or not at all.
    pub(super) fn begin(&self) -> Result<Change> {
        let mut txn = self.database.current()?.begin_write()?;
        txn.set_durability(Durability::Immediate)?;
        // What is written is chosen by others.
        txn.set_two_phase_commit(true);
        Ok(Change { txn, up_ms: self.up_ms() })
    }

    /// What comes behind a number, as much as fits into an answer. `skip`: what is not meant.
    pub(super) fn read(
        &self,
        (keep, pattern): (&Keep, &Pattern),
        after: u64,
        most: usize,
        skip: impl Fn(u64) -> bool,
    ) -> Result<Found> {
        let txn = self.database.current()?.begin_read()?;
        let messages = txn.open_table(MESSAGES)?;
        let shelf = Shelf::of(txn.open_table(SHELVES)?.get(&*keep.shelf)?.map(|row| row.value()));
        let (name, is_stream) = (&*keep.shelf, keep.policy == Policy::Stream);
        let mut found = Found { through: after, ..Found::default() };
        let mut room = Room::new();
        for (row, looked) in messages.range((name, after + 1)..=(name, u64::MAX))?.zip(0..) {
            let (key, row) = row?;
            let seq = key.value().1;
            let expected = found.through + 1;
            let before = if is_stream { seq.saturating_sub(expected) } else { 0 };
            let entry = Entry::decode(row.value());
            let gap = entry.as_ref().map_or(1, |(entry, _)| entry.missed) + before;
            // What is missing is told before what comes behind it.
            let full = looked == SCAN || found.records.len() == most;
            if full || is_stream && gap > 0 && !found.records.is_empty() {
                found.more = true;
                return Ok(found);
            }
            found.missed += if is_stream { gap } else { 0 };
            if let Some((entry, _)) = entry
                && Subject::new(&entry.subject).is_ok_and(|subject| pattern.matches(&subject))
                && !skip(seq)
            {
                let record = Record::new(seq, entry);
                // The first one always finds room.
                if !room.take(&record) {
                    found.more = true;
                    return Ok(found);
                }
                found.records.push(record);
            }
            found.through = seq;
        }
        if is_stream && found.through + 1 < shelf.next {
            found.missed += shelf.next - 1 - found.through;
            found.through = shelf.next - 1;
        }
        Ok(found)
    }

    /// What a reader has acknowledged, if he reads of these subjects.
    pub(super) fn reader(
        &self,
        (keep, pattern): (&Keep, &Pattern),
        reader: &str,
    ) -> Result<Option<u64>> {
        let txn = self.database.current()?.begin_read()?;
        let row = txn.open_table(READERS)?.get((&*keep.shelf, reader))?;
        let same = |(seq, of): (u64, &str)| (of == pattern.as_str()).then_some(seq);
        Ok(row.and_then(|row| same(row.value())))
    }

    /// How a shelf is.
    pub(super) fn kept(&self, keep: &Keep) -> Result<Kept> {
        let txn = self.database.current()?.begin_read()?;
        let shelf = Shelf::of(txn.open_table(SHELVES)?.get(&*keep.shelf)?.map(|row| row.value()));
        let mut readers = readers(&txn.open_table(READERS)?, &keep.shelf)?;
        readers.sort_by_key(|Reader(_, seq, _)| *seq);
        readers.truncate(TOLD);
        let readers = readers.into_iter().map(|Reader(name, seq, _)| (name, seq)).collect();
        Ok(Kept {
            name: keep.name.clone(),
            subject: keep.pattern.as_str().into(),
            policy: keep.policy.word().into(),
            messages: shelf.count,
            bytes: shelf.bytes,
            next: shelf.next,
            dropped: shelf.dropped,
            taken: 0,
            readers,
        })
    }
}

/// A reader of a shelf: his name, what he has acknowledged, of which subjects he reads.
struct Reader(String, u64, String);

fn readers(
    table: &impl ReadableTable<(&'static str, &'static str), (u64, &'static str)>,
    shelf: &str,
) -> Result<Vec<Reader>> {
    let mut found = Vec::new();
    for row in table.range((shelf, "")..)? {
        let (key, row) = row?;
        let ((of, reader), (seq, pattern)) = (key.value(), row.value());
        if of != shelf {
            break;
        }
        found.push(Reader(reader.to_owned(), seq, pattern.to_owned()));
    }
    Ok(found)
}

/// A change that is being made.
pub(super) struct Change {
    txn: WriteTransaction,
    up_ms: u64,
}

impl Change {
    /// Puts something on a shelf. Returns its number, and how many others are lost by that.
    pub(super) fn put(&self, keep: &Keep, entry: &Entry) -> Result<(u64, u64)> {
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
        let dropped = self.shrink(keep, &mut shelf)?;
        shelf.dropped += dropped + entry.missed;
        self.set_shelf(keep, shelf)?;
        Ok((seq, dropped))
    }

    /// Lets what is too old go. Returns how many are lost.
    pub(super) fn age(&self, keep: &Keep) -> Result<u64> {
        let mut shelf = self.shelf(keep)?;
        let before = shelf;
        let dropped = self.shrink(keep, &mut shelf)?;
        shelf.dropped += dropped;
        if shelf != before {
            self.set_shelf(keep, shelf)?;
        }
        Ok(dropped)
    }

    /// Pushes the oldest out until the limits are held.
    fn shrink(&self, keep: &Keep, shelf: &mut Shelf) -> Result<u64> {
        let age_ms = keep.age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        let name = &*keep.shelf;
        let mut messages = self.txn.open_table(MESSAGES)?;
        let (mut dropped, mut readers) = (0, None);
        loop {
            let first = {
                let row = messages.range((name, 0)..=(name, u64::MAX))?.next().transpose()?;
                row.map(|(key, row)| {
                    let row = row.value();
                    (key.value().1, row.len() as u64, Entry::decode(row))
                })
            };
            let Some((seq, len, entry)) = first else { return Ok(dropped) };
            let up_ms = entry.as_ref().map_or(0, |(_, up_ms)| *up_ms);
            let crowded = shelf.count > keep.count || shelf.bytes > keep.bytes && shelf.count > 1;
            let old = age_ms.is_some_and(|age| self.up_ms.saturating_sub(up_ms) > age);
            if !crowded && !old {
                return Ok(dropped);
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
            dropped += u64::from(is_lost);
        }
    }

    /// What each reader has, and of which subjects he reads.
    fn readers(&self, shelf: &str) -> Result<Vec<(u64, Pattern)>> {
        let readers = readers(&self.txn.open_table(READERS)?, shelf)?;
        let known = |Reader(_, seq, of): Reader| Some((seq, Pattern::new(&of).ok()?));
        Ok(readers.into_iter().filter_map(known).collect())
    }

    /// A reader who is new begins: behind what is there, or before it; one who is not reads of
    /// these subjects from now on. Returns behind which number; none: there are too many.
    pub(super) fn begin_reader(
        &self,
        (keep, pattern): (&Keep, &Pattern),
        reader: &str,
        new: bool,
    ) -> Result<Option<u64>> {
        let shelf = self.shelf(keep)?;
        let mut table = self.txn.open_table(READERS)?;
        let name = &*keep.shelf;
        let known = table.get((name, reader))?.map(|row| row.value().0);
        if known.is_none() && readers(&table, name)?.len() >= READERS_OF_ONE {
            return Ok(None);
        }
        let messages = self.txn.open_table(MESSAGES)?;
        let first = messages.range((name, 0)..=(name, u64::MAX))?.next().transpose()?;
        let first = first.map_or(shelf.next, |(key, _)| key.value().1);
        let after = known.unwrap_or(if new { shelf.next } else { first } - 1);
        table.insert((name, reader), (after, pattern.as_str()))?;
        Ok(Some(after))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(policy: Policy, count: u64) -> Keep {
        Keep {
            name: "k".into(),
            shelf: "k".into(),
            pattern: Pattern::new("a.>").expect("a pattern"),
            policy,
            count,
            bytes: 1 << 20,
            age: None,
            lease: Duration::from_secs(60),
        }
    }

    fn entry(subject: &str, body: &str) -> Entry {
        let (node, body) = ("web1".into(), Bytes::copy_from_slice(body.as_bytes()));
        Entry { subject: subject.into(), from: 7, node, at_ms: 5, missed: 0, body }
    }

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let store = Store::open(&dir.path().join("keep.redb")).expect("it is made");
        (dir, store)
    }

    fn change<T>(store: &Store, make: impl FnOnce(&Change) -> Result<T>) -> T {
        let change = store.begin().expect("it begins");
        let made = make(&change).expect("it is made");
        change.commit().expect("it is on disk");
        made
    }

    fn put(store: &Store, keep: &Keep, subject: &str, body: &str) -> (u64, u64) {
        change(store, |change| change.put(keep, &entry(subject, body)))
    }

    /// What is found, as bodies, and how many are missing.
    fn read(store: &Store, keep: &Keep, pattern: &str, after: u64) -> (Vec<String>, u64, u64) {
        let pattern = Pattern::new(pattern).expect("a pattern");
        let found = store.read((keep, &pattern), after, 9, |_| false).expect("it is read");
        let text = |record: &Record| String::from_utf8_lossy(&record.body).into_owned();
        (found.records.iter().map(text).collect(), found.missed, found.through)
    }

    #[test]
    fn of_each_subject_the_newest_is_kept_also_over_a_restart() {
        let (dir, store) = store();
        let keep = keep(Policy::Latest, 2);
        for (subject, body) in [("a.x", "1"), ("a.y", "2"), ("a.x", "3")] {
            assert_eq!(put(&store, &keep, subject, body).1, 0, "nothing is lost");
        }
        assert_eq!(read(&store, &keep, "a.>", 0).0, ["2", "3"]);
        assert_eq!(read(&store, &keep, "a.x", 0).0, ["3"]);
        assert_eq!(read(&store, &keep, "a.>", 2).0, ["3"], "the next page");
        assert_eq!(put(&store, &keep, "a.z", "4"), (4, 1), "there is no room for a third");
        drop(store);
        let store = Store::open(&dir.path().join("keep.redb")).expect("it is there");
        assert_eq!(read(&store, &keep, "a.>", 0).0, ["3", "4"]);
        // What was pushed out is no old value of its subject any more.
        assert_eq!(put(&store, &keep, "a.y", "5"), (5, 1));
        assert_eq!(read(&store, &keep, "a.>", 0).0, ["4", "5"]);
        let kept = store.kept(&keep).expect("it is read");
        assert_eq!((kept.messages, kept.next, kept.dropped), (2, 6, 2));
    }

    #[test]
    fn what_a_reader_of_a_stream_has_not_had_is_a_loss_and_told_where_it_was() {
        let (_dir, store) = store();
        let keep = keep(Policy::Stream, 3);
        for n in 1..=4 {
            assert_eq!(put(&store, &keep, "a.x", &n.to_string()), (n, 0), "nobody reads");
        }
        let all = Pattern::new("a.>").expect("a pattern");
        let begin =
            |reader, new| change(&store, |change| change.begin_reader((&keep, &all), reader, new));
        assert_eq!((begin("old", false), begin("new", true)), (Some(1), Some(4)));
        assert_eq!(read(&store, &keep, "a.>", 1), (vec!["2".into(), "3".into(), "4".into()], 0, 4));
        let ack = |reader, seq| change(&store, |change| change.ack(&keep, reader, seq));
        assert!(ack("old", 2) && ack("old", 1) && !ack("old", 5) && !ack("nobody", 1));
        let known = store.reader((&keep, &all), "old").expect("it is read");
        assert_eq!(known, Some(2), "never back");
        assert_eq!(put(&store, &keep, "a.y", "5"), (5, 0), "he has 2");
        assert_eq!(put(&store, &keep, "a.y", "6"), (6, 1), "he lacks 3");
        assert_eq!(read(&store, &keep, "a.y", 2), (vec!["5".into(), "6".into()], 1, 6));
        assert_eq!(read(&store, &keep, "b", 2), (Vec::new(), 1, 6));
        assert!(change(&store, |change| change.forget(&keep, "old")));
        assert_eq!(put(&store, &keep, "a.x", "7"), (7, 0), "the other one has 4");
        assert_eq!(store.kept(&keep).expect("it is read").dropped, 1);
        // Of what he does not read he lacks nothing.
        let other = Pattern::new("a.y").expect("a pattern");
        assert_eq!(store.reader((&keep, &other), "new").expect("it is read"), None);
        let narrow = change(&store, |change| change.begin_reader((&keep, &other), "new", false));
        assert_eq!(narrow, Some(4), "he goes on where he was");
        assert_eq!(put(&store, &keep, "a.x", "8"), (8, 1), "5 was of y");
        assert_eq!(put(&store, &keep, "a.x", "9"), (9, 1), "and so was 6");
        assert_eq!(put(&store, &keep, "a.x", "10"), (10, 0), "7 was not");
    }

    #[test]
    fn messages_that_did_not_come_are_a_gap_in_their_place() {
        let (_dir, store) = store();
        let keep = keep(Policy::Stream, 9);
        put(&store, &keep, "a.x", "1");
        change(&store, |change| change.put(&keep, &Entry::gap(5, 0)));
        put(&store, &keep, "a.x", "2");
        assert_eq!(read(&store, &keep, "a.x", 0), (vec!["1".into()], 0, 1));
        assert_eq!(read(&store, &keep, "a.x", 1), (vec!["2".into()], 5, 3));
        assert_eq!(store.kept(&keep).expect("it is read").dropped, 5);
    }

    #[test]
    fn what_is_done_is_gone_and_limits_in_bytes_and_age_are_held() {
        let (_dir, mut store) = store();
        let queue = keep(Policy::Queue, 9);
        put(&store, &queue, "a.x", "1");
        put(&store, &queue, "a.x", "2");
        let done = |seq| change(&store, |change| change.done(&queue, seq));
        assert!(done(1) && !done(1));
        assert_eq!(read(&store, &queue, "a.x", 0).0, ["2"]);
        let small = Keep { bytes: 1_000, ..queue.clone() };
        assert_eq!(put(&store, &small, "a.x", &"x".repeat(2_000)), (3, 1));
        assert_eq!(put(&store, &small, "a.x", "4"), (4, 1), "one that is too large goes next");
        let old = Keep { age: Some(Duration::from_secs(60)), ..queue };
        assert_eq!(change(&store, |change| change.age(&old)), 0);
        store.before_ms += 61_000;
        assert_eq!(change(&store, |change| change.age(&old)), 1);
        let kept = store.kept(&old).expect("it is read");
        assert_eq!((kept.messages, kept.bytes, kept.dropped), (0, 0, 3));
    }

    #[test]
    fn an_answer_has_what_finds_room_in_it() {
        let (_dir, store) = store();
        let keep = Keep { bytes: 1 << 30, ..keep(Policy::Stream, 99) };
        for _ in 0..3 {
            put(&store, &keep, "a.x", &"x".repeat(super::super::words::KEPT_BYTES));
        }
        let pattern = Pattern::new("a.x").expect("a pattern");
        let found = store.read((&keep, &pattern), 0, 9, |_| false).expect("it is read");
        assert_eq!((found.records.len(), found.through, found.more), (1, 1, true));
        let found = store.read((&keep, &pattern), 2, 9, |_| false).expect("it is read");
        assert_eq!((found.records.len(), found.through, found.more), (1, 3, false));
        assert!(Entry::decode(&[0, 0, 0, 9, 1]).is_none() && Entry::decode(&[1]).is_none());
    }
}
