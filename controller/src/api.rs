//! The operators' API: HTTP and JSON on a Unix socket that only its owner may open.
//!
//! Requests are checked and resolved here; what they do is done elsewhere. Answers to an order
//! stream as lines of JSON: first what is known, then what comes, until the order closes.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use bytes::Bytes;
use futures_core::Stream;
use mesh::{HostId, HostSet, OrderId};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{RwLock, mpsc};
use tracing::info;

use crate::alerting;
use crate::answers::{self, Reader};
use crate::clock::to_ms;
use crate::enrol::Enroller;
use crate::fault::Failure;
use crate::fleet::dist::Distributor;
use crate::fleet::{self, Fleet};
use crate::given::{PIECE_LIMIT, Pieces};
use crate::groups::Groups;
use crate::labels;
use crate::live::{Live, Update};
use crate::meaning;
use crate::orders::{Desk, Draft, blocking};
use crate::output;
use crate::past::find;
use crate::push::{Packed, Packer};
use crate::retention::Cleaner;
use crate::retry::again;
use crate::sets;
use crate::steer;
use crate::stored;
use crate::tables::{HostRow, OrderRow, Tables};
use crate::traffic::Meter;
use crate::types::{
    HostInfo, LinkInfo, NewCancel, NewPush, NewRetry, NewRollback, NewRun, NewToken, OrderDetail,
    OrderEvent, OrderInfo, Piece, PushEvent, Resolved, Status, Targets, TokenInfo,
};
use crate::viewers::Viewers;
use crate::{events, report};

/// The largest request body.
const BODY_LIMIT: usize = 4 << 20;
/// Lines that may wait for a slow reader.
const LINES: usize = 64;
/// How often a watcher of an order is told how far it is.
const PROGRESS: Duration = Duration::from_millis(500);

/// What the API works with.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) alerts: alerts::Desk,
    pub(crate) fleet: Fleet,
    pub(crate) distributor: Distributor,
    pub(crate) groups: Groups,
    pub(crate) listen: String,
    pub(crate) mesh: String,
    pub(crate) tables: Tables,
    pub(crate) live: Live,
    pub(crate) desk: Desk,
    pub(crate) packer: Packer,
    pub(crate) pieces: Pieces,
    pub(crate) enroller: Enroller,
    pub(crate) meter: Meter,
    pub(crate) viewers: Viewers,
    /// Drops what is over.
    pub(crate) cleaner: Cleaner,
    /// Held for reading while a push is made, so that nothing of it is cleaned away.
    pub(crate) pushes: Arc<RwLock<()>>,
}

pub(crate) type Hosts = Arc<BTreeMap<HostId, HostRow>>;

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::BAD_REQUEST);
        (status, Json(self.error)).into_response()
    }
}

pub(crate) type Answer<T> = Result<Json<T>, Failure>;

pub(crate) fn router(api: Api) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/hosts", get(hosts))
        .route("/v1/hosts/remove", post(remove_hosts))
        .route("/v1/links", get(links))
        .route("/v1/tree/move", post(steer::move_to))
        .route("/v1/tree/drain", post(steer::drain))
        .route("/v1/labels", post(labels::change))
        .route("/v1/resolve", post(meaning::resolve))
        .route("/v1/groups", post(meaning::groups))
        .route("/v1/plan", post(meaning::plan))
        .route("/v1/alerts", get(alerting::list))
        .route("/v1/alerts/ack", post(alerting::ack))
        .route("/v1/alerts/test", post(alerting::test))
        .route("/v1/silences", post(alerting::silence))
        .route("/v1/silences/{id}", delete(alerting::unsilence))
        .route("/v1/tokens", get(list_tokens).post(create_token))
        .route("/v1/tokens/{id}", delete(revoke_token))
        .route("/v1/runs", post(run))
        .route("/v1/pieces", post(piece).layer(DefaultBodyLimit::max(PIECE_LIMIT)))
        .route("/v1/pushes", post(push))
        .route("/v1/fleet/ask", post(fleet::routes::ask))
        .route("/v1/fleet/change", post(fleet::routes::change))
        .route("/v1/fleet/dist", post(fleet::routes::dist))
        .route("/v1/fleet/content", get(fleet::routes::content))
        .route("/v1/events", get(events::events))
        .route("/v1/reports/{kind}", get(report::report))
        .route("/v1/filters/{name}", get(report::filter).put(report::set_filter))
        .route("/v1/rollbacks", post(rollback))
        .route("/v1/store", get(stored::usage))
        .route("/v1/store/check", post(stored::check))
        .route("/v1/store/gc", post(stored::sweep))
        .route("/v1/orders", get(orders))
        .route("/v1/orders/{id}", get(order))
        .route("/v1/orders/{id}/events", get(order_events))
        .route("/v1/orders/{id}/output/{host}", get(output::output))
        .route("/v1/orders/{id}/cancel", post(cancel))
        .route("/v1/orders/{id}/retry", post(retry))
        .fallback(|| async { Failure::unknown("not-found", "there is no such path", "") })
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(api)
}

/// A JSON body whose faults are told in the API's own way.
pub(crate) fn body<T: for<'de> Deserialize<'de>>(bytes: &Bytes) -> Result<T, Failure> {
    serde_json::from_slice(bytes).map_err(|error| {
        Failure::bad(format!("the request is not readable: {error}"), "see docs/api.md")
    })
}

async fn status(State(api): State<Api>) -> Answer<Status> {
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
    }))
}

async fn hosts(State(api): State<Api>) -> Json<Vec<HostInfo>> {
    let state = api.live.state();
    let name = |id: &HostId| state.hosts.get(id).map_or(String::new(), |row| row.name.clone());
    let via = |id: HostId| {
        let child = state.below.iter().find(|(_, below)| below.contains(id));
        child.map_or(String::new(), |(child, _)| name(child))
    };
    let pairs = state.branches.iter();
    let pairs = pairs.flat_map(|(parent, hosts)| hosts.iter().map(move |host| (host, *parent)));
    // A relay that says nothing of it: what lives there is taken for its own.
    let mut parents: BTreeMap<HostId, HostId> = BTreeMap::new();
    for (child, below) in &state.below {
        parents
            .extend(below.iter().map(|id| (id, if id == *child { HostId::ROOT } else { *child })));
    }
    parents.extend(pairs);
    let parent = |id: &HostId| match parents.get(id) {
        Some(&HostId::ROOT) => "controller".into(),
        Some(parent) => name(parent),
        None => String::new(),
    };
    let host = |(id, row): (&HostId, &HostRow)| HostInfo {
        id: id.0,
        name: row.name.clone(),
        site: row.site.clone(),
        role: row.role.clone(),
        up: state.up.contains(*id),
        via: via(*id),
        enrolled_ms: row.enrolled_ms,
        parent: parent(id),
        degraded: state.degraded.contains(*id),
        labels: state.labels.get(id).cloned().unwrap_or_default(),
    };
    let mut hosts: Vec<_> = state.hosts.iter().map(host).collect();
    hosts.sort_by(|a, b| sets::natural_cmp(&a.name, &b.name));
    Json(hosts)
}

async fn remove_hosts(State(api): State<Api>, bytes: Bytes) -> Answer<Resolved> {
    let targets: Targets = body(&bytes)?;
    let (_, ids) = api.meant(targets).await?;
    let gone = blocking(move || api.enroller.remove(&ids)).await?;
    let mut hosts: Vec<String> = gone.into_iter().map(|host| host.name).collect();
    hosts.sort_by(|a, b| sets::natural_cmp(a, b));
    let set = sets::fold(&hosts);
    Ok(Json(Resolved { hosts, set }))
}

async fn links(State(api): State<Api>) -> Json<Vec<LinkInfo>> {
    let (links, sums) = api.meter.read();
    let state = api.live.state();
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
        }
    };
    let mut infos: Vec<_> = state.below.iter().filter(|(_, b)| !b.is_empty()).map(info).collect();
    infos.sort_by(|a, b| sets::natural_cmp(&a.name, &b.name));
    Json(infos)
}

async fn create_token(State(api): State<Api>, bytes: Bytes) -> Answer<TokenInfo> {
    let new: NewToken = body(&bytes)?;
    blocking(move || api.enroller.create(&new)).await.map(Json)
}

async fn list_tokens(State(api): State<Api>) -> Answer<Vec<TokenInfo>> {
    blocking(move || api.enroller.list()).await.map(Json)
}

async fn revoke_token(State(api): State<Api>, Path(id): Path<String>) -> Answer<()> {
    blocking(move || api.enroller.revoke(&id)).await.map(Json)
}

async fn run(State(api): State<Api>, bytes: Bytes) -> Answer<OrderInfo> {
    let new: NewRun = body(&bytes)?;
    let (hosts, targets) = api.meant(new.targets.clone()).await?;
    api.run(new, targets, hosts, None).await.map(Json)
}

async fn piece(State(api): State<Api>, bytes: Bytes) -> Answer<Piece> {
    blocking(move || api.pieces.keep(&bytes)).await.map(Json)
}

async fn retry(State(api): State<Api>, Path(id): Path<String>, bytes: Bytes) -> Answer<OrderInfo> {
    let new: NewRetry = body(&bytes)?;
    let hosts = api.live.state().hosts.clone();
    let tables = api.tables.clone();
    let (older, run, targets) = blocking(move || {
        let (id, row) = find(&tables, &id)?;
        let (run, targets) = again(&row, &tables.tally(id)?.0, &new.states)?;
        Ok((id, run, targets))
    })
    .await?;
    api.run(run, targets, hosts, Some(older)).await.map(Json)
}

async fn push(State(api): State<Api>, bytes: Bytes) -> Result<Response, Failure> {
    let new: NewPush = body(&bytes)?;
    let (hosts, targets) = api.meant(new.targets.clone()).await?;
    let maker = api.clone();
    Ok(pushing(api, hosts, move |tell| {
        let packed = maker.packer.pack(&new, targets, tell)?;
        maker.check_budget(&new, &packed.draft)?;
        Ok(packed)
    }))
}

async fn rollback(State(api): State<Api>, bytes: Bytes) -> Result<Response, Failure> {
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
            push => Some(find(&maker.tables, push)?.1),
        };
        maker.packer.roll_back(&new, of.as_ref(), chosen.as_ref(), &known)
    }))
}

/// Makes a push and gives it; the answer tells how far that is.
fn pushing(
    api: Api,
    hosts: Hosts,
    make: impl FnOnce(&mpsc::Sender<PushEvent>) -> Result<Packed, Failure> + Send + 'static,
) -> Response {
    let (lines, stream) = line_stream::<PushEvent>();
    tokio::spawn(async move {
        let _making = api.pushes.read().await;
        let tell = lines.clone();
        let packed = blocking(move || make(&tell)).await;
        let given = async {
            let Packed { draft, skipped, .. } = packed?;
            if lines.is_closed() {
                info!(what = %draft.what, "not pushed: whoever asked has left while it was packed");
                return Err(Failure::conflict("whoever asked has left", "push again"));
            }
            let (id, row) = api.desk.give(draft).await?;
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

/// How many orders to list.
#[derive(Deserialize)]
struct Page {
    #[serde(default = "Page::default_limit")]
    limit: usize,
}

impl Page {
    fn default_limit() -> usize {
        20
    }
}

async fn orders(
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

async fn order(State(api): State<Api>, Path(id): Path<String>) -> Answer<OrderDetail> {
    let (hosts, released) = api.live.state().known();
    let detail = move || {
        let (id, row) = find(&api.tables, &id)?;
        Reader { tables: &api.tables, hosts: &hosts, released: &released }.detail(id, &row)
    };
    blocking(detail).await.map(Json)
}

async fn cancel(State(api): State<Api>, Path(id): Path<String>, bytes: Bytes) -> Answer<OrderInfo> {
    let new: NewCancel = body(&bytes)?;
    let hosts = api.live.state().hosts.clone();
    let tables = api.tables.clone();
    let (older, row, tally) = blocking(move || {
        let (id, row) = find(&tables, &id)?;
        Ok((id, row, tables.tally(id)?.0))
    })
    .await?;
    let reach = Duration::from_millis(new.reach_ms);
    let draft = api.desk.cancel(older, &row, &tally.settled(), reach)?;
    let (id, row) = api.desk.give(draft).await?;
    api.info(id, row, hosts).await.map(Json)
}

/// What a watcher of an order wants to see beside its answers.
#[derive(Deserialize)]
struct Watching {
    output: Option<OutputWhen>,
}

/// When output is shown.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum OutputWhen {
    /// While it is made, and with the answers.
    Live,
}

async fn order_events(
    State(api): State<Api>,
    Path(id): Path<String>,
    watching: Result<Query<Watching>, QueryRejection>,
) -> Result<Response, Failure> {
    let watching = watching.map_err(|error| Failure::bad(error.body_text(), "see docs/api.md"))?;
    let live = watching.output.is_some();
    let tables = api.tables.clone();
    let (id, row) = blocking(move || find(&tables, &id)).await?;
    let (lines, stream) = line_stream::<OrderEvent>();
    tokio::spawn(async move {
        // Whoever listened has gone, or everything is said.
        api.follow(id, row, live, lines).await.ok();
    });
    Ok(stream)
}

/// A response of JSON lines, and the queue that feeds it.
pub(crate) fn line_stream<T: Serialize + Send + 'static>() -> (mpsc::Sender<T>, Response) {
    let (lines, mut queue) = mpsc::channel::<T>(LINES);
    let stream = Lines(move |context: &mut Context<'_>| {
        queue.poll_recv(context).map(|line| {
            let mut text = serde_json::to_vec(&line?).expect("plain lines are valid JSON");
            text.push(b'\n');
            Some(Ok::<_, Infallible>(Bytes::from(text)))
        })
    });
    let body = Body::from_stream(stream);
    (lines, ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

/// What a queue brings, as the stream of a response's bytes.
pub(crate) fn byte_stream<E>(
    mut queue: mpsc::Receiver<Result<Bytes, E>>,
) -> impl Stream<Item = Result<Bytes, E>> {
    Lines(move |context: &mut Context<'_>| queue.poll_recv(context))
}

impl Api {
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
        let draft = self.desk.run(&new, targets, given, &hosts)?;
        let (id, row) = self.desk.give(Draft { retries, ..draft }).await?;
        self.info(id, row, hosts).await
    }

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

    /// Tells all that is known of an order, and what comes, until it closes. `live`: and what hosts
    /// write meanwhile.
    async fn follow(
        &self,
        id: OrderId,
        row: OrderRow,
        live: bool,
        lines: mpsc::Sender<OrderEvent>,
    ) -> Result<(), Gone> {
        // Watching begins before the tables are read, so that nothing falls between.
        let mut updates = self.live.watch();
        let hosts = self.live.state().hosts.clone();
        let known = self.read(id, row.clone(), hosts.clone()).await?;
        let closed = known.order.closed_ms > 0;
        for answer in known.answers {
            lines.send(OrderEvent::Answer(answer)).await?;
        }
        if closed {
            return Ok(lines.send(OrderEvent::Closed { order: known.order }).await?);
        }
        let tables = self.tables.clone();
        let mut heard = blocking(move || Ok(tables.tally(id)?.0.hosts().clone())).await?;
        let (targets, (_, start)) = (row.targets(), self.meter.read());
        let mut tick = tokio::time::interval(PROGRESS);
        let mut view = self.viewers.view(id, live && row.kind == "run");
        let mut preview = None;
        loop {
            let update = tokio::select! {
                biased;
                update = updates.recv() => update,
                _ = tick.tick() => {
                    lines.send(self.progress(&heard, &targets, &start)).await?;
                    continue;
                }
                // Previews wait for a slow reader here, where they hold up nothing else.
                room = lines.reserve(), if preview.is_some() => {
                    let room = room.map_err(|_| Gone)?;
                    if let Some(event) = preview.take() {
                        room.send(event);
                    }
                    continue;
                }
                said = view.next(), if preview.is_none() => {
                    preview = Some(answers::preview(&hosts, &said));
                    continue;
                }
            };
            match update {
                Ok(Update::Answers(report)) if report.order == id => {
                    heard = heard.union(report.tally.hosts());
                    let (tables, hosts) = (self.tables.clone(), hosts.clone());
                    let targets = targets.clone();
                    let answers = blocking(move || {
                        let released = BTreeMap::new();
                        let reader = Reader { tables: &tables, hosts: &hosts, released: &released };
                        reader.answers(id, &report.tally, &targets, &report.bodies)
                    });
                    for answer in answers.await? {
                        lines.send(OrderEvent::Answer(answer)).await?;
                    }
                }
                Ok(Update::Closed(closed)) if closed == id => {
                    lines.send(self.progress(&heard, &targets, &start)).await?;
                    let now = self.read(id, row, hosts).await?;
                    return Ok(lines.send(OrderEvent::Closed { order: now.order }).await?);
                }
                Ok(other) => debug_assert!(other.order() != id),
                Err(RecvError::Lagged(_)) => return Ok(lines.send(OrderEvent::Lagged).await?),
                Err(RecvError::Closed) => return Ok(()),
            }
        }
    }

    async fn read(&self, id: OrderId, row: OrderRow, hosts: Hosts) -> Result<OrderDetail, Failure> {
        let (tables, released) = (self.tables.clone(), self.live.state().released.clone());
        blocking(move || {
            let row = tables.order(id)?.unwrap_or(row);
            Reader { tables: &tables, hosts: &hosts, released: &released }.detail(id, &row)
        })
        .await
    }

    /// How far an order is. `heard`: those of whom anything is known.
    fn progress(
        &self,
        heard: &HostSet,
        targets: &HostSet,
        start: &BTreeMap<HostId, crate::tables::Traffic>,
    ) -> OrderEvent {
        let (done, total) = (heard.intersection(targets).len(), targets.len());
        let (_, sums) = self.meter.read();
        let state = self.live.state();
        let mut content_sent = BTreeMap::new();
        for (child, sum) in &sums {
            let site = state.hosts.get(child).map_or_else(String::new, |row| row.site.clone());
            let before = start.get(child).map_or(0, |start| start.content_sent);
            *content_sent.entry(site).or_default() += sum.content_sent.saturating_sub(before);
        }
        OrderEvent::Progress { done, total, content_sent }
    }
}

/// A stream made of a function that is polled.
struct Lines<F>(F);

impl<T, F: FnMut(&mut Context<'_>) -> Poll<Option<T>> + Unpin> Stream for Lines<F> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        (self.0)(context)
    }
}

/// A stream that cannot go on: its reader has left, or the tables failed.
pub(crate) struct Gone;

impl<T> From<mpsc::error::SendError<T>> for Gone {
    fn from(_: mpsc::error::SendError<T>) -> Gone {
        Gone
    }
}

impl From<Failure> for Gone {
    fn from(_: Failure) -> Gone {
        Gone
    }
}
