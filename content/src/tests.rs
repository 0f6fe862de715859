//! The way of a tree: from one disk, through both kinds of parts, onto another disk.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::collection::vec;
use proptest::prelude::*;

use crate::any_tree::{Tree, evolve, listing, make_tree, tree};
use crate::*;

/// Where everything is put.
const DEST: &[u8] = b"/deep/er/dest";

/// Segments, decoded into the store of the receiver when chunks are asked for.
struct Parts<'a> {
    bundle: &'a Bundle,
    plan: Vec<ChunkRef>,
    from: &'a Store,
    to: &'a Store,
}

impl Chunks for Parts<'_> {
    fn provide(&mut self, wanted: &[ChunkRef]) -> Result<(), ApplyError> {
        assert!(!wanted.is_empty());
        let mut batch = self.to.batch();
        for part in &self.bundle.segments {
            let bytes = self.from.get(&part.id)?.expect("parts are in the store");
            Segment::decode::<PackError>(&bytes, &self.plan, &mut |chunk, bytes| {
                Ok(batch.put(chunk.id, bytes)?)
            })
            .expect("segments decode");
        }
        Ok(batch.commit()?)
    }
}

/// A delta, unpacked with what was installed before.
struct Based<'a> {
    bundle: &'a Bundle,
    unpack: Unpack<'a>,
    from: &'a Store,
    /// Bytes in chunks that were fetched singly.
    fetched: u64,
}

impl Chunks for Based<'_> {
    fn provide(&mut self, wanted: &[ChunkRef]) -> Result<(), ApplyError> {
        let (to, from) = (self.unpack.store, self.from);
        let mut sender = Sender { from, to, fetched: &mut self.fetched };
        let besides = self.unpack.run(wanted, &mut sender)?;
        Ok(to.remove(&besides)?)
    }
}

struct Sender<'a> {
    from: &'a Store,
    to: &'a Store,
    fetched: &'a mut u64,
}

impl Origin for Sender<'_> {
    fn part(&mut self, part: &Part) -> Result<Vec<u8>, ApplyError> {
        Ok(self.from.get(&part.id)?.expect("parts are in the store"))
    }

    fn fetch(&mut self, chunks: &[ChunkRef]) -> Result<(), ApplyError> {
        let mut batch = self.to.batch();
        for chunk in chunks {
            // Whoever holds the target need not hold the base.
            let bytes = self.from.get(&chunk.id)?;
            let bytes = bytes.ok_or_else(|| ApplyError::Provide("a chunk is not there".into()))?;
            batch.put(chunk.id, &bytes)?;
            *self.fetched += u64::from(chunk.len);
        }
        Ok(batch.commit()?)
    }
}

/// How a tree is put in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// File by file, and what is not in the source goes.
    Files,
    /// As a whole.
    Whole,
}

impl Way {
    fn put(self, at: &Host, job: &Job<'_>, chunks: &mut dyn Chunks) -> Applied {
        match self {
            Way::Files => at.installer.apply(job, at.store, chunks).expect("applies"),
            Way::Whole => at.installer.release(job, at.store, chunks).expect("releases").0,
        }
    }
}

/// Of which parts a delta is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// As pushes have them.
    Usual,
    /// Many small ones, in an order that the number stands for.
    Small(u64),
}

/// Who installs, and what it keeps.
struct Host<'a> {
    installer: Installer,
    store: &'a Store,
}

struct Never;

impl Chunks for Never {
    fn provide(&mut self, _: &[ChunkRef]) -> Result<(), ApplyError> {
        panic!("everything is there");
    }
}

/// Reads the source into a store, encodes it, and puts it in place at the host; and then once
/// more. Returns how many bytes travelled as single chunks.
fn send(
    base: Option<&Manifest>,
    source: &Path,
    from: &Store,
    (host, way, cut): (&Host<'_>, Way, Cut),
) -> u64 {
    let target = ingest(source, &Patterns::default(), from, &mut |_| ()).expect("ingests").manifest;
    let mut bundle = pack::encode(base, &target, from, 3).expect("encodes");
    let part = from.get(&bundle.manifest.id).expect("reads").expect("is there");
    let base_bytes = base.map(Manifest::encode);
    let limits = Limits::default();
    let decoded = pack::decode_manifest(&part, base_bytes.as_deref(), &limits).expect("decodes");
    assert_eq!((&decoded, decoded.root()), (&target, target.root()));

    if let (Cut::Small(order), Some(base)) = (cut, base) {
        let parts = delta::encode_small(base, &target, from).expect("encodes");
        bundle.deltas = parts;
        let place = |part: &Part| blake3::keyed_hash(&part.id.0, &order.to_le_bytes()).to_hex();
        bundle.deltas.sort_by_cached_key(place);
    }
    let (delete, max_delete) = (Delete::All, MaxDelete::Percent(100));
    let rules = Rules { delete, max_delete, ..Rules::default() };
    let job = Job { tag: "t1", dest: DEST, target: &decoded, rules: &rules, before: None };
    let mut fetched = 0;
    let first = match base {
        None => {
            let plan = plan(None, &decoded);
            way.put(host, &job, &mut Parts { bundle: &bundle, plan, from, to: host.store })
        }
        Some(base) => {
            let installed = host.installer.installed(DEST, base).expect("opens");
            let deltas = &bundle.deltas;
            let mut unpack =
                Unpack { base, target: &decoded, deltas, installed, store: host.store };
            if let Cut::Small(some) = cut {
                // Whatever was decoded ahead, the rest comes as ever.
                let delta = Delta::new(base, &decoded);
                for (_, part) in (0..64).zip(deltas).filter(|(n, _)| some >> n & 1 == 1) {
                    let bytes = from.get(&part.id).expect("reads").expect("is there");
                    unpack.ahead(&delta, &bytes).expect("decodes");
                }
            }
            let mut based = Based { bundle: &bundle, unpack, from, fetched: 0 };
            let applied = way.put(host, &job, &mut based);
            assert!(based.bundle.segments.is_empty());
            fetched = based.fetched;
            applied
        }
    };
    let entries = decoded.entries.len() as u64;
    assert_eq!(first.written + first.unchanged + first.metadata_fixed, entries);

    let again = way.put(host, &job, &mut Never);
    let Applied { owner_skipped, attributes_lost, .. } = again;
    let nothing =
        Applied { unchanged: entries, owner_skipped, attributes_lost, ..Applied::default() };
    assert_eq!(again, nothing);
    fetched
}

/// Regular files below a folder, sorted.
fn files(root: &Path) -> Vec<PathBuf> {
    let is_file = |path: &PathBuf| root.join(path).symlink_metadata().is_ok_and(|m| m.is_file());
    listing(root).into_keys().filter(is_file).map(|path| root.join(path)).collect()
}

/// How many bytes are in all files below a folder, each counted once.
fn bytes(root: &Path) -> u64 {
    files(root).iter().map(|path| path.metadata().expect("stat").len()).sum()
}

/// Does something to a file that a push knows nothing of. Returns how long it was.
fn damage(path: &Path, how: u8) -> u64 {
    let Ok(mut bytes) = fs::read(path) else { return 0 };
    let length = bytes.len() as u64;
    match how % 4 {
        0 => fs::remove_file(path).expect("removes"),
        1 => fs::write(path, &bytes[..bytes.len() / 3]).expect("shortens"),
        2 => fs::write(path, [b"more".as_slice(), &bytes].concat()).expect("grows"),
        _ => {
            bytes.iter_mut().skip(7).take(1).for_each(|byte| *byte ^= 1);
            fs::write(path, bytes).expect("changes");
        }
    }
    length
}

/// What is in place when the second tree comes, though the first was put there.
#[derive(Debug, Clone)]
enum Standing {
    /// The first, but for a few files.
    Damaged(Vec<(prop::sample::Index, u8)>),
    /// Another tree.
    Other(Tree),
    /// Nothing.
    Nothing,
}

fn standing() -> impl Strategy<Value = Standing> {
    let damages = vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    prop_oneof![
        4 => damages.prop_map(Standing::Damaged),
        1 => tree().prop_map(Standing::Other),
        1 => Just(Standing::Nothing),
    ]
}

/// Which objects of a store are lost: of four, so many, by a number.
type Loss = (u8, u64);

fn lose(store: &Store, (of_four, seed): Loss) {
    let keeps = |id: &ContentId| {
        blake3::keyed_hash(&id.0, &seed.to_le_bytes()).as_bytes()[0] % 4 >= of_four
    };
    store.retain(&keeps).expect("drops");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Through the parts of a push, whatever is in place instead of the base, whatever the caches
    /// of both ends have lost, and in whatever order the parts are there.
    #[test]
    fn a_tree_arrives_as_it_was(
        (first, second) in (tree(), tree()),
        standing in standing(),
        losses in [(0..5_u8, any::<u64>()), (0..5_u8, any::<u64>())],
        way in prop_oneof![3 => Just(Way::Files), 1 => Just(Way::Whole)],
        cut in prop_oneof![Just(Cut::Usual), any::<u64>().prop_map(Cut::Small)],
    ) {
        let temp = tempfile::tempdir().expect("temp");
        let at = |name: &str| temp.path().join(name);
        let [from, to] = ["from", "to"].map(|name| Store::open(at(name)).expect("store"));
        fs::create_dir(at("root")).expect("root");
        let host = Host { installer: Installer::new(at("root")), store: &to };
        let dest = at("root/deep/er/dest");

        make_tree(&at("first"), &first);
        send(None, &at("first"), &from, (&host, way, cut));
        prop_assert_eq!(listing(&at("first")), listing(&dest));
        let base = ingest(&at("first"), &Patterns::default(), &from, &mut |_| ());
        let base = base.expect("ingests").manifest;

        let mut lost = 0;
        match standing {
            Standing::Damaged(damages) => {
                let found = files(&dest);
                for (pick, how) in damages.iter().filter(|_| !found.is_empty()) {
                    lost += damage(pick.get::<PathBuf>(&found), *how);
                }
            }
            Standing::Other(other) => {
                lost = bytes(&dest);
                fs::remove_dir_all(&dest).expect("removes");
                make_tree(&dest, &evolve(&first, &other));
            }
            Standing::Nothing => {
                lost = bytes(&dest);
                fs::remove_dir_all(&dest).expect("removes");
            }
        }
        lose(&from, losses[0]);
        lose(&to, losses[1]);
        make_tree(&at("second"), &evolve(&first, &second));
        let fetched = send(Some(&base), &at("second"), &from, (&host, way, cut));
        prop_assert_eq!(listing(&at("second")), listing(&dest));
        // A file may be the base of something in either kind of segment, and here in many.
        let is_little = cut != Cut::Usual || fetched <= 2 * lost;
        prop_assert!(is_little, "{} fetched for {} lost", fetched, lost);
    }
}

#[test]
fn a_single_file_arrives_as_it_was() {
    let temp = tempfile::tempdir().expect("temp");
    let at = |name: &str| temp.path().join(name);
    let [from, to] = ["from", "to"].map(|name| Store::open(at(name)).expect("store"));
    fs::create_dir(at("root")).expect("root");
    let host = Host { installer: Installer::new(at("root")), store: &to };
    for content in [b"one".as_slice(), b"", &[7; 300_000]] {
        fs::write(at("file"), content).expect("writes");
        send(None, &at("file"), &from, (&host, Way::Files, Cut::Usual));
        assert_eq!(listing(&at("file")), listing(&at("root/deep/er/dest")));
    }
}

#[test]
fn a_missing_base_is_fetched_once_though_it_is_wanted_itself() {
    let temp = tempfile::tempdir().expect("temp");
    let at = |name: &str| temp.path().join(name);
    let [from, to] = ["from", "to"].map(|name| Store::open(at(name)).expect("store"));
    for name in ["root", "source"] {
        fs::create_dir(at(name)).expect("makes");
    }
    let host = Host { installer: Installer::new(at("root")), store: &to };
    let mut program = vec![0; 30_000];
    blake3::Hasher::new().finalize_xof().fill(&mut program[10..]);
    fs::write(at("source/lib-1.so"), &program).expect("writes");
    send(None, &at("source"), &from, (&host, Way::Files, Cut::Usual));
    let base =
        ingest(&at("source"), &Patterns::default(), &from, &mut |_| ()).expect("ingests").manifest;

    // The second library is made from the first, which is gone at the host.
    fs::remove_file(at("root/deep/er/dest/lib-1.so")).expect("removes");
    program.splice(15_000..15_000, [7; 6_000]);
    fs::write(at("source/lib-2.so"), &program).expect("writes");
    to.retain(&|_| false).expect("empties");
    let fetched = send(Some(&base), &at("source"), &from, (&host, Way::Files, Cut::Usual));
    assert_eq!(fetched, 30_000);
    assert_eq!(listing(&at("source")), listing(&at("root/deep/er/dest")));
}
