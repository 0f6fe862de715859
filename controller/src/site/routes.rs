//! The part of the operators' API that a relay has, with the words of the controller's.

use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use mesh::OrderId;

use super::Desk;
use crate::answers::Reader;
use crate::api::{Answer, body};
use crate::fault::Failure;
use crate::following::Follower;
use crate::given::Given;
use crate::inventory::{host_infos, link_infos};
use crate::lines::line_stream;
use crate::order_routes::Page;
use crate::orders::{self, blocking};
use crate::past::find;
use crate::sets;
use crate::tables::OrderRow;
use crate::targets::names;
use crate::types::{
    HostInfo, LinkInfo, NewCancel, NewRun, OrderDetail, OrderEvent, OrderInfo, Pace, Resolved,
    Status, Targets,
};

/// The largest request body.
const BODY_LIMIT: usize = 1 << 20;

pub(super) fn router(desk: Desk) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/hosts", get(hosts))
        .route("/v1/links", get(links))
        .route("/v1/resolve", post(resolve))
        .route("/v1/runs", post(run))
        .route("/v1/orders", get(list))
        .route("/v1/orders/{id}", get(order))
        .route("/v1/orders/{id}/events", get(events))
        .route("/v1/orders/{id}/cancel", post(cancel))
        .fallback(|| async {
            let message = "a relay does not do that: it lists nodes, and gives and shows runs";
            Failure::unknown("not-found", message, "ask the controller")
        })
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(desk)
}

async fn status(State(desk): State<Desk>) -> Answer<Status> {
    desk.look().await?;
    let tables = desk.tables.clone();
    let open = blocking(move || Ok(tables.open_orders()?)).await?;
    let state = desk.live.state();
    let up = state.hosts.keys().filter(|id| state.up.contains(**id)).count();
    let identity = desk.credentials.identity();
    Ok(Json(Status {
        mesh: identity.mesh.to_string(),
        version: env!("CARGO_PKG_VERSION").into(),
        listen: desk.node.addr().map_or_else(String::new, |addr| addr.to_string()),
        nodes: state.hosts.len() as u64,
        up: up as u64,
        open_orders: open as u64,
        degraded: desk.node.no_room().unwrap_or_default(),
        retired: 0,
        retired_until_ms: 0,
        events_retired: 0,
        events_retired_until_ms: 0,
        relay: Some(identity.name.clone()),
    }))
}

async fn hosts(State(desk): State<Desk>) -> Answer<Vec<HostInfo>> {
    desk.look().await?;
    let mut infos = host_infos(&desk.live);
    let own = &desk.credentials.identity().name;
    for info in &mut infos {
        // The one that is above its own children here.
        if info.parent == "controller" {
            info.parent = own.clone();
        }
        if info.via == info.name && info.name != *own {
            info.via = own.clone();
        }
    }
    Ok(Json(infos))
}

async fn links(State(desk): State<Desk>) -> Answer<Vec<LinkInfo>> {
    desk.look().await?;
    Ok(Json(link_infos(&desk.live, &desk.meter)))
}

async fn resolve(State(desk): State<Desk>, bytes: Bytes) -> Answer<Resolved> {
    let targets: Targets = body(&bytes)?;
    let set = desk.meant(targets).await?;
    let hosts = names(&desk.known(), &set);
    let set = sets::fold(&hosts);
    Ok(Json(Resolved { hosts, set }))
}

async fn run(State(desk): State<Desk>, bytes: Bytes) -> Answer<OrderInfo> {
    let new: NewRun = body(&bytes)?;
    let mandate = desk.mandate()?;
    if !new.stdin.is_empty() || !new.files.is_empty() {
        return Err(refused("brings no files along", "leave out --stdin and --with"));
    }
    if new.pace != Pace::default() {
        return Err(refused("has no pace", "leave out -f, --batch, -k, ..., or name fewer hosts"));
    }
    if new.hold_ms > new.reach_ms {
        return Err(refused("waits for nobody who is away", "leave out --defer"));
    }
    let targets = desk.meant(new.targets.clone()).await?;
    let hosts = desk.known();
    let draft = orders::Desk::run(&new, targets, Given::default(), &hosts)?;
    let (id, row) = desk.give(&mandate, draft).await?;
    desk.info(id, row).await.map(Json)
}

fn refused(what: &str, help: &str) -> Failure {
    Failure::bad(format!("a run that is given at a relay {what}"), help)
}

async fn cancel(
    State(desk): State<Desk>,
    Path(id): Path<String>,
    bytes: Bytes,
) -> Answer<OrderInfo> {
    let new: NewCancel = body(&bytes)?;
    let mandate = desk.mandate()?;
    let tables = desk.tables.clone();
    let (older, row, tally) = blocking(move || {
        let (id, row) = find(&tables, &id)?;
        Ok((id, row, tables.tally(id)?.0))
    })
    .await?;
    let reach = Duration::from_millis(new.reach_ms);
    let draft = orders::Desk::cancel(older, &row, &tally.settled(), reach)?;
    let (id, row) = desk.give(&mandate, draft).await?;
    desk.info(id, row).await.map(Json)
}

async fn list(
    State(desk): State<Desk>,
    page: Result<Query<Page>, QueryRejection>,
) -> Answer<Vec<OrderInfo>> {
    let Query(page) = page.map_err(|error| Failure::bad(error.body_text(), "see docs/api.md"))?;
    let (hosts, released) = (desk.known(), Default::default());
    let list = move || {
        let reader = Reader { tables: &desk.tables, hosts: &hosts, released: &released };
        let rows = desk.tables.orders(page.limit.min(1_000))?;
        rows.iter().map(|(id, row)| reader.info(*id, row)).collect()
    };
    blocking(list).await.map(Json)
}

async fn order(State(desk): State<Desk>, Path(id): Path<String>) -> Answer<OrderDetail> {
    let (hosts, released) = (desk.known(), Default::default());
    let detail = move || {
        let (id, row) = find(&desk.tables, &id)?;
        Reader { tables: &desk.tables, hosts: &hosts, released: &released }.detail(id, &row)
    };
    blocking(detail).await.map(Json)
}

async fn events(State(desk): State<Desk>, Path(id): Path<String>) -> Result<Response, Failure> {
    desk.look().await?;
    let tables = desk.tables.clone();
    let (id, row) = blocking(move || find(&tables, &id)).await?;
    let (lines, stream) = line_stream::<OrderEvent>();
    let Desk { tables, live, meter, viewers, .. } = desk;
    let follower = Follower { tables, live, meter, viewers };
    tokio::spawn(async move {
        // Whoever listened has gone, or everything is said.
        follower.follow(id, row, false, lines).await.ok();
    });
    Ok(stream)
}

impl Desk {
    /// An order as it stands.
    async fn info(&self, id: OrderId, row: OrderRow) -> Result<OrderInfo, Failure> {
        let (tables, hosts, released) = (self.tables.clone(), self.known(), Default::default());
        let info =
            move || Reader { tables: &tables, hosts: &hosts, released: &released }.info(id, &row);
        blocking(info).await
    }
}
