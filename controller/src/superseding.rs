//! Older orders whose place a new one takes.
//!
//! A host that was away would get every push to a path that waits for it, one after the other over
//! its weak link, and keep the last. So a push takes back the older ones, where nobody has begun
//! them, by the same signed order that brings what comes instead: whoever withholds the older one
//! has the newer one to give. It does so only if nothing is lost by it: whatever was there before,
//! what is there afterwards must be as if both had been carried out. What cannot be said for
//! certain is left as it is, which costs a transfer and nothing else.

use std::time::SystemTime;

use bytes::Bytes;
use content::{ContentId, Limits, Manifest};
use mesh::{Digest, HostSet, OrderId};
use protos::{Delete, SUPERSEDED_LIMIT, Terms, Work};
use tracing::{info, warn};

use crate::clock::to_ms;
use crate::fault::Failure;
use crate::orders::{Desk, Draft, blocking};

/// How many ranges of hosts an order names of older ones.
const RANGES: usize = 4_096;

/// What an order puts at one place.
struct Item {
    dest: Bytes,
    manifest: Digest,
    terms: Terms,
    /// What is run when it was written.
    command: Bytes,
}

impl Desk {
    /// The older orders whose place this one takes, and at which hosts. It gets the id that it is
    /// about to have.
    pub(crate) async fn superseded(
        &self,
        draft: Draft,
        (id, now): (OrderId, SystemTime),
    ) -> Result<(Draft, Vec<(OrderId, HostSet)>), Failure> {
        if !matches!(draft.work, Work::Push(_) | Work::Dist(_)) {
            return Ok((draft, Vec::new()));
        }
        let desk = self.clone();
        let found = blocking(move || {
            let olders = desk.olders(&draft, (id, now));
            Ok((draft, olders))
        });
        let (draft, olders) = found.await?;
        let olders = olders.unwrap_or_else(|failure| {
            warn!(error = %failure.error.message, "older orders are not superseded");
            Vec::new()
        });
        if !olders.is_empty() {
            info!(order = %id, orders = olders.len(), "takes the place of older orders");
        }
        Ok((draft, olders))
    }

    fn olders(
        &self,
        draft: &Draft,
        (id, now): (OrderId, SystemTime),
    ) -> Result<Vec<(OrderId, HostSet)>, Failure> {
        let newer = items(&draft.work);
        let (from_ms, to_ms) = (to_ms(now), to_ms(now + draft.lasts(now)));
        let mut found = Vec::new();
        let mut ranges = 0;
        for (older, row) in self.tables.waiting(draft.kind, id, from_ms)? {
            // What outlives this one would be given when this one is forgotten.
            if row.expires_ms > to_ms || found.len() == SUPERSEDED_LIMIT {
                continue;
            }
            let hosts = row.targets().intersection(&draft.targets);
            if hosts.is_empty() {
                continue;
            }
            let hosts = hosts.difference(&self.tables.tally(older)?.0.settled());
            if hosts.is_empty() || ranges + hosts.ranges().len() > RANGES {
                continue;
            }
            let Some(body) = self.tables.order_body(older)? else { continue };
            if self.replaces(&newer, &items(&body.work))? {
                ranges += hosts.ranges().len();
                found.push((older, hosts));
            }
        }
        Ok(found)
    }

    /// Whether every place that the older order fills is filled by the newer one as well.
    fn replaces(&self, newer: &[Item], older: &[Item]) -> Result<bool, Failure> {
        for old in older {
            let Some(new) = newer.iter().find(|new| new.dest == old.dest) else {
                return Ok(false);
            };
            let same = old.command.is_empty() || old.command == new.command;
            if !same || !terms_replace(&new.terms, &old.terms) {
                return Ok(false);
            }
            if old.manifest == new.manifest || clears(&new.terms) {
                continue;
            }
            let trees = (self.tree(new.manifest)?, self.tree(old.manifest)?);
            let (Some(new), Some(old)) = trees else { return Ok(false) };
            if !names_all(&new, &old) {
                return Ok(false);
            }
        }
        Ok(!older.is_empty())
    }

    fn tree(&self, root: Digest) -> Result<Option<Manifest>, Failure> {
        let bytes = self.store.get(&ContentId(root.0));
        let bytes = bytes.map_err(|error| Failure::content(&error))?;
        Ok(bytes.and_then(|bytes| Manifest::decode(&bytes, &Limits::default()).ok()))
    }
}

fn items(work: &Work) -> Vec<Item> {
    let item = |push: &protos::Push, command: &Bytes| Item {
        dest: push.dest.clone(),
        manifest: push.manifest,
        terms: push.terms.clone(),
        command: command.clone(),
    };
    match work {
        Work::Push(push) => vec![item(push, &Bytes::new())],
        Work::Dist(dist) => dist.items.iter().map(|i| item(&i.push, &i.command)).collect(),
        _ => Vec::new(),
    }
}

/// Whether what is at the destination afterwards is this tree and nothing else.
fn clears(terms: &Terms) -> bool {
    terms.tree || (terms.delete == Delete::All && terms.exclude.is_empty())
}

/// Whether a push on the newer terms does all that one on the older terms does, with a tree that
/// names all that the older one names.
fn terms_replace(newer: &Terms, older: &Terms) -> bool {
    // To look is no push, and to go back depends on what is there.
    let plain = |terms: &Terms| !terms.verify && !terms.rollback;
    // What may stay as it is could be what the older one would have put there.
    let whole = !newer.content_only && !newer.keep_newer;
    let commands = |terms: &Terms| {
        (terms.before.clone(), terms.after.clone(), terms.special.clone(), terms.source.clone())
    };
    let runs = !older.has_commands() || commands(newer) == commands(older);
    // What is kept beside a file is what was there before it.
    let saves = newer.save.is_empty() && older.save.is_empty();
    let deletes = match (newer.delete, older.delete) {
        _ if clears(newer) => true,
        _ if older.tree => false,
        (Delete::Nothing | Delete::All, Delete::Nothing) => true,
        (Delete::Installed, Delete::Installed) => newer.exclude == older.exclude,
        (Delete::All, Delete::Installed | Delete::All) => newer.exclude == older.exclude,
        // The one before it has not deleted what it would.
        (Delete::Installed, Delete::Nothing) => false,
        (Delete::Nothing | Delete::Installed, _) => false,
    };
    plain(newer) && plain(older) && whole && runs && saves && deletes
}

/// Whether each name of the older tree is one of the newer.
fn names_all(newer: &Manifest, older: &Manifest) -> bool {
    let is_there = |path: &[u8]| newer.entries.binary_search_by(|e| e.path[..].cmp(path)).is_ok();
    older.entries.iter().all(|entry| is_there(&entry.path))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::{Path, PathBuf};
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;

    fn delete(delete: Delete, exclude: &[&str]) -> Terms {
        let exclude = exclude.iter().map(|text| (*text).to_owned()).collect();
        Terms { delete, exclude, ..Terms::default() }
    }

    #[test]
    fn only_terms_that_do_all_that_the_older_ones_do_take_their_place() {
        let usual = Terms::default();
        let tree = Terms { tree: true, ..Terms::default() };
        let (all, but) = (delete(Delete::All, &[]), delete(Delete::All, &["x"]));
        let (installed, not) = (delete(Delete::Installed, &[]), delete(Delete::Installed, &["x"]));
        let verify = Terms { verify: true, ..Terms::default() };
        let back = Terms { rollback: true, ..tree.clone() };
        let compare = Terms { content_only: true, ..Terms::default() };
        let younger = Terms { keep_newer: true, ..Terms::default() };
        let save = Terms { save: Bytes::from_static(b".OLD"), ..Terms::default() };
        let after = Terms { after: "reload".into(), ..Terms::default() };
        for (newer, older, expected) in [
            (&usual, &usual, true),
            (&usual, &compare, true),
            (&usual, &younger, true),
            (&usual, &tree, false),
            (&usual, &all, false),
            (&usual, &installed, false),
            (&usual, &save, false),
            (&usual, &after, false),
            (&usual, &verify, false),
            (&usual, &back, false),
            (&verify, &usual, false),
            (&back, &usual, false),
            (&compare, &usual, false),
            (&younger, &usual, false),
            (&save, &usual, false),
            (&save, &save, false),
            (&after, &usual, true),
            (&after, &after, true),
            (&tree, &usual, true),
            (&tree, &tree, true),
            (&tree, &all, true),
            (&tree, &but, true),
            (&all, &tree, true),
            (&but, &tree, false),
            (&all, &installed, true),
            (&but, &not, true),
            (&but, &all, false),
            (&installed, &installed, true),
            (&installed, &not, false),
            (&installed, &all, false),
            (&installed, &usual, false),
            (&all, &usual, true),
            (&but, &usual, true),
        ] {
            assert_eq!(terms_replace(newer, older), expected, "{newer:?} for {older:?}");
        }
    }

    /// Few names of few kinds; what is in a file, and when it was changed.
    type Files = BTreeMap<&'static str, (u8, u64)>;

    /// Mode, time and content of each file, by its path.
    type Listing = BTreeMap<PathBuf, (u32, SystemTime, Vec<u8>)>;

    fn files() -> impl Strategy<Value = Files> {
        let name = proptest::sample::select(vec!["a", "b", "x", "d/a", "d/b"]);
        proptest::collection::btree_map(name, (0..3_u8, 1..4_u64), 0..5)
    }

    fn any_terms() -> impl Strategy<Value = Terms> {
        let way = prop_oneof![Just(Delete::Nothing), Just(Delete::Installed), Just(Delete::All)];
        let rarely = || prop_oneof![5 => Just(false), 1 => Just(true)];
        (way, any::<bool>(), rarely(), rarely(), rarely()).prop_map(
            |(way, excludes, content_only, keep_newer, saves)| Terms {
                content_only,
                keep_newer,
                save: if saves { Bytes::from_static(b".OLD") } else { Bytes::new() },
                ..delete(way, if excludes && way != Delete::Nothing { &["x"] } else { &[] })
            },
        )
    }

    struct Ground {
        temp: tempfile::TempDir,
        store: content::Store,
    }

    struct Nothing;

    impl content::Chunks for Nothing {
        fn provide(&mut self, _: &[content::ChunkRef]) -> Result<(), content::ApplyError> {
            Ok(())
        }
    }

    impl Ground {
        fn new() -> Ground {
            let temp = tempfile::tempdir().expect("a temporary folder");
            let store = content::Store::open(temp.path().join("store")).expect("a store");
            Ground { temp, store }
        }

        /// The tree of these files.
        fn tree(&self, files: &Files, exclude: &[String]) -> Manifest {
            let dir = tempfile::tempdir_in(self.temp.path()).expect("a folder");
            let source = dir.path().join("t");
            fs::create_dir(&source).expect("it is made");
            write(&source, files);
            let exclude = content::Patterns::new(exclude).expect("patterns");
            let read = content::ingest(&source, &exclude, &self.store, &mut |_| ());
            read.expect("it is read").manifest
        }

        /// What becomes of a host: what was pushed first, what somebody has changed there since,
        /// and then these pushes. `None`: one of them would not go through.
        fn host(
            &self,
            (base, by_hand): (&Manifest, &Files),
            pushes: &[(&Terms, &Manifest)],
        ) -> Option<Listing> {
            let dir = tempfile::tempdir_in(self.temp.path()).expect("a folder");
            let usual = Terms::default();
            let mut before: Option<&Manifest> = None;
            let all = [(&usual, base)].into_iter().chain(pushes.iter().copied());
            for (no, (terms, target)) in all.enumerate() {
                let rules = content::Rules {
                    exclude: content::Patterns::new(&terms.exclude).expect("patterns"),
                    delete: match terms.delete {
                        Delete::Nothing => content::Delete::Nothing,
                        Delete::Installed => content::Delete::Installed,
                        Delete::All => content::Delete::All,
                    },
                    content_only: terms.content_only,
                    keep_newer: terms.keep_newer,
                    save: terms.save.to_vec(),
                    ..content::Rules::default()
                };
                let tag = format!("t{no}");
                let job = content::Job { tag: &tag, dest: b"/t", target, rules: &rules, before };
                let installer = content::Installer::new(dir.path().to_path_buf());
                installer.apply(&job, &self.store, &mut Nothing).ok()?;
                before = Some(target);
                if no == 0 {
                    write(&dir.path().join("t"), by_hand);
                }
            }
            Some(listing(&dir.path().join("t")))
        }
    }

    fn write(dir: &Path, files: &Files) {
        for (name, (seed, changed)) in files {
            let path = dir.join(name);
            fs::create_dir_all(path.parent().expect("it has one")).expect("it is made");
            fs::write(&path, [*seed]).expect("it is written");
            let file = fs::File::open(&path).expect("it is there");
            let changed = UNIX_EPOCH + Duration::from_secs(*changed);
            file.set_modified(changed).expect("its time is set");
        }
    }

    /// What is in each file, its mode and its time, by path.
    fn listing(dir: &Path) -> Listing {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(dir).expect("it is listed") {
            let path = entry.expect("an entry").path();
            let meta = path.symlink_metadata().expect("it is there");
            if meta.is_dir() {
                found.extend(listing(&path));
                continue;
            }
            let changed = meta.modified().expect("it has a time");
            let mode = meta.permissions().mode();
            let text = fs::read(&path).expect("it is read");
            let name = path.components().skip_while(|part| part.as_os_str() != "t");
            found.insert(name.collect(), (mode, changed, text));
        }
        found
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// Where a newer push may take the place of an older one, hosts cannot tell.
        #[test]
        fn nothing_is_lost_by_it(
            (base, by_hand) in (files(), files()),
            (older, newer) in (files(), files()),
            (old_terms, new_terms) in (any_terms(), any_terms()),
            (more, alike) in (any::<bool>(), any::<bool>()),
        ) {
            let new_terms = if alike { old_terms.clone() } else { new_terms };
            // Left to chance few would name all that the older one names.
            let all = older.iter().filter(|_| more).map(|(name, file)| (*name, *file));
            let newer: Files = all.chain(newer).collect();
            let ground = Ground::new();
            let (base, old) = (ground.tree(&base, &[]), ground.tree(&older, &old_terms.exclude));
            let new = ground.tree(&newer, &new_terms.exclude);
            let trees = clears(&new_terms) || names_all(&new, &old);
            if terms_replace(&new_terms, &old_terms) && trees {
                let (first, second) = ((&old_terms, &old), (&new_terms, &new));
                if let Some(both) = ground.host((&base, &by_hand), &[first, second]) {
                    let alone = ground.host((&base, &by_hand), &[second]);
                    prop_assert_eq!(alone, Some(both));
                }
            }
        }
    }

    #[test]
    fn a_tree_that_names_less_takes_nobodys_place() {
        let tree = |paths: &[&str]| {
            let entry = |path: &&str| content::Entry {
                path: path.as_bytes().to_vec(),
                kind: content::Kind::Dir,
                mode: 0o755,
                uid: 0,
                gid: 0,
                owner: "".into(),
                group: "".into(),
                mtime: (0, 0),
                attributes: Default::default(),
                sparse: false,
            };
            Manifest { entries: paths.iter().map(entry).collect() }
        };
        let (small, large) = (tree(&["", "a"]), tree(&["", "a", "b"]));
        assert!(names_all(&large, &small) && names_all(&large, &large));
        assert!(!names_all(&small, &large));
    }
}
