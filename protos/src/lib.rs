//! What Barid's processes say to each other: bytes on one side, valid values on the other.
//!
//! Messages are protobuf. Each is looked at twice before anybody sees it: `shape` checks the bytes
//! against the .proto files (every field once, numbers in range and in their shortest form, counts
//! within limits) before anything is allocated for them, and the modules below turn what prost
//! read into types that cannot hold nonsense: ids of the right length, sets in their one form,
//! bodies named by their own hash. Nothing of prost leaves the crate.
//!
//! - [`encode_frame`] and [`decode_frame`]: control frames of a link;
//! - [`Facts`]: what a host says of itself;
//! - [`Packer`], [`Unpacker`]: reports whose outputs are alike, as they cross a link;
//! - [`Envelope`] and [`OrderBody`]: signed orders;
//! - [`Delegation`] and [`Delegated`]: what a relay's own operator may order, and its orders;
//!   [`Record`]: what became of them;
//! - [`Answer`]: what a host says with an outcome;
//! - [`JoinRequest`], [`JoinReply`], [`GrantBody`]: joining;
//! - [`PullRequest`], [`PullReply`]: heads of content streams;
//! - [`OutputRequest`], [`OutputReply`]: heads of streams of output, and [`OutputBody`], signed;
//! - [`CollectBody`], [`Item`]: collecting files by way of the same streams;
//! - [`frame_header`], [`StreamKind`], [`check_version`]: what all streams share.
//!
//! Not here: signatures, certificates and hashing, which callers bring, and all I/O.

mod answer;
mod bus;
mod collect;
mod delegate;
mod dist;
mod fact;
mod field;
mod gate;
mod hosts;
mod join;
mod lacks;
mod order;
mod output;
mod packed;
mod profile;
mod pull;
mod push;
mod record;
mod removed;
mod run;
mod schedule;
mod shape;
mod steer;
mod stream;
mod terms;
#[cfg(test)]
mod testing;
mod wire;

pub use answer::{ANSWER_LIMIT, Answer, AnswerError, Fault, Kept, OUTPUT_LIMIT, Pushed};
pub use collect::{
    COLLECT_KIND, CollectBody, CollectFile, ITEM_HEADER, ITEM_LIMIT, Item, item_decoder,
};
pub use delegate::{
    DELEGATED_KIND, DELEGATED_LIMIT, DELEGATION_KIND, Delegate, Delegated, DelegatedError,
    Delegation, KNOWN_NODES, KnownNode,
};
pub use dist::{DIST_FILES, Dist, DistItem, Disted, ItemFault};
pub use field::FieldError;
pub use join::{Grant, GrantBody, JOIN_LIMIT, JoinError, JoinReply, JoinRequest};
pub use lacks::Lacks;
pub use order::{
    ENVELOPE_LIMIT, Envelope, LONGEST, ORDER_KIND, ORDER_LIMIT, OrderBody, OrderError,
    SUPERSEDED_LIMIT, Work,
};
pub use output::{
    OUTPUT_HEAD_LIMIT, OUTPUT_KIND, OutputBody, OutputError, OutputFault, OutputReply,
    OutputRequest,
};
pub use packed::{Packed, Packer, Unpacker};
pub use profile::{FACTS, Facts, FactsError, NoFact, check_fact, decode_facts, encode_facts};
pub use pull::{Encoding, PULL_LIMIT, PullError, PullReply, PullRequest};
pub use push::{Bundle, Part, Push};
pub use record::{RECORD_KIND, RECORD_LIMIT, Record, RecordError, RecordReply, SignedRecord};
pub use removed::{REMOVED_KEYS, Removals, RemovalsError, SignedRemovals};
pub use run::{FILES, FILES_LIMIT, File, Run, STDIN_LIMIT, Variable};
pub use schedule::Schedule;
pub use shape::Malformed;
pub use steer::{Cap, LEAST_RATE, PARENTS, Steer};
pub use stream::{
    FRAME_LIMIT, HEADER_BYTES, HeaderError, StreamKind, UnknownStream, VERSION, VersionError,
    check_version, frame_header, parse_header, parse_header_within,
};
pub use terms::{Delete, MaxDelete, Special, Terms};
pub use wire::{
    Allowance, Beside, FrameError, Incoming, PAST, Taken, decode_folded, decode_frame, encode_beat,
    encode_folded, encode_frame, encode_heard, encode_hello, encode_removals,
};

/// The messages as prost makes them of the .proto files.
mod pb {
    #![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
    include!(concat!(env!("OUT_DIR"), "/barid.v1.rs"));
}
