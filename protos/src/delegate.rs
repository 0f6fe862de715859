//! What the controller lets a relay order by itself, and the orders that such a relay gives.
//!
//! A [`Delegation`] is an envelope that the controller has signed: which relay, by its key, which
//! kinds of orders, for whom, and until when. Each order that the relay gives carries it, in an
//! envelope of a kind of its own that the relay has signed over both. So a host needs to know
//! nothing beforehand but the controller's key, and an older host finds no order in it.
//!
//! [`Delegation::check_order`] has all rules that need neither a clock nor a key. Signatures, and
//! whether the delegation was taken back, are for the caller.

use bytes::Bytes;
use mesh::{HostId, HostSet};
use prost::Message;

use crate::field::{array, at_most, at_most_bytes, ensure, millis, not_empty, plain, within};
use crate::order::{LONGEST, NAME_LIMIT, at_most_long};
use crate::{Envelope, FieldError, ORDER_LIMIT, OrderBody, OrderError, Work, hosts, pb, shape};

/// The kind of envelope that holds a [`Delegation`].
pub const DELEGATION_KIND: &str = "barid.v1.delegation";

/// The kind of envelope that holds a [`Delegated`].
pub const DELEGATED_KIND: &str = "barid.v1.delegated";

/// The longest order of a relay, with its delegation: it must fit into a part of a record.
pub const DELEGATED_LIMIT: usize = 512 << 10;

/// The most nodes that a relay is told the names of.
pub const KNOWN_NODES: usize = 16_384;

/// What a relay may order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delegation {
    /// The mesh.
    pub mesh: [u8; 16],
    /// Its own number, random. On the list of removed keys it is good for nothing any more.
    pub id: [u8; 32],
    /// The relay.
    pub relay: HostId,
    /// The relay's public key.
    pub key: [u8; 32],
    /// For whom. Never nobody.
    pub scope: HostSet,
    /// Whether it may run commands, and take its own runs back.
    pub run: bool,
    /// From when on, in milliseconds since 1970.
    pub from_ms: u64,
    /// Until when, in milliseconds since 1970; at most 366 days later.
    pub until_ms: u64,
}

/// An order of a relay, with what it may order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delegated {
    /// An envelope with the [`Delegation`].
    pub delegation: Bytes,
    /// The bytes of an [`OrderBody`].
    pub order: Bytes,
}

/// What a relay may order from now on. It is taken back by the list of removed keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delegate {
    /// An envelope with the [`Delegation`].
    pub delegation: Bytes,
    /// The names of those whom it is about; at most [`KNOWN_NODES`].
    pub nodes: Vec<KnownNode>,
}

/// A node that a relay is told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownNode {
    /// Its number.
    pub id: HostId,
    /// Its name.
    pub name: String,
    /// Its site; may be empty.
    pub site: String,
    /// Whether it is a relay.
    pub relay: bool,
}

/// An order that goes beyond what was delegated. Nobody carries it out; the relay is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DelegatedError {
    /// It is for another mesh.
    #[error("the order is not for the mesh of its delegation")]
    Mesh,
    /// The id is the controller's, or another relay's.
    #[error("the order's id is not one of that relay's")]
    Id,
    /// Somebody else is meant as well.
    #[error("it is for hosts that were not delegated")]
    Scope,
    /// It does something else.
    #[error("it asks for a kind of work that was not delegated")]
    Kind,
    /// It brings content or lets hosts begin a few at a time.
    #[error("a relay's order brings no files and has no pace")]
    Extent,
    /// It takes back an order of somebody else.
    #[error("it takes back an order that the relay has not given")]
    Cancel,
    /// It is valid longer than the delegation, or sooner.
    #[error("it is valid beyond the time that was delegated")]
    Time,
}

/// How much before its beginning orders of a delegation may be valid, for clocks that lag.
const BACKDATE_MS: u64 = 300_000;

impl Delegation {
    /// The bytes to sign.
    pub fn encode(&self) -> Vec<u8> {
        self.to_pb().encode_to_vec()
    }

    /// Reads a delegation.
    pub fn decode(bytes: &[u8]) -> Result<Delegation, OrderError> {
        at_most_long("delegation", bytes.len(), ORDER_LIMIT)?;
        let found: pb::Delegation = shape::decode_slice(bytes)?;
        let delegation = Delegation {
            mesh: array("delegation.mesh", &found.mesh)?,
            id: array("delegation.id", &found.id)?,
            relay: HostId(found.relay),
            key: array("delegation.key", &found.key)?,
            scope: hosts::decode("delegation.scope", &found.scope)?,
            run: found.run,
            from_ms: found.from_ms,
            until_ms: found.until_ms,
        };
        delegation.check()?;
        Ok(delegation)
    }

    /// Whether it is within all limits.
    pub fn check(&self) -> Result<(), FieldError> {
        ensure(self.relay != HostId::ROOT, "delegation.relay", "is the controller")?;
        not_empty("delegation.scope", self.scope.ranges().len())?;
        at_most("delegation.scope", self.scope.ranges().len(), hosts::RANGES)?;
        let longest = self.from_ms.saturating_add(millis(LONGEST));
        let least = self.from_ms.saturating_add(1);
        within("delegation.until_ms", self.until_ms, (least, longest))
    }

    /// Whether an order of this relay stays within it.
    pub fn check_order(&self, order: &OrderBody) -> Result<(), DelegatedError> {
        if order.mesh != self.mesh {
            return Err(DelegatedError::Mesh);
        }
        if order.id.giver() != Some(self.relay) {
            return Err(DelegatedError::Id);
        }
        if !order.targets.is_subset(&self.scope) {
            return Err(DelegatedError::Scope);
        }
        if !order.needs.is_empty()
            || order.gate.is_some()
            || order.rate != 0
            || !order.supersedes.is_empty()
        {
            return Err(DelegatedError::Extent);
        }
        match &order.work {
            Work::Run(run) if !run.stdin.is_empty() || !run.files.is_empty() => {
                return Err(DelegatedError::Extent);
            }
            Work::Run(_) if self.run => {}
            Work::Cancel(older) if older.giver() != Some(self.relay) => {
                return Err(DelegatedError::Cancel);
            }
            Work::Cancel(_) if self.run => {}
            _ => return Err(DelegatedError::Kind),
        }
        let from = self.from_ms.saturating_sub(BACKDATE_MS);
        match from <= order.not_before_ms && order.not_after_ms <= self.until_ms {
            true => Ok(()),
            false => Err(DelegatedError::Time),
        }
    }

    fn to_pb(&self) -> pb::Delegation {
        pb::Delegation {
            mesh: Bytes::copy_from_slice(&self.mesh),
            id: Bytes::copy_from_slice(&self.id),
            relay: self.relay.0,
            key: Bytes::copy_from_slice(&self.key),
            scope: hosts::encode(&self.scope),
            run: self.run,
            from_ms: self.from_ms,
            until_ms: self.until_ms,
        }
    }
}

impl Delegated {
    /// The bytes to sign.
    pub fn encode(&self) -> Vec<u8> {
        let (delegation, order) = (self.delegation.clone(), self.order.clone());
        pb::Delegated { delegation, order }.encode_to_vec()
    }

    /// Reads both parts.
    pub fn decode(bytes: &[u8]) -> Result<Delegated, OrderError> {
        at_most_long("order", bytes.len(), DELEGATED_LIMIT)?;
        let pb::Delegated { delegation, order } = shape::decode_slice(bytes)?;
        not_empty("delegated.delegation", delegation.len())?;
        not_empty("delegated.order", order.len())?;
        Ok(Delegated { delegation, order })
    }
}

impl Delegate {
    /// The bytes that a relay keeps.
    pub fn encode(&self) -> Vec<u8> {
        self.to_pb().encode_to_vec()
    }

    /// Reads what was kept.
    pub fn decode(bytes: &[u8]) -> Result<Delegate, OrderError> {
        at_most_long("delegate", bytes.len(), ORDER_LIMIT)?;
        let delegate = Delegate::read(shape::decode_slice(bytes)?)?;
        delegate.check()?;
        Ok(delegate)
    }

    pub(crate) fn to_pb(&self) -> pb::Delegate {
        let nodes = self.nodes.iter().map(|node| pb::KnownNode {
            id: node.id.0,
            name: node.name.clone(),
            site: node.site.clone(),
            relay: node.relay,
        });
        pb::Delegate { delegation: self.delegation.clone(), nodes: nodes.collect() }
    }

    pub(crate) fn read(delegate: pb::Delegate) -> Result<Delegate, OrderError> {
        let nodes = delegate.nodes.into_iter().map(|node| KnownNode {
            id: HostId(node.id),
            name: node.name,
            site: node.site,
            relay: node.relay,
        });
        Ok(Delegate { delegation: delegate.delegation, nodes: nodes.collect() })
    }

    pub(crate) fn check(&self) -> Result<(), FieldError> {
        not_empty("delegate.delegation", self.delegation.len())?;
        at_most("delegate.nodes", self.nodes.len(), KNOWN_NODES)?;
        for node in &self.nodes {
            not_empty("known_node.name", node.name.len())?;
            plain("known_node.name", &node.name, NAME_LIMIT)?;
            plain("known_node.site", &node.site, NAME_LIMIT)?;
        }
        at_most_bytes("delegate.delegation", self.delegation.len(), ORDER_LIMIT)
    }
}

/// The delegation in an envelope of its kind.
impl TryFrom<&Envelope> for Delegation {
    type Error = OrderError;

    fn try_from(envelope: &Envelope) -> Result<Delegation, OrderError> {
        let right = envelope.kind == DELEGATION_KIND;
        ensure(right, "envelope.kind", "is not that of a delegation")?;
        Delegation::decode(&envelope.body)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mesh::{Digest, Gate, Need, OrderId};
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{mangle, name, some_bytes, some_hosts};
    use crate::{Part, Run};

    const RELAY: HostId = HostId(7);

    fn delegations() -> impl Strategy<Value = Delegation> {
        let ids = any::<([u8; 16], [u8; 32], [u8; 32])>();
        let time = (0..u64::MAX / 2, 1..=millis(LONGEST));
        (ids, 1u32.., some_hosts(), any::<bool>(), time).prop_map(
            |((mesh, id, key), relay, scope, run, (from_ms, length))| Delegation {
                mesh,
                id,
                relay: HostId(relay),
                key,
                scope,
                run,
                from_ms,
                until_ms: from_ms + length,
            },
        )
    }

    fn delegates() -> impl Strategy<Value = Delegate> {
        let node = (any::<u32>(), name(), "[a-z]{0,5}", any::<bool>());
        let node = node.prop_map(|(id, name, site, relay)| {
            let id = HostId(id);
            KnownNode { id, name, site, relay }
        });
        (some_bytes(40), proptest::collection::vec(node, 0..4))
            .prop_map(|(delegation, nodes)| Delegate { delegation, nodes })
    }

    proptest! {
        #[test]
        fn round_trips(
            delegation in delegations(),
            delegate in delegates(),
            parts in (some_bytes(40), some_bytes(40)),
        ) {
            prop_assert_eq!(Delegation::decode(&delegation.encode()), Ok(delegation));
            prop_assert_eq!(Delegate::decode(&delegate.encode()), Ok(delegate));
            let delegated = Delegated { delegation: parts.0, order: parts.1 };
            prop_assert_eq!(Delegated::decode(&delegated.encode()), Ok(delegated));
        }

        #[test]
        fn mangled_bytes_are_a_delegation_or_an_error(
            bytes in mangle(delegations(), Delegation::encode),
            kept in mangle(delegates(), Delegate::encode),
        ) {
            if let Ok(delegation) = Delegation::decode(&bytes) {
                prop_assert_eq!(Delegation::decode(&delegation.encode()), Ok(delegation));
            }
            if let Ok(delegate) = Delegate::decode(&kept) {
                prop_assert_eq!(Delegate::decode(&delegate.encode()), Ok(delegate));
            }
            Delegated::decode(&bytes).ok();
        }
    }

    fn delegation() -> Delegation {
        Delegation {
            mesh: [1; 16],
            id: [2; 32],
            relay: RELAY,
            key: [3; 32],
            scope: HostSet::from_ranges([(7, 9)]),
            run: true,
            from_ms: 1_000_000,
            until_ms: 2_000_000,
        }
    }

    fn command() -> Run {
        Run { output_limit: 1, ..Run::new(["true"], Duration::from_secs(60)) }
    }

    fn order() -> OrderBody {
        OrderBody {
            reach: Duration::from_secs(5),
            hold: Duration::from_secs(5),
            issued_by: "operator".into(),
            ..OrderBody::new(
                [1; 16],
                OrderId([4; 16]).given_by(RELAY),
                HostSet::from_ranges([(8, 9)]),
                1_000_000..=1_100_000,
                Work::Run(command()),
            )
        }
    }

    #[test]
    fn an_order_must_stay_within_what_was_delegated() {
        let check = |order: OrderBody| delegation().check_order(&order);
        assert_eq!(check(order()), Ok(()));
        let cancel = |older: OrderId| OrderBody { work: Work::Cancel(older), ..order() };
        assert_eq!(check(cancel(OrderId([5; 16]).given_by(RELAY))), Ok(()));
        let backdated = OrderBody { not_before_ms: 700_000, ..order() };
        assert_eq!(check(backdated), Ok(()), "clocks differ");

        let gate = Gate {
            window: 1,
            per_child: None,
            lots: Vec::new(),
            per_lot: mesh::Share::Hosts(1),
            batch: None,
            max_errors: None,
            max_missed: None,
            begin: Duration::from_secs(1),
            longest: Duration::from_secs(1),
        };
        let need = Need { hosts: order().targets, content: vec![Digest([0; 32])] };
        let part = Part { id: Digest([0; 32]), bytes: 1 };
        let reads = Run { stdin: vec![part], ..command() };
        let steer = Work::Steer(crate::Steer::Survey);
        let delegate = Delegate { delegation: "x".into(), nodes: Vec::new() };
        use DelegatedError::{Cancel, Extent, Id, Kind, Mesh, Scope, Time};
        for (order, error) in [
            (OrderBody { mesh: [9; 16], ..order() }, Mesh),
            (OrderBody { id: OrderId([4; 16]), ..order() }, Id),
            (OrderBody { id: OrderId([4; 16]).given_by(HostId(8)), ..order() }, Id),
            (OrderBody { targets: HostSet::from_ranges([(9, 10)]), ..order() }, Scope),
            (OrderBody { gate: Some(gate), ..order() }, Extent),
            (OrderBody { needs: vec![need], ..order() }, Extent),
            (OrderBody { rate: 8_000, ..order() }, Extent),
            (OrderBody { work: Work::Run(reads), ..order() }, Extent),
            (OrderBody { work: steer, ..order() }, Kind),
            (OrderBody { work: Work::Delegate(delegate), ..order() }, Kind),
            (OrderBody { work: Work::Lapse(OrderId([5; 16]).given_by(RELAY)), ..order() }, Kind),
            (cancel(OrderId([5; 16])), Cancel),
            (cancel(OrderId([5; 16]).given_by(HostId(8))), Cancel),
            (OrderBody { not_before_ms: 699_999, ..order() }, Time),
            (OrderBody { not_after_ms: 2_000_001, ..order() }, Time),
        ] {
            assert_eq!(check(order.clone()), Err(error), "{order:?}");
        }
        let nothing = Delegation { run: false, ..delegation() };
        assert_eq!(nothing.check_order(&order()), Err(Kind));
    }

    #[test]
    fn a_delegation_names_a_relay_somebody_and_an_end() {
        let check = |delegation: Delegation| {
            let error = Delegation::decode(&delegation.encode()).expect_err("it is refused");
            error.to_string()
        };
        let root = check(Delegation { relay: HostId::ROOT, ..delegation() });
        assert_eq!(root, "delegation.relay is the controller");
        let nobody = check(Delegation { scope: HostSet::new(), ..delegation() });
        assert_eq!(nobody, "delegation.scope is missing or empty");
        let over = check(Delegation { until_ms: 1_000_000, ..delegation() });
        assert!(over.contains("delegation.until_ms"), "{over}");
        let long = check(Delegation { until_ms: u64::MAX, ..delegation() });
        assert!(long.contains("delegation.until_ms"), "{long}");
    }
}
