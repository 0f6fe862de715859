//! Signatures on orders.
//!
//! What is signed is not the order's bytes alone but what kind of thing they are, each part
//! preceded by its length, after a fixed prefix (the idea of DSSE). So a signature over one kind
//! of order never passes for another, no byte can move from one part to the next, and nothing
//! signed here can be mistaken for a certificate, which begins differently.
//!
//! Whether an order is fresh, meant for this host or already done is not decided here.

use std::fmt;
use std::path::Path;

use data_encoding::HEXLOWER;

use crate::authority::OpenError;
use crate::files;
use crate::key::{self, Key};

/// Begins everything the order key signs.
const DOMAIN: &str = "barid-v1";

/// Signs orders. Whoever holds it commands the mesh.
#[derive(Clone, Debug)]
pub struct OrderSigner(Key);

impl OrderSigner {
    /// A new order key.
    pub fn generate() -> OrderSigner {
        OrderSigner(Key::generate())
    }

    /// Reads an order key, which group and others must not be able to read.
    pub fn open(path: &Path) -> Result<OrderSigner, OpenError> {
        let text = files::read_secret(path)?;
        let key = Key::from_pem(&text);
        Ok(OrderSigner(key.map_err(|source| OpenError::Key { path: path.into(), source })?))
    }

    /// The PEM text that [`OrderSigner::open`] reads.
    pub(crate) fn to_pem(&self) -> String {
        self.0.to_pem()
    }

    /// Signs `body` as an order of this kind.
    pub fn sign(&self, kind: &str, body: &[u8]) -> [u8; 64] {
        self.0.sign(&order(kind, body))
    }

    /// The key that verifies what this one signs.
    pub fn key(&self) -> OrderKey {
        OrderKey(self.0.public())
    }
}

/// Verifies orders. Every node has it from the grant it received when it joined.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderKey(pub [u8; 32]);

impl OrderKey {
    /// Whether `signature` was made by this key over `body` as an order of this kind.
    pub fn verify(&self, kind: &str, body: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        if key::verify(&self.0, &order(kind, body), signature) {
            return Ok(());
        }
        Err(BadSignature { kind: kind.to_owned(), key: self.id() })
    }

    /// A short fingerprint, to tell keys apart in logs.
    pub fn id(&self) -> String {
        HEXLOWER.encode(&blake3::hash(&self.0).as_bytes()[..8])
    }
}

impl fmt::Debug for OrderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OrderKey({})", self.id())
    }
}

/// An order that the order key did not sign. The order must be dropped; its sender, or whoever
/// carried it, is at fault.
#[derive(Debug, thiserror::Error)]
#[error("this {kind:?} was not signed by order key {key}")]
pub struct BadSignature {
    /// The kind of order it claimed to be.
    pub kind: String,
    /// The fingerprint of the key that should have signed it.
    pub key: String,
}

pub(crate) fn order(kind: &str, body: &[u8]) -> Vec<u8> {
    envelope(DOMAIN, &[kind.as_bytes(), body])
}

/// `domain`, then every part preceded by its length. Two different calls never give the same
/// bytes as long as no domain is the beginning of another.
pub(crate) fn envelope(domain: &str, parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = domain.as_bytes().to_vec();
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_kind_never_passes_for_another() {
        let signer = OrderSigner::generate();
        let key = signer.key();
        let signature = signer.sign("run", b"body");
        key.verify("run", b"body", &signature).expect("it is signed so");

        let error = key.verify("push", b"body", &signature).expect_err("it is refused");
        assert_eq!(
            error.to_string(),
            format!("this \"push\" was not signed by order key {}", key.id())
        );
        assert!(key.verify("runb", b"ody", &signature).is_err());
        assert!(key.verify("ru", b"nbody", &signature).is_err());
        assert!(key.verify("run", b"bodY", &signature).is_err());
        assert!(key.verify("run", b"body", &signature[1..]).is_err());
        assert!(OrderSigner::generate().key().verify("run", b"body", &signature).is_err());
        assert!(OrderKey([0; 32]).verify("run", b"body", &signature).is_err());
    }

    #[test]
    fn the_signed_bytes_are_as_documented() {
        let expected = b"barid-v1\x03\0\0\0\0\0\0\0run\x02\0\0\0\0\0\0\0ab";
        assert_eq!(order("run", b"ab"), expected);
    }
}
