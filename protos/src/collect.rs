//! Collecting files from a host: the signed wish for what is below a path, and what the stream
//! behind it brings.
//!
//! A request without files asks what there is; one with files asks for pieces of them, each by its
//! place and its hash. Only the path is signed: what is asked for below it changes from try to
//! try. The reply is one zstd frame of [`Item`]s: a byte for the kind, a length, and the bytes.

use std::io::{self, Write};

use bytes::Bytes;
use mesh::{Digest, HostId};
use prost::Message;

use crate::field::{FieldError, array, at_most, at_most_bytes, ensure, path};
use crate::output::OutputError;
use crate::{Envelope, pb, shape};

/// The kind of envelope that holds a [`CollectBody`].
pub const COLLECT_KIND: &str = "barid.v1.collect";

/// The longest item of a stream: a piece of a file, or of what there is.
pub const ITEM_LIMIT: usize = 256 << 10;

/// What an item takes beside its bytes: kind and length.
pub const ITEM_HEADER: usize = 5;

const PATH_LIMIT: usize = 4096;
const EXCLUDES: usize = 64;
const EXCLUDE_LIMIT: usize = 1024;
/// What decoding may need, as a power of two.
const WINDOW: u32 = 23;

/// What is to be collected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectBody {
    /// The mesh.
    pub mesh: [u8; 16],
    /// The host.
    pub host: HostId,
    /// The file or folder, absolute.
    pub path: Bytes,
    /// Patterns of what is left out.
    pub exclude: Vec<String>,
    /// Until when the wish is good, in milliseconds since 1970.
    pub not_after_ms: u64,
}

/// Pieces of one file, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectFile {
    /// Below the path of the wish; empty: that file itself.
    pub path: Bytes,
    /// Where the first piece begins.
    pub offset: u64,
    /// Length and hash of each.
    pub pieces: Vec<(u32, Digest)>,
}

/// What a stream brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// How far the host has come with looking: files and bytes.
    Looked {
        /// Files read.
        files: u64,
        /// Bytes in them.
        bytes: u64,
    },
    /// A part of the manifest of what there is.
    Manifest(Bytes),
    /// So many entries are left out: sockets, pipes and devices.
    Skipped(u64),
    /// The next piece.
    Piece(Bytes),
    /// The next piece is not there any more, or not as it was.
    Lost,
    /// It cannot be done, in words.
    Failed(String),
    /// That was all.
    End,
}

impl CollectBody {
    /// The bytes that are signed.
    pub fn encode(&self) -> Vec<u8> {
        let body = pb::CollectBody {
            mesh: Bytes::copy_from_slice(&self.mesh),
            host: self.host.0,
            path: self.path.clone(),
            exclude: self.exclude.clone(),
            not_after_ms: self.not_after_ms,
        };
        body.encode_to_vec()
    }

    /// Reads the body of an envelope. Whether its signature is good is for the caller to say.
    pub fn read(envelope: &Envelope) -> Result<CollectBody, OutputError> {
        if envelope.kind != COLLECT_KIND {
            return Err(OutputError::Kind(envelope.kind.clone()));
        }
        let body: pb::CollectBody = shape::decode_slice(&envelope.body)?;
        path("collect.path", &body.path, PATH_LIMIT)?;
        at_most("collect.exclude", body.exclude.len(), EXCLUDES)?;
        for pattern in &body.exclude {
            at_most_bytes("collect.exclude", pattern.len(), EXCLUDE_LIMIT)?;
        }
        Ok(CollectBody {
            mesh: array("collect.mesh", &body.mesh)?,
            host: HostId(body.host),
            path: body.path,
            exclude: body.exclude,
            not_after_ms: body.not_after_ms,
        })
    }
}

impl CollectFile {
    pub(crate) fn to_pb(&self) -> pb::CollectFile {
        pb::CollectFile {
            path: self.path.clone(),
            offset: self.offset,
            lengths: self.pieces.iter().map(|(len, _)| *len).collect(),
            hashes: self.pieces.iter().flat_map(|(_, hash)| hash.0).collect::<Vec<u8>>().into(),
        }
    }

    pub(crate) fn read(file: &pb::CollectFile) -> Result<CollectFile, FieldError> {
        at_most_bytes("file.path", file.path.len(), PATH_LIMIT)?;
        let (hashes, rest) = file.hashes.as_chunks::<32>();
        let even = rest.is_empty() && hashes.len() == file.lengths.len();
        ensure(even && !hashes.is_empty(), "file.hashes", "are not one for each piece")?;
        let short = file.lengths.iter().all(|len| *len as usize <= ITEM_LIMIT);
        ensure(short, "file.lengths", "are longer than a piece may be")?;
        let hashes = hashes.iter().map(|hash| Digest(*hash));
        let pieces = file.lengths.iter().copied().zip(hashes).collect();
        Ok(CollectFile { path: file.path.clone(), offset: file.offset, pieces })
    }

    /// About how many bytes of a request it takes.
    pub fn weight(&self) -> usize {
        self.path.len() + 24 + 36 * self.pieces.len()
    }
}

impl Item {
    /// The bytes that travel.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, body) = match self {
            Item::Looked { files, bytes } => {
                (1, Bytes::from([files.to_le_bytes(), bytes.to_le_bytes()].concat()))
            }
            Item::Manifest(part) => (2, part.clone()),
            Item::Skipped(count) => (3, Bytes::from(count.to_le_bytes().to_vec())),
            Item::Piece(piece) => (4, piece.clone()),
            Item::Lost => (5, Bytes::new()),
            Item::Failed(why) => (6, Bytes::copy_from_slice(why.as_bytes())),
            Item::End => (7, Bytes::new()),
        };
        let length = u32::try_from(body.len()).expect("an item has at most 256 KiB");
        let mut bytes = Vec::with_capacity(ITEM_HEADER + body.len());
        bytes.push(kind);
        bytes.extend(length.to_le_bytes());
        bytes.extend(body);
        bytes
    }

    /// `None`: it is of no kind that this version knows, or not of the form that its kind has.
    fn decode(kind: u8, body: &[u8]) -> Option<Item> {
        let number = |at: usize| Some(u64::from_le_bytes(*body.get(at..)?.first_chunk()?));
        Some(match (kind, body.len()) {
            (1, 16) => Item::Looked { files: number(0)?, bytes: number(8)? },
            (2, _) => Item::Manifest(Bytes::copy_from_slice(body)),
            (3, 8) => Item::Skipped(number(0)?),
            (4, _) => Item::Piece(Bytes::copy_from_slice(body)),
            (5, 0) => Item::Lost,
            (6, _) => Item::Failed(String::from_utf8_lossy(body).into_owned()),
            (7, 0) => Item::End,
            _ => return None,
        })
    }
}

/// Takes what a stream brings, and gives each item to a function, which may refuse it. What it
/// needs of memory is bounded whatever is written into it.
pub fn item_decoder(each: impl FnMut(Item) -> io::Result<()>) -> io::Result<impl Write> {
    let mut decoder = zstd::stream::write::Decoder::new(Items::new(each))?;
    decoder.window_log_max(WINDOW)?;
    Ok(decoder)
}

/// Takes plain bytes apart into items, whatever the pieces in which they come. Holds one item.
struct Items<F> {
    rest: Vec<u8>,
    each: F,
}

impl<F: FnMut(Item) -> io::Result<()>> Items<F> {
    fn new(each: F) -> Items<F> {
        Items { rest: Vec::new(), each }
    }
}

impl<F: FnMut(Item) -> io::Result<()>> Write for Items<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.rest.extend_from_slice(bytes);
        let mut at = 0;
        while let Some((header, body)) = self.rest[at..].split_first_chunk::<ITEM_HEADER>() {
            let [kind, length @ ..] = *header;
            let length = u32::from_le_bytes(length) as usize;
            if length > ITEM_LIMIT {
                return Err(invalid("an item of a stream is too long"));
            }
            let Some(body) = body.get(..length) else { break };
            let item =
                Item::decode(kind, body).ok_or_else(|| invalid("an item is not readable"))?;
            (self.each)(item)?;
            at += ITEM_HEADER + length;
        }
        self.rest.drain(..at);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::OutputRequest;
    use crate::testing::{mangle, number};

    fn body() -> impl Strategy<Value = CollectBody> {
        let exclude = proptest::collection::vec("[a-z*/]{1,9}", 0..4);
        (any::<[u8; 16]>(), any::<u32>(), "/[a-z/]{0,20}", exclude, number()).prop_map(
            |(mesh, host, path, exclude, not_after_ms)| CollectBody {
                mesh,
                host: HostId(host),
                path: path.into_bytes().into(),
                exclude,
                not_after_ms,
            },
        )
    }

    fn file() -> impl Strategy<Value = CollectFile> {
        let piece = (0u32..=ITEM_LIMIT as u32, any::<[u8; 32]>().prop_map(Digest));
        let pieces = proptest::collection::vec(piece, 1..5);
        ("[a-z/]{0,20}", number(), pieces).prop_map(|(path, offset, pieces)| CollectFile {
            path: path.into_bytes().into(),
            offset,
            pieces,
        })
    }

    fn item() -> impl Strategy<Value = Item> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..50).prop_map(Bytes::from);
        prop_oneof![
            (any::<u64>(), any::<u64>()).prop_map(|(files, bytes)| Item::Looked { files, bytes }),
            bytes().prop_map(Item::Manifest),
            any::<u64>().prop_map(Item::Skipped),
            bytes().prop_map(Item::Piece),
            Just(Item::Lost),
            "[a-z ]{0,9}".prop_map(Item::Failed),
            Just(Item::End),
        ]
    }

    fn sealed(body: &[u8]) -> Envelope {
        let (kind, body) = (COLLECT_KIND.into(), Bytes::copy_from_slice(body));
        Envelope { kind, body, signature: [7; 64], key: Bytes::from_static(b"k") }
    }

    fn request() -> impl Strategy<Value = OutputRequest> {
        (body(), proptest::collection::vec(file(), 0..4)).prop_map(|(body, files)| OutputRequest {
            envelope: sealed(&body.encode()).encode(),
            offset: 0,
            files,
        })
    }

    fn taken_apart(bytes: &[u8], step: usize) -> io::Result<Vec<Item>> {
        let mut found = Vec::new();
        let mut items = Items::new(|item| {
            found.push(item);
            Ok(())
        });
        bytes.chunks(step).try_for_each(|piece| items.write_all(piece))?;
        Ok(found)
    }

    proptest! {
        #[test]
        fn round_trip(
            body in body(),
            request in request(),
            items in proptest::collection::vec(item(), 0..10),
            step in 1usize..40,
        ) {
            prop_assert_eq!(CollectBody::read(&sealed(&body.encode())), Ok(body));
            prop_assert_eq!(OutputRequest::decode(&request.encode()), Ok(request));
            let bytes: Vec<u8> = items.iter().flat_map(Item::encode).collect();
            prop_assert_eq!(taken_apart(&bytes, step).expect("it is whole"), items);
        }

        #[test]
        fn mangled_bytes_are_something_or_an_error(
            a in mangle(body(), CollectBody::encode),
            b in mangle(request(), OutputRequest::encode),
            c in mangle(item(), Item::encode),
        ) {
            let _ = CollectBody::read(&sealed(&a));
            let _ = OutputRequest::decode(&b);
            let _ = taken_apart(&c, 7);
        }
    }

    #[test]
    fn limits() {
        let long = [&[4][..], &(ITEM_LIMIT as u32 + 1).to_le_bytes()].concat();
        let error = taken_apart(&long, 5).expect_err("it is refused");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(taken_apart(&[9, 0, 0, 0, 0], 5).is_err());
        let uneven = pb::CollectFile {
            lengths: vec![1, 2],
            hashes: Bytes::from_static(&[0; 32]),
            ..pb::CollectFile::default()
        };
        assert!(CollectFile::read(&uneven).is_err());
        let relative = CollectBody {
            mesh: [0; 16],
            host: HostId(1),
            path: Bytes::from_static(b"etc"),
            exclude: Vec::new(),
            not_after_ms: 0,
        };
        assert!(CollectBody::read(&sealed(&relative.encode())).is_err());
    }
}
