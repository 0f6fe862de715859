//! What is kept, on disk: messages in the order in which they came, with numbers, and how far each
//! reader is.
//!
//! Each `[[keep]]` has a shelf. What finds no room there pushes out the oldest; whether that is a
//! loss depends on the policy, and losses are counted. Age is counted in the time that the node
//! runs, so that a wrong clock throws nothing away.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use content::Database;
use mesh::bus::{Pattern, Subject};
use redb::{Durability, ReadableDatabase, ReadableTable, TableDefinition};

use super::change::Change;
use super::entry::Entry;
use super::settings::{Keep, Policy};
use super::words::{Kept, Record, Room};
use crate::JournalError;

pub(super) type Result<T> = std::result::Result<T, JournalError>;

/// A message, by its shelf and number: the length of a head in JSON, the head, the body.
pub(super) const MESSAGES: TableDefinition<(&str, u64), &[u8]> =
    TableDefinition::new("bus.messages.v1");
/// Of the policy `latest`: the number of the newest message of a subject.
pub(super) const SUBJECTS: TableDefinition<(&str, &str), u64> =
    TableDefinition::new("bus.subjects.v1");
/// What a reader has acknowledged, and of which subjects he reads, by shelf and reader.
pub(super) const READERS: TableDefinition<(&str, &str), (u64, &str)> =
    TableDefinition::new("bus.readers.v1");
/// The next number of a shelf, how many messages are there, their bytes, and how many were lost.
pub(super) const SHELVES: TableDefinition<&str, (u64, u64, u64, u64)> =
    TableDefinition::new("bus.shelves.v1");
/// How long the node has run, in milliseconds.
pub(super) const UPTIME: TableDefinition<(), u64> = TableDefinition::new("bus.uptime.v1");

/// Memory for the database.
const CACHE: usize = 8 << 20;
/// The age of a shelf is looked at so often, if nothing comes.
pub(super) const LOOK: Duration = Duration::from_secs(10);
/// How many messages are looked at for one answer.
const SCAN: u64 = 10_000;
/// Of how many readers of a shelf it is told.
const TOLD: usize = 20;

/// A shelf.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shelf {
    pub(super) next: u64,
    pub(super) count: u64,
    pub(super) bytes: u64,
    pub(super) dropped: u64,
}

impl Shelf {
    pub(super) fn of(row: Option<(u64, u64, u64, u64)>) -> Shelf {
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
    /// How many messages were looked at.
    pub(super) looked: u64,
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
        let before = change.open()?;
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
        Ok(Change::new(txn, self.up_ms()))
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
            found.looked = looked + 1;
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
            lost: BTreeMap::new(),
            readers,
        })
    }
}

/// A reader of a shelf: his name, what he has acknowledged, of which subjects he reads.
pub(super) struct Reader(pub(super) String, pub(super) u64, pub(super) String);

pub(super) fn readers(
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::change::Lost;
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
        let (seq, lost) = change(store, |change| change.put(keep, &entry(subject, body)));
        assert_eq!(lost.old, 0);
        (seq, lost.crowded)
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
        assert_eq!((begin("old", false), begin("new", true)), (Ok(1), Ok(4)));
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
        assert_eq!(narrow, Ok(4), "he goes on where he was");
        assert_eq!(put(&store, &keep, "a.x", "8"), (8, 1), "5 was of y");
        assert_eq!(put(&store, &keep, "a.x", "9"), (9, 1), "and so was 6");
        assert_eq!(put(&store, &keep, "a.x", "10"), (10, 0), "7 was not");
    }

    #[test]
    fn one_user_leaves_places_of_a_stream_for_the_others() {
        let (_dir, store) = store();
        let keep = keep(Policy::Stream, 3);
        let all = Pattern::new("a.>").expect("a pattern");
        let begin = |reader: &str| {
            change(&store, |change| change.begin_reader((&keep, &all), reader, false))
        };
        let mut of_user = 0;
        while begin(&format!("1000:{of_user}")).is_ok() {
            of_user += 1;
        }
        assert_eq!(of_user, 32);
        assert_eq!(
            begin("1000:32").map_err(|full| full.to_string()),
            Err("user 1000 has 32 readers of this stream already, the most of one user".into())
        );
        assert!(begin("1000:5").is_ok(), "one who is known comes again");
        assert!(begin("1001:0").is_ok() && begin("indexer").is_ok(), "others find room");
        change(&store, |change| change.forget(&keep, "1000:5"));
        assert!(begin("1000:32").is_ok(), "who forgets one has room for another");
        let own = (0..999).take_while(|n| begin(&n.to_string()).is_ok()).count();
        assert_eq!(own, 256 - 34, "the node's own user has what is there");
        let full = begin("1001:1").expect_err("there is no more");
        assert_eq!(full.to_string(), "256 read this stream already, the most it takes");
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
        assert_eq!(change(&store, |change| change.age(&old)), Lost::default());
        store.before_ms += 61_000;
        assert_eq!(change(&store, |change| change.age(&old)), Lost { crowded: 0, old: 1 });
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
    }
}
