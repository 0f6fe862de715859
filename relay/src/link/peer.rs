//! Who is at the other end of a link, by its certificate, and why nobody there is acceptable.

use mesh::HostId;
use quinn::Connection;

/// Who the other end of a finished handshake is, by its certificate.
pub(crate) fn leaf_of(conn: &Connection) -> Result<certs::Leaf, PeerFault> {
    let chain = conn.peer_identity().ok_or(PeerFault::Nameless)?;
    let chain = chain
        .downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>()
        .map_err(|_| PeerFault::Nameless)?;
    certs::peer_leaf(&chain).map_err(PeerFault::Certificate)
}

/// A peer whose identity is not acceptable.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerFault {
    #[error("the peer has shown no certificate")]
    Nameless,
    #[error("the peer's certificate is not acceptable")]
    Certificate(#[source] certs::PeerError),
    #[error("the peer belongs to another mesh")]
    Mesh,
    #[error("this node was removed from the mesh")]
    Removed,
    #[error("this relay was removed from the mesh: try another parent")]
    Out,
    #[error("another controller was restored in the place of this one: try another parent")]
    Superseded,
}

/// The number of a host as the core knows it.
pub(crate) fn host_of(identity: &certs::Identity) -> HostId {
    HostId(identity.id)
}
