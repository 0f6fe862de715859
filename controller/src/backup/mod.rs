//! Backups of the controller, and a controller out of one.
//!
//! Its machine may be lost for good. What another one needs to go on in its place is the
//! authority's keys, the database and the content of files under control, all of one moment; `take`
//! makes such a backup while the controller works, `restore` makes a state folder of it, `layout`
//! is what lies on disk in between. Two controllers with the same keys are told apart by their
//! epochs: the node knows how (`relay::removed`), `tables::restored` what the tables make of it.
//!
//! It moves no backup to another machine; any program that copies folders does.

mod layout;
mod restore;
mod take;

use axum::Json;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use mesh::HostId;

pub use self::layout::BadBackup;
pub use self::restore::{RestoreError, restore};
use self::take::NoBackup;
use crate::api::{Answer, Api, body};
use crate::fault::Failure;
use crate::orders::blocking;
use crate::types::{Backup, ControllerInfo, NewBackup};

/// `POST /v1/backups`
pub(crate) async fn make(State(api): State<Api>, bytes: Bytes) -> Answer<Backup> {
    let new: NewBackup = body(&bytes)?;
    if !new.dir.starts_with('/') {
        let message = format!("`{}` is no absolute path", new.dir);
        return Err(Failure::bad(message, "name the folder from the root on"));
    }
    // Nothing is cleaned away that the backup is about to copy.
    let turn = api.pushes.clone().read_owned().await;
    blocking(move || {
        let _turn = turn;
        self::take::take(&api, &new).map_err(|error| refused(&error))
    })
    .await
    .map(Json)
}

fn refused(error: &NoBackup) -> Failure {
    let text = relay::chain(error);
    match error {
        NoBackup::Busy { .. } => Failure::busy(text),
        NoBackup::Twice { .. } => Failure::conflict(text, "try again in a moment"),
        NoBackup::Mesh { .. } => Failure::conflict(text, "use a folder for each mesh"),
        NoBackup::Disk { source, .. } if content::is_full(source) => {
            Failure::no_room(text).with_help("make room there, or keep fewer backups (--keep)")
        }
        NoBackup::Disk { .. } => Failure::bad(
            text,
            "the controller writes the backup itself: the folder must be one that it may write to",
        ),
        NoBackup::Journal(_) | NoBackup::Store(_) | NoBackup::Needed(_) | NoBackup::Bad(_) => {
            Failure::internal(text)
        }
    }
}

/// `GET /v1/controller`
pub(crate) async fn show(State(api): State<Api>) -> Answer<ControllerInfo> {
    let (known, below) = {
        let state = api.live.state();
        let below = state.below.values().fold(state.up.clone(), |all, set| all.union(set));
        (state.hosts.clone(), below)
    };
    let by = *api.desk.node.superseded().borrow();
    let tables = api.tables.clone();
    let read = move || Ok((tables.origin()?, tables.lost()?, tables.removed_nodes()?));
    let (origin, lost, removed) = blocking(read).await?;
    let unknown = below
        .iter()
        .filter(|id| *id != HostId::ROOT && !known.contains_key(id) && !removed.contains(&id.0));
    Ok(Json(ControllerInfo {
        mesh: api.mesh.clone(),
        epoch: origin.epoch,
        backup_ms: origin.taken_ms,
        superseded_ms: by.unwrap_or_default(),
        lost: lost.iter().map(|(id, _)| id.to_string()).collect(),
        unknown_nodes: unknown.map(|id| id.0).collect(),
    }))
}

/// Lets a controller only answer questions in whose place another was restored.
pub(crate) async fn guard(State(api): State<Api>, request: Request, next: Next) -> Response {
    let is_question = request.method().is_safe();
    let by = *api.desk.node.superseded().borrow();
    match by {
        Some(epoch) if !is_question => superseded(epoch).into_response(),
        _ => next.run(request).await,
    }
}

/// What is said to whoever wants something of such a controller.
pub(crate) fn superseded(epoch: u64) -> Failure {
    let ms = i64::try_from(epoch).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    let at = ms.map_or_else(|| epoch.to_string(), |at| at.strftime("%F %T UTC").to_string());
    let message = format!(
        "another controller was restored from a backup at {at}, and has the nodes: this one is over"
    );
    Failure::conflict(message, "ask the other one; what is here can still be read")
}
