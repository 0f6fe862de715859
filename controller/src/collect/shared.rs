//! What the hosts of one collection share: a piece that several have is fetched once.
//!
//! While a host's files are put together its pieces lie in a store of their own, each as long as
//! somebody needs it; afterwards they are in the files, and are read from there. Of a piece that
//! is just coming nobody else asks. What a collection that broke off has brought stays in the
//! store for a day, for whoever goes on with it, unless the room is needed. Nobody waits for
//! long for a host that brings nothing: its pieces are asked for once more then, of another.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use content::{Bounds, ChunkRef, ContentId, Kind, Manifest, Owner, Store, StoreError};

use super::room::Promises;

/// Places of pieces that are remembered; of what is beyond, some may be fetched again.
const PLACES: usize = 1 << 20;
/// How long to wait for somebody else's piece before looking again.
const LOOK: Duration = Duration::from_millis(500);
/// How long what a collection has left is good for something.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// How much of the disk stays free at most, as long as there is something left to drop.
const KEEP_FREE: u64 = 4 << 30;
/// How long others wait for a turn in which something comes: whoever drips keeps them no longer.
const LONGEST: Duration = Duration::from_secs(600);

/// Shared by all collections that go on.
pub(crate) struct Shared {
    pub(super) store: Store,
    /// The disk that it is on.
    pub(super) disk: u64,
    pub(super) promises: Promises,
    state: Arc<Mutex<State>>,
    changed: Condvar,
}

/// Needs what hosts need that are being collected from.
struct Needs(Arc<Mutex<State>>);

impl Owner for Needs {
    fn needed(&self) -> Option<BTreeSet<ContentId>> {
        Some(lock(&self.0).needed.keys().copied().collect())
    }

    fn keeps(&self, _: &ContentId) -> bool {
        true
    }
}

#[derive(Default)]
struct State {
    /// In which file a piece is, and where.
    places: BTreeMap<ContentId, (Arc<PathBuf>, u64)>,
    /// Pieces that are coming: by which turn.
    coming: BTreeMap<ContentId, u64>,
    /// Turns that go on.
    going: BTreeMap<u64, Going>,
    turns: u64,
    /// How many hosts need a piece to stay in the store.
    needed: BTreeMap<ContentId, usize>,
    /// When what nobody needs was first seen to lie there.
    left: BTreeMap<ContentId, SystemTime>,
    /// Since when at least what an earlier process has left lies there.
    before: Option<SystemTime>,
}

/// When a turn began, and when something of it has come last.
struct Going {
    began: Instant,
    moved: Instant,
}

impl State {
    /// Whether it is worth waiting for whoever has asked for this piece.
    fn is_coming(&self, id: &ContentId, patience: Duration, now: Instant) -> bool {
        let going = self.coming.get(id).and_then(|turn| self.going.get(turn));
        going.is_some_and(|going| {
            now.duration_since(going.moved) < patience && now.duration_since(going.began) < LONGEST
        })
    }
}

/// Pieces that one host is asked for.
pub(super) struct Turn {
    pub(super) number: u64,
    pub(super) pieces: Vec<ChunkRef>,
}

impl Shared {
    /// Opens the store of collections in a folder, with what an earlier one has left there. Blocks.
    pub(crate) fn open(dir: PathBuf, bounds: Bounds) -> Result<Shared, StoreError> {
        let before = std::fs::metadata(dir.join("index.redb")).and_then(|meta| meta.modified());
        let store = Store::open(&dir)?;
        let disk = std::fs::metadata(&dir).map_or(0, |meta| meta.dev());
        store.bound(share(bounds, store.disk()));
        let state = State { before: before.ok(), ..State::default() };
        let state = Arc::new(Mutex::new(state));
        store.own(Box::new(Needs(state.clone())));
        let (promises, changed) = (Promises::default(), Condvar::new());
        Ok(Shared { store, disk, promises, state, changed })
    }

    /// The first collection after a while begins: where files were then is not known any more.
    pub(super) fn begin_anew(&self) {
        self.lock().places.clear();
    }

    /// Drops what nobody has needed for a day. Says how many pieces went. Blocks.
    pub(super) fn clean(&self, now: SystemTime) -> Result<usize, StoreError> {
        // Under the lock: nobody may begin to need any of it meanwhile.
        let mut state = self.lock();
        let first = state.before.take().unwrap_or(now);
        let (needed, known) = (&state.needed, &state.left);
        let left = RefCell::new(BTreeMap::new());
        let gone = self.store.retain(&|id| {
            if needed.contains_key(id) {
                return true;
            }
            let since = known.get(id).copied().unwrap_or(first);
            let stays = now.duration_since(since).is_ok_and(|age| age <= KEPT) || since > now;
            if stays {
                left.borrow_mut().insert(*id, since.min(now));
            }
            stays
        })?;
        state.left = left.into_inner();
        Ok(gone)
    }

    /// From here on these stay in the store.
    pub(super) fn need(&self, ids: &BTreeSet<ContentId>) {
        let mut state = self.lock();
        for id in ids {
            *state.needed.entry(*id).or_default() += 1;
        }
    }

    /// One host does not need these any more. If it has got them, what nobody needs goes.
    pub(super) fn release(&self, ids: &BTreeSet<ContentId>, got: bool) -> Result<(), StoreError> {
        let mut gone = Vec::new();
        let mut state = self.lock();
        for id in ids {
            if let Some(count) = state.needed.get_mut(id) {
                *count -= 1;
                if *count == 0 {
                    state.needed.remove(id);
                    gone.push(*id);
                }
            }
        }
        // Under the lock: nobody may begin to need them meanwhile.
        if got { self.store.remove(&gone) } else { Ok(()) }
    }

    /// A host's files are in place below this path.
    pub(super) fn note(&self, base: &Path, manifest: &Manifest) {
        use std::os::unix::ffi::OsStrExt;
        let mut state = self.lock();
        for entry in &manifest.entries {
            let Kind::File { chunks, .. } = &entry.kind else { continue };
            let path = match entry.path.as_slice() {
                b"" => base.to_owned(),
                path => base.join(std::ffi::OsStr::from_bytes(path)),
            };
            let (path, mut offset) = (Arc::new(path), 0);
            for chunk in chunks {
                if state.places.len() < PLACES {
                    state.places.entry(chunk.id).or_insert_with(|| (path.clone(), offset));
                }
                offset += u64::from(chunk.len);
            }
        }
    }

    /// Takes from files of other hosts what is there of these. Says what is not.
    pub(super) fn take(&self, wanted: &[ChunkRef]) -> Result<Vec<ChunkRef>, StoreError> {
        let (mut left, mut batch) = (Vec::new(), self.store.batch());
        for chunk in wanted {
            if self.store.has(&chunk.id)? {
                continue;
            }
            let place = self.lock().places.get(&chunk.id).cloned();
            let bytes = place.and_then(|(path, offset)| {
                let mut bytes = vec![0; chunk.len as usize];
                let read =
                    File::open(&*path).and_then(|file| file.read_exact_at(&mut bytes, offset));
                // Somebody may have changed the file meanwhile.
                read.ok().filter(|()| ContentId::of(&bytes) == chunk.id).map(|()| bytes)
            });
            match bytes {
                Some(bytes) => batch.put(chunk.id, &bytes)?,
                None => left.push(*chunk),
            }
        }
        batch.commit()?;
        Ok(left)
    }

    /// Takes from `left` what the caller asks for next, so many bytes and what it takes to be more:
    /// what nobody else has asked for, or of whom nothing has come for `patience`. The rest goes
    /// to `others`.
    pub(super) fn begin(
        &self,
        left: &mut VecDeque<ChunkRef>,
        others: &mut Vec<ChunkRef>,
        (bytes, patience): (u64, Duration),
    ) -> Turn {
        let mut state = self.lock();
        state.turns += 1;
        let (number, now) = (state.turns, Instant::now());
        let (mut pieces, mut sum) = (Vec::new(), 0);
        while sum < bytes
            && let Some(chunk) = left.pop_front()
        {
            if state.is_coming(&chunk.id, patience, now) {
                others.push(chunk);
                continue;
            }
            state.coming.insert(chunk.id, number);
            sum += u64::from(chunk.len);
            pieces.push(chunk);
        }
        if !pieces.is_empty() {
            state.going.insert(number, Going { began: now, moved: now });
        }
        Turn { number, pieces }
    }

    /// Something of a turn has come.
    pub(super) fn moved(&self, turn: u64, now: Instant) {
        if let Some(going) = self.lock().going.get_mut(&turn) {
            going.moved = now;
        }
    }

    /// They have come, or do not.
    pub(super) fn end(&self, turn: &Turn) {
        let mut state = self.lock();
        state.going.remove(&turn.number);
        for chunk in &turn.pieces {
            // Somebody else may have lost patience, and asks for it now.
            let own = state.coming.get(&chunk.id).is_some_and(|by| *by == turn.number);
            if own {
                state.coming.remove(&chunk.id);
            }
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Waits a moment for what others have asked for.
    pub(super) fn wait(&self) {
        let waited = self.changed.wait_timeout(self.lock(), LOOK);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// What the store of collections may have, beside that of pushes, which has bounds of its own.
fn share(bounds: Bounds, disk: u64) -> Bounds {
    if disk == 0 {
        return bounds;
    }
    let (max, keep_free) = (bounds.max.min(disk / 2), KEEP_FREE.min(disk / 10));
    Bounds { max, keep_free, ..bounds }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use content::Patterns;

    use super::*;

    #[test]
    fn a_piece_is_fetched_by_one_and_read_from_its_files_by_the_others() {
        let dir = tempfile::tempdir().expect("temp");
        let open = || Shared::open(dir.path().join("store"), Bounds::default()).expect("opens");
        let shared = open();
        let base = dir.path().join("a");
        std::fs::create_dir(&base).expect("made");
        std::fs::write(base.join("file"), "content").expect("written");
        let none = Patterns::new(&[]).expect("no patterns");
        let manifest = content::look(&base, &none, &mut |_| ()).expect("looks").manifest;
        let chunk = ChunkRef { id: ContentId::of(b"content"), len: 7 };
        let (wanted, ids) = ([chunk], BTreeSet::from([chunk.id]));
        let take = |shared: &Shared| shared.take(&wanted).expect("looks");
        let has = |shared: &Shared| shared.store.has(&chunk.id).expect("has");

        shared.need(&ids);
        assert_eq!(take(&shared), wanted);
        let begin = |patience| {
            let (mut left, mut others) = (VecDeque::from(wanted), Vec::new());
            let turn = shared.begin(&mut left, &mut others, (1, patience));
            assert_eq!(turn.pieces.len() + others.len(), 1);
            turn
        };
        let first = begin(KEPT);
        assert_eq!(first.pieces, wanted);
        assert!(begin(KEPT).pieces.is_empty(), "it is coming");
        // But not for ever; and whoever was too slow does not end the turn of another.
        let second = begin(Duration::ZERO);
        assert_eq!(second.pieces, wanted);
        shared.end(&first);
        assert!(begin(KEPT).pieces.is_empty(), "it is coming still");
        shared.store.put(chunk.id, b"content").expect("puts");
        shared.end(&second);
        shared.need(&ids);
        assert!(take(&shared).is_empty());
        shared.release(&ids, true).expect("releases");
        assert!(has(&shared), "the other needs it");
        shared.note(&base, &manifest);
        shared.release(&ids, true).expect("releases");
        assert!(!has(&shared));
        // From the file, unless that is another by now.
        shared.need(&ids);
        assert!(take(&shared).is_empty());
        shared.release(&ids, true).expect("releases");
        std::fs::write(base.join("file"), "changed").expect("written");
        assert_eq!(take(&shared), wanted);
        // Who has not got all goes on later.
        shared.need(&ids);
        shared.store.put(chunk.id, b"content").expect("puts");
        shared.release(&ids, false).expect("releases");
        assert!(has(&shared));
    }

    #[test]
    fn a_turn_is_waited_for_while_something_comes_but_not_for_ever() {
        let dir = tempfile::tempdir().expect("temp");
        let shared = Shared::open(dir.path().join("store"), Bounds::default()).expect("opens");
        let chunk = ChunkRef { id: ContentId::of(b"content"), len: 7 };
        let patience = Duration::from_secs(15);
        let turn = shared.begin(&mut VecDeque::from([chunk]), &mut Vec::new(), (1, patience));
        let began = Instant::now();
        let after = |secs| began + Duration::from_secs(secs);
        let is_coming = |secs| shared.lock().is_coming(&chunk.id, patience, after(secs));
        assert!(is_coming(14) && !is_coming(15));
        for secs in (10..600).step_by(10) {
            shared.moved(turn.number, after(secs));
            let waited_for = secs + 14 < LONGEST.as_secs();
            assert_eq!((is_coming(secs + 14), is_coming(secs + 16)), (waited_for, false), "{secs}");
        }
        shared.end(&turn);
        assert!(!is_coming(0) && shared.lock().going.is_empty());
    }

    #[test]
    fn what_was_left_goes_after_a_day_unless_somebody_needs_it() {
        let dir = tempfile::tempdir().expect("temp");
        let open = || Shared::open(dir.path().join("store"), Bounds::default()).expect("opens");
        let [a, b] = [&b"a"[..], b"b"].map(|bytes| (ContentId::of(bytes), bytes));
        let clean = |shared: &Shared, now| shared.clean(now).expect("cleans");
        let day = KEPT + Duration::from_secs(1);
        let shared = open();
        let now = SystemTime::now();
        for (id, bytes) in [a, b] {
            shared.store.put(id, bytes).expect("puts");
        }
        assert_eq!(clean(&shared, now), 0);
        shared.need(&BTreeSet::from([a.0]));
        assert_eq!(clean(&shared, now + day), 1, "that which nobody needs");
        assert!(shared.store.has(&a.0).expect("has"));
        // Its day begins when nobody needs it any more.
        shared.release(&BTreeSet::from([a.0]), false).expect("releases");
        assert_eq!(clean(&shared, now + day), 0);
        assert_eq!(clean(&shared, now + KEPT), 0, "a clock that was set back");
        drop(shared);
        // Of what was there before only that is known.
        let shared = open();
        assert_eq!(clean(&shared, now), 0);
        assert_eq!(clean(&shared, SystemTime::now() + day), 1);
    }

    #[test]
    fn the_share_of_collections_is_bounded_by_the_disk() {
        let all = share(Bounds { floor: 7, ..Bounds::default() }, 20 << 30);
        assert_eq!((all.max, all.keep_free, all.floor), (10 << 30, 2 << 30, 7));
        assert_eq!(share(Bounds { max: 5, ..Bounds::default() }, 1 << 40).max, 5);
        assert_eq!(share(Bounds::default(), 1 << 40).keep_free, KEEP_FREE);
    }

    #[test]
    fn what_is_asked_for_at_once_is_bounded() {
        let dir = tempfile::tempdir().expect("temp");
        let shared = Shared::open(dir.path().join("store"), Bounds::default()).expect("opens");
        let piece = |n: u8| ChunkRef { id: ContentId::of(&[n]), len: 10 };
        let mut left: VecDeque<_> = (0..10).map(piece).collect();
        let turn = shared.begin(&mut left, &mut Vec::new(), (25, KEPT));
        assert_eq!((turn.pieces.len(), left.len()), (3, 7));
    }
}
