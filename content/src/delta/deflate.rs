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

use super::codec::Plain;
use super::opened::PIECE;

/// Deflated bytes that are looked at in one go; a block that is longer takes more.
const FEED: usize = 256 << 10;
/// And at the beginning: by that is guessed how a member was deflated, and the guess holds for all
/// of it. Few bytes guess best, but they may be too like each other to tell what comes later, as
/// with long libraries; then more are tried.
const FIRST: [usize; 2] = [FEED, 1 << 20];
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

/// The plain bytes of a member and the corrections, piece by piece; `None` as well if there are
/// more plain bytes than the limit. All that were looked at are taken from `work`.
pub(super) fn take_apart(member: &[u8], limit: u64, work: &mut u64) -> Option<Vec<Plain>> {
    let firsts = FIRST.into_iter().enumerate();
    let mut firsts = firsts.filter(|(n, _)| *n == 0 || member.len() > FIRST[n - 1]);
    // It is others' code on bytes that nobody has checked: a panic in it is a "no".
    firsts.find_map(|(_, first)| {
        catch_unwind(AssertUnwindSafe(|| attempt(member, first, limit, work))).ok().flatten()
    })
}

fn attempt(member: &[u8], first: usize, limit: u64, work: &mut u64) -> Option<Vec<Plain>> {
    let config = PreflateConfig {
        plain_text_limit: PIECE,
        verify_compression: true,
        ..PreflateConfig::default()
    };
    let mut processor = PreflateStreamProcessor::new(&config);
    let (mut pieces, mut start, mut end) = (Vec::new(), 0, first.min(member.len()));
    let (mut corrections, mut total) = (0, 0);
    while !processor.is_done() {
        match processor.decompress(&member[start..end]) {
            Ok(piece) => {
                let plain = processor.plain_text().text().to_vec();
                // Nothing gained, or not a member of one deflated stream alone.
                if plain.is_empty() && piece.compressed_size == 0 {
                    return None;
                }
                total += plain.len() as u64;
                *work = work.saturating_sub(plain.len() as u64);
                if total > limit || *work == 0 {
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

#[cfg(test)]
mod tests {
    use miniz_oxide::deflate::core::{CompressorOxide, TDEFLFlush, compress_to_output};

    use super::*;

    #[test]
    fn no_more_is_taken_apart_than_is_allowed() {
        let plain = (0..20_000).flat_map(|n| format!("line {} of {n}\n", n * n % 977).into_bytes());
        let plain: Vec<u8> = plain.collect();
        let member = miniz_oxide::deflate::compress_to_vec(&plain, 6);
        let (length, mut work) = (plain.len() as u64, 1 << 30);
        let pieces = take_apart(&member, length, &mut work).expect("there are no more");
        assert!(pieces.iter().flat_map(|(plain, _)| plain).eq(&plain));
        assert_eq!(work, (1 << 30) - length);
        assert!(take_apart(&member, length - 1, &mut work).is_none());
        assert!(take_apart(&member, length, &mut { length / 2 }).is_none());
    }

    #[test]
    fn a_guess_that_holds_for_the_beginning_alone_is_made_again() {
        let mut numbers = crate::delta::tests::noise(1, 1 << 20).into_iter();
        let mut some = |n: u8| numbers.next().expect("there are enough") % n;
        let mut plain = Vec::new();
        while plain.len() < 3 << 20 {
            plain.extend_from_slice(format!("line {} of {};", some(200), some(255)).as_bytes());
        }
        // A flush in the midst of it: no guess by what comes before has what comes after.
        let mut deflater = CompressorOxide::default();
        deflater.set_format_and_level(miniz_oxide::DataFormat::Raw, 1);
        let (before, after) = plain.split_at(1_000_000);
        let mut member = Vec::new();
        for (part, flush) in [(before, TDEFLFlush::Sync), (after, TDEFLFlush::Finish)] {
            let (_, taken) = compress_to_output(&mut deflater, part, flush, |out| {
                member.extend_from_slice(out);
                true
            });
            assert_eq!(taken, part.len());
        }
        let whole = plain.len() as u64;
        assert!(attempt(&member, FIRST[0], whole, &mut { 1 << 30 }).is_none());
        let pieces = take_apart(&member, whole, &mut { 1 << 30 }).expect("more is tried");
        let mut packer = Packer::new();
        let made = pieces.iter().map(|(plain, corrections)| packer.piece(plain, corrections));
        assert_eq!(made.collect::<Option<Vec<_>>>().expect("all of them").concat(), member);
    }
}
