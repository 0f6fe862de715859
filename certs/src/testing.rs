//! A small mesh for the tests of this crate.

use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use crate::{Authority, Credentials, Identity, MeshId, NodeKey, Role};

pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);

pub(crate) struct Mesh {
    pub(crate) dir: TempDir,
    pub(crate) authority: Authority,
}

impl Mesh {
    pub(crate) fn new() -> Mesh {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("authority");
        let authority = Authority::create(&path, MeshId::random(), SystemTime::now());
        Mesh { authority: authority.expect("an authority"), dir }
    }

    pub(crate) fn identity(&self, role: Role) -> Identity {
        let (name, site) = (format!("{role}1"), "berlin".to_owned());
        Identity { mesh: self.authority.mesh(), id: 7, role, name, site }
    }

    pub(crate) fn node(&self, role: Role) -> Credentials {
        self.node_at(role, SystemTime::now(), DAY)
    }

    /// A node whose certificate was issued at `now`.
    pub(crate) fn node_at(&self, role: Role, now: SystemTime, lifetime: Duration) -> Credentials {
        let key = NodeKey::generate();
        let certificate = self.authority.issue(&key.csr(), &self.identity(role), lifetime, now);
        let authority = self.authority.certificate().to_vec();
        let order_key = self.authority.order_signer().key();
        Credentials::new(key, certificate.expect("a certificate"), authority, order_key)
            .expect("credentials")
    }
}
