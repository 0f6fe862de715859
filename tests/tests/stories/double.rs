//! Doubles: nodes with a true certificate that speak the protocol and lie about content. A relay
//! that alters what it passes on, and a host that alters what its siblings fetch from it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use certs::Credentials;
use mesh::{Digest, Frame, HostId, HostSet, Subtree};
use protos::{Encoding, Envelope, Incoming, OrderBody, PullReply, PullRequest, StreamKind};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream, ServerConfig};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

/// Bytes in a group, and in its value in an outline.
const GROUP: usize = 16 << 10;
const VALUE: usize = 32;

fn runtime() -> Result<Runtime> {
    Ok(Builder::new_multi_thread().worker_threads(1).enable_all().build()?)
}

fn credentials(state: &Path) -> Result<Credentials> {
    Credentials::load(state)?.context("the node has joined")
}

fn dials(credentials: &Credentials) -> Result<ClientConfig> {
    let tls = certs::client_config(credentials);
    Ok(ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?)))
}

fn serves(tls: rustls::ServerConfig) -> Result<ServerConfig> {
    Ok(ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?)))
}

async fn read_framed(recv: &mut RecvStream) -> Result<Vec<u8>> {
    let mut header = [0; protos::HEADER_BYTES];
    recv.read_exact(&mut header).await?;
    let mut body = vec![0; protos::parse_header(header)?];
    recv.read_exact(&mut body).await?;
    Ok(body)
}

async fn write_framed(send: &mut SendStream, body: &[u8]) -> Result<()> {
    send.write_all(&protos::frame_header(body.len())).await?;
    Ok(send.write_all(body).await?)
}

async fn kind_of(recv: &mut RecvStream) -> Result<u8> {
    let mut kind = [0];
    recv.read_exact(&mut kind).await?;
    Ok(kind[0])
}

/// What a relay does with content that it passes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    None,
    /// One bit is another.
    Alter,
    /// The stream ends well, before its end.
    Truncate,
    /// Two groups have changed places.
    Mix,
    /// There is a group more.
    Extend,
    /// It sends hosts to a sibling that is none.
    Astray(SocketAddr),
}

/// Stands in the place of a relay with one child.
pub(crate) struct RelayDouble {
    runtime: Option<Runtime>,
    lie: Arc<Mutex<Lie>>,
    lied: Arc<AtomicU64>,
}

impl RelayDouble {
    /// Takes the place of the relay with this state folder, which must not run, at the address
    /// where it has listened.
    pub(crate) fn start(state: &Path, listen: &str, parent: &str) -> Result<RelayDouble> {
        let credentials = credentials(state)?;
        let (listen, parent) = (listen.parse()?, parent.parse()?);
        let (lie, lied) = (Arc::new(Mutex::new(Lie::None)), Arc::<AtomicU64>::default());
        let runtime = runtime()?;
        let server = serves(certs::server_config(&credentials))?;
        let endpoint = runtime.block_on(async { Endpoint::server(server, listen) })?;
        let (telling, counting) = (lie.clone(), lied.clone());
        runtime.spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                let Ok(child) = incoming.await else { continue };
                let credentials = credentials.clone();
                let (lie, lied) = (telling.clone(), counting.clone());
                tokio::spawn(async move { between(child, &credentials, parent, lie, lied).await });
            }
        });
        Ok(RelayDouble { runtime: Some(runtime), lie, lied })
    }

    /// From now on it lies like this.
    pub(crate) fn lie(&self, lie: Lie) {
        *self.lie.lock().expect("nobody panics") = lie;
        self.lied.store(0, Ordering::Relaxed);
    }

    /// How often it has lied since then.
    pub(crate) fn lied(&self) -> u64 {
        self.lied.load(Ordering::Relaxed)
    }
}

impl Drop for RelayDouble {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Passes everything on between a child and the parent, and content as it likes.
async fn between(
    child: Connection,
    credentials: &Credentials,
    parent: SocketAddr,
    lie: Arc<Mutex<Lie>>,
    lied: Arc<AtomicU64>,
) -> Result<()> {
    let endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into())?;
    let name = certs::parent_name(&credentials.identity().mesh);
    let parent = endpoint.connect_with(dials(credentials)?, parent, &name)?.await?;
    let ends = (child.clone(), parent.clone());
    tokio::spawn(async move {
        tokio::select! {
            _ = ends.0.closed() => ends.1.close(0_u32.into(), b"the child has gone"),
            _ = ends.1.closed() => ends.0.close(0_u32.into(), b"the parent has gone"),
        }
    });
    while let Ok((send, mut recv)) = child.accept_bi().await {
        let kind = kind_of(&mut recv).await?;
        let (mut up, down) = parent.open_bi().await?;
        up.write_all(&[kind]).await?;
        if kind == StreamKind::Content as u8 {
            let (lie, lied) = (*lie.lock().expect("nobody panics"), lied.clone());
            tokio::spawn(pass_content((send, recv), (up, down), lie, lied));
            continue;
        }
        tokio::spawn(pump(recv, up));
        tokio::spawn(pump(down, send));
    }
    Ok(())
}

async fn pump(mut from: RecvStream, mut to: SendStream) {
    while let Ok(Some(chunk)) = from.read_chunk(64 << 10, true).await {
        if to.write_chunk(chunk.bytes).await.is_err() {
            return;
        }
    }
}

async fn pass_content(
    (mut send, mut recv): (SendStream, RecvStream),
    (mut up, mut down): (SendStream, RecvStream),
    lie: Lie,
    lied: Arc<AtomicU64>,
) -> Result<()> {
    let mut asked = read_framed(&mut recv).await?;
    if let Lie::Astray(address) = lie {
        if PullRequest::decode(&asked)?.willing {
            lied.fetch_add(1, Ordering::Relaxed);
            let sibling = PullReply::Sibling { address, key: [7; 32] };
            write_framed(&mut send, &sibling.encode()).await?;
            asked = read_framed(&mut recv).await?;
        }
        let asked = PullRequest { willing: false, lost: None, ..PullRequest::decode(&asked)? };
        write_framed(&mut up, &asked.encode()).await?;
        pump(down, send).await;
        return Ok(());
    }
    write_framed(&mut up, &asked).await?;
    let reply = PullReply::decode(&read_framed(&mut down).await?)?;
    let raw = |bytes: u64| bytes as usize > 2 * GROUP;
    let PullReply::Found { bytes, encoding: Encoding::Raw, first, outlined, promoted } = reply
    else {
        write_framed(&mut send, &reply.encode()).await?;
        pump(down, send).await;
        return Ok(());
    };
    let lie = if raw(bytes) { lie } else { Lie::None };
    let longer = bytes + if lie == Lie::Extend { GROUP as u64 } else { 0 };
    let encoding = Encoding::Raw;
    let reply = PullReply::Found { bytes: longer, encoding, first, outlined, promoted };
    write_framed(&mut send, &reply.encode()).await?;
    let mut outline = vec![0; if outlined { (bytes as usize).div_ceil(GROUP) * VALUE } else { 0 }];
    down.read_exact(&mut outline).await?;
    if lie == Lie::Extend && outlined {
        outline.extend([7; VALUE]);
    }
    send.write_all(&outline).await?;
    let mut body = down.read_to_end(64 << 20).await?;
    if body.len() > 2 * GROUP {
        match lie {
            Lie::None | Lie::Astray(_) => {}
            Lie::Alter => body[GROUP + 5] ^= 1,
            Lie::Truncate => body.truncate(GROUP + 5),
            Lie::Mix => {
                let (one, two) = body.split_at_mut(GROUP);
                one.swap_with_slice(&mut two[..GROUP]);
            }
            Lie::Extend => body.extend(vec![7; GROUP]),
        }
        lied.fetch_add(u64::from(lie != Lie::None), Ordering::Relaxed);
    }
    // Whoever has refused it takes no more.
    send.write_all(&body).await.ok();
    send.finish().ok();
    send.stopped().await.ok();
    Ok(())
}

/// Stands in the place of a host: it gets content from its parent, and gives other bytes of it to
/// siblings.
pub(crate) struct HostDouble {
    runtime: Option<Runtime>,
    had: Arc<AtomicU64>,
    lied: Arc<AtomicU64>,
}

/// An object with its outline.
type Objects = Arc<Mutex<BTreeMap<Digest, (Vec<u8>, Vec<u8>)>>>;

impl HostDouble {
    /// Takes the place of the host with this state folder, which must not run.
    pub(crate) fn start(state: &Path, parent: &str) -> Result<HostDouble> {
        let (credentials, parent) = (credentials(state)?, parent.parse()?);
        let (had, lied, objects) =
            (Arc::<AtomicU64>::default(), Arc::default(), Objects::default());
        let runtime = runtime()?;
        let counts = (had.clone(), Arc::clone(&lied));
        runtime.block_on(live(&credentials, parent, objects, counts))?;
        Ok(HostDouble { runtime: Some(runtime), had, lied })
    }

    /// How many objects it has of those of which siblings may come.
    pub(crate) fn had(&self) -> u64 {
        self.had.load(Ordering::Relaxed)
    }

    /// How many siblings it has lied to.
    pub(crate) fn lied(&self) -> u64 {
        self.lied.load(Ordering::Relaxed)
    }
}

impl Drop for HostDouble {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn live(
    credentials: &Credentials,
    parent: SocketAddr,
    objects: Objects,
    (had, lied): (Arc<AtomicU64>, Arc<AtomicU64>),
) -> Result<()> {
    let endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into())?;
    endpoint.set_server_config(Some(serves(certs::sibling_server_config(credentials))?));
    let name = certs::parent_name(&credentials.identity().mesh);
    let conn = endpoint.connect_with(dials(credentials)?, parent, &name)?.await?;
    let (mut control, orders) = open(&conn, StreamKind::Control).await?;
    let (reports, _) = open(&conn, StreamKind::Reports).await?;
    let (beats, heard) = open(&conn, StreamKind::Beats).await?;
    let (events, profiles) = (false, false);
    let hello = Frame::Hello { log: 1, held_log: 0, held: 0, events, profiles };
    let me = HostSet::one(HostId(credentials.identity().id));
    let (below, up) = (me.clone(), me);
    let announced = Frame::Below(Subtree { below, up, ..Subtree::default() });
    for frame in [hello, announced] {
        write_framed(&mut control, &protos::encode_frame(&frame)).await?;
    }
    tokio::spawn(beat(beats, heard));
    let (order, mut wanted) = mpsc::channel(64);
    tokio::spawn(async move {
        let kept = (control, reports);
        hear(orders, order).await.ok();
        drop(kept);
    });
    let store = objects.clone();
    tokio::spawn(async move {
        while let Some(content) = wanted.recv().await {
            if let Ok(true) = fetch(&conn, content, &store).await {
                had.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            let Ok(sibling) = incoming.await else { continue };
            let (objects, lied) = (objects.clone(), lied.clone());
            tokio::spawn(async move {
                while let Ok((send, recv)) = sibling.accept_bi().await {
                    if give(send, recv, &objects).await.is_ok() {
                        lied.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    Ok(())
}

async fn open(conn: &Connection, kind: StreamKind) -> Result<(SendStream, RecvStream)> {
    let (mut send, recv) = conn.open_bi().await?;
    send.write_all(&[kind as u8]).await?;
    Ok((send, recv))
}

/// Beats as often as the parent does.
async fn beat(mut send: SendStream, mut recv: RecvStream) -> Result<()> {
    let interval = Duration::from_millis(500);
    let (mut root, mut root_interval) = (0, interval);
    loop {
        let frame = Frame::Beat { root, interval, root_interval, speaks: false };
        write_framed(&mut send, &protos::encode_frame(&frame)).await?;
        let heard = protos::decode_frame(read_framed(&mut recv).await?.into(), unnamed)?;
        if let Incoming::Beat { frame: Frame::Beat { root: r, root_interval: i, .. }, .. } = heard {
            (root, root_interval) = (r, i);
        }
    }
}

/// No body is looked at.
fn unnamed(_: &[u8]) -> Digest {
    Digest([0; 32])
}

/// Wants all content that orders name.
async fn hear(mut recv: RecvStream, order: mpsc::Sender<Digest>) -> Result<()> {
    loop {
        let frame = protos::decode_frame(read_framed(&mut recv).await?.into(), unnamed)?;
        if let Incoming::Order { envelope, .. } = frame {
            let body = OrderBody::decode(&Envelope::decode(envelope.clone())?.body)?;
            let needs = body.to_mesh(envelope, Duration::from_secs(60)).needs;
            for content in needs.into_iter().flat_map(|need| need.content) {
                order.send(content).await?;
            }
        }
    }
}

/// Fetches an object from the parent. Returns whether siblings may come for it.
async fn fetch(conn: &Connection, content: Digest, objects: &Objects) -> Result<bool> {
    let (mut send, mut recv) = open(conn, StreamKind::Content).await?;
    let request = PullRequest { content, held: 0, outlined: false, willing: true, lost: None };
    write_framed(&mut send, &request.encode()).await?;
    let reply = PullReply::decode(&read_framed(&mut recv).await?)?;
    let PullReply::Found { bytes, encoding: Encoding::Raw, outlined, promoted, .. } = reply else {
        return Ok(false);
    };
    let groups = if outlined { (bytes as usize).div_ceil(GROUP) } else { 0 };
    let mut outline = vec![0; groups * VALUE];
    recv.read_exact(&mut outline).await?;
    let body = recv.read_to_end(64 << 20).await?;
    objects.lock().expect("nobody panics").insert(content, (outline, body));
    Ok(promoted)
}

/// Gives a sibling an object of which a bit in the middle is another.
async fn give(mut send: SendStream, mut recv: RecvStream, objects: &Objects) -> Result<()> {
    ensure!(kind_of(&mut recv).await? == StreamKind::Content as u8, "content alone");
    let request = PullRequest::decode(&read_framed(&mut recv).await?)?;
    let known = objects.lock().expect("nobody panics").get(&request.content).cloned();
    let (outline, mut body) = known.context("it was sent here for what is here")?;
    let (first, outlined) = (request.held, !request.outlined);
    let (bytes, encoding, promoted) = (body.len() as u64, Encoding::Raw, false);
    let reply = PullReply::Found { bytes, encoding, first, outlined, promoted };
    write_framed(&mut send, &reply.encode()).await?;
    if outlined {
        send.write_all(&outline).await?;
    }
    let middle = body.len() / 2;
    body[middle] ^= 1;
    // Whoever has refused it takes no more.
    send.write_all(&body[first as usize * GROUP..]).await.ok();
    send.finish().ok();
    send.stopped().await.ok();
    Ok(())
}
