//! What a node keeps over a restart: the records of its core, in one redb file.
//!
//! Here are its tables and its transactions; who writes is in `writer`. A disk that is full is an
//! error of its own, after which the database is opened anew; what was committed is there, and
//! nothing else.
//!
//! Not here: what a row is and where it goes (`rows`), and what is made of them at a start
//! (`image`).

#[cfg(test)]
mod crash_tests;
mod image;
mod rows;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use content::{Database, Tape};
use mesh::{Digest, OrderId, Saved};
use protos::OrderBody;
use redb::{Durability, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition};
use redb::{TableHandle, WriteTransaction};

use self::image::Image;
use self::rows::forget;
pub(crate) use self::rows::keep;
use crate::daybook::{Daybook, Row};

const ORDERS: TableDefinition<[u8; 16], &[u8]> = TableDefinition::new("orders.v1");
const INTENTS: TableDefinition<[u8; 16], ()> = TableDefinition::new("intents.v1");
const ANSWERS: TableDefinition<([u8; 16], u64), &[u8]> = TableDefinition::new("answers.v1");
const SETTLED: TableDefinition<[u8; 16], ()> = TableDefinition::new("settled.v1");
const BELOW: TableDefinition<u32, &[u8]> = TableDefinition::new("below.v1");
const RELEASED: TableDefinition<([u8; 16], u64), &[u8]> = TableDefinition::new("released.v1");
const OWN_EVENTS: TableDefinition<[u8; 16], &[u8]> = TableDefinition::new("own_events.v1");
const EVENTS: TableDefinition<([u8; 16], u32), &[u8]> = TableDefinition::new("events.v1");
const INSTALLED: TableDefinition<&[u8], ([u8; 32], [u8; 16])> =
    TableDefinition::new("installed.v1");

/// The key that seals the daybook.
const DAYBOOK: TableDefinition<(), [u8; 32]> = TableDefinition::new("daybook.v1");
const TABLES: [&str; 10] = [
    "orders.v1",
    "intents.v1",
    "answers.v1",
    "settled.v1",
    "below.v1",
    "released.v1",
    "own_events.v1",
    "events.v1",
    "installed.v1",
    "daybook.v1",
];

/// The journal could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The database cannot be opened: another process has it, or it is damaged.
    #[error("{}: cannot be opened (does another node use this state folder?)", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<redb::DatabaseError>,
    },
    /// The writer has stopped without a word: a bug of ours.
    #[error("the node's database writer has stopped")]
    Stopped,
    /// The disk is full; nothing was written, and what was there before is.
    #[error("no space left on the state disk")]
    Full {
        /// What was said of it.
        source: Box<redb::Error>,
    },
    /// The disk has been full for so long that what waits for it fills its own limit.
    #[error("too much waits for space on the state disk")]
    Waiting,
    /// A read or a commit failed; what was not acknowledged is not there.
    #[error("the node's database failed")]
    Failed {
        /// Why.
        source: Box<redb::Error>,
    },
}

/// Any error of redb, by `?`.
impl<E: Into<redb::Error>> From<E> for JournalError {
    fn from(error: E) -> JournalError {
        let source = Box::new(error.into());
        match &*source {
            redb::Error::Io(error) if content::is_full(error) => JournalError::Full { source },
            // Somebody else's write has just found no room.
            redb::Error::PreviousIo | redb::Error::DatabaseClosed => JournalError::Full { source },
            _ => JournalError::Failed { source },
        }
    }
}

/// The node's database.
#[derive(Clone)]
pub struct Journal {
    database: Arc<Database>,
    daybook: Arc<Mutex<Option<Daybook>>>,
}

impl Journal {
    /// Opens or creates the database. `cache` bounds its memory, in bytes.
    pub fn open(path: &Path, cache: usize) -> Result<Journal, JournalError> {
        Journal::taped(path, cache, None)
    }

    fn taped(
        path: &Path,
        cache: usize,
        tape: Option<Arc<dyn Tape>>,
    ) -> Result<Journal, JournalError> {
        let database = Database::taped(path, cache, tape)
            .map_err(|source| JournalError::Open { path: path.into(), source: Box::new(source) })?;
        let journal = Journal { database: Arc::new(database), daybook: Arc::default() };
        if !journal.has_tables(&TABLES)? {
            let txn = journal.begin()?;
            txn.open_table(ORDERS)?;
            txn.open_table(INTENTS)?;
            txn.open_table(ANSWERS)?;
            txn.open_table(SETTLED)?;
            txn.open_table(BELOW)?;
            txn.open_table(RELEASED)?;
            txn.open_table(OWN_EVENTS)?;
            txn.open_table(EVENTS)?;
            txn.open_table(INSTALLED)?;
            {
                let mut keys = txn.open_table(DAYBOOK)?;
                let is_new = keys.get(())?.is_none();
                if is_new {
                    keys.insert((), certs::random())?;
                }
            }
            txn.commit()?;
        }
        Ok(journal)
    }

    /// The same with a daybook beside it, which is written first; for nodes that nobody watches.
    pub fn with_daybook(path: &Path, cache: usize) -> Result<Journal, JournalError> {
        Journal::with_daybook_taped(path, cache, None)
    }

    fn with_daybook_taped(
        path: &Path,
        cache: usize,
        tape: Option<Arc<dyn Tape>>,
    ) -> Result<Journal, JournalError> {
        let journal = Journal::taped(path, cache, tape.clone())?;
        let key = journal.read()?.open_table(DAYBOOK)?.get(())?.map(|key| key.value());
        let opened = key.map(|key| Daybook::open(&path.with_file_name("daybook"), key, tape));
        let daybook = match opened {
            Some(Err(error)) if content::is_full(&error) => None,
            Some(opened) => Some(opened?),
            None => None,
        };
        *journal.daybook() = daybook;
        Ok(journal)
    }

    /// Whether all of these tables are there, so that none need be made: a node must be able to
    /// start while its disk is full.
    pub fn has_tables(&self, names: &[&str]) -> Result<bool, JournalError> {
        let found: BTreeSet<String> =
            self.read()?.list_tables()?.map(|table| table.name().to_string()).collect();
        Ok(names.iter().all(|name| found.contains(*name)))
    }

    /// Begins to read, for tables beside the core's too.
    pub fn read(&self) -> Result<ReadTransaction, JournalError> {
        Ok(self.database.current().map_err(|error| self.unless_full(error))?.begin_read()?)
    }

    /// Begins a transaction that is durable when it is committed.
    pub fn begin(&self) -> Result<WriteTransaction, JournalError> {
        let database = self.database.current().map_err(|error| self.unless_full(error))?;
        let mut txn = database.begin_write()?;
        txn.set_durability(Durability::Immediate)
            .map_err(|source| JournalError::Failed { source: Box::new(source.into()) })?;
        txn.set_two_phase_commit(true);
        Ok(txn)
    }

    /// Whether writing can be tried again after this error.
    pub(crate) fn may_try_again(&self, error: &JournalError) -> bool {
        matches!(error, JournalError::Full { .. }) && !self.database.is_broken()
    }

    fn unless_full(&self, error: redb::DatabaseError) -> JournalError {
        match self.database.is_full() {
            true => JournalError::Full { source: Box::new(error.into()) },
            false => error.into(),
        }
    }

    /// Copies the database as it is at one moment, in which `also` is done as well. Whoever wants
    /// to write waits. Not with a daybook, of which the copy has nothing.
    pub fn copy<T>(&self, to: &Path, also: impl FnOnce() -> T) -> Result<T, JournalError> {
        Ok(self.database.copy(to, also)?)
    }

    /// Keeps an order's envelope in a transaction of the caller's, before the core is given it: a
    /// node that starts anew then knows it.
    pub fn keep_order(
        txn: &WriteTransaction,
        id: OrderId,
        envelope: &[u8],
    ) -> Result<(), JournalError> {
        txn.open_table(ORDERS)?.insert(id.0, envelope)?;
        Ok(())
    }

    /// What the core knew before. Drops what has expired meanwhile.
    ///
    /// The clock of a node that starts may be anything. An order, and with it the memory that it
    /// was begun here, goes only if the controller's clock has passed its end as well, which the
    /// ids of younger orders show. Otherwise it is remembered for as long as it can still be valid
    /// anywhere, counted from now on.
    pub fn load(&self, now: SystemTime) -> Result<Saved, JournalError> {
        let (saved, gone) = self.image()?.saved(now);
        if !gone.is_empty() {
            let dropped = self.begin().and_then(|txn| {
                gone.iter().try_for_each(|id| forget(&txn, *id))?;
                Ok(txn.commit()?)
            });
            match dropped {
                // They are dropped at another start.
                Err(JournalError::Full { .. }) => {}
                dropped => dropped?,
            }
        }
        Ok(saved)
    }

    /// The tables, and on top of them the daybook.
    fn image(&self) -> Result<Image, JournalError> {
        let (txn, rows) = self.snapshot()?;
        let mut image = Image::read(&txn)?;
        rows.into_iter().for_each(|row| image.apply(row));
        Ok(image)
    }

    /// The tables, and the rows of the daybook, as they are at one moment: no row moves from the
    /// one to the other in between. The tables can be read without keeping anybody from writing.
    fn snapshot(&self) -> Result<(ReadTransaction, Vec<Row>), JournalError> {
        let daybook = self.daybook();
        let rows = daybook.as_ref().map(Daybook::rows).transpose()?;
        Ok((self.read()?, rows.unwrap_or_default()))
    }

    /// Makes rows durable: in the daybook, if there is one and they fit, else in the tables.
    pub(crate) fn save(&self, rows: &[Row]) -> Result<(), JournalError> {
        let mut daybook = self.daybook();
        if let Some(daybook) = daybook.as_mut()
            && daybook.append(rows).map_err(|error| self.daybook_failed(error))?
        {
            return Ok(());
        }
        self.to_tables(&mut daybook, |txn| rows.iter().try_for_each(|row| keep(txn, row)))
    }

    /// Makes durable what is written into a transaction of the tables. What the daybook has is
    /// older, and moves there before it.
    pub(crate) fn save_with(
        &self,
        write: impl FnOnce(&WriteTransaction) -> Result<(), JournalError>,
    ) -> Result<(), JournalError> {
        self.to_tables(&mut self.daybook(), write)
    }

    fn to_tables(
        &self,
        daybook: &mut Option<Daybook>,
        write: impl FnOnce(&WriteTransaction) -> Result<(), JournalError>,
    ) -> Result<(), JournalError> {
        let txn = self.begin()?;
        let key = certs::random();
        if let Some(daybook) = daybook.as_ref() {
            daybook.rows()?.iter().try_for_each(|row| keep(&txn, row))?;
            txn.open_table(DAYBOOK)?.insert((), key)?;
        }
        write(&txn)?;
        txn.commit()?;
        if let Some(daybook) = daybook.as_mut() {
            daybook.empty(key);
        }
        Ok(())
    }

    /// After a failed sync nobody knows what is on disk, so what is written is no longer used.
    fn daybook_failed(&self, error: std::io::Error) -> JournalError {
        match content::is_full(&error) {
            true => JournalError::Full { source: Box::new(error.into()) },
            false => JournalError::Failed { source: Box::new(error.into()) },
        }
    }

    fn daybook(&self) -> MutexGuard<'_, Option<Daybook>> {
        self.daybook.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The manifest that was last installed at a destination, and the order that did it.
    pub fn installed(&self, dest: &[u8]) -> Result<Option<(Digest, OrderId)>, JournalError> {
        let table = self.read()?.open_table(INSTALLED)?;
        let row = table.get(dest)?.map(|row| row.value());
        Ok(row.map(|(root, order)| (Digest(root), OrderId(order))))
    }

    /// The content that orders which are still valid name.
    pub(crate) fn needed(&self) -> Result<BTreeSet<Digest>, JournalError> {
        let mut needed = BTreeSet::new();
        let (txn, rows) = self.snapshot()?;
        let mut image = Image::of_orders(&txn)?;
        rows.into_iter().for_each(|row| image.apply(row));
        for envelope in image.orders.into_values() {
            if let Ok(body) = OrderBody::of_envelope(envelope) {
                needed.extend(body.needs.iter().flat_map(|need| need.content.iter().copied()));
            }
        }
        Ok(needed)
    }

    /// An order that is remembered; not one that is still in the daybook alone.
    pub fn order(&self, id: OrderId) -> Result<Option<OrderBody>, JournalError> {
        let envelope = self.read()?.open_table(ORDERS)?.get(id.0)?;
        let envelope = envelope.map(|row| Bytes::copy_from_slice(row.value()));
        Ok(envelope.and_then(|envelope| OrderBody::of_envelope(envelope).ok()))
    }

    /// The orders that are remembered.
    pub fn orders(&self) -> Result<Vec<OrderBody>, JournalError> {
        let mut orders = Vec::new();
        for row in self.read()?.open_table(ORDERS)?.iter()? {
            let envelope = Bytes::copy_from_slice(row?.1.value());
            orders.extend(OrderBody::of_envelope(envelope).ok());
        }
        Ok(orders)
    }

    /// The orders that are remembered, each with whether the parent holds every answer to it.
    pub(crate) fn settled_orders(&self) -> Result<Vec<(OrderBody, bool)>, JournalError> {
        Ok(self.image()?.bodies().collect())
    }

    /// The manifests that are installed anywhere.
    pub fn all_installed(&self) -> Result<BTreeSet<Digest>, JournalError> {
        let table = self.read()?.open_table(INSTALLED)?;
        let roots = table.iter()?.map(|row| Ok(Digest(row?.1.value().0)));
        roots.collect::<Result<_, JournalError>>()
    }

    /// All that stands there of what is installed, with the keys.
    pub(crate) fn installed_rows(&self) -> Result<Vec<(Vec<u8>, Digest, OrderId)>, JournalError> {
        let table = self.read()?.open_table(INSTALLED)?;
        let mut rows = Vec::new();
        for row in table.iter()? {
            let (key, value) = row?;
            let (root, order) = value.value();
            rows.push((key.value().to_vec(), Digest(root), OrderId(order)));
        }
        Ok(rows)
    }

    /// Notes which manifest is installed at a destination now.
    pub fn set_installed(
        &self,
        dest: &[u8],
        manifest: Digest,
        order: OrderId,
    ) -> Result<(), JournalError> {
        self.set_all_installed(&[(dest, Some(manifest))], order)
    }

    /// Notes several such rows at once; where there is nothing any more, the row goes.
    pub(crate) fn set_all_installed(
        &self,
        rows: &[(&[u8], Option<Digest>)],
        order: OrderId,
    ) -> Result<(), JournalError> {
        let txn = self.begin()?;
        {
            let mut table = txn.open_table(INSTALLED)?;
            for (dest, manifest) in rows {
                match manifest {
                    Some(manifest) => table.insert(*dest, (manifest.0, order.0))?,
                    None => table.remove(*dest)?,
                };
            }
        }
        txn.commit()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use mesh::{HostId, Record, Report};
    use protos::{Envelope, ORDER_KIND, Run, Work};
    use redb::ReadableTableMetadata;

    use super::*;

    const NOW: Duration = Duration::from_secs(1_800_000_000);
    const MINUTE: Duration = Duration::from_secs(60);

    /// An order given at this time, valid for ten minutes.
    fn order_of(born: Duration) -> mesh::Order {
        let born_ms = u64::try_from(born.as_millis()).expect("it fits");
        let mut id = [7; 16];
        id[..6].copy_from_slice(&born_ms.to_be_bytes()[2..]);
        let body = OrderBody {
            reach: MINUTE,
            hold: MINUTE,
            issued_by: "operator".into(),
            ..OrderBody::new(
                [0; 16],
                OrderId(id),
                mesh::HostSet::one(HostId(1)),
                born_ms..=born_ms + 600_000,
                Work::Run(Run::new(["true"], MINUTE)),
            )
        };
        let envelope = Envelope {
            kind: ORDER_KIND.into(),
            signature: [0; 64],
            key: Bytes::from_static(b"a key"),
            body: body.encode().into(),
        };
        body.to_mesh(envelope.encode(), MINUTE)
    }

    /// What is known of an order that was begun, and of a later one, by a clock.
    fn load(begun: Duration, later: Option<Duration>, clock: Duration) -> (Journal, Saved) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let journal = Journal::open(&dir.path().join("node.redb"), 1 << 20).expect("it is made");
        let txn = journal.begin().expect("it begins");
        let begun = Arc::new(order_of(begun));
        keep(&txn, &Row::of(&Record::Order(begun.clone()))).expect("kept");
        keep(&txn, &Row::of(&Record::Intent(begun.id))).expect("kept");
        if let Some(later) = later {
            let later = Arc::new(order_of(later));
            keep(&txn, &Row::of(&Record::Order(later))).expect("kept");
        }
        txn.commit().expect("committed");
        let saved = journal.load(UNIX_EPOCH + clock).expect("it is read");
        (journal, saved)
    }

    #[test]
    fn a_clock_far_ahead_forgets_nothing_that_may_still_be_valid() {
        let year = 365 * 24 * 60 * MINUTE;
        let (journal, saved) = load(NOW, Some(NOW + MINUTE), NOW + year);
        assert_eq!((saved.orders.len(), saved.intents.len()), (2, 1));
        // It is remembered for as long as it could be valid, in time that passes here.
        assert!(saved.orders.iter().all(|order| order.ttl == 10 * MINUTE));
        let again = journal.load(UNIX_EPOCH + NOW + MINUTE).expect("it is read");
        assert_eq!((again.orders.len(), again.intents.len()), (2, 1));
        assert_eq!(again.orders[0].ttl, 9 * MINUTE);
    }

    #[test]
    fn what_the_controller_too_knows_to_be_over_is_forgotten() {
        let (journal, saved) = load(NOW, Some(NOW + 11 * MINUTE), NOW + 12 * MINUTE);
        assert_eq!((saved.orders.len(), saved.intents.len()), (1, 0));
        assert_eq!(journal.load(UNIX_EPOCH).expect("it is read").orders.len(), 1, "for good");
    }

    #[test]
    fn a_controller_that_was_ahead_alone_makes_nobody_forget() {
        let (_, saved) = load(NOW, Some(NOW + 60 * MINUTE), NOW + MINUTE);
        assert_eq!((saved.orders.len(), saved.intents.len()), (2, 1));
    }

    #[test]
    fn a_clock_at_its_beginning_remembers_no_longer_than_need_be() {
        let (_, saved) = load(NOW, None, Duration::ZERO);
        assert_eq!(saved.orders[0].ttl, 10 * MINUTE);
    }

    #[test]
    fn bodies_that_need_not_be_kept_leave_their_answers() {
        for daybook in [true, false] {
            let dir = tempfile::tempdir().expect("a temporary folder");
            let path = dir.path().join("node.redb");
            let open = || match daybook {
                true => Journal::with_daybook(&path, 1 << 20).expect("it is opened"),
                false => Journal::open(&path, 1 << 20).expect("it is opened"),
            };
            let journal = open();
            let order = order_of(NOW);
            let mut report = Report::new(order.id);
            let body = Bytes::from_static(b"what it has written");
            let outcome = mesh::Outcome { state: mesh::State::Ok, body: Some(crate::hash(&body)) };
            report.tally.record(outcome, &mesh::HostSet::one(HostId(1)));
            report.bodies.insert(crate::hash(&body), body);
            let (id, order) = (order.id, Record::Order(Arc::new(order)));
            let records = [order, Record::Answers(report), Record::Settled(id)];
            let rows: Vec<_> = records.iter().map(Row::of).collect();
            journal.save(&rows).expect("kept");
            journal.save(&[Row::of(&Record::Trimmed(id))]).expect("kept");
            drop(journal);
            let saved = open().load(UNIX_EPOCH + NOW).expect("read");
            let [report] = saved.answers.as_slice() else { panic!("{saved:?}") };
            assert_eq!((report.bodies.len(), report.tally.hosts().len()), (0, 1));
            assert_eq!(saved.settled, [id], "the parent has not lost anything");
        }
    }

    #[test]
    fn the_daybook_and_the_tables_are_one_journal() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("node.redb");
        let open = || Journal::with_daybook(&path, 1 << 20).expect("it is opened");
        let load = |journal: &Journal| journal.load(UNIX_EPOCH + NOW + MINUTE).expect("it is read");
        let save = |journal: &Journal, records: &[Record]| {
            let rows: Vec<_> = records.iter().map(Row::of).collect();
            journal.save(&rows).expect("it is kept");
        };
        let orders: Vec<_> =
            (0..3).map(|n| Arc::new(order_of(NOW + Duration::from_secs(n)))).collect();
        let report = |n: usize| {
            let mut report = Report::new(orders[n].id);
            let outcome = mesh::Outcome::bare(mesh::State::Ok);
            report.tally.record(outcome, &mesh::HostSet::one(HostId(1)));
            report
        };
        let journal = open();
        for order in &orders {
            save(&journal, &[Record::Order(order.clone()), Record::Intent(order.id)]);
        }
        save(&journal, &[Record::Answers(report(0)), Record::Settled(orders[0].id)]);
        save(&journal, &[Record::Forget(orders[2].id)]);
        assert_eq!(journal.image().expect("read").orders.len(), 2, "the one that is over is gone");
        assert!(
            journal
                .read()
                .expect("read")
                .open_table(ORDERS)
                .expect("table")
                .is_empty()
                .expect("read")
        );
        drop(journal);
        let journal = open();
        let before = load(&journal);
        assert_eq!((before.orders.len(), before.intents.len()), (2, 2));
        assert_eq!((before.answers.len(), before.settled.len()), (1, 1));
        // It fills, and everything moves; what comes later is in the daybook again.
        let below = mesh::HostSet::from_ranges((0..2_000).map(|n| (3 * n, 3 * n)));
        for _ in 0..80 {
            save(&journal, &[Record::Below { child: HostId(7), below: below.clone() }]);
        }
        assert_eq!(
            journal.read().expect("read").open_table(ORDERS).expect("table").len().expect("read"),
            2
        );
        save(&journal, &[Record::Answers(report(1))]);
        drop(journal);
        let after = load(&open());
        assert_eq!((&after.orders, &after.intents), (&before.orders, &before.intents));
        assert_eq!((after.answers.len(), after.settled.len()), (2, 1));
        assert_eq!(after.below, [(HostId(7), below)]);
    }
}
