//! What a power failure leaves of a journal: at any place in what was asked of the disk, and
//! whatever of the unsynced part has got there, sector by sector and in any order.
//!
//! A journal is written while a tape runs. Then the tape is cut somewhere, a disk is made of what
//! was synced and of some of the rest, and the journal is opened on it: what was acknowledged must
//! be there, what was under way is there as a whole or not at all, and of what came later there is
//! nothing. That opening runs a tape as well, which is cut like the first, and so is what is
//! written after it.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::rows::kind;
use super::*;

const SECTOR: usize = 512;
const CACHE: usize = 1 << 20;

#[derive(Clone, Debug)]
enum Op {
    Wrote {
        file: PathBuf,
        at: usize,
        bytes: Vec<u8>,
    },
    Placed {
        file: PathBuf,
        bytes: Vec<u8>,
    },
    Resized {
        file: PathBuf,
        len: usize,
    },
    Synced {
        file: PathBuf,
    },
    /// So many batches are acknowledged.
    Told(usize),
}

/// Files by name.
type Disk = BTreeMap<PathBuf, Vec<u8>>;

#[derive(Debug, Default)]
struct Recorder(Mutex<Vec<Op>>);

impl Recorder {
    fn push(&self, op: Op) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(op);
    }
}

fn name(path: &Path) -> PathBuf {
    path.file_name().expect("a file has a name").into()
}

impl Tape for Recorder {
    fn wrote(&self, path: &Path, at: u64, bytes: &[u8]) {
        let at = usize::try_from(at).expect("a small file");
        self.push(Op::Wrote { file: name(path), at, bytes: bytes.to_vec() });
    }

    fn placed(&self, path: &Path) {
        let bytes = std::fs::read(path).expect("it is there");
        self.push(Op::Placed { file: name(path), bytes });
    }

    fn resized(&self, path: &Path, len: u64) {
        let len = usize::try_from(len).expect("a small file");
        self.push(Op::Resized { file: name(path), len });
    }

    fn synced(&self, path: &Path) {
        self.push(Op::Synced { file: name(path) });
    }
}

fn write(disk: &mut Disk, file: &Path, at: usize, bytes: &[u8]) {
    let file = disk.entry(file.into()).or_default();
    if file.len() < at + bytes.len() {
        file.resize(at + bytes.len(), 0);
    }
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

fn do_all(disk: &mut Disk, op: &Op) {
    match op {
        Op::Wrote { file, at, bytes } => write(disk, file, *at, bytes),
        Op::Resized { file, len } => disk.entry(file.clone()).or_default().resize(*len, 0),
        Op::Placed { .. } | Op::Synced { .. } | Op::Told(_) => {}
    }
}

/// Some sectors of a write, or a change of length by chance.
fn do_some(disk: &mut Disk, op: &Op, share: f64, dice: &mut SmallRng) {
    let Op::Wrote { file, at, bytes } = op else {
        if dice.random_bool(share) {
            do_all(disk, op);
        }
        return;
    };
    let mut from = *at;
    while from < at + bytes.len() {
        let until = ((from / SECTOR + 1) * SECTOR).min(at + bytes.len());
        if dice.random_bool(share) {
            write(disk, file, from, &bytes[from - at..until - at]);
        }
        from = until;
    }
}

/// The disk after the first ops of a tape, and how many batches were acknowledged by then.
fn cut(before: &Disk, ops: &[Op], dice: &mut SmallRng) -> (Disk, usize) {
    let (mut disk, mut told) = (before.clone(), 0);
    let mut open: Vec<&Op> = Vec::new();
    for op in ops {
        match op {
            Op::Synced { file: synced } => {
                let of = |op: &&Op| match op {
                    Op::Wrote { file, .. } | Op::Resized { file, .. } => file == synced,
                    _ => false,
                };
                open.iter().copied().filter(of).for_each(|op| do_all(&mut disk, op));
                open.retain(|op| !of(op));
            }
            Op::Placed { file, bytes } => drop(disk.insert(file.clone(), bytes.clone())),
            Op::Told(batches) => told = *batches,
            op => open.push(op),
        }
    }
    let share = *[0.0, 0.1, 0.5, 0.9, 1.0].get(dice.random_range(0..5)).expect("of five");
    open.into_iter().for_each(|op| do_some(&mut disk, op, share, dice));
    (disk, told)
}

/// The rows of a batch. Every third has large bodies, so that the daybook is emptied now and then.
fn batch(no: usize) -> Vec<Row> {
    let rows = 1 + no % 4;
    let len = if no.is_multiple_of(3) { 20_000 } else { 40 };
    let mut id = [0; 16];
    let row = |n: usize| {
        id[..8].copy_from_slice(&(no as u64).to_be_bytes());
        id[8] = u8::try_from(n).expect("a few");
        let body = Bytes::from(vec![u8::try_from(no % 251).expect("a byte"); len + n]);
        Row { kind: kind::ORDER, id, body }
    };
    (0..rows).map(row).collect()
}

struct Trial {
    dir: tempfile::TempDir,
    daybook: bool,
    /// What was there when the tape began.
    disk: Disk,
    tape: Arc<Recorder>,
}

impl Trial {
    fn new(daybook: bool, disk: Disk) -> Trial {
        let dir = tempfile::tempdir().expect("a temporary folder");
        for (name, bytes) in &disk {
            std::fs::write(dir.path().join(name), bytes).expect("written");
        }
        Trial { dir, daybook, disk, tape: Arc::default() }
    }

    fn open(&self) -> Journal {
        let path = self.dir.path().join("node.redb");
        let tape: Option<Arc<dyn Tape>> = Some(self.tape.clone());
        let opened = match self.daybook {
            true => Journal::with_daybook_taped(&path, CACHE, tape),
            false => Journal::taped(&path, CACHE, tape),
        };
        opened.expect("a journal opens whatever the power failure has left")
    }

    fn save(&self, journal: &Journal, batches: std::ops::Range<usize>) {
        for no in batches {
            journal.save(&batch(no)).expect("it is kept");
            self.tape.push(Op::Told(no + 1));
        }
    }

    /// The disk after a power failure at some place of the tape.
    fn fail(&self, dice: &mut SmallRng) -> (Disk, usize) {
        let ops = self.tape.0.lock().unwrap_or_else(PoisonError::into_inner);
        cut(&self.disk, &ops[..dice.random_range(0..=ops.len())], dice)
    }
}

/// How many batches are there: all of the first ones, each whole, and nothing of any other.
fn held(journal: &Journal) -> usize {
    let orders = journal.image().expect("it is read").orders;
    let (mut batches, mut rows) = (0, 0);
    while rows < orders.len() {
        let expected = batch(batches);
        for row in &expected {
            let found = orders.get(&OrderId(row.id));
            assert_eq!(found, Some(&row.body), "batch {batches} is not whole");
        }
        (batches, rows) = (batches + 1, rows + expected.len());
    }
    batches
}

fn power_fails(seed: u64, daybook: bool) {
    let mut dice = SmallRng::seed_from_u64(seed);
    let first = Trial::new(daybook, Disk::new());
    let journal = first.open();
    let last = dice.random_range(1..40);
    first.save(&journal, 0..last);
    drop(journal);
    let (mut disk, mut told) = first.fail(&mut dice);
    // Again and again: at the opening, and in what is written after it.
    for _ in 0..4 {
        let trial = Trial::new(daybook, disk);
        let journal = trial.open();
        let found = held(&journal);
        assert!((told..=last.max(told) + 8).contains(&found), "{found} of at least {told}");
        trial.save(&journal, found..found + 4);
        assert_eq!(held(&journal), found + 4);
        drop(journal);
        let (next, since) = trial.fail(&mut dice);
        // What was found once is not lost by failing again.
        (disk, told) = (next, since.max(found));
    }
}

#[test]
fn a_power_failure_takes_nothing_that_was_acknowledged_and_leaves_nothing_by_halves() {
    (0..100).for_each(|seed| power_fails(seed, true));
}

#[test]
fn nor_does_it_without_a_daybook() {
    (0..40).for_each(|seed| power_fails(1_000 + seed, false));
}

/// The disks of this test are able to fail a journal: one that tells before it has synced is found.
#[test]
fn a_journal_that_tells_too_early_is_found() {
    let lost = (0..40).filter(|seed| {
        let mut dice = SmallRng::seed_from_u64(*seed);
        let trial = Trial::new(true, Disk::new());
        let journal = trial.open();
        for no in 0..10 {
            trial.tape.push(Op::Told(no + 1));
            journal.save(&batch(no)).expect("it is kept");
        }
        drop(journal);
        let (disk, told) = trial.fail(&mut dice);
        held(&Trial::new(true, disk).open()) < told
    });
    assert!(lost.count() > 0);
}
