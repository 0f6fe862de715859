//! `GET /metrics` of a node.

use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use metrics::CONTENT_TYPE;
use relay::Running;
use tokio::sync::Semaphore;

/// Pages that are made at once; whoever asks meanwhile is to come again.
const PAGES: usize = 4;

/// The route to the metrics of a node that is not the controller.
pub fn metrics_of(node: Arc<Running>) -> Router {
    let turns = Arc::new(Semaphore::new(PAGES));
    let handler = move || {
        let (node, turns) = (node.clone(), turns.clone());
        async move {
            match turns.try_acquire() {
                Ok(_turn) => page(node.metrics().await.text()),
                Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
            }
        }
    };
    Router::new().route("/metrics", get(handler))
}

/// A page as an answer.
pub fn page(text: String) -> Response {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response()
}
