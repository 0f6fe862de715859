//! Whose keys are no longer of the mesh: kept, obeyed, and passed on to every child.
//!
//! The list is signed by the authority and has a version; a node takes a later one from its parent,
//! keeps it over restarts, and ends the links of whoever it names, whichever side has dialled.
//! Every link begins with the list and gets each change at once. A node that is cut off from the
//! controller knows what it last heard.
//!
//! The list also has the schedule by which sites go on when the controller is silent; what is done
//! with it is not here. And it says of which epoch the controller is, and a later epoch goes before
//! any version; what follows from that is in `epoch`. A list of a later epoch was made by a
//! controller that was restored from a backup, and may lack keys that were removed since. What the
//! list before it has is therefore heeded, and kept, until a list has it too.

mod epoch;
mod retelling;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use certs::{Credentials, MeshId};
use mesh::Peer;
use protos::{Removals, Schedule, SignedRemovals};
use tokio::sync::watch;
use tracing::{info, warn};

pub(crate) use self::retelling::Retelling;
use crate::join::Registrar;
use crate::link::{Link, PeerFault};
use crate::links::Links;

/// The file in the state folder.
const FILE: &str = "removals";
/// The list of an earlier epoch, as long as it has keys that the one of this epoch lacks.
const BEFORE: &str = "removals.before";

/// The list of one node.
#[derive(Clone)]
pub(crate) struct Removed(Arc<Inner>);

struct Inner {
    mesh: MeshId,
    /// The authority's certificate (DER).
    authority: Vec<u8>,
    path: PathBuf,
    links: Links,
    list: Mutex<List>,
    /// Held while it is written down that there is something to tell, or that there is not.
    untold: Mutex<()>,
    /// At the root: whom to tell of removed keys that its list lacks.
    registrar: Option<Arc<dyn Registrar>>,
    /// At the root: the later epoch, once it has heard of one.
    superseded: watch::Sender<Option<u64>>,
    /// Whether a parent has said that this node was removed, and none has taken it since.
    out: AtomicBool,
}

impl fmt::Debug for Removed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Removed(version {})", self.list().version)
    }
}

#[derive(Default)]
struct List {
    epoch: u64,
    version: u64,
    keys: BTreeSet<[u8; 32]>,
    /// What is due when, for sites that do not hear the controller.
    schedule: Arc<Schedule>,
    /// As it is told to others.
    signed: Option<SignedRemovals>,
    /// The list of an earlier epoch that has keys which this one lacks, and its keys.
    before: Option<(SignedRemovals, BTreeSet<[u8; 32]>)>,
}

impl List {
    /// The list of an earlier epoch that has keys which this one will lack: the one that there is
    /// already, or the present list.
    fn before(&self, next: &Removals) -> Option<(SignedRemovals, BTreeSet<[u8; 32]>)> {
        let own = self.signed.clone().filter(|_| next.epoch > self.epoch);
        let own = own.map(|signed| (signed, self.keys.clone()));
        let lacking = |keys: &BTreeSet<_>| keys.difference(&next.keys).count();
        let candidates = own.into_iter().chain(self.before.clone());
        candidates.filter(|(_, keys)| lacking(keys) > 0).max_by_key(|(_, keys)| lacking(keys))
    }
}

/// A list that is not to be believed. Nothing has changed; whoever sent it is at fault.
#[derive(Debug, thiserror::Error)]
pub enum RemovalsFault {
    /// The authority has not signed it.
    #[error("the list of removed keys is not the authority's")]
    Signature(#[source] certs::GrantError),
    /// It is not readable.
    #[error("the list of removed keys is not readable")]
    Unreadable(#[source] protos::RemovalsError),
    /// It is about another mesh.
    #[error("the list of removed keys is another mesh's")]
    Mesh,
}

impl Removed {
    /// What was known before. A list that is damaged is as good as none: the parent has it.
    pub(crate) fn open(
        dir: &Path,
        credentials: &Credentials,
        links: Links,
        registrar: Option<Arc<dyn Registrar>>,
    ) -> Removed {
        let removed = Removed(Arc::new(Inner {
            mesh: credentials.identity().mesh,
            authority: credentials.authority().to_vec(),
            path: dir.join(FILE),
            links,
            list: Mutex::default(),
            untold: Mutex::default(),
            registrar,
            superseded: watch::Sender::new(None),
            out: AtomicBool::new(false),
        }));
        if let Some((signed, list)) = removed.find(&dir.join(BEFORE)) {
            removed.put(&signed, list);
        }
        if let Some((signed, list)) = removed.find(&dir.join(FILE)) {
            removed.put(&signed, list);
        }
        removed.follow_epoch();
        removed
    }

    /// A list that was kept in this file.
    fn find(&self, path: &Path) -> Option<(SignedRemovals, Removals)> {
        let bytes = std::fs::read(path).ok()?;
        let path = path.display();
        let signed = SignedRemovals::decode(bytes.into())
            .inspect_err(|error| {
                warn!(%path, error = %crate::chain(error), "not a list of removals");
            })
            .ok()?;
        let list = self.read(&signed);
        let list = list.inspect_err(|error| warn!(%path, error = %crate::chain(error), "not used"));
        Some((signed, list.ok()?))
    }

    /// Whether a key is no longer of the mesh.
    pub(crate) fn has(&self, key: &[u8; 32]) -> bool {
        let list = self.list();
        let before = list.before.as_ref().is_some_and(|(_, keys)| keys.contains(key));
        before || list.keys.contains(key)
    }

    /// What is due when, by the controller's last word.
    pub(crate) fn schedule(&self) -> Arc<Schedule> {
        self.list().schedule.clone()
    }

    /// Takes a list: if it is later than the one known, whoever it names is cut off and every child
    /// is told. Returns whether it is of a later epoch.
    pub(crate) fn take(&self, signed: &SignedRemovals) -> Result<bool, RemovalsFault> {
        let list = self.read(signed)?;
        let (is_later, restored, before) = {
            let known = self.list();
            let is_later = (list.epoch, list.version) > (known.epoch, known.version);
            (is_later, list.epoch > known.epoch, known.before(&list))
        };
        if !is_later {
            return Ok(false);
        }
        info!(
            epoch = list.epoch,
            version = list.version,
            keys = list.keys.len(),
            "a later list of the keys that were removed from the mesh"
        );
        let untold = restored.then_some(list.epoch);
        if let Err(error) = self.keep(signed, untold, before.map(|(signed, _)| signed)) {
            // After a restart the parent says it again.
            warn!(path = %self.0.path.display(), %error, "the list of removals is not kept");
        }
        self.put(signed, list);
        for link in self.0.links.all() {
            self.greet(&link);
        }
        if restored {
            self.follow_epoch();
        }
        Ok(restored)
    }

    /// Whether this node itself was removed, by the last word of a parent.
    pub(crate) fn is_out(&self) -> bool {
        self.0.out.load(Ordering::Relaxed)
    }

    /// A parent has turned this node away because it was removed, or has taken it. One that is out
    /// serves nobody, so that its children look for another parent.
    pub(crate) fn set_out(&self, out: bool) {
        if self.is_out() == out || self.0.out.swap(out, Ordering::Relaxed) == out || !out {
            return;
        }
        warn!("this node was removed from the mesh: it serves nobody any more");
        for link in self.0.links.all() {
            if let Peer::Child { .. } = link.peer {
                link.close(&PeerFault::Out.to_string());
            }
        }
    }

    /// A link stands, or the list has changed: it ends if its peer was removed, and else a child is
    /// told the list. Returns whether it may stay.
    pub(crate) fn greet(&self, link: &Link) -> bool {
        if self.has(&link.key) {
            warn!(peer = %link.peer.host(), name = %link.name, "it was removed from the mesh");
            link.close_removed();
            return false;
        }
        if let Peer::Child { .. } = link.peer
            && let Some(signed) = self.list().signed.clone()
        {
            link.send_removals(protos::encode_removals(&signed));
        }
        true
    }

    fn read(&self, signed: &SignedRemovals) -> Result<Removals, RemovalsFault> {
        certs::verify_removals(&self.0.authority, &signed.body, &signed.signature)
            .map_err(RemovalsFault::Signature)?;
        let list = Removals::decode(&signed.body).map_err(RemovalsFault::Unreadable)?;
        if list.mesh == self.0.mesh.0 { Ok(list) } else { Err(RemovalsFault::Mesh) }
    }

    fn put(&self, signed: &SignedRemovals, next: Removals) {
        let mut list = self.list();
        if (next.epoch, next.version) > (list.epoch, list.version) {
            let before = list.before(&next);
            let Removals { version, keys, epoch, schedule, .. } = next;
            let (signed, schedule) = (Some(signed.clone()), Arc::new(schedule));
            *list = List { epoch, version, keys, schedule, signed, before };
        }
    }

    /// What the new list lacks is kept first, so that no key comes back by a crash in between; and
    /// so is that the core has to be told of this epoch, if it is a later one.
    fn keep(
        &self,
        signed: &SignedRemovals,
        untold: Option<u64>,
        before: Option<SignedRemovals>,
    ) -> std::io::Result<()> {
        let put = |path: &Path, signed: &SignedRemovals| {
            let kept = certs::files::replace_secret(path, &signed.encode());
            kept.map_err(std::io::Error::other)
        };
        let path = self.0.path.with_file_name(BEFORE);
        let is_whole = before.is_none();
        before.map_or(Ok(()), |before| put(&path, &before))?;
        untold.map_or(Ok(()), |epoch| self.note_untold(epoch))?;
        put(&self.0.path, signed)?;
        if is_whole {
            std::fs::remove_file(&path).ok();
        }
        Ok(())
    }

    fn list(&self) -> MutexGuard<'_, List> {
        self.0.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use certs::{Authority, Identity, NodeKey, Role};

    use super::*;

    fn authority(dir: &Path) -> Authority {
        Authority::create(dir, MeshId::random(), SystemTime::now()).expect("an authority")
    }

    fn credentials(authority: &Authority) -> Credentials {
        let (key, mesh) = (NodeKey::generate(), authority.mesh());
        let (name, site) = ("a".into(), String::new());
        let who = Identity { mesh, id: 1, role: Role::Host, name, site };
        let (life, now) = (Duration::from_secs(3600), SystemTime::now());
        let certificate = authority.issue(&key.csr(), &who, life, now).expect("a certificate");
        let (ca, order_key) = (authority.certificate().to_vec(), authority.order_signer().key());
        Credentials::new(key, certificate, ca, order_key).expect("they fit")
    }

    fn list(authority: &Authority, mesh: MeshId, version: u64, keys: &[u8]) -> SignedRemovals {
        list_of(authority, mesh, (0, version), keys)
    }

    fn list_of(
        authority: &Authority,
        mesh: MeshId,
        (epoch, version): (u64, u64),
        keys: &[u8],
    ) -> SignedRemovals {
        let keys = keys.iter().map(|key| [*key; 32]).collect();
        let body = Removals { mesh: mesh.0, version, keys, epoch, ..Removals::default() }.encode();
        SignedRemovals { signature: authority.sign_removals(&body), body }
    }

    #[test]
    fn only_the_authoritys_later_list_counts_and_is_kept() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let ours = authority(&dir.path().join("ours"));
        let other = authority(&dir.path().join("other"));
        let credentials = credentials(&ours);
        let open = || Removed::open(dir.path(), &credentials, Links::default(), None);
        let removed = open();
        assert!(!removed.has(&[1; 32]));
        removed.take(&list(&ours, ours.mesh(), 2, &[1, 2])).expect("it is good");
        removed.take(&list(&ours, ours.mesh(), 1, &[])).expect("it is good, and old");
        assert!(removed.has(&[1; 32]) && removed.has(&[2; 32]) && !removed.has(&[3; 32]));

        let forged = removed.take(&list(&other, ours.mesh(), 9, &[3]));
        assert!(matches!(forged, Err(RemovalsFault::Signature(_))), "{forged:?}");
        let foreign = removed.take(&list(&ours, other.mesh(), 9, &[3]));
        assert!(matches!(foreign, Err(RemovalsFault::Mesh)), "{foreign:?}");
        let mut bent = list(&ours, ours.mesh(), 9, &[3]);
        bent.body = list(&ours, ours.mesh(), 9, &[4]).body;
        assert!(removed.take(&bent).is_err());

        // It is there after a restart, unless somebody has touched it.
        assert!(open().has(&[2; 32]) && !open().has(&[3; 32]));
        std::fs::write(dir.path().join(FILE), bent.encode()).expect("written");
        assert!(!open().has(&[2; 32]) && !open().has(&[4; 32]));
    }

    #[test]
    fn who_has_heard_of_a_later_epoch_has_it_to_tell_until_that_is_noted() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let ours = authority(&dir.path().join("ours"));
        let credentials = credentials(&ours);
        let open = || Removed::open(dir.path(), &credentials, Links::default(), None);
        let list = |at| list_of(&ours, ours.mesh(), at, &[]);
        // A node of before this was written down: what it has heard of it has told.
        std::fs::write(dir.path().join(FILE), list((100, 100)).encode()).expect("written");
        let removed = open();
        assert_eq!((removed.epoch(), removed.is_untold()), (100, false));
        assert!(!removed.take(&list((100, 101))).expect("it is good"));
        assert!(!open().is_untold(), "it is the same controller");

        assert!(removed.take(&list((200, 200))).expect("it is good"));
        assert!(open().is_untold(), "killed at once");
        assert!(removed.take(&list((300, 300))).expect("it is good"));
        removed.note_told(200);
        assert!(open().is_untold(), "there is a later one");
        removed.note_told(300);
        removed.note_told(300);
        assert!(!open().is_untold() && open().epoch() == 300);

        // Killed between the two: it hears of the list again, and may tell too much, never less.
        removed.note_untold(400).expect("written");
        open().note_told(300);
        assert!(open().is_untold());
        assert!(open().take(&list((400, 400))).expect("it is good"));
        open().note_told(400);
        assert!(!open().is_untold());
        // One that cannot be read is as good as any.
        std::fs::write(dir.path().join("removals.untold"), "").expect("written");
        assert!(open().is_untold());
        open().note_told(400);
        assert!(!open().is_untold());
    }

    #[test]
    fn a_list_of_a_later_epoch_brings_no_removed_key_back() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let ours = authority(&dir.path().join("ours"));
        let credentials = credentials(&ours);
        let open = || Removed::open(dir.path(), &credentials, Links::default(), None);
        let list = |at, keys: &[u8]| list_of(&ours, ours.mesh(), at, keys);
        let removed = open();
        assert!(!removed.take(&list((0, 7), &[1, 2])).expect("it is good"));
        // The backup is older than the removal of 2.
        assert!(removed.take(&list((100, 100), &[1])).expect("it is good"), "it was restored");
        assert!(!removed.take(&list((0, 8), &[1, 2, 3])).expect("it is good"), "it is over");
        for removed in [&removed, &open()] {
            assert_eq!(removed.epoch(), 100);
            assert!(removed.has(&[1; 32]) && removed.has(&[2; 32]) && !removed.has(&[3; 32]));
        }
        // As soon as the new controller knows, the old list is not needed any more.
        assert!(!removed.take(&list((100, 101), &[1, 2, 4])).expect("it is good"));
        assert!(!dir.path().join(BEFORE).exists());
        for removed in [&removed, &open()] {
            assert!(removed.has(&[2; 32]) && removed.has(&[4; 32]));
        }
    }
}
