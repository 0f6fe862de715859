//! The operators' API: HTTP and JSON on a Unix socket that only its owner may open.
//!
//! What routes work with, which path leads to which of them, and how a body is read. Requests are
//! checked and resolved by the routes, each in the module of what it is about.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router, middleware};
use bytes::Bytes;
use mesh::HostId;
use serde::Deserialize;
use tokio::sync::RwLock;

use crate::caps;
use crate::collect::{self, Collections};
use crate::enrol::Enroller;
use crate::fault::Failure;
use crate::fleet::dist::Distributor;
use crate::fleet::{self, Fleet};
use crate::given::{PIECE_LIMIT, Pieces};
use crate::groups::Groups;
use crate::live::Live;
use crate::orders::Desk;
use crate::push::Packer;
use crate::retention::Cleaner;
use crate::rollout::driver::Rollouts;
use crate::tables::{HostRow, Tables};
use crate::traffic::Meter;
use crate::viewers::Viewers;
use crate::{
    alerting, backup, delegate, events, following, inventory, labels, meaning, order_routes,
    output, planning, report, rollout, stage, steer, stored,
};

/// The largest request body.
const BODY_LIMIT: usize = 4 << 20;

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
    /// Collections that go on.
    pub(crate) collections: Collections,
    /// The controller's private folder.
    pub(crate) state: PathBuf,
    pub(crate) pieces: Pieces,
    pub(crate) enroller: Enroller,
    pub(crate) meter: Meter,
    pub(crate) viewers: Viewers,
    /// What goes out in waves.
    pub(crate) rollouts: Rollouts,
    /// For more hosts than this a push goes out in waves, unless it says otherwise.
    pub(crate) waves_above: u64,
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
        .route("/v1/status", get(inventory::status))
        .route("/v1/hosts", get(inventory::hosts))
        .route("/v1/hosts/remove", post(inventory::remove_hosts))
        .route("/v1/links", get(inventory::links))
        .route("/v1/tree/move", post(steer::move_to))
        .route("/v1/tree/drain", post(steer::drain))
        .route("/v1/tree/cap", post(caps::cap))
        .route("/v1/tree/survey", post(steer::survey))
        .route("/v1/delegations", get(delegate::list).post(delegate::delegate))
        .route("/v1/labels", post(labels::change))
        .route("/v1/resolve", post(meaning::resolve))
        .route("/v1/groups", post(meaning::groups))
        .route("/v1/plan", post(planning::plan))
        .route("/v1/pushes/{id}/start", post(stage::start))
        .route("/v1/alerts", get(alerting::list))
        .route("/v1/alerts/ack", post(alerting::ack))
        .route("/v1/alerts/test", post(alerting::test))
        .route("/v1/silences", post(alerting::silence))
        .route("/v1/silences/{id}", delete(alerting::unsilence))
        .route("/v1/tokens", get(inventory::list_tokens).post(inventory::create_token))
        .route("/v1/tokens/{id}", delete(inventory::revoke_token))
        .route("/v1/runs", post(order_routes::run))
        .route("/v1/pieces", post(order_routes::piece).layer(DefaultBodyLimit::max(PIECE_LIMIT)))
        .route("/v1/pushes", post(order_routes::push))
        .route("/v1/fleet/ask", post(fleet::routes::ask))
        .route("/v1/fleet/change", post(fleet::routes::change))
        .route("/v1/fleet/dist", post(fleet::routes::dist))
        .route("/v1/fleet/content", get(fleet::routes::content))
        .route("/v1/events", get(events::events))
        .route("/v1/reports/{kind}", get(report::report))
        .route("/v1/filters/{name}", get(report::filter).put(report::set_filter))
        .route("/v1/pulls", post(collect::pull))
        .route("/v1/rollbacks", post(order_routes::rollback))
        .route("/v1/rollouts", get(rollout::routes::list))
        .route("/v1/rollouts/{id}", get(rollout::routes::show))
        .route("/v1/rollouts/{id}/events", get(rollout::routes::events))
        .route("/v1/rollouts/{id}/pause", post(rollout::routes::pause))
        .route("/v1/rollouts/{id}/resume", post(rollout::routes::resume))
        .route("/v1/rollouts/{id}/abort", post(rollout::routes::abort))
        .route("/v1/controller", get(backup::show))
        .route("/v1/backups", post(backup::make))
        .route("/v1/store", get(stored::usage))
        .route("/v1/store/check", post(stored::check))
        .route("/v1/store/gc", post(stored::sweep))
        .route("/v1/orders", get(order_routes::orders))
        .route("/v1/orders/{id}", get(order_routes::order))
        .route("/v1/orders/{id}/events", get(following::order_events))
        .route("/v1/orders/{id}/output/{host}", get(output::output))
        .route("/v1/orders/{id}/cancel", post(order_routes::cancel))
        .route("/v1/orders/{id}/retry", post(order_routes::retry))
        .fallback(|| async { Failure::unknown("not-found", "there is no such path", "") })
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(middleware::from_fn_with_state(api.clone(), backup::guard))
        .with_state(api)
}

/// A JSON body whose faults are told in the API's own way.
pub(crate) fn body<T: for<'de> Deserialize<'de>>(bytes: &Bytes) -> Result<T, Failure> {
    serde_json::from_slice(bytes).map_err(|error| {
        Failure::bad(format!("the request is not readable: {error}"), "see docs/api.md")
    })
}
