//! `GET /v1/standing`: how this node stands with those above and below it, for its own machine.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use relay::Running;
use serde::{Deserialize, Serialize};

/// How a node stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Since when the controller's word was fresh here.
    pub controller_age_ms: u64,
    /// Whether the node has a parent.
    pub linked: bool,
    /// How many nodes are below it.
    pub below: u64,
    /// Of them those that are reachable.
    pub up: u64,
}

/// The route.
pub(crate) fn router(node: Arc<Running>) -> Router {
    let handler = move || {
        let node = node.clone();
        async move { told(node.standing().await) }
    };
    Router::new().route("/v1/standing", get(handler))
}

fn told(standing: Option<relay::Standing>) -> Response {
    let Some(standing) = standing else {
        let message = "the node does not say how it stands";
        let fault = bus::Fault { code: "busy".into(), message: message.into(), help: "".into() };
        return (StatusCode::SERVICE_UNAVAILABLE, Json(fault)).into_response();
    };
    let relay::Standing { controller_age, linked, below, up, .. } = standing;
    let controller_age_ms = u64::try_from(controller_age.as_millis()).unwrap_or(u64::MAX);
    Json(Standing { controller_age_ms, linked, below, up }).into_response()
}
