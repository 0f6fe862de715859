//! Nodes of one process over real QUIC on loopback: orders go down, answers come up, and what is
//! not genuine is refused.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use certs::{Authority, Credentials, Identity, MeshId, NodeKey, Role};
use mesh::{Event, HostId, HostSet, Order, OrderId, State};
use protos::{Envelope, ORDER_KIND, OrderBody, Run, Work};
use relay::{Journal, JournalError, NoWitness, Running, Settings, Setup, Witness};

const LIMIT: Duration = Duration::from_secs(30);

struct Watch(mpsc::Sender<Event>);

impl Witness for Watch {
    fn see(&mut self, event: &Event) {
        if !self.keeps(event) {
            self.0.send(event.clone()).ok();
        }
    }
    fn keeps(&self, event: &Event) -> bool {
        matches!(event, Event::Answers(_) | Event::Closed(_))
    }
    fn note(&mut self, _: &redb::WriteTransaction, _: &Event) -> Result<(), JournalError> {
        Ok(())
    }
    fn committed(&mut self, events: &mut dyn Iterator<Item = Event>) {
        events.for_each(|event| drop(self.0.send(event)));
    }
}

struct Mesh {
    dir: tempfile::TempDir,
    authority: Authority,
}

impl Mesh {
    fn new() -> Mesh {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let authority =
            Authority::create(&dir.path().join("ca"), MeshId::random(), SystemTime::now())
                .expect("an authority");
        Mesh { dir, authority }
    }

    fn credentials(&self, id: u32, role: Role) -> Credentials {
        let key = NodeKey::generate();
        let who = Identity {
            mesh: self.authority.mesh(),
            id,
            role,
            name: format!("n{id}"),
            site: String::new(),
        };
        let day = Duration::from_secs(86_400);
        let leaf = self.authority.issue(&key.csr(), &who, day, SystemTime::now()).expect("a leaf");
        let (ca, order) = (self.authority.certificate().to_vec(), self.authority.order_signer());
        Credentials::new(key, leaf, ca, order.key()).expect("they fit")
    }

    fn start(
        &self,
        credentials: Credentials,
        parent: Option<SocketAddr>,
        witness: Box<dyn Witness>,
    ) -> Running {
        let identity = credentials.identity().clone();
        let state = self.dir.path().join(format!("n{}", identity.id));
        std::fs::create_dir_all(&state).expect("a state folder");
        let settings = Settings {
            parents: parent.iter().map(SocketAddr::to_string).collect(),
            listen: identity.role.serves().then(|| (Ipv4Addr::LOCALHOST, 0).into()),
            install_root: state.join("root"),
            redial_base_ms: 50,
            ..Settings::default()
        };
        let setup = Setup {
            credentials,
            settings,
            journal: Journal::open(&state.join("node.redb"), 1 << 20).expect("a journal"),
            store: Arc::new(content::Store::open(state.join("store")).expect("a store")),
            state: state.clone(),
            witness,
            registrar: None,
            obeys: identity.role != Role::Controller,
        };
        relay::start(setup).expect("it starts")
    }

    fn root(&self) -> (Running, mpsc::Receiver<Event>) {
        let (events, seen) = mpsc::channel();
        let credentials = self.credentials(0, Role::Controller);
        (self.start(credentials, None, Box::new(Watch(events))), seen)
    }

    fn order(&self, targets: HostSet, line: &str) -> (OrderBody, Envelope) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
        let now = u64::try_from(now).expect("not too far");
        let run = Run {
            shell: true,
            output_limit: 1_000,
            ..Run::new([line.to_owned()], Duration::from_secs(10))
        };
        let body = OrderBody {
            reach: Duration::from_secs(20),
            hold: Duration::from_secs(20),
            issued_by: "test".into(),
            ..OrderBody::new(
                self.authority.mesh().0,
                OrderId(certs::random::<16>()),
                targets,
                now - 1_000..=now + 60_000,
                Work::Run(run),
            )
        };
        let bytes = body.encode();
        let signer = self.authority.order_signer();
        let envelope = Envelope {
            kind: ORDER_KIND.into(),
            signature: signer.sign(ORDER_KIND, &bytes),
            key: signer.key().id().into_bytes().into(),
            body: bytes.into(),
        };
        (body, envelope)
    }
}

fn wait<T>(seen: &mpsc::Receiver<Event>, what: impl Fn(&Event) -> Option<T>) -> T {
    let until = std::time::Instant::now() + LIMIT;
    loop {
        let left = until.saturating_duration_since(std::time::Instant::now());
        let event = seen.recv_timeout(left).expect("it happens within the limit");
        if let Some(found) = what(&event) {
            return found;
        }
    }
}

fn wait_up(seen: &mpsc::Receiver<Event>, host: u32) {
    wait(seen, |event| match event {
        Event::Reachable(mesh::Subtree { up, .. }) if up.contains(HostId(host)) => Some(()),
        _ => None,
    });
}

fn answer_of(seen: &mpsc::Receiver<Event>, host: u32) -> (State, protos::Answer) {
    // Each distinct body comes once, perhaps with the answer of another host.
    let bodies = std::cell::RefCell::new(std::collections::BTreeMap::new());
    wait(seen, |event| match event {
        Event::Answers(report) => {
            bodies.borrow_mut().extend(report.bodies.clone());
            let outcome = report.tally.outcome(HostId(host))?;
            let body = outcome.body.and_then(|digest| bodies.borrow().get(&digest).cloned());
            let body = body.map(|body| protos::Answer::decode(body).expect("an answer"));
            Some((outcome.state, body.unwrap_or_default()))
        }
        _ => None,
    })
}

fn mesh_order(body: &OrderBody, envelope: &Envelope) -> Order {
    body.to_mesh(envelope.encode(), Duration::from_secs(60))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_reach_a_host_behind_a_relay_and_answers_return() {
    let mesh = Mesh::new();
    let (root, seen) = mesh.root();
    let relay = mesh.start(mesh.credentials(1, Role::Relay), root.addr(), Box::new(NoWitness));
    let host = mesh.start(mesh.credentials(2, Role::Host), relay.addr(), Box::new(NoWitness));
    wait_up(&seen, 2);
    let targets = HostSet::from_ranges([(1, 2)]);
    let (body, envelope) = mesh.order(targets, "echo hello; echo oops >&2; exit 3");
    assert!(root.submit(mesh_order(&body, &envelope)).await);
    let (state, answer) = answer_of(&seen, 2);
    assert_eq!(state, State::Failed(3));
    assert_eq!((&answer.stdout[..], &answer.stderr[..]), (&b"hello\n"[..], &b"oops\n"[..]));
    wait(&seen, |event| matches!(event, Event::Closed(id) if *id == body.id).then_some(()));
    for node in [&host, &relay, &root] {
        node.stop().await.expect("a clean stop");
    }
}

/// Adds what comes to the root of one order, each stream to its own text, until that has come.
async fn hear(
    previews: &mut tokio::sync::broadcast::Receiver<mesh::Said>,
    id: OrderId,
    heard: &mut [String; 2],
    expected: [&str; 2],
) {
    while *heard != expected {
        let said = tokio::time::timeout(LIMIT, previews.recv()).await;
        let said = said.unwrap_or_else(|_| panic!("only {heard:?} was heard"));
        let said = said.expect("the root lives, and we are not slow");
        assert_eq!((said.order, said.host), (id, HostId(2)));
        let text = &mut heard[usize::from(said.stream == mesh::Stream::Stderr)];
        assert_eq!(said.offset, text.len() as u64);
        text.push_str(std::str::from_utf8(&said.bytes).expect("plain text"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_watched_is_heard_while_it_runs_and_each_generation_from_the_beginning() {
    let mesh = Mesh::new();
    let (root, seen) = mesh.root();
    let relay = mesh.start(mesh.credentials(1, Role::Relay), root.addr(), Box::new(NoWitness));
    let host = mesh.start(mesh.credentials(2, Role::Host), relay.addr(), Box::new(NoWitness));
    wait_up(&seen, 2);
    let dir = mesh.dir.path().display();
    let wait =
        |gate: u8| format!("while [ -d {dir} ] && ! [ -e {dir}/gate{gate} ]; do sleep 0.02; done");
    let line = format!("echo one; {}; echo two; echo oops >&2; {}; echo three", wait(1), wait(2));
    let (body, envelope) = mesh.order(HostSet::one(HostId(2)), &line);
    let mut previews = root.previews();
    root.watch([(body.id, 1)].into()).await;
    assert!(root.submit(mesh_order(&body, &envelope)).await);
    let mut text = Default::default();
    hear(&mut previews, body.id, &mut text, ["one\n", ""]).await;
    std::fs::write(mesh.dir.path().join("gate1"), "").expect("a gate");
    hear(&mut previews, body.id, &mut text, ["one\ntwo\n", "oops\n"]).await;
    root.watch([(body.id, 2)].into()).await;
    let mut text = Default::default();
    hear(&mut previews, body.id, &mut text, ["one\ntwo\n", "oops\n"]).await;
    // Nobody watches any more; the answer has everything all the same.
    root.watch([].into()).await;
    std::fs::write(mesh.dir.path().join("gate2"), "").expect("a gate");
    let (state, answer) = answer_of(&seen, 2);
    assert_eq!(state, State::Ok);
    assert_eq!(&answer.stdout[..], b"one\ntwo\nthree\n");
    for node in [&host, &relay, &root] {
        node.stop().await.expect("a clean stop");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_was_tampered_with_is_refused_and_not_run() {
    let mesh = Mesh::new();
    let (root, seen) = mesh.root();
    let host = mesh.start(mesh.credentials(2, Role::Host), root.addr(), Box::new(NoWitness));
    wait_up(&seen, 2);
    let witness = mesh.dir.path().join("ran");
    let line = format!("touch {}", witness.display());

    // Widened after it was signed: the host was not among its targets.
    let (mut body, mut envelope) = mesh.order(HostSet::one(HostId(7)), &line);
    body.targets = HostSet::from_ranges([(2, 7)]);
    envelope.body = body.encode().into();
    assert!(root.submit(mesh_order(&body, &envelope)).await);
    let (state, answer) = answer_of(&seen, 2);
    assert_eq!(state, State::Refused);
    assert!(answer.fault.expect("a reason").detail.contains("signature"));

    // Genuine, but of another mesh.
    let (mut body, mut envelope) = mesh.order(HostSet::one(HostId(2)), &line);
    body.mesh = [9; 16];
    envelope.body = body.encode().into();
    envelope.signature = mesh.authority.order_signer().sign(ORDER_KIND, &envelope.body);
    assert!(root.submit(mesh_order(&body, &envelope)).await);
    assert_eq!(answer_of(&seen, 2).0, State::Refused);

    // Genuine, but too old.
    let (mut body, mut envelope) = mesh.order(HostSet::one(HostId(2)), &line);
    (body.not_before_ms, body.not_after_ms) = (1_000, 2_000);
    envelope.body = body.encode().into();
    envelope.signature = mesh.authority.order_signer().sign(ORDER_KIND, &envelope.body);
    assert!(root.submit(mesh_order(&body, &envelope)).await);
    assert_eq!(answer_of(&seen, 2).0, State::Expired);

    // The genuine order still runs, which shows that the others had every chance to.
    let (body, envelope) = mesh.order(HostSet::one(HostId(2)), &line);
    assert!(!witness.exists());
    assert!(root.submit(mesh_order(&body, &envelope)).await);
    assert_eq!(answer_of(&seen, 2).0, State::Ok);
    assert!(witness.exists());
    host.stop().await.expect("a clean stop");
    root.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_certificate_gets_no_link() {
    let (ours, theirs) = (Mesh::new(), Mesh::new());
    let (root, seen) = ours.root();
    let stranger =
        theirs.start(theirs.credentials(5, Role::Host), root.addr(), Box::new(NoWitness));
    // A host of ours that comes later is linked; the stranger, which dials all the while, is not.
    let host = ours.start(ours.credentials(2, Role::Host), root.addr(), Box::new(NoWitness));
    wait_up(&seen, 2);
    assert!(root.links().iter().all(|link| link.host == HostId(2)), "{:?}", root.links());
    assert!(stranger.links().is_empty());
    for node in [&stranger, &host, &root] {
        node.stop().await.expect("a clean stop");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rubbish_on_the_port_disturbs_nobody() {
    let mesh = Mesh::new();
    let (root, seen) = mesh.root();
    let host = mesh.start(mesh.credentials(2, Role::Host), root.addr(), Box::new(NoWitness));
    wait_up(&seen, 2);
    let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    let addr = root.addr().expect("it listens");
    for n in 0..2_000_usize {
        let rubbish: Vec<u8> = (0..n % 1_200).map(|i| (i * 31 + n * 7) as u8).collect();
        socket.send_to(&rubbish, addr).ok();
    }
    let (body, envelope) = mesh.order(HostSet::one(HostId(2)), "true");
    assert!(root.submit(mesh_order(&body, &envelope)).await);
    assert_eq!(answer_of(&seen, 2).0, State::Ok);
    host.stop().await.expect("a clean stop");
    root.stop().await.expect("a clean stop");
}

#[test]
fn a_state_folder_serves_one_process() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("node.redb");
    let _first = Journal::open(&path, 1 << 20).expect("the first");
    let error = Journal::open(Path::new(&path), 1 << 20).err().expect("the second is refused");
    assert!(error.to_string().contains("another node"), "{error}");
}

/// A peer that has a genuine certificate and does not keep to the protocol.
async fn misbehave(mesh: &Mesh, root: SocketAddr, id: u32, bytes: &[u8]) -> String {
    let tls = certs::client_config(&mesh.credentials(id, Role::Host));
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).expect("TLS 1.3");
    let endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).expect("a socket");
    let config = quinn::ClientConfig::new(Arc::new(crypto));
    let name = certs::parent_name(&mesh.authority.mesh());
    let connecting = endpoint.connect_with(config, root, &name).expect("it begins");
    let conn = connecting.await.expect("a genuine certificate is let in");
    let (mut send, _recv) = conn.open_bi().await.expect("a stream");
    send.write_all(bytes).await.expect("it is sent");
    tokio::time::timeout(LIMIT, conn.closed()).await.expect("it is closed").to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_breaks_the_protocol_loses_its_link_alone() {
    let mesh = Mesh::new();
    let (root, seen) = mesh.root();
    let host = mesh.start(mesh.credentials(2, Role::Host), root.addr(), Box::new(NoWitness));
    wait_up(&seen, 2);
    let addr = root.addr().expect("it listens");
    let control = protos::StreamKind::Control as u8;

    // A frame that says it is 4 GiB long.
    let reason = misbehave(&mesh, addr, 3, &[control, 0xff, 0xff, 0xff, 0xff]).await;
    assert!(reason.contains("length"), "{reason}");
    // A frame of rubbish.
    let reason = misbehave(&mesh, addr, 4, &[control, 0, 0, 0, 3, 0xff, 0xff, 0xff]).await;
    assert!(reason.contains("not readable"), "{reason}");
    // A host that says others live below it.
    let hosts = HostSet::from_ranges([(2, 9)]);
    let claim = protos::encode_frame(&mesh::Frame::Below(mesh::Subtree {
        below: hosts,
        ..mesh::Subtree::default()
    }));
    let claim = [&[control][..], &protos::frame_header(claim.len()), &claim].concat();
    let reason = misbehave(&mesh, addr, 5, &claim).await;
    assert!(reason.contains("others than itself"), "{reason}");

    // A host that answers for another.
    let (body, envelope) = mesh.order(HostSet::one(HostId(2)), "exit 4");
    let mut report = mesh::Report::new(body.id);
    report.tally.record(mesh::Outcome::bare(State::Ok), &HostSet::one(HostId(2)));
    let forged = protos::encode_frame(&mesh::Frame::Report { log: 1, seq: 1, report });
    let reports = protos::StreamKind::Reports as u8;
    let forged = [&[reports][..], &protos::frame_header(forged.len()), &forged].concat();
    let reason = misbehave(&mesh, addr, 6, &forged).await;
    assert!(reason.contains("reported others than itself"), "{reason}");

    // A host that speaks for another, and previews and watches where they do not belong.
    let said = mesh::Said {
        order: body.id,
        host: HostId(2),
        stream: mesh::Stream::Stdout,
        offset: 0,
        bytes: Bytes::from_static(b"I am not what I am"),
    };
    let forged = protos::encode_frame(&mesh::Frame::Said(said));
    let forged = [&protos::frame_header(forged.len())[..], &forged].concat();
    let live = protos::StreamKind::Live as u8;
    let reason = misbehave(&mesh, addr, 7, &[&[live][..], &forged].concat()).await;
    assert!(reason.contains("spoke for others than itself"), "{reason}");
    let reason = misbehave(&mesh, addr, 8, &[&[control][..], &forged].concat()).await;
    assert!(reason.contains("a stream of another kind"), "{reason}");
    let watch = protos::encode_frame(&mesh::Frame::Watch { orders: [(body.id, 1)].into() });
    let watch = [&[live][..], &protos::frame_header(watch.len()), &watch].concat();
    let reason = misbehave(&mesh, addr, 9, &watch).await;
    assert!(reason.contains("wrong side"), "{reason}");

    assert!(root.submit(mesh_order(&body, &envelope)).await);
    assert_eq!(answer_of(&seen, 2).0, State::Failed(4));
    host.stop().await.expect("a clean stop");
    root.stop().await.expect("a clean stop");
}
