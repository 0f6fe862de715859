//! The core of Barid: one pure, seeded, clock-less state machine for controller, relay and host.
//!
//! A [`Node`] takes one [`Input`] at a time and hands out [`Output`]s; it cannot fail, cannot wait
//! and reads no clock. What it decides: who lives below whom, which orders go where, what answers
//! go up and when, which content is asked of whom, who is silent, whom to dial. What it never
//! touches: sockets, files, processes, bytes of files, wall-clock time, signatures. A shell does
//! those; the `relay` crate is one, the simulator another, and both run the code in this crate.
//!
//! **Invariant:** this crate depends on neither tokio, quinn, redb nor prost, and reads no clock.

mod absent;
mod acks;
mod agenda;
pub mod alerts;
pub mod bus;
mod cancel;
mod climb;
mod config;
mod events;
mod fact;
mod fanout;
mod fold;
mod frame;
mod gate;
mod ids;
mod inlog;
mod io;
mod lanes;
mod ledger;
mod node;
mod order;
mod outbox;
mod outcome;
mod patience;
mod profile;
mod pull;
mod pulse;
mod record;
mod route;
#[cfg(feature = "sabotage")]
pub mod sabotage;
#[cfg(not(feature = "sabotage"))]
#[allow(dead_code, unreachable_pub, reason = "the names of the bugs stay, the bugs do not")]
mod sabotage;
mod seek;
mod set;
pub mod similar;

mod subtree;
mod time;
mod told;
mod uplink;
mod uplog;
mod wake;
mod watch;
mod window;

pub use config::{Backoff, Config, EventLimits, Limits};
pub use fact::{
    Class, Fact, FoldKey, Folded, Happening, Kind, LINE_BYTES, MOST, SUBJECT_BYTES, Sample,
    Severity, Signature, TEXT_BYTES, WINDOW_MS, is_subject, one_line, template,
};
pub use fanout::{Ask, Fanout, FanoutLimits, Lost, Way};
pub use frame::Frame;
pub use ids::{Digest, HostId, LinkId, OrderId, RequestId};
pub use io::{Asker, Input, Output, Peer, PullFault, Reason};
pub use node::Node;
pub use order::{Batch, Gate, Need, Order, Report, Share};
pub use outcome::{Outcome, State, Tally};
pub use patience::{LONGEST_WAIT, Patience};
pub use profile::{PROFILE_BYTES, PROFILE_LINES, Profile, Profiled};
pub use record::{Record, Saved};
pub use set::HostSet;
pub use subtree::{BRANCHES, Subtree};
pub use time::Time;
pub use told::{Event, Stop};
pub use wake::Wake;
pub use watch::{SAID_BYTES, Said, Stream, WATCHED};
