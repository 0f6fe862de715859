//! Tests of `authority`.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use rcgen::KeyPair;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;

use super::*;
use crate::testing::{DAY, Mesh};
use crate::{Leaf, NodeKey, PeerError, Role};

fn issue(mesh: &Mesh, csr: &[u8], role: Role) -> Result<Vec<u8>, IssueError> {
    mesh.authority.issue(csr, &mesh.identity(role), DAY, SystemTime::now())
}

/// A certificate with these parameters, signed by the authority: what a careless one would issue.
fn careless(mesh: &Mesh, change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    let now = SystemTime::now();
    let mut params = leaf_params(&mesh.identity(Role::Relay), [now - DAY, now + DAY]);
    change(&mut params);
    let public = PublicKey(Key::generate().public());
    params.signed_by(&public, &mesh.authority.issuer).expect("it is signed").der().to_vec()
}

#[test]
fn create_then_open() {
    let mesh = Mesh::new();
    let dir = mesh.dir.path().join("authority");
    let opened = Authority::open(&dir).expect("it is opened");
    assert_eq!(opened.certificate(), mesh.authority.certificate());
    assert_eq!(opened.mesh(), mesh.authority.mesh());
    assert_eq!(opened.pin(), mesh.authority.pin());
    assert_eq!(opened.pin(), Pin::of_certificate(opened.certificate()).expect("it is one"));
    assert_eq!(opened.order_signer().key(), mesh.authority.order_signer().key());
    for (name, mode) in [(".", 0o700), (CA_KEY, 0o600), (ORDER_KEY, 0o600)] {
        let found = fs::metadata(dir.join(name)).expect("it is there").mode() & 0o7777;
        assert_eq!(found, mode, "{name}");
    }
    let shown = format!("{opened:?}");
    let secret = HEXLOWER.encode(&opened.issuer.key().pkcs8()[16..]);
    assert!(!shown.contains(&secret));
}

#[test]
fn an_authority_is_never_overwritten() {
    let mesh = Mesh::new();
    let dir = mesh.dir.path().join("authority");
    let error =
        Authority::create(&dir, MeshId::random(), SystemTime::now()).expect_err("it is refused");
    assert!(error.to_string().contains("ca.key already exists"), "{error}");
    assert_eq!(Authority::open(&dir).expect("it is opened").mesh(), mesh.authority.mesh());
}

#[test]
fn an_exposed_key_is_refused() {
    for name in [CA_KEY, ORDER_KEY] {
        let mesh = Mesh::new();
        let dir = mesh.dir.path().join("authority");
        let path = dir.join(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("it is changed");
        let error = Authority::open(&dir).expect_err("it is refused").to_string();
        assert!(error.contains(&format!("chmod 600 {}", path.display())), "{error}");
    }
}

#[test]
fn files_of_two_authorities_do_not_mix() {
    let (one, two) = (Mesh::new(), Mesh::new());
    let dir = one.dir.path().join("authority");
    let other = two.dir.path().join("authority");
    fs::copy(other.join(CA_CERTIFICATE), dir.join(CA_CERTIFICATE)).expect("it is changed");
    let error = Authority::open(&dir).expect_err("it is refused");
    assert!(matches!(error, OpenError::Authority { .. }), "{error}");
    fs::remove_file(dir.join(CA_CERTIFICATE)).expect("it is changed");
    assert!(matches!(Authority::open(&dir), Err(OpenError::File(FileError::Io { .. }))));
    fs::write(dir.join(CA_CERTIFICATE), "nothing").expect("it is changed");
    assert!(matches!(Authority::open(&dir), Err(OpenError::Certificate { .. })));
    fs::copy(dir.join(CA_CERTIFICATE), dir.join(CA_KEY)).expect("it is changed");
    fs::set_permissions(dir.join(CA_KEY), fs::Permissions::from_mode(0o600))
        .expect("it is changed");
    assert!(matches!(Authority::open(&dir), Err(OpenError::Key { .. })));
}

#[test]
fn a_wrong_clock_creates_nothing() {
    let dir = tempfile::tempdir().expect("it works in a mesh that is whole");
    let path = dir.path().join("authority");
    for years in [0, 30, 300] {
        let now = SystemTime::UNIX_EPOCH + DAY * 365 * years;
        let error = Authority::create(&path, MeshId::random(), now).expect_err("it is refused");
        assert!(matches!(error, CreateError::Clock { .. }), "{error}");
    }
    assert!(!path.exists());
}

#[test]
fn the_authority_has_authority_over_nodes_only() {
    let mesh = Mesh::new();
    let (rest, certificate) = X509Certificate::from_der(mesh.authority.certificate())
        .expect("it works in a mesh that is whole");
    assert!(rest.is_empty());
    let constraints = certificate
        .basic_constraints()
        .expect("it works in a mesh that is whole")
        .expect("it works in a mesh that is whole")
        .value;
    assert!(constraints.ca && constraints.path_len_constraint == Some(0));
    let usage = certificate
        .key_usage()
        .expect("it works in a mesh that is whole")
        .expect("it works in a mesh that is whole")
        .value;
    assert!(usage.key_cert_sign() && !usage.digital_signature() && !usage.crl_sign());
    assert_eq!(certificate.raw_serial().len(), 16);
    let validity = certificate.validity();
    let years = (validity.not_after.timestamp() - validity.not_before.timestamp()) / (365 * 86_400);
    assert_eq!(years, 20);
}

#[test]
fn a_certificate_says_what_it_was_asked_to() {
    let mesh = Mesh::new();
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    for role in [Role::Controller, Role::Relay, Role::Host] {
        for site in ["", "berlin"] {
            let identity = Identity { site: site.into(), ..mesh.identity(role) };
            let key = NodeKey::generate();
            let der = mesh
                .authority
                .issue(&key.csr(), &identity, DAY, now)
                .expect("it works in a mesh that is whole");
            let leaf = Leaf::parse(&der).expect("it works in a mesh that is whole");
            assert_eq!(leaf.identity, identity);
            assert_eq!(leaf.public, key.public());
            assert_eq!(leaf.not_before, now - BACKDATE);
            assert_eq!(leaf.not_after, now + DAY);
            assert!(mesh.authority.ca.signed(&der));
            assert!(!Mesh::new().authority.ca.signed(&der));
        }
    }
    let key = NodeKey::generate();
    let serial = || {
        Leaf::parse(
            &issue(&mesh, &key.csr(), Role::Host).expect("it works in a mesh that is whole"),
        )
        .expect("it works in a mesh that is whole")
        .serial
    };
    assert_ne!(serial(), serial());
}

#[test]
fn a_hostile_request_gets_nothing_it_asks_for() {
    let mesh = Mesh::new();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let wanted = Identity { id: 1, ..mesh.identity(Role::Controller) };
    params.subject_alt_names = vec![
        SanType::DnsName(ia5(parent_name(&mesh.authority.mesh()))),
        SanType::URI(ia5(wanted.uri())),
    ];
    params.distinguished_name.push(DnType::CommonName, "controller");
    let key = Key::generate();
    let csr = params.serialize_request(&key).expect("it works in a mesh that is whole");

    let der = issue(&mesh, csr.der(), Role::Host).expect("it works in a mesh that is whole");
    let (_, certificate) =
        X509Certificate::from_der(&der).expect("it works in a mesh that is whole");
    assert!(!certificate.is_ca());
    assert!(
        !certificate
            .key_usage()
            .expect("it works in a mesh that is whole")
            .expect("it works in a mesh that is whole")
            .value
            .key_cert_sign()
    );
    let purposes = certificate
        .extended_key_usage()
        .expect("it works in a mesh that is whole")
        .expect("it works in a mesh that is whole")
        .value;
    assert!(purposes.client_auth && !purposes.server_auth);
    let names = &certificate
        .subject_alternative_name()
        .expect("it works in a mesh that is whole")
        .expect("it works in a mesh that is whole")
        .value
        .general_names;
    assert_eq!(names.len(), 1, "{names:?}");
    assert_eq!(certificate.subject().to_string(), "CN=host1");
    let keys = |it: &&x509_parser::extensions::X509Extension<'_>| {
        matches!(it.parsed_extension(), ParsedExtension::AuthorityKeyIdentifier(_))
    };
    assert_eq!(certificate.extensions().iter().filter(keys).count(), 1);

    let leaf = Leaf::parse(&der).expect("it works in a mesh that is whole");
    assert_eq!(leaf.identity, mesh.identity(Role::Host));
    assert_eq!(leaf.public, key.public());
    assert!(leaf.not_after < SystemTime::now() + DAY * 2);
}

#[test]
fn bad_requests_are_refused() {
    let mesh = Mesh::new();
    let csr = NodeKey::generate().csr();
    let refused = |csr: &[u8]| issue(&mesh, csr, Role::Host).expect_err("it is refused");

    assert!(matches!(refused(b""), IssueError::Request));
    assert!(matches!(refused(&csr[..csr.len() - 1]), IssueError::Request));
    assert!(matches!(refused(&[&csr[..], b"x"].concat()), IssueError::Request));
    assert!(matches!(refused(&vec![0x30; 100_000]), IssueError::Request));
    let mut forged = csr.clone();
    *forged.last_mut().expect("it works in a mesh that is whole") ^= 1;
    assert!(matches!(refused(&forged), IssueError::Signature));

    let p256 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
        .expect("it works in a mesh that is whole");
    let p256 = CertificateParams::default()
        .serialize_request(&p256)
        .expect("it works in a mesh that is whole");
    assert!(matches!(refused(p256.der()), IssueError::Algorithm));

    // Somebody else's public key in a request of one's own.
    let (victim, thief) = (NodeKey::generate(), NodeKey::generate());
    let csr = thief.csr();
    let at = csr
        .windows(32)
        .position(|it| it == thief.public())
        .expect("it works in a mesh that is whole");
    let stolen = [&csr[..at], &victim.public(), &csr[at + 32..]].concat();
    assert!(matches!(refused(&stolen), IssueError::Signature));
}

#[test]
fn every_broken_byte_of_a_request_is_refused() {
    let mesh = Mesh::new();
    let csr = NodeKey::generate().csr();
    for at in 0..csr.len() {
        let mut broken = csr.clone();
        broken[at] ^= 0x55;
        assert!(issue(&mesh, &broken, Role::Host).is_err(), "byte {at}");
    }
}

#[test]
fn identities_that_cannot_be_certified() {
    let mesh = Mesh::new();
    let csr = NodeKey::generate().csr();
    let now = SystemTime::now();
    let issue =
        |who: Identity, now| mesh.authority.issue(&csr, &who, DAY, now).expect_err("it is refused");

    let host = mesh.identity(Role::Host);
    let error = issue(Identity { name: "a/b".into(), ..host.clone() }, now);
    assert!(error.to_string().contains("node name"), "{error}");
    let error = issue(Identity { mesh: MeshId::random(), ..host.clone() }, now);
    assert!(matches!(error, IssueError::Mesh { .. }), "{error}");
    let error = issue(host.clone(), SystemTime::UNIX_EPOCH);
    assert!(matches!(error, IssueError::Clock), "{error}");
    for years in [21, 1_000_000] {
        let error = issue(host.clone(), now + DAY * 365 * years);
        assert!(matches!(error, IssueError::Expired { .. }), "{error}");
    }
}

#[test]
fn no_certificate_outlives_the_authority() {
    let mesh = Mesh::new();
    let csr = NodeKey::generate().csr();
    for lifetime in [DAY * 365 * 30, Duration::MAX] {
        let who = mesh.identity(Role::Host);
        let der = mesh
            .authority
            .issue(&csr, &who, lifetime, SystemTime::now())
            .expect("it works in a mesh that is whole");
        assert_eq!(
            Leaf::parse(&der).expect("it works in a mesh that is whole").not_after,
            mesh.authority.ca.not_after
        );
    }
}

#[test]
fn only_our_own_shape_of_certificate_is_read() {
    let mesh = Mesh::new();
    let check = |change: &dyn Fn(&mut CertificateParams)| {
        Leaf::parse(&careless(&mesh, change)).map(|_| ()).expect_err("it is refused")
    };
    Leaf::parse(&careless(&mesh, |_| ())).expect("it works in a mesh that is whole");

    let usages = PeerError::Usages { role: Role::Relay };
    assert_eq!(check(&|it| it.extended_key_usages.clear()), usages);
    assert_eq!(check(&|it| drop(it.extended_key_usages.pop())), usages);
    assert_eq!(check(&|it| drop(it.extended_key_usages.remove(0))), usages);
    let any = ExtendedKeyUsagePurpose::Any;
    assert_eq!(check(&|it| it.extended_key_usages.push(any.clone())), usages);

    let ca = IsCa::Ca(BasicConstraints::Constrained(0));
    for is_ca in [IsCa::NoCa, ca] {
        let error = check(&|it| it.is_ca = is_ca);
        assert!(matches!(error, PeerError::Malformed { .. }), "{error}");
    }
    let error = check(&|it| it.key_usages.push(KeyUsagePurpose::KeyCertSign));
    assert!(matches!(error, PeerError::Malformed { .. }), "{error}");
    let error = check(&|it| it.serial_number = Some(SerialNumber::from(1)));
    assert!(matches!(error, PeerError::Malformed { .. }), "{error}");
    let error = check(&|it| it.not_after = it.not_before);
    assert!(matches!(error, PeerError::Malformed { .. }), "{error}");

    let names = |change: &dyn Fn(&mut Vec<SanType>)| {
        let error = check(&|it| change(&mut it.subject_alt_names));
        assert!(matches!(error, PeerError::Names { .. }), "{error}");
    };
    names(&|it| it.clear());
    names(&|it| it.reverse());
    names(&|it| drop(it.pop()));
    names(&|it| it.push(SanType::DnsName(ia5("www.example.org".into()))));
    names(&|it| it.push(SanType::IpAddress([127, 0, 0, 1].into())));
    names(&|it| it[0] = SanType::URI(ia5("https://example.org/".into())));
    names(&|it| it[0] = SanType::URI(ia5(mesh.identity(Role::Host).uri())));
    names(&|it| it[1] = SanType::DnsName(ia5(parent_name(&MeshId([0; 16])))));

    let authority = Leaf::parse(mesh.authority.certificate()).expect_err("it is refused");
    assert!(matches!(authority, PeerError::Malformed { .. }), "{authority}");
    assert!(Ca::parse(&careless(&mesh, |_| ())).is_err());
}

#[test]
fn a_node_is_no_authority() {
    let mesh = Mesh::new();
    let now = SystemTime::now();
    // Signed by the authority itself, so only its shape and signature can give it away.
    let below = ca_params(mesh.authority.mesh(), now);
    let key = Key::generate();
    let below = below
        .signed_by(&PublicKey(key.public()), &mesh.authority.issuer)
        .expect("it works in a mesh that is whole");
    assert_eq!(
        Ca::parse(below.der()).expect_err("it is refused").flaw,
        "it is not signed by itself"
    );
}

#[test]
fn every_broken_byte_of_an_authority_is_refused() {
    let der = Mesh::new().authority.certificate().to_vec();
    for at in 0..der.len() {
        let mut broken = der.clone();
        broken[at] ^= 0x55;
        assert!(Ca::parse(&broken).is_err(), "byte {at}");
    }
}

#[test]
fn the_same_key_under_another_name_is_another_authority() {
    let mesh = Mesh::new();
    let now = SystemTime::now();
    let other = ca_params(MeshId([0; 16]), now);
    let issuer = Issuer::from_params(&other, mesh.authority.issuer.key());
    let params = leaf_params(&mesh.identity(Role::Host), [now, now + DAY]);
    let leaf = params
        .signed_by(&PublicKey(Key::generate().public()), &issuer)
        .expect("it works in a mesh that is whole");
    assert!(!mesh.authority.ca.signed(leaf.der()));
}

#[test]
fn grants() {
    let (mesh, other) = (Mesh::new(), Mesh::new());
    let (ca, pin) = (mesh.authority.certificate(), mesh.authority.pin());
    let signature = mesh.authority.sign_grant(b"order key");
    verify_grant(ca, &pin, b"order key", &signature).expect("it works in a mesh that is whole");

    let error = verify_grant(ca, &pin, b"order kez", &signature).expect_err("it is refused");
    assert!(matches!(error, GrantError::Signature { .. }), "{error}");
    let error = verify_grant(ca, &pin, b"order key", &signature[..60]).expect_err("it is refused");
    assert!(matches!(error, GrantError::Signature { .. }), "{error}");
    let theirs = other.authority.certificate();
    let signature = other.authority.sign_grant(b"order key");
    let error = verify_grant(theirs, &pin, b"order key", &signature).expect_err("it is refused");
    assert!(matches!(error, GrantError::Authority { .. }), "{error}");
    let error = verify_grant(b"", &pin, b"order key", &signature).expect_err("it is refused");
    assert!(matches!(error, GrantError::Certificate(_)), "{error}");

    // Changed after it was signed, but for the same key: the pin alone would not notice.
    let mut changed = ca.to_vec();
    let at = changed
        .windows(9)
        .position(|it| it == b"authority")
        .expect("it works in a mesh that is whole");
    changed[at - 2] ^= 1;
    assert_eq!(Pin::of_certificate(&changed).expect("it works in a mesh that is whole"), pin);
    let signature = mesh.authority.sign_grant(b"order key");
    verify_grant(ca, &pin, b"order key", &signature).expect("it works in a mesh that is whole");
    let error = verify_grant(&changed, &pin, b"order key", &signature).expect_err("it is refused");
    assert!(matches!(error, GrantError::Certificate(_)), "{error}");
}

#[test]
fn a_grant_is_not_an_order() {
    let mesh = Mesh::new();
    let signer = OrderSigner::generate();
    let as_order = signer.sign("grant", b"body");
    let ca = mesh.authority.certificate();
    assert!(verify_grant(ca, &mesh.authority.pin(), b"body", &as_order).is_err());
    let grant = mesh.authority.sign_grant(b"body");
    let ca_as_order_key = crate::OrderKey(mesh.authority.ca.public);
    assert!(ca_as_order_key.verify("", b"body", &grant).is_err());
}

#[test]
fn a_list_of_removals_is_the_authoritys_and_no_grant() {
    let (mesh, other) = (Mesh::new(), Mesh::new());
    let ca = mesh.authority.certificate();
    let signature = mesh.authority.sign_removals(b"list");
    crate::verify_removals(ca, b"list", &signature).expect("it works in a mesh that is whole");
    assert!(crate::verify_removals(ca, b"lisp", &signature).is_err());
    assert!(crate::verify_removals(other.authority.certificate(), b"list", &signature).is_err());
    assert!(verify_grant(ca, &mesh.authority.pin(), b"list", &signature).is_err());
    let grant = mesh.authority.sign_grant(b"list");
    assert!(crate::verify_removals(ca, b"list", &grant).is_err());
}
