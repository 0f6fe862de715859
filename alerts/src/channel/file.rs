//! A file as a channel: a line of JSON for each message. It is opened anew each time, so that it
//! may be moved away at any moment.

use std::io::Write;
use std::path::PathBuf;

use serde::Deserialize;

use super::{Channel, SendError};
use crate::message::Message;

/// The file.
#[derive(Clone, Debug)]
pub(crate) struct File {
    path: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileEntry {
    path: PathBuf,
}

impl FileEntry {
    pub(crate) fn channel(self) -> Result<Channel, String> {
        match self.path.is_absolute() {
            true => Ok(Channel::File(File { path: self.path })),
            false => Err(format!("file.path: {} is not absolute", self.path.display())),
        }
    }
}

impl File {
    pub(crate) async fn send(&self, message: &Message) -> Result<(), SendError> {
        let mut line = serde_json::to_vec(message).expect("a message is plain data");
        line.push(b'\n');
        let path = self.path.clone();
        let write = move || {
            let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
            file.write_all(&line)?;
            file.sync_data()
        };
        let written = tokio::task::spawn_blocking(write).await;
        let written = written.expect("writing a line does not panic");
        written.map_err(|error| SendError::io(self.path.display(), &error))
    }
}
