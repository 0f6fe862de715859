//! The controller as quinn wants it.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use quinn_proto::RttEstimator;
use quinn_proto::congestion::{Controller, ControllerFactory, ControllerMetrics};

use super::control::{Control, Start};

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
/// start.
pub fn known(conn: &quinn::Connection) -> Option<Start> {
    conn.congestion_state().into_any().downcast::<Control>().ok()?.known()
}

impl ControllerFactory for Wan {
    fn build(self: Arc<Self>, _now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let seed = self.built.fetch_add(1, Ordering::Relaxed);
        let control = Control::new(self.initial_window, current_mtu.into(), self.start, seed);
        Box::new(Adapter(control))
    }
}

#[derive(Clone)]
struct Adapter(Control);

impl Controller for Adapter {
    fn on_sent(&mut self, now: Instant, _bytes: u64, _last_packet_number: u64) {
        self.0.on_sent(now);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        _app_limited: bool,
        _rtt: &RttEstimator,
    ) {
        self.0.on_acked(now, sent, bytes);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        _largest_packet_num_acked: Option<u64>,
    ) {
        self.0.on_end(now, in_flight, app_limited);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        match (is_persistent_congestion, lost_bytes) {
            (_, 0) => self.0.on_mark(now),
            (true, _) => self.0.on_outage(),
            (false, bytes) => self.0.on_lost(sent, bytes),
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.0.on_mtu(new_mtu.into());
    }

    fn window(&self) -> u64 {
        self.0.window()
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = ControllerMetrics::default();
        metrics.congestion_window = self.0.window();
        metrics.pacing_rate = Some(self.0.rate() * 8);
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.0.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        Box::new(self.0)
    }
}
