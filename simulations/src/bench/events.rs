//! A storm of events: how many one relay's core folds in a second, and what of it goes upward.
//!
//! A thousand hosts notice fifty different things, a hundred thousand events a second in all, for a
//! virtual minute. Each tells its relay once a second how many there are by now, as frames that are
//! encoded and decoded as they are on a link. Beside it, one host that notices as many itself.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use mesh::{
    Class, Config, Folded, Frame, Happening, HostId, Input, Kind, LinkId, Node, Output, Peer,
    Saved, Severity, Time,
};
use protos::{Incoming, decode_frame, encode_frame};

use crate::table;

const HOSTS: u32 = 1_000;
const SIGNATURES: u32 = 50;
/// Events of one signature that a host notices in a second.
const EACH: u64 = 2;
const SECONDS: u64 = 60;
const UP: LinkId = LinkId(0);
const RELAY: HostId = HostId(1);

/// A node whose disk and parent answer at once, and what it has sent upward.
struct Bench {
    node: Node,
    records: u64,
    bytes: u64,
    counted: BTreeMap<(mesh::FoldKey, HostId), u64>,
}

impl Bench {
    fn new(config: Config) -> Bench {
        let node = Node::new(config, Saved::default(), 1, Time::ZERO);
        let (records, bytes, counted) = (0, 0, BTreeMap::new());
        let mut bench = Bench { node, records, bytes, counted };
        bench.give(Time::ZERO, None);
        let parent = Peer::Parent { place: 0, host: HostId::ROOT };
        bench.give(Time::ZERO, Some(Input::LinkUp { link: UP, peer: parent }));
        let frame = Frame::Hello { log: 1, held_log: 0, held: 0, events: true, profiles: false };
        bench.give(Time::ZERO, Some(Input::Frame { link: UP, frame }));
        bench
    }

    /// Gives an input, and all that follows from it.
    fn give(&mut self, now: Time, input: Option<Input>) {
        if let Some(input) = input {
            self.node.handle(now, input);
        }
        loop {
            let (mut through, mut held) = (0, None);
            while let Some(output) = self.node.poll_output() {
                match output {
                    Output::Save { no, .. } => through = no,
                    Output::Send { link: UP, frame } => {
                        if let Frame::Events { no, events } = &frame {
                            self.records += events.len() as u64;
                            self.bytes += encode_frame(&frame).len() as u64;
                            for folded in events {
                                let key = folded.key();
                                let counts = folded.counts.iter();
                                self.counted.extend(counts.map(|(host, n)| ((key, *host), *n)));
                            }
                            held = Some(Frame::EventsHeld { no: *no, held: events.len() });
                        }
                    }
                    _ => {}
                }
            }
            if through == 0 && held.is_none() {
                return;
            }
            if through > 0 {
                self.node.handle(now, Input::Saved { through });
            }
            if let Some(frame) = held {
                self.node.handle(now, Input::Frame { link: UP, frame });
            }
        }
    }

    /// Wakes the node for all that is due until then.
    fn until(&mut self, end: Time) {
        while let Some((at, _)) = self.node.poll_timeout().filter(|(at, _)| *at <= end) {
            self.node.handle_timeout(at);
            self.give(at, None);
            // The parent lives; hosts that beat are not what is measured.
            let interval = Duration::from_secs(3_600);
            let frame = Frame::Beat { root: 1, interval, root_interval: interval, speaks: false };
            self.give(at, Some(Input::Frame { link: UP, frame }));
        }
    }

    fn total(&self) -> u64 {
        self.counted.values().sum()
    }
}

fn config(host: HostId, serves: bool) -> Config {
    let mut config = Config::new(host, 1, serves);
    config.beat_interval = Duration::from_secs(3_600);
    config
}

fn happening(host: u32, what: u32, at_ms: u64) -> Happening {
    let kind = Kind { subject: "app.test", severity: Severity::Error, class: Class::Client };
    let name = format!("web{host}");
    let letters = [b'a' + (what / 26) as u8, b'a' + (what % 26) as u8];
    let letters = String::from_utf8_lossy(&letters);
    let text = format!("{name}: worker {letters} cannot write /srv/data: No space left on device");
    Happening::new(kind, (HostId(host), &name), at_ms, &text, relay::hash)
}

/// What a host tells in one frame: how many of each there are by now.
fn told(host: u32, no: u64, count: u64) -> Frame {
    let folded = |what| {
        let Happening { fact, sample, .. } = happening(host, what, 1_000);
        let counts = BTreeMap::from([(HostId(host), count)]);
        Folded { window: 0, fact, sample: sample.into(), first_ms: 1_000, last_ms: 1_000, counts }
    };
    Frame::Events { no, events: (0..SIGNATURES).map(folded).collect() }
}

/// Measures both.
pub(crate) fn measure() -> Result<()> {
    let raw = u64::from(HOSTS) * u64::from(SIGNATURES) * EACH * SECONDS;
    let one = Frame::Events { no: 1, events: vec![single()] };
    let raw_bytes = raw * encode_frame(&one).len() as u64;
    let mut relay = Bench::new(config(RELAY, true));
    let mut busy = Duration::ZERO;
    for host in 0..HOSTS {
        let peer = Peer::Child { host: HostId(10 + host), serves: false };
        let link = LinkId(u64::from(host) + 1);
        relay.give(Time::ZERO, Some(Input::LinkUp { link, peer }));
    }
    for second in 1..=SECONDS {
        for host in 0..HOSTS {
            // Hosts are not in step.
            let offset = Duration::from_micros(u64::from(host) * 1_000);
            let now = Time(Duration::from_secs(second) + offset);
            let bytes = encode_frame(&told(10 + host, second, second * EACH));
            let begun = Instant::now();
            relay.until(now);
            let Ok(Incoming::Frame(frame)) = decode_frame(bytes, relay::hash) else {
                bail!("a frame of events does not decode");
            };
            let link = LinkId(u64::from(host) + 1);
            relay.give(now, Some(Input::Frame { link, frame }));
            busy += begun.elapsed();
        }
    }
    let begun = Instant::now();
    relay.until(Time(Duration::from_secs(SECONDS + 30)));
    busy += begun.elapsed();
    ensure!(relay.total() == raw, "{} of {raw} events were counted", relay.total());

    let mut host = Bench::new(config(RELAY, false));
    let events: Vec<_> = (0..SIGNATURES).map(|what| happening(RELAY.0, what, 1_000)).collect();
    let begun = Instant::now();
    let own = 100_000 * 10;
    for n in 0..own {
        let now = Time(Duration::from_micros(1_000_000 + n * 10));
        host.until(now);
        let event = events[n as usize % events.len()].clone();
        host.give(now, Some(Input::Happened(event)));
    }
    host.until(Time(Duration::from_secs(60)));
    let own_busy = begun.elapsed();
    ensure!(host.total() == own, "{} of {own} own events were counted", host.total());

    let row = |what: &str, relay: String, host: String| vec![what.to_owned(), relay, host];
    let rate = |n: u64, busy: Duration| format!("{:.0}", n as f64 / busy.as_secs_f64());
    table::heading("A storm of events, one core: 50 signatures, 100,000 events a second");
    table::print(
        &["what", "relay of 1,000 hosts", "one host"],
        &[
            row("events in", raw.to_string(), own.to_string()),
            row("folded in a second of the core's time", rate(raw, busy), rate(own, own_busy)),
            row(
                "records up, a second",
                format!("{:.1}", relay.records as f64 / SECONDS as f64),
                format!("{:.1}", host.records as f64 / 10.0),
            ),
            row(
                "bytes up, a second",
                table::bytes(relay.bytes / SECONDS),
                table::bytes(host.bytes / 10),
            ),
            row("bytes of as many single events", table::bytes(raw_bytes / SECONDS), "".into()),
        ],
    );
    Ok(())
}

/// One event by itself.
fn single() -> Folded {
    let Frame::Events { mut events, .. } = told(10, 1, 1) else { unreachable!("it is one") };
    events.swap_remove(0)
}
