//! How hard to compress: the one place where time at the controller is traded for bytes.
//!
//! A segment is encoded once for the whole fleet, and a push waits for it. zstd -19 takes about
//! one second of a core for each megabyte of text that is not in the prefix, -12 a tenth of that
//! and -9 a third of the rest, for 5 to 15 percent more bytes at each step. Two threads encode, so
//! the limits below keep a push of any size from waiting much longer than a minute for its last
//! segment, and small pushes, which are most, get the best there is. Of differences
//! only the streams are compressed, which are a small part of the files.

/// The level for prefix segments, by how many raw bytes there are in all of them.
pub(super) fn prefix_level(raw: u64) -> i32 {
    match raw >> 20 {
        0..64 => 19,
        64..512 => 12,
        _ => 9,
    }
}

/// The level for difference segments, by how many bytes there are in their streams.
pub(super) fn difference_level(streams: usize) -> i32 {
    match streams >> 20 {
        0..64 => 19,
        64..256 => 12,
        _ => 9,
    }
}

/// The level for the manifest, by its length.
pub(crate) fn manifest_level(bytes: usize) -> i32 {
    match bytes >> 20 {
        0..4 => 19,
        _ => 9,
    }
}

/// The level at which the two kinds of segments are compared, file by file.
pub(super) fn trial_level(raw: usize) -> i32 {
    match raw >> 10 {
        0..256 => 12,
        _ => 3,
    }
}

/// Bytes in containers that are opened although to pack their members again is slow, as with xz:
/// in one push, together. They may hold four times as much, and a core packs some 2 MB of that in a
/// second, here as at each host; so a push that is full of them does wait for minutes.
pub(super) const PACKED_AGAIN: u64 = 128 << 20;
