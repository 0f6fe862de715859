//! An emulated link for any protocol, between two network namespaces. Needs root.
//!
//! Each end is a TUN device: what the kernel of one namespace routes into its device comes out of
//! the other one, if and when the engine says so. The kernel has taken batches apart by then (no
//! offload is switched on), and each packet takes its IP length of the rate.
//!
//! It makes the devices, and no address or route: that is the laboratory's.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::ioctl::{Opcode, Setter, ioctl, opcode};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::Profile;
use super::pump::{BATCH, Carrier, Link, LinkError, Packet, Way};

/// Longer than any packet of a device whose MTU is the usual 1500.
const LONGEST: usize = 65_535;
/// From the kernel's `if_tun.h`: packets without Ethernet, and without a header of the driver's.
const IFF_TUN: i16 = 0x0001;
const IFF_NO_PI: i16 = 0x1000;
/// Longest name of a device, with the zero at its end.
const NAME: usize = 16;

/// Where one end of a link goes.
#[derive(Clone, Debug)]
pub struct End {
    /// A namespace as `ip netns` names it.
    pub namespace: String,
    /// The name of the device, at most 15 bytes.
    pub device: String,
}

/// A link between two namespaces. It and its devices end when this is dropped.
pub struct TunLink {
    link: Link,
}

impl TunLink {
    /// Makes the devices and starts the link. The devices are down and have no addresses.
    ///
    /// # Errors
    /// No privileges, no TUN driver, no such namespace, a name that is taken or too long, or a
    /// profile that makes no sense.
    pub fn start(
        root: &End,
        site: &End,
        profile: &Profile,
        seed: u64,
    ) -> Result<TunLink, LinkError> {
        let ends = Ends { root: open(root)?, site: open(site)?, buffer: vec![0; LONGEST] };
        Ok(TunLink { link: Link::start(ends, profile, seed)? })
    }

    /// Counters and switches.
    pub fn link(&self) -> &Link {
        &self.link
    }
}

struct Ends {
    root: OwnedFd,
    site: OwnedFd,
    buffer: Vec<u8>,
}

impl Carrier for Ends {
    fn fds(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.root.as_fd(), self.site.as_fd()]
    }

    fn read(&mut self, ready: &[bool], sink: &mut dyn FnMut(Way, usize, Packet)) {
        for ((fd, way), ready) in [(&self.root, Way::Down), (&self.site, Way::Up)].iter().zip(ready)
        {
            for _ in 0..if *ready { BATCH } else { 0 } {
                let Ok(len) = rustix::io::read(fd, &mut self.buffer) else { break };
                sink(*way, len, Packet { flow: 0, bytes: self.buffer[..len].to_vec() });
            }
        }
    }

    fn write(&mut self, way: Way, packet: Packet) -> bool {
        let fd = match way {
            Way::Down => &self.site,
            Way::Up => &self.root,
        };
        rustix::io::write(fd, &packet.bytes).is_ok()
    }
}

/// The kernel's `struct ifreq`, as far as this request reads it.
#[repr(C)]
struct Request {
    name: [u8; NAME],
    flags: i16,
    rest: [u8; 22],
}

/// Makes a device. It lives where the thread was that asked for it.
fn open(end: &End) -> Result<OwnedFd, LinkError> {
    let what = || format!("make the device {} in the namespace {}", end.device, end.namespace);
    let mut name = [0; NAME];
    if end.device.len() >= NAME {
        let source = io::Error::other("the name has more than 15 bytes");
        return Err(LinkError::System { what: what(), source });
    }
    name[..end.device.len()].copy_from_slice(end.device.as_bytes());
    let made = inside(&end.namespace, || {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::open("/dev/net/tun", flags, Mode::empty())?;
        attach(&fd, name)?;
        Ok(fd)
    });
    made.map_err(LinkError::system(what()))
}

/// Does something in a network namespace, in a thread that goes there. What it opens stays there.
pub fn inside<T: Send>(
    namespace: &str,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    let file = File::open(Path::new("/run/netns").join(namespace))?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
            work()
        });
        thread.join().unwrap_or_else(|_| Err(io::Error::other("its thread panicked")))
    })
}

#[allow(unsafe_code, reason = "a request to the TUN driver goes by ioctl, and by no other way")]
fn attach(fd: &OwnedFd, name: [u8; NAME]) -> rustix::io::Result<()> {
    const TUNSETIFF: Opcode = opcode::write::<i32>(b'T', 202);
    let request = Request { name, flags: IFF_TUN | IFF_NO_PI, rest: [0; 22] };
    // SAFETY: TUNSETIFF reads a `struct ifreq`, 40 bytes, from the pointer, and `Request` is as
    // long and lives through the call. The kernel writes the name back into it, which nobody reads.
    unsafe { ioctl(fd, Setter::<TUNSETIFF, Request>::new(request)) }
}
