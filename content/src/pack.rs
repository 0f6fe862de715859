//! What travels: a difference between two manifests as a few encoded parts.
//!
//! The idea: both ends know the manifests, so both can derive the list of missing chunks, in
//! one order ([`plan`]). A segment is then nothing but a run of that list, compressed as one
//! stream, without a single id inside: ids do not compress, and the manifest has them already.
//! The manifest travels compressed against the one before it, so that a small change is small.
//! A part is stored under the hash of its encoded bytes; relays check and forward parts
//! without decoding them.
//!
//! It deliberately knows no signatures: whoever decodes a manifest compares its root with the
//! one in the signed order. Sizes to decode to come from that manifest, never from the part.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use zstd::bulk::Compressor;
use zstd::zstd_safe::{
    CParameter, DCtx, compress_bound, find_frame_compressed_size, get_error_name,
};

use crate::delta;
use crate::id::ContentId;
use crate::manifest::{ChunkRef, Limits, Manifest, ManifestError};
use crate::store::{Store, StoreError};

/// The compression level that pays on a weak link without being slow.
pub const DEFAULT_LEVEL: i32 = 6;
/// Raw bytes in a segment at most.
pub const SEGMENT: usize = 8 << 20;

const SEGMENT_MAGIC: [u8; 4] = *b"BRDS";
const MANIFEST_MAGIC: [u8; 4] = *b"BRDM";
const VERSION: u8 = 1;
/// Magic, version, first index, count.
const SEGMENT_HEAD: usize = 13;
/// Magic, version, whether there is a base, raw length.
const MANIFEST_HEAD: usize = 14;
const ENCODERS: usize = 2;

/// An encoded object: in the store under this id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// BLAKE3 of the encoded bytes.
    pub id: ContentId,
    /// How many encoded bytes.
    pub bytes: u32,
}

/// All that takes a node from one manifest to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// Root of the manifest the receiver must have, if any.
    pub base: Option<ContentId>,
    /// The target manifest.
    pub manifest: Part,
    /// Chunks that the base lacks, in plan order.
    pub segments: Vec<Part>,
    /// Chunks that the base lacks, made from its files; see [`Delta`](crate::Delta).
    pub deltas: Vec<Part>,
}

impl Bundle {
    /// All of its parts, the manifest first.
    pub fn parts(&self) -> impl Iterator<Item = &Part> + Clone {
        std::iter::once(&self.manifest).chain(&self.segments).chain(&self.deltas)
    }
}

/// Why a part could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The store lacks a chunk of the target. The source must be ingested again.
    #[error("chunk {id} is not in the store")]
    Missing {
        /// The chunk.
        id: ContentId,
    },
    /// The part is not one, or is of another kind or version. Its maker is at fault.
    #[error("not a part we can read: {what}")]
    Format {
        /// What is wrong.
        what: &'static str,
    },
    /// The part was made against a base, and the base was not given, or the reverse.
    #[error("the manifest part and its base do not go together")]
    Base,
    /// The compressed bytes do not decode to exactly what they must. Their maker is at fault.
    #[error("cannot decode: {what}")]
    Decode {
        /// What is wrong.
        what: &'static str,
    },
    /// A chunk came out as other bytes than its id says. The maker of the part is at fault.
    #[error("chunk {id} decoded to other bytes")]
    Chunk {
        /// The chunk.
        id: ContentId,
    },
    /// What is in a container could not be put aside; the disk is full or failing.
    #[error("cannot write a scratch file")]
    Scratch(#[source] io::Error),
    /// The compressor failed: out of memory, or a level it does not know.
    #[error("cannot compress")]
    Compress(#[source] io::Error),
    /// The manifest broke a rule.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The chunks of the target that the base lacks, each once, in the order they travel.
///
/// Files that are alike come together: by extension, then by name, then by path. Both ends
/// call this, so the order is a format; a golden test guards it.
pub fn plan(base: Option<&Manifest>, target: &Manifest) -> Vec<ChunkRef> {
    delta::layout(base, target).into_iter().flat_map(|fresh| fresh.chunks).collect()
}

/// Encodes what leads from the base (or from nothing) to the target, and stores the parts: in the
/// fewest bytes.
pub fn encode(
    base: Option<&Manifest>,
    target: &Manifest,
    store: &Store,
    level: i32,
) -> Result<Bundle, PackError> {
    Ok(encode_over(None, base, target, (store, level))?.0)
}

/// The same for hosts behind links of which the slowest carries `rate` bytes a second: what takes
/// longer to pack than it saves there is packed less. Also returns whether there was any.
pub fn encode_over(
    rate: Option<u64>,
    base: Option<&Manifest>,
    target: &Manifest,
    (store, level): (&Store, i32),
) -> Result<(Bundle, bool), PackError> {
    let base_bytes = base.map(Manifest::encode);
    let canonical = target.encode();
    let manifest_level = level.max(delta::manifest_level(canonical.len()));
    let encoded = encode_manifest(base_bytes.as_deref(), &canonical, manifest_level)?;
    let manifest = part(&encoded);
    store.put(manifest.id, &encoded)?;
    let (segments, (deltas, is_spared)) = match base {
        Some(base) => (Vec::new(), delta::encode(base, target, store, rate)?),
        None => {
            let plan = plan(None, target);
            let all = runs(&plan, 0..plan.len());
            let own = delta::whole_level(level, (target.bytes(), SEGMENT), rate);
            (encode_segments(&plan, all, store, own)?, (Vec::new(), own < level))
        }
    };
    let base = base_bytes.map(|bytes| ContentId::of(&bytes));
    Ok((Bundle { base, manifest, segments, deltas }, is_spared))
}

/// Encodes these runs of the [`plan`] of a whole tree, for hosts that have the rest of it without
/// having got it from here, and stores the parts.
pub fn encode_missing(
    target: &Manifest,
    missing: &[Range<usize>],
    store: &Store,
    level: i32,
) -> Result<Bundle, PackError> {
    let manifest = encode_manifest_part(None, target, store, level)?;
    let plan = plan(None, target);
    let runs = missing.iter().flat_map(|run| runs(&plan, run.clone())).collect();
    let segments = encode_segments(&plan, runs, store, level)?;
    Ok(Bundle { base: None, manifest, segments, deltas: Vec::new() })
}

/// Encodes and stores a manifest alone: for receivers whose base is not known, or who only look.
pub fn encode_manifest_part(
    base: Option<&Manifest>,
    target: &Manifest,
    store: &Store,
    level: i32,
) -> Result<Part, PackError> {
    let base = base.map(Manifest::encode);
    let encoded = encode_manifest(base.as_deref(), &target.encode(), level)?;
    let part = part(&encoded);
    store.put(part.id, &encoded)?;
    Ok(part)
}

/// Encodes canonical manifest bytes, against those of a base if there is one.
fn encode_manifest(base: Option<&[u8]>, target: &[u8], level: i32) -> Result<Vec<u8>, PackError> {
    let mut out = Vec::with_capacity(MANIFEST_HEAD + compress_bound(target.len()));
    out.extend_from_slice(&MANIFEST_MAGIC);
    out.extend_from_slice(&[VERSION, u8::from(base.is_some())]);
    out.extend_from_slice(&(target.len() as u64).to_le_bytes());
    out.extend_from_slice(&compress(base, target, level)?);
    Ok(out)
}

/// Reads a manifest part. The caller compares [`Manifest::root`] with the signed one.
pub fn decode_manifest(
    part: &[u8],
    base: Option<&[u8]>,
    limits: &Limits,
) -> Result<Manifest, PackError> {
    let (head, body) = split_head::<MANIFEST_HEAD>(part, MANIFEST_MAGIC)?;
    if head[5] > 1 {
        return Err(PackError::Format { what: "unknown flags" });
    }
    if (head[5] == 1) != base.is_some() {
        return Err(PackError::Base);
    }
    let length = u64::from_le_bytes(head[6..14].try_into().expect("eight bytes"));
    let too_large = || ManifestError::TooLarge { what: "bytes", limit: limits.encoded as u64 };
    let length = usize::try_from(length).ok().filter(|length| *length <= limits.encoded);
    let bytes = decompress(base, body, length.ok_or_else(too_large)?)?;
    Ok(Manifest::decode(&bytes, limits)?)
}

/// Takes a chunk whose bytes have been checked.
pub type OnChunk<'a, E> = dyn FnMut(&ChunkRef, &[u8]) -> Result<(), E> + 'a;

/// A run of the plan, compressed as one stream.
pub struct Segment;

impl Segment {
    /// The chunks that a segment of this plan brings.
    pub fn chunks<'a>(bytes: &[u8], plan: &'a [ChunkRef]) -> Result<&'a [ChunkRef], PackError> {
        Ok(Segment::run(bytes, plan)?.0)
    }

    fn run<'a, 'b>(
        bytes: &'b [u8],
        plan: &'a [ChunkRef],
    ) -> Result<(&'a [ChunkRef], &'b [u8]), PackError> {
        let (head, body) = split_head::<SEGMENT_HEAD>(bytes, SEGMENT_MAGIC)?;
        let number = |at: usize| {
            u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes")) as usize
        };
        let (first, count) = (number(5), number(9));
        let run = first.checked_add(count).and_then(|end| plan.get(first..end));
        let run = run.filter(|run| !run.is_empty());
        Ok((run.ok_or(PackError::Format { what: "not a segment of this plan" })?, body))
    }

    /// Decodes a segment of this plan, and hands over each chunk after checking it by its id.
    pub fn decode<E: From<PackError>>(
        bytes: &[u8],
        plan: &[ChunkRef],
        f: &mut OnChunk<'_, E>,
    ) -> Result<(), E> {
        let (run, body) = Segment::run(bytes, plan)?;
        let raw = run.iter().map(|chunk| chunk.len as usize).fold(0, usize::saturating_add);
        if raw > SEGMENT {
            return Err(PackError::Format { what: "the segment is longer than 8 MiB" }.into());
        }
        let raw = decompress(None, body, raw)?;
        let mut rest = raw.as_slice();
        for chunk in run {
            let (bytes, tail) = rest.split_at(chunk.len as usize);
            if ContentId::of(bytes) != chunk.id {
                return Err(PackError::Chunk { id: chunk.id }.into());
            }
            f(chunk, bytes)?;
            rest = tail;
        }
        Ok(())
    }
}

/// Two threads take one segment after the other; each holds one raw and one encoded.
fn encode_segments(
    plan: &[ChunkRef],
    runs: Vec<Range<usize>>,
    store: &Store,
    level: i32,
) -> Result<Vec<Part>, PackError> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<(usize, Part)>, PackError> {
        let mut parts = Vec::new();
        let mut batch = store.batch();
        while let Some(run) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let encoded = encode_segment(plan, run.clone(), store, level).inspect_err(|_| {
                next.store(runs.len(), Ordering::Relaxed);
            })?;
            let part = part(&encoded);
            batch.put(part.id, &encoded)?;
            parts.push((run.start, part));
        }
        batch.commit()?;
        Ok(parts)
    };
    let mut parts = Vec::with_capacity(runs.len());
    std::thread::scope(|scope| -> Result<(), PackError> {
        let threads: Vec<_> = (0..ENCODERS.min(runs.len())).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            let done = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            parts.extend(done?);
        }
        Ok(())
    })?;
    parts.sort_unstable_by_key(|(start, _)| *start);
    Ok(parts.into_iter().map(|(_, part)| part).collect())
}

/// Cuts a run of the plan into some of at most [`SEGMENT`] raw bytes.
fn runs(plan: &[ChunkRef], whole: Range<usize>) -> Vec<Range<usize>> {
    let (mut runs, mut start, mut raw) = (Vec::new(), whole.start, 0);
    for index in whole.clone() {
        let length = plan[index].len as usize;
        if raw + length > SEGMENT {
            runs.push(start..index);
            (start, raw) = (index, 0);
        }
        raw += length;
    }
    if start < whole.end {
        runs.push(start..whole.end);
    }
    runs
}

fn encode_segment(
    plan: &[ChunkRef],
    run: Range<usize>,
    store: &Store,
    level: i32,
) -> Result<Vec<u8>, PackError> {
    let mut raw = Vec::new();
    for chunk in &plan[run.clone()] {
        let bytes = store.get(&chunk.id)?.filter(|bytes| bytes.len() == chunk.len as usize);
        raw.extend_from_slice(&bytes.ok_or(PackError::Missing { id: chunk.id })?);
    }
    let number = |n: usize| {
        let n = u32::try_from(n).map_err(|_| PackError::Format { what: "too many chunks" });
        n.map(u32::to_le_bytes)
    };
    let mut out = Vec::new();
    out.extend_from_slice(&SEGMENT_MAGIC);
    out.push(VERSION);
    out.extend_from_slice(&number(run.start)?);
    out.extend_from_slice(&number(run.len())?);
    out.extend_from_slice(&compress(None, &raw, level)?);
    Ok(out)
}

pub(crate) fn part(encoded: &[u8]) -> Part {
    let bytes = u32::try_from(encoded.len()).unwrap_or(u32::MAX);
    Part { id: ContentId::of(encoded), bytes }
}

fn split_head<const N: usize>(part: &[u8], magic: [u8; 4]) -> Result<(&[u8; N], &[u8]), PackError> {
    let split = part.split_first_chunk::<N>();
    let (head, body) = split.ok_or(PackError::Format { what: "it ends early" })?;
    if head[..4] != magic {
        return Err(PackError::Format { what: "it is of another kind" });
    }
    if head[4] != VERSION {
        return Err(PackError::Format { what: "it is of another version" });
    }
    Ok((head, body))
}

/// One zstd frame, its window as long as the prefix and the bytes together.
pub(crate) fn compress(
    prefix: Option<&[u8]>,
    bytes: &[u8],
    level: i32,
) -> Result<Vec<u8>, PackError> {
    let mut compressor = Compressor::new(level).map_err(PackError::Compress)?;
    let span = (prefix.map_or(0, <[u8]>::len) + bytes.len()).max(1 << 10);
    let window = span.next_power_of_two().ilog2().min(27);
    let mut set = |parameter| compressor.set_parameter(parameter).map_err(PackError::Compress);
    set(CParameter::WindowLog(window))?;
    if let Some(prefix) = prefix {
        // Without long-distance matching and a window this long, a prefix silently does nothing
        // beyond the reach of the level's own tables.
        set(CParameter::EnableLongDistanceMatching(true))?;
        let referred = compressor.context_mut().ref_prefix(prefix);
        referred.map_err(|code| PackError::Compress(io::Error::other(get_error_name(code))))?;
    }
    compressor.compress(bytes).map_err(PackError::Compress)
}

/// Decodes one frame to exactly `length` bytes; there is never room for one more.
///
/// It decodes in one call into a buffer that is its own window, so no limit on the window has
/// to be raised, and a frame that asks for a huge one costs nothing.
pub(crate) fn decompress(
    prefix: Option<&[u8]>,
    frame: &[u8],
    length: usize,
) -> Result<Vec<u8>, PackError> {
    if find_frame_compressed_size(frame) != Ok(frame.len()) {
        return Err(PackError::Decode { what: "not exactly one frame" });
    }
    // A Vec may come with more capacity than was asked for; a slice has no slack.
    let mut out = vec![0; length];
    let mut context = DCtx::create();
    let referred = prefix.map_or(Ok(0), |prefix| context.ref_prefix(prefix));
    let written = referred.and_then(|_| context.decompress(out.as_mut_slice(), frame)).ok();
    match written {
        Some(written) if written == length => Ok(out),
        Some(_) => Err(PackError::Decode { what: "fewer bytes than the manifest says" }),
        None => Err(PackError::Decode { what: "damaged, or more bytes than the manifest says" }),
    }
}

#[cfg(test)]
mod tests;
