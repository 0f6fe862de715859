//! One host as a source of files: what it has, and pieces of that.
//!
//! A question that breaks off is asked again for what is still missing, until nothing has come for
//! as long as the operator waits for a host. What has come is in the store, whatever happens.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use content::{ApplyError, Batch, ChunkRef, Chunks, ContentId, Kind, Limits, Manifest, StoreError};
use mesh::{Digest, HostId};
use protos::{
    COLLECT_KIND, CollectBody, CollectFile, Envelope, Item, OUTPUT_HEAD_LIMIT, OutputFault,
    OutputRequest, item_decoder,
};
use relay::{Coming, NotComing};
use tokio::runtime::Handle;

use super::Collection;
use crate::clock::to_ms;
use crate::orders::Desk;
use crate::types::PullEvent;

/// How long a wish is good; hosts' clocks may differ by about as much.
const GOOD: Duration = Duration::from_secs(3600);
/// How long to wait before a host is asked again.
const PAUSE: Duration = Duration::from_millis(500);
/// How often to say how far it is.
const TELL: Duration = Duration::from_millis(500);
/// The longest manifest of a host; more would be a million files.
const MANIFEST: usize = 64 << 20;
/// Files, folders and links of one host, and the bytes of their paths: hosts are not trusted.
const ENTRIES: usize = 1 << 20;
const PATHS: usize = 128 << 20;
/// Bytes of pieces in one question.
const ASKED: u64 = 8 << 20;
/// Bytes of a question that are for its files.
const HEAD: usize = OUTPUT_HEAD_LIMIT - (16 << 10);

/// Why there is nothing, or not all, of a host.
#[derive(Debug, thiserror::Error)]
pub(super) enum Missing {
    #[error("it cannot be reached")]
    Away(#[source] NotComing),
    #[error("{0}")]
    Said(String),
    #[error("what it sends is not readable")]
    Unreadable(#[source] io::Error),
    #[error("what it says to have is no list of files")]
    Manifest(#[from] content::ManifestError),
    #[error("files changed while they were collected; try again")]
    Changed,
    #[error("{}: cannot be made", .0.display())]
    Folder(PathBuf, #[source] io::Error),
    #[error("the store of what is collected failed")]
    Store(#[source] StoreError),
    #[error(transparent)]
    Apply(ApplyError),
    #[error("whoever asked has left")]
    Left,
}

/// One host, while it is collected from.
pub(super) struct Source<'a> {
    of: &'a Collection,
    host: HostId,
    pub(super) name: &'a str,
    handle: Handle,
    /// What it has, as it is put in place.
    pub(super) target: Option<Arc<Manifest>>,
    /// Bytes that have come from it.
    pub(super) received: u64,
    /// Entries of a kind that is not collected.
    pub(super) skipped: u64,
    /// When something has come last, and when that was told last.
    moved: Instant,
    told: Instant,
}

impl Missing {
    pub(super) fn changed() -> Missing {
        Missing::Changed
    }
}

impl<'a> Source<'a> {
    pub(super) fn new(of: &'a Collection, host: HostId, name: &'a str) -> Source<'a> {
        let (handle, now) = (Handle::current(), Instant::now());
        let (target, received, skipped) = (None, 0, 0);
        Source { of, host, name, handle, target, received, skipped, moved: now, told: now }
    }

    /// What the host has.
    pub(super) fn look(&mut self) -> Result<Manifest, Missing> {
        self.moved = Instant::now();
        // Of what it had before nothing is held any more.
        self.target = None;
        loop {
            let (mut encoded, mut skipped) = (Vec::new(), 0);
            let whole = self.ask(Vec::new(), &mut |item| match item {
                Item::Manifest(part) if encoded.len() + part.len() <= MANIFEST => {
                    encoded.extend_from_slice(&part);
                    Ok(())
                }
                Item::Manifest(_) => {
                    Err(io::Error::other("it has more files than can be collected at once"))
                }
                Item::Skipped(count) => {
                    skipped = count;
                    Ok(())
                }
                _ => Ok(()),
            })?;
            if whole {
                self.skipped = skipped;
                let (entries, paths) = (ENTRIES, PATHS);
                let limits = Limits { encoded: MANIFEST, entries, paths, ..Limits::default() };
                return Ok(Manifest::decode(&encoded, &limits)?);
            }
        }
    }

    /// Brings pieces into the store. Those that are not as they were are an error at the end.
    fn fetch(&mut self, wanted: &[ChunkRef]) -> Result<(), Missing> {
        let target = self.target.clone();
        let places = places(target.as_ref().map_or(&[], |target| &target.entries));
        let store = &self.of.shared.store;
        let mut left: Vec<_> = wanted.iter().filter_map(|chunk| places.get(&chunk.id)).collect();
        left.sort();
        let mut lost = false;
        self.moved = Instant::now();
        while !left.is_empty() {
            let (files, asked) = question(&left);
            let mut batch = store.batch();
            let mut answered = 0;
            let answer = self.ask(files, &mut |item| take(item, &left, &mut answered, &mut batch));
            // Whatever has come is kept, also if the rest has not.
            batch.commit().map_err(Missing::Store)?;
            if answer? && answered < asked {
                return Err(Missing::Unreadable(io::Error::other("fewer pieces than asked for")));
            }
            for place in left.drain(..answered) {
                lost |= !store.has(&place.chunk.id).map_err(Missing::Store)?;
            }
        }
        if lost { Err(Missing::Changed) } else { Ok(()) }
    }

    /// Asks once. `false`: it broke off, and is worth another try now.
    fn ask(
        &mut self,
        files: Vec<CollectFile>,
        each: &mut dyn FnMut(Item) -> io::Result<()>,
    ) -> Result<bool, Missing> {
        let envelope = self.of.api.desk.collect_wish(self.of, self.host);
        let request = OutputRequest { envelope, offset: 0, files };
        let node = self.of.api.desk.node.clone();
        match self.handle.block_on(node.output(self.host, &request)) {
            Ok(coming) => self.read(coming, each),
            Err(not) => self.again(not),
        }
    }

    fn read(
        &mut self,
        mut coming: Coming,
        each: &mut dyn FnMut(Item) -> io::Result<()>,
    ) -> Result<bool, Missing> {
        let (mut end, mut said) = (false, None);
        let decoder = item_decoder(|item| match item {
            Item::End => {
                end = true;
                Ok(())
            }
            Item::Failed(why) => {
                said = Some(why);
                Ok(())
            }
            item => each(item),
        });
        let mut decoder = decoder.map_err(Missing::Unreadable)?;
        let broken = loop {
            match self.handle.block_on(coming.next()) {
                Ok(Some(piece)) => {
                    self.received += piece.len() as u64;
                    self.moved = Instant::now();
                    decoder.write_all(&piece).map_err(failed)?;
                    self.tell()?;
                }
                Ok(None) => break None,
                Err(not) => break Some(not),
            }
        };
        decoder.flush().map_err(failed)?;
        drop(decoder);
        match (said, end, broken) {
            (Some(why), ..) => Err(Missing::Said(why)),
            (None, true, _) => Ok(true),
            (None, false, Some(not)) => self.again(not),
            (None, false, None) => self.again(NotComing {
                fault: OutputFault::Broken,
                detail: "the rest does not come".into(),
            }),
        }
    }

    /// Whether a question that was not answered is worth asking again, after a moment.
    fn again(&self, not: NotComing) -> Result<bool, Missing> {
        let for_good = matches!(not.fault, OutputFault::Refused | OutputFault::Gone);
        if for_good || self.moved.elapsed() >= self.of.reach {
            return Err(Missing::Away(not));
        }
        if self.of.tell.is_closed() {
            return Err(Missing::Left);
        }
        std::thread::sleep(PAUSE);
        Ok(false)
    }

    fn tell(&mut self) -> Result<(), Missing> {
        if self.of.tell.is_closed() {
            return Err(Missing::Left);
        }
        if self.told.elapsed() >= TELL {
            self.told = Instant::now();
            let (host, received) = (self.name.to_owned(), self.received);
            // Whoever reads slowly is told a little later.
            self.of.tell.try_send(PullEvent::Receiving { host, received }).ok();
        }
        Ok(())
    }
}

impl Chunks for Source<'_> {
    fn provide(&mut self, wanted: &[ChunkRef]) -> Result<(), ApplyError> {
        let provide = |missing: Missing| ApplyError::Provide(Box::new(missing));
        let shared = self.of.shared.clone();
        loop {
            let left = shared.take(wanted).map_err(|error| provide(Missing::Store(error)))?;
            if left.is_empty() {
                return Ok(());
            }
            let mine = shared.begin(&left);
            if mine.is_empty() {
                // Somebody else brings the rest.
                if self.of.tell.is_closed() {
                    return Err(provide(Missing::Left));
                }
                continue;
            }
            let fetched = self.fetch(&mine);
            shared.end(&mine);
            fetched.map_err(provide)?;
        }
    }
}

/// Where a piece is: in which file of the manifest, and at which offset.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place<'a> {
    path: &'a [u8],
    offset: u64,
    chunk: ChunkRef,
}

fn places(entries: &[content::Entry]) -> BTreeMap<ContentId, Place<'_>> {
    let mut places = BTreeMap::new();
    for entry in entries {
        let Kind::File { chunks, .. } = &entry.kind else { continue };
        let mut offset = 0;
        for chunk in chunks {
            let place = Place { path: &entry.path, offset, chunk: *chunk };
            places.entry(chunk.id).or_insert(place);
            offset += u64::from(chunk.len);
        }
    }
    places
}

/// The next question, and how many pieces it is about.
fn question(left: &[&Place<'_>]) -> (Vec<CollectFile>, usize) {
    let mut files: Vec<CollectFile> = Vec::new();
    let (mut bytes, mut weight, mut asked, mut end) = (0, 0, 0, 0);
    for place in left {
        let piece = (place.chunk.len, Digest(place.chunk.id.0));
        let follows = |file: &&mut CollectFile| file.path == place.path && end == place.offset;
        let more = 40 + place.path.len();
        if asked > 0 && (bytes >= ASKED || weight + more > HEAD) {
            break;
        }
        match files.last_mut().filter(follows) {
            Some(file) => {
                file.pieces.push(piece);
                weight += 40;
            }
            None => {
                let path = Bytes::copy_from_slice(place.path);
                files.push(CollectFile { path, offset: place.offset, pieces: vec![piece] });
                weight += more + 40;
            }
        }
        end = place.offset + u64::from(place.chunk.len);
        bytes += u64::from(place.chunk.len);
        asked += 1;
    }
    (files, asked)
}

/// Takes the answer to the next piece of a question.
fn take(
    item: Item,
    left: &[&Place<'_>],
    answered: &mut usize,
    batch: &mut Batch<'_>,
) -> io::Result<()> {
    let piece = match item {
        Item::Piece(piece) => Some(piece),
        Item::Lost => None,
        _ => return Ok(()),
    };
    let place = left.get(*answered).ok_or_else(|| io::Error::other("more than was asked for"))?;
    *answered += 1;
    match piece {
        Some(piece) => batch.put(place.chunk.id, &piece).map_err(io::Error::other),
        None => Ok(()),
    }
}

/// Why an item was refused: for what it is, or because it could not be kept.
fn failed(error: io::Error) -> Missing {
    match error.downcast::<StoreError>() {
        Ok(error) => Missing::Store(error),
        Err(error) => Missing::Unreadable(error),
    }
}

impl Desk {
    /// A signed wish for what a host has below a path.
    fn collect_wish(&self, of: &Collection, host: HostId) -> Bytes {
        let body = CollectBody {
            mesh: self.authority.mesh().0,
            host,
            path: of.path.clone(),
            exclude: of.exclude.clone(),
            not_after_ms: to_ms(SystemTime::now() + GOOD),
        };
        let (bytes, signer) = (body.encode(), self.authority.order_signer());
        let envelope = Envelope {
            kind: COLLECT_KIND.into(),
            signature: signer.sign(COLLECT_KIND, &bytes),
            key: signer.key().id().into_bytes().into(),
            body: bytes.into(),
        };
        envelope.encode()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place<'a>(path: &'a str, offset: u64, seed: u32, len: u32) -> Place<'a> {
        let chunk = ChunkRef { id: ContentId::of(&seed.to_le_bytes()), len };
        Place { path: path.as_bytes(), offset, chunk }
    }

    #[test]
    fn questions_are_bounded_and_together_ask_for_everything_once() {
        let names: Vec<String> = (0..3000).map(|n| format!("dir/{n:08}")).collect();
        let mut all = Vec::new();
        for (n, name) in (0..).zip(&names) {
            all.push(place(name, 0, 2 * n, 20_000));
            all.push(place(name, 20_000, 2 * n + 1, 1_000));
        }
        let all: Vec<_> = all.iter().collect();
        let (mut left, mut asked_for) = (&all[..], 0);
        while !left.is_empty() {
            let (files, asked) = question(left);
            assert!(asked > 0);
            asked_for += files.iter().map(|file| file.pieces.len()).sum::<usize>();
            let request = OutputRequest { envelope: Bytes::from(vec![7; 9_000]), offset: 0, files };
            assert!(request.encode().len() <= OUTPUT_HEAD_LIMIT, "{}", request.encode().len());
            assert_eq!(OutputRequest::decode(&request.encode()), Ok(request.clone()));
            assert!(request.files.iter().all(|file| file.pieces.len() == 2 || asked == 1));
            left = &left[asked..];
        }
        assert_eq!(asked_for, all.len());
    }

    #[test]
    fn an_answer_is_taken_only_for_what_was_asked() {
        let dir = tempfile::tempdir().expect("temp");
        let store = content::Store::open(dir.path()).expect("opens");
        let bytes = 7u32.to_le_bytes();
        let place = place("a", 0, 7, 4);
        let (left, mut answered, mut batch) = ([&place], 0, store.batch());
        let mut give = |bytes: &[u8]| {
            let item = Item::Piece(Bytes::copy_from_slice(bytes));
            take(item, &left, &mut answered, &mut batch)
        };
        give(&bytes).expect("it was asked for");
        assert!(give(&bytes).is_err(), "nothing else was");
        answered = 0;
        let mut batch = store.batch();
        let other = Item::Piece(Bytes::from_static(b"othe"));
        assert!(take(other, &left, &mut answered, &mut batch).is_err(), "other bytes");
    }
}
