//! Content: what a push carries, and how it gets from one disk to another.
//!
//! The idea: a tree of files becomes a [`Manifest`] (names, metadata, chunk ids) and a set of
//! chunks; both are named by the BLAKE3 of their bytes. [`ingest`](fn@ingest) reads a tree into a
//! [`Store`], [`pack`] turns the difference between two manifests into a few encoded parts,
//! and an [`Installer`] makes a directory equal to a manifest, replacing files only by rename.
//! Whatever came from a peer is checked against an id that the signed order leads to.
//!
//! What this crate deliberately does not do: no network, no async, no signatures, no choice of
//! what to send to whom. Callers run it on a thread that may block.

mod apply;
mod attributes;
mod chunk;
mod database;
mod delta;
mod guards;
mod id;
mod ingest;
mod made;
mod manifest;
mod names;
mod outline;
pub mod pack;
mod patterns;
mod pieces;
mod seen;
mod show;
mod store;
mod tree;
mod unpack;

#[cfg(test)]
mod any_tree;
#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod tests;

pub use apply::{
    Applied, ApplyError, Before, Chunks, Delete, Drift, Installed, Installer, Job, MaxDelete,
    Named, Preflight, Rules, Stage, Writing,
};
pub use attributes::Attributes;
pub use chunk::{AVERAGE_CHUNK, MAX_CHUNK, MIN_CHUNK};
pub use database::{Database, Tape, is_full};
pub use delta::{Base, Decoded, Delta};
pub use id::{ContentId, ContentIdError};
pub use ingest::{IngestError, Ingested, Progress, ingest, ingest_again, look};
pub use made::ingest_bytes;
pub use manifest::{Changes, ChunkRef, Entry, Kind, Limits, Manifest, ManifestError, Name};
pub use outline::{GROUP, Outline, OutlineError};
pub use pack::{Bundle, PackError, Part, Segment, plan};
pub use patterns::{PATTERN_LIMIT, PATTERNS, PatternError, Patterns};
pub use pieces::Pieces;
pub use seen::{Marks, Seen};
pub use store::{
    Batch, Bounds, Checked, MAX_OBJECT, Object, Owner, Partial, Pinned, Price, Store, StoreError,
    Usage, read_groups,
};
pub use unpack::{OnDisk, Origin, Unpack};
