//! What nobody should carry out is refused with a reason.

use mesh::HostId;

use super::*;
use crate::{
    Bundle, Cap, Delete, File, MaxDelete, OUTPUT_LIMIT, Part, Special, Variable, encode_frame,
};

fn sample(work: Work) -> OrderBody {
    OrderBody {
        reach: Duration::from_secs(5),
        hold: Duration::from_secs(60),
        issued_by: "ada".to_owned(),
        ..OrderBody::new(
            [1; 16],
            OrderId([2; 16]),
            HostSet::from_ranges([(1, 40)]),
            1_000..=61_000,
            work,
        )
    }
}

fn sample_gate() -> Gate {
    Gate {
        window: 3,
        per_child: None,
        lots: Vec::new(),
        per_lot: mesh::Share::Hosts(1),
        batch: None,
        max_errors: Some(0),
        max_missed: None,
        begin: Duration::from_secs(15),
        longest: Duration::from_secs(60),
    }
}

fn sample_run() -> Run {
    Run {
        user: "root".to_owned(),
        output_limit: 65_536,
        ..Run::new(["uname", "-a"], Duration::from_secs(30))
    }
}

fn sample_push() -> Push {
    Push {
        dest: Bytes::from_static(b"/etc/motd.d"),
        manifest: Digest([3; 32]),
        full_manifest: Part { id: Digest([4; 32]), bytes: 100 },
        bundles: Vec::new(),
        inline: Vec::new(),
        terms: Terms::default(),
    }
}

/// The same fault before signing and after sending.
fn check_order(order: &OrderBody, expected: &str) {
    let error = OrderBody::decode(&order.encode()).expect_err("it is refused");
    assert_eq!(error.to_string(), expected);
    assert_eq!(order.check(), Err(error));
}

#[test]
fn the_core_gets_what_it_needs() {
    let order = sample(Work::Run(sample_run()));
    let (envelope, ttl) = (Bytes::from_static(b"signed"), Duration::from_secs(9));
    let core = order.to_mesh(envelope.clone(), ttl);
    assert_eq!((core.id, &core.targets, core.ttl), (order.id, &order.targets, ttl));
    assert_eq!((core.reach, core.hold, core.body), (order.reach, order.hold, envelope.clone()));
    assert!(!core.again);
    assert!(sample(Work::Push(sample_push())).to_mesh(envelope.clone(), ttl).again);
    let older = OrderId([7; 16]);
    for work in [Work::Cancel(older), Work::Recall(older)] {
        let cancel = sample(work).to_mesh(envelope.clone(), ttl);
        assert_eq!((core.cancels, cancel.cancels, cancel.again), (None, Some(older), true));
        assert!(!cancel.lapses);
    }
    let mut newer = sample(Work::Push(sample_push()));
    newer.supersedes = vec![(older, HostSet::one(HostId(3)))];
    assert_eq!(newer.to_mesh(envelope, ttl).supersedes, newer.supersedes);
}

#[test]
fn limits_of_every_order() {
    let check = |change: fn(&mut OrderBody), expected: &str| {
        let mut order = sample(Work::Run(sample_run()));
        change(&mut order);
        check_order(&order, expected);
    };
    check(|o| o.targets = HostSet::new(), "order.targets is missing or empty");
    check(
        |o| o.not_after_ms = o.not_before_ms,
        "order.not_after_ms is 1000 and must be from 1001 to 31622401000",
    );
    check(
        |o| o.not_after_ms = u64::MAX,
        "order.not_after_ms is 18446744073709551615 and must be from 1001 to 31622401000",
    );
    check(
        |o| o.reach = Duration::from_secs(61),
        "order.reach_ms is 61000 and must be from 0 to 60000",
    );
    check(
        |o| o.hold = LONGEST + Duration::from_nanos(1),
        "order.hold_ms is 31622400001 and must be from 0 to 31622400000",
    );
    check(|o| o.work = Work::Cancel(o.id), "cancel.order is the id of the order itself");
    check(|o| o.issued_by.clear(), "order.issued_by is missing or empty");
    check(|o| o.issued_by = "\x1b[2J".to_owned(), "order.issued_by has a control character");
    let need = |content| Need { hosts: HostSet::one(HostId(1)), content };
    let mut order = sample(Work::Run(sample_run()));
    order.needs = vec![need(vec![Digest([0; 32]); 2049]), need(vec![Digest([1; 32]); 2048])];
    check_order(&order, "need.content has 4097 elements; the limit is 4096");
    order.needs = vec![need(Vec::new())];
    check_order(&order, "need.content is missing or empty");
    for address in ["relay", ":7400", "relay:0", "relay:x"] {
        let order = sample(Work::Steer(Steer::Parents(vec![address.to_owned()])));
        check_order(&order, "steer.parents has an address that is not host:port");
    }
    let slow = Steer::Cap(Cap::Set { rate: 7_999, until_ms: 0 });
    check_order(&sample(Work::Steer(slow)), "steer.cap.rate is less than 8000 bits a second");
    let slow = OrderBody { rate: 1, ..sample(Work::Run(sample_run())) };
    check_order(&slow, "order.rate is less than 8000 bits a second");
    let (id, hosts) = (OrderId([5; 16]), HostSet::one(HostId(1)));
    let instead =
        |work, olders: Vec<(OrderId, HostSet)>| OrderBody { supersedes: olders, ..sample(work) };
    let push = || Work::Push(sample_push());
    let one = vec![(id, hosts.clone())];
    check_order(&instead(Work::Run(sample_run()), one), "order.supersedes is of a push only");
    let many = vec![(id, hosts.clone()); 65];
    check_order(&instead(push(), many), "order.supersedes has 65 elements; the limit is 64");
    let own = vec![(OrderId([2; 16]), hosts)];
    check_order(&instead(push(), own), "superseded.order is the id of the order itself");
    let others = vec![(id, HostSet::one(HostId(41)))];
    check_order(&instead(push(), others), "superseded.hosts are not all targets");
    let nobody = vec![(id, HostSet::new())];
    check_order(&instead(push(), nobody), "superseded.hosts is missing or empty");
    let order = sample(Work::Steer(Steer::Parents(vec!["relay:7400".to_owned(); 9])));
    check_order(&order, "steer.parents has 9 elements; the limit is 8");
}

#[test]
fn limits_of_a_run() {
    let check = |change: fn(&mut Run), expected: &str| {
        let mut run = sample_run();
        change(&mut run);
        check_order(&sample(Work::Run(run)), expected);
    };
    let variable = |name, value| Variable { name, value };
    check(|r| r.argv.clear(), "run.argv is missing or empty");
    check(|r| r.argv[0] = Bytes::new(), "run.argv is missing or empty");
    check(|r| r.argv[1] = Bytes::from_static(b"a\0b"), "run.argv has a NUL byte");
    check(
        |r| r.argv = vec![Bytes::from_static(b"x"); 4097],
        "run.argv has 4097 elements; the limit is 4096",
    );
    check(
        |r| r.argv[1] = vec![b'x'; 131_072].into(),
        "run.argv has 131077 bytes; the limit is 131072",
    );
    check(|r| r.shell = true, "run.argv has more than the one line that a shell reads");
    check(|r| r.user = "-rf".to_owned(), "run.user is not the name of a user");
    check(|r| r.user = "a:b".to_owned(), "run.user is not the name of a user");
    check(|r| r.dir = Bytes::from_static(b"tmp"), "run.dir is not an absolute path");
    check(|r| r.timeout = Duration::ZERO, "run.timeout_ms is 0 and must be from 1 to 31622400000");
    check(
        |r| r.output_limit = OUTPUT_LIMIT + 1,
        "run.output_limit is 196609 and must be from 0 to 196608",
    );
    let with = |env| sample(Work::Run(Run { env, ..sample_run() }));
    let (name, value) = (Bytes::from_static(b"LANG"), Bytes::from_static(b"C"));
    let twice = vec![variable(name.clone(), value.clone()); 2];
    check_order(&with(twice), "run.env has a name twice");
    let split = vec![variable(Bytes::from_static(b"A=B"), value.clone())];
    check_order(&with(split), "variable.name has a = in it");
    let long = vec![variable(name, vec![b'x'; 131_072].into())];
    check_order(&with(long), "run.env has 131076 bytes; the limit is 131072");
}

#[test]
fn limits_of_what_a_run_is_given() {
    let check = |change: fn(&mut Run), expected: &str| {
        let mut run = sample_run();
        change(&mut run);
        check_order(&sample(Work::Run(run)), expected);
    };
    let part = Part { id: Digest([4; 32]), bytes: 32 << 20 };
    fn file(name: &str, parts: Vec<Part>) -> File {
        File { name: name.to_owned(), parts }
    }
    check(
        |r| r.stdin = vec![Part { id: Digest([4; 32]), bytes: 32 << 20 }; 3],
        "run.stdin is 100663296 and must be from 0 to 67108864",
    );
    check(|r| r.umask = Some(0o1000), "run.umask is 512 and must be from 0 to 511");
    check(|r| r.files = vec![file("", Vec::new())], "file.name is missing or empty");
    check(|r| r.files = vec![file("a/b", Vec::new())], "file.name is a path");
    check(|r| r.files = vec![file("..", Vec::new())], "file.name is a path");
    check(|r| r.files = vec![file("a", Vec::new()); 2], "run.files has a name twice");
    check(
        |r| r.files = (0..17).map(|n| file(&n.to_string(), Vec::new())).collect(),
        "run.files has 17 elements; the limit is 16",
    );
    let many = Run { files: vec![file("a", vec![part; 9])], ..sample_run() };
    let expected = "run.files is 301989888 and must be from 0 to 268435456";
    check_order(&sample(Work::Run(many)), expected);
}

#[test]
fn limits_of_a_gate() {
    let check = |change: fn(&mut Gate), expected: &str| {
        let mut gate = sample_gate();
        change(&mut gate);
        check_order(&OrderBody { gate: Some(gate), ..sample(Work::Run(sample_run())) }, expected);
    };
    check(|g| g.window = 0, "gate.window is 0 and must be from 1 to 4294967296");
    let none = |g: &mut Gate| g.per_lot = mesh::Share::Hosts(0);
    check(none, "gate.per_lot is 0 and must be from 1 to 4294967296");
    let more = |g: &mut Gate| g.per_child = Some(mesh::Share::Percent(101));
    check(more, "gate.per_child_percent is 101 and must be from 1 to 100");
    check(
        |g| g.batch = Some(mesh::Batch { size: 0, wait: Duration::ZERO }),
        "gate.batch is 0 and must be from 1 to 4294967296",
    );
    check(|g| g.begin = Duration::ZERO, "gate.begin_ms is 0 and must be from 1 to 31622400000");
    check(
        |g| g.lots = vec![HostSet::one(HostId(1)); 4097],
        "gate.lots has 4097 elements; the limit is 4096",
    );
    let push = sample(Work::Push(sample_push()));
    check_order(&OrderBody { gate: Some(sample_gate()), ..push }, "order.gate is of a run only");
}

#[test]
fn limits_of_a_push() {
    let check = |change: fn(&mut Push), expected: &str| {
        let mut push = sample_push();
        change(&mut push);
        check_order(&sample(Work::Push(push)), expected);
    };
    check(|p| p.dest = Bytes::new(), "push.dest is not an absolute path");
    check(|p| p.terms.exclude = vec![String::new()], "terms.exclude is missing or empty");
    check(
        |p| p.terms.exclude = vec!["x".into(); 257],
        "terms.exclude has 257 elements; the limit is 256",
    );
    check(|p| p.terms.max_delete = MaxDelete::Entries(1), "terms.delete is missing");
    check(|p| p.terms.save = Bytes::from_static(b"a/b"), "terms.save has a slash");
    check(|p| p.terms.before = "\0".into(), "terms.command has a NUL byte");
    check(|p| p.terms.special = vec![Special::default()], "special.pattern is missing or empty");
    check(
        |p| (p.terms.tree, p.terms.delete) = (true, Delete::All),
        "terms.delete has no meaning for a tree that is exchanged as a whole",
    );
    check(
        |p| {
            p.terms.delete = Delete::All;
            p.terms.max_delete = MaxDelete::Percent(101);
        },
        "terms.max_percent is 101 and must be from 0 to 100",
    );
    check(|p| p.dest = Bytes::from_static(b"etc"), "push.dest is not an absolute path");
    check(|p| p.dest = Bytes::from_static(b"/a/../b"), "push.dest has . or .. in its path");
    check(|p| p.dest = Bytes::from_static(b"/a\0"), "push.dest has a NUL byte");
    check(
        |p| p.dest = [&b"/"[..], &[b'x'; 4096]].concat().into(),
        "push.dest has 4097 bytes; the limit is 4096",
    );
    check(|p| p.inline = vec![Bytes::new()], "push.inline is missing or empty");
    let bundle = |hosts, segments: usize| Bundle {
        base: None,
        hosts,
        manifest: sample_push().full_manifest,
        segments: vec![sample_push().full_manifest; segments / 2],
        deltas: vec![sample_push().full_manifest; segments.div_ceil(2)],
    };
    let with = |bundles| sample(Work::Push(Push { bundles, ..sample_push() }));
    let one = HostSet::one(HostId(1));
    check_order(&with(vec![bundle(HostSet::new(), 0)]), "bundle.hosts is missing or empty");
    check_order(
        &with(vec![bundle(one.clone(), 4096), bundle(one.clone(), 1)]),
        "bundle.segments has 4097 elements; the limit is 4096",
    );
    check_order(
        &with(vec![bundle(one, 0); 1025]),
        "push.bundles has 1025 elements; the limit is 1024",
    );
}

#[test]
fn the_longest_order_fits_a_frame() {
    let with = |bytes| {
        let inline = vec![Bytes::from(vec![7; bytes])];
        sample(Work::Push(Push { inline, ..sample_push() }))
    };
    let room = ORDER_LIMIT - with(ORDER_LIMIT / 2).encode().len() + ORDER_LIMIT / 2;
    let body = with(room).encode();
    assert_eq!(body.len(), ORDER_LIMIT);
    assert!(OrderBody::decode(&body).is_ok());
    let (limit, found) = (ORDER_LIMIT, ORDER_LIMIT + 1);
    check_order(&with(room + 1), &format!("the order has {found} bytes; the limit is {limit}"));

    let envelope = Envelope {
        kind: "k".repeat(KIND_LIMIT),
        body: body.into(),
        signature: [1; 64],
        key: vec![2; KEY_LIMIT].into(),
    };
    let bytes = envelope.encode();
    assert_eq!(Envelope::decode(bytes.clone()), Ok(envelope));
    let order = with(0).to_mesh(Bytes::from(vec![1; ENVELOPE_LIMIT]), Duration::ZERO);
    let frame = mesh::Frame::Order { log: u64::MAX, seq: u64::MAX, order: order.into() };
    assert!(bytes.len() <= ENVELOPE_LIMIT && encode_frame(&frame).len() <= FRAME_LIMIT);
}

#[test]
fn what_the_types_cannot_say_is_refused() {
    let good = sample(Work::Push(sample_push())).to_pb();
    let check = |change: fn(&mut pb::OrderBody), expected: &str| {
        let mut order = good.clone();
        change(&mut order);
        let error = OrderBody::decode(&order.encode_to_vec()).expect_err("it is refused");
        assert_eq!(error.to_string(), expected);
    };
    check(|o| o.mesh.truncate(15), "order.mesh has 15 bytes and must have 16");
    check(|o| o.id = Bytes::new(), "order.id has 0 bytes and must have 16");
    check(|o| o.targets.truncate(1), "order.targets ends in the middle of a range");
    check(|o| o.work = None, "the order is for a kind of work that this version does not know");
    let check_push = |change: fn(&mut pb::Push), expected: &str| {
        let mut push = sample_push().to_pb();
        change(&mut push);
        let work = Some(pb::order_body::Work::Push(push));
        let bytes = pb::OrderBody { work, ..good.clone() }.encode_to_vec();
        assert_eq!(OrderBody::decode(&bytes).expect_err("it is refused").to_string(), expected);
    };
    check_push(|p| p.full_manifest = None, "push.full_manifest is missing or empty");
    check_push(|p| p.manifest.truncate(31), "push.manifest has 31 bytes and must have 32");
}

#[test]
fn limits_of_an_envelope() {
    let good = Envelope {
        kind: ORDER_KIND.to_owned(),
        body: Bytes::from_static(b"body"),
        signature: [1; 64],
        key: Bytes::from_static(b"key"),
    };
    assert!(Envelope::decode(good.encode()).is_ok());
    let check = |change: fn(&mut Envelope), expected: &str| {
        let mut envelope = good.clone();
        change(&mut envelope);
        let error = Envelope::decode(envelope.encode()).expect_err("it is refused");
        assert_eq!(error.to_string(), expected);
    };
    check(|e| e.kind.clear(), "envelope.kind is missing or empty");
    check(|e| e.kind = "k".repeat(65), "envelope.kind has 65 bytes; the limit is 64");
    check(|e| e.body = Bytes::new(), "envelope.body is missing or empty");
    check(|e| e.key = vec![0; 65].into(), "envelope.key has 65 bytes; the limit is 64");
    check(
        |e| e.body = vec![0; ENVELOPE_LIMIT].into(),
        "the envelope has 1048603 bytes; the limit is 1048512",
    );
}
