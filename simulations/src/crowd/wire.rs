//! What all virtual nodes do with a connection: dial it, and read and write frames.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::{Bytes, BytesMut};
use mesh::{Digest, Frame, HostId, Order};
use protos::{Envelope, Incoming, ORDER_KIND, OrderBody, StreamKind};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream};
use relay::{End, LinkKind, hash};
use tokio::sync::Semaphore;

use super::Member;

/// The streams of a link, without those of previews and of the bus.
const KINDS: [StreamKind; 3] = [StreamKind::Beats, StreamKind::Control, StreamKind::Reports];

/// How a host gets to its parent.
pub(super) struct Way {
    pub(super) parent: SocketAddr,
    pub(super) endpoint: Endpoint,
    pub(super) turns: Arc<Semaphore>,
}

/// Envelopes whose signature was good. Each host on its own machine would check it by itself, all
/// of them at once; here one does for all, so that two processors are not kept busy by that.
pub(super) struct Checked {
    pub(super) key: certs::OrderKey,
    pub(super) good: Mutex<BTreeSet<Digest>>,
}

/// A frame as it travels.
pub(super) fn bytes(frame: &Frame) -> Bytes {
    let body = protos::encode_frame(frame);
    let mut bytes = BytesMut::with_capacity(body.len() + protos::HEADER_BYTES);
    bytes.extend_from_slice(&protos::frame_header(body.len()));
    bytes.extend_from_slice(&body);
    bytes.freeze()
}

/// On which of the streams a frame travels.
pub(super) fn stream_of(frame: &Frame) -> usize {
    match frame {
        Frame::Beat { .. } => 0,
        Frame::Report { .. } | Frame::ReportsHeld { .. } => 2,
        _ => 1,
    }
}

pub(super) fn client(member: &Member, beat: Duration) -> ClientConfig {
    let tls = certs::client_config(&member.credentials);
    let crypto = QuicClientConfig::try_from(tls).expect("the configuration allows TLS 1.3");
    let mut config = ClientConfig::new(Arc::new(crypto));
    let transport = LinkKind::Lan.transport(End::Child { serves: false }, beat, None);
    config.transport_config(Arc::new(transport));
    config
}

pub(super) type Streams = Vec<(SendStream, RecvStream)>;

/// Dials the parent, and opens the streams.
pub(super) async fn connect(
    way: &Way,
    config: ClientConfig,
    name: &str,
) -> Result<(Connection, HostId, Streams)> {
    let conn = way.endpoint.connect_with(config, way.parent, name)?.await?;
    let chain = conn.peer_identity().context("a parent without a certificate")?;
    let chain = chain.downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>();
    let chain = chain.ok().context("no chain of certificates")?;
    let parent = HostId(certs::peer_identity(&chain)?.id);
    let mut streams = Vec::with_capacity(KINDS.len());
    for kind in KINDS {
        let (mut send, recv) = conn.open_bi().await?;
        send.write_all(&[u8::from(kind)]).await?;
        streams.push((send, recv));
    }
    Ok((conn, parent, streams))
}

/// The next frame of a stream, if it is one that means something to a virtual host.
pub(super) async fn frame(recv: &mut RecvStream, checked: &Checked) -> Result<Option<Frame>> {
    let mut header = [0; protos::HEADER_BYTES];
    recv.read_exact(&mut header).await?;
    let mut body = BytesMut::zeroed(protos::parse_header(header)?);
    recv.read_exact(&mut body).await?;
    Ok(match protos::decode_frame(body.freeze(), hash)? {
        Incoming::Frame(frame) | Incoming::Beat { frame, .. } | Incoming::Hello { frame, .. } => {
            Some(frame)
        }
        Incoming::Order { log, seq, envelope } => {
            let order = Arc::new(checked.read(envelope)?);
            Some(Frame::Order { log, seq, order })
        }
        // Only whoever speaks for others packs reports.
        Incoming::Heard | Incoming::Packed(_) | Incoming::Removals(_) => None,
    })
}

impl Checked {
    /// The order in an envelope, if it is genuine.
    fn read(&self, bytes: Bytes) -> Result<Order> {
        let envelope = Envelope::decode(bytes.clone())?;
        let body = OrderBody::decode(&envelope.body)?;
        ensure!(envelope.kind == ORDER_KIND, "an envelope of the kind {}", envelope.kind);
        let mut good = self.good.lock().unwrap_or_else(PoisonError::into_inner);
        if good.insert(hash(&bytes)) {
            self.key.verify(ORDER_KIND, &envelope.body, &envelope.signature)?;
        }
        drop(good);
        let ttl = Duration::from_millis(body.not_after_ms.saturating_sub(body.not_before_ms));
        Ok(body.to_mesh(bytes, ttl))
    }
}
