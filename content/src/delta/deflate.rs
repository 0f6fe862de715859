//! Deflated members: inflated, taken apart, and made again bit for bit.
//!
//! The encoder finds what a member's deflater did otherwise than a known one would have (the
//! `preflate` method); these corrections travel, and with them the member is deflated again.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_HAS_MORE_INPUT;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};
use preflate_rs::{ExitCode, PreflateConfig, PreflateStreamProcessor, RecreateStreamProcessor};

use super::opened::PIECE;

/// Deflated bytes that are looked at in one go; a block that is longer takes more.
const FEED: usize = 256 << 10;
/// What inflating looks back on.
const WINDOW: usize = 32 << 10;

/// Inflates all that `read` gives. Whether the stream ended with it, and within the limit.
pub(super) fn unpack<E>(
    read: &mut dyn FnMut(&mut [u8]) -> usize,
    limit: u64,
    sink: &mut dyn FnMut(&[u8]) -> Result<(), E>,
) -> Result<bool, E> {
    let mut inflater = Box::new(DecompressorOxide::new());
    let (mut input, mut filled, mut used) = (vec![0; 64 << 10], 0, 0);
    let (mut window, mut at, mut total) = (vec![0; 2 * WINDOW], 0, 0_u64);
    loop {
        if used == filled {
            (filled, used) = (read(&mut input), 0);
        }
        let flags = if filled > 0 { TINFL_FLAG_HAS_MORE_INPUT } else { 0 };
        let (status, taken, made) =
            decompress(&mut inflater, &input[used..filled], &mut window, at, flags);
        used += taken;
        total += made as u64;
        if total > limit {
            return Ok(false);
        }
        sink(&window[at..at + made])?;
        at = (at + made) % window.len();
        match status {
            TINFLStatus::Done => return Ok(used == filled && read(&mut input) == 0),
            TINFLStatus::NeedsMoreInput if filled > 0 => {}
            TINFLStatus::HasMoreOutput => {}
            _ => return Ok(false),
        }
    }
}

/// The plain bytes of a member and the corrections, piece by piece.
pub(super) fn take_apart(member: &[u8]) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let config = PreflateConfig {
        plain_text_limit: PIECE,
        verify_compression: true,
        ..PreflateConfig::default()
    };
    let attempt = || -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut processor = PreflateStreamProcessor::new(&config);
        let (mut pieces, mut start, mut end) = (Vec::new(), 0, FEED.min(member.len()));
        let mut corrections = 0;
        while !processor.is_done() {
            match processor.decompress(&member[start..end]) {
                Ok(piece) => {
                    let plain = processor.plain_text().text().to_vec();
                    // Nothing gained, or not a member of one deflated stream alone.
                    if plain.is_empty() && piece.compressed_size == 0 {
                        return None;
                    }
                    corrections += piece.corrections.len();
                    pieces.push((plain, piece.corrections));
                    processor.shrink_to_dictionary();
                    start += piece.compressed_size;
                    end = (start + FEED).min(member.len());
                }
                Err(error) if error.exit_code() == ExitCode::ShortRead && end < member.len() => {
                    end = (end + FEED).min(member.len());
                }
                Err(_) => return None,
            }
        }
        // Corrections as long as the member are as good as none.
        (start == member.len() && corrections < member.len() / 2).then_some(pieces)
    };
    // It is others' code on bytes that nobody has checked: a panic in it is a "no".
    catch_unwind(AssertUnwindSafe(attempt)).ok().flatten()
}

/// Deflates a member again, piece by piece.
pub(super) struct Packer {
    /// None once it has failed.
    processor: Option<RecreateStreamProcessor>,
}

impl Packer {
    pub(super) fn new() -> Packer {
        Packer { processor: Some(RecreateStreamProcessor::new()) }
    }

    /// The deflated bytes of a piece.
    pub(super) fn piece(&mut self, plain: &[u8], corrections: &[u8]) -> Option<Vec<u8>> {
        let mut processor = self.processor.take()?;
        let attempt = || {
            let made = processor.recompress(&mut Cursor::new(plain), corrections);
            made.ok().map(|(deflated, _)| (deflated, processor))
        };
        let made = catch_unwind(AssertUnwindSafe(attempt)).ok().flatten();
        let (deflated, processor) = made?;
        self.processor = Some(processor);
        Some(deflated)
    }
}
