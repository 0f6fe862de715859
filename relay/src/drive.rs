//! The drive loop: one task owns the node, everything else sends to it.
//!
//! Inputs come through one bounded inbox, outputs are obeyed in their order. The loop waits for
//! nothing but the journal's queue: sending is `try_send`, and pulls, dials, commands and installs
//! are tasks that report back through the inbox.

mod bus;
mod log;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mesh::bus::Message;
use mesh::{
    Asker, Digest, Event, Frame, HostId, Input, LinkId, Node, Output, Peer, PullFault, Record,
    Said, Time,
};
use tokio::sync::{OwnedSemaphorePermit, broadcast, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{trace, warn};

use crate::alerting::Outlook;
use crate::bus::{BROKEN, Hub, Ledger, Taken, UNSURE};
use crate::dial::Dialler;
use crate::exec::Executor;
use crate::journal::JournalError;
use crate::link::Link;
use crate::links::Links;
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

pub(crate) use self::log::log_end;

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
            Arrival::Counted { link, peer, past } => self.counted(link, peer, &past),
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
                log::tell(&event);
                self.counts.told(&event);
                self.look_up(&event);
                self.notices.told(&event);
                self.entries.push(Entry::Tell(event));
            }
            Output::Send { link, frame: frame @ (Frame::Message(_) | Frame::Answer(_)) } => {
                self.send_bus(link, frame);
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
            self.account_for(link);
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

    fn pull(&mut self, id: LinkId, content: Digest) {
        let (transfers, inbox) = (self.transfers.clone(), self.inbox.clone());
        let Some(link) = self.links.lock().get(&id).cloned() else { return };
        let counts = self.counts.clone();
        self.tasks.spawn(async move {
            let result = transfers.pull(&link, content).await;
            counts.pulls.add([result.map_or_else(log::pull_word, |()| "ok")], 1);
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
