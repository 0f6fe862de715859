//! The controller as quinn wants it, and quinn's CUBIC on paths that are too short for it.
//!
//! On a path of less than three milliseconds (a building, a machine) the delay of the hosts is more
//! than that of the path, so a model of the path means nothing; what is lost there was lost in a
//! full buffer, and a full buffer is soon empty. That is what CUBIC is for.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use quinn_proto::RttEstimator;
use quinn_proto::congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig};

use super::control::{Control, Start};

/// A path that has carried so many bytes in a second (12 Mbit/s) is not weak.
const STRONG: u64 = 1_500_000;

/// Makes controllers for weak links; one for each path of a connection.
#[derive(Debug)]
pub struct Wan {
    initial_window: u64,
    start: Option<Start>,
    built: AtomicU64,
}

impl Default for Wan {
    fn default() -> Wan {
        Wan { initial_window: 32 * 1_200, start: None, built: AtomicU64::new(0) }
    }
}

impl Wan {
    /// Bytes in flight before anything is known of the path: 32 packets, unless set.
    pub fn initial_window(mut self, bytes: u64) -> Wan {
        self.initial_window = bytes;
        self
    }

    /// What the link could do when it was last used. If its delay proves to be the same, the
    /// controller starts with half of that in flight.
    pub fn start(mut self, start: Option<Start>) -> Wan {
        self.start = start;
        self
    }

    /// The numbers of the controllers that will be built begin here; they decide when a controller
    /// probes, so that two of them seldom do it at once. Tests want them known.
    pub fn seed(self, seed: u64) -> Wan {
        self.built.store(seed, Ordering::Relaxed);
        self
    }
}

/// What a connection has learnt of its path, if this controller drives it and has got beyond its
/// start, and if the path is not a short one.
pub fn known(conn: &quinn::Connection) -> Option<Start> {
    let control = conn.congestion_state().into_any().downcast::<Control>().ok()?;
    control.known().filter(|_| !control.is_local())
}

/// Bytes a second that a path was seen to carry. A short one carries at least what it has carried
/// within a second; less than [`STRONG`] may be all that there was to send.
pub(crate) fn carries(conn: &quinn::Connection) -> Option<u64> {
    let control = conn.congestion_state().into_any().downcast::<Control>().ok()?;
    match control.is_local() {
        true => Some(control.busiest()).filter(|rate| *rate >= STRONG),
        false => control.known().map(|known| known.rate),
    }
}

/// Whether a path is so short that it is left to CUBIC.
pub(crate) fn is_short(conn: &quinn::Connection) -> bool {
    let control = conn.congestion_state().into_any().downcast::<Control>();
    control.is_ok_and(|control| control.is_local())
}

/// Tells the controller of a connection whether to give way to everybody else.
pub(crate) fn set_yields(conn: &quinn::Connection, yields: bool) {
    if let Ok(control) = conn.congestion_state().into_any().downcast::<Control>() {
        control.set_yields(yields);
    }
}

/// Whether the controller of a connection gives way.
pub(crate) fn yields(conn: &quinn::Connection) -> bool {
    let control = conn.congestion_state().into_any().downcast::<Control>();
    control.is_ok_and(|control| control.yields())
}

impl ControllerFactory for Wan {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let seed = self.built.fetch_add(1, Ordering::Relaxed);
        let own = Control::new(self.initial_window, current_mtu.into(), self.start, seed);
        let local = Arc::new(CubicConfig::default()).build(now, current_mtu);
        Box::new(Adapter { own, local })
    }
}

/// Both controllers are told everything; the length of the path decides whose window counts.
struct Adapter {
    own: Control,
    local: Box<dyn Controller>,
}

impl Controller for Adapter {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.own.on_sent(now);
        self.local.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        self.own.on_acked(now, sent, bytes);
        self.local.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        self.own.on_end(now, in_flight, app_limited);
        self.local.on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        match (is_persistent_congestion, lost_bytes) {
            (_, 0) => self.own.on_mark(now),
            (true, _) => self.own.on_outage(),
            (false, bytes) => self.own.on_lost(sent, bytes),
        }
        self.local.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.own.on_mtu(new_mtu.into());
        self.local.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        match (self.own.is_local(), self.own.yields()) {
            (true, true) => self.local.window().min(self.own.window()),
            (true, false) => self.local.window(),
            (false, _) => self.own.window(),
        }
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = ControllerMetrics::default();
        metrics.congestion_window = self.window();
        metrics.pacing_rate = Some(self.own.rate() * 8);
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Adapter { own: self.own.clone(), local: self.local.clone_box() })
    }

    fn initial_window(&self) -> u64 {
        self.own.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        Box::new(self.own)
    }
}
