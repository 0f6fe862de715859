//! The thread that owns the store: it takes all that waits for it into one commit, and answers when
//! that is on disk. What it answers is in `answers`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;

use mesh::HostId;
use mesh::bus::Message;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::warn;

use super::answers::failed;
use super::change::{Change, Lost};
use super::entry::Entry;
use super::losses::{Losses, Why};
use super::settings::{Keep, Policy};
use super::store::Store;
use super::takers::Takers;
use super::words::{Ask, KEPT_BYTES, Reply};
use crate::JournalError;

/// How much is done in one commit.
const BATCH: usize = 256;
/// Messages of which it is known that they are kept.
const RECENT: usize = 4_096;
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

impl Job {
    /// How many messages it brings that are lost if it is not done, for which name, and why.
    fn came(&self) -> Option<(String, Why, u64)> {
        match self {
            Job::Put { name, .. } => Some((name.clone(), Why::Disk, 1)),
            Job::Gap { name, count, .. } => Some((name.clone(), Why::Pace, *count)),
            _ => None,
        }
    }
}

/// What the thread works with.
pub(super) struct Worker {
    path: PathBuf,
    pub(super) store: Option<Store>,
    pub(super) keeps: Vec<Keep>,
    pub(super) wrong: String,
    recent: Recent,
    pub(super) takers: Takers,
    pub(super) losses: Losses,
    /// How many messages of queues were looked at, for those who take.
    pub(super) looked: u64,
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
    lost: Vec<(String, Why, u64)>,
    /// Of which names what was missing is told.
    gaps: BTreeSet<String>,
    done: BTreeSet<(String, u64)>,
    grown: bool,
}

impl Made {
    fn lose(&mut self, keep: &Keep, lost: Lost) {
        self.lost.push((keep.name.clone(), Why::Limit, lost.crowded));
        self.lost.push((keep.name.clone(), Why::Age, lost.old));
    }
}

/// Notes in a stream that some messages are missing there.
fn put_gap(
    change: &Change,
    keep: &Keep,
    (count, at_ms): (u64, u64),
    made: &mut Made,
) -> Result<(), JournalError> {
    if keep.policy == Policy::Stream {
        let (_, lost) = change.put(keep, &Entry::gap(count, at_ms))?;
        made.lose(keep, lost);
        made.grown = true;
    }
    Ok(())
}

impl Worker {
    pub(super) fn new(
        path: PathBuf,
        grown: watch::Sender<u64>,
        has_room: Box<dyn Fn() -> bool + Send>,
        dropped: Box<dyn Fn(u64) + Send>,
    ) -> Worker {
        Worker {
            path,
            store: None,
            keeps: Vec::new(),
            wrong: String::new(),
            recent: Recent::default(),
            takers: Takers::default(),
            losses: Losses::default(),
            looked: 0,
            grown,
            has_room,
            dropped,
        }
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
                Job::Keeps(keeps, wrong) => {
                    (self.keeps, self.wrong) = (keeps, wrong);
                    let is_there = |name: &str| self.keeps.iter().any(|keep| keep.name == name);
                    self.takers.retain(is_there);
                    self.losses.retain(is_there);
                }
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
        let came: Vec<(String, Why, u64)> = jobs.iter().filter_map(Job::came).collect();
        if !came.is_empty() && !(self.has_room)() {
            // Nothing is kept, and what else waits is asked for again.
            return self.turn_away(came);
        }
        match self.change(jobs) {
            Ok(made) => {
                made.kept.into_iter().for_each(|(key, kept)| self.recent.note(key, kept));
                made.gaps.iter().for_each(|name| self.losses.close_gap(name));
                made.done.iter().for_each(|(name, seq)| self.takers.done(name, *seq));
                made.replies.into_iter().for_each(|(reply, told)| drop(reply.send(told)));
                made.lost.into_iter().for_each(|(name, why, count)| self.lose(&name, why, count));
                if made.grown {
                    self.grown.send_modify(|count| *count += 1);
                }
            }
            Err(error) => {
                warn!(error = %crate::chain(&error), "messages of the bus are not kept");
                self.turn_away(came);
            }
        }
    }

    /// What has come is not kept. Who reads a stream is told when the disk takes something again.
    fn turn_away(&mut self, came: Vec<(String, Why, u64)>) {
        for (name, why, count) in came {
            self.losses.leave_gap(&name, count);
            self.lose(&name, why, count);
        }
    }

    fn lose(&mut self, name: &str, why: Why, count: u64) {
        self.losses.add(name, why, count);
        if why != Why::Pace {
            (self.dropped)(count);
        }
    }

    fn change(&mut self, jobs: Vec<Job>) -> Result<Made, JournalError> {
        let keeps = self.keeps.clone();
        let change = self.store()?.begin()?;
        let mut made = Made::default();
        for job in jobs {
            match job {
                Job::Put { name, message, at_ms } => {
                    let Some(keep) = keeps.iter().find(|keep| keep.name == name) else { continue };
                    self.note_gap(&change, keep, at_ms, &mut made)?;
                    if message.body.len() > KEPT_BYTES {
                        made.lost.push((name, Why::Size, 1));
                        put_gap(&change, keep, (1, at_ms), &mut made)?;
                        continue;
                    }
                    let (seq, lost) = change.put(keep, &Entry::of(&message, at_ms))?;
                    made.kept.push(((message.from, message.id), (name, seq)));
                    made.lose(keep, lost);
                    made.grown = true;
                }
                Job::Gap { name, count, at_ms } => {
                    let Some(keep) = keeps.iter().find(|keep| keep.name == name) else { continue };
                    self.note_gap(&change, keep, at_ms, &mut made)?;
                    made.lost.push((name, Why::Pace, count));
                    put_gap(&change, keep, (count, at_ms), &mut made)?;
                }
                Job::Age => {
                    for keep in keeps.iter().filter(|keep| keep.age.is_some()) {
                        made.lose(keep, change.age(keep)?);
                    }
                }
                Job::Ask(ask, reply) => {
                    let told = self.apply(&change, &ask, &keeps, &mut made.done)?;
                    made.replies.push((reply, told));
                }
                Job::Keeps(..) | Job::Has { .. } => {}
            }
        }
        change.commit()?;
        Ok(made)
    }

    /// Before what comes next stands what was lost while the disk took nothing.
    fn note_gap(
        &self,
        change: &Change,
        keep: &Keep,
        at_ms: u64,
        made: &mut Made,
    ) -> Result<(), JournalError> {
        let missing = self.losses.gap(&keep.name);
        if missing == 0 || !made.gaps.insert(keep.name.clone()) {
            return Ok(());
        }
        put_gap(change, keep, (missing, at_ms), made)
    }

    /// The store, opened when it is needed first.
    pub(super) fn store(&mut self) -> Result<&Store, JournalError> {
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::time::{Duration, Instant};

    use mesh::bus::{Pattern, Subject};

    use super::super::words::Begin;
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
        bench.worker.takers.end_all(Instant::now());
        let again = bench.take().expect("somebody else has it");
        assert!(again.0 == 1 && again.1 != one.1 && !bench.done(one) && bench.done(again));
        assert_eq!(bench.take(), None);
    }

    #[test]
    fn a_queue_is_looked_through_once_for_each_pattern() {
        let mut bench = bench();
        let mut jobs = keep("jobs", Policy::Queue);
        jobs.count = 10_000;
        bench.worker.work(vec![Job::Keeps(vec![jobs], String::new())]);
        let (rare, all) = (100, 2_000);
        let is_rare = |n: u64| n.is_multiple_of(all / rare);
        let subject = |n: u64| if is_rare(n) { "jobs.rare" } else { "jobs.often" };
        bench.worker.work((0..all).map(|n| put(n, subject(n), 1)).collect());
        let mut take = |subject: &str| {
            let reply = bench.ask(Ask::Take { subject: subject.into(), wait_ms: 0 });
            Some((reply.records.first()?.seq, reply.token?))
        };
        let mine: Vec<_> = std::iter::from_fn(|| take("jobs.rare")).collect();
        assert_eq!(mine.len() as u64, rare);
        assert!(mine.is_sorted() && take("jobs.rare").is_none());
        // Beside each message each one who takes looks at the one behind his own.
        assert!(bench.worker.looked <= all + 2 * rare, "{} were looked at", bench.worker.looked);
        // What is given back is found, and what is new.
        bench.worker.takers.end_all(Instant::now());
        let again = bench.ask(Ask::Take { subject: "jobs.rare".into(), wait_ms: 0 });
        assert_eq!(again.records[0].seq, mine[0].0);
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
        // Of what came too fast the bus has told.
        assert_eq!((bench.has(3), bench.lost.load(Ordering::Relaxed)), (None, 2));
        bench.has_room.store(true, Ordering::Relaxed);
        bench.worker.work(vec![put(4, "news.x", 1), put(5, "news.x", 1)]);
        let (subject, reader) = ("news.>".into(), "r".into());
        let read = Ask::Read { subject, reader, from: Begin::First, after: None, wait_ms: 0 };
        let first = bench.ask(read.clone());
        assert_eq!((first.records.len(), first.missed, first.more), (1, 0, true));
        let Ask::Read { subject, reader, from, wait_ms, .. } = read else { unreachable!() };
        let after = Some(first.through);
        let next = bench.ask(Ask::Read { subject, reader, from, after, wait_ms });
        let missed = 1 + 1 + 4;
        assert_eq!((next.records.len(), next.missed, next.more), (2, missed, false));
        let Some(kept) = bench.ask(Ask::List).kept.pop() else { panic!("there are two") };
        let lost = [("disk", 1), ("pace", 4), ("size", 1)].map(|(why, n)| (why.to_owned(), n));
        assert_eq!((kept.dropped, kept.lost), (missed, lost.into()));
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
