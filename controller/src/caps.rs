//! How much content links may carry: `POST /v1/tree/cap`.
//!
//! A cap belongs to the child of a link, which tells its parent. So the order goes to the node that
//! is named, or to those nodes of a site whose parents are elsewhere: what is between them and
//! their parents is the line of the site. Each keeps it, and answers with what holds then.

use std::time::SystemTime;

use bytes::Bytes;
use mesh::HostSet;
use protos::Steer;

use crate::api::{Answer, Api, Hosts, body};
use crate::asker::Asked;
use crate::clock::to_ms;
use crate::fault::Failure;
use crate::live;
use crate::steer::give;
use crate::types::{Cap, NewCap, OrderInfo};

/// `POST /v1/tree/cap`
pub(crate) async fn cap(Asked(api): Asked, bytes: Bytes) -> Answer<OrderInfo> {
    let new: NewCap = body(&bytes)?;
    let now = SystemTime::now();
    let (cap, what) = match new.cap {
        None => (protos::Cap::Ask, format!("cap of {}?", new.name)),
        Some(Cap::Clear) => (protos::Cap::Clear, format!("cap of {} as configured", new.name)),
        Some(Cap::Set { rate, for_ms }) => {
            let rest = if rate == 0 { "none".into() } else { relay::show_rate(rate) };
            let until_ms = match for_ms {
                0 => 0,
                for_ms => to_ms(now).saturating_add(for_ms),
            };
            (protos::Cap::Set { rate, until_ms }, format!("cap of {}: {rest}", new.name))
        }
    };
    let (hosts, targets) = named(&api, &new.name)?;
    give(&api, hosts, targets, what, Steer::Cap(cap), new.reach_ms).await
}

/// Who is meant: the node of that name, or the nodes by which a site hangs on the rest.
fn named(api: &Api, name: &str) -> Result<(Hosts, HostSet), Failure> {
    let state = api.live.state();
    let targets = meant(&state, name);
    if targets.is_empty() {
        let message = format!("no node and no site {name}");
        return Err(Failure::unknown("unknown-host", message, "barid tree lists them"));
    }
    Ok((state.hosts.clone(), targets))
}

fn meant(state: &live::State, name: &str) -> HostSet {
    if let Some((id, _)) = state.hosts.iter().find(|(_, row)| row.name == name) {
        return HostSet::one(*id);
    }
    let parents = mesh::alerts::parents(&state.below, &state.branches);
    let is_here = |id| state.hosts.get(id).is_some_and(|row| row.site == name);
    // Of whom no way is known, the way is not known to be within the site.
    let hangs = |id| parents.get(id).is_none_or(|parent| !is_here(parent));
    let ids = state.hosts.iter().filter(|(_, row)| !name.is_empty() && row.site == name);
    let relays = ids.clone().any(|(_, row)| row.role == "relay");
    ids.filter(|(id, row)| match parents.contains_key(id) {
        true => hangs(id),
        // A host that has never been heard will come by its relay, if there is one.
        false => !relays || row.role == "relay",
    })
    .map(|(id, _)| *id)
    .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use mesh::HostId;

    use super::*;
    use crate::tables::HostRow;

    fn row(name: &str, role: &str, site: &str) -> HostRow {
        let (name, role, site) = (name.into(), role.into(), site.into());
        HostRow { name, role, site, key: [0; 32], enrolled_ms: 0 }
    }

    #[test]
    fn a_site_is_the_nodes_by_which_it_hangs_on_the_rest() {
        let set = |ids: &[u32]| ids.iter().map(|id| HostId(*id)).collect::<HostSet>();
        let rows = [
            (1, row("r1", "relay", "lyon")),
            (2, row("r2", "relay", "lyon")),
            (3, row("web", "host", "lyon")),
            (4, row("past", "host", "lyon")),
            (5, row("new", "host", "lyon")),
            (6, row("old", "relay", "lyon")),
            (7, row("db", "host", "paris")),
            (8, row("lost", "host", "paris")),
        ];
        let hosts = rows.into_iter().map(|(id, row)| (HostId(id), row));
        let mut state = live::State { hosts: Arc::new(hosts.collect()), ..Default::default() };
        state.below = BTreeMap::from([
            (HostId(1), set(&[1, 2, 3])),
            (HostId(4), set(&[4])),
            (HostId(7), set(&[7])),
        ]);
        // The second relay is behind the first.
        state.branches = BTreeMap::from([(HostId(1), set(&[2])), (HostId(2), set(&[3]))]);
        assert_eq!(meant(&state, "lyon"), set(&[1, 4, 6]));
        assert_eq!(meant(&state, "web"), set(&[3]));
        assert_eq!(meant(&state, "paris"), set(&[7, 8]));
        assert!(meant(&state, "").is_empty() && meant(&state, "rome").is_empty());
    }
}
