//! Asking a program of the controller's owner about groups.
//!
//! The program and its arguments are those of `groups.toml`, in which `$GROUP`, `$NODE` and
//! `$SOURCE` stand for a name. No shell reads them: a name is a part of an argument and nothing
//! else. A program has a closed environment, a process group of its own, little time, and may say
//! only so much.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::runtime::Handle;

/// The most that a program may say, in bytes.
const OUTPUT_LIMIT: u64 = 8 << 20;
/// How much of the end of what it complains about is kept, in bytes.
const COMPLAINT: usize = 4 << 10;
/// How many lines of that are said, and how many characters.
const SAID_LINES: usize = 3;
const SAID: usize = 300;
/// Where programs are looked for.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program that has not answered. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpcallError {
    /// It does not start, or cannot be listened to.
    #[error("{program} cannot be run: {source}")]
    Start {
        /// The program.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// It took too long, and was killed.
    #[error("{program} was killed: it took longer than {} s", limit.as_secs())]
    Slow {
        /// The program.
        program: String,
        /// Its limit.
        limit: Duration,
    },
    /// It said too much, and was killed.
    #[error("{program} was killed: it said more than {} MiB", OUTPUT_LIMIT >> 20)]
    Long {
        /// The program.
        program: String,
    },
    /// It says that it has failed.
    #[error("{program}: {status}{}{said}", if said.is_empty() { "" } else { ": " })]
    Failed {
        /// The program.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The last lines of its complaint.
        said: String,
    },
    /// What it says is not text.
    #[error("{program} says something that is not UTF-8")]
    NotText {
        /// The program.
        program: String,
    },
}

/// Runs a program, its arguments with names put in, and returns what it says. Blocks, and needs a
/// runtime: call it where blocking is allowed.
pub(crate) fn ask(
    argv: &[String],
    names: &[(&str, &str)],
    limit: Duration,
) -> Result<String, UpcallError> {
    let (program, words) = argv.split_first().expect("whoever reads the file refuses an empty one");
    let put_in = |word: &String| {
        let put = |text: String, (variable, name): &(&str, &str)| text.replace(variable, name);
        names.iter().fold(word.clone(), put)
    };
    let mut command = Command::new(program);
    command.args(words.iter().map(put_in)).env_clear().env("PATH", PATH).env("LANG", "C.UTF-8");
    let said = Handle::current().block_on(listen_to(command, program, limit))?;
    String::from_utf8(said).map_err(|_| UpcallError::NotText { program: program.clone() })
}

/// Runs a command that is made but for its streams, and returns what it says. `program`: what it is
/// called in errors.
pub(crate) async fn listen_to(
    mut command: Command,
    program: &str,
    limit: Duration,
) -> Result<Vec<u8>, UpcallError> {
    command
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let program = || program.to_owned();
    let started = command.spawn();
    let mut child = started.map_err(|source| UpcallError::Start { program: program(), source })?;
    let group = Group(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw));
    let ended = tokio::time::timeout(limit, listen(&mut child)).await;
    drop(group);
    let (status, stdout, stderr) = match ended {
        Err(_) => return Err(UpcallError::Slow { program: program(), limit }),
        Ok(Err(source)) => return Err(UpcallError::Start { program: program(), source }),
        Ok(Ok(ended)) => ended,
    };
    if stdout.len() as u64 > OUTPUT_LIMIT {
        return Err(UpcallError::Long { program: program() });
    }
    if !status.success() {
        return Err(UpcallError::Failed { program: program(), status, said: end_of(&stderr) });
    }
    Ok(stdout)
}

/// The processes of a command. Also after a good end, or when nobody waits any more: what it has
/// left behind has no business here.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            kill_process_group(group, Signal::KILL).ok();
        }
    }
}

/// Listens until both streams end, or one is longer than it may be, and waits for the end.
async fn listen(child: &mut Child) -> std::io::Result<(ExitStatus, Vec<u8>, Vec<u8>)> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (stdout, stderr) = tokio::join!(read(stdout, OUTPUT_LIMIT), read_end(stderr));
    let (stdout, stderr) = (stdout?, stderr?);
    if stdout.len() as u64 > OUTPUT_LIMIT {
        child.start_kill()?;
    }
    Ok((child.wait().await?, stdout, stderr))
}

/// All that a stream has, and a byte more than the limit if there is more. What follows is read by
/// nobody, so that whoever writes it is told by a broken pipe.
async fn read(stream: Option<impl AsyncRead + Unpin>, limit: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        stream.take(limit + 1).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

/// The end of a stream that is read to its end, so that nobody who complains at length has to wait
/// or dies of it.
async fn read_end(stream: Option<impl AsyncRead + Unpin>) -> std::io::Result<Vec<u8>> {
    let mut end = Vec::new();
    let Some(mut stream) = stream else { return Ok(end) };
    loop {
        end.reserve(COMPLAINT);
        if stream.read_buf(&mut end).await? == 0 {
            end.drain(..end.len().saturating_sub(COMPLAINT));
            return Ok(end);
        }
        if end.len() > 2 * COMPLAINT {
            end.drain(..end.len() - COMPLAINT);
        }
    }
}

/// The last lines of a complaint, as one.
fn end_of(complaint: &[u8]) -> String {
    let text = String::from_utf8_lossy(complaint);
    let lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty());
    let mut lines: Vec<_> = lines.rev().take(SAID_LINES).collect();
    lines.reverse();
    let said = lines.join("; ");
    let cut = said.chars().count().saturating_sub(SAID);
    said.chars().skip(cut).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn call(
        argv: &[&str],
        names: &'static [(&str, &str)],
        ms: u64,
    ) -> Result<String, String> {
        let argv: Vec<String> = argv.iter().map(|word| (*word).to_owned()).collect();
        let asked = move || ask(&argv, names, Duration::from_millis(ms));
        let answer = tokio::task::spawn_blocking(asked).await.expect("it does not panic");
        answer.map_err(|error| error.to_string())
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn names_are_arguments_and_nothing_else() {
        let names: &[(&str, &str)] = &[("$GROUP", "a;b $(id)"), ("$SOURCE", "src")];
        let said = call(&["printf", "%s|", "$GROUP", "--of=$SOURCE", "$HOME"], names, 60_000).await;
        assert_eq!(said.as_deref(), Ok("a;b $(id)|--of=src|$HOME|"));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_long_complaint_is_no_fault_and_its_end_is_kept() {
        let long = "head -c 3000000 /dev/zero | tr '\\0' x >&2; echo >&2; echo last >&2";
        let said = call(&["sh", "-c", &format!("{long} && echo good")], &[], 60_000).await;
        assert_eq!(said.as_deref(), Ok("good\n"));
        let said = call(&["sh", "-c", &format!("{long}; exit 4")], &[], 60_000).await;
        let said = said.expect_err("it has failed");
        assert!(said.ends_with("x; last") && said.len() < 2 * SAID, "{said}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn faults_are_told() {
        let check = async |argv: &[&str], ms, says: &str| {
            let error = call(argv, &[], ms).await.expect_err(says);
            assert!(error.contains(says), "{error}");
        };
        check(&["/no/such/program"], 60_000, "/no/such/program cannot be run").await;
        check(&["sh", "-c", "echo no >&2; exit 3"], 60_000, "exit status: 3: no").await;
        let lines = "seq 4 >&2; echo >&2; exit 3";
        check(&["sh", "-c", lines], 60_000, "exit status: 3: 2; 3; 4").await;
        check(&["tail", "-f", "/dev/null"], 50, "was killed: it took longer").await;
        check(&["cat", "/dev/zero"], 60_000, "said more than 8 MiB").await;
        check(&["printf", "\\377"], 60_000, "not UTF-8").await;
        // A child that keeps the pipe open does not keep us.
        check(&["sh", "-c", "tail -f /dev/null & echo a"], 50, "took longer").await;
    }
}
