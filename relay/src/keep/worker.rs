//! The thread that owns the store: it takes all that waits for it into one commit, and answers when
//! that is on disk.
//!
//! Who has a message of a queue is known here alone: after a restart everything that is not done
//! can be taken again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::time::Instant;

use mesh::HostId;
use mesh::bus::{Message, Pattern};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::warn;

use super::settings::{Keep, Policy};
use super::store::{Change, Entry, Found, Store};
use super::words::{Ask, Begin, KEPT_BYTES, Reply};
use crate::JournalError;

/// How much is done in one commit.
const BATCH: usize = 256;
/// Messages of which it is known that they are kept.
const RECENT: usize = 4_096;
/// Messages of one queue that are taken at once.
const TAKEN: usize = 1_000;
/// How many messages of a stream one answer has.
const RECORDS: usize = 256;
/// How many pages of a queue are looked through for one that can be taken.
const PAGES: u32 = 10;

/// Something to be done.
pub(super) enum Job {
    /// From now on this is kept, and this is wrong with the settings.
    Keeps(Vec<Keep>, String),
    /// A message has come.
    Put { name: String, message: Message, at_ms: u64 },
    /// So many have not come, since there was no room for them here.
    Gap { name: String, count: u64, at_ms: u64 },
    /// Whether a message is kept, and as what.
    Has { from: HostId, id: u64, reply: oneshot::Sender<Option<(String, u64)>> },
    /// A question.
    Ask(Ask, oneshot::Sender<Reply>),
    /// What is too old goes.
    Age,
}

/// What the thread works with.
pub(super) struct Worker {
    path: PathBuf,
    store: Option<Store>,
    keeps: Vec<Keep>,
    wrong: String,
    recent: Recent,
    /// Who has what: until when, and what he was told.
    taken: BTreeMap<(String, u64), (Instant, u64)>,
    /// Rises when there may be more for those who wait.
    grown: watch::Sender<u64>,
    /// Whether the disk has room.
    has_room: Box<dyn Fn() -> bool + Send>,
    /// Is told how many messages are lost.
    dropped: Box<dyn Fn(u64) + Send>,
}

/// What is known to be kept, by its publisher and id.
#[derive(Default)]
struct Recent {
    known: BTreeMap<(HostId, u64), (String, u64)>,
    row: VecDeque<(HostId, u64)>,
}

impl Recent {
    fn note(&mut self, key: (HostId, u64), kept: (String, u64)) {
        if self.known.insert(key, kept).is_none() {
            self.row.push_back(key);
        }
        while self.row.len() > RECENT {
            self.row.pop_front().map(|oldest| self.known.remove(&oldest));
        }
    }
}

/// What a change has come to, to be told once it is on disk.
#[derive(Default)]
struct Made {
    kept: Vec<((HostId, u64), (String, u64))>,
    replies: Vec<(oneshot::Sender<Reply>, Reply)>,
    lost: u64,
    grown: bool,
}

impl Worker {
    pub(super) fn new(
        path: PathBuf,
        grown: watch::Sender<u64>,
        has_room: Box<dyn Fn() -> bool + Send>,
        dropped: Box<dyn Fn(u64) + Send>,
    ) -> Worker {
        let (keeps, recent, taken) = (Vec::new(), Recent::default(), BTreeMap::new());
        let (store, wrong) = (None, String::new());
        Worker { path, store, keeps, wrong, recent, taken, grown, has_room, dropped }
    }

    /// Works until nobody can ask any more.
    pub(super) fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(job) = jobs.blocking_recv() {
            let mut batch = vec![job];
            while batch.len() < BATCH
                && let Ok(job) = jobs.try_recv()
            {
                batch.push(job);
            }
            self.work(batch);
        }
    }

    fn work(&mut self, batch: Vec<Job>) {
        let (mut writes, mut reads) = (Vec::new(), Vec::new());
        for job in batch {
            match job {
                Job::Keeps(keeps, wrong) => (self.keeps, self.wrong) = (keeps, wrong),
                Job::Has { .. } => reads.push(job),
                Job::Ask(ref ask, _)
                    if !matches!(ask, Ask::Ack { .. } | Ask::Forget { .. } | Ask::Done { .. }) =>
                {
                    reads.push(job);
                }
                job => writes.push(job),
            }
        }
        if !writes.is_empty() {
            self.write(writes);
        }
        for job in reads {
            match job {
                Job::Has { from, id, reply } => {
                    reply.send(self.recent.known.get(&(from, id)).cloned()).ok();
                }
                Job::Ask(ask, reply) => {
                    let answer = self.answer(ask);
                    // Whoever has asked may have left.
                    reply.send(answer.unwrap_or_else(|error| failed(&error))).ok();
                }
                _ => {}
            }
        }
    }

    /// Makes changes, all of them or none.
    fn write(&mut self, jobs: Vec<Job>) {
        let messages = jobs.iter().map(|job| match job {
            Job::Put { .. } => 1,
            Job::Gap { count, .. } => *count,
            _ => 0,
        });
        let messages: u64 = messages.sum();
        if messages > 0 && !(self.has_room)() {
            // Nothing is kept, and what else waits is asked for again.
            (self.dropped)(messages);
            return;
        }
        match self.change(jobs) {
            Ok(made) => {
                made.kept.into_iter().for_each(|(key, kept)| self.recent.note(key, kept));
                made.replies.into_iter().for_each(|(reply, told)| drop(reply.send(told)));
                (self.dropped)(made.lost);
                if made.grown {
                    self.grown.send_modify(|count| *count += 1);
                }
            }
            Err(error) => {
                warn!(error = %crate::chain(&error), "messages of the bus are not kept");
                (self.dropped)(messages);
            }
        }
    }

    fn change(&mut self, jobs: Vec<Job>) -> Result<Made, JournalError> {
        let keeps = self.keeps.clone();
        let change = self.store()?.begin()?;
        let mut made = Made::default();
        let mut done = BTreeSet::new();
        for job in jobs {
            match job {
                Job::Put { name, message, at_ms } => {
                    let Some(keep) = keeps.iter().find(|keep| keep.name == name) else { continue };
                    if message.body.len() > KEPT_BYTES {
                        made.lost += 1;
                        continue;
                    }
                    let (seq, lost) = change.put(keep, &Entry::of(&message, at_ms))?;
                    made.kept.push(((message.from, message.id), (name, seq)));
                    made.lost += lost;
                    made.grown = true;
                }
                // The hub has told of these.
                Job::Gap { name, count, at_ms } => {
                    let keep = keeps.iter().find(|keep| keep.name == name);
                    let keep = keep.filter(|keep| keep.policy == Policy::Stream);
                    if let Some(keep) = keep {
                        made.lost += change.put(keep, &Entry::gap(count, at_ms))?.1;
                        made.grown = true;
                    }
                }
                Job::Age => {
                    for keep in keeps.iter().filter(|keep| keep.age.is_some()) {
                        made.lost += change.age(keep)?;
                    }
                }
                Job::Ask(ask, reply) => {
                    let told = self.apply(&change, &ask, &keeps, &mut done)?;
                    made.replies.push((reply, told));
                }
                Job::Keeps(..) | Job::Has { .. } => {}
            }
        }
        change.commit()?;
        self.taken.retain(|key, _| !done.contains(key));
        Ok(made)
    }

    /// What readers and takers want to be changed.
    fn apply(
        &self,
        change: &Change,
        ask: &Ask,
        keeps: &[Keep],
        done: &mut BTreeSet<(String, u64)>,
    ) -> Result<Reply, JournalError> {
        let told = |keep: &Keep| Reply { name: keep.name.clone(), ..Reply::default() };
        Ok(match ask {
            Ask::Ack { subject, reader, seq } => match find(keeps, subject, Policy::Stream) {
                Ok((keep, _)) if change.ack(keep, reader, *seq)? => told(keep),
                Ok(_) => Reply::fault(
                    "unknown",
                    format!("there is no reader {reader:?} who could have had {seq}"),
                ),
                Err(fault) => *fault,
            },
            Ask::Forget { subject, reader } => match find(keeps, subject, Policy::Stream) {
                Ok((keep, _)) if change.forget(keep, reader)? => told(keep),
                Ok(_) => Reply::fault("unknown", format!("there is no reader {reader:?}")),
                Err(fault) => *fault,
            },
            Ask::Done { subject, seq, token } => match find(keeps, subject, Policy::Queue) {
                Ok((keep, _)) => {
                    let key = (keep.name.clone(), *seq);
                    let his = self.taken.get(&key).is_some_and(|(_, known)| known == token);
                    // Whoever was slow has done it, as long as nobody else has it.
                    if his && change.done(keep, *seq)? {
                        done.insert(key);
                        told(keep)
                    } else {
                        let text = format!("{seq} is not yours any more: it took longer than");
                        Reply::fault("over", format!("{text} {} s", keep.lease.as_secs()))
                    }
                }
                Err(fault) => *fault,
            },
            _ => Reply::fault("bad-request", "this changes nothing"),
        })
    }

    fn answer(&mut self, ask: Ask) -> Result<Reply, JournalError> {
        match ask {
            Ask::List => self.list(),
            Ask::Latest { subject, after } => {
                let (keep, pattern) = match find(&self.keeps, &subject, Policy::Latest) {
                    Ok((keep, pattern)) => (keep.clone(), pattern),
                    Err(fault) => return Ok(*fault),
                };
                let found = self.store()?.read((&keep, &pattern), after, RECORDS, |_| false)?;
                Ok(reply(&keep, found))
            }
            Ask::Read { subject, reader, from, after, .. } => {
                self.read(&subject, &reader, from, after)
            }
            Ask::Take { subject, .. } => self.take(&subject),
            Ask::Ack { .. } | Ask::Forget { .. } | Ask::Done { .. } => {
                Ok(Reply::fault("bad-request", "this is a change"))
            }
        }
    }

    fn list(&mut self) -> Result<Reply, JournalError> {
        let (keeps, wrong) = (self.keeps.clone(), self.wrong.clone());
        let mut kept = Vec::new();
        for keep in &keeps {
            let mut one = self.store()?.kept(keep)?;
            one.taken = self.taken.keys().filter(|(name, _)| *name == keep.name).count() as u64;
            kept.push(one);
        }
        Ok(Reply { kept, wrong, ..Reply::default() })
    }

    fn read(
        &mut self,
        subject: &str,
        reader: &str,
        from: Begin,
        after: Option<u64>,
    ) -> Result<Reply, JournalError> {
        let (keep, pattern) = match find(&self.keeps, subject, Policy::Stream) {
            Ok((keep, pattern)) => (keep.clone(), pattern),
            Err(fault) => return Ok(*fault),
        };
        let store = self.store()?;
        let known = match store.reader((&keep, &pattern), reader)? {
            Some(known) => known,
            None => {
                let change = store.begin()?;
                let begun = change.begin_reader((&keep, &pattern), reader, from == Begin::New)?;
                change.commit()?;
                match begun {
                    Some(begun) => begun,
                    None => return Ok(Reply::fault("full", "there are too many readers")),
                }
            }
        };
        let after = after.unwrap_or(known);
        let found = store.read((&keep, &pattern), after, RECORDS, |_| false)?;
        Ok(reply(&keep, found))
    }

    fn take(&mut self, subject: &str) -> Result<Reply, JournalError> {
        let (keep, pattern) = match find(&self.keeps, subject, Policy::Queue) {
            Ok((keep, pattern)) => (keep.clone(), pattern),
            Err(fault) => return Ok(*fault),
        };
        let now = Instant::now();
        self.taken.retain(|_, (until, _)| *until > now);
        let mine = self.taken.keys().filter(|(name, _)| *name == keep.name);
        let taken: BTreeSet<u64> = mine.map(|(_, seq)| *seq).collect();
        if taken.len() >= TAKEN {
            // As if there were none: one will be done or given back.
            return Ok(Reply { name: keep.name, ..Reply::default() });
        }
        let (store, mut after) = (self.store()?, 0);
        for _ in 0..PAGES {
            let found = store.read((&keep, &pattern), after, 1, |seq| taken.contains(&seq))?;
            after = found.through;
            if let Some(record) = found.records.first() {
                let token = u64::from_le_bytes(certs::random::<8>());
                self.taken.insert((keep.name.clone(), record.seq), (now + keep.lease, token));
                return Ok(Reply { token: Some(token), more: false, ..reply(&keep, found) });
            }
            if !found.more {
                break;
            }
        }
        Ok(Reply { name: keep.name, ..Reply::default() })
    }

    /// The store, opened when it is needed first.
    fn store(&mut self) -> Result<&Store, JournalError> {
        match self.store {
            Some(ref store) => Ok(store),
            None => {
                if let Some(dir) = self.path.parent() {
                    std::fs::create_dir_all(dir)
                        .map_err(|error| JournalError::from(redb::StorageError::from(error)))?;
                }
                Ok(self.store.insert(Store::open(&self.path)?))
            }
        }
    }
}

/// The first that keeps all that is asked for, in this way.
fn find<'a>(
    keeps: &'a [Keep],
    subject: &str,
    policy: Policy,
) -> Result<(&'a Keep, Pattern), Box<Reply>> {
    let fault = |code: &str, text: String| Box::new(Reply::fault(code, text));
    let wrong = |wrong| fault("bad-request", format!("{subject:?} is no pattern: {wrong}"));
    let pattern = Pattern::new(subject).map_err(wrong)?;
    let mut these = keeps.iter().filter(|keep| keep.policy == policy);
    match these.find(|keep| keep.pattern.covers(&pattern)) {
        Some(keep) => Ok((keep, pattern)),
        None => {
            let word = policy.word();
            Err(fault("unknown", format!("this node keeps no {word} of {subject}")))
        }
    }
}

/// What is kept here for such a question.
pub(super) fn keeps(keeps: &[Keep], subject: &str, policy: Policy) -> bool {
    find(keeps, subject, policy).is_ok()
}

fn reply(keep: &Keep, found: Found) -> Reply {
    let Found { records, through, missed, more } = found;
    Reply { name: keep.name.clone(), records, through, missed, more, ..Reply::default() }
}

fn failed(error: &JournalError) -> Reply {
    let text = crate::chain(error);
    warn!(error = text, "what is kept of the bus is not read");
    Reply::fault("disk", format!("what is kept cannot be read: {text}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::time::Duration;

    use mesh::bus::Subject;

    use super::*;

    struct Bench {
        worker: Worker,
        has_room: Arc<AtomicBool>,
        lost: Arc<AtomicU64>,
        _dir: tempfile::TempDir,
    }

    fn keep(name: &str, policy: Policy) -> Keep {
        Keep {
            name: name.into(),
            shelf: name.into(),
            pattern: Pattern::new(&format!("{name}.>")).expect("a pattern"),
            policy,
            count: 9,
            bytes: 1 << 20,
            age: None,
            lease: Duration::from_secs(60),
        }
    }

    fn bench() -> Bench {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (has_room, lost) = (Arc::new(AtomicBool::new(true)), Arc::<AtomicU64>::default());
        let (room, count) = (has_room.clone(), lost.clone());
        let mut worker = Worker::new(
            dir.path().join("bus").join("keep.redb"),
            watch::channel(0).0,
            Box::new(move || room.load(Ordering::Relaxed)),
            Box::new(move |more| {
                count.fetch_add(more, Ordering::Relaxed);
            }),
        );
        let keeps = vec![keep("jobs", Policy::Queue), keep("news", Policy::Stream)];
        worker.work(vec![Job::Keeps(keeps, String::new())]);
        Bench { worker, has_room, lost, _dir: dir }
    }

    fn put(id: u64, subject: &str, bytes: usize) -> Job {
        let message = Message {
            id,
            from: HostId(7),
            node: "web7".into(),
            subject: Subject::new(subject).expect("a subject"),
            request: None,
            body: vec![b'x'; bytes].into(),
        };
        let name = subject.split('.').next().unwrap_or_default().into();
        Job::Put { name, message, at_ms: 1 }
    }

    impl Bench {
        fn ask(&mut self, ask: Ask) -> Reply {
            let (reply, mut told) = oneshot::channel();
            self.worker.work(vec![Job::Ask(ask, reply)]);
            told.try_recv().expect("it is answered")
        }

        fn has(&mut self, id: u64) -> Option<u64> {
            let (reply, mut told) = oneshot::channel();
            self.worker.work(vec![Job::Has { from: HostId(7), id, reply }]);
            told.try_recv().expect("it is answered").map(|(_, seq)| seq)
        }

        fn take(&mut self) -> Option<(u64, u64)> {
            let reply = self.ask(Ask::Take { subject: "jobs.>".into(), wait_ms: 0 });
            Some((reply.records.first()?.seq, reply.token?))
        }

        fn done(&mut self, (seq, token): (u64, u64)) -> bool {
            self.ask(Ask::Done { subject: "jobs.>".into(), seq, token }).fault.is_none()
        }
    }

    #[test]
    fn a_message_of_a_queue_is_for_one_until_his_time_is_over() {
        let mut bench = bench();
        bench.worker.work(vec![put(1, "jobs.a", 1), put(2, "jobs.b", 1)]);
        let (one, two) = (bench.take().expect("the first"), bench.take().expect("the second"));
        assert_eq!((one.0, two.0, bench.take()), (1, 2, None));
        assert!(bench.done(two) && !bench.done(two) && !bench.done((one.0, one.1 ^ 1)));
        // His time is over.
        let until = bench.worker.taken.values_mut().next().expect("the first one is taken");
        until.0 = Instant::now();
        let again = bench.take().expect("somebody else has it");
        assert!(again.0 == 1 && again.1 != one.1 && !bench.done(one) && bench.done(again));
        assert_eq!(bench.take(), None);
    }

    #[test]
    fn what_is_kept_is_known_and_what_is_not_is_counted() {
        let mut bench = bench();
        bench.worker.work(vec![put(1, "news.x", 1), put(2, "news.x", KEPT_BYTES + 1)]);
        assert_eq!((bench.has(1), bench.has(2)), (Some(1), None));
        assert_eq!(bench.lost.load(Ordering::Relaxed), 1, "it was too long");
        bench.has_room.store(false, Ordering::Relaxed);
        let name = "news".into();
        bench.worker.work(vec![put(3, "news.x", 1), Job::Gap { name, count: 4, at_ms: 1 }]);
        assert_eq!((bench.has(3), bench.lost.load(Ordering::Relaxed)), (None, 6));
        bench.has_room.store(true, Ordering::Relaxed);
        let name = "news".into();
        bench.worker.work(vec![Job::Gap { name, count: 4, at_ms: 1 }, put(4, "news.x", 1)]);
        let (subject, reader) = ("news.>".into(), "r".into());
        let read = Ask::Read { subject, reader, from: Begin::First, after: None, wait_ms: 0 };
        let first = bench.ask(read.clone());
        assert_eq!((first.records.len(), first.missed, first.more), (1, 0, true));
        let Ask::Read { subject, reader, from, wait_ms, .. } = read else { unreachable!() };
        let after = Some(first.through);
        let next = bench.ask(Ask::Read { subject, reader, from, after, wait_ms });
        assert_eq!((next.records.len(), next.missed, next.more), (1, 4, false));
    }

    #[test]
    fn what_cannot_be_asked_is_named() {
        let mut bench = bench();
        let mut check = |ask: Ask, code: &str, text: &str| {
            let fault = bench.ask(ask).fault.expect(text);
            assert!(fault.code == code && fault.message.contains(text), "{fault:?}");
        };
        let subject = || "other.>".to_owned();
        check(
            Ask::Latest { subject: subject(), after: 0 },
            "unknown",
            "keeps no latest of other.>",
        );
        check(Ask::Take { subject: "a..b".into(), wait_ms: 0 }, "bad-request", "is no pattern");
        let ack = |reader: &str, seq| {
            let (subject, reader) = ("news.>".into(), reader.into());
            Ask::Ack { subject, reader, seq }
        };
        check(ack("nobody", 1), "unknown", "no reader \"nobody\"");
        let wide = Ask::Take { subject: ">".into(), wait_ms: 0 };
        check(wide, "unknown", "this node keeps no queue of >");
        let done = Ask::Done { subject: "jobs.a".into(), seq: 1, token: 1 };
        check(done, "over", "longer than 60 s");
    }
}
