//! Mesh ids, roles and identities, and the one way each is written.
//!
//! An [`Identity`] travels inside a certificate as the URI
//! `barid://<mesh>/<role>/<id>/<site>/<name>`. Every identity has exactly one such form: a text
//! that parses but would be written differently is refused, so comparing the text and comparing
//! the identity are the same thing. Names are limited to characters that need no escaping in a
//! URI, a path, a terminal or a log.
//!
//! Nothing here says whether an identity is true; that is what the certificate is for.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;

use crate::random;

/// The longest name of a node or a site.
const NAME_MAX: usize = 63;

/// Stands for the empty site, which a path segment cannot be. No name can start with it.
const NO_SITE: &str = "-";

/// What tells one mesh from another: 128 random bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MeshId(pub [u8; 16]);

impl MeshId {
    /// A new id, which no other mesh has.
    pub fn random() -> MeshId {
        MeshId(random())
    }
}

impl fmt::Display for MeshId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for MeshId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MeshId({self})")
    }
}

impl FromStr for MeshId {
    type Err = MeshIdError;

    fn from_str(text: &str) -> Result<MeshId, MeshIdError> {
        let bytes = HEXLOWER.decode(text.as_bytes()).ok();
        let id = bytes.and_then(|bytes| bytes.try_into().ok());
        id.map(MeshId).ok_or_else(|| MeshIdError { text: text.to_owned() })
    }
}

/// A text that is not a [`MeshId`].
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is not a mesh id, which is 32 digits of lower-case hexadecimal")]
pub struct MeshIdError {
    /// What was given.
    pub text: String,
}

/// What a node is in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// The root of the tree.
    Controller,
    /// Has a parent and children.
    Relay,
    /// A leaf of the tree: it connects, nobody connects to it.
    Host,
}

impl Role {
    /// Whether nodes of this role accept connections from children.
    pub fn serves(self) -> bool {
        matches!(self, Role::Controller | Role::Relay)
    }

    fn as_str(self) -> &'static str {
        match self {
            Role::Controller => "controller",
            Role::Relay => "relay",
            Role::Host => "host",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Role, RoleError> {
        [Role::Controller, Role::Relay, Role::Host]
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| RoleError { text: text.to_owned() })
    }
}

/// A text that is not a [`Role`].
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is not a role: use controller, relay or host")]
pub struct RoleError {
    /// What was given.
    pub text: String,
}

/// What a certificate says of its owner.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// The mesh the node belongs to.
    pub mesh: MeshId,
    /// The node's number, unique in the mesh.
    pub id: u32,
    /// What the node is in the tree.
    pub role: Role,
    /// The node's name, as operators write it.
    pub name: String,
    /// The site the node stands at; empty when sites are not used.
    pub site: String,
}

impl Identity {
    /// Whether name and site can be written into a certificate.
    pub fn check(&self) -> Result<(), NameError> {
        if !is_name(&self.name) {
            return Err(NameError { what: "node name", value: self.name.clone() });
        }
        if !self.site.is_empty() && !is_name(&self.site) {
            return Err(NameError { what: "site name", value: self.site.clone() });
        }
        Ok(())
    }

    /// The one written form, which [`Identity::from_uri`] reads back.
    pub(crate) fn uri(&self) -> String {
        let Identity { mesh, id, role, name, site } = self;
        let site = if site.is_empty() { NO_SITE } else { site };
        format!("barid://{mesh}/{role}/{id}/{site}/{name}")
    }

    /// Reads the form that [`Identity::uri`] writes, and no other.
    pub(crate) fn from_uri(uri: &str) -> Option<Identity> {
        let mut parts = uri.strip_prefix("barid://")?.split('/');
        let mesh = parts.next()?.parse().ok()?;
        let role = parts.next()?.parse().ok()?;
        let id = parts.next()?.parse().ok()?;
        let site = parts.next()?;
        let name = parts.next()?.to_owned();
        let site = if site == NO_SITE { String::new() } else { site.to_owned() };
        let identity = Identity { mesh, id, role, name, site };
        identity.check().ok()?;
        (identity.uri() == uri).then_some(identity)
    }
}

impl fmt::Display for Identity {
    /// `relay 7 edge1 (site berlin)`: for messages, not for parsing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.role, self.id, self.name)?;
        if !self.site.is_empty() {
            write!(f, " (site {})", self.site)?;
        }
        Ok(())
    }
}

/// A name that no certificate can carry. Nothing was done; the caller's input is at fault.
#[derive(Debug, thiserror::Error)]
#[error(
    "{value:?} is not a {what}: use 1 to 63 characters of A-Z a-z 0-9 . _ - and start with a \
     letter or digit"
)]
pub struct NameError {
    /// Which name it is.
    pub what: &'static str,
    /// What was given.
    pub value: String,
}

fn is_name(text: &str) -> bool {
    text.len() <= NAME_MAX
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(name: &str, site: &str) -> Identity {
        let (name, site) = (name.to_owned(), site.to_owned());
        Identity { mesh: MeshId([0xab; 16]), id: 7, role: Role::Relay, name, site }
    }

    #[test]
    fn uri_round_trip() {
        for site in ["", "berlin", "rack-4.b_2"] {
            let identity = identity("edge1", site);
            identity.check().expect("it is a good name");
            assert_eq!(Identity::from_uri(&identity.uri()), Some(identity));
        }
        let mesh = "ab".repeat(16);
        assert_eq!(identity("e", "").uri(), format!("barid://{mesh}/relay/7/-/e"));
    }

    #[test]
    fn names_that_no_certificate_carries() {
        let long = "a".repeat(64);
        for name in ["", "-", ".a", "_a", "a b", "a/b", "ä", "a\n", "a\0", "a%2f", &long] {
            let error = identity(name, "").check().expect_err("it is refused").to_string();
            assert!(error.contains("node name"), "{error}");
        }
        for site in ["-", "a/b", "..", &long] {
            let error = identity("a", site).check().expect_err("it is refused").to_string();
            assert!(error.contains("site name"), "{error}");
        }
        identity(&"a".repeat(63), &"b".repeat(63)).check().expect("it is a good name");
    }

    #[test]
    fn only_the_canonical_uri_is_read() {
        let mesh = "ab".repeat(16);
        for rest in [
            "relay/07/-/e",
            "relay/+7/-/e",
            "relay/4294967296/-/e",
            "relay/-1/-/e",
            "Relay/7/-/e",
            "relay/7//e",
            "relay/7/-/e/",
            "relay/7/-/e/f",
            "relay/7/-/",
            "relay/7/-",
            "relay/7/-/-",
            "root/7/-/e",
            "relay/7/-/e?x",
        ] {
            assert_eq!(Identity::from_uri(&format!("barid://{mesh}/{rest}")), None, "{rest}");
        }
        let upper = mesh.to_uppercase();
        assert_eq!(Identity::from_uri(&format!("barid://{upper}/relay/7/-/e")), None);
        assert_eq!(Identity::from_uri(&format!("BARID://{mesh}/relay/7/-/e")), None);
        assert_eq!(Identity::from_uri("barid://abab/relay/7/-/e"), None);
    }

    #[test]
    fn mesh_ids_and_roles_round_trip() {
        let mesh = MeshId::random();
        assert_eq!(mesh.to_string().parse::<MeshId>().expect("it was just written"), mesh);
        assert!("ABab".repeat(8).parse::<MeshId>().is_err());
        assert!("".parse::<MeshId>().is_err());
        for role in [Role::Controller, Role::Relay, Role::Host] {
            assert_eq!(role.to_string().parse::<Role>().expect("it was just written"), role);
        }
        assert!(Role::Controller.serves() && Role::Relay.serves() && !Role::Host.serves());
        assert!("Host".parse::<Role>().is_err());
    }
}
