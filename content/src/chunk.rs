//! Where files are cut into chunks.
//!
//! FastCDC (2020) finds cut points in the content itself, so that an insertion moves only the
//! chunks around it. The cut points are a format: two nodes that cut differently share nothing.
//! That is why the crate is pinned, the sizes are constants, and a golden vector guards them.
//!
//! A file of at most [`AVERAGE_CHUNK`] bytes is one chunk: the average file is far smaller, and
//! cutting it would cost ids without saving bytes.

use std::io::{self, Read};

use fastcdc::v2020::{Normalization, cut, select_masks};

/// No chunk but the last of a file is shorter.
pub const MIN_CHUNK: usize = 16 * 1024;
/// What cutting aims at, and the size up to which a file is one chunk.
pub const AVERAGE_CHUNK: usize = 64 * 1024;
/// No chunk is longer.
pub const MAX_CHUNK: usize = 256 * 1024;

/// Cuts one file after the other, with one buffer.
pub(crate) struct Cutter {
    buffer: Vec<u8>,
    mask_short: u64,
    mask_long: u64,
}

impl Cutter {
    pub(crate) fn new() -> Cutter {
        let (mask_short, mask_long) = select_masks(AVERAGE_CHUNK, Normalization::Level2);
        Cutter { buffer: Vec::new(), mask_short, mask_long }
    }

    /// Hands each chunk of the reader to `sink`, and returns how many bytes there were.
    ///
    /// `size` is what the caller believes; reading stops one byte beyond it, so a file that
    /// grows without end does not keep us, and the caller sees from the sum that it changed.
    pub(crate) fn cut<E: From<io::Error>>(
        &mut self,
        reader: impl Read,
        size: u64,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<u64, E> {
        let mut reader = reader.take(size.saturating_add(1));
        let whole = size <= AVERAGE_CHUNK as u64;
        self.buffer.resize(2 * MAX_CHUNK, 0);
        let (mut start, mut end, mut total, mut more) = (0, 0, 0, true);
        loop {
            if more && end - start < MAX_CHUNK {
                self.buffer.copy_within(start..end, 0);
                (start, end) = (0, end - start);
                let read = fill(&mut reader, &mut self.buffer[end..])?;
                end += read;
                total += read as u64;
                more = end == self.buffer.len();
            }
            if start == end {
                return Ok(total);
            }
            let length = match whole {
                true => end - start,
                false => self.next(&self.buffer[start..end]),
            };
            sink(&self.buffer[start..start + length])?;
            start += length;
        }
    }

    /// The length of the first chunk. More than [`MAX_CHUNK`] bytes never change the answer.
    fn next(&self, bytes: &[u8]) -> usize {
        let (short, long) = (self.mask_short, self.mask_long);
        let sizes = (MIN_CHUNK, AVERAGE_CHUNK, MAX_CHUNK);
        cut(bytes, sizes.0, sizes.1, sizes.2, short, long, short << 1, long << 1).1
    }
}

/// Reads until the buffer is full or the reader has ended.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ContentId;

    /// Bytes that look random and are the same everywhere.
    fn noise(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().update(b"barid golden").finalize_xof().fill(&mut bytes);
        bytes
    }

    fn check(bytes: &[u8]) -> Vec<usize> {
        let mut joined = Vec::new();
        let mut lengths = Vec::new();
        let size = bytes.len() as u64;
        let total = Cutter::new()
            .cut::<io::Error>(bytes, size, &mut |chunk| {
                joined.extend_from_slice(chunk);
                lengths.push(chunk.len());
                Ok(())
            })
            .expect("reading a slice cannot fail");
        assert_eq!((total, joined.as_slice()), (size, bytes));
        lengths
    }

    #[test]
    fn golden_cut_points() {
        let bytes = noise(1 << 20);
        assert_eq!(
            ContentId::of(&bytes).to_string(),
            "7b08415086323f9f8250a40a8ac171a5be8addbbbf7ad7c8623605a5a9ca0c11"
        );
        let cuts = [
            66328, 83566, 77367, 62828, 38610, 81543, 76652, 91821, 87259, 94434, 66011, 67185,
            75075, 79897,
        ];
        assert_eq!(check(&bytes), cuts);
    }

    #[test]
    fn small_files_are_one_chunk_and_constant_input_is_cut_at_the_maximum() {
        assert_eq!(check(b""), [0; 0]);
        assert_eq!(check(&noise(1)), [1]);
        assert_eq!(check(&noise(AVERAGE_CHUNK)), [AVERAGE_CHUNK]);
        assert_eq!(check(&vec![7; 2 * MAX_CHUNK + 1]), [MAX_CHUNK, MAX_CHUNK, 1]);
    }

    #[test]
    fn the_same_cuts_however_the_bytes_arrive() {
        struct Drip<'a>(&'a [u8]);
        impl Read for Drip<'_> {
            fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
                let n = out.len().min(self.0.len()).min(4099);
                out[..n].copy_from_slice(&self.0[..n]);
                self.0 = &self.0[n..];
                Ok(n)
            }
        }
        let bytes = noise(3 << 20);
        let mut lengths = Vec::new();
        let mut sink = |chunk: &[u8]| -> io::Result<()> {
            lengths.push(chunk.len());
            Ok(())
        };
        Cutter::new().cut(Drip(&bytes), bytes.len() as u64, &mut sink).expect("reads");
        let whole = check(&bytes);
        assert_eq!(lengths, whole);
        assert!(whole.iter().all(|length| *length <= MAX_CHUNK));
        // An insertion at the front leaves the later chunks as they were.
        let shifted = check(&[b"inserted".as_slice(), &bytes].concat());
        assert_eq!(shifted[shifted.len() - 10..], whole[whole.len() - 10..]);
    }

    #[test]
    fn a_file_that_grew_is_read_one_byte_further_and_not_more() {
        let bytes = noise(100_000);
        let mut ignore = |_: &[u8]| -> io::Result<()> { Ok(()) };
        let total = Cutter::new().cut(bytes.as_slice(), 70_000, &mut ignore).expect("reads");
        assert_eq!(total, 70_001);
    }
}
