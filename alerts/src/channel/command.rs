//! A program as a channel: the message as JSON on standard input, a closed environment, a limit of
//! time. It has a process group of its own, which ends with the limit, children and all.

use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Channel, SendError, plain};
use crate::message::Message;

/// How much of what it says is kept.
const SAID: u64 = 4 << 10;

/// The program.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    argv: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CommandEntry {
    argv: Vec<String>,
}

impl CommandEntry {
    pub(crate) fn channel(self) -> Result<Channel, String> {
        match self.argv.first() {
            Some(program) if program.starts_with('/') => {
                Ok(Channel::Command(Command { argv: self.argv }))
            }
            Some(program) => Err(format!("command.argv: {program:?} is not an absolute path")),
            None => Err("command.argv: it names no program".into()),
        }
    }
}

/// Ends a process group when it goes, unless the program has ended by itself.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            kill_process_group(pid, Signal::KILL).ok();
        }
    }
}

impl Command {
    pub(crate) async fn send(&self, message: &Message) -> Result<(), SendError> {
        let program = &self.argv[0];
        let input = serde_json::to_vec(message).expect("a message is plain data");
        let mut child = tokio::process::Command::new(program)
            .args(&self.argv[1..])
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("BARID_ALERT_STATUS", &message.status)
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| SendError::io(program, &error))?;
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let mut group = Group(pid);
        let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
        let give = async {
            if let Some(mut stdin) = stdin {
                // Who does not want to read need not.
                stdin.write_all(&input).await.ok();
            }
        };
        let hear = async {
            let mut said = Vec::new();
            if let Some(stderr) = stderr {
                stderr.take(SAID).read_to_end(&mut said).await.ok();
            }
            said
        };
        // Whatever it has left running may hold its streams open: its own end is what counts.
        let streams = async { tokio::join!(give, hear).1 };
        tokio::pin!(streams);
        let mut said = Vec::new();
        let mut heard = false;
        let status = loop {
            tokio::select! {
                status = child.wait() => break status,
                text = &mut streams, if !heard => (said, heard) = (text, true),
            }
        };
        let status = status.map_err(|error| SendError::io(program, &error))?;
        if status.success() {
            group.0 = None;
            return Ok(());
        }
        let said = plain(String::from_utf8_lossy(&said).trim());
        Err(SendError::Later(format!("{program}: {status}: {said}")))
    }
}
