//! Whose keys are no longer of the mesh: kept, obeyed, and passed on to every child.
//!
//! The list is signed by the authority and has a version; a node takes a later one from its parent,
//! keeps it over restarts, and ends the links of whoever it names, whichever side has dialled.
//! Every link begins with the list and gets each change at once. A node that is cut off from the
//! controller knows what it last heard.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use certs::{Credentials, MeshId};
use mesh::Peer;
use protos::{Removals, SignedRemovals};
use tracing::{info, warn};

use crate::drive::Links;
use crate::link::{Link, PeerFault};

/// The file in the state folder.
const FILE: &str = "removals";

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
    version: u64,
    keys: BTreeSet<[u8; 32]>,
    /// The frame that tells children.
    frame: Option<Bytes>,
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
    pub(crate) fn open(dir: &Path, credentials: &Credentials, links: Links) -> Removed {
        let removed = Removed(Arc::new(Inner {
            mesh: credentials.identity().mesh,
            authority: credentials.authority().to_vec(),
            path: dir.join(FILE),
            links,
            list: Mutex::default(),
            out: AtomicBool::new(false),
        }));
        if let Ok(bytes) = std::fs::read(&removed.0.path) {
            let path = removed.0.path.display();
            match SignedRemovals::decode(bytes.into()) {
                Err(error) => warn!(%path, error = %crate::chain(&error), "not a list of removals"),
                Ok(signed) => match removed.read(&signed) {
                    Ok(list) => removed.put(&signed, list),
                    Err(error) => warn!(%path, error = %crate::chain(&error), "not used"),
                },
            }
        }
        removed
    }

    /// Whether a key is no longer of the mesh.
    pub(crate) fn has(&self, key: &[u8; 32]) -> bool {
        self.list().keys.contains(key)
    }

    /// Takes a list: if it is later than the one known, whoever it names is cut off and every child
    /// is told.
    pub(crate) fn take(&self, signed: &SignedRemovals) -> Result<(), RemovalsFault> {
        let list = self.read(signed)?;
        if list.version <= self.list().version {
            return Ok(());
        }
        info!(version = list.version, keys = list.keys.len(), "keys were removed from the mesh");
        if let Err(error) = self.keep(signed) {
            // After a restart the parent says it again.
            warn!(path = %self.0.path.display(), %error, "the list of removals is not kept");
        }
        self.put(signed, list);
        for link in self.0.links.all() {
            self.greet(&link);
        }
        Ok(())
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
            && let Some(frame) = self.list().frame.clone()
        {
            link.send_removals(frame);
        }
        true
    }

    fn read(&self, signed: &SignedRemovals) -> Result<Removals, RemovalsFault> {
        certs::verify_removals(&self.0.authority, &signed.body, &signed.signature)
            .map_err(RemovalsFault::Signature)?;
        let list = Removals::decode(&signed.body).map_err(RemovalsFault::Unreadable)?;
        if list.mesh == self.0.mesh.0 { Ok(list) } else { Err(RemovalsFault::Mesh) }
    }

    fn put(&self, signed: &SignedRemovals, Removals { version, keys, .. }: Removals) {
        let mut list = self.list();
        if version > list.version {
            *list = List { version, keys, frame: Some(protos::encode_removals(signed)) };
        }
    }

    fn keep(&self, signed: &SignedRemovals) -> std::io::Result<()> {
        certs::files::replace_secret(&self.0.path, &signed.encode()).map_err(std::io::Error::other)
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
        let keys = keys.iter().map(|key| [*key; 32]).collect();
        let body = Removals { mesh: mesh.0, version, keys }.encode();
        SignedRemovals { signature: authority.sign_removals(&body), body }
    }

    #[test]
    fn only_the_authoritys_later_list_counts_and_is_kept() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let ours = authority(&dir.path().join("ours"));
        let other = authority(&dir.path().join("other"));
        let credentials = credentials(&ours);
        let open = || Removed::open(dir.path(), &credentials, Links::default());
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
}
