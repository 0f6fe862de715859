//! What makes a node a controller, a relay or a host: data, and nothing else.
//!
//! A node without parents is the root, a node that does not serve is a leaf. Every queue and set
//! of the core has its limit here.

use std::time::Duration;

use crate::HostId;

/// A node's place and pace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Who this node is.
    pub host: HostId,
    /// How many parents it can dial, in order of preference. None: it is the root.
    pub parents: usize,
    /// Whether children may dial in.
    pub serves: bool,
    /// How often it beats on each link.
    pub beat_interval: Duration,
    /// On the link to its parent it beats no more often than this.
    pub uplink_interval: Duration,
    /// After how many missed beats a peer is stale.
    pub missed_beats: u32,
    /// Whether this node tells people when the root is silent, so that those below it need not.
    pub speaks: bool,
    /// How long answers and announcements wait for others to fold with.
    pub flush: Duration,
    /// How long an acknowledgement waits for something to go with.
    pub ack_delay: Duration,
    /// How redialling backs off.
    pub backoff: Backoff,
    /// Limits on every queue and set.
    pub limits: Limits,
    /// Pace and limits of events.
    pub events: EventLimits,
    /// A bug planted on purpose, to be found by the simulator.
    #[cfg(feature = "sabotage")]
    pub bug: Option<crate::sabotage::Bug>,
}

/// Redialling with full jitter: the n-th retry waits a random time up to `base * 2^n`, at most
/// `cap`. The count starts again only after a link has lived for `settled`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The span of the first retry.
    pub base: Duration,
    /// The longest span.
    pub cap: Duration,
    /// How long a link must live before the count starts again.
    pub settled: Duration,
    /// After how long with a parent further down the list the better ones are tried again, at most;
    /// it doubles from round to round, and when a parent that was returned to did not last.
    pub climb: Duration,
    /// The longest such wait.
    pub climb_cap: Duration,
}

/// The limits of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Children linked at once.
    pub children: usize,
    /// Orders remembered at once, and as many that relays have given; more are refused. The lanes
    /// remember which of them each child was offered, so twice this times `children` bounds what
    /// they hold.
    pub orders: usize,
    /// Log entries in flight on a link before the peer must acknowledge.
    pub window: usize,
    /// Pulls under way at once.
    pub pulls: usize,
    /// Requests for content that may wait, over all askers.
    pub wants: usize,
    /// Bytes of bodies over all orders, in memory and on disk; what is beyond is cut and counted.
    pub body_bytes: usize,
    /// Bytes of bodies in one report.
    pub report_bytes: usize,
    /// Messages of the bus that are remembered, so that none is passed on twice.
    pub bus_recent: usize,
    /// Hosts below whose profile is remembered.
    pub profiles: usize,
    /// Bytes of profiles that differ.
    pub profile_bytes: usize,
}

/// How events wait and how many find room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventLimits {
    /// How long events wait for others before they are saved.
    pub save: Duration,
    /// How long events of children wait for others before they are told.
    pub flush: Duration,
    /// How often events of the same signature are told.
    pub repeat: Duration,
    /// Different events of its own that a host counts at once.
    pub own: usize,
    /// Different events that a relay has not told its parent yet.
    pub held: usize,
    /// Counts of hosts in all of them; one more event may bring them over it.
    pub counts: usize,
    /// Different events that a host may bring a relay at once, and one more each second.
    pub burst: usize,
}

impl Config {
    /// A node with the default pace and limits.
    pub fn new(host: HostId, parents: usize, serves: bool) -> Config {
        Config {
            host,
            parents,
            serves,
            beat_interval: Duration::from_secs(5),
            uplink_interval: Duration::ZERO,
            missed_beats: 3,
            speaks: false,
            flush: Duration::from_millis(10),
            ack_delay: Duration::from_millis(50),
            backoff: Backoff {
                base: Duration::from_secs(1),
                cap: Duration::from_secs(300),
                settled: Duration::from_secs(60),
                climb: Duration::from_secs(60),
                climb_cap: Duration::from_secs(1_800),
            },
            limits: Limits::default(),
            events: EventLimits::default(),
            #[cfg(feature = "sabotage")]
            bug: None,
        }
    }

    /// How long a host may be away before it counts as down: twice the time in which silence is
    /// noticed, so that whoever has lost its parent can have found another.
    pub fn grace(&self) -> Duration {
        self.beat_interval * self.missed_beats * 2
    }

    /// Whether this node is the root of the tree.
    pub fn is_root(&self) -> bool {
        self.parents == 0
    }
}

impl Default for EventLimits {
    fn default() -> EventLimits {
        EventLimits {
            save: Duration::from_millis(250),
            flush: Duration::from_secs(1),
            repeat: Duration::from_secs(10),
            own: 256,
            held: 16_384,
            counts: 262_144,
            burst: 512,
        }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            children: 2_000,
            orders: 10_000,
            window: 64,
            pulls: 8,
            wants: 65_536,
            body_bytes: 64 << 20,
            report_bytes: 512 << 10,
            bus_recent: 1_024,
            profiles: 100_000,
            profile_bytes: 64 << 20,
        }
    }
}

#[cfg(feature = "sabotage")]
impl Config {
    pub(crate) fn has(&self, bug: crate::sabotage::Bug) -> bool {
        self.bug == Some(bug)
    }
}

#[cfg(not(feature = "sabotage"))]
impl Config {
    pub(crate) const fn has(&self, _: crate::sabotage::Bug) -> bool {
        false
    }
}
