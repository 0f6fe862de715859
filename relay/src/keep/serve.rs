//! The node that keeps: one subscription for each `[[keep]]`, one for questions.
//!
//! A message and the question whether it is kept come by one queue, so that the question finds what
//! went before it. Who waits for more takes one of a few places and waits beside everything else.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use mesh::bus::{Message, is_reserved};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{info, warn};

use super::figures::Shelves;
use super::settings::{self, Keep};
use super::store::LOOK;
use super::words::{Ask, Has, Reply, Who};
use super::worker::{Job, Worker};
use super::{HAS, WHO, answers, at_subject, has_subject};
use crate::bus::{Hub, KEEP, Received, Subscription};
use crate::space::Space;

/// How often it is looked whether the settings have changed.
const SETTINGS: Duration = Duration::from_secs(2);
/// Things that may wait for the thread; more wait where the hub counts them.
const JOBS: usize = 256;
/// Questions that are answered at once.
const ASKS: usize = 512;
/// The longest that somebody waits here for what is not there yet; and how often it is looked for
/// what another one has had for too long.
const LONGEST: Duration = Duration::from_secs(30);
const AGAIN: Duration = Duration::from_secs(1);

/// Keeps what the settings say, until the runtime ends. Nothing is opened before they say anything.
/// Returns what it is seen by.
pub(crate) fn start(state: &Path, hub: Hub, space: Space) -> Shelves {
    let server = Server::new(state, hub, space);
    let shelves = server.shelves.clone();
    tokio::spawn(server.run());
    shelves
}

/// What tells whether the settings have changed.
type Stamp = Option<(SystemTime, u64)>;

struct Server {
    path: PathBuf,
    hub: Hub,
    asked: Asked,
    shelves: Shelves,
    /// Gone once the thread runs.
    worker: Option<(Worker, mpsc::Receiver<Job>)>,
    stamp: Stamp,
    keeps: Arc<Vec<Keep>>,
    tasks: BTreeMap<String, (Keep, JoinHandle<()>)>,
    questions: Option<JoinHandle<()>>,
}

/// What is needed to answer.
#[derive(Clone)]
struct Asked {
    hub: Hub,
    jobs: mpsc::Sender<Job>,
    grown: watch::Receiver<u64>,
    places: Arc<Semaphore>,
}

impl Server {
    fn new(state: &Path, hub: Hub, space: Space) -> Server {
        let (jobs, inbox) = mpsc::channel(JOBS);
        let (grow, grown) = watch::channel(0);
        let lost = hub.clone();
        let worker = Worker::new(
            state.join("bus").join("keep.redb"),
            grow,
            Box::new(move || space.lack(space.floor()).is_none()),
            Box::new(move |count| lost.dropped(KEEP, count)),
        );
        let places = Arc::new(Semaphore::new(ASKS));
        Server {
            path: state.join("bus.toml"),
            asked: Asked { hub: hub.clone(), jobs, grown, places },
            hub,
            shelves: Shelves::default(),
            worker: Some((worker, inbox)),
            stamp: None,
            keeps: Arc::default(),
            tasks: BTreeMap::new(),
            questions: None,
        }
    }

    async fn run(mut self) {
        let mut aged = Instant::now();
        loop {
            let now = stamp(&self.path);
            if now != self.stamp {
                self.stamp = now;
                self.read().await;
            }
            if aged.elapsed() >= LOOK && self.keeps.iter().any(|keep| keep.age.is_some()) {
                aged = Instant::now();
                self.asked.jobs.send(Job::Age).await.ok();
            }
            // A subscription that found no place is tried again.
            self.listen().await;
            sleep(SETTINGS).await;
        }
    }

    async fn read(&mut self) {
        let path = self.path.clone();
        let read = spawn_blocking(move || settings::load(&path)).await;
        let wrong = match read.expect("reading settings does not panic") {
            Ok(keeps) => {
                self.keeps = Arc::new(keeps);
                String::new()
            }
            Err(error) => {
                let wrong = crate::chain(&error);
                warn!(wrong, "what the bus is to keep is not valid: all stays as it was");
                wrong
            }
        };
        if let Some((worker, inbox)) = self.worker.take_if(|_| !self.keeps.is_empty()) {
            let thread = std::thread::Builder::new().name("keep".into());
            match thread.spawn(move || worker.run(inbox)) {
                Ok(_) => self.shelves.begin(self.asked.jobs.clone()),
                Err(error) => warn!(%error, "the bus keeps nothing here"),
            }
        }
        if self.worker.is_none() {
            self.asked.jobs.send(Job::Keeps(self.keeps.to_vec(), wrong)).await.ok();
        }
        let keeps = self.keeps.clone();
        self.tasks.retain(|_, (keep, task)| {
            let stays = keeps.contains(keep);
            if !stays {
                task.abort();
            }
            stays
        });
        if let Some(questions) = self.questions.take() {
            questions.abort();
        }
    }

    /// Subscribes to whatever is to be kept, and to questions.
    async fn listen(&mut self) {
        for keep in self.keeps.iter() {
            if self.tasks.get(&keep.name).is_some_and(|(_, task)| !task.is_finished()) {
                continue;
            }
            let pattern = keep.pattern.as_str();
            let patterns = [pattern.to_owned(), has_subject(pattern)];
            match self.hub.subscribe_own(&patterns).await {
                Ok(subscription) => {
                    info!(keep = keep.name, pattern, policy = keep.policy.word(), "the bus keeps");
                    let task = take(keep.name.clone(), subscription, self.asked.clone());
                    self.tasks.insert(keep.name.clone(), (keep.clone(), tokio::spawn(task)));
                }
                Err(error) => warn!(keep = keep.name, %error, "the bus does not keep this"),
            }
        }
        let asks = self.questions.as_ref().is_some_and(|task| !task.is_finished());
        if !asks && !self.keeps.is_empty() {
            let own = at_subject(self.hub.host().0);
            match self.hub.subscribe_own(&[WHO.into(), own]).await {
                Ok(subscription) => {
                    let (keeps, asked) = (self.keeps.clone(), self.asked.clone());
                    let task = questions(subscription, keeps, asked);
                    self.questions = Some(tokio::spawn(task));
                }
                Err(error) => warn!(%error, "nobody can ask what the bus keeps"),
            }
        }
    }
}

/// Takes what comes for one `[[keep]]`.
async fn take(name: String, mut subscription: Subscription, asked: Asked) {
    while let Some(received) = subscription.next().await {
        let (name, at_ms) = (name.clone(), now_ms());
        let job = match received {
            Received::Missed(count) => Job::Gap { name, count, at_ms },
            Received::Message(message) if is_reserved(message.subject.as_str()) => {
                asked.has(&message).await;
                continue;
            }
            Received::Message(message) => Job::Put { name, message, at_ms },
        };
        if asked.jobs.send(job).await.is_err() {
            return;
        }
    }
}

/// Answers questions.
async fn questions(mut subscription: Subscription, keeps: Arc<Vec<Keep>>, asked: Asked) {
    while let Some(received) = subscription.next().await {
        // What is missed is asked again.
        let Received::Message(message) = received else { continue };
        if message.subject.as_str() == WHO {
            let who = serde_json::from_slice::<Who>(&message.body);
            if who.is_ok_and(|who| answers::keeps(&keeps, &who.subject, who.policy)) {
                asked.answer(&message, Reply::default().encode()).await;
            }
            continue;
        }
        let Ok(place) = asked.places.clone().try_acquire_owned() else {
            let full = Reply::fault("full", "too many ask this node at once");
            asked.answer(&message, full.encode()).await;
            continue;
        };
        let asked = asked.clone();
        tokio::spawn(async move {
            let _place = place;
            let reply = match serde_json::from_slice::<Ask>(&message.body) {
                Ok(ask) => asked.ask(ask).await,
                Err(error) => Reply::fault("bad-request", format!("it is no question: {error}")),
            };
            asked.answer(&message, reply.encode()).await;
        });
    }
}

impl Asked {
    /// Somebody wants to know whether a message is kept. It is asked in its turn, behind all that
    /// has come before.
    async fn has(&self, message: &Message) {
        let is_ours = message.subject.as_str().starts_with(HAS);
        let Ok(has) = serde_json::from_slice::<Has>(&message.body) else { return };
        let Ok(place) = self.places.clone().try_acquire_owned() else { return };
        // Each speaks of his own.
        if !is_ours || has.from != message.from.0 {
            return;
        }
        let (reply, told) = oneshot::channel();
        let job = Job::Has { from: message.from, id: has.id, reply };
        if self.jobs.send(job).await.is_err() {
            return;
        }
        let (asked, message) = (self.clone(), message.clone());
        tokio::spawn(async move {
            let _place = place;
            if let Ok(Some((name, through))) = told.await {
                let reply = Reply { name, through, ..Reply::default() };
                asked.answer(&message, reply.encode()).await;
            }
        });
    }

    /// Answers a question when there is something to say, or its time is over.
    async fn ask(&self, mut ask: Ask) -> Reply {
        let wait = Duration::from_millis(ask.wait_ms()).min(LONGEST);
        let until = Instant::now() + wait;
        let mut grown = self.grown.clone();
        loop {
            grown.borrow_and_update();
            let (reply, told) = oneshot::channel();
            if self.jobs.send(Job::Ask(ask.clone(), reply)).await.is_err() {
                return Reply::fault("disk", "this node keeps nothing any more");
            }
            let Ok(reply) = told.await else {
                return Reply::fault("disk", "the disk does not take it now");
            };
            if !reply.is_empty() || Instant::now() >= until {
                return reply;
            }
            // What was looked at need not be again whenever something comes.
            if let Ask::Read { after, .. } = &mut ask {
                *after = Some(reply.through);
            }
            timeout_at(until.min(Instant::now() + AGAIN), grown.changed()).await.ok();
        }
    }

    async fn answer(&self, message: &Message, body: Bytes) {
        let Some(request) = message.request else { return };
        // Whoever has asked may have gone, and this node be about to.
        self.hub.answer(message.from, request, body).await.ok();
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn stamp(path: &Path) -> Stamp {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len()))
}
