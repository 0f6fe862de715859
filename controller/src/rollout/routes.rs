//! The routes of rollouts: how they stand, and what operators say to them.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use bytes::Bytes;
use mesh::{HostId, OrderId};

use super::course::Stage;
use super::gate::WaveGate;
use super::row::{RolloutRow, WaveOrder, find};
use super::standing::{Standing, at_sites};
use crate::api::{Answer, Api, body};
use crate::clock::now_ms;
use crate::fault::Failure;
use crate::lines::line_stream;
use crate::orders::blocking;
use crate::sets;
use crate::tables::{HostRow, Tables};
use crate::targets::names;
use crate::types::{NewResume, RolloutInfo, WaveInfo};

/// How long a list of rollouts is.
const LISTED: usize = 100;
/// How often whoever watches is told anew at least, since answers move nothing but counts.
const PROGRESS: std::time::Duration = std::time::Duration::from_millis(500);

/// `GET /v1/rollouts`
pub(crate) async fn list(State(api): State<Api>) -> Answer<Vec<RolloutInfo>> {
    let (tables, hosts) = (api.tables.clone(), api.live.state().hosts.clone());
    let list = move || {
        let rows = tables.rollouts()?;
        let some = rows.iter().take(LISTED);
        some.map(|(id, row)| info(&tables, &hosts, *id, row, false)).collect()
    };
    blocking(list).await.map(Json)
}

/// `GET /v1/rollouts/{id}`
pub(crate) async fn show(State(api): State<Api>, Path(id): Path<String>) -> Answer<RolloutInfo> {
    let (tables, hosts) = (api.tables.clone(), api.live.state().hosts.clone());
    let show = move || {
        let (id, row) = find(&tables, &id)?;
        info(&tables, &hosts, id, &row, true)
    };
    blocking(show).await.map(Json)
}

/// `GET /v1/rollouts/{id}/events`: how it stands, whenever that has changed, until it has stopped
/// or is over.
pub(crate) async fn events(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let tables = api.tables.clone();
    let (id, _) = blocking(move || find(&tables, &id)).await?;
    let (lines, stream) = line_stream::<RolloutInfo>();
    tokio::spawn(async move {
        let mut told = None;
        let mut changed = api.rollouts.changed.subscribe();
        loop {
            let (tables, hosts) = (api.tables.clone(), api.live.state().hosts.clone());
            let now = blocking(move || {
                let row = tables.rollout(id)?;
                row.map(|row| info(&tables, &hosts, id, &row, true)).transpose()
            });
            let Ok(Some(now)) = now.await else { return };
            let is_last = !matches!(now.state.as_str(), "running" | "paused");
            if told.as_ref() != Some(&now) && lines.send(now.clone()).await.is_err() {
                return;
            }
            if is_last {
                return;
            }
            told = Some(now);
            tokio::select! {
                _ = changed.changed() => {}
                () = tokio::time::sleep(PROGRESS) => {}
                () = lines.closed() => return,
            }
        }
    });
    Ok(stream)
}

/// `POST /v1/rollouts/{id}/pause`
pub(crate) async fn pause(State(api): State<Api>, Path(id): Path<String>) -> Answer<RolloutInfo> {
    steer(&api, id, |row| match row.pause() {
        true => Ok(()),
        false => Err(format!("the rollout is {} already", row.state())),
    })
    .await
}

/// `POST /v1/rollouts/{id}/abort`
pub(crate) async fn abort(State(api): State<Api>, Path(id): Path<String>) -> Answer<RolloutInfo> {
    steer(&api, id, |row| match row.course.abort() {
        true => Ok(()),
        false => Err(format!("the rollout is {} already", row.state())),
    })
    .await
}

/// `POST /v1/rollouts/{id}/resume`
pub(crate) async fn resume(
    State(api): State<Api>,
    Path(id): Path<String>,
    bytes: Bytes,
) -> Answer<RolloutInfo> {
    let new: NewResume = body(&bytes)?;
    if let Some(gate) = &new.gate {
        let help = "for example ok>=98% errors<=1% soak=10m check=\"COMMAND\"";
        let parsed = gate.parse::<WaveGate>();
        parsed.map_err(|error| Failure::bad(error.to_string(), help))?;
    }
    steer(&api, id, move |row| {
        let was_stopped = matches!(row.course.stage(), Stage::Stopped(_));
        if new.accept && !was_stopped {
            return Err(format!("the rollout is {}: there is nothing to accept", row.state()));
        }
        let has_rest = *row.course.stage() == Stage::Done && !row.left_out.is_empty();
        match has_rest {
            true => row.course.reopen(),
            false if new.accept => {
                row.keep_back();
                row.course.accept();
            }
            false if row.resume() => {}
            false => return Err(format!("the rollout is {}", row.state())),
        }
        // Who takes a wave as it is wants nothing of it once more.
        if (was_stopped && !new.accept) || has_rest {
            (row.again, row.left_out) = (true, Vec::new());
        }
        if let Some(gate) = new.gate {
            row.gate = gate;
            row.course.judge_anew();
        }
        Ok(())
    })
    .await
}

/// Changes a rollout as somebody wants, or says why that makes no sense.
async fn steer(
    api: &Api,
    id: String,
    change: impl FnOnce(&mut RolloutRow) -> Result<(), String> + Send + 'static,
) -> Answer<RolloutInfo> {
    let tables = api.tables.clone();
    let (id, _) = blocking(move || find(&tables, &id)).await?;
    let steered = move |row: &mut RolloutRow| (row.is_over(), change(row));
    let (row, (was_over, result)) = api.rollouts.change(id, steered).await?;
    let help = format!("`barid rollout show {}` tells how it stands", short(id));
    result.map_err(|message| Failure::conflict(message, help))?;
    if was_over && !row.is_over() {
        // Nobody takes it on any more.
        api.rollouts.tell(id).await;
    }
    let (tables, hosts) = (api.tables.clone(), api.live.state().hosts.clone());
    blocking(move || info(&tables, &hosts, id, &row, true)).await.map(Json)
}

/// The end of an id, by which people know it.
pub(super) fn short(id: OrderId) -> String {
    let text = id.to_string();
    text[text.len() - 6..].into()
}

/// A rollout as it stands. Blocks.
pub(super) fn info(
    tables: &Tables,
    hosts: &BTreeMap<HostId, HostRow>,
    id: OrderId,
    row: &RolloutRow,
    in_full: bool,
) -> Result<RolloutInfo, Failure> {
    let (stage, soaks_until_ms, why) = match row.course.stage() {
        Stage::Due if row.course.waits(now_ms()) => ("waiting", 0, String::new()),
        Stage::Due => ("due", 0, String::new()),
        Stage::Given => ("given", 0, String::new()),
        Stage::Soaking(until_ms) => ("soaking", *until_ms, String::new()),
        Stage::Checking => ("checking", 0, String::new()),
        Stage::Stopped(why) => ("", 0, why.clone()),
        Stage::Aborted | Stage::Done => ("", 0, String::new()),
    };
    let (waves, taken_back) = match in_full {
        true => {
            let standing = Standing::read(tables, row)?;
            (waves(tables, hosts, id, (row, &standing))?, standing.owed.len())
        }
        false => (Vec::new(), 0),
    };
    Ok(RolloutInfo {
        short: short(id),
        id: id.to_string(),
        kind: row.kind().into(),
        what: row.what.clone(),
        gate: row.gate.clone(),
        hosts: row.hosts,
        issued_ms: row.issued_ms,
        ended_ms: row.ended_ms,
        state: row.state().into(),
        stage: stage.into(),
        begins_ms: row.course.begins_ms(),
        soaks_until_ms,
        why,
        wave: row.course.wave() as u64 + 1,
        waves,
        left_out: row.left_out.clone(),
        taken_back,
    })
}

fn waves(
    tables: &Tables,
    hosts: &BTreeMap<HostId, HostRow>,
    id: OrderId,
    (row, standing): (&RolloutRow, &Standing),
) -> Result<Vec<WaveInfo>, Failure> {
    let wave = |(at, wave): (usize, mesh::HostSet)| {
        let left_out = at_sites(&wave, &row.left_out, hosts);
        let counted = wave.difference(&left_out);
        let begun = at < row.course.wave() || row.orders.iter().any(|order| order.wave == at);
        let count = if begun { standing.count(&counted) } else { Default::default() };
        let pending = if begun { count.pending() } else { counted.len() };
        let orders = row.orders.iter().filter(|order| order.wave == at);
        WaveInfo {
            hosts: wave.len(),
            set: sets::fold(names(hosts, &wave)),
            ok: count.ok,
            errors: count.errors,
            missed: count.missed,
            pending,
            left_out: left_out.len(),
            superseded: counted.intersection(&standing.superseded).len(),
            orders: orders.filter_map(WaveOrder::id).map(short).collect(),
        }
    };
    Ok(tables.waves(id)?.into_iter().enumerate().map(wave).collect())
}
