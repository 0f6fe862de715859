//! The rustls configurations: mesh, join and siblings, server and client.
//!
//! Mesh: both sides show a certificate, and each trusts the one authority and nothing else. The
//! client dials `parent.<mesh>.barid`, a name only those who serve have in their certificates.
//! Join: the client has no certificate yet and knows only the authority's pin, so it verifies the
//! server by that. Siblings: both sides show a certificate; what is different is in `sibling`. The
//! three have different ALPN names and different configurations: there is no
//! configuration in which a client certificate is optional.
//!
//! TLS 1.3 only, and no session is ever resumed: resumption skips the certificate check, so a
//! node revoked today could come back with yesterday's ticket. For the same reason, and because it
//! can be replayed, there is no early data.
//!
//! A clock that is behind: no time is taken to be earlier than the moment the node's own
//! certificate was issued, so a host that boots in 1970 can connect. A host that joins knows no
//! such moment and believes the certificate it is shown.
//!
//! What a certificate says is read after the handshake, by [`crate::peer_identity`].

mod sibling;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, PeerIncompatible,
    RootCertStore, ServerConfig, SignatureScheme,
};

use crate::authority::Pin;
use crate::identity::Credentials;
use crate::name::{MeshId, Role};
use crate::x509::{Ca, CaError, Leaf, PeerError};

pub use self::sibling::{
    SIBLING_ALPN, SIBLING_NAME, SiblingError, sibling_client_config, sibling_server_config,
};

/// What a connection within the mesh calls its protocol.
pub const MESH_ALPN: &[u8] = b"barid/1";

/// What a connection of a node that wants to join calls its protocol.
pub const JOIN_ALPN: &[u8] = b"barid-join/1";

/// The server name to dial when joining. It is not verified; the pin is.
pub const JOIN_NAME: &str = "join.barid";

/// How far the clock of a joining host may be ahead: enough for a hardware clock that keeps local
/// time. (Behind, it may be by any amount.)
const JOIN_SKEW: Duration = Duration::from_secs(24 * 3600);

/// The one place that says which cryptography TLS uses.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(rustls::crypto::ring::default_provider())).clone()
}

/// The name in the certificate of every node that serves: what a child dials.
pub fn parent_name(mesh: &MeshId) -> String {
    format!("parent.{mesh}.barid")
}

/// Accepts nodes of the mesh. Only a controller or relay is accepted by those who dial it.
pub fn server_config(credentials: &Credentials) -> ServerConfig {
    let roots = Arc::new(roots(credentials.authority()).expect(CHECKED));
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build();
    let config = ServerConfig::builder_with_details(provider(), Clock::of(credentials))
        .with_protocol_versions(&[&TLS13])
        .expect(SPEAKS_TLS13)
        .with_client_cert_verifier(verifier.expect("there is one root and no revocation list"))
        .with_single_cert(vec![der(credentials.certificate())], private_key(credentials));
    without_resumption(config.expect(CHECKED), MESH_ALPN)
}

/// Dials a parent under [`parent_name`].
pub fn client_config(credentials: &Credentials) -> ClientConfig {
    let mut config = ClientConfig::builder_with_details(provider(), Clock::of(credentials))
        .with_protocol_versions(&[&TLS13])
        .expect(SPEAKS_TLS13)
        .with_root_certificates(roots(credentials.authority()).expect(CHECKED))
        .with_client_auth_cert(vec![der(credentials.certificate())], private_key(credentials))
        .expect(CHECKED);
    config.alpn_protocols = vec![MESH_ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config
}

/// Accepts anybody who wants to join, and shows the authority's certificate for them to check.
pub fn join_server_config(credentials: &Credentials) -> ServerConfig {
    let chain = vec![der(credentials.certificate()), der(credentials.authority())];
    let config = ServerConfig::builder_with_details(provider(), Clock::of(credentials))
        .with_protocol_versions(&[&TLS13])
        .expect(SPEAKS_TLS13)
        .with_no_client_auth()
        .with_single_cert(chain, private_key(credentials));
    without_resumption(config.expect(CHECKED), JOIN_ALPN)
}

/// Dials a parent to join through, knowing only the pin of the authority.
pub fn join_client_config(pin: &Pin) -> ClientConfig {
    let clock = Arc::new(Clock { floor: UnixTime::since_unix_epoch(Duration::ZERO) });
    let verifier = Arc::new(Only(PinnedVerifier { pin: *pin }));
    let mut config = ClientConfig::builder_with_details(provider(), clock)
        .with_protocol_versions(&[&TLS13])
        .expect(SPEAKS_TLS13)
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![JOIN_ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config
}

/// Why a joining node does not trust the server it reached. Nothing was sent. Found as the source
/// inside rustls' `CertificateError::Other`.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The server did not show exactly its certificate and the authority's.
    #[error("the server sent {found} certificates, and a server of a mesh sends 2")]
    Chain {
        /// How many it sent.
        found: usize,
    },
    /// The second certificate is not one of an authority.
    #[error(transparent)]
    Authority(#[from] CaError),
    /// The server belongs to another mesh, or somebody is in between.
    #[error("the server's authority has pin {found}, and the token says {expected}")]
    Pin {
        /// The pin in the token.
        expected: Pin,
        /// The pin of what the server sent.
        found: Pin,
    },
    /// The first certificate is not one of a node.
    #[error(transparent)]
    Leaf(#[from] PeerError),
    /// The certificate names another mesh than the authority that signed it.
    #[error("the server is of mesh {server}, and the authority of mesh {authority}")]
    Mesh {
        /// The mesh in the server's certificate.
        server: MeshId,
        /// The mesh in the authority's certificate.
        authority: MeshId,
    },
    /// A node of the mesh, but not one that anybody joins through.
    #[error("the server is a {role}, and only a controller or relay takes joins")]
    Role {
        /// What it is.
        role: Role,
    },
}

/// Whether TLS accepts this certificate and this authority at all, at some time. Done once, when
/// credentials are made, so that the configurations above cannot fail.
pub(crate) fn check(certificate: &[u8], authority: &[u8], leaf: &Leaf) -> Result<(), Error> {
    let roots = Arc::new(roots(authority)?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build();
    let verifier = verifier.map_err(|error| Error::General(error.to_string()))?;
    verifier.verify_client_cert(&der(certificate), &[], unix(leaf.not_before))?;
    Ok(())
}

const CHECKED: &str = "checked when these credentials were made";
const SPEAKS_TLS13: &str = "ring's ciphers include those of TLS 1.3";

fn without_resumption(mut config: ServerConfig, alpn: &[u8]) -> ServerConfig {
    config.alpn_protocols = vec![alpn.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config
}

fn roots(authority: &[u8]) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    roots.add(der(authority))?;
    Ok(roots)
}

fn der(certificate: &[u8]) -> CertificateDer<'static> {
    CertificateDer::from(certificate.to_vec())
}

fn private_key(credentials: &Credentials) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(credentials.key().pkcs8()).into()
}

fn unix(time: SystemTime) -> UnixTime {
    let since_1970 = time.duration_since(SystemTime::UNIX_EPOCH);
    UnixTime::since_unix_epoch(since_1970.unwrap_or_default())
}

/// The system's clock, except that it is never earlier than `floor`.
#[derive(Debug)]
struct Clock {
    floor: UnixTime,
}

impl Clock {
    fn of(credentials: &Credentials) -> Arc<Clock> {
        Arc::new(Clock { floor: unix(credentials.leaf().not_before) })
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix(SystemTime::now()).max(self.floor))
    }
}

/// Trusts a server whose certificate was signed by the authority with this pin.
#[derive(Debug)]
struct PinnedVerifier {
    pin: Pin,
}

impl PinnedVerifier {
    /// The authority that the server showed, once it is known to be the right one.
    fn leaf_of(&self, leaf: &[u8], rest: &[CertificateDer<'_>]) -> Result<Leaf, JoinError> {
        let [authority] = rest else {
            return Err(JoinError::Chain { found: rest.len() + 1 });
        };
        let ca = Ca::parse(authority)?;
        let found = Pin::of_key(&ca.public);
        if found != self.pin {
            return Err(JoinError::Pin { expected: self.pin, found });
        }
        let leaf = Leaf::parse(leaf)?;
        if leaf.identity.mesh != ca.mesh {
            let (server, authority) = (leaf.identity.mesh, ca.mesh);
            return Err(JoinError::Mesh { server, authority });
        }
        if !leaf.identity.role.serves() {
            return Err(JoinError::Role { role: leaf.identity.role });
        }
        Ok(leaf)
    }
}

/// What is asked of the certificate of whoever answers.
trait Judge: std::fmt::Debug + Send + Sync {
    fn judge(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error>;
}

/// Takes whom the judge takes, by TLS 1.3 and Ed25519 alone. Names of servers do not count.
#[derive(Debug)]
struct Only<J>(J);

impl<J: Judge> ServerCertVerifier for Only<J> {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.0.judge(end_entity, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &provider().signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

impl Judge for PinnedVerifier {
    fn judge(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let leaf = self.leaf_of(end_entity, intermediates).map_err(|error| {
            Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
        })?;
        let authority = intermediates.first().ok_or(CertificateError::UnknownIssuer)?;
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end_entity)?,
            &roots(authority)?,
            &[],
            join_time(&leaf, now),
            provider().signature_verification_algorithms.all,
        )
    }
}

/// The time to judge a server's certificate at: ours, unless the certificate shows that our clock
/// is behind, or suggests that it is a little ahead.
fn join_time(leaf: &Leaf, now: UnixTime) -> UnixTime {
    let (first, last) = (unix(leaf.not_before), unix(leaf.not_after));
    let excusable = now.as_secs() <= last.as_secs().saturating_add(JOIN_SKEW.as_secs());
    if now > last && excusable { last } else { now.max(first) }
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
