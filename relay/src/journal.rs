//! What a node keeps over a restart: the records of its core, in one redb file.
//!
//! Here are its tables and how they are read and written; who writes is in `writer`. A disk that is
//! full is an error of its own, after which the database is opened anew; what was committed is
//! there, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use content::Database;
use mesh::{Digest, Folded, Frame, HostId, OrderId, Record, Report, Saved, Subtree};
use protos::{Envelope, Incoming, OrderBody};
use redb::{Durability, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition};
use redb::{TableHandle, WriteTransaction};

use crate::daybook::{Daybook, Row};
use crate::hash;

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
    daybook: Arc<Mutex<Option<Daybook>>>,
}

impl Journal {
    /// Opens or creates the database. `cache` bounds its memory, in bytes.
    pub fn open(path: &Path, cache: usize) -> Result<Journal, JournalError> {
        let database = Database::open(path, cache)
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
        let journal = Journal::open(path, cache)?;
        let key = journal.read()?.open_table(DAYBOOK)?.get(())?.map(|key| key.value());
        let opened = key.map(|key| Daybook::open(&path.with_file_name("daybook"), key));
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
        // Held all along, so that no row moves from the one to the other meanwhile.
        let daybook = self.daybook();
        let (txn, mut image) = (self.read()?, Image::default());
        let bytes = Bytes::copy_from_slice;
        for row in txn.open_table(ORDERS)?.iter()? {
            let (key, value) = row?;
            image.orders.insert(OrderId(key.value()), bytes(value.value()));
        }
        for row in txn.open_table(ANSWERS)?.iter()? {
            let (key, value) = row?;
            let answers = image.answers.entry(OrderId(key.value().0)).or_default();
            answers.push(bytes(value.value()));
        }
        for row in txn.open_table(INTENTS)?.iter()? {
            image.intents.insert(OrderId(row?.0.value()));
        }
        for row in txn.open_table(SETTLED)?.iter()? {
            image.settled.insert(OrderId(row?.0.value()));
        }
        for row in txn.open_table(BELOW)?.iter()? {
            let (key, value) = row?;
            image.below.insert(key.value(), bytes(value.value()));
        }
        for row in txn.open_table(RELEASED)?.iter()? {
            let (key, value) = row?;
            let released = image.released.entry(OrderId(key.value().0)).or_default();
            released.push(bytes(value.value()));
        }
        for row in txn.open_table(OWN_EVENTS)?.iter()? {
            let (key, value) = row?;
            image.own_events.insert(key.value(), bytes(value.value()));
        }
        for row in txn.open_table(EVENTS)?.iter()? {
            let (key, value) = row?;
            image.events.insert(key.value(), bytes(value.value()));
        }
        if let Some(daybook) = daybook.as_ref() {
            daybook.rows()?.into_iter().for_each(|row| image.apply(row));
        }
        Ok(image)
    }

    /// Makes rows durable: in the daybook, if there is one and they fit, else in the tables.
    pub(crate) fn save(&self, rows: &[Row]) -> Result<(), JournalError> {
        let mut daybook = self.daybook();
        if let Some(daybook) = daybook.as_mut()
            && daybook.append(rows).map_err(|error| self.daybook_failed(error))?
        {
            return Ok(());
        }
        let txn = self.begin()?;
        let key = certs::random();
        if let Some(daybook) = daybook.as_ref() {
            daybook.rows()?.iter().try_for_each(|row| keep(&txn, row))?;
            txn.open_table(DAYBOOK)?.insert((), key)?;
        }
        rows.iter().try_for_each(|row| keep(&txn, row))?;
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
        for envelope in self.image()?.orders.into_values() {
            let body = Envelope::decode(envelope).ok().map(|e| OrderBody::decode(&e.body));
            if let Some(Ok(body)) = body {
                needed.extend(body.needs.iter().flat_map(|need| need.content.iter().copied()));
            }
        }
        Ok(needed)
    }

    /// The orders that are remembered.
    pub fn orders(&self) -> Result<Vec<OrderBody>, JournalError> {
        let mut orders = Vec::new();
        for row in self.read()?.open_table(ORDERS)?.iter()? {
            let envelope = Bytes::copy_from_slice(row?.1.value());
            let body = Envelope::decode(envelope).ok().map(|e| OrderBody::decode(&e.body));
            orders.extend(body.and_then(Result::ok));
        }
        Ok(orders)
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

/// What a row of the journal is.
mod kind {
    pub(super) const ORDER: u8 = 1;
    pub(super) const INTENT: u8 = 2;
    pub(super) const ANSWERS: u8 = 3;
    pub(super) const SETTLED: u8 = 4;
    pub(super) const BELOW: u8 = 5;
    pub(super) const FORGET: u8 = 6;
    pub(super) const RELEASED: u8 = 7;
    pub(super) const OWN_EVENT: u8 = 60;
    pub(super) const OWN_EVENTS_GONE: u8 = 61;
    pub(super) const EVENT: u8 = 62;
    pub(super) const EVENTS_GONE: u8 = 63;
}

impl Row {
    /// A record of the core as it is kept.
    pub(crate) fn of(record: &Record) -> Row {
        let row = |kind, id: &OrderId, body| Row { kind, id: id.0, body };
        match record {
            Record::Order(order) => row(kind::ORDER, &order.id, order.body.clone()),
            Record::Intent(id) => row(kind::INTENT, id, Bytes::new()),
            Record::Answers(report) => {
                let frame = Frame::Report { log: 0, seq: 0, report: report.clone() };
                row(kind::ANSWERS, &report.order, protos::encode_frame(&frame))
            }
            Record::Settled(id) => row(kind::SETTLED, id, Bytes::new()),
            Record::Below { child, below } => {
                let mut id = [0; 16];
                id[..4].copy_from_slice(&child.0.to_be_bytes());
                row(kind::BELOW, &OrderId(id), set(below))
            }
            Record::Released { order, hosts } => row(kind::RELEASED, order, set(hosts)),
            Record::Forget(id) => row(kind::FORGET, id, Bytes::new()),
            Record::Own(folded) => event(kind::OWN_EVENT, folded),
            Record::OwnGone(signatures) => {
                let keys = signatures.iter().map(|signature| (signature.0, 0));
                Row { kind: kind::OWN_EVENTS_GONE, id: [0; 16], body: keys_of(keys) }
            }
            Record::Events(folded) => event(kind::EVENT, folded),
            Record::EventsGone(keys) => {
                let keys = keys.iter().map(|key| (key.signature.0, key.window));
                Row { kind: kind::EVENTS_GONE, id: [0; 16], body: keys_of(keys) }
            }
        }
    }

    fn order(&self) -> OrderId {
        OrderId(self.id)
    }

    /// The keys of events.
    fn keys(&self) -> impl Iterator<Item = ([u8; 16], u32)> {
        self.body.as_chunks::<20>().0.iter().map(|key| {
            let (mut signature, mut window) = ([0; 16], [0; 4]);
            signature.copy_from_slice(&key[..16]);
            window.copy_from_slice(&key[16..]);
            (signature, u32::from_be_bytes(window))
        })
    }

    fn child(&self) -> u32 {
        u32::from_be_bytes(self.id[..4].try_into().expect("four bytes"))
    }
}

/// Writes a row into the tables.
pub(crate) fn keep(txn: &WriteTransaction, row: &Row) -> Result<(), JournalError> {
    match row.kind {
        kind::ORDER => drop(txn.open_table(ORDERS)?.insert(row.id, row.body.as_ref())?),
        kind::INTENT => drop(txn.open_table(INTENTS)?.insert(row.id, ())?),
        kind::ANSWERS => {
            // There is something to tell again.
            txn.open_table(SETTLED)?.remove(row.id)?;
            add(&mut txn.open_table(ANSWERS)?, row)?;
        }
        kind::SETTLED => drop(txn.open_table(SETTLED)?.insert(row.id, ())?),
        kind::BELOW => drop(txn.open_table(BELOW)?.insert(row.child(), row.body.as_ref())?),
        kind::RELEASED => add(&mut txn.open_table(RELEASED)?, row)?,
        kind::FORGET => forget(txn, row.order())?,
        kind::OWN_EVENT => drop(txn.open_table(OWN_EVENTS)?.insert(row.id, row.body.as_ref())?),
        kind::OWN_EVENTS_GONE => {
            let mut table = txn.open_table(OWN_EVENTS)?;
            for (signature, _) in row.keys() {
                table.remove(signature)?;
            }
        }
        kind::EVENT => {
            if let Some(folded) = folded_of(row.body.clone()) {
                let key = (row.id, folded.window);
                txn.open_table(EVENTS)?.insert(key, row.body.as_ref())?;
            }
        }
        kind::EVENTS_GONE => {
            let mut table = txn.open_table(EVENTS)?;
            for key in row.keys() {
                table.remove(key)?;
            }
        }
        // A later version has written it, and this one does not know what it is for.
        _ => {}
    }
    Ok(())
}

/// Adds to what there is of the row's order.
fn add(
    table: &mut redb::Table<'_, ([u8; 16], u64), &'static [u8]>,
    row: &Row,
) -> Result<(), JournalError> {
    let last = table.range((row.id, 0)..=(row.id, u64::MAX))?.next_back().transpose()?;
    let next = last.map_or(0, |(key, _)| key.value().1 + 1);
    table.insert((row.id, next), row.body.as_ref())?;
    Ok(())
}

fn keys_of(keys: impl Iterator<Item = ([u8; 16], u32)>) -> Bytes {
    keys.flat_map(|(signature, window)| signature.into_iter().chain(window.to_be_bytes())).collect()
}

/// An event as it is kept, under its signature.
fn event(kind: u8, folded: &Folded) -> Row {
    let frame = Frame::Events { no: 0, events: vec![folded.clone()] };
    Row { kind, id: folded.fact.signature.0, body: protos::encode_frame(&frame) }
}

fn folded_of(frame: Bytes) -> Option<Folded> {
    match protos::decode_frame(frame, hash) {
        Ok(Incoming::Frame(Frame::Events { mut events, .. })) => events.pop(),
        _ => None,
    }
}

/// The bytes of a host set.
fn set(hosts: &mesh::HostSet) -> Bytes {
    protos::encode_frame(&Frame::Below(Subtree { below: hosts.clone(), ..Subtree::default() }))
}

/// All that is kept, as it is on disk.
#[derive(Default)]
struct Image {
    orders: BTreeMap<OrderId, Bytes>,
    answers: BTreeMap<OrderId, Vec<Bytes>>,
    intents: BTreeSet<OrderId>,
    settled: BTreeSet<OrderId>,
    below: BTreeMap<u32, Bytes>,
    released: BTreeMap<OrderId, Vec<Bytes>>,
    own_events: BTreeMap<[u8; 16], Bytes>,
    events: BTreeMap<([u8; 16], u32), Bytes>,
}

impl Image {
    /// What [`keep`] does, to this.
    fn apply(&mut self, row: Row) {
        let id = row.order();
        match row.kind {
            kind::ORDER => drop(self.orders.insert(id, row.body)),
            kind::INTENT => drop(self.intents.insert(id)),
            kind::ANSWERS => {
                self.settled.remove(&id);
                self.answers.entry(id).or_default().push(row.body);
            }
            kind::SETTLED => drop(self.settled.insert(id)),
            kind::BELOW => drop(self.below.insert(row.child(), row.body)),
            kind::RELEASED => self.released.entry(id).or_default().push(row.body),
            kind::OWN_EVENT => drop(self.own_events.insert(row.id, row.body)),
            kind::OWN_EVENTS_GONE => {
                row.keys().for_each(|key| drop(self.own_events.remove(&key.0)))
            }
            kind::EVENT => {
                if let Some(folded) = folded_of(row.body.clone()) {
                    self.events.insert((row.id, folded.window), row.body);
                }
            }
            kind::EVENTS_GONE => row.keys().for_each(|key| drop(self.events.remove(&key))),
            kind::FORGET => {
                self.released.remove(&id);
                self.orders.remove(&id);
                self.answers.remove(&id);
                self.intents.remove(&id);
                self.settled.remove(&id);
            }
            _ => {}
        }
    }

    /// What of it the core is to know at this time, and which orders are over.
    fn saved(self, now: SystemTime) -> (Saved, BTreeSet<OrderId>) {
        let (mut saved, mut gone) = (Saved::default(), BTreeSet::new());
        // Ids sort by time.
        let newest = self.orders.last_key_value().map_or(UNIX_EPOCH, |(id, _)| born(*id));
        let mut known = BTreeSet::new();
        for (id, envelope) in self.orders {
            match order(envelope, now, newest) {
                Some(order) => {
                    known.insert(id);
                    saved.orders.push(Arc::new(order));
                }
                None => drop(gone.insert(id)),
            }
        }
        for (id, frames) in self.answers {
            let old = |now| age(id, now) > ORPHAN_AGE;
            if gone.contains(&id) || !known.contains(&id) && old(now) && old(newest) {
                gone.insert(id);
            } else {
                saved.answers.extend(frames.into_iter().filter_map(report));
            }
        }
        saved.intents.extend(self.intents.difference(&gone));
        saved.settled.extend(self.settled.difference(&gone));
        saved.own.extend(self.own_events.into_values().filter_map(folded_of));
        saved.events.extend(self.events.into_values().filter_map(folded_of));
        let below = self.below.into_iter();
        saved
            .below
            .extend(below.filter_map(|(child, frame)| Some((HostId(child), below_of(frame)?))));
        for (id, frames) in self.released.into_iter().filter(|(id, _)| !gone.contains(id)) {
            saved
                .released
                .extend(frames.into_iter().filter_map(|frame| Some((id, below_of(frame)?))));
        }
        (saved, gone)
    }
}

fn forget(txn: &WriteTransaction, id: OrderId) -> Result<(), JournalError> {
    txn.open_table(ORDERS)?.remove(id.0)?;
    txn.open_table(INTENTS)?.remove(id.0)?;
    txn.open_table(SETTLED)?.remove(id.0)?;
    txn.open_table(ANSWERS)?.retain_in((id.0, 0)..=(id.0, u64::MAX), |_, _| false)?;
    txn.open_table(RELEASED)?.retain_in((id.0, 0)..=(id.0, u64::MAX), |_, _| false)?;
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

fn below_of(frame: Bytes) -> Option<mesh::HostSet> {
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
