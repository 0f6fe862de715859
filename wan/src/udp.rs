//! An emulated link for datagrams, in process and without privileges.
//!
//! Clients send to the address of the link instead of the target's; each client gets a socket of
//! its own towards the target, as behind a NAT. Up is from the clients to the target, since it is
//! the site that dials. Each datagram takes its payload and the IP and UDP headers of the rate.
//!
//! A batch that a client sends in one call arrives here as single datagrams, because the sockets of
//! the link do not ask for batches (GRO): the kernel takes it apart.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Domain, Protocol, Socket, Type};

use super::Profile;
use super::pump::{BATCH, Carrier, Link, LinkError, Packet, Way};

/// Clients at once. One more, and the one that was silent for longest is forgotten.
pub const FLOWS: usize = 512;
/// What the kernel may hold for a socket until the thread reads it; the kernel may grant less.
const SOCKET_BUFFER: usize = 4 << 20;
/// No datagram is longer.
const LONGEST: usize = 65_535;

/// A link to one target. It ends when this is dropped.
pub struct UdpLink {
    address: SocketAddr,
    link: Link,
}

impl UdpLink {
    /// Listens at an address (port 0 is any) for what goes to `target`.
    ///
    /// # Errors
    /// The address cannot be listened at, or the profile makes no sense.
    pub fn start(
        listen: SocketAddr,
        target: SocketAddr,
        profile: &Profile,
        seed: u64,
    ) -> Result<UdpLink, LinkError> {
        UdpLink::with_flows(FLOWS, listen, target, profile, seed)
    }

    fn with_flows(
        limit: usize,
        listen: SocketAddr,
        target: SocketAddr,
        profile: &Profile,
        seed: u64,
    ) -> Result<UdpLink, LinkError> {
        let socket = open(listen).map_err(LinkError::system(format!("listen at {listen}")))?;
        let address = socket.local_addr().map_err(LinkError::system("tell its address"))?;
        let relay = Relay {
            socket,
            target,
            headers: if target.is_ipv4() { 28 } else { 48 },
            limit,
            flows: BTreeMap::new(),
            by_client: HashMap::new(),
            next: 0,
            round: 0,
            buffer: vec![0; LONGEST],
        };
        Ok(UdpLink { address, link: Link::start(relay, profile, seed)? })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Counters and switches.
    pub fn link(&self) -> &Link {
        &self.link
    }
}

struct Relay {
    socket: UdpSocket,
    target: SocketAddr,
    headers: usize,
    limit: usize,
    flows: BTreeMap<u64, Flow>,
    by_client: HashMap<SocketAddr, u64>,
    next: u64,
    /// Counts what clients have sent, to know who was silent for longest.
    round: u64,
    buffer: Vec<u8>,
}

struct Flow {
    client: SocketAddr,
    socket: UdpSocket,
    heard: u64,
}

impl Carrier for Relay {
    fn fds(&self) -> Vec<BorrowedFd<'_>> {
        let flows = self.flows.values().map(|flow| flow.socket.as_fd());
        std::iter::once(self.socket.as_fd()).chain(flows).collect()
    }

    fn read(&mut self, ready: &[bool], sink: &mut dyn FnMut(Way, usize, Packet)) {
        let (own, theirs) = ready.split_first().unwrap_or((&false, &[]));
        // The flows first: reading from clients may change which there are.
        for ((no, flow), _) in self.flows.iter().zip(theirs).filter(|(_, ready)| **ready) {
            for _ in 0..BATCH {
                let Ok(len) = flow.socket.recv(&mut self.buffer) else { break };
                let bytes = self.buffer[..len].to_vec();
                sink(Way::Down, len + self.headers, Packet { flow: *no, bytes });
            }
        }
        for _ in 0..if *own { BATCH } else { 0 } {
            let Ok((len, client)) = self.socket.recv_from(&mut self.buffer) else { break };
            let bytes = self.buffer[..len].to_vec();
            // Without a socket to spare the datagram is lost, as on any busy router.
            if let Ok(flow) = self.flow(client) {
                sink(Way::Up, len + self.headers, Packet { flow, bytes });
            }
        }
    }

    fn write(&mut self, way: Way, packet: Packet) -> bool {
        let Some(flow) = self.flows.get(&packet.flow) else { return false };
        let send = || match way {
            Way::Up => flow.socket.send(&packet.bytes),
            Way::Down => self.socket.send_to(&packet.bytes, flow.client),
        };
        match send() {
            // The refusal of an earlier datagram, as a word from the target's host: this one has
            // not been tried yet.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => send().is_ok(),
            sent => sent.is_ok(),
        }
    }
}

impl Relay {
    /// The flow of a client, made if it is new.
    fn flow(&mut self, client: SocketAddr) -> io::Result<u64> {
        self.round += 1;
        if let Some(no) = self.by_client.get(&client)
            && let Some(flow) = self.flows.get_mut(no)
        {
            flow.heard = self.round;
            return Ok(*no);
        }
        let any: IpAddr = match self.target {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = open(SocketAddr::new(any, 0))?;
        socket.connect(self.target)?;
        if self.flows.len() >= self.limit
            && let Some((no, _)) = self.flows.iter().min_by_key(|(_, flow)| flow.heard)
        {
            let no = *no;
            if let Some(flow) = self.flows.remove(&no) {
                self.by_client.remove(&flow.client);
            }
        }
        self.next += 1;
        self.flows.insert(self.next, Flow { client, socket, heard: self.round });
        self.by_client.insert(client, self.next);
        Ok(self.next)
    }
}

fn open(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    // Best effort: a small buffer shows as datagrams lost before the link.
    socket.set_recv_buffer_size(SOCKET_BUFFER).ok();
    socket.set_send_buffer_size(SOCKET_BUFFER).ok();
    socket.bind(&address.into())?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use anyhow::{Context, Result, ensure};

    use super::super::{Loss, Shape, Traffic};
    use super::*;

    /// How long anything that should happen may take.
    const LIMIT: Duration = Duration::from_secs(60);

    fn any() -> SocketAddr {
        (Ipv4Addr::LOCALHOST, 0).into()
    }

    fn bound() -> Result<UdpSocket> {
        let socket = UdpSocket::bind(any())?;
        socket.set_read_timeout(Some(LIMIT))?;
        Ok(socket)
    }

    /// A socket of a client, a link, and the target behind it.
    fn path(profile: &Profile) -> Result<(UdpSocket, UdpLink, UdpSocket)> {
        let target = bound()?;
        let link = UdpLink::start(any(), target.local_addr()?, profile, 3)?;
        let client = bound()?;
        client.connect(link.address())?;
        Ok((client, link, target))
    }

    fn text(socket: &UdpSocket) -> Result<(String, SocketAddr)> {
        let mut buffer = [0; 2000];
        let (len, from) = socket.recv_from(&mut buffer).context("waiting for a datagram")?;
        Ok((String::from_utf8(buffer[..len].to_vec())?, from))
    }

    fn settled(link: &UdpLink, ready: impl Fn(&Traffic) -> bool) -> Result<Traffic> {
        let until = Instant::now() + LIMIT;
        loop {
            let traffic = link.link().traffic();
            if ready(&traffic) {
                return Ok(traffic);
            }
            ensure!(Instant::now() < until, "the link never got there: {traffic:?}");
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }

    #[test]
    fn datagrams_cross_both_ways_and_never_early() -> Result<()> {
        let shape = |ms| Shape { delay: Duration::from_millis(ms), ..Shape::open() };
        let profile = Profile { down: shape(30), up: shape(20) };
        let (client, link, target) = path(&profile)?;
        let begun = Instant::now();
        client.send(b"there")?;
        let (word, from) = text(&target)?;
        assert_eq!(word, "there");
        assert!(begun.elapsed() >= Duration::from_millis(20), "{:?}", begun.elapsed());
        target.send_to(b"and back", from)?;
        assert_eq!(text(&client)?, ("and back".into(), link.address()));
        assert!(begun.elapsed() >= Duration::from_millis(50), "{:?}", begun.elapsed());
        let traffic = settled(&link, |traffic| traffic.down.delivered.packets == 1)?;
        // The payload, 20 bytes of IP and 8 of UDP.
        assert_eq!((traffic.up.delivered.bytes, traffic.down.delivered.bytes), (33, 36));
        Ok(())
    }

    #[test]
    fn each_client_gets_its_own_answers() -> Result<()> {
        let (_, link, target) = path(&Profile::even(Shape::open()))?;
        let clients = (0..20).map(|_| bound()).collect::<Result<Vec<_>>>()?;
        for (no, client) in clients.iter().enumerate() {
            client.send_to(no.to_string().as_bytes(), link.address())?;
        }
        for _ in &clients {
            let (word, from) = text(&target)?;
            target.send_to(format!("to {word}").as_bytes(), from)?;
        }
        for (no, client) in clients.iter().enumerate() {
            assert_eq!(text(client)?.0, format!("to {no}"));
        }
        Ok(())
    }

    #[test]
    fn one_client_too_many_and_the_most_silent_is_forgotten() -> Result<()> {
        let target = bound()?;
        let open = Profile::even(Shape::open());
        let link = UdpLink::with_flows(2, any(), target.local_addr()?, &open, 3)?;
        let clients = (0..3).map(|_| bound()).collect::<Result<Vec<_>>>()?;
        let mut seen = Vec::new();
        for at in [0, 1, 0, 2, 0, 1] {
            clients[at].send_to(at.to_string().as_bytes(), link.address())?;
            seen.push(text(&target)?.1);
        }
        let again = |a: usize, b: usize| seen[a] == seen[b];
        assert!(again(0, 2) && again(0, 4), "the one that speaks is kept: {seen:?}");
        assert!(!again(1, 5), "the silent one has come as a new flow: {seen:?}");
        // What comes for a flow that was forgotten goes nowhere.
        target.send_to(b"late", seen[1])?;
        target.send_to(b"in time", seen[5])?;
        assert_eq!(text(&clients[1])?.0, "in time");
        Ok(())
    }

    #[test]
    fn every_datagram_is_counted_and_a_share_of_them_is_lost() -> Result<()> {
        let shape = Shape { loss: Loss::Random(0.5), ..Shape::open() };
        let (client, link, target) = path(&Profile::even(shape))?;
        let sent = 400;
        for no in 0..sent {
            client.send(b"0123456789")?;
            // One at a time, so that no socket overflows.
            settled(&link, |traffic| traffic.up.pushed.packets == no + 1)?;
        }
        let up = link.link().traffic().up;
        assert_eq!(up.delivered.packets + up.lost.packets, sent, "{up:?}");
        // Ten standard deviations.
        assert!((100..300).contains(&up.lost.packets), "{up:?}");
        for _ in 0..up.delivered.packets {
            text(&target)?;
        }
        target.set_nonblocking(true)?;
        assert!(text(&target).is_err(), "more has arrived than was counted");
        Ok(())
    }

    #[test]
    fn a_link_is_never_faster_than_its_rate() -> Result<()> {
        let shape = Shape { rate: Some(8_000_000), ..Shape::open() };
        let (client, link, target) = path(&Profile::even(shape))?;
        let begun = Instant::now();
        for _ in 0..100 {
            client.send(&[b'x'; 972])?;
        }
        for _ in 0..100 {
            text(&target)?;
        }
        // 100 times 1000 bytes at one byte a microsecond.
        assert!(begun.elapsed() >= Duration::from_millis(100), "{:?}", begun.elapsed());
        assert!(link.link().traffic().up.queue_high > 1000);
        Ok(())
    }

    #[test]
    fn it_can_be_switched_and_reshaped_while_it_runs() -> Result<()> {
        let (client, link, target) = path(&Profile::even(Shape::open()))?;
        link.link().switch(false);
        client.send(b"into the dark")?;
        settled(&link, |traffic| traffic.up.blacked_out.packets == 1)?;
        link.link().switch(true);
        client.send(b"seen")?;
        assert_eq!(text(&target)?.0, "seen");
        let far = Shape { delay: Duration::from_secs(3600), ..Shape::open() };
        link.link().reshape(Way::Up, far)?;
        client.send(b"in an hour")?;
        settled(&link, |traffic| traffic.up.held.packets == 1)?;
        let nothing = Shape { rate: Some(0), ..Shape::open() };
        assert!(link.link().reshape(Way::Down, nothing).is_err());
        Ok(())
    }

    #[test]
    fn a_target_that_nobody_listens_at_breaks_nothing() -> Result<()> {
        let (client, link, target) = path(&Profile::even(Shape::open()))?;
        let address = target.local_addr()?;
        drop(target);
        for no in 1..=3 {
            client.send(b"anybody?")?;
            settled(&link, |traffic| traffic.up.delivered.packets == no)?;
        }
        let target = UdpSocket::bind(address)?;
        target.set_read_timeout(Some(LIMIT))?;
        client.send(b"now?")?;
        assert_eq!(text(&target)?.0, "now?");
        Ok(())
    }
}
