//! Collecting at a host: saying what is below a path, and reading pieces of it.
//!
//! The controller first asks what there is and then for what it lacks, by place and hash. So
//! nothing is stored here for it, nothing is remembered between two questions, and of files that
//! many hosts have alike one host is asked. Everything leaves as one zstd frame of
//! [`protos::Item`]s, at the pace of whoever reads.
//!
//! The path is the controller's and signed; what is asked for below it never leads out of it.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use content::{ContentId, Patterns, Pieces};
use protos::{CollectBody, CollectFile, ITEM_LIMIT, Item};
use tokio::sync::{Semaphore, mpsc};
use tracing::info;

/// Questions that are answered at once; more wait.
const AT_ONCE: usize = 2;
/// What is sent in one go.
const PIECE: usize = 64 << 10;
/// Pieces that may wait for the link.
const WAITING: usize = 4;
/// How often to say how far it is.
const TELL: Duration = Duration::from_secs(5);
/// Fast: the host has other things to do.
const LEVEL: i32 = 3;

/// Who reads files here for the controller.
#[derive(Clone)]
pub(crate) struct Collector {
    root: PathBuf,
    turns: Arc<Semaphore>,
}

impl Collector {
    /// Paths are taken below this folder: `/` in production.
    pub(crate) fn new(root: PathBuf) -> Collector {
        Collector { root, turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// The answer to a question, piece by piece. It ends early when nobody takes it any more.
    pub(crate) async fn answer(
        &self,
        body: CollectBody,
        files: Vec<CollectFile>,
    ) -> mpsc::Receiver<Bytes> {
        let (sender, pieces) = mpsc::channel(WAITING);
        // A look that nobody waits for goes on to its end; it must not be joined by ever more.
        let turn = self.turns.clone().acquire_owned().await.expect("it is never closed");
        let root = self.root.clone();
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let pipe = Pipe { sender, held: Vec::new() };
            // Whoever asked sees that the end is missing.
            write(&root, &body, &files, pipe).ok();
        });
        pieces
    }
}

fn write(root: &Path, body: &CollectBody, files: &[CollectFile], pipe: Pipe) -> io::Result<()> {
    let source = at(root, &body.path);
    let mut out = zstd::stream::write::Encoder::new(pipe, LEVEL)?;
    match files {
        [] => look(&source, &body.exclude, &mut out)?,
        files => read(&source, files, &mut out)?,
    }
    out.write_all(&Item::End.encode())?;
    out.finish()?.flush()
}

/// Says what there is.
fn look(source: &Path, exclude: &[String], out: &mut impl Write) -> io::Result<()> {
    info!(path = %source.display(), "the controller looks at what is here");
    let failed = |error: &dyn std::error::Error, out: &mut dyn Write| {
        out.write_all(&Item::Failed(crate::chain(error)).encode())
    };
    let exclude = match Patterns::new(exclude) {
        Ok(exclude) => exclude,
        Err(error) => return failed(&error, out),
    };
    let mut told = Instant::now();
    let mut gone = Ok(());
    let looked = content::look(source, &exclude, &mut |done| {
        if gone.is_ok() && told.elapsed() >= TELL {
            told = Instant::now();
            let item = Item::Looked { files: done.files, bytes: done.bytes };
            gone = out.write_all(&item.encode()).and_then(|()| out.flush());
        }
    });
    gone?;
    let looked = match looked {
        Ok(looked) => looked,
        Err(error) => return failed(&error, out),
    };
    for part in looked.manifest.encode().chunks(ITEM_LIMIT) {
        out.write_all(&Item::Manifest(Bytes::copy_from_slice(part)).encode())?;
    }
    out.write_all(&Item::Skipped(looked.skipped.len() as u64).encode())
}

/// Gives pieces, each as it was when it was looked at, or not at all.
fn read(source: &Path, files: &[CollectFile], out: &mut impl Write) -> io::Result<()> {
    let mut open = Pieces::open(source).ok();
    for file in files {
        let mut offset = file.offset;
        for (len, hash) in &file.pieces {
            let piece = open.as_mut().and_then(|open| open.read(&file.path, offset, *len as usize));
            let piece = piece.filter(|piece| ContentId::of(piece).0 == hash.0);
            let item = piece.map_or(Item::Lost, |piece| Item::Piece(piece.into()));
            out.write_all(&item.encode())?;
            offset = offset.saturating_add(u64::from(*len));
        }
    }
    Ok(())
}

/// A path of the operator's below the root.
fn at(root: &Path, path: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    let below = path.iter().position(|byte| *byte != b'/').map_or(&[][..], |at| &path[at..]);
    root.join(std::ffi::OsStr::from_bytes(below))
}

/// The way to the link.
struct Pipe {
    sender: mpsc::Sender<Bytes>,
    held: Vec<u8>,
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.held.extend_from_slice(bytes);
        if self.held.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.held.is_empty() {
            return Ok(());
        }
        let held = std::mem::take(&mut self.held).into();
        self.sender.blocking_send(held).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

#[cfg(test)]
mod tests {
    use mesh::{Digest, HostId};
    use protos::item_decoder;

    use super::*;

    fn ask(root: &Path, path: &str, files: Vec<CollectFile>) -> Vec<Item> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let body = CollectBody {
            mesh: [0; 16],
            host: HostId(1),
            path: Bytes::copy_from_slice(path.as_bytes()),
            exclude: vec!["*.tmp".into()],
            not_after_ms: 0,
        };
        let mut found = Vec::new();
        let mut decoder = item_decoder(|item| {
            found.push(item);
            Ok(())
        })
        .expect("a decoder");
        runtime.block_on(async {
            let mut pieces = Collector::new(root.into()).answer(body, files).await;
            while let Some(piece) = pieces.recv().await {
                decoder.write_all(&piece).expect("it decodes");
            }
        });
        decoder.flush().expect("it decodes");
        drop(decoder);
        found
    }

    #[test]
    fn what_is_there_is_said_and_given_as_it_was() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("etc/app");
        std::fs::create_dir_all(&path).expect("made");
        std::fs::write(path.join("a.conf"), "a = 1\n").expect("written");
        std::fs::write(path.join("b.tmp"), "no").expect("written");
        let mut items = ask(dir.path(), "/etc/app", Vec::new());
        assert_eq!(items.pop(), Some(Item::End));
        assert_eq!(items.pop(), Some(Item::Skipped(0)));
        let Some(Item::Manifest(bytes)) = items.pop() else { panic!("{items:?}") };
        let limits = content::Limits::default();
        let manifest = content::Manifest::decode(&bytes, &limits).expect("it is one");
        let paths: Vec<_> = manifest.entries.iter().map(|entry| entry.path.as_slice()).collect();
        assert_eq!(paths, [&b""[..], b"a.conf"]);

        let good = (6, Digest(ContentId::of(b"a = 1\n").0));
        let wrong = (6, Digest([7; 32]));
        let file = |path: &str, pieces| CollectFile {
            path: Bytes::copy_from_slice(path.as_bytes()),
            offset: 0,
            pieces,
        };
        let files = vec![
            file("a.conf", vec![good]),
            file("a.conf", vec![wrong]),
            file("../app/a.conf", vec![good]),
        ];
        let given = ask(dir.path(), "//etc/app", files);
        let piece = Item::Piece(Bytes::from_static(b"a = 1\n"));
        assert_eq!(given, [piece, Item::Lost, Item::Lost, Item::End]);
    }

    #[test]
    fn what_is_not_there_is_said_in_words() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let [Item::Failed(why), Item::End] = &ask(dir.path(), "/absent", Vec::new())[..] else {
            panic!("it is not there");
        };
        assert!(why.contains("/absent"), "{why}");
    }
}
