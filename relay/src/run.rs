//! Running one command: a process group of its own, a closed environment, bounded output.
//!
//! It runs as its node does, or as the account that the order names, and is given what the order
//! says: input, files, variables. What it writes is captured, and told while it runs if somebody
//! watches. At the timeout, or when the order is taken back, the whole group gets TERM and then
//! KILL.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bytes::Bytes;
use mesh::{OrderId, State, Stream};
use protos::{Answer, Fault, Run};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::account::{self, Account};
use crate::capture::{Capture, Captured, Overflow};
use crate::exec::failed;
use crate::given::{Folder, GiveError, Giver};
use crate::inherited;
use crate::jobs::Job;
use crate::live::Teller;
use crate::remains;
use crate::spool::Spool;

/// How long a group may take to obey TERM.
const GRACE: Duration = Duration::from_secs(2);
/// Shell lines run in this shell.
const SHELL: &str = "/bin/sh";
/// The whole environment, unless the order adds to it.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Variables of the node itself that its commands have, too.
const INHERITED: [&str; 5] = ["HOME", "USER", "LOGNAME", "LANG", "TZ"];
/// What stands for the path of the order's file in a command's words.
const PLACE: &[u8] = b"{file}";

/// Why a command was ended before its time.
enum Cut {
    TimedOut,
    TakenBack,
}

/// What a host has for its commands.
pub(crate) struct Host<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    pub(crate) giver: &'a Giver,
    pub(crate) live: &'a Teller,
    pub(crate) spool: &'a Spool,
}

/// Runs a command to its end.
pub(crate) async fn run(mut run: Run, host: &Host<'_>, job: &Job) -> (State, Answer) {
    let ready = tokio::select! {
        biased;
        () = job.asked_to_stop() => return (State::Cancelled, Answer::default()),
        ready = make_ready(&mut run, host) => ready,
    };
    let (mut command, folder) = match ready {
        Ok(ready) => ready,
        Err(answer) => return answer,
    };
    // Last, so that what is left of it can be found whatever else is in its environment.
    command.env(remains::ORDER, job.order().to_string()).env(remains::NODE, host.name);
    let spawned = command.spawn();
    // The new process has its own copy of what it reads.
    drop(command);
    let ended = match spawned {
        Ok(child) => to_its_end(child, &run, host, job).await,
        Err(error) => not_started(&run, &error),
    };
    drop(folder);
    ended
}

/// The command with all that it is given, or the answer if that cannot be had.
async fn make_ready(
    run: &mut Run,
    host: &Host<'_>,
) -> Result<(Command, Option<Folder>), (State, Answer)> {
    let account = account(&run.user).await?;
    let not_given = |error: GiveError| failed("run", "content", error.to_string());
    let stdin = host.giver.stdin(&run.stdin).await.map_err(not_given)?;
    let folder = host.giver.files(&run.files, account.as_ref()).await.map_err(not_given)?;
    if let Some(folder) = &folder {
        let path = folder.first.as_os_str().as_encoded_bytes();
        run.argv.iter_mut().for_each(|word| *word = with_path(word, path));
    }
    let mut command = command(run, host.name, account.is_some());
    if let Some(folder) = &folder {
        command.env("BARID_DIR", folder.path()).env("BARID_FILE", &folder.first);
    }
    command.stdin(stdin);
    account::dress(&mut command, run, account);
    // What the order says comes last, and wins.
    let os = |bytes: &Bytes| OsString::from_vec(bytes.to_vec());
    command.envs(run.env.iter().map(|v| (os(&v.name), os(&v.value))));
    Ok((command, folder))
}

/// As whom to run, if not as this node does.
async fn account(user: &str) -> Result<Option<Account>, (State, Answer)> {
    if user.is_empty() {
        return Ok(None);
    }
    let user = user.to_owned();
    let found = tokio::task::spawn_blocking(move || Account::find(&user)).await;
    found.expect("looking up a user does not panic").map_err(|error| {
        let detail = error.to_string();
        let (stage, kind) = ("run".into(), "refused".into());
        refuse(Fault { stage, kind, detail, ..Fault::default() })
    })
}

/// A word with the path of the order's file in it.
fn with_path(word: &Bytes, path: &[u8]) -> Bytes {
    let mut rest = &word[..];
    let mut whole = Vec::new();
    while let Some(at) = rest.windows(PLACE.len()).position(|bytes| bytes == PLACE) {
        whole.extend_from_slice(&rest[..at]);
        whole.extend_from_slice(path);
        rest = &rest[at + PLACE.len()..];
    }
    if whole.is_empty() && rest.len() == word.len() {
        return word.clone();
    }
    whole.extend_from_slice(rest);
    whole.into()
}

async fn to_its_end(mut child: Child, run: &Run, host: &Host<'_>, job: &Job) -> (State, Answer) {
    let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    let guard = Group(group);
    let limit = usize::try_from(run.output_limit).unwrap_or(usize::MAX);
    let overflow = |stream| Overflow { spool: host.spool.clone(), order: job.order(), stream };
    let stdout = Capture::start(child.stdout.take(), limit, overflow(Stream::Stdout));
    let stderr = Capture::start(child.stderr.take(), limit, overflow(Stream::Stderr));
    let outputs = [(Stream::Stdout, stdout.output()), (Stream::Stderr, stderr.output())];
    let waited = tokio::select! {
        never = host.live.tell(job.order(), outputs) => match never {},
        waited = timeout(run.timeout, child.wait()) => waited.map_err(|_| Cut::TimedOut),
        () = job.asked_to_stop() => Err(Cut::TakenBack),
    };
    let (status, cut) = match waited {
        Ok(status) => (status, None),
        Err(cut) => {
            let status = end(&mut child, group).await;
            end_remains(host.name, job.order()).await;
            (status, Some(cut))
        }
    };
    let answer = answer(stdout.finish().await, stderr.finish().await);
    guard.disarm();
    match (status, cut) {
        (_, Some(Cut::TimedOut)) => (State::TimedOut, answer),
        (_, Some(Cut::TakenBack)) => (State::Cancelled, answer),
        (Ok(status), None) => (state(status), answer),
        (Err(error), None) => {
            let fault = Fault {
                stage: "run".into(),
                kind: "wait".into(),
                detail: error.to_string(),
                ..Fault::default()
            };
            (State::Failed(1), Answer { fault: Some(fault), ..answer })
        }
    }
}

fn answer(stdout: Captured, stderr: Captured) -> Answer {
    Answer {
        stdout: stdout.bytes,
        stderr: stderr.bytes,
        stdout_size: stdout.size,
        stderr_size: stderr.size,
        stdout_kept: stdout.kept,
        stderr_kept: stderr.kept,
        ..Answer::default()
    }
}

fn command(run: &Run, node: &str, is_other: bool) -> Command {
    let os = |bytes: &Bytes| OsString::from_vec(bytes.to_vec());
    let mut command = if run.shell {
        let mut command = Command::new(SHELL);
        command.arg("-c").args(run.argv.iter().map(os));
        command
    } else {
        let mut command = Command::new(program(os(&run.argv[0])));
        command.args(run.argv[1..].iter().map(os));
        command
    };
    // The account that a command runs as brings its own.
    let inherited = if is_other { &INHERITED[3..] } else { &INHERITED[..] };
    command.env_clear().env("PATH", PATH).env(remains::NODE, node);
    command.envs(inherited.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    if !is_other {
        command.current_dir(if run.dir.is_empty() { "/".into() } else { os(&run.dir) });
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    // A session of its own is a group of its own as well, and has no terminal. It costs a copy of
    // this process, so a command has one only where it could find a terminal that is not its own.
    if is_other || inherited::has_terminal() {
        account::apart(&mut command);
    } else {
        command.process_group(0);
    }
    command
}

/// The file of a program that is named without a folder, found along our own `PATH`. With a whole
/// path the system can start it without copying this process first.
fn program(name: OsString) -> OsString {
    if name.as_encoded_bytes().contains(&b'/') {
        return name;
    }
    let is_file = |path: &PathBuf| path.is_file();
    let found = PATH.split(':').map(|dir| Path::new(dir).join(&name)).find(is_file);
    found.map_or(name, PathBuf::into_os_string)
}

/// Ends a group that has run too long: TERM, and KILL for what does not obey.
async fn end(child: &mut Child, group: Option<Pid>) -> io::Result<ExitStatus> {
    if let Some(group) = group {
        kill_process_group(group, Signal::TERM).ok();
        if let Ok(status) = timeout(GRACE, child.wait()).await {
            kill_process_group(group, Signal::KILL).ok();
            return status;
        }
        kill_process_group(group, Signal::KILL).ok();
    }
    child.wait().await
}

/// Ends what has left the group of a command that was ended, such as a daemon that it began.
async fn end_remains(node: &str, order: OrderId) {
    let node = node.to_owned();
    let ended = tokio::task::spawn_blocking(move || remains::end(&node, &BTreeSet::from([order])));
    ended.await.expect("looking for processes does not panic");
}

/// Kills the group should the order be dropped half way, as when the node stops.
struct Group(Option<Pid>);

impl Group {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            kill_process_group(group, Signal::KILL).ok();
        }
    }
}

fn state(status: ExitStatus) -> State {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(0), _) => State::Ok,
        (Some(code), _) => State::Failed(code),
        (None, Some(signal)) => State::Signalled(signal),
        (None, None) => State::Failed(1),
    }
}

/// A command that could not be started fails as a shell would have it: 127, or 126.
fn not_started(run: &Run, error: &io::Error) -> (State, Answer) {
    let what = if run.shell { SHELL.into() } else { String::from_utf8_lossy(&run.argv[0]) };
    let (code, kind) = match error.kind() {
        io::ErrorKind::NotFound => (127, "not found"),
        io::ErrorKind::PermissionDenied => (126, "not executable"),
        _ => (126, "not started"),
    };
    let detail = match run.dir.is_empty() {
        true => format!("{what}: {error}"),
        false => format!("{what} in {}: {error}", String::from_utf8_lossy(&run.dir)),
    };
    let fault = Fault { stage: "run".into(), kind: kind.into(), detail, ..Fault::default() };
    (State::Failed(code), Answer { fault: Some(fault), ..Answer::default() })
}

fn refuse(fault: Fault) -> (State, Answer) {
    (State::Refused, Answer { fault: Some(fault), ..Answer::default() })
}
