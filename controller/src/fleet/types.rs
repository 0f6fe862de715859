//! The words of the API about the fleet: what may be changed and what may be asked.
//!
//! Two requests, each with a closed list of words: `POST /v1/fleet/change` changes one thing
//! whole or not at all, `POST /v1/fleet/ask` changes nothing.

mod changes;
mod config;
mod dist;
mod questions;

pub use changes::{Author, Change, Changed, Generator, NewChange, Origin};
pub use config::{Frequency, Site};
pub use dist::{Distribution, NewDist};
pub use questions::{
    Compared, DomainFiles, EntryInfo, FileDomains, FileOf, FileStatus, HostDomains, HostTurn,
    Question, RelayClients, RevisionInfo, Scheduled, Subscriptions, TableText,
};
