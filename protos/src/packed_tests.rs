//! What is packed comes as it was, and what nobody packed comes to nothing.

use mesh::{HostId, OrderId, State, Tally};
use proptest::prelude::*;

use super::*;
use crate::wire::tests::{hash as weak, report};
use crate::{Answer, Incoming, decode_frame};

/// A hash that tells texts apart that are alike.
fn hash(body: &[u8]) -> Digest {
    let mut hasher = std::hash::DefaultHasher::new();
    std::hash::Hasher::write(&mut hasher, body);
    let mut digest = [0xd2; 32];
    digest[..8].copy_from_slice(&std::hash::Hasher::finish(&hasher).to_be_bytes());
    Digest(digest)
}

/// What a peer makes of the frame of a packed report.
fn unpacked(unpacker: &mut Unpacker, frame: Bytes) -> Result<Frame, FrameError> {
    named(unpacker, frame, hash)
}

fn named(
    unpacker: &mut Unpacker,
    frame: Bytes,
    hash: fn(&[u8]) -> Digest,
) -> Result<Frame, FrameError> {
    match decode_frame(frame, hash)? {
        Incoming::Packed(packed) => unpacker.unpack(packed, hash),
        other => panic!("{other:?}"),
    }
}

/// A report of hosts that have each answered for themselves.
fn answers(bodies: impl IntoIterator<Item = (u32, Bytes)>) -> Report {
    let mut report = Report::new(OrderId([7; 16]));
    let lines: Vec<_> = bodies
        .into_iter()
        .map(|(host, body)| {
            let digest = hash(&body);
            report.bodies.insert(digest, body);
            let outcome = Outcome { state: State::Ok, body: Some(digest) };
            (outcome, HostSet::one(HostId(host)))
        })
        .collect();
    report.tally = lines.into_iter().collect::<Tally>();
    report
}

/// What a host says that prints its name and the time in each of a hundred lines, 10 KB in all.
fn near_equal(host: u32) -> Bytes {
    let time = format!("12:{:02}:{:02}", host % 7, host * 7919 % 60);
    let line = |n: u32| {
        format!(
            "Nov 26 {time} node{host:05} service-{n}[{}]: the same message everywhere, which is \
             long enough\n",
            400 + n
        )
    };
    let stdout: Bytes = (0..100).map(line).collect::<String>().into();
    Answer { stdout_size: stdout.len() as u64, stdout, ..Answer::default() }.encode()
}

proptest! {
    #[test]
    fn every_report_comes_as_it_was(reports in proptest::collection::vec(report(), 1..5)) {
        let (mut packer, mut unpacker) = (Packer::default(), Unpacker::default());
        for (seq, mut report) in reports.into_iter().enumerate() {
            // Large enough to be packed.
            let (outcome, body) = (State::Failed(77), Bytes::from(vec![b'7'; WORTH]));
            let digest = weak(&body);
            report.bodies.insert(digest, body);
            let mut hosts = (0..).map(HostId);
            let free = hosts.find(|host| !report.tally.hosts().contains(*host));
            let free = HostSet::one(free.expect("one is left"));
            report.tally.record(Outcome { state: outcome, body: Some(digest) }, &free);
            let frame = packer.pack(3, seq as u64, &report).expect("it is worth it");
            let back = named(&mut unpacker, frame, weak).expect("it was encoded so");
            prop_assert_eq!(back, Frame::Report { log: 3, seq: seq as u64, report });
        }
    }

    #[test]
    fn answers_that_are_alike_come_as_they_were(
        lines in proptest::collection::vec(
            ("[a-z0-9 .:]{0,30}", any::<u16>(), any::<bool>()),
            1..30,
        ),
    ) {
        let body = |(text, number, cut): (String, u16, bool)| {
            let stdout = Bytes::from(format!("{text} {number}\n").repeat(9));
            let stdout_size = stdout.len() as u64 + u64::from(cut);
            Answer { stdout, stdout_size, ..Answer::default() }.encode()
        };
        let report = answers(lines.into_iter().map(body).zip(1..).map(|(body, host)| (host, body)));
        let Some(frame) = Packer::default().pack(1, 2, &report) else { return Ok(()) };
        let back = unpacked(&mut Unpacker::default(), frame).expect("it was encoded so");
        prop_assert_eq!(back, Frame::Report { log: 1, seq: 2, report });
    }

    /// Whatever a peer writes into its stream is a report or an error, and never much memory.
    #[test]
    fn any_stream_is_a_report_or_an_error(
        text in proptest::collection::vec(any::<u8>(), 0..200),
        at in any::<proptest::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let group = (1..40).map(|host| (host, near_equal(host)));
        let report = answers(group);
        let (mut good, mut packer) = (Vec::new(), Packer::default());
        if let Some(frame) = packer.pack(1, 1, &report)
            && let Ok(Incoming::Packed(packed)) = decode_frame(frame, hash)
        {
            good = packed.0.data.to_vec();
        }
        let at = at.index(good.len());
        good[at] = byte;
        for data in [zstd::bulk::compress(&text, 1).expect("it is in memory"), good] {
            let packed = pb::Packed {
                log: 1,
                seq: 1,
                report: Some(encode_report(&Report::new(OrderId([7; 16])))),
                data: data.into(),
            };
            let _ = Unpacker::default().unpack(Packed(packed), hash);
        }
    }
}

#[test]
fn little_goes_as_it_is() {
    let report = answers([(1, Bytes::from_static(b"short"))]);
    assert_eq!(Packer::default().pack(1, 1, &report), None);
}

#[test]
fn outputs_that_differ_in_name_and_time_cost_one_body_and_little_more() {
    let (mut packer, mut unpacker) = (Packer::default(), Unpacker::default());
    let (mut sent, mut raw) = (0, 0);
    // As many hosts in a report as half a megabyte holds.
    for seq in 0..200 {
        let hosts = seq * 50 + 1..=seq * 50 + 50;
        let report = answers(hosts.map(|host| (host, near_equal(host))));
        raw += report.bodies.values().map(Bytes::len).sum::<usize>();
        let frame = packer.pack(1, seq.into(), &report).expect("it is worth it");
        sent += frame.len();
        let back = unpacked(&mut unpacker, frame).expect("it was encoded so");
        assert_eq!(back, Frame::Report { log: 1, seq: seq.into(), report });
    }
    let body = near_equal(1).len();
    println!("10,000 outputs of {body} bytes, {raw} in all: {sent} bytes on the link");
    assert!(sent < body + (128 << 10), "{sent}");
}

#[test]
fn a_few_bytes_never_stand_for_many() {
    let refused = |text: &[u8], what: &str| {
        let mut encoder =
            zstd::stream::write::Encoder::new(Vec::new(), 3).expect("the level is one of them");
        encoder.window_log(WINDOW_LOG).expect("it is allowed");
        encoder.write_all(text).and_then(|()| encoder.flush()).expect("it is in memory");
        let packed = pb::Packed {
            log: 1,
            seq: 1,
            report: Some(encode_report(&Report::new(OrderId([7; 16])))),
            data: std::mem::take(encoder.get_mut()).into(),
        };
        let error = Unpacker::default()
            .unpack(Packed(packed), hash)
            .expect_err("it is refused")
            .to_string();
        assert!(error.contains(what), "{error}");
    };
    refused(&vec![0; UNPACKED + 1], "too long");
    // One text of a mebibyte without a gap, for ten hosts.
    let mut text = vec![1, 0, 0, 1];
    put_bytes(&mut text, &vec![b'x'; 1 << 20]);
    text.extend([1, 0, 10]);
    (0..10).for_each(|_| text.extend([1, 0, 2, 2, 0]));
    refused(&text, "packed.room");
    // The same in what answers have in common beside their texts.
    let fault = pb::Fault { detail: "x".repeat(1 << 20), ..pb::Fault::default() };
    let rest = pb::Answer { fault: Some(fault), ..pb::Answer::default() };
    let mut text = vec![1, 1];
    put_bytes(&mut text, &rest.encode_to_vec());
    text.extend([1, 0, 1, 0, 10]);
    (0..10).for_each(|_| text.extend([1, 0, 2, 2, 0]));
    refused(&text, "packed.room");
    refused(&[1, 0, 0, 255, 255, 255, 3], "packed.count");
    refused(&[0, 1], "goes on after its end");
}
