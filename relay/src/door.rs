//! The door: how many may be coming in at once, from one address and in all, and what is told of
//! those who come to nothing.
//!
//! A handshake costs a parent more than whoever begins it. So there are few places, and no address
//! gets all of them, however slowly it goes about it. Whoever finds none is refused and comes back
//! after a random wait. What comes to nothing is counted, by its reason; a node under a flood says
//! so once in a while, in its log and as one event with a count, and not a thousand times.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mesh::{Class, HostId, Input, Kind, Severity};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::drive::Arrival;
use crate::link::Inbox;
use crate::notice;

/// How often is told what came to nothing since.
const TELL: Duration = Duration::from_secs(10);
/// How many of these are logged, each with its reason.
const LOGGED: u64 = 8;
/// Addresses that are counted apart.
const NAMED: usize = 256;

/// Why somebody did not come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Why {
    /// There are as many connections as may be.
    Crowded,
    /// No place for another handshake.
    Busy,
    /// As many handshakes are under way from that address as may be.
    Pushy,
    /// The handshake failed.
    Failed,
    /// It took too long.
    Slow,
    /// The certificate is not one of a child of ours.
    Stranger,
}

impl Why {
    fn words(self) -> &'static str {
        match self {
            Why::Crowded => "beyond the limit of connections",
            Why::Busy => "while there was no place",
            Why::Pushy => "with too many from their address",
            Why::Failed => "failed their handshake",
            Why::Slow => "took too long",
            Why::Stranger => "not of this mesh, or removed from it",
        }
    }
}

/// The places of one kind of handshake.
#[derive(Clone)]
pub(crate) struct Places {
    all: Arc<Semaphore>,
    most: usize,
    each: usize,
    taken: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
}

/// A place that is taken, until this is dropped.
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
    from: IpAddr,
    taken: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
}

impl Places {
    /// So many places, of which one address gets three quarters at most: behind one address there
    /// may be a whole site.
    pub(crate) fn new(most: usize) -> Places {
        let (all, taken) = (Arc::new(Semaphore::new(most)), Arc::default());
        Places { all, most, each: (most * 3 / 4).max(1), taken }
    }

    /// Whether more than half of them are taken.
    pub(crate) fn are_scarce(&self) -> bool {
        self.all.available_permits() < self.most / 2
    }

    /// A place for a handshake from this address.
    pub(crate) fn take(&self, from: IpAddr) -> Result<Place, Why> {
        let from = one_of_many(from);
        let mut taken = lock(&self.taken);
        if taken.get(&from).is_some_and(|count| *count >= self.each) {
            return Err(Why::Pushy);
        }
        let permit = self.all.clone().try_acquire_owned().map_err(|_| Why::Busy)?;
        // No more addresses than there are places.
        *taken.entry(from).or_default() += 1;
        Ok(Place { _permit: permit, from, taken: self.taken.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        if let Some(count) = taken.get_mut(&self.from) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.from);
            }
        }
    }
}

/// Who did not come in, since it was last told.
#[derive(Clone, Default)]
pub(crate) struct Turned(Arc<Mutex<Counts>>);

#[derive(Default)]
struct Counts {
    reasons: BTreeMap<Why, u64>,
    addresses: BTreeMap<IpAddr, u64>,
    total: u64,
}

impl Turned {
    /// Somebody did not come in. Returns whether that is worth a line of its own.
    pub(crate) fn away(&self, from: IpAddr, why: Why) -> bool {
        let mut counts = lock(&self.0);
        *counts.reasons.entry(why).or_default() += 1;
        counts.total += 1;
        let from = one_of_many(from);
        if counts.addresses.len() < NAMED || counts.addresses.contains_key(&from) {
            *counts.addresses.entry(from).or_default() += 1;
        }
        counts.total <= LOGGED
    }

    /// Tells from time to time, as long as there is somebody to tell.
    pub(crate) async fn tell(self, inbox: Inbox, class: Class, who: (HostId, String)) {
        let kind = Kind { subject: "link.turned-away", severity: Severity::Warning, class };
        loop {
            tokio::time::sleep(TELL).await;
            let counts = std::mem::take(&mut *lock(&self.0));
            if counts.total == 0 {
                continue;
            }
            let text = counts.words();
            tracing::warn!(count = counts.total, "{text}");
            let mut happening = notice::make((who.0, &who.1), kind, &text);
            happening.count = counts.total;
            if inbox.send(Arrival::Input(Input::Happened(happening))).await.is_err() {
                return;
            }
        }
    }
}

impl Counts {
    /// `312 connections came to nothing: 300 failed their handshake, ...; most from 10.0.0.7`
    fn words(&self) -> String {
        let reason = |(why, count): (&Why, &u64)| format!("{count} {}", why.words());
        let reasons: Vec<String> = self.reasons.iter().map(reason).collect();
        let noun = if self.total == 1 { "connection" } else { "connections" };
        let mut text = format!("{} {noun} came to nothing: {}", self.total, reasons.join(", "));
        if let Some((address, _)) = self.addresses.iter().max_by_key(|(_, count)| **count) {
            text.push_str(&format!("; most from {address}"));
        }
        text
    }
}

/// Of IPv6 a whole network counts as one address: whoever has one has all of it.
fn one_of_many(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) => {
            let mut parts = six.segments();
            parts[4..].fill(0);
            IpAddr::V6(Ipv6Addr::from(parts))
        }
        four => four,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn no_address_gets_all_places_and_all_come_back() {
        let places = Places::new(4);
        let take = |from: &str| places.take(ip(from));
        let held: Vec<_> = (0..3).map(|_| take("10.0.0.1").expect("a place")).collect();
        assert_eq!(take("10.0.0.1").err(), Some(Why::Pushy));
        assert!(places.are_scarce());
        let other = take("2001:db8::1").expect("the last place");
        assert_eq!(take("10.0.0.2").err(), Some(Why::Busy));
        drop((held, other));
        assert!(lock(&places.taken).is_empty() && !places.are_scarce());
        let same = ["2001:db8::1", "2001:db8::2", "2001:db8:0:0:9::"].map(|from| take(from).ok());
        assert_eq!(take("2001:db8::4").err(), Some(Why::Pushy));
        assert!(take("2001:db8:0:1::").is_ok() && same.iter().all(Option::is_some));
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_one_event_with_a_count() {
        let (inbox, mut arrivals) = tokio::sync::mpsc::channel(4);
        let turned = Turned::default();
        let logged = (0..1_000).filter(|_| turned.away(ip("10.0.0.7"), Why::Failed)).count();
        assert_eq!(logged as u64, LOGGED);
        for n in 0..1_000_u32 {
            turned.away(IpAddr::from((n << 8).to_be_bytes()), Why::Busy);
        }
        assert!(lock(&turned.0).addresses.len() <= NAMED);
        let who = (HostId(1), "r1".to_owned());
        let told = tokio::spawn(turned.clone().tell(inbox, Class::Relay, who));
        let Some(Arrival::Input(Input::Happened(event))) = arrivals.recv().await else {
            panic!("it is an event");
        };
        assert_eq!(event.count, 2_000);
        assert_eq!(
            event.sample.line,
            "2000 connections came to nothing: 1000 while there was no place, \
             1000 failed their handshake; most from 10.0.0.7"
        );
        turned.away(ip("10.0.0.7"), Why::Slow);
        let Some(Arrival::Input(Input::Happened(event))) = arrivals.recv().await else {
            panic!("it is another event");
        };
        assert_eq!((event.count, event.fact.subject.as_str()), (1, "link.turned-away"));
        told.abort();
    }
}
