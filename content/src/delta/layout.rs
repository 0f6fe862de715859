//! Which chunks travel, and with which file.
//!
//! Both ends derive this from the two manifests, so the order is part of the format; a golden
//! test guards it.

use std::collections::BTreeSet;

use crate::id::ContentId;
use crate::manifest::{ChunkRef, Manifest};

/// A file of the target that brings chunks which neither the base nor a file before it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fresh {
    /// Its place in the target's manifest.
    pub(crate) entry: usize,
    /// The chunks, in the order of the file; never none.
    pub(crate) chunks: Vec<ChunkRef>,
}

/// The chunks of the target that the base lacks, each once, with the first file that has it.
///
/// Files that are alike come together: by extension, then by name, then by path.
pub(crate) fn layout(base: Option<&Manifest>, target: &Manifest) -> Vec<Fresh> {
    let chunks_of = |manifest: &Manifest| -> BTreeSet<ContentId> {
        manifest.entries.iter().flat_map(|entry| entry.chunks()).map(|chunk| chunk.id).collect()
    };
    let mut seen = base.map(chunks_of).unwrap_or_default();
    let files = target.entries.iter().enumerate();
    let mut files: Vec<_> = files.filter(|(_, entry)| !entry.chunks().is_empty()).collect();
    files.sort_by_cached_key(|(_, entry)| {
        let (_, name) = entry.split();
        (extension(name).to_vec(), name.to_vec(), entry.path.clone())
    });
    let fresh = files.into_iter().map(|(place, entry)| Fresh {
        entry: place,
        chunks: entry.chunks().iter().filter(|chunk| seen.insert(chunk.id)).copied().collect(),
    });
    fresh.filter(|fresh| !fresh.chunks.is_empty()).collect()
}

impl Fresh {
    /// Bytes in the chunks.
    pub(crate) fn bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| u64::from(chunk.len)).sum()
    }
}

/// What follows the last dot, unless the name begins with it.
pub(super) fn extension(name: &[u8]) -> &[u8] {
    match name.iter().rposition(|byte| *byte == b'.') {
        Some(dot) if dot > 0 => &name[dot + 1..],
        _ => &[],
    }
}
