//! What this relay may order by itself, and what the order of any such relay must prove.
//!
//! The controller's signed word, a delegation, comes as an order to the relay and is kept in a file
//! with the names of those whom it is about. It names the relay's own key: with it the relay signs
//! its operator's orders, each of which carries the delegation ([`open_given`]). It ends with its
//! time, or when its number or the relay's key is on the list of removed keys, which every host
//! heeds by itself, whatever its relay says.
//!
//! Who gives orders here, and what becomes of them, is not here.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use certs::{Credentials, OrderKey};
use mesh::{HostId, State};
use protos::{
    Answer, DELEGATED_KIND, DELEGATION_KIND, Delegate, Delegated, DelegatedError, Delegation,
    Envelope, KnownNode, OrderBody, OrderError,
};
use tracing::{info, warn};

use crate::exec::failed;
use crate::removed::Removed;

/// The file in the state folder.
const FILE: &str = "mandate";

/// What a relay may order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mandate {
    /// Whom, what, and until when.
    pub delegation: Delegation,
    /// The same as the controller has signed it.
    pub envelope: Bytes,
    /// The names of those whom it is about.
    pub nodes: Vec<KnownNode>,
}

impl Mandate {
    /// Whether it has ended by this clock.
    pub fn is_over(&self, now: SystemTime) -> bool {
        now >= UNIX_EPOCH + Duration::from_millis(self.delegation.until_ms)
    }
}

/// An order of a relay that nobody carries out. Nothing has changed; the relay is at fault, or
/// whoever has carried the order.
#[derive(Debug, thiserror::Error)]
pub enum GivenFault {
    /// Order or delegation cannot be read.
    #[error("a relay's order is not readable: {0}")]
    Unreadable(String),
    /// The controller has not signed the delegation.
    #[error("what the relay may order is not signed by the controller")]
    Delegation,
    /// The relay has not signed the order.
    #[error("the relay that may order it has not signed it")]
    Signature,
    /// It is beyond what was delegated.
    #[error("relay {relay}: {fault}")]
    Beyond {
        /// The relay.
        relay: HostId,
        /// How.
        fault: DelegatedError,
    },
}

/// The order of a relay, proven to be within what the controller has delegated to it. `key` is the
/// controller's. Whether the delegation was taken back is for the caller to ask.
pub fn open_given(
    envelope: &Envelope,
    key: &OrderKey,
) -> Result<(Delegation, OrderBody), GivenFault> {
    let unreadable = |error: OrderError| GivenFault::Unreadable(error.to_string());
    let delegated = Delegated::decode(&envelope.body).map_err(unreadable)?;
    let signed = Envelope::decode(delegated.delegation).map_err(unreadable)?;
    let good = key.verify(DELEGATION_KIND, &signed.body, &signed.signature);
    good.map_err(|_| GivenFault::Delegation)?;
    let delegation = Delegation::try_from(&signed).map_err(unreadable)?;
    let good = OrderKey(delegation.key).verify(DELEGATED_KIND, &envelope.body, &envelope.signature);
    good.map_err(|_| GivenFault::Signature)?;
    let order = OrderBody::decode(&delegated.order).map_err(unreadable)?;
    let relay = delegation.relay;
    delegation.check_order(&order).map_err(|fault| GivenFault::Beyond { relay, fault })?;
    Ok((delegation, order))
}

/// The mandate of one node, if it has any. Clones are the same.
#[derive(Clone)]
pub(crate) struct Mandates(Arc<Inner>);

struct Inner {
    path: PathBuf,
    /// The controller's key.
    key: OrderKey,
    mesh: [u8; 16],
    own: (HostId, [u8; 32]),
    serves: bool,
    removed: Removed,
    held: Mutex<Option<Arc<Mandate>>>,
}

/// Why a mandate is not taken.
#[derive(Debug, thiserror::Error)]
enum MandateError {
    #[error("a host gives no orders: delegate to a relay")]
    Host,
    #[error("it is not readable")]
    Unreadable(#[source] OrderError),
    #[error("the controller has not signed it")]
    Signature,
    #[error("it is not for this relay and its key")]
    Other,
    #[error("{}: writing failed", path.display())]
    Keep { path: PathBuf, source: std::io::Error },
}

impl Mandates {
    /// What was kept. A file that is damaged is as good as none.
    pub(crate) fn open(dir: &Path, credentials: &Credentials, removed: Removed) -> Mandates {
        let identity = credentials.identity();
        let mandates = Mandates(Arc::new(Inner {
            path: dir.join(FILE),
            key: credentials.order_key(),
            mesh: identity.mesh.0,
            own: (HostId(identity.id), credentials.key().public()),
            serves: identity.role.serves(),
            removed,
            held: Mutex::default(),
        }));
        if let Ok(bytes) = std::fs::read(&mandates.0.path) {
            let read = Delegate::decode(&bytes).map_err(MandateError::Unreadable);
            match read.and_then(|delegate| mandates.read(&delegate)) {
                Ok(mandate) => *mandates.held() = Some(Arc::new(mandate)),
                Err(error) => {
                    let path = mandates.0.path.display();
                    warn!(%path, error = %crate::chain(&error), "no orders can be given here");
                }
            }
        }
        mandates
    }

    /// What this relay may order now, as far as it knows.
    pub(crate) fn now(&self) -> Option<Arc<Mandate>> {
        let held = self.held().clone()?;
        (!self.0.removed.has(&held.delegation.id)).then_some(held)
    }

    /// Does what an order says.
    pub(crate) async fn carry_out(&self, delegate: Delegate) -> (State, Answer) {
        let mandates = self.clone();
        let done = tokio::task::spawn_blocking(move || mandates.change(&delegate)).await;
        match done {
            Ok(Ok(())) => (State::Ok, Answer::default()),
            Ok(Err(error @ (MandateError::Host | MandateError::Other))) => {
                let (_, answer) = failed("delegate", "refused", error.to_string());
                (State::Refused, answer)
            }
            Ok(Err(error)) => failed("delegate", "mandate", crate::chain(&error)),
            Err(error) => failed("delegate", "mandate", error.to_string()),
        }
    }

    /// Keeps a mandate, unless there is a later one.
    fn change(&self, delegate: &Delegate) -> Result<(), MandateError> {
        if !self.0.serves {
            return Err(MandateError::Host);
        }
        let path = &self.0.path;
        let mandate = self.read(delegate)?;
        let mut held = self.held();
        let later = |held: &Arc<Mandate>| held.delegation.from_ms > mandate.delegation.from_ms;
        if held.as_ref().is_some_and(later) {
            return Ok(());
        }
        certs::files::replace_secret(path, &delegate.encode()).map_err(|error| {
            let source = std::io::Error::other(error);
            MandateError::Keep { path: path.clone(), source }
        })?;
        info!(nodes = mandate.delegation.scope.len(), "this relay may give orders");
        *held = Some(Arc::new(mandate));
        Ok(())
    }

    fn read(&self, delegate: &Delegate) -> Result<Mandate, MandateError> {
        let envelope = delegate.delegation.clone();
        let signed = Envelope::decode(envelope.clone()).map_err(MandateError::Unreadable)?;
        let good = self.0.key.verify(DELEGATION_KIND, &signed.body, &signed.signature);
        good.map_err(|_| MandateError::Signature)?;
        let delegation = Delegation::try_from(&signed).map_err(MandateError::Unreadable)?;
        let ours = (delegation.relay, delegation.key) == self.0.own;
        match ours && delegation.mesh == self.0.mesh {
            true => Ok(Mandate { delegation, envelope, nodes: delegate.nodes.clone() }),
            false => Err(MandateError::Other),
        }
    }

    fn held(&self) -> MutexGuard<'_, Option<Arc<Mandate>>> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "mandate_tests.rs"]
mod tests;
