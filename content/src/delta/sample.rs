//! Telling at little cost that new bytes have nothing in common with old ones.
//!
//! What was packed or encrypted anew is all noise, and to sort the old bytes and search them for
//! each new one would take a core three minutes a gigabyte, for nothing. So runs of sixteen bytes
//! are hashed first, and those whose hash begins with some zeros are remembered: old and new bytes
//! choose the same ones, wherever they lie (the idea of sampling by content is Udi Manber's,
//! "Finding similar files in a large file system", 1994). If next to none of the new ones is among
//! the old ones, neither is anything longer.

/// Fewer new bytes are searched for at once: a sample of them says little, and is no cheaper.
pub(super) const SHORTEST: usize = 64 << 10;

/// A run of bytes.
const RUN: usize = 16;
/// So many runs are remembered at most, about.
const MOST: usize = 1 << 20;
/// One of sixteen is chosen at most: so many zeros the hash begins with.
const LEAST: u32 = 4;
/// New bytes are like the old ones if one in so many of their runs is there.
const FEW: usize = 512;

/// Some of the runs that there are in old bytes.
pub(super) struct Sample {
    /// Sorted, each once.
    runs: Vec<u64>,
    /// How many zeros the hash of a run that was chosen begins with.
    zeros: u32,
}

impl Sample {
    pub(super) fn of(old: &[u8]) -> Sample {
        let zeros = (old.len() / MOST).max(1).next_power_of_two().ilog2().max(LEAST);
        let mut runs: Vec<u64> = chosen(old, zeros).collect();
        runs.sort_unstable();
        runs.dedup();
        Sample { runs, zeros }
    }

    /// Whether enough of the new bytes is likely to be in the old ones. Of what has no runs that
    /// could be chosen nobody knows.
    pub(super) fn is_like(&self, new: &[u8]) -> bool {
        // If all runs are somebody's own, so many need be there.
        let enough = ((new.len() >> self.zeros) / FEW).max(1);
        let (mut all, mut found) = (0, 0);
        for run in chosen(new, self.zeros) {
            all += 1;
            found += usize::from(self.runs.binary_search(&run).is_ok());
            if found >= enough {
                return true;
            }
        }
        found * FEW >= all
    }
}

/// The hashes that begin with so many zeros. Runs of one byte, or of eight that come twice, are
/// nobody's own and passed over.
fn chosen(bytes: &[u8], zeros: u32) -> impl Iterator<Item = u64> {
    let runs = bytes.windows(RUN).filter_map(|run| {
        let (a, b) = run.split_at(RUN / 2);
        let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        let (a, b) = (word(a), word(b));
        let mixed = a.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32) ^ b;
        (a != b).then_some(mixed.wrapping_mul(0xd6e8_feb8_6659_fd93))
    });
    runs.filter(move |hash| hash.leading_zeros() >= zeros)
}

#[cfg(test)]
mod tests {
    use super::super::tests::noise;
    use super::*;

    #[test]
    fn what_has_little_in_common_is_told_from_what_has_nothing() {
        let (old, other) = (noise(1, 1 << 20), noise(2, 1 << 20));
        let sample = Sample::of(&old);
        assert!(!sample.is_like(&other));
        assert!(sample.is_like(&old[1_000..]));
        // One part in a hundred is moved, and has changed a little.
        let mut moved = other.clone();
        moved[500_001..510_001].copy_from_slice(&old[100_000..110_000]);
        moved.iter_mut().skip(500_001).step_by(100).for_each(|byte| *byte ^= 1);
        assert!(sample.is_like(&moved));
        assert!(sample.is_like(&[0; 1 << 17]), "nobody knows");
        // Of what is hardly anything but holes, what there is counts.
        let mut holes = vec![0; 1 << 21];
        holes[5_000..6_000].copy_from_slice(&old[..1_000]);
        assert!(sample.is_like(&holes));
        holes[5_000..6_000].copy_from_slice(&other[..1_000]);
        assert!(!sample.is_like(&holes));
    }

    #[test]
    fn a_sample_is_small_however_long_the_bytes_are() {
        let chosen = |len: usize| Sample::of(&noise(3, len));
        let (short, long) = (chosen(1 << 20), chosen(32 << 20));
        assert_eq!((short.zeros, long.zeros), (4, 5));
        let about = |sample: &Sample, runs: usize| sample.runs.len().abs_diff(runs) < runs / 10;
        assert!(about(&short, 1 << 16), "{}", short.runs.len());
        assert!(about(&long, 1 << 20), "{}", long.runs.len());
    }
}
