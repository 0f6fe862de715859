//! What there is and who may join: status, hosts, the controller's links, join tokens.
//!
//! Read from what is known now, in the words of the API. Labels, groups and the tree have routes of
//! their own.

use axum::Json;
use axum::extract::{Path, State};
use bytes::Bytes;
use mesh::{HostId, HostSet};

use crate::api::{Answer, Api, body};
use crate::clock::to_ms;
use crate::live::Live;
use crate::orders::blocking;
use crate::sets;
use crate::tables::HostRow;
use crate::traffic::Meter;
use crate::types::{HostInfo, LinkInfo, NewToken, Resolved, Status, Targets, TokenInfo};

/// `GET /v1/status`
pub(crate) async fn status(State(api): State<Api>) -> Answer<Status> {
    let tables = api.tables.clone();
    let counts =
        blocking(move || Ok((tables.open_orders()?, tables.retired()?, tables.events_retired()?)));
    let (open, (retired, retired_until_ms), of_events) = counts.await?;
    let state = api.live.state();
    let up = state.hosts.keys().filter(|id| state.up.contains(**id)).count();
    Ok(Json(Status {
        mesh: api.mesh.clone(),
        version: env!("CARGO_PKG_VERSION").into(),
        listen: api.listen.clone(),
        nodes: state.hosts.len() as u64,
        up: up as u64,
        open_orders: open as u64,
        degraded: api.desk.node.no_room().unwrap_or_default(),
        retired,
        retired_until_ms,
        events_retired: of_events.0,
        events_retired_until_ms: of_events.1,
        relay: None,
    }))
}

/// `GET /v1/hosts`
pub(crate) async fn hosts(State(api): State<Api>) -> Json<Vec<HostInfo>> {
    Json(host_infos(&api.live))
}

/// Everybody who is known, in natural order.
pub(crate) fn host_infos(live: &Live) -> Vec<HostInfo> {
    // Thousands of names are put in order without keeping those waiting who say what happens.
    let (hosts, labels, up, degraded, below, branches, facts, silent) = {
        let state = live.state();
        let (hosts, labels) = (state.hosts.clone(), state.labels.clone());
        let (up, degraded) = (state.up.clone(), state.degraded.clone());
        let (below, branches) = (state.below.clone(), state.branches.clone());
        let (facts, silent) = (state.facts.clone(), state.silent.clone());
        (hosts, labels, up, degraded, below, branches, facts, silent)
    };
    let name = |id: &HostId| hosts.get(id).map_or(String::new(), |row| row.name.clone());
    let via = |id: HostId| {
        let child = below.iter().find(|(_, below)| below.contains(id));
        child.map_or(String::new(), |(child, _)| name(child))
    };
    let parents = mesh::alerts::parents(&below, &branches);
    let parent = |id: &HostId| match parents.get(id) {
        Some(&HostId::ROOT) => "controller".into(),
        Some(parent) => name(parent),
        None => String::new(),
    };
    let host = |(id, row): (&HostId, &HostRow)| {
        let said = facts.get(id).cloned().unwrap_or_default();
        HostInfo {
            id: id.0,
            name: row.name.clone(),
            site: row.site.clone(),
            role: row.role.clone(),
            up: up.contains(*id),
            via: via(*id),
            enrolled_ms: row.enrolled_ms,
            parent: parent(id),
            degraded: degraded.contains(*id),
            stale: silent.contains(*id),
            labels: labels.get(id).cloned().unwrap_or_default(),
            facts: said.facts.clone(),
            facts_ms: said.heard_ms,
        }
    };
    let mut infos: Vec<_> = hosts.iter().map(host).collect();
    infos.sort_by(|a, b| sets::natural_cmp(&a.name, &b.name));
    infos
}

/// `POST /v1/hosts/remove`
pub(crate) async fn remove_hosts(State(api): State<Api>, bytes: Bytes) -> Answer<Resolved> {
    let targets: Targets = body(&bytes)?;
    let (_, ids) = api.meant(targets).await?;
    let gone = blocking(move || api.enroller.remove(&ids)).await?;
    let mut hosts: Vec<String> = gone.into_iter().map(|host| host.name).collect();
    hosts.sort_by(|a, b| sets::natural_cmp(a, b));
    let set = sets::fold(&hosts);
    Ok(Json(Resolved { hosts, set }))
}

/// `GET /v1/links`
pub(crate) async fn links(State(api): State<Api>) -> Json<Vec<LinkInfo>> {
    Json(link_infos(&api.live, &api.meter))
}

/// The links to the node's own children, in natural order.
pub(crate) fn link_infos(live: &Live, meter: &Meter) -> Vec<LinkInfo> {
    let (links, sums) = meter.read();
    let state = live.state();
    let info = |(child, below): (&HostId, &HostSet)| {
        let link = links.iter().find(|link| link.host == *child);
        let row = state.hosts.get(child);
        let sum = sums.get(child).copied().unwrap_or_default();
        LinkInfo {
            name: row.map_or_else(|| format!("#{child}"), |row| row.name.clone()),
            site: row.map_or_else(String::new, |row| row.site.clone()),
            address: link.map_or_else(String::new, |link| link.address.clone()),
            since_ms: link.map_or(0, |link| to_ms(link.since)),
            rtt_us: link.map_or(0, |link| link.rtt_us),
            nodes: below.len(),
            up: below.intersection(&state.up).len(),
            wire_sent: sum.wire_sent,
            wire_received: sum.wire_received,
            content_sent: sum.content_sent,
            content_received: sum.content_received,
            cap: link.map_or(0, |link| link.cap),
            carries: link.map_or(0, |link| link.rate.saturating_mul(8)),
            yields: link.is_some_and(|link| link.yields),
            silent_ms: link
                .map_or(0, |link| u64::try_from(link.silent.as_millis()).unwrap_or(u64::MAX)),
            suspect: link.is_some_and(|link| link.suspect),
        }
    };
    let mut infos: Vec<_> = state.below.iter().filter(|(_, b)| !b.is_empty()).map(info).collect();
    infos.sort_by(|a, b| sets::natural_cmp(&a.name, &b.name));
    infos
}

/// `POST /v1/tokens`
pub(crate) async fn create_token(State(api): State<Api>, bytes: Bytes) -> Answer<TokenInfo> {
    let new: NewToken = body(&bytes)?;
    blocking(move || api.enroller.create(&new)).await.map(Json)
}

/// `GET /v1/tokens`
pub(crate) async fn list_tokens(State(api): State<Api>) -> Answer<Vec<TokenInfo>> {
    blocking(move || api.enroller.list()).await.map(Json)
}

/// `DELETE /v1/tokens/{id}`
pub(crate) async fn revoke_token(State(api): State<Api>, Path(id): Path<String>) -> Answer<()> {
    blocking(move || api.enroller.revoke(&id)).await.map(Json)
}
