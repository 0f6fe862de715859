//! What a process or a node says, line by line, each within [`LIMIT`]: a test that waits for a line
//! which never comes fails, and says so.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc;

use anyhow::{Context, Result};

use crate::LIMIT;

/// Lines as they come, read by a thread of their own.
pub struct Lines(mpsc::Receiver<std::io::Result<String>>);

impl Lines {
    /// The lines of this. Of what nobody takes only one is read ahead.
    pub fn of(from: impl Read + Send + 'static) -> Lines {
        let (told, heard) = mpsc::sync_channel(1);
        std::thread::spawn(move || {
            BufReader::new(from).lines().try_for_each(|line| told.send(line)).ok()
        });
        Lines(heard)
    }

    /// The next one.
    pub fn next_line(&self) -> Result<String> {
        let next = self.0.recv_timeout(LIMIT);
        Ok(next.with_context(|| format!("a line within {} s", LIMIT.as_secs()))??)
    }
}

/// A connection to a socket behind which somebody answers within [`LIMIT`].
pub fn connect(socket: impl AsRef<Path>) -> Result<UnixStream> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_one_by_one_and_their_end_is_an_error() -> Result<()> {
        let lines = Lines::of(&b"one\ntwo"[..]);
        assert_eq!((lines.next_line()?, lines.next_line()?), ("one".into(), "two".into()));
        assert!(lines.next_line().is_err());
        Ok(())
    }
}
