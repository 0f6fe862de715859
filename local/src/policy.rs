//! `bus.toml`: which users and groups of this machine may publish and subscribe to what, and ask
//! for this host's files.
//!
//! Root, and the user as whom the node runs, may everything; whoever is not named may nothing. The
//! file is read again when it has changed, and while it is not valid nobody else may anything.
//!
//! Names mean numbers by the word of the system's name service, which may be far away: it is asked
//! beside everything else, by one at a time. What it cannot say just now is not what it denies: the
//! rights are not known then, whoever asks is told so, and it is asked again. So it is with a file
//! that cannot be read just now.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use mesh::bus::{Pattern, Subject};
use nix::errno::Errno;
use nix::unistd::{Group, User};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tracing::warn;

use crate::who::Who;

/// What somebody wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Does {
    Publish,
    Subscribe,
}

/// The first word of subjects that are the nodes' own.
const OURS: &str = "barid";
/// How long somebody waits for the name service.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long until it is asked again when it has failed, or the file read.
const AGAIN: Duration = Duration::from_secs(2);

/// Nothing was done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Denied {
    /// He may not.
    #[error("user {uid} may not {what}")]
    No {
        /// Who.
        uid: u32,
        /// What.
        what: String,
    },
    /// Whether he may is not known, since nobody says who is meant, or the file cannot be read.
    #[error("what user {uid} may here is not known: {why}")]
    Unknown {
        /// Who.
        uid: u32,
        /// What has failed.
        why: String,
    },
}

/// The rights of one node.
pub(crate) struct Policy {
    path: PathBuf,
    names: Names,
    rights: Mutex<Rights>,
}

/// Who answers for names: the number of a user, and of a group.
#[derive(Clone, Copy)]
struct Names {
    user: fn(&str) -> nix::Result<Option<u32>>,
    group: fn(&str) -> nix::Result<Option<u32>>,
}

#[derive(Default)]
struct Rights {
    known: Option<(Stamp, Vec<Grant>)>,
    /// The reading that goes on, whoever waits for it.
    reading: Option<(Stamp, JoinHandle<Read>)>,
    /// When the name service, or reading, has last failed, and how.
    failed: Option<(Instant, String)>,
}

/// What the file says.
type Read = Result<Vec<Grant>, Wrong>;

/// Why there are no rights to be had from the file.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Wrong {
    /// It is not valid.
    #[error("{0}")]
    File(String),
    /// It could not be read.
    #[error("bus.toml cannot be read: {0}")]
    Read(String),
    /// The name service has failed.
    #[error("the name service does not say who {0:?} is: {1}")]
    Names(String, Errno),
}

/// What tells whether the file has changed.
type Stamp = Option<(SystemTime, u64)>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    allow: Vec<toml::Spanned<Entry>>,
    /// What is kept is for the node to judge.
    keep: Option<serde::de::IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Entry {
    users: Vec<String>,
    groups: Vec<String>,
    publish: Vec<String>,
    subscribe: Vec<String>,
    files: bool,
}

/// An entry whose names are numbers.
#[derive(Debug, Default)]
struct Grant {
    uids: Vec<u32>,
    gids: Vec<u32>,
    publish: Vec<Pattern>,
    subscribe: Vec<Pattern>,
    files: bool,
}

impl Policy {
    /// The rights in the state folder of a node.
    pub(crate) fn new(state: &Path) -> Policy {
        let names = Names { user, group };
        Policy { path: state.join("bus.toml"), names, rights: Mutex::default() }
    }

    /// Whether somebody may do this with a subject, or with all that a pattern matches. Text that
    /// is neither is for others to refuse.
    pub(crate) async fn check(&self, who: Who, does: Does, text: &str) -> Result<(), Denied> {
        let means = |pattern: &Pattern| match does {
            Does::Publish => Subject::new(text).is_ok_and(|subject| pattern.matches(&subject)),
            Does::Subscribe => Pattern::new(text).is_ok_and(|wanted| pattern.covers(&wanted)),
        };
        let verb = if does == Does::Publish { "publish" } else { "subscribe to" };
        // What nodes say among themselves is not for programs to say.
        let is_ours = does == Does::Publish && text.split('.').next() == Some(OURS);
        let may = |grant: &Grant| match does {
            Does::Publish => !is_ours && grant.publish.iter().any(means),
            Does::Subscribe => grant.subscribe.iter().any(means),
        };
        self.look(who, may, || format!("{verb} {text:?} here")).await
    }

    /// Whether somebody may do this with anything at all.
    pub(crate) async fn check_any(&self, who: Who, does: Does) -> Result<(), Denied> {
        let may = |grant: &Grant| match does {
            Does::Publish => !grant.publish.is_empty(),
            Does::Subscribe => !grant.subscribe.is_empty(),
        };
        self.look(who, may, || "answer here".into()).await
    }

    /// Whether somebody may ask for files of this host.
    pub(crate) async fn check_files(&self, who: Who) -> Result<(), Denied> {
        self.look(who, |grant| grant.files, || "ask for files of this host here".into()).await
    }

    async fn look(
        &self,
        who: Who,
        is_enough: impl Fn(&Grant) -> bool,
        what: impl Fn() -> String,
    ) -> Result<(), Denied> {
        if who.is_own() {
            return Ok(());
        }
        let may = |grants: &[Grant]| {
            let mut his = grants
                .iter()
                .filter(|grant| grant.uids.contains(&who.uid) || grant.gids.contains(&who.gid));
            his.any(&is_enough)
        };
        let asked = timeout(PATIENCE, self.with_grants(may)).await;
        let slow = |_| Err("the name service does not answer".to_owned());
        match asked.unwrap_or_else(slow) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Denied::No { uid: who.uid, what: what() }),
            Err(why) => Err(Denied::Unknown { uid: who.uid, why }),
        }
    }

    /// What follows from the rights as the file gives them now, or why they are not known. May be
    /// dropped at any time.
    async fn with_grants<T>(&self, ask: impl Fn(&[Grant]) -> T) -> Result<T, String> {
        let mut rights = self.rights.lock().await;
        loop {
            let now = stamp(&self.path);
            if let Some((_, grants)) = rights.known.as_ref().filter(|(stamp, _)| *stamp == now) {
                return Ok(ask(grants));
            }
            let recent = |(at, _): &&(Instant, String)| at.elapsed() < AGAIN;
            if let Some((_, why)) = rights.failed.as_ref().filter(recent) {
                return Err(why.clone());
            }
            let (_, reading) = rights.reading.get_or_insert_with(|| {
                let (path, names) = (self.path.clone(), self.names);
                (now, tokio::task::spawn_blocking(move || grants(&path, names)))
            });
            let read = reading.await;
            let Some((stamp, _)) = rights.reading.take() else { continue };
            let path = self.path.display();
            let read = read.unwrap_or_else(|error| Err(Wrong::File(error.to_string())));
            let known = match read {
                Err(wrong @ (Wrong::Names(..) | Wrong::Read(_))) => {
                    warn!(%path, %wrong, "the rights on the bus are not known");
                    rights.failed = Some((Instant::now(), wrong.to_string()));
                    continue;
                }
                Err(Wrong::File(wrong)) => {
                    warn!(%path, %wrong, "the rights on the bus are not valid");
                    Vec::new()
                }
                Ok(grants) => grants,
            };
            (rights.known, rights.failed) = (Some((stamp, known)), None);
        }
    }
}

/// The number of a user; none: there is none of this name.
fn user(name: &str) -> nix::Result<Option<u32>> {
    found(User::from_name(name)).map(|user| user.map(|user| user.uid.as_raw()))
}

fn group(name: &str) -> nix::Result<Option<u32>> {
    found(Group::from_name(name)).map(|group| group.map(|group| group.gid.as_raw()))
}

/// Some name services say by an error that there is nobody of a name: these, says getpwnam(3).
fn found<T>(found: nix::Result<Option<T>>) -> nix::Result<Option<T>> {
    match found {
        Err(Errno::ENOENT | Errno::ESRCH | Errno::EBADF | Errno::EPERM) => Ok(None),
        found => found,
    }
}

fn stamp(path: &Path) -> Stamp {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len()))
}

/// Blocks.
fn grants(path: &Path, names: Names) -> Read {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => match error.kind() {
            ErrorKind::NotFound => return Ok(Vec::new()),
            ErrorKind::InvalidData => return Err(Wrong::File(error.to_string())),
            _ => return Err(Wrong::Read(error.to_string())),
        },
    };
    let file: File = toml::from_str(&text)
        .map_err(|error| Wrong::File(alerts::SyntaxError::new(&text, error).to_string()))?;
    let granted = |entry: toml::Spanned<Entry>| {
        let line = alerts::line_of(&text, entry.span().start);
        grant(entry.into_inner(), names).map_err(|wrong| match wrong {
            Wrong::File(what) => Wrong::File(format!("line {line}: allow: {what}")),
            other => other,
        })
    };
    file.allow.into_iter().map(granted).collect()
}

fn grant(entry: Entry, names: Names) -> Result<Grant, Wrong> {
    let patterns = |texts: &[String]| {
        let pattern = |text: &String| {
            Pattern::new(text).map_err(|fault| Wrong::File(format!("{text:?}: {fault}")))
        };
        texts.iter().map(pattern).collect::<Result<Vec<_>, _>>()
    };
    let number = |found: nix::Result<Option<u32>>, what: &str, name: &String| match found {
        Ok(number) => number.ok_or_else(|| Wrong::File(format!("there is no {what} {name:?}"))),
        Err(error) => Err(Wrong::Names(name.clone(), error)),
    };
    let uid = |name: &String| number((names.user)(name), "user", name);
    let gid = |name: &String| number((names.group)(name), "group", name);
    Ok(Grant {
        uids: entry.users.iter().map(uid).collect::<Result<_, _>>()?,
        gids: entry.groups.iter().map(gid).collect::<Result<_, _>>()?,
        publish: patterns(&entry.publish)?,
        subscribe: patterns(&entry.subscribe)?,
        files: entry.files,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

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
        let (uids, gids, files) = (vec![OTHER.uid], Vec::new(), false);
        let grant = Grant { uids, gids, publish, subscribe, files };
        let (policy, rights) = (Policy::new(Path::new("/nowhere")), Rights::default());
        Policy {
            rights: Mutex::new(Rights { known: Some((None, vec![grant])), ..rights }),
            ..policy
        }
    }

    #[tokio::test]
    async fn who_is_not_named_may_nothing_and_root_everything() {
        let (_dir, policy) = policy("[[allow]]\nusers = [\"root\"]\npublish = [\"a.>\"]\n");
        assert!(policy.check(ROOT, Does::Subscribe, ">").await.is_ok());
        let denied = policy.check(OTHER, Does::Publish, "a.b").await.expect_err("he may not");
        assert_eq!(denied.to_string(), "user 54321 may not publish \"a.b\" here");
        assert!(policy.check_any(OTHER, Does::Subscribe).await.is_err());
    }

    #[tokio::test]
    async fn files_have_a_right_of_their_own() {
        let policy = granted(&[">"], &[">"]);
        assert!(policy.check_files(ROOT).await.is_ok());
        let denied = policy.check_files(OTHER).await.expect_err("no right to files");
        assert_eq!(denied.to_string(), "user 54321 may not ask for files of this host here");
        // Nor by way of the bus.
        assert!(policy.check(OTHER, Does::Publish, "barid.files").await.is_err());
        assert!(policy.check(ROOT, Does::Publish, "barid.files").await.is_ok());
        let mut rights = policy.rights.lock().await;
        let (_, grants) = rights.known.as_mut().expect("they are known");
        grants[0].files = true;
        drop(rights);
        assert!(policy.check_files(OTHER).await.is_ok());
    }

    #[tokio::test]
    async fn a_right_covers_what_it_says_and_no_more() {
        let policy = granted(&["app.>"], &["app.*.state", "news"]);
        let may = async |does, text| policy.check(OTHER, does, text).await.is_ok();
        assert!(may(Does::Publish, "app.web").await && may(Does::Publish, "app.web.x").await);
        assert!(!may(Does::Publish, "app").await && !may(Does::Publish, "app.*").await);
        assert!(
            may(Does::Subscribe, "app.web.state").await
                && may(Does::Subscribe, "app.*.state").await
        );
        assert!(!may(Does::Subscribe, "app.>").await && !may(Does::Subscribe, ">").await);
        assert!(!may(Does::Subscribe, "app.*.*").await && !may(Does::Publish, "news").await);
    }

    #[tokio::test]
    async fn a_file_that_is_not_valid_gives_no_rights_and_a_better_one_is_read() {
        for wrong in
            ["[[allow]]\nuser = []\n", "[[allow]]\nusers = [\"no such one\"]\n", "publish ="]
        {
            let (_dir, policy) = policy(wrong);
            assert!(policy.check(OTHER, Does::Publish, "a").await.is_err(), "{wrong}");
            assert!(grants(&policy.path, policy.names).is_err(), "{wrong}");
        }
        let wrong = |text: &str, why: &str| {
            let (_dir, policy) = policy(text);
            grants(&policy.path, policy.names).expect_err(why).to_string()
        };
        let text = "[[allow]]\nusers = [\"root\"]\nsubscribe = [\"a.**\"]\n";
        let told = wrong(text, "no pattern");
        assert!(told.starts_with("line 1: allow: ") && told.contains("a.**"), "{told}");
        let files = "line 3: allow.files: invalid type: integer `1`, expected true or false";
        assert_eq!(wrong("[[allow]]\nusers = [\"root\"]\nfiles = 1\n", "no boolean"), files);
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_service_that_fails_is_asked_again_and_no_right_is_denied_for_it() {
        static ASKED: AtomicU32 = AtomicU32::new(0);
        let (_dir, policy) = policy("[[allow]]\nusers = [\"her\"]\npublish = [\"a\"]\n");
        let user = |_: &str| match ASKED.fetch_add(1, Ordering::Relaxed) {
            0 | 1 => Err(Errno::EIO),
            _ => Ok(Some(OTHER.uid)),
        };
        let policy = Policy { names: Names { user, group }, ..policy };
        let check = async || policy.check(OTHER, Does::Publish, "a").await;
        for asked in [1, 1, 2] {
            let unknown = check().await.expect_err("it has failed");
            let told = unknown.to_string();
            assert!(told.contains("\"her\" is: EIO"), "{told}");
            assert!(matches!(unknown, Denied::Unknown { .. }));
            assert_eq!(ASKED.load(Ordering::Relaxed), asked, "not more often than now and then");
            if asked == 1 {
                tokio::time::advance(AGAIN / 2 + Duration::from_millis(1)).await;
            }
        }
        tokio::time::advance(AGAIN).await;
        check().await.expect("he may");
        check().await.expect("he may");
        assert_eq!(ASKED.load(Ordering::Relaxed), 3, "the answer is kept");
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_cannot_be_read_is_read_again_and_no_right_is_denied_for_it() {
        let (dir, policy) = policy("");
        let user = |_: &str| Ok(Some(OTHER.uid));
        let policy = Policy { names: Names { user, group }, ..policy };
        let path = dir.path().join("bus.toml");
        std::fs::remove_file(&path).expect("it was there");
        // To read a folder is an error to root as well.
        std::fs::create_dir(&path).expect("made");
        let check = async || policy.check(OTHER, Does::Publish, "a").await;
        let unknown = check().await.expect_err("it is not read");
        assert!(unknown.to_string().contains("bus.toml cannot be read"), "{unknown}");
        std::fs::remove_dir(&path).expect("it is empty");
        let text = "[[allow]]\nusers = [\"her\"]\npublish = [\"a\"]\n";
        std::fs::write(&path, text).expect("written");
        let unknown = check().await.expect_err("not more often than now and then");
        assert!(matches!(unknown, Denied::Unknown { .. }));
        tokio::time::advance(AGAIN).await;
        check().await.expect("he may");
        std::fs::write(&path, b"\xff").expect("written");
        assert!(matches!(check().await, Err(Denied::No { .. })), "no text is not valid");
    }

    #[tokio::test]
    async fn a_name_service_that_does_not_answer_holds_nobody_for_long() {
        static ASKED: AtomicU32 = AtomicU32::new(0);
        static ANSWERS: AtomicBool = AtomicBool::new(false);
        let (_dir, policy) = policy("[[allow]]\nusers = [\"her\"]\npublish = [\"a\"]\n");
        let user = |_: &str| {
            ASKED.fetch_add(1, Ordering::Relaxed);
            while !ANSWERS.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            Ok(Some(OTHER.uid))
        };
        let policy = Policy { names: Names { user, group }, ..policy };
        let two = || {
            let one =
                || timeout(Duration::from_millis(20), policy.check(OTHER, Does::Publish, "a"));
            async move { tokio::join!(one(), one()) }
        };
        let (first, second) = two().await;
        assert!(first.is_err() && second.is_err(), "they have gone");
        ANSWERS.store(true, Ordering::Relaxed);
        policy.check(OTHER, Does::Publish, "a").await.expect("he may");
        assert_eq!(ASKED.load(Ordering::Relaxed), 1, "it was asked once for all of them");
    }
}
