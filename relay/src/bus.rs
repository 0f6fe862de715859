//! The bus at one node: the programs here that publish, subscribe, ask and answer.
//!
//! Who wants what here is told to the core as a whole, and what the core delivers is handed to each
//! subscriber whose patterns match. Each has a queue of his own with a limit in number and in
//! bytes; who does not read loses messages, which is counted, told to him and an event, and holds
//! up nobody: what waits for several is held once, and who has next to nothing waiting finds room
//! also when others have taken what all share. A node that is cut off goes on serving its own
//! programs.

mod ledger;
mod patience;
mod state;
mod weights;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use mesh::bus::{Answer, BUS_BYTES, Interest, Message, PATTERNS, Pattern, Subject, SubjectError};
use mesh::{HostId, Input};
use metrics::{Counter, Page, Unit, Words};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep};

use crate::drive::Arrival;

pub(crate) use self::ledger::{Ledger, Lost};
pub(crate) use self::patience::{Patience, Prospect, Room};
use self::state::{OF_USER, Owner, State, Subscriber, Waiting};
use self::weights::{Rooms, Waits};
pub(crate) use self::weights::{Weight, Weights};

/// Messages of all links that may wait for the drive loop.
pub(crate) const PLACES: usize = 64;
/// Patterns of one subscriber.
const OF_ONE: usize = 64;
/// Messages that may wait for one subscriber, and their bytes.
const QUEUE: usize = 1_024;
const WAITING: usize = 4 << 20;
/// Requests of one node that wait for answers, and answers that wait for one of them.
const REQUESTS: usize = 4_096;
const ANSWERS: usize = 256;
/// Programs that wait at once for a place before the drive loop, beside the links.
const SPEAKERS: usize = 16;
/// What is dropped, by what it waited for: a link without room, one that broke and what of that
/// nobody knows, a subscriber, a request, what this node keeps.
pub(crate) const LINK: &str = "link";
pub(crate) const BROKEN: &str = "broken-link";
pub(crate) const UNSURE: &str = "broken-link-unsure";
const SUBSCRIBER: &str = "subscriber";
const REQUEST: &str = "request";
pub(crate) const KEEP: &str = "keep";
/// How often drops are told, at most.
const TELL: Duration = Duration::from_secs(1);

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
    #[error("this node has {most} {what}, the most it takes")]
    Full {
        /// Of what.
        what: &'static str,
        /// How many.
        most: usize,
    },
    /// One user has all that he may.
    #[error("user {user} would have more than {OF_USER} patterns, the most of one user at a node")]
    Share {
        /// Who.
        user: u32,
    },
    /// There are too many patterns at once.
    #[error("a subscription has {OF_ONE} patterns at most")]
    TooMany,
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
    rooms: Rooms,
    published: Counter,
    waited: Counter,
    delivered: Counter,
    dropped: Words<1>,
    /// Drops that are not told yet, as [`Dropped`] has them.
    untold: [AtomicU64; 4],
    told: Mutex<Option<Instant>>,
}

/// What somebody has subscribed to. Dropping it ends that.
pub struct Subscription {
    id: u64,
    hub: Hub,
    queue: mpsc::Receiver<Waits<Message>>,
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

/// Messages that were dropped, and are to be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dropped {
    /// They found no room.
    pub(crate) room: u64,
    /// They were lost where they are kept.
    pub(crate) kept: u64,
    /// They waited for a link that broke, or were under way on it.
    pub(crate) links: u64,
    /// They were under way on one, and nobody says whether they have arrived.
    pub(crate) unsure: u64,
}

/// What the drive loop says to a message that is to be published.
pub(crate) enum Taken {
    /// It is on its way. Whether anybody wants it, as far as this node knows.
    Gone(bool),
    /// Nobody who wants it has room; it comes back.
    Wait(Message),
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
    answers: mpsc::Receiver<Waits<Answer>>,
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
            rooms: Rooms::default(),
            published: Counter::default(),
            waited: Counter::default(),
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
        self.listen(patterns, Owner::Own).await
    }

    /// The same for a program of another user.
    pub async fn subscribe_as(
        &self,
        user: u32,
        patterns: &[String],
    ) -> Result<Subscription, BusError> {
        self.listen(patterns, Owner::User(user)).await
    }

    /// The same for the node itself.
    pub(crate) async fn subscribe_own(
        &self,
        patterns: &[String],
    ) -> Result<Subscription, BusError> {
        self.listen(patterns, Owner::Node).await
    }

    async fn listen(&self, patterns: &[String], owner: Owner) -> Result<Subscription, BusError> {
        if patterns.len() > OF_ONE {
            return Err(BusError::TooMany);
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
            state.admit(owner, patterns.len())?;
            state.next += 1;
            let id = state.next;
            let (missed, waiting) = (missed.clone(), Weights::new(WAITING));
            let patience = Patience::default();
            let one = Subscriber { owner, patterns, queue, waiting, patience, missed };
            state.enter(id, one);
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
                return Err(BusError::Full { what: "open requests", most: REQUESTS });
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
        let mut message = Message { id, from, node, subject, request, body };
        let (until, mut pause) = (Instant::now() + patience::LONGEST, patience::FIRST);
        loop {
            let (reply, said) = oneshot::channel();
            let _place = self.place().await;
            let waits = Instant::now() < until;
            let sent = self.0.inbox.send(Arrival::Publish { message, waits, reply, _place }).await;
            sent.map_err(|_| BusError::Gone)?;
            match said.await.map_err(|_| BusError::Gone)? {
                Taken::Gone(heard) => {
                    self.0.published.add(1);
                    return Ok(Published { id, heard });
                }
                Taken::Wait(back) => message = back,
            }
            if pause == patience::FIRST {
                self.0.waited.add(1);
            }
            sleep(pause).await;
            pause = (pause * 2).min(patience::NEXT);
        }
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
            state.all().flat_map(|one| one.patterns.iter().cloned()).collect()
        };
        Interest::of(patterns, PATTERNS)
    }

    /// What is to be expected of programs here that want a message. Each is looked at, so that it
    /// is known who has read since he was full.
    pub(crate) fn look(&self, subject: &Subject, prospect: &mut Prospect) {
        let mut state = self.state();
        for subscriber in state.wanting(subject) {
            prospect.note(&subscriber.patience, subscriber.room(prospect.bytes()));
        }
    }

    /// A message has come for programs at this node.
    pub(crate) fn deliver(&self, message: &Message) {
        let mut lost = 0;
        let mut state = self.state();
        let request = message.request.map(|request| (message.from, request));
        let mut is_here = false;
        let hold = self.0.rooms.hold(message.clone(), message.body.len());
        for subscriber in state.wanting(&message.subject) {
            match (hold.weigh(&subscriber.waiting), subscriber.queue.try_reserve()) {
                (Some(waits), Ok(place)) => {
                    place.send(waits);
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
        self.dropped(SUBSCRIBER, lost);
    }

    /// An answer has come for a program at this node. One that nobody waits for is late.
    pub(crate) fn answered(&self, answer: Answer) {
        let waiting = self.state().requests.get(&answer.request).cloned();
        let Some(waiting) = waiting else { return };
        let bytes = answer.body.len();
        let has_room = match self.0.rooms.hold(answer, bytes).weigh(&waiting.waiting) {
            Some(waits) => {
                let sent = waiting.queue.try_send(waits);
                !matches!(sent, Err(mpsc::error::TrySendError::Full(_)))
            }
            None => false,
        };
        if !has_room {
            self.dropped(REQUEST, 1);
        }
    }

    /// So many messages found no room, or lost what they waited for.
    pub(crate) fn dropped(&self, place: &'static str, count: u64) {
        if count > 0 {
            self.0.dropped.add([place], count);
            let why = match place {
                KEEP => 1,
                BROKEN => 2,
                UNSURE => 3,
                _ => 0,
            };
            self.0.untold[why].fetch_add(count, Ordering::Relaxed);
        }
    }

    /// So many were under way on links that are over.
    pub(crate) fn lost(&self, lost: Lost) {
        self.dropped(BROKEN, lost.surely);
        self.dropped(UNSURE, lost.perhaps);
    }

    /// How many drops are to be told now.
    pub(crate) fn take_dropped(&self) -> Option<Dropped> {
        if self.0.untold.iter().all(|count| count.load(Ordering::Relaxed) == 0) {
            return None;
        }
        let mut told = self.0.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_some_and(|told| told.elapsed() < TELL) {
            return None;
        }
        *told = Some(Instant::now());
        let [room, kept, links, unsure] = &self.0.untold;
        let take = |count: &AtomicU64| count.swap(0, Ordering::Relaxed);
        let (room, kept) = (take(room), take(kept));
        Some(Dropped { room, kept, links: take(links), unsure: take(unsure) })
    }

    pub(crate) fn put(&self, page: &mut Page) {
        let help = "Messages that programs at this node have published on the bus";
        let published = page.counter(Unit::None, "barid_bus_published", help);
        published.put(&[], self.0.published.now() as f64);
        let help = "Messages that programs here published, and that waited until there was room";
        let waited = page.counter(Unit::None, "barid_bus_waited", help);
        waited.put(&[], self.0.waited.now() as f64);
        let help = "Messages of the bus that were handed to programs at this node";
        let delivered = page.counter(Unit::None, "barid_bus_delivered", help);
        delivered.put(&[], self.0.delivered.now() as f64);
        let help = "Messages of the bus that were dropped, by what they waited for";
        let dropped = page.counter(Unit::None, "barid_bus_dropped", help);
        self.0.dropped.put(["for"], dropped);
        let help = "Programs that have subscribed to something at this node";
        let subscribers = page.gauge(Unit::None, "barid_bus_subscribers", help);
        subscribers.put(&[], self.state().all().len() as f64);
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
        Some(Received::Message(self.queue.recv().await?.take()))
    }

    /// What has come already.
    pub fn ready(&mut self) -> Option<Received> {
        let missed = self.missed.swap(0, Ordering::Relaxed);
        if missed > 0 {
            return Some(Received::Missed(missed));
        }
        Some(Received::Message(self.queue.try_recv().ok()?.take()))
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let hub = self.hub.clone();
        hub.state().leave(self.id);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { hub.tell_interest().await });
        }
    }
}

impl Asked {
    /// The next answer.
    pub async fn next(&mut self) -> Option<Answer> {
        self.answers.recv().await.map(Waits::take)
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.hub.state().requests.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::state::{ANSWERABLE, OF_ALL, SUBSCRIBERS};
    use super::weights::{ALL, ENTRY, SHARE};
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
        let room = |room| Some(Dropped { room, ..Dropped::default() });
        assert_eq!(hub.take_dropped(), room(10));
        assert_eq!(hub.take_dropped(), None, "it is told");
        assert_eq!(slow.next().await, Some(Received::Missed(10)));
        assert_eq!(slow.next().await, Some(Received::Message(message(1))));
        drop((slow, other));
        assert_eq!(hub.state().all().len(), 1);
        assert_eq!(hub.interest().patterns().count(), 2, "what is left");
    }

    #[tokio::test]
    async fn who_comes_and_goes_is_seen_while_one_subject_is_published() {
        let (hub, _arrivals) = hub();
        let room = |hub: &Hub| {
            let mut prospect = Prospect::new(1);
            hub.look(&message(1).subject, &mut prospect);
            prospect.has_room()
        };
        assert!(!room(&hub), "nobody wants it");
        let mut one = hub.subscribe(&["a.b".into()]).await.expect("there is room");
        hub.deliver(&message(1));
        let mut two = hub.subscribe(&["a.*".into()]).await.expect("there is room");
        hub.deliver(&message(2));
        assert_eq!(one.next().await, Some(Received::Message(message(1))));
        for each in [&mut one, &mut two] {
            assert_eq!(each.next().await, Some(Received::Message(message(2))));
        }
        drop(one);
        hub.deliver(&message(3));
        assert_eq!(two.next().await, Some(Received::Message(message(3))));
        assert!(room(&hub) && hub.take_dropped().is_none());
        drop(two);
        assert!(!room(&hub));
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
        let fit = (WAITING / (BUS_BYTES + ENTRY)) as u64;
        let dropped = Dropped { room: 100 - fit, ..Dropped::default() };
        assert_eq!(hub.take_dropped(), Some(dropped));
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
        for _ in 0..ALL / WAITING {
            hang.push(hub.subscribe(&[">".into()]).await.expect("there is room"));
        }
        for _ in 0..2 * WAITING / BUS_BYTES {
            hub.deliver(&message(BUS_BYTES));
            assert!(matches!(reads.next().await, Some(Received::Message(_))), "none is missing");
        }
        let (common, _) = hub.0.rooms.now();
        assert!(common < WAITING + (1 << 20), "they wait for the same: {common}");
        drop(hang);
        let mut hang = Vec::new();
        for n in 0..ALL / WAITING + 2 {
            let subject = format!("h.{n}");
            hang.push(hub.subscribe(std::slice::from_ref(&subject)).await.expect("there is room"));
            for _ in 0..WAITING / BUS_BYTES {
                hub.deliver(&to(&subject));
            }
        }
        let (common, spare) = hub.0.rooms.now();
        assert!(common > ALL - 2 * SHARE && (1..2 * SHARE).contains(&spare), "{common} {spare}");
        for burst in [1, 2, 64] {
            (0..burst).for_each(|_| hub.deliver(&message(SHARE / burst - ENTRY)));
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
                let owner = Owner::Own;
                let patience = Patience::default();
                let one = Subscriber { owner, patterns, queue, waiting, patience, missed };
                hub.state().enter(id, one);
                messages
            })
            .collect();
        let error = hub.subscribe(&["a".into()]).await.err().expect("it is full");
        let text = "this node has 4096 subscribers, the most it takes";
        assert_eq!(error.to_string(), text);
        assert_eq!(all.len(), SUBSCRIBERS);
    }

    #[tokio::test]
    async fn one_user_leaves_patterns_for_the_others() {
        let (hub, mut arrivals) = hub();
        tokio::spawn(async move { while arrivals.recv().await.is_some() {} });
        let many = vec!["a".to_owned(); OF_ONE];
        let mut held = Vec::new();
        for _ in 0..OF_USER / OF_ONE {
            held.push(hub.subscribe_as(1_000, &many).await.expect("it is his share"));
        }
        let error = hub.subscribe_as(1_000, &many[..1]).await.err().expect("it is used up");
        let text = "user 1000 would have more than 1024 patterns, the most of one user at a node";
        assert_eq!(error.to_string(), text);
        assert!(hub.subscribe_as(1_001, &many).await.is_ok(), "another has his own");
        held.pop();
        assert!(hub.subscribe_as(1_000, &many).await.is_ok());
        for _ in 0..(OF_ALL - OF_USER) / OF_ONE + 1 {
            held.push(hub.subscribe(&many).await.expect("root has no share"));
        }
        let error = hub.subscribe(&many).await.err().expect("all are used up");
        assert_eq!(error.to_string(), "this node has 4096 patterns, the most it takes");
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

    /// Says to each message what the drive loop would, if nobody else wants it.
    async fn attend(hub: Hub, mut arrivals: mpsc::Receiver<Arrival>) {
        while let Some(arrival) = arrivals.recv().await {
            let Arrival::Publish { message, waits, reply, .. } = arrival else { continue };
            let mut prospect = Prospect::new(message.body.len());
            hub.look(&message.subject, &mut prospect);
            if waits && prospect.is_awaited() {
                reply.send(Taken::Wait(message)).ok();
                continue;
            }
            reply.send(Taken::Gone(true)).ok();
            hub.deliver(&message);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_publishes_goes_at_the_pace_of_who_reads_and_waits_for_nobody_else() {
        let (hub, arrivals) = hub();
        tokio::spawn(attend(hub.clone(), arrivals));
        let mut reads = hub.subscribe(&["a.b".into()]).await.expect("there is room");
        let deaf = hub.subscribe(&["a.>".into()]).await.expect("there is room");
        let many = 8 * QUEUE as u64;
        let speak = async |count| {
            let begun = Instant::now();
            for _ in 0..count {
                hub.publish("a.b", Bytes::new()).await.expect("it goes on");
            }
            begun.elapsed()
        };
        let read = async {
            for _ in 0..many {
                sleep(Duration::from_millis(1)).await;
                assert!(matches!(reads.next().await, Some(Received::Message(_))), "none is lost");
            }
        };
        tokio::join!(speak(many), read);
        assert_eq!(deaf.missed.load(Ordering::Relaxed), many - QUEUE as u64, "he has his queue");
        drop(reads);
        let took = speak(many).await;
        assert!(took < Duration::from_secs(1), "he was waited for long enough: {took:?}");
        // One who has read, and then hangs.
        let mut deaf = deaf;
        while let Some(heard) = deaf.ready() {
            drop(heard);
        }
        let took = speak(many).await;
        assert!((1..3).contains(&took.as_secs()), "once: {took:?}");
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
        assert!(reply.send(Taken::Gone(true)).is_ok(), "it waits");
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
