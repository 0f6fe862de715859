//! What a relay tells of its orders is taken within limits, and nothing else of it.

use std::time::{Duration, SystemTime};

use certs::{MeshId, NodeKey};
use mesh::{HostId, HostSet, Outcome, State};
use protos::{DELEGATION_KIND, Delegated, Delegation, Run};
use relay::Journal;

use super::*;

const RELAY: HostId = HostId(7);

struct World {
    _dir: tempfile::TempDir,
    archive: Archive,
    relay: NodeKey,
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (mesh, now) = (MeshId([1; 16]), SystemTime::now());
        let authority = Authority::create(&dir.path().join("a"), mesh, now).expect("an authority");
        let journal = Journal::open(&dir.path().join("c.redb"), 1 << 20).expect("it is made");
        let tables = Tables::open(journal).expect("they are made");
        let (relay, live) = (NodeKey::generate(), Live::new());
        let row = HostRow {
            name: "lyon-r1".into(),
            site: "lyon".into(),
            role: "relay".into(),
            key: relay.public(),
            enrolled_ms: 0,
        };
        live.state().hosts = Arc::new([(RELAY, row)].into());
        World {
            archive: Archive { authority: Arc::new(authority), tables, live },
            relay,
            _dir: dir,
        }
    }

    fn delegation(&self) -> Bytes {
        let delegation = Delegation {
            mesh: [1; 16],
            id: [5; 32],
            relay: RELAY,
            key: self.relay.public(),
            scope: HostSet::from_ranges([(7, 9)]),
            run: true,
            from_ms: 0,
            until_ms: 60_000,
        };
        let (body, signer) = (delegation.encode(), self.archive.authority.order_signer());
        sealed(DELEGATION_KIND, body, |kind, body| signer.sign(kind, body))
    }

    fn order(&self) -> OrderBody {
        let run = Run { output_limit: 1, ..Run::new(["uptime", "-p"], Duration::from_secs(5)) };
        OrderBody {
            reach: Duration::from_secs(5),
            hold: Duration::from_secs(5),
            issued_by: "operator".into(),
            ..OrderBody::new(
                [1; 16],
                OrderId([2; 16]).given_by(RELAY),
                HostSet::from_ranges([(8, 9)]),
                0..=20_000,
                Work::Run(run),
            )
        }
    }

    fn envelope(&self, order: &OrderBody) -> Bytes {
        let order = order.encode().into();
        let body = Delegated { delegation: self.delegation(), order }.encode();
        sealed(DELEGATED_KIND, body, |kind, body| self.relay.sign(kind, body))
    }

    /// A part with an answer of host 8.
    fn record(&self, envelope: Bytes) -> Record {
        let mut report = Report::new(self.order().id);
        let outcome = Outcome { state: State::Failed(3), body: Some(relay::hash(b"no")) };
        report.tally.record(outcome, &HostSet::one(HostId(8)));
        Record {
            mesh: [1; 16],
            relay: RELAY,
            order: self.order().id,
            envelope,
            bodies: vec![Bytes::from_static(b"no")],
            reports: vec![protos::encode_frame(&Frame::Report { log: 0, seq: 0, report })],
            closed_ms: 0,
        }
    }

    fn hand(&self, record: &Record, key: &NodeKey) -> RecordReply {
        let body = record.encode();
        self.archive.keep(SignedRecord { signature: key.sign(RECORD_KIND, &body), body })
    }

    fn refused(&self, record: &Record) -> String {
        match self.hand(record, &self.relay) {
            RecordReply::Refused(why) => why,
            RecordReply::Kept => panic!("it is kept: {record:?}"),
        }
    }

    fn kept(&self) -> Option<OrderRow> {
        self.archive.tables.order(self.order().id).expect("read")
    }
}

fn sealed(kind: &str, body: Vec<u8>, sign: impl Fn(&str, &[u8]) -> [u8; 64]) -> Bytes {
    let (key, signature) = (Bytes::from_static(b"key"), sign(kind, &body));
    Envelope { kind: kind.into(), body: body.into(), signature, key }.encode()
}

#[test]
fn an_order_of_a_relay_is_listed_as_what_it_is() {
    let world = World::new();
    let mut updates = world.archive.live.watch();
    let first = world.record(world.envelope(&world.order()));
    assert_eq!(world.hand(&first, &world.relay), RecordReply::Kept);
    let row = world.kept().expect("it is there");
    assert_eq!((row.kind.as_str(), row.what.as_str()), ("run", "uptime -p"));
    assert_eq!((row.given_by.as_deref(), row.targets), (Some("lyon-r1"), vec![(8, 9)]));
    assert_eq!((row.closed_ms, row.expires_ms), (0, 20_000));
    assert_eq!(updates.try_recv().expect("it is told").order(), world.order().id);

    let last = Record { closed_ms: 77, ..world.record(Bytes::new()) };
    assert_eq!(world.hand(&last, &world.relay), RecordReply::Kept);
    assert_eq!(world.kept().expect("it is there").closed_ms, 77);
    let (tally, _) = world.archive.tables.tally(world.order().id).expect("read");
    assert_eq!(tally.hosts(), &HostSet::one(HostId(8)));
    let body = world.archive.tables.body(world.order().id, relay::hash(b"no")).expect("read");
    assert_eq!(body, Some(Bytes::from_static(b"no")));
}

#[test]
fn a_relay_tells_of_its_own_orders_and_of_what_was_delegated() {
    let world = World::new();
    let good = world.record(world.envelope(&world.order()));
    let thief = world.hand(&good, &NodeKey::generate());
    assert!(matches!(thief, RecordReply::Refused(why) if why.contains("not signed by the relay")));
    let refused = |record: &Record| world.refused(record);
    assert!(refused(&Record { relay: HostId(8), ..good.clone() }).contains("no such relay"));
    // The controller's own order, and that of another relay.
    for order in [OrderId([2; 16]), OrderId([2; 16]).given_by(HostId(8))] {
        let why = refused(&Record { order, ..good.clone() });
        assert!(why.contains("not about an order of that relay"), "{why}");
    }
    let foreign = Record { mesh: [9; 16], ..good.clone() };
    assert!(refused(&foreign).contains("not about an order of that relay"));
    let beyond = OrderBody { targets: HostSet::from_ranges([(8, 10)]), ..world.order() };
    let beyond = Record { envelope: world.envelope(&beyond), ..good.clone() };
    assert!(refused(&beyond).contains("hosts that were not delegated"));
    let other = OrderBody { id: OrderId([3; 16]).given_by(RELAY), ..world.order() };
    let other = Record { envelope: world.envelope(&other), ..good.clone() };
    assert!(refused(&other).contains("the order of somebody else"));
    let early = Record { envelope: Bytes::new(), ..good.clone() };
    assert!(refused(&early).contains("has not come"));
    let mut report = Report::new(OrderId([4; 16]));
    report.tally.record(Outcome::bare(State::Ok), &HostSet::one(HostId(8)));
    let frame = protos::encode_frame(&Frame::Report { log: 0, seq: 0, report });
    let stray = Record { reports: vec![frame], ..good.clone() };
    assert!(refused(&stray).contains("not to its order"));
    assert!(world.kept().is_none(), "nothing of it is there");
}
