//! The routes of orders: giving, repeating and taking back, and how those stand that were given.
//!
//! A request is resolved here, and what it wants made by the modules of its kind; a push tells how
//! far that is. Who wants to see an order while it goes on is served by `following`.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use bytes::Bytes;
use mesh::OrderId;
use serde::Deserialize;
use tokio::sync::mpsc;
use tracing::info;

use crate::answers::Reader;
use crate::api::{Answer, Api, Hosts, body};
use crate::asker::Asked;
use crate::fault::Failure;
use crate::lines::line_stream;
use crate::orders::{Desk, Draft, blocking};
use crate::past::{self, find};
use crate::push::Packed;
use crate::retry::again;
use crate::rollout::make::Made;
use crate::rollout::row;
use crate::stage::{StageRow, check_stage};
use crate::tables::{Note, OrderRow, Tables, stages};
use crate::types::{
    NewCancel, NewPush, NewRetry, NewRollback, NewRun, OrderDetail, OrderInfo, Piece, PushEvent,
};

/// `POST /v1/runs`
pub(crate) async fn run(Asked(api): Asked, bytes: Bytes) -> Answer<OrderInfo> {
    let new: NewRun = body(&bytes)?;
    api.give(new).await.map(Json)
}

/// `POST /v1/pieces`
pub(crate) async fn piece(State(api): State<Api>, bytes: Bytes) -> Answer<Piece> {
    blocking(move || api.pieces.keep(&bytes)).await.map(Json)
}

/// `POST /v1/orders/{id}/retry`
pub(crate) async fn retry(
    Asked(api): Asked,
    Path(id): Path<String>,
    bytes: Bytes,
) -> Answer<OrderInfo> {
    let new: NewRetry = body(&bytes)?;
    let hosts = api.live.state().hosts.clone();
    let tables = api.tables.clone();
    let (older, run, targets) = blocking(move || {
        let (id, row) = find(&tables, &id)?;
        let (run, targets) = again(&row, &tables.tally(id)?.0, &new)?;
        Ok((id, run, targets))
    })
    .await?;
    api.run(run, targets, hosts, Some(older)).await.map(Json)
}

/// `POST /v1/pushes`
pub(crate) async fn push(Asked(api): Asked, bytes: Bytes) -> Result<Response, Failure> {
    let new: NewPush = body(&bytes)?;
    let (hosts, targets) = api.meant(new.targets.clone()).await?;
    let maker = api.clone();
    if new.stage {
        check_stage(&new)?;
        if new.waves.is_some() {
            // So it is to be started: what cannot be is not staged either.
            api.waves_of(&new, &targets).await?;
        }
        return Ok(staging(api, hosts, move |tell| {
            let packed = maker.packer.pack(&new, targets, tell)?;
            maker.check_budget(&new, &packed.draft)?;
            StageRow::of(&new, packed)
        }));
    }
    let cut = api.waves_of(&new, &targets).await?;
    if let Some(cut) = cut {
        return Ok(rolling(api, hosts, move |tell| maker.make_rollout(new, targets, cut, tell)));
    }
    Ok(pushing(api, hosts, move |tell| {
        let packed = maker.packer.pack(&new, targets, tell)?;
        maker.check_budget(&new, &packed.draft)?;
        Ok(packed)
    }))
}

/// `POST /v1/rollbacks`
pub(crate) async fn rollback(Asked(api): Asked, bytes: Bytes) -> Result<Response, Failure> {
    let new: NewRollback = body(&bytes)?;
    if new.push.is_empty() == new.dest.is_empty() || (!new.dest.is_empty() && new.targets.is_none())
    {
        let message = "a rollback is of a push, or of a destination at some hosts";
        return Err(Failure::bad(message, "barid rollback PUSH, or --dest PATH -w SET"));
    }
    let chosen = match &new.targets {
        Some(targets) => Some(api.meant(targets.clone()).await?.1),
        None => None,
    };
    let (maker, hosts) = (api.clone(), api.live.state().hosts.clone());
    let known = hosts.clone();
    Ok(pushing(api, hosts, move |_| {
        let of = match new.push.as_str() {
            "" => None,
            push => Some(given_by(&maker.tables, push)?),
        };
        maker.packer.roll_back(&new, of.as_ref(), chosen.as_ref(), &known)
    }))
}

/// The push that a text means; of a rollout, all that it has given so far. Blocks.
fn given_by(tables: &Tables, text: &str) -> Result<OrderRow, Failure> {
    let Some((_, rollout)) = past::rollout(tables, text)? else {
        return Ok(find(tables, text)?.1);
    };
    if !rollout.is_over() && rollout.state() != "stopped" {
        let message = format!("rollout {text} is {}", rollout.state());
        return Err(Failure::conflict(message, format!("`barid rollout abort {text}` first")));
    }
    let mut all: Option<OrderRow> = None;
    for id in rollout.orders.iter().filter_map(row::WaveOrder::id) {
        let Some(order) = tables.order(id)? else { continue };
        let targets = all.as_ref().map(OrderRow::targets).unwrap_or_default();
        let targets = targets.union(&order.targets()).ranges().to_vec();
        all = Some(OrderRow { targets, ..order });
    }
    all.ok_or_else(|| Failure::conflict(format!("rollout {text} has given nothing"), ""))
}

/// `POST /v1/orders/{id}/cancel`
pub(crate) async fn cancel(
    Asked(api): Asked,
    Path(id): Path<String>,
    bytes: Bytes,
) -> Answer<OrderInfo> {
    let new: NewCancel = body(&bytes)?;
    let hosts = api.live.state().hosts.clone();
    let tables = api.tables.clone();
    let (older, row, tally) = blocking(move || {
        let (id, row) = find(&tables, &id)?;
        Ok((id, row, tables.tally(id)?.0))
    })
    .await?;
    let reach = Duration::from_millis(new.reach_ms);
    let draft = Desk::cancel(older, &row, &tally.settled(), reach)?;
    let (id, row) = api.desk.give(draft).await?;
    api.info(id, row, hosts).await.map(Json)
}

/// How many orders to list.
#[derive(Deserialize)]
pub(crate) struct Page {
    #[serde(default = "Page::default_limit")]
    pub(crate) limit: usize,
}

impl Page {
    fn default_limit() -> usize {
        20
    }
}

/// `GET /v1/orders`
pub(crate) async fn orders(
    State(api): State<Api>,
    page: Result<Query<Page>, QueryRejection>,
) -> Answer<Vec<OrderInfo>> {
    let Query(page) = page.map_err(|error| Failure::bad(error.body_text(), "see docs/api.md"))?;
    let (hosts, released) = api.live.state().known();
    let list = move || {
        let reader = Reader { tables: &api.tables, hosts: &hosts, released: &released };
        let rows = api.tables.orders(page.limit.min(1_000))?;
        rows.iter().map(|(id, row)| reader.info(*id, row)).collect()
    };
    blocking(list).await.map(Json)
}

/// `GET /v1/orders/{id}`
pub(crate) async fn order(State(api): State<Api>, Path(id): Path<String>) -> Answer<OrderDetail> {
    let (hosts, released) = api.live.state().known();
    let detail = move || {
        let (id, row) = find(&api.tables, &id)?;
        Reader { tables: &api.tables, hosts: &hosts, released: &released }.detail(id, &row)
    };
    blocking(detail).await.map(Json)
}

impl Api {
    /// Gives a run where its targets are.
    pub(crate) async fn give(&self, new: NewRun) -> Result<OrderInfo, Failure> {
        let (hosts, targets) = self.meant(new.targets.clone()).await?;
        self.run(new, targets, hosts, None).await
    }

    /// Gives a run.
    async fn run(
        &self,
        new: NewRun,
        targets: mesh::HostSet,
        hosts: Hosts,
        retries: Option<OrderId>,
    ) -> Result<OrderInfo, Failure> {
        // What it brings along must not be cleaned away meanwhile.
        let _held = self.pushes.read().await;
        let pieces = self.pieces.clone();
        let (new, given) = blocking(move || {
            let given = pieces.find(&new)?;
            Ok((new, given))
        })
        .await?;
        let draft = Desk::run(&new, targets, given, &hosts)?;
        let (id, row) = self.desk.give(Draft { retries, ..draft }).await?;
        self.info(id, row, hosts).await
    }

    /// An order as it stands.
    pub(crate) async fn info(
        &self,
        id: OrderId,
        row: OrderRow,
        hosts: Hosts,
    ) -> Result<OrderInfo, Failure> {
        let (tables, released) = (self.tables.clone(), self.live.state().released.clone());
        let info =
            move || Reader { tables: &tables, hosts: &hosts, released: &released }.info(id, &row);
        blocking(info).await
    }
}

/// Makes a push and gives it; the answer tells how far that is.
pub(crate) fn pushing(
    api: Api,
    hosts: Hosts,
    make: impl FnOnce(&mpsc::Sender<PushEvent>) -> Result<Packed, Failure> + Send + 'static,
) -> Response {
    giving(api, hosts, move |tell| Ok((make(tell)?, None)))
}

/// What is staged, and what is kept of it.
type Staged = (Packed, StageRow);

/// Makes a stage and gives it, and notes in the same commit what it is a stage of.
fn staging(
    api: Api,
    hosts: Hosts,
    make: impl FnOnce(&mpsc::Sender<PushEvent>) -> Result<Staged, Failure> + Send + 'static,
) -> Response {
    giving(api, hosts, move |tell| {
        let (packed, row) = make(tell)?;
        let note: Note = Box::new(move |txn, id| stages::note_stage(txn, id, &row));
        Ok((packed, Some(note)))
    })
}

fn giving(
    api: Api,
    hosts: Hosts,
    make: impl FnOnce(&mpsc::Sender<PushEvent>) -> Result<(Packed, Option<Note>), Failure>
    + Send
    + 'static,
) -> Response {
    let (lines, stream) = line_stream::<PushEvent>();
    tokio::spawn(async move {
        let _making = api.pushes.read().await;
        let tell = lines.clone();
        let packed = blocking(move || make(&tell)).await;
        let given = async {
            let (Packed { draft, skipped, .. }, note) = packed?;
            if lines.is_closed() {
                info!(what = %draft.what, "not pushed: whoever asked has left while it was packed");
                return Err(Failure::conflict("whoever asked has left", "push again"));
            }
            let (id, row) = api.desk.give_noting(draft, note).await?;
            Ok((api.info(id, row, hosts).await?, skipped))
        };
        let event = match given.await {
            Ok((order, skipped)) => PushEvent::Ordered { order: Box::new(order), skipped },
            Err(Failure { error, .. }) => PushEvent::Failed { error },
        };
        lines.send(event).await.ok();
    });
    stream
}

/// Makes a rollout, which goes on by itself; the answer tells how far that is.
pub(crate) fn rolling(
    api: Api,
    hosts: Hosts,
    make: impl FnOnce(&mpsc::Sender<PushEvent>) -> Result<Made, Failure> + Send + 'static,
) -> Response {
    let (lines, stream) = line_stream::<PushEvent>();
    tokio::spawn(async move {
        let _making = api.pushes.read().await;
        let tell = lines.clone();
        let made = blocking(move || make(&tell)).await;
        let begun = async { api.rollouts.begin(made?, hosts).await };
        let event = begun.await.unwrap_or_else(|Failure { error, .. }| PushEvent::Failed { error });
        lines.send(event).await.ok();
    });
    stream
}
