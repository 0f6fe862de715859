//! Who gets a large object from this node itself, and who from a sibling.
//!
//! A node with many children would send each of them every byte of an object through the one port
//! that it has. Beyond a fan-out, and only where that takes long, it sends the object to a few of
//! them and has the others fetch it from these, which hand on what arrives. Who fetches from whom
//! is a tree that grows as children ask: nobody is sent to somebody below himself. A sibling that
//! fails a child costs one try: the child then gets the rest from here, and the two are not brought
//! together again for a while; who fails two others is left out of all of it.
//!
//! A shell owns it, beside its [`Node`](crate::Node). It knows nothing of addresses and of bytes,
//! and trusts nobody with more than time: whoever fetches checks what comes by the object's name.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::sabotage::Bug;
use crate::{Digest, HostId, Time};

/// How long a child and a sibling that has failed it are kept apart.
const MEMORY: Duration = Duration::from_secs(600);
/// Pairs that are remembered; the oldest are forgotten first.
const PAIRS: usize = 4_096;
/// Objects that are kept in mind; those that were asked for longest ago go first.
const OBJECTS: usize = 256;
/// How long an object is kept in mind after it was last asked for.
const KEPT: Duration = Duration::from_secs(600);
/// Whoever has failed so many others, or was failed by so many, is left out.
const BLAMED: usize = 2;
/// What a fetch from a sibling may take at least, once all of the object is here.
const LEAST: Duration = Duration::from_secs(1);
/// The shortest time over which a rate is measured, and the longest pause within it.
const SPAN: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(100);

/// When a node has siblings help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FanoutLimits {
    /// Children that one object is sent to at a time before others are sent to siblings, and
    /// children that one sibling is sent; 0: no sibling ever helps.
    pub width: usize,
    /// What the port is taken to carry, in bytes a second, unless less was measured.
    pub port: u64,
    /// Siblings help only with what would take the port this long for those who ask.
    pub worth: Duration,
    /// And only with objects of so many bytes.
    pub least: u64,
}

/// What a child asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Who.
    pub child: HostId,
    /// For what.
    pub content: Digest,
    /// How long the object is.
    pub bytes: u64,
    /// Whether it may be sent to a sibling.
    pub willing: bool,
}

/// Where a child gets an object from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From this node.
    Here {
        /// Whether siblings may come to it for the object.
        promoted: bool,
    },
    /// From this child, which has it or is getting it.
    Sibling {
        /// Who.
        host: HostId,
        /// How long that may take once this node has all of the object.
        within: Duration,
    },
}

/// Why a child did not get an object from the sibling that it was sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lost {
    /// The sibling was not reached, or did not let the child in.
    Unreached,
    /// It has nothing of the object.
    Absent,
    /// It went away.
    Broken,
    /// It was too slow.
    Slow,
    /// What it sent is not the object.
    Altered,
}

/// How a child stands with an object.
#[derive(Clone, Copy, Debug)]
struct Stand {
    /// The sibling that it gets it from; none: this node.
    from: Option<HostId>,
    /// It has all of it.
    whole: bool,
    /// Siblings may be sent to it.
    helps: bool,
}

/// An object and who gets it.
struct Object {
    asked: Time,
    children: BTreeMap<HostId, Stand>,
}

/// Who gets what from whom.
pub struct Fanout {
    limits: FanoutLimits,
    /// Children that can help, and be helped.
    mates: BTreeSet<HostId>,
    objects: BTreeMap<Digest, Object>,
    /// Who was failed by whom, and until when that counts.
    failed: BTreeMap<(HostId, HostId), Time>,
    port: Port,
    /// A planted bug.
    #[cfg(feature = "sabotage")]
    bug: Option<Bug>,
}

impl Fanout {
    /// Nobody has asked yet.
    pub fn new(limits: FanoutLimits) -> Fanout {
        Fanout {
            limits,
            mates: BTreeSet::new(),
            objects: BTreeMap::new(),
            failed: BTreeMap::new(),
            port: Port::default(),
            #[cfg(feature = "sabotage")]
            bug: None,
        }
    }

    /// Plants a bug, to be found by the simulator.
    #[cfg(feature = "sabotage")]
    pub fn plant(&mut self, bug: Option<Bug>) {
        self.bug = bug;
    }

    /// A child that can help its siblings, and be helped by them, has come.
    pub fn meet(&mut self, child: HostId) {
        if self.limits.width > 0 {
            self.mates.insert(child);
        }
    }

    /// A child has gone, with whatever it was getting.
    pub fn part(&mut self, child: HostId) {
        self.mates.remove(&child);
        for object in self.objects.values_mut() {
            object.children.remove(&child);
        }
    }

    /// A child asks for an object that is here, or arriving. It gets it once, and then
    /// [`Fanout::got`] or [`Fanout::left`] is said of it, or [`Fanout::lost`] and then one of these.
    pub fn ask(&mut self, now: Time, ask: &Ask) -> Way {
        let Ask { child, content, bytes, .. } = *ask;
        if self.limits.width == 0 || bytes < self.limits.least {
            return Way::Here { promoted: false };
        }
        self.forget(now);
        let left_out = self.left_out();
        let helps = ask.willing && self.mates.contains(&child) && !left_out.contains(&child);
        let crowd = self.mates.len();
        let promoted = helps && crowd > self.limits.width && self.takes_long(bytes, crowd);
        let going = self.going(content, child);
        let full = going >= self.limits.width && self.takes_long(bytes, going + 1);
        let sibling = (helps && full).then(|| self.sibling(ask, &left_out)).flatten();
        let object = self.objects.entry(content);
        let object = object.or_insert_with(|| Object { asked: now, children: BTreeMap::new() });
        object.asked = now;
        object.children.insert(child, Stand { from: sibling, whole: false, helps });
        match sibling {
            Some(host) => {
                let wanted = object.children.values().filter(|stand| !stand.whole).count();
                Way::Sibling { host, within: LEAST + 2 * self.takes(bytes, wanted) }
            }
            None => Way::Here { promoted },
        }
    }

    /// A child has all of an object.
    pub fn got(&mut self, child: HostId, content: Digest) {
        if let Some(stand) = self.stand(child, content) {
            (stand.whole, stand.from) = (true, None);
        }
    }

    /// A child was failed by the sibling that it was sent to; it gets the rest from here. `whole`:
    /// this node has all of the object, so that nobody was slow on its account.
    pub fn lost(&mut self, now: Time, child: HostId, content: Digest, why: Lost, whole: bool) {
        let Some(stand) = self.stand(child, content) else { return };
        let Some(sibling) = stand.from.take() else { return };
        if why == Lost::Absent || (why == Lost::Slow && !whole) {
            // Nobody is to blame; but nobody else is to be sent there for this either.
            if let Some(stand) = self.stand(sibling, content) {
                stand.helps = false;
            }
            return;
        }
        if self.failed.len() >= PAIRS {
            let first = self.failed.iter().min_by_key(|(_, until)| **until).map(|(pair, _)| *pair);
            first.and_then(|pair| self.failed.remove(&pair));
        }
        self.failed.insert((child, sibling), now + MEMORY);
    }

    /// A child does not get an object any more, and does not have all of it.
    pub fn left(&mut self, child: HostId, content: Digest) {
        if let Some(object) = self.objects.get_mut(&content)
            && object.children.get(&child).is_some_and(|stand| !stand.whole)
        {
            object.children.remove(&child);
        }
    }

    /// Some of an object that is here as a whole was sent to a child: how fast that goes is what
    /// the port carries, or what those who take it do.
    pub fn sent(&mut self, now: Time, bytes: usize) {
        self.port.sent(now, bytes as u64);
    }

    /// The sibling that a child was sent to for an object; none: it gets it here, or not at all.
    pub fn source(&self, child: HostId, content: Digest) -> Option<HostId> {
        self.objects.get(&content)?.children.get(&child)?.from
    }

    /// Objects and pairs that are kept in mind.
    pub fn len(&self) -> (usize, usize) {
        (self.objects.len(), self.failed.len())
    }

    /// Whether nothing is kept in mind.
    pub fn is_empty(&self) -> bool {
        self.len() == (0, 0)
    }

    fn stand(&mut self, child: HostId, content: Digest) -> Option<&mut Stand> {
        self.objects.get_mut(&content)?.children.get_mut(&child)
    }

    /// How many others get an object from this node now.
    fn going(&self, content: Digest, but: HostId) -> usize {
        let children = self.objects.get(&content).into_iter().flat_map(|object| &object.children);
        let here = |(host, stand): &(&HostId, &Stand)| {
            **host != but && !stand.whole && stand.from.is_none()
        };
        children.filter(here).count()
    }

    fn takes(&self, bytes: u64, children: usize) -> Duration {
        let port = self.port.rate(self.limits.port).max(1);
        Duration::from_secs_f64(bytes as f64 * children as f64 / port as f64)
    }

    fn takes_long(&self, bytes: u64, children: usize) -> bool {
        self.takes(bytes, children) >= self.limits.worth
    }

    /// The sibling that a child is best sent to: as near to this node as can be, and of those the
    /// one with the fewest.
    fn sibling(&self, ask: &Ask, left_out: &BTreeSet<HostId>) -> Option<HostId> {
        let object = self.objects.get(&ask.content)?;
        let mut loads: BTreeMap<HostId, usize> = BTreeMap::new();
        for (host, stand) in &object.children {
            if let Some(from) = stand.from.filter(|_| *host != ask.child) {
                *loads.entry(from).or_default() += 1;
            }
        }
        let helpers = object.children.iter().filter(|(_, stand)| stand.helps);
        let fit = helpers.filter_map(|(host, _)| {
            let load = loads.get(host).copied().unwrap_or_default();
            let depth = object.depth(*host, ask.child);
            let depth = if self.has(Bug::FetchInCircles) { Some(0) } else { depth }?;
            let apart = self.failed.contains_key(&(ask.child, *host)) && !self.has(Bug::AskFailed);
            let out = !self.mates.contains(host) || left_out.contains(host);
            (load < self.limits.width && !apart && !out).then_some((depth, load, *host))
        });
        fit.min().map(|(.., host)| host)
    }

    /// Who has failed several others, or was failed by several.
    fn left_out(&self) -> BTreeSet<HostId> {
        let mut times: BTreeMap<(bool, HostId), usize> = BTreeMap::new();
        for (child, sibling) in self.failed.keys().filter(|_| !self.has(Bug::AskFailed)) {
            *times.entry((false, *child)).or_default() += 1;
            *times.entry((true, *sibling)).or_default() += 1;
        }
        let blamed = times.into_iter().filter(|(_, times)| *times >= BLAMED);
        blamed.map(|((_, host), _)| host).collect()
    }

    #[cfg(feature = "sabotage")]
    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    #[cfg(not(feature = "sabotage"))]
    const fn has(&self, _: Bug) -> bool {
        false
    }

    /// Drops what is too old, and what is too much.
    fn forget(&mut self, now: Time) {
        self.failed.retain(|_, until| *until > now);
        self.objects.retain(|_, object| object.asked + KEPT > now || object.is_under_way());
        if self.objects.len() >= OBJECTS {
            let oldest = self.objects.iter().min_by_key(|(_, object)| object.asked);
            let oldest = oldest.map(|(content, _)| *content);
            oldest.and_then(|content| self.objects.remove(&content));
        }
    }
}

impl Object {
    /// How many siblings lie between this node and a child that gets the object. `None`: `below` is
    /// one of them, or the child itself.
    fn depth(&self, host: HostId, below: HostId) -> Option<usize> {
        let (mut at, mut depth) = (host, 0);
        loop {
            if at == below || depth > self.children.len() {
                return None;
            }
            match self.children.get(&at).and_then(|stand| stand.from) {
                Some(from) => (at, depth) = (from, depth + 1),
                None => return Some(depth),
            }
        }
    }

    fn is_under_way(&self) -> bool {
        self.children.values().any(|stand| !stand.whole)
    }
}

/// What the port carries, as far as it has shown.
#[derive(Default)]
struct Port {
    /// The best rate that was measured, in bytes a second.
    best: Option<u64>,
    /// Since when there was no pause, the last of it, and the bytes since.
    run: Option<(Time, Time, u64)>,
}

impl Port {
    fn sent(&mut self, now: Time, bytes: u64) {
        let run = self.run.filter(|(_, last, _)| now.since(*last) < PAUSE);
        let (first, _, before) = run.unwrap_or((now, now, 0));
        let (span, sum) = (now.since(first), before + bytes);
        if span < SPAN {
            self.run = Some((first, now, sum));
            return;
        }
        let rate = (sum as f64 / span.as_secs_f64()) as u64;
        self.best = self.best.max(Some(rate));
        self.run = None;
    }

    fn rate(&self, nominal: u64) -> u64 {
        self.best.map_or(nominal, |best| best.min(nominal))
    }
}

#[cfg(test)]
#[path = "fanout_tests.rs"]
mod tests;
