//! Tests of `identity`.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;
use crate::Role;
use crate::testing::{DAY, Mesh};

#[test]
fn save_and_load() {
    let mesh = Mesh::new();
    let dir = mesh.dir.path().join("node");
    assert!(Credentials::load(&dir).expect("it can be read").is_none());
    let first = mesh.node(Role::Host);
    first.save(&dir).expect("it can be saved");
    let loaded = Credentials::load(&dir).expect("it can be read").expect("it is there");
    assert_eq!(loaded.key().public(), first.key().public());
    assert_eq!(loaded.certificate(), first.certificate());
    assert_eq!(loaded.authority(), mesh.authority.certificate());
    assert_eq!(loaded.pin(), mesh.authority.pin());
    assert_eq!(loaded.order_key(), mesh.authority.order_signer().key());
    assert_eq!(loaded.identity(), &mesh.identity(Role::Host));
    assert_eq!(loaded.leaf(), first.leaf());
    assert_eq!(fs::metadata(&dir).expect("it is there").mode() & 0o7777, 0o700);
    assert_eq!(fs::metadata(dir.join(FILE)).expect("it is there").mode() & 0o7777, 0o600);

    let second = mesh.node(Role::Relay);
    second.save(&dir).expect("it can be saved");
    let loaded = Credentials::load(&dir).expect("it can be read").expect("it is there");
    assert_eq!(loaded.certificate(), second.certificate());
}

#[test]
fn an_interrupted_save_leaves_nothing_or_the_old() {
    let mesh = Mesh::new();
    let dir = mesh.dir.path().join("node");
    let elsewhere = mesh.dir.path().join("elsewhere");
    let (old, new) = (mesh.node(Role::Host), mesh.node(Role::Host));
    new.save(&elsewhere).expect("it can be saved");
    let text = fs::read(elsewhere.join(FILE)).expect("it is there");
    let temporary = dir.join(format!("{FILE}.new"));

    // Cut at every point, even after the last byte but before the file got its name.
    files::private_dir(&dir).expect("it can be made");
    for length in (0..text.len()).step_by(50).chain([text.len()]) {
        fs::write(&temporary, &text[..length]).expect("it can be written");
        assert!(Credentials::load(&dir).expect("it can be read").is_none());
    }
    old.save(&dir).expect("it can be saved");
    assert!(!temporary.exists());
    fs::write(&temporary, &text[..300]).expect("it can be written");
    let loaded = Credentials::load(&dir).expect("it can be read").expect("it is there");
    assert_eq!(loaded.certificate(), old.certificate());
    new.save(&dir).expect("it can be saved");
    let loaded = Credentials::load(&dir).expect("it can be read").expect("it is there");
    assert_eq!(loaded.certificate(), new.certificate());
}

#[test]
fn a_damaged_file_is_an_error_that_names_it() {
    let mesh = Mesh::new();
    let dir = mesh.dir.path().join("node");
    mesh.node(Role::Host).save(&dir).expect("it can be saved");
    let path = dir.join(FILE);
    let text = fs::read_to_string(&path).expect("it is there");
    let sections: Vec<&str> = text.split_inclusive("-----\n").collect();
    assert_eq!(sections.len(), 8);
    let swapped = [&sections[..2], &sections[4..6], &sections[2..4], &sections[6..]].concat();
    let damaged = [
        String::new(),
        text[..text.len() - 20].to_owned(),
        sections[2..].concat(),
        sections[..6].concat(),
        text.repeat(2),
        swapped.concat(),
    ];
    for text in damaged {
        fs::write(&path, text).expect("it can be written");
        let error = Credentials::load(&dir).expect_err("it is refused");
        assert!(error.to_string().contains(FILE), "{error}");
    }
    // The key of one node beside the certificate of another.
    mesh.node(Role::Host).save(&dir).expect("it can be saved");
    let other = fs::read_to_string(&path).expect("it is there");
    let key: Vec<&str> = other.split_inclusive("-----\n").collect();
    fs::write(&path, [&key[..2], &sections[2..]].concat().concat()).expect("it can be written");
    let error = Credentials::load(&dir).expect_err("it is refused");
    let LoadError::Credentials { source, .. } = error else { panic!("{error}") };
    assert!(matches!(source, CredentialsError::Key { .. }), "{source}");
}

#[test]
fn an_exposed_file_is_refused() {
    let mesh = Mesh::new();
    let dir = mesh.dir.path().join("node");
    mesh.node(Role::Host).save(&dir).expect("it can be saved");
    fs::set_permissions(dir.join(FILE), fs::Permissions::from_mode(0o604)).expect("it is ours");
    let error = Credentials::load(&dir).expect_err("it is refused").to_string();
    assert!(error.contains("chmod 600"), "{error}");
}

#[test]
fn parts_that_do_not_belong_together() {
    let (mesh, other) = (Mesh::new(), Mesh::new());
    let node = mesh.node(Role::Host);
    let check = |key: &NodeKey, certificate: &[u8], authority: &[u8], order_key| {
        Credentials::new(key.clone(), certificate.into(), authority.into(), order_key)
            .expect_err("it is refused")
    };
    let (key, certificate, authority) = (node.key(), node.certificate(), node.authority());
    let order_key = node.order_key();

    let error = check(&NodeKey::generate(), certificate, authority, order_key);
    assert!(matches!(error, CredentialsError::Key { .. }), "{error}");
    let error = check(key, certificate, other.authority.certificate(), order_key);
    assert!(matches!(error, CredentialsError::Signature { .. }), "{error}");
    let error = check(key, certificate, certificate, order_key);
    assert!(matches!(error, CredentialsError::Authority(_)), "{error}");
    let error = check(key, authority, authority, order_key);
    assert!(matches!(error, CredentialsError::Certificate(_)), "{error}");
    let error = check(key, b"", authority, order_key);
    assert!(matches!(error, CredentialsError::Certificate(_)), "{error}");
    let mut weak = [0; 32];
    weak[0] = 1;
    let error = check(key, certificate, authority, OrderKey(weak));
    assert!(matches!(error, CredentialsError::OrderKey { .. }), "{error}");
}

#[test]
fn every_broken_byte_of_a_certificate_is_refused() {
    let node = Mesh::new().node(Role::Relay);
    for at in 0..node.certificate().len() {
        let mut broken = node.certificate().to_vec();
        broken[at] ^= 0x55;
        assert!(node.renew(broken).is_err(), "byte {at}");
    }
}

#[test]
fn renewal_keeps_the_key() {
    let mesh = Mesh::new();
    let node = mesh.node(Role::Host);
    let now = SystemTime::now() + DAY;
    let certificate = mesh
        .authority
        .issue(&node.key().csr(), node.identity(), DAY, now)
        .expect("the request is right");
    let renewed = node.renew(certificate).expect("it is for the same key");
    assert_eq!(renewed.key().public(), node.key().public());
    assert!(renewed.not_after() > node.not_after());
    assert!(node.renew(mesh.node(Role::Host).certificate().to_vec()).is_err());
}

#[test]
fn the_identity_of_a_peer() {
    let mesh = Mesh::new();
    let node = mesh.node(Role::Relay);
    let certificate = CertificateDer::from(node.certificate().to_vec());
    assert_eq!(peer_identity(&[certificate]).expect("it is a node's"), mesh.identity(Role::Relay));
    assert_eq!(peer_identity(&[]), Err(PeerError::Missing));
    assert!(peer_identity(&[CertificateDer::from(b"x".to_vec())]).is_err());
}
