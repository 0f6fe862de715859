//! Flows of bulk and of small messages between QUIC endpoints over a [`MemoryLink`].
//!
//! What a parent and a child do on a link, without the rest of a node: streams with the priorities
//! of the relay, content written in the pieces of the relay, the transport settings of the relay,
//! and any congestion controller. Everything is told in virtual time.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use certs::{Authority, Credentials, Identity, MeshId, NodeKey, Role};
use quinn::congestion::{BbrConfig, ControllerFactory, CubicConfig, NewRenoConfig};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Connection, Endpoint, EndpointConfig, RecvStream, SendStream};
use quinn::{ServerConfig, TokioRuntime, TransportConfig};
use relay::congestion::Wan;
use relay::{Bulk, End, FOLLOW, LinkKind, follow, send_window};
use tokio::time::{Instant, sleep, sleep_until};

use super::{Counters, MemoryLink, Profile, Side};

/// What is read in one go.
const PIECE: usize = 64 << 10;
/// A small order, framed.
const ORDER: usize = 300;
/// What carries the time of its sending.
const STAMP: usize = 8;
/// How often the round trip is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// A congestion controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Controller {
    /// The relay's own.
    Ours,
    /// quinn's default.
    Cubic,
    /// quinn's.
    NewReno,
    /// quinn's, which it calls experimental.
    Bbr,
}

impl Controller {
    /// All of them.
    pub const ALL: [Controller; 4] =
        [Controller::Ours, Controller::Cubic, Controller::NewReno, Controller::Bbr];

    /// As it stands in tables.
    pub fn name(self) -> &'static str {
        match self {
            Controller::Ours => "ours",
            Controller::Cubic => "cubic",
            Controller::NewReno => "newreno",
            Controller::Bbr => "bbr",
        }
    }

    fn factory(self, seed: u64) -> Arc<dyn ControllerFactory + Send + Sync> {
        match self {
            Controller::Ours => Arc::new(Wan::default().seed(seed)),
            Controller::Cubic => Arc::new(CubicConfig::default()),
            Controller::NewReno => Arc::new(NewRenoConfig::default()),
            Controller::Bbr => Arc::new(BbrConfig::default()),
        }
    }
}

/// One connection and what is sent on it.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// Who decides how much may be in flight, at both ends.
    pub controller: Controller,
    /// When it begins.
    pub from: Duration,
    /// Objects that the child pulls at once, all day long.
    pub bulk: usize,
    /// How many bytes each has.
    pub object: usize,
    /// Bits a second that they may take; zero: no limit.
    pub rate_limit: u64,
    /// Small messages each way, one in this time on average.
    pub orders: Option<Duration>,
    /// How many bytes each of them has, at least eight.
    pub message: usize,
    /// Whether followers go after them, as after orders, or not, as after beats.
    pub follow: bool,
}

impl Flow {
    /// Bulk and nothing else, from the beginning.
    pub fn bulk(controller: Controller) -> Flow {
        let (from, object) = (Duration::ZERO, 32 << 20);
        let (bulk, rate_limit, message) = (2, 0, ORDER);
        Flow { controller, from, bulk, object, rate_limit, orders: None, message, follow: true }
    }
}

/// What came of a flow.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Bytes that the child has read.
    pub delivered: u64,
    /// Bytes of datagrams that the parent has sent, without the headers of UDP and IP.
    pub sent: u64,
    /// Packets that the parent took for lost.
    pub lost: u64,
    /// The smoothed round trip as the parent saw it: the mean over time, and the greatest.
    pub rtt_mean: Duration,
    /// See `rtt_mean`.
    pub rtt_max: Duration,
    /// How long each small message took, down to the child and up from it.
    pub down: Vec<Duration>,
    /// See `down`.
    pub up: Vec<Duration>,
}

/// A play: a link, flows, and how long.
#[derive(Clone, Debug)]
pub struct Play {
    /// The link.
    pub profile: Profile,
    /// Who shares it.
    pub flows: Vec<Flow>,
    /// How long it lasts; what comes before `warm` is not counted.
    pub lasts: Duration,
    /// See `lasts`.
    pub warm: Duration,
    /// For the link and the controllers.
    pub seed: u64,
}

/// What came of a play.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// One for each flow.
    pub flows: Vec<Told>,
    /// What became of the packets down, from the beginning.
    pub down: Counters,
    /// And up.
    pub up: Counters,
    /// The time that is counted.
    pub counted: Duration,
}

impl Outcome {
    /// Bits a second that came out of a flow.
    pub fn goodput(&self, flow: usize) -> f64 {
        self.flows[flow].delivered as f64 * 8.0 / self.counted.as_secs_f64()
    }

    /// Packets dropped at the queue, of those sent down.
    pub fn drops(&self) -> f64 {
        self.down.overflowed.packets as f64 / self.down.pushed.packets.max(1) as f64
    }

    /// Bytes that a flow sent for each that was delivered.
    pub fn cost(&self, flow: usize) -> f64 {
        self.flows[flow].sent as f64 / self.flows[flow].delivered.max(1) as f64
    }
}

impl Play {
    /// Plays it in virtual time.
    ///
    /// # Errors
    /// No keys, or a connection that did not come about.
    pub fn run(&self) -> Result<Outcome> {
        let keys = Keys::new()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()?;
        runtime.block_on(self.play(&keys))
    }

    async fn play(&self, keys: &Keys) -> Result<Outcome> {
        let link = MemoryLink::new(self.profile.clone(), self.seed)?;
        let begun = Instant::now();
        let tasks: Vec<_> = self
            .flows
            .iter()
            .enumerate()
            .map(|(place, flow)| {
                let seed = self.seed * 1_000 + place as u64;
                let run = Run { flow: *flow, seed, begun, warm: self.warm, lasts: self.lasts };
                tokio::spawn(run.run(link.clone(), keys.clone()))
            })
            .collect();
        let mut flows = Vec::new();
        for task in tasks {
            flows.push(task.await??);
        }
        let (down, up) = link.counters();
        Ok(Outcome { flows, down, up, counted: self.lasts - self.warm })
    }
}

/// How long some bytes take over this machine's loopback, with real sockets and in real time.
///
/// # Errors
/// No keys, no socket, or a connection that breaks.
pub fn loopback(controller: Controller, bytes: u64) -> Result<Duration> {
    let keys = Keys::new()?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (server, client) = configs(&keys, &transport(controller, 1))?;
        let (parent, child) = (Endpoint::server(server, local)?, Endpoint::client(local)?);
        let name = certs::parent_name(&keys.parent.identity().mesh);
        let connecting = child.connect_with(client, parent.local_addr()?, &name)?;
        let accepting = async { anyhow::Ok(parent.accept().await.context("no endpoint")?.await?) };
        let (above, below) = tokio::try_join!(accepting, async { Ok(connecting.await?) })?;
        let (mut send, mut recv) = open(&below, &above, 0).await?;
        let begun = std::time::Instant::now();
        tokio::spawn(async move {
            let piece = Bytes::from(vec![7; PIECE]);
            while send.write_chunk(piece.clone()).await.is_ok() {}
        });
        let mut read = 0;
        while read < bytes {
            read += recv.read_chunk(PIECE, true).await?.context("it ended")?.bytes.len() as u64;
        }
        Ok(begun.elapsed())
    })
}

/// The settings of both ends, as the relay has them but for the controller.
fn transport(controller: Controller, seed: u64) -> impl Fn(End) -> TransportConfig {
    move |end| {
        let mut config = LinkKind::Wan.transport(end, Duration::from_secs(5), None);
        config.congestion_controller_factory(controller.factory(seed));
        config
    }
}

fn configs(
    keys: &Keys,
    transport: &(dyn Fn(End) -> TransportConfig + Sync),
) -> Result<(ServerConfig, ClientConfig)> {
    let transport = |end| {
        let mut config = transport(end);
        // Both ends open streams here.
        config.max_concurrent_bidi_streams(40_u32.into());
        Arc::new(config)
    };
    let tls = QuicServerConfig::try_from(certs::server_config(&keys.parent))?;
    let mut server = ServerConfig::with_crypto(Arc::new(tls));
    server.transport_config(transport(End::Parent));
    let tls = QuicClientConfig::try_from(certs::client_config(&keys.child))?;
    let mut client = ClientConfig::new(Arc::new(tls));
    client.transport_config(transport(End::Child { serves: true }));
    Ok((server, client))
}

/// What both ends show each other.
#[derive(Clone)]
pub(super) struct Keys {
    parent: Credentials,
    child: Credentials,
}

impl Keys {
    pub(super) fn new() -> Result<Keys> {
        let dir = tempfile::tempdir()?;
        let now = SystemTime::now();
        let authority = Authority::create(&dir.path().join("ca"), MeshId::random(), now)?;
        let of = |id, role| -> Result<Credentials> {
            let (key, mesh) = (NodeKey::generate(), authority.mesh());
            let who = Identity { mesh, id, role, name: format!("n{id}"), site: String::new() };
            let leaf = authority.issue(&key.csr(), &who, Duration::from_secs(86_400), now)?;
            let ca = authority.certificate().to_vec();
            Ok(Credentials::new(key, leaf, ca, authority.order_signer().key())?)
        };
        Ok(Keys { parent: of(0, Role::Controller)?, child: of(1, Role::Relay)? })
    }
}

/// One flow while it runs.
struct Run {
    flow: Flow,
    seed: u64,
    begun: Instant,
    warm: Duration,
    lasts: Duration,
}

type Shared = Arc<Mutex<Told>>;

impl Run {
    async fn run(self, link: MemoryLink, keys: Keys) -> Result<Told> {
        sleep_until(self.begun + self.flow.from).await;
        let settings = transport(self.flow.controller, self.seed);
        let (above, below) = connect(&link, &keys, self.seed, &settings).await?;
        let told = Shared::default();
        let until = self.begun + self.lasts;
        let warm = self.begun + self.warm;
        let bulk = Arc::new(Bulk::new(self.flow.rate_limit, true));
        let object = Bytes::from(vec![7; self.flow.object]);
        let work = async {
            if let Some(every) = self.flow.orders {
                let (down, down_end) = open(&below, &above, 20).await?;
                let (up, up_end) = open(&above, &below, 20).await?;
                let seed = self.seed;
                tokio::spawn(say((above.clone(), down), self.flow, every, seed, self.begun));
                tokio::spawn(say((below.clone(), up), self.flow, every, seed ^ 7, self.begun));
                let (told, begun, size) = (told.clone(), self.begun, self.flow.message);
                tokio::spawn(hear((down_end, size), told.clone(), begun, warm, |told| {
                    &mut told.down
                }));
                tokio::spawn(hear((up_end, size), told, begun, warm, |told| &mut told.up));
            }
            for _ in 0..self.flow.bulk {
                let told = (told.clone(), warm);
                tokio::spawn(pull(
                    below.clone(),
                    above.clone(),
                    bulk.clone(),
                    object.clone(),
                    told,
                ));
            }
            anyhow::Ok(())
        };
        work.await?;
        sleep_until(warm).await;
        let before = above.stats();
        let (mut sum, mut count) = (Duration::ZERO, 0_u32);
        while Instant::now() < until {
            sleep(LOOK).await;
            let rtt = above.rtt();
            (sum, count) = (sum + rtt, count + 1);
            let mut told = lock(&told);
            told.rtt_max = told.rtt_max.max(rtt);
        }
        ensure!(above.close_reason().is_none(), "the connection broke: {:?}", above.close_reason());
        let after = above.stats();
        let mut told = lock(&told).clone();
        told.rtt_mean = sum / count.max(1);
        told.sent = after.udp_tx.bytes - before.udp_tx.bytes;
        told.lost = after.path.lost_packets - before.path.lost_packets;
        Ok(told)
    }
}

/// A parent and a child with settings like these, connected by a link.
pub(super) async fn connect(
    link: &MemoryLink,
    keys: &Keys,
    seed: u64,
    transport: &(dyn Fn(End) -> TransportConfig + Sync),
) -> Result<(Connection, Connection)> {
    let (server, client) = configs(keys, transport)?;
    let parent = endpoint(link, seed, Side::Above, Some(server))?;
    let child = endpoint(link, seed, Side::Below, None)?;
    let name = certs::parent_name(&keys.parent.identity().mesh);
    let connecting = child.connect_with(client, parent.local_addr()?, &name)?;
    let accepting = async { anyhow::Ok(parent.accept().await.context("no endpoint")?.await?) };
    let (above, below) = tokio::try_join!(accepting, async { Ok(connecting.await?) })?;
    above.set_send_window(send_window(true));
    Ok((above, below))
}

fn endpoint(
    link: &MemoryLink,
    seed: u64,
    side: Side,
    server: Option<ServerConfig>,
) -> Result<Endpoint> {
    let mut key = [side as u8; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let reset = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &key);
    let mut config = EndpointConfig::new(Arc::new(reset));
    config.rng_seed(Some(key));
    let (socket, runtime) = (link.socket(side), Arc::new(TokioRuntime));
    Ok(Endpoint::new_with_abstract_socket(config, server, socket, runtime)?)
}

/// A stream that `asks` opens and `gives` sends on: the sending end and the reading end.
pub(super) async fn open(
    asks: &Connection,
    gives: &Connection,
    priority: i32,
) -> Result<(SendStream, RecvStream)> {
    let (mut ask, recv) = asks.open_bi().await?;
    ask.write_all(b"?").await?;
    // If several open at once, each may get another's stream; so all that do want the same.
    let (send, _) = gives.accept_bi().await?;
    send.set_priority(priority)?;
    Ok((send, recv))
}

/// A child that pulls one object after the other, and its parent, as the relay serves it.
async fn pull(
    child: Connection,
    parent: Connection,
    bulk: Arc<Bulk>,
    object: Bytes,
    (told, warm): (Shared, Instant),
) -> Result<()> {
    loop {
        let (mut send, recv) = open(&child, &parent, 0).await?;
        let (bulk, object) = (bulk.clone(), object.clone());
        tokio::spawn(async move {
            let mut turn = bulk.turn();
            turn.wait(object.len()).await;
            if bulk.write(&turn, &mut send, &object, |_| ()).await.is_ok() {
                turn.end(&mut send).await;
            }
        });
        drink(recv, told.clone(), warm).await;
    }
}

async fn drink(mut recv: RecvStream, told: Shared, warm: Instant) {
    while let Ok(Some(chunk)) = recv.read_chunk(PIECE, true).await {
        if Instant::now() >= warm {
            lock(&told).delivered += chunk.bytes.len() as u64;
        }
    }
}

/// Sends small messages that carry the time of their sending.
async fn say(
    (conn, mut send): (Connection, SendStream),
    flow: Flow,
    every: Duration,
    seed: u64,
    begun: Instant,
) {
    let mut dice = seed;
    loop {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Between half and one and a half of the time, so that no beat with anything else arises.
        sleep(every / 2 + every * u32::try_from(dice >> 54).unwrap_or(0) / 1_024).await;
        let mut message = vec![0; flow.message.max(STAMP)];
        let now = begun.elapsed().as_nanos() as u64;
        message[..STAMP].copy_from_slice(&now.to_le_bytes());
        if send.write_all(&message).await.is_err() {
            return;
        }
        if flow.follow {
            sleep(FOLLOW).await;
            follow(&conn);
        }
    }
}

async fn hear(
    (mut recv, message): (RecvStream, usize),
    told: Shared,
    begun: Instant,
    warm: Instant,
    list: fn(&mut Told) -> &mut Vec<Duration>,
) {
    let mut message = vec![0; message.max(STAMP)];
    while recv.read_exact(&mut message).await.is_ok() {
        let sent = Duration::from_nanos(u64::from_le_bytes(std::array::from_fn(|i| message[i])));
        if begun + sent >= warm {
            list(&mut lock(&told)).push(begun.elapsed().saturating_sub(sent));
        }
    }
}

fn lock(told: &Shared) -> MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}
