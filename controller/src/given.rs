//! What a run brings along: pieces that the operator's side has handed in, by their hashes.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use content::{ContentId, Store};
use mesh::{Digest, HostSet, Need};
use protos::{File, Part};

use crate::fault::Failure;
use crate::types::{NewRun, Piece};

/// The most bytes of one piece.
pub(crate) const PIECE_LIMIT: usize = 4 << 20;

/// Pieces of content at the controller.
#[derive(Clone)]
pub(crate) struct Pieces {
    pub(crate) store: Arc<Store>,
}

/// What a run is given, as it is signed.
#[derive(Default)]
pub(crate) struct Given {
    pub(crate) stdin: Vec<Part>,
    pub(crate) files: Vec<File>,
}

impl Given {
    /// What its hosts need before they can begin.
    pub(crate) fn needs(&self, targets: &HostSet) -> Vec<Need> {
        let parts = self.files.iter().flat_map(|file| &file.parts).chain(&self.stdin);
        let mut seen = BTreeSet::new();
        let content: Vec<_> = parts.map(|part| part.id).filter(|id| seen.insert(*id)).collect();
        match content.is_empty() {
            true => Vec::new(),
            false => vec![Need { hosts: targets.clone(), content }],
        }
    }
}

impl Pieces {
    /// Keeps a piece. Blocks.
    pub(crate) fn keep(&self, bytes: &Bytes) -> Result<Piece, Failure> {
        if bytes.is_empty() {
            return Err(Failure::bad("a piece has no bytes", "hand in what there is"));
        }
        let id = ContentId::of(bytes);
        let kept = self.store.put(id, bytes);
        kept.map_err(|error| Failure::content(&error))?;
        Ok(Piece { id: id.to_string(), bytes: bytes.len() as u64 })
    }

    /// What a run asks to be given, if all of it is here. Blocks.
    pub(crate) fn find(&self, new: &NewRun) -> Result<Given, Failure> {
        let parts = |what: &str, pieces: &[Piece]| {
            pieces.iter().map(|piece| self.part(what, piece)).collect::<Result<Vec<_>, _>>()
        };
        let files = new.files.iter().map(|file| {
            let parts = parts(&format!("file {}", file.name), &file.pieces)?;
            Ok(File { name: file.name.clone(), parts })
        });
        Ok(Given {
            stdin: parts("the input", &new.stdin)?,
            files: files.collect::<Result<_, Failure>>()?,
        })
    }

    fn part(&self, what: &str, piece: &Piece) -> Result<Part, Failure> {
        let wrong = || Failure::bad(format!("{what}: {:?} is no piece", piece.id), "64 hex digits");
        let id: ContentId = piece.id.parse().map_err(|_| wrong())?;
        let size = self.store.size(&id);
        let size = size.map_err(|error| Failure::internal(relay::chain(&error)))?;
        match size {
            Some(bytes) if u64::from(bytes) == piece.bytes => Ok(Part { id: Digest(id.0), bytes }),
            Some(_) => Err(wrong()),
            None => {
                let message = format!("the controller does not have {what} any more");
                let help = "give the run again with its files";
                Err(Failure::unknown("content-gone", message, help))
            }
        }
    }
}
