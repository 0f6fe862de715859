//! Telling at little cost that new bytes have nothing in common with old ones.
//!
//! What was packed or encrypted anew is all noise, and to sort the old bytes and search them for
//! each new one would take a core three minutes a gigabyte, for nothing. So runs of eight bytes
//! are hashed first, and those whose hash begins with some zeros are remembered: old and new bytes
//! choose the same ones, wherever they lie (the idea of sampling by content is Udi Manber's,
//! "Finding similar files in a large file system", 1994). If next to none of the new ones is among
//! the old ones, neither is anything longer.

/// Fewer new bytes are searched for at once: a sample of them says little, and is no cheaper.
pub(super) const SHORTEST: usize = 64 << 10;

/// Bytes of a run: what is shorter is no match.
const RUN: usize = super::sorted::SHORTEST;
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
        let (mut runs, mut most) = (Vec::new(), 2 * MOST);
        for run in chosen(old, zeros) {
            // What comes again and again is not to fill the memory.
            if runs.len() == most {
                each_once(&mut runs);
                most = most.max(2 * runs.len());
            }
            runs.push(run);
        }
        each_once(&mut runs);
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

fn each_once(runs: &mut Vec<u64>) {
    runs.sort_unstable();
    runs.dedup();
}

/// The hashes that begin with so many zeros.
fn chosen(bytes: &[u8], zeros: u32) -> impl Iterator<Item = u64> {
    hashes(bytes).filter(move |hash| hash.leading_zeros() >= zeros)
}

/// The hashes of all runs. Those of one byte, or of two or four that are repeated, are nobody's own
/// and passed over.
pub(super) fn hashes(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.windows(RUN).filter_map(|run| {
        let word = u64::from_le_bytes(run.try_into().expect("eight bytes"));
        let mixed = (word ^ word >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let hash = (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (word != word.rotate_left(32)).then_some(hash)
    })
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
        // Records of sixteen bytes, of which four have changed in each.
        let mut counted = old.clone();
        counted.chunks_mut(16).for_each(|record| record[4..8].copy_from_slice(&other[..4]));
        assert!(sample.is_like(&counted));
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
