//! Files that are alike by their content: what was renamed and changed at once.
//!
//! A sketch of a file is the least hashes of the runs of bytes in it. Two files that have most of
//! their runs in common have most of these in common (Andrei Broder, "On the resemblance and
//! containment of documents", 1997), so the files that are like another one are found without
//! comparing it with all of them.

use std::collections::{BTreeMap, BTreeSet};

use super::encode::{Encoder, parallel};
use super::sample::hashes;
use crate::manifest::Entry;
use crate::pack::PackError;

/// Hashes in a sketch.
const LEAST: usize = 16;
/// Files that have so many in common are alike: about a quarter of their runs is the same.
const ENOUGH: usize = 4;
/// What more files have in common than this says nothing of any of them.
const COMMON: usize = 64;

/// Of fewer bytes no sketch is made.
const SKETCHED: u64 = 512;
/// Of so many files at most, of either kind: their sketches are in memory.
const SKETCHES: usize = 1 << 16;

/// What tells a file from others.
pub(super) struct Sketch(BTreeSet<u64>);

impl Sketch {
    pub(super) fn of(bytes: &[u8]) -> Sketch {
        let mut least = BTreeSet::new();
        let mut most = u64::MAX;
        for hash in hashes(bytes).filter(|hash| *hash < u64::MAX) {
            if hash < most && least.insert(hash) && least.len() > LEAST {
                least.pop_last();
                most = least.last().copied().unwrap_or(most);
            }
        }
        Sketch(least)
    }
}

/// Files to be found by their content.
#[derive(Default)]
pub(super) struct Alike(BTreeMap<u64, Vec<usize>>);

impl Alike {
    pub(super) fn add(&mut self, file: usize, sketch: &Sketch) {
        for hash in &sketch.0 {
            self.0.entry(*hash).or_default().push(file);
        }
    }

    /// The file that has the most in common with a sketch, if that is enough.
    pub(super) fn nearest(&self, sketch: &Sketch) -> Option<usize> {
        let mut common: BTreeMap<usize, usize> = BTreeMap::new();
        let files = sketch.0.iter().filter_map(|hash| self.0.get(hash));
        for file in files.filter(|files| files.len() <= COMMON).flatten() {
            *common.entry(*file).or_default() += 1;
        }
        let (file, found) = common.into_iter().rev().max_by_key(|(_, found)| *found)?;
        (found >= ENOUGH).then_some(file)
    }
}

impl<'a> Encoder<'a> {
    /// Gives files without a base one that is gone and alike. Of either kind no more bytes are
    /// looked at than may be sorted at once.
    pub(super) fn add_alike(
        &self,
        chosen: &mut [Option<usize>],
        gone: impl Iterator<Item = usize>,
    ) -> Result<(), PackError> {
        let within = |sizes: &mut dyn Iterator<Item = (usize, u64)>| -> Vec<usize> {
            let mut left = self.sizes.sorted;
            let fits = sizes.filter(|(_, size)| {
                let fits = (SKETCHED..=left).contains(size);
                left -= if fits { *size } else { 0 };
                fits
            });
            fits.map(|(n, _)| n).take(SKETCHES).collect()
        };
        let entry = |file: usize| &self.view.target.entries[self.view.layout[file].entry];
        let alone = (0..chosen.len()).filter(|file| chosen[*file].is_none());
        let alone = within(&mut alone.map(|file| (file, entry(file).size())));
        if alone.is_empty() {
            return Ok(());
        }
        let gone = within(&mut gone.map(|base| (base, self.old(base).size())));
        let sketch = |entry: &'a Entry| Ok(Sketch::of(&self.bytes(entry.chunks())?));
        let mut alike = Alike::default();
        let sketches = parallel(gone.len(), |n| {
            Ok(if self.has(gone[n])? { Some(sketch(self.old(gone[n]))?) } else { None })
        })?;
        for (base, sketch) in gone.into_iter().zip(sketches) {
            sketch.iter().for_each(|sketch| alike.add(base, sketch));
        }
        let sketches = parallel(alone.len(), |n| sketch(entry(alone[n])))?;
        for (file, sketch) in alone.into_iter().zip(sketches) {
            chosen[file] = alike.nearest(&sketch);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::noise;
    use super::*;

    #[test]
    fn the_nearest_file_is_found() {
        let files: Vec<_> = (0..100).map(|seed| noise(seed, 4_000)).collect();
        let mut alike = Alike::default();
        files.iter().enumerate().for_each(|(n, file)| alike.add(n, &Sketch::of(file)));
        let nearest = |bytes: &[u8]| alike.nearest(&Sketch::of(bytes));
        assert_eq!(nearest(&files[7]), Some(7));
        let mut changed = [b"something new".as_slice(), &files[42][..3_000]].concat();
        changed[1_000] ^= 1;
        assert_eq!(nearest(&changed), Some(42));
        assert_eq!(nearest(&noise(100, 4_000)), None);
        assert_eq!(nearest(b""), None);
        assert_eq!(nearest(&[0; 4_000]), None);
    }

    #[test]
    fn what_all_have_in_common_says_nothing() {
        let licence = noise(1, 3_000);
        let file = |seed| [licence.clone(), noise(seed, 1_000)].concat();
        let mut alike = Alike::default();
        (2..200).for_each(|seed| alike.add(seed as usize, &Sketch::of(&file(seed))));
        assert_eq!(alike.nearest(&Sketch::of(&file(500))), None);
    }
}
