//! An emulated link between QUIC endpoints of one process, without sockets, in the time of tokio.
//!
//! With tokio's clock paused, minutes pass in seconds: quinn takes its time from its runtime, the
//! sockets here deliver by the same clock, and when nobody has anything to do the clock jumps to
//! the next deadline. Both ends have any number of sockets, so that several flows can share the
//! link.
//!
//! tokio's clock counts milliseconds, so packets arrive in bunches of one. That is about what a
//! busy host does as well; it is no place to measure links below some milliseconds.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::{self, Debug, Formatter};
use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use quinn::udp::{EcnCodepoint, RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Counters, Engine, Profile, ShapeError, segments};

/// What IPv4 and UDP add to a datagram.
const HEADERS: usize = 28;
/// Datagrams that may wait for a socket to be read; what comes on top is dropped, as a kernel does.
const UNREAD: usize = 8_192;

/// An end of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that packets down come from: a parent.
    Above,
    /// The one they go to.
    Below,
}

struct Datagram {
    from: SocketAddr,
    to: SocketAddr,
    ecn: Option<EcnCodepoint>,
    bytes: Vec<u8>,
}

#[derive(Default)]
struct Inbox {
    waiting: VecDeque<Datagram>,
    reader: Option<Waker>,
}

struct Wires {
    down: Engine<Datagram>,
    up: Engine<Datagram>,
    inboxes: BTreeMap<SocketAddr, Inbox>,
    next_port: u16,
}

/// A link with its sockets.
#[derive(Clone)]
pub struct MemoryLink {
    wires: Arc<Mutex<Wires>>,
    origin: Instant,
    pushed: Arc<Notify>,
}

impl MemoryLink {
    /// A link of this kind. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// A number of the profile makes no sense.
    pub fn new(profile: Profile, seed: u64) -> Result<MemoryLink, ShapeError> {
        let wires = Wires {
            down: Engine::new(profile.down, seed)?,
            up: Engine::new(profile.up, seed ^ 0x5555)?,
            inboxes: BTreeMap::new(),
            next_port: 1,
        };
        let wires = Arc::new(Mutex::new(wires));
        let link = MemoryLink { wires, origin: Instant::now(), pushed: Arc::default() };
        tokio::spawn(link.clone().carry());
        Ok(link)
    }

    /// A new socket at an end.
    pub fn socket(&self, side: Side) -> Arc<MemorySocket> {
        let mut wires = self.wires();
        let host = match side {
            Side::Above => Ipv4Addr::new(10, 0, 0, 1),
            Side::Below => Ipv4Addr::new(10, 0, 0, 2),
        };
        let addr = SocketAddr::from((host, wires.next_port));
        wires.next_port += 1;
        wires.inboxes.insert(addr, Inbox::default());
        drop(wires);
        Arc::new(MemorySocket { link: self.clone(), side, addr })
    }

    /// What has become of all packets so far: down, up.
    pub fn counters(&self) -> (Counters, Counters) {
        let now = self.origin.elapsed();
        let mut wires = self.wires();
        (wires.down.counters(now), wires.up.counters(now))
    }

    /// Moves packets from the wires to the inboxes, for as long as the runtime lives.
    async fn carry(self) {
        loop {
            let deadline = self.deliver();
            let pushed = self.pushed.notified();
            match deadline {
                Some(deadline) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(self.origin + deadline) => {}
                        () = pushed => {}
                    }
                }
                None => pushed.await,
            }
        }
    }

    fn deliver(&self) -> Option<std::time::Duration> {
        let now = self.origin.elapsed();
        let mut wires = self.wires();
        let Wires { down, up, inboxes, .. } = &mut *wires;
        for engine in [&mut *down, &mut *up] {
            while let Some(datagram) = engine.poll(now) {
                let Some(inbox) = inboxes.get_mut(&datagram.to) else { continue };
                if inbox.waiting.len() < UNREAD {
                    inbox.waiting.push_back(datagram);
                }
                if let Some(reader) = inbox.reader.take() {
                    reader.wake();
                }
            }
        }
        [down.next_deadline(), up.next_deadline()].into_iter().flatten().min()
    }

    fn wires(&self) -> MutexGuard<'_, Wires> {
        self.wires.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A socket of a [`MemoryLink`].
pub struct MemorySocket {
    link: MemoryLink,
    side: Side,
    addr: SocketAddr,
}

impl Debug for MemorySocket {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "MemorySocket({})", self.addr)
    }
}

impl AsyncUdpSocket for MemorySocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let now = self.link.origin.elapsed();
        let mut wires = self.link.wires();
        for bytes in segments(transmit.contents, transmit.segment_size) {
            let datagram = Datagram {
                from: self.addr,
                to: transmit.destination,
                ecn: transmit.ecn,
                bytes: bytes.to_vec(),
            };
            let engine = match self.side {
                Side::Above => &mut wires.down,
                Side::Below => &mut wires.up,
            };
            engine.push(now, bytes.len() + HEADERS, datagram);
        }
        drop(wires);
        self.link.pushed.notify_one();
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut wires = self.link.wires();
        let Some(inbox) = wires.inboxes.get_mut(&self.addr) else { return Poll::Pending };
        let mut count = 0;
        for (buf, meta) in bufs.iter_mut().zip(meta) {
            let Some(datagram) = inbox.waiting.pop_front() else { break };
            let len = datagram.bytes.len().min(buf.len());
            buf[..len].copy_from_slice(&datagram.bytes[..len]);
            *meta = RecvMeta {
                addr: datagram.from,
                len,
                stride: len,
                ecn: datagram.ecn,
                dst_ip: Some(self.addr.ip()),
            };
            count += 1;
        }
        if count > 0 {
            return Poll::Ready(Ok(count));
        }
        inbox.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addr)
    }

    fn max_transmit_segments(&self) -> usize {
        10
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

/// The wires take everything; what has no room is dropped there.
#[derive(Debug)]
struct Writable;

impl UdpPoller for Writable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
