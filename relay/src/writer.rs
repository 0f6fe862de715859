//! The thread that writes a node's journal.
//!
//! It takes all that is queued, commits once, and only then says so, which is what acknowledgements
//! wait for. A disk that is full is waited for: what is queued stays here, up to a limit, and is
//! written when there is space; meanwhile nothing is acknowledged that is not on disk, and the core
//! goes on with everything else. Any other failure ends the writer and with it the process: after
//! a failed sync nobody knows what is on disk, so the only sound step is to start again from it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh::{Event, Record};
use redb::WriteTransaction;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tracing::debug;

use crate::daybook::Row;
use crate::journal::{Journal, JournalError, keep};
use crate::metrics::Counts;
use crate::space::Space;

/// How long records that can wait do so.
const LAZY: Duration = Duration::from_millis(500);
/// How many drains of the core may wait for the writer.
const QUEUE: usize = 1_024;
/// How many entries one commit takes, about.
const BATCH: usize = 4_096;
/// How many entries may wait for space. What a peer sends is bounded by its windows, so that this
/// is reached only if a tree changes its shape for days.
const WAITING: usize = 65_536;
/// How many bytes of orders and output.
const WAITING_BYTES: usize = 256 << 20;
/// How often a full disk is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Somebody who writes into the same commits as the core's records: the controller's tables, and
/// those of a relay whose operator gives orders.
pub trait Witness: Send {
    /// Something has happened. Said at once and once, whether or not anything can be written.
    fn see(&mut self, event: &Event);
    /// Whether an event is to become durable.
    fn keeps(&self, event: &Event) -> bool;
    /// An event that becomes durable with this transaction. If that fails it is noted again in
    /// another.
    fn note(&mut self, txn: &WriteTransaction, event: &Event) -> Result<(), JournalError>;
    /// These events, all that were noted in the last transaction, are durable now.
    fn committed(&mut self, events: &mut dyn Iterator<Item = Event>);
}

/// A node that nobody watches.
pub struct NoWitness;

impl Witness for NoWitness {
    fn see(&mut self, _: &Event) {}
    fn keeps(&self, _: &Event) -> bool {
        false
    }
    fn note(&mut self, _: &WriteTransaction, _: &Event) -> Result<(), JournalError> {
        Ok(())
    }
    fn committed(&mut self, _: &mut dyn Iterator<Item = Event>) {}
}

/// What the writer is asked to keep.
pub(crate) enum Entry {
    Save { no: u64, record: Record },
    Tell(Event),
}

impl Entry {
    /// How long it is, about: what is in it of others' making.
    fn bytes(&self) -> usize {
        match self {
            Entry::Save { record: Record::Order(order), .. } => order.body.len(),
            Entry::Save { record: Record::Answers(report), .. }
            | Entry::Tell(Event::Answers(report)) => {
                report.bodies.values().map(bytes::Bytes::len).sum()
            }
            Entry::Save { record: Record::Events(folded) | Record::Own(folded), .. } => {
                weight(folded)
            }
            Entry::Tell(Event::Happened(events)) => events.iter().map(weight).sum(),
            Entry::Tell(Event::Profiles(lines)) => {
                lines.iter().map(|line| line.profile.text.len()).sum()
            }
            _ => 0,
        }
    }

    /// Whether losing it in a crash costs no more than telling something twice.
    fn can_wait(&self) -> bool {
        matches!(self, Entry::Save { record: Record::Settled(_), .. })
    }
}

/// What events weigh, about: a text of some hundred bytes, and a count for each host.
fn weight(folded: &mesh::Folded) -> usize {
    512 + 12 * folded.counts.len()
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

impl Writer {
    /// Starts the writer. It ends when the sender is dropped; then the last commit is done.
    pub(crate) fn start(
        journal: Journal,
        witness: Box<dyn Witness>,
        space: Space,
        counts: Arc<Counts>,
    ) -> Writer {
        let (entries, queue) = mpsc::channel(QUEUE);
        let (progress, saved) = watch::channel(Progress { through: 0, failed: None });
        let desk = Desk {
            journal,
            witness,
            space,
            counts,
            queue,
            batch: Vec::new(),
            share: usize::MAX,
            timer: Handle::current(),
        };
        let thread = std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || {
                if let Err(error) = desk.write(&progress) {
                    let failed = Some(Arc::new(error));
                    progress.send_modify(|p| p.failed = failed.clone());
                }
            })
            .expect("the system can start a thread");
        Writer { entries, saved, thread }
    }
}

/// What the thread works with.
struct Desk {
    journal: Journal,
    witness: Box<dyn Witness>,
    space: Space,
    counts: Arc<Counts>,
    queue: mpsc::Receiver<Vec<Entry>>,
    batch: Vec<Entry>,
    /// How much of it the next commit may take: less, while there is little room.
    share: usize,
    timer: Handle,
}

impl Desk {
    fn write(mut self, progress: &watch::Sender<Progress>) -> Result<(), JournalError> {
        loop {
            let more = self.gather();
            if self.batch.is_empty() {
                match more {
                    true => continue,
                    false => return Ok(()),
                }
            }
            let count = self.share.min(self.batch.len());
            let began = Instant::now();
            match self.commit(count) {
                Ok(through) => {
                    self.counts.commits.observe(began.elapsed());
                    self.share = self.share.saturating_mul(2);
                    if count == self.batch.len() {
                        self.space.written();
                    }
                    let told = self.batch.drain(..count).filter_map(|entry| match entry {
                        Entry::Tell(event) => Some(event),
                        Entry::Save { .. } => None,
                    });
                    self.witness.committed(&mut { told });
                    progress.send_modify(|p| p.through = p.through.max(through));
                }
                Err(error) if self.journal.may_try_again(&error) => {
                    debug!(waiting = self.batch.len(), error = %crate::chain(&error), "no room");
                    let bytes: usize = self.batch.iter().map(Entry::bytes).sum();
                    if self.batch.len() > WAITING || bytes > WAITING_BYTES {
                        return Err(JournalError::Waiting);
                    }
                    // With what was kept back for this it may go at once.
                    let released = self.space.stuck();
                    if !more {
                        return Ok(());
                    }
                    // There may be room for a part of it.
                    self.share = (count / 2).max(1);
                    if !released && count == 1 {
                        self.wait();
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes what is queued, and waits for something if there is nothing. Records that nothing
    /// waits for and that are cheap to lose wait for others to share a commit with, for a short
    /// while. `false`: nothing more will come.
    fn gather(&mut self) -> bool {
        if self.batch.is_empty() {
            match self.queue.blocking_recv() {
                Some(entries) => self.take(entries),
                None => return false,
            }
        }
        let until = Instant::now() + LAZY;
        let mut more = true;
        while more
            && !self.batch.is_empty()
            && self.batch.len() < BATCH
            && self.batch.iter().all(Entry::can_wait)
        {
            let left = until.saturating_duration_since(Instant::now());
            match self.receive(left) {
                Ok(Some(entries)) => self.take(entries),
                Ok(None) => more = false,
                Err(()) => break,
            }
        }
        while self.batch.len() < BATCH {
            match self.queue.try_recv() {
                Ok(entries) => self.take(entries),
                Err(mpsc::error::TryRecvError::Empty) => break,
                Err(mpsc::error::TryRecvError::Disconnected) => return false,
            }
        }
        more
    }

    /// Waits a while for space, taking what comes meanwhile.
    fn wait(&mut self) {
        let until = Instant::now() + AGAIN;
        while self.batch.len() <= WAITING {
            let left = until.saturating_duration_since(Instant::now());
            match self.receive(left) {
                Ok(Some(entries)) => self.take(entries),
                Ok(None) | Err(()) => return,
            }
        }
    }

    fn receive(&mut self, limit: Duration) -> Result<Option<Vec<Entry>>, ()> {
        let Desk { timer, queue, .. } = self;
        timer.block_on(async { timeout(limit, queue.recv()).await }).map_err(|_| ())
    }

    /// Tells the witness, and keeps what is to be written.
    fn take(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            if let Entry::Tell(event) = &entry {
                self.witness.see(event);
                if !self.witness.keeps(event) {
                    continue;
                }
            }
            self.batch.push(entry);
        }
    }

    /// Writes the first of what waits, in one commit. Nothing is taken out of it.
    fn commit(&mut self, count: usize) -> Result<u64, JournalError> {
        let entries = &self.batch[..count];
        let row = |entry: &Entry| match entry {
            Entry::Save { record, .. } => Some(Row::of(record)),
            Entry::Tell(_) => None,
        };
        let no = |entry: &Entry| match entry {
            Entry::Save { no, .. } => Some(*no),
            Entry::Tell(_) => None,
        };
        let through = entries.iter().filter_map(no).next_back().unwrap_or_default();
        let rows: Vec<Row> = entries.iter().filter_map(row).collect();
        if rows.len() == entries.len() {
            self.journal.save(&rows)?;
            return Ok(through);
        }
        let witness = &mut self.witness;
        self.journal.save_with(|txn| {
            entries.iter().try_for_each(|entry| match entry {
                Entry::Save { record, .. } => keep(txn, &Row::of(record)),
                Entry::Tell(event) => witness.note(txn, event),
            })
        })?;
        Ok(through)
    }
}
