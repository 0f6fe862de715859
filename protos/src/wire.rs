//! Control frames: bytes on one side, [`mesh::Frame`]s on the other.
//!
//! Two things are not simply read. An order comes out as its envelope, because only the caller can
//! say whether it is signed. The digest of a body does not travel at all: the receiver hashes the
//! body and names it by what it found, so no body can go under another's name.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use mesh::{
    BRANCHES, Digest, Folded, Frame, HostId, HostSet, OrderId, Outcome, Report, SAID_BYTES, Said,
    State, Stream, Subtree, Tally, WATCHED,
};
use prost::Message;

use crate::field::{array, at_most, at_most_bytes, ensure, given, millis, not_empty, own, within};
use crate::packed::Packed;
use crate::pb::frame::Kind;
use crate::removed::SignedRemovals;
use crate::steer::check_rate;
use crate::{FRAME_LIMIT, FieldError, LONGEST, Malformed, VERSION, VersionError, check_version};
use crate::{bus, fact, hosts, pb, profile, shape};

/// Lines of one report. A node cuts its reports by bytes long before this.
pub(crate) const LINES: usize = 10_240;
/// How often a peer may say that it beats.
const INTERVAL_MS: (u64, u64) = (1, 3_600_000);
/// Of how many links that are over a hello speaks at most.
pub const PAST: usize = 4;
/// The signals that a process can end by.
const SIGNALS: std::ops::RangeInclusive<i32> = 1..=127;

/// A frame as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A frame for the core; never [`Frame::Order`].
    Frame(Frame),
    /// An entry of the order log. Its signature has not been looked at.
    Order {
        /// The log.
        log: u64,
        /// Number in the log.
        seq: u64,
        /// The envelope, to be passed on unchanged.
        envelope: Bytes,
    },
    /// The first word of a peer, with what it can read.
    Hello {
        /// The frame.
        frame: Frame,
        /// Whether it can read packed reports.
        unpacks: bool,
        /// Whether it can read previews of what no answer keeps.
        tails: bool,
        /// The epoch of the list of removed keys that it has; none: it takes no list from a child.
        epoch: Option<u64>,
        /// Whether it takes questions about orders of relays.
        seeks: bool,
        /// Whether it says what of the bus it has taken.
        counts: bool,
        /// What of the bus it has taken on links with us that are over.
        past: Vec<Taken>,
    },
    /// A beat, with what its sender says besides.
    Beat {
        /// The frame.
        frame: Frame,
        /// What it says.
        beside: Beside,
    },
    /// A report for the link's [`Unpacker`](crate::Unpacker).
    Packed(Packed),
    /// The parent has taken a preview: there is room for one more. Of no concern to the core.
    Heard,
    /// Whose keys are no longer of the mesh. The signature has not been looked at.
    Removals(SignedRemovals),
}

/// What the sender of a beat says besides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beside {
    /// What a child says of the content that it is to get; a parent says nothing.
    pub allowance: Allowance,
    /// What time it is at the parent, in seconds since 1970; 0: it does not say.
    pub clock_s: u64,
    /// Messages and answers of the bus that the sender has taken on this link; 0: as it said last.
    pub taken: u64,
}

/// What of the bus has come by a link that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The name of the link, which both ends know.
    pub link: u64,
    /// Messages and answers.
    pub taken: u64,
}

/// What content a child's link may carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowance {
    /// Bits a second; 0: as much as it can.
    pub rate: u64,
    /// Whether content is to give way to other traffic.
    pub yields: bool,
}

/// Bytes that are not a frame we take. Nothing has changed; the peer is at fault, except for
/// [`FrameError::Version`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The frame is longer than any may be.
    #[error("the frame has {found} bytes; the limit is {FRAME_LIMIT}")]
    TooLong {
        /// How long it is.
        found: usize,
    },
    /// The frame is none of those that this version knows.
    #[error("the frame is of a kind that this version does not know")]
    Kind,
    /// The bytes are no frame.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A field holds what it must not.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// The peer speaks another version of the protocol.
    #[error(transparent)]
    Version(#[from] VersionError),
}

/// The bytes of a frame. The envelope of an order goes as it came, and a hello says our
/// [`VERSION`].
///
/// What is over a limit of the wire is encoded all the same and refused by the peer: a frame
/// longer than [`FRAME_LIMIT`], a host set of more than 65,536 ranges.
pub fn encode_frame(frame: &Frame) -> Bytes {
    encode_with(frame, Aside::default())
}

/// The same for a beat that says something besides.
pub fn encode_beat(frame: &Frame, beside: Beside) -> Bytes {
    encode_with(frame, Aside { beside, ..Aside::default() })
}

/// The same for a hello, which says of which epoch the sender's list of removed keys is, and what
/// of the bus has come by links with this peer that are over: [`PAST`] of them at most.
pub fn encode_hello(frame: &Frame, epoch: u64, past: &[Taken]) -> Bytes {
    encode_with(frame, Aside { epoch: Some(epoch), past, ..Aside::default() })
}

/// What the shell of a node says with a frame of the core.
#[derive(Clone, Copy, Default)]
struct Aside<'a> {
    beside: Beside,
    epoch: Option<u64>,
    past: &'a [Taken],
}

fn encode_with(frame: &Frame, aside: Aside<'_>) -> Bytes {
    let kind = match frame {
        &Frame::Hello { log, held_log, held, events, profiles } => Kind::Hello(pb::Hello {
            major: VERSION.0.into(),
            minor: VERSION.1.into(),
            log,
            held_log,
            held,
            unpacks: true,
            events,
            profiles,
            tails: true,
            epoch: aside.epoch,
            seeks: true,
            counts: true,
            past: aside.past.iter().map(encode_taken).collect(),
        }),
        &Frame::Beat { root, interval, root_interval, speaks } => {
            let (interval_ms, root_ms) = (interval_ms(interval), interval_ms(root_interval));
            let root_interval_ms = if root_ms == interval_ms { 0 } else { root_ms };
            let Beside { allowance, clock_s, taken: bus_taken } = aside.beside;
            let Allowance { rate: cap, yields } = allowance;
            Kind::Beat(pb::Beat {
                root,
                interval_ms,
                root_interval_ms,
                speaks,
                clock_s,
                cap,
                yields,
                bus_taken,
            })
        }
        Frame::Below(subtree) => Kind::Below(encode_below(subtree)),
        Frame::Order { log, seq, order } => {
            let envelope = order.body.clone();
            Kind::Order(pb::OrderEntry { log: *log, seq: *seq, envelope })
        }
        &Frame::OrdersHeld { log, through } => Kind::OrdersHeld(pb::OrdersHeld { log, through }),
        Frame::Report { log, seq, report } => {
            let report = Some(encode_report(report));
            Kind::Report(pb::ReportEntry { log: *log, seq: *seq, report })
        }
        &Frame::ReportsHeld { log, through } => Kind::ReportsHeld(pb::ReportsHeld { log, through }),
        Frame::Watch { orders } => Kind::Watch(encode_watch(orders)),
        Frame::Said(said) => Kind::Said(encode_said(said)),
        Frame::Seek { order, hosts } => Kind::Seek(pb::Seek {
            order: Bytes::copy_from_slice(&order.0),
            hosts: hosts::encode(hosts),
        }),
        Frame::Found { report } => Kind::Found(pb::Sought { report: Some(encode_report(report)) }),
        Frame::Go { order, hosts, left } => Kind::Go(encode_go(*order, hosts, *left)),
        Frame::Events { no, events } => Kind::Events(fact::encode(*no, events)),
        &Frame::EventsHeld { no, held } => {
            let held = u32::try_from(held).unwrap_or(u32::MAX);
            Kind::EventsHeld(pb::EventsHeld { no, held })
        }
        Frame::Interest(interest) => Kind::Interest(bus::encode_interest(interest)),
        Frame::Message(message) => Kind::Message(bus::encode_message(message)),
        Frame::Answer(answer) => Kind::Answer(bus::encode_answer(answer)),
        Frame::Profiles { no, lines } => Kind::Profiles(profile::encode(*no, lines)),
        &Frame::ProfilesHeld { no, held } => {
            let held = u32::try_from(held).unwrap_or(u32::MAX);
            Kind::ProfilesHeld(pb::ProfilesHeld { no, held })
        }
    };
    pb::Frame { kind: Some(kind) }.encode_to_vec().into()
}

fn encode_taken(&Taken { link, taken }: &Taken) -> pb::BusTaken {
    pb::BusTaken { link, taken }
}

fn interval_ms(interval: Duration) -> u32 {
    let ms = millis(interval).clamp(INTERVAL_MS.0, INTERVAL_MS.1);
    u32::try_from(ms).expect("an hour in ms fits")
}

/// The bytes of [`Incoming::Heard`].
pub fn encode_heard() -> Bytes {
    pb::Frame { kind: Some(Kind::Heard(pb::Heard {})) }.encode_to_vec().into()
}

/// The bytes of [`Incoming::Removals`].
pub fn encode_removals(removals: &SignedRemovals) -> Bytes {
    pb::Frame { kind: Some(Kind::Removals(removals.to_pb())) }.encode_to_vec().into()
}

/// The bytes of an event as journals keep it: a frame of its own.
pub fn encode_folded(folded: &Folded) -> Bytes {
    encode_frame(&Frame::Events { no: 0, events: vec![folded.clone()] })
}

/// Reads an event that [`encode_folded`] has made.
pub fn decode_folded(bytes: Bytes, hash: fn(&[u8]) -> Digest) -> Option<Folded> {
    match decode_frame(bytes, hash) {
        Ok(Incoming::Frame(Frame::Events { mut events, .. })) => events.pop(),
        _ => None,
    }
}

/// Reads a frame. `hash` names the bodies in it; it must be the one by which hosts name theirs.
pub fn decode_frame(bytes: Bytes, hash: fn(&[u8]) -> Digest) -> Result<Incoming, FrameError> {
    if bytes.len() > FRAME_LIMIT {
        return Err(FrameError::TooLong { found: bytes.len() });
    }
    let frame = shape::decode::<pb::Frame>(bytes)?;
    let frame = match frame.kind.ok_or(FrameError::Kind)? {
        Kind::Hello(hello) => {
            let frame = decode_hello(&hello)?;
            let pb::Hello { unpacks, tails, epoch, seeks, counts, past, .. } = hello;
            at_most("hello.past", past.len(), PAST)?;
            let past = past.into_iter().map(|pb::BusTaken { link, taken }| Taken { link, taken });
            let past = past.collect();
            return Ok(Incoming::Hello { frame, unpacks, tails, epoch, seeks, counts, past });
        }
        Kind::Packed(packed) => return Ok(Incoming::Packed(Packed(packed))),
        Kind::Beat(pb::Beat {
            root,
            interval_ms,
            root_interval_ms,
            speaks,
            clock_s,
            cap,
            yields,
            bus_taken: taken,
        }) => {
            within("beat.interval_ms", interval_ms.into(), INTERVAL_MS)?;
            let root_ms = if root_interval_ms == 0 { interval_ms } else { root_interval_ms };
            within("beat.root_interval_ms", root_ms.into(), INTERVAL_MS)?;
            check_rate("beat.cap", cap)?;
            let interval = Duration::from_millis(interval_ms.into());
            let root_interval = Duration::from_millis(root_ms.into());
            let frame = Frame::Beat { root, interval, root_interval, speaks };
            let allowance = Allowance { rate: cap, yields };
            return Ok(Incoming::Beat { frame, beside: Beside { allowance, clock_s, taken } });
        }
        Kind::Below(below) => Frame::Below(decode_below(&below)?),
        Kind::Interest(interest) => Frame::Interest(bus::decode_interest(&interest)?),
        Kind::Message(message) => Frame::Message(bus::decode_message(message)?),
        Kind::Answer(answer) => Frame::Answer(bus::decode_answer(answer)?),
        Kind::Order(pb::OrderEntry { log, seq, envelope }) => {
            not_empty("order.envelope", envelope.len())?;
            return Ok(Incoming::Order { log, seq, envelope });
        }
        Kind::OrdersHeld(pb::OrdersHeld { log, through }) => Frame::OrdersHeld { log, through },
        Kind::Report(pb::ReportEntry { log, seq, report }) => {
            let report = decode_report(given("report.report", report)?, hash)?;
            Frame::Report { log, seq, report }
        }
        Kind::ReportsHeld(pb::ReportsHeld { log, through }) => Frame::ReportsHeld { log, through },
        Kind::Watch(watch) => Frame::Watch { orders: decode_watch(&watch)? },
        Kind::Said(said) => Frame::Said(decode_said(said)?),
        Kind::Go(go) => decode_go(&go)?,
        Kind::Seek(seek) => decode_seek(&seek)?,
        Kind::Found(found) => {
            Frame::Found { report: decode_report(given("found.report", found.report)?, hash)? }
        }
        Kind::Events(events) => fact::decode(&events, hash)?,
        Kind::EventsHeld(pb::EventsHeld { no, held }) => {
            Frame::EventsHeld { no, held: held as usize }
        }
        Kind::Profiles(profiles) => profile::decode(&profiles)?,
        Kind::ProfilesHeld(pb::ProfilesHeld { no, held }) => {
            Frame::ProfilesHeld { no, held: held as usize }
        }
        Kind::Heard(pb::Heard {}) => return Ok(Incoming::Heard),
        Kind::Removals(list) => {
            return Ok(Incoming::Removals(SignedRemovals::from_pb(&list)?));
        }
    };
    Ok(Incoming::Frame(frame))
}

fn encode_below(subtree: &Subtree) -> pb::Below {
    let branch = |(parent, children): (&HostId, &HostSet)| pb::Branch {
        parent: parent.0,
        children: hosts::encode(children),
    };
    pb::Below {
        below: hosts::encode(&subtree.below),
        up: hosts::encode(&subtree.up),
        degraded: hosts::encode(&subtree.degraded),
        silent: hosts::encode(&subtree.silent),
        branches: subtree.branches.iter().map(branch).collect(),
    }
}

fn decode_below(below: &pb::Below) -> Result<Subtree, FieldError> {
    at_most("below.branches", below.branches.len(), BRANCHES)?;
    let mut branches = BTreeMap::new();
    for branch in &below.branches {
        let parent = HostId(branch.parent);
        let rising = branches.last_key_value().is_none_or(|(last, _)| *last < parent);
        ensure(rising, "below.branches", "is not in the order of the parents")?;
        branches.insert(parent, hosts::decode("branch.children", &branch.children)?);
    }
    Ok(Subtree {
        below: hosts::decode("below.below", &below.below)?,
        up: hosts::decode("below.up", &below.up)?,
        degraded: hosts::decode("below.degraded", &below.degraded)?,
        silent: hosts::decode("below.silent", &below.silent)?,
        branches,
    })
}

fn decode_hello(hello: &pb::Hello) -> Result<Frame, FrameError> {
    check_version(version("hello", hello.major, hello.minor)?)?;
    let &pb::Hello { log, held_log, held, events, profiles, .. } = hello;
    Ok(Frame::Hello { log, held_log, held, events, profiles })
}

/// The two numbers of a version. `field` names the message that they come in.
pub(crate) fn version(
    field: &'static str,
    major: u32,
    minor: u32,
) -> Result<(u16, u16), FieldError> {
    match (u16::try_from(major), u16::try_from(minor)) {
        (Ok(major), Ok(minor)) => Ok((major, minor)),
        _ => Err(FieldError::Wrong { field, fault: "has a version number over 65535" }),
    }
}

pub(crate) fn encode_report(report: &Report) -> pb::Report {
    let lines = report.tally.lines().map(|(outcome, hosts)| {
        let (state, code) = encode_state(outcome.state);
        let body = outcome.body.map(|digest| Bytes::copy_from_slice(&digest.0));
        pb::Line { state: state.into(), code, body, hosts: hosts::encode(hosts) }
    });
    pb::Report {
        order: Bytes::copy_from_slice(&report.order.0),
        lines: lines.collect(),
        bodies: report.bodies.values().cloned().collect(),
        cut: report.cut,
    }
}

pub(crate) fn decode_report(
    report: pb::Report,
    hash: fn(&[u8]) -> Digest,
) -> Result<Report, FieldError> {
    let order = OrderId(array("report.order", &report.order)?);
    at_most("report.lines", report.lines.len(), LINES)?;
    let lines: Vec<_> = report.lines.iter().map(decode_line).collect::<Result<_, _>>()?;
    let tally = decode_tally(lines)?;
    let known: BTreeSet<_> = tally.lines().filter_map(|(outcome, _)| outcome.body).collect();
    let mut bodies = BTreeMap::new();
    for body in &report.bodies {
        let digest = hash(body);
        ensure(known.contains(&digest), "report.bodies", "has one that no line refers to")?;
        // The copy lets go of the frame, of which a body may be a small part.
        let first = bodies.insert(digest, own(body)).is_none();
        ensure(first, "report.bodies", "has one twice")?;
    }
    Ok(Report { order, tally, bodies, cut: report.cut })
}

fn decode_line(line: &pb::Line) -> Result<(Outcome, HostSet), FieldError> {
    let state = decode_state(line.state, line.code)?;
    let body = line.body.as_ref().map(|digest| array("line.body", digest)).transpose()?;
    let hosts = hosts::decode("line.hosts", &line.hosts)?;
    not_empty("line.hosts", hosts.ranges().len())?;
    Ok((Outcome { state, body: body.map(Digest) }, hosts))
}

/// The tally of these lines, if no outcome and no host is in two of them.
pub(crate) fn decode_tally(lines: Vec<(Outcome, HostSet)>) -> Result<Tally, FieldError> {
    let mut ranges: Vec<_> = lines.iter().flat_map(|(_, hosts)| hosts.ranges()).copied().collect();
    at_most("report.lines.hosts", ranges.len(), hosts::RANGES)?;
    ranges.sort_unstable();
    let apart = ranges.windows(2).all(|pair| pair[0].1 < pair[1].0);
    ensure(apart, "report.lines", "have a host twice")?;
    let count = lines.len();
    // Lines that are known to be apart make a tally without being compared with each other.
    let tally: Tally = lines.into_iter().collect();
    ensure(tally.lines().count() == count, "report.lines", "have an outcome twice")?;
    Ok(tally)
}

fn encode_watch(orders: &BTreeMap<OrderId, u64>) -> pb::Watch {
    let order = |id: &OrderId| Bytes::copy_from_slice(&id.0);
    let watched = orders.iter().map(|(id, no)| pb::Watched { order: order(id), generation: *no });
    pb::Watch { orders: watched.collect() }
}

fn decode_watch(watch: &pb::Watch) -> Result<BTreeMap<OrderId, u64>, FieldError> {
    at_most("watch.orders", watch.orders.len(), WATCHED)?;
    let mut orders = BTreeMap::new();
    for watched in &watch.orders {
        let order = OrderId(array("watched.order", &watched.order)?);
        let first = orders.insert(order, watched.generation).is_none();
        ensure(first, "watch.orders", "has one twice")?;
    }
    Ok(orders)
}

fn encode_said(said: &Said) -> pb::Said {
    let stream = match said.stream {
        Stream::Stdout => pb::Stream::Stdout,
        Stream::Stderr => pb::Stream::Stderr,
    };
    pb::Said {
        order: Bytes::copy_from_slice(&said.order.0),
        host: said.host.0,
        stream: stream.into(),
        offset: said.offset,
        bytes: said.bytes.clone(),
    }
}

fn decode_said(said: pb::Said) -> Result<Said, FieldError> {
    let pb::Said { order, host, stream, offset, bytes } = said;
    let order = OrderId(array("said.order", &order)?);
    let unknown = FieldError::Unknown { field: "said.stream", found: stream };
    let stream = match pb::Stream::try_from(stream) {
        Ok(pb::Stream::Stdout) => Stream::Stdout,
        Ok(pb::Stream::Stderr) => Stream::Stderr,
        Ok(pb::Stream::Unspecified) | Err(_) => return Err(unknown),
    };
    not_empty("said.bytes", bytes.len())?;
    at_most_bytes("said.bytes", bytes.len(), SAID_BYTES)?;
    // So that where it ends is a number as well.
    within("said.offset", offset, (0, u64::MAX - bytes.len() as u64))?;
    Ok(Said { order, host: HostId(host), stream, offset, bytes })
}

fn encode_go(order: OrderId, hosts: &HostSet, left: Duration) -> pb::Go {
    // Rounded down: nobody may begin later than was meant.
    let left_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    pb::Go { order: Bytes::copy_from_slice(&order.0), hosts: hosts::encode(hosts), left_ms }
}

fn decode_go(go: &pb::Go) -> Result<Frame, FieldError> {
    let order = OrderId(array("go.order", &go.order)?);
    let hosts = hosts::decode("go.hosts", &go.hosts)?;
    not_empty("go.hosts", hosts.ranges().len())?;
    within("go.left_ms", go.left_ms, (0, millis(LONGEST)))?;
    Ok(Frame::Go { order, hosts, left: Duration::from_millis(go.left_ms) })
}

fn decode_seek(seek: &pb::Seek) -> Result<Frame, FieldError> {
    let order = OrderId(array("seek.order", &seek.order)?);
    ensure(order.giver().is_some(), "seek.order", "is of no relay")?;
    let hosts = hosts::decode("seek.hosts", &seek.hosts)?;
    not_empty("seek.hosts", hosts.ranges().len())?;
    Ok(Frame::Seek { order, hosts })
}

pub(crate) fn encode_state(state: State) -> (pb::State, i32) {
    match state {
        State::Ok => (pb::State::Ok, 0),
        State::Failed(code) => (pb::State::Failed, code),
        State::Signalled(signal) => (pb::State::Signalled, signal),
        State::TimedOut => (pb::State::TimedOut, 0),
        State::Interrupted => (pb::State::Interrupted, 0),
        State::Cancelled => (pb::State::Cancelled, 0),
        State::Refused => (pb::State::Refused, 0),
        State::Skipped => (pb::State::Skipped, 0),
        State::Expired => (pb::State::Expired, 0),
        State::RelayLost => (pb::State::RelayLost, 0),
        State::NotReached => (pb::State::NotReached, 0),
    }
}

pub(crate) fn decode_state(state: i32, code: i32) -> Result<State, FieldError> {
    let unknown = FieldError::Unknown { field: "line.state", found: state };
    let state = match pb::State::try_from(state) {
        Err(_) | Ok(pb::State::Unspecified) => return Err(unknown),
        Ok(pb::State::Failed) => {
            ensure(code != 0, "line.code", "is 0, which is no failure")?;
            return Ok(State::Failed(code));
        }
        Ok(pb::State::Signalled) => {
            ensure(SIGNALS.contains(&code), "line.code", "is not a signal")?;
            return Ok(State::Signalled(code));
        }
        Ok(pb::State::Ok) => State::Ok,
        Ok(pb::State::TimedOut) => State::TimedOut,
        Ok(pb::State::Interrupted) => State::Interrupted,
        Ok(pb::State::Cancelled) => State::Cancelled,
        Ok(pb::State::Refused) => State::Refused,
        Ok(pb::State::Skipped) => State::Skipped,
        Ok(pb::State::Expired) => State::Expired,
        Ok(pb::State::RelayLost) => State::RelayLost,
        Ok(pb::State::NotReached) => State::NotReached,
    };
    ensure(code == 0, "line.code", "is given for a state that has none")?;
    Ok(state)
}

#[cfg(test)]
#[path = "wire_tests.rs"]
pub(crate) mod tests;
