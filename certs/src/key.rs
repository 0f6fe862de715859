//! Ed25519 keys and the two encodings they have: PKCS#8 for the secret half, SPKI for the public.
//!
//! For Ed25519 both encodings are a fixed prefix followed by 32 bytes (RFC 8410), so they are
//! written and read here as exactly that: there is no second way to write a key, and nothing to
//! parse. `openssl pkey` reads the files.
//!
//! A key wipes itself from memory when dropped. The text it is loaded from or saved as is not
//! wiped: who can read this process's memory has the key anyway.

use std::fmt;

use data_encoding::{BASE64, HEXLOWER};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use rustls::pki_types::pem::{PemObject, SectionKind};

use crate::random;

/// PKCS#8 version 1 around a 32-byte Ed25519 seed.
const PKCS8_PREFIX: [u8; 16] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";

/// SubjectPublicKeyInfo around a 32-byte Ed25519 public key.
const SPKI_PREFIX: [u8; 12] = *b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";

/// A file that does not hold the key or keys it should. Nothing changed; the file is at fault.
#[derive(Debug, thiserror::Error)]
#[error("not {expected}")]
pub struct KeyError {
    /// What the text should have been.
    pub expected: &'static str,
}

/// A secret key. Its `Debug` shows the public half only.
#[derive(Clone)]
pub(crate) struct Key(SigningKey);

impl Key {
    pub(crate) fn generate() -> Key {
        Key(SigningKey::from_bytes(&random()))
    }

    pub(crate) fn from_seed(seed: &[u8; 32]) -> Key {
        Key(SigningKey::from_bytes(seed))
    }

    pub(crate) fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// The same signature every time: Ed25519 needs no randomness to sign.
    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }

    pub(crate) fn pkcs8(&self) -> Vec<u8> {
        [&PKCS8_PREFIX[..], self.0.as_bytes()].concat()
    }

    pub(crate) fn from_pkcs8(der: &[u8]) -> Option<Key> {
        let seed = der.strip_prefix(&PKCS8_PREFIX)?.try_into().ok()?;
        Some(Key::from_seed(seed))
    }

    pub(crate) fn to_pem(&self) -> String {
        pem("PRIVATE KEY", &self.pkcs8())
    }

    /// Reads a file that holds one private key and nothing else.
    pub(crate) fn from_pem(text: &[u8]) -> Result<Key, KeyError> {
        let refusal = KeyError { expected: "one Ed25519 private key in PEM (PKCS#8)" };
        match sections(text).as_deref() {
            Some([(SectionKind::PrivateKey, der)]) => Key::from_pkcs8(der).ok_or(refusal),
            _ => Err(refusal),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key(public {})", HEXLOWER.encode(&self.public()))
    }
}

impl rcgen::PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        AsRef::<VerifyingKey>::as_ref(&self.0).as_bytes()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ED25519
    }
}

impl rcgen::SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(Key::sign(self, message).to_vec())
    }
}

/// A public key on its way into a certificate: the only thing a request contributes to one.
pub(crate) struct PublicKey(pub(crate) [u8; 32]);

impl rcgen::PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ED25519
    }
}

/// Whether `signature` is the one signature `public` made over `message`. Strict: a weak key or a
/// signature written in an unusual way is refused, so no message has a second valid signature.
pub(crate) fn verify(public: &[u8; 32], message: &[u8], signature: &[u8]) -> bool {
    let Ok(key) = VerifyingKey::from_bytes(public) else { return false };
    let Ok(signature) = Signature::from_slice(signature) else { return false };
    key.verify_strict(message, &signature).is_ok()
}

/// Whether these bytes are a key at all, and not one of the few anybody can sign for.
pub(crate) fn is_strong(public: &[u8; 32]) -> bool {
    VerifyingKey::from_bytes(public).is_ok_and(|key| !key.is_weak())
}

pub(crate) fn spki(public: &[u8; 32]) -> Vec<u8> {
    [&SPKI_PREFIX[..], public].concat()
}

/// The key inside a SubjectPublicKeyInfo, if it is a strong Ed25519 key.
pub(crate) fn from_spki(der: &[u8]) -> Option<[u8; 32]> {
    let public = der.strip_prefix(&SPKI_PREFIX)?.try_into().ok()?;
    is_strong(&public).then_some(public)
}

/// Writes one PEM section.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in der.chunks(48) {
        text.push_str(&BASE64.encode(line));
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

/// Reads all PEM sections; text between them is skipped. `None` when one of them is broken.
pub(crate) fn sections(text: &[u8]) -> Option<Vec<(SectionKind, Vec<u8>)>> {
    <(SectionKind, Vec<u8>)>::pem_slice_iter(text).collect::<Result<_, _>>().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_round_trip() {
        let key = Key::generate();
        assert_eq!(
            Key::from_pem(key.to_pem().as_bytes()).expect("it was just written").public(),
            key.public()
        );
        assert_eq!(from_spki(&spki(&key.public())), Some(key.public()));
        assert_eq!(rcgen::PublicKeyData::subject_public_key_info(&key), spki(&key.public()));
    }

    #[test]
    fn other_texts_are_refused() {
        let key = Key::generate();
        let twice = key.to_pem().repeat(2);
        let cut = &key.to_pem()[..80];
        let mut version2 = key.pkcs8();
        version2[4] = 1;
        let version2 = pem("PRIVATE KEY", &version2);
        let longer = pem("PRIVATE KEY", &[key.pkcs8(), vec![0]].concat());
        for text in ["", "key", &twice, cut, &version2, &longer, &pem("PUBLIC KEY", &key.pkcs8())] {
            assert!(Key::from_pem(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn weak_keys_and_foreign_signatures_are_refused() {
        let mut identity_point = [0; 32];
        identity_point[0] = 1;
        assert!(!is_strong(&identity_point));
        assert_eq!(from_spki(&spki(&identity_point)), None);
        // For the identity point, R = identity and s = 0 satisfies the plain equation always.
        let mut forged = [0; 64];
        forged[0] = 1;
        assert!(!verify(&identity_point, b"anything", &forged));

        let key = Key::generate();
        let signature = key.sign(b"a");
        assert!(verify(&key.public(), b"a", &signature));
        assert!(!verify(&key.public(), b"b", &signature));
        assert!(!verify(&Key::generate().public(), b"a", &signature));
        assert!(!verify(&key.public(), b"a", &signature[..63]));
        assert!(!verify(&key.public(), b"a", &[]));
    }

    #[test]
    fn debug_does_not_show_the_secret() {
        let key = Key::from_seed(&[0x5a; 32]);
        assert!(!format!("{key:?}").contains("5a5a5a"));
    }
}
