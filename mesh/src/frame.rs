//! The frames that links carry.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::bus::{Answer, Interest, Message};
use crate::fact::Folded;
use crate::{HostSet, Order, OrderId, Profiled, Report, Said, Subtree};

/// A control message on a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// First word of each side: the logs that it writes and what it holds of the peer's.
    Hello {
        /// The sender's log on this link; a new number after a restart.
        log: u64,
        /// The peer's log as the sender knows it; 0 if it knows none.
        held_log: u64,
        /// The last number of that log that the sender holds durably.
        held: u64,
        /// Whether the sender takes events.
        events: bool,
        /// Whether the sender takes profiles.
        profiles: bool,
    },
    /// A sign of life of the process that does the work.
    Beat {
        /// The number of the root's own beat that the sender has last heard of.
        root: u64,
        /// How often the sender beats on this link.
        interval: Duration,
        /// How often `root` can move on its way to the receiver.
        root_interval: Duration,
        /// Whether the sender, or somebody above it, tells people when the root is silent.
        speaks: bool,
    },
    /// Up: who lives below the sender, itself included, and how it is with them.
    Below(Subtree),
    /// Down: an entry of the order log.
    Order {
        /// The log.
        log: u64,
        /// Number in the log.
        seq: u64,
        /// The order.
        order: Arc<Order>,
    },
    /// Up: orders through this number are durable here.
    OrdersHeld {
        /// The log.
        log: u64,
        /// Number in the log.
        through: u64,
    },
    /// Up: an entry of the report log.
    Report {
        /// The log.
        log: u64,
        /// Number in the log.
        seq: u64,
        /// The report.
        report: Report,
    },
    /// Down: reports through this number are durable here.
    ReportsHeld {
        /// The log.
        log: u64,
        /// Number in the log.
        through: u64,
    },
    /// Down: the orders below the receiver whose output is wanted while it is made, all of them.
    Watch {
        /// Each with its generation on this link.
        orders: BTreeMap<OrderId, u64>,
    },
    /// Up: what a command has just written.
    Said(Said),
    /// Up, and down to where they live now: what these hosts have answered to an order of a relay
    /// that they have left. Needs no answer, and is asked again.
    Seek {
        /// The order, whose id names the relay.
        order: OrderId,
        /// Who is sought.
        hosts: HostSet,
    },
    /// The way back: what was found, as the hosts' own words.
    Found {
        /// About that order.
        report: Report,
    },
    /// Down: these hosts may begin a gated order. Saying so twice changes nothing.
    Go {
        /// The order, which may come later.
        order: OrderId,
        /// Who may begin.
        hosts: HostSet,
        /// For how long they still may.
        left: Duration,
    },
    /// Up: events, and how often each host has noticed them in all. Twice is as good as once.
    Events {
        /// Its number on this link.
        no: u64,
        /// The events.
        events: Vec<Folded>,
    },
    /// Down: the events of this number are durable here.
    EventsHeld {
        /// The number.
        no: u64,
        /// How many of them, from the first on; for the rest there was no room.
        held: usize,
    },
    /// What is wanted of the bus on the sender's side, all of it.
    Interest(Interest),
    /// A message on the bus.
    Message(Message),
    /// An answer to one, on its way to whoever has asked.
    Answer(Answer),
    /// Up: what hosts say of themselves. Twice is as good as once.
    Profiles {
        /// Its number on this link.
        no: u64,
        /// Those who say the same, together.
        lines: Vec<Profiled>,
    },
    /// Down: the receiver need not tell the profiles of this number again.
    ProfilesHeld {
        /// The number.
        no: u64,
        /// How many lines of it, from the first on; for the rest there was no room.
        held: usize,
    },
}
