//! Tests of `tls`.

use rustls::{AlertDescription, ClientConnection, ConnectionCommon, ServerConnection};

use super::*;
use crate::testing::{DAY, Mesh};
use crate::{Role, peer_identity};

/// The first error on either side, and whose it was.
#[derive(Debug)]
enum Failure {
    Client(Error),
    Server(Error),
}

fn name(credentials: &Credentials) -> String {
    parent_name(&credentials.identity().mesh)
}

fn handshake(
    client: ClientConfig,
    server: ServerConfig,
    name: &str,
) -> Result<(ClientConnection, ServerConnection), Failure> {
    let name = ServerName::try_from(name.to_owned()).expect("it is a name");
    let mut client = ClientConnection::new(Arc::new(client), name).map_err(Failure::Client)?;
    let mut server = ServerConnection::new(Arc::new(server)).map_err(Failure::Server)?;
    while client.wants_write() || server.wants_write() {
        carry(&mut client, &mut server).map_err(Failure::Server)?;
        carry(&mut server, &mut client).map_err(Failure::Client)?;
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok((client, server))
}

fn carry<A, B>(from: &mut ConnectionCommon<A>, to: &mut ConnectionCommon<B>) -> Result<(), Error> {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).expect("a vector takes all");
    }
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        to.read_tls(&mut rest).expect("a slice gives all");
        to.process_new_packets()?;
    }
    Ok(())
}

fn mesh_handshake(
    client: &Credentials,
    server: &Credentials,
) -> Result<(ClientConnection, ServerConnection), Failure> {
    handshake(client_config(client), server_config(server), &name(client))
}

fn join_handshake(pin: &Pin, server: &Credentials) -> Result<ClientConnection, Failure> {
    let (client, _) = handshake(join_client_config(pin), join_server_config(server), JOIN_NAME)?;
    Ok(client)
}

/// Why a joining client refused.
fn join_error(result: Result<ClientConnection, Failure>) -> String {
    match result.expect_err("it is refused") {
        Failure::Client(Error::InvalidCertificate(CertificateError::Other(OtherError(error)))) => {
            error.to_string()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn nodes_of_a_mesh_meet() {
    let mesh = Mesh::new();
    let nodes = [Role::Host, Role::Relay].map(|role| mesh.node(role));
    let servers = [Role::Relay, Role::Controller].map(|role| mesh.node(role));
    for client in &nodes {
        for server in &servers {
            let (at_client, at_server) =
                mesh_handshake(client, server).expect("they know each other");
            let parent = peer_identity(at_client.peer_certificates().expect("each shows one"))
                .expect("it is a node's");
            let child = peer_identity(at_server.peer_certificates().expect("each shows one"))
                .expect("it is a node's");
            assert_eq!(parent, *server.identity());
            assert_eq!(child, *client.identity());
            assert_eq!(at_client.alpn_protocol(), Some(MESH_ALPN));
            assert_eq!(at_client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
        }
    }
}

#[test]
fn no_session_is_ever_resumed() {
    let mesh = Mesh::new();
    let (host, relay) = (mesh.node(Role::Host), mesh.node(Role::Relay));
    // Clones share what a session could be remembered in.
    let (client, server) = (client_config(&host), server_config(&relay));
    assert_eq!(server.send_tls13_tickets, 0);
    assert_eq!(server.max_early_data_size, 0);
    assert!(!server.session_storage.can_cache());
    for _ in 0..2 {
        let (client, server) =
            handshake(client.clone(), server.clone(), &name(&host)).expect("they know each other");
        assert_eq!(client.tls13_tickets_received(), 0);
        assert_eq!(client.handshake_kind(), Some(rustls::HandshakeKind::Full));
        assert_eq!(server.handshake_kind(), Some(rustls::HandshakeKind::Full));
    }
    let joiner = join_handshake(&mesh.authority.pin(), &relay).expect("they know each other");
    assert_eq!(joiner.tls13_tickets_received(), 0);

    // A server that does send tickets: they are counted, and the client still does not use them.
    let mut server = server_config(&relay);
    server.session_storage = rustls::server::ServerSessionMemoryCache::new(8);
    server.send_tls13_tickets = 1;
    for _ in 0..2 {
        let (client, _) =
            handshake(client.clone(), server.clone(), &name(&host)).expect("they know each other");
        assert_eq!(client.tls13_tickets_received(), 1);
        assert_eq!(client.handshake_kind(), Some(rustls::HandshakeKind::Full));
    }
}

#[test]
fn another_mesh_is_refused_both_ways() {
    let (mesh, other) = (Mesh::new(), Mesh::new());
    let (ours, theirs) = (mesh.node(Role::Relay), other.node(Role::Relay));
    // The client finds out first, so the server's judgement needs a client that has none.
    assert!(matches!(mesh_handshake(&ours, &theirs), Err(Failure::Client(_))));
    let mut blind = client_config(&theirs);
    blind.dangerous().set_certificate_verifier(Arc::new(Blind));
    let refusal = handshake(blind, server_config(&ours), &name(&ours)).expect_err("it is refused");
    let Failure::Server(Error::InvalidCertificate(error)) = refusal else { panic!("{refusal:?}") };
    assert_eq!(error, CertificateError::UnknownIssuer);
}

#[test]
fn a_host_cannot_pose_as_a_parent() {
    let mesh = Mesh::new();
    let (one, two) = (mesh.node(Role::Host), mesh.node(Role::Host));
    let refusal = mesh_handshake(&one, &two).expect_err("it is refused");
    assert!(matches!(refusal, Failure::Client(Error::InvalidCertificate(_))), "{refusal:?}");
    let error = join_error(join_handshake(&mesh.authority.pin(), &two));
    assert_eq!(error, "the server is a host, and only a controller or relay takes joins");
}

#[test]
fn a_client_without_certificate_is_refused() {
    let mesh = Mesh::new();
    let relay = mesh.node(Role::Relay);
    let mut client = join_client_config(&mesh.authority.pin());
    client.alpn_protocols = vec![MESH_ALPN.to_vec()];
    client.dangerous().set_certificate_verifier(Arc::new(Blind));
    let refusal =
        handshake(client, server_config(&relay), &name(&relay)).expect_err("it is refused");
    assert!(matches!(refusal, Failure::Server(Error::NoCertificatesPresented)), "{refusal:?}");
}

#[test]
fn mesh_and_join_do_not_speak_to_each_other() {
    let mesh = Mesh::new();
    let (host, relay) = (mesh.node(Role::Host), mesh.node(Role::Relay));
    let join = join_client_config(&mesh.authority.pin());
    let pairs = [
        handshake(join, server_config(&relay), JOIN_NAME),
        handshake(client_config(&host), join_server_config(&relay), &name(&host)),
    ];
    for result in pairs {
        let refusal = result.expect_err("it is refused");
        assert!(matches!(refusal, Failure::Server(Error::NoApplicationProtocol)), "{refusal:?}");
    }
}

#[test]
fn expired_certificates_are_refused() {
    let mesh = Mesh::new();
    let now = SystemTime::now();
    let expired = |role| mesh.node_at(role, now - DAY * 3, DAY);
    let (host, relay) = (mesh.node(Role::Host), mesh.node(Role::Relay));
    let refusal = mesh_handshake(&host, &expired(Role::Relay)).expect_err("it is refused");
    assert!(matches!(refusal, Failure::Client(Error::InvalidCertificate(_))), "{refusal:?}");
    let refusal = mesh_handshake(&expired(Role::Host), &relay).expect_err("it is refused");
    assert!(matches!(refusal, Failure::Server(Error::InvalidCertificate(_))), "{refusal:?}");
    let refusal =
        join_handshake(&mesh.authority.pin(), &expired(Role::Relay)).expect_err("it is refused");
    assert!(matches!(refusal, Failure::Client(Error::InvalidCertificate(_))), "{refusal:?}");
}

#[test]
fn a_clock_that_is_behind_does_not_keep_a_node_out() {
    let mesh = Mesh::new();
    // To a certificate issued in a month, the clock of this machine is a month behind.
    let later = SystemTime::now() + DAY * 30;
    let host = mesh.node_at(Role::Host, later, DAY);
    let relay = mesh.node_at(Role::Relay, later, DAY);
    mesh_handshake(&host, &relay).expect("they know each other");
    join_handshake(&mesh.authority.pin(), &relay).expect("they know each other");
}

#[test]
fn a_clock_that_is_ahead_may_be_so_by_a_day_when_joining() {
    let mesh = Mesh::new();
    let leaf = mesh.node(Role::Relay).leaf().clone();
    let (first, last) = (unix(leaf.not_before), unix(leaf.not_after));
    let after = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    assert_eq!(join_time(&leaf, after(0)), first);
    let between = after(first.as_secs() + 5);
    assert_eq!(join_time(&leaf, between), between);
    let skew = JOIN_SKEW.as_secs();
    assert_eq!(join_time(&leaf, after(last.as_secs() + skew)), last);
    let beyond = after(last.as_secs() + skew + 1);
    assert_eq!(join_time(&leaf, beyond), beyond);
}

#[test]
fn joining_trusts_the_pin_and_nothing_else() {
    let (mesh, other) = (Mesh::new(), Mesh::new());
    for role in [Role::Relay, Role::Controller] {
        let server = mesh.node(role);
        let client = join_handshake(&mesh.authority.pin(), &server).expect("they know each other");
        let shown = client.peer_certificates().expect("each shows one");
        assert_eq!(peer_identity(shown).expect("it is a node's"), *server.identity());
        assert_eq!(shown[1].as_ref(), mesh.authority.certificate());
        assert_eq!(client.alpn_protocol(), Some(JOIN_ALPN));
    }
    let server = other.node(Role::Controller);
    let error = join_error(join_handshake(&mesh.authority.pin(), &server));
    assert!(error.contains(&mesh.authority.pin().to_string()), "{error}");
}

#[test]
fn a_chain_that_only_looks_right_is_refused() {
    let (mesh, other) = (Mesh::new(), Mesh::new());
    let (ours, theirs) = (mesh.node(Role::Relay), other.node(Role::Relay));
    let pin = mesh.authority.pin();
    let serve = |chain: &[&[u8]], key: &Credentials| {
        let chain = chain.iter().map(|it| der(it)).collect();
        let config = ServerConfig::builder_with_details(provider(), Clock::of(key))
            .with_protocol_versions(&[&TLS13])
            .expect("the provider has it")
            .with_no_client_auth()
            .with_single_cert(chain, private_key(key))
            .expect("the key is of the first one");
        let config = without_resumption(config, JOIN_ALPN);
        handshake(join_client_config(&pin), config, JOIN_NAME).map(|(client, _)| client)
    };
    serve(&[ours.certificate(), ours.authority()], &ours).expect("it is its own");
    // Their certificate beside our authority, which did not sign it.
    let error = join_error(serve(&[theirs.certificate(), ours.authority()], &theirs));
    assert!(error.contains("the server is of mesh"), "{error}");
    // The same, with our mesh written into it by an authority of their own.
    let impostor = impostor(&mesh);
    let refusal =
        serve(&[impostor.certificate(), ours.authority()], &impostor).expect_err("it is refused");
    let Failure::Client(Error::InvalidCertificate(error)) = refusal else { panic!("{refusal:?}") };
    assert!(matches!(error, CertificateError::BadSignature), "{error:?}");
    // Too few, too many, in the wrong order.
    let error = join_error(serve(&[ours.certificate()], &ours));
    assert_eq!(error, "the server sent 1 certificates, and a server of a mesh sends 2");
    let chain = [ours.certificate(), ours.authority(), theirs.authority()];
    assert!(join_error(serve(&chain, &ours)).contains("sent 3"));
    let error = join_error(serve(&[ours.certificate(), ours.certificate()], &ours));
    assert!(error.contains("not one of an authority"), "{error}");
}

/// A relay of another authority that calls its mesh by the same id.
fn impostor(mesh: &Mesh) -> Credentials {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("authority");
    let now = SystemTime::now();
    let authority =
        crate::Authority::create(&path, mesh.authority.mesh(), now).expect("the folder is new");
    Mesh { dir, authority }.node(Role::Relay)
}

#[test]
fn a_same_named_mesh_is_still_another_mesh() {
    let mesh = Mesh::new();
    let impostor = impostor(&mesh);
    let refusal = mesh_handshake(&mesh.node(Role::Host), &impostor).expect_err("it is refused");
    assert!(matches!(refusal, Failure::Client(Error::InvalidCertificate(_))), "{refusal:?}");
}

#[test]
fn the_refusal_tells_the_peer_only_its_kind() {
    let mesh = Mesh::new();
    let relay = mesh.node(Role::Relay);
    let mut client = ClientConnection::new(
        Arc::new(join_client_config(&Pin([0; 32]))),
        ServerName::try_from(JOIN_NAME).expect("it is a name"),
    )
    .expect("the configuration is whole");
    let mut server = ServerConnection::new(Arc::new(join_server_config(&relay)))
        .expect("the configuration is whole");
    carry(&mut client, &mut server).expect("nothing is wrong yet");
    carry(&mut server, &mut client).expect_err("it is refused");
    let alert = carry(&mut client, &mut server).expect_err("it is refused");
    assert_eq!(alert, Error::AlertReceived(AlertDescription::CertificateUnknown));
}

/// A client that does not look at the server, to see what the server does.
#[derive(Debug)]
struct Blind;

impl ServerCertVerifier for Blind {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
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
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

#[test]
fn siblings_meet_by_key_and_speak_of_nothing_else() {
    let (mesh, other) = (Mesh::new(), Mesh::new());
    let (one, two, relay) = (mesh.node(Role::Host), mesh.node(Role::Host), mesh.node(Role::Relay));
    let meet = |client: &Credentials, server: &Credentials, key| {
        let server = sibling_server_config(server);
        handshake(sibling_client_config(client, key), server, SIBLING_NAME)
    };
    let key = two.leaf().public;
    let (at_client, at_server) = meet(&one, &two, key).expect("they know each other");
    assert_eq!(at_client.alpn_protocol(), Some(SIBLING_ALPN));
    let child = peer_identity(at_server.peer_certificates().expect("each shows one"));
    assert_eq!(child.expect("it is a node's"), *one.identity());
    let refusal = meet(&one, &two, one.leaf().public).expect_err("it is another node");
    let Failure::Client(Error::InvalidCertificate(CertificateError::Other(OtherError(why)))) =
        refusal
    else {
        panic!("{refusal:?}")
    };
    assert_eq!(why.to_string(), "another node answers than the one that was meant");
    let stranger = other.node(Role::Host);
    let refusal = meet(&one, &stranger, stranger.leaf().public).expect_err("of another mesh");
    assert!(matches!(refusal, Failure::Client(Error::InvalidCertificate(_))), "{refusal:?}");
    let pairs = [
        handshake(sibling_client_config(&one, relay.leaf().public), server_config(&relay), "a.b"),
        handshake(client_config(&one), sibling_server_config(&relay), &name(&one)),
    ];
    for result in pairs {
        let refusal = result.expect_err("they speak other protocols");
        assert!(matches!(refusal, Failure::Server(Error::NoApplicationProtocol)), "{refusal:?}");
    }
}
