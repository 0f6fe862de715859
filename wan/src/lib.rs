//! An emulated wide-area link, one engine in several forms.
//!
//! [`Engine`] is one direction of a link as a pure, seeded state machine without a clock: a rate
//! with a bounded queue, a delay, jitter, loss, blackouts, and counters. What gives it time and
//! packets lies around it, so that a test in virtual time, a relay of datagrams in process and a
//! pair of TUN devices between network namespaces all emulate the very same link.
//!
//! It emulates a link, not a network: no routing, no competing traffic but what is sent through it.

mod engine;
mod loss;
mod profile;
mod pump;
mod tun;
mod udp;

pub use engine::{Count, Counters, Engine, segments};
pub use loss::Loss;
pub use profile::{Blackout, Profile, Shape, ShapeError};
pub use pump::{Link, LinkError, Traffic, Way};
pub use tun::{End, TunLink, inside};
pub use udp::{FLOWS, UdpLink};
