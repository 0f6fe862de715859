//! Trying differences on a few stretches before everything is compared.
//!
//! Where two texts have but words in common, as the logs of two days have, each word is a match.
//! To go through all of them takes a second of a core for a megabyte, and the differences are
//! longer than the text itself. Whether it is so shows in a little of it.

use super::diff::{Changes, Streams, ops};
use super::effort;
use super::sorted::Sorted;
use crate::pack::compress;

/// Bytes that are tried.
const STRETCH: usize = 16 << 10;
/// Of so many. What is shorter than two of these is compared without a trial.
const APART: usize = 512 << 10;
/// A stretch of which less than one part in so many is left by itself, or all but one, says
/// nothing: it is as good as a hole, or noise, in which nothing is a match by chance.
const PART: usize = 16;

/// Whether differences to the old bytes are likely to be shorter than the new ones: those of one
/// stretch at least, by a quarter.
pub(super) fn pays(sorted: &Sorted, new: &[u8]) -> bool {
    let tries = new.len() / APART;
    // Each at another place in its part: what is similar may come at intervals.
    let pays = |n: usize| {
        let at = n * APART + (16 + 13 * n) % (APART / STRETCH) * STRETCH;
        stretch_pays(sorted, &new[at..at + STRETCH])
    };
    tries < 2 || (0..tries).any(pays)
}

fn stretch_pays(sorted: &Sorted, new: &[u8]) -> bool {
    let mut streams = Streams::default();
    streams.push(&Changes::new(ops(sorted, 0, new), sorted.old(), 0, new), false);
    let left = |bytes: &[u8]| compress(None, bytes, effort::QUICK).map(|left| left.len());
    match (left(&streams.joined()), left(new)) {
        (Ok(differences), Ok(alone)) => {
            let part = new.len() / PART;
            differences * 4 <= alone * 3 || !(part..new.len() - part).contains(&alone)
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::noise;
    use super::*;

    /// Lines of which only some words are the same from one day to the next.
    fn log(day: u64, len: usize) -> Vec<u8> {
        let mut lines = Vec::new();
        for line in noise(day, len / 3).chunks_exact(16) {
            let [second, host, user, port] = [0, 4, 8, 12]
                .map(|at| u32::from_le_bytes(line[at..at + 4].try_into().expect("four bytes")));
            lines.extend_from_slice(
                format!(
                    "{:05} host{}: Accepted publickey for user{} from port {}\n",
                    second % 86_400,
                    host % 100,
                    user % 100,
                    port % 65_536
                )
                .as_bytes(),
            );
        }
        lines.truncate(len);
        lines
    }

    #[test]
    fn words_in_common_are_not_worth_differences() {
        let (monday, tuesday) = (log(1, 2 << 20), log(2, 2 << 20));
        assert_eq!((monday.len(), tuesday.len()), (2 << 20, 2 << 20));
        let sorted = Sorted::new(monday.clone());
        assert!(sorted.is_like(&tuesday) && !pays(&sorted, &tuesday));
        assert!(pays(&sorted, &tuesday[..APART]), "it is short");
        // Half of what is longest is there already.
        let rotated = [&tuesday[..1 << 20], &monday[..1 << 20]].concat();
        assert!(pays(&sorted, &rotated));
        for unknown in [vec![0; 2 << 20], noise(3, 2 << 20)] {
            assert!(pays(&sorted, &unknown));
        }
    }
}
