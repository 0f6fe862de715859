//! Deltas: what takes the files of a base to those of a target, in far fewer bytes than the
//! chunks that differ.
//!
//! The idea: both ends know both manifests, so both know which chunks of the target the base
//! lacks, in one order ([`layout`](layout::layout)). A delta segment decodes to some of these
//! chunks with the files of the base at hand, and is one of four kinds:
//!
//! - **prefix**: one zstd frame over the chunks of many files, the old versions of these files
//!   being the frame's prefix. Good for text and small files.
//! - **difference**: like bsdiff. Old and new bytes at a constant distance are compared, and where
//!   they differ, which in code is mostly an address that has moved, subtracted as numbers; what to
//!   copy, how far it agrees, the numbers and what is new are four streams in one zstd frame.
//! - **opened**: a difference between what is in two containers, see [`opened`]; **mixed**: the
//!   same of many containers, whose members may be packed otherwise than deflated.
//!
//! What decodes is checked chunk by chunk against the target's manifest, and what is read of the
//! base against the base's. A piece of the base that is not as it should be counts as zeros of the
//! same length: then the structure of a segment decodes as ever, only chunks that truly were made
//! of those bytes come out wrong, and the caller is told both sets. No segment depends on another.
//!
//! It deliberately knows no network and chooses no remedy: whoever decodes fetches what is
//! missing, be it of the base or of the target.

mod alike;
mod bases;
mod codec;
mod containers;
mod cuts;
mod decode;
mod deflate;
mod diff;
mod effort;
mod encode;
mod head;
mod layout;
mod members;
mod opened;
mod remade;
mod sample;
mod sorted;
mod trial;
mod xz;

pub use self::decode::{Base, Decoded, Delta};
pub(crate) use self::effort::{manifest_level, whole_level};
pub(crate) use self::encode::encode;
#[cfg(test)]
pub(crate) use self::encode::encode_small;
pub(crate) use self::layout::layout;

/// Raw bytes that a difference segment decodes to at most.
const DIFF_RAW: usize = 64 << 20;
/// Bytes in all streams of a difference segment at most.
const DIFF_STREAMS: usize = 16 << 20;
/// Raw bytes that a prefix segment decodes to at most.
const PREFIX_RAW: usize = 8 << 20;
/// Bytes of the base in the prefix of one segment at most.
const PREFIX_BASE: usize = 16 << 20;

#[cfg(test)]
mod tests;
