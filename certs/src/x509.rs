//! Reading certificates and certificate requests, strictly.
//!
//! There are two kinds of certificate in a mesh, the authority's and a node's, and each has one
//! shape: the one [`Authority`](crate::Authority) writes. Anything else is refused, even where
//! X.509 would allow it. In particular a node's certificate must say explicitly that it is no
//! authority and what it may be used for, because TLS libraries take silence for consent.
//!
//! Reading proves nothing about a node's certificate: the handshake, or [`Ca::signed`], says who
//! signed it, and time is for the caller to judge. The authority's certificate is read only
//! together with its signature over itself, so that whoever knows its key can trust all of it.

use std::time::{Duration, SystemTime};

use x509_parser::certificate::X509Certificate;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;
use x509_parser::x509::X509Version;

use crate::key;
use crate::name::{Identity, MeshId, Role};
use crate::tls::parent_name;

/// Ours are a tenth of this; a larger one is somebody's experiment.
const SIZE_MAX: usize = 4096;

/// The algorithm Ed25519 and the head of a bit string of 64 bytes: what precedes a signature.
/// Compared as bytes, because the parser lets other spellings of the same pass.
const SIGNATURE_PREFIX: [u8; 10] = *b"\x30\x05\x06\x03\x2b\x65\x70\x03\x41\x00";

/// The key usages as X.509 numbers them.
const DIGITAL_SIGNATURE: u16 = 1;
const KEY_CERT_SIGN: u16 = 1 << 5;

/// What a node's certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Who the node is.
    pub identity: Identity,
    /// Its Ed25519 public key, which a registry can know it by across renewals.
    pub public: [u8; 32],
    /// Names this certificate among all of this authority.
    pub serial: [u8; 16],
    /// When it begins to be valid.
    pub not_before: SystemTime,
    /// When it stops.
    pub not_after: SystemTime,
}

/// A certificate that is not one of a node. Nothing changed; whoever sent it is at fault.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// There is none at all.
    #[error("the peer sent no certificate")]
    Missing,
    /// It is broken, or not in the shape our authority writes.
    #[error("the certificate is not one of a node: {flaw}")]
    Malformed {
        /// What is wrong with it.
        flaw: &'static str,
    },
    /// It names nobody, or more than its owner.
    #[error("the certificate names no node, or something else too: {names:?}")]
    Names {
        /// The names in it.
        names: Vec<String>,
    },
    /// Its usages are not those of the role it claims.
    #[error("the certificate says {role} but its usages are not those of a {role}")]
    Usages {
        /// The role it claims.
        role: Role,
    },
}

/// A certificate that is not one of an authority. Nothing changed; whoever sent it is at fault.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the certificate is not one of an authority: {flaw}")]
pub struct CaError {
    /// What is wrong with it.
    pub flaw: &'static str,
}

impl Leaf {
    /// Reads a node's certificate and checks its shape, but not who signed it.
    pub fn parse(der: &[u8]) -> Result<Leaf, PeerError> {
        let malformed = |flaw| PeerError::Malformed { flaw };
        let certificate = read(der).map_err(malformed)?;
        let public = public(&certificate).map_err(malformed)?;
        let constraints = certificate.basic_constraints().ok().flatten();
        if constraints.is_none_or(|it| it.value.ca || it.value.path_len_constraint.is_some()) {
            return Err(malformed("it does not say that it is no authority"));
        }
        if usage(&certificate) != Some(DIGITAL_SIGNATURE) {
            return Err(malformed("its key usage is not exactly digital signature"));
        }
        let identity = identity(names(&certificate))?;
        check_purposes(&certificate, identity.role)?;
        let (serial, [not_before, not_after]) =
            (serial(&certificate).map_err(malformed)?, validity(&certificate).map_err(malformed)?);
        Ok(Leaf { identity, public, serial, not_before, not_after })
    }
}

/// What an authority's certificate says.
#[derive(Clone, Debug)]
pub(crate) struct Ca {
    pub(crate) mesh: MeshId,
    pub(crate) public: [u8; 32],
    pub(crate) not_after: SystemTime,
    subject: Vec<u8>,
}

impl Ca {
    /// Reads an authority's certificate and checks its shape and its signature over itself.
    pub(crate) fn parse(der: &[u8]) -> Result<Ca, CaError> {
        let refuse = |flaw| CaError { flaw };
        let certificate = read(der).map_err(refuse)?;
        let public = public(&certificate).map_err(refuse)?;
        let constraints = certificate.basic_constraints().ok().flatten();
        if constraints.is_none_or(|it| !it.value.ca || it.value.path_len_constraint != Some(0)) {
            return Err(refuse("it does not say that it is an authority over nodes only"));
        }
        if usage(&certificate) != Some(KEY_CERT_SIGN) {
            return Err(refuse("its key usage is not exactly certificate signing"));
        }
        let names = names(&certificate);
        let mesh = match names.as_deref() {
            Some([Name::Uri(uri)]) => mesh_of_authority(uri),
            _ => None,
        };
        let mesh = mesh.ok_or(refuse("it names no mesh"))?;
        let [_, not_after] = validity(&certificate).map_err(refuse)?;
        let subject = certificate.tbs_certificate.subject.as_raw().to_vec();
        let ca = Ca { mesh, public, not_after, subject };
        if !ca.signed(der) {
            return Err(refuse("it is not signed by itself"));
        }
        Ok(ca)
    }

    /// Whether this authority signed this certificate.
    pub(crate) fn signed(&self, der: &[u8]) -> bool {
        let Ok(certificate) = read(der) else { return false };
        let body = &certificate.tbs_certificate;
        let Some(signature) = signature(der, body.as_ref()) else { return false };
        body.issuer.as_raw() == self.subject && key::verify(&self.public, body.as_ref(), signature)
    }
}

/// The one name an authority's certificate carries.
pub(crate) fn authority_uri(mesh: MeshId) -> String {
    format!("barid://{mesh}/authority")
}

/// A certificate's encoded public key, whatever kind of key it is.
pub(crate) fn raw_spki(der: &[u8]) -> Result<Vec<u8>, &'static str> {
    Ok(read(der)?.tbs_certificate.subject_pki.raw.to_vec())
}

/// What is wrong with a request for a certificate.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum CsrFlaw {
    Unreadable,
    Algorithm,
    Signature,
}

/// The public key in a request, once the request proves possession of the secret half. Nothing
/// else in a request is even looked at.
pub(crate) fn csr_key(der: &[u8]) -> Result<[u8; 32], CsrFlaw> {
    if der.len() > SIZE_MAX {
        return Err(CsrFlaw::Unreadable);
    }
    let Ok(([], request)) = X509CertificationRequest::from_der(der) else {
        return Err(CsrFlaw::Unreadable);
    };
    let body = &request.certification_request_info;
    let public = key::from_spki(body.subject_pki.raw).ok_or(CsrFlaw::Algorithm)?;
    let signature = signature(der, body.raw).ok_or(CsrFlaw::Algorithm)?;
    if !key::verify(&public, body.raw, signature) {
        return Err(CsrFlaw::Signature);
    }
    Ok(public)
}

enum Name {
    Uri(String),
    Dns(String),
    Other(String),
}

fn read(der: &[u8]) -> Result<X509Certificate<'_>, &'static str> {
    if der.len() > SIZE_MAX {
        return Err("it is too large");
    }
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) if certificate.version() == X509Version::V3 => Ok(certificate),
        _ => Err("it is not readable as X.509 version 3"),
    }
}

fn public(certificate: &X509Certificate<'_>) -> Result<[u8; 32], &'static str> {
    key::from_spki(certificate.tbs_certificate.subject_pki.raw).ok_or("its key is not Ed25519")
}

/// The Ed25519 signature that ends a certificate or a request, right after the part it covers.
fn signature<'a>(der: &'a [u8], covered: &[u8]) -> Option<&'a [u8; 64]> {
    let (before, signature) = der.split_last_chunk()?;
    before.strip_suffix(&SIGNATURE_PREFIX)?.ends_with(covered).then_some(signature)
}

fn usage(certificate: &X509Certificate<'_>) -> Option<u16> {
    Some(certificate.key_usage().ok()??.value.flags)
}

/// All subject alternative names; `None` when there are none or they are there twice.
fn names(certificate: &X509Certificate<'_>) -> Option<Vec<Name>> {
    let names = certificate.subject_alternative_name().ok()??;
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) => Name::Uri((*uri).to_owned()),
        GeneralName::DNSName(dns) => Name::Dns((*dns).to_owned()),
        other => Name::Other(other.to_string()),
    };
    Some(names.value.general_names.iter().map(name).collect())
}

/// A host is named by its URI alone; who serves has the name its children dial as well.
fn identity(names: Option<Vec<Name>>) -> Result<Identity, PeerError> {
    let names = names.unwrap_or_default();
    let identity = match names.as_slice() {
        [Name::Uri(uri)] => Identity::from_uri(uri).filter(|it| !it.role.serves()),
        [Name::Uri(uri), Name::Dns(dns)] => Identity::from_uri(uri)
            .filter(|it| it.role.serves())
            .filter(|it| *dns == parent_name(&it.mesh)),
        _ => None,
    };
    let text = |(Name::Uri(name) | Name::Dns(name) | Name::Other(name))| name;
    identity.ok_or_else(|| PeerError::Names { names: names.into_iter().map(text).collect() })
}

fn check_purposes(certificate: &X509Certificate<'_>, role: Role) -> Result<(), PeerError> {
    let purposes = certificate.extended_key_usage().ok().flatten();
    let right = purposes.is_some_and(|purposes| {
        let it = purposes.value;
        let foreign = it.any
            || it.code_signing
            || it.email_protection
            || it.time_stamping
            || it.ocsp_signing
            || !it.other.is_empty();
        it.client_auth && it.server_auth == role.serves() && !foreign
    });
    if right { Ok(()) } else { Err(PeerError::Usages { role }) }
}

fn serial(certificate: &X509Certificate<'_>) -> Result<[u8; 16], &'static str> {
    certificate.raw_serial().try_into().map_err(|_| "its serial number is not 16 bytes long")
}

fn validity(certificate: &X509Certificate<'_>) -> Result<[SystemTime; 2], &'static str> {
    let validity = certificate.validity();
    match (time(validity.not_before), time(validity.not_after)) {
        (Some(not_before), Some(not_after)) if not_before < not_after => {
            Ok([not_before, not_after])
        }
        _ => Err("it is valid at no time"),
    }
}

fn time(time: ASN1Time) -> Option<SystemTime> {
    let seconds = u64::try_from(time.timestamp()).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

fn mesh_of_authority(uri: &str) -> Option<MeshId> {
    let mesh = uri.strip_prefix("barid://")?.strip_suffix("/authority")?.parse().ok()?;
    (authority_uri(mesh) == uri).then_some(mesh)
}
