//! Files that this host asks for: `POST /v1/files`, for programs on this machine.
//!
//! The question goes up by the bus, where each relay checks from which host it comes, and only what
//! the controller says of it is passed on. Whether this host may have what it asks for is not
//! known here; who on this machine may ask is for the [`Policy`] to say.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::connect_info::ConnectInfo;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::response::Response;
use axum::routing::post;
use bus::Why;
use bus::files::{FileAsk, FileSaid, SUBJECT};
use bytes::Bytes;
use mesh::HostId;
use relay::Running;
use relay::bus::{Asked, Hub};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use crate::bus::{Failure, Parameters, Whole, line, line_stream, one};
use crate::policy::Policy;
use crate::who::Who;

/// The longest question.
const QUESTION: usize = 32 << 10;
/// How long the last word is awaited, unless the question says otherwise, and at most.
const DEADLINE: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(3600);
/// How long the last line waits for whoever reads slowly.
const LAST: Duration = Duration::from_secs(5);

/// What the route works with.
#[derive(Clone)]
struct Api {
    hub: Hub,
    policy: Arc<Policy>,
}

/// The routes to files of this host.
pub(crate) fn router(node: &Arc<Running>, policy: Arc<Policy>) -> Router {
    Router::new()
        .route("/v1/files", post(ask))
        .layer(DefaultBodyLimit::max(QUESTION))
        .with_state(Api { hub: node.bus().clone(), policy })
}

async fn ask(
    State(api): State<Api>,
    ConnectInfo(who): ConnectInfo<Who>,
    Query(parameters): Parameters,
    Whole(body): Whole,
) -> Result<Response, Failure> {
    api.policy.check_files(who).await?;
    let within = match one(&parameters, "deadline_ms") {
        Err(_) => DEADLINE,
        Ok(text) => {
            let wrong = |_| Failure::bad(format!("deadline_ms is {text:?} and must be a number"));
            Duration::from_millis(text.parse().map_err(wrong)?).min(LONGEST)
        }
    };
    let wrong = |error| Failure::bad(format!("no question about files: {error}"));
    serde_json::from_slice::<FileAsk>(&body).map_err(wrong)?;
    let until = Instant::now() + within;
    let asked = api.hub.ask(SUBJECT, body).await?;
    let (lines, response) = line_stream();
    tokio::spawn(async move {
        let why = match asked.heard {
            true => timeout_at(until, pass_on(asked, &lines)).await.unwrap_or(Some(Why::Deadline)),
            false => Some(Why::Nobody),
        };
        if let Some(why) = why {
            timeout(LAST, lines.send(line(&FileSaid::Nothing(why)))).await.ok();
        }
    });
    Ok(response)
}

/// Passes on what the controller says, to its last word. Returns why that does not come; nothing
/// if it came, or if nobody reads any more.
async fn pass_on(mut asked: Asked, lines: &mpsc::Sender<Bytes>) -> Option<Why> {
    loop {
        let answer = tokio::select! {
            answer = asked.next() => answer,
            () = lines.closed() => return None,
        };
        let Some(answer) = answer else { return Some(Why::Stopped) };
        // Anybody may subscribe to the question; only one may answer it.
        if answer.from != HostId::ROOT {
            continue;
        }
        let Ok(said) = serde_json::from_slice::<FileSaid>(&answer.body) else { continue };
        if lines.send(line(&said)).await.is_err() || said.is_last() {
            return None;
        }
    }
}
