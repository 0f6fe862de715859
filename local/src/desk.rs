//! `GET /v1/alerts` of a relay or host: its own alerts, and what it does about them by itself.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use relay::Running;

/// The route.
pub(crate) fn router(node: Arc<Running>) -> Router {
    let handler = move || {
        let node = node.clone();
        async move { told(node.alerts().await) }
    };
    Router::new().route("/v1/alerts", get(handler))
}

fn told(overview: Option<alerts::Overview>) -> Response {
    if let Some(overview) = overview {
        return Json(overview).into_response();
    }
    let message = "this node has no alerts of its own: it was started without an alerts.toml";
    let help = "the controller's are at its own socket: leave --state away";
    let fault = bus::Fault { code: "unknown".into(), message: message.into(), help: help.into() };
    (StatusCode::NOT_FOUND, Json(fault)).into_response()
}
