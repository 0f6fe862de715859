//! The simulator: the real core under a shell that is all dice, in virtual time.
//!
//! A [`Scenario`] and a seed make one [`Plan`]: a tree, a workload, a mix of faults ("none" is one
//! of them). A [`Sim`] plays it: it obeys what each [`mesh::Node`] wants as the real shell would,
//! but loses links, stalls networks, kills processes in the worst moments and forgets what was not
//! yet on disk. [`Checks`] watch from outside; after the faults stop, the tree must find its way
//! back. Two runs of a seed are the same run, so a failure is one command to replay, and [`shrink`]
//! makes of it the smallest plan that still fails.
//!
//! Beside it lies [`wan`], an emulated link for real packets: tests and benchmarks of real
//! processes run through it; and [`lab`], whole sites behind such links, made of network
//! namespaces.
//!
//! [`crowd`] is the other way round: thousands of hosts in one process, at real relays.
//!
//! The simulator does not simulate QUIC, TLS, redb or processes: what those promise is written in
//! [`mesh::Input`] and [`mesh::Output`], and the simulator plays the least that they promise.

mod absences;
pub mod alerting;
mod arrivals;
mod burst;
mod bus;
pub mod checks;
pub mod coverage;
pub mod crowd;
pub mod dice;
mod disk;
mod draw;
mod events;
mod fan;
mod faults;
pub mod fleet;
pub mod folding;
mod gated;
mod given;
pub mod lab;
pub mod model;
mod net;
mod obey;
pub mod plan;
mod played;
mod profiles;
mod queue;
mod restoring;
mod rolling;
pub mod scale;
pub mod scenario;
pub mod schedules;
pub mod script;
mod seat;
mod settle;
pub mod shrink;
pub mod sim;
pub mod trace;
mod viewers;
pub mod wan;

pub use checks::{Checks, Violation};
pub use coverage::Coverage;
pub use plan::{Options, Plan};
pub use played::{Failure, Played, Stats, play, run};
pub use rolling::Rolling;
pub use scenario::{Scenario, Source};
pub use sim::Sim;
