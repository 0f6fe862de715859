//! The fleet as its operators think of it: domains, files under control, who still lacks what.
//!
//! The pure modules hold all rules and know neither tables nor clocks: `domain` and `levels` what
//! names there are, `hostdata` and `distdata` the text forms, `precedence` which entry a host
//! gets, `missing` who lacks it, `generator` what is made from host records, `book` all of it as
//! one value, `change` and `ask` what can be done with that. `store` keeps it in tables, `reading`
//! its content, `desk` makes one change at a time, `plan`,
//! `planner`, `batch` and `dist` bring files to hosts,
//! `running` says what may go on beside what, `schedule` begins what is due, `spread` says whose
//! turn it is; when that is the crate `timing` says. `routes` lets operators ask, `asked` hosts,
//! each in its turn by `queue`, to whom `offers` says what is for them; `distfile` writes the plan
//! as a text.

pub(crate) mod ask;
mod asked;
mod batch;
pub(crate) mod book;
pub(crate) mod change;
pub(crate) mod desk;
pub(crate) mod dist;
pub mod distdata;
mod distfile;
pub mod domain;
mod generator;
pub mod hostdata;
pub mod levels;
pub(crate) mod missing;
mod offers;
pub mod plan;
pub(crate) mod planner;
pub mod precedence;
mod queue;
mod reading;
pub(crate) mod routes;
pub mod running;
pub(crate) mod schedule;
mod spread;
pub(crate) mod store;
pub mod types;

pub(crate) use asked::Requests;
pub(crate) use desk::{Fleet, Known};
pub(crate) use store::{Drifted, forget_plan, note_answers, plan_of};
