//! What a node keeps over a restart: the records of its core, in one redb file.
//!
//! Here are its tables and how they are read and written; who writes is in `writer`. A disk that is
//! full is an error of its own, after which the database is opened anew; what was committed is
//! there, and nothing else.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use content::Database;
use mesh::{Digest, Frame, HostId, OrderId, Record, Report, Saved, Subtree};
use protos::{Envelope, Incoming, OrderBody};
use redb::{Durability, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition};
use redb::{TableHandle, WriteTransaction};

use crate::hash;

const ORDERS: TableDefinition<[u8; 16], &[u8]> = TableDefinition::new("orders.v1");
const INTENTS: TableDefinition<[u8; 16], ()> = TableDefinition::new("intents.v1");
const ANSWERS: TableDefinition<([u8; 16], u64), &[u8]> = TableDefinition::new("answers.v1");
const SETTLED: TableDefinition<[u8; 16], ()> = TableDefinition::new("settled.v1");
const BELOW: TableDefinition<u32, &[u8]> = TableDefinition::new("below.v1");
const RELEASED: TableDefinition<([u8; 16], u64), &[u8]> = TableDefinition::new("released.v1");
const INSTALLED: TableDefinition<&[u8], ([u8; 32], [u8; 16])> =
    TableDefinition::new("installed.v1");

const TABLES: [&str; 7] = [
    "orders.v1",
    "intents.v1",
    "answers.v1",
    "settled.v1",
    "below.v1",
    "released.v1",
    "installed.v1",
];
/// How long answers to orders that this node was never given are kept.
const ORPHAN_AGE: Duration = Duration::from_secs(24 * 3600);

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
}

impl Journal {
    /// Opens or creates the database. `cache` bounds its memory, in bytes.
    pub fn open(path: &Path, cache: usize) -> Result<Journal, JournalError> {
        let database = Database::open(path, cache)
            .map_err(|source| JournalError::Open { path: path.into(), source: Box::new(source) })?;
        let journal = Journal { database: Arc::new(database) };
        if !journal.has_tables(&TABLES)? {
            let txn = journal.begin()?;
            txn.open_table(ORDERS)?;
            txn.open_table(INTENTS)?;
            txn.open_table(ANSWERS)?;
            txn.open_table(SETTLED)?;
            txn.open_table(BELOW)?;
            txn.open_table(RELEASED)?;
            txn.open_table(INSTALLED)?;
            txn.commit()?;
        }
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
        let (saved, gone) = self.read_all(now)?;
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

    fn read_all(&self, now: SystemTime) -> Result<(Saved, BTreeSet<OrderId>), JournalError> {
        let txn = self.read()?;
        let (mut saved, mut gone) = (Saved::default(), BTreeSet::new());
        let orders = txn.open_table(ORDERS)?;
        // Ids sort by time.
        let newest = orders.last()?.map_or(UNIX_EPOCH, |(id, _)| born(OrderId(id.value())));
        let mut known = BTreeSet::new();
        for row in orders.iter()? {
            let (key, value) = row?;
            let id = OrderId(key.value());
            match order(Bytes::copy_from_slice(value.value()), now, newest) {
                Some(order) => {
                    known.insert(id);
                    saved.orders.push(Arc::new(order));
                }
                None => drop(gone.insert(id)),
            }
        }
        for row in txn.open_table(ANSWERS)?.iter()? {
            let (key, value) = row?;
            let id = OrderId(key.value().0);
            let old = |now| age(id, now) > ORPHAN_AGE;
            let old = old(now) && old(newest) && !known.contains(&id);
            match report(Bytes::copy_from_slice(value.value())) {
                Some(report) if !old && !gone.contains(&id) => saved.answers.push(report),
                _ => drop(gone.insert(id)),
            }
        }
        for row in txn.open_table(INTENTS)?.iter()? {
            let id = OrderId(row?.0.value());
            saved.intents.extend((!gone.contains(&id)).then_some(id));
        }
        for row in txn.open_table(SETTLED)?.iter()? {
            let id = OrderId(row?.0.value());
            saved.settled.extend((!gone.contains(&id)).then_some(id));
        }
        for row in txn.open_table(RELEASED)?.iter()? {
            let (key, value) = row?;
            if let Some(hosts) = below(Bytes::copy_from_slice(value.value())) {
                saved.released.push((OrderId(key.value().0), hosts));
            }
        }
        for row in txn.open_table(BELOW)?.iter()? {
            let (key, value) = row?;
            if let Some(below) = below(Bytes::copy_from_slice(value.value())) {
                saved.below.push((HostId(key.value()), below));
            }
        }
        Ok((saved, gone))
    }

    /// The manifest that was last installed at a destination, and the order that did it.
    pub fn installed(&self, dest: &[u8]) -> Result<Option<(Digest, OrderId)>, JournalError> {
        let table = self.read()?.open_table(INSTALLED)?;
        let row = table.get(dest)?.map(|row| row.value());
        Ok(row.map(|(root, order)| (Digest(root), OrderId(order))))
    }

    /// The content that orders which are still valid name.
    pub(crate) fn needed(&self) -> Result<BTreeSet<Digest>, JournalError> {
        let table = self.read()?.open_table(ORDERS)?;
        let mut needed = BTreeSet::new();
        for row in table.iter()? {
            let envelope = Bytes::copy_from_slice(row?.1.value());
            let body = Envelope::decode(envelope).ok().map(|e| OrderBody::decode(&e.body));
            if let Some(Ok(body)) = body {
                needed.extend(body.needs.iter().flat_map(|need| need.content.iter().copied()));
            }
        }
        Ok(needed)
    }

    /// The manifests that are installed anywhere.
    pub fn all_installed(&self) -> Result<BTreeSet<Digest>, JournalError> {
        let table = self.read()?.open_table(INSTALLED)?;
        let roots = table.iter()?.map(|row| Ok(Digest(row?.1.value().0)));
        roots.collect::<Result<_, JournalError>>()
    }

    /// Notes which manifest is installed at a destination now.
    pub fn set_installed(
        &self,
        dest: &[u8],
        manifest: Digest,
        order: OrderId,
    ) -> Result<(), JournalError> {
        let txn = self.begin()?;
        txn.open_table(INSTALLED)?.insert(dest, (manifest.0, order.0))?;
        txn.commit()?;
        Ok(())
    }
}

/// Writes a record of the core into a transaction.
pub(crate) fn keep(txn: &WriteTransaction, record: &Record) -> Result<(), JournalError> {
    match record {
        Record::Order(order) => {
            txn.open_table(ORDERS)?.insert(order.id.0, order.body.as_ref())?;
        }
        Record::Intent(id) => {
            txn.open_table(INTENTS)?.insert(id.0, ())?;
        }
        Record::Answers(report) => {
            // There is something to tell again.
            txn.open_table(SETTLED)?.remove(report.order.0)?;
            let mut table = txn.open_table(ANSWERS)?;
            let id = report.order.0;
            let last = table.range((id, 0)..=(id, u64::MAX))?.next_back().transpose()?;
            let next = last.map_or(0, |(key, _)| key.value().1 + 1);
            let frame = Frame::Report { log: 0, seq: 0, report: report.clone() };
            let frame = protos::encode_frame(&frame);
            table.insert((id, next), frame.as_ref())?;
        }
        Record::Settled(id) => {
            txn.open_table(SETTLED)?.insert(id.0, ())?;
        }
        Record::Below { child, below } => {
            txn.open_table(BELOW)?.insert(child.0, set(below).as_ref())?;
        }
        Record::Released { order, hosts } => {
            let mut table = txn.open_table(RELEASED)?;
            let last = table.range((order.0, 0)..=(order.0, u64::MAX))?.next_back().transpose()?;
            let next = last.map_or(0, |(key, _)| key.value().1 + 1);
            table.insert((order.0, next), set(hosts).as_ref())?;
        }
        Record::Forget(id) => forget(txn, *id)?,
    }
    Ok(())
}

/// The bytes of a host set.
fn set(hosts: &mesh::HostSet) -> Bytes {
    protos::encode_frame(&Frame::Below(Subtree { below: hosts.clone(), ..Subtree::default() }))
}

fn forget(txn: &WriteTransaction, id: OrderId) -> Result<(), JournalError> {
    txn.open_table(RELEASED)?.retain_in((id.0, 0)..=(id.0, u64::MAX), |_, _| false)?;
    txn.open_table(ORDERS)?.remove(id.0)?;
    txn.open_table(INTENTS)?.remove(id.0)?;
    txn.open_table(SETTLED)?.remove(id.0)?;
    txn.open_table(ANSWERS)?.retain_in((id.0, 0)..=(id.0, u64::MAX), |_, _| false)?;
    Ok(())
}

/// An order from its envelope, unless it has expired by this clock and also by that of the
/// controller, which has given an order as late as `newest`.
fn order(envelope: Bytes, now: SystemTime, newest: SystemTime) -> Option<mesh::Order> {
    let body = OrderBody::decode(&Envelope::decode(envelope.clone()).ok()?.body).ok()?;
    let end = UNIX_EPOCH + Duration::from_millis(body.not_after_ms);
    let longest = Duration::from_millis(body.not_after_ms.saturating_sub(body.not_before_ms));
    let ttl = match end.duration_since(now) {
        // A clock that is far behind says too much.
        Ok(left) => left.min(longest),
        Err(_) if end < newest => return None,
        Err(_) => longest,
    };
    Some(body.to_mesh(envelope, ttl))
}

fn report(frame: Bytes) -> Option<Report> {
    match protos::decode_frame(frame, hash) {
        Ok(Incoming::Frame(Frame::Report { report, .. })) => Some(report),
        _ => None,
    }
}

fn below(frame: Bytes) -> Option<mesh::HostSet> {
    match protos::decode_frame(frame, hash) {
        Ok(Incoming::Frame(Frame::Below(subtree))) => Some(subtree.below),
        _ => None,
    }
}

/// When an order was made, by the controller's clock: its id begins with the milliseconds of its
/// birth (UUIDv7).
fn born(id: OrderId) -> SystemTime {
    let millis = id.0[..6].iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
    UNIX_EPOCH + Duration::from_millis(millis)
}

fn age(id: OrderId, now: SystemTime) -> Duration {
    now.duration_since(born(id)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use protos::{ORDER_KIND, Run, Work};

    use super::*;

    const NOW: Duration = Duration::from_secs(1_800_000_000);
    const MINUTE: Duration = Duration::from_secs(60);

    /// An order given at this time, valid for ten minutes.
    fn order_of(born: Duration) -> mesh::Order {
        let born_ms = u64::try_from(born.as_millis()).expect("it fits");
        let mut id = [7; 16];
        id[..6].copy_from_slice(&born_ms.to_be_bytes()[2..]);
        let body = OrderBody {
            mesh: [0; 16],
            id: OrderId(id),
            targets: mesh::HostSet::one(HostId(1)),
            not_before_ms: born_ms,
            not_after_ms: born_ms + 600_000,
            reach: MINUTE,
            hold: MINUTE,
            issued_by: "operator".into(),
            needs: Vec::new(),
            work: Work::Run(Run {
                argv: vec!["true".into()],
                shell: false,
                user: String::new(),
                dir: Bytes::new(),
                env: Vec::new(),
                timeout: MINUTE,
                output_limit: 0,
                stdin: Vec::new(),
                files: Vec::new(),
                umask: None,
            }),
            gate: None,
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
        keep(&txn, &Record::Order(begun.clone())).expect("kept");
        keep(&txn, &Record::Intent(begun.id)).expect("kept");
        if let Some(later) = later {
            keep(&txn, &Record::Order(Arc::new(order_of(later)))).expect("kept");
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
}
