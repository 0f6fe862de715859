//! Content through a relay over real QUIC, between a parent and children that the test plays.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use certs::{Authority, Credentials, Identity, MeshId, NodeKey, Role};
use content::{GROUP, Outline};
use mesh::{Digest, Frame, PullFault};
use protos::{Encoding, PullReply, PullRequest, StreamKind};
use quinn::{Connection, RecvStream, SendStream};
use relay::{Journal, NoWitness, Running, Settings, Setup};
use tokio::sync::mpsc;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(30);
/// So many groups, the last one short.
const GROUPS: usize = 40;
const LEN: usize = GROUPS * GROUP - 7;

/// A mesh of one relay whose parent and children are the test's.
struct Stage {
    dir: tempfile::TempDir,
    authority: Authority,
    parent: quinn::Endpoint,
    asked: mpsc::Receiver<Asked>,
    object: Vec<u8>,
    outline: Outline,
}

/// A request of the relay at its parent.
struct Asked {
    request: PullRequest,
    send: SendStream,
    conn: Connection,
}

impl Stage {
    fn new() -> Stage {
        Stage::of(LEN)
    }

    /// With an object of so many bytes.
    fn of(len: usize) -> Stage {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let authority =
            Authority::create(&dir.path().join("ca"), MeshId::random(), SystemTime::now())
                .expect("an authority");
        let credentials = credentials(&authority, 0, Role::Controller);
        let tls = certs::server_config(&credentials);
        let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(tls).expect("TLS 1.3");
        let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        let parent = quinn::Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into());
        let parent = parent.expect("a socket");
        let (ask, asked) = mpsc::channel(64);
        tokio::spawn(accept(parent.clone(), ask));
        let mut object = vec![0; len];
        blake3::Hasher::new().update(b"object").finalize_xof().fill(&mut object);
        let outline = Outline::of(&object);
        Stage { dir, authority, parent, asked, object, outline }
    }

    fn content(&self) -> Digest {
        Digest(self.outline.id().0)
    }

    /// Starts the relay, with what it has kept.
    fn relay(&self) -> Running {
        let state = self.dir.path().join("relay");
        std::fs::create_dir_all(&state).expect("a state folder");
        let settings = Settings {
            parents: vec![self.parent.local_addr().expect("it listens").to_string()],
            listen: Some((Ipv4Addr::LOCALHOST, 0).into()),
            install_root: state.join("root"),
            redial_base_ms: 50,
            ..Settings::default()
        };
        let setup = Setup {
            credentials: credentials(&self.authority, 1, Role::Relay),
            settings,
            journal: Journal::open(&state.join("node.redb"), 1 << 20).expect("a journal"),
            store: Arc::new(self.store(&state)),
            state,
            witness: Box::new(NoWitness),
            registrar: None,
            obeys: false,
        };
        relay::start(setup).expect("it starts")
    }

    /// Opens the store. What ran in this process before may hold it a moment longer.
    fn store(&self, state: &Path) -> content::Store {
        let until = Instant::now() + LIMIT;
        loop {
            match content::Store::open(state.join("store")) {
                Ok(store) => return store,
                Err(error) => assert!(Instant::now() < until, "{error}"),
            }
            std::thread::yield_now();
        }
    }

    async fn child(&self, relay: &Running, id: u32) -> Child {
        let tls = certs::client_config(&credentials(&self.authority, id, Role::Host));
        let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).expect("TLS 1.3");
        let endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).expect("a socket");
        let config = quinn::ClientConfig::new(Arc::new(crypto));
        let name = certs::parent_name(&self.authority.mesh());
        let addr: SocketAddr = relay.addr().expect("it listens");
        let connecting = endpoint.connect_with(config, addr, &name).expect("it begins");
        Child { conn: connecting.await.expect("it is let in") }
    }

    /// The next request that reaches the parent.
    async fn asked(&mut self) -> Asked {
        timeout(LIMIT, self.asked.recv()).await.expect("it asks in time").expect("it asks")
    }

    fn group(&self, n: usize) -> &[u8] {
        &self.object[n * GROUP..self.object.len().min((n + 1) * GROUP)]
    }

    /// The head of a raw reply, with the outline if the relay lacks it.
    async fn begin(&self, asked: &mut Asked) {
        let (first, outlined) = (asked.request.held, !asked.request.outlined);
        self.begin_with(asked, first, outlined).await;
    }

    async fn begin_with(&self, asked: &mut Asked, first: u32, outlined: bool) {
        let bytes = self.object.len() as u64;
        let encoding = Encoding::Raw;
        let reply = PullReply::Found { bytes, encoding, first, outlined, promoted: false };
        write_framed(&mut asked.send, &reply.encode()).await;
        if outlined {
            asked.send.write_all(&self.outline.encode()).await.expect("it is sent");
        }
    }

    async fn give(&self, asked: &mut Asked, groups: std::ops::Range<usize>) {
        for n in groups {
            asked.send.write_all(self.group(n)).await.expect("it is sent");
        }
    }
}

fn credentials(authority: &Authority, id: u32, role: Role) -> Credentials {
    let key = NodeKey::generate();
    let (mesh, name) = (authority.mesh(), format!("n{id}"));
    let who = Identity { mesh, id, role, name, site: String::new() };
    let day = Duration::from_secs(86_400);
    let leaf = authority.issue(&key.csr(), &who, day, SystemTime::now()).expect("a leaf");
    let (ca, order) = (authority.certificate().to_vec(), authority.order_signer());
    Credentials::new(key, leaf, ca, order.key()).expect("they fit")
}

/// The parent: says hello on each control stream and hands over each request for content.
async fn accept(endpoint: quinn::Endpoint, ask: mpsc::Sender<Asked>) {
    while let Some(incoming) = endpoint.accept().await {
        let Ok(conn) = incoming.await else { continue };
        let ask = ask.clone();
        tokio::spawn(async move {
            let mut kept = Vec::new();
            while let Ok((mut send, mut recv)) = conn.accept_bi().await {
                let mut kind = [0];
                recv.read_exact(&mut kind).await.expect("the kind of a stream");
                if kind[0] == StreamKind::Content as u8 {
                    let request = PullRequest::decode(&read_framed(&mut recv).await);
                    let request = request.expect("a request");
                    let asked = Asked { request, send, conn: conn.clone() };
                    ask.send(asked).await.expect("the test listens");
                    continue;
                }
                if kind[0] == StreamKind::Control as u8 {
                    let (events, profiles) = (false, false);
                    let hello = Frame::Hello { log: 1, held_log: 0, held: 0, events, profiles };
                    write_framed(&mut send, &protos::encode_frame(&hello)).await;
                }
                kept.push((send, recv));
            }
        });
    }
}

struct Child {
    conn: Connection,
}

/// A child's stream of one object.
struct Pull {
    recv: RecvStream,
    reply: PullReply,
}

impl Child {
    async fn ask(&self, content: Digest, held: u32) -> Pull {
        self.ask_with(request(content, held, held > 0)).await
    }

    async fn ask_with(&self, request: PullRequest) -> Pull {
        let (mut send, mut recv) = self.conn.open_bi().await.expect("a stream");
        send.write_all(&[StreamKind::Content as u8]).await.expect("it is sent");
        write_framed(&mut send, &request.encode()).await;
        let reply = PullReply::decode(&read_framed(&mut recv).await).expect("a reply");
        Pull { recv, reply }
    }
}

impl Pull {
    async fn next(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let read = timeout(LIMIT, self.recv.read_exact(&mut bytes)).await;
        read.expect("it comes in time").expect("it comes");
        bytes
    }

    /// The rest of the stream; an error if it was reset.
    async fn rest(&mut self) -> Result<Vec<u8>, quinn::ReadToEndError> {
        timeout(LIMIT, self.recv.read_to_end(2 * LEN)).await.expect("it ends in time")
    }
}

async fn write_framed(send: &mut SendStream, body: &[u8]) {
    send.write_all(&protos::frame_header(body.len())).await.expect("it is sent");
    send.write_all(body).await.expect("it is sent");
}

async fn read_framed(recv: &mut RecvStream) -> Vec<u8> {
    let mut header = [0; 4];
    timeout(LIMIT, recv.read_exact(&mut header)).await.expect("in time").expect("a header");
    let mut body = vec![0; u32::from_be_bytes(header) as usize];
    recv.read_exact(&mut body).await.expect("a body");
    body
}

fn found(first: u32, outlined: bool) -> PullReply {
    let (bytes, encoding, promoted) = (LEN as u64, Encoding::Raw, false);
    PullReply::Found { bytes, encoding, first, outlined, promoted }
}

fn request(content: Digest, held: u32, outlined: bool) -> PullRequest {
    PullRequest { content, held, outlined, willing: false, lost: None }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn children_read_what_has_arrived_while_the_rest_comes() {
    let mut stage = Stage::new();
    let relay = stage.relay();
    let (first, late, deaf) =
        (stage.child(&relay, 2).await, stage.child(&relay, 3).await, stage.child(&relay, 4).await);
    let content = stage.content();
    let ask = tokio::spawn(async move { (first.ask(content, 0).await, first) });
    let mut asked = stage.asked().await;
    assert_eq!(asked.request, request(content, 0, false));
    stage.begin(&mut asked).await;
    stage.give(&mut asked, 0..3).await;
    // The parent has sent three groups and waits: they are with the child already.
    let (mut pull, _first) = ask.await.expect("it asks");
    assert_eq!(pull.reply, found(0, true));
    assert_eq!(pull.next(stage.outline.encode().len()).await, stage.outline.encode());
    assert_eq!(pull.next(3 * GROUP).await, &stage.object[..3 * GROUP]);
    stage.give(&mut asked, 3..20).await;
    // One that comes late is given the front, one that holds a part of it only the rest, and one
    // that reads nothing holds up nobody.
    let mut second = late.ask(content, 0).await;
    let mut third = late.ask(content, 18).await;
    let _unread = deaf.ask(content, 0).await;
    assert_eq!((second.reply, third.reply), (found(0, true), found(18, false)));
    second.next(stage.outline.encode().len()).await;
    assert_eq!(second.next(20 * GROUP).await, &stage.object[..20 * GROUP]);
    assert_eq!(third.next(2 * GROUP).await, &stage.object[18 * GROUP..20 * GROUP]);
    stage.give(&mut asked, 20..GROUPS).await;
    asked.send.finish().expect("it ends");
    assert_eq!(pull.rest().await.expect("whole"), &stage.object[3 * GROUP..]);
    assert_eq!(second.rest().await.expect("whole"), &stage.object[20 * GROUP..]);
    assert_eq!(third.rest().await.expect("whole"), &stage.object[20 * GROUP..]);
    // From the store it is served the same way, and nobody has asked the parent twice.
    let mut fourth = late.ask(content, 39).await;
    assert_eq!(fourth.reply, found(39, false));
    assert_eq!(fourth.rest().await.expect("whole"), stage.group(39));
    assert!(stage.asked.try_recv().is_err(), "one request upstream");
    relay.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_link_costs_no_group_twice_and_no_child_its_stream() {
    let mut stage = Stage::new();
    let relay = stage.relay();
    let child = stage.child(&relay, 2).await;
    let content = stage.content();
    let ask = tokio::spawn(async move { (child.ask(content, 0).await, child) });
    let mut asked = stage.asked().await;
    stage.begin(&mut asked).await;
    let (mut pull, _child) = ask.await.expect("it asks");
    pull.next(stage.outline.encode().len()).await;
    for groups in [0..9, 9..10, 10..33, 33..GROUPS] {
        assert_eq!(asked.request.held as usize, groups.start);
        let end = LEN.min(groups.end * GROUP);
        stage.give(&mut asked, groups.clone()).await;
        assert_eq!(
            pull.next(end - groups.start * GROUP).await,
            &stage.object[groups.start * GROUP..end]
        );
        if groups.end < GROUPS {
            // Half a group is under way when the link goes.
            asked.send.write_all(&stage.group(groups.end)[..100]).await.expect("it is sent");
            asked.conn.close(0u32.into(), b"cut");
            asked = stage.asked().await;
            assert!(asked.request.outlined);
            stage.begin(&mut asked).await;
        }
    }
    assert_eq!(pull.rest().await.expect("whole"), b"");
    relay.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_starts_again_goes_on_where_it_was() {
    let mut stage = Stage::new();
    let content = stage.content();
    let relay = stage.relay();
    let child = stage.child(&relay, 2).await;
    let ask = tokio::spawn(async move { (child.ask(content, 0).await, child) });
    let mut asked = stage.asked().await;
    stage.begin(&mut asked).await;
    stage.give(&mut asked, 0..30).await;
    let (mut pull, _child) = ask.await.expect("it asks");
    pull.next(stage.outline.encode().len() + 30 * GROUP).await;
    let partial = stage.dir.path().join("relay/store/partial").join(stage.outline.id().to_string());
    let written = || std::fs::metadata(&partial).is_ok_and(|meta| meta.len() == 30 * GROUP as u64);
    timeout(LIMIT, async {
        while !written() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("all that has come is written, though no more comes");
    relay.stop().await.expect("a clean stop");
    drop(relay);

    let relay = stage.relay();
    let child = stage.child(&relay, 2).await;
    let ask = tokio::spawn(async move { (child.ask(content, 30).await, child) });
    let mut asked = stage.asked().await;
    assert_eq!(asked.request, request(content, 30, true));
    stage.begin(&mut asked).await;
    stage.give(&mut asked, 30..GROUPS).await;
    let (mut pull, _child) = ask.await.expect("it asks");
    assert_eq!(pull.reply, found(30, false));
    assert_eq!(pull.rest().await.expect("whole"), &stage.object[30 * GROUP..]);
    relay.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_parent_alters_goes_no_further() {
    let mut stage = Stage::new();
    let content = stage.content();
    let relay = stage.relay();
    let child = stage.child(&relay, 2).await;
    let ask = tokio::spawn(async move { (child.ask(content, 0).await, child) });
    // An outline of something else.
    let mut asked = stage.asked().await;
    let reply = found(0, true);
    write_framed(&mut asked.send, &reply.encode()).await;
    let mut forged = stage.outline.encode();
    forged[70] ^= 1;
    asked.send.write_all(&forged).await.expect("it is sent");
    // The right outline and a group that is not the object's.
    let mut asked = stage.asked().await;
    assert_eq!(asked.request.held, 0);
    stage.begin(&mut asked).await;
    stage.give(&mut asked, 0..5).await;
    let (mut pull, child) = ask.await.expect("it asks");
    pull.next(stage.outline.encode().len()).await;
    assert_eq!(pull.next(5 * GROUP).await, &stage.object[..5 * GROUP]);
    asked.send.write_all(&vec![7; GROUP]).await.expect("it is sent");
    // The third and last try: the parent does not have it any more.
    let mut asked = stage.asked().await;
    assert_eq!((asked.request.held, asked.request.outlined), (5, true));
    write_framed(&mut asked.send, &PullReply::Fault(PullFault::Absent).encode()).await;
    assert!(pull.rest().await.is_err(), "the child learns that no more comes");

    // Asked again, the relay goes on from what was good, and bytes beyond the end are not read.
    let ask = tokio::spawn(async move { (child.ask(content, 5).await, child) });
    let mut asked = stage.asked().await;
    assert_eq!((asked.request.held, asked.request.outlined), (5, true));
    stage.begin(&mut asked).await;
    stage.give(&mut asked, 5..GROUPS).await;
    asked.send.write_all(b"and more").await.ok();
    let (mut pull, child) = ask.await.expect("it asks");
    assert_eq!(pull.rest().await.expect("whole"), &stage.object[5 * GROUP..]);

    // What the parent does not have is denied, and so is what it lies about to the end.
    let other = Digest([9; 32]);
    let ask = tokio::spawn(async move { (child.ask(other, 0).await, child) });
    let mut asked = stage.asked().await;
    write_framed(&mut asked.send, &PullReply::Fault(PullFault::Absent).encode()).await;
    let (pull, child) = ask.await.expect("it asks");
    assert_eq!(pull.reply, PullReply::Fault(PullFault::Absent));
    let ask = tokio::spawn(async move { child.ask(other, 0).await });
    for _ in 0..3 {
        let mut asked = stage.asked().await;
        let (bytes, encoding, promoted) = (u64::MAX, Encoding::Raw, false);
        let reply = PullReply::Found { bytes, encoding, first: 0, outlined: true, promoted };
        write_framed(&mut asked.send, &reply.encode()).await;
    }
    assert_eq!(ask.await.expect("it asks").reply, PullReply::Fault(PullFault::Corrupt));
    relay.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outline_without_a_group_is_enough_to_go_on() {
    let mut stage = Stage::of(5 * GROUP);
    let relay = stage.relay();
    let child = stage.child(&relay, 2).await;
    let content = stage.content();
    let ask = tokio::spawn(async move { (child.ask(content, 0).await, child) });
    let mut asked = stage.asked().await;
    stage.begin(&mut asked).await;
    let (mut pull, child) = ask.await.expect("it asks");
    pull.next(stage.outline.encode().len()).await;
    asked.conn.close(0u32.into(), b"cut");
    // The parent sends the outline once more, though it is not asked to.
    let mut asked = stage.asked().await;
    assert_eq!(asked.request, request(content, 0, true));
    stage.begin_with(&mut asked, 0, true).await;
    stage.give(&mut asked, 0..5).await;
    assert_eq!(pull.rest().await.expect("whole"), stage.object);
    // As a parent the relay keeps to what it was asked, also for an object as small as this.
    let mut known = child.ask_with(request(content, 0, true)).await;
    let (bytes, encoding, promoted) = (stage.object.len() as u64, Encoding::Raw, false);
    let reply = PullReply::Found { bytes, encoding, first: 0, outlined: false, promoted };
    assert_eq!(known.reply, reply);
    assert_eq!(known.rest().await.expect("whole"), stage.object);
    relay.stop().await.expect("a clean stop");
}
