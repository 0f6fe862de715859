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
/// second, here as at each host: about a minute.
pub(super) const PACKED_AGAIN: u64 = 32 << 20;
/// Plain bytes that a core packs by xz in a second, about, at the level that packages have.
const PACKS: u64 = 2_000_000;

/// Whether a container is at the last host sooner if it is opened. `saved`: bytes that then do not
/// travel; `packed`: plain bytes that are packed again, here by two threads before anything
/// travels, and by one at each host when all has come; `rate`: of the slowest link, in bytes a
/// second.
pub(super) fn is_sooner(saved: u64, packed: u64, rate: u64) -> bool {
    // saved / rate > (packed + packed / 2) / PACKS
    2 * u128::from(saved) * u128::from(PACKS) > 3 * u128::from(packed) * u128::from(rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_again_pays_on_slow_links_alone() {
        // A package of 1 MB, of which 0.9 MB need not travel, and that holds 4 MB.
        let pays = |bits: u64| is_sooner(900_000, 4_000_000, bits / 8);
        assert!(pays(64_000) && pays(2_000_000) && !pays(3_000_000) && !pays(100_000_000));
        assert!(!is_sooner(0, 1, 1) && is_sooner(u64::MAX, 0, u64::MAX));
    }
}
