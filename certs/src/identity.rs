//! A node's key and credentials, and the identity of the node at the other end.
//!
//! [`Credentials`] are everything a node needs to take part: its key, its certificate, the
//! authority's certificate and the key that verifies orders. A value of this type is always
//! consistent, because the only ways to one check it. On disk they are one file of four PEM
//! sections, `identity.pem`, which is replaced as a whole: there is no moment at which a crash
//! leaves a new key beside an old certificate.
//!
//! Validity in time is left to the handshake, and revocation to the controller's registry.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rcgen::CertificateParams;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::SectionKind;

use crate::authority::Pin;
use crate::files::{self, FileError};
use crate::key::{self, Key};
use crate::name::{Identity, MeshId};
use crate::order::{self, OrderKey};
use crate::x509::{Ca, CaError, Leaf, PeerError};

const FILE: &str = "identity.pem";
const JOIN_FILE: &str = "join.key";

/// The secret key of a node. Its `Debug` shows the public half only.
#[derive(Clone, Debug)]
pub struct NodeKey(Key);

impl NodeKey {
    /// A new key.
    pub fn generate() -> NodeKey {
        NodeKey(Key::generate())
    }

    /// The key with which this node asks for its place, kept in `dir` until the place is granted:
    /// whoever asks again with the same key gets the same place.
    pub fn for_joining(dir: &Path) -> Result<NodeKey, LoadError> {
        let path = dir.join(JOIN_FILE);
        if !path.exists() {
            let key = Key::generate();
            files::create_secret(&path, key.to_pem().as_bytes())?;
            return Ok(NodeKey(key));
        }
        let text = files::read_secret(&path)?;
        Key::from_pem(&text).map(NodeKey).map_err(|_| LoadError::Content { path })
    }

    /// Drops the key of [`NodeKey::for_joining`]: it is part of the credentials now.
    pub fn joined(dir: &Path) {
        // One that stays is never used again, since the node is enrolled.
        std::fs::remove_file(dir.join(JOIN_FILE)).ok();
    }

    /// A request (DER) for a certificate for this key. It asks for nothing: what the certificate
    /// says is for the authority to decide.
    pub fn csr(&self) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let request = params.serialize_request(&self.0);
        request.expect("a request for nothing but a key can be written").der().to_vec()
    }

    /// Signs `body` as something of this kind, in the way of orders. What a handshake signs begins
    /// differently, so neither passes for the other.
    pub fn sign(&self, kind: &str, body: &[u8]) -> [u8; 64] {
        self.0.sign(&order::order(kind, body))
    }

    /// The public half: the 32 bytes of Ed25519.
    pub fn public(&self) -> [u8; 32] {
        self.0.public()
    }

    /// The secret half, for rustls.
    pub(crate) fn pkcs8(&self) -> Vec<u8> {
        self.0.pkcs8()
    }
}

/// What a node needs to take part in its mesh, checked.
#[derive(Clone, Debug)]
pub struct Credentials {
    key: NodeKey,
    certificate: Vec<u8>,
    authority: Vec<u8>,
    order_key: OrderKey,
    leaf: Leaf,
}

impl Credentials {
    /// Checks that the certificate (DER) is for the key, and signed by the authority (DER), and
    /// belongs to its mesh.
    pub fn new(
        key: NodeKey,
        certificate: Vec<u8>,
        authority: Vec<u8>,
        order_key: OrderKey,
    ) -> Result<Credentials, CredentialsError> {
        let ca = Ca::parse(&authority)?;
        let leaf = Leaf::parse(&certificate)?;
        if leaf.public != key.public() {
            return Err(CredentialsError::Key { identity: leaf.identity });
        }
        if !ca.signed(&certificate) {
            return Err(CredentialsError::Signature { identity: leaf.identity });
        }
        if leaf.identity.mesh != ca.mesh {
            let (node, authority) = (leaf.identity.mesh, ca.mesh);
            return Err(CredentialsError::Mesh { node, authority });
        }
        if !key::is_strong(&order_key.0) {
            return Err(CredentialsError::OrderKey { id: order_key.id() });
        }
        crate::tls::check(&certificate, &authority, &leaf).map_err(CredentialsError::Tls)?;
        Ok(Credentials { key, certificate, authority, order_key, leaf })
    }

    /// The same node with a renewed certificate (DER).
    pub fn renew(&self, certificate: Vec<u8>) -> Result<Credentials, CredentialsError> {
        let Credentials { key, authority, order_key, .. } = self.clone();
        Credentials::new(key, certificate, authority, order_key)
    }

    /// Writes the credentials into `dir`, which is created if need be, in place of the ones there.
    /// A crash leaves the old ones or the new ones.
    pub fn save(&self, dir: &Path) -> Result<(), SaveError> {
        let text = [
            self.key.0.to_pem(),
            key::pem("CERTIFICATE", &self.certificate),
            key::pem("CERTIFICATE", &self.authority),
            key::pem("PUBLIC KEY", &key::spki(&self.order_key.0)),
        ];
        files::private_dir(dir)?;
        files::replace_secret(&dir.join(FILE), text.concat().as_bytes())?;
        Ok(())
    }

    /// Reads the credentials in `dir`; `None` when there are none.
    pub fn load(dir: &Path) -> Result<Option<Credentials>, LoadError> {
        let path = dir.join(FILE);
        let text = match files::read_secret(&path) {
            Err(FileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            text => text?,
        };
        let Some((key, certificate, authority, order_key)) = read(&text) else {
            return Err(LoadError::Content { path });
        };
        match Credentials::new(key, certificate, authority, order_key) {
            Ok(credentials) => Ok(Some(credentials)),
            Err(source) => Err(LoadError::Credentials { path, source }),
        }
    }

    /// The node's key.
    pub fn key(&self) -> &NodeKey {
        &self.key
    }

    /// The node's certificate (DER).
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// The authority's certificate (DER).
    pub fn authority(&self) -> &[u8] {
        &self.authority
    }

    /// The pin of the authority.
    pub fn pin(&self) -> Pin {
        Pin::of_certificate(&self.authority).expect("checked when these credentials were made")
    }

    /// The key that verifies orders.
    pub fn order_key(&self) -> OrderKey {
        self.order_key
    }

    /// Who the node is.
    pub fn identity(&self) -> &Identity {
        &self.leaf.identity
    }

    /// All that the node's certificate says, for renewal and for the registry.
    pub fn leaf(&self) -> &Leaf {
        &self.leaf
    }

    /// When the node's certificate ends.
    pub fn not_after(&self) -> SystemTime {
        self.leaf.not_after
    }
}

/// Who the peer of a finished handshake is. The handshake has proven that the authority signed the
/// certificate and that the peer has its key; this checks that the certificate is what our
/// authority writes, with the usages of the role it claims.
pub fn peer_identity(certs: &[CertificateDer<'_>]) -> Result<Identity, PeerError> {
    Ok(peer_leaf(certs)?.identity)
}

/// As [`peer_identity`], with the peer's key and the certificate's serial number and validity.
pub fn peer_leaf(certs: &[CertificateDer<'_>]) -> Result<Leaf, PeerError> {
    Leaf::parse(certs.first().ok_or(PeerError::Missing)?)
}

/// Why four parts are no credentials. Nothing changed; whoever supplied them is at fault.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The authority's certificate is not one.
    #[error(transparent)]
    Authority(#[from] CaError),
    /// The node's certificate is not one.
    #[error(transparent)]
    Certificate(#[from] PeerError),
    /// The certificate is for another key.
    #[error("the certificate of {identity} is for another key")]
    Key {
        /// Whose certificate.
        identity: Identity,
    },
    /// The certificate is not by this authority.
    #[error("the certificate of {identity} is not signed by the authority")]
    Signature {
        /// Whose certificate.
        identity: Identity,
    },
    /// The authority signed for another mesh than its own.
    #[error("the certificate is for mesh {node}, and the authority is of mesh {authority}")]
    Mesh {
        /// The mesh in the node's certificate.
        node: MeshId,
        /// The mesh in the authority's certificate.
        authority: MeshId,
    },
    /// The order key is none, or one that anybody can sign for.
    #[error("order key {id} is not a strong Ed25519 key")]
    OrderKey {
        /// Its fingerprint.
        id: String,
    },
    /// The TLS library does not accept the certificate.
    #[error("the certificate cannot be used for TLS")]
    Tls(#[source] rustls::Error),
}

/// Why credentials were not saved. The ones on disk are the old ones, or the new ones if only
/// making them durable failed.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The directory or the file could not be written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Why credentials that are there could not be loaded. Nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file could not be read, or others can read it.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is damaged.
    #[error("{} does not hold what it should in PEM", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
    },
    /// The file's parts do not belong together.
    #[error("{} holds parts that do not belong together", path.display())]
    Credentials {
        /// Which file.
        path: PathBuf,
        /// What is wrong with them.
        source: CredentialsError,
    },
}

fn read(text: &[u8]) -> Option<(NodeKey, Vec<u8>, Vec<u8>, OrderKey)> {
    use SectionKind::{Certificate, PrivateKey, PublicKey};
    let mut sections = key::sections(text)?.into_iter();
    let mut next = |expected: SectionKind| {
        let (kind, der) = sections.next()?;
        (kind == expected).then_some(der)
    };
    let key = NodeKey(Key::from_pkcs8(&next(PrivateKey)?)?);
    let (certificate, authority) = (next(Certificate)?, next(Certificate)?);
    let order_key = OrderKey(key::from_spki(&next(PublicKey)?)?);
    sections.next().is_none().then_some((key, certificate, authority, order_key))
}

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;
