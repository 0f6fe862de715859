//! Carrying out a distribution at this host: file by file, each with its command.
//!
//! A file that cannot be put in place keeps no other from it, and what there is to say of single
//! files is said by their places in the order. A command runs if something of its file was
//! written. Before anything is written the commands that may have to run are noted, so that a node
//! that is killed between a file and its command runs it when it carries the order out again: for
//! that one time a command may run although its file was right, rather than not at all.

use std::time::Duration;

use bytes::Bytes;
use mesh::{OrderId, State};
use protos::{Answer, Dist, DistItem, Disted, Fault, ItemFault, Pushed, Run};
use tokio::runtime::Handle;
use tracing::{info, warn};

use crate::copies::Placed;
use crate::exec::failed;
use crate::install::Installs;
use crate::jobs::Job;
use crate::run::{self, Host};

/// How long a command may run.
const COMMAND_TIME: Duration = Duration::from_secs(600);
/// How much of each of its outputs is kept.
const COMMAND_OUTPUT: u32 = 4 << 10;

/// Carries out a distribution.
pub(crate) async fn distribute(
    installs: &Installs,
    order: OrderId,
    dist: Dist,
    host: &Host<'_>,
    job: &Job,
) -> (State, Answer) {
    let owed = installs.owed();
    let with_commands = dist.items.iter().filter(|item| !item.command.is_empty());
    let places: Vec<_> =
        with_commands.map(|item| (item.push.dest.clone(), item.push.manifest)).collect();
    let noting = owed.clone();
    let noted = tokio::task::spawn_blocking(move || noting.begin(order, &places));
    let due = match noted.await {
        Ok(Ok(due)) => due,
        Ok(Err(error)) => return failed("store", "dist", crate::chain(&error)),
        Err(error) => return failed("store", "dist", error.to_string()),
    };
    let (mut done, mut settled, mut kept) = (Done::default(), Vec::new(), Vec::new());
    for (n, item) in (0_u32..).zip(dist.items) {
        let DistItem { push, command, frequency } = item;
        let frequency = if frequency.is_empty() { dist.frequency.clone() } else { frequency };
        let manifest = push.manifest;
        let (worker, handle) = (installs.clone(), Handle::current());
        let dest = push.dest.clone();
        let work = move || worker.install_blocking(order, &push, &handle);
        // Who has failed in the middle still owes the command when the next order finds it right.
        let (placed, halfway) = match tokio::task::spawn_blocking(work).await {
            Ok(Ok(placed)) => {
                (Ok(placed.map(|(answer, _)| answer.push.unwrap_or_default())), false)
            }
            Ok(Err(error)) => (Err(crate::chain(&error)), error.may_have_changed()),
            Err(error) => (Err(error.to_string()), true),
        };
        let in_place = matches!(placed, Ok(Some(_)));
        let is_new = done.note(n, placed);
        if in_place {
            let (dest, command) = (dest.clone(), command.clone());
            kept.push(Placed { dest, manifest, command, frequency });
        }
        if command.is_empty() {
            continue;
        }
        let is_due = due.contains(&dest);
        if in_place && (is_due || is_new) {
            let ended = run_command(command, &dest, host, job).await;
            done.note_command(n, ended);
            if let Err(error) = owed.ended(vec![dest]).await {
                warn!(error = %crate::chain(&error), "a command may run once more");
            }
        } else if !is_due && !halfway {
            settled.push(dest);
        }
    }
    if let Err(error) = owed.ended(settled).await {
        warn!(error = %crate::chain(&error), "commands may run once more");
    }
    let keeper = installs.clone();
    let keep = move || keeper.keep_copies(order, &kept);
    if let Ok(Err(error)) = tokio::task::spawn_blocking(keep).await {
        warn!(error = %crate::chain(&error), "what is in place cannot all be put right later");
    }
    info!(written = done.pushed.written, failed = done.said.failed.len(), "distributed");
    done.answer()
}

/// What has become of the files so far.
#[derive(Default)]
pub(crate) struct Done {
    pushed: Pushed,
    said: Disted,
}

impl Done {
    /// Notes what has become of a file. Returns whether anything of it was written.
    pub(crate) fn note(&mut self, item: u32, placed: Result<Option<Pushed>, String>) -> bool {
        match placed {
            Ok(Some(pushed)) => {
                self.pushed.written += pushed.written;
                self.pushed.unchanged += pushed.unchanged;
                self.pushed.bytes += pushed.bytes;
                self.pushed.fixed += pushed.fixed;
                self.pushed.deleted += pushed.deleted;
                for warning in pushed.warnings {
                    if !self.pushed.warnings.contains(&warning) {
                        self.pushed.warnings.push(warning);
                    }
                }
                pushed.written + pushed.fixed + pushed.deleted > 0
            }
            Ok(None) => {
                self.said.superseded.push(item);
                false
            }
            Err(detail) => {
                self.said.failed.push(ItemFault { item, detail });
                false
            }
        }
    }

    /// Notes that so many entries of a file or folder are not as they should be, and how.
    pub(crate) fn note_drift(&mut self, item: u32, entries: u64, how: impl FnOnce() -> String) {
        if entries > 0 {
            self.pushed.drift += entries;
            self.said.drifted.push(ItemFault { item, detail: how() });
        }
    }

    fn note_command(&mut self, item: u32, (state, answer): (State, Answer)) {
        if state == State::Ok {
            return;
        }
        let how = match state {
            State::Failed(code) => format!("exit code {code}"),
            State::Signalled(signal) => format!("signal {signal}"),
            other => format!("{other:?}").to_lowercase(),
        };
        let said = [&answer.stderr, &answer.stdout].map(|text| String::from_utf8_lossy(text));
        let fault = answer.fault.map_or_else(String::new, |fault| fault.detail);
        let texts = [fault.as_str(), &said[0], &said[1]];
        let words = texts.iter().flat_map(|text| text.split_whitespace());
        // One line, whatever the command has written.
        let said = words.collect::<Vec<_>>().join(" ");
        let detail = if said.is_empty() { how } else { format!("{how}: {said}") };
        self.said.commands.push(ItemFault { item, detail });
    }

    pub(crate) fn answer(self) -> (State, Answer) {
        let Done { pushed, said } = self;
        let (missing, commands) = (said.failed.len(), said.commands.len());
        let fault = match (said.failed.first(), said.commands.first()) {
            (None, None) => None,
            (Some(first), _) => Some(("install", missing, "not in place", first)),
            (None, Some(first)) => Some(("command", commands, "with a failed command", first)),
        };
        let fault = fault.map(|(stage, count, what, first)| Fault {
            stage: stage.into(),
            kind: "dist".into(),
            detail: match count {
                1 => first.detail.clone(),
                count => format!("{count} files {what}; the first: {}", first.detail),
            },
            path: Bytes::new(),
        });
        let state = if fault.is_some() { State::Failed(1) } else { State::Ok };
        let dist = (said != Disted::default()).then_some(said);
        (state, Answer { fault, push: Some(pushed), dist, ..Answer::default() })
    }
}

/// Runs the command of a file, which has the file's path in `FILE`.
pub(crate) async fn run_command(
    line: Bytes,
    dest: &Bytes,
    host: &Host<'_>,
    job: &Job,
) -> (State, Answer) {
    let file = protos::Variable { name: "FILE".into(), value: dest.clone() };
    let run = Run {
        shell: true,
        env: vec![file],
        output_limit: COMMAND_OUTPUT,
        ..Run::new([line], COMMAND_TIME)
    };
    run::run(run, host, job).await
}
