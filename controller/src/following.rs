//! Following one order: first what is known, then what comes, until it closes.
//!
//! What hosts write meanwhile is a preview, shown as far as whoever reads keeps up; answers are
//! never left out. It holds nobody up: a reader who falls too far behind is told so and asks again.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use mesh::{HostId, HostSet, OrderId};
use serde::Deserialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

use crate::answers::{self, Reader};
use crate::api::{Api, Hosts};
use crate::fault::Failure;
use crate::lines::{Gone, line_stream};
use crate::live::{Live, Update};
use crate::orders::blocking;
use crate::past::find;
use crate::tables::{OrderRow, Tables};
use crate::traffic::Meter;
use crate::types::{OrderDetail, OrderEvent};
use crate::viewers::Viewers;

/// How often a watcher of an order is told how far it is.
const PROGRESS: Duration = Duration::from_millis(500);

/// `GET /v1/orders/{id}/events`
pub(crate) async fn order_events(
    State(api): State<Api>,
    Path(id): Path<String>,
    watching: Result<Query<Watching>, QueryRejection>,
) -> Result<Response, Failure> {
    let watching = watching.map_err(|error| Failure::bad(error.body_text(), "see docs/api.md"))?;
    let live = watching.output.is_some();
    let tables = api.tables.clone();
    let (id, row) = blocking(move || find(&tables, &id)).await?;
    let (lines, stream) = line_stream::<OrderEvent>();
    let follower = Follower {
        tables: api.tables.clone(),
        live: api.live.clone(),
        meter: api.meter.clone(),
        viewers: api.viewers.clone(),
    };
    tokio::spawn(async move {
        // Whoever listened has gone, or everything is said.
        follower.follow(id, row, live, lines).await.ok();
    });
    Ok(stream)
}

/// What it takes to follow an order.
pub(crate) struct Follower {
    pub(crate) tables: Tables,
    pub(crate) live: Live,
    pub(crate) meter: Meter,
    pub(crate) viewers: Viewers,
}

/// What a watcher of an order wants to see beside its answers.
#[derive(Deserialize)]
pub(crate) struct Watching {
    output: Option<OutputWhen>,
}

/// When output is shown.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum OutputWhen {
    /// While it is made, and with the answers.
    Live,
}

impl Follower {
    /// Tells all that is known of an order, and what comes, until it closes. `live`: and what hosts
    /// write meanwhile.
    pub(crate) async fn follow(
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
            lines.send(OrderEvent::Answer(Box::new(answer))).await?;
        }
        if closed {
            return Ok(lines.send(OrderEvent::Closed { order: Box::new(known.order) }).await?);
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
                        lines.send(OrderEvent::Answer(Box::new(answer))).await?;
                    }
                }
                Ok(Update::Closed(closed)) if closed == id => {
                    lines.send(self.progress(&heard, &targets, &start)).await?;
                    let now = self.read(id, row, hosts).await?;
                    let order = Box::new(now.order);
                    return Ok(lines.send(OrderEvent::Closed { order }).await?);
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
