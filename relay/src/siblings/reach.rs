//! What bounds the parent's word where a host dials its siblings.
//!
//! The parent names an address and a key. A host sends a handshake there and nothing more unless
//! it is answered with that key; but a parent that lies could have every host below it send
//! handshakes to whom it likes. So they go only to where a host can be, and if several were in vain
//! the host is not willing any more for a while. An honest parent gives up sooner.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Handshakes that may have been in vain within [`MEMORY`]: of as many objects as a host pulls at
/// once, twice.
const VAIN: usize = 16;
const MEMORY: Duration = Duration::from_secs(600);
/// Hosts dial from ports that the system has chosen; below are services of other kinds.
const FIRST_PORT: u16 = 1_024;

/// Handshakes that were begun and not answered, and when.
#[derive(Default)]
pub(super) struct Vain(Mutex<VecDeque<Instant>>);

impl Vain {
    /// Whether it is time to leave off.
    pub(super) fn is_much(&self) -> bool {
        self.lock().len() >= VAIN
    }

    /// A handshake begins; false: it must not.
    pub(super) fn begin(&self) -> bool {
        let mut begun = self.lock();
        if begun.len() >= VAIN {
            return false;
        }
        begun.push_back(Instant::now());
        true
    }

    /// One that was begun was not in vain.
    pub(super) fn take_back(&self) {
        self.lock().pop_back();
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Instant>> {
        let mut begun = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while begun.front().is_some_and(|at| at.elapsed() >= MEMORY) {
            begun.pop_front();
        }
        begun
    }
}

/// Whether a sibling can be at an address, as seen by one whose parent is at `parent`. What is this
/// machine or this wire alone is so only for those whose parent is there too.
pub(super) fn can_be(address: SocketAddr, parent: IpAddr) -> bool {
    let (ip, parent) = (address.ip().to_canonical(), parent.to_canonical());
    let odd = match ip {
        IpAddr::V4(ip) => ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unspecified() || ip.is_multicast(),
    };
    let narrow = ip.is_loopback() && !parent.is_loopback();
    let narrow = narrow || (is_link_local(ip) && !is_link_local(parent));
    address.port() >= FIRST_PORT && !odd && !narrow
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sibling_is_where_a_host_can_be() {
        let check = |address: &str, parent: &str| {
            let address = address.parse().expect("an address");
            can_be(address, parent.parse().expect("an address"))
        };
        for (address, parent) in [
            ("10.1.2.3:40000", "10.1.2.1"),
            ("192.0.2.7:1024", "10.1.2.1"),
            ("10.1.2.3:40000", "192.0.2.1"),
            ("127.0.0.1:40000", "127.0.0.1"),
            ("169.254.3.4:40000", "169.254.3.1"),
            ("[2001:db8::7]:40000", "2001:db8::1"),
            ("[fe80::7]:40000", "fe80::1"),
            ("[::ffff:10.1.2.3]:40000", "10.1.2.1"),
        ] {
            assert!(check(address, parent), "{address}, parent {parent}");
        }
        for (address, parent) in [
            ("10.1.2.3:53", "10.1.2.1"),
            ("10.1.2.3:0", "10.1.2.1"),
            ("127.0.0.1:40000", "10.1.2.1"),
            ("[::1]:40000", "2001:db8::1"),
            ("[::ffff:127.0.0.1]:40000", "10.1.2.1"),
            ("169.254.169.254:40000", "10.1.2.1"),
            ("[fe80::7]:40000", "2001:db8::1"),
            ("0.0.0.0:40000", "127.0.0.1"),
            ("224.0.0.1:40000", "10.1.2.1"),
            ("255.255.255.255:40000", "10.1.2.1"),
            ("[ff02::1]:40000", "fe80::1"),
        ] {
            assert!(!check(address, parent), "{address}, parent {parent}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_are_in_vain_and_no_more_for_a_while() {
        let vain = Vain::default();
        for _ in 0..10 * VAIN {
            assert!(vain.begin());
            vain.take_back();
        }
        for n in 0..VAIN {
            assert!(!vain.is_much() && vain.begin(), "{n}");
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert!(vain.is_much() && !vain.begin());
        tokio::time::advance(MEMORY - Duration::from_secs(VAIN as u64)).await;
        assert!(!vain.is_much() && vain.begin(), "the first is forgotten");
        assert!(vain.is_much() && !vain.begin());
    }
}
