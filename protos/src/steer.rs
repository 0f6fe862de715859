//! Steering: which parent a node is to have, and how much content may come from it, as it is
//! signed.
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
    /// How much content the link to its parent may carry.
    Cap(Cap),
    /// As it has it: it says which parents it knows, and how many children it takes.
    Survey,
}

/// The lowest rate that can be named, in bits a second: with less, a piece of content takes so long
/// that its stream is taken for one that stands still.
pub const LEAST_RATE: u64 = 8_000;

/// What becomes of a node's cap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cap {
    /// Nothing: the node says what holds.
    Ask,
    /// What the node's own calendar says holds again.
    Clear,
    /// This holds in the place of the calendar.
    Set {
        /// Bits a second, at least [`LEAST_RATE`]; 0: as much as the link carries.
        rate: u64,
        /// When it ends, in milliseconds since 1970; 0: never.
        until_ms: u64,
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
            Steer::Survey => pb::steer::What::Survey(pb::Survey {}),
            Steer::Cap(cap) => pb::steer::What::Cap(match *cap {
                Cap::Ask => pb::LinkCap { ask: true, ..pb::LinkCap::default() },
                Cap::Clear => pb::LinkCap::default(),
                Cap::Set { rate, until_ms } => {
                    pb::LinkCap { set: true, ask: false, rate, until_ms }
                }
            }),
        };
        pb::Steer { what: Some(what) }
    }

    pub(crate) fn read(steer: pb::Steer) -> Result<Steer, OrderError> {
        Ok(match steer.what.ok_or(OrderError::Work)? {
            pb::steer::What::Parents(parents) => Steer::Parents(parents.addresses),
            pb::steer::What::Avoid(pb::Avoid { relay, on }) => {
                Steer::Avoid { relay: HostId(relay), on }
            }
            pb::steer::What::Survey(pb::Survey {}) => Steer::Survey,
            pb::steer::What::Cap(pb::LinkCap { set, ask, rate, until_ms }) => {
                let plain = !(set && ask) && (set || (rate, until_ms) == (0, 0));
                ensure(plain, "steer.cap", "says more than one thing")?;
                Steer::Cap(match (set, ask) {
                    (true, _) => Cap::Set { rate, until_ms },
                    (false, true) => Cap::Ask,
                    (false, false) => Cap::Clear,
                })
            }
        })
    }

    /// Whether this can be the address of a parent: `host:port`, with a port from 1 on.
    pub fn is_address(text: &str) -> bool {
        let port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
        text.rsplit_once(':').is_some_and(|(host, p)| !host.is_empty() && port(p))
    }

    pub(crate) fn check(&self) -> Result<(), FieldError> {
        if let Steer::Cap(Cap::Set { rate, .. }) = *self {
            return check_rate("steer.cap.rate", rate);
        }
        let Steer::Parents(addresses) = self else { return Ok(()) };
        at_most("steer.parents", addresses.len(), PARENTS)?;
        for address in addresses {
            plain("steer.parents", address, NAME_LIMIT)?;
            let good = Steer::is_address(address);
            ensure(good, "steer.parents", "has an address that is not host:port")?;
        }
        Ok(())
    }
}

/// A rate is none, or one at which a stream of content still moves.
pub(crate) fn check_rate(field: &'static str, rate: u64) -> Result<(), FieldError> {
    ensure(rate == 0 || rate >= LEAST_RATE, field, "is less than 8000 bits a second")
}
