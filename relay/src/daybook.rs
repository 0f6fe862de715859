//! The daybook: where a node writes first, in the order of things, what it must not lose.
//!
//! One write into a file of fixed size and one sync make a batch durable; the tables get all of it
//! in one commit when the file is full. So a command at a host costs two short writes and not two
//! commits of a database. Each frame is sealed by a keyed hash over its place and its bytes, with
//! a random key that lies in the tables and changes with every emptying, in the same commit: a
//! torn frame, or one of an earlier filling, is never taken for a whole one, whatever the bytes in
//! it are made to look like. That is what lets one sync do where redb, whose checksums anybody can
//! compute, needs its two phases.
//!
//! It deliberately knows nothing of what the rows mean.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use content::Tape;

/// How long the file is.
const SIZE: usize = 256 << 10;
const PAGE: usize = 4 << 10;
/// Before the rows of a frame: their length, and the seal.
const HEAD: usize = 4 + SEAL;
const SEAL: usize = 16;
/// Before the bytes of a row: its kind, its id, and their length.
const ROW_HEAD: usize = 1 + 16 + 4;

/// Seals frames; a new one for each filling.
pub(crate) type Key = [u8; 32];

/// One thing to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// What it is, in the words of whoever writes it.
    pub(crate) kind: u8,
    pub(crate) id: [u8; 16],
    pub(crate) body: Bytes,
}

/// An open daybook.
pub(crate) struct Daybook {
    path: PathBuf,
    file: File,
    /// Who is told of what is written.
    tape: Option<Arc<dyn Tape>>,
    key: Key,
    end: usize,
}

impl Daybook {
    /// Opens the file, or makes it, and finds where what was written with this key ends.
    pub(crate) fn open(path: &Path, key: Key, tape: Option<Arc<dyn Tape>>) -> io::Result<Daybook> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let (path, file) = (path.to_path_buf(), file.open(path)?);
        let mut daybook = Daybook { path, file, tape, key, end: 0 };
        if daybook.file.metadata()?.len() < SIZE as u64 {
            // Written and not only reserved, so that a later sync has nothing but data to write. In
            // pages, since what was written at once may later be counted as written at once.
            for at in (0..SIZE).step_by(PAGE) {
                daybook.write(&[0; PAGE], at)?;
            }
            daybook.sync()?;
            let dir = daybook.path.parent().unwrap_or(Path::new("."));
            File::open(dir)?.sync_all()?;
        }
        daybook.end = daybook.read()?.1;
        Ok(daybook)
    }

    /// Appends rows, durable on return. `false`, and nothing is written: they do not fit.
    pub(crate) fn append(&mut self, rows: &[Row]) -> io::Result<bool> {
        let len: usize = rows.iter().map(|row| ROW_HEAD + row.body.len()).sum();
        if self.end + HEAD + len > SIZE {
            return Ok(false);
        }
        let mut frame = BytesMut::with_capacity(HEAD + len);
        frame.put_bytes(0, HEAD);
        for row in rows {
            frame.put_u8(row.kind);
            frame.put_slice(&row.id);
            frame.put_u32(u32::try_from(row.body.len()).expect("it fits the file"));
            frame.put_slice(&row.body);
        }
        let seal = self.seal(self.end, &frame[HEAD..]);
        frame[..4].copy_from_slice(&u32::try_from(len).expect("it fits the file").to_be_bytes());
        frame[4..HEAD].copy_from_slice(&seal);
        self.write(&frame, self.end)?;
        // Never tried again, whatever the reason: so it must not look like a mere want of space.
        self.sync().map_err(io::Error::other)?;
        self.end += frame.len();
        Ok(true)
    }

    /// All rows that are in it, in their order.
    pub(crate) fn rows(&self) -> io::Result<Vec<Row>> {
        Ok(self.read()?.0)
    }

    /// Counts all rows as gone: they are elsewhere, together with this new key.
    pub(crate) fn empty(&mut self, key: Key) {
        (self.key, self.end) = (key, 0);
    }

    fn write(&self, bytes: &[u8], at: usize) -> io::Result<()> {
        self.file.write_all_at(bytes, at as u64)?;
        if let Some(tape) = &self.tape {
            tape.wrote(&self.path, at as u64, bytes);
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()?;
        if let Some(tape) = &self.tape {
            tape.synced(&self.path);
        }
        Ok(())
    }

    fn read(&self) -> io::Result<(Vec<Row>, usize)> {
        let mut bytes = vec![0; SIZE];
        self.file.read_exact_at(&mut bytes, 0)?;
        let bytes = Bytes::from(bytes);
        let (mut rows, mut at) = (Vec::new(), 0);
        while let Some(frame) = self.frame(&bytes, at) {
            at += HEAD + frame.len();
            let Some(more) = split(frame) else { break };
            rows.extend(more);
        }
        Ok((rows, at))
    }

    /// The rows of the frame at this place, if it is whole.
    fn frame(&self, bytes: &Bytes, at: usize) -> Option<Bytes> {
        let head = bytes.get(at..at + HEAD)?;
        let len = u32::from_be_bytes(head[..4].try_into().expect("four bytes")) as usize;
        let rows = bytes.get(at + HEAD..(at + HEAD).checked_add(len)?).filter(|r| !r.is_empty())?;
        let whole = head[4..] == self.seal(at, rows);
        whole.then(|| bytes.slice_ref(rows))
    }

    fn seal(&self, at: usize, rows: &[u8]) -> [u8; SEAL] {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&(at as u64).to_be_bytes()).update(rows);
        hasher.finalize().as_bytes()[..SEAL].try_into().expect("a hash is longer")
    }
}

/// The rows of a frame.
fn split(mut frame: Bytes) -> Option<Vec<Row>> {
    let mut rows = Vec::new();
    while !frame.is_empty() {
        if frame.len() < ROW_HEAD {
            return None;
        }
        let kind = frame.get_u8();
        let mut id = [0; 16];
        frame.copy_to_slice(&mut id);
        let len = frame.get_u32() as usize;
        if len > frame.len() {
            return None;
        }
        rows.push(Row { kind, id, body: frame.split_to(len) });
    }
    Some(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = [7; 32];

    fn row(n: u8, len: usize) -> Row {
        Row { kind: n, id: [n; 16], body: vec![n; len].into() }
    }

    fn open(dir: &tempfile::TempDir, key: Key) -> Daybook {
        Daybook::open(&dir.path().join("daybook"), key, None).expect("it is opened")
    }

    fn rows(daybook: &Daybook) -> Vec<Row> {
        daybook.rows().expect("it is read")
    }

    #[test]
    fn what_was_appended_is_there_until_it_is_emptied() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut daybook = open(&dir, KEY);
        assert!(daybook.append(&[row(1, 10), row(2, 0)]).expect("written"));
        assert!(daybook.append(&[row(3, 1_000)]).expect("written"));
        drop(daybook);
        let mut daybook = open(&dir, KEY);
        assert!(daybook.append(&[row(4, 5)]).expect("written"));
        assert_eq!(rows(&daybook), [row(1, 10), row(2, 0), row(3, 1_000), row(4, 5)]);
        daybook.empty([8; 32]);
        assert_eq!(rows(&daybook), []);
        assert!(daybook.append(&[row(5, 5)]).expect("written"));
        assert_eq!(rows(&daybook), [row(5, 5)]);
        assert_eq!(rows(&open(&dir, [8; 32])), [row(5, 5)]);
        // The new key was not kept: the old filling counts, as far as it is whole.
        assert_eq!(rows(&open(&dir, KEY)), []);
    }

    #[test]
    fn it_is_full_some_time() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut daybook = open(&dir, KEY);
        assert!(!daybook.append(&[row(1, SIZE)]).expect("tried"), "it never fits");
        let mut count = 0;
        while daybook.append(&[row(1, 10_000)]).expect("tried") {
            count += 1;
        }
        assert_eq!((count, rows(&open(&dir, KEY)).len()), (26, 26));
    }

    #[test]
    fn a_frame_that_is_torn_anywhere_is_as_if_it_never_was() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("daybook");
        let mut daybook = open(&dir, KEY);
        daybook.append(&[row(1, 50)]).expect("written");
        let before = std::fs::read(&path).expect("it is read");
        let start = daybook.end;
        daybook.append(&[row(2, 30), row(3, 30)]).expect("written");
        let (after, end) = (std::fs::read(&path).expect("it is read"), daybook.end);
        for at in start..end {
            // What comes before this place was written, or what comes after it.
            for torn in [
                [&after[..at], &before[at..]].concat(),
                [&before[..start], &before[start..at], &after[at..]].concat(),
            ] {
                let whole = torn == after;
                std::fs::write(&path, torn).expect("written");
                let found = rows(&open(&dir, KEY));
                assert_eq!(found.len(), if whole { 3 } else { 1 }, "torn at {at}");
            }
        }
    }

    #[test]
    fn whatever_is_damaged_what_is_left_is_the_beginning() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("daybook");
        let mut daybook = open(&dir, KEY);
        let mut written = Vec::new();
        for n in 0..20 {
            let batch = [row(n, 10 * usize::from(n)), row(n + 100, 3)];
            daybook.append(&batch).expect("written");
            written.extend(batch);
        }
        let (end, whole) = (daybook.end, std::fs::read(&path).expect("it is read"));
        damage::survive("daybook", &[whole[..end].to_vec()], 3_000, |used| {
            let mut used = [used, &whole[end..]].concat();
            used.resize(SIZE, 0);
            std::fs::write(&path, &used).expect("written");
            let found = rows(&open(&dir, KEY));
            assert!(written.starts_with(&found));
            found.len() == written.len()
        });
    }

    #[test]
    fn damaged_frames_have_rows_or_none() {
        let mut sample = Vec::new();
        for row in [row(1, 0), row(2, 300), row(3, 5)] {
            sample.push(row.kind);
            sample.extend_from_slice(&row.id);
            sample.extend_from_slice(&(row.body.len() as u32).to_be_bytes());
            sample.extend_from_slice(&row.body);
        }
        damage::survive("frames of the daybook", &[sample], 60_000, |bytes| {
            let rows = split(Bytes::copy_from_slice(bytes));
            let length = |row: &Row| ROW_HEAD + row.body.len();
            let all = rows.as_ref().map(|rows| rows.iter().map(length).sum::<usize>());
            assert!(all.is_none_or(|all| all == bytes.len()));
            rows.is_some()
        });
    }
}
