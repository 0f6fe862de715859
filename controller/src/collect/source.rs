//! One host as a source of files: what it has, and pieces of that.
//!
//! A question that breaks off is asked again for what is still missing, until nothing has come for
//! as long as the operator waits for a host. What has come is in the store, whatever happens.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use content::{
    ApplyError, Batch, ChunkRef, Chunks, ContentId, Kind, Limits, Manifest, StoreError, Writing,
};
use mesh::{Digest, HostId};
use protos::{
    COLLECT_KIND, CollectBody, CollectFile, Envelope, ITEM_HEADER, Item, OUTPUT_HEAD_LIMIT,
    OutputFault, OutputRequest, item_decoder,
};
use relay::{Coming, NotComing};
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::Collection;
use super::pace::Pace;
use super::room::{NoRoom, Promised};
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
/// Bytes of pieces in the first turn of a host, and at least in each: others wait for them.
const FIRST: u64 = 1 << 20;
const FEW: u64 = 64 << 10;
/// How long a turn is to take at most.
const TURN: Duration = Duration::from_secs(15);
/// Bytes of all patterns of what is left out: they are in every question.
const EXCLUDED: usize = 8 << 10;
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
    #[error("{}", .0.display())]
    Room(PathBuf, #[source] NoRoom),
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
    /// Room for its files, while they are brought and written.
    pub(super) promised: Option<Promised<'a>>,
    /// Bytes that have come from it.
    pub(super) received: u64,
    /// Entries of a kind that is not collected.
    pub(super) skipped: u64,
    /// When something has come last, whether enough does, and when that was told last.
    moved: Instant,
    pace: Pace,
    told: Instant,
    /// The turn that goes on, if one does, and how many bytes the next one is for.
    turn: u64,
    most: u64,
}

impl Missing {
    pub(super) fn changed() -> Missing {
        Missing::Changed
    }
}

impl<'a> Source<'a> {
    pub(super) fn new(of: &'a Collection, host: HostId, name: &'a str) -> Source<'a> {
        let (handle, now) = (Handle::current(), Instant::now());
        let pace = Pace::new(of.reach);
        Source {
            of,
            host,
            name,
            handle,
            target: None,
            promised: None,
            received: 0,
            skipped: 0,
            moved: now,
            pace,
            told: now,
            turn: 0,
            most: FIRST,
        }
    }

    /// What the host has.
    pub(super) fn look(&mut self) -> Result<Manifest, Missing> {
        self.begin();
        // Of what it had before nothing is held any more.
        self.target = None;
        loop {
            let (mut encoded, mut skipped) = (Vec::new(), 0);
            let whole = self.ask(Vec::new(), &mut |item| match item {
                Item::Manifest(part) if encoded.len() + part.len() <= MANIFEST => {
                    encoded.extend_from_slice(&part);
                    Ok(())
                }
                Item::Manifest(_) => Err(too_many()),
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

    fn begin(&mut self) {
        self.moved = Instant::now();
        self.pace = Pace::new(self.of.reach);
    }

    /// Brings pieces into the store. `false`: some are not as they were.
    fn fetch(&mut self, wanted: &[ChunkRef], places: &Places<'_>) -> Result<bool, Missing> {
        let store = &self.of.shared.store;
        let mut left = Vec::new();
        for chunk in wanted {
            // Another host may have brought it meanwhile.
            if !store.has(&chunk.id).map_err(Missing::Store)? {
                left.extend(places.get(&chunk.id));
            }
        }
        left.sort();
        let mut whole = true;
        self.begin();
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
                whole &= store.has(&place.chunk.id).map_err(Missing::Store)?;
            }
        }
        Ok(whole)
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
        let (came, looked) = (Cell::new(0), Cell::new(None));
        let decoder = item_decoder(|item| match item {
            Item::End => {
                end = true;
                Ok(())
            }
            Item::Failed(why) => {
                said = Some(why);
                Ok(())
            }
            Item::Looked { files, .. } if files > ENTRIES as u64 => Err(too_many()),
            Item::Looked { files, bytes } => {
                looked.set(Some((files, bytes)));
                Ok(())
            }
            item => {
                let bytes = match &item {
                    Item::Manifest(bytes) | Item::Piece(bytes) => bytes.len(),
                    _ => 0,
                };
                each(item)?;
                came.set(came.get() + (bytes + ITEM_HEADER) as u64);
                Ok(())
            }
        });
        let mut decoder = decoder.map_err(Missing::Unreadable)?;
        let broken = loop {
            let (began, most) = (Instant::now(), self.pace.left());
            let next = self.handle.block_on(async { timeout(most, coming.next()).await });
            self.pace.waited(began.elapsed());
            match next {
                Ok(Ok(Some(piece))) => {
                    self.received += piece.len() as u64;
                    decoder.write_all(&piece).map_err(failed)?;
                    let arrived = self.pace.arrived(piece.len() as u64);
                    self.count(arrived, came.take(), looked.take());
                    self.tell()?;
                }
                Ok(Ok(None)) => break None,
                Ok(Err(not)) => break Some(not),
                Err(_) => return Err(Missing::Away(slow())),
            }
        };
        decoder.flush().map_err(failed)?;
        drop(decoder);
        self.count(0, came.take(), looked.take());
        match (said, end, broken) {
            (Some(why), ..) => Err(Missing::Said(why)),
            (None, true, _) => Ok(true),
            (None, false, _) if !self.pace.broke() => Err(Missing::Away(slow())),
            (None, false, Some(not)) => self.again(not),
            (None, false, None) => self.again(NotComing {
                fault: OutputFault::Broken,
                detail: "the rest does not come".into(),
            }),
        }
    }

    /// A part of what was asked for, all of it, or word of how far the host is has come.
    fn count(&mut self, arrived: u64, bytes: u64, looked: Option<(u64, u64)>) {
        if arrived > 0 || bytes > 0 || looked.is_some() {
            self.moved = Instant::now();
            self.of.shared.moved(self.turn, self.moved);
            self.pace.came(bytes);
        }
        if let Some((files, bytes)) = looked {
            self.pace.looked(files, bytes);
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
        self.bring(wanted).map_err(|missing| ApplyError::Provide(Box::new(missing)))
    }

    fn admit(&mut self, writing: &Writing) -> Result<(), ApplyError> {
        self.reserve(writing).map_err(|missing| ApplyError::Provide(Box::new(missing)))
    }
}

impl Source<'_> {
    /// Brings all of these into the store, from here or by way of other hosts.
    fn bring(&mut self, wanted: &[ChunkRef]) -> Result<(), Missing> {
        let shared = self.of.shared.clone();
        let target = self.target.clone();
        let places = places(target.as_ref().map_or(&[], |target| &target.entries));
        let (mut others, mut whole) = (Vec::new(), true);
        let mut left = VecDeque::from(shared.take(wanted).map_err(Missing::Store)?);
        loop {
            let (most, began) = ((self.most, self.of.reach), Instant::now());
            let turn = shared.begin(&mut left, &mut others, most);
            if !turn.pieces.is_empty() {
                self.turn = turn.number;
                let fetched = self.fetch(&turn.pieces, &places);
                shared.end(&turn);
                self.most = next_turn(self.most, began.elapsed());
                whole &= fetched?;
                continue;
            }
            if others.is_empty() {
                return if whole { Ok(()) } else { Err(Missing::Changed) };
            }
            // Somebody else brings the rest.
            if self.of.tell.is_closed() {
                return Err(Missing::Left);
            }
            shared.wait();
            left = shared.take(&std::mem::take(&mut others)).map_err(Missing::Store)?.into();
        }
    }

    /// Has room for what is about to be written kept for it, here and in the store.
    fn reserve(&mut self, writing: &Writing) -> Result<(), Missing> {
        let shared = &self.of.shared;
        shared.store.make_room(writing.wanted).map_err(Missing::Store)?;
        let to = &self.of.to;
        let looked = |error: rustix::io::Errno| Missing::Folder(to.clone(), error.into());
        let disk = rustix::fs::fstat(&self.of.folder).map_err(looked)?.st_dev;
        let floor = shared.store.bounds().floor;
        let free = || {
            let stat = rustix::fs::fstatvfs(&self.of.folder);
            let free = stat.map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
            free.saturating_sub(floor)
        };
        // The pieces lie on the disk of the store meanwhile.
        let beside = if disk == shared.disk { writing.wanted } else { 0 };
        let bytes = writing.bytes.saturating_add(beside);
        let promised = self.of.shared.promises.take(disk, bytes, free);
        self.promised = Some(promised.map_err(|error| Missing::Room(to.clone(), error))?);
        Ok(())
    }
}

/// How many bytes the next turn is for, after one for so many took so long.
fn next_turn(most: u64, took: Duration) -> u64 {
    let next = if took < TURN / 2 {
        most * 2
    } else if took > TURN {
        most / 2
    } else {
        most
    };
    next.clamp(FEW, ASKED)
}

/// Where a piece is: in which file of the manifest, and at which offset.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place<'a> {
    path: &'a [u8],
    offset: u64,
    chunk: ChunkRef,
}

type Places<'a> = BTreeMap<ContentId, Place<'a>>;

fn places(entries: &[content::Entry]) -> Places<'_> {
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

/// Too little comes.
fn slow() -> NotComing {
    NotComing { fault: OutputFault::Away, detail: "what it sends comes too slowly".into() }
}

fn too_many() -> io::Error {
    io::Error::other("it has more files than can be collected at once")
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
        let body = body(of.path.clone(), of.exclude.clone());
        let body = CollectBody {
            mesh: self.authority.mesh().0,
            host,
            not_after_ms: to_ms(SystemTime::now() + GOOD),
            ..body
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

/// What is to be collected, of nobody yet.
fn body(path: Bytes, exclude: Vec<String>) -> CollectBody {
    CollectBody { mesh: [0; 16], host: HostId(0), path, exclude, not_after_ms: 0 }
}

/// Whether every host would take this for a wish. What is wrong with it, if not.
pub(super) fn check_wish(path: &str, exclude: &[String]) -> Result<(), String> {
    let bytes: usize = exclude.iter().map(String::len).sum();
    if bytes > EXCLUDED {
        return Err(format!("the patterns have {bytes} bytes together; the limit is {EXCLUDED}"));
    }
    let body = body(Bytes::copy_from_slice(path.as_bytes()), exclude.to_vec());
    let envelope = Envelope {
        kind: COLLECT_KIND.into(),
        signature: [0; 64],
        key: Bytes::new(),
        body: body.encode().into(),
    };
    CollectBody::read(&envelope).map(drop).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hosts_would_not_take_is_not_asked_of_them() {
        let check = |path: &str, count, len| check_wish(path, &vec!["x".repeat(len); count]);
        assert_eq!(check("/var/log", 64, 128), Ok(()));
        let many = check("/var/log", 65, 1).expect_err("too many");
        assert!(many.contains("65") && many.contains("64"), "{many}");
        let long = check("/var/log", 1, 1025).expect_err("too long");
        assert!(long.contains("1025") && long.contains("1024"), "{long}");
        let all = check("/var/log", 64, 129).expect_err("too much");
        assert!(all.contains("8256") && all.contains("8192"), "{all}");
        assert!(check(&format!("/{}", "x".repeat(4096)), 0, 0).is_err());
    }

    #[test]
    fn a_turn_is_for_what_a_host_brings_in_a_while() {
        // After as many turns as it takes, at so many bytes a second.
        let settled = |rate: u64| {
            let turn = |most, _| next_turn(most, Duration::from_secs(most / rate));
            (0..20).fold(FIRST, turn)
        };
        assert_eq!(settled(100 << 20), ASKED);
        assert_eq!((settled(64 << 10), settled(1)), (512 << 10, FEW));
    }

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
