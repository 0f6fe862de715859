//! Whether an order may be obeyed: by signature, mesh, signer and time, before anything else.
//!
//! Every node checks every order where it comes in, so that a relay passes on nothing that its
//! hosts would refuse, and the host that carries it out has checked it itself. A signature that
//! was good is not computed again when the order starts a moment later. The wall clock is only
//! used for the validity window.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use certs::{MeshId, OrderKey};
use mesh::{Digest, HostId, Order, OrderId, State};
use protos::{Answer, Envelope, Fault, ORDER_KIND, OrderBody};

use crate::hash;

/// How far clocks may differ before an order counts as not valid yet.
const SKEW: Duration = Duration::from_secs(300);

/// How many good envelopes are remembered between their arrival and their start.
const REMEMBERED: usize = 64;

/// Checks orders for one node.
#[derive(Debug)]
pub(crate) struct Verifier {
    pub(crate) mesh: MeshId,
    key: OrderKey,
    host: HostId,
    /// Hashes of the last envelopes whose signatures were good.
    good: Mutex<VecDeque<Digest>>,
}

/// Why an order is not obeyed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OrderFault {
    #[error("the envelope is not readable: {0}")]
    Unreadable(String),
    #[error("signed as `{0}`, which is not an order")]
    Kind(String),
    #[error("the signature is not by the key that this host was given at its enrolment")]
    Signature,
    #[error("meant for another mesh, {0}")]
    Mesh(MeshId),
    #[error("not valid before {0} s from now: the clocks of controller and host differ")]
    TooEarly(u64),
    #[error("no longer valid since {0} s")]
    TooLate(u64),
}

/// An order that is not obeyed, with what can be said about it.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) id: Option<OrderId>,
    /// Whether it claims this host as a target.
    pub(crate) meant: bool,
    pub(crate) fault: OrderFault,
}

impl Verifier {
    pub(crate) fn new(mesh: MeshId, key: OrderKey, host: HostId) -> Verifier {
        Verifier { mesh, key, host, good: Mutex::default() }
    }

    /// The order in an envelope, if it may be obeyed here and now.
    pub(crate) fn check(&self, bytes: &Bytes, now: SystemTime) -> Result<OrderBody, Refused> {
        let body = self.genuine(bytes)?;
        let (id, meant) = (Some(body.id), body.targets.contains(self.host));
        validity(&body, now).map_err(|fault| Refused { id, meant, fault })?;
        Ok(body)
    }

    /// The order in an envelope, if it is genuine. When it may be obeyed is for the hosts to judge:
    /// a relay whose clock is wrong must not keep its whole site from an order. It is remembered
    /// for its whole validity from now on, whatever the clock says: whoever forgets an order that
    /// somebody else may still give could carry it out twice.
    pub(crate) fn admit(&self, bytes: &Bytes) -> Result<Order, Refused> {
        let body = self.genuine(bytes)?;
        let ttl = Duration::from_millis(body.not_after_ms.saturating_sub(body.not_before_ms));
        Ok(body.to_mesh(bytes.clone(), ttl))
    }

    fn genuine(&self, bytes: &Bytes) -> Result<OrderBody, Refused> {
        let unreadable = |error: &dyn std::fmt::Display| Refused {
            id: None,
            meant: false,
            fault: OrderFault::Unreadable(error.to_string()),
        };
        let envelope = Envelope::decode(bytes.clone()).map_err(|error| unreadable(&error))?;
        let body = OrderBody::decode(&envelope.body).map_err(|error| unreadable(&error))?;
        let (id, meant) = (Some(body.id), body.targets.contains(self.host));
        let refused = |fault| Refused { id, meant, fault };
        if envelope.kind != ORDER_KIND {
            return Err(refused(OrderFault::Kind(envelope.kind)));
        }
        self.check_signature(bytes, &envelope).map_err(refused)?;
        if body.mesh != self.mesh.0 {
            return Err(refused(OrderFault::Mesh(MeshId(body.mesh))));
        }
        Ok(body)
    }

    fn check_signature(&self, bytes: &Bytes, envelope: &Envelope) -> Result<(), OrderFault> {
        let name = hash(bytes);
        if self.good().contains(&name) {
            return Ok(());
        }
        self.key
            .verify(ORDER_KIND, &envelope.body, &envelope.signature)
            .map_err(|_| OrderFault::Signature)?;
        let mut good = self.good();
        if good.len() == REMEMBERED {
            good.pop_front();
        }
        good.push_back(name);
        Ok(())
    }

    fn good(&self) -> MutexGuard<'_, VecDeque<Digest>> {
        self.good.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is left of an order's validity, by this node's clock.
fn validity(body: &OrderBody, now: SystemTime) -> Result<Duration, OrderFault> {
    let at = |ms| UNIX_EPOCH + Duration::from_millis(ms);
    if let Ok(early) = at(body.not_before_ms).duration_since(now + SKEW) {
        return Err(OrderFault::TooEarly((early + SKEW).as_secs()));
    }
    let left = at(body.not_after_ms).duration_since(now);
    left.map_err(|error| OrderFault::TooLate(error.duration().as_secs()))
}

impl Refused {
    /// The word for it: an order that came too late has expired, any other is refused.
    pub(crate) fn state(&self) -> State {
        match self.fault {
            OrderFault::TooLate(_) => State::Expired,
            _ => State::Refused,
        }
    }

    /// What the host says of it.
    pub(crate) fn answer(&self) -> Answer {
        let (stage, kind) = ("verify".into(), "refused".into());
        let fault = Fault { stage, kind, detail: self.fault.to_string(), path: Bytes::new() };
        Answer { fault: Some(fault), ..Answer::default() }
    }
}
