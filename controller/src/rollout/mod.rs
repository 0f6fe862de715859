//! Rollouts: pushes and distributions that go out in waves, each behind the gate of the one before.
//!
//! A wave is an order of its own, made and signed when its turn has come: so no host can begin
//! before that, whoever would let it. What a rollout has come to is on disk, with each order of it
//! in the commit that keeps the order; a controller that was away goes on where it was. `gate`,
//! `waves` and `course` are pure: what is asked for, which hosts that means, and what follows from
//! how a wave stands. `row` is what is kept, `standing` how hosts stand, `make` begins a rollout,
//! at a `moment` if there is one, `driver` takes it on, `check` runs a gate's command, `routes` are
//! the operators' words.

mod check;
pub mod course;
pub(crate) mod driver;
pub mod gate;
pub(crate) mod make;
mod moment;
pub(crate) mod routes;
pub(crate) mod row;
pub(crate) mod standing;
pub mod waves;
