//! A program as a channel: the message as JSON on standard input, a closed environment, a limit of
//! time. It has a process group of its own, which ends with the limit, children and all.

use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::{Channel, SendError, plain};
use crate::message::Message;

/// How much of what it says is kept.
const SAID: usize = 4 << 10;
/// How long its last words are waited for when it has failed.
const LAST: Duration = Duration::from_millis(200);

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
    pub(super) fn line(&self) -> String {
        self.argv.join(" ")
    }

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
        let said = Mutex::new(Vec::new());
        let hear = async {
            let Some(mut stderr) = stderr else { return };
            let mut buffer = [0; 1024];
            // It is read to its end: a closed pipe would kill who says more than is kept.
            while let Ok(len @ 1..) = stderr.read(&mut buffer).await {
                let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
                let room = SAID.saturating_sub(said.len());
                said.extend_from_slice(&buffer[..len.min(room)]);
            }
        };
        // Whatever it has left running may hold its streams open: its own end is what counts.
        let streams = async {
            tokio::join!(give, hear);
        };
        tokio::pin!(streams);
        let mut heard = false;
        let status = loop {
            tokio::select! {
                status = child.wait() => break status,
                () = &mut streams, if !heard => heard = true,
            }
        };
        let status = status.map_err(|error| SendError::io(program, &error))?;
        if status.success() {
            group.0 = None;
            return Ok(());
        }
        if !heard {
            timeout(LAST, &mut streams).await.ok();
        }
        let said = said.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let said = plain(String::from_utf8_lossy(&said).trim());
        Err(SendError::Later(format!("{program}: {status}: {said}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Sender;

    fn shell(line: &str) -> Command {
        Command { argv: ["/bin/sh", "-c", line].map(String::from).to_vec() }
    }

    fn message() -> Message {
        Message::plain(&Sender::default(), "test", "this is a test", 7)
    }

    #[tokio::test]
    async fn it_gets_the_message_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("out");
        let line = format!("env > {0}.env; cat > {0}; exec sleep 1000 >&2 &", path.display());
        let (command, message) = (shell(&line), message());
        let sent = tokio::time::timeout(Duration::from_secs(60), command.send(&message));
        // What it leaves running in the background is not waited for.
        sent.await.expect("it ends").expect("it is taken");
        let text = std::fs::read_to_string(&path).expect("it was written");
        assert_eq!(serde_json::from_str::<Message>(&text).expect("a message"), message);
        let env = std::fs::read_to_string(path.with_extension("env")).expect("it was written");
        let names = env.lines().filter_map(|line| Some(line.split_once('=')?.0));
        let names: Vec<_> =
            names.filter(|name| !["PWD", "SHLVL", "_", "OLDPWD"].contains(name)).collect();
        assert_eq!(names.len(), 2, "{env}");
    }

    #[tokio::test]
    async fn who_says_much_is_heard_out() {
        let much = "head -c 1000000 /dev/zero | tr '\\0' x >&2";
        shell(&format!("set -e; {much}; exit 0")).send(&message()).await.expect("it is taken");
        let error = shell(&format!("{much}; exit 3")).send(&message()).await.expect_err("exit 3");
        let text = error.to_string();
        assert!(text.contains("exit status: 3: xxx") && text.len() < SAID + 100, "{text}");
    }

    #[tokio::test]
    async fn what_it_says_is_told_and_it_ends_with_its_children() {
        let error =
            shell("echo 'no\u{7}pe' >&2; exit 3").send(&message()).await.expect_err("exit 3");
        assert!(error.to_string().contains("exit status: 3: no pe"), "{error}");
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("pid");
        let line = format!("sleep 1000 & echo $! > {0}.new; mv {0}.new {0}; wait", path.display());
        let command = shell(&line);
        let (pid, message) = (
            async {
                while !path.exists() {
                    tokio::task::yield_now().await;
                }
                std::fs::read_to_string(&path).expect("it was written")
            },
            message(),
        );
        let sent = command.send(&message);
        let pid = tokio::select! {
            pid = pid => pid,
            _ = sent => panic!("it ends too soon"),
        };
        let dead = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
            stat.map_or(true, |stat| stat.contains(") Z "))
        };
        tokio::time::timeout(Duration::from_secs(60), async {
            while !dead() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the child is gone as well");
    }
}
