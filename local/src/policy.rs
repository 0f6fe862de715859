//! `bus.toml`: which users and groups of this machine may publish and subscribe to what.
//!
//! Root, and the user as whom the node runs, may everything; whoever is not named may nothing. The
//! file is read again when it has changed, and while it is not valid nobody else may anything.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use mesh::bus::{Pattern, Subject};
use nix::unistd::{Group, User, geteuid};
use serde::Deserialize;
use tracing::warn;

use crate::who::Who;

/// What somebody wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Does {
    Publish,
    Subscribe,
}

/// He may not; nothing was done.
#[derive(Debug, thiserror::Error)]
#[error("user {uid} may not {what}")]
pub(crate) struct Denied {
    uid: u32,
    what: String,
}

/// The rights of one node.
pub(crate) struct Policy {
    path: PathBuf,
    read: Mutex<Option<(Stamp, Vec<Grant>)>>,
}

/// What tells whether the file has changed.
type Stamp = Option<(SystemTime, u64)>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    allow: Vec<Entry>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Entry {
    users: Vec<String>,
    groups: Vec<String>,
    publish: Vec<String>,
    subscribe: Vec<String>,
}

/// An entry whose names are numbers.
#[derive(Debug, Default)]
struct Grant {
    uids: Vec<u32>,
    gids: Vec<u32>,
    publish: Vec<Pattern>,
    subscribe: Vec<Pattern>,
}

impl Policy {
    /// The rights in the state folder of a node.
    pub(crate) fn new(state: &Path) -> Policy {
        Policy { path: state.join("bus.toml"), read: Mutex::new(None) }
    }

    /// Whether somebody may do this with a subject, or with all that a pattern matches. Text that
    /// is neither is for others to refuse.
    pub(crate) fn check(&self, who: Who, does: Does, text: &str) -> Result<(), Denied> {
        let means = |pattern: &Pattern| match does {
            Does::Publish => Subject::new(text).is_ok_and(|subject| pattern.matches(&subject)),
            Does::Subscribe => Pattern::new(text).is_ok_and(|wanted| pattern.covers(&wanted)),
        };
        self.look(who, does, means).map_err(|()| {
            let verb = if does == Does::Publish { "publish" } else { "subscribe to" };
            Denied { uid: who.uid, what: format!("{verb} {text:?} here") }
        })
    }

    /// Whether somebody may do this with anything at all.
    pub(crate) fn check_any(&self, who: Who, does: Does) -> Result<(), Denied> {
        self.look(who, does, |_| true)
            .map_err(|()| Denied { uid: who.uid, what: "answer here".into() })
    }

    fn look(&self, who: Who, does: Does, means: impl Fn(&Pattern) -> bool) -> Result<(), ()> {
        if who.uid == 0 || who.uid == geteuid().as_raw() {
            return Ok(());
        }
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = stamp(&self.path);
        if read.as_ref().is_none_or(|(old, _)| *old != stamp) {
            let grants = grants(&self.path).unwrap_or_else(|wrong| {
                warn!(path = %self.path.display(), %wrong, "the rights on the bus are not valid");
                Vec::new()
            });
            *read = Some((stamp, grants));
        }
        let grants = read.iter().flat_map(|(_, grants)| grants);
        let mut his =
            grants.filter(|grant| grant.uids.contains(&who.uid) || grant.gids.contains(&who.gid));
        let patterns = |grant: &Grant| match does {
            Does::Publish => grant.publish.iter().any(&means),
            Does::Subscribe => grant.subscribe.iter().any(&means),
        };
        if his.any(patterns) { Ok(()) } else { Err(()) }
    }
}

fn stamp(path: &Path) -> Stamp {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len()))
}

fn grants(path: &Path) -> Result<Vec<Grant>, String> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.to_string()),
    };
    let file: File = toml::from_str(&text).map_err(|error| error.to_string())?;
    file.allow.into_iter().map(grant).collect()
}

fn grant(entry: Entry) -> Result<Grant, String> {
    let patterns = |texts: &[String]| {
        let pattern =
            |text: &String| Pattern::new(text).map_err(|fault| format!("{text:?}: {fault}"));
        texts.iter().map(pattern).collect::<Result<Vec<_>, _>>()
    };
    let uid = |name: &String| {
        let found = User::from_name(name).map_err(|error| error.to_string())?;
        found.map(|user| user.uid.as_raw()).ok_or_else(|| format!("there is no user {name:?}"))
    };
    let gid = |name: &String| {
        let found = Group::from_name(name).map_err(|error| error.to_string())?;
        found.map(|group| group.gid.as_raw()).ok_or_else(|| format!("there is no group {name:?}"))
    };
    Ok(Grant {
        uids: entry.users.iter().map(uid).collect::<Result<_, _>>()?,
        gids: entry.groups.iter().map(gid).collect::<Result<_, _>>()?,
        publish: patterns(&entry.publish)?,
        subscribe: patterns(&entry.subscribe)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: Who = Who { uid: 0, gid: 0 };
    const OTHER: Who = Who { uid: 54_321, gid: 54_321 };

    fn policy(text: &str) -> (tempfile::TempDir, Policy) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(dir.path().join("bus.toml"), text).expect("written");
        let policy = Policy::new(dir.path());
        (dir, policy)
    }

    fn granted(publish: &[&str], subscribe: &[&str]) -> Policy {
        let patterns = |texts: &[&str]| {
            texts.iter().map(|text| Pattern::new(text).expect("a pattern")).collect()
        };
        let (publish, subscribe) = (patterns(publish), patterns(subscribe));
        let grant = Grant { uids: vec![OTHER.uid], gids: Vec::new(), publish, subscribe };
        let policy = Policy::new(Path::new("/nowhere"));
        *policy.read.lock().expect("nobody panics") = Some((None, vec![grant]));
        policy
    }

    #[test]
    fn who_is_not_named_may_nothing_and_root_everything() {
        let (_dir, policy) = policy("[[allow]]\nusers = [\"root\"]\npublish = [\"a.>\"]\n");
        assert!(policy.check(ROOT, Does::Subscribe, ">").is_ok());
        let denied = policy.check(OTHER, Does::Publish, "a.b").expect_err("he may not");
        assert_eq!(denied.to_string(), "user 54321 may not publish \"a.b\" here");
        assert!(policy.check_any(OTHER, Does::Subscribe).is_err());
    }

    #[test]
    fn a_right_covers_what_it_says_and_no_more() {
        let policy = granted(&["app.>"], &["app.*.state", "news"]);
        let may = |does, text| policy.check(OTHER, does, text).is_ok();
        assert!(may(Does::Publish, "app.web") && may(Does::Publish, "app.web.x"));
        assert!(!may(Does::Publish, "app") && !may(Does::Publish, "app.*"));
        assert!(may(Does::Subscribe, "app.web.state") && may(Does::Subscribe, "app.*.state"));
        assert!(!may(Does::Subscribe, "app.>") && !may(Does::Subscribe, ">"));
        assert!(!may(Does::Subscribe, "app.*.*") && !may(Does::Publish, "news"));
    }

    #[test]
    fn a_file_that_is_not_valid_gives_no_rights_and_a_better_one_is_read() {
        for wrong in
            ["[[allow]]\nuser = []\n", "[[allow]]\nusers = [\"no such one\"]\n", "publish ="]
        {
            let (_dir, policy) = policy(wrong);
            assert!(policy.check(OTHER, Does::Publish, "a").is_err(), "{wrong}");
            assert!(grants(&policy.path).is_err(), "{wrong}");
        }
        let (_dir, policy) = policy("[[allow]]\nusers = [\"root\"]\nsubscribe = [\"a.**\"]\n");
        assert!(grants(&policy.path).expect_err("no pattern").contains("a.**"));
    }
}
