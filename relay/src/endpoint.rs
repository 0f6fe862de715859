//! Sockets and transport settings: what QUIC is told to be, and why.
//!
//! The defaults of quinn suit a web server; a relay has a thousand children of unknown health, so
//! windows are small enough that all of them together fit in memory, streams are few, and the
//! reset key survives a restart so that children notice at once.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use certs::Credentials;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Endpoint, EndpointConfig, ServerConfig, TransportConfig, VarInt};
use tracing::{debug, warn};

use crate::congestion::Start;
use crate::kind::{End, IDLE, LinkKind};

/// Connection ids that begin with these bytes ask for the join service: a routing hint only, since
/// the handshake behind it speaks another ALPN and grants nothing else.
pub(crate) const JOIN_HINT: [u8; 8] = *b"baridjoi";

/// What the UDP socket of a serving node should buffer; the kernel's default loses handshakes.
const SERVING_BUFFER: usize = 4 << 20;
/// What the socket towards a parent should buffer: a pack arrives faster than the default holds.
const DIALLING_BUFFER: usize = 1 << 20;
/// How soon after one another peers of a dead process are told that it is. At quinn's own 20 ms a
/// thousand children would hear of it for 20 s. A reset is shorter than what it answers.
const RESET_INTERVAL: Duration = Duration::from_millis(1);

/// An endpoint could not be made.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The address is taken, not ours, or not allowed.
    #[error("{0}: cannot listen there (UDP)")]
    Bind(SocketAddr, #[source] std::io::Error),
    /// The key that survives restarts cannot be kept.
    #[error("the endpoint's key cannot be kept in the state folder")]
    Key(#[source] certs::files::FileError),
}

/// The settings of the mesh's own connections at the parent's side. What is on the other side of
/// an accepted connection is not known, so this is for anything.
pub(crate) fn server(credentials: &Credentials, beat: Duration) -> ServerConfig {
    let transport = LinkKind::Wan.transport(End::Parent, beat, None);
    Arc::unwrap_or_clone(quic_server(certs::server_config(credentials), transport))
}

/// The same for a child whose way is remembered.
pub(crate) fn starting(server: &ServerConfig, beat: Duration, start: Start) -> Arc<ServerConfig> {
    let mut server = server.clone();
    server.transport_config(Arc::new(LinkKind::Wan.transport(End::Parent, beat, Some(start))));
    Arc::new(server)
}

/// The settings of the join service.
pub(crate) fn join_server(credentials: &Credentials) -> Arc<ServerConfig> {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(64 << 10))
        .receive_window(VarInt::from_u32(64 << 10))
        .max_idle_timeout(Some(VarInt::from_u32(10_000).into()));
    quic_server(certs::join_server_config(credentials), transport)
}

pub(crate) fn quic_server(
    tls: rustls::ServerConfig,
    transport: TransportConfig,
) -> Arc<ServerConfig> {
    let crypto = QuicServerConfig::try_from(tls).expect("the configuration allows TLS 1.3");
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config
        .transport_config(Arc::new(transport))
        .max_incoming(1_024)
        .incoming_buffer_size(64 << 10)
        .incoming_buffer_size_total(8 << 20)
        .retry_token_lifetime(Duration::from_secs(15));
    Arc::new(config)
}

/// The settings by which a child dials.
pub(crate) fn client(credentials: &Credentials, link: LinkKind, beat: Duration) -> ClientConfig {
    let serves = credentials.identity().role.serves();
    let transport = link.transport(End::Child { serves }, link.beat(beat), None);
    quic_client(certs::client_config(credentials), transport)
}

/// The settings by which a newcomer dials the join service.
pub(crate) fn join_client(pin: &certs::Pin) -> ClientConfig {
    let transport = LinkKind::Wan.transport(End::Child { serves: false }, IDLE / 6, None);
    let mut config = quic_client(certs::join_client_config(pin), transport);
    config.initial_dst_cid_provider(Arc::new(|| {
        let mut id = [0; 20];
        id[..8].copy_from_slice(&JOIN_HINT);
        id[8..].copy_from_slice(&certs::random::<12>());
        quinn::ConnectionId::new(&id)
    }));
    config
}

pub(crate) fn quic_client(tls: rustls::ClientConfig, transport: TransportConfig) -> ClientConfig {
    let crypto = QuicClientConfig::try_from(tls).expect("the configuration allows TLS 1.3");
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport));
    config
}

/// An endpoint that accepts children. Its key is kept in `dir`, so that after a restart the
/// children of the dead process are told so, instead of waiting for their idle timeout.
pub(crate) fn listening(
    addr: SocketAddr,
    server: ServerConfig,
    dir: &Path,
) -> Result<Endpoint, EndpointError> {
    let key = endpoint_key(dir).map_err(EndpointError::Key)?;
    let mut config =
        EndpointConfig::new(Arc::new(ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &key[..32])));
    config.min_reset_interval(RESET_INTERVAL);
    let cid_key = u64::from_le_bytes(key[32..40].try_into().expect("8 bytes"));
    config.cid_generator(move || {
        Box::new(quinn_proto::HashedConnectionIdGenerator::from_key(cid_key))
    });
    let bind = || {
        let socket = UdpSocket::bind(addr)?;
        widen(&socket, SERVING_BUFFER);
        Endpoint::new(config, Some(server), socket, Arc::new(quinn::TokioRuntime))
    };
    bind().map_err(|error| EndpointError::Bind(addr, error))
}

/// An endpoint that dials a peer of this address family.
pub(crate) fn dialling(peer: SocketAddr) -> Result<Endpoint, EndpointError> {
    let ip = match peer.ip() {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let addr = SocketAddr::new(ip, 0);
    let bind = || {
        let socket = UdpSocket::bind(addr)?;
        widen(&socket, DIALLING_BUFFER);
        let runtime = Arc::new(quinn::TokioRuntime);
        Endpoint::new(EndpointConfig::default(), None, socket, runtime)
    };
    bind().map_err(|error| EndpointError::Bind(addr, error))
}

fn endpoint_key(dir: &Path) -> Result<[u8; 40], certs::files::FileError> {
    let path = dir.join("endpoint.key");
    if path.exists()
        && let Ok(key) = <[u8; 40]>::try_from(certs::files::read_secret(&path)?)
    {
        return Ok(key);
    }
    let key = certs::random::<40>();
    certs::files::replace_secret(&path, &key)?;
    Ok(key)
}

fn widen(socket: &UdpSocket, wanted: usize) {
    let socket = socket2::SockRef::from(socket);
    socket.set_recv_buffer_size(wanted).ok();
    socket.set_send_buffer_size(wanted).ok();
    // Linux reports twice what it grants.
    let received = socket.recv_buffer_size().unwrap_or(0) / 2;
    let sent = socket.send_buffer_size().unwrap_or(0) / 2;
    debug!(received, sent, wanted, "UDP buffers");
    if received < wanted / 8 {
        warn!(received, wanted, "the UDP buffer is small: raise the sysctl net.core.rmem_max");
    }
}
