//! One host of a crowd: the core, a connection, and no disk.
//!
//! One task owns the node. Three more for each link read its streams; writing is done by the first
//! one itself, since what a host writes is little.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mesh::{Config, Frame, HostId, Input, LinkId, Node, Order, Outcome, Output, Peer};
use mesh::{PullFault, Saved, Time};
use protos::{Envelope, OrderBody};
use quinn::{Connection, RecvStream, SendStream};
use relay::hash;
use tokio::sync::mpsc;

use super::wire::{self, Way};
use super::{Common, Member, number};

/// What may wait for a host's task.
const INBOX: usize = 32;
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
enum Arrival {
    Linked(Link),
    Failed,
    Input(Input),
}

struct Link {
    id: LinkId,
    parent: HostId,
    conn: Connection,
    streams: [SendStream; 3],
}

struct Host {
    member: Member,
    common: Arc<Common>,
    way: Arc<Way>,
    inbox: mpsc::Sender<Arrival>,
    link: Option<Link>,
    links: u64,
}

/// Lives until the runtime ends.
pub(super) async fn live(member: Member, way: Way, common: Arc<Common>) {
    let mut config = Config::new(number(&member), 1, false);
    config.beat_interval = common.beat;
    config.backoff.base = Duration::from_millis(200);
    config.backoff.cap = Duration::from_secs(2);
    let (inbox, mut arrivals) = mpsc::channel(INBOX);
    let mut host = Host { member, common, way: Arc::new(way), inbox, link: None, links: 0 };
    let seed = u64::from_le_bytes(certs::random::<8>());
    let mut node = Node::new(config, Saved::default(), seed, host.now());
    loop {
        host.obey(&mut node).await;
        let wake = node.poll_timeout().map(|(at, _)| host.common.began + at.0);
        let sleep = async {
            match wake {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! { biased;
            () = sleep => node.handle_timeout(host.now()),
            Some(arrival) = arrivals.recv() => host.take(arrival, &mut node),
        }
    }
}

impl Host {
    fn now(&self) -> Time {
        Time(self.common.began.elapsed())
    }

    fn take(&mut self, arrival: Arrival, node: &mut Node) {
        let input = match arrival {
            Arrival::Failed => Input::DialFailed { place: 0 },
            Arrival::Linked(link) => {
                let peer = Peer::Parent { place: 0, host: link.parent };
                let input = Input::LinkUp { link: link.id, peer };
                self.common.counts.linked.fetch_add(1, Ordering::Relaxed);
                self.common.counts.made.fetch_add(1, Ordering::Relaxed);
                self.link = Some(link);
                input
            }
            Arrival::Input(Input::LinkDown { link }) => {
                if self.link.take_if(|mine| mine.id == link).is_some() {
                    self.common.counts.linked.fetch_sub(1, Ordering::Relaxed);
                }
                Input::LinkDown { link }
            }
            Arrival::Input(input) => input,
        };
        node.handle(self.now(), input);
    }

    /// Does all that the node wants; what it saves is durable at once.
    async fn obey(&mut self, node: &mut Node) {
        while let Some(output) = node.poll_output() {
            let input = match output {
                Output::Save { no, .. } => Some(Input::Saved { through: no }),
                Output::Dial { .. } => {
                    self.dial();
                    None
                }
                Output::Hangup { link, .. } => {
                    let link = self.link.as_ref().filter(|mine| mine.id == link);
                    link.iter().for_each(|link| link.conn.close(2_u32.into(), b"hangup"));
                    None
                }
                Output::Send { link, frame } => {
                    self.send(link, &frame).await;
                    None
                }
                Output::Start { order, .. } => Some(self.answer(&order)),
                Output::Pull { content, .. } => {
                    Some(Input::Pulled { content, result: Err(PullFault::Absent) })
                }
                _ => None,
            };
            if let Some(input) = input {
                node.handle(self.now(), input);
            }
        }
    }

    async fn send(&mut self, to: LinkId, frame: &Frame) {
        let Some(link) = self.link.as_mut().filter(|link| link.id == to) else { return };
        // A host of a crowd has no programs, and so no part in the bus.
        if matches!(frame, Frame::Interest(_) | Frame::Message(_) | Frame::Answer(_)) {
            return;
        }
        let stream = &mut link.streams[wire::stream_of(frame)];
        // The end of a link is told by whoever waits for it.
        stream.write_chunk(wire::bytes(frame)).await.ok();
    }

    fn answer(&self, order: &Order) -> Input {
        let body = Envelope::decode(order.body.clone()).ok();
        let body = body.and_then(|envelope| OrderBody::decode(&envelope.body).ok());
        let body = body.expect("it was read when it came");
        let (state, answer) = (self.common.answer)(&self.member.name, &body);
        let bytes = answer.encode();
        let digest = (answer != protos::Answer::default()).then(|| hash(&bytes));
        let outcome = Outcome { state, body: digest };
        Input::Ended { order: order.id, outcome, body: digest.map(|_| bytes) }
    }

    fn dial(&mut self) {
        self.links += 1;
        let (id, way) = (LinkId(self.links), self.way.clone());
        let (common, inbox) = (self.common.clone(), self.inbox.clone());
        let identity = self.member.credentials.identity();
        let name = certs::parent_name(&identity.mesh);
        let config = wire::client(&self.member, common.beat);
        tokio::spawn(async move {
            let turn = way.turns.acquire().await;
            let dialled =
                tokio::time::timeout(HANDSHAKE_LIMIT, wire::connect(&way, config, &name)).await;
            drop(turn);
            let Ok(Ok((conn, parent, streams))) = dialled else {
                return drop(inbox.send(Arrival::Failed).await);
            };
            let (sends, recvs): (Vec<_>, Vec<_>) = streams.into_iter().unzip();
            let Ok(streams) = sends.try_into() else { return };
            let link = Link { id, parent, conn: conn.clone(), streams };
            if inbox.send(Arrival::Linked(link)).await.is_err() {
                return;
            }
            for recv in recvs {
                tokio::spawn(read(id, recv, inbox.clone(), common.clone(), conn.clone()));
            }
            conn.closed().await;
            inbox.send(Arrival::Input(Input::LinkDown { link: id })).await.ok();
        });
    }
}

async fn read(
    link: LinkId,
    mut recv: RecvStream,
    inbox: mpsc::Sender<Arrival>,
    common: Arc<Common>,
    conn: Connection,
) {
    loop {
        match wire::frame(&mut recv, &common.checked).await {
            Ok(Some(frame)) => {
                let input = Input::Frame { link, frame };
                if inbox.send(Arrival::Input(input)).await.is_err() {
                    return;
                }
            }
            Ok(None) => {}
            // A stream that has ended, or cannot be read: the link is of no use.
            Err(_) => return conn.close(1_u32.into(), b"the stream ended"),
        }
    }
}
