//! Floods at a relay with children: packets that are none, strangers, and handshakes that are begun
//! and left. Those who are linked notice nothing, whoever is new comes in, and it is told once.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, park_timeout, spawn};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use certs::{Authority, Credentials, Identity, MeshId, NodeKey, Role};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Endpoint, EndpointConfig, TokioRuntime};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tests::{Fleet, LIMIT, Spec, show, wait_for};
use tokio::time::MissedTickBehavior;

/// Where the floods come from: not the address of the children.
const FROM: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
/// How much a relay may grow by a flood, in KiB.
const MOST: u64 = 48 << 10;
/// Packets that are none, a millisecond.
const PACKETS: usize = 4;
/// Strangers who knock at once, and those who begin and leave; and how long each pauses.
const STRANGERS: usize = 8;
const LEFT: usize = 32;
const PAUSE: Duration = Duration::from_millis(100);

/// A flood, which ends when this is dropped.
struct Flood {
    stop: Arc<AtomicBool>,
    /// Packets sent, and handshakes begun.
    packets: Arc<AtomicU64>,
    begun: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}

impl Flood {
    fn start(at: SocketAddr, dir: &std::path::Path) -> Result<Flood> {
        let (stop, packets, begun) = Default::default();
        let mut flood = Flood { stop, packets, begun, threads: Vec::new() };
        let socket = UdpSocket::bind((FROM, 0))?;
        let (stop, packets) = (flood.stop.clone(), flood.packets.clone());
        flood.threads.push(spawn(move || noise(&socket, at, &stop, &packets)));
        let config = stranger(dir)?;
        for leaves in [false, true] {
            let (stop, begun, config) = (flood.stop.clone(), flood.begun.clone(), config.clone());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            flood.threads.push(spawn(move || {
                runtime.block_on(async {
                    let many = if leaves { LEFT } else { STRANGERS };
                    let mut tasks = tokio::task::JoinSet::new();
                    for _ in 0..many {
                        let (stop, begun) = (stop.clone(), begun.clone());
                        tasks.spawn(knock(at, config.clone(), leaves, stop, begun));
                    }
                    tasks.join_all().await;
                });
            }));
        }
        Ok(flood)
    }
}

/// Packets with the first bytes of QUIC's and nothing behind them.
fn noise(socket: &UdpSocket, at: SocketAddr, stop: &AtomicBool, sent: &AtomicU64) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    while !stop.load(Ordering::Relaxed) {
        for n in 0..PACKETS {
            let mut packet = [0; 1_200];
            for part in packet.chunks_mut(8) {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                part.copy_from_slice(&state.to_le_bytes()[..part.len()]);
            }
            match n % 4 {
                // An initial packet of version 1; another kind; another version; a short header.
                0 => packet[..6].copy_from_slice(&[0xc3, 0, 0, 0, 1, 8]),
                1 => packet[..6].copy_from_slice(&[0xe3, 0, 0, 0, 1, 20]),
                2 => packet[..6].copy_from_slice(&[0xc3, 9, 9, 9, 9, 8]),
                _ => packet[0] = 0x40 | packet[0] & 0x3f,
            }
            if socket.send_to(&packet, at).is_ok() {
                sent.fetch_add(1, Ordering::Relaxed);
            }
        }
        park_timeout(Duration::from_millis(1));
    }
}

/// Begins handshakes, one after the other, and goes on with them or not.
async fn knock(
    at: SocketAddr,
    config: ClientConfig,
    leaves: bool,
    stop: Arc<AtomicBool>,
    begun: Arc<AtomicU64>,
) {
    // The pace of the flood, which is what it is and waits for nothing.
    let mut pace = tokio::time::interval(PAUSE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !stop.load(Ordering::Relaxed) {
        pace.tick().await;
        let tried =
            if leaves { first_word(at, &config).await } else { handshake(at, &config).await };
        if tried.is_ok() {
            begun.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A handshake to its end, which is that it is refused.
async fn handshake(at: SocketAddr, config: &ClientConfig) -> Result<()> {
    let endpoint = endpoint()?;
    let connecting = endpoint.connect_with(config.clone(), at, "stranger")?;
    if let Ok(Ok(conn)) = tokio::time::timeout(LIMIT, connecting).await {
        conn.closed().await;
    }
    Ok(())
}

/// Lets a client say its first word to a socket of ours, and takes that to the relay: the answer
/// meets nobody.
async fn first_word(at: SocketAddr, config: &ClientConfig) -> Result<()> {
    let socket = tokio::net::UdpSocket::bind((FROM, 0)).await?;
    let endpoint = endpoint()?;
    let _connecting = endpoint.connect_with(config.clone(), socket.local_addr()?, "stranger")?;
    let mut word = [0; 2_048];
    let (len, _) = socket.recv_from(&mut word).await?;
    socket.send_to(&word[..len], at).await?;
    Ok(())
}

fn endpoint() -> Result<Endpoint> {
    let socket = UdpSocket::bind((FROM, 0))?;
    Ok(Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime))?)
}

/// Somebody with a certificate of an authority of his own, who asks nobody for theirs.
fn stranger(dir: &std::path::Path) -> Result<ClientConfig> {
    let (mesh, now) = (MeshId::random(), SystemTime::now());
    let authority = Authority::create(&dir.join("authority"), mesh, now)?;
    let key = NodeKey::generate();
    let (name, site) = ("stranger".to_owned(), "elsewhere".to_owned());
    let identity = Identity { mesh, id: 7, role: Role::Host, name, site };
    let issued = authority.issue(&key.csr(), &identity, Duration::from_secs(3_600), now)?;
    let (ca, order_key) = (authority.certificate().to_vec(), authority.order_signer().key());
    let credentials = Credentials::new(key, issued, ca, order_key)?;
    let mut tls = certs::client_config(&credentials);
    tls.dangerous().set_certificate_verifier(Arc::new(Anybody));
    Ok(ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?)))
}

#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519, SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// A number of kibibytes in what the kernel says of a process.
fn kib(fleet: &Fleet, name: &str, field: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", fleet.pid(name)?))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)).context("a field")?;
    Ok(line.split_whitespace().next().context("a number")?.parse()?)
}

/// The events of those who were turned away, and how many they are in all.
fn turned_away(fleet: &Fleet) -> Result<(usize, u64)> {
    let output = fleet.barid(&["--json", "events", "--since", "1h", "link.turned-away"])?;
    ensure!(output.status.success(), "{}", show(&output.stderr));
    let text = show(&output.stdout);
    let events = text.lines().filter_map(|line| serde_json::from_str(line).ok());
    let counts: Vec<u64> = events
        .filter(|event: &serde_json::Value| event["subject"] == "link.turned-away")
        .filter_map(|event| event["count"].as_u64())
        .collect();
    Ok((counts.len(), counts.iter().sum()))
}

#[test]
fn a_flood_is_told_and_nobody_who_is_linked_notices() -> Result<()> {
    let mut fleet = Fleet::tree(1, 3)?;
    let relay = "site1-relay";
    let lost = |fleet: &Fleet| fleet.log(relay).matches("unlinked").count();
    assert_eq!(lost(&fleet), 0, "{}", fleet.log(relay));
    let before = kib(&fleet, relay, "VmRSS:")?;
    let dir = tempfile::tempdir()?;
    let flood = Flood::start(fleet.listen(relay)?.parse()?, dir.path())?;
    // Longer than three beats, since it is told every ten seconds.
    let told = wait_for("the flood to be told", LIMIT, || {
        let ran = fleet.barid(&["run", "-a", "-t", "60s", "--", "true"])?;
        ensure!(ran.status.success(), "{}", show(&ran.stderr));
        let (_, told) = turned_away(&fleet)?;
        Ok((told >= 20).then_some(told))
    })?;
    // Who is new comes in, meanwhile.
    fleet.add(&Spec {
        role: "host",
        name: "new".into(),
        site: "site1".into(),
        parents: vec![relay.into()],
        config: String::new(),
    })?;
    fleet.wait_up(5)?;
    let (packets, begun) =
        (flood.packets.load(Ordering::Relaxed), flood.begun.load(Ordering::Relaxed));
    drop(flood);
    let grown = kib(&fleet, relay, "VmHWM:")?.saturating_sub(before);
    println!("{packets} packets, {begun} handshakes; {told} told; the relay grew by {grown} KiB");
    assert!(packets > 1_000 && begun > 100, "no flood: {packets} packets, {begun} handshakes");
    assert!(grown < MOST, "the relay has grown by {grown} KiB");
    assert_eq!(lost(&fleet), 0, "a child was lost:\n{}", fleet.log(relay));
    let lines = fleet.log(relay).lines().filter(|line| line.contains("127.0.0.2")).count();
    assert!(lines < 200, "{lines} lines in its log");
    Ok(())
}
