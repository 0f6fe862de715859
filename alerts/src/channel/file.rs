//! A file as a channel: a line of JSON for each message. It is opened anew each time, so that it
//! may be moved away at any moment.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::OFlags;
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::{Channel, SendError};
use crate::message::Message;

/// How long one write waits for another to the same file.
const PATIENCE: Duration = Duration::from_secs(2);

/// Who may write to which file: one at a time, so that a file system which hangs costs one thread.
/// New settings find what hangs since the old ones.
static TURNS: Mutex<BTreeMap<PathBuf, Arc<Semaphore>>> = Mutex::new(BTreeMap::new());

/// The file.
#[derive(Clone, Debug)]
pub(crate) struct File {
    path: PathBuf,
    turn: Arc<Semaphore>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileEntry {
    path: PathBuf,
}

impl FileEntry {
    pub(crate) fn channel(self) -> Result<Channel, String> {
        match self.path.is_absolute() {
            true => Ok(Channel::File(File { turn: turn(&self.path), path: self.path })),
            false => Err(format!("file.path: {} is not absolute", self.path.display())),
        }
    }
}

fn turn(path: &Path) -> Arc<Semaphore> {
    let mut turns = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
    // Of those that neither a channel nor a write holds none is left behind.
    turns.retain(|_, turn| Arc::strong_count(turn) > 1);
    turns.entry(path.into()).or_insert_with(|| Arc::new(Semaphore::new(1))).clone()
}

impl File {
    pub(crate) async fn send(&self, message: &Message) -> Result<(), SendError> {
        let mut line = serde_json::to_vec(message).expect("a message is plain data");
        line.push(b'\n');
        self.write(line).await
    }

    /// Appends whole lines.
    pub(crate) async fn write(&self, lines: Vec<u8>) -> Result<(), SendError> {
        let turn = timeout(PATIENCE, self.turn.clone().acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            let path = self.path.display();
            return Err(SendError::Later(format!("{path}: the last write still hangs")));
        };
        let path = self.path.clone();
        let write = move || {
            let _turn = turn;
            let mut options = std::fs::OpenOptions::new();
            // A pipe that nobody reads is an error, and nothing to wait for.
            options.create(true).append(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
            let mut file = options.open(path)?;
            file.write_all(&lines)?;
            // What is no file, such as a pipe, cannot be synced.
            if file.metadata()?.is_file() { file.sync_data() } else { Ok(()) }
        };
        let written = tokio::task::spawn_blocking(write).await;
        let written = written.expect("writing a line does not panic");
        written.map_err(|error| SendError::io(self.path.display(), &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Sender;

    fn channel(path: &Path) -> Channel {
        FileEntry { path: path.into() }.channel().expect("it is valid")
    }

    #[tokio::test]
    async fn nothing_that_hangs_is_waited_for() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let message = Message::plain(&Sender::default(), "test", "this is a test", 7);
        let path = dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.expect("mkfifo runs").success());
        channel(&path).send(&message).await.expect_err("nobody reads");
        let path = dir.path().join("file");
        let held = turn(&path).acquire_owned().await.expect("it is free");
        // Also with new settings.
        let error = channel(&path).send(&message).await.expect_err("one write hangs");
        assert!(error.to_string().ends_with("the last write still hangs"), "{error}");
        drop(held);
        channel(&path).send(&message).await.expect("it is taken");
        let text = std::fs::read_to_string(&path).expect("it was written");
        assert_eq!(text.lines().count(), 1);
    }
}
