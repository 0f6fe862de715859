//! What this host has put right by the schedule of its site: each time that was due once, whoever
//! says it, however often.
//!
//! What was done is kept with what came of it. So a relay that was killed, and asks again, is told
//! the same; and a host that has another relay since does nothing twice.

use std::path::{Path, PathBuf};

use mesh::{Class, Kind, Severity};
use relay::Running;
use timing::Planted;
use tokio::sync::Mutex;
use tracing::warn;

use crate::notes;
use crate::restore::{RestoreDone, put_right};
use crate::site::now_ms;

/// The file in the state folder.
const FILE: &str = "restored.json";
/// Why nothing was done by a host that could not begin in time.
const LATE: &str = "it could not begin before its window closed, or before it expired";
/// So many files are named in an event.
const NAMED: usize = 8;

const DONE: Kind =
    Kind { subject: "schedule.site", severity: Severity::Info, class: Class::Client };
const FAILED: Kind =
    Kind { subject: "schedule.failed", severity: Severity::Error, class: Class::Client };

/// What was done last, by frequency.
pub(crate) struct Once {
    path: PathBuf,
    last: Mutex<timing::Once<RestoreDone>>,
}

impl Once {
    /// What was kept. What is not readable counts as nothing: then something may be looked at once
    /// more.
    pub(crate) fn open(state: &Path) -> Once {
        let path = state.join(FILE);
        let last = notes::read(&path);
        Once { path, last: Mutex::new(last) }
    }

    /// Puts right what is distributed so often, unless that was done for this time, or its window
    /// has closed before it can begin here.
    pub(crate) async fn put_right(
        &self,
        node: &Running,
        frequency: &str,
        (due_ms, by_ms): (u64, u64),
    ) -> RestoreDone {
        let mut last = self.last.lock().await;
        if let Some(known) = last.known(frequency, due_ms, Planted::default()) {
            return known;
        }
        if !timing::may_begin(by_ms, now_ms(), Planted::default()) {
            warn!(frequency, "{LATE}");
            let failed = vec![(String::new(), LATE.to_owned())];
            return RestoreDone { failed, ..RestoreDone::default() };
        }
        let done = put_right(node, frequency).await;
        for (kind, text) in told(frequency, &done) {
            node.notice(kind, &text).await;
        }
        last.note(frequency, due_ms, done.clone());
        // If it cannot be, this may be looked at once more after a restart.
        notes::write(&self.path, &*last);
        done
    }
}

/// What there is to tell of it.
fn told(frequency: &str, done: &RestoreDone) -> Vec<(Kind, String)> {
    let mut told = Vec::new();
    if !done.failed.is_empty() {
        let texts = done.failed.iter().map(|(dest, why)| format!("{dest}: {why}"));
        let texts = notes::list(&texts.collect::<Vec<_>>(), NAMED, 0);
        let text = format!("{frequency}, without the controller: {texts}");
        told.push((FAILED, text));
    }
    if !done.restored.is_empty() {
        let texts = notes::list(&done.restored, NAMED, done.more);
        let text = format!("{frequency}, without the controller: put right: {texts}");
        told.push((DONE, text));
    }
    if told.is_empty() && done.files > 0 {
        told.push((DONE, format!("{frequency}, without the controller: all is right")));
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(restored: &[&str], failed: &[(&str, &str)]) -> RestoreDone {
        RestoreDone {
            files: 3,
            restored: restored.iter().map(|dest| (*dest).to_owned()).collect(),
            failed: failed.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect(),
            more: 0,
        }
    }

    #[test]
    fn what_is_told_names_files_and_reasons() {
        let text = |done: &RestoreDone| -> Vec<String> {
            let told = told("day", done).into_iter();
            told.map(|(kind, text)| format!("{} {text}", kind.subject)).collect()
        };
        let right = "schedule.site day, without the controller: all is right";
        assert_eq!(text(&done(&[], &[])), [right]);
        assert_eq!(text(&RestoreDone::default()), [""; 0]);
        let both = done(&["/a", "/b"], &[("/c", "no room")]);
        let failed = "schedule.failed day, without the controller: /c: no room";
        let put = "schedule.site day, without the controller: put right: /a, /b";
        assert_eq!(text(&both), [failed, put]);
        let many: Vec<&str> = (0..10).map(|_| "/a").collect();
        let many = RestoreDone { more: 5, ..done(&many, &[]) };
        assert!(text(&many)[0].ends_with("/a and 7 more"), "{many:?}");
    }
}
