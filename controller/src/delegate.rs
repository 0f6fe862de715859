//! What relays' own operators may order: `/v1/delegations`.
//!
//! A delegation is signed for one relay and its key, for a set of nodes and a time. It goes to the
//! relay as an order, with the names of those whom it is about, and takes the place of the one
//! before. It is taken back by the list of removed keys, which every node heeds by itself.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use bytes::Bytes;
use mesh::{HostId, HostSet};
use protos::{DELEGATION_KIND, Delegate, Delegation, Envelope, KNOWN_NODES, KnownNode, Work};

use crate::api::{Answer, Api, Hosts, body};
use crate::asker::Asked;
use crate::clock::now_ms;
use crate::enrol::Enroller;
use crate::fault::Failure;
use crate::orders::{Draft, blocking};
use crate::sets;
use crate::steer::relay;
use crate::tables::given::DelegationRow;
use crate::targets::names;
use crate::types::{Delegated, DelegationInfo, NewDelegation};

/// The kind of the order that tells a relay.
const DELEGATE: &str = "delegate";
/// The longest time for which anything is delegated.
const LONGEST: Duration = Duration::from_secs(90 * 24 * 3600);
/// What keeping it may take at the relay.
const KEEPING: Duration = Duration::from_secs(60);
/// All that can be delegated.
const RUN: &str = "run";

/// `GET /v1/delegations`
pub(crate) async fn list(State(api): State<Api>) -> Answer<Vec<DelegationInfo>> {
    let (hosts, tables) = (api.live.state().hosts.clone(), api.tables.clone());
    let rows = blocking(move || Ok(tables.delegations()?)).await?;
    let now_ms = now_ms();
    Ok(Json(rows.iter().map(|row| info(row, &hosts, now_ms)).collect()))
}

/// `POST /v1/delegations`
pub(crate) async fn delegate(Asked(api): Asked, bytes: Bytes) -> Answer<Delegated> {
    let new: NewDelegation = body(&bytes)?;
    let hosts = api.live.state().hosts.clone();
    let id = relay(&hosts, &new.relay)?;
    if new.for_ms == 0 {
        return take_back(&api, id, &new.relay, &hosts).await.map(Json);
    }
    if Duration::from_millis(new.for_ms) > LONGEST {
        let days = LONGEST.as_secs() / (24 * 3600);
        let message = format!("nothing is delegated for longer than {days} days");
        return Err(Failure::bad(message, "do it anew before it ends"));
    }
    if new.kinds != [RUN] {
        let kinds = new.kinds.join(", ");
        let message = format!("{kinds:?} cannot be delegated");
        return Err(Failure::bad(message, "there is `run`: runs, and taking them back"));
    }
    let scope = match new.targets.clone() {
        Some(targets) => api.meant(targets).await?.1,
        None => below(&api, id),
    };
    let nodes = known(&hosts, &scope.union(&HostSet::one(id)));
    if nodes.len() > KNOWN_NODES {
        let message = format!("a relay can be told of at most {KNOWN_NODES} nodes");
        return Err(Failure::bad(message, "-w SET says for whom"));
    }
    let (from_ms, key) = (now_ms(), hosts[&id].key);
    let delegation = Delegation {
        mesh: api.desk.authority.mesh().0,
        id: certs::random(),
        relay: id,
        key,
        scope,
        run: true,
        from_ms,
        until_ms: from_ms + new.for_ms,
    };
    let row = DelegationRow {
        relay: id.0,
        name: new.relay.clone(),
        scope: delegation.scope.ranges().to_vec(),
        kinds: new.kinds.clone(),
        from_ms,
        until_ms: delegation.until_ms,
        taken_back_ms: 0,
    };
    let draft = draft(&api, &delegation, nodes, &new)?;
    api.desk.sealed(&draft, std::time::SystemTime::now())?;
    let (enroller, kept) = (api.enroller.clone(), row.clone());
    blocking(move || enroller.delegate(delegation.id, &kept)).await?;
    let (order, given) = api.desk.give(draft).await?;
    let order = api.info(order, given, hosts.clone()).await?;
    let delegations = vec![info(&row, &hosts, from_ms)];
    Ok(Json(Delegated { order: Some(order), delegations }))
}

async fn take_back(
    api: &Api,
    relay: HostId,
    name: &str,
    hosts: &Hosts,
) -> Result<Delegated, Failure> {
    let enroller = api.enroller.clone();
    let gone = blocking(move || enroller.take_back(relay)).await?;
    if gone.is_empty() {
        let message = format!("nothing is delegated to {name}");
        return Err(Failure::conflict(message, "`barid tree delegate` lists what is"));
    }
    let now_ms = now_ms();
    let delegations = gone.iter().map(|row| info(row, hosts, now_ms)).collect();
    Ok(Delegated { order: None, delegations })
}

impl Enroller {
    /// Enters what a relay may order; what it might before is taken back. Blocks.
    fn delegate(&self, id: [u8; 32], row: &DelegationRow) -> Result<(), Failure> {
        self.check_room()?;
        self.tables.delegate(id, row, now_ms())?;
        (self.removed)();
        Ok(())
    }

    /// Takes back all that a relay may order, at every node. Blocks.
    fn take_back(&self, relay: HostId) -> Result<Vec<DelegationRow>, Failure> {
        self.check_room()?;
        let gone = self.tables.take_back(relay.0, now_ms())?;
        (self.removed)();
        Ok(gone)
    }

    /// The list of removed keys has room for one more.
    fn check_room(&self) -> Result<(), Failure> {
        match self.removals()?.keys.len() < protos::REMOVED_KEYS {
            true => Ok(()),
            false => {
                let message = "the list of removed keys has no room";
                Err(Failure::conflict(message, "it empties as certificates end"))
            }
        }
    }
}

/// The order that tells the relay. It waits for the relay for as long as the delegation holds.
fn draft(
    api: &Api,
    delegation: &Delegation,
    nodes: Vec<KnownNode>,
    new: &NewDelegation,
) -> Result<Draft, Failure> {
    let help = "name fewer hosts, or a range of them";
    delegation.check().map_err(|error| Failure::bad(error.to_string(), help))?;
    let (bytes, signer) = (delegation.encode(), api.desk.authority.order_signer());
    let envelope = Envelope {
        kind: DELEGATION_KIND.into(),
        signature: signer.sign(DELEGATION_KIND, &bytes),
        key: signer.key().id().into_bytes().into(),
        body: bytes.into(),
    };
    // Each order of the relay has it in itself, with its own targets beside it.
    if envelope.encode().len() > protos::DELEGATED_LIMIT / 4 {
        return Err(Failure::bad("these are too many separate ranges of hosts", help));
    }
    let reach = Duration::from_millis(new.reach_ms);
    let lasts = Duration::from_millis(new.for_ms);
    let what = format!("{} may {}", new.relay, new.kinds.join(", "));
    Ok(Draft {
        targets: HostSet::one(delegation.relay),
        needs: Vec::new(),
        reach: reach.min(lasts),
        hold: lasts,
        longest: KEEPING,
        kind: DELEGATE,
        what,
        until: None,
        gate: None,
        run: None,
        retries: None,
        work: Work::Delegate(Delegate { delegation: envelope.encode(), nodes }),
        push: None,
    })
}

/// The relay and everybody who is known to live below it now.
fn below(api: &Api, relay: HostId) -> HostSet {
    let state = api.live.state();
    if let Some(below) = state.below.get(&relay) {
        return below.union(&HostSet::one(relay));
    }
    let mut all = HostSet::one(relay);
    let mut next = vec![relay];
    while let Some(node) = next.pop() {
        let children = state.branches.get(&node).cloned().unwrap_or_default().difference(&all);
        next.extend(children.iter());
        all = all.union(&children);
    }
    all
}

fn known(hosts: &Hosts, set: &HostSet) -> Vec<KnownNode> {
    let node = |id: HostId| {
        let row = hosts.get(&id)?;
        let (name, site) = (row.name.clone(), row.site.clone());
        Some(KnownNode { id, name, site, relay: row.role == "relay" })
    };
    set.iter().filter_map(node).collect()
}

fn info(row: &DelegationRow, hosts: &Hosts, now_ms: u64) -> DelegationInfo {
    let scope = HostSet::from_ranges(row.scope.iter().copied());
    let state = match row.taken_back_ms {
        0 if row.holds(now_ms) => "holds",
        0 => "ended",
        _ => "taken-back",
    };
    DelegationInfo {
        relay: row.name.clone(),
        state: state.into(),
        kinds: row.kinds.clone(),
        targets: sets::fold(names(hosts, &scope)),
        count: scope.len(),
        from_ms: row.from_ms,
        until_ms: row.until_ms,
    }
}
