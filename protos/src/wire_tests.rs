//! Frames go round, and what is no frame is refused with a reason.

use std::sync::Arc;

use mesh::bus::{Answer, Interest, Message, PATTERNS, Pattern, Subject};
use mesh::{Class, Fact, Folded, MOST, Order, Profile, Profiled, Sample, Severity};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::testing::{
    bytes, digest, edgy, hosts as host_set, mangle, number, some_bytes, some_hosts,
};

/// Not a good hash, but one that tells bodies apart and differs from all digests drawn at random.
pub(crate) fn hash(body: &[u8]) -> Digest {
    let mut digest = [0xd1u8; 32];
    for (at, byte) in body.iter().enumerate() {
        let slot = &mut digest[at % 31];
        *slot = slot.rotate_left(3) ^ byte;
    }
    digest[31] = body.len() as u8;
    Digest(digest)
}

fn state() -> impl Strategy<Value = State> {
    let bare = [
        State::Ok,
        State::TimedOut,
        State::Interrupted,
        State::Cancelled,
        State::Refused,
        State::Skipped,
        State::Expired,
        State::RelayLost,
        State::NotReached,
    ];
    prop_oneof![
        2 => proptest::sample::select(bare.to_vec()),
        1 => any::<i32>().prop_filter("a failure", |&code| code != 0).prop_map(State::Failed),
        1 => (1..=127).prop_map(State::Signalled),
    ]
}

/// A line's outcome, and whether and how its body is in the report.
fn line() -> impl Strategy<Value = (Outcome, HostSet, Option<Bytes>)> {
    let body = prop_oneof![
        Just((None, None)),
        digest().prop_map(|digest| (Some(digest), None)),
        bytes(30).prop_map(|body| (Some(hash(&body)), Some(body))),
    ];
    (state(), body, host_set())
        .prop_map(|(state, (body, sent), hosts)| (Outcome { state, body }, hosts, sent))
}

pub(crate) fn report() -> impl Strategy<Value = Report> {
    (any::<[u8; 16]>(), vec(line(), 0..6), number()).prop_map(|(order, lines, cut)| {
        let mut report = Report { cut, ..Report::new(OrderId(order)) };
        let mut sent = BTreeMap::new();
        for (outcome, hosts, body) in lines {
            report.tally.record(outcome, &hosts);
            sent.extend(body.map(|body| (hash(&body), body)));
        }
        let known = report.tally.lines().filter_map(|(outcome, _)| outcome.body);
        report.bodies = known.filter_map(|digest| Some((digest, sent.remove(&digest)?))).collect();
        report
    })
}

fn order() -> impl Strategy<Value = Arc<Order>> {
    some_bytes(60).prop_map(|body| {
        Arc::new(Order {
            id: OrderId([7; 16]),
            targets: HostSet::one(HostId(1)),
            needs: Vec::new(),
            reach: Duration::ZERO,
            hold: Duration::ZERO,
            ttl: Duration::from_secs(1),
            again: false,
            cancels: None,
            lapses: false,
            supersedes: Vec::new(),
            gate: None,
            body,
        })
    })
}

fn beat() -> impl Strategy<Value = (u64, u64, u64, bool)> {
    (number(), 1u64..=3_600_000, 1u64..=3_600_000, any::<bool>())
}

fn frame() -> impl Strategy<Value = Frame> {
    let pair = || (number(), number());
    prop_oneof![
        (pair(), number(), any::<(bool, bool)>()).prop_map(
            |((log, held_log), held, (events, profiles))| {
                Frame::Hello { log, held_log, held, events, profiles }
            }
        ),
        (number(), vec(profiled(), 0..4)).prop_map(|(no, lines)| Frame::Profiles { no, lines }),
        (number(), edgy()).prop_map(|(no, held)| Frame::ProfilesHeld { no, held: held as usize }),
        (number(), proptest::collection::vec(folded(), 0..4))
            .prop_map(|(no, events)| Frame::Events { no, events }),
        (number(), edgy()).prop_map(|(no, held)| Frame::EventsHeld { no, held: held as usize }),
        beat().prop_map(|(root, own, of_root, speaks)| {
            let ms = Duration::from_millis;
            Frame::Beat { root, interval: ms(own), root_interval: ms(of_root), speaks }
        }),
        (host_set(), host_set(), (host_set(), host_set()), branches()).prop_map(
            |(below, up, (degraded, silent), branches)| {
                Frame::Below(Subtree { below, up, degraded, silent, branches })
            }
        ),
        (pair(), order()).prop_map(|((log, seq), order)| Frame::Order { log, seq, order }),
        pair().prop_map(|(log, through)| Frame::OrdersHeld { log, through }),
        (pair(), report()).prop_map(|((log, seq), report)| Frame::Report { log, seq, report }),
        pair().prop_map(|(log, through)| Frame::ReportsHeld { log, through }),
        watch().prop_map(|orders| Frame::Watch { orders }),
        said().prop_map(Frame::Said),
        vec("[a-c]{1,2}(\\.[a-c]){0,3}", 0..4).prop_map(|texts| {
            let patterns = texts.iter().map(|text| Pattern::new(text).expect("it is a pattern"));
            Frame::Interest(Interest::of(patterns, PATTERNS))
        }),
        (pair(), any::<(u32, u32)>(), "[a-z]{0,9}", some_bytes(60)).prop_map(
            |((request, _), (to, from), node, body)| {
                let (to, from) = (HostId(to), HostId(from));
                Frame::Answer(Answer { to, request, from, node, body })
            }
        ),
        (pair(), any::<(u32, bool)>(), "[a-z]{0,9}", some_bytes(60)).prop_map(
            |((id, request), (from, asks), node, body)| {
                let subject = Subject::new("app.web-1").expect("it is a subject");
                let request = asks.then_some(request);
                Frame::Message(Message { id, from: HostId(from), node, subject, request, body })
            }
        ),
        (any::<[u8; 16]>(), some_hosts(), 0u64..=31_622_400_000).prop_map(|(order, hosts, ms)| {
            Frame::Go { order: OrderId(order), hosts, left: Duration::from_millis(ms) }
        }),
        (any::<[u8; 16]>(), any::<u32>(), some_hosts()).prop_map(|(order, relay, hosts)| {
            Frame::Seek { order: OrderId(order).given_by(HostId(relay)), hosts }
        }),
        report().prop_map(|report| Frame::Found { report }),
    ]
}

fn profiled() -> impl Strategy<Value = Profiled> {
    let few = (edgy(), 0u32..9)
        .prop_map(|(first, more)| HostSet::from_ranges([(first, first.saturating_add(more))]));
    (number(), bytes(3), few)
        .prop_map(|(revision, text, hosts)| Profiled { profile: Profile { revision, text }, hosts })
}

fn folded() -> impl Strategy<Value = Folded> {
    let severity =
        proptest::sample::select(vec![Severity::Info, Severity::Warning, Severity::Error]);
    let class = proptest::sample::select(vec![
        Class::Down,
        Class::Space,
        Class::Command,
        Class::Client,
        Class::Relay,
        Class::Controller,
    ]);
    let counts = proptest::collection::btree_map(edgy().prop_map(HostId), 1u64..=MOST, 1..=6);
    let order = proptest::option::of(any::<[u8; 16]>().prop_map(OrderId));
    let words = ("[a-z]{1,9}(\\.[a-z0-9-]{1,9}){0,2}", "[^\\p{C}]{0,40}", "[a-z\n\t]{0,20}");
    let times = (number(), number(), number(), edgy());
    (words, (severity, class), times, counts, (edgy(), order)).prop_map(
        |(
            (subject, line, text),
            (severity, class),
            (a, b, at_ms, window),
            counts,
            (host, order),
        )| {
            let sample = Sample { at_ms, host: HostId(host), line: line.clone(), text, order };
            Folded {
                window,
                fact: Fact::new(&subject, severity, class, &line, hash).into(),
                sample: sample.into(),
                first_ms: a.min(b),
                last_ms: a.max(b),
                counts,
            }
        },
    )
}

fn branches() -> impl Strategy<Value = BTreeMap<HostId, HostSet>> {
    proptest::collection::btree_map(edgy().prop_map(HostId), host_set(), 0..=4)
}

fn watch() -> impl Strategy<Value = BTreeMap<OrderId, u64>> {
    let order = any::<[u8; 16]>().prop_map(OrderId);
    proptest::collection::btree_map(order, number(), 0..=8)
}

fn said() -> impl Strategy<Value = Said> {
    let stream = proptest::sample::select(vec![Stream::Stdout, Stream::Stderr]);
    (any::<[u8; 16]>(), edgy(), stream, number(), some_bytes(40)).prop_map(
        |(order, host, stream, offset, bytes)| Said {
            order: OrderId(order),
            host: HostId(host),
            stream,
            offset: offset.min(u64::MAX - bytes.len() as u64),
            bytes,
        },
    )
}

proptest! {
    #[test]
    fn round_trip(frame in frame()) {
        let arrived = decode_frame(encode_frame(&frame), hash).expect("it was encoded so");
        let expected = match frame {
            Frame::Order { log, seq, order } => {
                Incoming::Order { log, seq, envelope: order.body.clone() }
            }
            frame @ Frame::Hello { .. } => Incoming::Hello {
                frame,
                unpacks: true,
                tails: true,
                epoch: None,
                seeks: true,
                counts: true,
                past: Vec::new(),
            },
            frame @ Frame::Beat { .. } => Incoming::Beat { frame, beside: Beside::default() },
            frame => Incoming::Frame(frame),
        };
        prop_assert_eq!(arrived, expected);
    }

    #[test]
    fn mangled_bytes_are_a_frame_or_an_error(bytes in mangle(frame(), encode_frame)) {
        match decode_frame(bytes, hash) {
            Ok(Incoming::Frame(frame)) => {
                if let Frame::Report { report, .. } = &frame {
                    prop_assert!(report.bodies.iter().all(|(name, body)| *name == hash(body)));
                }
                let again = decode_frame(encode_frame(&frame), hash).expect("it was encoded so");
                prop_assert_eq!(again, Incoming::Frame(frame));
            }
            Ok(Incoming::Beat { frame, beside }) => {
                let bytes = encode_beat(&frame, beside);
                let again = decode_frame(bytes, hash).expect("it was encoded so");
                prop_assert_eq!(again, Incoming::Beat { frame, beside });
            }
            Ok(Incoming::Order { envelope, .. }) => prop_assert!(!envelope.is_empty()),
            Ok(Incoming::Removals(list)) => prop_assert!(!list.body.is_empty()),
            Ok(Incoming::Hello { frame, epoch, past, .. }) => {
                let is_hello = matches!(frame, Frame::Hello { .. });
                prop_assert!(is_hello);
                let bytes = encode_hello(&frame, epoch.unwrap_or_default(), &past);
                let said = match decode_frame(bytes, hash) {
                    Ok(Incoming::Hello { epoch, past, .. }) => Some((epoch, past)),
                    _ => None,
                };
                prop_assert_eq!(said, Some((Some(epoch.unwrap_or_default()), past)));
            }
            // What is in it is for the link's own state to say.
            Ok(Incoming::Heard | Incoming::Packed(_)) => {}
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    #[test]
    fn any_interval_can_be_sent(interval in any::<Duration>()) {
        let frame = Frame::Beat { root: 1, interval, root_interval: interval / 2, speaks: false };
        prop_assert!(decode_frame(encode_frame(&frame), hash).is_ok());
    }

    #[test]
    fn hosts_are_in_one_line(a in edgy(), b in edgy()) {
        let lines = vec![line_of(pb::State::Ok, a), line_of(pb::State::Skipped, b)];
        prop_assert_eq!(send_report(lines, Vec::new()).is_ok(), a != b);
    }
}

fn line_of(state: pb::State, host: u32) -> pb::Line {
    let hosts = hosts::encode(&HostSet::one(HostId(host)));
    pb::Line { state: state.into(), code: 0, body: None, hosts }
}

fn send(kind: Kind) -> Result<Incoming, FrameError> {
    decode_frame(pb::Frame { kind: Some(kind) }.encode_to_vec().into(), hash)
}

fn send_report(lines: Vec<pb::Line>, bodies: Vec<Bytes>) -> Result<Incoming, FrameError> {
    let report = pb::Report { order: Bytes::from_static(&[1; 16]), lines, bodies, cut: 0 };
    send(Kind::Report(pb::ReportEntry { log: 1, seq: 1, report: Some(report) }))
}

fn check(result: Result<Incoming, FrameError>, expected: &str) {
    assert_eq!(result.expect_err("it is refused").to_string(), expected);
}

#[test]
fn frames_have_a_limit_and_a_kind() {
    let long = Bytes::from(vec![0; FRAME_LIMIT + 1]);
    check(decode_frame(long, hash), "the frame has 1048577 bytes; the limit is 1048576");
    let unknown = "the frame is of a kind that this version does not know";
    check(decode_frame(Bytes::new(), hash), unknown);
    check(decode_frame(Bytes::from_static(b"\xa2\x06\x01x"), hash), unknown);
}

#[test]
fn another_version_is_told_apart() {
    let hello = |major, minor| {
        send(Kind::Hello(pb::Hello { major, minor, log: 1, ..pb::Hello::default() }))
    };
    assert!(hello(1, 0).is_ok() && hello(1, 1).is_ok());
    check(
        hello(1, 2),
        "the peer speaks protocol 1.2 and this side 1.0, which may differ by one minor version: \
         upgrade this side",
    );
    check(
        hello(0, 9),
        "the peer speaks protocol 0.9 and this side 1.0, which may differ by one minor version: \
         upgrade the peer",
    );
    check(hello(65_537, 0), "hello has a version number over 65535");
}

#[test]
fn fields_have_limits() {
    check(
        send(Kind::Beat(pb::Beat { root: 1, root_interval_ms: 5, ..pb::Beat::default() })),
        "beat.interval_ms is 0 and must be from 1 to 3600000",
    );
    check(
        send(Kind::Beat(pb::Beat {
            root: 1,
            interval_ms: 1,
            root_interval_ms: 3_600_001,
            speaks: true,
            ..pb::Beat::default()
        })),
        "beat.root_interval_ms is 3600001 and must be from 1 to 3600000",
    );
    check(
        send(Kind::Beat(pb::Beat { interval_ms: 1, cap: 7_999, ..pb::Beat::default() })),
        "beat.cap is less than 8000 bits a second",
    );
    check(
        send(Kind::Below(pb::Below { below: vec![1], ..pb::Below::default() })),
        "below.below ends in the middle of a range",
    );
    check(
        send(Kind::Order(pb::OrderEntry { log: 1, seq: 1, envelope: Bytes::new() })),
        "order.envelope is missing or empty",
    );
    check(
        send(Kind::Report(pb::ReportEntry { log: 1, seq: 1, report: None })),
        "report.report is missing or empty",
    );
}

#[test]
fn lines_are_valid() {
    let ok = line_of(pb::State::Ok, 5);
    let one = |line| send_report(vec![line], Vec::new());
    assert!(one(ok.clone()).is_ok());
    let unknown = "which this version does not know";
    for state in [0, 12] {
        let expected = format!("line.state has the value {state}, {unknown}");
        check(one(pb::Line { state, ..ok.clone() }), &expected);
    }
    let coded = |state: pb::State, code| one(pb::Line { state: state.into(), code, ..ok.clone() });
    check(coded(pb::State::Ok, 1), "line.code is given for a state that has none");
    check(coded(pb::State::Failed, 0), "line.code is 0, which is no failure");
    check(coded(pb::State::Signalled, 128), "line.code is not a signal");
    check(one(pb::Line { hosts: Vec::new(), ..ok.clone() }), "line.hosts is missing or empty");
    check(
        one(pb::Line { body: Some(Bytes::from_static(b"short")), ..ok.clone() }),
        "line.body has 5 bytes and must have 32",
    );
    check(
        send_report(vec![ok.clone(), line_of(pb::State::Ok, 8)], Vec::new()),
        "report.lines have an outcome twice",
    );
    check(
        send_report(vec![ok.clone(); LINES + 1], Vec::new()),
        "report.lines has 10241 elements; the limit is 10240",
    );
}

#[test]
fn a_body_has_no_name_but_its_hash() {
    let body = Bytes::from_static(b"output");
    let mut line = line_of(pb::State::Ok, 5);
    line.body = Some(Bytes::copy_from_slice(&hash(&body).0));
    let send = |bodies| send_report(vec![line.clone()], bodies);
    let Ok(Incoming::Frame(Frame::Report { report, .. })) = send(vec![body.clone()]) else {
        panic!("the report was refused");
    };
    assert_eq!(report.bodies, BTreeMap::from([(hash(&body), body.clone())]));
    assert!(send(Vec::new()).is_ok());
    check(send(vec![Bytes::from_static(b"other")]), "report.bodies has one that no line refers to");
    check(send(vec![body.clone(), body.clone()]), "report.bodies has one twice");
}

#[test]
fn what_can_be_watched_is_bounded() {
    let order = |n: u8| pb::Watched { order: Bytes::from(vec![n; 16]), generation: 1 };
    let watch = |orders| send(Kind::Watch(pb::Watch { orders }));
    assert!(watch((0..64).map(order).collect()).is_ok());
    check(watch((0..65).map(order).collect()), "watch.orders has 65 elements; the limit is 64");
    check(watch(vec![order(1), order(1)]), "watch.orders has one twice");
    let short = pb::Watched { order: Bytes::from_static(b"short"), generation: 1 };
    check(watch(vec![short]), "watched.order has 5 bytes and must have 16");
}

#[test]
fn previews_are_valid() {
    let said = pb::Said {
        order: Bytes::from_static(&[1; 16]),
        host: 7,
        stream: pb::Stream::Stderr.into(),
        offset: 5,
        bytes: Bytes::from(vec![b'x'; SAID_BYTES]),
    };
    let one = |said| send(Kind::Said(said));
    assert!(one(said.clone()).is_ok());
    let long = Bytes::from(vec![b'x'; SAID_BYTES + 1]);
    check(
        one(pb::Said { bytes: long, ..said.clone() }),
        "said.bytes has 16385 bytes; the limit is 16384",
    );
    check(one(pb::Said { bytes: Bytes::new(), ..said.clone() }), "said.bytes is missing or empty");
    for stream in [0, 3] {
        let unknown = "which this version does not know";
        let expected = format!("said.stream has the value {stream}, {unknown}");
        check(one(pb::Said { stream, ..said.clone() }), &expected);
    }
    let last = u64::MAX - SAID_BYTES as u64;
    assert!(one(pb::Said { offset: last, ..said.clone() }).is_ok());
    check(
        one(pb::Said { offset: last + 1, ..said.clone() }),
        &format!("said.offset is {} and must be from 0 to {last}", last + 1),
    );
    check(one(pb::Said { order: Bytes::new(), ..said }), "said.order has 0 bytes and must have 16");
}

#[test]
fn the_longest_report_of_a_node_fits() {
    // What `mesh` counts for lines without bodies until its default limit of 512 KiB is reached.
    let lines = 0..512 * 1024 / 58;
    let mut report = Report::new(OrderId([1; 16]));
    report.tally = lines
        .map(|n| {
            let body = Some(hash(&u32::to_be_bytes(n)));
            (Outcome { state: State::Failed(n as i32 + 1), body }, HostSet::one(HostId(n * 1000)))
        })
        .collect();
    let frame = Frame::Report { log: 1, seq: 1, report };
    let bytes = encode_frame(&frame);
    assert!(bytes.len() < FRAME_LIMIT);
    assert_eq!(decode_frame(bytes, hash), Ok(Incoming::Frame(frame)));
}

#[test]
fn as_many_lines_and_ranges_as_the_limits_allow_are_a_report() {
    // Interleaved, so that comparing lines with each other would take many millions of steps.
    let line = |n: u32| {
        let hosts = (0..6).map(|k| HostId((n + k * LINES as u32) * 2)).collect();
        pb::Line {
            hosts: hosts::encode(&hosts),
            code: n as i32 + 1,
            ..line_of(pb::State::Failed, n)
        }
    };
    let Incoming::Frame(Frame::Report { report, .. }) =
        send_report((0..LINES as u32).map(line).collect(), Vec::new()).expect("it has no limit")
    else {
        panic!("it is a report");
    };
    assert_eq!(report.tally.lines().count(), LINES);
    assert_eq!(report.tally.hosts().len(), 6 * LINES as u64);
}

#[test]
fn a_word_of_thanks_is_small() {
    assert_eq!(encode_heard().len(), 2);
    assert_eq!(decode_frame(encode_heard(), hash), Ok(Incoming::Heard));
}

#[test]
fn a_beat_is_small() {
    let interval = Duration::from_secs(5);
    let beat = |speaks| Frame::Beat { root: 100_000, interval, root_interval: interval, speaks };
    assert!(encode_frame(&beat(false)).len() <= 10);
    assert!(encode_frame(&beat(true)).len() <= 13);
    let (frame, clock_s) = (beat(false), 1_800_000_000);
    let beside = Beside { clock_s, ..Beside::default() };
    let bytes = encode_beat(&frame, beside);
    assert!(bytes.len() <= 17);
    assert_eq!(decode_frame(bytes, hash), Ok(Incoming::Beat { frame, beside }));
}

#[test]
fn a_beat_says_what_content_may_come() {
    let interval = Duration::from_secs(5);
    let frame = Frame::Beat { root: 3, interval, root_interval: interval, speaks: false };
    let allowance = Allowance { rate: 2_000_000, yields: true };
    let beside = Beside { allowance, ..Beside::default() };
    let bytes = encode_beat(&frame, beside);
    assert!(bytes.len() <= 20, "{}", bytes.len());
    assert_eq!(decode_frame(bytes, hash), Ok(Incoming::Beat { frame: frame.clone(), beside }));
    let beside = Beside { taken: 1_000_000, ..beside };
    let with = encode_beat(&frame, beside);
    assert!(with.len() <= 25, "{}", with.len());
    assert_eq!(decode_frame(with, hash), Ok(Incoming::Beat { frame, beside }));
}

#[test]
fn a_hello_says_what_has_come_by_links_that_are_over() {
    let (events, profiles) = (true, true);
    let frame = Frame::Hello { log: 1, held_log: 2, held: 3, events, profiles };
    let past = |n| (0..n).map(|n| Taken { link: u64::MAX - n, taken: n }).collect::<Vec<_>>();
    let arrives = |past: &[Taken]| decode_frame(encode_hello(&frame, 7, past), hash);
    match arrives(&past(PAST as u64)) {
        Ok(Incoming::Hello { past: heard, counts: true, .. }) => {
            assert_eq!(heard, past(PAST as u64));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(arrives(&past(PAST as u64 + 1)), Err(FrameError::Field(_))));
}
