//! The bus at one node: the programs here that publish, subscribe, ask and answer.
//!
//! Who wants what here is told to the core as a whole, and what the core delivers is handed to each
//! subscriber whose patterns match. Each has a queue of his own with a limit in number and in
//! bytes; who does not read loses messages, which is counted, told to him and an event, and holds
//! up nobody: what waits for several is held once, and who has next to nothing waiting finds room
//! also when others have taken what all share. A node that is cut off goes on serving its own
//! programs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mesh::bus::{
    Answer, BUS_BYTES, Interest, Message, PATTERNS, Pattern, Subject, SubjectError, is_reserved,
};
use mesh::{HostId, Input};
use metrics::{Counter, Page, Unit, Words};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::drive::Arrival;

/// Messages of all links that may wait for the drive loop.
pub(crate) const PLACES: usize = 64;
/// Subscribers of one node, and the patterns of one of them.
const SUBSCRIBERS: usize = 4_096;
const OF_ONE: usize = 64;
/// Patterns of all subscribers of one node: each message is compared with all of them.
const OF_ALL: usize = 4_096;
/// Bytes that may wait for all subscribers and all requests of one node; what waits for several is
/// counted once.
const ALL_WAITING: usize = 64 << 20;
/// Bytes beyond that for those for whom no more than a share waits.
const SPARE: usize = 64 << 20;
const SHARE: usize = BUS_BYTES;
/// Messages that may wait for one subscriber, and their bytes.
const QUEUE: usize = 1_024;
const WAITING: usize = 4 << 20;
/// Requests of one node that wait for answers, and answers that wait for one of them.
const REQUESTS: usize = 4_096;
const ANSWERS: usize = 256;
/// Requests that programs here have got and may answer; of more the oldest are forgotten.
const ANSWERABLE: usize = 4_096;
/// Programs that wait at once for a place before the drive loop, beside the links.
const SPEAKERS: usize = 16;
/// What is dropped for what this node keeps, by what it waited for.
pub(crate) const KEEP: &str = "keep";
/// How often drops are told, at most.
const TELL: Duration = Duration::from_secs(1);

/// A limit in bytes on what waits somewhere.
#[derive(Clone, Debug)]
pub(crate) struct Weights {
    waiting: Arc<AtomicUsize>,
    limit: usize,
}

/// What one thing weighs there, for as long as it waits.
#[derive(Debug)]
pub(crate) struct Weight {
    waiting: Arc<AtomicUsize>,
    bytes: usize,
}

impl Weights {
    pub(crate) fn new(limit: usize) -> Weights {
        Weights { waiting: Arc::default(), limit }
    }

    /// Takes so many bytes, if there is room. Nothing is too heavy for a place that is empty.
    pub(crate) fn take(&self, bytes: usize) -> Option<Weight> {
        let before = self.waiting.fetch_add(bytes, Ordering::AcqRel);
        let weight = Weight { waiting: self.waiting.clone(), bytes };
        (before == 0 || before + bytes <= self.limit).then_some(weight)
    }

    fn now(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }
}

impl Drop for Weight {
    fn drop(&mut self) {
        self.waiting.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// Something that was not done on the bus; nothing has left this node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// It is no subject, or no pattern.
    #[error("{text:?} is no {what}: {fault}")]
    Subject {
        /// What it should be.
        what: &'static str,
        /// What was given.
        text: String,
        /// What is wrong with it.
        fault: SubjectError,
    },
    /// The body is too long.
    #[error("the message has {0} bytes; the limit is {BUS_BYTES}")]
    TooLong(usize),
    /// A limit of this node is reached.
    #[error("this node takes no more {0}")]
    Full(&'static str),
    /// No program here has got this request, or it is long ago.
    #[error("no request {1} of node {0} has come to a program here")]
    Unasked(HostId, u64),
    /// There is nobody who would wait for this answer.
    #[error("the node is stopping")]
    Gone,
}

/// The way to the bus.
#[derive(Clone)]
pub struct Hub(Arc<Inner>);

struct Inner {
    host: HostId,
    node: String,
    inbox: mpsc::Sender<Arrival>,
    /// The places of the bus before the drive loop, and the turns of programs here to wait for one:
    /// so many that they speak do not crowd out the links.
    room: Arc<Semaphore>,
    speakers: Semaphore,
    state: Mutex<State>,
    /// Held from looking what is wanted here until the core is told, so that the last word is the
    /// newest.
    telling: tokio::sync::Mutex<()>,
    waiting: Weights,
    spare: Weights,
    published: Counter,
    delivered: Counter,
    dropped: Words<1>,
    /// Drops that are not told yet: on the way, and of what is kept.
    untold: [AtomicU64; 2],
    told: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct State {
    next: u64,
    subscribers: BTreeMap<u64, Subscriber>,
    requests: BTreeMap<u64, Waiting>,
    answerable: Answerable,
}

/// Requests that have come to programs here, the youngest last.
#[derive(Default)]
struct Answerable {
    known: BTreeSet<(HostId, u64)>,
    row: VecDeque<(HostId, u64)>,
}

impl Answerable {
    fn note(&mut self, request: (HostId, u64)) {
        if self.known.insert(request) {
            self.row.push_back(request);
        }
        while self.row.len() > ANSWERABLE {
            self.row.pop_front().map(|oldest| self.known.remove(&oldest));
        }
    }
}

struct Subscriber {
    /// It is the node itself, which alone hears what is its own.
    is_own: bool,
    patterns: Vec<Pattern>,
    queue: mpsc::Sender<(Message, Weighed)>,
    waiting: Weights,
    missed: Arc<AtomicU64>,
}

/// A request that waits for answers.
#[derive(Clone)]
struct Waiting {
    queue: mpsc::Sender<(Answer, Weighed)>,
    waiting: Weights,
}

/// What something weighs for the one for whom it waits, and for the node, which holds it once for
/// all of them.
type Weighed = (Weight, Arc<Weight>);

/// The room of a node for one thing.
struct Hold {
    bytes: usize,
    /// Of what all share.
    common: Option<Arc<Weight>>,
    /// If there is none: for those for whom little waits.
    spare: Option<Arc<Weight>>,
}

impl Hold {
    /// The room for one for whom so much waits.
    fn weigh(&self, waiting: &Weights) -> Option<Weighed> {
        let own = waiting.take(self.bytes)?;
        let little = self.spare.as_ref().filter(|_| waiting.now() <= SHARE);
        Some((own, self.common.as_ref().or(little)?.clone()))
    }
}

/// What somebody has subscribed to. Dropping it ends that.
pub struct Subscription {
    id: u64,
    hub: Hub,
    queue: mpsc::Receiver<(Message, Weighed)>,
    missed: Arc<AtomicU64>,
}

/// Something that has come to a subscriber.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// A message.
    Message(Message),
    /// So many did not find room since the last one.
    Missed(u64),
}

/// A message that was published.
pub(crate) struct Published {
    /// Tells it from all others of this node.
    pub(crate) id: u64,
    /// Whether anybody wants it, as far as this node knows.
    pub(crate) heard: bool,
}

/// A request that waits for answers. Dropping it ends that.
pub struct Asked {
    id: u64,
    hub: Hub,
    answers: mpsc::Receiver<(Answer, Weighed)>,
    /// Whether anybody wants the request, as far as this node knows.
    pub heard: bool,
}

impl Hub {
    pub(crate) fn new(
        (host, node): (HostId, &str),
        inbox: mpsc::Sender<Arrival>,
        room: Arc<Semaphore>,
    ) -> Hub {
        Hub(Arc::new(Inner {
            host,
            node: node.into(),
            inbox,
            room,
            speakers: Semaphore::new(SPEAKERS),
            state: Mutex::default(),
            telling: tokio::sync::Mutex::default(),
            waiting: Weights::new(ALL_WAITING),
            spare: Weights::new(SPARE),
            published: Counter::default(),
            delivered: Counter::default(),
            dropped: Words::default(),
            untold: Default::default(),
            told: Mutex::new(None),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of this node.
    pub(crate) fn host(&self) -> HostId {
        self.0.host
    }

    /// Subscribes to whatever matches one of these patterns, from here on.
    pub async fn subscribe(&self, patterns: &[String]) -> Result<Subscription, BusError> {
        self.listen(patterns, false).await
    }

    /// The same for the node itself.
    pub(crate) async fn subscribe_own(
        &self,
        patterns: &[String],
    ) -> Result<Subscription, BusError> {
        self.listen(patterns, true).await
    }

    async fn listen(&self, patterns: &[String], is_own: bool) -> Result<Subscription, BusError> {
        if patterns.len() > OF_ONE {
            return Err(BusError::Full("patterns of one subscriber"));
        }
        let pattern = |text: &String| {
            let wrong = |fault| BusError::Subject { what: "pattern", text: text.clone(), fault };
            Pattern::new(text).map_err(wrong)
        };
        let patterns = patterns.iter().map(pattern).collect::<Result<Vec<_>, _>>()?;
        let (queue, messages) = mpsc::channel(QUEUE);
        let missed = Arc::<AtomicU64>::default();
        let id = {
            let mut state = self.state();
            if state.subscribers.len() >= SUBSCRIBERS {
                return Err(BusError::Full("subscribers"));
            }
            let known: usize = state.subscribers.values().map(|one| one.patterns.len()).sum();
            if known + patterns.len() > OF_ALL {
                return Err(BusError::Full("patterns"));
            }
            state.next += 1;
            let id = state.next;
            let (missed, waiting) = (missed.clone(), Weights::new(WAITING));
            let one = Subscriber { is_own, patterns, queue, waiting, missed };
            state.subscribers.insert(id, one);
            id
        };
        let subscription = Subscription { id, hub: self.clone(), queue: messages, missed };
        self.tell_interest().await?;
        Ok(subscription)
    }

    /// Publishes a message. Returns whether anybody wants it, as far as this node knows.
    pub async fn publish(&self, subject: &str, body: Bytes) -> Result<bool, BusError> {
        Ok(self.say(subject, body).await?.heard)
    }

    /// The same, with what tells the message from all others of this node.
    pub(crate) async fn say(&self, subject: &str, body: Bytes) -> Result<Published, BusError> {
        self.send(subject, body, None).await
    }

    /// Publishes a message to which answers are wanted.
    pub async fn ask(&self, subject: &str, body: Bytes) -> Result<Asked, BusError> {
        let id = u64::from_le_bytes(certs::random::<8>());
        let (answers, waiting) = mpsc::channel(ANSWERS);
        {
            let mut state = self.state();
            if state.requests.len() >= REQUESTS {
                return Err(BusError::Full("requests"));
            }
            // Their number is limited, and so are their bytes.
            let waiting = Weights::new(ANSWERS * BUS_BYTES);
            state.requests.insert(id, Waiting { queue: answers, waiting });
        }
        let mut asked = Asked { id, hub: self.clone(), answers: waiting, heard: false };
        asked.heard = self.send(subject, body, Some(id)).await?.heard;
        Ok(asked)
    }

    /// Answers a request that has come to a program here.
    pub async fn answer(&self, to: HostId, request: u64, body: Bytes) -> Result<(), BusError> {
        check_body(&body)?;
        if !self.state().answerable.known.contains(&(to, request)) {
            return Err(BusError::Unasked(to, request));
        }
        let (from, node) = (self.0.host, self.0.node.clone());
        let answer = Answer { to, request, from, node, body };
        self.tell(Input::Answer(answer)).await
    }

    /// A place before the drive loop, once it is this program's turn.
    async fn place(&self) -> OwnedSemaphorePermit {
        let never = "nobody closes the places";
        let _turn = self.0.speakers.acquire().await.expect(never);
        self.0.room.clone().acquire_owned().await.expect(never)
    }

    async fn tell(&self, input: Input) -> Result<(), BusError> {
        let _place = self.place().await;
        let told = self.0.inbox.send(Arrival::Bus { input, _place }).await;
        told.map_err(|_| BusError::Gone)
    }

    async fn send(
        &self,
        subject: &str,
        body: Bytes,
        request: Option<u64>,
    ) -> Result<Published, BusError> {
        let wrong = |fault| BusError::Subject { what: "subject", text: subject.into(), fault };
        let subject = Subject::new(subject).map_err(wrong)?;
        check_body(&body)?;
        let id = u64::from_le_bytes(certs::random::<8>());
        let (from, node) = (self.0.host, self.0.node.clone());
        let message = Message { id, from, node, subject, request, body };
        let (reply, heard) = oneshot::channel();
        let _place = self.place().await;
        let sent = self.0.inbox.send(Arrival::Publish { message, reply, _place }).await;
        sent.map_err(|_| BusError::Gone)?;
        self.0.published.add(1);
        let heard = heard.await.map_err(|_| BusError::Gone)?;
        Ok(Published { id, heard })
    }

    /// Tells the core what is wanted here.
    async fn tell_interest(&self) -> Result<(), BusError> {
        let _turn = self.0.telling.lock().await;
        // What is wanted is looked up when it is told.
        let place = self.place().await;
        let input = Input::Subscribed(self.interest());
        let told = self.0.inbox.send(Arrival::Bus { input, _place: place }).await;
        told.map_err(|_| BusError::Gone)
    }

    fn interest(&self) -> Interest {
        let patterns: Vec<Pattern> = {
            let state = self.state();
            state.subscribers.values().flat_map(|one| one.patterns.iter().cloned()).collect()
        };
        Interest::of(patterns, PATTERNS)
    }

    /// A message has come for programs at this node.
    pub(crate) fn deliver(&self, message: &Message) {
        let mut lost = 0;
        let mut state = self.state();
        let request = message.request.map(|request| (message.from, request));
        let mut is_here = false;
        let hold = self.hold(message.body.len());
        let reserved = is_reserved(message.subject.as_str());
        for subscriber in state.subscribers.values() {
            if reserved && !subscriber.is_own {
                continue;
            }
            if !subscriber.patterns.iter().any(|pattern| pattern.matches(&message.subject)) {
                continue;
            }
            match (hold.weigh(&subscriber.waiting), subscriber.queue.try_reserve()) {
                (Some(weighed), Ok(place)) => {
                    place.send((message.clone(), weighed));
                    self.0.delivered.add(1);
                    is_here = true;
                }
                // It is just leaving.
                (_, Err(mpsc::error::TrySendError::Closed(()))) => {}
                (None, _) | (_, Err(mpsc::error::TrySendError::Full(()))) => {
                    subscriber.missed.fetch_add(1, Ordering::Relaxed);
                    lost += 1;
                }
            }
        }
        if let Some(request) = request.filter(|_| is_here) {
            state.answerable.note(request);
        }
        drop(state);
        self.dropped("subscriber", lost);
    }

    /// Room for something that has come, for as long as it waits for anybody.
    fn hold(&self, bytes: usize) -> Hold {
        let common = self.0.waiting.take(bytes).map(Arc::new);
        let spare = match common {
            Some(_) => None,
            None => self.0.spare.take(bytes).map(Arc::new),
        };
        Hold { bytes, common, spare }
    }

    /// An answer has come for a program at this node. One that nobody waits for is late.
    pub(crate) fn answered(&self, answer: Answer) {
        let waiting = self.state().requests.get(&answer.request).cloned();
        let Some(waiting) = waiting else { return };
        let has_room = match self.hold(answer.body.len()).weigh(&waiting.waiting) {
            Some(weighed) => !matches!(
                waiting.queue.try_send((answer, weighed)),
                Err(mpsc::error::TrySendError::Full(_))
            ),
            None => false,
        };
        if !has_room {
            self.dropped("request", 1);
        }
    }

    /// So many messages found no room.
    pub(crate) fn dropped(&self, place: &'static str, count: u64) {
        if count > 0 {
            self.0.dropped.add([place], count);
            self.0.untold[usize::from(place == KEEP)].fetch_add(count, Ordering::Relaxed);
        }
    }

    /// How many drops are to be told now: on the way, and of what is kept.
    pub(crate) fn take_dropped(&self) -> Option<[u64; 2]> {
        if self.0.untold.iter().all(|count| count.load(Ordering::Relaxed) == 0) {
            return None;
        }
        let mut told = self.0.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_some_and(|told| told.elapsed() < TELL) {
            return None;
        }
        *told = Some(Instant::now());
        Some(self.0.untold.each_ref().map(|count| count.swap(0, Ordering::Relaxed)))
    }

    pub(crate) fn put(&self, page: &mut Page) {
        let help = "Messages that programs at this node have published on the bus";
        let published = page.counter(Unit::None, "barid_bus_published", help);
        published.put(&[], self.0.published.now() as f64);
        let help = "Messages of the bus that were handed to programs at this node";
        let delivered = page.counter(Unit::None, "barid_bus_delivered", help);
        delivered.put(&[], self.0.delivered.now() as f64);
        let help = "Messages of the bus that found no room, by what they waited for";
        let dropped = page.counter(Unit::None, "barid_bus_dropped", help);
        self.0.dropped.put(["for"], dropped);
        let help = "Programs that have subscribed to something at this node";
        let subscribers = page.gauge(Unit::None, "barid_bus_subscribers", help);
        subscribers.put(&[], self.state().subscribers.len() as f64);
    }
}

fn check_body(body: &Bytes) -> Result<(), BusError> {
    if body.len() > BUS_BYTES { Err(BusError::TooLong(body.len())) } else { Ok(()) }
}

impl Subscription {
    /// What comes next; `None`: the node has stopped.
    pub async fn next(&mut self) -> Option<Received> {
        // Said before the message that comes after the gap.
        let missed = self.missed.swap(0, Ordering::Relaxed);
        if missed > 0 {
            return Some(Received::Missed(missed));
        }
        let (message, _weighed) = self.queue.recv().await?;
        Some(Received::Message(message))
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let hub = self.hub.clone();
        hub.state().subscribers.remove(&self.id);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { hub.tell_interest().await });
        }
    }
}

impl Asked {
    /// The next answer.
    pub async fn next(&mut self) -> Option<Answer> {
        self.answers.recv().await.map(|(answer, _weighed)| answer)
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.hub.state().requests.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(body: usize) -> Message {
        Message {
            id: 1,
            from: HostId(1),
            node: "n".into(),
            subject: Subject::new("a.b").expect("a subject"),
            request: None,
            body: vec![0; body].into(),
        }
    }

    fn hub() -> (Hub, mpsc::Receiver<Arrival>) {
        let (inbox, arrivals) = mpsc::channel(64);
        (Hub::new((HostId(1), "n"), inbox, Arc::new(Semaphore::new(PLACES))), arrivals)
    }

    #[tokio::test]
    async fn who_does_not_read_loses_messages_and_is_told_how_many() {
        let (hub, _arrivals) = hub();
        let mut slow = hub.subscribe(&["a.>".into()]).await.expect("there is room");
        let mut reads = hub.subscribe(&["a.*".into(), ">".into()]).await.expect("there is room");
        let other = hub.subscribe(&["b".into()]).await.expect("there is room");
        for _ in 0..QUEUE + 10 {
            hub.deliver(&message(1));
            assert_eq!(reads.next().await, Some(Received::Message(message(1))), "once for both");
        }
        assert_eq!(hub.take_dropped(), Some([10, 0]));
        assert_eq!(hub.take_dropped(), None, "it is told");
        assert_eq!(slow.next().await, Some(Received::Missed(10)));
        assert_eq!(slow.next().await, Some(Received::Message(message(1))));
        drop((slow, other));
        assert_eq!(hub.state().subscribers.len(), 1);
        assert_eq!(hub.interest().patterns().count(), 2, "what is left");
    }

    #[tokio::test]
    async fn what_is_the_nodes_own_comes_to_no_program() {
        let (hub, _arrivals) = hub();
        let mut program = hub.subscribe(&[">".into()]).await.expect("there is room");
        let mut own = hub.subscribe_own(&["_keep.who".into()]).await.expect("there is room");
        let asked =
            Message { subject: Subject::new("_keep.who").expect("a subject"), ..message(1) };
        hub.deliver(&asked);
        hub.deliver(&message(1));
        assert_eq!(own.next().await, Some(Received::Message(asked)));
        assert_eq!(program.next().await, Some(Received::Message(message(1))), "and nothing else");
    }

    #[tokio::test]
    async fn what_waits_is_limited_in_bytes() {
        let (hub, _arrivals) = hub();
        let mut slow = hub.subscribe(&["a.b".into()]).await.expect("there is room");
        for _ in 0..100 {
            hub.deliver(&message(BUS_BYTES));
        }
        assert_eq!(hub.take_dropped(), Some([100 - (WAITING / BUS_BYTES) as u64, 0]));
        assert!(matches!(slow.next().await, Some(Received::Missed(_))));
        assert!(matches!(slow.next().await, Some(Received::Message(_))));
        hub.deliver(&message(BUS_BYTES));
        assert_eq!(hub.take_dropped(), None, "one was read, so one has room");
    }

    #[tokio::test]
    async fn programs_that_hang_take_no_room_of_one_that_reads() {
        let (hub, _arrivals) = hub();
        let to = |subject: &str| {
            let subject = Subject::new(subject).expect("a subject");
            Message { subject, ..message(BUS_BYTES) }
        };
        let mut reads = hub.subscribe(&["a.b".into()]).await.expect("there is room");
        let mut hang = Vec::new();
        for _ in 0..ALL_WAITING / WAITING {
            hang.push(hub.subscribe(&[">".into()]).await.expect("there is room"));
        }
        for _ in 0..2 * WAITING / BUS_BYTES {
            hub.deliver(&message(BUS_BYTES));
            assert!(matches!(reads.next().await, Some(Received::Message(_))), "none is missing");
        }
        assert_eq!(hub.0.waiting.now(), WAITING, "they wait for the same");
        drop(hang);
        let mut hang = Vec::new();
        for n in 0..=ALL_WAITING / WAITING {
            let subject = format!("h.{n}");
            hang.push(hub.subscribe(std::slice::from_ref(&subject)).await.expect("there is room"));
            for _ in 0..WAITING / BUS_BYTES {
                hub.deliver(&to(&subject));
            }
        }
        assert_eq!((hub.0.waiting.now(), hub.0.spare.now()), (ALL_WAITING, SHARE));
        for burst in [1, 2, 64] {
            (0..burst).for_each(|_| hub.deliver(&message(SHARE / burst)));
            for _ in 0..burst {
                let next = reads.next().await;
                assert!(matches!(next, Some(Received::Message(_))), "{burst}: {next:?}");
            }
        }
        hub.take_dropped().expect("those that hang have lost some");
        let (queue, mut answers) = mpsc::channel(ANSWERS);
        let waiting = Weights::new(ANSWERS * BUS_BYTES);
        hub.state().requests.insert(1, Waiting { queue, waiting });
        let (to, from, node) = (HostId(1), HostId(2), String::new());
        let body = Bytes::from(vec![0; BUS_BYTES]);
        let answer = Answer { to, request: 1, from, node, body };
        for _ in 0..2 {
            hub.answered(answer.clone());
            assert!(answers.recv().await.is_some(), "nor of one that asks");
        }
    }

    #[tokio::test]
    async fn limits_and_faults_are_named() {
        let (hub, mut arrivals) = hub();
        let error = hub.publish("a..b", Bytes::new()).await.expect_err("no subject");
        assert_eq!(error.to_string(), "\"a..b\" is no subject: a word of it is empty");
        let error = hub.publish("a", vec![0; BUS_BYTES + 1].into()).await.expect_err("too long");
        assert_eq!(error.to_string(), "the message has 65537 bytes; the limit is 65536");
        let many = vec!["a".to_owned(); OF_ONE + 1];
        assert!(hub.subscribe(&many).await.is_err());
        assert!(arrivals.try_recv().is_err(), "nothing has left");
        let all: Vec<_> = (0..SUBSCRIBERS as u64)
            .map(|id| {
                let (queue, messages) = mpsc::channel(1);
                let (missed, waiting) = (Arc::default(), Weights::new(1));
                let patterns = Vec::new();
                let one = Subscriber { is_own: false, patterns, queue, waiting, missed };
                hub.state().subscribers.insert(id, one);
                messages
            })
            .collect();
        let error = hub.subscribe(&["a".into()]).await.err().expect("it is full");
        assert_eq!(error.to_string(), "this node takes no more subscribers");
        assert_eq!(all.len(), SUBSCRIBERS);
    }

    #[tokio::test]
    async fn programs_take_no_more_than_the_places_of_the_bus() {
        let (hub, mut arrivals) = hub();
        let talk: Vec<_> = (0..4 * PLACES)
            .map(|_| {
                let hub = hub.clone();
                tokio::spawn(async move { hub.publish("a", Bytes::new()).await })
            })
            .collect();
        let mut held = Vec::new();
        while held.len() < PLACES {
            held.push(arrivals.recv().await.expect("they speak"));
        }
        // All who could have gone on, have.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(arrivals.try_recv().is_err(), "the rest waits until somebody was heard");
        assert_eq!(hub.0.speakers.available_permits(), 0);
        drop(held.pop());
        assert!(arrivals.recv().await.is_some());
        talk.iter().for_each(tokio::task::JoinHandle::abort);
    }

    #[tokio::test]
    async fn only_what_has_come_to_a_program_here_is_answered() {
        let (hub, mut arrivals) = hub();
        let asks = |no| Message { request: Some(no), ..message(1) };
        let answer = async |no| hub.answer(HostId(1), no, Bytes::new()).await;
        hub.deliver(&asks(1));
        assert_eq!(answer(1).await, Err(BusError::Unasked(HostId(1), 1)), "nobody has got it");
        let mut reads = hub.subscribe(&["a.b".into()]).await.expect("there is room");
        assert!(matches!(arrivals.try_recv(), Ok(Arrival::Bus { .. })));
        hub.deliver(&asks(2));
        assert_eq!((answer(2).await, answer(2).await), (Ok(()), Ok(())), "two programs may");
        let other = hub.answer(HostId(2), 2, Bytes::new()).await;
        assert_eq!(other, Err(BusError::Unasked(HostId(2), 2)));
        for no in 3..=ANSWERABLE as u64 + 2 {
            hub.deliver(&asks(no));
            reads.next().await;
        }
        assert!(answer(2).await.is_err() && hub.state().answerable.known.len() == ANSWERABLE);
        assert_eq!(answer(3).await, Ok(()));
    }

    #[tokio::test]
    async fn answers_find_their_request_and_late_ones_nobody() {
        let (hub, mut arrivals) = hub();
        let asking = tokio::spawn({
            let hub = hub.clone();
            async move { hub.ask("a", Bytes::new()).await }
        });
        let Some(Arrival::Publish { message, reply, .. }) = arrivals.recv().await else {
            panic!("it is published");
        };
        reply.send(true).expect("it waits");
        let mut asked = asking.await.expect("it ends").expect("it is asked");
        let request = message.request.expect("it is a request");
        let (to, from, node) = (HostId(1), HostId(2), String::new());
        let answer = Answer { to, request, from, node, body: Bytes::from_static(b"yes") };
        hub.answered(answer.clone());
        assert!(asked.heard);
        assert_eq!(asked.next().await, Some(answer.clone()));
        drop(asked);
        hub.answered(answer);
        assert!(hub.state().requests.is_empty() && hub.take_dropped().is_none());
    }
}
