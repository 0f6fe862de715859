//! A link under the real clock: both directions of it, in a thread of its own.
//!
//! What carries the packets in and out is a [`Carrier`]: sockets or TUN devices. The thread sleeps
//! until something can be read or something arrives; a [`Link`] is what others hold of it, to read
//! the counters and to change the link while it runs. Dropped, it ends the thread.
//!
//! Precision is that of the kernel's timers, some 0.1 ms, and of the scheduler: on a machine that
//! is out of processor time a link is late, never early.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use thiserror::Error;

use super::{Blackout, Counters, Engine, Profile, Shape, ShapeError};

/// Packets read from one descriptor before others have their turn.
pub(super) const BATCH: usize = 128;

/// A direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Towards the site.
    Down,
    /// From the site.
    Up,
}

/// Why there is no link.
#[derive(Debug, Error)]
pub enum LinkError {
    /// The numbers make no sense.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// The system refuses something. Nothing is left behind.
    #[error("an emulated link cannot {what}")]
    System {
        /// Do what.
        what: String,
        /// Why.
        source: io::Error,
    },
}

impl LinkError {
    /// For `map_err`.
    pub(super) fn system<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        |source| LinkError::System { what, source: source.into() }
    }
}

/// A packet on an emulated link.
pub(super) struct Packet {
    /// To which of a carrier's flows it belongs.
    pub(super) flow: u64,
    pub(super) bytes: Vec<u8>,
}

/// Brings packets in and takes them out.
pub(super) trait Carrier: Send + 'static {
    /// What is to be waited for. All of it is in non-blocking mode.
    fn fds(&self) -> Vec<BorrowedFd<'_>>;

    /// Reads what has come, at most [`BATCH`] packets from each descriptor. `ready` goes with
    /// [`Carrier::fds`]. The sink takes a packet and the bytes of the link's rate that it takes.
    fn read(&mut self, ready: &[bool], sink: &mut dyn FnMut(Way, usize, Packet));

    /// Takes a packet out. False: the system has not taken it.
    fn write(&mut self, way: Way, packet: Packet) -> bool;
}

/// Both directions.
struct Pair {
    down: Engine<Packet>,
    up: Engine<Packet>,
    unsent: u64,
}

impl Pair {
    fn way(&mut self, way: Way) -> &mut Engine<Packet> {
        match way {
            Way::Down => &mut self.down,
            Way::Up => &mut self.up,
        }
    }
}

/// What has happened on a link.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    /// Towards the site.
    pub down: Counters,
    /// From the site.
    pub up: Counters,
    /// Packets that had arrived, and that the system would not take: a full socket, a flow that was
    /// forgotten. In a healthy laboratory there are none.
    pub unsent: u64,
}

struct Shared {
    begun: Instant,
    pair: Mutex<Pair>,
    wake: OwnedFd,
    stop: AtomicBool,
}

impl Shared {
    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// A thread that panicked with the lock has left sound numbers behind.
    fn pair(&self) -> MutexGuard<'_, Pair> {
        self.pair.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // It fails only when the counter is full, and then the thread is being woken already.
        rustix::io::write(&self.wake, &1_u64.to_ne_bytes()).ok();
    }
}

/// A link that runs. It ends when this is dropped.
pub struct Link {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Link {
    /// Starts the thread.
    pub(super) fn start(
        carrier: impl Carrier,
        profile: &Profile,
        seed: u64,
    ) -> Result<Link, LinkError> {
        let pair = Pair {
            down: Engine::new(profile.down.clone(), seed)?,
            up: Engine::new(profile.up.clone(), seed ^ 1)?,
            unsent: 0,
        };
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let wake = eventfd(0, flags).map_err(LinkError::system("make an eventfd"))?;
        let shared = Arc::new(Shared {
            begun: Instant::now(),
            pair: Mutex::new(pair),
            wake,
            stop: AtomicBool::new(false),
        });
        let theirs = shared.clone();
        let thread = std::thread::Builder::new()
            .name("wan-link".into())
            .spawn(move || pump(carrier, &theirs))
            .map_err(LinkError::system("start a thread"))?;
        Ok(Link { shared, thread: Some(thread) })
    }

    /// What has happened so far.
    pub fn traffic(&self) -> Traffic {
        let mut pair = self.shared.pair();
        let now = self.shared.now();
        Traffic { down: pair.down.counters(now), up: pair.up.counters(now), unsent: pair.unsent }
    }

    /// Changes what a direction is like.
    ///
    /// # Errors
    /// The numbers make no sense. Nothing has changed.
    pub fn reshape(&self, way: Way, shape: Shape) -> Result<(), ShapeError> {
        let mut pair = self.shared.pair();
        let now = self.shared.now();
        pair.way(way).reshape(now, shape)?;
        drop(pair);
        self.shared.wake();
        Ok(())
    }

    /// Nothing comes through for so long from now on, either way.
    pub fn darken(&self, length: Duration) {
        let mut pair = self.shared.pair();
        let from = self.shared.now();
        for way in [Way::Down, Way::Up] {
            pair.way(way).darken(from, Blackout { from, length, every: None });
        }
    }

    /// Switches both directions off, or on again.
    pub fn switch(&self, on: bool) {
        let mut pair = self.shared.pair();
        let now = self.shared.now();
        pair.down.switch(now, on);
        pair.up.switch(now, on);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed there.
            thread.join().ok();
        }
    }
}

fn pump(mut carrier: impl Carrier, shared: &Shared) {
    let mut deadline = None;
    while !shared.stop.load(Ordering::Relaxed) {
        let ready = wait(&carrier, shared, deadline);
        let mut pair = shared.pair();
        let now = shared.now();
        carrier.read(&ready, &mut |way, size, packet| {
            pair.way(way).push(now, size, packet);
        });
        for way in [Way::Down, Way::Up] {
            while let Some(packet) = pair.way(way).poll(now) {
                pair.unsent += u64::from(!carrier.write(way, packet));
            }
        }
        let deadlines = [pair.down.next_deadline(), pair.up.next_deadline()];
        deadline = deadlines.into_iter().flatten().min();
    }
}

/// Sleeps until a descriptor can be read, the deadline comes, or somebody wakes the thread. Returns
/// which of the carrier's descriptors can be read.
fn wait(carrier: &impl Carrier, shared: &Shared, deadline: Option<Duration>) -> Vec<bool> {
    let fds = carrier.fds();
    let wake = std::iter::once(shared.wake.as_fd());
    let mut polled: Vec<_> =
        wake.chain(fds).map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
    let timeout = deadline.map(|at| at.saturating_sub(shared.now()));
    let timeout = timeout.and_then(|left| Timespec::try_from(left).ok());
    // Interrupted or refused: the next round asks again, and reading never blocks.
    poll(&mut polled, timeout.as_ref()).ok();
    let ready: Vec<_> = polled.iter().map(|fd| !fd.revents().is_empty()).collect();
    if ready.first() == Some(&true) {
        rustix::io::read(&shared.wake, &mut [0; 8]).ok();
    }
    ready.into_iter().skip(1).collect()
}
