//! The state machine: how much may be in flight now.
//!
//! Start-up doubles the window each round trip until the rate grows no more, the delay rises or
//! loss is heavy. After that a cycle: *cruise* with a tenth more in flight than the path holds (the
//! link is never idle, and if it got faster, the rate follows by a tenth each round trip), a
//! *crest* with a quarter more (to find a rate that others have left free), a *trough* with a tenth
//! less (the queue empties, and the floor of the delay is seen). If the queue does not empty in
//! the trough either, it is somebody else's: see [`super::rival`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::busiest::Busiest;
use super::filter::{Floor, Greatest};
use super::giveway::Part;
use super::loss::Losses;
use super::queue::{Queue, Verdict};
use super::rival::Cubic;
use super::sampling::{Load, Sample, Sampler};
use super::trial::{Finding, Trials};

/// In flight, as part of what the path holds without a queue.
const CRUISE: f64 = 1.1;
const CRUISE_CAREFUL: f64 = 1.0;
const CREST: f64 = 1.25;
const TROUGH: f64 = 0.9;
const TROUGH_DEEP: f64 = 0.5;
/// Packets on top, since packets are whole and acknowledged in pairs.
const SPARE: u64 = 2;
/// A path holds what a host holds as well: it does not answer at once.
const HOST_DELAY: Duration = Duration::from_millis(2);
/// Below this round trip a queue is no longer than what the hosts themselves need.
const LOCAL: Duration = Duration::from_millis(3);
/// The least window in packets.
const LEAST: u64 = 4;
/// Round trips for which a rate is remembered: longer than a cycle.
const RATE_ROUNDS: u64 = 12;
/// Round trips of cruise, and at most how many more at random.
const CRUISE_ROUNDS: u64 = 6;
const CRUISE_MORE: u64 = 4;
/// Beside a rival the queue is looked at less often, since each look costs a share:
/// round trips of cruise then.
const RIVAL_CRUISE: u64 = 36;
/// Round trips after a trough until all that it showed has been seen.
const RIVAL_LOOK: u64 = 3;
/// After a crest that spilt, so many cycles go without one, doubling up to the most.
const PAUSE_MOST: u32 = 4;
/// Start-up ends after so many round trips without growth by a quarter.
const PLATEAU: u32 = 3;
/// Loss in one round trip that ends start-up.
const STARTUP_LOSS: f64 = 0.2;
/// Loss that a crest makes up for, at most.
const USUAL_MOST: f64 = 0.2;
/// A floor that was not seen for so long is looked for in a deeper trough.
const FLOOR_LOOK: Duration = Duration::from_secs(5);
/// After so much silence what was known of the path is a memory.
const IDLE: Duration = Duration::from_secs(30);

/// What is remembered of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// Bytes a second that were delivered.
    pub rate: u64,
    /// Round trip without a queue.
    pub rtt: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Startup { fullest: u64, flat: u32 },
    Cruise { left: u64 },
    Crest { rounds: u32, before: u64 },
    Trough { deep: bool, settled: Option<Instant> },
}

/// What one round trip showed.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    rates: u128,
    rates_count: u64,
    delays: Duration,
    delays_count: u32,
    limited: bool,
}

impl Round {
    fn rate(&self) -> Option<u64> {
        (self.rates_count > 0).then(|| (self.rates / u128::from(self.rates_count)) as u64)
    }

    fn delay(&self) -> Duration {
        self.delays / self.delays_count.max(1)
    }
}

/// The controller of one path.
#[derive(Clone, Debug)]
pub(crate) struct Control {
    initial_window: u64,
    mtu: u64,
    window: u64,
    phase: Phase,
    sampler: Sampler,
    busiest: Busiest,
    losses: Losses,
    floor: Floor,
    rates: Greatest,
    /// Counts the round trips in which the link was full.
    tick: u64,
    round: Round,
    round_start: Option<Instant>,
    acked: u64,
    queue: Queue,
    rival: Option<Cubic>,
    /// Beyond this, in bytes in flight, loss grew; and by how much to try beyond it next time.
    ceiling: Option<u64>,
    step: u64,
    careful: bool,
    trials: Trials,
    /// Cycles that go without a crest, and how many did.
    pause: u32,
    paused: u32,
    /// Chunks in a row of start-up that came late.
    late: u32,
    /// Rounds in a row that were slower than the rate that is believed, with a queue.
    slow: u32,
    start: Option<Start>,
    heard: Option<Instant>,
    dice: u64,
    marked: bool,
    /// Whether to give way to everybody else; shared with its copies, by which it is set.
    yields: Arc<AtomicBool>,
    part: Part,
}

impl Control {
    pub(crate) fn new(initial_window: u64, mtu: u64, start: Option<Start>, seed: u64) -> Control {
        Control {
            initial_window,
            mtu,
            window: initial_window.max(LEAST * mtu),
            phase: Phase::Startup { fullest: 0, flat: 0 },
            sampler: Sampler::default(),
            busiest: Busiest::default(),
            losses: Losses::default(),
            floor: Floor::default(),
            rates: Greatest::new(RATE_ROUNDS),
            tick: 0,
            round: Round::default(),
            round_start: None,
            acked: 0,
            queue: Queue::default(),
            rival: None,
            ceiling: None,
            step: mtu,
            careful: false,
            trials: Trials::default(),
            pause: 0,
            paused: 0,
            late: 0,
            slow: 0,
            start,
            heard: None,
            dice: seed,
            marked: false,
            yields: Arc::default(),
            part: Part::default(),
        }
    }

    /// Bytes that may be in flight.
    pub(crate) fn window(&self) -> u64 {
        self.window
    }

    /// Whether it gives way.
    pub(crate) fn yields(&self) -> bool {
        self.yields.load(Ordering::Relaxed)
    }

    /// Tells this controller and all of which it is a copy whether to give way.
    pub(crate) fn set_yields(&self, yields: bool) {
        self.yields.store(yields, Ordering::Relaxed);
    }

    pub(crate) fn initial_window(&self) -> u64 {
        self.initial_window
    }

    /// Bytes a second that the path delivers, as far as is known.
    pub(crate) fn rate(&self) -> u64 {
        self.rates.value()
    }

    /// The most bytes that were delivered in a second.
    pub(crate) fn busiest(&self) -> u64 {
        self.busiest.rate()
    }

    /// Whether the path is so short that this controller has no business there.
    pub(crate) fn is_local(&self) -> bool {
        self.floor.value().is_some_and(|floor| floor < LOCAL)
    }

    /// The path as it should be remembered.
    pub(crate) fn known(&self) -> Option<Start> {
        let started = !matches!(self.phase, Phase::Startup { .. });
        let rtt = self.floor.value().filter(|_| started)?;
        Some(Start { rate: self.rate(), rtt })
    }

    pub(crate) fn on_mtu(&mut self, mtu: u64) {
        self.mtu = mtu;
        self.window = self.window.max(LEAST * mtu);
    }

    pub(crate) fn on_sent(&mut self, now: Instant) {
        let silent = self.heard.is_some_and(|heard| now.saturating_duration_since(heard) > IDLE);
        if silent && !matches!(self.phase, Phase::Startup { .. }) {
            self.restart(self.rate(), self.initial_window);
        }
        let rtt = self.floor.value().unwrap_or_default();
        self.sampler.on_sent(now, self.load(), rtt);
        self.round_start.get_or_insert(now);
    }

    pub(crate) fn on_acked(&mut self, now: Instant, sent: Instant, bytes: u64) {
        let load = self.sampler.on_acked(now, sent, bytes);
        self.busiest.on_acked(now, bytes);
        self.losses.acked(load, self.packets(bytes));
        self.acked += bytes;
    }

    pub(crate) fn on_lost(&mut self, sent: Instant, bytes: u64) {
        let load = self.sampler.load_at(sent);
        self.losses.lost(load, self.packets(bytes));
        if matches!(self.phase, Phase::Crest { .. }) && self.losses.crest_exceeds() {
            self.crest_spilt();
        }
        self.settle();
    }

    /// A router on the way says that its queue grows (ECN).
    pub(crate) fn on_mark(&mut self, now: Instant) {
        if self.marked {
            return;
        }
        self.marked = true;
        self.ceiling = Some(self.window * 85 / 100);
        self.step = self.mtu;
        if !matches!(self.phase, Phase::Trough { .. }) {
            self.begin_trough(now);
        }
        self.settle();
    }

    /// Nothing came through for several round trips: nothing is known any more.
    pub(crate) fn on_outage(&mut self) {
        self.restart(self.rate() / 2, LEAST * self.mtu);
        self.settle();
    }

    /// All acknowledgements of one packet were told.
    pub(crate) fn on_end(&mut self, now: Instant, in_flight: u64, limited: bool) {
        self.heard = Some(now);
        let Some(sample) = self.sampler.on_end(now, in_flight, limited) else { return };
        if let Some(mean) = self.floor.sample(now, sample.rtt) {
            self.queue.saw(mean);
            self.startup_delay(now, mean);
        }
        self.note(&sample);
        self.startup_grow(&sample, limited);
        if self.round_start.is_some_and(|start| sample.sent >= start) {
            self.end_round(now);
        }
        self.advance_trough(now, in_flight);
        self.settle();
    }

    fn note(&mut self, sample: &Sample) {
        self.round.limited |= sample.limited;
        self.round.delays += sample.rtt;
        self.round.delays_count += 1;
        if sample.rate > 0 {
            self.round.rates += u128::from(sample.rate);
            self.round.rates_count += 1;
        }
    }

    fn startup_grow(&mut self, sample: &Sample, limited: bool) {
        let acked = std::mem::take(&mut self.acked);
        let Phase::Startup { .. } = self.phase else { return };
        if sample.rate > self.rates.value() || (sample.rate > 0 && !sample.limited) {
            self.rates.push(self.tick, sample.rate);
        }
        if !limited {
            self.window += acked;
        }
        if let Some(start) = self.start.take()
            && sample.rtt >= start.rtt / 2
            && sample.rtt <= start.rtt * 3 / 2
        {
            let half = start.rate as f64 * start.rtt.as_secs_f64() / 2.0;
            self.window = self.window.max(half as u64);
        }
    }

    /// A packet that was sent after the last round had ended is acknowledged.
    fn end_round(&mut self, now: Instant) {
        let mut round = std::mem::take(&mut self.round);
        self.give_way(&mut round);
        self.round_start = Some(now);
        self.marked = false;
        if !round.limited {
            self.tick += 1;
        }
        match self.phase {
            Phase::Startup { fullest, flat } => self.startup_round(now, &round, fullest, flat),
            _ => self.believe(now, &round),
        }
        self.compete(now, &round);
        self.losses.begin_round();
        self.try_loss();
        self.advance_cycle(now);
    }

    fn give_way(&mut self, round: &mut Round) {
        if !self.yields() {
            self.part = Part::default();
            return;
        }
        self.rival = None;
        if let (Phase::Cruise { .. }, Some(floor)) = (self.phase, self.floor.value()) {
            let own = Duration::from_secs_f64(self.window as f64 / self.rate().max(1) as f64);
            let lossy = self.losses.round_exceeds();
            self.part.on_round(round.delay(), own, floor, lossy);
        }
        // What we leave to others says nothing of the link.
        round.limited |= !self.part.is_whole();
    }

    fn try_loss(&mut self) {
        let may = matches!(self.phase, Phase::Cruise { .. })
            && self.rival.is_none()
            && self.part.is_whole();
        match self.trials.look(&mut self.losses, self.tick, self.window, may) {
            Some(Finding::Begun(window)) => (self.ceiling, self.step) = (Some(window), self.mtu),
            Some(Finding::Guilty(window)) => {
                (self.ceiling, self.pause) = (Some(window), PAUSE_MOST);
            }
            Some(Finding::Acquitted) => self.ceiling = None,
            None => {}
        }
    }

    fn advance_cycle(&mut self, now: Instant) {
        match self.phase {
            Phase::Cruise { left: 0 } => self.end_cruise(now),
            Phase::Cruise { left } => {
                self.phase = Phase::Cruise { left: left - 1 };
                if self.rival.is_some() && left == RIVAL_CRUISE - RIVAL_LOOK {
                    self.look(now);
                }
            }
            Phase::Crest { rounds, before } => self.crest_round(now, rounds + 1, before),
            Phase::Startup { .. } | Phase::Trough { .. } => {}
        }
    }

    /// Ends start-up when packets come late: what is in flight by then is more than enough.
    fn startup_delay(&mut self, now: Instant, mean: Duration) {
        let Phase::Startup { .. } = self.phase else { return };
        let floor = self.floor.value().unwrap_or_default();
        let late = mean > floor * 9 / 8 + Duration::from_millis(4);
        self.late = if late { self.late + 1 } else { 0 };
        if self.late >= 2 && self.rate() > 0 {
            self.begin_trough(now);
        }
    }

    fn startup_round(&mut self, now: Instant, round: &Round, fullest: u64, flat: u32) {
        let grown = self.rate() >= fullest + fullest / 4;
        let flat = if grown || round.limited { 0 } else { flat + 1 };
        let fullest = if grown { self.rate() } else { fullest };
        let full = flat >= PLATEAU || self.losses.round_above(STARTUP_LOSS);
        if full && !round.limited {
            self.begin_trough(now);
        } else {
            self.phase = Phase::Startup { fullest, flat };
        }
    }

    /// Takes the rate of a round into account.
    fn believe(&mut self, now: Instant, round: &Round) {
        let (Some(rate), Some(floor)) = (round.rate(), self.floor.value()) else { return };
        if round.limited {
            if rate > self.rate() {
                self.rates.push(self.tick, rate);
            }
            return;
        }
        // A queue, and less comes out than we believe: the link is slower now, and waiting until
        // the old rate is forgotten would keep the queue standing.
        let queue = round.delay() * 10 > floor * 13;
        // Once: if the queue does not empty then, it is not for a slower link.
        let slow = rate * 10 < self.rate() * 8 && queue && !self.queue.slowed();
        self.slow = if slow { self.slow + 1 } else { 0 };
        if self.slow >= 2 {
            self.slow = 0;
            self.queue.set_slowed();
            self.rates.clear();
            self.rates.push(self.tick, rate);
            self.begin_trough(now);
        }
        self.rates.push(self.tick, rate);
    }

    fn compete(&mut self, now: Instant, round: &Round) {
        let most = self.holds(16.0);
        let unusual = self.losses.round_exceeds();
        if let Some(rival) = &mut self.rival {
            if unusual {
                rival.shrink(now);
                // All who share the queue lose packets now. If all are our kind, all make room now,
                // see the queue empty, and need no rival any more.
                self.phase = Phase::Trough { deep: true, settled: None };
            } else if !round.limited {
                rival.grow(now, round.delay());
            }
            rival.bound(most, self.mtu);
        }
    }

    /// A cycle ends: is the queue ours?
    fn end_cruise(&mut self, now: Instant) {
        self.careful = self.losses.grows_with_rate();
        if self.rival.is_none() {
            self.look(now);
        }
        // Whoever gives way pushes nobody: what is free is found by the tenth of a cruise.
        let busy = self.rival.is_some() || self.yields();
        if busy || self.trials.is_running() || self.paused < self.pause {
            self.paused += 1;
            self.begin_trough(now);
        } else {
            self.paused = 0;
            self.losses.begin_crest();
            self.phase = Phase::Crest { rounds: 0, before: self.rate() };
        }
    }

    /// What the last trough has shown of the queue.
    fn look(&mut self, now: Instant) {
        let Some(floor) = self.floor.value() else { return };
        let beside = self.rival.is_some();
        let Some(view) = self.queue.judge(floor, self.floor.age(now), beside) else { return };
        match view.verdict {
            Verdict::Empty => self.queue_emptied(),
            Verdict::Risen => {
                self.floor.replace(now, view.least);
                self.queue_emptied();
            }
            Verdict::Crowd => self.careful = true,
            Verdict::Unclear => {}
            Verdict::Rival if self.yields() => self.careful = true,
            Verdict::Rival => {
                let greatest = self.queue.window();
                self.rival = Some(Cubic::new(now, self.window, greatest, self.mtu));
            }
        }
    }

    fn queue_emptied(&mut self) {
        self.rival = None;
        self.queue.emptied(self.window);
    }

    fn crest_round(&mut self, now: Instant, rounds: u32, before: u64) {
        if rounds >= 2 && self.rate() > before + before / 12 {
            // It pays: go on.
            self.phase = Phase::Crest { rounds: 1, before: self.rate() };
        } else if rounds >= 2 {
            if let Some(ceiling) = self.ceiling {
                let tried = ceiling + self.step;
                self.ceiling = (tried < self.holds(CREST)).then_some(tried);
                self.step *= 2;
            }
            (self.pause, self.paused) = (0, 0);
            self.begin_trough(now);
        } else {
            self.phase = Phase::Crest { rounds, before };
        }
    }

    fn crest_spilt(&mut self) {
        self.ceiling = Some(self.ceiling.unwrap_or(0).max(self.holds(1.0)));
        self.step = self.mtu;
        self.pause = (self.pause * 2).clamp(1, PAUSE_MOST);
        self.phase = Phase::Trough { deep: false, settled: None };
    }

    fn begin_trough(&mut self, now: Instant) {
        let deep = self.floor.age(now) > FLOOR_LOOK && self.rival.is_none();
        self.phase = Phase::Trough { deep, settled: None };
    }

    fn advance_trough(&mut self, now: Instant, in_flight: u64) {
        let Phase::Trough { deep, settled } = self.phase else { return };
        let rtt = self.floor.value().unwrap_or_default();
        let Some(since) = settled else {
            if in_flight <= self.target().max(LEAST * self.mtu) {
                self.phase = Phase::Trough { deep, settled: Some(now) };
            }
            return;
        };
        let enough = if deep { rtt } else { rtt / 2 };
        if now.saturating_duration_since(since) >= enough {
            let left = match self.rival {
                Some(_) => RIVAL_CRUISE,
                None => CRUISE_ROUNDS + self.roll(CRUISE_MORE),
            };
            self.phase = Phase::Cruise { left };
        }
    }

    /// Begins anew, with what is still believed as a memory.
    fn restart(&mut self, rate: u64, window: u64) {
        self.start = self.floor.value().map(|rtt| Start { rate, rtt });
        self.phase = Phase::Startup { fullest: 0, flat: 0 };
        self.window = window.max(LEAST * self.mtu);
        self.rates.clear();
        self.trials.stop();
        (self.rival, self.ceiling, self.slow) = (None, None, 0);
    }

    fn settle(&mut self) {
        self.window = self.part.of(self.target()).max(LEAST * self.mtu);
    }

    fn target(&self) -> u64 {
        let spare = SPARE * self.mtu;
        let below = |window: u64, more: u64| match self.ceiling {
            Some(ceiling) => window.min(ceiling + more),
            None => window,
        };
        match self.phase {
            Phase::Startup { .. } => self.window,
            Phase::Trough { deep: true, .. } => below(self.holds(TROUGH_DEEP), 0),
            Phase::Trough { .. } => below(self.holds(TROUGH), 0),
            Phase::Crest { .. } => {
                // What the link loses by nature must not hide what it could carry.
                let usual = self.losses.usual().min(USUAL_MOST);
                below(self.holds(CREST / (1.0 - usual)) + spare, self.step)
            }
            Phase::Cruise { .. } => {
                // Half of what the link loses by nature is made up for here, all of it on a crest:
                // so the rate does not sink, and a loss of our own making does not feed itself.
                let usual = self.losses.usual().min(USUAL_MOST);
                let careful = self.careful && !self.yields();
                let gain = if careful { CRUISE_CAREFUL } else { CRUISE / (1.0 - usual / 2.0) };
                let spare = if careful { 0 } else { spare };
                let own = below(self.holds(gain) + spare, 0);
                own.max(self.rival.as_ref().map_or(0, |rival| rival.window(self.mtu)))
            }
        }
    }

    /// Bytes that the path holds, times a gain.
    fn holds(&self, gain: f64) -> u64 {
        let delay = self.floor.value().unwrap_or_default() + HOST_DELAY;
        (self.rate() as f64 * delay.as_secs_f64() * gain) as u64
    }

    fn load(&self) -> Load {
        match self.phase {
            // Beside a rival, losses say nothing of the link's nature.
            _ if self.rival.is_some() => Load::Crest,
            Phase::Startup { .. } | Phase::Crest { .. } => Load::Crest,
            Phase::Cruise { .. } | Phase::Trough { .. } if self.trials.is_running() => Load::Trial,
            Phase::Cruise { .. } => Load::Cruise,
            Phase::Trough { settled: Some(_), .. } => Load::Trough,
            Phase::Trough { .. } => Load::Crest,
        }
    }

    fn packets(&self, bytes: u64) -> f64 {
        bytes as f64 / self.mtu as f64
    }

    /// A number below `sides` (splitmix64).
    fn roll(&mut self, sides: u64) -> u64 {
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.dice;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }
}
