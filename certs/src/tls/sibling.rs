//! The two configurations between children of one parent: who fetches content, and who has it.
//!
//! A host's certificate is one of a client, and nobody may take it for a parent. So the protocol
//! has a name of its own, behind which there is content and nothing else, and whoever dials checks
//! the certificate as that of a client, and its key against the one that the parent has named.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::version::TLS13;
use rustls::{CertificateError, ClientConfig, Error, OtherError, ServerConfig};

use super::{CHECKED, Clock, Judge, Only, SPEAKS_TLS13, der, private_key, provider, roots};
use crate::identity::Credentials;
use crate::x509::{Leaf, PeerError};

/// What a connection between children of one parent calls its protocol.
pub const SIBLING_ALPN: &[u8] = b"barid-sibling/1";

/// The server name to dial a sibling by. It is not verified; the key is.
pub const SIBLING_NAME: &str = "sibling.barid";

/// Accepts nodes of the mesh that were sent here for content.
pub fn sibling_server_config(credentials: &Credentials) -> ServerConfig {
    let mut config = super::server_config(credentials);
    config.alpn_protocols = vec![SIBLING_ALPN.to_vec()];
    config
}

/// Dials the node of the mesh that has this key, whatever its role.
pub fn sibling_client_config(credentials: &Credentials, key: [u8; 32]) -> ClientConfig {
    let roots = Arc::new(roots(credentials.authority()).expect(CHECKED));
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build();
    let node = verifier.expect("there is one root and no revocation list");
    let mut config = ClientConfig::builder_with_details(provider(), Clock::of(credentials))
        .with_protocol_versions(&[&TLS13])
        .expect(SPEAKS_TLS13)
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Only(SiblingVerifier { node, key })))
        .with_client_auth_cert(vec![der(credentials.certificate())], private_key(credentials))
        .expect(CHECKED);
    config.alpn_protocols = vec![SIBLING_ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config
}

/// Why a sibling is not taken for the one that was meant. Nothing was sent. Found as the source
/// inside rustls' `CertificateError::Other`.
#[derive(Debug, thiserror::Error)]
pub enum SiblingError {
    /// The certificate is not one of a node.
    #[error(transparent)]
    Leaf(#[from] PeerError),
    /// It is that of another node.
    #[error("another node answers than the one that was meant")]
    Key,
}

/// Trusts the node of the mesh that has this key.
#[derive(Debug)]
struct SiblingVerifier {
    node: Arc<dyn ClientCertVerifier>,
    key: [u8; 32],
}

impl Judge for SiblingVerifier {
    fn judge(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let refuse = |error: SiblingError| {
            Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
        };
        let leaf = Leaf::parse(end_entity).map_err(|error| refuse(error.into()))?;
        if leaf.public != self.key {
            return Err(refuse(SiblingError::Key));
        }
        self.node.verify_client_cert(end_entity, intermediates, now).map(drop)
    }
}
