//! The authority of a mesh: it says who is who, and which key orders are signed with.
//!
//! It lives in a directory: `ca.key` and `ca.crt` (the authority itself) and `order.key` (signs
//! orders). A certificate is always written from scratch; from a request it takes the public key,
//! after the request proved that its sender has the secret half, and nothing else. What the
//! certificate says is decided by the caller, who knows whom it invited.
//!
//! A grant is a statement by the authority outside any certificate, such as "this is the order
//! key": a host that knows only the authority's [`Pin`] can verify one. Likewise it signs the list
//! of keys that are no longer of the mesh.
//!
//! It keeps no list of what it issued or removed; the controller's registry does.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use data_encoding::HEXLOWER;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyUsagePurpose, SanType, SerialNumber,
};
use ring::digest::{SHA256, digest};
use rustls::pki_types::pem::SectionKind;

use crate::files::{self, FileError};
use crate::key::{self, Key, KeyError, PublicKey};
use crate::name::{Identity, MeshId, NameError};
use crate::order::{OrderSigner, envelope};
use crate::random;
use crate::tls::parent_name;
use crate::x509::{self, Ca, CaError, CsrFlaw};

const CA_KEY: &str = "ca.key";
const CA_CERTIFICATE: &str = "ca.crt";
const ORDER_KEY: &str = "order.key";

/// Begins every grant the authority signs. Certificates begin differently.
const GRANT_DOMAIN: &str = "barid-grant-v1";

/// Begins every list of removed keys that the authority signs.
const REMOVALS_DOMAIN: &str = "barid-removals-v1";

const CA_LIFETIME: Duration = Duration::from_secs(20 * 365 * 24 * 3600);

/// How far a certificate reaches into the past, for hosts whose clock is behind.
const BACKDATE: Duration = Duration::from_secs(5 * 60);

/// 2025 and 2200: an authority created outside of these is created by a wrong clock, and would
/// expire the day the clock is set right.
const PLAUSIBLE: [Duration; 2] =
    [Duration::from_secs(1_735_689_600), Duration::from_secs(7_258_118_400)];

/// The authority of a mesh, with its secret keys.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, Key>,
    ca: Ca,
    certificate: Vec<u8>,
    pin: Pin,
    order_signer: OrderSigner,
}

impl Authority {
    /// Makes a new authority and keeps it in `dir`, which is created if need be. The certificate
    /// is written last: without it, nothing here was ever an authority.
    pub fn create(dir: &Path, mesh: MeshId, now: SystemTime) -> Result<Authority, CreateError> {
        let since_1970 = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        if since_1970 < PLAUSIBLE[0] || since_1970 > PLAUSIBLE[1] {
            return Err(CreateError::Clock { seconds: since_1970.as_secs() });
        }
        let key = Key::generate();
        let order_signer = OrderSigner::generate();
        let certificate = ca_params(mesh, now).self_signed(&key).map_err(CreateError::Sign)?;

        files::private_dir(dir)?;
        files::create_secret(&dir.join(CA_KEY), key.to_pem().as_bytes())?;
        files::create_secret(&dir.join(ORDER_KEY), order_signer.to_pem().as_bytes())?;
        let text = key::pem("CERTIFICATE", certificate.der());
        files::create_secret(&dir.join(CA_CERTIFICATE), text.as_bytes())?;
        Ok(Authority::new(key, certificate.der().to_vec(), order_signer)
            .expect("what was just made for this key is an authority's certificate for it"))
    }

    /// Opens the authority kept in `dir`. A secret that group or others can read is refused.
    pub fn open(dir: &Path) -> Result<Authority, OpenError> {
        let (key_path, certificate_path) = (dir.join(CA_KEY), dir.join(CA_CERTIFICATE));
        let key = Key::from_pem(&files::read_secret(&key_path)?)
            .map_err(|source| OpenError::Key { path: key_path, source })?;
        let order_signer = OrderSigner::open(&dir.join(ORDER_KEY))?;
        let text = files::read(&certificate_path)?;
        let certificate = match key::sections(&text).as_deref() {
            Some([(SectionKind::Certificate, der)]) => der.clone(),
            _ => return Err(OpenError::Certificate { path: certificate_path }),
        };
        Authority::new(key, certificate, order_signer)
            .map_err(|source| OpenError::Authority { path: certificate_path, source })
    }

    fn new(key: Key, certificate: Vec<u8>, order_signer: OrderSigner) -> Result<Self, CaError> {
        let ca = Ca::parse(&certificate)?;
        if ca.public != key.public() {
            return Err(CaError { flaw: "it is for another key than the one beside it" });
        }
        let issuer = Issuer::from_ca_cert_der(&certificate.as_slice().into(), key)
            .map_err(|_| CaError { flaw: "its name is not readable" })?;
        let pin = Pin::of_key(&ca.public);
        Ok(Authority { issuer, ca, certificate, pin, order_signer })
    }

    /// Issues a certificate that says `who`, for the key that signed the request, from five
    /// minutes ago until `lifetime` from now or the authority's own end. All else in the request
    /// is ignored.
    pub fn issue(
        &self,
        csr_der: &[u8],
        who: &Identity,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Vec<u8>, IssueError> {
        who.check()?;
        if who.mesh != self.ca.mesh {
            return Err(IssueError::Mesh { asked: who.mesh, ours: self.ca.mesh });
        }
        let public = x509::csr_key(csr_der)?;
        let not_before = now.checked_sub(BACKDATE).filter(|it| *it >= SystemTime::UNIX_EPOCH);
        let not_before = not_before.ok_or(IssueError::Clock)?;
        if now >= self.ca.not_after {
            return Err(IssueError::Expired { mesh: self.ca.mesh });
        }
        let not_after = now.checked_add(lifetime).unwrap_or(self.ca.not_after);
        let validity = [not_before, not_after.min(self.ca.not_after)];
        leaf_params(who, validity)
            .signed_by(&PublicKey(public), &self.issuer)
            .map(|certificate| certificate.der().to_vec())
            .map_err(IssueError::Sign)
    }

    /// The mesh this is the authority of.
    pub fn mesh(&self) -> MeshId {
        self.ca.mesh
    }

    /// The authority's own certificate (DER).
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// What a host must know to recognise this authority.
    pub fn pin(&self) -> Pin {
        self.pin
    }

    /// Signs orders for this mesh.
    pub fn order_signer(&self) -> &OrderSigner {
        &self.order_signer
    }

    /// Signs a statement that [`verify_grant`] accepts.
    pub fn sign_grant(&self, body: &[u8]) -> [u8; 64] {
        self.issuer.key().sign(&envelope(GRANT_DOMAIN, &[body]))
    }

    /// Signs a list of removed keys that [`verify_removals`] accepts.
    pub fn sign_removals(&self, body: &[u8]) -> [u8; 64] {
        self.issuer.key().sign(&envelope(REMOVALS_DOMAIN, &[body]))
    }
}

/// Whether the authority with this certificate (DER), which the caller trusts, has signed this list
/// of removed keys.
pub fn verify_removals(ca_der: &[u8], body: &[u8], sig: &[u8]) -> Result<(), GrantError> {
    let ca = Ca::parse(ca_der)?;
    match key::verify(&ca.public, &envelope(REMOVALS_DOMAIN, &[body]), sig) {
        true => Ok(()),
        false => Err(GrantError::Signature { mesh: ca.mesh }),
    }
}

/// The SHA-256 of an authority's public key (its SubjectPublicKeyInfo).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pin(pub [u8; 32]);

impl Pin {
    /// The pin of the key in this certificate, which may be anybody's.
    pub fn of_certificate(der: &[u8]) -> Result<Pin, PinError> {
        let spki = x509::raw_spki(der).map_err(|flaw| PinError { flaw })?;
        Ok(Pin::of_spki(&spki))
    }

    pub(crate) fn of_key(public: &[u8; 32]) -> Pin {
        Pin::of_spki(&key::spki(public))
    }

    fn of_spki(spki: &[u8]) -> Pin {
        Pin(digest(&SHA256, spki).as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pin({self})")
    }
}

/// Whether the authority with this pin made this statement. The certificate may come from
/// anywhere, such as the other end of a join.
pub fn verify_grant(ca_der: &[u8], pin: &Pin, body: &[u8], sig: &[u8]) -> Result<(), GrantError> {
    let ca = Ca::parse(ca_der)?;
    let found = Pin::of_key(&ca.public);
    if found != *pin {
        return Err(GrantError::Authority { expected: *pin, found });
    }
    if !key::verify(&ca.public, &envelope(GRANT_DOMAIN, &[body]), sig) {
        return Err(GrantError::Signature { mesh: ca.mesh });
    }
    Ok(())
}

/// Why no authority was created. Files written before the failure stay, for the operator to
/// judge; they are no authority.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The clock of this machine is wrong.
    #[error("the clock says {seconds} seconds since 1970, which cannot be: set it first")]
    Clock {
        /// What it says.
        seconds: u64,
    },
    /// A file could not be written, or is there already.
    #[error(transparent)]
    File(#[from] FileError),
    /// The certificate could not be made. Our fault.
    #[error("cannot make the certificate of the authority")]
    Sign(#[source] rcgen::Error),
}

/// Why an authority or an order key could not be opened. Nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file is missing, or not private enough.
    #[error(transparent)]
    File(#[from] FileError),
    /// A key file holds something else.
    #[error("{} holds no key", path.display())]
    Key {
        /// Which file.
        path: PathBuf,
        /// What it should hold.
        source: KeyError,
    },
    /// The certificate file holds something else.
    #[error("{} does not hold one certificate in PEM", path.display())]
    Certificate {
        /// Which file.
        path: PathBuf,
    },
    /// The certificate is not the authority's.
    #[error("{} holds a certificate that is not the authority's", path.display())]
    Authority {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: CaError,
    },
}

/// Why no certificate was issued. Nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The request is broken or too large. Its sender is at fault, as with the next two.
    #[error("the request is not readable as a certificate request")]
    Request,
    /// The request is for a kind of key we do not certify, or a weak key.
    #[error("the request is not for an Ed25519 key")]
    Algorithm,
    /// The sender of the request may not have the key.
    #[error("the request is not signed by the key it is for")]
    Signature,
    /// The identity cannot be written into a certificate. The caller is at fault.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The identity belongs to another mesh. The caller is at fault.
    #[error("this is the authority of mesh {ours} and issues nothing for mesh {asked}")]
    Mesh {
        /// The mesh asked for.
        asked: MeshId,
        /// Ours.
        ours: MeshId,
    },
    /// The clock of this machine stands before 1970.
    #[error("the clock stands before 1970: set it first")]
    Clock,
    /// The authority's own certificate has ended.
    #[error("the authority of mesh {mesh} has expired, or the clock of this machine is wrong")]
    Expired {
        /// Ours.
        mesh: MeshId,
    },
    /// The certificate could not be made. Our fault.
    #[error("cannot make the certificate")]
    Sign(#[source] rcgen::Error),
}

impl From<CsrFlaw> for IssueError {
    fn from(flaw: CsrFlaw) -> IssueError {
        match flaw {
            CsrFlaw::Unreadable => IssueError::Request,
            CsrFlaw::Algorithm => IssueError::Algorithm,
            CsrFlaw::Signature => IssueError::Signature,
        }
    }
}

/// Why a grant is not to be believed. Whoever delivered it is at fault.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// The certificate is not an authority's.
    #[error(transparent)]
    Certificate(#[from] CaError),
    /// It is an authority's, but not of the one we were told to trust.
    #[error("the authority has pin {found}, and the one to trust has pin {expected}")]
    Authority {
        /// The pin to trust.
        expected: Pin,
        /// The pin of what was sent.
        found: Pin,
    },
    /// The authority did not say this.
    #[error("this was not signed by the authority of mesh {mesh}")]
    Signature {
        /// The mesh.
        mesh: MeshId,
    },
}

/// A certificate that no pin can be taken of.
#[derive(Debug, thiserror::Error)]
#[error("no pin can be taken of this certificate: {flaw}")]
pub struct PinError {
    /// What is wrong with it.
    pub flaw: &'static str,
}

fn ca_params(mesh: MeshId, now: SystemTime) -> CertificateParams {
    let mut params = base_params(&format!("barid {mesh}"), [now - BACKDATE, now + CA_LIFETIME]);
    params.subject_alt_names = vec![SanType::URI(ia5(x509::authority_uri(mesh)))];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn leaf_params(who: &Identity, validity: [SystemTime; 2]) -> CertificateParams {
    let mut params = base_params(&who.name, validity);
    params.subject_alt_names = vec![SanType::URI(ia5(who.uri()))];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    if who.role.serves() {
        params.subject_alt_names.push(SanType::DnsName(ia5(parent_name(&who.mesh))));
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    params
}

/// What both kinds of certificate have: a name for people, a validity and a serial number.
fn base_params(common_name: &str, [not_before, not_after]: [SystemTime; 2]) -> CertificateParams {
    let mut serial: [u8; 16] = random();
    // Always positive and always 16 bytes long, which leaves 126 random bits.
    serial[0] = serial[0] & 0x3f | 0x40;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.not_before = not_before.into();
    params.not_after = not_after.into();
    params
}

fn ia5(text: String) -> Ia5String {
    text.try_into().expect("names and ids are checked to be ASCII")
}

#[cfg(test)]
#[path = "authority_tests.rs"]
mod tests;
