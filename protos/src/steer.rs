//! Steering: which parent a node is to have, as it is signed.
//!
//! Not here: when the node changes over, and what it does if none of them can be reached.

use mesh::HostId;

use crate::field::{at_most, ensure, plain};
use crate::order::{NAME_LIMIT, OrderError};
use crate::{FieldError, pb};

/// The most parents that an order can name.
pub const PARENTS: usize = 8;

/// Which parent a node is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Steer {
    /// These, as `host:port`, before the configured ones; none: as configured. At most 8 of 256
    /// bytes.
    Parents(Vec<String>),
    /// Not this relay while there is another, or no longer so.
    Avoid {
        /// The relay.
        relay: HostId,
        /// Whether to stay away from it.
        on: bool,
    },
}

impl Steer {
    pub(crate) fn to_pb(&self) -> pb::Steer {
        let what = match self {
            Steer::Parents(addresses) => {
                pb::steer::What::Parents(pb::Parents { addresses: addresses.clone() })
            }
            Steer::Avoid { relay, on } => {
                pb::steer::What::Avoid(pb::Avoid { relay: relay.0, on: *on })
            }
        };
        pb::Steer { what: Some(what) }
    }

    pub(crate) fn read(steer: pb::Steer) -> Result<Steer, OrderError> {
        Ok(match steer.what.ok_or(OrderError::Work)? {
            pb::steer::What::Parents(parents) => Steer::Parents(parents.addresses),
            pb::steer::What::Avoid(pb::Avoid { relay, on }) => {
                Steer::Avoid { relay: HostId(relay), on }
            }
        })
    }

    pub(crate) fn check(&self) -> Result<(), FieldError> {
        let Steer::Parents(addresses) = self else { return Ok(()) };
        at_most("steer.parents", addresses.len(), PARENTS)?;
        for address in addresses {
            plain("steer.parents", address, NAME_LIMIT)?;
            let parts = address.rsplit_once(':');
            let port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
            let good = parts.is_some_and(|(host, p)| !host.is_empty() && port(p));
            ensure(good, "steer.parents", "has an address that is not host:port")?;
        }
        Ok(())
    }
}
