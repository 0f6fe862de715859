//! A small model for the tests: senders behind one bottleneck, packet by packet, in virtual time.
//!
//! What it plays of quinn 0.11: the pacer (1.25 windows for each smoothed round trip, bursts of ten
//! packets), the window's bound, acknowledgement of every second packet or after 25 ms, loss by
//! three later packets or 9/8 of a round trip, the probe time-out. What it does not: streams, flow
//! control, packets of different sizes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::{Duration, Instant};

use super::control::Control;

pub(super) const PACKET: u64 = 1_200;
const NEVER: u64 = u64::MAX;
const MAX_ACK_DELAY: u64 = 25_000_000;

/// Nanoseconds of some milliseconds.
pub(super) const fn ms(ms: u64) -> u64 {
    ms * 1_000_000
}

#[derive(Clone, Debug)]
pub(super) struct Path {
    /// Bits a second from some time on.
    pub(super) rates: Vec<(u64, u64)>,
    /// One way, from some time on.
    pub(super) delays: Vec<(u64, u64)>,
    /// Bytes.
    pub(super) queue: u64,
    /// Lost behind the queue, and of the acknowledgements.
    pub(super) loss: f64,
    /// Lost in a row on average.
    pub(super) burst: f64,
    /// Nothing leaves the queue from, until.
    pub(super) dark: (u64, u64),
    /// Nanoseconds that are added at random to each packet's delay; order is kept.
    pub(super) jitter: u64,
}

impl Path {
    /// Megabits a second, round trip in ms, queue in ms at full rate, loss in percent.
    pub(super) fn new(mbit: f64, rtt: u64, queue: u64, loss: f64) -> Path {
        let rate = (mbit * 1e6) as u64;
        Path {
            rates: vec![(0, rate)],
            delays: vec![(0, ms(rtt) / 2)],
            queue: rate / 8 * queue / 1_000,
            loss: loss / 100.0,
            burst: 1.0,
            dark: (NEVER, NEVER),
            jitter: 0,
        }
    }
}

fn at(steps: &[(u64, u64)], now: u64) -> u64 {
    steps.iter().rev().find(|(from, _)| *from <= now).expect("the first begins at 0").1
}

/// Who decides about the window.
#[expect(clippy::large_enum_variant, reason = "there are two or three of them")]
pub(super) enum Brain {
    Ours(Control),
    Cubic(Rival),
}

/// CUBIC as of RFC 9438 with slow start, written apart from the code under test.
pub(super) struct Rival {
    window: f64,
    threshold: f64,
    greatest: f64,
    rise: f64,
    since: u64,
    lost_at: u64,
}

impl Rival {
    pub(super) fn new() -> Rival {
        let (window, threshold) = (10.0, f64::INFINITY);
        Rival { window, threshold, greatest: 0.0, rise: 0.0, since: 0, lost_at: 0 }
    }

    fn acked(&mut self, now: u64, rtt: u64) {
        if self.window < self.threshold {
            self.window += 1.0;
            return;
        }
        let time = (now - self.since + rtt) as f64 / 1e9;
        let cubic = self.greatest + 0.4 * (time - self.rise).powi(3);
        let reno = self.greatest * 0.7 + 0.53 * (now - self.since) as f64 / rtt as f64;
        let target = cubic.max(reno).min(self.window * 1.5);
        if target > self.window {
            self.window += (target - self.window) / self.window;
        }
    }

    fn lost(&mut self, now: u64, sent: u64) {
        if sent < self.lost_at {
            return;
        }
        self.greatest = if self.window < self.greatest { self.window * 0.85 } else { self.window };
        self.window = (self.window * 0.7).max(2.0);
        self.threshold = self.window;
        self.rise = ((self.greatest - self.window) / 0.4).max(0.0).cbrt();
        (self.since, self.lost_at) = (now, now);
    }
}

pub(super) struct Flow {
    pub(super) brain: Brain,
    /// When it has something to send: from, until.
    pub(super) busy: Vec<(u64, u64)>,
    sent: BTreeMap<u64, u64>,
    next: u64,
    largest_acked: Option<u64>,
    tokens: f64,
    tokens_at: u64,
    srtt: Option<u64>,
    var: u64,
    latest: u64,
    wake: u64,
    probe_at: u64,
    probes: u32,
    limited: bool,
    // The receiver.
    unacked: Vec<u64>,
    pending: u32,
    ack_at: u64,
    pub(super) stats: Stats,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stats {
    pub(super) sent: u64,
    pub(super) delivered: u64,
    pub(super) overflowed: u64,
    pub(super) lost: u64,
    pub(super) rtt_sum: u64,
    pub(super) rtt_count: u64,
    pub(super) rtt_max: u64,
}

impl Stats {
    pub(super) fn since(self, before: Stats) -> Stats {
        Stats {
            sent: self.sent - before.sent,
            delivered: self.delivered - before.delivered,
            overflowed: self.overflowed - before.overflowed,
            lost: self.lost - before.lost,
            rtt_sum: self.rtt_sum - before.rtt_sum,
            rtt_count: self.rtt_count - before.rtt_count,
            rtt_max: self.rtt_max,
        }
    }

    /// In milliseconds.
    pub(super) fn rtt(&self) -> f64 {
        self.rtt_sum as f64 / self.rtt_count.max(1) as f64 / 1e6
    }

    /// Parts of a rate in bits a second over some nanoseconds.
    pub(super) fn share(&self, rate: f64, time: u64) -> f64 {
        (self.delivered * PACKET * 8) as f64 / (rate * time as f64 / 1e9)
    }

    pub(super) fn drops(&self) -> f64 {
        self.overflowed as f64 / self.sent.max(1) as f64
    }
}

impl Flow {
    pub(super) fn new(brain: Brain, busy: Vec<(u64, u64)>) -> Flow {
        Flow {
            brain,
            busy,
            sent: BTreeMap::new(),
            next: 0,
            largest_acked: None,
            tokens: 10.0,
            tokens_at: 0,
            srtt: None,
            var: 0,
            latest: ms(200),
            wake: NEVER,
            probe_at: NEVER,
            probes: 0,
            limited: false,
            unacked: Vec::new(),
            pending: 0,
            ack_at: NEVER,
            stats: Stats::default(),
        }
    }

    pub(super) fn ours(seed: u64) -> Flow {
        let control = Control::new(32 * PACKET, PACKET, None, seed);
        Flow::new(Brain::Ours(control), vec![(0, NEVER)])
    }

    fn window(&self) -> u64 {
        match &self.brain {
            Brain::Ours(control) => control.window() / PACKET,
            Brain::Cubic(rival) => rival.window as u64,
        }
    }

    fn srtt(&self) -> u64 {
        self.srtt.unwrap_or(self.latest)
    }

    fn pto(&self) -> u64 {
        (self.srtt() + (4 * self.var).max(ms(1)) + MAX_ACK_DELAY) << self.probes.min(10)
    }

    /// When the next packet may leave by the pacer; now or later.
    fn pace(&mut self, now: u64) -> u64 {
        let rate = 1.25 * self.window() as f64 / self.srtt() as f64;
        let burst = (rate * 2e6).clamp(10.0, 256.0);
        self.tokens = (self.tokens + (now - self.tokens_at) as f64 * rate).min(burst);
        self.tokens_at = now;
        if self.tokens >= 1.0 { now } else { now + ((burst - self.tokens) / rate) as u64 }
    }
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrive { flow: usize, packet: u64 },
    Ack { flow: usize, packets: Vec<u64> },
    Wake { flow: usize },
    AckTimer { flow: usize },
    Probe { flow: usize },
}

pub(super) struct Model {
    path: Path,
    pub(super) flows: Vec<Flow>,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    count: u64,
    origin: Instant,
    busy_until: u64,
    last_arrival: u64,
    dice: u64,
    bad: bool,
    pub(super) now: u64,
}

impl Model {
    pub(super) fn new(path: Path, flows: Vec<Flow>, seed: u64) -> Model {
        let mut model = Model {
            path,
            flows,
            events: BinaryHeap::new(),
            count: 0,
            origin: Instant::now(),
            busy_until: 0,
            last_arrival: 0,
            dice: seed,
            bad: false,
            now: 0,
        };
        for flow in 0..model.flows.len() {
            for (from, _) in model.flows[flow].busy.clone() {
                model.push(from, Event::Wake { flow });
            }
        }
        model
    }

    fn push(&mut self, at: u64, event: Event) {
        self.count += 1;
        self.events.push(Reverse((at, self.count, event)));
    }

    fn chance(&mut self, part: f64) -> bool {
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.dice;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64) < part
    }

    fn loses(&mut self) -> bool {
        let (loss, burst) = (self.path.loss, self.path.burst);
        if burst <= 1.0 {
            return self.chance(loss);
        }
        let leave = 1.0 / burst;
        let flip = if self.bad { leave } else { loss * leave / (1.0 - loss) };
        self.bad ^= self.chance(flip);
        self.bad
    }

    fn instant(&self, at: u64) -> Instant {
        self.origin + Duration::from_nanos(at)
    }

    /// Plays on until some time.
    pub(super) fn run(&mut self, until: u64) {
        while let Some(Reverse((at, ..))) = self.events.peek()
            && *at <= until
        {
            let Some(Reverse((at, _, event))) = self.events.pop() else { break };
            self.now = at;
            match event {
                Event::Arrive { flow, packet } => self.arrive(flow, packet),
                Event::Ack { flow, packets } => self.acked(flow, &packets),
                Event::Wake { flow } => self.send(flow),
                Event::AckTimer { flow } if self.flows[flow].ack_at == at => self.acknowledge(flow),
                Event::Probe { flow } if self.flows[flow].probe_at == at => self.probe(flow),
                Event::AckTimer { .. } | Event::Probe { .. } => {}
            }
        }
        self.now = until;
    }

    fn send(&mut self, flow: usize) {
        let now = self.now;
        loop {
            let sender = &mut self.flows[flow];
            sender.limited = !sender.busy.iter().any(|(from, to)| (*from..*to).contains(&now));
            if sender.limited || sender.sent.len() as u64 + 1 >= sender.window() {
                break;
            }
            let pace = sender.pace(now);
            if pace > now {
                if sender.wake != pace {
                    sender.wake = pace;
                    self.push(pace, Event::Wake { flow });
                }
                break;
            }
            self.transmit(flow);
        }
    }

    fn transmit(&mut self, flow: usize) {
        let now = self.now;
        let instant = self.instant(now);
        let sender = &mut self.flows[flow];
        sender.tokens -= 1.0;
        let packet = sender.next;
        sender.next += 1;
        sender.sent.insert(packet, now);
        sender.stats.sent += 1;
        if let Brain::Ours(control) = &mut sender.brain {
            control.on_sent(instant);
        }
        self.set_probe(flow);
        // The queue.
        let rate = at(&self.path.rates, now);
        let waiting = self.busy_until.saturating_sub(now) as f64 / 1e9 * rate as f64 / 8.0;
        if waiting as u64 + PACKET > self.path.queue {
            self.flows[flow].stats.overflowed += 1;
            return;
        }
        self.busy_until = self.busy_until.max(now) + PACKET * 8_000_000_000 / rate;
        let leaves = self.busy_until;
        if self.loses() || (self.path.dark.0..self.path.dark.1).contains(&leaves) {
            self.flows[flow].stats.lost += 1;
            return;
        }
        let jitter = (0..8).map(|_| u64::from(self.chance(0.5))).sum::<u64>();
        let arrives = leaves + at(&self.path.delays, now) + self.path.jitter * jitter / 8;
        self.last_arrival = self.last_arrival.max(arrives);
        self.push(self.last_arrival, Event::Arrive { flow, packet });
    }

    fn arrive(&mut self, flow: usize, packet: u64) {
        let receiver = &mut self.flows[flow];
        receiver.stats.delivered += 1;
        receiver.unacked.push(packet);
        receiver.pending += 1;
        if receiver.pending >= 2 {
            self.acknowledge(flow);
        } else {
            receiver.ack_at = self.now + MAX_ACK_DELAY;
            let at = receiver.ack_at;
            self.push(at, Event::AckTimer { flow });
        }
    }

    fn acknowledge(&mut self, flow: usize) {
        let receiver = &mut self.flows[flow];
        (receiver.pending, receiver.ack_at) = (0, NEVER);
        let packets = receiver.unacked.clone();
        // What is not acknowledged again is known to be; a few hundred are enough.
        let keep = receiver.unacked.len().saturating_sub(300);
        receiver.unacked.drain(..keep);
        let delay = at(&self.path.delays, self.now);
        if !self.chance(self.path.loss) {
            self.push(self.now + delay, Event::Ack { flow, packets });
        }
    }

    fn acked(&mut self, flow: usize, packets: &[u64]) {
        let (now, instant, origin) = (self.now, self.instant(self.now), self.origin);
        let sender = &mut self.flows[flow];
        let fresh: Vec<(u64, u64)> = packets
            .iter()
            .filter_map(|packet| sender.sent.remove(packet).map(|sent| (*packet, sent)))
            .collect();
        let Some(&(newest, newest_sent)) = fresh.last() else { return };
        sender.probes = 0;
        let is_newest = sender.largest_acked.is_none_or(|largest| newest > largest);
        for (_, sent) in &fresh {
            match &mut sender.brain {
                Brain::Ours(control) => {
                    control.on_acked(instant, origin + Duration::from_nanos(*sent), PACKET);
                }
                Brain::Cubic(rival) => rival.acked(now, sender.srtt.unwrap_or(sender.latest)),
            }
        }
        if let Brain::Ours(control) = &mut sender.brain {
            control.on_end(instant, sender.sent.len() as u64 * PACKET, sender.limited);
        }
        if is_newest {
            sender.largest_acked = Some(newest);
            let rtt = now - newest_sent;
            sender.latest = rtt;
            let srtt = sender.srtt();
            sender.var = (3 * sender.var + srtt.abs_diff(rtt)) / 4;
            sender.srtt = Some((7 * srtt + rtt) / 8);
            sender.stats.rtt_sum += rtt;
            sender.stats.rtt_count += 1;
            sender.stats.rtt_max = sender.stats.rtt_max.max(rtt);
        }
        self.detect_losses(flow);
        self.set_probe(flow);
        self.send(flow);
    }

    fn detect_losses(&mut self, flow: usize) {
        let (now, origin) = (self.now, self.origin);
        let sender = &mut self.flows[flow];
        let Some(largest) = sender.largest_acked else { return };
        let old = sender.srtt().max(sender.latest) / 8 * 9;
        let lost: Vec<(u64, u64)> = sender
            .sent
            .range(..largest)
            .filter(|(packet, sent)| largest >= *packet + 3 || now - *sent >= old)
            .map(|(packet, sent)| (*packet, *sent))
            .collect();
        let Some(&(_, last)) = lost.last() else { return };
        for (packet, _) in &lost {
            sender.sent.remove(packet);
        }
        let outage = last - lost[0].1 > 3 * (sender.srtt() + 4 * sender.var + MAX_ACK_DELAY)
            && lost.last().map(|l| l.0 - lost[0].0 + 1) == Some(lost.len() as u64);
        match &mut sender.brain {
            Brain::Ours(control) if outage => control.on_outage(),
            Brain::Ours(control) => {
                let sent = origin + Duration::from_nanos(last);
                control.on_lost(sent, lost.len() as u64 * PACKET);
            }
            Brain::Cubic(rival) => rival.lost(now, last),
        }
    }

    fn set_probe(&mut self, flow: usize) {
        let sender = &mut self.flows[flow];
        sender.probe_at = if sender.sent.is_empty() { NEVER } else { self.now + sender.pto() };
        let at = sender.probe_at;
        if at != NEVER {
            self.push(at, Event::Probe { flow });
        }
    }

    fn probe(&mut self, flow: usize) {
        self.flows[flow].probes += 1;
        self.transmit(flow);
        self.transmit(flow);
    }
}
