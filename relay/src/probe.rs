//! Who answers at an address that this node might have to link to one day.
//!
//! It is found out by a handshake with the join service there, which proves who answers and makes
//! nobody a child: no link, no word to the core at either end, and nothing is enrolled.

use std::time::Duration;

use certs::Credentials;
use mesh::HostId;
use quinn::{ClientConfig, VarInt};
use tracing::debug;

use crate::dial::connect;
use crate::endpoint;
use crate::link;

/// How often it is tried, since a relay takes only so many at once.
const TRIES: u32 = 3;
/// Within how long everybody who was told to looks, so that they do not all come at once.
const SPREAD_MS: u64 = 2_000;

/// Looks who answers.
#[derive(Clone)]
pub(crate) struct Prober {
    config: ClientConfig,
    server_name: String,
    mesh: certs::MeshId,
}

impl Prober {
    /// None: the authority's certificate has no key that could be pinned.
    pub(crate) fn new(credentials: &Credentials) -> Option<Prober> {
        let pin = certs::Pin::of_certificate(credentials.authority()).ok()?;
        let mesh = credentials.identity().mesh;
        let server_name = certs::parent_name(&mesh);
        Some(Prober { config: endpoint::join_client(&pin), server_name, mesh })
    }

    /// The node that answers at an address, if it is one that takes children, and how far away it
    /// is.
    pub(crate) async fn look(&self, address: &str) -> Option<(HostId, Duration)> {
        for _ in 0..TRIES {
            let wait = u64::from_le_bytes(certs::random::<8>()) % SPREAD_MS;
            tokio::time::sleep(Duration::from_millis(wait)).await;
            let (endpoint, conn) = match connect(address, &self.config, &self.server_name).await {
                Ok(connected) => connected,
                Err(error) => {
                    debug!(address, error = %crate::chain(&error), "nobody answers a probe");
                    continue;
                }
            };
            let (leaf, rtt) = (link::leaf_of(&conn), conn.rtt());
            conn.close(VarInt::from_u32(0), b"only looking");
            tokio::time::timeout(crate::node::FAREWELL, endpoint.wait_idle()).await.ok();
            let identity = leaf.ok()?.identity;
            let fits = identity.mesh == self.mesh && identity.role.serves();
            return fits.then(|| (link::host_of(&identity), rtt));
        }
        None
    }
}
