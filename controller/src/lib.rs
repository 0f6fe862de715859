//! The root of the tree: inventory, orders, outcomes, enrolment, and the operators' API.
//!
//! The controller is a node like any other, without a parent, whose commits carry its own tables
//! as well, so that an answer acknowledged to a relay is an answer in the tables. It resolves what
//! operators mean, plans and signs orders, and reads answers back as people read them. It knows
//! nothing of QUIC: links are the `relay` crate's.

mod alerting;
mod answers;
mod api;
mod archive;
mod asked;
mod asker;
mod backup;
mod caps;
mod cause;
mod clock;
mod closing;
mod collect;
mod costs;
mod delegate;
mod enrol;
mod events;
mod export;
mod fault;
mod figures;
mod filters;
pub mod fleet;
mod following;
mod given;
mod groups;
mod ids;
mod inventory;
mod labels;
mod lines;
mod live;
mod meaning;
mod order_routes;
mod orders;
mod outcomes;
mod output;
mod pace;
mod packs;
mod past;
mod period;
mod planning;
mod push;
pub mod report;
mod retention;
mod retry;
mod rollback;
pub mod rollout;
mod rooms;
mod serve;
pub mod sets;
pub mod site;
mod slowest;
mod source;
mod stage;
mod steer;
mod stored;
mod superseding;
mod tables;
mod targets;
mod terms;
mod traffic;
pub mod types;
mod upcall;
mod viewers;

pub use asker::USER_HEADER;
pub use backup::{BadBackup, RestoreError, restore};
pub use orders::MARGIN;
pub use serve::{Options, RunError, run};
