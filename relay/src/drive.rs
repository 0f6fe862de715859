//! The drive loop: one task owns the node, everything else sends to it.
//!
//! Inputs come through one bounded inbox, outputs are obeyed in their order. The loop waits for
//! nothing but the journal's queue: sending is `try_send`, and pulls, dials, commands and installs
//! are tasks that report back through the inbox.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use mesh::bus::{Message, Wanting};
use mesh::{
    Asker, Digest, Event, Frame, HostId, Input, LinkId, Node, Output, Peer, PullFault, Record,
    Said, Time,
};
use tokio::sync::{OwnedSemaphorePermit, broadcast, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, error, info, trace, warn};

use crate::alerting::Outlook;
use crate::bus::{BROKEN, Hub, Ledger, Prospect, Taken, UNSURE};
use crate::congestion;
use crate::dial::Dialler;
use crate::exec::Executor;
use crate::journal::JournalError;
use crate::link::{Link, Sealed};
use crate::live::{Place, Watched};
use crate::metrics::traffic::Traffic;
use crate::metrics::{Counts, Sight};
use crate::notice::Notices;
use crate::removed::{Removed, Retelling};
use crate::skew;
use crate::steer::Helm;
use crate::sweep::Sweeper;
use crate::transfer::Transfers;
use crate::writer::{Entry, Progress};

/// How long the end of a link may take to follow the end of its streams.
const BROKEN_WAIT: std::time::Duration = std::time::Duration::from_secs(1);

/// What comes to the drive loop.
pub(crate) enum Arrival {
    /// Something for the core.
    Input(Input),
    /// A preview for the core, and the place that it takes here.
    Preview { input: Input, place: Place },
    /// Something of the bus, and the place that it takes here.
    Bus { input: Input, _place: OwnedSemaphorePermit },
    /// A program at this node publishes something. Returns whether anybody wants it.
    Publish {
        message: Message,
        /// Whether it waits if nobody who wants it has room.
        waits: bool,
        reply: oneshot::Sender<Taken>,
        _place: OwnedSemaphorePermit,
    },
    /// A new link, before any of its frames.
    Linked(Box<Link>),
    /// A parent has said hello, and which epoch it knows.
    Met { link: LinkId, epoch: Option<u64> },
    /// A pull by a link has ended.
    Pulled { link: LinkId, content: Digest, result: Result<(), PullFault> },
    /// A peer has said hello, and what of the bus it has taken on links that are over.
    Counted { link: LinkId, peer: Peer, past: Vec<protos::Taken> },
    /// Somebody wants content and waits for the reply.
    Want { by: Asker, content: Digest, reply: oneshot::Sender<Result<(), PullFault>> },
    /// Somebody wants to know by which link a host is reached.
    Way { host: HostId, reply: oneshot::Sender<Option<LinkId>> },
    /// The parent has said what time it is there: by how much this clock is ahead, in seconds, and
    /// what is to be said of it.
    Clock { ahead: i64, said: Option<skew::Said>, parent: HostId },
    /// Somebody wants to know how the core stands.
    Look(oneshot::Sender<Sight>),
    /// Somebody wants to know who lives below.
    Subtree(oneshot::Sender<mesh::Subtree>),
}

/// How a link stands, for status pages.
#[derive(Clone, Debug)]
pub struct LinkStatus {
    /// Who is at the other end.
    pub host: HostId,
    /// Its name, by its certificate.
    pub name: String,
    /// Whether it is this node's parent.
    pub is_parent: bool,
    /// From where it is linked.
    pub address: String,
    /// Since when.
    pub since: SystemTime,
    /// Round-trip time, in microseconds.
    pub rtt_us: u64,
    /// UDP payload bytes sent, with all that QUIC adds.
    pub wire_sent: u64,
    /// UDP payload bytes received.
    pub wire_received: u64,
    /// Content bytes sent.
    pub content_sent: u64,
    /// Content bytes received.
    pub content_received: u64,
    /// What content may go down it, in bits a second; 0: as much as it carries.
    pub cap: u64,
    /// Whether it gives way to other traffic.
    pub yields: bool,
    /// Bytes a second that it was seen to carry; 0: not known, as of a short one, and of one that
    /// has carried little.
    pub rate: u64,
    /// For how long nothing has come from the peer.
    pub silent: Duration,
    /// Whether the peer has missed two beats.
    pub suspect: bool,
}

/// A view of the links for others than the drive loop.
#[derive(Clone, Default)]
pub(crate) struct Links(Arc<Mutex<BTreeMap<LinkId, Arc<Link>>>>);

impl Links {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<LinkId, Arc<Link>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn status(&self) -> Vec<LinkStatus> {
        self.lock().values().map(|link| status(link)).collect()
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Arc<Link>> {
        self.lock().values().cloned().collect()
    }

    /// The connection of a link, if it stands.
    pub(crate) fn conn(&self, link: LinkId) -> Option<quinn::Connection> {
        self.lock().get(&link).map(|link| link.conn.clone())
    }

    /// The endpoints that were made for links of their own.
    pub(crate) fn endpoints(&self) -> Vec<quinn::Endpoint> {
        self.lock().values().filter_map(|link| link.endpoint.clone()).collect()
    }

    /// The link to the parent, if there is one.
    pub(crate) fn parent_link(&self) -> Option<Arc<Link>> {
        let links = self.lock();
        links.values().find(|link| matches!(link.peer, Peer::Parent { .. })).cloned()
    }

    /// The connection to the parent, if there is one.
    pub(crate) fn parent(&self) -> Option<quinn::Connection> {
        self.parent_link().map(|link| link.conn.clone())
    }
}

fn status(link: &Link) -> LinkStatus {
    let stats = link.conn.stats();
    let (silent, suspect) = link.counters.heard.silence();
    let load = |n: &std::sync::atomic::AtomicU64| n.load(std::sync::atomic::Ordering::Relaxed);
    LinkStatus {
        host: link.peer.host(),
        name: link.name.clone(),
        is_parent: matches!(link.peer, Peer::Parent { .. }),
        address: link.conn.remote_address().to_string(),
        since: link.since,
        rtt_us: u64::try_from(link.conn.rtt().as_micros()).unwrap_or(u64::MAX),
        wire_sent: stats.udp_tx.bytes,
        wire_received: stats.udp_rx.bytes,
        content_sent: load(&link.counters.content_sent),
        content_received: load(&link.counters.content_received),
        cap: link.bulk.as_ref().map_or(0, |bulk| bulk.rate()),
        yields: congestion::yields(&link.conn),
        rate: congestion::known(&link.conn).map_or(0, |known| known.rate),
        silent,
        suspect,
    }
}

/// Why a node stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// The database failed: what was not acknowledged is not there; start again.
    #[error("stopping, because the node's database can no longer be written")]
    Journal(#[source] Arc<JournalError>),
}

/// The clock of the core: time since the node started.
#[derive(Clone, Copy)]
pub(crate) struct Clock(pub(crate) Instant);

impl Clock {
    fn now(&self) -> Time {
        Time(self.0.elapsed())
    }
}

/// The drive loop's hands.
pub(crate) struct Io {
    pub(crate) clock: Clock,
    pub(crate) links: Links,
    pub(crate) helm: Helm,
    pub(crate) dialler: Option<Dialler>,
    pub(crate) transfers: Transfers,
    pub(crate) executor: Option<Executor>,
    pub(crate) journal: mpsc::Sender<Vec<Entry>>,
    /// What the present drain wants to be kept.
    pub(crate) entries: Vec<Entry>,
    pub(crate) progress: watch::Receiver<Progress>,
    pub(crate) inbox: mpsc::Sender<Arrival>,
    pub(crate) removed: Removed,
    pub(crate) retelling: Retelling,
    pub(crate) sweeper: Sweeper,
    pub(crate) waiting: BTreeMap<Asker, oneshot::Sender<Result<(), PullFault>>>,
    pub(crate) tasks: JoinSet<()>,
    /// For commands that run here: who is watched.
    pub(crate) watched: watch::Sender<Watched>,
    /// For those who watch at the root.
    pub(crate) previews: broadcast::Sender<Said>,
    /// The place of the preview that is being handled.
    pub(crate) place: Option<Place>,
    /// What is above this node, and who wants to know.
    pub(crate) above: mesh::alerts::Above,
    pub(crate) outlook: watch::Sender<Outlook>,
    /// What this node notices itself.
    pub(crate) notices: Notices,
    /// What links have carried, and what else is counted.
    pub(crate) traffic: Traffic,
    pub(crate) counts: Arc<Counts>,
    /// Programs at this node that speak on the bus.
    pub(crate) hub: Hub,
    /// What of the bus was under way on links that are over.
    pub(crate) ledger: Ledger,
}

/// Runs the node until it is told to stop.
pub(crate) async fn drive(
    mut node: Node,
    mut io: Io,
    mut inbox: mpsc::Receiver<Arrival>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), DriveError> {
    if io.removed.is_untold() {
        io.retell(&mut node);
    }
    loop {
        io.hub.lost(io.ledger.expire(io.clock.now()));
        loop {
            while let Some(output) = node.poll_output() {
                io.apply(output);
            }
            if let Some(dropped) = io.hub.take_dropped() {
                io.notices.bus_dropped(dropped);
            }
            if let Some(gone) = io.executor.as_ref().map(|executor| executor.spool.take_gone()) {
                io.notices.spool_dropped(gone);
            }
            let Some(happening) = io.notices.next() else { break };
            node.handle(io.clock.now(), Input::Happened(happening));
        }
        io.place = None;
        io.share_spool(&node);
        io.flush_journal().await?;
        io.retelling.drained();
        let through = io.progress.borrow().through;
        io.note_retold(through);
        let wake =
            node.poll_timeout().map(|(at, _)| at).into_iter().chain(io.ledger.poll_timeout());
        let wake = wake.min().map(|at| io.clock.0 + at.0);
        let sleep = async {
            match wake {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! { biased;
            _ = stop.wait_for(|stop| *stop) => break,
            Ok(()) = io.progress.changed() => {
                let progress = io.progress.borrow_and_update().clone();
                if let Some(failed) = progress.failed {
                    return Err(DriveError::Journal(failed));
                }
                node.handle(io.clock.now(), Input::Saved { through: progress.through });
            }
            () = sleep => node.handle_timeout(io.clock.now()),
            Some(arrival) = inbox.recv() => {
                io.take(arrival, &mut node);
            }
            Some(_) = io.tasks.join_next() => {}
        }
    }
    for link in io.links.lock().values() {
        link.conn.close(crate::link::CLOSE_STOPPING, b"stopping");
    }
    Ok(())
}

impl Io {
    fn take(&mut self, arrival: Arrival, node: &mut Node) {
        let now = self.clock.now();
        match arrival {
            Arrival::Input(Input::Restored) => self.retell(node),
            Arrival::Input(input) => {
                trace!(?input, "in");
                if let Input::LinkDown { link } = input {
                    self.part(link);
                }
                if let Input::Degraded(short) = input {
                    self.notices.degraded(short);
                }
                node.handle(now, input);
            }
            Arrival::Preview { input, place } => {
                trace!(?input, "in");
                self.place = Some(place);
                node.handle(now, input);
            }
            Arrival::Bus { input, .. } => {
                trace!(?input, "in");
                if self.admits(&input) {
                    node.handle(now, input);
                }
            }
            Arrival::Counted { link, peer, past } => {
                // One that is over as well has nothing to say of others.
                if self.links.lock().contains_key(&link) {
                    self.seal_older(link, peer);
                    self.hub.lost(self.ledger.hear(peer.host(), &past));
                }
            }
            Arrival::Publish { message, waits, reply, _place } => {
                let wanting = node.wanting(&message.subject);
                // Whoever asked may have left.
                if waits && self.is_to_wait(wanting, &message) {
                    drop(reply.send(Taken::Wait(message)));
                } else {
                    drop(reply.send(Taken::Gone(wanting.is_heard())));
                    node.handle(now, Input::Publish(message));
                }
            }
            Arrival::Linked(mut link) => {
                link.traffic = Some(self.traffic.clone());
                let (id, peer, link) = (link.id, link.peer, Arc::new(*link));
                self.links.lock().insert(id, link.clone());
                self.notices.meet(peer.host(), &link.name);
                // After it is among the links, so that no list falls between.
                if !self.removed.greet(&link) {
                    self.links.lock().remove(&id);
                    if let Peer::Parent { place, .. } = peer {
                        node.handle(now, Input::DialFailed { place });
                    }
                    return;
                }
                node.handle(now, Input::LinkUp { link: id, peer });
                if let Peer::Parent { host, .. } = peer
                    && self.helm.parents.learn(&link.dialled, host)
                {
                    let (count, here) = self.helm.standing();
                    node.handle(now, Input::Parents { count, here });
                }
            }
            Arrival::Met { link, epoch } => {
                let link = self.links.lock().get(&link).cloned();
                if let Some(link) = link.filter(|link| self.removed.met(link, epoch)) {
                    self.notices.superseded(&link.dialled);
                }
            }
            Arrival::Pulled { link, content, result } => {
                // When a link goes, the core takes up its pulls anew: its word comes too late.
                if self.links.lock().contains_key(&link) {
                    node.handle(now, Input::Pulled { content, result });
                }
            }
            Arrival::Want { by, content, reply } => {
                self.waiting.insert(by, reply);
                node.handle(now, Input::Wanted { by, content });
            }
            // Whoever asked may have left.
            Arrival::Way { host, reply } => drop(reply.send(node.way_to(host))),
            Arrival::Clock { ahead, said, parent } => {
                self.counts.clock_ahead.store(ahead, Ordering::Relaxed);
                if let Some(said) = said {
                    self.notices.clock(&said, parent);
                }
            }
            Arrival::Look(reply) => drop(reply.send(Sight::of(node, now))),
            Arrival::Subtree(reply) => drop(reply.send(node.subtree())),
        }
    }

    /// Whether nobody who wants a message has room for it, and one of them is worth waiting for.
    fn is_to_wait(&self, wanting: &Wanting, message: &Message) -> bool {
        let mut prospect = Prospect::new(message.body.len());
        let links = self.links.lock();
        wanting
            .links
            .iter()
            .filter_map(|id| links.get(id))
            .for_each(|link| link.look(&mut prospect));
        if wanting.here {
            self.hub.look(&message.subject, &mut prospect);
        }
        prospect.is_awaited()
    }

    fn apply(&mut self, output: Output) {
        trace!(?output, "out");
        match output {
            Output::Save { no, record } => {
                self.retelling.saving(no);
                self.transfers.claims.iter().for_each(|claims| claims.note(&record));
                self.transfers.ahead.iter().for_each(|ahead| ahead.note(&record));
                if let Record::Forget(_) = record {
                    self.sweeper.ask();
                }
                self.entries.push(Entry::Save { no, record });
            }
            Output::Tell(event) => {
                tell(&event);
                self.counts.told(&event);
                self.look_up(&event);
                self.notices.told(&event);
                self.entries.push(Entry::Tell(event));
            }
            Output::Send { link, frame: frame @ (Frame::Message(_) | Frame::Answer(_)) } => {
                let link = self.links.lock().get(&link).cloned();
                match link {
                    Some(link) => link.send_bus(frame, &self.hub),
                    // It was closed here, which the core is about to hear.
                    None => self.hub.dropped(BROKEN, 1),
                }
            }
            Output::Send { link, frame } => self.send(link, frame),
            Output::Deliver(message) => self.hub.deliver(&message),
            Output::Stranded { surely } => {
                self.hub.dropped(if surely { BROKEN } else { UNSURE }, 1);
            }
            Output::Answered(answer) => self.hub.answered(answer),
            Output::Watch { orders } => drop(self.watched.send_replace(orders)),
            // Nobody watching any more is no error.
            Output::Preview(said) => drop(self.previews.send(said)),
            Output::Hangup { link, reason } => {
                if let Some(link) = self.part(link) {
                    link.close(&format!("{reason:?}"));
                }
            }
            Output::Dial { place } => {
                let dialler = self.dialler.clone().expect("only a node with parents dials");
                match self.helm.parents.at(place) {
                    Some(addr) => drop(self.tasks.spawn(dialler.dial(place, addr))),
                    // The list has just become shorter, and the core is about to be told.
                    None => drop(self.tasks.spawn(dialler.failed(place))),
                }
            }
            Output::Pull { link, content } => self.pull(link, content),
            Output::Serve { by, .. } => self.reply(by, Ok(())),
            Output::Abandon { content } => self.transfers.abandon(content),
            Output::Deny { by, fault, .. } => self.reply(by, Err(fault)),
            Output::Start { order, missing } => {
                if let Some(executor) = self.executor.clone() {
                    let inbox = self.inbox.clone();
                    let job = executor.jobs.enter(order.id);
                    self.tasks.spawn(async move {
                        let ended = executor.carry_out(&job, &order, missing).await;
                        inbox.send(Arrival::Input(ended)).await.ok();
                    });
                }
            }
        }
    }

    /// The controller was restored: the core tells everything again.
    fn retell(&mut self, node: &mut Node) {
        self.retelling.begin(self.removed.epoch());
        node.handle(self.clock.now(), Input::Restored);
    }

    /// Notes that it does, once what it has noted about that is on disk.
    fn note_retold(&mut self, through: u64) {
        if let Some(epoch) = self.retelling.saved(through) {
            let removed = self.removed.clone();
            self.tasks.spawn(async move {
                tokio::task::spawn_blocking(move || removed.note_told(epoch)).await.ok();
            });
        }
    }

    fn look_up(&mut self, event: &Event) {
        if self.above.handle(event) {
            self.outlook.send_replace(Outlook::of(&self.above));
        }
    }

    /// Has long outputs make way for what waits to be told.
    fn share_spool(&mut self, node: &Node) {
        let Some(executor) = &self.executor else { return };
        if executor.spool.give_way(node.waiting() as u64) {
            let spool = executor.spool.clone();
            self.tasks.spawn(async move {
                tokio::task::spawn_blocking(move || spool.settle()).await.ok();
            });
        }
    }

    /// Hands what is to be kept to the writer: all of one drain together, so that what belongs
    /// together shares a commit.
    async fn flush_journal(&mut self) -> Result<(), DriveError> {
        if self.entries.is_empty() {
            return Ok(());
        }
        if self.journal.send(std::mem::take(&mut self.entries)).await.is_err() {
            let failed = self.progress.borrow().failed.clone();
            let failed = failed.unwrap_or_else(|| Arc::new(JournalError::Stopped));
            return Err(DriveError::Journal(failed));
        }
        Ok(())
    }

    fn send(&mut self, id: LinkId, frame: mesh::Frame) {
        let link = self.links.lock().get(&id).cloned();
        let place = self.place.take_if(|_| matches!(frame, mesh::Frame::Said(_)));
        if let Some(link) = link.as_ref().filter(|_| matches!(frame, Frame::Hello { .. })) {
            self.seal_older(id, link.peer);
            link.tally.tell(self.ledger.tell(link.peer.host()));
        }
        if let Some(link) = link
            && link.send(frame, place).is_err()
        {
            // The end of the connection tells the core.
            warn!(peer = %link.peer.host(), name = %link.name, "closing a link: its queue is full");
            link.close("your queue is full");
            self.part(id);
        }
    }

    /// A link is over.
    fn part(&mut self, id: LinkId) -> Option<Arc<Link>> {
        let link = self.links.lock().remove(&id)?;
        self.seal(&link);
        Some(link)
    }

    /// Whether something of the bus may be taken, which counts it. What comes by a link that is
    /// over comes too late: the other end has been told, or will be, that it was not taken.
    fn admits(&self, input: &Input) -> bool {
        match input {
            Input::Frame { link, frame: Frame::Message(_) | Frame::Answer(_) } => {
                self.links.lock().get(link).is_some_and(|link| link.tally.take())
            }
            _ => true,
        }
    }

    /// Nothing of the bus crosses a link any more.
    fn seal(&mut self, link: &Link) {
        match link.tally.seal(link.peer.host()) {
            Some(Sealed::Account(account)) => {
                self.hub.lost(self.ledger.end(self.clock.now(), account));
            }
            Some(Sealed::Unfinished(count)) => self.hub.dropped(BROKEN, count),
            None => {}
        }
    }

    /// Older links with a peer are over, whether their ends were seen here yet or not.
    fn seal_older(&mut self, id: LinkId, peer: Peer) {
        let is_older = |link: &Arc<Link>| link.id < id && link.peer.host() == peer.host();
        self.links.all().into_iter().filter(is_older).for_each(|link| self.seal(&link));
    }

    fn pull(&mut self, id: LinkId, content: Digest) {
        let (transfers, inbox) = (self.transfers.clone(), self.inbox.clone());
        let Some(link) = self.links.lock().get(&id).cloned() else { return };
        let counts = self.counts.clone();
        self.tasks.spawn(async move {
            let result = transfers.pull(&link, content).await;
            counts.pulls.add([result.map_or_else(pull_word, |()| "ok")], 1);
            if result == Err(PullFault::Broken) {
                // If it is the link that broke, its end says so, and all that was under way is
                // taken up again; a word of this pull could come before it and count as a try.
                let closed = tokio::time::timeout(BROKEN_WAIT, link.conn.closed()).await;
                if closed.is_ok() {
                    return;
                }
            }
            if let (Ok(()), Some(ahead)) = (result, &transfers.ahead) {
                ahead.arrived(content);
            }
            inbox.send(Arrival::Pulled { link: id, content, result }).await.ok();
        });
    }

    fn reply(&mut self, by: Asker, result: Result<(), PullFault>) {
        if let Some(reply) = self.waiting.remove(&by) {
            reply.send(result).ok();
        }
        self.waiting.retain(|_, reply| !reply.is_closed());
    }
}

fn pull_word(fault: PullFault) -> &'static str {
    match fault {
        PullFault::Absent => "absent",
        PullFault::Broken => "broken",
        PullFault::Corrupt => "corrupt",
        PullFault::Disk => "disk",
        PullFault::Busy => "busy",
    }
}

/// Logs what an operator would want to know.
fn tell(event: &Event) {
    match event {
        Event::Linked { peer } => info!(?peer, "linked"),
        Event::Unlinked { peer, reason } => match reason {
            Some(reason) => warn!(?peer, ?reason, "unlinked"),
            None => info!(?peer, "unlinked"),
        },
        Event::RootStale { age } => {
            warn!(seconds = age.as_secs(), "nothing new from the controller")
        }
        Event::RootFresh => info!("the controller is heard again"),
        Event::Spoken(_) => debug!(?event, "told"),
        Event::PullFailed { content, fault } => {
            warn!(%content, ?fault, "content could not be had");
        }
        Event::Cut { what, order, count } => warn!(%order, what, count, "a limit was reached"),
        Event::Stopped { order, hosts, why } => {
            info!(%order, hosts = hosts.len(), ?why, "a run lets nobody begin any more");
        }
        Event::Dropped { count } => warn!(count, "events of this host found no room"),
        Event::Answers(_)
        | Event::Happened(_)
        | Event::Profiles(_)
        | Event::Released { .. }
        | Event::Unheard(_)
        | Event::Closed(_)
        | Event::Reachable(_)
        | Event::Below { .. } => {
            debug!(?event, "told");
        }
    }
}

/// Ends the process when the database fails; everything else is handled where it happens.
pub(crate) fn log_end(result: &Result<(), DriveError>) {
    if let Err(failure) = result {
        error!(error = %crate::chain(failure), "the node stops");
    }
}
