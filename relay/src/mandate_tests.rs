//! Orders of relays against what was delegated to them: what is within is obeyed, nothing beyond.

use std::time::Duration;

use certs::{Authority, Identity, MeshId, NodeKey, Role};
use mesh::{HostSet, OrderId};
use protos::{ORDER_KIND, Run, Work};

use super::*;
use crate::links::Links;
use crate::verify::{OrderFault, Verifier};

const RELAY: HostId = HostId(7);
const HOST: HostId = HostId(8);

/// A mesh with a relay that may run commands at itself and a host, for a minute from the epoch on.
struct World {
    dir: tempfile::TempDir,
    authority: Authority,
    relay: NodeKey,
}

fn command() -> Run {
    Run { output_limit: 1, ..Run::new(["true"], Duration::from_secs(5)) }
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (mesh, now) = (MeshId([1; 16]), SystemTime::now());
        let authority = Authority::create(&dir.path().join("a"), mesh, now).expect("an authority");
        World { dir, authority, relay: NodeKey::generate() }
    }

    fn credentials(&self, id: u32, role: Role, key: &NodeKey) -> Credentials {
        let (mesh, name, site) = (self.authority.mesh(), "a".into(), String::new());
        let who = Identity { mesh, id, role, name, site };
        let (life, now) = (Duration::from_secs(3600), SystemTime::now());
        let issued = self.authority.issue(&key.csr(), &who, life, now).expect("a certificate");
        let (ca, signer) = (self.authority.certificate().to_vec(), self.authority.order_signer());
        Credentials::new(key.clone(), issued, ca, signer.key()).expect("they fit")
    }

    fn removed(&self) -> Removed {
        let credentials = self.credentials(HOST.0, Role::Host, &NodeKey::generate());
        Removed::open(self.dir.path(), &credentials, Links::default(), None)
    }

    fn verifier(&self, removed: Removed) -> Verifier {
        let key = self.authority.order_signer().key();
        Verifier::new(self.authority.mesh(), key, HOST).heeding(removed)
    }

    fn delegation(&self) -> Delegation {
        Delegation {
            mesh: [1; 16],
            id: [5; 32],
            relay: RELAY,
            key: self.relay.public(),
            scope: HostSet::from_ranges([(7, 8)]),
            run: true,
            from_ms: 0,
            until_ms: 60_000,
        }
    }

    fn signed(&self, delegation: &Delegation) -> Bytes {
        let (body, signer) = (delegation.encode(), self.authority.order_signer());
        sealed(DELEGATION_KIND, body, |kind, body| signer.sign(kind, body))
    }

    fn order(&self) -> OrderBody {
        OrderBody {
            reach: Duration::from_secs(5),
            hold: Duration::from_secs(5),
            issued_by: "operator".into(),
            ..OrderBody::new(
                [1; 16],
                OrderId([2; 16]).given_by(RELAY),
                HostSet::one(HOST),
                0..=20_000,
                Work::Run(command()),
            )
        }
    }

    /// An order as the relay gives it.
    fn given(&self, delegation: Bytes, order: &OrderBody, key: &NodeKey) -> Bytes {
        let body = Delegated { delegation, order: order.encode().into() }.encode();
        sealed(DELEGATED_KIND, body, |kind, body| key.sign(kind, body))
    }
}

fn sealed(kind: &str, body: Vec<u8>, sign: impl Fn(&str, &[u8]) -> [u8; 64]) -> Bytes {
    let (key, signature) = (Bytes::from_static(b"key"), sign(kind, &body));
    Envelope { kind: kind.into(), body: body.into(), signature, key }.encode()
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(10)
}

fn removals(world: &World, keys: &[[u8; 32]]) -> protos::SignedRemovals {
    list(world, 0, keys)
}

fn list(world: &World, epoch: u64, keys: &[[u8; 32]]) -> protos::SignedRemovals {
    let keys = keys.iter().copied().collect();
    let (mesh, version, schedule) = ([1; 16], 1 + epoch, protos::Schedule::default());
    let body = protos::Removals { mesh, version, keys, epoch, schedule }.encode();
    protos::SignedRemovals { signature: world.authority.sign_removals(&body), body }
}

#[test]
fn a_host_obeys_what_was_delegated_and_nothing_beyond() {
    let world = World::new();
    let verifier = world.verifier(world.removed());
    let delegation = world.signed(&world.delegation());
    let good = world.given(delegation.clone(), &world.order(), &world.relay);
    assert_eq!(verifier.check(&good, now()).expect("it is good"), world.order());
    let (order, _) = verifier.admit(&good).expect("it is passed on");
    assert_eq!((order.id.giver(), &order.body), (Some(RELAY), &good));

    let fault = |bytes: Bytes| verifier.check(&bytes, now()).expect_err("it is refused").fault;
    let beyond = OrderBody { targets: HostSet::from_ranges([(8, 9)]), ..world.order() };
    let beyond = fault(world.given(delegation.clone(), &beyond, &world.relay));
    assert_eq!(beyond.to_string(), "relay 7: it is for hosts that were not delegated");
    // Somebody else who has got hold of the delegation.
    let thief = world.given(delegation.clone(), &world.order(), &NodeKey::generate());
    assert!(matches!(fault(thief), OrderFault::Given(GivenFault::Signature)));
    // A relay that delegates to itself.
    let own = world.delegation().encode();
    let own = sealed(DELEGATION_KIND, own, |kind, body| world.relay.sign(kind, body));
    let forged = world.given(own, &world.order(), &world.relay);
    assert!(matches!(fault(forged), OrderFault::Given(GivenFault::Delegation)));
    // Another order in the place of the one that was signed.
    let mut bent = Envelope::decode(good.clone()).expect("it is one");
    let other = OrderBody { issued_by: "else".into(), ..world.order() };
    let other = Delegated { delegation: delegation.clone(), order: other.encode().into() };
    bent.body = other.encode().into();
    assert!(matches!(fault(bent.encode()), OrderFault::Given(GivenFault::Signature)));
    // An order of the controller's kind, signed by the relay.
    let plain = OrderBody { id: OrderId([2; 16]), ..world.order() };
    let plain = sealed(ORDER_KIND, plain.encode(), |kind, body| world.relay.sign(kind, body));
    assert!(matches!(fault(plain), OrderFault::Signature));
    // What the controller has signed as something else is no delegation.
    let signer = world.authority.order_signer();
    let kind = |kind: &str| sealed(kind, world.delegation().encode(), |_, b| signer.sign(kind, b));
    let wrong = world.given(kind(ORDER_KIND), &world.order(), &world.relay);
    assert!(matches!(fault(wrong), OrderFault::Given(GivenFault::Delegation)));
    // Longer than the delegation is good for, or the work of another kind.
    let long = OrderBody { not_after_ms: 60_001, ..world.order() };
    let long = fault(world.given(delegation.clone(), &long, &world.relay));
    assert_eq!(long.to_string(), "relay 7: it is valid beyond the time that was delegated");
    let steer = OrderBody { work: Work::Steer(protos::Steer::Survey), ..world.order() };
    let steer = fault(world.given(delegation.clone(), &steer, &world.relay));
    assert_eq!(steer.to_string(), "relay 7: it asks for a kind of work that was not delegated");
    let late = verifier.check(&good, now() + Duration::from_secs(11)).expect_err("it is over");
    assert!(matches!(late.fault, OrderFault::TooLate(_)));
    assert!(late.meant && late.id == Some(world.order().id));
}

#[test]
fn what_was_taken_back_is_refused_and_so_is_a_relay_that_was_removed() {
    for by_number in [true, false] {
        let world = World::new();
        let removed = world.removed();
        let verifier = world.verifier(removed.clone());
        let given = world.given(world.signed(&world.delegation()), &world.order(), &world.relay);
        assert!(verifier.check(&given, now()).is_ok());
        let gone = if by_number { world.delegation().id } else { world.relay.public() };
        removed.take(&removals(&world, &[gone])).expect("it is good");
        let refused = verifier.check(&given, now()).expect_err("it is taken back");
        assert!(matches!(refused.fault, OrderFault::TakenBack(RELAY)), "{}", refused.fault);
        assert!(verifier.admit(&given).is_err(), "nor is it passed on");
    }
}

#[test]
fn what_a_controller_has_given_whose_epoch_is_over_is_passed_on_and_not_begun() {
    let world = World::new();
    let removed = world.removed();
    let verifier = world.verifier(removed.clone());
    let signer = world.authority.order_signer();
    let order = |epoch| {
        let body = OrderBody { id: OrderId([2; 16]), epoch, ..world.order() };
        sealed(ORDER_KIND, body.encode(), |kind, body| signer.sign(kind, body))
    };
    let given = world.given(world.signed(&world.delegation()), &world.order(), &world.relay);
    assert!(verifier.check(&order(0), now()).is_ok());
    removed.take(&list(&world, 100, &[])).expect("it is good");
    for over in [0, 99] {
        let refused = verifier.check(&order(over), now()).expect_err("it is over");
        assert!(matches!(refused.fault, OrderFault::Over) && refused.meant, "{}", refused.fault);
        assert_eq!(refused.state(), State::Refused);
        // Whoever has begun it answers as ever, so it stays an order like any other.
        assert!(verifier.admit(&order(over)).is_ok());
    }
    for good in [order(100), order(101), given] {
        verifier.check(&good, now()).expect("it is of this epoch, or a relay's");
    }
}

#[tokio::test]
async fn a_mandate_is_kept_until_it_is_taken_back() {
    let world = World::new();
    let credentials = world.credentials(RELAY.0, Role::Relay, &world.relay);
    let removed = world.removed();
    let dir = world.dir.path();
    let open = || Mandates::open(dir, &credentials, removed.clone());
    let mandates = open();
    assert_eq!(mandates.now(), None);
    let node = KnownNode { id: HOST, name: "web1".into(), site: "lyon".into(), relay: false };
    let delegate =
        Delegate { delegation: world.signed(&world.delegation()), nodes: vec![node.clone()] };
    let (state, _) = mandates.carry_out(delegate.clone()).await;
    assert_eq!(state, State::Ok);
    let held = open().now().expect("it is there after a restart");
    assert_eq!((&held.delegation, &held.nodes), (&world.delegation(), &vec![node]));
    assert!(!held.is_over(now()) && held.is_over(UNIX_EPOCH + Duration::from_secs(60)));

    // Of two the later counts, whichever comes first.
    let later = Delegation { id: [6; 32], from_ms: 1, ..world.delegation() };
    let later = Delegate { delegation: world.signed(&later), nodes: Vec::new() };
    for delegate in [later, delegate.clone()] {
        assert_eq!(mandates.carry_out(delegate).await.0, State::Ok);
        assert_eq!(mandates.now().expect("there is one").delegation.id, [6; 32]);
    }

    removed.take(&removals(&world, &[[6; 32]])).expect("it is good");
    assert!(mandates.now().is_none() && open().now().is_none());
}

#[tokio::test]
async fn a_mandate_is_for_one_relay_and_its_key() {
    let world = World::new();
    let delegate = |delegation: &Delegation| Delegate {
        delegation: world.signed(delegation),
        nodes: Vec::new(),
    };
    let given = async |id, role, key: &NodeKey, delegation: &Delegation| {
        let credentials = world.credentials(id, role, key);
        let mandates = Mandates::open(world.dir.path(), &credentials, world.removed());
        let (state, answer) = mandates.carry_out(delegate(delegation)).await;
        assert!(mandates.now().is_none());
        (state, answer.fault.expect("it says why").detail)
    };
    let good = world.delegation();
    let other = given(9, Role::Relay, &world.relay, &good).await;
    assert_eq!(other, (State::Refused, "it is not for this relay and its key".into()));
    assert_eq!(given(RELAY.0, Role::Relay, &NodeKey::generate(), &good).await, other);
    let foreign = Delegation { mesh: [9; 16], ..good.clone() };
    assert_eq!(given(RELAY.0, Role::Relay, &world.relay, &foreign).await, other);
    let host = given(RELAY.0, Role::Host, &world.relay, &good).await;
    assert_eq!(host, (State::Refused, "a host gives no orders: delegate to a relay".into()));
}
