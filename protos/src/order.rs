//! Orders: the signed envelope, and what stands in it whatever the kind of work.
//!
//! What travels is the envelope, unchanged from the controller to the last host; the body inside
//! is read and never encoded again. [`OrderBody::check`] holds all limits, so whoever makes an
//! order can ask before signing what every reader will ask after.
//!
//! Not here: what is peculiar to a run, a push, a distribution or steering (each has a file of its
//! own), whether the signature is good, whether the order is meant for this host and mesh, and
//! whether now is between its times.

use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::Bytes;
use mesh::{Digest, Gate, HostSet, Need, OrderId};
use prost::Message;

use crate::field::{
    array, at_most, at_most_bytes, ensure, given, millis, not_empty, plain, within,
};
use crate::steer::check_rate;
use crate::{
    DELEGATED_KIND, Delegate, Delegated, Dist, FRAME_LIMIT, FieldError, Malformed, Push, Run,
    Steer, Terms, gate, hosts, pb, shape,
};

/// The kind of envelope that holds an [`OrderBody`].
pub const ORDER_KIND: &str = "barid.v1.order";

/// The longest envelope: what a frame has room for.
pub const ENVELOPE_LIMIT: usize = FRAME_LIMIT - 64;

/// The longest body: what an envelope has room for.
pub const ORDER_LIMIT: usize = ENVELOPE_LIMIT - 256;

/// The longest time that an order can name, be it of validity, of waiting or of running.
pub const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// The longest name of a person, a user or a parent.
pub(crate) const NAME_LIMIT: usize = 256;
/// The longest path.
pub(crate) const PATH_LIMIT: usize = 4096;
/// The most pieces of content that an order or a part of it names.
pub(crate) const CONTENT_LIMIT: usize = 4096;

/// The most older orders that an order takes the place of.
pub const SUPERSEDED_LIMIT: usize = 64;

const KIND_LIMIT: usize = 64;
const KEY_LIMIT: usize = 64;

/// Bytes that are not an order that anybody should carry out. Nothing has changed; whoever signed
/// it is at fault, or whoever carried it if it was not verified.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// An envelope or a body longer than any may be.
    #[error("the {what} has {found} bytes; the limit is {limit}")]
    TooLong {
        /// The order or the envelope.
        what: &'static str,
        /// How long it may be.
        limit: usize,
        /// How long it is.
        found: usize,
    },
    /// The order asks for nothing that this version knows.
    #[error("the order is for a kind of work that this version does not know")]
    Work,
    /// The bytes are no order.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A field holds what it must not.
    #[error(transparent)]
    Field(#[from] FieldError),
}

/// Something signed: what it is, its bytes, and by which key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// What the body is; part of what is signed. At most 64 bytes.
    pub kind: String,
    /// The bytes that are signed.
    pub body: Bytes,
    /// The signature over kind and body.
    pub signature: [u8; 64],
    /// The id of the key that signed. At most 64 bytes.
    pub key: Bytes,
}

impl Envelope {
    /// The bytes that travel.
    pub fn encode(&self) -> Bytes {
        let envelope = pb::Envelope {
            kind: self.kind.clone(),
            body: self.body.clone(),
            signature: Bytes::copy_from_slice(&self.signature),
            key: self.key.clone(),
        };
        envelope.encode_to_vec().into()
    }

    /// Reads an envelope. The body is a slice of `bytes`.
    pub fn decode(bytes: Bytes) -> Result<Envelope, OrderError> {
        at_most_long("envelope", bytes.len(), ENVELOPE_LIMIT)?;
        let pb::Envelope { kind, body, signature, key } = shape::decode(bytes)?;
        not_empty("envelope.kind", kind.len())?;
        plain("envelope.kind", &kind, KIND_LIMIT)?;
        not_empty("envelope.body", body.len())?;
        not_empty("envelope.key", key.len())?;
        at_most_bytes("envelope.key", key.len(), KEY_LIMIT)?;
        let signature = array("envelope.signature", &signature)?;
        Ok(Envelope { kind, body, signature, key })
    }
}

/// An order in full: to whom, when and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderBody {
    /// The mesh that it is for.
    pub mesh: [u8; 16],
    /// Its id.
    pub id: OrderId,
    /// Who shall carry it out. Never nobody.
    pub targets: HostSet,
    /// The first moment at which it may start, in milliseconds since 1970.
    pub not_before_ms: u64,
    /// The last moment at which it may start, in milliseconds since 1970.
    pub not_after_ms: u64,
    /// How long to wait for a host that cannot be reached before saying so. Times travel in whole
    /// milliseconds, rounded up.
    pub reach: Duration,
    /// How long the order waits at the last parent for a host that is away; at least `reach`.
    pub hold: Duration,
    /// Who gave it, for people to read.
    pub issued_by: String,
    /// Which content whom needs before it can start; 4,096 pieces between them.
    pub needs: Vec<Need>,
    /// If given, hosts begin only a few at a time. Of a run only.
    pub gate: Option<Gate>,
    /// How fast its content may go over each link, in bits a second; 0: as fast as it can.
    pub rate: u64,
    /// Older orders that it takes the place of, and for which of its targets; at most 64.
    pub supersedes: Vec<(OrderId, HostSet)>,
    /// The epoch of the controller that gives it; of an order of a relay 0.
    pub epoch: u64,
    /// What to do.
    pub work: Work,
}

/// What an order asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Run a command.
    Run(Run),
    /// Put files in place.
    Push(Push),
    /// Put many files in place, each by itself.
    Dist(Dist),
    /// Have the content of a push that may come, on the usual terms, and put nothing in place. It
    /// stays at hosts and relays for as long as the order is valid.
    Stage(Push),
    /// Take back another order that expires at the same moment: who has not begun it does not, and
    /// a command that runs is ended.
    Cancel(OrderId),
    /// Have another parent.
    Steer(Steer),
    /// Give orders of its own.
    Delegate(Delegate),
    /// The same, but what runs goes on.
    Recall(OrderId),
    /// Another order has lapsed: tell those who still wait for a release that none will come. What
    /// runs goes on.
    Lapse(OrderId),
}

impl OrderBody {
    /// An order of which nothing but this is said: nobody is waited for, nothing is needed for it,
    /// all begin at once, and it takes no other's place. `valid` is the first and the last moment
    /// at which it may start, in milliseconds since 1970.
    pub fn new(
        mesh: [u8; 16],
        id: OrderId,
        targets: HostSet,
        valid: RangeInclusive<u64>,
        work: Work,
    ) -> OrderBody {
        OrderBody {
            mesh,
            id,
            targets,
            not_before_ms: *valid.start(),
            not_after_ms: *valid.end(),
            reach: Duration::ZERO,
            hold: Duration::ZERO,
            issued_by: String::new(),
            needs: Vec::new(),
            gate: None,
            rate: 0,
            supersedes: Vec::new(),
            epoch: 0,
            work,
        }
    }

    /// The bytes to sign. They decode if [`OrderBody::check`] finds no fault.
    pub fn encode(&self) -> Vec<u8> {
        self.to_pb().encode_to_vec()
    }

    /// The order in an envelope of either kind, without a look at any signature: for bytes that
    /// this node has verified before.
    pub fn of_envelope(bytes: Bytes) -> Result<OrderBody, OrderError> {
        let envelope = Envelope::decode(bytes)?;
        match envelope.kind.as_str() {
            DELEGATED_KIND => OrderBody::decode(&Delegated::decode(&envelope.body)?.order),
            _ => OrderBody::decode(&envelope.body),
        }
    }

    /// Reads a body within all limits.
    pub fn decode(bytes: &[u8]) -> Result<OrderBody, OrderError> {
        at_most_long("order", bytes.len(), ORDER_LIMIT)?;
        let body = read(shape::decode_slice(bytes)?)?;
        check(&body)?;
        Ok(body)
    }

    /// Whether the order is within all limits, so that its bytes decode everywhere.
    pub fn check(&self) -> Result<(), OrderError> {
        at_most_long("order", self.to_pb().encoded_len(), ORDER_LIMIT)?;
        at_most("order.targets", self.targets.ranges().len(), hosts::RANGES)?;
        Ok(check(self)?)
    }

    /// The order as the core knows it. `envelope` is what this body came in, `ttl` what is left of
    /// its validity. Only a run may not be started again.
    pub fn to_mesh(&self, envelope: Bytes, ttl: Duration) -> mesh::Order {
        mesh::Order {
            id: self.id,
            targets: self.targets.clone(),
            needs: self.needs.clone(),
            reach: self.reach,
            hold: self.hold,
            ttl,
            again: !matches!(self.work, Work::Run(_)),
            cancels: match self.work {
                Work::Cancel(older) | Work::Recall(older) | Work::Lapse(older) => Some(older),
                _ => None,
            },
            lapses: matches!(self.work, Work::Lapse(_)),
            supersedes: self.supersedes.clone(),
            gate: self.gate.clone(),
            body: envelope,
        }
    }

    fn to_pb(&self) -> pb::OrderBody {
        let needs = self.needs.iter().map(|need| pb::Need {
            hosts: hosts::encode(&need.hosts),
            content: need.content.iter().map(|id| Bytes::copy_from_slice(&id.0)).collect(),
        });
        pb::OrderBody {
            mesh: Bytes::copy_from_slice(&self.mesh),
            id: Bytes::copy_from_slice(&self.id.0),
            targets: hosts::encode(&self.targets),
            not_before_ms: self.not_before_ms,
            not_after_ms: self.not_after_ms,
            reach_ms: millis(self.reach),
            hold_ms: millis(self.hold),
            issued_by: self.issued_by.clone(),
            needs: needs.collect(),
            work: Some(match &self.work {
                Work::Run(run) => pb::order_body::Work::Run(run.to_pb()),
                Work::Push(push) if push.terms.are_usual() => {
                    pb::order_body::Work::Push(push.to_pb())
                }
                Work::Push(push) => {
                    let (push, terms) = (Some(push.to_pb()), Some(push.terms.to_pb()));
                    pb::order_body::Work::PushOnTerms(pb::PushOnTerms { push, terms })
                }
                Work::Dist(dist) => pb::order_body::Work::Dist(dist.to_pb()),
                Work::Stage(push) => pb::order_body::Work::Stage(push.to_pb()),
                Work::Steer(steer) => pb::order_body::Work::Steer(steer.to_pb()),
                Work::Delegate(delegate) => pb::order_body::Work::Delegate(delegate.to_pb()),
                Work::Cancel(older) | Work::Recall(older) | Work::Lapse(older) => {
                    let order = Bytes::copy_from_slice(&older.0);
                    let lapse = matches!(self.work, Work::Lapse(_));
                    let spare = matches!(self.work, Work::Recall(_));
                    pb::order_body::Work::Cancel(pb::Cancel { order, lapse, spare })
                }
            }),
            gate: self.gate.as_ref().map(gate::encode),
            rate: self.rate,
            supersedes: self.supersedes.iter().map(superseded).collect(),
            epoch: self.epoch,
        }
    }
}

fn superseded((older, hosts): &(OrderId, HostSet)) -> pb::Superseded {
    pb::Superseded { order: Bytes::copy_from_slice(&older.0), hosts: hosts::encode(hosts) }
}

fn read(body: pb::OrderBody) -> Result<OrderBody, OrderError> {
    let need = |need: &pb::Need| -> Result<Need, FieldError> {
        let content = need.content.iter().map(|id| array("need.content", id).map(Digest));
        let hosts = hosts::decode("need.hosts", &need.hosts)?;
        Ok(Need { hosts, content: content.collect::<Result<_, _>>()? })
    };
    let superseded = |row: &pb::Superseded| -> Result<(OrderId, HostSet), FieldError> {
        let older = OrderId(array("superseded.order", &row.order)?);
        Ok((older, hosts::decode("superseded.hosts", &row.hosts)?))
    };
    Ok(OrderBody {
        mesh: array("order.mesh", &body.mesh)?,
        id: OrderId(array("order.id", &body.id)?),
        targets: hosts::decode("order.targets", &body.targets)?,
        not_before_ms: body.not_before_ms,
        not_after_ms: body.not_after_ms,
        reach: Duration::from_millis(body.reach_ms),
        hold: Duration::from_millis(body.hold_ms),
        issued_by: body.issued_by,
        needs: body.needs.iter().map(need).collect::<Result<_, _>>()?,
        gate: body.gate.as_ref().map(gate::decode).transpose()?,
        rate: body.rate,
        supersedes: body.supersedes.iter().map(superseded).collect::<Result<_, _>>()?,
        epoch: body.epoch,
        work: match body.work.ok_or(OrderError::Work)? {
            pb::order_body::Work::Run(run) => Work::Run(Run::read(run)?),
            pb::order_body::Work::Push(push) => Work::Push(Push::read(push, Terms::default())?),
            pb::order_body::Work::PushOnTerms(pb::PushOnTerms { push, terms }) => {
                let terms = Terms::read(given("push_on_terms.terms", terms)?)?;
                Work::Push(Push::read(given("push_on_terms.push", push)?, terms)?)
            }
            pb::order_body::Work::Dist(dist) => Work::Dist(Dist::read(dist)?),
            pb::order_body::Work::Stage(push) => Work::Stage(Push::read(push, Terms::default())?),
            pb::order_body::Work::Steer(steer) => Work::Steer(Steer::read(steer)?),
            pb::order_body::Work::Delegate(delegate) => Work::Delegate(Delegate::read(delegate)?),
            pb::order_body::Work::Cancel(cancel) => {
                let older = OrderId(array("cancel.order", &cancel.order)?);
                match (cancel.lapse, cancel.spare) {
                    (true, _) => Work::Lapse(older),
                    (false, true) => Work::Recall(older),
                    (false, false) => Work::Cancel(older),
                }
            }
        },
    })
}

/// Everything but lengths of bytes and forms of sets, which the types hold already.
fn check(body: &OrderBody) -> Result<(), FieldError> {
    not_empty("order.targets", body.targets.ranges().len())?;
    let validity = (body.not_before_ms.saturating_add(1), {
        body.not_before_ms.saturating_add(millis(LONGEST))
    });
    within("order.not_after_ms", body.not_after_ms, validity)?;
    within("order.hold_ms", millis(body.hold), (0, millis(LONGEST)))?;
    // The hold is at least the reach, so this is the limit of the reach as well.
    within("order.reach_ms", millis(body.reach), (0, millis(body.hold)))?;
    not_empty("order.issued_by", body.issued_by.len())?;
    plain("order.issued_by", &body.issued_by, NAME_LIMIT)?;
    at_most("order.needs", body.needs.len(), CONTENT_LIMIT)?;
    for need in &body.needs {
        not_empty("need.hosts", need.hosts.ranges().len())?;
        at_most("need.hosts", need.hosts.ranges().len(), hosts::RANGES)?;
        not_empty("need.content", need.content.len())?;
    }
    let content = body.needs.iter().map(|need| need.content.len()).sum();
    at_most("need.content", content, CONTENT_LIMIT)?;
    if let Some(gate) = &body.gate {
        ensure(matches!(body.work, Work::Run(_)), "order.gate", "is of a run only")?;
        gate::check(gate)?;
    }
    check_rate("order.rate", body.rate)?;
    check_superseded(body)?;
    match &body.work {
        Work::Run(run) => run.check(),
        Work::Push(push) => push.check(),
        Work::Stage(push) => {
            ensure(push.terms.are_usual(), "order.stage", "has terms")?;
            push.check()
        }
        Work::Dist(dist) => dist.check(),
        Work::Steer(steer) => steer.check(),
        Work::Delegate(delegate) => delegate.check(),
        Work::Cancel(older) | Work::Recall(older) | Work::Lapse(older) => {
            ensure(*older != body.id, "cancel.order", "is the id of the order itself")
        }
    }
}

/// Only what puts files in place has a place to take.
fn check_superseded(body: &OrderBody) -> Result<(), FieldError> {
    at_most("order.supersedes", body.supersedes.len(), SUPERSEDED_LIMIT)?;
    let places = matches!(body.work, Work::Push(_) | Work::Dist(_));
    ensure(places || body.supersedes.is_empty(), "order.supersedes", "is of a push only")?;
    for (older, hosts) in &body.supersedes {
        ensure(*older != body.id, "superseded.order", "is the id of the order itself")?;
        not_empty("superseded.hosts", hosts.ranges().len())?;
        at_most("superseded.hosts", hosts.ranges().len(), hosts::RANGES)?;
        ensure(hosts.is_subset(&body.targets), "superseded.hosts", "are not all targets")?;
    }
    Ok(())
}

pub(crate) fn at_most_long(
    what: &'static str,
    found: usize,
    limit: usize,
) -> Result<(), OrderError> {
    if found > limit { Err(OrderError::TooLong { what, limit, found }) } else { Ok(()) }
}

#[cfg(test)]
#[path = "order_limit_tests.rs"]
mod limit_tests;
#[cfg(test)]
#[path = "order_tests.rs"]
mod tests;
