//! What hosts ask for themselves: a file now, or a file and its updates.
//!
//! They ask by the bus: each relay on the way has checked from which host a question comes, and
//! nothing of it is kept. A host speaks for itself only. What it names is looked up among what is
//! offered to it and becomes nothing else, no path here and no word of an order; and it may ask so
//! often only, whatever becomes of it.
//!
//! Questions are taken in as fast as they come, whatever is being answered: what one host asks for,
//! or how often, keeps nobody else's from being heard.

use std::sync::Arc;
use std::time::Instant;

use bus::Fault;
use bus::files::{FILES, FileAsk, FileSaid, OfferedFile, SUBJECT};
use bytes::Bytes;
use mesh::bus::Message;
use mesh::{HostId, OrderId};
use relay::bus::Received;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tracing::{debug, error, info, warn};

use super::book::Wish;
use super::dist::Distributor;
use super::domain::DomainPath;
use super::offers::NotOffered;
use super::queue::{Busy, Queue};
use super::types::Distribution;
use crate::fault::Failure;
use crate::orders::blocking;

/// How many questions are answered at once. Some have files read and packed.
const AT_ONCE: usize = 4;
/// How many hosts are told at once that they ask too often. Whoever else does hears nothing.
const REFUSING: usize = 16;
/// Orders of hosts that have asked whose ends are waited for at once. Of more nothing is said.
const WAITING: usize = 256;

/// Takes in what hosts ask.
pub(crate) struct Requests {
    answers: Answers,
    queue: Queue<(Asker, Bytes)>,
    refusing: Arc<Semaphore>,
}

/// Answers hosts.
#[derive(Clone)]
struct Answers {
    distributor: Distributor,
    waiting: Arc<Semaphore>,
}

/// Why nothing is done.
enum No {
    Offer(NotOffered),
    Failed(Failure),
    Other(&'static str, String),
}

impl From<NotOffered> for No {
    fn from(error: NotOffered) -> No {
        No::Offer(error)
    }
}

impl From<Busy> for No {
    fn from(busy: Busy) -> No {
        let text = match busy {
            Busy::Host(wait) => {
                let wait = wait.as_secs() + 1;
                format!("this host asks too often: try again in {wait} s")
            }
            Busy::All => "too many hosts ask at once: try again in a minute".into(),
        };
        No::Other("busy", text)
    }
}

impl From<Failure> for No {
    fn from(failure: Failure) -> No {
        No::Failed(failure)
    }
}

/// A host that asks, and under which number.
#[derive(Clone)]
struct Asker {
    id: HostId,
    request: u64,
    name: String,
}

impl Requests {
    pub(crate) fn new(distributor: Distributor) -> Requests {
        let answers = Answers { distributor, waiting: Arc::new(Semaphore::new(WAITING)) };
        let refusing = Arc::new(Semaphore::new(REFUSING));
        Requests { answers, queue: Queue::new(), refusing }
    }

    /// Answers, until the node stops.
    pub(crate) async fn run(mut self) {
        let node = self.answers.distributor.desk.node.clone();
        let mut questions = match node.bus().subscribe(&[SUBJECT.into()]).await {
            Ok(questions) => questions,
            Err(error) => return warn!(%error, "what hosts ask for is not heard"),
        };
        let mut answering = JoinSet::new();
        loop {
            while answering.len() < AT_ONCE
                && let Some((asker, body)) = self.queue.next()
            {
                answering.spawn(self.answers.clone().see_to(asker, body));
            }
            tokio::select! {
                received = questions.next() => match received {
                    Some(Received::Message(message)) => self.hear(message),
                    // Whoever hears nothing asks again.
                    Some(Received::Missed(count)) => {
                        debug!(count, "hosts asked too many questions at once");
                    }
                    None => return,
                },
                Some(ended) = answering.join_next() => {
                    if let Err(error) = ended {
                        error!(%error, "a question of a host was not answered");
                    }
                }
            }
        }
    }

    /// Waits for nothing.
    fn hear(&mut self, message: Message) {
        let Some(request) = message.request else { return };
        let hosts = self.answers.distributor.live.state().hosts.clone();
        let Some(row) = hosts.get(&message.from) else { return };
        let asker = Asker { id: message.from, request, name: row.name.clone() };
        self.queue.forget(hosts.len(), |id| hosts.contains_key(&id));
        let question = (asker.clone(), message.body);
        let Err(busy) = self.queue.add(asker.id, question, Instant::now()) else { return };
        if let Ok(place) = self.refusing.clone().try_acquire_owned() {
            let answers = self.answers.clone();
            debug!(host = asker.name, ?busy, "a host asks too often");
            tokio::spawn(async move {
                answers.say(&asker, &FileSaid::Refused(fault(busy.into()))).await;
                drop(place);
            });
        }
    }
}

impl Answers {
    async fn see_to(self, asker: Asker, body: Bytes) {
        let said = self.answer(&asker, &body).await.unwrap_or_else(|no| {
            let fault = fault(no);
            info!(host = asker.name, code = fault.code, "a host does not get what it asks for");
            FileSaid::Refused(fault)
        });
        self.say(&asker, &said).await;
    }

    async fn answer(&self, asker: &Asker, body: &Bytes) -> Result<FileSaid, No> {
        let wrong = |error| No::Other("bad-request", format!("no question about files: {error}"));
        let ask: FileAsk = serde_json::from_slice(body).map_err(wrong)?;
        let known = self.distributor.planner.fleet.known();
        let place = known.roll.place(&asker.name).ok_or_else(|| {
            let text = format!("{} has no record here, and so no domains", asker.name);
            No::Other("unknown-host", text)
        })?;
        let reader = known.reader();
        match ask {
            FileAsk::Request { files } => {
                if files.is_empty() || files.len() > FILES {
                    let text = format!("{} files: ask for 1 to {FILES} at once", files.len());
                    return Err(No::Other("bad-request", text));
                }
                let wanted = files.iter().map(|text| reader.wanted(place, text));
                let wanted = wanted.collect::<Result<Vec<_>, _>>()?;
                self.bring(asker, wanted).await
            }
            FileAsk::Subscribe { file } => {
                let path = reader.optional(place, &file)?;
                self.wish(asker, &path, true).await?;
                self.bring(asker, vec![path]).await
            }
            FileAsk::Unsubscribe { file } => {
                let path = reader.subscribed(place, &file)?;
                let changed = self.wish(asker, &path, false).await?;
                Ok(FileSaid::Done { file: path.to_string(), changed })
            }
            FileAsk::List => {
                let offered = reader.offers(place).into_iter().map(|path| {
                    let entry = &known.book.entries[path];
                    let wishes = entry.subscribers.as_ref();
                    let subscribed = match wishes.and_then(|wishes| wishes.get(&asker.name)) {
                        Some(Wish::Operator) => "operator",
                        Some(Wish::Host) => "host",
                        None => "",
                    };
                    OfferedFile {
                        path: path.to_string(),
                        frequency: entry.frequency.clone(),
                        subscribed: subscribed.into(),
                    }
                });
                Ok(FileSaid::Offered(offered.collect()))
            }
        }
    }

    async fn wish(&self, asker: &Asker, path: &DomainPath, wanted: bool) -> Result<bool, No> {
        let (fleet, name, path) =
            (self.distributor.planner.fleet.clone(), asker.name.clone(), path.clone());
        Ok(blocking(move || fleet.wish(&name, &path, wanted)).await?)
    }

    /// Gives the order, and says later what became of it.
    async fn bring(&self, asker: &Asker, wanted: Vec<DomainPath>) -> Result<FileSaid, No> {
        let files: Vec<String> = wanted.iter().map(DomainPath::to_string).collect();
        let maker = self.distributor.on_behalf_of(&format!("host {}", asker.name));
        let (told, ids) = maker.bring(&asker.name, wanted).await?;
        if told.orders.is_empty() {
            let why = told.notes.first().cloned().unwrap_or_default();
            return Err(No::Other("conflict", format!("nothing is delivered: {why}")));
        }
        let Distribution { orders, .. } = told;
        info!(host = asker.name, ?files, "a host gets what it has asked for");
        if let Ok(place) = self.waiting.clone().try_acquire_owned() {
            let (distributor, asker) = (self.distributor.clone(), asker.clone());
            tokio::spawn(tell_the_end(distributor, asker, ids, place));
        }
        Ok(FileSaid::Given { files, orders })
    }

    async fn say(&self, asker: &Asker, said: &FileSaid) {
        say(&self.distributor, asker, said).await;
    }
}

async fn say(distributor: &Distributor, asker: &Asker, said: &FileSaid) {
    let body = serde_json::to_vec(said).expect("a plain answer is valid JSON");
    let hub = distributor.desk.node.bus();
    if let Err(error) = hub.answer(asker.id, asker.request, body.into()).await {
        debug!(host = asker.name, %error, "a host is not answered");
    }
}

/// Waits until the orders are closed, and tells the host what became of them.
async fn tell_the_end(
    distributor: Distributor,
    asker: Asker,
    orders: Vec<OrderId>,
    _place: OwnedSemaphorePermit,
) {
    distributor.wait_for(orders.iter().copied().collect()).await;
    let (tables, id) = (distributor.desk.tables.clone(), asker.id);
    let ended = blocking(move || {
        let (mut state, mut fault) = ("ok", String::new());
        for order in orders {
            let (tally, _) = tables.tally(order)?;
            let own = tally.lines().find(|(_, hosts)| hosts.contains(id));
            let Some((outcome, _)) = own else { continue };
            if outcome.state == mesh::State::Ok {
                continue;
            }
            state = outcome.state.word();
            let body = outcome.body.map(|digest| tables.body(order, digest)).transpose()?;
            let answer = body.flatten().map(protos::Answer::decode);
            if let Some(Ok(protos::Answer { fault: Some(said), .. })) = answer {
                fault = said.detail;
            }
        }
        Ok(FileSaid::Ended { state: state.into(), fault })
    });
    match ended.await {
        Ok(said) => say(&distributor, &asker, &said).await,
        Err(failure) => warn!(error = %failure.error.message, "a host is not told of an end"),
    }
}

fn fault(no: No) -> Fault {
    let (code, message, help) = match no {
        No::Offer(error) => {
            let help = "`barid file subscriptions` lists what this host may have besides";
            ("denied".into(), error.to_string(), help.into())
        }
        No::Failed(failure) => (failure.error.code, failure.error.message, failure.error.help),
        No::Other(code, message) => (code.into(), message, String::new()),
    };
    Fault { code, message, help }
}
