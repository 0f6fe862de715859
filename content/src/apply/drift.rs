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
use super::ground::Ground;
use super::owners::Owners;
use super::survey::{self, Action, Survey};
use super::{Installer, Job, check, ground};
use crate::manifest::{ChunkRef, Entry, Kind};
use crate::show::show;
use crate::store::Store;
use crate::tree;

/// So many entries that are in the way are named.
const BLOCKED: usize = 4;
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

/// What a push would come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preflight {
    /// What would keep it from going through: of the destination, and of the store that its pieces
    /// go through.
    pub obstacles: Vec<String>,
    /// The pieces that are neither on disk nor in the store, each once.
    pub missing: Vec<ChunkRef>,
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
        drift.obstacles = refused(&survey, &ground, job);
        Ok(drift)
    }

    /// What putting the target in place would come to now. Changes nothing.
    pub fn preflight(&self, job: &Job<'_>, store: &Store) -> Result<Preflight, ApplyError> {
        self.preflight_beside(job, None, store)
    }

    /// The same, with bytes from another tree in which those of the target may be.
    pub(super) fn preflight_beside(
        &self,
        job: &Job<'_>,
        other: Option<&Ground>,
        store: &Store,
    ) -> Result<Preflight, ApplyError> {
        check(job)?;
        let ground = ground::resolve(&self.root, job)?;
        let (mut survey, stats) = survey::look(&ground, job)?;
        if let Some(other) = other {
            survey.note_other(other, job)?;
        }
        let mut obstacles = refused(&survey, &ground, job);
        let blocked = stats.iter().filter(|(n, _)| survey.actions[**n] == Action::Blocked);
        obstacles.extend(blocked.take(BLOCKED).map(|(n, stat)| {
            let path = ground.shown(&job.target.entries[*n].path);
            format!("{path} is {}, and is not replaced", word(tree::kind(stat)))
        }));
        let missing = survey.wanted(job.target, store)?;
        let bytes = missing.iter().map(|chunk| u64::from(chunk.len)).sum();
        match store.would_fit(bytes) {
            Err(error) if error.is_full() => obstacles.push(error.to_string()),
            fits => fits?,
        }
        Ok(Preflight { obstacles, missing })
    }
}

/// What the file system or the rules are against.
fn refused(survey: &Survey, ground: &Ground, job: &Job<'_>) -> Vec<String> {
    let deletes = survey.check_deletes(ground, job.rules);
    let refused = [deletes, survey.preflight(ground, job.target).map(drop)];
    refused.into_iter().filter_map(Result::err).map(|error| error.to_string()).collect()
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
