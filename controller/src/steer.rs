//! Orders about the tree itself: `POST /v1/tree/move`, `/v1/tree/drain` and `/v1/tree/survey`.
//!
//! Each goes to the nodes that are to have another parent, which keep what they have until the new
//! one has spoken, and answer with the parent that they have then. The relay that is drained is not
//! asked: its children know whether they have anybody else, and who has not says so and stays.

use std::time::Duration;

use axum::Json;
use bytes::Bytes;
use mesh::{HostId, HostSet};
use protos::{PARENTS, Steer, Work};

use crate::api::{Answer, Api, Hosts, body};
use crate::asker::Asked;
use crate::fault::Failure;
use crate::orders::{Draft, blocking};
use crate::tables::{HostRow, Tables};
use crate::types::{NewDrain, NewMove, NewSurvey, OrderInfo};

/// The kind of these orders.
const STEER: &str = "steer";
/// What changing over may take at a host.
const LONGEST: Duration = Duration::from_secs(120);
/// How many orders are looked through for those that have drained a relay.
const LOOKED_THROUGH: usize = 10_000;

/// `POST /v1/tree/move`
pub(crate) async fn move_to(Asked(api): Asked, bytes: Bytes) -> Answer<OrderInfo> {
    let new: NewMove = body(&bytes)?;
    check_parents(&new.to)?;
    let (hosts, targets) = api.meant(new.targets).await?;
    let what = match new.to.is_empty() {
        true => "parents as configured".to_owned(),
        false => format!("parents {}", new.to.join(", ")),
    };
    give(&api, hosts, targets, what, Steer::Parents(new.to), new.reach_ms).await
}

/// Refuses, by its name, what can be nobody's address.
fn check_parents(to: &[String]) -> Result<(), Failure> {
    if let Some(wrong) = to.iter().find(|address| !Steer::is_address(address)) {
        let message = format!("{wrong:?} is not the address of a relay");
        return Err(Failure::bad(message, "addresses are host:port, as in relay1.example:7400"));
    }
    if to.len() > PARENTS {
        let message = format!("{} parents; a node has {PARENTS} at most", to.len());
        return Err(Failure::bad(message, "leave out those that are worst"));
    }
    Ok(())
}

/// `POST /v1/tree/drain`
pub(crate) async fn drain(Asked(api): Asked, bytes: Bytes) -> Answer<OrderInfo> {
    let new: NewDrain = body(&bytes)?;
    let hosts = api.live.state().hosts.clone();
    let relay = relay(&hosts, &new.relay)?;
    let children = api.live.state().branches.get(&relay).cloned().unwrap_or_default();
    let what = left(&new.relay);
    let (targets, what) = match new.undo {
        false => (children, what),
        true => {
            let (tables, told) = (api.tables.clone(), what.clone());
            let told = blocking(move || drained(&tables, &told)).await?;
            let known: HostSet = hosts.keys().copied().collect();
            (told.intersection(&known), format!("parent {} again", new.relay))
        }
    };
    if targets.is_empty() {
        let message = match new.undo {
            true => format!("{} was not drained", new.relay),
            false => format!("{} has no children", new.relay),
        };
        return Err(Failure::conflict(message, "barid tree shows who has"));
    }
    give(&api, hosts, targets, what, Steer::Avoid { relay, on: !new.undo }, new.reach_ms).await
}

fn left(relay: &str) -> String {
    format!("leave {relay}")
}

/// `POST /v1/tree/survey`
pub(crate) async fn survey(Asked(api): Asked, bytes: Bytes) -> Answer<OrderInfo> {
    let new: NewSurvey = body(&bytes)?;
    let (hosts, targets) = api.meant(new.targets).await?;
    give(&api, hosts, targets, "parents?".into(), Steer::Survey, new.reach_ms).await
}

/// The number of a node that may have children.
pub(crate) fn relay(hosts: &Hosts, name: &str) -> Result<HostId, Failure> {
    let found = hosts.iter().find(|(_, row): &(&HostId, &HostRow)| row.name == name);
    match found {
        Some((id, row)) if row.role == "relay" => Ok(*id),
        Some(_) => Err(Failure::bad(
            format!("{name} is a host: it has no children"),
            "name the relay that its children are to leave",
        )),
        None => Err(Failure::unknown(
            "unknown-host",
            format!("no relay {name}"),
            "barid tree lists them",
        )),
    }
}

/// Who was told to leave a relay.
fn drained(tables: &Tables, what: &str) -> Result<HostSet, Failure> {
    let orders = tables.orders(LOOKED_THROUGH)?;
    let told = orders.iter().filter(|(_, row)| row.kind == STEER && row.what == what);
    Ok(told.fold(HostSet::default(), |all, (_, row)| all.union(&row.targets())))
}

/// Gives an order about the tree.
pub(crate) async fn give(
    api: &Api,
    hosts: Hosts,
    targets: HostSet,
    what: String,
    steer: Steer,
    reach_ms: u64,
) -> Answer<OrderInfo> {
    let reach = Duration::from_millis(reach_ms);
    let draft = Draft {
        targets,
        needs: Vec::new(),
        reach,
        hold: reach,
        longest: LONGEST,
        kind: STEER,
        what,
        until: None,
        gate: None,
        run: None,
        retries: None,
        work: Work::Steer(steer),
        push: None,
    };
    let (id, row) = api.desk.give(draft).await?;
    api.info(id, row, hosts).await.map(Json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_no_parent_is_refused_by_its_name() {
        let told = |to: &[&str]| {
            let to: Vec<_> = to.iter().map(|address| (*address).to_owned()).collect();
            check_parents(&to).err().map(|failure| failure.error.message)
        };
        assert_eq!(told(&[]), None, "the parents that are configured");
        assert_eq!(told(&["relay1:7400", "10.0.0.1:1", "[::1]:7400"]), None);
        for wrong in ["nonsense", ":7400", "relay1:0", "relay1:seven", "relay1:70000"] {
            let expected = format!("{wrong:?} is not the address of a relay");
            assert_eq!(told(&["relay1:7400", wrong]), Some(expected));
        }
        let nine = Some("9 parents; a node has 8 at most".to_owned());
        assert_eq!(told(&["relay1:7400"; 9]), nine);
    }
}
