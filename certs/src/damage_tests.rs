//! What comes from peers and from the disk, damaged: nothing panics, and what nobody signed is not
//! taken for signed.

use std::fs;

use damage::survive;

use crate::testing::Mesh;
use crate::x509::{Ca, Leaf, csr_key};
use crate::{Credentials, NodeKey, Role, Token};

#[test]
fn certificates_of_nodes() {
    let mesh = Mesh::new();
    let samples = [Role::Host, Role::Relay].map(|role| mesh.node(role).certificate().to_vec());
    let ca = Ca::parse(mesh.authority.certificate()).expect("it is one");
    survive("certificates", &samples, 40_000, |der| {
        let leaf = Leaf::parse(der);
        let is_ours = samples.iter().any(|sample| Leaf::parse(sample) == leaf);
        assert!(is_ours || !ca.signed(der), "nobody has signed this");
        leaf.is_ok()
    });
}

#[test]
fn certificates_of_authorities() {
    let mesh = Mesh::new();
    let sample = mesh.authority.certificate().to_vec();
    let ca = Ca::parse(&sample).expect("it is one");
    survive("authorities", &[sample], 20_000, |der| {
        let found = Ca::parse(der);
        assert!(found.as_ref().map_or(true, |found| found.public == ca.public), "not by itself");
        found.is_ok()
    });
}

#[test]
fn requests_for_certificates() {
    let key = NodeKey::generate();
    survive("requests", &[key.csr()], 40_000, |der| {
        let found = csr_key(der);
        assert!(found.is_err() || found == Ok(key.public()), "whoever asks has the key");
        found.is_ok()
    });
}

#[test]
fn tokens_have_one_spelling() {
    let mesh = Mesh::new();
    let sample = Token::new(mesh.authority.pin()).to_string().into_bytes();
    survive("tokens", &[sample], 60_000, |bytes| {
        let text = std::str::from_utf8(bytes).unwrap_or_default();
        let token = text.parse::<Token>();
        assert!(token.as_ref().map_or(true, |token| token.to_string() == text.trim()));
        token.is_ok()
    });
}

#[test]
fn credentials_on_disk() {
    let mesh = Mesh::new();
    let (dir, node) = (mesh.dir.path().join("node"), mesh.node(Role::Host));
    node.save(&dir).expect("it can be saved");
    let entry = fs::read_dir(&dir).expect("it is there").next().expect("one file");
    let path = entry.expect("it is listed").path();
    let sample = fs::read(&path).expect("it is read");
    survive("credentials", &[sample], 1_000, |bytes| {
        fs::write(&path, bytes).expect("it is written");
        let loaded = Credentials::load(&dir).ok().flatten();
        assert!(loaded.as_ref().is_none_or(|it| it.certificate() == node.certificate()));
        loaded.is_some()
    });
}
