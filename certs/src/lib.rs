//! Who is who in a mesh, and who may say what.
//!
//! One mesh has one authority. It signs a certificate for every node, and the certificate alone
//! says what the node is: its mesh, its number, its role, its name and its site ([`Identity`]).
//! Nothing a node asks for reaches its certificate except its public key. TLS configurations made
//! here trust that authority and nothing else, and never resume a session, so every connection
//! shows a certificate. Orders carry a signature of their own, made by the order key, so that a
//! relay can carry an order but not write one. A host joins with a [`Token`], which proves itself
//! without travelling.
//!
//! | module | |
//! |---|---|
//! | `name` | mesh ids, roles, identities and their one written form |
//! | `authority` | makes and keeps the authority, issues certificates, signs grants |
//! | `identity` | a node's key, its credentials on disk, the identity of a peer |
//! | `tls` | the rustls configurations; `sibling` those between children of one parent |
//! | `token` | join tokens and their proofs |
//! | `order` | signatures on orders |
//! | `files` | secrets on disk |
//! | `x509`, `key` | certificates read strictly; Ed25519 keys and their encodings |
//!
//! All keys are Ed25519. This is the only crate that knows X.509, and it deliberately knows no
//! sockets, no clock (time is passed in, except to rustls itself), no revocation list and no
//! policy: whether a node may still connect is for the controller's registry to say.

mod authority;
#[cfg(test)]
mod damage_tests;
pub mod files;
mod identity;
mod key;
mod name;
mod order;
#[cfg(test)]
mod testing;
mod tls;
mod token;
mod x509;

pub use authority::{
    Authority, CreateError, GrantError, IssueError, OpenError, Pin, PinError, verify_grant,
    verify_removals,
};
pub use identity::{
    Credentials, CredentialsError, LoadError, NodeKey, SaveError, peer_identity, peer_leaf,
};
pub use key::KeyError;
pub use name::{Identity, MeshId, MeshIdError, NameError, Role, RoleError};
pub use order::{BadSignature, OrderKey, OrderSigner};
pub use tls::{
    JOIN_ALPN, JOIN_NAME, JoinError, MESH_ALPN, SIBLING_ALPN, SIBLING_NAME, SiblingError,
    client_config, join_client_config, join_server_config, parent_name, provider, server_config,
    sibling_client_config, sibling_server_config,
};
pub use token::{Token, TokenCheck, TokenError, TokenId};
pub use x509::{CaError, Leaf, PeerError};

use ring::rand::{SecureRandom, SystemRandom};

/// `N` bytes from the kernel's random source, fit for keys.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("the kernel's random source does not fail once the machine is up");
    bytes
}

#[cfg(test)]
mod tests {
    #[test]
    fn random_bytes_differ() {
        assert_ne!(super::random::<16>(), super::random::<16>());
    }
}
