//! Which file of the base a file of the target is best made from.
//!
//! In this order: the file with the same path; one that shares a good part of its chunks; one
//! whose path is the same but for parts with digits in them, as versions and hashes in names are
//! (`Django-5.2.3.dist-info`, `libblas-6bb31eeb.so`); one of the same name elsewhere; one that
//! shares any chunk. Files with equal content need none of this: their chunks do not travel. For
//! those that are left the encoder looks among the files that are gone for one that is alike.
//!
//! Only the encoder asks: the choice travels in the head of each segment, so it may become
//! better without a new format.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::head::View;
use crate::id::ContentId;
use crate::manifest::{Entry, Manifest};

/// Of files that look alike by name, so many are compared.
const COMPARED: usize = 1024;

/// What is asked when a file has no namesake in the base.
pub(super) struct Bases<'a> {
    view: View<'a>,
    by_chunk: BTreeMap<ContentId, usize>,
    by_path: BTreeMap<Vec<u8>, Vec<usize>>,
    by_name: BTreeMap<&'a [u8], Vec<usize>>,
    kept: BTreeSet<&'a [u8]>,
}

impl<'a> Bases<'a> {
    pub(super) fn new(view: View<'a>) -> Bases<'a> {
        let mut by_chunk = BTreeMap::new();
        let mut by_path: BTreeMap<_, Vec<_>> = BTreeMap::new();
        let mut by_name: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (place, entry) in files(view.base) {
            for chunk in entry.chunks() {
                by_chunk.entry(chunk.id).or_insert(place);
            }
            by_path.entry(pattern(&entry.path)).or_default().push(place);
            by_name.entry(entry.split().1).or_default().push(place);
        }
        let kept = files(view.target).map(|(_, entry)| entry.path.as_slice()).collect();
        Bases { view, by_chunk, by_path, by_name, kept }
    }

    /// The base for a file of the layout, as a place in the base's manifest.
    pub(super) fn choose(&self, file: usize) -> Option<usize> {
        if let Some(same) = self.view.same_path(file) {
            return Some(same);
        }
        let entry = &self.view.target.entries[self.view.layout[file].entry];
        let shared = self.most_shared(entry);
        let large = shared.filter(|(_, bytes)| *bytes >= entry.size() / 4);
        let large = large.map(|(place, _)| place);
        large
            .or_else(|| self.nearest(entry, self.by_path.get(&pattern(&entry.path))))
            .or_else(|| self.nearest(entry, self.by_name.get(entry.split().1)))
            .or(shared.map(|(place, _)| place))
    }

    /// The files of the base whose paths the target does not have.
    pub(super) fn gone(&self) -> impl Iterator<Item = usize> {
        let files = files(self.view.base);
        let gone = files.filter(|(_, entry)| !self.kept.contains(entry.path.as_slice()));
        gone.map(|(place, _)| place)
    }

    /// The file of the base with the most bytes of this one in common chunks.
    fn most_shared(&self, entry: &Entry) -> Option<(usize, u64)> {
        let mut shared: BTreeMap<usize, u64> = BTreeMap::new();
        for chunk in entry.chunks() {
            if let Some(place) = self.by_chunk.get(&chunk.id) {
                *shared.entry(*place).or_default() += u64::from(chunk.len);
            }
        }
        shared.into_iter().max_by_key(|(place, bytes)| (*bytes, Reverse(*place)))
    }

    /// Of files that look alike: rather one that is gone in the target, which may have been
    /// renamed, then the one whose path and size are the most similar.
    fn nearest(&self, entry: &Entry, alike: Option<&Vec<usize>>) -> Option<usize> {
        let rank = |place: &usize| {
            let other = &self.view.base.entries[*place];
            let gone = !self.kept.contains(other.path.as_slice());
            let (a, b) = (&entry.path, &other.path);
            let front = a.iter().zip(b).take_while(|(a, b)| a == b).count();
            let back = a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count();
            let apart = entry.size().abs_diff(other.size());
            (gone, back + front, Reverse(apart), Reverse(*place))
        };
        alike?.iter().take(COMPARED).copied().max_by_key(rank)
    }
}

fn files(manifest: &Manifest) -> impl Iterator<Item = (usize, &Entry)> {
    manifest.entries.iter().enumerate().filter(|(_, entry)| !entry.chunks().is_empty())
}

/// A path with `#` for each run of letters and digits that has a digit in it.
fn pattern(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    for word in path.chunk_by(|a, b| a.is_ascii_alphanumeric() && b.is_ascii_alphanumeric()) {
        match word.iter().any(u8::is_ascii_digit) {
            true => out.push(b'#'),
            false => out.extend_from_slice(word),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_hashes_do_not_matter() {
        let check = |a: &str, b: &str, same: bool| {
            assert_eq!(pattern(a.as_bytes()) == pattern(b.as_bytes()), same, "{a} {b}");
        };
        check("Django-5.2.3.dist-info/RECORD", "Django-5.2.4.dist-info/RECORD", true);
        check("lib/libblas64_-6bb31eeb.so", "lib/libblas64_-56d6093b.so", true);
        check("lib/libblas64_-6bb31eeb.so", "lib/liblapack-56d6093b.so", false);
        check("a/b.c", "a/b.h", false);
    }
}
