//! `[[keep]]` in `bus.toml`: which messages this node keeps, how, and how many.
//!
//! What `[[allow]]` says is for others to judge. Settings that are not valid change nothing: what
//! was kept before is kept on.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use alerts::{SyntaxError, line_of};
use mesh::bus::{Pattern, RESERVED, SUBJECT_WORDS, is_reserved};
use serde::{Deserialize, Serialize};

/// How many `[[keep]]` there may be.
const MOST: usize = 16;
/// The longest name of one.
const NAME: usize = 64;
/// How much is kept unless it is said: messages, and bytes.
const COUNT: u64 = 100_000;
const MIB: u64 = 64;
/// The most that can be said.
const MOST_COUNT: u64 = 10_000_000;
const MOST_MIB: u64 = 1 << 20;
/// How long a member of a queue has for a message.
const LEASE_S: u64 = 60;
const LONGEST_S: u64 = 24 * 3600;

/// How messages are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// The newest of each subject.
    Latest,
    /// Each until one of those who take from it has done it.
    Queue,
    /// All of them, with numbers, each reader at his own place.
    Stream,
}

impl Policy {
    /// Its word in `bus.toml`.
    pub fn word(self) -> &'static str {
        match self {
            Policy::Latest => "latest",
            Policy::Queue => "queue",
            Policy::Stream => "stream",
        }
    }
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Keep {
    pub(super) name: String,
    /// Its name on disk: under another policy it is another thing.
    pub(super) shelf: String,
    pub(super) pattern: Pattern,
    pub(super) policy: Policy,
    pub(super) count: u64,
    pub(super) bytes: u64,
    pub(super) age: Option<Duration>,
    pub(super) lease: Duration,
}

/// Settings that are of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeepSettingsError {
    /// The file cannot be read.
    #[error("{}: reading failed", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It says something that cannot be.
    #[error("{}: line {line}: {what}", path.display())]
    Meaning {
        /// The file.
        path: PathBuf,
        /// Where.
        line: usize,
        /// What is wrong.
        what: String,
    },
}

/// Of the whole file, what is meant here.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    keep: Vec<toml::Spanned<Entry>>,
    /// Who may what is judged where somebody asks.
    #[serde(rename = "allow")]
    _allow: Option<serde::de::IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    subject: String,
    policy: Policy,
    count: Option<u64>,
    mib: Option<u64>,
    age_s: Option<u64>,
    lease_s: Option<u64>,
}

/// Reads them; without a file there are none.
pub(super) fn load(path: &Path) -> Result<Vec<Keep>, KeepSettingsError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(KeepSettingsError::Io { path: path.into(), source }),
    };
    parse(&text).map_err(|SyntaxError { line, what }| KeepSettingsError::Meaning {
        path: path.into(),
        line,
        what,
    })
}

/// What a text says.
fn parse(text: &str) -> Result<Vec<Keep>, SyntaxError> {
    let file: File = toml::from_str(text).map_err(|error| SyntaxError::new(text, error))?;
    let mut names = BTreeSet::new();
    let mut keeps = Vec::new();
    for entry in file.keep {
        let line = line_of(text, entry.span().start);
        let at_it = |what| SyntaxError { line, what };
        if keeps.len() == MOST {
            return Err(at_it(format!("there are more than {MOST} [[keep]]")));
        }
        let entry = entry.into_inner();
        let name = entry.name.clone();
        let keep = checked(entry).map_err(|wrong| at_it(format!("keep {name:?}: {wrong}")))?;
        if !names.insert(name.clone()) {
            return Err(at_it(format!("there is more than one keep {name:?}")));
        }
        keeps.push(keep);
    }
    Ok(keeps)
}

fn checked(entry: Entry) -> Result<Keep, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if entry.name.is_empty() || entry.name.len() > NAME || !entry.name.bytes().all(plain) {
        return Err(format!("a name has 1 to {NAME} of a-z, A-Z, 0-9, - and _"));
    }
    let pattern = Pattern::new(&entry.subject)
        .map_err(|fault| format!("subject {:?} is no pattern: {fault}", entry.subject))?;
    if is_reserved(&entry.subject) {
        return Err(format!("subjects that begin with {RESERVED} are the node's own"));
    }
    // Whoever wants to know whether something is kept asks under its subject with two words more.
    if Pattern::new(&super::has_subject(&entry.subject)).is_err() {
        let words = SUBJECT_WORDS - 2;
        return Err(format!("a subject that is kept has {words} words and 245 bytes at most"));
    }
    let within = |name: &str, value: Option<u64>, usual: u64, most: u64| match value {
        Some(value) if value == 0 || value > most => Err(format!("{name} must be 1 to {most}")),
        value => Ok(value.unwrap_or(usual)),
    };
    if entry.lease_s.is_some() && entry.policy != Policy::Queue {
        return Err("lease_s is for the policy queue alone".into());
    }
    let lease = within("lease_s", entry.lease_s, LEASE_S, LONGEST_S)?;
    if entry.age_s == Some(0) {
        return Err("age_s must be more than 0".into());
    }
    Ok(Keep {
        shelf: format!("{}.{}", entry.policy.word(), entry.name),
        name: entry.name,
        pattern,
        policy: entry.policy,
        count: within("count", entry.count, COUNT, MOST_COUNT)?,
        bytes: within("mib", entry.mib, MIB, MOST_MIB)? << 20,
        age: entry.age_s.map(Duration::from_secs),
        lease: Duration::from_secs(lease),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_as_it_is_said() {
        let text = "[[allow]]\nusers = [\"a\"]\n[[keep]]\nname = \"states\"\nsubject = \"a.*\"\n\
                    policy = \"latest\"\n[[keep]]\nname = \"jobs\"\nsubject = \"jobs.>\"\n\
                    policy = \"queue\"\ncount = 5\nmib = 2\nage_s = 9\nlease_s = 7\n";
        let keeps = parse(text).expect("it is valid");
        let names: Vec<_> = keeps.iter().map(|keep| keep.name.as_str()).collect();
        assert_eq!(names, ["states", "jobs"]);
        let usual = &keeps[0];
        assert_eq!((usual.count, usual.bytes, usual.age), (COUNT, MIB << 20, None));
        let jobs = &keeps[1];
        assert_eq!((jobs.count, jobs.bytes), (5, 2 << 20));
        assert_eq!((jobs.age, jobs.lease), (Some(Duration::from_secs(9)), Duration::from_secs(7)));
    }

    #[test]
    fn the_example_is_valid() {
        let keeps = parse(include_str!("../../../examples/bus.toml")).expect("it is valid");
        let kept: Vec<_> = keeps.iter().map(|keep| (keep.policy, keep.name.as_str())).collect();
        let expected =
            [(Policy::Latest, "states"), (Policy::Stream, "audit"), (Policy::Queue, "jobs")];
        assert_eq!(kept, expected);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let check = |lines: &str, line: usize, why: &str| {
            let dir = tempfile::tempdir().expect("a temporary folder");
            let path = dir.path().join("bus.toml");
            std::fs::write(&path, format!("[[allow]]\n\n[[keep]]\n{lines}")).expect("written");
            let wrong = load(&path).expect_err(why).to_string();
            assert!(wrong.contains(&format!("bus.toml: line {line}: ")), "{wrong}");
            assert!(wrong.contains(why), "{wrong}");
        };
        let entry = |name: &str, subject: &str, more: &str| {
            format!("name = \"{name}\"\nsubject = \"{subject}\"\npolicy = \"stream\"\n{more}")
        };
        check(&entry("a b", "x", ""), 3, "a name has");
        check(&entry("a", "x..y", ""), 3, "a word of it is empty");
        check(&entry("a", "_keep.x", ""), 3, "the node's own");
        check(&entry("a", &["w"; 15].join("."), ""), 3, "14 words");
        check(&entry("a", "x", "count = 0\n"), 3, "count must be 1 to");
        check(&entry("a", "x", "lease_s = 5\n"), 3, "for the policy queue alone");
        check(&entry("a", "x", "age_s = 0\n"), 3, "age_s must be more than 0");
        check(&entry("a", "x", "days = 3\n"), 7, "unknown field");
        check("name = \"a\"\nsubject = \"x\"\npolicy = \"all\"\n", 6, "unknown variant");
        let whole = "keep.count: invalid value: integer `-1`, expected a whole number, 0 or more";
        check(&entry("a", "x", "count = -1\n"), 7, whole);
        check(&entry("a", "x", "[[keeps]]\n"), 7, "unknown field `keeps`");
        let twice = format!("{}[[keep]]\n{}", entry("a", "x", ""), entry("a", "y", ""));
        check(&twice, 7, "more than one keep \"a\"");
    }
}
