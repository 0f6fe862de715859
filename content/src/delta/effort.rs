//! How hard to compress: the one place where time at the controller is traded for bytes.
//!
//! A segment is encoded once for the whole fleet, and a push waits for it: nothing travels before
//! all of it is. zstd -19 takes about one second of a core for each one or two megabytes that are
//! not in the prefix, -12 a tenth of that and -9 half of the rest, for 5 to 25 percent more bytes.
//! So what is little, as most pushes are, gets the best there is, and what is more the best that
//! keeps nobody waiting for long. Of differences only the streams are compressed, which are a small
//! part of the files.
//!
//! On a weak link bytes count, be they there a little later, since others want the link as well.
//! On one that carries more, time does, and there the best levels only make everybody wait.

use super::encode::ENCODERS;
use crate::pack::{PackError, compress};

/// Levels, the best first, and how many bytes of text and code a core compresses in a second,
/// about.
const SPEEDS: [(i32, u64); 3] = [(19, 1_000_000), (15, 3_000_000), (12, 11_000_000)];
/// The level for what is too much for these.
const MUCH: i32 = 9;
/// Seconds for which everybody waits for a better level, if all links are known.
const PATIENCE: u64 = 4;
/// And if one is not: it may be so slow that each byte counts.
const PRECAUTION: u64 = 30;
/// Of a whole tree one byte in so many is left, about.
const LEFT: u64 = 4;
/// And of what has a base.
const LEFT_OF_UPDATE: u64 = 20;

/// The level for so many bytes, of which about so many are left, in segments of `solid` bytes that
/// are each encoded by one thread: the best that takes a few seconds at most, or half as long as
/// the slowest link then does. `rate`: of that, in bytes a second, if it is known; if not, half a
/// minute.
fn best_level((bytes, left): (u64, u64), solid: usize, rate: Option<u64>) -> i32 {
    let takes = |rate: u64| left / rate.max(1);
    let patience = rate.map_or(PRECAUTION, |rate| PATIENCE.max(takes(rate) / 2));
    let threads = bytes.div_ceil(solid as u64).clamp(1, ENCODERS as u64);
    let takes = |speed: u64| bytes / threads / speed;
    let level = SPEEDS.iter().find(|(_, speed)| takes(*speed) < patience);
    level.map_or(MUCH, |(level, _)| *level)
}

/// The level for the manifest, by its length.
pub(crate) fn manifest_level(bytes: usize) -> i32 {
    match bytes >> 20 {
        0..4 => 19,
        _ => 9,
    }
}

/// Links that carry so many bytes a second, or fewer, have a whole tree sooner by the best level.
const SLOWEST: u64 = 40_000;
/// Links that carry so many (12 Mbit/s) are not weak: the best levels take longer to encode by more
/// than all they save.
const STRONG: u64 = 1_500_000;
/// And of those that carry so many (100 Mbit/s) even the rest of the time counts.
const FAST: u64 = 12_500_000;

/// So few bytes are encoded at the best level before anybody notices.
const FEW: u64 = 64 << 10;

/// The level for so many bytes instead of the one that makes the fewest of them, if the slowest
/// link that waits carries `rate` bytes a second.
fn level_over(best: i32, bytes: u64, rate: Option<u64>) -> i32 {
    match rate {
        _ if bytes < FEW => best,
        Some(FAST..) => best.min(5),
        Some(STRONG..) => best.min(9),
        _ => best,
    }
}

/// The level for so many bytes with a base, in segments of `solid`.
pub(super) fn update_level(bytes: u64, solid: usize, rate: Option<u64>) -> i32 {
    level_over(best_level((bytes, bytes / LEFT_OF_UPDATE), solid, rate), bytes, rate)
}

/// The level for a whole tree of so many raw bytes, in segments of `solid`: the usual one, unless
/// the link says otherwise.
pub(crate) fn whole_level(usual: i32, (raw, solid): (u64, usize), rate: Option<u64>) -> i32 {
    match rate {
        Some(..=SLOWEST) => usual.max(best_level((raw, raw / LEFT), solid, rate)),
        _ => level_over(usual, raw, rate),
    }
}

/// A level that is quick on everything.
pub(super) const QUICK: i32 = 3;
/// From so many bytes on it is worth a look whether they can be compressed at all.
const LOOK: usize = 256 << 10;

/// Compresses at this level, unless hardly anything comes of it: what is packed already takes the
/// best levels as long as text does, to save some bytes in a thousand. With a prefix there is no
/// such look: the quick level does not find all that is in it.
pub(super) fn squeeze(
    prefix: Option<&[u8]>,
    bytes: &[u8],
    level: i32,
) -> Result<Vec<u8>, PackError> {
    if level > QUICK && prefix.is_none() && bytes.len() >= LOOK {
        let quick = compress(None, bytes, QUICK)?;
        if quick.len() as u64 * 100 > bytes.len() as u64 * 98 {
            return Ok(quick);
        }
    }
    compress(prefix, bytes, level)
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

/// Bytes of a container that two threads open, compare and pack again in a second, about, if it is
/// deflated.
const OPENS: u64 = 2_000_000;

/// Whether a deflated container with so many new bytes may be at the last host sooner if it is
/// opened, however little is left of it. `rate`: of the slowest link, in bytes a second, if that is
/// known.
pub(super) fn may_be_sooner(bytes: u64, rate: Option<u64>) -> bool {
    bytes < OPENS / 4 || rate.is_none_or(|rate| rate < OPENS)
}

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
    fn the_level_follows_the_link() {
        let bits = |bits: u64| Some(bits / 8);
        let over = |rate| {
            [level_over(19, FEW, rate), level_over(12, FEW, rate), whole_level(9, (FEW, 1), rate)]
        };
        assert_eq!(over(None), [19, 12, 9]);
        assert_eq!(over(bits(250_000)), [19, 12, 19]);
        assert_eq!(over(bits(2_000_000)), [19, 12, 9], "as on `veryweak`");
        assert_eq!(over(bits(10_000_000)), [19, 12, 9], "as on `weak`");
        assert_eq!(over(bits(50_000_000)), [9, 9, 9]);
        assert_eq!(over(bits(1_000_000_000)), [5, 5, 5]);
        assert_eq!(level_over(19, FEW - 1, bits(1_000_000_000)), 19, "at once anyway");
        assert_eq!(whole_level(9, (100 << 20, 1), bits(250_000)), 19, "the link takes longer");
    }

    #[test]
    fn what_is_little_gets_the_best_level() {
        let levels = |rate: Option<u64>| {
            [1, 3, 6, 20, 40, 80, 400, 4000]
                .map(|mb| best_level((mb * 1_000_000, mb * 50_000), 8_000_000, rate))
        };
        assert_eq!(levels(None), [19, 19, 19, 19, 19, 15, 12, 9]);
        assert_eq!(levels(Some(1_250_000)), [19, 19, 15, 15, 12, 12, 9, 9], "as on `weak`");
        // A link of 64 kbit/s takes minutes for the least of these.
        assert_eq!(levels(Some(8_000)), [19; 8]);
        // What is cut into shorter segments is for two threads.
        assert_eq!(best_level((6_000_000, 300_000), 4_000_000, Some(1_250_000)), 19);
    }

    #[test]
    fn what_is_packed_already_is_left_at_that() {
        let noise = crate::delta::tests::noise(1, LOOK);
        let text: Vec<u8> = noise.iter().map(|byte| b'a' + byte % 16).collect();
        let compressed = |bytes: &[u8], level| compress(None, bytes, level).expect("compresses");
        let squeezed = |bytes: &[u8]| squeeze(None, bytes, 19).expect("compresses");
        assert_eq!(squeezed(&text), compressed(&text, 19));
        assert_eq!(squeezed(&noise), compressed(&noise, QUICK));
        assert_eq!(squeezed(&noise[1..]), compressed(&noise[1..], 19), "too short to look at");
        // Of what is in the prefix nothing is left.
        let after = squeeze(Some(&noise.clone()), &noise, 19).expect("compresses");
        assert!(after.len() < 1_000, "{}", after.len());
    }

    #[test]
    fn what_is_packed_again_pays_on_slow_links_alone() {
        // A package of 1 MB, of which 0.9 MB need not travel, and that holds 4 MB.
        let pays = |bits: u64| is_sooner(900_000, 4_000_000, bits / 8);
        assert!(pays(64_000) && pays(2_000_000) && !pays(3_000_000) && !pays(100_000_000));
        assert!(!is_sooner(0, 1, 1) && is_sooner(u64::MAX, 0, u64::MAX));
        let may = |rate| [400_000, 4_000_000].map(|bytes| may_be_sooner(bytes, rate));
        assert_eq!([None, Some(1_250_000)].map(may), [[true; 2]; 2]);
        assert_eq!(may(Some(12_500_000)), [true, false]);
    }
}
