//! What a push runs at a host: before anything is touched, for files that it has changed, and when
//! all is in place.
//!
//! Commands run as those of runs do, one after the other, by the shell, and what they write is the
//! push's answer. That some are still to come is in the journal from before the first change until
//! the last has ended: a host that is killed in between runs them when the push begins again, for
//! all files, since nobody knows any more which ones had changed.

use std::time::Duration;

use bytes::Bytes;
use content::{Manifest, Patterns};
use mesh::{OrderId, State};
use protos::{Answer, Fault, OUTPUT_LIMIT, Push, Run, Terms, Variable};

use crate::exec::Executor;
use crate::install::Changed;
use crate::jobs::Job;
use crate::run::{self, Host};

/// How long one command may run.
const LONGEST: Duration = Duration::from_secs(3600);
/// How much of the list of files a command is given: less than the kernel lets a variable have.
const FILES: usize = 96 << 10;
/// For how many files at most a command is run.
const RUNS: usize = 10_000;

/// Which files have changed, for the commands that want to know.
#[derive(Debug, Default)]
pub(crate) struct Updated {
    /// Their paths at this host, with colons between, as far as there is room.
    files: Vec<u8>,
    /// How many.
    count: u64,
    /// By command of [`Terms::special`]: the paths of the files below the root.
    special: Vec<(usize, Vec<u8>)>,
    /// Files for which no command is run any more.
    beyond: u64,
}

impl Updated {
    /// Those of the manifest's entries at these places.
    pub(crate) fn of(
        push: &Push,
        target: &Manifest,
        places: impl Iterator<Item = usize>,
    ) -> Result<Updated, content::PatternError> {
        let mut updated = Updated::default();
        let patterns: Vec<_> = push.terms.special.iter().map(|s| s.pattern.clone()).collect();
        let patterns = Patterns::new(&patterns)?;
        for entry in places.map(|n| &target.entries[n]) {
            updated.count += 1;
            let path = at(&push.dest, &entry.path);
            if updated.files.len() + path.len() < FILES {
                let colon: &[u8] = if updated.files.is_empty() { b"" } else { b":" };
                updated.files.extend_from_slice(&[colon, &path].concat());
            }
            // A single file is known by its name at the host.
            let name = push.dest.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
            let below = if entry.path.is_empty() { name } else { &entry.path };
            for n in patterns.all(below, false) {
                if updated.special.len() >= RUNS {
                    updated.beyond += 1;
                } else {
                    updated.special.push((n, entry.path.clone()));
                }
            }
        }
        // One command after the other, as they were given.
        updated.special.sort();
        Ok(updated)
    }
}

/// The answers of all commands as one.
#[derive(Default)]
struct Said {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    sizes: (u64, u64),
    /// The first that failed: its state, and what is to be said of it.
    failed: Option<(State, Fault)>,
}

impl Said {
    fn add(&mut self, what: &str, command: &str, (state, answer): (State, Answer)) {
        let room = |kept: &[u8]| OUTPUT_LIMIT as usize - kept.len().min(OUTPUT_LIMIT as usize);
        let cut = |bytes: &Bytes, room: usize| bytes.slice(..bytes.len().min(room));
        let stdout = cut(&answer.stdout, room(&self.stdout));
        self.stdout.extend_from_slice(&stdout);
        let stderr = cut(&answer.stderr, room(&self.stderr));
        self.stderr.extend_from_slice(&stderr);
        self.sizes.0 = self.sizes.0.saturating_add(answer.stdout_size);
        self.sizes.1 = self.sizes.1.saturating_add(answer.stderr_size);
        if state == State::Ok || self.failed.is_some() {
            return;
        }
        let how = match state {
            State::Failed(code) => format!("exited with {code}"),
            State::Signalled(signal) => format!("was killed by signal {signal}"),
            State::TimedOut => "ran for an hour and was ended".into(),
            State::Cancelled => "was taken back".into(),
            _ => "could not be run".into(),
        };
        let own = answer.fault.map(|fault| format!(": {}", fault.detail)).unwrap_or_default();
        let detail = format!("`{command}` {how}{own}");
        let fault =
            Fault { stage: what.into(), kind: "command".into(), detail, path: Bytes::new() };
        self.failed = Some((state, fault));
    }

    fn onto(self, answer: Answer) -> Answer {
        Answer {
            stdout: self.stdout.into(),
            stderr: self.stderr.into(),
            stdout_size: self.sizes.0,
            stderr_size: self.sizes.1,
            fault: self.failed.map(|(_, fault)| fault).or(answer.fault),
            ..answer
        }
    }
}

impl Executor {
    /// Carries out a push with the commands that go with it.
    pub(crate) async fn push(&self, job: &Job, order: OrderId, push: Push) -> (State, Answer) {
        let terms = push.terms.clone();
        if terms.verify || !terms.has_commands() {
            return self.installs.install(order, push).await.0;
        }
        let mut said = Said::default();
        let dest = push.dest.clone();
        if !terms.before.is_empty() {
            let ended = self.shell(job, &terms.before, vec![variable("DEST", &dest)]).await;
            said.add("before", &terms.before, ended);
            if let Some((state, _)) = said.failed {
                return (state, said.onto(Answer::default()));
            }
        }
        let ((state, answer), changed) = self.installs.install(order, push).await;
        let Some(Changed { updated, any }) = changed.filter(|_| state == State::Ok) else {
            return (state, said.onto(answer));
        };
        let mut answer = answer;
        for (n, path) in &updated.special {
            let command = &terms.special[*n].command;
            let ended = self.shell(job, command, file(&terms, &dest, path)).await;
            said.add("special", command, ended);
        }
        if updated.beyond > 0
            && let Some(push) = &mut answer.push
        {
            let n = updated.beyond;
            push.warnings.push(format!("no command was run for {n} files more: they are too many"));
        }
        if any && !terms.after.is_empty() {
            let count = updated.count.to_string();
            let env = vec![
                variable("DEST", &dest),
                variable("FILES", &updated.files),
                variable("COUNT", count.as_bytes()),
            ];
            said.add("after", &terms.after, self.shell(job, &terms.after, env).await);
        }
        if let Err(error) = self.installs.owed().ended(vec![dest]).await {
            return crate::exec::failed("store", "journal", crate::chain(&error));
        }
        let state = said.failed.as_ref().map_or(State::Ok, |(state, _)| *state);
        (state, said.onto(answer))
    }

    async fn shell(&self, job: &Job, line: &str, env: Vec<Variable>) -> (State, Answer) {
        let run = Run {
            shell: true,
            env,
            output_limit: OUTPUT_LIMIT,
            ..Run::new([line.to_owned()], LONGEST)
        };
        let (name, giver, live, spool) = (&*self.name, &self.giver, &self.live, &self.spool);
        let host = Host { name, giver, live, spool };
        run::run(run, &host, job).await
    }
}

/// What a command is told of one file.
fn file(terms: &Terms, dest: &[u8], path: &[u8]) -> Vec<Variable> {
    let there = at(dest, path);
    let base = there.rsplit(|byte| *byte == b'/').next().unwrap_or_default().to_vec();
    vec![
        variable("FILE", &at(&terms.source, path)),
        variable("REMFILE", &there),
        variable("BASEFILE", &base),
        variable("DEST", dest),
    ]
}

fn at(root: &[u8], path: &[u8]) -> Vec<u8> {
    if path.is_empty() { root.to_vec() } else { [root, b"/", path].concat() }
}

fn variable(name: &str, value: &[u8]) -> Variable {
    let name = Bytes::copy_from_slice(name.as_bytes());
    Variable { name, value: Bytes::copy_from_slice(value) }
}
