//! What a node keeps over a restart: the records of its core, in one redb file.
//!
//! One thread writes. It takes all that is queued, commits once, and only then says so, which is
//! what acknowledgements wait for. A failed commit ends the writer and with it the process: after
//! a failed fsync nobody knows what is on disk, so the only sound step is to start again from it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use mesh::{Digest, Event, Frame, HostId, OrderId, Record, Report, Saved};
use protos::{Envelope, Incoming, OrderBody};
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use redb::{WriteTransaction, backends::FileBackend};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::hash;

const ORDERS: TableDefinition<[u8; 16], &[u8]> = TableDefinition::new("orders.v1");
const INTENTS: TableDefinition<[u8; 16], ()> = TableDefinition::new("intents.v1");
const ANSWERS: TableDefinition<([u8; 16], u64), &[u8]> = TableDefinition::new("answers.v1");
const SETTLED: TableDefinition<[u8; 16], ()> = TableDefinition::new("settled.v1");
const BELOW: TableDefinition<u32, &[u8]> = TableDefinition::new("below.v1");
const RELEASED: TableDefinition<([u8; 16], u64), &[u8]> = TableDefinition::new("released.v1");
const INSTALLED: TableDefinition<&[u8], ([u8; 32], [u8; 16])> =
    TableDefinition::new("installed.v1");

/// How long records that can wait do so.
const LAZY: Duration = Duration::from_millis(500);
/// How many drains of the core may wait for the writer.
const QUEUE: usize = 1_024;
/// How many entries one commit takes, about.
const BATCH: usize = 4_096;
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
        JournalError::Failed { source: Box::new(error.into()) }
    }
}

/// Somebody who writes into the same commits as the core's records: the controller's tables.
pub trait Witness: Send {
    /// An event that becomes durable with this transaction.
    fn note(&mut self, txn: &WriteTransaction, event: &Event) -> Result<(), JournalError>;
    /// What was noted since the last call is durable now.
    fn committed(&mut self);
}

/// A node that nobody watches.
pub struct NoWitness;

impl Witness for NoWitness {
    fn note(&mut self, _: &WriteTransaction, _: &Event) -> Result<(), JournalError> {
        Ok(())
    }
    fn committed(&mut self) {}
}

/// What the writer is asked to keep.
pub(crate) enum Entry {
    Save { no: u64, record: Record },
    Tell(Event),
}

impl Entry {
    /// Whether losing it in a crash costs no more than telling something twice.
    fn can_wait(&self) -> bool {
        matches!(self, Entry::Save { record: Record::Settled(_), .. })
    }
}

/// The node's database.
#[derive(Clone)]
pub struct Journal {
    db: Arc<Database>,
}

impl Journal {
    /// Opens or creates the database. `cache` bounds its memory, in bytes.
    pub fn open(path: &Path, cache: usize) -> Result<Journal, JournalError> {
        let open = || -> Result<Database, redb::DatabaseError> {
            let file = std::fs::OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(path)?;
            redb::Builder::new().set_cache_size(cache).create_with_backend(FileBackend::new(file)?)
        };
        let db = open()
            .map_err(|source| JournalError::Open { path: path.into(), source: Box::new(source) })?;
        let journal = Journal { db: Arc::new(db) };
        let txn = journal.begin()?;
        txn.open_table(ORDERS)?;
        txn.open_table(INTENTS)?;
        txn.open_table(ANSWERS)?;
        txn.open_table(SETTLED)?;
        txn.open_table(BELOW)?;
        txn.open_table(RELEASED)?;
        txn.open_table(INSTALLED)?;
        txn.commit()?;
        Ok(journal)
    }

    /// The database, for tables beside the core's.
    pub fn database(&self) -> &Arc<Database> {
        &self.db
    }

    /// Begins a transaction that is durable when it is committed.
    pub fn begin(&self) -> Result<WriteTransaction, JournalError> {
        let mut txn = self.db.begin_write()?;
        txn.set_durability(Durability::Immediate)
            .map_err(|source| JournalError::Failed { source: Box::new(source.into()) })?;
        txn.set_two_phase_commit(true);
        Ok(txn)
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
    pub fn load(&self, now: SystemTime) -> Result<Saved, JournalError> {
        let txn = self.begin()?;
        let mut saved = Saved::default();
        let mut gone = Vec::new();
        {
            let mut known = BTreeSet::new();
            for row in txn.open_table(ORDERS)?.iter()? {
                let (key, value) = row?;
                let id = OrderId(key.value());
                match order(Bytes::copy_from_slice(value.value()), now) {
                    Some(order) => {
                        known.insert(id);
                        saved.orders.push(Arc::new(order));
                    }
                    None => gone.push(id),
                }
            }
            for row in txn.open_table(ANSWERS)?.iter()? {
                let (key, value) = row?;
                let id = OrderId(key.value().0);
                let old = age(id, now) > ORPHAN_AGE && !known.contains(&id);
                match report(Bytes::copy_from_slice(value.value())) {
                    Some(report) if !old && !gone.contains(&id) => saved.answers.push(report),
                    _ => gone.push(id),
                }
            }
            for row in txn.open_table(INTENTS)?.iter()? {
                saved.intents.push(OrderId(row?.0.value()));
            }
            for row in txn.open_table(SETTLED)?.iter()? {
                saved.settled.push(OrderId(row?.0.value()));
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
        }
        for id in gone {
            forget(&txn, id)?;
        }
        txn.commit()?;
        Ok(saved)
    }

    /// The manifest that was last installed at a destination, and the order that did it.
    pub fn installed(&self, dest: &[u8]) -> Result<Option<(Digest, OrderId)>, JournalError> {
        let table = self.db.begin_read()?.open_table(INSTALLED)?;
        let row = table.get(dest)?.map(|row| row.value());
        Ok(row.map(|(root, order)| (Digest(root), OrderId(order))))
    }

    /// The content that orders which are still valid name.
    pub(crate) fn needed(&self) -> Result<BTreeSet<Digest>, JournalError> {
        let table = self.db.begin_read()?.open_table(ORDERS)?;
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
        let table = self.db.begin_read()?.open_table(INSTALLED)?;
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

    /// Starts the writer. It ends when the sender is dropped; then the last commit is done.
    pub(crate) fn spawn(&self, mut witness: Box<dyn Witness>) -> Writer {
        let (entries, mut queue) = mpsc::channel(QUEUE);
        let (progress, saved) = watch::channel(Progress { through: 0, failed: None });
        let (journal, timer) = (self.clone(), Handle::current());
        let thread = std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || {
                let mut batch = Vec::new();
                while gather(&mut queue, &mut batch, &timer) {
                    match journal.commit(&mut batch, witness.as_mut()) {
                        Ok(through) => {
                            witness.committed();
                            progress.send_modify(|p| p.through = p.through.max(through));
                        }
                        Err(error) => {
                            let failed = Some(Arc::new(error));
                            progress.send_modify(|p| p.failed = failed.clone());
                            return;
                        }
                    }
                }
            })
            .expect("the system can start a thread");
        Writer { entries, saved, thread }
    }

    fn commit(
        &self,
        batch: &mut Vec<Entry>,
        witness: &mut dyn Witness,
    ) -> Result<u64, JournalError> {
        let mut through = 0;
        let txn = self.begin()?;
        for entry in batch.drain(..) {
            match entry {
                Entry::Save { no, record } => {
                    through = no;
                    keep(&txn, record)?;
                }
                Entry::Tell(event) => witness.note(&txn, &event)?,
            }
        }
        txn.commit()?;
        Ok(through)
    }
}

/// Takes what is queued. Records that nothing waits for and that are cheap to lose wait for others
/// to share a commit with, for a short while. `false`: nothing more will come.
fn gather(queue: &mut mpsc::Receiver<Vec<Entry>>, batch: &mut Vec<Entry>, timer: &Handle) -> bool {
    match queue.blocking_recv() {
        Some(entries) => batch.extend(entries),
        None => return false,
    }
    let until = Instant::now() + LAZY;
    while batch.len() < BATCH && batch.iter().all(Entry::can_wait) {
        let left = until.saturating_duration_since(Instant::now());
        match timer.block_on(async { timeout(left, queue.recv()).await }) {
            Ok(Some(entries)) => batch.extend(entries),
            Ok(None) | Err(_) => break,
        }
    }
    while batch.len() < BATCH
        && let Ok(entries) = queue.try_recv()
    {
        batch.extend(entries);
    }
    true
}

/// The writing thread of a journal.
pub(crate) struct Writer {
    pub(crate) entries: mpsc::Sender<Vec<Entry>>,
    pub(crate) saved: watch::Receiver<Progress>,
    pub(crate) thread: std::thread::JoinHandle<()>,
}

/// How far the writer has come.
#[derive(Clone)]
pub(crate) struct Progress {
    pub(crate) through: u64,
    pub(crate) failed: Option<Arc<JournalError>>,
}

fn keep(txn: &WriteTransaction, record: Record) -> Result<(), JournalError> {
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
            let frame = protos::encode_frame(&Frame::Report { log: 0, seq: 0, report });
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
        Record::Forget(id) => forget(txn, id)?,
    }
    Ok(())
}

/// The bytes of a host set.
fn set(hosts: mesh::HostSet) -> Bytes {
    protos::encode_frame(&Frame::Below { below: hosts, up: mesh::HostSet::new() })
}

fn forget(txn: &WriteTransaction, id: OrderId) -> Result<(), JournalError> {
    txn.open_table(RELEASED)?.retain_in((id.0, 0)..=(id.0, u64::MAX), |_, _| false)?;
    txn.open_table(ORDERS)?.remove(id.0)?;
    txn.open_table(INTENTS)?.remove(id.0)?;
    txn.open_table(SETTLED)?.remove(id.0)?;
    txn.open_table(ANSWERS)?.retain_in((id.0, 0)..=(id.0, u64::MAX), |_, _| false)?;
    Ok(())
}

/// An order from its envelope, unless it has expired.
fn order(envelope: Bytes, now: SystemTime) -> Option<mesh::Order> {
    let body = OrderBody::decode(&Envelope::decode(envelope.clone()).ok()?.body).ok()?;
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let left = u128::from(body.not_after_ms).checked_sub(now)?;
    Some(body.to_mesh(envelope, Duration::from_millis(u64::try_from(left).ok()?)))
}

fn report(frame: Bytes) -> Option<Report> {
    match protos::decode_frame(frame, hash) {
        Ok(Incoming::Frame(Frame::Report { report, .. })) => Some(report),
        _ => None,
    }
}

fn below(frame: Bytes) -> Option<mesh::HostSet> {
    match protos::decode_frame(frame, hash) {
        Ok(Incoming::Frame(Frame::Below { below, .. })) => Some(below),
        _ => None,
    }
}

/// How long ago an order was made: its id begins with the milliseconds of its birth (UUIDv7).
fn age(id: OrderId, now: SystemTime) -> Duration {
    let millis = id.0[..6].iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
    now.duration_since(UNIX_EPOCH + Duration::from_millis(millis)).unwrap_or_default()
}
