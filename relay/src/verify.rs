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
use protos::{
    Answer, COLLECT_KIND, DELEGATED_KIND, Dist, Envelope, Fault, ORDER_KIND, OUTPUT_KIND,
    OrderBody, Work,
};

use crate::hash;
use crate::mandate::{self, GivenFault};
use crate::removed::Removed;

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
    /// Of keys and delegations that were taken back.
    removed: Option<Removed>,
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
    #[error(transparent)]
    Given(#[from] GivenFault),
    #[error("the controller has taken back what it let relay {0} order")]
    TakenBack(HostId),
    #[error(
        "given before the controller was restored from a backup: give it again if it is wanted"
    )]
    Over,
    #[error("not valid before {0} s from now: the clocks of controller and host differ")]
    TooEarly(u64),
    #[error("no longer valid since {0} s")]
    TooLate(u64),
    #[error("it was to begin {0} s ago at the latest: its window has closed, or it has expired")]
    Closed(u64),
    #[error("it had to wait here, and may take {longest} s with {left} s left of its validity")]
    NoTime { left: u64, longest: u64 },
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
        Verifier { mesh, key, host, removed: None, good: Mutex::default() }
    }

    /// The same, obeying what was taken back.
    pub(crate) fn heeding(self, removed: Removed) -> Verifier {
        Verifier { removed: Some(removed), ..self }
    }

    /// The order in an envelope, if it may be obeyed here and now.
    pub(crate) fn check(&self, bytes: &Bytes, now: SystemTime) -> Result<OrderBody, Refused> {
        let body = self.genuine(bytes)?;
        let (id, meant) = (Some(body.id), body.targets.contains(self.host));
        let refused = |fault| Refused { id, meant, fault };
        // A relay's own orders have no epoch: what it may order is said by its delegation.
        let is_over = |removed: &Removed| body.id.giver().is_none() && removed.is_over(body.epoch);
        if self.removed.as_ref().is_some_and(is_over) {
            return Err(refused(OrderFault::Over));
        }
        validity(&body, now).map_err(refused)?;
        Ok(body)
    }

    /// Whether a command that had to wait here can still end while its order is remembered: beyond
    /// its validity nobody would take its answer. One that starts at once has the order's margin,
    /// also where clocks differ.
    pub(crate) fn check_end(&self, body: &OrderBody, now: SystemTime) -> Result<(), Refused> {
        let Work::Run(run) = &body.work else { return Ok(()) };
        let refused =
            |fault| Refused { id: Some(body.id), meant: body.targets.contains(self.host), fault };
        let left = validity(body, now).map_err(refused)?;
        if left < run.timeout {
            let (left, longest) = (left.as_secs(), run.timeout.as_secs());
            return Err(refused(OrderFault::NoTime { left, longest }));
        }
        Ok(())
    }

    /// Whether what must begin by a certain moment, as in a window, may still begin.
    pub(crate) fn check_begin(&self, body: &OrderBody, now: SystemTime) -> Result<(), Refused> {
        let Work::Dist(Dist { begin_by_ms: by @ 1.., .. }) = &body.work else { return Ok(()) };
        let Ok(late) = now.duration_since(UNIX_EPOCH + Duration::from_millis(*by)) else {
            return Ok(());
        };
        let (id, meant) = (Some(body.id), body.targets.contains(self.host));
        Err(Refused { id, meant, fault: OrderFault::Closed(late.as_secs()) })
    }

    /// The order in an envelope, if it is genuine. When it may be obeyed is for the hosts to judge:
    /// a relay whose clock is wrong must not keep its whole site from an order. It is remembered
    /// for its whole validity from now on, whatever the clock says: whoever forgets an order that
    /// somebody else may still give could carry it out twice. With it, how fast its content may go.
    pub(crate) fn admit(&self, bytes: &Bytes) -> Result<(Order, u64), Refused> {
        let body = self.genuine(bytes)?;
        let ttl = Duration::from_millis(body.not_after_ms.saturating_sub(body.not_before_ms));
        Ok((body.to_mesh(bytes.clone(), ttl), body.rate))
    }

    fn genuine(&self, bytes: &Bytes) -> Result<OrderBody, Refused> {
        let unreadable = |error: &dyn std::fmt::Display| Refused {
            id: None,
            meant: false,
            fault: OrderFault::Unreadable(error.to_string()),
        };
        let envelope = Envelope::decode(bytes.clone()).map_err(|error| unreadable(&error))?;
        if envelope.kind == DELEGATED_KIND {
            return self.given(bytes, &envelope);
        }
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

    /// The order in an envelope of a relay, if the controller has delegated it and has not taken
    /// that back.
    fn given(&self, bytes: &Bytes, envelope: &Envelope) -> Result<OrderBody, Refused> {
        let claimed = OrderBody::of_envelope(bytes.clone()).ok();
        let id = claimed.as_ref().map(|body| body.id);
        let meant = claimed.is_some_and(|body| body.targets.contains(self.host));
        let refused = |fault| Refused { id, meant, fault };
        let opened = mandate::open_given(envelope, &self.key);
        let (delegation, body) = opened.map_err(|fault| refused(OrderFault::Given(fault)))?;
        if body.mesh != self.mesh.0 {
            return Err(refused(OrderFault::Mesh(MeshId(body.mesh))));
        }
        let gone = |removed: &Removed| removed.has(&delegation.id) || removed.has(&delegation.key);
        match self.removed.as_ref().is_some_and(gone) {
            true => Err(refused(OrderFault::TakenBack(delegation.relay))),
            false => Ok(body),
        }
    }

    /// Whether the controller of this mesh wants to see an output, or to collect something. The
    /// kind is what the body was read as.
    pub(crate) fn check_wish(&self, wish: &Envelope, mesh: [u8; 16]) -> Result<(), OrderFault> {
        if ![OUTPUT_KIND, COLLECT_KIND].contains(&wish.kind.as_str()) {
            return Err(OrderFault::Kind(wish.kind.clone()));
        }
        let good = self.key.verify(&wish.kind, &wish.body, &wish.signature);
        good.map_err(|_| OrderFault::Signature)?;
        if mesh != self.mesh.0 {
            return Err(OrderFault::Mesh(MeshId(mesh)));
        }
        Ok(())
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
            OrderFault::TooLate(_) | OrderFault::NoTime { .. } | OrderFault::Closed(_) => {
                State::Expired
            }
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

#[cfg(test)]
mod tests {
    use mesh::HostSet;
    use protos::Run;

    use super::*;

    const HOST: HostId = HostId(7);

    /// A run of at most a minute, valid for two from the epoch on.
    fn body() -> OrderBody {
        let run = Run { output_limit: 1, ..Run::new(["true"], Duration::from_secs(60)) };
        OrderBody {
            reach: Duration::from_secs(5),
            hold: Duration::from_secs(5),
            issued_by: "operator".into(),
            ..OrderBody::new(
                [1; 16],
                OrderId([2; 16]),
                HostSet::one(HOST),
                0..=120_000,
                Work::Run(run),
            )
        }
    }

    #[test]
    fn what_must_begin_by_a_moment_does_not_begin_from_then_on() {
        let verifier = Verifier::new(MeshId([1; 16]), OrderKey([3; 32]), HOST);
        let check = |begin_by_ms, now_ms| {
            let dist = Dist { items: Vec::new(), frequency: "day".into(), begin_by_ms };
            let body = OrderBody { work: Work::Dist(dist), ..body() };
            verifier.check_begin(&body, UNIX_EPOCH + Duration::from_millis(now_ms))
        };
        assert!(check(60_000, 59_999).is_ok() && check(0, 100_000).is_ok());
        let refused = check(60_000, 63_000).expect_err("the window has closed");
        assert_eq!((refused.state(), refused.meant), (State::Expired, true));
        let text =
            "it was to begin 3 s ago at the latest: its window has closed, or it has expired";
        assert_eq!(refused.fault.to_string(), text);
        assert!(check(60_000, 60_000).is_err(), "it closes at this moment");
        assert!(verifier.check_begin(&body(), UNIX_EPOCH).is_ok(), "a run has no window");
    }

    #[test]
    fn a_command_that_had_to_wait_begins_only_if_it_can_end_in_time() {
        let verifier = Verifier::new(MeshId([1; 16]), OrderKey([3; 32]), HOST);
        let at = |secs| UNIX_EPOCH + Duration::from_secs(secs);
        assert!(verifier.check_end(&body(), at(60)).is_ok());
        let refused = verifier.check_end(&body(), at(61)).expect_err("a second too late");
        assert_eq!(refused.state(), State::Expired);
        let text = refused.fault.to_string();
        assert!(text.contains("60 s") && text.contains("59 s"), "{text}");
        assert!(verifier.check_end(&body(), at(121)).is_err());
        let other = OrderBody { work: Work::Cancel(OrderId([4; 16])), ..body() };
        assert!(verifier.check_end(&other, at(61)).is_ok(), "it takes no time to speak of");
    }
}
