//! How a destination differs from a manifest, entry by entry, with nothing changed.
//!
//! ```text
//! + etc/new             it is missing
//! * etc/conf: content   it is something else, or holds something else
//! ~ etc/conf: mode ...  it holds the right thing, but is described otherwise
//! ! etc/dir: ...        something is in the way that is not replaced
//! - etc/old             the manifest does not name it, and it would go
//! ```
//!
//! Hosts that differ in the same way say the same bytes: so of times only that they differ.

use rustix::fs::{FileType, Stat};

use super::error::ApplyError;
use super::owners::Owners;
use super::survey::{self, Action, Survey};
use super::{Installer, Job, check, ground};
use crate::manifest::{Entry, Kind};
use crate::show::show;
use crate::tree;

/// So much of the text is kept, in bytes.
const TEXT: usize = 256 << 10;

/// What is not as it should be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drift {
    /// How many entries.
    pub entries: u64,
    /// A line for each, as far as they are kept.
    pub text: String,
    /// How long the whole text is.
    pub size: u64,
    /// What would keep a push from going through now.
    pub obstacles: Vec<String>,
}

impl Installer {
    /// How the destination differs from the target. Changes nothing.
    pub fn compare(&self, job: &Job<'_>) -> Result<Drift, ApplyError> {
        check(job)?;
        let ground = ground::resolve(&self.root, job)?;
        let (survey, stats) = survey::look(&ground, job)?;
        let mut drift = Drift::default();
        let mut owners = Owners::new();
        for (n, entry) in job.target.entries.iter().enumerate() {
            let stat = stats.get(&n);
            if let Some((sign, what)) = described(&survey, n, entry, stat, &mut owners) {
                drift.line(sign, &entry.path, &what);
            }
        }
        for extra in survey.clears.values().flatten().chain(&survey.extras) {
            drift.line('-', &extra.path, "");
        }
        let refused = survey.check_deletes(&ground, job.rules);
        let obstacles = [refused, survey.preflight(&ground, job.target).map(drop)];
        drift.obstacles =
            obstacles.into_iter().filter_map(Result::err).map(|e| e.to_string()).collect();
        Ok(drift)
    }
}

impl Drift {
    fn line(&mut self, sign: char, path: &[u8], what: &str) {
        self.entries += 1;
        let path = if path.is_empty() { ".".into() } else { show(path) };
        let line = match what {
            "" => format!("{sign} {path}\n"),
            what => format!("{sign} {path}: {what}\n"),
        };
        self.size += line.len() as u64;
        if self.text.len() + line.len() <= TEXT
            && self.text.len() as u64 + line.len() as u64 == self.size
        {
            self.text.push_str(&line);
        }
    }
}

/// The sign and the words for an entry; `None` if all is well.
fn described(
    survey: &Survey,
    n: usize,
    entry: &Entry,
    stat: Option<&Stat>,
    owners: &mut Owners,
) -> Option<(char, String)> {
    let Some(stat) = stat else {
        return (survey.actions[n] != Action::Keep).then(|| ('+', String::new()));
    };
    let found = tree::kind(stat);
    let same_kind = matches!(
        (&entry.kind, found),
        (Kind::Dir, FileType::Directory)
            | (Kind::File { .. }, FileType::RegularFile)
            | (Kind::Symlink { .. }, FileType::Symlink)
            | (Kind::HardLink { .. }, FileType::RegularFile)
    );
    let mut metadata = || {
        let words = owners.differences(entry, stat);
        match &entry.kind {
            Kind::HardLink { to } => format!("shall be the same file as {}", show(to)),
            _ if !words.is_empty() => words.join(", "),
            // The only other thing for which a file is written anew.
            Kind::File { .. } if matches!(survey.actions[n], Action::Write { .. }) => {
                "names of one file, or attributes".into()
            }
            _ => "attributes".into(),
        }
    };
    match survey.actions[n] {
        Action::Keep => None,
        Action::Blocked => Some(('!', format!("is {}, and is not replaced", word(found)))),
        _ if !same_kind => Some(('*', format!("is {}", word(found)))),
        Action::Describe { .. } | Action::Write { equal: true, .. } => Some(('~', metadata())),
        Action::Write { .. } | Action::MakeDir { .. } => Some(('*', "content".into())),
    }
}

/// What stands where something else should.
pub(super) fn word(found: FileType) -> &'static str {
    match found {
        FileType::Directory => "a directory",
        FileType::RegularFile => "a file",
        FileType::Symlink => "a symbolic link",
        _ => "a device, pipe or socket",
    }
}
