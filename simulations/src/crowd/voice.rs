//! One relay that speaks for hosts that do not exist.
//!
//! It says on its link what a relay with so many hosts behind it would: that they are there, that
//! it holds an order, and what each of them has answered, as large as a report may be and no more
//! under way than a relay would have. It has no core: there is nothing for one to decide.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use mesh::{Frame, HostId, HostSet, Order, Outcome, Report, State, Subtree};
use protos::{Answer, Envelope, OrderBody};
use quinn::{RecvStream, SendStream};
use relay::hash;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, mpsc};

use super::wire::{self, Way};
use super::{Member, number};

/// Its own log; there is only one in its life.
const LOG: u64 = 1;
/// Reports under way, and the bytes of bodies in each.
const WINDOW: usize = 32;
const REPORT_BYTES: usize = 256 << 10;
/// The bytes of a line of a report, about.
const LINE_BYTES: usize = 64;
const LINK_LIMIT: Duration = Duration::from_secs(30);
const INBOX: usize = 64;

/// What a host of this number prints.
pub type Script = dyn Fn(HostId, &OrderBody) -> Bytes + Send + Sync;

/// The relay; it hangs up when it is dropped.
pub struct Voice {
    runtime: Option<Runtime>,
}

struct Speaker {
    hosts: HostSet,
    beat: Duration,
    script: Arc<Script>,
    streams: [SendStream; 3],
    said: u64,
    held: u64,
    /// What is still to be said.
    waiting: VecDeque<Report>,
}

impl Voice {
    /// Links to the parent as `relay`, and speaks for the hosts of the numbers 1 to `hosts`.
    pub fn raise(
        relay: Member,
        parent: SocketAddr,
        hosts: u32,
        beat: Duration,
        script: Arc<Script>,
    ) -> Result<Voice> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        runtime.block_on(async {
            let endpoint = quinn::Endpoint::client(([0, 0, 0, 0], 0).into())?;
            let way = Way { parent, endpoint, turns: Arc::new(Semaphore::new(1)) };
            let config = wire::client(&relay, beat);
            let name = certs::parent_name(&relay.credentials.identity().mesh);
            let dialled = tokio::time::timeout(LINK_LIMIT, wire::connect(&way, config, &name));
            let (_, _, streams) = dialled.await.context("the parent does not answer")??;
            let (sends, recvs): (Vec<_>, Vec<_>) = streams.into_iter().unzip();
            let Ok(streams) = sends.try_into() else { bail!("a link has three streams") };
            let key = relay.credentials.order_key();
            let checked = Arc::new(wire::Checked { key, good: Mutex::default() });
            let (inbox, heard) = mpsc::channel(INBOX);
            for recv in recvs {
                tokio::spawn(listen(recv, inbox.clone(), checked.clone()));
            }
            let hosts = HostSet::from_ranges([(1, hosts)]);
            let (said, held, waiting) = (0, 0, VecDeque::new());
            let mut speaker = Speaker { hosts, beat, script, streams, said, held, waiting };
            speaker.greet(number(&relay)).await?;
            tokio::spawn(speaker.speak(heard));
            anyhow::Ok(())
        })?;
        Ok(Voice { runtime: Some(runtime) })
    }
}

impl Drop for Voice {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn listen(mut recv: RecvStream, inbox: mpsc::Sender<Frame>, checked: Arc<wire::Checked>) {
    while let Ok(frame) = wire::frame(&mut recv, &checked).await {
        if let Some(frame) = frame
            && inbox.send(frame).await.is_err()
        {
            return;
        }
    }
}

impl Speaker {
    async fn send(&mut self, frame: Frame) -> Result<()> {
        let stream = &mut self.streams[wire::stream_of(&frame)];
        Ok(stream.write_chunk(wire::bytes(&frame)).await?)
    }

    async fn greet(&mut self, me: HostId) -> Result<()> {
        let (events, profiles) = (false, false);
        self.send(Frame::Hello { log: LOG, held_log: 0, held: 0, events, profiles }).await?;
        self.beat(0, self.beat).await?;
        let mut below = self.hosts.clone();
        below.insert(me);
        let branches = [(me, self.hosts.clone())].into();
        let up = below.clone();
        self.send(Frame::Below(Subtree { below, up, branches, ..Subtree::default() })).await
    }

    async fn beat(&mut self, root: u64, root_interval: Duration) -> Result<()> {
        let (interval, speaks) = (self.beat, false);
        self.send(Frame::Beat { root, interval, root_interval, speaks }).await
    }

    /// Answers what it hears until the link ends.
    async fn speak(mut self, mut heard: mpsc::Receiver<Frame>) {
        while let Some(frame) = heard.recv().await {
            if self.hear(frame).await.is_err() {
                return;
            }
        }
    }

    async fn hear(&mut self, frame: Frame) -> Result<()> {
        match frame {
            // One for one: the parent's are no less often than its own would be.
            Frame::Beat { root, root_interval, .. } => self.beat(root, root_interval).await,
            Frame::Order { log, seq, order } => {
                self.send(Frame::OrdersHeld { log, through: seq }).await?;
                self.answer(&order)?;
                self.go_on().await
            }
            Frame::ReportsHeld { through, .. } => {
                self.held = self.held.max(through);
                self.go_on().await
            }
            _ => Ok(()),
        }
    }

    /// Says as much as may be under way.
    async fn go_on(&mut self) -> Result<()> {
        while self.said - self.held < WINDOW as u64
            && let Some(report) = self.waiting.pop_front()
        {
            self.said += 1;
            self.send(Frame::Report { log: LOG, seq: self.said, report }).await?;
        }
        Ok(())
    }

    fn answer(&mut self, order: &Order) -> Result<()> {
        let body = OrderBody::decode(&Envelope::decode(order.body.clone())?.body)?;
        let (mut report, mut size) = (Report::new(order.id), 0);
        for host in order.targets.intersection(&self.hosts).iter() {
            let stdout = (self.script)(host, &body);
            let stdout_size = stdout.len() as u64;
            let bytes = Answer { stdout, stdout_size, ..Answer::default() }.encode();
            let digest = hash(&bytes);
            let outcome = Outcome { state: State::Ok, body: Some(digest) };
            if !report.bodies.contains_key(&digest) {
                size += bytes.len() + LINE_BYTES;
            }
            report.tally.record(outcome, &HostSet::one(host));
            report.bodies.insert(digest, bytes);
            if size > REPORT_BYTES {
                let full = std::mem::replace(&mut report, Report::new(order.id));
                self.waiting.push_back(full);
                size = 0;
            }
        }
        self.waiting.extend((!report.tally.is_empty()).then_some(report));
        Ok(())
    }
}
