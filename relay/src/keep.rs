//! What the bus keeps: of some subjects the newest message, all that nobody has done yet, or a
//! stream with numbers, at the nodes whose `bus.toml` says so.
//!
//! The bus itself goes on keeping nothing. A node that keeps something is a subscriber like any
//! other, which writes down what it gets and answers questions about it, and questions and answers
//! are requests on the bus; so nothing that is kept holds up a message, and other nodes need know
//! nothing of it. [`Keeper`] is how programs at any node ask: first who keeps messages like these,
//! then that node.
//!
//! What was lost before it came here is not here: `confirm` says whether a message has come and is
//! on disk.

mod answers;
mod ask;
mod change;
mod entry;
mod figures;
mod losses;
mod serve;
mod settings;
mod store;
mod takers;
mod words;
mod worker;

pub use self::ask::{Confirmed, KeepError, Keeper};
pub use self::settings::Policy;
pub use self::words::{Ask, Begin, Fault, KEPT_BYTES, Kept, Record, Reply};

pub(crate) use self::figures::Shelves;
pub(crate) use self::serve::start;

use mesh::bus::RESERVED;

/// Where is asked who keeps something.
const WHO: &str = "_keep.who";
/// What stands before the subject of a message of which is asked whether it is kept.
const HAS: &str = "_keep.has.";

/// Where a node is asked about what it keeps.
fn at_subject(node: u32) -> String {
    format!("{RESERVED}.at.{node}")
}

/// Where is asked whether a message about this is kept.
fn has_subject(subject: &str) -> String {
    format!("{HAS}{subject}")
}
