//! The shell of a node: everything that can fail or wait, around the core that can do neither.
//!
//! [`start`] runs a node of any role: its links (quinn), its journal (redb), its content, the
//! commands and installs of its host. The controller embeds a node by the same call, with a
//! [`Witness`] that writes its tables in the core's own commits and a [`Registrar`] that enrols
//! newcomers. This crate knows nothing of operators, inventories or schedules.

mod accept;
mod account;
mod ahead;
mod alerting;
mod bulk;
pub mod bus;
mod calendar;
mod cap;
mod capture;
mod choice;
mod claims;
mod collect;
mod commands;
pub mod congestion;
mod copies;
mod daybook;
mod dial;
mod dist;
mod door;
mod drift;
mod drive;
mod endpoint;
mod exec;
mod facts;
mod fanout;
mod fetch;
mod follow;
mod front;
mod given;
mod inherited;
mod install;
mod jobs;
mod join;
mod journal;
pub mod keep;
mod kind;
mod link;
mod links;
mod live;
mod mandate;
mod memory;
mod metrics;
mod node;
mod notice;
mod outputs;
mod owed;
mod paced;
mod parents;
mod probe;
mod rank;
mod records;
mod release;
mod remains;
mod removed;
mod renew;
mod restore;
mod run;
mod serve;
mod settings;
mod siblings;
mod skew;
mod space;
mod spool;
mod steer;
mod sweep;
mod terms;
mod transfer;
mod verify;
mod writer;

pub use alerting::publish;
pub use bulk::{Bulk, Turn};
pub use calendar::{CalendarError, Entry, RateError, parse_rate, show_rate};
pub use dial::DialError;
pub use drive::DriveError;
pub use endpoint::EndpointError;
pub use follow::{FOLLOW, follow};
pub use join::{JoinError, Registrar, join};
pub use journal::{Journal, JournalError};
pub use kind::{End, LinkKind, send_window};
pub use links::LinkStatus;
pub use mandate::{GivenFault, Mandate, open_given};
pub use node::{Running, Setup, Standing, StartError, start};
pub use outputs::{Coming, NotComing};
pub use records::NotHanded;
pub use removed::RemovalsFault;
pub use restore::Restored;
pub use settings::{Settings, SettingsError};
pub use skew::Chime;
pub use sweep::{spare_in_store, sweep_store};
pub use writer::{NoWitness, Witness};

/// The name of some bytes: their BLAKE3 hash.
pub fn hash(bytes: &[u8]) -> mesh::Digest {
    mesh::Digest(*blake3::hash(bytes).as_bytes())
}

/// An error with all its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some libraries print their source themselves.
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
